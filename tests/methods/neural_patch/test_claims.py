"""Claims about neural patches: every measurement runs and gives numbers, and what judges them is right itself."""

import importlib

import pytest
import torch

from workbench import claims, data
from workbench import mask as masks
from workbench.image import resize
from workbench.lenses import trials

of_patches = importlib.import_module("workbench.methods.neural_patch.claims")
evaluation = importlib.import_module("workbench.methods.neural_patch.evaluation")
CLAIMS = {claim.name: claim for claim in of_patches.CLAIMS}
MEAN = of_patches.plain


@pytest.fixture(scope="module")
def small(network):
    """One view of 64 x 64, two iterations, an untrained network; the mean colour says what is in the hole."""
    names = data.scenes()

    def scene(number, size=(128, 128)):
        return resize(data.scene(names[number]).target, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "held_out", scene)
        patch.setattr(of_patches, "texture_network", lambda: network)
        patch.setattr(of_patches, "imagined", MEAN)
        patch.setattr(evaluation, "tiny_perceptual", lambda a, b: (a - b).abs().mean((1, 2, 3)))
        patch.setattr(of_patches, "VIEWS", range(1))
        patch.setattr(of_patches, "FACADES", range(0, 2, 2))
        patch.setattr(of_patches, "LARGE_VIEWS", range(1))
        patch.setattr(of_patches, "SMALL", {"side": 64, "sizes": (32, 64), "iterations": 2})
        patch.setattr(of_patches, "LARGE", {"side": 64, "sizes": (32, 64), "iterations": 2, "refresh": 0})
        patch.setattr(of_patches, "RELEASED_COPIES", ((7.5, 1),))
        patch.setattr(of_patches, "inpaint", _without_encoder)
        of_patches._fill.cache_clear()
        yield network
        of_patches._fill.cache_clear()


def _without_encoder(picture, mask, method, **params):
    return evaluation.inpaint(picture, mask, {"context_encoder": "mean"}.get(method, method), **params)


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_measured(small, name):
    finding = claims.measure(CLAIMS[name])
    assert finding.verdict in claims.VERDICTS
    assert {quantity.n for quantity in finding.quantities.values()} == {1}
    assert claims.list_claims()[name] == CLAIMS[name]


def test_claims_share_what_they_have_in_common(small):
    of_patches.texture_sharpens()
    before = of_patches._fill.cache_info()
    of_patches.copies_help()
    after = of_patches._fill.cache_info()
    assert after.misses - before.misses <= 1
    assert after.hits > before.hits


@pytest.fixture
def bars():
    """Bars of 8 pixels on 64 x 64, and a hole of 32 x 32 in the middle."""
    across = 0.2 + 0.6 * (torch.arange(64) // 8 % 2)
    return across.expand(1, 3, 64, 64).clone(), masks.centre((64, 64), 0.5)


def test_gradient_energy_by_hand(bars):
    truth, mask = bars
    assert of_patches.gradient_energy(truth, truth, mask) == pytest.approx(0)
    fainter = torch.where(mask > 0, 0.5 + (truth - 0.5) / 2, truth)
    assert of_patches.gradient_energy(fainter, truth, mask) == pytest.approx(-6.02, abs=0.01)  # half the slope


def test_structure_sees_shifts_and_no_grain(bars):
    truth, mask = bars
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2 - 0.5
    grainy, moved = truth + 0.1 * checks * mask, torch.where(mask > 0, truth.roll(4, 3), truth)
    assert of_patches.structure(grainy, truth, mask) > 60  # of every block the mean is as it was
    assert of_patches.structure(moved, truth, mask) < 20
    assert of_patches.alignment(truth, truth, mask) == pytest.approx(1)
    assert of_patches.alignment(moved, truth, mask) < 0.95
