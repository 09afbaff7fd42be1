"""The matcher: for every patch of one picture, (nearly) the most similar patch of another.

Read it from top to bottom: `Field` is the answer, `PatchPair` compares patches, the three short steps after it
are the algorithm, `nearest_neighbour_field` puts them in order, and `exhaustive_field` is the truth they chase.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench import check

CHUNK = 16384  # patches compared at a time: bounds the memory of `PatchPair.distance`
REACHES = (8, 4, 2, 1)  # pixels; how far propagation looks, far neighbours first


@dataclass(frozen=True)
class Field:
    """A nearest-neighbour field: where each target patch found its match, and how good that match is.

    Args:
        xy: centre of the best source patch for every target pixel, (1, 2, H, W) int64, x first, in source pixels;
            -1 where nothing was to be matched.
        error: mean squared difference per channel and pixel of the two patches, (1, 1, H, W); 0 where nothing
            was to be matched.
    """

    xy: torch.Tensor
    error: torch.Tensor

    @property
    def inside(self) -> torch.Tensor:
        """The target pixels that have a match, (1, 1, H, W) bool."""
        return self.xy[:, :1] >= 0

    @property
    def offsets(self) -> torch.Tensor:
        """The match relative to the pixel itself, (1, 2, H, W) int64: right, down; 0 where there is no match."""
        return torch.where(self.inside, self.xy - pixel_grid(self.xy), 0)

    @property
    def mean_error(self) -> float:
        """The mean of `error` over the pixels that have a match."""
        return self.error[self.inside].mean().item()


class PatchPair:
    """A target and a source picture, ready to have their patches compared.

    A source patch lies wholly inside its picture and touches no hole. A target patch may hang over the edge
    (the edge pixels are repeated there), so that every target pixel has one.

    Args:
        target: picture whose patches look for a match, (1, C, H, W); any number of channels, any range.
        source: picture that holds the matches, (1, C, H2, W2).
        patch: width of a patch, odd, in pixels.
        target_mask: (1, 1, H, W), 1 = hole; with it only the patches that touch the hole are matched.
        source_mask: (1, 1, H2, W2), 1 = hole; with it no source patch touches the hole.
        overhang: False matches only target patches that lie wholly inside the picture.

    Raises:
        ValueError: no source patch lies wholly inside the known part of the picture.

    Example:
        >>> pair = PatchPair(target, source, patch=7)
        >>> pair.distance(pair.where, pair.sources[0].expand(len(pair.where))).mean()
    """

    def __init__(self, target, source, *, patch=7, target_mask=None, source_mask=None, overhang=True):
        self.patch, self.radius = patch, patch // 2
        self.size, self.source_size = tuple(target.shape[-2:]), tuple(source.shape[-2:])
        self.source_rows = patch_rows(source, patch)
        self.set_target(target)

        allowed = patch_centres(source, patch)  # (1, 1, H2, W2)
        if source_mask is not None:
            allowed = allowed & (grow(source_mask, self.radius) == 0)
        self.allowed = allowed.flatten()  # (H2 * W2,) bool: may a source patch be centred here?
        self.sources = self.allowed.nonzero()[:, 0]  # (M,) the same as a list of flat positions y * W2 + x
        if len(self.sources) == 0:
            raise ValueError(
                f"source is {self.source_size} (H, W) and has no {patch} x {patch} patch without a hole pixel "
                "(1 = hole). Take a smaller patch, or a mask that keeps more of the picture."
            )
        wanted = torch.ones_like(target[:, :1], dtype=torch.bool) if overhang else patch_centres(target, patch)
        if target_mask is not None:
            wanted = wanted & (grow(target_mask, self.radius) > 0)
        self.where = wanted.flatten().nonzero()[:, 0]  # (N,) flat positions y * W + x of the patches to be matched

    def set_target(self, target: torch.Tensor) -> None:
        """Put another picture (1, C, H, W) of the same size in the target's place."""
        padded = F.pad(target, (self.radius,) * 4, mode="replicate")  # (1, C, H + 2r, W + 2r)
        self.target_rows = patch_rows(padded, self.patch)

    def target_patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """The patches around these target pixels (n,), flat positions, one a row: (n, p * p * C)."""
        width = self.size[1] + 2 * self.radius  # pixel (x, y) has its patch's top left corner at (x, y) once padded
        return cut_patches(self.target_rows, pixels // self.size[1] * width + pixels % self.size[1], width, self.patch)

    def source_patches(self, centres: torch.Tensor) -> torch.Tensor:
        """The source patches with these allowed centres (n,), flat positions, one a row: (n, p * p * C)."""
        width = self.source_size[1]
        return cut_patches(self.source_rows, centres - self.radius * (width + 1), width, self.patch)

    def distance(self, pixels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """The patch distance: how much a target patch differs from a source patch.

        d = mean over the patch's pixels and channels of (target - source)^2

        Args:
            pixels: target pixels as flat positions y * W + x, (n,).
            centres: centres of the source patches as flat positions y * W2 + x, (n,), allowed ones.

        Returns:
            The distances, (n,).
        """
        distances = [self.target_rows.new_zeros(0)]
        for i, j in zip(pixels.split(CHUNK), centres.split(CHUNK), strict=True):
            difference = self.target_patches(i).sub_(self.source_patches(j))  # (n, p * p * C)
            distances.append(torch.linalg.vecdot(difference, difference) / difference.shape[1])  # (n,)
        return torch.cat(distances)

    def field(self, centres: torch.Tensor) -> Field:
        """The field in which the pixels `where` have these matches (N,), flat positions; measures the errors."""
        height, width = self.size
        xy = torch.full((2, height * width), -1, device=centres.device)  # (2, H * W)
        xy[:, self.where] = torch.stack([centres % self.source_size[1], centres // self.source_size[1]])
        error = self.target_rows.new_zeros(height * width)  # (H * W,)
        error[self.where] = self.distance(self.where, centres)
        return Field(xy.view(1, 2, height, width), error.view(1, 1, height, width))

    def centres(self, field: Field) -> torch.Tensor:
        """The way back: the matches of the pixels `where` as flat positions y * W2 + x, (N,)."""
        x, y = field.xy[0].flatten(1)[:, self.where]  # (N,), (N,)
        return y * self.source_size[1] + x

    def better(self, field: Field, candidate: torch.Tensor) -> Field:
        """Pixel by pixel, keep whichever match has the smaller distance.

        Args:
            field: the best matches so far.
            candidate: another guess for every pixel, (1, 2, H, W) int64, x first; guesses that leave the source
                or touch its hole are passed over.

        Returns:
            The improved field; no error in it is larger than before.
        """
        height, width = self.source_size
        x, y = candidate[0].flatten(1)[:, self.where]  # (N,), (N,)
        exists = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        flat = torch.where(exists, y * width + x, 0)
        worth = exists & self.allowed[flat] & (flat != self.centres(field))  # after a few passes most are not
        pixels, flat = self.where[worth], flat[worth]  # (n,), (n,)
        distance = self.distance(pixels, flat)  # (n,)
        closer = distance < field.error.flatten()[pixels]
        pixels, flat, distance = pixels[closer], flat[closer], distance[closer]
        xy, error = field.xy.flatten(2).clone(), field.error.flatten().clone()  # (1, 2, H * W), (H * W,)
        xy[0, :, pixels] = torch.stack([flat % width, flat // width])
        error[pixels] = distance
        return Field(xy.view_as(field.xy), error.view_as(field.error))


def random_field(pair: PatchPair, generator: torch.Generator) -> Field:
    """Initialisation: every target patch gets a source patch drawn blindly.

    f(p) ~ uniform over all allowed source centres

    Args:
        pair: the two pictures.
        generator: the source of randomness, on the pictures' device.

    Returns:
        A field whose matches are mostly bad, and here and there, by luck, good.

    Source:
        Barnes et al. 2009.

    Example:
        >>> field = random_field(pair, torch.Generator().manual_seed(0))
        >>> field.xy.shape                               # (1, 2, H, W)
    """
    drawn = torch.randint(len(pair.sources), pair.where.shape, generator=generator, device=pair.where.device)  # (N,)
    return pair.field(pair.sources[drawn])


def propagate(pair: PatchPair, field: Field, reach: int = 1) -> Field:
    """Propagation: a pixel tries what its four neighbours found, shifted by the step between them.

    f(p) <- whichever of f(p) and f(p - s) + s has the smaller distance, s = (+-reach, 0), (0, +-reach)

    Args:
        pair: the two pictures.
        field: the matches so far.
        reach: distance to the neighbours, in pixels, 1 or more.

    Returns:
        A field with no larger error anywhere: good guesses have spread to their surroundings.

    Source:
        Barnes et al. 2009; differs from the paper in that all pixels move at once instead of one
        after the other in scan order, so a guess travels only `reach` pixels per step; steps of 8, 4, 2, 1 pixels
        make up for it ("jump flooding", Rong and Tan 2006), and an array library does each of them in one go.

    Example:
        >>> for reach in (8, 4, 2, 1):
        ...     field = propagate(pair, field, reach)
    """
    for dx, dy in ((reach, 0), (0, reach), (-reach, 0), (0, -reach)):
        found = shift(field.xy, dx, dy)  # what the pixel at (x - dx, y - dy) found
        step = torch.tensor([dx, dy], device=found.device).view(1, 2, 1, 1)
        field = pair.better(field, torch.where(found >= 0, found + step, -1))
    return field


def random_search(
    pair: PatchPair, field: Field, generator: torch.Generator, radius: float | None = None, alpha: float = 0.5
) -> Field:
    """Random search: a pixel tries random places around its match, in ever smaller circles.

    u_i = v0 + w * alpha^i * R_i, with R_i uniform in [-1, 1]^2 and i = 0, 1, ... until w * alpha^i < 1 pixel

    Args:
        pair: the two pictures.
        field: the matches v0 so far.
        generator: the source of randomness, on the pictures' device.
        radius: the first radius w, in pixels; None takes the larger side of the source.
        alpha: how the radius shrinks, between 0 and 1.

    Returns:
        A field with no larger error anywhere: it has left some bad matches behind.

    Source:
        Barnes et al. 2009; differs from the paper in that v0 is the best match so far
        instead of the one before the search (all pixels search at once, so the newer one costs nothing).

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> field = random_search(pair, field, generator, radius=32)
    """
    radius = float(max(pair.source_size)) if radius is None else float(radius)
    while radius >= 1:
        r = 2 * torch.rand(field.xy.shape, generator=generator, device=field.xy.device) - 1  # (1, 2, H, W)
        field = pair.better(field, field.xy + (radius * r).round().long())
        radius *= alpha
    return field


def nearest_neighbour_field(
    target: torch.Tensor,
    source: torch.Tensor,
    *,
    patch: int = 7,
    iterations: int = 8,
    seed: int = 0,
    target_mask: torch.Tensor | None = None,
    source_mask: torch.Tensor | None = None,
    init: Field | None = None,
) -> Field:
    """PatchMatch: an approximate nearest-neighbour field between the patches of two pictures.

    f(p) ~ argmin over q of d(target patch at p, source patch at q)

    Args:
        target: picture whose patches look for a match, (1, 3, H, W), in [0, 1].
        source: picture that holds the matches, (1, 3, H2, W2), in [0, 1]; of any size, at least one patch.
        patch: width of a patch, odd, in pixels.
        iterations: rounds of propagation and random search, 0 or more.
        seed: seed of the random guesses; the same seed gives the same field.
        target_mask: (1, 1, H, W), 1 = hole; with it only the patches that touch the hole are matched.
        source_mask: (1, 1, H2, W2), 1 = hole; with it no source patch touches the hole.
        init: a field to start from; its matches are kept where they beat a random guess.

    Returns:
        A Field with xy (1, 2, H, W) and error (1, 1, H, W).

    Raises:
        ValueError: wrong shape or range, an even patch, or no source patch without a hole pixel.

    Source:
        Barnes, Shechtman, Finkelstein, Goldman, "PatchMatch: A Randomized Correspondence Algorithm for Structural
        Image Editing", SIGGRAPH 2009; differs from the paper in the order of work (see `propagate`), for which 8
        rounds instead of its 5 make up, and in source patches that never hang over the edge.

    Example:
        >>> field = nearest_neighbour_field(left, right, patch=7)
        >>> field.offsets[0, :, 40, 60]                  # how far the patch at x = 60, y = 40 has moved
    """
    pair = _checked_pair(target, source, patch, target_mask, source_mask)
    check.integer(iterations, "iterations", 0)
    generator = torch.Generator(target.device).manual_seed(check.seed(seed))
    field = random_field(pair, generator)
    if init is not None:
        check.same_size(init.xy, target, "init", "target")
        field = pair.better(field, init.xy)
    for _ in range(iterations):
        for reach in REACHES:
            field = propagate(pair, field, reach)
        field = random_search(pair, field, generator)
    return field


def exhaustive_field(
    target: torch.Tensor,
    source: torch.Tensor,
    *,
    patch: int = 7,
    target_mask: torch.Tensor | None = None,
    source_mask: torch.Tensor | None = None,
) -> Field:
    """The exact nearest-neighbour field, by comparing every target patch with every source patch.

    f(p) = argmin over q of d(target patch at p, source patch at q)

    Args:
        target, source, patch, target_mask, source_mask: as for `nearest_neighbour_field`.

    Returns:
        A Field with xy (1, 2, H, W) and error (1, 1, H, W). Exact up to float rounding: of two matches that differ
        by less than about 1e-6 either may win. Memory stays below 1 GiB; time grows with H * W * H2 * W2.

    Raises:
        ValueError: wrong shape or range, an even patch, or no source patch without a hole pixel.

    Source:
        The brute-force baseline that Barnes et al. 2009 compare with.

    Example:
        >>> exact = exhaustive_field(left, right)
        >>> field.mean_error / exact.mean_error          # 1.04: PatchMatch is 4 % worse
    """
    pair = _checked_pair(target, source, patch, target_mask, source_mask)
    found = [nearest_rows(pair.target_patches(part), pair) for part in pair.where.split(CHUNK)]
    return pair.field(torch.cat(found) if found else pair.where)


def nearest_rows(patches: torch.Tensor, pair: PatchPair, weight: torch.Tensor | None = None) -> torch.Tensor:
    """The source patch nearest to each of these patches, by comparing with all.

    argmin over s of sum w (t - s)^2, multiplied out to  sum w t^2 - 2 (w t) . s + w . s^2  and so made a matrix
    product; the first term is the same for every s and is left out.

    Args:
        patches: patches t, one a row, (n, D).
        pair: where the source patches s come from.
        weight: weights w, (n, D), 0 or more; None = all 1.

    Returns:
        Flat positions of the centres of the nearest source patches, (n,).
    """
    best = patches.new_full((len(patches),), float("inf"))  # (n,)
    found = torch.zeros_like(best, dtype=torch.long)
    for centres in pair.sources.split(4096):
        s = pair.source_patches(centres)  # (m, D)
        for rows in torch.arange(len(patches), device=patches.device).split(4096):
            if weight is None:
                d = torch.addmm(s.square().sum(1)[None], patches[rows], s.T, alpha=-2)  # (rows, m)
            else:
                d = torch.addmm(weight[rows] @ s.square().T, weight[rows] * patches[rows], s.T, alpha=-2)  # (rows, m)
            low, at = d.min(1)  # (rows,), (rows,)
            found[rows] = torch.where(low < best[rows], centres[at], found[rows])
            best[rows] = torch.minimum(low, best[rows])
    return found


def _checked_pair(target, source, patch, target_mask, source_mask) -> PatchPair:
    check_patch(patch)
    for name, picture, mask in (("target", target, target_mask), ("source", source, source_mask)):
        check.image(picture, name)
        if len(picture) != 1:
            raise ValueError(f"{name} holds {len(picture)} pictures, expected one, (1, 3, H, W). Loop over the batch.")
        if mask is not None:
            check.same_size(check.mask(mask, name=f"{name}_mask"), picture, f"{name}_mask", name)
    return PatchPair(target, source, patch=patch, target_mask=target_mask, source_mask=source_mask)


def check_patch(patch: int) -> int:
    """The width of a patch: an odd whole number, so that a patch has a centre."""
    if check.integer(patch, "patch", 1) % 2 == 0:
        raise ValueError(f"patch is {patch}, expected an odd number of pixels, so that a patch has a centre. Take 7.")
    return patch


def patch_rows(picture: torch.Tensor, patch: int) -> torch.Tensor:
    """Every run of p neighbouring pixels in reading order, (H * W - p + 1, p * C): a view that copies nothing.

    Row k begins at pixel k, so row k + 1 repeats all but one pixel of row k: the same memory seen through
    overlapping windows. A patch is p of these rows.
    """
    _, channels, height, width = picture.shape
    pixels = picture[0].permute(1, 2, 0).contiguous()  # (H, W, C)
    return pixels.as_strided((max(0, height * width - patch + 1), patch * channels), (channels, 1))


def cut_patches(rows: torch.Tensor, corners: torch.Tensor, width: int, patch: int) -> torch.Tensor:
    """The patches with these top left corners (n,), flat positions in a picture so wide: (n, p * p * C)."""
    lines = corners[:, None] + width * torch.arange(patch, device=corners.device)  # (n, p): where each line begins
    return rows.index_select(0, lines.flatten()).view(len(corners), patch * rows.shape[1])  # (n, p * p * C)


def patch_centres(picture: torch.Tensor, patch: int) -> torch.Tensor:
    """Where a patch lies wholly inside the picture, (1, 1, H, W) bool."""
    r, (height, width) = patch // 2, picture.shape[-2:]
    whole = torch.zeros_like(picture[:, :1], dtype=torch.bool)
    whole[..., r : max(r, height - r), r : max(r, width - r)] = True
    return whole


def grow(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """The mask (1, 1, H, W) with its 1s grown by `radius` pixels to every side: where a patch touches the hole."""
    tall = F.max_pool2d(mask, (2 * radius + 1, 1), 1, (radius, 0))
    return F.max_pool2d(tall, (1, 2 * radius + 1), 1, (0, radius))


def corner(picture: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The upper left part of a picture (B, C, H, W) that is as large as ``like``."""
    return picture[..., : like.shape[-2], : like.shape[-1]]


def shift(xy: torch.Tensor, dx: int, dy: int) -> torch.Tensor:
    """The field (1, 2, H, W) moved right by dx and down by dy pixels; -1 comes in from outside."""
    moved = torch.full_like(xy, -1)
    height, width = xy.shape[-2:]
    if abs(dx) < width and abs(dy) < height:
        to_y, to_x = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
        from_y, from_x = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
        moved[..., to_y, to_x] = xy[..., from_y, from_x]
    return moved


def pixel_grid(like: torch.Tensor) -> torch.Tensor:
    """Each pixel's own coordinates, (1, 2, H, W) int64, x first."""
    height, width = like.shape[-2:]
    rows, columns = torch.arange(height, device=like.device), torch.arange(width, device=like.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")  # (H, W), (H, W)
    return torch.stack([x, y])[None]  # (1, 2, H, W)
