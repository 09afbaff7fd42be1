"""The picture below a widget: what is left of it on a page without a kernel."""

import base64
from collections.abc import Callable

import torch
from IPython.display import display

from workbench import image
from workbench.widgets.timing import AtRest

COLOURS = 128
"""Of the PNG: a photograph of 400 pixels takes some 50 kB in the saved notebook."""
METADATA = {"needs_background": "light", "image/png": {"unconfined": True}}
"""Marks it among all pictures of a notebook: JupyterLab turns it into two classes, by which it is hidden."""
HIDDEN = """
.jp-OutputArea-child:has(.ROOT) + .jp-OutputArea-child:has(img.jp-needs-light-background.jp-mod-unconfined) {
  display: none; }
"""
"""Style that hides it while the widget above lives; ROOT stands for the class of the widget's outermost part."""


class StaticPicture:
    """A second output of the cell, which JupyterLab hides while the widget above it lives.

    JupyterLab shows nothing else of an output once its widget is gone, so the picture needs an output of its own. It
    follows the widget: what is saved with the notebook is the last state.

    Args:
        widget: what the picture stands for, as in "the mask editor".
        snapshot: gives the picture, (1, 3, H, W).
        attempt: calls a function for a timer, and shows what goes wrong.
        side: its longest side in pixels; None leaves the size.
    """

    def __init__(self, widget: str, snapshot: Callable[[], torch.Tensor], attempt: Callable, side: int | None = None):
        self._widget, self._snapshot, self._side = widget, snapshot, side
        self._handle = None
        self._update_at_rest = AtRest(self._update, 1.0, attempt)

    def png(self) -> str:
        """The picture as a PNG in base64."""
        picture = self._snapshot()
        if self._side is not None:
            picture = image.fit(picture, self._side)
        return base64.b64encode(image.to_png(picture, COLOURS)).decode("ascii")

    def show(self) -> None:
        """Puts it into the running cell's outputs."""
        self._handle = display(self._bundle(), raw=True, metadata=METADATA, display_id=True)

    def follow(self) -> None:
        """Something changed: the picture will, once it rests."""
        if self._handle is not None:
            self._update_at_rest.request()

    def close(self) -> None:
        """Leaves the picture as it is."""
        self._update_at_rest.cancel()
        self._handle = None

    def _bundle(self) -> dict:
        """Its text never changes, so that a notebook compared with its saved outputs stays equal."""
        return {"image/png": self.png(), "text/plain": f"({self._widget} as a picture)"}

    def _update(self) -> None:
        if self._handle is not None:
            self._handle.update(self._bundle(), raw=True, metadata=METADATA)
