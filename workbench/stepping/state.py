"""What there is to see at one step of a denoising run; named once, the same for every pipeline."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from workbench.stepping.engine.guidance import guidance_parts, measured_guidance
from workbench.stepping.engine.moment import Moment, denoiser_answers
from workbench.stepping.engine.structure import digest, same_bits

if TYPE_CHECKING:
    from workbench.stepping.denoising import DenoisingRun


class State:
    """What there is after ``i`` steps of a denoising run.

    Latents and predictions have the shape in which the pipeline hands them to its scheduler, (B, C, h, w) for most.
    Tensors are the recorded ones: read, do not write. State 0 has latents only; everything about a step is None there.

    Attributes:
        i: steps done; the step told of here is the i-th.
        latents: what the step ended with, mask blending included.
    """

    def __init__(self, run: "DenoisingRun", i: int, moment: Moment | None, latents: torch.Tensor):
        self._run, self.i, self._moment, self.latents = run, i, moment, latents

    @property
    def t(self) -> float | None:
        """The timestep that the step was taken at."""
        return self._moment and self._moment.t

    @property
    def sigma(self) -> float | None:
        """Noise level there: standard deviation of the noise over the scale of the picture."""
        if self._moment is None:
            return None
        a, s = self._moment.levels
        return s / a if a else float("inf")

    @property
    def levels(self) -> tuple[float, float] | None:
        """(a, s) of latents_before = a x0 + s noise at ``t``; sigma is s / a. NaN where the scheduler does not tell."""
        return self._moment and self._moment.levels

    @property
    def latents_before(self) -> torch.Tensor | None:
        """What the step began with."""
        return self._moment and self._moment.sample

    @property
    def solved(self) -> torch.Tensor | None:
        """What the scheduler returned, before any blending."""
        return self._moment and self._moment.solved

    @property
    def noise_pred(self) -> torch.Tensor | None:
        """What the scheduler was given: the prediction after guidance."""
        return self._moment and self._moment.noise_pred

    @property
    def noise_pred_uncond(self) -> torch.Tensor | None:
        """Its part without the prompt (or with the negative one); None without guidance."""
        parts = self._parts()
        return parts and parts[0]

    @property
    def noise_pred_text(self) -> torch.Tensor | None:
        """Its part with the prompt; None without guidance."""
        parts = self._parts()
        return parts and parts[1]

    @property
    def guidance(self) -> float | None:
        """The factor g that noise_pred = uncond + g (text - uncond) was made with, measured; None without guidance."""
        parts = self._parts()
        return parts and measured_guidance(self._moment.noise_pred, *parts)

    @property
    def guidance_norm(self) -> float | None:
        """Root mean square of text - uncond; None without guidance."""
        parts = self._parts()
        return None if parts is None else float((parts[1].float() - parts[0].float()).square().mean().sqrt())

    @property
    def denoised(self) -> torch.Tensor | None:
        """The clean latents that the step predicts (predicted x0); None where the scheduler's kind is not known."""
        return self._moment and self._moment.denoised

    @property
    def draws(self) -> list[torch.Tensor]:
        """Tensors drawn at random by the scheduler in the step."""
        return self._moment.draws if self._moment else []

    @property
    def kept(self) -> bool:
        """Whether blending put known latents back: latents and solved differ."""
        return self._moment is not None and not same_bits(self._moment.latents, self._moment.solved)

    @property
    def inputs(self) -> dict[str, str]:
        """Digest of each argument the denoiser was called with, by name; "name[0]", "name[1]" are halves of a batch."""
        asked = denoiser_answers(self._moment) if self._moment else []
        return asked[-1].inputs if asked else {}

    @property
    def history(self) -> str | None:
        """Digest of what the scheduler remembered from earlier steps, before this one."""
        return self._moment and self._moment.history

    @property
    def digest(self) -> str:
        """Of latents; equal bits, equal digest."""
        return digest(self.latents)

    @property
    def preview(self) -> torch.Tensor:
        """``denoised`` (where there is none: latents) decoded by the pipeline itself: (B, 3, H, W) in [0, 1]."""
        return self.decoded("latents" if self.denoised is None else "denoised")

    def decoded(self, what: str = "latents") -> torch.Tensor:
        """``latents`` or ``denoised`` as a picture, (B, 3, H, W) in [0, 1], kept once decoded."""
        return self._run.decode(self.i, what)

    def _parts(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        return guidance_parts(self._moment) if self._moment else None

    def __repr__(self) -> str:
        if self._moment is None:
            return f"State(i=0, latents {tuple(self.latents.shape)}, digest {self.digest})"
        guided = "" if self.guidance is None else f", guidance={self.guidance:.3g}"
        return f"State(i={self.i}, t={self.t:g}, sigma={self.sigma:.4g}{guided}, digest {self.digest})"


class States(Sequence):
    """The states of a run, made when asked for."""

    def __init__(self, run: "DenoisingRun", moments: Sequence[Moment], start: torch.Tensor | None):
        self._run, self._moments, self._start = run, moments, start

    def __len__(self) -> int:
        return len(self._moments) + 1

    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        if i == 0:
            return State(self._run, 0, None, self._start)
        moment = self._moments[i - 1]
        return State(self._run, i, moment, moment.latents)
