"""How right matches are: end-point error and the share of correct points."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from workbench import check


def end_point_error(points, truth) -> torch.Tensor:
    """Distance of each point from where it should be: |p - p*|, in pixels.

    Args:
        points: (N, 2) as (x, y); NaN for a point that got no answer.
        truth: (N, 2), finite.

    Returns:
        (N,) float64; infinite where there was no answer.
    """
    points, truth = _pairs(points, truth)
    return (points - truth).norm(dim=1).nan_to_num(nan=torch.inf)


@dataclass(frozen=True, eq=False)
class Pck:
    """Shares of correct points, both ways that the literature averages.

    Args:
        per_image: mean over the pictures of each one's share; a picture without points does not count.
        per_point: share of all points; pictures with many points weigh more.
        correct: for each picture (N,) bool.
        thresholds: for each picture, the largest error that is correct, in pixels.
    """

    per_image: float
    per_point: float
    correct: tuple[torch.Tensor, ...] = field(repr=False)
    thresholds: tuple[float, ...] = field(repr=False)

    def __repr__(self) -> str:
        count = sum(map(len, self.correct))
        return f"Pck({self.per_image:.1%} per image, {self.per_point:.1%} per point; {count} points)"


def pck(points, truth, size, alpha: float = 0.1) -> Pck:
    """Percentage of correct keypoints: the share of points with |p - p*| <= alpha max(H, W).

    Papers differ in what H and W are, which makes numbers incomparable: the picture's (PCK by image), or those of the
    box about the object (PCK by box, stricter; the rule of SPair-71k). Here they are what is given as ``size``; with
    size (1, 1), alpha is in pixels. Papers also differ in the mean, so both are told.

    Args:
        points: (N, 2) as (x, y), or a list of such, one for each picture; NaN is never correct.
        truth: as ``points``, finite.
        size: (H, W) that distances are measured by, or a list of such.
        alpha: share of the longer side.

    Returns:
        `Pck`.

    Source: Yang and Ramanan, TPAMI 2013; Min et al. 2019 (SPair-71k).

    Example:
        >>> pck(matches.points_b, truth, size=(128, 128), alpha=0.05).per_point
    """
    alpha = check.number(alpha, "alpha", 0)
    one = isinstance(points, (torch.Tensor, np.ndarray)) or _is_rows(points)
    sets = [(points, truth)] if one else list(zip(points, truth, strict=True))
    sizes = [size] * len(sets) if _is_size(size) else list(size)
    if len(sizes) != len(sets) or not all(map(_is_size, sizes)):
        raise ValueError(f"size is {size!r}, expected (H, W), or one for each of {len(sets)} pictures.")
    limits = tuple(alpha * max(check.number(n, "size", 0) for n in s) for s in sizes)
    correct = tuple(end_point_error(p, t) <= limit for (p, t), limit in zip(sets, limits, strict=True))
    if not sum(map(len, correct)):
        raise ValueError("there is no point to judge, expected at least one.")
    shares = [c.double().mean().item() for c in correct if len(c)]
    return Pck(float(np.mean(shares)), torch.cat(correct).double().mean().item(), correct, limits)


def _is_rows(points) -> bool:
    """A plain list of (x, y)."""
    return bool(len(points)) and all(np.ndim(p) == 1 and len(p) == 2 for p in points)


def _is_size(size) -> bool:
    return isinstance(size, Sequence) and len(size) == 2 and all(np.ndim(n) == 0 for n in size)


def _pairs(points, truth) -> tuple[torch.Tensor, torch.Tensor]:
    points, truth = (
        torch.as_tensor(np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, np.float64))
        for x in (points, truth)
    )
    if points.ndim != 2 or points.shape[1] != 2 or points.shape != truth.shape:
        raise ValueError(
            f"points has shape {tuple(points.shape)} and truth {tuple(truth.shape)}, expected (N, 2) both."
        )
    if not truth.isfinite().all():
        raise ValueError("truth holds NaN or infinite values: leave out points that are not visible in both pictures.")
    return points, truth
