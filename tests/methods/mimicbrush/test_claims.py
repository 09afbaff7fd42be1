"""Claims about MimicBrush: every measurement runs and gives numbers, and what judges is right itself."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from tests.methods.mimicbrush import narrow
from workbench import check, claims, data
from workbench import mask as masks
from workbench.methods.mimicbrush import claims as of_mimicbrush
from workbench.world.geometry import Correspondences

_case, _texture_cases = of_mimicbrush.case, of_mimicbrush.texture_cases
CLAIMS = {claim.name: claim for claim in of_mimicbrush.CLAIMS}


def made_up(name):
    """A case of 32 x 48 pixels in place of a clip's: the reference is the source, darker, 3 pixels to the right."""
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(48) + 0.5, indexing="ij")
    there = Correspondences(torch.stack([x + 3, y], -1), x < 44)
    source, box = narrow.noise(1, 3, 32, 48, seed=len(name)), masks.box((32, 48), (10, 9, 30, 21))
    thing = masks.box((32, 48), (13, 12, 27, 18))
    told = (thing, thing.roll(3, 3), there, "a photo of a room")
    return of_mimicbrush.Case(source, 0.9 * source.roll(3, 3), box, *told)


def repainted(number):
    """A case of texture transfer in place of a rendered one."""
    source, truth, reference = (narrow.noise(1, 3, 32, 48, seed=3 * number + k) for k in range(3))
    mask, region = masks.box((32, 48), (13, 12, 27, 18)), masks.box((20, 24), (4, 4, 20, 16))
    truth = torch.where(mask > 0.5, truth, source)
    return of_mimicbrush.TextureCase(source, truth, mask, reference[..., :20, :24], region)


@pytest.fixture(scope="module")
def small():
    """Two cases, one seed, two steps, an untrained model of 32 x 32 pixels."""
    brush, names = copy.deepcopy(narrow.model()), ["one", "other"]
    brush.imitator.unet.register_to_config(sample_size=8)
    changed = {
        "case": made_up,
        "texture_cases": lambda: tuple(repainted(k) for k in range(2)),
        "model": lambda name="": brush,
        "SEEDS": range(1),
        "SAMPLING": {"num_inference_steps": 2, "guidance_scale": 1.0},
        "LOOKING": 2,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "clips", lambda: names, raising=False)
        for name, value in changed.items():
            patch.setattr(of_mimicbrush, name, value)
        of_mimicbrush._filled.cache_clear()
        yield brush
        of_mimicbrush._filled.cache_clear()


@pytest.fixture
def classifier(small, monkeypatch):
    """The untrained one, wherever the bundled one is asked for."""
    found = small.image_encoder.classifier
    monkeypatch.setattr("workbench.diffusion.classifier.load_classifier", lambda *name: found)
    monkeypatch.setattr("workbench.diffusion.classifier._loaded", {})


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_measured(small, classifier, name):
    finding = claims.measure(CLAIMS[name])
    assert finding.verdict in claims.VERDICTS
    assert {quantity.n for quantity in finding.quantities.values()} == {len(data.clips())}
    assert claims.list_claims()[name] == CLAIMS[name]


def test_claims_share_fills_and_keep_known_pixels(small):
    of_mimicbrush.scores()
    before = of_mimicbrush._filled.cache_info().misses
    assert of_mimicbrush.scores(reference="whole", attend=True) == of_mimicbrush.scores()
    assert of_mimicbrush._filled.cache_info().misses == before
    given, fills = made_up("one"), of_mimicbrush.filled("one")
    kept = (given.mask < 0.5).expand_as(given.source)
    assert torch.equal(fills[kept], given.source[kept])
    assert not torch.allclose(fills[~kept], given.source[~kept], atol=0.05)


def test_a_clip_hides_a_thing_that_its_reference_shows():
    given, clip = _case("clip-03"), data.clip("clip-03")
    assert torch.equal(given.source, clip.frames[:1])
    assert (given.mask >= given.thing).all()
    assert given.mask.sum() > given.thing.sum() > 0 < given.region.sum()
    seen = given.there.visible & (given.thing[0, 0] > 0.5)
    x, y = given.there.points[seen].long().T
    assert given.region[0, 0, y, x].mean() > 0.9  # where the thing's pixels went, the reference shows it


@pytest.mark.long
def test_textures_come_from_things_of_other_rooms(monkeypatch):
    monkeypatch.setattr(of_mimicbrush, "TEXTURES", 1)
    asked = []
    monkeypatch.setattr(of_mimicbrush, "texture_case", lambda *told: asked.append(told))
    assert _texture_cases.__wrapped__() == (None,)
    ((scene, thing, other, donor),) = asked
    assert scene != other
    for room, index in ((scene, thing), (other, donor)):
        chosen = room.things[index]
        assert chosen.word not in of_mimicbrush.FIXED
        assert chosen.parts[0].material.pattern != "plain"


def test_what_the_reference_is_made_into():
    reference = narrow.noise(1, 3, 8, 12)
    assert torch.equal(of_mimicbrush.alone(reference, 1.0), reference)
    half = of_mimicbrush.alone(reference, 0.5)
    assert half.shape == reference.shape
    torch.testing.assert_close(half[..., 0, 0], reference.mean((2, 3)))
    many = of_mimicbrush.crowded(torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 8, 12))
    assert many.shape == (1, 3, 8, 12)
    corners = [many[0, :, y, x].tolist() for y, x in ((0, 0), (0, -1), (-1, 0), (-1, -1))]
    assert corners[0] == pytest.approx([0.1, 0.5, 0.9])
    assert len({tuple(round(v, 3) for v in corner) for corner in corners}) == 4


def test_shares_by_hand():
    heat = torch.zeros(8, 10)
    heat[2, 3], heat[7, 9] = 3.0, 1.0
    share, area = of_mimicbrush.share_near(heat, (3.5, 2.5), 0.9)
    assert (share, area) == pytest.approx((0.75, 1 / 80))
    assert of_mimicbrush.share_near(torch.ones(8, 10), (4, 4), 2.0)[0] == pytest.approx(
        12 / 80
    )  # four of each row pair


def test_a_silhouette_that_is_nearest_is_found(small, monkeypatch):
    given = made_up("one")
    near = dataclasses.replace(
        given, mask=masks.box((32, 32), (4, 4, 28, 28)), thing=masks.box((32, 32), (6, 8, 14, 20))
    )
    for depth, overlap in (
        (near.thing, 1),
        (1 - near.thing, 0),
        (torch.ones(1, 1, 32, 32) + 9 * (1 - near.mask), None),
    ):
        seen = SimpleNamespace(side=32, multiple=16, depth=lambda image, depth=depth: depth)
        monkeypatch.setattr(of_mimicbrush, "model", lambda seen=seen: seen)
        found = of_mimicbrush.silhouette(torch.zeros(1, 3, 32, 32), near)
        assert found == overlap if overlap is not None else 0 < found < 1  # outside of the hole nothing counts


def test_a_training_that_is_missing_is_told_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(of_mimicbrush.trials, "TRAINED", tmp_path)
    with pytest.raises(check.NotAvailable, match=r"mimic-stills is not there. Train it: .* --video-share 0 --folder"):
        of_mimicbrush.trained("stills")
