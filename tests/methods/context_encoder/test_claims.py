"""Claims about the Context Encoder: every measurement runs and gives numbers, and what judges them is right itself."""

import importlib

import pytest
import torch
from torch import nn

from workbench import claims, data
from workbench.image import resize
from workbench.lenses import trials
from workbench.methods.context_encoder import make_context_encoder

of_encoder = importlib.import_module("workbench.methods.context_encoder.claims")
CLAIMS = {claim.name: claim for claim in of_encoder.CLAIMS}


@pytest.fixture
def small(monkeypatch):
    """Three views in batches of two, narrow untrained networks."""
    names = data.scenes()

    def scene(number, size=(128, 128)):
        return resize(data.scene(names[number]).target, size)

    monkeypatch.setattr(trials, "held_out", scene)
    monkeypatch.setattr(of_encoder, "VIEWS", range(3))
    monkeypatch.setattr(of_encoder, "BATCH", 2)
    monkeypatch.setattr(of_encoder.painted, "__defaults__", (2,))
    narrow = (8, 8, 8, 8, 16), (8, 8, 8)
    networks = {v: make_context_encoder(*narrow, s).eval() for s, v in enumerate(("adversarial", "l2"))}
    monkeypatch.setattr(of_encoder, "load_context_encoder", networks.__getitem__)
    return networks


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_measured(small, name):
    finding = claims.measure(CLAIMS[name])
    assert finding.verdict in claims.VERDICTS
    assert {quantity.n for quantity in finding.quantities.values()} == {3}
    assert claims.list_claims()[name] == CLAIMS[name]


def test_only_by_batch_do_neighbours_matter(small):
    views, model = of_encoder.truths(), small["adversarial"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    alone, together = of_encoder.painted(model, views, 1), of_encoder.painted(model, views, 3)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    other = of_encoder.by_batch(model)
    alone, together = of_encoder.painted(other, views, 1), of_encoder.painted(other, views, 3)
    assert (alone - together).abs().max() > 1e-3
    torch.testing.assert_close(of_encoder.painted(other, views, 3), together)  # it remembers nothing
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_the_sharper_network_is_told_from_the_softer(small, monkeypatch):
    grain = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    fills = {"adversarial": 0.5 + 0.2 * (grain - 0.5), "l2": 0.5 + 0.1 * (grain - 0.5)}
    monkeypatch.setattr(of_encoder, "load_context_encoder", lambda variant: variant)
    monkeypatch.setattr(of_encoder, "painted", lambda variant, views: fills[variant])
    effect = next(iter(of_encoder.adversary_sharpens().values()))
    assert effect == pytest.approx([6.02] * 3, abs=0.01)  # twice the slope, four times the energy
