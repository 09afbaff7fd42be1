"""The attention view in a real JupyterLab: words, pixels, steps, layers and heads by a real mouse and real keys."""

import base64
import io

import pytest
from PIL import Image

from tests.browser.view_page import ViewPage
from workbench.widgets.attention_view.view import HEIGHT, WIDTH
from workbench.widgets.stage import panes_of

SIZE = (80, 120)
SETUP = """
import json, torch, warnings, workbench as wb
warnings.simplefilter("ignore")
import diffusers
diffusers.logging.set_verbosity_error()
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.models import make_autoencoder, make_denoiser, make_text_encoder
from workbench.diffusion.tokenizer import make_tokenizer
tokenizer = make_tokenizer()
torch.manual_seed(0)
pipe = assemble(
    diffusers.StableDiffusionInpaintPipeline, make_autoencoder(4, (8, 8, 16)).eval(),
    make_text_encoder(tokenizer, width=32, layers=1).eval(), tokenizer,
    make_denoiser(9, 4, widths=(16, 16, 32), text_width=32).eval())
pipe.set_progress_bar_config(disable=True)
photo = wb.image.resize(wb.load_image("coffee"), (80, 120))
hole = torch.zeros(1, 1, 80, 120); hole[..., 24:56, 40:80] = 1
run = wb.DenoisingRun(pipe, seed=3, prompt="a photo of a red ball on a tablecloth", image=photo, mask_image=hole,
                      num_inference_steps=5, guidance_scale=3.0, height=80, width=120)
with wb.record_attention(run) as attention:
    run.finish()
print("ready")
"""
SHOW = """
if "view" in globals():
    view.close()
view = wb.AttentionView(attention, image=photo, mask=hole)
view
"""
STATE = """
q = view.question
print(json.dumps({"mode": q.mode, "token": q.token, "point": q.point, "step": q.step, "layer": q.layer, "head": q.head,
                  "how": q.how, "hold": view.hold, "strength": view.strength, "running": view.running,
                  "status": view.status, "error": repr(view.error), "shown": view.map is not None}))
"""
SPOIL = "view.choose(step=99)"


@pytest.fixture(scope="module")
def notebook(open_notebook):
    notebook = open_notebook([SETUP, SHOW, STATE, SPOIL])
    notebook.page.set_default_timeout(60_000)
    assert "ready" in notebook.run(0)
    return notebook


@pytest.fixture
def view(notebook):
    notebook.run(1)
    (pane,) = panes_of([SIZE], WIDTH, HEIGHT)
    page = ViewPage(notebook, "workbench-attention-view", (round(pane.height), round(pane.width)))
    page.pane = pane
    page.canvas.wait_for()
    page.settle()
    return page


def test_words_layers_heads_and_scale(view, screenshots):
    words = view.root.locator(".workbench-tokens button")
    assert words.all_inner_texts() == ["a", "photo", "of", "a", "red", "ball", "on", "a", "tablecloth", "start", "end"]
    words.nth(5).click()
    view.settle()
    view.wait_for(mode="word", token="ball", shown=True)
    assert "chosen" in words.nth(5).get_attribute("class")
    view.wait_for_told("where “ball” acts")
    view.wait_for_told("inside the hole")
    before = view.colour(0, 40, 40)
    words.nth(9).click()
    view.settle()
    view.wait_for(token=0)
    words.nth(5).click()
    view.choose("layer", "up blocks")
    view.wait_for(layer="up")
    view.choose("head", "head 1")
    view.wait_for(head=1)
    view.root.locator(".workbench-how select:visible").select_option(label="normalised")
    view.settle()
    view.wait_for(how="normalised", error="None")
    view.press("Keep the scale")
    view.wait_for(hold=True)
    view.slide("strength", "ArrowLeft", 3)
    view.wait_for(strength=0.55)
    assert view.colour(0, 40, 40)[3] == before[3] == 255
    view.screenshot(screenshots / "attention_word.png")
    view.nothing_sticks_out()


def test_steps_and_film(view):
    view.slide("steps", "ArrowRight", 2)
    view.wait_for(step=2)
    view.key("ArrowRight")
    view.wait_for(step=3)
    view.key("ArrowLeft")
    view.wait_for(step=2)
    view.press("Film over the steps")
    assert view.notebook.run(2)  # a cell runs while it plays
    view.wait_for(running=False, step=5)
    view.press("Film over the steps")
    view.press("Stand still")
    state = view.wait_for(running=False)
    assert state["step"] < 5
    view.canvas.focus()
    view.key(" ")
    view.wait_for(running=False, step=5)


def test_pixels_by_hover_click_and_escape(view, screenshots):
    view.press("Where a pixel looks")
    view.wait_for(mode="pixel")
    pane = view.pane
    view.hover(*pane.to_stage(30, 20))
    view.wait_for_told("pixel (30, 20) looks")
    view.page.mouse.move(5, 5)
    view.settle()
    view.wait_for_told("pixel (60, 40) looks")  # the middle of the hole, as before
    view.click(*pane.to_stage(50, 60))
    x, y = view.wait_for(mode="pixel", shown=True)["point"]
    assert abs(x - 50) < 1
    assert abs(y - 60) < 1
    view.page.mouse.move(5, 5)
    view.settle()
    view.wait_for_told("Words that pixel (50, 60) looks at")
    view.screenshot(screenshots / "attention_pixel.png")
    view.nothing_sticks_out()
    view.key("Escape")
    view.root.locator(".workbench-told", has_text="Words that").wait_for(state="hidden")
    for key in ("x", "d", "d"):  # letters that JupyterLab cuts and deletes cells by
        view.key(key)
    assert view.state()["error"] == "None"


def test_what_was_not_kept_is_told(view, screenshots):
    view.notebook.run(3)
    view.root.locator(".workbench-status", has_text="step is 99").wait_for()
    assert view.state()["shown"] is False
    view.screenshot(screenshots / "attention_not_kept.png")
    view.slide("steps", "ArrowLeft")
    view.wait_for(step=5, shown=True, status="")


def test_a_narrow_window_a_reloaded_page_and_the_saved_picture(view, jupyter, screenshots):
    view.page.set_viewport_size({"width": 900, "height": 900})
    view.settle()
    view.screenshot(screenshots / "attention_narrow.png")
    view.nothing_sticks_out()
    view.click(*view.pane.to_stage(20, 10))  # places are right at any size
    x, y = view.state()["point"]
    assert abs(x - 20) < 1
    assert abs(y - 10) < 1
    view.page.set_viewport_size({"width": 1280, "height": 900})
    view.page.wait_for_timeout(2500)  # the picture follows at rest
    assert not view.page.locator(".jp-RenderedImage img").is_visible()  # hidden below the living view
    outputs = view.notebook.save().cells[1].outputs
    assert [set(output.data) for output in outputs] == [
        {"application/vnd.jupyter.widget-view+json", "text/plain"},
        {"image/png", "text/plain"},
    ]
    picture = Image.open(io.BytesIO(base64.b64decode(outputs[1].data["image/png"])))
    picture.convert("RGB").save(screenshots / "attention_static.png")
    assert picture.width == 880
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
