"""A run in a file: opened without its pipeline it is the same run; damaged, it says so."""

import json

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.stepping.narrow import inpainting, run, with_scheduler
from workbench import check
from workbench import mask as masks
from workbench.image import to_pil
from workbench.stepping.divergence import first_divergence
from workbench.stepping.recording import load_recording, save_recording
from workbench.stepping.watching import changed


@pytest.fixture(params=[DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler])
def pipe(request):
    return with_scheduler(inpainting(9), request.param)


@pytest.fixture
def file(pipe, tmp_path):
    recorded = run(pipe)
    recorded.finish()
    return save_recording(recorded, tmp_path / "run.safetensors")


def test_it_is_looked_through_without_a_pipeline(pipe, file):
    live, recorded = run(pipe), load_recording(file)
    live.finish()
    assert (recorded.total, recorded.recorded, recorded.i) == (live.total, live.recorded, 0)
    for k in range(live.total + 1):
        a, b = live.states[k], recorded.goto(k)
        assert a.digest == b.digest
        assert (a.t, a.sigma, a.guidance) == (b.t, b.sigma, b.guidance)
        if k:
            assert torch.equal(a.denoised, b.denoised)
            assert torch.equal(a.noise_pred_text, b.noise_pred_text)
            assert (a.preview - b.preview).abs().max() <= 0.5 / 255 + 1e-6
    assert (recorded.output - live.decode(live.total)).abs().max() <= 0.5 / 255 + 1e-6
    assert recorded.states is recorded.states
    assert recorded.decode(2, "denoised") is recorded.decode(2, "denoised")
    assert first_divergence(live, recorded) is None
    assert repr(recorded).startswith("Recording(run.safetensors, StableDiffusionInpaintPipeline, step 5 of 5")


def test_it_is_watched_and_asked_who_changed_a_region_like_the_run(pipe, file):
    live, recorded = run(pipe), load_recording(file)
    live.finish()
    box = (8, 8, 24, 20)
    assert recorded.goto(5).i == live.i
    changes = sorted(changed(live.states[k - 1].preview, live.states[k].preview, box) for k in (2, 3, 4, 5))
    above = (changes[-1] + changes[0]) / 2  # some steps do, some do not, none is near
    assert recorded.who_changed(box, above) == live.who_changed(box, above) is not None
    for one in (live, recorded):
        one.goto(0)
        one.watch("region", region=box, above=above)
        one.finish()
    assert recorded.stopped.startswith("watch: the region changed")
    assert recorded.i == live.i < 5


@pytest.mark.parametrize("at", [0, 2, 5])
@pytest.mark.long
def test_with_its_pipeline_it_goes_on_exactly(pipe, file, at):
    live = run(pipe)
    picture = live.finish().images
    again = load_recording(file).with_pipe(pipe, at=at)
    assert again.i == at
    assert torch.equal(again.finish().images, picture)
    assert again.caveats == []


def test_half_a_run_goes_on(pipe, tmp_path):
    live = run(pipe)
    live.step(2)
    file = save_recording(live, tmp_path / "half.safetensors")
    recorded = load_recording(file)
    assert recorded.recorded == 2
    assert recorded.total == 5
    assert recorded.output is None
    with pytest.raises(ValueError, match="the run ended there"):
        recorded.goto(4)
    assert recorded.step(4).i == 2
    with pytest.raises(RuntimeError, match=r"half\.safetensors ends after 2 of 5 steps. Go on with"):
        recorded.step()
    again = recorded.with_pipe(pipe)
    assert (again.recorded, again.i) == (2, 2)
    assert again.decode(2).shape == live.decode(2).shape  # before anything is computed
    assert again.branch(at=1).i == 1
    assert torch.equal(again.finish().images, live.finish().images)


def test_numpys_numbers_are_written_as_plain_ones(pipe, tmp_path):
    live = run(pipe, seed=np.int64(4), num_inference_steps=np.int64(3), guidance_scale=np.float32(2.5))
    live.step()
    recorded = load_recording(save_recording(live, tmp_path / "numpy.safetensors", decoded=False))
    assert (recorded.seed, recorded.arguments["num_inference_steps"], recorded.left_out) == (4, 3, [])
    assert torch.equal(recorded.with_pipe(pipe).finish().images, live.finish().images)
    assert torch.equal(run(pipe, seed=4, num_inference_steps=3, guidance_scale=2.5).finish().images, live.output.images)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA"])
def test_masks_of_any_mode_come_back(pipe, tmp_path, mode):
    mask = to_pil(masks.box((32, 48), (8, 8, 30, 20))).convert(mode)
    live = run(pipe, mask_image=mask)
    live.step()
    recorded = load_recording(save_recording(live, tmp_path / "mode.safetensors", decoded=False))
    read = recorded.arguments["mask_image"]
    assert (read.mode, read.tobytes()) == (mask.mode, mask.tobytes())
    assert torch.equal(recorded.with_pipe(pipe).finish().images, live.finish().images)


def test_another_pipeline_is_told(pipe, file):
    import copy

    other = copy.deepcopy(pipe)
    with torch.no_grad():
        other.unet.conv_in.weight.add_(0.1)
    assert any("networks differs" in told for told in load_recording(file).with_pipe(other).caveats)


def test_pictures_left_out(pipe, tmp_path):
    live = run(pipe)
    live.step(2)
    with_all = save_recording(live, tmp_path / "all.safetensors")
    live = run(pipe)
    live.step(2)
    without = save_recording(live, tmp_path / "none.safetensors", decoded=False)
    assert without.stat().st_size < with_all.stat().st_size
    with pytest.raises(check.NotAvailable, match=r"none\.safetensors holds no picture of the denoised after step 1"):
        load_recording(without).states[1].preview  # noqa: B018


def test_pil_pictures_come_back_and_functions_are_left_out(pipe, tmp_path):
    image = to_pil(torch.rand(1, 3, 32, 48))
    live = run(pipe, image=image)
    picture = live.finish().images
    recorded = load_recording(save_recording(live, tmp_path / "pil.safetensors", decoded=False))
    assert torch.equal(recorded.with_pipe(pipe, at=1).finish().images, picture)
    live = run(pipe, callback_on_step_end=lambda pipe, i, t, given: given)
    live.step()
    recorded = load_recording(save_recording(live, tmp_path / "callback.safetensors", decoded=False))
    assert recorded.left_out == ["callback_on_step_end"]
    with pytest.raises(ValueError, match="callback_on_step_end was left out"):
        recorded.with_pipe(pipe)


def test_damaged_and_foreign_files(file, tmp_path):
    content, bad = file.read_bytes(), tmp_path / "bad.safetensors"
    for cut in (content[: len(content) // 2], content[:40], b"hello", b""):
        bad.write_bytes(cut)
        with pytest.raises(ValueError, match=r"bad\.safetensors cannot be read as safetensors"):
            load_recording(bad)
    bad.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="altered: its tensors do not agree"):
        load_recording(bad)
    bad.write_bytes(content.replace(b"epsilon", b"epsilom", 1))
    with pytest.raises(ValueError, match="altered: its manifest does not agree"):
        load_recording(bad)
    save_file({"x": torch.zeros(1)}, bad)
    with pytest.raises(ValueError, match=r"is no recording: its metadata say None, expected 'workbench-recording'"):
        load_recording(bad)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors does not exist"):
        load_recording(tmp_path / "none.safetensors")


def test_a_later_version_is_told(file, tmp_path):
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file(load_file(file), tmp_path / "later.safetensors", {**metadata, "version": "99"})
    with pytest.raises(ValueError, match="has version 99, expected 1"):
        load_recording(tmp_path / "later.safetensors")


def test_the_manifest_is_plain_and_names_no_path(file):
    with safe_open(file, "pt") as opened:
        manifest = json.loads(opened.metadata()["manifest"])
    assert {"torch", "diffusers", "python"} <= set(manifest["facts"]["versions"])
    assert "/home" not in json.dumps(manifest)
    assert "/root" not in json.dumps(manifest)
