"""Exercises of notebook 10: mutual nearest neighbours, the ratio test, the share of right points."""

import torch

from workbench.labs import Exercise, call, expect, expect_tensor


def mutual(similarity: torch.Tensor) -> torch.Tensor:
    """Pairs of rows and columns that choose each other.

    (i, j) with j = argmax_j' s(i, j') and i = argmax_i' s(i', j)

    Args:
        similarity: (Na, Nb), one row for each point of a, one column for each of b; larger is more alike.

    Returns:
        (N, 2) int64: row and column of each pair, in the order of the rows.
    """
    best_b, best_a = similarity.argmax(1), similarity.argmax(0)  # (Na,), (Nb,)
    rows = torch.arange(len(similarity))
    keep = best_a[best_b] == rows
    return torch.stack([rows[keep], best_b[keep]], 1)


def _test_mutual(answer) -> None:
    for rows, columns, seed in ((7, 11, 0), (12, 5, 1), (9, 9, 2)):
        similarity = 2 * torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) - 1
        given = similarity.clone()
        got, right = call(answer, given), mutual(similarity)
        told = f"among {rows} rows and {columns} columns"
        expect_tensor(got, "a tensor (N, 2) of pairs")
        expect(torch.equal(given, similarity), "You change the similarities you were given; work on a copy.")
        expect(
            got.ndim == 2 and got.shape[1] == 2,
            f"You return shape {tuple(got.shape)}, expected (N, 2): row and column of each pair.",
        )
        expect(
            not got.is_floating_point(), f"Your pairs are {got.dtype}, expected whole numbers, for they are indices."
        )
        got = got.long()
        forth, back = _one_way(similarity), _one_way(similarity.T).flip(1)
        expect(
            not _same(got, forth),
            f"You give every row its best column, {told}: ask also whether the row is that column's best.",
        )
        expect(
            not _same(got, back),
            f"You give every column its best row, {told}: ask also whether the column is that row's best.",
        )
        expect(not _same(got, mutual(-similarity)), "You take the smallest numbers: these are similarities.")
        expect(
            not _same(got, torch.cat([forth, back]).unique(dim=0)),
            f"You take pairs that one of the two chose, {told}: both must.",
        )
        expect(
            not _same(got, right.flip(1)) or _same(right, right.flip(1)),
            "Rows and columns are exchanged in your pairs: the row, a point of a, comes first.",
        )
        expect(
            not _same(got, _greedy(similarity)),
            f"You find a partner for everyone, {told}: who is not chosen back stays alone.",
        )
        expect(
            not _same(got, right[similarity[right[:, 0], right[:, 1]].argmax()][None]) or len(right) == 1,
            f"You return the best pair only, {told}: there are {len(right)} that choose each other.",
        )
        expect(_same(got, right), f"You find {len(got)} pairs {told}, expected these {len(right)}: {right.tolist()}.")
        expect(torch.equal(got, right), "Your pairs are right, but not in the order of their rows.")


def _one_way(similarity: torch.Tensor) -> torch.Tensor:
    """Each row with its best column."""
    return torch.stack([torch.arange(len(similarity)), similarity.argmax(1)], 1)


def _greedy(similarity: torch.Tensor) -> torch.Tensor:
    """The best pair, the best of what is left, and so on to the end."""
    left, pairs = similarity.clone(), []
    for _ in range(min(similarity.shape)):
        row, column = divmod(int(left.argmax()), left.shape[1])
        pairs.append([row, column])
        left[row], left[:, column] = -torch.inf, -torch.inf
    return torch.tensor(pairs)


def _same(got: torch.Tensor, pairs: torch.Tensor) -> bool:
    """Whether they hold the same pairs, in any order."""
    return sorted(got.tolist()) == sorted(pairs.tolist())


def ratio_test(descriptors_a: torch.Tensor, descriptors_b: torch.Tensor, ratio: float) -> torch.Tensor:
    """Which points of a have a nearest neighbour that is clearly nearer than the second nearest.

    d1 / d2 <= ratio, with the Euclidean distances d1 <= d2 to the two nearest descriptors of b

    Args:
        descriptors_a: (Na, D), of length 1.
        descriptors_b: (Nb, D), of length 1.
        ratio: 0 to 1.

    Returns:
        (Na,) bool. False where both distances are 0, and where b holds no second descriptor.
    """
    if len(descriptors_b) < 2:
        return torch.zeros(len(descriptors_a), dtype=torch.bool)
    distance = (2 - 2 * descriptors_a @ descriptors_b.T).clamp(min=0).sqrt()  # (Na, Nb), of vectors of length 1
    first, second = distance.topk(2, dim=1, largest=False).values.T
    return (second > 0) & (first <= ratio * second)


def _test_ratio_test(answer) -> None:
    a, b = _descriptors()
    ratio = 0.8
    got = call(answer, a, b, ratio)
    expect_tensor(got, "a tensor (Na,) of bool")
    expect(got.shape != b.shape[:1], "You return one answer for each descriptor of b: those of a are asked.")
    expect(got.shape == a.shape[:1], f"You return shape {tuple(got.shape)}, expected ({len(a)},): one for each of a.")
    expect(got.dtype == torch.bool, f"You return {got.dtype}, expected bool: compare the quotient with the ratio.")
    distance, right = torch.cdist(a, b), ratio_test(a, b, ratio)
    first, second = distance.sort(dim=1).values[:, :2].T

    def like(other: torch.Tensor) -> bool:
        return torch.equal(got, other) and not torch.equal(other, right)

    expect(
        not like(first.square() <= ratio * second.square()),
        "You compare squared distances (1 - cosine is half a square, too): their quotient is the square of d1 / d2, "
        "and too many pass. Take the root first.",
    )
    expect(not like(second <= ratio * first), "Your quotient stands on its head: the nearest is divided by the second.")
    expect(not like(~right), "You return those that fail, expected True for those that pass.")
    nearest, next_nearest = (a @ b.T).topk(2, dim=1).values.T
    expect(
        not like(next_nearest <= ratio * nearest),
        "You compare cosines, expected distances: between vectors of length 1 it is d = sqrt(2 - 2 s).",
    )
    expect(
        not like(first <= ratio),
        "You compare the nearest distance itself with the ratio: divide by the second nearest distance.",
    )
    farthest = distance.max(1).values
    expect(not like(first <= ratio * farthest), "You divide by the largest distance, expected the second smallest.")
    expect(
        not like(first <= ratio * distance.mean(1)), "You divide by the mean distance, expected the second smallest."
    )
    expect(torch.equal(got, right), f"{int((got != right).sum())} of {len(a)} answers are wrong.")
    twins, axis = torch.zeros(4, 4), torch.eye(4)[:2]
    twins[0, 0] = twins[1, 0] = twins[2, 1] = twins[3, 2] = 1.0  # the first of `axis` is there twice, the second once
    got = call(answer, axis, twins, ratio)
    expect(
        isinstance(got, torch.Tensor) and got.tolist()[1:] == [True],
        "A point whose nearest neighbour is at distance 0, and no other is, should pass.",
    )
    expect(
        not got[0],
        "A point with two neighbours at distance 0 passes: nothing tells them apart, 0 / 0 is no reason to be sure.",
    )
    got = call(answer, a, b[:1], ratio)
    expect(
        isinstance(got, torch.Tensor) and got.shape == a.shape[:1] and not got.any(),
        "With a single descriptor in b there is no second to compare with: return False for all.",
    )


def _descriptors() -> tuple[torch.Tensor, torch.Tensor]:
    """40 descriptors in a and 90 in b: for some of a there is one that is near, for some two, for some none."""
    generator = torch.Generator().manual_seed(3)

    def unit(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(x, dim=1)

    a = unit(torch.randn(40, 32, generator=generator))
    noise = torch.randn(2, 40, 32, generator=generator)
    amount = torch.linspace(0.05, 2.5, 40)[:, None]
    twins = unit(a + amount * unit(noise[0])), unit(a + amount.roll(4, 0) * unit(noise[1]))
    strangers = unit(torch.randn(10, 32, generator=generator))
    return a, torch.cat([*twins, strangers])


def pck(points: list, truth: list, visible: list, size: tuple[int, int], alpha: float) -> tuple[float, float]:
    """Share of right points, averaged in both ways.

    right: |p - p*| <= alpha max(H, W)

    Args:
        points: for each picture (N, 2) as (x, y); NaN for a point without an answer, which is never right.
        truth: for each picture (N, 2); NaN where nothing is known.
        visible: for each picture (N,) bool: only these points count.
        size: (H, W) of the pictures.
        alpha: share of the longer side.

    Returns:
        Per image: the mean of the pictures' shares, a picture without visible points left out; and per point: the share
        of all visible points.
    """
    limit = alpha * max(size)
    right = [(p - t).norm(dim=1)[v] <= limit for p, t, v in zip(points, truth, visible, strict=True)]
    shares = [r.double().mean() for r in right if len(r)]
    return float(torch.stack(shares).mean()), float(torch.cat(right).double().mean())


_SIZE, _ALPHA = (60, 80), 0.0625
"""A point is right up to exactly 5 pixels."""
_ERRORS = (
    [((3, 4), True), ((-4, 3), True), ((1, 0), True), ((4, 4), True), ((0, 20), False), ((1, 1), False)],
    [((30, 0), True), ((0, 4.5), True), ((3, 1), True)],
    [((0, 1), False), ((1, 0), False)],
    [((0, 2), True), ((-9, 0), True), ((0, -6), True), (None, True), ((12, 5), True), ((1, 3), None), ((0, 6), True),
     ((2.5, -3), True), ((5, -5), True)],
)  # fmt: skip
"""For each picture and point: by how much it is off, and whether it is visible; None: no answer, or no truth."""


def _test_pck(answer) -> None:
    given = _asked()
    got = call(answer, *([x.clone() for x in part] for part in given), _SIZE, _ALPHA)
    expect(
        isinstance(got, (tuple, list)) and len(got) == 2,
        f"You return a {type(got).__name__}, expected two numbers: per image, per point.",
    )
    got = tuple(float(v) for v in got)
    told = f"You get {got[0]:.3f} per image and {got[1]:.3f} per point"

    def like(other) -> bool:
        return all(abs(g - float(o)) < 1e-6 for g, o in zip(got, other, strict=True))

    every = [torch.ones_like(v) for v in given[2]]
    expect(not any(v != v for v in got), "You get NaN: a picture without visible points has no share. Leave it out.")
    right = pck(*given, _SIZE, _ALPHA)
    expect(not like(right[::-1]), "Your numbers are exchanged: per image comes first.")
    expect(
        not like((right[0], right[0])),
        "Both your numbers are means of the pictures' shares; per point, all points are put together first.",
    )
    expect(
        not like((right[1], right[1])),
        "Both your numbers put all points together; per image, each picture has its own share, and these are averaged.",
    )
    errors = [p - t for p, t in zip(given[0], given[1], strict=True)]
    empty = (right[0] * 3 / 4, right[1])
    expect(not like(empty), f"{told}: you count a picture without visible points as 0. Leave it out of the mean.")
    for wrong, words in (
        (_scores(errors, every, 5.0), "hidden points count too. Take only those that are visible"),
        (_scores(errors, given[2], 5.0, strict=True), "a point exactly at the limit is right: <=, not <"),
        (_scores(errors, given[2], 60 * _ALPHA), "the limit is a share of the longer side, max(H, W)"),
        (_scores(errors, given[2], 100 * _ALPHA), "the limit is a share of the longer side, not of the diagonal"),
        (_scores(errors, given[2], 5.0, order=float("inf")), "the error is the distance, not the larger of |dx|, |dy|"),
        (_scores(errors, given[2], 5.0, order=1), "the error is the distance, not |dx| + |dy|"),
        (_scores(errors, given[2], 5.0**0.5), "you compare squared distances with the limit. Take the root first"),
        (_scores(errors, given[2], 5.0, answered=True), "a point without an answer (NaN) is wrong; you leave it out"),
    ):
        expect(not like(wrong), f"{told}: {words}.")
    expect(like(right), f"{told}, expected {right[0]:.3f} and {right[1]:.3f}.")


def _asked() -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """Points, truth and visibility of four pictures, as `_ERRORS` says."""
    points, truth, visible = [], [], []
    for picture in _ERRORS:
        true = torch.tensor([[20.0 + 3 * k, 10.0 + 5 * k] for k in range(len(picture))])
        off = torch.tensor([e or (torch.nan, torch.nan) for e, _ in picture], dtype=torch.float32)
        unknown = torch.tensor([v is None for _, v in picture])
        points.append(true + off)
        truth.append(torch.where(unknown[:, None], torch.nan, true))
        visible.append(torch.tensor([bool(v) for _, v in picture]))
    return points, truth, visible


def _scores(errors, visible, limit: float, *, strict: bool = False, order: float = 2, answered: bool = False):
    """Both means under a rule of one's own."""
    lengths = [torch.linalg.vector_norm(e, order, dim=1)[v] for e, v in zip(errors, visible, strict=True)]
    if answered:
        lengths = [x[x.isfinite()] for x in lengths]
    right = [(x < limit if strict else x <= limit).double() for x in lengths]
    return torch.stack([r.mean() for r in right if len(r)]).mean(), torch.cat(right).mean()


EXERCISES = (
    Exercise("correspondence.mutual", mutual, _test_mutual),
    Exercise("correspondence.ratio_test", ratio_test, _test_ratio_test),
    Exercise("correspondence.pck", pck, _test_pck),
)
