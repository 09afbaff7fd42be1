"""What is told of each step of a training run, and how a run trains."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import torch

from workbench import check
from workbench.diffusion.training import learning_rate


@dataclass(frozen=True)
class TrainingSettings:
    """How a run trains: AdamW on equal batches.

    Args:
        learning_rate: the highest.
        schedule: "constant", or "cosine": down to ``final`` of it at ``steps``.
        warmup: updates over which it rises from 0.
        final: share of it that is left at the end of the cosine.
        steps: updates in all; None: no end.
        batch_size: items per update, over all processes together.
        seed: of the data: item k of step n depends on [seed, n, k] alone.
        weight_decay, betas: of AdamW.
        fused: whether AdamW updates all weights at one go, without temporaries of their size; equal but for rounding.
        clip: the gradient's norm is cut to this; None leaves it.
        precision: "no" (float32) or "bf16" (autocast).

    Raises:
        ValueError: out of range, or a cosine without an end.
    """

    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup: int = 0
    final: float = 0.02
    steps: int | None = None
    batch_size: int = 4
    seed: int = 0
    weight_decay: float = 1e-2
    betas: tuple[float, float] = (0.9, 0.99)
    fused: bool = False
    clip: float | None = 1.0
    precision: str = "no"

    def __post_init__(self):
        plain = {
            "learning_rate": check.number(self.learning_rate, "learning_rate", 0),
            "warmup": check.integer(self.warmup, "warmup", 0),
            "final": check.number(self.final, "final", 0, 1),
            "batch_size": check.integer(self.batch_size, "batch_size", 1),
            "seed": check.seed(self.seed),
            "weight_decay": check.number(self.weight_decay, "weight_decay", 0),
        }
        check.choice(self.schedule, "schedule", ("constant", "cosine"))
        if self.steps is not None:
            plain["steps"] = check.integer(self.steps, "steps", 1)
        elif self.schedule == "cosine":
            raise ValueError('steps is None for schedule "cosine", expected how many: where shall it end?')
        if len(tuple(self.betas)) != 2:
            raise ValueError(f"betas is {self.betas!r}, expected two numbers.")
        plain["betas"] = tuple(check.number(beta, "betas", 0, 1) for beta in self.betas)
        if not isinstance(self.fused, bool):
            raise TypeError(f"fused is {self.fused!r}, expected True or False.")
        if self.clip is not None:
            plain["clip"] = check.number(self.clip, "clip", 0)
        check.choice(self.precision, "precision", ("no", "bf16"))
        for name, value in plain.items():  # NumPy's numbers become Python's, which can be written
            object.__setattr__(self, name, value)

    def rate(self, step: int) -> float:
        """The learning rate of the update after ``step`` updates, see `diffusion.training.learning_rate`."""
        if self.schedule == "constant":
            return learning_rate(replace(self, final=1.0), step, 0.0)
        return learning_rate(self, step, step / self.steps)

    def changed(self, **changes) -> "TrainingSettings":
        """The same with some changed, which are checked; ``lr`` is short for learning_rate.

        Raises:
            ValueError: no such setting, or one out of range.
        """
        if "lr" in changes and "learning_rate" in changes:
            raise ValueError("lr and learning_rate are both given, expected one: lr is short for it.")
        changes = {"learning_rate" if name == "lr" else name: value for name, value in changes.items()}
        unknown = [name for name in changes if name not in SETTINGS]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no setting, expected one of: {', '.join(SETTINGS)}.")
        return replace(self, **changes)

    def to_json(self) -> dict:
        """Plain numbers and words."""
        return {**asdict(self), "betas": list(self.betas)}


SETTINGS = tuple(f.name for f in fields(TrainingSettings))
"""Names of the settings."""


class ByLayer(Mapping):
    """One number a layer, read as a dictionary; the names are shared by all steps, so that a step costs 8 bytes each.

    Args:
        names: of the layers.
        values: as many numbers.
    """

    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...] = (), values=()):
        self._names, self._values = names, np.asarray(values, np.float64)

    def __getitem__(self, name: str) -> float:
        try:
            return float(self._values[self._names.index(name)])
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def items(self):
        """(name, number) of each layer."""
        return list(zip(self._names, self._values.tolist(), strict=True))

    def values(self):
        """The numbers."""
        return self._values.tolist()

    def __repr__(self) -> str:
        return repr(dict(self.items()))


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What there is after i updates, and what the i-th update was like. Small: no weights, no batch.

    State 0 is before the first update: it has a digest and norms, and no loss (None, empty dicts).

    Args:
        i: updates done.
        loss: what the i-th update minimised, on the weights before it; the mean over all processes.
        losses: every scalar that the objective gave, "loss" too.
        loss_per_sample: (B,), in the order of the batch's items; None where the objective offers none.
        loss_per_cell: (B, h, w), the squared error on the latent grid; None where the objective offers none.
        t: (B,) int64, the noise levels of the items; None where the batch has none.
        learning_rate: of the update.
        gradient_norm: before clipping, over all that is trained.
        gradient_norms: the same by layer.
        weight_norms: of the weights after the update, by layer; of a LoRA ||s B A||, what it adds to its layer.
        update_norms: of the change by this update, by layer; of a LoRA ||s (B'A' - BA)||.
        fault: why the optimiser was not called (the loss or the gradient is not finite: the weights are those of
            before), in words; None if it was.
        digest: BLAKE2b of the trained weights; "" in processes other than the main one, which hold no weights.
        seconds: the update took.
        numbers: [seed, step, item] of each item: what `batch` is computed from again.
    """

    i: int
    loss: float | None
    losses: dict[str, float] = field(repr=False)
    loss_per_sample: torch.Tensor | None = field(repr=False)
    loss_per_cell: torch.Tensor | None = field(repr=False)
    t: torch.Tensor | None = field(repr=False)
    learning_rate: float | None
    gradient_norm: float | None
    gradient_norms: Mapping[str, float] = field(repr=False)
    weight_norms: Mapping[str, float] = field(repr=False)
    update_norms: Mapping[str, float] = field(repr=False)
    fault: str | None
    digest: str = field(repr=False)
    seconds: float
    numbers: tuple[tuple[int, int, int], ...] = field(repr=False)
    recall: Callable[[list], dict] | None = field(repr=False, default=None)

    @property
    def batch(self) -> dict[str, torch.Tensor] | None:
        """The whole batch of the i-th update, computed again (nothing of it is kept); None for state 0."""
        if not self.numbers:
            return None
        return self.recall([list(number) for number in self.numbers])

    @property
    def mask(self) -> torch.Tensor | None:
        """The holes of the batch, (B, 1, h, w), 1 = hole, computed again; None where the task has none."""
        batch = self.batch
        return None if batch is None else batch.get("mask")

    @property
    def update_norm(self) -> float | None:
        """Of all layers' changes together."""
        return sum(v * v for v in self.update_norms.values()) ** 0.5 if self.update_norms else None

    @property
    def weight_norm(self) -> float | None:
        """Of all layers' weights together; of a LoRA, of what it adds."""
        return sum(v * v for v in self.weight_norms.values()) ** 0.5 if self.weight_norms else None

    @property
    def nbytes(self) -> int:
        """What it takes in memory, about: tensors, 8 bytes a layer and norm, and 1.5 kB for all else."""
        tensors = [x for x in (self.loss_per_sample, self.loss_per_cell, self.t) if x is not None]
        layers = sum(len(norms) for norms in (self.gradient_norms, self.weight_norms, self.update_norms))
        return sum(x.nbytes for x in tensors) + 8 * layers + 1500
