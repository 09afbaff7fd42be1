"""Exercises of notebook 14: what an item may see, what the loss sees, LoRA by hand, ranking samples."""

import functools
import math

import torch

from workbench import mask as masks
from workbench.labs import Exercise, call, expect, expect_tensor


def training_hole(drawn: torch.Tensor, unknown: torch.Tensor, luck: float, dropout: float = 0.1) -> torch.Tensor:
    """The hole that one item of RealFill's training learns with.

    What is not known of the picture is always hidden, and the drawn rectangles besides. A share ``dropout`` of the
    items learns with everything hidden.

    Args:
        drawn: (1, 1, H, W), the random mask, 1 = hidden.
        unknown: (1, 1, H, W): the target's own hole; 0 everywhere for a reference.
        luck: uniform in [0, 1); below ``dropout`` everything is hidden.
        dropout: a share.

    Returns:
        float32 (1, 1, H, W) of 0 and 1, 1 = hidden; ``drawn`` and ``unknown`` stay as they are.
    """
    if luck < dropout:
        return torch.ones_like(drawn)
    return torch.maximum(drawn, unknown)


def _test_training_hole(answer) -> None:
    size = (24, 40)
    drawn, unknown = masks.box(size, (4, 3, 22, 12)), masks.box(size, (16, 8, 36, 20))
    before = drawn.clone(), unknown.clone()
    got = call(answer, drawn, unknown, 0.7, 0.1)
    expect_tensor(got)
    expect(got.shape == drawn.shape, f"You return shape {tuple(got.shape)}, expected (1, 1, 24, 40).")
    expect(got.dtype == torch.float32, f"Your mask has dtype {got.dtype}, expected torch.float32.")
    same = torch.equal(drawn, before[0]) and torch.equal(unknown, before[1])
    expect(same, "You change drawn or unknown in place; the next item needs them as they were.")
    expect(float(got.max()) <= 1, "Where both masks are 1 you get 2: take the larger, not the sum.")
    expect(
        not torch.equal(got, drawn),
        "You hide the rectangles only: what is not known of the target would be shown to the model as if it were.",
    )
    expect(
        not torch.equal(got, unknown),
        "You hide the target's own hole only: then nothing that is known has to be painted, only to be copied.",
    )
    expect(
        not torch.equal(got, torch.minimum(drawn, unknown)),
        "You hide what is in both masks, expected what is in either: the larger of the two.",
    )
    expect(not bool(got.all()), "You hide everything at luck 0.7, expected that only below dropout, here 0.1.")
    expect(torch.equal(got, torch.maximum(drawn, unknown)), "You miss the union of drawn and unknown.")
    dropped = call(answer, drawn, unknown, 0.05, 0.1)
    expect(
        isinstance(dropped, torch.Tensor) and dropped.shape == drawn.shape and bool((dropped == 1).all()),
        f"At luck 0.05, below dropout 0.1, you hide {float(torch.as_tensor(dropped).float().mean()):.0%} of the "
        "picture, expected all of it.",
    )
    expect(
        torch.equal(call(answer, drawn, unknown, 0.3, 0.5), torch.ones_like(drawn)),
        "Your limit does not follow dropout: at luck 0.3 and dropout 0.5 everything is hidden.",
    )
    expect(
        not bool(call(answer, drawn, unknown, 0.0, 0.0).all()),
        "With dropout 0 nothing is ever dropped, not even at luck 0: compare with <.",
    )


def known_loss(predicted: torch.Tensor, wanted: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
    """RealFill's loss: only what is known of a picture teaches.

    loss = mean over all cells of v |wanted - predicted|^2, v = 0 in each cell that holds an unknown pixel, 1 elsewhere

    Args:
        predicted, wanted: (B, C, h, w), of the U-Net.
        unknown: (B, 1, H, W) in pixels, 1 = not known; H / h and W / w are whole numbers.

    Returns:
        A tensor of one number. Cells that do not count are 0 in the mean, not left out of it.
    """
    cells = torch.nn.functional.adaptive_max_pool2d(unknown, predicted.shape[-2:])  # (B, 1, h, w)
    return ((1 - cells) * (wanted - predicted).square()).mean()


def _test_known_loss(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, wanted = torch.randn(2, 3, 4, 6, 8, generator=generator)
    unknown = torch.cat([torch.zeros(1, 1, 24, 32), masks.box((24, 32), (9, 5, 26, 22))])
    unknown = torch.cat([unknown, masks.ellipse((24, 32), (3, 2, 20, 18))])  # the edges cut through cells of 4 x 4
    _compare_known(answer, predicted, wanted, unknown)
    fine = unknown.repeat_interleave(2, 2)[..., :48, 1:31].repeat_interleave(4, 3)[..., :64]  # cells of 8 x 8
    _compare_known(answer, predicted, wanted, fine)


def _compare_known(answer, predicted: torch.Tensor, wanted: torch.Tensor, unknown: torch.Tensor) -> None:
    got = call(answer, predicted.clone(), wanted.clone(), unknown.clone())
    expect_tensor(got, "a tensor of one number")
    expect(got.numel() == 1, f"You return shape {tuple(got.shape)}, expected the mean over batch, channels and cells.")
    squares = (wanted - predicted).square()
    cells = torch.nn.functional.adaptive_max_pool2d(unknown, (6, 8))
    known = 1 - cells

    def like(other) -> bool:
        return math.isclose(float(got), float(other), rel_tol=1e-4)

    expect(
        not like(squares.mean()),
        "You count all cells alike: what lies in the target's hole would be learnt from whatever stands there.",
    )
    expect(not like((cells * squares).mean()), "You count the hole and leave out what is known: use 1 - unknown.")
    n = unknown.shape[-1] // 8
    unknown_share = torch.nn.functional.avg_pool2d(unknown, n)
    for other in (unknown[..., ::n, ::n], unknown[..., n // 2 :: n, n // 2 :: n], unknown_share.round()):
        expect(
            not like(((1 - other) * squares).mean()),
            "You count cells of which a part is unknown: a cell is known only if all its pixels are (max-pooling).",
        )
    expect(
        not like(((1 - unknown_share) * squares).mean()),
        "You weigh cells by the share of known pixels, expected 0 as soon as one pixel is unknown.",
    )
    expect(
        not like((known * squares).sum() / (known.sum() * 4)),
        "You divide by the known cells alone, expected all: otherwise a target with a large hole pulls as hard as a "
        "reference that shows everything.",
    )
    expect(not like((known * squares).sum()), "You sum, expected the mean over all numbers, C of them a cell.")
    expect(not like((known * squares).mean() * 4), "You sum over the channels, expected the mean over all numbers.")
    expect(not like((known * squares.sqrt()).mean()), "You take absolute differences, expected squares.")
    by_four = torch.nn.functional.max_pool2d(unknown, 4)[..., :6, :8]
    expect(
        n == 4 or not like(((1 - by_four) * squares).mean()),
        "You take cells of 4 x 4 pixels, whatever the sizes say: expected H / h by W / w.",
    )
    expect(like((known * squares).mean()), f"You get {float(got):.4g}, expected {float((known * squares).mean()):.4g}.")


def lora_output(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    lora_alpha: float,
) -> torch.Tensor:
    """What a linear layer with a LoRA gives.

    y = x W' + bias + s (x A') B',  s = lora_alpha / rank,  ' = transposed

    Args:
        x: (..., in).
        weight, bias: of the frozen layer, (out, in) and (out,).
        a, b: A (rank, in) and B (out, rank).
        lora_alpha: scales what is added.

    Returns:
        (..., out).
    """
    scale = lora_alpha / a.shape[0]
    return x @ weight.T + bias + scale * (x @ a.T) @ b.T


def _test_lora_output(answer) -> None:
    for shape, sizes, lora_alpha in (((5, 12), (12, 9, 4), 8.0), ((2, 3, 10), (10, 14, 3), 1.5)):
        layer, x = _lora_layer(*sizes, lora_alpha), _draw(shape, 7)
        weight, bias, a, b = (part.detach() for part in layer[1:])
        with torch.no_grad():
            right = layer[0](x)
        got = call(answer, x.clone(), weight.clone(), bias.clone(), a.clone(), b.clone(), lora_alpha)
        expect_tensor(got)
        expect(
            got.shape == right.shape,
            f"For x {shape} you return shape {tuple(got.shape)}, expected {tuple(right.shape)}.",
        )
        plain, added, scale = x @ weight.T + bias, x @ a.T @ b.T, lora_alpha / sizes[2]

        def like(other, got=got) -> bool:
            return torch.allclose(got, other, rtol=1e-3, atol=1e-4)

        expect(not like(plain), "You return the frozen layer's output alone: B A is missing.")
        expect(not like(scale * added), "You return what is added alone: the frozen layer's output is missing.")
        expect(not like(plain + added), "You leave the scale out: s = lora_alpha / rank.")
        expect(
            not like(plain + lora_alpha * added),
            "You scale by lora_alpha alone, expected lora_alpha / rank; the rank is the size that A and B share.",
        )
        expect(
            not like(plain + lora_alpha / b.shape[0] * added) and not like(plain + lora_alpha / a.shape[1] * added),
            "You divide by the width of the layer, expected the rank: the size that A and B share.",
        )
        expect(not like(scale * (plain + added)), "You scale the frozen layer too: s belongs to what is added only.")
        expect(not like(plain - bias + scale * added), "You forget the frozen layer's bias.")
        expect(like(right), "Your output is not peft's: y = x W' + bias + s (x A') B'.")


def _draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def _lora_layer(inputs: int, outputs: int, rank: int, lora_alpha: float):
    """A linear layer with peft's LoRA: the layer, its weight and bias, A and B, none of them 0."""
    from peft import LoraConfig, inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):  # torch and peft fill new layers from the global generator
        model = torch.nn.Sequential(torch.nn.Linear(inputs, outputs))
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=lora_alpha, target_modules=["0"]), model)
    layer = model[0]
    parts = layer.base_layer.weight, layer.base_layer.bias, layer.lora_A.default.weight, layer.lora_B.default.weight
    with torch.no_grad():
        for k, part in enumerate(parts):
            part.copy_(_draw(tuple(part.shape), k))
    return layer.eval(), *parts


def rank_samples(points, mask: torch.Tensor) -> list[int]:
    """Samples in the order of their matches inside the hole, most first.

    Args:
        points: ``points[s][r]``, (N, 2): where sample s has matches with reference r, (x, y) in pixels; the middle of
            the top left pixel is (0.5, 0.5).
        mask: (1, 1, H, W), 1 = hole; matches in kept pixels do not count.

    Returns:
        Numbers of the samples. Matches with all references count together; equals stay in their order.
    """
    height, width = mask.shape[-2:]
    counts = []
    for row in points:
        x, y = torch.cat(list(row)).floor().long().T
        counts.append(int(mask[0, 0, y.clamp(0, height - 1), x.clamp(0, width - 1)].sum()))
    return sorted(range(len(counts)), key=lambda s: -counts[s])


def _matched(inside: int, outside: int, seed: int) -> torch.Tensor:
    """So many points in the hole (20, 4, 36, 12) of a picture of 20 x 48, and outside it."""
    generator = torch.Generator().manual_seed(seed)
    x = 22 + 12 * torch.rand(inside, generator=generator)
    y = 5 + 6 * torch.rand(inside, generator=generator)
    far = 38 + 8 * torch.rand(outside, generator=generator), 14 + 5 * torch.rand(outside, generator=generator)
    return torch.cat([torch.stack([x, y], 1), torch.stack(far, 1)])


def _test_rank_samples(answer) -> None:
    mask = masks.box((20, 48), (20, 4, 36, 12))

    def ask(points):
        given = [[p.clone() for p in row] for row in points]
        got = call(answer, given, mask.clone())
        expect(
            isinstance(got, (list, tuple, torch.Tensor)),
            f"You return a {type(got).__name__}, expected the numbers of the samples, best first.",
        )
        return [int(s) for s in got]

    def counted(*table):
        """Each entry: for each reference (inside, outside)."""
        return [[_matched(*pair, seed=10 * s + r) for r, pair in enumerate(row)] for s, row in enumerate(table)]

    points = counted(((5, 3), (2, 1)), ((1, 30), (1, 5)), ((9, 0), (6, 2)), ((3, 1), (8, 0)))  # 7, 2, 15, 11 inside
    got, totals = ask(points), [7, 2, 15, 11]
    expect(
        sorted(got) != sorted(totals), "You return the counts themselves, expected the numbers of the samples in order."
    )
    expect(sorted(got) == [0, 1, 2, 3], f"You return {got}, expected each of the 4 samples once.")
    expect(got != [1, 0, 3, 2], "You put the fewest matches first, expected the most.")
    expect(
        got != [1, 2, 0, 3] and got != [1, 2, 3, 0],
        "You count matches of the whole picture: sample 1 has 35 in kept pixels, which are the same in every sample.",
    )
    expect(got != [2, 0, 3, 1], "You count one reference only, expected the matches with all of them together.")
    expect(got == [2, 3, 0, 1], f"You return {got} for 7, 2, 15 and 11 matches in the hole, expected [2, 3, 0, 1].")
    points = counted(((6, 0), (6, 0)), ((8, 0), (0, 0)), ((5, 0), (4, 0)))  # 12, 8, 9
    expect(ask(points) == [0, 2, 1], "You take the best reference only, expected the sum over all references.")
    even = counted(((4, 0), (1, 9)), ((2, 0), (3, 0)), ((6, 2), (1, 0)), ((5, 0), (0, 3)))  # 5, 5, 7, 5
    expect(
        ask(even) == [2, 0, 1, 3],
        "Samples with equally many matches must stay in their order: sort stably, by the count alone.",
    )
    none = counted(((0, 4), (0, 0)), ((0, 0), (0, 0)), ((1, 0), (0, 2)))
    expect(ask(none) == [2, 0, 1], "A sample without any match comes last, and must not be lost.")
    rim = [[torch.tensor([[20.2, 4.3], [35.9, 11.8]])], [torch.tensor([[19.7, 8.0], [36.3, 8.0], [25.0, 12.4]])]]
    expect(
        ask(rim) == [0, 1] and ask(rim[::-1]) == [1, 0],
        "A point (x, y) lies in the pixel of column floor(x) and row floor(y): (19.7, 8.0) is in column 19, not 20.",
    )


EXERCISES = (
    Exercise("realfill.training_hole", training_hole, _test_training_hole),
    Exercise("realfill.known_loss", known_loss, _test_known_loss),
    Exercise("realfill.lora_output", lora_output, _test_lora_output),
    Exercise("realfill.rank_samples", rank_samples, _test_rank_samples),
)
