"""Asking a record of attention: what it offers, a question as a value, and the answers given so far."""

from collections import OrderedDict
from dataclasses import dataclass, replace

import torch

MODES = ("word", "pixel")
HOW = ("mean", "normalised", "sum")
BLOCKS = ("down", "mid", "up")
KEPT = 64 * 2**20
"""Bytes of maps kept at most."""
_NEEDED = ("token_map", "query_map", "token_shares", "mass", "tokens", "keys", "heads", "grids", "steps", "size")
NOT_THERE = (ValueError, RuntimeError)
"""What a record raises where something is not in it, or no more."""


@dataclass(frozen=True)
class Question:
    """What is chosen.

    Args:
        mode: "word" (where does a word act) or "pixel" (where does a pixel look).
        token, occurrence: a word of the prompt, or a column's number; which of several, None takes all.
        point: (x, y) of the pixel.
        step, layer, head, how, picture, part, keys: as in the record's questions.
    """

    mode: str = "word"
    token: str | int = 0
    occurrence: int | None = None
    point: tuple[float, float] = (0.0, 0.0)
    step: int | None = None
    layer: str | tuple | None = None
    head: int | None = None
    how: str = "mean"
    picture: int = 0
    part: str = "text"
    keys: str = "image"

    @property
    def where(self) -> dict:
        """What all questions have in common."""
        names = ("step", "layer", "head", "picture", "part")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Word:
    """A word to be chosen: how it is written, what the record calls it, and its columns.

    ``own`` tells the prompt's words from the start and end that the tokenizer adds.
    """

    text: str
    token: str | int
    occurrence: int | None
    columns: tuple[int, ...]
    own: bool = True


class Asking:
    """Questions to one record, answered once each.

    Raises:
        TypeError: something else than a record.
        RuntimeError: nothing is recorded.
    """

    def __init__(self, attention):
        missing = [n for n in _NEEDED if not (hasattr(type(attention), n) or hasattr(attention, n))]
        if missing:
            raise TypeError(
                f"attention is a {type(attention).__name__} without {', '.join(missing)}, expected what "
                "wb.record_attention gives."
            )
        self.attention = attention
        self._answers: OrderedDict[tuple, torch.Tensor] = OrderedDict()
        self.refresh()

    def refresh(self) -> None:
        """Forgets answers and looks anew what there is."""
        self._answers.clear()
        if not self.attention.grids():
            self._prime()

    @property
    def steps(self) -> list[int]:
        """Steps that can be asked for: those kept, and of a run all it has done, which it computes once more."""
        done = getattr(getattr(self.attention, "run", None), "recorded", 0)
        return sorted({*self.attention.steps, *range(1, done + 1)})

    @property
    def can_mean(self) -> bool:
        """Whether anything is kept that a mean over the steps can be made of."""
        return bool(self.attention.steps)

    def modes(self) -> list[str]:
        """What can be asked at all."""
        parts = {part for keys in self.attention.keys().values() for part in keys}
        return [mode for mode, part in zip(MODES, ("text", "image"), strict=True) if part in parts]

    def key_parts(self) -> list[str]:
        """What a pixel can look at: the picture itself, and references."""
        found = dict.fromkeys(part for keys in self.attention.keys().values() for part in keys if part != "text")
        return list(found)

    def layers(self, mode: str, keys: str = "image") -> list[tuple[str, str | tuple | None]]:
        """Layers that answer in a mode: label, and what the record takes. Groups come first."""
        wanted = "text" if mode == "word" else keys
        grids = self.attention.grids()
        names = [name for name, parts in self.attention.keys().items() if wanted in parts]
        blocks = [b for b in BLOCKS if any(p.startswith(f"{b}_block") for n in names for p in n.split("."))]
        shapes = sorted({grids[name] for name in names if grids[name]}, reverse=True)
        found: list[tuple[str, str | tuple | None]] = [(f"all {len(names)} layers", None)]
        found += [(f"{block} blocks", block) for block in blocks]
        if len(shapes) > 1:
            found += [(f"all of {h} × {w} places", (h, w)) for h, w in shapes]
        return found + [(_label(name, grids[name]), name) for name in names]

    def heads(self, question: Question) -> int:
        """The most heads of a layer in question."""
        wanted = "text" if question.mode == "word" else question.keys
        keys = self.attention.keys()
        return max((n for name, n in self.attention.heads().items() if wanted in keys.get(name, ())), default=1)

    def words(self, picture: int, part: str) -> list[Word]:
        """The prompt's words, each once, its pieces together; then start and end. Empty where nobody knows them."""
        try:
            tokens = self.attention.tokens(picture, part)
        except NOT_THERE:
            return []
        spelled = tokens.spelled
        texts, found = [text for text, _ in spelled], []
        for place, (text, columns) in enumerate(spelled):
            which = texts[:place].count(text) if texts.count(text) > 1 else None
            found.append(Word(text, text, which, tuple(columns)))
        kinds = list(tokens.kinds)
        for kind in ("start", "end"):
            if kind in kinds:
                column = kinds.index(kind)
                found.append(Word(kind, column, None, (column,), own=False))
        return found

    def with_word(self, question: Question) -> Question:
        """The question about its prompt's longest word, or, where nobody knows them, about the first column."""
        own = [word for word in self.words(question.picture, question.part) if word.own]
        if not own:
            return replace(question, token=0, occurrence=None)
        longest = max(own, key=lambda word: len(word.text))
        return replace(question, token=longest.token, occurrence=longest.occurrence)

    def columns(self, question: Question) -> set[int]:
        """Columns of the chosen word."""
        if isinstance(question.token, int):
            return {question.token}
        return set(self.attention.tokens(question.picture, question.part).columns(question.token, question.occurrence))

    def map(self, question: Question) -> torch.Tensor:
        """The answer, (H, W), not stretched; raises what the record raises where it is not there."""
        q = question
        own = (q.token, q.occurrence, q.how) if q.mode == "word" else (q.point, q.keys)
        key = (q.mode, *own, *q.where.values())
        if key in self._answers:
            self._answers.move_to_end(key)
            return self._answers[key]
        if q.mode == "word":
            found = self.attention.token_map(q.token, how=q.how, stretch=False, occurrence=q.occurrence, **q.where)
        else:
            found = self.attention.query_map(q.point, keys=q.keys, stretch=False, **q.where)
        self._answers[key] = found
        while sum(answer.nbytes for answer in self._answers.values()) > KEPT:
            self._answers.popitem(last=False)
        return found

    def masses(self, question: Question, hole: torch.Tensor) -> tuple[float, float]:
        """How much of the answer lies inside a hole and outside of it.

        Of a word, shares of its map, which sum to 1. Of a pixel, the record's own mass of its row; where the row goes
        to words or a reference too, the two sum to less.
        """
        if question.mode == "word":
            found = self.map(question)
            inside = float((found * hole[0, 0]).sum() / found.sum().clamp_min(1e-30))
            return inside, 1 - inside
        dot = torch.zeros_like(hole)
        x, y = question.point
        dot[..., min(int(y), dot.shape[-2] - 1), min(int(x), dot.shape[-1] - 1)] = 1
        inside, outside = (self.attention.mass(where, dot, **question.where) for where in (hole, 1 - hole))
        return inside, outside

    def shares(self, question: Question) -> list[tuple[str, float, bool]]:
        """Which words the point looks at: (word, probability, whether it is the prompt's own), largest first."""
        wanted = question.where
        if question.mode == "pixel":  # layers of self-attention are not those that look at words
            wanted = wanted | {"layer": None, "head": None}
        columns = [share for _, share in self.attention.token_shares(question.point, **wanted)]
        words = self.words(question.picture, question.part)
        if not words:
            told = [(f"column {k}", share, True) for k, share in enumerate(columns)]
        else:
            told = [(w.text, sum(columns[c] for c in w.columns), w.own) for w in words]
            rest = sum(columns) - sum(share for _, share, _ in told)
            told.append(("padding", max(rest, 0.0), False))
        return sorted(told, key=lambda entry: -entry[1])

    def title(self, question: Question) -> str:
        """What is asked, in words."""
        if question.mode == "word":
            return f"where {self._name(question)} acts"
        looks = "looks" if question.keys == "image" else f"looks in the {question.keys}"
        return f"where pixel ({question.point[0]:.0f}, {question.point[1]:.0f}) {looks}"

    def _name(self, question: Question) -> str:
        if isinstance(question.token, str):
            which = "" if question.occurrence is None else f" ({question.occurrence + 1})"
            return f"“{question.token}”{which}"
        words = self.words(question.picture, question.part)
        known = [word.text for word in words if word.columns == (question.token,)]
        return f"the {known[0]} token" if known else f"column {question.token}"

    def where(self, question: Question) -> str:
        """Of which step, layer and head, in words."""
        q = question
        step = "mean of all steps" if q.step is None else f"step {q.step}"
        layer = "all layers" if q.layer is None else str(q.layer)
        return f"{step}, {layer}, {'mean of heads' if q.head is None else f'head {q.head}'}"

    def _prime(self) -> None:
        """Of a run of which nothing is kept, has its last step computed once more: that tells what layers there are."""
        run = getattr(self.attention, "run", None)
        last = getattr(run, "recorded", 0)
        if not last:
            raise RuntimeError(
                "nothing is recorded yet: call the pipeline inside the with block of wb.record_attention, or do a step "
                "of the run."
            )
        try:
            self.attention.token_map(0, last)
        except NOT_THERE:
            self.attention.query_map((0, 0), last)


def _label(name: str, grid: tuple[int, int] | None) -> str:
    """Where a layer is, short enough for a menu."""
    short = name.replace(".attentions.", ".").replace("transformer_blocks.", "").replace("_blocks.", " ")
    return short if grid is None else f"{grid[0]} × {grid[1]} · {short}"
