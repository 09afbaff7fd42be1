"""Answers to every exercise: right ones, and wrong ones with a part of the message each must earn."""

import numpy as np
import torch

from tests.labs import (
    answers_attention,
    answers_context_encoder,
    answers_correspondence,
    answers_diffumatting,
    answers_diffusion,
    answers_mimicbrush,
    answers_neural_patch,
    answers_realfill,
    answers_spl,
    answers_stepping,
)
from workbench import mask as masks

# conventions.to_image


def to_image_stack(array):
    return torch.stack([torch.tensor(array[:, :, c] / 255.0, dtype=torch.float32) for c in (2, 1, 0)])[None]


def to_image_index(array):
    return torch.from_numpy(np.moveaxis(array, -1, 0).astype("float32"))[[2, 1, 0]].unsqueeze(0).div(255)


def to_image_bgr(array):
    return torch.from_numpy(array).permute(2, 0, 1)[None] / 255


def to_image_no_batch(array):
    return to_image_stack(array)[0]


def to_image_channels_last(array):
    return torch.from_numpy(array[..., ::-1].copy())[None].float() / 255


def to_image_255(array):
    return to_image_stack(array) * 255


def to_image_reshape(array):
    return torch.from_numpy(array[..., ::-1].copy()).reshape(1, 3, *array.shape[:2]).float() / 255


def to_image_double(array):
    return to_image_stack(array).double()


def to_image_signed(array):
    return to_image_stack(array) * 2 - 1


def to_image_width_first(array):
    return to_image_stack(array).transpose(2, 3)


# conventions.crop


def crop_ranges(image, box):
    rows = [y for y in range(image.shape[2]) if box[1] <= y < box[3]]
    columns = [x for x in range(image.shape[3]) if box[0] <= x < box[2]]
    return image[:, :, rows][:, :, :, columns]


def crop_narrow(image, box):
    (x0, y0), (x1, y1) = np.clip(np.array(box).reshape(2, 2), 0, [image.shape[3], image.shape[2]])
    return image.narrow(2, y0, y1 - y0).narrow(3, x0, x1 - x0).contiguous().clone()


def crop_swapped(image, box):
    return image[..., max(box[0], 0) : box[2], max(box[1], 0) : box[3]].clone()


def crop_end_included(image, box):
    return crop_ranges(image, (box[0], box[1], box[2] + 1, box[3] + 1))


def crop_size(image, box):
    return crop_ranges(image, (box[0], box[1], box[0] + box[2], box[1] + box[3]))


def crop_negative(image, box):
    return image[..., box[1] : box[3], box[0] : box[2]].clone()


def crop_view(image, box):
    return image[..., max(box[1], 0) : box[3], max(box[0], 0) : box[2]]


def crop_first_only(image, box):
    return crop_ranges(image[0][None], box)


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


# patchmatch.propagate


def propagate_roll(xy, dx, dy):
    candidate = torch.roll(xy, (dy, dx), (2, 3)) + torch.tensor([dx, dy]).view(1, 2, 1, 1)
    valid = torch.nn.functional.pad((xy[:, :1] >= 0).float(), (9, 9, 9, 9))
    valid = torch.roll(valid, (dy, dx), (2, 3))[..., 9:-9, 9:-9] > 0
    return candidate.masked_fill(~valid, -1)


def propagate_loop(xy, dx, dy):
    out = -torch.ones_like(xy)
    for y in range(xy.shape[2]):
        for x in range(xy.shape[3]):
            if 0 <= y - dy < xy.shape[2] and 0 <= x - dx < xy.shape[3] and xy[0, 0, y - dy, x - dx] >= 0:
                out[0, 0, y, x] = xy[0, 0, y - dy, x - dx] + dx
                out[0, 1, y, x] = xy[0, 1, y - dy, x - dx] + dy
    return out


def propagate_no_step(xy, dx, dy):
    moved = propagate_roll(xy, dx, dy)
    return torch.where(moved >= 0, moved - torch.tensor([dx, dy]).view(1, 2, 1, 1), -1)


def propagate_wrong_neighbour(xy, dx, dy):
    return propagate_roll(xy, -dx, -dy)


def propagate_wrong_axis(xy, dx, dy):
    return propagate_roll(xy, dy, dx)


def propagate_wrapping(xy, dx, dy):
    return torch.roll(xy, (dy, dx), (2, 3)) + torch.tensor([dx, dy]).view(1, 2, 1, 1)


def propagate_lost(xy, dx, dy):
    padded = torch.nn.functional.pad(xy, (9, 9, 9, 9), value=-1)
    return torch.roll(padded, (dy, dx), (2, 3))[..., 9:-9, 9:-9] + torch.tensor([dx, dy]).view(1, 2, 1, 1)


def propagate_in_place(xy, dx, dy):
    return xy.copy_(propagate_roll(xy, dx, dy))


def propagate_zero_outside(xy, dx, dy):
    return propagate_roll(xy, dx, dy).clamp(min=0)


# patchmatch.random_search


def search_powers(xy, radius, generator):
    radii = [radius * 0.5**i for i in range(20) if radius * 0.5**i >= 1]
    return [xy + torch.empty(xy.shape).uniform_(-w, w, generator=generator).round().to(xy.dtype) for w in radii]


def search_truncated(xy, radius, generator):
    out = []
    for i in range(int(np.log2(radius)) + 1):
        w = radius / 2**i
        out.append(xy + ((torch.rand(*xy.shape, generator=generator) - 0.5) * 2 * w).to(torch.int64))
    return out


def search_one_side(xy, radius, generator):
    return [xy + (torch.rand(xy.shape, generator=generator) * w).round().long() for w in (20, 10, 5, 2.5, 1.25)]


def search_alike(xy, radius, generator):
    return [
        xy + (w * (2 * torch.rand((), generator=generator) - 1)).round().long().expand_as(xy)
        for w in (20, 10, 5, 2.5, 1.25)
    ]


def search_global(xy, radius, generator):
    return [xy + (w * (2 * torch.rand(xy.shape) - 1)).round().long() for w in (20, 10, 5, 2.5, 1.25)]


def search_too_far(xy, radius, generator):
    return [x + (x - xy) for x in search_powers(xy, radius, generator)]


def search_no_shrinking(xy, radius, generator):
    return [search_powers(xy, radius, generator)[0] for _ in range(5)]


def search_fractions(xy, radius, generator):
    return [xy + w * (2 * torch.rand(xy.shape, generator=generator) - 1) for w in (20, 10, 5, 2.5, 1.25)]


def search_too_long(xy, radius, generator):
    return [*search_powers(xy, radius, generator), xy]


def search_diagonal(xy, radius, generator):
    return [
        xy + (w * (2 * torch.rand(1, 1, *xy.shape[2:], generator=generator) - 1)).round().long()
        for w in (20, 10, 5, 2.5, 1.25)
    ]


# patchmatch.vote


def vote_loop(source, xy, weight, patch):
    r, (height, width) = patch // 2, xy.shape[2:]
    out = torch.zeros(1, 3, height, width)
    for py in range(height):
        for px in range(width):
            total = norm = 0
            for cy in range(max(0, py - r), min(height, py + r + 1)):
                for cx in range(max(0, px - r), min(width, px + r + 1)):
                    x, y = xy[0, :, cy, cx].tolist()
                    total = total + weight[0, 0, cy, cx] * source[0, :, y + py - cy, x + px - cx]
                    norm = norm + weight[0, 0, cy, cx]
            out[0, :, py, px] = total / norm
    return out


def vote_fold(source, xy, weight, patch):
    """Cuts all matched patches out and folds them back."""
    size, r = xy.shape[2:], patch // 2
    windows = torch.nn.functional.unfold(source, patch)  # (1, 3 p p, M)
    per_row = source.shape[3] - 2 * r
    flat = ((xy[0, 1] - r) * per_row + xy[0, 0] - r).flatten()
    w = weight.flatten()
    chosen = windows[:, :, flat] * w
    fold = {"output_size": (size[0] + 2 * r, size[1] + 2 * r), "kernel_size": patch}
    total = torch.nn.functional.fold(chosen, **fold)
    norm = torch.nn.functional.fold(w.expand(1, patch * patch, -1), **fold)
    return (total / norm)[..., r:-r, r:-r]


def vote_middle(source, xy, weight, patch):
    return source[:, :, xy[0, 1], xy[0, 0]]


def vote_unweighted(source, xy, weight, patch):
    return vote_fold(source, xy, torch.ones_like(weight), patch)


def vote_mirrored(source, xy, weight, patch):
    r, (height, width) = patch // 2, xy.shape[2:]
    out = torch.zeros(1, 3, height, width)
    for py in range(height):
        for px in range(width):
            total = norm = 0
            for cy in range(max(0, py - r), min(height, py + r + 1)):
                for cx in range(max(0, px - r), min(width, px + r + 1)):
                    x, y = xy[0, :, cy, cx].tolist()
                    total = total + weight[0, 0, cy, cx] * source[0, :, y - py + cy, x - px + cx]
                    norm = norm + weight[0, 0, cy, cx]
            out[0, :, py, px] = total / norm
    return out


def vote_dark_frame(source, xy, weight, patch):
    r = patch // 2
    share = torch.nn.functional.pad(torch.ones_like(weight), (r, r, r, r))
    share = torch.nn.functional.avg_pool2d(share, patch, 1)
    return vote_fold(source, xy, weight, patch) * share


def vote_sum(source, xy, weight, patch):
    return vote_fold(source, xy, weight, patch) * patch**2


def vote_row_first(source, xy, weight, patch):
    y, x = xy[:, :1].clamp(max=source.shape[2] - 3), xy[:, 1:]
    return vote_fold(source, torch.cat([x, y], 1), weight, patch)


def vote_in_place(source, xy, weight, patch):
    result = vote_fold(source, xy, weight, patch)
    weight /= weight.sum()
    return result


# world.unproject


def unproject_scaled(x, y, depth, focal_length, size):
    scale = depth / focal_length
    return scale * (x - size[1] / 2), scale * (y - size[0] / 2), focal_length * scale


def unproject_matrix(x, y, depth, focal_length, size):
    k = torch.tensor([[focal_length, 0, size[1] / 2], [0, focal_length, size[0] / 2], [0, 0, 1]])
    return depth * torch.linalg.solve(k, torch.tensor([x, y, 1.0]))


def unproject_width_for_height(x, y, depth, focal_length, size):
    return unproject_scaled(x, y, depth, focal_length, size[::-1])


def unproject_from_corner(x, y, depth, focal_length, size):
    return unproject_scaled(x, y, depth, focal_length, (0, 0))


def unproject_exchanged(x, y, depth, focal_length, size):
    return (x - size[1] / 2) * focal_length / depth, (y - size[0] / 2) * focal_length / depth, depth


def unproject_ray(x, y, depth, focal_length, size):
    point = unproject_matrix(x, y, 1.0, focal_length, size)
    return depth * point / point.norm()


def unproject_upward(x, y, depth, focal_length, size):
    a, b, c = unproject_scaled(x, y, depth, focal_length, size)
    return a, -b, c


# world.composite


def composite_over(foreground, alpha, background):
    return torch.lerp(background, foreground, alpha.expand_as(foreground))


def composite_difference(foreground, alpha, background):
    return background + alpha * (foreground - background)


def composite_exchanged(foreground, alpha, background):
    return composite_over(background, alpha, foreground)


def composite_threshold(foreground, alpha, background):
    return composite_over(foreground, (alpha > 0.5).float(), background)


def composite_premultiplied(foreground, alpha, background):
    return foreground + (1 - alpha) * background


def composite_added(foreground, alpha, background):
    return alpha * foreground + background


def composite_twice(foreground, alpha, background):
    return composite_over(foreground, alpha * alpha, background)


def composite_changes(foreground, alpha, background):
    return background.mul_(1 - alpha).add_(foreground * alpha)


def random_mask_numpy_seed(size, seed):
    np.random.seed(seed)
    return masks.rectangles(size, int(np.random.randint(10**6)))


def random_mask_always_fifteen(size, seed):
    return masks.rectangles(size, seed, count=(15, 15))


def random_mask_one_size(size, seed):
    height, width = size
    draw = np.random.default_rng(seed)
    mask = torch.zeros(1, 1, height, width)
    h, w = int(0.14 * height), int(0.14 * width)
    for _ in range(draw.integers(1, 30)):
        y, x = draw.integers(0.02 * height, 0.98 * height - h), draw.integers(0.02 * width, 0.98 * width - w)
        mask[:, :, y : y + h, x : x + w] = 1
    return 1 - mask if draw.random() < 0.5 else mask


RIGHT = {
    "conventions.to_image": [to_image_stack, to_image_index],
    "conventions.crop": [crop_ranges, crop_narrow],
    "realfill.random_mask": [random_mask_loop, random_mask_comparison],
    "masks.feathered_composite": [composite_lerp, composite_where],
    "metrics.hole_psnr": [psnr_by_selection, psnr_by_root],
    "patchmatch.propagate": [propagate_roll, propagate_loop],
    "patchmatch.random_search": [search_powers, search_truncated],
    "patchmatch.vote": [vote_loop, vote_fold],
    "world.unproject": [unproject_scaled, unproject_matrix],
    "world.composite": [composite_over, composite_difference],
}
WRONG = {
    "conventions.to_image": [
        ("Red and blue are swapped", to_image_bgr),
        ("one picture keeps its batch dimension", to_image_no_batch),
        ("Your channels come last", to_image_channels_last),
        ("divide by 255", to_image_255),
        ("reshape only renames them", to_image_reshape),
        ("dtype torch.float64", to_image_double),
        ("go below 0", to_image_signed),
        ("Height and width are swapped", to_image_width_first),
    ],
    "conventions.crop": [
        ("rows (y) come first", crop_swapped),
        ("the end of a box is excluded", crop_end_included),
        ("a box holds two corners", crop_size),
        ("clip it at 0", crop_negative),
        ("return a copy", crop_view),
        ("expected (2, 3, 7, 11)", crop_first_only),
    ],
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
        ("global state of random or numpy.random", random_mask_numpy_seed),
        ("draw the number of rectangles anew", random_mask_always_fifteen),
        ("expected each drawn anew, from 3 % to 25 %", random_mask_one_size),
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
    "patchmatch.propagate": [
        ("You copy the neighbour's match as it is", propagate_no_step),
        ("wrong sign", propagate_wrong_neighbour),
        ("wrong axis", propagate_wrong_axis),
        ("torch.roll wraps round", propagate_wrapping),
        ("the candidate must stay -1", propagate_lost),
        ("write into a copy", propagate_in_place),
        ("missing the candidate should be -1", propagate_zero_outside),
    ],
    "patchmatch.random_search": [
        ("on one side only", search_one_side),
        ("All pixels move alike", search_alike),
        ("global random state", search_global),
        ("expected at most the radius", search_too_far),
        ("does not shrink", search_no_shrinking),
        ("fractions of a pixel", search_fractions),
        ("you make 6 candidates", search_too_long),
        ("along a diagonal", search_diagonal),
    ],
    "patchmatch.vote": [
        ("only the middle pixel", vote_middle),
        ("You count every patch alike", vote_unweighted),
        ("The offset has the wrong sign", vote_mirrored),
        ("At the frame your picture is wrong", vote_dark_frame),
        ("25 times too bright", vote_sum),
        ("is x taken from xy[:, 0]", vote_row_first),
        ("You change what you were given", vote_in_place),
    ],
    "world.unproject": [
        ("You take height for width", unproject_width_for_height),
        ("measure x and y from there", unproject_from_corner),
        ("are exchanged", unproject_exchanged),
        ("the length of the ray", unproject_ray),
        ("Y points the wrong way", unproject_upward),
    ],
    "world.composite": [
        ("Object and background are exchanged", composite_exchanged),
        ("Your edge is hard", composite_threshold),
        ("thin hair shines", composite_premultiplied),
        ("shines through the object", composite_added),
        ("multiply by alpha twice", composite_twice),
        ("work on copies", composite_changes),
    ],
}
for _room in (
    answers_diffusion, answers_stepping, answers_attention, answers_correspondence, answers_context_encoder,
    answers_neural_patch, answers_spl, answers_realfill, answers_mimicbrush, answers_diffumatting,
):  # fmt: skip
    RIGHT |= _room.RIGHT
    WRONG |= _room.WRONG
