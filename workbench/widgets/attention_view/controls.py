"""What is pressed and read beside the picture: each control calls the method a notebook would call."""

import html
from collections.abc import Callable

from ipywidgets import HTML, Button, Dropdown, FloatSlider, HBox, SelectionSlider, ToggleButton, ToggleButtons

from workbench.widgets.attention_view.asking import HOW, Asking, Question, Word
from workbench.widgets.parts import bar, button, classed, group, words

HINT = """Move over the picture to look, click to keep a pixel, <kbd>Esc</kbd> lets it go ·
<kbd>←</kbd> <kbd>→</kbd> step · <kbd>space</kbd> film"""
ALL = ""
"""What menus have for None, which to ipywidgets means that nothing is chosen."""


class Controls:
    """All controls of one view.

    Args:
        view: whose methods are called.
        asking: tells what there is.
        attempt: calls a function and shows what goes wrong instead of raising it.
        pictures: how many there are to choose from.
        parts: of the guidance that are recorded.
        strength: of the colours over the picture.
    """

    def __init__(self, view, asking: Asking, attempt: Callable, pictures: int, parts: tuple[str, ...], strength: float):
        self._view, self._asking, self._attempt = view, asking, attempt
        self._following = False  # a control is being set by us
        self.play = button("play", "Film over the steps (space)", lambda: attempt(view.play), "Film")
        self.pause = button("pause", "Stand still (space)", lambda: attempt(view.pause), "Pause")
        self.mode = ToggleButtons(
            options=[("Word", "word"), ("Pixel", "pixel")], tooltips=["Where a word acts", "Where a pixel looks"]
        )
        self.step = classed(SelectionSlider(options=[("all", ALL)]), "workbench-steps")
        self.layer = classed(Dropdown(options=[("all layers", ALL)], tooltip="Layers"), "workbench-layer")
        self.head = classed(Dropdown(options=[("mean of all", ALL)], tooltip="Heads"), "workbench-head")
        self.how = classed(Dropdown(options=HOW, tooltip="How layers and words are summed up"), "workbench-how")
        self.keys = classed(Dropdown(options=["image"], tooltip="What the pixel looks at"), "workbench-how")
        self.picture = classed(Dropdown(options=range(pictures), tooltip="Picture of the batch"), "workbench-head")
        self.part = classed(Dropdown(options=parts, tooltip="Part of the guidance"), "workbench-head")
        tip = "Keep the scale of the colours, so that steps, words and layers can be compared"
        self.hold = ToggleButton(description="Hold scale", tooltip=tip, icon="lock")
        self.strength = classed(FloatSlider(strength, min=0, max=1, step=0.05, readout=False), "workbench-strength")
        self.tokens = classed(HBox([]), "workbench-tokens")
        self.told, self.hint = classed(HTML(), "workbench-told"), classed(HTML(HINT), "workbench-hint")
        self.scale = HTML()
        self._words: list[Word] | None = None
        self._hear(self.mode, lambda mode: setattr(view, "mode", mode))
        for name in ("step", "layer", "head", "how", "keys", "picture", "part"):
            self._hear(getattr(self, name), lambda value, name=name: view.choose(**{name: _value(value)}))
        self._hear(self.hold, lambda held: setattr(view, "hold", held))
        self._hear(self.strength, lambda value: setattr(view, "strength", value))
        self._lay_out(pictures, parts)

    def follow(self, question: Question, running: bool) -> None:
        """Brings every control up to date with what is chosen."""
        asking, q = self._asking, question
        pixel = q.mode == "pixel"
        self._following = True
        try:
            self.mode.value = q.mode
            self._offer(self.step, self._steps(q))
            self.step.value = _option(q.step)
            layers = [(label, _option(layer)) for label, layer in asking.layers(q.mode, q.keys)]
            known = _option(q.layer) in [layer for _, layer in layers]
            self._offer(self.layer, layers if known else [*layers, (str(q.layer), q.layer)])
            self.layer.value = _option(q.layer)
            count = max(asking.heads(q), 1 + (q.head if q.head is not None else 0))
            self._offer(self.head, [("mean of all", ALL)] + [(f"head {n}", n) for n in range(count)])
            self.head.value = _option(q.head)
            self._offer(self.keys, [(part, part) for part in asking.key_parts() or ["image"]])
            self.how.value, self.keys.value, self.part.value = q.how, q.keys, q.part
            self.picture.value = q.picture
            self._show_words(q)
        finally:
            self._following = False
        self.play.disabled, self.pause.disabled = running or not asking.steps, not running
        self.tokens.layout.display = "none" if pixel or not self.tokens.children else None
        self._how.layout.display = "none" if pixel else None
        self._keys.layout.display = None if pixel and len(self.keys.options) > 1 else "none"

    def follow_settings(self, hold: bool, strength: float) -> None:
        """Brings hold and strength up to date."""
        self._following = True
        try:
            self.hold.value, self.strength.value = hold, strength
        finally:
            self._following = False

    def show_scale(self, scale: str) -> None:
        """The bar that tells what the colours mean; "" where there are none."""
        self.scale.value, self._scale.layout.display = scale, None if scale else "none"

    def tell(self, title: str, note: str, masses: list[tuple[str, float, str]], shares, beside: str) -> None:
        """What stands beside the picture: where the attention goes, and which words the pixel looks at."""
        parts = [f"<h4>{html.escape(title)}</h4><p>{html.escape(note)}</p>"]
        if masses:
            parts.append(f"<table>{''.join(_row(name, share, kind, share) for name, share, kind in masses)}</table>")
        if shares:
            most = max((share for _, share, own in shares if own), default=0.0) or 1.0
            rows = [_row(name, share, "" if own else "other", share / most) for name, share, own in shares]
            parts.append(f"<h4>{html.escape(beside)}</h4><table>{''.join(rows)}</table>")
        self.told.value = "".join(parts)

    def _lay_out(self, pictures: int, parts: tuple[str, ...]) -> None:
        several = [group(words("picture"), self.picture)] if pictures > 1 else []
        several += [group(words("part"), self.part)] if len(parts) > 1 else []
        self._how, self._keys = group(words("sum up"), self.how), group(words("looks at"), self.keys)
        self.top = bar(group(self.mode), group(words("step"), self.step, self.play, self.pause), *several)
        self.second = bar(group(words("layers"), self.layer), self._how, self._keys, group(words("heads"), self.head))
        self._scale = group(self.scale)
        self.below = bar(self._scale, group(self.hold), group(words("colour"), self.strength))

    def _steps(self, question: Question) -> list[tuple[str, int | str]]:
        mean = [("all", ALL)] if self._asking.can_mean or question.step is None else []
        steps = sorted({*self._asking.steps, *(() if question.step is None else (question.step,))})
        return mean + [(str(step), step) for step in steps]

    def _show_words(self, question: Question) -> None:
        """A button for each word; made anew only where the prompt is another one."""
        found = self._asking.words(question.picture, question.part)
        if found != self._words:
            self._words = found
            old, self.tokens.children = self.tokens.children, tuple(self._word(word) for word in found)
            for one in old:
                one.close()
        columns = self._asking.columns(question) if found else set()
        for word, made in zip(found, self.tokens.children, strict=True):
            classed(made, "chosen", question.mode == "word" and set(word.columns) <= columns)

    def _word(self, word: Word) -> Button:
        tip = f"Where “{word.text}” acts" if word.own else f"What the tokenizer adds: {word.text}"

        def choose() -> None:
            self._attempt(lambda: self._view.choose(token=word.token, occurrence=word.occurrence))

        return classed(button("", tip, choose, word.text), "faint", not word.own)

    def _offer(self, menu, options: list[tuple]) -> None:
        if list(menu.options) != options:
            menu.options = options

    def _hear(self, control, action: Callable) -> None:
        def changed(change) -> None:
            if not self._following:
                self._attempt(action, change["new"])

        control.observe(changed, "value")


def _option(value):
    return ALL if value is None else value


def _value(option):
    return None if isinstance(option, str) and option == ALL else option


def _row(name: str, share: float, kind: str, length: float) -> str:
    """A share as a bar."""
    return (
        f'<tr class="{kind}"><td title="{html.escape(name)}">{html.escape(name)}</td>'
        f'<td><i style="width: {100 * min(length, 1):.1f}%"></i></td><td>{share:.1%}</td></tr>'
    )
