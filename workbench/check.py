"""Argument checks with one voice: what came, what was expected, which convention, how to mend it.

Every check returns its (possibly converted) argument, so a function can begin with
``image = check.image(image)``. Wrong values raise ValueError, wrong kinds TypeError.
"""

import math
import numbers
from collections.abc import Iterable, Sequence

import numpy as np
import torch

SHAPES = {
    "image": "(B, 3, H, W): RGB, float, in [0, 1]",
    "mask": "(B, 1, H, W): one channel, float, 1 = hole = repaint, 0 = keep",
    "alpha": "(B, 1, H, W): one channel, float in [0, 1], 1 = foreground",
    "trimap": "(B, 1, H, W): one channel, float, 0 = background, 0.5 = unknown, 1 = foreground",
}
LOADER = {
    "image": "Load it with wb.load_image.",
    "mask": "Load it with wb.load_mask.",
    "alpha": "Divide 8-bit values by 255.",
    "trimap": "Make it with wb.mask.trimap.",
}


class ImageFileError(ValueError):
    """A file, or raw bytes, that cannot be read as one picture."""


class NotAvailable(RuntimeError):
    """An optional package or its weights are not on this machine; the message says what to install."""


def _tensor(value, kind: str, name: str, channels: int) -> torch.Tensor:
    """The part all pictures share: a float tensor (B, channels, H, W), finite, in [0, 1]."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}, expected a tensor {SHAPES[kind]}. {LOADER[kind]}")
    if value.ndim != 4 or value.shape[1] != channels or 0 in value.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {SHAPES[kind]}. {LOADER[kind]}")
    if not value.is_floating_point():
        raise TypeError(f"{name} has dtype {value.dtype}, expected float32 {SHAPES[kind]}. {LOADER[kind]}")
    low, high = (x.item() for x in value.detach().aminmax())
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise ValueError(f"{name} holds NaN or infinite values, expected {SHAPES[kind]}.")
    if low < 0 or high > 1:
        raise ValueError(f"{name} has values from {low:.4g} to {high:.4g}, expected {SHAPES[kind]}. {LOADER[kind]}")
    return value


def image(value, name: str = "image") -> torch.Tensor:
    """An RGB picture, float (B, 3, H, W) in [0, 1]."""
    return _tensor(value, "image", name, 3)


def pictures(value, name: str = "pictures") -> list[torch.Tensor]:
    """Some RGB pictures of any sizes, as a list of (1, 3, H, W); a batch (N, 3, H, W) is N of them."""
    if isinstance(value, (str, bytes)) or not isinstance(value, (torch.Tensor, Sequence)):
        kind = type(value).__name__
        raise TypeError(f"{name} is a {kind}, expected a list of pictures (1, 3, H, W). Use wb.load_image.")
    given = [value] if isinstance(value, torch.Tensor) else value
    names = [name] if isinstance(value, torch.Tensor) else [f"{name}[{i}]" for i in range(len(given))]
    batches = [image(picture, told) for picture, told in zip(given, names, strict=True)]
    return [batch[i : i + 1] for batch in batches for i in range(len(batch))]


def mask(value, like: torch.Tensor | None = None, name: str = "mask", soft: bool = False) -> torch.Tensor:
    """A mask, float (B, 1, H, W); only 0 and 1 unless ``soft``; as high, wide and many as ``like``.

    A mask with B = 1 serves a batch of any size.
    """
    _tensor(value, "mask", name, 1)
    if not soft and not ((value == 0) | (value == 1)).all():
        raise ValueError(
            f"{name} holds values between 0 and 1, expected a hard mask of 0 (keep) and 1 (repaint). "
            "Make it hard with (mask >= 0.5).float()."
        )
    if like is not None:
        same_size(value, like, name, "image")
        if value.shape[0] not in (1, like.shape[0]):
            raise ValueError(f"{name} has {value.shape[0]} items for {like.shape[0]} images, expected 1 or as many.")
    return value


def leaves_something(mask: torch.Tensor, what: str = "picture") -> None:
    """A mask whose every item keeps at least one pixel of the ``what``."""
    if len(mask) and mask.flatten(1).amin(1).max() > 0.5:
        raise ValueError(f"mask covers the whole {what}, expected some kept pixels (0) to go on from.")


def alpha(value, name: str = "alpha") -> torch.Tensor:
    """An alpha matte, float (B, 1, H, W) in [0, 1], 1 = foreground."""
    return _tensor(value, "alpha", name, 1)


def trimap(value, like: torch.Tensor | None = None, name: str = "trimap") -> torch.Tensor:
    """A trimap, float (B, 1, H, W) holding 0, 0.5 and 1 only."""
    _tensor(value, "trimap", name, 1)
    if not ((value == 0) | (value == 0.5) | (value == 1)).all():
        raise ValueError(
            f"{name} holds other values than 0, 0.5 and 1, expected {SHAPES['trimap']}. {LOADER['trimap']}"
        )
    if like is not None:
        same_size(value, like, name, "alpha")
    return value


def same_size(a: torch.Tensor, b: torch.Tensor, name_a: str, name_b: str) -> None:
    """Two pictures of the same height and width."""
    if a.shape[-2:] != b.shape[-2:]:
        raise ValueError(
            f"{name_a} is {tuple(a.shape[-2:])} and {name_b} is {tuple(b.shape[-2:])} (H, W), expected the same. "
            "Resize one with wb.image.resize."
        )


def number(value, name: str, low: float | None = None, high: float | None = None) -> float:
    """A finite number with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected a number{_bounds(low, high)}.")
    if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{name} is {value!r}, expected a number{_bounds(low, high)}.")
    return float(value)


def integer(value, name: str, low: int | None = None, high: int | None = None) -> int:
    """A whole number with low <= value <= high."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), expected a whole number{_bounds(low, high)}.")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{name} is {value!r}, expected a whole number{_bounds(low, high)}.")
    return int(value)


def _bounds(low, high) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return f" of at most {high}" if high is not None else ""


def seed(value, name: str = "seed") -> int:
    """A seed for a local torch.Generator: a whole number from 0 to 2**63 - 1."""
    return integer(value, name, 0, 2**63 - 1)


def choice(value, name: str, options: Iterable[str]) -> str:
    """One of a few words."""
    options = list(options)
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} is {value!r}, expected one of: {', '.join(options)}.")
    return value


def size(value, name: str = "size") -> tuple[int, int]:
    """A picture's size (H, W) in pixels."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}, expected (H, W): two whole numbers, height first.")
    return integer(value[0], f"{name}[0], the height,", 1), integer(value[1], f"{name}[1], the width,", 1)


def box(value, name: str = "box") -> tuple[float, float, float, float]:
    """A box (x0, y0, x1, y1) in pixels, its end excluded."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        raise TypeError(f"{name} is {value!r}, expected (x0, y0, x1, y1): four numbers, x first, end excluded.")
    x0, y0, x1, y1 = (number(v, f"{name}[{i}]") for i, v in enumerate(value))
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"{name} is {tuple(value)}, expected x0 < x1 and y0 < y1: (x0, y0, x1, y1), end excluded.")
    return x0, y0, x1, y1


def points(value, name: str = "points", at_least: int = 1) -> np.ndarray:
    """Points (x, y) in pixels, as an array (N, 2); the middle of the top left pixel is (0.5, 0.5)."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}, expected a list of (x, y) pairs.") from None
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < at_least:
        raise ValueError(f"{name} has shape {array.shape}, expected (N, 2): (x, y) pairs, N at least {at_least}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values, expected (x, y) in pixels.")
    return array
