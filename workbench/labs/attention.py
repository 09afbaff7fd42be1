"""Exercises of notebook 09: one row of attention, maps put together, a word's columns, how well a map finds a thing."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from workbench.labs import Exercise, call, expect, expect_tensor


def attention_row(q: torch.Tensor, k: torch.Tensor, place: int) -> torch.Tensor:
    """How one place of the picture shares its attention out among the keys, in each head.

    row = softmax over the keys of (q[place] . k / sqrt(d))

    Args:
        q: queries (heads, n, d), one for each of n places.
        k: keys (heads, m, d), one for each of m tokens.
        place: whose row, 0 to n - 1.

    Returns:
        (heads, m), each row sums to 1.
    """
    logits = (k @ q[:, place, :, None])[..., 0] / q.shape[-1] ** 0.5  # (heads, m)
    return logits.softmax(-1)


def _test_row(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    heads, n, m, d, place = 2, 5, 7, 9, 3
    q, k = (2 * torch.randn(heads, count, d, generator=generator) for count in (n, m))
    given = q.clone(), k.clone()
    got = expect_tensor(call(answer, *given, place))
    expect(
        torch.equal(given[0], q) and torch.equal(given[1], k), "You change the q or k you were given: work on copies."
    )
    expect(got.shape != (heads, n, m), f"You return all {n} rows: take the query of the place first, q[:, place].")
    expect(
        got.shape != (heads, n),
        f"You return {n} numbers a head, one a place: queries and keys are exchanged. The row has one a key, {m}.",
    )
    expect(got.shape != (m,), "You return one row for all heads: each has its own. They are put together later.")
    expect(got.shape == (heads, m), f"You return shape {tuple(got.shape)}, expected (heads, keys) = {(heads, m)}.")
    dots = torch.einsum("hd,hmd->hm", q[:, place], k)
    expect(
        not _close(got, dots.softmax(-1)),
        "You leave the scale out: divide the products by sqrt(d), or the row is far too sharp.",
    )
    expect(not _close(got, (dots / d).softmax(-1)), "You divide by d, expected its root: the row is too flat.")
    expect(
        not _close(got, (dots / (heads * d) ** 0.5).softmax(-1)),
        "You scale by the width of all heads together: d is the width of one head, q.shape[-1].",
    )
    scaled = dots / d**0.5
    expect(not _close(got, scaled), "You return the logits: they still have to go through a softmax.")
    expect(
        not _close(got, scaled.softmax(0)),
        "You take the softmax over the heads: each head's row must sum to 1 over its keys.",
    )
    expect(
        not _close(got, scaled.exp() / scaled.exp().sum()),
        "You divide by the sum over all heads: each head's row sums to 1 by itself.",
    )
    expect(not _close(got, scaled.exp()), "You take exp without dividing by its sum: a row must sum to 1.")
    expect(
        not _close(got, scaled.sigmoid()),
        "You take a sigmoid: keys do not compete there. A softmax divides by the sum over all keys.",
    )
    expect(
        _close(got, scaled.softmax(-1)),
        f"You get rows that sum to {got.sum(-1)[0]:.3g} and begin with {got[0, 0]:.4g}, expected 1 and "
        f"{scaled.softmax(-1)[0, 0]:.4g}.",
    )
    got = expect_tensor(call(answer, 12 * q, 12 * k, place))
    expect(
        bool(got.isfinite().all()),
        "You get numbers that are not finite where logits are large: exp overflows. Take the maximum away first, or "
        "use torch.softmax, which does.",
    )


def aggregate_heads(maps: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """One heat map of a word from all layers and heads.

    Mean over a layer's heads, resized bilinearly to the picture, mean over the layers: each layer has one vote.

    Args:
        maps: of each layer the probabilities of the word, (heads, h, w); heads and grids differ between layers.
        size: (H, W) of the picture.

    Returns:
        (H, W), probabilities, not stretched.
    """
    means = [layer.mean(0)[None, None] for layer in maps]  # (1, 1, h, w) each
    resized = [functional.interpolate(mean, size, mode="bilinear") for mean in means]  # (1, 1, H, W)
    return torch.stack(resized).mean(0)[0, 0]


def _test_aggregate(answer) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes, size = ((2, 4, 6), (6, 2, 3)), (16, 24)
    maps = [0.4 * torch.rand(shape, generator=generator) ** 2 for shape in shapes]
    given = [layer.clone() for layer in maps]
    got = expect_tensor(call(answer, given, size))
    expect(all(map(torch.equal, given, maps)), "You change the maps you were given: work on copies.")
    expect(
        got.shape != size[::-1],
        f"You return shape {tuple(got.shape)}: height and width are exchanged, size is (H, W) = {size}.",
    )
    expect(
        got.ndim == 2,
        f"You return shape {tuple(got.shape)}, expected the map alone, (H, W) = {size}: heads and layers are put "
        "together, and interpolate's two extra dimensions are taken off.",
    )
    expect(tuple(got.shape) == size, f"You return shape {tuple(got.shape)}, expected the picture's, {size}.")

    def put(heads=lambda layer: layer.mean(0), how="bilinear", **more) -> torch.Tensor:
        fields = [functional.interpolate(heads(layer)[None, None], size, mode=how, **more) for layer in maps]
        return torch.stack(fields)[:, 0, 0]  # (layers, H, W)

    right = put().mean(0)
    largest = put(lambda layer: layer.amax(0))
    expect(
        not _close(got, largest.mean(0)) and not _close(got, largest.amax(0)),
        "You take the largest head: one loud head then speaks for all. Take the mean over heads.",
    )
    expect(not _close(got, put().amax(0)), "You take the larger layer at each place, expected the mean over layers.")
    expect(not _close(got, put().sum(0)), "You add the layers up, expected their mean: a probability stays one.")
    expect(
        not _close(got, put(lambda layer: layer.sum(0)).mean(0)),
        "You add the heads up: a layer of 6 heads then counts three times as much as one of 2. Take their mean.",
    )
    weights = torch.tensor([float(shape[0]) for shape in shapes]) / sum(shape[0] for shape in shapes)
    expect(
        not _close(got, (put() * weights[:, None, None]).sum(0)),
        "You average over all heads at once, so that the layer with more heads has more votes. First the mean over a "
        "layer's heads, then over layers.",
    )
    expect(
        not _close(got, put().softmax(0).mean(0)) and not _close(got, put(lambda x: x.softmax(0).mean(0)).mean(0)),
        "You take another softmax: these are probabilities already.",
    )
    stretched = [right / right.max(), (put() / put().amax((1, 2), keepdim=True)).mean(0)]
    low = right.min()
    expect(
        not any(_close(got, other) for other in (*stretched, (right - low) / (right.max() - low))),
        "You stretch to a maximum of 1: a word that nobody looks at then seems as strong as any. Keep probabilities.",
    )
    expect(
        not _close(got, put(how="nearest").mean(0)),
        "Your map has steps: resize with mode='bilinear', not 'nearest', the default of interpolate.",
    )
    expect(
        not _close(got, put(how="bilinear", align_corners=True).mean(0)),
        "You align corners: a place is a cell with a width, not a point. Leave align_corners=False.",
    )
    expect(
        not _close(got, put(how="bicubic").mean(0)),
        "You resize bicubically, which overshoots: probabilities could fall below 0. Take bilinear.",
    )
    expect(
        _close(got, right),
        f"You get {got[0, 0]:.4g} in the corner and {got.mean():.4g} on average, expected {right[0, 0]:.4g} and "
        f"{right.mean():.4g}.",
    )


def token_columns(tokens: Sequence[str], word: str) -> list[int]:
    """Which columns of the text axis a word has.

    Args:
        tokens: names of all columns as the vocabulary has them: a piece that ends a word ends in "</w>"; start, end and
            padding begin with "<|".
        word: as it stands in the prompt, in lower case.

    Returns:
        The columns of all its pieces, wherever the whole word stands; empty where it is nowhere.
    """
    found, spelled, columns = [], "", []
    for column, token in enumerate(tokens):
        if token.startswith("<|"):
            continue
        spelled, columns = spelled + token.removesuffix("</w>"), [*columns, column]
        if token.endswith("</w>"):
            found += columns if spelled == word else []
            spelled, columns = "", []
    return found


_TOKENS = (
    "<|startoftext|>", "a</w>", "cup", "board</w>", "a</w>", "cup</w>", "a</w>", "bo", "ok", "shelf</w>", "a</w>",
    "shelf</w>", "and</w>", "a</w>", "cup</w>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>",
)  # fmt: skip


def _test_columns(answer) -> None:
    def ask(word: str) -> list:
        got = call(answer, list(_TOKENS), word)
        expect(isinstance(got, list), f"You return a {type(got).__name__}, expected a list of columns.")
        expect(
            all(isinstance(column, int) and not isinstance(column, bool) for column in got),
            f"You return {got} for {word!r}, expected the columns' numbers.",
        )
        return sorted(got)

    got, right = ask("bookshelf"), [7, 8, 9]
    expect(
        got != [6, 7, 8],
        "Your columns are one too small: column 0 is the start token, the prompt's first word is column 1.",
    )
    expect(got != [7], "You give only the first piece of 'bookshelf': it was cut into three, and all belong to it.")
    expect(got != [9], "You give only the last piece of 'bookshelf': it was cut into three, and all belong to it.")
    expect(
        got != [],
        "You find no 'bookshelf': it is not one token. Join pieces until one ends in '</w>', then compare.",
    )
    expect(
        11 not in got,
        "You take the other 'shelf' for a part of 'bookshelf': a word's pieces stand in a row and end at one '</w>'.",
    )
    expect(got == right, f"You get {got} for 'bookshelf', expected {right}.")
    got = ask("shelf")
    expect(got != [9, 11], "You count the end of 'bookshelf' as 'shelf': a piece with others before it is no word.")
    expect(got == [11], f"You get {got} for 'shelf', expected [11].")
    got = ask("cup")
    expect(2 not in got, "You count the beginning of 'cupboard' as 'cup': without '</w>' the word goes on.")
    expect(got != [5], "You stop at the first 'cup': the prompt has two, and both act on the picture.")
    expect(got != [14], "You give only the last 'cup': the prompt has two, and both act on the picture.")
    expect(
        got != list(range(5, 15)),
        "You give everything from the first 'cup' to the last, other words too: only its own columns.",
    )
    expect(not {15, 16, 17} & {*got}, "You count end or padding tokens as part of the word: they belong to no word.")
    expect(got == [5, 14], f"You get {got} for 'cup', expected [5, 14].")
    got = ask("sofa")
    expect(got == [], f"You get {got} for 'sofa', which is not in the prompt, expected an empty list.")


def map_iou(heat: torch.Tensor, ids: torch.Tensor, things: Sequence[str], noun: str, share: float) -> float:
    """How well a heat map finds all things of a kind: intersection over union.

    A = {heat >= share max(heat)}, B = all pixels of things called so; IoU = |A and B| / |A or B|

    Args:
        heat: (H, W), at least 0.
        ids: (H, W) whole numbers; 0 = nothing, otherwise 1 + index into ``things``.
        things: what there is: "a red ball"; the last word is the noun.
        noun: which kind; several things may be of it.
        share: threshold, as a share of the map's maximum.

    Returns:
        In [0, 1].
    """
    wanted = torch.tensor([1 + i for i, thing in enumerate(things) if thing.split()[-1] == noun], dtype=ids.dtype)
    there = torch.isin(ids, wanted)
    found = heat >= share * heat.max()
    return float((found & there).sum() / (found | there).sum())


def _test_iou(answer) -> None:
    things = ("a red ball", "a ball lamp", "a wooden table", "a blue ball", "a football")
    ids = torch.zeros(12, 16, dtype=torch.long)
    ids[1:5, 1:5], ids[6:9, 1:4], ids[9:12, 6:16] = 1, 2, 3
    ids[2:6, 10:14], ids[7:9, 12:15] = 4, 5
    heat = 0.05 * torch.rand(ids.shape, generator=torch.Generator().manual_seed(2))
    heat[1:5, 2:8], heat[3:7, 9:13], heat[8, 2] = 0.3, 0.4, 0.1  # as low as attention is: 0.5 is never reached
    noun, share = "ball", 0.5
    got = call(answer, heat.clone(), ids.clone(), things, noun, share)
    expect(
        isinstance(got, (int, float)) and not isinstance(got, bool),
        f"You return a {type(got).__name__}, expected a plain number: wrap it in float(...).",
    )

    def like(other) -> bool:
        return abs(got - float(other)) < 1e-4

    def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a & b).sum() / (a | b).sum().clamp_min(1)

    found, first, second = heat >= share * heat.max(), ids == 1, ids == 4
    there = first | second
    both, either = (found & there).sum(), (found | there).sum()
    expect(
        not like(iou(heat >= share, there)),
        "You compare the map with share itself: attention is seldom so large. The threshold is share times the map's "
        "maximum.",
    )
    expect(
        not like(iou(heat > share * heat.mean(), there)),
        "You take the threshold from the map's mean, expected a share of its maximum.",
    )
    expect(
        not like(iou(found, first)) and not like(iou(found, second)),
        "You count only one of the two balls: a word's map is right about every ball, so unite them first.",
    )
    expect(
        not like((iou(found, first) + iou(found, second)) / 2),
        "You average over the balls, each against the whole map: what is on the other ball then counts as wrong.",
    )
    expect(
        not like(iou(found, (ids == 2) | (ids == 5))) and not like(iou(found, (ids == 0) | (ids == 3))),
        "Your ids are one off: an id is 1 + the index into things, and 0 is nothing.",
    )
    expect(
        not like(iou(found, there | (ids == 2))) and not like(iou(found, there | (ids == 2) | (ids == 5))),
        "You count 'a ball lamp' or 'a football' as balls: the noun is the last word, and the whole of it.",
    )
    expect(
        not like(iou(found, there | (ids == 5))), "You count 'a football' as a ball: compare whole words, not endings."
    )
    expect(not like(2 * both / (found.sum() + there.sum())), "You get Dice's coefficient, 2 |A and B| / (|A| + |B|).")
    expect(
        not like(both / (found.sum() + there.sum())),
        "You divide by |A| + |B|: what is in both is counted twice there. The union is |A or B|.",
    )
    expect(
        not like(both / there.sum()),
        "You divide by the things alone (recall): a map that is bright everywhere would be perfect.",
    )
    expect(
        not like(both / found.sum()),
        "You divide by the map alone (precision): one bright pixel on a ball would be perfect.",
    )
    expect(not like(both), "You return how many pixels both share, expected that over their union.")
    expect(like(both / either), f"You get {got:.4g}, expected {float(both / either):.4g}.")
    expect(
        abs(call(answer, heat.clone(), ids.clone(), things, noun, 0.9) - float(iou(heat >= 0.9 * heat.max(), there)))
        < 1e-4,
        "Your threshold does not follow share: with 0.9 in place of 0.5 the answer is wrong.",
    )


EXERCISES = (
    Exercise("attention.row", attention_row, _test_row),
    Exercise("attention.aggregate", aggregate_heads, _test_aggregate),
    Exercise("attention.columns", token_columns, _test_columns),
    Exercise("attention.iou", map_iou, _test_iou),
)


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-5)
