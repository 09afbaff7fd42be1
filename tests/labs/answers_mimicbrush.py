"""Answers to the exercises on MimicBrush (notebook 15), as in `answers`."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F

# mimicbrush.judge_pairs


def pairs_by_table(frames, ssim, low, high):
    table = {(a, b): ssim(frames[[a]], frames[[b]]) for a, b in itertools.combinations(range(frames.shape[0]), 2)}

    def verdict(value):
        if value < low:
            return "too different"
        return "too similar" if value > high else "kept"

    return [(a, b, verdict(table[a, b])) for a, b in sorted(table, key=table.get)]


def pairs_by_sorting_numbers(frames, ssim, low, high):
    parts = frames.split(1)
    a, b = np.triu_indices(len(parts), 1)
    values = np.array([ssim(parts[i], parts[j]) for i, j in zip(a, b, strict=True)])
    words = np.select([values < low, values > high], ["too different", "too similar"], "kept")
    return [(int(a[k]), int(b[k]), str(words[k])) for k in values.argsort()]


def pairs_exchanged(frames, ssim, low, high):
    other = {"too different": "too similar", "too similar": "too different", "kept": "kept"}
    return [(a, b, other[word]) for a, b, word in pairs_by_table(frames, ssim, low, high)]


def pairs_published_band(frames, ssim, low, high):
    return pairs_by_table(frames, ssim, 0.45, 0.92)


def pairs_open_ends(frames, ssim, low, high):
    return pairs_by_table(frames, ssim, low + 1e-6, high - 1e-6)


def pairs_no_lower_end(frames, ssim, low, high):
    return pairs_by_table(frames, ssim, -1, high)


def pairs_no_upper_end(frames, ssim, low, high):
    return pairs_by_table(frames, ssim, low, 1)


def pairs_with_itself(frames, ssim, low, high):
    own = [(a, a, "too similar") for a in range(len(frames))]
    return pairs_by_table(frames, ssim, low, high) + own


def pairs_twice(frames, ssim, low, high):
    found = pairs_by_table(frames, ssim, low, high)
    return [one for a, b, word in found for one in ((a, b, word), (b, a, word))]


def pairs_later_first(frames, ssim, low, high):
    return [(b, a, word) for a, b, word in pairs_by_table(frames, ssim, low, high)]


def pairs_neighbours(frames, ssim, low, high):
    return [one for one in pairs_by_table(frames, ssim, low, high) if one[1] == one[0] + 1]


def pairs_kept_only(frames, ssim, low, high):
    return [one for one in pairs_by_table(frames, ssim, low, high) if one[2] == "kept"]


def pairs_from_one(frames, ssim, low, high):
    return [(a + 1, b + 1, word) for a, b, word in pairs_by_table(frames, ssim, low, high)]


def pairs_to_the_last(frames, ssim, low, high):
    """The last frame is forgotten."""
    return pairs_by_table(frames[:-1], ssim, low, high)


def pairs_falling(frames, ssim, low, high):
    return pairs_by_table(frames, ssim, low, high)[::-1]


def pairs_unsorted(frames, ssim, low, high):
    return sorted(pairs_by_table(frames, ssim, low, high))


def pairs_without_batch(frames, ssim, low, high):
    count = len(frames)
    return [(a, b, "kept" if ssim(frames[a], frames[b]) > low else "") for a in range(count) for b in range(a)]


def pairs_as_dictionary(frames, ssim, low, high):
    return {(a, b): word for a, b, word in pairs_by_table(frames, ssim, low, high)}


def pairs_with_values(frames, ssim, low, high):
    return [(*one, 0.5) for one in pairs_by_table(frames, ssim, low, high)]


def pairs_other_words(frames, ssim, low, high):
    return [(a, b, word == "kept") for a, b, word in pairs_by_table(frames, ssim, low, high)]


# mimicbrush.hide_cells


def _seen(points, size, n):
    """How many points lie in each cell, (n, n)."""
    counts = torch.zeros(n, n)
    for x, y in points.tolist():
        counts[int(y * n / size[0]), int(x * n / size[1])] += 1
    return counts


def _spread(holes, size):
    return F.interpolate(holes.float()[None, None], size, mode="nearest")


def cells_by_loop(points, size, luck):
    n = len(luck)
    counts, mask = _seen(points, size, n), torch.zeros(1, 1, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            row, column = y * n // size[0], x * n // size[1]
            mask[0, 0, y, x] = luck[row, column] < (0.75 if counts[row, column] else 0.5)
    return mask


def cells_by_histogram(points, size, luck):
    n = len(luck)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], n, ((0, size[0]), (0, size[1])))
    chance = 0.5 + 0.25 * torch.from_numpy(counts > 0)
    return _spread(luck < chance, size)


def _hidden(points, size, luck, with_points=0.75, without=0.5, least=1):
    seen = _seen(points, size, len(luck)) >= least
    return luck < torch.where(seen, torch.tensor(with_points), torch.tensor(without))


def cells_inverted(points, size, luck):
    return 1 - _spread(_hidden(points, size, luck), size)


def cells_xy(points, size, luck):
    turned = _seen(points, size, len(luck)).T > 0
    return _spread(luck < 0.5 + 0.25 * turned, size)


def cells_turned(points, size, luck):
    return _spread(_hidden(points, size, luck).T, size)


def cells_chances_exchanged(points, size, luck):
    return _spread(_hidden(points, size, luck, 0.5, 0.75), size)


def cells_even(points, size, luck):
    return _spread(luck < 0.5, size)


def cells_high(points, size, luck):
    return _spread(luck < 0.75, size)


def cells_two_points(points, size, luck):
    return _spread(_hidden(points, size, luck, least=2), size)


def cells_matches_only(points, size, luck):
    return _spread(_hidden(points, size, luck, without=0.0), size)


def cells_released(points, size, luck):
    counts = _seen(points, size, len(luck)).numpy()
    chance = np.full(counts.size, 0.3)
    chance[np.argsort(-counts.ravel(), kind="stable")[:5]] = 0.7
    return _spread(luck < torch.from_numpy(chance).view_as(luck), size)


def cells_rest_empty(points, size, luck):
    mask, n = torch.zeros(1, 1, *size), len(luck)
    h, w = size[0] // n, size[1] // n
    mask[..., : n * h, : n * w] = _spread(_hidden(points, size, luck), (n * h, n * w))
    return mask


def cells_rest_to_last(points, size, luck):
    n, mask = len(luck), torch.zeros(1, 1, *size)
    holes, h, w = _hidden(points, size, luck), size[0] // n, size[1] // n
    for y in range(size[0]):
        for x in range(size[1]):
            mask[0, 0, y, x] = holes[min(y // h, n - 1), min(x // w, n - 1)]
    return mask


def cells_too_small(points, size, luck):
    n = len(luck)
    return torch.kron(_hidden(points, size, luck).float(), torch.ones(size[0] // n, size[1] // n))[None, None]


def cells_own_draws(points, size, luck):
    mine = torch.rand(luck.shape, generator=torch.Generator().manual_seed(9))
    return _spread(_hidden(points, size, mine), size)


def cells_width_first(points, size, luck):
    return cells_by_loop(points, size, luck).mT


def cells_not_spread(points, size, luck):
    return _hidden(points, size, luck).float()[None, None]


def cells_bool(points, size, luck):
    return _spread(_hidden(points, size, luck), size) > 0


def cells_flat(points, size, luck):
    return _spread(_hidden(points, size, luck), size)[0, 0]


def cells_chances(points, size, luck):
    return _spread(0.5 + 0.25 * (_seen(points, size, len(luck)) > 0), size)


# mimicbrush.look_at_both


def both_fused(q, k, v, k_r, v_r):
    return F.scaled_dot_product_attention(q, torch.cat([k, k_r], -2), torch.cat([v, v_r], -2))


def both_by_sums(q, k, v, k_r, v_r):
    """Numerators and denominators of the two pictures, added: the reference first."""
    d = q.shape[-1]
    one, two = (torch.einsum("hnd,hmd->hnm", q, x) / np.sqrt(d) for x in (k, k_r))
    highest = torch.maximum(one.amax(-1, keepdim=True), two.amax(-1, keepdim=True))
    one, two = (one - highest).exp(), (two - highest).exp()
    return (two @ v_r + one @ v) / (two.sum(-1, keepdim=True) + one.sum(-1, keepdim=True))


def both_reference_first(q, k, v, k_r, v_r):
    return both_fused(q, k_r, v_r, k, v)


def _joined(q, k, k_r):
    return q @ torch.cat([k, k_r], 1).transpose(1, 2)


def both_alone(q, k, v, k_r, v_r):
    return F.scaled_dot_product_attention(q, k, v)


def both_reference_only(q, k, v, k_r, v_r):
    return F.scaled_dot_product_attention(q, k_r, v_r)


def both_two_softmaxes(q, k, v, k_r, v_r):
    return F.scaled_dot_product_attention(q, k, v) + F.scaled_dot_product_attention(q, k_r, v_r)


def both_average(q, k, v, k_r, v_r):
    return both_two_softmaxes(q, k, v, k_r, v_r) / 2


def both_released(q, k, v, k_r, v_r):
    return 0.5 * both_fused(q, k, v, k_r, v_r) + 0.5 * both_alone(q, k, v, k_r, v_r)


def both_unscaled(q, k, v, k_r, v_r):
    return _joined(q, k, k_r).softmax(-1) @ torch.cat([v, v_r], 1)


def both_by_d(q, k, v, k_r, v_r):
    return (_joined(q, k, k_r) / q.shape[2]).softmax(-1) @ torch.cat([v, v_r], 1)


def both_by_keys(q, k, v, k_r, v_r):
    keys = k.shape[1] + k_r.shape[1]
    return (_joined(q, k, k_r) / keys**0.5).softmax(-1) @ torch.cat([v, v_r], 1)


def both_values_exchanged(q, k, v, k_r, v_r):
    return F.scaled_dot_product_attention(q, torch.cat([k, k_r], 1), torch.cat([v_r, v], 1))


def both_keys_for_values(q, k, v, k_r, v_r):
    return both_fused(q, v, k, v_r, k_r)


def both_over_queries(q, k, v, k_r, v_r):
    return (_joined(q, k, k_r) / q.shape[2] ** 0.5).softmax(1) @ torch.cat([v, v_r], 1)


def both_no_softmax(q, k, v, k_r, v_r):
    return _joined(q, k, k_r) / q.shape[2] ** 0.5 @ torch.cat([v, v_r], 1)


def both_shares(q, k, v, k_r, v_r):
    return (_joined(q, k, k_r) / q.shape[2] ** 0.5).softmax(-1)


def both_all_rows(q, k, v, k_r, v_r):
    return both_fused(torch.cat([q, k_r], 1), k, v, k_r, v_r)


def both_overflow(q, k, v, k_r, v_r):
    weights = (_joined(q, k, k_r) / q.shape[2] ** 0.5).exp()
    return weights @ torch.cat([v, v_r], 1) / weights.sum(-1, keepdim=True)


def both_in_place(q, k, v, k_r, v_r):
    q /= q.shape[2] ** 0.5
    return _joined(q, k, k_r).softmax(-1) @ torch.cat([v, v_r], 1)


# mimicbrush.drop_depth


def depth_by_loop(depth, luck, p=0.5):
    out = torch.empty_like(depth)
    for k, value in enumerate(luck.tolist()):
        out[k] = 0 if value < p else depth[k]
    return out


def depth_filled(depth, luck, p=0.5):
    return depth.masked_fill((luck < p)[:, None, None, None], 0)


def depth_where(depth, luck, p=0.5):
    return torch.where(luck.reshape(-1, 1, 1, 1) < p, torch.zeros(1), depth)


def depth_inverted(depth, luck, p=0.5):
    return depth_filled(depth, 1 - luck, 1 - p)


def depth_whole_batch(depth, luck, p=0.5):
    return torch.zeros_like(depth) if luck[0] < p else depth


def depth_enlarged(depth, luck, p=0.5):
    return depth_filled(depth, luck, p) / (1 - p)


def depth_times_luck(depth, luck, p=0.5):
    return depth * luck[:, None, None, None]


def depth_mean(depth, luck, p=0.5):
    return torch.stack([one.mean().expand_as(one) if u < p else one for one, u in zip(depth, luck, strict=True)])


def depth_ones(depth, luck, p=0.5):
    return depth.masked_fill((luck < p)[:, None, None, None], 1)


def depth_half_always(depth, luck, p=0.5):
    return depth_filled(depth, luck, 0.5)


def depth_pixels(depth, luck, p=0.5):
    draws = torch.rand(depth.shape, generator=torch.Generator().manual_seed(3))
    return depth * (draws >= p)


def depth_left_out(depth, luck, p=0.5):
    return depth[luck >= p]


def depth_in_place(depth, luck, p=0.5):
    depth[luck < p] = 0
    return depth


def depth_at_zero(depth, luck, p=0.5):
    return depth * (luck > p)[:, None, None, None]


def depth_untouched(depth, luck, p=0.5):
    return depth.clone()


# mimicbrush.guided_noise


def guided_mixed(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    """The other call first, and the sum written as a weighted mean."""
    known = (mask, background, depth)
    u = predict(latents, *known, nothing, None)
    c = predict(latents, *known, tokens, bank)
    return scale * c + (1 - scale) * u


def guided_lerp(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    c, u = (
        predict(latents=latents, mask=mask, background=background, depth=depth, tokens=told, bank=seen)
        for told, seen in ((tokens, bank), (nothing, None))
    )
    return torch.lerp(u, c, scale)


def _both(predict, latents, mask, background, depth, tokens, nothing, bank):
    c = predict(latents, mask, background, depth, tokens, bank)
    return c, predict(latents, mask, background, depth, nothing, None)


def guided_tokens_stay(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    return guided_mixed(predict, latents, mask, background, depth, tokens, tokens, bank, scale)


def guided_bank_stays(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    c = predict(latents, mask, background, depth, tokens, bank)
    u = predict(latents, mask, background, depth, nothing, bank)
    return u + scale * (c - u)


def guided_crossed(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    c = predict(latents, mask, background, depth, tokens, None)
    u = predict(latents, mask, background, depth, nothing, bank)
    return u + scale * (c - u)


def guided_no_bank(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    return guided_mixed(predict, latents, mask, background, depth, tokens, nothing, None, scale)


def guided_depth_dropped(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    c = predict(latents, mask, background, depth, tokens, bank)
    u = predict(latents, mask, background, torch.zeros_like(depth), nothing, None)
    return u + scale * (c - u)


def guided_background_dropped(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    c = predict(latents, mask, background, depth, tokens, bank)
    u = predict(latents, mask, 0 * background, depth, nothing, None)
    return u + scale * (c - u)


def guided_arguments_exchanged(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    return guided_mixed(predict, latents, mask, depth, background, tokens, nothing, bank, scale)


def guided_same_call(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    c = predict(latents, mask, background, depth, tokens, bank)
    u = predict(latents, mask, background, depth, tokens, bank)
    return u + scale * (c - u)


def guided_from_with(*given):
    c, u = _both(*given[:-1])
    return c + given[-1] * (c - u)


def guided_wrong_way(*given):
    c, u = _both(*given[:-1])
    return c + given[-1] * (u - c)


def guided_away(*given):
    c, u = _both(*given[:-1])
    return u + given[-1] * (u - c)


def guided_difference(*given):
    c, u = _both(*given[:-1])
    return given[-1] * (c - u)


def guided_added(*given):
    c, u = _both(*given[:-1])
    return u + given[-1] * c


def guided_without_scale(*given):
    c, u = _both(*given[:-1])
    return u + (c - u)


def guided_fixed_scale(*given):
    c, u = _both(*given[:-1])
    return u + 5 * (c - u)


def guided_once(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    return scale * predict(latents, mask, background, depth, tokens, bank)


def guided_in_place(predict, latents, mask, background, depth, tokens, nothing, bank, scale):
    result = guided_mixed(predict, latents, mask, background, depth, tokens, nothing, bank, scale)
    return latents.copy_(result)


RIGHT = {
    "mimicbrush.judge_pairs": [pairs_by_table, pairs_by_sorting_numbers],
    "mimicbrush.hide_cells": [cells_by_loop, cells_by_histogram],
    "mimicbrush.look_at_both": [both_fused, both_by_sums, both_reference_first],
    "mimicbrush.drop_depth": [depth_by_loop, depth_filled, depth_where],
    "mimicbrush.guided_noise": [guided_mixed, guided_lerp],
}
WRONG = {
    "mimicbrush.judge_pairs": [
        ("You judge by 0.45 and 0.92 whatever low and high say", pairs_published_band),
        ("You exchange the two rejections", pairs_exchanged),
        ("on the end of the band", pairs_open_ends),
        ("You keep pairs below the band", pairs_no_lower_end),
        ("You keep pairs above the band", pairs_no_upper_end),
        ("a frame against itself", pairs_with_itself),
        ("You judge each pair twice", pairs_twice),
        ("the later frame first", pairs_later_first),
        ("only frames that follow each other", pairs_neighbours),
        ("You leave the rejected pairs out", pairs_kept_only),
        ("You count the frames from 1", pairs_from_one),
        ("You leave out 4 pairs, (0, 4) for one", pairs_to_the_last),
        ("begins with the highest SSIM", pairs_falling),
        ("not in the order of SSIM", pairs_unsorted),
        ("of shape (3, 6, 8), expected one picture", pairs_without_batch),
        ("You return a dict", pairs_as_dictionary),
        ("expected triples", pairs_with_values),
        ("You say False, expected one of", pairs_other_words),
    ],
    "mimicbrush.hide_cells": [
        ("Your mask is the other way round", cells_inverted),
        ("You exchange rows and columns", cells_xy),
        ("You turn the grid at its diagonal", cells_turned),
        ("You exchange the chances", cells_chances_exchanged),
        ("You give all cells the chance 0.5", cells_even),
        ("You give all cells the chance 0.75", cells_high),
        ("You ask for more than one point", cells_two_points),
        ("You never hide a cell without points", cells_matches_only),
        ("You follow the released code", cells_released),
        ("You leave the last rows and columns without a cell", cells_rest_empty),
        ("You give the last cells all that is left over", cells_rest_to_last),
        ("some cells are a pixel longer", cells_too_small),
        ("draw nothing yourself", cells_own_draws),
        ("height and width are exchanged", cells_width_first),
        ("You return the 4 x 4 cells", cells_not_spread),
        ("You return torch.bool", cells_bool),
        ("You return shape (21, 34), expected (1, 1, 21, 34)", cells_flat),
        ("values between 0 and 1", cells_chances),
    ],
    "mimicbrush.look_at_both": [
        ("You look at the picture alone", both_alone),
        ("You look at the reference alone", both_reference_only),
        ("You take two softmaxes", both_two_softmaxes),
        ("You average two attentions", both_average),
        ("as the released code does", both_released),
        ("You leave the scale out", both_unscaled),
        ("You divide by d, expected its root", both_by_d),
        ("You divide by the number of keys", both_by_keys),
        ("in another order than your keys", both_values_exchanged),
        ("You exchange keys and values", both_keys_for_values),
        ("the softmax over the places that ask", both_over_queries),
        ("You leave the softmax out", both_no_softmax),
        ("You return the shares of attention", both_shares),
        ("a row for the reference's places too", both_all_rows),
        ("exp overflows", both_overflow),
        ("You change what you were given", both_in_place),
    ],
    "mimicbrush.drop_depth": [
        ("You zero those that should stay", depth_inverted),
        ("You decide once for the whole batch", depth_whole_batch),
        ("You enlarge what is left", depth_enlarged),
        ("You multiply by luck", depth_times_luck),
        ("with their mean", depth_mean),
        ("with ones", depth_ones),
        ("You drop at 0.5 whatever p is", depth_half_always),
        ("You drop single pixels", depth_pixels),
        ("You leave 3 items out of the batch", depth_left_out),
        ("You write zeros into the maps", depth_in_place),
        ("You still drop at p = 0", depth_at_zero),
        ("You drop nothing", depth_untouched),
    ],
    "mimicbrush.guided_noise": [
        ("You leave the tokens in the call", guided_tokens_stay),
        ("You leave the bank in the call", guided_bank_stays),
        ("they go together", guided_crossed),
        ("You leave the bank out of both calls", guided_no_bank),
        ("You change depth in one of the calls", guided_depth_dropped),
        ("You change background in one of the calls", guided_background_dropped),
        ("something else as background", guided_arguments_exchanged),
        ("You make the same call twice", guided_same_call),
        ("that is scale + 1", guided_from_with),
        ("You go the wrong way", guided_wrong_way),
        ("You guide away from the reference", guided_away),
        ("You return the difference alone", guided_difference),
        ("You add scale c to u", guided_added),
        ("the prediction with the reference: scale has no effect", guided_without_scale),
        ("Your numbers begin with", guided_fixed_scale),
        ("You call predict once", guided_once),
        ("You change what you were given", guided_in_place),
    ],
}
