"""Holes to learn imitation from: grids that prefer what the reference shows too, boxes, segments."""

import numpy as np
import torch
from scipy import ndimage
from skimage.segmentation import felzenszwalb

from workbench import check
from workbench import mask as masks
from workbench.image import to_grey

CELLS = (3, 10)
"""N of the N x N grid, both included."""
MATCHED, OTHERS = 0.75, 0.5
"""Chance of a cell to be hole: with matches in it, and without."""
FULLEST, FULL_CHANCE, REST_CHANCE = 5, 0.7, 0.3
"""The released code's instead: so many cells with the most keypoints, their chance, and that of the others."""
BOX_SIDES = (0.4, 0.9)
SEGMENT_SHARES = (0.02, 0.5)
"""Shares of the picture between which a segment serves as hole."""


def cell_counts(points, size: tuple[int, int], cells: int) -> np.ndarray:
    """How many points (N, 2), (x, y) in pixels, lie in each cell of a grid: (cells, cells), rows first."""
    points = np.asarray(points, float).reshape(-1, 2)
    height, width = size
    column = np.floor(points[:, 0] * cells / width).astype(int)
    row = np.floor(points[:, 1] * cells / height).astype(int)
    inside = (row >= 0) & (row < cells) & (column >= 0) & (column < cells)
    counts = np.zeros((cells, cells), int)
    np.add.at(counts, (row[inside], column[inside]), 1)
    return counts


def grid_mask(
    size: tuple[int, int], rng: np.random.Generator, points=None, cells: int | None = None, rule: str = "paper"
) -> torch.Tensor:
    """A grid of cells, each hole by chance; where the reference shows the same, the chance is higher.

    Args:
        size: (H, W).
        rng: everything is drawn from it.
        points: (N, 2) in pixels: where the picture matches the reference. None: all cells have one chance.
        cells: N; None draws it from `CELLS`.
        rule: "paper": 75 % with matches, 50 % without. "released": 70 % the five fullest, 30 % the others.

    Returns:
        (1, 1, H, W). At least one cell is hole, and at least one is not.

    Raises:
        ValueError: an unknown rule, or a picture smaller than its grid.

    Source: Chen et al., 2024, section 4.1; the released code's ``data_utils``.

    Example:
        >>> grid_mask((128, 128), rng, match(source, reference).points_a)
    """
    check.choice(rule, "rule", ("paper", "released"))
    height, width = check.size(size)
    cells = int(rng.integers(CELLS[0], CELLS[1] + 1)) if cells is None else check.integer(cells, "cells", 2)
    if cells > min(height, width):
        raise ValueError(f"cells is {cells} for a mask of {(height, width)}, expected at most one a pixel.")
    counts = cell_counts([] if points is None else points, size, cells)
    if points is None:
        chance = np.full(counts.shape, OTHERS)
    elif rule == "paper":
        chance = np.where(counts > 0, MATCHED, OTHERS)
    else:
        chance = np.full(counts.shape, REST_CHANCE)
        order = np.argsort(-counts, axis=None, kind="stable")[:FULLEST]
        chance.flat[order] = FULL_CHANCE
    holes = rng.random(counts.shape) < chance
    one = int(rng.integers(holes.size))
    if holes.all() or not holes.any():
        holes.flat[one] = not holes.flat[one]
    row, column = np.arange(height) * cells // height, np.arange(width) * cells // width
    return torch.from_numpy(holes[row][:, column].astype(np.float32))[None, None]


def box_mask(size: tuple[int, int], rng: np.random.Generator, sides=BOX_SIDES) -> torch.Tensor:
    """One box, (1, 1, H, W), whose sides are between these shares of the picture's."""
    height, width = check.size(size)
    h, w = (max(1, int(n * rng.uniform(*sides))) for n in (height, width))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return masks.box(size, (x, y, x + w, y + h))


def segment_mask(segments: torch.Tensor, rng: np.random.Generator, grow: int = 3) -> torch.Tensor | None:
    """One segment of a picture, a little larger than it is; None where all are too small or too large.

    Args:
        segments: (H, W), whole numbers: a renderer's ids, or `find_segments`.
        rng: the segment is drawn from it.
        grow: pixels it is grown by, at most.
    """
    numbers, counts = np.unique(segments.numpy(), return_counts=True)
    low, high = SEGMENT_SHARES
    fitting = numbers[(counts >= low * segments.numel()) & (counts <= high * segments.numel())]
    if not len(fitting):
        return None
    hole = segments.numpy() == rng.choice(fitting)  # (H, W)
    steps = int(rng.integers(grow + 1))
    if steps:
        hole = ndimage.binary_dilation(hole, iterations=steps)
    return torch.from_numpy(hole.astype(np.float32))[None, None]


def find_segments(image: torch.Tensor, scale: float = 150) -> torch.Tensor:
    """Segments of a picture (1, 3, H, W) without any network: (H, W), whole numbers.

    Source: Felzenszwalb and Huttenlocher, IJCV 2004, in place of the paper's SAM.
    """
    pixels = check.image(image)[0].permute(1, 2, 0).numpy()
    return torch.from_numpy(felzenszwalb(pixels, scale=scale, sigma=0.8, min_size=40).astype(np.int64))


def keypoints(image: torch.Tensor, count: int = 200) -> torch.Tensor:
    """Corners of a picture, strongest first: (N, 2), (x, y) in pixels; N at most ``count``.

    What the released code counts in each cell (there ORB's corners), in place of matches: a hundred times as fast.

    Source: Shi and Tomasi, CVPR 1994: the smaller eigenvalue of the gradients' covariance.
    """
    grey = to_grey(check.image(image))[0, 0].numpy()  # (H, W)
    dy, dx = np.gradient(grey)
    xx, yy, xy = (ndimage.gaussian_filter(v, 1.5) for v in (dx * dx, dy * dy, dx * dy))
    strength = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    peaks = (strength == ndimage.maximum_filter(strength, 5)) & (strength > 1e-4)
    y, x = np.nonzero(peaks)
    order = np.argsort(-strength[y, x], kind="stable")[:count]
    return torch.from_numpy(np.stack([x[order], y[order]], 1).astype(np.float32) + 0.5)
