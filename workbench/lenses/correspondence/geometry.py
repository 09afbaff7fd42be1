"""One motion behind many matches: a homography or a fundamental matrix, by RANSAC."""

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from skimage.measure import ransac
from skimage.transform import FundamentalMatrixTransform, ProjectiveTransform

from workbench import check

KINDS = {"homography": (ProjectiveTransform, 4), "fundamental": (FundamentalMatrixTransform, 8)}
"""Kind of geometry -> its model, and how many matches determine it."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """What RANSAC found.

    Args:
        kind: "homography" (a plane, or a camera that only turns: b ~ M a) or "fundamental" (any still scene: b^T M a
            = 0 for (x, y, 1)).
        matrix: (3, 3) float64; None where too few matches agreed.
        inliers: (N,) bool: matches that it explains.
        threshold: how far off an inlier may be, in pixels.
    """

    kind: str
    matrix: torch.Tensor | None = field(repr=False)
    inliers: torch.Tensor = field(repr=False)
    threshold: float

    def carry(self, points) -> torch.Tensor:
        """Where a homography takes points (N, 2) of the first picture. RuntimeError for a fundamental matrix."""
        if self.kind != "homography" or self.matrix is None:
            raise RuntimeError(f"{self!r} takes no point to a point, expected a homography that was found.")
        points = torch.as_tensor(np.asarray(points, np.float64))
        carried = torch.cat([points, torch.ones_like(points[:, :1])], 1) @ self.matrix.T  # (N, 3)
        return carried[:, :2] / carried[:, 2:]

    def __repr__(self) -> str:
        if self.matrix is None:
            return f"no {self.kind}"
        return f"{self.kind} with {int(self.inliers.sum())} of {len(self.inliers)} inliers within {self.threshold:g} px"


def estimate_geometry(
    points_a, points_b, kind: str = "homography", *, threshold: float = 3.0, trials: int = 1000, seed: int = 0
) -> Geometry:
    """The geometry that most matches agree with: fitted to random few, judged by all, again and again (RANSAC).

    The error of a match is, for a homography, the distance in the second picture; for a fundamental matrix, Sampson's
    first-order distance to the epipolar constraint. The winner is fitted again to all its inliers.

    Args:
        points_a, points_b: (N, 2) as (x, y) in pixels.
        kind: one of `KINDS`.
        threshold: largest error of an inlier, in pixels.
        trials: at most so many; fewer once a better one is unlikely (0.1 %).
        seed: of the draws.

    Returns:
        `Geometry`; without a matrix where there are too few matches, or no draw gave one that they agree with.

    Source: Fischler and Bolles, 1981; Hartley and Zisserman, 2004, 4.7 and 11.6; computed by scikit-image.

    Example:
        >>> found = estimate_geometry(matches.points_a, matches.points_b)
        >>> found.inliers.sum()
    """
    model, fewest = KINDS[check.choice(kind, "kind", KINDS)]
    a, b = check.points(_array(points_a), "points_a", 0), check.points(_array(points_b), "points_b", 0)
    if a.shape != b.shape:
        raise ValueError(f"points_a has shape {a.shape} and points_b {b.shape}, expected pairs.")
    threshold = check.number(threshold, "threshold", 0)
    check.integer(trials, "trials", 1)
    nothing = Geometry(kind, None, torch.zeros(len(a), dtype=torch.bool), threshold)
    if len(a) <= fewest:  # so few are explained by anything
        return nothing
    rng = np.random.default_rng(check.seed(seed))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # draws that lie on one line, or no inliers at all
        found, inliers = ransac((a, b), model, fewest, threshold, max_trials=trials, stop_probability=0.999, rng=rng)
    if inliers is None or inliers.sum() <= fewest or not np.isfinite(found.params).all():
        return nothing
    return Geometry(kind, torch.from_numpy(np.array(found.params)), torch.from_numpy(inliers.copy()), threshold)


def _array(points) -> np.ndarray:
    return points.detach().cpu().numpy() if isinstance(points, torch.Tensor) else points
