"""The first notebook as a new user meets it: open it, run it, draw a hole with the mouse, see it filled."""

from tests.browser.conftest import code_cells
from tests.browser.editor_page import EditorPage


def test_run_all_then_draw_and_fill_again(lessons, open_notebook, screenshots):
    start = open_notebook(lessons / "00_start.ipynb")
    start.page.set_default_timeout(60_000)
    cells = code_cells(start.path)
    for index in cells:
        assert "Traceback" not in start.run(index)
    assert start.page.get_by_role("dialog").count() == 0
    draw, show, fill = (
        next(i for i, source in cells.items() if words in source)
        for words in ("editor.stroke", "mask = editor", "fills = {")
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
