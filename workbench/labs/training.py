"""Exercises of notebook 08: the weight of a noise level, a loss that leaps, the size of a LoRA's update."""

import math
import statistics

import numpy as np
import torch

from workbench.labs import Exercise, call, expect, expect_tensor


def is_spike(losses: list[float], ratio: float = 3.0, window: int = 20) -> bool:
    """Whether the newest loss leaps out: more than ``ratio`` times the median of those before it, or not finite.

    Args:
        losses: of all steps so far, the newest last.
        ratio: above 1.
        window: so many steps before the newest count.

    Returns:
        False also where there is nothing to compare with.
    """
    *before, newest = losses
    if not math.isfinite(newest):
        return True
    usual = [loss for loss in before[-window:] if math.isfinite(loss)]
    return bool(usual) and newest > ratio * statistics.median(usual)


def _test_is_spike(answer) -> None:
    def ask(losses, *settings) -> bool:
        got = call(answer, list(losses), *settings)
        expect(
            isinstance(got, (bool, np.bool_, torch.BoolTensor)),
            f"You return a {type(got).__name__}, expected True or False.",
        )
        return bool(got)

    calm = [0.5 + 0.02 * (k % 5) for k in range(30)]
    expect(ask([*calm, 2.0], 3.0, 20), "You miss a loss of 2.0 after thirty of about 0.54.")
    expect(not ask([*calm, 0.7], 3.0, 20), "You call 0.7 a spike after losses of about 0.54: the ratio is 3.")
    expect(
        ask([0.1] * 18 + [30.0, 0.1, 0.9], 3.0, 20),
        "You miss 0.9 after losses of 0.1: an earlier spike of 30 must not hide the next. Take the median, no mean.",
    )
    expect(
        ask([5.0] * 40 + [0.4] * 20 + [2.0], 3.0, 20),
        "You miss 2.0 after twenty losses of 0.4: only the last window steps count, not the high ones at the start.",
    )
    expect(
        not ask([1.0, 2.9], 3.0, 20) and ask([1.0, 3.1], 3.0, 20),
        "After a single loss of 1.0, 2.9 is no spike and 3.1 is one: the newest is not among those you compare with.",
    )
    expect(not ask([5.0], 3.0, 20), "The very first loss has nothing before it: it is no spike.")
    expect(
        ask([*calm, math.nan], 3.0, 20) and ask([*calm, math.inf], 3.0, 20),
        "A loss that is NaN or infinite is the worst spike of all, and every comparison with NaN is False: ask for it.",
    )
    expect(
        ask([*calm, 0.9], 1.5, 20) and not ask([*calm, 2.0], 5.0, 20),
        "Your limit does not follow the ratio you are given.",
    )


def snr_weighted_loss(
    errors: torch.Tensor, t: torch.Tensor, alphas_cumprod: torch.Tensor, gamma: float = 5.0
) -> torch.Tensor:
    """The loss of noise prediction with noise levels weighed by their signal-to-noise ratio.

    loss = mean over samples of w(t) error, w = min(SNR, gamma) / SNR, SNR = abar_t / (1 - abar_t)

    Args:
        errors: (B,) mean squared error of each sample's noise.
        t: (B,) int64, their timesteps.
        alphas_cumprod: (1000,), abar of all timesteps.
        gamma: above it a level counts less.

    Returns:
        A tensor of one number.

    Source: Hang et al., Efficient diffusion training via min-SNR weighting, ICCV 2023.
    """
    signal = alphas_cumprod[t]  # (B,)
    snr = signal / (1 - signal)
    return (snr.clamp(max=gamma) / snr * errors).mean()


def _test_snr_weighted_loss(answer) -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    table = (1 - betas).cumprod(0)
    errors, t = torch.tensor([0.31, 0.052, 0.8, 0.12, 0.2]), torch.tensor([40, 310, 90, 760, 999])
    got = call(answer, errors.clone(), t.clone(), table.clone(), 5.0)
    expect_tensor(got, "a tensor of one number")
    expect(got.numel() == 1, f"You return shape {tuple(got.shape)}, expected the mean over the samples.")
    signal = table[t]
    snr = signal / (1 - signal)

    def like(other) -> bool:
        return math.isclose(float(got), float(other), rel_tol=1e-4)

    weight = snr.clamp(max=5.0) / snr
    expect(not like(errors.mean()), "You weigh all noise levels alike: low ones, with an SNR above gamma, count less.")
    expect(
        not like((snr.clamp(max=5.0) * errors).mean()),
        "Your weight is min(SNR, gamma): that belongs to a network that predicts the picture. For noise divide by SNR.",
    )
    expect(
        not like((snr.clamp(min=5.0) / snr * errors).mean()),
        "You take the larger of SNR and gamma, expected the smaller: clamp(max=gamma).",
    )
    root = (signal / (1 - signal)).sqrt()
    expect(
        not like((root.clamp(max=5.0) / root * errors).mean()),
        "Your SNR is a quotient of amplitudes, expected one of variances: abar / (1 - abar), no roots.",
    )
    expect(
        not like((weight * errors).sum() / weight.sum()),
        "You divide by the sum of the weights: then low levels count in full whenever a batch holds only such.",
    )
    expect(not like((weight * errors).sum()), "You sum over the samples, expected the mean.")
    inverse = 1 / snr
    expect(
        not like((inverse.clamp(max=5.0) / inverse * errors).mean()),
        "Your SNR is turned round: abar is the share of the picture, 1 - abar that of the noise.",
    )
    expect(like((weight * errors).mean()), f"You get {float(got):.4g}, expected {float((weight * errors).mean()):.4g}.")
    expect(
        math.isclose(
            float(call(answer, errors, t, table, 1.0)), float((snr.clamp(max=1.0) / snr * errors).mean()), rel_tol=1e-4
        ),
        "Your weight does not follow gamma.",
    )


def lora_norm(b: torch.Tensor, a: torch.Tensor, lora_alpha: float) -> float:
    """How much a LoRA adds to its layer: ||s B A||, the Frobenius norm, s = lora_alpha / rank.

    Args:
        b: B, (out, r), or (out, r, 1, 1) for a convolution.
        a: A, (r, in), or (r, in, kh, kw).
        lora_alpha: as it stands in the file.

    Returns:
        The norm, 0 or more.
    """
    product = b.flatten(1) @ a.flatten(1)  # (out, in kh kw)
    return float(lora_alpha / a.shape[0] * product.norm())


def _test_lora_norm(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape_b, shape_a, lora_alpha in (((12, 4), (4, 20), 2.0), ((10, 3, 1, 1), (3, 6, 3, 3), 6.0)):
        b, a = torch.randn(shape_b, generator=generator), torch.randn(shape_a, generator=generator)
        b[:, 0] *= 3  # the directions differ in size
        rank, right = shape_a[0], lora_norm(b, a, lora_alpha)
        got = call(answer, b.clone(), a.clone(), lora_alpha)
        expect(
            isinstance(got, (int, float)), f"You return a {type(got).__name__}, expected a plain number: float(...)."
        )
        product = b.flatten(1) @ a.flatten(1)

        def like(other, got=got) -> bool:
            return math.isclose(got, float(other), rel_tol=1e-3)

        expect(
            not like(lora_alpha * product.norm()),
            "You scale by lora_alpha alone, expected s = lora_alpha / rank; the rank is the first size of A.",
        )
        expect(not like(product.norm()), "You leave the scale out: s = lora_alpha / rank.")
        expect(
            not like(lora_alpha / rank * b.norm() * a.norm()),
            "You multiply the norms of B and A: that is an upper bound. Multiply the matrices, then take the norm.",
        )
        expect(
            not like(lora_alpha / rank * torch.linalg.matrix_norm(product, 2)),
            "You take the largest singular value, expected the Frobenius norm: the root of the sum of all squares.",
        )
        expect(
            not like(lora_alpha / rank * product.square().sum()),
            "You return the sum of squares, expected its root.",
        )
        expect(
            not like(lora_alpha / b.shape[0] * product.norm()),
            "You divide by the number of outputs, expected the rank: the size that B and A share.",
        )
        expect(like(right), f"For B {shape_b} and A {shape_a} you get {got:.4g}, expected {right:.4g}.")


EXERCISES = (
    Exercise("training.is_spike", is_spike, _test_is_spike),
    Exercise("training.snr_weighted_loss", snr_weighted_loss, _test_snr_weighted_loss),
    Exercise("training.lora_norm", lora_norm, _test_lora_norm),
)
