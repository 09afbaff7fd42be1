"""How well a result imitates, what it has to beat, and texture transfer with its truth.

Baselines without code of their own: image tokens alone, ``fill(..., attend=False)``; the reference bent onto the source
by matches, `wb.methods.realfill.warp`; patches of the reference, `side_by_side` and ``wb.inpaint(..., "patchmatch")``.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from workbench import check, metrics
from workbench import mask as masks
from workbench.diffusion.classifier import Classifier, load_classifier
from workbench.image import resize

REGION_SIDE = 128
"""Pixels a side that regions are compared at."""


def side_by_side(
    image: torch.Tensor, mask: torch.Tensor, reference: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Source and reference as one picture, for methods that know one picture only.

    Args:
        image, mask: the source, (1, 3, H, W) and (1, 1, H, W).
        reference: (1, 3, H', W'); resized to the source's height.

    Returns:
        The picture (1, 3, H, W + w), the hole in it (1, 1, H, W + w), and W: the result is ``filled[..., :W]``.

    Example:
        >>> both, hole, width = side_by_side(source, mask, reference)
        >>> wb.inpaint(both, hole, "patchmatch").image[..., :width]
    """
    check.mask(mask, check.image(image))
    height, width = image.shape[-2:]
    h, w = check.image(reference, "reference").shape[-2:]
    beside = resize(reference, (height, max(1, round(w * height / h))))
    return torch.cat([image, beside], 3), functional.pad(mask, (0, beside.shape[-1])), width


@dataclass(frozen=True)
class TextureCase:
    """Texture transfer with its truth, which no photograph has: one thing with the texture of another.

    Args:
        source: (1, 3, H, W), the thing as it was.
        truth: (1, 3, H, W), the same room, lamps and camera; the thing has the other one's material.
        mask: (1, 1, H, W), 1 where the thing is.
        reference: (1, 3, h, w), what is to be imitated, cut out of its own room.
        region: (1, 1, h, w), 1 where it is.
    """

    source: torch.Tensor
    truth: torch.Tensor
    mask: torch.Tensor
    reference: torch.Tensor
    region: torch.Tensor


def texture_case(scene, thing: int | str, other, donor: int | str, size: tuple[int, int] = (128, 128)) -> TextureCase:
    """Renders a case of texture transfer: "this thing with that one's texture".

    Args:
        scene, thing: a `wb.world.Scene` and the thing in it whose texture changes, by index or word.
        other, donor: another scene and the thing in it whose material is taken.
        size: (H, W) of the pictures.

    Raises:
        ValueError: no such thing, or it is not in view.

    Example:
        >>> given = texture_case(world.make_room(3), "cube", world.make_room(4), "vase")
        >>> wb.inpaint(given.source, given.mask, "mimicbrush", reference=given.reference, keep_shape=True)
    """
    from workbench import world
    from workbench.world.scene import index_of

    before, shown = world.render(scene, size=size), world.render(other, size=size)
    where = [
        (view.ids == 1 + index_of(view.scene, name)).float()[None, None]
        for view, name in ((before, thing), (shown, donor))
    ]
    for name, part in zip((thing, donor), where, strict=True):
        if not part.any():
            raise ValueError(f"{name!r} is not in view, expected a thing that the scene's camera sees.")
    material = other.things[index_of(other, donor)].parts[0].material
    truth = world.render(world.with_texture(scene, thing, material), size=size).image
    x0, y0, x1, y1 = masks.bounding_box(where[1])
    return TextureCase(before.image, truth, where[0], shown.image[..., y0:y1, x0:x1], where[1][..., y0:y1, x0:x1])


def inner_scores(result: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Inner-ID scores: the truth is known, a frame of the same film. SSIM, PSNR (dB) and, in LPIPS's place,
    tiny_perceptual, each on the box about the hole.

    Args:
        result, truth: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.

    Raises:
        NotAvailable: the bundled classifier is not here.

    Source: Chen et al., 2024, appendix A: on the bounding box of the mask.
    """
    from workbench.diffusion import tiny_perceptual

    check.mask(mask, check.image(result, "result"))
    check.same_size(result, check.image(truth, "truth"), "result", "truth")
    x0, y0, x1, y1 = masks.bounding_box(mask)
    a, b = (resize(x[..., y0:y1, x0:x1], (REGION_SIDE, REGION_SIDE)) for x in (result, truth))
    return {
        "ssim": metrics.ssim(a, b, where="all").item(),
        "psnr": metrics.psnr(result[..., y0:y1, x0:x1], truth[..., y0:y1, x0:x1], where="all").item(),
        "tiny_perceptual": tiny_perceptual(a, b).item(),
    }


def region_similarity(
    result: torch.Tensor,
    mask: torch.Tensor,
    reference: torch.Tensor,
    region: torch.Tensor,
    classifier: Classifier | None = None,
) -> float:
    """Inter-ID score: cosine of what the classifier feels in the hole and in the region it should look like.

    Each is cut out by its bounding box, everything outside the mask white.

    Args:
        result, mask: (1, 3, H, W), (1, 1, H, W).
        reference, region: (1, 3, H', W'), (1, 1, H', W'), 1 = what should be imitated.
        classifier: None takes the bundled one.

    Returns:
        -1 to 1, 1 = alike.

    Source: Chen et al., 2024, appendix A (there DINO's and CLIP's features: `wb.metrics.dino_similarity`).
    """
    classifier = classifier or load_classifier()
    features = []
    for picture, where in ((result, mask), (reference, region)):
        check.mask(where, check.image(picture))
        x0, y0, x1, y1 = masks.bounding_box(where)
        alone = (picture * where + 1 - where)[..., y0:y1, x0:x1]
        last = f"relu{len(classifier.config.widths)}_2"
        with torch.no_grad():
            found = classifier.features(resize(alone, (REGION_SIDE, REGION_SIDE)), [last])[last]  # (1, C, h, w)
        features.append(found.mean((2, 3)))  # (1, C)
    return functional.cosine_similarity(*features).item()
