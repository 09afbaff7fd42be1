"""The references bent onto the target by homographies: a baseline, and what sampling may begin with."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from workbench import check, metrics
from workbench import mask as masks
from workbench.diffusion.latents import masked_image
from workbench.image import from_signed
from workbench.lenses.correspondence import estimate_geometry, match
from workbench.lenses.correspondence.matches import Matches
from workbench.methods.realfill.crops import check_references

NEAR = 0.25
"""Known pixels this near the hole tell how well a bent reference fits, as a share of the hole's area's root."""
THRESHOLDS = (1.5, 3.0, 6.0)
"""Of RANSAC, in pixels: each is tried, and that homography is kept whose picture fits best."""
TENFOLD = 5.0
"""A reference that fits better by so many dB counts ten times as much."""


class Bent(NamedTuple):
    """A reference as the target's camera would see a plane.

    Args:
        agreement: how well it fits the known pixels near the hole, PSNR in dB.
        image: (1, 3, H, W), with the light of the target there: one shift for each colour.
        seen: (1, 1, H, W), 1 where it shows something.
    """

    agreement: float
    image: torch.Tensor
    seen: torch.Tensor


def warp(
    target: torch.Tensor,
    mask: torch.Tensor,
    references: Sequence[torch.Tensor] | torch.Tensor,
    *,
    method: str = "sift",
    agreement: float = 0.0,
    rounds: int = 3,
    seed: int = 0,
    **options,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bends each reference onto the target by a homography between their matches; their mean fills the hole.

    Right for a flat scene or a camera that only turns; depth comes out doubled or broken. Each reference counts by how
    well it fits the known pixels round the hole:

    result = sum w_r bent_r / sum w_r over those r that show the pixel,  w_r = 10^(agreement_r / 5 dB),
    agreement_r = PSNR(bent_r, target) over known pixels near the hole

    The number of agreeing matches would choose wrongly: a row of equal windows agrees with itself one window on. An
    empty hole spoils the descriptors of points beside it, so matching is repeated with the hole filled by what the
    first round gave.

    Args:
        target, mask: (1, 3, H, W) and (1, 1, H, W), 1 = hole.
        references: (1, 3, H, W) each.
        method: of `wb.match`; points in the hole do not count.
        agreement: references below are left out, dB; 0 takes all that have a homography.
        rounds: how often it is matched.
        seed: of RANSAC.
        **options: of `wb.match`.

    Returns:
        The picture (1, 3, H, W), kept pixels bit-equal, mid grey where no reference shows anything; and that rest of
        the hole, (1, 1, H, W).

    Raises:
        ValueError: shapes, or no references.

    Source: TransFill (Zhou et al., CVPR 2021) bends by several homographies, relights, and merges what comes out by
        trained networks; here one homography a reference, a shift of each colour, and a mean.

    Example:
        >>> warped, rest = warp(scene.target, scene.masks["side"], scene.references)
        >>> wb.inpaint(warped, rest, "patchmatch")
    """
    check.mask(mask, check.image(target, "target"))
    references = check_references(references)
    if not references:
        raise ValueError("references is empty, expected at least one picture of the scene.")
    check.number(agreement, "agreement", 0)
    check.integer(rounds, "rounds", 1)
    near = masks.grow(mask, max(4, NEAR * mask.sum().sqrt().item())) - mask
    view, rest = from_signed(masked_image(target, mask, "smooth")).to(target), mask
    best: list[Bent | None] = [None] * len(references)
    for _ in range(rounds):
        for k, reference in enumerate(references):
            matches = match(view, reference, method, mask_a=1 - mask, **options)
            tried = [best[k], *(_fitted(reference, target, near, matches, t, seed) for t in THRESHOLDS)]
            best[k] = max((one for one in tried if one), key=lambda one: one.agreement, default=None)
        found = [one for one in best if one and one.agreement >= agreement]
        if not found:
            break
        mean, seen = _mean(found)
        view, rest = torch.where(mask * seen > 0.5, mean, view), mask * (1 - seen)
    out = torch.where(rest > 0.5, torch.full_like(target, 0.5), view)
    return torch.where(mask > 0.5, out, target), rest


def _fitted(reference, target, near, matches: Matches, threshold: float, seed: int) -> Bent | None:
    """A reference bent by the homography that most matches agree with, and relit; None where there is none."""
    geometry = estimate_geometry(matches.points_a, matches.points_b, threshold=threshold, seed=seed)
    if geometry.matrix is None:
        return None
    bent, seen = _bent(reference, geometry, tuple(target.shape[-2:]))
    both = near * seen
    if not both.any():
        return Bent(0.0, bent, seen)
    bent = (bent + ((target - bent) * both).sum((2, 3), keepdim=True) / both.sum()).clamp(0, 1)
    return Bent(metrics.psnr(bent, target, both).item(), bent, seen)


def _mean(found: list[Bent]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of bent references, weighted, (1, 3, H, W), and where any of them shows something, (1, 1, H, W)."""
    most = max(one.agreement for one in found)
    weights = [10 ** ((one.agreement - most) / TENFOLD) * one.seen for one in found]
    total = sum(weights)
    mean = sum(w * one.image for w, one in zip(weights, found, strict=True)) / total.clamp(min=1e-12)
    return mean, (total > 0).to(mean)


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
