"""The mask editor without a browser: every gesture by method and by simulated mouse, finger and key."""

import datetime
import json
import sys
import threading
import time

import ipycanvas.canvas
import numpy as np
import pytest
import torch

import workbench as wb
from workbench.widgets.mask_editor import editor as mask_editor
from workbench.widgets.mask_editor import layers, sketch
from workbench.widgets.mask_editor.viewport import Viewport
from workbench.widgets.stage import drawing

SIZE = (60, 90)  # (H, W)


@pytest.fixture
def photograph():
    picture = torch.full((1, 3, *SIZE), 0.2)
    picture[..., 10:20, 30:50] = 0.9
    return picture


@pytest.fixture
def editor(photograph):
    editor = wb.MaskEditor(photograph)
    yield editor
    editor.close()


@pytest.fixture
def messages(monkeypatch):
    """Every draw message that would go to the browser."""
    sent = []
    monkeypatch.setattr(ipycanvas.canvas._CANVAS_MANAGER, "send", lambda *args, **kwargs: sent.append((args, kwargs)))
    return sent


class Mouse:
    """Events as the browser sends them; points in pixels of the photograph."""

    def __init__(self, editor):
        self.viewport = editor._view.viewport
        self.layer = editor._view.canvas._canvases[-1]

    def send(self, event, **content):
        self.layer._handle_frontend_event(self.layer, {"event": event, **content}, [])

    def at(self, event, x, y):
        canvas_x, canvas_y = self.viewport.to_canvas(x, y)
        self.send(event, x=canvas_x, y=canvas_y)

    def drag(self, *points):
        self.at("mouse_down", *points[0])
        for point in points[1:]:
            self.at("mouse_move", *point)
        self.at("mouse_up", *points[-1])

    def click(self, x, y):
        self.drag((x, y))

    def key(self, key, **modifiers):
        keys = {"shift_key": False, "ctrl_key": False, "meta_key": False} | modifiers
        self.send("key_down", key=key, **keys)

    def touch(self, event, *points):
        places = [dict(zip("xy", self.viewport.to_canvas(*point), strict=True)) for point in points]
        self.send(event, touches=places)


@pytest.fixture
def mouse(editor):
    return Mouse(editor)


def names(editor):
    return [entry["gesture"] for entry in editor.log]


def status(editor):
    return editor._toolbar.status.value


# Masks out


def test_mask_is_a_hard_copy_and_soft_mask_keeps_the_edge(editor):
    editor.stroke([(45, 30)], radius=10, softness=1)
    assert editor.mask.shape == editor.soft_mask.shape == (1, 1, *SIZE)
    assert editor.mask.dtype == torch.float32
    assert set(editor.mask.unique().tolist()) == {0, 1}
    assert len(editor.soft_mask.unique()) > 5
    assert torch.equal(editor.mask, (editor.soft_mask >= 0.5).float())
    editor.mask.fill_(1)
    assert editor.mask.mean() < 0.1


def test_every_gesture_has_a_method(editor, photograph, tmp_path):
    editor.stroke([(10, 10), (30, 12)], radius=4)
    editor.rectangle(50, 5, 80, 20)
    editor.ellipse(50, 30, 80, 55)
    editor.polygon([(5, 30), (20, 30), (12, 50)], erase=False)
    editor.lasso([(25, 30), (40, 30), (30, 50)])
    editor.fill(40, 15)
    editor.grow(2)
    editor.shrink(1)
    editor.feather(3)
    editor.invert()
    editor.save(tmp_path / "mask.png")
    soft = editor.soft_mask
    editor.clear()
    editor.load(tmp_path / "mask.png")
    assert torch.equal(editor.soft_mask, soft)  # soft edges come back from the file too
    editor.extend(left=8, top=16)
    assert editor.image.shape == (1, 3, 76, 98)
    editor.load_photograph("coffee")
    assert editor.image.shape == (1, 3, 400, 600)
    log = json.loads(json.dumps(editor.log))
    assert torch.equal(wb.MaskEditor.replay(photograph, log).soft_mask, editor.soft_mask)
    while editor._document.can_undo:
        editor.undo()
    assert torch.equal(editor.image, photograph)
    assert editor.mask.sum() == 0
    editor.redo()
    assert editor.mask.sum() > 0


def test_editors_agree_with_wb_mask(editor):
    editor.ellipse(20, 10, 60, 50)
    assert torch.equal(editor.mask, wb.mask.ellipse(SIZE, (20, 10, 60, 50)))
    editor.clear()
    editor.stroke([(10, 10), (80, 50)], radius=5)
    assert torch.equal(editor.mask, wb.mask.stroke(SIZE, [(10, 10), (80, 50)], radius=5))


def test_recall_picks_the_last_hole_of_any_editor(editor, photograph, monkeypatch):
    monkeypatch.setattr(mask_editor, "_last_hole", {})
    with pytest.raises(RuntimeError, match="no mask was drawn in this session yet"):
        editor.recall()
    editor.rectangle(5, 5, 30, 30)
    hole = editor.mask
    editor.clear()
    editor.recall()
    assert torch.equal(editor.mask, hole)
    other = wb.MaskEditor(1 - photograph)
    other.recall()
    assert torch.equal(other.mask, hole)
    with pytest.raises(ValueError, match=r"mask is \(60, 90\)"):
        wb.MaskEditor("coffee").recall()


def test_trimap_mode(photograph, tmp_path):
    editor = wb.MaskEditor(photograph, mode="trimap")
    editor.ellipse(20, 10, 60, 50)
    editor.stroke([(20, 30), (60, 30)], radius=3, label="unknown")
    assert editor.trimap.unique().tolist() == [0, 0.5, 1]
    wb.check.trimap(editor.trimap, like=photograph)
    trimap = editor.trimap
    editor.save(tmp_path / "trimap.png")
    editor.clear()
    editor.load(tmp_path / "trimap.png")
    assert torch.equal(editor.trimap, trimap)
    assert torch.equal(wb.MaskEditor.replay(photograph, editor.log, mode="trimap").trimap, trimap)
    with pytest.raises(RuntimeError, match=r"read editor\.trimap"):
        _ = editor.mask
    with pytest.raises(RuntimeError, match=r"read editor\.mask"):
        _ = wb.MaskEditor(photograph).trimap
    mouse = Mouse(editor)
    editor._settings.tool, editor._settings.label = "rectangle", "unknown"
    mouse.drag((1, 1), (6, 5))
    assert editor.log[-1]["label"] == "unknown"
    assert (editor.trimap[..., 1:5, 1:6] == 0.5).all()
    assert "foreground" in status(editor)


def test_repr_is_deterministic(editor, photograph):
    assert repr(editor) == "MaskEditor(60x90 photograph, hole 0.0 %, 0 gestures)"
    editor.rectangle(0, 0, 45, 60)
    assert repr(editor) == "MaskEditor(60x90 photograph, hole 50.0 %, 1 gesture)"
    assert repr(wb.MaskEditor(photograph, editor.mask)) == "MaskEditor(60x90 photograph, hole 50.0 %, 0 gestures)"


def test_bundle_and_snapshot(editor, photograph):
    editor.rectangle(0, 0, 45, 60)
    bundle = editor._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    picture = editor.snapshot()
    assert picture.shape == (1, 3, *SIZE)
    assert torch.equal(picture[..., 45:], photograph[..., 45:])
    assert not torch.equal(picture[..., :45], photograph[..., :45])


# Errors


def test_errors_say_what_was_expected(editor, photograph):
    with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 9, 9\), expected \(1, 1, 60, 90\)"):
        wb.MaskEditor(photograph, torch.zeros(1, 1, 9, 9))
    with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 9, 9\)"):
        editor.load(torch.zeros(1, 1, 9, 9))
    with pytest.raises(RuntimeError, match="no gesture to undo"):
        editor.undo()
    with pytest.raises(ValueError, match="factor"):
        editor.zoom(0)


def test_broken_upload_is_told_and_changes_nothing(editor):
    editor.rectangle(5, 5, 30, 30)
    before, log = editor.mask, editor.log
    content = {"name": "x.png", "type": "image/png", "size": 10, "content": memoryview(b"no picture")}
    content["last_modified"] = datetime.datetime(2026, 1, 1)
    for upload in (editor._toolbar.photograph, editor._toolbar.mask_file):
        upload.set_trait("value", ({**content},))
        assert "error" in status(editor)
        assert "not a picture" in status(editor)
        assert upload.value == ()
    assert torch.equal(editor.mask, before)
    assert editor.log == log
    editor.invert()
    assert "error" not in status(editor)


def test_an_error_in_a_mouse_event_is_told_and_ends_the_gesture(editor, mouse, monkeypatch):
    mouse.at("mouse_down", 10, 10)
    monkeypatch.setattr(editor._document, "continue_stroke", lambda point: 1 / 0)
    mouse.at("mouse_move", 20, 20)
    assert "division by zero" in status(editor)
    assert editor.mask.sum() == 0
    monkeypatch.undo()
    mouse.drag((10, 10), (20, 20))
    assert names(editor) == ["stroke"]


def test_an_exception_while_drawing_leaves_no_canvas_waiting(editor, messages, monkeypatch):
    manager = ipycanvas.canvas._CANVAS_MANAGER

    def draw_half():
        with drawing(editor._view.canvas):
            editor._view.canvas[0].fill_rect(0, 0, 5, 5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw_half()
    assert not manager._caching
    assert not manager._commands_cache
    assert not messages
    monkeypatch.setattr(sketch.Ellipse, "outline", lambda *args: 1 / 0)
    Mouse(editor).at("mouse_move", 5, 5)
    editor._attempt(editor._view.flush)  # as the timer does
    assert "division by zero" in status(editor)
    assert not manager._caching
    monkeypatch.undo()
    Mouse(editor).drag((5, 5), (9, 9))
    assert names(editor) == ["stroke"]


# Mouse, fingers, keys


def test_brush_and_eraser(editor, mouse):
    mouse.drag((10, 30), (40, 30), (80, 30))
    radius = editor._settings.radius
    assert torch.equal(editor.mask, wb.mask.stroke(SIZE, [(10, 30), (80, 30)], radius))
    editor._settings.tool = "eraser"
    mouse.drag((45, 10), (45, 50))
    assert editor.mask[0, 0, 30, 45] == 0
    assert editor.log[-1]["erase"] is True
    assert editor.log[0]["points"] == [[10, 30], [40, 30], [80, 30], [80, 30]]


@pytest.mark.parametrize(("tool", "cut"), [("rectangle", False), ("ellipse", False), ("rectangle", True)])
def test_boxes(editor, mouse, tool, cut):
    editor.invert() if cut else None
    editor._settings.set_trait("tool", tool)
    editor._settings.cut = cut
    mouse.drag((60, 40), (30, 30), (20, 10))
    expected = wb.mask.box(SIZE, (20, 10, 60, 40)) if tool == "rectangle" else wb.mask.ellipse(SIZE, (20, 10, 60, 40))
    assert torch.equal(editor.mask, 1 - expected if cut else expected)
    mouse.click(5, 5)  # no box was pulled open
    assert len(editor.log) == 1 + cut


def test_polygon_closes_by_double_click_first_corner_or_enter(editor, mouse, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    editor._settings.tool = "polygon"
    corners = [(10, 10), (50, 10), (50, 40)]
    for close in ("double", "first", "Enter"):
        for corner in corners:
            now[0] += 1
            mouse.click(*corner)
        if close == "double":
            now[0] += 0.1
            mouse.click(50, 40)
        elif close == "first":
            now[0] += 1
            mouse.click(10.1, 10.1)
        else:
            mouse.key("Enter")
        assert editor.log[-1]["points"] == [list(corner) for corner in corners]
    for corner in corners:
        now[0] += 1
        mouse.click(*corner)
    mouse.key("Escape")
    mouse.key("Enter")
    assert len(editor.log) == 3


def test_lasso_bucket_and_pan(editor, mouse):
    editor._settings.tool = "lasso"
    mouse.drag((10, 10), (30, 10), (30, 40), (10, 40))
    assert torch.equal(editor.mask, wb.mask.lasso(SIZE, editor.log[-1]["points"]))
    editor._settings.tool = "bucket"
    mouse.click(40, 15)
    assert editor.mask[0, 0, 10:20, 30:50].all()
    editor.zoom(4)
    editor._settings.tool = "pan"
    place = mouse.viewport.to_picture(450, 300)
    mouse.send("mouse_down", x=450, y=300)
    mouse.send("mouse_move", x=480, y=320)
    mouse.send("mouse_up", x=480, y=320)
    assert np.allclose(mouse.viewport.to_picture(480, 320), place, atol=0.02)
    assert names(editor) == ["lasso", "fill"]


def test_the_mouse_leaving_mid_stroke_ends_it_at_the_frame(editor, mouse):
    mouse.at("mouse_down", 20, 30)
    mouse.send("mouse_out", x=-300, y=mouse.viewport.to_canvas(0, 30)[1])
    mouse.at("mouse_move", 80, 50)
    mouse.at("mouse_up", 80, 50)
    assert names(editor) == ["stroke"]
    assert editor.mask[0, 0, 30, 0] == 1
    assert editor.mask[0, 0, 50, 80] == 0


def test_wheel_zooms_at_the_mouse(editor, mouse):
    mouse.at("mouse_move", 70, 20)
    place = mouse.viewport.to_canvas(70, 20)
    mouse.send("mouse_wheel", x=0, y=-300)
    assert mouse.viewport.scale > 1.5 * wb.MaskEditor(editor.image)._view.viewport.scale
    assert np.allclose(mouse.viewport.to_canvas(70, 20), place)
    mouse.send("mouse_wheel", x=0, y=3000)
    assert mouse.viewport.fitted
    assert editor.log == []


def test_fingers(editor, mouse):
    mouse.touch("touch_start", (20, 30))
    mouse.touch("touch_move", (60, 30))
    mouse.touch("touch_end")
    assert editor.log[-1]["points"][-1] == [60, 30]
    scale = mouse.viewport.scale
    mouse.touch("touch_start", (40, 30))
    mouse.touch("touch_start", (40, 30), (50, 30))
    mouse.touch("touch_move", (35, 30), (55, 30))
    mouse.touch("touch_end", (35, 30))
    mouse.touch("touch_move", (5, 5))
    mouse.touch("touch_end")
    assert mouse.viewport.scale == pytest.approx(2 * scale)
    assert names(editor) == ["stroke"]


def test_keys(editor, mouse):
    for key, tool in (("e", "eraser"), ("r", "rectangle"), ("o", "ellipse"), ("p", "polygon"), ("h", "pan")):
        mouse.key(key)
        assert editor._settings.tool == tool
    for key, tool in (("l", "lasso"), ("f", "bucket"), ("b", "brush")):
        mouse.key(key)
        assert editor._settings.tool == tool
    radius = editor._settings.radius
    mouse.key("]")
    assert editor._settings.radius > radius
    mouse.key("[")
    assert editor._settings.radius == pytest.approx(radius)
    mouse.key("x")
    assert editor.mask.all()
    mouse.key("z", ctrl_key=True)
    assert not editor.mask.any()
    mouse.key("y")
    assert editor.mask.all()
    mouse.key("z")
    mouse.key("Z", shift_key=True, meta_key=True)
    assert editor.mask.all()
    mouse.key("b", ctrl_key=True)  # the browser's, not ours
    mouse.key("+")
    assert not mouse.viewport.fitted
    mouse.key("0")
    assert mouse.viewport.fitted
    mouse.key("z")
    mouse.key("z")
    assert "no gesture to undo" in status(editor)


@pytest.mark.parametrize(
    ("side", "grip", "to"),
    [
        ("left", (0, 30), (-16, 30)),
        ("right", (90, 30), (106, 30)),
        ("top", (45, 0), (45, -16)),
        ("bottom", (45, 60), (45, 76)),
    ],
)
def test_grips_extend_the_frame_in_whole_cells(editor, mouse, side, grip, to):
    editor._settings.tool = "frame"
    mouse.drag(grip, (to[0] * 0.6 + grip[0] * 0.4, to[1] * 0.6 + grip[1] * 0.4), (to[0] + 0.5, to[1] + 0.5))
    expected = {"left": 0, "right": 0, "top": 0, "bottom": 0} | {side: 16}
    assert editor.log[0][side] == 16
    assert torch.equal(editor.mask, wb.mask.outpaint(editor.mask.shape[-2:], **expected))
    mouse.drag((45, 30), (80, 50))  # no grip there
    assert len(editor.log) == 1


def test_controls_are_linked(editor):
    toolbar = editor._toolbar
    toolbar.tools.value = "bucket"
    assert editor._settings.tool == "bucket"
    toolbar.radius.value = 3
    editor.rectangle(30, 20, 50, 40)
    before = editor.mask
    grow = next(child for group in toolbar.header.children for child in group.children if child.description == "Grow")
    grow.click()
    assert torch.equal(editor.mask, wb.mask.grow(before, 3))
    toolbar.undo.click()
    assert torch.equal(editor.mask, before)
    assert toolbar.undo.disabled is False
    assert toolbar.redo.disabled is False


# What the canvas is sent


@pytest.mark.long
def test_a_thousand_moves_cost_few_messages(messages):
    editor = wb.MaskEditor(torch.rand(1, 3, 1600, 2500, generator=torch.Generator().manual_seed(0)))
    mouse = Mouse(editor)
    messages.clear()
    start = time.perf_counter()
    points = [(1250 + 700 * np.cos(a), 800 + 500 * np.sin(3 * a)) for a in np.linspace(0, 6, 1000)]
    mouse.drag(*points)
    seconds = time.perf_counter() - start
    assert names(editor) == ["stroke"]
    assert len(messages) <= 31 * seconds + 4  # at most 30 a second, and the flush at the end


def test_a_reopened_page_is_sent_everything(editor, mouse, messages):
    editor.rectangle(5, 5, 30, 30)
    messages.clear()
    mouse.send("client_ready")
    assert len(messages) == 1
    commands = json.loads(bytes(messages[0][1]["buffers"][0]))
    assert commands[0][0] == ipycanvas.canvas.COMMANDS["switchCanvas"]  # a new page knows no current canvas
    drawn = {command[0] for command in commands}
    assert {ipycanvas.canvas.COMMANDS[name] for name in ("drawImage", "putImageData")} <= drawn


def test_pictures_are_sent_without_loss(editor, messages, monkeypatch):
    sent = []
    monkeypatch.setattr(ipycanvas.Canvas, "put_image_data", lambda self, array, x, y: sent.append(array))
    editor.rectangle(5, 5, 30, 30)
    editor.show_latents()
    assert all(array.dtype == np.uint8 and array.shape[2] == 4 for array in sent)
    assert editor._view._photograph.format == "png"


@pytest.mark.parametrize("scale", [0.35, 1, 4])
def test_film_of_a_part_equals_the_part_of_the_film(scale):
    viewport = Viewport((300, 400))
    viewport.scale, viewport.offset = scale, (3.3, 7.7)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    whole = viewport.canvas_box(None)
    part = viewport.canvas_box((50, 20, 90, 70))
    rows, columns = slice(part[1] - whole[1], part[3] - whole[1]), slice(part[0] - whole[0], part[2] - whole[0])
    for film in (
        lambda box: layers.tint(pixels, "mask", viewport, box),
        lambda box: layers.latent_film(pixels, viewport, box),
    ):
        assert np.array_equal(film(part)[1:, 1:], film(whole)[rows, columns][1:, 1:])


@pytest.mark.long
def test_a_thin_stroke_stays_visible_when_made_smaller():
    editor = wb.MaskEditor(torch.zeros(1, 3, 3000, 4000), max_view=400)
    editor.stroke([(100, 100), (3900, 2800)], radius=1)
    viewport = editor._view.viewport
    film = layers.tint(editor._document.pixels, "mask", viewport, viewport.canvas_box(None))
    assert (film[..., 3] > 0).sum() > 300


def test_latent_cells_agree_with_to_latent_and_are_padded():
    editor = wb.MaskEditor(torch.zeros(1, 3, 60, 90))
    editor.stroke([(5, 5), (88, 58)], radius=2)
    nearest, any_, _ = layers.latent_cells(editor._document.pixels)
    padded = torch.nn.functional.pad(editor.mask, (0, 6, 0, 4))
    assert np.array_equal(nearest, wb.mask.to_latent(padded, "nearest")[0, 0].bool().numpy())
    assert np.array_equal(any_, wb.mask.to_latent(padded, "any")[0, 0].bool().numpy())
    assert "12 × 8 cells (kept pixels added" in status(editor)
    assert f"{nearest.sum()} hole by nearest" in status(editor)


@pytest.mark.long
def test_a_photograph_of_24_megapixels_is_shown_scaled_down():  # its time: tests/benchmarks/bench_mask_editor.py
    editor = wb.MaskEditor(torch.zeros(1, 3, 4000, 6000))
    editor.stroke([(100, 100), (5000, 3000)], radius=40)
    assert editor.mask[0, 0, 100, 100] == editor.mask[0, 0, 3000, 5000] == 1
    assert max(editor._view.viewport.canvas_size) <= 900


def test_a_closed_editor_draws_no_more_and_can_still_be_read(editor, messages):
    editor.rectangle(5, 5, 30, 30)
    editor.close()
    editor.close()
    messages.clear()
    editor.invert()
    assert not messages
    assert editor.mask.sum() == 60 * 90 - 625


def test_max_view_and_extreme_shapes():
    for size in ((1, 2000), (2000, 1), (1, 1)):
        editor = wb.MaskEditor(torch.zeros(1, 3, *size), max_view=300)
        editor.stroke([(0.5, 0.5)], radius=1)
        assert editor.mask.sum() >= 1
        height, width = editor._view.viewport.canvas_size
        assert 160 <= height <= 300
        assert 160 <= width <= 300


@pytest.mark.long
def test_drawing_from_two_threads(photograph):
    """JupyterLab hands the mouse to a thread of its own, and ipycanvas keeps one list of commands for all canvases."""
    editors = [wb.MaskEditor(photograph) for _ in range(2)]
    sent, failures = [], []
    manager = editors[0]._view.canvas._canvas_manager
    send, manager.send = manager.send, lambda content, buffers: sent.append((threading.get_ident(), content))

    def draw(editor):
        try:
            for _ in range(150):
                editor.redraw()
        except Exception as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # lets the two meet everywhere
    threads = [threading.Thread(target=draw, args=(editor,)) for editor in editors]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        manager.send = send
    assert not failures
    assert not manager._caching
    assert len(sent) == 300  # each redraw arrived, and as one message
