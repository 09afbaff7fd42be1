"""The match view in a real JupyterLab: lines picked, chosen and coloured, points asked, by a real mouse and keys."""

import base64
import io

import pytest
from PIL import Image

from tests.browser.view_page import ViewPage
from workbench.widgets.match_view.view import HEIGHT, WIDTH
from workbench.widgets.stage import GAP, panes_of

SIZES = (128, 128), (128, 100)
SETUP = """
import json, torch, workbench as wb
from workbench.lenses import correspondence as cor
pair = cor.scene_pair("facade-00")
a, b = pair.image_a, pair.image_b[..., :100]
matches = wb.match(a, b, ransac="fundamental")
def patches(picture):
    small = torch.nn.functional.avg_pool2d(picture, 4)
    return torch.nn.functional.unfold(small - small.mean(), 5, padding=2).unflatten(-1, small.shape[-2:])
features = cor.feature_pair(a, b, features=patches)
print("ready")
"""
SHOW = """
if "view" in globals():
    view.close()
view = wb.MatchView(a, b, matches, features=features, truth=lambda points: cor.truth_at(points, pair.truth))
view
"""
STATE = """
answer = view.answer
print(json.dumps({"mode": view.mode, "threshold": view.threshold, "most": view.most, "flags": sorted(view.chosen_flags),
                  "colour": view.colour, "picked": view.picked, "shown": view.shown[:2], "count": len(view.shown),
                  "status": view.status,
                  "asked": answer and answer.point, "side": answer and answer.side, "error": repr(view.error),
                  "a": view._lines.a[view.shown[0]].tolist(), "b": view._lines.b[view.shown[0]].tolist()}))
"""
SPOIL = "view._asking._features = lambda point: torch.zeros(3, 3)"


@pytest.fixture(scope="module")
def notebook(open_notebook):
    notebook = open_notebook([SETUP, SHOW, STATE, SPOIL])
    notebook.page.set_default_timeout(60_000)
    assert "ready" in notebook.run(0)
    return notebook


@pytest.fixture
def view(notebook):
    notebook.run(1)
    panes = panes_of(SIZES, WIDTH, HEIGHT)
    size = panes[0].height, panes[1].left + panes[1].width
    page = ViewPage(notebook, "workbench-match-view", size)
    page.panes = panes
    page.canvas.wait_for()
    page.settle()
    return page


def test_threshold_flags_and_colours(view, screenshots):
    state = view.state()
    count = state["count"]
    assert count > 20
    view.screenshot(screenshots / "match_lines.png")
    view.nothing_sticks_out()
    view.slide("threshold", "ArrowRight", 20)
    fewer = view.state()
    assert fewer["threshold"] == pytest.approx(state["threshold"] + 0.2, abs=0.011)
    assert fewer["count"] < count
    view.press("Only matches that RANSAC")
    view.wait_for(flags=["inliers"])
    view.press("Only matches that RANSAC")
    view.press("Only matches that are farther off")
    view.wait_for(flags=["wrong"])
    view.press("Only matches that are farther off")
    view.press("Only matches within")
    view.wait_for(flags=["right"])
    view.press("Only matches within")
    view.press("Colour by error in px")
    view.wait_for(colour="error")
    view.root.locator(".workbench-scale", has_text="error in px").wait_for()
    view.root.locator(".workbench-most input").fill("5")
    view.root.locator(".workbench-most input").press("Enter")
    view.wait_for(most=5)
    assert view.state()["count"] == 5
    view.root.locator(".workbench-words", has_text="5 drawn, the surest").wait_for()


def test_lines_are_picked_by_mouse_buttons_and_keys(view, screenshots):
    state = view.state()
    sure = state["shown"][0]
    view.click(*view.panes[1].to_stage(*state["b"]))
    view.wait_for(picked=sure)
    view.wait_for_told(f"Match {sure}")
    view.press("The next match")
    view.wait_for(picked=state["shown"][1])
    view.press("The match before")
    view.wait_for(picked=sure)
    view.key("ArrowRight")
    view.wait_for(picked=state["shown"][1])
    view.screenshot(screenshots / "match_picked.png")
    view.press("Let go of what was picked")
    view.wait_for(picked=None, error="None")


def test_points_are_asked_in_both_pictures(view, screenshots):
    view.press("A click asks where a point is")
    view.wait_for(mode="point")
    x, y = view.state()["a"]
    view.click(*view.panes[0].to_stage(x, y))
    state = view.wait_for(side="a")
    assert state["asked"] == pytest.approx((x, y), abs=0.5)
    view.wait_for_told("best match")
    view.root.locator(".workbench-scale", has_text="similarity").wait_for()
    view.screenshot(screenshots / "match_asked.png")
    view.nothing_sticks_out()
    view.click(*view.panes[1].to_stage(50, 60))
    assert view.wait_for(side="b")["asked"] == pytest.approx((50, 60), abs=0.5)
    view.click(view.panes[0].width + GAP / 2, 100)  # between the pictures
    view.wait_for(side="b")
    view.key("Escape")
    view.wait_for(asked=None)
    view.press("A click picks a match")
    view.wait_for(mode="match")


def test_what_goes_wrong_is_told(view):
    view.press("A click asks where a point is")
    view.notebook.run(3)
    view.click(*view.panes[0].to_stage(30, 30))
    view.root.locator(".workbench-status", has_text="the heat map has shape (3, 3), expected").wait_for()
    view.root.locator(".workbench-status summary").click()
    view.root.locator(".workbench-status pre", has_text="Traceback").wait_for()


def test_a_narrow_window_a_reloaded_page_and_the_saved_picture(view, jupyter, screenshots):
    view.page.set_viewport_size({"width": 900, "height": 900})
    view.settle()
    view.screenshot(screenshots / "match_narrow.png")
    view.nothing_sticks_out()
    state = view.state()
    sure = state["shown"][0]
    view.click(*view.panes[0].to_stage(*state["a"]))  # places are right at any size
    view.wait_for(picked=sure)
    view.page.set_viewport_size({"width": 1280, "height": 900})
    view.page.wait_for_timeout(2500)  # the picture follows at rest
    assert not view.page.locator(".jp-RenderedImage img").is_visible()  # hidden below the living view
    outputs = view.notebook.save().cells[1].outputs
    assert [set(output.data) for output in outputs] == [
        {"application/vnd.jupyter.widget-view+json", "text/plain"},
        {"image/png", "text/plain"},
    ]
    picture = Image.open(io.BytesIO(base64.b64decode(outputs[1].data["image/png"])))
    picture.convert("RGB").save(screenshots / "match_static.png")
    assert 700 < picture.width < 1000
    view.page.reload()
    view.notebook.wait_until_ready()
    view.canvas.wait_for()
    view.page.wait_for_timeout(1500)
    assert view.colour(0, 40, 40)[3] == 255  # drawn again
    jupyter.stop_kernels()
    view.page.reload()
    image = view.page.locator(".jp-RenderedImage img")
    image.wait_for(timeout=30_000)
    view.notebook.wait_until_ready()
    assert image.is_visible()
