"""What 1,000 mouse moves on 4 megapixels cost, and opening 24: python tests/benchmarks/bench_mask_editor.py"""

import time

import ipycanvas.canvas
import numpy as np
import torch

import workbench as wb


def main() -> None:
    sent = []
    editor = wb.MaskEditor(torch.rand(1, 3, 1600, 2500, generator=torch.Generator().manual_seed(0)))
    ipycanvas.canvas._CANVAS_MANAGER.send = lambda content, buffers: sent.append(sum(len(b) for b in buffers))
    layer, viewport = editor._view.canvas._canvases[-1], editor._view.viewport
    editor._settings.radius = 30.0
    places = [(1250 + 700 * np.cos(a), 800 + 500 * np.sin(3 * a)) for a in np.linspace(0, 6, 1000)]
    milliseconds = []
    for number, place in enumerate(places):
        x, y = viewport.to_canvas(*place)
        event = "mouse_down" if number == 0 else "mouse_move"
        start = time.perf_counter()
        layer._handle_frontend_event(layer, {"event": event, "x": x, "y": y}, [])
        milliseconds.append(1000 * (time.perf_counter() - start))
        time.sleep(0.002)  # moves come no faster than 500 a second
    start = time.perf_counter()
    layer._handle_frontend_event(layer, {"event": "mouse_up", "x": x, "y": y}, [])
    end = 1000 * (time.perf_counter() - start)
    print(
        f"per move: mean {np.mean(milliseconds):.2f} ms, 99 % {np.quantile(milliseconds, 0.99):.2f} ms; "
        f"mouse up: {end:.0f} ms"
    )
    print(f"messages: {len(sent)} for 1,000 moves, {sum(sent) / 1000:.0f} kB in all")
    photograph = torch.rand(1, 3, 4000, 6000, generator=torch.Generator().manual_seed(0))
    copying, opening = seconds(photograph.clone), seconds(lambda: wb.MaskEditor(photograph))
    print(f"24 megapixels open in {opening:.1f} s, {opening / copying:.0f} times what copying them takes")


def seconds(function) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
