"""Things with mattes: painted from a prompt, or of a green-screen picture that is there."""

import inspect
from dataclasses import dataclass, field, replace

import torch

from workbench import check
from workbench import mask as masks
from workbench.diffusion.filling import work_size
from workbench.image import resize, to_signed
from workbench.methods.diffumatting import greenpost
from workbench.methods.diffumatting.attention import green_caption
from workbench.methods.diffumatting.loading import DiffuMatting, bundled_model
from workbench.methods.diffumatting.networks import decode_features
from workbench.methods.diffumatting.task import on_canvas


@dataclass(frozen=True)
class Matted:
    """A thing on green, and taken off it.

    Args:
        image: (1, 3, H, W), on the background that it was painted or photographed on.
        coarse_alpha: (1, 1, H, W), the matting head's.
        alpha: (1, 1, H, W), GreenPost's; the coarse one where there is no refiner.
        foreground: (1, 3, H, W), not premultiplied.
        colour: of the background, (r, g, b), by k-means.
        plate: (1, 3, H, W), the background without the thing.
        prompt: as it was given to the pipeline; "" for a picture.
        seed: of everything random.
    """

    image: torch.Tensor = field(repr=False)
    coarse_alpha: torch.Tensor = field(repr=False)
    alpha: torch.Tensor = field(repr=False)
    foreground: torch.Tensor = field(repr=False)
    colour: tuple[float, float, float]
    plate: torch.Tensor = field(repr=False)
    prompt: str
    seed: int

    def composite(self, background, box: tuple[int, int, int, int] | None = None) -> torch.Tensor:
        """The thing before another background, at that one's full resolution.

        C = alpha F + (1 - alpha) B inside the box; outside every pixel stays bit-equal.

        Args:
            background: (1, 3, H, W) of any size, or a colour (r, g, b), which takes the thing's own size.
            box: (x0, y0, x1, y1) in the background's pixels, whole numbers, the part that the thing's picture is fitted
                into; None: the largest in the middle that keeps its proportions. May reach beyond the background.

        Returns:
            (1, 3, H, W) of the background's size.
        """
        if not isinstance(background, torch.Tensor):
            background = greenpost.flat_colour(background, self.image).expand_as(self.image)
        if len(check.image(background, "background")) != 1:
            raise ValueError(f"background holds {len(background)} pictures, expected one, (1, 3, H, W).")
        height, width = background.shape[-2:]
        x0, y0, x1, y1 = self._box(height, width) if box is None else (round(v) for v in check.box(box))
        size = (y1 - y0, x1 - x0)
        alpha, foreground = resize(self.alpha, size).to(background), resize(self.foreground, size).to(background)
        left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        out = background.clone()
        if left < right and top < bottom:
            seen = (..., slice(top - y0, bottom - y0), slice(left - x0, right - x0))
            part = (..., slice(top, bottom), slice(left, right))
            out[part] = foreground[seen] * alpha[seen] + background[part] * (1 - alpha[seen])
        return out

    def _box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The largest box of this picture's proportions in the middle of another."""
        h, w = self.image.shape[-2:]
        scale = min(height / h, width / w)
        h, w = max(1, round(h * scale)), max(1, round(w * scale))
        x0, y0 = (width - w) // 2, (height - h) // 2
        return x0, y0, x0 + w, y0 + h

    def trimap(self, radius: float = 5) -> torch.Tensor:
        """A trimap of the matte, (1, 1, H, W), to begin editing with; see `wb.mask.trimap`."""
        return masks.trimap(self.alpha, radius)

    def edited(self, trimap: torch.Tensor, solve: bool = False) -> "Matted":
        """The same with a matte that agrees with a trimap, such as one drawn in the mask editor.

        Where nothing was seen of the thing so far, its colour is the picture's.

        Args:
            trimap: (1, 1, H, W): 1 and 0 are taken as they are; 0.5 keeps the matte there is.
            solve: where it is 0.5 closed-form matting is asked instead (PyMatting), and colours are estimated anew.

        Raises:
            NotAvailable: ``solve`` without PyMatting.
        """
        if solve:
            alpha = greenpost.apply_trimap(greenpost.closed_form(self.image, trimap), trimap)
            return replace(self, alpha=alpha, foreground=greenpost.estimate_foreground(self.image, alpha))
        alpha = greenpost.apply_trimap(self.alpha, trimap)
        unseen = (self.alpha <= greenpost.BACKGROUND) & (alpha == 1)
        return replace(self, alpha=alpha, foreground=torch.where(unseen, self.image, self.foreground))


OWN = ("self", "kwargs", "prompt", "generator", "output_type", "return_dict", "num_images_per_prompt")
"""Of a pipeline's call, what `generate` sees to: it makes one picture, of whose latents a matte is made."""


@torch.no_grad()
def generate(
    prompt: str,
    seed: int = 0,
    *,
    model: DiffuMatting | None = None,
    num_inference_steps: int = 30,
    guidance_scale: float = 3.0,
    share: float = 0.25,
    **call,
) -> Matted:
    """Paints a thing on green and gives its matte.

    Args:
        prompt: the thing: "a photo of a brown feather". That the background is green is added.
        seed: of noise and k-means.
        model: None takes the bundled one, `load_diffumatting` loads others.
        num_inference_steps, guidance_scale: of the pipeline.
        share: of 4 x 4 cells that are mended at full size.
        **call: what else the pipeline's call takes: height, width, negative_prompt, a ControlNet's ``image``, latents;
            without these noise on the model's canvas.

    Returns:
        `Matted`.

    Raises:
        NotAvailable: the bundled weights are not on this machine.
        TypeError: a prompt that is no string, or what the pipeline does not take.

    Source: DiffuMatting (Hu et al., ECCV 2024).

    Example:
        >>> feather = wb.methods.diffumatting.generate("a photo of a brown feather", seed=0)
        >>> feather.composite(wb.load_image("coffee"))
    """
    prompt, seed = green_caption(prompt), check.seed(seed)
    check.integer(num_inference_steps, "num_inference_steps", 1)
    model = bundled_model() if model is None else model
    pipe = model.pipe
    known = set(inspect.signature(type(pipe).__call__).parameters) - set(OWN)
    if unknown := sorted(set(call) - known):
        raise TypeError(f"generate takes no {', '.join(unknown)}, expected some of: {', '.join(sorted(known))}.")
    shown = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, **call}
    drawn = torch.Generator().manual_seed(seed)
    if model.canvas is not None and "latents" not in call:
        given["latents"] = _noise_on_canvas(model, drawn, call.get("height"), call.get("width"))
    try:
        latents = pipe(prompt, generator=drawn, output_type="latent", **given).images
    finally:
        pipe.set_progress_bar_config(**shown)
    image, features = decode_features(pipe.vae, latents[:1])
    image, coarse = image.clamp(0, 1).cpu(), model.head(features.to(model.head.dtype)).cpu()
    return _taken_off(model, image, coarse, share, seed, prompt)


def _noise_on_canvas(model: DiffuMatting, drawn: torch.Generator, height: int | None, width: int | None):
    """What painting begins with, (1, 4, h, w), for a picture of that size or of the pipeline's own."""
    unet, factor = model.pipe.unet, 2 ** (len(model.pipe.vae.config.block_out_channels) - 1)
    size = [unet.config.sample_size if side is None else side // factor for side in (height, width)]
    noise = torch.randn(1, unet.config.in_channels, *size, generator=drawn)
    return on_canvas(noise, model.canvas, model.pipe.scheduler).to(unet.device, unet.dtype)


@torch.no_grad()
def matte(image: torch.Tensor, seed: int = 0, *, model: DiffuMatting | None = None, share: float = 0.25) -> Matted:
    """The matte of a green-screen picture that is there.

    The coarse matte comes from the picture's latents at the model's own size, GreenPost works at the picture's.

    Args:
        image: (1, 3, H, W) in [0, 1], any size: a thing before one colour.
        seed: of k-means.
        model: None takes the bundled one.
        share: of 4 x 4 cells that are mended at full size.

    Example:
        >>> matte(wb.data.sprite("hair-00").composite()).alpha
    """
    if len(check.image(image)) != 1:
        raise ValueError(f"image holds {len(image)} pictures, expected one, (1, 3, H, W). Loop over the batch.")
    model = bundled_model() if model is None else model
    pipe, size = model.pipe, tuple(image.shape[-2:])
    factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    small = resize(image, work_size(*size, pipe.unet.config.sample_size * factor, factor))
    posterior = pipe.vae.encode(to_signed(small).to(pipe.vae.device, pipe.vae.dtype)).latent_dist
    _, features = decode_features(pipe.vae, posterior.mean * pipe.vae.config.scaling_factor)
    coarse = resize(model.head(features.to(model.head.dtype)).to(image), size)
    return _taken_off(model, image.clone(), coarse, share, check.seed(seed), "")


def _taken_off(model: DiffuMatting, image, coarse_alpha, share: float, seed: int, prompt: str) -> Matted:
    """GreenPost, or, without a refiner, the coarse matte and the background's colour unmixed."""
    if model.refiner is not None:
        found = greenpost.green_post(image, coarse_alpha, model.refiner, share=share, seed=seed)
        return Matted(image, coarse_alpha, found.alpha, found.foreground, found.colour, found.plate, prompt, seed)
    colour = greenpost.background_colour(image, coarse_alpha, seed=seed)
    plate = greenpost.clean_plate(image, coarse_alpha, colour)
    foreground = ((image - (1 - coarse_alpha) * plate) / coarse_alpha.clamp(min=1e-3)).clamp(0, 1)
    return Matted(image, coarse_alpha, coarse_alpha, foreground, colour, plate, prompt, seed)
