"""The first notebook as a new user meets it: open it, run it, draw a hole with the mouse, see it filled."""

import shutil

import nbformat
import pytest

from tests.browser.conftest import REPOSITORY
from tests.browser.editor_page import EditorPage


@pytest.fixture
def start(jupyter, open_notebook):
    """A copy of the repository's notebooks, with 00_start open."""
    shutil.copytree(REPOSITORY / "notebooks", jupyter.root / "notebooks", ignore=shutil.ignore_patterns("out"))
    shutil.copytree(REPOSITORY / "data" / "pictures", jupyter.root / "data" / "pictures")
    return open_notebook(jupyter.root / "notebooks" / "00_start.ipynb")


def code_cells(path) -> list[int]:
    return [i for i, cell in enumerate(nbformat.read(path, 4).cells) if cell.cell_type == "code"]


def test_run_all_then_draw_and_fill_again(start, screenshots):
    start.page.set_default_timeout(60_000)
    cells = code_cells(start.path)
    for index in cells:
        assert "Traceback" not in start.run(index)
    assert start.page.get_by_role("dialog").count() == 0
    sources = [cell.source for cell in nbformat.read(start.path, 4).cells]
    draw, show, fill = (
        next(i for i in cells if words in sources[i]) for words in ("editor.stroke", "mask = editor", "fills = {")
    )
    start.command("notebook:run-cell", draw)  # brings the cell back into view, with a fresh editor
    editor = EditorPage(start, (427, 640))
    before = start.run(show)
    assert "hole 5.0 %, 1 gesture" in before
    editor.drag((480, 60), (600, 60), (600, 90))
    editor.wait_for_tint(540, 60)
    assert "2 gestures" in start.run(show)
    assert "Traceback" not in start.run(fill)
    picture = start.cell(fill).locator("img").first
    picture.scroll_into_view_if_needed()
    assert picture.bounding_box()["width"] > 300
    start.page.screenshot(path=screenshots / "start.png")
    assert (start.path.parent / "out" / "without_rocket.png").exists()
