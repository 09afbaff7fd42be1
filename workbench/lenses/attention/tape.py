"""What is kept of a recording: queries and keys, from which every probability follows; less of them beyond a limit."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from workbench import check
from workbench.lenses.attention.hearing import Softmax, probabilities
from workbench.lenses.attention.layouts import Layout

LEVELS = ("queries", "tokens", "sums")
"""What is kept of a layer: all there is to ask; a map for each token, of each step; these added over the steps."""
BLOCK = 2**22
"""Probabilities that are held at once when maps are computed: 16 MiB."""


@dataclass
class Entry:
    """One layer in one step, its rows of one part of the guidance.

    Args:
        step, layer, part: which.
        layout: of the axes; the queries kept are the picture's alone.
        heads: how many.
        softmax: queries (pictures, heads, n, d) and keys (pictures, heads, m, d); None where only maps are kept.
        maps: (pictures, n, text) in half precision: probabilities of the text, mean over heads.
    """

    step: int
    layer: str
    part: str
    layout: Layout
    heads: int
    softmax: Softmax | None = None
    maps: torch.Tensor | None = None

    @property
    def key(self) -> tuple[int, str, str]:
        """Where it is on the tape."""
        return self.step, self.layer, self.part

    @property
    def bytes(self) -> int:
        """What its tensors take."""
        softmax = self.softmax
        kept = (self.maps,) if softmax is None else (softmax.q, softmax.k, softmax.mask, softmax.result)
        return sum(tensor.nbytes for tensor in kept if tensor is not None)

    def blocks(
        self, picture: int, head: int | None = None, rows: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor | slice, torch.Tensor]]:
        """Probabilities, few rows at a time: (rows, (heads, rows, m) in float32); each row sums to 1.

        Args:
            picture: of the batch.
            head: which; None gives all.
            rows: places asked for; None gives all, as slices, which spare copies of the queries.
        """
        heads = slice(None) if head is None else slice(head, head + 1)
        softmax = self.softmax
        places, columns = softmax.lengths
        few = max(1, BLOCK // (columns * (self.heads if head is None else 1)))
        pieces = [slice(n, n + few) for n in range(0, places, few)] if rows is None else rows.split(few)
        for some in pieces:
            if softmax.q is None:
                yield some, softmax.result[picture, heads][:, some].float()
                continue
            mask = softmax.mask
            if mask is not None:
                mask = mask[picture if len(mask) > 1 else 0]  # (1 or heads, 1 or n, m)
                mask = mask[heads] if len(mask) > 1 else mask
                mask = mask[:, some] if mask.shape[1] > 1 else mask
            q, k = softmax.q[picture, heads][:, some], softmax.k[picture, heads]
            yield some, probabilities(q, k, mask, softmax.scale)  # (heads, rows, m)

    def text(self, picture: int, head: int | None = None) -> torch.Tensor:
        """Probabilities of the text, mean over heads (or of one): (n, text) in float32."""
        if self.softmax is None:
            return self.maps[picture].float()
        span = self.layout.keys["text"]
        return torch.cat([p[..., span.start : span.stop].mean(0) for _, p in self.blocks(picture, head)])

    def copied(self) -> "Entry":
        """The same with copies of its tensors on the CPU, in the layer's own precision."""

        def copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.clone(memory_format=torch.contiguous_format).cpu()

        one = self.softmax
        return replace(self, softmax=Softmax(copy(one.q), copy(one.k), copy(one.mask), one.scale, copy(one.result)))

    def reduced(self) -> "Entry":
        """The same with maps of the text only, on the CPU."""
        span = self.layout.keys["text"]
        places, columns = self.softmax.lengths[0], span.stop - span.start
        maps = torch.empty(self.pictures, places, columns, dtype=torch.half)
        for picture in range(self.pictures):
            for some, p in self.blocks(picture):  # p (heads, rows, m)
                maps[picture, some] = p[..., span.start : span.stop].mean(0)
        return replace(self, softmax=None, maps=maps)

    def picture(self, number: int) -> int:
        """The number of a picture, checked."""
        return check.integer(number, "picture", 0, self.pictures - 1)

    @property
    def pictures(self) -> int:
        """How many pictures there are."""
        if self.softmax is None:
            return len(self.maps)
        return len(self.softmax.result if self.softmax.q is None else self.softmax.q)


def entry_of(step: int, layer: str, part: str, layout: Layout, heard: Softmax, rows: slice) -> Entry:
    """What is of interest of a softmax: views of the layer's own tensors, which nothing is computed from yet.

    Args:
        step, layer, part, layout: see `Entry`.
        heard: of the whole batch.
        rows: of the batch.
    """
    places = slice(layout.queries.start, layout.queries.stop)

    def seen(tensor: torch.Tensor | None, which=slice(None)) -> torch.Tensor | None:
        return None if tensor is None else tensor.detach()[rows, :, which]

    mask = heard.mask
    if mask is not None:
        mask = mask.detach()[(None,) * (4 - mask.ndim)]  # (1 or B, 1 or heads, 1 or n, m)
        mask = mask[rows] if len(mask) > 1 else mask
        mask = mask[:, :, places] if mask.shape[2] > 1 else mask
    softmax = Softmax(seen(heard.q, places), seen(heard.k), mask, heard.scale, seen(heard.result, places))
    heads = (softmax.result if softmax.q is None else softmax.q).shape[1]
    return Entry(step, layer, part, layout, heads, softmax)


@dataclass
class Sum:
    """Maps of a layer's text added over steps: ``total`` (pictures, n, text) in float32; ``entry`` is the first."""

    entry: Entry
    total: torch.Tensor
    steps: list[int]


class Tape:
    """Entries in the order they came. Beyond ``limit`` bytes the oldest are reduced, one level of `LEVELS` at a time.

    Attributes:
        entries: by (step, layer, part).
        sums: by (layer, part).
        bytes: what is held.
        dropped: what was let go, in words -> of how many layers and steps.
    """

    def __init__(self, limit: float, level: str):
        self.limit, self.level = limit, level
        self.entries: dict[tuple[int, str, str], Entry] = {}
        self.sums: dict[tuple[str, str], Sum] = {}
        self.bytes = 0
        self.dropped: Counter[str] = Counter()

    def add(self, entry: Entry) -> None:
        """Keeps an entry, whose tensors may be the layer's own, at the level asked for, and makes room."""
        if self.level == "queries":
            self._hold(entry.copied())
        else:
            self._reduce(entry)
        if self.level == "sums" and entry.key in self.entries:
            self._add_up(self.entries[entry.key])
        for lower in (self._reduce, self._add_up):
            for old in list(self.entries.values()) if self.bytes > self.limit else ():
                if self.bytes > self.limit:
                    lower(old)

    def restart(self, step: int) -> None:
        """A step comes once more: what was kept from there on makes way for what comes now."""
        self.entries = {key: entry for key, entry in self.entries.items() if key[0] < step}
        begun = {key: one for key, one in self.sums.items() if max(one.steps) < step}
        if step > 1 and len(begun) < len(self.sums):  # what is added up cannot be taken apart
            self.dropped["sums over steps of which one came again"] += len(self.sums) - len(begun)
        self.sums = begun
        held = sum(entry.bytes for entry in self.entries.values())
        self.bytes = held + sum(one.total.nbytes for one in self.sums.values())
        if step == 1:
            self.dropped.clear()

    def _hold(self, entry: Entry) -> None:
        """Puts an entry on the tape, in the place of the one before it, which tells its age."""
        before = self.entries.get(entry.key)
        self.bytes += entry.bytes - (before.bytes if before else 0)
        self.entries[entry.key] = entry

    def _reduce(self, entry: Entry) -> None:
        """Keeps maps of the text only."""
        if entry.softmax is None:
            return
        if "text" in entry.layout.keys:
            self._hold(entry.reduced())
            self.dropped["heads, rows and columns other than text"] += 1
        else:
            before = self.entries.pop(entry.key, None)
            self.bytes -= before.bytes if before else 0
            self.dropped["self-attention"] += 1

    def _add_up(self, entry: Entry) -> None:
        """Adds maps to the sums over steps."""
        del self.entries[entry.key]
        self.bytes -= entry.bytes
        self.dropped["single steps"] += 1
        maps, key = entry.maps.float(), (entry.layer, entry.part)
        known = self.sums.get(key)
        if known is None or known.total.shape != maps.shape:
            self.sums[key] = Sum(replace(entry, maps=None), maps, [entry.step])
            self.bytes += maps.nbytes
        else:
            known.total = known.total + maps
            known.steps.append(entry.step)
