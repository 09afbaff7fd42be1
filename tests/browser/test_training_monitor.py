"""The training monitor in a real JupyterLab: stepped, run, paused and scrubbed by a real mouse."""

import json
import re

import pytest

SETUP = """
import json, torch, workbench as wb
from workbench.labs import small
images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
task = wb.LoraTask(small.pipeline(), images, "a photo of a red ball", rank=2, seed=0)
training = wb.TrainingRun(task, learning_rate=1e-3, batch_size=2, seed=0)
def look(run):
    return images[:1] * min(1, run.i / 20)
print("ready")
"""
SHOW = """
monitor = wb.TrainingMonitor(training, sample=look, every=5)
monitor
"""
STATE = 'print(json.dumps({"i": training.i, "recorded": training.recorded, "running": monitor.running}))'


@pytest.fixture(scope="module")
def monitor(open_notebook):
    notebook = open_notebook([SETUP, SHOW, STATE])
    notebook.page.set_default_timeout(60_000)
    assert "ready" in notebook.run(0)
    notebook.run(1)
    notebook.page.locator(".workbench-training-monitor").first.wait_for()
    return notebook


def press(monitor, words: str) -> None:
    monitor.page.locator(".workbench-training-monitor button", has_text=words).first.click()


def state(monitor) -> dict:
    return json.loads(monitor.run(2))


def wait_for(monitor, **wanted) -> dict:
    for _ in range(100):
        found = state(monitor)
        if all(found[name] == value for name, value in wanted.items()):
            return found
        monitor.page.wait_for_timeout(200)
    raise AssertionError(f"{found}, expected {wanted}")


def test_buttons_step_run_and_go_back_and_what_is_shown_follows(monitor, screenshots):
    root = monitor.page.locator(".workbench-training-monitor").first
    press(monitor, "Step")
    wait_for(monitor, i=1, running=False)
    root.get_by_text(re.compile("step 1, 1 recorded")).wait_for()
    before = root.locator("img").first.get_attribute("src")
    press(monitor, "Run 10")
    wait_for(monitor, i=11, running=False)
    root.get_by_text(re.compile("step 11, 11 recorded")).wait_for()
    assert root.locator("img").first.get_attribute("src") != before, "the curves are those of the last step"
    assert root.locator("img").count() == 2, "curves, and samples after every five steps"
    assert root.locator(".bars i").count() > 3
    press(monitor, "Back")
    wait_for(monitor, i=10, recorded=11)
    root.get_by_text(re.compile("step 10, 11 recorded")).wait_for()
    monitor.page.screenshot(path=screenshots / "monitor.png")


def test_a_long_run_is_paused_while_the_kernel_stays_free(monitor):
    started = state(monitor)["i"]
    press(monitor, "Run 100")
    assert state(monitor)["running"], "the cell answered while it runs"
    press(monitor, "Pause")
    stopped = wait_for(monitor, running=False)["i"]
    assert started < stopped < started + 100
    monitor.page.wait_for_timeout(1_000)
    assert state(monitor)["i"] == stopped


def test_the_slider_goes_to_a_step(monitor):
    end = state(monitor)["i"]
    handle = monitor.page.locator(".workbench-training-monitor .noUi-handle").first
    handle.focus()
    for _ in range(2):
        handle.press("ArrowLeft")
    wait_for(monitor, i=end - 2)
