"""Solid shapes as triangle meshes, made in code.

Every shape stands on z = 0 in the box [-0.5, 0.5] x [-0.5, 0.5] x [0, 1] and is then scaled to its part's size.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workbench import check

SEGMENTS = 72
"""How many flat sides a round shape has."""


@dataclass(frozen=True)
class Mesh:
    """Triangles.

    Args:
        vertices: (V, 3) in metres.
        normals: (V, 3), unit length, outwards.
        faces: (F, 3) indices.
        round: whether patterns are wrapped about the z axis (else laid on from six sides).
        strand: (V, 4) for hair and the like: direction along it, and the way from root 0 to tip 1.
    """

    vertices: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    round: bool
    strand: np.ndarray | None = None


def make_shape(shape: str, size, values: tuple[float, ...] = ()) -> Mesh:
    """The mesh of a shape at its size.

    Args:
        shape: one of `SHAPES`.
        size: extent along x, y, z in metres.
        values: extra numbers: "ring" takes (tube / radius), "lathe" takes r0, z0, r1, z1, ... of its outline
            with r in [0, 0.5] and z in [0, 1], "opening" x0, x1, z0, z1 of its hole, "leaf" how much it droops.

    Raises:
        ValueError: no such shape, or a size that is not positive.
    """
    check.choice(shape, "shape", SHAPES)
    size = np.asarray(size, np.float64)
    if size.shape != (3,) or not (size > 0).all():
        raise ValueError(f"size is {size.tolist()}, expected three lengths above 0, in metres.")
    mesh = _unit(shape, tuple(values))
    normals = mesh.normals / size
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh(mesh.vertices * size, normals, mesh.faces, mesh.round)


@lru_cache(maxsize=256)
def _unit(shape: str, values: tuple[float, ...]) -> Mesh:
    return SHAPES[shape](*values)


def _flat(polygons) -> Mesh:
    """Flat polygons (each a list of corners, counter-clockwise seen from outside)."""
    vertices, normals, faces = [], [], []
    for corners in polygons:
        corners = np.asarray(corners, np.float64)
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        if np.linalg.norm(normal) < 1e-9:  # a hole that reaches the edge leaves nothing there
            continue
        start = len(vertices)
        vertices += list(corners)
        normals += [normal / np.linalg.norm(normal)] * len(corners)
        faces += [(start, start + i, start + i + 1) for i in range(1, len(corners) - 1)]
    return Mesh(np.array(vertices), np.array(normals), np.array(faces), False)


def _box() -> Mesh:
    x, y, z = np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [0.0, 1.0], indexing="ij")
    c = np.stack([x, y, z], -1)  # (2, 2, 2, 3)
    sides = [
        (c[0, 0, 0], c[0, 1, 0], c[1, 1, 0], c[1, 0, 0]),  # bottom
        (c[0, 0, 1], c[1, 0, 1], c[1, 1, 1], c[0, 1, 1]),  # top
        (c[0, 0, 0], c[1, 0, 0], c[1, 0, 1], c[0, 0, 1]),  # front
        (c[1, 1, 0], c[0, 1, 0], c[0, 1, 1], c[1, 1, 1]),  # back
        (c[0, 1, 0], c[0, 0, 0], c[0, 0, 1], c[0, 1, 1]),  # left
        (c[1, 0, 0], c[1, 1, 0], c[1, 1, 1], c[1, 0, 1]),  # right
    ]
    return _flat(sides)


def _opening(x0: float = -0.2, x1: float = 0.2, z0: float = 0.35, z1: float = 0.8) -> Mesh:
    """A box with a rectangular hole from front to back (through y), from x0 to x1 and z0 to z1."""
    sides = []
    for y, flip in ((-0.5, False), (0.5, True)):
        for left, right, low, high in ((-0.5, x0, 0, 1), (x1, 0.5, 0, 1), (x0, x1, 0, z0), (x0, x1, z1, 1)):
            quad = [(left, y, low), (right, y, low), (right, y, high), (left, y, high)]
            sides.append(quad[::-1] if flip else quad)
    hole = [(x0, z0), (x1, z0), (x1, z1), (x0, z1)]
    for (ax, az), (bx, bz) in zip(hole, hole[1:] + hole[:1], strict=True):
        sides.append([(bx, -0.5, bz), (bx, 0.5, bz), (ax, 0.5, az), (ax, -0.5, az)])
    edge = [(-0.5, 0), (0.5, 0), (0.5, 1), (-0.5, 1)]
    for (ax, az), (bx, bz) in zip(edge, edge[1:] + edge[:1], strict=True):
        sides.append([(ax, -0.5, az), (ax, 0.5, az), (bx, 0.5, bz), (bx, -0.5, bz)])
    return _flat(sides)


def _prism(outline, top_scale: float = 1.0) -> Mesh:
    """An outline (N, 2), counter-clockwise and star-shaped about 0, pulled up from z = 0 to 1."""
    outline = np.asarray(outline, np.float64)
    low = np.column_stack([outline, np.zeros(len(outline))])
    high = np.column_stack([outline * top_scale, np.ones(len(outline))])
    sides = [(low[i], low[i - len(low) + 1], high[i - len(low) + 1], high[i]) for i in range(len(low))]
    middle, lid = np.zeros(3), np.array([0.0, 0.0, 1.0])
    floor = [(middle, low[i - len(low) + 1], low[i]) for i in range(len(low))]
    roof = [(lid, high[i], high[i - len(low) + 1]) for i in range(len(low))] if top_scale > 0 else []
    sides = [s[:3] for s in sides] if top_scale == 0 else sides
    return _flat(sides + floor + roof)


def _polygon(n: int) -> np.ndarray:
    angle = 2 * np.pi * (np.arange(n) + 0.5) / n
    points = np.column_stack([np.cos(angle), np.sin(angle)])
    return points / (2 * np.abs(points).max(0))


def _star() -> np.ndarray:
    angle = np.pi / 2 + np.pi * np.arange(10) / 5
    radius = np.where(np.arange(10) % 2 == 0, 0.5, 0.22)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def _lathe(outline, sharp: float = 35.0) -> Mesh:
    """A profile (N, 2) of (radius, z), from the bottom up, turned about the z axis.

    Corners of more than ``sharp`` degrees stay edges.
    """
    outline = np.asarray(outline, np.float64)
    along = np.diff(outline, axis=0)
    length = np.linalg.norm(along, axis=1)
    outline, along = outline[np.r_[True, length > 1e-9]], along[length > 1e-9]
    out = np.column_stack([along[:, 1], -along[:, 0]])
    out /= np.linalg.norm(out, axis=1, keepdims=True)  # (N - 1, 2) normal of each piece
    first, last = out.copy(), out.copy()
    smooth = (out[:-1] * out[1:]).sum(1) > np.cos(np.radians(sharp))
    joint = out[:-1] + out[1:]
    joint /= np.maximum(np.linalg.norm(joint, axis=1, keepdims=True), 1e-9)
    last[:-1][smooth], first[1:][smooth] = joint[smooth], joint[smooth]
    profile = np.stack([outline[:-1], outline[1:]], 1).reshape(-1, 2)
    normal = np.stack([first, last], 1).reshape(-1, 2)
    closed = np.linalg.norm(outline[0] - outline[-1]) < 1e-9
    for end, piece in ((0, 0), (-1, -1)):  # poles of round shapes point straight up or down
        if not closed and outline[end, 0] < 1e-9 and abs(out[piece, 1]) > 0.9:
            normal[end] = (0, np.sign(out[piece, 1]))
    angle = 2 * np.pi * np.arange(SEGMENTS + 1) / SEGMENTS
    cos, sin = np.cos(angle), np.sin(angle)
    cos[-1], sin[-1] = cos[0], sin[0]

    def turned(values):
        spread = np.stack([values[:, :1] * cos, values[:, :1] * sin, values[:, 1:] + 0 * cos], -1)
        return spread.reshape(-1, 3)  # (2 (N - 1) (S + 1), 3)

    row = SEGMENTS + 1
    start = (2 * row * np.arange(len(along)))[:, None] + np.arange(SEGMENTS)  # (N - 1, S)
    quads = np.stack([start, start + 1, start + row + 1, start + row], -1).reshape(-1, 4)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    vertices = turned(profile)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return Mesh(vertices, turned(normal), faces[area > 1e-10], True)


def _ball() -> Mesh:
    angle = np.linspace(-np.pi / 2, np.pi / 2, SEGMENTS // 2 + 1)
    return _lathe(np.column_stack([np.cos(angle).clip(0) / 2, np.sin(angle) / 2 + 0.5]))


def _ring(tube: float = 0.35) -> Mesh:
    """A torus lying flat; ``tube``: thickness of the tube, of the whole radius."""
    angle = np.linspace(-np.pi / 2, 1.5 * np.pi, 37)
    r = tube / 4
    return _lathe(np.column_stack([0.5 - r + r * np.cos(angle), 0.5 + 0.5 * np.sin(angle)]))


def _spline(points, n: int = 40) -> np.ndarray:
    """A smooth curve through (r, z) points (Catmull-Rom)."""
    p = np.asarray(points, np.float64)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    t = np.linspace(0, len(p) - 3 - 1e-9, n)
    i, f = t.astype(int), (t % 1)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    curve = 0.5 * (2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - a - 3 * c + d) * f**3)
    return np.column_stack([curve[:, 0].clip(0, 0.5), curve[:, 1]])


def _vase() -> Mesh:
    outside = _spline([(0.28, 0), (0.46, 0.22), (0.5, 0.42), (0.34, 0.68), (0.2, 0.84), (0.3, 1.0)])
    inside = [(0.26, 1.0), (0.16, 0.84), (0.16, 0.6), (0, 0.6)]
    return _lathe(np.vstack([[(0, 0)], outside, inside]))


def _bowl() -> Mesh:
    outside = _spline([(0.2, 0), (0.36, 0.25), (0.46, 0.6), (0.5, 1.0)])
    inside = _spline([(0.46, 1.0), (0.42, 0.6), (0.3, 0.25), (0.0, 0.12)])
    return _lathe(np.vstack([[(0, 0)], outside, inside]))


def _cup() -> Mesh:
    return _lathe([(0, 0), (0.4, 0), (0.48, 0.1), (0.5, 1), (0.44, 1), (0.42, 0.12), (0, 0.1)])


def _pin() -> Mesh:
    """A skittle."""
    return _lathe(_spline([(0, 0), (0.36, 0.01), (0.5, 0.3), (0.28, 0.62), (0.26, 0.75), (0.34, 0.88), (0, 1)], 48))


def _shade() -> Mesh:
    """A lamp's shade: a cone cut off, hollow below."""
    return _lathe([(0, 0.97), (0.28, 0.97), (0.48, 0), (0.5, 0), (0.3, 1), (0, 1)])


def _capsule() -> Mesh:
    t = np.linspace(-np.pi / 2, np.pi / 2, 25)
    z = np.where(t < 0, 0.3 + 0.3 * np.sin(t), 0.7 + 0.3 * np.sin(t))
    return _lathe(np.column_stack([0.5 * np.cos(t).clip(0), z]))


def _lathe_values(*values: float) -> Mesh:
    return _lathe(np.asarray(values, np.float64).reshape(-1, 2))


def _leaf(*values: float) -> Mesh:
    """A thin bent blade, foot at y = 0, tip at y = 1; ``values``: how much it droops."""
    droop = values[0] if values else 0.3
    rows, columns = 14, 6
    t, s = np.meshgrid(np.linspace(0, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    width = 0.48 * np.sin(np.pi * t**0.8) ** 0.8 + 0.02 * (1 - t)
    x, y = s * width, t * (1 - 0.15 * droop * t)
    z = 0.5 + 0.12 * s**2 * np.sin(np.pi * t) - droop * t**2 * 0.5 + droop * t * 0.35
    top = np.stack([x, y, z], -1)  # (rows, columns, 3)
    normal = np.cross(np.gradient(top, axis=1), np.gradient(top, axis=0))
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (i * columns + j).ravel()
    faces = np.concatenate(
        [np.column_stack([a, a + 1, a + columns + 1]), np.column_stack([a, a + columns + 1, a + columns])]
    )
    return Mesh(top.reshape(-1, 3), normal.reshape(-1, 3), faces, False)


SHAPES = {
    "box": _box,
    "opening": _opening,
    "ball": _ball,
    "cylinder": lambda: _lathe([(0, 0), (0.47, 0), (0.5, 0.02), (0.5, 0.98), (0.47, 1), (0, 1)], 50),
    "cone": lambda: _lathe([(0, 0), (0.5, 0), (0, 1)]),
    "ring": _ring,
    "pyramid": lambda: _prism(_polygon(4), 0),
    "prism": lambda: _prism(_polygon(6)),
    "star": lambda: _prism(_star()),
    "frustum": lambda: _prism(_polygon(4), 0.6),
    "vase": _vase,
    "bowl": _bowl,
    "cup": _cup,
    "pin": _pin,
    "shade": _shade,
    "capsule": _capsule,
    "lathe": _lathe_values,
    "leaf": _leaf,
}
"""Name -> maker of the unit shape."""
