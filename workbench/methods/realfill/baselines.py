"""What RealFill has to beat with the same references, and what else a model that learnt a scene can paint.

`warp` bends them by homographies. `exemplar` has the baseline that is shown one reference in place of a text,
`dreambooth` the one that learns all of them with a text-to-image model. A text alone is ``sample(pipe, target, mask,
seeds, prompt=scene.caption)``; patches are ``wb.inpaint(target, mask, "patchmatch", references=references)``. What
DreamBooth learns, whole pictures with nothing known of them, an inpainting model learns by ``fine_tune(...,
mask_policy="none")``.
"""

import torch

from workbench import check
from workbench.methods.realfill.fill import sample
from workbench.stepping.training import TrainingRun


def scene_variants(
    training: TrainingRun,
    count: int = 4,
    *,
    seed: int = 0,
    num_inference_steps: int = 50,
    guidance_scale: float = 1.0,
    scheduler="ddpm",
) -> torch.Tensor:
    """Pictures of the scene from nothing: all is hole, and what was learnt paints it.

    Args:
        training: a run of `fine_tune`.
        count: how many.
        seed: of the first; the others count up.
        num_inference_steps, guidance_scale, scheduler: as in `fill`.

    Returns:
        (count, 3, h, w) at the size that was learnt.

    Source: RealFill (Tang et al., SIGGRAPH 2024), figure 11.
    """
    check.integer(count, "count", 1)
    task, pipe = training.task, training.pipe
    size = tuple(task.images.shape[-2:])
    blank, everything = torch.full((1, 3, *size), 0.5), torch.ones(1, 1, *size)
    given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale, "scheduler": scheduler}
    return sample(pipe, blank, everything, range(seed, seed + count), prompt=task.prompt, side=task.side, **given)
