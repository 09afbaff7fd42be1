"""A CLIP tokenizer with a small vocabulary: every word of the rendered world is one token, all else falls apart.

CLIP's tokenizer is a byte-pair encoding (BPE): a word starts as characters, then the listed pairs are merged, the
earliest listed first. We list, word after word, the pairs that make it whole; words that are in no list stay
characters (bytes, beyond ASCII), so that no prompt is ever unknown.
"""

import itertools
import json
import re
from collections.abc import Iterable
from pathlib import Path

from workbench import check, data
from workbench.diffusion.libraries import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 48
"""Tokens of a prompt, start and end included; shorter ones are padded with the end token, as CLIP's are."""
RARE = ("sks", "ohwx", "zwx", "vqj", "xjy", "qxz")
"""Tokens without a meaning, free for fine-tuning on a subject ("a photo of sks")."""
EVERYDAY = (
    "a", "an", "the", "photo", "picture", "image", "of", "with", "and", "in", "on", "at", "from", "under", "to", "no",
    "two", "three", "many", "some", "small", "large", "big", "bright", "dark", "warm", "cold", "light", "night", "day",
    "old", "new", "empty", "background", "object", "house", "street", "front", "close", "up", "colour", "color",
)  # fmt: skip
"""Words prompts are made of, in no scene."""


def world_words() -> list[str]:
    """Every word that captions and labels of the rendered world, and captions of the catalogue, can hold, sorted.

    The world is asked, so that a new object or pattern needs no change here.
    """
    from workbench.world.views import LABELS, OBJECTS, plural  # only to train: loading a model needs no world

    words = {*LABELS, *(plural(word) for word in OBJECTS)}
    for name in data.photographs():
        words |= set(re.findall(r"[a-z]+", data.photograph(name).caption.lower()))
    return sorted(words)


def make_tokenizer(words: Iterable[str] | None = None) -> CLIPTokenizer:
    """A tokenizer that holds the given words as one token each.

    Args:
        words: lower-case words of letters; None takes `world_words`, `EVERYDAY` and `RARE`.

    Returns:
        CLIPTokenizer of `LENGTH` tokens a prompt.

    Raises:
        ValueError: something that is no lower-case word.

    Source: Sennrich et al., ACL 2016 (BPE); differs in that the pairs are made for given words, not counted in a text.

    Example:
        >>> make_tokenizer(["ball"]).tokenize("a ball")
        ['a</w>', 'ball</w>']
    """
    words = [*EVERYDAY, *RARE, *world_words()] if words is None else list(words)
    vocabulary = {symbol: i for i, symbol in enumerate(_alphabet())}
    merges: dict[tuple[str, str], int] = {}
    for word in dict.fromkeys(words):
        if not isinstance(word, str) or not re.fullmatch(r"[a-z]+", word):
            raise ValueError(f"word is {word!r}, expected lower-case letters a to z. Split compounds into words.")
        pieces = _merge([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:  # what earlier merges left apart is joined from the left, after all of them
            merges[pieces[0], pieces[1]] = len(merges)
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            vocabulary.setdefault(pieces[0], len(vocabulary))
    for token in (START, END):
        vocabulary[token] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=list(merges), model_max_length=LENGTH)


def save_tokenizer(tokenizer: CLIPTokenizer, folder) -> Path:
    """Writes a tokenizer with ``vocab.json`` and ``merges.txt`` too, which older releases of transformers read."""
    folder = Path(folder)
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    return folder


def token_ids(tokenizer: CLIPTokenizer, prompts: list[str]):
    """Prompts as token ids, int64 (B, LENGTH): cut at the end if too long, padded if short."""
    if isinstance(prompts, str):
        raise TypeError(f"prompts is the string {prompts!r}, expected a list of strings.")
    check.integer(len(prompts), "the number of prompts", 1)
    options = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    return tokenizer(prompts, return_tensors="pt", **options).input_ids


def _alphabet() -> list[str]:
    """The 256 printable stand-ins of bytes, inside a word and at its end, as CLIP orders them."""
    from tokenizers.pre_tokenizers import ByteLevel

    symbols = sorted(ByteLevel.alphabet())
    return [*symbols, *(symbol + "</w>" for symbol in symbols)]


def _merge(pieces: list[str], merges: dict) -> list[str]:
    """Applies the pairs to one word, the earliest listed first."""
    while True:
        ranks = [merges.get(pair, len(merges)) for pair in itertools.pairwise(pieces)]
        if not ranks or min(ranks) == len(merges):
            return pieces
        i = ranks.index(min(ranks))
        pieces = [*pieces[:i], pieces[i] + pieces[i + 1], *pieces[i + 2 :]]
