"""Loading: by plain diffusers, by name, folder and hub id; damaged, missing and withdrawn."""

import shutil
import subprocess
import sys

import pytest
import torch

from workbench import check
from workbench.diffusion import libraries, pipelines
from workbench.diffusion.pipelines import load_pipeline, verify


@pytest.mark.long
def test_plain_diffusers_loads_the_folder_without_the_workbench(inpaint_folder, tmp_path):
    code = (
        "import sys, torch\n"
        "from diffusers import StableDiffusionInpaintPipeline as P\n"
        f"pipe = P.from_pretrained({str(inpaint_folder)!r})\n"
        "assert 'workbench' not in sys.modules\n"
        "assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float32}\n"
        "assert pipe.safety_checker is None and pipe.unet.config.in_channels == 9\n"
        "x = torch.rand(1, 3, 128, 128)\n"
        "given = {'image': x, 'mask_image': torch.ones(1, 1, 128, 128), 'num_inference_steps': 2}\n"
        "out = pipe('a zebra', **given, output_type='pt')\n"
        "assert out.images.shape == (1, 3, 128, 128)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True, text=True)


def test_a_folder_loads_quietly_in_float32(inpaint_folder, capfd):
    pipe = load_pipeline(inpaint_folder)
    assert type(pipe).__name__ == "StableDiffusionInpaintPipeline"
    assert {p.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()} == {torch.float32}
    assert load_pipeline(str(inpaint_folder), dtype=torch.bfloat16).unet.dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")


@pytest.mark.long
def test_importing_prints_no_notices_and_loading_needs_no_world():
    code = (
        "import sys\n"
        "from workbench.diffusion import estimate_depth, load_classifier, load_pipeline, sample_hole\n"
        "assert not [name for name in sys.modules if name.startswith('workbench.world')]\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout + out.stderr == ""


def test_weights_are_half_and_the_card_tells_the_quality(inpaint_folder):
    from safetensors.torch import load_file

    for file in inpaint_folder.rglob("*.safetensors"):
        assert {v.dtype for v in load_file(file).values() if v.is_floating_point()} == {torch.float16}, file
    assert "| psnr | 12.35 |" in (inpaint_folder / "README.md").read_text()


@pytest.fixture
def copied(inpaint_folder, tmp_path):
    return shutil.copytree(inpaint_folder, tmp_path / "copied")


def test_a_damaged_file_is_named(copied):
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(check.NotAvailable, match=r"unet/diffusion_pytorch_model\.safetensors has checksum .*damaged"):
        load_pipeline(copied)
    file.unlink()
    with pytest.raises(check.NotAvailable, match=r"unet/diffusion_pytorch_model\.safetensors is missing"):
        load_pipeline(copied)


def test_a_file_cut_short_is_named_without_checksums_too(copied):
    (copied / "checksums.json").unlink()
    verify(copied)
    file = copied / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(check.NotAvailable, match=r"vae/diffusion_pytorch_model\.safetensors is not readable"):
        load_pipeline(copied)


def test_pickled_weights_are_never_opened(copied):
    (copied / "checksums.json").unlink()
    file = copied / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(check.NotAvailable, match="cannot be loaded as a pipeline"):
        load_pipeline(copied)


def test_a_network_of_a_folder_without_checksums(copied):
    (copied / "checksums.json").unlink()
    kind = libraries.AutoencoderKL
    assert not pipelines.load_part(kind, copied, "vae").training
    with pytest.raises(check.NotAvailable, match="head has no config.json, expected AutoencoderKL"):
        pipelines.load_part(kind, copied, "head")
    with pytest.raises(check.NotAvailable, match="unet cannot be loaded as AutoencoderKL"):
        pipelines.load_part(kind, copied, "unet")
    (copied / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(check.NotAvailable, match="vae cannot be loaded as AutoencoderKL"):
        pipelines.load_part(kind, copied, "vae")
    (copied / "vae" / "config.json").write_text("{")
    with pytest.raises(check.NotAvailable, match="vae cannot be loaded as AutoencoderKL"):
        pipelines.load_part(kind, copied, "vae")


def test_bundled_names(copied, monkeypatch, tmp_path):
    monkeypatch.setattr(pipelines, "MODELS", tmp_path / "models")
    with pytest.raises(check.NotAvailable, match="'tiny-inpaint' is not in .*train"):
        load_pipeline("tiny-inpaint")
    shutil.copytree(copied, tmp_path / "models" / "tiny-inpaint")
    assert pipelines.bundled() == ["tiny-inpaint"]
    assert load_pipeline("tiny-inpaint").unet.config.in_channels == 9


@pytest.mark.parametrize(("name", "mirror"), pipelines.MOVED.items())
def test_withdrawn_ids_go_to_their_mirrors_and_offline_tells_what_to_do(name, mirror, monkeypatch):
    asked = []

    def offline(name, **options):
        asked.append((name, options["use_safetensors"]))
        raise OSError("no route to the hub")

    monkeypatch.setattr(libraries.DiffusionPipeline, "from_pretrained", offline)
    folder = mirror.split("/")[1]
    with (
        pytest.warns(UserWarning, match=f"{name} was withdrawn.*{mirror}"),
        pytest.raises(check.NotAvailable, match=rf"no route to the hub.*hf download {mirror}.*path/to/{folder}"),
    ):
        load_pipeline(name)
    assert asked == [(mirror, True)]


def test_nonsense_names(tmp_path):
    with pytest.raises(check.NotAvailable, match="no bundled model .*no folder here, and no hub id"):
        load_pipeline("nonsense")
    with pytest.raises(TypeError, match="name is a int"):
        load_pipeline(3)
    with pytest.raises(check.NotAvailable, match=r"no model_index\.json"):
        load_pipeline(tmp_path)
