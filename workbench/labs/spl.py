"""Exercises of notebook 13: SPADE, the prior loss, region normalisation, k-means of a feature map, hole-ratio bins."""

import math
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from workbench.labs import Exercise, call, expect, expect_tensor

EPSILON = 1e-5
"""Added to variances."""


def spade(
    x: torch.Tensor, prior: torch.Tensor, shared: nn.Module, to_gamma: nn.Module, to_beta: nn.Module
) -> torch.Tensor:
    """Spatially-adaptive normalisation: each cell's scale and shift are told by the prior.

    y = x' (1 + gamma) + beta, x' = (x - mean) / sqrt(var + 1e-5) over the cells of one picture and one channel

    gamma = to_gamma(s), beta = to_beta(s), s = relu(shared(prior, enlarged to the cells of x by nearest neighbour))

    Args:
        x: (B, C, h, w), features.
        prior: (B, P, h', w'), with as many cells as x or fewer.
        shared: a layer (B, P, h, w) -> (B, S, h, w).
        to_gamma: a layer (B, S, h, w) -> (B, C, h, w).
        to_beta: the same.

    Returns:
        (B, C, h, w).
    """
    seen = F.relu(shared(F.interpolate(prior, x.shape[-2:], mode="nearest")))
    return _scaled(x, (2, 3)) * (1 + to_gamma(seen)) + to_beta(seen)


def _scaled(x: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """Mean 0 and variance 1 over these dimensions."""
    centred = x - x.mean(over, keepdim=True)
    return centred * (centred.square().mean(over, keepdim=True) + EPSILON).rsqrt()


def _test_spade(answer) -> None:
    for seed in (0, 1):
        given = _spade_data(seed)
        before = given.x.clone(), given.prior.clone()
        with torch.no_grad():
            got = call(answer, given.x, given.prior, given.shared, given.to_gamma, given.to_beta)
            expect(
                torch.equal(before[0], given.x) and torch.equal(before[1], given.prior),
                "You change what you were given: expected a new tensor.",
            )
            _is_map(got, given.x)
            _compare_spade(got, given)


def _spade_data(seed: int) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(2, 3, 8, 12, generator=generator) + torch.randn(2, 3, 1, 1, generator=generator)
    x[1] = 3 * x[1] + 1
    x[0, 2] = 0.5  # a channel without any variance
    sizes = {"shared": (4, 5), "to_gamma": (5, 3), "to_beta": (5, 3)}
    layers = {name: nn.utils.skip_init(nn.Conv2d, *n, 3, padding=1) for name, n in sizes.items()}
    for layer in layers.values():
        for weight in layer.parameters():
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return SimpleNamespace(x=x, prior=torch.randn(2, 4, 4, 6, generator=generator), **layers)


def _compare_spade(got: torch.Tensor, given: SimpleNamespace) -> None:
    x, to_gamma, to_beta = given.x, given.to_gamma, given.to_beta
    right = spade(x, given.prior, given.shared, to_gamma, to_beta)
    expect(
        bool(got.isfinite().all()),
        "You get NaN or infinity where a channel is the same everywhere: expected 1e-5 added to the variance.",
    )
    big = F.interpolate(given.prior, x.shape[-2:], mode="nearest")
    seen, unit = F.relu(given.shared(big)), _scaled(x, (2, 3))
    gamma, beta = to_gamma(seen), to_beta(seen)
    smooth = F.relu(given.shared(F.interpolate(given.prior, x.shape[-2:], mode="bilinear")))
    late = F.interpolate(F.relu(given.shared(given.prior)), x.shape[-2:], mode="nearest")
    straight = given.shared(big)
    count = x.shape[2] * x.shape[3]
    told = {
        "You scale by gamma: expected by 1 + gamma, so that a prior that says nothing changes nothing.": unit * gamma
        + beta,
        "You do not normalise: expected x with mean 0 and variance 1 first.": x * (1 + gamma) + beta,
        "You only take the mean away: expected variance 1 too.": (x - x.mean((2, 3), keepdim=True)) * (1 + gamma)
        + beta,
        "You normalise the whole batch together: expected each picture by itself.": _scaled(x, (0, 2, 3)) * (1 + gamma)
        + beta,
        "You normalise all channels together: expected each channel by itself.": _scaled(x, (1, 2, 3)) * (1 + gamma)
        + beta,
        "You normalise over the channels of each cell: expected over the cells of each channel.": _scaled(x, (1,))
        * (1 + gamma)
        + beta,
        "You exchange gamma and beta: expected gamma to scale and beta to shift.": unit * (1 + beta) + gamma,
        "You leave beta out: expected it added at the end.": unit * (1 + gamma),
        "You leave gamma out: expected x' (1 + gamma) + beta.": unit + beta,
        "You leave the ReLU out: expected it between shared and the two layers.": unit * (1 + to_gamma(straight))
        + to_beta(straight),
        "You enlarge the prior smoothly: expected nearest neighbour.": unit * (1 + to_gamma(smooth)) + to_beta(smooth),
        "You enlarge what shared gives: expected the prior enlarged first, then shared.": unit * (1 + to_gamma(late))
        + to_beta(late),
        "You normalise the result too: expected only x.": _scaled(unit * (1 + gamma) + beta, (2, 3)),
        "You divide by the variance: expected by its square root.": unit
        * (x.var((2, 3), keepdim=True, correction=0) + EPSILON).rsqrt()
        * (1 + gamma)
        + beta,
        f"You divide the variance by one cell less: expected by all {count}.": unit
        * ((count - 1) / count) ** 0.5
        * (1 + gamma)
        + beta,
    }
    for words, other in told.items():
        expect(not _same(got, other), words)
    expect(_same(got, right), "Your features are not those of x' (1 + gamma) + beta.")


def prior_loss(guess: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the semantic learner is trained by: how far its guess is from the teacher's features, the hole weighing 4.

    L = mean over pictures, channels and cells of |guess - truth| (1 + 3 m), m the mask at the features' size

    Args:
        guess: (B, T, h, w), differentiated through.
        truth: (B, T, h, w), the teacher's features of the whole picture.
        mask: (B, 1, H, W), 1 = hole; shrunk by nearest neighbour.

    Returns:
        A tensor of one number.
    """
    hole = F.interpolate(mask, guess.shape[-2:], mode="nearest")
    return ((guess - truth).abs() * (1 + 3 * hole)).mean()


def _test_prior_loss(answer) -> None:
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        guess, truth = torch.randn(2, 2, 5, 6, 8, generator=generator)
        mask = torch.zeros(2, 1, 48, 64)
        mask[0, :, 10:33, 13 : 42 + 8 * seed] = 1
        mask[1, :, 3:9, 30:60] = 1
        mask[1, :, 44:, :21] = 1
        got = call(answer, guess.clone().requires_grad_(), truth.clone(), mask.clone())
        _compare_prior_loss(_number(got), guess, truth, mask)


def _compare_prior_loss(got: float, guess: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> None:
    off, size = (guess - truth).abs(), guess.shape[-2:]
    hole = F.interpolate(mask, size, mode="nearest")
    weight = 1 + 3 * hole
    told = {
        "You leave the weight out: expected cells of the hole to count four times.": off.mean(),
        "You weigh by 3 m: expected 1 + 3 m, the known part counts too.": (off * 3 * hole).mean(),
        "You weigh the known part: expected mask 1 = hole to weigh more.": (off * (1 + 3 * (1 - hole))).mean(),
        "You weigh the hole by 3: expected by 1 + 3 = 4.": (off * (1 + 2 * hole)).mean(),
        "You square the differences: expected absolute values.": (off.square() * weight).mean(),
        "You square the weighted differences: expected absolute values.": (off * weight).square().mean(),
        "You divide by the sum of the weights: expected the plain mean over all numbers.": (off * weight).sum()
        / weight.expand_as(off).sum(),
        "You return the sum: expected the mean.": (off * weight).sum(),
        "You add up the channels: expected their mean too.": (off * weight).sum(1).mean(),
        "You look at the hole only: expected all cells, those of the hole weighing more.": (off * hole).sum()
        / (hole.sum() * off.shape[1]),
        "You shrink the mask by averages: expected by nearest neighbour.": (
            off * (1 + 3 * F.adaptive_avg_pool2d(mask, size))
        ).mean(),
        "You shrink the mask smoothly: expected by nearest neighbour.": (
            off * (1 + 3 * F.interpolate(mask, size, mode="bilinear"))
        ).mean(),
        "You make every cell with any hole pixel a hole: expected the mask by nearest neighbour.": (
            off * (1 + 3 * F.adaptive_max_pool2d(mask, size))
        ).mean(),
        "You use the first picture's mask for all: expected each picture's own.": (off * weight[:1]).mean(),
    }
    for words, other in told.items():
        expect(abs(got - float(other)) > 1e-5 * abs(float(other)), words)
    right = float((off * weight).mean())
    expect(abs(got - right) < 1e-4 * right, f"You get {got:.5g}: expected {right:.5g}.")


def _number(got) -> float:
    expect_tensor(got, "a tensor of one number")
    expect(got.numel() == 1, f"You return shape {tuple(got.shape)}, expected a tensor of one number.")
    expect(
        got.requires_grad,
        "You cut the way back to guess: expected a tensor to differentiate, without item(), float() or detach().",
    )
    return float(got.detach())


def region_norm(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Region normalisation: hole and known part are normalised apart, so that neither sets the other's scale.

    y = (x - mean_R) / sqrt(var_R + 1e-5), R the region (hole or known) of the cell, by picture and channel; var_R is
    the mean squared distance from mean_R

    Args:
        x: (B, C, h, w), features.
        mask: (B, 1, H, W), 1 = hole, shrunk to (h, w) by nearest neighbour; one of the regions may be empty.

    Returns:
        (B, C, h, w).
    """
    hole = F.interpolate(mask, x.shape[-2:], mode="nearest")
    result = torch.zeros_like(x)
    for region in (hole, 1 - hole):
        count = region.sum((2, 3), keepdim=True).clamp(min=1)
        centred = (x - (x * region).sum((2, 3), keepdim=True) / count) * region
        result += centred * (centred.square().sum((2, 3), keepdim=True) / count + EPSILON).rsqrt()
    return result


def _test_region_norm(answer) -> None:
    for seed in (0, 1):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(3, 4, 8, 12, generator=generator)
        mask = torch.zeros(3, 1, 32, 48)
        mask[0, :, 5:18, 9:31] = 1
        mask[1, :, 20:31, 2 : 20 + 8 * seed] = 1  # the third picture has no hole
        hole = F.interpolate(mask, (8, 12), mode="nearest")
        x = torch.where(hole > 0, 4 + 0.8 * x, 2 * x - 1)
        x = x * torch.tensor([1.0, 3.0, 0.7]).view(3, 1, 1, 1) + torch.randn(1, 4, 1, 1, generator=generator)
        x[1, 3] = torch.where(hole[1, 0] > 0, x[1, 3], 0.5)  # a region without any variance
        before = x.clone(), mask.clone()
        got = call(answer, x, mask)
        expect(
            torch.equal(before[0], x) and torch.equal(before[1], mask),
            "You change what you were given: expected a new tensor.",
        )
        _is_map(got, x)
        _compare_region_norm(got, x, hole)


def _compare_region_norm(got: torch.Tensor, x: torch.Tensor, hole: torch.Tensor) -> None:
    right, inside = region_norm(x, hole), hole.expand_as(x) > 0
    expect(
        bool(got[2].isfinite().all()),
        "You get NaN for a picture without a hole: expected an empty region to be left out (divide by at least 1).",
    )
    expect(bool(got.isfinite().all()), "You get NaN or infinity: expected 1e-5 added to the variance.")
    count = hole.sum((2, 3), keepdim=True), (1 - hole).sum((2, 3), keepdim=True)
    known = (x * (1 - hole)).sum((2, 3), keepdim=True) / count[1]
    spread = ((x - known).square() * (1 - hole)).sum((2, 3), keepdim=True) / count[1]
    by_known = (x - known) * (spread + EPSILON).rsqrt()
    few = sum(r * (n.clamp(min=2) - 1) / n.clamp(min=2) for n, r in zip(count, (hole, 1 - hole), strict=True))
    total, cells = sum((x * r).mean((2, 3), keepdim=True) * r for r in (hole, 1 - hole)), hole[0].numel()
    deviation = sum(_within(x, r) * r for r in (hole, 1 - hole))
    told = {
        "You normalise the whole plane: expected hole and known part each by itself.": _scaled(x, (2, 3)),
        "You normalise the hole only: expected the known part too.": torch.where(inside, right, x),
        "You normalise the known part only: expected the hole too.": torch.where(inside, x, right),
        "You empty the hole: expected both regions in the result.": torch.where(inside, 0, right),
        "You empty the known part: expected both regions in the result.": torch.where(inside, right, 0),
        "You normalise the hole by the known part's mean and variance: expected by its own.": by_known,
        "You take the known part for the hole twice: expected each region's own numbers.": torch.where(
            inside, by_known, right
        ),
        "You put the whole batch together: expected each picture by itself.": _batch_norm(x, hole, (0, 2, 3)),
        "You put all channels together: expected each channel by itself.": _batch_norm(x, hole, (1, 2, 3)),
        "You divide by the variance: expected by its square root.": right / (deviation + EPSILON).sqrt(),
        "You only take the means away: expected variance 1 in both regions.": right * (deviation + EPSILON).sqrt(),
        "You divide the variance by one cell less: expected by all cells of the region.": right * few.sqrt(),
        f"You divide a region's sum by all {cells} cells: expected by the number of its own.": (x - total)
        * (sum(((x - total).square() * r).mean((2, 3), keepdim=True) * r for r in (hole, 1 - hole)) + EPSILON).rsqrt(),
    }
    for words, other in told.items():
        expect(not _same(got, other), words)
    expect(_same(got, right), "Your result has not mean 0 and variance 1 in each region of each channel.")


def _within(x: torch.Tensor, region: torch.Tensor, over: tuple[int, ...] = (2, 3)) -> torch.Tensor:
    """The variance of x in a region."""
    region = region.expand_as(x)
    count = region.sum(over, keepdim=True).clamp(min=1)
    mean = (x * region).sum(over, keepdim=True) / count
    return ((x - mean).square() * region).sum(over, keepdim=True) / count


def _batch_norm(x: torch.Tensor, hole: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """`region_norm` with statistics over other dimensions."""
    result = torch.zeros_like(x)
    for region in (hole.expand_as(x), 1 - hole.expand_as(x)):
        mean = (x * region).sum(over, keepdim=True) / region.sum(over, keepdim=True).clamp(min=1)
        result += (x - mean) * region * (_within(x, region, over) + EPSILON).rsqrt()
    return result


def k_means(feature_map: torch.Tensor, centres: torch.Tensor, rounds: int) -> torch.Tensor:
    """Lloyd's algorithm on the cells of a feature map: which of K centres each cell belongs to.

    ``rounds`` times: each cell takes the nearest centre, then each centre becomes the mean of its cells; a centre
    without cells stays where it is. In the end each cell takes the nearest centre once more.

    Args:
        feature_map: (1, C, h, w).
        centres: (K, C), where to begin.
        rounds: how often the centres move.

    Returns:
        (h, w) int64, 0 to K - 1, the number of the centre at the smallest Euclidean distance.
    """
    cells = feature_map[0].flatten(1).T  # (h w, C)
    for _ in range(rounds):
        nearest = torch.cdist(cells, centres).argmin(1)
        centres = torch.stack(
            [cells[nearest == k].mean(0) if (nearest == k).any() else c for k, c in enumerate(centres)]
        )
    return torch.cdist(cells, centres).argmin(1).view(feature_map.shape[-2:])


def _test_k_means(answer) -> None:
    for seed, rounds in ((3, 0), (1, 2), (0, 1), (2, 3)):
        feature_map, centres = _clumps(seed)
        before = feature_map.clone(), centres.clone()
        got = call(answer, feature_map, centres, rounds)
        expect_tensor(got, "a tensor (h, w)")
        expect(got.shape != (12, 9), "You exchange height and width: expected (h, w), rows first.")
        expect(got.shape == (9, 12), f"You return shape {tuple(got.shape)}, expected that of the cells, (9, 12).")
        expect(
            not got.is_floating_point() and got.dtype is not torch.bool,
            f"You return {got.dtype}: expected whole numbers, the numbers of the centres.",
        )
        expect(
            torch.equal(before[0], feature_map) and torch.equal(before[1], centres),
            "You change what you were given: expected centres of your own, a copy.",
        )
        _compare_clusters(got.long(), feature_map, centres, rounds)


def _clumps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells about four features, and centres that begin badly; the last one never gets any cell."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(4, (9, 12), generator=generator)
    about = 2 * torch.randn(4, 5, generator=generator) + 1
    cells = about[kind] + 1.2 * torch.randn(9, 12, 5, generator=generator)
    cells = cells * (0.4 + 1.5 * torch.rand(9, 12, 1, generator=generator))  # some are much stronger
    chosen = cells.view(-1, 5)[torch.randperm(108, generator=generator)[:4]]
    return cells.permute(2, 0, 1)[None].contiguous(), torch.cat([chosen, torch.full((1, 5), 60.0)])


def _compare_clusters(got: torch.Tensor, feature_map: torch.Tensor, centres: torch.Tensor, rounds: int) -> None:
    right = k_means(feature_map, centres, rounds)
    expect(not torch.equal(got, right + 1), "You count the centres from 1: expected 0 to K - 1.")
    for words, other in _other_clusters(feature_map, centres, rounds).items():
        expect(torch.equal(other, right) or not torch.equal(got, other), words)
    lost = bool((got == len(centres) - 1).any()) or len(got.unique()) == 1  # a mean over nothing is nan, and spreads
    expect(
        not lost,
        "You give cells to a centre that is nobody's nearest: expected a centre without cells to stay where it is.",
    )
    off = int((got != right).sum())
    expect(off == 0, f"With rounds={rounds} {off} of {right.numel()} cells are in another cluster than expected.")


def _other_clusters(feature_map: torch.Tensor, centres: torch.Tensor, rounds: int) -> dict[str, torch.Tensor]:
    """What typical mistakes find, by what they should be told."""
    cells, size = feature_map[0].flatten(1).T, feature_map.shape[-2:]
    mixed = feature_map.reshape(-1, feature_map.shape[1])

    def lloyd(cells=cells, rounds=rounds, average=lambda x: x.mean(0), far=torch.cdist, best=torch.argmin):
        c = centres
        for _ in range(rounds):
            nearest = best(far(cells, c), 1)
            c = torch.stack([average(cells[nearest == k]) if (nearest == k).any() else c[k] for k in range(len(c))])
        return best(far(cells, c), 1).view(size)

    def angle(a, b):
        return -F.normalize(a, dim=1) @ F.normalize(b, dim=1).T

    others = {
        "You reshape (C, h, w) to (h w, C), which mixes channels and cells: expected flatten, then transpose.": lloyd(
            cells=mixed
        ),
        "You go one round too far: expected as many moves of the centres as rounds says.": lloyd(rounds=rounds + 1),
        "You take the farthest centre: expected the nearest, argmin.": lloyd(best=torch.argmax),
        "You compare directions: expected Euclidean distance.": lloyd(far=angle),
        "You add up |differences|: expected Euclidean distance.": lloyd(far=lambda a, b: torch.cdist(a, b, 1)),
    }
    if rounds:
        others |= {
            "You never move the centres: expected the mean of their cells after each round.": lloyd(rounds=0),
            "You stop before the last choice: expected each cell to choose again after the last move.": lloyd(
                rounds=rounds - 1
            ),
            "You move centres to the median of their cells: expected the mean.": lloyd(
                average=lambda x: x.median(0).values
            ),
        }
    return others


def by_hole_ratio(masks: list[torch.Tensor], scores: list[float], bins) -> list[float]:
    """The mean score of each bin of hole ratios.

    A hole is in the bin (low, high) when low < ratio <= high, ratio the share of its picture's pixels.

    Args:
        masks: N of (1, 1, H, W), sizes may differ, 1 = hole.
        scores: N numbers.
        bins: pairs (low, high), such as `wb.mask.RATIO_BINS`.

    Returns:
        A number a bin, nan for a bin without holes.
    """
    ratios = [int(m.sum()) / m.numel() for m in masks]
    found = [[s for r, s in zip(ratios, scores, strict=True) if low < r <= high] for low, high in bins]
    return [sum(each) / len(each) if each else math.nan for each in found]


_BINS = ((0.0, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5))


def _test_by_hole_ratio(answer) -> None:
    several = (0.06, 0.25, 0.28, 0.44, 0.3, 0.1, 0.5, 0.03, 0.47), (0.25, 0.45, 0.02, 0.2, 0.21, 0.49, 0.3, 0.41)
    for ratios in several:
        masks = [_hole(ratio, (10, 20) if k % 2 else (10, 10)) for k, ratio in enumerate(ratios)]
        scores = [20.0 + 3 * math.sin(7 * k) - 10 * ratio for k, ratio in enumerate(ratios)]
        got = call(answer, [m.clone() for m in masks], list(scores), _BINS)
        expect(
            isinstance(got, list | tuple | torch.Tensor | np.ndarray),
            f"You return a {type(got).__name__}, expected a list: one number a bin.",
        )
        expect(len(got) == len(_BINS), f"You return {len(got)} numbers, expected {len(_BINS)}: one a bin.")
        expect(
            all(isinstance(value, int | float) or getattr(value, "ndim", 1) == 0 for value in got),
            f"You return {type(got[0]).__name__}s in your list, expected one number a bin.",
        )
        _compare_bins([float(value) for value in got], list(ratios), masks, scores)


def _hole(ratio: float, size: tuple[int, int]) -> torch.Tensor:
    """The first pixels of a picture, exactly this share."""
    mask = torch.zeros(1, 1, *size)
    mask.view(-1)[: round(ratio * mask.numel())] = 1
    return mask


def _compare_bins(got: list[float], ratios: list[float], masks: list[torch.Tensor], scores: list[float]) -> None:
    right = by_hole_ratio(masks, scores, _BINS)
    empty = [k for k, value in enumerate(right) if math.isnan(value)]

    def mean(inside, average=lambda s: sum(s) / len(s), nothing=math.nan) -> list[float]:
        found = [[s for r, s in zip(ratios, scores, strict=True) if inside(r, *ends)] for ends in _BINS]
        return [average(each) if each else nothing for each in found]

    def half_open(r, low, high):
        return low < r <= high

    told = {
        "You count a bin's lower end to it: expected low < ratio <= high.": mean(lambda r, a, b: a <= r < b),
        "You count both ends: expected low < ratio <= high, or a hole is in two bins.": mean(
            lambda r, a, b: a <= r <= b
        ),
        "You count neither end: expected low < ratio <= high, or holes get lost.": mean(lambda r, a, b: a < r < b),
        "You measure the known part: expected the share of mask 1 = hole.": mean(
            lambda r, a, b: a < round(1 - r, 6) <= b
        ),
        "You put a hole of exactly 30 % above 0.3, because a float32 mean is a little more: count pixels in whole "
        "numbers, int(mask.sum()) / mask.numel().": mean(
            lambda r, a, b: a < torch.tensor(r, dtype=torch.float32).item() <= b
        ),
        "You add the scores up: expected their mean.": mean(half_open, sum),
        "You return how many holes there are: expected their mean score.": mean(half_open, len),
        "You take the median: expected the mean.": mean(half_open, lambda s: sorted(s)[len(s) // 2]),
        "You divide by the number of all holes: expected by that of the bin.": mean(
            half_open, lambda s: sum(s) / len(scores)
        ),
        "You put everything up to a bin's end into it: expected low < ratio <= high.": mean(lambda r, a, b: r <= b),
    }
    for words, other in told.items():
        expect(not _alike(got, other) or _alike(other, right), words)
    for k in empty:
        expect(
            math.isnan(got[k]),
            f"You return {got[k]:.4g} for a bin without holes: expected nan, nothing was measured there.",
        )
    expect(_alike(got, right), f"You return {_told(got)}: expected {_told(right)}.")


def _alike(a: list[float], b: list[float]) -> bool:
    return all((math.isnan(x) and math.isnan(y)) or abs(x - y) < 1e-4 for x, y in zip(a, b, strict=True))


def _told(values: list[float]) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"


def _is_map(got, x: torch.Tensor) -> None:
    """Whether an answer is a tensor of x's shape."""
    expect_tensor(got, "a tensor (B, C, h, w)")
    expect(got.shape == x.shape, f"You return shape {tuple(got.shape)}, expected that of x, {tuple(x.shape)}.")


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-3)


EXERCISES = [
    Exercise("spl.spade", spade, _test_spade),
    Exercise("spl.prior_loss", prior_loss, _test_prior_loss),
    Exercise("spl.region_norm", region_norm, _test_region_norm),
    Exercise("spl.k_means", k_means, _test_k_means),
    Exercise("spl.by_hole_ratio", by_hole_ratio, _test_by_hole_ratio),
]
