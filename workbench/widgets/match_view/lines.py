"""Matches as lines: what is known of each, which are drawn in which colour, and which one is under the mouse."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from workbench import check

COLOUR_MAPS = {"confidence": "viridis", "error": "RdYlGn_r"}


@dataclass(frozen=True, eq=False)
class Lines:
    """All matches, as arrays on the CPU.

    Args:
        a, b: (N, 2) as (x, y) in pixels of each picture.
        confidence: (N,).
        error: (N,) distance from the truth in pixels, NaN where it is not known; None without a truth.
        flags: what is known to be so or not of each, (N,) bool by name.
    """

    a: np.ndarray
    b: np.ndarray
    confidence: np.ndarray
    error: np.ndarray | None = None
    flags: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.confidence)

    def chosen(self, threshold: float, flags: set[str], most: int) -> np.ndarray:
        """Numbers of the matches that are at least so sure and have all these flags, the surest first."""
        keep = self.confidence >= threshold
        for name in flags:
            keep = keep & self.flags[name]
        found = np.flatnonzero(keep)
        return found[np.argsort(-self.confidence[found], kind="stable")][:most]

    def told(self, drawn: int, threshold: float, flags: set[str], tolerance: float) -> str:
        """How many are drawn of how many, and how many of those chosen are right, in words."""
        if not len(self):
            return "no matches"
        chosen = self.chosen(threshold, flags, len(self))
        told = f"{drawn} drawn" if drawn == len(chosen) else f"{drawn} drawn, the surest"
        told += f" of {len(chosen)} chosen" if drawn < len(chosen) < len(self) else ""
        told += f" of {len(self)} matches"
        known = np.zeros(0) if self.error is None else self.error[chosen][np.isfinite(self.error[chosen])]
        return f"{told}, {np.mean(known <= tolerance):.0%} right to {tolerance:g} px" if len(known) else told

    def levels(self, by: str, limits: tuple[float, float]) -> torch.Tensor:
        """Confidence or error of each, (N,) from 0 to 1 between the limits; NaN where it is not known."""
        values = torch.from_numpy(np.asarray(self.confidence if by == "confidence" else self.error, np.float64))
        low, high = limits
        return ((values - low) / max(high - low, 1e-12)).clamp(0, 1).float()


def lines_of(matches, error: np.ndarray | None, tolerance: float, flags) -> Lines:
    """What there is to draw.

    Args:
        matches: with points_a, points_b, confidence; perhaps a ``geometry`` with ``inliers``. None: no lines.
        error: (N,), see `Lines`.
        tolerance: in pixels: flags "right" and "wrong" where there is a truth.
        flags: more of them by name, (N,) bool each.
    """
    if matches is None:
        return Lines(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    a, b = (check.points(_array(getattr(matches, n)), n, 0) for n in ("points_a", "points_b"))
    confidence = np.asarray(_array(matches.confidence), np.float64)
    if not len(a) == len(b) == len(confidence):
        raise ValueError(f"matches has {len(a)} points_a, {len(b)} points_b and {len(confidence)} confidences.")
    found = {}
    if getattr(matches, "geometry", None) is not None:
        found["inliers"] = matches.geometry.inliers
    if error is not None:
        found |= {"right": error <= tolerance, "wrong": error > tolerance}
    found |= dict(flags or {})
    for name, values in found.items():
        values = np.asarray(_array(values))
        if values.shape != (len(a),) or values.dtype != bool:
            raise ValueError(
                f"flags[{name!r}] has shape {values.shape} and {values.dtype}, expected ({len(a)},) bool: one a match."
            )
        found[name] = values
    return Lines(a, b, confidence, error, found)


def truth_of(truth) -> Callable | None:
    """A function (N, 2) points of a -> (N, 2) points of b, NaN where they are not visible there.

    Args:
        truth: such a function, which may also return (points, visible); or an object with ``points`` (H, W, 2) and
            ``visible`` (H, W): each point moves as the pixel that it lies in.
    """
    if truth is None:
        return None
    if callable(truth):

        def asked(points: np.ndarray) -> np.ndarray:
            given = truth(torch.from_numpy(np.asarray(points, np.float64)))
            there, visible = given if isinstance(given, tuple) else (given, None)
            there = np.asarray(_array(there), np.float64)
            return there if visible is None else np.where(_array(visible)[:, None], there, np.nan)

        return asked
    if not hasattr(truth, "points") or not hasattr(truth, "visible"):
        raise TypeError(
            f"truth is a {type(truth).__name__}, expected a function from points of a to points of b, or an object "
            "with points (H, W, 2) and visible (H, W), as scene.correspondences() gives."
        )
    table, visible = _array(truth.points), _array(truth.visible)

    def carried(points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, np.float64)
        height, width = visible.shape
        x = np.clip(np.floor(points[:, 0]).astype(int), 0, width - 1)
        y = np.clip(np.floor(points[:, 1]).astype(int), 0, height - 1)
        moved = table[y, x] + points - (np.stack([x, y], 1) + 0.5)
        return np.where(visible[y, x][:, None], moved, np.nan)

    return carried


def distance_to(point: tuple[float, float], starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Distance (N,) of a point from straight lines between starts and ends, (N, 2) each."""
    point, along = np.asarray(point), ends - starts
    share = ((point - starts) * along).sum(1) / np.maximum((along**2).sum(1), 1e-12)
    return np.linalg.norm(starts + np.clip(share, 0, 1)[:, None] * along - point, axis=1)


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
