"""What SPL is judged on: held-out pictures, each with holes that depend on committed seeds and nothing else.

Nothing of it is stored in the repository: views are rendered again from their seeds, photographs are cut anew.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from workbench import check
from workbench import mask as masks
from workbench.diffusion.models import SIZE
from workbench.diffusion.training_data import HELD_OUT, VALIDATION_CROPS, generator, held_out_crops
from workbench.mask import RATIO_BINS

SEED = 13
"""Of all holes."""
MARGIN = 0.015
"""Holes stay so far from their bin's ends: a brush misses the wanted share by up to 0.01."""
KINDS = ("room", "facade")
"""Of views; each is half of them."""
FIRST = 1000
"""The first seed of the views, counted within the validation split: the trainings look at the first hundred there."""
VIEWS = 108
"""Of each kind, 216 in all."""
SETS = ("world", "photographs")


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture and a hole.

    Args:
        name: "room-10001000, hole 3".
        picture: what counts as one picture when intervals are drawn: "room-10001000", "coffee".
        of: one of `SETS`.
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
    """

    name: str
    picture: str
    of: str
    image: torch.Tensor
    mask: torch.Tensor

    @property
    def digest(self) -> str:
        """Of the pixels of both, to 8 bit: twelve letters."""
        both = torch.cat([self.image, self.mask.expand_as(self.image)], 1)
        pixels = (both * 255).round().to(torch.uint8).contiguous()
        return hashlib.sha256(pixels.numpy().tobytes() + str(tuple(pixels.shape)).encode()).hexdigest()[:12]


def bin_of(mask: torch.Tensor) -> int:
    """Which of `RATIO_BINS` a hole (1, 1, H, W) belongs to, its upper end counted; 6 and more: above them all.

    Computed in whole numbers: the share 0.3 of a picture is (0.2, 0.3] whatever a float makes of it.
    """
    return max(0, -(-10 * int(mask.sum()) // mask.numel()) - 1)


def fixed_hole(size: tuple[int, int], number: int, *seeds: int) -> torch.Tensor:
    """An irregular hole of a bin, always the same: (1, 1, H, W).

    Args:
        size: (H, W).
        number: of the bin in `RATIO_BINS`.
        seeds: whole numbers that tell the picture from all others.
    """
    low, high = RATIO_BINS[check.integer(number, "number", 0, len(RATIO_BINS) - 1)]
    rng = generator(SEED, number, *seeds)
    ratio = rng.uniform(low + MARGIN, high - MARGIN)
    return masks.irregular(size, ratio, int(rng.integers(2**31)))


def render_held_out(folder, views: int = VIEWS, workers: int = 1, progress: bool = True) -> list[Path]:
    """Renders the held-out views that are still missing; about two seconds of one core each.

    Args:
        folder: gets a data set of each of `KINDS`.
        views: of each.
        workers: processes.
        progress: shows bars.

    Returns:
        The data sets' folders.
    """
    from workbench.world.dataset import Plan, render_dataset

    plans = [Plan(kind, views, "validation", FIRST, (SIZE, SIZE), shard=min(12, views)) for kind in KINDS]
    return [render_dataset(plan, Path(folder) / plan.kind, workers, progress) for plan in plans]


def held_out_views(folders: Iterable) -> dict[tuple[str, int, int], torch.Tensor]:
    """Views by (kind, seed, number of the view): (1, 3, H, W) each.

    Args:
        folders: what ``python -m workbench.world --split validation`` wrote.

    Raises:
        ValueError: views that a training may have seen, or of a kind without pictures.
        FileNotFoundError: no views there.
    """
    from workbench.world.dataset import RenderedSet

    found = {}
    for folder in folders:
        views = RenderedSet(folder)
        kind, split = views.plan["kind"], views.plan["split"]
        if split == "train":
            raise ValueError(f"{folder} holds views of the split 'train', expected held-out ones: validation.")
        check.choice(kind, f"the kind of views in {folder}", KINDS)
        counted: dict[int, int] = {}
        for k in range(len(views)):
            row = views[k]
            number = counted[row["seed"]] = counted.get(row["seed"], -1) + 1
            found[kind, row["seed"], number] = row["image"][None]  # (1, 3, H, W)
    return found


def world_pairs(folders: Iterable) -> list[Pair]:
    """Each held-out view with one hole, the bins in turn; see `held_out_views`."""
    pairs = []
    for (kind, seed, number), image in held_out_views(folders).items():
        which = (seed + number) % len(RATIO_BINS)
        mask = fixed_hole(image.shape[-2:], which, KINDS.index(kind), seed, number)
        name = f"{kind}-{seed}" + (f", view {number}" if number else "")
        pairs.append(Pair(f"{name}, hole {which}", f"{kind}-{seed}", "world", image, mask))
    return pairs


def photograph_pairs(crops: int = VALIDATION_CROPS) -> list[Pair]:
    """Each crop of the held-out photographs with a hole of every bin.

    Args:
        crops: of each photograph; fewer are quicker, and their holes are the same.
    """
    check.integer(crops, "crops", 1, VALIDATION_CROPS)
    pairs = []
    for k, image in enumerate(held_out_crops().split(1)):
        name, crop = HELD_OUT[k // VALIDATION_CROPS], k % VALIDATION_CROPS
        for which in range(len(RATIO_BINS)) if crop < crops else ():
            mask = fixed_hole(image.shape[-2:], which, len(KINDS), k)
            pairs.append(Pair(f"{name}, crop {crop}, hole {which}", name, "photographs", image, mask))
    return pairs
