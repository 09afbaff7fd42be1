"""Feature maps: what any layer of a network gave, and pictures that show it.

A map is (1, C, h, w): C numbers for each of h x w cells that cover the picture evenly.
"""

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from torch import nn

from workbench import check

KEEP = ("last", "all")
"""Which outputs `record_features` keeps: of a module's last call, or of every call."""


class Recording(Mapping):
    """What `record_features` has recorded: {name of the module: its output}.

    ``recording[name]`` is the output of the module's last call, ``recording.every(name)`` lists all that were kept,
    oldest first. A module that was not called yet is no key.
    """

    def __init__(self, names: Iterable[str]):
        self.names = tuple(names)
        self._outputs: dict[str, list[torch.Tensor]] = {}

    def every(self, name: str) -> list[torch.Tensor]:
        """All outputs of a module that were kept, oldest first."""
        if name in self.names and name not in self._outputs:
            raise RuntimeError(f"{name} has not been called yet: run the network inside the with block first.")
        if name not in self._outputs:
            raise KeyError(f"{name!r} is not recorded, expected one of: {', '.join(self.names)}.")
        return list(self._outputs[name])

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.every(name)[-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        told = [f"{name} {tuple(outputs[-1].shape)} x {len(outputs)}" for name, outputs in self._outputs.items()]
        return f"Recording({', '.join(told) or 'nothing yet'})"


@contextmanager
def record_features(module: nn.Module, names: str | Iterable[str], *, keep: str = "last") -> Iterator[Recording]:
    """Records what named modules inside a network give, while the network runs as it always does.

    Outputs are copied as they come, detached from the graph, in the dtype and on the device they have. Of a module that
    gives several things (a tuple, a dictionary of diffusers) the first tensor is kept. The hooks are removed when the
    block is left, also by an exception.

    Args:
        module: the network, such as ``pipe.unet``.
        names: one or several, as in ``module.named_modules()``; ``*`` stands for anything: "up_blocks.1",
            "up_blocks.*.resnets.0".
        keep: "last" keeps each module's last output, "all" every one (memory grows with every call).

    Yields:
        `Recording`: {name: output}.

    Raises:
        TypeError: no torch module.
        ValueError: a name that no module has; the message lists near ones.

    Example:
        >>> with record_features(pipe.unet, "up_blocks.*") as recorded:
        ...     pipe("a photo of a room")
        >>> recorded["up_blocks.1"].shape
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is a {type(module).__name__}, expected a torch module such as pipe.unet.")
    check.choice(keep, "keep", KEEP)
    chosen = _chosen(module, [names] if isinstance(names, str) else list(names))
    recording = Recording(chosen)
    handles = []
    try:
        for name, part in chosen.items():
            handles.append(part.register_forward_hook(_recorder(recording, name, keep)))
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def _chosen(module: nn.Module, patterns: list[str]) -> dict[str, nn.Module]:
    """The modules that the patterns name, in the network's order."""
    modules = {name: part for name, part in module.named_modules() if name}
    if not patterns:
        raise ValueError('names is empty, expected at least one name such as "up_blocks.1".')
    wanted: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(modules, pattern)
        if not found:
            near = difflib.get_close_matches(str(pattern), modules, n=5, cutoff=0.4) or list(modules)[:8]
            raise ValueError(
                f"no module of {type(module).__name__} is called {pattern!r}. Near names: {', '.join(near)}."
            )
        wanted.update(found)
    return {name: part for name, part in modules.items() if name in wanted}


def _recorder(recording: Recording, name: str, keep: str):
    def hook(part, inputs, output) -> None:
        found = _first_tensor(output, name).detach().clone()
        before = recording._outputs.get(name, []) if keep == "all" else []
        recording._outputs[name] = [*before, found]

    return hook


def _first_tensor(output, name: str) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, Sequence) else ()
    for part in parts:
        if isinstance(part, torch.Tensor):
            return part
    raise TypeError(f"{name} gave a {type(output).__name__} without a tensor in it, expected a tensor or a tuple.")


# Principal components as colours


@dataclass(frozen=True, eq=False)
class PcaBasis:
    """Three directions in feature space and the range along each: what `fit_pca` finds, and colours any map with.

    Args:
        mean: (C,) of all cells.
        axes: (3, C), of length 1, orthogonal; fewer rows where C is less. In each the number of largest magnitude is
            positive, so that colours do not flip between runs.
        low, high: (3,): what becomes 0 and 1.
        explained: (3,): share of the variance along each axis.
    """

    mean: torch.Tensor = field(repr=False)
    axes: torch.Tensor = field(repr=False)
    low: torch.Tensor = field(repr=False)
    high: torch.Tensor = field(repr=False)
    explained: tuple[float, ...]

    def project(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Coordinates along the axes: (1, C, h, w) -> (1, 3, h, w), float64."""
        cells = _cells(feature_map) - self.mean  # (h w, C)
        return (cells @ self.axes.T).T.reshape(1, len(self.axes), *feature_map.shape[-2:])

    def colours(self, feature_map: torch.Tensor) -> torch.Tensor:
        """The map as a picture: (1, C, h, w) -> (1, 3, h, w) in [0, 1]; an axis without any spread is mid grey."""
        along = self.project(feature_map)  # (1, 3, h, w)
        low, span = self.low.view(1, -1, 1, 1), (self.high - self.low).view(1, -1, 1, 1)
        shown = torch.where(span > 1e-12, (along - low) / span.clamp(min=1e-12), torch.full_like(along, 0.5))
        missing = shown.new_full((1, 3 - shown.shape[1], *shown.shape[-2:]), 0.5)
        return torch.cat([shown, missing], 1).clamp(0, 1).float()


def fit_pca(maps: Iterable[torch.Tensor], share: float = 0.98) -> PcaBasis:
    """Principal components of all cells of one or more feature maps together: a basis that they share.

    Args:
        maps: one map or several, (1, C, h, w), sizes may differ.
        share: the middle share of the cells, on each axis, that the colours span; the rest saturates.

    Source: the visualisation of Oquab et al. (DINOv2), 2023, without its threshold for the foreground.

    Example:
        >>> basis = fit_pca([map_a, map_b])
        >>> wb.plot.show_images({"a": basis.colours(map_a), "b": basis.colours(map_b)})
    """
    check.number(share, "share", 0.01, 1)
    cells = torch.cat([_cells(m) for m in _maps(maps)])  # (N, C)
    mean = cells.mean(0)
    centred = cells - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(cells))  # ascending
    axes = vectors.T.flip(0)[:3]  # (3, C)
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))  # (3, 1)
    axes = axes * torch.where(largest < 0, -1.0, 1.0)
    along = centred @ axes.T  # (N, 3)
    low, high = _range(along, share)
    total = float(variances.clamp(min=0).sum()) or 1.0
    explained = tuple(float(v) / total for v in variances.clamp(min=0).flip(0)[:3])
    return PcaBasis(mean, axes, low, high, explained)


def pca_colours(maps: Iterable[torch.Tensor], share: float = 0.98) -> list[torch.Tensor]:
    """Feature maps as pictures in one shared basis: equal features get equal colours in every picture.

    Args:
        maps, share: as in `fit_pca`.

    Returns:
        One (1, 3, h, w) in [0, 1] for each map.
    """
    maps = _maps(maps)
    basis = fit_pca(maps, share)
    return [basis.colours(m) for m in maps]


def _range(along: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What the middle share of the values spans, (3,) and (3,)."""
    low, high = np.quantile(along.numpy(), [(1 - share) / 2, (1 + share) / 2], axis=0)
    return torch.from_numpy(low), torch.from_numpy(high)


# Clusters


def cluster_maps(
    maps: Iterable[torch.Tensor], k: int = 8, *, seed: int = 0, jointly: bool = True, unit_length: bool = False
) -> list[torch.Tensor]:
    """K-means over the cells of feature maps, with labels that mean the same in every map.

    Jointly, all cells are clustered together. Otherwise each map is clustered by itself, and its clusters take the
    labels of the first map's: the assignment with the smallest sum of squared distances between centres. Labels go by
    size: 0 is the largest cluster (of all maps, or of the first).

    Args:
        maps: one map or several, (1, C, h, w), sizes may differ.
        k: clusters, at most as many as there are cells.
        seed: of the first centres (k-means++).
        jointly: see above.
        unit_length: each cell's features are brought to length 1 first, so that direction alone counts.

    Returns:
        One (h, w) int64 for each map, 0 to k - 1; `workbench.plot.cluster_colours` paints them.

    Source: Lloyd 1982; Arthur and Vassilvitskii, 2007 (k-means++); Kuhn 1955 (assignment).
    """
    maps = _maps(maps)
    check.seed(seed)
    sizes = [m.shape[-2:] for m in maps]
    cells = [_cells(m) for m in maps]  # (h w, C) each
    if unit_length:
        cells = [nn.functional.normalize(c, dim=1) for c in cells]
    fewest = sum(map(len, cells)) if jointly else min(map(len, cells))
    check.integer(k, "k", 1, fewest)
    if jointly:
        labels, _ = _k_means(torch.cat(cells), k, seed)
        parts = labels.split([len(c) for c in cells])
        return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]
    found = [_k_means(c, k, seed) for c in cells]
    first = found[0][1]
    return [
        match_clusters(centres, first)[labels].reshape(size)
        for (labels, centres), size in zip(found, sizes, strict=True)
    ]


def match_clusters(centres: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    """Which cluster of one set each cluster of another is, one to one.

    Args:
        centres: (K, C).
        to: (K, C), the set whose labels count.

    Returns:
        (K,) int64: the label in ``to`` of each of ``centres``, such that the sum of squared distances is smallest.

    Raises:
        ValueError: sets of different shapes.
    """
    if centres.ndim != 2 or centres.shape != to.shape:
        raise ValueError(f"centres are {tuple(centres.shape)} and {tuple(to.shape)}, expected (K, C), the same twice.")
    cost = torch.cdist(centres.double(), to.double()).square()
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    label = torch.empty(len(centres), dtype=torch.int64)
    label[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return label


def _k_means(cells: torch.Tensor, k: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels (N,) by size of the cluster, and centres (K, C)."""
    means = KMeans(k, init="k-means++", n_init=4, random_state=seed % 2**32).fit(cells.numpy())
    order = np.argsort(-np.bincount(means.labels_, minlength=k), kind="stable")  # the largest first
    rank = np.empty(k, np.int64)
    rank[order] = np.arange(k)
    return torch.from_numpy(rank[means.labels_]), torch.from_numpy(means.cluster_centers_[order])


# What both share


def _maps(maps) -> list[torch.Tensor]:
    """A list of checked maps with as many channels each."""
    maps = [maps] if isinstance(maps, torch.Tensor) else list(maps)
    if not maps:
        raise ValueError("maps is empty, expected at least one feature map (1, C, h, w).")
    for m in maps:
        check_map(m)
    channels = sorted({m.shape[1] for m in maps})
    if len(channels) > 1:
        raise ValueError(f"maps have {' and '.join(map(str, channels))} channels, expected features of one layer.")
    return maps


def check_map(value, name: str = "a feature map") -> torch.Tensor:
    """A feature map (1, C, h, w), floating and finite."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a tensor (1, C, h, w).")
    if value.ndim != 4 or value.shape[0] != 1 or 0 in value.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, expected (1, C, h, w): one picture's.")
    if not value.is_floating_point() or not value.isfinite().all():
        raise ValueError(
            f"{name} ({value.dtype}) holds NaN, infinite or whole numbers, expected finite floating ones. "
            "Where half precision overflowed, load the network with dtype=torch.float32."
        )
    return value


def _cells(feature_map: torch.Tensor) -> torch.Tensor:
    """(1, C, h, w) -> (h w, C), float64 on the CPU."""
    return check_map(feature_map)[0].detach().double().cpu().flatten(1).T
