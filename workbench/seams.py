"""Hides the seam between what was painted and what was kept: `seamless`, by a smooth shift of colours."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from workbench import check
from workbench import mask as masks

COARSEST = 8
"""Pictures of this side and less are solved from nothing; larger ones start from half their size."""
ITERATIONS = 40
"""At most so many steps of conjugate gradients at each size."""


def seamless(image: torch.Tensor, filled: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Puts kept pixels back and shifts the fill's colours so that it meets them.

    out = filled + v in the hole, laplace(v) = 0 there, v = image - filled at its edge; out = image elsewhere

    What a network paints misses the known pixels' colours a little, an autoencoder's round trip too: pasted hard, that
    is a visible edge. The error is known along the edge, and the shift carries it on into the hole.

    Args:
        image: (B, 3, H, W), what is kept.
        filled: (B, 3, H, W), all of it painted, along the hole's edge at least.
        mask: (B, 1, H, W) or (1, 1, H, W), hard, 1 = hole. Where it covers a whole picture, nothing is shifted.

    Returns:
        (B, 3, H, W) in [0, 1]: bit-equal to ``image`` outside the hole; bit-equal to ``filled`` in it where
        ``filled`` shows the known pixels as they are.

    Raises:
        ValueError: shapes.

    Source: Perez, Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003: seamless cloning.

    Example:
        >>> seamless(photo, result.raw, mask)
    """
    if image.shape != filled.shape:
        raise ValueError(f"image is {tuple(image.shape)} and filled {tuple(filled.shape)}, expected the same shape.")
    keep = check.mask(mask, like=image) < 0.5
    out = torch.where(keep, image, filled)
    for i, known in enumerate(keep.expand(len(image), -1, -1, -1)):
        missed = torch.where(known, image[i] - filled[i], 0)  # (3, H, W)
        if known.any() and missed.any():
            shift = membrane(missed[None], (~known)[None].to(image))[0]
            out[i] = torch.where(known, image[i], (filled[i] + shift).clamp(0, 1))
    return out


def membrane(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The smoothest surface over a hole that meets the values at its edge: laplace(v) = 0 in the hole.

    Its values lie between those at the edge, but for what the solver leaves: up to 0.02 of their range. At the border
    of the picture it is level. Solved at half the size first, then refined: time and memory grow with the hole's box.

    Args:
        values: (B, C, H, W), any range; what lies in the hole does not matter.
        mask: (B, 1, H, W) or (1, 1, H, W), 1 = hole. Each picture needs at least one known pixel.

    Returns:
        (B, C, H, W): ``values`` outside the hole, bit-equal.

    Raises:
        ValueError: shapes, or a hole that covers a picture.

    Source: the membrane interpolant of Perez, Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003, section 2.

    Example:
        >>> shift = membrane(photo - filled, mask)
    """
    check.leaves_something(check.mask(mask, like=values))
    out = values.clone()
    for i, hole in enumerate(mask.expand(len(values), -1, -1, -1).split(1)):
        if hole.any():
            x0, y0, x1, y1 = masks.bounding_box(hole, margin=1)
            part, inside = values[i : i + 1, :, y0:y1, x0:x1], hole[..., y0:y1, x0:x1] > 0.5
            out[i : i + 1, :, y0:y1, x0:x1] = torch.where(inside, _surface(part, inside), part)
    return out


def conjugate_gradients(matrix: Callable, b: torch.Tensor, iterations: int, tolerance: float = 1e-6) -> torch.Tensor:
    """Solves matrix(v) = b for a symmetric, positive definite matrix, starting from v = 0.

    Args:
        matrix: v -> its product.
        b: any shape.
        iterations: at most so many.
        tolerance: it ends when the residual's square has fallen to this share.
    """
    v, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    square = first = residual.square().sum()
    for _ in range(iterations):
        if square <= tolerance * first:
            break
        product = matrix(direction)
        length = square / (direction * product).sum()
        v += length * direction
        residual -= length * product
        before, square = square, residual.square().sum()
        direction = residual + (square / before) * direction
    return v


def _surface(values: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """`membrane` for one picture (1, C, H, W) with some hole and some known pixels (1, 1, H, W)."""
    known = (~hole).to(values)
    if max(values.shape[-2:]) <= COARSEST:
        start = ((values * known).sum((2, 3)) / known.sum())[..., None, None]  # (1, C, 1, 1)
    else:
        share = F.avg_pool2d(known, 2, ceil_mode=True)  # (1, 1, H / 2, W / 2)
        smaller = F.avg_pool2d(values * known, 2, ceil_mode=True) / share.clamp(min=1e-6)
        if (share == 0).any():
            smaller = torch.where(share == 0, _surface(smaller, share == 0), smaller)
        start = F.interpolate(smaller, values.shape[-2:], mode="bilinear")
    start, inside = torch.where(hole, start, values), hole.to(values)
    return start + conjugate_gradients(lambda v: inside * _laplacian(v), -inside * _laplacian(start), ITERATIONS)


def _laplacian(v: torch.Tensor) -> torch.Tensor:
    """Sum of the differences to the neighbours that a pixel has: (1, C, H, W)."""
    across, down = v[..., 1:] - v[..., :-1], v[..., 1:, :] - v[..., :-1, :]
    return F.pad(across, (1, 0)) - F.pad(across, (0, 1)) + F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))
