"""Street fronts of town houses: a grid of windows, doors below, balconies, cornices; all from one seed.

The wall's face is the plane y = 0, the street lies at negative y, x runs along it, z up from the pavement.
"""

from dataclasses import dataclass, replace

import numpy as np

from workbench import check
from workbench.world import things
from workbench.world.rendering import exposed
from workbench.world.scene import Camera, Light, Material, Part, Scene, Thing

BRICKS = ((0.66, 0.36, 0.27), (0.58, 0.30, 0.24), (0.76, 0.60, 0.44), (0.70, 0.50, 0.40))
PLASTERS = (
    (0.90, 0.84, 0.70),
    (0.88, 0.74, 0.56),
    (0.82, 0.80, 0.76),
    (0.86, 0.66, 0.56),
    (0.72, 0.78, 0.76),
    (0.93, 0.90, 0.84),
)
STONES = ((0.84, 0.78, 0.66), (0.78, 0.74, 0.66), (0.88, 0.83, 0.72))
SHUTTERS = ((0.25, 0.42, 0.36), (0.30, 0.42, 0.58), (0.55, 0.25, 0.20), (0.86, 0.85, 0.80), (0.42, 0.38, 0.32))
DOORS = ((0.18, 0.30, 0.24), (0.40, 0.16, 0.14), (0.18, 0.24, 0.40), (0.42, 0.28, 0.18), (0.12, 0.12, 0.13))


@dataclass(frozen=True)
class _Style:
    """What all windows of a house have in common; lengths in metres."""

    columns: int
    bay: float
    ground: float
    floors: int
    storey: float
    window: tuple[float, float]
    sill: float
    wall: Material
    base: Material
    trim: Material
    frame: Material
    shutter: Material | None
    balcony: str
    arched: bool
    pane_seed: int

    @property
    def width(self) -> float:
        return self.columns * self.bay

    @property
    def height(self) -> float:
        return self.ground + self.floors * self.storey


def make_facade(seed: int) -> Scene:
    """A house front, seen from across the street.

    Args:
        seed: the same seed gives the same house.

    Returns:
        A `Scene` of kind "facade": wall, windows, door, balconies, cornice, pavement, sky.

    Example:
        >>> view = render(make_facade(seed=7), size=(128, 128))
    """
    rng = np.random.default_rng([check.seed(seed), 2])
    style = _style(rng)
    house = [
        Thing("wall", _wall(style)),
        Thing("base", _base(style)),
        Thing("cornice", _cornice(rng, style)),
        *_openings(rng, style),
        *_neighbours(rng, style),
        *_street(rng, style),
    ]
    shade = bool(rng.random() < 0.3)
    sun = _sun(rng, shade)
    scene = Scene(
        "facade", tuple(house), sun, _camera(rng, style), ((0.40, 0.58, 0.90), (0.88, 0.91, 0.95)),
        1.1 if shade else 0.55, 0.04, seed=seed,
    )  # fmt: skip
    return exposed(scene, float(rng.uniform(0.68, 0.78)))


def _style(rng) -> _Style:
    kind = ("brick", "plaster", "ashlar")[rng.integers(3)]
    seed = int(rng.integers(999))
    stone = Material("ashlar", things.varied(rng, STONES[rng.integers(3)], 0.03), scale=0.9, seed=seed)
    wall = {
        "brick": Material(
            "brick", things.varied(rng, BRICKS[rng.integers(4)], 0.05), (0.78, 0.75, 0.69), 0.34, seed=seed
        ),
        "plaster": Material("plaster", things.varied(rng, PLASTERS[rng.integers(6)], 0.04), scale=1.4, seed=seed),
        "ashlar": stone,
    }[kind]
    base = (
        stone
        if rng.random() < 0.6
        else Material("plaster", tuple(round(0.8 * c, 3) for c in wall.colour), scale=1.0, seed=1)
    )
    pale = (0.90, 0.87, 0.80) if rng.random() < 0.7 else STONES[1]
    trim = Material("plaster", things.varied(rng, pale, 0.03), scale=2.0)
    paint = (0.92, 0.91, 0.88) if rng.random() < 0.7 else (0.35, 0.24, 0.17)
    frame = Material("plain", things.varied(rng, paint, 0.03))
    shutter = None
    if rng.random() < 0.5:
        shutter = Material("slatted", things.varied(rng, SHUTTERS[rng.integers(5)], 0.04), scale=0.11)
    bay = float(rng.uniform(2.3, 3.0)) if shutter else float(rng.uniform(1.8, 2.6))
    window = (round(float(rng.uniform(0.95, 1.2)), 2), round(float(rng.uniform(1.6, 2.05)), 2))
    return _Style(
        int(rng.integers(3, 6)), round(bay, 2), round(float(rng.uniform(3.4, 4.0)), 2), int(rng.integers(2, 4)),
        round(float(rng.uniform(3.0, 3.3)), 2), window, round(float(rng.uniform(0.55, 0.85)), 2), wall, base, trim,
        frame, shutter, ("none", "each", "row", "some")[rng.integers(4)], bool(rng.random() < 0.35),
        int(rng.integers(99)),
    )  # fmt: skip


def _centres(style: _Style) -> list[float]:
    return [round((i + 0.5) * style.bay - style.width / 2, 3) for i in range(style.columns)]


def _wall(style: _Style) -> tuple[Part, ...]:
    """One panel with its hole for each window, so that reveals are real and throw shadows."""
    ww, wh = style.window
    parts = []
    for floor in range(style.floors):
        z = round(style.ground + floor * style.storey, 3)
        hole = (-ww / 2 / style.bay, ww / 2 / style.bay, style.sill / style.storey, (style.sill + wh) / style.storey)
        hole = tuple(round(v, 5) for v in hole)
        parts += [
            Part("opening", (style.bay, 0.4, style.storey), style.wall, (x, 0.2, z), values=hole)
            for x in _centres(style)
        ]
    return tuple(parts)


def _base(style: _Style) -> tuple[Part, ...]:
    """The ground floor, with taller holes, and the plinth."""
    w = style.window[0] + 0.25
    hole = (-w / 2 / style.bay, w / 2 / style.bay, 0.0, 2.75 / style.ground)
    parts = [
        Part(
            "opening",
            (style.bay, 0.44, style.ground),
            style.base,
            (x, 0.18, 0.0),
            values=tuple(round(v, 5) for v in hole),
        )
        for x in _centres(style)
    ]
    return (*parts, Part("box", (style.width + 0.1, 0.3, 0.22), style.trim, (0.0, 0.0, round(style.ground - 0.2, 3))))


def _cornice(rng, style: _Style) -> tuple[Part, ...]:
    top = style.height
    parts = [
        Part("box", (style.width + 0.2, 0.5, 0.18), style.trim, (0.0, 0.0, top)),
        Part("box", (style.width + 0.4, 0.8, 0.14), style.trim, (0.0, -0.05, round(top + 0.18, 3))),
    ]
    n = int(style.width / 0.45)
    for i in range(n):
        x = round((i + 0.5) * style.width / n - style.width / 2, 3)
        parts.append(Part("box", (0.14, 0.3, 0.14), style.trim, (x, -0.2, round(top + 0.04, 3))))
    if rng.random() < 0.5:
        z = round(style.ground + style.storey - 0.1, 3)
        parts.append(Part("box", (style.width, 0.16, 0.16), style.trim, (0.0, -0.02, z)))
    slate = Material("slatted", (0.36, 0.38, 0.42), scale=0.25)
    parts.append(Part("box", (style.width, 0.1, 2.5), slate, (0.0, 0.25, round(top + 0.3, 3)), (-25.0, 0.0, 0.0)))
    return tuple(parts)


def _openings(rng, style: _Style) -> list[Thing]:
    """A thing for each window and door, and for each balcony."""
    out = []
    door_at = int(rng.integers(style.columns))
    shop = bool(rng.random() < 0.35)
    for column, x in enumerate(_centres(style)):
        out.append(_door(rng, style, x) if column == door_at else _ground_window(rng, style, x, shop))
        for floor in range(style.floors):
            z = round(style.ground + floor * style.storey + style.sill, 3)
            out.append(Thing("window", _window(rng, style, floor), (x, 0.0, z)))
            wanted = {"none": False, "each": True, "row": floor == 0, "some": rng.random() < 0.35}[style.balcony]
            if wanted:
                out.append(Thing("balcony", _balcony(rng, style), (x, 0.0, z)))
    return out


def _pane(rng) -> Material:
    return Material(
        "pane", (0.16, 0.19, 0.23), things.varied(rng, (0.62, 0.73, 0.86), 0.05), 1.3, 0.35, seed=int(rng.integers(99))
    )


def _window(rng, style: _Style, floor: int) -> tuple[Part, ...]:
    """In coordinates of the middle of its sill: pane, frame, sill, lintel, perhaps shutters."""
    ww, wh = style.window
    f = style.frame
    parts = [Part("box", (ww, 0.02, wh), _pane(rng), (0.0, 0.26, 0.0))]
    for x in (-ww / 2 + 0.035, 0.0, ww / 2 - 0.035):
        parts.append(Part("box", (0.07, 0.06, wh), f, (round(x, 3), 0.22, 0.0)))
    for z in (0.0, round(wh * 0.68, 3), round(wh - 0.07, 3)):
        parts.append(Part("box", (ww, 0.05, 0.06), f, (0.0, 0.22, z)))
    t = style.trim
    parts.append(Part("box", (ww + 0.3, 0.3, 0.1), t, (0.0, -0.02, -0.1)))
    parts.append(Part("box", (ww + 0.26, 0.12, 0.18), t, (0.0, -0.02, wh)))
    parts += [Part("box", (0.13, 0.1, wh), t, (s * (ww / 2 + 0.065), -0.02, 0.0)) for s in (-1, 1)]
    if style.arched:
        parts.append(Part("box", (ww + 0.4, 0.3, 0.08), t, (0.0, -0.06, round(wh + 0.18, 3))))
        parts.append(Part("pyramid", (ww + 0.36, 0.24, 0.28), t, (0.0, -0.03, round(wh + 0.26, 3))))
    if style.shutter:
        width = ww / 2 - 0.02
        closed = rng.random() < 0.12
        for s in (-1, 1):
            x = s * (width / 2 + 0.01) if closed else s * (ww / 2 + 0.14 + width / 2)
            parts.append(
                Part(
                    "box",
                    (round(width, 3), 0.05, wh - 0.02),
                    style.shutter,
                    (round(x, 3), 0.05 if closed else -0.06, 0.01),
                )
            )
    if rng.random() < 0.25:
        parts += _flowers(rng, ww)
    return tuple(parts)


def _flowers(rng, width: float) -> list[Part]:
    box = Part("box", (width * 0.9, 0.2, 0.2), Material("plain", (0.55, 0.32, 0.22)), (0.0, -0.18, 0.0))
    bloom = things.bright(rng, "green", "blue", "turquoise")
    parts = [box]
    for i in range(9):
        green = i % 2 == 0
        colours = ((0.25, 0.45, 0.2), (0.16, 0.32, 0.14), 0.08) if green else (bloom, (0.3, 0.5, 0.25), 0.09)
        x = (i - 4) * width * 0.1 + rng.uniform(-0.03, 0.03)
        d = float(rng.uniform(0.17, 0.25))
        y, z = -0.18 - rng.uniform(0, 0.06), 0.12 + rng.uniform(0, 0.1)
        position = (round(float(x), 3), round(float(y), 3), round(float(z), 3))
        parts.append(Part("ball", (round(d, 3),) * 3, Material("mottled", *colours), position))
    return parts


def _balcony(rng, style: _Style) -> tuple[Part, ...]:
    """A slab with an iron railing."""
    w = style.window[0] + 0.55
    iron = Material("plain", (0.13, 0.14, 0.15), gloss=0.3)
    deep = 0.55
    parts = [Part("box", (w, deep, 0.12), style.trim, (0.0, -deep / 2, -0.16))]
    parts += [Part("box", (0.14, 0.35, 0.28), style.trim, (s * w * 0.36, -0.17, -0.44)) for s in (-1, 1)]
    for z, thick in ((0.02, 0.03), (0.86, 0.05)):
        parts.append(Part("box", (w, thick, thick), iron, (0.0, -deep + 0.03, z)))
        parts += [Part("box", (thick, deep, thick), iron, (s * (w / 2 - 0.015), -deep / 2, z)) for s in (-1, 1)]
    n = int(w / 0.13)
    for i in range(n + 1):
        x = round((i / n - 0.5) * (w - 0.03), 3)
        parts.append(Part("box", (0.022, 0.022, 0.86), iron, (x, -deep + 0.03, 0.02)))
    return tuple(parts)


def _door(rng, style: _Style, x: float) -> Thing:
    w, h = style.window[0] + 0.25, 2.75
    m = Material("plain", things.varied(rng, DOORS[rng.integers(5)], 0.05), gloss=0.35)
    parts = [Part("box", (w, 0.08, 2.2), m, (0.0, 0.28, 0.0))]
    for s in (-1, 1):
        for z, tall in ((0.18, 0.75), (1.05, 0.95)):
            parts.append(
                Part("opening", (w * 0.4, 0.05, tall), m, (s * w * 0.24, 0.23, z), values=(-0.4, 0.4, 0.1, 0.9))
            )
    parts.append(Part("box", (w, 0.03, h - 2.28), _pane(rng), (0.0, 0.28, 2.28)))
    parts.append(Part("box", (w, 0.1, 0.08), style.frame, (0.0, 0.26, 2.2)))
    parts.append(Part("ball", (0.09,) * 3, things.BRASS, (0.08, 0.2, 1.0)))
    parts.append(Part("box", (w + 0.4, 0.5, 0.14), style.trim, (0.0, -0.12, 0.0)))
    parts += [Part("box", (0.2, 0.16, h), style.trim, (s * (w / 2 + 0.1), -0.06, 0.0)) for s in (-1, 1)]
    parts.append(Part("box", (w + 0.5, 0.3, 0.22), style.trim, (0.0, -0.1, h)))
    return Thing("door", tuple(parts), (x, 0.0, 0.0))


def _ground_window(rng, style: _Style, x: float, shop: bool) -> Thing:
    """A shop window with an awning, or a tall window over a parapet."""
    w, h = style.window[0] + 0.25, 2.75
    low = 0.45 if shop else 0.95
    parts = [Part("box", (w, 0.02, h - low), _pane(rng), (0.0, 0.28, low))]
    parts.append(
        Part(
            "box",
            (w, 0.3, low),
            style.base if not shop else replace(style.frame, colour=(0.25, 0.22, 0.2)),
            (0.0, 0.15, 0.0),
        )
    )
    for s in (-1, 1) if shop else (-1, 0, 1):
        parts.append(Part("box", (0.07, 0.06, h - low), style.frame, (round(s * (w / 2 - 0.035), 3), 0.24, low)))
    parts += [Part("box", (w, 0.06, 0.07), style.frame, (0.0, 0.24, z)) for z in (low, 2.1, h - 0.07)]
    if shop:
        cloth = Material(
            "striped", things.varied(rng, SHUTTERS[style.pane_seed % 3], 0.05), (0.92, 0.90, 0.85), 0.5, seed=1
        )
        parts.append(Part("box", (style.bay - 0.1, 0.95, 0.03), cloth, (0.0, -0.5, 2.65), (22.0, 0.0, 0.0)))
    else:
        parts.append(Part("box", (w + 0.2, 0.3, 0.09), style.trim, (0.0, -0.04, low)))
    return Thing("window", tuple(parts), (x, 0.0, 0.0))


def _neighbours(rng, style: _Style) -> list[Thing]:
    """Plain houses left and right, so that the street goes on."""
    out = []
    for side in (-1, 1):
        other = replace(
            style, columns=3, bay=2.4, floors=int(rng.integers(2, 4)),
            wall=Material(
                "plaster", things.varied(rng, PLASTERS[rng.integers(6)], 0.05), scale=1.4, seed=int(rng.integers(99))
            ),
        )  # fmt: skip
        shift = side * (style.width / 2 + other.width / 2 - 0.02)  # overlapping: no slit between houses
        parts = [replace(p, position=(p.position[0] + shift, 0.25, p.position[2])) for p in _wall(other)]
        parts += [Part("box", (other.width, 0.4, style.ground), style.base, (shift, 0.25, 0.0))]
        ww, wh = style.window
        for floor in range(other.floors):
            for x in _centres(other):
                z = style.ground + floor * style.storey + style.sill
                parts.append(Part("box", (ww, 0.02, wh), _pane(rng), (x + shift, 0.32, z)))
                parts.append(Part("box", (0.07, 0.06, wh), style.frame, (x + shift, 0.29, z)))
                parts.append(Part("box", (ww, 0.06, 0.06), style.frame, (x + shift, 0.29, z + wh * 0.65)))
        parts.append(Part("box", (other.width, 0.6, 0.25), style.trim, (shift, 0.1, other.height)))
        out.append(Thing("house", tuple(parts)))
    return out


def _street(rng, style: _Style) -> list[Thing]:
    paving = Material(
        "tiled", things.varied(rng, (0.62, 0.60, 0.57), 0.03), (0.42, 0.41, 0.40), 0.6, seed=int(rng.integers(99))
    )
    road = Material("mottled", (0.36, 0.36, 0.37), (0.30, 0.30, 0.31), 0.4)
    kerb = Material("plaster", (0.70, 0.69, 0.66))
    blue = Material(
        "sky",
        things.varied(rng, (0.36, 0.56, 0.92), 0.04),
        (0.86, 0.91, 0.97),
        40.0,
        glow=0.9,
        seed=int(rng.integers(99)),
    )
    out = [
        Thing(
            "pavement",
            (
                Part("box", (400.0, 42.6, 0.3), paving, (0.0, 18.7, -0.3)),
                Part("box", (400.0, 0.2, 0.3), kerb, (0.0, -2.7, -0.3)),
            ),
        ),
        Thing("road", (Part("box", (400.0, 60.0, 0.1), road, (0.0, -32.8, -0.25)),)),
        Thing("sky", (Part("box", (600.0, 0.1, 260.0), blue, (0.0, 40.0, -1.0), shadow=False),)),
    ]
    if rng.random() < 0.4:
        out.append(_lamp_post(rng.uniform(-style.width / 2, style.width / 2)))
    for _ in range(int(rng.integers(0, 3))):
        tree = things.scaled(things.TOYS["plant"](rng), 2.0)
        x = round(float(rng.uniform(-style.width / 2, style.width / 2)), 2)
        out.append(replace(tree, position=(x, -0.75, 0.0), yaw=float(rng.integers(0, 360))))
    return out


def _lamp_post(x: float) -> Thing:
    iron = Material("plain", (0.14, 0.16, 0.16), gloss=0.4)
    glass = Material("plain", (0.93, 0.90, 0.80), gloss=0.3)
    parts = (
        Part("cylinder", (0.12, 0.12, 3.3), iron),
        Part("lathe", (0.32, 0.32, 0.7), iron, values=(0, 0, 0.5, 0, 0.45, 0.2, 0.2, 0.4, 0.16, 1, 0, 1)),
        Part("frustum", (0.42, 0.42, 0.5), glass, (0.0, 0.0, 3.85), (180.0, 0.0, 0.0)),
        Part("pyramid", (0.5, 0.5, 0.25), iron, (0.0, 0.0, 3.85)),
    )
    return Thing("lamp", parts, (round(float(x), 2), -2.2, 0.0))


def _sun(rng, shade: bool) -> tuple[Light, ...]:
    """Sunshine from the street side, or an overcast sky's soft light from above."""
    way = (float(rng.uniform(-0.9, 0.9)), 1.0, -float(rng.uniform(0.7, 1.4)))
    power = 0.25 if shade else float(rng.uniform(1.5, 2.2))
    sun = tuple(round(-50 * c, 3) for c in way)
    return (Light("sun", sun, (0.0, 0.0, 0.0), (6.0 if shade else 0.8,) * 2, (1.0, 0.94, 0.82), round(power, 2)),)


def _camera(rng, style: _Style) -> Camera:
    """From across the street: the whole front, the street level, or some upper windows."""
    focus = ("street", "front", "front", "upper")[rng.integers(4)]
    x = rng.uniform(-0.25, 0.25) * style.width
    distance = rng.uniform(8.5, 13.0)
    eye = (x + rng.uniform(-4.5, 4.5), -distance, rng.uniform(1.5, 3.0) if focus != "upper" else rng.uniform(4.0, 7.0))
    z = {"street": rng.uniform(2.0, 2.8), "front": rng.uniform(4.0, 5.6), "upper": style.ground + style.storey}[focus]
    fov = {"street": rng.uniform(30, 38), "front": rng.uniform(46, 60), "upper": rng.uniform(26, 36)}[focus]
    return Camera(
        tuple(round(float(v), 3) for v in eye), (round(float(x), 3), 0.0, round(float(z), 3)), round(float(fov), 1)
    )
