"""What maps are laid over, and pictures made of both: for the canvas, a film, and a page without a kernel."""

from dataclasses import replace

import torch

from workbench import check, image, plot
from workbench.widgets.attention_view.asking import NOT_THERE, Question

SIDE = 480
"""Longest side of the frames of a film and of the pictures left without a kernel."""
COLOURS = "magma"
KEPT = 24
"""Pictures predicted by a run that are kept at most."""


class Pictures:
    """The picture under a map, at each step, with a line round its hole.

    Args:
        size: (H, W) of the record.
        photo: (B, 3, H, W); None takes what the run predicts at each step, or mid grey.
        mask: (1, 1, H, W); None takes the ``mask_image`` of the run's call, where that is such a mask.
        reference: (1, 3, H', W'); None is mid grey.
        run: of the record, or None.
    """

    def __init__(self, size: tuple[int, int], photo, mask, reference, run):
        self.size, self.run = tuple(size), run
        self._blank = torch.full((1, 3, *self.size), 0.5)
        self.photo = None if photo is None else check.image(photo)
        if photo is not None:
            check.same_size(photo, self._blank, "image", "the record")
        self.mask = _hole(mask, run, self._blank)
        reference = None if reference is None else check.image(reference, "reference")
        self.reference = self._blank if reference is None else reference[:1].detach().float().cpu()
        self._made: dict = {}

    @property
    def count(self) -> int | None:
        """How many pictures there are to choose from; None where nobody tells."""
        return None if self.photo is None else len(self.photo)

    def forget(self) -> None:
        """Asks the run anew."""
        self._made.clear()

    def under(self, question: Question) -> torch.Tensor:
        """What the map of a question is laid over, with a line round the hole; the same tensor each time."""
        if question.mode == "pixel" and question.keys != "image":
            return self.reference
        key = question.picture, question.step if self.photo is None else None
        if key not in self._made:
            found, width = self._plain(question), max(1, round(max(self.size) / 300))
            while len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            self._made[key] = found if self.mask is None else plot.outline_hole(found, self.mask, width)
        return self._made[key]

    def laid_over(
        self, found: torch.Tensor, question: Question, high: float, strength: float, pointed: bool
    ) -> torch.Tensor:
        """A map in colours from 0 to ``high`` over its picture, no larger than `SIDE`; its pixel marked if wanted."""
        under = self.under(question)
        heat = image.resize((found / high).clamp(0, 1)[None, None], tuple(under.shape[-2:]))
        made = plot.overlay_heat(under, heat, strength, COLOURS)
        return image.fit(self.pointed(made, question) if pointed and under is not self.reference else made, SIDE)

    def pointed(self, picture: torch.Tensor, question: Question) -> torch.Tensor:
        """The picture with a small white cross at the question's pixel."""
        height, width = self.size
        x, y = (min(int(n), side - 1) for n, side in zip(question.point, (width, height), strict=True))
        arm = max(1, round(max(self.size) / 40))
        cross = torch.zeros(1, 1, height, width)
        cross[..., max(0, y - arm) : y + arm + 1, x] = 1
        cross[..., y, max(0, x - arm) : x + arm + 1] = 1
        return torch.maximum(picture, cross)

    def own(self, question: Question) -> torch.Tensor:
        """The picture itself, whatever the map is laid over."""
        return self.under(replace(question, keys="image"))

    def _plain(self, question: Question) -> torch.Tensor:
        """The picture, or what the run predicts at the step."""
        if self.photo is not None:
            return self.photo[question.picture : question.picture + 1].detach().float().cpu()
        if self.run is None:
            return self._blank
        try:
            made = self.run.decode(question.step or self.run.recorded, "denoised")[question.picture][None]
        except (*NOT_THERE, IndexError):  # fewer pictures than asked for
            return self._blank
        return image.resize(made.detach().float().cpu().clamp(0, 1), self.size)


def _hole(mask, run, like: torch.Tensor) -> torch.Tensor | None:
    """The mask given, or that of the run's call; None where there is none, or nothing of it is hole."""
    if mask is not None:
        hole = check.mask(mask, like)
    else:
        hole = getattr(run, "arguments", {}).get("mask_image")
        try:
            check.mask(hole, like, "mask_image")
        except (TypeError, ValueError):
            return None
    hole = hole[:1].detach().float().cpu()
    return hole if hole.any() else None
