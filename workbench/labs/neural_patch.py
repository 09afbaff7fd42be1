"""Exercises of notebook 12: total variation, the nearest neural patch, the joint loss, coarse to fine, coherence."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from workbench.image import resize
from workbench.labs import Exercise, call, expect, expect_tensor

NEARLY = 0.75
"""A level larger than this share of the finest is left out."""


def total_variation(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """How rough a picture is where it may change: the smoothness term of neural patch synthesis.

    E_tv = mean over pairs of neighbours (side by side, or one above the other) of which at least one pixel is free, and
    over channels, of (difference)^2

    Args:
        image: (1, 3, H, W), differentiated through.
        mask: (1, 1, H, W), 1 = free.

    Returns:
        A tensor of one number.
    """
    total = pairs = 0
    for axis in (2, 3):
        last = mask.shape[axis] - 1
        near = torch.maximum(mask.narrow(axis, 0, last), mask.narrow(axis, 1, last))  # 1 = a pair with a free pixel
        total = total + (image.diff(dim=axis).square() * near).sum()
        pairs = pairs + near.sum()
    return total / (image.shape[1] * pairs)


def _test_total_variation(answer) -> None:
    for seed, hole in ((0, (3, 2, 8, 5)), (1, (5, 0, 10, 2))):
        image = torch.rand(1, 3, 7, 11, generator=torch.Generator().manual_seed(seed))
        mask = torch.zeros(1, 1, 7, 11)
        x0, y0, x1, y1 = hole
        mask[..., y0:y1, x0:x1] = 1
        got = _number(call(answer, image.clone().requires_grad_(), mask.clone()), "image")
        right = float(total_variation(image, mask))
        _compare_variation(got, right, image, mask)


def _compare_variation(got: float, right: float, image: torch.Tensor, mask: torch.Tensor) -> None:
    steps = [image.diff(dim=axis) for axis in (2, 3)]
    either, both = (
        [how(*(mask.narrow(a, k, mask.shape[a] - 1) for k in (0, 1))) for a in (2, 3)]
        for how in (torch.maximum, torch.minimum)
    )
    count = sum(float(e.sum()) for e in either)

    def over(near, power=2) -> float:
        """Mean over these pairs of |difference|^power."""
        return sum((s.abs() ** power * n).sum() for s, n in zip(steps, near, strict=True)) / (3 * sum(map(_sum, near)))

    def like(other) -> bool:
        return abs(got - float(other)) < 1e-4 * abs(float(other))

    alone = [(s.square() * n).sum() / (3 * n.sum()) for s, n in zip(steps, either, strict=True)]
    expect(
        not like(over([torch.ones_like(e) for e in either])),
        "You measure the whole picture: expected only pairs with a free pixel, nothing else can change.",
    )
    expect(
        not like(over(both)),
        "You count only pairs of two free pixels: expected those across the hole's edge too, they hide the seam.",
    )
    one_sided = [[mask.narrow(a, k, mask.shape[a] - 1) for a in (2, 3)] for k in (0, 1)]
    expect(
        not any(map(like, map(over, one_sided))),
        "You look at one pixel of each pair only: expected a pair to count when either of the two is free.",
    )
    expect(
        not like(over(either, 1)), "You take absolute differences: expected their squares, as this method defines it."
    )
    expect(not any(map(like, alone)), "You look in one direction only: expected pairs across and pairs down.")
    expect(
        not like(sum(alone)) and not like(sum(alone) / 2),
        "You average each direction by itself: expected one mean over all pairs, whichever way they lie.",
    )
    expect(not like(3 * right), "You get three times too much: expected a mean over the channels too.")
    expect(not like(3 * count * right), "You return the sum: expected the mean over pairs and channels.")
    free = mask.sum()
    expect(
        not any(map(like, (right * count / free, 3 * right * count / free))),
        "You divide by the number of free pixels: expected that of the pairs, there are more.",
    )
    expect(like(right), f"You get {got:.5g}: expected {right:.5g}.")


def _sum(values: torch.Tensor) -> float:
    return float(values.sum())


def _number(got, of: str) -> float:
    """What was returned as a number; it must be a tensor through which ``of`` can be differentiated."""
    expect_tensor(got, "a tensor of one number")
    expect(got.numel() == 1, f"You return shape {tuple(got.shape)}, expected a tensor of one number.")
    expect(
        got.requires_grad,
        f"You cut the way back to {of}: expected a tensor to differentiate, without item(), float() or detach().",
    )
    return float(got.detach())


def nearest(features: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """For each hole patch its nearest neighbour among the known patches, by normalised cross-correlation.

    nn(P) = argmax over Q of <P, Q> / (|P| |Q|), all 3 x 3 cells and channels in one vector, no mean taken away.
    A hole patch holds at least one hole cell, a known patch none; both lie wholly in the map.

    Args:
        features: (C, H, W), a feature map, at least 0.
        hole: (H, W) bool, cells that see something of the hole.

    Returns:
        (H, W) int64: at the centre of each hole patch the position y * W + x of its neighbour's centre, elsewhere -1.
    """
    height, width = hole.shape
    patches = F.unfold(features[None], 3)[0]  # (9 C, (H - 2) (W - 2))
    touched = F.unfold(hole.float()[None, None], 3)[0].amax(0) > 0
    place = torch.arange(height * width).view(height, width)[1:-1, 1:-1].flatten()
    known = F.normalize(patches[:, ~touched], dim=0)
    found = torch.full((height * width,), -1)
    found[place[touched]] = place[~touched][(patches[:, touched].T @ known).argmax(1)]
    return found.view(height, width)


def _test_nearest(answer) -> None:
    for seed, hole in ((0, (5, 3, 9, 6)), (1, (9, 4, 14, 7))):
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(5, 10, 14, generator=generator).relu()
        features *= 0.5 + 2 * torch.rand(1, 10, 14, generator=generator)  # some cells speak louder
        x0, y0, x1, y1 = hole
        cells = torch.zeros(10, 14, dtype=torch.bool)
        cells[y0:y1, x0:x1] = True
        got = call(answer, features.clone(), cells.clone())
        expect_tensor(got, "a tensor (H, W)")
        expect(got.shape == (10, 14), f"You return shape {tuple(got.shape)}, expected that of hole, (10, 14).")
        expect(
            not got.is_floating_point() and got.dtype is not torch.bool,
            f"You return {got.dtype}: expected whole numbers, the positions y * W + x.",
        )
        _compare_nearest(got.long(), features, cells)


def _compare_nearest(got: torch.Tensor, features: torch.Tensor, hole: torch.Tensor) -> None:
    right, (height, width) = nearest(features, hole), hole.shape
    wanted = right >= 0
    inner = torch.zeros_like(hole)
    inner[1:-1, 1:-1] = True
    expect(
        not torch.equal(got >= 0, hole & inner),
        "You search only for patches with a hole cell in their middle: expected all that hold any hole cell.",
    )
    expect(
        not torch.equal(torch.where(wanted, got, -1), right) or torch.equal(got, right),
        "You write something where no hole patch has its centre: expected -1 there.",
    )
    expect(
        bool((got[wanted] >= 0).all()) and bool((got[~wanted] < 0).all()),
        "You do not answer for the hole patches, or for others: expected a position at each centre of a 3 x 3 patch "
        "with any hole cell, -1 elsewhere.",
    )
    own, found = (values[wanted] for values in (got, right))
    y, x = found // width, found % width
    touched = -F.max_pool2d(-(~hole).float()[None, None], 3, 1)[0, 0].flatten() == 0  # (H - 2) (W - 2)
    grid = (y - 1) * (width - 2) + x - 1
    places = {
        "as x * H + y: expected y * W + x, row by row": x * height + y,
        "of the patch's first cell: expected that of its centre, one row and one column further": found - width - 1,
        "in the grid of patches, which has no frame: expected that in the map, y * W + x": grid,
        "in your list of known patches: expected where in the map that patch lies": (~touched).cumsum(0)[grid] - 1,
    }
    for told, place in places.items():
        expect(not torch.equal(own, place), f"You give the position {told}.")
    for told, other in _other_neighbours(features, hole).items():
        expect(not torch.equal(own, other[wanted]), told)
    here = torch.arange(height * width).view(height, width)[wanted]
    expect(not (own == here).any(), "Your hole patch finds itself: expected the nearest of the known patches.")
    middle = torch.zeros(height * width, dtype=torch.bool).view(height, width)
    middle[1:-1, 1:-1] = ~touched.view(height - 2, width - 2)
    known = middle.flatten()[own.clamp(0, height * width - 1)]
    expect(bool((own < height * width).all()), "You give positions beyond the map: expected y * W + x.")
    expect(
        bool(inner.flatten()[own].all()),
        "You choose a patch that sticks out of the map: expected whole patches, no centre in the outermost cells.",
    )
    expect(bool(known.all()), "You choose patches that touch the hole: expected those without any hole cell.")
    expect(torch.equal(got, right), "Some of your neighbours are not the nearest: expected argmax <P, Q> / (|P| |Q|).")


def _other_neighbours(features: torch.Tensor, hole: torch.Tensor) -> dict[str, torch.Tensor]:
    """What typical mistakes find, by what they should be told."""
    patches = F.unfold(features[None], 3)[0]  # (9 C, N)
    centred = patches - patches.mean(0)
    single = F.unfold(F.normalize(features, dim=0)[None], 3)[0]
    height, width = hole.shape
    touched = F.unfold(hole.float()[None, None], 3)[0].amax(0) > 0
    middle = hole[1:-1, 1:-1].flatten()

    def lay(scores: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        place = torch.arange(height * width).view(height, width)[1:-1, 1:-1].flatten()
        found = torch.full((height * width,), -1)
        found[place[touched]] = place[allowed][scores[touched][:, allowed].argmax(1)]
        return found.view(height, width)

    unit = F.normalize(patches, dim=0)
    dots = patches.T @ patches
    return {
        "You compare by the plain product <P, Q>, which loud patches always win: expected it over |Q|.": lay(
            dots, ~touched
        ),
        "You compare by |P - Q|: expected the normalised product, which overlooks how strong a patch is.": lay(
            -torch.cdist(patches.T, patches.T), ~touched
        ),
        "You take the mean of each patch away: expected the product of the features as they are.": lay(
            centred.T @ F.normalize(centred, dim=0), ~touched
        ),
        "You normalise each cell: expected one length for the whole patch, its 9 cells together.": lay(
            single.T @ single, ~touched
        ),
        "You find the least alike: expected the largest product, argmax.": lay(-patches.T @ unit, ~touched),
        "You ask only that the middle is known: expected no hole cell in the whole patch.": lay(
            patches.T @ unit, ~middle
        ),
    }


def joint_loss(x, reference, mask, layers, tv, weights) -> torch.Tensor:
    """What neural patch synthesis makes small: content, texture and total variation together.

    E = w_c E_c + w_t sum over layers of E_t + w_tv E_tv
    E_c = mean over free pixels and channels of (x - reference)^2
    E_t = mean over hole patches, cells and channels of (P_i - Q_i)^2, Q_i the neighbour of P_i

    Args:
        x: (1, 3, H, W), the picture.
        reference: (1, 3, H, W), what the content term holds on to.
        mask: (1, 1, H, W), 1 = free.
        layers: pairs (P, Q), each (N, C, 3, 3); N and C differ from layer to layer.
        tv: E_tv, a tensor of one number.
        weights: (w_c, w_t, w_tv).

    Returns:
        A tensor of one number.
    """
    content = ((x - reference).square() * mask).sum() / (mask.sum() * x.shape[1])
    texture = sum((p - q).square().mean() for p, q in layers)
    return weights[0] * content + weights[1] * texture + weights[2] * tv


def _test_joint_loss(answer) -> None:
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        leaf, reference = torch.rand(2, 1, 3, 8, 12, generator=generator)
        leaf.requires_grad_()
        mask = torch.zeros(1, 1, 8, 12)
        mask[..., 2:6, 3 : 8 + seed] = 1
        layers = []
        for n, c, size in ((20, 2, 1.0), (5, 7, 0.4)):
            wanted = size * torch.rand(n, c, 3, 3, generator=generator)
            layers.append((size * torch.rand(n, c, 3, 3, generator=generator) * (1 + leaf.mean()), wanted))
        given = leaf, reference, mask, layers, leaf.diff(dim=3).square().mean(), (0.3, 0.9, 2.0)
        _compare_loss(_number(call(answer, *given), "x"), *(_detached(part) for part in given))


def _detached(part):
    if isinstance(part, torch.Tensor):
        return part.detach()
    return [(p.detach(), q) for p, q in part] if isinstance(part, list) else part


def _compare_loss(got: float, x, reference, mask, layers, tv, weights) -> None:
    error = (x - reference).square()
    energies = [float((p - q).square().mean()) for p, q in layers]
    content, texture = float((error * mask).sum() / (3 * mask.sum())), sum(energies)

    def mixed(c=content, t=texture, v=float(tv), weights=weights) -> float:
        return sum(w * float(e) for w, e in zip(weights, (c, t, v), strict=True))

    right, outside = mixed(), 1 - mask
    everything = torch.cat([(p - q).flatten() for p, q in layers]).square().mean()
    told = {
        "You average the content term over the whole picture: expected over the free pixels.": mixed(error.mean()),
        "You compare content outside the hole: expected inside, mask 1 = free.": mixed(
            (error * outside).sum() / (3 * outside.sum())
        ),
        "You divide the content term by the pixels only: expected by the channels too.": mixed(3 * content),
        "You add the content term up: expected its mean over free pixels and channels.": mixed((error * mask).sum()),
        "You average the layers: expected the sum of their energies.": mixed(t=texture / len(layers)),
        "You pour all layers into one mean: expected a mean for each, then their sum.": mixed(t=everything),
        "You add up cells and channels in a patch: expected their mean too.": mixed(
            t=sum((p - q).square().sum((1, 2, 3)).mean() for p, q in layers)
        ),
        "You take absolute differences of patches: expected squares.": mixed(
            t=sum((p - q).abs().mean() for p, q in layers)
        ),
        "You use the first layer only: expected all of them.": mixed(t=energies[0]),
        "You leave the weights out: expected each term times its own.": mixed(weights=(1, 1, 1)),
        "You leave total variation out: expected w_tv times tv.": mixed(v=0),
        "You exchange two weights: expected content first, then texture, then total variation.": mixed(
            weights=(weights[1], weights[0], weights[2])
        ),
    }
    for words, other in told.items():
        expect(abs(got - other) > 1e-5 * abs(other), words)
    expect(abs(got - right) < 1e-4 * right, f"You get {got:.5g}: expected {right:.5g}.")


def pyramid(photo, mask, sides, content, optimise) -> torch.Tensor:
    """Coarse to fine: each level's result starts the next, and is what its content term holds on to.

    The finest level has the long side min(last of sides, the photograph's); before it come those of ``sides`` that are
    at most three quarters of it. A level of long side s is round(n s / long) for each side n, long being the
    photograph's. A pixel of a level is free if it holds any of the hole. The coarsest level begins with
    ``content(picture, free)`` in the hole, each later one with the result before, enlarged; known pixels are always
    the photograph's, resized. What a level begins with is its content reference.

    Args:
        photo: (1, 3, H, W) in [0, 1]; its hole is smoothly filled, so that resizing brings nothing in from there.
        mask: (1, 1, H, W), 1 = hole.
        sides: long sides in pixels, rising, such as (128, 256, 512).
        content: ``content(picture, free) -> picture``, paints all of it.
        optimise: ``optimise(start, reference, free) -> picture``, the work of one level.

    Returns:
        (1, 3, h, w), the finest level's result.
    """
    long, filled = max(photo.shape[-2:]), None
    finest = min(long, sides[-1])
    for side in [s for s in sides if s <= NEARLY * finest] + [finest]:
        size = tuple(round(n * side / long) for n in photo.shape[-2:])
        known, free = resize(photo, size), F.adaptive_max_pool2d(mask, size)
        guess = content(known, free) if filled is None else resize(filled, size)
        start = torch.where(free > 0, guess, known)
        filled = optimise(start, start, free)
    return filled


def _test_pyramid(answer) -> None:
    coarse = torch.rand(1, 3, 10, 15, generator=torch.Generator().manual_seed(0))
    photo = resize(coarse, (40, 60))
    photo = (photo + 0.2 * torch.rand(photo.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    mask = torch.zeros(1, 1, 40, 60)
    mask[..., 12:29, 21:42] = 1
    mask[..., 33, 5] = 1  # a scratch of one pixel
    for sides in ((16, 32, 60), (16, 48, 56), (16, 32, 128)):
        film = _record(answer, photo, mask, sides)
        right = _record(pyramid, photo, mask, sides)
        _compare_levels(film, right, (40, 60), sides)
        _compare_contents(film, right, photo)


def _record(answer, photo, mask, sides) -> SimpleNamespace:
    """Calls an answer with a content network and an optimiser that write down what they are given."""
    film = SimpleNamespace(asked=[], starts=[], references=[], masks=[], results=[], guesses=[], returned=None)

    def content(picture, free):
        film.asked.append(tuple(picture.shape[-2:]))
        generator = torch.Generator().manual_seed(len(film.asked))
        film.guesses.append(0.5 * picture + 0.5 * torch.rand(picture.shape, generator=generator))
        return film.guesses[-1].clone()

    def optimise(start, reference, free):
        film.starts.append(start.clone())
        film.references.append(reference.clone())
        film.masks.append(free.clone())
        generator = torch.Generator().manual_seed(100 + len(film.starts))
        new = 0.5 * start + 0.5 * torch.rand(start.shape, generator=generator)
        film.results.append(torch.where(free > 0, new, start))
        return film.results[-1].clone()

    film.returned = call(answer, photo.clone(), mask.clone(), sides, content, optimise)
    return film


def _compare_levels(film, right, size: tuple[int, int], sides) -> None:
    got = film.returned
    expect_tensor(got, "the finest level's picture")
    expect(film.starts != [], "You never call optimise: expected one call a level.")
    levels, expected = ([tuple(t.shape[-2:]) for t in f.starts] for f in (film, right))
    told = f"for sides {sides} of a photograph of {size[0]} x {size[1]}"
    expect(
        levels == expected or levels != expected[::-1],
        f"You go from fine to coarse {told}: expected the smallest first.",
    )
    expect(
        levels == expected or levels != [(w, h) for h, w in expected],
        f"You exchange height and width {told}: expected (H, W).",
    )
    expect(max(levels) <= size, f"You enlarge the photograph {told}: expected no level larger than it is.")
    expect(
        levels == expected or [n for n in levels if n in expected] != expected,
        f"You use {len(levels)} levels, {levels}, {told}: expected none of more than three quarters of the finest "
        "beside it.",
    )
    expect(
        levels == expected or levels != expected[:-1],
        f"You stop at {levels[-1]} {told}: expected the finest level, {expected[-1]}, at the end.",
    )
    expect(levels == expected, f"Your levels are {levels} {told}: expected {expected}.")


def _compare_contents(film, right, photo: torch.Tensor) -> None:
    expect(film.asked != [], "You never ask the content network: expected its picture in the coarsest level's hole.")
    expect(
        len(film.asked) == 1 and film.asked[0] == right.asked[0],
        f"You ask the content network at {film.asked}: expected once, at the coarsest level, {right.asked[0]}.",
    )
    for level in range(len(film.starts)):
        _compare_mask(film.masks[level], right.masks[level], level + 1)
        _compare_start(film, right, level, photo)
    expect(
        film.returned.shape == right.returned.shape and _same(film.returned, right.returned),
        "You return another picture than the last level's result: expected what optimise gave back.",
    )


def _compare_mask(got: torch.Tensor, right: torch.Tensor, number: int) -> None:
    expect(got.shape == right.shape, f"Your mask at level {number} has shape {tuple(got.shape)}: shrink it too.")
    expect(
        bool(((got == 0) | (got == 1)).all()),
        f"Your mask at level {number} is soft: expected 1 where a pixel holds any of the hole, 0 elsewhere.",
    )
    expect(
        torch.equal(got, right),
        f"Your mask at level {number} loses or wins pixels: expected 1 where a pixel holds any of the hole "
        "(adaptive_max_pool2d).",
    )


def _compare_start(film, right, level: int, photo: torch.Tensor) -> None:
    start, free, number = film.starts[level], right.masks[level], level + 1
    size, first = tuple(start.shape[-2:]), level == 0
    known, guess = resize(photo, size), resize(right.guesses[0], size)
    expect(
        _same(start, known, 1 - free),
        f"You keep the {'content network' if first else 'enlarged level'}'s known pixels at level {number}: expected "
        "the photograph's there, torch.where(free > 0, ..., photograph).",
    )
    expect(
        first or not _same(start, guess, free),
        f"You start level {number} with the content network's picture again: expected the result of level {level}.",
    )
    expect(
        not _same(start, known, free),
        f"You start level {number} with the photograph as it is: expected the "
        f"{'content network' if first else 'enlarged result'} in the hole.",
    )
    expect(
        first or not _same(start, resize(film.starts[level - 1], size), free),
        f"You start level {number} with what level {level} began with: expected what optimise gave back.",
    )
    expect(
        _same(start, right.starts[level]),
        f"Your start of level {number} is not the expected one: enlarge the result before with wb.image.resize.",
    )
    expect(
        film.references[level].shape == start.shape and _same(film.references[level], start),
        f"You hold level {number} on to another picture than it begins with: expected the same as reference.",
    )


def _same(a: torch.Tensor, b: torch.Tensor, where=1.0) -> bool:
    return torch.allclose(a * where, b * where, atol=1e-5)


def coherence(offsets: torch.Tensor) -> torch.Tensor:
    """How often hole patches side by side have neighbours side by side.

    Neighbours lie as their patches do exactly where the two offsets are the same, right and down.

    Args:
        offsets: (1, 2, h, w), where each hole patch found its neighbour; NaN where there is no hole patch.

    Returns:
        The share, 0 to 1, of the pairs of hole patches (side by side, or one above the other) with equal offsets.
    """
    equal = pairs = 0
    for axis in (2, 3):
        steps = offsets.diff(dim=axis)  # (1, 2, ...), NaN where a patch is missing
        equal = equal + (steps == 0).all(1).sum()
        pairs = pairs + (~steps.isnan().any(1)).sum()
    return equal / pairs


def _test_coherence(answer) -> None:
    for seed in (0, 1):
        offsets = _pieces(seed)
        got = call(answer, offsets.clone())
        expect(
            isinstance(got, (int, float, torch.Tensor)),
            f"You return a {type(got).__name__}, expected the share, a number.",
        )
        expect(
            not isinstance(got, torch.Tensor) or got.numel() == 1,
            f"You return shape {tuple(getattr(got, 'shape', ()))}, expected one number for the whole field.",
        )
        _compare_coherence(float(got), offsets)


def _pieces(seed: int) -> torch.Tensor:
    """Offsets of a hole of ragged shape, (1, 2, 7, 9): constant in pieces, some single ones their own."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.full((1, 2, 7, 9), torch.nan)
    offsets[..., 1:6, 1:8] = torch.tensor([8.0, -4.0])[:, None, None]
    offsets[:, 0, 3:6, 2:5] = 12.0
    offsets[:, 1, 1:4, 6] = 16.0
    for y, x in torch.randint(1, 6, (4, 2), generator=generator).tolist():
        offsets[0, :, y, x] = torch.randn(2, generator=generator)
    offsets[..., 1, :3] = torch.nan
    offsets[..., 4:, 7] = torch.nan
    return offsets


def _compare_coherence(got: float, offsets: torch.Tensor) -> None:
    steps = [offsets.diff(dim=axis) for axis in (2, 3)]
    there = [~step.isnan().any(1) for step in steps]
    same = [(step == 0).all(1) for step in steps]
    equal, pairs = (sum(int(t.sum()) for t in each) for each in (same, there))
    right = equal / pairs

    def like(other) -> bool:
        return abs(got - float(other)) < 1e-4

    expect(got == got, "You get NaN: expected only pairs of two hole patches; NaN stands where there is none.")
    expect(not like(equal), "You count the pairs with equal offsets: expected their share of all pairs.")
    expect(not like(1 - right), "You tell the share of pairs that differ: expected that of those that agree.")
    expect(
        not like(equal / sum(t.numel() for t in there)),
        "You divide by all pairs of cells: expected those of two hole patches, NaN stands where there is none.",
    )
    either = sum(int((step == 0).any(1).sum()) for step in steps) / pairs
    expect(not like(either), "One equal number of the two is enough for you: expected right and down to be equal.")
    apart = sum(int((step == 0).sum()) for step in steps) / (2 * pairs)
    expect(not like(apart), "You count right and down apart: expected pairs that agree in both.")
    alone = [float(s.sum() / t.sum()) for s, t in zip(same, there, strict=True)]
    expect(not any(map(like, alone)), "You look in one direction only: expected pairs across and pairs down.")
    expect(
        not like(sum(alone) / 2),
        "You average each direction by itself: expected one share of all pairs, whichever way they lie.",
    )
    expect(like(right), f"You get {got:.4g}: expected {right:.4g}.")


EXERCISES = (
    Exercise("neural_patch.total_variation", total_variation, _test_total_variation),
    Exercise("neural_patch.nearest", nearest, _test_nearest),
    Exercise("neural_patch.joint_loss", joint_loss, _test_joint_loss),
    Exercise("neural_patch.pyramid", pyramid, _test_pyramid),
    Exercise("neural_patch.coherence", coherence, _test_coherence),
)
