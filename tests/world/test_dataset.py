"""Rendered data sets: what is stored, going on after a kill, errors."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.world import LABELS, Plan, RenderedSet, make_clip, make_room, render, render_dataset
from workbench.world.__main__ import main


def tiny(**changes) -> Plan:
    return Plan(**{"kind": "room", "count": 3, "size": (16, 20), "shard": 2, **changes})


@pytest.mark.long
def test_stored_views_are_the_rendered_ones(tmp_path):
    folder = render_dataset(tiny(views=2, first=7), tmp_path / "rooms", progress=False)
    data = RenderedSet(folder)
    assert sorted(f.name for f in folder.iterdir()) == ["plan.json", "room-00000007.npz", "room-00000009.npz"]
    assert len(data) == 6
    assert [data[i]["seed"] for i in range(6)] == [7, 7, 8, 8, 9, 9]
    view = render(make_room(8), size=(16, 20))
    row = data[2]
    assert (row["image"] - view.image[0]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(row["ids"], view.ids)
    assert torch.equal(row["materials"], view.materials)
    assert torch.allclose(row["depth"], view.depth[0], rtol=1e-3)
    assert row["labels"].shape == (len(LABELS),)
    assert row["caption"].startswith("a photo of a room")
    assert not torch.equal(row["image"], data[3]["image"])  # the second camera


@pytest.mark.long
def test_sprites_and_clips_are_stored_too(tmp_path):
    sprite = RenderedSet(render_dataset(tiny(kind="sprite", count=2), tmp_path / "s", progress=False))[1]
    assert sprite["foreground"].shape == (3, 16, 20)
    assert sprite["alpha"].shape == (1, 16, 20)
    clip = RenderedSet(render_dataset(tiny(kind="clip", count=1, views=3), tmp_path / "c", progress=False))
    assert [clip[i]["image"].shape for i in range(3)] == [(3, 16, 20)] * 3


@pytest.mark.long
def test_any_number_of_processes_gives_the_same_bits(tmp_path):
    one = render_dataset(tiny(kind="facade"), tmp_path / "one", workers=1, progress=False)
    two = render_dataset(tiny(kind="facade"), tmp_path / "two", workers=2, progress=False)
    for name in tiny(kind="facade").shards():
        with np.load(one / name) as a, np.load(two / name) as b:
            assert all(np.array_equal(a[key], b[key]) for key in a.files)


@pytest.mark.long
def test_a_killed_run_goes_on_and_leaves_no_half_files(tmp_path):
    folder = tmp_path / "rooms"
    command = [
        sys.executable,
        "-m",
        "workbench.world",
        "--kind",
        "room",
        "--count",
        "40",
        "--size",
        "16",
        "--shard",
        "2",
    ]
    process = subprocess.Popen([*command, "--out", str(folder)], stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.time() + 60
    while len(list(folder.glob("room-*.npz"))) < 2 and time.time() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {f: f.stat().st_mtime_ns for f in folder.glob("room-*.npz")}
    assert 2 <= len(before) < 20
    for file in before:
        np.load(file)["image"]  # whole
    plan = Plan("room", 40, size=(16, 16), shard=2)
    wanted = dict(list(plan.shards().items())[: len(before) + 1])
    monkey = pytest.MonkeyPatch()
    monkey.setattr(Plan, "shards", lambda self: wanted)  # only one more file, to save time
    render_dataset(plan, folder, progress=False)
    monkey.undo()
    assert {f: f.stat().st_mtime_ns for f in before} == before  # nothing done twice
    assert len(list(folder.glob("room-*.npz"))) == len(before) + 1
    assert [row["seed"] for row in RenderedSet(folder)] == list(range(2 * (len(before) + 1)))


def test_errors(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="holds no rendered data set. Make one: python -m workbench.world"):
        RenderedSet(tmp_path)
    with pytest.raises(ValueError, match="kind is 'castle'"):
        tiny(kind="castle")
    with pytest.raises(ValueError, match="count is 20000000"):
        tiny(count=20_000_000)
    (tmp_path / "plan.json").write_text(json.dumps({"version": 1, "kind": "facade"}))
    with pytest.raises(ValueError, match="data set of another plan .kind facade instead of room"):
        render_dataset(tiny(), tmp_path)
    with pytest.raises(SystemExit):
        main(["--kind", "room", "--count", "0", "--out", str(tmp_path / "x")])
    assert "count is 0, expected a whole number from 1" in capsys.readouterr().err


@pytest.mark.long
def test_clips_in_light_that_changes(tmp_path):
    """Things and cameras are those of the same clip; the light begins the same and ends otherwise."""
    plain, lit = make_clip(5, 4), make_clip(5, 4, light=True)
    assert lit.frames[0] == plain.frames[0]
    assert lit.moving == plain.moving
    for a, b in zip(plain.frames, lit.frames, strict=True):
        assert replace(b, lights=a.lights) == a
    assert lit.frames[3].lights != plain.frames[3].lights
    assert make_clip(5, 4, light=True) == lit
    sets = [RenderedSet(render_dataset(Plan(kind, 1, size=(24, 32), views=2, first=5), tmp_path / kind, progress=False))
            for kind in ("clip", "lit_clip")]  # fmt: skip
    (a, b), (c, d) = ([s[k] for k in (0, 1)] for s in sets)
    assert torch.equal(a["image"], c["image"])
    assert (b["image"] - d["image"]).abs().mean() > 0.01
    assert torch.equal(b["ids"], d["ids"])
    with pytest.raises(ValueError, match="views is 1, expected a whole number from 2"):
        Plan("lit_clip", 1, views=1)
