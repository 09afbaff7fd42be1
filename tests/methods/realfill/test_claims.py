"""Claims about RealFill: every measurement runs and gives numbers, and what judges them is right itself."""

import copy

import pytest
import torch

from tests.stepping import narrow
from workbench import claims, data
from workbench.diffusion.lora import lora_layers
from workbench.methods.realfill import claims as of_realfill

CLAIMS = {claim.name: claim for claim in of_realfill.CLAIMS}


@pytest.fixture(scope="module")
def small():
    """Two scenes, two updates, two seeds, an untrained model at 32 pixels a side."""
    pipe, names = copy.deepcopy(narrow.inpainting(9)), data.scenes()[:2]
    painter = copy.deepcopy(narrow.text_to_image())
    for one in (pipe, painter):
        one.unet.register_to_config(sample_size=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "scenes", lambda: names, raising=False)
        patch.setattr(of_realfill, "model", lambda: pipe)
        patch.setattr(of_realfill, "painter", lambda: painter)
        patch.setattr(of_realfill, "STEPS", 3)
        patch.setattr(of_realfill, "SEEDS", range(2))
        patch.setattr(of_realfill, "MANY_SEEDS", range(4))
        patch.setattr(of_realfill, "SIDE", 32)
        patch.setattr(of_realfill, "SAMPLING", {"num_inference_steps": 2, "side": 32})
        patch.setattr(of_realfill, "TUNING", {"batch_size": 1})
        for kept in (of_realfill._tuned, of_realfill.untuned, of_realfill.ways):
            kept.cache_clear()
        yield pipe
        for kept in (of_realfill._tuned, of_realfill.untuned, of_realfill.ways):
            kept.cache_clear()


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.long
def test_it_is_measured(small, name):
    finding = claims.measure(CLAIMS[name])
    assert finding.verdict in claims.VERDICTS
    assert {quantity.n for quantity in finding.quantities.values()} == {len(data.scenes())}
    assert claims.list_claims()[name] == CLAIMS[name]
    assert not lora_layers(small.unet)


def test_claims_share_the_common_tuning(small):
    of_realfill.target_masks()
    before = of_realfill._tuned.cache_info()
    of_realfill.references_help()
    after = of_realfill._tuned.cache_info()
    assert after.misses == before.misses
    assert after.hits > before.hits


def test_another_scenes_references_teach_something_else(small):
    one, other = data.scenes()
    own, strange = (of_realfill.tuned(one, shown=shown)["samples"] for shown in (None, other))
    assert own.shape == strange.shape
    assert not torch.equal(own, strange)


@pytest.mark.long
def test_every_baseline_is_measured_on_every_scene(small):
    found = of_realfill.baselines_lose()
    ways = ["caption only", "exemplar", "homography", "patches", "DreamBooth"]
    others = {way: found[f"{way}: PSNR"] for way in ways}
    best = max(others, key=lambda way: sum(others[way]))
    assert next(iter(found)) == f"RealFill - {best}, dB"
    for way, values in others.items():
        gains = [a - b for a, b in zip(found["RealFill: PSNR"], values, strict=True)]
        assert found[f"RealFill - {way}, dB"] == pytest.approx(gains)
    assert len({tuple(values) for values in others.values()}) == len(ways)
    assert not lora_layers(of_realfill.painter().unet)
    table = of_realfill.bench_table(claims.measure(CLAIMS["R10"])).splitlines()
    assert [line.split("|")[1].strip() for line in table] == ["in the hole", "---", *ways, "RealFill"]
    assert {line.count("|") for line in table} == {len(of_realfill.COLUMNS) + 2}
    scene, fills = data.scene(data.scenes()[0]), of_realfill.untuned(data.scenes()[0])
    one = of_realfill.measured(scene.target.expand_as(fills), scene)
    assert one["SSIM"] == pytest.approx(1)
    assert one["tiny_perceptual"] == 0
    assert of_realfill.measured(fills, scene)["PSNR"] == pytest.approx(of_realfill.quality(fills, scene).mean().item())


def test_rank_correlation_by_hand():
    rising = torch.tensor([1.0, 2.0, 5.0, 9.0])
    assert of_realfill.spearman(rising, rising**3) == pytest.approx(1)
    assert of_realfill.spearman(rising, -rising) == pytest.approx(-1)
    assert of_realfill.spearman(rising, torch.ones(4)) == 0
    # ranks 0.5, 0.5, 2, 3 against 0, 1, 2, 3: covariance 4.5, squares 4.5 and 5
    assert of_realfill.spearman(torch.tensor([3.0, 3.0, 4.0, 8.0]), rising) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
