"""DIFT: features of a diffusion model's U-Net, taken while it looks at a noised picture."""

from dataclasses import dataclass, field

import numpy as np
import torch

from workbench import check
from workbench.diffusion.filling import work_size
from workbench.image import resize, to_signed
from workbench.lenses.features import check_map, record_features

BATCH = 8
"""So many noises go through the U-Net at once."""


@dataclass(frozen=True)
class Dift:
    """DIFT with its settings: a function from a picture (1, 3, H, W) to its feature map (1, C, h, w).

    The noise of picture number k (0 for the first of a pair, 1 for the second) comes from ``seed`` and k. It must
    differ between two pictures: with the same noise in both, features carry the noise's pattern, and everything seems
    to stay in its place.

    Args: those of `dift_features`.
    """

    pipe: object = field(repr=False)
    t: int = 261
    block: int | str = 1
    ensemble: int = 8
    prompt: str = ""
    side: int | None = None
    seed: int = 0

    def __call__(self, image: torch.Tensor, picture: int = 0) -> torch.Tensor:
        """The feature map of picture number ``picture``."""
        seed = np.random.SeedSequence([check.seed(self.seed), picture]).generate_state(1, np.uint64)[0] >> np.uint64(1)
        return dift_features(
            self.pipe, image, t=self.t, block=self.block, ensemble=self.ensemble, prompt=self.prompt, side=self.side,
            seed=int(seed),
        )  # fmt: skip


@torch.no_grad()
def dift_features(
    pipe,
    image: torch.Tensor,
    *,
    t: int = 261,
    block: int | str = 1,
    ensemble: int = 8,
    prompt: str = "",
    side: int | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """What a block of a diffusion model's U-Net gives for a noised picture, averaged over noises.

    z_t = sqrt(abar_t) z + sqrt(1 - abar_t) noise, with z the picture's latents (drawn from the encoder's posterior);
    one pass of the U-Net; the block's output; the mean over ``ensemble`` noises.

    Inpainting models (9 channels) also get an empty mask, nothing to repaint, and the picture itself as the masked
    picture; models that edit by instruction (8 channels) get the picture as the one to edit. These models see the
    picture without noise too, so t matters less for them. Without an autoencoder the picture itself is noised.

    Args:
        pipe: a diffusers pipeline with a U-Net: Stable Diffusion 1, 2 and XL in all their kinds, DDPM. For others
            pass a feature function of your own, made with `record_features`.
        image: (1, 3, H, W) in [0, 1].
        t: timestep, 0 to 999. Small: detail, for the same scene; large: meaning, for two things of a kind.
        block: an up block's number (0 is the coarsest), or the name of any module of the U-Net with (1, C, h, w) as its
            output.
        ensemble: noises to average over.
        prompt: what the picture shows; "" for the same scene, "a photo of a cat" for two cats.
        side: the picture is resized to about side x side pixels, keeping its proportions; None takes the model's
            size, and the published settings are 768 for Stable Diffusion 2.1.
        seed: of the noises. Two pictures to compare need two seeds (see `Dift`).

    Returns:
        (1, C, h, w) float32 on the image's device. Its cells cover the picture evenly.

    Raises:
        TypeError: a pipeline without a U-Net, or with inputs that are not known here.
        ValueError: an unknown block or timestep, or features that are no numbers (half precision).

    Source: Tang et al., NeurIPS 2023, and its code's defaults: t 261, block 1, ensemble 8 for meaning; t 0, block 2 for
    geometry. Differs in keeping the picture's proportions.

    Example:
        >>> features = dift_features(wb.load_pipeline("tiny-t2i"), photo, t=101, block=1)
    """
    check_one(image)
    check.integer(ensemble, "ensemble", 1)
    unet = getattr(pipe, "unet", None)
    if unet is None:
        raise TypeError(
            f"{type(pipe).__name__} has no U-Net, expected a pipeline with one. For other networks match with "
            'method="features" and a function of your own: picture (1, 3, H, W) -> features (1, C, h, w).'
        )
    signal = _signal(pipe.scheduler, t)
    generator = torch.Generator().manual_seed(check.seed(seed))
    small = resize(image.float(), _size(pipe, image, side)).to(unet.device, unet.dtype)  # (1, 3, h, w)
    mean, deviation, scale = _latents(pipe, small)
    name = f"up_blocks.{block}" if isinstance(block, int) else block
    total = 0
    with record_features(unet, name) as recorded:
        for first in range(0, ensemble, BATCH):
            count = min(BATCH, ensemble - first)
            shape = (count, *mean.shape[1:])
            drawn, noise = (torch.randn(shape, generator=generator).to(mean) for _ in range(2))
            latents = (mean + deviation * drawn) * scale  # (count, 4, h, w)
            noised = signal**0.5 * latents + (1 - signal) ** 0.5 * noise
            given = torch.cat([noised, *_beside(unet, mean, scale, count)], 1)
            unet(given, torch.tensor(t, device=unet.device), **_conditions(pipe, prompt, count, image.shape[-2:]))
            total = total + recorded[name].float().sum(0, keepdim=True)
    return check_map(total / ensemble, f"the output of {name}").to(image.device)


def check_one(image, name: str = "image") -> torch.Tensor:
    """One picture (1, 3, H, W)."""
    if check.image(image, name).shape[0] != 1:
        raise ValueError(f"{name} holds {image.shape[0]} pictures, expected one. Take one with {name}[i:i + 1].")
    return image


def _signal(scheduler, t: int) -> float:
    """abar_t, the share of the picture's variance that is left."""
    shares = getattr(scheduler, "alphas_cumprod", None)
    if shares is None:
        raise TypeError(f"{type(scheduler).__name__} has no alphas_cumprod, expected the scheduler of a U-Net model.")
    return float(shares[check.integer(t, "t", 0, len(shares) - 1)])


def _size(pipe, image: torch.Tensor, side: int | None) -> tuple[int, int]:
    """What the picture is resized to: multiples of what autoencoder and U-Net halve."""
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1) if getattr(pipe, "vae", None) is not None else 1
    multiple = factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    if side is None:
        cells = pipe.unet.config.sample_size or 64
        side = factor * (cells if isinstance(cells, int) else max(cells))
    return work_size(*image.shape[-2:], check.integer(side, "side", 1), multiple)


def _latents(pipe, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Mean and deviation of the latents before scaling, and the scale; the picture itself without an autoencoder."""
    vae = getattr(pipe, "vae", None)
    if hasattr(pipe, "movq"):
        raise TypeError(f"{type(pipe).__name__} has a movq, expected an autoencoder of Stable Diffusion, or none.")
    if vae is None:
        return to_signed(image), torch.zeros_like(image), 1.0
    found = vae.encode(to_signed(image).to(vae.dtype)).latent_dist
    mean = found.mean - (getattr(vae.config, "shift_factor", None) or 0.0)
    return mean.to(image), found.std.to(image), vae.config.scaling_factor


def _beside(unet, mean: torch.Tensor, scale: float, count: int) -> list[torch.Tensor]:
    """What a U-Net is given beside the noised latents, as its number of channels tells."""
    own, channels = mean.shape[1], unet.config.in_channels
    known = mean.expand(count, -1, -1, -1)  # (count, 4, h, w)
    if channels == own:
        return []
    if channels == 2 * own + 1:  # inpainting: an empty mask, and the picture behind it
        return [known.new_zeros(count, 1, *known.shape[-2:]), known * scale]
    if channels == 2 * own:  # editing by instruction: the picture, unscaled
        return [known]
    raise TypeError(
        f"the U-Net takes {channels} channels, expected {own}, {2 * own} (editing) or {2 * own + 1} (inpainting)."
    )


def _conditions(pipe, prompt: str, count: int, size) -> dict:
    """The text states, and what else Stable Diffusion XL wants."""
    config = pipe.unet.config
    if not hasattr(config, "cross_attention_dim"):
        return {}
    if not hasattr(pipe, "encode_prompt"):
        return {"encoder_hidden_states": _plain_states(pipe, prompt).expand(count, -1, -1)}
    wanted = {"device": pipe.unet.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    found = pipe.encode_prompt(prompt=prompt, **wanted)
    conditions = {"encoder_hidden_states": found[0].to(pipe.unet.dtype).expand(count, -1, -1)}
    if getattr(config, "addition_embed_type", None) == "text_time":
        pooled = found[2].to(pipe.unet.dtype).expand(count, -1)
        numbers = (config.projection_class_embeddings_input_dim - pooled.shape[1]) // config.addition_time_embed_dim
        told = (*size, 0, 0, *size)[:6] if numbers == 6 else (*size, 0, 0, 6.0)  # the refiner: an aesthetic score
        times = torch.tensor([told], device=pooled.device, dtype=pooled.dtype).expand(count, -1)
        conditions["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": times}
    elif getattr(config, "addition_embed_type", None) is not None or config.class_embed_type is not None:
        raise TypeError(f"{type(pipe).__name__}'s U-Net wants conditions that are not known here. Pass a function.")
    return conditions


def _plain_states(pipe, prompt: str) -> torch.Tensor:
    """Text states (1, L, C) of a pipeline that has tokenizer and text encoder but no method for it."""
    if getattr(pipe, "tokenizer", None) is None or getattr(pipe, "text_encoder", None) is None:
        raise TypeError(f"{type(pipe).__name__} has no text encoder for its U-Net's conditions. Pass a function.")
    tokens = pipe.tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(tokens.to(pipe.unet.device))[0].to(pipe.unet.dtype)
