"""What is seen of a player: time line, controls, numbers, panels, and the picture left of them without a kernel."""

import time
from collections.abc import Callable

import torch
from ipywidgets import Box, VBox

from workbench import plot
from workbench.widgets.parts import close_all
from workbench.widgets.run_player import page, tree
from workbench.widgets.run_player.controls import Controls, facts
from workbench.widgets.run_player.drive import Drive, name_of
from workbench.widgets.run_player.gallery import Gallery
from workbench.widgets.run_player.time_line import Scene, TimeLine, Track
from workbench.widgets.run_player.views import View, Views
from workbench.widgets.static_picture import StaticPicture

STRIP = 8
STRIP_SECONDS = 1.5
"""How many steps stand under the player, and how long they may take to be decoded."""


class Screen:
    """Shows where a drive stands.

    Args:
        player: whose methods the controls call.
        attempt: calls a function and shows what goes wrong instead of raising it.
        diverge: whether there is a way to find where two runs part.
        items: how many pictures the run makes at once.
    """

    def __init__(self, player, attempt: Callable, diverge: bool, items: int):
        self._player = player
        self._lanes: list[tree.Lane] = []
        self._choices: list = []  # runs that can be locked to the one shown
        self._marks = tree.BreakMarks()
        self.controls = Controls(player, self._choose, self._lock, attempt, diverge, items)
        self.time_line = TimeLine(player.scrub, player.toggle_breakpoint, self._choose, player.press, attempt)
        self.gallery = Gallery()
        self.static = StaticPicture("the run player", player.snapshot, attempt)
        stage = Box([self.time_line.canvas])
        stage.add_class("workbench-time-line")
        c = self.controls
        parts = [page.looks_and_script(), c.top, stage, c.hint, c.second, c.numbers, c.status, self.gallery.widget]
        self.widget = VBox(parts)
        self.widget.add_class(page.ROOT)

    def show(self, drive: Drive, running: bool, views: Views, hurry: bool) -> None:
        """Brings everything but the status up to date."""
        run = drive.run
        marks = self._marks.of(run)
        self._lanes = tree.lanes(run)
        members = [lane.run for lane in self._lanes]
        self._choices = [one for one in members + self._player.outsiders if one is not run]
        self._show_time_line(drive, marks)
        self.controls.follow(
            i=run.i, end=run.total, item=views.item, running=running, over=drive.over, broken=marks.get(run.i, False),
            two=drive.other is not None,
        )  # fmt: skip
        self.controls.show_runs(
            [tree.label(one) for one in members],
            next(k for k, one in enumerate(members) if one is run),
            [tree.label(one) for one in self._choices],
            next((k for k, one in enumerate(self._choices) if one is drive.other), -1),
        )
        self.controls.show_numbers([(name_of(one), facts(one.state)) for one in drive.runs])
        self.gallery.show(_rows(drive, views, hurry))
        if not running:  # on the way it would be drawn for nobody
            self.static.follow()

    def show_status(self, words: str, kind: str, trace: str) -> None:
        """The status line."""
        self.controls.show_status(words, kind, trace)

    def snapshot(self, drive: Drive, views: Views) -> torch.Tensor:
        """The panels, and under them some predicted pictures from first to last: (1, 3, H, W) in [0, 1]."""
        run, last, until = drive.run, drive.run.recorded, time.monotonic() + STRIP_SECONDS
        states, strip = run.states, []
        count = min(STRIP, last)
        for i in sorted({1 + round(k * (last - 1) / max(1, count - 1)) for k in range(count)}):
            strip.append(views.of_step(run, states[i], hurry=time.monotonic() > until))
        beside = "" if drive.other is None else f", beside {name_of(drive.other)}"
        title = f"{name_of(run)}, step {run.i} of {end_of(run)}{beside}"
        rows = [(heading, _told(panels), 4) for heading, panels in _rows(drive, views, False)]
        return plot.contact_sheet(title, [*rows, ("", _told(strip), STRIP)])

    def close(self) -> None:
        """Closes all widgets."""
        self.static.close()
        self.time_line.close()
        close_all(self.widget)

    def _show_time_line(self, drive: Drive, marks: dict[int, bool]) -> None:
        run, tracks = drive.run, []
        for lane in self._lanes if len(self._lanes) > 1 else ():
            one = lane.run
            end = max(one.total or 0, one.recorded)
            shown = one is run, one is drive.other
            tracks.append(Track(tree.label(one), lane.start, one.recorded, end, lane.parent, *shown))
        end = max(run.total or 0, run.recorded, *(track.end for track in tracks), 1)
        self.time_line.show(Scene(run.i, run.recorded, end, tuple(sorted(marks.items())), tuple(tracks)))

    def _choose(self, row: int) -> None:
        self._player.show_run(self._lanes[row].run)

    def _lock(self, row: int) -> None:
        self._player.compare(None if row < 0 else self._choices[row])


def end_of(run) -> str:
    """How many steps a run has, in words."""
    return "?" if run.total is None else str(run.total)


def _rows(drive: Drive, views: Views, hurry: bool) -> list[tuple[str, list[View]]]:
    """The panels: headings and four views each."""
    run, other, state = drive.run, drive.other, drive.run.state
    rows = [("" if other is None else tree.label(run), views.of_state(run, state, hurry))]
    if other is not None:
        its = other.state
        rows.append((tree.label(other), views.of_state(other, its, hurry)))
        told = f"difference |{name_of(run)} − {name_of(other)}|"
        rows.append((told, views.of_two(run, state, other, its, hurry)))
    if views.hole is not None:
        rows.append(("the hole's edge", views.of_edge(run, state, hurry)))
    return rows


def _told(views: list[View]) -> list[tuple[str, torch.Tensor | None]]:
    """Titles with their notes, and pictures."""
    return [(f"{view.title}\n{view.note}" if view.note else view.title, view.picture) for view in views]
