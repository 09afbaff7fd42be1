"""Ranking by matches in the hole, and the baselines made of matches."""

import pytest
import torch

import workbench as wb
from workbench.lenses.correspondence.geometry import Geometry
from workbench.methods.realfill import fine_tune, rank, scene_variants, warp
from workbench.methods.realfill.warping import _bent

SIZE = (110, 150)


@pytest.fixture(scope="module")
def photo():
    return wb.image.resize(wb.load_image("coffee"), (200, 300))


@pytest.fixture(scope="module")
def scene(photo):
    """A part of a photograph with a hole, and two others that overlap it."""
    target, mask = photo[..., 30:140, 90:240], wb.mask.box(SIZE, (60, 30, 130, 90))
    return target, mask, [photo[..., 20:150, 120:260], photo[..., 25:165, 70:290]]


@pytest.mark.long
def test_the_truth_before_noise_and_only_the_hole_counts(scene):
    target, mask, references = scene
    noise = torch.rand(target.shape, generator=torch.Generator().manual_seed(0))
    grey = torch.full_like(target, 0.5)
    results = [torch.where(mask > 0.5, filling, target) for filling in (noise, target, grey)]
    ranking = rank(results, references, mask, keep=2)
    assert ranking.order[0] == 1
    assert ranking.totals[1] > ranking.totals[0] + 10
    assert ranking.totals[2] == 0  # the known part alone matches as well as the others'
    assert ranking.counts.shape == (3, 2)
    assert torch.equal(ranking.best, torch.cat([results[k] for k in ranking.order[:2]]))
    for row in ranking.matches:
        for found in row:
            x, y = found.points_a.T
            assert ((x > 60) & (x < 130) & (y > 30) & (y < 90)).all()
    assert torch.equal(rank(torch.cat(results[:2]), references[:1], mask).counts, ranking.counts[:2, :1])
    level = torch.cat([found.confidence for found in ranking.matches[1]]).median().item()
    sure = rank(results[1:2], references, mask, confidence=level).counts[0]
    assert sure.tolist() == [int((found.confidence >= level).sum()) for found in ranking.matches[1]]
    assert sure.sum() < ranking.totals[1]


@pytest.mark.long
def test_what_it_tells(scene):
    target, mask, references = scene
    ranking = rank([target, target], references, mask)
    assert ranking.order == (0, 1)  # equals stay in their order
    lines = repr(ranking).splitlines()
    assert lines[0].startswith(f"Ranking by sift: {int(ranking.totals[0])} matches in the best of 2 samples")
    assert lines[1].split() == ["place", "sample", "reference", "0", "reference", "1", "all", "kept"]
    assert lines[2].endswith("yes")
    assert not lines[3].endswith("yes")
    assert ranking._repr_html_().count("<tr>") == 3
    assert ranking.show().axes[0].get_title().startswith("sample 0, reference")
    assert len([ax for ax in ranking.gallery().axes if ax.get_title()]) == 2
    with pytest.raises(ValueError, match="sample is 2"):
        ranking.show(2)
    flat = rank([torch.full_like(target, 0.5)], references, mask)
    assert "too few to tell one from another" in flat.told


def test_refusals_of_rank(scene):
    target, mask, references = scene
    with pytest.raises(ValueError, match="results is empty"):
        rank([], references, mask)
    with pytest.raises(ValueError, match="references is empty"):
        rank([target], [], mask)
    with pytest.raises(ValueError, match="mask has no hole"):
        rank([target], references, torch.zeros_like(mask))
    with pytest.raises(ValueError, match=r"results\[1\] is \(110, 149\)"):
        rank([target, target[..., 1:]], references, mask)
    with pytest.raises(ValueError, match=r"results\[0\] has values from 0 to"):
        rank([target * 255], references, mask)
    with pytest.raises(ValueError, match="keep is 3"):
        rank([target], references, mask, keep=3)
    with pytest.raises(wb.check.NotAvailable, match="loftr|LoFTR"):
        rank([target], references, mask, method="loftr", weights="nowhere.ckpt")


def test_a_flat_scene_is_warped_into_the_hole(scene):
    target, mask, references = scene
    warped, rest = warp(torch.where(mask > 0.5, torch.ones(()), target), mask, references)
    assert torch.equal(warped * (1 - mask), target * (1 - mask))
    assert rest.sum() == 0
    assert wb.metrics.psnr(warped, target, mask) > 30  # whole pixels apart: all that is lost is RANSAC's rounding


def test_what_no_reference_shows_is_left_open(scene):
    target, mask, references = scene
    narrow = references[0][..., :60]  # columns 30 to 90 of the target
    warped, rest = warp(target, mask, [narrow])
    assert 0 < rest.sum() < mask.sum()
    assert (warped * rest)[:, :, rest[0, 0] > 0.5].unique().tolist() == [0.5]
    noise = torch.rand(1, 3, 60, 60, generator=torch.Generator().manual_seed(1))
    assert torch.equal(warp(target, mask, [noise])[1], mask)
    with pytest.raises(ValueError, match="references is empty"):
        warp(target, mask, [])


def test_what_fits_round_the_hole_counts_most(scene):
    """Another place with more matches: it is the whole photograph but for the hole and what is round it."""
    target, mask, (near, _) = scene
    photo = wb.image.resize(wb.load_image("coffee"), (200, 300))
    other = torch.where(
        wb.mask.box((200, 300), (140, 50, 230, 130)) > 0.5, 1 - photo, photo
    )  # 10 px more than the hole
    torch.testing.assert_close(warp(target, mask, [other, near])[0], warp(target, mask, [near])[0], rtol=0, atol=1e-3)
    assert warp(target, mask, [other])[1].sum() == 0
    assert torch.equal(warp(target, mask, [other], agreement=15)[1], mask)
    hidden = torch.where(mask > 0.5, torch.rand(target.shape), target)
    assert torch.equal(warp(hidden, mask, [near])[0], warp(target, mask, [near])[0])  # the hole is not looked at
    with pytest.raises(ValueError, match="agreement is -1"):
        warp(target, mask, [near], agreement=-1)


def test_references_are_relit_and_averaged(scene):
    target, mask, (near, _) = scene
    dark = (near - 0.2 * torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1)).clamp(0, 1)
    relit = warp(target, mask, [dark])[0]
    assert wb.metrics.psnr(relit, target, mask) > wb.metrics.psnr(dark, near, where="all") + 6
    noises = [torch.randn(near.shape, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    noisy = [(near + 0.08 * noise).clamp(0, 1) for noise in noises]
    one, four = (wb.metrics.psnr(warp(target, mask, some)[0], target, mask) for some in (noisy[:1], noisy))
    assert four > one + 1  # the mean of four has half the noise
    with pytest.raises(ValueError, match="rounds is 0"):
        warp(target, mask, [near], rounds=0)


def test_a_shift_by_hand():
    reference = torch.rand(1, 3, 5, 9)
    shift = Geometry("homography", torch.tensor([[1.0, 0, 2], [0, 1, -1], [0, 0, 1]]).double(), torch.ones(9) > 0, 3.0)
    bent, seen = _bent(reference, shift, (5, 9))  # pixel (x, y) shows the reference's (x + 2, y - 1)
    torch.testing.assert_close(bent[..., 1:, :7], reference[..., :4, 2:], rtol=0, atol=1e-5)
    assert seen[..., 1:, :7].min() == 1
    assert seen.sum() == 28


@pytest.mark.long
def test_the_scene_from_nothing(pipe, references, target, mask):
    run = fine_tune(pipe, references, target, mask, steps=1, rank=2, crops=1, holes_each=1, batch_size=1)
    run.step()
    variants = scene_variants(run, 2, seed=4, num_inference_steps=2)
    assert variants.shape == (2, 3, 32, 32)
    alone = scene_variants(run, 1, seed=5, num_inference_steps=2)
    torch.testing.assert_close(alone, variants[1:], rtol=0, atol=1e-4)
