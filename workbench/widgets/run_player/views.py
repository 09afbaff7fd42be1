"""A state as pictures: latents, predicted picture, noise prediction, guidance; two states and what tells them apart.

Decoding is the slow part. It is done once for each step shown; where there is a hurry (playing, dragging) and decoding
cannot keep up, latents are shown in false colours, and `Views.owing` tells that something sharper can be had at rest.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch.nn.functional import interpolate

from workbench import check, image, mask, plot

SIDE = 512
"""Longest side of a picture that is sent to the page: about twice that of a panel."""
PANEL = 224
"""Side that details round the hole are enlarged to, so that lines stay thin."""
QUICK = 0.05
"""Seconds that decoding one picture may take to be done in a hurry."""
KEPT = 256 * 2**20
"""Bytes of decoded pictures kept at most."""
LATENTS, DENOISED, NOISE, GUIDANCE = "x_t: latents", "x0: predicted picture", "predicted noise", "|text - uncond|"


@dataclass(frozen=True)
class View:
    """One panel.

    Args:
        title: what it shows.
        note: how, or how much.
        picture: (1, 3, h, w) in [0, 1]; None where there is nothing to show.
        squares: whether each pixel is a number, to be shown as a square.
    """

    title: str
    note: str = ""
    picture: torch.Tensor | None = None
    squares: bool = False


class Views:
    """Makes the panels, and keeps what was decoded.

    Args:
        hole: (B, 1, H, W), hard; None: no row for the hole's edge.
        item: which picture of a batch is shown.

    Attributes:
        owing: whether the last panels lack pictures that were not decoded for want of time.
    """

    def __init__(self, hole: torch.Tensor | None = None, item: int = 0):
        self.hole, self.item = hole, item
        self.owing = False
        self._decoded: OrderedDict[tuple, tuple] = OrderedDict()
        self._seconds = 0.0  # that decoding took, of late

    def of_state(self, run, state, hurry: bool = False) -> list[View]:
        """The four panels of a state."""
        gap = self._gap(state)
        size = plot.magnitude(gap) if gap is not None else None
        noise = View(NOISE, "at step 0 there is none")
        if state.noise_pred is not None:
            noise = View(NOISE, "false colours", plot.false_colours(self._one(state.noise_pred)), True)
        guidance = View(GUIDANCE, "no guidance" if state.i else "at step 0 there is none")
        if size is not None:
            guidance = View(GUIDANCE, f"bright = {float(size.max()):.2g}", plot.heat_map(size), True)
        pictures = [self._picture(run, state, what, hurry) for what in ("latents", "denoised")]
        return [*pictures, noise, guidance]

    def of_step(self, run, state, hurry: bool = False) -> View:
        """The predicted picture of a step, under its number."""
        view = self._picture(run, state, "denoised", hurry)
        return View(f"x0 after {state.i}", "" if view.note == "decoded" else view.note, view.picture)

    def of_two(self, run, state, other, its, hurry: bool = False) -> list[View]:
        """What tells two states apart, panel by panel."""
        names = ("Δ x_t", "Δ x0", "Δ noise", "Δ guidance")
        if state.i != its.i:
            return [View(name, "not at the same step") for name in names]
        views = []
        for name, what in zip(names, ("latents", "denoised"), strict=False):
            pair = getattr(state, what), getattr(its, what)
            shown = [self.decoded(r, s.i, what, hurry) for r, s in ((run, state), (other, its)) if pair[0] is not None]
            views.append(_apart(name, *map(self._one, pair), shown))
        views.append(_apart(names[2], self._one(state.noise_pred), self._one(its.noise_pred)))
        views.append(_apart(names[3], self._gap(state), self._gap(its)))
        return views

    def of_edge(self, run, state, hurry: bool = False) -> list[View]:
        """The hole and its surroundings: before and after known latents are put back, and the predicted picture."""
        names = ("before blending", "after blending", "change by blending", "x0 at the edge")
        if state.latents_before is None:
            return [View(name, "at step 0 there is none") for name in names]
        hole = self.hole[min(self.item, len(self.hole) - 1)][None]  # (1, 1, H, W)
        box = _surroundings(hole)
        before, after = self._one(state.solved), self._one(state.latents)
        scale = float(after.float().square().mean().sqrt())
        told = "" if state.kept else "no blending in this step"
        change = plot.magnitude(after.float() - before.float(), _ratio(hole))
        pictures = [plot.false_colours(x, scale, _ratio(hole)) for x in (before, after)] + [plot.heat_map(change)]
        notes = ("false colours", told or "kept part put back", f"bright = {float(change.max()):.2g}")
        x0 = self._picture(run, state, "denoised", hurry)
        views = [View(n, t, _detail(p, hole, box)) for n, t, p in zip(names, notes, pictures, strict=False)]
        return [*views, View(names[3], x0.note, _detail(x0.picture, hole, box))]

    def decoded(self, run, i: int, what: str, hurry: bool = False) -> torch.Tensor | None:
        """A decoded picture (1, 3, H, W); None where there is none, or none to be had in a hurry (then it is owed)."""
        key = id(run), i, what, self.item
        if key in self._decoded:
            self._decoded.move_to_end(key)
            return self._decoded[key][1]
        if hurry and self._seconds > QUICK:
            self.owing = True
            return None
        started = time.monotonic()
        try:
            batch = run.decode(i, what)
        except check.NotAvailable:
            picture = None
        else:
            picture = image.fit(batch[self.item : self.item + 1].float().clamp(0, 1), SIDE)
            seconds = time.monotonic() - started
            self._seconds = seconds if self._seconds == 0 else 0.7 * self._seconds + 0.3 * seconds
        self._decoded[key] = run, picture  # the run too, for its id is to stay its own
        while sum(p.nbytes for _, p in self._decoded.values() if p is not None) > KEPT:
            self._decoded.popitem(last=False)
        return picture

    def forget(self) -> None:
        """Lets all pictures go."""
        self._decoded.clear()

    def _picture(self, run, state, what: str, hurry: bool) -> View:
        title = LATENTS if what == "latents" else DENOISED
        values = getattr(state, what)
        if values is None:
            return View(title, "at step 0 there is none")
        picture = self.decoded(run, state.i, what, hurry)
        if picture is not None:
            return View(title, "decoded", picture)
        return View(title, "false colours", plot.false_colours(self._one(values)), True)

    def _one(self, values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values[self.item : self.item + 1]

    def _gap(self, state) -> torch.Tensor | None:
        if state.noise_pred_text is None:
            return None
        return self._one(state.noise_pred_text).float() - self._one(state.noise_pred_uncond).float()


def hole_of(run, mask: torch.Tensor | None) -> torch.Tensor | None:
    """The mask given, or that of the run's call; None where there is none, or nothing of it is hole."""
    if mask is not None:
        hole = check.mask(mask)
        return hole if hole.any() else None
    hole = getattr(run, "arguments", {}).get("mask_image")
    try:
        check.mask(hole, name="mask_image")
    except (TypeError, ValueError):
        return None
    return hole if hole.any() else None


def _apart(name: str, a, b, shown: list = ()) -> View:
    """A heat map of |a - b|, of the decoded pictures in ``shown`` where there are two; equal means a and b are."""
    if a is None or b is None:
        return View(name, "none" if a is b else "one has none")
    if a.shape != b.shape:
        return View(name, f"shapes {tuple(a.shape)} and {tuple(b.shape)}")
    decoded = len(shown) == 2 and all(p is not None for p in shown) and shown[0].shape == shown[1].shape
    size = plot.magnitude(shown[0] - shown[1] if decoded else a.float() - b.float())
    note = "equal to the bit" if torch.equal(a, b) else f"bright = {float(size.max()):.2g}"
    return View(name, note, plot.heat_map(size), not decoded)


def _ratio(picture: torch.Tensor) -> float:
    return picture.shape[-2] / picture.shape[-1]


def _surroundings(hole: torch.Tensor) -> tuple[int, int, int, int]:
    """The hole's box with a margin, in the proportions of the picture as far as there is room."""
    height, width = hole.shape[-2:]
    x0, y0, x1, y1 = mask.bounding_box(hole)
    margin = max(8, (x1 - x0) // 6, (y1 - y0) // 6)
    scale = min(1.0, max((x1 - x0 + 2 * margin) / width, (y1 - y0 + 2 * margin) / height))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    left = min(max((x0 + x1 - w) // 2, 0), width - w)
    top = min(max((y0 + y1 - h) // 2, 0), height - h)
    return left, top, left + w, top + h


def _detail(picture: torch.Tensor | None, hole: torch.Tensor, box) -> torch.Tensor | None:
    """A box of a picture, enlarged, each pixel a square, with a line round the hole."""
    if picture is None:
        return None
    x0, y0, x1, y1 = box
    whole = interpolate(picture, hole.shape[-2:], mode="nearest")
    factor = max(1, round(PANEL / (x1 - x0)))
    parts = [p[..., y0:y1, x0:x1] for p in (whole, hole)]
    parts = [p.repeat_interleave(factor, -2).repeat_interleave(factor, -1) for p in parts]
    return plot.outline_hole(*parts) if parts[1].any() else parts[0]
