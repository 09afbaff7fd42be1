"""The command line of the denoisers: from nothing, grown, gone on with, and what it says when that cannot be."""

import functools

import pytest
import torch

from workbench.diffusion import models, pipelines, train
from workbench.diffusion.latents import nothing_given, shown_by
from workbench.diffusion.text import load_text_encoder
from workbench.diffusion.training import read_log


@pytest.fixture
def call(views, inpaint_folder, tmp_path, monkeypatch):
    """Two updates of narrow networks; returns the exported model."""
    narrow = functools.partial(models.make_denoiser, widths=(16, 16, 16), text_width=16)
    monkeypatch.setattr(models, "make_denoiser", narrow)
    monkeypatch.setattr(models, "make_text_encoder", functools.partial(models.make_text_encoder, width=16, layers=1))
    monkeypatch.setattr("workbench.diffusion.denoiser.STEPS", 1)
    monkeypatch.setattr("workbench.diffusion.denoiser.SHOWN", 1)

    def main(what, name, *options, load=pipelines.load_pipeline):
        data = ["--data", str(views), "--validation", str(views), "--vae", str(inpaint_folder / "vae")]
        size = ["--latents", "4", "--steps", "2", "--batch-size", "2", "--log-every", "1", "--warmup", "1"]
        folders = ["--folder", str(tmp_path / f"run-{name}"), "--export", str(tmp_path / name)]
        train.main([what, *data, *size, *folders, *options])
        return load(tmp_path / name)

    return main


@pytest.mark.long
def test_from_nothing_grown_and_gone_on_with(call, tmp_path):
    first = call("t2i", "first")
    assert first.scheduler.config.prediction_type == "v_prediction"
    assert "Predicts v" in (tmp_path / "first" / "README.md").read_text()
    grown = call("inpaint", "grown", "--base", str(tmp_path / "first"))
    assert grown.unet.config.in_channels == 9
    assert (shown_by(grown.unet), shown_by(first.unet)) == ("smooth", "grey")
    theirs, ours = (pipe.text_encoder.state_dict() for pipe in (first, grown))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())  # frozen
    still = call("t2i", "still", "--base", str(tmp_path / "first"), "--learning-rate", "0")
    further = call("t2i", "further", "--base", str(tmp_path / "first"))
    for pipe, equal in ((still, {"unet", "text_encoder"}), (further, {"text_encoder"})):  # it begins with the base's
        for part in ("unet", "text_encoder"):
            theirs, ours = (getattr(p, part).state_dict() for p in (first, pipe))
            assert all(torch.equal(ours[name], value) for name, value in theirs.items()) == (part in equal)
    cards = [(tmp_path / name / "README.md").read_text() for name in ("first", "grown", "further")]
    assert [card.count(" updates of ") for card in cards] == [1, 2, 2]  # a card tells the whole story
    assert "Then, grown to holes: " in cards[1]
    assert "Then: " in cards[2]
    back = call("t2i", "back", "--base", str(tmp_path / "grown"), "--learning-rate", "0")
    assert back.unet.config.in_channels == 4
    assert "Then, told that all is hidden: " in (tmp_path / "back" / "README.md").read_text()
    seen = []
    grown.unet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    hidden = {"mask_image": torch.ones(1, 1, 32, 32), "image": torch.rand(1, 3, 32, 32)}
    grown("a photo of a room", **hidden, num_inference_steps=1, height=32, width=32, output_type="latent")
    held = seen[0][:, 4:].mean((0, 2, 3))  # what the published pipeline gives where nothing is known
    torch.testing.assert_close(nothing_given(grown.vae, 32), held, rtol=0.2, atol=0.1)  # the pipeline draws them
    noise = call("t2i", "noise", "--prediction", "epsilon")
    assert noise.scheduler.config.prediction_type == "epsilon"
    assert len(read_log(tmp_path / "run-first")) == 2


@pytest.mark.long
def test_what_becomes_of_the_text_encoder(call, tmp_path):
    reader = tmp_path / "reader"
    call("text", "reader", load=load_text_encoder)
    read = load_text_encoder(reader).state_dict()
    first = call("t2i", "first", "--text", str(reader), "--learning-rate", "0")
    assert all(torch.equal(first.text_encoder.state_dict()[name], value) for name, value in read.items())
    assert (
        "Trained: From nothing, with a text encoder that had learnt to read (2 upd"
        in (tmp_path / "first/README.md").read_text()
    )
    first = first.text_encoder.state_dict()
    for name, given in (("learnt", "learnt"), ("another", str(reader))):
        ours = call("t2i", name, "--base", str(tmp_path / "first"), "--text", given).text_encoder.state_dict()
        assert not all(torch.equal(ours[part], value) for part, value in first.items())
    told = [(tmp_path / name / "README.md").read_text() for name in ("learnt", "another")]
    assert "Then, with the text encoder: " in told[0]
    assert "Then, with a text encoder that had learnt to read (2 updates of 2 captions" in told[1]
    with pytest.raises(SystemExit, match="NotAvailable: .*nowhere"):
        call("t2i", "none", "--text", str(tmp_path / "nowhere"))


def test_refusals(call, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(["depth", "--steps", "1"])
    assert "required: --data, --validation" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="NotAvailable: .*is no bundled model"):
        call("inpaint", "grown", "--base", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit):
        call("t2i", "first", "--prediction", "x0")
    assert "invalid choice: 'x0'" in capsys.readouterr().err
