"""RealFill from end to end: fine-tune, sample several seeds, keep the one that agrees best with the references."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch

from workbench import check, seams
from workbench.diffusion import sample_hole
from workbench.diffusion.filling import Sampling, crop_round_hole, paste
from workbench.diffusion.latents import masked_image
from workbench.diffusion.libraries import DDPMScheduler, quiet
from workbench.diffusion.lora import borrowed
from workbench.diffusion.pipelines import last_loaded
from workbench.image import from_signed
from workbench.methods.realfill.crops import check_references
from workbench.methods.realfill.ranking import Ranking, rank
from workbench.methods.realfill.task import PROMPT
from workbench.methods.realfill.tuning import fine_tune
from workbench.methods.realfill.warping import warp
from workbench.methods.result import Step
from workbench.stepping.training import TrainingRun

REPORTS = 20
"""How often fine-tuning tells how far it is."""
AT_ONCE = 8
"""Seeds that are sampled side by side."""
AGREEMENT = 19.0
"""A bent reference that shows the known pixels round the hole worse than this, in dB, is no start."""
RANKED_BY = ("sift", "dift")
"""What `fill` can rank by; `rank` takes more."""
OF_FILL = ("seed", "steps", "prompt", "context", "side")
"""What is said to `fill` itself, not in ``tuning``."""
SHOWN = 0.9
"""Bent references that show less than this share of the hole are no start."""


def fill(
    image: torch.Tensor,
    mask: torch.Tensor,
    *,
    seed: int = 0,
    references: Sequence[torch.Tensor] | torch.Tensor | None = None,
    pipe="tiny-inpaint",
    training: TrainingRun | None = None,
    prompt: str = PROMPT,
    steps: int = 120,
    tuning: dict | None = None,
    samples: int = 4,
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    scheduler="ddpm",
    start: torch.Tensor | str | None = None,
    strength: float = 0.1,
    rank_by: str = "sift",
    context: float = 0.5,
    side: int | None = None,
    preview_every: int = 10,
) -> Iterator[Step]:
    """RealFill: an inpainting model learns the scene from other photographs of it, and then fills the hole.

    `fine_tune`, `sample`, `rank`, one after the other. A large photograph is cropped round the hole and the result put
    back at its own size; for outpainting enlarge it first, `wb.image.pad`. ``wb.inpaint(..., feather=8)`` hides what
    the autoencoder changes along the edge. Afterwards the pipeline is what it was.

    Args:
        image: the target, (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        seed: of everything; the samples' seeds count up from it.
        references: 1 to 5 other pictures of the scene, (1, 3, H, W) each, any sizes. [] learns from the target alone.
        pipe: an inpainting pipeline, or a name that `wb.load_pipeline` takes.
        training: a run of `fine_tune` on this target: sampled from as it stands; pipe, prompt, side, steps and
            tuning do not count.
        prompt: what the scene is called.
        steps: of fine-tuning; 0: the pipeline as it is, which is what RealFill has to beat.
        tuning: what else `fine_tune` takes, by name.
        samples: how many seeds; the best is the result. The paper draws 64.
        num_inference_steps: the paper takes 200; small models are better with few.
        guidance_scale: up to 1 there is none, as in the paper.
        scheduler: "ddpm" as in the paper, "pipeline" for the pipeline's own, or any scheduler of diffusers.
        start: what the hole holds under the first noise, (1, 3, H, W), such as another method's result: that of
            "patchmatch" with the same references where the scene is deep. "warp": the references bent onto the target,
            where one of them fits the known pixels round the hole and they show nearly all of it, else pure noise.
            None: pure noise, as in the paper.
        strength: how much noise a start gets, as in `sample_hole`; so little keeps nearly all of it.
        rank_by: how `rank` matches, "sift" or "dift".
        context: room round the hole, as a share of its longer side.
        side: learns and samples crops of about side x side pixels; None: of the model's own size. Half of it is a
            quarter of the cost.
        preview_every: steps of sampling from look to look.

    Yields:
        `Step`: loss (n,) while it learns; denoised (B, 4, h, w) while it samples; in the end samples (S, 3, h, w), best
        first, and counts (S, R), the matches of each with each reference.

    Raises:
        ValueError: no pixel is kept, shapes or ranges, or a pipeline that has a LoRA; before anything is learnt.
        NotAvailable: no such pipeline on this machine.

    Source: RealFill (Tang et al., SIGGRAPH 2024). Differs in defaults that suit small models: fewer steps and samples.
        ``start`` is ours: in a minute a small model learns how a scene looks, hardly where each thing stands.
    """
    check.leaves_something(mask)
    references = check_references(references)
    check.integer(steps, "steps", 0)
    check.integer(samples, "samples", 1)
    check.integer(num_inference_steps, "num_inference_steps", 1)
    check.integer(preview_every, "preview_every", 1)
    check.choice(rank_by, "rank_by", RANKED_BY)
    own = [name for name in tuning or {} if name in OF_FILL]
    if own:
        raise ValueError(f"tuning holds {', '.join(own)}, expected that beside it: fill(..., {own[0]}=...).")
    run = training
    if run is None:
        pipe = last_loaded(pipe) if isinstance(pipe, str) else pipe
    else:
        pipe, prompt, side = run.pipe, run.task.prompt, run.task.side
    scheduler = _scheduler(pipe, scheduler)
    seeds = [(seed + k) % 2**63 for k in range(samples)]
    start = _begun(start, image, mask, references, seed)
    if start is not None:
        check.same_size(check.image(start, "start"), image, "start", "image")
        if int(num_inference_steps * check.number(strength, "strength", 0, 1)) < 1:
            raise ValueError(
                f"strength is {strength} of {num_inference_steps} steps, which leaves none, expected at least "
                f"{1 / num_inference_steps:.3g}."
            )
    taken = num_inference_steps if start is None else min(num_inference_steps, int(num_inference_steps * strength))
    looks = math.ceil(taken / preview_every) * math.ceil(samples / AT_ONCE)
    reports = min(steps, REPORTS) if training is None else 0
    total = reports + looks + 1
    given = {"prompt": prompt, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
             "scheduler": scheduler, "context": context, "side": side, "preview_every": preview_every,
             "start": start, "strength": 1.0 if start is None else strength}  # fmt: skip
    advice = "Give its run as training=, or take it out with remove_lora"
    with borrowed(pipe, advice) if training is None else nullcontext():
        cut, number, found = crop_round_hole(pipe, image, mask, context, side=side), 0, []
        if training is None and steps:
            options = {"memory": 16, "context": context, "side": side, **(tuning or {})}
            run = fine_tune(pipe, references, image, mask, seed=seed, prompt=prompt, steps=steps, **options)
            shown = cut.image * (1 - cut.mask) + 0.5 * cut.mask
            for number in range(1, reports + 1):
                run.goto(steps * number // reports)
                losses = torch.tensor([state.loss for state in run.states[1:]])
                yield Step(number, total, f"learning, {run.i} of {steps}", shown, {"loss": losses}, cut.box)
        for look, done in _looks(pipe, image, mask, seeds, given):
            number += 1
            label = f"sampling, step {look.i} of {look.total}, t = {look.t}"
            yield Step(number, total, label, look.image[:1], {"denoised": look.denoised}, look.box)
            found += [look.image] if done else []
        pictures = torch.cat(found)  # (S, 3, h, w)
        ranking = rank(seams.seamless(cut.image.expand_as(pictures), pictures, cut.mask), references, cut.mask,
                       method=rank_by, pipe=pipe) if references else None  # fmt: skip
        yield _last(total, pictures, ranking, cut.box)


def sample(
    pipe,
    image: torch.Tensor,
    mask: torch.Tensor,
    seeds: Sequence[int],
    *,
    prompt: str = PROMPT,
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    scheduler="ddpm",
    context: float = 0.5,
    side: int | None = None,
    start: torch.Tensor | None = None,
    strength: float = 1.0,
) -> torch.Tensor:
    """Fills the hole once for each seed, from pure noise; kept pixels are put back without a seam.

    Args:
        pipe: as it is: with the LoRA of a run (``run.pipe``), or without. One of 4 channels blends latents.
        image, mask: the target, (1, 3, H, W) and (1, 1, H, W).
        seeds: each gives what it gives alone.
        prompt, num_inference_steps, guidance_scale, scheduler, context, side: as in `fill`.
        start, strength: not from pure noise but from a picture under less of it, as in `sample_hole`.

    Returns:
        (S, 3, H, W).

    Example:
        >>> results = sample(run.pipe, target, mask, range(16))
        >>> rank(results, references, mask, keep=4).show()
    """
    seeds = list(seeds)
    if not seeds:
        raise ValueError("seeds is empty, expected at least one.")
    given = {"prompt": prompt, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
             "scheduler": scheduler, "context": context, "side": side, "preview_every": num_inference_steps,
             "start": start, "strength": strength}  # fmt: skip
    pasted = [paste(image, look) for look, done in _looks(pipe, image, mask, seeds, given) if done]
    filled = torch.cat(pasted)  # (S, 3, H, W)
    return seams.seamless(image.expand_as(filled), filled, mask)


def _begun(start, image: torch.Tensor, mask: torch.Tensor, references, seed: int) -> torch.Tensor | None:
    """What the hole holds under the first noise, (1, 3, H, W); None: nothing but noise."""
    if not isinstance(start, str):
        return start
    check.choice(start, "start", ("warp",))
    if not references:
        return None
    warped, rest = warp(image, mask, references, agreement=AGREEMENT, seed=seed)
    if rest.sum() > (1 - SHOWN) * mask.sum():
        return None
    return from_signed(masked_image(warped, rest, "smooth"))


def _looks(pipe, image, mask, seeds: list[int], given: dict) -> Iterator[tuple[Sampling, bool]]:
    """Looks at the sampling of some seeds at once, then of the next ones; and whether each is the last of its seeds."""
    given = {**given, "scheduler": _scheduler(pipe, given["scheduler"])}
    for first in range(0, len(seeds), AT_ONCE):
        for look in sample_hole(pipe, image, mask, seed=seeds[first : first + AT_ONCE], **given):
            yield look, look.i == look.total


def _scheduler(pipe, wanted):
    """A scheduler of its own: sampling leaves the pipeline's alone."""
    if isinstance(wanted, str):
        check.choice(wanted, "scheduler", ("ddpm", "pipeline"))
        if wanted == "pipeline":
            return copy.deepcopy(pipe.scheduler)
        with quiet():
            return DDPMScheduler.from_config(pipe.scheduler.config)
    if not hasattr(wanted, "set_timesteps"):
        kind = type(wanted).__name__
        raise TypeError(f"scheduler is a {kind}, expected 'ddpm', 'pipeline' or a scheduler of diffusers.")
    return copy.deepcopy(wanted)


def _last(total: int, pictures: torch.Tensor, ranking: Ranking | None, box) -> Step:
    """The best sample, with all samples and their matches."""
    if ranking is None:
        arrays = {"samples": pictures, "counts": torch.zeros(len(pictures), 0, dtype=torch.int64)}
        return Step(total, total, "one of the samples, nothing to rank by", pictures[:1], arrays, box)
    order = list(ranking.order)
    arrays = {"samples": pictures[order], "counts": ranking.counts[order]}
    return Step(total, total, ranking.told, pictures[order[:1]], arrays, box, ranking.told if ranking.doubt else "")
