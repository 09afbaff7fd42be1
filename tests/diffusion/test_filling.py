"""Filling a hole of a photograph of any size by sampling a crop."""

import copy
import itertools

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler

from tests.stepping import narrow
from workbench import mask as masks
from workbench.diffusion import prediction
from workbench.diffusion.filling import crop_box, paste, sample_hole, work_size
from workbench.diffusion.latents import encode_moments, given_to, masked_image, shown_by
from workbench.diffusion.pipelines import load_pipeline
from workbench.seams import membrane


@pytest.fixture(scope="module")
def pipe(inpaint_folder):
    return load_pipeline(inpaint_folder)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_the_loop_gives_what_the_pipeline_gives(pipe, guidance_scale):
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    mask = masks.irregular((128, 128), 0.3, seed=1)
    given = {"prompt": "a red ball", "num_inference_steps": 4, "guidance_scale": guidance_scale}
    *_, last = sample_hole(pipe, image, mask, seed=5, **given)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    expected = pipe(**given, image=image, mask_image=mask, generator=generator, output_type="pt").images
    assert last.box == (0, 0, 128, 128)
    torch.testing.assert_close(last.image, expected, rtol=0, atol=1e-5)


def test_what_is_shown_in_the_hole():
    image = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    holes = torch.cat([masks.box((16, 24), (5, 3, 12, 9)), torch.ones(1, 1, 16, 24)])
    grey, smooth = masked_image(image, holes), masked_image(image, holes, "smooth")
    assert torch.equal(grey, (2 * image - 1) * (1 - holes))
    assert torch.equal(smooth[:1], 2 * membrane(image[:1], holes[:1]).clamp(0, 1) - 1)
    assert torch.equal(smooth[1:], grey[1:])  # nothing to go on from
    assert torch.equal(masked_image(1 - image * (1 - holes), holes, "smooth"), masked_image(1 - image, holes, "smooth"))
    with pytest.raises(ValueError, match="shown is 'black', expected one of: grey, smooth"):
        masked_image(image, holes, "black")


def test_a_model_tells_what_it_learnt_from(pipe, tmp_path, caplog):
    assert shown_by(pipe.unet) == "grey"
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    mask = masks.irregular((128, 128), 0.3, seed=1)
    assert set(given_to(pipe, image, mask)) == {"image", "mask_image"}
    pipe.unet.register_to_config(_masked_image="smooth")
    pipe.save_pretrained(tmp_path)
    pipe.unet.register_to_config(_masked_image="grey")
    smooth = type(pipe).from_pretrained(tmp_path, safety_checker=None, requires_safety_checker=False)
    assert "expected" not in caplog.text
    assert (shown_by(smooth.unet), shown_by(pipe.unet)) == ("smooth", "grey")

    smooth.set_progress_bar_config(disable=True)
    given = {"prompt": "a red ball", "num_inference_steps": 3, "guidance_scale": 2.0}
    pictures = [list(sample_hole(one, image, mask, seed=5, **given))[-1].image for one in (pipe, smooth)]
    generator = torch.Generator().manual_seed(5)
    told = given_to(smooth, image, mask)
    assert set(told) == {"image", "mask_image", "masked_image_latents"}
    shown = masked_image(image, mask, "smooth")
    assert torch.equal(told["masked_image_latents"], encode_moments(smooth.vae, shown)[0])
    with torch.no_grad():
        posterior = smooth.vae.encode(shown).latent_dist  # in float32: `encode_moments` computes in bf16 where it can
    mean, std = (moment * smooth.vae.config.scaling_factor for moment in (posterior.mean, posterior.std))
    draws = torch.Generator().manual_seed(5)
    noise = [torch.randn(mean.shape, generator=draws) for _ in range(2)]  # where it begins; of the posterior
    told["masked_image_latents"] = mean + std * noise[1]
    expected = smooth(**given, **told, generator=generator, output_type="pt").images
    torch.testing.assert_close(pictures[1], expected, rtol=0, atol=1e-5)
    assert (pictures[0] - pictures[1]).abs().max() > 5e-5  # five times what is allowed above


@pytest.mark.parametrize("scheduler", [DDPMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler])
@pytest.mark.parametrize("strength", [0.3, 0.85])
def test_a_start_under_noise_gives_what_the_pipeline_gives(pipe, scheduler, strength):
    scheduler = scheduler.from_config(pipe.scheduler.config)
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    mask = masks.irregular((128, 128), 0.3, seed=1)
    start = torch.where(mask > 0.5, torch.full_like(image, 0.7), image)
    given = {"prompt": "a red ball", "num_inference_steps": 7, "guidance_scale": 2.0, "strength": strength}
    looks = list(sample_hole(pipe, image, mask, seed=5, start=start, scheduler=scheduler, preview_every=1, **given))
    other = type(pipe)(**{**pipe.components, "scheduler": type(scheduler).from_config(pipe.scheduler.config)},
                       requires_safety_checker=False)  # fmt: skip
    other.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(5)
    expected = other(**given, image=start, mask_image=mask, generator=generator, output_type="pt").images
    torch.testing.assert_close(looks[-1].image, expected, rtol=0, atol=1e-5)
    assert [look.i for look in looks] == list(range(1, looks[-1].total + 1))
    elsewhere = torch.where(mask > 0.5, start, torch.zeros_like(start))  # only what it shows of the hole counts
    *_, last = sample_hole(pipe, image, mask, seed=5, start=elsewhere, scheduler=scheduler, **given)
    assert torch.equal(last.image, looks[-1].image)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, HeunDiscreteScheduler])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_four_channels_are_blended_as_the_pipeline_blends(scheduler, strength):
    four = copy.deepcopy(narrow.inpainting(4))
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    mask = masks.box((32, 48), (8, 12, 28, 24))  # on the grid of the latents: there diffusers rounds, and this does not
    start = torch.where(mask > 0.5, torch.full_like(image, 0.7), image)
    given = {"prompt": "a red ball", "num_inference_steps": 6, "guidance_scale": 2.0, "strength": strength}
    own = scheduler.from_config(four.scheduler.config)
    four.unet.register_to_config(sample_size=10)  # 40 x 40 pixels have room for 32 x 48
    *_, last = sample_hole(four, image, mask, seed=5, start=start, scheduler=own, context=2.0, **given)
    assert last.image.shape == (1, 3, 32, 48)
    generator = torch.Generator().manual_seed(5)
    size = {"height": 32, "width": 48, "output_type": "pt"}
    twin = narrow.with_scheduler(four, scheduler)
    expected = twin(**given, **size, image=start, mask_image=mask, generator=generator).images
    torch.testing.assert_close(last.image, expected, rtol=0, atol=1e-5)


def test_blending_keeps_what_is_known_and_looks_at_nothing_else():
    four = copy.deepcopy(narrow.text_to_image())
    four.unet.register_to_config(sample_size=8)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mask = masks.box((32, 32), (9, 13, 22, 25))  # off the grid
    fills = []
    for colour in (0.0, 1.0):
        hidden = torch.where(mask > 0.5, colour, image)
        looks = list(sample_hole(four, hidden, mask, seed=[5, 9], num_inference_steps=3, preview_every=1))
        fills.append(looks[-1].latents)
    assert torch.equal(*fills)
    kept = masks.to_latent(mask, "any", 4).expand(2, 4, -1, -1) < 0.5
    assert not torch.equal(fills[0][:1], fills[0][1:])
    mean, std = encode_moments(four.vae, masked_image(image, mask, "smooth"))
    assert ((fills[0] - mean).abs() <= 6 * std + 1e-5)[kept].all()
    shares = four.scheduler.alphas_cumprod
    noises = [  # each step leaves what is known at the next one's level, under always the same noise
        (look.latents - shares[later.t].sqrt() * fills[1]) / (1 - shares[later.t]).sqrt()
        for look, later in itertools.pairwise(looks)
    ]
    torch.testing.assert_close(noises[0][kept], noises[1][kept], rtol=0, atol=1e-3)
    assert noises[0][kept].std() == pytest.approx(1, abs=0.2)


def test_starts_and_sides_that_are_refused(pipe):
    image, mask = torch.rand(1, 3, 40, 61), masks.box((40, 61), (10, 12, 25, 30))
    with pytest.raises(ValueError, match="strength is 0.5 without a start, expected 1, or a picture"):
        next(sample_hole(pipe, image, mask, strength=0.5))
    with pytest.raises(ValueError, match="strength 0.1 leaves none of 5 steps, expected at least 0.2"):
        next(sample_hole(pipe, image, mask, start=image, strength=0.1, num_inference_steps=5))
    with pytest.raises(ValueError, match="start is"):
        next(sample_hole(pipe, image, mask, start=image[..., 1:], strength=0.5))
    with pytest.raises(ValueError, match="start holds 2 pictures, expected one"):
        next(sample_hole(pipe, image, mask, start=image.repeat(2, 1, 1, 1), strength=0.9))
    with pytest.raises(TypeError, match="prompt is a NoneType, expected a string"):
        next(sample_hole(pipe, image, mask, prompt=None))
    with pytest.raises(ValueError, match="side is 0, expected"):
        next(sample_hole(pipe, image, mask, side=0))


@pytest.mark.parametrize("size", [(40, 61), (96, 150), (200, 130), (300, 90)])
def test_any_size_will_do(pipe, size):
    image = torch.rand(1, 3, *size)
    mask = masks.box(size, (10, 12, 25, 30))
    before = image.clone()
    looks = list(sample_hole(pipe, image, mask, num_inference_steps=3, preview_every=2))
    assert [look.i for look in looks] == [2, 3]
    x0, y0, x1, y1 = looks[-1].box
    assert x0 <= 10 < 25 <= x1
    assert y0 <= 12 < 30 <= y1
    assert paste(image, looks[-1]).shape == image.shape
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [(40, 61), (96, 150), (300, 210)])
def test_what_lies_in_the_hole_does_not_leak_at_any_size(pipe, size):
    image, mask = torch.rand(1, 3, *size), masks.irregular(size, 0.3, seed=2)
    fills = []
    for colour in (0.0, 1.0):
        *_, last = sample_hole(pipe, torch.where(mask > 0.5, colour, image), mask, num_inference_steps=1)
        fills.append(last.image)
    assert torch.equal(*fills)


def test_crop_is_round_the_hole_and_never_smaller_than_the_model():
    mask = masks.box((400, 600), (300, 200, 320, 230))
    assert crop_box(mask, 128) == (246, 151, 374, 279)  # 128 x 128, centred on the hole
    assert crop_box(masks.box((400, 600), (0, 0, 10, 10)), 128) == (0, 0, 128, 128)
    assert crop_box(masks.box((400, 600), (100, 100, 300, 200)), 128) == (50, 0, 350, 300)  # half the hole around
    assert crop_box(torch.ones(1, 1, 60, 90), 128) == (0, 0, 90, 60)


def test_work_size_keeps_proportions():
    assert work_size(128, 128, 128, 32) == (128, 128)
    assert work_size(300, 300, 128, 32) == (128, 128)
    assert work_size(100, 400, 128, 32) == (64, 256)


def test_same_seed_same_fill_and_the_prompt_matters(pipe, picture):
    image, mask = picture

    def fill(**options):
        *_, last = sample_hole(pipe, image, mask, num_inference_steps=2, **options)
        return last.image

    assert torch.equal(fill(seed=1), fill(seed=1))
    assert not torch.equal(fill(seed=1), fill(seed=2))
    assert not torch.equal(fill(prompt="a red ball"), fill(prompt="a blue cube"))


def test_errors(pipe, picture):
    image, mask = picture
    with pytest.raises(ValueError, match="mask has no hole"):
        next(sample_hole(pipe, image, torch.zeros_like(mask)))
    with pytest.raises(ValueError, match="num_inference_steps is 0"):
        next(sample_hole(pipe, image, mask, num_inference_steps=0))


def test_two_fills_at_once_are_what_each_is_alone(pipe, picture):
    """They share a pipeline; the scheduler's timesteps are each one's own."""
    *_, alone = sample_hole(pipe, *picture, num_inference_steps=2, preview_every=1)
    before = pipe.scheduler.timesteps
    first, second = (sample_hole(pipe, *picture, num_inference_steps=n, preview_every=1) for n in (2, 3))
    next(first)
    next(second)
    assert torch.equal(next(first).image, alone.image)
    assert torch.equal(pipe.scheduler.timesteps, before)


@pytest.mark.parametrize("kind", [DDPMScheduler, EulerAncestralDiscreteScheduler])
def test_several_seeds_are_sampled_side_by_side_as_alone(pipe, kind):
    image, mask = torch.rand(1, 3, 128, 128), masks.centre((128, 128), 0.4)
    scheduler = kind.from_config(pipe.scheduler.config)
    given = {"num_inference_steps": 3, "guidance_scale": 2.0, "prompt": "a red ball", "scheduler": scheduler}
    before = torch.random.get_rng_state()
    *_, both = sample_hole(pipe, image, mask, seed=[5, 9], **given)
    assert torch.equal(torch.random.get_rng_state(), before)
    for item, seed in enumerate((5, 9)):
        *_, alone = sample_hole(pipe, image, mask, seed=seed, **given)
        torch.testing.assert_close(both.image[item : item + 1], alone.image, rtol=0, atol=1e-4)
    assert not torch.allclose(both.image[0], both.image[1], atol=1e-3)
    assert paste(image, both).shape == (2, 3, 128, 128)


def test_a_v_predictions_estimate_is_the_schedulers_own(pipe):
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    scheduler.set_timesteps(5)
    z, v, t = torch.randn(1, 4, 2, 3), torch.randn(1, 4, 2, 3), scheduler.timesteps[2]
    expected = scheduler.step(v, t, z).pred_original_sample
    torch.testing.assert_close(prediction.denoised(scheduler, z, v, t), expected)
