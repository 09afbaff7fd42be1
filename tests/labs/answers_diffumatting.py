"""Answers to the exercises on DiffuMatting (notebook 16), as in `answers`."""

import numpy as np
import torch
import torch.nn.functional as F

# diffumatting.triangulate


def triangle_solve(first, second, first_screen, second_screen):
    step = torch.tensor(first_screen) - torch.tensor(second_screen)
    rows = (first - second).permute(0, 2, 3, 1).reshape(-1, 3)
    shine = torch.linalg.lstsq(step[:, None], rows.T).solution[0]
    height, width = first.shape[2:]
    return (1 - shine).reshape(len(first), 1, height, width).clamp(min=0, max=1)


def triangle_einsum(first, second, first_screen, second_screen):
    step = torch.tensor([a - b for a, b in zip(first_screen, second_screen, strict=True)])
    through = torch.einsum("bchw,c->bhw", first - second, step) / (step @ step)
    return 1 - through.unsqueeze(1).clip(0, 1)


def _triangle(first, second, first_screen, second_screen):
    step = (torch.tensor(first_screen) - torch.tensor(second_screen))[None, :, None, None]
    return first - second, step


def triangle_inverted(*given):
    change, step = _triangle(*given)
    return ((change * step).sum(1, keepdim=True) / (step**2).sum()).clamp(0, 1)


def triangle_not_squared(*given):
    change, step = _triangle(*given)
    return (1 - (change * step).sum(1, keepdim=True) / step.norm()).clamp(0, 1)


def triangle_three(*given):
    change, step = _triangle(*given)
    return (1 - change * step / (step**2).sum()).clamp(0, 1)


def triangle_by_channel(*given):
    change, step = _triangle(*given)
    return (1 - (change / step).mean(1, keepdim=True)).clamp(0, 1)


def triangle_signs(*given):
    change, step = _triangle(*given)
    return (1 + (change * step).sum(1, keepdim=True) / (step**2).sum()).clamp(0, 1)


def triangle_lengths(*given):
    change, step = _triangle(*given)
    return (1 - change.norm(dim=1, keepdim=True) / step.norm()).clamp(0, 1)


def triangle_green(*given):
    change, step = _triangle(*given)
    return (1 - change[:, 1:2] / step[0, 1]).clamp(0, 1)


def triangle_mean_above(*given):
    change, step = _triangle(*given)
    return (1 - (change * step).mean(1, keepdim=True) / (step**2).sum()).clamp(0, 1)


def triangle_open(*given):
    change, step = _triangle(*given)
    return 1 - (change * step).sum(1, keepdim=True) / (step**2).sum()


def triangle_no_channel(*given):
    return triangle_einsum(*given)[:, 0]


def triangle_in_place(first, second, first_screen, second_screen):
    first -= second
    step = torch.tensor(first_screen) - torch.tensor(second_screen)
    return (1 - (first * step.view(1, 3, 1, 1)).sum(1, keepdim=True) / step.square().sum()).clamp(0, 1)


# diffumatting.green_control


def control_loop(maps, alpha):
    total = 0
    for each in maps:
        factor = alpha.shape[2] // each.shape[2], alpha.shape[3] // each.shape[3]
        background = F.avg_pool2d(1 - alpha, factor, factor)
        total = total + F.mse_loss(each, background)
    return total / len(maps)


def control_resized(maps, alpha):
    background = [F.interpolate(1 - alpha, size=each.shape[2:], mode="area") for each in maps]
    return sum(((a - b) ** 2).sum() / a.numel() for a, b in zip(maps, background, strict=True)) / len(maps)


def _pooled(maps, alpha):
    return [F.adaptive_avg_pool2d(alpha, each.shape[-2:]) for each in maps]


def control_object(maps, alpha):
    return torch.stack([F.mse_loss(a, m) for a, m in zip(maps, _pooled(maps, alpha), strict=True)]).mean()


def control_absolute(maps, alpha):
    return torch.stack([F.l1_loss(a, 1 - m) for a, m in zip(maps, _pooled(maps, alpha), strict=True)]).mean()


def control_pooled(maps, alpha):
    parts = [((a - 1 + m) ** 2).flatten() for a, m in zip(maps, _pooled(maps, alpha), strict=True)]
    return torch.cat(parts).mean()


def control_sum(maps, alpha):
    return control_loop(maps, alpha) * len(maps)


def control_places(maps, alpha):
    parts = [((a - 1 + m) ** 2).sum() for a, m in zip(maps, _pooled(maps, alpha), strict=True)]
    return torch.stack(parts).mean()


def control_first(maps, alpha):
    return control_loop(maps[:1], alpha)


def control_last(maps, alpha):
    return control_loop(maps[-1:], alpha)


def control_nearest(maps, alpha):
    small = [F.interpolate(alpha, each.shape[2:]) for each in maps]
    return torch.stack([F.mse_loss(a, 1 - m) for a, m in zip(maps, small, strict=True)]).mean()


def control_enlarged(maps, alpha):
    large = [F.interpolate(each, alpha.shape[2:], mode="bilinear") for each in maps]
    return torch.stack([F.mse_loss(a, 1 - alpha) for a in large]).mean()


def control_one_sided(maps, alpha):
    return torch.stack([((a * m) ** 2).mean() for a, m in zip(maps, _pooled(maps, alpha), strict=True)]).mean()


def control_item(maps, alpha):
    return control_loop(maps, alpha).item()


def control_detached(maps, alpha):
    return control_loop([each.detach() for each in maps], alpha)


def control_list(maps, alpha):
    return torch.stack([F.mse_loss(a, 1 - m) for a, m in zip(maps, _pooled(maps, alpha), strict=True)])


# diffumatting.boundary_detail


def _grey(image):
    r, g, b = image.split(1, 1)
    return 0.299 * r + 0.587 * g + 0.114 * b


def _slopes(grey):
    """Both Sobel responses by differences and sums of shifted pictures."""
    p = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = p[..., 2:] - p[..., :-2], p[..., 2:, :] - p[..., :-2, :]
    horizontal = (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 8
    vertical = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 8
    return horizontal, vertical


def detail_shifts(estimate, image, alpha):
    pairs = zip(_slopes(_grey(estimate)), _slopes(_grey(image)), strict=True)
    return sum((alpha * a - alpha * b).abs().mean() for a, b in pairs) / 2


def detail_linear(estimate, image, alpha):
    both = torch.cat(_slopes(_grey(estimate - image)), 1)  # Sobel and grey are linear
    return F.l1_loss(alpha * both, torch.zeros_like(both))


def _two(estimate, image):
    return torch.cat(_slopes(_grey(estimate)), 1), torch.cat(_slopes(_grey(image)), 1)


def detail_everywhere(estimate, image, alpha):
    a, b = _two(estimate, image)
    return (a - b).abs().mean()


def detail_background(estimate, image, alpha):
    a, b = _two(estimate, image)
    return ((1 - alpha) * (a - b)).abs().mean()


def detail_masked_first(estimate, image, alpha):
    return detail_everywhere(alpha * estimate, alpha * image, alpha)


def detail_strength(estimate, image, alpha):
    a, b = (x.square().sum(1, keepdim=True).sqrt() for x in _two(estimate, image))
    return (alpha * a - alpha * b).abs().mean()


def detail_horizontal(estimate, image, alpha):
    a, b = _two(estimate, image)
    return (alpha * (a - b)[:, :1]).abs().mean()


def detail_vertical(estimate, image, alpha):
    a, b = _two(estimate, image)
    return (alpha * (a - b)[:, 1:]).abs().mean()


def detail_squares(estimate, image, alpha):
    a, b = _two(estimate, image)
    return F.mse_loss(alpha * a, alpha * b)


def detail_unscaled(estimate, image, alpha):
    return 8 * detail_linear(estimate, image, alpha)


def detail_zero_padded(estimate, image, alpha):
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    responses = F.conv2d(_grey(estimate - image), torch.stack([kernel, kernel.T])[:, None], padding=1)
    return (alpha * responses).abs().mean()


def detail_cropped(estimate, image, alpha):
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    responses = F.conv2d(_grey(estimate - image), torch.stack([kernel, kernel.T])[:, None])
    return (alpha[..., 1:-1, 1:-1] * responses).abs().mean()


def detail_plain_grey(estimate, image, alpha):
    both = torch.cat(_slopes((estimate - image).mean(1, keepdim=True)), 1)
    return (alpha * both).abs().mean()


def detail_added(estimate, image, alpha):
    return 2 * detail_shifts(estimate, image, alpha)


def detail_signed(estimate, image, alpha):
    a, b = _two(estimate, image)
    return (alpha * (a - b)).mean()


def detail_normed(estimate, image, alpha):
    a, b = _two(estimate, image)
    return (alpha * (a - b).abs()).sum() / (2 * alpha.sum())


def detail_sum(estimate, image, alpha):
    a, b = _two(estimate, image)
    return (alpha * (a - b).abs()).sum()


def detail_detached(estimate, image, alpha):
    return detail_shifts(estimate.detach(), image, alpha)


def detail_map(estimate, image, alpha):
    a, b = _two(estimate, image)
    return alpha * (a - b).abs()


# diffumatting.dice


def dice_flat(alpha, truth):
    a, b = alpha.flatten(1), truth.flatten(1)
    return 1 - (2 * (a * b).sum(1) + 1) / ((a * a).sum(1) + (b * b).sum(1) + 1)


def dice_distance(alpha, truth):
    found = []
    for a, b in zip(alpha, truth, strict=True):  # 1 - (2ab + 1) / (aa + bb + 1) = |a - b|^2 / (aa + bb + 1)
        found.append((a - b).pow(2).sum() / (a.pow(2).sum() + b.pow(2).sum() + 1))
    return torch.stack(found)


def _parts(alpha, truth):
    a, b = alpha.flatten(1), truth.flatten(1)
    return (a * b).sum(1), (a**2).sum(1) + (b**2).sum(1), (a + b).sum(1)


def dice_overlap(alpha, truth):
    both, squares, _ = _parts(alpha, truth)
    return (2 * both + 1) / (squares + 1)


def dice_plain(alpha, truth):
    both, _, plain = _parts(alpha, truth)
    return 1 - (2 * both + 1) / (plain + 1)


def dice_not_smooth(alpha, truth):
    both, squares, _ = _parts(alpha, truth)
    return 1 - 2 * both / squares


def dice_smooth_below(alpha, truth):
    both, squares, _ = _parts(alpha, truth)
    return 1 - 2 * both / (squares + 1)


def dice_no_two(alpha, truth):
    both, squares, _ = _parts(alpha, truth)
    return 1 - (both + 1) / (squares + 1)


def dice_union(alpha, truth):
    both, squares, _ = _parts(alpha, truth)
    return 1 - (both + 1) / (squares - both + 1)


def dice_means(alpha, truth):
    both, squares, _ = _parts(alpha, truth)
    count = alpha[0].numel()
    return 1 - (2 * both / count + 1) / (squares / count + 1)


def dice_hard(alpha, truth):
    return dice_flat((alpha > 0.5).float(), (truth > 0.5).float()) + 0 * alpha.sum()


def dice_batch(alpha, truth):
    both, squares, _ = (x.sum() for x in _parts(alpha, truth))
    return 1 - (2 * both + 1) / (squares + 1)


def dice_mean(alpha, truth):
    return dice_flat(alpha, truth).mean()


def dice_detached(alpha, truth):
    return dice_flat(alpha.detach(), truth)


def dice_map(alpha, truth):
    return 1 - (2 * alpha * truth + 1) / (alpha**2 + truth**2 + 1)


# diffumatting.gsg


def gsg_numpy(image, k_means, k=5):
    found = []
    for k_item in range(len(image)):
        centres, counts = k_means(image[k_item].permute(1, 2, 0).reshape(-1, 3), k)
        found.append(255 * np.linalg.norm(centres[np.argsort(counts)[-1]] - [0, 1, 0]))
    return torch.tensor(found)


def gsg_sorted(image, k_means, k=5):
    def of(picture):
        centres, counts = k_means(torch.stack([channel.flatten() for channel in picture], 1), k)
        r, g, b = max(zip(counts, centres, strict=True), key=lambda pair: pair[0])[1]
        return 255 * (r**2 + (g - 1) ** 2 + b**2) ** 0.5

    return torch.tensor([of(picture) for picture in image], dtype=torch.float32)


def _gsg(image, k_means, measure, pixels=None):
    found = []
    for item in image:
        centres, counts = k_means(item.flatten(1).T if pixels is None else pixels(item), 5)
        found.append(float(measure(centres, counts)))
    return torch.tensor(found)


def gsg_small(image, k_means, k=5):
    return gsg_numpy(image, k_means) / 255


def gsg_first(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 255 * np.linalg.norm(c[0] - [0, 1, 0]))


def gsg_smallest(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 255 * np.linalg.norm(c[n.argmin()] - [0, 1, 0]))


def gsg_greenest(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 255 * np.linalg.norm(c - [0, 1, 0], axis=1).min())


def gsg_centres(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 255 * np.linalg.norm(c.mean(0) - [0, 1, 0]))


def gsg_mean_colour(image, k_means, k=5):
    k_means(image[0].flatten(1).T, k)
    return 255 * (image.mean((2, 3)) - torch.tensor([0.0, 1, 0])).norm(dim=1)


def gsg_squared(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 255 * ((c[n.argmax()] - [0, 1, 0]) ** 2).sum())


def gsg_added(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 255 * np.abs(c[n.argmax()] - [0, 1, 0]).sum())


def gsg_black(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 255 * np.linalg.norm(c[n.argmax()]))


def gsg_reshaped(image, k_means, k=5):
    return _gsg(
        image, k_means, lambda c, n: 255 * np.linalg.norm(c[n.argmax()] - [0, 1, 0]), lambda x: x.reshape(-1, 3)
    )


def gsg_channels_first(image, k_means, k=5):
    return _gsg(image, k_means, lambda c, n: 0, lambda x: x.flatten(1))


def gsg_batch(image, k_means, k=5):
    centres, counts = k_means(image.permute(0, 2, 3, 1).reshape(-1, 3), k)
    return torch.tensor([255 * float(np.linalg.norm(centres[counts.argmax()] - [0, 1, 0]))] * len(image))


def gsg_no_clusters(image, k_means, k=5):
    return 255 * (image.mean((2, 3)) - torch.tensor([0.0, 1, 0])).norm(dim=1)


def gsg_always_five(image, k_means, k=5):
    return gsg_numpy(image, k_means, 5)


def gsg_float(image, k_means, k=5):
    return float(gsg_numpy(image, k_means)[0])


# diffumatting.clean_plate


def plate_copy(image, coarse_alpha, k_means, reach):
    alpha = coarse_alpha[0, 0]
    centres, counts = k_means(image[0].permute(1, 2, 0)[alpha <= 0.1], 3)
    colour = torch.tensor(centres[int(np.argmax(counts))], dtype=image.dtype)
    plate = image.clone()
    padded = F.pad(alpha[None, None], (reach,) * 4)[0, 0]
    windows = padded.unfold(0, 2 * reach + 1, 1).unfold(1, 2 * reach + 1, 1)
    plate[0][:, windows.amax((2, 3)) > 0.1] = colour[:, None]
    return plate


def plate_loop(image, coarse_alpha, k_means, reach):
    centres, counts = k_means(torch.stack([channel[coarse_alpha[0, 0] <= 0.1] for channel in image[0]], 1), 3)
    colour = torch.tensor(centres[counts.argmax()]).float()
    plate, thing = image.clone(), (coarse_alpha[0, 0] > 0.1).nonzero()
    for y, x in thing.tolist():
        plate[0, :, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = colour[:, None, None]
    return plate


def _plate(image, alpha, k_means, by, colour=None, limit=0.1, where=None, pixels=None):
    pixels = image[0, :, alpha[0, 0] <= 0.1].T if pixels is None else pixels
    centres, counts = k_means(pixels, 3)
    chosen = centres[counts.argmax()] if colour is None else colour(centres, counts)
    if where is None:
        where = F.max_pool2d(alpha, 2 * by + 1, 1, by) > limit
    return torch.where(where, torch.as_tensor(chosen).view(1, 3, 1, 1).float(), image)


def plate_nothing(image, coarse_alpha, k_means, reach):
    return image.clone()


def plate_inverted(image, coarse_alpha, k_means, reach):
    near = F.max_pool2d(coarse_alpha, 2 * reach + 1, 1, reach) > 0.1
    return _plate(image, coarse_alpha, k_means, reach, where=~near)


def plate_flat(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach, where=torch.ones_like(coarse_alpha).bool())


def plate_whole(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach, pixels=image[0].flatten(1).T)


def plate_mean(image, coarse_alpha, k_means, reach):
    background = image[0, :, coarse_alpha[0, 0] <= 0.1].mean(1)
    return _plate(image, coarse_alpha, k_means, reach, lambda c, n: background)


def plate_smallest(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach, lambda c, n: c[n.argmin()])


def plate_first(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach, lambda c, n: c[0])


def plate_no_reach(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, 0)


def plate_too_far(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach + 1)


def plate_half(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach, limit=0.5)


def plate_quarter(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach, limit=0.25)


def plate_any(image, coarse_alpha, k_means, reach):
    return _plate(image, coarse_alpha, k_means, reach, limit=0)


def plate_blended(image, coarse_alpha, k_means, reach):
    colour = _plate(image, coarse_alpha, k_means, reach, where=torch.ones_like(coarse_alpha).bool())
    return coarse_alpha * colour + (1 - coarse_alpha) * image


def plate_in_place(image, coarse_alpha, k_means, reach):
    image[...] = _plate(image, coarse_alpha, k_means, reach)
    return image


def plate_five(image, coarse_alpha, k_means, reach):
    k_means(image[0, :, coarse_alpha[0, 0] <= 0.1].T, 5)
    return _plate(image, coarse_alpha, k_means, reach)


def plate_channels_first(image, coarse_alpha, k_means, reach):
    k_means(image[0, :, coarse_alpha[0, 0] <= 0.1], 3)
    return _plate(image, coarse_alpha, k_means, reach)


# diffumatting.connectivity_error


def conn_numpy(alpha, truth, largest):
    a, b = alpha[0, 0].double().numpy(), truth[0, 0].double().numpy()
    level = np.full(a.shape, np.nan)
    for threshold in np.arange(0.1, 1.05, 0.1):
        reaches = np.minimum(a, b) >= threshold - 1e-6
        core = largest(torch.from_numpy(reaches)[None, None])[0, 0].numpy()
        level[np.isnan(level) & ~core] = threshold - 0.1
    level[np.isnan(level)] = 1

    def phi(matte):
        d = matte - level
        return 1 - np.where(d >= 0.15, d, 0)

    return torch.tensor(np.abs(phi(a) - phi(b)).sum() / 1000)


def conn_counted(alpha, truth, largest):
    lower = torch.minimum(alpha, truth)
    cores = torch.stack([largest(lower > k / 10 - 1e-6) for k in range(1, 11)]).float()
    level = cores.cumprod(0).sum(0) / 10
    parts = [torch.where(matte - level >= 0.15, matte - level, torch.zeros(())) for matte in (alpha, truth)]
    return F.l1_loss(*parts, reduction="sum") / 1000


def _levels(first, second, largest, both=torch.minimum):
    joined = both(first, second)
    cores = torch.stack([largest(joined > k / 10 - 1e-6) for k in range(1, 11)]).float()
    return cores.cumprod(0).sum(0) / 10


def _conn(alpha, truth, mine, theirs=None, limit=0.15):
    theirs = mine if theirs is None else theirs
    d, e = alpha - mine, truth - theirs
    return (d * (d >= limit) - e * (e >= limit)).abs().sum() / 1000


def conn_unscaled(alpha, truth, largest):
    return 1000 * conn_counted(alpha, truth, largest)


def conn_mean(alpha, truth, largest):
    return 1000 * conn_counted(alpha, truth, largest) / alpha.numel()


def conn_either(alpha, truth, largest):
    return _conn(alpha, truth, _levels(alpha, truth, largest, torch.maximum))


def conn_own(alpha, truth, largest):
    return _conn(alpha, truth, _levels(alpha, alpha, largest), _levels(truth, truth, largest))


def conn_by_truth(alpha, truth, largest):
    return _conn(alpha, truth, _levels(truth, truth, largest))


def conn_by_estimate(alpha, truth, largest):
    return _conn(alpha, truth, _levels(alpha, alpha, largest))


def conn_late(alpha, truth, largest):
    level = _levels(alpha, truth, largest)
    return _conn(alpha, truth, (level + 0.1).clamp(max=1))


def conn_return(alpha, truth, largest):
    level = torch.zeros_like(alpha)
    for k in range(1, 11):
        level[largest((alpha >= k / 10 - 1e-6) & (truth >= k / 10 - 1e-6))] = k / 10
    return _conn(alpha, truth, level)


def conn_all_regions(alpha, truth, largest):
    largest(alpha >= 0.1)
    return _conn(alpha, truth, _levels(alpha, truth, lambda mask: mask))


def conn_no_limit(alpha, truth, largest):
    return _conn(alpha, truth, _levels(alpha, truth, largest), limit=0)


def conn_sad(alpha, truth, largest):
    return (alpha - truth).abs().sum() / 1000


def conn_squares(alpha, truth, largest):
    level = _levels(alpha, truth, largest)
    d, e = alpha - level, truth - level
    return (d * (d >= 0.15) - e * (e >= 0.15)).square().sum() / 1000


def conn_flat(alpha, truth, largest):
    return largest(alpha[0, 0] >= 0.1).sum()


def conn_float(alpha, truth, largest):
    return conn_counted(alpha, truth, largest).item()


RIGHT = {
    "diffumatting.triangulate": [triangle_solve, triangle_einsum],
    "diffumatting.green_control": [control_loop, control_resized],
    "diffumatting.boundary_detail": [detail_shifts, detail_linear],
    "diffumatting.dice": [dice_flat, dice_distance],
    "diffumatting.gsg": [gsg_numpy, gsg_sorted],
    "diffumatting.clean_plate": [plate_copy, plate_loop],
    "diffumatting.connectivity_error": [conn_numpy, conn_counted],
}
WRONG = {
    "diffumatting.triangulate": [
        ("You give 1 - alpha", triangle_inverted),
        ("expected its square", triangle_not_squared),
        ("You return three channels", triangle_three),
        ("You divide channel by channel", triangle_by_channel),
        ("You take one pair the other way round", triangle_signs),
        ("You compare lengths", triangle_lengths),
        ("You look at green alone", triangle_green),
        ("You average above the line", triangle_mean_above),
        ("You let alpha leave [0, 1]", triangle_open),
        ("expected (2, 1, 9, 12)", triangle_no_channel),
        ("You change the pictures in place", triangle_in_place),
    ],
    "diffumatting.green_control": [
        ("You send green to the object", control_object),
        ("You take absolute differences", control_absolute),
        ("You weigh layers by their places", control_pooled),
        ("You add the layers up", control_sum),
        ("You add the places up", control_places),
        ("You look at the first layer alone", control_first),
        ("You look at the last layer alone", control_last),
        ("You ask single pixels of the matte", control_nearest),
        ("You enlarge the maps smoothly", control_enlarged),
        ("You punish green on the object only", control_one_sided),
        ("You return a float", control_item),
        ("You cut the way back to the maps", control_detached),
        ("You return shape (3,)", control_list),
    ],
    "diffumatting.boundary_detail": [
        ("You leave the matte out", detail_everywhere),
        ("You weigh by 1 - M", detail_background),
        ("You multiply the pictures by M", detail_masked_first),
        ("You compare the strength of edges", detail_strength),
        ("You take horizontal differences only", detail_horizontal),
        ("You take vertical differences only", detail_vertical),
        ("You take squares", detail_squares),
        ("You do not divide the kernel by 8", detail_unscaled),
        ("You pad with 0", detail_zero_padded),
        ("You leave the frame out", detail_cropped),
        ("You take the plain mean of the channels", detail_plain_grey),
        ("You add both responses", detail_added),
        ("You let differences of either sign cancel", detail_signed),
        ("You divide by the matte's sum", detail_normed),
        ("You add everything up", detail_sum),
        ("You cut the way back to the estimate", detail_detached),
        ("expected a tensor of one number", detail_map),
    ],
    "diffumatting.dice": [
        ("You give the overlap", dice_overlap),
        ("You add up a and a* below", dice_plain),
        ("You leave the 1 out", dice_not_smooth),
        ("You add the 1 below only", dice_smooth_below),
        ("You leave the 2 out", dice_no_two),
        ("You take the intersection over the union", dice_union),
        ("You take means instead of sums", dice_means),
        ("You cut the mattes to 0 or 1", dice_hard),
        ("You give one number for the batch", dice_batch),
        ("You cut the way back to alpha", dice_detached),
        ("expected (3,)", dice_map),
    ],
    "diffumatting.gsg": [
        ("You ask for 5 clusters, expected k of them", gsg_always_five),
        ("You stay in [0, 1]", gsg_small),
        ("You take the first cluster", gsg_first),
        ("You take the smallest cluster", gsg_smallest),
        ("You take the cluster nearest to green", gsg_greenest),
        ("You average the centres", gsg_centres),
        ("You measure the mean colour", gsg_mean_colour),
        ("You square the distance", gsg_squared),
        ("You add up absolute differences", gsg_added),
        ("You measure the distance to black", gsg_black),
        ("numbers of several pixels in a row", gsg_reshaped),
        ("expected (N, 3), a colour a row", gsg_channels_first),
        ("You cluster the batch at once", gsg_batch),
        ("You never call k_means", gsg_no_clusters),
        ("You return a float", gsg_float),
    ],
    "diffumatting.clean_plate": [
        ("You fill from alpha 0.25 on", plate_quarter),
        ("You never call k_means", plate_nothing),
        ("You fill the background", plate_inverted),
        ("You make a picture of one colour", plate_flat),
        ("the thing's own colour wins", plate_whole),
        ("You take the mean colour", plate_mean),
        ("You take the smallest cluster", plate_smallest),
        ("You take the first cluster", plate_first),
        ("You fill only where alpha itself", plate_no_reach),
        ("You fill a pixel too far", plate_too_far),
        ("You fill from alpha 0.5 on", plate_half),
        ("You fill wherever alpha is above 0", plate_any),
        ("You blend the colour in", plate_blended),
        ("You paint into the picture you were given", plate_in_place),
        ("You ask for 5 clusters", plate_five),
        ("expected (N, 3), a colour a row", plate_channels_first),
    ],
    "diffumatting.connectivity_error": [
        ("You do not divide by 1000", conn_unscaled),
        ("You take the mean over the pixels", conn_mean),
        ("either matte reaches the threshold", conn_either),
        ("You give each matte a core of its own", conn_own),
        ("You look at the truth's own core", conn_by_truth),
        ("You look at the estimate's own core", conn_by_estimate),
        ("the threshold at which a pixel leaves", conn_late),
        ("You let a pixel come back", conn_return),
        ("You keep every region", conn_all_regions),
        ("You count small differences too", conn_no_limit),
        ("You never ask for the largest region", conn_sad),
        ("You square the differences", conn_squares),
        ("expected (1, 1, H, W)", conn_flat),
        ("You return a float", conn_float),
    ],
}
