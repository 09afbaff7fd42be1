"""Matches: where they lie to a fraction of a pixel, which are kept, and how they are judged."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from skimage.transform import AffineTransform, warp
from torch.nn import functional

import workbench as wb
from tests.stepping import pipelines
from workbench import check
from workbench.lenses import correspondence as cor
from workbench.lenses.correspondence import sift
from workbench.lenses.correspondence.dense import cell_middles, inside, sample_map
from workbench.lenses.correspondence.learned import load_matcher
from workbench.world.geometry import Correspondences


def textured(height=96, width=120, seed=0) -> torch.Tensor:
    """Soft spots of all sizes and colours, (1, 3, H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    image = np.full((3, height, width), 0.5)
    for _ in range(70):
        cx, cy, s = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 7)
        spot = np.exp(-((x - cx) ** 2 + 1.6 * (y - cy) ** 2) / (2 * s * s))
        image += rng.uniform(-0.5, 0.5, 3)[:, None, None] * spot
    return torch.from_numpy(image.clip(0, 1)).float()[None]


def moved(image, matrix):
    """The picture carried by a (3, 3) matrix on (x, y), (0.5, 0.5) the middle of the top left pixel."""
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    back = AffineTransform(np.linalg.inv(half) @ np.linalg.inv(matrix) @ half)  # scikit-image counts from the middles
    array = warp(image[0].permute(1, 2, 0).numpy(), back, order=3, mode="reflect")
    return torch.from_numpy(array.clip(0, 1)).float().permute(2, 0, 1)[None]


def similarity_matrix(degrees, scale, dx, dy, about=(60, 48)):
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    x, y = about
    return np.array([[c, -s, x + dx - c * x + s * y], [s, c, y + dy - s * x - c * y], [0, 0, 1.0]])


def carried(matrix, points):
    return torch.from_numpy(np.asarray(points, np.float64) @ matrix[:2, :2].T + matrix[:2, 2])


# SIFT


@pytest.mark.parametrize(("degrees", "scale", "dx", "dy"), [(0, 1, 7.5, -4.25), (30, 1, 0, 0), (0, 1.4, 3, 2)])
def test_sift_finds_a_known_motion(degrees, scale, dx, dy):
    image, matrix = textured(), similarity_matrix(degrees, scale, dx, dy)
    found = cor.match(image, moved(image, matrix))
    error = found.points_b - carried(matrix, found.points_a)
    assert len(found) >= 15  # of some 60 spots; enlarged, half of them leave the picture
    assert error.norm(dim=1).median() < 0.3
    assert (error.norm(dim=1) < 1).float().mean() > 0.9
    assert error.median(0).values.abs().max() < 0.12  # no bias: scikit-image's own quarter of a pixel would show


def test_sift_points_lie_in_the_middle_of_spots():
    y, x = np.mgrid[:96, :128] + 0.5
    grey = 0.2 + 0.6 * np.exp(-((x - 40.3) ** 2 + (y - 50.7) ** 2) / (2 * 4**2))
    points, descriptors = cor.sift_features(torch.from_numpy(grey).float().expand(1, 3, -1, -1))
    assert (points - torch.tensor([40.3, 50.7])).norm(dim=1).min() < 0.05
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(len(descriptors)))


def test_sift_remembers_the_last_pictures(monkeypatch):
    asked, find = [], sift._find
    monkeypatch.setattr(sift, "_features", {})
    monkeypatch.setattr(sift, "_find", lambda grey, contrast: asked.append(contrast) or find(grey, contrast))
    pictures = torch.rand(sift.REMEMBERED + 1, 3, 24, 24, generator=torch.Generator().manual_seed(0)).split(1)
    points, descriptors = cor.sift_features(pictures[0])
    assert len(points) > 0
    before = points.clone()
    points.zero_(), descriptors.zero_()  # what is handed out is the caller's
    assert torch.equal(cor.sift_features(pictures[0])[0], before)
    assert len(asked) == 1
    cor.sift_features(pictures[0], contrast=0.1)
    cor.sift_features(pictures[0].view(1, 3, 12, 48))  # the same numbers in another shape
    assert len(asked) == 3
    for picture in pictures[1:]:
        cor.sift_features(picture)
        cor.sift_features(pictures[0])
    assert len(asked) == 3 + sift.REMEMBERED  # who is asked for stays
    assert len(sift._features) == sift.REMEMBERED
    cor.sift_features(pictures[1])
    assert len(asked) == 4 + sift.REMEMBERED


def test_sift_finds_nothing_where_nothing_is():
    flat = torch.full((1, 3, 40, 50), 0.5)
    found = cor.match(flat, flat, ransac="homography")
    assert len(found) == 0
    assert repr(found) == "Matches(sift: 0; no homography)"
    assert len(cor.match(flat[..., :3, :3], flat)) == 0


def test_sift_beats_chance_on_a_scene():
    pair = cor.scene_pair("facade-00")
    assert pair.group == "small"

    def chance(a, b, points):
        there = torch.rand(len(points), 2, generator=torch.Generator().manual_seed(0)) * 128
        return cor.Matches(points, there, torch.ones(len(points)), "chance", (128, 128), (128, 128))

    table = cor.evaluate([pair], {"sift": {"method": "sift"}, "chance": chance}, alpha=0.05, rounds=50)
    sift, guessed = table.rows
    assert sift["points"] > 40
    assert sift["pck"] > 0.8 > 0.1 > guessed["pck"]  # a disc of 6.4 px on 128 x 128 is 0.8 % of it
    assert sift["median"] < 1
    assert table.best()["method"] == "sift"


def test_evaluation_by_group_and_by_hand():
    size, image = (20, 30), torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    here = cell_middles(size, size).view(*size, 2)
    every = torch.ones(size, dtype=torch.bool)
    pairs = [
        cor.Pair(str(k), image, image, Correspondences(here + k, every), "near" if k < 5 else "far") for k in (0, 3, 9)
    ]

    def stays(a, b, points):
        return cor.Matches(points, points, torch.ones(len(points)), "stays", size, size)

    def silent(a, b, points):
        return stays(a, b, points[:0])

    table = cor.evaluate(pairs, {"stays": stays, "silent": silent}, alpha=0.2, points=10, by_group=True, rounds=99)
    told = [(row["method"], row["group"], row["pairs"], row["points"], row["pck"]) for row in table.rows]
    assert told[:2] == [("stays", "near", 2, 20, 1.0), ("stays", "far", 1, 10, 0.0)]  # within 6 px of 0, 4.2, 12.7
    assert told[2:] == [("silent", "near", 2, 0, 0.0), ("silent", "far", 1, 0, 0.0)]
    assert table.rows[0]["epe"] == pytest.approx(math.sqrt(18) / 2)
    assert (table.rows[0]["epe_low"], table.rows[0]["epe_high"]) == pytest.approx((0, math.sqrt(18)), abs=1e-6)
    assert math.isnan(table.rows[2]["epe"])
    assert table.best("epe") is table.rows[0]
    whole = cor.evaluate(pairs, {"stays": stays}, alpha=0.2, points=10, rounds=99).rows[0]
    assert (whole["pck"], whole["pck_point"]) == pytest.approx((2 / 3, 2 / 3))
    assert whole["median"] == pytest.approx(math.sqrt(18), abs=1e-5)


# Nearest neighbours


def test_mutual_nearest_neighbours_by_hand():
    similarity = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.1], [0.0, 0.3, 0.7]])
    one_way, both = (cor.nearest_pairs(similarity, mutual=m) for m in (False, True))
    assert one_way.index_b.tolist() == [0, 0, 2]
    assert list(zip(both.index_a.tolist(), both.index_b.tolist(), strict=True)) == [(0, 0), (2, 2)]
    assert both.similarity.tolist() == pytest.approx([0.9, 0.7])


def test_the_ratio_by_hand():
    # distances sqrt(2 - 2 s). Row 0: sqrt 0.2 / sqrt 1.8 = 1/3; row 1: twice sqrt 0.5; row 2: sqrt 0.72 / 1 = 0.85
    similarity = torch.tensor([[0.9, 0.1, 0.0], [0.75, 0.75, 0.1], [0.0, 0.5, 0.64]])
    found = cor.nearest_pairs(similarity, mutual=False, ratio=1.0)
    assert found.ratio.tolist() == pytest.approx([1 / 3, 1, math.sqrt(0.72)], abs=1e-6)
    assert cor.nearest_pairs(similarity, mutual=False, ratio=0.86).index_a.tolist() == [0, 2]
    assert cor.nearest_pairs(similarity, mutual=False, ratio=0.8).index_a.tolist() == [0]
    assert len(cor.nearest_pairs(similarity[:, :1], ratio=1.0).index_a) == 0  # no second, no test passed
    assert len(cor.nearest_pairs(similarity[:0]).index_a) == 0
    with pytest.raises(ValueError, match="expected .Na, Nb."):
        cor.nearest_pairs(torch.zeros(3))


def test_nearest_pairs_agree_with_a_tree():
    rng = torch.Generator().manual_seed(0)
    a, b = (functional.normalize(torch.randn(n, 16, generator=rng), dim=1) for n in (40, 55))
    distances, index = cKDTree(b.numpy()).query(a.numpy(), k=2)
    found = cor.nearest_pairs(a @ b.T, mutual=False)
    assert found.index_b.tolist() == index[:, 0].tolist()
    np.testing.assert_allclose(found.ratio, distances[:, 0] / distances[:, 1], rtol=1e-4)
    back = cKDTree(a.numpy()).query(b.numpy())[1]
    mutual = [(i, j) for i, j in enumerate(index[:, 0]) if back[j] == i]
    both = cor.nearest_pairs(a @ b.T)
    assert list(zip(both.index_a.tolist(), both.index_b.tolist(), strict=True)) == mutual


# Cells and pixels


def cells_of(side):
    """A feature function that shows where it looked: mean colours of cells of ``side`` pixels, and which are dark."""

    def features(image):
        pooled = functional.adaptive_avg_pool2d(image, [math.ceil(n / side) for n in image.shape[-2:]])
        return torch.cat([pooled, 1 - pooled], 1)

    return features


def ramp(height, width, x0=0.0, y0=0.0):
    """Features become places: an angle that grows with x, another with y; moved by (x0, y0)."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5 - y0, torch.arange(width) + 0.5 - x0, indexing="ij")
    return torch.stack([x / 100 + 0.2, y / 100 + 0.2, torch.full_like(x, 0.5)])[None]


def test_cells_cover_the_picture_evenly():
    assert cell_middles((2, 3), (20, 30)).tolist() == [[5, 5], [15, 5], [25, 5], [5, 15], [15, 15], [25, 15]]
    assert cell_middles((1, 3), (7, 10)).flatten().tolist() == pytest.approx([10 / 6, 3.5, 5, 3.5, 50 / 6, 3.5])


def test_interpolated_features_are_exact_at_every_place():
    """Cells of a ramp hold the ramp's value at their middles, so that interpolation must give it anywhere between."""
    size = (24, 36)
    pooled = functional.avg_pool2d(ramp(*size), 4)  # (1, 3, 6, 9)
    points = torch.tensor([[2.0, 2.0], [11.3, 7.9], [34.0, 22.0], [0.0, 0.0], [36.0, 24.0]])
    inner = points.clamp(torch.tensor([2.0, 2.0]), torch.tensor([34.0, 22.0]))  # constant beyond the outermost middles
    torch.testing.assert_close(sample_map(pooled, points, size)[:, :2], inner / 100 + 0.2)
    upsampled = functional.interpolate(pooled, size, mode="bilinear", align_corners=False)
    pixels = sample_map(pooled, cell_middles(size, size), size).T.view(1, 3, *size)
    torch.testing.assert_close(pixels, upsampled)  # the resampling of DIFT's evaluation


def test_half_a_cell_is_half_a_cell():
    """A motion of (6, -2) pixels in cells of 4: one and a half cells, and half a cell."""
    a, b = ramp(32, 48), ramp(32, 48, x0=6, y0=-2)
    found = cor.match(a, b, "features", features=cells_of(4), mutual=False)
    inner = inside(found.points_a, functional.pad(torch.ones(1, 1, 16, 32), (8, 8, 8, 8)))
    found = found.select(inner)
    assert len(found) >= 20
    torch.testing.assert_close(found.points_b - found.points_a, torch.tensor([6.0, -2.0]).expand(len(found), 2))


def test_half_a_cell_between_pictures_of_different_size_and_cells():
    a, b = ramp(30, 44), torch.nn.functional.interpolate(ramp(30, 44), scale_factor=2, mode="bilinear")  # twice as big
    pair = cor.feature_pair(a, b, features=lambda image: functional.adaptive_avg_pool2d(image, (10, 11)))
    points = torch.tensor([[14.5, 12.5], [22.0, 17.25]])
    where, similarity = pair.best(points)
    assert (where - 2 * points).abs().max() <= 0.5 + 1e-4  # to the nearest pixel
    assert similarity.min() > 0.9999
    heat = pair.heat_map(points[0].tolist())
    assert heat.shape == (60, 88)
    y, x = divmod(int(heat.argmax()), 88)
    assert [x + 0.5, y + 0.5] == where[0].tolist()
    backwards = pair.swapped().best(where)[0]
    assert (backwards - points).abs().max() <= 0.75


def test_a_dense_field_tells_the_motion():
    a, b = ramp(16, 24), ramp(16, 24, x0=2, y0=1)
    field = cor.dense_field(a, b, "pixels", features=lambda image: image)
    assert field.offsets.shape == (1, 2, 16, 24)
    assert torch.equal(field.offsets[0, :, 3:12, 3:20], torch.tensor([2.0, 1.0])[:, None, None].expand(2, 9, 17))
    cells = cor.dense_field(a, b, features=cells_of(4))
    assert cells.points.shape == (4, 6, 2)
    assert "Field(4 x 6 places" in repr(cells)
    # the same by a tree over unit vectors: nearest is most similar
    unit_a, unit_b = (functional.normalize(x[0].flatten(1), dim=0).T.numpy() for x in (a, b))
    index = cKDTree(unit_b).query(unit_a)[1]
    found = torch.from_numpy(unit_b[index] * unit_a).sum(1).view(16, 24)
    torch.testing.assert_close(found, field.similarity, atol=1e-5, rtol=0)


def test_many_places_are_compared_in_parts(monkeypatch):
    a, b = ramp(12, 16), ramp(12, 16, x0=2)
    whole = cor.dense_field(a, b, "pixels", features=lambda image: image)
    monkeypatch.setattr("workbench.lenses.correspondence.dense.ROWS", 7)
    monkeypatch.setattr("workbench.lenses.correspondence.dense.COLUMNS", 11)
    parts = cor.dense_field(a, b, "pixels", features=lambda image: image)
    assert torch.equal(whole.points, parts.points)
    torch.testing.assert_close(whole.similarity, parts.similarity)


# Masks, points, limits


def corner(image, x0=0, y0=0, x1=60, y1=50):
    mask = torch.zeros_like(image[:, :1])
    mask[..., y0:y1, x0:x1] = 1
    return mask


@pytest.mark.parametrize(
    "options", [{"method": "sift"}, {"method": "features", "features": cells_of(4)}], ids=["sift", "features"]
)
def test_masks_are_respected(options):
    image = textured()
    other = moved(image, similarity_matrix(0, 1, 5, 3))
    mask_a, mask_b = corner(image), corner(image, 20, 10, 110, 90)
    free, found = cor.match(image, other, **options), cor.match(image, other, mask_a=mask_a, mask_b=mask_b, **options)
    assert 0 < len(found) < len(free)
    assert inside(found.points_a, mask_a).all()
    assert inside(found.points_b, mask_b).all()
    nothing = torch.zeros_like(mask_a)
    assert len(cor.match(image, other, mask_a=nothing, **options)) == 0
    assert len(cor.match(image, other, mask_b=nothing, **options)) == 0


def test_the_surest_come_first_and_limits_hold():
    image = textured()
    other = moved(image, similarity_matrix(8, 1, 5, 3))
    every, few = cor.match(image, other), cor.match(image, other, limit=7)
    assert (every.confidence.diff() <= 0).all()
    assert every.confidence.min() >= 1 - 0.8 - 1e-6  # the ratio test's threshold
    assert torch.equal(few.points_b, every.points_b[:7])
    assert len(every.above(0.5)) == int((every.confidence >= 0.5).sum())
    assert repr(few).startswith("Matches(sift: 7, confidence ")
    with pytest.raises(RuntimeError, match="no geometry was estimated"):
        _ = few.inliers
    strict = cor.match(image, other, ratio=0.5)
    assert 0 < len(strict) < len(every)


def test_given_points_are_answered_in_their_order():
    a, b = ramp(32, 48), ramp(32, 48, x0=6, y0=-2)
    points = [(30.5, 20.5), (10.5, 12.5), (18.5, 9.5)]
    found = cor.match(a, b, "features", points=points, features=cells_of(4), mutual=False)
    assert found.points_a.tolist() == [list(p) for p in points]
    assert (found.points_b - found.points_a - torch.tensor([6.0, -2.0])).abs().max() <= 1
    assert len(cor.match(a, b, "features", points=points, features=cells_of(4))) == 3  # the way back leads home
    far = [(47.5, 31.5)]  # has left the picture
    assert len(cor.match(a, b, "features", points=far, features=cells_of(4))) == 0


# RANSAC


def test_ransac_rejects_planted_outliers():
    rng = np.random.default_rng(0)
    truth = np.array([[1.1, 0.1, 4], [-0.05, 0.95, -3], [2e-4, -1e-4, 1]])
    a = rng.uniform(0, 100, (60, 2))
    there = np.c_[a, np.ones(60)] @ truth.T
    b = there[:, :2] / there[:, 2:]
    b[:15] += rng.choice([-1, 1], (15, 2)) * rng.uniform(10, 40, (15, 2))
    before = np.random.get_state()[1].copy()
    found = cor.estimate_geometry(a, torch.from_numpy(b), threshold=1.0, seed=1)
    assert (np.random.get_state()[1] == before).all()
    assert found.inliers.tolist() == [False] * 15 + [True] * 45
    torch.testing.assert_close(found.carry(a[15:]), torch.from_numpy(b[15:]), atol=1e-6, rtol=0)
    assert repr(found) == "homography with 45 of 60 inliers within 1 px"
    assert torch.equal(cor.estimate_geometry(a, b, threshold=1.0, seed=1).matrix, found.matrix)


def test_ransac_finds_the_epipolar_geometry():
    rng = np.random.default_rng(1)
    space = rng.uniform((-3, -2, 4), (3, 2, 9), (60, 3))
    turned = space @ np.array([[0.995, 0, -0.0998], [0, 1, 0], [0.0998, 0, 0.995]]).T + (0.8, 0.1, 0)
    a, b = (100 * p[:, :2] / p[:, 2:] + 64 for p in (space, turned))
    b[:12, 1] += rng.uniform(15, 30, 12)
    found = cor.estimate_geometry(a, b, "fundamental", threshold=0.5)
    assert found.inliers[12:].all()
    assert found.inliers[:12].sum() <= 1
    line = np.c_[b, np.ones(60)] @ found.matrix.numpy()
    assert np.abs((line * np.c_[a, np.ones(60)]).sum(1) / np.hypot(line[:, 0], line[:, 1]))[12:].max() < 0.5
    with pytest.raises(RuntimeError, match="takes no point to a point"):
        found.carry(a)


def test_match_tells_inliers():
    image, matrix = textured(), similarity_matrix(12, 1.1, 2, 3)
    found = cor.match(image, moved(image, matrix), ransac="homography", ratio=1.0)
    right = (found.points_b - carried(matrix, found.points_a)).norm(dim=1) < 3
    assert (found.inliers == right).float().mean() > 0.95
    assert found.select(found.inliers).inliers.all()
    assert "inliers within 3 px" in repr(found)
    assert cor.estimate_geometry(np.zeros((0, 2)), np.zeros((0, 2))).matrix is None
    assert cor.estimate_geometry(np.ones((9, 2)), np.ones((9, 2))).matrix is None  # all in one place
    with pytest.raises(ValueError, match="expected pairs"):
        cor.estimate_geometry(np.zeros((5, 2)), np.zeros((4, 2)))


# DIFT on small random pipelines


def small_photo(seed=5):
    return functional.interpolate(pipelines.image(seed, (8, 12)), (40, 60), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("kind", ["sd_text", "sd_inpaint9", "sd2_v", "sdxl", "sdxl_inpaint", "lcm", "pix2pix", "ddpm"])
def test_dift_of_many_pipelines(kind):
    pipe, _ = pipelines.made(kind)
    before = torch.random.get_rng_state()
    found = cor.dift_features(pipe, small_photo(), t=101, block=0, ensemble=2, prompt="a red ball", side=64)
    assert found.shape[:2] == (1, 16)
    assert found.std() > 0
    assert torch.equal(
        found, cor.dift_features(pipe, small_photo(), t=101, block=0, ensemble=2, prompt="a red ball", side=64)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(m._forward_hooks for m in pipe.unet.modules())


def test_dift_follows_its_recipe():
    """The same by hand: latents, noise of timestep t, one pass, the block's output, the mean."""
    pipe, _ = pipelines.made("sd_text")
    photo = pipelines.image()  # (1, 3, 32, 48), which side 39 leaves as it is
    found = cor.dift_features(pipe, photo, t=500, block=1, ensemble=2, side=39, seed=7)
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        posterior = pipe.vae.encode(photo * 2 - 1).latent_dist
        drawn, noise = torch.randn(2, 4, 8, 12, generator=rng), torch.randn(2, 4, 8, 12, generator=rng)
        z = (posterior.mean + posterior.std * drawn) * pipe.vae.config.scaling_factor
        noised = pipe.scheduler.add_noise(z, noise, torch.tensor([500, 500]))
        states = pipe.encode_prompt("", "cpu", 1, False)[0]
        kept = []
        handle = pipe.unet.up_blocks[1].register_forward_hook(lambda m, i, out: kept.append(out))
        pipe.unet(noised, 500, states.expand(2, -1, -1))
        handle.remove()
    torch.testing.assert_close(found, kept[0].mean(0, keepdim=True))


def test_dift_shows_an_inpainting_model_the_whole_picture(monkeypatch):
    pipe, _ = pipelines.made("sd_inpaint9")
    seen = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    try:
        cor.dift_features(pipe, small_photo(), t=999, ensemble=1, side=64)
    finally:
        handle.remove()
    noised, mask, known = seen[0].split([4, 1, 4], 1)
    assert (mask == 0).all()
    assert known.std() > 0
    assert abs(torch.corrcoef(torch.stack([noised.flatten(), known.flatten()]))[0, 1]) < 0.3  # at t 999 noise alone


def test_settings_of_dift_matter():
    pipe, _ = pipelines.made("sd_text")
    plain = {"t": 261, "block": 1, "ensemble": 1, "side": 64}
    first = cor.dift_features(pipe, small_photo(), **plain)
    for other in ({"t": 0}, {"ensemble": 3}, {"prompt": "two rooms"}, {"seed": 1}, {"block": "up_blocks.1.resnets.0"}):
        assert not torch.equal(first, cor.dift_features(pipe, small_photo(), **plain | other)), other
    with pytest.raises(ValueError, match="'up_blocks.7'. Near names: up_blocks"):
        cor.dift_features(pipe, small_photo(), block=7)
    with pytest.raises(ValueError, match="t is 1000, expected a whole number from 0 to 999"):
        cor.dift_features(pipe, small_photo(), t=1000)
    with pytest.raises(TypeError, match="has no U-Net"):
        cor.dift_features(pipelines.made("sd3")[0], small_photo())
    with pytest.raises(TypeError, match="takes 7 channels"):
        cor.dift_features(pipelines.made("upscale")[0], small_photo())


def test_two_pictures_have_two_noises():
    pipe, _ = pipelines.made("sd_text")
    dift = cor.Dift(pipe, t=900, ensemble=1, side=64)
    assert torch.equal(dift(small_photo(), 0), dift(small_photo(), 0))
    assert not torch.equal(dift(small_photo(), 0), dift(small_photo(), 1))


def test_the_same_noise_in_both_pictures_would_hold_them_in_place():
    """Why two pictures have two noises: two that show different things would match cell by cell."""
    dift = cor.Dift(pipelines.made("sd_text")[0], t=900, ensemble=1, side=64)
    still = []
    for features in (dift, lambda image: dift(image, 0)):
        field = cor.dense_field(small_photo(1), small_photo(2), features=features)
        still.append((field.offsets.abs().amax(1) < 1e-3).float().mean())
    assert still[0] < 0.1 < 0.9 < still[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    import copy

    pipe = copy.deepcopy(pipelines.made("sd_inpaint9")[0]).to(dtype)
    found = cor.dift_features(pipe, small_photo(), ensemble=2, side=64)
    exact = cor.dift_features(pipelines.made("sd_inpaint9")[0], small_photo(), ensemble=2, side=64)
    assert found.dtype == torch.float32
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.99


def test_match_by_dift():
    pipe, _ = pipelines.made("sd_text")
    image = small_photo()
    options = {"pipe": pipe, "t": 0, "block": 1, "ensemble": 2, "side": 64}
    found = cor.match(image, image, "dift", seed=3, **options)
    again = cor.match(image, image, "dift", seed=3, **options)
    assert len(found) > 0
    assert torch.equal(found.points_b, again.points_b)
    assert not torch.equal(
        found.confidence, cor.match(image, image, "dift", seed=4, **options).confidence[: len(found)]
    )
    heat = cor.heat_map(image, image, (20.5, 10.5), **options)
    assert heat.shape == (40, 60)
    assert heat.abs().max() <= 1 + 1e-5
    grid = cor.dift_grid(pipe, t=(0, 500), block=(0, 1), ensemble=(1,), side=64)
    assert list(grid) == ["dift t=0 block=0", "dift t=500 block=0", "dift t=0 block=1", "dift t=500 block=1"]
    size = tuple(image.shape[-2:])
    still = Correspondences(cell_middles(size, size).view(*size, 2), torch.ones(size, dtype=torch.bool))
    table = cor.evaluate([cor.Pair("still", image, image, still)], grid, points=20, rounds=20)
    assert [row["points"] for row in table.rows] == [20] * 4
    assert "dift t=500 block=1" in repr(table)
    assert "<td>500</td>" in table._repr_html_()


# kornia's matchers


def test_a_matcher_with_kornias_interface():
    seen = {}

    def matcher(given):
        seen.update(given)
        ends = torch.tensor([[0.0, 0.0], [9.0, 4.0], [60.0, 3.0]])  # the last lies in what was added on the right
        return {"keypoints0": ends, "keypoints1": ends, "confidence": torch.tensor([0.2, 0.9, 1.0])}

    image = torch.rand(1, 3, 21, 59, generator=torch.Generator().manual_seed(0))
    found = cor.match(image, image, "kornia", matcher=matcher)
    assert seen["image0"].shape == (1, 1, 24, 64)
    assert found.points_a.tolist() == [[9.5, 4.5], [0.5, 0.5]]
    assert found.confidence.tolist() == pytest.approx([0.9, 0.2])
    assert len(cor.match(image, image, "kornia", matcher=matcher, mask_b=corner(image, 5, 0, 20, 20))) == 1
    with pytest.raises(TypeError, match="expected kornia's interface"):
        cor.match(image, image, "kornia", matcher=lambda given: {})


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    image = torch.zeros(1, 3, 32, 32)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(check.NotAvailable, match=r"weights of loftr are not in .*loftr_outdoor.ckpt"):
        cor.match(image, image, "loftr")
    with pytest.raises(check.NotAvailable, match="weights of disk are not in"):
        cor.match(image, image, "disk", weights=tmp_path)
    broken = tmp_path / "loftr_outdoor.ckpt"
    broken.write_bytes(b"no weights")
    with pytest.raises(check.NotAvailable, match="loftr_outdoor.ckpt"):
        load_matcher("loftr", tmp_path)
    torch.save({"state_dict": {"other": torch.zeros(1)}}, broken)
    with pytest.raises(check.NotAvailable, match="does not hold the weights of loftr"):
        load_matcher("loftr", broken)


# Judging


def test_pck_and_end_point_error_by_hand():
    truth = torch.tensor([[10.0, 10.0], [20.0, 5.0], [0.0, 0.0], [7.0, 7.0]])
    points = truth + torch.tensor([[3.0, 4.0], [0.0, 6.0], [0.0, 0.0], [torch.nan, 0.0]])
    assert cor.end_point_error(points, truth).tolist() == [5, 6, 0, math.inf]
    found = cor.pck(points, truth, size=(30, 50), alpha=0.1)  # 5 px
    assert found.correct[0].tolist() == [True, False, True, False]
    assert (found.per_image, found.per_point) == (0.5, 0.5)
    by_box = cor.pck(points, truth, size=(20, 40), alpha=0.1)  # a box: 4 px
    assert by_box.per_point == 0.25
    assert cor.pck(points, truth, size=(1, 1), alpha=6).per_point == 0.75  # in pixels
    both = cor.pck([points, truth[:1]], [truth, truth[:1]], size=[(30, 50), (9, 9)], alpha=0.1)
    assert both.per_image == pytest.approx((0.5 + 1) / 2)
    assert both.per_point == pytest.approx(3 / 5)
    assert both.thresholds == pytest.approx((5.0, 0.9))
    assert repr(both) == "Pck(75.0% per image, 60.0% per point; 5 points)"


def test_judging_refuses():
    points = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="leave out points that are not visible"):
        cor.end_point_error(points, points * torch.nan)
    with pytest.raises(ValueError, match=r"truth \(1, 2\), expected \(N, 2\) both"):
        cor.end_point_error(points, points[:1])
    with pytest.raises(ValueError, match="no point to judge"):
        cor.pck(points[:0], points[:0], (10, 10))
    with pytest.raises(ValueError, match="or one for each of 2 pictures"):
        cor.pck([points, points], [points, points], [(10, 10)])
    with pytest.raises(ValueError, match="0 pairs and 1 methods"):
        cor.evaluate([], {"sift": {"method": "sift"}})


def test_truth_between_pixels():
    size = (6, 8)
    middles = cell_middles(size, size).view(6, 8, 2)
    points = middles * 1.1 + 0.5
    points[:, 4:] += 30  # another thing from column 4 on
    visible = torch.ones(size, dtype=torch.bool)
    visible[0, 0], points[0, 1] = False, torch.nan
    truth = Correspondences(points, visible)
    found, seen = cor.truth_at([(2.5, 2.5), (2.8, 3.1), (3.9, 3.0), (4.1, 3.0), (0.4, 0.4), (1.5, 0.5)], truth)
    wanted = torch.tensor([[3.25, 3.25], [3.58, 3.91], [4.79, 3.8], [35.01, 33.8]]).double()
    torch.testing.assert_close(found[:2], wanted[:2], atol=1e-6, rtol=0)
    assert (found[2:4] - wanted[2:]).abs().max() < 0.1  # not drawn over to the other thing
    assert seen.tolist() == [True] * 4 + [False, False]


def test_the_truth_of_a_scene_carries_pictures_over():
    """Pixels of the reference look like the pixels they are said to be in the target."""
    pair = cor.scene_pair("room-00", 1)
    where, visible = cor.truth_at(cell_middles((128, 128), (128, 128)), pair.truth)
    seen = sample_map(pair.image_b, where[visible].float(), (128, 128))
    mine = pair.image_a[0].flatten(1).T[visible]
    elsewhere = seen[torch.randperm(len(seen), generator=torch.Generator().manual_seed(0))]
    assert (seen - mine).abs().median() < 0.25 * (elsewhere - mine).abs().median()
    back = cor.scene_pair("room-00", 1, from_target=True)
    assert torch.equal(back.image_a, pair.image_b)
    clip = cor.clip_pair("clip-00", 0, 3)
    assert clip.image_a.shape == (1, 3, 96, 128)
    assert clip.group == "clip"


def test_the_truth_of_the_stereo_pair():
    pair = cor.stereo_pair(max_side=186)
    assert pair.image_a.shape[-2:] == pair.truth.visible.shape
    where, visible = cor.truth_at(cell_middles(pair.truth.visible.shape, pair.truth.visible.shape), pair.truth)
    middles = cell_middles(pair.truth.visible.shape, pair.truth.visible.shape)
    shift = (middles - where)[visible]
    assert shift[:, 1].abs().max() < 1e-3  # along rows only
    assert 7 / 4 - 0.1 < shift[:, 0].min() < shift[:, 0].max() < 60 / 4 + 0.5
    seen = sample_map(pair.image_b, where[visible].float(), pair.truth.visible.shape)
    mine = pair.image_a[0].flatten(1).T[visible]
    assert (seen - mine).abs().median() < 0.04
    assert 0.5 < visible.float().mean() < 0.97


# Words


def test_match_refuses():
    image, features = torch.rand(1, 3, 20, 24), cells_of(4)
    with pytest.raises(ValueError, match="method is 'orb', expected one of: sift, dift, features, loftr"):
        cor.match(image, image, "orb")
    with pytest.raises(TypeError, match="t is no option of method 'sift'. It belongs to dift"):
        cor.match(image, image, t=3)
    with pytest.raises(TypeError, match="nonsense is no option of method 'sift'. sift has: contrast"):
        cor.match(image, image, nonsense=3)
    with pytest.raises(ValueError, match=r"image_b holds 2 pictures"):
        cor.match(image, image.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="mask_b is .9, 9. and image_b is .20, 24."):
        cor.match(image, image, mask_b=torch.ones(1, 1, 9, 9))
    with pytest.raises(ValueError, match="which finds its own"):
        cor.match(image, image, points=[(1, 2)])
    with pytest.raises(ValueError, match="ratio given beside points"):
        cor.match(image, image, "features", features=features, points=[(1, 2)], ratio=0.8)
    with pytest.raises(TypeError, match="needs features="):
        cor.match(image, image, "features")
    with pytest.raises(TypeError, match="needs matcher="):
        cor.match(image, image, "kornia")
    with pytest.raises(ValueError, match="which decides by itself"):
        cor.match(image, image, "kornia", matcher=print, ratio=0.7)
    with pytest.raises(TypeError, match="t given beside features"):
        cor.dense_field(image, image, features=features, t=3)
    with pytest.raises(ValueError, match="features have 3 and 6 channels"):
        cor.FeaturePair(image, torch.cat([image, image], 1), (20, 24), (20, 24))
    with pytest.raises(ValueError, match="expected .1, C, h, w."):
        cor.heat_map(image, image, (3, 3), features=lambda x: x[0])
    with pytest.raises(ValueError, match="leaves no place"):
        cor.dense_field(image, image, features=features, mask_b=torch.zeros(1, 1, 20, 24))


def test_without_the_bundled_model(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.diffusion.pipelines.MODELS", tmp_path)
    with pytest.raises(check.NotAvailable, match="'tiny-t2i' is not in"):
        cor.match(torch.rand(1, 3, 20, 24), torch.rand(1, 3, 20, 24), "dift")


def test_public_names():
    from workbench import lenses

    assert lenses.match is cor.match
    assert all(getattr(cor, name).__doc__ for name in cor.__all__)
    assert set(lenses.__all__) >= {"match", "record_features", "correspondence", "features"}
    assert wb.plot.show_matches.__doc__


def test_points_outside_the_picture_have_no_features():
    image = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    pair = cor.FeaturePair(image, image, (20, 24), (20, 24))
    for point in ([24.5, 3.0], [3.0, 20.5], [-0.1, 3.0]):
        told = rf"points holds \({point[0]:g}, {point[1]:g}\), expected .* x up to 24, y up to 20"
        with pytest.raises(ValueError, match=told):
            pair.best([[1.0, 1.0], point])
        with pytest.raises(ValueError, match=told):
            pair.heat_map(point)
    assert pair.best([[24.0, 20.0]])[0].shape == (1, 2)  # its very corner
