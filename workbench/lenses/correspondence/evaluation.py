"""Methods compared on pictures whose correspondence is known."""

import html
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from workbench import check
from workbench.lenses.correspondence.dense import cell_middles
from workbench.lenses.correspondence.matching import match
from workbench.lenses.correspondence.scores import end_point_error, pck
from workbench.lenses.correspondence.truth import Pair, truth_at
from workbench.metrics import bootstrap_interval

MEASURES = ("pck", "pck_point", "epe")
"""What rows tell with an interval: ``name``, ``name_low``, ``name_high``."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A table: one row a method. Prints itself, and shows itself in a notebook.

    Args:
        rows: dictionaries: method, its plain settings (t, block, ...), pairs, points (judged, of all pairs), pck,
            pck_point, epe with _low and _high, median.
        alpha, level: what the numbers were made with.
    """

    rows: tuple[dict, ...]
    alpha: float
    level: float

    def best(self, column: str = "pck") -> dict:
        """The best row: largest share, or smallest error. A method that gave no match has no error and comes last."""
        check.choice(column, "column", (*MEASURES, "median"))
        sign = 1 if column.startswith("pck") else -1
        return max(self.rows, key=lambda row: -np.inf if np.isnan(row[column]) else sign * row[column])

    def cells(self) -> list[list[str]]:
        """Head and rows as text."""
        settings = [k for k in dict.fromkeys(k for row in self.rows for k in row) if k not in _OWN]
        head = [f"PCK@{self.alpha:g}", "per point", "EPE px"]
        table = [["method", *settings, "pairs", "points", *head, "median px"]]
        for row in self.rows:
            told = [f"{row[m]:.2f} [{row[m + '_low']:.2f}, {row[m + '_high']:.2f}]" for m in MEASURES]
            plain = [str(row.get(k, "")) for k in ("method", *settings, "pairs", "points")]
            table.append([*plain, *told, f"{row['median']:.2f}"])
        return table

    def __repr__(self) -> str:
        table = self.cells()
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
        return "\n".join([*lines, f"In brackets: {self.level:.0%} intervals, pictures drawn again (bootstrap)."])

    def _repr_html_(self) -> str:
        head, *lines = [[html.escape(c) for c in line] for line in self.cells()]
        body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in line)}</tr>" for line in lines)
        return f"<table><thead><tr>{''.join(f'<th>{c}</th>' for c in head)}</tr></thead><tbody>{body}</tbody></table>"


_OWN = {"method", "pairs", "points", "median", *(m + end for m in MEASURES for end in ("", "_low", "_high"))}


def evaluate(
    pairs: Iterable[Pair],
    methods: Mapping[str, Mapping | Callable],
    *,
    alpha: float = 0.1,
    points: int = 200,
    level: float = 0.95,
    rounds: int = 1000,
    by_group: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Measures matchers against the truth.

    "dift" and "features" are asked for the same points of each pair, drawn among those visible in both pictures, and
    must answer each. Other methods choose their points themselves; judged are those whose point is visible in both
    pictures. So the first are judged everywhere, the second where they dare: compare ``points`` too. A pair without
    any match counts as a share of 0, and not at all for errors.

    Args:
        pairs: `scene_pair`, `clip_pair`, `stereo_pair` or your own.
        methods: {name: settings of `match` with "method", or a function (image_a, image_b, points) -> `Matches`};
            points (N, 2) are those drawn.
        alpha: PCK's threshold, a share of the longer side of image_b (not of an object's box).
        points: so many are asked for in a pair, fewer where fewer are visible.
        level: of the intervals.
        rounds: of the bootstrap over pairs.
        by_group: a row for each method and each `Pair.group`, so that a change of viewpoint can be told from one of
            light.
        seed: of points, of `match` and of the bootstrap.

    Returns:
        `Evaluation`: PCK per image and per point, mean (over pairs) end-point error, each with its interval; the
        median error of all points.

    Example:
        >>> pairs = [scene_pair(name) for name in ("room-00", "facade-00")]
        >>> evaluate(pairs, {"sift": {"method": "sift"}} | dift_grid(pipe, t=(1, 101, 261)))
    """
    pairs, methods = list(pairs), dict(methods)
    if not pairs or not methods:
        raise ValueError(f"there are {len(pairs)} pairs and {len(methods)} methods, expected at least one of each.")
    check.integer(points, "points", 1)
    asked = [_visible_points(pair, points, seed + k) for k, pair in enumerate(pairs)]
    rows = []
    for name, settings in methods.items():
        errors, shares = [], []
        for pair, where in zip(pairs, asked, strict=True):
            found = _answer(pair, where, settings, seed)
            truth, visible = truth_at(found.points_a, pair.truth)
            judged = found.points_b.cpu()[visible], truth[visible]
            errors.append(end_point_error(*judged))
            size = tuple(pair.image_b.shape[-2:])
            shares.append((pck(*judged, size, alpha).correct[0] if len(errors[-1]) else torch.zeros(0)).double())
        for group in dict.fromkeys(pair.group for pair in pairs) if by_group else [None]:
            those = [k for k, pair in enumerate(pairs) if group is None or pair.group == group]
            row = {"method": name, **({"group": group} if by_group else {}), **_plain(settings)}
            row |= {"pairs": len(those), "points": sum(len(errors[k]) for k in those)}
            how = {"level": level, "rounds": rounds, "seed": seed}
            rows.append(row | _measured([errors[k] for k in those], [shares[k] for k in those], how))
    return Evaluation(tuple(rows), alpha, level)


def dift_grid(pipe, *, t=(261,), block=(1,), ensemble=(8,), **others) -> dict[str, dict]:
    """Settings for `evaluate`: DIFT with every combination of timesteps, blocks and ensemble sizes.

    Args:
        pipe: a diffusers pipeline.
        t, block, ensemble: values to combine, see `dift_features`.
        others: settings that all have, such as prompt.

    Example:
        >>> evaluate(pairs, dift_grid(pipe, t=(0, 101, 261), block=(0, 1, 2)))
    """
    return {
        f"dift t={i} block={b}" + (f" ensemble={e}" if len(ensemble) > 1 else ""): {
            "method": "dift", "pipe": pipe, "t": i, "block": b, "ensemble": e, **others
        }
        for e in ensemble for b in block for i in t
    }  # fmt: skip


def _visible_points(pair: Pair, count: int, seed: int) -> torch.Tensor:
    """Middles of some pixels of a that are visible in b, (N, 2)."""
    size = tuple(pair.truth.visible.shape)
    middles = cell_middles(size, size)[pair.truth.visible.flatten()]
    if not len(middles):
        raise ValueError(f"nothing of {pair.name} is visible in both pictures.")
    order = torch.randperm(len(middles), generator=torch.Generator().manual_seed(check.seed(seed)))
    return middles[order[:count]]


def _answer(pair: Pair, where: torch.Tensor, settings, seed: int):
    if callable(settings):
        return settings(pair.image_a, pair.image_b, where)
    settings = {"seed": seed, **settings}
    if settings.get("method") in ("dift", "features") and "points" not in settings:
        settings = {"mutual": False, **settings, "points": where}
    return match(pair.image_a, pair.image_b, **settings)


def _measured(errors: list[torch.Tensor], shares: list[torch.Tensor], how: dict) -> dict:
    """Measures of one method with intervals over pairs."""
    counts = np.array([[float(s.sum()), len(s)] for s in shares])  # (pairs, 2): correct, judged
    each = np.array([right / judged if judged else 0.0 for right, judged in counts])
    means = np.array([e.mean().item() if len(e) else np.nan for e in errors])
    every = torch.cat(errors)
    row = {"median": every.median().item() if len(every) else float("nan")}
    for name, values, statistic in (
        ("pck", each, np.mean),
        ("pck_point", counts, lambda v: v[:, 0].sum() / max(v[:, 1].sum(), 1)),
        ("epe", means[np.isfinite(means)], np.mean),
    ):
        known = len(values) > 0
        row[name] = float(statistic(values)) if known else float("nan")
        low, high = bootstrap_interval(values, statistic, **how) if known else (float("nan"),) * 2
        row |= {f"{name}_low": low, f"{name}_high": high}
    return row


def _plain(settings) -> dict:
    """The settings that fit into a table."""
    if callable(settings):
        return {}
    return {k: v for k, v in settings.items() if k != "method" and isinstance(v, (int, float, str)) and v != ""}
