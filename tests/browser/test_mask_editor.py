"""The mask editor in a real JupyterLab, drawn on with a real mouse, at browser zoom 100 % and 150 %."""

import base64
import io
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.browser.editor_page import EditorPage

SIZE = (300, 400)  # (H, W)
RADIUS = 10  # the brush an editor of this size begins with
SETUP = """
import json, torch, workbench as wb
photo = torch.full((1, 3, 300, 400), 0.4)
photo[:, 0, 100:160, 250:330] = 0.9
editor = wb.MaskEditor(photo)
editor
"""
STATE = """
mask = editor.mask
print(json.dumps({
    "area": int(mask.sum()),
    "box": list(wb.mask.bounding_box(mask)) if mask.any() else None,
    "size": list(mask.shape[-2:]),
    "gestures": [entry["gesture"] for entry in editor.log],
    "scale": editor._view.viewport.scale,
}))
"""
RESET = """
editor._settings.tool = "brush"
editor.fit()
editor.load_photograph(photo)
editor.clear()
while editor._document._done: editor._document._done.pop()
"""


@pytest.fixture(scope="module", params=[1.0, 1.5], ids=["zoom-100", "zoom-150"])
def opened(request, open_notebook):
    notebook = open_notebook([SETUP, STATE, RESET], zoom=request.param)
    notebook.run(0)
    return EditorPage(notebook, SIZE)


@pytest.fixture
def editor(opened):
    """The same editor as for the last test, emptied."""
    opened.notebook.run(2)
    opened.viewport.show(SIZE)
    opened.show()
    opened.settle()
    return opened


# Mouse


def test_brush_eraser_undo_redo(editor):
    editor.drag((50, 50), (150, 50))
    editor.wait_for_tint(100, 50)
    assert editor.colour(300, 250) == [102, 102, 102]  # kept pixels are shown as they are
    stroke = editor.state()
    assert stroke["area"] == pytest.approx(2 * RADIUS * 100 + math.pi * RADIUS**2, rel=0.03)
    assert np.allclose(stroke["box"], (40, 40, 160, 60), atol=1)
    editor.press("Eraser")
    editor.drag((100, 20), (100, 80))
    editor.wait_for_tint(100, 50, tinted=False)
    erased = editor.state()
    assert erased["area"] == pytest.approx(stroke["area"] - 2 * RADIUS * 2 * RADIUS, rel=0.03)
    editor.root.locator("button[title^=Undo]").click()
    assert editor.state()["area"] == stroke["area"]
    editor.root.locator("button[title^=Redo]").click()
    assert editor.state()["area"] == erased["area"]


def test_rectangle_and_ellipse(editor):
    editor.press("Rectangle")
    editor.drag((60, 200), (160, 240))
    state = editor.state()
    assert np.allclose(state["box"], (60, 200, 160, 240), atol=1)
    assert state["area"] == pytest.approx(4000, rel=0.03)
    editor.press("Ellipse")
    editor.drag((200, 40), (300, 90))
    assert editor.state()["area"] - state["area"] == pytest.approx(math.pi * 50 * 25, rel=0.03)


def test_polygon_closed_by_double_click(editor):
    editor.press("Polygon")
    for corner in ((50, 200), (150, 200), (150, 260)):
        editor.click(*corner)
        editor.page.wait_for_timeout(500)
    editor.show()
    editor.mouse.dblclick(*editor.at(50, 260))
    state = editor.state()
    assert state["gestures"] == ["polygon"]
    assert state["area"] == pytest.approx(6000, rel=0.03)


def test_lasso(editor):
    editor.press("Lasso")
    angles = np.linspace(0, 2 * math.pi, 24)
    editor.drag(*((120 + 60 * math.cos(a), 150 + 40 * math.sin(a)) for a in angles), steps=2)
    assert editor.state()["area"] == pytest.approx(math.pi * 60 * 40, rel=0.05)


def test_bucket_takes_the_area_of_one_colour(editor):
    editor.press("Bucket")
    editor.click(290, 130)
    state = editor.state()
    assert state["box"] == [250, 100, 330, 160]
    assert state["area"] == 60 * 80


def test_wheel_zooms_at_the_pointer_and_drawing_stays_in_place(editor):
    editor.press("Pan")  # the wheel zooms once the editor has the focus
    editor.show()
    place = editor.at(300, 130)
    editor.mouse.move(*place)
    for _ in range(3):
        editor.mouse.wheel(0, -300)
    editor.page.wait_for_timeout(300)
    state = editor.state()
    assert state["scale"] > 2 * editor.viewport.scale  # how far a notch turns depends on the page's zoom
    editor.press("Brush")
    editor.show()
    editor.mouse.move(*place)
    editor.mouse.down()
    editor.mouse.up()
    x0, y0, x1, y1 = _newest_dot(editor)
    assert np.allclose(((x0 + x1) / 2, (y0 + y1) / 2), (300, 130), atol=1.5)


def test_pan_moves_the_picture_under_the_pointer(editor):
    editor.root.locator("button[title^='Zoom in']").click(click_count=4, delay=20)
    editor.settle()
    editor.press("Pan")
    editor.drag((200, 150), (240, 180))  # places of the fitted view: 40, 30 of its pixels farther
    editor.press("Brush")
    editor.click(200, 150)
    factor = editor.state()["scale"] / editor.viewport.scale
    x0, y0, x1, y1 = _newest_dot(editor)
    expected = (200 - 40 / factor, 150 - 30 / factor)  # the middle of the picture was moved to the lower right
    assert factor > 2
    assert np.allclose(((x0 + x1) / 2, (y0 + y1) / 2), expected, atol=1.5)


def _newest_dot(editor) -> list[int]:
    """The box of what the last gesture drew."""
    return editor.state()["box"]


def test_a_stroke_ends_where_the_mouse_leaves_the_canvas(editor):
    editor.show()
    box = editor.canvas.bounding_box()
    editor.mouse.move(*editor.at(50, 150))
    editor.mouse.down()
    editor.mouse.move(box["x"] - 40, editor.at(50, 150)[1], steps=5)
    editor.mouse.up()
    editor.mouse.move(*editor.at(200, 250), steps=5)  # comes back with no button pressed: draws nothing
    state = editor.state()
    assert state["gestures"] == ["stroke"]
    assert state["box"][0] == 0
    assert state["box"][3] <= 161


# Keys and wheel beside JupyterLab's own


def test_keys_go_to_the_editor_not_to_jupyterlab(editor):
    cells = editor.page.locator(".jp-Cell").count()
    editor.drag((50, 50), (60, 50))
    before = editor.state()["area"]
    editor.click(380, 280)
    for key in ("x", "b", "r", "h", "l", "z", "y", "x", "e", "]", "[", "+", "0"):
        editor.keyboard.press(key)
    editor.keyboard.press("r")
    editor.drag((60, 200), (160, 240))
    state = editor.state()
    assert editor.page.locator(".jp-Cell").count() == cells
    assert state["gestures"] == ["stroke", "stroke", "invert", "invert", "rectangle"]
    assert state["area"] > before + 3900
    editor.click(5, 5)
    editor.keyboard.press("Control+z")
    assert "rectangle" not in editor.state()["gestures"]


def test_escape_gives_a_polygon_up_and_enter_closes_it(editor):
    editor.press("Polygon")
    for corner in ((50, 50), (150, 50), (150, 110)):
        editor.click(*corner)
        editor.page.wait_for_timeout(500)
    editor.keyboard.press("Escape")
    for corner in ((50, 200), (150, 200), (150, 260)):
        editor.click(*corner)
        editor.page.wait_for_timeout(500)
    editor.keyboard.press("Enter")
    state = editor.state()
    assert state["gestures"] == ["polygon"]
    assert state["area"] == pytest.approx(3000, rel=0.05)


def test_the_wheel_scrolls_the_page_until_the_editor_is_clicked(editor):
    editor.page.locator(".jp-Notebook .cm-content").nth(1).click()  # the focus is elsewhere
    editor.show()
    editor.mouse.move(*editor.at(200, 150))
    before = editor.canvas.bounding_box()["y"]
    editor.mouse.wheel(0, 60)
    editor.page.wait_for_timeout(400)
    assert editor.canvas.bounding_box()["y"] < before - 20
    assert editor.state()["scale"] == pytest.approx(editor.viewport.scale)


# Files and the frame


def test_uploaded_photograph_and_broken_file(editor):
    file = io.BytesIO()
    Image.fromarray(np.full((120, 200, 3), 90, np.uint8)).save(file, "PNG")
    for name, content in (("photo.png", file.getvalue()), ("broken.png", file.getvalue()[:40])):
        with editor.page.expect_file_chooser() as chooser:
            editor.root.locator(".workbench-upload-photograph").click()
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})
        editor.page.wait_for_timeout(500)
    assert "picture" in editor.root.locator(".workbench-status .error").inner_text()
    state = editor.state()
    assert state["size"] == [120, 200]
    assert state["gestures"] == ["load_photograph"]


def test_a_photograph_of_more_than_ten_megabytes_can_be_uploaded(editor, tmp_path):
    """The server's default ends the connection there; `make lab` raises the limit."""
    noise = np.random.default_rng(0).integers(0, 256, (1900, 2100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png", compress_level=0)
    assert (tmp_path / "large.png").stat().st_size > 11_000_000
    with editor.page.expect_file_chooser() as chooser:
        editor.root.locator(".workbench-upload-photograph").click()
    chooser.value.set_files(tmp_path / "large.png")
    for _ in range(60):
        editor.page.wait_for_timeout(250)
        if "2100" in editor.status():
            break
    assert editor.state()["size"] == [1900, 2100]


def test_frame_grip_dragged_outward_extends_the_picture(editor):
    editor.press("Extend")
    editor.viewport.show(SIZE, room=0.3)
    editor.page.wait_for_timeout(300)
    editor.drag((400, 150), (464, 150))
    state = editor.state()
    assert state["size"] == [300, 464]
    assert state["box"] == [400, 0, 464, 300]


# Pages that come and go


def test_a_reloaded_page_is_drawn_again(editor):
    editor.drag((50, 50), (150, 50))
    editor.wait_for_tint(100, 50)
    editor.notebook.save()
    editor.page.reload()
    editor.notebook.wait_until_ready()
    editor.canvas.wait_for()
    editor.show()
    editor.wait_for_tint(100, 50)
    assert not editor.tinted(100, 100)
    editor.drag((50, 200), (150, 200))
    editor.wait_for_tint(100, 200)
    assert editor.state()["gestures"] == ["stroke", "stroke"]


def test_a_second_view_shows_the_same(open_notebook):
    notebook = open_notebook([SETUP, STATE, "editor"])
    notebook.run(0)
    notebook.run(2)
    first, second = EditorPage(notebook, SIZE), EditorPage(notebook, SIZE)
    second.root = notebook.page.locator(".workbench-mask-editor").nth(1)
    second.canvas = second.root.locator("canvas")
    first.drag((50, 50), (150, 50))
    second.wait_for_tint(100, 50)
    second.drag((50, 200), (150, 200))
    first.wait_for_tint(100, 200)
    assert first.state()["gestures"] == ["stroke", "stroke"]


def test_fingers_draw_move_and_zoom(open_notebook):
    notebook = open_notebook([SETUP, STATE], has_touch=True)
    notebook.run(0)
    editor = EditorPage(notebook, SIZE)
    editor.show()
    session = notebook.page.context.new_cdp_session(notebook.page)

    def touch(kind, *points):
        places = [dict(zip(("x", "y"), editor.at(*point), strict=True)) for point in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (50, 50))
    for x in (80, 110, 150):
        touch("touchMove", (x, 50))
    touch("touchEnd")
    state = editor.state()
    assert np.allclose(state["box"], (40, 40, 160, 60), atol=1)
    editor.show()
    touch("touchStart", (180, 150))
    touch("touchStart", (180, 150), (220, 150))
    for spread in (30, 40, 60):
        touch("touchMove", (200 - spread, 150), (200 + spread, 150))
    touch("touchEnd")
    zoomed = editor.state()
    assert zoomed["gestures"] == ["stroke"]
    assert zoomed["scale"] == pytest.approx(3 * state["scale"], rel=0.05)


def test_the_picture_survives_without_a_kernel(open_notebook, jupyter, screenshots):
    """The saved notebook holds the last state as a picture: on an HTML page, and in JupyterLab with no kernel."""
    notebook = open_notebook([SETUP, STATE])
    notebook.run(0)
    editor = EditorPage(notebook, SIZE)
    editor.drag((50, 50), (150, 50))
    editor.wait_for_tint(100, 50)
    assert not notebook.page.locator(".jp-RenderedImage img").is_visible()  # hidden below the living editor
    notebook.page.wait_for_timeout(1500)
    saved = notebook.save()
    outputs = saved.cells[0].outputs
    assert [set(output.data) for output in outputs] == [
        {"application/vnd.jupyter.widget-view+json", "text/plain"},
        {"image/png", "text/plain"},
    ]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(outputs[1].data["image/png"]))).convert("RGB"))
    assert picture.shape == (300, 400, 3)
    assert picture[50, 100, 0] > 150 > 80 > picture[50, 100, 1]
    page = notebook.path.with_suffix(".html")
    subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", "html", "--log-level=ERROR", str(notebook.path)], check=True
    )
    assert page.read_text().count('src="data:image/png;base64') == 1
    assert "MaskEditor(300x400 photograph, hole 0.0 %, 0 gestures)" in page.read_text()
    jupyter.stop_kernels()
    notebook.page.reload()
    image = notebook.page.locator(".jp-RenderedImage img")
    image.wait_for(timeout=30_000)
    assert image.is_visible()
    notebook.page.screenshot(path=screenshots / "without_kernel.png")


# How it looks


@pytest.mark.parametrize("zoom", [1.0, 1.5], ids=["zoom-100", "zoom-150"])
def test_looks(open_notebook, screenshots, zoom):
    """Takes the pictures to look at; checks that nothing sticks out of the editor."""
    show = (
        "import workbench as wb\neditor = wb.MaskEditor('coffee')\n"
        "editor.stroke([(120, 90), (180, 200), (260, 330)], radius=18)\neditor.ellipse(400, 60, 560, 160)\neditor"
    )
    trimap = (
        "trimap = wb.MaskEditor('chelsea', mode='trimap')\ntrimap.ellipse(120, 30, 330, 280)\n"
        "trimap.stroke([(225, 30), (330, 155), (225, 280), (120, 155), (225, 30)], radius=14, label='unknown')\ntrimap"
    )
    notebook = open_notebook([show, trimap, "editor.show_latents()"], zoom=zoom)
    name = f"editor_{round(zoom * 100)}"
    notebook.run(0)
    editor = EditorPage(notebook, SIZE)
    editor.show()
    notebook.page.wait_for_timeout(800)
    notebook.page.screenshot(path=screenshots / f"{name}.png")
    inside = editor.root.bounding_box()
    for button in editor.root.locator("button:visible").all():
        box = button.bounding_box()
        assert box["x"] + box["width"] <= inside["x"] + inside["width"] + 1
    notebook.run(2)
    editor.root.locator("button[title^=Keyboard]").click()
    editor.press("Bucket")
    editor.show()
    notebook.page.wait_for_timeout(500)
    notebook.page.screenshot(path=screenshots / f"{name}_latents.png")
    editor.press("Extend")
    notebook.page.wait_for_timeout(500)
    editor.show()
    box = editor.canvas.bounding_box()
    editor.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    editor.mouse.down()
    editor.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=4)
    notebook.page.wait_for_timeout(400)
    notebook.page.screenshot(path=screenshots / f"{name}_extend.png")
    editor.mouse.up()
    notebook.run(1)
    notebook.page.wait_for_timeout(800)
    notebook.page.locator(".workbench-mask-editor").nth(1).scroll_into_view_if_needed()
    notebook.page.screenshot(path=screenshots / f"{name}_trimap.png")
