"""What holds for every method, written once over the registry."""

import base64

import numpy as np
import pytest
import torch

import workbench as wb
from workbench import data, methods
from workbench.diffusion import pipelines
from workbench.methods.result import Step

METHODS = list(methods._METHODS)
PARAMS = {  # no weights, and soon done
    "neural_patch": {"network": "random", "iterations": 3, "show_every": 2},
    "diffusion": {"num_inference_steps": 2},
    "realfill": {
        "references": [torch.rand(1, 3, 24, 30, generator=torch.Generator().manual_seed(0))],
        "steps": 1,
        "samples": 1,
        "num_inference_steps": 2,
        "tuning": {"crops": 1, "holes_each": 1, "batch_size": 1},
    },
    "mimicbrush": {
        "reference": torch.rand(1, 3, 24, 30, generator=torch.Generator().manual_seed(0)),
        "num_inference_steps": 2,
    },
}
pytestmark = pytest.mark.usefixtures("untrained_models")


def test_the_registry(untrained_models):
    here = {file.name for file in untrained_models.iterdir()}
    assert wb.list_methods() == [name for name, (*_, model) in methods._METHODS.items() if model in (None, *here)]
    assert METHODS[:6] == ["mean", "biharmonic", "patchmatch", "context_encoder", "neural_patch", "spl"]
    assert METHODS[6:] == ["diffusion", "realfill", "mimicbrush"]


def test_a_method_without_its_weights_is_not_listed_and_says_what_is_missing(photo, hole, tmp_path, monkeypatch):
    for room in (data, pipelines):
        monkeypatch.setattr(room, "MODELS", tmp_path)
    assert wb.list_methods() == [name for name, (*_, model) in methods._METHODS.items() if model is None]
    with pytest.raises(wb.check.NotAvailable, match="tiny-context-encoder"):
        wb.inpaint(photo, hole, "context_encoder")


def inpaint(image, mask, method, **params):
    return wb.inpaint(image, mask, method, **PARAMS.get(method, {}), **params)


@pytest.mark.parametrize("method", METHODS)
class TestEveryMethod:
    def test_an_empty_mask_returns_the_input_exactly(self, method, photo, hole):
        result = inpaint(photo, torch.zeros_like(hole), method)
        assert torch.equal(result.image, photo)
        assert result.steps == []

    def test_kept_pixels_are_bit_equal_and_the_hole_is_filled(self, method, photo, hole):
        broken = torch.where(hole > 0.5, torch.rand_like(photo), photo)
        result = inpaint(broken, hole, method)
        assert torch.equal(result.image * (1 - hole), broken * (1 - hole))
        assert not torch.equal(result.image, broken)
        assert result.image.min() >= 0
        assert result.image.max() <= 1

    def test_what_lies_in_the_hole_does_not_matter(self, method, photo, hole):
        fills = [inpaint(torch.where(hole > 0.5, torch.full_like(photo, v), photo), hole, method) for v in (0, 1)]
        assert torch.equal(fills[0].image, fills[1].image)

    def test_same_seed_same_picture(self, method, photo, hole):
        assert torch.equal(inpaint(photo, hole, method, seed=4).image, inpaint(photo, hole, method, seed=4).image)

    def test_the_global_generator_is_left_alone(self, method, photo, hole):
        before = torch.random.get_rng_state()
        inpaint(photo, hole, method)
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_and_gradients_are_taken_off(self, method, dtype, photo, hole):
        given = photo.to(dtype).requires_grad_()
        result = inpaint(given, hole, method)
        assert result.image.dtype == torch.float32
        assert not result.image.requires_grad
        assert torch.equal(result.image, inpaint(given.detach().float(), hole, method).image)

    def test_inputs_are_not_modified(self, method, photo, hole):
        before = photo.clone(), hole.clone()
        inpaint(photo, hole, method, feather=2)
        assert torch.equal(photo, before[0])
        assert torch.equal(hole, before[1])

    def test_a_batch_equals_its_items(self, method, photo, hole):
        images, masks = torch.cat([photo, photo.flip(2)]), torch.cat([hole, torch.zeros_like(hole)])
        result = inpaint(images, masks, method)
        assert torch.equal(result.image[:1], inpaint(photo, hole, method).image)
        assert torch.equal(result.image[1:], images[1:])

    @pytest.mark.parametrize("kind", ["frame", "scattered", "one pixel", "column"])
    def test_odd_holes(self, method, kind, photo):
        mask = {
            "frame": wb.mask.outpaint((20, 28), left=4, bottom=3),
            "scattered": (torch.rand(1, 1, 20, 28, generator=torch.Generator().manual_seed(1)) < 0.1).float(),
            "one pixel": wb.mask.box((20, 28), (14, 19, 15, 20)),
            "column": wb.mask.box((20, 28), (9, 0, 12, 20)),
        }[kind]
        result = inpaint(photo, mask, method)
        assert result.image.isfinite().all()
        assert wb.metrics.mean_l1(result.image, photo, mask) < 0.33  # what a guess at random is off by

    def test_nothing_known_is_refused(self, method, photo, hole):
        with pytest.raises(ValueError, match="keep|kept"):
            inpaint(photo, torch.ones_like(hole), method)

    def test_steps_are_numbered_and_end_in_the_result(self, method, photo, hole):
        seen = []
        result = inpaint(photo, hole, method, callback=seen.append)
        assert seen == result.steps
        assert [s.i for s in seen] == list(range(1, len(seen) + 1))
        assert seen[-1].i <= seen[-1].total
        x0, y0, x1, y1 = seen[-1].box or (0, 0, 28, 20)
        assert torch.equal(wb.image.resize(seen[-1].image, (y1 - y0, x1 - x0)), result.raw[..., y0:y1, x0:x1])

    def test_interrupting_returns_what_there_is(self, method, photo, hole):
        def stop(step):
            raise KeyboardInterrupt

        result = inpaint(photo, hole, method, callback=stop)
        assert result.interrupted
        assert result.image.shape == photo.shape
        assert torch.equal(result.image * (1 - hole), photo * (1 - hole))
        assert "interrupted" in repr(result)


def test_feather_blends_outside_the_hole_only(photo, hole):
    result = wb.inpaint(photo * 0.5, hole, "mean", feather=3)
    ring = wb.mask.border(hole, 3, "outside")
    beyond = 1 - hole - ring
    assert torch.equal(result.image * beyond, photo * 0.5 * beyond)
    assert torch.equal(result.image * hole, result.raw * hole)
    expected = wb.mask.feather(hole, 3)
    torch.testing.assert_close(result.image, photo * 0.5 * (1 - expected) + result.raw * expected)


def test_the_seam_is_hidden_unless_told(photo, hole):
    plain, shifted = (inpaint(photo, hole, "diffusion", seamless=seamless) for seamless in (False, None))
    assert torch.equal(plain.raw, shifted.raw)
    assert torch.equal(plain.image, torch.where(hole > 0.5, plain.raw, photo))
    assert torch.equal(shifted.image, wb.seams.seamless(photo, shifted.raw, hole))
    assert not torch.equal(plain.image, shifted.image)
    assert (plain.params["seamless"], shifted.params["seamless"]) == (False, True)
    with pytest.raises(ValueError, match="feather is 3 and seamless is True, expected one of them"):
        wb.inpaint(photo, hole, "mean", feather=3, seamless=True)


@pytest.mark.parametrize("method", ["mean", "biharmonic", "patchmatch"])
def test_nothing_is_shifted_where_known_pixels_were_left_alone(method, photo, hole):
    plain, shifted = (inpaint(photo, hole, method, seamless=seamless) for seamless in (False, True))
    assert torch.equal(plain.image, shifted.image)


def test_refusals(photo, hole):
    with pytest.raises(ValueError, match="method is 'magic', expected one of: mean"):
        wb.inpaint(photo, hole, "magic")
    with pytest.raises(TypeError, match="'mean' has no parameter 'patch'. It takes none"):
        wb.inpaint(photo, hole, "mean", patch=5)
    with pytest.raises(TypeError, match="'patchmatch' has no parameter 'pach'. It takes: references, patch"):
        wb.inpaint(photo, hole, "patchmatch", pach=5)
    with pytest.raises(ValueError, match="seed is -1"):
        wb.inpaint(photo, hole, "mean", seed=-1)
    with pytest.raises(ValueError, match="mask is"):
        wb.inpaint(photo, hole[..., 1:], "mean")
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = methods.magic


def test_result_shows_saves_and_describes_itself(photo, hole, tmp_path):
    result = wb.inpaint(photo, hole, "mean")
    assert repr(result) == "Result(mean: 20 x 28, hole 9.6%, seed 0, 1 steps)"
    bundle = result._repr_mimebundle_()
    assert bundle["text/plain"] == repr(result)
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    saved = wb.load_image(result.save(tmp_path / "a.png"))
    torch.testing.assert_close(saved, result.image, atol=0.003, rtol=0)
    assert repr(result.steps[0]) == "Step(1/1: mean colour; image (1, 3, 20, 28))"


def test_large_pictures_keep_their_last_step_only(photo, hole, monkeypatch):
    def three_steps(image, mask, *, seed=0):
        for i in range(1, 4):
            yield Step(i, 3, f"step {i}", image * i / 4)

    monkeypatch.setattr(methods, "_fill_function", lambda method, params: three_steps)
    assert len(wb.inpaint(photo, hole).steps) == 3
    monkeypatch.setattr(methods, "_KEEP_ALL_STEPS", 100)
    assert [s.i for s in wb.inpaint(photo, hole).steps] == [3]


def test_a_step_that_shows_a_part_lands_in_its_place(photo, hole, monkeypatch):
    part = photo[..., 3:13, 8:24]

    def one_part(image, mask, *, seed=0):
        yield Step(1, 2, "half size", wb.image.resize(part, (5, 8)), box=(8, 3, 24, 13))
        raise KeyboardInterrupt

    monkeypatch.setattr(methods, "_fill_function", lambda method, params: one_part)
    result = wb.inpaint(torch.where(hole > 0.5, torch.zeros_like(photo), photo), hole)
    assert result.interrupted
    assert wb.metrics.psnr(result.image, photo, hole) > 25  # the photograph is smooth: half size loses little


def test_a_failing_method_is_closed_and_its_error_is_told(photo, hole, monkeypatch):
    closed = []

    def broken(image, mask, *, seed=0):
        try:
            yield Step(1, 2, "first", image)
            raise RuntimeError("inside the method")
        finally:
            closed.append(True)

    monkeypatch.setattr(methods, "_fill_function", lambda method, params: broken)
    with pytest.raises(RuntimeError, match="inside the method"):
        wb.inpaint(photo, hole)
    assert closed


# the two classical fills


def test_mean_by_hand():
    photo = torch.zeros(1, 3, 2, 3)
    photo[0, 0] = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.9, 0.0]])
    mask = wb.mask.box((2, 3), (1, 1, 3, 2))
    filled = wb.inpaint(photo, mask, "mean").image
    assert filled[0, 0, 1].tolist() == pytest.approx([0.4, 0.25, 0.25])


def test_biharmonic_continues_a_slope():
    """Value and slope at the edge fix a plane; the solver must find it."""
    y, x = np.mgrid[:24, :36] / 40
    plane = torch.from_numpy(np.stack([0.1 + x, 0.2 + y, 0.8 - x / 2 - y / 2])).float()[None]
    mask = wb.mask.box((24, 36), (10, 8, 20, 15))
    filled = wb.inpaint(plane, mask, "biharmonic").image
    assert wb.metrics.psnr(filled, plane, mask) > 50
    assert (
        wb.metrics.psnr(filled, plane, mask) > wb.metrics.psnr(wb.inpaint(plane, mask, "mean").image, plane, mask) + 20
    )
