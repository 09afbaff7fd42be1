"""`wb.TrainingMonitor`: a training run, live in a notebook cell. Every button is also a method."""

import html
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from ipywidgets import HTML, Button, HBox, Image, IntSlider, VBox

from workbench import check, image
from workbench.widgets.shown import InCell
from workbench.widgets.static_picture import HIDDEN, StaticPicture
from workbench.widgets.timing import Sparingly, later, one_at_a_time
from workbench.widgets.training_monitor.curves import Curves
from workbench.widgets.training_monitor.telling import bars_of, numbers_of

CHUNK = 0.3
"""Seconds of steps after which others get their turn; a chunk is at least one step."""
SHARE, DRAW_EVERY = 0.03, 1.5
"""Of the time, what drawing may take while it runs; and how many seconds pass between two drawings at least."""
SIDE = 128
"""Longest side of a sample in the strip, in pixels."""
COLUMNS = 8
"""Steps shown in the strip at most."""
KEPT = 60
"""Samples kept at most; beyond it every second of the older ones goes."""
ROOT = "workbench-training-monitor"
_LOOKS = f"""
.{ROOT} {{ max-width: 920px; }}
.{ROOT} .bars {{ display: grid; grid-template-columns: minmax(120px, 46%) 1fr; gap: 1px 8px; font-size: 11px;
  line-height: 15px; }}
.{ROOT} .bars span {{ white-space: nowrap; overflow: hidden; text-overflow: ellipsis;
  direction: rtl; text-align: right; }}
.{ROOT} .bars i {{ display: block; background: #1976d2; height: 9px; margin-top: 3px; min-width: 1px; }}
.{ROOT} .error {{ color: #b00020; font-weight: 600; }}
"""


class TrainingMonitor(InCell):
    """Watch a training run and drive it: its losses, gradients, updates by layer, and samples on fixed seeds.

    The monitor works by the run's own verbs and keeps nothing of it but samples, so run and monitor can be used side
    by side. Methods do their work before they return, in chunks of `CHUNK` seconds between which `pause` is heard
    (JupyterLab brings clicks in another thread). The buttons' work goes on by itself, a chunk at a time, and leaves the
    kernel free in between; `play` does so from code.

    Watching costs little: on the way numbers follow each chunk, curves, bars and samples only as often as their drawing
    takes no more than `SHARE` of the time. Where the run stands still all of them show its state.

    Args:
        run: with ``i, recorded, total, state, stopped, step(n), back(n), goto(i), history(name), loss_by_t()``:
            `TrainingRun`.
        sample: ``sample(run) -> (N, 3, H, W)`` in [0, 1], pictures by the model as it is; the same seeds each time show
            what the training changes. None: none are made.
        every: a sample after every so many steps.

    Raises:
        TypeError: no such run, or a sample that is not callable.

    Example:
        >>> monitor = TrainingMonitor(run)
        >>> monitor.run(100); monitor.back(); monitor.snapshot().shape
        torch.Size([1, 3, 232, 920])
    """

    def __init__(self, run, sample: Callable | None = None, every: int = 10):
        missing = [n for n in ("i", "recorded", "state", "step", "goto", "history") if not hasattr(run, n)]
        if missing:
            raise TypeError(f"run is a {type(run).__name__} without {', '.join(missing)}, expected a TrainingRun.")
        if sample is not None and not callable(sample):
            raise TypeError(f"sample is a {type(sample).__name__}, expected a function: sample(run) -> (N, 3, H, W).")
        self.training, self.sample, self.every = run, sample, check.integer(every, "every", 1)
        self.samples: dict[int, torch.Tensor] = {}
        self._goal: int | None = None  # where it runs to; None: it stands
        self._ticket: object = None  # of the work in progress: an appointment with an older one is void
        self._sparingly = Sparingly(SHARE, DRAW_EVERY)
        self._curves = Curves(run)
        self._curves_shown: torch.Tensor | None = None
        self._samples_shown: list[torch.Tensor] = []
        self._following = False  # the slider is being moved by us
        self._error: str | None = None
        self._closed = False
        self._static = StaticPicture("the training monitor", self.snapshot, self._attempt)
        self._lay_out()
        self.refresh()

    # Moving

    @property
    def running(self) -> bool:
        """Whether it is on its way to a step."""
        return self._goal is not None

    def step(self) -> None:
        """One update."""
        self.run(1)

    def run(self, n: int) -> None:
        """n updates, or as far as the run, a breakpoint, a watch or `pause` lets it; returns when they are done."""
        self._aim(n)
        while self.running:
            self._chunk()

    def play(self, n: int) -> None:
        """As `run`, but returns after the first chunk; the rest follows while the kernel is free.

        In a script, where no event loop could call back, it is `run`.
        """
        self._aim(n)
        self._go_on(self._ticket)

    def pause(self) -> None:
        """Stops after the step that is being done."""
        self._goal = None  # before waiting for our turn: who works between two steps looks here
        self.refresh()

    def back(self, n: int = 1) -> None:
        """n updates back."""
        self._move(lambda: self.training.back(n))

    def goto(self, i: int) -> None:
        """To the state after i updates; what the slider does."""
        self._move(lambda: self.training.goto(i))

    @one_at_a_time
    def _move(self, action: Callable) -> None:
        self._goal, self._error, self._ticket = None, None, None
        action()
        self.refresh()

    @one_at_a_time
    def _aim(self, n: int) -> None:
        check.integer(n, "n", 1)
        if self._closed:
            raise RuntimeError("the monitor is closed, make another one.")
        total = getattr(self.training, "total", None)
        if total is not None and self.training.i >= total:
            raise RuntimeError(f"the run is over: all {total} steps are done. Go back, or branch.")
        self._error, self._ticket = None, object()
        self._goal = self.training.i + n if total is None else min(self.training.i + n, total)

    @one_at_a_time
    def _chunk(self) -> None:
        """Steps for a while, then shows where it stands."""
        started = time.monotonic()
        try:
            if not self.samples:
                self._take_sample()
            while self.running:
                before = self.training.i
                self.training.step()
                self._take_sample()
                if self.training.stopped or self.training.i in (before, self._goal):
                    self._goal = None
                if time.monotonic() - started > CHUNK:
                    break
        except BaseException:  # an interrupt too
            self._goal = None
            self.refresh()
            raise
        if self.running and not self._sparingly.due:
            self._show_numbers()
        else:
            self.refresh()

    def _go_on(self, ticket: object) -> None:
        """One chunk, and an appointment for the next."""
        while self.running and ticket is self._ticket:
            self._chunk()
            if later(0.01, lambda: self._attempt(lambda: self._go_on(ticket))) is not None:
                return

    def _take_sample(self) -> None:
        i = self.training.i
        if self.sample is None or i % self.every:
            return
        with getattr(self.training, "applied", nullcontext)():
            made = check.image(self.sample(self.training), "sample(run)")
        self.samples[i] = image.fit(made.detach().float().cpu(), SIDE)
        if len(self.samples) > KEPT:
            for old in sorted(self.samples)[1:-1:2]:
                del self.samples[old]

    # Showing

    @one_at_a_time
    def refresh(self) -> None:
        """Draws everything anew, also what was done to the run from elsewhere."""
        if self._closed:
            return
        with self._sparingly.drawing():
            self._show_numbers()
            self._show_curves()
            self.bars.value = bars_of(self.training.state)
            self._show_samples()
        if not self.running:  # on the way it would be drawn for nobody
            self._static.follow()

    def strip(self) -> torch.Tensor | None:
        """Samples, a column a step, up to eight steps from first to last: (1, 3, H, W) in [0, 1]; None without any."""
        columns = [torch.cat(list(sample), 1)[None] for sample in self._chosen()]  # (1, 3, N h, w) each
        if not columns:
            return None
        height = max(column.shape[-2] for column in columns)
        return torch.cat([_framed(column, height, column.shape[-1] + 4) for column in columns], -1)

    @one_at_a_time
    def snapshot(self) -> torch.Tensor:
        """Curves, and under them samples if there are any: (1, 3, H, W) in [0, 1]."""
        curves, strip = self._curves.picture(), self.strip()
        parts = [curves] if strip is None else [curves, strip]
        width = max(part.shape[-1] for part in parts)
        return torch.cat([_framed(part, part.shape[-2], width) for part in parts], -2)

    def close(self) -> None:
        """Takes the monitor off the page; the run is left as it is."""
        if not self._closed:
            self.pause()
            self._closed = True
            self._static.close()
            for part in (*self._parts, self.widget):
                part.close()

    def __repr__(self) -> str:
        return f"TrainingMonitor({numbers_of(self.training)})"

    # Inside

    def _lay_out(self) -> None:
        self.buttons = {
            "step": _button("step-forward", "One update", "Step"),
            "run_10": _button("play", "Ten updates", "Run 10"),
            "run_100": _button("fast-forward", "A hundred updates", "Run 100"),
            "pause": _button("pause", "Stop after this update", "Pause"),
            "back": _button("step-backward", "One update back", "Back"),
        }
        actions = {"step": lambda: self.play(1), "run_10": lambda: self.play(10), "run_100": lambda: self.play(100),
                   "pause": self.pause, "back": self.back}  # fmt: skip
        for name, button in self.buttons.items():
            button.on_click(lambda _, action=actions[name]: self._attempt(action))
        self.slider = IntSlider(0, 0, 0, description="step", continuous_update=False, layout={"width": "420px"})
        self.slider.observe(lambda change: self._scrub(change["new"]), "value")
        self.numbers, self.bars = HTML(), HTML()
        as_large_as_they_are = {"align_self": "flex-start", "max_width": "100%"}
        self.curves, self.pictures = (Image(format="png", layout=as_large_as_they_are) for _ in range(2))
        bar = HBox([*self.buttons.values(), self.slider], layout={"flex_flow": "row wrap"})
        self.widget = VBox(
            [
                HTML(f"<style>{_LOOKS}{HIDDEN.replace('ROOT', ROOT)}</style>"),
                bar,
                self.numbers,
                self.curves,
                self.bars,
                self.pictures,
            ]
        )
        self.widget.add_class(ROOT)
        self._parts = [*self.buttons.values(), self.slider, bar, *self.widget.children]

    def _scrub(self, i: int) -> None:
        if not self._following:
            self._attempt(lambda: self.goto(i))

    def _attempt(self, action: Callable) -> None:
        """Does what a button or timer asks for; what goes wrong is told, because nobody would see it raised."""
        try:
            action()
        except Exception as error:
            self._goal = None
            self._error = str(error) or type(error).__name__
            self._show_numbers()

    def _show_numbers(self) -> None:
        """Line of numbers, slider and buttons."""
        run = self.training
        told = html.escape(numbers_of(run))
        if getattr(run, "stopped", None):
            told += f"<br><b>stopped: {html.escape(run.stopped)}</b>"
        if self._error:
            told += f'<br><span class="error">{html.escape(self._error)}</span>'
        self.numbers.value = told
        self._following = True
        try:
            self.slider.max = max(run.recorded, run.i)
            self.slider.value = run.i
        finally:
            self._following = False
        total = getattr(run, "total", None)
        over = total is not None and run.i >= total
        for name, button in self.buttons.items():
            button.disabled = {"pause": not self.running, "back": self.running or run.i == 0}.get(
                name, self.running or over
            )

    def _chosen(self) -> list[torch.Tensor]:
        """The samples of up to eight steps."""
        steps = sorted(self.samples)
        count = min(COLUMNS, len(steps))
        places = {round(k * (len(steps) - 1) / max(1, count - 1)) for k in range(count)}
        return [self.samples[steps[place]] for place in sorted(places)]

    def _show_curves(self) -> None:
        """Sends the curves, if there are any and they have grown."""
        if self.training.recorded:
            picture = self._curves.picture()
            if picture is not self._curves_shown:
                self._curves_shown = picture
                self.curves.value = image.to_png(picture)

    def _show_samples(self) -> None:
        """Sends the strip, if there is something new in it."""
        chosen = self._chosen()
        if [id(sample) for sample in chosen] != [id(sample) for sample in self._samples_shown]:
            self._samples_shown = chosen
            shown = self.strip()
            self.pictures.value = b"" if shown is None else image.to_png(shown, 128)
        self.pictures.layout.display = None if chosen else "none"


def _framed(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A picture in the top left corner of a white one of this size."""
    out = picture.new_ones(1, 3, height, width)
    out[..., : picture.shape[-2], : picture.shape[-1]] = picture.clamp(0, 1)
    return out


def _button(icon: str, tip: str, words: str) -> Button:
    return Button(icon=icon, description=words, tooltip=tip, layout={"width": "auto"})
