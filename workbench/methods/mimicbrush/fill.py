"""A hole of any photograph, filled with what another picture shows: a crop at the model's size, sampled, put back."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional

from workbench import check
from workbench.diffusion.filling import crop_box, resize_with_hole, work_size
from workbench.image import resize
from workbench.methods.mimicbrush.loading import NAME, load_mimicbrush
from workbench.methods.mimicbrush.model import Conditions, MimicBrush
from workbench.methods.mimicbrush.sampling import Look, sample
from workbench.methods.result import Step

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Cut:
    """The part of a source that is worked on, at the model's size.

    Args:
        box: (x0, y0, x1, y1) in the source's pixels.
        image: (1, 3, h, w); nothing of the hole shows in it.
        mask: (1, 1, h, w), 1 = hole.
        whole: (1, 3, h, w), the hole's content too: what depth is estimated from.
        inner: (x0, y0, x1, y1) in the pixels of ``image``: the box without what was padded.
    """

    box: Box
    image: torch.Tensor
    mask: torch.Tensor
    whole: torch.Tensor
    inner: Box


def fill(
    image: torch.Tensor,
    mask: torch.Tensor,
    *,
    seed: int = 0,
    reference: torch.Tensor | None = None,
    keep_shape: bool = False,
    model=NAME,
    num_inference_steps: int = 20,
    guidance_scale: float = 3.0,
    context: float = 0.5,
    attend: bool = True,
    preview_every: int = 5,
) -> Iterator[Step]:
    """MimicBrush: what belongs into the hole is found in a reference picture and redrawn under the source's conditions.

    Nothing says where in the reference to look. Where the thing wanted is small in it, or there are several like it,
    crop the reference first; the bundled model wants things about as large there as in the crop round the hole. Large
    photographs are cropped round the hole, so that the part, not the whole, has the model's size; a larger ``context``
    shows more and is coarser.

    Args:
        image: source, (1, 3, H, W) in [0, 1], any size.
        mask: (1, 1, H, W), 1 = hole.
        seed: of the noise.
        reference: the picture to imitate, (1, 3, H', W') in [0, 1], any size.
        keep_shape: True keeps the shapes that the source has in the hole (texture transfer): their depth is looked at.
            False does not look at what the hole holds.
        model: a `MimicBrush`, or the name or folder of one.
        num_inference_steps, guidance_scale: see `sample`. The paper takes 50 and 5, small models are better with less.
        context: room round the hole, as a share of its longer side.
        attend: False leaves the reference U-Net out: image tokens alone, a baseline.
        preview_every: a step to look at every so many; the last always.

    Yields:
        `Step` with arrays: what the model was shown ("masked_image", "mask", "reference", "depth_map"); its input
        channels ("latents", "mask_latents", "background", "depth_latents"); what it predicted ("noise_pred", and before
        guidance "noise_pred_uncond", "noise_pred_reference"), and "denoised".

    Raises:
        ValueError: no reference, no pixel is kept, shapes or ranges.
        NotAvailable: the model is not on this machine.

    Source: Chen et al., 2024 (MimicBrush). Differs in: a crop round the hole in place of the whole picture; the
        background's latents are the posterior's mean.

    Example:
        >>> *_, last = fill(source, mask, reference=photo)
    """
    check.leaves_something(mask)
    if reference is None:
        raise ValueError("reference is missing, expected the picture to imitate, (1, 3, H, W): reference=photo.")
    if len(check.image(reference, "reference")) != 1:
        raise ValueError(f"reference holds {len(reference)} pictures, expected one, (1, 3, H, W).")
    check.integer(preview_every, "preview_every", 1)
    check.integer(num_inference_steps, "num_inference_steps", 1)
    model = model if isinstance(model, MimicBrush) else _loaded(str(model))
    cut, shown = cut_out(model, image, mask, context), fit_reference(model, reference)
    given = model.conditions(cut.image, cut.mask, shown, bool(keep_shape), depth_of=cut.whole)
    looks = sample(
        model, given, seed=seed, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, attend=attend
    )
    panels = _panels(model, cut, shown, given)
    total = math.ceil(num_inference_steps / preview_every)
    for look in looks:
        if look.i % preview_every == 0 or look.i == look.total:
            yield _step(model, cut, look, panels, preview_every, total)


def cut_out(model: MimicBrush, image: torch.Tensor, mask: torch.Tensor, context: float = 0.5) -> Cut:
    """The part round the hole at the model's size; a square padded with white where the model wants squares."""
    box = x0, y0, x1, y1 = crop_box(mask, model.side, context)
    part, hole = image[..., y0:y1, x0:x1], mask[..., y0:y1, x0:x1]
    height, width = part.shape[-2:]
    left = top = 0
    if model.config.square:
        part, (left, top) = squared(part, 1.0)
        hole, _ = squared(hole, 0.0)
    size = work_size(*part.shape[-2:], model.side, model.multiple)
    rows, columns = (n / m for n, m in zip(size, part.shape[-2:], strict=True))
    inner = (round(left * columns), round(top * rows), round((left + width) * columns), round((top + height) * rows))
    known, small = resize_with_hole(part, hole, size)
    return Cut(box, known, small, resize(part, size), inner)


def fit_reference(model: MimicBrush, reference: torch.Tensor) -> torch.Tensor:
    """The reference with as many pixels as the model was trained with, (1, 3, h, w); its proportions stay."""
    if model.config.square:
        reference, _ = squared(reference, 1.0)
    return resize(reference, work_size(*reference.shape[-2:], model.side, model.multiple))


def squared(picture: torch.Tensor, value: float) -> tuple[torch.Tensor, tuple[int, int]]:
    """A picture (1, C, H, W) in the middle of a square of one value, and where it begins, (left, top)."""
    height, width = picture.shape[-2:]
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return functional.pad(picture, (left, side - width - left, top, side - height - top), value=value), (left, top)


def _panels(model: MimicBrush, cut: Cut, reference: torch.Tensor, given: Conditions) -> dict[str, torch.Tensor]:
    """What stays the same in all steps."""
    return {
        "masked_image": (model.masked(cut.image, cut.mask) + 1) / 2,
        "mask": cut.mask,
        "reference": reference,
        "depth_map": given.depth_map,
        "mask_latents": given.mask,
        "background": given.background,
        "depth_latents": given.depth,
    }


def _step(model: MimicBrush, cut: Cut, look: Look, panels: dict, every: int, total: int) -> Step:
    """A look as a step; in the last the result is seen, before it what is expected."""
    last = look.i == look.total
    x0, y0, x1, y1 = cut.inner
    picture = model.decode(look.latents if last else look.denoised)[..., y0:y1, x0:x1].to(cut.image)
    arrays = {**panels, "latents": look.latents, "noise_pred": look.noise_pred}
    arrays |= {"noise_pred_reference": look.noise_pred_reference, "denoised": look.denoised}
    if look.noise_pred_uncond is not None:
        arrays["noise_pred_uncond"] = look.noise_pred_uncond
    return Step(
        math.ceil(look.i / every), total, f"step {look.i} of {look.total}, t = {look.t}", picture, arrays, cut.box
    )


@functools.lru_cache(maxsize=1)
def _loaded(name: str) -> MimicBrush:
    """The model last asked for by name."""
    return load_mimicbrush(name)
