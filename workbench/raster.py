"""Shapes to pixels: which pixels a box, an ellipse, a polygon or a brush stroke covers.

Coordinates are continuous: pixel (column 3, row 5) covers x from 3 to 4 and y from 5 to 6, its middle is (3.5, 5.5).
A pixel belongs to a shape when its middle does, so the box (0, 0, W, H) is the whole picture. Each function gives
only the patch that its shape touches, so that a gesture on a large photograph costs what the gesture covers;
`workbench.mask` makes whole masks of them, the mask editor paints with them.
"""

import math

import numpy as np

from workbench import check

Patch = tuple[slice, slice, np.ndarray]
"""The part of a picture a shape touches: rows, columns, and coverage there, float32 (h, w) in [0, 1]."""


def box_patch(size, box) -> Patch:
    """The patch of a box (x0, y0, x1, y1)."""
    rows, columns = _window(size, check.box(box))
    return rows, columns, np.ones((rows.stop - rows.start, columns.stop - columns.start), np.float32)


def ellipse_patch(size, box) -> Patch:
    """The patch of the ellipse in a box (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = check.box(box)
    rows, columns = _window(size, (x0, y0, x1, y1))
    y, x = _middles(rows)[:, None], _middles(columns)[None]  # (h, 1), (1, w)
    radius = ((x - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2 + ((y - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2  # (h, w)
    return rows, columns, (radius <= 1).astype(np.float32)


def polygon_patch(size, points, rule: str = "even-odd") -> Patch:
    """The patch of a closed polygon, by scan lines: each side adds its winding number to all pixels on its right."""
    points = check.points(points, "points", at_least=3)
    rows, columns = _window(size, (*points.min(0), *points.max(0)))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    start, end = points, np.roll(points, -1, axis=0)  # (N, 2) each
    first = np.clip(np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5), rows.start, rows.stop).astype(int)
    last = np.clip(np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5), rows.start, rows.stop).astype(int)
    side = np.repeat(np.arange(len(points)), last - first)  # (K,) one entry for each line a side crosses
    line = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])  # (K,)
    (x0, y0), (x1, y1) = start[side].T, end[side].T
    crossing = x0 + (line + 0.5 - y0) * (x1 - x0) / (y1 - y0)  # (K,)
    column = np.clip(np.ceil(crossing - 0.5) - columns.start, 0, width).astype(int)
    winding = np.zeros((height, width + 1), np.int32)
    np.add.at(winding, (line.astype(int) - rows.start, column), np.where(y1 > y0, 1, -1))
    winding = winding.cumsum(1)[:, :width]  # (h, w)
    return rows, columns, ((winding % 2 == 1) if rule == "even-odd" else (winding != 0)).astype(np.float32)


def lasso_patch(size, points) -> Patch:
    """The patch of a free-hand path: what it goes round (non-zero rule) and its own line."""
    points = check.points(points)
    rows, columns, line = stroke_patch(size, np.vstack([points, points[:1]]), 0.75)
    if len(points) >= 3:
        inner_rows, inner_columns, area = polygon_patch(size, points, rule="non-zero")
        part = line[
            inner_rows.start - rows.start : inner_rows.stop - rows.start,
            inner_columns.start - columns.start : inner_columns.stop - columns.start,
        ]
        np.maximum(part, area, out=part)
    return rows, columns, line


def stroke_patch(size, points, radius: float, softness: float = 0.0) -> Patch:
    """The patch of a brush stroke.

    coverage = clip((radius - d) / (softness radius), 0, 1), d = distance to the path; softness 0: 1 where
    d <= radius.
    """
    points = check.points(points)
    radius = max(check.number(radius, "radius", 0.5), 0.7072)  # a dot on a pixel's corner still marks a pixel
    check.number(softness, "softness", 0, 1)
    rows, columns = _window(size, (*(points.min(0) - radius), *(points.max(0) + radius + 1)))
    coverage = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    ends = points[1:] if len(points) > 1 else points
    for start, end in zip(points, ends, strict=False):
        near = (*(np.minimum(start, end) - radius), *(np.maximum(start, end) + radius + 1))
        part_rows, part_columns = _window(size, near)
        distance = _to_segment(_middles(part_columns)[None], _middles(part_rows)[:, None], start, end)  # (h, w)
        if softness == 0:
            new = (distance <= radius).astype(np.float32)
        else:
            new = np.clip((radius - distance) / (softness * radius), 0, 1).astype(np.float32)
        part = coverage[
            part_rows.start - rows.start : part_rows.stop - rows.start,
            part_columns.start - columns.start : part_columns.stop - columns.start,
        ]
        np.maximum(part, new, out=part)
    return rows, columns, coverage


def _to_segment(x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance of each (x, y) to the straight line from start to end."""
    (ax, ay), (dx, dy) = start, end - start
    length = dx * dx + dy * dy
    t = 0.0 if length == 0 else np.clip(((x - ax) * dx + (y - ay) * dy) / length, 0, 1)
    return np.hypot(x - ax - t * dx, y - ay - t * dy)


def _window(size, box) -> tuple[slice, slice]:
    """Rows and columns whose pixel middles lie in the box, cut at the picture's frame; may be empty."""
    height, width = check.size(size)
    x0, y0, x1, y1 = box
    row0, row1 = (int(np.clip(math.ceil(v - 0.5), 0, height)) for v in (y0, y1))
    column0, column1 = (int(np.clip(math.ceil(v - 0.5), 0, width)) for v in (x0, x1))
    return slice(row0, row1), slice(column0, column1)


def _middles(pixels: slice) -> np.ndarray:
    return np.arange(pixels.start, pixels.stop) + 0.5
