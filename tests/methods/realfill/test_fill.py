"""RealFill through `wb.inpaint`: what it gives at any size, and that the pipeline is as it was."""

import copy
import sys

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

import workbench as wb
from tests.methods.realfill.conftest import picture
from workbench.diffusion.lora import lora_layers, remove_lora
from workbench.methods.realfill import exemplar, fill, fine_tune, rank, sample, scene_variants

QUICK = {"steps": 2, "samples": 2, "num_inference_steps": 2, "preview_every": 1}
TUNING = {"rank": 2, "crops": 1, "holes_each": 1, "batch_size": 2}


@pytest.fixture
def given(pipe, references):
    return {"method": "realfill", "pipe": pipe, "references": references, "tuning": TUNING, **QUICK}


def weights(pipe):
    return {name: value.clone() for part in (pipe.unet, pipe.text_encoder) for name, value in part.named_parameters()}


@pytest.mark.long
def test_the_whole_way(given, pipe, target, mask):
    before, scheduler = weights(pipe), pipe.scheduler.config
    result = wb.inpaint(target, mask, seed=3, **given)
    assert torch.equal(result.image * (1 - mask), target * (1 - mask))
    assert not torch.equal(result.image, target)
    labels = [step.label for step in result.steps]
    assert labels[:2] == ["learning, 1 of 2", "learning, 2 of 2"]
    assert labels[2].startswith("sampling, step 1 of 2")
    assert len(result.steps) == result.steps[0].total == 5
    last = result.steps[-1]
    assert last.arrays["samples"].shape == (2, 3, 32, 32)
    assert last.arrays["counts"].shape == (2, 3)
    assert result.steps[1].arrays["loss"].shape == (2,)
    assert torch.equal(wb.inpaint(target, mask, seed=3, **given).image, result.image)
    after = weights(pipe)  # as it was, so the second time it learnt the same
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert pipe.scheduler.config == scheduler
    assert not lora_layers(pipe.unet)


@pytest.mark.long
def test_a_large_photograph_outpainted_with_a_feather(given):
    target = wb.image.pad(picture(50, 70), left=30, top=10)
    mask = wb.mask.outpaint((60, 100), left=30, top=10)
    result = wb.inpaint(target, mask, feather=3, **given)
    assert result.image.shape == (1, 3, 60, 100)
    soft = wb.mask.feather(mask, 3)
    assert torch.equal(result.image[(soft == 0).expand_as(target)], target[(soft == 0).expand_as(target)])
    ramp = ((soft > 0) & (soft < 1)).expand_as(target)
    assert not torch.equal(result.image[ramp], target[ramp])
    assert torch.equal(result.image[(mask == 1).expand_as(target)], result.raw[(mask == 1).expand_as(target)])


@pytest.mark.long
def test_without_learning_it_is_the_pipeline_alone(given, pipe, references, target, mask):
    result = wb.inpaint(target, mask, seed=7, **given | {"steps": 0, "samples": 3})
    plain = sample(pipe, target, mask, range(7, 10), num_inference_steps=2)
    best = rank(plain, references, mask).order[0]
    torch.testing.assert_close(result.image, plain[best : best + 1], rtol=0, atol=1e-4)
    assert torch.equal(plain * (1 - mask), (target * (1 - mask)).expand(3, -1, -1, -1))
    alone = wb.inpaint(target, mask, **given | {"references": [], "samples": 1})
    assert alone.steps[-1].label == "one of the samples, nothing to rank by"


@pytest.mark.long
def test_a_side_of_ones_own_is_that_of_a_model_of_that_size(given, pipe, references):
    target, mask = picture(50, 70), wb.mask.box((50, 70), (12, 9, 47, 36))
    given |= {"references": references[:1], "samples": 1}
    at_16 = wb.inpaint(target, mask, **given | {"side": 16})
    run = fine_tune(pipe, references[:1], target, mask, side=16, steps=2, **TUNING)
    assert run.task.images.shape[-2:] == (16, 16)
    assert scene_variants(run, 1, num_inference_steps=1).shape == (1, 3, 16, 16)
    run.goto(2)
    resumed = wb.inpaint(target, mask, **given | {"training": run, "pipe": None, "side": None})
    assert torch.equal(resumed.image, at_16.image)
    remove_lora(pipe.unet)
    remove_lora(pipe.text_encoder)
    word = {"steps": 1, "word": {"crops": 1, "batch_size": 1}, "num_inference_steps": 2}
    exemplars = exemplar(pipe, target, mask, references, [0], side=16, **word)
    pipe.unet.register_to_config(sample_size=4)
    assert torch.equal(wb.inpaint(target, mask, **given).image, at_16.image)
    assert torch.equal(exemplar(pipe, target, mask, references, [0], **word), exemplars)


@pytest.mark.long
def test_a_run_is_sampled_from_as_it_stands(given, pipe, references, target, mask):
    run = fine_tune(pipe, references, target, mask, steps=3, **TUNING)
    run.step(2)
    result = wb.inpaint(target, mask, **given | {"training": run, "pipe": None})
    assert [step.label[:8] for step in result.steps[:2]] == ["sampling", "sampling"]
    assert run.i == 2
    assert lora_layers(pipe.unet)
    again = list(fill(target, mask, references=references, training=run, samples=2, num_inference_steps=2))
    assert torch.equal(again[-1].image, result.steps[-1].image)
    with pytest.raises(ValueError, match=r"the pipeline has a LoRA \(default\). Give its run as training="):
        wb.inpaint(target, mask, **given)


@pytest.mark.long
def test_any_lora_that_learnt_is_sampled_from(given, pipe, references, target, mask):
    run = wb.TrainingRun(wb.LoraTask(pipe, picture(32, 32), "a photo of sks", rank=2), batch_size=1)
    run.step()
    result = wb.inpaint(target, mask, seed=3, **given | {"training": run, "pipe": None, "samples": 1})
    plain = sample(pipe, target, mask, [3], num_inference_steps=2)
    torch.testing.assert_close(result.image, plain, rtol=0, atol=1e-4)
    assert scene_variants(run, 1, num_inference_steps=1).shape == (1, 3, 32, 32)


def test_it_begins_with_what_the_references_show(given, pipe, references, target, mask, monkeypatch):
    room = sys.modules["workbench.methods.realfill.fill"]
    given |= {"steps": 0, "samples": 1, "num_inference_steps": 8, "start": "warp", "strength": 0.5}

    def told(rest):
        monkeypatch.setattr(room, "warp", lambda *args, **kwargs: (torch.where(rest > 0.5, 0.5, shown), rest))
        return wb.inpaint(target, mask, **given)

    shown = torch.where(mask > 0.5, picture(32, 48, 2.0), target)
    begun = told(torch.zeros_like(mask))
    assert begun.steps[0].label.startswith("sampling, step 1 of 4")
    assert len(begun.steps) == begun.steps[0].total == 5
    plain = sample(pipe, target, mask, [0], num_inference_steps=8, start=shown, strength=0.5)
    torch.testing.assert_close(begun.image, plain, rtol=0, atol=1e-4)
    same = wb.inpaint(target, mask, **given | {"start": shown})
    assert torch.equal(same.image, begun.image)
    little, much = torch.zeros_like(mask), torch.zeros_like(mask)
    little[..., 8:20, 8:10], much[..., 8:20, 8:14] = 1, 1  # a tenth of the hole's columns, and three
    assert told(little).steps[0].label.startswith("sampling, step 1 of 4")
    noise = wb.inpaint(target, mask, **given | {"start": None})
    assert noise.steps[0].label.startswith("sampling, step 1 of 8")
    assert torch.equal(told(much).image, noise.image)
    with pytest.raises(ValueError, match="start is 'wrap', expected one of: warp"):
        wb.inpaint(target, mask, **given | {"start": "wrap"})


def test_any_scheduler_and_guidance(given, pipe, target, mask):
    solver = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    results = [
        wb.inpaint(target, mask, **given | {"steps": 0, "scheduler": scheduler, "guidance_scale": 3.0}).image
        for scheduler in ("ddpm", "pipeline", solver)
    ]
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])
    with pytest.raises(ValueError, match="scheduler is 'dpm', expected one of: ddpm, pipeline"):
        wb.inpaint(target, mask, **given | {"scheduler": "dpm", "steps": 0})
    with pytest.raises(TypeError, match="scheduler is a int, expected"):
        wb.inpaint(target, mask, **given | {"scheduler": 5, "steps": 0})


@pytest.mark.long
def test_interrupted_while_learning_and_failing_while_sampling(given, pipe, target, mask, monkeypatch):
    def stop(step):
        raise KeyboardInterrupt

    result = wb.inpaint(target, mask, callback=stop, **given)
    assert result.interrupted
    assert torch.equal(result.image * (1 - mask), target * (1 - mask))
    assert not lora_layers(pipe.unet)
    assert not lora_layers(pipe.text_encoder)
    room = sys.modules["workbench.methods.realfill.fill"]  # the package's own name `fill` is the function
    monkeypatch.setattr(room, "sample_hole", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wb.inpaint(target, mask, **given)
    assert not lora_layers(pipe.unet)


def test_references_of_another_scene_are_doubted(given, pipe, target, mask):
    result = wb.inpaint(target, mask, **given | {"steps": 0})
    assert len(result.notes) == 1
    assert "matches in the best of 2 samples" in result.notes[0]
    assert "the references may show another scene" in repr(result).splitlines()[1]
    titles = [ax.get_title() for ax in result.show().axes]
    assert "another scene" in titles[1].replace("\n", " ")
    two = wb.inpaint(target.expand(2, -1, -1, -1), mask, **given | {"steps": 0})
    assert [note[:10] for note in two.notes] == ["picture 1:", "picture 2:"]
    alone = wb.inpaint(target, mask, **given | {"steps": 0, "references": []})
    assert alone.notes == ()


@pytest.mark.long
def test_results_fed_back_are_references_too(given, pipe, references, target, mask):
    results = sample(pipe, target, mask, [0, 1], num_inference_steps=1)
    best = rank(results, references, mask, keep=2).best
    result = wb.inpaint(target, mask, **given | {"references": [*references, best]})
    assert result.steps[-1].arrays["counts"].shape == (2, 5)


@pytest.mark.parametrize(
    ("wrong", "kind", "told"),
    [
        ({"rank_by": "loftr"}, ValueError, "rank_by is 'loftr', expected one of: sift, dift"),
        ({"scheduler": "dpm"}, ValueError, "scheduler is 'dpm'"),
        ({"num_inference_steps": 0}, ValueError, "num_inference_steps is 0"),
        ({"preview_every": 0}, ValueError, "preview_every is 0"),
        ({"start": torch.zeros(1, 3, 9, 9)}, ValueError, "start"),
        ({"start": "warped"}, ValueError, "start is 'warped'"),
        ({"start": torch.zeros(1, 3, 32, 48), "strength": 0.1}, ValueError, "strength is 0.1 of 2 steps"),
        ({"tuning": {"steps": 4}}, ValueError, r"tuning holds steps, expected that beside it: fill\(..., steps=...\)"),
        ({"tuning": {"side": 64, "seed": 1}}, ValueError, "tuning holds side, seed"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_learnt(given, target, mask, monkeypatch, wrong, kind, told):
    room = sys.modules["workbench.methods.realfill.fill"]
    monkeypatch.setattr(room, "fine_tune", lambda *args, **kwargs: pytest.fail("it began to learn"))
    with pytest.raises(kind, match=told):
        wb.inpaint(target, mask, **given | wrong)


def test_refusals(given, pipe, target, mask):
    with pytest.raises(ValueError, match="references is missing, expected 1 to 5"):
        wb.inpaint(target, mask, **given | {"references": None})
    with pytest.raises(ValueError, match="mask covers the whole picture, expected some kept"):
        wb.inpaint(target, torch.ones_like(mask), **given)
    with pytest.raises(ValueError, match=r"mask has shape \(1, 4, 32, 48\)"):
        wb.inpaint(target, torch.cat([mask] * 4, 1), **given)
    with pytest.raises(TypeError, match="fine_tune has no option 'rang'"):
        wb.inpaint(target, mask, **given | {"tuning": {"rang": 2}})
    with pytest.raises(ValueError, match="seeds is empty"):
        sample(pipe, target, mask, [])
    four = copy.deepcopy(pipe)
    four.unet.register_to_config(in_channels=4)
    with pytest.raises(ValueError, match="takes 4 channels, expected 9"):
        wb.inpaint(target, mask, **given | {"pipe": four})
