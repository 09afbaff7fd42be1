"""The methods, one room each, and the door to all of them: `inpaint`.

A method is a generator function ``fill(image, mask, *, seed, ...)`` that gets one picture with a hole and
yields a `Step` each time there is something to see; the last step holds the full-size result. It may paint
over kept pixels: `inpaint` puts them back, and hides the seam.
"""

import importlib
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import torch
from tqdm.auto import tqdm

from workbench import check, data, seams
from workbench import image as pictures
from workbench import mask as masks
from workbench.methods.result import Result, Step

_METHODS = {  # name: (module, its fill function, the bundled model it takes unless told)
    "mean": ("classical", "fill_mean", None),
    "biharmonic": ("classical", "fill_biharmonic", None),
    "patchmatch": ("patchmatch", "fill", None),
    "context_encoder": ("context_encoder", "fill", "tiny-context-encoder"),
    "neural_patch": ("neural_patch", "fill", "tiny-classifier"),
    "spl": ("spl", "fill", "tiny-spl"),
    "diffusion": ("diffusion", "fill", "tiny-inpaint"),
    "realfill": ("realfill", "fill", "tiny-inpaint"),
    "mimicbrush": ("mimicbrush", "fill", "tiny-mimicbrush"),
}
_ROOMS = ("diffumatting",)
"""Methods that fill no hole: rooms like the others, which `inpaint` does not know."""
_KEEP_ALL_STEPS = 2_000_000
"""Pixels up to which every step is kept; larger pictures keep the last one."""


def list_methods() -> list[str]:
    """Names that `inpaint` takes as ``method`` on this machine: a method whose weights are not here is left out.

    Example:
        >>> list_methods()
        ['mean', 'biharmonic', 'patchmatch', 'context_encoder', ...]
    """
    return [name for name, (_, _, model) in _METHODS.items() if model is None or (data.MODELS / model).is_dir()]


def inpaint(
    image: torch.Tensor,
    mask: torch.Tensor,
    method: str = "patchmatch",
    *,
    seed: int = 0,
    feather: float = 0,
    seamless: bool | None = None,
    progress: bool = True,
    callback: Callable[[Step], None] | None = None,
    **params,
) -> Result:
    """Fills the hole of a picture.

    result = image (1 - m) + (raw + v) m, v the smooth shift of `seams.seamless`: 0 for methods that leave known pixels
    as they are. Or without v, m the mask or its feathered form. Interrupting the cell (KeyboardInterrupt) returns what
    there is so far, marked ``interrupted``.

    Args:
        image: (B, 3, H, W), RGB in [0, 1]. It is not modified, and gets no gradient. Half precision is computed, and
            comes back, as float32.
        mask: (B, 1, H, W) or (1, 1, H, W), 1 = hole = repaint. Without a hole the picture comes back as it is.
        method: one of `list_methods()`.
        seed: same seed, same picture; every picture of a batch gets the same one.
        feather: width in pixels of the blend outside the hole; 0 keeps every pixel there bit-equal.
        seamless: whether the fill's colours are shifted to meet the kept pixels; None: unless ``feather`` is given.
            With neither of the two the fill is put in as it was painted.
        progress: shows a bar once half a second has gone by (never where TQDM_DISABLE=1 is set).
        callback: called with every `Step`.
        **params: what else the method takes; see its fill function.

    Returns:
        `Result` with image, raw, steps, seconds, params.

    Raises:
        ValueError: an unknown method, shapes or ranges against the conventions, a hole that leaves nothing, or both
            ``feather`` and ``seamless``.
        TypeError: a parameter the method does not have.
        NotAvailable: the method's weights are not on this machine.

    Example:
        >>> photo = wb.load_image("coffee")
        >>> wb.inpaint(photo, wb.mask.centre((400, 600), 0.2)).save("filled.png")
    """
    image = check.image(image).detach()
    image = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
    check.mask(mask, like=image)
    check.number(feather, "feather", 0)
    if seamless and feather:
        raise ValueError(f"feather is {feather} and seamless is True, expected one of them: both hide the same seam.")
    seamless = feather == 0 if seamless is None else bool(seamless)
    check.seed(seed)
    fill = _fill_function(method, params)
    mask = mask.to(image).expand(image.shape[0], -1, -1, -1)  # (B, 1, H, W)
    keep_all = image.shape[-2] * image.shape[-1] <= _KEEP_ALL_STEPS

    start, raw, steps, interrupted = time.perf_counter(), image.clone(), [], False
    items = [i for i in range(image.shape[0]) if mask[i].any()]
    quiet = not progress or os.environ.get("TQDM_DISABLE") == "1"  # tqdm's notebook bar does not read it
    bar = tqdm(total=1, desc=method, delay=0.5, leave=False, disable=quiet)
    try:
        for item, step in _run(fill, image, mask, items, seed, params):
            x0, y0, x1, y1 = step.box or (0, 0, image.shape[-1], image.shape[-2])
            raw[item, :, y0:y1, x0:x1] = pictures.resize(step.image, (y1 - y0, x1 - x0))[0]
            steps = [*steps, step] if keep_all else [step]
            bar.total, bar.n = step.total, step.i
            bar.set_postfix_str(step.label)
            if callback is not None:
                callback(step)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()

    return Result(
        image=seams.seamless(image, raw, mask) if seamless else masks.blend(image, raw, mask, feather),
        raw=raw,
        mask=mask.clone(),
        masked_image=torch.where(mask > 0.5, torch.full_like(image, 0.5), image),
        steps=steps,
        seconds=time.perf_counter() - start,
        params={"method": method, "seed": seed, "feather": feather, "seamless": seamless, **params},
        interrupted=interrupted,
    )


def _fill_function(method: str, params: dict) -> Callable[..., Iterator[Step]]:
    """Looks a method up and checks that it takes these parameters."""
    check.choice(method, "method", _METHODS)
    module, name, _ = _METHODS[method]
    fill = getattr(importlib.import_module(f"workbench.methods.{module}"), name)
    known = [n for n, p in inspect.signature(fill).parameters.items() if p.kind is p.KEYWORD_ONLY and n != "seed"]
    for param in params:
        if param not in known:
            takes = f"It takes: {', '.join(known)}." if known else "It takes none of its own."
            raise TypeError(f"method {method!r} has no parameter {param!r}. {takes}")
    return fill


def _run(fill, image, mask, items, seed, params) -> Iterator[tuple[int, Step]]:
    """Runs a method on one picture of the batch after the other, numbering the steps through."""
    for position, i in enumerate(items):
        with closing(fill(image[i : i + 1], mask[i : i + 1], seed=seed, **params)) as generator:
            for step in generator:
                if len(items) > 1:
                    label = f"picture {i + 1}: {step.label}"
                    number, total = step.i + position * step.total, step.total * len(items)
                    note = f"picture {i + 1}: {step.note}" if step.note else ""
                    step = replace(step, i=number, total=total, label=label, note=note)
                yield i, step


def __getattr__(name: str):
    if name in {*_ROOMS, *(module for module, *_ in _METHODS.values())}:
        return importlib.import_module(f"workbench.methods.{name}")
    raise AttributeError(f"module 'workbench.methods' has no attribute {name!r}")
