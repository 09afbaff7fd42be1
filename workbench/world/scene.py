"""What a scene is made of: plain frozen dataclasses that survive JSON exactly.

Lengths are in metres, angles in degrees, colours are sRGB in [0, 1]; x points right, y away, z up.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, replace

from workbench import check

Vector = tuple[float, float, float]
"""Three numbers: a point, a direction, a size or a colour."""


@dataclass(frozen=True)
class Material:
    """What a surface looks like.

    Args:
        pattern: one of `workbench.world.materials.PATTERNS`.
        colour: the main colour, sRGB in [0, 1].
        second: the colour of gaps, stripes or veins.
        scale: length of one repeat, in metres.
        gloss: 0 (matte) to 1 (polished); metals are 1 with ``metal``.
        metal: reflections take the surface's colour.
        glow: light sent out by itself, relative to a white surface in full light; 0 for most.
        opacity: 1 solid, less for translucent shells (only in sprites).
        seed: which of the pattern's variations.
    """

    pattern: str = "plain"
    colour: Vector = (0.7, 0.7, 0.7)
    second: Vector = (0.3, 0.3, 0.3)
    scale: float = 0.2
    gloss: float = 0.0
    metal: bool = False
    glow: float = 0.0
    opacity: float = 1.0
    seed: int = 0

    def __post_init__(self):
        for name in ("colour", "second"):
            value = getattr(self, name)
            if isinstance(value, str) or len(value) != 3:
                raise ValueError(f"material.{name} is {value!r}, expected three numbers: sRGB in [0, 1].")


@dataclass(frozen=True)
class Part:
    """One shape of a thing, standing on the thing's origin unless moved.

    Args:
        shape: one of `workbench.world.shapes.SHAPES`, or of `strands.STRANDS` for hair and the like.
        size: extent along x, y, z in metres.
        material: its surface.
        position: of the middle of its foot, in the thing's coordinates.
        turn: rotation about x, then y, then z, in degrees.
        values: extra numbers of the shape (see there).
        shadow: whether it keeps light away from others (a lamp's shade does not).
    """

    shape: str
    size: Vector
    material: Material = Material()
    position: Vector = (0.0, 0.0, 0.0)
    turn: Vector = (0.0, 0.0, 0.0)
    values: tuple[float, ...] = ()
    shadow: bool = True


@dataclass(frozen=True)
class Thing:
    """An object: parts that move together.

    Args:
        word: what a caption calls it ("ball").
        parts: the first part gives the thing its colour and pattern in captions.
        position: of its origin, in the world.
        yaw: rotation about the vertical axis, in degrees.
        tilt: rotation about the thing's own x axis before that, in degrees.
    """

    word: str
    parts: tuple[Part, ...]
    position: Vector = (0.0, 0.0, 0.0)
    yaw: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True)
class Light:
    """One source of light.

    Args:
        kind: "rectangle" (a window), "sphere" (a lamp) or "sun" (from infinity).
        position: of its middle; for the sun any point on the way to it.
        target: what it points at (a sphere shines everywhere).
        size: (width, height) of a rectangle; (diameter, diameter) of a sphere; for the sun its apparent
            diameter in degrees, twice.
        colour: sRGB in [0, 1].
        power: the light that reaches a surface facing it at 1 m (the sun: at any distance); 1 is ordinary.
    """

    kind: str
    position: Vector
    target: Vector = (0.0, 0.0, 0.0)
    size: tuple[float, float] = (0.5, 0.5)
    colour: Vector = (1.0, 1.0, 1.0)
    power: float = 1.0

    def __post_init__(self):
        check.choice(self.kind, "light.kind", ("rectangle", "sphere", "sun"))
        check.number(self.power, "light.power", 0)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Args:
        position: of the eye.
        target: the point in the middle of the picture.
        fov: angle from the top to the bottom of the picture, in degrees.
        up: the direction that is up in the picture.
    """

    position: Vector
    target: Vector
    fov: float = 50.0
    up: Vector = (0.0, 0.0, 1.0)

    def __post_init__(self):
        check.number(self.fov, "camera.fov", 1, 150)
        if tuple(self.position) == tuple(self.target):
            raise ValueError(f"camera.position and camera.target are both {self.position}, expected two points.")


@dataclass(frozen=True)
class Scene:
    """Everything one needs to render: the same scene gives the same picture, bit for bit.

    Args:
        kind: "room", "facade" or "sprite".
        things: all objects; the instance id of things[i] is i + 1.
        lights: see `Light`.
        camera: where it is seen from unless `render` is told otherwise.
        sky: (zenith, horizon), two colours of the light from where there is nothing.
        sky_power: its brightness; 0 indoors.
        ambient: light of higher bounces, added everywhere in the shade of nothing.
        exposure: from light to picture.
        seed: what it was made from.
    """

    kind: str
    things: tuple[Thing, ...]
    lights: tuple[Light, ...]
    camera: Camera
    sky: tuple[Vector, Vector] = ((0.45, 0.62, 0.9), (0.85, 0.9, 0.95))
    sky_power: float = 0.0
    ambient: float = 0.1
    exposure: float = 1.0
    seed: int = 0

    def find(self, word: str) -> int:
        """Index of the first thing called ``word``. Raises ValueError naming what there is."""
        for i, thing in enumerate(self.things):
            if thing.word == word:
                return i
        raise ValueError(f"no thing is called {word!r}. There are: {', '.join(t.word for t in self.things)}.")


def with_camera(scene: Scene, camera: Camera) -> Scene:
    """The same scene, seen from elsewhere."""
    return replace(scene, camera=camera)


def with_light(scene: Scene, *lights: Light, exposure: float | None = None) -> Scene:
    """The same scene in other light; geometry, ids and depth stay as they are to the bit.

    Args:
        scene: any scene.
        lights: replace all lights of the scene.
        exposure: None keeps the scene's own.

    Example:
        >>> lamp = Light("sphere", (0, 0, 2.2), size=(0.2, 0.2), colour=(1, 0.8, 0.6), power=4)
        >>> night = with_light(room, lamp)
    """
    if not lights:
        raise ValueError("no lights given, expected at least one Light: a scene without light is black.")
    return replace(scene, lights=lights, exposure=scene.exposure if exposure is None else exposure)


def with_texture(scene: Scene, thing: int | str, material: Material | None = None, **changes) -> Scene:
    """The same scene, with another texture on one thing; geometry, ids and depth stay as they are to the bit.

    Args:
        scene: any scene.
        thing: index into ``scene.things``, or its word ("ball", "floor"): the first of that name.
        material: the new material; None changes the old one by ``changes``.
        changes: fields of `Material`, such as ``pattern="checker"``.

    Raises:
        ValueError: no such thing, or no such pattern.
        TypeError: no such field.

    Example:
        >>> with_texture(room, "floor", pattern="tiled", scale=0.3)
    """
    from workbench.world.materials import PATTERNS  # which needs this file

    index = index_of(scene, thing)
    old = scene.things[index]
    first = old.parts[0].material
    new = replace(material or first, **changes)
    check.choice(new.pattern, "pattern", PATTERNS)
    parts = tuple(replace(p, material=new) if p.material == first else p for p in old.parts)
    return _with_thing(scene, index, replace(old, parts=parts))


def with_thing_moved(scene: Scene, thing: int | str, position: Vector | None = None, yaw: float | None = None) -> Scene:
    """The same scene after one thing has moved: a new position (m), a new yaw (degrees), or both."""
    index = index_of(scene, thing)
    old = scene.things[index]
    changed = replace(
        old,
        position=old.position if position is None else tuple(float(v) for v in position),
        yaw=old.yaw if yaw is None else float(yaw),
    )
    return _with_thing(scene, index, changed)


def index_of(scene: Scene, thing: int | str) -> int:
    """Index into ``scene.things`` of a thing, given by its index or its word: the first of that name.

    Raises:
        ValueError: no such thing.
    """
    if isinstance(thing, str):
        return scene.find(thing)
    return check.integer(thing, "thing", 0, len(scene.things) - 1)


def _with_thing(scene: Scene, index: int, thing: Thing) -> Scene:
    return replace(scene, things=(*scene.things[:index], thing, *scene.things[index + 1 :]))


def to_json(scene: Scene) -> str:
    """A scene as JSON text; `from_json` gives an equal scene back."""
    values = json.loads(json.dumps(dataclasses.asdict(scene)))
    exact = _build(Scene, values, "scene")  # whole numbers become floats where floats are meant
    return json.dumps(dataclasses.asdict(exact), separators=(",", ":"), sort_keys=True)


def from_json(text: str) -> Scene:
    """The scene that `to_json` wrote.

    Raises:
        ValueError: not JSON, or not of a scene; the message names the field.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the text is not JSON ({error}), expected what to_json wrote.") from None
    return _build(Scene, data, "scene")


def _build(kind, data, where: str):
    """JSON values back into dataclasses and tuples, by the type hints."""
    if dataclasses.is_dataclass(kind):
        fields = typing.get_type_hints(kind)
        if not isinstance(data, dict) or not set(data) <= set(fields):
            known = ", ".join(fields)
            raise ValueError(f"{where} is {str(data)[:60]}, expected an object with the fields {known}.")
        try:
            return kind(**{name: _build(fields[name], value, f"{where}.{name}") for name, value in data.items()})
        except TypeError as error:
            raise ValueError(f"{where} lacks a field: {error}.") from None
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if not isinstance(data, list) or (inner[-1] is not Ellipsis and len(data) != len(inner)):
            raise ValueError(f"{where} is {str(data)[:60]}, expected a list for {kind}.")
        kinds = [inner[0]] * len(data) if inner[-1] is Ellipsis else inner
        return tuple(_build(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, data, strict=True)))
    return float(data) if kind is float and isinstance(data, int) else data
