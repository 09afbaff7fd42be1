"""Pairs as the networks get them, encoded once: while the U-Net learns, everything about it stands still."""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from workbench import check
from workbench import mask as masks
from workbench.diffusion.export import digest_of
from workbench.diffusion.latents import claim
from workbench.diffusion.training_data import generator
from workbench.image import to_signed
from workbench.methods.mimicbrush.model import MimicBrush
from workbench.methods.mimicbrush.pairs import Pair, Pairs

SHARD = 128
"""Pairs in one file: what is lost at most when the encoding is killed."""


@torch.no_grad()
def encode_pairs(model: MimicBrush, pairs: Iterable[Pair], batch_size: int = 16) -> dict[str, torch.Tensor]:
    """What the objective needs of pairs, all sources of one size and all references of one.

    Args:
        model: its autoencoder, image encoder and depth estimator are used.
        pairs: any number.
        batch_size: encoded at once.

    Returns:
        latents, background, reference (N, 4, h, w), mask (N, 1, h, w), states (N, n, C), depth (N, 1, H, W), there
        (N, 2, h, w), in half precision on the CPU. Depth is that of the whole source; there, as `Pair` has it, is -1
        where nothing is known.

    Example:
        >>> encode_pairs(model, [pairs.draw(generator(0, k)) for k in range(8)])["latents"].shape
        torch.Size([8, 4, 32, 32])
    """
    pairs = list(pairs)
    if not pairs:
        raise ValueError("pairs is empty, expected at least one.")
    found: dict[str, list[torch.Tensor]] = {}
    for k in range(0, len(pairs), check.integer(batch_size, "batch_size", 1)):
        part = pairs[k : k + batch_size]
        source, mask, reference = (
            torch.cat([getattr(pair, name) for pair in part]).to(model.device)
            for name in ("source", "mask", "reference")
        )
        encoded = {
            "latents": model.encode(to_signed(source)),
            "background": model.encode(model.masked(source, mask)),
            "reference": model.encode(to_signed(reference)),
            "mask": masks.to_latent(mask, "nearest", model.factor),
            "states": model.image_encoder(reference),
            "depth": model.depth(source),
            "there": torch.cat([_there(pair, model.factor) for pair in part]),
        }
        for name, value in encoded.items():
            found.setdefault(name, []).append(value.half().cpu().contiguous())
    return {name: torch.cat(values) for name, values in found.items()}


def _there(pair: Pair, factor: int) -> torch.Tensor:
    """(1, 2, h, w): `Pair.there` in the middles of the latent cells, -1 where nothing is known."""
    if pair.there is None:
        return torch.full((1, 2, *(n // factor for n in pair.source.shape[-2:])), -1.0)
    return pair.there[..., factor // 2 :: factor, factor // 2 :: factor].nan_to_num(nan=-1.0)


def build_cache(
    model: MimicBrush,
    pairs: Pairs,
    folder,
    count: int,
    seed: int = 0,
    part: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> Path:
    """Encodes what is still missing of so many pairs; killed, it goes on where it was.

    Args:
        model: see `encode_pairs`.
        pairs: what to draw from.
        folder: where to.
        count: how many pairs.
        seed: of the draws.
        part: (k, n): this is process k of n.
        progress: shows a bar.

    Raises:
        ValueError: the folder holds pairs of another model or plan.
    """
    folder, (rank, processes) = Path(folder), part
    folder.mkdir(parents=True, exist_ok=True)
    check.integer(count, "count", 1)
    claim(folder, _plan(model, pairs, count, seed), "pairs")
    bar = tqdm(total=count, desc="pairs", disable=not progress or rank > 0)
    for first in list(range(0, count, SHARD))[rank::processes]:
        numbers = range(first, min(first + SHARD, count))
        file = folder / f"pairs-{first:07d}.safetensors"
        if not file.exists():
            part_file = folder / f".{file.name}.part"
            save_file(encode_pairs(model, [pairs.draw(generator(seed, 2, k)) for k in numbers]), part_file)
            os.replace(part_file, file)
        bar.update(min(len(numbers) * processes, count - bar.n))
    bar.close()
    return folder


def read_cache(folder) -> dict[str, torch.Tensor]:
    """All pairs that `build_cache` wrote, as `encode_pairs` gives them."""
    shards = [load_file(file) for file in sorted(Path(folder).glob("pairs-*.safetensors"))]
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


def _plan(model: MimicBrush, pairs: Pairs, count: int, seed: int) -> dict:
    """What the encoded pairs depend on."""
    films = getattr(pairs.films, "sets", None)
    sets = [*(films or []), *(pairs.stills.sets if pairs.stills is not None else [])]
    return {
        "version": 2,
        "networks": digest_of(model.vae, model.image_encoder, model.depth),
        "count": count,
        "seed": seed,
        "sets": [[s.plan["kind"], s.plan["split"], s.plan["first"], len(s)] for s in sets],
        "photographs": pairs.stills.photo_share if pairs.stills is not None else 0,
        "style": pairs.stills.style if pairs.stills is not None else 0,
        "video_share": pairs.video_share,
        "band": list(pairs.band),
        "augmentations": pairs.augmentations,
        "strength": pairs.strength,
        "guide": pairs.guide,
    }
