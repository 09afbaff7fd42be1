"""What each gesture does to the pixels: a function of the picture before it, with nothing remembered.

Pixels are uint8 (H, W). In a mask 0 = keep, 255 = hole, and between them the soft edge of a brush; in a trimap
0 = background, 128 = unknown, 255 = foreground. Arguments are numbers, words, lists and packed arrays only, so a
gesture can be written down as JSON and done again.
"""

import base64
import math
import numbers
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from workbench import check, image, mask, raster

EMPTY, UNKNOWN, FULL = 0, 128, 255
LABELS = {"background": EMPTY, "unknown": UNKNOWN, "foreground": FULL}


@dataclass(frozen=True)
class Change:
    """New pixels for a part of the picture; with ``image`` a new photograph, and pixels for all of it."""

    rows: slice
    columns: slice
    pixels: np.ndarray
    image: torch.Tensor | None = None


# Shapes


def stroke(document, points, radius=8, softness=0.0, erase=False, label=None) -> Change:
    """A brush drawn along a path."""
    return _paint(document, raster.stroke_patch(document.size, points, radius, softness), erase, label)


def rectangle(document, x0, y0, x1, y1, erase=False, label=None) -> Change:
    """A box between any two opposite corners."""
    return _paint(document, raster.box_patch(document.size, _corners(x0, y0, x1, y1)), erase, label)


def ellipse(document, x0, y0, x1, y1, erase=False, label=None) -> Change:
    """The ellipse in a box."""
    return _paint(document, raster.ellipse_patch(document.size, _corners(x0, y0, x1, y1)), erase, label)


def polygon(document, points, erase=False, label=None) -> Change:
    """A polygon with straight sides."""
    return _paint(document, raster.polygon_patch(document.size, points), erase, label)


def lasso(document, points, erase=False, label=None) -> Change:
    """What a free-hand path goes round."""
    return _paint(document, raster.lasso_patch(document.size, points), erase, label)


def fill(document, x, y, tolerance=0.1, erase=False, label=None) -> Change:
    """The connected area of the photograph that looks like the pixel at (x, y)."""
    area = mask.flood(document.image, (x, y), tolerance)
    x0, y0, x1, y1 = mask.bounding_box(area)
    rows, columns = slice(y0, y1), slice(x0, x1)
    return _paint(document, (rows, columns, area[0, 0, rows, columns].numpy()), erase, label)


# The whole picture


def clear(document) -> Change:
    """Nothing is hole (in a trimap: all background)."""
    return _everything(np.zeros(document.size, np.uint8))


def invert(document) -> Change:
    """Hole and kept area exchanged; in a trimap foreground and background."""
    inverted = FULL - document.pixels
    if document.mode == "trimap":
        inverted[document.pixels == UNKNOWN] = UNKNOWN
    return _everything(inverted)


def grow(document, radius) -> Change:
    """Adds what lies no farther than ``radius`` from the hole; in a trimap from the unknown band."""
    return _reshape(document, mask.grow, check.number(radius, "radius", 0))


def shrink(document, radius) -> Change:
    """Takes away what lies no farther than ``radius`` inside the hole's edge; in a trimap of the unknown band."""
    return _reshape(document, mask.shrink, check.number(radius, "radius", 0))


def feather(document, radius) -> Change:
    """A soft ramp outside the hole."""
    if document.mode == "trimap":
        raise ValueError("feather softens an edge, but a trimap holds 0, 0.5 and 1 only. Use grow: it widens the band.")
    return _reshape(document, mask.feather, check.number(radius, "radius", 0))


def load(document, mask) -> Change:
    """A packed mask in place of what is there."""
    pixels = unpack(mask)
    if pixels.shape != document.size:
        raise ValueError(
            f"mask is {pixels.shape} (H, W), expected {document.size} like the photograph. "
            "Resize it with wb.image.resize, or load the photograph it belongs to."
        )
    return _everything(pixels)


# The photograph


def extend(document, left=0, top=0, right=0, bottom=0) -> Change:
    """A larger frame; what is new is hole (in a trimap: unknown)."""
    picture = image.pad(document.image, left=left, top=top, right=right, bottom=bottom)
    if left + top + right + bottom == 0:
        raise ValueError("left, top, right and bottom are all 0, expected pixels to add on at least one side.")
    pixels = np.full(picture.shape[-2:], UNKNOWN if document.mode == "trimap" else FULL, np.uint8)
    height, width = document.size
    pixels[top : top + height, left : left + width] = document.pixels
    return _everything(pixels, picture)


def load_photograph(document, source) -> Change:
    """Another photograph; the mask stays if it is of the same size, and is emptied otherwise."""
    if set(source) == {"file"}:
        source = base64.b64decode(source["file"])
    elif set(source) == {"name"}:
        source = source["name"]
    else:
        source = unpack(source)
    picture = one_photograph(source)
    same_size = tuple(picture.shape[-2:]) == document.size
    return _everything(document.pixels.copy() if same_size else np.zeros(picture.shape[-2:], np.uint8), picture)


GESTURES = {
    function.__name__: function
    for function in (
        *(stroke, rectangle, ellipse, polygon, lasso, fill),
        *(clear, invert, grow, shrink, feather, load),
        *(extend, load_photograph),
    )
}


# Arguments as JSON


def to_json(value):
    """Numbers, words, lists, arrays and packed arrays as what json.dumps takes."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    return value


def pack(array: np.ndarray) -> dict:
    """An array as JSON: shape, dtype and its compressed bytes in base64. Every value is kept."""
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array), 1)).decode("ascii")
    return {"shape": list(array.shape), "dtype": array.dtype.name, "zlib": data}


def unpack(packed: dict) -> np.ndarray:
    """The array that `pack` wrote."""
    data = zlib.decompress(base64.b64decode(packed["zlib"]))
    return np.frombuffer(data, np.dtype(packed["dtype"])).reshape(packed["shape"])


def pack_photograph(source) -> dict:
    """A photograph's source as JSON: a catalogue name, a file's own bytes, or the packed pixels."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return {"file": base64.b64encode(source).decode("ascii")}
    if isinstance(source, str) and source in image.data.photographs():
        return {"name": source}
    pixels = one_photograph(source)[0].permute(1, 2, 0).numpy()  # (H, W, 3)
    bytes_ = np.rint(pixels * 255).astype(np.uint8)
    return pack(bytes_ if np.array_equal(bytes_.astype(np.float32) / 255, pixels) else pixels)


def one_photograph(source) -> torch.Tensor:
    """What `wb.load_image` takes, as one picture (1, 3, H, W)."""
    picture = image.load_image(source)
    if picture.shape[0] != 1:
        raise ValueError(f"image holds {picture.shape[0]} photographs, expected one. Take one with image[i:i + 1].")
    return picture.cpu()


def to_levels(values: torch.Tensor, mode: str, like: tuple[int, int]) -> np.ndarray:
    """A mask (1, 1, H, W), hard or soft, or a trimap -> pixels uint8 (H, W)."""
    _ = check.trimap(values) if mode == "trimap" else check.mask(values, soft=True)
    if values.shape[0] != 1 or tuple(values.shape[-2:]) != like:
        raise ValueError(
            f"{mode} has shape {tuple(values.shape)}, expected (1, 1, {like[0]}, {like[1]}) like the photograph. "
            "Resize it with wb.image.resize, or load the photograph it belongs to."
        )
    return _levels(values[0, 0].detach().cpu().float().numpy())  # (H, W)


# Pixels


def _paint(document, patch: raster.Patch, erase: bool, label: str | None) -> Change:
    """Lays a shape over the pixels: the softer of two edges never eats into the harder one."""
    rows, columns, coverage = patch
    before = document.pixels[rows, columns]
    if document.mode == "trimap":
        if label is not None and erase:
            raise ValueError(f"label is {label!r} and erase is True, expected one of them: to erase paints background.")
        label = check.choice(label or ("background" if erase else "foreground"), "label", LABELS)
        return Change(rows, columns, np.where(coverage >= 0.5, np.uint8(LABELS[label]), before))
    if label is not None:
        raise ValueError(f'label is {label!r}, but labels belong to a trimap. Make the editor with mode="trimap".')
    ink = _levels(coverage)
    return Change(rows, columns, np.minimum(before, FULL - ink) if erase else np.maximum(before, ink))


def _reshape(document, operation, radius: float) -> Change:
    """Grows, shrinks or feathers the hole, looking only at the part of the picture the result depends on.

    That is the box of all that is drawn, with a margin: the radius to grow or feather by, and to shrink by one
    ring of kept pixels, because for any pixel inside no kept pixel lies nearer than one of that ring.
    """
    drawn = document.pixels > 0
    if not drawn.any():
        return Change(slice(0, 0), slice(0, 0), np.zeros((0, 0), np.uint8))
    reach = math.ceil(radius) + 1
    rows, columns = (
        slice(max(0, int(line[0]) - reach), min(length, int(line[-1]) + 1 + reach))
        for line, length in zip(
            (np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))), document.size, strict=True
        )
    )
    before = document.pixels[rows, columns]
    band = document.mode == "trimap"
    hole = before == UNKNOWN if band else before >= UNKNOWN
    reshaped = _levels(operation(torch.from_numpy(hole.astype(np.float32))[None, None], radius)[0, 0].numpy())
    return Change(rows, columns, _with_band(before, reshaped > 0) if band else reshaped)


def _with_band(trimap: np.ndarray, band: np.ndarray) -> np.ndarray:
    """The trimap with another unknown band; a pixel that left it takes the label of the nearest known pixel."""
    nearest = ndimage.distance_transform_edt(trimap == UNKNOWN, return_distances=False, return_indices=True)
    return np.where(band, np.uint8(UNKNOWN), trimap[tuple(nearest)])


def _corners(x0, y0, x1, y1) -> tuple[float, float, float, float]:
    """Two opposite corners, dragged in any direction -> (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = (check.number(v, n) for v, n in ((x0, "x0"), (y0, "y0"), (x1, "x1"), (y1, "y1")))
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _everything(pixels: np.ndarray, picture: torch.Tensor | None = None) -> Change:
    return Change(slice(0, pixels.shape[0]), slice(0, pixels.shape[1]), pixels, picture)


def _levels(values: np.ndarray) -> np.ndarray:
    """[0, 1] -> 0..255, rounded: what counts as hole (0.5 and more) becomes 128 and more."""
    return np.rint(values * 255).astype(np.uint8)
