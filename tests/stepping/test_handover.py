"""Between two steps nothing of a run is left in the interpreter; whatever ends a call, the run stands and goes on."""

import copy
import gc
import subprocess
import sys
import threading
import weakref

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.stepping import pipelines
from workbench.stepping.denoising import DenoisingRun


class Nothing(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def surroundings(random=True):
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"), torch._C._len_torch_function_stack(),
        torch.get_rng_state().tolist() if random else None,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def as_before():
    before = surroundings(random=False)
    yield
    gc.collect()
    assert surroundings(random=False) == before


def small(kind="sd_text", **others):
    pipe, arguments = pipelines.fresh(kind)
    arguments.pop("num_images_per_prompt", None)
    return pipe, arguments | others


def failing(pipe, at: int, error):
    """A pipeline whose denoiser raises at its call number ``at``, once."""
    pipe = copy.copy(pipe)
    net = copy.copy(pipe.unet)
    forward, left = net.forward, [at]

    def counted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise error
        return forward(*args, **kwargs)

    net.forward = counted
    pipe.unet = net
    return pipe


@pytest.mark.parametrize("kind", ["sd_text", "home_made"])
@pytest.mark.long
def test_modes_are_the_callers_at_every_hand_over(kind):
    pipe, arguments = small(kind)
    wanted = pipelines.plain(pipe, arguments)
    run = DenoisingRun(pipe, seed=3, **arguments)
    modes = [
        torch.no_grad(), torch.inference_mode(), torch.enable_grad(), torch.autocast("cpu", torch.bfloat16), Nothing(),
    ]  # fmt: skip
    run.goto(0)
    for mode in modes[: run.total or 4]:
        with mode:
            before = surroundings()
            run.step()
            assert surroundings() == before
            torch.rand(1)  # the caller's own draws disturb nothing
        torch.manual_seed(5)
    assert torch.equal(pipelines.pixels(run.output), wanted)


@pytest.mark.long
def test_begun_in_a_mode_it_computes_in_it():
    pipe, arguments = small()
    with torch.autocast("cpu", torch.bfloat16):
        wanted = pipelines.plain(pipe, arguments)
        run = DenoisingRun(pipe, seed=3, **arguments)
        run.step(2)
    run._drop()
    assert torch.equal(run.finish().images, wanted)
    assert torch.equal(run.branch(at=1).finish().images, wanted)
    assert not torch.equal(wanted, pipelines.plain(pipe, arguments))


def test_states_of_an_inference_mode_pipeline_can_be_used():
    run = DenoisingRun(*small("home_made")[:1], seed=3, **small("home_made")[1])
    weight = torch.ones(1, requires_grad=True)
    (run.step().latents * weight).sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("a fault in the model")], ids=["interrupt", "fault"]
)
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.long
def test_what_ends_a_call_leaves_the_run_at_its_last_step(error, at):
    pipe, arguments = small()
    wanted = pipelines.plain(pipe, arguments)
    broken = failing(pipe, at, error)
    run = DenoisingRun(broken, seed=3, **arguments)
    with pytest.raises(type(error)):
        run.finish()
    assert run.i == run.recorded == at - 1
    assert torch.equal(pipelines.plain(pipe, arguments), wanted)  # the pipeline is usable meanwhile
    assert torch.equal(run.finish().images, wanted)


def test_interrupted_while_decoding_at_the_end():
    pipe, arguments = small()
    pipe.vae = copy.copy(pipe.vae)
    left, decode = [1], type(pipe.vae)._decode

    def interrupted(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return decode(pipe.vae, *args, **kwargs)

    pipe.vae._decode = interrupted
    run = DenoisingRun(pipe, seed=3, **arguments)
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert run.i == run.recorded == run.total
    assert torch.equal(run.finish().images, pipelines.plain(pipe, arguments))


def test_a_run_cannot_be_stepped_inside_its_own_step():
    pipe, arguments = small()
    run = DenoisingRun(pipe, seed=3, **arguments, callback_on_step_end=lambda *given: run.step())
    with pytest.raises(RuntimeError, match="computing a step already"):
        run.step()
    assert run.recorded == 0


@pytest.mark.long
def test_nothing_of_a_run_is_left_when_it_goes():
    pipe, arguments = small()
    run = DenoisingRun(pipe, seed=3, **arguments)
    run.step(2)
    branch = run.branch(guidance_scale=1.0)
    branch.step()
    things = [run, branch, run._execution, branch._execution, run._execution._greenlet]
    kept = [weakref.ref(thing) for thing in things]
    del run, branch, things
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)


@pytest.mark.long
def test_let_go_inside_another_runs_step():
    pipe, arguments = small()
    run = DenoisingRun(pipe, seed=3, **arguments)
    run.step()
    held = [run]
    del run

    def callback(pipe, i, t, given):
        if held:
            run = held.pop()
            run.cycle = run
            del run
            gc.collect()
        return given

    other = DenoisingRun(pipe, seed=3, **arguments, callback_on_step_end=callback)
    assert other.step().i == 1
    assert torch.equal(other.finish().images, pipelines.plain(pipe, arguments))


@pytest.mark.long
def test_let_go_by_another_thread():
    pipe, arguments = small()
    held = [DenoisingRun(pipe, seed=3, **arguments)]
    held[0].step()
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    before = surroundings()
    run = DenoisingRun(pipe, seed=3, **arguments)
    run.step()
    assert surroundings() == before
    assert torch.equal(run.finish().images, pipelines.plain(pipe, arguments))


def test_a_cell_that_trains_between_two_steps_learns():
    pipe, arguments = small()
    wanted = pipelines.plain(pipe, arguments)
    run = DenoisingRun(pipe, seed=3, **arguments)
    layer = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.05)
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(4):
        run.step()
        for _ in range(5):
            with torch.autocast("cpu", torch.bfloat16):
                loss = (layer(data).float() - data.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert torch.equal(run.finish().images, wanted)


def test_offload_hooks_and_a_compiled_network():
    from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

    class Counts(ModelHook):
        calls = 0

        def pre_forward(self, module, *args, **kwargs):
            Counts.calls += 1
            return args, kwargs

    pipe, arguments = small()
    wanted = pipelines.plain(pipe, arguments)
    compiled = []
    pipe.unet = copy.copy(pipe.unet)
    add_hook_to_module(pipe.unet, Counts())

    def compiled_call(*args, **kwargs):
        compiled.append(1)
        return pipe.unet._call_impl(*args, **kwargs)

    pipe.unet._compiled_call_impl = compiled_call
    freed = []
    pipe.maybe_free_model_hooks = lambda: freed.append(1)
    run = DenoisingRun(pipe, seed=3, **arguments)
    assert torch.equal(run.finish().images, wanted)
    assert Counts.calls == len(compiled) == 4
    assert freed == [1]
    remove_hook_from_module(pipe.unet)


@pytest.mark.slow
def test_a_program_that_ends_with_a_paused_run_ends_quietly():
    program = (
        "from tests.stepping import pipelines\n"
        "from workbench.stepping.denoising import DenoisingRun\n"
        "pipe, arguments = pipelines.made('sd_text')\n"
        "run = DenoisingRun(pipe, seed=3, **arguments)\n"
        "run.step(); branch = run.branch(guidance_scale=1.0); branch.step()\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert out.returncode == 0, out.stderr
    assert "Exception ignored" not in out.stderr
