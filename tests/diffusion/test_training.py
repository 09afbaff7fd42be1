"""The loop: same seed same losses, resumed = uninterrupted, two processes = one, schedules and logs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.diffusion import two_processes
from tests.diffusion.two_processes import Toy
from workbench.diffusion.checkpoints import Log
from workbench.diffusion.training import Settings, Trainer, learning_rate, read_log

HERE = Path(__file__).parent
SETTINGS = Settings(steps=8, batch_size=4, warmup=2, learning_rate=1e-2, log_every=1, validate_every=3)


@pytest.fixture
def latents():
    return torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def train(latents, folder, settings=SETTINGS, steps=None):
    trainer = Trainer(Toy(latents), replace(settings, steps=steps or settings.steps), folder)
    trainer.run(bar=False)
    return trainer


def same_files(a: Path, b: Path) -> bool:
    a, b = load_file(a / "checkpoint.safetensors"), load_file(b / "checkpoint.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.long
def test_same_seed_same_losses(latents, tmp_path):
    train(latents, tmp_path / "a", steps=4)
    train(latents, tmp_path / "b", steps=4)
    train(latents, tmp_path / "c", replace(SETTINGS, seed=1), steps=4)
    assert read_log(tmp_path / "a") == read_log(tmp_path / "b")
    assert read_log(tmp_path / "a") != read_log(tmp_path / "c")
    assert same_files(tmp_path / "a", tmp_path / "b")


@pytest.mark.long
def test_a_killed_run_goes_on_and_ends_where_it_would_have(latents, tmp_path):
    """Killed with kill -9 in the middle, as a power cut would: what is lost is the time since the last checkpoint."""
    save_file({"latents": latents}, tmp_path / "latents.safetensors")
    settings = "Settings(steps=8, batch_size=4, warmup=2, learning_rate=1e-2, log_every=1, validate_every=3, "
    code = (
        "import sys, torch; sys.path.insert(0, '.')\n"
        "from tests.diffusion.two_processes import *\n"
        "torch.set_num_threads(1)\n"
        f"settings = {settings} checkpoint_seconds=0)\n"
        f"task = Toy(load_file({str(tmp_path / 'latents.safetensors')!r})['latents'])\n"
        "batch = task.batch\n"
        "task.batch = lambda numbers: __import__('time').sleep(60 if numbers[0][1] == 4 else 0) or batch(numbers)\n"
        f"Trainer(task, settings, {str(tmp_path / 'killed')!r}).run(bar=False)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=HERE.parents[1])
    try:
        file, deadline = tmp_path / "killed" / "checkpoint.safetensors", time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline and step_of(file) < 4:
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert step_of(file) == 4
    log = tmp_path / "killed" / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 5, "loss": 99}\n{"step": 6, "lo')  # written after the checkpoint
    train(latents, tmp_path / "killed")
    train(latents, tmp_path / "whole")
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "whole")
    assert [line["step"] for line in read_log(tmp_path / "whole") if "validation" in line] == [3, 6]
    assert same_files(tmp_path / "killed", tmp_path / "whole")
    assert (tmp_path / "killed" / "samples" / "0000006.png").exists()


def test_a_run_that_is_only_opened_leaves_the_log_alone(tmp_path):
    """As --export-now does beside the process that trains."""
    file = tmp_path / "run" / "log.jsonl"
    Log(file, 2).write({"step": 5})
    log = Log(file, 2)
    assert file.read_text() == '{"step": 5}\n'
    log.write({"step": 3})
    log.write({"step": 4})
    assert file.read_text() == '{"step": 3}\n{"step": 4}\n'


def step_of(file: Path) -> int:
    if not file.exists():
        return -1
    with safe_open(file, "pt") as opened:
        return json.loads(opened.metadata()["told"])["step"]


def run_two_processes(folder: Path, out: Path) -> dict:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        env = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        env |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(HERE / "two_processes.py"), str(folder), str(out)]
        children.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    with safe_open(out / "result.safetensors", "pt") as opened:
        assert opened.metadata()["processes"] == "2"
    return load_file(out / "result.safetensors")


@pytest.mark.long
def test_two_processes_give_the_gradients_of_one(latents, tmp_path):
    save_file({"latents": latents}, tmp_path / "latents.safetensors")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    two_processes.main(tmp_path, tmp_path / "one")
    one, two = load_file(tmp_path / "one" / "result.safetensors"), run_two_processes(tmp_path, tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        if name.startswith("after."):  # two updates of AdamW, which divides by small gradients
            assert (value - two[name]).abs().mean() < 1e-4, name
        else:
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-6, msg=name)
    assert max(value.abs().max() for name, value in one.items() if not name.startswith("after.")) > 1e-3


def test_runs_of_one_process_each_have_their_own_precision(latents, tmp_path):
    """accelerate itself lets the first one decide for all."""
    numbers, losses = [[0, 0, i] for i in range(4)], {}
    for name, precision in (("bf16", "bf16"), ("float32", "no"), ("again", "bf16")):
        torch.manual_seed(0)
        trainer = Trainer(Toy(latents), replace(SETTINGS, precision=precision), tmp_path / name)
        batch = trainer.task.batch(numbers)
        with torch.no_grad():
            exact = trainer.task.objective(batch)["loss"].item()
        losses[name] = trainer.update(batch)["loss"].item(), exact
    (half, exact), (single, same) = losses["bf16"], losses["float32"]
    assert single == same == exact
    assert half != exact
    assert half == pytest.approx(exact, rel=0.05)
    assert losses["again"] == losses["bf16"]


@pytest.mark.long
def test_the_loss_falls_on_a_handful_of_latents(latents, tmp_path):
    trainer = Trainer(Toy(0.1 * latents), replace(SETTINGS, steps=30, warmup=3), tmp_path)
    losses = [trainer.update(trainer.task.batch([[0, s, i] for i in range(4)]))["loss"].item() for s in range(30)]
    assert sum(losses[-6:]) < 0.7 * sum(losses[:6])


def test_other_settings_or_another_network_are_refused(latents, tmp_path):
    train(latents, tmp_path, steps=1)
    with pytest.raises(ValueError, match="trained with batch_size 4 instead of 2"):
        Trainer(Toy(latents), replace(SETTINGS, batch_size=2), tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is no readable checkpoint"):
        Trainer(Toy(latents), SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="neither steps nor minutes"):
        Settings()


def test_learning_rate_rises_and_falls():
    settings = Settings(steps=100, learning_rate=1.0, warmup=10, final=0.1)
    rates = [learning_rate(settings, step, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[9], abs=0.02)
    assert rates[50] == pytest.approx(0.55)  # half-way between 1 and 0.1
    assert rates[100] == pytest.approx(0.1)


@pytest.mark.long
def test_a_time_budget_ends_the_run(latents, tmp_path):
    settings = Settings(minutes=1.5 / 60, batch_size=2, warmup=1, log_every=1, validate_every=10**6)
    trainer = Trainer(Toy(latents), settings, tmp_path)
    trainer.run(bar=False)
    assert trainer.step > 0
    assert trainer.elapsed() >= 1.5
    assert trainer.progress() == 1
    rates = [line["learning_rate"] for line in read_log(tmp_path)]
    assert rates[-1] < rates[0]
    done = trainer.step
    again = Trainer(Toy(latents), settings, tmp_path)  # the time is used up, also across sessions
    again.run(bar=False)
    assert again.step == done


def test_the_average_follows_and_is_put_back(latents, tmp_path):
    trainer = train(latents, tmp_path, steps=3)
    weight = trainer.task.objective.unet.conv_in.weight
    now = weight.detach().clone()
    with trainer.ema.applied(trainer.task.objective):
        assert not torch.equal(weight, now)
        torch.testing.assert_close(weight, trainer.ema.weights["unet.conv_in.weight"])
    assert torch.equal(weight, now)
