"""What is true about a picture in words and numbers: caption, labels, where each pixel is in another view."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from workbench.world import geometry
from workbench.world.geometry import Correspondences
from workbench.world.materials import COLOURS, colour_word
from workbench.world.rendering import View
from workbench.world.scene import Scene, Thing
from workbench.world.tracing import world_of

PATTERN_WORDS = {
    "checker": "checkered", "striped": "striped", "dotted": "dotted", "brick": "brick", "tiled": "tiled",
    "wooden": "wooden", "marbled": "marbled", "mottled": "mottled", "woven": "woven", "papered": "papered",
    "ashlar": "stone", "slatted": "slatted", "plaster": "plastered",
}  # fmt: skip
"""Pattern -> the word for it in captions; the others need none."""
OBJECTS = (
    "ball", "balcony", "base", "bowl", "box", "capsule", "ceiling", "chair", "cone", "cornice", "creature", "cube",
    "cup", "cupboard", "cylinder", "door", "feather", "fern", "floor", "hoop", "house", "lamp", "leaf", "net",
    "pavement", "picture", "pin", "plant", "prism", "pyramid", "ring", "road", "rug", "shelf", "shell", "skirting",
    "sky", "sofa", "star", "stool", "table", "teapot", "tower", "vase", "wall", "window",
)  # fmt: skip
"""All words things go by."""
KINDS = ("room", "facade", "sprite")
"""Kinds of scene."""
LABELS = (
    *KINDS, *OBJECTS, *COLOURS, *dict.fromkeys(PATTERN_WORDS.values()), "shiny",
)  # fmt: skip
"""Names of the entries of the label vector: kinds of scene, objects, colours, patterns."""
SURROUNDINGS = {"wall", "floor", "ceiling", "skirting", "sky", "road", "pavement", "base", "cornice", "house"}
"""What captions do not list as an object."""
VISIBLE = 0.004
"""A thing counts as visible when it covers this share of the picture."""


def visible_things(view: View, share: float = VISIBLE) -> list[int]:
    """Indices of the things that cover at least this share of the picture, the largest first."""
    return seen_in(view.ids, len(view.scene.things), share)


def seen_in(ids: torch.Tensor, things: int, share: float = VISIBLE) -> list[int]:
    """The same from ids (H, W): i + 1 where thing i of so many is seen, 0 for nothing."""
    counts = torch.bincount(ids.flatten(), minlength=things + 1)[1:]
    order = torch.argsort(counts, descending=True, stable=True).tolist()
    return [i for i in order if counts[i] >= share * ids.numel()]


def describe(thing: Thing) -> str:
    """A thing in words: "red striped ball"."""
    m = thing.parts[0].material
    if thing.word in ("plant", "picture", "window", "sky"):
        return thing.word
    words = ["shiny"] if m.gloss >= 0.6 else []
    if m.pattern != "wooden":
        words.append(colour_word(m.colour))
    if m.pattern in PATTERN_WORDS and m.pattern != "plaster":
        words.append(PATTERN_WORDS[m.pattern])
    return " ".join([*words, thing.word])


def caption(view: View, most: int = 4) -> str:
    """One sentence: the kind of scene, its ``most`` largest visible objects, and what it stands on.

    Example:
        >>> caption(view)
        'a photo of a room with a red striped ball and a blue cube on a brown wooden floor'
    """
    return sentence(view.scene.kind, [describe(thing) for thing in view.scene.things], visible_things(view), most)


def sentence(kind: str, things: Sequence[str], seen: Sequence[int], most: int = 4) -> str:
    """A caption from descriptions ("red striped ball") and the numbers of those that are seen, the largest first."""
    if kind == "sprite":
        return f"a photo of {with_article(things[0])}"
    words = [thing.split()[-1] for thing in things]
    listed, phrases = [i for i in seen if words[i] not in SURROUNDINGS], {}
    for i in listed:
        several = sum(words[j] == words[i] for j in listed) > 1 and (kind != "room" or words[i] == "window")
        phrases.setdefault(plural(words[i]) if several else with_article(things[i]), None)
    phrases = list(phrases)[:most]
    surroundings = {words[i]: things[i] for i in reversed(seen)}
    ground, house = "", with_article(kind)
    if "floor" in surroundings and kind == "room":
        ground = f" on {with_article(surroundings['floor'])}"
    if "wall" in surroundings and kind == "facade":
        house = with_article(surroundings["wall"].removesuffix("wall") + "facade")
    return f"a photo of {house}" + (f" with {listing(phrases)}" if phrases else "") + ground


def on_background(text: str, colour: Sequence[float]) -> str:
    """A sprite's caption before a plain colour (r, g, b).

    Example:
        >>> on_background("a photo of a red ball", (0.9, 0.5, 0.1))
        'a photo of a red ball on an orange background'
    """
    return f"{text} on {with_article(colour_word(colour))} background"


def shorter_caption(text: str, rng: np.random.Generator) -> str:
    """The same caption telling less, as people do: some of the things, some of their looks, perhaps not what is behind.

    Args:
        text: what `caption` wrote; any other text is given back as it is.
        rng: draws what is left out.

    Example:
        >>> shorter_caption("a photo of a room with a red striped ball and a blue cube on a brown wooden floor", rng)
        'a photo of a room with a striped ball'
    """
    found = re.fullmatch(r"a photo of (an? [^,]+?)(?: with (.+?))?(?: on (an? .+ (?:floor|background)))?", text)
    if found is None or not _WORDS.issuperset(re.findall(r"\w+", text)):
        return text
    house, things, ground = found.groups()
    listed = re.split(r", | and ", things) if things else []
    if listed:
        kept = rng.choice(len(listed), size=int(rng.integers(1, len(listed) + 1)), replace=False)
        listed = [_plainer(listed[i], rng) for i in sorted(kept)]
    ground = f" on {_plainer(ground, rng)}" if ground and rng.random() < 0.5 else ""
    return f"a photo of {_plainer(house, rng)}" + (f" with {listing(listed)}" if listed else "") + ground


def _plainer(phrase: str, rng: np.random.Generator) -> str:
    """ "a red striped ball" -> "a striped ball" or "a ball": each word before the last stays with even odds."""
    *looks, word = phrase.split()
    if not looks:  # a plural
        return word
    return with_article(" ".join([*(look for look in looks[1:] if rng.random() < 0.5), word]))


def listing(phrases: list[str]) -> str:
    """Phrases as a sentence names them: "a, b and c"."""
    return ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else "".join(phrases)


def with_article(words: str) -> str:
    """ "red ball" -> "a red ball"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def plural(word: str) -> str:
    """The word for several of them, as captions use it."""
    return {"shelf": "shelves", "box": "boxes", "balcony": "balconies"}.get(word, word + "s")


_WORDS = {"a", "an", "photo", "of", "with", "and", "on", "background", *LABELS, *map(plural, OBJECTS)}
"""What captions of rendered views are made of."""


def labels(view: View) -> torch.Tensor:
    """The multi-label vector: 1 for each of `LABELS` that some visible thing bears. float32 (len(LABELS),)."""
    return label_vector([view.scene.kind, *(describe(view.scene.things[i]) for i in visible_things(view))])


def kind_of(labels: torch.Tensor) -> str:
    """Which of `KINDS` a label vector (L,) names."""
    return KINDS[int(labels[: len(KINDS)].argmax())]


def label_vector(descriptions: Iterable[str]) -> torch.Tensor:
    """1 for each of `LABELS` among the words of the descriptions: float32 (len(LABELS),).

    Example:
        >>> label_vector(["room", "red striped ball"]).sum()
        tensor(4.)
    """
    words = {word for description in descriptions for word in description.split()}
    return torch.tensor([float(label in words) for label in LABELS])


def correspondences(a: View, b: View, tolerance: float = 2e-3) -> Correspondences:
    """Exact dense correspondences from view a to view b, also when things have moved in between.

    Each pixel's middle is followed as a point of its object; a ray from b's camera tells whether it is hidden.

    Args:
        a, b: two views of the same things (positions, light and textures may differ), of any sizes.
        tolerance: something hides a point when it is nearer by more than this share of the distance.

    Returns:
        `Correspondences` for the pixels of ``a``.

    Raises:
        ValueError: the views do not show the same things.

    Example:
        >>> match = correspondences(view, other)
        >>> match.points[64, 64], match.visible.float().mean()
    """
    check_same_things(a.scene, b.scene)
    depth, ids = a.depth[0, 0].numpy(), a.ids.numpy()
    pixels, z, inside = geometry.carry(depth, ids, a.camera, a.scene.things, b.camera, b.scene.things, b.size)
    eye = np.asarray(b.camera.position, np.float64)
    ways = geometry.ray_directions(b.camera, b.size, pixels[inside])  # one unit is one metre of depth
    visible = np.zeros(ids.shape, bool)
    visible[inside] = world_of(b.scene.things).cast(eye, ways).t >= z[inside] * (1 - tolerance)
    return Correspondences(torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(visible))


def check_same_things(a: Scene, b: Scene) -> None:
    """Raises ValueError unless both scenes hold the same shapes in the same order."""
    for x, y in zip(a.things, b.things, strict=False):
        if [(p.shape, p.size, p.position, p.turn) for p in x.parts] != [
            (p.shape, p.size, p.position, p.turn) for p in y.parts
        ]:
            raise ValueError(
                f"the views show different things ({x.word!r} and {y.word!r} differ in shape), expected two "
                "views of one scene, things moved at most. Change a scene with with_thing_moved, with_light or "
                "with_texture."
            )
    if len(a.things) != len(b.things):
        raise ValueError(f"the views show {len(a.things)} and {len(b.things)} things, expected two views of one scene.")
