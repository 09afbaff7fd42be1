"""What the bundled models learn from: rendered views in many photographic styles, and crops of photographs.

Everything is drawn from a list of whole numbers (seed, step, item), never from a generator that runs along: a picture
depends on its place in the training only, whoever computes it and whenever. That makes resuming exact, and many
processes equal to one.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from workbench import check, data
from workbench import image as pictures
from workbench import mask as masks
from workbench.diffusion.models import SIZE

HELD_OUT = ("chelsea", "coffee", "motorcycle_left", "motorcycle_right")
"""Photographs no model ever learns from: lessons and cards judge by them."""
VALIDATION_CROPS = 4
"""Crops of each held-out photograph that quality is measured on."""


def generator(*numbers: int) -> np.random.Generator:
    """A generator that depends on these whole numbers only."""
    return np.random.default_rng(list(numbers))


def gaussian(rng: np.random.Generator, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal noise, float32."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def training_photographs() -> list[str]:
    """Names of the catalogue's photographs that may be learnt from."""
    return [name for name in data.photographs() if name not in HELD_OUT]


class Crops:
    """Random square crops of photographs.

    Args:
        names: of the catalogue; None takes `training_photographs`.
        size: side of a crop in pixels, after scaling.

    Raises:
        ValueError: a photograph that is held out.
    """

    def __init__(self, names: Iterable[str] | None = None, size: int = SIZE):
        self.names = list(training_photographs() if names is None else names)
        held = sorted(set(self.names) & set(HELD_OUT))
        if held:
            raise ValueError(f"names holds {', '.join(held)}: held out, no model may learn from it. Leave it out.")
        self.size = size
        self._photographs = [torch.from_numpy(pictures.to_uint8(pictures.load_image(n))) for n in self.names]

    def draw(self, rng: np.random.Generator) -> dict:
        """One crop: image (3, size, size) in [0, 1], its caption, and the name of its photograph."""
        k = int(rng.integers(len(self.names)))
        photo = self._photographs[k]  # (H, W, 3)
        short = min(photo.shape[:2])
        side = round(float(np.exp(rng.uniform(np.log(min(self.size, short)), np.log(short)))))
        y, x = (int(rng.integers(n - side + 1)) for n in photo.shape[:2])
        crop = photo[y : y + side, x : x + side].permute(2, 0, 1)[None].float() / 255  # (1, 3, side, side)
        image = pictures.resize(crop, (self.size, self.size))[0]
        caption = data.photograph(self.names[k]).caption
        return {"image": image, "caption": f"a photo of {caption}", "name": self.names[k]}


class TrainingPictures:
    """Rendered views, and crops of photographs among them, by number.

    Args:
        folders: what ``python -m workbench.world`` wrote; views of any kind, 128 x 128.
        photo_share: share of crops among all pictures, 0 to 1.
        style: strength of the photographic styles, 0 none.
        kinds: which kinds of data sets are taken; None takes all.
        close: share of views of rooms and facades that are drawn as `close_up`, 0 to 1.
        alone: share of them that are drawn as `cut_free`; closeness is drawn from the others.

    Raises:
        FileNotFoundError: a folder holds no rendered views.
        ValueError: views of another size, or no folder of a wanted kind.
    """

    def __init__(
        self,
        folders: Iterable,
        photo_share: float = 0.0,
        style: float = 1.0,
        kinds=None,
        close: float = 0.0,
        alone: float = 0.0,
    ):
        from workbench.world.dataset import RenderedSet

        sets = [RenderedSet(folder) for folder in folders]
        self.sets = [s for s in sets if kinds is None or s.plan["kind"] in kinds]
        self.photo_share = check.number(photo_share, "photo_share", 0, 1)
        self.style = check.number(style, "style", 0, 2)
        self.close = check.number(close, "close", 0, 1)
        self.alone = check.number(alone, "alone", 0, 1)
        if not self.sets:
            told = ", ".join(s.plan["kind"] for s in sets) or "nothing"
            raise ValueError(f"the folders hold {told}, expected views of kind {' or '.join(kinds or ('any',))}.")
        for s in self.sets:
            if s.plan["size"] != [SIZE, SIZE]:
                raise ValueError(f"views are {s.plan['size']} (H, W), expected {SIZE} x {SIZE}. Render them so.")
        self.crops = Crops() if photo_share > 0 else None
        self._ends = np.cumsum([len(s) for s in self.sets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row(self, index: int) -> dict:
        """A view as it was rendered, see `world.RenderedSet`."""
        k = int(np.searchsorted(self._ends, index, side="right"))
        return self.sets[k][index - (int(self._ends[k - 1]) if k else 0)]

    def draw(self, rng: np.random.Generator) -> dict:
        """One picture: image (3, H, W) in [0, 1] and caption; views also have all that `world.RenderedSet` tells."""
        if self.crops is not None and rng.random() < self.photo_share:
            out = self.crops.draw(rng)
            return {**out, "image": _flipped(out["image"], rng.random() < 0.5)}
        return self.view(int(rng.integers(len(self))), rng)

    def view(self, index: int, rng: np.random.Generator | None = None) -> dict:
        """One view, in a random style and perhaps mirrored; as it was rendered without ``rng``."""
        from workbench.world.views import on_background

        out = self.row(index)
        if rng is not None and self.alone > 0 and "foreground" not in out and rng.random() < self.alone:
            out = cut_free(out, rng)
        if "foreground" in out:
            background = self._background(rng)
            out["image"] = out["foreground"] * out["alpha"] + background * (1 - out["alpha"])
            if rng is not None and background.numel() == 3:
                out["caption"] = on_background(out["caption"], background.flatten().tolist())
        if rng is None:
            return out
        from workbench.world.style import apply_style, random_style

        if self.close > 0 and "foreground" not in out and rng.random() < self.close:
            out = close_up(out, rng)
        if self.style > 0:
            seed = int(rng.integers(2**31))
            out["image"] = apply_style(out["image"][None], random_style(seed, self.style), seed)[0]
        mirrored = rng.random() < 0.5
        return {**out, **{key: _flipped(out[key], mirrored) for key in ("image", "depth", "ids") if key in out}}

    def _background(self, rng: np.random.Generator | None) -> torch.Tensor:
        """What a sprite stands before: a colour, or another view or crop; (3, 1, 1) or (3, H, W). Grey without rng."""
        if rng is None:
            return torch.full((3, 1, 1), 0.5)
        choice = rng.random()
        if choice < 0.75:
            return torch.from_numpy(rng.random((3, 1, 1), dtype=np.float32))
        if choice < 0.87 and self.crops is not None:
            return self.crops.draw(rng)["image"]
        other = self.row(int(rng.integers(len(self))))
        return other["image"] if "image" in other else torch.from_numpy(rng.random((3, 1, 1), dtype=np.float32))


def cut_out(view: dict, x: int, y: int, side: int) -> dict:
    """image (3, H, W) and ids (H, W) of a square of a view, enlarged to the view's size."""
    size = view["image"].shape[-2:]
    ids = view["ids"][None, None, y : y + side, x : x + side].float()
    image = pictures.resize(view["image"][None, :, y : y + side, x : x + side], size)[0]
    return {"image": image, "ids": torch.nn.functional.interpolate(ids, size).long()[0, 0]}


def close_up(view: dict, rng: np.random.Generator) -> dict:
    """A view seen nearer, about one of its things, with the caption of what is still seen: image, ids, caption.

    Most things of a room are small in it, and each is one of many in its caption. Here they are learnt one by one. The
    square has at least half of the view's side. Things are drawn whatever their size; a view without any stays whole.
    """
    from workbench.world.views import SURROUNDINGS, kind_of, seen_in, sentence

    things, whole = view["things"], view["ids"].shape[-1]
    seen = [i for i in seen_in(view["ids"], len(things)) if things[i].split()[-1] not in SURROUNDINGS]
    if not seen:
        return view
    ys, xs = torch.nonzero(view["ids"] == 1 + int(rng.choice(seen)), as_tuple=True)
    (x0, x1), (y0, y1) = ((int(at.min()), int(at.max()) + 1) for at in (xs, ys))
    side = min(whole, max(whole // 2, int(max(x1 - x0, y1 - y0) * rng.uniform(1.2, 2.5))))
    x, y = (_start(rng, *ends, side, whole) for ends in ((x0, x1), (y0, y1)))
    part = cut_out(view, x, y, side)
    return {**part, "caption": sentence(kind_of(view["labels"]), things, seen_in(part["ids"], len(things)))}


def _start(rng: np.random.Generator, low: int, high: int, side: int, whole: int) -> int:
    """Where a square of this side begins, in 0 ... whole, so that [low, high) lies in it."""
    first, last = max(0, high - side), min(low, whole - side)
    return int(rng.integers(first, last + 1)) if first <= last else min(first, whole - side)


def cut_free(view: dict, rng: np.random.Generator) -> dict:
    """One of a view's things by itself, enlarged, as a sprite: foreground, alpha, ids, things, labels and caption.

    So that each word is learnt with nothing else in the picture. What hides a part of the thing leaves a gap in it. A
    view none of whose things is whole and a fifth of its side large is given back as it is.
    """
    from workbench.world.views import SURROUNDINGS, label_vector, seen_in, sentence

    things, ids, size = view["things"], view["ids"], view["ids"].shape[-1]
    boxes = {}
    for i in seen_in(ids, len(things)):
        ys, xs = torch.nonzero(ids == 1 + i, as_tuple=True)
        x0, x1, y0, y1 = int(xs.min()), int(xs.max()) + 1, int(ys.min()), int(ys.max()) + 1
        inside = min(x0, y0) > 0 and max(x1, y1) < size
        if inside and max(x1 - x0, y1 - y0) >= size // 5 and things[i].split()[-1] not in SURROUNDINGS:
            boxes[i] = (x0, x1, y0, y1)
    if not boxes:
        return view
    i = int(rng.choice(list(boxes)))
    x0, x1, y0, y1 = boxes[i]
    side = round(max(x1 - x0, y1 - y0) * rng.uniform(1.1, 1.7))
    x, y = (int(rng.integers(high - side, low + 1)) + side for low, high in ((x0, x1), (y0, y1)))
    stacked = torch.cat([view["image"], (ids == 1 + i)[None].float()])[None]  # (1, 4, H, W)
    part = torch.nn.functional.pad(stacked, (side,) * 4)[..., y : y + side, x : x + side]
    foreground, alpha = (pictures.resize(each, (size, size))[0] for each in part.split((3, 1), 1))
    alpha = (2 * alpha - 0.9).clamp(0, 1)  # the thing's outermost pixels hold some of what was behind it
    return {
        "foreground": foreground,
        "alpha": alpha,
        "ids": (alpha[0] > 0.5).long(),
        "things": [things[i]],
        "labels": label_vector(["sprite", things[i]]),
        "caption": sentence("sprite", [things[i]], [0]),
    }


def held_out_crops() -> torch.Tensor:
    """Crops of the photographs no model has seen, (N, 3, 128, 128), always the same."""
    crops = []
    for name in HELD_OUT:
        photo = pictures.load_image(name)  # (1, 3, H, W)
        height, width = photo.shape[-2:]
        side = min(height, width) * 2 // 3
        for k in range(VALIDATION_CROPS):
            y, x = (height - side) * (k // 2), (width - side) * (k % 2)
            crops.append(pictures.resize(photo[..., y : y + side, x : x + side], (SIZE, SIZE)))
    return torch.cat(crops)


def training_mask(rng: np.random.Generator, size: tuple[int, int] = (SIZE, SIZE)) -> torch.Tensor:
    """One hole to learn inpainting from, (1, 1, H, W).

    Four in ten are brush strokes over 5 % to 60 % of the picture, three are rectangles or all but rectangles, two
    one large box, one the whole picture: nothing given, as text-to-image.
    """
    kind, seed = rng.random(), int(rng.integers(2**31))
    height, width = size
    if kind < 0.4:
        return masks.irregular(size, (0.05, 0.6), seed)
    if kind < 0.7:
        return masks.rectangles(size, seed, count=(1, 12))
    if kind < 0.9:
        h, w = (int(n * rng.uniform(0.25, 0.75)) for n in size)
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        return masks.box(size, (x, y, x + w, y + h))
    return torch.ones(1, 1, *size)


def _flipped(image: torch.Tensor, mirrored: bool) -> torch.Tensor:
    return image.flip(-1) if mirrored else image
