"""`wb.AttentionView`: where a denoiser looks, on the picture. Every gesture and button is also a method."""

import textwrap
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from ipywidgets import Box, HBox, VBox

from workbench import check, image, plot
from workbench.widgets.attention_view import page
from workbench.widgets.attention_view.asking import HOW, MODES, NOT_THERE, Asking, Question
from workbench.widgets.attention_view.controls import Controls
from workbench.widgets.attention_view.film import Film
from workbench.widgets.attention_view.pictures import COLOURS, Pictures
from workbench.widgets.parts import classed, colour_bar
from workbench.widgets.shown import Shown
from workbench.widgets.stage import Ring, Stage
from workbench.widgets.timing import Throttle, one_at_a_time

WIDTH, HEIGHT = 560, 470
"""CSS pixels there are for the picture, with a reference beside it for both."""
HOVERS_PER_SECOND = 12
STRIP = 8
_SAME = object()


class AttentionView(Shown):
    """Look at recorded attention: where a word acts, where a pixel looks, at any step, layer and head.

    It asks the record by its own questions and keeps nothing but answers. Only what was kept can be shown: what was not
    is told in the view, and nothing is raised (of a run, a step that is not kept is computed once more).

    Args:
        attention: what `wb.record_attention` gives, of a pipeline, a module or a `DenoisingRun`.
        image: (B, 3, H, W) in [0, 1], of the record's size, what the maps are laid over. None takes, of a run, the
            picture predicted at each step; otherwise mid grey.
        mask: (1, 1, H, W), 1 = hole = repaint: drawn as a line, and the shares inside and outside are told. None takes
            the ``mask_image`` of the run's call, where that is such a mask.
        reference: (1, 3, H', W'), where pixels also look at a reference.
        **chosen: what to begin with, as in `choose`.

    Attributes:
        map: the map shown, (H, W), not stretched: probabilities or what ``how`` makes of them; None where there is
            nothing to show, and `status` tells why.
        question: what is chosen.

    Raises:
        TypeError: something else than a record.
        RuntimeError: nothing is recorded yet.
        ValueError: a picture or mask of another size; a word that is not in the prompt.

    Example:
        >>> view = AttentionView(attention, image=photo, mask=mask)
        >>> view.choose(token="ball", step=10); view.map.shape
        >>> view.mode = "pixel"; view.point(40, 30)
    """

    def __init__(self, attention, image=None, mask=None, *, reference=None, **chosen):
        self._asking = Asking(attention)
        self._size = tuple(attention.size)
        self._pictures = Pictures(self._size, image, mask, reference, getattr(attention, "run", None))
        self.map: torch.Tensor | None = None
        self._missing = ""
        self._pinned = False
        self._hover: tuple[float, float] | None = None
        self._high: float | None = None  # of the colours, while they are held
        self._strength = 0.7
        self._film_of: tuple[torch.Tensor, float, torch.Tensor] | None = None  # a map, its scale, and its colours
        super().__init__("the attention view")
        self._film = Film(lambda: self._asking.steps, self._turn_to_step, self._attempt)
        self.question = self._first()
        sizes = [self._size, *([self._pictures.reference.shape[-2:]] if len(self._asking.key_parts()) > 1 else [])]
        self._stage = Stage(sizes, WIDTH, HEIGHT, self._attempt)
        self._hover_soon = Throttle(self._show, HOVERS_PER_SECOND, self._attempt)
        parts = tuple(getattr(attention, "parts", ("text",)))
        count = self._pictures.count or 1
        self._controls = Controls(self, self._asking, self._attempt, count, parts, self._strength)
        self._stage.listen(down=self._down, move=self._move, leave=self._leave, key=self._press)
        self.widget = self._lay_out()
        self.choose(**chosen)

    # Choosing

    @one_at_a_time
    def choose(
        self, *, token=_SAME, occurrence: int | None = None, step=_SAME, layer=_SAME, head=_SAME, how=_SAME,
        picture=_SAME, part=_SAME, keys=_SAME,
    ) -> None:  # fmt: skip
        """Chooses what is shown; what is not named stays.

        Args:
            token: a word of the prompt, or a column's number; ``occurrence`` which, of several, None takes all.
            step: from 1; None takes the mean of all that are kept.
            layer: name, part of one, "down", "mid", "up" or a grid (h, w); None takes all.
            head: its number; None takes the mean.
            how: "mean", "normalised" or "sum": how words, heads and layers are summed up, see the record's token_map.
            picture: of the batch. part: of the guidance. keys: what pixels look at, "image" or "reference".
        """
        self._need_open()
        q = self.question
        if token is not _SAME:
            q = replace(q, mode="word", token=token, occurrence=occurrence)
        if step is not _SAME:
            q = replace(q, step=None if step is None else check.integer(step, "step", 1))
        if layer is not _SAME:
            q = replace(q, layer=tuple(layer) if isinstance(layer, list) else layer)
        if head is not _SAME:
            q = replace(q, head=None if head is None else check.integer(head, "head", 0))
        if how is not _SAME:
            q = replace(q, how=check.choice(how, "how", HOW))
        if picture is not _SAME:
            count = self._pictures.count
            q = replace(q, picture=check.integer(picture, "picture", 0, None if count is None else count - 1))
        if part is not _SAME:
            q = replace(q, part=check.choice(part, "part", getattr(self._asking.attention, "parts", ("text",))))
        if keys is not _SAME:
            q = replace(q, mode="pixel", keys=check.choice(keys, "keys", self._asking.key_parts()))
        if token is _SAME and (q.picture, q.part) != (self.question.picture, self.question.part):
            q = self._asking.with_word(q)
        self._asking.columns(q)  # a word that is not in the prompt is a mistake, not something that was not kept
        self._turn_to(q)

    @property
    def mode(self) -> str:
        """ "word": where a word acts; "pixel": where a pixel looks. Can be set."""
        return self.question.mode

    @mode.setter
    @one_at_a_time
    def mode(self, mode: str) -> None:
        check.choice(mode, "mode", MODES)
        layers = [value for _, value in self._asking.layers(mode, self.question.keys)]
        layer = self.question.layer if self.question.layer in layers else None
        self._turn_to(replace(self.question, mode=mode, layer=layer, head=None))

    @one_at_a_time
    def point(self, x: float, y: float) -> None:
        """Keeps a pixel, in pixels of the picture: what a click does. In word mode it tells which words it looks at."""
        height, width = self._size
        self._pinned, self._hover = True, None
        self._turn_to(replace(self.question, point=(check.number(x, "x", 0, width), check.number(y, "y", 0, height))))

    @one_at_a_time
    def release(self) -> None:
        """Lets the pixel go; what Esc does."""
        self._pinned, self._hover = False, None
        self._show()

    @property
    def hold(self) -> bool:
        """Whether the colours keep their scale, so that maps can be compared; otherwise each map's highest is bright.

        Can be set.
        """
        return self._high is not None

    @hold.setter
    @one_at_a_time
    def hold(self, held: bool) -> None:
        self._high = self._brightest() if held else None
        self._show()

    @property
    def strength(self) -> float:
        """Of the colours over the picture, 0 to 1. Can be set."""
        return self._strength

    @strength.setter
    @one_at_a_time
    def strength(self, strength: float) -> None:
        self._strength = check.number(strength, "strength", 0, 1)
        self._show()

    @property
    def mask(self) -> torch.Tensor | None:
        """The hole that is shown, (1, 1, H, W), or None."""
        return self._pictures.mask

    # The film

    @property
    def running(self) -> bool:
        """Whether the film plays."""
        return self._film.running

    @one_at_a_time
    def play(self) -> None:
        """Goes from step to step, without waiting; from the last one it begins anew. In a script it waits."""
        self._need_open()
        self._film.play(self.question.step)

    def pause(self) -> None:
        """Stands still."""
        self._film.stop()  # before waiting for our turn
        self._show()

    def film(self, file, seconds: float = 3) -> Path:
        """The maps of all steps as an animated GIF, over the picture, in colours of one scale.

        Args:
            file: where to, ending in .gif.
            seconds: how long one round takes.

        Raises:
            ValueError: another ending; or no step of which there is such a map.
        """
        found = self._maps(self._asking.steps)
        if not found:
            raise ValueError(f"there is no step with such a map. {self._missing}".rstrip())
        high = self._high or max(float(one.max()) for one in found.values())
        frames = (self._laid_over(one, replace(self.question, step=step), high) for step, one in found.items())
        return image.save_film(frames, file, seconds)

    # Looking

    @one_at_a_time
    def refresh(self) -> None:
        """Asks the record anew, after more was recorded; and draws everything again, should the canvas be empty."""
        if not self._closed:
            self._asking.refresh()
            self._pictures.forget()
            self._show()
            self._stage.redraw()

    @one_at_a_time
    def snapshot(self) -> torch.Tensor:
        """The picture, the map over it and alone, and below the same of up to eight steps: (1, 3, H, W) in [0, 1]."""
        q = self._asked()
        title = f"{self._asking.title(q)}, {self._asking.where(q)}"
        own, (x, y) = self._pictures.own(q), q.point
        pictures = [("the picture", own)]
        if self._shows_pixel():
            pictures = [(f"pixel ({x:.0f}, {y:.0f})", self._pictures.pointed(own, q))]
        if self.map is None:
            pictures.append(("\n".join(textwrap.wrap(self._missing, 52)), None))
        else:
            masses, high = self._masses(q), self._brightest()
            told = f"{masses[0][1]:.0%} inside the hole (area {masses[2][1]:.0%})" if masses else "the map over it"
            pictures += [(told, self._laid_over(self.map, q, high)), (f"bright = {high:.3g}", self._coloured())]
        return plot.contact_sheet(title, [("", pictures, 3), *self._strip()])

    def __repr__(self) -> str:
        height, width = self._size
        told = f"{self._asking.title(self.question)}, {self._asking.where(self.question)}"
        return f"AttentionView({height}x{width} picture, {told})"

    # Inside

    def _first(self) -> Question:
        """What is chosen to begin with: the prompt's longest word, and the middle of the hole or of the picture."""
        modes = self._asking.modes()
        height, width = self._size
        q = Question(mode=modes[0] if modes else "word", point=(width / 2, height / 2))
        if self.mask is not None:
            rows, columns = self.mask[0, 0].nonzero(as_tuple=True)
            q = replace(q, point=(float(columns.float().mean()) + 0.5, float(rows.float().mean()) + 0.5))
        q = self._asking.with_word(q)
        return q if self._asking.can_mean else replace(q, step=self._asking.steps[-1])

    def _turn_to(self, question: Question) -> None:
        self._need_open()
        self._film.stop()
        self.question, self._hover = question, None
        self._show()

    def _turn_to_step(self, step: int) -> None:
        """The film goes on."""
        self.question, self._hover = replace(self.question, step=step), None
        self._show()

    @one_at_a_time
    def _show(self) -> None:
        """Asks, and shows the answer, or why there is none."""
        if self._closed:
            return
        self.error = None
        asked = self._asked()
        try:
            self.map, self._missing = self._asking.map(asked), ""
        except NOT_THERE as error:
            self.map, self._missing = None, str(error)
        self._controls.follow(self.question, self.running)
        self._controls.follow_settings(self.hold, self._strength)
        self._show_pictures(asked)
        scale = colour_bar("", "0", f"{self._brightest():.3g}", COLOURS)
        self._controls.show_scale("" if self.map is None else scale)
        self._tell_beside(asked)
        self._changed()

    def _recover(self) -> None:
        self._controls.follow(self.question, self.running)
        self._controls.follow_settings(self.hold, self._strength)

    def _asked(self) -> Question:
        """The question, with the pixel under the mouse where there is one."""
        return self.question if self._hover is None else replace(self.question, point=self._hover)

    def _show_pictures(self, asked: Question) -> None:
        stage = self._stage
        shown = 1 if asked.keys != "image" and asked.mode == "pixel" and len(stage.panes) > 1 else 0
        for number in range(len(stage.panes)):
            stage.show_picture(number, self._pictures.reference if number else self._pictures.own(asked))
            stage.show_film(number, self._coloured() if number == shown else None, self._strength)
        at = stage.panes[0].to_stage(*asked.point)
        ring = Ring(at, "white" if self._hover is None else "#40c4ff")
        stage.mark([ring] if self._shows_pixel() or self._hover is not None else [])
        _ = stage.flush() if self._hover is None else None

    def _coloured(self) -> torch.Tensor | None:
        """The map in colours; the same tensor as long as nothing changes."""
        if self.map is None:
            return None
        high = self._brightest()
        if self._film_of is None or self._film_of[0] is not self.map or self._film_of[1] != high:
            self._film_of = self.map, high, plot.heat_map(self.map[None, None], high, COLOURS)
        return self._film_of[2]

    def _tell_beside(self, asked: Question) -> None:
        masses, shares, beside = [], [], ""
        x, y = asked.point
        if self._hover is None and self.map is not None:
            masses = self._masses(asked)
        if self._pinned and self._hover is None and "word" in self._asking.modes():
            try:
                shares = self._asking.shares(asked)[:7]
                beside = f"Words that pixel ({x:.0f}, {y:.0f}) looks at"
            except NOT_THERE as error:
                beside = str(error)
        note = self._asking.where(asked)
        if self.map is not None and asked.keys == "image" and (self._hover is not None or self._pinned):
            row, column = min(int(y), len(self.map) - 1), min(int(x), self.map.shape[1] - 1)
            note += f" · at ({x:.0f}, {y:.0f}): {float(self.map[row, column]):.3g}"
        self._controls.tell(self._asking.title(asked), note, masses, shares, beside)

    def _masses(self, asked: Question) -> list[tuple[str, float, str]]:
        """Shares inside and outside of the hole, and how much of the picture is hole, to compare with."""
        if self.mask is None or asked.keys != "image":
            return []
        inside, outside = self._asking.masses(asked, self.mask)
        return [("inside the hole", inside, "hole"), ("outside", outside, ""),
                ("(the hole's area)", float(self.mask.mean()), "other")]  # fmt: skip

    def _brightest(self) -> float:
        """The number that gets the last colour."""
        if self._high is not None:
            return self._high
        return 1.0 if self.map is None else max(float(self.map.max()), 1e-12)

    def _laid_over(self, found: torch.Tensor, question: Question, high: float) -> torch.Tensor:
        return self._pictures.laid_over(found, question, high, self._strength, self._shows_pixel())

    def _shows_pixel(self) -> bool:
        """Whether a pixel is marked on the picture."""
        return self.mode == "pixel" or self._pinned

    def _maps(self, steps: list[int]) -> dict[int, torch.Tensor]:
        """The maps of those steps that there are."""
        found = {}
        for step in steps:
            with suppress(*NOT_THERE):
                found[step] = self._asking.map(replace(self.question, step=step))
        return found

    def _strip(self) -> list:
        """Maps of up to eight kept steps, from first to last, for the picture left without a kernel."""
        kept = sorted(self._asking.attention.steps)
        count = min(STRIP, len(kept))
        chosen = [kept[round(k * (len(kept) - 1) / max(1, count - 1))] for k in range(count)]
        pictures = []
        for step, found in self._maps(chosen).items():
            high = self._high or max(float(found.max()), 1e-12)
            over = self._laid_over(found, replace(self.question, step=step), high)
            pictures.append((f"step {step}\nbright = {high:.2g}", over))
        return [("", pictures, STRIP)] if len(pictures) > 1 else []

    def _note(self) -> str:
        return self._missing

    # Mouse, keys and the film

    def _down(self, x: float, y: float) -> None:
        if self._stage.pane_at(x, y) == 0:
            self.point(*self._stage.panes[0].to_picture(x, y))

    def _move(self, x: float, y: float) -> None:
        if self._stage.pane_at(x, y) == 0 and not self.running:
            self._hover = self._stage.panes[0].to_picture(x, y)
            self._hover_soon.request()

    def _leave(self) -> None:
        if self._hover is not None:
            self._hover = None
            self._hover_soon.cancel()
            self._show()

    def _press(self, key: str) -> None:
        steps = self._asking.steps
        if key == "Escape":
            self.release()
        elif key == " ":
            _ = self.pause() if self.running else self.play()
        elif key in ("ArrowLeft", "ArrowRight") and steps:
            here = self.question.step
            onward = [s for s in steps if here is None or (s > here if key == "ArrowRight" else s < here)]
            if onward:
                self.choose(step=onward[0 if key == "ArrowRight" else -1])

    def _lay_out(self) -> VBox:
        c = self._controls
        stage = classed(Box([self._stage.canvas]), "workbench-stage")
        left = classed(VBox([stage, c.below]), "workbench-left")
        body = classed(HBox([left, classed(VBox([c.told]), "workbench-side")]), "workbench-body")
        parts = [page.looks_and_script(), c.top, c.tokens, c.second, self._status_line, body, c.hint]
        return classed(VBox(parts), page.ROOT)

    def _close(self) -> None:
        self._film.stop()
        self._hover_soon.cancel()
        self._stage.close()
