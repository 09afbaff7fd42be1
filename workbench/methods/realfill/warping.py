"""The references bent onto the target by homographies: a baseline, and what sampling may begin with."""

from collections.abc import Sequence

import torch

from workbench import check, metrics
from workbench import mask as masks
from workbench.lenses.correspondence import match
from workbench.methods.realfill.crops import check_references

NEAR = 0.25
"""Known pixels this near the hole tell how well a bent reference fits, as a share of the hole's area's root."""


def warp(
    target: torch.Tensor,
    mask: torch.Tensor,
    references: Sequence[torch.Tensor] | torch.Tensor,
    *,
    method: str = "sift",
    threshold: float = 3.0,
    agreement: float = 0.0,
    seed: int = 0,
    **options,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bends each reference onto the target by a homography between their matches; what they show of the hole is taken.

    Right for a flat scene or a camera that only turns; depth comes out doubled or broken. The reference that shows the
    known pixels round the hole best goes first, the next ones fill what it does not show:

    agreement = PSNR(bent reference, target) over known pixels near the hole

    The number of agreeing matches would choose wrongly: a row of equal windows agrees with itself one window on.

    Args:
        target, mask: (1, 3, H, W) and (1, 1, H, W), 1 = hole.
        references: (1, 3, H, W) each.
        method: of `wb.match`; points in the hole do not count.
        threshold, seed: of RANSAC.
        agreement: references below are left out, dB; 0 takes all that have a homography.
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
    check.number(agreement, "agreement", 0)
    out, rest = torch.where(mask > 0.5, torch.full_like(target, 0.5), target), mask.clone()
    near, found = masks.grow(mask, max(4, NEAR * mask.sum().sqrt().item())) - mask, []
    for reference in references:
        matches = match(
            out, reference, method, mask_a=1 - mask, ransac="homography", threshold=threshold, seed=seed, **options
        )
        if matches.geometry.matrix is not None:
            bent, seen = _bent(reference, matches.geometry, tuple(target.shape[-2:]))
            shown = near * seen
            level = metrics.psnr(bent, target, shown).item() if shown.any() else 0.0
            found += [(level, bent, seen)] if level >= agreement else []
    for _, bent, seen in sorted(found, key=lambda entry: -entry[0]):
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
