"""Exercises of notebook 11: the channel-wise fully connected layer, both losses, the bounding square."""

import functools

import torch
from torch.nn import functional as F

from workbench import mask as masks
from workbench.image import resize
from workbench.labs import Exercise, call, expect, expect_tensor


def channel_wise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The channel-wise fully connected layer: each channel's n = h w cells to n cells, by a matrix of its own.

    y[b, c, j] = sum over i of x[b, c, i] weight[c, i, j] + bias[c, j], cells counted row by row

    Args:
        x: (B, C, h, w).
        weight: (C, n, n), [c, i, j]: from cell i to cell j of channel c.
        bias: (C, n).

    Returns:
        (B, C, h, w).
    """
    return (torch.einsum("bci,cij->bcj", x.flatten(2), weight) + bias).view(x.shape)


def _test_channel_wise(answer) -> None:
    for seed, shape in ((0, (2, 3, 3, 4)), (1, (3, 5, 2, 4))):
        generator = torch.Generator().manual_seed(seed)
        cells = shape[2] * shape[3]
        x = torch.randn(shape, generator=generator)
        weight = torch.randn(shape[1], cells, cells, generator=generator)
        bias = torch.randn(shape[1], cells, generator=generator)
        got = call(answer, x.clone(), weight.clone(), bias.clone())
        expect_tensor(got, "a tensor (B, C, h, w)")
        expect(
            tuple(got.shape) == shape,
            f"You return shape {tuple(got.shape)}, expected that of x, {shape}: cells back in their rows.",
        )
        for told, other in _other_layers(x, weight, bias).items():
            expect(not _alike(got, other), told)
        expect(
            _alike(got, channel_wise(x, weight, bias)),
            "Your numbers differ: expected y[c, j] = sum over i of x[c, i] weight[c, i, j] + bias[c, j].",
        )


def _other_layers(x, weight, bias) -> dict[str, torch.Tensor]:
    """What typical mistakes give, by what they should be told."""
    flat, shape = x.flatten(2), x.shape
    eye = torch.eye(flat.shape[2])
    columns = x.transpose(2, 3).flatten(2)  # cells counted down the columns
    mixed = torch.einsum("cbi,cij->cbj", flat.transpose(0, 1), weight) + bias[:, None]  # (C, B, n)
    down = (torch.einsum("bci,cij->bcj", columns, weight) + bias).view(*shape[:2], shape[3], shape[2])
    return {
        "You go from j to i: expected weight[c, i, j] to lead from cell i to cell j.": (
            torch.einsum("bcj,cij->bci", flat, weight) + bias
        ).view(shape),
        "You leave the bias out: expected one number added to each cell of each channel.": (
            channel_wise(x, weight, torch.zeros_like(bias))
        ),
        "You use the first channel's matrix for all: expected weight[c] for channel c.": channel_wise(
            x, weight[:1].expand_as(weight), bias
        ),
        "You add the channels up: expected each channel to be mixed with no other.": (
            (torch.einsum("bci,cij->bj", flat, weight)[:, None] + bias).view(shape)
        ),
        "You let each cell see only itself: expected a sum over all cells i.": channel_wise(x, weight * eye, bias),
        "You count cells down the columns: expected row by row, as flatten does.": down.transpose(2, 3),
        "You mix up batch and channels on the way back: expected transpose, reshape only renames.": mixed.reshape(
            shape
        ),
    }


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.detach().double(), b.detach().double(), rtol=1e-3, atol=1e-4)


def joint_loss(block, truth, fooled, l2_share: float, rim: int, overlap: float) -> torch.Tensor:
    """What the Context Encoder makes small: L2 on the block, its rim counted more, and the adversary's verdict.

    L = lambda mean over pixels and channels of w (block - truth)^2 + (1 - lambda) fooled

    Args:
        block: (B, 3, S, S), what the network paints, in [-1, 1].
        truth: (B, 3, S, S).
        fooled: the adversarial loss, a tensor of one number.
        l2_share: lambda.
        rim: width of the rim along all four edges, in pixels.
        overlap: w on the rim; w is 1 elsewhere. The mean divides by the number of values, not by the sum of w.

    Returns:
        A tensor of one number.
    """
    weight = torch.full(block.shape[-2:], float(overlap))
    weight[rim:-rim, rim:-rim] = 1
    return l2_share * (weight * (block - truth).square()).mean() + (1 - l2_share) * fooled


def _test_joint_loss(answer) -> None:
    for seed, size, rim, share, overlap in ((0, 12, 2, 0.6, 10.0), (1, 15, 3, 0.8, 4.0)):
        generator = torch.Generator().manual_seed(seed)
        block, truth = torch.rand(2, 2, 3, size, size, generator=generator) * 2 - 1
        fooled = torch.tensor(1.7 + seed)
        leaf = block.clone().requires_grad_()
        got = call(answer, leaf, truth.clone(), fooled.clone(), share, rim, overlap)
        expect_tensor(got, "a tensor of one number")
        expect(got.numel() == 1, f"You return shape {tuple(got.shape)}, expected a tensor of one number.")
        expect(
            got.requires_grad,
            "You cut the way back to block: expected a tensor to differentiate, without item(), float() or detach().",
        )
        _compare_loss(float(got.detach()), block, truth, float(fooled), share, rim, overlap)


def _compare_loss(got: float, block, truth, fooled: float, share: float, rim: int, overlap: float) -> None:
    error, size = (block - truth).square(), block.shape[-1]

    def weights(edge: float, heart: float = 1.0, width: int = rim) -> torch.Tensor:
        weight = torch.full((size, size), edge)
        weight[width:-width, width:-width] = heart
        return weight

    def mixed(l2=None, adversarial=fooled, shares=(share, 1 - share)) -> float:
        l2 = (weights(overlap) * error).mean() if l2 is None else l2
        return shares[0] * float(l2) + shares[1] * adversarial

    line = torch.ones(size)
    line[:rim] = line[-rim:] = overlap
    upper_left = torch.full((size, size), overlap)
    upper_left[rim:, rim:] = 1
    told = {
        "You weigh the hole more than the rim: expected overlap on the rim, 1 inside.": mixed(
            (weights(1.0, overlap) * error).mean()
        ),
        "You count the rim like the rest: expected overlap times as much there.": mixed(error.mean()),
        "You divide by the sum of the weights: expected the plain mean of w (block - truth)^2.": mixed(
            (weights(overlap) * error).mean() / weights(overlap).mean()
        ),
        "Your corners count overlap twice, rows and columns: expected overlap there, not its square.": mixed(
            (line[:, None] * line * error).mean()
        ),
        "You weigh the upper and left edges only: expected a rim on all four.": mixed((upper_left * error).mean()),
        "You measure the rim alone: expected the hole too, with weight 1.": mixed(
            (weights(overlap, 0.0) * error).mean()
        ),
        "You leave the adversarial part out: expected (1 - lambda) fooled as well.": mixed(adversarial=0.0),
        "You add the adversarial part whole: expected it times 1 - lambda.": mixed(shares=(share, 1.0)),
        "You take L2 whole: expected it times lambda.": mixed(shares=(1.0, 1 - share)),
        "You exchange the shares: expected lambda for L2, 1 - lambda for the adversary.": mixed(
            shares=(1 - share, share)
        ),
        "You take absolute differences: expected squares.": mixed((weights(overlap) * (block - truth).abs()).mean()),
        "You add the squares up: expected their mean.": mixed((weights(overlap) * error).sum()),
        "You add the channels up: expected the mean over them too.": mixed(3 * (weights(overlap) * error).mean()),
    }
    if overlap != 10:
        told["You take 10 on the rim whatever overlap says."] = mixed((weights(10.0) * error).mean())
    for message, value in told.items():
        expect(abs(got - value) > 1e-4 * abs(value), message)
    right = mixed()
    expect(abs(got - right) < 1e-4 * right, f"You get {got:.5g}: expected {right:.5g}.")


def adversarial(real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides of the game, from the discriminator's scores; with D = sigmoid(score), high = looks real:

    told_apart = (mean of -log D(real) + mean of -log(1 - D(fake))) / 2, what the discriminator makes small
    fooled = mean of -log D(fake), what the network makes small

    Args:
        real: (B, 1, h, w), scores of true blocks, any finite numbers.
        fake: (B, 1, h, w), scores of painted ones.

    Returns:
        (told_apart, fooled), tensors of one number.
    """
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2, F.softplus(-fake).mean()


def _test_adversarial(answer) -> None:
    for seed, shift in ((0, 1.0), (1, -0.5)):
        generator = torch.Generator().manual_seed(seed)
        real = torch.randn(3, 1, 4, 4, generator=generator) * 2 + shift
        fake = torch.randn(3, 1, 4, 4, generator=generator) - 0.3
        got = _pair(call(answer, real.clone(), fake.clone()))
        _compare_adversarial(got, real, fake)
    sure = torch.full((1, 1, 2, 2), 200.0)
    told_apart, fooled = _pair(call(answer, -sure, -sure))
    expect(
        abs(fooled - 200) < 1 and abs(told_apart - 100) < 1,
        f"You get {told_apart:.3g} and {fooled:.3g} for scores of -200: expected 100 and 200. The logarithm of a "
        "sigmoid runs out of numbers there; -log sigmoid(s) is softplus(-s).",
    )


def _pair(got) -> tuple[float, float]:
    """Both losses as numbers."""
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        kind = f"{len(got)} things" if isinstance(got, (tuple, list)) else f"a {type(got).__name__}"
        expect(False, f"You return {kind}, expected two: (told_apart, fooled).")
    for one in got:
        expect(isinstance(one, torch.Tensor), f"You return a {type(one).__name__} in the pair, expected tensors.")
        expect(one.numel() == 1, f"You return shape {tuple(one.shape)} in the pair, expected means: one number each.")
    return float(got[0].detach()), float(got[1].detach())


def _compare_adversarial(got: tuple[float, float], real: torch.Tensor, fake: torch.Tensor) -> None:
    told_apart, fooled = (float(x) for x in adversarial(real, fake))
    plus = F.softplus

    def like(value: float, other) -> bool:
        return abs(value - float(other)) < 1e-4 * max(1.0, abs(float(other)))

    expect(
        not (like(got[0], fooled) and like(got[1], told_apart)),
        "You return them the other way round: expected (told_apart, fooled).",
    )
    swapped = (plus(real).mean() + plus(-fake).mean()) / 2
    twice = (plus(-real.sigmoid()).mean() + plus(fake.sigmoid()).mean()) / 2
    verdicts = {
        "You do not halve the discriminator's loss: expected the mean of its two parts.": 2 * told_apart,
        "You exchange real and painted for the discriminator: expected -log D(real) and -log(1 - D(fake)).": swapped,
        "You take the sigmoid twice: expected the scores themselves, before any sigmoid.": twice,
        "You show the discriminator only true blocks: expected painted ones too.": plus(-real).mean() / 2,
        "You average the scores first: expected a loss for each verdict, then the mean.": (
            plus(-real.mean()) + plus(fake.mean())
        )
        / 2,
        "You take the discriminator's success for its loss: the sign is wrong.": -told_apart,
    }
    for message, value in verdicts.items():
        expect(not like(got[0], value), message)
    expect(like(got[0], told_apart), f"Your told_apart is {got[0]:.5g}: expected {told_apart:.5g}.")
    wishes = {
        "You let the network lose by log(1 - D(fake)), which is flat where it is found out: expected -log D(fake).": (
            -plus(fake).mean()
        ),
        "You punish the network where it succeeds: expected -log D(fake), small when painted blocks look real.": (
            plus(fake).mean()
        ),
        "You judge the network by true blocks: expected the scores of what it painted.": plus(-real).mean(),
    }
    for message, value in wishes.items():
        expect(not like(got[1], value), message)
    expect(like(got[1], fooled), f"Your fooled is {got[1]:.5g}: expected {fooled:.5g}.")


SIZE, BLOCK, RIM, UNIT = 128, 64, 4, 14
"""The network's: side of the picture it is shown, of the block it paints, its rim; a square's side is a multiple."""


def fill_by_square(image: torch.Tensor, mask: torch.Tensor, predict) -> torch.Tensor:
    """Fills a hole of any shape by a network that only knows a square in the middle of 128 x 128.

    The square: side s = the larger of the hole's width and height, rounded up to a multiple of 14; it begins
    (s - width) // 2 left of the hole and (s - height) // 2 above. The cut: 9 s / 14 more on every side. It is resized
    to 128 x 128 and predicted; the block without its rim of 4 px is resized to the square.

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole; its cut lies inside the picture.
        predict: (1, 3, 128, 128) -> (1, 3, 64, 64), the middle; what stands in the hole it blanks itself.

    Returns:
        (1, 3, H, W), the hole's pixels painted, all others unchanged.
    """
    x0, y0, x1, y1 = masks.bounding_box(mask)
    side = UNIT * -(-max(x1 - x0, y1 - y0) // UNIT)
    x, y, more = x0 - (side - x1 + x0) // 2, y0 - (side - y1 + y0) // 2, 9 * side // UNIT
    cut = image[..., y - more : y + side + more, x - more : x + side + more]
    block = predict(resize(cut, (SIZE, SIZE)))[..., RIM:-RIM, RIM:-RIM]
    painted = image.clone()
    painted[..., y : y + side, x : x + side] = resize(block, (side, side))
    return torch.where(mask > 0.5, painted, image)


def _test_fill_by_square(answer) -> None:
    for hole in ("lying", "standing"):
        image, mask = _with_hole(hole)
        shown: list[torch.Tensor] = []
        given = image.clone()
        got = call(answer, given, mask.clone(), functools.partial(_ramps, shown=shown))
        expect_tensor(got, "a picture (1, 3, H, W)")
        expect(torch.equal(given, image), "You paint into the picture you were given: expected a copy.")
        expect(len(shown) == 1, f"You ask for {len(shown)} predictions, expected one.")
        expect(
            isinstance(shown[0], torch.Tensor) and tuple(shown[0].shape) == (1, 3, SIZE, SIZE),
            f"You show the network {tuple(getattr(shown[0], 'shape', ()))}, expected the cut at (1, 3, 128, 128).",
        )
        _compare_cut(shown[0], mask)
        expect(
            got.shape == image.shape, f"You return shape {tuple(got.shape)}, expected the picture's, {(*image.shape,)}."
        )
        _compare_painted(got, image, mask)


def _with_hole(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture whose red is x / 400 and whose green is y / 400, and a hole that is no rectangle."""
    height, width = 180, 240
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = torch.stack([x / 400, y / 400, torch.full_like(x, 0.5)])[None]
    box = (108, 80, 139, 97) if kind == "lying" else (111, 77, 128, 112)
    return image, masks.ellipse((height, width), box)


def _ramps(crop: torch.Tensor, shown: list) -> torch.Tensor:
    """A prediction that tells where it lands: red grows to the right, green downwards."""
    shown.append(crop)
    along = (torch.arange(BLOCK) + 0.5) / BLOCK
    red, green = along.expand(BLOCK, BLOCK), along[:, None].expand(BLOCK, BLOCK)
    return torch.stack([red, green, torch.zeros(BLOCK, BLOCK)])[None]


def _squares(mask: torch.Tensor) -> tuple[tuple[int, int, int], tuple[int, int, int, int]]:
    """(x, y, side) of the square, and the hole's bounding box."""
    x0, y0, x1, y1 = box = masks.bounding_box(mask)
    side = UNIT * -(-max(x1 - x0, y1 - y0) // UNIT)
    return (x0 - (side - x1 + x0) // 2, y0 - (side - y1 + y0) // 2, side), box


def _compare_cut(crop: torch.Tensor, mask: torch.Tensor) -> None:
    """Where a cut was made is read from its colours."""
    inner = torch.arange(16, SIZE - 16) + 0.5  # away from the edges, where resizing bends the ramps
    ends = []
    for channel, axis in ((0, 0), (1, 1)):
        values = 400 * crop[0, channel].detach().double().mean(axis)[16:-16]
        slope = float((values[-1] - values[0]) / (inner[-1] - inner[0]))
        start = float(values.mean()) - slope * SIZE / 2
        ends.append((start, start + slope * SIZE))
    (left, right), (top, bottom) = ends
    got = left, top, right, bottom
    (x, y, side), (x0, y0, x1, y1) = _squares(mask)

    def like(*box) -> bool:
        return all(abs(a - b) < 0.5 for a, b in zip(got, box, strict=True))

    def cut(x, y, side, share=9 / 14) -> tuple[float, ...]:
        more = share * side
        return x - more, y - more, x + side + more, y + side + more

    long = max(x1 - x0, y1 - y0)
    wide, high = (x1 - x0) * 9 / 14, (y1 - y0) * 9 / 14
    told = {
        "You cut out the square alone: expected its surroundings too, 9/14 of its side more on every side.": (
            x, y, x + side, y + side,
        ),
        "You stretch the hole's bounding box: expected a square, as wide as high.": (
            x0 - wide, y0 - high, x1 + wide, y1 + high,
        ),
        "Your square begins at the hole's corner: expected the hole in its middle.": cut(x0, y0, side),
        "Your cut is twice the square: expected 128 / 56 times, for 4 px on each side of the block are known.": cut(
            x, y, side, 0.5
        ),
        f"Your square has the hole's {long} px: expected {side}, rounded up to a multiple of 14.": cut(
            x0 - (long - x1 + x0) / 2, y0 - (long - y1 + y0) / 2, long
        ),
    }  # fmt: skip
    for message, box in told.items():
        expect(not like(*box), message)
    round_shorter = UNIT * -(-min(x1 - x0, y1 - y0) // UNIT)
    expect(
        abs(right - left - round_shorter * SIZE / 56) > 0.5,
        "Your square is as large as the hole's shorter side: expected the longer one.",
    )
    wanted = cut(x, y, side)
    expect(
        like(*wanted),
        f"You cut out about ({', '.join(f'{v:.0f}' for v in got)}), expected "
        f"({', '.join(f'{v:.0f}' for v in wanted)}), as (x0, y0, x1, y1).",
    )


def _compare_painted(got: torch.Tensor, image: torch.Tensor, mask: torch.Tensor) -> None:
    (x, y, side), _ = _squares(mask)
    inside, hole = torch.zeros_like(mask), mask > 0.5
    inside[..., y : y + side, x : x + side] = 1
    kept = ~hole.expand_as(image)
    whole_square = (inside > 0.5).expand_as(image) & kept
    expect(
        torch.equal(got[kept], image[kept]) or not (got != image)[whole_square].all(),
        "You paste the whole square: expected the hole's own pixels only, the others are known.",
    )
    expect(torch.equal(got[kept], image[kept]), "You change known pixels: expected them as they were, to the bit.")
    expect(not torch.equal(got, image), "You return the picture as it was: expected the hole painted.")
    own = got[hole.expand_as(got)].view(3, -1)  # (3, N)

    def ramp(first: float, span: float) -> torch.Tensor:
        """Red and green of the hole's pixels if the square shows the block from ``first`` on, ``span`` of it."""
        along = first + span * (torch.arange(side) + 0.5) / side
        painted = torch.zeros_like(image)
        painted[:, 0, y : y + side, x : x + side] = along
        painted[:, 1, y : y + side, x : x + side] = along[:, None]
        return painted[hole.expand_as(image)].view(3, -1)

    def off(other: torch.Tensor) -> float:
        return float((own - other).abs().max())

    right = ramp(RIM / BLOCK, 1 - 2 * RIM / BLOCK)
    expect(
        off(ramp(0, 1)) > 0.012 or off(right) < 0.012,
        "You squeeze the whole block into the square: expected it without its rim of 4 px.",
    )
    expect(off(right[[1, 0, 2]]) > 0.012, "Your fill is mirrored at the diagonal: expected rows to stay rows.")
    expect(off(right) < 0.012, "Your fill lies elsewhere or has another scale: expected the inner 56 px on the square.")


EXERCISES = (
    Exercise("context_encoder.channel_wise", channel_wise, _test_channel_wise),
    Exercise("context_encoder.adversarial", adversarial, _test_adversarial),
    Exercise("context_encoder.joint_loss", joint_loss, _test_joint_loss),
    Exercise("context_encoder.fill_by_square", fill_by_square, _test_fill_by_square),
)
