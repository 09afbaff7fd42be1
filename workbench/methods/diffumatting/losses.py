"""DiffuMatting's losses, each a function beside its formula; and what a GreenPost refiner learns by.

total = denoising + w_g green + w_b background + w_d detail + w_m matting. None of them holds weights or draws anything
at random.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from workbench import check
from workbench.image import LUMINANCE

SMOOTH = 1.0
"""Added to both sides of Dice's fraction, so that two empty mattes agree."""


# Painting on green


def green_control(
    maps: Sequence[torch.Tensor], alpha: torch.Tensor, present: torch.Tensor | None = None
) -> torch.Tensor:
    """Green background control: the word "green" is looked at where the background is, and nowhere else.

    L = 1/u sum_i mean_p (A_i(p) - (1 - M_i(p)))^2, over the u cross-attention layers i and the places p of each, M_i
    the matte averaged over what a place covers.

    Args:
        maps: one (B, 1, h, w) in [0, 1] a layer: the share of a place's attention that the word gets, heads averaged.
        alpha: M, the true matte, (B, 1, H, W).
        present: (B,), 1 for items whose prompt has the word; None: all. The others count for nothing.

    Returns:
        A number; 0 where no item has the word.

    Raises:
        ValueError: no maps, or maps for another number of items.

    Source: DiffuMatting (Hu et al., ECCV 2024), green background control. The published summary says "supervised
        towards 1 - M, pixel-wise mean": that the distance is the square is our reading.

    Example:
        >>> green_control([torch.ones(1, 1, 8, 8)], torch.zeros(1, 1, 64, 64))
        tensor(0.)
    """
    if not maps:
        raise ValueError("maps is empty, expected one (B, 1, h, w) for each cross-attention layer.")
    check.alpha(alpha)
    for each in maps:
        if each.ndim != 4 or each.shape[:2] != (len(alpha), 1):
            raise ValueError(f"a map has shape {tuple(each.shape)}, expected ({len(alpha)}, 1, h, w): alpha's items.")
    weight = torch.ones_like(alpha[:, 0, 0, 0]) if present is None else present.to(alpha)  # (B,)
    layers = []
    for each in maps:
        wanted = 1 - functional.adaptive_avg_pool2d(alpha, each.shape[-2:])  # (B, 1, h, w)
        layers.append(((each - wanted).square().mean((1, 2, 3)) * weight).sum() / weight.sum().clamp(min=1))
    return torch.stack(layers).mean()


def background(
    estimate: torch.Tensor, latents: torch.Tensor, alpha: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """The plain way to a green background, what green control is compared with: the latents themselves are asked.

    L = mean_b w_b sum_p (1 - M(p)) mean_c (z^(p) - z(p))^2 / sum_p (1 - M(p)), M the matte averaged over what a place
    covers, z^ the one-step estimate of the latents z.

    Args:
        estimate, latents: z^ and z, (B, C, h, w), scaled.
        alpha: M, (B, 1, H, W).
        weight: w, (B,); None is 1.

    Returns:
        A number; an item that is all object counts 0.

    Source: ours, for a comparison that the paper does not make.
    """
    check.same_size(estimate, latents, "estimate", "latents")
    wanted = 1 - functional.adaptive_avg_pool2d(check.alpha(alpha), latents.shape[-2:])  # (B, 1, h, w)
    off = (estimate - latents).square().mean(1, keepdim=True)  # (B, 1, h, w)
    each = (off * wanted).sum((1, 2, 3)) / wanted.sum((1, 2, 3)).clamp(min=1)  # (B,)
    return (each if weight is None else each * weight).mean()


def sobel(image: torch.Tensor) -> torch.Tensor:
    """Horizontal and vertical Sobel responses of a picture's luminance, or of a matte.

    G_x = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]] / 8, G_y its transpose: a slope of 1 a pixel gives 1.

    Args:
        image: (B, 3, H, W) or (B, 1, H, W), any range.

    Returns:
        (B, 2, H, W); edges of the picture are repeated.
    """
    if image.shape[1] == 3:
        image = (image * image.new_tensor(LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)  # (B, 1, H, W)
    kernel = image.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    padded = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])  # (B, 2, H, W)


def boundary_detail(
    estimate: torch.Tensor, image: torch.Tensor, alpha: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Detail at the transition boundary: the painted object has the edges of the true one.

    L = mean_b w_b mean |M . S(x^) - M . S(x)|, S the two Sobel responses, x^ the decoded one-step estimate.

    Args:
        estimate: x^, (B, 3, H, W), [0, 1] if it is a good one.
        image: x, the training picture, (B, 3, H, W) in [0, 1].
        alpha: M, (B, 1, H, W).
        weight: w, (B,); None is 1.

    Source: DiffuMatting, detail enhancement of the transition boundary; the absolute difference is our reading.
    """
    check.same_size(estimate, alpha, "estimate", "alpha")
    check.same_size(image, alpha, "image", "alpha")
    each = ((sobel(estimate) - sobel(image)) * alpha).abs().mean((1, 2, 3))  # (B,)
    return (each if weight is None else each * weight).mean()


# The matting head


def dice(alpha: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """1 - (2 sum a a* + s) / (sum a^2 + sum a*^2 + s), for each item; s = `SMOOTH`.

    Args:
        alpha, truth: (B, 1, H, W) in [0, 1].

    Returns:
        (B,) in [0, 1]: 0 for equal mattes, half transparent or not.

    Source: Milletari et al., 3DV 2016 (V-Net), whose squares make it right for soft mattes.
    """
    check.same_size(alpha, truth, "alpha", "truth")
    both = (alpha * truth).sum((1, 2, 3))  # (B,)
    return 1 - (2 * both + SMOOTH) / (alpha.square().sum((1, 2, 3)) + truth.square().sum((1, 2, 3)) + SMOOTH)


def matting(alpha: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """What the matting head learns by: mean_b w_b (Dice + mean |a - a*|).

    Args:
        alpha: estimated, (B, 1, H, W) in [0, 1].
        truth: (B, 1, H, W).
        weight: w, (B,); None is 1.

    Source: DiffuMatting, Dice + L1.
    """
    each = dice(alpha, truth) + (alpha - truth).abs().mean((1, 2, 3))  # (B,)
    return (each if weight is None else each * weight).mean()


def total(terms: dict[str, torch.Tensor], weights: dict[str, float | torch.Tensor]) -> torch.Tensor:
    """denoising + w_g green + w_b background + w_d detail + w_m matting.

    Args:
        terms: by name; "denoising" is always there.
        weights: of the others; one that is missing here counts for nothing.

    Raises:
        ValueError: a weight for a term that is not there.
    """
    missing = sorted(set(weights) - set(terms))
    if missing:
        raise ValueError(f"weights names {', '.join(missing)}, expected some of: {', '.join(terms)}.")
    return terms["denoising"] + sum(weight * terms[name] for name, weight in weights.items())


# The refiner of GreenPost


def refinement(
    alpha: torch.Tensor, foreground: torch.Tensor, truth: torch.Tensor, true_foreground: torch.Tensor
) -> torch.Tensor:
    """Matte, its edges, and colours where there is any object: |a - a*| + |S(a) - S(a*)| + |F - F*| [a* > 0].

    Args:
        alpha, truth: (B, 1, H, W).
        foreground, true_foreground: (B, 3, H, W).

    Source: Background Matting V2 (Lin et al., CVPR 2021), equations 2 and 3.
    """
    there = (truth > 0).to(truth).expand_as(true_foreground)
    colours = ((foreground - true_foreground).abs() * there).sum() / there.sum().clamp(min=1)
    return (alpha - truth).abs().mean() + (sobel(alpha) - sobel(truth)).abs().mean() + colours


def error_prediction(error: torch.Tensor, alpha: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """mean (e - |a - a*|)^2: the refiner must know where it is wrong. What it is compared with gets no gradient.

    Args:
        error: e, (B, 1, h, w), the coarse stage's guess.
        alpha, truth: (B, 1, h, w).

    Source: Background Matting V2, equation 4.
    """
    return (error - (alpha.detach() - truth).abs()).square().mean()
