"""An inpainting pipeline of a few thousand weights that paints 32 x 32, and a scene of made-up pictures."""

import copy

import pytest
import torch

from tests.stepping import narrow


def picture(height, width, shift=0.0):
    """A smooth picture (1, 3, H, W) without any symmetry."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([x, 0.3 + 0.6 * y, (x * y + 0.2 * torch.sin(9 * x + shift)).clamp(0, 1)])[None]


@pytest.fixture
def pipe():
    pipe = copy.deepcopy(narrow.inpainting(9))
    pipe.unet.register_to_config(sample_size=8)
    return pipe


@pytest.fixture
def target():
    return picture(32, 48)


@pytest.fixture
def mask():
    """Twelve rows of twenty pixels, on the latent grid of 4: columns 8 to 28."""
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., 8:20, 8:28] = 1
    return mask


@pytest.fixture
def references():
    """Larger, wider than high, smaller than what is sampled."""
    return [picture(40, 36, 0.5), picture(33, 70, 1.0), picture(20, 24, 1.5)]
