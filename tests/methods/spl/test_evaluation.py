"""Judging SPL: which pairs, which scores, what a file keeps, the tables, the command."""

import json

import pytest
import torch

import workbench as wb
from tests.diffusion.conftest import write_views
from tests.methods.conftest import NARROW_SPL
from workbench.diffusion.classifier import DISTANCE_LAYERS, make_classifier
from workbench.diffusion.export import write_model
from workbench.methods.spl import evaluation, make_spl, pairs
from workbench.methods.spl.evaluation import COLUMNS, HIGHEST, Evaluation, evaluate, scores
from workbench.methods.spl.pairs import Pair, bin_of, fixed_hole, photograph_pairs, render_held_out, world_pairs

PINNED = [451, 805, 1576, 2176, 2880, 3458]
"""Pixels of six holes."""


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def classifier():
    return make_classifier(("a",), (4, 5, 6, 9, 8), seed=1).eval()


@pytest.fixture(scope="module")
def two():
    """Two pairs of 32 x 48 px: holes of a quarter and of a half."""
    boxes = ((4, 4, 28, 20), (0, 0, 24, 32))
    return [
        Pair(f"room-{k}, hole", f"room-{k}", "world", 0.2 + 0.6 * noise(1, 3, 32, 48, seed=k), wb.mask.box((32, 48), b))
        for k, b in enumerate(boxes)
    ]


def validation_views(folder, count=3):
    plan = write_views(folder, count=count) / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"split": "validation"}))
    return folder


# The pairs


def test_bins_are_counted_in_whole_numbers():
    mask = torch.zeros(1, 1, 10, 10)
    for hole, wanted in ((1, 0), (10, 0), (11, 1), (30, 2), (31, 3), (60, 5), (61, 6), (100, 9)):
        mask.flatten()[:hole] = 1
        assert bin_of(mask) == wanted


def test_holes_are_committed():
    """Drawn once by these seeds: other numbers here mean that other holes would be measured."""
    holes = [fixed_hole((64, 96), k, 0, 10_001_000, 0) for k in range(6)]
    assert [int(hole.sum()) for hole in holes] == PINNED
    assert [bin_of(hole) for hole in holes] == list(range(6))
    assert not torch.equal(holes[0], fixed_hole((64, 96), 0, 0, 10_001_001, 0))


def test_views_are_read_and_those_of_a_training_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "fixed_hole", lambda size, which, *seeds: wb.mask.centre(size, 0.1 + 0.1 * which))
    found = world_pairs([validation_views(tmp_path / "rooms")])
    assert [pair.name for pair in found] == [f"room-{k}, hole {k}" for k in range(3)]
    assert [pair.picture for pair in found] == ["room-0", "room-1", "room-2"]
    assert found[1].image.shape == (1, 3, 128, 128)
    assert len({pair.digest for pair in found}) == 3
    with pytest.raises(ValueError, match="holds views of the split 'train', expected held-out ones"):
        world_pairs([write_views(tmp_path / "seen", count=1)])


def test_a_hole_belongs_to_its_picture_not_to_its_place(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pairs, "fixed_hole", lambda *told: asked.append(told) or wb.mask.centre(told[0], 0.3))
    world_pairs([validation_views(tmp_path / "rooms")])
    assert asked == [((128, 128), k, 0, k, 0) for k in range(3)]


def test_photographs_have_a_hole_of_every_bin(monkeypatch):
    monkeypatch.setattr(pairs, "fixed_hole", lambda size, which, *seeds: torch.zeros(1, 1, *size))
    monkeypatch.setattr(pairs, "held_out_crops", lambda: noise(8, 3, 16, 16))
    found = photograph_pairs()
    assert len(found) == 8 * 6
    assert (found[0].name, found[-1].name) == ("chelsea, crop 0, hole 0", "coffee, crop 3, hole 5")
    assert found[-1].of == "photographs"
    fewer = photograph_pairs(crops=1)
    assert [pair.name for pair in fewer] == [pair.name for pair in found if "crop 0" in pair.name]


def test_what_is_rendered(monkeypatch, tmp_path):
    """At least 200 views, of seeds that no training looks at."""
    plans = []
    monkeypatch.setattr("workbench.world.dataset.render_dataset", lambda plan, folder, *rest: plans.append(plan))
    render_held_out(tmp_path)
    seeds = [seed for plan in plans for seed in plan.seeds]
    assert len(seeds) >= 200
    assert min(seeds) >= 10_000_200
    assert {plan.split for plan in plans} == {"validation"}
    assert {plan.size for plan in plans} == {(128, 128)}


# The scores


def test_scores_by_hand(two, classifier):
    """Off by 0.1 in a hole of a quarter: 20 dB there, and a quarter of the squared error over all."""
    pair = two[0]
    found = scores((pair.image + 0.1 * pair.mask).clamp(0, 1), pair, classifier)
    assert set(found) == set(COLUMNS)
    assert found["psnr hole"] == pytest.approx(20, abs=1e-4)
    assert found["psnr all"] == pytest.approx(20 + 6.0206, abs=1e-3)
    assert found["l1 hole"] == pytest.approx(0.1, abs=1e-6)
    assert found["l1 all"] == pytest.approx(0.025, abs=1e-6)
    assert found["ssim hole"] < found["ssim all"] < 1
    assert found["tiny_perceptual hole"] > found["tiny_perceptual all"] > 0
    perfect = scores(pair.image, pair, classifier)
    assert perfect["psnr hole"] == perfect["psnr all"] == HIGHEST
    assert perfect["l1 all"] == perfect["tiny_perceptual hole"] == 0


def test_perceptual_distance_in_and_out_of_the_hole(two, classifier):
    a, b = two[0].image, two[1].image
    whole, everywhere = (classifier.distance(a, b, mask).item() for mask in (None, torch.ones_like(two[0].mask)))
    by_layer = [[f / f.norm(dim=1, keepdim=True).clamp(min=1e-6) for f in pair] for pair in zip(
        *(classifier.features(x, DISTANCE_LAYERS).values() for x in (a, b)), strict=True)]  # fmt: skip
    assert whole == pytest.approx(sum((x - y).square().sum(1).mean().item() for x, y in by_layer) / 4, rel=1e-5)
    assert everywhere == pytest.approx(whole, rel=1e-5)
    left = wb.mask.box((32, 48), (0, 0, 8, 32))
    right = wb.mask.box((32, 48), (40, 0, 48, 32))
    changed = torch.where(right > 0.5, b, a)
    assert classifier.distance(a, changed, right) > 5 * classifier.distance(a, changed, left)


# The evaluation


def half(image, mask):
    return torch.where(mask > 0.5, torch.full_like(image, 0.5), image)


def test_what_is_measured_is_kept_and_not_computed_again(two, classifier, tmp_path):
    calls, file = [], tmp_path / "out" / "scores.jsonl"

    def counted(image, mask):
        calls.append(mask)
        return half(image, mask)

    def run(told):
        return evaluate(two, {"half": counted}, file, told={"half": told}, classifier=classifier, progress=False)

    first = run("a")
    assert run("a").rows == first.rows
    assert len(calls) == 2
    content = file.read_text()
    file.write_text(content[: len(content) - 30])  # killed while it wrote
    assert run("a").rows == first.rows
    assert len(calls) == 3
    assert file.read_text() == content
    run("b")  # other weights
    assert len(calls) == 5
    assert len(file.read_text().splitlines()) == 4
    with pytest.raises(ValueError, match=r"what bad gives is \(30, 48\) and image is \(32, 48\)"):
        evaluate(two, {"bad": lambda x, m: x[..., 2:, :]}, classifier=classifier, progress=False)


def test_tables_by_hand():
    def row(method, picture, bin_, value):
        return {"fill": method, "picture": picture, "of": "world", "bin": bin_} | dict.fromkeys(COLUMNS, value)

    rows = [row("a", "x", 0, 30.0), row("a", "x", 2, 20.0), row("a", "y", 0, 20.0), row("b", "x", 2, 10.0)]
    rows += [row("b", "x", 7, 1.0)]
    table = Evaluation(tuple(rows)).table()
    assert list(table["a"]) == ["0-10 %", "20-30 %", "all"]
    assert (table["a"]["0-10 %"].mean, table["a"]["0-10 %"].n) == (25, 2)
    assert (table["a"]["all"].mean, table["a"]["all"].n) == (22.5, 2)  # x counts once: (25 + 20) / 2
    assert (table["a"]["all"].low, table["a"]["all"].high) == (20, 25)
    assert table["b"]["all"].mean == 5.5  # a hole above 60 % stands in no bin
    assert "psnr hole, world\n" in repr(Evaluation(tuple(rows)))
    with pytest.raises(ValueError, match="column is 'fid', expected one of: psnr all, psnr hole"):
        Evaluation(tuple(rows)).table("fid")


def test_the_command(two, classifier, tmp_path, monkeypatch, capsys):
    told = {"about": "A test.", "trained": "", "quality": {}}
    write_model(tmp_path / "spl", {"": make_spl(**NARROW_SPL)}, title="a test", **told)
    write_model(tmp_path / "classifier", {"": classifier}, title="a test", **told)
    photograph = Pair("coffee, crop 0, hole 1", "coffee", "photographs", two[1].image, two[1].mask)
    monkeypatch.setattr(evaluation, "photograph_pairs", lambda: [photograph])
    monkeypatch.setattr(evaluation, "world_pairs", lambda folders: two if folders == ["views"] else [])
    out, network = tmp_path / "out", tmp_path / "spl"
    command = ["--out", str(out), "--world", "views", "--baselines", "mean", "--spl", str(network)]
    evaluation.main([*command, "--classifier", str(tmp_path / "classifier")])
    shown = capsys.readouterr().out
    assert "psnr hole, world" in shown
    assert "tiny_perceptual all, photographs" in shown
    assert (out / "tables.txt").read_text() == shown
    tables = json.loads((out / "tables.json").read_text())
    assert set(tables["world"]["psnr hole"]) == {"mean", f"spl {network}"}
    expected = wb.metrics.psnr(wb.inpaint(two[0].image, two[0].mask, "mean").image, two[0].image, two[0].mask)
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert rows[0]["psnr hole"] == pytest.approx(expected.item())
    assert len(rows) == 6
    assert rows[0]["told"].split() == rows[0]["told"].split()[-1:]  # mean has no weights, the classifier has
    with pytest.raises(SystemExit, match="NotAvailable: 'nowhere' is no bundled model"):
        evaluation.main([*command[:-1], "nowhere"])


def test_baselines_without_weights_are_left_out_aloud(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("workbench.data.MODELS", tmp_path)
    options = evaluation.make_parser().parse_args(["--spl"])
    assert list(evaluation._fills(options)[0]) == ["mean", "biharmonic", "patchmatch"]
    assert "diffusion is left out: tiny-inpaint is not in" in capsys.readouterr().out
    assert set(evaluation.BASELINES) <= set(wb.methods._METHODS)
