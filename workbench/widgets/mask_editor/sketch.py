"""What the top layer shows while a gesture is under way: outlines, in picture pixels unless said otherwise.

An outline is drawn twice, broad and dark, then thin and white, so that it is seen on any photograph.
"""

import math
from dataclasses import dataclass

import numpy as np
from ipycanvas import Canvas

from workbench.widgets.mask_editor.layers import HOLE
from workbench.widgets.mask_editor.viewport import Viewport


@dataclass(frozen=True)
class Path:
    """Straight lines from point to point."""

    points: list[tuple[float, float]]

    def outline(self, canvas: Canvas, viewport: Viewport) -> None:
        """Draws it."""
        if len(self.points) > 1:
            canvas.stroke_lines(np.array(self.points) * viewport.scale + viewport.offset)


@dataclass(frozen=True)
class Ellipse:
    """The ellipse between two corners; the brush's ring is one."""

    x0: float
    y0: float
    x1: float
    y1: float

    def outline(self, canvas: Canvas, viewport: Viewport) -> None:
        """Draws it."""
        x, y = viewport.to_canvas((self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2)
        width, height = (abs(b - a) / 2 * viewport.scale for a, b in ((self.x0, self.x1), (self.y0, self.y1)))
        canvas.begin_path()
        canvas.ellipse(x, y, width, height, 0, 0, 2 * math.pi)
        canvas.stroke()


@dataclass(frozen=True)
class Dot:
    """A small ring of fixed size, for a corner of a polygon."""

    x: float
    y: float

    def outline(self, canvas: Canvas, viewport: Viewport) -> None:
        """Draws it."""
        canvas.stroke_circle(*viewport.to_canvas(self.x, self.y), 5)


@dataclass(frozen=True)
class HoleBox:
    """A box filled with the hole's colour: what would become hole."""

    x0: float
    y0: float
    x1: float
    y1: float

    def outline(self, canvas: Canvas, viewport: Viewport) -> None:
        """Draws it; twice, like all outlines, which makes it as opaque as the mask."""
        (left, top), (right, bottom) = viewport.to_canvas(self.x0, self.y0), viewport.to_canvas(self.x1, self.y1)
        canvas.fill_style = f"rgba({HOLE[0]}, {HOLE[1]}, {HOLE[2]}, 0.33)"
        canvas.fill_rect(left, top, right - left, bottom - top)


@dataclass(frozen=True)
class Grip:
    """A handle on the frame, to be dragged outward; ``size`` in canvas pixels."""

    x: float
    y: float
    size: tuple[float, float]

    def outline(self, canvas: Canvas, viewport: Viewport) -> None:
        """Draws it."""
        (x, y), (width, height) = viewport.to_canvas(self.x, self.y), self.size
        canvas.fill_style = "#1976d2"
        canvas.stroke_rect(x - width / 2, y - height / 2, width, height)
        canvas.fill_rect(x - width / 2, y - height / 2, width, height)


@dataclass(frozen=True)
class Words:
    """A short text in a dark box, its middle at a point."""

    x: float
    y: float
    text: str

    def outline(self, canvas: Canvas, viewport: Viewport) -> None:
        """Draws it, kept inside the canvas."""
        half = 4.5 * len(self.text) + 8
        x, y = viewport.to_canvas(self.x, self.y)
        x = min(max(x, half), viewport.canvas_size[1] - half)
        y = min(max(y, 14), viewport.canvas_size[0] - 14)
        canvas.fill_style = "#202020"
        canvas.fill_rect(x - half, y - 13, 2 * half, 26)
        canvas.font, canvas.text_align, canvas.text_baseline = "15px sans-serif", "center", "middle"
        canvas.fill_style = "white"
        canvas.fill_text(self.text, x, y)


def box_path(x0: float, y0: float, x1: float, y1: float) -> Path:
    """The outline of a box."""
    return Path([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
