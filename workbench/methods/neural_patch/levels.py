"""The pyramid: which part of a picture is worked on, at which sizes, and what each level starts from."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench import check
from workbench.image import resize

NEARLY = 0.75
"""A level larger than this share of the finest is left out: it would show nothing new."""


@dataclass(frozen=True)
class Level:
    """One size of the picture.

    Args:
        number, of: this level and how many there are; 1 is the coarsest.
        size: (h, w) in pixels. The tensors are longer, to multiples of the network's largest stride, on the right and
            below, by repeating the edge; what is added is optimised where it continues the hole, and then cut off.
        reference: (1, 3, h', w'), the picture with its hole as the level begins: the content reference.
        mask: (1, 1, h', w'), 1 = free.
    """

    number: int
    of: int
    size: tuple[int, int]
    reference: torch.Tensor
    mask: torch.Tensor


def choose_window(mask: torch.Tensor, finest: int) -> tuple[int, int, int, int]:
    """The part (x0, y0, x1, y1) of a picture that is worked on: three times the hole's box, and ``finest`` at least.

    A hole of up to ``finest`` / 3 pixels, in however large a picture, is so optimised at full resolution.

    Args:
        mask: (1, 1, H, W) with a hole.
        finest: long side of the finest level in pixels.
    """
    ends = []
    for dim in (-1, -2):
        hole = mask[0, 0].amax(-1 if dim == -2 else -2).nonzero()[:, 0]
        first, last, side = int(hole[0]), int(hole[-1]) + 1, mask.shape[dim]
        length = min(side, max(finest, 3 * (last - first)))
        start = min(max(0, (first + last - length) // 2), side - length)
        ends.append((start, start + length))
    (x0, x1), (y0, y1) = ends
    return x0, y0, x1, y1


def pyramid_sizes(size: tuple[int, int], sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Sizes (h, w) of the levels, coarse to fine: the picture never enlarged, its proportions kept.

    The finest has the long side min(last of sizes, picture's); levels of more than three quarters of that are left out.

    Args:
        size: of the picture, (H, W).
        sizes: long sides, rising.

    Example:
        >>> pyramid_sizes((300, 400), (128, 256, 512))
        [(96, 128), (192, 256), (300, 400)]
    """
    long = max(size)
    finest = min(long, sizes[-1])
    sides = [side for side in sizes if side <= NEARLY * finest] + [finest]
    return [tuple(max(1, round(n * side / long)) for n in size) for side in sides]


def shrink_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The mask at another size: a pixel is free that holds any of the hole.

    Args:
        mask: (1, 1, H, W).
        size: (h, w), not larger.
    """
    return F.adaptive_max_pool2d(mask, size)


def smooth_fill(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The fallback for a content network: colours of the hole's edge, spread inwards, smoothly and without structure.

    Pull: the mean of the known pixels in blocks of 2, 4, 8 ... until every block knows one. Push: back up, where a
    pixel is known it stays, elsewhere the coarser level is interpolated.

    Args:
        image: (1, 3, H, W) in [0, 1]; what it holds in the hole is never looked at.
        mask: (1, 1, H, W), 1 = hole.

    Returns:
        (1, 3, H, W) in [0, 1], known pixels as they were.

    Source: Gortler et al., The lumigraph, 1996 (push and pull).

    Example:
        >>> start = smooth_fill(photo, mask)
    """
    weight = 1 - mask
    known = [(image * weight, weight)]  # finest first
    while known[-1][1].min() == 0 and max(known[-1][1].shape[-2:]) > 1:
        colour, weight = known[-1]
        even = (0, weight.shape[-1] % 2, 0, weight.shape[-2] % 2)
        total, count = (F.avg_pool2d(F.pad(t, even), 2) for t in (colour, weight))  # (1, C, h / 2, w / 2)
        mean = total / count.clamp_min(1e-12)
        weight = (count > 0).to(count)
        known.append((mean * weight, weight))
    filled = known[-1][0]
    for colour, weight in reversed(known[:-1]):
        coarse = F.interpolate(filled, colour.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(weight > 0, colour, coarse)
    return filled.clamp(0, 1)


def predict_content(content, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the content network says about the coarsest level.

    Args:
        content: ``content(picture, mask) -> picture``, a picture (1, 3, H, W) of any size, or None for `smooth_fill`.
            The callable is given the picture with the hole in mid grey.
        image, mask: the coarsest level, (1, 3, h, w) and (1, 1, h, w).

    Returns:
        (1, 3, h, w) with the known pixels put back.

    Raises:
        TypeError: neither a callable nor a tensor, or one that gives no tensor.
        ValueError: a picture against the conventions, or of another size than asked for.
    """
    if content is None:
        return smooth_fill(image, mask)
    if isinstance(content, Callable) and not isinstance(content, torch.Tensor):
        said = check.image(content(torch.where(mask > 0, torch.full_like(image, 0.5), image), mask.clone()), "content")
        check.same_size(said, image, "content", "image")
    elif isinstance(content, torch.Tensor):
        said = resize(check.image(content, "content"), tuple(image.shape[-2:]))
    else:
        raise TypeError(
            f"content is a {type(content).__name__}, expected a callable (picture, mask) -> picture, a picture "
            "(1, 3, H, W), or None."
        )
    if len(said) != 1:
        raise ValueError(f"content has {len(said)} pictures, expected one (1, 3, H, W).")
    return torch.where(mask > 0, said.detach().to(image), image)


def make_level(number: int, of: int, filled: torch.Tensor, mask: torch.Tensor, multiple: int) -> Level:
    """A level from its picture (1, 3, h, w), hole filled, and mask (1, 1, h, w), continued to multiples."""
    height, width = filled.shape[-2:]
    pad = (0, -width % multiple, 0, -height % multiple)
    reference, free = (F.pad(t, pad, mode="replicate") for t in (filled, mask))
    return Level(number, of, (height, width), reference, free)
