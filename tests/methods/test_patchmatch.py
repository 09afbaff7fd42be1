"""PatchMatch: the matcher against shifts worked out by hand and against exhaustive search, then the completion."""

import importlib

import numpy as np
import pytest
import skimage.data
import skimage.transform
import torch

from workbench.methods import patchmatch
from workbench.methods.patchmatch import levels
from workbench.methods.patchmatch.field import grow, pixel_grid, shift
from workbench.methods.patchmatch.fill import best_source, upsample_field
from workbench.methods.patchmatch.levels import halve, make_pyramid, texture_features


def noise(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hole(height, width, *boxes):
    mask = torch.zeros(1, 1, height, width)
    for x0, y0, x1, y1 in boxes:
        mask[..., y0:y1, x0:x1] = 1
    return mask


def photo(name, size=None):
    picture = np.asarray(getattr(skimage.data, name)(), dtype=np.float32) / 255
    picture = np.stack([picture] * 3, -1) if picture.ndim == 2 else picture
    if size is not None:
        picture = skimage.transform.resize(picture, size, anti_aliasing=True)
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def psnr_in_hole(a, b, mask):
    return -10 * torch.log10((((a - b) ** 2) * mask).sum() / (3 * mask.sum())).item()


def complete(image, mask, **kwargs):
    return list(patchmatch.fill(image, mask, **kwargs))


@pytest.fixture(scope="module")
def stereo():
    left, right, _ = skimage.data.stereo_motorcycle()
    small = [skimage.transform.resize(x / 255, (96, 128), anti_aliasing=True) for x in (left, right)]
    return [torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in small]


# ---------------------------------------------------------------- the matcher


def test_field_of_a_shifted_copy_is_the_shift():
    source = noise(40, 56)
    target = source[..., 4:34, 9:49]  # target (x, y) is source (x + 9, y + 4)
    for search in (patchmatch.exhaustive_field, patchmatch.nearest_neighbour_field):
        field = search(target, source, patch=5)
        assert field.xy.shape == (1, 2, 30, 40)
        assert field.error.shape == (1, 1, 30, 40)
        inner = field.offsets[..., 2:-2, 2:-2]  # patches that do not hang over the edge
        assert (inner[:, 0] == 9).all()
        assert (inner[:, 1] == 4).all()
        assert (field.error[..., 2:-2, 2:-2] == 0).all()


def test_distance_by_hand():
    target, source = torch.zeros(1, 3, 5, 6), torch.zeros(1, 3, 4, 7)
    source[0, 1, 2, 3] = 0.6  # one channel of one pixel of a 3 x 3 patch: 0.6^2 / 27
    pair = patchmatch.PatchPair(target, source, patch=3)
    d = pair.distance(torch.tensor([8, 8]), torch.tensor([2 * 7 + 3, 1 * 7 + 1]))
    assert d.tolist() == pytest.approx([0.36 / 27, 0])


def test_distance_agrees_with_a_loop_at_the_edge():
    target, source = noise(6, 9, 1), noise(8, 7, 2)
    pair = patchmatch.PatchPair(target, source, patch=5)
    t, s = target[0].numpy(), source[0].numpy()
    padded = np.pad(t, ((0, 0), (2, 2), (2, 2)), mode="edge")
    for x, y, sx, sy in ((0, 0, 2, 2), (8, 5, 4, 5), (3, 2, 3, 4)):
        expected = ((padded[:, y : y + 5, x : x + 5] - s[:, sy - 2 : sy + 3, sx - 2 : sx + 3]) ** 2).mean()
        found = pair.distance(torch.tensor([y * 9 + x]), torch.tensor([sy * 7 + sx])).item()
        assert found == pytest.approx(expected, rel=1e-5)


def test_exhaustive_search_agrees_with_a_loop():
    target, source = noise(5, 7, 1), noise(9, 8, 2)
    field = patchmatch.exhaustive_field(target, source, patch=3)
    t, s = np.pad(target[0].numpy(), ((0, 0), (1, 1), (1, 1)), mode="edge"), source[0].numpy()
    for y in range(5):
        for x in range(7):
            d = {
                (sx, sy): ((t[:, y : y + 3, x : x + 3] - s[:, sy - 1 : sy + 2, sx - 1 : sx + 2]) ** 2).mean()
                for sy in range(1, 8)
                for sx in range(1, 7)
            }
            assert tuple(field.xy[0, :, y, x].tolist()) == min(d, key=d.get)


def test_propagation_and_search_never_make_it_worse(stereo):
    pair = patchmatch.PatchPair(*stereo, patch=7)
    field, random = patchmatch.random_field(pair, generator()), generator(1)
    for move in (
        lambda f: patchmatch.propagate(pair, f, 4),
        lambda f: patchmatch.propagate(pair, f, 1),
        lambda f: patchmatch.random_search(pair, f, random),
        lambda f: patchmatch.random_search(pair, f, random, radius=3),
    ):
        better = move(field)
        assert (better.error <= field.error).all()
        assert better.mean_error < field.mean_error
        flat = better.xy[0, 1] * 128 + better.xy[0, 0]  # the errors belong to the matches
        assert torch.equal(pair.distance(pair.where, flat.flatten()), better.error.flatten())
        field = better


def test_one_good_guess_spreads_by_propagation():
    source = noise(24, 30)
    pair = patchmatch.PatchPair(source, source, patch=3)
    wrong = pair.sources[0].expand(len(pair.where)).clone()
    wrong[12 * 30 + 15] = 12 * 30 + 15  # only the pixel (15, 12) knows that it matches itself
    field = patchmatch.propagate(pair, pair.field(wrong))
    right = (field.offsets == 0).all(1)[0].nonzero().tolist()
    right = {(y, x) for y, x in right if y > 5}  # the pixel (1, 1) happens to be right as well, and spreads too
    # right, down, left, up take their turns within one call, so the guess fills the 3 x 3 square around it
    assert right == {(y, x) for y in (11, 12, 13) for x in (14, 15, 16)}


@pytest.mark.long
def test_field_is_within_five_percent_of_exhaustive(stereo):
    # measured 1.035 to 1.040 with 8 seeds; 5 % is the project's aim for this size
    exact = patchmatch.exhaustive_field(*stereo)
    for seed in (0, 1):
        field = patchmatch.nearest_neighbour_field(*stereo, seed=seed)
        assert exact.mean_error <= field.mean_error < 1.05 * exact.mean_error


def test_more_iterations_from_an_init_go_on(stereo):
    first = patchmatch.nearest_neighbour_field(*stereo, iterations=1)
    second = patchmatch.nearest_neighbour_field(*stereo, iterations=1, seed=5, init=first)
    assert (second.error <= first.error).all()
    assert second.mean_error < 0.9 * first.mean_error


@pytest.mark.parametrize("search", [patchmatch.nearest_neighbour_field, patchmatch.exhaustive_field])
def test_masks_choose_targets_and_sources(search):
    image, mask = noise(36, 50), hole(36, 50, (20, 10, 30, 16))
    field = search(image, image, patch=5, target_mask=mask, source_mask=mask)
    touching = grow(mask, 2) > 0
    assert torch.equal(field.inside, touching)
    assert (field.error[~touching] == 0).all()
    x, y = field.xy[0][:, touching[0, 0]]
    assert (x >= 2).all()
    assert (x < 48).all()
    assert (y >= 2).all()
    assert (y < 34).all()
    assert (grow(mask, 2)[0, 0, y, x] == 0).all()


def test_same_seed_same_field_and_global_state_untouched():
    a, b = noise(30, 40, 1), noise(26, 44, 2)
    before = torch.random.get_rng_state()
    one, two, other = (patchmatch.nearest_neighbour_field(a, b, iterations=1, seed=s) for s in (3, 3, 4))
    assert torch.equal(one.xy, two.xy)
    assert not torch.equal(one.xy, other.xy)
    assert torch.equal(before, torch.random.get_rng_state())


def test_shift_and_grid():
    grid = pixel_grid(torch.zeros(1, 1, 3, 4))
    assert grid[0, :, 2, 1].tolist() == [1, 2]
    moved = shift(grid, 1, -2)  # right by 1, up by 2
    assert moved[0, :, 0, 1].tolist() == [0, 2]
    assert (moved[..., 1:, :] == -1).all()
    assert (moved[..., 0] == -1).all()
    assert (shift(grid, 9, 0) == -1).all()


# ---------------------------------------------------------------- the completion, in pieces


def test_voting_by_hand():
    image, mask = torch.zeros(1, 1, 5, 8), hole(5, 8, (2, 2, 3, 3))
    image[0, 0, 2, 5], image[0, 0, 2, 6] = 0.2, 0.8
    xy, error = torch.full((1, 2, 5, 8), -1), torch.zeros(1, 1, 5, 8)
    xy[0, :, 2, 2] = torch.tensor([5, 2])  # the patch on the hole would copy the pixel (5, 2): 0.2
    xy[0, :, 2, 1] = torch.tensor([5, 2])  # the patch to its left would copy (6, 2): 0.8
    filled = patchmatch.vote(image, mask, patchmatch.Field(xy, error), patch=3)
    # equal errors; the patch one pixel deep in the hole weighs 1 / 1.2
    assert filled[0, 0, 2, 2].item() == pytest.approx((0.2 / 1.2 + 0.8) / (1 / 1.2 + 1))
    assert torch.equal(filled * (1 - mask), image * (1 - mask))
    error[0, 0, 2, 1] = 1.0
    source = best_source(mask, patchmatch.Field(xy, error), patch=3)
    assert source[0, 0, 2, 2] == 2 * 8 + 5
    assert source[0, 0, 4, 7] == 4 * 8 + 7


def test_pyramid_never_mixes_hole_and_known():
    image, mask = noise(37, 51) * 0.1 + 0.4, hole(37, 51, (11, 7, 40, 30))
    level = make_pyramid(torch.where(mask > 0, 1.0, image), mask, 3, texture=0)[0][0]
    smaller = halve(level)
    assert smaller.features.shape == (1, 5, 19, 26)
    known = smaller.features[:, :3][(smaller.mask == 0).expand(-1, 3, -1, -1)]
    assert known.min() >= 0.4
    assert known.max() <= 0.5 + 1e-6
    assert smaller.mask[0, 0, 3, 5] == 1
    assert smaller.mask[0, 0, 2, 5] == 0


def test_texture_features_by_hand():
    image, mask = torch.zeros(1, 3, 20, 24), hole(20, 24, (15, 5, 20, 10))
    image[..., ::2] = 0.5  # stripes: every step across is 0.5, every step down is 0
    across, down = texture_features(image, mask, 5)[0]
    known = mask[0, 0] == 0
    assert torch.allclose(across[known], torch.tensor(0.5))
    assert (across[~known] == 0).all()
    assert (down == 0).all()


def test_a_field_carried_up_points_to_the_same_place():
    image, mask = noise(40, 60), hole(40, 60, (24, 14, 33, 23))
    fine, coarse = make_pyramid(image, mask, 3, 1.0)[0][0], None
    coarse = halve(fine)
    pairs = [
        patchmatch.PatchPair(x.features, x.features, patch=3, target_mask=x.mask, source_mask=x.mask, overhang=False)
        for x in (fine, coarse)
    ]
    field = patchmatch.random_field(pairs[1], generator())
    up = upsample_field(field, pairs[0], generator())
    assert pairs[0].allowed[pairs[0].centres(up)].all()
    for x, y in ((24, 14), (29, 18), (32, 22)):
        expected = 2 * field.xy[0, :, y // 2, x // 2] + torch.tensor([x % 2, y % 2])
        assert torch.equal(up.xy[0, :, y, x], expected)


def test_blending_removes_a_jump_and_keeps_an_edge():
    ramp = torch.linspace(0.3, 0.6, 60).expand(1, 3, 30, 60).contiguous()
    mask = hole(30, 60, (20, 8, 34, 22))
    source = torch.arange(30 * 60).view(1, 1, 30, 60)
    source = torch.where(mask > 0, source - 18, source)  # copied from 18 pixels further left: too dark by 0.09
    copied = torch.where(mask > 0, ramp - 18 * 0.3 / 59, ramp)
    blended = patchmatch.blend_seams(ramp, mask, source, edge=0)
    assert (blended - ramp).abs().max() < 0.2 * (copied - ramp).abs().max()
    # with `edge` far below the jump of 0.09 the same jump counts as an edge, and most of it stays
    kept = patchmatch.blend_seams(ramp, mask, source, edge=0.01)
    assert (kept - copied).abs().max() < 0.3 * (copied - ramp).abs().max()
    assert torch.equal(blended * (1 - mask), ramp * (1 - mask))


# ---------------------------------------------------------------- the completion, as a whole


@pytest.fixture(scope="module")
def brick():
    image = photo("brick")[..., 100:228, 60:236].contiguous()
    mask = hole(128, 176, (70, 40, 110, 75))
    return image, mask, complete(image, mask, seed=0)


def test_steps_are_counted_and_can_be_looked_at(brick):
    image, _, steps = brick
    assert [s.i for s in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].total == len(steps)
    assert all(s.total >= steps[-1].total for s in steps)
    assert steps[0].label == "level 1 of 2, pass 1"
    assert steps[0].image.shape == (1, 3, 64, 88)
    for step in steps:
        height, width = step.image.shape[-2:]
        assert step.arrays["field"].shape == (1, 2, height, width)
        assert step.arrays["error"].shape == step.arrays["mask"].shape == (1, 1, height, width)
        assert step.image.dtype == torch.float32
        assert step.image.min() >= 0
        assert step.image.max() <= 1
    assert steps[-1].image.shape == image.shape


def test_sources_never_overlap_the_hole(brick):
    for step in brick[2]:
        mask, field = step.arrays["mask"], step.arrays["field"]
        x, y = field[0][:, field[0, 0] >= 0]
        assert len(x)
        assert (grow(mask, 3)[0, 0, y, x] == 0).all()
        assert (x >= 3).all()
        assert (x < mask.shape[3] - 3).all()
        assert (y >= 3).all()
        assert (y < mask.shape[2] - 3).all()


def test_kept_pixels_are_bit_equal_and_inputs_untouched(brick):
    image, mask, steps = brick
    assert torch.equal(steps[-1].image * (1 - mask), image * (1 - mask))
    copies = image.clone(), mask.clone()
    complete(image, mask, passes=1)
    assert torch.equal(image, copies[0])
    assert torch.equal(mask, copies[1])


def test_same_seed_same_picture_and_the_hole_is_not_looked_at(brick):
    image, mask, steps = brick
    painted = torch.where(mask > 0, noise(128, 176), image)
    assert torch.equal(complete(painted, mask, seed=0)[-1].image, steps[-1].image)
    assert not torch.equal(complete(image, mask, seed=1)[-1].image, steps[-1].image)


def test_texture_beats_mean_fill(brick):
    # Bricks have lines to be continued: measured 11.8 to 14.2 dB over the mean with 6 seeds; half of it is asked for.
    # Not asked for on grass or gravel, where any sharp answer loses to the mean in PSNR.
    image, mask, steps = brick
    mean = (image * (1 - mask)).sum((2, 3), keepdim=True) / (1 - mask).sum()
    assert psnr_in_hole(steps[-1].image, image, mask) > psnr_in_hole(mean.expand_as(image), image, mask) + 6


@pytest.mark.long
def test_texture_keeps_its_grain():
    # The mean step between neighbours inside the hole over that of the known picture: measured 0.89 to 1.00 with 4
    # seeds, 0.71 to 0.83 before the last step, which undoes the blur of voting; a mean fill has 0.
    image, mask = photo("gravel")[..., 50:200, 80:260].contiguous(), hole(150, 180, (60, 50, 110, 95))
    result = complete(image, mask)[-1].image
    steps = result.diff(dim=3).abs().mean(1, keepdim=True)
    inside, outside = steps[mask[..., 1:] > 0].mean(), steps[mask[..., 1:] == 0].mean()
    assert 0.8 < inside / outside < 1.2


def test_a_periodic_picture_is_restored_exactly():
    y, x = torch.meshgrid(torch.arange(60), torch.arange(84), indexing="ij")
    tile = noise(6, 7)
    image = tile[..., y % 6, x % 7]
    mask = hole(60, 84, (30, 20, 44, 34))
    assert psnr_in_hole(complete(image, mask)[-1].image, image, mask) > 40


@pytest.mark.parametrize(
    ("size", "boxes"),
    [
        ((48, 70), [(0, 10, 12, 30)]),  # at the frame
        ((48, 70), [(0, 0, 9, 9), (61, 39, 70, 48)]),  # two corners
        ((48, 70), [(50, 0, 70, 48)]),  # outpainting
        ((48, 70), [(5, 5, 6, 6), (30, 20, 40, 28), (60, 8, 64, 44)]),  # one pixel, and more components
        ((48, 70), [(0, 0, 70, 48)]),  # nearly everything, see below
        ((5, 70), [(20, 1, 30, 4)]),  # thinner than a patch
        ((40, 2), [(0, 9, 2, 14)]),
        ((1, 9), [(3, 0, 5, 1)]),
        ((7, 7), [(3, 3, 4, 4)]),  # no patch of 7, 5 fits beside the hole
    ],
)
def test_odd_holes_and_sizes(size, boxes):
    image, mask = noise(*size) * 0.2 + 0.3, hole(*size, *boxes)
    if mask.all():
        mask[..., 3:6, 60:65] = 0
    result = complete(image, mask, passes=2)[-1].image
    assert result.shape == image.shape
    assert torch.equal(result * (1 - mask), image * (1 - mask))
    inside = result[(mask > 0).expand(-1, 3, -1, -1)]
    # colours come from the known part; blending may shift them a little
    assert inside.min() > 0.2
    assert inside.max() < 0.6


def test_large_holes_are_matched_at_half_size(monkeypatch):
    room = importlib.import_module("workbench.methods.patchmatch.fill")  # `patchmatch.fill` is the function
    monkeypatch.setattr(room, "WORK", 1000)
    monkeypatch.setattr(levels, "WINDOW", 10_000)
    image, mask = photo("gravel")[..., :220, :300].contiguous(), hole(220, 300, (150, 60, 200, 110))
    steps = complete(image, mask)
    assert steps[0].image.shape[-2:] == (87, 89)  # the hole's box and up to 64 pixels around, halved
    assert not any(s.label.startswith("level 2") for s in steps[:-1])
    assert steps[-1].image.shape == image.shape
    assert steps[-1].arrays["field"].shape == (1, 2, 220, 300)
    x, y = steps[-1].arrays["field"][0][:, steps[-1].arrays["field"][0, 0] >= 0]
    assert (grow(mask, 3)[0, 0, y, x] == 0).all()
    steps_in_hole = steps[-1].image.diff(dim=3).abs()[..., 60:110, 150:199].mean()
    assert steps_in_hole > 0.7 * image.diff(dim=3).abs().mean()  # full-size grain all the same


def test_empty_mask_returns_the_image():
    image = noise(20, 30)
    steps = complete(image, torch.zeros(1, 1, 20, 30))
    assert len(steps) == 1
    assert torch.equal(steps[0].image, image)
    assert (steps[0].arrays["field"] == -1).all()


def test_closing_half_way_is_harmless(brick):
    image, mask, steps = brick
    running = patchmatch.fill(image, mask, seed=0)
    assert torch.equal(next(running).image, steps[0].image)
    running.close()
    assert torch.equal(next(patchmatch.fill(image, mask, seed=0)).image, steps[0].image)


def test_other_dtypes_follow_the_input():
    mask = hole(30, 40, (10, 10, 18, 18))
    for dtype in (torch.float64, torch.float16):
        image = noise(30, 40).to(dtype)
        result = complete(image, mask, passes=1)[-1].image
        assert result.dtype == dtype
        assert torch.equal(result[..., :10, :], image[..., :10, :])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mask": torch.ones(1, 1, 20, 30)}, ValueError, "at least one known pixel"),
        ({"image": torch.rand(2, 3, 20, 30)}, ValueError, "image holds 2 pictures, expected one"),
        ({"mask": torch.ones(1, 3, 20, 30)}, ValueError, r"mask has shape \(1, 3, 20, 30\)"),
        ({"mask": torch.ones(1, 1, 20, 31)}, ValueError, "expected the same"),
        ({"patch": 6}, ValueError, "patch is 6, expected an odd number"),
        ({"patch": 7.0}, TypeError, "patch is 7.0"),
        ({"passes": 0}, ValueError, "passes is 0"),
        ({"texture": -1}, ValueError, "texture is -1"),
        ({"seed": -1}, ValueError, "seed is -1"),
    ],
)
def test_wrong_arguments_of_fill_fail_at_once(arguments, error, message):
    arguments = {"image": torch.rand(1, 3, 20, 30), "mask": hole(20, 30, (5, 5, 9, 9))} | arguments
    with pytest.raises(error, match=message):
        patchmatch.fill(**arguments)


def test_wrong_arguments_of_the_matcher():
    a, b = noise(20, 30), noise(9, 12)
    with pytest.raises(ValueError, match="source is .* has no 11 x 11 patch without a hole pixel"):
        patchmatch.nearest_neighbour_field(a, b, patch=11)
    with pytest.raises(ValueError, match="source holds 2 pictures"):
        patchmatch.exhaustive_field(a, b.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="source_mask is .* and source is"):
        patchmatch.nearest_neighbour_field(a, b, source_mask=torch.zeros(1, 1, 20, 30))
    with pytest.raises(ValueError, match="init is .* and target is"):
        patchmatch.nearest_neighbour_field(b, a, init=patchmatch.nearest_neighbour_field(a, b, iterations=0))
