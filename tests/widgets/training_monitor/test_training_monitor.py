"""The training monitor without a browser, on a run that only counts, and once on a real one."""

import asyncio
import base64
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from tests.stepping.training.toy import Toy
from workbench import image, plot
from workbench.stepping.training import TrainingRun
from workbench.widgets import timing
from workbench.widgets.training_monitor import TrainingMonitor, curves, telling
from workbench.widgets.training_monitor import monitor as of_monitor


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


class Clock:
    """Time that passes only when something is said to take it."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (timing, of_monitor):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def drawn(monkeypatch, clock):
    """Which steps the curves were drawn with; a drawing takes half a second of the clock."""
    steps = []

    def draw(self):
        clock.now += 0.5
        steps.append(len(self.axes[0].lines[0].get_xdata()))
        return torch.full((1, 3, 4, 8), len(steps) / 1000)

    monkeypatch.setattr(plot.Picture, "pixels", draw)
    return steps


def timed(run, clock, seconds):
    """The run, each step of which takes so many seconds of the clock."""
    step = run.step

    def slow(n=1):
        clock.now += seconds
        step(n)

    run.step = slow
    return run


@pytest.mark.parametrize("seconds", [0.01, 0.1, 1.0, 3.0])
def test_drawing_takes_a_small_share_of_the_time(run, clock, drawn, seconds):
    monitor = TrainingMonitor(timed(run, clock, seconds))
    assert drawn == []  # nothing to be seen yet
    monitor.run(1000)
    assert drawn[-1] == 1000
    allowed = of_monitor.SHARE * 1000 * seconds / 0.5
    assert 0.8 * allowed - 1 <= len(drawn) <= allowed + 2  # what the first costs is not known; the last is owed


def test_a_burst_of_steps_is_drawn_once(run, clock, drawn):
    monitor = TrainingMonitor(timed(run, clock, 0.001))
    monitor.run(500)
    assert drawn == [500]
    monitor.run(500)
    assert drawn == [500, 1000]


def test_numbers_follow_each_chunk_between_two_drawings(run, clock, drawn):
    monitor, told = TrainingMonitor(timed(run, clock, 0.4)), []  # longer than a chunk
    monitor.numbers.observe(lambda change: told.append(change["new"].split(",")[0]), "value")
    monitor.run(20)
    assert told == [f"step {i}" for i in range(1, 21)]
    assert monitor.slider.value == 20
    assert len(drawn) < 5


def test_the_last_state_is_always_shown(run, clock, drawn):
    """However soon after a drawing: by hand, after a burst, where it stops, fails, is paused or moved from a cell."""
    monitor = TrainingMonitor(timed(run, clock, 0.001))

    def newest():
        return bytes(monitor.curves.value) == image.to_png(torch.full((1, 3, 4, 8), len(drawn) / 1000))

    for i in (1, 2, 3):
        monitor.step()
        assert drawn[-1] == i
        assert newest()
        assert f"step {i}," in monitor.numbers.value
    run.stop_at, run.fail_at = 6, 9
    monitor.run(100)
    assert drawn[-1] == 6
    with pytest.raises(ValueError, match="broken"):
        monitor.run(100)
    assert drawn[-1] == 8
    assert newest()
    count = len(drawn)
    monitor.goto(4)
    assert "step 4, 8 recorded" in monitor.numbers.value
    norms = monitor.bars.value
    monitor.back(2)
    assert "step 2, 8 recorded" in monitor.numbers.value
    assert monitor.bars.value != norms
    assert len(drawn) == count  # the curves have not changed
    run.fail_at = None
    run.goto(8)
    run.step()  # from a cell
    monitor.snapshot()  # draws, but does not send
    monitor.refresh()
    assert drawn[-1] == 9
    assert newest()


def test_samples_are_sent_when_there_are_new_ones(run, clock, drawn, monkeypatch):
    sent, plain = [], image.to_png

    def to_png(picture, colours=None):
        sent.extend([colours] if colours is not None else [])
        return plain(picture, colours)

    monkeypatch.setattr(of_monitor.image, "to_png", to_png)
    monitor = TrainingMonitor(run, sample=lambda run: torch.full((1, 3, 4, 4), run.i / 40), every=5)
    monitor.run(3)  # the start
    monitor.step()
    assert len(sent) == 1
    monitor.step()
    assert len(sent) == 2
    monitor.goto(3)
    monitor.run(1)
    assert len(sent) == 2
    monitor.step()  # made anew, with other weights maybe
    assert len(sent) == 3


def test_the_static_picture_waits_while_it_runs(run, clock, drawn):
    monitor, followed = TrainingMonitor(timed(run, clock, 3.0)), []
    monitor._static.follow = lambda: followed.append(run.i)
    monitor.run(200)
    assert len(drawn) > 10
    assert followed == [200]


def test_curves_show_what_the_history_tells(run):
    drawing = curves.Curves(run)
    empty = drawing.picture()
    assert empty.shape == (1, 3, 232, 920)
    run.recorded = 5
    few = drawing.picture()
    assert not torch.equal(few, empty)
    assert drawing.picture() is few
    ax = drawing._axes["loss"]
    assert (ax.get_yscale(), ax.get_legend()) == ("linear", None)  # from 1 to 1/5
    run.recorded = 40
    drawing.picture()
    assert ax.get_yscale() == "log"
    loss, mean = ax.lines
    assert list(loss.get_xdata()) == list(range(1, 41))
    assert list(mean.get_xdata()) == list(range(10, 41))
    assert mean.get_ydata()[0] == pytest.approx(sum(1 / i for i in range(1, 11)) / 10)
    low, high = ax.get_ylim()
    assert low < 1 / 40 < 1 < high
    assert list(drawing._axes["loss_by_t"].lines[0].get_xdata()) == [100.0, 500.0]


def test_curves_of_numbers_that_are_not_finite_or_missing(run):
    run.recorded = 6
    run.history = lambda name: [None, float("nan"), -1.0, float("inf"), 0.0, 100.0]
    run.loss_by_t = lambda: {}[0]
    with pytest.raises(KeyError):  # not taken for "no noise levels"
        curves.Curves(run).picture()

    def none():
        raise ValueError("no step tells t")

    run.loss_by_t = none
    drawing = curves.Curves(run)
    drawing.picture()
    assert not drawing._axes["loss_by_t"].get_visible()
    assert list(drawing._axes["loss"].lines[0].get_xdata()) == [3, 5, 6]
    assert drawing._axes["loss"].get_yscale() == "linear"


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
    assert monitor.bars.value.count("<i ") == telling.BARS
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
    monkeypatch.setattr(of_monitor, "CHUNK", 0.02)
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
    monkeypatch.setattr(of_monitor, "CHUNK", 0.01)
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
    assert len(monitor.samples) <= of_monitor.KEPT
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
