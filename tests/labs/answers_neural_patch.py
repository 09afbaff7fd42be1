"""Answers to the exercises on neural patch synthesis (notebook 12), as in `answers`."""

import math

import torch
import torch.nn.functional as F

import workbench as wb

# neural_patch.total_variation


def variation_loop(image, mask):
    squares = []
    for y in range(image.shape[2]):
        for x in range(image.shape[3]):
            for v, u in ((y, x + 1), (y + 1, x)):
                if v < image.shape[2] and u < image.shape[3] and (mask[0, 0, y, x] or mask[0, 0, v, u]):
                    squares.append((image[0, :, y, x] - image[0, :, v, u]).square())
    return torch.cat(squares).mean()


def variation_selected(image, mask):
    free = mask[0, 0].bool()
    across = (image[..., 1:] - image[..., :-1])[0][:, free[:, 1:] | free[:, :-1]]
    down = (image[..., 1:, :] - image[..., :-1, :])[0][:, free[1:] | free[:-1]]
    return torch.cat([across, down], 1).pow(2).mean()


def _pairs(image, mask, how=torch.maximum):
    """Differences and weights, across and down."""
    a, b = mask[..., 1:], mask[..., :-1]
    c, d = mask[..., 1:, :], mask[..., :-1, :]
    return (image.diff(dim=3), how(a, b)), (image.diff(dim=2), how(c, d))


def variation_everywhere(image, mask):
    return variation_selected(image, torch.ones_like(mask))


def variation_inside(image, mask):
    (u, m), (v, n) = _pairs(image, mask, torch.minimum)
    return ((u**2 * m).sum() + (v**2 * n).sum()) / (3 * (m.sum() + n.sum()))


def variation_one_sided(image, mask):
    (u, m), (v, n) = _pairs(image, mask, lambda a, b: b)
    return ((u**2 * m).sum() + (v**2 * n).sum()) / (3 * (m.sum() + n.sum()))


def variation_absolute(image, mask):
    (u, m), (v, n) = _pairs(image, mask)
    return ((u.abs() * m).sum() + (v.abs() * n).sum()) / (3 * (m.sum() + n.sum()))


def variation_across(image, mask):
    (u, m), _ = _pairs(image, mask)
    return (u**2 * m).sum() / (3 * m.sum())


def variation_two_means(image, mask):
    (u, m), (v, n) = _pairs(image, mask)
    return (u**2 * m).sum() / (3 * m.sum()) + (v**2 * n).sum() / (3 * n.sum())


def variation_no_channels(image, mask):
    return 3 * variation_selected(image, mask)


def variation_sum(image, mask):
    (u, m), (v, n) = _pairs(image, mask)
    return (u**2 * m).sum() + (v**2 * n).sum()


def variation_free_pixels(image, mask):
    return variation_sum(image, mask) / (3 * mask.sum())


def variation_item(image, mask):
    return torch.tensor(variation_selected(image, mask).item())


def variation_float(image, mask):
    return variation_selected(image, mask).item()


def variation_map(image, mask):
    return image.diff(dim=3) ** 2


# neural_patch.nearest


def nearest_loop(features, hole):
    height, width = hole.shape
    found = torch.full((height, width), -1)
    inner = [(y, x) for y in range(1, height - 1) for x in range(1, width - 1)]
    cut = {(y, x): features[:, y - 1 : y + 2, x - 1 : x + 2] for y, x in inner}
    hit = {(y, x): bool(hole[y - 1 : y + 2, x - 1 : x + 2].any()) for y, x in inner}
    for y, x in inner:
        if hit[y, x]:
            v, u = max(
                (p for p in inner if not hit[p]), key=lambda p: float((cut[y, x] * cut[p]).sum() / cut[p].norm())
            )
            found[y, x] = v * width + u
    return found


def nearest_convolution(features, hole):
    """The known patches are the kernels of a convolution, as in the released code."""
    width = features.shape[2]
    hit = F.max_pool2d(hole.float()[None], 3, 1)[0] > 0  # (H - 2, W - 2)
    rows, columns = (~hit).nonzero(as_tuple=True)
    kernels = torch.stack(
        [features[:, y : y + 3, x : x + 3] for y, x in zip(rows.tolist(), columns.tolist(), strict=True)]
    )
    kernels = kernels / kernels.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    best = F.conv2d(features[None], kernels)[0].argmax(0)  # (H - 2, W - 2)
    centres = (rows[best] + 1) * width + columns[best] + 1
    return F.pad(torch.where(hit, centres, -1), (1, 1, 1, 1), value=-1)


def _scores(features, hole):
    """Unfolded patches, which of them touch the hole, and the positions of their centres."""
    height, width = hole.shape
    patches = F.unfold(features[None], 3)[0].T
    hit = F.unfold(hole.float()[None, None], 3)[0].sum(0) > 0
    places = torch.arange(height * width).reshape(height, width)[1:-1, 1:-1].reshape(-1)
    return patches, hit, places


def _laid(values, where, hole, elsewhere=-1):
    found = torch.full((hole.numel(),), elsewhere)
    found[where] = values
    return found.view(hole.shape)


def _found(scores, allowed, features, hole):
    _, hit, places = _scores(features, hole)
    scores = scores.masked_fill(~allowed, -torch.inf)
    return _laid(places[scores.argmax(1)][hit], places[hit], hole)


def _cosine(patches):
    unit = patches / patches.norm(dim=1, keepdim=True)
    return unit @ unit.T


def nearest_dot(features, hole):
    patches, hit, _ = _scores(features, hole)
    return _found(patches @ patches.T, ~hit, features, hole)


def nearest_distance(features, hole):
    patches, hit, _ = _scores(features, hole)
    return _found(-torch.cdist(patches, patches), ~hit, features, hole)


def nearest_centred(features, hole):
    patches, hit, _ = _scores(features, hole)
    return _found(_cosine(patches - patches.mean(1, keepdim=True)), ~hit, features, hole)


def nearest_cells(features, hole):
    patches, hit, _ = _scores(features / features.norm(dim=0).clamp_min(1e-9), hole)
    return _found(patches @ patches.T, ~hit, features, hole)


def nearest_farthest(features, hole):
    patches, hit, _ = _scores(features, hole)
    return _found(-_cosine(patches), ~hit, features, hole)


def nearest_touching(features, hole):
    patches, _, _ = _scores(features, hole)
    return _found(_cosine(patches), ~hole[1:-1, 1:-1].reshape(-1), features, hole)


def nearest_itself(features, hole):
    patches, hit, _ = _scores(features, hole)
    return _found(_cosine(patches), torch.ones_like(hit), features, hole)


def nearest_any_but_itself(features, hole):
    patches, hit, _ = _scores(features, hole)
    return _found(_cosine(patches).fill_diagonal_(-1), torch.ones_like(hit), features, hole)


def nearest_hole_centres(features, hole):
    found = nearest_convolution(features, hole)
    return torch.where(hole, found, -1)


def nearest_everywhere(features, hole):
    found = nearest_convolution(features, hole)
    return torch.where(found < 0, 0, found)


def nearest_no_frame(features, hole):
    found = nearest_convolution(features, hole)
    return torch.where(found < 0, -1, (found // hole.shape[1] - 1) * (hole.shape[1] - 2) + found % hole.shape[1] - 1)


def nearest_corner(features, hole):
    found = nearest_convolution(features, hole)
    return torch.where(found < 0, -1, found - hole.shape[1] - 1)


def nearest_columns(features, hole):
    found, (height, width) = nearest_convolution(features, hole), hole.shape
    return torch.where(found < 0, -1, found % width * height + found // width)


def nearest_list(features, hole):
    patches, hit, places = _scores(features, hole)
    return _laid(_cosine(patches)[hit][:, ~hit].argmax(1), places[hit], hole)


def nearest_padded(features, hole):
    """Patches in the frame too, filled up with zeros."""
    patches = F.unfold(features[None], 3, padding=1)[0].T
    hit = F.unfold(hole.float()[None, None], 3, padding=1)[0].sum(0) > 0
    inner = F.pad(torch.ones(hole.shape[0] - 2, hole.shape[1] - 2), (1, 1, 1, 1)).flatten() > 0
    found = _cosine(patches).masked_fill(hit, -torch.inf).argmax(1)
    return torch.where(hit & inner, found, -1).view(hole.shape)


def nearest_float(features, hole):
    return nearest_convolution(features, hole).float()


def nearest_inner_map(features, hole):
    return nearest_convolution(features, hole)[1:-1, 1:-1]


# neural_patch.joint_loss


def loss_selected(x, reference, mask, layers, tv, weights):
    free = mask.bool().expand_as(x)
    total = weights[0] * (x[free] - reference[free]).pow(2).mean() + weights[2] * tv
    for found, wanted in layers:
        total = total + weights[1] * F.mse_loss(found, wanted)
    return total


def loss_stacked(x, reference, mask, layers, tv, weights):
    content = torch.einsum("bchw,bdhw->", (x - reference) ** 2, mask) / mask.sum() / 3
    texture = torch.stack([(p - q).square().sum() / math.prod(p.shape) for p, q in layers]).sum()
    return torch.stack([content, texture, tv]) @ torch.tensor(weights)


def _loss(c, t, v, weights):
    return weights[0] * c + weights[1] * t + weights[2] * v


def _content(x, reference, mask):
    return ((x - reference)[mask.bool().expand_as(x)] ** 2).mean()


def _texture(layers):
    return sum(F.mse_loss(p, q) for p, q in layers)


def loss_whole_picture(x, reference, mask, layers, tv, weights):
    return _loss(F.mse_loss(x, reference), _texture(layers), tv, weights)


def loss_outside(x, reference, mask, layers, tv, weights):
    return loss_selected(x, reference, 1 - mask, layers, tv, weights)


def loss_no_channels(x, reference, mask, layers, tv, weights):
    return _loss(3 * _content(x, reference, mask), _texture(layers), tv, weights)


def loss_content_sum(x, reference, mask, layers, tv, weights):
    return _loss(((x - reference) ** 2 * mask).sum(), _texture(layers), tv, weights)


def loss_layer_mean(x, reference, mask, layers, tv, weights):
    return _loss(_content(x, reference, mask), _texture(layers) / 2, tv, weights)


def loss_one_mean(x, reference, mask, layers, tv, weights):
    sizes = [p.numel() for p, _ in layers]
    texture = sum(F.mse_loss(p, q) * n for (p, q), n in zip(layers, sizes, strict=True)) / sum(sizes)
    return _loss(_content(x, reference, mask), texture, tv, weights)


def loss_patch_sum(x, reference, mask, layers, tv, weights):
    texture = sum(((p - q) ** 2).flatten(1).sum(1).mean() for p, q in layers)
    return _loss(_content(x, reference, mask), texture, tv, weights)


def loss_absolute(x, reference, mask, layers, tv, weights):
    return _loss(_content(x, reference, mask), sum(F.l1_loss(p, q) for p, q in layers), tv, weights)


def loss_one_layer(x, reference, mask, layers, tv, weights):
    return loss_selected(x, reference, mask, layers[:1], tv, weights)


def loss_no_weights(x, reference, mask, layers, tv, weights):
    return loss_selected(x, reference, mask, layers, tv, (1, 1, 1))


def loss_no_variation(x, reference, mask, layers, tv, weights):
    return loss_selected(x, reference, mask, layers, 0, weights)


def loss_exchanged(x, reference, mask, layers, tv, weights):
    return loss_selected(x, reference, mask, layers, tv, (weights[1], weights[0], weights[2]))


def loss_float(x, reference, mask, layers, tv, weights):
    return loss_selected(x, reference, mask, layers, tv, weights).item()


def loss_detached(x, reference, mask, layers, tv, weights):
    with torch.no_grad():
        return loss_selected(x, reference, mask, layers, tv, weights)


# neural_patch.pyramid


def _levels(photo, sides):
    height, width = photo.shape[-2:]
    long = max(height, width)
    finest = min(long, sides[-1])
    kept = [side for side in sides if 4 * side <= 3 * finest]
    return [(round(height * side / long), round(width * side / long)) for side in [*kept, finest]]


def _free(mask, size):
    """By its definition: a pixel is free that any hole pixel falls into."""
    (height, width), (h, w) = mask.shape[-2:], size
    free = torch.zeros(1, 1, h, w)
    for y in range(h):
        for x in range(w):
            rows = slice(y * height // h, -(-(y + 1) * height // h))
            columns = slice(x * width // w, -(-(x + 1) * width // w))
            free[0, 0, y, x] = mask[0, 0, rows, columns].max()
    return free


def pyramid_loop(photo, mask, sides, content, optimise):
    result = None
    for size in _levels(photo, sides):
        picture, free = wb.image.resize(photo, size), _free(mask, size)
        inside = content(picture, free) if result is None else wb.image.resize(result, size)
        begin = picture * (1 - free) + inside * free
        result = optimise(begin, begin.clone(), free)
    return result


def pyramid_recursive(photo, mask, sides, content, optimise):
    def level(sizes):
        size = sizes[-1]
        picture, free = wb.image.resize(photo, size), F.adaptive_max_pool2d(mask, size)
        inside = content(picture, free) if len(sizes) == 1 else wb.image.resize(level(sizes[:-1]), size)
        begin = picture.where(free == 0, inside)
        return optimise(start=begin, reference=begin, free=free)

    return level(_levels(photo, sides))


def _pyramid(photo, mask, sizes, content, optimise, *, begin=None, refer=None, shrink=F.adaptive_max_pool2d):
    """A pyramid with something changed: ``begin`` and ``refer`` make the start and the reference of what is at hand."""
    result = first = None
    for size in sizes:
        picture, free = wb.image.resize(photo, size), shrink(mask, size)
        if first is None:
            first = content(picture, free)
        inside = wb.image.resize(first if result is None else result, size)
        start = begin(picture, inside, free, first) if begin else torch.where(free > 0, inside, picture)
        result = optimise(start, refer(picture, first) if refer else start, free)
    return result


def pyramid_backwards(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, _levels(photo, sides)[::-1], content, optimise)


def pyramid_width_first(photo, mask, sides, content, optimise):
    sizes = [(w, h) for h, w in _levels(photo, sides)]
    return _pyramid(photo, mask, sizes, content, optimise)


def pyramid_all_sides(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, [(round(40 * s / 60), s) for s in sides if s <= 60], content, optimise)


def pyramid_enlarging(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, [(round(40 * s / 60), s) for s in sides if s != 48], content, optimise)


def pyramid_unfinished(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, _levels(photo, sides)[:-1], content, optimise)


def pyramid_square(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, [(s // 2, s // 2) for s in sides[:2]], content, optimise)


def pyramid_keeps_all(photo, mask, sides, content, optimise):
    def begin(picture, inside, free, first):
        return inside

    return _pyramid(photo, mask, _levels(photo, sides), content, optimise, begin=begin)


def pyramid_content_again(photo, mask, sides, content, optimise):
    def begin(picture, inside, free, first):
        return torch.where(free > 0, wb.image.resize(first, tuple(picture.shape[-2:])), picture)

    return _pyramid(photo, mask, _levels(photo, sides), content, optimise, begin=begin)


def pyramid_asks_often(photo, mask, sides, content, optimise):
    for size in _levels(photo, sides):
        picture, free = wb.image.resize(photo, size), F.adaptive_max_pool2d(mask, size)
        start = torch.where(free > 0, content(picture, free), picture)
        result = optimise(start, start, free)
    return result


def pyramid_no_content(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, _levels(photo, sides), lambda picture, free: picture, optimise)


def pyramid_from_the_photograph(photo, mask, sides, content, optimise):
    def begin(picture, inside, free, first):
        return picture

    return _pyramid(photo, mask, _levels(photo, sides), content, optimise, begin=begin)


def pyramid_first_reference(photo, mask, sides, content, optimise):
    def refer(picture, first):
        return wb.image.resize(first, tuple(picture.shape[-2:]))

    return _pyramid(photo, mask, _levels(photo, sides), content, optimise, refer=refer)


def pyramid_soft_mask(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, _levels(photo, sides), content, optimise, shrink=wb.image.resize)


def pyramid_nearest_mask(photo, mask, sides, content, optimise):
    return _pyramid(photo, mask, _levels(photo, sides), content, optimise, shrink=F.interpolate)


def pyramid_bilinear(photo, mask, sides, content, optimise):
    result = None
    for size in _levels(photo, sides):
        picture, free = wb.image.resize(photo, size), F.adaptive_max_pool2d(mask, size)
        inside = content(picture, free) if result is None else F.interpolate(result, size, mode="bilinear")
        start = torch.where(free > 0, inside, picture)
        result = optimise(start, start, free)
    return result


def pyramid_returns_the_start(photo, mask, sides, content, optimise):
    starts = []

    def spy(start, reference, free):
        starts.append(start)
        return optimise(start, reference, free)

    pyramid_loop(photo, mask, sides, content, spy)
    return starts[-1]


def pyramid_lazy(photo, mask, sides, content, optimise):
    return content(photo, mask)


# neural_patch.coherence


def coherence_loop(offsets):
    height, width = offsets.shape[-2:]
    agree = []
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x)):
                if v < height and u < width:
                    a, b = offsets[0, :, y, x].tolist(), offsets[0, :, v, u].tolist()
                    if not any(map(math.isnan, a + b)):
                        agree.append(a == b)
    return sum(agree) / len(agree)


def _beside(offsets):
    """Pairs of offsets (2, N), NaN ones too, across and down."""
    field = offsets[0]
    return [
        (field[:, :, 1:].flatten(1), field[:, :, :-1].flatten(1)),
        (field[:, 1:].flatten(1), field[:, :-1].flatten(1)),
    ]


def _agree(pairs, how=torch.all):
    """Whether pairs agree, of those that are both there."""
    return [how(a == b, 0)[~(a + b).isnan().any(0)] for a, b in pairs]


def coherence_pairs(offsets):
    return torch.cat(_agree(_beside(offsets))).float().mean()


def coherence_count(offsets):
    return torch.cat(_agree(_beside(offsets))).sum()


def coherence_differing(offsets):
    return 1 - coherence_pairs(offsets)


def coherence_every_cell(offsets):
    return torch.cat([(a == b).all(0) for a, b in _beside(offsets)]).float().mean()


def coherence_one_number(offsets):
    return torch.cat(_agree(_beside(offsets), torch.any)).float().mean()


def coherence_across(offsets):
    return _agree(_beside(offsets)[:1])[0].float().mean()


def coherence_two_means(offsets):
    return sum(a.float().mean() for a in _agree(_beside(offsets))) / 2


def coherence_nan(offsets):
    return offsets.diff(dim=3).mean() + coherence_pairs(offsets)


def coherence_map(offsets):
    return (offsets.diff(dim=3) == 0).all(1)


def coherence_components(offsets):
    a, b = (torch.cat(t, 1) for t in zip(*_beside(offsets), strict=True))
    return (a == b)[:, ~(a + b).isnan().any(0)].float().mean()


RIGHT = {
    "neural_patch.total_variation": [variation_loop, variation_selected],
    "neural_patch.nearest": [nearest_loop, nearest_convolution],
    "neural_patch.joint_loss": [loss_selected, loss_stacked],
    "neural_patch.pyramid": [pyramid_loop, pyramid_recursive],
    "neural_patch.coherence": [coherence_loop, coherence_pairs],
}
WRONG = {
    "neural_patch.total_variation": [
        ("You measure the whole picture", variation_everywhere),
        ("You count only pairs of two free pixels", variation_inside),
        ("You look at one pixel of each pair only", variation_one_sided),
        ("You take absolute differences: expected their squares", variation_absolute),
        ("You look in one direction only", variation_across),
        ("You average each direction by itself", variation_two_means),
        ("You get three times too much", variation_no_channels),
        ("You return the sum", variation_sum),
        ("You divide by the number of free pixels", variation_free_pixels),
        ("You cut the way back to image", variation_item),
        ("You return a float, expected a tensor", variation_float),
        ("You return shape (1, 3, 7, 10)", variation_map),
    ],
    "neural_patch.nearest": [
        ("You compare by the plain product", nearest_dot),
        ("You compare by |P - Q|", nearest_distance),
        ("You take the mean of each patch away", nearest_centred),
        ("You normalise each cell", nearest_cells),
        ("You find the least alike", nearest_farthest),
        ("You ask only that the middle is known", nearest_touching),
        ("Your hole patch finds itself", nearest_itself),
        ("You choose patches that touch the hole", nearest_any_but_itself),
        ("You search only for patches with a hole cell in their middle", nearest_hole_centres),
        ("You write something where no hole patch has its centre", nearest_everywhere),
        ("in the grid of patches, which has no frame", nearest_no_frame),
        ("of the patch's first cell", nearest_corner),
        ("as x * H + y", nearest_columns),
        ("in your list of known patches", nearest_list),
        ("sticks out of the map", nearest_padded),
        ("You return torch.float32", nearest_float),
        ("You return shape (8, 12)", nearest_inner_map),
    ],
    "neural_patch.joint_loss": [
        ("You average the content term over the whole picture", loss_whole_picture),
        ("You compare content outside the hole", loss_outside),
        ("You divide the content term by the pixels only", loss_no_channels),
        ("You add the content term up", loss_content_sum),
        ("You average the layers", loss_layer_mean),
        ("You pour all layers into one mean", loss_one_mean),
        ("You add up cells and channels in a patch", loss_patch_sum),
        ("You take absolute differences of patches", loss_absolute),
        ("You use the first layer only", loss_one_layer),
        ("You leave the weights out", loss_no_weights),
        ("You leave total variation out", loss_no_variation),
        ("You exchange two weights", loss_exchanged),
        ("You return a float, expected a tensor", loss_float),
        ("You cut the way back to x", loss_detached),
    ],
    "neural_patch.pyramid": [
        ("You go from fine to coarse", pyramid_backwards),
        ("You exchange height and width", pyramid_width_first),
        ("none of more than three quarters of the finest", pyramid_all_sides),
        ("You enlarge the photograph", pyramid_enlarging),
        ("You stop at", pyramid_unfinished),
        ("Your levels are", pyramid_square),
        ("known pixels at level 1", pyramid_keeps_all),
        ("with the content network's picture again", pyramid_content_again),
        ("You ask the content network at", pyramid_asks_often),
        ("You never ask the content network", pyramid_no_content),
        ("with the photograph as it is", pyramid_from_the_photograph),
        ("on to another picture than it begins with", pyramid_first_reference),
        ("is soft", pyramid_soft_mask),
        ("loses or wins pixels", pyramid_nearest_mask),
        ("enlarge the result before with wb.image.resize", pyramid_bilinear),
        ("You return another picture than the last level's result", pyramid_returns_the_start),
        ("You never call optimise", pyramid_lazy),
    ],
    "neural_patch.coherence": [
        ("You count the pairs", coherence_count),
        ("You tell the share of pairs that differ", coherence_differing),
        ("You divide by all pairs of cells", coherence_every_cell),
        ("One equal number of the two is enough", coherence_one_number),
        ("You look in one direction only", coherence_across),
        ("You average each direction by itself", coherence_two_means),
        ("You get NaN", coherence_nan),
        ("You return shape (1, 7, 8)", coherence_map),
        ("You count right and down apart", coherence_components),
    ],
}
