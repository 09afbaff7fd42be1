"""The detector that teaches: boxes and targets by hand, its losses, its training."""

import math

import pytest
import torch

from tests.diffusion.conftest import write_views
from workbench.methods.spl import detector as detecting
from workbench.methods.spl import make_teacher
from workbench.methods.spl.detector import Locating, boxes_of, load_detector, make_detector, overlap, targets_of

NARROW = (4, 5, 6, 9)


def test_boxes_of_a_picture():
    """Small specks and what is not looked for have none; the largest comes first."""
    ids = torch.zeros(32, 48, dtype=torch.int64)
    ids[4:12, 8:16], ids[20:28, 0:40], ids[0, 0] = 2, 1, 3
    things = ["a blue sofa", "red striped ball", "green ball", "white wall"]
    assert boxes_of(ids, things, ["ball", "sofa"]) == [(1, (0, 20, 40, 28)), (0, (8, 4, 16, 12))]
    assert boxes_of(ids, [""], ["ball"]) == []


def test_targets_by_hand():
    """A box of 24 x 16 px, and in it one of 8 x 8, which wins its cell."""
    label, distances = targets_of([(5, (0, 8, 24, 24)), (3, (8, 8, 16, 16))], (32, 40))
    assert label.tolist() == [[-1] * 5, [5, 3, 5, -1, -1], [5, 5, 5, -1, -1], [-1] * 5]
    assert distances[:, 1, 0].tolist() == [0.5, 0.5, 2.5, 1.5]
    assert distances[:, 1, 1].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert distances[:, 0, 0].tolist() == [0, 0, 0, 0]


def test_overlap_by_hand():
    a = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [2, 2, 2, 2]]).T
    b = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]]).T
    assert overlap(a, b).tolist() == [1, 0.5, 0.25]


class Says(torch.nn.Module):
    """A detector that says the same of every cell: odds of 1 for both words, boxes of 2 x 2 cells."""

    def forward(self, image):
        return torch.zeros(1, 2, 2, 2), torch.ones(1, 4, 2, 2)


def test_the_losses_by_hand():
    label = torch.tensor([[[0, -1], [-1, -1]]])
    distances = torch.zeros(1, 4, 2, 2)
    distances[0, :, 0, 0] = torch.tensor([1.0, 1, 0, 1])
    losses = Locating(Says())({"image": torch.zeros(1, 3, 16, 16), "label": label, "distances": distances})
    assert losses["boxes"].item() == pytest.approx(math.log(2))
    assert losses["naming"].item() == pytest.approx((0.25 + 7 * 0.75) * 0.25 * math.log(2), rel=1e-5)
    nothing = Locating(Says())({"image": torch.zeros(1, 3, 16, 16), "label": label.fill_(-1), "distances": distances})
    assert nothing["boxes"] == 0


def test_it_learns_a_picture():
    objective = Locating(make_detector(("ball", "sofa"), NARROW))
    image = torch.zeros(2, 3, 32, 32)
    image[0, 0, 8:24, 8:24], image[1, 1, :16, :16] = 1, 1
    told = [targets_of(found, (32, 32)) for found in ([(0, (8, 8, 24, 24))], [(1, (0, 0, 16, 16))])]
    batch = {"image": image, "label": torch.stack([t[0] for t in told]), "distances": torch.stack([t[1] for t in told])}
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        losses.append(objective(batch))
        losses[-1]["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1]["boxes"] < 0.5 * losses[0]["boxes"]
    assert losses[-1]["naming"] < 0.5 * losses[0]["naming"]


def test_it_is_trained_exported_and_teaches(tmp_path, monkeypatch):
    views = write_views(tmp_path / "rooms", count=4)
    monkeypatch.setattr(detecting, "make_detector", lambda labels, seed: make_detector(labels, NARROW, seed))
    monkeypatch.setattr("workbench.diffusion.train.MODELS", tmp_path / "models")
    command = ["--data", str(views), "--validation", str(views), "--folder", str(tmp_path / "run"), "--steps", "2"]
    command += ["--batch-size", "2", "--validate-every", "2", "--precision", "no"]
    detecting.main(command)
    folder = tmp_path / "models" / "tiny-detector"
    assert "ball" in load_detector(folder).config.labels
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    teacher = make_teacher("detector", pictures, source=folder)
    assert teacher(pictures).shape == (2, 9, 4, 4)
    assert teacher(pictures).std().item() == pytest.approx(1, abs=1e-3)
    with pytest.raises(SystemExit, match="photos is 0.5, expected 0"):
        detecting.main([*command, "--photos", "0.5"])
