"""One run's own weights and optimiser, and one update of them, in a model that other runs share.

A run's weights are parameters of its own. To compute, or to be looked at, they are put where the model looks for its
parameters, which copies nothing; what stood there belongs to another run and is not touched.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather
from torch import nn

from workbench.diffusion.training import Task
from workbench.diffusion.training_data import generator
from workbench.stepping.engine.ambient import DEFAULT_GENERATORS
from workbench.stepping.training.memory import Snapshot
from workbench.stepping.training.norms import Layers
from workbench.stepping.training.state import ByLayer, TrainingSettings

Slot = tuple[dict, str, object]
"""(mapping, key, value): what has to stand where in the model."""


@dataclass(frozen=True)
class Measured:
    """What one update tells of itself."""

    losses: dict[str, float]
    per_sample: torch.Tensor | None
    per_cell: torch.Tensor | None
    t: torch.Tensor | None
    learning_rate: float
    gradient_norm: float
    gradient_norms: ByLayer
    fault: str | None
    seconds: float
    numbers: tuple[tuple[int, int, int], ...]


class _Whole(nn.Module):
    """The objective as one run calls it: accelerate may wrap and patch this, and leaves the objective itself alone."""

    def __init__(self, objective: nn.Module, precision: str):
        super().__init__()
        self.objective, self.precision = objective, precision

    def forward(self, batch):
        device = next(iter(self.objective.parameters())).device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.objective(batch)


class Learner:
    """A run's weights, its optimiser, and how they are updated.

    Args:
        task: what is trained. Its objective's parameters that require gradients are copied: the run's own. A task
            may also have ``slots() -> [(mapping, key, value)]``: what else the model must hold with its weights;
            ``begin()``, which puts its untrained weights into the model; and ``rate(name)``, see `Task`.
        settings: how.
        start: weights, moments and buffers to begin with; None takes the weights that are in the model, or were before
            a run put its own in: a second run of a task does not begin where the first one stands.
        accelerator: one process's view of the hardware; None makes one. One process computes where the model is.

    Raises:
        ValueError: nothing to train, or a batch that cannot be shared out equally.
    """

    def __init__(self, task: Task, settings: TrainingSettings, start: Snapshot | None, accelerator: Accelerator | None):
        self.task, self.settings = task, settings
        self.accelerator = accelerator or Accelerator(cpu=not torch.accelerator.is_available(), device_placement=False)
        processes = self.accelerator.num_processes
        if settings.batch_size % processes:
            raise ValueError(
                f"batch_size is {settings.batch_size} for {processes} processes, expected a multiple: equal shares."
            )
        objective = task.objective
        if processes > 1:
            objective.to(self.accelerator.device)
        found = trainable(task)
        values = {name: _origin(p).detach() for name, p in found.items()} if start is None else start.weights
        self.parameters = {name: nn.Parameter(values[name].to(p.device, copy=True)) for name, p in found.items()}
        for name, p in self.parameters.items():
            p.untrained = _origin(found[name])
        self.buffers = {name: b.clone() for name, b in objective.named_buffers()}
        self._slots = [*self._places(objective, found), *getattr(task, "slots", list)()]
        self._modules = list(objective.modules())
        self.optimizer = torch.optim.AdamW(
            self._groups(), settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay,
            fused=settings.fused,
        )  # fmt: skip
        self.layers = Layers(objective, list(self.parameters))
        self._shared = start.buffers if start is not None else {}
        if start is not None:
            self.restore(start)
        with self.applied():  # what wraps the objective for several processes notes which parameters it holds
            self.module = self.accelerator.prepare_model(_Whole(objective, settings.precision), device_placement=False)

    def _places(self, objective: nn.Module, found: dict[str, nn.Parameter]) -> list[Slot]:
        """Where each of the run's tensors stands in the model; one that is used in several layers in each."""
        names = {id(p): name for name, p in found.items()}
        buffers = {id(b): name for name, b in objective.named_buffers()}
        slots: list[Slot] = []
        for module in objective.modules():
            own = [(k, names[id(p)]) for k, p in module._parameters.items() if id(p) in names]
            slots += [(module._parameters, key, self.parameters[name]) for key, name in own]
            own = [(k, buffers[id(b)]) for k, b in module._buffers.items() if id(b) in buffers]
            slots += [(module._buffers, key, self.buffers[name]) for key, name in own]
        return slots

    def _groups(self) -> list[dict]:
        """The parameters by the share of the learning rate that the task has them learn with."""
        groups: dict[float, list[nn.Parameter]] = {}
        share = getattr(self.task, "rate", lambda name: 1.0)
        for name, p in self.parameters.items():
            groups.setdefault(share(name), []).append(p)
        return [{"params": members, "share": share} for share, members in groups.items()]

    @property
    def main(self) -> bool:
        """Whether this process keeps snapshots and writes files."""
        return self.accelerator.is_main_process

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(iter(self.parameters.values())).device

    # The weights in the model

    def put_in(self) -> None:
        """Puts the run's weights into the model, where they stay until another run's are put in."""
        for mapping, key, value in self._slots:
            mapping[key] = value

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the run's weights; afterwards what it had before."""
        before = [(mapping, key, mapping[key]) for mapping, key, _ in self._slots]
        try:
            self.put_in()
            yield
        finally:
            for mapping, key, value in before:
                mapping[key] = value

    # Snapshots

    def capture(self, i: int) -> Snapshot:
        """The weights, moments and buffers as they are, after ``i`` updates."""
        weights = {name: _copy(p.detach()) for name, p in self.parameters.items()}
        moments = {}
        for name, p in self.parameters.items():
            if p in self.optimizer.state:
                moments[name] = {key: _copy(value) for key, value in self.optimizer.state[p].items()}
        buffers = {}
        for name, value in self.buffers.items():
            known = self._shared.get(name)
            same = known is not None and torch.equal(known, value.cpu())
            buffers[name] = known if same else _copy(value)
        self._shared = buffers
        return Snapshot(i, weights, moments, buffers)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Fills weights, moments and buffers from a snapshot."""
        for name, p in self.parameters.items():
            p.copy_(snapshot.weights[name])
            p.grad = None
            if name not in snapshot.moments:
                self.optimizer.state.pop(p, None)
                continue
            moments = snapshot.moments[name]
            self.optimizer.state[p] = {
                key: value.to(p.device if value.ndim else self._counts_on(p), copy=True)
                for key, value in moments.items()
            }
        for name, value in self.buffers.items():
            if name in snapshot.buffers:
                value.copy_(snapshot.buffers[name])

    def _counts_on(self, p: nn.Parameter):
        """Where AdamW keeps the number of a weight's updates."""
        return p.device if self.settings.fused else "cpu"

    @torch.no_grad()
    def spread(self) -> None:
        """Gives all processes the main one's weights and moments; nothing to do for one."""
        if self.accelerator.num_processes == 1:
            return
        begun = self.agreed(len(self.optimizer.state))
        for p in self.parameters.values():
            p.copy_(broadcast(p.detach()))
            if not begun:
                self.optimizer.state.pop(p, None)
                continue
            if p not in self.optimizer.state:
                self.optimizer.state[p] = {"step": torch.zeros((), device=self._counts_on(p))} | {
                    key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")
                }
            for key, value in self.optimizer.state[p].items():
                self.optimizer.state[p][key] = broadcast(value.to(self.device)).to(value.device)
        for value in self.buffers.values():
            value.copy_(broadcast(value))

    def agreed(self, number: int) -> int:
        """The main process's number, in all processes."""
        if self.accelerator.num_processes == 1:
            return number
        return int(broadcast(torch.tensor([number], device=self.device)).item())

    # One update

    def update(self, step: int) -> Measured:
        """The update after ``step`` updates, as the settings and the data have it. The weights stay in the model.

        Failing, it leaves no gradients; weights and moments may be half-way then.
        """
        started = time.perf_counter()
        s, share = self.settings, self.settings.batch_size // self.accelerator.num_processes
        first = share * self.accelerator.process_index
        batch = self.task.batch([[s.seed, step, item] for item in range(first, first + share)])
        batch = {key: value.to(self.device) for key, value in batch.items()}
        self.put_in()
        rate = s.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        try:
            with self._computing(step):
                losses = self.module(batch)
                self.accelerator.backward(losses["loss"])
            total, norms = self.layers.gradient_norms(self.parameters)
            told = self._told(losses)
            fault = _fault(told["loss"], total)
            if fault is None:
                if s.clip is not None:
                    self.accelerator.clip_grad_norm_(list(self.parameters.values()), s.clip)
                self.optimizer.step()
        finally:
            self.optimizer.zero_grad()
        looks = {key: self._gathered(losses.get(key)) for key in ("per_sample", "per_cell")}
        t = self._gathered(batch["t"] if "t" in batch and batch["t"].ndim == 1 else None)
        numbers = tuple((s.seed, step, item) for item in range(s.batch_size))
        return Measured(told, **looks, t=t, learning_rate=rate, gradient_norm=total, gradient_norms=norms, fault=fault,
                        seconds=time.perf_counter() - started, numbers=numbers)  # fmt: skip

    def _told(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        """The scalars among the losses, each the mean over all processes."""
        scalars = {name: value.detach().float() for name, value in losses.items() if value.ndim == 0}
        return {name: self.accelerator.reduce(value, "mean").item() for name, value in scalars.items()}

    def _gathered(self, value: torch.Tensor | None) -> torch.Tensor | None:
        """A tensor of the batch from all processes, on the CPU."""
        return None if value is None else gather(value.detach().contiguous()).cpu()

    @contextmanager
    def _computing(self, step: int) -> Iterator[None]:
        """Training mode, randomness that depends on the step only, exact kernels; all as before afterwards."""
        modes = [(module, module.training) for module in self._modules]
        devices = [self.device] if self.device.type == "cuda" else []
        with DEFAULT_GENERATORS, torch.random.fork_rng(devices), _exact_kernels(self.device):
            drawn = generator(self.settings.seed, step, self.accelerator.process_index, 8).integers(2**62)
            torch.random.default_generator.manual_seed(int(drawn))  # torch.manual_seed would touch every GPU
            if devices:
                with torch.cuda.device(self.device):
                    torch.cuda.manual_seed(int(drawn))
            for module in self._modules:
                vars(module)["training"] = True  # as an attribute it takes torch milliseconds for a thousand modules
            try:
                yield
            finally:
                for module, training in modes:
                    vars(module)["training"] = training


def trainable(task: Task) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name; of a task that can begin anew, its untrained ones.

    Raises:
        ValueError: there are none.
    """
    getattr(task, "begin", lambda: None)()
    found = {name: p for name, p in task.objective.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError(f"task {task.name!r} has nothing to train: no parameter of its objective requires gradients.")
    return found


def _origin(parameter: nn.Parameter) -> nn.Parameter:
    """What stood in the model before a run put its own parameter in its place."""
    return getattr(parameter, "untrained", parameter)


@contextmanager
def _exact_kernels(device: torch.device) -> Iterator[None]:
    """On a GPU, inside: only kernels that give the same bits each time, where there are such."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, torch.are_deterministic_algorithms_enabled())
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.deterministic, cudnn.benchmark = True, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before[:2]
        torch.use_deterministic_algorithms(before[2], warn_only=warned)


def _fault(loss: float, gradient_norm: float) -> str | None:
    """Why the optimiser must not be called."""
    for name, value in (("the loss", loss), ("the gradient's norm", gradient_norm)):
        if not abs(value) < float("inf"):
            return f"{name} is {value}: the optimiser was not called, the weights are those of the step before"
    return None


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("cpu", copy=True)
