"""What RealFill has to beat with the same references, and what else a model that learnt a scene can paint.

Here: a homography. `exemplar` has the baseline that is shown one reference in place of a text, `dreambooth` the one
that learns all of them with a text-to-image model. A text alone is ``sample(pipe, target, mask, seeds,
prompt=scene.caption)``; patches are ``wb.inpaint(target, mask, "patchmatch", references=references)``. What DreamBooth
learns, whole pictures with nothing known of them, an inpainting model learns by ``fine_tune(..., mask_policy="none")``.
"""

from collections.abc import Sequence

import torch

from workbench import check
from workbench.lenses.correspondence import match
from workbench.methods.realfill.crops import check_references
from workbench.methods.realfill.fill import sample
from workbench.stepping.training import TrainingRun


def warp(
    target: torch.Tensor,
    mask: torch.Tensor,
    references: Sequence[torch.Tensor] | torch.Tensor,
    *,
    method: str = "sift",
    threshold: float = 3.0,
    seed: int = 0,
    **options,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bends each reference onto the target by a homography between their matches; what they show of the hole is taken.

    Right for a flat scene or a camera that only turns; depth comes out doubled or broken. The reference with the most
    agreeing matches goes first, the next ones fill what it does not show.

    Args:
        target, mask: (1, 3, H, W) and (1, 1, H, W), 1 = hole.
        references: (1, 3, H, W) each.
        method: of `wb.match`; points in the hole do not count.
        threshold, seed: of RANSAC.
        **options: of `wb.match`.

    Returns:
        The picture (1, 3, H, W), kept pixels bit-equal, mid grey where no reference shows anything; and that rest of
        the hole, (1, 1, H, W).

    Raises:
        ValueError: shapes, or no references.

    Example:
        >>> warped, rest = warp(scene.target, scene.masks["side"], scene.references)
        >>> wb.inpaint(warped, rest, "patchmatch")
    """
    check.mask(mask, check.image(target, "target"))
    references = check_references(references)
    if not references:
        raise ValueError("references is empty, expected at least one picture of the scene.")
    found = []
    for reference in references:
        matches = match(
            target, reference, method, mask_a=1 - mask, ransac="homography", threshold=threshold, seed=seed, **options
        )
        if matches.geometry.matrix is not None:
            found.append((int(matches.inliers.sum()), matches.geometry, reference))
    out, rest = torch.where(mask > 0.5, torch.full_like(target, 0.5), target), mask.clone()
    for _, geometry, reference in sorted(found, key=lambda entry: -entry[0]):
        bent, seen = _bent(reference, geometry, tuple(target.shape[-2:]))
        out = torch.where(rest * seen > 0.5, bent, out)
        rest = rest * (1 - seen)
    return out, rest


def _bent(reference: torch.Tensor, geometry, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A reference as the target's camera would see a plane: (1, 3, H, W), and where it shows something (1, 1, H, W)."""
    (height, width), (h, w) = size, reference.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    points = torch.stack([x, y], -1).view(-1, 2).double()  # (H W, 2), pixel middles
    depth = torch.cat([points, torch.ones_like(points[:, :1])], 1) @ geometry.matrix[2]  # (H W,), its sign: in front
    carried = geometry.carry(points)  # (H W, 2)
    front = torch.sign(depth) == torch.sign(depth.median())
    inside = front & (carried > 0).all(1) & (carried < torch.tensor([w, h])).all(1)
    grid = (carried / torch.tensor([w, h]) * 2 - 1).float().view(1, height, width, 2)
    grid = grid.nan_to_num(2.0).to(reference)
    bent = torch.nn.functional.grid_sample(reference, grid, padding_mode="border", align_corners=False).clamp(0, 1)
    return bent, inside.view(1, 1, height, width).to(reference)


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
    return sample(pipe, blank, everything, range(seed, seed + count), prompt=task.prompt, **given)
