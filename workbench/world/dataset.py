"""Data sets of rendered views: written in shards by any number of processes, read back as tensors.

A shard is one compressed NumPy file (uint8 pictures, 16-bit depth, 8-bit ids; never pickled) of some scenes: few files,
quick to read whole, and the unit of resuming: it appears complete or not at all. Pictures are stored clean;
`style.apply_style` varies them while training.
"""

import json
import multiprocessing
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from workbench import check
from workbench.world.seeds import split_seeds

VERSION = 1
KINDS = ("room", "facade", "sprite", "clip", "lit_clip")
CLIPS = ("clip", "lit_clip")
"""Several views of a scene are frames of a film; in the second kind its light changes too."""


@dataclass(frozen=True)
class Plan:
    """What a data set holds.

    Args:
        kind: one of `KINDS`.
        count: how many scenes.
        split: "train", "validation" or "benchmark": which seeds may be used.
        first: the first of them, counted within the split.
        size: (H, W) of each view.
        views: views of each scene (frames, for clips); the first is the scene's own camera.
        shard: scenes in one file.
    """

    kind: str
    count: int
    split: str = "train"
    first: int = 0
    size: tuple[int, int] = (128, 128)
    views: int = 1
    shard: int = 32

    def __post_init__(self):
        check.choice(self.kind, "kind", KINDS)
        check.size(self.size)
        check.integer(self.views, "views", 2 if self.kind in CLIPS else 1, 1 if self.kind == "sprite" else 1000)
        check.integer(self.shard, "shard", 1)
        split_seeds(self.split, self.first, self.count)

    @property
    def seeds(self) -> range:
        """Seeds of all scenes."""
        return split_seeds(self.split, self.first, self.count)

    def shards(self) -> dict[str, range]:
        """File name -> the seeds in it."""
        seeds = self.seeds
        return {f"{self.kind}-{seeds[i]:08d}.npz": seeds[i : i + self.shard] for i in range(0, len(seeds), self.shard)}


def render_dataset(plan: Plan, folder, workers: int = 1, progress: bool = True) -> Path:
    """Renders what is still missing of a data set.

    Args:
        plan: what to render.
        folder: where to; started anew or gone on with.
        workers: processes; each is busy with one core.
        progress: shows a bar.

    Returns:
        The folder.

    Raises:
        ValueError: the folder holds a data set made by another plan.
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(plan, folder / "plan.json")
    todo = [(plan, name, folder) for name in plan.shards() if not (folder / name).exists()]
    done = sum(len(s) for n, s in plan.shards().items() if (folder / n).exists())
    check.integer(workers, "workers", 1)
    with tqdm(total=plan.count, initial=done, unit="scene", disable=not progress) as bar:
        if workers == 1 or len(todo) <= 1:
            for job in todo:
                bar.update(_render_shard(job))
            return folder
        with multiprocessing.get_context("spawn").Pool(min(workers, len(todo)), _one_core) as pool:
            for count in pool.imap_unordered(_render_shard, todo):
                bar.update(count)
    return folder


def _one_core() -> None:
    torch.set_num_threads(1)


def _claim(plan: Plan, file: Path) -> None:
    """Writes the plan into an empty folder; in a used one it must be the same."""
    wanted = json.loads(json.dumps({"version": VERSION, **asdict(plan)}))
    if file.exists():
        found = json.loads(file.read_text())
        differing = [k for k in wanted if found.get(k) != wanted[k]]
        if differing:
            told = ", ".join(f"{k} {found.get(k)} instead of {wanted[k]}" for k in differing)
            raise ValueError(
                f"{file.parent} holds a data set of another plan ({told}). Choose another folder, or remove it."
            )
        return
    _write(file, lambda part: part.write_text(json.dumps(wanted)))


def _write(file: Path, write) -> None:
    """A file that appears whole or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        write(part)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _render_shard(job) -> int:
    """One file; returns how many scenes it holds."""
    plan, name, folder = job
    seeds = plan.shards()[name]
    rows = [row for seed in seeds for row in _rows(plan, seed)]
    arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}

    def write(part):
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)

    _write(folder / name, write)
    return len(seeds)


def _rows(plan: Plan, seed: int):
    """The stored arrays of each view of a scene."""
    from workbench.world import views
    from workbench.world.clips import make_clip
    from workbench.world.matting import render_sprite
    from workbench.world.rendering import render
    from workbench.world.sprites import make_sprite

    if plan.kind == "sprite":
        view = render_sprite(make_sprite(seed), size=plan.size)
        pictures = {"foreground": _bytes(view.foreground), "alpha": _bytes(view.alpha)[0]}
        return [{**pictures, **_common(views, view, seed)}]
    if plan.kind in CLIPS:
        clip = make_clip(seed, plan.views, light=plan.kind == "lit_clip")
        shots = [(frame, frame.camera) for frame in clip.frames]
    else:
        shots = _shots(plan, seed)
    rows = []
    for scene, camera in shots:
        view = render(scene, camera, plan.size)
        rows.append(
            {
                "image": _bytes(view.image),
                "materials": view.materials.numpy().astype(np.uint8),
                **_common(views, view, seed),
            }
        )
    return rows


def _shots(plan: Plan, seed: int):
    from workbench.world.cameras import other_camera
    from workbench.world.facades import make_facade
    from workbench.world.rooms import make_room

    scene = {"room": make_room, "facade": make_facade}[plan.kind](seed)
    return [(scene, scene.camera if k == 0 else other_camera(scene, seed * 1000 + k)) for k in range(plan.views)]


def _common(views, view, seed: int) -> dict:
    camera = view.camera
    return {
        "depth": view.depth[0, 0].numpy().astype(np.float16),
        "ids": view.ids.numpy().astype(np.uint8),
        "labels": views.labels(view).numpy().astype(np.uint8),
        "things": np.array("\n".join(views.describe(thing) for thing in view.scene.things)),
        "caption": np.array(views.caption(view), dtype="U240"),
        "seed": np.array(seed),
        "camera": np.array([*camera.position, *camera.target, camera.fov]),
    }


def _bytes(image: torch.Tensor) -> np.ndarray:
    """(1, C, H, W) in [0, 1] -> uint8 (C, H, W)."""
    return (image[0] * 255).round().to(torch.uint8).numpy()


class RenderedSet(torch.utils.data.Dataset):
    """A rendered data set in memory: all finished shards of a folder.

    Args:
        folder: what `render_dataset` wrote.

    Raises:
        FileNotFoundError: no plan, or no finished shard there.

    Example:
        >>> rooms = RenderedSet("out/rooms")
        >>> rooms[0]["image"].shape, rooms[0]["caption"]
    """

    def __init__(self, folder):
        folder = Path(folder)
        plan = folder / "plan.json"
        files = sorted(folder.glob("*-*.npz"))
        if not plan.exists() or not files:
            raise FileNotFoundError(
                f"{folder} holds no rendered data set. Make one: "
                f"python -m workbench.world --kind room --count 100 --out {folder}"
            )
        self.plan = json.loads(plan.read_text())
        shards = []
        for file in files:
            with np.load(file, allow_pickle=False) as data:
                shards.append({key: data[key] for key in data.files})
        self.arrays = {key: np.concatenate([s[key] for s in shards]) for key in shards[0]}

    def __len__(self) -> int:
        return len(self.arrays["seed"])

    def __getitem__(self, index: int) -> dict:
        """One view: image (3, H, W) in [0, 1] (sprites: foreground, alpha), depth (1, H, W), ids, labels, caption.

        ids (H, W) are i + 1 for things[i], a description such as "red striped ball"; 0 for nothing.
        """
        row = {key: values[index] for key, values in self.arrays.items()}
        out = {"caption": str(row["caption"]), "seed": int(row["seed"]), "camera": row["camera"]}
        for key in ("image", "foreground"):
            if key in row:
                out[key] = torch.from_numpy(row[key].astype(np.float32) / 255)
        if "alpha" in row:
            out["alpha"] = torch.from_numpy(row["alpha"].astype(np.float32) / 255)[None]
        out["depth"] = torch.from_numpy(row["depth"].astype(np.float32))[None]
        for key in {"ids", "materials"} & set(row):
            out[key] = torch.from_numpy(row[key].astype(np.int64))
        out["things"] = str(row["things"]).split("\n")
        out["labels"] = torch.from_numpy(row["labels"].astype(np.float32))
        return out
