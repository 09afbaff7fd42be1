"""The run player in a real JupyterLab: played, paused, scrubbed, stopped and branched by a real mouse and real keys."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from workbench.widgets.run_player import time_line

SETUP = """
import json, time, torch, warnings, workbench as wb
warnings.simplefilter("ignore")
import diffusers
diffusers.logging.set_verbosity_error()
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.models import make_autoencoder, make_denoiser, make_text_encoder
from workbench.diffusion.tokenizer import make_tokenizer
from workbench.stepping.denoising import DenoisingRun
from workbench.stepping.divergence import first_divergence
from workbench.widgets.run_player import RunPlayer
tokenizer = make_tokenizer()
pipe = assemble(
    diffusers.StableDiffusionInpaintPipeline, make_autoencoder(4, (8, 8, 16)).eval(),
    make_text_encoder(tokenizer, width=32, layers=1).eval(), tokenizer,
    make_denoiser(4, 4, widths=(16, 16, 32), text_width=32).eval())
pipe.set_progress_bar_config(disable=True)
photo = wb.image.fit(wb.load_image("coffee"), 96)[..., :64, :96]
hole = torch.zeros(1, 1, 64, 96); hole[..., 20:44, 30:66] = 1
def fresh():
    return DenoisingRun(pipe, seed=3, prompt="a red ball", image=photo, mask_image=hole, num_inference_steps=20,
                        guidance_scale=3.0, height=64, width=96)
print("ready")
"""
SHOW = """
if "player" in globals():
    player.close()
player = RunPlayer(fresh(), diverge=first_divergence)
player
"""
STATE = """
print(json.dumps({"i": player.run.i, "recorded": player.run.recorded, "running": player.running, "run": player.run.name,
                  "breaks": [p.name for p in player.run.breakpoints], "status": player.status,
                  "grad": torch.is_grad_enabled(), "error": repr(player.error), "changes": player.run.changes}))
"""
MEANWHILE = "print(sum(range(1000)))"


class PlayerPage:
    """The player of a notebook's second cell, with a hand on the mouse."""

    def __init__(self, notebook):
        self.notebook, self.page = notebook, notebook.page
        self.root = self.page.locator(".workbench-run-player").first
        self.canvas = self.root.locator(".workbench-time-line canvas").last

    def press(self, tip: str) -> None:
        self.root.locator(f"button[title^='{tip}']").click()
        self.settle()

    def branch(self, changes: str) -> None:
        """Types changes, and presses the button once the kernel knows them: messages of two widgets may overtake."""
        self.root.locator(".workbench-changes input").fill(changes)
        self.settle()
        self.press("Another future")

    def at(self, step: float, y: float, end: int = 20) -> tuple[float, float]:
        """Where on the page a step of the time line is; y in its own CSS pixels."""
        box = self.canvas.bounding_box()
        scale = box["width"] / time_line.WIDTH
        x = time_line.LEFT + (time_line.RIGHT - time_line.LEFT) * step / end
        return box["x"] + x * scale, box["y"] + y * scale

    def drag(self, *steps, y: float = 30) -> None:
        self.canvas.scroll_into_view_if_needed()
        self.page.mouse.move(*self.at(steps[0], y))
        self.page.mouse.down()
        for step in steps[1:]:
            self.page.mouse.move(*self.at(step, y), steps=4)
        self.page.mouse.up()
        self.settle()

    def settle(self) -> None:
        """Waits until the kernel has answered."""
        self.page.wait_for_timeout(150)
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'idle'", timeout=60_000
        )
        self.page.wait_for_timeout(100)

    def state(self) -> dict:
        return json.loads(self.notebook.run(2))

    def wait_for(self, **wanted) -> dict:
        for _ in range(150):
            state = self.state()
            if all(state[name] == value for name, value in wanted.items()):
                return state
            self.page.wait_for_timeout(200)
        raise AssertionError(f"{state}, expected {wanted}")

    def wait_for_status(self, words: str) -> None:
        self.root.locator(".workbench-status", has_text=words).wait_for()


@pytest.fixture(scope="module")
def notebook(open_notebook):
    notebook = open_notebook([SETUP, SHOW, STATE, MEANWHILE])
    notebook.page.set_default_timeout(60_000)
    assert "ready" in notebook.run(0)
    return notebook


@pytest.fixture
def player(notebook):
    """A player of a fresh run."""
    notebook.run(1)
    page = PlayerPage(notebook)
    page.canvas.wait_for()
    page.settle()
    return page


def test_step_and_back(player):
    player.press("One step (")
    player.press("One step (")
    assert player.wait_for(i=2)["error"] == "None"
    assert player.root.locator(".workbench-numbers td").first.inner_text() == "2"
    player.press("One step back")
    state = player.wait_for(i=1, recorded=2)
    assert state["grad"]  # the run was stepped in the thread of the mouse; cells can still learn


def test_play_pause_and_cells_meanwhile(player):
    player.root.locator("button[title^='Play']").click()
    player.page.wait_for_timeout(700)
    assert player.notebook.run(3) == "499500"  # a cell runs while it plays
    player.root.locator("button[title^='Stand still']").click()
    state = player.wait_for(running=False)
    assert 0 < state["i"] < 20
    player.page.wait_for_timeout(600)
    assert player.state()["i"] == state["i"]
    player.press("To the end")
    assert player.wait_for(i=20, running=False)["recorded"] == 20
    player.press("Back to the beginning")
    player.wait_for(i=0)


def test_scrub_break_and_keys(player, screenshots):
    player.drag(12)
    player.wait_for(i=12, recorded=12)
    player.drag(12, 9, 5, 4)
    player.wait_for(i=4, recorded=12)
    player.drag(15, y=9)
    assert player.wait_for(breaks=["step 15"])["i"] == 4
    player.press("Play")
    state = player.wait_for(i=15, running=False)
    assert state["status"] == "stopped: breakpoint: step 15"
    player.wait_for_status("stopped: breakpoint: step 15")
    player.page.screenshot(path=screenshots / "player_stopped.png")
    player.drag(15, y=9)
    player.wait_for(breaks=[])
    player.drag(3)
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "b"):
        player.page.keyboard.press(key)
        player.settle()
    assert player.wait_for(breaks=["step 4"])["i"] == 4  # running a cell took the focus away
    player.canvas.focus()
    for key in ("ArrowLeft", "x", "d", "d"):  # letters that JupyterLab cuts and deletes cells by
        player.page.keyboard.press(key)
        player.settle()
    player.wait_for(i=3)
    player.canvas.focus()
    player.page.keyboard.press("Home")
    player.settle()
    player.wait_for(i=0)


def test_branch_compare_and_diverge(player, screenshots):
    player.drag(8)
    player.wait_for(i=8)
    player.branch("guidance_scale=1.0")
    assert player.wait_for(run="run.1", changes={"guidance_scale": 1.0})["i"] == 8
    player.press("To the end")
    player.wait_for(i=20, running=False)
    player.root.locator(".workbench-menu select").nth(1).select_option("run")
    player.settle()
    player.press("The first step that differs")
    state = player.wait_for(i=9)
    assert "guidance_scale is 1.0" in state["status"]
    player.page.wait_for_timeout(500)
    player.root.evaluate("element => element.scrollIntoView({block: 'start'})")
    player.page.screenshot(path=screenshots / "player_two_runs.png")
    _nothing_sticks_out(player)
    player.drag(3, y=time_line.LANES + 8)  # the lane of the root
    player.wait_for(run="run")


def test_errors_are_told(player):
    player.press("One step (")
    player.wait_for(i=1)
    player.branch("guidance 7")
    player.wait_for_status("cannot be read, expected names and values")
    player.branch("num_inference_steps=7")
    player.wait_for_status("num_inference_steps")
    player.root.locator(".workbench-status summary").click()
    player.wait_for_status("Traceback")


def test_a_reloaded_page_and_the_saved_picture(player, jupyter, screenshots):
    player.press("One step (")
    player.wait_for(i=1)
    assert not player.page.locator(".jp-RenderedImage img").is_visible()  # hidden below the living player
    for _ in range(40):
        outputs = player.notebook.save().cells[1].outputs
        picture = Image.open(io.BytesIO(base64.b64decode(outputs[1].data["image/png"])))
        if picture.height > 300:  # there is a strip now
            break
        player.page.wait_for_timeout(500)
    assert [set(output.data) for output in outputs] == [
        {"application/vnd.jupyter.widget-view+json", "text/plain"},
        {"image/png", "text/plain"},
    ]
    assert "RunPlayer(run, step 0 of 20, 0 recorded)" in outputs[0].data["text/plain"]
    assert picture.width == 880
    assert picture.height > 300
    picture.convert("RGB").save(screenshots / "player_static.png")
    player.page.reload()
    player.notebook.wait_until_ready()
    player.canvas.wait_for()
    player.page.wait_for_timeout(1500)
    script = "canvas => [...canvas.getContext('2d').getImageData(400, 60, 1, 1).data]"
    assert player.canvas.evaluate(script)[3] == 255  # drawn again
    player.press("One step (")
    player.wait_for(i=2)
    jupyter.stop_kernels()
    player.page.reload()
    image = player.page.locator(".jp-RenderedImage img")
    image.wait_for(timeout=30_000)
    player.notebook.wait_until_ready()  # a new kernel has started; a server told to end before that would hang
    assert image.is_visible()


def _nothing_sticks_out(player) -> None:
    """No scroll bars, panels in columns, nothing wider than the player."""
    inside = player.root.bounding_box()
    for thing in player.root.locator("button:visible, .workbench-panel, canvas, table, select, input").all():
        box = thing.bounding_box()
        assert box["x"] + box["width"] <= inside["x"] + inside["width"] + 1
    lefts = [round(panel.bounding_box()["x"]) for panel in player.root.locator(".workbench-panel").all()]
    assert len(set(lefts)) == 4
    assert np.ptp([panel.bounding_box()["width"] for panel in player.root.locator(".workbench-panel").all()]) < 1.5
    wide = "element => [...element.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && "
    wide += "['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.className)"
    assert player.root.evaluate(wide) == []
    assert re.match(r"\d+", player.root.locator(".workbench-numbers td").first.inner_text())
