"""Completion: fill a hole so that every patch in it looks like some patch of the known picture.

Read `fill` first; the functions below it come in the order in which it calls them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench import check
from workbench.methods.patchmatch.field import (
    REACHES,
    Field,
    PatchPair,
    check_patch,
    grow,
    nearest_rows,
    patch_centres,
    pixel_grid,
    propagate,
    random_field,
    random_search,
)
from workbench.methods.patchmatch.seams import blend_seams
from workbench.methods.result import Step

WINDOW = 4_000_000  # pixels; a larger search window around the hole is narrowed, down to a margin of MARGIN pixels
MARGIN = 64
WORK = 2_000_000  # patches times passes at one level; a level with more patches than this gets no pass
BLEND = 200_000_000  # hole pixels times iterations of the blending at the end, which takes 20 to 200 of them
FEW = 200  # a pyramid level keeps at least so many source patches, or it is not made


@dataclass(frozen=True)
class Level:
    """One size of the picture: features (1, 5, h, w), three colours and two textures, 0 in the hole; its mask."""

    features: torch.Tensor
    mask: torch.Tensor


def fill(
    image: torch.Tensor,
    mask: torch.Tensor,
    *,
    patch: int = 7,
    passes: int = 8,
    texture: float = 4.0,
    tolerance: float = 0.002,
    seed: int = 0,
) -> Iterator[Step]:
    """Complete a picture with patches copied from its known part: PatchMatch, voting, coarse to fine.

    minimise over u in the hole  sum over patches p touching the hole of  min over known patches q of d(u at p, u at q)
    by turns: f(p) = argmin over q of d (matching), u(x) = weighted mean of what the patches over x propose (voting)

    Args:
        image: picture, (1, 3, H, W) in [0, 1]; what it holds inside the hole is never looked at.
        mask: (1, 1, H, W), 1 = hole, of any shape, at the frame too; some pixels must be known.
        patch: width of a patch, odd, in pixels; made smaller where no known patch of this size exists.
        passes: at most so many turns at each level; fewer where the hole is large.
        texture: weight of the texture features; 0 compares colours only.
        tolerance: a level ends when a turn changes the hole by less than this on average, in [0, 1].
        seed: seed of the random guesses; the same seed gives the same picture.

    Yields:
        A Step after every turn, its image (1, 3, h, w) at that level's size, showing the window around the hole that
        is worked on (`box`); the last Step has the full size. `arrays` holds "field" (1, 2, h, w) and "error"
        (1, 1, h, w) (see Field), and "mask" (1, 1, h, w). A level may end early, so `total` may shrink on the way; the
        last Step has i = total. Time and memory are bounded: the window by 4 million pixels, or the hole's box and 64
        pixels around it where that is more; the patches processed in all turns of a level by two million; larger
        levels only copy what was matched at half their size. Measured for 24 megapixels: a hole of 1000 x 1000 takes
        half a minute on one core and 1.5 GiB beside the picture, one of 3000 x 3000 two and a half minutes and 5.5 GiB.

    Raises:
        ValueError: wrong shape or range, more than one picture, an even patch, or a hole as large as the picture.

    Source:
        Wexler, Shechtman, Irani, "Space-Time Completion of Video", PAMI 2007 (turns, weights); Newson, Almansa,
        Gousseau, Perez, "Non-Local Patch-Based Image Inpainting", IPOL 2017 (onion peel, texture features, upsampling
        the field); Barnes et al. 2009 (matching). Differs from the papers in: parallel matching (see `propagate`);
        hole and known part never mix in the pyramid (normalised blur); a weight for distance from the hole's edge
        beside the one for patch distance; Poisson blending of the joints at the end.

    Example:
        >>> for step in fill(image, mask, seed=0): print(step)
        >>> completed = step.image
    """
    check_patch(patch)
    check.integer(passes, "passes", 1)
    check.number(texture, "texture", 0)
    check.number(tolerance, "tolerance", 0)
    generator = torch.Generator(check.image(image).device).manual_seed(check.seed(seed))
    _check_hole(image, check.mask(mask, like=image))
    return _turns(image.detach(), mask.detach(), patch, passes, texture, tolerance, generator)


def _turns(image, mask, patch, passes, texture, tolerance, generator) -> Iterator[Step]:
    """The loop of `fill`, which has checked the arguments: levels, coarsest first, and the turns of each."""
    if not mask.any():
        nothing = {"field": torch.full_like(pixel_grid(mask), -1), "error": torch.zeros_like(mask), "mask": mask}
        yield Step(1, 1, "nothing to fill", image.clone(), nothing)
        return
    (top, bottom, left, right), patch = choose_window(mask, patch)
    window, hole = image[..., top:bottom, left:right].float(), mask[..., top:bottom, left:right].float()
    pyramid = make_pyramid(window, hole, patch, texture)  # finest first
    pairs = [PatchPair(x.features, x.features, patch=patch, target_mask=x.mask, source_mask=x.mask, overhang=False)
             for x in pyramid]  # fmt: skip
    turns = [min(passes, max(n == len(pairs) - 1, WORK // len(pair.where))) for n, pair in enumerate(pairs)]
    i, total, field = 0, sum(turns) + 1, None
    for n in reversed(range(len(pyramid))):
        level, pair = pyramid[n], pairs[n]
        if field is None:
            features = peel_onion(level, pair)
            pair.set_target(features)
            field = random_field(pair, generator)
        else:
            field = upsample_field(field, pair, generator)
            features = vote(level.features, level.mask, field, patch)
        for turn in range(turns[n]):
            pair.set_target(features)
            field = _match(pair, pair.field(pair.centres(field)), generator, rounds=1 if i else 4)
            before, features = features, vote(level.features, level.mask, field, patch)
            i += 1
            done = _change(before, features, level.mask) < tolerance
            total -= turns[n] - turn - 1 if done else 0
            label = f"level {len(pyramid) - n} of {len(pyramid)}, pass {turn + 1}"
            arrays = {"field": field.xy, "error": field.error, "mask": level.mask}
            yield Step(i, total, label, features[:, :3].to(image.dtype), arrays, (left, top, right, bottom))
            if done:
                break
    pairs[0].set_target(features)
    field = pairs[0].field(pairs[0].centres(field))
    iterations = int(min(200, max(20, BLEND // hole.sum().item())))
    blended = blend_seams(window, hole, best_source(hole, field, patch), iterations=iterations)
    result = image.clone()
    kept = result[..., top:bottom, left:right]
    kept.copy_(torch.where(hole > 0, blended.to(image.dtype), kept))
    label = "copied from the best patches, joints blended"
    yield Step(total, total, label, result, _full_size(field, mask, top, left))


def _check_hole(image: torch.Tensor, mask: torch.Tensor) -> None:
    if len(image) != 1:
        raise ValueError(f"image holds {len(image)} pictures, expected one, (1, 3, H, W). Loop over the batch.")
    if mask.all():
        raise ValueError(
            "mask is 1 everywhere, expected at least one known pixel (0 = keep): PatchMatch can only copy what the "
            "picture shows. If the mask is the wrong way round, take 1 - mask."
        )


def choose_window(mask: torch.Tensor, patch: int) -> tuple[tuple[int, int, int, int], int]:
    """The part of the picture to work on, (top, bottom, left, right), and the width of a patch that fits there."""
    height, width = mask.shape[-2:]
    ys, xs = mask[0, 0].any(1).nonzero()[:, 0], mask[0, 0].any(0).nonzero()[:, 0]  # rows, columns with a hole
    y0, y1, x0, x1 = int(ys[0]), int(ys[-1]) + 1, int(xs[0]), int(xs[-1]) + 1
    margin = max(256, y1 - y0, x1 - x0)
    while True:
        box = (max(0, y0 - margin), min(height, y1 + margin), max(0, x0 - margin), min(width, x1 + margin))
        if margin <= MARGIN or (box[1] - box[0]) * (box[3] - box[2]) <= WINDOW:
            break
        margin = max(MARGIN, margin // 2)
    while count_sources(mask[..., box[0] : box[1], box[2] : box[3]], patch) == 0:
        if box != (0, height, 0, width):
            box = (0, height, 0, width)
        else:
            patch -= 2  # a patch of one pixel always fits
    return box, patch


def count_sources(mask: torch.Tensor, patch: int) -> int:
    """How many patches lie wholly inside the picture and touch no hole."""
    return int((patch_centres(mask, patch) & (grow(mask, patch // 2) == 0)).sum())


def make_pyramid(image: torch.Tensor, mask: torch.Tensor, patch: int, texture: float) -> list[Level]:
    """The picture at full size, 1/2, 1/4 ... until the hole is at most four patches wide; the finest first."""
    features = torch.cat([image * (1 - mask), texture * texture_features(image, mask, 2 * patch + 1)], 1)
    levels = [Level(features, mask)]  # features (1, 5, H, W)
    while (grow(1 - levels[-1].mask, 2 * patch) == 0).any():
        smaller = halve(levels[-1])
        if count_sources(smaller.mask, patch) < FEW:
            break
        levels.append(smaller)
    return levels


def texture_features(image: torch.Tensor, mask: torch.Tensor, width: int) -> torch.Tensor:
    """How busy the known picture is around each pixel, across and down.

    T(x) = (mean of |dg/dx|, mean of |dg/dy|) over the known pairs of neighbours in a square around x, g = gray

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        width: side of the square, odd, in pixels.

    Returns:
        (1, 2, H, W) in [0, 1]; 0 in the hole.

    Source:
        Newson et al. 2017: without it smooth patches win, because they are never very wrong.

    Example:
        >>> texture = texture_features(image, mask, 15)
        >>> texture[:, 0].mean()                         # how busy the picture is from left to right
    """
    gray, known, features = image.mean(1, keepdim=True), 1 - mask, []  # (1, 1, H, W) each
    for dim, pad in ((3, (0, 1)), (2, (0, 0, 0, 1))):
        both = F.pad(torch.minimum(known, known.roll(-1, dim)).narrow(dim, 0, known.shape[dim] - 1), pad)
        step = F.pad(gray.diff(dim=dim).abs(), pad) * both  # (1, 1, H, W)
        total, count = (F.avg_pool2d(x, width, 1, width // 2) for x in (step, both))
        features.append(total / count.clamp_min(1e-6) * known)
    return torch.cat(features, 1)  # (1, 2, H, W)


def halve(level: Level) -> Level:
    """The level at half its size: blurred with (1 3 3 1) / 8 over the known pixels only, so the hole never leaks.

    A coarse pixel is a hole if any of its four fine pixels is one.
    """
    line = level.features.new_tensor([1, 3, 3, 1]) / 8
    kernel = (line[:, None] * line)[None, None]  # (1, 1, 4, 4)

    def blur(x):
        height, width = x.shape[-2:]
        x = F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2))
        return F.conv2d(x, kernel.expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1])  # (1, C, h, w)

    known = 1 - level.mask
    mask = F.max_pool2d(level.mask, 2, ceil_mode=True)  # (1, 1, h, w), h = H / 2 rounded up
    return Level(blur(level.features * known) / blur(known).clamp_min(1e-6) * (1 - mask), mask)


def peel_onion(level: Level, pair: PatchPair) -> torch.Tensor:
    """A first guess at the coarsest level: fill the hole ring by ring from its edge.

    Each pixel of a ring copies the middle of the known patch that differs least from its own patch, compared on the
    pixels known or filled so far. At most 8192 known patches, evenly spread, take part.

    Args:
        level: the coarsest level.
        pair: the level with itself.

    Returns:
        The features with the hole filled, (1, 5, h, w).
    """
    height, width = pair.size
    r, channels = pair.radius, level.features.shape[1]
    few = PatchPair(level.features, level.features, patch=pair.patch, source_mask=level.mask)
    few.sources = few.sources[:: -(-len(few.sources) // 8192)]
    features = level.features.clone(memory_format=torch.contiguous_format)
    todo = level.mask.clone(memory_format=torch.contiguous_format)
    while todo.any():
        ring = ((todo > 0) & (grow(1 - todo, 1) > 0)).flatten().nonzero()[:, 0]  # (n,) flat positions
        x, y = ring % width, ring // width
        centre_x, centre_y = x.clamp(r, width - 1 - r), y.clamp(r, height - 1 - r)  # whole patches only
        centre = centre_y * width + centre_x
        few.set_target((1 - todo).expand(-1, channels, -1, -1))
        known = few.target_patches(centre)  # (n, p * p * C): 1 where a patch may be compared
        few.set_target(features)
        match = nearest_rows(few.target_patches(centre), few, known)  # (n,)
        source = match + (y - centre_y) * width + (x - centre_x)
        features.flatten(2)[:, :, ring] = level.features.flatten(2)[:, :, source]
        todo.flatten()[ring] = 0
    return features


def _match(pair: PatchPair, field: Field, generator: torch.Generator, rounds: int) -> Field:
    """The matching half of a turn. Where patches are many they are already well placed: search nearby only."""
    radius = None if len(pair.where) < 100_000 else 8
    for _ in range(rounds):
        for reach in REACHES[1:]:
            field = propagate(pair, field, reach)
        field = random_search(pair, field, generator, radius)
    return field


def _change(before: torch.Tensor, after: torch.Tensor, mask: torch.Tensor) -> float:
    """The mean change of a hole pixel's colours."""
    return (((after - before)[:, :3].abs() * mask).sum() / (3 * mask.sum())).item()


def proposals(mask: torch.Tensor, field: Field, values: torch.Tensor, patch: int) -> Iterator[tuple]:
    """For each of the p * p patches over a hole pixel: the pixel it would copy, and the patch's value.

    Args:
        mask: (1, 1, h, w), 1 = hole; K hole pixels.
        field: the matches of the patches, a picture with itself.
        values: something known about each patch, (1, 1, h, w).
        patch: width of a patch.

    Yields:
        Flat positions y * w + x of the proposed pixels (K,) and values (K,); 0 and 0 where there is no patch.
    """
    r, width = patch // 2, mask.shape[-1]
    wide = width + 2 * r
    hole = mask.flatten().nonzero()[:, 0]  # (K,)
    middle = (hole // width + r) * wide + hole % width + r  # (K,) the same pixels in pictures padded by r
    match = F.pad(field.xy[:, 1] * width + field.xy[:, 0], (r,) * 4, value=-1).flatten()  # ((h + 2r) * (w + 2r),)
    values = F.pad(torch.where(field.inside, values, 0), (r,) * 4).flatten()  # ((h + 2r) * (w + 2r),)
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            centre = middle + dy * wide + dx  # the patch centred (dx, dy) away lies over the pixel
            proposed = match.index_select(0, centre)  # (K,)
            yield torch.where(proposed >= 0, proposed - dy * width - dx, 0), values.index_select(0, centre)


def vote(features: torch.Tensor, mask: torch.Tensor, field: Field, patch: int = 7) -> torch.Tensor:
    """Voting: each hole pixel becomes the weighted mean of what all patches lying over it propose.

    u(x) = sum over p of w(p) u(f(p) + x - p) / sum over p of w(p),  p within patch / 2 of x
    w(p) = exp(-error(p) / (2 s)) * 1.2^-depth(p),  s = upper quartile of the errors, depth = pixels into the hole

    Args:
        features: picture that is copied from, (1, C, h, w).
        mask: (1, 1, h, w), 1 = hole.
        field: the matches of the patches that touch the hole, a picture with itself.
        patch: width of a patch, odd, in pixels.

    Returns:
        The picture with its hole filled, (1, C, h, w); known pixels are unchanged.

    Source:
        Wexler et al. 2007 (weights by distance and by confidence); differs from the
        paper in one s for the whole level, and in a depth that counts in squares and stops at 16.

    Example:
        >>> field = nearest_neighbour_field(image, image, target_mask=mask, source_mask=mask)
        >>> image = vote(image, mask, field)
    """
    errors = field.error[field.inside]
    s = errors.kthvalue(max(1, int(0.75 * len(errors)))).values + 1e-8
    depth, deeper = torch.zeros_like(mask), mask
    for _ in range(16):
        depth = depth + deeper
        deeper = 1 - grow(1 - deeper, 1)
    weights = torch.exp((-field.error / (2 * s)).clamp_min(-60)) * 1.2**-depth  # (1, 1, h, w)

    pixels = features[0].flatten(1).T.contiguous()  # (h * w, C)
    total, weight_sum = 0, 0
    for source, weight in proposals(mask, field, weights, patch):
        total = total + weight[:, None] * pixels.index_select(0, source)  # (K, C)
        weight_sum = weight_sum + weight[:, None]  # (K, 1)
    filled = features.clone(memory_format=torch.contiguous_format)
    filled.flatten(2)[0, :, mask.flatten() > 0] = (total / weight_sum).T  # (C, K)
    return filled


def best_source(mask: torch.Tensor, field: Field, patch: int = 7) -> torch.Tensor:
    """Where each pixel is copied from by the best patch over it: flat positions y * w + x, (1, 1, h, w) int64.

    Known pixels come from themselves. A mean of several patches would blur; one patch keeps the grain.
    """
    source = torch.arange(mask.numel(), device=mask.device)  # (h * w,)
    hole = mask.flatten() > 0
    chosen = source[hole]  # (K,)
    best = field.error.new_zeros(chosen.shape)  # (K,)
    for proposed, quality in proposals(mask, field, 1 / (field.error + 1e-8), patch):
        chosen = torch.where(quality > best, proposed, chosen)
        best = torch.maximum(best, quality)
    source[hole] = chosen
    return source.view_as(mask)


def upsample_field(field: Field, pair: PatchPair, generator: torch.Generator) -> Field:
    """Carry the matches to the next finer level, twice the size.

    f(p) = 2 F(p / 2) + p mod 2, with F the coarse field; a patch without a usable coarse match gets a random one

    Args:
        field: the matches at the coarse level.
        pair: the finer level with itself.
        generator: the source of randomness.

    Returns:
        A field at the finer level; its errors are those of the coarse level.

    Source:
        Newson et al. 2017: a picture doubled in size is blurred, a field is not, it copies sharp pixels.

    Example:
        >>> field = upsample_field(field, pair, torch.Generator().manual_seed(0))
        >>> features = vote(level.features, level.mask, field)
    """
    (height, width), r = pair.size, pair.radius
    rows, columns = field.xy.shape[-2:]
    x, y = pair.where % width, pair.where // width  # (N,), (N,)
    coarse_x, coarse_y = (x // 2).clamp(r, columns - 1 - r), (y // 2).clamp(r, rows - 1 - r)  # where patches are whole
    match_x, match_y = field.xy[0, :, coarse_y, coarse_x]  # (N,), (N,)
    new_x, new_y = 2 * (match_x - coarse_x) + x, 2 * (match_y - coarse_y) + y
    usable = (match_x >= 0) & (new_x >= 0) & (new_x < width) & (new_y >= 0) & (new_y < height)
    centres = torch.where(usable, new_y * width + new_x, 0)
    drawn = torch.randint(len(pair.sources), centres.shape, generator=generator, device=centres.device)  # (N,)
    centres = torch.where(usable & pair.allowed[centres], centres, pair.sources[drawn])

    xy = torch.full((2, height * width), -1, device=centres.device)  # (2, H * W)
    xy[:, pair.where] = torch.stack([centres % width, centres // width])
    error = field.error.new_zeros(height * width)  # (H * W,)
    error[pair.where] = field.error[0, 0, coarse_y, coarse_x]
    return Field(xy.view(1, 2, height, width), error.view(1, 1, height, width))


def _full_size(field: Field, mask: torch.Tensor, top: int, left: int) -> dict:
    """The window's field in the whole picture's coordinates, (1, 2, H, W), with its error and the mask."""
    height, width = field.xy.shape[-2:]
    pad = (left, mask.shape[3] - left - width, top, mask.shape[2] - top - height)
    corner = torch.tensor([left, top], device=mask.device).view(1, 2, 1, 1)
    xy = torch.where(field.inside, field.xy + corner, -1)
    return {"field": F.pad(xy, pad, value=-1), "error": F.pad(field.error, pad), "mask": mask}
