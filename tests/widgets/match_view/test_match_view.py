"""The match view without a browser: every method and control, what is drawn, and what is told."""

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import workbench as wb
from workbench import plot
from workbench.lenses import correspondence as cor
from workbench.lenses.correspondence import FeaturePair, Geometry, Matches
from workbench.widgets.match_view.lines import distance_to, truth_of
from workbench.widgets.stage import DENSITY, GAP, Dot, Line, Ring, panes_of

SIZE_A, SIZE_B = (40, 60), (120, 80)
POINTS_A = [(10.5, 20.5), (30.5, 5.5), (50.5, 35.5), (5.5, 5.5)]
POINTS_B = [(21.0, 41.0), (61.0, 11.0), (60.0, 71.0), (11.0, 100.0)]  # twice as far; the last two wrong by hand
CONFIDENCE = [0.9, 0.3, 0.6, 0.5]


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, *size, generator=generator) for size in (SIZE_A, SIZE_B)]


@pytest.fixture
def matches():
    geometry = Geometry("homography", None, torch.tensor([True, True, True, False]), 3.0)
    values = (torch.tensor(values) for values in (POINTS_A, POINTS_B, CONFIDENCE))
    return Matches(*values, "sift", SIZE_A, SIZE_B, geometry)


def doubled(points):
    """The truth: b is twice a; the top left corner of a is not visible in b."""
    points = torch.as_tensor(points)
    return 2 * points, ~((points < 8).all(1))


@pytest.fixture
def features():
    """Cell (i, j) of a is like cell (2 i, j) of b alone."""
    a, b = torch.eye(24).reshape(1, 24, 4, 6), torch.zeros(1, 24, 8, 6)
    b[:, :, ::2] = a
    return FeaturePair(a, b, SIZE_A, SIZE_B)


@pytest.fixture
def view(pictures, matches, features):
    view = wb.MatchView(*pictures, matches, features=features, truth=doubled)
    yield view
    view.close()


def send(view, event, x, y, side=None, **content):
    """An event as the browser sends it; places in pixels of a picture, or in CSS pixels of the stage."""
    layer = view._stage.canvas._canvases[-1]
    if side is not None:
        x, y = view._stage.panes["ab".index(side)].to_stage(x, y)
    layer._handle_frontend_event(layer, {"event": event, "x": x * DENSITY, "y": y * DENSITY, **content}, [])


def press(view, key):
    send(view, "key_down", 0, 0, key=key, shift_key=False, ctrl_key=False, meta_key=False)


def told(view):
    return view._controls.told.value


def lines_on(view):
    return [mark for mark in view._stage.marks if isinstance(mark, Line)]


# Lines


def test_lines_lie_where_the_points_are(view):
    one, two = view._stage.panes
    assert one.height == pytest.approx(two.height)
    assert two.left == pytest.approx(one.width + GAP)
    assert view.shown == [0, 2, 3, 1]  # the surest first
    drawn = lines_on(view)
    assert len(drawn) == 4
    start, end = drawn[-1].start, drawn[-1].end  # the surest on top
    assert one.to_picture(*start) == pytest.approx(POINTS_A[0], abs=0.01)
    assert two.to_picture(*end) == pytest.approx(POINTS_B[0], abs=0.01)
    assert len([mark for mark in view._stage.marks if isinstance(mark, Dot)]) == 8


def test_threshold_most_and_flags(view):
    view.threshold = 0.5
    assert view.shown == [0, 2, 3]
    assert "3 drawn of 4 matches" in view._controls.counted.value
    view.most = 2
    assert view.shown == [0, 2]
    assert "2 drawn, the surest of 3 chosen of 4 matches" in view._controls.counted.value
    view.most, view.threshold = 100, 0.0
    view.only(inliers=True)
    assert view.shown == [0, 2, 1]
    view.only(inliers=False, wrong=True)
    assert view.shown == [2]  # match 3 is not visible in truth, which is neither right nor wrong
    view.only(wrong=False, right=True)
    assert view.shown == [0, 1]
    assert "100% right to 3 px" in view._controls.counted.value


def test_controls_call_the_methods(view):
    controls = view._controls
    assert list(controls.flags) == ["inliers", "right", "wrong"]
    controls.threshold.value = 0.55
    assert view.threshold == 0.55
    controls.most.value = 1
    assert view.shown == [0]
    controls.most.value = 50
    controls.flags["wrong"].value = True
    assert view.shown == [2]
    controls.flags["wrong"].value = False
    controls.colour.value = "error"
    assert view.colour == "error"
    controls.next.click()
    assert view.picked == 0
    controls.next.click()
    assert view.picked == 2
    controls.back.click()
    assert view.picked == 0
    controls.clear.click()
    assert view.picked is None
    controls.mode.value = "point"
    assert view.mode == "point"
    view.threshold = 0.3
    assert controls.threshold.value == 0.3
    assert view.error is None


def test_colours_are_those_of_confidence_and_error(view):
    def css(level, colours):
        rgb = (plot.heat_map(torch.tensor([[[[level]]]]), 1.0, colours)[0, :, 0, 0] * 255).round().int().tolist()
        return "rgb({}, {}, {})".format(*rgb)

    drawn = lines_on(view)[::-1]  # of matches 0, 2, 3, 1
    assert [line.colour for line in drawn] == [css((c - 0.3) / 0.6, "viridis") for c in (0.9, 0.6, 0.5, 0.3)]
    view.colour = "error"
    drawn = lines_on(view)[::-1]
    green, red, grey = css(0.0, "RdYlGn_r"), css(1.0, "RdYlGn_r"), "#9e9e9e"
    assert [line.colour for line in drawn] == [green, red, grey, green]
    assert "error in px" in view._controls.scale.value


def test_picking_tells_the_numbers(view):
    view.pick(2)
    assert "Match 2" in told(view)
    assert "(50.5, 35.5)" in told(view)
    assert "(60.0, 71.0)" in told(view)
    assert "confidence 0.600" in told(view)
    assert "truth (101.0, 71.0)" in told(view)
    assert "error 41.0 px" in told(view)
    rings = [mark for mark in view._stage.marks if isinstance(mark, Ring)]
    assert [view._stage.panes[k].to_picture(*ring.at) for k, ring in zip((0, 1), rings, strict=False)] == [
        POINTS_A[2], POINTS_B[2],
    ]  # fmt: skip
    view.pick(3)
    assert "in truth not visible there" in told(view)
    assert "not: inliers" in told(view)
    view.next()
    assert view.picked == 1
    view.next()
    assert view.picked == 0  # after the last the first
    view.previous()
    assert view.picked == 1
    view.threshold = 0.5
    assert view.picked is None  # it is no longer drawn


def test_clicks_pick_ends_first_then_lines(view):
    send(view, "mouse_down", *POINTS_A[1], side="a")
    assert view.picked == 1
    send(view, "mouse_down", *POINTS_B[2], side="b")
    assert view.picked == 2
    line = lines_on(view)[0]  # of the least sure, match 1
    middle = [(s + e) / 2 for s, e in zip(line.start, line.end, strict=True)]
    send(view, "mouse_down", *middle)
    assert view.picked == 1
    send(view, "mouse_down", 2, view._stage.size[0] - 3)
    assert view.picked is None
    press(view, "ArrowRight")
    press(view, "ArrowRight")
    assert view.picked == 2
    press(view, "ArrowLeft")
    assert view.picked == 0
    press(view, "Escape")
    assert view.picked is None
    assert view.error is None


def test_distance_to_lines_by_hand():
    starts, ends = np.array([(0, 0), (0, 0), (5, 5)]), np.array([(10, 0), (0, 2), (5, 5)])
    assert distance_to((5, 5), starts, ends) == pytest.approx([5, np.hypot(5, 3), 0])


# Asking points


def test_a_point_of_a_and_of_b(view, features):
    answer = view.point(25, 15)  # the cell (1, 2) of a
    assert answer.heat_map.shape == SIZE_B
    assert torch.equal(answer.heat_map, features.heat_map((25, 15)))
    best, similarity = features.best([(25, 15)])
    assert answer.best == tuple(best[0].tolist())
    assert answer.similarity == pytest.approx(float(similarity))
    assert 20 < answer.best[0] < 47  # within a cell of the middle of (2, 2) of b, (33.3, 37.5)
    assert 22 < answer.best[1] < 53
    assert answer.truth == (50, 30)
    assert answer.error == pytest.approx(float(np.hypot(*(np.subtract(answer.best, (50, 30))))))
    assert view.mode == "point"
    assert view._stage.strengths == [0.0, 0.7]
    assert len(lines_on(view)) == 2  # the one asked for, dark and white; the matches give way
    assert [m.colour for m in view._stage.marks if isinstance(m, Ring)] == ["#40c4ff", "#ffeb3b", "#69f0ae"]
    answer = view.point(33, 37, side="b")
    assert answer.heat_map.shape == SIZE_A
    assert view._stage.strengths == [0.7, 0.0]
    assert answer.truth is None
    view.clear()
    assert view._stage.strengths == [0.0, 0.0]
    assert len(lines_on(view)) == 4
    assert view.point(3, 3).truth is None
    assert "in truth not visible there" in told(view)


def test_clicks_ask_in_point_mode(view):
    view.mode = "point"
    send(view, "mouse_down", 25, 15, side="a")
    assert (view.answer.side, view.answer.point) == ("a", pytest.approx((25, 15), abs=0.01))
    send(view, "mouse_down", 70, 110, side="b")
    assert (view.answer.side, view.answer.point) == ("b", pytest.approx((70, 110), abs=0.01))
    send(view, "mouse_down", view._stage.panes[0].width + GAP / 2, 10)  # between the pictures
    assert view.answer.side == "b"
    press(view, "Escape")
    assert view.answer is None
    view.mode = "match"
    assert view.answer is None


def test_a_function_for_a_heat_map(pictures):
    heat = torch.zeros(SIZE_B)
    heat[70, 33] = 0.8
    view = wb.MatchView(*pictures, features=lambda point: heat)
    assert view.mode == "point"
    assert view.point(3, 4).best == (33.5, 70.5)
    assert view.answer.similarity == pytest.approx(0.8)
    with pytest.raises(RuntimeError, match="features is a function for points of a"):
        view.point(3, 4, side="b")
    send(view, "mouse_down", 3, 4, side="b")
    assert "features is a function for points of a" in view.status
    assert "where it happened" in view._status_line.value
    send(view, "mouse_down", 3, 4, side="a")
    assert view.status == ""
    view._asking._features = lambda point: heat[:3]
    with pytest.raises(ValueError, match=r"the heat map has shape \(3, 80\), expected \(H, W\) of the picture"):
        view.point(3, 4)


# The truth


def test_truth_of_a_table_moves_points_as_their_pixel():
    table = torch.zeros(4, 6, 2)
    table[2, 3] = torch.tensor([10.0, 20.0])
    visible = torch.ones(4, 6, dtype=torch.bool)
    visible[0, 0] = False
    there = truth_of(SimpleNamespace(points=table, visible=visible))(np.array([(3.7, 2.25), (0.5, 0.5)]))
    assert there[0] == pytest.approx((10.2, 19.75))
    assert np.isnan(there[1]).all()


def test_a_rendered_scene():
    pair = cor.scene_pair("facade-00")
    found = wb.match(pair.image_a, pair.image_b, ransac="fundamental")
    exact, visible = cor.truth_at(found.points_a, pair.truth)
    wanted = (exact - found.points_b).norm(dim=1).numpy()
    wanted[~visible] = np.nan
    by_table = wb.MatchView(pair.image_a, pair.image_b, found, truth=pair.truth)
    by_function = wb.MatchView(pair.image_a, pair.image_b, found, truth=lambda points: cor.truth_at(points, pair.truth))
    assert by_function._lines.error == pytest.approx(wanted, abs=1e-5, nan_ok=True)
    assert by_table._lines.error == pytest.approx(wanted, abs=0.5, nan_ok=True)  # within half a pixel's motion
    assert by_table._lines.flags["right"].mean() > 0.6
    assert "right to 3 px" in by_table._controls.counted.value


# Sizes, pictures, errors


def test_panes_fit_and_keep_proportions():
    for sizes in ([(3000, 2000), (100, 900)], [(64, 64)], [(40, 60), (120, 80)]):
        panes = panes_of(sizes, 900, 460)
        assert panes[-1].left + panes[-1].width <= 900 + 1e-6
        assert max(pane.height for pane in panes) <= 460 + 1e-6
        for pane, size in zip(panes, sizes, strict=True):
            assert pane.width / pane.height == pytest.approx(size[1] / size[0])
            assert pane.to_picture(*pane.to_stage(size[1] / 3, size[0] / 7)) == pytest.approx(
                (size[1] / 3, size[0] / 7), abs=0.01
            )


def test_large_pictures_are_sent_small_and_points_stay_right():
    a, b = torch.zeros(1, 3, 1500, 2500), torch.zeros(1, 3, 900, 300)
    values = torch.tensor([[2400.0, 1400.0]]), torch.tensor([[290.0, 880.0]]), torch.tensor([0.7])
    view = wb.MatchView(a, b, Matches(*values, "sift", (1500, 2500), (900, 300)))
    assert max(Image.open(io.BytesIO(view._stage._pictures[0].value)).size) <= 1.5 * 912
    assert view._stage.size[1] <= 913
    send(view, "mouse_down", 2400, 1400, side="a")
    assert view.picked == 0
    assert view.snapshot().shape[-1] < 1000
    view.close()


@pytest.mark.long
def test_the_static_picture_shows_the_state(view):
    plain = view.snapshot()
    view.pick(0)
    picked = view.snapshot()
    view.point(25, 15)
    asked = view.snapshot()
    for one in (plain, picked, asked):
        assert 700 < one.shape[-1] < 1000
        assert one.shape[-2] < 700
    assert plain.shape != picked.shape or not torch.equal(plain, picked)
    assert set(view._repr_mimebundle_()) == {"application/vnd.jupyter.widget-view+json", "text/plain", "image/png"}
    assert repr(view) == ("MatchView(40x60 and 120x80, 4 drawn of 4 matches, 67% right to 3 px, asked (25, 15))")


def test_no_matches_at_all(pictures, matches):
    view = wb.MatchView(*pictures, matches.select(torch.zeros(4, dtype=torch.bool)), truth=doubled)
    assert view.shown == []
    assert view.snapshot().shape[1] == 3
    assert repr(view) == "MatchView(40x60 and 120x80, no matches)"
    with pytest.raises(RuntimeError, match="there are no matches"):
        view.pick(0)
    with pytest.raises(RuntimeError, match="no match is shown"):
        view.next()
    send(view, "mouse_down", 3, 4, side="a")
    assert view.error is None
    assert wb.MatchView(*pictures).snapshot().shape[1] == 3


def test_bad_input(pictures, matches, features):
    a, b = pictures
    with pytest.raises(TypeError, match="a is a str, expected a tensor"):
        wb.MatchView("coffee", b)
    with pytest.raises(ValueError, match="b holds 2 pictures, expected one"):
        wb.MatchView(a, torch.cat([b, b]))
    with pytest.raises(ValueError, match=r"matches are of a picture a of \(40, 60\) \(H, W\), expected \(120, 80\)"):
        wb.MatchView(b, a, matches)
    with pytest.raises(ValueError, match="features are of a picture a"):
        wb.MatchView(b, a, features=features)
    with pytest.raises(TypeError, match="features is a int, expected a feature pair, or a function"):
        wb.MatchView(a, b, features=3)
    with pytest.raises(TypeError, match="truth is a int, expected a function"):
        wb.MatchView(a, b, matches, truth=3)
    with pytest.raises(ValueError, match=r"flags\['mine'\] has shape \(3,\) and bool, expected \(4,\) bool"):
        wb.MatchView(a, b, matches, flags={"mine": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="matches has 4 points_a, 4 points_b and 3 confidences"):
        wb.MatchView(a, b, replace(matches, confidence=matches.confidence[:3]))
    view = wb.MatchView(a, b, matches, flags={"mine": torch.tensor([True, False, False, True])})
    view.only(mine=True)
    assert view.shown == [0, 3]
    for name, value, message in (
        ("colour", "error", "errors are not known"), ("mode", "point", "points cannot be asked"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=message):
            setattr(view, name, value)
    with pytest.raises(ValueError, match="flag is 'wrong', expected one of: inliers, mine"):
        view.only(wrong=True)
    with pytest.raises(ValueError, match="number is 4"):
        view.pick(4)
    with pytest.raises(TypeError, match="threshold is 'high'"):
        view.threshold = "high"
    with pytest.raises(ValueError, match="side is 'c'"):
        view.point(3, 4, "c")
    view.close()
    view.close()
    with pytest.raises(RuntimeError, match="the match view is closed"):
        view.pick(0)
