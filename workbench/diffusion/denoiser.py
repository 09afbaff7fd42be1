"""How the denoisers are trained: tiny-t2i from nothing together with its text encoder, tiny-inpaint grown from it.

loss = mean w(t) |y - y_theta(z_t, t, c)|^2,  z_t = a z + s eps,  a = sqrt(abar_t),  s = sqrt(1 - abar_t)

y is the noise eps or v = a eps - s z; w is `prediction.level_weight`: an error of the picture counts clamp(SNR, f, g).
Without f it would count 1/200 in the first steps of sampling, and the colours of the whole would be learnt last.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from workbench import check, metrics
from workbench import mask as masks
from workbench.diffusion.export import finish, save_half
from workbench.diffusion.latents import SMALL, encode_moments, given_to, masked_image, shown_by
from workbench.diffusion.libraries import (
    AutoencoderKL,
    CLIPTextModel,
    CLIPTokenizer,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from workbench.diffusion.models import SIZE, make_scheduler
from workbench.diffusion.prediction import SNR_FLOOR, SNR_GAMMA, level_weight, noise_error, wanted
from workbench.diffusion.tokenizer import save_tokenizer, token_ids
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, gaussian, generator
from workbench.image import to_signed

TEXT_DROPOUT = 0.1
"""Share of items that learn with the empty prompt, as guidance needs."""
TEXT_SHORTENED = 0.5
"""Share of the others whose caption tells less than there is to see, as people's prompts do."""
SMOOTH_SHARE = 0.7
"""Share of items that are shown a smooth surface in the hole; the others grey, as a pipeline's plain call does."""
SHOWN = 6
STEPS = 20
"""Steps of the samples drawn while training."""
LEVELS = 8
"""Noise levels at which the validation loss is measured."""

_SAYS = {"epsilon": "Predicts the noise", "v_prediction": "Predicts v"}
_ABOUT = ", 1000 steps; error is the mean squared error of the noise on unseen views at 8 levels."
_ABOUT_HOLES = (
    f" hole_psnr (dB) is of {SHOWN} samples of {STEPS} steps with guidance 3 in irregular holes of 25 %. Grown from "
    "tiny-t2i: five input channels for the mask (1 = repaint) and the latents of the picture with the hole filled "
    "smoothly (`workbench.diffusion.latents.masked_image`) or, as a plain call of the pipeline shows it, at mid grey."
)


class Denoising(nn.Module):
    """The U-Net, and the text encoder where that learns too, with the loss.

    Args:
        unet: 4 or 9 input channels.
        text_encoder: its states condition the U-Net.
        train_text: whether it learns.
        prediction: what the U-Net says, one of `models.PREDICTIONS`.
        snr_gamma: g of the weight above; None weighs all noise levels alike.
        snr_floor: f of it, 0 to g.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        train_text: bool,
        prediction: str = "epsilon",
        snr_gamma: float | None = SNR_GAMMA,
        snr_floor: float = SNR_FLOOR,
    ):
        super().__init__()
        self.prediction = prediction
        self.unet, self.text_encoder = unet, text_encoder.requires_grad_(train_text)
        self.scheduler = make_scheduler(training=True, prediction=prediction)
        self.snr_gamma = None if snr_gamma is None else check.number(snr_gamma, "snr_gamma", 0)
        self.snr_floor = 0.0 if snr_gamma is None else check.number(snr_floor, "snr_floor", 0, snr_gamma)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for latents, noise (B, 4, h, w), t (B,), ids (B, L); with holes mask (B, 1, h, w) and masked too.

        Beside "loss" and "error", to look at: "per_sample" (B,) and "per_cell" (B, h, w), whose means are the loss.
        """
        latents, noise, t = batch["latents"], batch["noise"], batch["t"]
        given = self.scheduler.add_noise(latents, noise, t)  # (B, 4, h, w)
        if "mask" in batch:
            given = torch.cat([given, batch["mask"], batch["masked"]], 1)  # (B, 9, h, w)
        states = self.text_encoder(batch["ids"]).last_hidden_state  # (B, L, C)
        predicted = self.unet(given, t, states).sample.float()
        square = (predicted - wanted(self.scheduler, latents, noise, t)).square()  # (B, 4, h, w)
        each, weight = square.mean((1, 2, 3)), torch.ones_like(t, dtype=square.dtype)  # (B,)
        if self.snr_gamma is not None:
            weight = level_weight(self.scheduler, t, self.snr_gamma, self.snr_floor)
        looks = {"per_sample": (weight * each).detach(), "per_cell": weight.view(-1, 1, 1) * square.detach().mean(1)}
        return {"loss": (weight * each).mean(), "error": noise_error(self.scheduler, each, t).mean(), **looks}


class DenoiserTask(ModelTask):
    """The training of tiny-t2i (4 input channels) or tiny-inpaint (9).

    Args:
        objective: `Denoising`.
        vae, tokenizer: frozen; they make samples, and are exported along.
        cache: tensors and captions as `latents.read_cache` gives them.
        validation: views of unseen seeds.
        small_steps: updates that learn from pictures of half the side, before all others: each costs a quarter, and
            what a scene looks like as a whole is learnt there.
    """

    def __init__(
        self,
        objective: Denoising,
        vae: AutoencoderKL,
        tokenizer: CLIPTokenizer,
        cache: tuple[dict[str, torch.Tensor], list[str]],
        validation: TrainingPictures,
        small_steps: int = 0,
    ):
        self.small_steps = check.integer(small_steps, "small_steps", 0)
        self.objective, self.vae, self.tokenizer = objective, vae.requires_grad_(False).eval(), tokenizer
        self.tensors, captions = cache
        self.inpainting = objective.unet.config.in_channels == 9
        self.about = _SAYS[objective.prediction] + _ABOUT + (_ABOUT_HOLES if self.inpainting else "")
        if small_steps:
            self.about += f" The first {small_steps} updates learnt from pictures of half the side."
        self.name = "tiny-inpaint" if self.inpainting else "tiny-t2i"
        if self.inpainting != ("mask" in self.tensors):
            raise ValueError(
                f"the U-Net has {objective.unet.config.in_channels} input channels and the latents "
                f"{'have' if 'mask' in self.tensors else 'lack'} holes, expected 9 channels with holes or 4 without."
            )
        self.captions, self.ids = captions, token_ids(tokenizer, captions)  # (N, L)
        self.empty = token_ids(tokenizer, [""])[0]  # (L,)
        self.held = self._held_out(validation)

    def batch(self, numbers):
        """What `Denoising.forward` takes, for these items."""
        items = [self._item(generator(*number), SMALL if number[1] < self.small_steps else "") for number in numbers]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    def _item(self, rng: np.random.Generator, size: str) -> dict[str, torch.Tensor]:
        """One entry of the cache with noise of a random level; ``size`` is the end of its tensors' names."""
        i = int(rng.integers(len(self.ids)))
        shape = self.tensors[f"mean{size}"].shape[1:]  # (4, h, w)
        item = {
            "latents": self._drawn(f"mean{size}", f"std{size}", i, rng),
            "noise": gaussian(rng, shape),
            "t": torch.tensor(int(rng.integers(1000))),
            "ids": self._told(i, rng),
        }
        if self.inpainting:
            item["mask"] = self.tensors[f"mask{size}"][i].float()
            shown = "smooth" if rng.random() < SMOOTH_SHARE else "masked"
            item["masked"] = self._drawn(f"{shown}_mean{size}", f"{shown}_std{size}", i, rng)
        return item

    def _told(self, i: int, rng: np.random.Generator) -> torch.Tensor:
        """Token ids (L,) of an entry's caption: whole, shortened or none."""
        from workbench.world.views import shorter_caption  # using a model needs no world, only learning does

        if rng.random() < TEXT_DROPOUT:
            return self.empty
        if rng.random() >= TEXT_SHORTENED:
            return self.ids[i]
        return token_ids(self.tokenizer, [shorter_caption(self.captions[i], rng)])[0]

    def _drawn(self, mean: str, std: str, i: int, rng) -> torch.Tensor:
        """A sample of a posterior, as the pipelines take one."""
        mean, std = self.tensors[mean][i].float(), self.tensors[std][i].float()
        return mean + std * gaussian(rng, mean.shape)

    def _held_out(self, validation: TrainingPictures, count: int = 64) -> dict:
        """Validation pictures with everything the loss and the samples need, always the same."""
        rows = list(range(0, len(validation), max(1, len(validation) // count)))[:count]
        views = [validation.view(i) for i in rows]
        images = torch.stack([view["image"] for view in views])  # (N, 3, H, W)
        holes = torch.cat([masks.irregular((SIZE, SIZE), 0.25, seed=i) for i in rows])  # (N, 1, H, W)
        return {"images": images, "holes": holes, "captions": [view["caption"] for view in views]}

    def validate(self):
        """The unweighted loss on unseen views at fixed noise levels; for inpainting also the quality of samples."""
        device = self.objective.unet.device
        images, captions = self.held["images"], self.held["captions"]
        self.vae.to(device)
        latents, _ = encode_moments(self.vae, to_signed(images))
        batch = {"latents": latents, "ids": token_ids(self.tokenizer, captions).to(device)}
        if self.inpainting:
            shown = masked_image(images, self.held["holes"], shown_by(self.objective.unet))
            batch["masked"], _ = encode_moments(self.vae, shown)
            batch["mask"] = masks.to_latent(self.held["holes"], "nearest", SIZE // latents.shape[-1]).to(device)
        errors = []
        for level in range(LEVELS):
            t = torch.full((len(images),), 1000 * level // LEVELS + 62, device=device)
            noise = gaussian(generator(3, level), latents.shape).to(device)
            errors.append(self.objective({**batch, "noise": noise, "t": t})["error"].item())
        numbers = {"error": float(np.mean(errors))}
        if self.inpainting:
            numbers["hole_psnr"] = self._samples_psnr(SHOWN)
        return numbers

    def _samples_psnr(self, count: int) -> float:
        images, holes = self.held["images"][:count], self.held["holes"][:count]
        return metrics.psnr(self.samples(count), images, holes).mean().item()

    @torch.no_grad()
    def samples(self, count: int, steps: int = STEPS) -> torch.Tensor:
        """Pictures for the first validation captions (and holes), seeds 0, 1, ...: (count, 3, H, W) in [0, 1]."""
        check.integer(count, "count", 1, len(self.held["captions"]))
        pipe = self.pipeline().to(self.objective.unet.device)
        pipe.set_progress_bar_config(disable=True)
        given = {"prompt": self.held["captions"][:count], "num_inference_steps": steps, "guidance_scale": 3.0}
        if self.inpainting:
            given |= given_to(pipe, self.held["images"][:count], self.held["holes"][:count])
        seeds = [torch.Generator().manual_seed(i) for i in range(count)]
        return pipe(**given, generator=seeds, height=SIZE, width=SIZE, output_type="pt").images.float().cpu()

    def sheet(self):
        """Samples; for inpainting with the given above and the truth below."""
        count = min(SHOWN, len(self.held["captions"]))
        rows = [self.samples(count)]
        if self.inpainting:
            images, holes = self.held["images"][:count], self.held["holes"][:count]
            rows = [(masked_image(images, holes, shown_by(self.objective.unet)) + 1) / 2, *rows, images]
        return tiled(rows)

    def pipeline(self) -> StableDiffusionPipeline | StableDiffusionInpaintPipeline:
        """The model as a published pipeline, with the weights as they are; DDIM, no safety checker."""
        kind = StableDiffusionInpaintPipeline if self.inpainting else StableDiffusionPipeline
        parts = (self.vae, self.objective.text_encoder, self.tokenizer, self.objective.unet)
        # With nothing given, the first steps decide the colours of the whole: none of them is left out.
        spacing = "leading" if self.inpainting else "trailing"
        return assemble(kind, *parts, prediction=self.objective.prediction, spacing=spacing)

    def export(self, folder, trained):
        """Writes the pipeline's folder."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_pipeline(folder, self.pipeline().to("cpu"), title=self.name, **told)


def assemble(kind, vae, text_encoder, tokenizer, unet, prediction: str = "epsilon", spacing: str = "leading"):
    """A pipeline of ``kind`` from its parts: DDIM, no safety checker (the models know rendered rooms only).

    ``prediction`` is what the U-Net says, ``spacing`` where sampling begins, see `models.make_scheduler`.
    """
    return kind(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(prediction=prediction, spacing=spacing),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write_pipeline(folder, pipe, title: str, about: str, trained: str, quality: dict) -> Path:
    """Writes a pipeline in the published layout, float16, with card and checksums."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    pipe.save_config(folder)
    for name in ("vae", "text_encoder", "unet"):
        save_half(getattr(pipe, name), folder / name)
    save_tokenizer(pipe.tokenizer, folder / "tokenizer")
    pipe.scheduler.save_pretrained(folder / "scheduler")
    return finish(folder, title, about, trained, quality)
