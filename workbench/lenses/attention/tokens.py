"""Which columns of the text axis a word has."""

from collections.abc import Sequence
from dataclasses import dataclass

from workbench import check
from workbench.lenses.attention.calls import Call

KINDS = ("start", "word", "end", "padding")
SPACES = "▁Ġ"
"""What vocabularies write for the space before a word; the second counts as a letter in Python."""


@dataclass(frozen=True)
class Piece:
    """Columns that one tokenizer made: its ids, and their names as the vocabulary has them."""

    tokenizer: object
    ids: list[int]
    names: list[str]


class Tokens(Sequence):
    """Tokens of one prompt, as many as the text axis has columns.

    Attributes:
        kinds: of each column: "start", "word", "end" or "padding".
    """

    def __init__(self, pieces: list[Piece]):
        self._pieces = pieces
        self._names = [name for piece in pieces for name in piece.names]
        self.kinds = [kind for piece in pieces for kind in _kinds(piece)]

    @classmethod
    def named(cls, names: Sequence[str]) -> "Tokens":
        """Of columns that have names, and no tokenizer."""
        return cls([Piece(None, [], list(names))])

    @classmethod
    def of_prompt(cls, tokenizer, prompt: str, length: int | None = None) -> "Tokens":
        """Of a prompt as a tokenizer cuts it, filled up to ``length``; None takes the tokenizer's own."""
        return cls([_piece(tokenizer, prompt, tokenizer.model_max_length if length is None else length)])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, column):
        return _plain(self._names[column])

    @property
    def words(self) -> list[str]:
        """The prompt's own tokens: neither start, end nor padding."""
        return [name for name, kind in zip(self, self.kinds, strict=True) if kind == "word"]

    @property
    def spelled(self) -> list[tuple[str, list[int]]]:
        """The prompt's words with their columns, in order; a word of several tokens is one."""
        found, start = [], 0
        for piece in self._pieces:
            kinds = self.kinds[start : start + len(piece.names)]
            for place in (place for place, kind in enumerate(kinds) if kind == "word"):
                text, column = self[start + place], start + place
                if piece.tokenizer is not None and _continues(piece, kinds, place):
                    word, columns = found[-1]
                    found[-1] = word + text, [*columns, column]
                else:
                    found.append((text, [column]))
            start += len(piece.names)
        return found

    def columns(self, word: str | int, occurrence: int | None = None) -> list[int]:
        """Columns of a word, or of several words in a row.

        Args:
            word: as it stands in the prompt, or a column's number.
            occurrence: which, from 0, where it is there more than once; None takes all.

        Raises:
            ValueError: it is not in the prompt.
        """
        if isinstance(word, int) and not isinstance(word, bool):
            return [check.integer(word, "word, a column,", 0, len(self) - 1)]
        if not isinstance(word, str):
            raise TypeError(f"word is {word!r} ({type(word).__name__}), expected a word of the prompt, or a column.")
        found, start = [], 0
        for piece in self._pieces:
            kinds = self.kinds[start : start + len(piece.names)]
            found += [[start + c for c in columns] for columns in _places(piece, kinds, word.strip())]
            start += len(piece.names)
        if not found:
            raise ValueError(
                f"word is {word!r}, expected one of the prompt, whose tokens are: {', '.join(self.words) or 'none'}. "
                f"Or give a column from 0 to {len(self) - 1}."
            )
        if occurrence is None:
            return [column for columns in found for column in columns]
        return found[check.integer(occurrence, "occurrence", 0, len(found) - 1)]


def tokens_of(call: Call, part: str, picture: int, length: int) -> Tokens:
    """The tokens of a prompt, by the pipeline's own tokenizers.

    A U-Net looks at the first tokenizer's; a transformer at the last one's (T5 in Flux), or at those of the first with
    the last one's behind them (Stable Diffusion 3).

    Args:
        call: tells the prompts.
        part: of the guidance, "text" or "uncond".
        picture: of the batch.
        length: of the text axis.

    Raises:
        ValueError: the prompt is not known, or no tokenizer makes it so long.
    """
    makers = [(tokenizer, prompts[picture]) for tokenizer, prompts in call.prompts.get(part, ())]
    if not makers:
        raise ValueError(
            f"the prompt of part {part!r} is not known: the call was given none, or embeddings only. Expected "
            "tokens=, the names of the text axis, in record_attention; or a column's number for the word."
        )
    first, last = makers[0], makers[-1]
    short = first[0].model_max_length
    long = (call.sequence, last[0].model_max_length)
    if call.unet and length == short:
        ways = [(first, length)]
    elif not call.unet and length in long:
        ways = [(last, length)]
    elif not call.unet and length - short in long:
        ways = [(first, short), (last, length - short)]
    else:
        raise ValueError(
            f"the text axis has {length} columns, which none of the {len(makers)} tokenizers makes. Expected tokens=, "
            "the names of them all, in record_attention; or a column's number for the word."
        )
    return Tokens([_piece(*maker, count) for maker, count in ways])


def _piece(tokenizer, prompt: str, length: int) -> Piece:
    ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
    return Piece(tokenizer, list(ids), tokenizer.convert_ids_to_tokens(ids))


def _kinds(piece: Piece) -> list[str]:
    """The first token is the start where the vocabulary has one; what follows the first end is padding."""
    kinds, begun = [], False
    first, last, padding = (getattr(piece.tokenizer, f"{n}_token_id", None) for n in ("bos", "eos", "pad"))
    for place, number in enumerate(piece.ids or [None] * len(piece.names)):
        if piece.tokenizer is None:
            kinds.append("word")
        elif begun or (number == padding and number != last):
            kinds.append("padding")
        elif place == 0 and number == first:
            kinds.append("start")
        elif number == last:
            kinds.append("end")
            begun = True
        else:
            kinds.append("word")
    return kinds


def _places(piece: Piece, kinds: list[str], word: str) -> list[list[int]]:
    """Where a word stands as a whole: not as the beginning or end of a longer one."""
    if piece.tokenizer is None:
        return [[place] for place, name in enumerate(piece.names) if name == word]
    spelled = [piece.tokenizer(text, add_special_tokens=False).input_ids for text in (word, " " + word)]
    found = []
    for place in range(len(piece.ids)):
        for ids in spelled:
            end = place + len(ids)
            whole = ids and piece.ids[place:end] == list(ids) and set(kinds[place:end]) == {"word"}
            if whole and not _continues(piece, kinds, place) and not _continues(piece, kinds, end):
                found.append(list(range(place, end)))
                break
    return found


def _continues(piece: Piece, kinds: list[str], place: int) -> bool:
    """Whether the token there goes on with the word before it."""
    if not 0 < place < len(kinds) or kinds[place - 1] != "word" or kinds[place] != "word":
        return False
    before, here = piece.names[place - 1], piece.names[place]
    if any(name.endswith("</w>") for name in piece.names):
        return not before.endswith("</w>")
    return here[:1] not in SPACES and here[:1].isalnum() and before[-1:].isalnum()


def _plain(name: str) -> str:
    return name.removesuffix("</w>").lstrip(SPACES)
