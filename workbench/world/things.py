"""Objects put together from shapes: toys, furniture, plants.

Each maker takes a NumPy generator and returns a `Thing` standing on its origin. `footprint` tells how much room
it needs.
"""

import colorsys
from dataclasses import replace

import numpy as np

from workbench.world.geometry import rotation
from workbench.world.materials import COLOURS
from workbench.world.scene import Material, Part, Thing
from workbench.world.shapes import make_shape

BRIGHT = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "white")
WOODS = (
    ((0.68, 0.48, 0.30), (0.45, 0.28, 0.15)),
    ((0.50, 0.32, 0.20), (0.30, 0.18, 0.10)),
    ((0.82, 0.66, 0.46), (0.62, 0.44, 0.27)),
    ((0.36, 0.22, 0.15), (0.20, 0.11, 0.07)),
)
METAL = Material("plain", (0.72, 0.70, 0.66), gloss=0.85, metal=True)
BRASS = Material("plain", (0.80, 0.62, 0.30), gloss=0.8, metal=True)


def varied(rng, colour, amount: float = 0.06):
    """A colour near the given one: hue, saturation and brightness each a little different."""
    h, s, v = colorsys.rgb_to_hsv(*colour)
    h = (h + rng.normal() * amount * 0.3) % 1
    s = min(1.0, max(0.0, s * (1 + rng.normal() * amount * 1.5)))
    v = min(0.97, max(0.05, v * (1 + rng.normal() * amount)))
    return tuple(round(c, 3) for c in colorsys.hsv_to_rgb(h, s, v))


def bright(rng, *without: str):
    """A strong colour."""
    words = [w for w in BRIGHT if w not in without]
    return varied(rng, COLOURS[words[rng.integers(len(words))]])


def wood(rng, scale: float = 0.1, gloss: float = 0.25) -> Material:
    """Some kind of wood."""
    light, dark = WOODS[rng.integers(len(WOODS))]
    return Material("wooden", varied(rng, light, 0.03), dark, scale, gloss, seed=int(rng.integers(1000)))


def coat(rng, size: float) -> Material:
    """What a toy of a certain size is painted with."""
    patterns = ("plain", "plain", "plain", "striped", "striped", "checker", "dotted", "marbled", "mottled", "wooden")
    patterns += ("brick", "tiled", "woven")
    pattern = patterns[rng.integers(len(patterns))]
    gloss = float((0.0, 0.3, 0.6, 0.8)[rng.integers(4)])
    seed = int(rng.integers(1000))
    if pattern == "wooden":
        return wood(rng, round(size / 3, 3), gloss)
    colour = bright(rng)
    if pattern == "brick":
        return Material("brick", varied(rng, (0.72, 0.36, 0.24)), (0.80, 0.78, 0.72), round(size / 2, 3), 0, seed=seed)
    near = pattern in ("marbled", "mottled", "woven", "tiled")
    second = varied(rng, tuple(0.45 * c for c in colour) if near and rng.random() < 0.4 else COLOURS["white"], 0.03)
    if pattern in ("striped", "checker", "dotted") and rng.random() < 0.4:
        second = bright(rng)
    repeat = {"striped": 2.2, "checker": 3.5, "dotted": 3.2, "marbled": 1.5, "mottled": 3.5, "tiled": 3.0, "woven": 5.0}
    return Material(pattern, colour, second, round(size / repeat.get(pattern, 2.0), 3), gloss, seed=seed)


def _simple(word: str, shape: str, low, high, values=()):
    """A maker of one shape whose size lies between two bounds (x, y, z); x = y where the bounds say so."""

    def make(rng) -> Thing:
        t = rng.uniform()
        size = tuple(round(a + (b - a) * t, 3) for a, b in zip(low, high, strict=True))
        return Thing(word, (Part(shape, size, coat(rng, max(size)), values=values),))

    return make


def _ring(rng) -> Thing:
    d = round(rng.uniform(0.4, 0.62), 3)
    tube = round(rng.uniform(0.3, 0.5), 2)
    return Thing("ring", (Part("ring", (d, d, round(d * tube / 2, 3)), coat(rng, d / 2), values=(tube,)),))


def _hoop(rng) -> Thing:
    """A ring that stands on its edge."""
    d = round(rng.uniform(0.4, 0.6), 3)
    thick = round(d * 0.15, 3)
    part = Part("ring", (d, d, thick), coat(rng, d / 2), (0.0, thick / 2, d / 2), (90.0, 0.0, 0.0), values=(0.3,))
    return Thing("hoop", (part,))


def _blocks(rng) -> Thing:
    """A tower of building blocks."""
    parts, z = [], 0.0
    for i in range(int(rng.integers(2, 5))):
        side = 0.30 - 0.05 * i
        turn = (0.0, 0.0, float(rng.integers(-30, 30)))
        parts.append(
            Part("box", (side, side, 0.2), Material("plain", bright(rng), gloss=0.2), (0.0, 0.0, round(z, 3)), turn)
        )
        z += 0.2
    return Thing("tower", tuple(parts))


def _stool(rng) -> Thing:
    seat = Part("cylinder", (0.38, 0.38, 0.05), coat(rng, 0.3), (0.0, 0.0, 0.42))
    legs = _legs(0.26, 0.26, 0.42, 0.035, wood(rng), "cylinder")
    return Thing("stool", (seat, *legs))


def _legs(width: float, depth: float, height: float, thick: float, material: Material, shape: str = "box"):
    return tuple(
        Part(shape, (thick, thick, height), material, (round(sx * width / 2, 4), round(sy * depth / 2, 4), 0.0))
        for sx in (-1, 1)
        for sy in (-1, 1)
    )


def _chair(rng) -> Thing:
    material = wood(rng) if rng.random() < 0.5 else Material("plain", bright(rng), gloss=0.3)
    cushion = coat(rng, 0.3)
    seat = Part("box", (0.44, 0.44, 0.05), cushion, (0.0, 0.0, 0.43))
    legs = _legs(0.38, 0.38, 0.43, 0.04, material)
    posts = [Part("box", (0.04, 0.04, 0.45), material, (x, 0.19, 0.48)) for x in (-0.19, 0.19)]
    rails = [Part("box", (0.34, 0.03, 0.07), material, (0.0, 0.19, z)) for z in (0.62, 0.74, 0.85)]
    return Thing("chair", (seat, *legs, *posts, *rails))


def make_table(rng, width=None, depth=None, height=None) -> Thing:
    """A table; ``things`` on it stand at the height of its parts[0] top."""
    w = width or round(rng.uniform(0.8, 1.2), 2)
    d = depth or round(rng.uniform(0.5, 0.75), 2)
    h = height or round(rng.uniform(0.45, 0.72), 2)
    material = wood(rng, 0.12) if rng.random() < 0.7 else Material("plain", varied(rng, COLOURS["white"]), gloss=0.4)
    top = Part("box", (w, d, 0.05), material, (0.0, 0.0, round(h - 0.05, 3)))
    apron = Part("box", (w - 0.14, d - 0.14, 0.07), material, (0.0, 0.0, round(h - 0.12, 3)))
    return Thing("table", (top, apron, *_legs(w - 0.12, d - 0.12, h - 0.05, 0.06, material)))


def _vase(rng) -> Thing:
    d, h = round(rng.uniform(0.26, 0.36), 3), round(rng.uniform(0.45, 0.7), 3)
    return Thing("vase", (Part("vase", (d, d, h), coat(rng, d)),))


def _bowl(rng) -> Thing:
    d = round(rng.uniform(0.3, 0.45), 3)
    bowl = Part("bowl", (d, d, round(d * 0.45, 3)), coat(rng, d / 2))
    fruit = [
        Part("ball", (round(d * 0.3, 3),) * 3,
             Material("mottled", bright(rng, "white", "blue", "purple"), (0.8, 0.5, 0.2), 0.1, 0.4),
             (round(d * 0.19 * np.cos(a), 3), round(d * 0.19 * np.sin(a), 3), round(d * 0.28, 3)))
        for a in rng.uniform(0, 6.28) + np.arange(3) * 2.1
    ]  # fmt: skip
    return Thing("bowl", (bowl, *fruit))


def _cup(rng) -> Thing:
    d = round(rng.uniform(0.2, 0.3), 3)
    h = round(d * 1.15, 3)
    material = coat(rng, d)
    handle = Part(
        "ring", (h * 0.62, h * 0.62, d * 0.12), material, (d * 0.56, d * 0.06, h * 0.5), (90.0, 0.0, 0.0), (0.35,)
    )
    return Thing("cup", (Part("cup", (d, d, h), material), handle))


def _teapot(rng) -> Thing:
    d = round(rng.uniform(0.3, 0.42), 3)
    m = coat(rng, d)
    h = d * 0.78
    spout = Part("lathe", (d * 0.3, d * 0.3, d * 0.55), m, (d * 0.38, 0.0, h * 0.3), (0.0, 48.0, 0.0),
                 (0.0, 0.0, 0.5, 0.0, 0.34, 0.4, 0.2, 0.8, 0.17, 1.0, 0.1, 1.0, 0.1, 0.9))  # fmt: skip
    handle = Part("ring", (h * 0.75, h * 0.75, d * 0.1), m, (-d * 0.5, d * 0.05, h * 0.5), (90.0, 0.0, 0.0), (0.25,))
    lid = Part(
        "lathe", (d * 0.6, d * 0.6, d * 0.16), m, (0.0, 0.0, h * 0.9), values=(0.5, 0.0, 0.46, 0.4, 0.3, 0.8, 0.0, 1.0)
    )
    knob = Part("ball", (d * 0.14,) * 3, m, (0.0, 0.0, h * 0.9 + d * 0.13))
    return Thing("teapot", (Part("ball", (d, d, h), m), spout, handle, lid, knob))


def _plant(rng) -> Thing:
    d = round(rng.uniform(0.24, 0.34), 3)
    h = d * 0.85
    pot = Part(
        "lathe",
        (d, d, h),
        coat(rng, d),
        values=(0, 0, 0.36, 0, 0.46, 0.86, 0.5, 0.86, 0.5, 1, 0.44, 1, 0.42, 0.9, 0, 0.9),
    )
    leaves = []
    green = varied(rng, (0.24, 0.48, 0.20), 0.12)
    n = int(rng.integers(11, 20))
    for i in range(n):
        yaw = 360 * (i * 0.618 % 1)
        lift = float(25 + 50 * (i / n) + rng.uniform(-8, 8))
        length = float(rng.uniform(0.35, 0.55))
        material = Material("mottled", varied(rng, green, 0.1), tuple(0.7 * c for c in green), 0.15, 0.3)
        size = (round(length * rng.uniform(0.28, 0.4), 3), round(length, 3), round(length * 0.5, 3))
        turn = (round(lift, 1), 0.0, round(yaw, 1))
        foot = rotation(turn) @ (0, 0, -0.25 * length)
        position = (round(float(foot[0]), 4), round(float(foot[1]), 4), round(float(h * 0.92 + foot[2]), 4))
        leaves.append(Part("leaf", size, material, position, turn, (round(rng.uniform(0.3, 0.9), 2),)))
    return Thing("plant", (pot, *leaves))


def make_lamp(rng) -> Thing:
    """A floor lamp; its bulb is at the middle of its shade (parts[0])."""
    h = round(rng.uniform(1.25, 1.5), 2)
    pole = METAL if rng.random() < 0.5 else BRASS
    shade = Part(
        "shade",
        (0.42, 0.42, 0.3),
        Material("plain", varied(rng, (0.96, 0.86, 0.66)), glow=0.95),
        (0.0, 0.0, h),
        shadow=False,
    )
    return Thing(
        "lamp",
        (
            shade,
            Part("cylinder", (0.035, 0.035, h + 0.2), pole, (0.0, 0.0, 0.0)),
            Part("cylinder", (0.3, 0.3, 0.03), pole),
        ),
    )


def make_shelf(rng) -> Thing:
    """A bookcase with books."""
    w, d, levels = round(rng.uniform(0.7, 1.1), 2), 0.28, int(rng.integers(2, 5))
    step = 0.36
    h = round(levels * step + 0.04, 3)
    m = wood(rng, 0.15) if rng.random() < 0.6 else Material("plain", varied(rng, COLOURS["white"]), gloss=0.2)
    parts = [Part("box", (0.04, d, h), m, (round(x * (w / 2 - 0.02), 3), 0.0, 0.0)) for x in (-1, 1)]
    parts += [Part("box", (w - 0.08, 0.02, h), m, (0.0, d / 2 - 0.01, 0.0))]
    parts += [Part("box", (w - 0.08, d - 0.02, 0.04), m, (0.0, -0.01, round(i * step, 3))) for i in range(levels + 1)]
    for level in range(levels):
        x, z = -w / 2 + 0.05, level * step + 0.04
        end = w / 2 - 0.06 - rng.uniform(0, 0.25)
        while x < end - 0.06:
            thick, tall = rng.uniform(0.03, 0.065), rng.uniform(0.19, 0.29)
            cover = Material("plain", varied(rng, COLOURS[list(COLOURS)[rng.integers(12)]], 0.12), gloss=0.1)
            size = (round(thick * 0.94, 4), round(rng.uniform(0.15, 0.2), 3), round(tall, 3))
            parts.append(Part("box", size, cover, (round(x + thick / 2, 4), -0.02, round(z, 3))))
            x += thick
    return Thing("shelf", tuple(parts))


def make_cupboard(rng) -> Thing:
    """A chest of drawers."""
    w, d, h = round(rng.uniform(0.7, 1.1), 2), 0.42, round(rng.uniform(0.7, 0.95), 2)
    m = wood(rng, 0.2) if rng.random() < 0.5 else Material("plain", bright(rng), gloss=0.25)
    parts = [
        Part("box", (w, d, h - 0.08), m, (0.0, 0.0, 0.08)),
        Part("box", (w + 0.04, d + 0.03, 0.03), m, (0.0, 0.0, h)),
    ]
    parts += [Part("box", (w - 0.08, d - 0.08, 0.08), Material("plain", (0.15, 0.13, 0.12)))]
    rows = int(rng.integers(2, 4))
    tall = (h - 0.08) / rows
    for i in range(rows):
        z = 0.08 + i * tall
        parts.append(Part("box", (w - 0.06, 0.02, tall - 0.03), m, (0.0, -d / 2 - 0.005, round(z + 0.015, 3))))
        for x in (-w / 4, w / 4):
            parts.append(Part("ball", (0.04,) * 3, BRASS, (round(x, 3), -d / 2 - 0.03, round(z + tall / 2 - 0.02, 3))))
    return Thing("cupboard", tuple(parts))


def make_sofa(rng) -> Thing:
    """A sofa or armchair."""
    w = round(rng.choice([0.85, 1.5, 1.8]), 2)
    colour = bright(rng, "white")
    second = tuple(round(0.6 * c, 3) for c in colour)
    pattern = ("woven", "plain", "striped", "checker")[rng.integers(4)]
    m = Material(pattern, colour, second, 0.12 if pattern != "woven" else 0.08, seed=int(rng.integers(2)))
    parts = [
        Part("box", (w, 0.75, 0.3), m, (0.0, 0.0, 0.1)),
        Part("box", (w, 0.2, 0.42), m, (0.0, 0.275, 0.4)),
        *(
            Part("capsule", (0.2, 0.28, 0.75), m, (x, 0.375, 0.48), (90.0, 0.0, 0.0))
            for x in (-w / 2 + 0.08, w / 2 - 0.08)
        ),
    ]
    pillow = Material("plain" if rng.random() < 0.5 else "striped", bright(rng), (0.9, 0.88, 0.84), 0.1)
    parts.append(Part("ball", (0.38, 0.16, 0.36), pillow, (round(w / 2 - 0.4, 2), 0.1, 0.41), (-18.0, 0.0, 0.0)))
    return Thing("sofa", tuple(parts))


TOYS = {
    "ball": _simple("ball", "ball", (0.3,) * 3, (0.6,) * 3),
    "cube": _simple("cube", "box", (0.26,) * 3, (0.5,) * 3),
    "box": _simple("box", "box", (0.5, 0.32, 0.24), (0.66, 0.4, 0.4)),
    "cylinder": _simple("cylinder", "cylinder", (0.28, 0.28, 0.35), (0.4, 0.4, 0.65)),
    "cone": _simple("cone", "cone", (0.32, 0.32, 0.5), (0.45, 0.45, 0.8)),
    "pyramid": _simple("pyramid", "pyramid", (0.4, 0.4, 0.35), (0.6, 0.6, 0.6)),
    "prism": _simple("prism", "prism", (0.35, 0.35, 0.3), (0.5, 0.5, 0.5)),
    "star": _simple("star", "star", (0.45, 0.45, 0.14), (0.65, 0.65, 0.22)),
    "pin": _simple("pin", "pin", (0.17, 0.17, 0.5), (0.24, 0.24, 0.7)),
    "capsule": _simple("capsule", "capsule", (0.26, 0.26, 0.5), (0.34, 0.34, 0.72)),
    "ring": _ring,
    "hoop": _hoop,
    "tower": _blocks,
    "vase": _vase,
    "bowl": _bowl,
    "cup": _cup,
    "teapot": _teapot,
    "plant": _plant,
    "stool": _stool,
    "chair": _chair,
}
"""Word -> maker of something that may stand anywhere."""
SMALL = ("ball", "cube", "cone", "vase", "bowl", "cup", "teapot", "plant", "pin", "pyramid")
"""What may stand on a table."""


def footprint(thing: Thing) -> tuple[float, float]:
    """Radius about the thing's axis and height above its origin, in metres."""
    radius = height = 0.0
    for part in thing.parts:
        points = make_shape(part.shape, part.size, part.values).vertices @ rotation(part.turn).T + part.position
        radius = max(radius, float(np.hypot(points[:, 0], points[:, 1]).max()))
        height = max(height, float(points[:, 2].max()))
    return radius, height


def scaled(thing: Thing, factor: float) -> Thing:
    """A thing made larger or smaller, with its patterns."""

    def times(values):
        return tuple(round(v * factor, 5) for v in values)

    parts = tuple(
        replace(
            p,
            size=times(p.size),
            position=times(p.position),
            material=replace(p.material, scale=p.material.scale * factor),
        )
        for p in thing.parts
    )
    return replace(thing, parts=parts)
