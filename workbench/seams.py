"""Hides the seam between what was painted and what was kept: `seamless`, by a smooth shift of colours."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from workbench import check

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
        ``filled`` has the known pixels already.

    Raises:
        ValueError: shapes.

    Source: Perez, Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003: seamless cloning.

    Example:
        >>> seamless(photo, result.raw, mask)
    """
    check.same_size(image, filled, "image", "filled")
    hole = check.mask(mask, like=image) > 0.5
    shift = torch.zeros_like(image)
    for i, missed in enumerate(image - filled):
        own = mask[min(i, len(mask) - 1)][None]
        if own.min() < 0.5 and (missed * (own[0] < 0.5)).any():
            shift[i] = membrane(missed[None], own)[0]
    return torch.where(hole, torch.where(shift == 0, filled, (filled + shift).clamp(0, 1)), image)


def membrane(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The smoothest surface over a hole that meets the values at its edge: laplace(v) = 0 in the hole.

    Its values lie between those at the edge (up to about 0.01 of their range, as far as it is solved). At the picture's
    own border it is level. Solved at half the size first, then refined: time and memory grow with the hole's box only.

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
    for i, hole in enumerate((mask > 0.5).expand(len(values), -1, -1, -1)):
        if hole.any():
            y0, y1, x0, x1 = box_round(hole)
            part, inside = values[i : i + 1, :, y0:y1, x0:x1], hole[None, :, y0:y1, x0:x1]
            out[i : i + 1, :, y0:y1, x0:x1] = torch.where(inside, _surface(part, inside), part)
    return out


def box_round(hole: torch.Tensor) -> tuple[int, int, int, int]:
    """The box of a hole (1, H, W) and one pixel around it, inside the picture: top, bottom, left, right."""
    ys, xs = hole[0].any(1).nonzero()[:, 0], hole[0].any(0).nonzero()[:, 0]  # rows, columns with a hole
    height, width = hole.shape[-2:]
    return max(0, int(ys[0]) - 1), min(height, int(ys[-1]) + 2), max(0, int(xs[0]) - 1), min(width, int(xs[-1]) + 2)


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
