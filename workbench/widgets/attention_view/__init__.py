"""The attention view. `view` is what people call; it knows a record of attention by its questions only.

`asking` turns what is chosen into questions and keeps the answers, `pictures` lays them over what was made, `film`
plays the steps; `controls` is what is pressed and read beside the picture, `page` the looks.
"""

from workbench.widgets.attention_view.view import AttentionView

__all__ = ["AttentionView"]
