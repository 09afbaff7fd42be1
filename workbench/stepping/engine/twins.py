"""Shallow copies of a pipeline and its parts that answer their entry points through a host.

Weights are shared, attributes are own: nothing is hooked into what the user holds, and several copies of one pipeline
can be in use side by side.
"""

import copy
import functools
import inspect
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

ENTRIES = ("__call__", "encode", "decode")
"""Methods of a pipeline's networks whose answers are kept."""
_HOST = "_workbench_host"


class Host(Protocol):
    """Who is asked in the place of the original. Deep copies of a twin keep their host."""

    def ask(self, name: str, method: str, names: Sequence[str], original, args: tuple, kwargs: dict):
        """Component ``name`` is asked; ``original(*args, **kwargs)`` is what it would do, ``names`` are of args."""

    def solve(self, scheduler, original, frame, args: tuple, kwargs: dict):
        """A scheduler is to do its step; ``frame`` is the caller's."""

    def loop(self, frame, iterable) -> None:
        """A progress bar is asked for: a loop begins in ``frame``."""


def twin_pipeline(pipe, host: Host, seen: dict | None = None):
    """A copy of a pipeline whose networks and schedulers ask the host; pipelines inside it likewise.

    Args:
        pipe: left as it is.
        host: asked.
        seen: twins by the id of their originals; filled.
    """
    seen = {} if seen is None else seen
    twin = seen[id(pipe)] = copy.copy(pipe)
    for name, value in vars(pipe).items():
        if id(value) not in seen:
            if isinstance(value, torch.nn.Module):
                seen[id(value)] = _twin_network(name, value, host)
            elif is_scheduler(value):
                seen[id(value)] = _twin_scheduler(value, host)
            elif is_pipeline(value):
                twin_pipeline(value, host, seen)
            else:
                continue
        vars(twin)[name] = seen[id(value)]

    def progress_bar(iterable=None, total=None):
        host.loop(sys._getframe(1), iterable)
        return SilentBar(iterable, total)

    vars(twin)["progress_bar"] = progress_bar
    # what moves weights between devices moves the originals
    vars(twin)["maybe_free_model_hooks"] = getattr(pipe, "maybe_free_model_hooks", lambda: None)
    return twin


def loop_frame(frame, pipes: list):
    """Where a step is taken: the innermost frame of one of the pipelines with latents, and its callback.

    Returns:
        (frame, callback), each None where there is none. Of a pipeline inside a pipeline its own callback counts.
    """
    found = None
    while frame is not None:
        variables = frame.f_locals
        if any(variables.get("self") is pipe for pipe in pipes):
            found = found or (frame if "latents" in variables else None)
            if "callback_on_step_end" in variables:
                return found, variables["callback_on_step_end"]
        frame = frame.f_back
    return found, None


def is_pipeline(value) -> bool:
    """Whether something is a diffusers pipeline, or acts like one."""
    return callable(value) and not isinstance(value, (type, torch.nn.Module)) and hasattr(value, "components")


def is_scheduler(value) -> bool:
    """Whether something is a scheduler, or acts like one."""
    known = callable(getattr(value, "step", None)) and callable(getattr(value, "set_timesteps", None))
    return known and not isinstance(value, type)


def _twin_network(name: str, module: torch.nn.Module, host: Host) -> torch.nn.Module:
    twin = object.__new__(_asking(type(module)))
    vars(twin).update(vars(module))  # all of it: copy.copy would leave out what torch.compile made
    vars(twin)[_HOST] = (host, name)
    return twin


def _twin_scheduler(scheduler, host: Host):
    twin = copy.deepcopy(scheduler)
    vars(twin)[_HOST] = (host,)
    twin.__class__ = _stepping(type(scheduler))
    return twin


@functools.cache
def _asking(kind: type) -> type:
    """A network's class whose entry points go to the host."""

    def entry(method: str):
        original = getattr(kind, method)
        names = _positional(kind.forward if method == "__call__" else original)

        @functools.wraps(original)
        def asked(self, *args, **kwargs):
            host, name = vars(self)[_HOST]
            return host.ask(name, method, names, functools.partial(original, self), args, kwargs)

        return asked

    return _subclass(kind, {method: entry(method) for method in ENTRIES if callable(getattr(kind, method, None))})


def _positional(method) -> tuple[str, ...]:
    """Names of the arguments, self left out, that a method takes by position."""
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(n for n, p in inspect.signature(method).parameters.items() if p.kind in by_position)[1:]


@functools.cache
def _stepping(kind: type) -> type:
    """A scheduler's class whose ``step`` goes to the host."""

    @functools.wraps(kind.step)
    def step(self, *args, **kwargs):
        original = functools.partial(kind.step, self)
        if _HOST not in vars(self):  # a pipeline made a new one of the same class
            return original(*args, **kwargs)
        return vars(self)[_HOST][0].solve(self, original, sys._getframe(1), args, kwargs)

    return _subclass(kind, {"step": step})


def _subclass(kind: type, ours: dict) -> type:
    ours = {**ours, "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return types.new_class(kind.__name__, (kind,), exec_body=lambda namespace: namespace.update(ours))


class SilentBar:
    """Stands in for tqdm inside a pipeline."""

    def __init__(self, iterable=None, total=None):
        self.iterable, self.total, self.n = iterable, total, 0

    def __iter__(self) -> Iterator:
        return iter(self.iterable)

    def __len__(self) -> int:
        return self.total if self.iterable is None else len(self.iterable)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        """Nothing to close."""

    def __getattr__(self, name: str):
        return lambda *args, **kwargs: None  # update, set_postfix, close ...
