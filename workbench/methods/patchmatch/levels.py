"""The sizes at which a picture is completed, coarse to fine, and the canvas on which its references stand beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench.methods.patchmatch.field import Field, grow, patch_centres

WINDOW = 4_000_000  # pixels; a larger search window around the hole is narrowed, down to a margin of MARGIN pixels
MARGIN = 64
FEW = 200  # a pyramid level keeps at least so many source patches, or it is not made


@dataclass(frozen=True)
class Level:
    """One size of a picture: features (1, 5, h, w), three colours and two textures, 0 in the hole; its mask."""

    features: torch.Tensor
    mask: torch.Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return tuple(self.mask.shape[-2:])


@dataclass(frozen=True)
class Canvas(Level):
    """Pictures of one level beside each other as one: the target in the upper left corner, its references to the right.

    Source patches are looked for on the canvas. What belongs to no picture is hole, at least a pixel wide between two
    of them, so no source patch straddles an edge. The target alone is its own canvas.

    Args:
        starts: the column in which each picture begins, the target's first: 0.
    """

    starts: tuple[int, ...] = (0,)

    def places(self, field: Field) -> tuple[torch.Tensor, torch.Tensor]:
        """Where matches lie: x, y in the picture they were found in, and which that is, (1, 2, h, w), (1, 1, h, w).

        0 is the target, 1 the first reference; both are -1 where nothing was to be matched.
        """
        starts = torch.tensor(self.starts, device=field.xy.device)
        picture = torch.searchsorted(starts, field.xy[:, :1].contiguous(), right=True) - 1  # (1, 1, h, w)
        start = torch.where(field.inside, starts[picture.clamp_min(0)], 0)
        return torch.cat([field.xy[:, :1] - start, field.xy[:, 1:]], 1), picture


def choose_window(
    mask: torch.Tensor, patch: int, references: Sequence[torch.Tensor] = ()
) -> tuple[tuple[int, int, int, int], int]:
    """The part of the picture to work on, (top, bottom, left, right), and the width of a patch that fits there."""
    height, width = mask.shape[-2:]
    ys, xs = mask[0, 0].any(1).nonzero()[:, 0], mask[0, 0].any(0).nonzero()[:, 0]  # rows, columns with a hole
    y0, y1, x0, x1 = int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1
    margin = max(256, y1 - y0, x1 - x0)
    while True:
        box = (max(0, y0 - margin), min(height, y1 + margin), max(0, x0 - margin), min(width, x1 + margin))
        if margin <= MARGIN or (box[1] - box[0]) * (box[3] - box[2]) <= WINDOW:
            break
        margin = max(MARGIN, margin // 2)
    largest = max((min(reference.shape[-2:]) for reference in references), default=0)  # patch that one of them has
    while count_sources(mask[..., box[0] : box[1], box[2] : box[3]], patch) == 0:
        if patch <= min(largest, box[1] - box[0], box[3] - box[2]):
            break
        if box != (0, height, 0, width):
            box = (0, height, 0, width)
        else:
            patch -= 2  # a patch of one pixel always fits
    return box, patch


def count_sources(mask: torch.Tensor, patch: int) -> int:
    """How many patches lie wholly inside the picture and touch no hole."""
    return int((patch_centres(mask, patch) & (grow(mask, patch // 2) == 0)).sum())


def make_pyramid(
    image: torch.Tensor, mask: torch.Tensor, patch: int, texture: float, references: Sequence[torch.Tensor] = ()
) -> list[tuple[Level, Canvas]]:
    """The picture at full size, 1/2, 1/4 ... until the hole is at most four patches wide; the finest first.

    Args:
        image, mask: the target, (1, 3, H, W) in [0, 1] and (1, 1, H, W), 1 = hole.
        patch: width of a patch.
        texture: weight of the texture features.
        references: (1, 3, H2, W2) each, of any size; halved as often as the target, each for itself.

    Returns:
        The target and the canvas with it and its references, size by size. A column x of a canvas is 2 x of the next
        finer one.
    """
    pictures = [(image, mask), *((reference, torch.zeros_like(reference[:, :1])) for reference in references)]
    sizes = [[with_texture(*picture, patch, texture) for picture in pictures]]
    while (grow(1 - sizes[-1][0].mask, 2 * patch) == 0).any():
        smaller = [halve(level) for level in sizes[-1]]
        if smaller[0].mask.all() or sum(count_sources(level.mask, patch) for level in smaller) < FEW:
            break
        sizes.append(smaller)
    return [(levels[0], side_by_side(levels, 2 ** (len(sizes) - 1 - n))) for n, levels in enumerate(sizes)]


def with_texture(image: torch.Tensor, mask: torch.Tensor, patch: int, texture: float) -> Level:
    """The level at full size: colours and, times their weight, textures."""
    return Level(torch.cat([image * (1 - mask), texture * texture_features(image, mask, 2 * patch + 1)], 1), mask)


def side_by_side(levels: Sequence[Level], unit: int) -> Canvas:
    """Puts pictures beside each other, each of them in a multiple of ``unit`` columns, at least ``unit`` of them empty.

    Args:
        levels: the target and its references.
        unit: how often the coarsest level is smaller. So at each level a picture begins where it does at the others.
    """
    if len(levels) == 1:
        return Canvas(levels[0].features, levels[0].mask)
    height, starts, features, masks = max(level.size[0] for level in levels), [0], [], []
    for level in levels:
        h, w = level.size
        pad = (0, unit + -w % unit, 0, height - h)
        features.append(F.pad(level.features, pad))
        masks.append(F.pad(level.mask, pad, value=1))
        starts.append(starts[-1] + features[-1].shape[-1])
    return Canvas(torch.cat(features, 3), torch.cat(masks, 3), tuple(starts[:-1]))


def texture_features(image: torch.Tensor, mask: torch.Tensor, width: int) -> torch.Tensor:
    """How busy the known picture is around each pixel, across and down.

    T(x) = (mean of |dg/dx|, mean of |dg/dy|) over the known pairs of neighbours in a square around x, g = gray

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        width: side of the square, odd, in pixels.

    Returns:
        (1, 2, H, W) in [0, 1]; 0 in the hole.

    Source:
        Newson et al. 2017: without it smooth patches win, because they are never very wrong.

    Example:
        >>> texture = texture_features(image, mask, 15)
        >>> texture[:, 0].mean()                         # how busy the picture is from left to right
    """
    gray, known, features = image.mean(1, keepdim=True), 1 - mask, []  # (1, 1, H, W) each
    for dim, pad in ((3, (0, 1)), (2, (0, 0, 0, 1))):
        both = F.pad(torch.minimum(known, known.roll(-1, dim)).narrow(dim, 0, known.shape[dim] - 1), pad)
        step = F.pad(gray.diff(dim=dim).abs(), pad) * both  # (1, 1, H, W)
        total, count = (F.avg_pool2d(x, width, 1, width // 2) for x in (step, both))
        features.append(total / count.clamp_min(1e-6) * known)
    return torch.cat(features, 1)  # (1, 2, H, W)


def halve(level: Level) -> Level:
    """The level at half its size: blurred with (1 3 3 1) / 8 over the known pixels only, so the hole never leaks.

    A coarse pixel is a hole if any of its four fine pixels is one.
    """
    line = level.features.new_tensor([1, 3, 3, 1]) / 8
    kernel = (line[:, None] * line)[None, None]  # (1, 1, 4, 4)

    def blur(x):
        height, width = x.shape[-2:]
        x = F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2))
        return F.conv2d(x, kernel.expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1])  # (1, C, h, w)

    known = 1 - level.mask
    mask = F.max_pool2d(level.mask, 2, ceil_mode=True)  # (1, 1, h, w), h = H / 2 rounded up
    return Level(blur(level.features * known) / blur(known).clamp_min(1e-6) * (1 - mask), mask)
