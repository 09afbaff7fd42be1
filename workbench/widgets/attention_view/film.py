"""A film over the steps: one after the other, while the kernel stays free for everything else."""

from collections.abc import Callable

from workbench.widgets.timing import later

PACE = 0.3
"""Seconds from one step to the next, if computing it does not take longer."""


class Film:
    """Plays steps.

    Args:
        steps: tells which there are, in order.
        turn: ``turn(step)`` shows one.
        attempt: calls a function for a timer, and shows what goes wrong.
    """

    def __init__(self, steps: Callable[[], list[int]], turn: Callable, attempt: Callable):
        self._steps, self._turn, self._attempt = steps, turn, attempt
        self._ticket: object = None  # of what plays: an appointment with an older one is void

    @property
    def running(self) -> bool:
        """Whether it plays."""
        return self._ticket is not None

    def play(self, here: int | None) -> None:
        """Goes on from a step, from None or the last one it begins anew. In a script it waits until it is over."""
        steps = self._steps()
        if not steps:
            raise RuntimeError("there is no step to play, record some first.")
        self._ticket = ticket = object()
        self._show(steps[0] if here is None or here >= steps[-1] else here, ticket)

    def stop(self) -> None:
        """Stands still."""
        self._ticket = None

    def _show(self, step: int, ticket: object) -> None:
        """One step, and an appointment for the next; in a script, which cannot make one, all of them."""
        while self._ticket is ticket:
            onward = [other for other in self._steps() if other > step]
            if not onward:  # told before it is shown, so that the controls know
                self._ticket = None
            try:
                self._turn(step)
            except BaseException:
                self._ticket = None
                raise
            if not onward:
                return
            step = onward[0]
            if later(PACE, lambda step=step: self._attempt(self._show, step, ticket)) is not None:
                return
