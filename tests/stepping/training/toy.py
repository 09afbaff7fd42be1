"""A task of a few hundred parameters that the tests of training runs share; as a program, one of two processes."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from workbench.diffusion.training import Task
from workbench.diffusion.training_data import gaussian, generator
from workbench.stepping.training import TrainingRun

SHAPE = (4, 6, 10)  # latents, not square


class Net(nn.Module):
    """Guesses noise; has a frozen layer, batch statistics, dropout, and a weight that is used twice."""

    def __init__(self, width=6, dropout=0.0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(0)
            self.first = nn.Conv2d(5, width, 3, padding=1)
            self.frozen = nn.Conv2d(width, width, 1).requires_grad_(False)
            self.norm = nn.BatchNorm2d(width)
            self.last = nn.Conv2d(width, 4, 3, padding=1)
        self.again = self.norm.weight
        self.dropout = nn.Dropout(dropout)
        self.fail_at = self.nan_at = None
        self.noise_at = ()
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        noised = batch["latents"] + batch["noise"] * (batch["t"] / 1000).view(-1, 1, 1, 1)
        level = (batch["t"] / 1000).view(-1, 1, 1, 1).expand(-1, 1, *SHAPE[1:])
        guess = self.last(self.dropout(self.norm(self.frozen(self.first(torch.cat([noised, level], 1)))).relu()))
        if self.fail_at is not None and self.calls == self.fail_at[0]:
            raise self.fail_at[1]
        cells = (guess - batch["noise"]).square().mean(1)  # (B, h, w)
        loss = cells.mean()
        if self.nan_at is not None and int(batch["step"][0]) == self.nan_at:
            loss = loss * float("nan")
        if int(batch["step"][0]) in self.noise_at:  # randomness that no batch explains
            loss = loss * (1 + 0.1 * self.calls)
        twice = {"loss": loss, "double": 2 * loss}
        return {**twice, "per_sample": cells.detach().mean((1, 2)), "per_cell": cells.detach()}


class Toy(Task):
    """Denoises five latents."""

    name, about = "toy", "a toy"

    def __init__(self, **options):
        self.objective = Net(**options).eval()
        self.asked = 0

    def batch(self, numbers):
        self.asked += 1
        items = []
        for seed, step, item in numbers:
            rng = generator(seed, step, item)
            noise, latents = gaussian(rng, SHAPE), gaussian(generator(99, int(rng.integers(5))), SHAPE)
            items.append((latents, noise, torch.tensor(int(rng.integers(1000))), torch.tensor(step)))
        names = ("latents", "noise", "t", "step")
        return dict(zip(names, (torch.stack(part) for part in zip(*items, strict=True)), strict=True))


class Plain(Toy):
    """Without batch statistics, which differ between processes."""

    def __init__(self):
        super().__init__()
        self.objective.norm = nn.Identity()
        self.objective.again = None


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal to the bit, name by name."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    run = TrainingRun(Plain(), batch_size=4, learning_rate=1e-2, steps=8, memory=0)
    run.watch("loss", above=1e9)
    run.step(4)
    states = run.states
    told = {f"norm.{k}": torch.tensor(v) for k, v in states[1].gradient_norms.items()}
    told |= {"loss": torch.tensor(run.history("loss")), "calls": torch.tensor(0)}
    told |= {f"weight.{k}": v for k, v in run.weights().items()}
    run.goto(2)  # computed again by all, from the main one's snapshot
    told |= {f"again.{k}": v for k, v in run.weights().items()}
    fork = run.branch(at=1, lr=1e-3)
    fork.step(2)
    told["fork"] = torch.tensor(fork.state.loss)
    run.goto(4)
    main = run._learner.main
    assert bool(run.snapshots) == main
    assert (run.state.digest != "") == main
    saved = run.save(out / "run.safetensors")
    if main:
        told |= {"per_sample": states[1].loss_per_sample, "t": states[1].t, "per_cell": states[1].loss_per_cell}
        save_file({k: v.contiguous() for k, v in told.items()}, out / "told.safetensors",
                  {"processes": str(run._learner.accelerator.num_processes), "file": saved.name})  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
