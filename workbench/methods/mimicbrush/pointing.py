"""Where attention should point: for pairs whose correspondences are known, an optional term of the training.

Rendered views and changed copies tell for each place of the source where it is in the reference. The paper has no such
term: its attention learns where to look from what painting costs. In a training as short as this kit's it hardly does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.nn import functional

from workbench.methods.mimicbrush.attention import Bank, Grid, grid_of, shared_layers
from workbench.methods.mimicbrush.augment import Augmented
from workbench.methods.mimicbrush.networks import Imitator
from workbench.world import Camera, geometry

SAME = 0.05
"""A point is seen again where the other view shows the same thing, at most this share of its distance off."""


def seen_again(a: dict, b: dict) -> torch.Tensor:
    """Where the pixels of one rendered view are in another of the same scene: (H, W, 2) in pixels, NaN where hidden.

    Things that have moved between the two count as hidden.

    Args:
        a, b: items of a `world.RenderedSet`, of one scene.
    """
    cameras = [Camera(tuple(x["camera"][:3]), tuple(x["camera"][3:6]), float(x["camera"][6])) for x in (a, b)]
    (height, width), ids = b["ids"].shape, a["ids"].numpy()
    points, z, inside = geometry.carry(a["depth"][0].numpy(), ids, cameras[0], (), cameras[1], (), (height, width))
    x, y = np.nan_to_num(points).astype(int).transpose(2, 0, 1)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    near = np.abs(b["depth"][0].numpy()[y, x] - z) < SAME * z
    points[~(inside & near & (b["ids"].numpy()[y, x] == ids))] = np.nan
    return torch.from_numpy(points.astype(np.float32))


def shares_of(points: torch.Tensor, changed: Augmented) -> torch.Tensor:
    """Points of a picture (H, W, 2) after its change, as shares of its sides: (1, 2, H, W), NaN where not seen."""
    height, width = changed.image.shape[-2:]
    moved = changed.carry(points.flatten(0, 1)).view_as(points) / torch.tensor([width, height])
    inside = ((moved > 0) & (moved < 1)).all(-1, keepdim=True)  # NaN is not
    return torch.where(inside, moved, torch.nan).permute(2, 0, 1)[None]


@contextmanager
def asking(unet: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, what the shared layers ask is collected: layer -> queries (B, n, C)."""
    found: dict[str, torch.Tensor] = {}
    hooks = [
        layer.to_q.register_forward_hook(lambda module, given, out, name=name: found.update({name: out}))
        for name, layer in shared_layers(unet).items()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def pointing_loss(
    imitator: Imitator, bank: Bank, queries: dict[str, torch.Tensor], there: torch.Tensor, size: Grid
) -> torch.Tensor:
    """Mean of -log a over shared layers and over places whose true point is known.

    a: of what a place gives to the reference's places, the mean over heads, read at the true point between four places.

    Args:
        imitator: whose layers asked.
        bank: of the references.
        queries: of `asking`.
        there: (B, 2, h, w), (x, y) of the source's places in the reference as shares of its sides; -1: not known.
        size: (h, w) of the picture's latents.
    """
    losses = []
    for k, (name, layer) in enumerate(shared_layers(imitator.unet).items()):
        to_k = layer.to_k if imitator.adapters.projections is None else imitator.adapters.projections[k][0]
        query, key = (
            x.unflatten(2, (layer.heads, -1)).transpose(1, 2) for x in (queries[name], to_k(bank.tokens[name]))
        )
        attention = (layer.scale * query @ key.mT).softmax(-1).mean(1)  # (B, n, m)
        truth = functional.interpolate(there, grid_of(queries[name].shape[1], size), mode="nearest")
        truth = truth.flatten(2).mT  # (B, n, 2)
        known = (truth >= 0).all(-1)
        found = (attention[known] * _between(truth[known], bank.grids[name])).sum(-1)
        losses.append(-torch.log(found + 1e-4))
    every = torch.cat(losses)
    return every.mean() if len(every) else every.sum()


def _between(points: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Bilinear weights of a grid's places for points (N, 2), given as shares: (N, rows * columns), sums 1."""
    weights = []
    for share, count in zip(points.T, reversed(grid), strict=True):
        place = (share * count - 0.5).clamp(0, count - 1)
        weights.append((1 - (place[:, None] - torch.arange(count, device=place.device)).abs()).clamp_min(0))
    across, down = weights
    return (down[:, :, None] * across[:, None]).flatten(1)
