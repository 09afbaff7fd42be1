"""Handing a run's latents over to another scheduler.

A sample is a x0 + s noise, with levels (a, s) that the scheduler sets. The other one takes over where its own ratio
s / a is nearest to what the run has reached; what is known of x0 and the noise is mixed anew at its levels. Its memory
of earlier steps is rebuilt from the predictions so far.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch

from workbench.stepping.engine.execution import Execution
from workbench.stepping.engine.moment import Moment
from workbench.stepping.engine.prediction import first_number, noise_levels

Levels = tuple[float, float]


def grid(execution: Execution) -> tuple[list[float], list[Levels]]:
    """Timesteps of a call that stands at its beginning, and the levels before each of them and after the last.

    Raises:
        ValueError: the pipeline does not show them.
    """
    scheduler, timesteps = getattr(execution.pipe, "scheduler", None), execution.timesteps
    if scheduler is None or timesteps is None:
        raise ValueError(
            f"scheduler is given, but {type(execution.pipe).__name__} does not show its scheduler and timesteps: "
            f"make a pipeline with the other scheduler, and a new run."
        )
    everything = [first_number(t) for t in scheduler.timesteps]
    first = getattr(scheduler, "begin_index", None) or max(len(everything) - len(timesteps), 0)
    levels = []
    for k, t in enumerate(timesteps):
        if hasattr(scheduler, "_step_index"):
            scheduler._step_index = first + k
        levels.append(noise_levels(scheduler, t))
    return [first_number(t) for t in timesteps], [*levels, (1.0, 0.0)]


def handed_over(moments: Sequence[Moment], old: Execution, new: Execution) -> list[Moment]:
    """The moments that a call with another scheduler has to follow to stand where a run stands.

    Args:
        moments: of the run so far, at least one.
        old, new: calls with the run's own scheduler and with the other, not begun yet; used up.

    Returns:
        One moment for each of the other scheduler's steps up to there.

    Raises:
        ValueError: the pipeline does not show its timesteps.
    """
    try:
        old.resume()
        new.resume()
        return _followed(moments, grid(old)[1], *grid(new), getattr(new.pipe.scheduler, "order", 1))
    finally:
        old.close()
        new.close()


def _followed(
    moments: Sequence[Moment], before: list[Levels], timesteps: list[float], after: list[Levels], order: int
) -> list[Moment]:
    """`handed_over` from one grid to another, on which every step takes ``order`` calls of the network."""
    if before == after:
        return list(moments)
    reached = before[len(moments)]
    n = min(range(order, len(after), order), key=lambda k: _apart(after[k], reached), default=len(after) - 1)
    if len(moments) == len(before) - 1:
        n = len(after) - 1
    lead = []
    for k in range(n):
        source = moments[-1] if k == n - 1 else min(moments, key=lambda m: _apart(m.levels, after[k]))
        sample = mixed(source.sample, source.denoised, source.levels, after[k])
        lead.append(dataclasses.replace(source, i=k + 1, t=timesteps[k], sample=sample, levels=after[k]))
    for k, moment in enumerate(lead[:-1]):
        moment.latents = moment.solved = lead[k + 1].sample
    last = moments[-1]
    lead[-1].latents = mixed(last.latents, last.denoised, reached, after[n])
    lead[-1].solved = mixed(last.solved, last.denoised, reached, after[n])
    return lead


def mixed(sample: torch.Tensor, x0: torch.Tensor | None, before: Levels, after: Levels) -> torch.Tensor:
    """A sample a x0 + s noise at other levels: a' x0 + s' noise, the noise being what is left of it without x0."""
    if before == after or any(math.isnan(v) for v in (*before, *after)):
        return sample
    (a, s), (a2, s2) = before, after
    if x0 is None or s == 0:
        return sample * (math.hypot(a2, s2) / math.hypot(a, s))
    x, x0 = sample.double(), x0.double()
    return (a2 * x0 + s2 * (x - a * x0) / s).to(sample.dtype)


def _apart(one: Levels, other: Levels) -> float:
    """How far two noise levels lie apart: their angles, 0 for a clean picture, pi / 2 for noise."""
    return abs(math.atan2(one[1], one[0]) - math.atan2(other[1], other[0]))
