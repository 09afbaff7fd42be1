"""Widgets: what a person sees and touches in a notebook. Each works without a browser too, by its methods.

A widget knows arrays and callables only; no other room of the workbench imports this one. All of them share
`static_picture`, what is left of a widget without a kernel, `timing`, when to draw, `looks` and `parts`, what they look
like and are made of, and `shown`, how they stand in a cell; the views also `stage`, pictures to point at.
"""

from workbench.widgets.attention_view import AttentionView
from workbench.widgets.mask_editor import MaskEditor
from workbench.widgets.match_view import MatchView
from workbench.widgets.run_player import RunPlayer
from workbench.widgets.training_monitor import TrainingMonitor

__all__ = ["AttentionView", "MaskEditor", "MatchView", "RunPlayer", "TrainingMonitor"]
