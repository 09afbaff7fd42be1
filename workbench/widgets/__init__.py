"""Widgets: what a person sees and touches in a notebook. Each works without a browser too, by its methods.

A widget knows arrays and callables only; no other room of the workbench imports this one.
"""

from workbench.widgets.mask_editor import MaskEditor
from workbench.widgets.run_player import RunPlayer
from workbench.widgets.training_monitor import TrainingMonitor

__all__ = ["MaskEditor", "RunPlayer", "TrainingMonitor"]
