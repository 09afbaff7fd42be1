"""Where things with mattes come from: sprites, folders of public sets, green-screen films."""

import numpy as np
import pytest
import torch

import workbench as wb
from tests.diffusion.conftest import write_views
from tests.methods.diffumatting.conftest import thing
from workbench.methods.diffumatting import LAYOUTS, FolderMattes, Layout, Matte, SpriteMattes, keyed_frames, on_green
from workbench.methods.diffumatting.data import Backgrounds, before, screen_colour, spread_colours, squared


def test_sprites_on_green(sprites):
    mattes = SpriteMattes([sprites])
    assert len(mattes) == 4
    example = on_green(mattes[1])
    assert example.caption == "a photo of a ball number 1 on a green background"
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    assert torch.equal(example.image, example.foreground * example.alpha + green * (1 - example.alpha))
    assert (example.image[0, 1][example.alpha[0, 0] == 0] == 1).all()
    assert len(SpriteMattes([sprites], 3)) == 3
    (feather,) = SpriteMattes([sprites], kinds=["feather"])  # seeds 0 to 3: toy, creature, hair, feather
    assert feather.caption == "a photo of a ball number 3"
    drawn = [mattes.draw(np.random.default_rng(k)) for k in range(12)]
    whole = [m.alpha for m in mattes] + [m.alpha.flip(-1) for m in mattes]
    assert all(any(torch.equal(d.alpha, w) for w in whole) for d in drawn)
    assert not torch.equal(mattes.draw(np.random.default_rng(0), style=1.0).foreground, drawn[0].foreground)


def test_no_sprites(tmp_path, sprites):
    rooms = write_views(tmp_path / "rooms")
    with pytest.raises(ValueError, match="views of kind room, expected sprites"):
        SpriteMattes([rooms])
    with pytest.raises(FileNotFoundError, match="holds no rendered data set"):
        SpriteMattes([tmp_path])
    with pytest.raises(ValueError, match="no sprite is of kind fern"):
        SpriteMattes([sprites], kinds=["fern"])
    with pytest.raises(ValueError, match="kinds is 'house', expected one of"):
        SpriteMattes([sprites], kinds=["house"])
    with pytest.raises(ValueError, match="count is 9"):
        SpriteMattes([sprites], 9)


def test_other_backgrounds(sprites, tmp_path):
    backgrounds = Backgrounds([write_views(tmp_path / "rooms")])
    seen = [backgrounds.draw(np.random.default_rng(k)) for k in range(4)]
    assert all(b.shape == (1, 3, 128, 128) for b in seen)
    example = before(SpriteMattes([sprites])[0], seen[0])
    empty = (example.alpha == 0).expand_as(example.image)
    assert torch.equal(example.image[empty], seen[0][empty])
    assert example.caption == "a photo of a ball number 0"  # no green is named
    with pytest.raises(ValueError, match="a folder holds sprites, expected rooms or facades"):
        Backgrounds([sprites])


@pytest.mark.parametrize("layout", [*LAYOUTS, Layout("a/b", "c")])
def test_folders_of_public_sets(layout, tmp_path):
    found = layout if isinstance(layout, Layout) else LAYOUTS[layout]
    sub = "clip/" if layout == "videomatte240k" else ""
    image, alpha = torch.rand(1, 3, 6, 9), torch.zeros(1, 1, 6, 9)
    alpha[..., 1:4, 2:7] = 1
    for name in ("one", "two"):
        wb.save_image(image, tmp_path / found.pictures / f"{sub}{name}.jpg")
        wb.save_image(alpha, tmp_path / found.mattes / f"{sub}{name}.png")
    wb.save_image(image, tmp_path / found.pictures / "alone.jpg")
    mattes = FolderMattes(tmp_path, layout, {"two": "a photo of two"})
    assert len(mattes) == 2
    assert torch.equal(mattes[0].alpha, alpha)
    assert (mattes[0].caption, mattes[1].caption) == ("", "a photo of two")
    stored = wb.load_image(tmp_path / found.pictures / f"{sub}one.jpg")
    assert torch.equal(mattes[0].foreground, stored) == found.foreground
    inside = alpha.expand_as(stored) == 1
    assert torch.equal(mattes[0].foreground[inside], stored[inside])
    assert FolderMattes(tmp_path, layout, max_side=6)[0].alpha.shape == (1, 1, 4, 6)


def test_folders_that_are_wrong(tmp_path):
    with pytest.raises(ValueError, match="layout is 'x', expected one of: adobe"):
        FolderMattes(tmp_path, "x")
    with pytest.raises(
        FileNotFoundError, match="is not there, expected a folder: layout 'am2k' has pictures in original"
    ):
        FolderMattes(tmp_path, "am2k")
    wb.save_image(torch.rand(1, 3, 6, 9), tmp_path / "image" / "a.png")
    wb.save_image(torch.rand(1, 1, 6, 9), tmp_path / "alpha" / "b.png")
    with pytest.raises(FileNotFoundError, match="1 pictures and 1 mattes but none of one name"):
        FolderMattes(tmp_path)
    wb.save_image(torch.rand(1, 1, 6, 8), tmp_path / "alpha" / "a.png")
    with pytest.raises(ValueError, match=r"is \(6, 9\) and .* is \(6, 8\) \(H, W\), expected the same size"):
        FolderMattes(tmp_path)[0]


def test_colours_are_spread_from_what_is_solid():
    image = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 3, 2, 8) / 10
    alpha = torch.tensor([0.0, 0.2, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0]).expand(1, 1, 2, 8)
    assert spread_colours(image, alpha)[0, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3, 0.3])
    assert torch.equal(spread_colours(image, alpha * 0.5), image)


def test_a_thing_in_a_square():
    matte = thing(1, 30, 60)
    square = squared(matte, 64)
    assert square.alpha.shape == (1, 1, 64, 64)
    assert square.foreground.shape == (1, 3, 64, 64)
    assert square.alpha[..., :15, :].max() == 0
    assert square.alpha.mean().item() == pytest.approx(matte.alpha.mean().item() / 2, rel=0.05)
    small = squared(matte, 16)
    solid = (small.alpha > 0.99).expand_as(small.foreground)
    assert (small.foreground[solid] - 0.5).abs().min() > 0.001  # the grey of the padding is not mixed in
    same = squared(Matte(torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8)), 8)
    assert same.alpha.shape == (1, 1, 8, 8)


def test_portraits_from_a_green_screen_film(tmp_path):
    """Forty-one frames of a disc that moves: three are taken, and keyed about right."""
    screen = torch.tensor([0.1, 0.8, 0.2]).view(1, 3, 1, 1)
    frames = []
    for k in range(41):
        alpha = thing(0).alpha.roll(k, -1)
        frames.append(torch.tensor([0.8, 0.3, 0.3]).view(1, 3, 1, 1) * alpha + screen * (1 - alpha))
    film = wb.image.save_film(frames, tmp_path / "portrait.gif")
    assert len(wb.image.load_frames(film)) == 41
    found = list(keyed_frames(film, caption="a photo of a person"))
    assert len(found) == 3
    for k, matte in enumerate(found):
        truth = thing(0).alpha.roll(20 * k, -1)
        assert (matte.alpha - truth).abs().mean() < 0.05
        solid = (truth == 1).expand_as(matte.foreground)
        assert (matte.foreground[solid].unflatten(0, (3, -1)).mean(1) - torch.tensor([0.8, 0.3, 0.3])).abs().max() < 0.1
    assert screen_colour(frames[0]) == pytest.approx((0.1, 0.8, 0.2), abs=1e-5)


def test_a_short_film_gives_its_first_frame(tmp_path):
    screen = torch.tensor([0.1, 0.8, 0.2]).view(1, 3, 1, 1)
    alpha = thing(0).alpha
    frames = [torch.full_like(screen, g) * alpha + screen * (1 - alpha) for g in (0.5, 0.6, 0.7)]
    film = wb.image.save_film(frames, tmp_path / "short.gif")
    assert wb.image.load_frames(film, every=20).shape[0] == 1
    assert len(list(keyed_frames(film))) == 1


def test_films_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a file, expected a video"):
        list(keyed_frames(tmp_path / "no.gif"))
    red = torch.tensor([0.8, 0.1, 0.1]).view(1, 3, 1, 1).expand(1, 3, 8, 9)
    film = wb.image.save_film([red, red.flip(1)], tmp_path / "red.gif")
    with pytest.raises(ValueError, match="the border's colour is .* expected a green screen"):
        list(keyed_frames(film, every=1))
    with pytest.raises(ValueError, match="every is 0"):
        list(keyed_frames(film, every=0))
