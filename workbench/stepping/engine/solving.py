"""A scheduler's ``step`` as a call: which argument is which, and what it returned."""

import copy
import functools
import inspect

import torch


def bound_step(scheduler, args: tuple, kwargs: dict) -> inspect.BoundArguments:
    """The arguments of a step by name, the scheduler itself first."""
    return _signature(type(scheduler)).bind(scheduler, *args, **kwargs)


@functools.cache
def _signature(kind: type) -> inspect.Signature:
    return inspect.signature(kind.step)


def step_names(bound: inspect.BoundArguments) -> tuple[str, str, str]:
    """Names of the prediction, the timestep and the sample among the arguments of a step."""
    names = list(bound.arguments)[1:]  # without self
    return names[0], names[1], next((name for name in names if name.startswith("sample")), names[2])


def sample_of(out) -> torch.Tensor:
    """The latents in what a step returned."""
    return out[0] if isinstance(out, tuple) else out.prev_sample


def with_sample(out, latents: torch.Tensor):
    """What a step returned, with other latents in it."""
    if isinstance(out, tuple):
        return (latents, *out[1:])
    twin = copy.copy(out)
    twin.prev_sample = latents
    return twin
