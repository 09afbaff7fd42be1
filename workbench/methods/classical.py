"""Two fills that need no weights and no patches: the baselines that every other method must beat."""

from collections.abc import Iterator

import numpy as np
import torch
from skimage import restoration

from workbench import check
from workbench import mask as masks
from workbench.methods.result import Step


def fill_mean(image: torch.Tensor, mask: torch.Tensor, *, seed: int = 0) -> Iterator[Step]:
    """Mean fill: every hole pixel gets the average colour of the kept pixels.

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        seed: not used; nothing is random.

    Yields:
        One `Step`.

    Raises:
        ValueError: no pixel is kept.
    """
    check.leaves_something(mask)
    keep = 1 - mask
    colour = (image * keep).sum((2, 3), keepdim=True) / keep.sum((2, 3), keepdim=True)  # (1, 3, 1, 1)
    yield Step(1, 1, "mean colour", torch.where(mask > 0.5, colour, image))


def fill_biharmonic(image: torch.Tensor, mask: torch.Tensor, *, seed: int = 0) -> Iterator[Step]:
    """Biharmonic inpainting: the smoothest surface that meets the hole's edge in value and slope.

    Solves Laplace(Laplace(u)) = 0 in the hole. Good for thin scratches, a blur in large holes; time grows
    faster than the hole's area.

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        seed: not used; nothing is random.

    Yields:
        One `Step`.

    Raises:
        ValueError: no pixel is kept.

    Source: Damelin and Hoang, On surface completion and image inpainting by biharmonic functions, 2018; the
    solver is scikit-image's.
    """
    check.leaves_something(mask)
    x0, y0, x1, y1 = masks.bounding_box(mask)
    rows, columns = slice(max(0, y0 - 8), y1 + 8), slice(max(0, x0 - 8), x1 + 8)  # the equation looks 2 pixels far
    pixels = image[0, :, rows, columns].permute(1, 2, 0).double().cpu().numpy()  # (h, w, 3)
    hole = mask[0, 0, rows, columns].cpu().numpy() > 0.5  # (h, w)
    filled = restoration.inpaint_biharmonic(pixels, hole, channel_axis=-1, split_into_regions=True)
    filled = torch.from_numpy(np.clip(filled, 0, 1)).permute(2, 0, 1).to(image)  # (3, h, w)
    raw = image.clone()
    raw[0, :, rows, columns] = torch.where(mask[0, :, rows, columns] > 0.5, filled, raw[0, :, rows, columns])
    yield Step(1, 1, "biharmonic surface", raw)
