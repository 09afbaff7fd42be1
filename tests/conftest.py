"""What several test files share: small, non-square, asymmetric pictures."""

import pytest
import torch

torch.set_num_threads(1)
"""Small operations in several threads wait for each other, and one program a core is enough: see WORKERS."""


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """A test that draws without a generator of its own gets the same numbers every time, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def photo() -> torch.Tensor:
    """A smooth coloured picture (1, 3, 20, 28) without any symmetry."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 20), torch.linspace(0, 1, 28), indexing="ij")
    return torch.stack([x, 0.3 + 0.6 * y, (x * y + 0.2 * torch.sin(9 * x)).clamp(0, 1)])[None]  # (1, 3, 20, 28)


@pytest.fixture
def hole() -> torch.Tensor:
    """A hole of 6 x 9 pixels off the middle, (1, 1, 20, 28)."""
    mask = torch.zeros(1, 1, 20, 28)
    mask[..., 5:11, 12:21] = 1
    return mask
