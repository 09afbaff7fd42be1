"""A view with a canvas to point at, as a person sees and touches it."""

import json


class ViewPage:
    """The view of a notebook's second cell, with a hand on the mouse; the third cell prints its state as JSON.

    Args:
        notebook: opened.
        root: class of the view's outermost part.
        stage: (height, width) of its canvas in CSS pixels, as the view lays it out.
    """

    def __init__(self, notebook, root: str, stage: tuple[int, int]):
        self.notebook, self.page, self.stage = notebook, notebook.page, stage
        self.root = self.page.locator(f".{root}").first
        self.canvas = self.root.locator(".workbench-stage canvas").last

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where on the page a point of the stage is, as it is scaled now."""
        box = self.canvas.bounding_box()
        return box["x"] + x * box["width"] / self.stage[1], box["y"] + y * box["height"] / self.stage[0]

    def click(self, x: float, y: float) -> None:
        self.canvas.scroll_into_view_if_needed()
        self.page.mouse.click(*self.at(x, y))
        self.settle()

    def hover(self, x: float, y: float) -> None:
        self.canvas.scroll_into_view_if_needed()
        self.page.mouse.move(*self.at(x, y), steps=3)
        self.settle()

    def press(self, tip: str) -> None:
        self.root.locator(f"button[title^='{tip}']").first.click()
        self.settle()

    def choose(self, name: str, label: str) -> None:
        self.root.locator(f".workbench-{name} select").select_option(label=label)
        self.settle()

    def slide(self, name: str, key: str, times: int = 1) -> None:
        """Moves a slider by keys, as a person without a mouse does."""
        handle = self.root.locator(f".workbench-{name} .noUi-handle").first
        handle.focus()
        for _ in range(times):
            self.page.keyboard.press(key)
        self.settle()

    def key(self, key: str) -> None:
        self.canvas.focus()
        self.page.keyboard.press(key)
        self.settle()

    def settle(self) -> None:
        """Waits until the kernel has answered."""
        self.page.wait_for_timeout(200)
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'idle'", timeout=60_000
        )
        self.page.wait_for_timeout(150)

    def state(self) -> dict:
        return json.loads(self.notebook.run(2))

    def wait_for(self, **wanted) -> dict:
        for _ in range(100):
            state = self.state()
            if all(state[name] == value for name, value in wanted.items()):
                return state
            self.page.wait_for_timeout(200)
        raise AssertionError(f"{state}, expected {wanted}")

    def wait_for_told(self, words: str) -> None:
        self.root.locator(".workbench-told", has_text=words).wait_for()

    def colour(self, layer: int, x: float, y: float) -> list[int]:
        """What a layer of the canvas holds at a point of the stage, RGBA: the front end draws all layers on one."""
        script = """(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x * canvas.width,
            y * canvas.height, 1, 1).data]"""
        shown = self.root.locator(".workbench-stage canvas").nth(layer)
        return shown.evaluate(script, [x / self.stage[1], y / self.stage[0]])

    def screenshot(self, path) -> None:
        self.root.evaluate("element => element.scrollIntoView({block: 'start'})")
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=path)

    def nothing_sticks_out(self) -> None:
        """No scroll bars, and nothing wider than the view."""
        inside = self.root.bounding_box()
        for thing in self.root.locator("button:visible, canvas:visible, select:visible, input:visible, table").all():
            box = thing.bounding_box()
            assert box["x"] >= inside["x"] - 1
            assert box["x"] + box["width"] <= inside["x"] + inside["width"] + 1
        wide = "element => [...element.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && "
        wide += "['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.className)"
        assert self.root.evaluate(wide) == []
