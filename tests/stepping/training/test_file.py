"""Saved training runs: resumed to the bit; damaged, foreign and unfitting files are refused by name."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.stepping.training.toy import Toy, same
from workbench.stepping.training import TrainingRun


@pytest.fixture
def run():
    run = TrainingRun(Toy(), learning_rate=1e-2, batch_size=3, steps=20, schedule="cosine", memory=8)
    run.step(6)
    return run


@pytest.fixture
def file(run, tmp_path):
    return run.save(tmp_path / "deep" / "run.safetensors")


def metadata(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def test_resumed_it_goes_on_to_the_bit(run, file):
    resumed = TrainingRun.load(file, Toy())
    assert (resumed.i, resumed.recorded, resumed.total, resumed.memory) == (6, 6, 20, 8)
    assert resumed.settings == run.settings
    assert resumed.notes == []
    for a, b in zip(resumed.states, run.states, strict=True):
        for name in ("i", "loss", "losses", "digest", "fault", "numbers"):
            assert getattr(a, name) == getattr(b, name)
        for name in ("gradient_norms", "weight_norms", "update_norms"):
            assert dict(getattr(a, name)) == dict(getattr(b, name))
        for name in ("loss_per_sample", "loss_per_cell", "t"):
            assert a.i == 0 or torch.equal(getattr(a, name), getattr(b, name))
    assert torch.equal(resumed.state.batch["noise"], run.state.batch["noise"])
    resumed.step(4)
    run.step(4)
    assert [s.digest for s in resumed.states] == [s.digest for s in run.states]
    assert same(resumed.weights(), run.weights())
    resumed.goto(3)  # computed again from the first snapshot
    assert same(resumed.weights(), run.weights(3))


def test_saved_from_the_past_it_keeps_everything(run, tmp_path):
    run.goto(2)
    resumed = TrainingRun.load(run.save(tmp_path / "a.safetensors"), Toy(), memory=1, exact=False)
    assert resumed.recorded == 6
    assert (resumed.memory, resumed.exact) == (1, False)
    assert run.i == 2


def test_a_branch_with_a_fault_and_an_untouched_run(run, tmp_path):
    run.task.objective.nan_at = 7
    fork = run.branch(at=4, seed=1)
    fork.step(9)
    assert fork.state.fault
    task = Toy()
    resumed = TrainingRun.load(fork.save(tmp_path / "fork.safetensors"), task)
    assert (resumed.name, resumed.i, resumed.state.fault) == ("run.1", 8, fork.state.fault)
    with pytest.raises(ValueError, match="expected at least 4: run.1 begins there. What was before is not in its file"):
        resumed.goto(3)
    fresh = TrainingRun.load(TrainingRun(Toy()).save(tmp_path / "fresh.safetensors"), Toy())
    assert fresh.step().i == 1


def test_nothing_of_it_is_executable(file):
    told = metadata(file)
    manifest = json.loads(told["workbench"])
    assert manifest["format"] == "workbench.TrainingRun 1"
    assert set(manifest["versions"]) == {"python", "workbench", "torch", "diffusers", "peft"}
    assert manifest["states"][3]["digest"]
    assert not list(file.parent.glob(".*"))  # nothing half-written


def test_damaged_files(file, tmp_path):
    content = file.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ValueError, match=r"cut.safetensors is not readable as safetensors.*cut short"):
        TrainingRun.load(cut, Toy())
    flipped = bytearray(content)
    flipped[-100] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(flipped)
    with pytest.raises(ValueError, match=r"flipped.safetensors was changed after it was saved"):
        TrainingRun.load(tmp_path / "flipped.safetensors", Toy())
    told = metadata(file)
    told["workbench"] = told["workbench"].replace('"seed": 0', '"seed": 1')
    save_file(load_file(file), tmp_path / "edited.safetensors", told)
    with pytest.raises(ValueError, match=r"edited.safetensors was changed after it was saved"):
        TrainingRun.load(tmp_path / "edited.safetensors", Toy())
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign.safetensors is no saved training run"):
        TrainingRun.load(tmp_path / "foreign.safetensors", Toy())
    with pytest.raises(ValueError, match=r"gone.safetensors is not readable"):
        TrainingRun.load(tmp_path / "gone.safetensors", Toy())


def test_files_that_do_not_fit_the_task(run, file):
    with pytest.raises(ValueError, match=r"\(6,\) for the weight again, the task \(7,\)"):
        TrainingRun.load(file, Toy(width=7))
    other = Toy()
    other.objective.frozen.weight.data.add_(1)
    with pytest.raises(ValueError, match="trained on another base model"):
        TrainingRun.load(file, other)

    class Others(Toy):
        def batch(self, numbers):
            return super().batch([[seed + 1, step, item] for seed, step, item in numbers])

    with pytest.raises(ValueError, match=r"trained on other batches than the task gives: 'latents'|'noise'"):
        TrainingRun.load(file, Others())

    class Nearly(Toy):
        def batch(self, numbers):
            batch = super().batch(numbers)
            return {**batch, "latents": batch["latents"] + 1e-5}

    assert "not to the bit" in TrainingRun.load(file, Nearly()).notes[0]
    with pytest.raises(ValueError, match="speed is no option, expected one of: memory"):
        TrainingRun.load(file, Toy(), speed=2)
    with pytest.raises(ValueError, match="expected a name that ends in .safetensors"):
        run.save("run.pt")


def test_other_versions_are_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.stepping.training.file._versions", lambda: {"torch": "1.0"})
    file = run.save(tmp_path / "old.safetensors")
    monkeypatch.undo()
    assert "torch 1.0 then" in TrainingRun.load(file, Toy()).notes[0]
