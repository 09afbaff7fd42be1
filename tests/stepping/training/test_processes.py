"""Two processes with half the batch each train as one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.stepping.training import toy
from workbench.stepping.training import TrainingRun

HERE = Path(__file__).parent


def two_processes(out: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        env = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        env |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, str(HERE / "toy.py"), str(out)]
        children.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    for child in children:
        _, errors = child.communicate(timeout=400)
        assert child.returncode == 0, errors


@pytest.mark.long
def test_two_processes_give_the_gradients_of_one(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    toy.main(tmp_path / "one")
    two_processes(tmp_path / "two")
    with safe_open(tmp_path / "two" / "told.safetensors", "pt") as opened:
        assert opened.metadata()["processes"] == "2"
    one, two = (load_file(tmp_path / name / "told.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert torch.equal(one["t"], two["t"])  # in the order of the items
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert not torch.equal(one["weight.first.weight"], one["again.first.weight"])
    resumed = TrainingRun.load(tmp_path / "two" / "run.safetensors", toy.Plain())  # now by one alone
    assert resumed.step().i == 5
