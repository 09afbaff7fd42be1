"""Changing how much a word is looked at, to see whether a map explains anything."""

import torch

from workbench import check
from workbench.lenses.attention.hearing import Softmax
from workbench.lenses.attention.listening import Listening


class AttentionEdit(Listening):
    """See `edit_attention`.

    Attributes:
        edited: in how many layers and steps a column was scaled so far.
    """

    def __init__(self, target, word, scale, layers, steps, part, tokens):
        super().__init__(target, layers, steps, tokens)
        if not isinstance(word, (str, int)) or isinstance(word, bool):
            raise TypeError(f"word is {word!r}, expected a word of the prompt, or the number of a column.")
        self.word, self.scale, self.part = word, check.number(scale, "scale", 0), part
        self.edited = 0

    def factors(self, module, args: tuple, kwargs: dict, heard: Softmax) -> torch.Tensor | None:
        """(B, 1, 1, m): the scale where a row of the batch has the word, 1 elsewhere."""
        layout = self.layout(module, args, kwargs, heard)
        rows = self._call.rows.get(self.part)
        if layout is None or "text" not in layout.keys or rows is None:
            return None
        span = layout.keys["text"]
        batch = max(rows.stop for rows in self._call.rows.values())
        source = heard.result if heard.q is None else heard.q
        factors = torch.ones(batch, 1, 1, heard.lengths[1], device=source.device)  # (B, 1, 1, m)
        missing = None
        for picture, row in enumerate(range(rows.start, rows.stop)):
            tokens = self.tokens_for(self._call, self.part, picture, span.stop - span.start)
            try:
                columns = tokens.columns(self.word)
            except ValueError as error:  # another prompt of the batch may have it
                missing = error
                continue
            factors[row, :, :, [span.start + column for column in columns]] = self.scale
        if (factors == 1).all() and self.scale != 1:
            raise missing
        self.edited += 1
        return factors

    def _check_heard(self) -> None:
        if not self.edited:
            raise RuntimeError(
                f"no column was scaled: none of the {len(self.layers)} layers listened to looked at text in part "
                f"{self.part!r}. Their grids: {self._seen}."
            )

    def __repr__(self) -> str:
        return f"AttentionEdit({self.word!r} x {self.scale:g}, {len(self.layers)} layers, edited {self.edited} times)"


def edit_attention(
    target, word: str | int, scale: float = 0.0, *, layers=None, steps=None, part: str = "text", tokens=None
) -> AttentionEdit:  # fmt: skip
    """Scales a word's column of the attention inside a ``with`` block: P'[:, word] = scale P[:, word], then P' v.

    Rows are not brought back to a sum of 1: what a word gets less nobody gets more. With ``scale=1`` the probabilities
    are what they were, computed openly, so that the result equals the plain one up to rounding.

    Args:
        target: a pipeline, a DenoisingRun (of which steps still to be computed are edited) or a module.
        word: of the prompt, every occurrence, or a column of the text axis. Of several prompts those that have it.
        scale: factor, at least 0; 0 makes the word unseen.
        layers, steps, tokens: as in `record_attention`.
        part: of the guidance: "text" or "uncond", where the word is one of the negative prompt.

    Returns:
        A context; its ``edited`` counts.

    Raises:
        ValueError: layers of that name are not there; or, in the pipeline's call, the word is in no prompt.
        RuntimeError: at the end, where no column was scaled.

    Source: Hertz et al., "Prompt-to-Prompt Image Editing with Cross Attention Control", ICLR 2023, section 3.2
    (attention re-weighting); differs in that there a second prompt's run gives the maps.

    Example:
        >>> with edit_attention(pipe, "ball", scale=0.0):
        ...     without = pipe("a red ball").images
    """
    check.choice(part, "part", ("text", "uncond"))
    return AttentionEdit(target, word, scale, layers, steps, part, tokens)
