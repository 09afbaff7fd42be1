"""A mask being drawn, without any browser: pixels, the log of gestures, undo and redo.

Whoever shows the mask observes the document and is told which box of it changed.
"""

import copy
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from workbench import check
from workbench.widgets.mask_editor import gestures
from workbench.widgets.mask_editor.gestures import Change

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels, end excluded."""


@dataclass
class _Step:
    """A gesture and what it replaced: a part of the pixels, or the photograph with all of them."""

    entry: dict
    rows: slice
    columns: slice
    packed: bytes
    image: torch.Tensor | None

    @property
    def memory(self) -> int:
        return len(self.packed) + (self.image.nbytes if self.image is not None else 0)


@dataclass
class _Stroke:
    """A stroke in the making: its points, its brush, the pixels before it, and which of them it touched."""

    points: list
    brush: dict
    before: np.ndarray
    rows: slice
    columns: slice


class MaskDocument:
    """A photograph, the mask drawn on it, and how it came about.

    Args:
        image: (1, 3, H, W), or whatever `wb.load_image` takes.
        mask: (1, 1, H, W) to begin with, hard or soft; in trimap mode a trimap. None: nothing is hole.
        mode: "mask" or "trimap".
        memory: bytes that undo may keep; beyond it the oldest gestures can no longer be undone.
    """

    def __init__(self, image, mask: torch.Tensor | None = None, mode: str = "mask", memory: int = 2**29):
        self.mode = check.choice(mode, "mode", ("mask", "trimap"))
        self.image = gestures.one_photograph(image)
        self.pixels = np.zeros(self.image.shape[-2:], np.uint8)
        self._memory = memory
        self._first: list[dict] = []  # the mask given at the start, as a log entry
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self._too_old: list[dict] = []  # log entries of gestures that memory no longer lets us undo
        self._observers: list[Callable] = []
        self._gesture_observers: list[Callable] = []
        self._stroke: _Stroke | None = None
        if mask is not None:
            self.pixels = gestures.to_levels(mask, mode, self.size)
            self._first = [{"gesture": "load", "mask": gestures.pack(self.pixels)}]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape

    @property
    def log(self) -> list[dict]:
        """All gestures that are not undone, in order: what `replay` needs to draw the same mask again."""
        return copy.deepcopy(self._first + self._too_old + [step.entry for step in self._done])

    @property
    def gesture_count(self) -> int:
        """How many gestures the log holds; the mask given at the start is none."""
        return len(self._too_old) + len(self._done)

    @property
    def can_undo(self) -> bool:
        """Whether there is a gesture to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is an undone gesture."""
        return bool(self._undone)

    def observe(self, callback: Callable[[Box | None], None]) -> None:
        """Calls ``callback(box)`` after each change; None stands for everything, perhaps of another size."""
        self._observers.append(callback)

    def observe_gestures(self, callback: Callable[[], None]) -> None:
        """Calls ``callback()`` after each finished gesture, undo and redo."""
        self._gesture_observers.append(callback)

    def unobserve(self, callback: Callable) -> None:
        """Ends what `observe` or `observe_gestures` began."""
        for observers in (self._observers, self._gesture_observers):
            if callback in observers:
                observers.remove(callback)

    def perform(self, gesture: str, **arguments) -> None:
        """Does one gesture and writes it into the log; a gesture that fails changes nothing."""
        check.choice(gesture, "gesture", gestures.GESTURES)
        self.cancel_stroke()
        change = gestures.GESTURES[gesture](self, **arguments)
        entry = {"gesture": gesture} | {name: gestures.to_json(value) for name, value in arguments.items()}
        self._done.append(self._exchange(entry, change))
        self._undone.clear()
        self._forget_old_steps()
        self._tell_gesture()

    def undo(self) -> None:
        """Takes the last gesture back."""
        self.cancel_stroke()
        if not self._done:
            raise RuntimeError("there is no gesture to undo.")
        self._undone.append(self._swap(self._done.pop()))
        self._tell_gesture()

    def redo(self) -> None:
        """Does again what was last undone."""
        self.cancel_stroke()
        if not self._undone:
            raise RuntimeError("there is no undone gesture to redo.")
        self._done.append(self._swap(self._undone.pop()))
        self._tell_gesture()

    def replay(self, log: list[dict]) -> None:
        """Does all gestures of a log, one after the other."""
        for number, entry in enumerate(log):
            if not isinstance(entry, dict) or "gesture" not in entry:
                raise TypeError(f'log[{number}] is {entry!r}, expected a gesture such as {{"gesture": "clear"}}.')
            self.perform(**copy.deepcopy(entry))

    # A stroke that is still being drawn

    def start_stroke(self, point: tuple[float, float], **brush) -> None:
        """Begins to draw a stroke; ``brush`` holds the arguments of the gesture: radius, softness, erase, label."""
        self.cancel_stroke()
        dot = gestures.stroke(self, [point], **brush)
        self._stroke = _Stroke([point], brush, self.pixels.copy(), dot.rows, dot.columns)
        self._show_stroke(dot)

    def continue_stroke(self, point: tuple[float, float]) -> None:
        """Draws on to the next point."""
        if self._stroke is None:
            raise RuntimeError("no stroke was begun, call start_stroke first.")
        self._stroke.points.append(point)
        self._show_stroke(gestures.stroke(self, self._stroke.points[-2:], **self._stroke.brush))

    def finish_stroke(self) -> None:
        """Draws the whole stroke once more as one gesture, so that picture and log cannot differ."""
        stroke = self._stroke
        if stroke is None:
            raise RuntimeError("no stroke was begun, call start_stroke first.")
        self.perform("stroke", points=stroke.points, **stroke.brush)

    def cancel_stroke(self) -> None:
        """Takes back a stroke that is still being drawn, if there is one."""
        stroke, self._stroke = self._stroke, None
        if stroke is not None:
            self.pixels[stroke.rows, stroke.columns] = stroke.before[stroke.rows, stroke.columns]
            self._tell(stroke.rows, stroke.columns)

    def _show_stroke(self, change: Change) -> None:
        """Draws the newest part of the stroke at once."""
        self.pixels[change.rows, change.columns] = change.pixels
        if change.pixels.size:
            self._stroke.rows = _span(self._stroke.rows, change.rows)
            self._stroke.columns = _span(self._stroke.columns, change.columns)
            self._tell(change.rows, change.columns)

    # Changes and their way back

    def _exchange(self, entry: dict, change: Change) -> _Step:
        """Puts a change in place; what was there becomes the step that leads back."""
        replaced = self.pixels if change.image is not None else self.pixels[change.rows, change.columns]
        step = _Step(
            entry,
            change.rows,
            change.columns,
            zlib.compress(np.ascontiguousarray(replaced), 1),
            self.image if change.image is not None else None,
        )
        if change.image is not None:
            self.image, self.pixels = change.image, change.pixels.copy()
            self._tell_all()
        else:
            self.pixels[change.rows, change.columns] = change.pixels
            self._tell(change.rows, change.columns)
        return step

    def _swap(self, step: _Step) -> _Step:
        """Puts back what a step replaced; what was there becomes the step in the other direction."""
        if step.image is None:
            rows, columns, size = step.rows, step.columns, self.pixels[step.rows, step.columns].shape
        else:
            size = tuple(step.image.shape[-2:])
            rows, columns = slice(0, size[0]), slice(0, size[1])
        pixels = np.frombuffer(zlib.decompress(step.packed), np.uint8).reshape(size)
        return self._exchange(step.entry, Change(rows, columns, pixels, step.image))

    def _forget_old_steps(self) -> None:
        while len(self._done) > 1 and sum(step.memory for step in self._done) > self._memory:
            self._too_old.append(self._done.pop(0).entry)

    def _tell(self, rows: slice, columns: slice) -> None:
        if rows.stop > rows.start and columns.stop > columns.start:
            for callback in list(self._observers):
                callback((columns.start, rows.start, columns.stop, rows.stop))

    def _tell_all(self) -> None:
        for callback in list(self._observers):
            callback(None)

    def _tell_gesture(self) -> None:
        for callback in list(self._gesture_observers):
            callback()


def _span(a: slice, b: slice) -> slice:
    """The smallest slice that holds both."""
    return slice(min(a.start, b.start), max(a.stop, b.stop))
