"""Pipelines of the bundled kind, of a few thousand weights, and runs of them. Shared: copy what you change."""

import copy
import functools

import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionPipeline

from workbench.diffusion import models
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.tokenizer import make_tokenizer
from workbench.stepping.denoising import DenoisingRun

MASK = torch.zeros(1, 1, 32, 48)
MASK[..., 9:21, 10:30] = 1
CALL = {"prompt": "a photo of a red ball", "num_inference_steps": 5, "guidance_scale": 3.0, "output_type": "pt",
        "height": 32, "width": 48, "mask_image": MASK}  # fmt: skip


@functools.cache
def _parts():
    tokenizer = make_tokenizer()
    vae = models.make_autoencoder(4, (8, 8, 16)).eval()
    vae.register_to_config(scaling_factor=0.2)
    return vae, models.make_text_encoder(tokenizer, width=32, layers=1).eval(), tokenizer


@functools.cache
def inpainting(channels: int):
    """An inpainting pipeline; its denoiser is given 9 channels, mask and known picture too, or the 4 of the latents."""
    return _assembled(StableDiffusionInpaintPipeline, channels)


@functools.cache
def text_to_image():
    """The same networks without a picture to begin with."""
    return _assembled(StableDiffusionPipeline, 4)


def _assembled(kind, channels):
    pipe = assemble(kind, *_parts(), models.make_denoiser(4, channels, widths=(16, 16, 32), text_width=32).eval())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, seed=3, **changes):
    """A run of an inpainting pipeline."""
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    return DenoisingRun(pipe, seed=seed, **{"image": image, **CALL, **changes})


def with_scheduler(pipe, kind, **settings):
    """A copy of the pipeline with another scheduler."""
    twin = copy.copy(pipe)
    vars(twin)["scheduler"] = kind.from_config(pipe.scheduler.config, **settings)
    return twin
