"""Teaching a pipeline a few pictures with a LoRA: the batches, and what a `stepping.TrainingRun` asks for.

The loss is in `lora_objective`.
"""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from workbench import check
from workbench import mask as masks
from workbench.diffusion.latents import given_to, masked_image, shown_by
from workbench.diffusion.libraries import DDPMScheduler
from workbench.diffusion.lora import (
    ADAPTER,
    TEXT_TARGETS,
    UNET_TARGETS,
    add_lora,
    fill_lora,
    lora_layers,
    product_norm,
    rank_slots,
    resize_factors,
    save_lora,
)
from workbench.diffusion.lora_objective import DROPOUTS, LoraDenoising, draw_dropout
from workbench.diffusion.tokenizer import token_ids
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import gaussian, generator, training_mask
from workbench.image import to_signed

PROMPT_DROPOUT = 0.1
"""Share of items that learn with the empty prompt, as in RealFill."""
STEPS = 20
"""Steps of the samples."""
ENCODED_AT_ONCE = 4
LARGEST_DROPOUT = 0.99


def _box(rng: np.random.Generator, size: tuple[int, int]) -> torch.Tensor:
    """One box, a quarter to three quarters of each side."""
    (h, w), (height, width) = (max(1, int(n * rng.uniform(0.25, 0.75))) for n in size), size
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return masks.box(size, (x, y, x + w, y + h))


MASK_POLICIES: dict[str, Callable] = {
    "random": training_mask,
    "box": _box,
    "rectangles": lambda rng, size: masks.rectangles(size, int(rng.integers(2**31))),
    "none": lambda rng, size: torch.ones(1, 1, *size),
}
"""Holes to learn with, by name: function(rng, size) -> (1, 1, H, W). "random": strokes, rectangles, boxes, sometimes
everything; "box": one box; "rectangles": many, their union or all else, as published for RealFill; "none": nothing is
known, the whole picture is hole."""


class LoraTask(ModelTask):
    """Fine-tunes a Stable Diffusion pipeline on a few pictures: 9 input channels (inpainting) or 4.

    The LoRA is put into ``pipe`` at once; one that is there from an earlier task is replaced by a fresh one (the runs
    of the earlier task keep theirs). An item of a batch is one of the pictures with a hole, a noise level and noise.

    Args:
        pipe: StableDiffusionInpaintPipeline, StableDiffusionPipeline, or one with the same parts.
        images: (N, 3, H, W) in [0, 1]; H and W multiples of what the U-Net halves, 32 or 64.
        prompt: one for all, or N captions. A token without a meaning ("sks") leaves room for what is learnt.
        mask_policy: a name in `MASK_POLICIES`, or ``function(rng) -> mask`` (1, 1, H, W), 1 = hole, drawing from rng
            only. Pipelines of 4 channels see no mask.
        holes: (N, 1, H, W), 1 = not known: it counts for nothing in the loss, and is always part of the hole.
        rank, lora_alpha, targets, seed: as in `add_lora`.
        train_text: puts a LoRA into the text encoder too.
        text_rate: the text encoder's LoRA learns with this share of the run's learning rate.
        prompt_dropout: share of items with the empty prompt.
        lora_dropout: share of a LoRA that an item learns without, below 1; drawn with the batch.
        dropout_of: what is dropped, see `lora_objective.DROPOUTS`.
        snr_gamma: weighs noise levels, see `LoraDenoising`; None does not.

    Raises:
        ValueError: shapes, ranges, or a pipeline of another kind.

    Source: RealFill (Tang et al., SIGGRAPH 2024), section 4.1; differs in that convolutions get a LoRA as well.

    Example:
        >>> task = LoraTask(load_pipeline("tiny-inpaint"), views, "a photo of sks")
        >>> TrainingRun(task, learning_rate=1e-3).step().loss
        0.0712
    """

    name = "lora"
    variants = ("mask_policy", "rank", "lora_alpha", "prompt", "holes", "prompt_dropout", "lora_dropout", "text_rate")
    """What a branch may change."""
    side: int | None = None
    """What learnt from crops of another size than the model's own says here which: it is sampled at that."""

    def __init__(
        self,
        pipe,
        images: torch.Tensor,
        prompt: str | Sequence[str] = "a photo of sks",
        *,
        mask_policy: str | Callable = "random",
        holes: torch.Tensor | None = None,
        rank: int = 8,
        lora_alpha: float | None = None,
        targets: Sequence[str] | None = None,
        train_text: bool = False,
        text_rate: float = 1.0,
        prompt_dropout: float = PROMPT_DROPOUT,
        lora_dropout: float = 0.0,
        dropout_of: str = "layers",
        snr_gamma: float | None = None,
        seed: int = 0,
    ):
        self.pipe, self.factor = pipe, _factor(pipe)
        self.rank, self.seed = check.integer(rank, "rank", 1), check.seed(seed)
        self.lora_alpha = check.number(rank if lora_alpha is None else lora_alpha, "lora_alpha", 0)
        self.images = self._fitting(check.image(images, "images")).detach().cpu()  # (N, 3, H, W)
        self.mask_policy, self.prompt_dropout = mask_policy, prompt_dropout
        self.lora_dropout, self.text_rate = lora_dropout, text_rate
        self.dropout_of = check.choice(dropout_of, "dropout_of", DROPOUTS)
        self._take(prompt, holes)
        self.models = [pipe.unet, *([pipe.text_encoder] if train_text else [])]
        if lora_layers(pipe.text_encoder) and not train_text:
            raise ValueError(
                "the text encoder has a LoRA. Take it out, remove_lora(pipe.text_encoder), or train_text=True."
            )
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False)
        for model in self.models:
            own = (targets or UNET_TARGETS) if model is pipe.unet else TEXT_TARGETS
            if not lora_layers(model):
                add_lora(model, self.rank, self.lora_alpha, own, self.seed)
            elif set(own) != set(model.peft_config[ADAPTER].target_modules):
                raise ValueError("the pipeline has a LoRA on other layers. Take it out first: remove_lora(pipe.unet).")
            for layer in lora_layers(model).values():
                layer.lora_A.requires_grad_(True), layer.lora_B.requires_grad_(True)
        self.begin()
        scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        self.objective = LoraDenoising(pipe.unet, pipe.text_encoder, scheduler, snr_gamma)
        self.about = f"LoRA of rank {self.rank} on {len(self.images)} pictures."

    def _fitting(self, images: torch.Tensor) -> torch.Tensor:
        step = self.factor * 2 ** (len(self.pipe.unet.config.block_out_channels) - 1)
        if any(n % step for n in images.shape[-2:]):
            size = tuple(images.shape[-2:])
            raise ValueError(f"images are {size} (H, W), expected multiples of {step}. Use wb.image.resize, or crop.")
        return images

    def _take(self, prompt, holes) -> None:
        """Checks what is given with the pictures."""
        captions = [prompt] * len(self.images) if isinstance(prompt, str) else list(prompt)
        if len(captions) != len(self.images):
            raise ValueError(f"prompt holds {len(captions)} captions for {len(self.images)} images, expected as many.")
        self.prompt, self.captions = prompt, captions
        self.holes = (
            holes if holes is None else check.mask(holes, self.images, "holes").expand(len(captions), -1, -1, -1)
        )
        if not callable(self.mask_policy):
            check.choice(self.mask_policy, "mask_policy", MASK_POLICIES)
        check.number(self.prompt_dropout, "prompt_dropout", 0, 1)
        check.number(self.lora_dropout, "lora_dropout", 0, LARGEST_DROPOUT)
        check.number(self.text_rate, "text_rate", 0)
        self._encoded: tuple[torch.Tensor, torch.Tensor] | None = None
        self.ids = token_ids(self.pipe.tokenizer, captions)  # (N, L)
        self.empty = token_ids(self.pipe.tokenizer, [""])[0]  # (L,)

    # What a run asks for

    @torch.no_grad()
    def batch(self, numbers):
        """latents, noise (B, 4, h, w), t (B,), ids (B, L), known (B, 1, h, w); with 9 channels mask and masked too."""
        rngs = [generator(*number) for number in numbers]
        rows = [self._row(rng) for rng in rngs]
        levels = self.objective.scheduler.config.num_train_timesteps
        batch = {
            "latents": self._drawn([part[rows] for part in self._moments()], rngs),
            "t": torch.tensor([int(rng.integers(levels)) for rng in rngs]),
            "ids": torch.stack([self._ids(row, rng) for row, rng in zip(rows, rngs, strict=True)]),
            "known": 1 - masks.to_latent(self._unknown(rows), "any", self.factor),
        }
        batch["noise"] = torch.stack([gaussian(rng, batch["latents"].shape[1:]) for rng in rngs])
        if self.pipe.unet.config.in_channels == 9:
            batch |= self._given(rows, rngs)
        if self.lora_dropout:
            batch |= draw_dropout(rngs, self.lora_dropout, self.dropout_of, len(self.objective.dropouts))
        return batch

    def _row(self, rng: np.random.Generator) -> int:
        """Which picture an item is of."""
        return int(rng.integers(len(self.images)))

    def _unknown(self, rows: list[int]) -> torch.Tensor:
        """What is not known of pictures, (B, 1, H, W)."""
        return torch.zeros_like(self.images[rows, :1]) if self.holes is None else self.holes[rows]

    def _given(self, rows: list[int], rngs) -> dict[str, torch.Tensor]:
        """What the U-Net is shown of pictures: mask (B, 1, h, w) and masked (B, 4, h, w), the latents of the rest."""
        hole = torch.maximum(self._unknown(rows), torch.cat([self.hole(rng) for rng in rngs]))  # (B, 1, H, W)
        moments = self._encode(masked_image(self.images[rows], hole, shown_by(self.pipe.unet)))
        return {"mask": masks.to_latent(hole, "nearest", self.factor), "masked": self._drawn(moments, rngs)}

    def hole(self, rng: np.random.Generator) -> torch.Tensor:
        """A hole to learn with, (1, 1, H, W), by the mask policy."""
        size = tuple(self.images.shape[-2:])
        if callable(self.mask_policy):
            return check.mask(self.mask_policy(rng), self.images[:1], "the mask policy's mask").float()
        return MASK_POLICIES[self.mask_policy](rng, size)

    def _ids(self, row: int, rng: np.random.Generator) -> torch.Tensor:
        return self.empty if rng.random() < self.prompt_dropout else self.ids[row]

    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the latents of all pictures, without what is not known of them; made once."""
        if self._encoded is None:
            signed = to_signed(self.images) if self.holes is None else masked_image(self.images, self.holes)
            parts = [self._encode(part) for part in signed.split(ENCODED_AT_ONCE)]
            self._encoded = tuple(torch.cat(moments) for moments in zip(*parts, strict=True))
        return self._encoded

    def _encode(self, signed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the latents of pictures in [-1, 1]: (B, 4, h, w) each, on the CPU."""
        vae = self.pipe.vae
        posterior = vae.encode(signed.to(vae.device, vae.dtype)).latent_dist
        scale = vae.config.scaling_factor
        return posterior.mean.float().cpu() * scale, posterior.std.float().cpu() * scale

    def _drawn(self, moments, rngs) -> torch.Tensor:
        """Latents drawn from their posteriors, as the pipelines do: (B, 4, h, w)."""
        mean, std = moments
        return mean + std * torch.stack([gaussian(rng, mean.shape[1:]) for rng in rngs])

    def begin(self) -> None:
        """Puts the task's untrained LoRA into the model, in parameters of its own; always the same weights."""
        for model in self.models:
            fill_lora(model, self.rank, self.lora_alpha, self.seed)

    def rate(self, name: str) -> float:
        """Share of the run's learning rate that a parameter of the objective learns with, by its name."""
        return self.text_rate if name.startswith("text_encoder.") else 1.0

    # What a branch asks for

    def variant(self, **changes) -> "LoraTask":
        """The same task on the same model with some of `variants` changed; another rank keeps the scale s."""
        other = copy.copy(self)
        if "rank" in changes:
            other.rank = check.integer(changes.pop("rank"), "rank", 1)
            other.lora_alpha = self.lora_alpha / self.rank * other.rank
        if "lora_alpha" in changes:
            other.lora_alpha = check.number(changes.pop("lora_alpha"), "lora_alpha", 0)
        other.mask_policy = changes.pop("mask_policy", self.mask_policy)
        for name in ("prompt_dropout", "lora_dropout", "text_rate"):
            setattr(other, name, changes.pop(name, getattr(self, name)))
        other._take(changes.pop("prompt", self.prompt), changes.pop("holes", self.holes))
        if changes:
            raise ValueError(f"{', '.join(changes)} cannot change, expected one of: {', '.join(self.variants)}.")
        return other

    def slots(self) -> list[tuple[dict, str, object]]:
        """What else the model must hold while this task's weights are in it: rank and scale."""
        return [slot for model in self.models for slot in rank_slots(model, self.rank, self.lora_alpha)]

    def carry_over(self, weights: dict, moments: dict, parent: "LoraTask") -> tuple[dict, dict, str | None]:
        """A parent's weights and moments in this task's rank and scale, and a sentence on what became of them."""
        ratio = (parent.lora_alpha / parent.rank) / (self.lora_alpha / self.rank) if self.lora_alpha else 1.0
        if self.rank == parent.rank and ratio == 1:
            return weights, moments, None
        new, lost, whole = {}, 0.0, 0.0
        names = [name for name in weights if ".lora_A." in name]
        for index, name in enumerate(names):
            partner = name.replace(".lora_A.", ".lora_B.")
            b, a = weights[partner], weights[name]
            rng = generator(self.seed, 6, self.rank, index)
            new[partner], new[name], error = resize_factors(b, a, self.rank, rng)
            new[partner] = new[partner] * ratio
            size = product_norm(b, a)
            lost, whole = lost + (error * size) ** 2, whole + size**2
        new = {name: new.get(name, weights[name]) for name in weights}  # what is no LoRA stays
        kept = f"rank {parent.rank} -> {self.rank}"
        if self.rank < parent.rank:
            error = math.sqrt(lost / whole) if whole else 0.0
            kept += (
                f": the update is cut to its {self.rank} largest directions (SVD), which loses {error:.2%} of its norm"
            )
        else:
            kept += ": the update is carried over as it is"
        if self.rank >= parent.rank and ratio == 1:
            return new, {n: _padded(moments[n], new[n]) for n in moments}, kept + ", with its moments."
        return new, {}, kept + "; the optimiser's moments begin anew."

    # To look at

    @torch.no_grad()
    def validate(self):
        """The loss on the pictures themselves at 8 fixed noise levels, with fixed holes."""
        levels, device = self.objective.scheduler.config.num_train_timesteps, self.pipe.unet.device
        errors = []
        for level in range(8):
            batch = self.batch([[self.seed, level, item] for item in range(len(self.shown))])
            batch["t"] = torch.full_like(batch["t"], levels * level // 8 + levels // 16)
            batch = {name: value.to(device) for name, value in batch.items()}
            errors.append(self.objective(batch)["loss"].item())
        return {"error": float(np.mean(errors))}

    @property
    def shown(self) -> list[int]:
        """Which of the pictures are sampled to be looked at."""
        return list(range(len(self.images)))

    @torch.no_grad()
    def samples(self, steps: int = STEPS, guidance_scale: float = 1.0) -> torch.Tensor:
        """The pictures, or as many of the prompt, by the pipeline as it is: (N, 3, H, W); same seeds, same holes."""
        size = dict(zip(("height", "width"), self.images.shape[-2:], strict=True))
        prompts = [self.captions[row] for row in self.shown]
        given = {"prompt": prompts, "num_inference_steps": steps, "guidance_scale": guidance_scale, **size}
        if self.pipe.unet.config.in_channels == 9:
            given |= given_to(self.pipe, self.images[self.shown], self._shown_holes())
        seeds = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
        shown = self.pipe._progress_bar_config if hasattr(self.pipe, "_progress_bar_config") else {}
        self.pipe.set_progress_bar_config(disable=True)
        try:
            return self.pipe(**given, **self._start(seeds), generator=seeds, output_type="pt").images.float().cpu()
        finally:
            self.pipe.set_progress_bar_config(**shown)

    def _start(self, seeds: list[torch.Generator]) -> dict[str, torch.Tensor]:
        """What sampling begins with: {"latents": (N, 4, h, w)}, or nothing for the pipeline's own noise."""
        return {}

    def _shown_holes(self) -> torch.Tensor:
        """A box in each picture, always the same, or what is not known of it: (N, 1, H, W)."""
        size = tuple(self.images.shape[-2:])
        boxes = torch.cat([_box(generator(7, i), size) for i in range(len(self.shown))])
        if self.holes is None:
            return boxes
        holes = self.holes[self.shown]
        unknown = holes.flatten(1).any(1).view(-1, 1, 1, 1)  # (N, 1, 1, 1)
        return torch.where(unknown, holes, boxes)

    def sheet(self):
        """Samples; for inpainting with what is given above and the truth below."""
        rows = [self.samples()]
        if self.pipe.unet.config.in_channels == 9:
            truth = self.images[self.shown]
            shown = masked_image(truth, self._shown_holes(), shown_by(self.pipe.unet))
            rows = [(shown + 1) / 2, *rows, truth]
        return tiled(rows)

    def export(self, folder, trained):
        """Writes ``lora.safetensors`` with a card beside it."""
        file = save_lora(self.pipe, Path(folder) / "lora.safetensors")
        (file.parent / "README.md").write_text(f"# {self.name}\n\n{self.about}\n\nTrained: {trained}\n")
        return file.parent


def _padded(moments: dict, like: torch.Tensor) -> dict:
    """An optimiser's moments for a factor that grew: 0 for what is new."""
    padded = {}
    for name, value in moments.items():
        if value.ndim == 0:  # the count of steps
            padded[name] = value
            continue
        padded[name] = value.new_zeros(like.shape)
        padded[name][tuple(slice(n) for n in value.shape)] = value
    return padded


def _factor(pipe) -> int:
    """Pixels a latent cell covers, of a pipeline of the right kind."""
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    missing = [name for name in parts if getattr(pipe, name, None) is None]
    if missing or getattr(pipe, "text_encoder_2", None) is not None:
        wrong = f"without {', '.join(missing)}" if missing else "with two text encoders"
        raise ValueError(
            f"pipe is a {type(pipe).__name__} {wrong}, "
            "expected a Stable Diffusion 1 or 2 pipeline: unet, vae, text_encoder, tokenizer, scheduler."
        )
    channels, kind = pipe.unet.config.in_channels, pipe.scheduler.config.prediction_type
    if channels not in (4, 9):
        raise ValueError(f"the pipeline's U-Net takes {channels} channels, expected 9 (inpainting) or 4.")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"the pipeline's scheduler predicts {kind!r}, expected 'epsilon' or 'v_prediction'.")
    return 2 ** (len(pipe.vae.config.block_out_channels) - 1)
