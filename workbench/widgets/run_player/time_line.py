"""The time line: a canvas with the steps of the run, its breakpoints, and a lane for each run of the tree.

Above the bar, breakpoints are set and taken out by a click; on the bar one clicks or drags to a step; a click on a lane
goes over to its run. With the focus on it, keys work too. ipycanvas keeps no pixels: a reopened page asks for them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ipycanvas import MultiCanvas

from workbench.widgets.stage import drawing
from workbench.widgets.timing import Throttle

WIDTH, DENSITY = 912, 2
"""CSS pixels, and canvas pixels to each of them: lines stay crisp where the screen or the browser enlarges."""
LEFT, RIGHT = 16, 896
"""Where step 0 and the last step are."""
GUTTER, BAR, RULER, LANES = 22, 40, 58, 64
"""Lower ends of the breakpoints' strip, of the bar and of the numbers below it; where lanes begin."""
LANE = 20
DRAWS_PER_SECOND = 20
BLUE, RED, ORANGE, GREY, INK = "#1976d2", "#d32f2f", "#f57c00", "#9e9e9e", "#212121"


@dataclass(frozen=True)
class Track:
    """A run as a lane: where it starts, how far it is recorded, where it ends, and the row it branched off."""

    label: str
    start: int
    recorded: int
    end: int
    parent: int | None
    here: bool
    beside: bool


@dataclass(frozen=True)
class Scene:
    """All there is to draw: i and what the run has; breakpoints as `tree.break_marks` gives them."""

    i: int
    recorded: int
    end: int
    marks: tuple[tuple[int, bool], ...]
    tracks: tuple[Track, ...]


class TimeLine:
    """The canvas.

    Args:
        scrub: ``scrub(i, final)``: the pointer went to step i; ``final`` once it is let go.
        toggle: ``toggle(i)``: a breakpoint is to be set or taken out.
        choose: ``choose(row)``: another run of the tree.
        press: ``press(key)``.
        attempt: calls a function, and shows what goes wrong.
    """

    def __init__(self, scrub: Callable, toggle: Callable, choose: Callable, press: Callable, attempt: Callable):
        self._scrub, self._toggle, self._choose, self._press = scrub, toggle, choose, press
        self._scene = Scene(0, 0, 1, (), ())
        self._dragged: int | None = None
        self.canvas = MultiCanvas(1, width=WIDTH * DENSITY, height=LANES * DENSITY)
        self.canvas.layout.width, self.canvas.layout.height = "100%", "auto"
        self._draw_soon = Throttle(self._draw, DRAWS_PER_SECOND, attempt)
        for register, action in (
            (self.canvas.on_client_ready, self.redraw),
            (self.canvas.on_mouse_down, self.down),
            (self.canvas.on_mouse_move, self.move),
            (self.canvas.on_mouse_up, self.up),
            (self.canvas.on_mouse_out, self.up),
            (self.canvas.on_touch_start, lambda touches: self.down(*touches[0])),
            (self.canvas.on_touch_move, lambda touches: self.move(*touches[0])),
            (self.canvas.on_touch_end, lambda touches: self.up()),
            (self.canvas.on_key_down, lambda key, shift, ctrl, meta: ctrl or meta or self._press(key)),
        ):
            register(lambda *arguments, action=action: attempt(action, *arguments))

    def show(self, scene: Scene) -> None:
        """Draws anew, soon, if there is something new."""
        if scene != self._scene:
            self._scene = scene
            self._draw_soon.request()

    def redraw(self) -> None:
        """Draws everything, now: the canvas of a reopened page is empty."""
        self._draw_soon.request()
        self._draw_soon.flush()

    def flush(self) -> None:
        """Draws what waits to be drawn, now."""
        self._draw_soon.flush()

    def close(self) -> None:
        """Stops drawing for good: a message to a closed canvas would silence all others."""
        self._draw_soon.cancel()
        for widget in (*self.canvas._canvases, self.canvas):
            widget.close()

    # Pointer, in canvas pixels

    def down(self, x: float, y: float) -> None:
        """The pointer was pressed."""
        x, y = x / DENSITY, y / DENSITY
        if y >= LANES:
            row = int((y - LANES) // LANE)
            if row < len(self._scene.tracks):
                self._choose(row)
        elif y < GUTTER:
            self._toggle(self.step_at(x))
        else:
            self._dragged = self.step_at(x)
            self._scrub(self._dragged, False)

    def move(self, x: float, y: float) -> None:
        """The pointer was moved; only a drag is of interest."""
        if self._dragged is not None:
            i = self.step_at(x / DENSITY)
            if i != self._dragged:
                self._dragged = i
                self._scrub(i, False)

    def up(self, x: float = 0, y: float = 0) -> None:
        """The pointer was let go, or left the canvas."""
        if self._dragged is not None:
            i, self._dragged = self._dragged, None
            self._scrub(i, True)

    def step_at(self, x: float) -> int:
        """The step nearest to a place, in CSS pixels."""
        share = (x - LEFT) / (RIGHT - LEFT)
        return min(max(round(share * self._scene.end), 0), self._scene.end)

    def place_of(self, i: float) -> float:
        """Where a step is, in CSS pixels."""
        return LEFT + (RIGHT - LEFT) * i / self._scene.end

    # Drawing, in CSS pixels

    def _draw(self) -> None:
        scene = self._scene
        height = (LANES + LANE * len(scene.tracks) + (4 if scene.tracks else 0)) * DENSITY
        if self.canvas.height != height:
            self.canvas.height = height
        canvas = self.canvas[0]
        with drawing(self.canvas):
            canvas.save()
            canvas.clear()
            canvas.scale(DENSITY, DENSITY)
            canvas.fill_style = "#fafafa"
            canvas.fill_rect(0, 0, WIDTH, height / DENSITY)
            self._draw_bar(canvas)
            self._draw_ruler(canvas)
            for row, track in enumerate(scene.tracks):
                self._draw_track(canvas, row, track)
            self._draw_cursor(canvas, height / DENSITY)
            canvas.restore()

    def _draw_bar(self, canvas) -> None:
        scene, top, thick = self._scene, GUTTER + 5, BAR - GUTTER - 8
        canvas.fill_style = "#ffebee"
        canvas.fill_rect(0, 0, WIDTH, GUTTER)
        canvas.fill_style = "#e0e0e0"
        canvas.fill_rect(LEFT, top, RIGHT - LEFT, thick)
        canvas.fill_style = "#90caf9"
        canvas.fill_rect(LEFT, top, self.place_of(scene.recorded) - LEFT, thick)
        canvas.fill_style = BLUE
        canvas.fill_rect(LEFT, top, self.place_of(min(scene.i, scene.end)) - LEFT, thick)
        if not scene.marks:
            canvas.font, canvas.text_align, canvas.fill_style = "11px sans-serif", "left", "#b0716f"
            canvas.fill_text("click here: breakpoint", LEFT, 15)
        for i, certain in scene.marks:
            x = self.place_of(min(i, scene.end))
            canvas.stroke_style = canvas.fill_style = RED if certain else ORANGE
            canvas.line_width = 1.25
            canvas.stroke_line(x, GUTTER - 4, x, BAR + 1)
            canvas.fill_circle(x, 11, 6)

    def _draw_ruler(self, canvas) -> None:
        end = self._scene.end
        pitch = next(p for p in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if end / p <= 30)
        canvas.font, canvas.fill_style, canvas.stroke_style = "11px sans-serif", "#616161", GREY
        canvas.line_width = 1
        for i in range(0, end + 1, pitch):
            x = self.place_of(i)
            canvas.stroke_line(x, BAR, x, BAR + 4)
            canvas.text_align = "center"
            canvas.fill_text(str(i), x, RULER - 3)

    def _draw_track(self, canvas, row: int, track: Track) -> None:
        y = self._row(row)
        colour = BLUE if track.here else ("#00897b" if track.beside else "#757575")
        start = self.place_of(min(track.start, self._scene.end))
        canvas.line_width, canvas.stroke_style = 1.25, "#bdbdbd"
        if track.parent is not None:
            canvas.stroke_line(start, self._row(track.parent), start, y)
        canvas.stroke_style = colour
        canvas.stroke_line(start, y, self.place_of(min(track.end, self._scene.end)), y)
        canvas.line_width = 5 if track.here else 3
        canvas.stroke_line(start, y, self.place_of(min(max(track.recorded, track.start), self._scene.end)), y)
        canvas.font, canvas.fill_style = f"{'bold ' if track.here else ''}11px sans-serif", colour
        late = start > (LEFT + RIGHT) / 2
        canvas.text_align = "right" if late else "left"
        canvas.fill_text(track.label, start - 5 if late else start + 3, y - 5 if not late else y + 4)

    def _draw_cursor(self, canvas, height: float) -> None:
        x = self.place_of(min(self._scene.i, self._scene.end))
        canvas.stroke_style, canvas.line_width = INK, 1
        canvas.stroke_line(x, GUTTER, x, height if self._scene.tracks else BAR + 4)
        canvas.fill_style = INK
        canvas.fill_circle(x, (GUTTER + BAR) / 2 + 1, 6.5)
        canvas.fill_style = "white"
        canvas.fill_circle(x, (GUTTER + BAR) / 2 + 1, 3)

    def _row(self, row: int) -> float:
        return LANES + LANE * row + 15
