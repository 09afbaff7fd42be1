"""Exercises of notebook 02: measuring a fill where it counts."""

import math

import torch

from workbench import mask as masks
from workbench.labs import Exercise, call, expect, expect_tensor


def hole_psnr(result: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio inside the hole.

    psnr = 10 log10(1 / mse), mse = mean of (result - truth)^2 over the hole's pixels and all three channels.

    Args:
        result: (B, 3, H, W) in [0, 1].
        truth: the same shape.
        mask: (B, 1, H, W), 1 = hole; each item has its own.

    Returns:
        (B,) in dB.
    """
    squared = (result - truth) ** 2 * mask  # (B, 3, H, W)
    mse = squared.sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))  # (B,)
    return 10 * (1 / mse).log10()


def _test_hole_psnr(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 20, 30, generator=generator)
    noise = 0.2 * torch.randn(truth.shape, generator=generator)
    mask = torch.cat([masks.box((20, 30), (4, 3, 12, 9)), masks.box((20, 30), (10, 8, 28, 19))])
    result = truth + noise * (0.3 + mask) * torch.tensor([1.0, 0.4]).view(2, 1, 1, 1)
    values = call(answer, result, truth, mask)
    right = hole_psnr(result, truth, mask)
    expect_tensor(values, "a tensor (B,)")
    squared = (result - truth) ** 2
    joint = (squared * mask).sum() / (3 * mask.sum())
    expect(
        values.numel() != 1 or not torch.allclose(values.float(), 10 * (1 / joint).log10(), atol=0.5),
        "You average over the whole batch, expected one value for each picture: sum over dimensions 1, 2, 3.",
    )
    expect(values.shape == (2,), f"For two pictures you return shape {tuple(values.shape)}, expected (2,).")

    def looks_like(other) -> bool:
        return torch.allclose(values.float(), other, atol=0.01)

    area, whole = mask.sum((1, 2, 3)), mask[0].numel()
    in_hole = (squared * mask).sum((1, 2, 3))
    kept = (squared * (1 - mask)).sum((1, 2, 3)) / (3 * (whole - area))
    expect(
        not looks_like(10 * (1 / squared.mean((1, 2, 3))).log10()),
        "You measure the whole picture; only the hole's pixels count.",
    )
    expect(
        not looks_like(10 * (3 * whole / in_hole).log10()),
        "You divide by all pixels of the picture: a small hole then looks good for nothing. Divide by the hole's.",
    )
    expect(
        not looks_like(10 * (area / in_hole).log10()),
        "You divide by the number of hole pixels but sum three channels: divide by 3 times as many.",
    )
    expect(not looks_like(10 * (1 / kept).log10()), "You measure the kept area: 1 means hole.")
    expect(
        not looks_like(10 * (3 * area / in_hole).log()), "You take the natural logarithm, expected the decimal, log10."
    )
    expect(
        not looks_like(2 * right),
        "Your values are twice too large: 20 log10 belongs to the root of the mean squared error.",
    )
    expect(not looks_like(-right), "The sign is wrong: a better picture has a higher PSNR.")
    expect(looks_like(right), f"You get {values[0].item():.2f} dB where {right[0].item():.2f} dB is right.")
    same = call(answer, truth, truth, mask)
    expect(bool((same == math.inf).all()), "Two equal pictures should give infinity: do not add a small number.")


EXERCISES = (Exercise("metrics.hole_psnr", hole_psnr, _test_hole_psnr),)
