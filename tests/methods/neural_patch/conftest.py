"""What the tests of neural patches share: small pictures, and networks small enough for them."""

import pytest
import torch

from workbench.methods.neural_patch.networks import TextureNetwork


@pytest.fixture(scope="session")
def network() -> TextureNetwork:
    """Four stages with few channels and random weights: strides 1, 2, 4 and 8 as in the real ones."""
    generator = torch.Generator().manual_seed(5)
    stages, before = [], 3
    for width in (6, 8, 10, 12):
        pairs = []
        for _ in range(2):
            pairs.append((torch.randn(width, before, 3, 3, generator=generator) * (2 / (9 * before)) ** 0.5,
                          0.1 * torch.randn(width, generator=generator)))  # fmt: skip
            before = width
        stages.append(pairs)
    return TextureNetwork(stages, (0.5,) * 3, (0.25,) * 3, "small")


@pytest.fixture
def waves() -> torch.Tensor:
    """A coloured picture (1, 3, 64, 80) that repeats itself every 16 pixels across and every 8 down."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    a, b = torch.sin(2 * torch.pi * x / 16), torch.cos(2 * torch.pi * y / 8)
    return torch.stack([0.5 + 0.3 * a, 0.5 + 0.3 * b, 0.5 + 0.25 * a * b])[None]


@pytest.fixture
def gap() -> torch.Tensor:
    """A hole of 20 x 24 pixels off the middle, (1, 1, 64, 80)."""
    mask = torch.zeros(1, 1, 64, 80)
    mask[..., 18:38, 28:52] = 1
    return mask
