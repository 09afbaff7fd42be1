"""Pictures whose correspondence is known: rendered scenes, clips, and a measured stereo pair."""

from dataclasses import dataclass, field

import numpy as np
import torch

from workbench import check, data
from workbench.image import fit, load_image
from workbench.lenses.correspondence.dense import cell_middles
from workbench.world import reader
from workbench.world.geometry import Correspondences

SMOOTH = 1.0
"""Truth is interpolated between pixels whose motions differ by at most so many pixels: not across an object's edge."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two pictures and the truth about them.

    Args:
        name: of the pair.
        image_a, image_b: (1, 3, H, W).
        truth: where each pixel of a is in b, points (H, W, 2) and visible (H, W).
        group: what kind of pair it is; `evaluate` can tell groups apart.
    """

    name: str
    image_a: torch.Tensor = field(repr=False)
    image_b: torch.Tensor = field(repr=False)
    truth: Correspondences = field(repr=False)
    group: str = ""


def scene_pair(name: str, reference: int = 0, *, from_target: bool = False) -> Pair:
    """A reference and the target of a rendered scene, with their exact correspondence.

    Args:
        name: one of `wb.data.scenes()`.
        reference: which of its references.
        from_target: a is the target and b the reference; otherwise the other way round.

    Returns:
        `Pair`; its group is the scene's gap, "small" for none.
    """
    scene = reader.scene(name)
    truth = scene.correspondences(reference, from_target)
    images = scene.references[reference], scene.target
    a, b = images[::-1] if from_target else images
    arrow = f"target to {reference}" if from_target else f"{reference} to target"
    return Pair(f"{name}, {arrow}", a, b, truth, scene.gap or "small")


def clip_pair(name: str, a: int, b: int) -> Pair:
    """Two frames of a rendered clip, moving things followed; group "clip"."""
    clip = reader.clip(name)
    truth = clip.correspondences(a, b)  # checks a and b
    return Pair(f"{name}, frame {a} to {b}", clip.frames[a : a + 1], clip.frames[b : b + 1], truth, "clip")


def stereo_pair(max_side: int | None = None) -> Pair:
    """The motorcycle's left and right view with the measured disparity: (x, y) is at (x - d, y).

    A point counts as visible when nothing nearer (of larger disparity, by more than a pixel) lands on its place.

    Args:
        max_side: pictures and truth are made smaller until no side is longer than so many pixels.

    Source: Scharstein et al., GCPR 2014.
    """
    disparity = data.disparity()[0, 0].numpy()  # (H, W), NaN where unknown
    height, width = disparity.shape
    y, x = np.mgrid[:height, :width] + 0.5
    there = x - disparity
    visible = np.isfinite(there) & (there >= 0)
    nearest = np.zeros((height, width), np.float32)
    rows, landed = np.nonzero(visible)[0], there[visible]
    for edge in (-0.5, 0.4999):  # a pixel covers one pixel's width, of up to two columns
        columns = np.clip(np.floor(landed + edge), 0, width - 1).astype(int)
        np.maximum.at(nearest, (rows, columns), disparity[visible])
    visible[visible] = disparity[visible] >= nearest[rows, np.floor(landed).astype(int)] - 1
    points = np.stack([there, np.where(np.isfinite(there), y, np.nan)], -1).astype(np.float32)  # (H, W, 2)
    truth = Correspondences(torch.from_numpy(points), torch.from_numpy(visible))
    a, b = load_image("motorcycle_left"), load_image("motorcycle_right")
    if max_side is not None:
        a, b = fit(a, max_side), fit(b, max_side)
        truth = _resized(truth, tuple(a.shape[-2:]))
    return Pair("motorcycle", a, b, truth, "stereo")


def truth_at(points, truth: Correspondences) -> tuple[torch.Tensor, torch.Tensor]:
    """Where points of a are in b, also between the middles of pixels.

    The motion is interpolated linearly between the four nearest pixels, leaving out those that are hidden in b or move
    otherwise than the pixel the point lies in (by more than `SMOOTH`).

    Args:
        points: (N, 2) as (x, y) in pixels of a.
        truth: points (H, W, 2), visible (H, W).

    Returns:
        Points (N, 2) of b, NaN where unknown, and whether they are visible there (N,), both on the CPU.
    """
    points = _tensor(points)
    height, width = truth.visible.shape
    own = _pixel(points, width, height)
    known = truth.visible & truth.points.isfinite().all(-1)
    motion = truth.points.double() - cell_middles((height, width), (height, width)).view(height, width, 2).double()
    visible = known[own[:, 1], own[:, 0]]
    base = motion[own[:, 1], own[:, 0]]  # (N, 2)
    corner = (points - 0.5).floor()
    total, weights = torch.zeros_like(points), torch.zeros_like(points[:, :1])
    for dx in (0, 1):
        for dy in (0, 1):
            near = corner + torch.tensor([dx, dy])
            weight = (1 - (points - 0.5 - near).abs()).clamp(min=0).prod(1, keepdim=True)  # (N, 1)
            at = _pixel(near + 0.5, width, height)
            here = motion[at[:, 1], at[:, 0]]
            same = known[at[:, 1], at[:, 0]] & ((here - base).norm(dim=1) <= SMOOTH)
            weight = weight * same[:, None]
            total, weights = total + weight * here.nan_to_num(), weights + weight
    moved = torch.where(weights > 0, total / weights.clamp(min=1e-12), base)
    return points + moved, visible


def _resized(truth: Correspondences, size: tuple[int, int]) -> Correspondences:
    """The truth between both pictures made smaller alike."""
    scale = torch.tensor([n / m for n, m in zip(truth.visible.shape[::-1], size[::-1], strict=True)]).double()
    found, visible = truth_at(cell_middles(size, size).double() * scale, truth)
    return Correspondences((found / scale).float().view(*size, 2), visible.view(size))


def _pixel(points: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """(N, 2) int64: column and row of the pixel each point lies in."""
    return torch.stack([points[:, 0].floor().clamp(0, width - 1), points[:, 1].floor().clamp(0, height - 1)], 1).long()


def _tensor(points) -> torch.Tensor:
    """(N, 2) float64 on the CPU."""
    if isinstance(points, torch.Tensor):
        points = points.detach().cpu().numpy()
    return torch.from_numpy(check.points(points, at_least=0))
