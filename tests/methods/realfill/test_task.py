"""What RealFill learns from: crops, holes, what counts in the loss, LoRA dropout."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.diffusion.lora import lora_layers
from workbench.diffusion.lora_objective import LoraDenoising
from workbench.methods.realfill import RealFillTask

NUMBERS = [[0, 3, item] for item in range(12)]


@pytest.fixture
def task(pipe, references, target, mask):
    return RealFillTask(pipe, references, target, mask, rank=2, crops=2, holes_each=3)


def test_pictures_of_any_size_become_crops_of_one(task, references):
    assert task.images.shape == (8, 3, 32, 32)
    assert task.crops.picture == (0, 0, 1, 1, 2, 2, 3, 3)
    assert task.holes[:6].max() == 0
    assert task.holes[6:].flatten(1).any(1).all()
    assert torch.equal(task.images[6:7], task.cut.image)  # the target as it is sampled
    assert not torch.equal(task.images[0], task.images[1])
    x = references[0][0, 0]  # red is a slope from left to right, in the crops too
    slope = (x[0, -1] - x[0, 0]) / 35 * 36 / 32
    assert torch.allclose(task.images[0, 0].diff(dim=-1)[:, 2:-2], slope, rtol=0.1)


def test_every_picture_comes_up_as_often(task):
    rows = [task._row(np.random.default_rng(k)) for k in range(800)]
    shares = np.bincount([task.crops.picture[row] for row in rows], minlength=4) / 800
    assert shares == pytest.approx([0.25] * 4, abs=0.06)  # four standard errors
    assert len(set(rows)) == 8


def test_what_lies_in_the_targets_hole_does_not_matter(pipe, references, target, mask):
    small = {"rank": 2, "crops": 1, "holes_each": 1}
    first, second = (
        RealFillTask(pipe, references, torch.where(mask > 0.5, value, target), mask, **small).batch(NUMBERS)
        for value in (torch.zeros(()), torch.ones(()))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_targets_loss_counts_outside_the_hole_only(task):
    targets = [k for k in range(200) if task.crops.picture[task._row(wb_generator(k))] == 3][:4]
    others = [k for k in range(200) if task.crops.picture[task._row(wb_generator(k))] != 3][:4]
    seen = []
    handle = task.pipe.unet.register_forward_hook(lambda module, inputs, out: seen.append(out.sample) or None)
    task.pipe.unet.requires_grad_(True)  # so that what it predicts has a gradient, B = 0 or not
    for numbers in (targets, others):
        batch = task.batch([[0, 0, k] for k in numbers])
        losses = task.objective(batch)
        (gradient,) = torch.autograd.grad(losses["loss"], seen[-1])
        learns = gradient.abs().amax(1, keepdim=True) > 0  # (B, 1, h, w)
        assert torch.equal(learns.float(), batch["known"])
        assert (batch["known"].mean() < 1) == (numbers is targets)
        by_hand = ((seen[-1] - batch["noise"]) ** 2).mean(1, keepdim=True) * batch["known"]
        assert losses["loss"].item() == pytest.approx(by_hand.mean().item(), rel=1e-5)
    handle.remove()


def wb_generator(item):
    return np.random.default_rng([0, 0, item])


def test_both_treatments_of_the_targets_mask(task):
    numbers = [[0, 5, item] for item in range(40)]
    rows = [task._row(np.random.default_rng(number)) for number in numbers]
    target = torch.tensor([task.crops.picture[row] == 3 for row in rows])
    own = wb.mask.to_latent(task.holes[rows], "nearest", 4)

    def shown(task):
        return task.batch(numbers)["mask"]

    assert 0 < target.sum() < 40
    assert (shown(task) >= own).all()
    assert not torch.equal(shown(task)[target], own[target])
    always = shown(task.variant(target_mask="hole"))
    assert torch.equal(always[target], own[target])
    assert not torch.equal(always[~target], own[~target])
    with pytest.raises(ValueError, match="target_mask is 'x'"):
        task.variant(target_mask="x")


def test_latents_are_computed_once_and_do_not_depend_on_what_came_before(task, pipe, references, target, mask):
    calls = []
    encode = pipe.vae.encode
    pipe.vae.encode = lambda x: calls.append(len(x)) or encode(x)
    other = RealFillTask(pipe, references, target, mask, rank=2, crops=2, holes_each=3)
    other.batch(NUMBERS[5:])
    batch = other.batch(NUMBERS)
    count = len(calls)
    again = other.batch([[0, 9, item] for item in range(12)])
    assert len(calls) <= count + 8  # at most crops that had not come up
    other.batch(NUMBERS)
    assert not torch.equal(again["noise"], batch["noise"])
    expected = task.batch(NUMBERS)
    assert all(torch.equal(batch[name], expected[name]) for name in batch)
    fresh = other.__class__(pipe, references, target, mask, rank=2, crops=2, holes_each=None)
    before = len(calls)
    fresh.batch(NUMBERS)
    fresh.batch(NUMBERS)
    assert len(calls) == before + 2 + 2  # the crops in two groups of four, then each batch's holes


@pytest.mark.parametrize("kind", ["layers", "elements"])
@pytest.mark.long
def test_lora_dropout_comes_with_the_batch(pipe, references, target, mask, kind):
    task = RealFillTask(pipe, references, target, mask, rank=2, crops=1, lora_dropout=0.4, dropout_of=kind)
    with torch.no_grad():
        for model in (pipe.unet, pipe.text_encoder):
            for layer in lora_layers(model).values():
                layer.lora_B["default"].weight.fill_(0.02)
    batch = task.batch(NUMBERS[:4])
    plain = task.objective(batch)["per_sample"]
    kept = task.objective({name: value for name, value in batch.items() if not name.startswith("lora_")})["per_sample"]
    assert torch.equal(plain, kept)  # not in training: nothing is dropped
    task.objective.train()
    torch.manual_seed(1)
    dropped = task.objective(batch)["per_sample"]
    torch.manual_seed(2)
    assert torch.equal(task.objective(batch)["per_sample"], dropped)
    assert not torch.allclose(dropped, plain)
    part = task.objective(task.batch(NUMBERS[2:4]))["per_sample"]  # an item's draws are its own
    torch.testing.assert_close(part, dropped[2:], rtol=1e-4, atol=1e-5)
    layer = task.objective.dropouts[0]
    ones = torch.ones(2, 500) if kind == "elements" else torch.ones(2, 3)
    kept = layer(ones)
    assert ((kept == 0) | (kept * 0.6 - 1).abs().le(1e-5)).all()  # what stays is larger, so that the mean stays
    if kind == "elements":
        assert (kept == 0).float().mean().item() == pytest.approx(0.4, abs=0.07)
    with pytest.raises(RuntimeError, match="drawn for 2 items and met 3"):
        layer(torch.ones(3, 5))
    task.objective.eval()


def test_min_snr_by_hand(task):
    batch = {**task.batch(NUMBERS), "t": torch.linspace(10, 900, 12).long()}
    weighted = LoraDenoising(task.pipe.unet, task.pipe.text_encoder, task.objective.scheduler, snr_gamma=5.0)
    signal = task.objective.scheduler.alphas_cumprod[batch["t"]]
    weight = torch.minimum(5 * (1 - signal) / signal, torch.ones(()))
    assert 0 < (weight < 1).sum() < 12
    expected = task.objective(batch)["per_sample"] * weight
    torch.testing.assert_close(weighted(batch)["per_sample"], expected)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_from_none_to_five_references(pipe, references, target, mask, count):
    task = RealFillTask(pipe, (references * 2)[:count], target, mask, rank=2, crops=1, holes_each=1)
    assert len(task.images) == count + 1
    assert task.batch(NUMBERS)["latents"].isfinite().all()
    assert task.shown == list(range(count + 1))


@pytest.mark.long
def test_to_look_at(task):
    assert task.samples(steps=1).shape == (4, 3, 32, 32)
    assert task.sheet().shape == (1, 3, 96, 128)
    assert task.validate()["error"] > 0


def test_refusals(pipe, references, target, mask):
    def refused(message, error=ValueError, **changes):
        given = {"references": references, "target": target, "mask": mask, **changes}
        with pytest.raises(error, match=message):
            RealFillTask(pipe, rank=2, **given)

    refused("references is missing, expected 1 to 5", references=None)
    refused("references is a str, expected a list", TypeError, references="room.png")
    refused(r"references\[1\] has shape \(3, 20, 24\)", references=[references[0], references[2][0]])
    refused(r"references\[0\] has values from 0 to 255", references=[references[0] * 255])
    refused("target holds 2 pictures", target=torch.cat([target, target]), mask=mask)
    refused(r"mask has shape \(1, 4, 32, 48\), expected", mask=torch.cat([mask] * 4, 1))  # RGBA: issue with mask.png
    refused("mask has no hole", mask=torch.zeros_like(mask))
    refused("mask covers the whole target, expected some kept", mask=torch.ones_like(mask))
    refused("mask_dropout is 2, expected a number from 0 to 1", mask_dropout=2)
    refused("lora_dropout is 1", lora_dropout=1)
    refused("dropout_of is 'rows', expected one of: layers, elements", dropout_of="rows")
    refused("prompt is a list", TypeError, prompt=["a", "b"])
    assert wb.methods.realfill.RealFillTask is RealFillTask
