"""The questions that recorded attention answers: maps of words, rows of places, masses."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch

from workbench import check
from workbench.lenses.attention import maps
from workbench.lenses.attention.layouts import Span
from workbench.lenses.attention.listening import Listening
from workbench.lenses.attention.tape import Entry
from workbench.lenses.attention.tokens import KINDS, Tokens

HOW = ("mean", "sum", "normalised")


class Questions(Listening, ABC):
    """What can be asked. What the methods share:

    - ``step``: one or several, from 1, as the run counts them; None takes all that are recorded.
    - ``layer``: a name, part of one, "down", "mid", "up" or a grid (h, w), or a list of these; None takes all.
    - ``head``: its number, the same in all layers; None takes the mean of all heads.
    - ``picture``: of the batch. ``part``: of the guidance, "text" or what else was recorded (``parts=``).

    A subclass finds what is kept: ``size``, `_texts`, `_kept`, `_tokens_of`.
    """

    size: tuple[int, int]

    @abstractmethod
    def _texts(self, step, layer, head, picture: int, part: str) -> Iterator[tuple[Entry, torch.Tensor, int]]:
        """Entries with their text (n, columns), added over so many steps."""

    @abstractmethod
    def _kept(self, step, layer, head, part: str, keys: str | None) -> list[Entry]:
        """Entries with queries and keys, of layers that have such keys."""

    @abstractmethod
    def _tokens_of(self, entry: Entry, picture: int) -> Tokens:
        """Names of an entry's text axis."""

    def token_map(
        self, word: str | int, step=None, layer=None, head: int | None = None, *, how: str = "mean",
        stretch: bool = True, occurrence: int | None = None, picture: int = 0, part: str = "text",
    ) -> torch.Tensor:  # fmt: skip
        """How much each place of the picture looks at a word.

        With P the softmax and c the word's columns, at each place

        - "mean": mean of P[c] over columns, heads, steps and layers;
        - "sum": the same added up, as DAAM does: longer words and more layers get more;
        - "normalised": P[c] over the P of all the prompt's own tokens, start, end and padding left out (sums over
          heads and steps of a layer), then mean over layers. The start token mostly takes the lion's share of a row,
          so that this is another picture.

        Args:
            word: of the prompt, several in a row, or a column's number.
            step, layer, head, picture, part: see the class.
            how: see above.
            stretch: whether to divide by the maximum.
            occurrence: of a word that is there more than once, from 0; None takes all.

        Returns:
            (H, W) of the picture's size, float32; with ``stretch`` from 0 to 1, without it probabilities ("mean"),
            shares ("normalised"), both in [0, 1], or their sum.

        Raises:
            ValueError: the word is not in the prompt; step, layer or head are not recorded.
            RuntimeError: nothing is recorded, or what is asked for was dropped.

        Source: Tang et al., "What the DAAM", ACL 2023, section 3 ("sum"; differs in that maps are resized bilinearly,
        which keeps them positive); Hertz et al., "Prompt-to-Prompt", ICLR 2023 ("mean").
        """
        check.choice(how, "how", HOW)
        sums: dict[str, tuple[Entry, torch.Tensor, int]] = {}
        for entry, text, count in self._texts(step, layer, head, picture, part):
            known = sums.get(entry.layer)
            sums[entry.layer] = (entry, text, count) if known is None else (entry, known[1] + text, known[2] + count)
        found = torch.zeros(self.size)
        for entry, text, count in sums.values():  # text (n, columns)
            columns = self._columns_of(entry, word, occurrence, picture)
            if how == "mean":
                values = text[:, columns].mean(1) / count / len(sums)
            elif how == "sum":
                values = text[:, columns].sum(1) * (entry.heads if head is None else 1)
            else:
                kinds = self._tokens_of(entry, picture).kinds
                own = [column for column, kind in enumerate(kinds) if kind == "word"]
                values = text[:, columns].sum(1) / text[:, own].sum(1).clamp_min(1e-30) / len(sums)
            found += maps.at_size(values, maps.grid_of(entry.layout.queries, self.size), self.size)
        return maps.stretched(found) if stretch else found

    def token_maps(self, word: str | int, **asked) -> dict[str, torch.Tensor]:
        """The word's map by each way of `token_map` to sum up, side by side: {"mean": (H, W), "sum": ...}."""
        return {how: self.token_map(word, how=how, **asked) for how in HOW}

    def query_map(
        self, point: tuple[float, float], step=None, layer=None, head: int | None = None, *, keys: str = "image",
        stretch: bool = True, picture: int = 0, part: str = "text",
    ) -> torch.Tensor:  # fmt: skip
        """Where a pixel looks: the row of its place, mean over heads, steps and layers.

        Args:
            point: (x, y) in pixels of the picture.
            step, layer, head, picture, part: see the class.
            keys: "image" (its own picture) or another part of the key axis, "reference".
            stretch: whether to divide by the maximum; without it, probabilities at the places.

        Returns:
            (H, W) of the picture's size, in [0, 1]; of a reference with another grid, its size in the same measure.
        """
        point = self._point(point)
        found = []
        for entry in self._kept(step, layer, head, part, keys):
            span, own = entry.layout.keys[keys], maps.grid_of(entry.layout.queries, self.size)
            grid = own if keys == "image" and span.grid is None else maps.grid_of(span, self.size)
            size = tuple(round(n * whole / cells) for n, whole, cells in zip(grid, self.size, own, strict=True))
            row = torch.tensor([maps.place_of(point, own, self.size)])
            _, p = next(entry.blocks(entry.picture(picture), head, row))  # (heads, 1, m)
            found.append(maps.at_size(p[:, 0, span.start : span.stop].mean(0), grid, size))
        mean = torch.stack(found).mean(0)
        return maps.stretched(mean) if stretch else mean

    def token_shares(
        self, point: tuple[float, float], step=None, layer=None, head=None, *, picture=0, part="text"
    ) -> list[tuple[str, float]]:
        """Which words a pixel looks at: each token of the text axis with its probability, mean over what is asked."""
        point = self._point(point)
        found = []
        for entry, text, count in self._texts(step, layer, head, picture, part):
            place = maps.place_of(point, maps.grid_of(entry.layout.queries, self.size), self.size)
            found += [text[place] / count] * count
        return list(zip(self._tokens_of(entry, picture), torch.stack(found).mean(0).tolist(), strict=True))

    def mass(
        self, where: str | torch.Tensor, queries: torch.Tensor | None = None, step=None, layer=None,
        head: int | None = None, *, picture: int = 0, part: str = "text",
    ) -> float:  # fmt: skip
        """The share of attention that goes somewhere, mean over rows, heads, steps and layers.

        Args:
            where: a part of the key axis ("text", "image", "reference"), a kind of token ("start", "word", "end",
                "padding"), or a mask (1, 1, H, W) of the picture; outside of a hole is ``1 - mask``.
            queries: a mask (1, 1, H, W) of the places that look; None takes all.
            step, layer, head, picture, part: see the class. Layers without such keys are left out.

        Returns:
            In [0, 1]; of a whole row the parts add up to 1.
        """
        if queries is not None:
            check.mask(queries, torch.empty(1, 3, *self.size), "queries", soft=True)
        if isinstance(where, torch.Tensor):
            check.mask(where, torch.empty(1, 3, *self.size), "where", soft=True)
            keys = "image"
        else:
            keys = "text" if where in KINDS else where
        found = []
        for entry in self._kept(step, layer, head, part, keys):
            weight = self._columns(entry, where, keys, picture)  # (m,)
            places = entry.layout.queries.stop - entry.layout.queries.start
            rows = torch.ones(places)
            if queries is not None:
                rows = maps.at_places(queries, maps.grid_of(entry.layout.queries, self.size))
            if not rows.any():
                raise ValueError("queries holds no place, expected a mask (1, 1, H, W) that is 1 somewhere.")
            which = rows.nonzero()[:, 0]
            blocks = entry.blocks(entry.picture(picture), head, which)
            found.append(
                sum(float(((p @ weight).mean(0) * rows[some]).sum()) for some, p in blocks) / float(rows.sum())
            )
        return sum(found) / len(found)

    def probabilities(
        self, step: int, layer, head: int | None = None, *, picture: int = 0, part: str = "text"
    ) -> tuple[torch.Tensor, dict[str, Span]]:
        """All of one layer in one step: what everything else is made from.

        Returns:
            Probabilities (heads, n, m), float32, of the picture's n places (with ``head``, of one: (1, n, m)), whose
            rows sum to 1; and what the m columns are: name -> ``start``, ``stop`` and, of pictures, ``grid``.
        """
        entries = self._kept(step, layer, head, part, None)
        if len(entries) != 1:
            raise ValueError(
                f"layer is {layer!r}, which {len(entries)} layers go with, expected one of: "
                f"{', '.join(entry.layer for entry in entries)}."
            )
        blocks = entries[0].blocks(entries[0].picture(picture), head)
        return torch.cat([p for _, p in blocks], dim=1), entries[0].layout.keys

    def _columns_of(self, entry: Entry, word: str | int, occurrence: int | None, picture: int) -> list[int]:
        """Columns of the text axis; a number needs no tokens."""
        if isinstance(word, int) and not isinstance(word, bool):
            span = entry.layout.keys["text"]
            return [check.integer(word, "word, a column,", 0, span.stop - span.start - 1)]
        return self._tokens_of(entry, picture).columns(word, occurrence)

    def _columns(self, entry: Entry, where, keys: str, picture: int) -> torch.Tensor:
        """How much each column counts for ``where``: (m,), 0 to 1."""
        weight = torch.zeros(entry.softmax.lengths[1])
        span = entry.layout.keys[keys]
        if isinstance(where, torch.Tensor):
            weight[span.start : span.stop] = maps.at_places(where, maps.grid_of(span, self.size))
        elif where in KINDS:
            kinds = self._tokens_of(entry, picture).kinds
            weight[span.start : span.stop] = torch.tensor([float(kind == where) for kind in kinds])
        else:
            weight[span.start : span.stop] = 1
        return weight

    def _point(self, point) -> tuple[float, float]:
        if not isinstance(point, (tuple, list)) or len(point) != 2:
            raise TypeError(f"point is {point!r}, expected (x, y) in pixels.")
        height, width = self.size
        return check.number(point[0], "x", 0, width), check.number(point[1], "y", 0, height)
