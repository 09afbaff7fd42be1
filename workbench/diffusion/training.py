"""The training loop, written once: every model is trained by it, on a CPU, a GPU or several processes.

Nothing random is left lying about: a batch depends on (seed, step, item) alone, so the state of a run is its weights,
the averaged weights (EMA), the optimiser's moments and the number of the step. A run that was killed goes on from its
last checkpoint, at most `Settings.checkpoint_seconds` old, and ends bit for bit where it would have ended.
"""

import json
import math
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from tqdm.auto import tqdm

from workbench import check
from workbench.diffusion.checkpoints import Ema, Log, load_checkpoint, save_checkpoint
from workbench.diffusion.models import computes_bf16
from workbench.image import save_image


@dataclass(frozen=True)
class Settings:
    """How to train.

    Args:
        steps: updates in all, or None.
        minutes: time in all, over all sessions of a run, or None. At least one of the two; the first reached ends it.
        batch_size: pictures per update, over all processes together.
        learning_rate: the highest, reached after the warm-up.
        warmup: updates over which it rises from 0.
        final: share of it that is left at the end of the cosine.
        weight_decay: of AdamW.
        clip: the gradient's norm is cut to this.
        ema: the averaged weights keep this share each update (less in the first hundred).
        seed: of everything random.
        precision: "no" (float32), "bf16" (autocast) or "auto": bf16 where the hardware computes with it.
        log_every, validate_every: in updates.
        checkpoint_seconds: time between checkpoints.
        workers: processes that prepare batches ahead; 0 does it in between.
    """

    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: int = 200
    final: float = 0.02
    weight_decay: float = 1e-2
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    precision: str = "auto"
    log_every: int = 10
    validate_every: int = 1000
    checkpoint_seconds: float = 45.0
    workers: int = 0

    def __post_init__(self):
        if self.steps is None and self.minutes is None:
            raise ValueError("neither steps nor minutes is given, expected at least one: when shall training end?")
        for name in ("batch_size", "log_every", "validate_every"):
            check.integer(getattr(self, name), name, 1)
        if self.steps is not None:
            check.integer(self.steps, "steps", 1)
        if self.minutes is not None:
            check.number(self.minutes, "minutes", 0)
        check.number(self.learning_rate, "learning_rate", 0)
        check.number(self.ema, "ema", 0, 1)
        check.choice(self.precision, "precision", ("auto", "no", "bf16"))
        check.seed(self.seed)

    def fixed(self) -> dict:
        """What must stay as it was when a run is resumed; lengths and intervals may change."""
        free = ("steps", "minutes", "log_every", "validate_every", "checkpoint_seconds", "workers")
        return {name: value for name, value in asdict(self).items() if name not in free}


class Task(ABC):
    """What is trained: one network's data and loss. All that a `stepping.TrainingRun` asks for.

    A task may also offer, for runs that begin anew, branch and go back (see `lora_task.LoraTask`, which has them all):
    ``begin()`` puts its untrained weights into the model; ``slots()`` gives (mapping, key, value) of what else the
    model must hold with its weights; ``variants`` names what ``variant(**changes)`` may change in a copy of the task;
    ``carry_over(weights, moments, parent)`` gives a parent's weights and moments in its own form, and a sentence;
    ``rate(name)`` is the share of the run's learning rate that a parameter learns with.

    Attributes:
        name: of the model, also of its folder.
        about: what it is and how its numbers are measured, for the card.
        objective: a module whose ``forward(batch)`` gives a dict of losses; "loss" is minimised. Frozen parts have
            ``requires_grad`` off. It draws nothing at random: noise comes with the batch.
    """

    name: str
    about: str
    objective: nn.Module

    @abstractmethod
    def batch(self, numbers: list[list[int]]) -> dict[str, torch.Tensor]:
        """Some items of a batch; numbers[i] = [seed, step, item] is all that item i may depend on."""


class ModelTask(Task):
    """A task that ends in a model: it is judged, looked at and written. All that a `Trainer` asks for.

    Attributes:
        before: what the card tells of an earlier training that this one goes on from.
        items: what a batch is made of, in a word, for the card.
    """

    before = ""
    items = "pictures"

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Quality on held-out data, by name, with the weights as they are."""

    @abstractmethod
    def sheet(self) -> torch.Tensor:
        """Pictures to look at, side by side: (1, 3, H, W) in [0, 1]."""

    @abstractmethod
    def export(self, folder, trained: str) -> Path:
        """Writes the model with its card, which tells how it was trained."""


class _Batches(torch.utils.data.Dataset):
    """This process's part of every batch, by step."""

    def __init__(self, task: Task, settings: Settings, rank: int, processes: int):
        if settings.batch_size % processes:
            raise ValueError(
                f"batch_size is {settings.batch_size} for {processes} processes, expected a multiple: equal shares."
            )
        share = settings.batch_size // processes
        self.task, self.seed, self.items = task, settings.seed, range(rank * share, (rank + 1) * share)

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        return self.task.batch([[self.seed, step, item] for item in self.items])


class _Steps(torch.utils.data.Sampler):
    """first, first + 1, ... without an end."""

    def __init__(self, first: int):
        self.first = first

    def __iter__(self):
        step = self.first
        while True:
            yield step
            step += 1


def learning_rate(settings: Settings, step: int, progress: float) -> float:
    """Linear warm-up times a cosine: lr min(1, (step + 1) / warmup) (f + (1 - f)(1 + cos pi p) / 2), f = ``final``.

    Args:
        settings: with learning_rate, warmup, final.
        step: updates done.
        progress: share of the budget used, steps or minutes, 0 to 1.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    rise = min(1.0, (step + 1) / max(1, settings.warmup))
    return settings.learning_rate * rise * (settings.final + (1 - settings.final) * cosine)


def make_accelerator() -> Accelerator:
    """What this process computes on: its GPU if there is one, else the CPU; alone, or one of torchrun's processes."""
    return Accelerator(cpu=not torch.accelerator.is_available())


class Trainer:
    """A training run: its state, its folder, one update at a time.

    Args:
        task: what is trained.
        settings: how.
        folder: of the run: ``checkpoint.safetensors``, ``log.jsonl``, ``samples/``. A checkpoint there is gone on with.
        accelerator: one process's view of the hardware; None makes one.

    Raises:
        ValueError: the folder's checkpoint was made with other settings or another network.
    """

    def __init__(self, task: ModelTask, settings: Settings, folder, accelerator: Accelerator | None = None):
        self.task, self.settings, self.folder = task, settings, Path(folder)
        self.accelerator = accelerator or make_accelerator()
        self.precision = settings.precision  # accelerate would have one for all of a process's runs
        if self.precision == "auto":
            self.precision = "bf16" if computes_bf16(self.accelerator.device.type) else "no"
        self.parameters = [p for p in task.objective.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.parameters, settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.step, self.seconds = 0, 0.0
        self.ema = Ema(task.objective, settings.ema)
        file = self.folder / "checkpoint.safetensors"
        if file.exists():
            self.step, self.seconds = load_checkpoint(file, task.objective, self.ema, optimizer, settings.fixed())
        self.objective, self.optimizer = self.accelerator.prepare(task.objective, optimizer)
        self.ema.to(self.accelerator.device)
        self.log = Log(self.folder / "log.jsonl", self.step) if self.main else None
        self._started = time.perf_counter()

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows the bar."""
        return self.accelerator.is_main_process

    def elapsed(self) -> float:
        """Seconds of training so far, over all sessions."""
        return self.seconds + time.perf_counter() - self._started

    def progress(self) -> float:
        """Share of the budget that is used, the same number in every process; 1 = done."""
        shares = [0.0]
        if self.settings.steps is not None:
            shares.append(self.step / self.settings.steps)
        if self.settings.minutes is not None:
            clock = torch.tensor([self.elapsed()], dtype=torch.float64, device=self.accelerator.device)
            shares.append(broadcast(clock).item() / (60 * self.settings.minutes) if self.settings.minutes else 1.0)
        return min(1.0, max(shares))

    def update(self, batch: dict[str, torch.Tensor], progress: float = 0.0) -> dict[str, torch.Tensor]:
        """One step of the optimiser on this process's part of a batch; returns the losses, detached."""
        self.objective.train()
        rate = learning_rate(self.settings, self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
        with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            losses = self.objective(batch)
        self.accelerator.backward(losses["loss"])
        self.accelerator.clip_grad_norm_(self.parameters, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.ema.update(self.task.objective, self.step)
        return {name: value.detach() for name, value in losses.items()}

    def run(self, bar: bool = True) -> None:
        """Trains until the budget is used, saving, measuring and drawing samples as it goes."""
        batches = _Batches(self.task, self.settings, self.accelerator.process_index, self.accelerator.num_processes)
        feed = self._feed(batches)
        saved = time.perf_counter()
        shown = tqdm(total=self.settings.steps, initial=self.step, desc=self.task.name, disable=not (bar and self.main))
        try:
            while (progress := self.progress()) < 1:
                losses = self.update(next(feed), progress)
                shown.update()
                self._report(losses, progress, shown)
                if time.perf_counter() - saved > self.settings.checkpoint_seconds:
                    self.save()
                    saved = time.perf_counter()
        finally:
            shown.close()
        self.save()
        self.accelerator.wait_for_everyone()

    def _feed(self, batches: _Batches):
        """This process's batches from the present step on, prepared ahead where there are workers."""
        options = {"num_workers": self.settings.workers, "generator": torch.Generator()}  # not the global generator
        return iter(torch.utils.data.DataLoader(batches, None, sampler=_Steps(self.step), **options))

    def save(self) -> None:
        """Writes the checkpoint (the main process; the others hold the same weights)."""
        if self.main:
            file = self.folder / "checkpoint.safetensors"
            told = {"step": self.step, "seconds": self.elapsed(), "settings": self.settings.fixed()}
            save_checkpoint(file, self.task.objective, self.ema, self.optimizer, told)

    def measure(self) -> dict[str, float]:
        """Validation numbers of the averaged weights; a sheet of samples goes to ``samples/``."""
        self.task.objective.eval()
        with self.ema.applied(self.task.objective), torch.no_grad():
            numbers = self.task.validate()
            save_image(self.task.sheet(), self.folder / "samples" / f"{self.step:07d}.png")
        return numbers

    def _report(self, losses: dict[str, torch.Tensor], progress: float, shown) -> None:
        """Log line and bar, and validation where it is due."""
        if self.step % self.settings.log_every == 0:
            scalars = {name: value for name, value in losses.items() if value.ndim == 0}
            means = {name: self.accelerator.reduce(value, "mean").item() for name, value in scalars.items()}
            if self.main:
                self.log.write({"step": self.step, **means, "learning_rate": self.optimizer.param_groups[0]["lr"]})
                shown.set_postfix(loss=f"{means['loss']:.4f}", used=f"{progress:.0%}", refresh=False)
        if self.step % self.settings.validate_every == 0:
            if self.main:
                self.log.write({"step": self.step, "validation": self.measure()})
            self.accelerator.wait_for_everyone()


def read_log(folder) -> list[dict]:
    """The lines of a run's log: losses, and validation numbers, by step."""
    return [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]


def tiled(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows of pictures, each (N, 3, H, W), as one picture (1, 3, rows H, N W)."""
    return torch.cat([torch.cat(list(row.float().cpu()), -1) for row in rows], -2)[None].clamp(0, 1)
