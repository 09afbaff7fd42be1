"""What claims are tried on: a bundled pipeline, tiny-t2i unless told, and the rendered benchmark."""

import functools
from collections.abc import Sequence

import torch

from workbench.diffusion import load_pipeline


@functools.cache
def model(name: str = "tiny-t2i"):
    """A bundled pipeline, loaded once."""
    pipe = load_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


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
