"""The conventions of DESIGN.md and of notebook 01, one assert a row."""

import pytest
import torch

import workbench as wb


def test_image():
    photo = wb.load_image("chelsea")
    assert photo.shape == (1, 3, 300, 451)
    assert photo.dtype == torch.float32
    assert photo.min() >= 0
    assert photo.max() <= 1


def test_mask_one_is_hole():
    mask = wb.mask.centre((20, 30))
    assert mask.shape == (1, 1, 20, 30)
    assert set(mask.unique().tolist()) == {0, 1}
    photo = torch.full((1, 3, 20, 30), 0.25)
    photo[..., 10, 15] = 0.75  # inside the hole
    filled = wb.inpaint(photo, mask, "mean").image
    assert filled[..., 10, 15].eq(0.25).all()


def test_size_is_height_first_and_point_is_x_first():
    mask = wb.mask.box((20, 30), (25, 2, 28, 4))  # x up to 30, y up to 20
    assert mask[0, 0, 2, 25] == 1
    assert wb.mask.bounding_box(mask) == (25, 2, 28, 4)


def test_box_excludes_its_end():
    assert wb.mask.box((20, 30), (1, 2, 4, 6)).sum() == 3 * 4


def test_alpha_one_is_foreground_and_trimap_has_three_values():
    alpha = torch.linspace(0, 1, 40).expand(1, 1, 8, 40)
    trimap = wb.mask.trimap(alpha, radius=1)
    assert trimap.unique().tolist() == [0, 0.5, 1]
    assert trimap[..., -1].eq(1).all()


def test_latent_mask_has_its_two_ways():
    mask = wb.mask.box((16, 24), (3, 3, 5, 5))  # misses every top left pixel of a cell
    assert wb.mask.to_latent(mask, how="nearest").sum() == 0
    assert wb.mask.to_latent(mask, how="any").sum() == 1


def test_a_seed_is_local():
    state = torch.random.get_rng_state()
    wb.mask.irregular((32, 48), seed=3)
    wb.inpaint(torch.rand(1, 3, 32, 48), wb.mask.centre((32, 48), 0.3), "patchmatch", seed=3)
    torch.rand(1)
    torch.random.set_rng_state(state)
    a = torch.rand(1)
    torch.random.set_rng_state(state)
    wb.mask.rectangles((32, 48), seed=9)
    assert torch.equal(torch.rand(1), a)


def test_dtype_follows_the_input():
    photo = torch.rand(1, 3, 16, 24, dtype=torch.float64)
    assert wb.inpaint(photo, wb.mask.centre((16, 24)), "mean").image.dtype == torch.float64


def test_errors_name_what_came_what_was_expected_and_the_mend():
    words = r"mask has shape \(1, 3, 64, 96\), expected \(B, 1, H, W\).*1 = hole = repaint.*wb\.load_mask"
    with pytest.raises(ValueError, match=words):
        wb.inpaint(torch.rand(1, 3, 64, 96), torch.zeros(1, 3, 64, 96))
