"""Sampling: noise becomes a picture under the eyes of the reference. Guidance drops the reference and its tokens."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from workbench import check
from workbench.diffusion.prediction import denoised
from workbench.methods.mimicbrush.attention import Bank, with_rows
from workbench.methods.mimicbrush.model import Conditions, MimicBrush
from workbench.methods.mimicbrush.networks import Imitator


@dataclass(frozen=True)
class Look:
    """One step of sampling; tensors are (B, 4, h, w).

    Args:
        i: steps done, from 1 to total.
        total: steps in all.
        t: the timestep just taken.
        latents: after the step.
        noise_pred: after guidance.
        noise_pred_uncond: without the reference; None without guidance.
        noise_pred_reference: with it.
        denoised: the x0 estimate.
    """

    i: int
    total: int
    t: int
    latents: torch.Tensor
    noise_pred: torch.Tensor
    noise_pred_uncond: torch.Tensor | None
    noise_pred_reference: torch.Tensor
    denoised: torch.Tensor

    def __repr__(self) -> str:
        return f"Look({self.i}/{self.total}: t = {self.t}; latents {tuple(self.latents.shape)})"


@torch.no_grad()
def sample(
    model: MimicBrush,
    given: Conditions,
    *,
    seed: int | Sequence[int] = 0,
    num_inference_steps: int = 20,
    guidance_scale: float = 3.0,
    attend: bool = True,
) -> Iterator[Look]:
    """Draws pictures for some conditions, yielding every step.

    eps = eps_0 + g (eps_r - eps_0); eps_r with reference and image tokens, eps_0 without either. Mask, background and
    depth stay in both.

    Args:
        model: any.
        given: of `MimicBrush.conditions`, B items.
        seed: of the noise; several, one for each item, else all have the same.
        num_inference_steps: of the model's scheduler.
        guidance_scale: g; up to 1 there is no guidance.
        attend: False leaves the reference U-Net out: the image tokens alone, the paper's ablation.

    Yields:
        `Look`; decode the last ``latents``.

    Source: Chen et al., 2024: guidance 5; released code: DDIM, 50 steps. The reference is read once where it is read
        as a clean picture (``reference_t="zero"``), else in each step. Both halves of guidance are one call of the
        U-Net, so that ``wb.record_attention(model.imitator.unet)`` counts steps; its picture 0 has the reference.
    """
    check.integer(num_inference_steps, "num_inference_steps", 1)
    check.number(guidance_scale, "guidance_scale", 0)
    imitator, scheduler = model.imitator, copy.deepcopy(model.scheduler)  # another fill may use it too
    count = len(given.background)
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    if len(seeds) != count:
        raise ValueError(f"seed holds {len(seeds)} numbers for {count} pictures, expected one or as many.")
    generators = [torch.Generator().manual_seed(check.seed(s)) for s in seeds]
    scheduler.set_timesteps(num_inference_steps, device=model.device)
    shape = given.background.shape[1:]
    noise = torch.cat([torch.randn(1, *shape, generator=g) for g in generators])  # (B, 4, h, w)
    dtype = imitator.unet.dtype
    latents = noise.to(model.device, dtype) * scheduler.init_noise_sigma
    guided, once = guidance_scale > 1, imitator.config.reference_t == "zero"
    tokens = imitator.tokens(given.states)  # (B, n, C)
    fixed = [given.mask.to(dtype), given.background.to(dtype), given.depth.to(dtype), tokens]
    rows, present = list(range(count)), None
    if guided:  # one call for both halves: the second without the reference
        fixed = [*(torch.cat([x, x]) for x in fixed[:3]), torch.cat([tokens, imitator.tokens(given.nothing)])]
        rows, present = rows * 2, torch.tensor([1.0] * count + [0.0] * count, device=model.device)
    bank = _read(imitator, given, 0, tokens, rows) if attend and once else None
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for i, t in enumerate(scheduler.timesteps, 1):
        if attend and not once:
            bank = _read(imitator, given, t, tokens, rows)
        scaled = scheduler.scale_model_input(latents, t)
        predicted = imitator(torch.cat([scaled, scaled]) if guided else scaled, t, *fixed, bank, present)
        with_reference, without = predicted.chunk(2) if guided else (predicted, None)
        predicted = without + guidance_scale * (with_reference - without) if guided else predicted
        x0 = denoised(scheduler, scaled, predicted, t)
        latents = scheduler.step(predicted, t, latents, **extra).prev_sample
        yield Look(i, len(scheduler.timesteps), int(t), latents, predicted, without, with_reference, x0)


def _read(imitator: Imitator, given: Conditions, t, tokens: torch.Tensor, rows: list[int]) -> Bank:
    """The references' bank, an item for each row of the batch."""
    return with_rows(imitator.read(given.reference.to(imitator.unet.dtype), t, tokens), rows)
