"""Widgets: what a notebook shows and lets be touched. Each is a thin view of something that works without a browser."""

from workbench.widgets.mask_editor import MaskEditor

__all__ = ["MaskEditor"]
