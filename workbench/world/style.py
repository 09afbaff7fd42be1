"""What a camera and its owner do to a picture: exposure, white balance, contrast, blur, vignette, grain."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from workbench import check
from workbench.world.materials import to_linear, to_srgb


@dataclass(frozen=True)
class Style:
    """How a photograph was taken and finished; the default changes nothing.

    Args:
        exposure: in stops: +1 is twice the light.
        warmth: -1 (blue) to 1 (amber).
        tint: -1 (green) to 1 (magenta).
        contrast: 1 keeps it; less is flat, more is hard.
        saturation: 1 keeps it; 0 is grey.
        blur: standard deviation of the lens's blur, in pixels.
        vignette: how much darker the corners are, 0 to 1.
        grain: standard deviation of the film's grain, in [0, 1] of sRGB.
    """

    exposure: float = 0.0
    warmth: float = 0.0
    tint: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    blur: float = 0.0
    vignette: float = 0.0
    grain: float = 0.0

    def __post_init__(self):
        for name, low, high in (
            ("exposure", -5, 5), ("warmth", -1, 1), ("tint", -1, 1), ("contrast", 0, 3), ("saturation", 0, 3),
            ("blur", 0, 50), ("vignette", 0, 1), ("grain", 0, 0.5),
        ):  # fmt: skip
            check.number(getattr(self, name), f"style.{name}", low, high)


def random_style(seed: int, strength: float = 1.0) -> Style:
    """A style as photographs of different cameras and hours have it; ``strength`` 0 changes nothing."""
    rng = np.random.default_rng([check.seed(seed), 5])
    s = check.number(strength, "strength", 0, 2)
    values = {
        "exposure": rng.uniform(-0.6, 0.5) * s,
        "warmth": np.clip(rng.uniform(-0.7, 0.7) * s, -1, 1),
        "tint": np.clip(rng.uniform(-0.2, 0.2) * s, -1, 1),
        "contrast": 1 + rng.uniform(-0.25, 0.3) * s,
        "saturation": 1 + rng.uniform(-0.4, 0.3) * s,
        "blur": max(0.0, rng.uniform(-0.5, 0.7)) * s,
        "vignette": min(1.0, max(0.0, rng.uniform(-0.2, 0.4)) * s),
        "grain": max(0.0, rng.uniform(-0.01, 0.03)) * s,
    }
    return Style(**{name: round(float(v), 4) for name, v in values.items()})


def apply_style(image: torch.Tensor, style: Style, seed: int = 0) -> torch.Tensor:
    """Takes a clean picture again with another camera.

    Args:
        image: (B, 3, H, W) in [0, 1].
        style: what to do.
        seed: of the grain.

    Returns:
        (B, 3, H, W) in [0, 1]; ``Style()`` gives the picture back, apart from rounding.

    Example:
        >>> evening = apply_style(view.image, Style(exposure=-0.5, warmth=0.7, grain=0.02), seed=1)
    """
    check.image(image)
    rng = np.random.default_rng([check.seed(seed), 6])
    pixels = to_linear(image.permute(0, 2, 3, 1).numpy())  # (B, H, W, 3)
    warm, tint = np.float32(style.warmth), np.float32(style.tint)
    gains = np.exp2(np.array([0.45 * warm + 0.15 * tint, -0.25 * tint, -0.6 * warm + 0.15 * tint], np.float32))
    pixels = pixels * gains * np.float32(2**style.exposure)
    if style.blur > 0:
        pixels = ndimage.gaussian_filter(pixels, (0, style.blur, style.blur, 0), mode="nearest")
    if style.vignette > 0:
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in pixels.shape[1:3])
        pixels = pixels * (1 - style.vignette * (x**2 + y[:, None] ** 2) / 2)[..., None]
    display = to_srgb(pixels)
    grey = display @ np.array([0.299, 0.587, 0.114], np.float32)
    display = grey[..., None] + np.float32(style.saturation) * (display - grey[..., None])
    display = 0.5 + np.float32(style.contrast) * (display - 0.5)
    if style.grain > 0:
        noise = rng.normal(size=display.shape[:3]).astype(np.float32)
        noise = ndimage.gaussian_filter(noise, (0, 0.6, 0.6))
        display = display + (style.grain * noise / noise.std())[..., None]
    return torch.from_numpy(display.clip(0, 1).astype(np.float32)).permute(0, 3, 1, 2).contiguous()
