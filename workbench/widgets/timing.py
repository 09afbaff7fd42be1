"""When to draw: not for every mouse move or step, never too late for the last one, and one at a time."""

import asyncio
import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ONE_AT_A_TIME = threading.RLock()
"""Held by whoever changes a widget or draws. JupyterLab hands what the mouse does to a thread of its own (a subshell of
the kernel), while cells and timers run in another; and what ipycanvas collects to send is one list for all canvases."""


def one_at_a_time(function: Callable) -> Callable:
    """A function that waits until no other thread is at work on a widget."""

    @functools.wraps(function)
    def alone(*arguments, **options):
        with ONE_AT_A_TIME:
            return function(*arguments, **options)

    return alone


def later(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle | None:
    """Calls back in so many seconds; None where nothing could (a script without an event loop)."""
    try:
        return asyncio.get_running_loop().call_later(seconds, callback)
    except RuntimeError:
        return None


class Throttle:
    """Calls a function at most ``rate`` times a second, however often it is asked for.

    The first request is served at once, those that come too soon are joined into one, served as soon as it is due:
    by a timer in a kernel, by the next request or `flush` in a script. ``attempt`` does what the timer asks for, and
    knows whom to tell if it fails.
    """

    def __init__(self, callback: Callable[[], None], rate: float, attempt: Callable):
        self._callback, self._interval, self._attempt = callback, 1 / rate, attempt
        self._free_at = 0.0
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None

    def request(self) -> None:
        """Asks for a call, soon."""
        self._waiting = True
        wait = self._free_at - time.monotonic()
        if wait <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = later(wait, lambda: self._attempt(self.flush))

    def flush(self) -> None:
        """Serves what waits, now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._waiting = False
            try:
                self._callback()
            finally:
                self._free_at = time.monotonic() + self._interval

    def cancel(self) -> None:
        """Forgets what waits."""
        self._waiting = False
        self.flush()


class AtRest:
    """Calls a function, by way of ``attempt``, once nothing was asked for during some seconds; in a script never."""

    def __init__(self, callback: Callable[[], None], seconds: float, attempt: Callable):
        self._callback, self._seconds, self._attempt = callback, seconds, attempt
        self._timer: asyncio.TimerHandle | None = None

    def request(self) -> None:
        """Asks for a call, and puts off an earlier one."""
        self.cancel()
        self._timer = later(self._seconds, lambda: self._attempt(self._callback))

    def cancel(self) -> None:
        """Forgets what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Sparingly:
    """Tells when to draw again during other work, so that drawing takes a small share of the time on any machine.

    Args:
        share: of the time that drawing may take, above 0, at most 1.
        seconds: that pass between two drawings at least.
    """

    def __init__(self, share: float, seconds: float):
        self._share, self._seconds = share, seconds
        self._free_at = -math.inf

    @property
    def due(self) -> bool:
        """Whether enough time has passed since the last drawing, for as long as that took."""
        return time.monotonic() >= self._free_at

    @contextmanager
    def drawing(self, counted: bool = True) -> Iterator[None]:
        """What is done inside is a drawing; where it is not counted, the next one need not wait the longer for it."""
        started = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            cost = ended - started if counted else 0.0
            self._free_at = ended + max(self._seconds, cost * (1 / self._share - 1))
