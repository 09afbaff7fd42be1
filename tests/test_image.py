"""Pictures in and out: every kind of source, every kind of refusal."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import workbench as wb
from workbench import check
from workbench import image as pictures


def file_bytes(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def expected(array) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)[None]


def test_all_sources_give_the_same_tensor(array, expected, tmp_path):
    Image.fromarray(array).save(tmp_path / "a.png")
    sources = [
        array,
        array.astype(np.float64) / 255,
        array.astype(np.uint16) * 257,
        array[None],
        torch.from_numpy(array).permute(2, 0, 1),
        expected,
        Image.fromarray(array),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        file_bytes(Image.fromarray(array)),
        memoryview(file_bytes(Image.fromarray(array))),
        file_bytes(Image.fromarray(array), "TIFF"),
        file_bytes(Image.fromarray(array), "WEBP", lossless=True),
    ]
    for source in sources:
        image = wb.load_image(source)
        assert image.shape == (1, 3, 5, 7)
        assert image.dtype == torch.float32
        torch.testing.assert_close(image, expected, atol=1e-6, rtol=0)


def test_the_result_is_a_copy(expected):
    image = wb.load_image(expected)
    image += 1
    assert expected.max() <= 1


def test_a_batch_stays_a_batch(array):
    assert wb.load_image(np.stack([array, array])).shape == (2, 3, 5, 7)


def test_catalogue_name_and_scaling_down():
    photo = wb.load_image("china", max_side=64)
    assert photo.shape == (1, 3, 43, 64)
    assert wb.load_image(photo, max_side=200).shape == photo.shape  # never up


def test_exif_rotation_turns_upright(array):
    picture = Image.fromarray(array)
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was held on its side: turn 90 degrees clockwise
    image = wb.load_image(file_bytes(picture, "TIFF", exif=exif))
    torch.testing.assert_close(image, wb.load_image(np.rot90(array, -1).copy()))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "PA", "I;16", "F"])
def test_every_mode_gives_three_channels(mode, array):
    grey = np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)
    if mode == "I;16":
        picture = Image.fromarray((grey * 65535).astype(np.uint16))
    elif mode == "F":
        picture = Image.fromarray(grey)
    else:
        picture = Image.fromarray(array).convert("P" if mode == "PA" else mode).convert(mode)
    image = wb.load_image(picture)
    assert image.shape == (1, 3, 5, 7)
    if mode in ("I;16", "F"):
        torch.testing.assert_close(image[0, 1], torch.from_numpy(grey), atol=1e-4, rtol=0)
    elif mode in ("RGBA", "CMYK"):
        torch.testing.assert_close(image, wb.load_image(array), atol=0.01, rtol=0)


def test_sixteen_bit_grey_file_keeps_its_depth():
    grey = np.array([[0, 256, 700], [30000, 65534, 65535]], np.uint16)
    image = wb.load_image(file_bytes(Image.fromarray(grey)))
    torch.testing.assert_close(image[0, 0], torch.from_numpy(grey / np.float32(65535)), atol=1e-7, rtol=0)


def test_transparency_is_laid_on_white():
    clear_red = np.zeros((2, 3, 4), np.uint8)
    clear_red[..., 0], clear_red[:, 0, 3] = 255, 255
    for source in (clear_red, Image.fromarray(clear_red), file_bytes(Image.fromarray(clear_red))):
        image = wb.load_image(source)
        assert image[0, :, 0, 0].tolist() == [1, 0, 0]
        assert image[0, :, 0, 1].tolist() == [1, 1, 1]


def test_a_colour_profile_is_converted_to_srgb_and_a_broken_one_ignored(array):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))  # a space of its own, in which
    swapped = swapped.replace(b"rXYZ", b"tmpX").replace(b"gXYZ", b"rXYZ").replace(b"tmpX", b"gXYZ")  # R means G
    plain = wb.load_image(array)

    def with_profile(profile):
        return wb.load_image(file_bytes(Image.fromarray(array), icc_profile=profile))

    torch.testing.assert_close(with_profile(swapped), plain[:, [1, 0, 2]], atol=0.02, rtol=0)
    assert torch.equal(with_profile(srgb), plain)
    assert torch.equal(with_profile(b"nonsense"), plain)


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 4), c) for c in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert wb.load_image(buffer.getvalue())[0, :, 0, 0].tolist() == [1, 0, 0]


def noise_file(kind: str) -> bytes:
    return file_bytes(Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)), kind)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        (b"not a picture", check.ImageFileError, "13 bytes given is not a picture"),
        (b"", check.ImageFileError, "not a picture"),
        (noise_file("PNG")[:2000], check.ImageFileError, "cut short"),
        (noise_file("JPEG")[:2000], check.ImageFileError, "cut short"),
        ("no_such_file.png", FileNotFoundError, "neither a file nor a photograph.*astronaut"),
        ("x" * 5000, FileNotFoundError, "neither a file"),
        (".", check.ImageFileError, "is a folder"),
        (3.5, TypeError, "source is a float"),
        (None, TypeError, "source is a NoneType"),
        (np.full((4, 5, 3), np.nan), ValueError, "NaN"),
        (np.full((4, 5, 3), 7.0), ValueError, "from 7 to 7.*Divide"),
        (np.full((4, 5, 3), -1.0), ValueError, "from_signed"),
        (np.zeros((4, 5, 3), np.int64), TypeError, "dtype int64"),
        (np.zeros((3, 4, 5)), ValueError, "Channels seem to come first"),
        (np.zeros((4,)), ValueError, r"shape \(4,\)"),
        (np.zeros((0, 5, 3)), ValueError, r"shape \(0, 5, 3\)"),
        (np.array([["a"]]), TypeError, "dtype"),
        (torch.zeros(4, 5, 3), ValueError, "Channels seem to come last"),
        (torch.full((3, 4, 5), 2.0), ValueError, "from 2 to 2"),
        (torch.full((3, 4, 5), torch.nan), ValueError, "NaN"),
    ],
)
def test_what_is_no_picture_is_refused(source, error, words):
    with pytest.raises(error, match=words):
        wb.load_image(source)


@pytest.mark.long
def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    bomb = file_bytes(Image.new("1", (30_000, 5_000)))  # 150 megapixels in a few kB
    with pytest.raises(check.ImageFileError, match=r"30000 x 5000 pixels, more than the limit of 100,000,000"):
        wb.load_image(bomb)
    with pytest.raises(check.ImageFileError, match="far more than the limit"):
        wb.load_image(file_bytes(Image.new("1", (40_000, 30_000))))
    monkeypatch.setattr(pictures, "MAX_PIXELS", 34)
    with pytest.raises(check.ImageFileError, match="7 x 5 pixels"):
        wb.load_image(file_bytes(Image.new("RGB", (7, 5))))


def test_the_refused_source_of_a_file_is_named(tmp_path):
    (tmp_path / "mask.png").write_text("<svg/>")
    with pytest.raises(check.ImageFileError, match=r"mask\.png"):
        wb.load_image(tmp_path / "mask.png")


# grey pictures, for masks and mattes


def test_load_grey_takes_the_band_that_varies():
    bands = np.zeros((4, 6, 4), np.uint8)
    bands[..., 3] = 255
    bands[:2, :, :3] = 255
    opaque = Image.fromarray(bands)  # the RGBA trap: a mask in the colours, nothing in the alpha
    assert pictures.load_grey(file_bytes(opaque))[0, 0, :, 0].tolist() == [1, 1, 0, 0]
    assert pictures.load_grey(bands)[0, 0, :, 0].tolist() == [1, 1, 0, 0]
    bands[..., :3], bands[3, :, 3] = 9, 0
    assert pictures.load_grey(Image.fromarray(bands))[0, 0, :, 0].tolist() == [1, 1, 1, 0]
    bands[0, :, :3] = 200
    with pytest.raises(ValueError, match="both the colours and the transparency"):
        pictures.load_grey(Image.fromarray(bands))
    assert pictures.load_grey(Image.fromarray(bands), channel="alpha")[0, 0, 3, 0] == 0
    with pytest.raises(ValueError, match="no transparency"):
        pictures.load_grey(Image.new("RGB", (3, 2)), channel="alpha")


# out


def test_save_and_load_again(photo, tmp_path):
    path = wb.save_image(photo, tmp_path / "new" / "a.png")
    assert (wb.load_image(path) - photo).abs().max() <= 0.5 / 255 + 1e-6
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]  # no half-written file stays
    grey = photo[:, :1]
    torch.testing.assert_close(pictures.load_grey(wb.save_image(grey, tmp_path / "g.png")), grey, atol=0.002, rtol=0)


def test_a_failed_save_leaves_the_old_file(photo, tmp_path, monkeypatch):
    path = wb.save_image(photo, tmp_path / "a.png")
    before = path.read_bytes()

    def broken(self, file, **options):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        wb.save_image(photo / 2, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_save_refuses_unknown_endings_and_batches(photo, tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.xyz'"):
        wb.save_image(photo, tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="holds 2 pictures"):
        wb.save_image(photo.repeat(2, 1, 1, 1), tmp_path / "a.png")


def test_uint8_rounds_and_shapes(photo):
    assert pictures.to_uint8(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)).tolist() == [[0, 128, 255]]
    assert pictures.to_uint8(photo).shape == (20, 28, 3)
    assert pictures.to_uint8(photo.repeat(2, 1, 1, 1)).shape == (2, 20, 28, 3)
    with pytest.raises(ValueError, match="from"):
        pictures.to_uint8(photo * 2)


def test_signed_range_is_undone(photo):
    assert pictures.to_signed(torch.tensor(0.25)) == -0.5
    torch.testing.assert_close(pictures.from_signed(pictures.to_signed(photo)), photo)


def test_resize(photo):
    assert pictures.resize(photo, (13, 50)).shape == (1, 3, 13, 50)
    flat = torch.full((2, 3, 9, 11), 0.4)
    torch.testing.assert_close(pictures.resize(flat, (4, 30)), torch.full((2, 3, 4, 30), 0.4))
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 3, 8, 64).clone()
    middle = pictures.resize(stripes, (8, 20))[..., 3:-3]
    assert (middle - 0.5).abs().max() < 0.1  # too fine to show: grey, no moire


def test_pad_frames_in_mid_grey(photo):
    padded = pictures.pad(photo, left=2, top=3, right=4, bottom=5)
    assert padded.shape == (1, 3, 28, 34)
    assert torch.equal(padded[..., 3:23, 2:30], photo)
    assert (padded * wb.mask.outpaint((28, 34), 2, 3, 4, 5)).unique().tolist() == [0, 0.5]


def test_png_with_few_colours_is_smaller_and_looks_the_same():
    photo = wb.load_image("coffee", max_side=200)
    exact, small = pictures.to_png(photo), pictures.to_png(photo, colours=128)
    assert len(small) < len(exact) / 2
    assert (wb.load_image(exact) - photo).abs().max() <= 0.5 / 255 + 1e-6
    assert (wb.load_image(small) - photo).abs().mean() < 0.02
    with pytest.raises(ValueError, match="colours is 300"):
        pictures.to_png(photo, colours=300)


def test_webp_keeps_every_value(photo):
    assert torch.equal(wb.load_image(pictures.to_webp(photo)), wb.load_image(pictures.to_uint8(photo)))
