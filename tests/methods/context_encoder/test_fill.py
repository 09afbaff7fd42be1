"""Filling by bounding squares: which squares, what the network is shown, where its answer lands."""

import sys

import pytest
import torch

import workbench as wb
from workbench import check
from workbench.diffusion import pipelines
from workbench.methods.context_encoder import bounding_squares, fill
from workbench.methods.context_encoder.fill import Square, cut, mirrored
from workbench.methods.context_encoder.networks import BLOCK, COLOUR, HOLE, middle


class Repeats:
    """Stands in for the network: answers with what it is told, and notes what it is shown."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, answer=None):
        self.answer, self.shown = answer, []

    def to(self, device):
        return self

    def __call__(self, x):
        self.shown.append(x / 2 + 0.5)
        answer = torch.full((1, 3, BLOCK, BLOCK), 1.0) if self.answer is None else self.answer
        return answer * 2 - 1


@pytest.fixture
def stand_in(monkeypatch):
    def use(answer=None):
        network = Repeats(answer)
        room = sys.modules["workbench.methods.context_encoder.fill"]  # the package's `fill` is the function
        monkeypatch.setattr(room, "load_context_encoder", lambda variant: network)
        return network

    return use


def slope(height: int, width: int) -> torch.Tensor:
    """A picture that is linear in x and y: cutting and scaling must keep it so."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x / width, y / height, 0.5 * (x / width + y / height)])[None]


def test_the_square_round_a_hole():
    mask = wb.mask.box((90, 120), (40, 30, 61, 39))  # 21 x 9: the longer side, rounded up to a multiple of 14
    (square,) = bounding_squares(mask)
    assert square.side == 28
    assert (square.x, square.y) == (37, 21)
    assert square.crop.side == 64  # 28 of 64 = 56 of 128
    assert square.crop.x + 32 == square.x + 14
    assert square.crop.inside(mask) == (19, 3, 83, 67)
    assert bounding_squares(torch.zeros_like(mask)) == []


def test_holes_far_apart_get_a_square_each_and_close_ones_share():
    far = wb.mask.union(wb.mask.box((100, 200), (10, 10, 38, 38)), wb.mask.box((100, 200), (150, 60, 160, 70)))
    assert [square.side for square in bounding_squares(far)] == [14, 28]  # the smallest first
    near = wb.mask.union(wb.mask.box((100, 200), (10, 10, 38, 38)), wb.mask.box((100, 200), (40, 20, 50, 30)))
    (square,) = bounding_squares(near)
    assert (square.side, square.x, square.y) == (42, 9, 3)
    above = wb.mask.box((100, 200), (14, 0, 24, 4))  # its square ends above row 9: it touches only what these became
    line = wb.mask.union(near, above)
    assert len(bounding_squares(wb.mask.union(wb.mask.box((100, 200), (10, 10, 38, 38)), above))) == 2
    assert [square.side for square in bounding_squares(line)] == [42]
    speckles = (torch.rand(1, 1, 100, 200, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    (square,) = bounding_squares(speckles)
    assert square.side == 210
    for mask in (far, near, line, speckles):
        covered = torch.zeros_like(mask)
        for square in bounding_squares(mask):
            x0, y0, x1, y1 = square.inside(mask)
            assert not covered[..., y0:y1, x0:x1].any()
            covered[..., y0:y1, x0:x1] = 1
        assert (covered >= mask).all()


def test_mirrored_rows():
    assert mirrored(-4, 9, 4).tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert mirrored(-2, 2, 1).tolist() == [0, 0, 0, 0]


def test_the_cut_is_the_picture_at_128_px():
    picture, nothing = slope(150, 170), torch.zeros(1, 1, 150, 170)
    same = cut(picture, nothing, Square(11, 7, 128))
    assert torch.equal(same, picture[..., 7:135, 11:139])
    for side in (32, 96, 144):
        scaled = cut(picture, nothing, Square(3, 2, side))
        x, y = ((torch.arange(128) + 0.5) * side / 128 + first for first in (3, 2))
        inner = slice(8, -8)  # at the frame of the cut the mean is one-sided
        torch.testing.assert_close(scaled[0, 0, 64, inner], x[inner] / 170, atol=1e-3, rtol=0)
        torch.testing.assert_close(scaled[0, 1, inner, 64], y[inner] / 150, atol=1e-3, rtol=0)


def test_nothing_of_a_hole_gets_into_the_cut():
    picture, mask = slope(100, 130), wb.mask.box((100, 130), (50, 40, 78, 68))
    cuts = [cut(torch.where(mask > 0.5, torch.full_like(picture, v), picture), mask, Square(32, 22, 64))
            for v in (0.0, 1.0)]  # fmt: skip
    assert torch.equal(cuts[0], cuts[1])
    middle_pixel = cuts[0][0, :, 64, 64]
    assert middle_pixel.tolist() == pytest.approx(list(COLOUR))


def test_the_network_is_shown_the_hole_in_its_middle_and_its_answer_lands_there(stand_in):
    """A network that knows the truth: what it gives for 28 px of a slope must land where it belongs, at the size."""
    photo, mask = slope(100, 130), wb.mask.ellipse((100, 130), (50, 40, 78, 68))
    truth = cut(photo, torch.zeros_like(mask), bounding_squares(mask)[0].crop)
    network = stand_in(truth[..., middle(BLOCK), middle(BLOCK)])
    result = wb.inpaint(photo, mask, "context_encoder")
    (shown,) = network.shown
    assert torch.allclose(shown[..., middle(HOLE), middle(HOLE)], torch.tensor(COLOUR).view(3, 1, 1), atol=1e-6)
    rim = torch.ones(128, 128, dtype=torch.bool)
    rim[middle(HOLE), middle(HOLE)] = False
    torch.testing.assert_close(shown[..., rim], truth[..., rim], atol=0.004, rtol=0)
    torch.testing.assert_close(result.image, photo, atol=0.004, rtol=0)
    assert torch.equal(result.image * (1 - mask), photo * (1 - mask))


def test_the_steps_show_square_prediction_and_result(stand_in):
    stand_in()
    photo = slope(100, 200)
    mask = wb.mask.union(wb.mask.box((100, 200), (0, 10, 28, 38)), wb.mask.ellipse((100, 200), (150, 60, 160, 70)))
    steps = list(fill(photo, mask))
    assert [(step.i, step.total) for step in steps] == [(n, 6) for n in range(1, 7)]
    assert steps[0].label == "hole 1 of 2: its square of 14 px, cut out"
    for step in steps[:-1]:
        x0, y0, x1, y1 = step.box
        assert step.image.shape == (1, 3, y1 - y0, x1 - x0)
    cut_out, predicted, pasted = steps[:3]
    assert cut_out.arrays["square"].tolist() == [148, 58, 162, 72]
    x, y = 148 - cut_out.box[0], 58 - cut_out.box[1]
    torch.testing.assert_close(cut_out.image[0, :, y, x], torch.tensor(COLOUR))  # a corner of the square, not the hole
    assert predicted.image[0, :, y, x].tolist() == pytest.approx([1, 1, 1])
    assert torch.equal(pasted.image[0, :, y, x], photo[0, :, 58, 148])
    assert pasted.image[0, :, y + 7, x + 7].tolist() == pytest.approx([1, 1, 1])
    assert predicted.arrays["crop"].shape == predicted.arrays["completed"].shape == (1, 3, 128, 128)
    assert predicted.arrays["prediction"].shape == (1, 3, 64, 64)
    torch.testing.assert_close(steps[-1].image, torch.where(mask > 0.5, torch.ones_like(photo), photo))


def test_what_was_filled_first_is_known_for_the_next(stand_in):
    network = stand_in()
    mask = wb.mask.union(wb.mask.box((100, 200), (90, 40, 100, 50)), wb.mask.box((100, 200), (110, 30, 138, 58)))
    list(fill(torch.zeros(1, 3, 100, 200), mask))
    first, second = network.shown
    assert torch.allclose(first.unique(), torch.tensor([0, *COLOUR[::-1]]), atol=1e-6)  # the other hole has no colour
    outside = torch.ones(128, 128, dtype=torch.bool)
    outside[middle(HOLE), middle(HOLE)] = False
    assert second[..., outside].max() == 1  # the first hole's white


@pytest.mark.parametrize("size", [(75, 101), (130, 40), (9, 300), (1, 20), (257, 255)])
@pytest.mark.parametrize("where", ["corner", "across", "all but a column"])
def test_any_size_and_holes_at_the_frame(size, where, untrained_models):
    height, width = size
    box = {
        "corner": (0, 0, max(1, width // 3), max(1, height // 3)),
        "across": (width // 4, 0, width // 2, height),
        "all but a column": (1, 0, width, height),
    }[where]
    photo, mask = slope(height, width), wb.mask.box(size, box)
    result = wb.inpaint(photo, mask, "context_encoder", variant="l2")
    assert result.image.isfinite().all()
    assert torch.equal(result.image * (1 - mask), photo * (1 - mask))
    assert ((result.image != photo).any(1, keepdim=True) | (mask == 0)).float().mean() > 0.9


def test_seventy_per_cent_of_a_picture(untrained_models):
    mask = wb.mask.irregular((120, 160), 0.7, seed=3)
    photo = slope(120, 160)
    result = wb.inpaint(photo, mask, "context_encoder")
    assert mask.mean() > 0.65
    assert len(bounding_squares(mask)) == 1
    assert torch.equal(result.image * (1 - mask), photo * (1 - mask))
    assert result.image.isfinite().all()


def test_without_a_hole_there_is_nothing_to_do(untrained_models):
    photo = slope(60, 80)
    (step,) = fill(photo, torch.zeros(1, 1, 60, 80))
    assert torch.equal(step.image, photo)
    assert (step.i, step.total) == (1, 1)


def test_the_variants_are_different_networks(untrained_models):
    photo, mask = slope(60, 80), wb.mask.box((60, 80), (30, 20, 50, 40))
    by_name = {v: wb.inpaint(photo, mask, "context_encoder", variant=v).image for v in ("adversarial", "l2")}
    assert not torch.equal(*by_name.values())
    folder = str(untrained_models / "tiny-context-encoder-l2")
    assert torch.equal(wb.inpaint(photo, mask, "context_encoder", variant=folder).image, by_name["l2"])


def test_refusals(untrained_models, tmp_path, monkeypatch):
    photo, mask = slope(60, 80), wb.mask.box((60, 80), (30, 20, 50, 40))
    with pytest.raises(ValueError, match="image holds 2 pictures, expected one"):
        fill(torch.cat([photo, photo]), mask)
    with pytest.raises(ValueError, match="mask covers the whole picture, expected some kept pixels"):
        fill(photo, torch.ones_like(mask))
    with pytest.raises(check.NotAvailable, match="'l3' is no bundled model"):
        fill(photo, mask, variant="l3")
    monkeypatch.setattr(pipelines, "MODELS", tmp_path)
    with pytest.raises(check.NotAvailable, match="'tiny-context-encoder-l2' is not in .* or train it"):
        wb.inpaint(photo, mask, "context_encoder", variant="l2")
