"""`record_attention`: what a denoiser looked at, asked afterwards."""

from collections.abc import Iterator

import torch

from workbench import check
from workbench.lenses.attention.calls import Call
from workbench.lenses.attention.hearing import Softmax
from workbench.lenses.attention.listening import Listening, chosen, selectors, step_numbers
from workbench.lenses.attention.questions import Questions
from workbench.lenses.attention.tape import LEVELS, Entry, Tape, entry_of
from workbench.lenses.attention.tokens import Tokens

UNBOUNDED = 2.0**40
"""MiB."""


class AttentionRecord(Questions):
    """What was recorded; see `record_attention`. All questions can be asked inside and after the ``with`` block.

    Attributes:
        layers: names of those listened to.
        silent: those of them that computed no softmax that was seen: linear attention, say, or a foreign kernel.
        dropped: what the limit or ``keep`` cost: in words -> of how many layers and steps.
    """

    def __init__(self, target, layers, steps, kinds, keep, memory, parts, size, tokens):
        super().__init__(target, layers, steps, tokens)
        self.kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        self.parts = (parts,) if isinstance(parts, str) else tuple(parts)
        for kind in self.kinds:
            check.choice(kind, "kinds", ("cross", "self"))
        self._given_size = None if size is None else check.size(size)
        self._asked = (layers, kinds, parts, size, tokens)
        limit = check.number(memory, "memory", 0) * 2**20
        self._tape = Tape(limit, check.choice(keep, "keep", LEVELS))
        self._last: tuple[int, set[str]] = (0, set())
        self._heard_of: dict[str, Call] = {}  # by part
        self._ran: set[str] = set()
        self._spoke: set[str] = set()
        self._memo: tuple[int, list[Entry]] = (0, [])

    # Recording

    def _begins(self, module, args, kwargs) -> None:
        super()._begins(module, args, kwargs)
        call = self._call
        if call is None or not self.listens(module):
            return
        step, parts = self._last
        if call.step < step or (call.step == step and parts & set(call.rows)):
            self._tape.restart(call.step)
            step = 0
        self._last = call.step, set(call.rows) | (parts if call.step == step else set())
        self._memo = (0, [])

    def hears(self, module, args: tuple, kwargs: dict, heard: list[Softmax]) -> None:
        """Keeps what goes into a layer's softmax; of several that of most keys."""
        call, name = self._call, self._names[module]
        self._ran.add(name)
        if heard:
            self._spoke.add(name)
        layouts = [(self.layout(module, args, kwargs, one), one) for one in heard]
        layouts = [(layout, one) for layout, one in layouts if layout is not None and layout.kinds & self.kinds]
        if not layouts:
            return
        layout, one = max(layouts, key=lambda pair: pair[1].lengths[1])
        for part in self.parts:
            if part in call.rows:
                self._heard_of[part] = call
                self._tape.add(entry_of(call.step, name, part, layout, one, call.rows[part]))

    def _check_heard(self) -> None:
        if self._ran and not self._tape.entries and not self._tape.sums and not self._tape.dropped:
            raise RuntimeError(
                f"nothing was recorded of {len(self.layers)} layers: none has kinds={sorted(self.kinds)} in "
                f"parts={self.parts} on the grids chosen. Grids seen: {self._seen}; "
                f"layers without a softmax that could be seen, as compiled ones and foreign attention backends are: "
                f"{', '.join(self.silent) or 'none'}."
            )

    # What there is

    @property
    def silent(self) -> list[str]:
        """Layers that ran without a softmax that could be seen."""
        return [name for name in self.layers if name in self._ran - self._spoke]

    @property
    def dropped(self) -> dict[str, int]:
        """What is kept no more: in words -> of how many layers and steps."""
        return dict(self._tape.dropped)

    @property
    def bytes(self) -> int:
        """What the record takes."""
        return self._tape.bytes

    @property
    def steps(self) -> list[int]:
        """Steps of which something is kept, those in sums included."""
        found = {entry.step for entry in self._tape.entries.values()}
        return sorted(found.union(*(one.steps for one in self._tape.sums.values())))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture in pixels."""
        known = self._given_size or next((call.size for call in self._heard_of.values() if call.size), None)
        if known is None:
            raise ValueError("the picture's size is not known, expected size=(H, W) in record_attention.")
        return known

    def grids(self) -> dict[str, tuple[int, int] | None]:
        """Layers that were recorded, each with the grid (h, w) of its places."""
        return {entry.layer: entry.layout.queries.grid for entry in self._all()}

    def keys(self) -> dict[str, tuple[str, ...]]:
        """Layers that were recorded, each with what its places look at: "text", "image", "reference"."""
        return {entry.layer: tuple(entry.layout.keys) for entry in self._all()}

    def heads(self) -> dict[str, int]:
        """Layers that were recorded, each with the number of its heads."""
        return {entry.layer: entry.heads for entry in self._all()}

    def tokens(self, picture: int = 0, part: str = "text") -> Tokens:
        """Names of the text axis; ``kinds`` tells start, word, end and padding."""
        found = self._going_with(self._all(), None, part, "text")
        if not found:
            raise ValueError(f"no layer that looks at text is recorded, part {part!r} of {self.parts}.{self._told()}")
        return self._tokens_of(found[0], picture)

    # Finding what is asked for

    def _texts(self, step, layer, head, picture: int, part: str) -> Iterator[tuple[Entry, torch.Tensor, int]]:
        """Entries with their text (n, columns), added over so many steps."""
        if head is not None:
            entries = self._kept(step, layer, head, part, "text")
        else:
            kept = [one.entry for one in self._tape.sums.values()] if step is None else []
            sums = self._going_with(kept, layer, part, "text")
            for entry in sums:
                one = self._tape.sums[entry.layer, entry.part]
                yield entry, one.total[check.integer(picture, "picture", 0, len(one.total) - 1)], len(one.steps)
            if sums and not self._going_with(list(self._tape.entries.values()), layer, part, "text"):
                return
            entries = self._some(step, layer, part, "text", whole=False)
        for entry in entries:
            yield entry, entry.text(entry.picture(picture), head), 1

    def _kept(self, step, layer, head, part: str, keys: str | None) -> list[Entry]:
        """Entries with queries and keys, or an error that says why there are none."""
        entries = self._some(step, layer, part, keys, whole=True)
        for entry in entries:
            if entry.softmax is None:
                raise RuntimeError(
                    f"{entry.layer} in step {entry.step} is kept without heads and rows.{self._told()} Record with "
                    "keep='queries', more memory= or fewer layers= and steps=; or record a DenoisingRun and ask for "
                    "a step, which it computes once more."
                )
            if head is not None:
                check.integer(head, "head", 0, entry.heads - 1)
        return entries

    def _some(self, step, layer, part: str, keys: str | None, whole: bool) -> list[Entry]:
        """Entries that go with what is asked; of a run, steps not kept (``whole``: not in full) are computed again."""
        if step is None:
            entries = list(self._tape.entries.values())
        else:
            entries = [entry for number in sorted(step_numbers(step)) for entry in self._of_step(number, layer, whole)]
        found = self._going_with(entries, layer, part, keys)
        if found:
            return found
        if not self._heard_of:
            raise RuntimeError(
                "nothing is recorded: the denoiser was not called inside the with block, or not in the steps that "
                "are recorded. Of a DenoisingRun, a step already done can be asked for by step=."
            )
        if not entries:
            kept = sorted({key[0] for key in self._tape.entries})
            raise ValueError(f"step is {step!r}, expected one that is kept: {kept}.{self._told()}")
        there = {f"{e.layer} {e.layout.queries.grid}, keys {', '.join(e.layout.keys)}, part {e.part}" for e in entries}
        raise ValueError(
            f"nothing goes with layer={layer!r}, part={part!r} and keys {keys or 'of any kind'!r}. There are: "
            f"{'; '.join(sorted(there)) or 'none'}.{self._told()}"
        )

    def _of_step(self, step: int, layer, whole: bool) -> list[Entry]:
        own = [entry for entry in self._tape.entries.values() if entry.step == step]
        enough = self._going_with(own, layer, None, None) and not (whole and self._tape.dropped)
        return own if enough or self.run is None else self._recalled(step)

    def _going_with(self, entries: list[Entry], layer, part: str | None, keys: str | None) -> list[Entry]:
        selected = selectors(layer)
        return [
            entry
            for entry in entries
            if part in (None, entry.part)
            and (keys is None or keys in entry.layout.keys)
            and chosen(selected, entry.layer, self.layers, entry.layout.queries.grid)
        ]

    def _recalled(self, step: int) -> list[Entry]:
        """A past step of the run, computed once more: its inputs are on the run's tape. One call of the denoiser."""
        if self._memo[0] == step:
            return self._memo[1]
        check.integer(step, "step", 1, self.run.recorded)
        layers, kinds, parts, size, tokens = self._asked
        again = AttentionRecord(self.run, layers, step, kinds, "queries", UNBOUNDED, parts, size, tokens)
        branch = self.run.branch(at=step - 1)
        self.run.branches.remove(branch)
        Listening._alone, before = again, Listening._alone
        try:
            with again:
                state = branch.step()
        finally:
            Listening._alone = before
        wanted = self.run.states[step].latents
        if not torch.allclose(state.latents.float(), wanted.float(), rtol=1e-2, atol=1e-2 * float(wanted.abs().max())):
            raise RuntimeError(f"step {step} comes out otherwise than it was recorded: was something edited then?")
        self._heard_of |= again._heard_of
        self._memo = step, list(again._tape.entries.values())
        return self._memo[1]

    def _tokens_of(self, entry: Entry, picture: int) -> Tokens:
        span = entry.layout.keys["text"]
        return self.tokens_for(self._heard_of[entry.part], entry.part, picture, span.stop - span.start)

    def _all(self) -> list[Entry]:
        """Whatever tells of a layer."""
        sums = [one.entry for one in self._tape.sums.values()]
        return [*self._tape.entries.values(), *sums, *self._memo[1]]

    def _told(self) -> str:
        dropped = "; ".join(f"{what} ({count} times)" for what, count in self._tape.dropped.items())
        return f" Dropped: {dropped}." if dropped else ""

    def __repr__(self) -> str:
        return (
            f"AttentionRecord({len(self.layers)} layers listened to, {len(self.grids())} recorded, steps {self.steps}, "
            f"{self.bytes / 2**20:.1f} MiB.{self._told()})"
        )


def record_attention(
    target, layers=None, steps=None, kinds=("cross", "self"), *, keep: str = "queries", memory: float = 512,
    parts=("text",), size: tuple[int, int] | None = None, tokens=None,
) -> AttentionRecord:  # fmt: skip
    """Records where a denoiser looks while it works inside the ``with`` block. The result stays bit-equal.

    P = softmax(q k^T / sqrt(d) + mask), a row for each place of the picture, a column for each word or place.

    The model's own attention runs untouched. The queries and keys that go into it are copied as they are, so that
    norms, rotary embeddings and masks are in them; probabilities are computed from them in float32 when asked for. What
    is kept grows with the number of places, not with its square.

    Args:
        target: a diffusers pipeline, a DenoisingRun, or a module: a U-Net, a transformer, a control network. Of a run,
            past steps that are not kept are computed once more when asked for, one call of the denoiser each; that
            needs no ``with`` block.
        layers: name, part of a name, "down", "mid", "up", grid (h, w) of the places, or a list of these; None: all.
        steps: number or numbers, from 1, a range say; None: all. A step is one turn of the pipeline's loop. One that
            comes again (a second call, a branch) replaces itself and all after it.
        kinds: "cross" (text), "self" (the picture itself, and references), or both.
        keep: "queries": everything can be asked for. "tokens": maps of each token, layer and step, mean over heads, in
            half precision. "sums": these added over the steps, in single precision; never more than that.
        memory: MiB. Beyond, the oldest layers and steps are kept as "tokens", then as "sums", which stay. ``dropped``,
            and the record's own text, tell what that cost.
        parts: of the guidance: "text" (the rows with the prompt), "uncond" (without it, or with the negative one).
        size: (H, W) of the picture; needed only where no pipeline tells.
        tokens: names of the text axis, or `Tokens.of_prompt`; needed only where no call of a pipeline tells the prompt.

    Returns:
        A context, and what was recorded: `token_map`, `query_map`, `mass` ...

    Raises:
        ValueError: no layer is there, or none of that name; the message lists those there are.
        RuntimeError: at the end, where the layers ran and nothing could be recorded.

    What it cannot see: networks compiled as a whole, kernels other than PyTorch's (xformers, flash-attn called
    directly), linear attention (`AttentionRecord.silent` names such layers), the later softmaxes of a layer that
    computes several (an image prompt's), and videos.

    Source: Hertz et al., "Prompt-to-Prompt", ICLR 2023; Tang et al., "What the DAAM", ACL 2023.

    Example:
        >>> with record_attention(pipe, layers="up") as attention:
        ...     picture = pipe("a photo of a red ball").images
        >>> attention.token_map("ball")
    """
    return AttentionRecord(target, layers, steps, kinds, keep, memory, parts, size, tokens)
