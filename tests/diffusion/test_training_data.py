"""What is learnt from, and above all what is not."""

import pytest
import torch

import workbench as wb
from tests.diffusion.conftest import write_views
from workbench.diffusion import training_data
from workbench.diffusion.training_data import Crops, TrainingPictures, generator, training_mask


def test_held_out_photographs_are_never_opened(monkeypatch):
    opened, load = [], wb.image.load_image
    monkeypatch.setattr(training_data.pictures, "load_image", lambda name: opened.append(name) or load(name))
    crops = Crops()
    drawn = {crops.draw(generator(i))["name"] for i in range(200)}
    held = {"coffee", "chelsea", "motorcycle_left", "motorcycle_right"}
    assert held == set(training_data.HELD_OUT)
    assert not held & {*opened, *drawn, *training_data.training_photographs()}
    assert drawn == set(wb.data.photographs()) - held
    with pytest.raises(ValueError, match="coffee: held out"):
        Crops(["astronaut", "coffee"])


def test_a_picture_depends_on_its_numbers_only(views):
    pictures = TrainingPictures([views], photo_share=0.5)
    first = [pictures.draw(generator(0, 1, i)) for i in range(6)]
    again = [pictures.draw(generator(0, 1, i)) for i in reversed(range(6))][::-1]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert a["image"].shape == (3, 128, 128)
        assert 0 <= a["image"].min() <= a["image"].max() <= 1
    assert not torch.equal(first[0]["image"], first[1]["image"])
    assert {"name" in a for a in first} == {True, False}


def test_views_are_restyled_and_mirrored_with_their_depth(views):
    pictures = TrainingPictures([views], style=0)
    plain = pictures.view(2)
    seen = {bool(torch.equal(pictures.view(2, generator(i))["image"], plain["image"])) for i in range(8)}
    assert seen == {True, False}
    for i in range(8):
        view = pictures.view(2, generator(i))
        same = torch.equal(view["image"], plain["image"])
        assert torch.equal(view["depth"], plain["depth"] if same else plain["depth"].flip(-1))
    styled = TrainingPictures([views], style=1).view(2, generator(0))["image"]
    assert (styled - plain["image"]).abs().mean() > 0.005


def test_sprites_get_many_backgrounds(tmp_path):
    sprites = TrainingPictures([write_views(tmp_path / "s", "sprite")], style=0)
    images = [sprites.view(0, generator(i))["image"] for i in range(4)]
    assert (images[0] - images[1]).abs().max() > 0.05
    assert len({round(image.mean().item(), 4) for image in images}) == 4


def test_masks_are_of_all_kinds():
    shares = torch.tensor([training_mask(generator(i)).mean() for i in range(60)])
    assert (shares == 1).any()  # the whole picture
    assert ((shares > 0.05) & (shares < 0.3)).any()
    assert (shares > 0).all()


def test_wrong_folders_are_told(views, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m workbench\.world"):
        TrainingPictures([tmp_path])
    with pytest.raises(ValueError, match="the folders hold room, expected views of kind clip"):
        TrainingPictures([views], kinds=("clip",))
