"""Random rectangles with the published statistics, and which hole an item learns with."""

import numpy as np
import pytest
import torch

from workbench.diffusion.lora_task import MASK_POLICIES
from workbench.methods.realfill import random_rectangles, training_hole


def test_the_published_statistics():
    """methods-1.md 1.3: at 100 x 100 the union covers 22 % on average, 3 % to 40 % from the 5th to the 95th percentile.

    The mean of 400 draws has a standard error of 0.6 %; the percentiles are allowed 3 %.
    """
    hidden = np.array([random_rectangles(np.random.default_rng(k), (100, 100)).mean().item() for k in range(400)])
    assert 0.4 < (hidden > 0.5).mean() < 0.6  # union or complement, half and half
    union = np.minimum(hidden, 1 - hidden)
    assert union.mean() == pytest.approx(0.22, abs=0.02)
    assert np.percentile(union, [5, 95]) == pytest.approx([0.03, 0.40], abs=0.03)


def test_nothing_but_the_generator_counts():
    state = torch.random.get_rng_state()
    a, b = (random_rectangles(np.random.default_rng(3), (30, 50)) for _ in range(2))
    assert torch.equal(a, b)
    assert a.shape == (1, 1, 30, 50)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(MASK_POLICIES["rectangles"](np.random.default_rng(3), (30, 50)), a)


def test_which_hole_an_item_learns_with(mask):
    def holes(*args, **options):
        return [training_hole(np.random.default_rng(k), mask, *args, **options) for k in range(100)]

    for drawn in (holes(True), holes(False)):
        assert all(torch.equal(hole * mask, mask) for hole in drawn)  # what is not known is never shown
        assert 2 < sum(hole.min().item() == 1 for hole in drawn) < 25  # a tenth has everything hidden
        assert not all(torch.equal(hole, mask) for hole in drawn)
    assert all(torch.equal(hole, mask) for hole in holes(True, "hole"))
    assert not all(torch.equal(hole, mask) for hole in holes(False, "hole"))
    assert not any(hole.min() == 1 for hole in holes(False, mask_dropout=0.0))
    with pytest.raises(ValueError, match="target_mask is 'own', expected one of: random, hole"):
        holes(True, "own")
