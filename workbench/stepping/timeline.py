"""Moving through a run: what stepping through denoising and through training have in common.

A run is computed forwards only, one step after the other, and every step leaves a state behind. Moving about is
moving a cursor over these states; only a move past the last one computes anything.
"""

import functools
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from workbench import check

PATIENCE = 10.0
"""Seconds that a thread waits for another one's move to end: JupyterLab's buttons act in another thread than cells."""


@dataclass(frozen=True)
class Breakpoint:
    """Where a run stops by itself.

    Args:
        name: what is told when it stops there.
        when: ``when(state) -> bool``, asked after each step.
    """

    name: str
    when: Callable[[Any], bool]


@dataclass(frozen=True)
class Watch:
    """What must not happen in a run; it stops where it does.

    Args:
        name: of what is watched.
        finds: ``finds(before, after) -> str | None``: given two states in a row, what is wrong, or nothing.
    """

    name: str
    finds: Callable[[Any, Any], str | None]


def one_at_a_time(verb: Callable) -> Callable:
    """A verb of a run; while it is at work, other threads' verbs wait, see `Timeline._moving`."""

    @functools.wraps(verb)
    def alone(self, *args, **kwargs):
        with self._moving():
            return verb(self, *args, **kwargs)

    return alone


@contextmanager
def patiently(lock, who: str) -> Iterator[None]:
    """Inside, this thread has the lock; RuntimeError where it does not get it in `PATIENCE` seconds."""
    if not lock.acquire(timeout=PATIENCE):
        raise RuntimeError(f"{who} is moving in another thread. Wait for it, or pause it.")
    try:
        yield
    finally:
        lock.release()


class Timeline(ABC):
    """A run that can be stepped, rewound, stopped and branched.

    State k is what there is after k steps; state 0 is what there is before the first. ``i`` is where the run stands.
    Any thread may move it, one at a time: others wait, and give up with a RuntimeError after `PATIENCE` seconds.

    Attributes:
        breakpoints, watches: what stops it; lists, to be edited freely.
        stopped: why the last move ended early, in words; None if it did not.
        parent, at: the run this one branched off and after which step; None for a root.
        branches: runs that branched off this one.
        name: "run" for a root, then "run.1", "run.1.2", ... for its branches.
    """

    computes = True
    """Whether it goes on beyond what is recorded; a recording does not."""
    _levels = ("t", "sigma")
    """Noise levels that its states tell."""

    def __init__(self, parent: "Timeline | None" = None, at: int | None = None):
        self.breakpoints: list[Breakpoint] = []
        self.watches: list[Watch] = []
        self.stopped: str | None = None
        self.parent, self.at, self.branches = parent, at, []
        self.changes: dict[str, Any] = {}
        self.name = "run"
        self._cursor = 0
        self._lock = threading.RLock()
        if parent is not None:
            parent.branches.append(self)
            self.name = f"{parent.name}.{len(parent.branches)}"

    # What a kind of run fills in

    @property
    @abstractmethod
    def total(self) -> int | None:
        """How many steps there will be; None where a run has no end."""

    @abstractmethod
    def _states(self) -> Sequence:
        """All states so far; never empty, computing the first if need be."""

    @abstractmethod
    def _compute(self) -> None:
        """Computes one step and appends its state. Raises StopIteration where the run is over.

        Interrupted or failing, it leaves the states as they were, ready to be called again.
        """

    # Where it stands

    @property
    def i(self) -> int:
        """How many steps are behind the cursor."""
        return self._cursor

    @property
    def state(self):
        """The state under the cursor."""
        return self._states()[self._cursor]

    @property
    def states(self) -> Sequence:
        """All states computed so far: states[k] is what there is after k steps."""
        return self._states()

    @property
    def recorded(self) -> int:
        """How many steps are computed; moving among them costs nothing."""
        return len(self._states()) - 1

    @property
    def done(self) -> bool:
        """Whether the cursor stands behind the last step."""
        return self.total is not None and self._cursor >= self.total

    # Moving

    def _moving(self) -> AbstractContextManager[None]:
        """Inside, this thread alone moves the run."""
        return patiently(self._lock, self.name)

    @one_at_a_time
    def step(self, n: int = 1):
        """Goes n steps forward, or as far as the run or a breakpoint or watch lets it; returns the state there.

        Raises:
            RuntimeError: the run stands at its end already.
        """
        check.integer(n, "n", 1)
        if self.done:
            raise RuntimeError(f"the run is over: all {self.total} steps are done. Go back, or branch.")
        self._walk(self._cursor + n, None)
        return self.state

    @one_at_a_time
    def back(self, n: int = 1):
        """Goes n steps back; returns the state there. Nothing is computed, nothing is forgotten.

        Raises:
            ValueError: there are fewer than n steps behind.
        """
        check.integer(n, "n", 1)
        if n > self._cursor:
            raise ValueError(f"n is {n}, expected at most {self._cursor}: the steps done so far.")
        return self.goto(self._cursor - n)

    @one_at_a_time
    def goto(self, i: int):
        """Goes to the state after i steps, computing what is missing; no breakpoint stops it. Returns the state.

        Raises:
            ValueError: i is negative or beyond the end.
        """
        check.integer(i, "i", 0, self.total)
        self.stopped = None
        while self.recorded < i:
            try:
                self._compute()
            except StopIteration:
                raise ValueError(f"i is {i}, expected at most {self.recorded}: the run ended there.") from None
            self._cursor = self.recorded
        self._cursor = i
        return self.state

    @one_at_a_time
    def run_until(self, predicate: Callable[[Any], bool]):
        """Goes on until ``predicate(state)`` holds after a step, or the run ends; returns the state there."""
        self._walk(None, Breakpoint("run_until", predicate))
        return self.state

    def _walk(self, end: int | None, also: Breakpoint | None) -> None:
        """Steps until ``end``, ``also``, a breakpoint, a watch, or the end of the run."""
        self.stopped = None
        while not self.done and (end is None or self._cursor < end):
            if self._cursor == self.recorded:
                try:
                    self._compute()
                except StopIteration:
                    return
            before, self._cursor = self.state, self._cursor + 1
            if also is not None and also.when(self.state):
                return
            for point in self.breakpoints:
                if point.when(self.state):
                    self.stopped = f"breakpoint: {point.name}"
                    return
            for watch in self.watches:
                told = watch.finds(before, self.state)
                if told:
                    self.stopped = f"watch: {told}"
                    return

    # Stopping

    def break_at(
        self, step: int | None = None, *, t: float | None = None, sigma: float | None = None,
        when: Callable[[Any], bool] | None = None,
    ) -> Breakpoint:  # fmt: skip
        """Sets a breakpoint; exactly one of the arguments says where.

        Args:
            step: after this many steps.
            t: at the first step whose timestep is no higher.
            sigma: at the first step whose noise level is no higher.
            when: where ``when(state)`` holds.

        Returns:
            The breakpoint, to be taken out of ``breakpoints`` again; for a step that has one, that one.

        Raises:
            ValueError: none or several are given, or a level that the states of this run do not have.
            TypeError: ``when`` cannot be called.
        """
        given = {"step": step, "t": t, "sigma": sigma, "when": when}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) != 1:
            raise ValueError(f"{', '.join(given) or 'nothing'} is given, expected exactly one of step, t, sigma, when.")
        for name in {"t", "sigma"} - set(self._levels):
            if name in given:
                raise ValueError(
                    f"{name} is given, but the steps of this run have none. Break at a step, or where when holds."
                )
        if when is not None and not callable(when):
            raise TypeError(f"when is {when!r}, expected a function of a state.")
        if step is not None:
            check.integer(step, "step", 1, self.total)
            name = f"step {step}"
            for there in self.breakpoints:
                if there.name == name:
                    return there
            point = Breakpoint(name, lambda state: state.i == step)
        elif t is not None:
            point = Breakpoint(f"t <= {t:g}", self._falls("t", t))
        elif sigma is not None:
            point = Breakpoint(f"sigma <= {sigma:g}", self._falls("sigma", sigma))
        else:
            point = Breakpoint(getattr(when, "__name__", "when"), when)
        self.breakpoints.append(point)
        return point

    def _falls(self, name: str, level: float) -> Callable[[Any], bool]:
        """Whether a state's value is the first that is no higher than ``level``."""

        def when(state) -> bool:
            value = getattr(state, name)
            if value is None or value > level:
                return False
            before = getattr(self._states()[state.i - 1], name)
            return before is None or before > level

        return when

    # The tree of runs

    def root(self) -> "Timeline":
        """The run that all others of the tree branched off."""
        run = self
        while run.parent is not None:
            run = run.parent
        return run

    def tree(self) -> str:
        """The whole tree this run belongs to, one run a line, as text; the run itself is marked."""
        lines: list[str] = []

        def walk(run: Timeline, indent: str) -> None:
            mark = " <" if run is self else ""
            changes = ", ".join(f"{name}={_short(value)}" for name, value in run.changes.items()) or "unchanged"
            told = "" if run.parent is None else f" at {run.at}: {changes}"
            end = "?" if run.total is None else run.total
            lines.append(f"{indent}{run.name}{told}  [{run.recorded}/{end}]{mark}")
            for branch in run.branches:
                walk(branch, indent + "  ")

        walk(self.root(), "")
        return "\n".join(lines)


def _short(value) -> str:
    """A value in a few characters."""
    told = repr(value) if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__
    return told if len(told) <= 40 else f"{told[:37]}..."
