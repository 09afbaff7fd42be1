"""Answers to the exercises on the Context Encoder (notebook 11), as in `answers`."""

import math

import torch
import torch.nn.functional as F

import workbench as wb

# context_encoder.channel_wise


def layer_loop(x, weight, bias):
    out = torch.zeros_like(x)
    height, width = x.shape[2:]
    cells = [(y, u) for y in range(height) for u in range(width)]
    for b in range(len(x)):
        for c in range(x.shape[1]):
            for j, (y, u) in enumerate(cells):
                out[b, c, y, u] = bias[c, j]
                for i, (v, w) in enumerate(cells):
                    out[b, c, y, u] += x[b, c, v, w] * weight[c, i, j]
    return out


def layer_batched(x, weight, bias):
    channels_first = x.permute(1, 0, 2, 3).flatten(2)  # (C, B, n)
    return torch.baddbmm(bias[:, None], channels_first, weight).permute(1, 0, 2).reshape(x.shape)


def layer_matmul(x, weight, bias):
    return (x.flatten(2)[:, :, None] @ weight)[:, :, 0].add(bias).view_as(x)


def layer_transposed(x, weight, bias):
    return layer_batched(x, weight.transpose(1, 2), bias)


def layer_no_bias(x, weight, bias):
    return layer_batched(x, weight, 0 * bias)


def layer_one_matrix(x, weight, bias):
    return (x.flatten(2) @ weight[0] + bias).view_as(x)


def layer_summed(x, weight, bias):
    every = (x.flatten(2)[:, :, None] @ weight)[:, :, 0].sum(1, keepdim=True)
    return (every + bias).view_as(x)


def layer_diagonal(x, weight, bias):
    return (x.flatten(2) * weight.diagonal(dim1=1, dim2=2) + bias).view_as(x)


def layer_columns(x, weight, bias):
    return layer_batched(x.mT.contiguous(), weight, bias).mT


def layer_renamed(x, weight, bias):
    channels_first = x.flatten(2).transpose(0, 1)
    return (channels_first @ weight + bias[:, None]).reshape(x.shape)


def layer_flat(x, weight, bias):
    return layer_batched(x, weight, bias).flatten(2)


# context_encoder.joint_loss


def joint_padded(block, truth, fooled, l2_share, rim, overlap):
    inner = [n - 2 * rim for n in block.shape[-2:]]
    weight = F.pad(torch.ones(inner), (rim,) * 4, value=overlap)
    return (l2_share * weight * (block - truth) ** 2).mean() + fooled * (1 - l2_share)


def joint_summed(block, truth, fooled, l2_share, rim, overlap):
    error = (block - truth).pow(2)
    hole = error[..., rim:-rim, rim:-rim].sum()
    edge = error.sum() - hole
    return l2_share * (overlap * edge + hole) / error.numel() + (1 - l2_share) * fooled


def _joint(block, truth, fooled, share, weight=None, other=None):
    weight = 1.0 if weight is None else weight
    other = 1 - share if other is None else other
    return share * (weight * (block - truth) ** 2).mean() + other * fooled


def _frame(block, rim, edge, heart=1.0):
    weight = torch.full(block.shape[-2:], float(edge))
    weight[rim:-rim, rim:-rim] = heart
    return weight


def joint_inside_out(block, truth, fooled, l2_share, rim, overlap):
    return _joint(block, truth, fooled, l2_share, _frame(block, rim, 1, overlap))


def joint_ten(block, truth, fooled, l2_share, rim, overlap):
    return _joint(block, truth, fooled, l2_share, _frame(block, rim, 10))


def joint_even(block, truth, fooled, l2_share, rim, overlap):
    return _joint(block, truth, fooled, l2_share)


def joint_normalised(block, truth, fooled, l2_share, rim, overlap):
    weight = _frame(block, rim, overlap)
    return _joint(block, truth, fooled, l2_share, weight / weight.mean())


def joint_corners(block, truth, fooled, l2_share, rim, overlap):
    weight = torch.ones(block.shape[-2:])
    weight[:rim] *= overlap
    weight[-rim:] *= overlap
    weight[:, :rim] *= overlap
    weight[:, -rim:] *= overlap
    return _joint(block, truth, fooled, l2_share, weight)


def joint_two_edges(block, truth, fooled, l2_share, rim, overlap):
    weight = torch.full(block.shape[-2:], overlap)
    weight[rim:, rim:] = 1
    return _joint(block, truth, fooled, l2_share, weight)


def joint_rim_only(block, truth, fooled, l2_share, rim, overlap):
    return _joint(block, truth, fooled, l2_share, _frame(block, rim, overlap, 0))


def joint_no_adversary(block, truth, fooled, l2_share, rim, overlap):
    return _joint(block, truth, 0, l2_share, _frame(block, rim, overlap))


def joint_whole_adversary(block, truth, fooled, l2_share, rim, overlap):
    return _joint(block, truth, fooled, l2_share, _frame(block, rim, overlap), other=1)


def joint_exchanged(block, truth, fooled, l2_share, rim, overlap):
    return _joint(block, truth, fooled, 1 - l2_share, _frame(block, rim, overlap))


def joint_absolute(block, truth, fooled, l2_share, rim, overlap):
    weight = _frame(block, rim, overlap)
    return l2_share * (weight * (block - truth).abs()).mean() + (1 - l2_share) * fooled


def joint_sum(block, truth, fooled, l2_share, rim, overlap):
    return l2_share * (_frame(block, rim, overlap) * (block - truth) ** 2).sum() + (1 - l2_share) * fooled


def joint_detached(block, truth, fooled, l2_share, rim, overlap):
    return joint_padded(block.detach(), truth, fooled, l2_share, rim, overlap)


def joint_item(block, truth, fooled, l2_share, rim, overlap):
    return joint_padded(block, truth, fooled, l2_share, rim, overlap).item()


# context_encoder.adversarial


def game_library(real, fake):
    bce = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
    return 0.5 * (bce(real, ones) + bce(fake, zeros)), bce(fake, torch.ones_like(fake))


def game_logsigmoid(real, fake):
    log = F.logsigmoid
    both = torch.cat([log(real).flatten(), log(-fake).flatten()])
    return -both.mean(), -log(fake).mean()


def game_exchanged(real, fake):
    return game_library(real, fake)[::-1]


def game_not_halved(real, fake):
    told_apart, fooled = game_library(real, fake)
    return 2 * told_apart, fooled


def game_labels(real, fake):
    return game_library(fake, real)[0], game_library(real, fake)[1]


def game_sigmoid_twice(real, fake):
    return game_library(real.sigmoid(), fake.sigmoid())[0], game_library(real, fake)[1]


def game_saturating(real, fake):
    return game_library(real, fake)[0], torch.log(1 - fake.sigmoid() + 1e-9).mean()


def game_punished(real, fake):
    return game_library(real, fake)[0], -F.logsigmoid(-fake).mean()


def game_true_blocks(real, fake):
    return game_library(real, fake)[0], game_library(real, real)[1]


def game_averaged_scores(real, fake):
    mean = real.mean()[None], fake.mean()[None]
    return game_library(*mean)[0], game_library(real, fake)[1]


def game_sign(real, fake):
    return -game_library(real, fake)[0], game_library(real, fake)[1]


def game_plain_logarithm(real, fake):
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    return -(d_real.log().mean() + (1 - d_fake).log().mean()) / 2, -d_fake.log().mean()


def game_maps(real, fake):
    return (F.softplus(-real) + F.softplus(fake)) / 2, F.softplus(-fake)


def game_one(real, fake):
    return game_library(real, fake)[0]


# context_encoder.fill_by_square


def _square_of(mask):
    ys, xs = (mask[0, 0] == 1).nonzero(as_tuple=True)
    x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
    side = 14 * math.ceil(max(x1 - x0, y1 - y0) / 14)
    return x0 - (side - (x1 - x0)) // 2, y0 - (side - (y1 - y0)) // 2, side


def _filled(image, mask, predict, square, share=9 / 14, whole=False, rim=4, flip=False):
    x, y, side = square
    more = round(share * side)
    cut = image[..., y - more : y + side + more, x - more : x + side + more]
    block = predict(wb.image.resize(cut, (128, 128)))
    block = block[..., rim : 64 - rim, rim : 64 - rim]
    block = wb.image.resize(block.mT if flip else block, (side, side))
    result = image.clone()
    place = result[..., y : y + side, x : x + side]
    hole = torch.ones_like(place[:, :1]) if whole else mask[..., y : y + side, x : x + side]
    place.copy_(hole * block + (1 - hole) * place)
    return result


def square_cut(image, mask, predict):
    return _filled(image, mask, predict, _square_of(mask))


def square_enlarged_with_rim(image, mask, predict):
    """Enlarges the block together with its rim, as the package does, and by another interpolation."""
    x, y, side = _square_of(mask)
    unit = side // 14
    box = (y - 9 * unit, y + side + 9 * unit), (x - 9 * unit, x + side + 9 * unit)
    cut = image[..., slice(*box[0]), slice(*box[1])]
    shown = F.interpolate(cut, (128, 128), mode="bilinear", antialias=True)
    large = F.interpolate(predict(shown), (side + 2 * unit, side + 2 * unit), mode="bilinear", antialias=True)
    painted = F.pad(large[..., unit:-unit, unit:-unit], (x, image.shape[3] - x - side, y, image.shape[2] - y - side))
    return image * (1 - mask) + painted * mask


def square_alone(image, mask, predict):
    return _filled(image, mask, predict, _square_of(mask), share=0)


def square_twice(image, mask, predict):
    return _filled(image, mask, predict, _square_of(mask), share=0.5)


def square_whole(image, mask, predict):
    return _filled(image, mask, predict, _square_of(mask), whole=True)


def square_with_rim(image, mask, predict):
    return _filled(image, mask, predict, _square_of(mask), rim=0)


def square_mirrored(image, mask, predict):
    return _filled(image, mask, predict, _square_of(mask), flip=True)


def square_at_corner(image, mask, predict):
    x0, y0, _, _ = wb.mask.bounding_box(mask)
    return _filled(image, mask, predict, (x0, y0, _square_of(mask)[2]))


def square_not_rounded(image, mask, predict):
    x0, y0, x1, y1 = wb.mask.bounding_box(mask)
    side = max(x1 - x0, y1 - y0)
    return _filled(image, mask, predict, (x0 - (side - x1 + x0) // 2, y0 - (side - y1 + y0) // 2, side))


def square_shorter(image, mask, predict):
    x0, y0, x1, y1 = wb.mask.bounding_box(mask)
    side = 14 * math.ceil(min(x1 - x0, y1 - y0) / 14)
    return _filled(image, mask, predict, ((x0 + x1 - side) // 2, (y0 + y1 - side) // 2, side))


def square_stretched(image, mask, predict):
    x0, y0, x1, y1 = wb.mask.bounding_box(mask)
    wide, high = round(9 * (x1 - x0) / 14), round(9 * (y1 - y0) / 14)
    cut = image[..., y0 - high : y1 + high, x0 - wide : x1 + wide]
    block = predict(wb.image.resize(cut, (128, 128)))[..., 4:-4, 4:-4]
    result = image.clone()
    result[..., y0:y1, x0:x1] = wb.image.resize(block, (y1 - y0, x1 - x0))
    return torch.where(mask == 1, result, image)


def square_in_place(image, mask, predict):
    image.copy_(square_cut(image, mask, predict))
    return image


def square_not_resized(image, mask, predict):
    x, y, side = _square_of(mask)
    more = 9 * side // 14
    predict(image[..., y - more : y + side + more, x - more : x + side + more])
    return image


def square_nothing_pasted(image, mask, predict):
    square_cut(image, mask, predict)
    return image.clone()


RIGHT = {
    "context_encoder.channel_wise": [layer_loop, layer_batched, layer_matmul],
    "context_encoder.joint_loss": [joint_padded, joint_summed],
    "context_encoder.adversarial": [game_library, game_logsigmoid],
    "context_encoder.fill_by_square": [square_cut, square_enlarged_with_rim],
}
WRONG = {
    "context_encoder.channel_wise": [
        ("You go from j to i", layer_transposed),
        ("You leave the bias out", layer_no_bias),
        ("You use the first channel's matrix for all", layer_one_matrix),
        ("You add the channels up", layer_summed),
        ("You let each cell see only itself", layer_diagonal),
        ("You count cells down the columns", layer_columns),
        ("You mix up batch and channels", layer_renamed),
        ("expected that of x, (2, 3, 3, 4)", layer_flat),
    ],
    "context_encoder.joint_loss": [
        ("You take 10 on the rim whatever overlap says", joint_ten),
        ("You weigh the hole more than the rim", joint_inside_out),
        ("You count the rim like the rest", joint_even),
        ("You divide by the sum of the weights", joint_normalised),
        ("Your corners count overlap twice", joint_corners),
        ("You weigh the upper and left edges only", joint_two_edges),
        ("You measure the rim alone", joint_rim_only),
        ("You leave the adversarial part out", joint_no_adversary),
        ("You add the adversarial part whole", joint_whole_adversary),
        ("You exchange the shares", joint_exchanged),
        ("You take absolute differences", joint_absolute),
        ("You add the squares up", joint_sum),
        ("You cut the way back to block", joint_detached),
        ("You return a float", joint_item),
    ],
    "context_encoder.adversarial": [
        ("You return them the other way round", game_exchanged),
        ("You do not halve", game_not_halved),
        ("You exchange real and painted", game_labels),
        ("You take the sigmoid twice", game_sigmoid_twice),
        ("flat where it is found out", game_saturating),
        ("You punish the network where it succeeds", game_punished),
        ("You judge the network by true blocks", game_true_blocks),
        ("You average the scores first", game_averaged_scores),
        ("the sign is wrong", game_sign),
        ("runs out of numbers", game_plain_logarithm),
        ("expected means: one number each", game_maps),
        ("You return a Tensor, expected two", game_one),
    ],
    "context_encoder.fill_by_square": [
        ("You cut out the square alone", square_alone),
        ("Your cut is twice the square", square_twice),
        ("You paste the whole square", square_whole),
        ("You squeeze the whole block", square_with_rim),
        ("mirrored at the diagonal", square_mirrored),
        ("Your square begins at the hole's corner", square_at_corner),
        ("rounded up to a multiple of 14", square_not_rounded),
        ("the hole's shorter side", square_shorter),
        ("You stretch the hole's bounding box", square_stretched),
        ("You paint into the picture you were given", square_in_place),
        ("expected the cut at (1, 3, 128, 128)", square_not_resized),
        ("You return the picture as it was", square_nothing_pasted),
    ],
}
