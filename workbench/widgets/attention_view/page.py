"""What the attention view tells the web page: its looks, and the keys of its picture."""

import ipywidgets

from workbench.widgets import looks

ROOT = "workbench-attention-view"
KEYS = ("ArrowLeft", "ArrowRight", " ", "Escape")
_LOOKS = """
.ROOT .workbench-body { gap: 14px; align-items: flex-start; flex-flow: row wrap; }
.ROOT .workbench-left { flex: 1 1 400px; min-width: 0; max-width: 560px; gap: 5px; }
.ROOT .workbench-side { flex: 1 1 260px; min-width: 0; }
.ROOT .workbench-tokens { flex-flow: row wrap; gap: 3px; align-items: center; }
.ROOT .workbench-tokens button.jupyter-button { border-radius: 12px; height: 25px; line-height: 23px;
  padding: 0 10px; }
.ROOT .workbench-tokens button.faint:not(.chosen) { color: var(--jp-ui-font-color2, #666); font-style: italic;
  background: transparent; border: 1px solid var(--jp-border-color2, #ccc); line-height: 21px; }
.ROOT .workbench-steps { width: 285px; }
.ROOT .workbench-layer { width: 330px; }
.ROOT .workbench-head { width: 112px; }
.ROOT .workbench-how { width: 112px; }
.ROOT .workbench-strength { width: 90px; }
.ROOT .workbench-left .workbench-scale i { width: 60px; }
.ROOT .workbench-told .widget-html-content { font-size: 13px; line-height: 1.45; }
.ROOT .workbench-told h4 { font-size: 13.5px; font-weight: 600; margin: 0 0 1px; }
.ROOT .workbench-told p { margin: 0 0 8px; color: var(--jp-ui-font-color2, #555); font-size: 12px; }
.ROOT .workbench-told table { border-collapse: collapse; width: 100%; margin: 0 0 10px; font-size: 12.5px;
  font-variant-numeric: tabular-nums; table-layout: fixed; }
.ROOT .workbench-told td { padding: 1px 4px 1px 0; text-align: left; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; border: none; background: transparent; }
.ROOT .workbench-told td:first-child { width: 42%; }
.ROOT .workbench-told td:last-child { width: 54px; text-align: right; padding-right: 0; }
.ROOT .workbench-told i { display: block; height: 9px; min-width: 1px; border-radius: 2px; background: #1976d2; }
.ROOT .workbench-told .hole i { background: #e61a73; }
.ROOT .workbench-told .other td { color: var(--jp-ui-font-color2, #777); font-style: italic; }
.ROOT .workbench-told .other i { background: #b0bec5; }
"""


def looks_and_script() -> ipywidgets.HTML:
    """An invisible part of the view that carries its style sheet and its script."""
    return looks.looks_and_script(ROOT, looks.POINTED + _LOOKS, looks.keys_script("workbench-stage", KEYS))
