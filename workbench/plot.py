"""Every figure of the workbench.

A function draws into ``ax`` and returns it where one is given, and returns a new `Picture` otherwise. Nothing
here touches pyplot, so no figure is ever shown twice or left open.
"""

import base64
import io
import math

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from workbench import check
from workbench.image import fit, to_uint8

TINT = (0.90, 0.10, 0.45)
"""The colour that marks a hole, RGB."""


class Picture(Figure):
    """A figure that shows itself in a notebook, without pyplot."""

    def encode(self) -> tuple[str, bytes]:
        """The figure as (MIME type, bytes): PNG, or JPEG of high quality where PNG would bloat the notebook."""
        png = self._save("png")
        if len(png) <= 40_000:
            return "image/png", png
        return "image/jpeg", self._save("jpeg", pil_kwargs={"quality": 85, "subsampling": 0})

    def _save(self, format: str, **options) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format=format, dpi=80, bbox_inches="tight", pad_inches=0.05, **options)
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        kind, data = self.encode()
        return {"text/plain": repr(self), kind: base64.b64encode(data).decode()}

    def __repr__(self) -> str:
        titles = [ax.get_title() for ax in self.axes if ax.get_title()]
        return f"Picture({', '.join(titles)})"


def tint_hole(image: torch.Tensor, mask: torch.Tensor, strength: float = 0.55) -> torch.Tensor:
    """The photograph with its hole coloured in: (B, 3, H, W) in [0, 1].

    Args:
        image: (B, 3, H, W).
        mask: (B, 1, H, W), hard or soft.
        strength: 0 (not at all) to 1 (opaque).
    """
    check.image(image)
    check.mask(mask, like=image, soft=True)
    colour = image.new_tensor(TINT).view(1, 3, 1, 1)
    weight = mask.to(image) * check.number(strength, "strength", 0, 1)
    return image * (1 - weight) + colour * weight


def show_images(images, columns: int | None = None, height: float = 2.6) -> Picture:
    """Pictures side by side, each under its name.

    Args:
        images: {title: picture} or a list of pictures; each (1, 3, H, W), or (1, 1, H, W) shown in grey.
        columns: how many a row; None puts up to four in one.
        height: of a row, in inches.
    """
    images = dict(images) if isinstance(images, dict) else {str(i): x for i, x in enumerate(images)}
    if not images:
        raise ValueError("images is empty, expected at least one picture.")
    columns = min(len(images), columns or 4)
    rows = math.ceil(len(images) / columns)
    shapes = [x.shape[-2:] for x in images.values()]
    width = height * max(w / h for h, w in shapes)
    figure = Picture(figsize=(columns * width, rows * (height + 0.3)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (title, image) in zip(axes, images.items(), strict=False):
        show_image(image, title, ax)
    for ax in axes[len(images) :]:
        ax.remove()
    return figure


def show_image(image: torch.Tensor, title: str = "", ax=None):
    """One picture, (1, 3, H, W) or (1, 1, H, W), in [0, 1]."""
    figure, ax = _axes(ax, image.shape[-2:])
    pixels = to_uint8(fit(image[:1], 1600))  # (h, w, 3) or (h, w): more than the screen shows is not drawn
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    return _finish(figure, ax, title)


def show_mask(image: torch.Tensor, mask: torch.Tensor, title: str = "", ax=None):
    """The photograph with its hole tinted; the title tells how much is hole."""
    return show_image(tint_hole(image, mask), title or f"tinted = hole ({mask.float().mean():.1%})", ax)


def show_map(values: torch.Tensor, title: str = "", ax=None, *, colours: str = "magma", limits=None):
    """A map of any numbers with its colour bar.

    Args:
        values: (1, 1, H, W) or (H, W); NaN is left white.
        title: above the map.
        ax: where to draw; None makes a new figure.
        colours: a matplotlib colour map.
        limits: (low, high) of the colours; None takes those of the values.
    """
    values = values.detach().float().reshape(values.shape[-2:]).cpu().numpy()  # (H, W)
    figure, ax = _axes(ax, values.shape)
    low, high = limits or (None, None)
    drawn = ax.imshow(values, cmap=colours, vmin=low, vmax=high)
    ax.figure.colorbar(drawn, ax=ax, fraction=0.04, pad=0.02)
    return _finish(figure, ax, title)


def show_offsets(offsets: torch.Tensor, title: str = "", ax=None, *, longest: float | None = None):
    """A field of offsets as colours: hue = direction, strength = length (a wheel in the corner tells which).

    Args:
        offsets: (1, 2, H, W): x, y in pixels; NaN is left white.
        title: above the map.
        ax: where to draw; None makes a new figure.
        longest: the length in pixels that gets full colour; None takes the longest.
    """
    dx, dy = offsets.detach().float()[0].cpu()  # (H, W) each
    figure, ax = _axes(ax, dx.shape)
    length = torch.hypot(dx, dy)
    longest = longest or max(float(length.nan_to_num(0).max()), 1e-6)
    ax.imshow(_wheel_colours(dx.numpy(), dy.numpy(), longest))
    wheel = ax.inset_axes([0.8, 0.02, 0.18, 0.18])
    y, x = np.mgrid[-1:1:65j, -1:1:65j]
    x = np.where(np.hypot(x, y) <= 1, x, np.nan)
    wheel.imshow(_wheel_colours(x, y, 1.0))
    wheel.set_axis_off()
    return _finish(figure, ax, title or f"full colour = {longest:.0f} px")


def show_curves(curves: dict, title: str = "", ax=None, *, x_label: str = "", y_label: str = "", log: bool = False):
    """Curves over the same x axis: {name: values} or {name: (x, values)}."""
    figure, ax = _axes(ax, (3, 4.5))
    for name, values in curves.items():
        x, y = values if isinstance(values, tuple) else (range(1, len(values) + 1), values)
        ax.plot(x, y, label=name, marker="." if len(y) < 40 else None)
    ax.set(xlabel=x_label, ylabel=y_label, yscale="log" if log else "linear", title=title)
    ax.grid(alpha=0.3)
    ax.legend()
    return figure or ax


def _wheel_colours(dx: np.ndarray, dy: np.ndarray, longest: float) -> np.ndarray:
    """Offsets -> RGB (H, W, 3); NaN -> white."""
    unknown = np.isnan(dx) | np.isnan(dy)
    dx, dy = np.nan_to_num(dx), np.nan_to_num(dy)
    hue = (np.arctan2(dy, dx) / (2 * np.pi)) % 1
    strength = np.clip(np.hypot(dx, dy) / longest, 0, 1)
    colours = hsv_to_rgb(np.stack([hue, strength, np.ones_like(hue) * 0.95], -1))  # (H, W, 3)
    colours[unknown] = 1
    return colours


def _axes(ax, shape):
    """The given axes, or new ones in a `Picture` of the right proportions."""
    if ax is not None:
        return None, ax
    height, width = shape
    figure = Picture(figsize=(3.2 * width / height + 0.4, 3.4), layout="constrained")
    return figure, figure.subplots()


def _finish(figure, ax, title: str):
    ax.set_title(title, fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])
    return figure or ax
