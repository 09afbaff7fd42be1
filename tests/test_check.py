"""Each check: what passes, what is refused, and that the message says how to mend it."""

import numpy as np
import pytest
import torch

from workbench import check


def test_image_passes_through_unchanged(photo):
    assert check.image(photo) is photo


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.zeros((4, 5, 3)), TypeError, "is a ndarray.*wb.load_image"),
        (torch.zeros(3, 4, 5), ValueError, r"shape \(3, 4, 5\), expected \(B, 3, H, W\)"),
        (torch.zeros(1, 4, 5, 3), ValueError, r"shape \(1, 4, 5, 3\)"),
        (torch.zeros(1, 3, 4, 5, dtype=torch.uint8), TypeError, "dtype torch.uint8"),
        (torch.full((1, 3, 4, 5), 200.0), ValueError, "from 200 to 200.*in \\[0, 1\\]"),
        (torch.full((1, 3, 4, 5), -0.5), ValueError, "from -0.5"),
        (torch.full((1, 3, 4, 5), torch.nan), ValueError, "NaN"),
        (torch.full((1, 3, 4, 5), torch.inf), ValueError, "infinite"),
        (torch.zeros(1, 3, 0, 5), ValueError, "shape"),
    ],
)
def test_image_refuses(value, error, words):
    with pytest.raises(error, match=words):
        check.image(value)


def test_pictures_of_any_size_and_batches_become_a_list(photo):
    small = torch.rand(2, 3, 5, 9)
    listed = check.pictures([photo[:1], small])
    assert [x.shape[-2:] for x in listed] == [photo.shape[-2:], (5, 9), (5, 9)]
    assert torch.equal(listed[2], small[1:])
    assert len(check.pictures(small)) == 2
    assert check.pictures(()) == []
    for wrong, told in (
        ("brick", "references is a str"),
        (None, "references is a NoneType"),
        (3, "references is a int"),
    ):
        with pytest.raises(TypeError, match=f"{told}, expected a list of pictures"):
            check.pictures(wrong, "references")
    with pytest.raises(ValueError, match=r"references\[1\] has shape \(3, 5, 9\)"):
        check.pictures([photo, small[0]], "references")


def test_mask_message_is_the_one_promised(photo):
    with pytest.raises(ValueError, match=r"mask has shape \(1, 3, 64, 96\), expected \(B, 1, H, W\).*wb.load_mask"):
        check.mask(torch.zeros(1, 3, 64, 96))


def test_mask_must_be_hard_unless_soft():
    soft = torch.full((1, 1, 4, 5), 0.25)
    with pytest.raises(ValueError, match="between 0 and 1.*hard"):
        check.mask(soft)
    assert check.mask(soft, soft=True) is soft


def test_mask_fits_its_image(photo, hole):
    check.mask(hole, like=photo.repeat(3, 1, 1, 1))  # one mask serves a batch
    with pytest.raises(ValueError, match=r"mask is \(20, 28\) and image is \(10, 28\)"):
        check.mask(hole, like=photo[..., :10, :])
    with pytest.raises(ValueError, match="2 items for 3 images"):
        check.mask(hole.repeat(2, 1, 1, 1), like=photo.repeat(3, 1, 1, 1))


def test_a_mask_leaves_something_of_every_picture(hole):
    check.leaves_something(torch.cat([hole, torch.zeros_like(hole)]))
    check.leaves_something(hole[:0])
    with pytest.raises(ValueError, match="mask covers the whole picture, expected some kept pixels"):
        check.leaves_something(torch.cat([hole, torch.ones_like(hole)]))
    with pytest.raises(ValueError, match="covers the whole target"):
        check.leaves_something(torch.ones_like(hole), "target")


def test_trimap_holds_three_values():
    check.trimap(torch.tensor([0, 0.5, 1]).view(1, 1, 1, 3))
    with pytest.raises(ValueError, match="0, 0.5 and 1"):
        check.trimap(torch.full((1, 1, 2, 3), 0.4))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: check.number("3", "radius"), TypeError, "radius is '3'"),
        (lambda: check.number(True, "radius"), TypeError, "expected a number"),
        (lambda: check.number(float("nan"), "radius"), ValueError, "radius is nan"),
        (lambda: check.number(-1, "radius", 0), ValueError, "of at least 0"),
        (lambda: check.number(7, "radius", 0, 5), ValueError, "from 0 to 5"),
        (lambda: check.integer(2.5, "count"), TypeError, "whole number"),
        (lambda: check.integer(9, "count", high=4), ValueError, "of at most 4"),
        (lambda: check.seed(-1), ValueError, "seed is -1"),
        (lambda: check.choice("x", "how", ["a", "b"]), ValueError, "how is 'x', expected one of: a, b"),
        (lambda: check.size(5), TypeError, "height first"),
        (lambda: check.size((0, 5)), ValueError, "the height"),
        (lambda: check.box((1, 2, 3)), TypeError, "x0, y0, x1, y1"),
        (lambda: check.box((5, 2, 3, 4)), ValueError, "x0 < x1"),
        (lambda: check.points("abc"), TypeError, "list of .x, y. pairs"),
        (lambda: check.points([1, 2, 3]), ValueError, r"expected \(N, 2\)"),
        (lambda: check.points([(1, 2)], at_least=3), ValueError, "N at least 3"),
        (lambda: check.points([(1, float("nan"))]), ValueError, "NaN"),
    ],
)
def test_small_arguments_refuse(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_numpy_numbers_are_numbers():
    assert check.integer(np.int64(4), "count") == 4
    assert check.number(np.float32(0.5), "ratio") == 0.5
