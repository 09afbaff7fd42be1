"""What DiffuMatting learns from: things with exact mattes, on green and elsewhere, rendered or from public sets.

Sources are `Mattes`: numbered foregrounds with alpha and caption. `SpriteMattes` are the world's, `FolderMattes` read
the folder layouts of public sets, `keyed_frames` gets them out of green-screen videos.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from workbench import check
from workbench.diffusion.models import SIZE
from workbench.diffusion.training_data import Crops
from workbench.image import load_frames, load_grey, load_image, pad, resize
from workbench.methods.diffumatting.attention import green_caption
from workbench.methods.diffumatting.greenpost import chroma_key
from workbench.world import apply_style, composite, random_style
from workbench.world.sprites import KINDS

GREEN = (0.0, 1.0, 0.0)
"""The canvas."""
EVERY = 20
"""Of a video one frame in so many is taken."""
SOLID = 0.95
"""From this alpha on a photograph's colour is taken to be the thing's own."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Layout(NamedTuple):
    """Where a public set keeps its pictures.

    Args:
        pictures: folder, inside the set's, of foregrounds or photographs.
        mattes: folder of the mattes, which have the pictures' names.
        foreground: whether pictures are foregrounds without any background; else whole photographs, whose colours
            count where alpha is high and are spread from there.
    """

    pictures: str
    mattes: str
    foreground: bool = False


LAYOUTS = {
    "adobe": Layout("fg", "alpha", True),
    "distinctions646": Layout("FG", "GT", True),
    "videomatte240k": Layout("fgr", "pha", True),
    "am2k": Layout("original", "mask"),
    "p3m": Layout("blurred_image", "mask"),
    "ppm100": Layout("image", "matte"),
    "dis5k": Layout("im", "gt"),
    "hrsod": Layout("HRSOD_train", "HRSOD_train_mask"),
    "duts": Layout("DUTS-TR-Image", "DUTS-TR-Mask"),
    "thinobject5k": Layout("images", "masks"),
    "msra10k": Layout(".", "."),
    "plain": Layout("image", "alpha"),
    "foregrounds": Layout("foreground", "alpha", True),
}
"""Name -> layout of the sets that Green100K was made of, as they are handed out, and two for one's own. In MSRA10K
picture (.jpg) and matte (.png) lie side by side."""


class Matte(NamedTuple):
    """One thing.

    Args:
        foreground: (1, 3, H, W) in [0, 1], not premultiplied.
        alpha: (1, 1, H, W) in [0, 1].
        caption: what it is, no background named; "" where nobody says.
    """

    foreground: torch.Tensor
    alpha: torch.Tensor
    caption: str = ""


class Mattes(ABC):
    """Things with mattes, by number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Matte: ...

    def draw(self, rng: np.random.Generator, style: float = 0.0) -> Matte:
        """One of them, perhaps mirrored, its colours in a random photographic style of this strength."""
        foreground, alpha, caption = self[int(rng.integers(len(self)))]
        if style > 0:
            seed = int(rng.integers(2**31))
            foreground = apply_style(foreground, random_style(seed, style), seed)
        if rng.random() < 0.5:
            foreground, alpha = foreground.flip(-1), alpha.flip(-1)
        return Matte(foreground, alpha, caption)


class SpriteMattes(Mattes):
    """The world's sprites, whose alpha is exact.

    Args:
        folders: what ``python -m workbench.world --kind sprite`` wrote.
        count: how many are taken; None: all.
        kinds: of `workbench.world.sprites.KINDS`, such as ("creature", "hair"); None: all. What a training has never
            seen is judged by leaving kinds out.

    Raises:
        FileNotFoundError: a folder holds no rendered views.
        ValueError: they are no sprites, not so many, or there is no such kind.
    """

    def __init__(self, folders: Iterable, count: int | None = None, kinds: Sequence[str] | None = None):
        from workbench.world.dataset import RenderedSet

        self.sets = [RenderedSet(folder) for folder in folders]
        for each in self.sets:
            if each.plan["kind"] != "sprite":
                raise ValueError(
                    f"a folder holds views of kind {each.plan['kind']}, expected sprites, which have an alpha: "
                    "python -m workbench.world --kind sprite."
                )
        wanted = KINDS if kinds is None else [check.choice(kind, "kinds", KINDS) for kind in kinds]
        self._rows = [
            (each, row) for each in self.sets for row, seed in enumerate(each.arrays["seed"]) if _kind(seed) in wanted
        ]
        if not self._rows:
            raise ValueError(f"no sprite is of kind {' or '.join(wanted)}, expected some in these folders.")
        if count is not None:
            self._rows = self._rows[: check.integer(count, "count", 1, len(self._rows))]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Matte:
        owner, row = self._rows[index]
        found = owner[row]
        return Matte(found["foreground"][None], found["alpha"][None], found["caption"])


def _kind(seed: int) -> str:
    """Data sets take the kinds in turn, as `make_sprite` does by the seed."""
    return KINDS[int(seed) % len(KINDS)]


class FolderMattes(Mattes):
    """A public matting set, or one's own, read from its folders.

    Args:
        folder: the set's, or that of one of its parts (train, test).
        layout: a name in `LAYOUTS`, or a `Layout`.
        caption: what the things are called, one for all; or a dict from file names without ending to captions, of
            which a missing one is "".
        max_side: larger pictures are made smaller as they are read.

    Raises:
        FileNotFoundError: no such folders, or no picture with a matte in them.
        ValueError: an unknown layout.

    Example:
        >>> FolderMattes("AIM/train", "adobe", "a photo of a thing")[0].alpha.shape
    """

    def __init__(self, folder, layout="plain", caption: str | dict[str, str] = "", max_side: int | None = None):
        self.folder = Path(folder)
        self.layout = layout if isinstance(layout, Layout) else LAYOUTS[check.choice(layout, "layout", LAYOUTS)]
        self.caption, self.max_side = caption, max_side
        places = [self.folder / name for name in self.layout[:2]]
        for place in places:
            if not place.is_dir():
                raise FileNotFoundError(
                    f"{place} is not there, expected a folder: layout {layout!r} has pictures in "
                    f"{self.layout.pictures}/ and mattes in {self.layout.mattes}/ of {self.folder}."
                )
        together = self.layout.pictures == self.layout.mattes
        pictures = _by_name(places[0], [e for e in PICTURES if not together or e in (".jpg", ".jpeg")])
        mattes = _by_name(places[1], [e for e in PICTURES if not together or e == ".png"])
        self._pairs = [(name, pictures[name], mattes[name]) for name in pictures if name in mattes]
        if not self._pairs:
            raise FileNotFoundError(
                f"{self.folder} has {len(pictures)} pictures and {len(mattes)} mattes but none of one name, expected "
                f"{self.layout.pictures}/NAME.jpg beside {self.layout.mattes}/NAME.png."
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Matte:
        name, picture, matte = self._pairs[index]
        image, alpha = load_image(picture), load_grey(matte)
        if image.shape[-2:] != alpha.shape[-2:]:
            raise ValueError(
                f"{picture} is {tuple(image.shape[-2:])} and {matte} is {tuple(alpha.shape[-2:])} (H, W), expected the "
                "same size: a matte belongs to each pixel."
            )
        if not self.layout.foreground:
            image = spread_colours(image, alpha)
        if self.max_side is not None:
            image, alpha = _smaller(image, alpha, self.max_side)
        caption = self.caption if isinstance(self.caption, str) else self.caption.get(Path(name).name, "")
        return Matte(image, alpha, caption)


def _by_name(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Pictures of a folder and its sub-folders (clips of frames), by their paths without ending, sorted."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in endings and file.is_file())
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _smaller(foreground: torch.Tensor, alpha: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both made smaller, if need be, until no side is longer; colours weighed by alpha, so that nothing bleeds in."""
    height, width = alpha.shape[-2:]
    scale = side / max(height, width)
    if scale >= 1:
        return foreground, alpha
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = resize(alpha, size)
    weighed = resize(foreground * alpha, size) / small.clamp(min=1e-3)
    return torch.where(small > 0.01, weighed, resize(foreground, size)).clamp(0, 1), small


def spread_colours(image: torch.Tensor, alpha: torch.Tensor, solid: float = SOLID) -> torch.Tensor:
    """The thing's own colours, where only a photograph of it is there: from the nearest solid pixel.

    F(p) = I(q), q the nearest pixel to p with alpha >= ``solid``; I(p) where nothing is solid. PyMatting's
    `greenpost.estimate_foreground` is better and slower.

    Args:
        image: (1, 3, H, W).
        alpha: (1, 1, H, W).
    """
    sure = alpha[0, 0].numpy() >= solid
    if not sure.any():
        return image
    rows, columns = ndimage.distance_transform_edt(~sure, return_distances=False, return_indices=True)
    return image[..., torch.from_numpy(rows), torch.from_numpy(columns)]


def squared(matte: Matte, side: int = SIZE) -> Matte:
    """The same thing in a square picture: padded with nothing round it, then resized."""
    height, width = matte.alpha.shape[-2:]
    if (height, width) == (side, side):
        return matte
    longest = max(height, width)
    low, left = (longest - height) // 2, (longest - width) // 2
    edges = {"left": left, "top": low, "right": longest - width - left, "bottom": longest - height - low}
    foreground, alpha = (pad(x, **edges) for x in matte[:2])
    inside = torch.zeros_like(alpha)
    inside[..., low : low + height, left : left + width] = 1
    foreground, alpha = _smaller(foreground, alpha * inside, side)
    if longest < side:
        foreground, alpha = resize(foreground, (side, side)), resize(alpha, (side, side))
    return Matte(foreground, alpha, matte.caption)


# Pictures


class Example(NamedTuple):
    """A picture with its truth.

    Args:
        image: (1, 3, H, W), the composite.
        alpha: (1, 1, H, W).
        foreground: (1, 3, H, W).
        caption: with the background, if it is green.
    """

    image: torch.Tensor
    alpha: torch.Tensor
    foreground: torch.Tensor
    caption: str


def on_green(matte: Matte) -> Example:
    """A thing on pure green, and a caption that says so.

    Example:
        >>> on_green(SpriteMattes(["out/sprites"])[0]).caption
        'a photo of a brown feather on a green background'
    """
    image = composite(matte.foreground, matte.alpha, GREEN)
    return Example(image, matte.alpha, matte.foreground, green_caption(matte.caption))


class Backgrounds:
    """What things stand before in the "real" set: photographs, and views of the world.

    Args:
        folders: rendered rooms and facades; none are needed.
        size: side of a background in pixels.
    """

    def __init__(self, folders: Iterable = (), size: int = SIZE):
        from workbench.world.dataset import RenderedSet

        self.size, self.crops = size, Crops(size=size)
        self.sets = [RenderedSet(folder) for folder in folders]
        for each in self.sets:
            if each.plan["kind"] == "sprite":
                raise ValueError("a folder holds sprites, expected rooms or facades: a background covers everything.")

    def draw(self, rng: np.random.Generator) -> torch.Tensor:
        """(1, 3, size, size): a crop of a photograph in half of the cases, else a view, where there are any."""
        if not self.sets or rng.random() < 0.5:
            image = self.crops.draw(rng)["image"][None]
        else:
            chosen = self.sets[int(rng.integers(len(self.sets)))]
            image = chosen[int(rng.integers(len(chosen)))]["image"][None]
            image = resize(image, (self.size, self.size))
        return image.flip(-1) if rng.random() < 0.5 else image


def before(matte: Matte, background: torch.Tensor) -> Example:
    """A thing before another background, (1, 3, H, W) of its size: the "real" set's pictures."""
    return Example(composite(matte.foreground, matte.alpha, background), matte.alpha, matte.foreground, matte.caption)


# Green-screen videos


def keyed_frames(file, every: int = EVERY, caption: str = "", screen=None) -> Iterator[Matte]:
    """Portraits from a green-screen video: one frame in ``every``, keyed.

    Args:
        file: a video, see `wb.image.load_frames`.
        every: take the first frame and each so many after it.
        caption: for all of them.
        screen: the screen's colour (r, g, b); None measures each frame's, the median along its upper edge and sides.

    Yields:
        `Matte`, by `greenpost.chroma_key`.

    Raises:
        FileNotFoundError, ImageFileError, NotAvailable: see `wb.image.load_frames`.
        ValueError: the screen is not green.

    Source: DiffuMatting, Green100K: one frame in 20 of self-shot portrait videos (keyed there in video software).
    """
    for image in load_frames(file, every=every).split(1):
        colour = screen_colour(image) if screen is None else screen
        alpha, foreground = chroma_key(image, colour)
        yield Matte(foreground, alpha, caption)


def screen_colour(image: torch.Tensor, width: float = 0.05) -> tuple[float, float, float]:
    """The median colour along the upper edge and the two sides of a picture, where nobody stands.

    Args:
        image: (1, 3, H, W).
        width: of the border, a share of the shorter side.

    Raises:
        ValueError: it is not green.
    """
    n = max(1, math.ceil(width * min(check.image(image).shape[-2:])))
    top, left, right = image[0, :, :n], image[0, :, :, :n], image[0, :, :, -n:]
    colour = torch.cat([part.flatten(1) for part in (top, left, right)], 1).median(1).values  # (3,)
    r, g, b = (round(float(v), 6) for v in colour)
    if g - max(r, b) < 0.1:
        raise ValueError(
            f"the border's colour is ({r:.2f}, {g:.2f}, {b:.2f}), expected a green screen: green at least 0.1 above "
            "red and blue. Give screen=(r, g, b) if something stands at the border."
        )
    return r, g, b
