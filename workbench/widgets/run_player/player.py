"""`wb.RunPlayer`: a denoising run, or a recording of one, in a notebook cell. Every button is also a method."""

import traceback
from collections.abc import Callable
from contextlib import suppress

import torch

from workbench import check
from workbench.widgets.run_player import tree
from workbench.widgets.run_player.drive import Drive, name_of
from workbench.widgets.run_player.going import Goal, Going
from workbench.widgets.run_player.screen import Screen, end_of
from workbench.widgets.run_player.views import Views, hole_of
from workbench.widgets.shown import InCell
from workbench.widgets.timing import AtRest, one_at_a_time

SHARPEN_AFTER = 0.2
"""Seconds of rest after which pictures are decoded that could not be decoded in a hurry."""
_NEEDED = ("i", "recorded", "state", "states", "step", "back", "goto", "decode")


class RunPlayer(Going, InCell):
    """Play a run, step through it both ways, stop it, branch it, and see what is in it.

    It works by the run's own verbs, so run and player can be used side by side; after moving the run from code, call
    `refresh`. Methods do their work before they return; `play`, and what buttons and the time line ask for, is done a
    step at a time and leaves the kernel free in between.

    Args:
        run: a `DenoisingRun` or a recording; anything with its states and verbs.
        other: a run to be locked to it: both stand at the same step, and what tells them apart is shown.
        mask: (B, 1, H, W), 1 = hole = repaint: shows the hole's edge before and after blending. None takes the
            ``mask_image`` of the run's call, where that is such a mask.
        diverge: ``diverge(run, other) -> anything with a ``step``, or None``, as `wb.first_divergence`; None hides
            the button.

    Attributes:
        run, other: as above; `show_run` and `compare` change them.
        outsiders: runs of other trees that the menus offer too.
        error: what last went wrong in a button or a timer, with its traceback; None after the next move.

    Raises:
        TypeError: a run that is none.
        ValueError: a mask that is none.

    Example:
        >>> player = RunPlayer(run); player.step(); player.toggle_breakpoint(5); player.finish().i
        5
    """

    def __init__(self, run, other=None, mask: torch.Tensor | None = None, *, diverge: Callable | None = None):
        for name, given in (("run", run), ("other", other)):
            missing = [n for n in _NEEDED if not (hasattr(type(given), n) or hasattr(given, n))]
            if missing and (name == "run" or given is not None):
                told = f"{name} is a {type(given).__name__} without {', '.join(missing)}"
                raise TypeError(f"{told}, expected a DenoisingRun or a recording.")
        if diverge is not None and not callable(diverge):
            raise TypeError(f"diverge is a {type(diverge).__name__}, expected a function such as wb.first_divergence.")
        super().__init__()
        self._drive = Drive(run, other)
        self.outsiders = []
        if other is not None:
            self._introduce(other, run)
        self._views = Views(hole_of(run, mask))
        self._diverge = diverge
        self._screen = Screen(self, self._attempt, diverge is not None, len(run.state.latents))
        self._sharpen_at_rest = AtRest(self._sharpen, SHARPEN_AFTER, self._attempt)
        self.widget, self._static = self._screen.widget, self._screen.static
        if other is not None:
            self._drive.toward(run.i)
        self.refresh()

    # Where it stands

    @property
    def run(self):
        """The run that is shown."""
        return self._drive.run

    @property
    def other(self):
        """The run that is locked to it, or None."""
        return self._drive.other

    @property
    def buttons(self) -> dict:
        """The buttons by name."""
        return self._screen.controls.buttons

    @property
    def status(self) -> str:
        """What the status line says: why it stopped, what was found, or what went wrong; "" for nothing."""
        return self._told_status()[0]

    # Moving

    def step(self, n: int = 1):
        """n steps forward, or as far as a breakpoint lets it; returns the state there."""
        check.integer(n, "n", 1)
        if self._drive.over:
            raise RuntimeError(f"the run is over: all {self.run.i} steps are done. Go back, or branch.")
        return self._aim(Goal(self.run.i + n))._arrive()

    @one_at_a_time
    def back(self, n: int = 1):
        """n steps back; returns the state there."""
        self._halt()
        self._drive.back(n)
        self.refresh()
        return self.run.state

    def goto(self, i: int, wait: bool = True):
        """To the state after i steps, computing what is missing, breakpoints or not; returns it.

        ``wait=False`` returns after the first step; the rest follows while the kernel is free.
        """
        check.integer(i, "i", 0, self.run.total)
        return self._aim(Goal(i, stops=False))._arrive(wait)

    def finish(self, wait: bool = True):
        """To the end, or to a breakpoint or watch; returns the state there. ``wait`` as in `goto`."""
        return self.run.state if self._drive.over else self._aim(Goal(None))._arrive(wait)

    def play(self) -> None:
        """Like `finish`, slowly enough to be watched, and without waiting; from the end it begins anew.

        In a script, where no event loop could call back, it waits.
        """
        if self._drive.over:
            self.goto(0)
        self._aim(Goal(None, paced=True))._arrive(wait=False)

    def pause(self) -> None:
        """Stands still after the step that is being done."""
        self._goal = None  # before waiting for our turn: who works between two steps looks here
        self.refresh()

    # Stopping, branching, comparing

    @one_at_a_time
    def toggle_breakpoint(self, i: int | None = None) -> None:
        """Sets a breakpoint after step i, or takes it out; None means here."""
        i = self.run.i if i is None else i
        check.integer(i, "i", 1, self.run.total)
        points = self.run.breakpoints
        here = [point for point in points if tree.step_of(point) == i]
        if here:
            points[:] = [point for point in points if point not in here]
        else:
            self.run.break_at(i)
        self._say(f"breakpoint {'taken out' if here else 'set'} at step {i}")

    @one_at_a_time
    def branch(self, **changes):
        """Branches the run where it stands, and goes over to the branch; returns it.

        Args:
            **changes: as in `DenoisingRun.branch`; none gives an equal future.

        Raises:
            RuntimeError: a recording, which has no model to go on with.
        """
        if not hasattr(self.run, "branch"):
            raise RuntimeError(f"{name_of(self.run)} is a recording and cannot go on: give it its pipeline, with_pipe.")
        self._halt()
        child = self.run.branch(**changes)
        self.show_run(child)
        self._say(f"branched: {tree.label(child)}")
        return child

    @one_at_a_time
    def show_run(self, run) -> None:
        """Goes over to another run, of this tree or not; it is shown at the same step, as far as it is recorded."""
        self._halt()
        i = self.run.i
        other = None if self.other is run else self.other
        self._introduce(self.run, run)
        self._drive = Drive(run, other)
        self._drive.toward(min(i, self._drive.recorded))
        self.refresh()

    @one_at_a_time
    def compare(self, other) -> None:
        """Locks another run to this one; None shows this one alone."""
        self._halt()
        if other is self.run:
            raise ValueError("other is the run that is shown, expected another one.")
        self._drive = Drive(self.run, other)
        if other is not None:
            self._introduce(other, self.run)
            self._drive.toward(min(self.run.i, self._drive.recorded))
        self.refresh()

    @one_at_a_time
    def find_divergence(self):
        """Finds where the two runs part, goes there, and says why; returns what ``diverge`` gave.

        Raises:
            RuntimeError: there is no second run, or the player was not told how to find out.
        """
        if self._diverge is None:
            raise RuntimeError("nobody can be asked, expected RunPlayer(run, other, diverge=wb.first_divergence).")
        if self.other is None:
            raise RuntimeError("there is one run only, expected two. Lock another one to it with compare(other).")
        self._halt()
        found = self._diverge(self.run, self.other)
        step = getattr(found, "step", None)
        if isinstance(step, int):
            while self._drive.toward(min(step, self.run.recorded)):
                pass
        self._say("no difference in what both have recorded" if found is None else str(found))
        return found

    @one_at_a_time
    def show_item(self, item: int) -> None:
        """Which picture of a batch is shown."""
        self._views.item = check.integer(item, "item", 0, len(self.run.state.latents) - 1)
        self.refresh()

    # Looking

    @one_at_a_time
    def refresh(self) -> None:
        """Draws everything anew, also what was done to the run from elsewhere."""
        self._show(hurry=False)

    @one_at_a_time
    def redraw(self) -> None:
        """Sends the time line again, should the canvas be empty."""
        self._screen.time_line.redraw()

    @one_at_a_time
    def snapshot(self) -> torch.Tensor:
        """The panels, and under them a strip of predicted pictures: (1, 3, H, W) in [0, 1]."""
        return self._screen.snapshot(self._drive, self._views)

    def close(self) -> None:
        """Takes the player off the page; the run is left as it is."""
        if not self._closed:
            self._goal = None
            self._close()

    @one_at_a_time
    def _close(self) -> None:
        self._closed, self._ticket = True, None
        self._sharpen_at_rest.cancel()
        self._screen.close()
        self._views.forget()

    def __repr__(self) -> str:
        beside = "" if self.other is None else f", beside {name_of(self.other)}"
        return (
            f"RunPlayer({name_of(self.run)}, step {self.run.i} of {end_of(self.run)}, "
            f"{self.run.recorded} recorded{beside})"
        )

    # What the mouse and the keys ask for

    @one_at_a_time
    def scrub(self, i: int, final: bool) -> None:
        """The pointer is at step i of the time line; while it is held down nothing is computed."""
        if final:
            self.goto(i, wait=False)
            return
        self._halt()
        if self.run.i != min(i, self._drive.recorded):
            self._drive.toward(min(i, self._drive.recorded))
            self._show(hurry=True)

    def press(self, key: str) -> None:
        """A key was pressed on the time line."""
        actions = {
            "ArrowRight": self.step,
            "ArrowLeft": self.back,
            " ": self.pause if self.running else self.play,
            "Home": lambda: self.goto(0),
            "End": lambda: self.finish(wait=False),
            "b": self.toggle_breakpoint,
        }
        if key in actions and not (key in ("ArrowRight", "ArrowLeft", "End") and self.running):
            actions[key]()

    def _attempt(self, action: Callable, *arguments) -> None:
        """Does what a button or timer asks for; what goes wrong is told, because nobody would see it raised."""
        if self._closed:
            return
        try:
            action(*arguments)
        except Exception as error:
            self._goal = None
            self._fail(error)

    @one_at_a_time
    def _fail(self, error: Exception) -> None:
        self.error = error
        self._screen.show_status(*self._told_status())
        with suppress(Exception):  # what is wrong with the run may also be in the way of showing it
            self._show(hurry=True)

    def _introduce(self, one, shown) -> None:
        """Keeps a run within reach that is not of the tree of the one shown."""
        if not any(one is run for run in [lane.run for lane in tree.lanes(shown)] + self.outsiders):
            self.outsiders.append(one)

    def _say(self, words: str) -> None:
        self._said = words
        self.refresh()

    def _show(self, hurry: bool) -> None:
        """Shows everything; in a hurry without decoding more than it can keep up with."""
        if self._closed:
            return
        self._views.owing = False
        with self._sparingly.drawing(counted=self.running):
            self._screen.show_status(*self._told_status())
            self._screen.show(self._drive, self.running, self._views, hurry)
        _ = self._sharpen_at_rest.request() if self._views.owing else self._sharpen_at_rest.cancel()

    def _sharpen(self) -> None:
        if not self.running:
            self.refresh()

    def _told_status(self) -> tuple[str, str, str]:
        """Words, what kind they are, and an error's traceback."""
        if self.error is not None:
            trace = "".join(traceback.format_exception(self.error))
            return str(self.error) or type(self.error).__name__, "error", trace
        if self._goal is not None:
            return "playing" if self._goal.paced else "on the way", "note", ""
        said = [f"stopped: {self._drive.stopped}"] if self._drive.stopped else []
        said += [words for words in (self._drive.note, self._said) if words]
        return " · ".join(said), "stop" if self._drive.stopped else "note", ""
