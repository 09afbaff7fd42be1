"""The state of a training run in one file that is whole or not there, and holds nothing that could be executed."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn


class Ema:
    """An exponential moving average of a module's trained weights: e <- d e + (1 - d) w.

    d = min(decay, (1 + step) / (10 + step)), so that the first steps are soon forgotten. Batch normalisation's
    statistics are averaged like weights.

    Args:
        module: whose weights are averaged.
        decay: 0 to 1.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in _trained(module)}

    def to(self, device) -> None:
        """Moves the averages to a device."""
        self.weights = {name: value.to(device) for name, value in self.weights.items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Takes the weights in after update number ``step``."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = dict(_trained(module))
        torch._foreach_lerp_(list(self.weights.values()), [current[name] for name in self.weights], 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module):
        """Inside, the module has the averaged weights."""
        kept = {name: value.detach().clone() for name, value in _trained(module)}
        _put(module, self.weights)
        try:
            yield
        finally:
            _put(module, kept)


class Log:
    """A file of JSON lines; those written after the checkpoint that is gone on from are dropped.

    Not before the first new line is written: a run may be opened to be exported beside the process that trains it.
    """

    def __init__(self, file: Path, step: int):
        self.file, self._kept_until = file, step

    def write(self, entry: dict) -> None:
        """Adds one line."""
        if self._kept_until is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lines = self.file.read_text().splitlines() if self.file.exists() else []
            kept = (f"{line}\n" for line in lines if _step_of(line) <= self._kept_until)
            _write_whole(self.file, "".join(kept).encode())
            self._kept_until = None
        with self.file.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def save_checkpoint(file: Path, objective: nn.Module, ema: Ema, optimizer, told: dict) -> None:
    """Writes weights, averages and the optimiser's moments.

    Args:
        file: where to; its folder is made, an older checkpoint replaced at once.
        objective: with all weights and buffers.
        ema: of its trained weights.
        optimizer: AdamW, also wrapped by accelerate.
        told: JSON: step, seconds, settings.
    """
    tensors = {f"model.{name}": value for name, value in objective.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.weights.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    save_file(tensors, part, metadata={"told": json.dumps(told)})
    _replace(part, file)


def load_checkpoint(file: Path, objective: nn.Module, ema: Ema, optimizer, settings: dict) -> tuple[int, float]:
    """Fills everything from a checkpoint. Returns (step, seconds).

    Raises:
        ValueError: it belongs to other settings or another network, or is damaged.
    """
    tensors, told = _read(file)
    differing = [name for name in settings if told["settings"].get(name) != settings[name]]
    if differing:
        changes = ", ".join(f"{name} {told['settings'].get(name)} instead of {settings[name]}" for name in differing)
        raise ValueError(f"{file} was trained with {changes}. Go on with the same settings, or remove its folder.")
    try:
        objective.load_state_dict(_under("model.", tensors))
    except RuntimeError as error:
        raise ValueError(f"{file} holds another network: {error} Remove its folder, or choose another.") from None
    ema.weights = _under("ema.", tensors)
    state: dict[int, dict] = {}
    for name, value in _under("optimizer.", tensors).items():
        index, moment = name.split(".")
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return told["step"], told["seconds"]


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}, json.loads(opened.metadata()["told"])  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is no readable checkpoint: {error}. Remove it to start anew.") from None


def _under(prefix: str, tensors: dict) -> dict:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _trained(module: nn.Module):
    """(name, value) of each weight that is trained, and of each floating-point buffer."""
    yield from ((name, p) for name, p in module.named_parameters() if p.requires_grad)
    yield from ((name, b) for name, b in module.named_buffers() if b.is_floating_point())


def _put(module: nn.Module, weights: dict) -> None:
    with torch.no_grad():
        for name, value in _trained(module):
            value.copy_(weights[name])


def _step_of(line: str) -> float:
    """The step of a log line; infinite for one that was cut short."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")


def _write_whole(file: Path, content: bytes) -> None:
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(content)
    _replace(part, file)


def _replace(part: Path, file: Path) -> None:
    """Puts a finished file in its place, also across a power cut."""
    with part.open("rb+") as opened:
        os.fsync(opened.fileno())
    os.replace(part, file)
