"""Two runs are compared: every planted fault is found in the right step and term, and named."""

import copy
import inspect
import textwrap

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as published

from tests.stepping.narrow import MASK, inpainting, run, with_scheduler
from workbench.stepping.divergence import TERMS, first_divergence


@pytest.fixture
def pipe():
    return inpainting(9)


def planted(pipe, right: str, wrong: str):
    """The pipeline with one piece of its call's source replaced: a bug of the kind people write."""
    source = inspect.getsource(StableDiffusionInpaintPipeline.__call__)
    assert right in source
    names = dict(vars(published))
    exec(textwrap.dedent(source.replace(right, wrong)), names)
    twin = copy.copy(pipe)
    twin.__class__ = type(
        "StableDiffusionInpaintPipeline", (StableDiffusionInpaintPipeline,), {"__call__": names["__call__"]}
    )
    return twin


def check_found(a, b, step, term, *words, **options):
    found = first_divergence(a, b, **options)
    assert (found.step, found.term) == (step, term), str(found)
    for word in words:
        assert word in found.cause, found.cause
    assert found.term in TERMS
    assert str(found).count("\n") == 0
    return found


def test_equal_runs_do_not_part(pipe):
    a, b = run(pipe), run(pipe)
    a.step(2)
    assert first_divergence(a, b) is None
    assert (a.i, b.i) == (2, 0)  # the cursors stay
    assert a.recorded == b.recorded == a.total  # but all was compared
    assert first_divergence(a, a.branch(at=2)) is None


# Other arguments


def test_seed_and_noise_seed(pipe):
    check_found(run(pipe), run(pipe, seed=4), 0, "start", "another seed: 3 in a, 4 in b")
    a = run(with_scheduler(pipe, DDPMScheduler))
    a.step(2)
    check_found(a, a.branch(noise_seed=9), 3, "draw", "another noise seed (9)")


def test_prompts(pipe):
    check_found(run(pipe), run(pipe, prompt="a cube"), 1, "input", "another prompt", "'a cube' in b")
    check_found(run(pipe), run(pipe, negative_prompt="dark"), 1, "input", "negative_prompt None in a, 'dark' in b")


def test_guidance_scale_on_and_off(pipe):
    found = check_found(run(pipe), run(pipe, guidance_scale=4.0), 1, "guidance", "another guidance scale", "4.0 in b")
    assert found.evidence["guidance"] == pytest.approx((3, 4), rel=1e-3)
    check_found(run(pipe), run(pipe, guidance_scale=1.0), 1, "input", "only a is guided")


def test_steps_and_eta(pipe):
    check_found(run(pipe), run(pipe, num_inference_steps=6), 1, "timestep", "another number of steps: 5 in a, 6 in b")
    check_found(run(pipe), run(pipe, eta=0.5), 1, "solver", "another eta")


def test_another_mask_and_another_picture(pipe):
    grown = torch.nn.functional.max_pool2d(MASK, 9, 1, 4)
    check_found(run(pipe), run(pipe, mask_image=grown), 1, "input", "another mask was given", "covers a's and more")
    check_found(run(pipe), run(pipe, image=torch.zeros(1, 3, 32, 48)), 1, "input", "other image")


def test_branches(pipe):
    a = run(pipe)
    a.step(2)
    check_found(a, a.branch(guidance_scale=5.0), 3, "guidance", "another guidance scale")
    check_found(a, a.branch(edit=lambda z: 1.1 * z), 2, "blend", "edited where it branched off, after step 2")
    check_found(a, a.branch(prompt="dark"), 3, "input", "another prompt")


# Planted faults: schedulers


def test_wrong_beta_schedule_and_tampered_table(pipe):
    other = with_scheduler(pipe, DDIMScheduler, beta_end=0.02)
    check_found(run(pipe), run(other), 1, "solver", "alpha or beta schedule", "beta_end 0.012 in a and 0.02 in b")
    tampered = with_scheduler(pipe, DDIMScheduler)
    tampered.scheduler.alphas_cumprod = tampered.scheduler.alphas_cumprod * 0.99
    check_found(run(pipe), run(tampered), 1, "solver", "alpha or beta schedule", "the tables differ")


def test_wrong_prediction_type(pipe):
    wrong = with_scheduler(pipe, DDIMScheduler, prediction_type="v_prediction")
    check_found(run(pipe), run(wrong), 1, "solver", "wrong prediction_type", "v_prediction in b")


def test_another_scheduler_and_offset(pipe):
    euler = with_scheduler(pipe, EulerDiscreteScheduler)
    check_found(run(pipe), run(euler), 0, "start", "another scheduler", "EulerDiscreteScheduler in b")
    a, b = (run(with_scheduler(pipe, kind)) for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler))
    assert first_divergence(a, b).cause.startswith("another scheduler")
    offset = with_scheduler(pipe, DDIMScheduler, steps_offset=0)
    check_found(run(pipe), run(offset), 1, "timestep", "steps_offset 1 in a and 0 in b")


class Stale(PNDMScheduler):
    """Keeps what it remembers of another picture when it starts anew."""

    def set_timesteps(self, *args, **kwargs):
        super().set_timesteps(*args, **kwargs)
        self.ets = [torch.ones(1, 4, 8, 12)]


def test_stale_solver_history(pipe):
    fresh, stale = (with_scheduler(pipe, kind, skip_prk_steps=True) for kind in (PNDMScheduler, Stale))
    stale.scheduler.__class__.__name__ = "PNDMScheduler"
    check_found(run(fresh), run(stale), 1, "history", "stale solver history")


def test_timestep_off_by_one(pipe):
    wrong = planted(
        pipe, "self.scheduler.step(noise_pred, t, latents", "self.scheduler.step(noise_pred, t - 1, latents"
    )
    check_found(run(pipe), run(wrong), 1, "timestep", "off by one: b is at t = 800 where a is at 801")
    call = "latent_model_input,\n                    t"
    asked = planted(pipe, f"{call},", f"{call} - 1,")
    check_found(run(pipe), run(asked), 1, "input", "the timestep")


# Planted faults: guidance


MIX = "noise_pred = noise_pred_uncond + self.guidance_scale * (noise_pred_text - noise_pred_uncond)"


def test_swapped_parts(pipe):
    right = "noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)"
    wrong = planted(pipe, right, "noise_pred_text, noise_pred_uncond = noise_pred.chunk(2)")
    check_found(run(pipe), run(wrong), 1, "guidance", "conditional and unconditional are swapped")
    right = "prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])"
    wrong = planted(pipe, right, "prompt_embeds = torch.cat([prompt_embeds, negative_prompt_embeds])")
    check_found(run(pipe), run(wrong), 1, "input", "conditional and unconditional are swapped")


def test_guidance_applied_twice(pipe):
    wrong = planted(pipe, MIX, f"noise_pred_text = {MIX.split('= ', 1)[1]}; {MIX}")
    check_found(run(pipe), run(wrong), 1, "guidance", "guidance applied twice", "3 x 3 = 9 in b")


# Planted faults: mask and blending


def test_mask_polarity():
    for channels, term in ((9, "input"), (4, "blend")):
        pipe = inpainting(channels)
        check_found(run(pipe), run(pipe, mask_image=1 - MASK), 1, term, "mask polarity")
    right = "(1 - init_mask) * init_latents_proper + init_mask * latents"
    wrong = planted(pipe, right, "init_mask * init_latents_proper + (1 - init_mask) * latents")
    check_found(run(pipe), run(wrong), 1, "blend", "mask polarity")


def test_no_blending():
    pipe, right = inpainting(4), "latents = (1 - init_mask) * init_latents_proper + init_mask * latents"
    check_found(run(pipe), run(planted(pipe, right, "pass")), 1, "blend", "does not put the known latents back")


class ShrunkByAny(StableDiffusionInpaintPipeline):
    """Shrinks the mask so that a cell is repainted if any of its pixels is."""

    def prepare_mask_latents(self, mask, *args, **kwargs):
        cells, known = super().prepare_mask_latents(mask, *args, **kwargs)
        shrunk = torch.nn.functional.max_pool2d(mask, mask.shape[-1] // cells.shape[-1])
        return shrunk.repeat(len(cells), 1, 1, 1), known


class ForgetsScale(StableDiffusionInpaintPipeline):
    """Forgets the scaling factor where the known picture is encoded."""

    def _encode_vae_image(self, image, generator):
        return super()._encode_vae_image(image, generator) / self.vae.config.scaling_factor


@pytest.mark.parametrize(
    ("kind", "words"),
    [(ShrunkByAny, "shrunk to the latent grid otherwise"), (ForgetsScale, "scaling factor missing in b")],
)
def test_faults_in_what_the_denoiser_is_given(pipe, kind, words):
    wrong = copy.copy(pipe)
    wrong.__class__ = kind
    check_found(run(pipe), run(wrong), 1, "input", words)


def test_scaling_factor_missing_where_the_picture_is_decoded(pipe):
    wrong = planted(pipe, "latents / self.vae.config.scaling_factor", "latents")
    check_found(run(pipe), run(wrong), 6, "picture", "scaling factor missing in b")


# Planted faults: generators, weights, precision, versions


def test_consumed_generator(pipe):
    used = torch.Generator().manual_seed(3)
    torch.randn(5, generator=used)
    check_found(run(pipe), run(pipe, generator=used), 0, "start", "had been drawn from before", "consumed")


def test_generator_shared_between_steps(pipe):
    ddpm = with_scheduler(pipe, DDPMScheduler)
    wrong = planted(ddpm, "# expand the latents", "torch.randn(1, generator=generator)\n                # expand")
    found = first_divergence(run(ddpm), run(wrong))
    assert found.term == "draw"
    assert "something else drew from the generator" in found.cause


def test_weights_lora_and_the_first_module(pipe):
    from peft import LoraConfig

    wrong = copy.deepcopy(pipe)
    with torch.no_grad():
        wrong.unet.mid_block.resnets[0].conv1.weight.mul_(1.01)
    found = check_found(run(pipe), run(wrong), 1, "unconditional", "weights of unet differ", modules=True)
    assert found.module == "unet.mid_block.resnets.0.conv1"
    loaded = copy.deepcopy(pipe)
    loaded.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "planted")
    check_found(run(loaded), run(pipe), 1, "unconditional", "LoRA adapter planted loaded in a only")
    assert not any(m._forward_hooks for m in wrong.unet.modules())


def test_a_lora_of_another_strength_is_the_first_module_and_not_what_follows_it(pipe):
    from peft import LoraConfig

    loaded = copy.deepcopy(pipe)
    loaded.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), "planted")
    stronger = copy.deepcopy(loaded)
    names = [n for n, m in stronger.unet.named_modules() if "planted" in getattr(m, "scaling", {})]
    dict(stronger.unet.named_modules())[names[1]].scaling["planted"] *= 2
    found = first_divergence(run(loaded), run(stronger), modules=True)
    assert found.module == f"unet.{names[1]}"  # its parts and those before it give the same


def test_precision(pipe):
    half = copy.deepcopy(pipe).to(dtype=torch.bfloat16)
    check_found(run(pipe), run(half), 0, "start", "another dtype: torch.float32 in a, torch.bfloat16 in b")


def test_other_versions_in_a_recording(pipe, tmp_path):
    from workbench.stepping.recording import load_recording, save_recording

    a = run(pipe)
    a.finish()
    save_recording(a, tmp_path / "run.safetensors", decoded=False)
    recorded = load_recording(tmp_path / "run.safetensors")
    assert first_divergence(a, recorded) is None
    recorded.facts["versions"]["torch"] = "1.13.1"
    for moment in recorded._moments[2:]:
        moment.answers[-1].output[0].add_(1e-5)
        moment.noise_pred = moment.noise_pred + 1e-5
    check_found(a, recorded, 3, "unconditional", "other versions", "torch", "1.13.1")
    assert first_divergence(a, recorded, tolerance=1e-3) is None
    with pytest.raises(RuntimeError, match="expected two runs with their pipelines"):
        first_divergence(a, recorded, modules=True)


def test_bad_arguments(pipe):
    with pytest.raises(TypeError, match="b is a int, expected a DenoisingRun or a recording"):
        first_divergence(run(pipe), 3)
    with pytest.raises(ValueError, match="tolerance"):
        first_divergence(run(pipe), run(pipe), tolerance=-1)
