"""Which of many samples agrees with the references: the one of whose hole the most points are found in them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from workbench import check, plot
from workbench.lenses.correspondence import match
from workbench.lenses.correspondence.matches import Matches
from workbench.methods.realfill.crops import check_references

FEW, FEW_EACH = 5, 3
"""Up to so many matches of the best sample, or so many a reference, say nothing (RealFill's figure 6: 9 are few). Of
72 true pictures of the benchmark, with three references each, 3 have so few; with references of another scene 134 of
144."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Samples in the order of their matches with the references, in the hole only.

    Args:
        order: numbers of the samples, best first; equals stay in their order.
        counts: (S, R) int64, by sample in the order given, and by reference.
        kept: so many of the best are kept.
        method: how they were matched.
        results: (S, 3, H, W), in the order given.
        references: (1, 3, H, W) each.
        matches: matches[s][r], points_a in the sample.
    """

    order: tuple[int, ...]
    counts: torch.Tensor
    kept: int
    method: str
    results: torch.Tensor = field(repr=False)
    references: tuple[torch.Tensor, ...] = field(repr=False)
    matches: tuple[tuple[Matches, ...], ...] = field(repr=False)

    @property
    def totals(self) -> torch.Tensor:
        """(S,): the matches of each sample with all references."""
        return self.counts.sum(1)

    @property
    def best(self) -> torch.Tensor:
        """The samples that are kept, best first: (K, 3, H, W). Fed back, they are references too."""
        return self.results[list(self.order[: self.kept])]

    @property
    def told(self) -> str:
        """One sentence: how sure the choice is."""
        most, fewest = int(self.totals.max()), int(self.totals.min())
        told = f"{most} matches in the best of {len(self.order)} samples, {fewest} in the worst"
        return f"{told}: {self.doubt}" if self.doubt else told

    @property
    def doubt(self) -> str:
        """What is said where even the best sample has next to no matches; else ""."""
        if int(self.totals.max()) > max(FEW, FEW_EACH * len(self.references)):
            return ""
        return "too few to tell one from another; the references may show another scene, or the hole is flat"

    def show(self, sample: int | None = None, reference: int | None = None):
        """Lines from a sample to a reference: the best sample, and the reference it has the most matches with."""
        sample = self.order[0] if sample is None else check.integer(sample, "sample", 0, len(self.order) - 1)
        if reference is None:
            reference = int(self.counts[sample].argmax())
        check.integer(reference, "reference", 0, len(self.references) - 1)
        found = self.matches[sample][reference]
        title = f"sample {sample}, reference {reference}: {len(found)} matches in the hole"
        pair = self.results[sample : sample + 1], self.references[reference]
        return plot.show_matches(*pair, found.points_a, found.points_b, found.confidence, title)

    def gallery(self, columns: int = 4):
        """All samples, best first, with their counts."""
        shown = {}
        for place, k in enumerate(self.order, 1):
            shown[f"{place}: sample {k}, {int(self.totals[k])}"] = self.results[k : k + 1]
        return plot.show_images(shown, columns=columns)

    def _cells(self) -> list[list[str]]:
        head = ["place", "sample", *(f"reference {r}" for r in range(self.counts.shape[1])), "all", "kept"]
        rows = [
            [str(place), str(k), *map(str, self.counts[k].tolist()), str(int(self.totals[k])),
             "yes" if place <= self.kept else ""]
            for place, k in enumerate(self.order, 1)
        ]  # fmt: skip
        return [head, *rows]

    def __repr__(self) -> str:
        cells = self._cells()
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
        return "\n".join([f"Ranking by {self.method}: {self.told}", *lines])

    def _repr_html_(self) -> str:
        head, *rows = self._cells()
        top = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<p>{self.told}</p><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def rank(
    results: Sequence[torch.Tensor] | torch.Tensor,
    references: Sequence[torch.Tensor] | torch.Tensor,
    mask: torch.Tensor,
    *,
    method: str = "sift",
    keep: int = 1,
    confidence: float = 0.0,
    pipe=None,
    **options,
) -> Ranking:
    """Ranks samples by how many points of their hole are found in the references.

    Points outside the hole do not count: those pixels are the target's in every sample, and match alike.

    Args:
        results: samples of one size, (S, 3, H, W) or (1, 3, H, W) each.
        references: (1, 3, H, W) each, any sizes.
        mask: (1, 1, H, W), 1 = hole.
        method: "sift" or "dift"; "loftr" with weights=, a file; others as `wb.match` has them.
        keep: how many to keep.
        confidence: matches below do not count.
        pipe: for "dift": whose features; others do not need it.
        **options: of `wb.match`.

    Returns:
        `Ranking`.

    Raises:
        ValueError: shapes, no hole, or nothing to rank.
        NotAvailable: weights that are not at hand.

    Source: RealFill (Tang et al., SIGGRAPH 2024), section 3.5, with LoFTR; an independent reproduction found little
    gain, but counted matches in the whole picture.

    Example:
        >>> ranking = rank(results, references, mask, keep=4)
        >>> ranking.best.shape
        torch.Size([4, 3, 128, 128])
    """
    results = torch.cat(_alike(check_references(results, "results")))  # (S, 3, H, W)
    references = tuple(check_references(references))
    if not references:
        raise ValueError("references is empty, expected at least one picture of the scene.")
    check.mask(mask, results[:1])
    if not mask.any():
        raise ValueError("mask has no hole (all 0), expected some pixels of 1: only matches in the hole count.")
    check.integer(keep, "keep", 1, len(results))
    check.number(confidence, "confidence", 0, 1)
    if method == "dift" and pipe is not None:
        options["pipe"] = pipe
    matches = tuple(
        tuple(match(results[s : s + 1], r, method, mask_a=mask, **options).above(confidence) for r in references)
        for s in range(len(results))
    )
    counts = torch.tensor([[len(found) for found in row] for row in matches])  # (S, R)
    order = counts.sum(1).argsort(descending=True, stable=True).tolist()
    return Ranking(tuple(order), counts, keep, method, results, references, matches)


def _alike(results: list[torch.Tensor]) -> list[torch.Tensor]:
    """Samples, of one size and at least one."""
    if not results:
        raise ValueError("results is empty, expected at least one sample.")
    for k, result in enumerate(results):
        check.same_size(result, results[0], f"results[{k}]", "results[0]")
    return results
