"""From files: bundled folders that must fit together, and the released layout in a narrow form."""

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import workbench as wb
from tests.methods.mimicbrush import narrow
from tests.methods.mimicbrush.narrow import noise
from tests.stepping.narrow import inpainting, text_to_image
from workbench import check
from workbench.diffusion import models
from workbench.diffusion.libraries import CLIPVisionConfig, CLIPVisionModelWithProjection, UNet2DConditionModel
from workbench.methods.mimicbrush import (
    ClipStates,
    ReleasedDepth,
    fill,
    grow_mimicbrush,
    load_mimicbrush,
    load_released,
)
from workbench.methods.mimicbrush.attention import names_after_reading, shared_layers
from workbench.methods.mimicbrush.conditions import CLIP_MEAN, normalised
from workbench.methods.mimicbrush.networks import DepthMapper

LAYOUT = json.loads((Path(__file__).parent / "layout.json").read_text())


class NarrowDepth(nn.Module):
    """Answers as Depth Anything does: an object with predicted_depth (B, h, w); the sum of what it is shown."""

    def forward(self, pixel_values):
        return type("Output", (), {"predicted_depth": pixel_values.sum(1)})()


def tower(width=12):
    sizes = {"hidden_size": width, "intermediate_size": 16, "image_size": 28, "patch_size": 14}
    config = CLIPVisionConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
    with models.seeded(0):
        return CLIPVisionModelWithProjection(config)


def released_state(with_unet=True, width=12):
    """Random weights under the release's names, sizes of the narrow pipelines."""
    writer = models.make_denoiser(4, 13, widths=(16, 16, 32), text_width=32, seed=5)
    reader = models.make_denoiser(4, 4, widths=(16, 16, 32), text_width=32, seed=6)
    idle = names_after_reading(reader)
    with models.seeded(7):
        projector, guide = nn.Linear(width, 32), DepthMapper((4, 6, 8))
    state = {
        "image_proj": {f"projector.{name}": value for name, value in projector.state_dict().items()},
        "depth_guider": dict(guide.state_dict()),
        "referencenet": {name: value for name, value in reader.state_dict().items() if name not in idle},
    }
    if not with_unet:
        return state
    with models.seeded(8):
        encoder = CLIPVisionModelWithProjection(tower(width).config).state_dict()
    return {**state, "unet": dict(writer.state_dict()), "image_encoder": dict(encoder)}


def parts(width=12):
    depth = ReleasedDepth(NarrowDepth(), side=28)
    return {"vae": copy.deepcopy(text_to_image().vae), "image_encoder": ClipStates(tower(width)), "depth": depth}


# Bundled


def test_what_was_stored_is_what_is_loaded(untrained_models):
    model = load_mimicbrush()
    found = model.imitator.state_dict()
    for name, value in narrow.model().imitator.state_dict().items():
        assert torch.equal(found[name], value.half().float()), name
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.long
def test_grown_from_the_bundled_pipelines(untrained_models):
    model = grow_mimicbrush(reading="released", seed=3)
    assert model.config.reading == "released"
    assert (model.config.base, model.config.depth) == ("tiny-t2i", "tiny-depth")
    assert model.imitator.unet.config.in_channels == 13
    assert model.imitator.adapters.empty.abs().max() > 0  # the empty prompt's states
    assert not model.imitator.unet.conv_in.weight[:, 9:].any()


def test_models_that_do_not_go_together_are_refused(untrained_models, tmp_path):
    import shutil

    for name in untrained_models.iterdir():
        shutil.copytree(name, tmp_path / name.name)
    adapters = tmp_path / "tiny-mimicbrush" / "adapters" / "config.json"
    adapters.write_text(adapters.read_text().replace(narrow.model().config.digest, "0123456789abcdef"))
    (tmp_path / "tiny-mimicbrush" / "checksums.json").unlink()
    with pytest.raises(check.NotAvailable, match="was trained with another tiny-t2i than the one here"):
        load_mimicbrush(tmp_path / "tiny-mimicbrush")
    with pytest.raises(check.NotAvailable, match="tiny-else"):
        grow_mimicbrush(inpaint="tiny-else")


# Released


def test_names_and_shapes_are_the_release_s():
    """The full networks, without memory, against the layout of the released file."""
    with torch.device("meta"):
        config = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8}
        unets = {name: UNet2DConditionModel(in_channels=n, **config) for name, n in (("unet", 13), ("referencenet", 4))}
        guide, projector = DepthMapper(), nn.Linear(1280, 768)
    ours = {name: {n: list(v.shape) for n, v in unet.state_dict().items()} for name, unet in unets.items()}
    assert names_after_reading(unets["referencenet"]) == set(LAYOUT["absent from referencenet"])
    assert ours.pop("referencenet").keys() == ours["unet"].keys()
    ours["depth_guider"] = {name: list(v.shape) for name, v in guide.state_dict().items()}
    ours["image_proj"] = {f"projector.{name}": list(v.shape) for name, v in projector.state_dict().items()}
    for part, shapes in ours.items():
        assert shapes == LAYOUT[part], part
    assert len(shared_layers(unets["unet"])) == 10


@pytest.mark.parametrize("with_unet", [True, False])
def test_a_released_file_is_read_and_fills(with_unet, tmp_path):
    state = released_state(with_unet)
    torch.save(state, tmp_path / "mimicbrush.bin")
    base = inpainting(9).unet if with_unet else models.make_denoiser(4, 13, widths=(16, 16, 32), text_width=32, seed=5)
    model = load_released(tmp_path / "mimicbrush.bin", base, **parts())
    found = model.imitator.reference.state_dict()
    for name, value in state["referencenet"].items():
        assert torch.equal(found[name], value)
    found, expected = model.imitator.unet.state_dict(), state["unet"] if with_unet else base.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    other = tower().state_dict() if not with_unet else state["image_encoder"]
    assert all(torch.equal(value, other[name]) for name, value in model.image_encoder.tower.state_dict().items())
    config = model.config
    assert (config.reading, config.reference_t, config.hole_value) == ("released", "same", -1.0)
    assert config.square
    assert config.zero_image
    photo, mask = wb.image.resize(noise(1, 3, 5, 7), (60, 90)), wb.mask.box((60, 90), (20, 10, 50, 40))
    steps = list(fill(photo, mask, reference=photo.flip(3), model=model, num_inference_steps=2))
    assert steps[-1].image.isfinite().all()
    assert steps[-1].arrays["masked_image"].shape == (1, 3, 128, 128)


def test_what_the_reference_network_lacks_changes_nothing(tmp_path):
    """The absent weights may be anything."""
    reader = models.make_denoiser(4, 4, widths=(16, 16, 32), text_width=32, seed=6)
    model = narrow.fresh("released", shared_tokens=True)
    latents, tokens = noise(1, 4, 8, 12), noise(1, 3, 32)
    model.reference = reader
    before = model.read(latents, 0, tokens)
    idle = names_after_reading(reader)
    assert {"conv_out.weight", "conv_norm_out.bias"} < idle
    with torch.no_grad():
        for name, value in reader.named_parameters():
            value.mul_(0 if name in idle else 1)
    after = model.read(latents, 0, tokens)
    assert all(torch.equal(after.tokens[name], before.tokens[name]) for name in before.tokens)


@pytest.mark.long
def test_files_that_are_refused(tmp_path):
    unet, file = inpainting(9).unet, tmp_path / "file.bin"
    with pytest.raises(check.NotAvailable, match="is not a file, expected the released checkpoint"):
        load_released(file, unet, **parts())
    file.write_bytes(b"no weights")
    with pytest.raises(check.NotAvailable, match="file.bin is not readable as weights"):
        load_released(file, unet, **parts())
    file.write_bytes(pickle.dumps({"image_proj": Harmful()}, protocol=2))
    with pytest.raises(check.NotAvailable, match="cannot be read as weights without executing something"):
        load_released(file, unet, **parts())
    assert not (Path("/tmp") / Harmful.trace).exists()
    state = released_state()
    torch.save({"unet": state["unet"]}, file)
    with pytest.raises(ValueError, match="holds unet, expected image_proj, .*: no image_proj"):
        load_released(file, unet, **parts())
    torch.save(released_state(with_unet=False), file)
    with pytest.raises(ValueError, match="holds no unet, and the one given takes 9 channels, not 13"):
        load_released(file, unet, **parts())
    lacking = {**state, "referencenet": {n: v for n, v in state["referencenet"].items() if n != "conv_in.weight"}}
    torch.save(lacking, file)
    with pytest.raises(ValueError, match="referencenet lacks 1 of .*conv_in.weight"):
        load_released(file, unet, **parts())
    state["depth_guider"]["conv_out.bias"] = torch.zeros(3)
    torch.save(state, file)
    with pytest.raises(ValueError, match="depth_guider: conv_out.bias has shape .3,., expected .4,."):
        load_released(file, unet, **parts())
    state = released_state()
    torch.save(state, file)
    with pytest.raises(ValueError, match="image_encoder: .*class_embedding has shape .12,., expected .8,."):
        load_released(file, unet, **parts(width=8))
    del state["image_encoder"]
    torch.save(state, file)
    with pytest.raises(ValueError, match="the image encoder's states have 8 channels, expected 12"):
        load_released(file, unet, **parts(width=8))


class Harmful:
    """Would leave a file if it were executed."""

    trace = "mimicbrush-was-executed"

    def __reduce__(self):
        return Path.touch, (Path("/tmp") / self.trace,)


# At the door


def test_depth_pixels_are_the_release_s():
    """ImageNet's statistics on a picture of 0 to 255, and divided by 255 only then."""
    pixels = torch.tensor([0.0, 0.2, 1.0]).view(1, 3, 1, 1)
    expected = [((255 * x - m) / s) / 255 for x, m, s in
                zip((0.0, 0.2, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]  # fmt: skip
    assert ReleasedDepth.shown(pixels).flatten().tolist() == pytest.approx(expected)
    depth = ReleasedDepth(NarrowDepth(), side=28)(noise(2, 3, 30, 40))
    assert depth.shape == (2, 1, 30, 40)


def test_clip_states_are_those_before_the_last_layer():
    encoder = ClipStates(tower())
    picture = noise(2, 3, 20, 33)
    states = encoder(picture)
    assert states.shape == (2, 5, 12)
    pixels = normalised(wb.image.resize(picture, (28, 28)), CLIP_MEAN, (0.26862954, 0.26130258, 0.27577711))
    with torch.no_grad():
        expected = encoder.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(states, expected)
    mean = torch.tensor(CLIP_MEAN).view(1, 3, 1, 1).expand(1, 3, 28, 28)
    torch.testing.assert_close(encoder.nothing(3), encoder(mean).expand(3, -1, -1), atol=1e-5, rtol=1e-4)
    assert encoder.width == 12
