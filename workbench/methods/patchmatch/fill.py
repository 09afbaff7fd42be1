"""Completion: fill a hole so that every patch in it looks like some patch of the known picture.

Read `fill` first; the functions below it come in the order in which it calls them.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F

from workbench import check
from workbench.methods.patchmatch.field import (
    REACHES,
    Field,
    PatchPair,
    check_patch,
    corner,
    grow,
    nearest_rows,
    pixel_grid,
    propagate,
    random_field,
    random_search,
)
from workbench.methods.patchmatch.levels import Canvas, Level, choose_window, make_pyramid
from workbench.methods.patchmatch.seams import blend_seams
from workbench.methods.result import Step

WORK = 2_000_000  # patches times passes at one level; a level with more patches than this gets no pass
BLEND = 200_000_000  # hole pixels times iterations of the blending at the end, which takes 20 to 200 of them


def fill(
    image: torch.Tensor,
    mask: torch.Tensor,
    *,
    references: Sequence[torch.Tensor] | torch.Tensor = (),
    patch: int = 7,
    passes: int = 8,
    texture: float = 4.0,
    tolerance: float = 0.002,
    seed: int = 0,
) -> Iterator[Step]:
    """Complete a picture with patches of its known part, and of references: PatchMatch, voting, coarse to fine.

    minimise over u in the hole  sum over patches p touching the hole of  min over known patches q of d(u at p, u at q)
    by turns: f(p) = argmin over q of d (matching), u(x) = weighted mean of what the patches over x propose (voting)

    Args:
        image: picture, (1, 3, H, W) in [0, 1]; what it holds inside the hole is never looked at.
        mask: (1, 1, H, W), 1 = hole, of any shape, at the frame too; some pixels must be known.
        references: other pictures to copy from, (1, 3, H2, W2) each, of any size. Patches are moved, never turned or
            scaled: what a reference shows is found where it looks the same.
        patch: width of a patch, odd, in pixels; made smaller where no known patch of this size exists.
        passes: at most so many turns at each level; fewer where the hole is large.
        texture: weight of the texture features; 0 compares colours only.
        tolerance: a level ends when a turn changes the hole by less than this on average, in [0, 1].
        seed: seed of the random guesses; the same seed gives the same picture.

    Yields:
        A Step after every turn, its image (1, 3, h, w) at that level's size, showing the window around the hole that
        is worked on (`box`); the last Step has the full size. `arrays` holds "field" (1, 2, h, w) and "error"
        (1, 1, h, w) (see Field), and "mask" (1, 1, h, w); with references also "picture" (1, 1, h, w), which of them a
        match lies in: 0 the picture itself, 1 the first reference. A field's x, y are in that one's pixels. A level may
        end early, so `total` may shrink on the way; the last Step has i = total. Time and memory are bounded: the
        window by 4 million pixels, or the hole's box and 64 pixels around it where that is more; the patches processed
        in all turns of a level by two million; larger levels only copy what was matched at half their size. Measured
        for 24 megapixels: a hole of 1000 x 1000 takes half a minute on one core and 1.5 GiB beside the picture, one of
        3000 x 3000 two and a half minutes and 5.5 GiB. References are taken whole: memory grows with them.

    Raises:
        ValueError: wrong shape or range, more than one picture, an even patch, or a hole as large as the picture.
        TypeError: references that are no pictures.

    Source:
        Wexler, Shechtman, Irani, "Space-Time Completion of Video", PAMI 2007 (turns, weights); Newson, Almansa,
        Gousseau, Perez, "Non-Local Patch-Based Image Inpainting", IPOL 2017 (onion peel, texture features, upsampling
        the field); Barnes et al. 2009 (matching). Differs from the papers in: parallel matching (see `propagate`);
        hole and known part never mix in the pyramid (normalised blur); a weight for distance from the hole's edge
        beside the one for patch distance; Poisson blending of the joints at the end; references, as none of them has.

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
    references = [reference.detach().to(image.device) for reference in check.pictures(references, "references")]
    return _turns(image.detach(), mask.detach(), references, patch, passes, texture, tolerance, generator)


def _turns(image, mask, references, patch, passes, texture, tolerance, generator) -> Iterator[Step]:
    """The loop of `fill`, which has checked the arguments: levels, coarsest first, and the turns of each."""
    if not mask.any():
        nothing = {"field": torch.full_like(pixel_grid(mask), -1), "error": torch.zeros_like(mask), "mask": mask}
        yield Step(1, 1, "nothing to fill", image.clone(), nothing)
        return
    (top, bottom, left, right), patch = choose_window(mask, patch, references)
    window, hole = image[..., top:bottom, left:right].float(), mask[..., top:bottom, left:right].float()
    pyramid = make_pyramid(window, hole, patch, texture, [x.float() for x in references])  # finest first
    pairs = [PatchPair(x.features, y.features, patch=patch, target_mask=x.mask, source_mask=y.mask, overhang=False)
             for x, y in pyramid]  # fmt: skip
    turns = [min(passes, max(n == len(pairs) - 1, WORK // len(pair.where))) for n, pair in enumerate(pairs)]
    i, total, field = 0, sum(turns) + 1, None
    for n in reversed(range(len(pyramid))):
        (level, canvas), pair = pyramid[n], pairs[n]
        if field is None:
            features = peel_onion(level, canvas, pair)
            pair.set_target(features)
            field = random_field(pair, generator)
        else:
            field = upsample_field(field, pair, generator)
            features = vote(canvas.features, canvas.mask, field, patch)
        for turn in range(turns[n]):
            pair.set_target(features)
            field = _match(pair, pair.field(pair.centres(field)), generator, rounds=1 if i else 4)
            before, features = features, vote(canvas.features, canvas.mask, field, patch)
            i += 1
            done = _change(before, features, level.mask) < tolerance
            total -= turns[n] - turn - 1 if done else 0
            label = f"level {len(pyramid) - n} of {len(pyramid)}, pass {turn + 1}"
            arrays = {**_arrays(field, canvas), "mask": level.mask}
            yield Step(i, total, label, features[:, :3].to(image.dtype), arrays, (left, top, right, bottom))
            if done:
                break
    pairs[0].set_target(features)
    field = pairs[0].field(pairs[0].centres(field))
    iterations = int(min(200, max(20, BLEND // hole.sum().item())))
    source = best_source(canvas.mask, field, patch)
    blended = blend_seams(canvas.features[:, :3], canvas.mask, source, iterations=iterations)
    result = image.clone()
    kept = result[..., top:bottom, left:right]
    kept.copy_(torch.where(hole > 0, blended.to(image.dtype), kept))
    label = "copied from the best patches, joints blended"
    yield Step(total, total, label, result, {**_full_size(_arrays(field, canvas), mask, top, left), "mask": mask})


def _check_hole(image: torch.Tensor, mask: torch.Tensor) -> None:
    if len(image) != 1:
        raise ValueError(f"image holds {len(image)} pictures, expected one, (1, 3, H, W). Loop over the batch.")
    if mask.all():
        raise ValueError(
            "mask is 1 everywhere, expected at least one known pixel (0 = keep): PatchMatch can only copy what the "
            "picture shows. If the mask is the wrong way round, take 1 - mask."
        )


def peel_onion(level: Level, canvas: Canvas, pair: PatchPair) -> torch.Tensor:
    """A first guess at the coarsest level: fill the hole ring by ring from its edge.

    Each pixel of a ring copies the middle of the known patch that differs least from its own patch, compared on the
    pixels known or filled so far. At most 8192 known patches, evenly spread, take part.

    Args:
        level, canvas: the coarsest level.
        pair: the level with the canvas.

    Returns:
        The features with the hole filled, (1, 5, h, w).
    """
    height, width = pair.size
    r, channels = pair.radius, level.features.shape[1]
    few = PatchPair(level.features, canvas.features, patch=pair.patch, source_mask=canvas.mask)
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
        source = match + (y - centre_y) * canvas.size[1] + (x - centre_x)
        features.flatten(2)[:, :, ring] = canvas.features.flatten(2)[:, :, source]
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
        mask: of the canvas, (1, 1, h2, w2), 1 = hole; K hole pixels in the corner that is completed.
        field: the matches of the patches in the corner, (1, 2, h, w), with the canvas.
        values: something known about each patch, (1, 1, h, w).
        patch: width of a patch.

    Yields:
        Flat positions y * w2 + x of the proposed pixels (K,) and values (K,); 0 and 0 where there is no patch.
    """
    r, width = patch // 2, field.xy.shape[-1]
    across, wide = mask.shape[-1], width + 2 * r
    hole = corner(mask, field.xy).flatten().nonzero()[:, 0]  # (K,)
    middle = (hole // width + r) * wide + hole % width + r  # (K,) the same pixels in pictures padded by r
    match = F.pad(field.xy[:, 1] * across + field.xy[:, 0], (r,) * 4, value=-1).flatten()  # ((h + 2r) * (w + 2r),)
    values = F.pad(torch.where(field.inside, values, 0), (r,) * 4).flatten()  # ((h + 2r) * (w + 2r),)
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            centre = middle + dy * wide + dx  # the patch centred (dx, dy) away lies over the pixel
            proposed = match.index_select(0, centre)  # (K,)
            yield torch.where(proposed >= 0, proposed - dy * across - dx, 0), values.index_select(0, centre)


def vote(features: torch.Tensor, mask: torch.Tensor, field: Field, patch: int = 7) -> torch.Tensor:
    """Voting: each hole pixel becomes the weighted mean of what all patches lying over it propose.

    u(x) = sum over p of w(p) u(f(p) + x - p) / sum over p of w(p),  p within patch / 2 of x
    w(p) = exp(-error(p) / (2 s)) * 1.2^-depth(p),  s = upper quartile of the errors, depth = pixels into the hole

    Args:
        features: picture that is copied from, (1, C, h2, w2), or a `Canvas` of several.
        mask: (1, 1, h2, w2), 1 = hole.
        field: the matches of the patches that touch the hole, (1, 2, h, w): for all of the picture, or for its upper
            left corner, which alone is completed then.
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
    hole = corner(mask, field.xy)  # (1, 1, h, w)
    depth, deeper = torch.zeros_like(hole), hole
    for _ in range(16):
        depth = depth + deeper
        deeper = 1 - grow(1 - deeper, 1)
    weights = torch.exp((-field.error / (2 * s)).clamp_min(-60)) * 1.2**-depth  # (1, 1, h, w)

    pixels = features[0].flatten(1).T.contiguous()  # (h2 * w2, C)
    total, weight_sum = 0, 0
    for source, weight in proposals(mask, field, weights, patch):
        total = total + weight[:, None] * pixels.index_select(0, source)  # (K, C)
        weight_sum = weight_sum + weight[:, None]  # (K, 1)
    filled = corner(features, hole).clone(memory_format=torch.contiguous_format)
    filled.flatten(2)[0, :, hole.flatten() > 0] = (total / weight_sum).T  # (C, K)
    return filled


def best_source(mask: torch.Tensor, field: Field, patch: int = 7) -> torch.Tensor:
    """Where each pixel is copied from by the best patch over it: flat positions y * w2 + x, (1, 1, h, w) int64.

    Known pixels come from themselves. A mean of several patches would blur; one patch keeps the grain. Mask and field
    are as for `vote`.
    """
    x, y = pixel_grid(field.xy)[0]  # (h, w), (h, w)
    source = (y * mask.shape[-1] + x).flatten()  # (h * w,)
    hole = corner(mask, field.xy).flatten() > 0
    chosen = source[hole]  # (K,)
    best = field.error.new_zeros(chosen.shape)  # (K,)
    for proposed, quality in proposals(mask, field, 1 / (field.error + 1e-8), patch):
        chosen = torch.where(quality > best, proposed, chosen)
        best = torch.maximum(best, quality)
    source[hole] = chosen
    return source.view_as(field.error)


def upsample_field(field: Field, pair: PatchPair, generator: torch.Generator) -> Field:
    """Carry the matches to the next finer level, twice the size.

    f(p) = 2 F(p / 2) + p mod 2, with F the coarse field; a patch without a usable coarse match gets a random one

    Args:
        field: the matches at the coarse level.
        pair: the finer level with its canvas.
        generator: the source of randomness.

    Returns:
        A field at the finer level; its errors are those of the coarse level.

    Source:
        Newson et al. 2017: a picture doubled in size is blurred, a field is not, it copies sharp pixels.

    Example:
        >>> field = upsample_field(field, pair, torch.Generator().manual_seed(0))
        >>> features = vote(level.features, level.mask, field)
    """
    (height, width), (down, across), r = pair.size, pair.source_size, pair.radius
    rows, columns = field.xy.shape[-2:]
    x, y = pair.where % width, pair.where // width  # (N,), (N,)
    coarse_x, coarse_y = (x // 2).clamp(r, columns - 1 - r), (y // 2).clamp(r, rows - 1 - r)  # where patches are whole
    match_x, match_y = field.xy[0, :, coarse_y, coarse_x]  # (N,), (N,)
    new_x, new_y = 2 * (match_x - coarse_x) + x, 2 * (match_y - coarse_y) + y
    usable = (match_x >= 0) & (new_x >= 0) & (new_x < across) & (new_y >= 0) & (new_y < down)
    centres = torch.where(usable, new_y * across + new_x, 0)
    drawn = torch.randint(len(pair.sources), centres.shape, generator=generator, device=centres.device)  # (N,)
    centres = torch.where(usable & pair.allowed[centres], centres, pair.sources[drawn])

    xy = torch.full((2, height * width), -1, device=centres.device)  # (2, H * W)
    xy[:, pair.where] = torch.stack([centres % across, centres // across])
    error = field.error.new_zeros(height * width)  # (H * W,)
    error[pair.where] = field.error[0, 0, coarse_y, coarse_x]
    return Field(xy.view(1, 2, height, width), error.view(1, 1, height, width))


def _arrays(field: Field, canvas: Canvas) -> dict[str, torch.Tensor]:
    """What a step lets one look at: "field", "error", and with references "picture"."""
    if len(canvas.starts) == 1:
        return {"field": field.xy, "error": field.error}
    xy, picture = canvas.places(field)
    return {"field": xy, "error": field.error, "picture": picture}


def _full_size(arrays: dict[str, torch.Tensor], mask: torch.Tensor, top: int, left: int) -> dict[str, torch.Tensor]:
    """The window's arrays, (1, C, h, w), in the whole picture and its coordinates, (1, C, H, W)."""
    height, width = arrays["error"].shape[-2:]
    pad = (left, mask.shape[3] - left - width, top, mask.shape[2] - top - height)
    xy, moved = arrays["field"], torch.tensor([left, top], device=mask.device).view(1, 2, 1, 1)
    own = (xy[:, :1] >= 0) & (arrays.get("picture", xy[:, :1] * 0) == 0)  # a reference's coordinates stay
    arrays = {**arrays, "field": torch.where(own, xy + moved, xy)}
    return {name: F.pad(value, pad, value=0 if name == "error" else -1) for name, value in arrays.items()}
