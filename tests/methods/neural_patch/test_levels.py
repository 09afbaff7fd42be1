"""The pyramid, the part of the picture that is worked on, and the first fill."""

import pytest
import torch

import workbench as wb
from workbench.methods.neural_patch.levels import (
    choose_window,
    predict_content,
    pyramid_sizes,
    shrink_mask,
    smooth_fill,
)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), [(128, 128), (256, 256), (512, 512)]),
        ((300, 451), [(85, 128), (170, 256), (300, 451)]),
        ((64, 96), [(64, 96)]),  # never enlarged
        ((1500, 2000), [(96, 128), (192, 256), (384, 512)]),  # the finest is bounded
        ((128, 140), [(128, 140)]),  # 128 would show nothing that 140 does not
        ((7, 2000), [(1, 128), (1, 256), (2, 512)]),
    ],
)
def test_pyramid_sizes(size, expected):
    assert pyramid_sizes(size, (128, 256, 512)) == expected


def test_a_small_hole_in_a_large_picture_is_worked_on_at_full_resolution():
    assert choose_window(wb.mask.box((1500, 2000), (900, 700, 1000, 780)), 512) == (694, 484, 1206, 996)
    assert choose_window(wb.mask.box((1500, 2000), (0, 1400, 300, 1500)), 512) == (0, 988, 900, 1500)  # at the frame
    assert choose_window(wb.mask.box((300, 400), (10, 10, 20, 20)), 512) == (0, 0, 400, 300)


def test_a_coarse_pixel_is_free_if_any_of_its_pixels_is():
    mask = torch.zeros(1, 1, 6, 9)
    mask[..., 3, 4] = 1
    assert shrink_mask(mask, (2, 3)).tolist() == [[[[0, 0, 0], [0, 1, 0]]]]


def test_smooth_fill_keeps_what_is_known_and_stays_between_it(photo, hole):
    filled = smooth_fill(torch.where(hole > 0, torch.rand_like(photo), photo), hole)
    assert torch.equal(filled * (1 - hole), photo * (1 - hole))
    assert torch.equal(filled, smooth_fill(photo * (1 - hole), hole))
    mean = torch.where(hole > 0, (photo * (1 - hole)).sum((2, 3), keepdim=True) / (1 - hole).sum(), photo)
    assert wb.metrics.psnr(filled, photo, hole) > wb.metrics.psnr(mean, photo, hole) + 3  # the photograph is smooth


def test_smooth_fill_by_hand_and_of_one_colour():
    line = torch.tensor([0.2, 0.0, 0.0, 0.6]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    mask = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 4)
    filled = smooth_fill(line, mask)[0, 0, 0].tolist()  # blocks of two know 0.2 and 0.6; halfway between lie 0.3, 0.5
    assert filled == pytest.approx([0.2, 0.3, 0.5, 0.6])
    grey, odd = torch.full((1, 3, 13, 17), 0.4), wb.mask.centre((13, 17), 0.7)
    torch.testing.assert_close(smooth_fill(grey, odd), grey)


def test_content_from_a_callable_a_picture_or_nothing(photo, hole):
    seen = []

    def network(picture, mask):
        seen.append((picture.clone(), mask.clone()))
        return torch.full_like(picture, 0.9)

    said = predict_content(network, photo, hole)
    assert torch.equal(said, torch.where(hole > 0, torch.full_like(photo, 0.9), photo))
    assert (seen[0][0][:, :, hole[0, 0] > 0] == 0.5).all()
    assert torch.equal(seen[0][1], hole)
    larger = wb.image.resize(photo, (40, 56))
    assert wb.metrics.psnr(predict_content(larger, photo, hole), photo, hole) > 30
    assert torch.equal(predict_content(None, photo, hole), smooth_fill(photo, hole))


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("a picture", TypeError, "content is a str, expected a callable"),
        (lambda picture, mask: picture * 2, ValueError, "content has values from"),
        (lambda picture, mask: picture[..., 1:], ValueError, "content is .* and image is"),
        (lambda picture, mask: None, TypeError, "content is a NoneType"),
        (torch.zeros(2, 3, 20, 28), ValueError, "content has 2 pictures, expected one"),
    ],
)
def test_content_against_the_conventions(content, error, message, photo, hole):
    with pytest.raises(error, match=message):
        predict_content(content, photo.clamp_min(0.6), hole)
