"""Answers to the exercises on matching (notebook 10), as in `answers`."""

import torch

# correspondence.mutual


def mutual_loop(similarity):
    pairs = []
    for i, row in enumerate(similarity.tolist()):
        j = row.index(max(row))
        column = similarity[:, j].tolist()
        if column.index(max(column)) == i:
            pairs.append((i, j))
    return torch.tensor(pairs)


def mutual_peaks(similarity):
    """A pair is a number that is the largest of its row and of its column."""
    peak = (similarity == similarity.amax(1, keepdim=True)) & (similarity == similarity.amax(0, keepdim=True))
    return peak.nonzero()


def mutual_rows(similarity):
    return torch.stack([torch.arange(similarity.shape[0]), similarity.max(1).indices], 1)


def mutual_columns(similarity):
    return torch.stack([similarity.max(0).indices, torch.arange(similarity.shape[1])], 1)


def mutual_smallest(similarity):
    return mutual_peaks(-similarity)


def mutual_exchanged(similarity):
    return mutual_loop(similarity)[:, [1, 0]]


def mutual_either(similarity):
    peak = (similarity == similarity.amax(1, keepdim=True)) | (similarity == similarity.amax(0, keepdim=True))
    return peak.nonzero()


def mutual_greedy(similarity):
    pairs, rows, columns = [], set(), set()
    for k in similarity.flatten().argsort(descending=True).tolist():
        i, j = divmod(k, similarity.shape[1])
        if i not in rows and j not in columns:
            pairs.append((i, j))
            rows.add(i), columns.add(j)
    return torch.tensor(sorted(pairs))


def mutual_best_only(similarity):
    return (similarity == similarity.max()).nonzero()


def mutual_indices(similarity):
    return mutual_peaks(similarity)[:, 1]


def mutual_in_place(similarity):
    pairs = mutual_peaks(similarity)
    similarity[pairs[:, 0], pairs[:, 1]] = -1
    return pairs


def mutual_surest_first(similarity):
    pairs = mutual_peaks(similarity)
    return pairs[similarity[pairs[:, 0], pairs[:, 1]].argsort(descending=True)]


def mutual_floats(similarity):
    return mutual_peaks(similarity).float()


# correspondence.ratio_test


def ratio_loop(descriptors_a, descriptors_b, ratio):
    passed = []
    for a in descriptors_a:
        d = sorted(float((a - b).pow(2).sum().sqrt()) for b in descriptors_b)
        passed.append(len(d) > 1 and d[1] > 0 and d[0] / d[1] <= ratio)
    return torch.tensor(passed)


def ratio_squares(descriptors_a, descriptors_b, ratio):
    """Compares squares, and squares the ratio, too."""
    if descriptors_b.shape[0] == 1:
        return torch.tensor([False] * descriptors_a.shape[0])
    d2 = (descriptors_a[:, None] - descriptors_b[None]).square().sum(-1).sort(dim=1).values
    return d2[:, 0] / d2[:, 1] <= ratio**2


def ratio_squared(descriptors_a, descriptors_b, ratio):
    d = torch.cdist(descriptors_a, descriptors_b).square().sort(dim=1).values
    return d[:, 0] / d[:, 1] <= ratio


def ratio_cosine_distance(descriptors_a, descriptors_b, ratio):
    d = (1 - descriptors_a @ descriptors_b.T).sort(dim=1).values
    return d[:, 0] / d[:, 1] <= ratio


def ratio_upside_down(descriptors_a, descriptors_b, ratio):
    d = torch.cdist(descriptors_a, descriptors_b).sort(dim=1).values
    return d[:, 1] / d[:, 0] <= ratio


def ratio_cosines(descriptors_a, descriptors_b, ratio):
    s = (descriptors_a @ descriptors_b.T).sort(dim=1, descending=True).values
    return s[:, 1] / s[:, 0] <= ratio


def ratio_absolute(descriptors_a, descriptors_b, ratio):
    return torch.cdist(descriptors_a, descriptors_b).amin(1) <= ratio


def ratio_largest(descriptors_a, descriptors_b, ratio):
    d = torch.cdist(descriptors_a, descriptors_b)
    return d.amin(1) / d.amax(1) <= ratio


def ratio_other_side(descriptors_a, descriptors_b, ratio):
    return ratio_loop(descriptors_b, descriptors_a, ratio)


def ratio_numbers(descriptors_a, descriptors_b, ratio):
    d = torch.cdist(descriptors_a, descriptors_b).sort(dim=1).values
    return d[:, 0] / d[:, 1]


def ratio_failing(descriptors_a, descriptors_b, ratio):
    return ~ratio_loop(descriptors_a, descriptors_b, ratio)


def ratio_twins(descriptors_a, descriptors_b, ratio):
    d = torch.cdist(descriptors_a, descriptors_b).sort(dim=1).values
    return d[:, 0] <= ratio * d[:, 1] if d.shape[1] > 1 else torch.zeros(len(d), dtype=torch.bool)


def ratio_single(descriptors_a, descriptors_b, ratio):
    if len(descriptors_b) == 1:
        return torch.ones(len(descriptors_a), dtype=torch.bool)
    return ratio_squares(descriptors_a, descriptors_b, ratio)


# correspondence.pck


def pck_loop(points, truth, visible, size, alpha):
    limit, right, shares = alpha * max(size), [], []
    for p, t, v in zip(points, truth, visible, strict=True):
        here = []
        for (x, y), (u, w), seen in zip(p.tolist(), t.tolist(), v.tolist(), strict=True):
            if seen:
                here.append(((x - u) ** 2 + (y - w) ** 2) ** 0.5 <= limit)
        right += here
        if here:
            shares.append(sum(here) / len(here))
    return sum(shares) / len(shares), sum(right) / len(right)


def pck_counts(points, truth, visible, size, alpha):
    counts = torch.tensor([float(v.sum()) for v in visible])
    hits = []
    for p, t, v in zip(points, truth, visible, strict=True):
        close = (p - t).square().sum(1) <= (alpha * max(size)) ** 2
        hits.append(float((close & v).sum()))
    hits = torch.tensor(hits)
    return (hits / counts)[counts > 0].mean(), hits.sum() / counts.sum()


def _pck(points, truth, visible, limit, length=lambda d: d.norm(dim=1), empty=None):
    right = [length(p - t)[v] <= limit for p, t, v in zip(points, truth, visible, strict=True)]
    shares = [float(r.double().mean()) if len(r) else empty for r in right]
    shares = [s for s in shares if s is not None]
    return sum(shares) / len(shares), float(torch.cat(right).double().mean())


def pck_all_points(points, truth, visible, size, alpha):
    return _pck(points, truth, [torch.ones_like(v) for v in visible], alpha * max(size))


def pck_exchanged(points, truth, visible, size, alpha):
    return pck_loop(points, truth, visible, size, alpha)[::-1]


def pck_per_image_only(points, truth, visible, size, alpha):
    return (pck_loop(points, truth, visible, size, alpha)[0],) * 2


def pck_per_point_only(points, truth, visible, size, alpha):
    return (pck_loop(points, truth, visible, size, alpha)[1],) * 2


def pck_height(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * size[0])


def pck_diagonal(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * (size[0] ** 2 + size[1] ** 2) ** 0.5)


def pck_one_axis(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * max(size), lambda d: d.abs().amax(1))


def pck_city_block(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * max(size), lambda d: d.abs().sum(1))


def pck_squared(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * max(size), lambda d: d.square().sum(1))


def pck_strict(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * max(size) - 1e-4)


def pck_empty_is_zero(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * max(size), empty=0.0)


def pck_empty_is_nan(points, truth, visible, size, alpha):
    return _pck(points, truth, visible, alpha * max(size), empty=float("nan"))


def pck_answered(points, truth, visible, size, alpha):
    answered = [v & p.isfinite().all(1) for p, v in zip(points, visible, strict=True)]
    return pck_loop(points, truth, answered, size, alpha)


def pck_one_number(points, truth, visible, size, alpha):
    return pck_loop(points, truth, visible, size, alpha)[0]


RIGHT = {
    "correspondence.mutual": [mutual_loop, mutual_peaks],
    "correspondence.ratio_test": [ratio_loop, ratio_squares],
    "correspondence.pck": [pck_loop, pck_counts],
}
WRONG = {
    "correspondence.mutual": [
        ("You give every row its best column", mutual_rows),
        ("You give every column its best row", mutual_columns),
        ("You take the smallest numbers", mutual_smallest),
        ("the row, a point of a, comes first", mutual_exchanged),
        ("both must", mutual_either),
        ("who is not chosen back stays alone", mutual_greedy),
        ("You return the best pair only", mutual_best_only),
        ("expected (N, 2): row and column", mutual_indices),
        ("You change the similarities", mutual_in_place),
        ("not in the order of their rows", mutual_surest_first),
        ("expected whole numbers", mutual_floats),
    ],
    "correspondence.ratio_test": [
        ("You compare squared distances", ratio_squared),
        ("1 - cosine is half a square", ratio_cosine_distance),
        ("stands on its head", ratio_upside_down),
        ("You compare cosines", ratio_cosines),
        ("divide by the second nearest distance", ratio_absolute),
        ("You divide by the largest distance", ratio_largest),
        ("those of a are asked", ratio_other_side),
        ("compare the quotient with the ratio", ratio_numbers),
        ("You return those that fail", ratio_failing),
        ("two neighbours at distance 0 passes", ratio_twins),
        ("there is no second to compare with", ratio_single),
    ],
    "correspondence.pck": [
        ("hidden points count too", pck_all_points),
        ("per image comes first", pck_exchanged),
        ("Both your numbers are means of the pictures' shares", pck_per_image_only),
        ("Both your numbers put all points together", pck_per_point_only),
        ("the longer side, max(H, W)", pck_height),
        ("not of the diagonal", pck_diagonal),
        ("not the larger of |dx|, |dy|", pck_one_axis),
        ("not |dx| + |dy|", pck_city_block),
        ("squared distances with the limit", pck_squared),
        ("<=, not <", pck_strict),
        ("as 0. Leave it out of the mean", pck_empty_is_zero),
        ("You get NaN", pck_empty_is_nan),
        ("you leave it out", pck_answered),
        ("expected two numbers", pck_one_number),
    ],
}
