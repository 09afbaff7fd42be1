"""Which of the candidates belong together: nearest neighbours, mutual ones, and the ratio test."""

from dataclasses import dataclass

import torch

from workbench import check


@dataclass(frozen=True, eq=False)
class NearestPairs:
    """Pairs of rows of two sets.

    Args:
        index_a, index_b: (N,) int64.
        similarity: (N,), of each pair.
        ratio: (N,) in [0, 1]: distance to the nearest / distance to the second nearest; 1 where there is no second.
    """

    index_a: torch.Tensor
    index_b: torch.Tensor
    similarity: torch.Tensor
    ratio: torch.Tensor


def nearest_pairs(similarity: torch.Tensor, *, mutual: bool = True, ratio: float | None = None) -> NearestPairs:
    """For each row its most similar column, if it passes the tests.

    Mutual: the row is also the column's most similar row. Ratio test: d1 / d2 <= ratio, with the distances
    d = sqrt(2 - 2 s) of unit vectors to the most and the second most similar column; a row with a single column has no
    second and does not pass.

    Args:
        similarity: (Na, Nb), cosines in [-1, 1].
        mutual: asks for mutual pairs.
        ratio: 0 to 1; None asks for nothing. It is of little use on dense maps, where the second nearest is a
            neighbour of the nearest.

    Source: Lowe, 2004, section 7.1 (ratio test).

    Example:
        >>> nearest_pairs(features_a @ features_b.T).index_b
    """
    if similarity.ndim != 2:
        raise ValueError(f"similarity has shape {tuple(similarity.shape)}, expected (Na, Nb).")
    if ratio is not None:
        check.number(ratio, "ratio", 0, 1)
    rows, columns = similarity.shape
    if not rows or not columns:
        none = torch.zeros(0, dtype=torch.int64, device=similarity.device)
        return NearestPairs(none, none, similarity.new_zeros(0), similarity.new_zeros(0))
    best = similarity.topk(min(2, columns), dim=1)  # (Na, 1 or 2)
    index_a, index_b = torch.arange(rows, device=similarity.device), best.indices[:, 0]
    ratios = torch.ones_like(best.values[:, 0])
    if columns > 1:
        distance = (2 - 2 * best.values).clamp(min=0).sqrt()  # (Na, 2)
        ratios = torch.where(distance[:, 1] > 0, distance[:, 0] / distance[:, 1].clamp(min=1e-12), ratios)
    keep = torch.ones_like(index_a, dtype=torch.bool)
    if mutual:
        keep &= similarity.argmax(0)[index_b] == index_a
    if ratio is not None:
        keep &= (ratios <= ratio) & (columns > 1)
    return NearestPairs(index_a[keep], index_b[keep], best.values[keep, 0], ratios[keep])
