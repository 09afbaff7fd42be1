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


@pytest.mark.long
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


def test_false_colours_keep_apart_what_differs():
    values = torch.zeros(1, 4, 3, 5)
    values[0, 0, 0, 0], values[0, 2, 1, 1], values[0, 1, 2, 2] = 3.0, 3.0, torch.nan
    shown = plot.false_colours(values)
    assert shown.shape == (1, 3, 3, 5)
    assert shown[0, :, 2, 4].tolist() == [0.5, 0.5, 0.5]  # zero is grey
    assert shown[0, :, 2, 2].tolist() == pytest.approx(plot.TINT)  # so is not what is no number
    assert shown[0, 0, 0, 0] > 0.9 > shown[0, 0, 1, 1]  # hues of channels 0 and 2 of 4 are opposite
    assert torch.equal(plot.false_colours(values), plot.false_colours(5 * values))
    assert not torch.equal(plot.false_colours(values, scale=1.0), plot.false_colours(5 * values, scale=1.0))
    assert (plot.false_colours(torch.zeros(1, 4, 2, 2)) == 0.5).all()


def test_false_colours_of_tokens_and_frames():
    grid = torch.randn(2, 16, 6, 8)
    tokens = grid.flatten(2).transpose(1, 2)  # (2, 48, 16)
    assert torch.equal(plot.false_colours(tokens, ratio=6 / 8), plot.false_colours(grid))
    frames = torch.stack([grid * 0, grid, grid * 2], 2)  # (2, 16, 3, 6, 8)
    assert torch.equal(plot.false_colours(frames), plot.false_colours(grid))
    with pytest.raises(ValueError, match="values has shape"):
        plot.false_colours(torch.zeros(2, 3))


def test_heat_maps_and_magnitude():
    size = plot.magnitude(torch.tensor([3.0, 4.0]).view(1, 2, 1, 1))
    assert size.item() == pytest.approx((12.5) ** 0.5)
    shown = plot.heat_map(torch.tensor([[[[0.0, 1.0, torch.nan]]]]))
    assert shown[0, :, 0, 0].max() < 0.1  # magma begins in black
    assert shown[0, :, 0, 1].min() > 0.7
    assert shown[0, :, 0, 2].tolist() == [1, 1, 1]
    assert torch.equal(plot.heat_map(torch.zeros(1, 1, 2, 2)), plot.heat_map(torch.zeros(1, 1, 2, 2), high=4))


def test_an_outline_leaves_the_hole_as_it_is(photo, hole):
    lined = plot.outline_hole(photo, hole)
    changed = (lined != photo).any(1, keepdim=True)
    assert not (changed * hole).any()
    assert changed.sum() == 2 * (6 + 9) + 4
    assert lined[0, :, 4, 14].tolist() == pytest.approx(plot.TINT)


def test_a_contact_sheet(photo, hole):
    rows = [("heading", [("a\nb", photo), ("", None)], 4), ("", [("strip", hole)] * 8, 8)]
    sheet = plot.contact_sheet("title", rows)
    assert sheet.shape[:2] == (1, 3)
    assert sheet.shape[3] == 880
    assert torch.equal(sheet, plot.contact_sheet("title", rows))
    large = plot.contact_sheet("", [("", [("", torch.full((1, 3, 900, 700), 0.25))], 1)], width=200)
    assert large.shape[2] < 400
    assert float(large[0, :, -40, 60].mean()) == pytest.approx(0.25, abs=0.01)


def test_heat_dims_the_photograph_where_it_is_cold(photo):
    heat = torch.zeros(20, 28)
    heat[3, 4] = 1
    laid = plot.overlay_heat(photo, heat, 0.5)
    assert laid.shape == photo.shape
    torch.testing.assert_close(laid[0, :, 10, 10], 0.5 * photo[0, :, 10, 10], atol=0.01, rtol=0)  # magma begins black
    torch.testing.assert_close(
        laid[0, :, 3, 4], 0.5 * photo[0, :, 3, 4] + 0.5 * plot.heat_map(heat[None, None])[0, :, 3, 4]
    )
    with pytest.raises(ValueError, match="heat"):
        plot.overlay_heat(photo, heat * 2)


def test_matches_are_drawn_where_they_are(photo):
    small = photo[..., :12, :20]
    points_a, points_b = torch.tensor([[0.5, 0.5], [20.5, 10.5]]), torch.tensor([[3.5, 2.5], [19.5, 11.5]])
    ax = Figure().subplots()
    assert plot.show_matches(photo, small, points_a, points_b, torch.tensor([0.2, torch.nan]), ax=ax) is ax
    page, lines = ax.images[0].get_array(), ax.collections[0].get_segments()
    assert page.shape == (20, 28 + 4 + 20, 3)
    assert lines[0].tolist() == [[0, 0], [3 + 32, 2]]  # imshow counts from the middle of the first pixel
    assert (page[2, 3 + 32] == page[2, 35]).all()
    assert (page[2, 35] == plot.to_uint8(small)[2, 3]).all()
    assert (page[15, 40] == 255).all()
    assert ax.get_title() == "2 matches"
    figure = plot.show_matches(photo, photo, np.random.rand(30, 2) * 20, np.random.rand(30, 2) * 20, most=10)
    assert repr(figure) == "Picture(30 matches, 10 drawn)"
    assert len(figure.axes[0].collections[0].get_segments()) == 10
    pixels(figure)
    pixels(plot.show_matches(photo, photo, np.zeros((0, 2)), np.zeros((0, 2)), []))
    rings = [("a", (3.5, 2.5), "red"), ("b", (3.5, 2.5), "lime")]
    ax = plot.show_matches(photo, small, points_a, points_b, strong=1, rings=rings).axes[0]
    drawn = [line.get_xydata().tolist() for line in ax.lines[1:]]
    assert drawn[:2] == [[list(map(float, p)) for p in lines[1]]] * 2  # dark, then white
    assert drawn[2:] == [[[3, 2]], [[3, 2]], [[3 + 32, 2]], [[3 + 32, 2]]]
    assert [line.get_color() for line in ax.lines[1:]] == ["black", "white", "black", "red", "black", "lime"]
    with pytest.raises(ValueError, match="side is 'c'"):
        plot.show_matches(photo, small, points_a, points_b, rings=[("c", (0, 0), "red")])
    with pytest.raises(ValueError, match="2 points of a, 1 of b and 5 values"):
        plot.show_matches(photo, photo, points_a, points_b[:1], [1] * 5)


def test_clusters_and_offsets_as_pictures():
    shown = plot.cluster_colours(torch.tensor([[0, 1, 0], [7, -1, 20]]))
    assert shown.shape == (1, 3, 2, 3)
    assert torch.equal(shown[..., 0, 0], shown[..., 0, 2])
    assert torch.equal(shown[..., 0, 0], shown[..., 1, 2])
    assert not torch.equal(shown[..., 0, 0], shown[..., 0, 1])
    assert shown[0, :, 1, 1].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="expected whole numbers"):
        plot.cluster_colours(torch.zeros(2, 3))
    offsets = torch.zeros(1, 2, 1, 3)
    offsets[0, 0, 0, 0], offsets[0, 0, 0, 2] = 4.0, torch.nan
    wheel = plot.offset_colours(offsets)
    assert wheel[0, :, 0, 0].tolist() == pytest.approx([0.95, 0, 0])
    assert wheel[0, :, 0, 1].tolist() == pytest.approx([0.95] * 3)
    assert wheel[0, :, 0, 2].tolist() == [1, 1, 1]
    assert plot.offset_colours(offsets, 8.0)[0, 1, 0, 0] == pytest.approx(0.475)
