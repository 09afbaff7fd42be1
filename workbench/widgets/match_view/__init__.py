"""The match view. `view` is what people call; it knows matches, features and truth by what they offer only.

`lines` chooses and colours matches, `asking` asks features for a point; `controls` is what is pressed and read, `page`
the looks.
"""

from workbench.widgets.match_view.view import MatchView

__all__ = ["MatchView"]
