"""Every figure of the workbench.

A function draws into ``ax`` and returns it where one is given, and returns a new `Picture` otherwise. Nothing
here touches pyplot, so no figure is ever shown twice or left open.
"""

import base64
import io
import math

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from workbench import check
from workbench.image import fit, resize, to_uint8

TINT = (0.90, 0.10, 0.45)
"""The colour that marks a hole, RGB."""


class Picture(Figure):
    """A figure that shows itself in a notebook, without pyplot."""

    def encode(self) -> tuple[str, bytes]:
        """The figure as (MIME type, bytes): PNG, or JPEG of high quality where PNG would bloat the notebook."""
        png = self._save("png")
        if len(png) <= 20_000:
            return "image/png", png
        jpeg = self._save("jpeg", pil_kwargs={"quality": 85, "subsampling": 0})
        return ("image/jpeg", jpeg) if len(jpeg) < len(png) else ("image/png", png)

    def pixels(self) -> torch.Tensor:
        """The figure drawn once, no more: (1, 3, H, W) in [0, 1]. `encode` draws it several times to trim its edges."""
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        drawn = torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # (H, W, 3)
        return drawn.permute(2, 0, 1)[None].float() / 255

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


def show_matches(
    image_a: torch.Tensor, image_b: torch.Tensor, points_a, points_b, values=None, title: str = "", ax=None, *,
    label: str = "confidence", colours: str = "viridis", limits=None, most: int | None = 100, strong: int | None = None,
    rings=(),
):  # fmt: skip
    """Two pictures side by side with a line for each match, coloured by a number.

    Args:
        image_a, image_b: (1, 3, H, W); sizes may differ, and are shown in proportion.
        points_a, points_b: (N, 2) as (x, y) in pixels of each; (0.5, 0.5) is the middle of the top left pixel.
        values: (N,) such as the confidence, or the error in pixels; None draws all alike. NaN is drawn in grey.
        title: above the pictures; "" tells how many matches are drawn.
        ax: where to draw; None makes a new figure.
        label: of the colour bar.
        colours: a matplotlib colour map; "RdYlGn_r" suits errors.
        limits: (low, high) of the colours; None takes those of the values.
        most: so many are drawn, evenly strewn over the list; None draws all.
        strong: number of a match drawn broad and white, on top.
        rings: (side, (x, y), colour): a ring round a point of picture "a" or "b".
    """
    page, shift = _side_by_side(check.image(image_a, "image_a"), check.image(image_b, "image_b"))
    points = [p.detach().cpu() if isinstance(p, torch.Tensor) else p for p in (points_a, points_b)]
    a, b = (check.points(p, name, 0) for p, name in zip(points, ("points_a", "points_b"), strict=True))
    if len(a) != len(b) or (values is not None and len(values) != len(a)):
        told = f"{len(a)} points of a, {len(b)} of b" + ("" if values is None else f" and {len(values)} values")
        raise ValueError(f"{told}, expected as many of each.")
    figure, ax = _axes(ax, page.shape[-2:])
    ax.imshow(to_uint8(page))
    count = len(a) if most is None else min(most, len(a))
    chosen = np.linspace(0, len(a) - 1, count).round().astype(int) if count else np.zeros(0, int)
    lines = np.stack([a[chosen], b[chosen] + (shift, 0)], 1) - 0.5  # (n, 2, 2); matplotlib counts from pixel middles
    drawn = LineCollection(lines, linewidths=1.0, alpha=0.85, color=TINT if values is None else None)
    if values is not None:
        shown = torch.as_tensor(values).detach().float().cpu().numpy()[chosen]
        drawn.set(array=np.ma.masked_invalid(shown), cmap=colormaps[colours].with_extremes(bad="0.6"))
        if limits is not None:
            drawn.set_clim(*limits)
        ax.figure.colorbar(drawn, ax=ax, fraction=0.025, pad=0.01, label=label)
    ax.add_collection(drawn, autolim=False)
    ax.plot(*lines.reshape(-1, 2).T, ".", markersize=2.5, color="white", markeredgecolor="0.2", markeredgewidth=0.3)
    if strong is not None:
        ends = np.stack([a[strong], b[strong] + (shift, 0)]) - 0.5  # (2, 2)
        for colour, width in (("black", 4), ("white", 2)):
            ax.plot(*ends.T, color=colour, linewidth=width)
    for side, (x, y), colour in rings:
        at = x + (shift if check.choice(side, "side", ("a", "b")) == "b" else 0) - 0.5, y - 0.5
        for edge, width in (("black", 3.5), (colour, 1.8)):
            ax.plot(*at, "o", markersize=9, fillstyle="none", color=edge, markeredgewidth=width)
    return _finish(figure, ax, title or (f"{len(a)} matches" + (f", {count} drawn" if count < len(a) else "")))


def _side_by_side(image_a: torch.Tensor, image_b: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Both pictures on one white page (1, 3, h, w), and how far right the second one begins."""
    shift = image_a.shape[-1] + max(4, image_a.shape[-1] // 40)
    page = torch.ones(1, 3, max(image_a.shape[-2], image_b.shape[-2]), shift + image_b.shape[-1])
    page[..., : image_a.shape[-2], : image_a.shape[-1]] = image_a[:1].detach()
    page[..., : image_b.shape[-2], shift:] = image_b[:1].detach()
    return page, shift


def cluster_colours(labels: torch.Tensor) -> torch.Tensor:
    """A map of cluster numbers as a coloured picture; the same number has the same colour in every picture.

    Args:
        labels: (h, w) whole numbers from 0 on; from 20 on colours repeat. Below 0 (no cluster) is white.

    Returns:
        (1, 3, h, w) in [0, 1].
    """
    if labels.ndim != 2 or labels.is_floating_point():
        raise ValueError(f"labels has shape {tuple(labels.shape)} and {labels.dtype}, expected whole numbers (h, w).")
    strong, pale = colormaps["tab20"].colors[::2], colormaps["tab20"].colors[1::2]
    palette = torch.tensor([*strong, *pale, (1.0, 1.0, 1.0)])  # (21, 3)
    labels = labels.cpu().long()
    return palette[torch.where(labels < 0, 20, labels % 20)].permute(2, 0, 1)[None]


def offset_colours(offsets: torch.Tensor, longest: float | None = None) -> torch.Tensor:
    """A field of offsets as a coloured picture: a tensor where `show_offsets` makes a figure.

    Args:
        offsets: (1, 2, H, W): x, y in pixels; NaN becomes white.
        longest: the length in pixels that gets full colour; None takes the longest.

    Returns:
        (1, 3, H, W) in [0, 1]: hue = direction, red to the right; strength = length.
    """
    dx, dy = offsets.detach().float()[0].cpu()  # (H, W) each
    if longest is None:
        longest = max(float(torch.hypot(dx, dy).nan_to_num(0).max()), 1e-6)
    rgb = _wheel_colours(dx.numpy(), dy.numpy(), longest)
    return torch.from_numpy(rgb).float().permute(2, 0, 1)[None]


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


def false_colours(values: torch.Tensor, scale: float | None = None, ratio: float | None = None) -> torch.Tensor:
    """Numbers of any range and any number of channels as a coloured picture; zero is mid grey.

    Each channel c of C pulls towards a hue of its own: rgb = 1/2 + M x / (2.9 scale sqrt(C)) with
    M[:, c] = 0.4 + 0.6 cos(2 pi c / C - (0, 2 pi / 3, 4 pi / 3)). What is NaN or infinite gets the colour `TINT`.

    Args:
        values: latents or a prediction, (B, C, h, w), tokens (B, N, C) or frames (B, C, F, h, w); the first item (and
            the middle frame) is shown.
        scale: root mean square that values are brought to 1 by; None takes their own.
        ratio: height over width, for tokens; None takes a square.

    Returns:
        (1, 3, h, w) in [0, 1].
    """
    field = _field(values, ratio)  # (C, h, w)
    count = len(field)
    sound = field.isfinite().all(0)  # (h, w)
    field = field.nan_to_num(0, 0, 0)
    if scale is None:
        scale = float(field[:, sound].square().mean().sqrt()) if sound.any() else 1.0
    hue = 2 * math.pi * torch.arange(count, device=field.device) / count  # (C,)
    turn = 2 * math.pi / 3 * torch.arange(3, device=field.device)[:, None]  # (3, 1)
    pull = 0.4 + 0.6 * torch.cos(hue - turn)  # (3, C)
    rgb = torch.einsum("kc,chw->khw", pull, field) / (2.9 * max(scale, 1e-12) * count**0.5) + 0.5
    tint = rgb.new_tensor(TINT)[:, None, None]
    return torch.where(sound, rgb.clamp(0, 1), tint)[None]  # (1, 3, h, w)


def magnitude(values: torch.Tensor, ratio: float | None = None) -> torch.Tensor:
    """How large values are at each place: the root mean square over the channels.

    Args:
        values, ratio: as in `false_colours`.

    Returns:
        (1, 1, h, w), at least 0.
    """
    return _field(values, ratio).square().mean(0).sqrt()[None, None]


def heat_map(values: torch.Tensor, high: float | None = None, colours: str = "magma") -> torch.Tensor:
    """A map of numbers from 0 to ``high`` as a coloured picture: a tensor where `show_map` makes a figure.

    Args:
        values: (1, 1, h, w); NaN and infinite ones become white.
        high: what gets the last colour; None takes the highest of the values.
        colours: a matplotlib colour map.

    Returns:
        (1, 3, h, w) in [0, 1].
    """
    field = values.detach().float()[0, 0].cpu()  # (h, w)
    sound = field.isfinite()
    if high is None:
        high = float(field[sound].max()) if sound.any() else 1.0
    level = (field.nan_to_num(0, 0, 0) / max(high, 1e-12)).clamp(0, 1)
    rgb = torch.from_numpy(colormaps[colours](level.numpy())[..., :3]).float().permute(2, 0, 1)  # (3, h, w)
    return torch.where(sound, rgb, torch.ones(()))[None]


def overlay_heat(image: torch.Tensor, heat: torch.Tensor, strength: float = 0.7, colours: str = "magma"):
    """A photograph under a heat map: where the map is 0 the photograph is dimmed, not hidden.

    out = (1 - strength) image + strength colour(heat)

    Args:
        image: (1, 3, H, W).
        heat: (H, W) or (1, 1, H, W), in [0, 1].
        strength: 0 (the photograph) to 1 (the map).
        colours: a matplotlib colour map.

    Returns:
        (1, 3, H, W) in [0, 1], on the CPU.
    """
    check.image(image)
    heat = check.mask(heat.detach().reshape(1, 1, *heat.shape[-2:]), image, "heat", soft=True)
    weight = check.number(strength, "strength", 0, 1)
    return (1 - weight) * image[:1].float().cpu() + weight * heat_map(heat, 1.0, colours)


def outline_hole(image: torch.Tensor, mask: torch.Tensor, width: int = 1) -> torch.Tensor:
    """The photograph with a line round its hole, drawn on the kept side: (B, 3, H, W) in [0, 1].

    Args:
        image: (B, 3, H, W).
        mask: (B, 1, H, W), hard.
        width: of the line, in pixels.
    """
    check.image(image)
    check.mask(mask, like=image)
    check.integer(width, "width", 1)
    line = torch.nn.functional.max_pool2d(mask, 2 * width + 1, 1, width) - mask  # (B, 1, H, W)
    return tint_hole(image, line.to(image), 1.0)


def contact_sheet(title: str, rows, width: int = 880) -> torch.Tensor:
    """Rows of pictures, each under its title, as one picture: a page of small pictures, drawn quickly.

    Args:
        title: above all.
        rows: (heading, pictures, columns) of each row; the heading may be "", a picture is (title, (1, 3, h, w)) or
            (title, None), and as many as ``columns`` fit into the width. Small pictures are enlarged, each pixel a
            square.
        width: in pixels.

    Returns:
        (1, 3, H, width) in [0, 1].
    """
    gap, line = 8, 13
    places, texts, y = [], [(width / 2, 14, title, 9, "center", "bold")], 26
    for heading, pictures, columns in rows:
        side = (width - (columns + 1) * gap) // columns
        if heading:
            texts.append((gap, y + 10, heading, 8, "left", "bold"))
            y += line + 3
        lines = max((name.count("\n") + 1 for name, _ in pictures), default=0)
        fitted = [None if picture is None else _to_width(picture, side) for _, picture in pictures]
        for column, (name, _) in enumerate(pictures):
            x = gap + column * (side + gap)
            texts += [(x, y + 10 + k * line, part, 7.5, "left", "normal") for k, part in enumerate(name.split("\n"))]
            if fitted[column] is not None:
                places.append((x, y + lines * line + 2, fitted[column]))
        y += lines * line + 2 + max((f.shape[-2] for f in fitted if f is not None), default=0) + gap
    page = torch.ones(3, y, width)
    for x, top, picture in places:
        page[:, top : top + picture.shape[-2], x : x + picture.shape[-1]] = picture[0]
    figure = Picture(figsize=(width / 100, y / 100), dpi=100)
    figure.figimage(page.permute(1, 2, 0).numpy(), origin="upper")
    for x, base, words, size, align, weight in texts:
        figure.text(x / width, 1 - base / y, words, fontsize=size, ha=align, va="baseline", weight=weight)
    return figure.pixels()


def _to_width(picture: torch.Tensor, width: int) -> torch.Tensor:
    """A picture as wide as asked for, at most 1.6 times as high."""
    scale = min(width / picture.shape[-1], 1.6 * width / picture.shape[-2])
    size = tuple(max(1, int(n * scale)) for n in picture.shape[-2:])
    picture = picture.detach().float().cpu()
    if scale < 1:
        return resize(picture, size)
    return torch.nn.functional.interpolate(picture, size, mode="nearest-exact")


def _field(values: torch.Tensor, ratio: float | None) -> torch.Tensor:
    """The first item of latents in any layout as (C, h, w), float32 on the CPU."""
    item = values.detach()[0].float().cpu()
    if item.ndim == 2:  # tokens (N, C)
        count = len(item)
        wanted = (count * (ratio or 1.0)) ** 0.5
        height = min((h for h in range(1, count + 1) if count % h == 0), key=lambda h: abs(math.log(h / wanted)))
        return item.T.reshape(-1, height, count // height)
    if item.ndim == 4:  # frames (C, F, h, w)
        return item[:, item.shape[1] // 2]
    if item.ndim != 3:
        shape = tuple(values.shape)
        raise ValueError(f"values has shape {shape}, expected (B, C, h, w), (B, N, C) or (B, C, F, h, w).")
    return item


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
