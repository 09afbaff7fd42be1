"""A decoder that learns to show green: what changes, what stays, what is written and refused."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from tests.methods.diffumatting.conftest import Made
from tests.methods.diffumatting.test_training import command
from tests.stepping import narrow
from workbench import check
from workbench.diffusion.denoiser import write_pipeline
from workbench.diffusion.models import make_autoencoder
from workbench.methods.diffumatting import DecoderTask, autoencoder_floor, load_decoder, load_diffumatting
from workbench.methods.diffumatting import decoding as of_decoding
from workbench.methods.diffumatting import train as training
from workbench.methods.diffumatting.data import Backgrounds
from workbench.methods.diffumatting.decoding import last_stage


@pytest.fixture(autouse=True)
def thirty_two(monkeypatch):
    monkeypatch.setattr(of_decoding, "squared", lambda matte: matte)


@pytest.fixture
def vae():
    return make_autoencoder(4, (8, 8, 16)).eval()


@pytest.fixture
def task(vae):
    return DecoderTask(vae, Made(3, (32, 32)), Made(2, (32, 32), first=9), Backgrounds(size=32))


def test_a_batch_depends_on_its_numbers_only(task):
    numbers = [[0, 3, item] for item in range(30)]
    whole, part = task.batch(numbers), task.batch(numbers[20:])
    assert all(torch.equal(part[name], whole[name][20:]) for name in whole)
    assert whole["image"].shape == (30, 3, 32, 32)
    assert whole["noise"].shape == (30, 4, 8, 8)
    assert whole["noise"].std((1, 2, 3)).max() < 1.3 * of_decoding.STIR
    corners = whole["image"][:, :, 0, 0]
    green = (corners == torch.tensor([0.0, 1.0, 0.0])).all(1)
    assert 6 < green.sum() < 24  # about half of them


def test_only_the_last_stage_learns(task, vae):
    names = set(last_stage(vae))
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    run = wb.TrainingRun(task, learning_rate=1e-2, batch_size=2, memory=0)
    run.step(2)
    changed = {name for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == names
    assert names == {name for name in before if name.startswith(("decoder.up_blocks.2.", "decoder.conv_"))} - {
        "decoder.conv_in.weight", "decoder.conv_in.bias",
    }  # fmt: skip


@pytest.mark.long
def test_green_becomes_green(task, vae):
    before, at_first = autoencoder_floor(vae, (32, 32)).mean, task.validate()
    wb.TrainingRun(task, learning_rate=2e-2, batch_size=4, memory=0).step(30)
    found = task.validate()
    assert autoencoder_floor(vae, (32, 32)).mean < 0.7 * before
    assert found["green_delta_e"] < 0.7 * at_first["green_delta_e"]
    assert found["green_delta_e_before"] == at_first["green_delta_e"] == at_first["green_delta_e_before"]
    assert task.sheet().shape == (1, 3, 4 * 32, 2 * 32)


def test_written_and_put_into_another(task, vae, tmp_path):
    torch.nn.init.normal_(vae.decoder.conv_out.bias)
    folder = task.export(tmp_path / "made", "not at all")
    other = make_autoencoder(4, (8, 8, 16), seed=5).eval()
    kept = {name: value.clone() for name, value in other.state_dict().items()}
    assert load_decoder(other, folder) is other
    for name, value in other.state_dict().items():
        if name in last_stage(vae):
            assert torch.equal(value, vae.state_dict()[name].half().float()), name
        else:
            assert torch.equal(value, kept[name]), name
    assert "thing_psnr_before" in (folder / "README.md").read_text()
    wider = make_autoencoder(4, (16, 16, 16))
    with pytest.raises(ValueError, match="of the last stage of another decoder"):
        load_decoder(wider, folder)
    with pytest.raises(ValueError, match="Linear has no decoder with mid_block"):
        load_decoder(torch.nn.Linear(2, 2), folder)
    with pytest.raises(check.NotAvailable, match="is no bundled model"):
        load_decoder(vae, "no-such")
    (folder / "decoder.safetensors").write_bytes(b"nonsense")
    with pytest.raises(check.NotAvailable, match="damaged"):
        load_decoder(vae, folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(check.NotAvailable, match="expected a folder that DecoderTask exported"):
        load_decoder(vae, tmp_path / "empty")


@pytest.mark.long
def test_the_command_line_decodes_and_paints_with_it(sprites, tmp_path, monkeypatch):
    pipe = copy.deepcopy(narrow.text_to_image())
    pipe.unet.register_to_config(sample_size=8)
    base = write_pipeline(tmp_path / "base", pipe, "a test", "of nothing", "not at all", {})
    monkeypatch.setattr(training, "load_autoencoder", lambda: wb.load_pipeline(base).vae)
    monkeypatch.setattr(training, "HELD", 1)
    training.main([*command("decode", sprites, tmp_path), "--learning-rate", "0.1"])
    decoder = tmp_path / "made-decode"
    painting = [*command("paint", sprites, tmp_path), "--base", str(base), "--things", "1", "--rank", "2"]
    training.main([*painting, "--decoder", str(decoder)])
    told = json.loads((tmp_path / "made-paint" / "diffumatting.json").read_text())
    assert told == {"base": str(base), "decoder": str(decoder)}
    stage = last_stage(load_diffumatting(tmp_path / "made-paint", None).pipe.vae)
    assert all(torch.equal(p, load_file(decoder / "decoder.safetensors")[name].float()) for name, p in stage.items())
