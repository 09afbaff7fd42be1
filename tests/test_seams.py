"""Membranes against a solver that shares nothing with them; seams that go, and pixels that stay."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

import workbench as wb
from workbench import mask as masks
from workbench.seams import conjugate_gradients, membrane, seamless


def solved(values: torch.Tensor, hole: np.ndarray) -> torch.Tensor:
    """laplace(v) = 0 by a direct solver: values (C, H, W), hole (H, W)."""
    places = np.argwhere(hole).tolist()
    number = {tuple(place): k for k, place in enumerate(places)}
    matrix, right = scipy.sparse.lil_matrix((len(places), len(places))), np.zeros((len(places), len(values)))
    for k, (y, x) in enumerate(places):
        for p in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
            if not (0 <= p[0] < hole.shape[0] and 0 <= p[1] < hole.shape[1]):
                continue
            matrix[k, k] += 1
            if p in number:
                matrix[k, number[p]] = -1
            else:
                right[k] += values[:, p[0], p[1]].numpy()
    out = values.clone()
    out[:, torch.from_numpy(hole)] = torch.from_numpy(scipy.sparse.linalg.spsolve(matrix.tocsr(), right).T).float()
    return out


@pytest.mark.parametrize(
    "hole",
    [
        masks.centre((40, 56), 0.4),
        masks.irregular((40, 56), 0.4, seed=3),
        masks.box((40, 56), (0, 0, 30, 40)),  # touches the picture's border
        masks.box((40, 56), (10, 10, 11, 11)),  # one pixel: the mean of its neighbours
        1 - masks.box((40, 56), (20, 20, 21, 21)),  # one known pixel: its value everywhere
    ],
)
def test_it_is_what_a_direct_solver_finds(hole):
    values = wb.image.resize(wb.load_image("astronaut"), (40, 56)) - 0.4
    found = membrane(values, hole)
    assert torch.equal(found * (1 - hole), values * (1 - hole))
    assert (found[0] - solved(values[0], hole[0, 0].numpy() > 0.5)).abs().max() < 0.01


def test_a_slope_is_carried_on_exactly():
    slope = torch.linspace(-1, 2, 50).view(1, 1, 1, 50).expand(1, 2, 30, 50)
    torch.testing.assert_close(membrane(slope, masks.centre((30, 50), 0.3)), slope, rtol=0, atol=5e-3)


def test_large_holes_are_as_right_as_small_ones():
    y, x = torch.meshgrid(torch.arange(-200, 200) / 200, torch.arange(-150, 150) / 200, indexing="ij")
    harmonic = (x**3 - 3 * x * y**2 + torch.exp(x) * torch.sin(y))[None, None]
    error = (membrane(harmonic, masks.centre((400, 300), 0.6)) - harmonic).abs().max()
    assert error < 0.01 * (harmonic.max() - harmonic.min())


def test_each_picture_of_a_batch_is_solved_for_itself():
    values = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    holes = torch.cat([masks.centre((24, 32), 0.3), masks.irregular((24, 32), 0.3, seed=1)])
    both = membrane(values, holes)
    assert all(torch.equal(both[i : i + 1], membrane(values[i : i + 1], holes[i : i + 1])) for i in range(2))


def test_a_fill_of_other_colours_meets_the_picture(photo):
    hole = masks.centre(photo.shape[-2:], 0.3)
    tinted = (photo * 0.8 + torch.tensor([0.1, 0.0, 0.05]).view(1, 3, 1, 1)).clamp(0, 1)
    before = photo.clone(), tinted.clone()
    out = seamless(photo, tinted, hole)
    assert torch.equal(out * (1 - hole), photo * (1 - hole))
    edge = masks.border(hole, 1, "inside")
    errors = [((p - photo).square() * edge).sum() / edge.sum() for p in (tinted, out)]
    assert errors[1] < errors[0] / 4
    assert torch.equal(photo, before[0])
    assert torch.equal(tinted, before[1])


def test_what_meets_already_is_left_alone(photo):
    hole = masks.irregular(photo.shape[-2:], 0.3, seed=2)
    filled = torch.where(hole > 0.5, torch.rand_like(photo), photo)
    assert torch.equal(seamless(photo, filled, hole), filled)
    assert torch.equal(seamless(photo, 1 - photo, torch.zeros_like(hole)), photo)
    assert torch.equal(seamless(photo, 1 - photo, torch.ones_like(hole)), 1 - photo)


def test_several_fills_of_one_hole(photo):
    hole = masks.centre(photo.shape[-2:], 0.3)
    fills = torch.cat([photo * 0.9, photo, 1 - photo])
    out = seamless(photo.expand_as(fills), fills, hole)
    assert torch.equal(out[1:2], photo)
    assert all(torch.equal(out[i : i + 1], seamless(photo, fills[i : i + 1], hole)) for i in range(3))


def test_refusals(photo):
    hole = masks.centre(photo.shape[-2:], 0.3)
    with pytest.raises(ValueError, match="covers the whole picture"):
        membrane(photo, torch.ones_like(hole))
    with pytest.raises(ValueError, match="expected the same"):
        seamless(photo, photo[..., 1:], hole)
    with pytest.raises(ValueError, match="expected the same"):
        seamless(photo, photo.repeat(2, 1, 1, 1), hole)
    with pytest.raises(ValueError, match="mask has shape"):
        seamless(photo, photo, photo)


def test_conjugate_gradients_solve_a_system():
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    found = conjugate_gradients(lambda v: matrix @ v, torch.tensor([1.0, 2.0]), 5)
    torch.testing.assert_close(found, torch.tensor([1 / 11, 7 / 11]))
