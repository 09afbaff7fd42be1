"""Makes the benchmark of ``data/scenes``; `reader` reads it. Everything follows from the numbers in the manifest."""

import hashlib
import io
import json
import multiprocessing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from workbench import check, mask
from workbench.image import to_webp
from workbench.world import views
from workbench.world.cameras import other_camera
from workbench.world.clips import make_clip
from workbench.world.facades import make_facade
from workbench.world.matting import render_sprite
from workbench.world.rendering import View, exposed, look, render
from workbench.world.rooms import make_room
from workbench.world.scene import Camera, Light, Scene, to_json, with_light, with_texture
from workbench.world.seeds import split_seeds
from workbench.world.sprites import KINDS, make_sprite
from workbench.world.style import Style, apply_style, random_style

SIZE, CLIP_SIZE, SPRITE_SIZE = (128, 128), (96, 128), (256, 256)
REFERENCES, FRAMES = 5, 16
GAPS = {3: "viewpoint", 8: "light", 11: "style", 17: "viewpoint", 21: "light and style"}
"""Scenes (by number) whose references differ much from the target, and in what."""
ROOMS, FACADES, CLIPS, SPRITES = 14, 10, 12, 40


def make_benchmark(folder, workers: int = 1) -> Path:
    """Renders the whole benchmark: about ten minutes on one core.

    Args:
        folder: where to; usually data/scenes.
        workers: processes.

    Returns:
        The folder, with manifest.json written last.
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [("scenes", i) for i in range(ROOMS + FACADES)] + [("clips", i) for i in range(CLIPS)]
    jobs = [(folder, *job) for job in jobs + [("sprites", i) for i in range(SPRITES)]]
    manifest = {"version": 1, "rendered_with": _versions(), "files": {}, "scenes": [], "clips": [], "sprites": []}
    check.integer(workers, "workers", 1)
    with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
        for group, entry, files in tqdm(pool.imap(_make, jobs), total=len(jobs)):
            manifest[group].append(entry)
            manifest["files"] |= files
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return folder


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("embreex", "numpy", "scipy", "torch", "pillow")}


def _make(job):
    folder, group, number = job
    entry, files = {"scenes": _make_scene, "clips": _make_clip, "sprites": _make_sprite}[group](number)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return group, entry, {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def render_scene(kind: str, seed: int, cameras, gap: str) -> list[View]:
    """The views of a benchmark scene, target first, as its entry in the manifest says.

    Args:
        kind: "room" or "facade".
        seed: of the scene.
        cameras: of all views.
        gap: as in `reader.BenchmarkScene`.
    """
    scene = {"room": make_room, "facade": make_facade}[kind](seed)
    other = _relit(scene) if "light" in gap else scene
    rendered = [render(scene if k == 0 else other, camera, SIZE) for k, camera in enumerate(cameras)]
    if "style" not in gap:
        return rendered
    return rendered[:1] + [_restyled(view, seed + k) for k, view in enumerate(rendered[1:])]


def _restyled(view: View, seed: int) -> View:
    style = Style(**{**asdict(random_style(seed, 1.6)), "blur": 0.0})
    return replace(view, image=apply_style(view.image, style, seed))


def _relit(scene: Scene) -> Scene:
    """The same place at another time: lamplight in a room, low sun from the other side on a facade."""
    if scene.kind == "room":
        lamp = Light("sphere", (0.6, 1.6, 2.0), size=(0.3, 0.3), colour=(1.0, 0.72, 0.45), power=2.2)
        fill = Light("rectangle", (0.0, 2.0, 2.4), (0.0, 2.0, 0.0), (2.0, 2.0), (1.0, 0.8, 0.6), 0.35)
        dusk = with_texture(scene, "window", colour=(0.10, 0.14, 0.30), second=(0.03, 0.05, 0.06), glow=0.25)
        return exposed(with_light(dusk, lamp, fill), 0.62)
    old = scene.lights[0]
    x, y, z = old.position
    evening = Light("sun", (-x * 1.3 - 15, y * 0.8, z * 0.55), old.target, (0.8, 0.8), (1.0, 0.72, 0.45), 1.9)
    return exposed(with_light(scene, evening), 0.66)


def _choose(number: int):
    """Kind, seed and cameras of a scene: the first seeds whose views are rich and share enough."""
    kind, index = ("room", number) if number < ROOMS else ("facade", number - ROOMS)
    gap = GAPS.get(number, "")
    low, high = (0.3, 0.65) if gap == "viewpoint" else (0.5, 0.97)
    for seed in split_seeds("benchmark", 1000 * number, 50):
        scene = {"room": make_room, "facade": make_facade}[kind](seed)
        target = _looked(scene, scene.camera)
        objects = [i for i in views.visible_things(target, 0.01) if scene.things[i].word not in views.SURROUNDINGS]
        if len(objects) < (4 if kind == "room" else 3):
            continue
        cameras = [scene.camera]
        for k in range(60):
            camera = other_camera(scene, seed * 100 + k, 2.6 if gap == "viewpoint" else 1.1)
            shared = views.correspondences(target, _looked(scene, camera)).visible.float().mean()
            if low <= shared <= high:
                cameras.append(camera)
            if len(cameras) == REFERENCES + 1:
                return kind, index, seed, gap, cameras
    raise RuntimeError(f"no seed for scene {number} gave {REFERENCES} references, expected one among 50.")


def _looked(scene: Scene, camera: Camera) -> View:
    """A view without a picture, for choosing."""
    depth, ids, stuff = look(scene, camera, (48, 48))
    return View(torch.zeros(1, 3, 48, 48), depth, ids, stuff, scene, camera)


def _make_scene(number: int):
    kind, index, seed, gap, cameras = _choose(number)
    rendered = render_scene(kind, seed, cameras, gap)
    target = rendered[0]
    name = f"{kind}-{index:02d}"
    masks = _masks(target, seed)
    both = [views.correspondences(r, target).visible for r in rendered[1:]]
    both += [views.correspondences(target, r).visible for r in rendered[1:]]
    far, depth = _packed_depth([v.depth for v in rendered])
    arrays = {
        "depth": depth,
        "ids": np.stack([v.ids.numpy() for v in rendered]).astype(np.uint8),
        "masks": np.stack([_packed(m[0, 0].numpy() > 0.5) for m in masks.values()]),
        "visible": np.stack([_packed(v.numpy()) for v in both]),
    }
    entry = {
        "name": name, "kind": kind, "gap": gap, "caption": views.caption(target), "labels": _label_words(target),
        "seed": seed, "scene_sha256": _digest(target.scene), "things": [t.word for t in target.scene.things],
        "masks": list(masks),
        "far": far, "cameras": [_numbers(c) for c in cameras], "pictures": f"{name}.webp", "arrays": f"{name}.npz",
    }  # fmt: skip
    return entry, {f"{name}.webp": _webp([v.image for v in rendered]), f"{name}.npz": _npz(arrays)}


def _make_clip(number: int):
    for seed in split_seeds("benchmark", 50_000 + 100 * number, 100):
        clip = make_clip(seed, FRAMES)
        first = _looked(clip.frames[0], clip.frames[0].camera)
        moves = [i for i in clip.moving if clip.frames[0].things[i].position != clip.frames[-1].things[i].position]
        if len(moves) >= 1 + number % 2 and set(moves) & set(views.visible_things(first, 0.015)):
            break
    rendered = [render(frame, size=CLIP_SIZE) for frame in clip.frames]
    name = f"clip-{number:02d}"
    far, depth = _packed_depth([v.depth for v in rendered])
    poses = [[(*f.things[i].position, f.things[i].yaw, f.things[i].tilt) for i in clip.moving] for f in clip.frames]
    arrays = {
        "depth": depth,
        "ids": np.stack([v.ids.numpy() for v in rendered]).astype(np.uint8),
        "poses": np.array(poses),
    }
    entry = {
        "name": name, "caption": views.caption(rendered[0]), "seed": seed, "scene_sha256": _digest(clip.frames[0]),
        "things": [t.word for t in clip.frames[0].things], "moving": list(clip.moving), "far": far,
        "cameras": [_numbers(v.camera) for v in rendered], "pictures": f"{name}.webp", "arrays": f"{name}.npz",
    }  # fmt: skip
    return entry, {f"{name}.webp": _webp([v.image for v in rendered]), f"{name}.npz": _npz(arrays)}


def _make_sprite(number: int):
    kind = KINDS[number % len(KINDS)]
    seed = split_seeds("benchmark", 90_000 + number, 1)[0]
    scene = make_sprite(seed, kind)
    view = render_sprite(scene, size=SPRITE_SIZE)
    name = f"{kind}-{number // len(KINDS):02d}"
    entry = {
        "name": name, "kind": kind, "caption": views.caption(view), "seed": seed, "scene_sha256": _digest(scene),
        "pictures": f"{name}.webp",
    }  # fmt: skip
    alpha = (view.alpha * 255).round() / 255
    foreground = view.foreground * (alpha > 0)
    return entry, {f"{name}.webp": _webp([foreground, alpha.expand(-1, 3, -1, -1)])}


def _masks(target: View, seed: int) -> dict[str, torch.Tensor]:
    """Holes of several kinds; 1 = hole."""
    h, w = target.size
    biggest = next(i for i in views.visible_things(target) if target.scene.things[i].word not in views.SURROUNDINGS)
    x0, y0, x1, y1 = mask.bounding_box((target.ids == biggest + 1).float()[None, None])
    return {
        "object": mask.box((h, w), (x0 - 3, y0 - 3, x1 + 3, y1 + 3)),
        "irregular": mask.irregular((h, w), 0.3, seed=seed),
        "centre": mask.centre((h, w), 0.45),
        "side": mask.box((h, w), (w - round(0.36 * w), 0, w, h)),
        "outpaint": mask.invert(
            mask.box((h, w), (round(0.2 * w), round(0.2 * h), w - round(0.2 * w), h - round(0.2 * h)))
        ),
    }


def _label_words(view: View) -> list[str]:
    vector = views.labels(view)
    return [word for word, on in zip(views.LABELS, vector.tolist(), strict=True) if on]


def _digest(scene: Scene) -> str:
    return hashlib.sha256(to_json(scene).encode()).hexdigest()


def _numbers(camera: Camera) -> list[float]:
    return [*camera.position, *camera.target, camera.fov]


def _packed(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits.ravel())


def _packed_depth(depths) -> tuple[float, np.ndarray]:
    """The depth that 65535 stands for, and all maps (T, H, W) as differences along their rows."""
    depth = np.concatenate([d[0].numpy() for d in depths]).astype(np.float64)  # (T, H, W)
    far = round(float(depth.max()) + 0.01, 2)
    steps = np.round(depth / far * 65535).astype(np.uint16)
    return far, np.diff(steps, axis=2, prepend=np.uint16(0))


def _npz(arrays: dict) -> bytes:
    """The same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _webp(pictures) -> bytes:
    """Pictures one below the other."""
    return to_webp(torch.cat(list(pictures), 2))
