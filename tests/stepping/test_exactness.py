"""The first promise: a run is the pipeline's call, to the bit, however it is stepped, dropped, rewound and branched."""

import gc
import re
import threading
import warnings
from importlib.util import find_spec

import pytest
import torch

from tests.stepping import pipelines
from workbench.stepping.denoising import DenoisingRun

KINDS = list(pipelines.KINDS)


def with_scheduler(kind, scheduler):
    """A pipeline with another scheduler; None where diffusers itself refuses, with the very words that are listed."""
    name = scheduler.__name__
    if name in pipelines.NEEDS and find_spec(pipelines.NEEDS[name]) is None:
        with pytest.raises(ImportError, match=pipelines.NEEDS[name]):
            scheduler.from_config(pipelines.made(kind)[0].scheduler.config)
        return None
    pipe, arguments = pipelines.fresh(kind, scheduler.from_config(pipelines.made(kind)[0].scheduler.config))
    told = pipelines.REFUSED.get((kind, name))
    if told is not None:
        with pytest.raises(TypeError, match=re.escape(told)):
            pipelines.plain(pipe, arguments)
        return None
    return pipe, arguments, pipelines.plain(pipe, arguments)


def prove(pipe, arguments, wanted):
    run = DenoisingRun(pipe, seed=3, **arguments)
    if run.caveats:  # said before it starts: it agrees with itself only
        wanted = pipelines.pixels(DenoisingRun(pipe, seed=3, **arguments).finish())
    run.step(2)
    run._drop()
    assert torch.equal(pipelines.pixels(run.finish()), wanted), "dropped after 2 steps"
    run.back()
    for at in (0, run.total // 2, run.total):
        before = [state.digest for state in run.states]
        branch = run.branch(at=at)
        assert branch.state.digest == before[at]
        branch._drop()  # so that even the beginning comes from the record
        assert torch.equal(pipelines.pixels(branch.finish()), wanted), f"unchanged branch at {at}"
        assert [state.digest for state in branch.states] == before
        assert [state.digest for state in run.states] == before, "the parent changed"
    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.long
def test_every_pipeline(kind):
    pipe, arguments = pipelines.made(kind)
    settings = dict(pipe.scheduler.config) if hasattr(pipe, "scheduler") else {}
    wanted = pipelines.plain(pipe, arguments)
    run = prove(pipe, arguments, wanted)
    if "output_type" in arguments:
        picture = pipelines.plain(pipe, arguments | {"output_type": "np"}).movedim(-1, 1)
        assert torch.equal(run.decode(run.total), picture)
    assert run.caveats == []
    assert settings == (dict(pipe.scheduler.config) if hasattr(pipe, "scheduler") else {})


@pytest.mark.parametrize("scheduler", pipelines.schedulers("sd_text"), ids=lambda c: c.__name__)
@pytest.mark.long
def test_every_scheduler(scheduler):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if case := with_scheduler("sd_text", scheduler):
            prove(*case)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [(kind, s) for kind in KINDS if kind not in ("sd_text", "kandinsky_whole") for s in pipelines.schedulers(kind)[1:]],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_every_pipeline_with_every_scheduler(kind, scheduler):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if case := with_scheduler(kind, scheduler):
            prove(*case)


@pytest.mark.parametrize("kind", ["sd_text", "sd_inpaint4", "flux", "pixart"])
def test_without_guidance(kind):
    pipe, arguments = pipelines.made(kind)
    arguments |= {"guidance_scale": 1.0}
    arguments |= {"true_cfg_scale": 1.0} if kind == "flux" else {}
    run = prove(pipe, arguments, pipelines.plain(pipe, arguments))
    assert run.state.guidance is None
    assert run.state.noise_pred_uncond is None


def test_a_generator_for_each_picture():
    pipe, arguments = pipelines.made("sd_text")
    arguments |= {"num_images_per_prompt": 1}
    wanted = pipe(**arguments, generator=[torch.Generator().manual_seed(s) for s in (7, 8)]).images
    assert torch.equal(DenoisingRun(pipe, seed=[7, 8], **arguments).finish().images, wanted)


def test_a_generator_given_is_not_consumed():
    pipe, arguments = pipelines.made("sd_text")
    generator = torch.Generator().manual_seed(3)
    torch.randn(5, generator=generator)
    state = generator.get_state()
    first = DenoisingRun(pipe, generator=generator, **arguments).finish().images
    assert torch.equal(generator.get_state(), state)
    assert torch.equal(first, pipe(**arguments, generator=generator).images)


def test_from_another_thread():
    pipe, arguments = pipelines.made("sd_inpaint9")
    run = DenoisingRun(pipe, seed=3, **arguments)
    run.step(2)
    thread = threading.Thread(target=run.step)
    thread.start()
    thread.join()
    assert run.i == 3
    assert torch.equal(run.finish().images, pipelines.plain(pipe, arguments))


@pytest.mark.long
def test_ten_runs_take_turns():
    pipe, arguments = pipelines.made("sd_text")
    kinds = [c for c in pipelines.schedulers("sd_text") if c.__name__ in (
        "DDIMScheduler", "PNDMScheduler", "UniPCMultistepScheduler", "EulerAncestralDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    )]  # fmt: skip
    runs, wanted = [], []
    arguments |= {"num_inference_steps": 4}
    for k in range(10):
        own, _ = pipelines.fresh("sd_text", kinds[k % 5].from_config(pipe.scheduler.config))
        other = arguments | {"guidance_scale": 1.0 + k, "num_images_per_prompt": 1}
        runs.append(DenoisingRun(own, seed=k, **other))
        wanted.append(pipelines.plain(own, other, seed=k))
    left = list(runs)
    while left:
        for run in left:
            run.step()
        gc.collect()
        left = [run for run in left if not run.done]
    for run, picture in zip(runs, wanted, strict=True):
        assert torch.equal(run.output.images, picture)


@pytest.mark.long
def test_a_callback_of_the_users_own():
    pipe, arguments = pipelines.made("sd_text")
    seen = []

    def callback(pipe, i, t, given):
        seen.append((i, sorted(given)))
        if i == 1:
            pipe._guidance_scale = 1.5
        return {"latents": given["latents"] * 1.01}

    arguments |= {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    wanted = pipelines.plain(pipe, arguments)
    plainly, seen[:] = list(seen), []
    run = DenoisingRun(pipe, seed=3, **arguments)
    run.finish()
    assert seen == plainly
    prove(pipe, arguments, wanted)


@pytest.mark.long
def test_restarting_from_latents_is_not_exact_where_this_is():
    """The usual way, a new solver on latents k and the timesteps left, forgets what a multistep solver remembers."""
    kinds = {c.__name__: c for c in pipelines.schedulers("sd_text")}
    errors = {}
    for name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "LMSDiscreteScheduler"):
        pipe, arguments = pipelines.fresh("sd_text", kinds[name].from_config(pipelines.ddim().config))
        run = DenoisingRun(pipe, seed=3, **arguments, eta=0.0)
        wanted = run.finish().images
        assert torch.equal(run.branch(at=2).finish().images, wanted)
        errors[name] = float((restarted(run, 2) - wanted).abs().max())
    assert errors["DDIMScheduler"] == 0  # it remembers nothing
    assert all(error > 1e-6 for name, error in errors.items() if name != "DDIMScheduler"), errors


def restarted(run, k):
    """What naive stepping does: the loop written anew, a fresh scheduler, its remaining timesteps, latents k."""
    pipe, rows = run.pipe, len(run.state.latents)
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(run.total)
    embeds, negative = pipe.encode_prompt(
        run.arguments["prompt"], "cpu", run.arguments.get("num_images_per_prompt", 1), True,
        run.arguments["negative_prompt"],
    )  # fmt: skip
    latents = run.states[k].latents
    with torch.no_grad():
        for t in scheduler.timesteps[k:]:
            seen = scheduler.scale_model_input(torch.cat([latents] * 2), t)
            uncond, text = pipe.unet(seen, t, encoder_hidden_states=torch.cat([negative, embeds])).sample.chunk(2)
            latents = scheduler.step(uncond + 3.0 * (text - uncond), t, latents).prev_sample
        assert len(latents) == rows
        pictures = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return pipe.image_processor.postprocess(pictures, output_type="pt")
