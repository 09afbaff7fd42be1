"""Answers to the exercises on attention (notebook 09), as in `answers`."""

import re

import numpy as np
import torch
import torch.nn.functional as F

# attention.row


def row_by_exp(q, k, place):
    logits = (q[:, place : place + 1] * k).sum(2) * q.size(2) ** -0.5
    weights = torch.exp(logits - logits.amax(1, keepdim=True))
    return weights / weights.sum(1, keepdim=True)


def row_from_all(q, k, place):
    p = torch.softmax(torch.bmm(q, k.transpose(1, 2)) / np.sqrt(q.shape[2]), 2)
    return p[:, place]


def row_fused(q, k, place):
    """The rows of fused attention over values that are the unit vectors."""
    values = torch.eye(k.shape[1]).expand(len(k), -1, -1)
    return F.scaled_dot_product_attention(q[None], k[None], values[None])[0, :, place]


def _logits(q, k, place):
    return torch.einsum("hd,hmd->hm", q[:, place], k)


def row_unscaled(q, k, place):
    return _logits(q, k, place).softmax(1)


def row_by_d(q, k, place):
    return (_logits(q, k, place) / q.shape[-1]).softmax(1)


def row_all_heads_width(q, k, place):
    return (_logits(q, k, place) / (q.shape[-1] * len(q)) ** 0.5).softmax(1)


def row_logits(q, k, place):
    return _logits(q, k, place) / q.shape[-1] ** 0.5


def row_over_heads(q, k, place):
    return row_logits(q, k, place).softmax(0)


def row_one_sum(q, k, place):
    weights = row_logits(q, k, place).exp()
    return weights / weights.sum()


def row_overflow(q, k, place):
    weights = row_logits(q, k, place).exp()
    return weights / weights.sum(1, keepdim=True)


def row_no_sum(q, k, place):
    return row_logits(q, k, place).exp()


def row_sigmoid(q, k, place):
    return row_logits(q, k, place).sigmoid()


def row_all(q, k, place):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


def row_exchanged(q, k, place):
    return row_from_all(k, q, place)


def row_mean(q, k, place):
    return row_from_all(q, k, place).mean(0)


def row_in_place(q, k, place):
    q *= q.shape[-1] ** -0.5
    return _logits(q, k, place).softmax(1)


# attention.aggregate


def aggregate_one_by_one(maps, size):
    total = torch.zeros(size)
    for layer in maps:
        for head in layer:
            resized = F.interpolate(head[None, None], size=size, mode="bilinear", align_corners=False)
            total += resized.squeeze() / len(layer) / len(maps)
    return total


def aggregate_by_matrix(maps, size):
    """Bilinear weights written out as matrices, one for rows and one for columns."""

    def weights(n, cells):
        at = ((torch.arange(n) + 0.5) * cells / n - 0.5).clamp(0, cells - 1)
        return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0)

    fields = [weights(size[0], m.shape[1]) @ m.mean(0) @ weights(size[1], m.shape[2]).T for m in maps]
    return sum(fields) / len(fields)


def _resized(maps, size, how="bilinear", **more):
    return [F.interpolate(m[None], size, mode=how, **more)[0] for m in maps]


def aggregate_max_heads(maps, size):
    return sum(F.interpolate(m.amax(0)[None, None], size, mode="bilinear")[0, 0] for m in maps) / len(maps)


def aggregate_max_layers(maps, size):
    return torch.stack([m.mean(0) for m in _resized(maps, size)]).amax(0)


def aggregate_sum(maps, size):
    return sum(m.mean(0) for m in _resized(maps, size))


def aggregate_sum_heads(maps, size):
    return sum(m.sum(0) for m in _resized(maps, size)) / len(maps)


def aggregate_all_at_once(maps, size):
    return torch.cat(_resized(maps, size)).mean(0)


def aggregate_stretched(maps, size):
    found = aggregate_one_by_one(maps, size)
    return found / found.max()


def aggregate_nearest(maps, size):
    return sum(m.mean(0) for m in _resized(maps, size, "nearest")) / len(maps)


def aggregate_corners(maps, size):
    return sum(m.mean(0) for m in _resized(maps, size, align_corners=True)) / len(maps)


def aggregate_bicubic(maps, size):
    return sum(m.mean(0) for m in _resized(maps, size, "bicubic")) / len(maps)


def aggregate_width_first(maps, size):
    return aggregate_one_by_one(maps, size[::-1])


def aggregate_not_squeezed(maps, size):
    return aggregate_one_by_one(maps, size)[None, None]


def aggregate_softmax(maps, size):
    return sum(F.interpolate(m.softmax(0).mean(0)[None, None], size, mode="bilinear")[0, 0] for m in maps) / len(maps)


def aggregate_in_place(maps, size):
    for layer in maps:
        layer /= len(layer)
    return sum(m.sum(0) for m in _resized(maps, size)) / len(maps)


# attention.columns


def columns_by_text(tokens, word):
    """By letters: each letter of the whole text knows its column."""
    text, owner = " ", [-1]
    for column, token in enumerate(tokens):
        plain = " " if token.startswith("<|") else token.replace("</w>", " ")
        text, owner = text + plain, owner + [column] * len(plain)
    found = set()
    for match in re.finditer(f"(?<= ){re.escape(word)}(?= )", text):
        found |= set(owner[match.start() : match.end()])
    return sorted(found)


def columns_by_number(tokens, word):
    """By numbering the words: a word begins after each "</w>" and after each special token."""
    ends = [token.endswith("</w>") or token.startswith("<|") for token in tokens]
    number = np.concatenate([[0], np.cumsum(ends)[:-1]])
    found = []
    for which in range(int(number.max()) + 1):
        columns = np.flatnonzero(number == which).tolist()
        if "".join(tokens[c].replace("</w>", "") for c in columns) == word:
            found.extend(columns)
    return found


def columns_without_start(tokens, word):
    return [column - 1 for column in columns_by_text(tokens, word)]


def columns_first_piece(tokens, word):
    found = columns_by_text(tokens, word)
    return [column for column in found if column - 1 not in found]


def columns_last_piece(tokens, word):
    return [column for column in columns_by_text(tokens, word) if tokens[column].endswith("</w>")]


def columns_one_token(tokens, word):
    return [column for column, token in enumerate(tokens) if token == word + "</w>"]


def columns_parts(tokens, word):
    return [column for column, token in enumerate(tokens) if token.replace("</w>", "") in word and len(token) > 5]


def columns_any_piece(tokens, word):
    whole = columns_by_text(tokens, word)
    return sorted({*whole, *(c for c, token in enumerate(tokens) if token.replace("</w>", "") == word)})


def columns_beginning(tokens, word):
    return sorted({*columns_by_text(tokens, word), *(c for c, token in enumerate(tokens) if token == word)})


def columns_first_occurrence(tokens, word):
    found = columns_by_text(tokens, word)
    return [column for place, column in enumerate(found) if column - place == found[0]]


def columns_span(tokens, word):
    found = columns_by_text(tokens, word)
    return list(range(found[0], found[-1] + 1)) if found else []


def columns_with_end(tokens, word):
    found = columns_by_text(tokens, word)
    return [*found, len(tokens) - 3] if word == "cup" else found


def columns_names(tokens, word):
    return [tokens[column] for column in columns_by_text(tokens, word)]


def columns_tuple(tokens, word):
    return tuple(columns_by_text(tokens, word))


# attention.iou


def iou_numpy(heat, ids, things, noun, share):
    balls = [number for number, thing in enumerate(things, start=1) if re.search(rf"(^|\s){noun}$", thing)]
    there = np.isin(ids.numpy(), balls)
    found = (heat / heat.max()).numpy() >= share
    return np.logical_and(found, there).sum().item() / np.logical_or(found, there).sum().item()


def iou_loop(heat, ids, things, noun, share):
    highest, both, either = heat.max().item(), 0, 0
    for value, number in zip(heat.flatten().tolist(), ids.flatten().tolist(), strict=True):
        bright = value >= share * highest
        there = number > 0 and things[number - 1].split(" ")[-1] == noun
        both, either = both + (bright and there), either + (bright or there)
    return both / either


def _there(ids, things, wanted, first=1):
    numbers = [first + number for number, thing in enumerate(things) if wanted(thing)]
    return sum((ids == number) for number in numbers) > 0


def _over(found, there):
    return ((found & there).sum() / (found | there).sum()).item()


def _bright(heat, share):
    return heat >= share * heat.max()


def iou_absolute(heat, ids, things, noun, share):
    return _over(heat >= share, _there(ids, things, lambda thing: thing.split()[-1] == noun))


def iou_first_only(heat, ids, things, noun, share):
    number = 1 + [thing.split()[-1] for thing in things].index(noun)
    return _over(_bright(heat, share), ids == number)


def iou_mean(heat, ids, things, noun, share):
    numbers = [1 + n for n, thing in enumerate(things) if thing.split()[-1] == noun]
    return float(np.mean([_over(_bright(heat, share), ids == number) for number in numbers]))


def iou_off_by_one(heat, ids, things, noun, share):
    return _over(_bright(heat, share), _there(ids, things, lambda thing: thing.split()[-1] == noun, 0))


def iou_substring(heat, ids, things, noun, share):
    return _over(_bright(heat, share), _there(ids, things, lambda thing: noun in thing))


def iou_ending(heat, ids, things, noun, share):
    return _over(_bright(heat, share), _there(ids, things, lambda thing: thing.endswith(noun)))


def _sets(heat, ids, things, noun, share):
    return _bright(heat, share), _there(ids, things, lambda thing: thing.split()[-1] == noun)


def iou_dice(*given):
    found, there = _sets(*given)
    return (2 * (found & there).sum() / (found.sum() + there.sum())).item()


def iou_sum(*given):
    found, there = _sets(*given)
    return ((found & there).sum() / (found.sum() + there.sum())).item()


def iou_recall(*given):
    found, there = _sets(*given)
    return (found & there).sum().item() / there.sum().item()


def iou_precision(*given):
    found, there = _sets(*given)
    return (found & there).sum().item() / found.sum().item()


def iou_half(heat, ids, things, noun, share):
    return iou_numpy(heat, ids, things, noun, 0.5)


def iou_tensor(heat, ids, things, noun, share):
    return torch.tensor(iou_numpy(heat, ids, things, noun, share))


RIGHT = {
    "attention.row": [row_by_exp, row_from_all, row_fused],
    "attention.aggregate": [aggregate_one_by_one, aggregate_by_matrix],
    "attention.columns": [columns_by_text, columns_by_number],
    "attention.iou": [iou_numpy, iou_loop],
}
WRONG = {
    "attention.row": [
        ("You leave the scale out", row_unscaled),
        ("You divide by d, expected its root", row_by_d),
        ("the width of all heads together", row_all_heads_width),
        ("You return the logits", row_logits),
        ("the softmax over the heads", row_over_heads),
        ("the sum over all heads", row_one_sum),
        ("exp overflows", row_overflow),
        ("without dividing by its sum", row_no_sum),
        ("You take a sigmoid", row_sigmoid),
        ("You return all 5 rows", row_all),
        ("queries and keys are exchanged", row_exchanged),
        ("one row for all heads", row_mean),
        ("You change the q or k", row_in_place),
    ],
    "attention.aggregate": [
        ("You take the largest head", aggregate_max_heads),
        ("the larger layer at each place", aggregate_max_layers),
        ("You add the layers up", aggregate_sum),
        ("You add the heads up", aggregate_sum_heads),
        ("average over all heads at once", aggregate_all_at_once),
        ("You stretch to a maximum of 1", aggregate_stretched),
        ("Your map has steps", aggregate_nearest),
        ("You align corners", aggregate_corners),
        ("You resize bicubically", aggregate_bicubic),
        ("height and width are exchanged", aggregate_width_first),
        ("expected the map alone", aggregate_not_squeezed),
        ("You take another softmax", aggregate_softmax),
        ("You change the maps", aggregate_in_place),
    ],
    "attention.columns": [
        ("one too small", columns_without_start),
        ("only the first piece", columns_first_piece),
        ("only the last piece", columns_last_piece),
        ("You find no 'bookshelf'", columns_one_token),
        ("You take the other 'shelf'", columns_parts),
        ("You count the end of 'bookshelf'", columns_any_piece),
        ("You count the beginning of 'cupboard'", columns_beginning),
        ("You stop at the first 'cup'", columns_first_occurrence),
        ("everything from the first 'cup'", columns_span),
        ("end or padding tokens", columns_with_end),
        ("expected the columns' numbers", columns_names),
        ("You return a tuple", columns_tuple),
    ],
    "attention.iou": [
        ("share itself", iou_absolute),
        ("only one of the two balls", iou_first_only),
        ("You average over the balls", iou_mean),
        ("Your ids are one off", iou_off_by_one),
        ("'a ball lamp' or 'a football'", iou_substring),
        ("compare whole words, not endings", iou_ending),
        ("Dice's coefficient", iou_dice),
        ("You divide by |A| + |B|", iou_sum),
        ("(recall)", iou_recall),
        ("(precision)", iou_precision),
        ("does not follow share", iou_half),
        ("You return a Tensor", iou_tensor),
    ],
}
