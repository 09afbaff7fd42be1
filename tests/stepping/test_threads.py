"""JupyterLab's buttons act in another thread than its cells: a run may be moved from both, and computes exactly."""

import threading
import time
import warnings

import pytest
import torch

from tests.stepping import pipelines
from tests.stepping.training.toy import Toy
from workbench.stepping import timeline
from workbench.stepping.denoising import DenoisingRun
from workbench.stepping.training import TrainingRun


class Slow(torch.nn.Module):
    """A denoiser that takes its time; notes how many calls were at work at the same time, and in which threads."""

    config = pipelines.unet().config
    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.inside, self.most, self.threads = [], [0], []  # shared by all shallow copies

    def forward(self, sample, timestep, *others, **named):
        self.inside.append(1)
        self.threads.append(threading.get_ident())
        self.most[0] = max(self.most[0], len(self.inside))
        time.sleep(0.002)
        self.inside.pop()
        return type("Out", (), {"sample": 0.1 * sample.roll(1, -1)})()


class DrawsGlobally(pipelines.HomeMade):
    """Takes no generator: noise comes from PyTorch's default one."""

    def __call__(self, known, steps=4):
        return super().__call__(known, steps)


@pytest.fixture
def pipe():
    pipe = DrawsGlobally(Slow(), pipelines.ddim(steps_offset=0))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def made(pipe, steps=10):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it draws from the default generator
        return DenoisingRun(pipe, seed=3, steps=steps, **pipelines.made("home_made")[1])


def in_threads(*functions):
    """Calls all at once; returns what they return, or raises what one raised."""
    results = [None] * len(functions)

    def caught(k):
        try:
            results[k] = functions[k]()
        except BaseException as error:
            results[k] = error

    threads = [threading.Thread(target=caught, args=[k]) for k in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_two_threads_step_one_run(pipe):
    run = made(pipe)
    wanted = made(pipe).finish()[0]
    pipe.net.threads.clear()

    def five():
        for _ in range(5):
            run.step()

    in_threads(five, five)
    assert run.i == run.recorded == 10
    assert len(set(pipe.net.threads)) == 2
    assert len(pipe.net.threads) == 10  # no step was computed twice
    assert torch.equal(run.output[0], wanted)


def test_two_runs_in_two_threads_leave_each_others_random_numbers_alone(pipe):
    wanted = made(pipe).finish()[0]
    state = torch.get_rng_state()
    for out in in_threads(made(pipe).finish, made(pipe).finish):
        assert torch.equal(out[0], wanted)
    assert pipe.net.most == [1]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_beside_a_run_draws_what_it_draws_alone(pipe):
    def made_training():
        return TrainingRun(Toy(dropout=0.5), learning_rate=1e-2, batch_size=3)

    def losses_of(training):
        training.step(10)
        return training.history("loss")

    state, losses, picture = torch.get_rng_state(), losses_of(made_training()), made(pipe).finish()[0]
    beside = made_training()  # here: the toy's weights are drawn without any lock
    found, out = in_threads(lambda: losses_of(beside), made(pipe).finish)
    assert found == losses
    assert torch.equal(out[0], picture)
    assert torch.equal(torch.get_rng_state(), state)


def test_while_one_thread_moves_a_run_others_look_at_it_and_wait_to_move_it(pipe, monkeypatch):
    run, wanted = made(pipe), made(pipe).finish()[0]
    run.step(2)
    stands, goes_on = threading.Event(), threading.Event()

    def waits(state):
        if state.i == 4:
            stands.set()
            goes_on.wait(60)
        return False

    run.break_at(when=waits)
    mover = threading.Thread(target=run.finish)
    mover.start()
    assert stands.wait(60)
    monkeypatch.setattr(timeline, "PATIENCE", 0.05)
    for move in (run.step, run.back, lambda: run.goto(1), run.finish, lambda: run.branch(at=1)):
        with pytest.raises(RuntimeError, match=r"run is moving in another thread\. Wait for it"):
            move()
    assert (run.i, run.recorded, run.branches) == (4, 4, [])
    assert [state.i for state in run.states] == [0, 1, 2, 3, 4]
    monkeypatch.setattr(timeline, "PATIENCE", 60)
    late = threading.Thread(target=run.back)
    late.start()
    goes_on.set()
    for thread in (mover, late):
        thread.join(60)
    assert (run.i, run.recorded) == (9, 10)  # first to the end, then one back
    assert torch.equal(run.output[0], wanted)


def test_pictures_are_decoded_while_another_thread_steps():
    pipe, arguments = pipelines.fresh("sd_inpaint9")
    wanted = pipelines.plain(pipe, arguments)
    runs = [DenoisingRun(pipe, seed=3, **arguments) for _ in range(2)]
    for run in runs:
        run.step()

    def look(run):
        return [run.decode(1, what) for what in ("latents", "denoised")]

    alone = look(runs[0])
    out, pictures = in_threads(runs[1].finish, lambda: look(runs[1]))
    assert torch.equal(out.images, wanted)
    assert all(torch.equal(a, b) for a, b in zip(alone, pictures, strict=True))
