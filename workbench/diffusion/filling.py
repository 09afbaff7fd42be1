"""Fills a hole of any photograph with a pipeline: crop round the hole, sample at the model's size.

The loop of sampling is spelled out, and gives what the inpainting pipeline's own call gives with `latents.given_to`.
"""

import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from workbench import check
from workbench import image as pictures
from workbench import mask as masks
from workbench.diffusion import prediction
from workbench.diffusion.latents import masked_image, shown_by
from workbench.image import from_signed, resize, to_signed

KINDS = {4: "a text-to-image model", 9: "an inpainting model"}
"""What a U-Net is, by its input channels."""


@dataclass(frozen=True)
class Sampling:
    """One look at the sampling of a crop.

    Args:
        i: steps done, from 1 to total.
        total: steps in all.
        t: the timestep just taken, 999 to 0.
        image: what the pipeline expects the crop to become, (B, 3, h, w) in [0, 1], one for each seed: the decoded x0
            estimate; in the last step, the result.
        box: the part (x0, y0, x1, y1) of the photograph it shows, in its pixels.
        latents, noise_pred, denoised: (B, 4, h', w'), after guidance. noise_pred is what the U-Net predicts.
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


@dataclass(frozen=True)
class Crop:
    """The part of a photograph that is sampled, at the model's size.

    Args:
        box: (x0, y0, x1, y1) in the photograph's pixels, end excluded.
        image: (1, 3, h, w) in [0, 1].
        mask: (1, 1, h, w), 1 = hole.
    """

    box: tuple[int, int, int, int]
    image: torch.Tensor
    mask: torch.Tensor


def crop_round_hole(
    pipe,
    image: torch.Tensor,
    mask: torch.Tensor,
    context: float = 0.5,
    channels: Sequence[int] = (9,),
    side: int | None = None,
) -> Crop:
    """Cuts out what `sample_hole` samples: see `crop_box` and `work_size`; what lies in the hole does not show in it.

    ``side`` is that of `crop_box`, None the pipeline's own.

    Raises:
        ValueError: shapes or ranges, no hole, or a pipeline whose U-Net takes other ``channels``, see `KINDS`.
    """
    check.image(image)
    check.mask(mask, like=image)
    found = pipe.unet.config.in_channels
    if found not in channels:
        expected = " or ".join(f"{number}: {KINDS[number]}" for number in channels)
        raise ValueError(f"the pipeline's U-Net takes {found} channels, expected {expected}.")
    own = pipe.unet.config.sample_size * pipe.vae_scale_factor
    side = own if side is None else check.integer(side, "side", 1)
    box = x0, y0, x1, y1 = crop_box(mask, side, context)
    multiple = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    size = work_size(y1 - y0, x1 - x0, side, multiple)
    return Crop(box, *resize_with_hole(image[..., y0:y1, x0:x1], mask[..., y0:y1, x0:x1], size))


def crop_box(mask: torch.Tensor, side: int, context: float = 0.5) -> tuple[int, int, int, int]:
    """The part of a photograph to work on: the hole with room around it, as square as the photograph allows.

    Args:
        mask: (1, 1, H, W) with a hole.
        side: of what is worked on, such as the model's size; no less is cut out where the photograph has it, so that
            nothing is enlarged.
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
    seed: int | Sequence[int] = 0,
    num_inference_steps: int = 30,
    guidance_scale: float = 3.0,
    context: float = 0.5,
    preview_every: int = 5,
    scheduler=None,
    start: torch.Tensor | None = None,
    strength: float = 1.0,
    side: int | None = None,
) -> Iterator[Sampling]:
    """Fills the hole of one photograph, yielding looks at the crop while it emerges.

    eps = eps_empty + g (eps_text - eps_empty); the scheduler takes the step. In the hole the U-Net is shown what it
    learnt from, see `latents.shown_by`. A U-Net of 4 channels is shown nothing; its latents are blended instead:

    z_t <- z_t m + (a_t z + s_t noise) (1 - m) after each step, z the picture's latents, m every cell with hole in it

    Args:
        pipe: StableDiffusionInpaintPipeline with a U-Net of 9 input channels, or any with one of 4 (text to image).
        image: (1, 3, H, W) in [0, 1], any size.
        mask: (1, 1, H, W), 1 = hole.
        prompt: what should be there.
        seed: of the noise; several are sampled side by side, each as it would be alone.
        num_inference_steps: of the scheduler.
        guidance_scale: g; up to 1 there is no guidance and each step is one call of half the cost.
        context: see `crop_box`.
        preview_every: a look every so many steps, each decoded; the last step always.
        scheduler: of diffusers; None takes the pipeline's.
        start: (1, 3, H, W), what the hole holds at first, under noise; None begins with noise alone. Blending encodes
            the picture with it in the hole, or with a smooth surface.
        strength: how much noise it gets, as a share of the steps, which are as many fewer. 1 hides it wholly.
        side: samples about side x side pixels; None: as many as the model learnt from.

    Yields:
        `Sampling`. Paste the last ``image``, resized to its box, into the hole.

    Raises:
        ValueError: shapes or ranges, no hole, a strength that leaves no step or lacks a start, or a pipeline of another
            kind.

    Source: Ho and Salimans, 2021 (guidance); Rombach et al., CVPR 2022 (mask and masked latents as input); Meng et al.,
    SDEdit, ICLR 2022 (start and strength); Avrahami et al., Blended Latent Diffusion, SIGGRAPH 2023 (4 channels).
    Blending differs: one noise for all levels, as in diffusers; the decoder is not tuned to the picture afterwards and
    thin holes are not widened at first.

    Example:
        >>> *_, last = sample_hole(load_pipeline("tiny-inpaint"), photo, mask, prompt="a photo of a room")
        >>> x0, y0, x1, y1 = last.box
    """
    if not isinstance(prompt, str):
        raise TypeError(f'prompt is a {type(prompt).__name__}, expected a string; "" for none.')
    check.integer(num_inference_steps, "num_inference_steps", 1)
    check.integer(preview_every, "preview_every", 1)
    if check.number(strength, "strength", 0, 1) < 1 and start is None:
        raise ValueError(f"strength is {strength} without a start, expected 1, or a picture to start from.")
    cut = crop_round_hole(pipe, image, mask, context, tuple(KINDS), side)
    blended = pipe.unet.config.in_channels == 4
    device, dtype, factor = pipe.unet.device, pipe.unet.dtype, pipe.vae_scale_factor
    crop, hole = cut.image.to(device, dtype), cut.mask.to(device, dtype)

    seeds = list(seed) if isinstance(seed, Sequence) else [seed]
    generators = [torch.Generator().manual_seed(check.seed(s)) for s in seeds]
    states = _text_states(pipe, prompt, guidance_scale)  # (1 or 2, L, C)
    shape = (pipe.vae.config.latent_channels, *(n // factor for n in crop.shape[-2:]))
    scheduler = copy.deepcopy(pipe.scheduler if scheduler is None else scheduler)  # another fill may use it too
    scheduler.set_timesteps(num_inference_steps, device=device)
    timesteps = scheduler.timesteps
    if blended or strength < 1:
        begun = masked_image(cut.image, cut.mask, "smooth") if start is None else to_signed(_start(start, image, cut))
        clean = _encoded(pipe.vae, begun.to(device, dtype), generators)  # (B, 4, h', w')
    noise = _noise(shape, generators, dtype).to(device)  # (B, 4, h', w')
    if strength < 1:
        timesteps = timesteps[_skipped(scheduler, num_inference_steps, strength) :]
        latents = scheduler.add_noise(clean, noise, timesteps[:1])
    else:
        latents = noise * scheduler.init_noise_sigma
    if blended:
        given, touched = latents[:, :0], masks.to_latent(hole, "any", factor) > 0.5  # (B, 0, h', w'), (1, 1, h', w')
    else:
        masked = _encoded(pipe.vae, masked_image(crop, hole, shown_by(pipe.unet)), generators)  # (B, 4, h', w')
        shrunk = masks.to_latent(hole, "nearest", factor).expand(len(seeds), -1, -1, -1)
        given = torch.cat([shrunk, masked], 1)  # (B, 5, h', w')
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for i, t in enumerate(timesteps, 1):
        scaled = scheduler.scale_model_input(latents, t)
        predicted = _predicted(pipe.unet, torch.cat([scaled, given], 1), t, states, guidance_scale)
        denoised = prediction.denoised(scheduler, scaled, predicted, t)
        latents = scheduler.step(predicted, t, latents, **extra).prev_sample
        last = i == len(timesteps)
        if blended:
            kept = clean if last else scheduler.add_noise(clean, noise, timesteps[i : i + 1])
            latents = torch.where(touched, latents, kept)
        if last or i % preview_every == 0:
            seen = _decode(pipe.vae, latents if last else denoised).to(image)
            yield Sampling(i, len(timesteps), int(t), seen, cut.box, latents, predicted, denoised)


def paste(image: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The whole photograph (B, 3, H, W) with each crop's picture in its box, nothing of it blended yet."""
    x0, y0, x1, y1 = sampling.box
    out = image.repeat(len(sampling.image), 1, 1, 1)
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


def _start(start: torch.Tensor, image: torch.Tensor, cut: Crop) -> torch.Tensor:
    """What is known of the crop, with the start in its hole: (1, 3, h, w)."""
    check.same_size(check.image(start, "start"), image, "start", "image")
    if len(start) != 1:
        raise ValueError(f"start holds {len(start)} pictures, expected one, (1, 3, H, W).")
    x0, y0, x1, y1 = cut.box
    return torch.where(cut.mask > 0.5, resize(start[..., y0:y1, x0:x1], cut.image.shape[-2:]), cut.image)


def _skipped(scheduler, steps: int, strength: float) -> int:
    """How many entries of a scheduler's timesteps are left out at the beginning."""
    taken = min(int(steps * strength), steps)
    if taken < 1:
        raise ValueError(f"strength {strength} leaves none of {steps} steps, expected at least {1 / steps:.2g}.")
    return (steps - taken) * scheduler.order


def _encoded(vae, image: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
    """A sample of the posterior of a picture (1, 3, H, W) in [-1, 1] for each generator: (B, 4, h, w), scaled."""
    posterior = vae.encode(image).latent_dist
    noise = _noise(posterior.mean.shape[1:], generators, image.dtype).to(image.device)
    return (posterior.mean + posterior.std * noise) * vae.config.scaling_factor


def _text_states(pipe, prompt: str, guidance_scale: float) -> torch.Tensor:
    """Text states (2, L, C): empty prompt, prompt; only the prompt's (1, L, C) without guidance."""
    guided = guidance_scale > 1
    states, empty = pipe.encode_prompt(prompt, pipe.unet.device, 1, guided, negative_prompt="" if guided else None)
    return torch.cat([empty, states]) if guided else states


def _noise(shape: tuple[int, ...], generators: list[torch.Generator], dtype: torch.dtype) -> torch.Tensor:
    """Standard normal noise (B, *shape), one item from each generator."""
    return torch.cat([torch.randn(1, *shape, generator=generator, dtype=dtype) for generator in generators])


def _predicted(unet, inputs: torch.Tensor, t, states: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """What the U-Net predicts for inputs (B, 9, h, w), guided where there are two states: (B, 4, h, w)."""
    count = len(inputs)
    states = states.repeat_interleave(count, 0)  # (B or 2 B, L, C)
    predicted = unet(inputs.repeat(len(states) // count, 1, 1, 1), t, states).sample
    if len(states) == count:
        return predicted
    empty, text = predicted.chunk(2)
    return empty + guidance_scale * (text - empty)


def _decode(vae, latents: torch.Tensor) -> torch.Tensor:
    """Scaled latents -> pictures (B, 3, h, w) in [0, 1]."""
    return from_signed(vae.decode(latents / vae.config.scaling_factor).sample.float())
