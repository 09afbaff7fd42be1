"""Latents of the training pictures, encoded once: while a denoiser learns, the autoencoder stands still.

Each entry is a view or crop in one style (mirrored or not), for inpainting also with one hole. The mean and the
standard deviation of the posterior are kept, so that each visit draws anew from it; once for the whole picture and once
for the picture at half its side, which a denoiser learns from first.
"""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from workbench import check
from workbench import mask as masks
from workbench.diffusion.libraries import AutoencoderKL
from workbench.diffusion.models import SIZE, computes_bf16
from workbench.diffusion.training_data import TrainingPictures, generator, training_mask
from workbench.image import resize, to_signed
from workbench.seams import membrane

SHARD = 256
"""Entries in one file: what is lost at most when the encoding is killed."""
SHOWN = {"masked": "grey", "smooth": "smooth"}
"""The tensors of a cache with holes -> what was shown in the hole."""
SMALL = "_small"
"""Ends the names of the tensors of pictures at half their side."""


@torch.no_grad()
def encode_moments(vae: AutoencoderKL, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled mean and standard deviation of the latents of pictures (B, 3, H, W) in [-1, 1]: (B, 4, h, w) each."""
    kind = vae.device.type
    with torch.autocast(kind, torch.bfloat16, enabled=computes_bf16(kind)):
        latents = vae.encode(images.to(vae.device, memory_format=torch.channels_last)).latent_dist
    scale = vae.config.scaling_factor
    return latents.mean.float() * scale, latents.std.float() * scale


def shown_by(unet) -> str:
    """What an inpainting U-Net is best shown in the hole: "smooth" where its config says so (_masked_image), or "grey".

    Published configs have no such entry. One whose name begins with "_" passes through diffusers unseen.
    """
    return unet.config.get("_masked_image", "grey")


def masked_image(image: torch.Tensor, mask: torch.Tensor, shown: str = "grey") -> torch.Tensor:
    """What an inpainting model is shown of a picture.

    Args:
        image: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W) or (1, 1, H, W), 1 = hole.
        shown: what is in the hole: "grey", 0, as published; "smooth", the membrane through its edge. Grey bleeds into
            the latents of the cells that the edge runs through, and what is known there is lost. Where nothing of a
            picture is known, it is grey either way.

    Returns:
        (B, 3, H, W) in [-1, 1].
    """
    if check.choice(shown, "shown", ("grey", "smooth")) == "grey":
        return to_signed(image) * (mask < 0.5)
    pairs = zip(image.split(1), mask.expand(len(image), -1, -1, -1).split(1), strict=True)
    smooth = [torch.full_like(x, 0.5) if m.min() > 0.5 else membrane(x, m).clamp(0, 1) for x, m in pairs]
    return to_signed(torch.cat(smooth))


def given_to(pipe, image: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arguments of an inpainting pipeline's call for pictures (B, 3, H, W) with holes (B, 1, H, W).

    Returns:
        image, mask_image; and masked_image_latents where its U-Net is best shown other than grey.
    """
    given = {"image": image, "mask_image": mask}
    if shown_by(pipe.unet) != "grey":
        mean, _ = encode_moments(pipe.vae, masked_image(image, mask, shown_by(pipe.unet)))
        given["masked_image_latents"] = mean.to(pipe.vae.dtype)
    return given


def nothing_given(vae: AutoencoderKL, side: int = SIZE) -> torch.Tensor:
    """What an inpainting U-Net's last 5 channels hold where everything is hidden: mask 1, latents of grey. (5,)."""
    mean, _ = encode_moments(vae, masked_image(torch.zeros(1, 3, side, side), torch.ones(1, 1, side, side)))
    return torch.cat([mean.new_ones(1), mean.mean((0, 2, 3))])


def build_cache(
    vae: AutoencoderKL,
    source: TrainingPictures,
    folder,
    count: int,
    seed: int = 0,
    holes: bool = False,
    part: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> Path:
    """Encodes what is still missing of a cache.

    Args:
        vae: the trained autoencoder, its scaling factor set.
        source: the pictures.
        folder: where to.
        count: entries.
        seed: of styles, crops and holes.
        holes: also a hole and the masked picture's latents, once with each of `SHOWN`.
        part: (k, n): this is process k of n.
        progress: shows a bar.

    Raises:
        ValueError: the folder holds a cache of another autoencoder, other pictures or another plan.
    """
    folder, (rank, processes) = Path(folder), part
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, _plan(vae, source, check.integer(count, "count", 1), seed, holes))
    device = vae.device
    todo = list(range(0, count, SHARD))[rank::processes]
    vae = vae.to(memory_format=torch.channels_last).eval()
    bar = tqdm(total=count, desc="latents", unit="pictures", disable=not progress or rank > 0)
    for first in todo:
        numbers = range(first, min(first + SHARD, count))
        if not (folder / f"latents-{first:07d}.safetensors").exists():
            _write_shard(vae, [_entry(source, i, seed, holes) for i in numbers], folder, first, holes)
        bar.update(min(len(numbers) * processes, count - bar.n))
    bar.close()
    vae.to(device, memory_format=torch.contiguous_format)
    return folder


def read_cache(folder) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A whole cache: mean, std (N, 4, h, w), with holes mask (N, 1, h, w) and mean and std by `SHOWN`; and captions.

    The same again for half the side, (N, ..., h / 2, w / 2), with `SMALL` at the ends of their names.
    """
    folder = Path(folder)
    files = sorted(folder.glob("latents-*.safetensors"))
    shards = [load_file(file) for file in files]
    captions = []
    for file in files:
        beside = file.with_name(file.stem.replace("latents", "captions") + ".json")
        captions += json.loads(beside.read_text())
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}, captions


def _entry(source: TrainingPictures, index: int, seed: int, holes: bool) -> dict:
    """Picture number ``index``: every view in turn, crops strewn in."""
    rng = generator(seed, 2, index)
    crop = source.crops is not None and rng.random() < source.photo_share
    entry = source.crops.draw(rng) if crop else source.view(index % len(source), rng)
    return {**entry, "mask": training_mask(rng)} if holes else entry


def _write_shard(vae: AutoencoderKL, entries: list[dict], folder: Path, first: int, holes: bool) -> None:
    """Captions, then latents: a shard counts as there when its latents are."""
    (folder / f"captions-{first:07d}.json").write_text(json.dumps([entry["caption"] for entry in entries]))
    temporary = folder / f".latents-{first:07d}.part"
    save_file(_encode(vae, entries, holes), temporary)
    os.replace(temporary, folder / f"latents-{first:07d}.safetensors")


def _encode(vae: AutoencoderKL, entries: list[dict], holes: bool, batch_size: int = 32) -> dict[str, torch.Tensor]:
    """Entries -> tensors in half precision."""
    parts: dict[str, list[torch.Tensor]] = {}
    for k in range(0, len(entries), batch_size):
        images = torch.stack([entry["image"] for entry in entries[k : k + batch_size]])  # (B, 3, H, W)
        mask = torch.cat([entry["mask"] for entry in entries[k : k + batch_size]]) if holes else None  # (B, 1, H, W)
        half = tuple(n // 2 for n in images.shape[-2:])
        small_mask = None if mask is None else nn.functional.max_pool2d(mask, 2)  # (B, 1, H / 2, W / 2)
        found = _moments(vae, images, mask)
        small = _moments(vae, resize(images, half), small_mask)
        for name, value in (found | {f"{name}{SMALL}": value for name, value in small.items()}).items():
            parts.setdefault(name, []).append(value.half().cpu().contiguous())
    return {name: torch.cat(values) for name, values in parts.items()}


def _moments(vae: AutoencoderKL, images: torch.Tensor, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """What is kept of pictures (B, 3, H, W) at one size, with holes or without."""
    mean, std = encode_moments(vae, to_signed(images))
    found = {"mean": mean, "std": std}
    if mask is not None:
        for name, shown in SHOWN.items():
            found[f"{name}_mean"], found[f"{name}_std"] = encode_moments(vae, masked_image(images, mask, shown))
        found["mask"] = masks.to_latent(mask, "nearest", images.shape[-1] // mean.shape[-1])  # (B, 1, h, w)
    return found


def _plan(vae: AutoencoderKL, source: TrainingPictures, count: int, seed: int, holes: bool) -> dict:
    """What the cache depends on."""
    digest = hashlib.sha256()
    for part in (vae.encoder, vae.quant_conv):  # the decoder may go on learning
        for value in part.state_dict().values():
            digest.update(value.float().cpu().contiguous().numpy().tobytes())
    sets = [[s.plan["kind"], s.plan["split"], s.plan["first"], len(s)] for s in source.sets]
    told = {
        "count": count,
        "seed": seed,
        "holes": holes and [*SHOWN],
        "photo_share": source.photo_share,
        "style": source.style,
        "close": source.close,
        "alone": source.alone,
    }
    return {"vae": digest.hexdigest(), "scaling_factor": vae.config.scaling_factor, "sets": sets, **told}


def claim(folder: Path, plan: dict, what: str = "latents") -> None:
    """Writes the plan of a cache into an empty folder; in a used one it must be the same.

    Raises:
        ValueError: it is not; the message says what differs.
    """
    file = folder / "plan.json"
    if not file.exists():
        temporary = folder / f".plan.{os.getpid()}.part"
        temporary.write_text(json.dumps(plan))
        os.replace(temporary, file)
        return
    found = json.loads(file.read_text())
    differing = [name for name in plan if found.get(name) != json.loads(json.dumps(plan[name]))]
    if differing:
        raise ValueError(
            f"{folder} holds {what} made with another {', '.join(differing)}. Remove it, or choose another folder."
        )
