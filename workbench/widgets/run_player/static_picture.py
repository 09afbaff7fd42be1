"""The picture below a player: what is left of it on a page without a kernel."""

import base64
from collections.abc import Callable

import torch
from IPython.display import display

from workbench import image
from workbench.widgets.timing import AtRest

COLOURS = 128
_METADATA = {"needs_background": "light", "image/png": {"unconfined": True}}
"""Marks it among all pictures of a notebook: JupyterLab turns it into two classes, by which it is hidden."""


class StaticPicture:
    """A second output of the cell, which JupyterLab hides while the widget above it lives; it follows the run.

    Args:
        snapshot: gives the picture, (1, 3, H, W).
        attempt: calls a function for a timer, and shows what goes wrong.
    """

    def __init__(self, snapshot: Callable[[], torch.Tensor], attempt: Callable):
        self._snapshot = snapshot
        self._handle = None
        self._update_at_rest = AtRest(self._update, 1.0, attempt)

    def png(self) -> str:
        """The picture as a PNG in base64."""
        return base64.b64encode(image.to_png(self._snapshot(), COLOURS)).decode("ascii")

    def show(self) -> None:
        """Puts it into the running cell's outputs."""
        self._handle = display(self._bundle(), raw=True, metadata=_METADATA, display_id=True)

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
        return {"image/png": self.png(), "text/plain": "(the run player as a picture)"}

    def _update(self) -> None:
        if self._handle is not None:
            self._handle.update(self._bundle(), raw=True, metadata=_METADATA)
