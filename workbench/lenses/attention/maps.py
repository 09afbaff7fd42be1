"""From probabilities at the places of grids to maps of the picture's size."""

import math

import torch
from torch.nn import functional

from workbench.lenses.attention.calls import Grid
from workbench.lenses.attention.layouts import Span


def at_size(values: torch.Tensor, grid: Grid, size: Grid) -> torch.Tensor:
    """Values at the places of a grid (h, w), one after the other, as a picture (H, W), bilinear."""
    field = values.reshape(1, 1, *grid)  # (1, 1, h, w)
    return functional.interpolate(field, size, mode="bilinear", align_corners=False)[0, 0]


def stretched(values: torch.Tensor) -> torch.Tensor:
    """Divided by the maximum, so that the highest is 1; all zeros stay so."""
    return values / values.max().clamp_min(1e-30)


def grid_of(span: Span, size: Grid) -> Grid:
    """The grid of a picture's places; where nobody told, the one that has exactly the picture's proportions.

    Raises:
        ValueError: there is none.
    """
    if span.grid is not None:
        return span.grid
    places, (height, width) = span.stop - span.start, size
    h = math.isqrt(places * height // width)
    if h and h * width % height == 0 and h * (h * width // height) == places:
        return h, h * width // height
    raise ValueError(
        f"{places} places form no grid with the proportions of a picture of {size} (H, W). Give size=, the picture's "
        "own, in record_attention."
    )


def place_of(point: tuple[float, float], grid: Grid, size: Grid) -> int:
    """The place of a grid (h, w) that covers a point (x, y) of a picture of ``size`` (H, W)."""
    x, y = point
    row, column = int(y * grid[0] / size[0]), int(x * grid[1] / size[1])
    return min(row, grid[0] - 1) * grid[1] + min(column, grid[1] - 1)  # the far edge belongs to the last place


def at_places(mask: torch.Tensor, grid: Grid) -> torch.Tensor:
    """How much of each place of a grid a mask (1, 1, H, W) covers: (h * w,), 0 to 1."""
    return functional.interpolate(mask.float(), grid, mode="area").flatten()
