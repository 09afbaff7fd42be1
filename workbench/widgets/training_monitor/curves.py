"""Loss, loss against t, and gradient norm, side by side.

matplotlib is slow where it lays out and counts ticks: a new figure saved with tight edges costs ten times what it
costs to move the lines of an old one. So there is one figure, its axes stay where they are, and ticks are few.
"""

import math

import torch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from workbench import plot

WINDOW = 10
"""Steps that the mean goes over; there is none before twice as many."""
TITLES = {"loss": "loss", "loss_by_t": "loss against t", "gradient_norm": "gradient norm"}
DECADE = 10.0
"""Highest over lowest value from which on an axis is logarithmic."""


class Curves:
    """The curves of a run as a picture.

    Args:
        run: with ``recorded, history(name)``, and maybe ``loss_by_t()``.
    """

    def __init__(self, run):
        self._run = run
        self._picture: torch.Tensor | None = None
        self._drawn = 0  # how many steps are in it
        self._figure = plot.Picture(figsize=(11.5, 2.9), dpi=80)
        self._figure.subplots_adjust(left=0.05, right=0.99, bottom=0.17, top=0.9, wspace=0.2)
        self._axes = dict(zip(TITLES, self._figure.subplots(1, 3), strict=True))
        self._lines = {}
        for name, ax in self._axes.items():
            names = ("mean loss",) if name == "loss_by_t" else (name, f"mean of {WINDOW}")
            self._lines[name] = [ax.plot([], [], label=label)[0] for label in names]
            ax.set(title=TITLES[name], xlabel="t" if name == "loss_by_t" else "step")
            ax.grid(alpha=0.3)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            _set_scale(ax, [])

    def picture(self) -> torch.Tensor:
        """The curves as (1, 3, 232, 920) in [0, 1]; the same tensor again until there are more steps."""
        if self._picture is None or self._drawn != self._run.recorded:
            self._drawn = self._run.recorded
            self._move("loss")
            self._move("gradient_norm")
            self._move_loss_by_t()
            self._picture = self._figure.pixels()
        return self._picture

    def _move(self, name: str) -> None:
        values = self._run.history(name)
        points = [(i, v) for i, v in enumerate(values, 1) if v is not None and math.isfinite(v)]
        means = _smooth(points)
        ax, (line, mean) = self._axes[name], self._lines[name]
        _put(line, points)
        _put(mean, means)
        if means and ax.get_legend() is None:  # a curve alone is told by the title
            ax.legend(loc="upper right")
        _fit(ax, [v for _, v in points])

    def _move_loss_by_t(self) -> None:
        ax, (line,) = self._axes["loss_by_t"], self._lines["loss_by_t"]
        try:
            found = self._run.loss_by_t()
        except (AttributeError, ValueError):  # no noise levels in this training
            ax.set_visible(False)
            return
        ax.set_visible(True)
        _put(line, list(zip(found["t"], found["loss"], strict=True)))
        ax.relim()
        ax.autoscale_view()


def _put(line, points: list[tuple[float, float]]) -> None:
    """The line goes through these points, which are marked while they are few."""
    line.set_data([x for x, _ in points], [y for _, y in points])
    line.set_marker("." if len(points) < 40 else "")


def _fit(ax, values: list[float]) -> None:
    """The axes take in all of their lines."""
    _set_scale(ax, values)
    ax.relim()
    ax.autoscale_view()


def _set_scale(ax, values: list[float]) -> None:
    """A logarithmic axis where positive values are far apart; few ticks, none between them."""
    log = bool(values) and min(values) > 0 and max(values) >= DECADE * min(values)
    scale = "log" if log else "linear"
    if ax.get_yscale() != scale:
        ax.set_yscale(scale)
    if log:
        subs = (1.0, 2.0, 5.0) if max(values) < DECADE**2 * min(values) else (1.0,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.yaxis.set_minor_locator(NullLocator())


def _smooth(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Means over `WINDOW` points in a row, each at the last of them."""
    if len(points) < 2 * WINDOW:
        return []
    rows = [points[k : k + WINDOW] for k in range(len(points) - WINDOW + 1)]
    return [(row[-1][0], sum(v for _, v in row) / WINDOW) for row in rows]
