"""On the way to a step: one step at a time, so that a pause is heard and the kernel stays free in between."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from workbench.widgets.run_player.drive import Drive
from workbench.widgets.timing import Sparingly, later, one_at_a_time

PACE = 0.12
"""Seconds from one step to the next while playing, if computing them does not take longer."""
SHARE, DRAW_EVERY = 0.1, 0.25
"""Of the time, what drawing may take on the way to a step; and how many seconds pass between two drawings at least."""


@dataclass(frozen=True)
class Goal:
    """Where the player is going by itself.

    Args:
        end: the step to reach; None for the end of the run.
        stops: whether breakpoints and watches end it.
        paced: whether it goes slowly enough to be watched.
    """

    end: int | None
    stops: bool = True
    paced: bool = False


class Going:
    """Base of the player: takes a drive to its goal, and shows where it stands.

    A subclass gives ``_drive``, `_show`, which draws, and `_attempt`, which tells what goes wrong in a timer.
    """

    _drive: Drive
    _show: Callable
    _attempt: Callable

    def __init__(self):
        self.error: Exception | None = None
        self._said: str | None = None
        self._closed = False
        self._goal: Goal | None = None
        self._ticket: object = None  # of the work in progress: an appointment with an older one is void
        self._sparingly = Sparingly(SHARE, DRAW_EVERY)

    @property
    def running(self) -> bool:
        """Whether it is on its way to a step."""
        return self._goal is not None

    @one_at_a_time
    def _aim(self, goal: Goal) -> "Going":
        if self._closed:
            raise RuntimeError("the player is closed, make another one.")
        self._halt()
        self._goal, self._ticket = goal, object()
        return self

    def _halt(self) -> None:
        """Ends what is going on, and forgets what was said."""
        self._goal = self._ticket = self.error = self._said = None

    def _arrive(self, wait: bool = True):
        """Goes on until the goal is reached or given up, or sets out to; returns the state there."""
        ticket = self._ticket
        if not wait:
            self._go_on(ticket)
        while wait and self.running and ticket is self._ticket:
            self._chunk()
        return self._drive.run.state

    def _go_on(self, ticket: object) -> None:
        """One step, and an appointment for the next."""
        while self.running and ticket is self._ticket:
            started = time.monotonic()
            goal = self._chunk()
            rest = PACE - (time.monotonic() - started) if goal is not None and goal.paced else 0
            if later(max(rest, 0.01), lambda: self._attempt(self._go_on, ticket)) is not None:
                return

    @one_at_a_time
    def _chunk(self) -> Goal | None:
        """One step towards the goal; then shows where it stands. Returns the goal."""
        goal = self._goal
        if goal is None:
            return None
        try:
            more = self._drive.forward() if goal.stops else self._drive.toward(goal.end)
        except BaseException:  # an interrupt too
            self._goal = None
            with suppress(Exception):
                self._show(hurry=True)
            raise
        if not more or (goal.stops and self._drive.i == goal.end):
            self._goal = None
        if not self.running:
            self._show(hurry=False)
        elif goal.paced or self._sparingly.due:
            self._show(hurry=True)
        return goal
