"""Hair, fur, feathers, nets: many thin curves, each a slim three-sided tube.

A strand's normals are those of what it grows on (so that fur is lit as the body under it would be); its direction
and the way from root to tip are kept for shading, see `sprites`.
"""

from functools import lru_cache

import numpy as np

from workbench import check
from workbench.world.materials import clouds
from workbench.world.shapes import Mesh


@lru_cache(maxsize=16)
def make_strands(kind: str, size: tuple[float, float, float], values: tuple[float, ...]) -> Mesh:
    """The mesh of a bundle of strands.

    Args:
        kind: one of `STRANDS`.
        size: extent along x, y, z in metres of what it grows on, which stands on z = 0.
        values: (seed, count, length, thickness, ...) with lengths in metres; see the makers.

    Returns:
        A `Mesh` whose ``strand`` (V, 4) holds the direction along the strand and the way from root 0 to tip 1.
    """
    check.choice(kind, "kind", STRANDS)
    curves, outward, radius = STRANDS[kind](np.asarray(size, np.float64), *values)
    return _tubes(curves, outward, radius)


def _tubes(curves: np.ndarray, outward: np.ndarray, radius: np.ndarray) -> Mesh:
    """Curves (N, P, 3) with outward normals (N, 3) or (N, P, 3) and radii (N, P) -> three-sided tubes."""
    n, p, _ = curves.shape
    outward = np.broadcast_to(outward[:, None] if outward.ndim == 2 else outward, curves.shape)
    along = np.gradient(curves, axis=1)
    along /= np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9)
    side = np.cross(along, outward + 1e-3)
    side /= np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-9)
    up = np.cross(side, along)
    angle = 2 * np.pi * np.arange(3) / 3 + 0.5
    ring = np.cos(angle)[:, None] * side[:, :, None] + np.sin(angle)[:, None] * up[:, :, None]  # (N, P, 3, 3)
    vertices = curves[:, :, None] + ring * radius[:, :, None, None]
    normals = outward[:, :, None] + 0.35 * ring
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    way = np.broadcast_to(np.linspace(0, 1, p)[None, :, None, None], (n, p, 3, 1))
    strand = np.concatenate([np.broadcast_to(along[:, :, None], vertices.shape), way], -1)
    base = (np.arange(n)[:, None] * p + np.arange(p - 1)).reshape(-1, 1) * 3
    k, m = np.arange(3), (np.arange(3) + 1) % 3
    faces = np.concatenate(
        [np.stack([base + k, base + m, base + 3 + m], -1), np.stack([base + k, base + 3 + m, base + 3 + k], -1)]
    )
    return Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), faces.reshape(-1, 3), False, strand.reshape(-1, 4))


def _taper(n: int, p: int, thickness: float, rng) -> np.ndarray:
    """Radii: thick at the root, thin at the tip."""
    t = np.linspace(0, 1, p)
    return thickness / 2 * (1 - 0.85 * t**1.5) * rng.uniform(0.7, 1.2, (n, 1))


def _fur(size, seed=0, count=3500, length=0.1, thickness=0.003, droop=0.4, waves=0.3, low=-1.0):
    """Hair on an ellipsoid.

    ``droop``: how far gravity bends it; ``waves``: how wild it is; ``low``: none below this height (-1 to 1).
    """
    rng = np.random.default_rng(int(seed))
    n, p = int(count), 8
    z = rng.uniform(low, 1, n)
    turn = rng.uniform(0, 2 * np.pi, n)
    flat = np.sqrt(1 - z**2)
    on_ball = np.stack([flat * np.cos(turn), flat * np.sin(turn), z], -1)
    roots = on_ball * size / 2 + (0, 0, size[2] / 2)
    normal = on_ball / size
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    field = [
        clouds(*(on_ball.T * 3.5 + 10), seed=int(seed) + 7 * k, octaves=2) - 0.5 for k in range(3)
    ]  # locks of hair
    comb = np.stack(field, -1) * 2.6 * waves + rng.normal(size=(n, 3)) * 0.22 * waves
    own = length * rng.uniform(0.65, 1.1, n) * (1 + 0.5 * (field[0] + field[1]))
    t = np.linspace(0, 1, p)[None, :, None]
    start = normal[:, None] + 0.6 * comb[:, None] * t
    bend = np.array([0.0, 0.0, -1.0]) * droop * t**2 * 1.3
    wiggle = 0.12 * waves * np.sin(6.0 * t + rng.uniform(0, 6.28, (n, 1, 1))) * rng.normal(size=(n, 1, 3))
    curves = roots[:, None] + own[:, None, None] * (t * start + t * bend + wiggle * t)
    return curves, normal, _taper(n, p, thickness, rng)


def _feather(size, seed=0, count=420, curve=0.2, thickness=0.004):
    """A feather standing on its quill, in the plane y = 0; ``curve``: how far its tip leans over."""
    rng = np.random.default_rng(int(seed))
    width, _, height = size
    n, p = int(count) // 2 * 2, 9
    foot = np.repeat(np.linspace(0.16, 0.985, n // 2), 2) + rng.uniform(-0.002, 0.002, n)
    side = np.tile([-1.0, 1.0], n // 2)
    splits = clouds(foot * 14, side * 3, seed=int(seed), octaves=2)
    reach = width / 2 * np.sin(np.pi * np.clip(foot, 0, 1) ** 0.75) ** 0.6 * (0.93 + 0.1 * rng.uniform(size=n))
    down = np.clip((0.34 - foot) * 6, 0, 1)  # the soft part below
    angle = np.radians(62 - 44 * foot) + 0.3 * (splits - 0.5) + down * rng.normal(size=n) * 0.35
    t = np.linspace(0, 1, p)[None, :]
    x = side[:, None] * reach[:, None] * t * np.sin(angle)[:, None] * 1.15
    up = reach[:, None] * (t * np.cos(angle)[:, None] + 0.45 * t**2)
    curl = down[:, None] * 0.05 * np.sin(5 * t + rng.uniform(0, 6.28, (n, 1)))
    y = 0.05 * width * np.sin(np.pi * t) + down[:, None] * rng.normal(size=(n, 1)) * 0.06 * t
    z = foot[:, None] * height + up + curl
    lean = curve * height * (z / height) ** 2
    barbs = np.stack([x + lean, y, z], -1)
    shaft_z = np.linspace(0, 1, p) * height
    shaft = np.stack([curve * height * (shaft_z / height) ** 2, 0 * shaft_z - 0.004, shaft_z], -1)[None]
    radius = np.concatenate([_taper(n, p, thickness, rng), thickness * 2 * (1 - 0.8 * np.linspace(0, 1, p))[None]])
    outward = np.concatenate([np.stack([0.5 * side, -np.ones(n), 0 * side], -1), [[0.0, -1.0, 0.0]]])
    return np.concatenate([barbs, shaft]), outward / np.linalg.norm(outward, axis=1, keepdims=True), radius


def _clock(size, seed=0, count=150, tuft=11, thickness=0.0025):
    """A dandelion clock: stalks out of the middle of a ball, each with a tuft of ``tuft`` hairs at its end."""
    rng = np.random.default_rng(int(seed))
    n, m, p = int(count), int(tuft), 5
    k = np.arange(n) + 0.5
    z = 1 - 2 * k / n
    turn = np.pi * (1 + 5**0.5) * k
    out = np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], -1)
    out += rng.normal(size=out.shape) * 0.04
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    centre, r = np.array([0, 0, size[2] / 2]), size / 2
    t = np.linspace(0, 1, p)[None, :, None]
    stalks = centre + out[:, None] * r * (0.12 + 0.6 * t)
    spread = rng.normal(size=(n, m, 3))
    spread -= (spread * out[:, None]).sum(-1, keepdims=True) * out[:, None]
    spread /= np.linalg.norm(spread, axis=-1, keepdims=True)
    ways = (out[:, None] * 0.75 + spread * rng.uniform(0.55, 0.85, (n, m, 1))).reshape(-1, 1, 3)
    ends = np.repeat(stalks[:, -1], m, 0)[:, None]
    hairs = ends + ways * t * r * 0.27
    outward = np.concatenate([out, np.repeat(out, m, 0)])
    radius = np.full((n + n * m, p), thickness / 2) * (1 - 0.6 * t[..., 0])
    return np.concatenate([stalks, hairs]), outward, radius


def _net(size, seed=0, count=11, sag=0.12, thickness=0.012):
    """A hanging net of ``count`` by ``count`` slanting meshes; ``sag``: how much it hangs through."""
    rng = np.random.default_rng(int(seed))
    width, deep, height = size
    n, p = int(count), 60
    lines = []
    u = np.linspace(0, 1, p)
    for k in range(-n, n):
        for slope in (1, -1):
            a = k / n + u
            if slope < 0:
                a = 1 - a
            lines.append(np.stack([a, u], -1))
    lines = np.array(lines)  # (4 n, P, 2)
    a, b = lines[..., 0], lines[..., 1]
    inside = (a >= -1e-9) & (a <= 1 + 1e-9)
    wave = clouds(a * 3 + 9, b * 3 + 9, seed=int(seed), octaves=2) - 0.5
    x = (a - 0.5) * width * (1 - sag * np.sin(np.pi * b) * 1.2)
    y = deep * wave
    z = height * (b - sag * np.sin(np.pi * np.clip(a, 0, 1)) * (1 - b)) + 0.02 * wave
    curves = np.stack([x, y, z], -1)
    radius = np.where(inside, thickness / 2, 0.0) * rng.uniform(0.9, 1.1, (len(curves), 1))
    curves = np.where(inside[..., None], curves, np.array([0.0, 0.0, height * 0.5]))
    keep = inside.sum(1) > 3
    curves, radius, inside = curves[keep], radius[keep], inside[keep]
    for c, i in zip(curves, inside, strict=True):  # points outside wait at the nearest end
        c[~i] = (
            c[np.flatnonzero(i)[np.abs(np.flatnonzero(i)[None] - np.flatnonzero(~i)[:, None]).argmin(1)]]
            if (~i).any()
            else c[~i]
        )
    return curves, np.tile([0.0, -1.0, 0.0], (len(curves), 1)), radius


def _stem(size, seed=0, count=1, lean=0.15, thickness=0.012):
    """One bent stem."""
    t = np.linspace(0, 1, 16)
    curve = np.stack([lean * size[2] * t**2, 0 * t, size[2] * t], -1)[None]
    return curve, np.array([[0.0, -1.0, 0.0]]), thickness / 2 * (1 - 0.6 * t)[None]


STRANDS = {"fur": _fur, "feather": _feather, "clock": _clock, "net": _net, "stem": _stem}
"""Kind -> maker of curves."""
