"""References and target of any size as crops of one size, always the same ones, so that each is encoded once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workbench import check
from workbench.diffusion.filling import Crop, resize_with_hole
from workbench.diffusion.training_data import generator

ZOOM = 1.125
"""A crop shows at least 1 / ZOOM of the picture's shorter side: the published scripts scale it to 512 ... 576 pixels
and crop 512."""


@dataclass(frozen=True, eq=False)
class Crops:
    """What is learnt from.

    Args:
        images: (K, 3, h, w) in [0, 1]; nothing of the target's hole shows in them.
        holes: (K, 1, h, w), 1 = not known.
        picture: (K,): which picture a crop is of; the references in their order, the target last.
    """

    images: torch.Tensor
    holes: torch.Tensor
    picture: tuple[int, ...]

    def of(self, picture: int) -> list[int]:
        """The rows of a picture's crops."""
        return [row for row, number in enumerate(self.picture) if number == picture]


def cut_crops(
    references: Sequence[torch.Tensor], target: torch.Tensor, mask: torch.Tensor, cut: Crop, count: int = 8,
    seed: int = 0,
) -> Crops:  # fmt: skip
    """Cuts crops of one size: the largest that fit, and random ones a little closer.

    Args:
        references: (1, 3, H, W) each, of any size.
        target, mask: (1, 3, H, W) and (1, 1, H, W).
        cut: of the target, what will be sampled; its size is that of all crops, and it is the target's first one.
        count: crops of each picture.
        seed: of places and sizes.

    Returns:
        `Crops`.

    Source: RealFill's public scripts (a random crop of 512 pixels in a shorter side of 512 to 576, drawn anew in each
    step); differs in that the crops are drawn once and that references wider than the target's crop are not cut square.
    """
    check.integer(count, "count", 1)
    size = tuple(cut.image.shape[-2:])
    x0, y0, x1, y1 = cut.box
    pictures = [(reference, torch.zeros_like(reference[:, :1])) for reference in references]
    pictures.append((target[..., y0:y1, x0:x1], mask[..., y0:y1, x0:x1]))
    images, holes, picture = [], [], []
    for number, (image, hole) in enumerate(pictures):
        for k in range(count):
            rng = generator(seed, 7, number, k)
            first = number == len(references) and k == 0
            zoom = 1.0 if k == 0 else float(rng.uniform(1, ZOOM))
            crop, unknown = (cut.image, cut.mask) if first else _crop(image, hole, size, zoom, rng)
            images.append(crop)
            holes.append(unknown)
            picture.append(number)
    return Crops(torch.cat(images), torch.cat(holes), tuple(picture))


def check_references(references, name: str = "references") -> list[torch.Tensor]:
    """References, or other pictures of that ``name``, as a list of (1, 3, H, W); a batch (N, 3, H, W) is N of them.

    Raises:
        ValueError, TypeError: not pictures, or None.
    """
    if references is None:
        raise ValueError(
            "references is missing, expected 1 to 5 other pictures of the scene, (1, 3, H, W) each. "
            "references=[] learns from the target alone."
        )
    return check.pictures(references, name)


def _crop(
    image: torch.Tensor, hole: torch.Tensor, size: tuple[int, int], zoom: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture scaled until it covers zoom times the size, and a window of it."""
    scale = zoom * max(n / m for n, m in zip(size, image.shape[-2:], strict=True))
    scaled = tuple(max(n, math.ceil(scale * m - 1e-6)) for n, m in zip(size, image.shape[-2:], strict=True))
    image, hole = resize_with_hole(image, hole, scaled)
    (y, x), (h, w) = (int(rng.integers(m - n + 1)) for n, m in zip(size, scaled, strict=True)), size
    return image[..., y : y + h, x : x + w], hole[..., y : y + h, x : x + w]
