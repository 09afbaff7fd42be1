"""The catalogue against the files it names."""

import hashlib

import pytest
import torch

import workbench as wb
from workbench import check, data


def test_every_photograph_is_there_as_described():
    for name in data.photographs():
        entry = data.photograph(name)
        assert hashlib.sha256(entry.path.read_bytes()).hexdigest() == entry.sha256, name
        assert wb.load_image(name).shape == (1, 3, *entry.size), name
        assert entry.licence, name
        assert entry.source, name


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(ValueError, match="'cofee'. Did you mean coffee"):
        data.photograph("cofee")
    with pytest.raises(ValueError, match="There are: astronaut, "):
        data.photograph("zzzzzz")


def test_a_missing_package_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(check.NotAvailable, match=r"sklearn does not ship datasets/images/china\.jpg here"):
        _ = data.photograph("china").path


def test_disparity_matches_the_pair():
    left, right, d = wb.load_image("motorcycle_left"), wb.load_image("motorcycle_right"), data.disparity()
    assert d.shape == (1, 1, 500, 741)
    known = d.isfinite()
    assert 0.9 < known.float().mean() < 0.95
    x = torch.arange(741).float().expand(500, 741) - d[0, 0].nan_to_num(0)  # where the right view sees each pixel
    y = torch.arange(500).float()[:, None].expand(500, 741)
    grid = torch.stack([x / 740 * 2 - 1, y / 499 * 2 - 1], -1)[None]  # (1, H, W, 2)
    warped = torch.nn.functional.grid_sample(right, grid, align_corners=True)
    inside = known & (x >= 0)

    def error(a, b):
        return ((a - b).abs().mean(1, keepdim=True) * inside).sum() / inside.sum()

    assert error(warped, left) < 0.4 * error(right, left)  # following the disparity explains most differences


def test_the_rendered_benchmark_is_offered_here():
    assert len(data.scenes()) >= 24
    assert len(data.clips()) >= 12
    assert len(data.sprites()) >= 40
    scene = wb.data.scene(data.scenes()[0])
    assert wb.load_image(scene.target).shape == scene.target.shape
    with pytest.raises(AttributeError, match="no attribute 'scenery'"):
        _ = data.scenery
