"""The panels: rows of four pictures, each under its title."""

import html

import torch
from ipywidgets import HTML, GridBox, Image, VBox

from workbench import image
from workbench.widgets.run_player.views import View

COLUMNS = 4


class Panel:
    """A title, a note, and a picture."""

    def __init__(self):
        self._caption, self._image = HTML(), Image(format="png")
        self._shown: View | None = None
        self.widget = VBox([self._caption, self._image])
        self.widget.add_class("workbench-panel")

    def show(self, view: View, ratio: float) -> None:
        """Sends what has changed; without a picture an empty one of height over width ``ratio``."""
        self._caption.value = f"<b>{html.escape(view.title)}</b> <span>{html.escape(view.note)}</span>"
        before, self._shown = self._shown, view
        if before is not None and before.picture is not None and before.picture is view.picture:
            return
        picture = view.picture
        if picture is None:
            picture = torch.full((1, 1, max(1, round(32 * ratio)), 32), 0.93)
        self._image.value = image.to_png(picture)
        _ = self._image.add_class("squares") if view.squares else self._image.remove_class("squares")


class Gallery:
    """Rows of panels under their headings; made as they are needed."""

    def __init__(self):
        self._rows: list[tuple[HTML, list[Panel], VBox]] = []
        self.widget = VBox([])
        self.widget.add_class("workbench-gallery")

    def show(self, rows: list[tuple[str, list[View]]]) -> None:
        """Shows (heading, four views) row by row."""
        while len(self._rows) < len(rows):
            heading, panels = HTML(), [Panel() for _ in range(COLUMNS)]
            heading.add_class("workbench-heading")
            grid = GridBox([panel.widget for panel in panels])
            grid.add_class("workbench-row")
            self._rows.append((heading, panels, VBox([heading, grid])))
        for (heading, panels, _row), (words, views) in zip(self._rows, rows, strict=False):
            told = html.escape(words)
            if heading.value != told:
                heading.value = told
                heading.layout.display = None if words else "none"
            shown = next((v.picture for v in views if v.picture is not None), None)
            ratio = 1.0 if shown is None else shown.shape[-2] / shown.shape[-1]
            for panel, view in zip(panels, views, strict=True):
                panel.show(view, ratio)
        wanted = tuple(row for _, _, row in self._rows[: len(rows)])
        if self.widget.children != wanted:
            self.widget.children = wanted
