"""What the match view tells the web page: its looks, and the keys of its pictures."""

import ipywidgets

from workbench.widgets import looks

ROOT = "workbench-match-view"
KEYS = ("ArrowLeft", "ArrowRight", "Escape")
_LOOKS = """
.ROOT .workbench-threshold { width: 240px; }
.ROOT .workbench-most { width: 70px; }
.ROOT .workbench-told .widget-html-content { font-size: 13px; line-height: 1.5; font-variant-numeric: tabular-nums; }
.ROOT .workbench-told b { font-weight: 600; }
.ROOT .workbench-told span { color: var(--jp-ui-font-color2, #555); margin-right: 12px; white-space: nowrap; }
.ROOT .workbench-told span.off { color: #d32f2f; font-weight: 600; }
.ROOT .workbench-told span.asked::before, .ROOT .workbench-told span.found::before,
.ROOT .workbench-told span.true::before { content: ""; display: inline-block; width: 9px; height: 9px;
  border-radius: 50%; border: 2px solid; margin-right: 5px; vertical-align: -1px; background: #555; }
.ROOT .workbench-told span.asked::before { border-color: #40c4ff; }
.ROOT .workbench-told span.found::before { border-color: #ffeb3b; }
.ROOT .workbench-told span.true::before { border-color: #69f0ae; }
.ROOT .workbench-bar .widget-toggle-button { width: auto; margin: 0; }
"""


def looks_and_script() -> ipywidgets.HTML:
    """An invisible part of the view that carries its style sheet and its script."""
    return looks.looks_and_script(ROOT, looks.POINTED + _LOOKS, looks.keys_script("workbench-stage", KEYS))
