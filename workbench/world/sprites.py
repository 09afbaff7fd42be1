"""Single objects for matting, from seeds: fur and hair, feathers, leaves, nets, glass, toys; `matting` renders them."""

from dataclasses import replace

import numpy as np

from workbench import check
from workbench.world import geometry, things
from workbench.world.materials import COLOURS
from workbench.world.rendering import exposed
from workbench.world.scene import Camera, Light, Material, Part, Scene, Thing
from workbench.world.tracing import mesh_of

KINDS = ("toy", "creature", "hair", "feather", "dandelion", "net", "fern", "leaf", "shell", "plant")
"""What kinds of sprites there are."""


def make_sprite(seed: int, kind: str | None = None) -> Scene:
    """A single object in studio light.

    Args:
        seed: the same seed gives the same sprite.
        kind: one of `KINDS`; None takes them in turn, by the seed.

    Returns:
        A `Scene` of kind "sprite", for `render_sprite`.

    Example:
        >>> sprite = render_sprite(make_sprite(seed=1), size=(256, 256))
        >>> on_green = sprite.composite()
    """
    kind = KINDS[check.seed(seed) % len(KINDS)] if kind is None else check.choice(kind, "kind", KINDS)
    rng = np.random.default_rng([seed, 8])
    parts, word = _MAKERS[kind](rng)
    thing = Thing(
        word,
        tuple(parts),
        yaw=float(rng.integers(-35, 35)) if kind not in ("toy", "plant", "shell") else float(rng.integers(0, 360)),
    )
    key = (
        float(rng.choice([-1, 1]) * rng.uniform(1.2, 2.0)),
        float(-rng.uniform(1.2, 2.2)),
        float(rng.uniform(1.6, 2.4)),
    )
    lights = (
        Light("rectangle", key, (0.0, 0.0, 0.4), (1.0, 1.0), things.varied(rng, (1.0, 0.97, 0.92), 0.02), 5.0),
        Light("rectangle", (-key[0] * 0.9, 1.6, 1.8), (0.0, 0.0, 0.5), (0.6, 1.2), (0.9, 0.95, 1.0), 3.0),
    )
    scene = Scene(
        "sprite", (thing,), lights, _frame(rng, thing), ((0.95, 0.96, 1.0), (0.85, 0.85, 0.85)), 0.45, 0.05, seed=seed
    )
    return exposed(scene, float(rng.uniform(0.68, 0.78)))


def _frame(rng, thing: Thing) -> Camera:
    """A camera that fits the whole thing in, with a margin."""
    pose = geometry.pose(thing)
    points = []
    for part in thing.parts:
        v = mesh_of(part).vertices @ geometry.rotation(part.turn).T + part.position
        points.append(v[:: max(1, len(v) // 4000)])
    points = np.concatenate(points) @ pose[:3, :3].T + pose[:3, 3]
    middle = (points.min(0) + points.max(0)) / 2
    lift, swing = np.radians(rng.uniform(2, 22)), np.radians(rng.uniform(-12, 12))
    back = np.array([np.sin(swing) * np.cos(lift), -np.cos(swing) * np.cos(lift), np.sin(lift)])
    fov = 26.0
    distance = 1.5
    for _ in range(40):
        camera = Camera(_rounded(middle + back * distance), _rounded(middle), fov)
        xy, _ = geometry.project(camera, (100, 100), points)
        if np.isfinite(xy).all() and xy.min() > 7 and xy.max() < 93:
            break
        distance *= 1.06
    return camera


def _rounded(values) -> tuple[float, float, float]:
    return tuple(round(float(v), 4) for v in values)


def _coat(rng, *without: str) -> Material:
    """Fur colours."""
    pairs = (
        ((0.86, 0.56, 0.28), (0.95, 0.86, 0.70)),
        ((0.36, 0.26, 0.20), (0.62, 0.48, 0.36)),
        ((0.55, 0.54, 0.55), (0.88, 0.87, 0.86)),
        ((0.93, 0.90, 0.85), (0.98, 0.97, 0.95)),
        ((0.16, 0.15, 0.16), (0.35, 0.33, 0.33)),
        ((0.85, 0.45, 0.62), (0.97, 0.75, 0.80)),
        ((0.30, 0.52, 0.80), (0.65, 0.82, 0.95)),
        ((0.50, 0.70, 0.35), (0.82, 0.90, 0.55)),
    )
    a, b = pairs[rng.integers(len(pairs))]
    pattern = ("plain", "mottled", "striped")[rng.integers(3)]
    return Material(
        pattern, things.varied(rng, a), b, round(float(rng.uniform(0.12, 0.25)), 3), 0.6, seed=int(rng.integers(99)) * 2
    )


def _toy(rng):
    names = [w for w in things.TOYS if w not in ("plant", "chair")]
    toy = things.TOYS[names[rng.integers(len(names))]](rng)
    factor = 0.8 / max(things.footprint(toy)[1], 2 * things.footprint(toy)[0])
    toy = things.scaled(toy, factor)
    return toy.parts, toy.word


def _creature(rng):
    """A furry animal: body, head, ears, eyes, feet."""
    m = _coat(rng)
    under = replace(m, gloss=0.0)
    seed = float(rng.integers(1000))
    long = float(rng.uniform(0.05, 0.13))
    body, head = (0.5, 0.42, 0.46), (0.36, 0.34, 0.33)
    at = (0.0, -0.08, 0.38)
    fur = Part(
        "fur",
        body,
        m,
        (0.0, 0.0, 0.04),
        values=(seed, 5200.0, long, 0.0036, round(float(rng.uniform(0.2, 0.7)), 2), 0.35),
    )
    parts = [fur, Part("fur", head, m, at, values=(seed + 1, 3600.0, long * 0.6, 0.0034, 0.3, 0.3))]
    parts += [Part("ball", body, under, (0.0, 0.0, 0.04)), Part("ball", head, under, at)]
    eye = Material("plain", (0.05, 0.04, 0.04), gloss=0.8)
    for s in (-1, 1):
        parts.append(Part("ball", (0.055,) * 3, eye, (s * 0.075, -0.262, 0.545)))
        tall = 0.2 if seed % 2 else 0.12
        parts.append(
            Part(
                "fur",
                (0.1, 0.06, tall),
                m,
                (s * 0.11, -0.04, 0.66),
                (0.0, s * 14.0, 0.0),
                (seed + 2 + s, 700.0, long * 0.4, 0.0034, 0.1, 0.2),
            )
        )
        parts.append(Part("ball", (0.1, 0.06, tall), under, (s * 0.11, -0.04, 0.66), (0.0, s * 14.0, 0.0)))
        parts.append(Part("ball", (0.15, 0.22, 0.1), under, (s * 0.12, -0.17, 0.0)))
    parts.append(
        Part("ball", (0.06, 0.05, 0.045), Material("plain", (0.35, 0.18, 0.18), gloss=0.5), (0.0, -0.285, 0.49))
    )
    return parts, "creature"


def _hair(rng):
    """A head with wild long hair."""
    m = _coat(rng)
    skin = Material(
        "plain",
        things.varied(rng, ((0.90, 0.70, 0.58), (0.62, 0.44, 0.33), (0.80, 0.58, 0.44))[rng.integers(3)], 0.03),
        gloss=0.2,
    )
    seed = float(rng.integers(1000))
    head = (0.4, 0.42, 0.46)
    up = rng.random() < 0.4
    long = float(rng.uniform(0.28, 0.42))
    droop = -0.2 if up else float(rng.uniform(0.5, 1.0))
    hair = Part(
        "fur",
        (0.405, 0.425, 0.465),
        m,
        (0.0, 0.03, 0.0),
        (-24.0, 0.0, 0.0),
        (seed, 5200.0, long, 0.0034, droop, 0.55, 0.12),
    )
    eye, white = Material("plain", (0.06, 0.05, 0.05), gloss=0.8), Material("plain", (0.95, 0.95, 0.93), gloss=0.5)
    parts = [hair, Part("ball", head, skin), Part("ball", (0.07, 0.08, 0.07), skin, (0.0, -0.21, 0.17))]
    for s in (-1, 1):
        parts.append(Part("ball", (0.085, 0.05, 0.085), white, (s * 0.08, -0.18, 0.22)))
        parts.append(Part("ball", (0.045, 0.03, 0.045), eye, (s * 0.08, -0.20, 0.24)))
        parts.append(Part("ball", (0.06, 0.09, 0.12), skin, (s * 0.2, 0.0, 0.16)))
    parts.append(
        Part(
            "capsule",
            (0.022, 0.022, 0.11),
            Material("plain", (0.70, 0.28, 0.28)),
            (-0.055, -0.175, 0.115),
            (0.0, 90.0, 0.0),
        )
    )
    return parts, "creature"


def _feather(rng):
    colour = things.bright(rng)
    second = COLOURS["white"] if rng.random() < 0.6 else tuple(round(0.4 * c, 3) for c in colour)
    pattern = ("plain", "striped", "mottled")[rng.integers(3)]
    m = Material(pattern, colour, second, 0.16, 0.5, seed=int(rng.integers(50)) * 2)
    wide = round(float(rng.uniform(0.24, 0.36)), 3)
    values = (float(rng.integers(1000)), 560.0, round(float(rng.uniform(-0.22, 0.22)), 3), 0.0042)
    return [Part("feather", (wide, 0.1, 0.9), m, values=values)], "feather"


def _dandelion(rng):
    m = Material("plain", (0.96, 0.96, 0.93), gloss=0.3)
    green = Material("plain", things.varied(rng, (0.45, 0.58, 0.28)))
    d = round(float(rng.uniform(0.42, 0.55)), 3)
    lean = round(float(rng.uniform(-0.15, 0.15)), 3)
    top = (lean * 0.6, 0.0, 0.6)
    clock = Part(
        "clock",
        (d, d, d),
        m,
        (top[0], 0.0, 0.6 - d / 2 + 0.02),
        values=(float(rng.integers(1000)), float(rng.integers(110, 190)), 12.0, 0.0028),
    )
    heart = Part(
        "ball", (0.07,) * 3, Material("mottled", (0.55, 0.45, 0.30), (0.35, 0.28, 0.2), 0.02), (top[0], 0.0, 0.585)
    )
    return [clock, heart, Part("stem", (0.1, 0.1, 0.6), green, values=(0.0, 1.0, lean, 0.022))], "plant"


def _net(rng):
    m = Material("plain", things.varied(rng, (0.85, 0.78, 0.62) if rng.random() < 0.5 else things.bright(rng)))
    rail = things.wood(rng, 0.05)
    parts = [
        Part(
            "net",
            (0.8, 0.12, 0.66),
            m,
            (0.0, 0.0, 0.1),
            values=(float(rng.integers(1000)), float(rng.integers(7, 13)), 0.1, 0.011),
        )
    ]
    parts.append(Part("cylinder", (0.035, 0.035, 0.9), rail, (-0.45, 0.0, 0.76), (0.0, 90.0, 0.0)))
    parts += [Part("ball", (0.06,) * 3, things.BRASS, (x, 0.0, 0.73)) for x in (-0.46, 0.46)]
    return parts, "net"


def _leaf_material(rng, colour) -> Material:
    return Material(
        "mottled",
        things.varied(rng, colour, 0.08),
        tuple(round(0.7 * c, 3) for c in colour),
        0.12,
        0.3,
        seed=int(rng.integers(99)),
    )


def _fern(rng):
    """A frond: leaflets in pairs along a bent stem."""
    colour = ((0.30, 0.52, 0.22), (0.45, 0.60, 0.25), (0.62, 0.45, 0.18), (0.70, 0.28, 0.16))[rng.integers(4)]
    lean = round(float(rng.uniform(-0.25, 0.25)), 3)
    parts = [
        Part(
            "stem",
            (0.1, 0.1, 0.9),
            Material("plain", tuple(round(0.7 * c, 3) for c in colour)),
            values=(0.0, 1.0, lean, 0.014),
        )
    ]
    pairs = int(rng.integers(9, 16))
    for i in range(pairs):
        t = 0.15 + 0.83 * i / (pairs - 1)
        long = 0.34 * np.sin(np.pi * (0.12 + 0.83 * t)) ** 0.8 + 0.03
        x, z = lean * 0.9 * t**2, 0.9 * t
        for s in (-1, 1):
            angle = s * (-68 + 30 * t) + np.degrees(np.arctan(2 * lean * t)) * -1
            turn = (90.0, 0.0, 0.0)
            m = _leaf_material(rng, colour)
            size = (round(long * 0.3, 4), round(float(long), 4), round(long * 0.3, 4))
            parts.append(
                Part(
                    "leaf",
                    size,
                    m,
                    *_stood(size, (x, 0.0, z), angle, turn[0]),
                    (round(float(rng.uniform(0.1, 0.5)), 2),),
                )
            )
    parts.append(
        Part(
            "leaf",
            (0.06, 0.16, 0.05),
            _leaf_material(rng, colour),
            *_stood((0.06, 0.16, 0.05), (lean * 0.9, 0.0, 0.9), 0.0, 90.0),
        )
    )
    return [parts[1], parts[0], *parts[2:]], "fern"


def _stood(size, foot, angle: float, raised: float):
    """Position and turn of a leaf that starts at ``foot`` and points up, leaning ``angle`` degrees to the left."""
    turn = (float(raised), round(float(-angle), 2), 0.0)
    start = geometry.rotation(turn) @ (0.0, 0.0, size[2] / 2)
    return _rounded(np.subtract(foot, start)), turn


def _leaf(rng):
    """Some large leaves in a bunch."""
    colour = ((0.30, 0.55, 0.22), (0.80, 0.50, 0.15), (0.72, 0.25, 0.15), (0.50, 0.62, 0.25))[rng.integers(4)]
    parts = []
    n = int(rng.integers(3, 8))
    for i in range(n):
        long = float(rng.uniform(0.5, 0.8))
        size = (round(long * float(rng.uniform(0.35, 0.55)), 3), round(long, 3), round(long * 0.5, 3))
        angle = (i - (n - 1) / 2) * 120 / n + rng.uniform(-8, 8)
        position, turn = _stood(size, (0.0, 0.01 * i, 0.2), angle, float(rng.uniform(70, 100)))
        parts.append(
            Part("leaf", size, _leaf_material(rng, colour), position, turn, (round(float(rng.uniform(0.1, 0.6)), 2),))
        )
    parts.append(
        Part(
            "stem",
            (0.1, 0.1, 0.24),
            Material("plain", tuple(round(0.7 * c, 3) for c in colour)),
            values=(0.0, 1.0, 0.0, 0.02),
        )
    )
    return parts, "leaf"


def _glass(rng):
    """A translucent bubble, vase, bowl or teapot, perhaps with something solid inside."""
    m = Material(
        "plain",
        things.varied(rng, things.bright(rng) if rng.random() < 0.7 else (0.9, 0.95, 0.97)),
        opacity=round(float(rng.uniform(0.12, 0.5)), 2),
    )
    shape, size = (
        ("ball", (0.7,) * 3),
        ("vase", (0.45, 0.45, 0.85)),
        ("bowl", (0.75, 0.75, 0.45)),
        ("cup", (0.5, 0.5, 0.65)),
    )[rng.integers(4)]
    parts = [Part(shape, size, m)]
    if shape != "vase" and rng.random() < 0.75:
        inner = things.TOYS[("ball", "cube", "star", "pyramid")[rng.integers(4)]](rng)
        radius, height = things.footprint(inner)
        inner = things.scaled(inner, min(0.2 / radius, 0.32 / height))
        lift = {"ball": 0.2, "bowl": 0.1, "cup": 0.08}[shape]
        parts += [
            replace(p, position=(p.position[0], p.position[1], round(p.position[2] + lift, 4))) for p in inner.parts
        ]
    return parts, "shell"


def _plant(rng):
    plant = things.scaled(things.TOYS["plant"](rng), 1.1)
    return plant.parts, "plant"


_MAKERS = {
    "toy": _toy, "creature": _creature, "hair": _hair, "feather": _feather, "dandelion": _dandelion, "net": _net,
    "fern": _fern, "leaf": _leaf, "shell": _glass, "plant": _plant,
}  # fmt: skip
