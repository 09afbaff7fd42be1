"""Masks: shapes worked out by hand, random masks by their statistics, changes by their properties."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

import workbench as wb
from workbench import mask as masks
from workbench import raster

SIZE = (9, 13)


def rows(mask: torch.Tensor) -> list[str]:
    """A mask as text, one string a row."""
    return ["".join(".#"[int(v)] for v in row) for row in mask[0, 0]]


# shapes


def test_box_by_hand():
    assert rows(masks.box((3, 5), (1, 0, 4, 2))) == [".###.", ".###.", "....."]
    assert rows(masks.box((3, 5), (-9, 1.4, 2.5, 99))) == [".....", "##...", "##..."]
    assert masks.box((3, 5), (7, 0, 9, 2)).sum() == 0


def test_ellipse_by_hand():
    assert rows(masks.ellipse((4, 6), (0, 0, 6, 4))) == [".####.", "######", "######", ".####."]


def test_polygon_by_hand():
    assert rows(masks.polygon((4, 6), [(0, 0), (4.2, 0), (0, 4.2)])) == ["####..", "###...", "##....", "#....."]


def test_filling_agrees_with_matplotlib_and_with_winding_numbers():
    from matplotlib.path import Path

    generator = np.random.default_rng(4)
    y, x = np.mgrid[:31, :47] + 0.5
    for _ in range(20):
        points = generator.uniform(-8, 50, (7, 2))
        closed = np.vstack([points, points[:1]])
        inside = Path(closed, closed=True).contains_points(np.stack([x.ravel(), y.ravel()], 1)).reshape(31, 47)
        assert np.array_equal(masks.polygon((31, 47), points)[0, 0].numpy(), inside)
        angles = np.arctan2(closed[:, 1, None, None] - y, closed[:, 0, None, None] - x)  # seen from each pixel
        turns = ((np.diff(angles, axis=0) + np.pi) % (2 * np.pi) - np.pi).sum(0) / (2 * np.pi)
        filled = masks._full((31, 47), raster.polygon_patch((31, 47), points, rule="non-zero"))
        assert np.array_equal(filled[0, 0].numpy(), np.abs(turns.round()) > 0)


def test_crossing_lines_even_odd_against_non_zero():
    twice_round = [(1, 1), (7, 1), (7, 7), (1, 7), (1, 1), (3, 3), (5, 3), (5, 5), (3, 5), (3, 3)]
    assert masks.polygon(SIZE, twice_round)[0, 0, 4, 4] == 0
    assert masks.lasso(SIZE, twice_round)[0, 0, 4, 4] == 1


def test_lasso_marks_its_own_path():
    assert masks.lasso(SIZE, [(3.5, 4.5), (8.5, 4.5)]).sum() == 6


def test_stroke_by_hand():
    assert rows(masks.stroke((5, 8), [(2.5, 2.5), (5.5, 2.5)], 1)) == [
        "........",
        "..####..",
        ".######.",
        "..####..",
        "........",
    ]
    assert masks.stroke((5, 8), [(3, 3)], 0.5).sum() >= 1  # even a dot on a corner


def test_stroke_is_a_distance_threshold():
    points, radius = [(2.0, 3.0), (9.0, 5.0), (9.0, 1.0)], 2.2
    dense = np.concatenate([np.linspace(a, b, 2000) for a, b in itertools.pairwise(points)])
    y, x = np.mgrid[:9, :13] + 0.5
    distance = np.hypot(x[..., None] - dense[:, 0], y[..., None] - dense[:, 1]).min(-1)
    assert np.array_equal(masks.stroke(SIZE, points, radius)[0, 0].numpy(), distance <= radius)


def test_soft_stroke_falls_to_its_rim():
    _, _, coverage = raster.stroke_patch((1, 21), [(0.5, 0.5)], radius=10, softness=0.5)
    expected = np.clip((10 - np.arange(10)) / 5, 0, 1)
    np.testing.assert_allclose(coverage[0, :10], expected, atol=1e-6)


def test_flood_stops_at_another_colour(photo):
    photo = photo.clone() * 0.2
    photo[..., :, 10:] += 0.5
    mask = masks.flood(photo, (3, 4), tolerance=0.45)
    assert mask[..., :10].all()
    assert not mask[..., 10:].any()
    with pytest.raises(ValueError, match="inside the picture of 28 x 20"):
        masks.flood(photo, (28, 4))


# random


@pytest.mark.parametrize("size", [(64, 96), (96, 65), (128, 300)])
@pytest.mark.parametrize("ratio", [0, 0.02, 0.15, 0.35, 0.55, 1])
@pytest.mark.long
def test_irregular_meets_its_ratio(size, ratio):
    mask = masks.irregular(size, ratio, seed=5)
    assert mask.shape == (1, 1, *size)
    assert set(mask.unique().tolist()) <= {0, 1}
    assert abs(mask.mean().item() - ratio) <= 0.01


@pytest.mark.parametrize("ratio_bin", masks.RATIO_BINS)
def test_irregular_draws_from_a_bin(ratio_bin):
    shares = [masks.irregular((64, 80), ratio_bin, seed=s).mean().item() for s in range(12)]
    assert all(ratio_bin[0] - 0.01 <= share <= ratio_bin[1] + 0.01 for share in shares)
    assert max(shares) - min(shares) > 0.03


def random_masks():
    return {
        "irregular": lambda s: masks.irregular((40, 56), 0.3, seed=s),
        "rectangles": lambda s: masks.rectangles((40, 56), seed=s),
        "grid": lambda s: masks.grid((40, 56), (4, 7), 0.5, seed=s),
    }


@pytest.mark.parametrize("name", random_masks())
def test_same_seed_same_mask_and_global_state_untouched(name):
    make, state = random_masks()[name], torch.random.get_rng_state()
    assert torch.equal(make(3), make(3))
    assert any(not torch.equal(make(3), make(s)) for s in range(4, 8))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rectangles_have_the_published_statistics():
    unions = torch.cat([masks.rectangles((100, 150), s, "union") for s in range(400)])
    share = unions.mean((1, 2, 3))
    assert 0.19 < share.mean() < 0.27  # 22 % in a simulation of the reimplementation, whose margin differs slightly
    assert not unions[..., 0, :].any()  # 1 % margin
    assert not unions[..., :, 0].any()
    flipped = torch.cat([masks.rectangles((100, 150), s) for s in range(400)]).mean((1, 2, 3)) > 0.5
    assert 0.4 < flipped.float().mean() < 0.6
    assert torch.equal(masks.rectangles((100, 150), 7, "complement"), 1 - unions[7:8])
    one = masks.rectangles((100, 150), 2, "union", count=(1, 1))
    x0, y0, x1, y1 = masks.bounding_box(one)
    assert one.sum() == (x1 - x0) * (y1 - y0)
    assert 3 <= y1 - y0 <= 25
    assert 4 <= x1 - x0 <= 38


def test_fixed_layouts_by_hand():
    assert rows(masks.centre((4, 6), 0.5)) == ["......", ".###..", ".###..", "......"]
    assert rows(masks.outpaint((4, 6), left=1, bottom=2)) == ["#.....", "#.....", "######", "######"]
    grid = masks.grid((6, 9), (2, 3), ratio=0.5, seed=1)
    cells = grid[0, 0].reshape(2, 3, 3, 3).mean((1, 3))
    assert set(cells.flatten().tolist()) == {0, 1}
    assert cells.sum() == 3


# combine


def test_set_operations():
    a, b = masks.box(SIZE, (0, 0, 5, 5)), masks.box(SIZE, (3, 3, 9, 9))
    assert masks.union(a, b).sum() == 25 + 36 - 4
    assert masks.intersect(a, b).sum() == 4
    assert masks.subtract(a, b).sum() == 21
    assert torch.equal(masks.from_keep_mask(a), masks.invert(a))
    assert masks.coverage(torch.cat([a, masks.invert(a)])).tolist() == pytest.approx([25 / 117, 92 / 117])
    assert masks.bounding_box(masks.subtract(b, a)) == (3, 3, 9, 9)
    wide = masks.box((12, 20), (2, 3, 9, 9))
    assert masks.bounding_box(wide, margin=2) == (0, 1, 11, 11)
    assert masks.bounding_box(wide, margin=15) == (0, 0, 20, 12)


# grow, shrink, soften


def test_grow_and_shrink_by_hand():
    dot = masks.box((5, 7), (3, 2, 4, 3))
    assert rows(masks.grow(dot, 1)) == [".......", "...#...", "..###..", "...#...", "......."]
    assert torch.equal(masks.shrink(masks.grow(dot, 1), 1), dot)
    full = torch.ones(1, 1, 5, 7)
    assert torch.equal(masks.shrink(full, 3), full)  # the frame is no edge
    empty = torch.zeros(1, 1, 5, 7)
    assert torch.equal(masks.grow(empty, 3), empty)


def test_growing_batches_item_by_item():
    a, b = masks.box(SIZE, (0, 0, 2, 2)), masks.box(SIZE, (6, 6, 9, 8))
    grown = masks.grow(torch.cat([a, b]), 2)
    assert torch.equal(grown, torch.cat([masks.grow(a, 2), masks.grow(b, 2)]))


@pytest.mark.parametrize("kind", ["corner", "scattered", "all but one"])
def test_distances_agree_with_brute_force(kind):
    mask = {
        "corner": masks.box((17, 23), (18, 0, 23, 5)),
        "scattered": (torch.rand(1, 1, 17, 23, generator=torch.Generator().manual_seed(2)) < 0.05).float(),
        "all but one": 1 - masks.box((17, 23), (3, 9, 4, 10)),
    }[kind]
    y, x = np.mgrid[:17, :23]
    gap = np.hypot(y[..., None, None] - y, x[..., None, None] - x)  # (H, W, H, W) between any two pixels
    hole = mask[0, 0].numpy() > 0
    to_hole, to_keep = (np.where(side, gap, np.inf).min((2, 3)) for side in (hole, ~hole))
    for radius in (0, 1, 2.5, 6):
        assert np.array_equal(masks.grow(mask, radius)[0, 0].numpy(), to_hole <= radius)
        assert np.array_equal(masks.shrink(mask, radius)[0, 0].numpy(), to_keep > radius)
        soft = np.where(to_hole <= radius, 1 - to_hole / (radius + 1), 0)
        np.testing.assert_allclose(masks.feather(mask, radius)[0, 0].numpy(), soft, atol=1e-6)


def test_feather_is_a_ramp_outside_the_hole():
    mask = masks.box((1, 12), (0, 0, 4, 1))
    soft = masks.feather(mask, 3)[0, 0, 0]
    torch.testing.assert_close(soft, torch.tensor([1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0]))
    assert torch.equal(masks.feather(mask, 0), mask)


def test_border_by_hand():
    mask = masks.box((1, 12), (3, 0, 9, 1))
    assert rows(masks.border(mask, 2)) == [".####..####."]
    assert rows(masks.border(mask, 2, "inside")) == ["...##..##..."]
    assert rows(masks.border(mask, 2, "outside")) == [".##......##."]


def test_trimap_of_a_ramp():
    alpha = torch.tensor([0, 0, 0, 0, 0.5, 1, 1, 1, 1]).view(1, 1, 1, 9)
    assert masks.trimap(alpha, 1).flatten().tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 1, 1, 1]
    assert masks.trimap(alpha, 0).flatten().tolist() == [0, 0, 0, 0, 0.5, 1, 1, 1, 1]


# latents


def test_to_latent_by_hand():
    mask = torch.zeros(1, 1, 4, 6)
    mask[..., 1, 1] = 1  # not the top left pixel of its cell
    mask[..., 2:4, 2:4] = 1
    mask[..., 0, 4] = 1
    cells = {how: masks.to_latent(mask, how, factor=2)[0, 0].tolist() for how in ("nearest", "any", "all", "mean")}
    assert cells["nearest"] == [[0, 0, 1], [0, 1, 0]]
    assert cells["any"] == [[1, 0, 1], [0, 1, 0]]
    assert cells["all"] == [[0, 0, 0], [0, 1, 0]]
    assert cells["mean"] == [[0.25, 0, 0.25], [0, 1, 0]]


def test_to_latent_nearest_is_what_diffusers_does():
    mask = masks.irregular((64, 96), 0.4, seed=2)
    expected = torch.nn.functional.interpolate(mask, size=(8, 12))
    assert torch.equal(masks.to_latent(mask), expected)


# files and errors


def test_masks_survive_a_file(tmp_path):
    mask = masks.irregular((33, 47), 0.3, seed=1)
    assert torch.equal(wb.load_mask(wb.save_mask(mask, tmp_path / "m.png")), mask)
    with pytest.raises(ValueError, match=r"does not end in \.png"):
        wb.save_mask(mask, tmp_path / "m.jpg")


def test_an_rgba_mask_file_is_read_by_its_colours(tmp_path):
    mask = masks.box((6, 8), (1, 1, 5, 4))
    colour = np.repeat((mask[0, 0].numpy() * 255).astype(np.uint8)[..., None], 3, 2)
    Image.fromarray(np.dstack([colour, np.full((6, 8), 255, np.uint8)])).save(tmp_path / "m.png")
    assert torch.equal(wb.load_mask(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, bool])
def test_an_rgba_array_is_read_like_the_file(kind):
    mask = masks.box((6, 8), (1, 1, 5, 4))
    top = {np.uint8: 255, np.uint16: 65535}.get(kind, 1)
    see_through = np.full((6, 8, 4), top, kind)
    see_through[..., 3] = mask[0, 0].numpy() * top  # only its transparency varies
    for channel in (None, "alpha"):
        assert torch.equal(wb.load_mask(see_through, channel=channel), mask)
    assert wb.load_mask(see_through, channel="luminance").all()
    painted = np.full((6, 8, 4), top, kind)
    painted[..., :3] = (mask[0, 0].numpy() * top)[..., None]
    assert torch.equal(wb.load_mask(painted), mask)
    painted[0, 0, 3] = 0
    with pytest.raises(ValueError, match="both the colours and the transparency"):
        wb.load_mask(painted)
    for plain in (np.ascontiguousarray(painted[..., :3]), torch.rand(3, 6, 8)):
        with pytest.raises(ValueError, match="has no transparency"):
            wb.load_mask(plain, channel="alpha")


def test_bytes_of_0_and_1_are_refused_instead_of_read_as_dark(tmp_path):
    ones = np.zeros((6, 8), np.uint8)
    ones[2:4, 3:5] = 1
    Image.fromarray(ones).save(tmp_path / "ones.png")
    for source in (ones, ones.astype(np.uint16), torch.from_numpy(ones)[None], tmp_path / "ones.png"):
        with pytest.raises(ValueError, match="the brightest pixel is 1 of 255, expected 255 for a hole"):
            wb.load_mask(source)
    assert wb.load_mask(ones.astype(bool)).sum() == 4
    assert wb.load_mask(0 * ones).sum() == 0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: masks.box((0, 4), (0, 0, 1, 1)), ValueError, "the height"),
        (lambda: masks.box((4, 4), (3, 0, 1, 1)), ValueError, "x0 < x1"),
        (lambda: masks.polygon((4, 4), [(0, 0), (1, 1)]), ValueError, "N at least 3"),
        (lambda: masks.stroke((4, 4), [(0, 0)], 0), ValueError, "radius is 0, expected a number of at least 0.5"),
        (lambda: masks.irregular((4, 4), 1.5), ValueError, "ratio is 1.5"),
        (lambda: masks.irregular((4, 4), (0.3, 0.2)), ValueError, r"ratio\[1\]"),
        (lambda: masks.irregular((4, 4), (0.3,)), ValueError, "bin"),
        (lambda: masks.rectangles((4, 4), mode="x"), ValueError, "random, union, complement"),
        (lambda: masks.outpaint((4, 4), left=2, right=2), ValueError, "leave nothing"),
        (lambda: masks.grid((4, 4), (5, 1)), ValueError, "at most one a pixel"),
        (lambda: masks.union(), ValueError, "no mask"),
        (lambda: masks.bounding_box(torch.zeros(1, 1, 3, 4)), ValueError, "no hole"),
        (lambda: masks.bounding_box(torch.ones(2, 1, 3, 4)), ValueError, "2 items"),
        (lambda: masks.grow(torch.full((1, 1, 3, 4), 0.5), 1), ValueError, "hard mask"),
        (lambda: masks.feather(torch.zeros(1, 1, 3, 4), -1), ValueError, "radius is -1"),
        (lambda: masks.to_latent(torch.zeros(1, 1, 12, 16)), ValueError, r"\(12, 16\).*multiples of 8"),
        (lambda: masks.to_latent(torch.zeros(1, 1, 8, 8), "nope"), ValueError, "nearest, any, all, mean"),
        (lambda: masks.intersect(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 5)), ValueError, "same"),
    ],
)
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_nothing_is_modified():
    mask = masks.box(SIZE, (2, 2, 7, 6))
    before = mask.clone()
    for change in (
        lambda m: masks.grow(m, 2),
        lambda m: masks.shrink(m, 1),
        lambda m: masks.feather(m, 2),
        lambda m: masks.border(m, 2),
        lambda m: masks.union(m, masks.invert(m)),
        lambda m: masks.from_keep_mask(m).add_(1),
        lambda m: masks.to_latent(m, "any", 1).add_(1),
    ):
        change(mask)
        assert torch.equal(mask, before)


def test_a_large_stroke_touches_only_its_own_pixels():
    patch_rows, patch_columns, coverage = raster.stroke_patch((2000, 2000), [(500, 700), (510, 704)], 20)
    assert coverage.shape == (patch_rows.stop - patch_rows.start, patch_columns.stop - patch_columns.start)
    assert coverage.size < 60 * 60
    assert math.isclose(coverage.sum(), math.pi * 400 + 40 * math.hypot(10, 4), rel_tol=0.02)


def test_blend_by_hand():
    image, filled = torch.full((1, 3, 1, 6), 0.25), torch.full((1, 3, 1, 6), 0.75)
    mask = masks.box((1, 6), (0, 0, 2, 1))
    blended = masks.blend(image, filled, mask, 1)  # the ramp is 1 - 1 / 2 one pixel outside, 0 from there on
    assert blended[0, 0, 0].tolist() == [0.75, 0.75, 0.5, 0.25, 0.25, 0.25]
    assert torch.equal(masks.blend(image, filled, mask), torch.where(mask > 0.5, filled, image))
