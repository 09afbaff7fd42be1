"""What causes of several families say: a number that is missing, a mask that is another."""

import torch

from workbench.stepping.causes.pair import Pair, Told

CLOSE = 1e-3
"""Relative difference up to which two measured numbers are taken for the same."""


TURNED_ROUND = "mask polarity: b's mask is 1 where a's is 0, so b repaints what a keeps."


def calls_differ(pair: Pair) -> str:
    """What is added to a sentence where the arguments of the calls differ; empty where they do not."""
    names = pair.differing_arguments()
    return f" The calls differ in {', '.join(names)}." if names else ""


def both(values: dict) -> str:
    """{name: (value in a, value in b)} in words."""
    return ", ".join(f"{name} {x} in a and {y} in b" for name, (x, y) in sorted(values.items()))


def ratio_of(x: torch.Tensor, y: torch.Tensor) -> float | None:
    """r with y = r x, or None."""
    if x.shape != y.shape or not float(x.abs().max()):
        return None
    x, y = x.double(), y.double()
    r = float((x * y).sum() / x.square().sum())
    return r if float((y - r * x).abs().max()) < CLOSE * float(y.abs().max()) and abs(r - 1) > CLOSE else None


def another_scale(pair: Pair, ratio: float, what: str) -> Told:
    """b's tensor is a's times a number; an autoencoder's scaling factor is recognised."""
    networks = [network for group in pair.facts("networks") for network in group.values()]
    factors = {network["scaling_factor"] for network in networks if network["scaling_factor"]}
    for factor in factors:
        unscaled, twice = ("applied twice", "missing") if what == "decoded latents" else ("missing", "applied twice")
        for name, value in ((unscaled, 1 / factor), (twice, factor)):
            if abs(ratio / value - 1) < CLOSE:
                return (
                    f"scaling factor {name} in b: its {what} are those of a times {ratio:.4g}, and the autoencoder's "
                    f"scaling factor is {factor:.4g}.",
                    {"ratio": ratio},
                )
    return f"the {what} of b are those of a times {ratio:.4g}: a scale is missing or applied twice.", {"ratio": ratio}


def another_mask(pair: Pair, p: torch.Tensor, q: torch.Tensor) -> Told:
    """Two masks (B, h, w), 1 = repaint: turned round, or of other edges."""
    evidence = {"repainted": (float(p.mean()), float(q.mean()))}
    if torch.equal(p, 1 - q):
        return TURNED_ROUND, evidence
    if {"mask_image", "mask"} & set(pair.differing_arguments()):
        return f"another mask was given{_grown(p, q)}.", evidence
    return (
        f"the mask is shrunk to the latent grid otherwise{_grown(p, q)}: {p.mean():.1%} of the cells are repainted in "
        f"a, {q.mean():.1%} in b, though the same mask was given.",
        evidence,
    )


def _grown(p: torch.Tensor, q: torch.Tensor) -> str:
    if bool((q >= p).all()):
        return " (b's covers a's and more)"
    return " (a's covers b's and more)" if bool((p >= q).all()) else ""
