"""Asking features for a point of one picture: how similar each place of the other is, and which is best."""

from dataclasses import dataclass

import numpy as np
import torch

from workbench import check, plot
from workbench.widgets.match_view.lines import truth_of

COLOURS = "magma"


@dataclass(frozen=True, eq=False)
class Answer:
    """What features say to one point.

    Args:
        side: "a" or "b", whose point it is.
        point: (x, y) in pixels of that picture.
        heat_map: (H, W) of the other picture: how similar each place is.
        best: (x, y) in pixels of the other picture: the most similar place.
        similarity: of that place.
        truth: (x, y) in the other picture; None where it is not known or not visible there.
        error: distance between best and truth in pixels; None without a truth.
    """

    side: str
    point: tuple[float, float]
    heat_map: torch.Tensor
    best: tuple[float, float]
    similarity: float
    truth: tuple[float, float] | None = None
    error: float | None = None

    @property
    def other(self) -> str:
        """The other picture's name."""
        return "b" if self.side == "a" else "a"

    @property
    def limits(self) -> tuple[float, float]:
        """Similarities of the first and the last colour: the median, for the lower half tells nothing, and the best."""
        return float(self.heat_map.median()), float(self.heat_map.max())

    def colours(self) -> torch.Tensor:
        """The heat map as colours, (1, 3, H, W)."""
        low, high = self.limits
        level = ((self.heat_map - low) / max(high - low, 1e-12)).clamp(0, 1)
        return plot.heat_map(level[None, None], 1.0, COLOURS)


class Asking:
    """Features and truth of two pictures.

    Args:
        features: a feature pair, a function from a point of a to a heat map of b, or None.
        truth: see `truth_of`.
        sizes: (H, W) of both pictures.
    """

    def __init__(self, features, truth, sizes):
        if features is not None and not (callable(features) or hasattr(features, "heat_map")):
            raise TypeError(
                f"features is a {type(features).__name__}, expected a feature pair, or a function from a point of a "
                "to a heat map (H, W) of b."
            )
        self._features, self._truth, self._sizes = features, truth_of(truth), sizes

    @property
    def knows_truth(self) -> bool:
        """Whether there is a truth."""
        return self._truth is not None

    def errors(self, matches) -> np.ndarray | None:
        """Distance of each match from the truth, (N,) in pixels, NaN where that is not known; None without a truth."""
        if matches is None or self._truth is None:
            return None
        starts, ends = (np.asarray(torch.as_tensor(p).cpu(), np.float64) for p in (matches.points_a, matches.points_b))
        return np.linalg.norm(self._truth(starts) - ends, axis=1)

    def true_end(self, point) -> tuple[float, float] | None:
        """Where a point of a is in b; None where that is not known or not visible."""
        if self._truth is None:
            return None
        true = self._truth(np.asarray([point], np.float64))[0]
        return tuple(true.tolist()) if np.isfinite(true).all() else None

    def need(self, side: str):
        """What answers for points of one picture, or an error that says why there is nothing."""
        if self._features is None:
            raise RuntimeError("points cannot be asked, expected MatchView(a, b, features=...).")
        if side == "a":
            return self._features
        if not hasattr(self._features, "swapped"):
            raise RuntimeError("features is a function for points of a, click there; a feature pair answers for both.")
        return self._features.swapped()

    def answer(self, x: float, y: float, side: str) -> Answer:
        """What features say to a point, in pixels of its picture."""
        asked, where = self.need(check.choice(side, "side", ("a", "b"))), "ab".index(side)
        (height, width), other = self._sizes[where], self._sizes[1 - where]
        point = check.number(x, "x", 0, width), check.number(y, "y", 0, height)
        heat = (asked.heat_map(point) if hasattr(asked, "heat_map") else asked(point)).detach().float().cpu()
        if tuple(heat.shape) != other:
            raise ValueError(f"the heat map has shape {tuple(heat.shape)}, expected (H, W) of the picture, {other}.")
        if hasattr(asked, "best"):
            best, similarity = (found.detach().cpu() for found in asked.best([point]))
            found, sure = tuple(best[0].tolist()), float(similarity[0])
        else:
            place = int(heat.argmax())
            found, sure = (place % other[1] + 0.5, place // other[1] + 0.5), float(heat.max())
        true = self.true_end(point) if side == "a" else None
        error = None if true is None else float(np.linalg.norm(np.subtract(true, found)))
        return Answer(side, point, heat, found, sure, true, error)
