"""What is done with the denoiser's answer: guidance, the solver's step, blending, and at last the picture."""

import torch

from workbench.stepping.causes.inputs import guided_or_not
from workbench.stepping.causes.pair import Pair, Told
from workbench.stepping.causes.sentences import (
    CLOSE,
    TURNED_ROUND,
    another_mask,
    another_scale,
    calls_differ,
    ratio_of,
)
from workbench.stepping.causes.settings import dtype, eta, scheduler_class, weights
from workbench.stepping.engine.guidance import aligned_parts, measured_guidance


def guidance(pair: Pair) -> Told:
    """The mix of the two predictions: another scale, swapped parts, applied twice."""
    moments = pair.moment_a, pair.moment_b
    parts = aligned_parts(*moments)
    if not all(parts):
        return guided_or_not(pair)
    (x, rest_x), (y, rest_y) = (_measured(m, p) for m, p in zip(moments, parts, strict=True))
    evidence = {"guidance": (x, y)}
    scales = pair.argument("guidance_scale")
    if abs(y - (1 - x)) < CLOSE * max(1, abs(x)) and abs(x - y) > CLOSE:
        return (
            f"conditional and unconditional are swapped when they are mixed: the measured guidance is {x:.4g} in a and "
            f"1 - {x:.4g} = {y:.4g} in b.",
            evidence,
        )
    if scales[0] == scales[1] and abs(x - 1) > CLOSE and abs(y - x * x) < CLOSE * max(1, x * x):
        return (
            f"guidance applied twice: the measured guidance is {x:.4g} in a and {x:.4g} x {x:.4g} = {y:.4g} in b.",
            evidence,
        )
    if abs(x - y) > CLOSE * max(1, abs(x)):
        called = f" guidance_scale is {scales[0]} in a, {scales[1]} in b." if scales[0] != scales[1] else (
            " Both calls ask for the same guidance_scale.")  # fmt: skip
        return f"another guidance scale: measured {x:.4g} in a, {y:.4g} in b.{called}", evidence
    if max(rest_x, rest_y) > CLOSE:
        return "the guided prediction is rescaled or otherwise changed in one run (guidance_rescale?).", evidence
    return None


def _measured(moment, parts) -> tuple[float, float]:
    """g of uncond + g (text - uncond), and the relative size of what that leaves unexplained."""
    g = measured_guidance(moment.noise_pred, *parts)
    if g is None:
        return 1.0, 0.0
    uncond, text = (p.double() for p in parts)
    mixed = moment.noise_pred[:, : uncond.shape[1]].double()
    rest = mixed - uncond - g * (text - uncond)
    return g, float(rest.square().sum().sqrt() / mixed.square().sum().sqrt().clamp(min=1e-12))


# The solver


def stale_history(pair: Pair) -> Told:
    """A multistep scheduler that remembers something else."""
    if pair.moment_a.history == pair.moment_b.history:
        return None
    return (
        "stale solver history: before this step the schedulers remember other earlier predictions or stand at another "
        "place, though everything given to them is equal (a scheduler used before, or not reset).",
        {"history": (pair.moment_a.history, pair.moment_b.history)},
    )


def fewer_draws(pair: Pair) -> Told:
    """Noise put back in one run only."""
    counts = len(pair.moment_a.draws), len(pair.moment_b.draws)
    if counts[0] == counts[1]:
        return None
    told = eta(pair) or scheduler_class(pair)
    return told or (f"the scheduler draws {counts[0]} times in a and {counts[1]} times in b.", {"draws": counts})


def solved_otherwise(pair: Pair) -> Told:
    """Equal arguments, equal tables, another result."""
    ratio = ratio_of(pair.moment_a.solved, pair.moment_b.solved)
    if ratio is None:
        return None
    return f"the scheduler's result in b is that of a times {ratio:.4g}.", {"ratio": ratio}


# Blending, and the picture


def blend(pair: Pair) -> Told:
    """Putting the known latents back: left out, with the mask turned round, or with another edge."""
    kept = [m.latents != m.solved for m in (pair.moment_a, pair.moment_b)]
    shares = [float(k.double().mean()) for k in kept]
    evidence = {"kept": tuple(shares)}
    if shares[0] and not shares[1]:
        return "b does not put the known latents back after the step, a does.", evidence
    if shares[1] and not shares[0]:
        return "b puts known latents back after the step, a does not.", evidence
    if torch.equal(*kept):
        told = "other known latents are put back, in the same cells: another picture or another noise."
        return told + calls_differ(pair), evidence
    p, q = ((~k).any(1).double() for k in kept)
    overlap = float((p * q).sum() / torch.minimum(p.sum(), q.sum()).clamp(min=1))
    if overlap < CLOSE or torch.equal(p, 1 - q):
        return TURNED_ROUND, evidence
    return another_mask(pair, p, q)


def decoding(pair: Pair) -> Told:
    """Equal latents, another picture."""
    a, b = pair.facts("networks")
    for name in a.keys() & b.keys():
        x, y = a[name]["scaling_factor"], b[name]["scaling_factor"]
        if x != y:
            return f"missing or other scaling factor of {name}: {x} in a, {y} in b.", {"scaling_factor": (x, y)}
    given = [getattr(run, "decoded_from", None) for run in (pair.a, pair.b)]
    ratio = ratio_of(*given) if all(g is not None for g in given) else None
    if ratio is not None:
        return another_scale(pair, ratio, "decoded latents")
    return dtype(pair) or weights(pair) or (
        f"the latents are equal to the end, but they are decoded otherwise: a scaling factor left out, another "
        f"overlay or size.{calls_differ(pair)}",
        {},
    )  # fmt: skip
