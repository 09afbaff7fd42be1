"""Mouse, fingers and keys on the canvas, turned into gestures.

What is under way (a stroke, a box being pulled open, the corners of a polygon) lives here until it is finished; the
document learns of it as one gesture, by the same call a notebook would make.
"""

import time

import numpy as np
from traitlets import Bool, Enum, Float, HasTraits

from workbench.widgets.mask_editor import sketch
from workbench.widgets.mask_editor.canvas_view import CanvasView
from workbench.widgets.mask_editor.gestures import LABELS

TOOLS = ("brush", "eraser", "rectangle", "ellipse", "polygon", "lasso", "bucket", "frame", "pan")
KEYS = {"b": "brush", "e": "eraser", "r": "rectangle", "o": "ellipse", "p": "polygon", "l": "lasso", "f": "bucket"} | {
    "h": "pan"
}
DOUBLE_CLICK = 0.45
"""Seconds in which two clicks on the same spot are one double click."""
NEAR = 9
"""Canvas pixels at which a click counts as on a point."""
FRAME_ROOM = 0.3
"""Room left round the picture for its grips to be dragged into, as a share of each side."""
FRAME_STEP = 8
"""The frame grows in steps of this many pixels: one cell of the latent grid."""


class Settings(HasTraits):
    """The chosen tool and how it draws; the toolbar's controls are linked to these traits."""

    tool = Enum(TOOLS, "brush")
    radius = Float(16.0, min=0.5, max=400.0, help="of the brush, in picture pixels")
    softness = Float(0.0, min=0.0, max=1.0, help="share of the brush's radius that fades out")
    tolerance = Float(0.1, min=0.0, max=1.0, help="of the bucket")
    cut = Bool(False, help="shapes take away from the hole")
    label = Enum(tuple(LABELS), "foreground", help="what a trimap is painted with")


class Pointer:
    """The state of mouse, fingers and keys over one canvas.

    Args:
        editor: receives the gestures.
        view: the canvas.
        settings: the chosen tool.
    """

    def __init__(self, editor, view: CanvasView, settings: Settings):
        self._editor, self._view, self._settings = editor, view, settings
        self._at: tuple[float, float] | None = None  # last place on the canvas
        self._points: list[tuple[float, float]] = []  # of the gesture under way, in picture pixels
        self._pressed = False
        self._grip: str | None = None
        self._clicked_at = (-1.0, (0.0, 0.0))  # time and place of the last click
        self._fingers: list[tuple[float, float]] = []

    # Mouse

    def press(self, x: float, y: float) -> None:
        """Mouse button down."""
        self._at, self._pressed = (x, y), True
        point, tool = self._view.viewport.to_picture(x, y), self._settings.tool
        if tool in ("brush", "eraser"):
            brush = {"radius": self._settings.radius, "softness": self._settings.softness}
            self._view.document.start_stroke(point, **brush, **self._ink(tool == "eraser"))
        elif tool == "polygon":
            self._click_polygon(x, y, point)
        elif tool == "bucket":
            self._editor.fill(*point, tolerance=self._settings.tolerance, **self._ink(self._settings.cut))
        elif tool == "frame":
            self._grip = self._grip_at(x, y)
        elif tool != "pan":
            self._points = [point]
        self.show()

    def move(self, x: float, y: float) -> None:
        """Mouse moved, pressed or not."""
        before, self._at = self._at, (x, y)
        point, tool = self._view.viewport.to_picture(x, y), self._settings.tool
        if self._pressed and before is not None:
            if tool in ("brush", "eraser"):
                self._view.document.continue_stroke(point)
            elif tool == "lasso":
                self._points.append(point)
            elif tool in ("rectangle", "ellipse"):
                self._points[1:] = [point]
            elif tool == "pan":
                self._editor.pan(x - before[0], y - before[1])
        self.show()

    def release(self, x: float, y: float) -> None:
        """Mouse button up: what was drawn becomes a gesture."""
        if not self._pressed:
            return
        self.move(x, y)
        self._pressed = False
        tool, points = self._settings.tool, self._points
        if tool == "polygon":
            return  # its corners stay until it is closed
        self._points = []
        if tool in ("brush", "eraser"):
            self._view.document.finish_stroke()
        elif tool in ("rectangle", "ellipse") and len(points) == 2 and all(np.ptp(points, axis=0) > 0):
            getattr(self._editor, tool)(*points[0], *points[1], **self._ink(self._settings.cut))
        elif tool == "lasso" and len(points) > 2:
            self._editor.lasso(points, **self._ink(self._settings.cut))
        elif tool == "frame" and self._grip is not None:
            side, amount, self._grip = self._grip, self._amount(), None
            if amount > 0:
                self._editor.extend(**{side: amount})
        self.show()
        self._view.flush()

    def leave(self, x: float, y: float) -> None:
        """Mouse left the canvas: a gesture under way ends at its edge."""
        height, width = self._view.viewport.canvas_size
        self.release(min(max(x, 0), width), min(max(y, 0), height))
        self._at = None
        self.show()

    def wheel(self, dx: float, dy: float) -> None:
        """Wheel turned: ipycanvas tells how far, but not where, so the last place of the mouse is taken."""
        self._editor.zoom(1.0015 ** -min(max(dy, -1200), 1200), self._at)
        self.show()

    # Fingers: one draws, two move and zoom

    def touch(self, fingers: list[tuple[float, float]]) -> None:
        """Another finger touched the canvas."""
        self._fingers = fingers
        if len(fingers) == 1:
            self.press(*fingers[0])
        else:
            self.cancel()

    def slide(self, fingers: list[tuple[float, float]]) -> None:
        """Fingers moved."""
        before, self._fingers = self._fingers, fingers
        if len(fingers) == 1 and self._pressed:
            self.move(*fingers[0])
        elif len(fingers) == 2 and len(before) == 2:
            (old_middle, old_width), (middle, width) = (_pair(pair) for pair in (before, fingers))
            self._editor.pan(*(np.subtract(middle, old_middle)))
            self._editor.zoom(width / max(old_width, 1), middle)

    def lift(self, fingers: list[tuple[float, float]]) -> None:
        """A finger left the canvas; ``fingers`` are those that stay."""
        if not fingers and self._pressed and self._at is not None:
            self.release(*self._at)
        self._fingers, self._at = fingers, None
        self.show()

    # Keys

    def key(self, key: str, shift: bool, ctrl: bool, meta: bool) -> None:
        """A key was pressed while the canvas had the focus."""
        settings, letter = self._settings, key.lower() if len(key) == 1 else key
        commands = {
            "[": lambda: self._resize_brush(1 / 1.25),
            "]": lambda: self._resize_brush(1.25),
            "z": self._editor.redo if shift else self._editor.undo,
            "y": self._editor.redo,
            "x": self._editor.invert,
            "+": lambda: self._editor.zoom(1.25, self._at),
            "=": lambda: self._editor.zoom(1.25, self._at),
            "-": lambda: self._editor.zoom(0.8, self._at),
            "0": self._editor.fit,
            "Escape": self.cancel,
            "Enter": self.close_polygon,
            "Backspace": self._drop_corner,
        }
        if ctrl or meta:
            commands = {name: commands[name] for name in ("z", "y")}
        elif letter in KEYS:
            settings.tool = KEYS[letter]
        if letter in commands:
            commands[letter]()
        self.show()

    def cancel(self) -> None:
        """Forgets the gesture under way."""
        self._view.document.cancel_stroke()
        self._points, self._pressed, self._grip = [], False, None
        self.show()

    def close_polygon(self) -> None:
        """Turns the corners clicked so far into a polygon."""
        points, self._points = self._points, []
        if self._settings.tool == "polygon" and points:
            self._editor.polygon(points, **self._ink(self._settings.cut))
        self.show()

    def show(self) -> None:
        """Draws what is under way: brush ring, open shape, grips."""
        tool, points = self._settings.tool, self._points
        here = self._view.viewport.to_picture(*self._at) if self._at else None
        shapes = []
        if tool in ("brush", "eraser") and here:
            (x, y), radius = here, self._settings.radius
            shapes = [sketch.Ellipse(x - radius, y - radius, x + radius, y + radius)]
        elif tool == "rectangle" and len(points) == 2:
            shapes = [sketch.box_path(*points[0], *points[1])]
        elif tool == "ellipse" and len(points) == 2:
            shapes = [sketch.Ellipse(*points[0], *points[1])]
        elif tool == "lasso" and points:
            shapes = [sketch.Path(tuple(points))]
        elif tool == "polygon" and points:
            shapes = [sketch.Path((*points, *([here] if here else []))), *(sketch.Dot(*point) for point in points)]
        elif tool == "frame":
            shapes = self._frame_shapes()
        self._view.draw_sketch(*shapes)

    # Details

    def _ink(self, erase: bool) -> dict:
        """What to paint with, as arguments of a gesture."""
        if self._view.document.mode == "trimap":
            return {"label": "background" if erase else self._settings.label}
        return {"erase": erase}

    def _resize_brush(self, factor: float) -> None:
        self._settings.radius = min(max(self._settings.radius * factor, 0.5), 400.0)

    def _drop_corner(self) -> None:
        self._points = self._points[:-1]

    def _click_polygon(self, x: float, y: float, point: tuple[float, float]) -> None:
        """Adds a corner; a double click, or a click on the first corner, closes the polygon."""
        (then, place), now = self._clicked_at, time.monotonic()
        self._clicked_at = (now, (x, y))
        double = now - then < DOUBLE_CLICK and np.hypot(x - place[0], y - place[1]) < NEAR
        first = self._view.viewport.to_canvas(*self._points[0]) if self._points else (np.inf, np.inf)
        at_first = len(self._points) > 2 and np.hypot(x - first[0], y - first[1]) < NEAR
        if len(self._points) > 2 and (double or at_first):
            self.close_polygon()
        elif not double:
            self._points.append(point)

    def _grips(self) -> dict[str, tuple[float, float]]:
        """The middle of each side of the frame, in picture pixels."""
        height, width = self._view.document.size
        return {
            "left": (0, height / 2),
            "right": (width, height / 2),
            "top": (width / 2, 0),
            "bottom": (width / 2, height),
        }

    def _grip_at(self, x: float, y: float) -> str | None:
        """The side whose grip is under a point of the canvas."""
        for side, grip in self._grips().items():
            grip_x, grip_y = self._view.viewport.to_canvas(*grip)
            if np.hypot(x - grip_x, y - grip_y) < 3 * NEAR:
                return side
        return None

    def _amount(self) -> int:
        """How far the held grip has been dragged outward, in picture pixels."""
        x, y = self._view.viewport.to_picture(*self._at)
        height, width = self._view.document.size
        outward = {"left": -x, "right": x - width, "top": -y, "bottom": y - height}[self._grip]
        return max(0, round(outward / FRAME_STEP) * FRAME_STEP)

    def _frame_shapes(self) -> list:
        """The grips, and while one is held the new frame and by how much it grows."""
        shapes = [
            sketch.Grip(x, y, (14, 44) if side in ("left", "right") else (44, 14))
            for side, (x, y) in self._grips().items()
            if side != self._grip
        ]
        if self._grip is not None and self._at is not None:
            height, width = self._view.document.size
            amount = self._amount()
            border = {
                "left": (-amount, 0, 0, height),
                "right": (width, 0, width + amount, height),
                "top": (0, -amount, width, 0),
                "bottom": (0, height, width, height + amount),
            }[self._grip]
            x0, y0, x1, y1 = border
            words = sketch.Words((x0 + x1) / 2, (y0 + y1) / 2, f"{self._grip} +{amount} px")
            shapes += [sketch.HoleBox(*border), sketch.box_path(*border), words]
        return shapes


def _pair(fingers: list[tuple[float, float]]) -> tuple[tuple[float, float], float]:
    """The middle between two fingers, and how far they are apart."""
    (x0, y0), (x1, y1) = fingers
    return ((x0 + x1) / 2, (y0 + y1) / 2), float(np.hypot(x1 - x0, y1 - y0))
