"""Patterns: the colour of a surface at any point of it, computed, so that they never blur or run out.

A pattern sees points in the coordinates of its part, so it moves with the object.
"""

import numpy as np

from workbench import check
from workbench.world.scene import Material

COLOURS = {
    "red": (0.78, 0.16, 0.13),
    "orange": (0.90, 0.50, 0.13),
    "yellow": (0.93, 0.78, 0.22),
    "green": (0.25, 0.53, 0.25),
    "turquoise": (0.16, 0.60, 0.60),
    "blue": (0.17, 0.34, 0.72),
    "purple": (0.48, 0.26, 0.60),
    "pink": (0.90, 0.52, 0.62),
    "beige": (0.85, 0.76, 0.62),
    "brown": (0.45, 0.29, 0.18),
    "white": (0.92, 0.91, 0.88),
    "grey": (0.52, 0.53, 0.55),
    "black": (0.11, 0.11, 0.12),
}
"""The colour words of captions, with their middle value in sRGB."""


def to_linear(colour) -> np.ndarray:
    """sRGB in [0, 1] -> linear light, float32."""
    c = np.asarray(colour, np.float32)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_srgb(light) -> np.ndarray:
    """Linear light in [0, 1] -> sRGB, float32."""
    c = np.clip(np.asarray(light, np.float32), 0, 1)
    return np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055).astype(np.float32)


def colour_word(colour) -> str:
    """The word of `COLOURS` nearest to a colour (by its hue first, as people name colours)."""
    r, g, b = (float(v) for v in colour)
    high, low = max(r, g, b), min(r, g, b)
    if high - low < 0.10 + 0.08 * high:
        return "black" if high < 0.25 else "white" if high > 0.78 else "grey"
    if high == r:
        hue = ((g - b) / (high - low)) % 6
    else:
        hue = (b - r) / (high - low) + 2 if high == g else (r - g) / (high - low) + 4
    hue *= 60
    if 18 < hue < 62 and high > 0.74 and (high - low) / high < 0.36:
        return "beige"
    if (8 < hue < 50 and high < 0.62) or (hue <= 50 and high - low < 0.3 and high < 0.75):
        return "brown"
    if (hue > 330 or hue < 12) and low > 0.35:
        return "pink"
    for limit, word in ((18, "red"), (43, "orange"), (68, "yellow"), (160, "green"), (200, "turquoise"), (256, "blue")):
        if hue < limit:
            return word
    return "purple" if hue < 310 else "pink" if hue < 338 else "red"


def albedo(material: Material, points: np.ndarray, normals: np.ndarray, wrap: float = 0.0) -> np.ndarray:
    """The colour of a surface.

    Args:
        material: what it is made of.
        points: (N, 3) in the part's coordinates, metres.
        normals: (N, 3) there.
        wrap: for round shapes their radius in metres: the pattern goes round the z axis a whole number of
            times; 0 lays the pattern on from six sides.

    Returns:
        (N, 3) float32, linear light, [0, 1].
    """
    check.choice(material.pattern, "material.pattern", PATTERNS)
    p = np.asarray(points, np.float32)
    n = np.asarray(normals, np.float32)
    u, v = _box_mapped(p, n)
    if wrap > 0:
        side = np.abs(n[:, 2]) < 0.999  # lids are laid on from above
        around, up = _wrapped(p, wrap, material.scale)
        u, v = np.where(side, around, u), np.where(side, up, v)
    return PATTERNS[material.pattern](material, u / material.scale, v / material.scale, p / material.scale)


def _wrapped(p, radius: float, scale: float):
    turns = max(1, round(2 * np.pi * radius / (2 * scale))) * 2 * scale  # an even number of repeats closes any pattern
    return np.arctan2(p[:, 1], p[:, 0]) / np.float32(2 * np.pi) * np.float32(turns), p[:, 2]


def _box_mapped(p, n):
    """u, v of the face a normal points to: seen from outside u runs right and v up."""
    axis = np.abs(n).argmax(1)
    u = np.where(axis == 0, p[:, 1], p[:, 0])
    v = np.where(axis == 2, p[:, 1], p[:, 2])
    return u, v


# Noise


def _hash(*cells, seed: int) -> np.ndarray:
    """Whole numbers -> pseudo-random numbers in [0, 1), the same on every machine."""
    h = np.full(np.broadcast(*cells).shape, (seed * 2654435761 + 97) & 0xFFFFFFFF, np.uint32)
    for cell, prime in zip(cells, (73856093, 19349663, 83492791), strict=False):
        h = (h ^ (cell.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32) * np.uint32(prime)) * np.uint32(0x9E3779B1)
        h ^= h >> np.uint32(15)
    h = h * np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    return (h >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def value_noise(*coordinates, seed: int = 0) -> np.ndarray:
    """Smooth noise in [0, 1] over two or three coordinates: random values on a grid of step 1, blended."""
    whole = [np.floor(c) for c in coordinates]
    blend = [(c - w) for c, w in zip(coordinates, whole, strict=True)]
    blend = [f * f * (3 - 2 * f) for f in blend]
    cells = [w.astype(np.int64) for w in whole]
    total = np.zeros_like(blend[0])
    for corner in range(2 ** len(cells)):
        bits = [(corner >> i) & 1 for i in range(len(cells))]
        weight = np.ones_like(total)
        for f, bit in zip(blend, bits, strict=True):
            weight = weight * (f if bit else 1 - f)
        total += weight * _hash(*(c + b for c, b in zip(cells, bits, strict=True)), seed=seed)
    return total


def clouds(*coordinates, seed: int = 0, octaves: int = 4) -> np.ndarray:
    """Several octaves of `value_noise`, each twice as fine and half as strong; about [0, 1], middle 0.5."""
    total, weight = np.zeros_like(coordinates[0]), 0.0
    for i in range(octaves):
        total += value_noise(*(c * np.float32(2**i) for c in coordinates), seed=seed + 101 * i) * 0.5**i
        weight += 0.5**i
    return total / weight


# Patterns: (material, u, v, p) with coordinates in units of material.scale -> linear colours (N, 3)


def _mix(material: Material, amount) -> np.ndarray:
    """0 gives the main colour, 1 the second one."""
    a, b = to_linear(material.colour), to_linear(material.second)
    return a + (b - a) * np.clip(np.asarray(amount, np.float32), 0, 1)[:, None]


def _shade(colour, factor) -> np.ndarray:
    return np.clip(colour * np.asarray(factor, np.float32)[:, None], 0, 1)


def _plain(m, u, v, p):
    return np.broadcast_to(to_linear(m.colour), (len(u), 3)).copy()


def _checker(m, u, v, p):
    return _mix(m, (np.floor(u) + np.floor(v)) % 2)


def _striped(m, u, v, p):
    along = v if m.seed % 2 == 0 else u
    return _mix(m, np.floor(along * 2) % 2)


def _dotted(m, u, v, p):
    row = np.floor(v)
    x = u + 0.5 * (row % 2)
    return _mix(m, np.hypot(x - np.floor(x) - 0.5, v - row - 0.5) < 0.3)


def _brick(m, u, v, p):
    """Bricks of ``scale`` by a third of it, running bond."""
    row = np.floor(v * 3)
    x = u + 0.5 * (row % 2) + 0.03 * _hash(row, row * 0, seed=m.seed)
    column = np.floor(x)
    fx, fy = x - column, v * 3 - row
    ragged = 0.02 * value_noise(u * 14, v * 14, seed=m.seed)
    gap = (fx < 0.035 + ragged) | (fy < 0.11 + 2 * ragged)
    tone = 0.72 + 0.5 * _hash(column, row, seed=m.seed) + 0.25 * (clouds(u * 5, v * 5, seed=m.seed) - 0.5)
    dark = _hash(column, row, seed=m.seed + 7) > 0.9
    brick = _shade(_plain(m, u, v, p), np.where(dark, 0.6, tone))
    mortar = _shade(np.broadcast_to(to_linear(m.second), brick.shape), 0.85 + 0.3 * value_noise(u * 20, v * 20, seed=3))
    return np.where(gap[:, None], mortar, brick)


def _tiled(m, u, v, p):
    column, row = np.floor(u), np.floor(v)
    fx, fy = u - column, v - row
    gap = (fx < 0.04) | (fy < 0.04)
    tone = 0.88 + 0.2 * _hash(column, row, seed=m.seed) + 0.12 * (clouds(u * 2, v * 2, seed=m.seed) - 0.5)
    return np.where(gap[:, None], to_linear(m.second), _shade(_plain(m, u, v, p), tone))


def _wooden(m, u, v, p):
    """Planks along u, ``scale`` wide, each with its own tone and grain."""
    row = np.floor(v)
    shift = 7.3 * _hash(row, row * 0, seed=m.seed)
    plank = np.floor((u + shift * 3) / 6)
    fy, fx = v - row, (u + shift * 3) / 6 - plank
    own = _hash(row, plank, seed=m.seed)
    rings = clouds(u * 0.35 + 31 * own, (v + 17 * own) * 3.2, seed=m.seed, octaves=3)
    grain = 0.5 + 0.5 * np.sin(2 * np.pi * (rings * 5 + fy * 0.7))
    fine = value_noise(u * 2.5 + 50 * own, v * 42, seed=m.seed + 5)
    wood = _mix(m, 0.12 + 0.3 * grain + 0.25 * fine)
    seam = (fy < 0.025) | (fx < 0.006)
    return _shade(wood, np.where(seam, 0.4, 0.8 + 0.34 * own))


def _marbled(m, u, v, p):
    x, y, z = p[:, 0], p[:, 1], p[:, 2]
    bend = clouds(x, y, z, seed=m.seed)
    veins = np.abs(np.sin(2.2 * x + 1.4 * y + 1.8 * z + 7 * bend))
    return _mix(m, (1 - veins) ** 3 * 0.9 + 0.25 * bend)


def _mottled(m, u, v, p):
    """Noise: soft patches of both colours."""
    n = clouds(*(p[:, i] for i in range(3)), seed=m.seed)
    return _mix(m, np.clip((n - 0.36) * 3.6, 0, 1))


def _plaster(m, u, v, p):
    """A painted wall: hardly any pattern, some stains."""
    n = clouds(u, v, seed=m.seed, octaves=3)
    fine = value_noise(u * 22, v * 22, seed=m.seed + 3)
    return _shade(_plain(m, u, v, p), 0.93 + 0.1 * n + 0.045 * fine)


def _woven(m, u, v, p):
    """Cloth: a weave, tone by tone."""
    over = np.sin(2 * np.pi * u * 3) * np.sin(2 * np.pi * v * 3)
    return _mix(m, 0.25 + 0.22 * over + 0.3 * (value_noise(u * 3, v * 30, seed=m.seed) - 0.3))


def _papered(m, u, v, p):
    """Wallpaper: broad soft stripes and a small figure between them."""
    stripe = np.abs((u % 1) - 0.5) < 0.25
    row = np.floor(v * 2)
    fx, fy = (u + 0.5) % 1 - 0.5, (v * 2 - row) - 0.5
    figure = (np.abs(fx) ** 0.8 * 3.2 + np.abs(fy) ** 0.8 * 1.7) < 0.55
    return _mix(m, 0.35 * stripe + 0.8 * figure * ~stripe)


def _picture(m, u, v, p):
    """A painting, ``scale`` wide: hills under a sky, or coloured fields."""
    return _landscape(m, u, v) if m.seed % 2 == 0 else _fields(m, u, v)


def _landscape(m, u, v):
    rng = np.random.default_rng(m.seed)
    height = np.clip(v, 0, 1.2)[:, None]
    sky = to_linear(m.second) * (0.55 + 0.5 * height) + 0.25 * (1 - height)
    sun = np.hypot(u - rng.uniform(-0.3, 0.3), v - rng.uniform(0.6, 0.8)) < rng.uniform(0.05, 0.09)
    colour = np.where(sun[:, None], to_linear((0.98, 0.85, 0.5)), sky)
    for i, base in enumerate((0.5, 0.36, 0.2)):
        f, phase = rng.uniform(3, 8), rng.uniform(0, 6)
        ridge = base + 0.07 * np.sin(f * u + phase) + 0.06 * (clouds(u * 4, 0 * v, seed=m.seed + i) - 0.5)
        hill = to_linear(m.colour) * (1.15 - 0.35 * i) + 0.1 * (2 - i) * to_linear(m.second)
        colour = np.where((v < ridge)[:, None], hill, colour)
    return np.clip(colour, 0, 1).astype(np.float32)


def _fields(m, u, v):
    rng = np.random.default_rng(m.seed)
    colour = np.broadcast_to(to_linear((0.9, 0.88, 0.82)), (len(u), 3)).copy()
    palette = [m.colour, m.second, (0.9, 0.75, 0.3), (0.15, 0.2, 0.3)]
    for i in range(5):
        x, y, w, h = rng.uniform(-0.5, 0.3), rng.uniform(0, 0.8), rng.uniform(0.15, 0.45), rng.uniform(0.12, 0.4)
        inside = (u > x) & (u < x + w) & (v > y) & (v < y + h)
        if i % 2:
            inside = np.hypot(u - x - w / 2, v - y - w / 2) < w / 2
        colour[inside] = to_linear(palette[i % 4])
    return colour


def _daylight(m, u, v, p):
    """What one sees through a window: sky above, trees below, out of focus."""
    sky = to_linear(m.colour) + (1 - to_linear(m.colour)) * np.clip(1.1 - v, 0, 1)[:, None] * 0.8
    soft = clouds(u * 3, v * 4, seed=m.seed, octaves=3)
    sky = sky + 0.35 * np.clip(soft - 0.5, 0, 1)[:, None]
    tops = 0.34 + 0.22 * clouds(u * 5, 0 * v, seed=m.seed + 1)
    trees = np.clip((tops - v) * 14, 0, 1)[:, None]
    leaves = to_linear(m.second) * (0.6 + 0.9 * clouds(u * 12, v * 12, seed=m.seed + 2))[:, None]
    return np.clip(sky * (1 - trees) + leaves * trees, 0, 1).astype(np.float32)


def _pane(m, u, v, p):
    """A window seen from outside: a dim room or a curtain behind glass that mirrors the sky."""
    mirror = np.clip(0.25 + 0.5 * v + 0.3 * (clouds(u * 1.5 + v, v - u, seed=m.seed, octaves=3) - 0.5), 0, 1)
    colour = _mix(m, 0.12 + 0.5 * mirror)
    curtain = (np.abs(u) > 0.5 - 0.22 * (m.seed % 3) / 2 - 0.06 * v) & (m.seed % 3 > 0)
    folds = 0.45 + 0.18 * np.sin(u * 60)
    return np.where(curtain[:, None], np.clip(folds, 0, 1)[:, None] * to_linear((0.92, 0.9, 0.84)), colour)


def _sky(m, u, v, p):
    """A far sky, lighter towards the ground, with clouds."""
    up = np.clip(v, 0, 1)
    base = _mix(m, (1 - up) ** 1.5)
    cover = np.clip((clouds(u * 2.2, v * 4.4, seed=m.seed, octaves=5) - 0.5) * 3.2, 0, 0.85)[:, None]
    return (base * (1 - cover) + to_linear((0.97, 0.97, 0.98)) * cover).astype(np.float32)


def _slatted(m, u, v, p):
    """Shutters: level slats, light above and dark below."""
    f = v - np.floor(v)
    return _shade(_plain(m, u, v, p), np.where(f < 0.2, 0.45, 0.8 + 0.3 * f))


def _ashlar(m, u, v, p):
    """Dressed stone in large blocks with fine joints."""
    row = np.floor(v * 2)
    x = u + 0.5 * (row % 2)
    column = np.floor(x)
    gap = (x - column < 0.02) | (v * 2 - row < 0.04)
    tone = 0.9 + 0.14 * _hash(column, row, seed=m.seed) + 0.12 * (clouds(u * 4, v * 4, seed=m.seed) - 0.5)
    return _shade(_plain(m, u, v, p), np.where(gap, 0.6, tone))


PATTERNS = {
    "plain": _plain, "checker": _checker, "striped": _striped, "dotted": _dotted, "brick": _brick, "tiled": _tiled,
    "wooden": _wooden, "marbled": _marbled, "mottled": _mottled, "plaster": _plaster, "woven": _woven,
    "papered": _papered, "picture": _picture, "daylight": _daylight, "pane": _pane, "sky": _sky,
    "slatted": _slatted, "ashlar": _ashlar,
}  # fmt: skip
"""Name -> pattern. The material id of a pixel is 1 + the place of its pattern in this list; 0 = nothing there."""
