"""One of two processes that train together; started by test_training.py as torchrun would start it.

Arguments: a folder with ``latents.safetensors``; and where to write. Writes gradients, and weights after two updates.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from workbench.diffusion import models
from workbench.diffusion.denoiser import Denoising
from workbench.diffusion.training import ModelTask, Settings, Trainer, _Batches, make_accelerator
from workbench.diffusion.training_data import gaussian, generator

SETTINGS = Settings(steps=2, batch_size=4, warmup=1, learning_rate=1e-2, checkpoint_seconds=1e9, precision="no")


class Toy(ModelTask):
    """A real denoiser on a handful of latents, without pictures."""

    name = "toy"

    def __init__(self, latents: torch.Tensor):
        text = models.make_text_encoder(_Words(), width=16, layers=1)
        self.objective = Denoising(models.make_denoiser(8, widths=(16, 16, 16), text_width=16), text, train_text=True)
        self.latents = latents

    def batch(self, numbers):
        items = []
        for number in numbers:
            rng = generator(*number)
            i = int(rng.integers(len(self.latents)))
            items.append((self.latents[i], gaussian(rng, (4, 16, 16)), torch.tensor(int(rng.integers(1000)))))
        latents, noise, t = (torch.stack(parts) for parts in zip(*items, strict=True))
        ids = torch.arange(8).expand(len(items), -1)
        return {"latents": latents, "noise": noise, "t": t, "ids": ids}

    def validate(self):
        return {"weight": self.objective.unet.conv_in.weight.abs().mean().item()}

    def sheet(self):
        return torch.zeros(1, 3, 4, 4)

    def export(self, folder, trained):
        raise AssertionError("nothing is exported here")


class _Words:
    """As much of a tokenizer as a text encoder needs."""

    model_max_length, bos_token_id, eos_token_id, pad_token_id = 8, 8, 9, 9

    def __len__(self):
        return 10


def main(source: Path, out: Path) -> None:
    torch.set_num_threads(1)
    accelerator = make_accelerator()
    task = Toy(load_file(source / "latents.safetensors")["latents"])
    trainer = Trainer(task, SETTINGS, out / "run", accelerator)
    part = _Batches(task, SETTINGS, accelerator.process_index, accelerator.num_processes)
    losses = trainer.objective(part[0])
    accelerator.backward(losses["loss"])
    gradients = {name: p.grad.clone() for name, p in task.objective.named_parameters() if p.grad is not None}
    task.objective.zero_grad()
    trainer.run(bar=False)
    if trainer.main:
        weights = {f"after.{name}": p.detach() for name, p in task.objective.named_parameters()}
        save_file(gradients | weights, out / "result.safetensors", {"processes": str(accelerator.num_processes)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
