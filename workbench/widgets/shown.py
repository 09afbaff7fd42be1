"""What widgets share: how one stands in a cell and leaves a picture behind; views also, how they tell what is wrong."""

import html
import traceback
from collections.abc import Callable
from contextlib import suppress

import torch
from IPython.display import display
from ipywidgets import HTML, VBox

from workbench.widgets.parts import classed, close_all
from workbench.widgets.static_picture import StaticPicture
from workbench.widgets.timing import one_at_a_time


class InCell:
    """Base of all widgets: stands in a notebook cell, and leaves a picture there.

    Attributes:
        widget: the outermost part.
    """

    widget: VBox
    _static: StaticPicture

    def show(self) -> None:
        """Displays the widget, and a static picture for whoever opens the notebook without a kernel."""
        self._ipython_display_()

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """The widget, a picture and a line of text: a page shows the best of them it can."""
        return self._bundle() | {"image/png": self._static.png()}

    def _ipython_display_(self) -> None:
        """Shows the widget, and in an output of its own the picture for a page without a kernel."""
        display(self._bundle(), raw=True)
        self._static.show()

    def _bundle(self) -> dict:
        return dict(self.widget._repr_mimebundle_()) | {"text/plain": repr(self)}


class Shown(InCell):
    """Base of the views: a widget with a status line, and a static picture of the same state below it.

    A subclass makes ``widget``, gives `snapshot`, and calls `_changed` after each change.

    Args:
        name: what it is, as in "the attention view".

    Attributes:
        snapshot: gives the view as a picture, (1, 3, H, W) in [0, 1].
        error: what last went wrong in a button, a timer or with the mouse; None after the next success.
    """

    snapshot: Callable[[], torch.Tensor]

    def __init__(self, name: str):
        self.error: Exception | None = None
        self._kind = name
        self._closed = False
        self._status_line = classed(HTML(), "workbench-status")
        self._static = StaticPicture(name, self.snapshot, self._attempt)

    @property
    def status(self) -> str:
        """What the status line says: what went wrong, or why there is nothing to be seen; "" for nothing."""
        return self._told_status()[0]

    @one_at_a_time
    def close(self) -> None:
        """Takes the view off the page; what it looks at is left as it is."""
        if not self._closed:
            self._closed = True
            self._static.close()
            self._close()
            close_all(self.widget)

    def _close(self) -> None:
        """Ends what is under way."""

    def _note(self) -> str:
        """Why there is nothing to be seen, or what was done; "" for nothing."""
        return ""

    @one_at_a_time
    def _attempt(self, action: Callable, *arguments) -> None:
        """Does what a control, a timer or the mouse asks for; what goes wrong is told: nobody would see it raised."""
        if self._closed:
            return
        try:
            action(*arguments)
        except Exception as error:
            self.error = error
            with suppress(Exception):  # what is wrong may also be in the way of showing it
                self._recover()
            self._tell()

    def _recover(self) -> None:
        """After an error controls go back to what is shown."""

    def _need_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self._kind} is closed, make another one.")

    def _changed(self) -> None:
        """Something else is shown: the status line and the picture follow."""
        self._tell()
        self._static.follow()

    def _tell(self) -> None:
        told, kind, trace = self._told_status()
        line = f'<span class="{kind}">{html.escape(told)}</span>'
        if trace:
            line += f"<details><summary>where it happened</summary><pre>{html.escape(trace)}</pre></details>"
        self._status_line.value = line
        self._status_line.layout.display = None if told else "none"

    def _told_status(self) -> tuple[str, str, str]:
        """Words, what kind they are, and an error's traceback."""
        if self.error is not None:
            trace = "".join(traceback.format_exception(self.error))
            return str(self.error) or type(self.error).__name__, "error", trace
        return self._note(), "stop", ""
