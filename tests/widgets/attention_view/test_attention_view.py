"""The attention view without a browser: every method and control, what is drawn, and what is told."""

import asyncio
import base64
import io

import pytest
import torch
from PIL import Image

import workbench as wb
from tests.stepping.pipelines import fresh
from tests.widgets.attention_view.conftest import SIZE
from workbench import plot
from workbench.widgets.stage import DENSITY, Ring


@pytest.fixture
def view(record, photo, hole):
    view = wb.AttentionView(record, image=photo, mask=hole)
    yield view
    view.close()


def send(view, event, x=0.0, y=0.0, **content):
    """An event as the browser sends it; places in pixels of the picture."""
    layer = view._stage.canvas._canvases[-1]
    x, y = (n * DENSITY for n in view._stage.panes[0].to_stage(x, y))
    layer._handle_frontend_event(layer, {"event": event, "x": x, "y": y, **content}, [])


def press(view, key, **held):
    send(view, "key_down", key=key, **({"shift_key": False, "ctrl_key": False, "meta_key": False} | held))


def told(view):
    return view._controls.told.value


def film_on(view):
    """The colours over the picture as sent, (H, W, 3), 0 to 255."""
    return torch.tensor(list(Image.open(io.BytesIO(view._stage._films[0].value)).convert("RGB").get_flattened_data()))


# Choosing


def test_it_begins_with_the_longest_word_and_the_mean_of_all(view, record):
    assert (
        repr(view) == "AttentionView(24x36 picture, where “reddish” acts, mean of all steps, all layers, mean of heads)"
    )
    word, step, layer, head, options = record.asked[-1]
    assert (word, step, layer, head) == ("reddish", None, None, None)
    assert options == {"how": "mean", "stretch": False, "occurrence": None, "picture": 0, "part": "text"}
    assert view.map[0, 0] == pytest.approx(0.1)
    assert view.question.point == (22.5, 12.0)  # the middle of the hole
    assert view.status == ""


def test_choose_asks_the_record_for_what_is_named(view, record):
    view.choose(token="a", occurrence=1, step=2, layer="up", head=1, how="sum", part="uncond")
    word, step, layer, head, options = record.asked[-1]
    assert (word, step, layer, head) == ("a", 2, "up", 1)
    assert options == {"how": "sum", "stretch": False, "occurrence": 1, "picture": 0, "part": "uncond"}
    view.choose(token="a", layer=["x", "y"])
    assert record.asked[-1][0] == "a"
    assert record.asked[-1][2] == ("x", "y")
    assert record.asked[-1][4]["occurrence"] is None
    view.choose(layer=(6, 9))
    assert record.asked[-1][2] == (6, 9)
    count = len(record.asked)
    view.choose(layer=["x", "y"])
    assert len(record.asked) == count  # answers are kept
    view.refresh()
    assert len(record.asked) == count + 1


def test_constructor_takes_what_to_choose(record):
    view = wb.AttentionView(record, token="ball", step=4, head=0)
    assert repr(view) == "AttentionView(24x36 picture, where “ball” acts, step 4, all layers, head 0)"
    assert view.map[0, 35] == pytest.approx(1.2)


def test_words_are_buttons_and_pieces_are_together(view):
    buttons = view._controls.tokens.children
    assert [b.description for b in buttons] == ["a", "reddish", "beside", "a", "ball", "start", "end"]
    buttons[3].click()
    assert (view.question.token, view.question.occurrence) == ("a", 1)
    assert ["chosen" in b._dom_classes for b in buttons] == [False, False, False, True, False, False, False]
    buttons[5].click()
    assert view.question.token == 0
    assert "where the start token acts" in told(view)
    view.choose(token="a")
    assert ["chosen" in b._dom_classes for b in buttons][:5] == [True, False, False, True, False]


def test_every_menu_and_slider(view, record):
    controls = view._controls
    assert [label for label, _ in controls.step.options] == ["all", "1", "2", "4"]
    assert dict(controls.layer.options) == {
        "all 2 layers": "", "down blocks": "down", "up blocks": "up", "all of 12 × 18 places": (12, 18),
        "all of 6 × 9 places": (6, 9), "12 × 18 · down 0.attn2": "down_blocks.0.attn2",
        "6 × 9 · up 0.attn2": "up_blocks.0.attn2",
    }  # fmt: skip
    assert [value for _, value in controls.head.options] == ["", 0, 1, 2]
    controls.step.value, controls.layer.value, controls.head.value = 4, "up", 2
    controls.how.value, controls.part.value, controls.strength.value = "normalised", "uncond", 0.25
    q = view.question
    assert (q.step, q.layer, q.head, q.how, q.part, view.strength) == (4, "up", 2, "normalised", "uncond", 0.25)
    assert view._stage.strengths == [0.25]
    controls.mode.value = "pixel"
    assert view.mode == "pixel"
    assert view.question.layer == "up" or view.question.layer is None
    assert [value for _, value in controls.head.options] == ["", 0, 1, 2, 3]  # self-attention has four
    assert controls._how.layout.display == "none"
    controls.step.value = ""
    assert view.question.step is None
    assert view.error is None


def test_pixels(view, record):
    view.mode = "pixel"
    assert record.asked[-1][0] == (22.5, 12.0)
    view.point(3, 20)
    assert view.map[20, 3] == 0.5
    assert view.map.sum() == 0.5
    view.mode = "word"
    view.choose(token="ball")
    assert view.mode == "word"
    view.release()
    assert view.status == ""


# Shares


def test_shares_in_the_hole_by_hand(view, hole):
    # 12 x 9 pixels of 0.3, of 24 x 18 of 0.1 and 24 x 18 of 0.3
    inside = 12 * 9 * 0.3 / (24 * 18 * 0.4)
    assert view._asking.masses(view.question, hole) == pytest.approx((inside, 1 - inside))
    assert f"{1 - inside:.1%}" in told(view)
    assert "12.5%" in told(view)  # the hole's area
    view.mode = "pixel"
    view.point(20, 10)
    assert "<td>100.0%</td>" in told(view)
    view.point(2, 2)
    assert "<td>0.0%</td>" in told(view)


def test_words_a_pixel_looks_at_have_their_pieces_added(view):
    assert "Words that pixel" not in told(view)
    view.point(5, 7)
    assert "Words that pixel (5, 7) looks at" in told(view)
    shares = view._asking.shares(view.question)
    assert sorted((name, round(share, 3), own) for name, share, own in shares) == [
        ("a", 0.02, True), ("a", 0.02, True), ("ball", 0.04, True), ("beside", 0.02, True), ("end", 0.1, False),
        ("padding", 0.2, False), ("reddish", 0.2, True), ("start", 0.4, False),
    ]  # fmt: skip
    assert shares[0][0] == "start"
    view.release()
    assert "Words that pixel" not in told(view)


# Drawing


def test_colours_are_those_of_the_map(view):
    wanted = plot.heat_map(view.map[None, None], 0.3, "magma")
    assert torch.allclose(film_on(view).reshape(*SIZE, 3).permute(2, 0, 1) / 255, wanted[0], atol=1 / 255)
    assert "0.3" in view._controls.scale.value


def test_a_held_scale_stays(view):
    view.choose(step=1)
    view.hold = True
    before = film_on(view)
    view.choose(step=4)  # four times as high
    assert not torch.equal(film_on(view), before)
    assert "0.3" in view._controls.scale.value
    view.hold = False
    assert torch.equal(film_on(view), before)  # by its own maximum it looks the same
    assert "1.2" in view._controls.scale.value
    view._controls.hold.value = True
    assert view.hold


def test_hover_click_and_escape(view):
    view.mode = "pixel"
    before = view.map
    send(view, "mouse_move", 30.2, 3.7)
    assert view.map[3, 30] == 0.5
    assert "where pixel (30, 4) looks" in told(view)
    assert view._stage.marks == (Ring(view._stage.panes[0].to_stage(30.2, 3.7), "#40c4ff"),)
    send(view, "mouse_out", 30, 3)
    assert torch.equal(view.map, before)
    send(view, "mouse_down", 10.5, 20.5)
    assert view.question.point == (10.5, 20.5)
    assert view._stage.marks[0].colour == "white"
    press(view, "Escape")
    assert "Words that pixel" not in told(view)
    send(view, "mouse_down", 60, 3)  # beside the picture
    assert view.question.point == (10.5, 20.5)
    assert view.error is None


@pytest.mark.long
def test_a_large_picture_is_shown_smaller_and_points_stay_right():
    class Large:
        parts, steps, size = ("text",), [1], (3000, 2000)

        def __getattr__(self, name):
            from tests.widgets.attention_view.conftest import FakeRecord

            return getattr(FakeRecord(), name)

        def query_map(self, point, *arguments, **options):
            self.point = point
            return torch.ones(self.size)

    record = Large()
    for name in ("token_map", "token_shares", "mass", "tokens", "keys", "heads", "grids"):
        setattr(record, name, getattr(record, name))
    view = wb.AttentionView(record, image=torch.zeros(1, 3, 3000, 2000))
    view.mode = "pixel"
    assert view._stage.size[0] <= 471
    send(view, "mouse_down", 1999.0, 2999.0)
    assert record.point == pytest.approx((1999.0, 2999.0), abs=0.02)
    assert max(Image.open(io.BytesIO(view._stage._pictures[0].value)).size) < 800
    view.close()


# What was not kept


def test_what_was_not_kept_is_told_and_raises_nothing(view):
    view.choose(step=3)
    assert view.map is None
    assert view.status == "step is 3, expected one that is kept: [1, 2, 4]."
    assert "step is 3" in view._status_line.value
    assert view._stage.strengths == [0.0]
    assert view.snapshot().shape[1] == 3
    view.choose(step=2, head=3)
    assert "kept without heads" in view.status
    view.choose(head=None)
    assert view.status == ""
    assert view.map is not None


def test_mistakes_raise_and_in_a_control_are_told(view):
    with pytest.raises(ValueError, match="word is 'dog', expected one of the prompt"):
        view.choose(token="dog")
    with pytest.raises(TypeError, match="step is 1.5"):
        view.choose(step=1.5)
    with pytest.raises(ValueError, match="head is -1"):
        view.choose(head=-1)
    with pytest.raises(ValueError, match="how is 'max', expected one of: mean, normalised, sum"):
        view.choose(how="max")
    with pytest.raises(ValueError, match="picture is 1"):
        view.choose(picture=1)
    with pytest.raises(ValueError, match="part is 'both', expected one of: text, uncond"):
        view.choose(part="both")
    with pytest.raises(ValueError, match="mode is 'both', expected one of: word, pixel"):
        view.mode = "both"
    with pytest.raises(ValueError, match="x is 37, expected a number from 0 to 36"):
        view.point(37, 3)
    with pytest.raises(ValueError, match="strength is 2"):
        view.strength = 2
    assert view.question.token == "reddish"
    view._asking.attention.token_map = None
    view._controls.step.value = 4
    assert "not callable" in view.status
    assert isinstance(view.error, TypeError)
    assert "where it happened" in view._status_line.value


def test_bad_input(record, photo):
    with pytest.raises(
        TypeError, match=r"attention is a int without token_map.*expected what wb.record_attention gives"
    ):
        wb.AttentionView(3)
    with pytest.raises(ValueError, match=r"image is \(24, 35\) and the record is \(24, 36\)"):
        wb.AttentionView(record, image=photo[..., :35])
    with pytest.raises(ValueError, match="mask is .* and image is"):
        wb.AttentionView(record, image=photo, mask=torch.ones(1, 1, 5, 5))
    record.grids = dict
    with pytest.raises(RuntimeError, match="nothing is recorded yet: call the pipeline inside the with block"):
        wb.AttentionView(record)


# The film


def test_play_in_a_script_goes_to_the_end(view):
    view.play()
    assert view.question.step == 4
    assert not view.running
    view.choose(step=2)
    view.play()
    assert view.question.step == 4


def test_play_and_pause_leave_the_kernel_free(view, monkeypatch):
    monkeypatch.setattr("workbench.widgets.attention_view.film.PACE", 0.02)

    async def watch():
        view._controls.play.click()
        assert view.running
        assert view.question.step == 1
        seen = set()
        while view.running:
            seen.add(view.question.step)
            await asyncio.sleep(0.005)
        view._controls.play.click()
        view._controls.pause.click()
        await asyncio.sleep(0.1)
        return seen

    assert asyncio.run(watch()) >= {1, 2}
    assert view.question.step == 1
    assert not view.running


def test_keys(view):
    press(view, "ArrowRight")
    assert view.question.step == 1
    press(view, "ArrowRight")
    press(view, "ArrowRight")
    press(view, "ArrowRight")
    assert view.question.step == 4
    press(view, "ArrowLeft")
    assert view.question.step == 2
    press(view, "ArrowRight", ctrl_key=True)
    assert view.question.step == 2
    press(view, " ")
    assert view.question.step == 4


def test_film_has_one_scale(view, tmp_path):
    path = view.film(tmp_path / "film.gif", seconds=1)
    film = Image.open(path)
    assert film.n_frames == 3
    assert film.size == (36, 24)
    brightness = []
    for frame in range(3):
        film.seek(frame)
        brightness.append(sum(film.convert("L").get_flattened_data()))
    assert brightness[0] < brightness[1] < brightness[2]  # maps grow with the step
    with pytest.raises(ValueError, match="expected .gif"):
        view.film(tmp_path / "film.png")
    view.choose(head=3)
    with pytest.raises(ValueError, match="there is no step with such a map. down_blocks.0 is kept without"):
        view.film(tmp_path / "none.gif")


# On the page


def test_the_static_picture_and_closing(view):
    assert view.snapshot().shape[-1] == 880
    bundle = view._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/plain", "image/png"}
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width == 880
    parts = [view.widget, view._stage.canvas, view._controls.step, *view._controls.tokens.children]
    view.close()
    view.close()
    assert [part.comm for part in parts] == [None] * len(parts)
    with pytest.raises(RuntimeError, match="the attention view is closed"):
        view.choose(step=1)
    with pytest.raises(RuntimeError, match="the attention view is closed"):
        view.play()
    view.refresh()


def test_a_reference_beside_the_picture(references):
    view = wb.AttentionView(references, reference=torch.rand(1, 3, 12, 12))
    assert [pane.size for pane in view._stage.panes] == [SIZE, (12, 12)]
    assert view.mode == "pixel"
    view.choose(keys="reference")
    assert references.asked[-1][4]["keys"] == "reference"
    assert view._stage.strengths == [0.0, 0.7]
    view._controls.keys.value = "image"
    assert view._stage.strengths == [0.7, 0.0]
    with pytest.raises(ValueError, match="keys is 'text', expected one of: image, reference"):
        view.choose(keys="text")
    view.close()


# Real records


@pytest.fixture(scope="module")
def run():
    pipe, arguments = fresh("sd_inpaint9")
    own = {"num_inference_steps": 3, "prompt": "a photo of a red ball", "negative_prompt": "small room"}
    run = wb.DenoisingRun(pipe, seed=3, **(arguments | own))
    run.step(3)
    return run


def test_a_run_of_which_nothing_was_kept_is_computed_once_more(run):
    record = wb.record_attention(run, size=(32, 48))
    view = wb.AttentionView(record)
    assert view.question.step == 3
    assert [value for _, value in view._controls.step.options] == [1, 2, 3]
    assert view.mask.sum() == 12 * 20  # from the run's call
    view.choose(token="ball", step=2, head=1)
    assert torch.equal(view.map, record.token_map("ball", step=2, head=1, stretch=False))
    view.mode = "pixel"
    view.point(20, 14)
    dot = torch.zeros(1, 1, 32, 48)
    dot[..., 14, 20] = 1
    assert f"{record.mass(view.mask, dot, step=2):.1%}" in told(view)
    assert view.status == ""
    assert view.error is None
    view.close()


def test_a_run_shows_what_it_predicts_at_each_step(run):
    view = wb.AttentionView(wb.record_attention(run, size=(32, 48)))
    pictures = []
    for step in (1, 3):
        view.choose(step=step)
        pictures.append(view._stage._sent[0])
    wanted = run.decode(3, "denoised")[:1].clamp(0, 1)
    inside = view.mask.bool().expand_as(wanted)  # the line round the hole is outside of it
    assert torch.allclose(pictures[1][inside], wanted[inside], atol=1e-3)
    assert not torch.equal(*pictures)
    view.close()


def test_a_record_kept_as_sums_has_words_but_no_pixels(run):
    pipe, arguments = fresh("sd_text")
    arguments |= {"num_inference_steps": 2}
    with wb.record_attention(pipe, keep="sums") as record:
        pipe(**arguments)
    view = wb.AttentionView(record)
    assert view.map is not None
    assert view._asking.modes() == ["word"]
    view.mode = "pixel"
    assert view.map is None
    assert "Dropped" in view.status
    view.close()
