"""What a state tells is right: its parts against the pipeline's own arithmetic, predicted x0 against planted truth."""

import math
import warnings

import numpy as np
import pytest
import torch

from tests.stepping import pipelines
from tests.stepping.pipelines import d
from workbench.stepping.denoising import DenoisingRun
from workbench.stepping.engine.prediction import denoised, noise_levels

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
VARIANCE = ["DDIM", "DDPM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep",
            "SASolver", "LCM", "TCD"]  # fmt: skip
SCALED = ["EulerDiscrete", "EulerAncestralDiscrete", "LMSDiscrete", "HeunDiscrete", "KDPM2Discrete",
          "KDPM2AncestralDiscrete"]  # fmt: skip
NO_SAMPLE = ["PNDM", "EulerAncestralDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"]
"""Schedulers that diffusers lets not take the network's answer for the picture itself."""


def signal(t):
    """alpha_cumprod, between its entries as schedulers take it: log sigma linear in t."""
    kept = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).numpy()
    return 1 / (1 + np.exp(2 * np.interp(float(t), np.arange(1000), 0.5 * np.log((1 - kept) / kept))))


def perfect(kind, seen, t, x0):
    """What a perfect network says to a picture at time t: computed from t alone, not from the scheduler's tables."""
    a, s = signal(t) ** 0.5, (1 - signal(t)) ** 0.5
    noise = (seen.double() - a * x0) / s
    return {"epsilon": noise, "v_prediction": a * noise - s * x0, "sample": x0.expand_as(noise)}[kind].float()


def planted(scheduler, answer, steps=6):
    """(denoised, the scheduler's own) of each step of a loop with a perfect network."""
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(1, 4, 6, 8, generator=generator).double() - 0.5
    x = torch.randn(1, 4, 6, 8, generator=generator) * getattr(scheduler, "init_noise_sigma", 1.0)
    found = []
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        output, levels = answer(seen, t, x0), noise_levels(scheduler, t)
        mine = denoised(scheduler, levels, output, x)
        out = scheduler.step(output, t, x)
        own = getattr(out, "denoised", None)
        found.append((mine, getattr(out, "pred_original_sample", own), x0, levels))
        x = out.prev_sample
    return found


def perfect_run(name, kind):
    """What `planted` finds with a scheduler that takes the network's answer for this kind of prediction."""
    settings = BETAS | {"prediction_type": kind}
    settings |= {"clip_sample": False} if name in ("DDIM", "DDPM", "LCM", "TCD") else {}
    settings |= {"skip_prk_steps": True} if name == "PNDM" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = getattr(d, f"{name}Scheduler")(**settings)
        return planted(scheduler, lambda seen, t, x0: perfect(kind, seen, t, x0))


@pytest.mark.parametrize("name", NO_SAMPLE)
def test_no_sample_prediction(name):
    with pytest.raises((ValueError, NotImplementedError), match="sample|prediction_type"):
        perfect_run(name, "sample")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in VARIANCE + SCALED
        for kind in ("epsilon", "v_prediction", "sample")
        if kind != "sample" or name not in NO_SAMPLE
    ],
)
def test_denoised_is_the_planted_truth(name, kind):
    found = perfect_run(name, kind)
    for mine, own, x0, levels in found:
        loose = 1e-4 * max(1, levels[1] / levels[0])  # of a network's answer in float32 little is left under much noise
        loose = max(loose, 2e-2) if name.startswith(("Heun", "KDPM2")) else loose  # timesteps between whole ones
        assert torch.allclose(mine.double(), x0, atol=loose), (name, kind, float((mine - x0).abs().max()), levels)
        if own is not None and name != "LCM":
            assert torch.allclose(mine, own, atol=1e-4), f"{name}'s own"
        if own is not None and name == "LCM":  # with its boundary condition, which adds a little of the sample
            assert torch.allclose(mine, own, atol=0.1)


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "UniPCMultistep"])
def test_denoised_of_flow_matching(name):
    others = (
        {"prediction_type": "flow_prediction", "use_flow_sigmas": True} if name == "UniPCMultistep" else {"shift": 3.0}
    )
    scheduler = getattr(d, f"{name}Scheduler")(**others)

    def answer(seen, t, x0):
        share = float(t) / 1000
        return ((seen.double() - x0) / share).float()  # x = x0 + share (noise - x0): noise - x0 = (x - x0) / share

    for mine, _, x0, _ in planted(scheduler, answer):
        assert torch.allclose(mine.double(), x0, atol=1e-2 if name == "UniPCMultistep" else 1e-4)  # t is rounded there


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["EDMEuler", "EDMDPMSolverMultistep"])
def test_denoised_of_edm(name, kind):
    scheduler = getattr(d, f"{name}Scheduler")(prediction_type=kind)

    def answer(seen, t, x0):
        sigma = math.exp(4 * float(t))  # Karras et al., table 1: c_noise = ln(sigma) / 4
        c_in, c_skip = (sigma**2 + 0.25) ** -0.5, 0.25 / (sigma**2 + 0.25)
        c_out = sigma * 0.5 * c_in * (1 if kind == "epsilon" else -1)
        return ((x0 - c_skip * seen.double() / c_in) / c_out).float()

    for mine, _, x0, (a, s) in planted(scheduler, answer):
        assert a == 1
        assert torch.allclose(mine.double(), x0, atol=1e-4 * max(1, s))


def test_clipped_where_the_scheduler_clips():
    scheduler = d.DDIMScheduler(**BETAS, clip_sample=True, clip_sample_range=0.2)
    for mine, own, *_ in planted(scheduler, lambda seen, t, x0: perfect("epsilon", seen, t, x0)):
        assert torch.allclose(mine, own, atol=1e-6)
        assert mine.abs().max() <= 0.2


@pytest.mark.parametrize("kind", ["sd_text", "sd3", "flux", "pixart", "kandinsky", "upscale"])
def test_guidance_is_taken_apart(kind):
    pipe, arguments = pipelines.made(kind)
    state = DenoisingRun(pipe, seed=3, **arguments).step(2)
    scale = 2.0 if kind == "flux" else 3.0
    assert state.guidance == pytest.approx(scale, rel=1e-3)
    uncond, text = state.noise_pred_uncond, state.noise_pred_text
    mixed = state.noise_pred[:, : uncond.shape[1]]
    assert torch.allclose(uncond + scale * (text - uncond), mixed, atol=1e-5)
    assert state.guidance_norm == pytest.approx(float((text - uncond).square().mean().sqrt()))


def test_the_part_with_the_prompt_is_the_one_that_changes_with_it():
    pipe, arguments = pipelines.made("sd_text")
    run = DenoisingRun(pipe, seed=3, **arguments)
    state = run.step()
    other = run.branch(at=0, prompt=["small room", "red"]).step()
    assert torch.equal(state.noise_pred_uncond, other.noise_pred_uncond)
    assert not torch.equal(state.noise_pred_text, other.noise_pred_text)


def test_three_predictions_are_not_taken_for_two():
    pipe, arguments = pipelines.made("pix2pix")
    state = DenoisingRun(pipe, seed=3, **arguments).step()
    assert state.guidance is state.noise_pred_text is state.guidance_norm is None


def test_names_at_a_step():
    pipe, arguments = pipelines.made("sd_inpaint4")
    run = DenoisingRun(pipe, seed=3, **arguments)
    first = run.goto(0)
    assert first.i == 0
    assert first.t is first.sigma is first.noise_pred is None
    assert (first.draws, first.kept) == ([], False)
    one, two = run.step(), run.step()
    assert torch.equal(one.latents_before, first.latents)
    assert torch.equal(two.latents_before, one.latents)
    assert [s.i for s in run.states] == [0, 1, 2]
    assert one.kept  # 4 channels: known latents are put back
    assert not torch.equal(one.solved, one.latents)
    assert one.t > two.t
    assert one.sigma > two.sigma
    kept = pipe.scheduler.alphas_cumprod[int(one.t)]
    assert one.sigma == pytest.approx(float((1 - kept) / kept) ** 0.5, rel=1e-5)
    assert one.digest != two.digest
    assert {"sample", "sample[0]", "timestep", "encoder_hidden_states"} <= set(one.inputs)
    a, s = one.levels
    assert (a, s) == pytest.approx((float(kept) ** 0.5, float(1 - kept) ** 0.5), rel=1e-5)
    assert run.states[0].levels is None


def test_draws_are_the_schedulers():
    pipe, arguments = pipelines.fresh("sd_text", d.DDPMScheduler.from_config(pipelines.ddim().config))
    run = DenoisingRun(pipe, seed=3, **arguments)
    drawn = [len(run.step().draws) for _ in range(4)]
    assert drawn[:3] == [1, 1, 1]
    assert len(run.start_draws) == 1
    assert run.states[1].draws[0].shape == run.state.latents.shape
    pipe, arguments = pipelines.made("sd_text")
    assert DenoisingRun(pipe, seed=3, **arguments).step().draws == []


def test_history_tells_a_solver_that_remembers():
    pipe, arguments = pipelines.fresh("sd_text", d.DPMSolverMultistepScheduler.from_config(pipelines.ddim().config))
    run = DenoisingRun(pipe, seed=3, **arguments)
    run.step(3)
    assert len({state.history for state in run.states[1:]}) == 3


def test_preview_is_the_picture_of_denoised():
    pipe, arguments = pipelines.made("sd_text")
    run = DenoisingRun(pipe, seed=3, **arguments)
    state = run.step(2)
    with torch.no_grad():
        wanted = pipe.vae.decode(state.denoised / pipe.vae.config.scaling_factor).sample / 2 + 0.5
    assert torch.allclose(state.preview, wanted.clamp(0, 1), atol=1e-6)
    assert state.decoded().shape == (4, 3, 32, 48)
    assert run.recorded == 2


def test_decoding_asks_no_denoiser():
    for kind in ("sd_text", "pixart", "lcm", "sd_control"):
        pipe, arguments = pipelines.made(kind)
        run = DenoisingRun(pipe, seed=3, **arguments)
        run.step(2)
        with counted(pipe) as calls:
            run.decode(2)
            run.decode(1, "denoised")
        assert calls == []


class counted:
    """Notes each forward pass of the denoiser and control network of a pipeline."""

    def __init__(self, pipe):
        names = ("unet", "transformer", "controlnet", "prior")
        self.networks = [n for name in names if (n := getattr(pipe, name, None)) is not None]

    def __enter__(self):
        calls = []
        self.hooks = [n.register_forward_pre_hook(lambda *a: calls.append(1)) for n in self.networks]
        return calls

    def __exit__(self, *error):
        for hook in self.hooks:
            hook.remove()
