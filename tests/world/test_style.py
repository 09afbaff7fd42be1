"""Photographic styles."""

import pytest
import torch

from workbench.world import Style, apply_style, random_style


def test_the_plain_style_changes_nothing(photo):
    assert torch.allclose(apply_style(photo, Style()), photo, atol=1e-5)


def test_each_part_does_what_it_says(photo):
    photo = 0.2 + 0.5 * photo
    grey = torch.full((1, 3, 9, 13), 0.5)
    assert apply_style(photo, Style(exposure=1)).mean() > photo.mean()
    warm = apply_style(grey, Style(warmth=0.5))[0].mean((1, 2))
    assert warm[0] > warm[1] >= warm[2]
    assert apply_style(photo, Style(saturation=0)).std(1).max() < 1e-6
    assert apply_style(photo, Style(contrast=1.5)).std() > photo.std()
    blurred = apply_style(photo, Style(blur=2))
    assert blurred.diff(dim=-1).abs().mean() < photo.diff(dim=-1).abs().mean()
    dark = apply_style(grey, Style(vignette=0.5))
    assert dark[0, 0, 0, 0] < dark[0, 0, 4, 6] == pytest.approx(0.5, abs=1e-5)
    grain = apply_style(grey, Style(grain=0.05), seed=3) - grey
    assert grain.std().item() == pytest.approx(0.05, rel=0.02)
    # one stop, by hand: 0.5 is 0.21404 in linear light; twice that is 1.055 * 0.42808 ** (1 / 2.4) - 0.055 in sRGB
    assert apply_style(grey, Style(exposure=1))[0, 0, 0, 0].item() == pytest.approx(0.68584, abs=1e-4)


def test_seeds(photo):
    style = Style(grain=0.05)
    assert torch.equal(apply_style(photo, style, 1), apply_style(photo, style, 1))
    assert not torch.equal(apply_style(photo, style, 1), apply_style(photo, style, 2))
    assert random_style(4) == random_style(4) != random_style(5)
    assert random_style(4, strength=0) == Style()
    changed = apply_style(photo, random_style(4))
    assert changed.shape == photo.shape
    assert 0 <= changed.min() <= changed.max() <= 1


def test_errors(photo):
    with pytest.raises(ValueError, match=r"style\.warmth is 3, expected a number from -1 to 1"):
        Style(warmth=3)
    with pytest.raises(ValueError, match=r"image has shape"):
        apply_style(photo[0], Style())
