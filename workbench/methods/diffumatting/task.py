"""What DiffuMatting learns: to paint on pure green, and to tell the matte of what it paints."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from workbench import check, metrics
from workbench.diffusion.export import finish, save_half
from workbench.diffusion.lora import ADAPTER, save_lora
from workbench.diffusion.lora_objective import LoraDenoising, draw_dropout
from workbench.diffusion.lora_task import LoraTask
from workbench.diffusion.prediction import denoised
from workbench.diffusion.training import tiled
from workbench.diffusion.training_data import gaussian, generator
from workbench.image import to_signed
from workbench.methods.diffumatting import losses
from workbench.methods.diffumatting.attention import WordAttention, green_columns
from workbench.methods.diffumatting.data import Example, Mattes, on_green, squared
from workbench.methods.diffumatting.evaluation import background_delta_e
from workbench.methods.diffumatting.networks import MattingHead, decode_features, make_head

RANK = 16
"""Of the bundled LoRA: 1.5 MiB on tiny-t2i, whose U-Net takes 8."""
TERMS = ("green", "background", "detail", "matting")
"""The losses beside the denoising one."""
WEIGHTS = {"green_weight": 1.0, "background_weight": 0.0, "detail_weight": 10.0, "matting_weight": 0.1}
"""Ours; the paper's summary only says that the terms are added, and knows no background term. Measured on a tiny-t2i
that said the noise, before any training, the gradients on the LoRA have norms of 0.086 (denoising), 0.0067 (green),
0.0006 (detail) and 0.078 (matting): so weighed none of the three is as loud as the denoising."""
SHOWN = 6
"""Held-out things on a sheet."""
LORA, HEAD, CANVAS, ABOUT = "lora.safetensors", "head", "canvas.safetensors", "diffumatting.json"
"""Names in an exported folder."""


def on_canvas(noise: torch.Tensor, canvas: torch.Tensor, scheduler) -> torch.Tensor:
    """Noise as training knows it at its last timestep T, where a little of the picture still shines through.

    z_T = eps + sqrt(abar_T / (1 - abar_T)) canvas. Stable Diffusion's schedule leaves 7 % of a picture's amplitude at
    T: too little for a thing, but over all places of a flat green screen, whose latents are far from 0, much more than
    chance. A sampler that begins with plain noise says that there is no such screen, and gets a tired one.

    Args:
        noise: standard normal, (B, C, h, w).
        canvas: the mean latent of what was learnt, (1, C, h', w'), scaled; another size is resized.
        scheduler: of the pipeline, with ``alphas_cumprod``.

    Returns:
        (B, C, h, w), to be given to a pipeline as ``latents``.

    Source: ours; of what schedules leave: Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed",
    WACV 2024. `shift_colour_noise` does likewise by hand.
    """
    abar = float(scheduler.alphas_cumprod[-1])
    fitted = functional.interpolate(canvas.to(noise), noise.shape[-2:], mode="bilinear", align_corners=False)
    return noise + (abar / (1 - abar)) ** 0.5 * fitted


class Painting(LoraDenoising):
    """The denoiser with all of DiffuMatting's losses, and the matting head; the autoencoder stands still.

    loss = denoising + w_g green + w_b background + w_d detail + w_m matting, the weights w with the batch. Background
    looks at the one-step estimate z0^, detail and matting at what the frozen decoder shows of it. At high noise it is a
    guess, so an item counts abar in these three.

    Args:
        pipe: whose unet, text_encoder, vae and scheduler are used.
        head: learns with the LoRA.
        scheduler: DDPM with the pipeline's schedule.
        decode_every: only one item in so many is decoded for detail and matting, which cost the most.
        snr_gamma: as in `LoraDenoising`.

    Source: DiffuMatting (Hu et al., ECCV 2024). Differs: a LoRA learns where the paper trains the whole U-Net; items
        count abar in detail and matting, of which the paper's summary says nothing; background is ours.
    """

    def __init__(self, pipe, head: MattingHead, scheduler, decode_every: int = 1, snr_gamma: float | None = None):
        super().__init__(pipe.unet, pipe.text_encoder, scheduler, snr_gamma)
        self.vae, self.head = pipe.vae, head
        self.decode_every = check.integer(decode_every, "decode_every", 1)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for what `DiffuMattingTask.batch` gives; "per_sample" and "per_cell" are of the denoising alone."""
        with WordAttention(self.unet, batch["green"]) as heard:
            noised, predicted = self.predict(batch)
        told = self.losses(batch, predicted)
        terms = {"denoising": told["loss"]}
        terms["green"] = losses.green_control(heard.maps, batch["alpha"], batch["green"].amax(1))
        signal = self.scheduler.alphas_cumprod.to(batch["t"].device)[batch["t"]].float()  # (B,)
        estimate = denoised(self.scheduler, noised, predicted, batch["t"])  # (B, 4, h, w)
        terms["background"] = losses.background(estimate, batch["latents"], batch["alpha"], signal)
        rows = slice(None, None, self.decode_every)
        image, features = decode_features(self.vae, estimate[rows])
        alpha = batch["alpha"][rows]
        terms["detail"] = losses.boundary_detail(image, batch["image"][rows], alpha, signal[rows])
        terms["matting"] = losses.matting(self.head(features), alpha, signal[rows])
        loss = losses.total(terms, {name: batch[f"{name}_weight"].mean() for name in TERMS})
        return {**told, **terms, "loss": loss}


class DiffuMattingTask(LoraTask):
    """DiffuMatting's training: generation first, then generation and matting jointly.

    Also for a `wb.TrainingRun`, where a branch may change the weights: `variants`. A weight of 0 is the ablation.

    Args:
        pipe: a text-to-image pipeline of 4 channels; it gets the LoRA.
        examples: things on green with alpha and caption, of one size. `load_examples` makes them.
        held: examples that are never learnt from: measured, and shown.
        joint_from: the update from which the matting loss counts; 0: from the start.
        green_weight, background_weight, detail_weight, matting_weight: of the four terms.
        decode_every: see `Painting`.
        hidden: of the matting head.
        rank, lora_alpha, seed, **options: of `LoraTask`, such as prompt_dropout, lora_dropout, snr_gamma.

    Raises:
        ValueError: no examples, sizes that the pipeline cannot paint, no caption that names the green background, or a
            pipeline of another kind.

    Source: DiffuMatting (Hu et al., ECCV 2024).

    Example:
        >>> task = DiffuMattingTask(wb.load_pipeline("tiny-t2i"), load_examples(SpriteMattes(["out/sprites"])))
        >>> wb.TrainingRun(task, learning_rate=5e-4, batch_size=8).run(100)
    """

    name = "tiny-diffumatting"
    variants = (
        "rank", "lora_alpha", "prompt", "prompt_dropout", "lora_dropout", "text_rate", "joint_from", *WEIGHTS,
    )  # fmt: skip
    base = "tiny-t2i"
    """What the exported LoRA is put into."""
    decoder: str | None = None
    """Name or folder of the decoder's last stage that the pipeline got, see `decoding`; None: its own."""

    def __init__(
        self,
        pipe,
        examples: Sequence[Example],
        held: Sequence[Example] = (),
        *,
        joint_from: int = 0,
        green_weight: float = WEIGHTS["green_weight"],
        background_weight: float = WEIGHTS["background_weight"],
        detail_weight: float = WEIGHTS["detail_weight"],
        matting_weight: float = WEIGHTS["matting_weight"],
        decode_every: int = 1,
        hidden: int = 32,
        rank: int = RANK,
        seed: int = 0,
        snr_gamma: float | None = None,
        **options,
    ):
        everything = [*examples, *held]
        self.learnt = len(_of_one_size(examples, everything))
        if getattr(pipe, "unet", None) is not None and pipe.unet.config.in_channels != 4:
            raise ValueError(
                f"the pipeline's U-Net takes {pipe.unet.config.in_channels} channels, expected 4: text to image."
            )
        if getattr(pipe.unet, "is_gradient_checkpointing", False):
            raise ValueError(
                "the U-Net computes activations twice, expected not: attention cannot be listened to then. Call "
                "pipe.unet.disable_gradient_checkpointing()."
            )
        self.joint_from = joint_from
        self.green_weight, self.background_weight = green_weight, background_weight
        self.detail_weight, self.matting_weight = detail_weight, matting_weight
        self.alpha = torch.cat([example.alpha for example in everything])  # (N, 1, H, W)
        self.head, self.hidden = make_head(pipe.vae, check.integer(hidden, "hidden", 1), check.seed(seed)), hidden
        self.head.to(pipe.unet.device)
        super().__init__(
            pipe, torch.cat([example.image for example in everything]), [example.caption for example in everything],
            rank=rank, seed=seed, snr_gamma=snr_gamma, **options,
        )  # fmt: skip
        self.objective = Painting(pipe, self.head, self.objective.scheduler, decode_every, snr_gamma)
        self.about = (
            f"DiffuMatting: a LoRA of rank {self.rank} for {self.base} and a matting head, learnt from {self.learnt} "
            "things on pure green. On held-out things: error is the squared error of what the U-Net says, green the "
            "control loss, alpha_mse (times 1000) the coarse matte of their own latents; green_delta_e the background "
            f"of {SHOWN} samples against pure green."
        )

    def _take(self, prompt, holes) -> None:
        """Checks what is given with the pictures."""
        super()._take(prompt, holes)
        self.green = green_columns(self.pipe.tokenizer, self.captions)  # (N, L)
        if not self.green[: self.learnt].any():
            raise ValueError('no caption names a "green background", expected it in those that are learnt from.')
        check.integer(self.joint_from, "joint_from", 0)
        for name in WEIGHTS:
            check.number(getattr(self, name), name, 0)

    def variant(self, **changes) -> "DiffuMattingTask":
        """The same task on the same model with some of `variants` changed."""
        unknown = sorted(set(changes) - set(self.variants))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} cannot change, expected one of: {', '.join(self.variants)}.")
        own = {name: changes.pop(name) for name in ("joint_from", *WEIGHTS) if name in changes}
        other = super().variant(**changes)
        vars(other).update(own)
        other._take(other.prompt, other.holes)  # checks them
        other._encoded = self._encoded
        return other

    # What a run asks for

    @torch.no_grad()
    def batch(self, numbers):
        """latents, noise (B, 4, h, w), t (B,), ids, green (B, L), image, alpha (B, 3 | 1, H, W), and the weights."""
        rngs = [generator(*number) for number in numbers]
        rows = [int(rng.integers(self.learnt)) for rng in rngs]
        weights = {name: getattr(self, name) for name in WEIGHTS}
        if numbers[0][1] < self.joint_from:
            weights["matting_weight"] = 0.0
        return {**self._items(rows, rngs), **{name: torch.tensor(float(value)) for name, value in weights.items()}}

    def _items(self, rows: list[int], rngs) -> dict[str, torch.Tensor]:
        """Items of a batch for pictures by number."""
        levels = self.objective.scheduler.config.num_train_timesteps
        latents = self._drawn([part[rows] for part in self._moments()], rngs)
        named = torch.tensor([float(rng.random() >= self.prompt_dropout) for rng in rngs])[:, None]  # (B, 1)
        items = {
            "latents": latents,
            "t": torch.tensor([int(rng.integers(levels)) for rng in rngs]),
            "ids": torch.where(named > 0, self.ids[rows], self.empty),
            "green": self.green[rows] * named,
            "known": torch.ones_like(latents[:, :1]),
            "image": self.images[rows],
            "alpha": self.alpha[rows],
            "noise": torch.stack([gaussian(rng, latents.shape[1:]) for rng in rngs]),
        }
        if self.lora_dropout:
            items |= draw_dropout(rngs, self.lora_dropout, self.dropout_of, len(self.objective.dropouts))
        return items

    def begin(self) -> None:
        """Puts the untrained LoRA and the untrained head into the model, in parameters of their own."""
        super().begin()
        fresh = make_head(self.pipe.vae, self.hidden, self.seed).to(self.pipe.unet.device)
        for module, other in zip(self.head.modules(), fresh.modules(), strict=True):
            for key, value in other._parameters.items():
                module._parameters[key] = value

    @torch.no_grad()
    def start_from(self, folder) -> None:
        """Puts the LoRA and the head of an exported folder into the model, for a `Trainer` that goes on from there.

        Raises:
            ValueError: they have another rank, other layers, or a head of another size.
        """
        folder = Path(folder)
        stored = {**load_file(folder / LORA), **load_file(folder / HEAD / "diffusion_pytorch_model.safetensors")}
        here = dict(self.head.named_parameters())
        for part in ("unet", "text_encoder"):
            for name, p in getattr(self.pipe, part).named_parameters():
                if f".{ADAPTER}." in name:
                    here[f"{part}.{name.replace(f'.{ADAPTER}', '')}"] = p
        if {k: v.shape for k, v in stored.items()} != {k: p.shape for k, p in here.items()}:
            raise ValueError(f"{folder} has other weights than this task, expected the same rank, layers and head.")
        for name, p in here.items():
            p.copy_(stored[name])

    # To look at

    def canvas(self) -> torch.Tensor:
        """The mean latent of what is learnt, (1, 4, h, w): what painting begins on, see `on_canvas`."""
        return self._moments()[0][: self.learnt].mean(0, keepdim=True)

    def _start(self, seeds):
        canvas, unet = self.canvas(), self.pipe.unet
        noise = torch.cat([torch.randn(canvas.shape, generator=seed) for seed in seeds])
        return {"latents": on_canvas(noise, canvas, self.pipe.scheduler).to(unet.device, unet.dtype)}

    @property
    def shown(self) -> list[int]:
        """Held-out things, or the first ones where none are held out."""
        held = range(self.learnt, len(self.images))
        return list(held or range(self.learnt))[:SHOWN]

    @torch.no_grad()
    def validate(self):
        """On held-out things at 8 noise levels: error and green; the coarse matte; the green of samples."""
        rows = list(range(self.learnt, len(self.images))) or list(range(self.learnt))
        rows = rows[:: max(1, len(rows) // 24)][:24]
        levels, device = self.objective.scheduler.config.num_train_timesteps, self.pipe.unet.device
        sums = {"error": 0.0, "green": 0.0}
        for level in range(8):
            items = self._items(rows, [generator(self.seed, 9, level, row) for row in rows])
            items["t"] = torch.full_like(items["t"], levels * level // 8 + levels // 16)
            items["ids"], items["green"] = self.ids[rows], self.green[rows]
            items = {name: value.to(device) for name, value in items.items()}
            with WordAttention(self.pipe.unet, items["green"]) as heard:
                _, predicted = self.objective.predict(items)
            sums["error"] += self.objective.losses(items, predicted)["loss"].item() / 8
            sums["green"] += losses.green_control(heard.maps, items["alpha"], items["green"].amax(1)).item() / 8
        sums["alpha_mse"] = 1000 * metrics.matting_mse(self.coarse(rows), self.alpha[rows]).mean().item()
        samples = self.samples()
        delta_e = background_delta_e(samples, self._coarse_of(samples))
        return sums | {"green_delta_e": float(np.mean([each.mean for each in delta_e]))}

    @torch.no_grad()
    def coarse(self, rows: list[int]) -> torch.Tensor:
        """The head's mattes of the training pictures' own latents, (N, 1, H, W)."""
        return torch.cat([self._coarse_of(self.images[part]) for part in torch.tensor(rows).split(4)])

    @torch.no_grad()
    def _coarse_of(self, images: torch.Tensor) -> torch.Tensor:
        latents = self._encode(to_signed(images))[0].to(self.pipe.vae.device)
        return self.head(decode_features(self.pipe.vae, latents)[1]).cpu()

    def sheet(self):
        """Samples of held-out captions and their coarse mattes; below the things themselves with theirs."""
        samples, truth = self.samples(), self.images[self.shown]
        mattes = [self._coarse_of(x).expand(-1, 3, -1, -1) for x in (samples, truth)]
        return tiled([samples, mattes[0], truth, mattes[1]])

    def export(self, folder, trained):
        """Writes ``lora.safetensors``, ``head/`` and ``canvas.safetensors`` in float16, and what they belong to."""
        folder = Path(folder)
        file = save_lora(self.pipe, folder / LORA)
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        save_file({name: value.half() for name, value in load_file(file).items()}, file, metadata)
        save_half(self.head, folder / HEAD)
        save_file({"canvas": self.canvas().half()}, folder / CANVAS)
        (folder / ABOUT).write_text(json.dumps({"base": self.base, "decoder": self.decoder}, indent=1) + "\n")
        return finish(folder, self.name, self.about, trained, self.validate())


def load_examples(mattes: Mattes, count: int | None = None, side: int | None = None, mirrored: bool = True):
    """Things on pure green, square, as `DiffuMattingTask` takes them.

    Args:
        mattes: their source.
        count: the first so many; None: all.
        side: in pixels; None takes the bundled models' size.
        mirrored: each also mirrored.
    """
    count = len(mattes) if count is None else check.integer(count, "count", 1, len(mattes))
    found = []
    for index in range(count):
        example = on_green(squared(mattes[index], *([] if side is None else [side])))
        found.append(example)
        if mirrored:
            found.append(Example(*(x.flip(-1) for x in example[:3]), example.caption))
    return found


def _of_one_size(examples: Sequence[Example], everything: Sequence[Example]) -> Sequence[Example]:
    """The examples, which are some and, with all others, of one size."""
    if not len(examples):
        raise ValueError("examples is empty, expected at least one thing on green.")
    sizes = sorted({tuple(x.shape[-2:]) for example in everything for x in example[:2]})
    if len(sizes) > 1:
        raise ValueError(
            f"examples have the sizes {', '.join(map(str, sizes))} (H, W), expected one. See load_examples."
        )
    for example in everything:
        check.image(example.image), check.alpha(example.alpha)
    return examples
