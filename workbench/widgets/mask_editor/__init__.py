"""The mask editor. `editor` is what people call; `document` and `gestures` are the drawing itself, without a browser.

The view: `canvas_view` puts `layers` and `sketch`es on a canvas, by the numbers of `viewport`; `pointer` turns mouse,
touch and keys into gestures; `toolbar` and `page` are what stands round the canvas.
"""

from workbench.widgets.mask_editor.editor import MaskEditor

__all__ = ["MaskEditor"]
