"""`fine_tune`: a training run on a scene."""

import inspect
from collections.abc import Sequence

import torch

from workbench import check
from workbench.diffusion.lora import ATTENTION
from workbench.diffusion.lora_task import LoraTask
from workbench.methods.realfill.task import PROMPT, RealFillTask
from workbench.stepping.training import TrainingRun, TrainingSettings
from workbench.stepping.training.state import SETTINGS

PUBLISHED = {
    "steps": 2000, "batch_size": 16, "learning_rate": 2e-4, "text_learning_rate": 4e-5, "rank": 8, "lora_alpha": 16,
    "targets": ATTENTION, "betas": (0.9, 0.999), "dropout_of": "elements", "holes_each": None,
}  # fmt: skip
"""The published numbers, for Stable Diffusion 2 inpainting: ``fine_tune(pipe, ..., **PUBLISHED)``. Without them the
defaults are for models as small as the bundled ones."""
_RUN = ("memory", "snapshot_every", "exact", "accelerator")


def fine_tune(
    pipe,
    references: Sequence[torch.Tensor],
    target: torch.Tensor,
    mask: torch.Tensor,
    *,
    seed: int = 0,
    prompt: str = PROMPT,
    steps: int | None = 120,
    batch_size: int = 8,
    learning_rate: float = 1e-3,
    text_learning_rate: float | None = None,
    gradient_checkpointing: bool = False,
    **options,
) -> TrainingRun:
    """A run that teaches an inpainting pipeline a scene; nothing is computed before its first step.

    The pipeline samples with the run's weights at its cursor. ``run.run(run.total)`` goes to the end; what else a run
    does, see `TrainingRun`. ``lora.save_lora(run.pipe, file)`` writes what was learnt.

    Args:
        pipe: an inpainting pipeline of 9 channels; it gets the LoRA.
        references: 1 to 5 other pictures of the scene, (1, 3, H, W) each, any sizes.
        target: (1, 3, H, W), with the hole of ``mask`` (1, 1, H, W), 1 = hole.
        seed: of everything: LoRA, crops, holes, order, noise.
        prompt: what the scene is called.
        steps: where the run ends; None: nowhere.
        batch_size: items in an update, as many as said: pictures come up several times.
        learning_rate: of the U-Net's LoRA.
        text_learning_rate: of the text encoder's; None takes a fifth, as published.
        gradient_checkpointing: computes activations twice instead of keeping them.
        **options: of `RealFillTask` (crops, target_mask, rank ...), of `TrainingSettings` (schedule, clip, precision
            ...), and of `TrainingRun` (memory, snapshot_every, exact, accelerator). `PUBLISHED` holds the paper's.

    Returns:
        `TrainingRun` before its first step.

    Raises:
        ValueError: shapes or ranges. TypeError: no such option.

    Source: RealFill (Tang et al., SIGGRAPH 2024), section 3.3 and appendix A.1.

    Example:
        >>> run = fine_tune(wb.load_pipeline("tiny-inpaint"), scene.references, scene.target, scene.masks["side"])
        >>> run.run(run.total)
    """
    known = _options()
    for name in options:
        if name not in known:
            raise TypeError(f"fine_tune has no option {name!r}. It takes: {', '.join(known)}.")
    rate = check.number(learning_rate, "learning_rate", 0)
    if text_learning_rate is not None:
        if not rate:
            raise ValueError(
                f"learning_rate is 0 beside text_learning_rate {text_learning_rate}, expected more than 0."
            )
        options["text_rate"] = check.number(text_learning_rate, "text_learning_rate", 0) / rate
    chosen = {name: options.pop(name) for name in list(options) if name in SETTINGS}
    run = {name: options.pop(name) for name in list(options) if name in _RUN}
    settings = TrainingSettings().changed(
        **chosen, seed=seed, steps=steps, batch_size=batch_size, learning_rate=learning_rate
    )
    task = RealFillTask(pipe, references, target, mask, prompt, seed=seed, **options)
    if gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    else:
        pipe.unet.disable_gradient_checkpointing()
    return TrainingRun(task, settings, **run)


def _options() -> list[str]:
    """What fine_tune takes beside its own parameters."""
    own = [
        name
        for kind in (RealFillTask, LoraTask)
        for name, p in inspect.signature(kind.__init__).parameters.items()
        if p.kind is p.KEYWORD_ONLY and name not in ("seed", "holes")
    ]
    taken = list(inspect.signature(fine_tune).parameters)
    return [name for name in dict.fromkeys([*own, *SETTINGS, *_RUN]) if name not in taken]
