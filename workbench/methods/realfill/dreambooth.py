"""The DreamBooth baseline: a text-to-image model learns the references, and fills the hole by blended latents.

It learns whole pictures, and nothing of the target: that a hole has to go with what is around it, it is never told.
"""

from collections.abc import Sequence

import torch

from workbench.diffusion.filling import crop_round_hole
from workbench.diffusion.lora import borrowed
from workbench.diffusion.lora_task import LoraTask
from workbench.methods.realfill.crops import check_references, cut_crops
from workbench.methods.realfill.fill import sample
from workbench.methods.realfill.task import PROMPT
from workbench.stepping.training import TrainingRun

LEARNS = {"train_text": True, "text_rate": 0.2, "lora_dropout": 0.1}
"""Of the `LoraTask`, as RealFill has it: the two differ in what they learn, not in how much."""


def learn_subject(
    pipe,
    references: Sequence[torch.Tensor] | torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    *,
    seed: int = 0,
    prompt: str = PROMPT,
    steps: int | None = 300,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    memory: float = 16,
    crops: int = 8,
    context: float = 0.5,
    side: int | None = None,
    **options,
) -> TrainingRun:
    """A run that teaches a text-to-image pipeline what the references show; nothing is computed before its first step.

    loss = mean |eps - eps_theta(z_t, t, "a photo of sks")|^2, z of crops of the references

    ``run.run(run.total)`` goes to the end; then ``sample(run.pipe, target, mask, seeds)`` fills.

    Args:
        pipe: a text-to-image pipeline of 4 channels; it gets the LoRA.
        references: 1 to 5 pictures of the scene, (1, 3, H, W) each, any sizes.
        target, mask: (1, 3, H, W) and (1, 1, H, W), 1 = hole; they set the crops' size, nothing of them is learnt.
        seed: of everything: LoRA, crops, order, noise.
        prompt: what the scene is called.
        steps: where the run ends; None: nowhere.
        batch_size, learning_rate, memory: of the `TrainingRun`.
        crops, context, side: as in `RealFillTask`.
        **options: of `LoraTask`: rank, targets, prompt_dropout ...; `LEARNS` unless told.

    Raises:
        ValueError: shapes or ranges, no references, or a pipeline of another kind.

    Source: Ruiz et al., DreamBooth, CVPR 2023. Differs: LoRA instead of all weights; no pictures of a class are learnt
        beside the references, as a scene has none.

    Example:
        >>> run = learn_subject(wb.load_pipeline("tiny-t2i"), scene.references, scene.target, scene.masks["side"])
        >>> run.run(300)
    """
    references = check_references(references)
    if not references:
        raise ValueError("references is empty, expected at least one picture of the scene.")
    cut = crop_round_hole(pipe, target, mask, context, channels=(4,), side=side)
    made = cut_crops(references, target, mask, cut, crops, seed)
    rows = [row for k in range(len(references)) for row in made.of(k)]  # all but the target's
    task = LoraTask(pipe, made.images[rows], prompt, seed=seed, **LEARNS | options)
    settings = {"seed": seed, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    return TrainingRun(task, memory=memory, **settings)


def dreambooth(
    pipe,
    target: torch.Tensor,
    mask: torch.Tensor,
    references: Sequence[torch.Tensor] | torch.Tensor,
    seeds: Sequence[int],
    *,
    steps: int = 300,
    tuning: dict | None = None,
    seed: int = 0,
    prompt: str = PROMPT,
    context: float = 0.5,
    side: int | None = None,
    **sampling,
) -> torch.Tensor:
    """Fills the hole with a text-to-image model that learnt the references: DreamBooth, then blended latent diffusion.

    Afterwards the pipeline is what it was.

    Args:
        pipe: a text-to-image pipeline of 4 channels, without a LoRA.
        target, mask: (1, 3, H, W) and (1, 1, H, W), 1 = hole.
        references: (1, 3, H, W) each.
        seeds: of the samples; each gives what it gives alone.
        steps: of learning.
        tuning: what else `learn_subject` takes, by name.
        seed: of learning.
        prompt, context, side: of both, as in `fill`.
        **sampling: of `sample`: num_inference_steps, guidance_scale, scheduler, start, strength.

    Returns:
        (S, 3, H, W), kept pixels put back.

    Raises:
        ValueError: shapes or ranges, no references, a pipeline of another kind or with a LoRA.

    Source: RealFill (Tang et al., SIGGRAPH 2024), figure 10, which fills so at strengths 1, 0.8 and 0.5; Ruiz et al.,
        CVPR 2023; Avrahami et al., SIGGRAPH 2023. What differs of them is told at `learn_subject` and `sample_hole`.

    Example:
        >>> fills = dreambooth(wb.load_pipeline("tiny-t2i"), scene.target, mask, scene.references, range(4))
    """
    given = {"prompt": prompt, "context": context, "side": side}
    with borrowed(pipe):
        run = learn_subject(pipe, references, target, mask, seed=seed, steps=steps, **given, **(tuning or {}))
        run.run(steps)
        return sample(pipe, target, mask, seeds, **given, **sampling)
