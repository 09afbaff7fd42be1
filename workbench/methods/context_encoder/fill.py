"""Any hole in any picture, by the bounding-square trick: cut out, make 128 px, predict the middle, put it back.

Read `fill` first; the functions below it come in the order in which it calls them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from workbench import check
from workbench.diffusion.models import SIZE
from workbench.image import resize
from workbench.methods.context_encoder.networks import (
    BLOCK,
    COLOUR,
    ContextEncoder,
    blank,
    load_context_encoder,
    middle,
    predict,
)
from workbench.methods.result import Step

UNIT = 14
"""A square's side is a multiple of this: hole, block and crop are as 7 : 8 : 16, and all are whole pixels then."""


@dataclass(frozen=True)
class Square:
    """The square round a hole, in the picture's pixels; it may reach beyond the picture.

    Args:
        x, y: its upper left corner.
        side: in pixels, a multiple of 14.
    """

    x: int
    y: int
    side: int

    def grown(self, by: int) -> "Square":
        """The same square with so many pixels more on every side."""
        return Square(self.x - by, self.y - by, self.side + 2 * by)

    @property
    def crop(self) -> "Square":
        """What the network is shown: 128 / 56 of the side, with the square in the middle."""
        return self.grown(self.side * 9 // UNIT)

    def inside(self, picture) -> tuple[int, int, int, int]:
        """The box (x0, y0, x1, y1) of it that lies in a picture, tensor or array (..., H, W)."""
        height, width = picture.shape[-2:]
        return max(0, self.x), max(0, self.y), min(width, self.x + self.side), min(height, self.y + self.side)


def fill(image: torch.Tensor, mask: torch.Tensor, *, variant: str = "adversarial", seed: int = 0) -> Iterator[Step]:
    """Context Encoder: a network imagines what belongs in the hole from what lies round it.

    Each hole gets its bounding square; holes whose squares touch share one. The picture is cut so that the square
    is in the middle of 128 x 128 px, where it takes the 56 px that the network does not see, mirrored where the cut
    reaches beyond the frame. Of the prediction only the hole's own pixels are taken. The smallest hole comes first,
    and is known for the next. A hole larger than 56 px is filled with an enlarged, hence soft, picture.

    Args:
        image: picture, (1, 3, H, W) in [0, 1]; what it holds inside the hole is never looked at.
        mask: (1, 1, H, W), 1 = hole, of any shape, at the frame too; some pixels must be known.
        variant: "adversarial" or "l2", the bundled networks, or the folder of one trained likewise.
        seed: not used; nothing is random.

    Yields:
        Three Steps a square: cut out ("crop" (1, 3, 128, 128) as the network sees it, "square" its x0, y0, x1, y1),
        predicted ("prediction" (1, 3, 64, 64), "completed" (1, 3, 128, 128)), pasted. Their images show the part of
        the picture that was cut (`box`); the last has the full size.

    Raises:
        NotAvailable: the variant's weights are not on this machine.
        ValueError: wrong shape or range, more than one picture, or a hole as large as the picture.

    Source: Pathak et al., CVPR 2016 (the network); Yang et al., CVPR 2017 (the bounding square). Differs in: pixels of
        the hole have no weight when the cut is resized, so that nothing of them gets into the rim.

    Example:
        >>> for step in fill(image, mask): print(step)
        >>> completed = step.image
    """
    if len(check.image(image)) != 1:
        raise ValueError(f"image holds {len(image)} pictures, expected one, (1, 3, H, W). Loop over the batch.")
    check.leaves_something(check.mask(mask, like=image))
    check.seed(seed)
    model = load_context_encoder(variant).to(image.device)
    return _squares_in_turn(image.detach(), mask.detach(), model)


def _squares_in_turn(image: torch.Tensor, mask: torch.Tensor, model: ContextEncoder) -> Iterator[Step]:
    """The loop of `fill`, which has checked the arguments."""
    squares = bounding_squares(mask)
    if not squares:
        yield Step(1, 1, "nothing to fill", image.clone())
        return
    colour = image.new_tensor(COLOUR).view(1, 3, 1, 1)
    picture, unknown = torch.where(mask > 0.5, colour, image), mask.clone()  # as they change, hole by hole
    total = 3 * len(squares)
    for n, square in enumerate(squares):
        name = f"hole {n + 1} of {len(squares)}" if len(squares) > 1 else "the hole"
        (x0, y0, x1, y1), box = square.inside(picture), square.crop.inside(picture)
        area = (..., slice(y0, y1), slice(x0, x1))
        crop = blank(cut(picture, unknown, square.crop))  # (1, 3, 128, 128)
        arrays = {"square": torch.tensor([square.x, square.y, square.x + square.side, square.y + square.side])}
        arrays["crop"] = crop
        local = (..., slice(y0 - box[1], y1 - box[1]), slice(x0 - box[0], x1 - box[0]))
        shown = _part(picture, box)
        shown[local] = colour
        label = f"{name}: its square of {square.side} px, cut out"
        yield Step(3 * n + 1, total, label, shown.clone(), arrays, box)

        block = predict(model, crop)  # (1, 3, 64, 64)
        completed = crop.clone()
        completed[..., middle(BLOCK), middle(BLOCK)] = block
        arrays = {**arrays, "prediction": block, "completed": completed}
        large = enlarge(block, square)[..., y0 - square.y : y1 - square.y, x0 - square.x : x1 - square.x]
        shown[local] = large
        yield Step(3 * n + 2, total, f"{name}: predicted", shown, arrays, box)

        picture[area] = torch.where(mask[area] > 0.5, large, picture[area])
        unknown[area] = 0
        ended = n == len(squares) - 1
        shown, box = (picture, None) if ended else (_part(picture, box), box)
        yield Step(3 * n + 3, total, f"{name}: pasted", shown, arrays, box)


def _part(picture: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
    return picture[..., box[1] : box[3], box[0] : box[2]].clone()


def bounding_squares(mask: torch.Tensor) -> list[Square]:
    """The squares round the holes of a mask (1, 1, H, W), smallest first; no two touch each other.

    Holes whose squares would overlap or touch are taken together and get one square, until none do.
    """
    hole = mask[0, 0].cpu().numpy() > 0.5  # (H, W)
    covered, count = hole, -1
    while True:
        groups, found = ndimage.label(covered, np.ones((3, 3)))
        boxes = ndimage.find_objects(groups * hole)  # of the hole pixels of each group
        squares = [_square_round(rows, columns) for rows, columns in boxes]
        if found == count:
            return sorted(squares, key=lambda square: square.side)
        covered, count = hole.copy(), found
        for square in squares:
            x0, y0, x1, y1 = square.inside(hole)
            covered[y0:y1, x0:x1] = True


def _square_round(rows: slice, columns: slice) -> Square:
    height, width = rows.stop - rows.start, columns.stop - columns.start
    side = UNIT * -(-max(height, width) // UNIT)  # rounded up
    return Square(columns.start - (side - width) // 2, rows.start - (side - height) // 2, side)


def cut(picture: torch.Tensor, unknown: torch.Tensor, square: Square) -> torch.Tensor:
    """A square of a picture at 128 px, mirrored at the frame; each pixel is the mean of the known ones it covers.

    Args:
        picture: (1, 3, H, W) in [0, 1].
        unknown: (1, 1, H, W), 1 where the picture says nothing; where a pixel covers only such, it gets `COLOUR`.
        square: what to cut; it may reach beyond the frame, also farther than the picture is wide.

    Returns:
        (1, 3, 128, 128) in [0, 1].
    """
    height, width = picture.shape[-2:]
    rows = mirrored(square.y, square.y + square.side, height).to(picture.device)
    columns = mirrored(square.x, square.x + square.side, width).to(picture.device)
    known = 1 - unknown[..., rows, :][..., columns]  # (1, 1, side, side)
    both = torch.cat([picture[..., rows, :][..., columns] * known, known], 1)  # (1, 4, side, side)
    if square.side != SIZE:
        both = torch.nn.functional.interpolate(both, (SIZE, SIZE), mode="bilinear", antialias=True)
    colours, share = both[:, :3], both[:, 3:]  # (1, 3 | 1, 128, 128)
    colour = picture.new_tensor(COLOUR).view(1, 3, 1, 1)
    return torch.where(share > 1e-3, colours / share.clamp(min=1e-3), colour).clamp(0, 1)


def mirrored(start: int, stop: int, size: int) -> torch.Tensor:
    """Rows start ... stop - 1 of a picture with ``size`` rows that goes on beyond its frame as in a mirror.

    Example:
        >>> mirrored(-2, 5, 3).tolist()
        [2, 1, 0, 1, 2, 1, 0]
    """
    period = max(1, 2 * size - 2)
    rows = torch.arange(start, stop).remainder(period)
    return torch.where(rows < size, rows, period - rows)


def enlarge(block: torch.Tensor, square: Square) -> torch.Tensor:
    """A predicted block (1, 3, 64, 64) at the size of its square, without the rim: (1, 3, side, side) in [0, 1]."""
    rim = square.side // UNIT  # as 4 of 56
    return resize(block, (square.side + 2 * rim, square.side + 2 * rim))[..., rim:-rim, rim:-rim]
