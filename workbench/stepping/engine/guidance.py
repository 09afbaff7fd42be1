"""The denoiser's answers in a step, taken apart: without the prompt, with it, and how they were mixed."""

import torch

from workbench.stepping.engine.moment import Moment, denoiser_answers
from workbench.stepping.engine.structure import tensors


def raw_outputs(moment: Moment) -> list[torch.Tensor]:
    """The denoiser's own outputs in a step, one a call."""
    return [next(tensors(answer.output)) for answer in denoiser_answers(moment)]


def guidance_parts(moment: Moment) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(without prompt, with prompt), each like noise_pred; None where a step was not guided by two predictions.

    One call with twice the rows holds [without, with] in most pipelines; of two calls the first is mostly the one
    with. Guidance goes from the one without towards the one with, and beyond: where noise_pred lies on the other side,
    they are the other way round.
    """
    outputs = raw_outputs(moment)
    rows = len(moment.sample)
    if len(outputs) == 2 and all(len(o) == rows for o in outputs):
        parts = outputs[1], outputs[0]
    elif len(outputs) == 1 and len(outputs[0]) == 2 * rows:
        parts = outputs[0].chunk(2)
    else:
        return None
    if moment.sample.ndim > 1:
        parts = tuple(part[:, : moment.sample.shape[1]] for part in parts)
    if parts[0].shape != moment.sample.shape:
        return None
    factor = measured_guidance(moment.noise_pred, *parts)
    return parts[::-1] if factor is not None and factor < 0 else parts


def aligned_parts(a: Moment, b: Moment) -> tuple:
    """`guidance_parts` of two steps in the same order; each alone takes for the text what it is guided towards."""
    p, q = guidance_parts(a), guidance_parts(b)
    crossed = p and q and torch.equal(p[0], q[1]) and torch.equal(p[1], q[0])
    return p, q[::-1] if crossed else q


def measured_guidance(noise_pred: torch.Tensor, uncond: torch.Tensor, text: torch.Tensor) -> float | None:
    """g of noise_pred = uncond + g (text - uncond), by least squares; None where both parts are the same."""
    uncond, text = uncond.double(), text.double()
    way = text - uncond
    size = way.square().sum()
    mixed = noise_pred[:, : uncond.shape[1]].double() if uncond.ndim > 1 else noise_pred.double()
    return float(((mixed - uncond) * way).sum() / size) if size > 0 else None
