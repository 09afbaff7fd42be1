"""What a denoising run can be watched for, and who changed what; of a recording it is asked in the same way."""

from collections.abc import Callable
from typing import Any

import torch

from workbench import check, image
from workbench import mask as masks
from workbench.stepping.timeline import Watch


class Watched:
    """A run or a recording: has ``i``, ``watches`` and ``decode(i, what)``."""

    def watch(self, what: str | Callable[[Any, Any], str | None], **settings) -> Watch:
        """Sets a watchpoint: the run stops after a step in which something happened.

        Args:
            what: "nan" (NaN or infinite latents or prediction), "guidance_norm" (more than ``ratio`` = 2 times that
                of the step before, or less than its inverse), "kept" (the predicted picture leaves ``image`` by
                more than ``above`` = 0.1 on average where ``mask`` is 0; both are the call's unless given), "region"
                (the predicted picture changes in ``region`` by more than ``above`` = 0.05), or a function
                ``(before, after) -> str | None``.
            **settings: see above.

        Returns:
            The watchpoint, to be taken out of ``watches`` again.
        """
        if callable(what):
            watch = Watch(getattr(what, "__name__", "watch"), what)
        else:
            watch = Watch(what, WATCHES[check.choice(what, "what", WATCHES)](self, **settings))
        self.watches.append(watch)
        return watch

    def who_changed(self, region, above: float = 0.05, what: str = "denoised") -> int | None:
        """The last step done so far that changed a region of the picture.

        Args:
            region: a box (x0, y0, x1, y1) in pixels, end excluded, or a mask (1, 1, H, W), 1 inside.
            above: the step must have changed some pixel of the region by more, in [0, 1].
            what: the picture looked at: "denoised", the predicted one, or "latents", the noisy one.

        Returns:
            i of that step, or None if none did. Of the predicted picture the first is that of step 1, so that steps 2
            to ``i`` are looked at; each is decoded once.

        Raises:
            RuntimeError: the run stands at its start, where nothing has been changed yet.
        """
        check.choice(what, "what", ("latents", "denoised"))
        check.number(above, "above", 0, 1)
        if self.i == 0:
            raise RuntimeError("the run stands at its start, expected some steps. Step or go to where you look.")
        for i in range(self.i, 1 if what == "denoised" else 0, -1):
            if changed(self.decode(i - 1, what), self.decode(i, what), region) > above:
                return i
        return None


def watch_nan(run):
    """NaN or infinite values in the prediction or the latents."""

    def finds(before, after) -> str | None:
        for name in ("noise_pred", "latents"):
            bad = ~getattr(after, name).isfinite()
            if bad.any():
                return f"{name} has {int(bad.sum())} NaN or infinite values after step {after.i}"
        return None

    return finds


def watch_guidance_norm(run, ratio: float = 2.0):
    """A guidance norm that jumps from one step to the next."""
    check.number(ratio, "ratio", 1)

    def finds(before, after) -> str | None:
        if before.guidance_norm is None or after.guidance_norm is None:
            return None
        jump = after.guidance_norm / max(before.guidance_norm, 1e-12)
        if jump > ratio or jump < 1 / ratio:
            return f"guidance_norm went from {before.guidance_norm:.3g} to {after.guidance_norm:.3g} in step {after.i}"
        return None

    return finds


def watch_kept(run, image=None, mask=None, above: float = 0.1):
    """A predicted picture that leaves the given one where nothing was to be repainted."""
    picture = _loaded(run, "image", image, "image")
    hole = _loaded(run, "mask_image", mask, "mask")
    check.number(above, "above", 0, 1)

    def finds(before, after) -> str | None:
        predicted = after.preview
        check.same_size(picture, predicted, "image", "the predicted picture")
        kept = (1 - hole).expand(len(predicted), 1, *hole.shape[-2:])
        off = ((predicted - picture).abs() * kept).sum((1, 2, 3)) / (3 * kept.sum((1, 2, 3))).clamp(min=1)  # (B,)
        error = float(off.max())
        return f"the kept area is off by {error:.3f} on average after step {after.i}" if error > above else None

    return finds


def _loaded(run, argument: str, given, name: str) -> torch.Tensor:
    """A picture or mask that was given, or the call's own."""
    value = run.arguments.get(argument) if given is None else given
    if value is None:
        raise ValueError(f"{name} is missing: the call has no {argument}, so watch('kept') needs {name}=...")
    if not isinstance(value, torch.Tensor):
        value = masks.load_mask(value) if name == "mask" else image.load_image(value)
    return check.mask(value) if name == "mask" else check.image(value)


def watch_region(run, region=None, above: float = 0.05):
    """A predicted picture that changes in a region."""
    if region is None:
        raise ValueError("region is missing: expected a box (x0, y0, x1, y1) in pixels, or a mask (1, 1, H, W).")
    check.number(above, "above", 0, 1)

    def finds(before, after) -> str | None:
        if before.i == 0:
            return None
        change = changed(before.preview, after.preview, region)
        return f"the region changed by {change:.3f} in step {after.i}" if change > above else None

    return finds


WATCHES = {"nan": watch_nan, "guidance_norm": watch_guidance_norm, "kept": watch_kept, "region": watch_region}


def changed(before: torch.Tensor, after: torch.Tensor, region) -> float:
    """The largest change of a pixel in a region, from one picture to another."""
    return float(((after - before).abs() * region_mask(region, after.shape[-2:])).max())


def region_mask(region, size: tuple[int, int]) -> torch.Tensor:
    """A box (x0, y0, x1, y1) in pixels, or a mask, as a mask (1, 1, H, W), 1 inside.

    Raises:
        ValueError: a mask of another size, a box that holds no pixel.
    """
    if not isinstance(region, torch.Tensor):
        inside = masks.box(size, region)
        if not inside.any():
            raise ValueError(f"region is {tuple(region)}, which holds no pixel of a picture of {tuple(size)} (H, W).")
        return inside
    if tuple(region.shape[-2:]) != tuple(size):
        raise ValueError(f"region is {tuple(region.shape[-2:])} (H, W), expected {tuple(size)}: the picture's size.")
    return check.mask(region, name="region")
