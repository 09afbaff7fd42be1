"""Right and wrong answers to the exercises of notebook 14, written independently of the checks."""

import numpy as np
import torch
import torch.nn.functional as F

# realfill.training_hole


def hole_or(drawn, unknown, luck, dropout=0.1):
    everything = torch.full_like(drawn, float(luck < dropout))
    return ((drawn + unknown + everything) > 0).float()


def hole_complement(drawn, unknown, luck, dropout=0.1):
    """By what is seen: the product of what each mask leaves."""
    seen = (1 - drawn) * (1 - unknown) * (0.0 if luck < dropout else 1.0)
    return 1 - seen


def hole_drawn_only(drawn, unknown, luck, dropout=0.1):
    return torch.ones_like(drawn) if luck < dropout else drawn.clone()


def hole_own_only(drawn, unknown, luck, dropout=0.1):
    return torch.ones_like(drawn) if luck < dropout else unknown.clone()


def hole_sum(drawn, unknown, luck, dropout=0.1):
    return drawn + unknown


def hole_both(drawn, unknown, luck, dropout=0.1):
    return torch.ones_like(drawn) if luck < dropout else drawn * unknown


def hole_never_dropped(drawn, unknown, luck, dropout=0.1):
    return torch.where(drawn > 0, drawn, unknown)


def hole_shown_when_dropped(drawn, unknown, luck, dropout=0.1):
    return torch.zeros_like(drawn) if luck < dropout else torch.maximum(drawn, unknown)


def hole_turned_round(drawn, unknown, luck, dropout=0.1):
    return torch.ones_like(drawn) if luck > dropout else torch.maximum(drawn, unknown)


def hole_fixed_dropout(drawn, unknown, luck, dropout=0.1):
    return torch.ones_like(drawn) if luck < 0.1 else torch.maximum(drawn, unknown)


def hole_at_zero(drawn, unknown, luck, dropout=0.1):
    return torch.ones_like(drawn) if luck <= dropout else torch.maximum(drawn, unknown)


def hole_in_place(drawn, unknown, luck, dropout=0.1):
    if luck < dropout:
        return torch.ones_like(drawn)
    drawn[unknown > 0] = 1
    return drawn


def hole_bool(drawn, unknown, luck, dropout=0.1):
    return (drawn > 0) | (unknown > 0)


# realfill.known_loss


def loss_pool(predicted, wanted, unknown):
    kernel = unknown.shape[-2] // predicted.shape[-2], unknown.shape[-1] // predicted.shape[-1]
    weight = 1 - F.max_pool2d(unknown, kernel)
    return F.mse_loss(predicted * weight, wanted * weight)


def loss_loop(predicted, wanted, unknown):
    count, channels, h, w = predicted.shape
    fy, fx = unknown.shape[-2] // h, unknown.shape[-1] // w
    total = 0.0
    for k in range(count):
        for y in range(h):
            for x in range(w):
                if not unknown[k, 0, y * fy : (y + 1) * fy, x * fx : (x + 1) * fx].any():
                    total += float(((wanted - predicted)[k, :, y, x] ** 2).sum())
    return torch.tensor(total / (count * channels * h * w))


def _known(predicted, unknown):
    return 1 - F.max_pool2d(unknown, unknown.shape[-1] // predicted.shape[-1])


def loss_by_four(predicted, wanted, unknown):
    weight = 1 - F.max_pool2d(unknown, 4)[..., : wanted.shape[-2], : wanted.shape[-1]]
    return F.mse_loss(predicted * weight, wanted * weight)


def loss_plain(predicted, wanted, unknown):
    return F.mse_loss(predicted, wanted)


def loss_of_the_hole(predicted, wanted, unknown):
    return ((1 - _known(predicted, unknown)) * (wanted - predicted) ** 2).mean()


def loss_nearest(predicted, wanted, unknown):
    cells = F.interpolate(unknown, predicted.shape[-2:], mode="nearest")
    return ((1 - cells) * (wanted - predicted) ** 2).mean()


def loss_soft(predicted, wanted, unknown):
    cells = F.interpolate(unknown, predicted.shape[-2:], mode="area")
    return ((1 - cells) * (wanted - predicted) ** 2).mean()


def loss_renormalised(predicted, wanted, unknown):
    weight = _known(predicted, unknown).expand_as(predicted)
    return (weight * (wanted - predicted) ** 2).sum() / weight.sum()


def loss_sum(predicted, wanted, unknown):
    return (_known(predicted, unknown) * (wanted - predicted) ** 2).sum()


def loss_channels(predicted, wanted, unknown):
    return (_known(predicted, unknown) * (wanted - predicted) ** 2).sum(1).mean()


def loss_absolute(predicted, wanted, unknown):
    return (_known(predicted, unknown) * (wanted - predicted).abs()).mean()


def loss_each(predicted, wanted, unknown):
    return (_known(predicted, unknown) * (wanted - predicted) ** 2).mean((1, 2, 3))


# realfill.lora_output


def lora_merged(x, weight, bias, a, b, lora_alpha):
    return F.linear(x, weight + lora_alpha / len(a) * (b @ a), bias)


def lora_two_layers(x, weight, bias, a, b, lora_alpha):
    rank = b.shape[1]
    return F.linear(x, weight, bias) + F.linear(F.linear(x, a), b) * (lora_alpha / rank)


def lora_frozen(x, weight, bias, a, b, lora_alpha):
    return F.linear(x, weight, bias)


def lora_added_only(x, weight, bias, a, b, lora_alpha):
    return lora_alpha / len(a) * F.linear(F.linear(x, a), b)


def lora_no_scale(x, weight, bias, a, b, lora_alpha):
    return F.linear(x, weight + b @ a, bias)


def lora_alpha_alone(x, weight, bias, a, b, lora_alpha):
    return F.linear(x, weight + lora_alpha * (b @ a), bias)


def lora_by_outputs(x, weight, bias, a, b, lora_alpha):
    return F.linear(x, weight + lora_alpha / len(b) * (b @ a), bias)


def lora_scaled_whole(x, weight, bias, a, b, lora_alpha):
    return lora_alpha / len(a) * F.linear(x, weight + b @ a, bias)


def lora_no_bias(x, weight, bias, a, b, lora_alpha):
    return F.linear(x, weight + lora_alpha / len(a) * (b @ a))


def lora_root(x, weight, bias, a, b, lora_alpha):
    """The scale of another method, rsLoRA."""
    return F.linear(x, weight + lora_alpha / len(a) ** 0.5 * (b @ a), bias)


# realfill.rank_samples


def ranked_loop(points, mask):
    counts = np.zeros(len(points), dtype=int)
    for s, row in enumerate(points):
        for found in row:
            for x, y in found.tolist():
                counts[s] += mask[0, 0, int(y), int(x)] == 1
    return np.argsort(-counts, kind="stable").tolist()


def ranked_tensor(points, mask):
    flat, width = mask.flatten(), mask.shape[-1]
    totals = [sum(flat[(p[:, 1].long() * width + p[:, 0].long())].sum() for p in row) for row in points]
    return torch.stack(totals).argsort(descending=True, stable=True)


def _inside(points, mask):
    return [[int(mask[0, 0, p[:, 1].long(), p[:, 0].long()].sum()) for p in row] for row in points]


def _order(counts):
    return sorted(range(len(counts)), key=lambda s: -counts[s])


def ranked_counts(points, mask):
    return sorted((sum(row) for row in _inside(points, mask)), reverse=True)


def ranked_upwards(points, mask):
    return _order([-sum(row) for row in _inside(points, mask)])


def ranked_whole(points, mask):
    return _order([sum(len(p) for p in row) for row in points])


def ranked_first(points, mask):
    return _order([row[0] for row in _inside(points, mask)])


def ranked_most(points, mask):
    return _order([max(row) for row in _inside(points, mask)])


def ranked_unstable(points, mask):
    counts = [sum(row) for row in _inside(points, mask)]
    return sorted(range(len(counts)), key=lambda s: (counts[s], s), reverse=True)


def ranked_rounded(points, mask):
    return _order([sum(int(mask[0, 0, round(y), round(x)]) for p in row for x, y in p.tolist()) for row in points])


def ranked_best(points, mask):
    return _order([sum(row) for row in _inside(points, mask)])[0]


def ranked_without_empty(points, mask):
    counts = [sum(row) for row in _inside(points, mask)]
    return [s for s in _order(counts) if counts[s]] or [0]


def ranked_rows_for_columns(points, mask):
    return _order([sum(int(mask[0, 0, p[:, 0].long(), p[:, 1].long()].sum()) for p in row) for row in points])


RIGHT = {
    "realfill.training_hole": [hole_or, hole_complement],
    "realfill.known_loss": [loss_pool, loss_loop],
    "realfill.lora_output": [lora_merged, lora_two_layers],
    "realfill.rank_samples": [ranked_loop, ranked_tensor],
}
WRONG = {
    "realfill.training_hole": [
        ("You hide the rectangles only", hole_drawn_only),
        ("You hide the target's own hole only", hole_own_only),
        ("take the larger, not the sum", hole_sum),
        ("what is in both masks", hole_both),
        ("you hide 39% of the picture", hole_never_dropped),
        ("you hide 0% of the picture", hole_shown_when_dropped),
        ("You hide everything at luck 0.7", hole_turned_round),
        ("does not follow dropout", hole_fixed_dropout),
        ("compare with <", hole_at_zero),
        ("in place", hole_in_place),
        ("dtype torch.bool", hole_bool),
    ],
    "realfill.known_loss": [
        ("You take cells of 4 x 4 pixels, whatever the sizes say", loss_by_four),
        ("You count all cells alike", loss_plain),
        ("You count the hole and leave out what is known", loss_of_the_hole),
        ("of which a part is unknown", loss_nearest),
        ("by the share of known pixels", loss_soft),
        ("You divide by the known cells alone", loss_renormalised),
        ("You sum, expected the mean", loss_sum),
        ("You sum over the channels", loss_channels),
        ("absolute differences", loss_absolute),
        ("You return shape (3,)", loss_each),
    ],
    "realfill.lora_output": [
        ("B A is missing", lora_frozen),
        ("the frozen layer's output is missing", lora_added_only),
        ("You leave the scale out", lora_no_scale),
        ("by lora_alpha alone", lora_alpha_alone),
        ("You divide by the width of the layer", lora_by_outputs),
        ("You scale the frozen layer too", lora_scaled_whole),
        ("You forget the frozen layer's bias", lora_no_bias),
        ("Your output is not peft's", lora_root),
    ],
    "realfill.rank_samples": [
        ("You return the counts themselves", ranked_counts),
        ("You put the fewest matches first", ranked_upwards),
        ("You count matches of the whole picture", ranked_whole),
        ("You count one reference only", ranked_first),
        ("You take the best reference only", ranked_most),
        ("sort stably", ranked_unstable),
        ("column floor(x)", ranked_rounded),
        ("You return a int", ranked_best),
        ("must not be lost", ranked_without_empty),
        ("raised IndexError", ranked_rows_for_columns),
    ],
}
