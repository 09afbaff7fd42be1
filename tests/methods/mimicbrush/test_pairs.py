"""What is learnt from: frames and their band, augmentations one by one, masks by their rule, films from files."""

import numpy as np
import pytest
import torch

import workbench as wb
from tests.methods.mimicbrush.narrow import noise
from workbench import check
from workbench.diffusion.training_data import TrainingPictures, generator
from workbench.methods.mimicbrush import (
    AUGMENTATIONS,
    Films,
    Pairs,
    augment,
    box_mask,
    frame_pairs,
    grid_mask,
    keypoints,
    segment_mask,
)
from workbench.methods.mimicbrush.masks import cell_counts, find_segments
from workbench.methods.mimicbrush.pairs import RenderedFilms, judge


def smooth(height=40, width=56, seed=0):
    """(1, 3, H, W), asymmetric."""
    return wb.image.resize(noise(1, 3, 6, 8, seed=seed), (height, width))


# Frames


def test_the_band_keeps_the_middle():
    still, other = smooth(), smooth(seed=1)
    near = (0.97 * still + 0.03 * other).clamp(0, 1)
    half = (0.6 * still + 0.4 * other).clamp(0, 1)
    found = frame_pairs(torch.cat([still, near, half, 1 - still]), band=(0.2, 0.98))
    assert [pair.ssim for pair in found] == sorted(pair.ssim for pair in found)
    verdicts = {(pair.a, pair.b): pair.verdict for pair in found}
    assert len(verdicts) == 6
    assert verdicts[0, 1] == "too similar"
    assert verdicts[0, 3] == "too different"
    assert verdicts[0, 2] == "kept"
    value, verdict = judge(still, half, (0.2, 0.98))
    assert value == pytest.approx(wb.metrics.ssim(still, half, where="all").item())
    assert verdict == "kept"
    some = frame_pairs(torch.cat([still, near, half, 1 - still]), count=2, seed=3)
    assert len(some) == 2
    assert some == frame_pairs(torch.cat([still, near, half, 1 - still]), count=2, seed=3)


def test_clips_of_the_benchmark_have_pairs_of_every_kind():
    found = frame_pairs(wb.data.clip("clip-00").frames[::5])
    assert any(pair.verdict == "kept" for pair in found)


def test_films_cut_the_same_part_of_both_frames():
    film = torch.cat([smooth(30, 50), smooth(30, 50) * 0.5])
    rng = np.random.default_rng(0)
    for _ in range(4):
        a, b, there = Films([film], size=32).draw(rng)
        assert there is None
        assert a.shape == (1, 3, 32, 32)
        ratio = b.mean() / a.mean()
        assert min(abs(ratio - 0.5), abs(ratio - 2)) < 0.01
    a, b, _ = Films([film]).draw(rng)
    assert a.shape == b.shape == (1, 3, 30, 50)


def test_rendered_films_never_mix_scenes(films_folder):
    pictures = TrainingPictures([films_folder], 0.0)
    films = RenderedFilms(pictures)
    assert len(films) == 3
    rows = [pictures.row(k)["image"] for k in range(len(pictures))]
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20):
        places = [next(k for k, row in enumerate(rows) if torch.equal(row, frame[0])) for frame in films.draw(rng)[:2]]
        assert places[0] != places[1]
        assert places[0] // 4 == places[1] // 4
        seen.add(places[0] // 4)
    assert seen == {0, 1, 2}


# Augmentations


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_augmentation_alone(name):
    picture = smooth()
    before = picture.clone()
    changed = [augment(picture, np.random.default_rng(seed), [name]) for seed in range(6)]
    assert torch.equal(picture, before)
    assert any((a.image - picture).abs().mean() > 0.01 for a in changed)
    for a in changed:
        assert a.image.shape == picture.shape
        assert 0 <= a.image.min() <= a.image.max() <= 1
        assert torch.equal(a.homography, torch.eye(3, dtype=torch.float64)) == (
            name == "colour" or a.told == "not mirrored"
        )
    again = augment(picture, np.random.default_rng(2), [name])
    assert torch.equal(again.image, changed[2].image)
    assert repr(again).startswith(f"Augmented({again.told}")


@pytest.mark.parametrize("seed", range(4))
def test_the_homography_tells_where_a_pixel_went(seed):
    """On a picture whose colours are its coordinates, the colour at the carried point is the point it came from."""
    height, width = 48, 64
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    picture = torch.stack([x / width, y / height, torch.zeros_like(x)])[None]
    names = ["rotation", "resize", "flip", "projective"]
    changed = augment(picture, np.random.default_rng(seed), names, strength=0.6)
    points = torch.tensor([[28.5, 22.5], [40.5, 30.5], [33.5, 20.5]])
    checked = 0
    for point, (u, v) in zip(points, changed.carry(points), strict=True):
        if 1 < u < width - 1 and 1 < v < height - 1:
            i, j = int(v), int(u)
            seen = changed.image[0, :2, i, j] * torch.tensor([width, height])
            back = torch.linalg.inv(changed.homography) @ torch.tensor([j + 0.5, i + 0.5, 1.0]).double()
            assert torch.allclose(seen.double(), back[:2] / back[2], atol=0.1)
            assert (seen - point).norm() < 3  # a pixel beside, enlarged
            checked += 1
    assert checked


def test_no_augmentation_and_no_strength():
    picture = smooth()
    assert torch.equal(augment(picture, np.random.default_rng(0), []).image, picture)
    names = ["colour", "rotation", "resize", "projective"]
    still = augment(picture, np.random.default_rng(0), names, strength=0)
    torch.testing.assert_close(still.image, picture, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="names is 'blur', expected one of: colour, rotation"):
        augment(picture, np.random.default_rng(0), ["blur"])
    with pytest.raises(ValueError, match="image holds 2 pictures, expected one"):
        augment(torch.cat([picture, picture]), np.random.default_rng(0))


def test_grey_stays_grey():
    """Colour jitter turns and stretches chroma, of which grey has none."""
    grey = smooth()[:, :1].expand(-1, 3, -1, -1)
    changed = augment(grey, np.random.default_rng(3), ["colour"]).image
    assert (changed.amax(1) - changed.amin(1)).max() < 0.01
    assert (changed - grey).abs().max() > 0.02


# Masks


def test_points_by_cell():
    points = [(0.5, 0.5), (29.9, 0.2), (30.1, 39.0), (59.9, 39.9), (60.0, 10.0), (-1, 3)]
    assert cell_counts(points, (40, 60), 2).tolist() == [[2, 0], [0, 2]]


@pytest.mark.parametrize(("rule", "full", "rest"), [("paper", 0.75, 0.5), ("released", 0.7, 0.3)])
def test_cells_with_matches_are_hole_more_often(rule, full, rest):
    """Five of sixteen cells hold points; shares over 400 masks, within four standard deviations."""
    places = [0, 3, 6, 9, 15]
    points = [((k % 4) * 16 + 8, (k // 4) * 10 + 5) for k in places]
    counts = torch.zeros(16)
    for seed in range(400):
        mask = grid_mask((40, 64), np.random.default_rng(seed), points, cells=4, rule=rule)
        counts += mask[0, 0, 5::10, 8::16].reshape(-1)
        assert 0 < mask.mean() < 1
    shares = counts / 400
    inside = torch.zeros(16, dtype=torch.bool)
    inside[places] = True
    assert abs(shares[inside].mean() - full) < 4 * (0.25 / 2000) ** 0.5
    assert abs(shares[~inside].mean() - rest) < 4 * (0.25 / 4400) ** 0.5


def test_grids_without_points_and_their_sizes():
    sides = set()
    for seed in range(40):
        mask = grid_mask((60, 90), np.random.default_rng(seed))
        assert mask.shape == (1, 1, 60, 90)
        changes = (mask[0, 0].diff(dim=1) != 0).any(0).sum()
        sides.add(int(changes) + 1)
        assert set(mask.unique().tolist()) == {0, 1}
    assert max(sides) <= 10
    assert max(sides) >= 8
    with pytest.raises(ValueError, match="cells is 5 for a mask of .3, 90., expected at most one a pixel"):
        grid_mask((3, 90), np.random.default_rng(0), cells=5)
    with pytest.raises(ValueError, match="rule is 'all', expected one of: paper, released"):
        grid_mask((30, 90), np.random.default_rng(0), rule="all")


def test_boxes_and_segments():
    rng = np.random.default_rng(0)
    for _ in range(10):
        mask = box_mask((50, 80), rng)
        x0, y0, x1, y1 = wb.mask.bounding_box(mask)
        assert mask.sum() == (x1 - x0) * (y1 - y0)
        assert 0.38 < (x1 - x0) / 80 <= 0.9
        assert 0.38 < (y1 - y0) / 50 <= 0.9
    ids = torch.zeros(40, 50, dtype=torch.int64)
    ids[10:20, 5:25], ids[0, 0] = 4, 9
    seen = {int(segment_mask(ids, np.random.default_rng(seed), grow=0).sum()) for seed in range(8)}
    assert seen == {200}  # 0 covers too much, 9 too little
    grown = segment_mask(ids, np.random.default_rng(1), grow=3)
    assert (grown[0, 0] >= (ids == 4).float()).all()
    assert segment_mask(torch.zeros(40, 50, dtype=torch.int64), rng) is None


def test_segments_and_keypoints_are_found():
    picture = torch.full((1, 3, 64, 80), 0.2)
    picture[0, 0, 20:44, 30:60] = 0.9
    segments = find_segments(picture)
    assert segments[32, 45] != segments[5, 5]
    points = keypoints(picture)
    corners = torch.tensor([[30.0, 20], [60, 20], [30, 44], [60, 44]])
    assert torch.cdist(corners, points).amin(1).max() < 3
    assert len(keypoints(torch.full((1, 3, 20, 20), 0.5))) == 0


# Pairs


def test_pairs_of_both_kinds(films_folder):
    pictures = TrainingPictures([films_folder], 0.3)
    pairs = Pairs(RenderedFilms(pictures), pictures, band=(0.05, 0.99))
    drawn = [pairs.draw(generator(0, k)) for k in range(24)]
    kinds = [pair.kind for pair in drawn]
    assert 9 <= kinds.count("video") <= 22
    assert "still" in kinds
    for pair in drawn:
        assert pair.source.shape == pair.reference.shape == (1, 3, 128, 128)
        assert 0 < pair.mask.mean() < 1
        assert (pair.ssim == 1) == (pair.kind == "still")
        assert pair.told.startswith("brightness")
    again = pairs.draw(generator(0, 5))
    assert all(torch.equal(getattr(again, name), getattr(drawn[5], name)) for name in ("source", "mask", "reference"))
    assert "video" not in {Pairs(None, pictures, 0.0).draw(generator(0, k)).kind for k in range(5)}


def test_pairs_guided_by_matches(films_folder):
    pictures = TrainingPictures([films_folder], 0.0)
    pairs = Pairs(RenderedFilms(pictures), None, 1.0, band=(0.05, 0.99), augmentations=[], guide="sift")
    drawn = [pairs.draw(generator(1, k)) for k in range(3)]
    assert any(pair.points is not None and len(pair.points) > 0 for pair in drawn)
    assert all(pair.told == "as it was" for pair in drawn)


def test_pairs_that_are_refused(films_folder):
    pictures = TrainingPictures([films_folder], 0.0)
    with pytest.raises(ValueError, match="there is no film for a video_share of 0.7"):
        Pairs(None, pictures)
    with pytest.raises(ValueError, match="there are no stills for a video_share of 0.5"):
        Pairs(RenderedFilms(pictures), None, 0.5)
    with pytest.raises(ValueError, match="band is .0.9, 0.2., expected .lowest, highest. SSIM"):
        Pairs(None, pictures, 0.0, band=(0.9, 0.2))
    with pytest.raises(ValueError, match="guide is 'luck', expected one of: keypoints, sift, none"):
        Pairs(None, pictures, 0.0, guide="luck")
    with pytest.raises(ValueError, match="films of two frames at least"):
        Films([smooth()])
    with pytest.raises(ValueError, match="frames holds one picture, expected at least two"):
        frame_pairs(smooth())


# One's own film


def test_a_film_from_a_file(tmp_path):
    frames = torch.cat([smooth(seed=k) for k in range(5)])
    path = wb.image.save_film(list(frames.split(1)), tmp_path / "film.gif")
    read = wb.image.load_frames(path)
    assert read.shape == frames.shape
    assert (read - frames).abs().mean() < 0.04  # 256 colours, dithered
    assert (read - frames.roll(1, 0)).abs().mean() > 0.1
    assert torch.equal(wb.image.load_frames(path, every=2, count=2), read[[0, 2]])
    assert wb.image.load_frames(path, max_side=28).shape == (5, 3, 20, 28)
    assert Pairs(Films([read], 32), None, 1.0, band=(-1, 1)).draw(generator(0, 0)).kind == "video"


def test_files_that_are_no_film(tmp_path):
    text, cut, one = tmp_path / "notes.mp4", tmp_path / "cut.gif", tmp_path / "one.png"
    text.write_text("this is no video at all, only its name says so")
    with pytest.raises(check.ImageFileError, match="notes.mp4 is no video in a known format"):
        wb.image.load_frames(text)
    wb.save_image(smooth(), one)
    with pytest.raises(check.ImageFileError, match="one.png holds one picture, expected a video"):
        wb.image.load_frames(one)
    whole = wb.image.save_film([smooth(seed=k) for k in range(3)], tmp_path / "whole.gif").read_bytes()
    cut.write_bytes(whole[:200])
    with pytest.raises(check.ImageFileError, match="cut.gif"):
        wb.image.load_frames(cut)
    video = tmp_path / "film.mp4"
    video.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    with pytest.raises((check.NotAvailable, check.ImageFileError), match=r"film.mp4 .*(pip install av|no video)"):
        wb.image.load_frames(video)
    with pytest.raises(FileNotFoundError, match="is not a file, expected a video"):
        wb.image.load_frames(tmp_path / "none.gif")
    with pytest.raises(FileNotFoundError, match="expected a video"):
        wb.image.load_frames(tmp_path)
    with pytest.raises(ValueError, match="count is 1, expected a whole number of at least 2"):
        wb.image.load_frames(one, count=1)
