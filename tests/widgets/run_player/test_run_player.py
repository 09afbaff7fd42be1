"""The run player without a browser: every method, every button, the time line by simulated mouse and keys."""

import asyncio
import base64
import gc
import io
import json
import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from ipywidgets import Widget
from PIL import Image

from workbench import check
from workbench.stepping.divergence import first_divergence
from workbench.stepping.recording import load_recording, save_recording
from workbench.widgets import timing
from workbench.widgets.run_player import RunPlayer, going, time_line
from workbench.widgets.run_player.controls import parse_changes
from workbench.widgets.run_player.tree import BreakMarks, label
from workbench.widgets.run_player.views import View, Views


@pytest.fixture
def player(run):
    player = RunPlayer(run)
    yield player
    player.close()


def line(player):
    return player._screen.time_line


def panels(player, row=0):
    return [panel._shown for panel in player._screen.gallery._rows[row][1]]


def titles(player, row=0):
    return [view.title for view in panels(player, row)]


class Mouse:
    """Events as the browser sends them; places in CSS pixels of the time line."""

    def __init__(self, player):
        self.line = line(player)
        self.layer = self.line.canvas._canvases[-1]

    def send(self, event, x, y, **content):
        place = {"x": x * time_line.DENSITY, "y": y * time_line.DENSITY}
        self.layer._handle_frontend_event(self.layer, {"event": event, **place, **content}, [])

    def drag(self, *steps, y=30):
        self.send("mouse_down", self.line.place_of(steps[0]), y)
        for step in steps[1:]:
            self.send("mouse_move", self.line.place_of(step), y)
        self.send("mouse_up", self.line.place_of(steps[-1]), y)

    def click(self, step, y=30):
        self.drag(step, y=y)

    def key(self, key, **modifiers):
        keys = {"shift_key": False, "ctrl_key": False, "meta_key": False} | modifiers
        self.layer._handle_frontend_event(self.layer, {"event": "key_down", "key": key, **keys}, [])


# Moving


def test_step_back_goto_finish(player, run):
    assert player.step().i == 1
    assert player.step(3).i == run.i == 4
    assert player.back().i == 3
    assert player.back(2).i == 1
    assert player.goto(6).i == 6
    assert player.goto(2).i == 2
    assert run.recorded == run.computed == 6  # going to and fro computes nothing twice
    assert player.finish().i == 8
    assert player.finish().i == 8
    assert not player.running
    assert repr(player) == "RunPlayer(run, step 8 of 8, 8 recorded)"


def test_every_button_does_what_its_method_does(player, run):
    press = {name: button.click for name, button in player.buttons.items()}
    press["step"]()
    assert run.i == 1
    press["breakpoint"]()
    assert [point.name for point in run.breakpoints] == ["step 1"]
    press["breakpoint"]()
    assert run.breakpoints == []
    press["play"]()  # no event loop: it waits
    assert run.i == 8
    press["back"]()
    assert run.i == 7
    press["start"]()
    assert run.i == 0
    press["play"]()
    assert run.i == 8
    press["play"]()  # from the end it begins anew
    assert (run.i, run.computed) == (8, 8)
    press["start"]()
    press["finish"]()
    assert run.i == 8
    press["pause"]()
    player._screen.controls.changes.value = "guidance_scale=1.0"
    press["start"]()
    press["branch"]()
    assert player.run is run.branches[0]
    assert player.run.changes == {"guidance_scale": 1.0}
    press["diverge"]()
    assert "nobody can be asked" in player.status
    assert set(press) == {"start", "back", "play", "pause", "step", "finish", "breakpoint", "branch", "diverge"}


def test_buttons_that_can_do_nothing_are_grey(player):
    grey = lambda: {name for name, button in player.buttons.items() if button.disabled}  # noqa: E731
    assert grey() == {"start", "back", "pause", "diverge"}
    player.finish()
    assert grey() == {"step", "finish", "pause", "diverge"}


def test_refusals_of_moves(player, run):
    with pytest.raises(ValueError, match="n is 1, expected at most 0"):
        player.back()
    with pytest.raises(ValueError, match="i is 9, expected a whole number from 0 to 8"):
        player.goto(9)
    with pytest.raises(TypeError, match="n is 1.5"):
        player.step(1.5)
    player.finish()
    with pytest.raises(RuntimeError, match="the run is over: all 8 steps are done"):
        player.step()
    assert run.i == 8


# Stopping


def test_a_breakpoint_stops_playing_and_says_so(player, run):
    player.toggle_breakpoint(5)
    assert "breakpoint set at step 5" in player.status
    player.finish()
    assert run.i == 5
    assert player.status == "stopped: breakpoint: step 5"
    player.play()
    assert run.i == 8
    player.goto(2)
    player.goto(7)  # as with the run's own goto, no breakpoint stops it
    assert run.i == 7
    player.toggle_breakpoint(5)
    assert run.breakpoints == []


def test_a_watch_stops_it_too(player, run):
    from workbench.stepping.timeline import Watch

    run.watches.append(Watch("odd", lambda before, after: "something odd" if after.i == 3 else None))
    player.finish()
    assert (run.i, player.status) == (3, "stopped: watch: something odd")
    player.step()
    assert player.status == ""


def test_breakpoints_are_marked_where_they_are_known(run):
    run.break_at(3)
    run.break_at(t=600)
    run.break_at(sigma=0.001)
    run.break_at(when=lambda state: 1 / 0)  # a function of the user's is never asked for a mark
    marks = BreakMarks()
    assert marks.of(run) == {3: True}
    run.goto(6)
    assert marks.of(run) == {3: True, 4: False}
    assert marks.of(run) == {3: True, 4: False}


def test_there_is_no_breakpoint_at_step_0(player):
    with pytest.raises(ValueError, match="i is 0"):
        player.toggle_breakpoint()
    player.buttons["breakpoint"].click()
    assert "i is 0" in player.status
    assert isinstance(player.error, ValueError)


# What goes wrong


def test_an_error_is_shown_with_its_traceback_and_kept(player, run):
    player.step()
    run.fault = RuntimeError("the model <broke>")
    player.buttons["play"].click()
    assert player.error is run.fault
    assert not player.running
    shown = player._screen.controls.status.value
    assert "the model &lt;broke&gt;" in shown
    assert "_compute" in shown
    assert run.i == 1
    run.fault = None
    player.buttons["step"].click()
    assert (run.i, player.error, player.status) == (2, None, "")


def test_a_method_raises_and_leaves_the_player_at_rest(player, run):
    run.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        player.finish()
    assert not player.running
    run.fault = None
    assert player.finish().i == 8


def test_what_is_no_run_is_refused(run, hole):
    with pytest.raises(TypeError, match="run is a Tensor without i, recorded.*expected a DenoisingRun"):
        RunPlayer(hole)
    with pytest.raises(TypeError, match="run is a NoneType"):
        RunPlayer(None)
    with pytest.raises(TypeError, match="other is a str"):
        RunPlayer(run, "run")
    with pytest.raises(TypeError, match="diverge is a int"):
        RunPlayer(run, diverge=3)
    with pytest.raises(ValueError, match="mask has shape"):
        RunPlayer(run, mask=torch.zeros(1, 3, 8, 8))


def test_after_closing_nothing_moves(player, run):
    before = len(Widget._instances) if hasattr(Widget, "_instances") else None
    player.close()
    player.close()
    with pytest.raises(RuntimeError, match="the player is closed"):
        player.goto(3)
    player.buttons["step"].click()
    assert run.i == 0
    assert before is None or len(Widget._instances) < before


# The time line


def test_click_and_drag_on_the_bar(player, run):
    mouse = Mouse(player)
    mouse.click(5)
    assert (run.i, run.recorded) == (5, 5)
    mouse.drag(4, 3, 2, 1)
    assert (run.i, run.recorded) == (1, 5)
    mouse.send("mouse_down", line(player).place_of(2), 30)
    mouse.send("mouse_move", line(player).place_of(8), 30)
    assert (run.i, run.recorded) == (5, 5)  # nothing is computed while the button is held
    mouse.send("mouse_out", 0, 0)
    assert (run.i, run.recorded) == (8, 8)
    mouse.send("mouse_move", line(player).place_of(3), 30)
    assert run.i == 8
    mouse.click(-3)
    assert run.i == 0


def test_touch_scrubs(player, run):
    layer = line(player).canvas._canvases[-1]
    for event, step in (("touch_start", 1), ("touch_move", 2), ("touch_move", 3), ("touch_end", None)):
        touches = [] if step is None else [{"x": line(player).place_of(step) * time_line.DENSITY, "y": 60}]
        layer._handle_frontend_event(layer, {"event": event, "touches": touches}, [])
    assert run.i == 3


def test_a_click_above_the_bar_sets_and_takes_out_a_breakpoint(player, run):
    mouse = Mouse(player)
    mouse.click(4, y=8)
    assert [point.name for point in run.breakpoints] == ["step 4"]
    assert line(player)._scene.marks == ((4, True),)
    assert run.i == 0
    mouse.click(4, y=8)
    assert line(player)._scene.marks == ()
    mouse.click(0, y=8)
    assert "expected a whole number from 1 to 8" in player.status


def test_keys(player, run):
    mouse = Mouse(player)
    mouse.key("ArrowRight")
    mouse.key("ArrowRight")
    mouse.key("b")
    assert (run.i, len(run.breakpoints)) == (2, 1)
    mouse.key("ArrowLeft")
    mouse.key(" ")
    assert (run.i, player.status) == (2, "stopped: breakpoint: step 2")
    mouse.key("End")
    assert run.i == 8
    mouse.key("Home")
    assert run.i == 0
    mouse.key("b", ctrl_key=True)
    mouse.key("q")
    assert len(run.breakpoints) == 1
    mouse.key("ArrowLeft")
    assert "expected at most 0" in player.status


def test_the_number_of_the_step_can_be_typed(player, run):
    player._screen.controls.step.value = 6
    assert run.i == 6
    assert player._screen.controls.step.max == 8


def test_a_reopened_page_gets_the_time_line_again(player, monkeypatch):
    import ipycanvas.canvas

    sent = []
    monkeypatch.setattr(ipycanvas.canvas._CANVAS_MANAGER, "send", lambda *args, **kwargs: sent.append(args))
    Mouse(player).send("client_ready", 0, 0)
    assert len(sent) == 1
    player.redraw()
    assert len(sent) == 2


# Branches


def test_branch_and_switch(player, run):
    player.goto(4)
    child = player.branch(guidance_scale=1.0)
    assert player.run is child
    assert (child.at, child.i, run.i) == (4, 4, 4)
    assert "branched: run.1 at 4: guidance_scale=1.0" in player.status
    player.finish()
    assert (child.recorded, run.recorded) == (8, 4)
    scene = line(player)._scene
    assert [(track.label, track.start, track.here) for track in scene.tracks] == [
        ("run", 0, False),
        ("run.1 at 4: guidance_scale=1.0", 4, True),
    ]
    Mouse(player).click(6, y=time_line.LANES + 3)  # the lane of the root
    assert player.run is run
    assert run.i == 4  # no more of it is recorded
    player._screen.controls.run.value = 1
    assert player.run is child
    assert child.i == 4


def test_changes_are_read_as_plain_values():
    assert parse_changes('guidance_scale=1.0, prompt="a, b=c", seeds=[1, 2]') == {
        "guidance_scale": 1.0,
        "prompt": "a, b=c",
        "seeds": [1, 2],
    }
    assert parse_changes("  ") == {}
    for text in ("1.0", "a=open('x')", "a=", "**{}", "x=1) + f(y=2"):
        with pytest.raises(ValueError, match="expected names and values such as guidance_scale=1.0"):
            parse_changes(text)


def test_changes_that_cannot_be_read_are_told(player, run):
    player._screen.controls.changes.value = "guidance 7"
    player.buttons["branch"].click()
    assert "'guidance 7' cannot be read" in player.status
    assert run.branches == []


def test_labels(run):
    run.goto(2)
    assert label(run) == "run"
    assert label(run.branch()) == "run.1 at 2: unchanged"
    assert label(run.branch(edit=print, prompt="x" * 60)).startswith("run.2 at 2: edit=builtin_function_or_method, p")


# Two runs


def test_two_runs_keep_to_one_step(run, make_run):
    other = make_run(seed=1)
    player = RunPlayer(run, other)
    for move in (player.step, lambda: player.goto(5), player.back, lambda: player.step(2), player.finish):
        move()
        assert run.i == other.i
    assert len(player._screen.gallery.widget.children) == 3
    assert titles(player, 2) == ["Δ x_t", "Δ x0", "Δ noise", "Δ guidance"]
    assert all(view.note.startswith("bright") for view in panels(player, 2))
    assert repr(player) == "RunPlayer(run, step 8 of 8, 8 recorded, beside run)"
    player.compare(None)
    assert player.other is None
    assert len(player._screen.gallery.widget.children) == 1
    player._screen.controls.other.value = 0  # it is still to be had
    assert player.other is other
    with pytest.raises(ValueError, match="expected another one"):
        player.compare(run)


def test_equal_runs_are_told_to_be_equal(run, make_run):
    player = RunPlayer(run, make_run())
    player.goto(3)
    assert [view.note for view in panels(player, 2)] == ["equal to the bit"] * 4


def test_breakpoints_of_both_stop_both(run, make_run):
    other = make_run(seed=1)
    player = RunPlayer(run, other)
    other.break_at(3)
    player.finish()
    assert (run.i, other.i) == (3, 3)
    assert player.status == "stopped: run: breakpoint: step 3"


def test_a_shorter_one_stays_at_its_end(run, make_run):
    other = make_run(steps=5)
    player = RunPlayer(run, other)
    player.finish()
    assert (run.i, other.i) == (8, 5)
    assert "run ends at step 5" in player.status
    assert [view.note for view in panels(player, 2)] == ["not at the same step"] * 4
    player.goto(2)
    assert (run.i, other.i) == (2, 2)


def test_a_fault_in_the_second_leaves_both_where_they_were(run, make_run):
    other = make_run()
    player = RunPlayer(run, other)
    player.goto(2)
    other.fault = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        player.step()
    assert (run.i, other.i) == (2, 2)


def test_divergence_is_asked_for_and_gone_to(run, make_run):
    class Found:
        step = 3

        def __str__(self):
            return "they part in step 3"

    player = RunPlayer(run, diverge=lambda a, b: Found())
    with pytest.raises(RuntimeError, match="one run only"):
        player.find_divergence()
    other = make_run()
    player.compare(other)
    player.goto(6)
    player.buttons["diverge"].click()
    assert (run.i, other.i, player.status) == (3, 3, "they part in step 3")
    player._diverge = lambda a, b: None
    assert player.find_divergence() is None
    assert "no difference" in player.status
    assert player.buttons["diverge"] in _all(player.widget)
    assert RunPlayer(run).buttons["diverge"] not in _all(RunPlayer(run).widget)


def _all(widget):
    return [widget, *(found for child in getattr(widget, "children", ()) for found in _all(child))]


# Recordings


def test_a_recording_ends_where_it_ends(make_run):
    run = make_run(alive=False, known=5)
    player = RunPlayer(run)
    player.finish()
    assert run.i == 5
    assert player.status == "run ends at step 5: it has no more."
    player.goto(1)
    player.buttons["play"].click()
    assert (run.i, player.running) == (5, False)
    player.goto(2)
    Mouse(player).click(8)
    assert (run.i, player.status) == (5, "run ends at step 5: it has no more.")
    with pytest.raises(RuntimeError, match="is a recording and cannot go on"):
        player.branch()


def test_without_pictures_there_are_false_colours(make_run, hole):
    player = RunPlayer(make_run(pictures=False, known=4), mask=hole)
    player.goto(3)
    assert [view.note for view in panels(player)[:3]] == ["false colours"] * 3
    assert player.snapshot().shape[-1] == 880


def test_a_recording_of_a_real_run(real_run, tmp_path):
    real_run.goto(4)
    recording = load_recording(save_recording(real_run, tmp_path / "run.safetensors"))
    player = RunPlayer(recording, real_run, diverge=first_divergence)
    player.goto(3)
    assert [view.note for view in panels(player, 2)][2:] == ["equal to the bit"] * 2
    player.finish()
    assert recording.i == 4
    assert "ends at step 4" in player.status
    assert player.find_divergence() is None


# Panels


def test_what_the_panels_show(player, run):
    assert titles(player) == ["x_t: latents", "x0: predicted picture", "predicted noise", "|text - uncond|"]
    assert [view.note for view in panels(player)] == ["decoded"] + ["at step 0 there is none"] * 3
    player.step()
    gap = run.state.noise_pred_text - run.state.noise_pred_uncond
    bright = float(gap[0].square().mean(0).sqrt().max())
    assert [view.note for view in panels(player)] == ["decoded", "decoded", "false colours", f"bright = {bright:.2g}"]
    shown = player._screen.gallery._rows[0][1][1]._image.value
    assert Image.open(io.BytesIO(shown)).size == (48, 32)


def test_numbers_of_the_state_are_told(player):
    player.goto(2)
    told = player._screen.controls.numbers.value
    for number in ("<td>2</td>", "<td>800</td>", "<td>5</td>", "<td>3</td>", "<td>0-2-01234567</td>"):
        assert number in told


def test_the_edge_of_the_hole(run, hole):
    player = RunPlayer(run, mask=hole)
    player.step()
    assert titles(player, 1) == ["before blending", "after blending", "change by blending", "x0 at the edge"]
    sizes = {tuple(view.picture.shape) for view in panels(player, 1)}
    assert len(sizes) == 1
    run.state.kept = False
    player.refresh()
    assert panels(player, 1)[1].note == "no blending in this step"
    run.arguments["mask_image"] = hole
    assert torch.equal(RunPlayer(run)._views.hole, hole)
    run.arguments["mask_image"] = torch.zeros_like(hole)
    assert RunPlayer(run)._views.hole is None
    run.arguments["mask_image"] = "a path"
    assert RunPlayer(run)._views.hole is None


def test_an_unguided_run(make_run):
    player = RunPlayer(make_run(guided=False))
    player.step()
    assert panels(player)[3] == View("|text - uncond|", "no guidance")


def test_pictures_of_a_batch(make_run):
    run = make_run(batch=3)
    player = RunPlayer(run)
    player.step()
    first = panels(player)[1].picture
    player.show_item(2)
    assert not torch.equal(panels(player)[1].picture, first)
    assert torch.equal(panels(player)[1].picture, run.decode(1, "denoised")[2:3])
    player._screen.controls.item.value = 0
    assert torch.equal(panels(player)[1].picture, first)
    with pytest.raises(ValueError, match="item is 3"):
        player.show_item(3)


def test_latents_in_other_layouts(make_run):
    run = make_run(pictures=False)
    run.step()
    for shape in ((1, 96, 16), (1, 4, 3, 8, 12), (1, 16, 8, 12)):
        state = run.state
        state.latents, state.noise_pred, state.denoised, state.solved = (torch.randn(shape) for _ in range(4))
        state.noise_pred_text = state.noise_pred_uncond = None
        views = Views().of_state(run, state)
        assert views[2].picture.shape[:2] == (1, 3)


def test_each_step_is_decoded_once(player, run):
    player.finish()
    for i in (3, 5, 3, 5, 8):
        player.goto(i)
    assert run.decoded == 1 + 2 * 3  # step 0 has no predicted picture


def test_in_a_hurry_slow_pictures_wait_for_rest(make_run, monkeypatch):
    run = make_run(known=8)
    decode = run.decode
    monkeypatch.setattr(run, "decode", lambda i, what: (time.sleep(0.06), decode(i, what))[1])
    player = RunPlayer(run)
    Mouse(player).send("mouse_down", line(player).place_of(3), 30)
    assert [view.note for view in panels(player)[:2]] == ["false colours"] * 2
    assert player._views.owing
    Mouse(player).send("mouse_up", line(player).place_of(3), 30)
    assert [view.note for view in panels(player)[:2]] == ["decoded"] * 2
    assert not player._views.owing


def test_on_the_way_drawing_takes_a_small_share_of_the_time(make_run, monkeypatch):
    """By a clock on which a step takes 0.02 s and a drawing 0.2 s; a step by hand and the end are always shown."""
    clock, drawn = SimpleNamespace(now=50.0), []
    clock.monotonic = lambda: clock.now
    for module in (timing, going):
        monkeypatch.setattr(module, "time", clock)
    run = make_run(steps=600)
    player = RunPlayer(run)
    forward, show = player._drive.forward, player._screen.show

    def slow():
        clock.now += 0.02
        return forward()

    def draw(drive, running, *rest):
        clock.now += 0.2
        drawn.append((drive.i, running))
        show(drive, running, *rest)

    player._drive.forward, player._screen.show = slow, draw
    player.step()
    player.step()
    assert drawn == [(1, False), (2, False)]
    drawn.clear()
    player.finish()
    assert drawn[-1] == (600, False)
    allowed = 600 * 0.02 / (0.2 * (1 / going.SHARE - 1))  # 6.7
    assert allowed - 1 <= len(drawn) - 1 <= allowed + 1
    assert all(running for _, running in drawn[:-1])
    assert player.buttons["step"].disabled
    player.close()


def test_the_static_picture_waits_while_it_goes(player, run, monkeypatch):
    followed = []
    monkeypatch.setattr(player._screen.static, "follow", lambda: followed.append(run.i))
    player._sparingly = timing.Sparingly(1.0, 0)  # everything is drawn
    player.finish()
    assert followed == [8]


def test_what_is_not_a_number_is_seen(player, run):
    player.step()
    run.state.latents[..., 0, 0] = torch.nan
    run.pictures = False
    player._views.forget()
    player.refresh()
    assert panels(player)[0].picture[0, :, 0, 0].tolist() == pytest.approx((0.90, 0.10, 0.45))


# On the page


def test_bundle_and_snapshot(player):
    player.goto(4)
    bundle = player._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert bundle["text/plain"] == "RunPlayer(run, step 4 of 8, 4 recorded)"
    png = base64.b64decode(bundle["image/png"])
    assert len(png) < 150_000
    assert Image.open(io.BytesIO(png)).size[0] == 880
    assert torch.equal(player.snapshot(), player.snapshot())
    check.image(player.snapshot())


def test_display_gives_two_outputs(player, monkeypatch):
    shown = []
    monkeypatch.setattr("workbench.widgets.shown.display", lambda *args, **kwargs: shown.append(args[0]))
    monkeypatch.setattr("workbench.widgets.static_picture.display", lambda *args, **kwargs: shown.append(args[0]))
    player.show()
    assert [set(bundle) - {"text/plain"} for bundle in shown] == [
        {"application/vnd.jupyter.widget-view+json"},
        {"image/png"},
    ]
    assert shown[1]["text/plain"] == "(the run player as a picture)"


def test_nothing_told_changes_from_day_to_day(run):
    told = [json.dumps(RunPlayer(run)._repr_mimebundle_()["text/plain"]) for _ in range(2)]
    assert told[0] == told[1]
    assert "0x" not in told[0]


# Threads, time and memory


def test_playing_leaves_the_loop_free_and_can_be_paused(run):
    async def watch():
        player = RunPlayer(run)
        player.play()
        assert player.running
        assert run.i == 1
        ticks = 0
        while run.i < 4:
            await asyncio.sleep(0.01)
            ticks += 1
        player.buttons["pause"].click()
        i = run.i
        await asyncio.sleep(0.4)
        assert run.i == i < 8
        assert ticks >= 3  # others had their turn between any two steps
        player.finish(wait=False)
        assert run.i == i + 1
        while player.running:
            await asyncio.sleep(0.01)
        assert run.i == 8
        player.goto(2)
        player.play()
        player.back()  # any other move ends it
        await asyncio.sleep(0.3)
        assert (run.i, player.running) == (2, False)
        player.play()
        player.close()
        await asyncio.sleep(0.3)

    asyncio.run(watch())


def test_a_fault_while_playing_by_itself_is_told(run):
    async def watch():
        player = RunPlayer(run)
        player.play()
        run.fault = ValueError("went wrong later")
        while player.running:
            await asyncio.sleep(0.01)
        assert player.status == "went wrong later"
        assert "Traceback" in player._screen.controls.status.value

    asyncio.run(watch())


def test_pause_from_another_thread_is_heard(make_run):
    run = make_run(steps=100)
    player, compute = RunPlayer(run), run._compute
    clicking = threading.Thread(target=player.buttons["pause"].click)

    def compute_and_click():
        compute()
        if run.computed == 50:  # the click comes while step 50 is being done
            clicking.start()
            deadline = time.monotonic() + 10
            while player.running and time.monotonic() < deadline:
                time.sleep(0.001)

    run._compute = compute_and_click
    player.finish()
    clicking.join()
    assert run.i == 50
    assert not player.running


@pytest.mark.long
def test_moves_from_several_threads_at_once(make_run):
    run = make_run(steps=60)
    player = RunPlayer(run, make_run(steps=60, seed=1))
    failed = []

    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        try:
            for i in torch.randint(0, 60, (15,), generator=generator).tolist():
                player.goto(i)
                player.toggle_breakpoint(1 + i % 50)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert player.run.i == player.other.i


@pytest.mark.long
def test_a_real_run_from_another_thread(real_run, pipe):
    player = RunPlayer(real_run)
    for _ in range(2):
        thread = threading.Thread(target=player.step)
        thread.start()
        thread.join()
        player.step()
    assert real_run.i == 4
    assert torch.is_grad_enabled()
    player.finish()
    untouched = type(real_run)(pipe, seed=3, **real_run.arguments)
    untouched.finish()
    assert untouched.states[6].digest == real_run.states[6].digest


@pytest.mark.long
def test_a_real_run_in_all_its_panels(real_run):
    player = RunPlayer(real_run, diverge=first_divergence)
    player.finish()
    assert torch.equal(panels(player)[0].picture, real_run.output.images.float().clamp(0, 1))
    assert titles(player, 1)[1] == "after blending"
    assert panels(player, 1)[1].note == "kept part put back"
    player.goto(3)
    child = player.branch(guidance_scale=1.0)
    player.finish()
    player.compare(real_run)
    found = player.find_divergence()
    assert found.step == 4
    assert (child.i, real_run.i) == (4, 4)
    assert "guidance_scale is 1.0" in player.status
    assert player.snapshot().shape[:2] == (1, 3)


@pytest.mark.long
def test_scrubbing_grows_nothing(make_run, hole):
    run = make_run(steps=20, known=20)
    player = RunPlayer(run, mask=hole)

    def scrub(times):
        generator = torch.Generator().manual_seed(times)
        for i in torch.randint(0, 21, (times,), generator=generator).tolist():
            player.scrub(i, final=i % 3 == 0)
        gc.collect()
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects()), _widgets()

    for i in range(21):
        player.goto(i)
    before = scrub(20)
    after = scrub(200)
    assert after[0] <= before[0] + 8
    assert after[1] == before[1]
    player.close()


def _widgets() -> int:
    import ipywidgets.widgets.widget as module

    return len(module._instances)


def test_decoded_pictures_have_a_limit(make_run, monkeypatch):
    monkeypatch.setattr("workbench.widgets.run_player.views.KEPT", 10 * 3 * 32 * 48 * 4)
    run = make_run(steps=40)
    player = RunPlayer(run)
    for i in range(1, 41):
        player.goto(i)
    assert len(player._views._decoded) == 10


def test_a_closed_player_lets_go(make_run):
    run = make_run()
    player = RunPlayer(run)
    player.step()
    player.close()
    gone = weakref.ref(player._views)
    assert not gone()._decoded
