"""Buttons, sliders and the status line round the canvas: each calls the method a notebook would call."""

import html
from collections.abc import Callable

import ipywidgets
from ipywidgets import Button, Checkbox, FileUpload, FloatSlider, HBox, Label, Text, ToggleButtons, VBox, link

from workbench.widgets.mask_editor.gestures import LABELS
from workbench.widgets.mask_editor.layers import FOREGROUND, HOLE, UNKNOWN_BAND
from workbench.widgets.mask_editor.pointer import TOOLS, Settings
from workbench.widgets.parts import bar, button, group

ICONS = {
    "brush": "paint-brush",
    "eraser": "eraser",
    "rectangle": "square-o",
    "ellipse": "circle-o",
    "polygon": "draw-polygon",
    "lasso": "pencil",
    "bucket": "fill-drip",
    "frame": "arrows-alt",
    "pan": "hand-paper-o",
}
TOOL_TIPS = {
    "brush": "Paint hole (b)",
    "eraser": "Take hole away (e)",
    "rectangle": "Drag from corner to corner (r)",
    "ellipse": "Drag from corner to corner (o)",
    "polygon": "Click the corners, double-click to close (p)",
    "lasso": "Draw round what you want to mark (l)",
    "bucket": "Click a colour: the connected area like it is marked (f)",
    "frame": "Outpainting: drag a grip of the frame outward, the new border becomes hole",
    "pan": "Drag to move the picture (h)",
}
HINTS = {
    "polygon": "Click the corners. Double-click, Enter or a click on the first corner closes; Esc cancels.",
    "lasso": "Draw round what you want to mark.",
    "frame": "Drag a blue grip outward. The new border is hole, to be painted anew.",
    "pan": "Drag to move. With the wheel, zoom at the pointer.",
}
HELP = """<kbd>b</kbd> brush <kbd>e</kbd> eraser <kbd>r</kbd> rectangle <kbd>o</kbd> ellipse <kbd>p</kbd> polygon
<kbd>l</kbd> lasso <kbd>f</kbd> bucket <kbd>h</kbd> pan &nbsp; <kbd>[</kbd> <kbd>]</kbd> brush size &nbsp;
<kbd>z</kbd> or <kbd>Ctrl z</kbd> undo <kbd>y</kbd> redo <kbd>x</kbd> invert &nbsp;
<kbd>+</kbd> <kbd>-</kbd> <kbd>0</kbd> zoom, fit &nbsp;
<kbd>Enter</kbd> closes a polygon, <kbd>Esc</kbd> cancels it.<br>
Keys work after a click into the photograph. So does the wheel: it zooms at the pointer; before that click it scrolls
the page. Ctrl + wheel always zooms. Two fingers move and zoom."""


class Toolbar:
    """All controls of one editor.

    Args:
        editor: whose methods the buttons call.
        settings: the chosen tool, linked to the controls.
        attempt: calls a function and shows what goes wrong instead of raising it.
    """

    def __init__(self, editor, settings: Settings, attempt: Callable):
        self._editor, self._settings, self._attempt = editor, settings, attempt
        self._trimap = editor.mode == "trimap"
        self._redraw = editor.redraw
        self.status = ipywidgets.HTML()
        self.status.add_class("workbench-status")
        self.help = ipywidgets.HTML(HELP, layout={"display": "none"})
        self.help.add_class("workbench-help")
        self.header = self._make_header()
        self.palette = self._make_palette()
        self.files = self._make_files()
        settings.observe(self._show_options, "tool")
        self._show_options()

    def update(self, can_undo: bool, can_redo: bool) -> None:
        """Greys out what cannot be done."""
        self.undo.disabled, self.redo.disabled = not can_undo, not can_redo

    def show_status(self, facts: list[str], message: tuple[str, bool] | None) -> None:
        """The status line: what the colours mean, how much is marked, and what last happened or went wrong."""
        if self._trimap:
            legend = [_swatch(FOREGROUND, "foreground"), _swatch(UNKNOWN_BAND, "unknown"), "untinted = background"]
        else:
            legend = [_swatch(HOLE, "tinted = hole = will be repainted")]
        lines = [" · ".join([*legend, *(html.escape(fact) for fact in facts)])]
        if message:
            words, error = message
            lines.append(f'<span class="{"error" if error else "note"}">{html.escape(words)}</span>')
        self.status.value = "<br>".join(lines)

    # Parts

    def _make_header(self) -> HBox:
        editor = self._editor
        self.undo = self._button("undo", "Undo (z)", editor.undo)
        self.redo = self._button("repeat", "Redo (y)", editor.redo)
        self.radius = ipywidgets.BoundedFloatText(
            4, min=0, max=500, step=1, layout={"width": "56px"}, tooltip="Radius in pixels for grow, shrink and feather"
        )
        reshape = [
            self._button("", tip, lambda gesture=gesture: gesture(self.radius.value), words)
            for words, tip, gesture in (
                ("Grow", "Widen the hole by so many pixels", editor.grow),
                ("Shrink", "Narrow the hole by so many pixels", editor.shrink),
                ("Feather", "Fade the hole out over so many pixels", editor.feather),
            )
        ]
        reshape[2].disabled = self._trimap
        question = self._button("question", "Keyboard, wheel and touch", self._toggle_help)
        return bar(
            group(self.undo, self.redo),
            group(
                self._button("trash-o", "Nothing is hole", editor.clear, "Clear"),
                self._button("adjust", "Exchange hole and kept area (x)", editor.invert, "Invert"),
                self._button("clone", "The last hole drawn, in this or another editor", editor.recall, "Same hole"),
            ),
            group(*reshape, self.radius, Label("px")),
            group(
                self._button("search-minus", "Zoom out (-)", lambda: editor.zoom(0.8)),
                self._button("search-plus", "Zoom in (+)", lambda: editor.zoom(1.25)),
                self._button("arrows-alt", "Show the whole picture (0)", editor.fit, "Fit"),
            ),
            group(self._button("refresh", "Redraw, should the canvas be empty", self._redraw), question),
        )

    def _make_palette(self) -> VBox:
        self.tools = ToggleButtons(
            options=[(tool.capitalize() if tool != "frame" else "Extend", tool) for tool in TOOLS],
            icons=[ICONS[tool] for tool in TOOLS],
            tooltips=[TOOL_TIPS[tool] for tool in TOOLS],
        )
        settings = self._settings
        self.size = _slider(settings, "radius", 0.5, 100, 0.5, ".0f")
        self.softness = _slider(settings, "softness", 0, 1, 0.05, ".0%")
        self.tolerance = _slider(settings, "tolerance", 0, 1, 0.01, ".0%")
        self.cut = Checkbox(description="cut out", indent=False, tooltip="Take the shape away from the hole")
        self.label = ToggleButtons(options=list(LABELS)[::-1], tooltips=["1", "0.5", "0"])
        self.hint = ipywidgets.HTML()
        self.hint.add_class("workbench-hint")
        link((settings, "tool"), (self.tools, "value"))
        link((settings, "cut"), (self.cut, "value"))
        link((settings, "label"), (self.label, "value"))
        self._options = {
            "label": VBox([Label("Paint with"), self.label]),
            "size": VBox([Label("Brush radius"), self.size]),
            "softness": VBox([Label("Softness"), self.softness]),
            "tolerance": VBox([Label("Colour tolerance"), self.tolerance]),
            "cut": self.cut,
            "hint": self.hint,
        }
        options = VBox(list(self._options.values()))
        options.add_class("workbench-options")
        palette = VBox([self.tools, options])
        palette.add_class("workbench-palette")
        return palette

    def _make_files(self) -> HBox:
        editor = self._editor
        self.photograph = _upload("photograph", "Draw on another photograph")
        self.mask_file = _upload("mask", "Take a mask from a file: white = hole")
        self.path = Text("mask.png", layout={"width": "130px"}, tooltip="Where the mask is saved, on the kernel's disk")
        tip = "The mask a latent diffusion model sees, 8 x 8 pixels a cell. Yellow: by nearest; blue: by any only"
        self.latents = Checkbox(description="latent grid", indent=False, layout={"width": "auto"}, tooltip=tip)
        for upload, load in ((self.photograph, editor.load_photograph), (self.mask_file, editor.load)):
            upload.observe(lambda change, load=load: self._take_file(change.owner, load), "value")
        self.latents.observe(lambda change: self._attempt(editor.show_latents, change.new), "value")
        save = self._button("save", "Write the mask as a PNG", lambda: editor.save(self.path.value), "Save mask")
        groups = [group(self.photograph), group(self.mask_file, save, self.path)]
        return bar(*groups, *(() if self._trimap else [group(self.latents)]))

    def _button(self, icon: str, tip: str, action: Callable, words: str = "") -> Button:
        return button(icon, tip, lambda: self._attempt(action), words)

    def _take_file(self, upload: FileUpload, load: Callable) -> None:
        """Hands an uploaded file on, and empties the control so that the same file can be chosen again."""
        if upload.value:
            content = bytes(upload.value[0]["content"])
            upload.value = ()
            self._attempt(load, content)

    def _toggle_help(self) -> None:
        self.help.layout.display = "none" if self.help.layout.display is None else None

    def _show_options(self, _change=None) -> None:
        """Shows the options of the chosen tool only."""
        tool = self._settings.tool
        shape = tool in ("rectangle", "ellipse", "polygon", "lasso", "bucket")
        self.hint.value = HINTS.get(tool, "")
        shown = {
            "label": self._trimap and (shape or tool == "brush"),
            "size": tool in ("brush", "eraser"),
            "softness": tool in ("brush", "eraser") and not self._trimap,
            "tolerance": tool == "bucket",
            "cut": shape,
            "hint": bool(self.hint.value),
        }
        for name, option in self._options.items():
            option.layout.display = None if shown[name] else "none"


def _slider(settings: Settings, trait: str, low: float, high: float, step: float, form: str) -> FloatSlider:
    slider = FloatSlider(getattr(settings, trait), min=low, max=high, step=step, readout_format=form)
    link((settings, trait), (slider, "value"))
    return slider


def _upload(kind: str, tip: str) -> FileUpload:
    """A button that takes one file; its words are in the style sheet, because ipywidgets would add a count to them."""
    upload = FileUpload(accept="image/*", tooltip=tip)
    upload.add_class("workbench-upload")
    upload.add_class(f"workbench-upload-{kind}")
    return upload


def _swatch(colour: tuple[int, int, int], words: str) -> str:
    return f'<span class="swatch" style="background: rgb{colour}"></span>{words}'
