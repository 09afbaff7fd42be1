"""Rooms: walls, floor, windows, pictures, furniture and toys, all from one seed.

The room spans x from -width/2 to width/2, y from 0 (behind the camera) to depth, z from 0 to height.
"""

from dataclasses import dataclass, replace

import numpy as np

from workbench import check
from workbench.world import geometry, things
from workbench.world.materials import COLOURS
from workbench.world.rendering import exposed
from workbench.world.scene import Camera, Light, Material, Part, Scene, Thing

WALL = 0.2
"""Thickness of walls, in metres."""
PAINTS = (
    (0.90, 0.87, 0.80), (0.88, 0.90, 0.90), (0.74, 0.82, 0.84), (0.80, 0.85, 0.76), (0.93, 0.84, 0.70),
    (0.86, 0.74, 0.68), (0.62, 0.70, 0.76), (0.70, 0.62, 0.72), (0.56, 0.64, 0.58), (0.92, 0.90, 0.88),
    (0.85, 0.68, 0.52),
)  # fmt: skip


@dataclass(frozen=True)
class _Plan:
    """Where the walls are, and the window: on which wall, the middle (along it and up) and (width, height)."""

    width: float
    depth: float
    height: float
    window_wall: str
    window_at: tuple[float, float]
    window_size: tuple[float, float]


def make_room(seed: int) -> Scene:
    """A furnished room.

    Args:
        seed: the same seed gives the same room.

    Returns:
        A `Scene` of kind "room": 3 to 8 objects on the floor or a table, nearly all in view, none inside another.

    Example:
        >>> view = render(make_room(seed=7), size=(128, 128))
    """
    rng = np.random.default_rng([check.seed(seed), 1])
    plan = _plan(rng)
    camera = _camera(rng, plan)
    shell = _shell(rng, plan)
    window = _window(rng, plan)
    night = bool(rng.random() < 0.2)
    if night:
        window = replace(window, parts=tuple(_dark(p) for p in window.parts))
    objects, lamp = _furnish(rng, plan, camera)
    decoration = _pictures(rng, plan)
    lights = _lights(rng, plan, lamp, night)
    scene = Scene("room", (*shell, window, *decoration, *objects), lights, camera, ambient=0.12, seed=seed)
    return exposed(scene, float(rng.uniform(0.66, 0.76)) if not night else float(rng.uniform(0.55, 0.66)))


def _plan(rng) -> _Plan:
    width, depth, height = (round(float(rng.uniform(*r)), 2) for r in ((3.6, 5.0), (3.8, 5.0), (2.5, 2.9)))
    wall = ("left", "right", "back", "left", "right")[rng.integers(5)]
    size = (round(float(rng.uniform(1.0, 1.6)), 2), round(float(rng.uniform(1.1, 1.45)), 2))
    along = rng.uniform(-0.25, 0.25) * width if wall == "back" else rng.uniform(0.6, 0.78) * depth
    return _Plan(width, depth, height, wall, (round(float(along), 2), round(float(rng.uniform(0.75, 0.95)), 2)), size)


def _camera(rng, plan: _Plan) -> Camera:
    """Anywhere near the front wall, at the height of a sitting or standing person, looking at the room."""
    x = rng.uniform(-0.32, 0.32) * plan.width
    eye = (x, rng.uniform(0.15, 0.55), rng.uniform(0.95, 1.75))
    target = (rng.uniform(-0.2, 0.2) * plan.width - 0.15 * x, plan.depth * 0.72, rng.uniform(0.45, 0.8))
    return Camera(_rounded(eye), _rounded(target), round(float(rng.uniform(44, 60)), 1))


def _rounded(values) -> tuple[float, float, float]:
    return tuple(round(float(v), 4) for v in values)


def _shell(rng, plan: _Plan) -> tuple[Thing, ...]:
    """Walls (one of them with the window's hole), floor, ceiling, skirting boards."""
    w, d, h = plan.width, plan.depth, plan.height
    paint = things.varied(rng, PAINTS[rng.integers(len(PAINTS))], 0.03)
    kind = ("plaster", "plaster", "plaster", "papered", "brick", "wooden")[rng.integers(6)]
    second = tuple(round(min(1.0, c * (0.78 if rng.random() < 0.5 else 1.12)), 3) for c in paint)
    wall = {
        "plaster": Material("plaster", paint, scale=0.8, seed=int(rng.integers(99))),
        "papered": Material("papered", paint, second, 0.3),
        "brick": Material(
            "brick", things.varied(rng, (0.74, 0.52, 0.42)), (0.82, 0.79, 0.74), 0.26, seed=int(rng.integers(99))
        ),
        "wooden": Material("wooden", (0.84, 0.74, 0.60), (0.72, 0.60, 0.45), 0.16, seed=int(rng.integers(99))),
    }[kind]
    painted = Material("plaster", paint, scale=0.8, seed=3)
    walls = []
    for name, length, position, yaw in (
        ("back", w, (0.0, d + WALL / 2, 0.0), 0.0),
        ("front", w, (0.0, -WALL / 2, 0.0), 180.0),
        ("left", d, (-w / 2 - WALL / 2, d / 2, 0.0), 90.0),
        ("right", d, (w / 2 + WALL / 2, d / 2, 0.0), -90.0),
    ):
        material = wall if kind in ("plaster", "papered") or name == "back" else painted
        if name == plan.window_wall:
            along = plan.window_at[0] - (0 if name == "back" else d / 2)
            along *= -1 if name == "right" else 1
            hole = _hole(along, plan, length)
            walls.append(Part("opening", (length, WALL, h), material, position, (0.0, 0.0, yaw), hole))
        else:
            walls.append(Part("box", (length, WALL, h), material, position, (0.0, 0.0, yaw)))
    return (
        Thing("wall", tuple(walls)),
        Thing("floor", (Part("box", (w, d, 0.1), _flooring(rng), (0.0, d / 2, -0.1)),)),
        Thing(
            "ceiling", (Part("box", (w, d, 0.1), Material("plaster", (0.94, 0.93, 0.90), scale=1.0), (0.0, d / 2, h)),)
        ),
        Thing("skirting", _skirting(rng, plan)),
    )


def _hole(along: float, plan: _Plan, length: float) -> tuple[float, ...]:
    (ww, wh), low = plan.window_size, plan.window_at[1]
    across = ((along - ww / 2) / length, (along + ww / 2) / length)
    return tuple(round(v, 5) for v in (*across, low / plan.height, (low + wh) / plan.height))


def _flooring(rng) -> Material:
    kind = ("wooden", "wooden", "tiled", "checker", "woven", "brick", "marbled")[rng.integers(7)]
    seed = int(rng.integers(999))
    if kind == "wooden":
        return things.wood(rng, 0.14, 0.3)
    if kind == "tiled":
        colour = things.varied(rng, ((0.80, 0.76, 0.68), (0.72, 0.45, 0.33), (0.60, 0.66, 0.68))[rng.integers(3)])
        return Material("tiled", colour, (0.5, 0.48, 0.45), 0.32, 0.35, seed=seed)
    if kind == "checker":
        dark = ((0.25, 0.27, 0.30), (0.55, 0.30, 0.24), (0.28, 0.42, 0.40))[rng.integers(3)]
        return Material("checker", (0.86, 0.84, 0.78), things.varied(rng, dark), 0.36, 0.35)
    if kind == "woven":
        colour = things.varied(rng, ((0.62, 0.56, 0.48), (0.45, 0.52, 0.58), (0.60, 0.42, 0.40))[rng.integers(3)])
        return Material("woven", colour, tuple(round(0.7 * c, 3) for c in colour), 0.09)
    if kind == "brick":
        return Material("brick", things.varied(rng, (0.66, 0.38, 0.28)), (0.62, 0.58, 0.52), 0.34, seed=seed)
    return Material("marbled", (0.82, 0.80, 0.77), (0.55, 0.53, 0.52), 0.7, 0.35, seed=seed)


def _skirting(rng, plan: _Plan) -> tuple[Part, ...]:
    m = Material(
        "plain", things.varied(rng, (0.92, 0.91, 0.88) if rng.random() < 0.7 else (0.45, 0.32, 0.22), 0.03), gloss=0.2
    )
    w, d = plan.width, plan.depth
    return (
        Part("box", (w, 0.02, 0.1), m, (0.0, d - 0.01, 0.0)),
        Part("box", (0.02, d - 0.02, 0.1), m, (-w / 2 + 0.01, d / 2, 0.0)),
        Part("box", (0.02, d - 0.02, 0.1), m, (w / 2 - 0.01, d / 2, 0.0)),
    )


def _window(rng, plan: _Plan) -> Thing:
    """Pane, frame and sill, in the coordinates of the hole: x along the wall, y outwards."""
    (ww, wh), (along, low) = plan.window_size, plan.window_at
    frame = Material("plain", things.varied(rng, (0.93, 0.92, 0.90), 0.02), gloss=0.3)
    sky, trees = things.varied(rng, (0.45, 0.66, 0.95)), things.varied(rng, (0.28, 0.44, 0.22))
    view = Material("daylight", sky, trees, wh, glow=1.0, seed=int(rng.integers(99)))
    parts = [Part("box", (ww, 0.01, wh), view, (0.0, 0.06, 0.0), shadow=False)]
    for x in (-ww / 2 + 0.025, 0.0, ww / 2 - 0.025):
        parts.append(Part("box", (0.05, 0.06, wh), frame, (round(x, 3), 0.03, 0.0)))
    bars = [0.0, wh - 0.05] + ([round(wh * 0.62, 3)] if rng.random() < 0.6 else [])
    parts += [Part("box", (ww, 0.05, 0.05), frame, (0.0, 0.03, z)) for z in bars]
    parts.append(Part("box", (ww + 0.16, 0.2, 0.035), frame, (0.0, -0.08, -0.035)))
    if rng.random() < 0.55:
        cloth = things.bright(rng) if rng.random() < 0.5 else things.varied(rng, (0.88, 0.84, 0.76))
        m = Material(
            "striped" if rng.random() < 0.3 else "plain", cloth, tuple(round(0.85 * c, 3) for c in cloth), 0.12, seed=1
        )
        for side in (-1, 1):
            for i in range(5):
                x = side * (ww / 2 + 0.05 + 0.065 * i)
                part = Part("cylinder", (0.085, 0.07 + 0.02 * (i % 2), wh + 0.45), m, (round(x, 3), -0.15, -0.25))
                parts.append(part)
        parts.append(
            Part(
                "cylinder", (0.03, 0.03, ww + 1.0), things.BRASS, (-(ww + 1.0) / 2, -0.15, wh + 0.22), (0.0, 90.0, 0.0)
            )
        )
    position, yaw = {
        "back": ((along, plan.depth + WALL / 2, low), 0.0),
        "left": ((-plan.width / 2 - WALL / 2, along, low), 90.0),
        "right": ((plan.width / 2 + WALL / 2, along, low), -90.0),
    }[plan.window_wall]
    return Thing("window", tuple(parts), _rounded(position), yaw)


def _dark(part: Part) -> Part:
    """The window's view after sunset."""
    if part.material.pattern != "daylight":
        return part
    return replace(
        part, material=replace(part.material, colour=(0.10, 0.14, 0.30), second=(0.03, 0.05, 0.06), glow=0.25)
    )


def _pictures(rng, plan: _Plan) -> list[Thing]:
    """One to three pictures on the walls, clear of the window."""
    out: list[Thing] = []
    taken = {wall: [] for wall in ("back", "left", "right")}
    taken[plan.window_wall].append((plan.window_at[0], plan.window_size[0] / 2 + 0.45))
    for _ in range(int(rng.integers(1, 4))):
        wall = ("back", "back", "left", "right")[rng.integers(4)]
        pw, ph = round(float(rng.uniform(0.4, 0.85)), 2), round(float(rng.uniform(0.4, 0.7)), 2)
        reach = (-plan.width / 2 + 0.5, plan.width / 2 - 0.5) if wall == "back" else (1.6, plan.depth - 0.5)
        at, z = round(float(rng.uniform(*reach)), 2), round(float(rng.uniform(1.15, 1.45)), 2)
        if any(abs(at - other) < room + pw / 2 + 0.1 for other, room in taken[wall]):
            continue
        taken[wall].append((at, pw / 2))
        colour, second = things.bright(rng, "white"), things.bright(rng)
        art = Material("picture", colour, second, max(pw, ph) * 0.9, seed=int(rng.integers(999)))
        rim = (things.BRASS, things.wood(rng), Material("plain", (0.12, 0.12, 0.12), gloss=0.4))[rng.integers(3)]
        mount = Material("plain", (0.93, 0.92, 0.88))
        parts = (
            Part("box", (pw - 0.12, 0.03, ph - 0.12), art, (0.0, -0.002, 0.06)),
            Part("box", (pw - 0.05, 0.028, ph - 0.05), mount, (0.0, 0.0, 0.025)),
            Part(
                "opening",
                (pw, 0.05, ph),
                rim,
                (0.0, 0.0, 0.0),
                values=(-0.5 + 0.03 / pw, 0.5 - 0.03 / pw, 0.03 / ph, 1 - 0.03 / ph),
            ),
        )
        position, yaw = {
            "back": ((at, plan.depth - 0.03, z), 0.0),
            "left": ((-plan.width / 2 + 0.03, at, z), 90.0),
            "right": ((plan.width / 2 - 0.03, at, z), -90.0),
        }[wall]
        out.append(Thing("picture", parts, _rounded(position), yaw))
    return out


def _furnish(rng, plan: _Plan, camera: Camera) -> tuple[list[Thing], Thing | None]:
    """Furniture along the back wall, then toys where the camera sees them; returns them and the lamp, if any."""
    placed: list[tuple[Thing, float]] = []
    lamp = None
    if rng.random() < 0.8:
        makers = (things.make_shelf, things.make_cupboard, things.make_sofa, things.make_table)
        piece = makers[rng.integers(4)](rng)
        radius = max(p.size[0] for p in piece.parts) / 2 + 0.06
        if plan.window_wall == "back" and piece.word == "shelf":
            piece = things.make_cupboard(rng)
        depth = max(p.size[1] for p in piece.parts)
        x = rng.uniform(-plan.width / 2 + radius + 0.1, plan.width / 2 - radius - 0.1)
        piece = replace(piece, position=_rounded((x, plan.depth - depth / 2 - 0.12, 0)))
        placed.append((piece, radius))
        top = {"table": piece.parts[0].position[2] + 0.05, "cupboard": piece.parts[1].position[2] + 0.03}.get(
            piece.word
        )
        if top:
            placed += [(t, 0.0) for t in _on_top(rng, piece, top)]
    if rng.random() < 0.4:
        lamp = _place(rng, things.make_lamp(rng), plan, camera, placed, far=True)
        placed += [(lamp, 0.25)] if lamp else []
    rug = [_rug(rng, plan)] if rng.random() < 0.4 else []
    words, wanted = list(things.TOYS), len(placed) + int(rng.integers(3, 6)) - (len(placed) > 2)
    for _ in range(30):  # some find no room
        if len(placed) >= wanted:
            break
        word = words[rng.integers(len(words))]
        thing = things.TOYS[word](rng)
        thing = _place(
            rng,
            thing if word in ("chair", "stool") else things.scaled(thing, rng.uniform(1.0, 1.5)),
            plan,
            camera,
            placed,
        )
        if thing:
            placed.append((thing, things.footprint(thing)[0]))
    return rug + [t for t, _ in placed], lamp


def _on_top(rng, piece: Thing, top: float) -> list[Thing]:
    """One or two small things on a table."""
    out = []
    width = piece.parts[0].size[0]
    slots = [-width / 4, width / 4] if rng.random() < 0.6 else [rng.uniform(-0.1, 0.1)]
    for slot in slots:
        word = things.SMALL[rng.integers(len(things.SMALL))]
        thing = things.scaled(things.TOYS[word](rng), 0.7)
        radius, _ = things.footprint(thing)
        if radius > width / 4 - 0.02:
            thing = things.scaled(thing, (width / 4 - 0.02) / radius)
        x, y, _ = piece.position
        out.append(replace(thing, position=_rounded((x + slot, y, top)), yaw=float(rng.integers(0, 360))))
    return out


def _rug(rng, plan: _Plan) -> Thing:
    colour = things.bright(rng)
    m = Material(
        ("striped", "woven", "checker", "dotted")[rng.integers(4)], colour, things.varied(rng, COLOURS["white"]), 0.3
    )
    shape = "cylinder" if rng.random() < 0.4 else "box"
    size = (1.7, 1.7, 0.012) if shape == "cylinder" else (1.9, 1.3, 0.012)
    return Thing("rug", (Part(shape, size, m),), _rounded((rng.uniform(-0.4, 0.4), plan.depth * 0.58, 0.0)))


def _place(rng, thing: Thing, plan: _Plan, camera: Camera, placed, far: bool = False) -> Thing | None:
    """A spot on the floor in full view, clear of walls and others; None if there is none."""
    radius, height = things.footprint(thing)
    for _ in range(60):
        x = rng.uniform(-plan.width / 2, plan.width / 2)
        y = rng.uniform(plan.depth * 0.7 if far else 1.3, plan.depth)
        clear = min(plan.width / 2 - abs(x), plan.depth - y) > radius + 0.06
        apart = all(
            np.hypot(x - t.position[0], y - t.position[1]) > radius + r + 0.04 for t, r in placed if t.position[2] < 0.1
        )
        if clear and apart and _in_view(camera, (x, y), radius, height):
            yaw = float(rng.integers(0, 360))
            return replace(thing, position=_rounded((x, y, 0.013 if thing.word == "rug" else 0.0)), yaw=yaw)
    return None


def _in_view(camera: Camera, spot, radius: float, height: float) -> bool:
    """Whether a standing cylinder lies inside a square picture with a small margin."""
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.column_stack([spot[0] + radius * np.cos(angle), spot[1] + radius * np.sin(angle)])
    points = np.concatenate([np.column_stack([ring, np.full(8, z)]) for z in (0.0, height)])
    xy, z = geometry.project(camera, (100, 100), points)
    return bool((z > 0.9).all() and (xy > 3).all() and (xy < 97).all())


def _lights(rng, plan: _Plan, lamp: Thing | None, night: bool) -> tuple[Light, ...]:
    """Day through the window, perhaps sunshine, a lamp; always a soft glow from the ceiling."""
    w, d, h = plan.width, plan.depth, plan.height
    (ww, wh), (along, low) = plan.window_size, plan.window_at
    z = low + wh / 2
    at, inwards = {
        "back": ((along, d + 0.04, z), (0.0, -1.0)),
        "left": ((-w / 2 - 0.04, along, z), (1.0, 0.0)),
        "right": ((w / 2 + 0.04, along, z), (-1.0, 0.0)),
    }[plan.window_wall]
    ceiling = Light(
        "rectangle", _rounded((0, d / 2, h - 0.02)), _rounded((0, d / 2, 0)), (w * 0.6, d * 0.6), (1.0, 0.95, 0.88), 0.7
    )
    lights = []
    warm = things.varied(rng, (1.0, 0.84, 0.64), 0.03)
    if lamp is not None:
        x, y, _ = lamp.position
        bulb = (x, y, lamp.parts[0].position[2] + 0.15)
        lights.append(Light("sphere", _rounded(bulb), size=(0.22, 0.22), colour=warm, power=1.0 if not night else 2.0))
    if night:
        if lamp is None:
            pendant = (rng.uniform(-0.5, 0.5), d * rng.uniform(0.4, 0.6), h - 0.45)
            lights.append(Light("sphere", _rounded(pendant), size=(0.3, 0.3), colour=warm, power=2.5))
        return (*lights, replace(ceiling, power=0.4, colour=warm))
    target = _rounded((at[0] + inwards[0], at[1] + inwards[1], z - 0.35))
    lights.append(Light("rectangle", _rounded(at), target, (ww, wh), things.varied(rng, (0.86, 0.93, 1.0), 0.02), 4.0))
    if rng.random() < 0.45:
        slant = rng.uniform(-0.6, 0.6)
        down = rng.uniform(0.55, 0.95)
        way = (inwards[0] + slant * abs(inwards[1]), inwards[1] + slant * abs(inwards[0]), -down)
        sun = np.subtract(at, np.multiply(way, 10))
        lights.append(
            Light(
                "sun",
                _rounded(sun),
                _rounded(at),
                (1.2, 1.2),
                (1.0, 0.93, 0.78),
                round(float(rng.uniform(1.5, 2.8)), 2),
            )
        )
    return (*lights, ceiling)
