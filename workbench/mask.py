"""Masks: draw them, draw them at random, change them, shrink them to the latent grid.

A mask is float32 (B, 1, H, W), 1 = hole = repaint, 0 = keep. A pixel belongs to a shape when its middle does; see
`workbench.raster`.
"""

import math
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from workbench import check, raster
from workbench.image import load_grey, save_image

RATIO_BINS = ((0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6))
"""The hole ratios by which irregular masks are usually reported (Liu et al., ECCV 2018)."""


# Load and save


def load_mask(source, *, channel: str | None = None) -> torch.Tensor:
    """A mask from a file: bright (at least half) = hole.

    Published mask files are often RGBA with nothing in their alpha: the luminance is read unless only the
    transparency varies. Where a file holds the opposite (white = keep), pass it on to `from_keep_mask`.

    Args:
        source: path, bytes, PIL image, array or tensor, as in `wb.load_image`.
        channel: "luminance" or "alpha", where both vary.

    Returns:
        float32 (1, 1, H, W), 0 or 1.

    Raises:
        ImageFileError, FileNotFoundError, ValueError, TypeError: as `wb.load_image` does.
        ValueError: bytes of 0 and 1, which would all count as dark.
    """
    grey = load_grey(source, channel=channel)
    if 0 < grey.max() <= 1 / 255:
        raise ValueError("the brightest pixel is 1 of 255, expected 255 for a hole. Multiply by 255, or give bool.")
    return (grey >= 0.5).float()


def save_mask(mask: torch.Tensor, path) -> Path:
    """Writes one mask (1, 1, H, W) as a grey PNG, white = hole. Raises ValueError for any other ending."""
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{Path(path).name!r} does not end in .png, expected PNG: other formats blur the edge.")
    return save_image(check.mask(mask, soft=True), path)


def from_keep_mask(keep: torch.Tensor) -> torch.Tensor:
    """Turns the opposite convention (1 = keep, 0 = hole) into ours: 1 - keep."""
    return 1 - check.mask(keep, name="keep")


# Shapes


def box(size, box) -> torch.Tensor:
    """A rectangle.

    Args:
        size: (H, W) of the mask.
        box: (x0, y0, x1, y1) in pixels, end excluded; what lies outside the picture is cut off.

    Returns:
        float32 (1, 1, H, W).

    Example:
        >>> box((4, 6), (1, 1, 3, 4)).sum().item()
        6.0
    """
    return _full(size, raster.box_patch(size, box))


def ellipse(size, box) -> torch.Tensor:
    """The ellipse that just fits into a box (x0, y0, x1, y1). Returns float32 (1, 1, H, W)."""
    return _full(size, raster.ellipse_patch(size, box))


def polygon(size, points) -> torch.Tensor:
    """A polygon with straight sides, closed by itself; where it crosses itself the even-odd rule holds.

    Args:
        size: (H, W) of the mask.
        points: at least three (x, y).

    Returns:
        float32 (1, 1, H, W).
    """
    return _full(size, raster.polygon_patch(size, points, rule="even-odd"))


def lasso(size, points) -> torch.Tensor:
    """Everything a free-hand path goes round, and the path itself.

    Unlike `polygon`, loops that overlap stay filled (non-zero winding rule), and a path that encloses
    nothing still marks the pixels it runs over.

    Args:
        size: (H, W) of the mask.
        points: the path as (x, y), closed by itself.

    Returns:
        float32 (1, 1, H, W).
    """
    return _full(size, raster.lasso_patch(size, points))


def stroke(size, points, radius: float) -> torch.Tensor:
    """A brush drawn along a path: every pixel no farther than ``radius`` from it.

    Args:
        size: (H, W) of the mask.
        points: the path as (x, y); one point makes a dot.
        radius: in pixels, at least 0.5.

    Returns:
        float32 (1, 1, H, W).
    """
    return _full(size, raster.stroke_patch(size, points, radius))


def flood(image: torch.Tensor, point: tuple[float, float], tolerance: float = 0.1) -> torch.Tensor:
    """The connected area of similar colour round a point (a paint bucket).

    Args:
        image: (1, 3, H, W).
        point: (x, y) inside the picture.
        tolerance: largest difference in any channel from the colour at the point, 0 to 1.

    Returns:
        float32 (1, 1, H, W).
    """
    check.image(image)
    check.number(tolerance, "tolerance", 0, 1)
    x, y = check.points([point], "point")[0]
    height, width = image.shape[-2:]
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"point is ({x:g}, {y:g}), expected (x, y) inside the picture of {width} x {height} pixels.")
    colour = image[0, :, int(y), int(x)]  # (3,)
    similar = ((image[0] - colour[:, None, None]).abs().amax(0) <= tolerance + 1e-6).cpu().numpy()  # (H, W)
    labels, _ = ndimage.label(similar)
    return torch.from_numpy((labels == labels[int(y), int(x)]).astype(np.float32))[None, None]  # (1, 1, H, W)


# Random holes and fixed layouts


def irregular(size, ratio=0.35, seed: int = 0) -> torch.Tensor:
    """Free-form brush strokes that cover a wanted share of the picture.

    Args:
        size: (H, W) of the mask.
        ratio: the share of hole pixels, 0 to 1; or a bin (low, high), one of `RATIO_BINS` say, from which
            the share is drawn.
        seed: same seed, same mask.

    Returns:
        float32 (1, 1, H, W); its share is within 0.01 of ``ratio`` on pictures of 64 pixels and more.

    Source: free-form masks as in Yu et al., ICCV 2019, drawn until the ratio is met (Liu et al., ECCV 2018).
    """
    height, width = check.size(size)
    generator = torch.Generator().manual_seed(check.seed(seed))
    ratio = _ratio(ratio, generator)
    side = min(height, width)
    canvas = np.zeros((height, width), np.float32)
    wanted = ratio * canvas.size

    def uniform(low, high):
        return low + (high - low) * torch.rand((), generator=generator).item()

    while canvas.sum() < wanted:
        # the fewer pixels are left to cover, the finer the brush
        radius = max(0.75, uniform(0.02, 0.06) * side * min(1.0, 2 * math.sqrt(ratio)))
        x, y, angle = uniform(0, width), uniform(0, height), uniform(0, 2 * math.pi)
        for _ in range(int(uniform(4, 12))):
            if canvas.sum() >= wanted:
                break
            angle += uniform(-1, 1) * math.pi / 2
            length = uniform(0.05, 0.2) * side
            end = (min(max(x + length * math.cos(angle), 0), width), min(max(y + length * math.sin(angle), 0), height))
            canvas = _draw_until(canvas, (x, y), end, radius, wanted)
            x, y = end
    return torch.from_numpy(canvas)[None, None]  # (1, 1, H, W)


def rectangles(size, seed: int = 0, mode: str = "random", count: tuple[int, int] = (1, 29)) -> torch.Tensor:
    """RealFill's training masks: several random rectangles, as their union or its complement.

    Args:
        size: (H, W) of the mask.
        seed: same seed, same mask.
        mode: "union" (rectangles are holes), "complement" (all but the rectangles), or "random", one of the
            two with probability one half.
        count: fewest and most rectangles, both included.

    Returns:
        float32 (1, 1, H, W).

    Source: RealFill (Tang et al., SIGGRAPH 2024) names rectangles, union and complement; the numbers (1 to 29
    rectangles, sides 3 % to 25 % of the picture, 1 % margin) are those of the public reimplementation.
    """
    height, width = check.size(size)
    check.choice(mode, "mode", ("random", "union", "complement"))
    low, high = check.integer(count[0], "count[0]", 1), check.integer(count[1], "count[1]", count[0])
    generator = torch.Generator().manual_seed(check.seed(seed))
    flip = torch.rand((), generator=generator).item() < 0.5
    union = torch.zeros(1, 1, height, width)
    for _ in range(int(torch.randint(low, high + 1, (), generator=generator))):
        w, h, x, y = torch.rand(4, generator=generator).tolist()
        w, h = max(1, round((0.03 + 0.22 * w) * width)), max(1, round((0.03 + 0.22 * h) * height))
        margin_x, margin_y = round(0.01 * width), round(0.01 * height)
        x0 = margin_x + int(x * max(1, width - w - 2 * margin_x + 1))
        y0 = margin_y + int(y * max(1, height - h - 2 * margin_y + 1))
        union[..., y0 : y0 + h, x0 : x0 + w] = 1
    return 1 - union if mode == "complement" or (mode == "random" and flip) else union


def centre(size, fraction: float = 0.5) -> torch.Tensor:
    """A hole in the middle whose sides are ``fraction`` (0 to 1) of the picture's. float32 (1, 1, H, W)."""
    height, width = check.size(size)
    check.number(fraction, "fraction", 0, 1)
    h, w = max(1, round(height * fraction)), max(1, round(width * fraction))
    y0, x0 = (height - h) // 2, (width - w) // 2
    return box(size, (x0, y0, x0 + w, y0 + h))


def outpaint(size, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0) -> torch.Tensor:
    """A border to paint anew: the outer ``left``, ``top``, ``right``, ``bottom`` pixels are hole.

    Args:
        size: (H, W) of the mask, border included. To paint beyond a photograph's frame, first enlarge it
            with `wb.image.pad` and the same numbers.

    Returns:
        float32 (1, 1, H, W).
    """
    height, width = check.size(size)
    left, right = check.integer(left, "left", 0), check.integer(right, "right", 0)
    top, bottom = check.integer(top, "top", 0), check.integer(bottom, "bottom", 0)
    if left + right >= width or top + bottom >= height:
        raise ValueError(
            f"the borders ({left} + {right} of {width}, {top} + {bottom} of {height}) leave nothing of the picture, "
            "expected size to be that of the enlarged picture."
        )
    mask = torch.ones(1, 1, height, width)
    mask[..., top : height - bottom, left : width - right] = 0
    return mask


def grid(size, cells: tuple[int, int] = (4, 4), ratio: float = 0.5, seed: int = 0) -> torch.Tensor:
    """A chessboard of cells of which a random share is hole (MimicBrush's training masks).

    Args:
        size: (H, W) of the mask.
        cells: (rows, columns).
        ratio: share of cells that are holes, 0 to 1, rounded to whole cells.
        seed: same seed, same cells.

    Returns:
        float32 (1, 1, H, W).
    """
    height, width = check.size(size)
    rows, columns = check.size(cells, "cells")
    if rows > height or columns > width:
        raise ValueError(f"cells is {(rows, columns)} for a mask of {(height, width)}, expected at most one a pixel.")
    check.number(ratio, "ratio", 0, 1)
    generator = torch.Generator().manual_seed(check.seed(seed))
    holes = torch.zeros(rows * columns)
    holes[torch.randperm(rows * columns, generator=generator)[: round(ratio * rows * columns)]] = 1
    row = torch.arange(height) * rows // height  # (H,) the cell row of each pixel row
    column = torch.arange(width) * columns // width  # (W,)
    return holes.view(rows, columns)[row][:, column][None, None]  # (1, 1, H, W)


# Combine and measure


def union(*masks: torch.Tensor) -> torch.Tensor:
    """Hole where any mask has a hole."""
    return _combine(masks, torch.maximum)


def intersect(*masks: torch.Tensor) -> torch.Tensor:
    """Hole where every mask has a hole."""
    return _combine(masks, torch.minimum)


def subtract(mask: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Hole where ``mask`` has one and ``other`` has none."""
    return _combine((mask, invert(other)), torch.minimum)


def invert(mask: torch.Tensor) -> torch.Tensor:
    """Hole and kept area exchanged: 1 - mask."""
    return 1 - check.mask(mask, soft=True)


def coverage(mask: torch.Tensor) -> torch.Tensor:
    """Share of hole pixels of each item, (B,) in [0, 1]."""
    return check.mask(mask, soft=True).mean((1, 2, 3))  # (B,)


def bounding_box(mask: torch.Tensor, margin: int = 0) -> tuple[int, int, int, int]:
    """The smallest box (x0, y0, x1, y1), end excluded, round the hole of a mask (1, 1, H, W).

    Args:
        mask: (1, 1, H, W), soft or hard.
        margin: so many pixels more on each side, where the picture has them.

    Raises:
        ValueError: the mask has no hole, or several items.
    """
    check.mask(mask, soft=True)
    if mask.shape[0] != 1:
        raise ValueError(f"mask has {mask.shape[0]} items, expected one. Take one with mask[i:i + 1].")
    rows, columns = (mask[0, 0] > 0).any(1).nonzero(), (mask[0, 0] > 0).any(0).nonzero()
    if len(rows) == 0:
        raise ValueError("mask has no hole (all 0), expected some pixels of 1 = repaint.")
    check.integer(margin, "margin", 0)
    height, width = mask.shape[-2:]
    x0, y0 = max(0, int(columns[0]) - margin), max(0, int(rows[0]) - margin)
    return x0, y0, min(width, int(columns[-1]) + 1 + margin), min(height, int(rows[-1]) + 1 + margin)


# Grow, shrink, soften. The picture's frame is no edge: beyond it nothing is known.


def grow(mask: torch.Tensor, radius: float) -> torch.Tensor:
    """Adds all pixels no farther than ``radius`` pixels from the hole (a disc, not a square)."""
    check.number(radius, "radius", 0)
    return (_distance(check.mask(mask), radius) <= radius).to(mask.dtype)


def shrink(mask: torch.Tensor, radius: float) -> torch.Tensor:
    """Takes away all hole pixels no farther than ``radius`` pixels from a kept pixel."""
    check.number(radius, "radius", 0)
    return (_depth(check.mask(mask)) > radius).to(mask.dtype)


def feather(mask: torch.Tensor, radius: float) -> torch.Tensor:
    """A soft mask for blending: 1 in the whole hole, falling in a straight line to 0 ``radius`` pixels outside.

    soft = max(0, 1 - d / (radius + 1)), d = distance to the hole in pixels. It fades outside the hole only:
    inside lies what was to be removed. Pixels farther than ``radius`` keep 0 exactly.

    Args:
        mask: (B, 1, H, W), hard.
        radius: width of the ramp in pixels.

    Returns:
        soft mask (B, 1, H, W) in [0, 1].

    Source: RealFill blurs the mask; we use a ramp, so that it is known where the kept area is untouched.
    """
    check.number(radius, "radius", 0)
    distance = _distance(check.mask(mask), radius)
    return (1 - distance / (radius + 1)).where(distance <= radius, torch.zeros(())).to(mask.dtype)


def blend(image: torch.Tensor, filled: torch.Tensor, mask: torch.Tensor, radius: float = 0) -> torch.Tensor:
    """Puts kept pixels back: out = image (1 - s) + filled s, s the mask feathered by ``radius`` pixels.

    Args:
        image: (B, 3, H, W), what is kept.
        filled: (B, 3, H, W), all of it painted.
        mask: (B, 1, H, W) or (1, 1, H, W), hard, 1 = hole.
        radius: width of the ramp outside the hole; see `feather`.

    Returns:
        (B, 3, H, W): bit-equal to ``filled`` in the hole, to ``image`` farther than ``radius`` from it.

    Source: alpha blending with a feathered mask, as in RealFill (Tang et al., SIGGRAPH 2024), section 3.4.
    """
    soft_mask = feather(mask, radius)
    blended = torch.where(soft_mask == 1, filled, image * (1 - soft_mask) + filled * soft_mask)
    return torch.where(soft_mask == 0, image, blended)


def border(mask: torch.Tensor, width: float = 3, side: str = "both") -> torch.Tensor:
    """The band along the hole's edge.

    Args:
        mask: (B, 1, H, W), hard.
        width: in pixels, on each side.
        side: "both", "inside" (hole pixels only) or "outside" (kept pixels only).

    Returns:
        (B, 1, H, W), 1 in the band.
    """
    check.number(width, "width", 0)
    check.choice(side, "side", ("both", "inside", "outside"))
    inside = mask * (_depth(check.mask(mask)) <= width)
    outside = (1 - mask) * (_distance(mask, width) <= width)
    return {"both": inside + outside, "inside": inside, "outside": outside}[side].to(mask.dtype)


def trimap(alpha: torch.Tensor, radius: float = 5, low: float = 0.05, high: float = 0.95) -> torch.Tensor:
    """The trimap of a known alpha: foreground 1, background 0, unknown 0.5 between.

    Args:
        alpha: (B, 1, H, W) in [0, 1].
        radius: how far, in pixels, the unknown band reaches into both sides.
        low, high: alpha up to ``low`` counts as background, from ``high`` on as foreground.

    Returns:
        (B, 1, H, W) holding 0, 0.5 and 1.
    """
    check.alpha(alpha)
    check.number(radius, "radius", 0)
    check.number(high, "high", check.number(low, "low", 0, 1), 1)
    foreground = shrink((alpha >= high).to(alpha.dtype), radius)
    background = shrink((alpha <= low).to(alpha.dtype), radius)
    return foreground + 0.5 * (1 - foreground - background)


def to_latent(mask: torch.Tensor, how: str = "nearest", factor: int = 8) -> torch.Tensor:
    """The mask on the latent grid, where one cell stands for factor x factor pixels.

    Args:
        mask: (B, 1, H, W), hard; H and W multiples of ``factor``.
        how: "nearest" takes the top left pixel of each cell, as diffusers' inpainting pipelines do (thin strokes
            can vanish); "any" marks a cell that holds at least one hole pixel (for blending latents); "all" one
            that holds nothing else; "mean" gives the share of hole pixels (a soft mask).
        factor: pixels per cell and side; 8 for Stable Diffusion.

    Returns:
        (B, 1, H / factor, W / factor).

    Raises:
        ValueError: a size that is no multiple of ``factor``.
    """
    check.mask(mask)
    check.choice(how, "how", ("nearest", "any", "all", "mean"))
    check.integer(factor, "factor", 1)
    height, width = mask.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(
            f"mask is {(height, width)} (H, W), expected multiples of {factor}. Crop or pad picture and mask first."
        )
    if how == "nearest":
        return mask[..., ::factor, ::factor].clone()  # (B, 1, h, w)
    share = torch.nn.functional.avg_pool2d(mask, factor)  # (B, 1, h, w)
    if how == "mean":
        return share
    return (share > 0).to(mask.dtype) if how == "any" else (share == 1).to(mask.dtype)


def _full(size, patch: raster.Patch) -> torch.Tensor:
    """Patch -> mask (1, 1, H, W)."""
    rows, columns, coverage = patch
    mask = torch.zeros(1, 1, *check.size(size))
    mask[0, 0, rows, columns] = torch.from_numpy(coverage)
    return mask


def _draw_until(canvas: np.ndarray, start, end, radius: float, wanted: float) -> np.ndarray:
    """Draws a stroke towards ``end``, stopping where the canvas reaches the wanted number of pixels."""
    low, high = 0.0, 1.0
    start, end = np.asarray(start), np.asarray(end)
    for bisection in range(12):
        part = high if bisection == 0 else (low + high) / 2
        rows, columns, coverage = raster.stroke_patch(canvas.shape, [start, start + part * (end - start)], radius)
        drawn = canvas.copy()
        np.maximum(drawn[rows, columns], coverage, out=drawn[rows, columns])
        if drawn.sum() <= wanted and bisection == 0:
            break  # the whole stroke fits
        low, high = (part, high) if drawn.sum() < wanted else (low, part)
    return drawn


def _ratio(ratio, generator: torch.Generator) -> float:
    if isinstance(ratio, (tuple, list)):
        if len(ratio) != 2:
            raise ValueError(f"ratio is {ratio!r}, expected a number or a bin (low, high).")
        low = check.number(ratio[0], "ratio[0]", 0, 1)
        return low + (check.number(ratio[1], "ratio[1]", low, 1) - low) * torch.rand((), generator=generator).item()
    return check.number(ratio, "ratio", 0, 1)


def _combine(masks, operation) -> torch.Tensor:
    if not masks:
        raise ValueError("no mask was given, expected at least one (B, 1, H, W).")
    result = check.mask(masks[0], soft=True).clone()
    for other in masks[1:]:
        result = operation(result, check.mask(other, like=result, soft=True))
    return result


def _distance(mask: torch.Tensor, reach: float) -> torch.Tensor:
    """Distance in pixels to the nearest hole pixel, (B, 1, H, W); only that it is more matters beyond ``reach``."""
    distance = torch.full_like(mask, torch.inf)
    for item, out in zip(mask, distance, strict=True):
        if item.any():
            rows, columns = _around(item, math.ceil(reach))
            hole = item[0, rows, columns].cpu().numpy() > 0.5
            out[0, rows, columns] = torch.from_numpy(ndimage.distance_transform_edt(~hole)).to(mask)
    return distance


def _depth(mask: torch.Tensor) -> torch.Tensor:
    """Distance in pixels from each hole pixel to the nearest kept one, (B, 1, H, W); 0 on kept pixels."""
    depth = torch.zeros_like(mask)
    for item, out in zip(mask, depth, strict=True):
        if item.all():
            out.fill_(torch.inf)
        elif item.any():
            rows, columns = _around(item, 1)
            hole = item[0, rows, columns].cpu().numpy() > 0.5
            out[0, rows, columns] = torch.from_numpy(ndimage.distance_transform_edt(hole)).to(mask)
    return depth


def _around(item: torch.Tensor, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the hole of a mask (1, H, W) and so many pixels round it: nothing beyond matters."""
    x0, y0, x1, y1 = bounding_box(item[None])
    return slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)
