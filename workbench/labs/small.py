"""A very small inpainting pipeline for checks to step through: random weights, 32 x 48 pixels, milliseconds a step."""

import functools

import torch

from workbench import mask as masks

SIZE = (32, 48)  # (H, W); latents are (8, 12)
PROMPT = "a photo of a red ball"


@functools.cache
def pipeline(channels: int = 9):
    """A StableDiffusionInpaintPipeline of a few thousand weights, shared by all checks: leave it as it is.

    Args:
        channels: of the U-Net's input: 9 sees mask and known picture, 4 puts known latents back after each step.
    """
    from workbench.diffusion import models
    from workbench.diffusion.denoiser import assemble
    from workbench.diffusion.libraries import StableDiffusionInpaintPipeline
    from workbench.diffusion.tokenizer import make_tokenizer

    tokenizer = make_tokenizer()
    text = models.make_text_encoder(tokenizer, width=32, layers=1).eval()
    vae = models.make_autoencoder(4, (8, 8, 16)).eval()
    unet = models.make_denoiser(4, channels, widths=(16, 16), text_width=32).eval()
    pipe = assemble(StableDiffusionInpaintPipeline, vae, text, tokenizer, unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@functools.cache
def arguments() -> dict:
    """Of a call: picture, hole (its edges cut through latent cells), prompt, size."""
    picture = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    hole = masks.box(SIZE, (10, 9, 30, 21))
    return {"prompt": PROMPT, "image": picture, "mask_image": hole, "height": SIZE[0], "width": SIZE[1],
            "guidance_scale": 3.0, "output_type": "pt"}  # fmt: skip


def make_run(pipe=None, steps: int = 4, **changes):
    """A fresh DenoisingRun of the pipeline, or of another; nothing is computed yet."""
    from workbench.stepping import DenoisingRun

    pipe = pipeline() if pipe is None else pipe
    return DenoisingRun(pipe, seed=3, **{**arguments(), "num_inference_steps": steps, **changes})
