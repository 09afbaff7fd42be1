"""What the rows and columns of a layer's softmax stand for."""

import math
from dataclasses import dataclass

import torch

from workbench.lenses.attention.calls import Call, Grid
from workbench.lenses.attention.hearing import Softmax

IMAGE_FIRST = ("Joint", "HiDream", "Hunyuan", "JoyImage", "Motif")
"""Beginnings of the processors' names whose joint sequence is [image, text]; all others have [text, image]. Asked only
where the lengths of what the layer concatenates do not tell."""


@dataclass(frozen=True)
class Span:
    """Part of an axis: from ``start`` to ``stop``, end excluded; ``grid`` (h, w) where it is a picture."""

    start: int
    stop: int
    grid: Grid | None = None


@dataclass(frozen=True)
class Layout:
    """Axes of a softmax (n, m).

    Args:
        queries: the picture's places among the rows.
        keys: parts of the columns by name: "image", "reference", "text".
    """

    queries: Span
    keys: dict[str, Span]

    @property
    def kinds(self) -> set[str]:
        """Among "cross" (a place looks at text) and "self" (at places)."""
        return {"cross" if name == "text" else "self" for name in self.keys}


def layout_of(module, args: tuple, kwargs: dict, heard: Softmax, call: Call) -> Layout | None:
    """How a layer's softmax is made up; None where its rows are no picture, of a layer for text only.

    Args:
        module: the layer.
        args, kwargs: what it was called with.
        heard: its softmax.
        call: the denoiser's.
    """
    rows, columns = heard.lengths
    places = _length(args[0] if args else kwargs.get("hidden_states"))
    context = _length(args[1] if len(args) > 1 else kwargs.get("encoder_hidden_states")) or 0
    text = context
    if not context and places == rows and call.text and call.grid(rows) is None:
        text = call.text  # one stream that holds both already
        places = rows - text
    picture = call.grid(places) or {}
    grid = picture.get("image")
    if not picture and (context or not call.grids):
        grid, picture = None, {"image": places}  # tokens nobody knows the places of
    if not picture:
        return None
    first = text if rows == places + text and not _image_first(module, heard, places, text) else 0
    own = math.prod(grid) if grid else places
    queries = Span(first, first + own, grid)

    declared = getattr(module, "key_parts", None)
    if declared and sum(math.prod(_shape(part)) for part in declared.values()) == columns:
        return Layout(queries, _spans(declared))
    if columns == context:
        return Layout(queries, _spans({"text": text}))
    if columns == places:
        return Layout(queries, _spans(picture))
    if columns == places + text:
        parts = [*picture.items(), ("text", text)]
        if not _image_first(module, heard, places, text):
            parts = [parts[-1], *parts[:-1]]
        return Layout(queries, _spans(dict(parts)))
    return None


def _length(tokens) -> int | None:
    """Of tokens (B, n, C) or a field (B, C, h, w); of several contexts the first, the text."""
    tokens = tokens[0] if isinstance(tokens, tuple) and tokens else tokens
    if not isinstance(tokens, torch.Tensor):
        return None
    return tokens.shape[1] if tokens.ndim == 3 else math.prod(tokens.shape[2:])


def _image_first(module, heard: Softmax, places: int, text: int) -> bool:
    if places != text:
        if (places, text) in heard.joined:
            return True
        if (text, places) in heard.joined:
            return False
    return type(getattr(module, "processor", None)).__name__.removeprefix("Fused").startswith(IMAGE_FIRST)


def _shape(part: int | Grid) -> Grid:
    return (part, 1) if isinstance(part, int) else tuple(part)


def _spans(parts: dict[str, int | Grid]) -> dict[str, Span]:
    found, start = {}, 0
    for name, part in parts.items():
        stop = start + math.prod(_shape(part))
        found[name] = Span(start, stop, None if isinstance(part, int) else tuple(part))
        start = stop
    return found
