"""Short films: things that roll, slide and turn in a room while the camera moves on a smooth path."""

from dataclasses import dataclass, replace

import numpy as np

from workbench import check
from workbench.world import things
from workbench.world.rooms import make_room
from workbench.world.scene import Camera, Scene
from workbench.world.views import SURROUNDINGS

FIXED = SURROUNDINGS | {"window", "picture", "shelf", "cupboard", "sofa", "table", "lamp", "rug"}
"""Words of things that stay where they are."""


@dataclass(frozen=True)
class Clip:
    """A film: one scene a frame. All frames hold the same things in the same order.

    Args:
        frames: scenes, each with its own camera and positions.
        moving: indices of the things that move.
        seed: what it was made from.
    """

    frames: tuple[Scene, ...]
    moving: tuple[int, ...]
    seed: int


def make_clip(seed: int, frames: int = 16, light: bool = False) -> Clip:
    """A clip of a room.

    One to three things move along straight or curved ways and turn; the camera drifts (one clip in four: it stands).

    Args:
        seed: the same seed gives the same clip.
        frames: how many, at about 8 a second.
        light: whether each light also grows brighter or darker, warmer or colder, on its own; the rest stays as it is.

    Returns:
        A `Clip`; render frame k with ``render(clip.frames[k])``.

    Example:
        >>> clip = make_clip(seed=3)
        >>> a, b = render(clip.frames[0]), render(clip.frames[8])
        >>> flow = correspondences(a, b)
    """
    check.integer(frames, "frames", 2, 1000)
    rng = np.random.default_rng([check.seed(seed), 3])
    room = make_room(seed)
    movable = [i for i, t in enumerate(room.things) if t.word not in FIXED and t.position[2] < 0.1]
    moving = sorted(rng.permutation(movable)[: int(rng.integers(1, 4))].tolist())
    goals = {}
    for i in moving:
        goals[i] = _goal(rng, room, i, goals)
    turns = {i: float(rng.uniform(-150, 150)) for i in moving}
    still = bool(rng.random() < 0.25)
    sway = (0.0, 0.0, 0.0) if still else tuple(rng.uniform((-0.5, -0.02, -0.2), (0.5, 0.4, 0.25)))
    path = []
    for k in range(frames):
        t = k / (frames - 1)
        ease = t * t * (3 - 2 * t)
        moved = list(room.things)
        for i in moving:
            x, y, z = room.things[i].position
            gx, gy = goals[i]
            position = (round(x + (gx - x) * ease, 4), round(y + (gy - y) * ease, 4), z)
            moved[i] = replace(room.things[i], position=position, yaw=round(room.things[i].yaw + turns[i] * ease, 3))
        path.append(replace(room, things=tuple(moved), camera=_drift(room.camera, sway, t)))
    return Clip(_relit(path, seed) if light else tuple(path), tuple(moving), seed)


def _relit(path: list[Scene], seed: int) -> tuple[Scene, ...]:
    """The same frames in light that changes: by up to two stops, and in colour."""
    rng = np.random.default_rng([seed, 13])
    changes = [(rng.uniform(-2, 2), rng.uniform(-0.3, 0.3)) for _ in path[0].lights]
    frames = []
    for k, frame in enumerate(path):
        t, lights = k / (len(path) - 1), []
        for lamp, (stops, warmth) in zip(frame.lights, changes, strict=True):
            tint = (1 + warmth * t, 1.0, 1 - warmth * t)
            colour = tuple(round(float(np.clip(c * g, 0, 1)), 4) for c, g in zip(lamp.colour, tint, strict=True))
            lights.append(replace(lamp, colour=colour, power=round(lamp.power * 2 ** (stops * t), 4)))
        frames.append(replace(frame, lights=tuple(lights)))
    return tuple(frames)


def _goal(rng, room: Scene, index: int, goals: dict) -> tuple[float, float]:
    """Where a thing goes, so that it meets nothing on the way; its own place if there is no way."""
    x, y, _ = room.things[index].position
    radius, _ = things.footprint(room.things[index])
    others = [
        t
        for i, t in enumerate(room.things)
        if i != index and t.position[2] < 0.1 and t.word not in SURROUNDINGS | {"rug", "picture", "window"}
    ]
    for _ in range(80):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.2)
        gx, gy = x + far * np.cos(angle), y + far * np.sin(angle)
        clear = abs(gx) < 1.5 - radius and 1.2 < gy < 3.3 - radius
        for other in others:
            r = things.footprint(other)[0] + radius + 0.03
            spots = [other.position[:2]]
            j = room.things.index(other)
            if j in goals:
                spots += [
                    tuple(np.add(other.position[:2], f * np.subtract(goals[j], other.position[:2])))
                    for f in (0.25, 0.5, 0.75, 1)
                ]
            clear = clear and all(_distance((x, y), (gx, gy), s) > r for s in spots)
        if clear:
            return round(float(gx), 4), round(float(gy), 4)
    return x, y


def _distance(a, b, point) -> float:
    """From a point to the way from a to b."""
    a, b, p = (np.asarray(v, float) for v in (a, b, point))
    along = np.clip(np.dot(p - a, b - a) / max(np.dot(b - a, b - a), 1e-9), 0, 1)
    return float(np.linalg.norm(p - a - along * (b - a)))


def _drift(camera: Camera, sway, t: float) -> Camera:
    """The camera after the share t of its way."""
    step = np.multiply(sway, np.sin(np.pi / 2 * t))
    position = tuple(round(float(v), 4) for v in np.add(camera.position, step))
    return replace(camera, position=position)
