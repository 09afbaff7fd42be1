"""What happens to a reference before the model sees it, so that it cannot simply be copied: five changes, one by one.

The geometric ones are homographies; where a pixel of the picture ends up is known exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from workbench import check

AUGMENTATIONS = ("colour", "rotation", "resize", "flip", "projective")
"""In the order in which they are applied."""
ANGLE = 45.0
"""Degrees, at most, at strength 1."""
SCALES = (0.6, 1.6)
CORNER = 0.2
"""Share of a side by which each corner moves at most."""
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Augmented:
    """A changed picture and how it came about.

    Args:
        image: (1, 3, H, W) in [0, 1].
        homography: (3, 3), from pixels (x, y, 1) of the picture as it was to those of ``image``.
        told: what was drawn, in words.
    """

    image: torch.Tensor
    homography: torch.Tensor
    told: str

    def carry(self, points) -> torch.Tensor:
        """Where points (N, 2) of the picture as it was are now, (x, y) in pixels; outside of it too."""
        points = torch.as_tensor(points, dtype=torch.float64)
        ones = torch.ones(len(points), 1, dtype=torch.float64)
        moved = torch.cat([points, ones], 1) @ self.homography.T  # (N, 3)
        return (moved[:, :2] / moved[:, 2:]).float()

    def __repr__(self) -> str:
        return f"Augmented({self.told}; image {tuple(self.image.shape)})"


def augment(
    image: torch.Tensor,
    rng: np.random.Generator,
    names: Sequence[str] = AUGMENTATIONS,
    strength: float = 1.0,
) -> Augmented:
    """Changes a picture at random; all homographies together cost one interpolation.

    Beyond the picture's edge its mirror image is seen.

    Args:
        image: (1, 3, H, W) in [0, 1].
        rng: everything is drawn from it.
        names: some of `AUGMENTATIONS`; [] gives the picture back.
        strength: 0 changes nothing (but flips), 1 is the default of the training.

    Raises:
        ValueError: an unknown name, or more than one picture.

    Source: Chen et al., 2024, section 4.1: "strong color jitter, rotation, resize, flip and random projective
        transformation"; no strengths are given, those here are this kit's. Differs from the released code in: mirrored
        instead of white edges.

    Example:
        >>> augment(photo, np.random.default_rng(0), ["rotation"])
    """
    if len(check.image(image)) != 1:
        raise ValueError(f"image holds {len(image)} pictures, expected one, (1, 3, H, W).")
    check.number(strength, "strength", 0, 2)
    names = [check.choice(name, "names", AUGMENTATIONS) for name in names]
    size, told, homography = image.shape[-2:], [], np.eye(3)
    for name in AUGMENTATIONS:
        if name in names and name == "colour":
            image, words = _jittered(image, rng, strength)
            told.append(words)
        elif name in names:
            step, words = _HOMOGRAPHIES[name](size, rng, strength)
            homography = step @ homography
            told.append(words)
    if not np.array_equal(homography, np.eye(3)):
        image = warp(image, torch.from_numpy(homography))
    return Augmented(image, torch.from_numpy(homography), ", ".join(told) or "as it was")


def warp(image: torch.Tensor, homography: torch.Tensor) -> torch.Tensor:
    """A picture (1, C, H, W) through a homography (3, 3) of pixels, from it to the result; mirrored at the edge."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    seen = torch.stack([x, y, torch.ones_like(x)], -1).double()  # (H, W, 3)
    origin = seen @ torch.linalg.inv(homography.double()).T
    origin = origin[..., :2] / origin[..., 2:]
    grid = (2 * origin / torch.tensor([width, height]) - 1).float()[None]  # (1, H, W, 2)
    warped = functional.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return warped.clamp(0, 1)


def _jittered(image: torch.Tensor, rng, strength: float) -> tuple[torch.Tensor, str]:
    """Brightness, contrast, saturation, hue; (1, 3, H, W)."""
    brightness, contrast, saturation = np.exp2(strength * rng.uniform(-0.5, 0.5, 3))
    turn = strength * rng.uniform(-0.15, 0.15) * 2 * np.pi
    to_yiq = np.array(_TO_YIQ)
    cos, sin = np.cos(turn), np.sin(turn)
    change = np.array([[1, 0, 0], [0, saturation * cos, -saturation * sin], [0, saturation * sin, saturation * cos]])
    matrix = torch.from_numpy(np.linalg.inv(to_yiq) @ change @ to_yiq).float()
    image = torch.einsum("ij,bjhw->bihw", matrix, image * float(brightness))
    mean = image.mean((1, 2, 3), keepdim=True)
    image = (mean + float(contrast) * (image - mean)).clamp(0, 1)
    told = f"brightness {brightness:.2f}, contrast {contrast:.2f}, saturation {saturation:.2f}, hue {turn:+.2f} rad"
    return image, told


def _about_middle(size, matrix: np.ndarray) -> np.ndarray:
    """A matrix (2, 2) about the picture's middle, as a homography."""
    middle = np.array([size[1], size[0]]) / 2
    out = np.eye(3)
    out[:2, :2], out[:2, 2] = matrix, middle - matrix @ middle
    return out


def _rotation(size, rng, strength: float) -> tuple[np.ndarray, str]:
    angle = strength * rng.uniform(-ANGLE, ANGLE)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return _about_middle(size, np.array([[cos, -sin], [sin, cos]])), f"rotated by {angle:.0f} degrees"


def _resize(size, rng, strength: float) -> tuple[np.ndarray, str]:
    scale = float(np.exp(strength * rng.uniform(*np.log(SCALES))))
    return _about_middle(size, scale * np.eye(2)), f"{scale:.2f} times as large"


def _flip(size, rng, strength: float) -> tuple[np.ndarray, str]:
    mirrored = rng.random() < 0.5
    matrix = np.diag([-1.0, 1.0]) if mirrored else np.eye(2)
    return _about_middle(size, matrix), "mirrored" if mirrored else "not mirrored"


def _projective(size, rng, strength: float) -> tuple[np.ndarray, str]:
    """Each corner moves on its own."""
    sides = np.array([size[1], size[0]], float)
    before = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * sides
    after = before + strength * CORNER * sides * rng.uniform(-1, 1, (4, 2))
    rows = []
    for (x, y), (u, v) in zip(before, after, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solution = np.linalg.solve(np.array(rows), after.reshape(-1))
    return np.append(solution, 1).reshape(3, 3), "corners moved"


_HOMOGRAPHIES = {"rotation": _rotation, "resize": _resize, "flip": _flip, "projective": _projective}
