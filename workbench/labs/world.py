"""Exercises of notebook 05: from depth to a point in space, and laying an object on a background."""

import math

import torch

from workbench.labs import Exercise, call, expect, expect_tensor


def unproject(x: float, y: float, depth: float, focal_length: float, size: tuple[int, int]):
    """The point in space that a pixel shows.

    X = (x - W / 2) depth / f, Y = (y - H / 2) depth / f, Z = depth

    Args:
        x, y: place in the picture, in pixels.
        depth: distance along the viewing axis, in metres.
        focal_length: f, in pixels.
        size: (H, W) of the picture; the axis goes through its middle.

    Returns:
        (X, Y, Z) in metres: X to the right, Y down, Z away from the camera.
    """
    height, width = size
    return (x - width / 2) * depth / focal_length, (y - height / 2) * depth / focal_length, depth


def _test_unproject(answer) -> None:
    arguments = (150.0, 20.0, 3.0, 120.0, (100, 200))
    got, right = call(answer, *arguments), unproject(*arguments)
    expect(
        isinstance(got, (tuple, list, torch.Tensor)) and len(got) == 3,
        f"You return a {type(got).__name__}, expected three numbers (X, Y, Z).",
    )
    got = [float(v) for v in got]

    def looks_like(*other) -> bool:
        return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) for a, b in zip(got, other, strict=True))

    x, y, depth, f, (height, width) = arguments
    expect(
        not looks_like((x - height / 2) * depth / f, (y - width / 2) * depth / f, depth),
        "You take height for width: size is (H, W), and x runs along the width.",
    )
    expect(
        not looks_like(x * depth / f, y * depth / f, depth),
        "The viewing axis goes through the middle of the picture: measure x and y from there.",
    )
    expect(
        not looks_like((x - width / 2) * f / depth, (y - height / 2) * f / depth, depth),
        "Focal length and depth are exchanged: what is farther away is larger for the same number of pixels.",
    )
    length = math.sqrt(((x - width / 2) / f) ** 2 + ((y - height / 2) / f) ** 2 + 1)
    expect(
        not looks_like(*(v / length for v in right)),
        "You take depth for the length of the ray; here it is the distance along the viewing axis, so Z = depth.",
    )
    expect(
        not looks_like(right[0], -right[1], right[2]),
        "Y points the wrong way: in pictures y runs downward, and so does Y here.",
    )
    expect(looks_like(*right), f"You get {tuple(round(v, 3) for v in got)}, expected {right}.")


def composite(foreground: torch.Tensor, alpha: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Lays an object on a background.

    result = foreground alpha + background (1 - alpha)

    Args:
        foreground: colours of the object alone, (B, 3, H, W), not multiplied by alpha.
        alpha: how much of each pixel the object covers, (B, 1, H, W) in [0, 1].
        background: (B, 3, H, W).

    Returns:
        (B, 3, H, W).
    """
    return foreground * alpha + background * (1 - alpha)


def _test_composite(answer) -> None:
    generator = torch.Generator().manual_seed(0)
    foreground, background = torch.rand(2, 2, 3, 10, 14, generator=generator)
    alpha = torch.rand(2, 1, 10, 14, generator=generator)
    alpha[..., :3, :], alpha[..., 7:, :] = 0, 1
    before = foreground.clone(), alpha.clone(), background.clone()
    got, right = call(answer, foreground, alpha, background), composite(*before)
    expect_tensor(got)
    expect(got.shape == right.shape, f"You return shape {tuple(got.shape)}, expected {tuple(right.shape)}.")
    same = all(torch.equal(a, b) for a, b in zip(before, (foreground, alpha, background), strict=True))
    expect(same, "You change what you were given; work on copies.")

    def looks_like(other) -> bool:
        return torch.allclose(got, other, atol=1e-5)

    expect(
        not looks_like(background * alpha + foreground * (1 - alpha)),
        "Object and background are exchanged: alpha 1 is foreground.",
    )
    expect(
        not looks_like(torch.where(alpha > 0.5, foreground, background)),
        "Your edge is hard: alpha between 0 and 1 mixes the two, which is what hair is made of.",
    )
    expect(
        not looks_like(foreground + background * (1 - alpha)),
        "The foreground is not multiplied by alpha yet: without that, thin hair shines.",
    )
    expect(
        not looks_like(foreground * alpha + background),
        "The background shines through the object: it counts 1 - alpha only.",
    )
    expect(
        not looks_like(foreground * alpha**2 + background * (1 - alpha**2)),
        "You multiply by alpha twice, which eats away soft edges.",
    )
    expect(looks_like(right), "The mixture is not that of the formula.")


EXERCISES = (
    Exercise("world.unproject", unproject, _test_unproject),
    Exercise("world.composite", composite, _test_composite),
)
