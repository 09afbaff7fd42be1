"""The canvas: shows a document through a viewport, and sends no more than has changed.

Layers from bottom to top: photograph, mask, latent grid, sketch (brush ring, shape in the making, grips). The top
layer receives the mouse. What shapes this room is told in `workbench.widgets.stage`: ipycanvas keeps no pixels, lays
pictures over what is there, and must not meet an exception while drawing is held back.
"""

from collections.abc import Callable

import ipywidgets
import numpy as np
from ipycanvas import MultiCanvas

from workbench import image
from workbench.widgets.mask_editor import layers
from workbench.widgets.mask_editor.document import Box, MaskDocument
from workbench.widgets.mask_editor.viewport import Viewport
from workbench.widgets.stage import drawing
from workbench.widgets.timing import AtRest, Throttle

PHOTOGRAPH, MASK, LATENTS, SKETCH = range(4)

DENSITY = 1.25
"""Canvas pixels to a CSS pixel: keeps lines crisp on screens, and at browser zooms, of more than one to one."""

REDRAWS_PER_SECOND = 30


class CanvasView:
    """A document on a canvas.

    Args:
        document: what to show.
        max_view: longest side of the canvas in its own pixels.
        attempt: calls a function for a timer, and shows what goes wrong.
    """

    def __init__(self, document: MaskDocument, max_view: int, attempt: Callable):
        self.document = document
        self.viewport = Viewport(document.size, max_view)
        self.canvas = MultiCanvas(4)
        self.canvas.layout.max_width = "100%"
        self.canvas.layout.height = "auto"
        self.show_latents = False
        self._sketch: tuple = ()
        self._photograph, self._detail = ipywidgets.Image(format="png"), ipywidgets.Image(format="png")
        self._detail_box: Box | None = None
        self._sent = None  # the photograph that the browser has
        self._dirty: Box | None = None  # where the mask has to be drawn anew
        self._all_dirty = True
        self._draw_soon = Throttle(self._draw, REDRAWS_PER_SECOND, attempt)
        self._sharpen_at_rest = AtRest(self.sharpen, 0.25, attempt)
        document.observe(self.refresh)
        self.show_photograph()

    def close(self) -> None:
        """Stops drawing for good: a message to a closed canvas would silence all others."""
        self.document.unobserve(self.refresh)
        self._draw_soon.cancel()
        self._sharpen_at_rest.cancel()
        for widget in (*self.canvas._canvases, self.canvas, self._photograph, self._detail):
            widget.close()

    def show_photograph(self, room: float = 0.0) -> None:
        """Sends the photograph, no larger than it is shown, and fits it in with ``room`` (a share of it) round it."""
        self.viewport.show(self.document.size, room)
        height, width = self.viewport.canvas_size
        self.canvas.width, self.canvas.height = width, height
        self.canvas.layout.width = f"{round(width / DENSITY)}px"
        if self._sent is not self.document.image:
            self._sent = self.document.image
            self._photograph.value = image.to_png(image.fit(self._sent, self.viewport.max_view))
            self._detail.value = b""
        self.redraw()

    def refresh(self, box: Box | None = None) -> None:
        """The mask changed inside ``box`` of the picture; None: everything did, and maybe the photograph."""
        if box is None:
            self.show_photograph(self.viewport.room)
        else:
            self._dirty = box if self._dirty is None else _union(self._dirty, box)
            self._draw_soon.request()

    def move(self) -> None:
        """The viewport was moved: everything has to be drawn, soon, and in full resolution once it rests."""
        self._all_dirty = True
        self._draw_soon.request()
        self._sharpen_at_rest.request()

    def draw_sketch(self, *shapes) -> None:
        """Replaces what the top layer shows by shapes from `sketch`."""
        if shapes != self._sketch:
            self._sketch = shapes
            self._draw_soon.request()

    def redraw(self) -> None:
        """Draws everything, now: the canvas of a reopened page is empty."""
        self._all_dirty = True
        self._draw_soon.request()
        self.flush()

    def flush(self) -> None:
        """Draws what waits to be drawn, now."""
        self._draw_soon.flush()

    def sharpen(self) -> None:
        """Sends the part of a large photograph that is to be seen in its own resolution, where it is enlarged."""
        picture, viewport = self.document.image, self.viewport
        x0, y0, x1, y1 = viewport.picture_box()
        if max(picture.shape[-2:]) <= viewport.max_view or viewport.fitted or x1 <= x0 or y1 <= y0:
            return
        self._detail.value = image.to_png(image.fit(picture[..., y0:y1, x0:x1], viewport.max_view))
        self._detail_box = (x0, y0, x1, y1)
        self.redraw()

    def _draw(self) -> None:
        """Works out first what to draw, then draws it in one message."""
        everything, self._all_dirty = self._all_dirty, False
        box, self._dirty = self._dirty, None
        films = self._films(None if everything else box) if everything or box else []
        with drawing(self.canvas):
            if everything:
                self._draw_photograph()
            for layer, (x, y), film in films:
                canvas = self.canvas[layer]
                canvas.clear_rect(x, y, film.shape[1], film.shape[0])
                canvas.put_image_data(film, x, y)
            self._draw_sketch()

    def _films(self, box: Box | None) -> list[tuple[int, tuple[int, int], np.ndarray]]:
        """What to lay over the photograph inside a box of the picture: layer, top left corner, RGBA."""
        pixels, viewport = self.document.pixels, self.viewport
        area = x0, y0, x1, y1 = viewport.canvas_box(box)
        films = []
        if x1 > x0 and y1 > y0:
            films.append((MASK, (x0, y0), layers.tint(pixels, self.document.mode, viewport, area)))
        if self.show_latents:
            area = x0, y0, x1, y1 = viewport.canvas_box(box and layers.whole_cells(box, pixels.shape))
            if x1 > x0 and y1 > y0:
                films.append((LATENTS, (x0, y0), layers.latent_film(pixels, viewport, area)))
        return films

    def _draw_photograph(self) -> None:
        for layer in self.canvas._canvases[:SKETCH]:
            layer.clear()
        canvas, viewport = self.canvas[PHOTOGRAPH], self.viewport
        canvas.image_smoothing_enabled = viewport.scale < 2  # enlarged, each pixel is a square
        for picture, box in ((self._photograph, None), (self._detail, self._detail_box)):
            if picture.value:
                x0, y0, x1, y1 = box or (0, 0, *viewport.picture_size[::-1])
                (left, top), (right, bottom) = viewport.to_canvas(x0, y0), viewport.to_canvas(x1, y1)
                canvas.draw_image(picture, left, top, right - left, bottom - top)
        canvas.stroke_style = "#8a8a8a"
        (left, top), (right, bottom) = viewport.to_canvas(0, 0), viewport.to_canvas(*viewport.picture_size[::-1])
        canvas.stroke_rect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1)

    def _draw_sketch(self) -> None:
        canvas = self.canvas[SKETCH]
        canvas.clear()
        for width, colour in ((4, "rgba(0, 0, 0, 0.55)"), (1.75, "white")):  # to be seen on any photograph
            canvas.line_width, canvas.stroke_style = width, colour
            for shape in self._sketch:
                shape.outline(canvas, self.viewport)


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
