"""The DreamBooth baseline: the references alone are learnt, the hole is filled by blending, all is as it was after."""

import copy

import pytest
import torch

import workbench as wb
from tests.stepping import narrow
from workbench.diffusion.lora import add_lora, lora_layers
from workbench.methods.realfill import dreambooth, learn_subject, sample

SMALL = {"crops": 2, "batch_size": 2}
NUMBERS = [[0, 3, item] for item in range(6)]


@pytest.fixture
def painter():
    pipe = copy.deepcopy(narrow.text_to_image())
    pipe.unet.register_to_config(sample_size=8)
    return pipe


def weights(pipe):
    parts = {name: getattr(pipe, name) for name in ("unet", "text_encoder", "vae")}
    return {f"{part}.{name}": p.clone() for part, model in parts.items() for name, p in model.state_dict().items()}


def test_the_references_are_learnt_and_nothing_of_the_target(painter, references, target, mask):
    run = learn_subject(painter, references, target, mask, **SMALL)
    batch = run.task.batch(NUMBERS)
    assert run.task.images.shape == (6, 3, 32, 32)  # two crops of three, at the size that is sampled
    assert "mask" not in batch
    assert batch["latents"].shape == (6, 4, 8, 8)
    assert batch["known"].min() == 1
    others = learn_subject(copy.deepcopy(painter), references, 1 - target, mask, **SMALL)
    assert torch.equal(others.task.images, run.task.images)
    fewer = learn_subject(copy.deepcopy(painter), references[:1], target, mask, **SMALL)
    assert torch.equal(fewer.task.images, run.task.images[:2])


@pytest.mark.long
def test_what_is_learnt_changes_the_fill_and_the_pipeline_is_given_back(painter, references, target, mask):
    before = weights(painter)
    quick = {"num_inference_steps": 2, "tuning": SMALL}
    fills = dreambooth(painter, target, mask, references, [4, 5], steps=2, **quick)
    assert fills.shape == (2, 3, 32, 48)
    assert torch.equal(fills * (1 - mask), (target * (1 - mask)).expand(2, -1, -1, -1))
    after = weights(painter)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    plain = sample(painter, target, mask, [4, 5], num_inference_steps=2)
    assert (plain - fills).abs().max() > 1e-4
    alone = dreambooth(painter, target, mask, references, [5], steps=2, **quick)
    torch.testing.assert_close(alone, fills[1:], rtol=0, atol=1e-4)
    hidden = torch.where(mask > 0.5, torch.rand_like(target), target)
    assert torch.equal(dreambooth(painter, hidden, mask, references, [5], steps=2, **quick), alone)


def test_a_side_of_ones_own_is_that_of_a_model_of_that_size(painter, references, target, mask):
    given = (painter, target, mask, references, [0])
    quick = {"steps": 1, "num_inference_steps": 1, "tuning": {"rank": 2, "crops": 1, "batch_size": 1}}
    at_16 = dreambooth(*given, side=16, **quick)
    painter.unet.register_to_config(sample_size=4)
    assert torch.equal(dreambooth(*given, **quick), at_16)


def test_a_start_under_noise(painter, target, mask):
    given = {"num_inference_steps": 4, "strength": 0.5}
    dark, light = (sample(painter, target, mask, [0], start=torch.full_like(target, v), **given) for v in (0.1, 0.9))
    assert not torch.equal(dark, light)
    assert torch.equal(dark * (1 - mask), light * (1 - mask))


def test_the_pipeline_is_given_back_when_sampling_fails(painter, references, target, mask):
    with pytest.raises(ValueError, match="num_inference_steps is 0"):
        dreambooth(painter, target, mask, references, [0], steps=1, tuning=SMALL, num_inference_steps=0)
    assert not lora_layers(painter.unet)
    assert not lora_layers(painter.text_encoder)


def test_refusals(painter, pipe, references, target, mask):
    with pytest.raises(ValueError, match="takes 9 channels, expected 4: a text-to-image model"):
        dreambooth(pipe, target, mask, references, [0])
    with pytest.raises(ValueError, match="references is empty"):
        dreambooth(painter, target, mask, [], [0])
    with pytest.raises(ValueError, match="references is missing"):
        learn_subject(painter, None, target, mask)
    with pytest.raises(ValueError, match="mask has no hole"):
        learn_subject(painter, references, target, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="takes 4 channels, expected 9: an inpainting model"):
        wb.methods.realfill.fine_tune(painter, references, target, mask)
    add_lora(painter.unet)
    with pytest.raises(ValueError, match=r"the pipeline has a LoRA \(default\). Sample from it as it is"):
        dreambooth(painter, target, mask, references, [0])
    assert lora_layers(painter.unet)  # it is not ours to take out
