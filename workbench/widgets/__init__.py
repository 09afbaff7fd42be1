"""Widgets: what a person sees and touches in a notebook. Each works without a browser too, by its methods.

A widget knows arrays and callables only; no other room of the workbench imports this one. All of them share
`static_picture`, what is left of a widget without a kernel, and `timing`, when to draw.
"""

from workbench.widgets.mask_editor import MaskEditor
from workbench.widgets.run_player import RunPlayer
from workbench.widgets.training_monitor import TrainingMonitor

__all__ = ["MaskEditor", "RunPlayer", "TrainingMonitor"]
