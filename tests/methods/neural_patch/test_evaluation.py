"""The evaluation: what is done once is never done again, gains have the right sign, nothing is missing after hours."""

import importlib
import json
from types import SimpleNamespace

import pytest
import torch

from workbench import check, data
from workbench.diffusion import pipelines
from workbench.image import resize
from workbench.lenses import trials

evaluation = importlib.import_module("workbench.methods.neural_patch.evaluation")
REAL = evaluation.inpaint
NAMES = ["patchmatch", "context encoder, L2", "context encoder", "neural patch, random"]


@pytest.fixture
def views(monkeypatch):
    """Scenes of the benchmark stand in for rendered views, a plain distance for the perceptual one."""
    names = data.scenes()
    monkeypatch.setattr(trials, "held_out", lambda number, size: resize(data.scene(names[number]).target, size))
    monkeypatch.setattr(evaluation, "tiny_perceptual", lambda a, b: (a - b).abs().mean((1, 2, 3)))


@pytest.fixture
def fills(views, monkeypatch):
    """Fills are grey, a little darker for each method and variant; notes what was filled."""
    made = []

    def inpaint(picture, mask, method, progress, **params):
        if picture.shape[-1] > 32:  # not the try on a few pixels
            made.append((method, params.get("variant"), round(mask.mean().item(), 3), picture.mean().item()))
        if evaluation.stop_after == len(made):
            raise KeyboardInterrupt
        grey = {"patchmatch": 0.2, "context_encoder": 0.3, "neural_patch": 0.5}[method]
        grey += 0.1 * (params.get("variant") == "l2")
        return SimpleNamespace(image=torch.where(mask > 0, grey, picture), seconds=1.0)

    monkeypatch.setattr(evaluation, "inpaint", inpaint)
    monkeypatch.setattr(evaluation, "stop_after", -1, raising=False)
    return made


def test_stopped_and_gone_on_with_it_is_the_same(fills, tmp_path, monkeypatch):
    given = {"count": 2, "size": 64, "networks": ["random"]}
    whole = evaluation.evaluate(tmp_path / "whole", **given)
    once = list(fills)
    assert len(once) == 2 * 2 * 4
    assert len(set(once)) == len(once)  # every view, every hole, every competitor
    fills.clear()
    monkeypatch.setattr(evaluation, "stop_after", 7)
    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(tmp_path / "parts", **given)
    del fills[-1]  # it was not done
    monkeypatch.setattr(evaluation, "stop_after", -1)
    assert evaluation.evaluate(tmp_path / "parts", **given) == whole
    assert fills == once
    evaluation.evaluate(tmp_path / "parts", **given)
    assert fills == once
    evaluation.evaluate(tmp_path / "parts", **given | {"count": 3})
    assert len(fills) == len(once) + 2 * 4


def test_numbers_are_those_of_the_hole(fills, tmp_path):
    found = evaluation.evaluate(tmp_path, count=1, size=64, networks=["random"])
    truth, mask = trials.held_out(0, (64, 64)), evaluation.make_hole("centre", 0, 64)
    assert mask.mean() == 0.25
    error = (truth - 0.5)[..., 16:48, 16:48]
    row = json.loads((tmp_path / "centre-000.json").read_text())["neural patch, random"]
    assert row["mean_l1"] == pytest.approx(error.abs().mean().item())
    assert row["mean_l2"] == pytest.approx(error.square().mean().item(), rel=1e-4)
    assert row["tiny_perceptual"] == pytest.approx(error.abs().mean().item())
    assert row["seconds"] == 1
    assert found.mean("centre", "neural patch, random", "psnr").mean == pytest.approx(row["psnr"])
    irregular = [evaluation.make_hole("irregular", n, 64) for n in (0, 1)]
    assert not torch.equal(*irregular)
    assert all(0.15 < hole.mean() < 0.35 for hole in irregular)


def test_a_gain_is_above_0_where_it_is_better():
    rows = {
        "a": {"mean_l1": [0.1, 0.2], "mean_l2": [0.1, 0.2], "psnr": [20.0, 30.0], "tiny_perceptual": [0.1, 0.1]},
        "b": {"mean_l1": [0.2, 0.4], "mean_l2": [0.1, 0.3], "psnr": [19.0, 28.0], "tiny_perceptual": [0.3, 0.1]},
    }
    found = evaluation.Evaluation({"centre": rows})
    gain = found.gain("centre", "a", "b", "mean_l1")
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.15, 0.1, 0.2))  # pairs: 0.1 and 0.2
    assert found.gain("centre", "a", "b", "psnr").mean == pytest.approx(1.5)
    assert found.gain("centre", "b", "a", "psnr").mean == pytest.approx(-1.5)
    assert found.mean("centre", "b", "tiny_perceptual").mean == pytest.approx(0.2)
    assert "psnr 1.5 [1, 2]" in repr(evaluation.Evaluation({"centre": dict(reversed(rows.items()))}))
    with pytest.raises(ValueError, match="a competitor is 'c', expected"):
        found.mean("centre", "c", "psnr")


def test_other_settings_need_another_folder(fills, tmp_path):
    evaluation.evaluate(tmp_path, count=1, size=64, networks=["random"])
    with pytest.raises(ValueError, match="holds numbers made with another size"):
        evaluation.evaluate(tmp_path, count=1, size=48, networks=["random"])


def test_missing_weights_are_told_before_anything_is_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "MODELS", tmp_path)
    monkeypatch.setattr(trials, "held_out", lambda number, size: pytest.fail("rendered"))
    with pytest.raises(check.NotAvailable, match="tiny-context-encoder-l2"):
        evaluation.evaluate(tmp_path / "out", networks=["random"])
    with pytest.raises(SystemExit, match="NotAvailable: .*tiny-context-encoder-l2"):
        evaluation.main([str(tmp_path / "out")])


def test_the_command_runs_the_methods(views, tmp_path, monkeypatch, capsys):
    """Neural patches are themselves; the mean colour stands in for the others, of which one has no weights here."""

    def inpaint(picture, mask, method, *, variant="adversarial", **params):
        return REAL(picture, mask, "neural_patch" if method == "neural_patch" else "mean", **params)

    monkeypatch.setattr(evaluation, "inpaint", inpaint)
    evaluation.main([str(tmp_path), "--count", "1", "--size", "32", "--iterations", "1", "--networks", "random"])
    told = capsys.readouterr().out
    assert told.startswith("view 1, centre, patchmatch: ")
    assert all(f"  {name} " in told for name in NAMES)
    assert "neural patch, random against the others, above 0 = better" in told
    assert (tmp_path / "table.txt").read_text() in told
