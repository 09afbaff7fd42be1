"""What the editor lays over the photograph: arrays in, RGBA arrays out, at the size of the canvas."""

import math

import numpy as np
import torch

from workbench import mask, plot
from workbench.widgets.mask_editor.gestures import EMPTY, FULL, UNKNOWN
from workbench.widgets.mask_editor.viewport import Viewport

HOLE = tuple(round(255 * c) for c in plot.TINT)
UNKNOWN_BAND, FOREGROUND = (245, 166, 35), (0, 114, 178)  # apart for colour-blind eyes too
NEAREST_CELL, ANY_CELL, GRID = (255, 214, 10, 150), (20, 190, 220, 110), (255, 255, 255, 70)
OPACITY = 0.55
FACTOR = 8
"""Pixels a cell of the latent grid is wide and high."""


def tint(pixels: np.ndarray, mode: str, viewport: Viewport, box) -> np.ndarray:
    """The mask (or trimap) as a colour film over the canvas box (x0, y0, x1, y1): RGBA uint8 (h, w, 4)."""
    if mode == "mask":
        return _film(HOLE, _shown(pixels, viewport, box))
    foreground, unknown = (_shown(pixels, viewport, box, level) for level in (FULL, UNKNOWN))
    film = _film(FOREGROUND, foreground)
    film[unknown > foreground] = _film(UNKNOWN_BAND, unknown)[unknown > foreground]
    return film


def latent_cells(pixels: np.ndarray, box=None) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Which cells of the latent grid a model takes for hole.

    Args:
        pixels: (H, W). Where a side is no multiple of 8, kept pixels are added on the right and at the bottom.
        box: (x0, y0, x1, y1) of the picture; None: all of it.

    Returns:
        bool (h, w) by "nearest", bool (h, w) by "any" (see `wb.mask.to_latent`), and the row and column of the
        first cell, for the cells that touch the box.
    """
    x0, y0, x1, y1 = box or (0, 0, *pixels.shape[::-1])
    row, column = y0 // FACTOR, x0 // FACTOR
    rows, columns = math.ceil(y1 / FACTOR) - row, math.ceil(x1 / FACTOR) - column
    hole = torch.zeros(1, 1, rows * FACTOR, columns * FACTOR)
    part = pixels[row * FACTOR : (row + rows) * FACTOR, column * FACTOR : (column + columns) * FACTOR] >= UNKNOWN
    hole[0, 0, : part.shape[0], : part.shape[1]] = torch.from_numpy(part)
    nearest, any_ = (mask.to_latent(hole, how, FACTOR)[0, 0].bool().numpy() for how in ("nearest", "any"))
    return nearest, any_, (row, column)


def whole_cells(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box widened until it cuts no cell of the latent grid, except at the frame of a picture of ``size`` (H, W)."""
    start = (v // FACTOR * FACTOR for v in box[:2])
    end = (min(math.ceil(v / FACTOR) * FACTOR, length) for v, length in zip(box[2:], size[::-1], strict=True))
    return *start, *end


def latent_film(pixels: np.ndarray, viewport: Viewport, box) -> np.ndarray:
    """The latent mask as cells over the canvas box: RGBA uint8 (h, w, 4).

    Yellow: hole for a model that shrinks the mask by "nearest". Blue: marked by "any" only.
    """
    x, y = _under(viewport, box)
    seen = (max(0, x[0]), max(0, y[0]), min(pixels.shape[1], x[-1] + 1), min(pixels.shape[0], y[-1] + 1))
    nearest, any_, (row, column) = latent_cells(pixels, seen)
    colours = np.zeros((*nearest.shape, 4), np.uint8)
    colours[any_], colours[nearest] = ANY_CELL, NEAREST_CELL
    rows = np.clip(y // FACTOR - row, 0, nearest.shape[0] - 1)
    columns = np.clip(x // FACTOR - column, 0, nearest.shape[1] - 1)
    film = colours[rows][:, columns]  # (h, w, 4)
    if viewport.scale * FACTOR >= 6:  # finer lines would only be grey
        for lines, axis in ((y // FACTOR, 0), (x // FACTOR, 1)):
            film[(slice(None),) * axis + (np.flatnonzero(np.diff(lines, prepend=lines[0])),)] = GRID
    return film


def _film(colour: tuple[int, int, int], weight: np.ndarray) -> np.ndarray:
    """One colour, as opaque as the weight (h, w) in [0, 255] says: RGBA uint8 (h, w, 4)."""
    film = np.empty((*weight.shape, 4), np.uint8)
    film[..., :3] = colour
    film[..., 3] = np.rint(weight * OPACITY)
    return film


def _shown(pixels: np.ndarray, viewport: Viewport, box, level: int | None = None) -> np.ndarray:
    """The pixels (or where they equal ``level``, as 0 and 255) as seen on a canvas box: (h, w) in [0, 255].

    Enlarged, a canvas pixel shows the one picture pixel under it; made smaller, the mean of all under it, so that
    the finest stroke of a large photograph stays to be seen.
    """
    if viewport.scale >= 1:
        x, y = _under(viewport, box)
        shown = pixels[np.clip(y, 0, pixels.shape[0] - 1)][:, np.clip(x, 0, pixels.shape[1] - 1)]
        return shown if level is None else np.where(shown == level, np.uint8(FULL), np.uint8(EMPTY))
    columns, rows = (  # where each canvas column and row begins in the picture, and where the last one ends
        np.clip(np.floor((np.arange(start, stop + 1) - offset) / viewport.scale).astype(int), 0, length)
        for start, stop, offset, length in zip(box[:2], box[2:], viewport.offset, pixels.shape[::-1], strict=True)
    )
    part = pixels[rows[0] : rows[-1], columns[0] : columns[-1]]
    part = part if level is None else np.where(part == level, np.uint8(FULL), np.uint8(EMPTY))
    heights, widths = np.maximum(np.diff(rows), 1), np.maximum(np.diff(columns), 1)
    wide_enough = np.uint16 if heights.max() <= 257 else np.uint32  # 257 x 255 still fits into 16 bits
    total = np.add.reduceat(part, rows[:-1] - rows[0], axis=0, dtype=wide_enough)  # (h, W)
    total = np.add.reduceat(total, columns[:-1] - columns[0], axis=1, dtype=np.uint32)  # (h, w)
    return total / (heights[:, None] * widths[None])


def _under(viewport: Viewport, box) -> tuple[np.ndarray, np.ndarray]:
    """The picture column under the middle of each canvas column of the box, and the row under each row."""
    return tuple(
        np.floor((np.arange(start, stop) + 0.5 - offset) / viewport.scale).astype(int)
        for start, stop, offset in zip(box[:2], box[2:], viewport.offset, strict=True)
    )
