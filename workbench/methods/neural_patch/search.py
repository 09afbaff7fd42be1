"""The search: for each hole patch its nearest neighbour among all known patches, exactly, and without unfolding any.

`find_neighbours` is the search, `likeness` a look at one patch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from workbench.methods.neural_patch.patches import Neighbours, Source

BLOCK_BYTES = 2**20
"""What one block of products takes: small enough to stay in a core's cache while it is summed."""


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
    for number, source in enumerate(sources):
        for top, bottom in _blocks(target, wanted, source, block_bytes):
            _search_block(target, wanted, source, (top, bottom), (score, centre, which), number)
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
