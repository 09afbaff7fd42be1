"""A training run in words, and its layers as bars."""

import html

BARS = 12
"""Layers shown: those whose last update was largest."""


def numbers_of(run) -> str:
    """Where a run stands, in words."""
    state, total = run.state, getattr(run, "total", None)
    told = f"step {run.i}" + (f" of {total}" if total is not None else "") + f", {run.recorded} recorded"
    for name, words in (("loss", "loss"), ("learning_rate", "learning rate"), ("gradient_norm", "gradient norm")):
        value = getattr(state, name, None)
        told += "" if value is None else f", {words} {value:.4g}"
    return told


def bars_of(state) -> str:
    """The layers whose last update was largest, as HTML; "" where the state tells none."""
    norms = sorted(getattr(state, "update_norms", {}).items(), key=lambda item: -item[1])[:BARS]
    if not norms:
        return ""
    largest = max(norms[0][1], 1e-30)
    rows = [
        f'<span title="{html.escape(name)}">{html.escape(name)}</span>'
        f'<div title="{value:.3g}"><i style="width: {100 * value / largest:.1f}%"></i></div>'
        for name, value in norms
    ]
    return f'<b>size of the last update, by layer</b> (largest {largest:.3g})<div class="bars">{"".join(rows)}</div>'
