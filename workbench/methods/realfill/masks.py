"""What is hidden from the model while it learns."""

import numpy as np
import torch

from workbench import check
from workbench import mask as masks

MASK_DROPOUT = 0.1
"""Share of items that learn with everything hidden."""
TARGET_MASKS = ("random", "hole")
"""The two published treatments of the target's mask."""


def random_rectangles(rng: np.random.Generator, size: tuple[int, int]) -> torch.Tensor:
    """RealFill's random mask: 1 to 29 rectangles, hidden themselves or all but them, each in half of the cases.

    The union covers 24 % of the picture on average, 4 % to 43 % in nine masks of ten.

    Args:
        rng: the only thing it depends on.
        size: (H, W).

    Returns:
        (1, 1, H, W), 1 = hidden.

    Source: RealFill, section 3.3; the numbers are those of the public reimplementation, see `mask.rectangles`.

    Example:
        >>> random_rectangles(np.random.default_rng(0), (64, 96)).shape
        torch.Size([1, 1, 64, 96])
    """
    return masks.rectangles(size, int(rng.integers(2**31)))


def training_hole(
    rng: np.random.Generator,
    own: torch.Tensor,
    target: bool,
    target_mask: str = "random",
    mask_dropout: float = MASK_DROPOUT,
    policy=random_rectangles,
) -> torch.Tensor:
    """The hole that an item learns with. What is not known of a picture is always part of it.

    Args:
        rng: the only thing it depends on.
        own: (1, 1, H, W): 1 where the picture is not known, so nowhere in a reference.
        target: whether it is the target.
        target_mask: "random": the target's masks are drawn like all others, as in the paper and in diffusers' script;
            so the model learns to paint what is known of it. "hole": the target always has its own hole, as in the
            reimplementation since May 2024; then the model only learns to render what it is shown, and the mask is
            dropped for references only.
        mask_dropout: share of items with everything hidden.
        policy: ``policy(rng, size) -> (1, 1, H, W)``.

    Returns:
        (1, 1, H, W).
    """
    check.choice(target_mask, "target_mask", TARGET_MASKS)
    if target and target_mask == "hole":
        return own.clone()
    if rng.random() < mask_dropout:
        return torch.ones_like(own)
    return torch.maximum(own, policy(rng, tuple(own.shape[-2:])))
