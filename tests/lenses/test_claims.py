"""Claims about lenses: every measurement runs and gives numbers, and what judges them is right itself."""

import pytest
import torch

import workbench as wb
from tests.stepping.narrow import text_to_image
from workbench import claims, data
from workbench.lenses import trials
from workbench.lenses.attention import claims as of_attention
from workbench.lenses.correspondence import claims as of_correspondence
from workbench.lenses.correspondence.dense import cell_middles
from workbench.metrics import psnr

ROOMS = (of_attention, of_correspondence)
CLAIMS = {claim.name: claim for room in ROOMS for claim in room.CLAIMS}


@pytest.fixture
def small(monkeypatch):
    """Few scenes, few answers, an untrained model."""
    names = data.scenes()
    monkeypatch.setattr(data, "scenes", lambda: names[:2], raising=False)
    for room in (trials, *ROOMS):
        monkeypatch.setattr(room, "model", text_to_image)
    monkeypatch.setattr(of_correspondence, "ANSWERS", 20)
    monkeypatch.setattr(of_correspondence, "PHOTOGRAPHS", ("coffee",))
    monkeypatch.setattr(of_attention.early_steps, "__defaults__", (3, 0.4, 1))
    monkeypatch.setattr(of_attention.damage, "__defaults__", (1, 2))
    of_correspondence._scene_pairs.cache_clear()
    yield
    of_correspondence._scene_pairs.cache_clear()


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.long
def test_it_is_measured(small, name):
    finding = claims.measure(CLAIMS[name])
    assert finding.verdict in claims.VERDICTS
    assert len({quantity.n for quantity in finding.quantities.values()} - {len(data.scenes())}) <= 1
    assert claims.list_claims()[name] == CLAIMS[name]


def test_answers_on_the_same_kind_of_thing_are_right(small):
    """Somebody who knows both pictures' ids gets all points right; who always says the corner, few."""
    pairs = list(of_correspondence._strangers())

    def knowing(image_a, image_b, points):
        a, b = next(pair for pair in pairs if torch.equal(pair[0].target, image_a))
        (kinds_a, words_a), (kinds_b, words_b) = trials.kinds_of(a), trials.kinds_of(b)
        middles = cell_middles(tuple(kinds_b.shape), tuple(kinds_b.shape))
        found = []
        for x, y in points.tolist():
            word = words_a[int(kinds_a[int(y), int(x)])]
            found.append(middles[(kinds_b == words_b.index(word)).flatten().nonzero()[0, 0]])
        return torch.stack(found)

    assert of_correspondence._same_kind(knowing) == [1.0] * 2
    corner = of_correspondence._same_kind(lambda a, b, points: torch.full_like(points, 0.5))
    assert max(corner) < 0.5
    assert of_correspondence._same_kind(lambda a, b, points: torch.full_like(points, torch.nan)) == [0.0] * 2


def test_warped_pairs_show_at_the_true_place_what_was_there():
    for pair in list(of_correspondence._warped_pairs())[:3]:
        size = tuple(pair.truth.visible.shape)
        at = (pair.truth.points / 64 - 1)[None]  # (1, H, W, 2)
        there = torch.nn.functional.grid_sample(pair.image_b, at, align_corners=False)
        seen = pair.truth.visible[None, None].float()
        unmoved = psnr(pair.image_b, pair.image_a, seen)
        assert psnr(there, pair.image_a, seen) > unmoved + 6  # resampled twice, but the same things
        moved = (pair.truth.points.view(-1, 2) - cell_middles(size, size)).norm(dim=1)
        assert 1 < moved.median() < 20


def test_overlap_by_hand():
    there = torch.zeros(4, 6, dtype=torch.bool)
    there[1:3, 1:4] = True  # 6 pixels
    heat = there.float() + 0.1 * torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    assert of_attention.overlap(heat, there) == 1
    half = torch.zeros(4, 6)
    half[1, 1:4], half[3, 1:4] = 1, 1  # three of the six, and three elsewhere
    assert of_attention.overlap(half, there) == pytest.approx(3 / 9)


def test_a_held_out_view_is_the_same_every_time():
    first = trials.held_out(3, (12, 16))
    assert first.shape == (1, 3, 12, 16)
    assert torch.equal(first, trials.held_out.__wrapped__(3, (12, 16)))
    assert not torch.equal(first, trials.held_out(1, (12, 16)))
    with pytest.raises(ValueError, match="number is -1"):
        trials.held_out(-1)


def test_without_the_model_the_error_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("workbench.diffusion.pipelines.MODELS", tmp_path)
    trials.model.cache_clear()
    with pytest.raises(wb.check.NotAvailable, match="tiny-t2i"):
        claims.measure(CLAIMS["E3"])
