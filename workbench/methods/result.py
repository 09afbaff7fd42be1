"""What a method hands out: a `Step` at a time while it runs, and a `Result` at the end."""

import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import torch

from workbench import image as pictures
from workbench import plot


@dataclass(frozen=True)
class Step:
    """One look at a method at work.

    Args:
        i: number of this step, from 1 to total.
        total: how many steps there will be.
        label: what has just been done, for a person ("level 3 of 5, pass 2").
        image: the picture as it stands, (1, 3, h, w) in [0, 1]; h, w may be smaller than the input's.
        arrays: whatever else the method lets you look at, by name (tensors).
        box: the part (x0, y0, x1, y1) of the input that image shows, in the input's pixels; None = all of it.
        note: what makes this doubtful, a sentence; "" where nothing does.
    """

    i: int
    total: int
    label: str
    image: torch.Tensor
    arrays: dict = field(default_factory=dict)
    box: tuple[int, int, int, int] | None = None
    note: str = ""

    def __repr__(self) -> str:
        arrays = "".join(f", {name} {tuple(a.shape)}" for name, a in self.arrays.items())
        return f"Step({self.i}/{self.total}: {self.label}; image {tuple(self.image.shape)}{arrays})"


@dataclass(frozen=True)
class Result:
    """A filled picture and how it came about.

    Args:
        image: (B, 3, H, W); outside the hole (and the feather, if any) bit-equal to the input.
        raw: (B, 3, H, W), what the method painted before the kept pixels were put back.
        mask: (B, 1, H, W), the hole.
        masked_image: (B, 3, H, W), the input with the hole in mid grey.
        steps: the method's `Step`s in order; only the last one for pictures above two megapixels.
        seconds: wall time.
        params: method, seed and everything else that was chosen.
        interrupted: True when the run was stopped early; image is then the last step's.
    """

    image: torch.Tensor
    raw: torch.Tensor
    mask: torch.Tensor
    masked_image: torch.Tensor
    steps: list[Step]
    seconds: float
    params: dict
    interrupted: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What makes the result doubtful, as the method says; () where nothing does."""
        return tuple(dict.fromkeys(step.note for step in self.steps if step.note))

    def show(self):
        """A figure with the hole and the fill side by side (the first picture of a batch), and the notes."""
        told = "\n".join([self.params["method"], *(textwrap.fill(note, 48) for note in self.notes)])
        return plot.show_images({"hole": self.masked_image[:1], told: self.image[:1]})

    def save(self, path) -> Path:
        """Writes the filled picture; see `wb.save_image`."""
        return pictures.save_image(self.image, path)

    def __repr__(self) -> str:
        height, width = self.image.shape[-2:]
        batch = f"{self.image.shape[0]} pictures, " if self.image.shape[0] > 1 else ""
        stopped = ", interrupted" if self.interrupted else ""
        told = (
            f"Result({self.params['method']}: {batch}{height} x {width}, hole {self.mask.mean():.1%}, "
            f"seed {self.params['seed']}, {len(self.steps)} steps{stopped})"
        )
        return "\n".join([told, *self.notes])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {**self.show()._repr_mimebundle_(), "text/plain": repr(self)}
