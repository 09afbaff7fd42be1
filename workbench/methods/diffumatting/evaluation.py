"""How green is the background, and what can be reached at all: GSG, colour differences, the autoencoder's floor.

And the training-free way to a green background that a training must beat.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from skimage import color

from workbench import check
from workbench.diffusion.vae import round_trip
from workbench.methods.diffumatting.data import GREEN
from workbench.methods.diffumatting.greenpost import BACKGROUND, k_means

NEAR = 10.0
"""Colour difference up to which a background pixel counts as green."""
SPILL = 0.95
"""Inside the object: from this alpha on."""


# Green-screen quality


def gsg(image: torch.Tensor, k: int = 5, seed: int = 0, screen=GREEN) -> torch.Tensor:
    """Green-screen generation quality: how far a picture's dominant colour is from the green; (B,), 0 = pure green.

    GSG = 255 |c - screen|_2, c the centre of the largest of k clusters of all pixels.

    Args:
        image: (B, 3, H, W) in [0, 1].
        k: clusters.
        seed: of k-means.
        screen: (r, g, b) in [0, 1].

    Source: DiffuMatting (Hu et al., ECCV 2024): k-means of the dominant colour, distance to the green-screen colour. k,
    RGB and the 255 are not in its summary: our reading, so do not compare with numbers printed there.
    """
    check.image(image)
    check.integer(k, "k", 1)
    found = []
    for item in image:
        centres, counts = k_means(item.flatten(1).T, k, seed)
        found.append(255 * float(np.linalg.norm(centres[int(np.argmax(counts))] - np.asarray(screen, np.float64))))
    return torch.tensor(found, dtype=torch.float64)


@dataclass(frozen=True)
class ColourDifference:
    """How far the background of one picture is from the screen, in CIEDE2000 (2 = just noticeable).

    Args:
        mean, p95: over the background's pixels.
        variance: of the background's colours, mean of the channels.
        near: share of the background within `NEAR`.
        spill: mean greenness, g - max(r, b), of what is surely object, at least 0; nan without such.
        pixels: of the background.
    """

    mean: float
    p95: float
    variance: float
    near: float
    spill: float
    pixels: int


def background_delta_e(images: torch.Tensor, alpha: torch.Tensor, screen=GREEN) -> list[ColourDifference]:
    """The background against the screen's colour, where a matte says that nothing stands; one a picture.

    Where nothing is background by the matte the pixels along the border are taken.

    Args:
        images: (B, 3, H, W).
        alpha: (B, 1, H, W).
        screen: (r, g, b).

    Source: our own, beside GSG; Sharma et al. 2005 for CIEDE2000.
    """
    check.alpha(alpha)
    check.same_size(check.image(images, "images"), alpha, "images", "alpha")
    wanted = color.rgb2lab(np.asarray(screen, np.float64)[None, None])  # (1, 1, 3)
    return [_difference(x, a, wanted) for x, a in zip(images, alpha[:, 0], strict=True)]


def border_delta_e(images: torch.Tensor, width: int = 4, screen=GREEN) -> list[ColourDifference]:
    """The same along the pictures' borders, which needs no matte: a thing at the border counts as a fault.

    Args:
        images: (B, 3, H, W).
        width: of the border in pixels.
        screen: (r, g, b).
    """
    height, width_ = check.image(images, "images").shape[-2:]
    check.integer(width, "width", 1, max(1, min(height, width_) // 2))
    inside = torch.zeros_like(images[:, :1])
    inside[..., width : height - width, width : width_ - width] = 1
    return background_delta_e(images, inside, screen)


def _difference(image: torch.Tensor, alpha: torch.Tensor, wanted: np.ndarray) -> ColourDifference:
    where = alpha <= BACKGROUND  # (H, W)
    if not where.any():
        where = torch.ones_like(where)
        where[1:-1, 1:-1] = False
    pixels = image[:, where].T.double().cpu().numpy()  # (N, 3)
    each = color.deltaE_ciede2000(color.rgb2lab(pixels[None]), wanted)[0]  # (N,)
    sure = image[:, alpha > SPILL]  # (3, M)
    spill = (sure[1] - torch.maximum(sure[0], sure[2])).clamp(min=0).mean().item() if sure.shape[1] else math.nan
    near, p95 = float((each <= NEAR).mean()), float(np.quantile(each, 0.95))
    return ColourDifference(float(each.mean()), p95, float(pixels.var(0).mean()), near, spill, len(pixels))


def autoencoder_floor(vae, size: tuple[int, int] = (128, 128), screen=GREEN) -> ColourDifference:
    """What the autoencoder makes of a picture of nothing but the screen: what a denoiser that learns from it is shown.

    No bound: guidance exaggerates, and the decoder can show more than it is asked for by its own encoder.

    Args:
        vae: of the pipeline.
        size: (H, W), multiples of what it halves.
        screen: (r, g, b).

    Returns:
        `ColourDifference`; its spill is nan.
    """
    height, width = check.size(size)
    flat = torch.tensor(screen, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, height, width)
    return background_delta_e(round_trip(vae, flat), torch.zeros(1, 1, height, width), screen)[0]


# Without any training


def screen_direction(vae, size: tuple[int, int] = (128, 128), screen=GREEN) -> torch.Tensor:
    """The mean latent of a picture of nothing but the screen, (1, C, 1, 1): where noise has to be shifted to.

    In Stable Diffusion this is roughly channels 2 and 3 upwards, which TKG-DM has by hand; asking the autoencoder works
    for every latent space.
    """
    height, width = check.size(size)
    flat = torch.tensor(screen, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, height, width)
    with torch.no_grad():
        latents = vae.encode((flat * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mean * vae.config.scaling_factor
    return latents.mean((2, 3), keepdim=True).float().cpu()


def shift_colour_noise(
    latents: torch.Tensor, direction: torch.Tensor, target: float = 0.11, sigma: float = 0.5
) -> torch.Tensor:
    """TKG-DM's start: noise shifted towards a colour outside a soft disc, as it was inside.

    In each channel c with direction d_c: z' = z + s_c (1 - A), s_c the shift, in the sense of d_c, that makes the share
    of entries on d_c's side grow by ``target`` |d_c| / max |d|; A(x, y) = exp(-(x^2 + y^2) / (2 sigma^2)), x and y from
    -1 to 1.

    Args:
        latents: standard normal noise, (B, C, h, w).
        direction: (1, C, 1, 1), see `screen_direction`; for Stable Diffusion (0, 1, 1, 0) is the published choice.
        target: growth of the share, 0 to 0.5.
        sigma: of the disc.

    Returns:
        (B, C, h, w), to be given to a pipeline as ``latents``.

    Source: Morita et al., "TKG-DM: Training-free Chroma Key Content Generation Diffusion Model", CVPR 2025, and its
    code's target and sigma. Differs: channels by the autoencoder instead of by hand; the shift solved for exactly.

    Example:
        >>> pipe("a feather", latents=shift_colour_noise(noise, screen_direction(pipe.vae)))
    """
    check.number(target, "target", 0, 0.5)
    if check.number(sigma, "sigma", 0) == 0:
        raise ValueError("sigma is 0, expected more: the disc has a width.")
    if latents.ndim != 4 or direction.shape != (1, latents.shape[1], 1, 1):
        raise ValueError(
            f"latents are {tuple(latents.shape)} and direction {tuple(direction.shape)}, expected (B, C, h, w) and "
            "(1, C, 1, 1)."
        )
    y, x = (torch.linspace(-1, 1, n) for n in latents.shape[-2:])
    disc = torch.exp(-(x**2 + y[:, None] ** 2) / (2 * sigma**2)).to(latents)  # (h, w)
    shift = torch.zeros_like(latents[..., :1, :1])  # (B, C, 1, 1)
    largest = direction.abs().max().clamp(min=1e-12)
    for c in range(latents.shape[1]):
        sense, growth = float(direction[0, c].sign()), target * float(direction[0, c].abs() / largest)
        for b in range(len(latents)):
            values = sense * latents[b, c].flatten()
            share = min(0.999, float((values > 0).float().mean()) + growth)
            shift[b, c] = sense * max(0.0, -float(values.quantile(1 - share))) if growth > 0 else 0.0
    return latents + shift * (1 - disc)
