"""`wb.MatchView`: which point of one picture is which of another. Every gesture and button is also a method."""

import numpy as np
import torch
from ipywidgets import Box, VBox

from workbench import check, image, plot
from workbench.widgets.match_view import page
from workbench.widgets.match_view.asking import COLOURS, Answer, Asking
from workbench.widgets.match_view.controls import Controls
from workbench.widgets.match_view.lines import COLOUR_MAPS, distance_to, lines_of
from workbench.widgets.match_view.telling import facts_of_answer, facts_of_match
from workbench.widgets.parts import classed, colour_bar, css_colours
from workbench.widgets.shown import Shown
from workbench.widgets.stage import Dot, Line, Ring, Stage
from workbench.widgets.timing import one_at_a_time

WIDTH, HEIGHT = 912, 460
"""CSS pixels there are for both pictures."""
NEAR = 8
"""CSS pixels at which a click counts as on a line."""
SIDE = 560
"""Longest side of each picture in the one left without a kernel."""
ASKED, FOUND, TRUE = "#40c4ff", "#ffeb3b", "#69f0ae"
"""Colours of the point asked for, of its best match, and of where it is in truth."""


class MatchView(Shown):
    """Two pictures with a line for each match; or a point of one, and how similar each place of the other is to it.

    Points are (x, y) in pixels of the pictures given, however large they are shown.

    Args:
        a, b: (1, 3, H, W) in [0, 1]; sizes may differ, and are shown equally high.
        matches: what `wb.match` gives: anything with points_a, points_b, confidence. None: no lines.
        features: to ask points by: what `feature_pair` gives, with ``heat_map``, ``best`` and ``swapped``; or a
            function, point of a -> (H, W) of b. None: points cannot be asked.
        truth: where points of a are in b: what ``scene.correspondences()`` gives, or a function (N, 2) -> (N, 2), which
            may also return what is visible, as ``truth_at`` with its truth does. None: errors are not known.
        flags: {name: (N,) bool}: more to choose matches by. Inliers come by themselves where RANSAC was asked for,
            right and wrong where there is a truth.
        tolerance: error in pixels up to which a match is right.
        most: lines drawn at most, the surest first.

    Attributes:
        shown: numbers of the matches drawn, the surest first.
        picked: number of the match picked, or None. answer: what features said to the last point, or None.

    Raises:
        TypeError, ValueError: pictures, matches, features, truth or flags of another kind or size.

    Example:
        >>> view = MatchView(a, b, wb.match(a, b, ransac="fundamental"), truth=scene.correspondences(0))
        >>> view.threshold = 0.5; view.only(inliers=True); view.pick(0); view.colour = "error"
    """

    def __init__(
        self, a: torch.Tensor, b: torch.Tensor, matches=None, *, features=None, truth=None, flags=None,
        tolerance: float = 3.0, most: int = 100,
    ):  # fmt: skip
        self._images = [_one(a, "a"), _one(b, "b")]
        self._sizes = [tuple(x.shape[-2:]) for x in self._images]
        self._check_sizes(matches, "matches")
        self.tolerance = check.number(tolerance, "tolerance", 0)
        self._check_sizes(features, "features")
        self._asking = Asking(features, truth, self._sizes)
        error = self._asking.errors(matches)
        self._lines = lines_of(matches, error, self.tolerance, flags)
        c = self._lines.confidence
        self._limits = (float(c.min()), float(c.max())) if len(c) else (0.0, 1.0)
        self._threshold, self._most = self._limits[0], check.integer(most, "most", 1)
        self.chosen_flags: set[str] = set()
        self._mode = "match" if matches is not None or features is None else "point"
        self._colour = "confidence"
        self.picked: int | None = None
        self.answer: Answer | None = None
        super().__init__("the match view")
        self._stage = Stage(self._sizes, WIDTH, HEIGHT, self._attempt)
        modes = [m for m, there in (("match", matches is not None), ("point", features is not None)) if there]
        colours = ["confidence"] + (["error"] if error is not None else [])
        low, high = np.floor(self._limits[0] * 100) / 100, np.ceil(self._limits[1] * 100) / 100
        self._threshold = float(low)
        flags = list(self._lines.flags)
        self._controls = Controls(self, self._attempt, modes or ["match"], colours, (low, high), flags, most)
        self._stage.listen(down=self._down, key=self._press)
        self.widget = self._lay_out()
        self._show()

    # Choosing lines

    @property
    def mode(self) -> str:
        """What a click does: "match" picks a line, "point" asks the features. Can be set."""
        return self._mode

    @mode.setter
    @one_at_a_time
    def mode(self, mode: str) -> None:
        self._need_open()
        check.choice(mode, "mode", ("match", "point"))
        if mode == "point":
            self._asking.need("a")
        self._mode = mode
        self.clear()

    @property
    def threshold(self) -> float:
        """The least confidence of a line that is drawn. Can be set."""
        return self._threshold

    @threshold.setter
    @one_at_a_time
    def threshold(self, threshold: float) -> None:
        self._threshold = check.number(threshold, "threshold")
        self._choose()

    @property
    def most(self) -> int:
        """How many lines are drawn at most, the surest first. Can be set."""
        return self._most

    @most.setter
    @one_at_a_time
    def most(self, most: int) -> None:
        self._most = check.integer(most, "most", 1)
        self._choose()

    @property
    def colour(self) -> str:
        """What lines are coloured by: "confidence", or "error" where there is a truth. Can be set."""
        return self._colour

    @colour.setter
    @one_at_a_time
    def colour(self, colour: str) -> None:
        check.choice(colour, "colour", COLOUR_MAPS)
        if colour == "error" and self._lines.error is None:
            raise RuntimeError("errors are not known, expected MatchView(a, b, matches, truth=...).")
        self._colour = colour
        self._show()

    @one_at_a_time
    def only(self, **flags: bool) -> None:
        """Draws only matches that are so: ``only(inliers=True)``; False draws them all again.

        Raises:
            ValueError: nothing of the kind is known.
        """
        for name, wanted in flags.items():
            check.choice(name, "flag", self._lines.flags)
            _ = self.chosen_flags.add(name) if wanted else self.chosen_flags.discard(name)
        self._choose()

    @property
    def shown(self) -> list[int]:
        """Numbers of the matches that are drawn, the surest first."""
        return self._lines.chosen(self._threshold, self.chosen_flags, self._most).tolist()

    # Picking and asking

    @one_at_a_time
    def pick(self, number: int) -> None:
        """Picks a match by its number, and tells its points, confidence and error."""
        self._need_open()
        if not len(self._lines):
            raise RuntimeError("there are no matches, expected MatchView(a, b, matches).")
        self._mode, self.answer = "match", None
        self.picked = check.integer(number, "number", 0, len(self._lines) - 1)
        self._show()

    def next(self) -> None:
        """Picks the next match of those shown, the less sure one; after the last the first."""
        self._turn(1)

    def previous(self) -> None:
        """Picks the match before; before the first the last."""
        self._turn(-1)

    @one_at_a_time
    def point(self, x: float, y: float, side: str = "a") -> Answer:
        """Asks the features for a point: what a click in "point" mode does.

        Args:
            x, y: in pixels of the picture.
            side: "a" or "b": which picture.

        Returns:
            `Answer`: heat map over the other picture, best match, truth and error.

        Raises:
            RuntimeError: there are no features, or only such as answer for points of a.
        """
        self._need_open()
        self.answer = self._asking.answer(x, y, side)
        self._mode, self.picked = "point", None
        self._show()
        return self.answer

    @one_at_a_time
    def clear(self) -> None:
        """Lets go of what was picked or asked; what Esc does."""
        self.picked = self.answer = None
        self._show()

    # Looking

    @one_at_a_time
    def refresh(self) -> None:
        """Draws everything again, should the canvas be empty."""
        if not self._closed:
            self._show()
            self._stage.redraw()

    @one_at_a_time
    def snapshot(self) -> torch.Tensor:
        """Both pictures with what is drawn on them, and a bar of its colours: (1, 3, H, W) in [0, 1]."""
        pictures = [self._at_height(n) for n in range(2)]
        scales = [p.shape[-1] / size[1] for p, size in zip(pictures, self._sizes, strict=True)]
        answer, options = self.answer, {}
        rings = [(side, np.multiply(at, scales["ab".index(side)]), colour) for side, at, colour in self._rings()]
        if answer is None:
            shown = [k for k in self.shown if k != self.picked] + [k for k in [self.picked] if k is not None]
            points = self._lines.a[shown] * scales[0], self._lines.b[shown] * scales[1]
            values = self._lines.confidence if self._colour == "confidence" else self._lines.error
            if shown:
                options = {"values": values[shown], "label": self._unit(), "colours": COLOUR_MAPS[self._colour],
                           "limits": self._colour_limits()}  # fmt: skip
            options["strong"] = None if self.picked is None else len(shown) - 1
        else:
            ends = (answer.point, answer.best) if answer.side == "a" else (answer.best, answer.point)
            points = [np.asarray([end]) * scale for end, scale in zip(ends, scales, strict=True)]
            options["strong"] = 0
        name, facts = self._facts()
        title = ", ".join([name, *(fact for fact, _ in facts)]) if name else self._counted(self.shown)
        options["rings"] = rings
        figure = plot.show_matches(*pictures, *points, title=title, most=None, **options)
        figure.set_size_inches(11, 11 * pictures[0].shape[-2] / sum(p.shape[-1] for p in pictures) + 0.5)
        return image.load_image(figure.encode()[1])

    def __repr__(self) -> str:
        sizes = " and ".join(f"{h}x{w}" for h, w in self._sizes)
        asked = "" if self.answer is None else f", asked ({self.answer.point[0]:g}, {self.answer.point[1]:g})"
        return f"MatchView({sizes}, {self._counted(self.shown)}{asked})"

    # Inside

    @one_at_a_time
    def _show(self) -> None:
        """Brings everything up to date; of a slider that is dragged, not more often than the canvas can be drawn."""
        if self._closed:
            return
        self.error = None
        shown = self.shown
        self._controls.follow(self, self._counted(shown), self.picked is None and self.answer is None)
        self._controls.scale.value = self._scale()
        self._controls.tell(*self._facts())
        for number, picture in enumerate(self._images):
            self._stage.show_picture(number, picture)
            film = None
            if self.answer is not None and "ab".index(self.answer.side) != number:
                film = self.answer.colours()
            self._stage.show_film(number, film)
        self._stage.mark(self._marks(shown))
        self._changed()

    def _choose(self) -> None:
        """Other lines are drawn; the one picked goes with those that are not."""
        self._need_open()
        if self.picked is not None and self.picked not in self.shown:
            self.picked = None
        self._show()

    @one_at_a_time
    def _turn(self, by: int) -> None:
        shown = self.shown
        if not shown:
            raise RuntimeError("no match is shown. Lower the threshold, or show more than those of one kind.")
        here = shown.index(self.picked) if self.picked in shown else (-1 if by > 0 else 0)
        self.pick(shown[(here + by) % len(shown)])

    def _recover(self) -> None:
        self._controls.follow(self, self._counted(self.shown), self.picked is None and self.answer is None)

    def _check_sizes(self, given, name: str) -> None:
        """Matches and features tell of which sizes their pictures were, where they do."""
        for side, size in zip("ab", self._sizes, strict=True):
            told = getattr(given, f"size_{side}", None)
            if told is not None and tuple(told) != size:
                raise ValueError(f"{name} are of a picture {side} of {tuple(told)} (H, W), expected {size}, as given.")

    def _colours(self) -> list[str]:
        """Of every line."""
        levels = self._lines.levels(self._colour, self._colour_limits())
        return css_colours(levels, COLOUR_MAPS[self._colour]) if len(levels) else []

    def _colour_limits(self) -> tuple[float, float]:
        return self._limits if self._colour == "confidence" else (0.0, 2 * self.tolerance)

    def _unit(self) -> str:
        return "confidence" if self._colour == "confidence" else "error in px"

    def _marks(self, shown: list[int]) -> list:
        """What is drawn over the pictures, in CSS pixels; the surest lines last, on top."""
        if self.answer is not None:
            return self._strong_marks()
        to = [pane.to_stage for pane in self._stage.panes]
        lines, colours, marks, dots = self._lines, self._colours(), [], []
        for k in reversed(shown):
            start, end = to[0](*lines.a[k]), to[1](*lines.b[k])
            marks.append(Line(start, end, colours[k]))
            dots += [Dot(start, colours[k], 2.5), Dot(end, colours[k], 2.5)]
        marks += dots
        return marks + self._strong_marks()

    def _strong_marks(self) -> list:
        """What was picked or asked: a broad line, and rings."""
        rings = self._rings()
        places = [self._stage.panes["ab".index(side)].to_stage(*at) for side, at, _ in rings]
        lines = [Line(*places[:2], "rgba(0, 0, 0, 0.8)", 4.5), Line(*places[:2], "white", 2.25)] if rings else []
        return lines + [Ring(place, colour) for place, (_, _, colour) in zip(places, rings, strict=True)]

    def _rings(self) -> list[tuple[str, tuple[float, float], str]]:
        """Both ends of what was picked or asked, and where the second is in truth: side, point, colour."""
        answer, k = self.answer, self.picked
        if answer is not None:
            found = [(answer.side, answer.point, ASKED), (answer.other, answer.best, FOUND)]
            return found + ([(answer.other, answer.truth, TRUE)] if answer.truth is not None else [])
        if k is None:
            return []
        true = self._asking.true_end(self._lines.a[k])
        found = [("a", tuple(self._lines.a[k]), ASKED), ("b", tuple(self._lines.b[k]), FOUND)]
        return found + ([("b", true, TRUE)] if true is not None else [])

    def _at_height(self, number: int) -> torch.Tensor:
        """A picture for the snapshot, with the heat map over it, as large as its pane or smaller."""
        pane = self._stage.panes[number]
        size = max(1, round(pane.height)), max(1, round(pane.width))
        picture = image.resize(self._images[number], size)
        if self.answer is None or "ab".index(self.answer.side) == number:
            return picture
        return 0.3 * picture + 0.7 * image.resize(self.answer.colours(), size)

    def _scale(self) -> str:
        """What the colours mean."""
        if self.answer is not None:
            low, high = self.answer.limits
            return colour_bar("similarity", f"≤ {low:.2f}", f"{high:.2f}", COLOURS)
        if not len(self._lines):
            return ""
        low, high = self._colour_limits()
        more = " px and more" if self._colour == "error" else ""
        digits = ".2f" if self._colour == "confidence" else "g"
        return colour_bar(self._unit(), f"{low:{digits}}", f"{high:{digits}}{more}", COLOUR_MAPS[self._colour])

    def _counted(self, shown: list[int]) -> str:
        return self._lines.told(len(shown), self._threshold, self.chosen_flags, self.tolerance)

    def _facts(self) -> tuple[str, list[tuple[str, str]]]:
        if self.answer is not None:
            return facts_of_answer(self.answer, self._asking.knows_truth, self.tolerance)
        if self.picked is None:
            return "", []
        true = self._asking.true_end(self._lines.a[self.picked])
        return facts_of_match(self._lines, self.picked, true, self.tolerance)

    # Mouse and keys

    def _down(self, x: float, y: float) -> None:
        """A click: asks a point, or picks the nearest line whose end or middle is under the mouse."""
        number = self._stage.pane_at(x, y)
        if self._mode == "point":
            if number is not None:
                self.point(*self._stage.panes[number].to_picture(x, y), side="ab"[number])
            return
        shown = self.shown
        if not shown:
            return
        starts, ends = (
            np.asarray([pane.to_stage(*p) for p in points[shown]])
            for pane, points in zip(self._stage.panes, (self._lines.a, self._lines.b), strict=True)
        )
        at_ends = np.minimum(*(np.linalg.norm(side - (x, y), axis=1) for side in (starts, ends)))
        on_line = distance_to((x, y), starts, ends)
        # An end is what a person aims at; lines cross everywhere.
        near = at_ends if at_ends.min() <= NEAR else on_line
        _ = self.pick(shown[int(near.argmin())]) if near.min() <= NEAR else self.clear()

    def _press(self, key: str) -> None:
        if key == "Escape":
            self.clear()
        elif key in ("ArrowLeft", "ArrowRight"):
            self._turn(1 if key == "ArrowRight" else -1)

    def _lay_out(self) -> VBox:
        c = self._controls
        stage = classed(Box([self._stage.canvas]), "workbench-stage")
        parts = [page.looks_and_script(), c.top, stage, c.below, c.hint, c.told, self._status_line]
        return classed(VBox(parts), page.ROOT)

    def _close(self) -> None:
        self._stage.close()


def _one(picture: torch.Tensor, name: str) -> torch.Tensor:
    """One picture on the CPU."""
    check.image(picture, name)
    if picture.shape[0] != 1:
        raise ValueError(f"{name} holds {picture.shape[0]} pictures, expected one. Take one with {name}[i:i + 1].")
    return picture.detach().float().cpu()
