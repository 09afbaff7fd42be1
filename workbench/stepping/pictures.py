"""Pictures of a run: strips, films, curves, and the tree of its branches.

Every function takes a run or a recording alike: what has ``states``, ``recorded``, ``i`` and ``decode(i, what)``.
Nothing is computed but pictures; only recorded steps are shown. Where a recording holds no decoded picture of a step,
its latents are shown in false colours, and the title says so.
"""

import math
from pathlib import Path

import torch

from workbench import check, image, plot
from workbench.plot import Picture

WHATS = ("denoised", "latents", "noise_pred", "guidance")
"""What can be shown: pictures decoded from the predicted and the present latents; the noise prediction in false
colours; how much the prompt changes the prediction, |text - uncond|, as a heat map."""

SERIES = {
    "t": "timestep",
    "sigma": "noise level sigma",
    "guidance": "guidance scale, measured",
    "guidance_norm": "rms of text - uncond",
    "latents_norm": "rms of the latents",
    "noise_norm": "rms of noise_pred",
    "change": "rms change of denoised",
}
"""What can be plotted over the steps, and what the axis says."""

PICTURES = 64
"""Decoded pictures that a run keeps, those asked for last; of 512 x 512 pixels each takes 3 MiB."""
FALSE_COLOURS = " (false colours)"
SMALLEST = 128
"""Films and strips of latents are enlarged, each number a square, until a side has at least so many pixels."""


class Pictured:
    """What a run and a recording show of themselves; each method is the function of this module by its name."""

    def strip(self, what: str = "denoised", steps: int = 6) -> Picture:
        """Some steps side by side, see `pictures.strip`."""
        return strip(self, what, steps)

    def film(self, file, what: str = "denoised", seconds: float = 3) -> Path:
        """An animated GIF of all recorded steps, see `pictures.film`."""
        return film(self, file, what, seconds)

    def plot(self, name: str = "guidance_norm") -> Picture:
        """A curve over the steps, one of `pictures.SERIES`, with the breakpoints marked; see `pictures.plot_series`."""
        return plot_series(self, name)

    def draw_tree(self) -> Picture:
        """The tree of runs this one belongs to, see `pictures.tree_picture`."""
        return tree_picture(self)


def strip(run, what: str = "denoised", steps: int = 6) -> plot.Picture:
    """Some steps of a run side by side, chosen evenly from first to last.

    Args:
        run: a run or a recording.
        what: one of `WHATS`.
        steps: how many at most.

    Returns:
        A figure; each title tells i and t.

    Raises:
        ValueError: nothing of the kind is recorded yet.
    """
    chosen = _chosen(run, what, steps)
    states, pictures = run.states, [_picture(run, i, what) for i in chosen]
    figure, axes = _rows(1, pictures[0][0].shape[-2:], len(chosen))
    for ax, i, (picture, note) in zip(axes[0], chosen, pictures, strict=True):
        plot.show_image(picture, _title(states[i]) + note, ax)
    return figure


def compare_strip(a, b, what: str = "denoised", steps: int = 6) -> plot.Picture:
    """Two runs above each other, and how much they differ.

    Args:
        a, b: runs or recordings whose pictures have one size.
        what: one of `WHATS`.
        steps: how many at most, chosen evenly among those both have.

    Returns:
        A figure of three rows: a, b, and |a - b| (root mean square over the channels), all on one scale of colours.

    Raises:
        ValueError: nothing of the kind is recorded in both, or the pictures differ in size.
    """
    last = min(a.recorded, b.recorded)
    chosen = _chosen(a, what, steps, last)
    pictures = [_same_kind(a, b, i, what) for i in chosen]
    for first, second, _ in pictures:
        check.same_size(first, second, "a's picture", "b's picture")
    apart = [plot.magnitude(first - second) for first, second, _ in pictures]
    high = max(float(difference.max()) for difference in apart)
    figure, axes = _rows(3, pictures[0][0].shape[-2:], len(chosen))
    for column, (i, (first, second, note), difference) in enumerate(zip(chosen, pictures, apart, strict=True)):
        plot.show_image(first, _title(a.states[i]) + note, axes[0][column])
        plot.show_image(second, "", axes[1][column])
        most = float(difference.max())
        told = "equal" if most == 0 else f"up to {most:.2g}"
        plot.show_image(plot.heat_map(difference, high), told, axes[2][column])
    for row, label in zip(axes, (getattr(a, "name", "a"), getattr(b, "name", "b"), "|a - b|"), strict=True):
        row[0].set_ylabel(label)
    return figure


def film(run, file, what: str = "denoised", seconds: float = 3) -> Path:
    """A run as an animated GIF.

    Args:
        run: a run or a recording.
        file: where to, ending in .gif.
        what: one of `WHATS`. Steps that a recording holds no picture of are left out.
        seconds: how long one round takes; of a long run some steps are left out, 25 pictures a second being enough.

    Returns:
        The path.

    Raises:
        NotAvailable: no step's picture is there.
        ValueError: nothing of the kind is recorded yet.
    """
    check.number(seconds, "seconds", 0.02)
    frames, missing = [], None
    for i in _chosen(run, what, max(1, int(25 * seconds))):
        try:
            frames.append(_exact_picture(run, i, what))
        except check.NotAvailable as error:
            missing = error
    if not frames and missing is not None:
        raise missing
    return image.save_film(frames, file, seconds)


def series(run, name: str) -> tuple[list[int], list[float]]:
    """A number that each step has, over the steps.

    Args:
        run: a run or a recording.
        name: one of `SERIES`: "t", "sigma", "guidance", "guidance_norm" (all as in `State`), "latents_norm",
            "noise_norm" (root mean squares), "change" (root mean square of how far denoised moved in the step).

    Returns:
        (steps, values); steps that have no such number are left out.
    """
    check.choice(name, "name", SERIES)
    points, before = [], None
    for state in run.states:
        value = _value(state, name, before)
        before = state.denoised if name == "change" else None
        if value is not None and math.isfinite(value):
            points.append((state.i, value))
    return [i for i, _ in points], [value for _, value in points]


def plot_series(run, name: str) -> plot.Picture:
    """A number over the steps; breakpoints are dashed lines, where the run stands is a thin one.

    Raises:
        ValueError: no step has such a number, as without guidance.
    """
    steps, values = series(run, name)
    if not steps:
        raise ValueError(f"no recorded step has a {name}, expected at least one. Step on, or choose another series.")
    told = getattr(run, "name", "run")
    wide = name == "sigma" and min(values) > 0 and max(values) / min(values) > 50
    figure = plot.show_curves({told: (steps, values)}, name, x_label="step", y_label=SERIES[name], log=wide)
    ax = figure.axes[0]
    for i, names in breakpoint_steps(run).items():
        ax.axvline(i, color="#d32f2f", linestyle="--", linewidth=1, label=f"break: {', '.join(names)}")
    ax.axvline(run.i, color="black", linewidth=0.6)
    ax.legend(fontsize=8)
    return figure


def breakpoint_steps(run) -> dict[int, list[str]]:
    """{i: names of the breakpoints that hold after i steps}, of the recorded steps."""
    found: dict[int, list[str]] = {}
    for state in run.states[1:] if getattr(run, "breakpoints", None) else ():
        names = [point.name for point in run.breakpoints if point.when(state)]
        if names:
            found[state.i] = names
    return found


def tree_picture(run) -> plot.Picture:
    """The tree of runs that a run belongs to, time to the right.

    Each branch leaves its parent at its step and is labelled with what was changed. What is recorded is a thick line,
    what is yet to come a thin one; the run itself is coloured, and a dot marks where it stands.
    """
    rows = _lineage(run)
    ends = [max(node.total or 0, node.recorded, 1) for node, _ in rows]
    figure = plot.Picture(figsize=(9, 0.7 + 0.5 * len(rows)), layout="constrained")
    ax = figure.subplots()
    for row, ((node, parent), end) in enumerate(zip(rows, ends, strict=True)):
        here = node is run
        colour = "#1976d2" if here else "#757575"
        start = 0 if parent is None else node.at
        if parent is not None:
            ax.plot([start, start], [parent, row], color="#bdbdbd", linewidth=1.2, zorder=1)
        if node.i < start:  # it looks at steps it shares with its parent
            ax.plot([node.i, start], [row, row], ":", color=colour, linewidth=1.2, zorder=2)
        ax.plot([start, end], [row, row], color=colour, alpha=0.35, linewidth=1.2, zorder=2)
        ax.plot([start, max(node.recorded, start)], [row, row], color=colour, linewidth=4 if here else 2.5, zorder=3)
        ax.plot([node.i], [row], "o", color=colour, markersize=9 if here else 5, zorder=4)
        weight = "bold" if here else "normal"
        ax.annotate(branch_label(node), (start, row), (3, 6), textcoords="offset points", fontsize=9, weight=weight)
    ax.set_ylim(len(rows) - 0.6, -0.8)
    ax.set_xlim(-0.02 * max(ends), 1.02 * max(ends))
    ax.set_yticks([])
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.spines[["left", "top", "right"]].set_visible(False)
    return figure


def branch_label(run) -> str:
    """A run's name and what was changed when it branched off, in a few words."""
    name = getattr(run, "name", "run")
    if getattr(run, "parent", None) is None:
        return name
    return f"{name}: {', '.join(f'{k}={_short(v)}' for k, v in run.changes.items()) or 'unchanged'}"


def _lineage(run) -> list[tuple]:
    """All runs of the tree with the row of their parents, in the order of `Timeline.tree`."""
    rows: list[tuple] = []

    def walk(node, parent: int | None) -> None:
        rows.append((node, parent))
        row = len(rows) - 1
        for branch in getattr(node, "branches", ()):
            walk(branch, row)

    walk(run.root() if hasattr(run, "root") else run, None)
    return rows


def _short(value) -> str:
    told = repr(value) if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__
    return told if len(told) <= 40 else f"{told[:37]}..."


def _value(state, name: str, before: torch.Tensor | None) -> float | None:
    """One number of a state; ``before`` is what was denoised a step earlier."""
    if name == "latents_norm":
        return _rms(state.latents)
    if name == "noise_norm":
        return _rms(state.noise_pred)
    if name == "change":
        return None if before is None or state.denoised is None else _rms(state.denoised.float() - before.float())
    return getattr(state, name)


def _rms(values: torch.Tensor | None) -> float | None:
    return None if values is None else float(values.float().square().mean().sqrt())


def _chosen(run, what: str, steps: int, last: int | None = None) -> list[int]:
    """Up to so many steps, evenly from the first that has such a thing to the last recorded."""
    check.choice(what, "what", WHATS)
    check.integer(steps, "steps", 1)
    first, last = int(what != "latents"), run.recorded if last is None else last
    if last < first:
        raise ValueError(f"no step is recorded, expected at least one to show {what} of. Call run.step() first.")
    if what == "guidance" and guidance_gap(run.states[last]) is None:
        raise ValueError("the run has no guidance: nothing to show. Its guidance_scale is 1, or it takes none.")
    if steps == 1:
        return [last]
    count = min(steps, last - first + 1)
    return sorted({first + round(k * (last - first) / max(1, count - 1)) for k in range(count)})


def guidance_gap(state) -> torch.Tensor | None:
    """text - uncond, like noise_pred; None without guidance."""
    if state.noise_pred_text is None:
        return None
    return state.noise_pred_text.float() - state.noise_pred_uncond.float()


def _picture(run, i: int, what: str) -> tuple[torch.Tensor, str]:
    """(1, 3, H, W) of a step, and what its title must add."""
    try:
        return _exact_picture(run, i, what), ""
    except check.NotAvailable:
        state = run.states[i]
        if what == "guidance":
            return _enlarged(plot.heat_map(torch.zeros_like(plot.magnitude(state.latents)))), " (unguided)"
        return _enlarged(plot.false_colours(getattr(state, what))), FALSE_COLOURS


def _same_kind(a, b, i: int, what: str) -> tuple[torch.Tensor, torch.Tensor, str]:
    """A step of both runs, both decoded or both in false colours of one scale."""
    try:
        if what in ("denoised", "latents"):
            return _exact_picture(a, i, what), _exact_picture(b, i, what), ""
    except check.NotAvailable:
        pass
    values = [guidance_gap(r.states[i]) if what == "guidance" else getattr(r.states[i], what) for r in (a, b)]
    if any(v is None for v in values):
        raise ValueError(f"one of the runs has no {what} after step {i}, expected both to have it.")
    first, second = (_enlarged(plot.false_colours(v, _rms(values[0]))) for v in values)
    return first, second, FALSE_COLOURS if what in ("denoised", "latents") else ""


def _exact_picture(run, i: int, what: str) -> torch.Tensor:
    if what in ("denoised", "latents"):
        return run.decode(i, what)[:1].float().clamp(0, 1)
    state = run.states[i]
    if what == "noise_pred":
        return _enlarged(plot.false_colours(state.noise_pred))
    gap = guidance_gap(state)
    if gap is None:
        raise check.NotAvailable(f"step {i} was not guided: there is no |text - uncond| to show.")
    return _enlarged(plot.heat_map(plot.magnitude(gap)))


def _enlarged(picture: torch.Tensor) -> torch.Tensor:
    """Each pixel a square of pixels, until the picture is large enough to look at."""
    factor = max(1, math.ceil(SMALLEST / max(picture.shape[-2:])))
    return picture.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _title(state) -> str:
    return f"{state.i}" if state.t is None else f"{state.i} · t {state.t:g}"


def _rows(rows: int, shape, columns: int):
    """A figure of so many rows and columns of pictures of this shape (H, W), at most 11 inches wide."""
    height, width = shape
    side = min(1.9, 11 / columns) if width >= height else min(1.9, 11 / columns) * width / height
    size = (columns * side + 0.3, rows * (side * height / width + 0.28))
    figure = plot.Picture(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
