"""Where on the canvas a pixel of the picture is shown: zoom and pan, as numbers only."""

import math

from workbench import check

MARGIN = 14
"""Canvas pixels left free round the picture at least, so that a stroke can begin outside its frame."""

LARGEST_SCALE = 48.0
"""Canvas pixels a picture pixel grows to at most."""


class Viewport:
    """The part of the picture to be seen: canvas = picture * scale + offset, in x and y.

    Args:
        picture_size: (H, W) of the picture.
        max_view: longest side of the canvas in pixels. Wide pictures are as wide, tall ones three quarters as high.
    """

    def __init__(self, picture_size: tuple[int, int], max_view: int = 900):
        self.max_view = check.integer(max_view, "max_view", 200)
        self.show(picture_size)

    def show(self, picture_size: tuple[int, int], room: float = 0.0) -> None:
        """Another picture size, seen whole; ``room`` leaves that share of each side free round it."""
        self.picture_size = height, width = picture_size
        self.room = room
        spread = 1 + 2 * room
        widest, highest = self.max_view - 2 * MARGIN, round(self.max_view * 0.75) - 2 * MARGIN
        scale = min(widest / (width * spread), highest / (height * spread), LARGEST_SCALE)
        self.canvas_size = (  # (height, width); even the flattest picture leaves room for a gesture
            max(160, math.ceil(height * spread * scale) + 2 * MARGIN),
            max(160, math.ceil(width * spread * scale) + 2 * MARGIN),
        )
        self._fit_scale = scale
        self.fit()

    def fit(self) -> None:
        """The whole picture, in the middle."""
        self.scale = self._fit_scale
        self.offset = tuple(
            (free - length * self.scale) / 2
            for free, length in zip(self.canvas_size[::-1], self.picture_size[::-1], strict=True)
        )

    @property
    def fitted(self) -> bool:
        """Whether the whole picture is to be seen."""
        return self.scale <= self._fit_scale * 1.0001

    def zoom(self, factor: float, at: tuple[float, float] | None = None) -> None:
        """Enlarges by ``factor``; the point ``at`` of the canvas (None: its middle) stays where it is."""
        check.number(factor, "factor", 0.001, 1000)
        scale = min(max(self.scale * factor, self._fit_scale), LARGEST_SCALE)
        at = at or (self.canvas_size[1] / 2, self.canvas_size[0] / 2)
        self.offset = tuple(a - (a - o) * scale / self.scale for a, o in zip(at, self.offset, strict=True))
        self.scale = scale
        self._hold()

    def pan(self, dx: float, dy: float) -> None:
        """Moves the picture by so many canvas pixels."""
        self.offset = (self.offset[0] + check.number(dx, "dx"), self.offset[1] + check.number(dy, "dy"))
        self._hold()

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """A point of the canvas in picture pixels, to a hundredth."""
        return round((x - self.offset[0]) / self.scale, 2), round((y - self.offset[1]) / self.scale, 2)

    def to_canvas(self, x: float, y: float) -> tuple[float, float]:
        """A point of the picture in canvas pixels."""
        return x * self.scale + self.offset[0], y * self.scale + self.offset[1]

    def canvas_box(self, box: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
        """The whole canvas pixels that show a box of the picture (None: all of it); may be empty."""
        x0, y0, x1, y1 = box or (0, 0, *self.picture_size[::-1])
        height, width = self.canvas_size
        (left, top), (right, bottom) = self.to_canvas(x0, y0), self.to_canvas(x1, y1)
        return (
            max(0, math.floor(left)),
            max(0, math.floor(top)),
            min(width, math.ceil(right)),
            min(height, math.ceil(bottom)),
        )

    def picture_box(self) -> tuple[int, int, int, int]:
        """The whole picture pixels that are to be seen; may be empty."""
        height, width = self.picture_size
        (left, top), (right, bottom) = self.to_picture(0, 0), self.to_picture(*self.canvas_size[::-1])
        return (
            max(0, math.floor(left)),
            max(0, math.floor(top)),
            min(width, math.ceil(right)),
            min(height, math.ceil(bottom)),
        )

    def _hold(self) -> None:
        """Keeps the picture from leaving the canvas: what fits stays in the middle, what does not fills it."""
        offset = []
        for free, length, moved in zip(self.canvas_size[::-1], self.picture_size[::-1], self.offset, strict=True):
            shown, edge = length * self.scale, MARGIN
            if shown + 2 * edge <= free:
                offset.append((free - shown) / 2)
            else:
                offset.append(min(max(moved, free - edge - shown), edge))
        self.offset = tuple(offset)
