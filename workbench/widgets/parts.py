"""What the controls of several widgets are made of: bars of groups of buttons and menus, and bars of colour."""

import html
from collections.abc import Callable

import torch
from ipywidgets import HTML, Button, HBox

from workbench import plot


def bar(*groups) -> HBox:
    """Groups in a row that wraps where it is too long."""
    return _row("workbench-bar", groups)


def group(*controls) -> HBox:
    """Controls that belong together, with a thin line behind the last."""
    return _row("workbench-group", controls)


def button(icon: str, tip: str, pressed: Callable[[], None], words: str = "") -> Button:
    """A button; ``pressed()`` is called without arguments and has to tell by itself what goes wrong."""
    made = Button(icon=icon, description=words, tooltip=tip)
    made.on_click(lambda _: pressed())
    return made


def words(text: str) -> HTML:
    """A word before a control."""
    label = HTML(text)
    label.add_class("workbench-words")
    return label


def classed(widget, name: str, wanted: bool = True):
    """The widget, with a class of the style sheet or without it."""
    _ = widget.add_class(name) if wanted else widget.remove_class(name)
    return widget


def css_colours(levels: torch.Tensor, colours: str) -> list[str]:
    """Numbers (N,) from 0 to 1 as colours for a page; NaN is grey."""
    rgb = plot.heat_map(levels.reshape(1, 1, 1, -1), 1.0, colours)[0, :, 0].T  # (N, 3)
    found = (rgb * 255).round().int().tolist()
    return ["#9e9e9e" if n else "rgb({}, {}, {})".format(*c) for c, n in zip(found, levels.isnan(), strict=True)]


def colour_bar(name: str, low: str, high: str, colours: str) -> str:
    """A bar that tells what colours mean, as HTML."""
    stops = ", ".join(css_colours(torch.linspace(0, 1, 9), colours))
    told = f"<b>{html.escape(name)}</b>" if name else ""
    return (
        f'<span class="workbench-scale">{told} {html.escape(low)} '
        f'<i style="background: linear-gradient(to right, {stops})"></i> {html.escape(high)}</span>'
    )


def close_all(widget) -> None:
    """Closes a widget and all it holds."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    widget.close()


def _row(name: str, children) -> HBox:
    return classed(HBox(list(children)), name)
