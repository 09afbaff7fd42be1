"""What is learnt from, and above all what is not."""

import re

import pytest
import torch

import workbench as wb
from tests.diffusion.conftest import write_views
from workbench.diffusion import training_data
from workbench.diffusion.training_data import Crops, TrainingPictures, close_up, cut_free, generator, training_mask
from workbench.world.views import SURROUNDINGS, label_vector, on_background, seen_in


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


def test_a_plain_background_is_named(tmp_path):
    sprites = TrainingPictures([write_views(tmp_path / "s", "sprite")], photo_share=0.3, style=0)
    told = sprites.view(0)["caption"]
    views = [sprites.view(0, generator(i)) for i in range(40)]
    named = [view for view in views if view["caption"] != told]
    assert 20 <= len(named) < 40  # others stand before pictures
    for view in named:
        assert re.fullmatch(re.escape(told) + r" on an? \w+ background", view["caption"])
    assert on_background("a photo of a ball", (0.0, 1.0, 0.0)) == "a photo of a ball on a green background"
    assert on_background("a photo of a ball", (1.0, 0.55, 0.0)) == "a photo of a ball on an orange background"


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


def test_close_ups_tell_what_is_left():
    scene = wb.data.scene("room-07")
    given = {
        "image": scene.target[0],
        "ids": scene.ids.long(),
        "things": scene.things,
        "labels": label_vector(["room"]),
    }
    captions = set()
    for i in range(20):
        part = close_up(given, generator(i))
        assert part["image"].shape == (3, 128, 128)
        assert part["ids"].shape == (128, 128)
        seen = [scene.things[k] for k in seen_in(part["ids"], len(scene.things))]
        named = [thing for thing in seen if thing.split()[-1] not in SURROUNDINGS]
        assert named, "the thing that was drawn is in the square"
        assert part["caption"].startswith("a photo of a room with ")
        assert all(thing.split()[-1] in part["caption"] for thing in named[:4])
        captions.add(part["caption"])
    assert len(captions) > 5


def test_a_close_up_holds_the_whole_thing_where_it_can():
    ids, things = torch.zeros(128, 128, dtype=torch.int64), ["grey wall", "red ball"]
    ids[:], ids[100:120, 5:25] = 1, 2
    view = {
        "image": (ids == 2).float().expand(3, -1, -1),
        "ids": ids,
        "things": things,
        "labels": label_vector(["room"]),
    }
    for i in range(20):
        part = close_up(view, generator(i))
        share = (part["ids"] == 2).float().mean().item()
        assert share == pytest.approx(400 / 64**2, rel=0.1), "a small thing: half the view's side, all of it inside"
        assert torch.equal(part["image"][0] > 0.5, part["ids"] == 2)
        assert part["caption"] == "a photo of a room with a red ball"
    nothing = {**view, "ids": torch.ones_like(ids)}
    assert close_up(nothing, generator(0)) is nothing


def test_a_thing_is_cut_free_of_all_others():
    ids = torch.zeros(128, 128, dtype=torch.int64)
    ids[:] = 1
    ids[40:80, 30:70], ids[90:100, 30:40], ids[100:, 60:120] = 2, 3, 4
    image = torch.stack([(ids == k).float() for k in (2, 3, 4)])
    things = ["grey wall", "orange ball", "small cube", "cone at the frame"]
    view = {"image": image, "ids": ids, "things": things, "labels": label_vector(["room"])}
    shares = []
    for i in range(20):
        part = cut_free(view, generator(i))
        assert part["caption"] == "a photo of an orange ball", "the others are surroundings, small, or cut by the frame"
        assert part["foreground"].shape == (3, 128, 128)
        assert part["things"] == ["orange ball"]
        assert torch.equal(part["labels"], label_vector(["sprite", "orange ball"]))
        assert torch.equal(part["ids"] == 1, part["alpha"][0] > 0.5)
        inside = part["alpha"][0] > 0.999
        assert (part["foreground"][0][inside] > 0.95).all()
        assert part["foreground"][1:, inside].max() < 0.05
        shares.append(part["alpha"].mean().item())
        high, wide = ((part["alpha"][0] > 0.5).any(axis).sum().item() for axis in (0, 1))
        assert abs(high - wide) <= 3, "square, as it was: all of it is in the picture"
    assert 1 / 1.75**2 < min(shares) < max(shares) < 1 / 1.05**2
    nothing = {**view, "ids": torch.ones_like(ids)}
    assert cut_free(nothing, generator(0)) is nothing


def test_a_share_of_views_is_of_one_thing_alone(views):
    alone = TrainingPictures([views], style=0, alone=1.0)
    assert "on a" not in alone.view(0)["caption"].replace("on a wooden floor", ""), "as it was rendered"
    captions = [alone.view(0, generator(i))["caption"] for i in range(12)]
    assert any(caption.endswith(" background") for caption in captions)
    assert all(caption.startswith("a photo of a red ball") for caption in captions)
    with pytest.raises(ValueError, match="alone is -1"):
        TrainingPictures([views], alone=-1)


def test_a_share_of_views_is_close(views):
    wide, near = (TrainingPictures([views], style=0, close=share) for share in (0.0, 1.0))
    assert "depth" in wide.view(0, generator(0))
    assert {near.view(0, generator(i))["caption"] for i in range(4)} == {
        "a photo of a room with a red ball on a wooden floor"
    }
    assert near.view(0, generator(0))["image"].std() != wide.view(0, generator(0))["image"].std()
    assert torch.equal(near.view(0)["image"], wide.view(0)["image"]), "as it was rendered without a generator"
    with pytest.raises(ValueError, match="close is 1.5"):
        TrainingPictures([views], close=1.5)
