"""Pictures in and out: the only place that knows PIL, files, uint8 and [-1, 1].

Everywhere else a picture is a float32 tensor (B, 3, H, W), RGB, in [0, 1].
"""

import io
import itertools
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps

from workbench import check, data

LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue (ITU-R BT.601)."""
MAX_PIXELS = 100_000_000
"""Larger files are refused before they are decoded: 100 megapixels, 1.2 GB as float32."""
_VIDEO_MARKS = ((4, b"ftyp"), (8, b"AVI "), (0, b"\x1aE\xdf\xa3"))
"""Place and bytes by which MP4 and MOV, AVI, WebM and MKV begin."""


def load_image(source, *, max_side: int | None = None) -> torch.Tensor:
    """Any picture as a tensor.

    Files are turned upright (EXIF), converted from their colour profile to sRGB, laid on white where they
    are transparent, and read as their first frame if animated.

    Args:
        source: a catalogue name ("astronaut", see `wb.data.photographs`), a path, raw bytes (as the upload
            widget gives them), a PIL image, a NumPy array (H, W), (H, W, 1 | 3 | 4) or (B, H, W, 3) of uint8,
            uint16, bool or float in [0, 1], or a tensor (3, H, W), (1, H, W) or (B, 1 | 3, H, W) likewise.
        max_side: scale down, never up, until neither side is longer than this many pixels.

    Returns:
        float32 (B, 3, H, W), RGB, in [0, 1]; B = 1 for one picture. Always a copy.

    Raises:
        ImageFileError: not a picture, cut short, or more than `MAX_PIXELS`.
        FileNotFoundError: neither a catalogue name nor a file.
        ValueError: NaN, values outside [0, 1], or a shape that is no picture.
        TypeError: a kind of object, or dtype, that holds no picture.

    Example:
        >>> load_image("coffee").shape
        torch.Size([1, 3, 400, 600])
    """
    if isinstance(source, torch.Tensor):
        image = _from_channels_first(source)
    elif isinstance(source, np.ndarray):
        image = _from_channels_last(source)
    else:
        image = _from_channels_last(_array(_rgb(_open(source))))
    return image if max_side is None else fit(image, max_side)


def load_grey(source, *, channel: str | None = None) -> torch.Tensor:
    """One channel of a picture: what masks, mattes and trimaps are stored as.

    Args:
        source: as in `load_image`; a tensor or array may have one channel.
        channel: "luminance" or "alpha"; None takes the luminance, unless the transparency also varies.

    Returns:
        float32 (1, 1, H, W) in [0, 1].

    Raises:
        ValueError: both colours and transparency vary, so it must be said which one is meant.
        ImageFileError, FileNotFoundError, TypeError: as in `load_image`.
    """
    if channel is not None:
        check.choice(channel, "channel", ("luminance", "alpha"))
    if isinstance(source, (torch.Tensor, np.ndarray)):
        bands, picture = _grey_and_alpha(source), None
    else:
        picture = _open(source)
        bands = np.asarray(picture.convert("LA")) if picture.has_transparency_data else None  # (H, W, 2)
    if bands is not None:
        varies = [np.ptp(bands[..., i]) > 0 for i in range(2)]
        if channel is None and all(varies):
            raise ValueError(
                "both the colours and the transparency of this file vary, expected a mask in one of them. "
                'Say which: channel="luminance" or channel="alpha".'
            )
        use_alpha = channel == "alpha" or (channel is None and varies[1])
        return _from_channels_last(np.ascontiguousarray(bands[..., 1 if use_alpha else 0]))[:, :1]
    if channel == "alpha":
        raise ValueError("the picture has no transparency, expected an alpha channel.")
    if picture is not None:
        return to_grey(_from_channels_last(_array(_rgb(picture))))
    return to_grey((_from_channels_first if isinstance(source, torch.Tensor) else _from_channels_last)(source))


def _grey_and_alpha(source) -> np.ndarray | None:
    """Luminance and alpha of an array (H, W, 4), as it holds them (H, W, 2); None for other arrays and tensors."""
    if not isinstance(source, np.ndarray) or source.ndim != 3 or source.shape[2] != 4:
        return None
    grey = to_grey(_from_channels_last(np.ascontiguousarray(source[..., :3])))  # (1, 1, H, W)
    alpha = _from_channels_last(np.ascontiguousarray(source[..., 3]))[:, :1]
    return torch.cat([grey, alpha], 1)[0].permute(1, 2, 0).numpy()


def save_image(image: torch.Tensor, path) -> Path:
    """Writes one picture; the ending of the name chooses the format (.png keeps every value, .jpg does not).

    The file appears whole or not at all.

    Args:
        image: (1, 3, H, W), or (1, 1, H, W) for a mask or matte; [0, 1].
        path: where to; its folder is made.

    Returns:
        The path.

    Raises:
        ValueError: an ending that no format goes by, or more than one picture.
    """
    path = Path(path)
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{path.name!r} ends in {path.suffix!r}, expected a picture's ending such as .png or .jpg.")
    picture = to_pil(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    options = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
    try:
        picture.save(part, **options)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def save_film(frames: Iterable[torch.Tensor], path, seconds: float = 3) -> Path:
    """Writes pictures as an animated GIF that plays over and over; the file appears whole or not at all.

    Each picture has 256 colours of its own, dithered. GIF counts time in hundredths of a second.

    Args:
        frames: pictures (1, 1 | 3, H, W) in [0, 1], all of one size.
        path: where to, ending in .gif; its folder is made.
        seconds: how long one round takes; no picture is shown for less than 0.02.

    Returns:
        The path.

    Raises:
        ValueError: another ending, no picture, or pictures of several sizes.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"{path.name!r} ends in {path.suffix!r}, expected .gif.")
    check.number(seconds, "seconds", 0.02)
    pictures = [to_pil(frame).convert("RGB") for frame in frames]
    if not pictures:
        raise ValueError("frames is empty, expected at least one picture.")
    sizes = sorted({picture.size[::-1] for picture in pictures})
    if len(sizes) > 1:
        raise ValueError(f"frames have the sizes {', '.join(map(str, sizes))} (H, W), expected one size.")
    first, *others = (picture.quantize(256) for picture in pictures)
    ends = [round(100 * seconds * k / len(pictures)) for k in range(len(pictures) + 1)]  # hundredths
    times = [10 * max(b - a, 2) for a, b in itertools.pairwise(ends)]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part.gif")
    try:
        first.save(part, save_all=True, append_images=others, duration=times, loop=0, disposal=1)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def load_frames(path, *, count: int | None = None, every: int = 1, max_side: int | None = None) -> torch.Tensor:
    """Reads a video, or an animated GIF, PNG or WebP.

    Args:
        path: of the file. MP4, MOV, AVI and WebM need a decoder beside imageio: ``pip install av``.
        count: at most so many frames; None takes all.
        every: one frame of so many.
        max_side: scales down so that no side is longer, as `fit`.

    Returns:
        (T, 3, H, W) in [0, 1]; T = 1 where ``every`` leaves the first alone.

    Raises:
        FileNotFoundError: no such file.
        ImageFileError: it is no video, or holds a single picture.
        NotAvailable: a video for which no decoder is on this machine.

    Example:
        >>> frames = load_frames("street.gif", every=4, max_side=512)
    """
    import imageio.v3 as imageio  # only here; it loads a good deal

    check.integer(every, "every", 1)
    if count is not None:
        check.integer(count, "count", 2)
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not a file, expected a video.")
    frames, number = [], -1
    try:
        for number, frame in enumerate(imageio.imiter(path)):
            if number % every == 0:
                picture = _from_channels_last(np.asarray(frame))
                frames.append(picture if max_side is None else fit(picture, max_side))
            if len(frames) == count:
                break
    except Exception as error:  # each of imageio's decoders has its own kinds
        reason = str(error).strip().split("\n")[0][:120]
        if _is_video(path):
            raise check.NotAvailable(
                f"{path.name} needs a decoder that is not on this machine ({reason}). Install one, pip install av, or "
                "save the clip as an animated GIF."
            ) from None
        raise check.ImageFileError(f"{path.name} is no video in a known format, or cut short: {reason}") from None
    if number < 1:
        raise check.ImageFileError(f"{path.name} holds one picture, expected a video: two frames at least.")
    if len({frame.shape for frame in frames}) > 1:
        raise check.ImageFileError(f"{path.name} has frames of several sizes, expected one.")
    return torch.cat(frames)  # (T, 3, H, W)


def to_uint8(image: torch.Tensor) -> np.ndarray:
    """Rounds [0, 1] to 0..255: (B, C, H, W) -> uint8 array (H, W, C) for one picture, (B, H, W, C) for more.

    One channel gives (H, W). Raises ValueError outside [0, 1].
    """
    image = _picture(image).detach()
    array = (image.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # (B, H, W, C)
    array = array[..., 0] if image.shape[1] == 1 else array
    return np.ascontiguousarray(array[0] if image.shape[0] == 1 else array)


def to_pil(image: torch.Tensor) -> Image.Image:
    """One picture (1, 1 | 3, H, W) as a PIL image, mode L or RGB."""
    if isinstance(image, torch.Tensor) and image.ndim == 4 and image.shape[0] != 1:
        raise ValueError(f"image holds {image.shape[0]} pictures, expected one. Take one with image[i:i + 1].")
    return Image.fromarray(to_uint8(image))


def array_to_pil(array: np.ndarray) -> Image.Image:
    """Bytes as they are, what NumPy makes of a PIL image turned back.

    Args:
        array: uint8 (H, W) or (H, W, 2 | 3 | 4), or bool (H, W).

    Returns:
        A PIL image of mode L, LA, RGB or RGBA, or 1.
    """
    return Image.fromarray(array)


def to_png(image: torch.Tensor, colours: int | None = None) -> bytes:
    """One picture (1, 1 | 3, H, W) as the bytes of a PNG file.

    Args:
        image: [0, 1].
        colours: at most so many, 2 to 256, dithered: a third of the size, to look at only. None keeps every value.
    """
    picture = to_pil(image)
    if colours is not None:
        picture = picture.convert("RGB").quantize(check.integer(colours, "colours", 2, 256))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=colours is not None)
    return buffer.getvalue()


def to_webp(image: torch.Tensor) -> bytes:
    """One picture (1, 1 | 3, H, W) as the bytes of a lossless WebP file: a quarter smaller than PNG, slow to write."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return buffer.getvalue()


def to_signed(image: torch.Tensor) -> torch.Tensor:
    """[0, 1] -> [-1, 1], the range diffusion models work in: 2 x - 1."""
    return image * 2 - 1


def from_signed(image: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> [0, 1]: (x + 1) / 2, clipped."""
    return (image / 2 + 0.5).clamp(0, 1)


def to_grey(image: torch.Tensor) -> torch.Tensor:
    """Luminance 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601): (B, 3, H, W) -> (B, 1, H, W)."""
    weights = image.new_tensor(LUMINANCE).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True).clamp(0, 1)  # (B, 1, H, W)


def resize(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cubic interpolation, smoothed first where the picture shrinks (no aliasing).

    Args:
        image: (B, C, H, W) in [0, 1]; a mask resized so becomes soft.
        size: (H, W) in pixels.

    Returns:
        (B, C, *size), clipped to [0, 1].
    """
    size, image = check.size(size), _picture(image)
    if tuple(image.shape[-2:]) == size:
        return image.clone()
    resized = torch.nn.functional.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 1)  # (B, C, *size)


def fit(image: torch.Tensor, max_side: int) -> torch.Tensor:
    """Scales down, keeping the proportions, until no side is longer than ``max_side`` pixels; never up."""
    check.integer(max_side, "max_side", 1)
    height, width = image.shape[-2:]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def pad(image: torch.Tensor, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> torch.Tensor:
    """A larger frame for outpainting: the new border is mid grey, 0.5.

    Args:
        image: (B, C, H, W).
        left, top, right, bottom: pixels to add on each side.

    Returns:
        (B, C, H + top + bottom, W + left + right). `wb.mask.outpaint` with the same numbers marks the border.
    """
    sides = [check.integer(v, n, 0) for v, n in ((left, "left"), (right, "right"), (top, "top"), (bottom, "bottom"))]
    return torch.nn.functional.pad(_picture(image), sides, value=0.5)


def _picture(image) -> torch.Tensor:
    """An image (B, 3, H, W) or a one-channel picture (B, 1, H, W)."""
    one_channel = isinstance(image, torch.Tensor) and image.ndim == 4 and image.shape[1] == 1
    return check.alpha(image, "image") if one_channel else check.image(image)


def _open(source) -> Image.Image:
    """Catalogue name, path, bytes or PIL image -> an upright, fully decoded PIL image."""
    if isinstance(source, Image.Image):
        picture, told = source, "the PIL image"
    elif isinstance(source, (bytes, bytearray, memoryview)):
        picture, told = io.BytesIO(bytes(source)), f"the {len(source)} bytes given"
    elif isinstance(source, (str, os.PathLike)):
        picture, told = _path(source), f"{str(source)!r}"
    else:
        raise TypeError(
            f"source is a {type(source).__name__}, expected a catalogue name, path, raw bytes, PIL image, "
            "NumPy array or tensor."
        )
    try:
        if not isinstance(picture, Image.Image):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error below, where PIL warns
                picture = Image.open(picture)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise check.ImageFileError(
                f"{told} has {width} x {height} pixels, more than the limit of {MAX_PIXELS:,}. "
                "Scale it down first, or raise wb.image.MAX_PIXELS if you trust it."
            )
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except check.ImageFileError:
        raise
    except Image.DecompressionBombError:
        raise check.ImageFileError(f"{told} has far more than the limit of {MAX_PIXELS:,} pixels.") from None
    except Image.UnidentifiedImageError:
        raise check.ImageFileError(f"{told} is not a picture in a known format (PNG, JPEG, TIFF, WebP ...).") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise check.ImageFileError(f"{told} cannot be read as a picture, it may be cut short: {error}") from None
    return upright


def _is_video(path: Path) -> bool:
    """Whether a file begins as videos do that PIL cannot read."""
    with path.open("rb") as file:
        start = file.read(16)
    return any(start[place:].startswith(mark) for place, mark in _VIDEO_MARKS)


def _path(source) -> Path:
    """A catalogue name or the path of an existing file."""
    if isinstance(source, str) and source in data.photographs():
        return data.photograph(source).path
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            raise check.ImageFileError(f"{str(source)!r} is a folder, expected one picture.")
        if path.exists():
            return path
    except OSError:  # a string no file can be called by
        pass
    told = str(source) if len(str(source)) <= 80 else f"{str(source)[:77]}..."
    raise FileNotFoundError(
        f"{told!r} is neither a file nor a photograph of the catalogue ({', '.join(data.photographs())})."
    )


def _rgb(picture: Image.Image) -> Image.Image:
    """Any PIL mode -> RGB in sRGB on white; 16-bit and float grey keep their own mode."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return picture
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "RGBA", "CMYK", "LAB"):
        picture = _to_srgb(picture, profile)
    if picture.mode == "LAB":
        raise check.ImageFileError("the picture is in LAB colours without a usable profile, expected RGB.")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Converts by the picture's own colour profile; a broken profile is ignored, as browsers do."""
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if picture.mode == mode and "sRGB" in ImageCms.getProfileDescription(source):
            return picture
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture


def _array(picture: Image.Image) -> np.ndarray:
    """PIL image -> array (H, W) or (H, W, 3); PIL's 32-bit mode I holds 16-bit greys, 0..65535."""
    array = np.asarray(picture)
    if picture.mode != "I":
        return array
    if array.min() < 0 or array.max() > 65535:
        raise check.ImageFileError(f"the picture has greys from {array.min()} to {array.max()}, expected 0 to 65535.")
    return array.astype(np.uint16)


def _from_channels_last(array: np.ndarray) -> torch.Tensor:
    """(H, W), (H, W, C) or (B, H, W, C) -> float32 (B, 3, H, W)."""
    told = f"the array has shape {array.shape}"
    if array.ndim == 2:
        array = array[None, :, :, None]  # (1, H, W, 1)
    elif array.ndim == 3:
        array = array[None]  # (1, H, W, C)
    if array.ndim != 4 or array.shape[3] not in (1, 3, 4) or 0 in array.shape:
        swapped = array.ndim == 4 and array.shape[1] in (1, 3, 4)
        hint = " Channels seem to come first: use array.transpose(1, 2, 0), or give a tensor." if swapped else ""
        raise ValueError(f"{told}, expected (H, W), (H, W, 1 | 3 | 4) or (B, H, W, 3): channels last.{hint}")
    pixels = _unit_range(np.ascontiguousarray(array))  # (B, H, W, C)
    if array.shape[3] == 4:
        pixels = pixels[..., :3] * pixels[..., 3:] + (1 - pixels[..., 3:])  # on white, (B, H, W, 3)
    return pixels.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).contiguous()  # (B, 3, H, W)


def _from_channels_first(tensor: torch.Tensor) -> torch.Tensor:
    """(C, H, W) or (B, C, H, W) with C 1 or 3 -> float32 (B, 3, H, W)."""
    told, tensor = f"the tensor has shape {tuple(tensor.shape)}", tensor.detach()
    if tensor.ndim == 3:
        tensor = tensor[None]  # (1, C, H, W)
    if tensor.ndim != 4 or tensor.shape[1] not in (1, 3) or 0 in tensor.shape:
        swapped = tensor.ndim == 4 and tensor.shape[3] in (1, 3, 4)
        hint = " Channels seem to come last: use tensor.permute(2, 0, 1), or give a NumPy array." if swapped else ""
        raise ValueError(f"{told}, expected (3, H, W) or (B, 3, H, W): channels first.{hint}")
    pixels = tensor if tensor.is_floating_point() else _unit_range(tensor.cpu().numpy()).to(tensor.device)
    pixels = pixels.float().expand(-1, 3, -1, -1).contiguous().clone()  # (B, 3, H, W)
    return check.image(pixels, "the tensor")


def _unit_range(array: np.ndarray) -> torch.Tensor:
    """Any stored number to float32 in [0, 1], shape kept."""
    depth = {"bool": 1, "uint8": 255, "uint16": 65535}.get(array.dtype.name)
    if depth is not None:
        return torch.from_numpy(array.astype(np.float32) / depth)
    if array.dtype.kind != "f":
        raise TypeError(
            f"the array has dtype {array.dtype}, expected uint8 (0..255), uint16 (0..65535), bool or float in [0, 1]. "
            "Convert it with array.astype(np.uint8)."
        )
    low, high = array.min(), array.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("the array holds NaN or infinite values, expected a picture in [0, 1].")
    if low < 0 or high > 1:
        raise ValueError(
            f"the array has values from {low:.4g} to {high:.4g}, expected floats in [0, 1]. "
            "Divide 0..255 by 255; map -1..1 with wb.image.from_signed."
        )
    return torch.from_numpy(array.astype(np.float32))
