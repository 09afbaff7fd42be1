"""Widgets that stand in a lesson itself, moved as a reader would move them."""

from tests.browser.conftest import code_cells


def test_the_sliders_of_the_world_move_camera_and_lamp(lessons, open_notebook, screenshots):
    lesson = open_notebook(lessons / "05_world.ipynb")
    lesson.page.set_default_timeout(90_000)
    cells = code_cells(lesson.path)
    sliders = next(i for i, source in cells.items() if "IntSlider" in source)
    for index in (i for i in cells if i <= sliders):
        assert "Traceback" not in lesson.run(index)
    picture = lesson.cell(sliders).locator(".widget-image")
    picture.scroll_into_view_if_needed()
    seen = [picture.get_attribute("src")]
    for handle, key in ((0, "ArrowRight"), (1, "ArrowRight")):
        lesson.cell(sliders).locator(".noUi-handle").nth(handle).press(key)
        lesson.page.wait_for_function(
            "([picture, before]) => picture.src !== before && picture.complete && picture.naturalWidth > 0",
            arg=[picture.element_handle(), seen[-1]],
        )
        seen.append(picture.get_attribute("src"))
    assert len(set(seen)) == 3
    lesson.page.screenshot(path=screenshots / "world.png")
