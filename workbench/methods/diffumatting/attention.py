"""How much each place of the picture looks at a word while the denoiser learns, with gradients."""

from collections.abc import Sequence

import torch

from workbench.lenses.attention.hearing import Softmax, probabilities
from workbench.lenses.attention.listening import Listening
from workbench.lenses.attention.tokens import Tokens

PHRASE = "on a green background"
"""What a caption ends in."""
WORD = "green"


def green_caption(caption: str) -> str:
    """A caption that names the green background, once.

    Example:
        >>> green_caption("a photo of a feather.")
        'a photo of a feather on a green background'
    """
    if not isinstance(caption, str):
        raise TypeError(f"caption is a {type(caption).__name__}, expected a string.")
    caption = caption.strip().rstrip(".")
    return caption if caption.endswith(PHRASE) else f"{caption} {PHRASE}".strip()


def green_columns(tokenizer, prompts: Sequence[str]) -> torch.Tensor:
    """Which columns of the text axis are the background's "green": (B, L), 1 there, 0 elsewhere.

    A "green" of the object ("a green leaf on a green background") is not the background's.

    Args:
        tokenizer: of the pipeline.
        prompts: those without "green background" get no column.
    """
    rows = torch.zeros(len(prompts), tokenizer.model_max_length)
    for row, prompt in zip(rows, prompts, strict=True):
        tokens = Tokens.of_prompt(tokenizer, prompt)
        try:
            phrase = tokens.columns(f"{WORD} background")
        except ValueError:  # not in this prompt
            continue
        row[[column for column in tokens.columns(WORD) if column in phrase]] = 1
    return rows


class WordAttention(Listening):
    """A context in which a denoiser's cross-attention at some columns is kept, part of the graph.

    Args:
        unet: the denoiser, called directly or by a pipeline.
        columns: (B, L), the weight of each column of the text for each row of the batch.

    Attributes:
        maps: one (B, 1, h, w) for each cross-attention layer that has run: sum of the columns, mean of the heads.

    Raises:
        ValueError: at the end, where no layer looked at text; or text of another length than ``columns``.

    Example:
        >>> with WordAttention(unet, green_columns(tokenizer, prompts)) as heard:
        ...     unet(latents, t, states)
        >>> green_control(heard.maps, alpha)
    """

    def __init__(self, unet: torch.nn.Module, columns: torch.Tensor):
        super().__init__(unet, None, None)
        self.columns, self.maps = columns, []

    def hears(self, module, args: tuple, kwargs: dict, heard: list[Softmax]) -> None:
        """Keeps a layer's map, if it looks at text."""
        for softmax in heard:
            layout = self.layout(module, args, kwargs, softmax)
            if layout is None or "text" not in layout.keys:
                continue
            span, rows = layout.keys["text"], layout.queries
            length = span.stop - span.start
            if self.columns.shape[1] != length:
                raise ValueError(
                    f"columns has {self.columns.shape[1]} columns for a text of {length}, expected as many."
                )
            if softmax.q is None:
                shares = softmax.result.float()
            else:
                shares = probabilities(softmax.q, softmax.k, softmax.mask, softmax.scale)  # (B, heads, n, m)
            shares = shares[:, :, rows.start : rows.stop, span.start : span.stop].mean(1)  # (B, n, L)
            shares = torch.einsum("bnl,bl->bn", shares, self.columns.to(shares))
            self.maps.append(shares.unflatten(1, rows.grid)[:, None])  # (B, 1, h, w)

    def _check_heard(self) -> None:
        if not self.maps:
            raise ValueError(
                f"none of the {len(self.layers)} attention layers looked at text, expected cross-attention."
            )
