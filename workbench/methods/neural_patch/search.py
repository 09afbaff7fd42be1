"""The search: for each hole patch its nearest neighbour among all known patches, exactly, and without unfolding any.

`find_neighbours` is the search, `cohere` lets patches side by side choose neighbours side by side, `likeness` is a look
at one patch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from workbench.methods.neural_patch.patches import Neighbours, Source

BLOCK_BYTES = 2**20
"""What one block of products takes: small enough to stay in a core's cache while it is summed."""
STRIPE = 48
"""Columns that are searched at a time: a ragged hole costs what it covers, not what its box does."""
_AROUND = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1)]


def find_neighbours(
    target: torch.Tensor, wanted: torch.Tensor, sources: Sequence[Source], *, block_bytes: int = BLOCK_BYTES
) -> Neighbours:
    """The nearest neighbour of each wanted patch among all allowed patches of the sources: exact, not approximate.

    nn(P) = argmax over Q of <P, Q> / |Q|  ("ncc"),  argmin over Q of |P - Q|^2 = argmax of <P, Q> - |Q|^2 / 2  ("l2")

    A product of patches is the sum of nine products of cells, and each of those occurs in nine products of patches. So
    cells are multiplied once, a ninth of the arithmetic of comparing unfolded patches, and the products are summed
    along diagonals, first across, then down. Memory: beside the feature maps some blocks of ``block_bytes``.

    Args:
        target: features (C, h, w).
        wanted: (h, w) bool, centres of the patches to find neighbours for (none in the outermost cells).
        sources: where to look, with the same channels; at least one patch must be allowed.
        block_bytes: see above; it changes the time, and the rounding of the products, nothing else.

    Returns:
        `Neighbours` of the N wanted patches, row by row. Of equally good ones the first, in the order of the sources
        and of their rows.

    Raises:
        ValueError: no patch is allowed.

    Source: Li and Wand, CVPR 2016 (patches and correlation), who convolve with all patches instead.

    Example:
        >>> find_neighbours(features, patch_centres(hole, "any"), [Source(features, patch_centres(~hole, "all"))])
    """
    if not any(bool(source.allowed.any()) for source in sources):
        raise ValueError("no patch is allowed in any source, expected at least one known 3 x 3 patch.")
    score = target.new_full(wanted.shape, -torch.inf)  # (h, w)
    centre, which = (torch.zeros(wanted.shape, dtype=torch.int64, device=target.device) for _ in range(2))
    for first in range(0, wanted.shape[1], STRIPE):
        stripe = torch.zeros_like(wanted)
        stripe[:, first : first + STRIPE] = wanted[:, first : first + STRIPE]
        for number, source in enumerate(sources):
            for top, bottom in _blocks(target, stripe, source, block_bytes):
                _search_block(target, stripe, source, (top, bottom), (score, centre, which), number)
    return Neighbours(which[wanted], centre[wanted], score[wanted])


def _blocks(target, wanted, source: Source, block_bytes: int):
    """Rows [top, bottom) of a source's patches that are compared at a time; those with none allowed are left out."""
    columns = int(wanted.any(0).sum()) + 2
    step = max(1, block_bytes // (columns * source.width * target.element_size()) - 2)
    rows = source.allowed.any(1).nonzero()[:, 0]
    if len(rows) and wanted.any():
        first, last = int(rows[0]) - 1, int(rows[-1])
        for top in range(first, last, step):
            bottom = min(top + step, last)
            if source.allowed[top + 1 : bottom + 1].any():
                yield top, bottom


def _search_block(target, wanted, source: Source, block: tuple[int, int], found, number: int) -> None:
    """Compares all wanted patches with the patches of some rows of a source; writes down what is better."""
    (top, bottom), (score, centre, which), width = block, found, source.width
    columns = wanted.any(0).nonzero()[:, 0]
    left, right = int(columns[0]) - 1, int(columns[-1]) + 2  # cells that wanted patches reach
    cells = target[:, :, left:right].permute(1, 2, 0).contiguous()  # (h, n, C)
    known = source.rows[top * width : (bottom + 2) * width].T  # (C, m * W), m rows of cells
    gain, offset = source.gain[top:bottom][None], source.offset[top:bottom][None]  # (1, m - 2, W - 2)
    across: dict[int, torch.Tensor] = {}
    for y in wanted.any(1).nonzero()[:, 0].tolist():
        for row in (y - 1, y, y + 1):
            if row not in across:
                across[row] = _sum_across((cells[row] @ known).view(right - left, -1, width))
        across = {row: across[row] for row in (y - 1, y, y + 1)}
        products = across[y - 1][:, :-2] + across[y][:, 1:-1]
        products += across[y + 1][:, 2:]  # (n - 2, m - 2, W - 2): <P, Q>
        values = torch.addcmul(offset, products, gain).flatten(1)  # (n - 2, (m - 2) * (W - 2))
        own = slice(left + 1, right - 1)
        better = (values.amax(1) > score[y, own]).nonzero()[:, 0]  # argmax is slow: only where there is news
        if len(better):
            rows = values[better]
            place = rows.argmax(1)  # (k,)
            score[y, own][better] = rows.gather(1, place[:, None])[:, 0]
            centre[y, own][better] = (place // (width - 2) + top + 1) * width + place % (width - 2) + 1
            which[y, own][better] = number


def _sum_across(products: torch.Tensor) -> torch.Tensor:
    """Products of cells (n, m, W), summed over three cells side by side in both: (n - 2, m, W - 2)."""
    total = products[:-2, :, :-2] + products[1:-1, :, 1:-1]
    total += products[2:, :, 2:]
    return total


def cohere(
    target: torch.Tensor, wanted: torch.Tensor, sources: Sequence[Source], found: Neighbours, weight: float
) -> Neighbours:
    """Neighbours that lie side by side where their hole patches do, where that costs little.

    E = sum over hole patches of d_i + weight mean(d) times the number of pairs of hole patches side by side whose
    neighbours are not; d = |P - Q|^2 ("l2") or 1 - correlation ("ncc"), its mean that of the nearest neighbours

    Lines of patches are visited down, up, right and left. Each patch is offered what continues the neighbour of the
    patch before it, and takes that where E would fall by it alone: whole pieces of the picture spread. A line decides
    at once, so that E falls as a rule, without a guarantee.

    Args:
        target, wanted, sources: as searched.
        found: the nearest neighbours, to begin with.
        weight: 0 changes nothing.

    Returns:
        `Neighbours`, their scores with them.

    Source: coherence after Ashikhmin, Synthesizing natural textures, 2001, and Hertzmann et al., Image analogies, 2001;
        the descent is Besag's iterated conditional modes, 1986. Yang et al. have none.

    Example:
        >>> cohere(features, wanted, sources, find_neighbours(features, wanted, sources), 1.0)
    """
    if weight == 0 or not wanted.any():
        return found
    field = _Field(target, wanted, sources, found)
    penalty = weight * field.cost(field.patches, found.score).mean()
    for dy, dx in _SIDES:
        lines = field.inner if dy else field.inner.T
        for line in lines if dy + dx > 0 else lines.flip(0):
            field.offer(line, dy, dx, penalty)
    own = field.patches
    return Neighbours(field.which[own], field.centre[own], field.score[own])


class _Field:
    """The neighbours on the grid of the hole patches; a frame of a cell about it, all cells in one row."""

    def __init__(self, target, wanted, sources: Sequence[Source], found: Neighbours):
        width = wanted.shape[1] + 2
        self.sources, self.wanted = sources, F.pad(wanted, (1, 1, 1, 1)).flatten()
        self.inner = torch.arange(len(self.wanted), device=wanted.device).view(-1, width)[1:-1, 1:-1]
        self.patches = self.wanted.nonzero()[:, 0]
        self.width = width
        padded = F.pad(target, (1, 1, 1, 1))
        self.rows = padded.flatten(1).T.contiguous()
        self.squares = F.avg_pool2d(padded.square().sum(0)[None, None], 3, 1, 1, divisor_override=1).flatten()
        self.which = torch.zeros_like(self.wanted, dtype=torch.int64).index_copy(0, self.patches, found.map)
        self.centre = torch.zeros_like(self.which).index_copy(0, self.patches, found.centre)
        self.score = self.squares.new_zeros(len(self.which)).index_copy(0, self.patches, found.score)
        self.around, self.sides = (torch.tensor(moves, device=wanted.device) for moves in (_AROUND, _SIDES))
        self.frames = [[F.pad(t, (1, 1, 1, 1)).flatten() for t in (s.gain, s.offset)] for s in sources]

    def steps(self, moves: torch.Tensor) -> torch.Tensor:
        """How far moves (M, 2), down and right, are on the grid: (M,)."""
        return moves[:, 0] * self.width + moves[:, 1]

    def places(self, moves: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """The same in the maps (k,) of sources: (k, M)."""
        widths = torch.tensor([source.width for source in self.sources], device=which.device)[which]
        return widths[:, None] * moves[:, 0] + moves[:, 1]

    def cost(self, cells: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        """d of `cohere` of neighbours with a score."""
        own = self.squares[cells]
        if self.sources[0].match == "ncc":
            return 1 - score * own.clamp_min(1e-20).rsqrt()
        return own - 2 * score

    def offer(self, line: torch.Tensor, dy: int, dx: int, penalty: torch.Tensor) -> None:
        """Each patch of a line is offered what continues the neighbour of the one before it."""
        move = torch.tensor([[dy, dx]], device=line.device)
        back = self.steps(move)
        cells = line[self.wanted[line] & self.wanted[line - back]]
        which = self.which[cells - back]
        centre = self.centre[cells - back] + self.places(move, which)[:, 0]
        other = (which != self.which[cells]) | (centre != self.centre[cells])
        cells, which, centre = cells[other], which[other], centre[other]
        if not len(cells):
            return
        score = self.scores(cells, centre, which)
        now = self.cost(cells, self.score[cells])
        now = now + penalty * self.alone(cells, self.centre[cells], self.which[cells])
        better = self.cost(cells, score) + penalty * self.alone(cells, centre, which) < now
        for kept, new in ((self.centre, centre), (self.which, which), (self.score, score)):
            kept[cells[better]] = new[better]

    def scores(self, cells: torch.Tensor, centre: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Scores of these neighbours, as in `Neighbours`; -inf where no patch may be found."""
        found = torch.full_like(self.squares[cells], -torch.inf)
        for number, (source, (gain, offset)) in enumerate(zip(self.sources, self.frames, strict=True)):
            own = (which == number).nonzero()[:, 0]
            own = own[source.allowed.flatten()[centre[own]]]
            there = centre[own]
            patches = self.rows[cells[own][:, None] + self.steps(self.around)]  # (k, 9, C)
            known = source.rows[there[:, None] + self.places(self.around, which[own])]
            found[own] = (patches * known).sum((1, 2)) * gain[there] + offset[there]
        return found

    def alone(self, cells: torch.Tensor, centre: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """How many of the four patches beside each have a neighbour that does not lie beside these."""
        beside = cells[:, None] + self.steps(self.sides)  # (k, 4)
        continued = self.centre[beside] == centre[:, None] + self.places(self.sides, which)
        return (self.wanted[beside] & ~(continued & (self.which[beside] == which[:, None]))).sum(1)


def likeness(target: torch.Tensor, centre: tuple[int, int], source: Source) -> torch.Tensor:
    """How like one patch is to every patch of a source.

    Args:
        target: features (C, h, w).
        centre: (row, column) of the patch's middle.
        source: where to look.

    Returns:
        (H, W): correlation, -1 to 1 ("ncc"), or -|P - Q|^2 / (9 C) ("l2"); NaN where no patch is allowed.
    """
    y, x = centre
    patch = target[:, y - 1 : y + 2, x - 1 : x + 2]  # (C, 3, 3)
    products = F.conv2d(source.features[None], patch[None])[0, 0]  # (H - 2, W - 2)
    own = patch.square().sum()
    if source.match == "ncc":
        values = products * source.gain * own.clamp_min(1e-20).rsqrt()
    else:
        values = -(own + source.squares - 2 * products) / patch.numel()
    result = torch.full_like(source.features[0], torch.nan)
    result[1:-1, 1:-1] = torch.where(source.allowed[1:-1, 1:-1], values, torch.nan)
    return result
