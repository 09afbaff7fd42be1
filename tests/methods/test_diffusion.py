"""An inpainting pipeline behind `wb.inpaint`."""

import copy

import pytest
import torch

import workbench as wb
from workbench.diffusion import pipelines


@pytest.fixture
def pipe(untrained_models):
    return wb.load_pipeline("tiny-inpaint")


def test_the_fill_is_the_pipelines_own_picture_put_back(pipe):
    photo = wb.image.resize(wb.load_image("coffee"), (128, 128))
    mask = wb.mask.irregular((128, 128), 0.2, seed=1)
    given = {"prompt": "a photo of a cup", "num_inference_steps": 4, "guidance_scale": 2.0, "strength": 1.0}
    result = wb.inpaint(photo, mask, "diffusion", seed=3, pipe=pipe, **given)
    generator = torch.Generator().manual_seed(3)
    own = pipe(**given, image=photo, mask_image=mask, generator=generator, output_type="pt").images
    torch.testing.assert_close(result.raw, own, rtol=0, atol=1e-5)
    assert torch.equal(result.image * (1 - mask), photo * (1 - mask))


def test_a_large_photograph_is_changed_round_the_hole_only(pipe):
    photo, mask = wb.load_image("rocket"), wb.mask.box((427, 640), (500, 50, 560, 120))
    result = wb.inpaint(photo, mask, "diffusion", pipe=pipe, num_inference_steps=3)
    x0, y0, x1, y1 = result.steps[-1].box
    assert (x1 - x0, y1 - y0) == (128, 128)
    outside = torch.ones_like(mask)
    outside[..., y0:y1, x0:x1] = 0
    assert torch.equal(result.raw * outside, photo * outside)


def test_it_starts_from_a_smooth_surface_or_what_is_given(pipe):
    photo, mask = wb.image.resize(wb.load_image("coffee"), (128, 128)), wb.mask.centre((128, 128), 0.2)
    given = {"pipe": pipe, "num_inference_steps": 5, "seed": 1}
    smooth = wb.seams.membrane(photo, mask).clamp(0, 1)
    raws = [wb.inpaint(photo, mask, "diffusion", start=start, **given).raw for start in (None, smooth, 1 - photo)]
    assert torch.equal(raws[0], raws[1])
    assert not torch.equal(raws[0], raws[2])
    forgotten = [wb.inpaint(photo, mask, "diffusion", start=start, strength=1, **given).raw for start in (None, photo)]
    assert torch.equal(*forgotten)


def test_steps_hold_what_the_sampling_saw(pipe):
    photo, mask = wb.image.resize(wb.load_image("brick"), (96, 160)), wb.mask.centre((96, 160), 0.1)
    steps = wb.inpaint(photo, mask, "diffusion", pipe=pipe, num_inference_steps=8, preview_every=3).steps
    assert [step.label.split(",")[0] for step in steps] == ["step 3 of 6", "step 6 of 6"]
    assert all(step.total == 2 for step in steps)
    assert {a.shape for step in steps for a in step.arrays.values()} == {steps[0].arrays["latents"].shape}


def test_without_a_prompt_guidance_is_left_out(pipe, monkeypatch):
    photo, mask = wb.image.resize(wb.load_image("brick"), (128, 128)), wb.mask.centre((128, 128), 0.1)
    sizes = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    wb.inpaint(photo, mask, "diffusion", pipe=pipe, num_inference_steps=3)
    wb.inpaint(photo, mask, "diffusion", pipe=pipe, num_inference_steps=3, prompt="brick")
    handle.remove()
    assert sizes == [1, 1, 2, 2]


def test_names_are_loaded_once_and_wrong_pipelines_refused(photo, hole, untrained_models):
    assert pipelines.last_loaded("tiny-inpaint") is pipelines.last_loaded("tiny-inpaint")
    result = wb.inpaint(photo, hole, "diffusion", pipe="tiny-t2i", num_inference_steps=2)  # by blended latents
    assert torch.equal(result.image * (1 - hole), photo * (1 - hole))
    odd = copy.deepcopy(pipelines.last_loaded("tiny-inpaint"))
    odd.unet.register_to_config(in_channels=8)
    with pytest.raises(
        ValueError, match="takes 8 channels, expected 4: a text-to-image model or 9: an inpainting model"
    ):
        wb.inpaint(photo, hole, "diffusion", pipe=odd)
    with pytest.raises(wb.check.NotAvailable, match="tiny-nothing"):
        wb.inpaint(photo, hole, "diffusion", pipe="tiny-nothing")
