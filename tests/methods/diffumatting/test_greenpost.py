"""GreenPost and what it is compared with, on pictures whose truth is known."""

import sys
import types

import numpy as np
import pytest
import torch

from workbench import check
from workbench.methods.diffumatting import greenpost
from workbench.methods.diffumatting.networks import make_refiner

SCREEN = (0.1, 0.8, 0.2)


@pytest.fixture
def thing():
    """A reddish thing, a third of it half transparent, on a green that is not pure: image, alpha, foreground."""
    alpha = torch.zeros(1, 1, 24, 36)
    alpha[..., 6:18, 8:20], alpha[..., 6:18, 20:26] = 1, 0.5
    foreground = torch.tensor([0.9, 0.3, 0.2]).view(1, 3, 1, 1).expand(1, 3, 24, 36)
    screen = torch.tensor(SCREEN).view(1, 3, 1, 1)
    return foreground * alpha + screen * (1 - alpha), alpha, foreground


def test_the_backgrounds_colour_is_found_beside_a_shadow(thing):
    image, alpha, _ = thing
    image = image.clone()
    image[..., 19:22, :] *= 0.5  # a shadow: the mean of the background would be off by it
    found = greenpost.background_colour(image, alpha)
    assert found == pytest.approx(SCREEN, abs=1e-5)
    assert greenpost.background_colour(image, alpha, k=1) != pytest.approx(SCREEN, abs=0.02)


def test_a_matte_that_is_object_everywhere_still_has_a_background(thing):
    image, alpha, _ = thing
    assert greenpost.background_colour(image, alpha * 0.5 + 0.5) == pytest.approx(SCREEN, abs=1e-5)


def test_the_clean_plate(thing):
    image, alpha, _ = thing
    noisy = (image + 0.05 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    plate = greenpost.clean_plate(noisy, alpha, SCREEN, reach=2)
    filled = (plate - torch.tensor(SCREEN).view(1, 3, 1, 1)).abs().amax(1) < 1e-6
    wanted = torch.zeros(1, 24, 36, dtype=torch.bool)
    wanted[:, 4:20, 6:28] = True
    assert torch.equal(filled, wanted)
    assert torch.equal(plate[~wanted[:, None].expand_as(plate)], noisy[~wanted[:, None].expand_as(plate)])


def test_chroma_key_by_hand(thing):
    """d(screen) = 0.6. The thing has d = -0.6 -> 1; the mixture d = 0.55 - 0.5 = 0.05 -> 11 / 12, not a half."""
    image, alpha, foreground = thing
    key, colours = greenpost.chroma_key(image, SCREEN)
    assert key[..., 6:18, 8:20].min() == 1
    torch.testing.assert_close(key[..., 6:18, 20:26], torch.full((1, 1, 12, 6), 11 / 12))
    assert key[alpha == 0].abs().max() < 1e-6
    solid = (alpha == 1).expand_as(colours)
    torch.testing.assert_close(colours[solid], foreground[solid])
    assert (colours[:, 1] <= torch.maximum(colours[:, 0], colours[:, 2])).all()  # no green is left
    green_thing = torch.tensor([0.2, 0.7, 0.1]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert greenpost.chroma_key(green_thing, SCREEN)[0].max() < 0.2  # what it cannot do
    with pytest.raises(ValueError, match=r"screen is \(1, 0, 0\), expected a green"):
        greenpost.chroma_key(image, (1, 0, 0))


def test_green_post_end_to_end(thing):
    image, alpha, _ = thing
    refiner = make_refiner(widths=(8, 16), hidden=3, mending=5).eval()
    found = greenpost.green_post(image, alpha, refiner, share=0.5)
    assert found.alpha.shape == alpha.shape
    assert found.foreground.shape == found.plate.shape == image.shape
    assert found.colour == pytest.approx(SCREEN, abs=1e-5)
    assert found.mended.mean().item() == pytest.approx(0.5, abs=0.02)
    again = greenpost.green_post(image, alpha, refiner, share=0.5)
    assert torch.equal(found.alpha, again.alpha)


def test_a_trimap_has_the_last_word(thing):
    _, alpha, _ = thing
    trimap = torch.full_like(alpha, 0.5)
    trimap[..., :8, :], trimap[..., 12:, 30:] = 0, 1
    edited = greenpost.apply_trimap(alpha, trimap)
    assert edited[..., :8, :].max() == 0
    assert edited[..., 12:, 30:].min() == 1
    assert torch.equal(edited[..., 8:, :30], alpha[..., 8:, :30])
    with pytest.raises(ValueError, match="trimap holds other values than 0, 0.5 and 1"):
        greenpost.apply_trimap(alpha, alpha * 0.3)


def test_without_pymatting(thing, monkeypatch):
    image, alpha, _ = thing
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(check.NotAvailable, match="pip install pymatting"):
        greenpost.estimate_foreground(image, alpha)
    with pytest.raises(check.NotAvailable, match="Without it there are green_post"):
        greenpost.closed_form(image, (alpha > 0.9).float())
    with pytest.raises(ValueError, match="trimap lacks known background"):
        greenpost.closed_form(image, torch.ones_like(alpha))


def test_what_pymatting_is_given_and_gives(thing, monkeypatch):
    """A stand-in that checks PyMatting's conventions: (H, W, 3) and (H, W), float64."""
    image, alpha, _ = thing
    seen = []

    def solve(picture, matte):
        seen.append((picture.shape, picture.dtype, matte.shape, matte.dtype))
        return np.where(matte == 0.5, 0.25, matte)

    fake = types.SimpleNamespace(estimate_alpha_cf=solve, estimate_foreground_ml=lambda picture, matte: picture[::-1])
    monkeypatch.setitem(sys.modules, "pymatting", fake)
    found = greenpost.closed_form(image, alpha)  # its values are those of a trimap
    assert seen == [((24, 36, 3), np.float64, (24, 36), np.float64)]
    assert found[alpha == 0.5].unique().tolist() == [0.25]
    assert found.dtype == torch.float32
    torch.testing.assert_close(greenpost.estimate_foreground(image, alpha), image.flip(2))


def test_refusals(thing):
    image, alpha, _ = thing
    with pytest.raises(ValueError, match="image holds 2 pictures"):
        greenpost.background_colour(image.repeat(2, 1, 1, 1), alpha)
    with pytest.raises(ValueError, match=r"coarse_alpha is \(24, 35\) and image is \(24, 36\)"):
        greenpost.clean_plate(image, alpha[..., 1:], SCREEN)
    with pytest.raises(ValueError, match="colour has 2 numbers"):
        greenpost.clean_plate(image, alpha, (0, 1))
