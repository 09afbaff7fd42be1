"""Exercises of notebook 02: a random-rectangle mask, and compositing with a feather."""

import random

import numpy as np
import torch
from scipy import ndimage

from workbench import mask as masks
from workbench.labs import Exercise, call, expect, expect_tensor


def random_mask(size: tuple[int, int], seed: int) -> torch.Tensor:
    """RealFill's training mask.

    Draw 1 to 29 rectangles whose sides are 3 % to 25 % of the picture's, no nearer than 1 % to its frame. With
    probability one half they are the holes, otherwise everything else is.

    Args:
        size: (H, W).
        seed: same seed, same mask; the global random state stays as it is.

    Returns:
        float32 (1, 1, H, W), 1 = hole.
    """
    return masks.rectangles(size, seed)


def _test_random_mask(answer) -> None:
    size = (100, 200)
    state, others = torch.random.get_rng_state(), (random.getstate(), np.random.get_state())
    first, again = call(answer, size, 1), call(answer, size, 1)
    touched = not torch.equal(torch.random.get_rng_state(), state)
    moved = random.getstate() != others[0] or np.random.get_state()[2] != others[1][2]
    moved = moved or not np.array_equal(np.random.get_state()[1], others[1][1])
    torch.random.set_rng_state(state), random.setstate(others[0]), np.random.set_state(others[1])

    expect_tensor(first)
    expect(
        first.shape == (1, 1, *size),
        f"For size (100, 200) you return shape {tuple(first.shape)}, expected (1, 1, 100, 200): height comes first.",
    )
    expect(first.dtype == torch.float32, f"Your mask has dtype {first.dtype}, expected torch.float32.")
    expect(
        set(first.unique().tolist()) <= {0, 1},
        "Your mask holds values between 0 and 1, expected a hard mask of 0 and 1.",
    )
    expect(torch.equal(first, again), "The same seed gives two different masks: draw everything from seed.")
    expect(
        not touched,
        "You change the global random state, which disturbs everybody else's. "
        "Use generator = torch.Generator().manual_seed(seed) and pass it on.",
    )
    expect(
        not moved,
        "You change the global state of random or numpy.random, which disturbs everybody else's. "
        "Use np.random.default_rng(seed), a generator of your own.",
    )
    drawn = torch.cat([call(answer, size, seed) for seed in range(150)])  # (150, 1, H, W)
    expect(len(drawn.unique(dim=0)) > 100, "Different seeds give the same mask: draw everything from seed.")
    flipped = drawn[:, 0, 0, 0] == 1  # a corner is never inside a rectangle
    expect(
        flipped.any().item(), "You only ever make holes of the rectangles; half the time everything else is the hole."
    )
    expect(not flipped.all().item(), "You only ever keep the rectangles; half the time they themselves are the holes.")
    share = flipped.float().mean().item()
    expect(0.3 < share < 0.7, f"The complement comes {share:.0%} of the time, expected about half.")
    union = torch.where(flipped[:, None, None, None], 1 - drawn, drawn)
    frame = torch.cat([union[..., 0, :], union[..., -1, :], union[..., :, 0], union[..., :, -1]], -1)
    expect(not frame.any().item(), "Some rectangles touch the frame, expected a margin of 1 % of the picture.")
    covered = union.mean().item()
    expect(
        covered > 0.12,
        f"Your rectangles cover {covered:.0%} on average, expected about 24 %: draw 1 to 29 of them, not one.",
    )
    expect(
        covered < 0.35,
        f"Your rectangles cover {covered:.0%} on average, expected about 24 %: sides are 3 % to 25 % of the picture.",
    )
    lone = union[union.mean((1, 2, 3)).argsort()[:3]]
    ratio = (lone.any(2).sum() / lone.any(3).sum()).item()
    expect(ratio > 1.1, "On a wide picture your rectangles are not wide: take the width from W and the height from H.")
    few, most = (union.mean((1, 2, 3)) < 0.08).float().mean(), (union.mean((1, 2, 3)) > 0.36).float().mean()
    expect(
        bool(few > 0.03 and most > 0.03),
        "Your masks all cover about the same: draw the number of rectangles anew for each mask, 1 to 29.",
    )
    sides = _sides(union)  # (N, 2)
    expect(
        bool((sides.min(0).values < 0.08).all() and (sides.max(0).values > 0.2).all()),
        f"Your rectangles' sides are {sides.min():.0%} to {sides.max():.0%} of the picture's, expected each drawn "
        "anew, from 3 % to 25 %.",
    )


def _sides(union: torch.Tensor) -> torch.Tensor:
    """Height and width, as shares of the picture's, of the rectangles that touch no other: (N, 2)."""
    found = []
    for each in union[:, 0].bool().numpy():
        labels, _ = ndimage.label(each, np.ones((3, 3)))
        parts = [(labels[box] > 0, box) for box in ndimage.find_objects(labels)]
        found += [[(b.stop - b.start) / n for b, n in zip(box, each.shape, strict=True)]
                  for part, box in parts if part.all()]  # fmt: skip
    return torch.tensor(found).view(-1, 2)


def feathered_composite(
    image: torch.Tensor, generated: torch.Tensor, mask: torch.Tensor, radius: float
) -> torch.Tensor:
    """Pastes the generated hole into the photograph with a soft edge.

    result = image (1 - s) + generated s, with s = wb.mask.feather(mask, radius).

    Args:
        image: the photograph (B, 3, H, W).
        generated: what the method painted, the same shape.
        mask: (B, 1, H, W), 1 = hole.
        radius: width of the feather in pixels.

    Returns:
        (B, 3, H, W): generated in the hole, the photograph beyond the feather.
    """
    soft_mask = masks.feather(mask, radius)
    return image * (1 - soft_mask) + generated * soft_mask


def _test_feathered_composite(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    image, generated = torch.rand(2, 2, 3, 24, 40, generator=generator)
    mask = torch.cat([masks.box((24, 40), (8, 6, 20, 15)), masks.ellipse((24, 40), (15, 3, 38, 20))])
    before = image.clone(), generated.clone(), mask.clone()
    result = call(answer, image, generated, mask, 4)
    expect_tensor(result)
    expect(
        result.shape == image.shape, f"You return shape {tuple(result.shape)}, expected that of image (2, 3, 24, 40)."
    )
    same = all(torch.equal(a, b) for a, b in zip(before, (image, generated, mask), strict=True))
    expect(same, "You change image, generated or mask in place; work on copies.")

    soft_mask = masks.feather(mask, 4)
    expected = image * (1 - soft_mask) + generated * soft_mask

    def close(other) -> bool:
        return torch.allclose(result, other, atol=1e-5)

    expect(
        not close(generated * (1 - soft_mask) + image * soft_mask),
        "You paste the photograph into the hole: 1 means hole, and the hole gets generated.",
    )
    expect(
        not close(torch.where(mask > 0.5, generated, image)),
        "Your edge is hard: use the feathered mask as the weight, not the mask itself.",
    )
    hole, beyond = mask.expand_as(image) == 1, (soft_mask == 0).expand_as(image)
    expect(
        torch.allclose(result[hole], generated[hole], atol=1e-5),
        "Inside the hole the old picture shines through: the feather must lie outside, all of the hole is generated.",
    )
    expect(
        torch.allclose(result[beyond], image[beyond], atol=1e-5),
        "Pixels farther than the radius from the hole have changed; there the photograph must stay.",
    )
    expect(close(expected), "The ramp is not that of wb.mask.feather(mask, radius).")
    call_zero = call(answer, image, generated, mask, 0)
    expect(
        torch.allclose(call_zero, torch.where(mask > 0.5, generated, image), atol=1e-5),
        "With radius 0 the edge should be hard: does your function use its radius?",
    )


EXERCISES = (
    Exercise("realfill.random_mask", random_mask, _test_random_mask),
    Exercise("masks.feathered_composite", feathered_composite, _test_feathered_composite),
)
