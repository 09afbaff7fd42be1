"""Figures: what they show, and that they leave nothing behind."""

import base64
import io
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from workbench import plot


def pixels(figure) -> bytes:
    kind, data = figure.encode()
    assert Image.open(io.BytesIO(data)).get_format_mimetype() == kind
    return data


def test_tint_marks_the_hole_only(photo, hole):
    tinted = plot.tint_hole(photo, hole)
    assert torch.equal(tinted * (1 - hole), photo * (1 - hole))
    expected = 0.45 * photo[0, :, 6, 14] + 0.55 * torch.tensor(plot.TINT)
    torch.testing.assert_close(tinted[0, :, 6, 14], expected)


def test_every_figure_draws(photo, hole):
    pixels(plot.show_images({"a": photo, "mask": hole}))
    pixels(plot.show_images([photo] * 5, columns=3))
    pixels(plot.show_image(hole))
    pixels(plot.show_mask(photo, hole))
    pixels(plot.show_map(hole * torch.nan))
    pixels(plot.show_offsets(torch.randn(1, 2, 8, 9)))
    pixels(plot.show_curves({"a": [1, 2, 3], "b": ([1, 5], [2, 2])}, log=True))


def test_same_input_same_png(photo, hole):
    assert pixels(plot.show_mask(photo, hole)) == pixels(plot.show_mask(photo, hole))
    assert pixels(plot.show_mask(photo, hole)) != pixels(plot.show_mask(photo, 1 - hole))


def test_a_notebook_gets_png_or_a_small_jpeg(photo):
    assert photo.shape[-1] < 50
    assert plot.show_image(photo).encode()[0] == "image/png"
    noise = torch.rand(1, 3, 300, 400, generator=torch.Generator().manual_seed(0))
    figure = plot.show_image(noise)
    kind, data = figure.encode()
    assert kind == "image/jpeg"
    assert figure._repr_mimebundle_() == {"text/plain": "Picture()", kind: base64.b64encode(data).decode()}


def test_drawing_into_given_axes_returns_them(photo):
    ax = Figure().subplots()
    assert plot.show_image(photo, "title", ax) is ax
    assert ax.get_title() == "title"


def test_repr_is_the_titles(photo):
    assert repr(plot.show_images({"hole": photo, "fill": photo})) == "Picture(hole, fill)"


def test_offsets_are_coloured_by_direction_and_length():
    dx, dy = np.array([[1.0, -1.0, 0.0, np.nan]]), np.zeros((1, 4))
    right, left, none, unknown = plot._wheel_colours(dx, dy, 1.0)[0]
    np.testing.assert_allclose(right, [0.95, 0, 0], atol=1e-6)  # red points right
    np.testing.assert_allclose(left, [0, 0.95, 0.95], atol=1e-6)
    np.testing.assert_allclose(none, [0.95] * 3)
    assert unknown.tolist() == [1, 1, 1]


def test_pyplot_is_never_touched(photo):
    before = "matplotlib.pyplot" in sys.modules
    plot.show_images([photo])
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_refusals(photo):
    with pytest.raises(ValueError, match="images is empty"):
        plot.show_images([])
    with pytest.raises(ValueError, match="expected"):
        plot.show_image(photo * 3)
