"""Stepping, rewinding, stopping; what may make a run inexact; bad arguments; memory."""

import gc
import os

import pytest
import torch
from PIL import Image

from tests.stepping import pipelines
from tests.stepping.pipelines import d
from tests.stepping.test_state import counted
from workbench.stepping.denoising import DenoisingRun
from workbench.stepping.engine.memory import Recent, Shelf
from workbench.stepping.engine.structure import (
    cloned,
    digest,
    fitted,
    is_pil,
    mapped,
    same_bits,
    skeleton,
)


def made(kind="sd_inpaint4", **others):
    pipe, arguments = pipelines.fresh(kind)
    arguments.pop("num_images_per_prompt", None)
    return DenoisingRun(pipe, seed=3, **(arguments | others))


def test_moving_about():
    run = made(num_inference_steps=6)
    assert repr(run) == "DenoisingRun(StableDiffusionInpaintPipeline, run, step 0 of ?, 0 recorded)"
    assert run.step(2).i == 2
    assert run.total == 6
    assert run.back().i == 1
    assert run.goto(4).i == run.recorded == 4
    with counted(run.pipe) as calls:
        run.goto(0)
        run.step(4)
        run._drop()
        run.goto(4)
    assert calls == []
    assert run.run_until(lambda state: state.t < 200).t < 200
    assert run.finish().images.shape == (2, 3, 32, 48)
    assert run.done
    with pytest.raises(RuntimeError, match="the run is over"):
        run.step()
    with pytest.raises(ValueError, match="n is 9"):
        run.back(9)
    with pytest.raises(ValueError, match="i is 7"):
        run.goto(7)


def test_two_loops_are_one_run():
    pipe, arguments = pipelines.made("kandinsky_whole")
    run = DenoisingRun(pipe, seed=3, **arguments)
    shapes = [tuple(run.goto(i).latents.shape) for i in range(1, 8)]
    assert shapes == [(2, 16)] * 3 + [(2, 4, 16, 24)] * 4 or len(set(shapes)) == 2
    assert (run.i, run.total, run.done) == (7, 7, True)


@pytest.mark.parametrize("where", [{"step": 3}, {"t": 500}, {"sigma": 2.0}, {"when": lambda s: s.i == 3}])
def test_breakpoints(where):
    run = made(num_inference_steps=6)
    point = run.break_at(**where)
    assert "step" not in where or run.break_at(**where) is point  # once is enough
    state = run.finish()
    assert run.stopped.startswith("breakpoint")
    assert 0 < state.i < 6
    if "t" in where:
        assert state.t <= 500 < run.states[state.i - 1].t
    if "sigma" in where:
        assert state.sigma <= 2 < run.states[state.i - 1].sigma
    run.breakpoints.remove(point)
    assert torch.equal(run.finish().images, made(num_inference_steps=6).finish().images)


def test_watch_nan():
    run = made(num_inference_steps=5)
    run.step(2)
    bad = run.branch(edit=lambda latents: latents.index_fill(3, torch.tensor([1]), float("nan")))
    bad.watch("nan")
    assert bad.finish().i == 3
    assert "NaN" in bad.stopped
    bad._drop()  # NaN is replayed like any other bits
    assert bad.step().i == 4
    assert same_bits(bad.branch(at=3).step().latents, bad.state.latents)
    clean = run.branch()
    clean.watch("nan")
    clean.finish()
    assert clean.stopped is None


def test_watch_guidance():
    run = made()
    run.step(2)
    norm = run.state.guidance_norm
    jump = run.branch(edit=lambda latents: 30 * latents, prompt=["ball", "red ball"])
    jump.watch("guidance_norm", ratio=1.0 + 1e-6)
    assert jump.step().guidance_norm != norm
    assert "guidance_norm went from" in jump.stopped


def test_watch_kept_and_region():
    run = made("sd_inpaint4")
    watch = run.watch("kept", above=0.01)  # random weights keep nothing
    assert run.step().i == 1
    assert "kept area is off" in run.stopped
    run.watches.remove(watch)
    run.watch("kept", above=1.0)
    run.watch("region", region=(10, 8, 30, 20), above=0.0)
    run.step(3)
    assert "the region changed" in run.stopped
    assert run.i == 2
    picture = Image.new("RGB", (48, 32))
    made("sd_text").watch("kept", image=picture, mask=Image.new("L", (48, 32))).finds(None, run.state)
    with pytest.raises(ValueError, match="the call has no image"):
        made("sd_text").watch("kept")
    with pytest.raises(ValueError, match="region is missing"):
        made().watch("region")
    run = made()
    run.step(2)
    with pytest.raises(ValueError, match=r"region is \(500, 500, 600, 600\), which holds no pixel of a picture of"):
        run.who_changed((500, 500, 600, 600))
    with pytest.raises(ValueError, match="what is 'nans'"):
        made().watch("nans")


def test_watch_of_ones_own():
    run = made()
    run.watch(lambda before, after: "third" if after.i == 3 else None)
    assert run.finish().i == 3
    assert run.stopped == "watch: third"


def test_who_changed():
    run = made("sd_text", num_inference_steps=5)
    run.step(2)

    def dark(latents):
        latents[..., 2:4, 2:6] += 40
        return latents

    branch = run.branch(edit=dark)
    branch.goto(5)
    changes = [float((branch.decode(i) - branch.decode(i - 1)).abs()[..., 10:14, 12:20].max()) for i in range(1, 6)]
    above = sorted(changes)[-2]
    last = max(i for i, change in enumerate(changes, 1) if change > above)
    assert branch.who_changed((12, 10, 20, 14), above=above, what="latents") == last == 2
    assert branch.who_changed((12, 10, 20, 14), above=1.0) is None
    branch.goto(0)
    with pytest.raises(RuntimeError, match="stands at its start"):
        branch.who_changed((12, 10, 20, 14))
    branch.finish()
    region = torch.zeros(1, 1, 32, 48)
    region[..., 10:14, 12:20] = 1
    assert branch.who_changed(region, above=above, what="latents") == 2
    with pytest.raises(ValueError, match="region is"):
        branch.who_changed(torch.zeros(1, 1, 8, 8))


def test_caveats_are_told_before_the_first_step():
    pipe, arguments = pipelines.fresh("sd_text")
    pipe.unet = pipelines.unet(dropout=0.1).train()
    with pytest.warns(UserWarning, match="dropout"):
        run = DenoisingRun(pipe, **arguments)
    assert "unet is in training mode" in run.caveats[0]
    assert run.recorded == 0

    class NoGenerator(pipelines.HomeMade):
        def __call__(self, known, steps=4):
            return super().__call__(known, steps)

    made = NoGenerator(pipelines.unet(), pipelines.ddim())
    made.set_progress_bar_config(disable=True)
    with pytest.warns(UserWarning, match="no generator"):
        run = DenoisingRun(made, seed=3, **pipelines.made("home_made")[1])
    first = run.finish()[0]
    torch.rand(3)
    assert torch.equal(run.branch(at=2).finish()[0], first)  # its own seed, whatever is drawn outside
    torch.manual_seed(3)
    assert torch.equal(made(**pipelines.made("home_made")[1])[0], first)

    pipe, arguments = pipelines.fresh("dit")
    assert DenoisingRun(pipe, **arguments).caveats == []
    pipe.scheduler = d.DDPMScheduler.from_config(pipe.scheduler.config)
    with pytest.warns(UserWarning, match="DiTPipeline gives DDPMScheduler no generator"):
        run = DenoisingRun(pipe, **arguments)
    wanted = pipelines.pixels(run.finish())
    assert torch.equal(pipelines.pixels(run.branch(at=2).finish()), wanted)


def test_bad_arguments():
    pipe, arguments = pipelines.made("flux")
    for wrong, error, told in (
        ({"guidance": 1.0}, TypeError, "guidance: FluxPipeline does not know it. It takes prompt"),
        ({"callback": print}, ValueError, "callback is given"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"seed": 0.5}, TypeError, "seed is 0.5"),
        ({"memory": -1}, ValueError, "memory is -1"),
    ):
        with pytest.raises(error, match=told):
            DenoisingRun(pipe, **(arguments | wrong))
    pipe, arguments = pipelines.made("sd_inpaint4")  # its call takes **kwargs, for two names of old
    with pytest.raises(
        TypeError, match="guidence_scale: StableDiffusionInpaintPipeline does not know it. It takes prompt"
    ):
        DenoisingRun(pipe, **arguments, guidence_scale=1.0)
    with pytest.raises(TypeError, match="guidance: StableDiffusionInpaintPipeline does not know it"):
        DenoisingRun(pipe, **arguments).branch(at=0, guidance=3)
    with pytest.raises(TypeError, match="pipe is a str"):
        DenoisingRun("pipe")
    with pytest.raises(TypeError, match="has no scheduler"):
        DenoisingRun(pipelines.HomeMade(pipelines.unet(), None), known=None)


def test_arguments_are_copied():
    pipe, arguments = pipelines.fresh("sd_inpaint4")
    picture = arguments["image"].clone()
    run = DenoisingRun(pipe, seed=3, **(arguments | {"image": picture}))
    picture.zero_()
    assert torch.equal(run.finish().images, pipelines.plain(pipe, arguments))


@pytest.mark.parametrize("steps", [120, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.long
def test_many_steps_in_little_memory(steps):
    pipe, arguments = pipelines.fresh("ddpm")
    pipe.unet = Still()
    arguments |= {"num_inference_steps": steps}
    run = DenoisingRun(pipe, seed=3, memory=0.5, **arguments)
    middle = int(0.7 * steps)
    run.goto(middle)
    assert run._shelf.bytes <= 0.5 * 2**20
    assert run._shelf._entries[0].spilled
    folder = run._shelf._folder.name
    digests = [run.states[i].digest for i in (1, middle // 2, middle)]
    run._drop()
    wanted = pipelines.plain(pipe, arguments)
    assert torch.equal(pipelines.pixels(run.finish()), wanted)  # replayed from the files, checked against the call
    assert digests == [run.states[i].digest for i in (1, middle // 2, middle)]
    assert run.recorded == steps
    branch = run.branch(at=middle // 2)
    del run
    gc.collect()
    assert branch.states[20].latents.shape == (2, 3, 16, 16)  # a branch holds on to what it shares
    del branch
    gc.collect()
    assert not os.path.exists(folder)


class Still(torch.nn.Module):
    """A network of no parameters, for many steps."""

    config = pipelines.made("ddpm")[0].unet.config
    dtype, device = torch.float32, torch.device("cpu")

    def forward(self, sample, timestep, **others):
        return type("Out", (), {"sample": 0.1 * sample.roll(1, -1)})()


def test_control_features_are_not_kept():
    pipe, arguments = pipelines.made("sd_control")
    run = DenoisingRun(pipe, seed=3, **arguments)
    run.step(3)
    sizes = [entry.bytes for entry in run._shelf._entries]
    assert sizes[2] < sizes[0] / 2
    assert sizes[2] < 14 * run.state.latents.nbytes + 6000  # a generator's state takes 5 kB


def test_a_shelf_spills_and_shares():
    first, size = Shelf(4000), 400
    first.extend([{"x": torch.full((100,), float(k)), "k": k} for k in range(20)])
    assert first.bytes <= 4000
    assert [entry.spilled for entry in first._entries] == [True] * 10 + [False] * 10
    first._entries[0].spill(first._folder)  # as a branch in another thread may do: nothing more happens
    second = first.first(15)
    second.limit = size
    second.extend([{"x": torch.zeros(100), "k": 99}])
    del second
    gc.collect()
    assert [(record["k"], float(record["x"][0])) for record in first] == [(k, float(k)) for k in range(20)]


def test_of_decoded_pictures_the_last_used_are_kept(monkeypatch):
    monkeypatch.setattr("workbench.stepping.denoising.PICTURES", 3)
    run = made("sd_text")
    run.finish()
    shown = [run.decode(i) for i in range(4)]
    assert [i for i, _ in run._pictures] == [1, 2, 3]
    assert run.decode(1) is shown[1]
    assert torch.equal(run.decode(0), shown[0])  # decoded once more, in the place of the one looked at longest ago
    assert [i for i, _ in run._pictures] == [3, 1, 0]
    with counted(run.pipe) as calls:
        assert run.who_changed((0, 0, 48, 32), above=1.0) is None
    assert (len(run._pictures), calls) == (3, [])


def test_recent_makes_each_value_once_while_it_is_kept():
    recent, made = Recent(2), []
    assert [recent.get(key, lambda key=key: made.append(key) or 10 * key) for key in (1, 2, 1, 3, 1, 2)] == [
        10, 20, 10, 30, 10, 20,
    ]  # fmt: skip
    assert made == [1, 2, 3, 2]
    assert list(recent) == [1, 2]


def test_structures():
    out = d.models.unets.unet_2d_condition.UNet2DConditionOutput(sample=torch.arange(4.0))
    twin = cloned(out)
    out.sample.zero_()
    assert twin.sample.tolist() == twin[0].tolist() == twin["sample"].tolist() == [0, 1, 2, 3]
    assert mapped((twin, [{"a": torch.ones(2)}]), lambda t: t + 1)[1][0]["a"].tolist() == [2, 2]
    assert fitted(torch.arange(3), 5).tolist() == [0, 1, 2, 0, 1]
    assert fitted(skeleton({"a": torch.ones(2, 3)}), 4, torch.device("cpu"))["a"].shape == (4, 3)
    nan = torch.tensor([float("nan"), 1.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(torch.tensor([0.0]), torch.tensor([0.0], dtype=torch.float64))
    assert digest(torch.zeros(2, 3)) != digest(torch.zeros(3, 2)) != digest(torch.zeros(3, 2, dtype=torch.bfloat16))
    assert digest([1, [2]]) != digest([1, 2])
    assert digest(Image.new("L", (2, 3))) != digest(Image.new("L", (3, 2)))
    opened = type("Opened", (Image.Image,), {})  # files that are opened are of subclasses
    assert is_pil(Image.new("L", (2, 3)))
    assert is_pil(opened())
    assert not any(is_pil(other) for other in (torch.ones(1), "L", Image, None))
