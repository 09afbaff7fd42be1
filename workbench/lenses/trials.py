"""What claims are tried on: a bundled pipeline, tiny-t2i unless told, the rendered benchmark, views of unseen seeds."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from workbench import check, world
from workbench.diffusion import load_pipeline
from workbench.world.seeds import split_seeds

HELD_OUT = 500_000
"""Where the seeds of `held_out` begin within the validation split: far from those that trainings choose by."""
KINDS = ("facade", "room")
TRAINED = Path(__file__).resolve().parents[2] / "out"
"""Where trainings lie that claims compare and that are not bundled."""


@functools.cache
def model(name: str = "tiny-t2i"):
    """A bundled pipeline, loaded once."""
    pipe = load_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def trained(name: str, command: str) -> Path:
    """The folder of a training in `TRAINED`.

    Args:
        name: of the folder.
        command: what makes it, with all but the folders it writes.

    Raises:
        NotAvailable: it has not been made here; the message has the whole command.
    """
    folder = TRAINED / name
    if not folder.is_dir():
        raise check.NotAvailable(
            f"{folder} is not there. Train it: {command} --folder checkpoints/{name} --export {folder}"
        )
    return folder


@functools.cache
def held_out(number: int, size: tuple[int, int] = (128, 128)) -> torch.Tensor:
    """A view that nothing has learnt from: facades have even numbers, rooms odd ones.

    It is rendered: at 128 x 128 in 2 processor seconds, at 512 x 512 in 25. The same number, the same bits.

    Args:
        number: from 0.
        size: (H, W).

    Returns:
        (1, 3, H, W) in [0, 1].
    """
    seed = split_seeds("validation", HELD_OUT + check.integer(number, "number", 0), 1)[0]
    make = {"facade": world.make_facade, "room": world.make_room}[KINDS[number % 2]]
    return world.render(make(seed), size=size).image


def kinds_of(scene) -> tuple[torch.Tensor, list[str]]:
    """(H, W) numbers of the last word of what each pixel shows ("ball"), -1 for nothing; and the words."""
    nouns = [thing.split()[-1] for thing in scene.things]
    words = sorted(set(nouns))
    table = torch.tensor([-1, *(words.index(noun) for noun in nouns)])
    return table[scene.ids.long()], words


def latents_of(image: torch.Tensor) -> torch.Tensor:
    """What the autoencoder alone makes of a picture, (1, 4, h, w)."""
    with torch.no_grad():
        return model().vae.encode(2 * image - 1).latent_dist.mean


def minus(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """a - b, one by one."""
    return [x - y for x, y in zip(a, b, strict=True)]
