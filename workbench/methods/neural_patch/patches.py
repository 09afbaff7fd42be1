"""Neural patches: 3 x 3 cells of a feature map, and the texture energy that their nearest neighbours make.

Which patches there are, `Source` (a feature map to find patches in), `fold` (what the neighbours want each cell to be)
and `texture_energy`. The search itself is in `search`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench import check

PATCH = 3
"""Cells a side, as in the paper."""
MATCHES = ("ncc", "l2")


def patch_centres(inside: torch.Tensor, how: str) -> torch.Tensor:
    """Centres of the patches that lie wholly in the map and hold "any" or "all" cells of a set.

    Args:
        inside: (h, w) bool.
        how: "any" or "all".

    Returns:
        (h, w) bool; the outermost cells are never centres.
    """
    centres = torch.zeros_like(inside)
    if min(inside.shape) < PATCH:
        return centres
    cells = (inside if how == "any" else ~inside).float()[None, None]
    found = F.max_pool2d(cells, PATCH, 1)[0, 0] > 0  # (h - 2, w - 2)
    centres[1:-1, 1:-1] = found if how == "any" else ~found
    return centres


class Source:
    """A feature map to find patches in.

    Args:
        features: (C, H, W).
        allowed: (H, W) bool, centres of the patches that may be found; not the outermost cells.
        match: "ncc", normalised cross-correlation <P, Q> / (|P| |Q|) without taking means away, as in the released
            code; or "l2", least |P - Q|^2. A patch of zeros has the correlation 0 with everything.

    Attributes:
        rows: (H * W, C), the features cell by cell.
        squares: (H - 2, W - 2), |Q|^2 of each patch.
        gain, offset: (H - 2, W - 2); <P, Q> gain + offset orders the Q as the correlation or the distance does; the
            offset is -inf where no patch may be found.
    """

    def __init__(self, features: torch.Tensor, allowed: torch.Tensor, match: str = "ncc"):
        self.features, self.allowed, self.match = features, allowed, check.choice(match, "match", MATCHES)
        self.width = features.shape[-1]
        self.rows = features.flatten(1).T.contiguous()
        if min(allowed.shape) < PATCH:
            return
        energy = features.square().sum(0)[None, None]  # (1, 1, H, W)
        self.squares = F.avg_pool2d(energy, PATCH, 1, divisor_override=1)[0, 0]
        barred = torch.where(allowed[1:-1, 1:-1], 0.0, -torch.inf).to(features)
        if match == "ncc":
            self.gain, self.offset = self.squares.clamp_min(1e-20).rsqrt(), barred
        else:
            self.gain, self.offset = torch.ones_like(self.squares), barred - self.squares / 2


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbour of each hole patch.

    Args:
        map: (N,) int64, which source it lies in (0 = the picture itself, then its copies).
        centre: (N,) int64, flat position y * W + x of its centre in that source.
        score: (N,), gain <P, Q> + offset of `Source`: correlation times |P| ("ncc"), or (|P|^2 - |P - Q|^2) / 2 ("l2").
    """

    map: torch.Tensor
    centre: torch.Tensor
    score: torch.Tensor

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.map.nbytes + self.centre.nbytes + self.score.nbytes


@dataclass(frozen=True)
class Wish:
    """What the neighbours of all hole patches want a feature map to be.

    Args:
        mean: (C, h, w), at each cell the mean of what the patches over it want; 0 where there is none.
        count: (h, w), how many patches lie over the cell, 0 to 9.
        rest: what of the energy no feature map can take away: sum over patches and cells of (wanted - mean)^2.
    """

    mean: torch.Tensor
    count: torch.Tensor
    rest: torch.Tensor


def fold(wanted: torch.Tensor, sources: Sequence[Source], neighbours: Neighbours, channels: int | None = None) -> Wish:
    """Lays the neighbours of all hole patches over each other.

    With the neighbours fixed, sum_i |P_i(F) - Q_i|^2 = sum over cells c of n_c |F_c - m_c|^2 + rest, where n_c patches
    lie over cell c and m_c is the mean of what they want there. The two sides are equal, and so are their gradients;
    the right one needs no patches.

    Args:
        wanted: (h, w) bool, centres of the hole patches.
        sources: as searched.
        neighbours: of the wanted patches.
        channels: the first so many of the sources' are wanted; None: all.
    """
    like, (height, width) = sources[0].features, wanted.shape
    channels = channels or len(like)
    total, squares = like.new_zeros(height * width, channels), like.new_zeros(height * width)
    count = like.new_zeros(height * width)
    centres = wanted.flatten().nonzero()[:, 0]  # (N,)
    chosen = [(neighbours.map == number).nonzero()[:, 0] for number in range(len(sources))]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cells = centres + dy * width + dx
            for number, source in enumerate(sources):
                own = chosen[number]
                place = neighbours.centre[own] + dy * source.width + dx
                values = source.rows.index_select(0, place)[:, :channels]  # (k, C)
                total.index_add_(0, cells[own], values)
                squares.index_add_(0, cells[own], values.square().sum(1))
            count.index_add_(0, cells, torch.ones_like(cells, dtype=count.dtype))
    mean = total / count.clamp_min(1)[:, None]
    rest = (squares - count * mean.square().sum(1)).sum().clamp_min(0)
    return Wish(mean.T.reshape(channels, height, width).contiguous(), count.view(height, width), rest)


def texture_energy(features: torch.Tensor, wish: Wish) -> torch.Tensor:
    """Mean squared difference of the hole patches and their nearest neighbours, per patch, cell and channel.

    E_t = (1 / (9 C N)) sum over hole patches i of |P_i(F) - Q_nn(i)|^2, by the folded sum of `fold`

    Args:
        features: (C, h, w), differentiated through.
        wish: the neighbours, folded; fixed.

    Returns:
        A scalar; 0 where there are no patches.

    Source: Yang et al., CVPR 2017, eq. of the texture term; differs in the mean over channels and cells.
    """
    patches = wish.count.sum().clamp_min(1) * len(features)  # 9 N C
    return ((features - wish.mean).square().sum(0).mul(wish.count).sum() + wish.rest) / patches
