"""Light without noise: stratified sampling in an interleaved pattern, then a filter that stays inside surfaces.

Light and colour are kept apart: the filter only ever sees light on white surfaces, patterns stay sharp.
"""

import numpy as np

from workbench.world.geometry import dot, unit
from workbench.world.materials import to_linear
from workbench.world.scene import Light, Scene
from workbench.world.tracing import Hits, World

GOLDEN = 0.6180339887498949
CLEAR = 2e-3
"""Rays start this far above a surface, in metres, so as not to hit it."""
HOT = 2.5
"""Bounced light from spots right beside a lamp is capped here: they would show as speckles."""


def lattice(n: int) -> np.ndarray:
    """n well-spread points in the unit square (Fibonacci lattice), (n, 2)."""
    k = np.arange(n)
    return np.column_stack([(k + 0.5) / n, (k * GOLDEN) % 1])


def tile_shifts(size, seed: int, tile: int = 4) -> np.ndarray:
    """Shifts of the sample pattern, (H * W, 2).

    The pixels of each ``tile`` x ``tile`` square take different shifts, and the filter then shares what they
    found: so each pixel profits from tile * tile times as many samples.
    """
    start = np.random.default_rng(seed).uniform(size=2)
    k = np.arange(tile * tile)
    order = np.random.default_rng(7).permutation(tile * tile)
    shifts = (np.column_stack([k * 0.7548776662466927, k * 0.5698402909980532]) + start) % 1  # R2 sequence
    square = shifts[order].reshape(tile, tile, 2)
    rows, columns = (np.arange(s) % tile for s in size)
    return square[rows[:, None], columns].reshape(-1, 2)


def row_shifts(n: int, seed: int) -> np.ndarray:
    """Shifts of the sample pattern for n points in no particular order, (n, 2)."""
    start = np.random.default_rng(seed).uniform(size=2)
    k = np.arange(n)[:, None]
    return (k * np.array([0.7548776662466927, 0.5698402909980532]) + start) % 1


def direct_light(world: World, points, normals, light: Light, samples: int, shifts) -> np.ndarray:
    """Light that falls from one source on white surfaces.

    Args:
        world: what may stand in the way.
        points, normals: (N, 3).
        light: the source.
        samples: how many points of it are asked for, K.
        shifts: (N, 2) of the sample pattern.

    Returns:
        (N, 3), linear: 1 is what a light of power 1 sends to a white surface facing it at 1 m.
    """
    uv = (lattice(samples) + shifts[:, None]) % 1  # (N, K, 2)
    towards, strength = light_samples(light, points, uv)  # (N, K, 3), (N, K)
    facing = dot(towards, normals[:, None]) / np.sqrt(dot(towards, towards))
    strength = strength * np.maximum(facing, 0)
    row, column = np.nonzero(strength > 0)
    away = normals[row] * CLEAR
    dark = world.blocked(points[row] + away, towards[row, column] - away)
    strength[row[dark], column[dark]] = 0
    return strength.mean(1)[:, None] * to_linear(light.colour)


def light_samples(light: Light, points, uv) -> tuple[np.ndarray, np.ndarray]:
    """Vectors to points of a light (N, K, 3), and the strength that arrives from there (N, K)."""
    middle = np.asarray(light.position, np.float64)
    if light.kind == "rectangle":
        right, up, normal = _frame(np.subtract(light.target, light.position))
        a, b = (uv - 0.5).transpose(2, 0, 1) * np.asarray(light.size)[:, None, None]
        towards = middle + a[..., None] * right + b[..., None] * up - points[:, None]
        square = dot(towards, towards)
        strength = light.power * np.maximum(-(towards @ normal), 0) / np.sqrt(square) / square
        most = 2 * np.pi * light.power / (light.size[0] * light.size[1])  # twice what touches the whole of it
        return towards, np.minimum(strength, most)
    radius, angle = np.sqrt(uv[..., 0]), 2 * np.pi * uv[..., 1]
    disc = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)  # (N, K, 2)
    if light.kind == "sun":
        right, up, normal = _frame(np.subtract(light.target, light.position))
        spread = np.tan(np.radians(light.size[0]) / 2)
        towards = (spread * (disc[..., :1] * right + disc[..., 1:] * up) - normal) * 200.0
        return towards, np.full(uv.shape[:2], light.power)
    right, up = _across(unit(middle - points))
    offset = disc[..., :1] * right[:, None] + disc[..., 1:] * up[:, None]
    towards = middle + offset * light.size[0] / 2 - points[:, None]
    return towards, light.power / np.maximum(dot(towards, towards), 1e-4)


def _frame(direction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right, up and forward unit vectors of a direction; up is vertical where that is possible."""
    forward = np.asarray(direction, np.float64)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0) if abs(forward[2]) < 0.95 else (0.0, 1.0, 0.0))
    right /= np.linalg.norm(right)
    return right, np.cross(right, forward), forward


def _across(axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors (N, 3) at right angles to each of the axes (N, 3) and to each other."""
    x, y, z = axes.T
    level = np.abs(z) < 0.9
    zero = np.zeros_like(x)
    right = unit(np.where(level[:, None], np.column_stack([y, -x, zero]), np.column_stack([zero, z, -y])))
    return right, np.cross(axes, right)


def sky_light(scene: Scene, directions) -> np.ndarray:
    """Linear colours (N, 3) of the sky in directions (N, 3) of unit length."""
    zenith, horizon = to_linear(scene.sky[0]), to_linear(scene.sky[1])
    up = np.clip(directions[:, 2:], 0, 1) ** 0.5
    ground = np.clip(-directions[:, 2:] * 4, 0, 1)
    return (horizon + (zenith - horizon) * up) * (1 - 0.75 * ground) * scene.sky_power


def gathered_light(world: World, scene: Scene, points, normals, samples: int, shifts):
    """Light that comes by way of other surfaces (one bounce, with their colour), or from the sky.

    Args as in `direct_light`; light of further bounces is ``scene.ambient`` everywhere.

    Returns:
        The light (N, 3), and how open the place is (N,): 1 with nothing within 0.6 m, less in corners.
    """
    uv = (lattice(samples) + shifts[:, None]) % 1  # (N, K, 2)
    radius, angle = np.sqrt(uv[..., 0]), 2 * np.pi * uv[..., 1]
    right, up = _across(normals)
    directions = (
        (radius * np.cos(angle))[..., None] * right[:, None]
        + (radius * np.sin(angle))[..., None] * up[:, None]
        + np.sqrt(1 - uv[..., :1]) * normals[:, None]
    ).reshape(-1, 3)  # (N K, 3), by the cosine law
    starts = np.repeat(points + normals * CLEAR, samples, 0)
    hits = world.cast(starts, directions)
    light = np.zeros((len(starts), 3))
    away = hits.part < 0
    light[away] = sky_light(scene, directions[away])
    met = np.flatnonzero(~away)
    arriving = np.full((len(met), 3), float(scene.ambient))
    shift = np.random.default_rng(11).uniform(size=(len(met), 2))
    turn = (met // samples + met % samples * 7) % max(len(scene.lights), 1)  # a ray asks one light for all of them
    for k, source in enumerate(scene.lights):
        who = met[turn == k]
        part = direct_light(world, hits.points[who], hits.normals[who], source, 1, shift[turn == k])
        arriving[turn == k] += np.minimum(part, HOT) * len(scene.lights)
    light[met] = arriving * world.mean_albedo[hits.part[met]]
    open_ = np.clip(hits.t / 0.6, 0, 1).reshape(len(points), samples)
    return light.reshape(len(points), samples, 3).mean(1), open_.mean(1)


def smooth_inside(light: np.ndarray, hits: Hits, size, radius: int, spacing: float, stride: int = 1) -> np.ndarray:
    """Averages light over the neighbouring pixels that lie on the same part, facing the same way (joint bilateral).

    Args:
        light: (H * W, C).
        hits: of the rays through the pixels' middles.
        size: (H, W).
        radius: in steps.
        spacing: of two neighbouring pixels on a surface at 1 m, in metres.
        stride: pixels a step.

    Returns:
        (H * W, C).
    """
    height, width = size
    light, part = light.reshape(height, width, -1), hits.part.reshape(size)
    normals = hits.normals.reshape(height, width, 3).astype(np.float32)
    points = hits.points.reshape(height, width, 3).astype(np.float32)
    reach = 0.6 * spacing * np.where(np.isfinite(hits.t), hits.t, 1).reshape(size).astype(np.float32) + 1e-3
    total, weights = light.copy(), np.ones((height, width, 1))
    edge = radius * stride  # half weights there: each place of a tile of `edge * 2` pixels counts the same
    for dy in range(-edge, edge + 1, stride):
        for dx in range(-edge, edge + 1, stride):
            if (dy, dx) == (0, 0):
                continue
            if abs(dy) >= height or abs(dx) >= width:
                continue
            here = (slice(max(0, -dy), height - max(0, dy)), slice(max(0, -dx), width - max(0, dx)))
            there = (slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx)))
            step = np.hypot(dx, dy)
            off = np.abs(dot(points[there] - points[here], normals[here])) / (reach[here] * (1 + step))
            same = (part[there] == part[here]) & (off < 1)
            turn = np.clip(dot(normals[there], normals[here]), 0, 1) ** 16
            weight = (same * turn * 0.5 ** ((abs(dy) == edge) + (abs(dx) == edge)))[..., None]
            total[here] += weight * light[there]
            weights[here] += weight
    return (total / weights).reshape(height * width, -1)


def spread_to(fine: Hits, pixels: np.ndarray, coarse: Hits, size, light: np.ndarray, spacing: float):
    """Light known at the pixels' middles, carried to other samples on the same surfaces.

    Args:
        fine: hits of N rays.
        pixels: (N, 2), where in the picture they go through.
        coarse: hits of the rays through the pixels' middles, of a picture of ``size`` (H, W).
        light: (H * W, C) there.
        spacing: as in `smooth_inside`.

    Returns:
        (N, C), and the weight (N,) found for each: near 0 where no neighbour lies on the same surface.
    """
    total = np.zeros((len(fine.t), light.shape[1]), np.float32)
    weights = np.zeros(len(fine.t), np.float32)
    light, coarse_n = light.astype(np.float32), coarse.normals.astype(np.float32)
    coarse_p, fine_p = coarse.points.astype(np.float32), fine.points.astype(np.float32)
    fine_n = fine.normals.astype(np.float32)
    reach = (0.9 * spacing * np.where(np.isfinite(fine.t), fine.t, 1) + 1.5e-3).astype(np.float32)
    column, row = (pixels - 0.5).T
    for up in (0, 1):
        for left in (0, 1):
            r, c = np.floor(row) + up, np.floor(column) + left
            near = (1 - np.abs(row - r)) * (1 - np.abs(column - c)) + 0.02
            index = (np.clip(r, 0, size[0] - 1) * size[1] + np.clip(c, 0, size[1] - 1)).astype(int)
            off = np.abs(dot(coarse_p[index] - fine_p, fine_n))
            turn = dot(coarse_n[index], fine_n)
            same = (coarse.part[index] == fine.part) & (off < reach) & (turn > 0.7)
            weight = (near * same).astype(np.float32)
            total += weight[:, None] * light[index]
            weights += weight
    return total / np.maximum(weights, 1e-6)[:, None], weights
