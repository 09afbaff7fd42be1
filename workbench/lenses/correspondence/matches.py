"""What every matcher gives: pairs of points with a confidence."""

from dataclasses import dataclass, field, replace

import torch

from workbench import check
from workbench.lenses.correspondence.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Matches:
    """Points of one picture and where they are in another.

    Args:
        points_a: (N, 2) float32, (x, y) in pixels of the first picture; (0.5, 0.5) is the middle of its top left pixel.
        points_b: (N, 2), the same in the second.
        confidence: (N,) in [0, 1]. "sift": 1 - distance to the nearest / distance to the second nearest descriptor.
            "dift", "features": the cosine of both features, 0 where negative. Others: as the matcher says.
        method: what found them.
        size_a, size_b: (H, W) of the pictures.
        geometry: what RANSAC found, if it was asked for: matrix, and which of the matches agree with it.
    """

    points_a: torch.Tensor = field(repr=False)
    points_b: torch.Tensor = field(repr=False)
    confidence: torch.Tensor = field(repr=False)
    method: str
    size_a: tuple[int, int]
    size_b: tuple[int, int]
    geometry: Geometry | None = None

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def inliers(self) -> torch.Tensor:
        """(N,) bool: which matches RANSAC's model explains. RuntimeError where RANSAC was not asked for."""
        if self.geometry is None:
            raise RuntimeError('no geometry was estimated: match with ransac="homography" or ransac="fundamental".')
        return self.geometry.inliers

    def select(self, which: torch.Tensor) -> "Matches":
        """Some of the matches: ``which`` is (N,) bool, or indices."""
        which = torch.as_tensor(which)
        geometry = self.geometry
        if geometry is not None:
            geometry = replace(geometry, inliers=geometry.inliers[which])
        points_a, points_b, confidence = (x[which] for x in (self.points_a, self.points_b, self.confidence))
        return replace(self, points_a=points_a, points_b=points_b, confidence=confidence, geometry=geometry)

    def surest(self, count: int) -> "Matches":
        """At most so many matches, the most confident first."""
        check.integer(count, "count", 0)
        return self.select(self.confidence.argsort(descending=True, stable=True)[:count])

    def above(self, confidence: float) -> "Matches":
        """The matches with at least this confidence."""
        return self.select(self.confidence >= check.number(confidence, "confidence"))

    def __repr__(self) -> str:
        told = f"Matches({self.method}: {len(self)}"
        if len(self):
            low, high = self.confidence.aminmax()
            told += f", confidence {low:.2f} to {high:.2f}"
        return told + (f"; {self.geometry!r})" if self.geometry is not None else ")")
