"""LoRA: fine-tuning by small additions of low rank, and the task that teaches a pipeline a few pictures with them.

W' = W + s B A,  s = lora_alpha / rank,  A (rank, in), B (out, rank), B = 0 at first: nothing is changed at first.
A convolution's A holds the kernel (rank, in, kh, kw) and its B is 1 x 1, which is the same product over flattened A.
"""

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import nn

from workbench import check
from workbench import mask as masks
from workbench.diffusion.latents import masked_image
from workbench.diffusion.libraries import DDPMScheduler, quiet
from workbench.diffusion.tokenizer import token_ids
from workbench.diffusion.training import Task, tiled
from workbench.diffusion.training_data import gaussian, generator, training_mask

ADAPTER = "default"
"""peft's name for the additions; there is one set of them in a model."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_TARGETS = (
    *ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "conv",
)  # fmt: skip
"""Layers of a U-Net that get an addition, by the end of their names. With the attention alone a model as small as the
bundled ones learns half as much of a scene (DESIGN.md)."""
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
PROMPT_DROPOUT = 0.1
"""Share of items that learn with the empty prompt, as in RealFill."""
STEPS = 20


# Putting LoRA into a model, measuring it, taking it out


def add_lora(
    model: nn.Module,
    rank: int = 8,
    lora_alpha: float | None = None,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Puts a LoRA into a U-Net or a text encoder and freezes everything else. What the model gives stays the same.

    Args:
        model: of diffusers or transformers.
        rank: r of each addition.
        lora_alpha: s = lora_alpha / rank scales it; None takes the rank, s = 1.
        targets: ends of the names of the layers; None takes `UNET_TARGETS` or `TEXT_TARGETS`.
        seed: of A, uniform in +-1 / sqrt(fan in).

    Returns:
        The names of the layers.

    Raises:
        ValueError: it has a LoRA already, no layer has such a name, or a rank below 1.

    Source: Hu et al., ICLR 2022; for convolutions as in peft.

    Example:
        >>> add_lora(pipe.unet, rank=4)[0]
        'down_blocks.0.resnets.0.conv1'
    """
    check.integer(rank, "rank", 1)
    alpha = check.number(rank if lora_alpha is None else lora_alpha, "lora_alpha", 0)
    if lora_layers(model):
        raise ValueError("the model has a LoRA already. Take it out with remove_lora(model) first.")
    ends = list(targets or (UNET_TARGETS if hasattr(model, "down_blocks") else TEXT_TARGETS))
    found = [n for n, _ in model.named_modules() if any(n == end or n.endswith(f".{end}") for end in ends)]
    if not found:
        raise ValueError(f"no layer's name ends with {', '.join(ends)}, expected at least one in targets.")
    training = model.training
    with quiet(), torch.random.fork_rng(devices=[]):  # peft fills A from the global generator; it is filled anew below
        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=ends), adapter_name=ADAPTER)
    model.train(training)
    fill_lora(model, rank, alpha, seed)
    return list(lora_layers(model))


def remove_lora(model: nn.Module) -> None:
    """Takes the LoRA out: the model is as it was before. Nothing happens to one without."""
    for name, layer in lora_layers(model).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    model._hf_peft_config_loaded = False
    model.__dict__.pop("peft_config", None)


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The layers with an addition, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer) and ADAPTER in m.lora_A}


def lora_update(model: nn.Module) -> dict[str, float]:
    """How far each layer is from what it was: ||s B A||, the Frobenius norm, by name.

    Example:
        >>> add_lora(pipe.unet); max(lora_update(pipe.unet).values())
        0.0
    """
    layers = lora_layers(model)
    factors = {
        name: (m.lora_B[ADAPTER].weight.detach(), m.lora_A[ADAPTER].weight.detach()) for name, m in layers.items()
    }
    return {name: abs(layers[name].scaling[ADAPTER]) * product_norm(b, a) for name, (b, a) in factors.items()}


def product_norm(b: torch.Tensor, a: torch.Tensor) -> float:
    """||B A|| without making the product: tr(B'B AA')^0.5, in double precision.

    Args:
        b: (out, r) or (out, r, 1, 1).
        a: (r, in) or (r, in, kh, kw).
    """
    b, a = b.flatten(1).double(), a.flatten(1).double()  # (out, r), (r, n)
    return math.sqrt(max(0.0, ((b.T @ b) * (a @ a.T)).sum().item()))


def fill_lora(model: nn.Module, rank: int, lora_alpha: float, seed: int) -> None:
    """Gives all additions fresh weights of a rank, in parameters of their own; those there before are left alone."""
    for mapping, key, value in rank_slots(model, rank, lora_alpha):
        mapping[key] = value
    for index, layer in enumerate(lora_layers(model).values()):
        down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        a = _fresh(down.weight, rank, generator(check.seed(seed), 5, index))
        b = up.weight.new_zeros(up.weight.shape[0], rank, *up.weight.shape[2:])
        down.weight, up.weight = nn.Parameter(a), nn.Parameter(b)


def rank_slots(model: nn.Module, rank: int, lora_alpha: float) -> list[tuple[dict, str, object]]:
    """Where peft keeps rank and scale, and what stands there at this rank: (mapping, key, value)."""
    slots = []
    for layer in lora_layers(model).values():
        slots += [(layer.r, ADAPTER, rank), (layer.lora_alpha, ADAPTER, lora_alpha)]
        slots += [(layer.scaling, ADAPTER, lora_alpha / rank)]
        conv = isinstance(layer.lora_A[ADAPTER], nn.Conv2d)
        ends = ("out_channels", "in_channels") if conv else ("out_features", "in_features")
        slots += [(layer.lora_A[ADAPTER].__dict__, ends[0], rank), (layer.lora_B[ADAPTER].__dict__, ends[1], rank)]
    config = model.peft_config[ADAPTER].__dict__
    return [*slots, (config, "r", rank), (config, "lora_alpha", lora_alpha)]


def _fresh(like: torch.Tensor, rank: int, rng: np.random.Generator) -> torch.Tensor:
    """An A as peft begins with (kaiming uniform, a = sqrt 5), of ``rank`` rows."""
    shape = (rank, *like.shape[1:])
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32)).to(like)


# Another rank


def resize_factors(
    b: torch.Tensor, a: torch.Tensor, rank: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The same B A in factors of another rank: exact if it grows, the best approximation if it shrinks.

    Args:
        b, a: (out, r, ...) and (r, in, ...).
        rank: of the new factors. New rows of A are drawn from ``rng``, new columns of B are 0.
        rng: for the new rows.

    Returns:
        B, A, and the relative error ||B A - old|| / ||old||.

    Source: Eckart and Young, 1936: cutting the singular value decomposition off is the best in the Frobenius norm.
    """
    before = a.shape[0]
    if rank >= before:
        rows = torch.cat([a, _fresh(a, rank, rng)[before:]])
        columns = torch.cat([b, b.new_zeros(b.shape[0], rank - before, *b.shape[2:])], 1)
        return columns, rows, 0.0
    q_b, r_b = torch.linalg.qr(b.flatten(1).double())  # (out, k), (k, r)
    q_a, r_a = torch.linalg.qr(a.flatten(1).double().T)  # (n, m), (m, r)
    u, values, v = torch.linalg.svd(r_b @ r_a.T)  # (k, k), (min,), (m, m)
    root = values[:rank].sqrt()
    kept = len(root)  # fewer than the rank in a layer narrower than it
    new_b, new_a = b.new_zeros(b.shape[0], rank), a.new_zeros(rank, a[0].numel())
    new_b[:, :kept], new_a[:kept] = (q_b @ u[:, :kept] * root).to(b), (root[:, None] * (v[:kept] @ q_a.T)).to(a)
    lost = (values[rank:].square().sum() / values.square().sum().clamp(min=1e-300)).sqrt().item()
    return new_b.reshape(-1, rank, *b.shape[2:]), new_a.reshape(rank, *a.shape[1:]), lost


# Files


def save_lora(pipe, file) -> Path:
    """Writes the LoRA of a pipeline's U-Net (and text encoder, if it has one) as diffusers and others read it.

    Args:
        pipe: with a LoRA from `add_lora`.
        file: ends in .safetensors; ``pipe.load_lora_weights(file)`` reads it, scale included.

    Raises:
        ValueError: another ending, or a pipeline without a LoRA.
    """
    file = Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(f"file is {file.name!r}, expected a name that ends in .safetensors.")
    parts = {name: getattr(pipe, name) for name in ("unet", "text_encoder") if lora_layers(getattr(pipe, name))}
    if not parts:
        raise ValueError("the pipeline has no LoRA, expected one from add_lora(pipe.unet).")
    given = {}
    for name, model in parts.items():
        state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
        given[f"{name}_lora_layers"] = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        given[f"{name}_lora_adapter_metadata"] = json.loads(
            json.dumps(model.peft_config[ADAPTER].to_dict(), default=list)
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    pipe.save_lora_weights(file.parent, **given, weight_name=file.name, safe_serialization=True)
    return file


def load_lora(pipe, file) -> None:
    """Puts the LoRA of a file into a pipeline, in place of one that is there.

    Raises:
        ValueError: the file is not there, cut short, or holds no LoRA for this pipeline.
    """
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not readable as safetensors: {error}. Save it again with save_lora.") from None
    if not any(".lora_B." in name or ".lora.up." in name or "lora_up" in name for name in names):
        raise ValueError(f"{file} holds no LoRA, expected tensors such as unet.....lora_B.weight.")
    for model in (pipe.unet, pipe.text_encoder):
        remove_lora(model)
    with quiet():
        try:
            pipe.load_lora_weights(Path(file).parent, weight_name=Path(file).name, adapter_name=ADAPTER)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(f"{file} does not fit this pipeline: {error}") from error


# The task


class LoraDenoising(nn.Module):
    """A frozen pipeline's denoiser with the loss that its LoRA learns by.

    loss = mean v |eps - eps_theta(z_t, t, c)|^2, v = 0 where the picture is not known. (v-prediction: its target.)

    Args:
        unet, text_encoder: of the pipeline; what has no LoRA is frozen.
        scheduler: DDPM with the pipeline's noise schedule.
    """

    def __init__(self, unet: nn.Module, text_encoder: nn.Module, scheduler: DDPMScheduler):
        super().__init__()
        self.unet, self.text_encoder, self.scheduler = unet, text_encoder, scheduler

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for what `LoraTask.batch` gives; "per_sample" (B,) and "per_cell" (B, h, w) have the loss as mean."""
        latents, noise, t = batch["latents"], batch["noise"], batch["t"]
        given = self.scheduler.add_noise(latents, noise, t)  # (B, 4, h, w)
        if "mask" in batch:
            given = torch.cat([given, batch["mask"], batch["masked"]], 1)  # (B, 9, h, w)
        learns = any(p.requires_grad for p in self.text_encoder.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            states = self.text_encoder(batch["ids"])[0]  # (B, L, C)
        predicted = self.unet(given.to(self.unet.dtype), t, states.to(self.unet.dtype)).sample.float()  # (B, 4, h, w)
        v = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, t) if v else noise
        cells = (predicted - target).square().mean(1) * batch["known"][:, 0]  # (B, h, w)
        return {"loss": cells.mean(), "per_sample": cells.detach().mean((1, 2)), "per_cell": cells.detach()}


def _box(rng: np.random.Generator, size: tuple[int, int]) -> torch.Tensor:
    """One box, a quarter to three quarters of each side."""
    (h, w), (height, width) = (max(1, int(n * rng.uniform(0.25, 0.75))) for n in size), size
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return masks.box(size, (x, y, x + w, y + h))


MASK_POLICIES: dict[str, Callable] = {
    "random": training_mask,
    "box": _box,
    "none": lambda rng, size: torch.ones(1, 1, *size),
}
"""Holes to learn with, by name: function(rng, size) -> (1, 1, H, W). "random": strokes, rectangles, boxes, sometimes
everything; "box": one box; "none": nothing is known, the whole picture is hole."""


class LoraTask(Task):
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
        prompt_dropout: share of items with the empty prompt.

    Raises:
        ValueError: shapes, ranges, or a pipeline of another kind.

    Source: RealFill (Tang et al., SIGGRAPH 2024), section 4.1; differs in that convolutions get a LoRA as well.

    Example:
        >>> task = LoraTask(load_pipeline("tiny-inpaint"), views, "a photo of sks")
        >>> TrainingRun(task, learning_rate=1e-3).step().loss
        0.0712
    """

    name = "lora"
    variants = ("mask_policy", "rank", "lora_alpha", "prompt", "holes", "prompt_dropout")
    """What a branch may change."""

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
        prompt_dropout: float = PROMPT_DROPOUT,
        seed: int = 0,
    ):
        self.pipe, self.factor = pipe, _factor(pipe)
        self.rank, self.seed = check.integer(rank, "rank", 1), check.seed(seed)
        self.lora_alpha = check.number(rank if lora_alpha is None else lora_alpha, "lora_alpha", 0)
        self.images = self._fitting(check.image(images, "images")).detach().cpu()  # (N, 3, H, W)
        self.mask_policy, self.prompt_dropout = mask_policy, prompt_dropout
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
        self.objective = LoraDenoising(pipe.unet, pipe.text_encoder, scheduler)
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
        self.ids = token_ids(self.pipe.tokenizer, captions)  # (N, L)
        self.empty = token_ids(self.pipe.tokenizer, [""])[0]  # (L,)

    # What a run asks for

    @torch.no_grad()
    def batch(self, numbers):
        """latents, noise (B, 4, h, w), t (B,), ids (B, L), known (B, 1, h, w); with 9 channels mask and masked too."""
        rngs = [generator(*number) for number in numbers]
        rows = [int(rng.integers(len(self.images))) for rng in rngs]
        levels = self.objective.scheduler.config.num_train_timesteps
        holes = torch.zeros_like(self.images[:1, :1]) if self.holes is None else self.holes
        unknown = torch.cat([holes[row % len(holes)][None] for row in rows])  # (B, 1, H, W)
        images = self.images[rows]  # (B, 3, H, W)
        batch = {
            "latents": self._encode(masked_image(images, unknown), rngs),
            "t": torch.tensor([int(rng.integers(levels)) for rng in rngs]),
            "ids": torch.stack([self._ids(row, rng) for row, rng in zip(rows, rngs, strict=True)]),
            "known": 1 - masks.to_latent(unknown, "any", self.factor),
        }
        batch["noise"] = torch.stack([gaussian(rng, batch["latents"].shape[1:]) for rng in rngs])
        if self.pipe.unet.config.in_channels == 9:
            hole = torch.maximum(unknown, torch.cat([self.hole(rng) for rng in rngs]))  # (B, 1, H, W)
            batch["mask"] = masks.to_latent(hole, "nearest", self.factor)
            batch["masked"] = self._encode(masked_image(images, hole), rngs)
        return batch

    def hole(self, rng: np.random.Generator) -> torch.Tensor:
        """A hole to learn with, (1, 1, H, W), by the mask policy."""
        size = tuple(self.images.shape[-2:])
        if callable(self.mask_policy):
            return check.mask(self.mask_policy(rng), self.images[:1], "the mask policy's mask").float()
        return MASK_POLICIES[self.mask_policy](rng, size)

    def _ids(self, row: int, rng: np.random.Generator) -> torch.Tensor:
        return self.empty if rng.random() < self.prompt_dropout else self.ids[row]

    def _encode(self, signed: torch.Tensor, rngs) -> torch.Tensor:
        """Latents of pictures in [-1, 1], drawn from their posteriors as the pipelines do: (B, 4, h, w), on the CPU."""
        vae = self.pipe.vae
        posterior = vae.encode(signed.to(vae.device, vae.dtype)).latent_dist
        mean, std = posterior.mean.float().cpu(), posterior.std.float().cpu()
        noise = torch.stack([gaussian(rng, mean.shape[1:]) for rng in rngs])
        return (mean + std * noise) * vae.config.scaling_factor

    def begin(self) -> None:
        """Puts the task's untrained LoRA into the model, in parameters of its own; always the same weights."""
        for model in self.models:
            fill_lora(model, self.rank, self.lora_alpha, self.seed)

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
        other.prompt_dropout = changes.pop("prompt_dropout", self.prompt_dropout)
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
        new = {name: new[name] for name in weights}
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
            batch = self.batch([[self.seed, level, item] for item in range(len(self.images))])
            batch["t"] = torch.full_like(batch["t"], levels * level // 8 + levels // 16)
            batch = {name: value.to(device) for name, value in batch.items()}
            errors.append(self.objective(batch)["loss"].item())
        return {"error": float(np.mean(errors))}

    @torch.no_grad()
    def samples(self, steps: int = STEPS, guidance_scale: float = 1.0) -> torch.Tensor:
        """The pictures, or as many of the prompt, by the pipeline as it is: (N, 3, H, W); same seeds, same holes."""
        size = dict(zip(("height", "width"), self.images.shape[-2:], strict=True))
        given = {"prompt": self.captions, "num_inference_steps": steps, "guidance_scale": guidance_scale, **size}
        if self.pipe.unet.config.in_channels == 9:
            given |= {"image": self.images, "mask_image": self._shown_holes()}
        seeds = [torch.Generator().manual_seed(i) for i in range(len(self.images))]
        shown = self.pipe._progress_bar_config if hasattr(self.pipe, "_progress_bar_config") else {}
        self.pipe.set_progress_bar_config(disable=True)
        try:
            return self.pipe(**given, generator=seeds, output_type="pt").images.float().cpu()
        finally:
            self.pipe.set_progress_bar_config(**shown)

    def _shown_holes(self) -> torch.Tensor:
        """A box in each picture, always the same, or what is not known of it: (N, 1, H, W)."""
        size = tuple(self.images.shape[-2:])
        boxes = torch.cat([_box(generator(7, i), size) for i in range(len(self.images))])
        if self.holes is None:
            return boxes
        unknown = self.holes.flatten(1).any(1).view(-1, 1, 1, 1)  # (N, 1, 1, 1)
        return torch.where(unknown, self.holes, boxes)

    def sheet(self):
        """Samples; for inpainting with what is given above and the truth below."""
        rows = [self.samples()]
        if self.pipe.unet.config.in_channels == 9:
            rows = [(masked_image(self.images, self._shown_holes()) + 1) / 2, *rows, self.images]
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
