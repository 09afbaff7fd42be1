"""The training monitor without a browser, on a run that only counts, and once on a real one."""

import asyncio
import base64
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from tests.stepping.training.toy import Toy
from workbench import image
from workbench.stepping.training import TrainingRun
from workbench.widgets import training_monitor
from workbench.widgets.training_monitor import TrainingMonitor


class Counting:
    """As much of a training run as the monitor needs."""

    def __init__(self, total=None, seconds=0.0):
        self.i = self.recorded = 0
        self.total, self.seconds, self.stopped = total, seconds, None
        self.stop_at = self.fail_at = None

    def step(self, n=1):
        time.sleep(self.seconds)
        if self.i + 1 == self.fail_at:
            raise ValueError("broken <objective>")
        self.i += 1
        self.recorded = max(self.recorded, self.i)
        self.stopped = f"breakpoint: step {self.i}" if self.i == self.stop_at else None

    def back(self, n=1):
        if n > self.i:
            raise ValueError(f"n is {n}, expected at most {self.i}")
        self.i -= n

    def goto(self, i):
        self.i = i

    @property
    def state(self):
        norms = {f"layer.{k}": 0.1 * k * self.i for k in range(20)} if self.i else {}
        loss = 1 / self.i if self.i else None
        return SimpleNamespace(loss=loss, learning_rate=1e-3, gradient_norm=2.0, update_norms=norms)

    def history(self, name):
        return [1 / (i + 1) for i in range(self.recorded)]

    def loss_by_t(self, bins=10):
        return {"t": [100.0, 500.0], "loss": [0.3, 0.1], "count": [4, 2]}


@pytest.fixture
def run():
    return Counting()


@pytest.fixture
def monitor(run):
    monitor = TrainingMonitor(run, sample=lambda run: torch.full((2, 3, 10, 14), min(1.0, run.i / 40)), every=5)
    yield monitor
    monitor.close()


@pytest.mark.long
def test_every_button_is_a_method(run, monitor):
    monitor.step()
    assert run.i == 1
    monitor.run(10)
    assert run.i == 11
    monitor.back()
    monitor.back(3)
    assert run.i == 7
    monitor.goto(2)
    assert (run.i, run.recorded) == (2, 11)
    for name, expected in (("step", 3), ("run_10", 13), ("back", 12), ("run_100", 112)):
        monitor.buttons[name].click()  # in a script there is no event loop: the work is done when it returns
        assert run.i == expected
    assert not monitor.running


def test_the_slider_scrubs_and_follows(run, monitor):
    monitor.run(20)
    assert (monitor.slider.value, monitor.slider.max) == (20, 20)
    monitor.slider.value = 4
    assert run.i == 4
    run.step(1)
    monitor.refresh()  # what a cell did is shown as well
    assert monitor.slider.value == 5


def test_what_is_shown(run, monitor):
    assert bytes(monitor.curves.value) == b""
    assert bytes(monitor.pictures.value) == b""
    assert monitor.bars.value == ""
    monitor.run(12)
    drawn = bytes(monitor.curves.value)
    assert image.load_image(drawn).shape[-1] > 700
    monitor.back(2)
    assert bytes(monitor.curves.value) == drawn
    monitor.goto(12)
    assert "step 12, 12 recorded, loss 0.08333, learning rate 0.001" in monitor.numbers.value
    assert monitor.bars.value.count("<i ") == training_monitor.BARS
    assert monitor.bars.value.index("layer.19") < monitor.bars.value.index("layer.18")
    assert "layer.3<" not in monitor.bars.value
    assert sorted(monitor.samples) == [0, 5, 10]
    strip = monitor.strip()
    assert strip.shape == (1, 3, 20, 3 * 18)  # two samples above each other, three times, white between
    assert strip[0, 0, 0, 18 + 2].item() == pytest.approx(5 / 40)
    assert repr(monitor).startswith("TrainingMonitor(step 12")


@pytest.mark.long
def test_the_static_picture(monitor):
    monitor.run(30)
    picture = monitor.snapshot()
    assert picture.shape[:2] == (1, 3)
    assert picture.shape[-1] > 700
    assert 0 <= picture.min() <= picture.max() <= 1
    bundle = monitor._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/plain", "image/png"} <= set(bundle)
    shown = image.load_image(base64.b64decode(bundle["image/png"]))
    assert shown.shape == picture.shape
    monitor.show()
    monitor.step()


@pytest.mark.long
def test_it_stops_where_the_run_does(run, monitor):
    run.stop_at = 7
    monitor.run(100)
    assert run.i == 7
    assert "stopped: breakpoint: step 7" in monitor.numbers.value
    monitor.run(3)
    assert run.i == 10
    assert "stopped" not in monitor.numbers.value


@pytest.mark.long
def test_the_end_of_a_run():
    run = Counting(total=12)
    monitor = TrainingMonitor(run)
    monitor.run(100)
    assert run.i == 12
    assert monitor.buttons["step"].disabled
    assert not monitor.buttons["back"].disabled
    assert "step 12 of 12" in monitor.numbers.value
    with pytest.raises(RuntimeError, match="all 12 steps are done"):
        monitor.step()
    assert monitor.pictures.layout.display == "none"


@pytest.mark.long
def test_what_goes_wrong_is_raised_by_methods_and_told_by_buttons(run, monitor):
    run.fail_at = 4
    with pytest.raises(ValueError, match="broken"):
        monitor.run(9)
    assert not monitor.running
    assert run.i == 3
    monitor.buttons["step"].click()
    assert "broken &lt;objective&gt;" in monitor.numbers.value
    run.fail_at = None
    monitor.buttons["step"].click()
    assert "broken" not in monitor.numbers.value


@pytest.mark.long
def test_play_leaves_the_loop_free_between_chunks(monkeypatch):
    """As in a kernel: the button's handler returns after one chunk, other callbacks get their turn."""
    monkeypatch.setattr(training_monitor, "CHUNK", 0.02)
    run, ticks = Counting(seconds=0.005), []
    monitor = TrainingMonitor(run)

    async def kernel():
        started = time.monotonic()
        monitor.buttons["run_100"].click()
        first = time.monotonic() - started, run.i
        while monitor.running:
            ticks.append(run.i)
            await asyncio.sleep(0.001)
        return first

    seconds, done = asyncio.run(kernel())
    assert done < 30
    assert run.i == 100
    assert len(set(ticks)) > 5
    assert seconds < 5


@pytest.mark.long
def test_pause_and_a_new_goal_while_playing(monkeypatch):
    monkeypatch.setattr(training_monitor, "CHUNK", 0.01)
    run = Counting(seconds=0.002)
    monitor = TrainingMonitor(run)

    async def kernel():
        monitor.play(1000)
        await asyncio.sleep(0.05)
        monitor.buttons["pause"].click()
        at = run.i
        await asyncio.sleep(0.1)
        assert run.i == at < 1000
        monitor.play(1000)
        monitor.run(3)  # from a cell: the earlier appointment is void
        at = run.i
        await asyncio.sleep(0.1)
        assert run.i == at
        monitor.play(1000)
        monitor.back(2)
        at = run.i
        await asyncio.sleep(0.1)
        assert run.i == at

    asyncio.run(kernel())


@pytest.mark.long
def test_pause_from_another_thread_is_heard_between_two_steps():
    run = Counting(seconds=0.02)
    monitor = TrainingMonitor(run)
    clicker = threading.Timer(0.2, monitor.pause)
    clicker.start()
    monitor.run(10_000)
    clicker.join()
    assert 0 < run.i < 300
    assert not monitor.running


def test_samples_stay_few(run):
    monitor = TrainingMonitor(run, sample=lambda run: torch.zeros(1, 3, 4, 4), every=1)
    monitor.run(200)
    assert len(monitor.samples) <= training_monitor.KEPT
    assert {0, 200} <= set(monitor.samples)
    assert monitor.strip().shape[-1] == 8 * 8


def test_closed(run, monitor):
    monitor.close()
    monitor.close()
    with pytest.raises(RuntimeError, match="the monitor is closed"):
        monitor.step()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((object(),), TypeError, "run is a object without i, recorded, state, step"),
        ((Counting(), 3), TypeError, "sample is a int, expected a function"),
        ((Counting(), None, 0), ValueError, "every is 0"),
    ],
)
def test_messages(arguments, error, message):
    with pytest.raises(error, match=message):
        TrainingMonitor(*arguments)


def test_a_sample_of_the_wrong_shape(run):
    monitor = TrainingMonitor(run, sample=lambda run: torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"sample\(run\) has shape \(3, 4, 4\)"):
        monitor.step()


@pytest.mark.long
def test_on_a_real_run():
    run = TrainingRun(Toy(), learning_rate=1e-2, batch_size=2)
    other = run.branch(lr=1e-3)
    seen = []

    def sample(run):
        seen.append(run.task.objective.first.weight.detach().clone())
        return torch.zeros(1, 3, 8, 8)

    monitor = TrainingMonitor(run, sample, every=2)
    monitor.run(4)
    other.step()
    monitor.back()
    assert run.i == 3
    assert torch.equal(seen[-1], run.weights(4)["first.weight"])
    assert "first" in monitor.bars.value
    monitor.close()
