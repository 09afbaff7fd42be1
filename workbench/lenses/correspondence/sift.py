"""SIFT: distinct points with a description of their surroundings that survives turning and scaling."""

import hashlib

import numpy as np
import torch
from skimage.feature import SIFT

from workbench import check
from workbench.image import to_grey

CONTRAST = 0.01 / 3
"""Weakest extremum that counts. A quarter of the usual 0.04 / 3: half as many matches again on rendered pictures of
128 px, and as exact ones."""
HALF_CELL = 0.25
"""scikit-image doubles the picture and halves the coordinates, which leaves every point so many pixels too far right
and down: the middle of pixel i of the doubled picture lies at (i + 0.5) / 2 - 0.5 = i / 2 - 0.25."""

SMALLEST = 6
"""Pixels of a side that one octave needs."""

REMEMBERED = 8
"""So many pictures' features are kept: who ranks samples asks for those of the same references again and again."""
_features: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}  # by a picture's digest, the last asked for at the end


def sift_features(image: torch.Tensor, *, contrast: float = CONTRAST) -> tuple[torch.Tensor, torch.Tensor]:
    """Keypoints of one picture and their descriptors.

    Extrema of differences of Gaussians over place and scale, each with a histogram of gradient directions about it,
    relative to its own direction: 4 x 4 places, 8 directions. Descriptors are RootSIFT: sqrt(d / sum d), of length 1.

    Args:
        image: (1, 3, H, W) in [0, 1]; its luminance is used.
        contrast: the weakest extremum that counts, of a luminance from 0 to 1.

    Returns:
        Points (N, 2) as (x, y) in pixels, and descriptors (N, 128), float32; N = 0 for a picture without structure.

    Source: Lowe, IJCV 2004, as scikit-image computes it; Arandjelovic and Zisserman, CVPR 2012 (RootSIFT). Chosen over
    kornia's: on three rendered pairs twice as fast, twice as many matches, and 80 to 97 % instead of 30 to 90 % of
    them right to 3 pixels.
    """
    check.number(contrast, "contrast", 0)
    grey = to_grey(image)[0, 0].detach().float().cpu().numpy()  # (H, W)
    key = hashlib.blake2b(f"{grey.shape} {contrast}".encode() + grey.tobytes()).digest()
    found = _features.pop(key, None) or _find(grey, contrast)
    _features[key] = found
    if len(_features) > REMEMBERED:
        del _features[next(iter(_features))]
    return found[0].clone(), found[1].clone()


def _find(grey: np.ndarray, contrast: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`sift_features` of a luminance (H, W)."""
    nothing = torch.zeros(0, 2), torch.zeros(0, 128)
    if min(grey.shape) < SMALLEST:
        return nothing
    detector = SIFT(upsampling=2, c_dog=contrast)
    try:
        detector.detect_and_extract(grey)
    except RuntimeError:  # scikit-image's word for no features
        return nothing
    points = detector.positions[:, ::-1] + (0.5 - HALF_CELL)  # (N, 2), from (row, column) at pixel middles
    counts = detector.descriptors.astype(np.float32)  # (N, 128)
    descriptors = np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1e-12))
    return torch.from_numpy(points.astype(np.float32)), torch.from_numpy(descriptors)
