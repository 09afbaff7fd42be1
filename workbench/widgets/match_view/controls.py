"""What is pressed and read round the pictures: each control calls the method a notebook would call."""

import html
from collections.abc import Callable

from ipywidgets import HTML, BoundedIntText, FloatSlider, ToggleButton, ToggleButtons

from workbench.widgets.parts import bar, button, classed, group, words

PICK_HINT = """Click a line or its end to read its numbers · <kbd>←</kbd> <kbd>→</kbd> next match ·
<kbd>Esc</kbd> lets it go"""
ASK_HINT = """Click a point of either picture: the other one shows how similar each of its places is ·
<kbd>Esc</kbd> brings the lines back"""
TIPS = {"inliers": "Only matches that RANSAC's geometry explains", "right": "Only matches within the tolerance",
        "wrong": "Only matches that are farther off than the tolerance"}  # fmt: skip


class Controls:
    """All controls of one view.

    Args:
        view: whose methods are called.
        attempt: calls a function and shows what goes wrong instead of raising it.
        modes: what a click can do.
        colours: what lines can be coloured by.
        limits: the least and the largest confidence.
        flags: names of what matches can be chosen by.
        most: how many lines are drawn at most.
    """

    def __init__(self, view, attempt: Callable, modes, colours, limits: tuple[float, float], flags, most: int):
        self._attempt = attempt
        self._following = False  # a control is being set by us
        labels = {"match": ("Lines", "match"), "point": ("Ask a point", "point")}
        tips = {"match": "A click picks a match", "point": "A click asks where a point is in the other picture"}
        self.mode = ToggleButtons(options=[labels[m] for m in modes], tooltips=[tips[m] for m in modes])
        self.colour = ToggleButtons(options=list(colours), tooltips=["Colour by confidence", "Colour by error in px"])
        low, high = limits
        self.threshold = classed(
            FloatSlider(low, min=low, max=max(high, low + 0.01), step=0.01, readout_format=".2f"), "workbench-threshold"
        )
        self.most = classed(BoundedIntText(most, min=1, max=10**6, tooltip="Lines drawn at most"), "workbench-most")
        self.flags = {name: ToggleButton(description=name, tooltip=TIPS.get(name, f"Only {name}")) for name in flags}
        self.back = button("chevron-left", "The match before (←)", lambda: attempt(view.previous))
        self.next = button("chevron-right", "The next match (→)", lambda: attempt(view.next))
        self.clear = button("times", "Let go of what was picked or asked (Esc)", lambda: attempt(view.clear), "Clear")
        self.told, self.hint = classed(HTML(), "workbench-told"), classed(HTML(), "workbench-hint")
        self.scale, self.counted = HTML(), classed(HTML(), "workbench-words")
        for control, name in ((self.mode, "mode"), (self.colour, "colour"), (self.threshold, "threshold"),
                              (self.most, "most")):  # fmt: skip
            self._hear(control, lambda value, name=name: setattr(view, name, value))
        for name, toggle in self.flags.items():
            self._hear(toggle, lambda value, name=name: view.only(**{name: value}))
        self._by = group(words("colour by"), self.colour)
        modes = [group(self.mode)] if len(modes) > 1 else []
        only = [group(words("only"), *self.flags.values())] if flags else []
        by = [self._by] if len(colours) > 1 else []
        self.top = bar(*modes, group(words("confidence ≥"), self.threshold), group(words("at most"), self.most), *only)
        self.below = bar(*by, group(self.scale), group(self.counted), group(self.back, self.next, self.clear))

    def follow(self, view, counted: str, idle: bool) -> None:
        """Brings every control up to date; ``idle`` where nothing was picked or asked."""
        self._following = True
        try:
            self.mode.value, self.colour.value = view.mode, view.colour
            self.threshold.value, self.most.value = view.threshold, view.most
            for name, toggle in self.flags.items():
                toggle.value = name in view.chosen_flags
        finally:
            self._following = False
        self.counted.value = html.escape(counted)
        self.hint.value = PICK_HINT if view.mode == "match" else ASK_HINT
        self._by.layout.display = None if view.answer is None else "none"  # the lines give way to the heat map
        self.clear.disabled = idle
        self.back.disabled = self.next.disabled = not len(view.shown)

    def tell(self, title: str, facts: list[tuple[str, str]]) -> None:
        """The numbers of what was picked or asked: words and their class."""
        spans = "".join(f'<span class="{kind}">{html.escape(fact)}</span>' for fact, kind in facts)
        self.told.value = f"<b>{html.escape(title)}</b> &nbsp; {spans}" if title else "&nbsp;"

    def _hear(self, control, action: Callable) -> None:
        def changed(change) -> None:
            if not self._following:
                self._attempt(action, change["new"])

        control.observe(changed, "value")
