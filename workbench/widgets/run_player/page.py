"""What the player tells the web page: its looks, and what ipycanvas leaves no other place to say.

The wheel over the time line scrolls the page, and JupyterLab does not read letters typed into the player as its own
commands (``data-lm-suppress-shortcuts`` is its mark for "not here"). Tab and keys with Ctrl go to the browser.
"""

import ipywidgets

from workbench.widgets.static_picture import HIDDEN

ROOT = "workbench-run-player"

_SCRIPT = """
const root = this.closest('.ROOT');
if (!root || root.dataset.lmSuppressShortcuts) return;
root.dataset.lmSuppressShortcuts = 'true';
const stage = root.querySelector('.workbench-time-line');
stage.addEventListener('wheel', e => e.stopPropagation(), {capture: true});
const keys = ['ArrowLeft', 'ArrowRight', 'Home', 'End', ' ', 'b'];
stage.addEventListener('keydown', e => {
  if (!keys.includes(e.key) || e.ctrlKey || e.metaKey) e.stopPropagation(); else e.preventDefault();
}, {capture: true});
"""

_LOOKS = """
.ROOT { width: 100%; max-width: 920px; gap: 6px; padding: 2px 4px 4px 2px; }
.ROOT, .ROOT .widget-vbox, .ROOT .widget-hbox, .ROOT .widget-gridbox { overflow: visible; }
.ROOT .widget-inline-hbox, .ROOT .widget-button, .ROOT .widget-html, .ROOT .widget-image { margin: 0; }
.ROOT .workbench-bar { flex-wrap: wrap; align-items: center; gap: 4px; }
.ROOT .workbench-group { gap: 3px; align-items: center; padding-right: 8px; margin-right: 4px;
  border-right: 1px solid var(--jp-border-color2, #ddd); }
.ROOT .workbench-group:last-child { border-right: none; margin-right: 0; padding-right: 0; }
.ROOT button.jupyter-button { border-radius: 4px; height: 30px; line-height: 28px; padding: 0 9px; width: auto;
  background: var(--jp-layout-color2, #eee); box-shadow: none; font-size: 12.5px; }
.ROOT button.jupyter-button:hover:enabled { background: var(--jp-layout-color3, #ddd); box-shadow: none; }
.ROOT button.jupyter-button:focus-visible { outline: 2px solid #1976d2; }
.ROOT button.jupyter-button i { width: 14px; text-align: center; margin: 0; }
.ROOT button.jupyter-button i:not(.center) { margin-right: 6px; }
.ROOT button[title^='Set or'] i { color: #d32f2f; }
.ROOT .workbench-number { width: 58px; }
.ROOT .workbench-changes { width: 262px; }
.ROOT .workbench-menu { width: 300px; }
.ROOT .workbench-words .widget-html-content { font-size: 12.5px; line-height: 28px; }
.ROOT .workbench-time-line { width: 100%; border-radius: 4px; overflow: hidden; flex: none; }
.ROOT .workbench-time-line canvas { display: block; width: 100%; cursor: pointer; margin: 0; touch-action: none; }
.ROOT .workbench-time-line canvas:focus { outline: none; }
.ROOT .workbench-time-line:focus-within { box-shadow: 0 0 0 2px #1976d2; }
.ROOT .workbench-hint .widget-html-content { font-size: 11.5px; line-height: 1.5;
  color: var(--jp-ui-font-color2, #666); }
.ROOT .workbench-hint kbd { font-size: 11px; padding: 0 3px; border: 1px solid #bbb; border-radius: 3px;
  background: #f7f7f7; color: #222; }
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
.ROOT .workbench-status .widget-html-content { font-size: 13px; line-height: 1.5; min-height: 20px; }
.ROOT .workbench-status .note { color: #2e7d32; }
.ROOT .workbench-status .stop { color: #d32f2f; font-weight: 600; }
.ROOT .workbench-status .error { color: #b00020; font-weight: 600; }
.ROOT .workbench-status pre { font-size: 11px; line-height: 1.3; max-height: 220px; overflow: auto; margin: 2px 0; }
.ROOT .workbench-looks { display: none; }
"""


def looks_and_script() -> ipywidgets.HTML:
    """An invisible part of the player that carries its style sheet, and the script above."""
    script = " ".join(_SCRIPT.split()).replace('"', "&quot;")
    looks = ipywidgets.HTML(f'<style onload="{script}">{_LOOKS}{HIDDEN}</style>'.replace("ROOT", ROOT))
    looks.add_class("workbench-looks")
    return looks
