"""Filling: which parts, at which size, what the network is shown, where its answer lands; and the looks inside."""

import sys

import pytest
import torch

import workbench as wb
from tests.methods.conftest import NARROW_SPL
from workbench import check
from workbench.diffusion.classifier import make_classifier
from workbench.methods.spl import (
    compare_priors,
    fill,
    load_spl,
    make_spl,
    modulation,
    published_state,
    receptive_field,
    region_statistics,
    score_map,
)
from workbench.methods.spl.fill import part_boxes
from workbench.methods.spl.networks import Completion, complete, make_discriminator
from workbench.methods.spl.teachers import Teacher


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def slope(height: int, width: int) -> torch.Tensor:
    """A picture that is linear in x and y: cutting and scaling must keep it so."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x / width, y / height, 0.5 * (x / width + y / height)])[None]


class Knows:
    """Stands in for the network: knows the whole picture, and notes what it is asked."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, truth, enlarge=1):
        self.truth, self.asked = truth, []
        self.config = type("Config", (), {"enlarge": enlarge})()

    def to(self, device):
        return self

    def __call__(self, image, mask):
        self.asked.append((image, mask))
        return Completion(self.truth(image, mask), torch.zeros(1, 9, 2, 2), torch.zeros(1, 7, 2, 2))


@pytest.fixture
def stand_in(monkeypatch):
    def use(truth, enlarge=1):
        network = Knows(truth, enlarge)
        room = sys.modules["workbench.methods.spl.fill"]  # the package's `fill` is the function
        monkeypatch.setattr(room, "load_spl", lambda variant: network)
        return network

    return use


def white(image, mask):
    return torch.ones_like(image)


def test_each_hole_gets_its_part_and_close_ones_share():
    size = (200, 500)
    left, right = wb.mask.box(size, (20, 90, 60, 110)), wb.mask.box(size, (440, 100, 450, 110))
    assert part_boxes(wb.mask.union(left, right), 128, 1.0) == [(0, 36, 128, 164), (372, 41, 500, 169)]
    (one,) = part_boxes(wb.mask.union(left, wb.mask.box(size, (150, 90, 160, 100))), 128, 1.0)
    assert one == (0, 0, 280, 200)  # 140 px of holes with as much round them, as high as the picture is
    assert part_boxes(torch.zeros(1, 1, *size), 128, 1.0) == []
    speckles = (noise(1, 1, 150, 200) < 0.02).float()
    assert part_boxes(speckles, 128, 1.0) == [(0, 0, 200, 150)]


@pytest.mark.parametrize("mask", [0, 1, 2])
def test_parts_hold_every_hole_and_do_not_overlap(mask):
    size = (300, 700)
    mask = wb.mask.union(*(wb.mask.box(size, (x, y, x + 9, y + 7)) for x, y in
                           [((97 * k * (mask + 2)) % 690, (61 * k) % 290) for k in range(1 + mask * 2)]))  # fmt: skip
    covered = torch.zeros_like(mask)
    for x0, y0, x1, y1 in part_boxes(mask, 128, 1.0):
        assert not covered[..., y0:y1, x0:x1].any()
        covered[..., y0:y1, x0:x1] = 1
    assert (covered >= mask).all()


@pytest.mark.parametrize(
    ("size", "hole", "worked_at"),
    [
        ((90, 130), (50, 30, 70, 50), (92, 128)),  # as large as the picture, made a multiple of 4
        ((300, 400), (150, 100, 270, 200), (240, 240)),  # as it is
        ((900, 900), (200, 200, 500, 500), (128, 128)),  # smaller
        ((10, 300), (100, 2, 110, 8), (16, 128)),  # higher
    ],
)
def test_the_size_that_is_worked_at(size, hole, worked_at, stand_in):
    network = stand_in(white)
    result = wb.inpaint(slope(*size), wb.mask.box(size, hole), "spl")
    ((image, mask),) = network.asked
    assert image.shape == (1, 3, *worked_at)
    assert mask.shape == (1, 1, *worked_at)
    assert set(mask.unique().tolist()) == {0, 1}
    assert (result.raw[..., hole[1] : hole[3], hole[0] : hole[2]] > 0.999).all()


def test_the_answer_lands_where_it_belongs(stand_in):
    """A network that continues the slope it is shown, at a smaller size: the hole's pixels must continue it too."""
    photo, mask = slope(700, 640), wb.mask.ellipse((700, 640), (100, 200, 400, 480))

    def continued(image, mask):
        known = mask[0, 0] == 0
        y, x = torch.meshgrid(*(torch.arange(n).float() for n in image.shape[-2:]), indexing="ij")
        inputs = torch.stack([x[known], y[known], torch.ones_like(x[known])], 1)  # (N, 3)
        planes = torch.linalg.lstsq(inputs, image[0][:, known].T).solution  # (3, 3)
        return (torch.stack([x, y, torch.ones_like(x)], -1) @ planes).permute(2, 0, 1)[None]

    stand_in(continued)
    result = wb.inpaint(torch.where(mask > 0.5, torch.zeros_like(photo), photo), mask, "spl")
    torch.testing.assert_close(result.image, photo, atol=0.01, rtol=0)
    assert torch.equal(result.image * (1 - mask), photo * (1 - mask))


def test_what_was_filled_first_is_known_for_the_next_only_inside_its_part(stand_in):
    network = stand_in(white)
    size = (140, 500)
    mask = wb.mask.union(wb.mask.box(size, (10, 50, 30, 70)), wb.mask.box(size, (400, 50, 480, 130)))
    steps = list(fill(slope(*size), mask))
    assert [(step.i, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert steps[0].label == "part 1 of 2: 128 x 128, the hole white"
    assert [asked[1].sum().item() for asked in network.asked] == [400, 6400]
    shown = steps[0].arrays["masked_image"]
    assert torch.equal(shown[0, :, steps[0].arrays["mask"][0, 0] > 0.5].unique(), torch.ones(1))
    assert set(steps[0].arrays) == {"masked_image", "mask"}
    assert {"completed", "prior", "teacher_features", "masked_image", "mask"} == set(steps[1].arrays)
    assert steps[-1].image.shape == (1, 3, *size)
    for step in steps[:-1]:
        x0, y0, x1, y1 = step.box
        assert step.image.shape == (1, 3, y1 - y0, x1 - x0)


@pytest.mark.parametrize("size", [(75, 101), (9, 300), (1, 20), (150, 40)])
@pytest.mark.parametrize("where", ["corner", "across", "all but a column"])
def test_any_size_and_holes_at_the_frame(size, where, untrained_models):
    height, width = size
    box = {
        "corner": (0, 0, max(1, width // 3), max(1, height // 3)),
        "across": (width // 4, 0, width // 2, height),
        "all but a column": (1, 0, width, height),
    }[where]
    photo, mask = slope(height, width), wb.mask.box(size, box)
    result = wb.inpaint(photo, mask, "spl")
    assert result.image.isfinite().all()
    assert torch.equal(result.image * (1 - mask), photo * (1 - mask))
    assert ((result.image != photo).any(1, keepdim=True) | (mask == 0)).float().mean() > 0.9


def test_variants_folders_and_the_published_file(untrained_models, tmp_path):
    photo, mask = slope(60, 80), wb.mask.box((60, 80), (30, 20, 50, 40))
    by_name = [wb.inpaint(photo, mask, "spl", variant=v).image for v in ("full", "concatenation", "random-teacher")]
    assert not torch.equal(by_name[0], by_name[1])
    folder = str(untrained_models / "tiny-spl-concatenation")
    assert torch.equal(wb.inpaint(photo, mask, "spl", variant=folder).image, by_name[1])
    torch.save(published_state(make_spl(**{**NARROW_SPL, "enlarge": 2})), tmp_path / "published.pt")
    step = list(fill(photo, mask, variant=str(tmp_path / "published.pt")))[-1]
    assert step.arrays["prior"].shape == (1, 7, 15, 20)  # it sees the picture enlarged
    with pytest.raises(check.NotAvailable, match="'best' is no bundled model"):
        fill(photo, mask, variant="best")


def test_refusals(untrained_models):
    photo, mask = slope(60, 80), wb.mask.box((60, 80), (30, 20, 50, 40))
    with pytest.raises(ValueError, match="image holds 2 pictures, expected one"):
        fill(torch.cat([photo, photo]), mask)
    with pytest.raises(ValueError, match="mask covers the whole picture, expected some kept pixels"):
        fill(photo, torch.ones_like(mask))
    with pytest.raises(ValueError, match="context is -1, expected a number of at least 0"):
        fill(photo, mask, context=-1)


# Looks inside


def test_priors_side_by_side():
    teacher, model = Teacher(make_classifier(("a",), (4, 5, 6, 9, 8), seed=1)), make_spl(**NARROW_SPL).eval()
    photo, mask = noise(1, 3, 48, 64), wb.mask.box((48, 64), (8, 8, 40, 32))
    priors = compare_priors(model, teacher, photo, mask)
    assert torch.equal(priors.truth, teacher(photo))
    assert not torch.equal(priors.masked, priors.truth)
    assert priors.learnt.shape == priors.truth.shape == (1, 9, 6, 8)
    assert priors.hole.sum() == 4 * 3
    errors = priors.errors()
    assert errors["masked_hole"] > errors["masked_known"] > 0
    region = priors.hole[0, 0] > 0.5
    assert errors["learnt_hole"] == pytest.approx((priors.learnt - priors.truth)[0][:, region].abs().mean().item())
    clusters = priors.clusters(k=4)
    assert set(clusters) == {"truth", "masked", "learnt"}
    assert clusters["learnt"].shape == (6, 8)
    with pytest.raises(ValueError, match="the teacher's map is .* expected the same"):
        compare_priors(model, Teacher(make_classifier(("a",), (4, 5, 6, 7, 8))), photo, mask)


def test_modulation_is_what_spade_did(untrained_models):
    model, photo, mask = load_spl(), noise(1, 3, 32, 48), wb.mask.box((32, 48), (8, 8, 40, 20))
    seen = modulation(model, photo, mask)
    assert list(seen) == [f"blocks.{k}.inject{n}" for k in (0, 1) for n in (1, 2)]
    first = seen["blocks.0.inject1"]
    normed = torch.nn.functional.instance_norm(first["before"])
    torch.testing.assert_close(first["after"], normed * (1 + first["gamma"]) + first["beta"])
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.modules())
    with pytest.raises(ValueError, match="injects by concatenation, expected spade"):
        modulation(load_spl("concatenation"), photo, mask)


def test_region_statistics(untrained_models):
    model, photo, mask = load_spl(), noise(1, 3, 32, 48), wb.mask.box((32, 48), (8, 8, 40, 20))
    found = region_statistics(model, photo, mask)
    assert list(found) == [f"encoder.norms.{k}" for k in range(3)]
    statistics = found["encoder.norms.0"]
    assert (statistics.mean_before["hole"] - statistics.mean_before["known"]).abs().max() > 0.01
    for region in ("hole", "known"):  # fresh weights: no gain, no shift
        assert statistics.mean_after[region].abs().max() < 1e-4
        assert statistics.std_after[region].max() < 1.001


def test_a_receptive_field_is_what_a_painted_pixel_answers_to():
    model, photo, mask = load_spl(), noise(1, 3, 64, 64), wb.mask.box((64, 64), (20, 16, 44, 40))
    found = {way: receptive_field(model, photo, mask, (30, 28), way) for way in ("both", "encoder", "prior")}
    for field in found.values():
        assert field.shape == (1, 1, 64, 64)
        assert field.sum().item() == pytest.approx(1, abs=1e-4)
        assert not field[mask == 1].any()  # what no branch is shown
    assert not torch.allclose(found["encoder"], found["prior"])
    strong, weak = found["both"].flatten().argsort()[[-1, 200 + int(mask.sum())]].tolist()
    moves = []
    for cell in (strong, weak):  # as pixels are nudged, so the painted one moves
        nudged = photo.clone()
        nudged[0, :, cell // 64, cell % 64] += torch.where(nudged[0, :, cell // 64, cell % 64] > 0.5, -1e-2, 1e-2)
        moves.append((complete(model, nudged, mask).image - complete(model, photo, mask).image)[0, :, 28, 30])
    assert moves[0].abs().sum() > 10 * moves[1].abs().sum()


def test_receptive_fields_of_what_cannot_be_asked(untrained_models):
    model, photo, mask = load_spl(), noise(1, 3, 32, 48), wb.mask.box((32, 48), (8, 8, 40, 20))
    with pytest.raises(ValueError, match="at is 48, expected a whole number from 0 to 47"):
        receptive_field(model, photo, mask, (48, 3))
    with pytest.raises(ValueError, match="through"):
        receptive_field(model, photo, mask, (4, 3), "teacher")
    with pytest.raises(ValueError, match="expected one picture"):
        receptive_field(model, photo[..., :30], mask[..., :30], (4, 3))
    with pytest.raises(ValueError, match="expected one picture"):
        receptive_field(model, noise(2, 3, 32, 48), mask, (4, 3))


def test_a_score_map_has_a_verdict_for_each_patch_and_leaves_the_discriminator_as_it_was():
    judge, photo = make_discriminator((4, 4, 8, 8)).train(), noise(2, 3, 48, 64)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    found = score_map(judge, photo)
    assert found.shape == (2, 1, 4, 6)
    assert 0 <= found.min() <= found.max() <= 1
    assert judge.training
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())
    changed = photo.clone()
    changed[..., :8, :8] = 1 - changed[..., :8, :8]  # a corner: seen by the verdicts near it, not by those far away
    moved = (score_map(judge, changed) - found).abs()[0, 0]
    assert moved[0, 0] > 0
    assert not moved[:, 5:].any()
    with pytest.raises(ValueError, match="at least 32 x 32"):
        score_map(judge, photo[..., :24])
