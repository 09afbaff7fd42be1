"""Exercises of notebook 15: pairs of frames, the grid mask, attention to two pictures, depth dropout, guidance."""

from collections.abc import Callable

import torch
from torch.nn import functional

from workbench.labs import Exercise, Mistake, call, expect, expect_tensor

VERDICTS = ("too different", "kept", "too similar")


def judge_pairs(frames: torch.Tensor, ssim: Callable, low: float, high: float) -> list[tuple[int, int, str]]:
    """Which pairs of a film's frames are fit to learn from: those whose SSIM lies in a band.

    Args:
        frames: (T, 3, H, W).
        ssim: similarity of two pictures (1, 3, H, W) each, a number; the order of the two does not matter.
        low, high: the band, both ends included.

    Returns:
        (a, b, verdict) for every two frames a < b, the lowest SSIM first; verdict is "too different", "kept" or "too
        similar".
    """
    count, found = len(frames), []
    for a in range(count):
        for b in range(a + 1, count):
            value = ssim(frames[a : a + 1], frames[b : b + 1])
            found.append((value, a, b, VERDICTS[(value >= low) + (value > high)]))
    return [(a, b, verdict) for _, a, b, verdict in sorted(found)]


def _test_judge_pairs(answer) -> None:
    values = {(0, 1): 0.95, (0, 2): 0.45, (0, 3): 0.3, (0, 4): 0.7, (1, 2): 0.92,
              (1, 3): 0.6, (1, 4): 0.44, (2, 3): 0.93, (2, 4): 0.5, (3, 4): 0.8}  # fmt: skip
    low, high, count = 0.45, 0.92, 5
    frames = (torch.arange(count) / count).view(-1, 1, 1, 1).expand(-1, 3, 6, 8).clone()
    shapes = []

    def ssim(x, y) -> float:
        shapes.extend(tuple(getattr(z, "shape", ())) for z in (x, y))
        a, b = sorted(round(float(z.float().mean()) * count) for z in (x, y))
        return values.get((a, b), 1.0)

    got = call(answer, frames, ssim, low, high)
    expect(isinstance(got, list), f"You return a {type(got).__name__}, expected a list of (a, b, verdict).")
    expect(bool(shapes), "You never call ssim: every pair is judged by it.")
    wrong = [shape for shape in shapes if shape != (1, 3, 6, 8)]
    expect(
        not wrong,
        f"You hand ssim something of shape {wrong[0] if wrong else ()}, expected one picture, (1, 3, H, W): "
        "frames[a : a + 1].",
    )
    expect(
        all(isinstance(one, (tuple, list)) and len(one) == 3 for one in got),
        f"Your list holds {got[0] if got else 'nothing'!r}, expected triples (a, b, verdict).",
    )
    try:
        got = [(int(a), int(b), verdict) for a, b, verdict in got]
    except (TypeError, ValueError):
        raise Mistake(f"Your list begins with {got[0]!r}, expected triples of two numbers and a word.") from None
    _compare_pairs([tuple(one[:2]) for one in got], values, low, high)
    _compare_verdicts({tuple(one[:2]): one[2] for one in got}, values)
    narrow = {(int(a), int(b)): verdict for a, b, verdict in call(answer, frames, ssim, 0.6, 0.8)}
    right = {pair: VERDICTS[(value >= 0.6) + (value > 0.8)] for pair, value in values.items()}
    expect(narrow == right, "You judge by 0.45 and 0.92 whatever low and high say: the band is the caller's.")
    order = [values[one[0], one[1]] for one in got]
    expect(order != sorted(order, reverse=True), "Your list begins with the highest SSIM, expected the lowest first.")
    expect(order == sorted(order), "Your list is not in the order of SSIM, expected the lowest first.")


def _compare_pairs(pairs: list, values: dict, low: float, high: float) -> None:
    """The right pairs, each once."""
    right, own = set(values), set(pairs)
    between = {pair for pair, value in values.items() if low <= value <= high}
    expect(not any(a == b for a, b in own), "You judge a frame against itself: its SSIM is 1 and nothing is learnt.")
    expect(not any((b, a) in own for a, b in own), "You judge each pair twice, as (a, b) and (b, a): expected a < b.")
    expect(not any(a > b for a, b in own), "Your pairs name the later frame first, expected (a, b) with a < b.")
    expect(
        own != {(a + 1, b + 1) for a, b in right},
        "You count the frames from 1, expected from 0: the numbers that pick them.",
    )
    expect(
        own != {(a, b) for a, b in right if b == a + 1},
        "You judge only frames that follow each other: those are the most alike. Expected every two.",
    )
    expect(own != between, "You leave the rejected pairs out: expected all of them, each with its verdict.")
    missing = sorted(right - own)
    expect(not missing, f"You leave out {len(missing)} pairs, {missing[0] if missing else ''} for one.")
    expect(
        own == right and len(pairs) == len(right),
        f"You have {len(pairs)} pairs, expected {len(right)}: every two frames once.",
    )


def _compare_verdicts(verdicts: dict, values: dict) -> None:
    """The right words; two of the SSIM lie on the ends of the band."""
    strange = [word for word in verdicts.values() if word not in VERDICTS]
    expect(not strange, f"You say {strange[0] if strange else ''!r}, expected one of: {', '.join(VERDICTS)}.")
    expect(
        verdicts[0, 3] != "too similar" or verdicts[0, 1] != "too different",
        "You exchange the two rejections: a high SSIM is too similar, a low one too different.",
    )
    expect(
        verdicts[0, 3] != "kept" or verdicts[1, 4] != "kept",
        "You keep pairs below the band: two frames with nothing in common teach guessing.",
    )
    expect(
        verdicts[0, 1] != "kept" or verdicts[2, 3] != "kept",
        "You keep pairs above the band: two frames that are nearly the same teach copying.",
    )
    expect(
        (verdicts[0, 2], verdicts[1, 2]) == ("kept", "kept"),
        "You reject a pair that lies on the end of the band: both ends are included.",
    )
    right = {pair: VERDICTS[(value >= 0.45) + (value > 0.92)] for pair, value in values.items()}
    off = [pair for pair in right if verdicts[pair] != right[pair]]
    pair = off[0] if off else (0, 1)
    expect(not off, f"You say {verdicts[pair]!r} at SSIM {values[pair]}, expected {right[pair]!r}.")


def hide_cells(points: torch.Tensor, size: tuple[int, int], luck: torch.Tensor) -> torch.Tensor:
    """A grid of cells, each hole by chance; where the picture matches the reference, the chance is higher.

    A cell is hole where luck < 0.75 if at least one point lies in it, where luck < 0.5 if none does.

    Args:
        points: (N, 2), (x, y) in pixels, all inside the picture: where it matches the reference.
        size: (H, W).
        luck: (n, n), one number in [0, 1) for each cell, rows first. Pixel row y belongs to cell row y n // H, pixel
            column x to cell column x n // W; a point likewise, rounded down.

    Returns:
        (1, 1, H, W), 1 = hole.
    """
    (height, width), n = size, len(luck)
    column, row = (points * n / torch.tensor([width, height])).floor().long().T
    chance = torch.full((n, n), 0.5)
    chance[row, column] = 0.75
    hole = (luck < chance).float()
    rows, columns = torch.arange(height) * n // height, torch.arange(width) * n // width
    return hole[rows][:, columns][None, None]


def _test_hide_cells(answer) -> None:
    for seed, size, n in ((0, (21, 34), 4), (1, (34, 26), 5)):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(n * n, generator=generator).view(n, n)
        luck = (order + 0.5) / (n * n)  # every third cell of each kind, so that each has luck of all sizes
        full, lone = order % 3 == 0, order % 3 == 1
        step = torch.tensor([size[1] / n, size[0] / n])
        middles = [((where.nonzero().flip(1) + 0.5) * step) for where in (full, lone)]
        points = torch.cat([middles[0] - 0.3, middles[0], middles[0] + 0.4, middles[1]])
        counts = 3 * full.int() + lone.int()
        given = points.clone(), luck.clone()
        got = expect_tensor(call(answer, given[0], size, given[1]), "a mask (1, 1, H, W)")
        expect(
            torch.equal(given[0], points) and torch.equal(given[1], luck),
            "You change the points or the luck you were given: work on copies.",
        )
        _check_mask_form(got, size, n)
        _compare_grid(got, size, luck, counts)
    nobody = call(answer, torch.zeros(0, 2), (8, 8), torch.tensor([[0.6, 0.4], [0.7, 0.1]]))
    expect(
        torch.equal(nobody[0, 0, ::4, ::4], torch.tensor([[0.0, 1.0], [0.0, 1.0]])),
        "You go wrong where there is no match at all: all cells then have the chance 0.5.",
    )


def _check_mask_form(got: torch.Tensor, size: tuple[int, int], n: int) -> None:
    shape = tuple(got.shape)
    expect(
        shape[-2:] != (n, n),
        f"You return the {n} x {n} cells: each still has to cover its pixels, (1, 1, H, W) = (1, 1, {size[0]}, "
        f"{size[1]}).",
    )
    expect(
        shape[-2:] != size[::-1],
        f"You return shape {shape}: height and width are exchanged, size is (H, W) = {size}.",
    )
    expect(
        shape == (1, 1, *size),
        f"You return shape {shape}, expected (1, 1, {size[0]}, {size[1]}): where {n} does not divide a side, some "
        "cells are a pixel longer.",
    )
    expect(got.is_floating_point(), f"You return {got.dtype}, expected a mask of floats, 1 = hole: .float().")
    expect(bool(((got == 0) | (got == 1)).all()), "Your mask has values between 0 and 1: a cell is hole or it is not.")


def _compare_grid(got: torch.Tensor, size: tuple[int, int], luck: torch.Tensor, counts: torch.Tensor) -> None:
    (height, width), n = size, len(luck)

    def spread(hole: torch.Tensor, rows=None, columns=None) -> torch.Tensor:
        rows = torch.arange(height) * n // height if rows is None else rows
        columns = torch.arange(width) * n // width if columns is None else columns
        return hole.float()[rows][:, columns][None, None]

    def cells(with_points=0.75, without=0.5, seen=counts > 0) -> torch.Tensor:
        return luck < torch.where(seen, with_points, without)

    right = cells()
    fullest = torch.zeros(n * n, dtype=torch.bool)
    fullest[counts.flatten().argsort(descending=True, stable=True)[:5]] = True
    floored = [torch.arange(side) // (side // n) for side in size]
    last = [index.clamp(max=n - 1) for index in floored]
    cut = spread(right, *last)
    cut[..., floored[0] >= n, :] = 0
    cut[..., floored[1] >= n] = 0
    told = {
        "Your mask is the other way round: 1 = hole, where luck is below the chance.": spread(~right),
        "You exchange rows and columns: x counts columns, y counts rows, and luck has rows first.": spread(
            cells(seen=counts.T > 0)
        ),
        "You turn the grid at its diagonal when you spread it over the pixels: rows stay rows.": spread(right.T),
        "You exchange the chances: 0.75 where points are, 0.5 elsewhere.": spread(cells(0.5, 0.75)),
        "You give all cells the chance 0.5: those with a point in them have 0.75.": spread(cells(0.5, 0.5)),
        "You give all cells the chance 0.75: those without a point have 0.5.": spread(cells(0.75, 0.75)),
        "You ask for more than one point: one is enough.": spread(cells(seen=counts > 1)),
        "You never hide a cell without points: its chance is 0.5.": spread(cells(0.75, 0.0)),
        "You follow the released code, 0.7 for the five fullest and 0.3 for the rest: expected the paper's rule.": (
            spread(cells(0.7, 0.3, fullest.view(n, n)))
        ),
        "You leave the last rows and columns without a cell: pixel row y belongs to cell row y n // H.": cut,
        "You give the last cells all that is left over: cells differ by a pixel at most.": spread(right, *last),
    }
    for message, other in told.items():
        expect(not torch.equal(got, other), message)
    wrong = got != spread(right)
    expect(
        not wrong.any(),
        f"Your mask differs in {int(wrong.sum())} of {height * width} pixels, expected a hole where luck < chance: "
        "draw nothing yourself.",
    )


def look_at_both(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_r: torch.Tensor, v_r: torch.Tensor):
    """One attention over a picture's own places and a reference's: equation 1 of the paper.

    out = softmax(q cat(k, k_r)^T / sqrt(d)) cat(v, v_r)

    Args:
        q, k, v: of the picture, (heads, n, d).
        k_r, v_r: of the reference, (heads, m, d).

    Returns:
        (heads, n, d).
    """
    keys, values = torch.cat([k, k_r], 1), torch.cat([v, v_r], 1)  # (heads, n + m, d)
    return (q @ keys.mT / q.shape[-1] ** 0.5).softmax(-1) @ values


def _test_look_at_both(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    heads, n, m, d = 2, 4, 6, 8
    q, k, v = (1.5 * torch.randn(heads, n, d, generator=generator) for _ in range(3))
    k_r, v_r = (1.5 * torch.randn(heads, m, d, generator=generator) for _ in range(2))
    originals = (q, k, v, k_r, v_r)
    given = [x.clone() for x in originals]
    got = expect_tensor(call(answer, *given), "a tensor (heads, n, d)")
    expect(all(map(torch.equal, given, originals)), "You change what you were given: work on copies.")
    shape = tuple(got.shape)
    expect(
        shape != (heads, n, n + m),
        "You return the shares of attention: they still have to be multiplied with the values.",
    )
    expect(
        shape != (heads, n + m, d),
        "You return a row for the reference's places too: it is looked at and asks nothing, queries are the picture's.",
    )
    expect(shape == (heads, n, d), f"You return shape {shape}, expected (heads, places, d) = {(heads, n, d)}.")
    for message, other in _other_looks(*originals).items():
        expect(not _close(got, other), message)
    right = look_at_both(*originals)
    expect(
        _close(got, right),
        f"Your numbers begin with {got.flatten()[0]:.4g}, expected {right.flatten()[0]:.4g}: one softmax over all "
        f"{n} + {m} keys.",
    )
    got = expect_tensor(call(answer, 12 * q, 12 * k, v, 12 * k_r, v_r), "a tensor (heads, n, d)")
    expect(
        bool(got.isfinite().all()),
        "You get numbers that are not finite where logits are large: exp overflows, torch.softmax does not.",
    )


def _other_looks(q, k, v, k_r, v_r) -> dict[str, torch.Tensor]:
    """What typical mistakes give, by what they should be told."""
    keys, values = torch.cat([k, k_r], 1), torch.cat([v, v_r], 1)
    plain = functional.scaled_dot_product_attention
    alone, foreign, both = plain(q, k, v), plain(q, k_r, v_r), plain(q, keys, values)
    logits = q @ keys.mT
    scaled = logits / q.shape[-1] ** 0.5
    two = torch.cat([(q @ x.mT / q.shape[-1] ** 0.5).softmax(-1) for x in (k, k_r)], -1) @ values
    return {
        "You look at the picture alone: the reference's keys and values belong beside its own.": alone,
        "You look at the reference alone: the picture's own keys and values stay.": foreign,
        "You take two softmaxes, one for each picture: one over all keys together lets the two compete.": two,
        "You average two attentions, one to each picture: how much goes to the reference is for the softmax to say.": (
            (alone + foreign) / 2
        ),
        "You mix in one half of plain self-attention, as the released code does: expected equation 1 alone.": (
            (both + alone) / 2
        ),
        "You leave the scale out: divide the products by sqrt(d).": logits.softmax(-1) @ values,
        "You divide by d, expected its root.": (logits / q.shape[-1]).softmax(-1) @ values,
        "You divide by the number of keys: the scale is the root of d, the width of a head.": (
            (logits / keys.shape[1] ** 0.5).softmax(-1) @ values
        ),
        "Your values stand in another order than your keys: the share of a key must meet its own value.": plain(
            q, keys, torch.cat([v_r, v], 1)
        ),
        "You exchange keys and values.": plain(q, values, keys),
        "You take the softmax over the places that ask: the shares of one place must sum to 1 over the keys.": (
            scaled.softmax(1) @ values
        ),
        "You leave the softmax out.": scaled @ values,
    }


def drop_depth(depth: torch.Tensor, luck: torch.Tensor, p: float = 0.5) -> torch.Tensor:
    """Depth dropout: a share of the items learns without depth, so that it can be left out later.

    An item's map is all zeros where its luck < p; else it stays as it is.

    Args:
        depth: (B, 1, H, W).
        luck: (B,), uniform in [0, 1).
        p: how many lose their depth, on average.

    Returns:
        (B, 1, H, W), a new tensor.
    """
    return depth * (luck >= p).to(depth).view(-1, 1, 1, 1)


def _test_drop_depth(answer) -> None:
    for seed, p in ((0, 0.5), (1, 0.3)):
        generator = torch.Generator().manual_seed(seed)
        depth = 0.1 + 0.9 * torch.rand(5, 1, 6, 9, generator=generator)
        luck = torch.tensor([0.2, 0.7, 0.4, 0.05, 0.9])
        given = depth.clone(), luck.clone()
        got = expect_tensor(call(answer, *given, p), "a tensor (B, 1, H, W)")
        expect(
            torch.equal(given[0], depth) and torch.equal(given[1], luck),
            "You write zeros into the maps you were given: the next epoch needs them. Work on a copy.",
        )
        _compare_dropped(got, depth, luck, p)
    got = call(answer, depth.clone(), torch.zeros(5), 0.0)
    expect(torch.equal(got, depth), "You still drop at p = 0: expected luck < p, which is then never true.")


def _compare_dropped(got: torch.Tensor, depth: torch.Tensor, luck: torch.Tensor, p: float) -> None:
    keep = luck >= p
    expect(
        got.shape != depth[keep].shape,
        f"You leave {int((~keep).sum())} items out of the batch: they stay in it, with a map of zeros.",
    )
    expect(got.shape == depth.shape, f"You return shape {tuple(got.shape)}, expected {tuple(depth.shape)}.")
    weight = keep.float().view(-1, 1, 1, 1)
    mean = depth.mean((1, 2, 3), keepdim=True)
    told = {
        "You zero those that should stay: an item is dropped where its luck < p.": depth * (1 - weight),
        "You decide once for the whole batch: each item has its own luck.": depth * weight[0],
        "You enlarge what is left by 1 / (1 - p), as dropout of single numbers does: depth stays as it is.": (
            depth * weight / (1 - p)
        ),
        "You multiply by luck: it only decides, an item keeps its whole map or none of it.": (
            depth * luck.view(-1, 1, 1, 1)
        ),
        "You fill dropped maps with their mean: that still tells how near things are. Expected zeros.": torch.where(
            weight > 0, depth, mean
        ),
        "You fill dropped maps with ones, which says that everything is near: expected zeros.": torch.where(
            weight > 0, depth, 1.0
        ),
        "You drop nothing.": depth,
    }
    if p != 0.5:
        told["You drop at 0.5 whatever p is."] = depth * (luck >= 0.5).float().view(-1, 1, 1, 1)
    for message, other in told.items():
        expect(not _close(got, other), message)
    zeros = (got == 0).flatten(1).float().mean(1)
    expect(
        not ((zeros > 0) & (zeros < 1)).any(),
        "You drop single pixels: a map is kept or dropped as a whole, so that the model learns to do without.",
    )
    expect(_close(got, depth * weight), "Your maps differ: expected zeros where luck < p, all others as they were.")


def guided_noise(predict, latents, mask, background, depth, tokens, nothing, bank, scale: float) -> torch.Tensor:
    """Guidance with the reference dropped: what the reference changes, taken ``scale`` times.

    u + scale (c - u); c with the reference's tokens and bank, u with neither. Mask, background and depth stay in both.

    Args:
        predict: predict(latents, mask, background, depth, tokens, bank) -> predicted noise; bank None: the reference
            U-Net is left out.
        latents, mask, background, depth: of the source.
        tokens, nothing: of the reference's picture, and in their place where it is dropped.
        bank: what the reference U-Net has read.
        scale: guidance scale.

    Returns:
        The guided noise, of the latents' shape.
    """
    with_it = predict(latents, mask, background, depth, tokens, bank)
    without = predict(latents, mask, background, depth, nothing, None)
    return without + scale * (with_it - without)


def _test_guided_noise(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"latents": 4, "mask": 1, "background": 4, "depth": 4}
    given = {name: torch.randn(1, count, 3, 5, generator=generator) for name, count in shapes.items()}
    given |= {name: torch.randn(1, 7, 6, generator=generator) for name in ("tokens", "nothing")}
    bank, calls = _Bank(), []

    def predict(latents, mask, background, depth, tokens, bank):
        calls.append({"latents": latents, "mask": mask, "background": background, "depth": depth, "tokens": tokens,
                      "bank": bank})  # fmt: skip
        shift = sum(float(x.sum()) for x in (mask, background, depth, tokens)) + (0 if bank is None else 5)
        return 0.5 * latents + torch.sin(torch.arange(latents.numel()) + shift).view_as(latents)

    for scale in (5.0, 2.0):
        calls.clear()
        sent = {name: value.clone() for name, value in given.items()}
        got = expect_tensor(call(answer, predict, *sent.values(), bank, scale), "a tensor, the guided noise")
        expect(all(torch.equal(sent[n], given[n]) for n in given), "You change what you were given: work on copies.")
        expect(bool(calls), "You never call predict.")
        expect(len(calls) > 1, "You call predict once: guidance compares a prediction with one without the reference.")
        expect(len(calls) == 2, f"You call predict {len(calls)} times, expected twice.")
        _check_calls(calls, given)
        c, u = (predict(*_sent_with(given, *told)) for told in (("tokens", bank), ("nothing", None)))
        _compare_guided(got, c, u, scale)


class _Bank:
    """Stands for a bank; only whether it comes is looked at."""

    def __repr__(self) -> str:
        return "Bank(1 reference)"


def _sent_with(given: dict, tokens: str, bank) -> tuple:
    return *(given[name] for name in ("latents", "mask", "background", "depth")), given[tokens], bank


def _check_calls(calls: list[dict], given: dict) -> None:
    """One call has tokens and bank, the other neither; all else is in both."""
    for name in ("latents", "mask", "background", "depth"):
        lacking = [one for one in calls if not _same(one[name], given[name])]
        expect(
            not lacking,
            f"You change {name} in one of the calls: only the reference is dropped, what is known of the source stays."
            if len(lacking) == 1
            else f"You hand predict something else as {name}: its arguments are latents, mask, background, depth, "
            "tokens, bank.",
        )
    told = sorted((_kind_of(one["tokens"], given), one["bank"] is not None) for one in calls)
    expect(
        told != [("tokens", False), ("tokens", True)],
        "You leave the tokens in the call without the reference: they are a summary of it. It gets nothing.",
    )
    expect(
        told != [("nothing", True), ("tokens", True)],
        "You leave the bank in the call without the reference: the picture still sees it. It gets None.",
    )
    expect(
        told != [("nothing", True), ("tokens", False)],
        "You give the bank to the call that has nothing, and none to the one with the tokens: they go together.",
    )
    expect(
        told != [("nothing", False), ("tokens", False)],
        "You leave the bank out of both calls: then the image tokens alone are guided.",
    )
    expect(told[0] != told[1], "You make the same call twice: their difference is zero.")
    expect(
        told == [("nothing", False), ("tokens", True)],
        "You hand predict other tokens than expected: tokens with the bank, nothing without.",
    )


def _kind_of(tokens, given: dict) -> str:
    return next((name for name in ("tokens", "nothing") if _same(tokens, given[name])), "other")


def _same(a, b: torch.Tensor) -> bool:
    return isinstance(a, torch.Tensor) and torch.equal(a, b)


def _compare_guided(got: torch.Tensor, c: torch.Tensor, u: torch.Tensor, scale: float) -> None:
    told = {
        "You begin at the prediction with the reference: that is scale + 1. Expected u + scale (c - u).": c
        + scale * (c - u),
        "You go the wrong way, from with to without: expected u + scale (c - u).": c + scale * (u - c),
        "You guide away from the reference: expected c - u, not u - c.": u + scale * (u - c),
        "You return the difference alone: u belongs to it.": scale * (c - u),
        "You add scale c to u: expected scale times the difference, c - u.": u + scale * c,
        "You return the prediction with the reference: scale has no effect.": c,
        "You return the prediction without the reference: scale has no effect.": u,
        "You take the mean of both: expected u + scale (c - u).": (c + u) / 2,
    }
    for message, other in told.items():
        expect(not _close(got, other), message)
    right = u + scale * (c - u)
    expect(got.shape == right.shape, f"You return shape {tuple(got.shape)}, expected {tuple(right.shape)}.")
    expect(
        _close(got, right),
        f"Your numbers begin with {got.flatten()[0]:.4g}, expected {right.flatten()[0]:.4g}: u + scale (c - u).",
    )


EXERCISES = (
    Exercise("mimicbrush.judge_pairs", judge_pairs, _test_judge_pairs),
    Exercise("mimicbrush.hide_cells", hide_cells, _test_hide_cells),
    Exercise("mimicbrush.look_at_both", look_at_both, _test_look_at_both),
    Exercise("mimicbrush.drop_depth", drop_depth, _test_drop_depth),
    Exercise("mimicbrush.guided_noise", guided_noise, _test_guided_noise),
)


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-5)
