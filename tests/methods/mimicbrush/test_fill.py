"""Filling and sampling: what the model is shown, where its answer lands, what guidance and depth are made of."""

import copy

import pytest
import torch

import workbench as wb
from tests.methods.mimicbrush import narrow
from tests.methods.mimicbrush.narrow import noise
from workbench import check
from workbench.methods.mimicbrush import fill, inner_scores, region_similarity, sample, side_by_side, texture_case
from workbench.methods.mimicbrush.fill import cut_out, fit_reference, squared
from workbench.methods.mimicbrush.networks import Imitator

RELEASED = {"reference_t": "same", "shared_tokens": True, "hole_value": -1.0, "square": True, "zero_image": True}
QUICK = {"num_inference_steps": 2, "preview_every": 1}


def picture(height=90, width=150, seed=0):
    return wb.image.resize(noise(1, 3, 5, 7, seed=seed), (height, width))


def filled(model, **changes):
    size = (90, 150)
    mask = wb.mask.box(size, (40, 30, 80, 60))
    given = {"reference": picture(70, 60, seed=1), "model": model, **QUICK, **changes}
    return list(fill(picture(*size), mask, **given))


# Filling


def test_steps_show_every_panel_by_name():
    steps = filled(narrow.model(), num_inference_steps=3, preview_every=2)
    assert [(step.i, step.total, step.label) for step in steps] == [
        (1, 2, "step 2 of 3, t = 334"),
        (2, 2, "step 3 of 3, t = 1"),
    ]
    arrays = steps[-1].arrays
    latents = {"latents", "background", "depth_latents", "noise_pred", "noise_pred_uncond", "noise_pred_reference"}
    assert set(arrays) == latents | {"denoised", "mask_latents", "masked_image", "mask", "reference", "depth_map"}
    height, width = arrays["masked_image"].shape[-2:]
    assert height * width == pytest.approx(128**2, rel=0.2)
    assert height % 16 == width % 16 == 0
    for name in latents:
        assert arrays[name].shape == (1, 4, height // 4, width // 4)
    hole = arrays["mask"] > 0.5
    assert torch.equal(arrays["masked_image"][hole.expand(-1, 3, -1, -1)].unique(), torch.tensor([0.5]))  # grey
    assert not arrays["depth_map"].any()


def test_guidance_by_hand():
    arrays = filled(narrow.model(), guidance_scale=3.0)[-1].arrays
    without, with_it = arrays["noise_pred_uncond"], arrays["noise_pred_reference"]
    assert (without - with_it).abs().max() > 1e-4
    torch.testing.assert_close(arrays["noise_pred"], without + 3 * (with_it - without))
    alone = filled(narrow.model(), guidance_scale=1.0)[-1].arrays
    assert "noise_pred_uncond" not in alone
    assert torch.equal(alone["noise_pred"], alone["noise_pred_reference"])


@pytest.mark.parametrize("reading", ["paper", "released"])
@pytest.mark.long
def test_the_reference_is_imitated_by_attention_and_by_tokens(reading):
    model = narrow.model(reading)
    a, b = (filled(model, reference=picture(seed=seed))[-1].image for seed in (1, 2))
    tokens, other = (filled(model, reference=picture(seed=seed), attend=False)[-1].image for seed in (1, 2))
    assert (a - b).abs().max() > 1e-4
    assert (a - tokens).abs().max() > 1e-4
    assert (tokens - other).abs().max() > 1e-5


@pytest.mark.long
def test_keep_shape_looks_at_the_depth_of_what_lies_in_the_hole():
    size, mask = (90, 150), wb.mask.box((90, 150), (40, 30, 80, 60))
    plain = picture(*size)
    ball = torch.where(mask > 0.5, 1 - plain, plain)
    given = {"reference": picture(seed=1), "model": narrow.model(), **QUICK}
    a, b = (list(fill(x, mask, keep_shape=True, **given))[-1] for x in (plain, ball))
    assert (a.arrays["depth_map"] - b.arrays["depth_map"]).abs().max() > 1e-3
    assert a.arrays["depth_map"].amax() == 1
    assert torch.equal(a.arrays["background"], b.arrays["background"])
    assert (a.image - b.image).abs().max() > 1e-5
    c, d = (list(fill(x, mask, **given))[-1] for x in (plain, ball))
    assert torch.equal(c.image, d.image)


def test_large_photographs_are_cropped_round_the_hole():
    model, size = narrow.model(), (700, 900)
    photo, mask = picture(*size), wb.mask.box(size, (600, 200, 660, 260))
    cut = cut_out(model, photo, mask, context=0.5)
    assert cut.box == (566, 166, 694, 294)  # the model's own 128 px: not one pixel is lost
    assert torch.equal(cut.image * (1 - cut.mask), photo[..., 166:294, 566:694] * (1 - cut.mask))
    assert cut.inner == (0, 0, 128, 128)
    wide = cut_out(model, photo, mask, context=4.0)
    assert wide.box == (480, 80, 780, 380)
    assert wide.image.shape == (1, 3, 128, 128)
    result = wb.inpaint(photo, mask, "mimicbrush", reference=photo, model=model, **QUICK)
    assert torch.equal(result.image * (1 - mask), photo * (1 - mask))
    assert result.steps[-1].box == cut.box


@pytest.mark.parametrize("size", [(20, 300), (9, 9), (400, 150)])
def test_references_of_any_size(size):
    model = narrow.model()
    shown = fit_reference(model, picture(*size))
    assert all(n % model.multiple == 0 for n in shown.shape[-2:])
    step = filled(model, reference=picture(*size))[-1]
    assert step.image.isfinite().all()
    assert torch.equal(step.arrays["reference"], shown)


def test_the_released_ways():
    """Squares padded with white, a black hole, the depth of a black picture, the reference read in each step."""
    model = narrow.model("released", **RELEASED)
    step = filled(model, context=3.0)[-1]
    arrays = step.arrays
    assert step.box == (0, 0, 150, 90)
    assert arrays["masked_image"].shape == arrays["reference"].shape == (1, 3, 128, 128)
    assert step.image.shape == (1, 3, 76, 128)  # what was padded is cut off again
    white = torch.ones(1, 3, 24, 128)
    torch.testing.assert_close(arrays["masked_image"][..., :24, :], white, atol=0.05, rtol=0)
    torch.testing.assert_close(arrays["reference"][..., :5], torch.ones(1, 3, 128, 5), atol=0.05, rtol=0)
    assert not arrays["mask"][..., :24, :].any()
    hole = arrays["mask"][0, 0] > 0.5
    assert torch.equal(arrays["masked_image"][0, :, hole].unique(), torch.zeros(1))
    torch.testing.assert_close(arrays["depth_map"], model.depth(torch.zeros(1, 3, 128, 128)))
    square, where = squared(torch.zeros(1, 3, 4, 7), 1.0)
    assert square.shape == (1, 3, 7, 7)
    assert where == (0, 1)
    assert square.sum() == 3 * 7 * 3


def test_the_reference_is_read_once_where_it_can_be(monkeypatch):
    for config, times in (({}, 1), (RELEASED, 3)):
        model = narrow.model("released", **config)
        with monkeypatch.context() as patch:
            read, seen = Imitator.read, []
            patch.setattr(Imitator, "read", lambda *given, read=read, seen=seen: seen.append(1) or read(*given))
            filled(model, num_inference_steps=3)
        assert len(seen) == times


def test_by_name_it_is_the_bundled_one(untrained_models):
    by_name = filled("tiny-mimicbrush")[-1].image
    torch.testing.assert_close(by_name, filled(narrow.model())[-1].image, atol=0.02, rtol=0)  # stored in half precision
    assert "mimicbrush" in wb.list_methods()


def test_fills_that_are_refused():
    model, photo = narrow.model(), picture()
    mask = wb.mask.box((90, 150), (40, 30, 80, 60))
    with pytest.raises(ValueError, match="reference is missing, expected the picture to imitate"):
        next(fill(photo, mask, model=model))
    with pytest.raises(ValueError, match="reference holds 2 pictures, expected one"):
        next(fill(photo, mask, model=model, reference=torch.cat([photo, photo])))
    with pytest.raises(TypeError, match="reference is a list, expected a tensor"):
        next(fill(photo, mask, model=model, reference=[photo]))
    with pytest.raises(ValueError, match="mask covers the whole picture"):
        next(fill(photo, torch.ones_like(mask), model=model, reference=photo))
    with pytest.raises(ValueError, match="num_inference_steps is 0"):
        next(fill(photo, mask, model=model, reference=photo, num_inference_steps=0))
    with pytest.raises(check.NotAvailable, match="'best' is no bundled model"):
        next(fill(photo, mask, model="best", reference=photo))


# Sampling


@pytest.mark.long
def test_the_networks_may_be_of_half_precision():
    """The U-Nets are the large part: they alone are converted, and the picture is about the same."""
    model = copy.deepcopy(narrow.model())
    model.imitator.to(torch.bfloat16)
    half = filled(model)[-1]
    assert half.arrays["noise_pred"].dtype == torch.bfloat16
    assert half.image.dtype == torch.float32
    torch.testing.assert_close(half.image, filled(narrow.model())[-1].image, atol=0.1, rtol=0)


def test_items_of_a_batch_are_drawn_as_if_alone():
    model = narrow.model()
    sources, references = (
        torch.cat([picture(64, 96), picture(64, 96, 3)]),
        torch.cat([picture(32, 64, 4), picture(32, 64, 5)]),
    )
    holes = torch.cat([wb.mask.box((64, 96), box) for box in ((8, 8, 40, 40), (50, 20, 90, 60))])
    given = model.conditions(sources, holes, references)
    *_, last = sample(model, given, seed=[3, 4], num_inference_steps=2)
    for k in range(2):
        alone = model.conditions(sources[k : k + 1], holes[k : k + 1], references[k : k + 1])
        *_, one = sample(model, alone, seed=3 + k, num_inference_steps=2)
        torch.testing.assert_close(last.latents[k : k + 1], one.latents, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="seed holds 3 numbers for 2 pictures"):
        next(sample(model, given, seed=[1, 2, 3]))
    with pytest.raises(ValueError, match="source is .60, 96. .H, W., expected multiples of 16"):
        model.conditions(picture(60, 96), torch.zeros(1, 1, 60, 96), references[:1])


def test_the_attention_lens_follows_sampling_step_by_step():
    """One call a step: what the hole looks at in the reference can be asked by the number of the step."""
    model = narrow.model()
    given = model.conditions(picture(64, 96), wb.mask.box((64, 96), (8, 8, 40, 40)), picture(32, 64, 1))
    with wb.record_attention(model.imitator.unet, layers="up", size=(64, 96)) as attention:
        list(sample(model, given, num_inference_steps=3))
    assert list(attention.steps) == [1, 2, 3]
    heat = attention.query_map((20, 20), step=2, keys="reference")
    assert heat.shape == (32, 64)
    assert heat.max() > 0


# Scores


def test_side_by_side():
    photo, mask, reference = picture(40, 60), wb.mask.box((40, 60), (10, 10, 20, 20)), picture(80, 60, 1)
    both, hole, width = side_by_side(photo, mask, reference)
    assert both.shape == (1, 3, 40, 90)
    assert width == 60
    assert torch.equal(both[..., :60], photo)
    assert hole.sum() == mask.sum()
    result = wb.inpaint(both, hole, "patchmatch").image[..., :width]
    assert torch.equal(result * (1 - mask), photo * (1 - mask))


def test_scores(untrained_models, monkeypatch):
    monkeypatch.setattr("workbench.diffusion.classifier._loaded", {})
    photo, mask = picture(), wb.mask.box((90, 150), (40, 30, 80, 60))
    same = inner_scores(photo, photo, mask)
    assert same["ssim"] == pytest.approx(1)
    assert same["psnr"] == float("inf")
    assert same["tiny_perceptual"] == pytest.approx(0, abs=1e-6)
    off = inner_scores(photo * 0.5, photo, mask)
    expected = wb.metrics.psnr(photo * 0.5, photo, mask).item()
    assert off["psnr"] == pytest.approx(expected, abs=1e-3)  # the hole is its own box
    assert off["tiny_perceptual"] > 0
    moved = torch.roll(photo, (7, 11), (2, 3))
    region = torch.roll(mask, (7, 11), (2, 3))
    assert region_similarity(photo, mask, moved, region) == pytest.approx(1, abs=1e-4)
    assert region_similarity(photo, mask, 1 - moved, region) < 0.9999


@pytest.mark.long
def test_a_case_of_texture_transfer_has_its_truth():
    rooms = [wb.world.make_room(seed) for seed in (10_600_000, 10_600_001)]
    words = []
    for room in rooms:  # the largest thing that stands there, as the camera sees it
        ids = wb.world.render(room, size=(32, 40)).ids
        shares = {k: (ids == 1 + k).float().mean().item() for k, thing in enumerate(room.things)
                  if thing.word not in ("wall", "floor", "window", "ceiling", "skirting", "picture")}  # fmt: skip
        words.append(max(shares, key=shares.get))
    ids_of_first = wb.world.render(rooms[0], size=(48, 64)).ids
    given = texture_case(rooms[0], words[0], rooms[1], words[1], size=(48, 64))
    assert given.source.shape == given.truth.shape == (1, 3, 48, 64)
    assert given.mask.shape == (1, 1, 48, 64)
    assert given.reference.shape[-2:] == given.region.shape[-2:]
    assert given.region.any()
    changed = (given.truth - given.source).abs().amax(1, keepdim=True)
    assert changed[given.mask > 0.5].mean() > 10 * changed[wb.mask.grow(given.mask, 4) == 0].mean()
    with pytest.raises(ValueError, match="dragon"):
        texture_case(rooms[0], "dragon", rooms[1], words[1], size=(48, 64))
    unseen = next(k for k in range(len(rooms[0].things)) if not (ids_of_first == 1 + k).any())
    with pytest.raises(ValueError, match="is not in view"):
        texture_case(rooms[0], unseen, rooms[1], words[1], size=(48, 64))
