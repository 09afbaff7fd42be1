"""Pictures on a canvas to point at: side by side, a film of colour over each, and marks on top.

Three facts about ipycanvas shape this room: it keeps no pixels, so whoever opens the page is sent everything anew; it
lays pictures over what is there, so a layer is cleared first; and one exception while drawing is held back would
silence every canvas in the notebook, so `drawing` guards it.
"""

import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import ipywidgets
import torch
from ipycanvas import MultiCanvas, hold_canvas

from workbench import image
from workbench.widgets.timing import ONE_AT_A_TIME, Throttle

PICTURES, FILMS, MARKS = range(3)
DENSITY = 1.5
"""Canvas pixels to a CSS pixel: keeps lines crisp on screens, and at browser zooms, of more than one to one."""
GAP = 12
"""CSS pixels between two pictures."""
FILM_SIDE = 320
"""Longest side that a film is sent with: it is smooth, and goes over with every move of the mouse."""
DRAWS_PER_SECOND = 30


@contextmanager
def drawing(canvas: MultiCanvas):
    """Sends what is drawn inside as one message, or nothing if an exception ends it.

    Unlike ipycanvas' own hold_canvas it leaves nothing behind after an exception. Each message names its layer first,
    because a reopened page does not know which one the last message meant.
    """
    with ONE_AT_A_TIME:
        manager = canvas._canvas_manager
        manager._current_canvas = None
        was_holding = manager._caching
        try:
            with hold_canvas():
                yield
        except BaseException:
            manager._commands_cache, manager._buffers_cache = [], []
            manager._caching, manager._current_canvas = was_holding, None
            raise


@dataclass(frozen=True)
class Pane:
    """Where a picture stands: CSS pixels = picture pixels * scale + (left, 0).

    Args:
        size: (H, W) of the picture.
        left: of its left edge, in CSS pixels.
        scale: CSS pixels to a picture pixel.
    """

    size: tuple[int, int]
    left: float
    scale: float

    @property
    def width(self) -> float:
        """In CSS pixels."""
        return self.size[1] * self.scale

    @property
    def height(self) -> float:
        """In CSS pixels."""
        return self.size[0] * self.scale

    def to_stage(self, x: float, y: float) -> tuple[float, float]:
        """A point of the picture in CSS pixels of the stage."""
        return x * self.scale + self.left, y * self.scale

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """A point of the stage in pixels of the picture, to a hundredth, never outside of it."""
        height, width = self.size
        x, y = (x - self.left) / self.scale, y / self.scale
        return round(min(max(x, 0.0), width), 2), round(min(max(y, 0.0), height), 2)


def panes_of(sizes, width: float, height: float) -> list[Pane]:
    """Pictures of these sizes (H, W) side by side, all equally high, as large as fits into ``width`` x ``height``."""
    ratios = [w / h for h, w in sizes]
    high = min(height, (width - GAP * (len(ratios) - 1)) / sum(ratios))
    found, left = [], 0.0
    for size, ratio in zip(sizes, ratios, strict=True):
        found.append(Pane(tuple(size), left, high / size[0]))
        left += high * ratio + GAP
    return found


@dataclass(frozen=True)
class Line:
    """A straight line in CSS pixels of the stage."""

    start: tuple[float, float]
    end: tuple[float, float]
    colour: str
    width: float = 1.25

    def draw(self, canvas) -> None:
        """Draws it."""
        canvas.stroke_style, canvas.line_width = self.colour, self.width
        canvas.stroke_line(*self.start, *self.end)


@dataclass(frozen=True)
class Dot:
    """A disc with a thin dark edge."""

    at: tuple[float, float]
    colour: str
    radius: float = 3.0

    def draw(self, canvas) -> None:
        """Draws it."""
        canvas.fill_style = "rgba(0, 0, 0, 0.65)"
        canvas.fill_circle(*self.at, self.radius + 0.75)
        canvas.fill_style = self.colour
        canvas.fill_circle(*self.at, self.radius)


@dataclass(frozen=True)
class Ring:
    """A circle round a place, open in the middle: dark, then in its colour, so that it is seen on any picture."""

    at: tuple[float, float]
    colour: str = "white"
    radius: float = 7.0

    def draw(self, canvas) -> None:
        """Draws it."""
        for colour, width in (("rgba(0, 0, 0, 0.7)", 4), (self.colour, 2)):
            canvas.stroke_style, canvas.line_width = colour, width
            canvas.stroke_circle(*self.at, self.radius)


class Stage:
    """The canvas.

    Args:
        sizes: (H, W) of each picture.
        width, height: CSS pixels there are for all of them.
        attempt: calls a function, and shows what goes wrong.
    """

    def __init__(self, sizes, width: float, height: float, attempt: Callable):
        self.panes = panes_of(sizes, width, height)
        self.marks: tuple = ()
        wide = self.panes[-1].left + self.panes[-1].width
        high = max(pane.height for pane in self.panes)
        self.size = math.ceil(high), math.ceil(wide)  # (height, width) in CSS pixels
        self.canvas = MultiCanvas(3, width=math.ceil(wide * DENSITY), height=math.ceil(high * DENSITY))
        self.canvas.layout.width, self.canvas.layout.height = "100%", "auto"
        self.canvas.layout.max_width = f"{self.size[1]}px"
        self._pictures = [ipywidgets.Image(format="png") for _ in self.panes]
        self._films = [ipywidgets.Image(format="png") for _ in self.panes]
        self._sent: list[torch.Tensor | None] = [None] * len(self.panes)
        self._filmed: list[torch.Tensor | None] = [None] * len(self.panes)
        self.strengths = [0.0] * len(self.panes)
        self._attempt = attempt
        self._draw_soon = Throttle(self._draw, DRAWS_PER_SECOND, attempt)
        self.canvas.on_client_ready(lambda: attempt(self.redraw))

    def listen(self, *, down: Callable, move: Callable | None = None, leave: Callable | None = None, key: Callable):
        """Whom to tell of mouse, finger and keys: ``down(x, y)`` and ``move(x, y)`` in CSS pixels, ``key(name)``."""

        def hear(register: Callable, action: Callable) -> None:
            register(lambda *arguments: self._attempt(action, *arguments))

        hear(self.canvas.on_mouse_down, lambda x, y: down(x / DENSITY, y / DENSITY))
        hear(self.canvas.on_touch_start, lambda fingers: down(*(n / DENSITY for n in fingers[0])))
        hear(self.canvas.on_key_down, lambda name, shift, ctrl, meta: None if ctrl or meta else key(name))
        if move is not None:
            hear(self.canvas.on_mouse_move, lambda x, y: move(x / DENSITY, y / DENSITY))
        if leave is not None:
            hear(self.canvas.on_mouse_out, lambda x, y: leave())

    def pane_at(self, x: float, y: float) -> int | None:
        """The picture under a point of the stage; None between and beside them."""
        for number, pane in enumerate(self.panes):
            if pane.left <= x < pane.left + pane.width and 0 <= y < pane.height:
                return number
        return None

    def show_picture(self, number: int, picture: torch.Tensor) -> None:
        """A pane's picture (1, 3, H, W), sent no larger than it is shown, and only if it is another one."""
        if self._sent[number] is picture:
            return
        self._sent[number] = picture
        pane = self.panes[number]
        side = math.ceil(max(pane.width, pane.height) * DENSITY)
        self._pictures[number].value = image.to_png(image.fit(picture[:1].detach().float().cpu(), side))
        self._draw_soon.request()

    def show_film(self, number: int, picture: torch.Tensor | None, strength: float = 0.7) -> None:
        """Colours (1, 3, h, w) over a pane, from 0 (not seen) to 1 (nothing else is); None takes them away.

        They are sent only if they are another tensor.
        """
        if picture is not None and picture is not self._filmed[number]:
            self._filmed[number] = picture
            self._films[number].value = image.to_png(image.fit(picture, FILM_SIDE))
        self.strengths[number] = 0.0 if picture is None else strength
        self._draw_soon.request()

    def mark(self, marks) -> None:
        """Replaces the marks on top, in CSS pixels."""
        marks = tuple(marks)
        if marks != self.marks:
            self.marks = marks
            self._draw_soon.request()

    def redraw(self) -> None:
        """Draws everything, now: the canvas of a reopened page is empty."""
        self._draw_soon.request()
        self._draw_soon.flush()

    def flush(self) -> None:
        """Draws what waits to be drawn, now."""
        self._draw_soon.flush()

    def close(self) -> None:
        """Stops drawing for good: a message to a closed canvas would silence all others."""
        self._draw_soon.cancel()
        for widget in (*self.canvas._canvases, self.canvas, *self._pictures, *self._films):
            widget.close()

    def _draw(self) -> None:
        with drawing(self.canvas):
            for number, layer in enumerate(self.canvas._canvases):
                layer.save()
                layer.clear()
                layer.scale(DENSITY, DENSITY)
                if number == MARKS:
                    for mark in self.marks:
                        mark.draw(layer)
                else:
                    self._draw_panes(layer, number)
                layer.restore()

    def _draw_panes(self, layer, number: int) -> None:
        for place, pane in enumerate(self.panes):
            picture, strength = self._pictures[place], 1.0
            if number == FILMS:
                picture, strength = self._films[place], self.strengths[place]
            if not picture.value or strength == 0:
                continue
            layer.global_alpha = strength
            layer.image_smoothing_enabled = number == FILMS or pane.scale < 3  # enlarged, each pixel is a square
            layer.draw_image(picture, pane.left, 0, pane.width, pane.height)
