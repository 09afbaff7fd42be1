"""Any hole in any picture: a part with the hole in the middle is brought to the network's size, completed, put back."""

from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage

from workbench import check
from workbench.diffusion.filling import crop_box, resize_with_hole, work_size
from workbench.diffusion.models import SIZE
from workbench.image import resize
from workbench.methods.result import Step
from workbench.methods.spl.loading import load_spl
from workbench.methods.spl.networks import LEAST, MULTIPLE, SplGenerator, complete, whitened

LARGEST = 2
"""Times the network's own size that is worked at without making the part smaller."""
Box = tuple[int, int, int, int]


def fill(
    image: torch.Tensor, mask: torch.Tensor, *, variant: str = "full", context: float = 1.0, seed: int = 0
) -> Iterator[Step]:
    """SPL: a network guesses what a classifier would feel in the hole, and paints accordingly.

    Holes far from each other are filled in turn, the smallest first, which is then known. Each gets a part of the
    picture of at least 128 x 128 px; parts up to 256 px are worked on as they are, larger ones are made smaller, so a
    hole much larger than 128 px comes out soft.

    Args:
        image: picture, (1, 3, H, W) in [0, 1]; what it holds inside the hole is never looked at.
        mask: (1, 1, H, W), 1 = hole, of any shape; some pixels must be known.
        variant: "full", or an ablation's name (see `loading.VARIANTS`), the folder of a network trained likewise, or a
            checkpoint file of the released code, which then works at 256 px.
        context: room round the hole, as a share of its longer side.
        seed: not used; nothing is random.

    Yields:
        Two Steps a part: what the network is shown ("masked_image" (1, 3, h, w), hole white, "mask"), and what it
        makes of it ("completed" (1, 3, h, w), all pixels anew, "prior" (1, P, h / 8, w / 8) and "teacher_features").
        Their images show the part that is worked on (`box`); the last has the full size.

    Raises:
        NotAvailable: the variant's weights are not on this machine.
        ValueError: wrong shape or range, more than one picture, or a hole as large as the picture.

    Source: Zhang et al., IJCAI 2021, who fill pictures of 256 x 256; parts and sizes are this kit's.

    Example:
        >>> for step in fill(image, mask): print(step)
        >>> completed = step.image
    """
    if len(check.image(image)) != 1:
        raise ValueError(f"image holds {len(image)} pictures, expected one, (1, 3, H, W). Loop over the batch.")
    check.leaves_something(check.mask(mask, like=image))
    check.seed(seed)
    check.number(context, "context", 0)
    model = load_spl(variant).to(image.device)
    return _parts_in_turn(image.detach(), mask.detach(), model, context)


def _parts_in_turn(image: torch.Tensor, mask: torch.Tensor, model: SplGenerator, context: float) -> Iterator[Step]:
    """The loop of `fill`, which has checked the arguments."""
    side = SIZE * model.config.enlarge  # the released network was trained at twice the bundled one's size
    boxes = part_boxes(mask, side, context)
    if not boxes:
        yield Step(1, 1, "nothing to fill", image.clone())
        return
    picture, unknown = whitened(image, mask), mask.clone()  # as they change, part by part
    for n, box in enumerate(boxes):
        name = f"part {n + 1} of {len(boxes)}" if len(boxes) > 1 else "the part"
        x0, y0, x1, y1 = box
        area = (..., slice(y0, y1), slice(x0, x1))
        size = _size(y1 - y0, x1 - x0, side)
        known, hole = (x.clone() for x in resize_with_hole(picture[area], unknown[area], size))  # (1, 3 | 1, h, w)
        shown = whitened(known, hole)
        arrays = {"masked_image": shown, "mask": hole}
        label = f"{name}: {size[0]} x {size[1]}, the hole white"
        yield Step(2 * n + 1, 2 * len(boxes), label, picture[area].clone(), arrays, box)

        done = complete(model, known, hole)
        arrays = {**arrays, "completed": done.image, "prior": done.prior, "teacher_features": done.teacher_features}
        picture[area] = torch.where(unknown[area] > 0.5, resize(done.image, (y1 - y0, x1 - x0)), picture[area])
        unknown[area] = 0
        last = n == len(boxes) - 1
        image_, where = (picture, None) if last else (picture[area].clone(), box)
        yield Step(2 * n + 2, 2 * len(boxes), f"{name}: completed", image_, arrays, where)


def part_boxes(mask: torch.Tensor, side: int, context: float) -> list[Box]:
    """The parts of a picture to work on, (x0, y0, x1, y1), smallest first; none overlap, and no hole is cut by one.

    Args:
        mask: (1, 1, H, W), 1 = hole.
        side: least side of a part in pixels, where the picture has as many.
        context: see `diffusion.filling.crop_box`.
    """
    hole = mask[0, 0].cpu().numpy() > 0.5  # (H, W)
    covered, count = hole, -1
    while True:
        groups, found = ndimage.label(covered, np.ones((3, 3)))
        boxes = [_part_round(hole.shape, found_at, side, context) for found_at in ndimage.find_objects(groups * hole)]
        if found == count:
            return sorted(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        covered, count = hole.copy(), found
        for x0, y0, x1, y1 in boxes:
            covered[y0:y1, x0:x1] = True


def _part_round(shape: tuple[int, int], hole: tuple[slice, slice], side: int, context: float) -> Box:
    """The part for the hole pixels of some rows and columns."""
    alone = torch.zeros(1, 1, *shape)
    alone[..., hole[0], hole[1]] = 1
    return crop_box(alone, side, context)


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width to work at: as it is from 16 px to 256 px, made larger or smaller beyond."""
    if max(height, width) > LARGEST * side:
        size = work_size(height, width, side, MULTIPLE)
        return tuple(max(LEAST, min(n, 2 * LARGEST * side)) for n in size)
    return max(LEAST, height), max(LEAST, width)
