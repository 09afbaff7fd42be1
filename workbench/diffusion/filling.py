"""Fills a hole of any photograph with an inpainting pipeline: crop round the hole, sample at the model's size.

The loop of sampling is spelled out, and gives what the pipeline's own call gives.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from workbench import check
from workbench import image as pictures
from workbench import mask as masks
from workbench.image import from_signed, resize, to_signed


@dataclass(frozen=True)
class Sampling:
    """One look at the sampling of a crop.

    Args:
        i: steps done, from 1 to total.
        total: steps in all.
        t: the timestep just taken, 999 to 0.
        image: what the pipeline expects the crop to become, (1, 3, h, w) in [0, 1]: the decoded x0 estimate; in the
            last step, the result.
        box: the part (x0, y0, x1, y1) of the photograph it shows, in its pixels.
        latents, noise_pred, denoised: (1, 4, h', w'), after guidance.
    """

    i: int
    total: int
    t: int
    image: torch.Tensor
    box: tuple[int, int, int, int]
    latents: torch.Tensor
    noise_pred: torch.Tensor
    denoised: torch.Tensor

    def __repr__(self) -> str:
        return f"Sampling({self.i}/{self.total}: t = {self.t}; image {tuple(self.image.shape)} for box {self.box})"


def crop_box(mask: torch.Tensor, side: int, context: float = 0.5) -> tuple[int, int, int, int]:
    """The part of a photograph to work on: the hole with room around it, as square as the photograph allows.

    Args:
        mask: (1, 1, H, W) with a hole.
        side: the model's size; no less is cut out where the photograph has it, so that nothing is enlarged.
        context: room to add, as a share of the hole's longer side, half of it on each side.

    Returns:
        (x0, y0, x1, y1), end excluded, holding the whole hole.
    """
    check.number(context, "context", 0)
    x0, y0, x1, y1 = masks.bounding_box(mask)
    height, width = mask.shape[-2:]
    wanted = max(side, math.ceil((1 + context) * max(x1 - x0, y1 - y0)))
    (x0, x1), (y0, y1) = _span(x0, x1, wanted, width), _span(y0, y1, wanted, height)
    return x0, y0, x1, y1


def work_size(height: int, width: int, side: int, multiple: int) -> tuple[int, int]:
    """Height and width to sample at: the crop's proportions, about side x side pixels, multiples of ``multiple``."""
    scale = side / math.sqrt(height * width)
    return tuple(max(multiple, multiple * round(n * scale / multiple)) for n in (height, width))


@torch.no_grad()
def sample_hole(
    pipe,
    image: torch.Tensor,
    mask: torch.Tensor,
    *,
    prompt: str = "",
    seed: int = 0,
    num_inference_steps: int = 30,
    guidance_scale: float = 3.0,
    context: float = 0.5,
    preview_every: int = 5,
) -> Iterator[Sampling]:
    """Fills the hole of one photograph, yielding looks at the crop while it emerges.

    eps = eps_empty + g (eps_text - eps_empty); the scheduler takes the step.

    Args:
        pipe: StableDiffusionInpaintPipeline with a U-Net of 9 input channels.
        image: (1, 3, H, W) in [0, 1], any size.
        mask: (1, 1, H, W), 1 = hole.
        prompt: what should be there.
        seed: of the noise.
        num_inference_steps: of the pipeline's scheduler.
        guidance_scale: g; up to 1 there is no guidance and each step is one call of half the cost.
        context: see `crop_box`.
        preview_every: a look every so many steps, each decoded; the last step always.

    Yields:
        `Sampling`. Paste the last ``image``, resized to its box, into the hole.

    Raises:
        ValueError: shapes or ranges, no hole, or a pipeline that is not made for inpainting.

    Source: Ho and Salimans, 2021 (guidance); Rombach et al., CVPR 2022 (mask and masked latents as input).

    Example:
        >>> *_, last = sample_hole(load_pipeline("tiny-inpaint"), photo, mask, prompt="a photo of a room")
        >>> x0, y0, x1, y1 = last.box
    """
    check.image(image)
    check.mask(mask, like=image)
    check.integer(num_inference_steps, "num_inference_steps", 1)
    check.integer(preview_every, "preview_every", 1)
    channels = pipe.unet.config.in_channels
    if channels != 9:
        raise ValueError(f"the pipeline's U-Net takes {channels} channels, expected 9: an inpainting model.")
    device, dtype, factor = pipe.unet.device, pipe.unet.dtype, pipe.vae_scale_factor
    side = pipe.unet.config.sample_size * factor
    box = crop_box(mask, side, context)
    x0, y0, x1, y1 = box
    size = work_size(y1 - y0, x1 - x0, side, factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1))
    crop, hole = resize_with_hole(image[..., y0:y1, x0:x1], mask[..., y0:y1, x0:x1], size)
    crop, hole = crop.to(device, dtype), hole.to(device, dtype)  # (1, 3, h, w), (1, 1, h, w)

    generator = torch.Generator().manual_seed(check.seed(seed))
    states = _text_states(pipe, prompt, guidance_scale)  # (1 or 2, L, C)
    shape = (1, pipe.vae.config.latent_channels, size[0] // factor, size[1] // factor)
    scheduler = pipe.scheduler
    scheduler.set_timesteps(num_inference_steps, device=device)
    latents = torch.randn(shape, generator=generator, dtype=dtype).to(device) * scheduler.init_noise_sigma
    posterior = pipe.vae.encode(to_signed(crop) * (hole < 0.5)).latent_dist
    noise = torch.randn(shape, generator=generator, dtype=dtype).to(device)
    masked = (posterior.mean + posterior.std * noise) * pipe.vae.config.scaling_factor  # (1, 4, h', w')
    given = torch.cat([masks.to_latent(hole, "nearest", factor), masked], 1)  # (1, 5, h', w')
    for i, t in enumerate(scheduler.timesteps, 1):
        inputs = torch.cat([scheduler.scale_model_input(latents, t), given], 1)  # (1, 9, h', w')
        predicted = pipe.unet(inputs.expand(len(states), -1, -1, -1), t, states).sample
        if len(states) == 2:
            empty, text = predicted.chunk(2)
            predicted = empty + guidance_scale * (text - empty)  # (1, 4, h', w')
        denoised = _denoised(scheduler, latents, predicted, t)
        latents = scheduler.step(predicted, t, latents).prev_sample
        last = i == len(scheduler.timesteps)
        if last or i % preview_every == 0:
            seen = _decode(pipe.vae, latents if last else denoised).to(image)
            yield Sampling(i, len(scheduler.timesteps), int(t), seen, box, latents, predicted, denoised)


def paste(image: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The whole photograph (1, 3, H, W) with the crop's picture in its box, nothing of it blended yet."""
    x0, y0, x1, y1 = sampling.box
    out = image.clone()
    out[..., y0:y1, x0:x1] = pictures.resize(sampling.image, (y1 - y0, x1 - x0))
    return out


def _span(low: int, high: int, wanted: int, limit: int) -> tuple[int, int]:
    """An interval of length min(wanted, limit) in [0, limit], round [low, high] as far as that goes."""
    length = min(wanted, limit)
    start = min(max(0, (low + high - length) // 2), limit - length)
    return start, start + length


def resize_with_hole(
    image: torch.Tensor, mask: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Picture and hole at another size, (1, 3, *size) and (1, 1, *size); nothing of the hole shows as known.

    A known pixel becomes the weighted mean of known pixels only, and every cell that a hole pixel touches is hole.
    """
    if mask.shape[-2:] == size:
        return image, mask
    keep = 1 - mask
    known = resize(image * keep, size) / resize(keep, size).clamp(min=1e-3)  # (1, 3, *size)
    fewer = [min(a, b) for a, b in zip(mask.shape[-2:], size, strict=True)]
    smaller = torch.nn.functional.adaptive_max_pool2d(mask, fewer)  # (1, 1, *fewer)
    return known.clamp(0, 1), torch.nn.functional.interpolate(smaller, size, mode="nearest")


def _text_states(pipe, prompt: str, guidance_scale: float) -> torch.Tensor:
    """Text states (2, L, C): empty prompt, prompt; only the prompt's (1, L, C) without guidance."""
    guided = guidance_scale > 1
    states, empty = pipe.encode_prompt(prompt, pipe.unet.device, 1, guided, negative_prompt="" if guided else None)
    return torch.cat([empty, states]) if guided else states


def _denoised(scheduler, latents: torch.Tensor, noise: torch.Tensor, t) -> torch.Tensor:
    """The x0 estimate (z - sqrt(1 - abar) eps) / sqrt(abar), for epsilon prediction."""
    signal = scheduler.alphas_cumprod[int(t)].to(latents)
    return (latents - (1 - signal).sqrt() * noise) / signal.sqrt()


def _decode(vae, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents -> picture (1, 3, h, w) in [0, 1]."""
    return from_signed(vae.decode(latents / vae.config.scaling_factor).sample.float())
