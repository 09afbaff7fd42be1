"""Answers to every exercise: right ones, and wrong ones with a part of the message each must earn."""

import numpy as np
import torch

from workbench import mask as masks

# realfill.random_mask


def random_mask_loop(size, seed):
    height, width = size
    draw = np.random.default_rng(seed)
    mask = torch.zeros(1, 1, height, width)
    for _ in range(draw.integers(1, 30)):
        h, w = int(draw.uniform(0.03, 0.25) * height), int(draw.uniform(0.03, 0.25) * width)
        y = draw.integers(0.01 * height, 0.99 * height - h)
        x = draw.integers(0.01 * width, 0.99 * width - w)
        mask[:, :, y : y + h, x : x + w] = 1
    return 1 - mask if draw.random() < 0.5 else mask


def random_mask_comparison(size, seed):
    """Without slices: each rectangle as a product of two intervals."""
    height, width = size
    g = torch.Generator().manual_seed(seed)
    n = torch.randint(1, 30, (1,), generator=g)
    r = torch.rand(4, n, 1, 1, generator=g)
    h, w = (0.03 + 0.22 * r[0]) * height, (0.03 + 0.22 * r[1]) * width
    y0, x0 = 0.015 * height + r[2] * (0.97 * height - h), 0.015 * width + r[3] * (0.97 * width - w)
    y, x = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)
    union = ((y >= y0) & (y < y0 + h) & (x >= x0) & (x < x0 + w)).any(0)
    keep = torch.rand(1, generator=g).item() < 0.5
    return (~union if keep else union).float()[None, None]


def random_mask_width_first(size, seed):
    return masks.rectangles(size, seed).transpose(2, 3)


def random_mask_never_flipped(size, seed):
    return masks.rectangles(size, seed, "union")


def random_mask_always_flipped(size, seed):
    return masks.rectangles(size, seed, "complement")


def random_mask_global_seed(size, seed):
    torch.manual_seed(seed)
    return masks.rectangles(size, int(torch.randint(0, 10**6, (1,))))


def random_mask_no_seed(size, seed):
    return masks.rectangles(size, np.random.default_rng().integers(10**9))


def random_mask_fixed(size, seed):
    return masks.rectangles(size, 0)


def random_mask_one_rectangle(size, seed):
    return masks.rectangles(size, seed, count=(1, 1))


def random_mask_soft(size, seed):
    return masks.rectangles(size, seed) * 0.5


def random_mask_no_margin(size, seed):
    union = masks.rectangles(size, seed, "union")
    union[..., 0, 20:40] = 1
    return 1 - union if np.random.default_rng(seed).random() < 0.5 else union


# masks.feathered_composite


def composite_lerp(image, generated, mask, radius):
    return torch.lerp(image, generated, masks.feather(mask, radius).expand_as(image))


def composite_where(image, generated, mask, radius):
    weight = masks.feather(mask, radius)
    blend = image + weight * (generated - image)
    return torch.where(weight == 0, image, torch.where(weight == 1, generated, blend))


def composite_swapped(image, generated, mask, radius):
    weight = masks.feather(mask, radius)
    return image * weight + generated * (1 - weight)


def composite_hard(image, generated, mask, radius):
    return image * (1 - mask) + generated * mask


def composite_blurred(image, generated, mask, radius):
    k = 2 * radius + 1
    weight = torch.nn.functional.avg_pool2d(mask, k, 1, radius, count_include_pad=False)
    return image * (1 - weight) + generated * weight


def composite_wide(image, generated, mask, radius):
    weight = masks.feather(mask, 3 * radius + 2)
    return image * (1 - weight) + generated * weight


def composite_in_place(image, generated, mask, radius):
    weight = masks.feather(mask, radius)
    return image.mul_(1 - weight).add_(generated * weight)


def composite_flat_rim(image, generated, mask, radius):
    weight = torch.where(mask > 0, 1.0, 0.5 * masks.grow(mask, radius))
    return image * (1 - weight) + generated * weight


# metrics.hole_psnr


def psnr_by_selection(result, truth, mask):
    values = []
    for r, t, m in zip(result, truth, mask, strict=True):
        inside = m.expand_as(r) > 0.5
        values.append(-10 * torch.log10(((r - t)[inside] ** 2).mean()))
    return torch.stack(values)


def psnr_by_root(result, truth, mask):
    n = mask.sum(dim=(1, 2, 3)) * result.shape[1]
    rmse = (((result - truth) * mask) ** 2).sum(dim=(1, 2, 3)).div(n).sqrt()
    return 20 * torch.log10(1 / rmse)


def _psnr(squared, count, log=torch.log10, factor=10):
    return -factor * log(squared.sum((1, 2, 3)) / count)


def psnr_whole(result, truth, mask):
    return 10 * torch.log10(1 / ((result - truth) ** 2).mean((1, 2, 3)))


def psnr_all_pixels(result, truth, mask):
    return _psnr(((result - truth) * mask) ** 2, result[0].numel())


def psnr_no_channels(result, truth, mask):
    return _psnr(((result - truth) * mask) ** 2, mask.sum((1, 2, 3)))


def psnr_kept(result, truth, mask):
    return psnr_by_selection(result, truth, 1 - mask)


def psnr_natural(result, truth, mask):
    return _psnr(((result - truth) * mask) ** 2, 3 * mask.sum((1, 2, 3)), torch.log)


def psnr_twice(result, truth, mask):
    return 2 * psnr_by_root(result, truth, mask)


def psnr_negative(result, truth, mask):
    return -psnr_by_root(result, truth, mask)


def psnr_batch(result, truth, mask):
    return psnr_by_selection(result, truth, mask).mean()[None] * 0 - 10 * torch.log10(
        ((result - truth)[mask.expand_as(result) > 0.5] ** 2).mean()
    )


def psnr_epsilon(result, truth, mask):
    mse = (((result - truth) * mask) ** 2).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    return 10 * torch.log10(1 / (mse + 1e-8))


RIGHT = {
    "realfill.random_mask": [random_mask_loop, random_mask_comparison],
    "masks.feathered_composite": [composite_lerp, composite_where],
    "metrics.hole_psnr": [psnr_by_selection, psnr_by_root],
}
WRONG = {
    "realfill.random_mask": [
        ("height comes first", random_mask_width_first),
        ("You only ever make holes of the rectangles", random_mask_never_flipped),
        ("You only ever keep the rectangles", random_mask_always_flipped),
        ("You change the global random state", random_mask_global_seed),
        ("The same seed gives two different masks", random_mask_no_seed),
        ("Different seeds give the same mask", random_mask_fixed),
        ("draw 1 to 29 of them, not one", random_mask_one_rectangle),
        ("expected a hard mask", random_mask_soft),
        ("touch the frame", random_mask_no_margin),
    ],
    "masks.feathered_composite": [
        ("You paste the photograph into the hole", composite_swapped),
        ("Your edge is hard", composite_hard),
        ("the old picture shines through", composite_blurred),
        ("Pixels farther than the radius", composite_wide),
        ("in place", composite_in_place),
        ("The ramp is not that of", composite_flat_rim),
    ],
    "metrics.hole_psnr": [
        ("You measure the whole picture", psnr_whole),
        ("You divide by all pixels", psnr_all_pixels),
        ("divide by 3 times as many", psnr_no_channels),
        ("You measure the kept area", psnr_kept),
        ("natural logarithm", psnr_natural),
        ("twice too large", psnr_twice),
        ("The sign is wrong", psnr_negative),
        ("average over the whole batch", psnr_batch),
        ("should give infinity", psnr_epsilon),
    ],
}
