"""The picture below a widget: what is left of it on a page without a kernel."""

import base64
from collections.abc import Callable

import torch
from IPython.display import display

from workbench import image
from workbench.widgets.mask_editor import page
from workbench.widgets.timing import AtRest

SIDE = 400
"""Its longest side in pixels; with COLOURS some 50 kB of PNG in the saved notebook, of a photograph."""
COLOURS = 128


class StaticPicture:
    """A second output of the cell, which JupyterLab hides while the widget above it lives.

    JupyterLab shows nothing else of an output once its widget is gone, so the picture needs an output of its own. It
    follows the drawing: what is saved with the notebook is the last state.

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
        return base64.b64encode(image.to_png(image.fit(self._snapshot(), SIDE), COLOURS)).decode("ascii")

    def show(self) -> None:
        """Puts it into the running cell's outputs."""
        self._handle = display(self._bundle(), raw=True, metadata=page.STATIC_METADATA, display_id=True)

    def follow(self) -> None:
        """The drawing changed: the picture will, once it rests."""
        if self._handle is not None:
            self._update_at_rest.request()

    def close(self) -> None:
        """Leaves the picture as it is."""
        self._update_at_rest.cancel()
        self._handle = None

    def _bundle(self) -> dict:
        """Its text never changes, so that a notebook compared with its saved outputs stays equal."""
        return {"image/png": self.png(), "text/plain": "(the mask editor as a picture)"}

    def _update(self) -> None:
        self._handle.update(self._bundle(), raw=True, metadata=page.STATIC_METADATA)
