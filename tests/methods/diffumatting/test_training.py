"""How the refiner and the factory's customer learn; the command line."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from tests.methods.diffumatting.conftest import SMALL, Made
from tests.stepping import narrow
from workbench.diffusion.denoiser import write_pipeline
from workbench.diffusion.export import how_trained
from workbench.diffusion.training import Settings, Trainer, read_log
from workbench.methods.diffumatting import (
    MattingTask,
    RefinerTask,
    load_diffumatting,
    load_examples,
    load_matting_network,
    load_refiner,
    make_matting_network,
    make_refiner,
)
from workbench.methods.diffumatting import train as training
from workbench.methods.diffumatting.data import Backgrounds

SETTINGS = Settings(steps=4, batch_size=2, warmup=1, learning_rate=1e-2, log_every=1, validate_every=2, precision="no")


@pytest.fixture
def refining():
    return RefinerTask(make_refiner(**SMALL), Made(3, (32, 32)), Made(2, (32, 32), first=9), count=2)


@pytest.fixture
def small(monkeypatch):
    """Things and backgrounds of 32 x 32."""
    monkeypatch.setattr("workbench.methods.diffumatting.refining.squared", lambda matte: matte)
    return Backgrounds(size=32)


@pytest.fixture
def thirty_two(monkeypatch):
    monkeypatch.setattr("workbench.methods.diffumatting.refining.squared", lambda matte: matte)


@pytest.mark.usefixtures("thirty_two")
def test_what_the_refiner_learns_from():
    task = RefinerTask(make_refiner(**SMALL), Made(3, (32, 32)), Made(2, (32, 32), first=9), count=2)
    numbers = [[0, 1, item] for item in range(6)]
    whole, part = task.batch(numbers), task.batch(numbers[4:])
    assert all(torch.equal(part[name], whole[name][4:]) for name in whole)
    assert whole["plate"].shape == (6, 3, 32, 32)
    empty = (whole["alpha"] == 0).expand_as(whole["image"])
    difference = (whole["image"] - whole["plate"]).abs()
    assert difference[empty].mean() < 0.05  # the plate is the background
    solid = (whole["alpha"] == 1).expand_as(whole["image"])
    assert difference[solid].mean() > 0.2  # and where the thing stands it is the background's colour
    screens = whole["image"][:, :, 0, 0]
    assert len({tuple(np.round(s.tolist(), 3)) for s in screens}) == 6
    assert (screens[:, 1] - torch.maximum(screens[:, 0], screens[:, 2])).min() > 0.02
    spoiled = RefinerTask(
        make_refiner(**SMALL), Made(3, (32, 32)), Made(2, (32, 32)), spoil=lambda image: image * 0, count=2
    )
    dark = spoiled.batch([[0, 2, item] for item in range(20)])["image"].mean((1, 2, 3)) < 0.05
    assert 4 < dark.sum() < 16  # about half of them


@pytest.mark.usefixtures("thirty_two")
@pytest.mark.long
def test_the_refiner_learns(tmp_path):
    task = RefinerTask(make_refiner(**SMALL), Made(3, (32, 32)), Made(2, (32, 32), first=9), count=2)
    before = task.validate()
    trainer = Trainer(task, replace(SETTINGS, steps=60, warmup=3), tmp_path)
    batch = task.batch([[0, 0, item] for item in range(2)])
    losses = [trainer.update(batch)["loss"].item() for _ in range(60)]
    assert losses[-1] < 0.6 * losses[0]
    assert task.validate()["alpha_mse"] < 0.7 * before["alpha_mse"]
    assert set(before) == {"alpha_mse", "alpha_sad", "key_mse", "soft_mse", "soft_key_mse"}
    assert task.sheet().shape == (1, 3, 4 * 32, 2 * 32)


@pytest.mark.usefixtures("thirty_two")
def test_a_refiners_run_goes_back_and_forward_to_the_bit():
    task = RefinerTask(make_refiner(**SMALL), Made(3, (32, 32)), Made(2, (32, 32), first=9), count=1)
    run = wb.TrainingRun(task, learning_rate=3e-3, batch_size=2, memory=0)
    run.step(2)
    told, weights = run.history("loss"), run.weights()
    run.back(1)
    run.goto(2)
    assert run.history("loss") == told
    assert all(torch.equal(weights[name], value) for name, value in run.weights().items())


def test_real_and_synthetic_things_by_their_share(small):
    real, made, held = Made(3, (32, 32)), Made(3, (32, 32), first=20), Made(2, (32, 32), first=9)
    task = MattingTask(make_matting_network(widths=(8, 16)), real, made, held, small, 0.25, count=2)
    drawn = task.batch([[0, 0, item] for item in range(120)])["alpha"]
    synthetic = [
        any(torch.equal(a, x.alpha[0]) or torch.equal(a, x.alpha[0].flip(-1)) for x in made.items) for a in drawn
    ]
    assert np.mean(synthetic) == pytest.approx(0.25, abs=0.12)  # three standard errors
    assert len(task.errors()["alpha_mse"]) == 2
    assert task.validate()["alpha_mse"] == pytest.approx(np.mean(task.errors()["alpha_mse"]))
    assert task.sheet().shape == (1, 3, 3 * 32, 2 * 32)
    all_of_them = task.variant(synthetic_share=1.0)
    drawn = all_of_them.batch([[0, 0, item] for item in range(10)])["alpha"]
    assert all(
        any(torch.equal(a, x.alpha[0]) or torch.equal(a, x.alpha[0].flip(-1)) for x in made.items) for a in drawn
    )
    assert task.synthetic_share == 0.25
    with pytest.raises(ValueError, match="synthetic_share is 0.5 and synthetic is None"):
        MattingTask(make_matting_network(widths=(8, 16)), real, None, held, small, 0.5, count=1)
    with pytest.raises(ValueError, match="synthetic_share is 0 and real is None"):
        MattingTask(make_matting_network(widths=(8, 16)), None, made, held, small, 0.0, count=1)


def command(what, sprites, tmp_path):
    return [
        what, "--data", str(sprites), "--validation", str(sprites), "--folder", str(tmp_path / what), "--steps", "1",
        "--batch-size", "1", "--validate-every", "1", "--log-every", "1", "--precision", "no",
        "--export", str(tmp_path / f"made-{what}"),
    ]  # fmt: skip


@pytest.mark.long
def test_the_command_line_paints(sprites, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "HELD", 1)
    monkeypatch.setattr(training, "load_examples", functools.partial(load_examples, side=32))
    base = write_pipeline(tmp_path / "base", narrow.text_to_image(), "a test", "of nothing", "not at all", {})
    given = command("paint", sprites, tmp_path)
    given += ["--base", str(base), "--things", "2", "--rank", "2", "--decode-every", "1", "--decoder", "none"]
    training.main(given)
    folder = tmp_path / "made-paint"
    assert json.loads((folder / "diffumatting.json").read_text()) == {"base": str(base), "decoder": None}
    model = load_diffumatting(folder, None)
    assert model.head.config.channels == 24
    (numbers,) = (line["validation"] for line in read_log(tmp_path / "paint") if "validation" in line)
    assert set(numbers) == {"error", "green", "alpha_mse", "green_delta_e"}
    assert "1 updates of 1 pictures" in (folder / "README.md").read_text()
    later = [*given, "--folder", str(tmp_path / "later"), "--export", str(tmp_path / "made-later")]
    training.main([*later, "--begin", str(folder), "--learning-rate", "1e-9"])
    one, other = (load_file(part / "lora.safetensors") for part in (folder, tmp_path / "made-later"))
    assert all(torch.allclose(other[name], value, atol=1e-4) for name, value in one.items())
    assert any(".lora_B." in name and value.any() for name, value in one.items())
    assert how_trained(tmp_path / "made-later").count("1 updates of 1 pictures") == 2
    with pytest.raises(SystemExit, match="has other weights than this task, expected the same rank"):
        training.main([*later, "--folder", str(tmp_path / "wider"), "--begin", str(folder), "--rank", "3"])


@pytest.mark.long
def test_the_command_line_refines_and_mattes(sprites, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "make_refiner", lambda seed: make_refiner(seed, **SMALL))
    monkeypatch.setattr(training, "make_matting_network", lambda seed: make_matting_network(seed, widths=(8, 16)))
    training.main([*command("refine", sprites, tmp_path), "--vae", "none"])
    assert load_refiner(tmp_path / "made-refine").config.hidden == 3
    again = [*command("refine", sprites, tmp_path), "--vae", "none", "--begin", str(tmp_path / "made-refine")]
    training.main([*again, "--folder", str(tmp_path / "again"), "--export", str(tmp_path / "made-again")])
    assert how_trained(tmp_path / "made-again").count("1 updates of 1 pictures") == 2
    training.main(command("matting", sprites, tmp_path))
    assert load_matting_network(tmp_path / "made-matting").multiple == 2
    with pytest.raises(SystemExit, match="synthetic_share is 0.5 and synthetic is None"):
        training.main([*command("matting", sprites, tmp_path), "--synthetic-share", "0.5"])
