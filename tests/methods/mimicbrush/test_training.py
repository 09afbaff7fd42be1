"""MimicBrush's training: the loss by hand, what is dropped, encoded pairs, going on, going back, the command line."""

import copy
import json
from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.methods.mimicbrush import narrow
from tests.methods.mimicbrush.narrow import noise
from workbench import check
from workbench.diffusion.models import PREDICTIONS, make_scheduler
from workbench.diffusion.training import Settings, Trainer, read_log
from workbench.diffusion.training_data import TrainingPictures, generator
from workbench.methods.mimicbrush import Pairs, encode_pairs, grow_mimicbrush, load_mimicbrush
from workbench.methods.mimicbrush import train as training
from workbench.methods.mimicbrush.augment import AUGMENTATIONS
from workbench.methods.mimicbrush.encoding import build_cache, read_cache
from workbench.methods.mimicbrush.networks import LEARNT
from workbench.methods.mimicbrush.pairs import RenderedFilms
from workbench.methods.mimicbrush.sampling import sample
from workbench.methods.mimicbrush.train import Imitation, MimicTask

SETTINGS = Settings(steps=4, batch_size=2, warmup=1, learning_rate=3e-3, log_every=1, precision="no")


@pytest.fixture(scope="module")
def pairs(films_folder):
    pictures = TrainingPictures([films_folder], 0.0)
    return Pairs(RenderedFilms(pictures), pictures, band=(0.05, 0.99))


@pytest.fixture(scope="module")
def encoded(pairs):
    return encode_pairs(narrow.model(), [pairs.draw(generator(0, k)) for k in range(4)])


@pytest.fixture
def make_task(pairs, encoded):
    def make(reading="paper", prediction="epsilon", **changes):
        model = copy.deepcopy(narrow.model(reading))
        model.scheduler = make_scheduler(prediction=prediction)
        return MimicTask(model, encoded, [pairs.draw(generator(9, 0))], **changes)

    return make


# What is learnt from


def test_encoded_pairs_are_what_filling_is_given(pairs):
    model, drawn = narrow.model(), [pairs.draw(generator(0, k)) for k in range(3)]
    found = encode_pairs(model, drawn, batch_size=2)
    pair = drawn[2]
    given = model.conditions(pair.source, pair.mask, pair.reference, keep_shape=True)
    for name in ("background", "reference", "mask", "states"):
        torch.testing.assert_close(found[name][2:].float(), getattr(given, name), atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(found["depth"][2:].float(), given.depth_map, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(found["latents"][2:].float(), model.encode(pair.source * 2 - 1), atol=5e-3, rtol=5e-3)
    with pytest.raises(ValueError, match="pairs is empty"):
        encode_pairs(model, [])


def test_a_cache_goes_on_where_it_was_killed(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.methods.mimicbrush.encoding.SHARD", 2)
    model = narrow.model()
    whole = build_cache(model, pairs, tmp_path / "a", 5, progress=False)
    assert len(list(whole.glob("pairs-*.safetensors"))) == 3
    build_cache(model, pairs, tmp_path / "b", 5, part=(1, 2), progress=False)  # one of two processes
    (file,) = (tmp_path / "b").glob("pairs-*.safetensors")
    written = file.stat().st_mtime_ns
    parts = build_cache(model, pairs, tmp_path / "b", 5, progress=False)
    assert file.stat().st_mtime_ns == written
    a, b = read_cache(whole), read_cache(parts)
    assert len(a["latents"]) == 5
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(ValueError, match="holds pairs made with another count"):
        build_cache(model, pairs, tmp_path / "a", 6, progress=False)


def test_a_batch_depends_on_its_numbers_only(make_task):
    task = make_task()
    numbers = [[7, 2, item] for item in range(5)]
    whole, part = task.batch(numbers), task.batch(numbers[3:])
    assert all(torch.equal(part[name], whole[name][3:]) for name in whole)
    assert set(whole) == {*task.encoded, "present", "t", "noise"}
    assert whole["noise"].shape == whole["latents"].shape == (5, 4, 32, 32)


def test_shares_that_learn_without(make_task):
    """Over 400 items, within four standard deviations; what is dropped is dropped everywhere."""
    task = make_task()
    batch = task.batch([[0, 0, item] for item in range(400)])
    dropped, flat = batch["present"] == 0, batch["depth"].flatten(1).amax(1) == 0
    assert abs(dropped.float().mean() - 0.1) < 4 * (0.1 * 0.9 / 400) ** 0.5
    assert abs(flat.float().mean() - 0.5) < 4 * (0.25 / 400) ** 0.5
    assert not batch["states"][dropped].any()
    assert batch["states"][~dropped].flatten(1).any(1).all()
    never = make_task(depth_dropout=0, reference_dropout=0).batch([[0, 0, item] for item in range(20)])
    assert never["present"].all()
    assert never["depth"].flatten(1).any(1).all()


# The loss


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_by_hand(prediction, make_task):
    """An error of the picture counts clamp(SNR, 1, 5), whatever is predicted."""
    task = make_task(prediction=prediction)
    batch = task.batch([[0, 0, item] for item in range(2)])
    batch["t"], batch["present"] = torch.tensor([10, 900]), torch.ones(2)
    with torch.no_grad():
        losses = task.objective(batch)
        imitator = task.model.imitator
        signal = task.objective.scheduler.alphas_cumprod[batch["t"]]
        view = signal.view(-1, 1, 1, 1)
        noisy = view.sqrt() * batch["latents"] + (1 - view).sqrt() * batch["noise"]
        tokens = imitator.tokens(batch["states"])
        given = (batch["mask"], batch["background"], imitator.depth_latents(batch["depth"]), tokens)
        predicted = imitator(noisy, batch["t"], *given, imitator.read(batch["reference"]))
        if prediction == "v_prediction":
            predicted = (1 - view).sqrt() * noisy + view.sqrt() * predicted  # the noise
        error = (predicted - batch["noise"]).square().mean((1, 2, 3))
    snr = signal / (1 - signal)
    assert snr[0] > 5
    assert snr[1] < 1
    weight = torch.tensor([5.0, 1.0]) / snr
    assert losses["error"].item() == pytest.approx(error.mean().item(), rel=1e-3)
    assert losses["loss"].item() == pytest.approx((weight * error).mean().item(), rel=1e-3)
    assert losses["per_sample"].mean().item() == pytest.approx(losses["loss"].item(), rel=1e-5)
    assert losses["per_cell"].shape == (2, 32, 32)
    assert losses["per_cell"].mean().item() == pytest.approx(losses["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_every_weight_that_learns_gets_a_gradient(reading, make_task):
    """Several processes expect one each; the reference U-Net learns only if told, and only as far as it is read."""
    task = make_task(reading, reference_dropout=0, depth_dropout=0)
    task.objective(task.batch([[0, 0, 0]]))["loss"].backward()
    learning = {name: p for name, p in task.objective.named_parameters() if p.requires_grad}
    assert not any(name.startswith("imitator.reference") for name in learning)
    assert [name for name, p in learning.items() if p.grad is None] == []
    assert not any("down_blocks" in name or "up_blocks.0.resnets" in name for name in learning)
    task = make_task(reading, reference_dropout=0, part="all", train_reference=True)
    task.objective(task.batch([[0, 0, 0]]))["loss"].backward()
    learning = {name: p for name, p in task.objective.named_parameters() if p.requires_grad}
    assert any(name.startswith("imitator.reference.conv_in") for name in learning)
    assert any(name.startswith("imitator.unet.down_blocks") for name in learning)
    assert [name for name, p in learning.items() if p.grad is None] == []


@pytest.mark.long
def test_it_learns_to_use_the_reference(make_task):
    """The same two pairs again and again: the error falls."""
    task = make_task(reference_dropout=0)
    batch = task.batch([[0, 0, item] for item in range(2)])
    optimizer = torch.optim.AdamW([p for p in task.objective.parameters() if p.requires_grad], 5e-3)
    losses = []
    for _ in range(12):
        losses.append(task.objective(batch)["loss"])
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]


# Going on, going back


@pytest.mark.long
def test_a_resumed_run_ends_where_it_would_have(make_task, tmp_path):
    from safetensors.torch import load_file

    for folder, parts in (("whole", (3,)), ("parts", (1, 3))):
        for steps in parts:
            trainer = Trainer(make_task(), replace(SETTINGS, final=1.0), tmp_path / folder)
            while trainer.step < steps:
                trainer.update(trainer.task.batch([[0, trainer.step, item] for item in range(2)]))
            trainer.save()
    a, b = (load_file(tmp_path / folder / "checkpoint.safetensors") for folder in ("whole", "parts"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.long
def test_a_training_run_goes_back_and_forward_to_the_bit_and_branches(make_task):
    run = wb.TrainingRun(make_task(), learning_rate=3e-3, batch_size=2, memory=0)
    run.step(3)
    told, weights = run.history("loss"), run.weights()
    run.back(2)
    assert not all(torch.equal(weights[name], value) for name, value in run.weights().items())
    run.goto(3)
    assert run.history("loss") == told
    assert all(torch.equal(weights[name], value) for name, value in run.weights().items())
    assert not run.notes
    fork = run.branch(at=1, reference_dropout=1.0)
    fork.step(1)
    assert fork.history("loss")[0] == told[0]
    assert fork.history("loss")[1] != told[1]
    with pytest.raises(ValueError, match="cannot|no |expected"):
        run.branch(at=1, colour="red")


# The command line


_OTHERWISE = ["--reading", "released", "--train-reference", "--part", "all", "--changes", "flip"]


@pytest.mark.parametrize("extra", [[], _OTHERWISE])
@pytest.mark.long
def test_the_command_line_trains_measures_and_exports(extra, films_folder, untrained_models, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SHOWN", 1)
    monkeypatch.setattr(training, "HELD", 1)
    monkeypatch.setattr(training, "STEPS", 2)
    monkeypatch.setattr(training, "LEVELS", 2)
    monkeypatch.setattr("workbench.diffusion.train.MODELS", tmp_path / "models")
    command = ["--data", str(films_folder), "--validation", str(films_folder), "--folder", str(tmp_path / "run")]
    command += ["--steps", "2", "--batch-size", "2", "--validate-every", "2", "--pairs", "3", "--precision", "no"]
    command += ["--photos", "0", "--band", "0.05", "0.99", "--log-every", "1", *extra]
    training.main(command)
    folder = tmp_path / "models" / "tiny-mimicbrush"
    model = load_mimicbrush(folder)
    assert model.config.reading == ("released" if extra else "paper")
    assert (folder / "reference").is_dir() == bool(extra)
    card = (folder / "README.md").read_text()
    assert "# tiny-mimicbrush" in card
    assert "2 updates of 2 pictures" in card
    (numbers,) = (line["validation"] for line in read_log(tmp_path / "run") if "validation" in line)
    assert set(numbers) == {"error", "error_alone", "hole_psnr", "hole_psnr_tokens", "hole_psnr_copy"}
    assert all(value > 0 for value in numbers.values())
    assert wb.load_image(tmp_path / "run" / "samples" / "0000002.png").shape == (1, 3, 4 * 128, 128)
    stored = "unet/diffusion_pytorch_model.safetensors" if extra else "learnt.safetensors"
    assert {stored, "adapters/config.json"} <= set(json.loads((folder / "checksums.json").read_text()))
    trained, grown = model.imitator.unet.state_dict(), grow_mimicbrush().imitator.unet.state_dict()
    changed = {name for name in trained if not torch.equal(trained[name], grown[name].half().float())}
    learns = {name for name in trained if extra or name.startswith(LEARNT["reading"])}
    assert changed & learns
    if not extra:  # what did not learn is the inpainting model's, to the bit
        assert all(torch.equal(trained[name], grown[name]) for name in set(trained) - learns)
        config = folder / "adapters" / "config.json"
        config.write_text(config.read_text().replace(model.config.inpaint_digest, "0123456789abcdef"))
        (folder / "checksums.json").unlink()
        with pytest.raises(check.NotAvailable, match="was trained with another tiny-inpaint than the one here"):
            load_mimicbrush(folder)
    plan = json.loads((tmp_path / "run" / "pairs" / "plan.json").read_text())
    assert plan["augmentations"] == (["flip"] if extra else list(AUGMENTATIONS))
    with pytest.raises(SystemExit, match="holds pairs made with another count"):
        training.main([*command, "--pairs", "4"])
    training.main([*command, "--pairs", "4", "--cache", str(tmp_path / "others"), "--steps", "3"])  # goes on with them
    assert "3 updates of 2 pictures" in (folder / "README.md").read_text()
    assert len(read_cache(tmp_path / "others")["latents"]) == 4


def test_tasks_that_are_refused(make_task, pairs, encoded, films_folder, tmp_path):
    with pytest.raises(ValueError, match="depth_dropout is 2, expected a number from 0 to 1"):
        make_task(depth_dropout=2)
    with pytest.raises(ValueError, match="held is empty"):
        MimicTask(narrow.model(), encoded, [])
    other = {**encoded, "states": noise(4, 17, 5)}
    with pytest.raises(ValueError, match="the pairs' states have 5 channels, expected 8"):
        MimicTask(narrow.model(), other, [pairs.draw(generator(9, 0))])
    with pytest.raises(ValueError, match="prompt cannot change, expected one of: depth_dropout, reference_dropout"):
        make_task().variant(prompt="a ball")
    assert isinstance(Imitation(copy.deepcopy(narrow.model())), torch.nn.Module)
    command = ["--data", str(films_folder), "--validation", str(films_folder), "--steps", "1", "--photos", "0"]
    with pytest.raises(SystemExit, match="NotAvailable: .*nowhere"):
        training.main([*command, "--folder", str(tmp_path), "--inpaint", "tiny-nowhere", "--precision", "no"])


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_a_model_of_half_precision_learns_and_fills(reading, pairs, encoded):
    model = copy.deepcopy(narrow.model(reading)).to(torch.bfloat16)
    pair = pairs.draw(generator(0, 0))
    given = model.conditions(pair.source, pair.mask, pair.reference)
    (look,) = sample(model, given, num_inference_steps=1)
    assert model.decode(look.latents).isfinite().all()
    task = MimicTask(model, encoded, [pair])
    task.objective(task.batch([[0, 0, 0], [0, 0, 1]]))["loss"].backward()
    learns = [p for p in task.objective.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learns)
