"""Exercises of notebook 01: turning another library's array into an image, and cutting out a box."""

import numpy as np
import torch

from workbench.labs import Exercise, call, expect, expect_tensor


def to_image(array: np.ndarray) -> torch.Tensor:
    """OpenCV's array as the workbench's image.

    Args:
        array: uint8 (H, W, 3), blue-green-red.

    Returns:
        float32 (1, 3, H, W), red-green-blue, in [0, 1].
    """
    rgb = torch.from_numpy(array[..., ::-1].copy())  # (H, W, 3)
    return rgb.permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W)


def _test_to_image(answer) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    before = array.copy()
    image = call(answer, array)
    expect_tensor(image)
    expect(
        image.shape != (3, 6, 9), "You return (3, H, W), expected (1, 3, H, W): one picture keeps its batch dimension."
    )
    expect(image.shape != (1, 6, 9, 3), "Your channels come last, expected (1, 3, H, W): permute them.")
    expect(image.shape != (1, 3, 9, 6), "Height and width are swapped, expected (1, 3, H, W).")
    expect(image.shape == (1, 3, 6, 9), f"You return shape {tuple(image.shape)}, expected (1, 3, 6, 9).")
    expect(image.dtype == torch.float32, f"Your image has dtype {image.dtype}, expected torch.float32.")
    right = to_image(array)
    expect(image.max().item() <= 1, f"Your values go up to {image.max().item():.0f}, expected [0, 1]: divide by 255.")
    expect(image.min().item() >= 0, "Your values go below 0, expected [0, 1]; [-1, 1] is for inside of models.")
    expect(not torch.allclose(image, right.flip(1)), "Red and blue are swapped: OpenCV's order is blue, green, red.")
    expect(torch.allclose(image, right), "Pixels sit in the wrong place: use permute, reshape only renames them.")
    expect(np.array_equal(array, before), "You change the array you were given; work on a copy.")


def crop(image: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
    """The part of an image inside a box.

    Args:
        image: (B, 3, H, W).
        box: whole-numbered (x0, y0, x1, y1), end excluded; what lies outside the picture is left out.

    Returns:
        A copy, (B, 3, y1 - y0, x1 - x0) for a box inside the picture.
    """
    x0, y0, x1, y1 = box
    return image[..., max(y0, 0) : y1, max(x0, 0) : x1].clone()


def _test_crop(answer) -> None:
    image = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    before = image.clone()
    part = call(answer, image, (4, 2, 15, 9))
    expect_tensor(part)
    expect(part.ndim == 4, f"You return {part.ndim} dimensions, expected (B, 3, h, w).")
    expect(
        not (part.shape[-2:] == (11, 7) or torch.equal(part, image[..., 4:15, 2:9])),
        "You cut columns for rows: in a slice the rows (y) come first.",
    )
    expect(part.shape[-2:] != (8, 12), "One row and one column too many: the end of a box is excluded.")
    expect(
        part.shape[-2:] != (9, 15) and not torch.equal(part, image[..., 2:11, 4:19]),
        "You take x1 and y1 for a width and a height: a box holds two corners.",
    )
    expect(
        part.shape == (2, 3, 7, 11), f"For box (4, 2, 15, 9) you return {tuple(part.shape)}, expected (2, 3, 7, 11)."
    )
    expect(torch.equal(part, image[..., 2:9, 4:15]), "The size is right, the place is not.")
    outside = call(answer, image, (-5, -3, 6, 4))
    expect(
        isinstance(outside, torch.Tensor) and outside.shape == (2, 3, 4, 6),
        "For a box that begins outside the picture, (-5, -3, 6, 4), the part inside should come back: a negative "
        "start counts from the end, so clip it at 0.",
    )
    part.zero_()
    expect(torch.equal(image, before), "Painting on your crop changes the photograph: return a copy.")


EXERCISES = (
    Exercise("conventions.to_image", to_image, _test_to_image),
    Exercise("conventions.crop", crop, _test_crop),
)
