"""What the editor tells the web page: its looks, and three things that ipycanvas leaves no other place to say.

1. ipycanvas keeps every turn of the wheel from the page. Here the page gets it back, unless the editor has the focus
   (click into it) or Ctrl is held; turning down with the whole picture in view also scrolls on, since it is of no
   other use. Where a page forbids inline scripts the wheel always zooms, and the page is scrolled beside the canvas.
2. JupyterLab reads single letters typed over a selected cell as commands ("x" cuts the cell!), before the canvas
   sees them. ``data-lm-suppress-shortcuts`` is JupyterLab's own mark for "not here".
3. Tab and the browser's own Ctrl keys go to the browser, so that nobody is caught in the canvas.
"""

import ipywidgets

from workbench.widgets import looks

ROOT = "workbench-mask-editor"
FITTED = "workbench-fitted"
"""Class of the stage while the whole picture is in view."""

PAN = "workbench-pan"
"""Class of the stage while the picture can be dragged."""

_SCRIPT = """
const root = this.closest('.ROOT');
if (!root || root.dataset.lmSuppressShortcuts) return;
root.dataset.lmSuppressShortcuts = 'true';
const stage = root.querySelector('.workbench-stage');
stage.addEventListener('wheel', e => {
  const idle = e.deltaY > 0 && stage.classList.contains('FITTED');
  if (!e.ctrlKey && (idle || !root.contains(document.activeElement))) e.stopPropagation();
}, {capture: true});
stage.addEventListener('keydown', e => {
  const ours = !['Tab', 'F5', 'F11', 'F12'].includes(e.key) && (!(e.ctrlKey || e.metaKey) || /^[zy]$/i.test(e.key));
  if (!ours) e.stopPropagation();
}, {capture: true});
"""

_LOOKS = """
.ROOT .widget-upload { margin: 0; }
.ROOT .workbench-body { gap: 10px; align-items: flex-start; overflow: visible; }
.ROOT .workbench-palette { flex: 0 0 126px; gap: 2px; overflow: visible; }
.ROOT .workbench-palette .widget-toggle-buttons-group { display: flex; flex-direction: column; }
.ROOT .workbench-palette button.widget-toggle-button { display: flex; flex-direction: row-reverse; align-items: center;
  justify-content: flex-end; gap: 8px; width: 126px; margin: 0 0 2px; }
.ROOT .workbench-palette button.widget-toggle-button i { margin: 0; }
.ROOT .workbench-palette button.widget-toggle-button.mod-active { background: #1976d2; color: white; }
.ROOT button.workbench-upload { font-size: 0; }
.ROOT button.workbench-upload i, .ROOT button.workbench-upload::after { font-size: 12.5px; }
.ROOT button.workbench-upload-photograph::after { content: "New photograph"; }
.ROOT button.workbench-upload-mask::after { content: "Load mask"; }
.ROOT .workbench-options { gap: 0; padding: 6px 0 0; overflow: visible; }
.ROOT .workbench-options .widget-label { height: 20px; line-height: 20px; font-size: 12px; }
.ROOT .workbench-options .widget-hslider, .ROOT .workbench-options .widget-checkbox { width: 126px; margin: 0; }
.ROOT .workbench-options .widget-readout { min-width: 30px; }
.ROOT .workbench-hint .widget-html-content { font-size: 12px; line-height: 1.4; }
.ROOT .workbench-help .widget-html-content { font-size: 12px; line-height: 1.9; }
.ROOT .workbench-stage { flex: 0 1 auto; min-width: 0; overflow: hidden; border-radius: 4px;
  background: repeating-conic-gradient(#e4e4e4 0 25%, #f4f4f4 0 50%) 0 0 / 20px 20px; }
.ROOT .workbench-stage canvas { display: block; cursor: crosshair; margin: 0; touch-action: none; }
.ROOT .workbench-stage canvas:focus { outline: none; }
.ROOT .workbench-stage:focus-within { box-shadow: 0 0 0 2px #1976d2; }
.ROOT .workbench-pan canvas { cursor: grab; }
.ROOT .workbench-status .swatch { display: inline-block; width: 12px; height: 12px; border-radius: 2px;
  margin-right: 5px; vertical-align: -1px; }
"""


def looks_and_script() -> ipywidgets.HTML:
    """An invisible part of the editor that carries its style sheet, and the script above."""
    return looks.looks_and_script(ROOT, _LOOKS.replace("FITTED", FITTED), _SCRIPT.replace("FITTED", FITTED))
