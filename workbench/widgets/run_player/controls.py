"""Buttons, menus, numbers and the status line: each control calls the method a notebook would call."""

import ast
import html
import math
from collections.abc import Callable

from ipywidgets import HTML, BoundedIntText, Button, Dropdown, Text

from workbench.widgets.parts import bar, button, group, words

HINT = """Bar: click or drag to a step · pink strip: click for a breakpoint · lane: click to switch run · then keys:
<kbd>←</kbd> <kbd>→</kbd> <kbd>space</kbd> <kbd>home</kbd> <kbd>end</kbd> <kbd>b</kbd>"""
BREAK_TIP = "Set or take out a breakpoint here (b)"
ALONE = "nothing"
ANY_STEP = 10**6
"""The highest step that can be asked for where a run does not tell how many it has."""


class Controls:
    """All that is pressed or read, the canvas and the panels aside.

    Args:
        player: whose methods are called.
        choose, lock: ``choose(row)`` and ``lock(row)``: a run was picked from the menus; -1 is none.
        attempt: calls a function and shows what goes wrong instead of raising it.
        diverge: whether there is a way to find where two runs part.
        items: how many pictures the run makes at once.
    """

    def __init__(self, player, choose: Callable, lock: Callable, attempt: Callable, diverge: bool, items: int):
        self._player, self._attempt = player, attempt
        self._following = False  # a control is being set by us
        make = self._button
        self.buttons = {
            "start": make("fast-backward", "Back to the beginning (home)", lambda: player.goto(0)),
            "back": make("step-backward", "One step back (←)", player.back),
            "play": make("play", "Play, until a breakpoint or the end (space)", player.play, "Play"),
            "pause": make("pause", "Stand still after this step (space)", player.pause, "Pause"),
            "step": make("step-forward", "One step (→)", player.step, "Step"),
            "finish": make("fast-forward", "To the end, or to a breakpoint (end)", lambda: player.finish(wait=False)),
            "breakpoint": make("circle", BREAK_TIP, player.toggle_breakpoint, "Break here"),
            "branch": make("code-fork", "Another future from here, with these changes", self._branch, "Branch"),
            "diverge": make(
                "search", "The first step that differs, and why", player.find_divergence, "Where do they part?"
            ),
        }
        self.step = BoundedIntText(0, min=0, max=0, tooltip="Step to go to", continuous_update=False)
        self.changes = Text(placeholder='changes, e.g. guidance_scale=1.0, prompt="a red ball"')
        self.run = Dropdown(options=[("run", 0)], tooltip="The run that is shown")
        self.other = Dropdown(options=[(ALONE, -1)], tooltip="A run to lock to this one, step by step")
        self.item = BoundedIntText(0, min=0, max=max(items - 1, 0), tooltip="Which picture of the batch")
        self.numbers, self.status, self.hint = HTML(), HTML(), HTML(HINT)
        for widget, name in (
            (self.numbers, "numbers"), (self.status, "status"), (self.hint, "hint"), (self.changes, "changes"),
            (self.run, "menu"), (self.other, "menu"), (self.step, "number"), (self.item, "number"),
        ):  # fmt: skip
            widget.add_class(f"workbench-{name}")
        self._hear(self.step, lambda i: player.goto(i, wait=False))
        self._hear(self.item, player.show_item)
        self._hear(self.run, choose)
        self._hear(self.other, lock)
        b = self.buttons
        moves = group(b["start"], b["back"], b["play"], b["pause"], b["step"], b["finish"], self.step)
        item = [group(words("picture"), self.item)] if items > 1 else []
        self.top = bar(moves, group(b["breakpoint"]), group(self.changes, b["branch"]), *item)
        part = [b["diverge"]] if diverge else []
        self.second = bar(group(words("run"), self.run), group(words("beside"), self.other, *part))

    def follow(self, *, i: int, end: int | None, item: int, running: bool, over: bool, broken: bool, two: bool) -> None:
        """Brings buttons and the step's number up to date."""
        self._following = True
        try:
            self.step.max = max(ANY_STEP if end is None else end, i)
            self.step.value, self.item.value = i, item
        finally:
            self._following = False
        disabled = {"start": i == 0, "back": running or i == 0, "pause": not running, "diverge": running or not two}
        disabled |= dict.fromkeys(("step", "finish"), running or over) | dict.fromkeys(("play", "branch"), running)
        for name, pressable in self.buttons.items():
            pressable.disabled = disabled.get(name, False)
        self.buttons["breakpoint"].icon = "circle" if broken else "circle-o"

    def show_runs(self, labels: list[str], row: int, others: list[str], beside: int) -> None:
        """Fills the menus: all runs with the one shown, and those that can be locked to it, -1 being none."""
        self._following = True
        try:
            for menu, options, value in (
                (self.run, [(label, k) for k, label in enumerate(labels)], row),
                (self.other, [(ALONE, -1)] + [(label, k) for k, label in enumerate(others)], beside),
            ):
                if list(menu.options) != options:
                    menu.options = options
                menu.value = value
        finally:
            self._following = False

    def show_numbers(self, rows: list[tuple[str, dict[str, str]]]) -> None:
        """A table of (run's name, {number: value})."""
        names = list(rows[0][1])
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ["", *names])
        lines = []
        for name, values in rows:
            cells = "".join(f"<td>{html.escape(values.get(n, ''))}</td>" for n in names)
            lines.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
        self.numbers.value = f"<table><tr>{head}</tr>{''.join(lines)}</table>"

    def show_status(self, words: str, kind: str, trace: str = "") -> None:
        """One line; an error with its traceback folded below it."""
        told = f'<span class="{kind}">{html.escape(words)}</span>' if words else "&nbsp;"
        if trace:
            told += f"<details><summary>where it happened</summary><pre>{html.escape(trace)}</pre></details>"
        self.status.value = told

    def _branch(self) -> None:
        self._player.branch(**parse_changes(self.changes.value))

    def _button(self, icon: str, tip: str, action: Callable, words: str = "") -> Button:
        return button(icon, tip, lambda: self._attempt(action), words)

    def _hear(self, control, action: Callable) -> None:
        def changed(change) -> None:
            if not self._following:
                self._attempt(action, change["new"])

        control.observe(changed, "value")


def parse_changes(text: str) -> dict:
    """'guidance_scale=1.0, prompt="a red ball"' -> {...}: names and plain values; nothing is executed.

    Raises:
        ValueError: anything else.
    """
    try:
        call = ast.parse(f"f({text.strip()})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ValueError
        return {k.arg: ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise ValueError(
            f'{text!r} cannot be read, expected names and values such as guidance_scale=1.0, prompt="a red ball".'
        ) from None


def facts(state) -> dict[str, str]:
    """The numbers of a state, in words."""
    norms = {"latents rms": _rms(state.latents), "noise rms": _rms(state.noise_pred)}
    return {
        "i": str(state.i),
        "t": _told(state.t),
        "sigma": _told(state.sigma),
        "guidance": _told(state.guidance),
        "|text − uncond| rms": _told(state.guidance_norm),
        **{name: _told(value) for name, value in norms.items()},
        "drawn": str(len(state.draws)) if state.i else "–",
        "digest": state.digest[:12],
    }


def _rms(values) -> float | None:
    return None if values is None else float(values.float().square().mean().sqrt())


def _told(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if math.isfinite(value) else str(value)
