"""Answers to the exercises on SPL (notebook 13), as in `answers`."""

import math
import statistics

import numpy as np
import torch
import torch.nn.functional as F

# spl.spade


def spade_instance_norm(x, prior, shared, to_gamma, to_beta):
    """With PyTorch's own instance normalisation."""
    seen = shared(F.interpolate(prior, size=x.shape[2:])).clamp(min=0)
    gamma, beta = to_gamma(seen), to_beta(seen)
    return F.instance_norm(x) + F.instance_norm(x) * gamma + beta


def spade_loop(x, prior, shared, to_gamma, to_beta):
    """Picture by picture, channel by channel."""
    height, width = x.shape[2:]
    rows = torch.tensor([y * prior.shape[2] // height for y in range(height)])
    columns = torch.tensor([c * prior.shape[3] // width for c in range(width)])
    s = torch.relu(shared(prior[:, :, rows][..., columns]))
    gamma, beta = to_gamma(s), to_beta(s)
    out = torch.empty_like(x)
    for b in range(len(x)):
        for c in range(x.shape[1]):
            plane = x[b, c]
            unit = (plane - plane.mean()) / torch.sqrt(plane.var(unbiased=False) + 1e-5)
            out[b, c] = unit * (1 + gamma[b, c]) + beta[b, c]
    return out


def _told(x, prior, shared, to_gamma, to_beta):
    s = torch.relu(shared(F.interpolate(prior, x.shape[2:])))
    return to_gamma(s), to_beta(s)


def spade_gamma_alone(x, *rest):
    gamma, beta = _told(x, *rest)
    return F.instance_norm(x) * gamma + beta


def spade_not_normalised(x, *rest):
    gamma, beta = _told(x, *rest)
    return x * (1 + gamma) + beta


def spade_mean_only(x, *rest):
    gamma, beta = _told(x, *rest)
    return (x - x.mean((2, 3), keepdim=True)) * (1 + gamma) + beta


def spade_batch_norm(x, *rest):
    gamma, beta = _told(x, *rest)
    return F.batch_norm(x, None, None, training=True) * (1 + gamma) + beta


def spade_layer_norm(x, *rest):
    gamma, beta = _told(x, *rest)
    return F.layer_norm(x, x.shape[1:]) * (1 + gamma) + beta


def spade_cell_norm(x, *rest):
    gamma, beta = _told(x, *rest)
    unit = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)
    return unit * (1 + gamma) + beta


def spade_exchanged(x, *rest):
    gamma, beta = _told(x, *rest)
    return F.instance_norm(x) * (1 + beta) + gamma


def spade_no_beta(x, *rest):
    return F.instance_norm(x) * (1 + _told(x, *rest)[0])


def spade_no_gamma(x, *rest):
    return F.instance_norm(x) + _told(x, *rest)[1]


def spade_no_relu(x, prior, shared, to_gamma, to_beta):
    s = shared(F.interpolate(prior, x.shape[2:]))
    return F.instance_norm(x) * (1 + to_gamma(s)) + to_beta(s)


def spade_bilinear(x, prior, shared, to_gamma, to_beta):
    s = shared(F.interpolate(prior, x.shape[2:], mode="bilinear", align_corners=False)).relu()
    return F.instance_norm(x) * (1 + to_gamma(s)) + to_beta(s)


def spade_enlarged_late(x, prior, shared, to_gamma, to_beta):
    s = F.interpolate(shared(prior).relu(), x.shape[2:])
    return F.instance_norm(x) * (1 + to_gamma(s)) + to_beta(s)


def spade_twice(x, *rest):
    return F.instance_norm(spade_instance_norm(x, *rest))


def spade_variance(x, *rest):
    gamma, beta = _told(x, *rest)
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (var + 1e-5) * (1 + gamma) + beta


def spade_one_less(x, *rest):
    gamma, beta = _told(x, *rest)
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * (1 + gamma) + beta


def spade_no_epsilon(x, *rest):
    gamma, beta = _told(x, *rest)
    mean, std = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True, unbiased=False)
    return (x - mean) / std * (1 + gamma) + beta


def spade_in_place(x, *rest):
    result = spade_instance_norm(x, *rest)
    x -= x.mean((2, 3), keepdim=True)
    return result


def spade_at_the_priors_size(x, prior, shared, to_gamma, to_beta):
    s = shared(prior).relu()
    small = F.instance_norm(F.interpolate(x, prior.shape[2:]))
    return small * (1 + to_gamma(s)) + to_beta(s)


# spl.prior_loss


def prior_by_parts(guess, truth, mask):
    """The whole mean, and three times the hole's part of it."""
    step = mask.shape[2] // guess.shape[2], mask.shape[3] // guess.shape[3]
    hole = mask[:, 0, :: step[0], :: step[1]].bool()  # (B, h, w)
    off = (guess - truth).abs().permute(0, 2, 3, 1)  # (B, h, w, T)
    return (off.sum() + 3 * off[hole].sum()) / off.numel()


def prior_by_loops(guess, truth, mask):
    batch, channels, height, width = guess.shape
    total = 0.0
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                weight = 1 + 3 * mask[b, 0, y * mask.shape[2] // height, x * mask.shape[3] // width]
                total = total + weight * (guess[b, :, y, x] - truth[b, :, y, x]).abs().sum()
    return total / (batch * channels * height * width)


def _off(guess, truth, mask):
    return (guess - truth).abs(), F.interpolate(mask, guess.shape[2:], mode="nearest")


def prior_plain(guess, truth, mask):
    return F.l1_loss(guess, truth)


def prior_three_m(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return (off * 3 * m).mean()


def prior_known(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return (off * (4 - 3 * m)).mean()


def prior_times_three(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return (off * torch.where(m > 0, 3.0, 1.0)).mean()


def prior_squared(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return (off**2 * (1 + 3 * m)).mean()


def prior_weighted_average(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    weight = (1 + 3 * m).expand_as(off)
    return (off * weight).sum() / weight.sum()


def prior_sum(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return (off * (1 + 3 * m)).sum()


def prior_channels(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return (off.sum(1, keepdim=True) * (1 + 3 * m)).mean()


def prior_hole_only(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return off[(m > 0).expand_as(off)].mean()


def prior_averaged_mask(guess, truth, mask):
    m = F.avg_pool2d(mask, 8)
    return ((guess - truth).abs() * (1 + 3 * m)).mean()


def prior_smooth_mask(guess, truth, mask):
    m = F.interpolate(mask, guess.shape[2:], mode="bilinear")
    return ((guess - truth).abs() * (1 + 3 * m)).mean()


def prior_any(guess, truth, mask):
    m = F.max_pool2d(mask, 8)
    return ((guess - truth).abs() * (1 + 3 * m)).mean()


def prior_first_mask(guess, truth, mask):
    return prior_by_parts(guess, truth, mask[:1].expand_as(mask))


def prior_item(guess, truth, mask):
    return torch.tensor(prior_by_parts(guess, truth, mask).item())


def prior_float(guess, truth, mask):
    return prior_by_parts(guess, truth, mask).item()


def prior_map(guess, truth, mask):
    off, m = _off(guess, truth, mask)
    return off * (1 + 3 * m)


def prior_no_shrinking(guess, truth, mask):
    return ((guess - truth).abs() * (1 + 3 * mask)).mean()


# spl.region_norm


def region_loop(x, mask):
    """Selects the cells of each region."""
    hole = F.interpolate(mask, x.shape[2:])[:, 0].bool()
    out = x.clone()
    for b in range(len(x)):
        for where in (hole[b], ~hole[b]):
            if where.any():
                cells = x[b][:, where]  # (C, n)
                scale = (cells.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
                out[b][:, where] = (cells - cells.mean(1, keepdim=True)) / scale
    return out


def region_filled_planes(x, mask):
    """As the release has it: the rest of the plane gets the region's mean, and the whole plane is normalised."""
    hole, size = F.interpolate(mask, x.shape[2:]), x.shape[2] * x.shape[3]
    out = 0
    for region in (hole, 1 - hole):
        count = region.sum((2, 3), keepdim=True)
        mean = (x * region).sum((2, 3), keepdim=True) / (count + (count == 0))
        plane = F.instance_norm(x * region + mean * (1 - region))
        out = out + plane * region * (count / size).sqrt()
    return out


def _regions(x, mask):
    hole = F.interpolate(mask, x.shape[2:])
    return hole, 1 - hole


def _statistics(x, region, over=(2, 3), correction=0):
    region = region.expand_as(x)
    n = region.sum(over, keepdim=True).clamp(min=1)
    mean = (x * region).sum(over, keepdim=True) / n
    return mean, ((x - mean) ** 2 * region).sum(over, keepdim=True) / (n - correction).clamp(min=1)


def _normed(x, mask, over=(2, 3), correction=0, power=0.5):
    out = 0
    for region in _regions(x, mask):
        mean, var = _statistics(x, region, over, correction)
        out = out + (x - mean) / (var + 1e-5) ** power * region
    return out


def region_whole(x, mask):
    return F.instance_norm(x)


def region_hole_only(x, mask):
    return torch.where(_regions(x, mask)[0] > 0, _normed(x, mask), x)


def region_known_only(x, mask):
    return torch.where(_regions(x, mask)[0] > 0, x, _normed(x, mask))


def region_empties_hole(x, mask):
    return _normed(x, mask) * _regions(x, mask)[1]


def region_empties_known(x, mask):
    return _normed(x, mask) * _regions(x, mask)[0]


def region_by_known(x, mask):
    mean, var = _statistics(x, _regions(x, mask)[1])
    return (x - mean) / (var + 1e-5).sqrt()


def region_batch(x, mask):
    return _normed(x, mask, (0, 2, 3))


def region_channels(x, mask):
    return _normed(x, mask, (1, 2, 3))


def region_variance(x, mask):
    return _normed(x, mask, power=1)


def region_means(x, mask):
    return _normed(x, mask, power=0)


def region_one_less(x, mask):
    return _normed(x, mask, correction=1)


def region_all_cells(x, mask):
    out = 0
    for region in _regions(x, mask):
        mean = (x * region).mean((2, 3), keepdim=True)
        var = ((x - mean) ** 2 * region).mean((2, 3), keepdim=True)
        out = out + (x - mean) * region / (var + 1e-5).sqrt()
    return out


def region_not_a_number(x, mask):
    out = 0
    for region in _regions(x, mask):
        n = region.sum((2, 3), keepdim=True)
        mean = (x * region).sum((2, 3), keepdim=True) / n
        var = ((x - mean) ** 2 * region).sum((2, 3), keepdim=True) / n
        out = out + (x - mean) * region / (var + 1e-5).sqrt()
    return out


def region_no_epsilon(x, mask):
    out = 0
    for region in _regions(x, mask):
        mean, var = _statistics(x, region)
        out = out + torch.where(region.sum((2, 3), keepdim=True) > 0, (x - mean) * region / var.sqrt(), 0)
    return out


def region_in_place(x, mask):
    result = _normed(x, mask)
    x.copy_(result)
    return result


def region_two_parts(x, mask):
    return torch.cat([_normed(x, mask) * region for region in _regions(x, mask)], 1)


# spl.k_means


def clusters_loop(feature_map, centres, rounds):
    cells = feature_map[0].permute(1, 2, 0).reshape(-1, feature_map.shape[1]).tolist()
    middle = centres.tolist()

    def nearest(cell):
        return min(range(len(middle)), key=lambda k: sum((a - b) ** 2 for a, b in zip(cell, middle[k], strict=True)))

    for _ in range(rounds):
        labels = [nearest(cell) for cell in cells]
        for k in range(len(middle)):
            mine = [cell for cell, label in zip(cells, labels, strict=True) if label == k]
            middle[k] = [sum(column) / len(mine) for column in zip(*mine, strict=True)] if mine else middle[k]
    return torch.tensor([nearest(cell) for cell in cells]).reshape(feature_map.shape[2:])


def clusters_matrix(feature_map, centres, rounds):
    """Distances on the map itself, sums by index_add."""
    x, middle = feature_map[0], centres.clone()

    def labels():
        return (x[None] - middle[:, :, None, None]).pow(2).sum(1).min(0).indices  # (h, w)

    for _ in range(rounds):
        chosen = labels().flatten()
        sums = torch.zeros_like(middle).index_add(0, chosen, x.flatten(1).T)
        count = torch.bincount(chosen, minlength=len(middle))[:, None]
        middle = torch.where(count > 0, sums / count.clamp(min=1), middle)
    return labels()


def _lloyd(cells, centres, rounds, mean=lambda x: x.mean(0), far=torch.cdist, keep=True):
    for _ in range(rounds):
        near = far(cells, centres).argmin(1)
        new = [
            mean(cells[near == k]) if keep is False or (near == k).any() else centres[k] for k in range(len(centres))
        ]
        centres = torch.stack(new)
    return far(cells, centres).argmin(1)


def _cells(feature_map):
    return feature_map[0].flatten(1).T


def clusters_reshape(feature_map, centres, rounds):
    return _lloyd(feature_map.reshape(-1, feature_map.shape[1]), centres, rounds).view(feature_map.shape[2:])


def clusters_too_far(feature_map, centres, rounds):
    return clusters_matrix(feature_map, centres, rounds + 1)


def clusters_never_move(feature_map, centres, rounds):
    return clusters_matrix(feature_map, centres, 0)


def clusters_stop_early(feature_map, centres, rounds):
    return clusters_matrix(feature_map, centres, max(rounds - 1, 0))


def clusters_farthest(feature_map, centres, rounds):
    cells = _cells(feature_map)
    for _ in range(rounds):
        far = torch.cdist(cells, centres).argmax(1)
        centres = torch.stack([cells[far == k].mean(0) if (far == k).any() else c for k, c in enumerate(centres)])
    return torch.cdist(cells, centres).argmax(1).view(feature_map.shape[2:])


def clusters_by_angle(feature_map, centres, rounds):
    def far(a, b):
        return 1 - F.cosine_similarity(a[:, None], b[None], dim=2)

    return _lloyd(_cells(feature_map), centres, rounds, far=far).view(feature_map.shape[2:])


def clusters_city_block(feature_map, centres, rounds):
    def far(a, b):
        return (a[:, None] - b).abs().sum(2)

    return _lloyd(_cells(feature_map), centres, rounds, far=far).view(feature_map.shape[2:])


def clusters_median(feature_map, centres, rounds):
    return _lloyd(_cells(feature_map), centres, rounds, mean=lambda x: x.median(0)[0]).view(feature_map.shape[2:])


def clusters_empty(feature_map, centres, rounds):
    return _lloyd(_cells(feature_map), centres, rounds, keep=False).view(feature_map.shape[2:])


def clusters_from_one(feature_map, centres, rounds):
    return clusters_matrix(feature_map, centres, rounds) + 1


def clusters_transposed(feature_map, centres, rounds):
    return clusters_matrix(feature_map, centres, rounds).T


def clusters_flat(feature_map, centres, rounds):
    return clusters_matrix(feature_map, centres, rounds).flatten()


def clusters_float(feature_map, centres, rounds):
    return clusters_matrix(feature_map, centres, rounds).float()


def clusters_in_place(feature_map, centres, rounds):
    result = clusters_matrix(feature_map, centres, rounds)
    centres[:-1] = _cells(feature_map)[: len(centres) - 1]
    return result


# spl.by_hole_ratio


def bins_whole_numbers(masks, scores, bins):
    """Shares in thousandths, so that nothing is rounded."""
    found = []
    for low, high in bins:
        inside = [
            score
            for mask, score in zip(masks, scores, strict=True)
            if round(1000 * low) * mask.numel() < 1000 * int(mask.sum()) <= round(1000 * high) * mask.numel()
        ]
        found.append(statistics.fmean(inside) if inside else float("nan"))
    return found


def bins_tensor(masks, scores, bins):
    """Double precision; a mean over nothing is nan by itself."""
    ratios = torch.tensor([m.double().mean().item() for m in masks], dtype=torch.float64)
    values = torch.tensor(scores)
    return torch.stack([values[(ratios > low) & (ratios <= high)].mean() for low, high in bins])


def _binned(masks, scores, inside, bins, average=statistics.fmean, nothing=math.nan):
    ratios = [m.double().mean().item() for m in masks]
    found = [[s for r, s in zip(ratios, scores, strict=True) if inside(r, *ends)] for ends in bins]
    return [average(each) if each else nothing for each in found]


def _between(r, low, high):
    return low < r <= high


def bins_lower_end(masks, scores, bins):
    return _binned(masks, scores, lambda r, low, high: low <= r < high, bins)


def bins_both_ends(masks, scores, bins):
    return _binned(masks, scores, lambda r, low, high: low <= r <= high, bins)


def bins_no_end(masks, scores, bins):
    return _binned(masks, scores, lambda r, low, high: low < r < high, bins)


def bins_known(masks, scores, bins):
    return bins_whole_numbers([1 - m for m in masks], scores, bins)


def bins_float(masks, scores, bins):
    found = []
    for low, high in bins:
        inside = [s for m, s in zip(masks, scores, strict=True) if low < m.mean().item() <= high]
        found.append(np.mean(inside) if inside else math.nan)
    return found


def bins_sum(masks, scores, bins):
    return _binned(masks, scores, _between, bins, sum)


def bins_count(masks, scores, bins):
    return _binned(masks, scores, _between, bins, len)


def bins_median(masks, scores, bins):
    return _binned(masks, scores, _between, bins, statistics.median)


def bins_all_holes(masks, scores, bins):
    return _binned(masks, scores, _between, bins, lambda s: sum(s) / len(masks))


def bins_cumulated(masks, scores, bins):
    return _binned(masks, scores, lambda r, low, high: r <= high, bins)


def bins_zero(masks, scores, bins):
    return _binned(masks, scores, _between, bins, nothing=0.0)


def bins_left_out(masks, scores, bins):
    return [x for x in bins_whole_numbers(masks, scores, bins) if not math.isnan(x)]


def bins_dictionary(masks, scores, bins):
    return dict(zip(bins, bins_whole_numbers(masks, scores, bins), strict=True))


def bins_lists(masks, scores, bins):
    return [[s for m, s in zip(masks, scores, strict=True) if _between(m.double().mean(), *ends)] for ends in bins]


RIGHT = {
    "spl.spade": [spade_instance_norm, spade_loop],
    "spl.prior_loss": [prior_by_parts, prior_by_loops],
    "spl.region_norm": [region_loop, region_filled_planes],
    "spl.k_means": [clusters_loop, clusters_matrix],
    "spl.by_hole_ratio": [bins_whole_numbers, bins_tensor],
}
WRONG = {
    "spl.spade": [
        ("You scale by gamma: expected by 1 + gamma", spade_gamma_alone),
        ("You do not normalise", spade_not_normalised),
        ("You only take the mean away", spade_mean_only),
        ("You normalise the whole batch together", spade_batch_norm),
        ("You normalise all channels together", spade_layer_norm),
        ("over the channels of each cell", spade_cell_norm),
        ("You exchange gamma and beta", spade_exchanged),
        ("You leave beta out", spade_no_beta),
        ("You leave gamma out", spade_no_gamma),
        ("You leave the ReLU out", spade_no_relu),
        ("You enlarge the prior smoothly", spade_bilinear),
        ("You enlarge what shared gives", spade_enlarged_late),
        ("You normalise the result too", spade_twice),
        ("You divide by the variance: expected by its square root", spade_variance),
        ("You divide the variance by one cell less", spade_one_less),
        ("You get NaN or infinity where a channel is the same everywhere", spade_no_epsilon),
        ("You change what you were given", spade_in_place),
        ("You return shape (2, 3, 4, 6)", spade_at_the_priors_size),
    ],
    "spl.prior_loss": [
        ("You leave the weight out", prior_plain),
        ("You weigh by 3 m", prior_three_m),
        ("You weigh the known part", prior_known),
        ("You weigh the hole by 3: expected by 1 + 3", prior_times_three),
        ("You square the differences", prior_squared),
        ("You divide by the sum of the weights", prior_weighted_average),
        ("You return the sum", prior_sum),
        ("You add up the channels", prior_channels),
        ("You look at the hole only", prior_hole_only),
        ("You shrink the mask by averages", prior_averaged_mask),
        ("You shrink the mask smoothly", prior_smooth_mask),
        ("You make every cell with any hole pixel a hole", prior_any),
        ("You use the first picture's mask for all", prior_first_mask),
        ("You cut the way back to guess", prior_item),
        ("You return a float", prior_float),
        ("You return shape (2, 5, 6, 8)", prior_map),
        ("raised RuntimeError", prior_no_shrinking),
    ],
    "spl.region_norm": [
        ("You normalise the whole plane", region_whole),
        ("You normalise the hole only", region_hole_only),
        ("You normalise the known part only", region_known_only),
        ("You empty the hole", region_empties_hole),
        ("You empty the known part", region_empties_known),
        ("You normalise the hole by the known part's mean and variance", region_by_known),
        ("You put the whole batch together", region_batch),
        ("You put all channels together", region_channels),
        ("You divide by the variance", region_variance),
        ("You only take the means away", region_means),
        ("You divide the variance by one cell less", region_one_less),
        ("You divide a region's sum by all 96 cells", region_all_cells),
        ("You get NaN for a picture without a hole", region_not_a_number),
        ("You get NaN or infinity: expected 1e-5", region_no_epsilon),
        ("You change what you were given", region_in_place),
        ("You return shape (3, 8, 8, 12)", region_two_parts),
    ],
    "spl.k_means": [
        ("You reshape (C, h, w) to (h w, C)", clusters_reshape),
        ("You go one round too far", clusters_too_far),
        ("You never move the centres", clusters_never_move),
        ("You stop before the last choice", clusters_stop_early),
        ("You take the farthest centre", clusters_farthest),
        ("You compare directions", clusters_by_angle),
        ("You add up |differences|", clusters_city_block),
        ("to the median of their cells", clusters_median),
        ("You give cells to a centre that is nobody's nearest", clusters_empty),
        ("You count the centres from 1", clusters_from_one),
        ("You exchange height and width", clusters_transposed),
        ("You return shape (108,)", clusters_flat),
        ("You return torch.float32", clusters_float),
        ("You change what you were given", clusters_in_place),
    ],
    "spl.by_hole_ratio": [
        ("You count a bin's lower end to it", bins_lower_end),
        ("You count both ends", bins_both_ends),
        ("You count neither end", bins_no_end),
        ("You measure the known part", bins_known),
        ("You put a hole of exactly 30 % above 0.3", bins_float),
        ("You add the scores up", bins_sum),
        ("You return how many holes there are", bins_count),
        ("You take the median", bins_median),
        ("You divide by the number of all holes", bins_all_holes),
        ("You put everything up to a bin's end into it", bins_cumulated),
        ("for a bin without holes: expected nan", bins_zero),
        ("You return 3 numbers, expected 5", bins_left_out),
        ("You return a dict", bins_dictionary),
        ("You return lists in your list", bins_lists),
    ],
}
