"""Latent diffusion as a method: a crop round the hole is sampled and put back; the loop is `diffusion.sample_hole`."""

import math
from collections.abc import Iterator

import torch

from workbench import check
from workbench.diffusion import sample_hole
from workbench.diffusion.pipelines import last_loaded
from workbench.methods.result import Step
from workbench.seams import membrane


def fill(
    image: torch.Tensor,
    mask: torch.Tensor,
    *,
    seed: int = 0,
    prompt: str = "",
    pipe="tiny-inpaint",
    num_inference_steps: int = 10,
    guidance_scale: float = 3.0,
    start: torch.Tensor | None = None,
    strength: float = 0.85,
    context: float = 0.5,
    preview_every: int = 2,
) -> Iterator[Step]:
    """Inpainting by a latent diffusion model that is given the hole and what is known around it.

    Works on photographs of any size: a part with the hole in it, as large as the model's pictures or larger, is brought
    to the model's size, sampled, and brought back. A hole larger than the model's pictures therefore comes out blurred.

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        seed: of the noise.
        prompt: what should be there, "a photo of a room with a red ball"; "" leaves it to the surroundings.
        pipe: a StableDiffusionInpaintPipeline with a U-Net of 9 channels, or a name that `wb.load_pipeline` takes. A
            text-to-image pipeline of 4 channels fills by blended latents.
        num_inference_steps: of the pipeline's own scheduler; ``strength`` of them are taken. Models of published size
            want 30 and more; the bundled one wanders off with them: PSNR in the hole falls.
        guidance_scale: how much the prompt counts: up to 1 there is no guidance.
        start: (1, 3, H, W), what the hole holds under the first noise, such as another method's result; None: the
            smooth surface through the hole's edge, which gives the colours of the whole.
        strength: how much noise it gets, 0 to 1. 1 forgets it: from nothing but noise, as models are trained.
        context: room round the hole, as a share of its longer side.
        preview_every: a step to look at every so many; the last always.

    Yields:
        `Step` with arrays latents, noise_pred, denoised, (1, 4, h, w) each.

    Raises:
        ValueError: no pixel is kept, a strength that leaves no step, or a pipeline of another kind.
        NotAvailable: no such pipeline on this machine.

    Source: Rombach et al., CVPR 2022, section 4.5; the 9 channels as in Stable Diffusion's inpainting model. Start and
    strength: Meng et al., SDEdit, ICLR 2022.
    """
    check.leaves_something(mask)
    pipe = last_loaded(pipe) if isinstance(pipe, str) else pipe
    scale = guidance_scale if prompt else 1.0  # both halves of guidance would be the same
    start = membrane(image, mask).clamp(0, 1) if start is None else start
    looks = sample_hole(
        pipe, image, mask, prompt=prompt, seed=seed, num_inference_steps=num_inference_steps, guidance_scale=scale,
        context=context, preview_every=preview_every, start=start, strength=strength,
    )  # fmt: skip
    for number, look in enumerate(looks, 1):
        arrays = {"latents": look.latents, "noise_pred": look.noise_pred, "denoised": look.denoised}
        label, total = f"step {look.i} of {look.total}, t = {look.t}", math.ceil(look.total / preview_every)
        yield Step(number, total, label, look.image, arrays, look.box)
