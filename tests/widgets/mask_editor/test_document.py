"""The document behind the mask editor: pixels, log, undo and redo, with no browser and no widget."""

import json

import numpy as np
import pytest
import torch

from workbench import mask
from workbench.widgets.mask_editor import gestures
from workbench.widgets.mask_editor.document import MaskDocument

SIZE = (24, 40)  # (H, W), not square


@pytest.fixture
def photograph():
    """Left half dark, right half bright, with a bright square in the dark half."""
    picture = torch.full((1, 3, *SIZE), 0.2)
    picture[..., 20:] = 0.8
    picture[..., 4:8, 4:8] = 0.8
    return picture


@pytest.fixture
def document(photograph):
    return MaskDocument(photograph)


def drawn(document):
    """The pixels as a set of (x, y)."""
    return {(int(x), int(y)) for y, x in zip(*np.nonzero(document.pixels), strict=True)}


# Gestures, worked out by hand


def test_a_new_document_is_empty(document):
    assert document.size == SIZE
    assert document.pixels.dtype == np.uint8
    assert not document.pixels.any()
    assert document.log == []
    assert not document.can_undo
    assert not document.can_redo


def test_stroke_marks_all_pixels_within_the_radius(document):
    document.perform("stroke", points=[(5.5, 5.5), (9.5, 5.5)], radius=1)
    assert drawn(document) == {(x, 5) for x in range(4, 11)} | {(x, y) for x in range(5, 10) for y in (4, 6)}
    assert set(np.unique(document.pixels)) == {0, 255}


def test_soft_stroke_fades_in_a_straight_line(document):
    document.perform("stroke", points=[(10.5, 10.5)], radius=4, softness=0.5)
    # coverage = (radius - d) / (softness radius): d = 0, 2 -> 1; d = 3 -> 0.5; d = 4 -> 0
    assert document.pixels[10, 10:15].tolist() == [255, 255, 255, 128, 0]


def test_soft_paint_never_eats_into_hard_paint_and_erasing_is_its_mirror(document):
    document.perform("rectangle", x0=0, y0=0, x1=40, y1=24)
    document.perform("stroke", points=[(10.5, 10.5)], radius=4, softness=0.5)
    assert (document.pixels == 255).all()
    document.perform("stroke", points=[(10.5, 10.5)], radius=4, softness=0.5, erase=True)
    assert document.pixels[10, 10:15].tolist() == [0, 0, 0, 127, 255]


def test_rectangle_takes_corners_in_any_order(document):
    document.perform("rectangle", x0=12, y0=9, x1=10, y1=6)
    assert drawn(document) == {(x, y) for x in (10, 11) for y in (6, 7, 8)}


def test_ellipse_fills_its_box(document):
    document.perform("ellipse", x0=4, y0=2, x1=12, y1=6)
    assert (document.pixels[3, 4:12] == 255).all()
    assert document.pixels[2, 4] == 0
    assert drawn(document) <= {(x, y) for x in range(4, 12) for y in range(2, 6)}


def test_polygon_and_lasso_fill_their_inside(document):
    document.perform("polygon", points=[(2, 2), (8, 2), (8, 6), (2, 6)])
    assert drawn(document) == {(x, y) for x in range(2, 8) for y in range(2, 6)}
    document.perform("clear")
    document.perform("lasso", points=[(2, 2), (8, 2), (8, 6), (2, 6)])
    assert drawn(document) >= {(x, y) for x in range(2, 8) for y in range(2, 6)}


def test_bucket_takes_the_connected_area_of_one_colour(document):
    document.perform("fill", x=5, y=5)
    assert drawn(document) == {(x, y) for x in range(4, 8) for y in range(4, 8)}  # not the bright right half
    document.perform("fill", x=30, y=5, erase=True)
    document.perform("fill", x=0, y=0, tolerance=1.0)
    assert (document.pixels == 255).all()


def test_erase_takes_away(document):
    document.perform("rectangle", x0=0, y0=0, x1=10, y1=10)
    document.perform("ellipse", x0=0, y0=0, x1=10, y1=10, erase=True)
    assert 0 < len(drawn(document)) < 100 - 70


def test_clear_and_invert(document):
    document.perform("rectangle", x0=0, y0=0, x1=10, y1=24)
    document.perform("invert")
    assert drawn(document) == {(x, y) for x in range(10, 40) for y in range(24)}
    document.perform("clear")
    assert not document.pixels.any()


@pytest.mark.parametrize("radius", [1, 2.5, 6])
@pytest.mark.parametrize("gesture", ["grow", "shrink", "feather"])
@pytest.mark.parametrize("box", [(10, 5, 25, 15), (0, 0, 40, 3), (30, 12, 40, 24), (0, 0, 40, 24)])
def test_grow_shrink_feather_agree_with_the_whole_picture(document, gesture, radius, box):
    """They look only at the part that matters; the answer is that of wb.mask on the whole picture."""
    document.perform("rectangle", x0=box[0], y0=box[1], x1=box[2], y1=box[3])
    document.perform("stroke", points=[(12, 8)], radius=2, erase=True)
    hole = torch.from_numpy((document.pixels >= 128).astype(np.float32))[None, None]
    expected = getattr(mask, gesture)(hole, radius)[0, 0].numpy()
    document.perform(gesture, radius=radius)
    assert np.array_equal(document.pixels, np.rint(expected * 255).astype(np.uint8))


def test_grow_makes_a_soft_hole_hard(document):
    document.perform("stroke", points=[(20, 12)], radius=8, softness=1)
    document.perform("grow", radius=0)
    assert set(np.unique(document.pixels)) == {0, 255}


def test_grow_of_nothing_is_nothing(document):
    document.perform("grow", radius=3)
    assert not document.pixels.any()


def test_extend_makes_the_border_hole(document, photograph):
    document.perform("rectangle", x0=0, y0=0, x1=2, y1=2)
    document.perform("extend", left=8, bottom=4)
    assert document.size == (28, 48)
    assert torch.equal(document.image[..., :24, 8:], photograph)
    assert (document.image[..., :8] == 0.5).all()
    expected = np.full((28, 48), 255, np.uint8)
    expected[:24, 8:] = 0
    expected[:2, 8:10] = 255
    assert np.array_equal(document.pixels, expected)


def test_load_photograph_keeps_the_mask_of_the_same_size_only(document):
    document.perform("rectangle", x0=0, y0=0, x1=2, y1=2)
    document.perform("load_photograph", source=gestures.pack_photograph(torch.zeros(1, 3, *SIZE)))
    assert document.pixels.sum() == 4 * 255
    document.perform("load_photograph", source=gestures.pack_photograph(torch.zeros(1, 3, 8, 12)))
    assert document.size == (8, 12)
    assert not document.pixels.any()


def test_what_lies_outside_the_picture_is_cut_off(document):
    document.perform("stroke", points=[(-50, -50), (-40, -60)], radius=3)
    document.perform("rectangle", x0=-5, y0=20, x1=3, y1=90)
    assert drawn(document) == {(x, y) for x in range(3) for y in range(20, 24)}
    document.undo()
    document.undo()
    assert not document.pixels.any()


# Trimap


def test_trimap_labels(photograph):
    document = MaskDocument(photograph, mode="trimap")
    document.perform("rectangle", x0=0, y0=0, x1=10, y1=10)
    document.perform("rectangle", x0=5, y0=0, x1=10, y1=10, label="unknown")
    document.perform("rectangle", x0=8, y0=0, x1=10, y1=10, label="background")
    document.perform("rectangle", x0=0, y0=8, x1=3, y1=10, erase=True)
    assert document.pixels[0, :11].tolist() == [255] * 5 + [128] * 3 + [0] * 3
    assert document.pixels[9, :4].tolist() == [0, 0, 0, 255]
    document.perform("invert")
    assert document.pixels[0, :11].tolist() == [0] * 5 + [128] * 3 + [255] * 3


def test_trimap_band_grows_and_shrinks_to_both_sides(photograph):
    document = MaskDocument(photograph, mode="trimap")
    document.perform("rectangle", x0=0, y0=0, x1=20, y1=24)
    document.perform("rectangle", x0=18, y0=0, x1=22, y1=24, label="unknown")
    document.perform("grow", radius=2)
    assert document.pixels[12].tolist() == [255] * 16 + [128] * 8 + [0] * 16
    document.perform("shrink", radius=3)
    assert document.pixels[12].tolist() == [255] * 19 + [128] * 2 + [0] * 19


def test_trimap_has_three_levels_whatever_is_drawn(photograph):
    document = MaskDocument(photograph, mode="trimap")
    document.perform("stroke", points=[(10, 10), (30, 12)], radius=12, softness=1)
    document.perform("stroke", points=[(10, 10), (30, 12)], radius=3, softness=0.5, label="unknown")
    document.perform("grow", radius=1.5)
    assert set(np.unique(document.pixels)) == {0, 128, 255}


# A stroke under way


def test_a_stroke_under_way_ends_as_the_same_stroke_drawn_at_once(photograph):
    generator = np.random.default_rng(0)
    for softness in (0, 0.7):
        points = [tuple(point) for point in (generator.random((40, 2)) * (40, 24)).round(2).tolist()]
        by_hand, at_once = MaskDocument(photograph), MaskDocument(photograph)
        by_hand.start_stroke(points[0], radius=3, softness=softness)
        for point in points[1:]:
            by_hand.continue_stroke(point)
        under_way = by_hand.pixels.copy()
        by_hand.finish_stroke()
        at_once.perform("stroke", points=points, radius=3, softness=softness)
        assert np.array_equal(by_hand.pixels, at_once.pixels)
        assert np.abs(under_way.astype(int) - by_hand.pixels).max() <= 1  # what one sees is what one gets
        assert by_hand.log == at_once.log


def test_a_cancelled_stroke_leaves_nothing(document):
    document.perform("rectangle", x0=3, y0=3, x1=9, y1=9)
    before = document.pixels.copy()
    document.start_stroke((1, 1), radius=4)
    document.continue_stroke((30, 20))
    document.cancel_stroke()
    assert np.array_equal(document.pixels, before)
    assert len(document.log) == 1


def test_another_gesture_ends_a_stroke_under_way_without_it(document):
    document.start_stroke((10, 10), radius=4)
    document.perform("rectangle", x0=0, y0=0, x1=1, y1=1)
    assert drawn(document) == {(0, 0)}


def test_a_stroke_has_to_be_begun(document):
    for call in (lambda: document.continue_stroke((1, 1)), document.finish_stroke):
        with pytest.raises(RuntimeError, match="no stroke was begun"):
            call()


# Undo, redo, replay


def random_gestures(generator, count, mode):
    """Any gestures, in any order; sizes change on the way."""
    photographs = [torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) for size in ((24, 40), (16, 30))]

    def ink():
        if mode == "trimap":
            return {"label": str(generator.choice(["foreground", "unknown", "background"]))}
        return {"erase": bool(generator.random() < 0.4)}

    def numbers(*shape):
        return (generator.random(shape) * 50 - 5).round(2)

    makers = {
        "stroke": lambda: {"points": numbers(5, 2), "radius": 4, "softness": round(generator.random(), 2)} | ink(),
        "rectangle": lambda: dict(zip(("x0", "y0", "x1", "y1"), numbers(4).tolist(), strict=True)) | ink(),
        "ellipse": lambda: dict(zip(("x0", "y0", "x1", "y1"), numbers(4).tolist(), strict=True)) | ink(),
        "polygon": lambda: {"points": numbers(5, 2).tolist()} | ink(),
        "lasso": lambda: {"points": numbers(6, 2)} | ink(),
        "fill": lambda: {"x": 3.5, "y": 4, "tolerance": 0.45} | ink(),
        "clear": dict,
        "invert": dict,
        "grow": lambda: {"radius": 1.5},
        "shrink": lambda: {"radius": np.float32(1)},
        "extend": lambda: {"left": np.int64(2), "bottom": 3},
        "load_photograph": lambda: {"source": gestures.pack_photograph(photographs[generator.integers(2)])},
    }
    if mode == "mask":
        makers["feather"] = lambda: {"radius": 2}
    for name in generator.choice(sorted(makers), count):
        yield str(name), makers[name]()


@pytest.mark.parametrize("mode", ["mask", "trimap"])
@pytest.mark.parametrize("seed", range(6))
def test_undo_redo_and_replay_are_exact(photograph, mode, seed):
    document = MaskDocument(photograph, mode=mode)
    states = [(document.pixels.copy(), document.image)]
    for name, arguments in random_gestures(np.random.default_rng(seed), 25, mode):
        document.perform(name, **arguments)
        states.append((document.pixels.copy(), document.image))
    log = json.loads(json.dumps(document.log))
    for pixels, image in states[-2::-1]:
        document.undo()
        assert np.array_equal(document.pixels, pixels)
        assert document.image is image
    assert document.log == []
    for pixels, image in states[1:]:
        document.redo()
        assert np.array_equal(document.pixels, pixels)
        assert document.image is image
    assert document.log == log
    again = MaskDocument(photograph, mode=mode)
    again.replay(log)
    assert np.array_equal(again.pixels, document.pixels)
    assert torch.equal(again.image, document.image)


def test_log_holds_a_mask_given_at_the_start_or_loaded(photograph):
    soft = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(1))
    document = MaskDocument(photograph, soft)
    document.perform("invert")
    document.perform("load", mask=gestures.pack(np.arange(960, dtype=np.uint8).reshape(SIZE)))
    document.undo()
    again = MaskDocument(photograph)
    again.replay(json.loads(json.dumps(document.log)))
    assert np.array_equal(again.pixels, document.pixels)
    assert np.array_equal(again.pixels, 255 - np.rint(soft[0, 0].numpy() * 255).astype(np.uint8))
    assert not MaskDocument(photograph, soft).can_undo


def test_the_log_is_a_copy(document):
    document.perform("stroke", points=[(1, 2)], radius=3)
    document.log[0]["points"].append([9, 9])
    assert document.log == [{"gesture": "stroke", "points": [[1, 2]], "radius": 3}]


def test_a_new_gesture_forgets_what_was_undone(document):
    document.perform("invert")
    document.undo()
    assert document.can_redo
    document.perform("clear")
    assert not document.can_redo
    with pytest.raises(RuntimeError, match="no undone gesture"):
        document.redo()
    document.undo()
    with pytest.raises(RuntimeError, match="no gesture to undo"):
        document.undo()


def test_undo_keeps_within_its_memory_and_the_log_stays_whole(photograph):
    noise = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
    document = MaskDocument(photograph, memory=3000)  # a noisy picture of 960 pixels takes about as many bytes
    for _ in range(8):
        document.perform("load", mask=gestures.pack(noise))
        noise = noise[::-1]
    undone = 0
    while document.can_undo:
        document.undo()
        undone += 1
    assert 2 <= undone <= 4
    assert len(document.log) == 8 - undone
    assert document.gesture_count == 8 - undone


# Observers and errors


def test_observers_are_told_the_box_that_changed(document):
    boxes = []
    document.observe(boxes.append)
    document.perform("rectangle", x0=3, y0=4, x1=8, y1=6)
    document.undo()
    document.perform("extend", right=8)
    document.unobserve(boxes.append)
    document.perform("invert")
    assert boxes == [(3, 4, 8, 6), (3, 4, 8, 6), None]


@pytest.mark.parametrize(
    ("gesture", "arguments", "error", "message"),
    [
        ("stroke", {"points": [(1, float("nan"))]}, ValueError, "NaN"),
        ("stroke", {"points": "no"}, TypeError, "pairs"),
        ("stroke", {"points": [(1, 2)], "radius": 0}, ValueError, "radius is 0"),
        ("stroke", {"points": [(1, 2)], "softness": 2}, ValueError, "softness is 2"),
        ("stroke", {"points": [(1, 2)], "label": "unknown"}, ValueError, 'mode="trimap"'),
        ("rectangle", {"x0": 1, "y0": 1, "x1": 1, "y1": 5}, ValueError, "x0 < x1"),
        ("polygon", {"points": [(1, 2), (3, 4)]}, ValueError, "at least 3"),
        ("fill", {"x": 41, "y": 3}, ValueError, "inside the picture"),
        ("grow", {"radius": -1}, ValueError, "radius is -1"),
        ("extend", {"left": 0}, ValueError, "at least one side"),
        ("extend", {"left": -3}, ValueError, "left is -3"),
        ("load", {"mask": gestures.pack(np.zeros((3, 4), np.uint8))}, ValueError, r"mask is \(3, 4\)"),
        ("load_photograph", {"source": {"file": "bm8="}}, ValueError, "not a picture"),
        ("smudge", {}, ValueError, "gesture is 'smudge'"),
    ],
)
def test_a_gesture_that_fails_changes_nothing(document, gesture, arguments, error, message):
    document.perform("rectangle", x0=3, y0=4, x1=8, y1=6)
    pixels, log = document.pixels.copy(), document.log
    with pytest.raises(error, match=message):
        document.perform(gesture, **arguments)
    assert np.array_equal(document.pixels, pixels)
    assert document.log == log


def test_errors_of_the_trimap(photograph):
    document = MaskDocument(photograph, mode="trimap")
    with pytest.raises(ValueError, match="label is 'sky', expected one of: background, unknown, foreground"):
        document.perform("stroke", points=[(1, 2)], label="sky")
    with pytest.raises(ValueError, match="expected one of them"):
        document.perform("stroke", points=[(1, 2)], label="unknown", erase=True)
    with pytest.raises(ValueError, match="feather"):
        document.perform("feather", radius=2)


def test_errors_of_construction(photograph):
    with pytest.raises(ValueError, match=r"mask has shape \(1, 1, 5, 6\), expected \(1, 1, 24, 40\)"):
        MaskDocument(photograph, torch.zeros(1, 1, 5, 6))
    with pytest.raises(ValueError, match="3 photographs, expected one"):
        MaskDocument(photograph.expand(3, -1, -1, -1))
    with pytest.raises(ValueError, match="mode is 'alpha'"):
        MaskDocument(photograph, mode="alpha")
    with pytest.raises(ValueError, match="0, 0.5 and 1"):
        MaskDocument(photograph, torch.full((1, 1, *SIZE), 0.3), mode="trimap")


def test_replay_of_something_else_says_what_a_log_is(document):
    with pytest.raises(TypeError, match=r"log\[0\] is 'clear', expected a gesture"):
        document.replay(["clear"])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_pack_keeps_every_value(dtype):
    array = (np.random.default_rng(0).random((3, 5, 2)) * 200).astype(dtype)
    again = gestures.unpack(json.loads(json.dumps(gestures.pack(array))))
    assert again.dtype == array.dtype
    assert np.array_equal(again, array)


@pytest.mark.parametrize("steps", [255, 1000])
def test_a_photograph_in_the_log_keeps_every_value(steps):
    """8-bit pictures are kept in 8 bits, all others as they are."""
    picture = torch.arange(2 * 3 * 3, dtype=torch.float32).view(1, 3, 2, 3) * 7 / steps
    source = json.loads(json.dumps(gestures.pack_photograph(picture)))
    assert source["dtype"] == ("uint8" if steps == 255 else "float32")
    document = MaskDocument(torch.zeros(1, 3, 4, 4))
    document.perform("load_photograph", source=source)
    assert torch.equal(document.image, picture)
