"""What all widgets tell the web page: the looks they share, and how they share keys and wheel with JupyterLab.

JupyterLab reads single letters typed over a selected cell as commands ("x" cuts the cell!), before a canvas sees them;
``data-lm-suppress-shortcuts`` is its own mark for "not here". Tab and keys with Ctrl go to the browser.
"""

import ipywidgets

from workbench.widgets.static_picture import HIDDEN

_SHARED = """
.ROOT { width: 100%; max-width: 920px; gap: 6px; padding: 2px 4px 4px 2px; }
.ROOT, .ROOT .widget-vbox, .ROOT .widget-hbox, .ROOT .widget-gridbox { overflow: visible; }
.ROOT .widget-inline-hbox, .ROOT .widget-button, .ROOT .widget-html { margin: 0; }
.ROOT .workbench-bar { flex-wrap: wrap; align-items: center; gap: 4px; }
.ROOT .workbench-group { gap: 3px; align-items: center; padding-right: 7px; margin-right: 3px;
  border-right: 1px solid var(--jp-border-color2, #ddd); }
.ROOT .workbench-group:last-child { border-right: none; margin-right: 0; padding-right: 0; }
.ROOT button.jupyter-button { border-radius: 4px; height: 30px; line-height: 28px; padding: 0 8px; width: auto;
  background: var(--jp-layout-color2, #eee); box-shadow: none; font-size: 12.5px; }
.ROOT button.jupyter-button:hover:enabled { background: var(--jp-layout-color3, #ddd); box-shadow: none; }
.ROOT button.jupyter-button:focus-visible { outline: 2px solid #1976d2; }
.ROOT button.jupyter-button i { width: 14px; text-align: center; margin: 0; }
.ROOT button.jupyter-button i:not(.center) { margin-right: 6px; }
.ROOT kbd { font-size: 11px; padding: 0 3px; border: 1px solid #bbb; border-radius: 3px; background: #f7f7f7;
  color: #222; }
.ROOT .workbench-words .widget-html-content { font-size: 12.5px; line-height: 28px; }
.ROOT .workbench-status .widget-html-content { font-size: 13px; line-height: 1.5; min-height: 20px; }
.ROOT .workbench-status .note { color: #2e7d32; }
.ROOT .workbench-status .stop { color: #d32f2f; font-weight: 600; }
.ROOT .workbench-status .error { color: #b00020; font-weight: 600; }
.ROOT .workbench-status pre { font-size: 11px; line-height: 1.3; max-height: 220px; overflow: auto; margin: 2px 0; }
.ROOT .workbench-looks { display: none; }
"""
POINTED = """
.ROOT .workbench-stage { border-radius: 4px; overflow: hidden; flex: 0 1 auto; min-width: 0; }
.ROOT .workbench-stage canvas { display: block; width: 100%; cursor: crosshair; margin: 0; touch-action: none; }
.ROOT .workbench-stage canvas:focus { outline: none; }
.ROOT .workbench-stage:focus-within { box-shadow: 0 0 0 2px #1976d2; }
.ROOT .workbench-scale { display: inline-flex; align-items: center; gap: 6px; white-space: nowrap; font-size: 12.5px;
  font-variant-numeric: tabular-nums; }
.ROOT .workbench-scale i { width: 120px; height: 10px; border-radius: 2px; border: 1px solid #bbb; }
.ROOT .workbench-scale b { font-weight: 600; }
.ROOT .workbench-hint .widget-html-content { font-size: 11.5px; line-height: 1.5;
  color: var(--jp-ui-font-color2, #666); }
.ROOT button.jupyter-button.chosen, .ROOT button.jupyter-button.mod-active { background: #1976d2; color: white; }
.ROOT button.jupyter-button.chosen:hover:enabled { background: #1565c0; }
.ROOT .widget-toggle-buttons { width: auto; margin: 0; }
.ROOT .widget-toggle-buttons button { margin: 0 2px 0 0; }
.ROOT .widget-toggle-buttons button i { display: none; }
.ROOT .widget-dropdown { margin: 0; }
.ROOT .widget-hslider { margin: 0 0 0 6px; }
.ROOT .widget-readout { min-width: 34px; font-variant-numeric: tabular-nums; }
"""
"""Looks of the widgets with a `stage` to point at."""
_KEYS = """
const root = this.closest('.ROOT');
if (!root || root.dataset.lmSuppressShortcuts) return;
root.dataset.lmSuppressShortcuts = 'true';
const stage = root.querySelector('.STAGE');
stage.addEventListener('wheel', e => e.stopPropagation(), {capture: true});
const keys = KEYS;
stage.addEventListener('keydown', e => {
  if (!keys.includes(e.key) || e.ctrlKey || e.metaKey) e.stopPropagation(); else e.preventDefault();
}, {capture: true});
"""


def keys_script(stage: str, keys) -> str:
    """A script by which these keys alone reach the canvas in the part of class ``stage``, and the wheel the page."""
    return _KEYS.replace("STAGE", stage).replace("KEYS", repr(list(keys)))


def looks_and_script(root: str, looks: str, script: str) -> ipywidgets.HTML:
    """An invisible part of a widget that carries its style sheet and its script; ROOT stands for its class.

    Args:
        root: class of the widget's outermost part.
        looks: its style beside what all share.
        script: run once, in the page, with the invisible part's style element as ``this``.
    """
    flat = " ".join(script.split()).replace('"', "&quot;")
    value = f'<style onload="{flat}">{_SHARED}{looks}{HIDDEN}</style>'.replace("ROOT", root)
    part = ipywidgets.HTML(value)
    part.add_class("workbench-looks")
    return part
