"""The committed benchmark: complete, undamaged, true, and renderable again."""

import hashlib
import json

import pytest
import torch

from workbench import check
from workbench.world import LABELS, reader, to_json
from workbench.world.benchmark import render_scene
from workbench.world.clips import make_clip
from workbench.world.matting import render_sprite
from workbench.world.rendering import look, render
from workbench.world.rooms import make_room
from workbench.world.seeds import SPLITS
from workbench.world.sprites import make_sprite

MANIFEST = json.loads((reader.FOLDER / "manifest.json").read_text())


def entry(group, name):
    return next(e for e in MANIFEST[group] if e["name"] == name)


def test_the_benchmark_is_complete_and_small():
    assert len(reader.scenes()) >= 24
    assert len(reader.clips()) == 12
    assert len(reader.sprites()) == 40
    gaps = [e["gap"] for e in MANIFEST["scenes"] if e["gap"]]
    assert len(gaps) == 5
    assert {"viewpoint", "light", "style"} <= set(gaps)
    files = {f.name: f for f in reader.FOLDER.iterdir()}
    assert set(files) == {"manifest.json", *MANIFEST["files"]}
    assert sum(f.stat().st_size for f in files.values()) < 12 * 2**20
    for name, digest in MANIFEST["files"].items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest, name
    seeds = [e["seed"] for group in ("scenes", "clips", "sprites") for e in MANIFEST[group]]
    assert all(seed in SPLITS["benchmark"] for seed in seeds)
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("name", reader.scenes())
def test_each_scene_is_sound(name):
    scene = reader.scene(name)
    h, w = scene.ids.shape
    assert scene.target.shape == (1, 3, h, w)
    assert len(scene.references) == len(scene.reference_depths) == len(scene.cameras) - 1 == 5
    assert scene.caption.startswith("a photo of ")
    assert set(scene.labels) <= set(LABELS)
    assert set(scene.masks) == {"object", "irregular", "centre", "side", "outpaint"}
    for mask in scene.masks.values():
        check.mask(mask, like=scene.target)
        assert 0.01 < mask.mean() < 0.75
    for ids, depth in zip((scene.ids, *scene.reference_ids), (scene.depth, *scene.reference_depths), strict=True):
        assert 1 <= ids.min() <= ids.max() <= len(scene.things)  # no ray slips out between things
        assert 0.3 < depth.min() < depth.max() < 400
    assert 0.1 < scene.target.mean() < 0.9
    shares = []
    for k in range(5):
        match = scene.correspondences(k)
        x, y = match.points[match.visible].floor().long().unbind(-1)
        same = scene.ids[y, x] == scene.reference_ids[k][match.visible]
        assert same.float().mean() > 0.85  # the rest lies on edges between pixels
        shares.append(match.visible.float().mean().item())
    assert min(shares) > (0.15 if scene.gap == "viewpoint" else 0.3)


def test_correspondences_agree_in_colour_and_both_ways():
    scene = reader.scene("room-00")
    forth, back = scene.correspondences(0), scene.correspondences(0, from_target=True)
    grid = forth.points / torch.tensor([128.0, 128.0]) * 2 - 1
    warped = torch.nn.functional.grid_sample(scene.target, grid[None].nan_to_num(0), align_corners=False)
    error = (warped - scene.references[0]).abs().mean(1)[0][forth.visible]
    assert error.median() < 0.015
    x, y = forth.points[forth.visible].floor().long().unbind(-1)
    here = torch.stack(torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")[::-1], -1) + 0.5
    there = (back.points[y, x] - here[forth.visible]).norm(dim=-1)
    assert there.median() < 1.2  # rounding to whole pixels


@pytest.mark.parametrize("name", ["room-00", "facade-02"])
@pytest.mark.long
def test_a_scene_can_be_rendered_again(name):
    """Tolerances: other CPUs round differently, so a pixel on an edge may change; the picture may not (45 dB)."""
    scene, e = reader.scene(name), entry("scenes", name)
    assert (
        hashlib.sha256(
            to_json(render_scene(e["kind"], e["seed"], [scene.cameras[0]], "")[0].scene).encode()
        ).hexdigest()
        == e["scene_sha256"]
    )
    again = render_scene(e["kind"], e["seed"], [scene.cameras[0], scene.cameras[2]], e["gap"])
    for view, image, depth, ids in zip(
        again,
        (scene.target, scene.references[1]),
        (scene.depth, scene.reference_depths[1]),
        (scene.ids, scene.reference_ids[1]),
        strict=True,
    ):
        assert (view.image - image).square().mean() < 10**-4.5
        assert (view.ids == ids).float().mean() > 0.999
        assert (view.depth - depth).abs().median() < 1e-3 * depth.max()


@pytest.mark.long
def test_scenes_with_gaps_are_rendered_again_by_their_gap():
    e = next(e for e in MANIFEST["scenes"] if e["gap"] == "style")
    scene = reader.scene(e["name"])
    again = render_scene(e["kind"], e["seed"], scene.cameras[:2], e["gap"])
    assert (again[1].image - scene.references[0]).square().mean() < 10**-4


@pytest.mark.long
def test_clips_are_sound_and_can_be_rendered_again():
    for name in reader.clips():
        clip = reader.clip(name)
        t, _, h, w = clip.frames.shape
        assert t == 16
        assert clip.depth.shape == (t, 1, h, w)
        assert clip.ids.shape == (t, h, w)
        match = clip.correspondences(0, 1)
        assert match.visible.float().mean() > 0.7
        x, y = match.points[match.visible].floor().long().unbind(-1)
        assert (clip.ids[1][y, x] == clip.ids[0][match.visible]).float().mean() > 0.93
    frame = make_clip(clip.seed).frames[9]
    depth, ids, _ = look(frame, clip.cameras[9], (h, w))
    assert (ids == clip.ids[9]).float().mean() > 0.999
    assert (depth - clip.depth[9]).abs().median() < 1e-3 * depth.max()


def test_clips_follow_what_moves():
    """A moving thing's pixels land on the same thing ten frames on, and not where the camera alone would put them."""
    clip = reader.clip(reader.clips()[0])
    seen = [i for i in clip.moving if (clip.ids[0] == i + 1).sum() > 30]
    assert seen
    match = clip.correspondences(0, 10)
    for i in seen:
        mine = (clip.ids[0] == i + 1) & match.visible
        if mine.sum() > 10:
            x, y = match.points[mine].floor().long().unbind(-1)
            assert (clip.ids[10][y, x] == i + 1).float().mean() > 0.8


@pytest.mark.long
def test_sprites_are_sound_and_can_be_rendered_again():
    for name in reader.sprites():
        sprite = reader.sprite(name)
        assert sprite.foreground.shape[-2:] == sprite.alpha.shape[-2:] == (256, 256)
        assert 0.02 < sprite.alpha.mean() < 0.7
        green = sprite.composite()
        assert torch.equal(
            green,
            sprite.foreground * sprite.alpha + torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1) * (1 - sprite.alpha),
        )
    name = next(n for n in reader.sprites() if n.startswith("feather"))
    sprite, e = reader.sprite(name), entry("sprites", name)
    again = render_sprite(make_sprite(e["seed"], e["kind"]), size=(256, 256))
    assert (again.alpha - sprite.alpha).abs().max() < 0.1
    assert (again.alpha - sprite.alpha).square().mean() < 1e-5
    assert (again.composite() - sprite.composite()).square().mean() < 10**-4.5


def test_reading_is_repeatable_and_gives_fresh_tensors():
    a, b = reader.scene("room-01"), reader.scene("room-01")
    assert torch.equal(a.target, b.target)
    a.target.zero_()
    assert b.target.max() > 0


def test_errors(tmp_path):
    with pytest.raises(ValueError, match="none of the scenes is called 'kitchen'. There are: room-00"):
        reader.scene("kitchen")
    with pytest.raises(check.NotAvailable, match="the rendered benchmark is missing"):
        reader.scenes(tmp_path)
    with pytest.raises(ValueError, match="reference is 9"):
        reader.scene("room-00").correspondences(9)
    name = MANIFEST["sprites"][0]["name"]
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    with pytest.raises(check.NotAvailable, match=f"{name}.webp is missing"):
        reader.sprite(name, tmp_path)
    (tmp_path / f"{name}.webp").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=f"{name}.webp is damaged"):
        reader.sprite(name, tmp_path)


def test_the_rooms_of_the_benchmark_are_not_training_rooms():
    room = make_room(MANIFEST["scenes"][0]["seed"])
    assert room != make_room(0)
    assert render(room, size=(8, 8)).image.isfinite().all()
