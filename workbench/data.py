"""The catalogue: which photographs there are, who made them, under which licence, and where they lie.

Nothing is downloaded: the photographs ship with scikit-image and scikit-learn. This module knows
names and files only; ``wb.load_image("coffee")`` decodes them.

The rendered benchmark is offered here too: `scenes()` and `scene(name)`, `clips()` and `clip(name)`, `sprites()` and
`sprite(name)` are those of `workbench.world.reader`, fetched when first asked for.
"""

import difflib
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workbench import check

MODELS = Path(__file__).resolve().parents[1] / "data" / "models"
"""Where the bundled models lie, a folder each."""


@dataclass(frozen=True)
class Photograph:
    """One photograph of the catalogue.

    Args:
        name: what ``wb.load_image`` takes.
        size: (H, W) in pixels.
        caption: one line for a person, usable as a prompt.
        licence: the terms it comes under.
        source: who made it, and where it was published.
        sha256: checksum of the file.
        file: package and path inside the package.
    """

    name: str
    size: tuple[int, int]
    caption: str
    licence: str
    source: str
    sha256: str
    file: tuple[str, str]

    @property
    def path(self) -> Path:
        """Where the file lies on this machine. Raises NotAvailable if its package is gone."""
        return _package_file(*self.file)


_CC0 = "CC0 1.0"
_PUBLIC = "public domain"
_CC_BY = "CC BY 2.0"
_MIDDLEBURY = "free for research with citation (Middlebury Stereo 2014)"
_STEREO = "D. Scharstein et al., High-resolution stereo datasets with subpixel-accurate ground truth, GCPR 2014"


def _skimage(name, size, caption, licence, source, sha256, file=None):
    return Photograph(name, size, caption, licence, source, sha256, ("skimage", f"data/{file or name + '.png'}"))


def _sklearn(name, size, caption, licence, source, sha256):
    return Photograph(name, size, caption, licence, source, sha256, ("sklearn", f"datasets/images/{name}.jpg"))


_PHOTOGRAPHS = {
    photograph.name: photograph
    for photograph in (
        _skimage("astronaut", (512, 512), "a portrait of an astronaut in an orange suit", _PUBLIC,
                 "NASA Great Images: Eileen Collins",
                 "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
        _skimage("brick", (512, 512), "a brick wall, grey", _CC0, "CC0 Textures: Bricks25",
                 "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
        _skimage("camera", (512, 512), "a photographer with a tripod on a lawn, grey", _CC0, "Lav Varshney",
                 "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
        _skimage("chelsea", (300, 451), "a tabby cat looking at the camera", _CC0, "Stefan van der Walt",
                 "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
        _sklearn("china", (427, 640), "a Chinese temple roof under a clear sky", _CC_BY, "danielbuechele, Flickr",
                 "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"),
        _skimage("coffee", (400, 600), "a cup of coffee on a wooden table", _CC0, "Rachel Michetti",
                 "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
        _skimage("coins", (303, 384), "Greek coins from Pompeii, grey", _PUBLIC, "Brooklyn Museum Collection",
                 "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
        _sklearn("flower", (427, 640), "an apricot dahlia in front of dark leaves", _CC_BY, "vultilion, Flickr",
                 "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638"),
        _skimage("grass", (512, 512), "a lawn from above, grey", _CC0, "linolafett, DeviantArt: Grass 01",
                 "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
        _skimage("gravel", (512, 512), "gravel from above, grey", _CC0, "CC0 Textures: Gravel04",
                 "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
        _skimage("hubble", (872, 1000), "galaxies in the Hubble extreme deep field", _PUBLIC, "NASA, HubbleSite",
                 "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4", "hubble_deep_field.jpg"),
        _skimage("motorcycle_left", (500, 741), "a motorcycle in a garage, left view", _MIDDLEBURY, _STEREO,
                 "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
        _skimage("motorcycle_right", (500, 741), "a motorcycle in a garage, right view", _MIDDLEBURY, _STEREO,
                 "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797"),
        _skimage("retina", (1411, 1411), "the retina of a left eye", _CC0, "Mikael Haeggstroem, Wikimedia Commons",
                 "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6", "retina.jpg"),
        _skimage("rocket", (427, 640), "a rocket launch at dusk", _PUBLIC, "SpaceX: launch of DSCOVR",
                 "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c", "rocket.jpg"),
    )
}  # fmt: skip


def photographs() -> list[str]:
    """Names of all photographs in the catalogue, in alphabetical order.

    Example:
        >>> "coffee" in photographs()
        True
    """
    return sorted(_PHOTOGRAPHS)


def photograph(name: str) -> Photograph:
    """What the catalogue knows of one photograph: size, caption, licence, source, path.

    Args:
        name: one of `photographs()`.

    Raises:
        ValueError: no such name; the message offers the nearest ones.
    """
    if name not in _PHOTOGRAPHS:
        near = difflib.get_close_matches(str(name), _PHOTOGRAPHS, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(photographs())}."
        raise ValueError(f"no photograph is called {name!r}. {hint}")
    return _PHOTOGRAPHS[name]


def disparity() -> torch.Tensor:
    """True disparity of the Middlebury motorcycle pair.

    The point seen at (x, y) in ``motorcycle_left`` is seen at (x - d, y) in ``motorcycle_right``.

    Returns:
        float32 (1, 1, 500, 741): d in pixels (7 to 60); NaN where it was not measured.

    Source: Middlebury Stereo 2014, reduced four times by scikit-image.
    """
    with np.load(_package_file("skimage", "data/motorcycle_disp.npz"), allow_pickle=False) as file:
        d = torch.from_numpy(file["arr_0"].astype(np.float32))  # (H, W)
    return torch.where(d.isfinite(), d, torch.nan)[None, None]  # (1, 1, H, W)


def _package_file(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    file = Path(spec.submodule_search_locations[0], path) if spec else None
    if file is None or not file.exists():
        raise check.NotAvailable(
            f"{package} does not ship {path} here. Install the versions of environment.yml: make lab does it."
        )
    return file


def __getattr__(name: str):
    if name in ("scenes", "scene", "clips", "clip", "sprites", "sprite"):
        return getattr(importlib.import_module("workbench.world.reader"), name)
    raise AttributeError(f"module 'workbench.data' has no attribute {name!r}")
