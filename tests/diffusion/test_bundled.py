"""The models that ship with the workbench: whole, carded, small, opened by plain libraries, and good for something."""

import json

import pytest
import torch

import workbench as wb
from workbench import image, metrics
from workbench.diffusion import bundled, pipelines
from workbench.diffusion.training_data import held_out_crops
from workbench.diffusion.vae import load_autoencoder, round_trip

FILE_MIB, ALL_MIB = 15, 45
NAMES = bundled()


@pytest.mark.parametrize("name", NAMES)
def test_whole_and_carded(name):
    folder = pipelines.find_folder(name)  # verifies checksums
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# {name}\n")
    for told in ("Learnt from: ", "- Trained: ", "- Weights: ", "| measured | |"):
        assert told in card
    listed = json.loads((folder / "checksums.json").read_text())
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert there == {*listed, "checksums.json"}


def test_small():
    files = [file for file in pipelines.MODELS.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md", ".txt"}  # nothing that could run
    sizes = [file.stat().st_size / 2**20 for file in files]
    assert max(sizes) <= FILE_MIB
    assert sum(sizes) <= ALL_MIB


@pytest.mark.long
def test_the_autoencoder_keeps_more_than_a_small_picture():
    """A latent holds 4 numbers where the picture made four times smaller holds 3: it must keep far more."""
    vae = load_autoencoder()
    renders = torch.cat([wb.data.scene(name).target for name in wb.data.scenes()[::4]])
    for pictures in (renders, held_out_crops()[::2]):  # (N, 3, 128, 128), all of them unseen
        small = image.resize(image.resize(pictures, (32, 32)), (128, 128))
        gain = metrics.psnr(round_trip(vae, pictures), pictures, where="all") - metrics.psnr(
            small, pictures, where="all"
        )
        assert gain.mean() > 2.5  # measured: 4.8 and 3.5 dB
        assert gain.min() > 0


def test_each_stands_in_the_list_of_data():
    told = (pipelines.MODELS.parent / "README.md").read_text()
    for name in NAMES:
        assert f"| `{name}` |" in told
