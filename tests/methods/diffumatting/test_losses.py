"""DiffuMatting's losses: values by hand, gradients against differences, and what they reach."""

import pytest
import torch

from workbench.methods.diffumatting import losses


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_green_control_by_hand():
    """Object on the left half. A layer that looks at green everywhere is wrong by 1 there: mean 1/2."""
    alpha = torch.zeros(1, 1, 8, 12)
    alpha[..., :6] = 1
    everywhere, right = torch.ones(1, 1, 4, 6), torch.zeros(1, 1, 2, 4)
    right[..., 2:] = 1
    assert losses.green_control([everywhere], alpha).item() == pytest.approx(0.5)
    assert losses.green_control([right], alpha).item() == 0
    assert losses.green_control([everywhere, right], alpha).item() == pytest.approx(0.25)  # each layer counts alike
    soft = torch.full((1, 1, 4, 4), 0.75)
    assert losses.green_control([soft], torch.full((1, 1, 8, 8), 0.5)).item() == pytest.approx(0.0625)


def test_green_control_counts_only_items_with_the_word():
    alpha, maps = torch.zeros(3, 1, 8, 8), torch.zeros(3, 1, 4, 4)
    maps[1] = 0.5
    assert losses.green_control([maps], alpha, torch.tensor([0.0, 1.0, 0.0])).item() == pytest.approx(0.25)
    assert losses.green_control([maps], alpha, torch.tensor([1.0, 1.0, 0.0])).item() == pytest.approx(0.625)
    assert losses.green_control([maps], alpha, torch.zeros(3)).item() == 0


def test_sobel_by_hand():
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    response = losses.sobel((0.1 * x + 0.3 * y)[None, None])
    assert response.shape == (1, 2, 5, 7)
    torch.testing.assert_close(response[0, 0, 1:-1, 1:-1], torch.full((3, 5), 0.1))
    torch.testing.assert_close(response[0, 1, 1:-1, 1:-1], torch.full((3, 5), 0.3))
    green = torch.zeros(1, 3, 5, 7)
    green[:, 1] = x
    torch.testing.assert_close(losses.sobel(green)[0, 0, 1:-1, 1:-1], torch.full((3, 5), 0.587))


def test_boundary_detail_by_hand():
    """A slope that is missing counts by what the matte is there; the background counts for nothing."""
    x = torch.linspace(0, 0.6, 7).expand(1, 3, 5, 7)
    alpha = torch.zeros(1, 1, 5, 7)
    alpha[..., 2:4, 2:4] = 0.5
    flat = torch.full_like(x, 0.2)
    assert losses.boundary_detail(x, x, alpha).item() == 0
    expected = 4 * 0.5 * 0.1 / (2 * 35)  # four pixels, one of two directions
    assert losses.boundary_detail(flat, x, alpha).item() == pytest.approx(expected, rel=1e-5)
    assert losses.boundary_detail(flat, x, torch.zeros_like(alpha)).item() == 0
    both = losses.boundary_detail(*(v.repeat(2, 1, 1, 1) for v in (flat, x, alpha)), torch.tensor([1.0, 0.0]))
    assert both.item() == pytest.approx(expected / 2, rel=1e-5)


def test_dice_and_matting_by_hand():
    truth = torch.zeros(2, 1, 4, 4)
    truth[0, :, :2] = 1  # eight pixels
    half = torch.full_like(truth, 0.5)
    assert losses.dice(truth, truth).tolist() == [0, 0]  # nothing at all agrees with nothing
    # item 0: 1 - (2 * 4 + 1) / (4 + 8 + 1); item 1: 1 - 1 / (4 + 1)
    assert losses.dice(half, truth).tolist() == pytest.approx([1 - 9 / 13, 0.8])
    assert losses.matting(half, truth).item() == pytest.approx((1 - 9 / 13 + 0.5 + 0.8 + 0.5) / 2)
    weight = torch.tensor([0.0, 1.0])
    assert losses.matting(half, truth, weight).item() == pytest.approx(0.65)
    soft = torch.full((1, 1, 4, 4), 0.3)
    assert losses.dice(soft, soft).item() == pytest.approx(0, abs=1e-6)  # soft mattes that are equal, too


def test_total():
    terms = {name: torch.tensor(value) for name, value in zip("abc", (1.0, 2.0, 3.0), strict=True)}
    terms["denoising"] = terms.pop("a")
    assert losses.total(terms, {"b": 0.5, "c": 2.0}).item() == pytest.approx(8)
    assert losses.total(terms, {}).item() == 1
    with pytest.raises(ValueError, match="weights names green, expected some of"):
        losses.total(terms, {"green": 1.0})


def test_the_refiners_losses_by_hand():
    truth, alpha = torch.zeros(1, 1, 4, 6), torch.full((1, 1, 4, 6), 0.25)
    truth[..., :3] = 1
    colour, true = torch.full((1, 3, 4, 6), 0.5), torch.full((1, 3, 4, 6), 0.75)
    true[..., 3:] = 0  # no object: its colour does not count
    edges = 2 * 0.5 / 12  # the step from 1 to 0 is a slope of 1/2 over two columns of six, one of two directions
    assert losses.refinement(alpha, colour, truth, true).item() == pytest.approx(0.5 + edges + 0.25)
    assert losses.refinement(truth, true, truth, true).item() == 0
    error = torch.full_like(alpha, 0.75)  # right on the object, wrong by 0.5 beside it
    assert losses.error_prediction(error, alpha, truth).item() == pytest.approx(0.125)


def test_background_by_hand():
    """Off by 2 in one of two channels: 2 a place; only places of the background count, soft ones by what they show."""
    truth, alpha = torch.zeros(2, 2, 2, 2), torch.zeros(2, 1, 8, 8)
    estimate = truth.clone()
    estimate[:, 0, 0] = 2.0  # the upper row
    assert losses.background(estimate, truth, alpha).item() == pytest.approx(1.0)
    alpha[:, :, :4] = 1.0  # the upper half is object
    assert losses.background(estimate, truth, alpha).item() == 0
    alpha[0, :, :4] = 0.5
    assert losses.background(estimate, truth, alpha).item() == pytest.approx((2 * 1 / 3 + 0) / 2)
    told = losses.background(estimate, truth, alpha, torch.tensor([0.5, 1.0])).item()
    assert told == pytest.approx(2 * 1 / 3 / 4)
    assert losses.background(estimate, truth, torch.ones(2, 1, 8, 8)).item() == 0  # no background at all
    with pytest.raises(ValueError, match="estimate is .* and latents is"):
        losses.background(estimate[..., :1], truth, alpha)


@pytest.mark.parametrize("name", ["green_control", "background", "boundary_detail", "matting", "refinement"])
def test_gradients_against_differences(name):
    truth, image = noise(2, 1, 4, 6, seed=5), noise(2, 3, 4, 6, seed=7)
    weight = torch.tensor([0.3, 0.8], dtype=torch.float64)
    functions = {
        "green_control": (lambda a, b: losses.green_control([a, b], truth), (2, 1, 2, 3), (2, 1, 4, 6)),
        "background": (lambda z: losses.background(z, noise(2, 4, 2, 3, seed=9), truth, weight), (2, 4, 2, 3)),
        "boundary_detail": (lambda x: losses.boundary_detail(x, image, truth, weight), (2, 3, 4, 6)),
        "matting": (lambda a: losses.matting(a, truth, weight), (2, 1, 4, 6)),
        "refinement": (lambda a, f: losses.refinement(a, f, truth, image), (2, 1, 4, 6), (2, 3, 4, 6)),
    }  # fmt: skip
    function, *shapes = functions[name]
    given = [noise(*shape, seed=k + 1).requires_grad_() for k, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(function, given)


def test_the_predicted_error_is_taught_and_the_matte_is_not():
    error, alpha = noise(1, 1, 4, 6).requires_grad_(), noise(1, 1, 4, 6, seed=1).requires_grad_()
    losses.error_prediction(error, alpha, noise(1, 1, 4, 6, seed=2)).backward()
    assert error.grad.abs().min() > 0
    assert alpha.grad is None


def test_refusals():
    alpha = torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match="maps is empty, expected one"):
        losses.green_control([], alpha)
    with pytest.raises(ValueError, match=r"a map has shape \(1, 1, 4, 4\), expected \(2, 1, h, w\)"):
        losses.green_control([torch.zeros(1, 1, 4, 4)], alpha)
    with pytest.raises(ValueError, match=r"estimate is \(8, 9\) and alpha is \(8, 8\)"):
        losses.boundary_detail(torch.zeros(2, 3, 8, 9), torch.zeros(2, 3, 8, 8), alpha)
