"""The run player. `player` is what people call; it knows runs by their verbs and states only.

Behind it, without a browser: `drive` moves one run or two locked together, `going` takes them to a goal a step at a
time, `views` turns a state into pictures, `tree` tells the runs of a tree and their breakpoints. In front: `time_line`
is the canvas to click on, `gallery` the panels, `controls` everything else to press and read, `page` the looks.
"""

from workbench.widgets.run_player.player import RunPlayer

__all__ = ["RunPlayer"]
