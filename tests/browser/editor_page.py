"""A mask editor as a person sees and touches it."""

import json
import re

from workbench.widgets.mask_editor.viewport import Viewport


class EditorPage:
    """The first editor of a notebook, with a hand on the mouse; points are in pixels of a photograph of size (H, W)."""

    def __init__(self, notebook, size: tuple[int, int]):
        self.notebook, self.page = notebook, notebook.page
        self.mouse, self.keyboard = self.page.mouse, self.page.keyboard
        self.viewport = Viewport(size)
        self.root = self.page.locator(".workbench-mask-editor").first
        self.canvas = self.root.locator("canvas")

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where on the page a point of the photograph is."""
        box = self.canvas.bounding_box()
        canvas_x, canvas_y = self.viewport.to_canvas(x, y)
        scale = box["width"] / self.viewport.canvas_size[1]
        return box["x"] + canvas_x * scale, box["y"] + canvas_y * scale

    def drag(self, *points, steps: int = 8) -> None:
        self.show()
        self.mouse.move(*self.at(*points[0]))
        self.mouse.down()
        for point in points[1:]:
            self.mouse.move(*self.at(*point), steps=steps)
        self.mouse.up()
        self.settle()

    def click(self, x: float, y: float, **options) -> None:
        self.show()
        self.mouse.click(*self.at(x, y), **options)
        self.settle()

    def show(self) -> None:
        """Scrolls the whole canvas into the window."""
        self.canvas.evaluate("canvas => canvas.scrollIntoView({block: 'center'})")

    def press(self, words: str) -> None:
        self.root.locator("button", has_text=re.compile(f"^{words}$")).click()
        self.settle()

    def settle(self) -> None:
        """Waits until the kernel has answered and the page stands still, as a person does on a slow machine.

        The kernel serves widgets in a subshell, beside its main thread: a gesture may still be on its way when a cell
        is done, and tools bring options and hints that move the page.
        """
        self.page.wait_for_timeout(150)
        self.page.wait_for_function(
            "() => jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'idle'", timeout=20_000
        )
        place, still = None, 0
        while still < 3:
            self.page.wait_for_timeout(50)
            before, place = place, self.canvas.bounding_box()
            still = still + 1 if place == before else 0

    def colour(self, x: float, y: float) -> list[int]:
        """What the canvas shows at a point of the photograph, RGB."""
        canvas_x, canvas_y = self.viewport.to_canvas(x, y)
        script = "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)"
        return self.canvas.evaluate(script, [round(canvas_x), round(canvas_y)])

    def tinted(self, x: float, y: float) -> bool:
        red, green, _ = self.colour(x, y)
        return red > 120 and green < 80

    def wait_for_tint(self, x: float, y: float, tinted: bool = True) -> None:
        for _ in range(60):
            if self.tinted(x, y) == tinted:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"({x}, {y}) is {self.colour(x, y)}, expected tinted = {tinted}")

    def state(self) -> dict:
        return json.loads(self.notebook.run(1))

    def status(self) -> str:
        return self.root.locator(".workbench-status").inner_text()
