"""What the player tells the web page beside what all widgets do: its looks, and the keys of its time line."""

import ipywidgets

from workbench.widgets import looks

ROOT = "workbench-run-player"

_KEYS = ("ArrowLeft", "ArrowRight", "Home", "End", " ", "b")
_LOOKS = """
.ROOT .widget-image { margin: 0; }
.ROOT button[title^='Set or'] i { color: #d32f2f; }
.ROOT .workbench-number { width: 58px; }
.ROOT .workbench-changes { width: 262px; }
.ROOT .workbench-menu { width: 300px; }
.ROOT .workbench-time-line { width: 100%; border-radius: 4px; overflow: hidden; flex: none; }
.ROOT .workbench-time-line canvas { display: block; width: 100%; cursor: pointer; margin: 0; touch-action: none; }
.ROOT .workbench-time-line canvas:focus { outline: none; }
.ROOT .workbench-time-line:focus-within { box-shadow: 0 0 0 2px #1976d2; }
.ROOT .workbench-hint .widget-html-content { font-size: 11.5px; line-height: 1.5;
  color: var(--jp-ui-font-color2, #666); }
.ROOT .workbench-numbers .widget-html-content { line-height: 1.35; }
.ROOT .workbench-numbers table { border-collapse: collapse; margin: 0; font-size: 12.5px; width: 100%;
  font-variant-numeric: tabular-nums; table-layout: auto; }
.ROOT .workbench-numbers th { font-weight: 600; text-align: right; padding: 2px 8px; white-space: nowrap;
  color: var(--jp-ui-font-color2, #555); }
.ROOT .workbench-numbers td { text-align: right; padding: 2px 8px; white-space: nowrap; }
.ROOT .workbench-numbers tr > :first-child { text-align: left; padding-left: 2px; }
.ROOT .workbench-numbers tr:first-child th { border-bottom: 1px solid var(--jp-border-color2, #ddd); font-weight: 400; }
.ROOT .workbench-numbers td:last-child { font-family: monospace; font-size: 12px; }
.ROOT .workbench-gallery { gap: 4px; }
.ROOT .workbench-heading .widget-html-content { font-size: 12.5px; font-weight: 600; line-height: 1.5; }
.ROOT .workbench-row { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 6px 8px; width: 100%; }
.ROOT .workbench-panel { min-width: 0; gap: 1px; }
.ROOT .workbench-panel .widget-html-content { font-size: 12px; line-height: 1.5; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.ROOT .workbench-panel .widget-html-content span { color: var(--jp-ui-font-color2, #666); }
.ROOT .workbench-panel .widget-image { width: 100%; height: auto; max-height: 330px; object-fit: contain;
  border-radius: 3px; }
.ROOT .workbench-panel .squares { image-rendering: pixelated; }
"""


def looks_and_script() -> ipywidgets.HTML:
    """An invisible part of the player that carries its style sheet and its script."""
    return looks.looks_and_script(ROOT, _LOOKS, looks.keys_script("workbench-time-line", _KEYS))
