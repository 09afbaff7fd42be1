"""Another future: the change takes hold after the branch, nowhere before it, and never in the parent."""

import pytest
import torch

from tests.stepping import pipelines
from tests.stepping.pipelines import d
from tests.stepping.test_state import counted
from workbench.stepping.denoising import DenoisingRun
from workbench.stepping.engine.switching import mixed


def begun(kind="sd_text", scheduler=None, steps=2, **others):
    pipe, arguments = pipelines.fresh(kind, scheduler)
    if kind == "sd_text":
        arguments["num_images_per_prompt"] = 1
    run = DenoisingRun(pipe, seed=3, **(arguments | others))
    run.step(steps)
    return run


CHANGES = {
    "guidance_scale": {"guidance_scale": 7.0},
    "no guidance": {"guidance_scale": 1.0},
    "prompt": {"prompt": ["red", "small room"]},
    "negative_prompt": {"negative_prompt": ["ball", "red"]},
    "eta": {"eta": 1.0},
    "edit": {"edit": lambda latents: latents.mul_(0.5)},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["sd_text", "pixart"])
def test_a_change_takes_hold_after_the_branch(kind, change):
    run = begun(kind)
    before = [state.digest for state in run.states]
    branch = run.branch(**CHANGES[change])
    assert (branch.i, branch.at, branch.parent, run.branches) == (2, 2, run, [branch])
    assert [s.digest for s in branch.states[:2]] == before[:2]
    assert (branch.state.digest == before[2]) == (change != "edit")
    branch.step()
    assert branch.state.digest != run.branch().step().digest
    out = branch.finish().images
    again = run.branch(at=2, **CHANGES[change])
    again.step()
    again._drop()
    assert torch.equal(again.finish().images, out)
    assert [state.digest for state in run.states] == before
    assert change == "edit" or run.changes == {}


def test_from_the_start_a_branch_is_the_other_call():
    run = begun()
    for change in ({"guidance_scale": 7.0}, {"prompt": ["red", "small room"]}, {"num_inference_steps": 5}):
        wanted = pipelines.plain(run.pipe, run.arguments | change)
        assert torch.equal(run.branch(at=0, **change).finish().images, wanted)


@pytest.mark.parametrize("kind", ["sd_text", "sd_image", "sd_inpaint4", "flux", "pixart"])
def test_edit_at_0(kind):
    run = begun(kind)
    edited = run.branch(at=0, edit=lambda latents: latents + 1)
    assert torch.equal(edited.state.latents, run.states[0].latents + 1)
    out = pipelines.pixels(edited.finish())
    edited = run.branch(at=0, edit=lambda latents: latents + 1)
    edited.step()
    edited._drop()
    assert torch.equal(pipelines.pixels(edited.finish()), out)


def test_edit_gets_latents_and_its_answer_goes_on():
    run = begun()
    branch = run.branch(at=1, edit=lambda latents: torch.zeros_like(latents))
    assert branch.state.latents.abs().max() == 0
    assert branch.step().latents_before.abs().max() == 0
    assert torch.equal(branch.states[1].latents_before, run.states[1].latents_before)


def test_an_edit_at_the_end_is_decoded():
    run = begun(steps=4)
    branch = run.branch(edit=lambda latents: latents * 0)
    with torch.no_grad():
        wanted = run.pipe.vae.decode(run.state.latents * 0).sample / 2 + 0.5
    assert torch.allclose(branch.finish().images, wanted.clamp(0, 1), atol=1e-6)


def test_another_mask():
    run = begun("sd_inpaint4")
    whole = run.branch(mask_image=torch.ones(1, 1, 32, 48))
    whole.step()
    assert not whole.state.kept
    assert run.branch().step().kept
    assert run.branch(at=0, mask_image=torch.ones(1, 1, 32, 48)).step().kept is False


def test_noise_seed():
    run = begun(scheduler=d.DDPMScheduler.from_config(pipelines.ddim().config))
    one, two, other = (run.branch(noise_seed=seed) for seed in (5, 5, 6))
    assert one.step().digest == two.step().digest != other.step().digest
    assert one.states[2].digest == run.states[2].digest
    one._drop()
    assert torch.equal(one.finish().images, two.finish().images)
    assert not torch.equal(one.output.images, run.branch().finish().images)


@pytest.mark.parametrize("name", ["DDIM", "UniPCMultistep", "HeunDiscrete", "EulerAncestralDiscrete", "LMSDiscrete"])
def test_the_same_scheduler_changes_nothing(name):
    scheduler = getattr(d, f"{name}Scheduler").from_config(pipelines.ddim().config)
    run = begun(scheduler=scheduler)
    branch = run.branch(scheduler=type(scheduler).from_config(scheduler.config))
    branch.step()
    branch._drop()
    assert torch.equal(branch.finish().images, run.finish().images)


class Smooth(torch.nn.Module):
    """A denoiser of Gaussian data around a picture: the exact score, so that all solvers must agree in the end."""

    config = pipelines.unet().config
    dtype, device, add_embedding = torch.float32, torch.device("cpu"), None

    def __init__(self):
        super().__init__()
        self.mean = torch.rand(1, 4, 8, 12, generator=torch.Generator().manual_seed(9)) - 0.5
        self.asked = []  # one list for all shallow copies

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=True, **others):
        self.asked.append(float(timestep))
        a2 = _kept(timestep)
        a, s = a2**0.5, (1 - a2) ** 0.5
        noise = s * (sample - a * self.mean) / (a2 * 0.09 + s**2)  # data of standard deviation 0.3
        return (noise,) if not return_dict else type("Out", (), {"sample": noise})()


def _kept(t):
    import numpy as np

    kept = pipelines.ddim().alphas_cumprod.double().numpy()
    log = np.interp(float(t), np.arange(1000), 0.5 * np.log((1 - kept) / kept))
    return 1 / (1 + np.exp(2 * log))


@pytest.mark.parametrize("name", ["EulerDiscrete", "DPMSolverMultistep", "HeunDiscrete", "UniPCMultistep", "PNDM"])
@pytest.mark.parametrize("at", [20, 41])
@pytest.mark.long
def test_another_scheduler_ends_in_nearly_the_same_picture(name, at):
    pipe, arguments = pipelines.fresh("sd_text", pipelines.ddim())
    pipe.unet = Smooth()
    settings = {"num_images_per_prompt": 1, "num_inference_steps": 60, "guidance_scale": 1.0, "output_type": "latent"}
    run = DenoisingRun(pipe, seed=3, **(arguments | settings))
    wanted = run.finish().images
    branch = run.branch(at=at, scheduler=getattr(d, f"{name}Scheduler").from_config(pipe.scheduler.config))
    assert [s.digest for s in branch.states[:at]] == [s.digest for s in run.states[:at]]
    pipe.unet.asked.clear()
    out = branch.finish().images
    assert max(pipe.unet.asked) <= run.states[at].t  # the first part is not computed again
    # solvers differ, and this DDIM ends at the first alpha, a little short of clean; a seam would be a multiple of it
    assert float((out - wanted).abs().mean()) < 0.04 * float(wanted.std())
    again = run.branch(at=at, scheduler=getattr(d, f"{name}Scheduler").from_config(pipe.scheduler.config))
    again.step()
    again._drop()
    assert torch.equal(again.finish().images, out)


def test_mixing_keeps_signal_and_noise():
    x0, noise = torch.randn(2, 1, 4, 4, 4, dtype=torch.float64)
    assert torch.allclose(mixed(0.6 * x0 + 0.8 * noise, x0, (0.6, 0.8), (1.0, 2.0)), x0 + 2 * noise)


def test_going_back_and_branching_ask_no_network():
    run = begun("sd_control", steps=4)
    with counted(run.pipe) as calls:
        run.back(3)
        run._drop()
        branch = run.branch(at=3)
        assert branch.state.digest == run.states[3].digest
        assert len(branch.states) == 4
    assert calls == []


def test_a_tree():
    run = begun()
    first = run.branch(at=1, guidance_scale=1.0)
    second = first.branch(at=1, prompt=["red", "ball"])
    assert run.tree().splitlines()[1].strip().startswith("run.1 at 1: guidance_scale=1.0")
    assert second.name == "run.1.1"
    assert second.root() is run
    assert second.step().i == 2


def test_a_branch_that_fails_leaves_no_trace():
    run = begun()
    for wrong, error, told in (
        ({"at": 3}, ValueError, "at is 3"),
        ({"num_inference_steps": 9}, ValueError, "Branch at 0"),
        ({"height": 64}, ValueError, "expected 32"),
        ({"callback": print}, ValueError, "callback"),
        ({"generator": torch.Generator()}, ValueError, "noise_seed"),
        ({"noise_seed": -1}, ValueError, "noise_seed|seed"),
    ):
        with pytest.raises(error, match=told):
            run.branch(**wrong)
    assert run.branches == []
    assert run.branch(num_inference_steps=4).at == 2  # the same is no change
