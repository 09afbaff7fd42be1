"""`wb.MaskEditor`: a mask drawn in a notebook cell. Every gesture of the mouse is also a method."""

from pathlib import Path

import numpy as np
import torch
from ipycanvas import MultiCanvas
from ipywidgets import Box, HBox, VBox

from workbench import image, mask, plot
from workbench.widgets.mask_editor import gestures, layers, page
from workbench.widgets.mask_editor.canvas_view import CanvasView
from workbench.widgets.mask_editor.document import MaskDocument
from workbench.widgets.mask_editor.pointer import FRAME_ROOM, Pointer, Settings
from workbench.widgets.mask_editor.toolbar import Toolbar
from workbench.widgets.parts import classed, close_all
from workbench.widgets.shown import InCell
from workbench.widgets.static_picture import StaticPicture
from workbench.widgets.timing import one_at_a_time

PICTURE_SIDE = 400
"""Longest side of the picture that a page without a kernel shows."""
_last_hole: dict[str, np.ndarray] = {}
"""The last pixels with something drawn, of any editor in this session, for each mode."""


class MaskEditor(InCell):
    """Draw the hole on a photograph.

    The mask lives in Python; the browser only shows it. So it works without a browser, survives a reloaded page, and
    can be drawn by code: each button and each gesture of mouse, finger or key calls one of the methods below. Points
    are (x, y) in pixels of the photograph, (0, 0) its top left corner; what lies outside is cut off.

    Args:
        image: (1, 3, H, W), or whatever `wb.load_image` takes.
        mask: (1, 1, H, W) to begin with, 1 = hole = repaint, hard or soft; in trimap mode a trimap.
        mode: "mask", or "trimap" (for matting: foreground, background and unknown; every shape then takes ``label``).
        max_view: longest side of the canvas, in its own pixels; larger photographs are shown scaled down.

    Raises:
        ImageFileError, FileNotFoundError, TypeError, ValueError: as `wb.load_image`; or a mask of another size.

    Example:
        >>> editor = MaskEditor("coffee"); editor.stroke([(40, 30), (90, 60)], radius=8); editor.undo()
        >>> editor.mask.shape
        torch.Size([1, 1, 400, 600])
    """

    def __init__(self, image, mask: torch.Tensor | None = None, *, mode: str = "mask", max_view: int = 900):
        self._document = MaskDocument(image, mask, mode)
        self._message: tuple[str, bool] | None = None  # the last thing said, and whether it is an error
        self._closed = False
        self._settings = Settings(radius=_handy_radius(self._document.size))
        self._view = CanvasView(self._document, max_view, self._attempt)
        self._pointer = Pointer(self, self._view, self._settings)
        self._toolbar = Toolbar(self, self._settings, self._attempt)
        self._static = StaticPicture("the mask editor", self.snapshot, self._attempt, PICTURE_SIDE)
        self._stage = classed(Box([self._view.canvas]), "workbench-stage")
        self.widget = self._lay_out()
        self._listen(self._view.canvas)
        self._document.observe_gestures(self._after_gesture)
        self._settings.observe(self._tool_changed, "tool")
        self._show_state()

    # What was drawn

    @property
    def mode(self) -> str:
        """ "mask" or "trimap"."""
        return self._document.mode

    @property
    def image(self) -> torch.Tensor:
        """The photograph, (1, 3, H, W); `extend` and `load_photograph` change it."""
        return self._document.image

    @property
    def mask(self) -> torch.Tensor:
        """A copy of the mask, float32 (1, 1, H, W): 1 = hole where it is at least half covered, 0 = keep."""
        return (self.soft_mask >= 0.5).float()

    @property
    def soft_mask(self) -> torch.Tensor:
        """A copy of the mask with its soft edges, float32 (1, 1, H, W) in [0, 1], in steps of 1 / 255."""
        self._need_mode("mask", "trimap")
        return torch.from_numpy(self._document.pixels.astype(np.float32) / gestures.FULL)[None, None]

    @property
    def trimap(self) -> torch.Tensor:
        """A copy of the trimap, float32 (1, 1, H, W): 0 = background, 0.5 = unknown, 1 = foreground."""
        self._need_mode("trimap", "mask")
        trimap = (self._document.pixels == gestures.FULL) + 0.5 * (self._document.pixels == gestures.UNKNOWN)
        return torch.from_numpy(trimap.astype(np.float32))[None, None]  # (1, 1, H, W)

    @property
    def log(self) -> list[dict]:
        """Every gesture that is not undone, as plain JSON; zoom and pan are none. `replay` draws it again."""
        return self._document.log

    def snapshot(self) -> torch.Tensor:
        """The photograph with its hole tinted (a trimap: in its colours), (1, 3, H, W) in [0, 1]."""
        if self.mode == "mask":
            return plot.tint_hole(self.image, self.soft_mask)
        picture = self.image
        for level, colour in ((gestures.FULL, layers.FOREGROUND), (gestures.UNKNOWN, layers.UNKNOWN_BAND)):
            weight = layers.OPACITY * torch.from_numpy(self._document.pixels == level).float()  # (H, W)
            picture = picture * (1 - weight) + torch.tensor(colour).view(1, 3, 1, 1) / 255 * weight
        return picture

    # Gestures

    def stroke(self, points, radius: float = 8, softness: float = 0.0, erase: bool = False, *, label=None) -> None:
        """Draws with a brush.

        Args:
            points: the path as (x, y); one point makes a dot.
            radius: of the brush in pixels, at least 0.5.
            softness: share of the radius over which the brush fades out, 0 to 1.
            erase: take away from the hole.
            label: in trimap mode "foreground" (the default), "unknown" or "background".
        """
        self._perform("stroke", label, points=points, radius=radius, softness=softness, erase=erase)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, erase: bool = False, *, label=None) -> None:
        """Marks the rectangle between two opposite corners."""
        self._perform("rectangle", label, x0=x0, y0=y0, x1=x1, y1=y1, erase=erase)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, erase: bool = False, *, label=None) -> None:
        """Marks the ellipse that just fits between two opposite corners."""
        self._perform("ellipse", label, x0=x0, y0=y0, x1=x1, y1=y1, erase=erase)

    def polygon(self, points, erase: bool = False, *, label=None) -> None:
        """Marks a polygon of at least three corners; where it crosses itself the even-odd rule holds."""
        self._perform("polygon", label, points=points, erase=erase)

    def lasso(self, points, erase: bool = False, *, label=None) -> None:
        """Marks all that a free-hand path goes round, and the path itself."""
        self._perform("lasso", label, points=points, erase=erase)

    def fill(self, x: float, y: float, tolerance: float = 0.1, erase: bool = False, *, label=None) -> None:
        """Marks the connected area of the photograph whose colour is within ``tolerance`` of that at (x, y).

        Args:
            x, y: a point inside the photograph.
            tolerance: largest difference in any channel, 0 to 1.
            erase, label: as in `stroke`.
        """
        self._perform("fill", label, x=x, y=y, tolerance=tolerance, erase=erase)

    def clear(self) -> None:
        """Leaves no hole (a trimap: all background)."""
        self._perform("clear")

    def invert(self) -> None:
        """Exchanges hole and kept area (a trimap: foreground and background)."""
        self._perform("invert")

    def grow(self, radius: float) -> None:
        """Widens the hole, made hard, by ``radius`` pixels (a trimap: the unknown band, to both sides)."""
        self._perform("grow", radius=radius)

    def shrink(self, radius: float) -> None:
        """Narrows the hole, made hard, by ``radius`` pixels (a trimap: the unknown band, from both sides)."""
        self._perform("shrink", radius=radius)

    def feather(self, radius: float) -> None:
        """Lets the hole, made hard, fade out over ``radius`` pixels: see `soft_mask`.

        What is at least half hole on the ramp counts as hole in `mask`, which so reaches half a radius farther.
        """
        self._perform("feather", radius=radius)

    def load(self, mask_or_file) -> None:
        """Takes another mask in place of what is drawn.

        Args:
            mask_or_file: a mask (1, 1, H, W), hard or soft; or a file as `save` writes it (path or bytes): bright =
                hole. In trimap mode a trimap, or a file of black, mid grey and white.

        Raises:
            ValueError: not of the photograph's size.
        """
        values = mask_or_file
        if not isinstance(values, torch.Tensor):
            values = image.load_grey(values)
            if self.mode == "trimap":
                values = _snap(values)
        self._perform("load", mask=gestures.pack(gestures.to_levels(values, self.mode, self._document.size)))

    def recall(self) -> None:
        """Picks the same hole again: the last one left by a gesture, in this or any other editor of the session.

        Raises:
            RuntimeError: none was drawn yet.
            ValueError: it was drawn on a photograph of another size.
        """
        if self.mode not in _last_hole:
            raise RuntimeError(f"no {self.mode} was drawn in this session yet, draw one first.")
        self._perform("load", mask=gestures.pack(_last_hole[self.mode]))

    def extend(self, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> None:
        """Outpainting: enlarges the photograph by so many grey pixels on each side, and makes them hole."""
        self._perform("extend", left=left, top=top, right=right, bottom=bottom)

    def load_photograph(self, source) -> None:
        """Goes over to another photograph; the mask is kept only if the size is the same.

        Args:
            source: whatever `wb.load_image` takes; the upload button gives the bytes of a file.
        """
        self._perform("load_photograph", source=gestures.pack_photograph(source))

    @one_at_a_time
    def undo(self) -> None:
        """Takes the last gesture back, whichever it was. Raises RuntimeError when there is none."""
        self._document.undo()

    @one_at_a_time
    def redo(self) -> None:
        """Does again what was last undone. Raises RuntimeError when there is nothing."""
        self._document.redo()

    def save(self, path) -> Path:
        """Writes the mask, soft edges included, as a grey PNG, white = hole (a trimap: white = foreground)."""
        saved = mask.save_mask(self.soft_mask if self.mode == "mask" else self.trimap, path)
        self._say(f"saved as {saved}")
        return saved

    @classmethod
    def replay(cls, image, log: list[dict], *, mode: str = "mask") -> "MaskEditor":
        """A new editor in which all gestures of a `log` were done again: its mask is equal to the bit.

        Args:
            image: the photograph the log began with.
            log: from `log`, perhaps by way of a JSON file.
            mode: as that of the editor the log is from.
        """
        editor = cls(image, mode=mode)
        editor._document.replay(log)
        return editor

    # View

    def zoom(self, factor: float, at: tuple[float, float] | None = None) -> None:
        """Enlarges the view by ``factor``, about a point ``at`` of the canvas (None: its middle)."""
        self._move(lambda viewport: viewport.zoom(factor, at))

    def pan(self, dx: float, dy: float) -> None:
        """Moves the view by so many canvas pixels."""
        self._move(lambda viewport: viewport.pan(dx, dy))

    def fit(self) -> None:
        """Shows the whole picture."""
        self._move(lambda viewport: viewport.fit())

    @one_at_a_time
    def redraw(self) -> None:
        """Sends everything to the browser again, should the canvas be empty."""
        self._view.redraw()

    @one_at_a_time
    def show_latents(self, shown: bool = True) -> None:
        """Lays the mask over the photograph as a latent diffusion model sees it, in cells of 8 x 8 pixels."""
        self._view.show_latents = bool(shown)
        self._toolbar.latents.value = bool(shown)
        self._view.redraw()
        self._show_state()

    def close(self) -> None:
        """Takes the editor off the page. The mask can still be read."""
        if not self._closed:
            self._closed = True
            self._static.close()
            self._document.unobserve(self._after_gesture)
            self._settings.unobserve_all()
            self._view.close()
            close_all(self.widget)

    def __repr__(self) -> str:
        height, width = self._document.size
        count = self._document.gesture_count
        return (
            f"MaskEditor({height}x{width} photograph, {self._told_coverage()}, "
            f"{count} gesture{'' if count == 1 else 's'})"
        )

    # Inside

    @one_at_a_time
    def _perform(self, gesture: str, label: str | None = None, **arguments) -> None:
        """Every method above ends here: one gesture, one entry in the log."""
        if label is not None:
            arguments["label"] = label
        self._document.perform(gesture, **arguments)

    def _need_mode(self, mode: str, other: str) -> None:
        if self.mode != mode:
            raise RuntimeError(f'this editor draws a {other}, read editor.{other}; or make it with mode="{mode}".')

    @one_at_a_time
    def _move(self, change) -> None:
        change(self._view.viewport)
        self._view.move()
        self._mark_stage()
        self._pointer.show()

    def _mark_stage(self) -> None:
        """Tells the page what the wheel and the pointer are for."""
        for name, wanted in ((page.FITTED, self._view.viewport.fitted), (page.PAN, self._settings.tool == "pan")):
            _ = self._stage.add_class(name) if wanted else self._stage.remove_class(name)

    def _lay_out(self) -> VBox:
        body = classed(HBox([self._toolbar.palette, self._stage]), "workbench-body")
        parts = (page.looks_and_script(), self._toolbar.header, body, self._toolbar.status)
        return classed(VBox([*parts, self._toolbar.help, self._toolbar.files]), page.ROOT)

    def _listen(self, canvas: MultiCanvas) -> None:
        """Connects the canvas to the pointer; ipywidgets would only log what goes wrong there, so it is caught here."""
        for register, action in (
            (canvas.on_client_ready, self._view.redraw),
            (canvas.on_mouse_down, self._pointer.press),
            (canvas.on_mouse_move, self._pointer.move),
            (canvas.on_mouse_up, self._pointer.release),
            (canvas.on_mouse_out, self._pointer.leave),
            (canvas.on_mouse_wheel, self._pointer.wheel),
            (canvas.on_touch_start, self._pointer.touch),
            (canvas.on_touch_move, self._pointer.slide),
            (canvas.on_touch_end, self._pointer.lift),
            (canvas.on_touch_cancel, self._pointer.lift),
            (canvas.on_key_down, self._pointer.key),
        ):
            register(lambda *arguments, action=action: self._attempt(action, *arguments))

    @one_at_a_time
    def _attempt(self, action, *arguments) -> None:
        """Does what a control or the mouse asks for; what goes wrong is told in the status line."""
        try:
            action(*arguments)
        except Exception as error:
            self._pointer.cancel()
            self._say(str(error) or type(error).__name__, error=True)

    def _say(self, message: str, error: bool = False) -> None:
        self._message = (message, error)
        self._show_state()

    def _after_gesture(self) -> None:
        if self._document.pixels.any():
            _last_hole[self.mode] = self._document.pixels.copy()
        self._message = None
        self._mark_stage()
        self._pointer.show()
        self._show_state()
        self._static.follow()

    def _tool_changed(self, _change) -> None:
        self._pointer.cancel()
        room = FRAME_ROOM if self._settings.tool == "frame" else 0.0
        if room != self._view.viewport.room:
            self._view.show_photograph(room)
        self._mark_stage()

    def _show_state(self) -> None:
        self._toolbar.update(self._document.can_undo, self._document.can_redo)
        self._toolbar.show_status(self._facts(), self._message)

    def _told_coverage(self) -> str:
        """How much is marked, in words."""
        pixels = self._document.pixels
        if self.mode == "mask":
            return f"hole {100 * np.mean(pixels >= gestures.UNKNOWN):.1f} %"
        foreground, unknown = (100 * np.mean(pixels == level) for level in (gestures.FULL, gestures.UNKNOWN))
        return f"foreground {foreground:.1f} %, unknown {unknown:.1f} %"

    def _facts(self) -> list[str]:
        """What the status line tells."""
        height, width = self._document.size
        facts = [f"{self._told_coverage()} of {width} × {height} pixels"]
        if self.mode == "mask":
            nearest, any_, _ = layers.latent_cells(self._document.pixels)
            cells = f"latent mask {nearest.shape[1]} × {nearest.shape[0]} cells"
            if height % layers.FACTOR or width % layers.FACTOR:
                cells += " (kept pixels added on the right and at the bottom to fill the last ones)"
            colours = (" (yellow)", " (and blue)") if self._view.show_latents else ("", "")
            facts.append(f"{cells}: {nearest.sum()} hole by nearest{colours[0]}, {any_.sum()} by any{colours[1]}")
        return facts


def _handy_radius(size: tuple[int, int]) -> float:
    """A brush of some fiftieth of the picture."""
    return float(min(max(round(max(size) / 40), 2), 100))


def _snap(values: torch.Tensor) -> torch.Tensor:
    """The greys of a trimap file to 0, 0.5 and 1; others are left for the check to complain of."""
    nearest = (values * 2).round() / 2
    return torch.where((values - nearest).abs() <= 2 / 255, nearest, values)
