"""The rendered benchmark of ``data/scenes``, read back. Needs no renderer.

Stored are lossless pictures, 16-bit depth, ids, cameras and poses; correspondences are computed from them when asked
for, so they are as exact as the depth: better than 0.05 pixels.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from workbench import check
from workbench.image import load_image
from workbench.world import geometry
from workbench.world.geometry import Correspondences
from workbench.world.scene import Camera, Thing

FOLDER = Path(__file__).parents[2] / "data" / "scenes"
"""Where the benchmark lies in a checkout."""
NEAR = 0.01
"""In clips a point counts as visible when it lies at most this share of its distance behind the stored depth."""


@dataclass(frozen=True)
class BenchmarkScene:
    """One place seen several times: a target to complete, and references.

    Args:
        name: what `scene` takes.
        kind: "room" or "facade".
        caption: one sentence about the target.
        gap: "" for most; else what makes the references differ much: "viewpoint", "light", "style", "light and style".
        seed: what it was made from.
        target: (1, 3, H, W), the ground truth.
        references: some of (1, 3, H, W).
        masks: name -> (1, 1, H, W), 1 = hole: "object", "irregular", "centre", "side", "outpaint".
        depth: (1, 1, H, W) of the target, metres along the viewing axis.
        ids: (H, W) of the target; 1 + index into ``things``.
        things: the words of all things.
        labels: what the target shows, of `views.LABELS`.
        cameras: of the target, then of the references.
        reference_depths, reference_ids: as ``depth`` and ``ids``, one for each reference.
    """

    name: str
    kind: str
    caption: str
    gap: str
    seed: int
    target: torch.Tensor = field(repr=False)
    references: tuple[torch.Tensor, ...] = field(repr=False)
    masks: dict[str, torch.Tensor] = field(repr=False)
    depth: torch.Tensor = field(repr=False)
    ids: torch.Tensor = field(repr=False)
    things: tuple[str, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    cameras: tuple[Camera, ...] = field(repr=False)
    reference_depths: tuple[torch.Tensor, ...] = field(repr=False)
    reference_ids: tuple[torch.Tensor, ...] = field(repr=False)
    _visible: np.ndarray = field(repr=False)

    def correspondences(self, reference: int, from_target: bool = False) -> Correspondences:
        """Where each pixel of a reference is in the target, and whether it is visible there.

        Args:
            reference: index into ``references``.
            from_target: the other way round: where each pixel of the target is in the reference.

        Returns:
            `Correspondences`: points (H, W, 2) as (x, y), visible (H, W).

        Example:
            >>> match = scene.correspondences(0)
            >>> x, y = match.points[40, 60]  # of the pixel in column 60, row 40 of references[0]
        """
        k = check.integer(reference, "reference", 0, len(self.references) - 1)
        a = (
            (self.depth, self.ids, self.cameras[0])
            if from_target
            else (self.reference_depths[k], self.reference_ids[k], self.cameras[k + 1])
        )
        other = self.cameras[k + 1] if from_target else self.cameras[0]
        size = tuple(self.ids.shape)
        pixels, _, _ = geometry.carry(a[0][0, 0].numpy(), a[1].numpy(), a[2], (), other, (), size)
        visible = self._visible[int(from_target), k]
        return Correspondences(torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(visible.copy()))


@dataclass(frozen=True)
class BenchmarkClip:
    """A short film with its ground truth.

    Args:
        name: what `clip` takes.
        caption: one sentence about the first frame.
        seed: what it was made from.
        frames: (T, 3, H, W) in [0, 1].
        depth: (T, 1, H, W), metres along the viewing axis.
        ids: (T, H, W); 1 + index into ``things``.
        things: the words of all things.
        moving: indices of the things that move.
        cameras: one a frame.
    """

    name: str
    caption: str
    seed: int
    frames: torch.Tensor = field(repr=False)
    depth: torch.Tensor = field(repr=False)
    ids: torch.Tensor = field(repr=False)
    things: tuple[str, ...] = field(repr=False)
    moving: tuple[int, ...]
    cameras: tuple[Camera, ...] = field(repr=False)
    _poses: tuple[tuple[Thing, ...], ...] = field(repr=False)

    def correspondences(self, a: int, b: int) -> Correspondences:
        """Where each pixel of frame a is in frame b; things that moved are followed.

        A point counts as visible when one of the four pixels about it in frame b shows the same thing, at most
        `NEAR` nearer.
        """
        a, b = (check.integer(v, n, 0, len(self.frames) - 1) for v, n in ((a, "a"), (b, "b")))
        depth, ids, size = self.depth[a, 0].numpy(), self.ids[a].numpy(), tuple(self.ids.shape[1:])
        pixels, z, inside = geometry.carry(
            depth, ids, self.cameras[a], self._poses[a], self.cameras[b], self._poses[b], size
        )
        visible = np.zeros(size, bool)
        corner = np.floor(np.nan_to_num(pixels) - 0.5).astype(int)  # (H, W, 2)
        for dx in (0, 1):
            for dy in (0, 1):
                x, y = np.clip(corner[..., 0] + dx, 0, size[1] - 1), np.clip(corner[..., 1] + dy, 0, size[0] - 1)
                there, what = self.depth[b, 0].numpy()[y, x], self.ids[b].numpy()[y, x]
                visible |= inside & (what == ids) & (there >= z * (1 - NEAR))
        return Correspondences(torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(visible))


@dataclass(frozen=True)
class BenchmarkSprite:
    """A single object with its alpha matte.

    Args:
        name: what `sprite` takes.
        kind: what it tests: "creature" (fur), "hair", "feather", "net", "shell" (translucent), "toy" (hard) ...
        caption: one sentence.
        seed: what it was made from.
        foreground: (1, 3, H, W), not premultiplied; black where alpha is 0.
        alpha: (1, 1, H, W) in [0, 1].
    """

    name: str
    kind: str
    caption: str
    seed: int
    foreground: torch.Tensor = field(repr=False)
    alpha: torch.Tensor = field(repr=False)

    def composite(self, background=(0.0, 1.0, 0.0)) -> torch.Tensor:
        """foreground alpha + background (1 - alpha): on pure green, another colour, or an image of the same size."""
        if not isinstance(background, torch.Tensor):
            background = torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1).expand_as(self.foreground)
        check.image(background, "background")
        check.same_size(background, self.foreground, "background", "sprite")
        return self.foreground * self.alpha + background * (1 - self.alpha)


def scenes(folder=FOLDER) -> list[str]:
    """Names of the multi-view scenes."""
    return [entry["name"] for entry in _manifest(Path(folder))["scenes"]]


def clips(folder=FOLDER) -> list[str]:
    """Names of the clips."""
    return [entry["name"] for entry in _manifest(Path(folder))["clips"]]


def sprites(folder=FOLDER) -> list[str]:
    """Names of the sprites."""
    return [entry["name"] for entry in _manifest(Path(folder))["sprites"]]


def scene(name: str, folder=FOLDER) -> BenchmarkScene:
    """One multi-view scene.

    Args:
        name: one of `scenes()`.
        folder: of the benchmark.

    Raises:
        ValueError: no such name, or a damaged file (by its checksum).
        NotAvailable: the benchmark is not there.

    Example:
        >>> room = scene("room-00")
        >>> len(room.references), sorted(room.masks)
    """
    entry = _entry(Path(folder), "scenes", name)
    arrays, pictures = _arrays(folder, entry["arrays"]), _strip(folder, entry["pictures"], len(entry["cameras"]))
    depths, ids = _depths(arrays, entry["far"])
    size = tuple(ids.shape[1:])
    masks = {
        key: torch.from_numpy(_unpacked(bits, size).astype(np.float32))[None, None]
        for key, bits in zip(entry["masks"], arrays["masks"], strict=True)
    }
    count = len(pictures) - 1
    visible = _unpacked(arrays["visible"], size).reshape(2, count, *size)
    return BenchmarkScene(
        entry["name"], entry["kind"], entry["caption"], entry["gap"], entry["seed"], pictures[0], tuple(pictures[1:]),
        masks, depths[0], ids[0], tuple(entry["things"]), tuple(entry["labels"]),
        tuple(_camera(c) for c in entry["cameras"]), tuple(depths[1:]), tuple(ids[1:]), visible,
    )  # fmt: skip


def clip(name: str, folder=FOLDER) -> BenchmarkClip:
    """One clip; arguments and errors as in `scene`."""
    entry = _entry(Path(folder), "clips", name)
    arrays, pictures = _arrays(folder, entry["arrays"]), _strip(folder, entry["pictures"], len(entry["cameras"]))
    depths, ids = _depths(arrays, entry["far"])
    words = entry["things"]
    still = [Thing(word, ()) for word in words]
    poses = []
    for frame in arrays["poses"]:  # (moving, 5)
        things = list(still)
        for i, (x, y, z, yaw, tilt) in zip(entry["moving"], frame.tolist(), strict=True):
            things[i] = Thing(words[i], (), (x, y, z), yaw, tilt)
        poses.append(tuple(things))
    return BenchmarkClip(
        entry["name"], entry["caption"], entry["seed"], torch.cat(pictures), torch.cat(depths), ids, tuple(words),
        tuple(entry["moving"]), tuple(_camera(c) for c in entry["cameras"]), tuple(poses),
    )  # fmt: skip


def sprite(name: str, folder=FOLDER) -> BenchmarkSprite:
    """One sprite; arguments and errors as in `scene`."""
    entry = _entry(Path(folder), "sprites", name)
    foreground, alpha = _strip(folder, entry["pictures"], 2)
    return BenchmarkSprite(
        entry["name"], entry["kind"], entry["caption"], entry["seed"], foreground, alpha[:, :1].contiguous()
    )


@lru_cache(maxsize=4)
def _manifest(folder: Path) -> dict:
    file = folder / "manifest.json"
    if not file.exists():
        raise check.NotAvailable(
            f"{file} is not there: the rendered benchmark is missing. Take data/scenes from the repository, or "
            f"render it again: python -m workbench.world --kind benchmark --out {folder}"
        )
    return json.loads(file.read_text())


def _entry(folder: Path, group: str, name: str) -> dict:
    entries = {entry["name"]: entry for entry in _manifest(folder)[group]}
    if name not in entries:
        raise ValueError(f"none of the {group} is called {name!r}. There are: {', '.join(entries)}.")
    return entries[name]


def _content(folder, name: str) -> bytes:
    """A file's bytes, compared with the manifest's checksum."""
    file = Path(folder) / name
    if not file.exists():
        raise check.NotAvailable(f"{file} is missing. Take it from the repository again: git checkout -- {file}")
    content = file.read_bytes()
    found, wanted = hashlib.sha256(content).hexdigest(), _manifest(Path(folder))["files"][name]
    if found != wanted:
        raise ValueError(
            f"{file} is damaged: its SHA-256 begins with {found[:12]}, expected {wanted[:12]}. "
            f"Take it from the repository again: git checkout -- {file}"
        )
    return content


def _arrays(folder, name: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(_content(folder, name)), allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _strip(folder, name: str, count: int) -> list[torch.Tensor]:
    """Pictures stored one below the other."""
    return list(load_image(_content(folder, name)).chunk(count, dim=2))


def _depths(arrays: dict, far: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Depth maps (1, 1, H, W) and ids (T, H, W)."""
    steps = np.cumsum(arrays["depth"], axis=2, dtype=np.uint16)  # stored as differences along the rows
    depth = (steps.astype(np.float64) * (far / 65535)).astype(np.float32)
    return [torch.from_numpy(d)[None, None] for d in depth], torch.from_numpy(arrays["ids"].astype(np.int64))


def _unpacked(bits: np.ndarray, size) -> np.ndarray:
    """Packed bits (..., ceil(H W / 8)) -> bool (..., H, W)."""
    flat = np.unpackbits(bits, axis=-1, count=size[0] * size[1])
    return flat.reshape(*bits.shape[:-1], *size).astype(bool)


def _camera(values) -> Camera:
    return Camera(tuple(values[:3]), tuple(values[3:6]), values[6])
