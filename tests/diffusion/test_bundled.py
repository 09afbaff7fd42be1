"""The models that ship with the workbench: whole, carded, small, opened by plain libraries, and good for something."""

import json
import subprocess
import sys

import pytest
import torch

import workbench as wb
from workbench import image, metrics
from workbench.diffusion import bundled, depth, pipelines
from workbench.diffusion.training_data import held_out_crops
from workbench.diffusion.vae import load_autoencoder, round_trip

FILE_MIB, ALL_MIB = 15, 45
NAMES = bundled()
PIPELINES = {"tiny-inpaint": "StableDiffusionInpaintPipeline 9"}
"""Bundled pipelines: class and input channels, as plain diffusers tells them."""


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


_PLAIN = """
import sys
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(sys.argv[1], use_safetensors=True)
assert not any(name.split(".")[0] == "workbench" for name in sys.modules)
print(type(pipe).__name__, pipe.unet.config.in_channels)
"""


@pytest.mark.long
@pytest.mark.parametrize(("name", "told"), PIPELINES.items())
def test_plain_diffusers_loads_it(name, told, tmp_path):
    command = [sys.executable, "-c", _PLAIN, str(pipelines.MODELS / name)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith(told)


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


@pytest.mark.long
def test_depth_is_seen():
    """Share of pixels within a factor of 1.25, against a guess that all is equally far: the median takes the scale."""
    model, shares = depth.load_depth(), []
    for name in [name for name in wb.data.scenes() if name.startswith("room")][::3]:
        scene = wb.data.scene(name)
        found = depth.estimate_depth(scene.target, model).log()
        shares.append([depth.share_within(x, scene.depth).mean() for x in (found, torch.zeros_like(found))])
    seen, flat = torch.tensor(shares).mean(0)
    assert seen > 0.85
    assert seen > flat + 0.2


@pytest.mark.long
def test_inpainting_knows_more_than_the_mean_colour():
    """In a quarter of a picture the denoiser must be nearer to the truth than its mean colour, and keep the rest."""
    pipe, gains = wb.load_pipeline("tiny-inpaint"), []
    for k, name in enumerate(wb.data.scenes()[::6]):
        scene = wb.data.scene(name)
        mask = wb.mask.irregular(scene.target.shape[-2:], 0.25, seed=k)
        filled = wb.inpaint(scene.target, mask, "diffusion", pipe=pipe, prompt=scene.caption, progress=False).image
        assert torch.equal(filled * (1 - mask), scene.target * (1 - mask))
        mean = (scene.target * (1 - mask)).sum((2, 3), keepdim=True) / (1 - mask).sum()
        flat = torch.where(mask > 0.5, mean, scene.target)
        gains.append(metrics.psnr(filled, scene.target, mask) - metrics.psnr(flat, scene.target, mask))
    assert torch.cat(gains).mean() > 2
