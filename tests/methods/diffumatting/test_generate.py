"""From a prompt or a picture to a matte; what is made of it; other pipelines and LoRAs; the factory."""

import dataclasses
import json
import sys

import pytest
import torch

import workbench as wb
from workbench.diffusion.lora import add_lora, lora_layers, save_lora
from workbench.diffusion.models import seeded
from workbench.methods.diffumatting import (
    FolderMattes,
    SpriteMattes,
    captions,
    factory,
    generate,
    make_dataset,
    matte,
    on_canvas,
)
from workbench.methods.diffumatting.generate import Matted
from workbench.methods.diffumatting.loading import DiffuMatting

CALL = {"num_inference_steps": 2, "height": 32, "width": 48}


@pytest.fixture
def matted():
    """A white thing, half transparent on its right half, made by hand."""
    alpha = torch.zeros(1, 1, 8, 12)
    alpha[..., 2:6, 2:6], alpha[..., 2:6, 6:10] = 1, 0.5
    green = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 12)
    white = torch.ones(1, 3, 8, 12)
    return Matted(white * alpha + green * (1 - alpha), alpha, alpha, white, (0.0, 1.0, 0.0), green, "a ball", 0)


def test_generating(model):
    made = generate("a photo of a ball", 3, model=model, **CALL)
    assert made.prompt == "a photo of a ball on a green background"
    assert made.image.shape == made.foreground.shape == made.plate.shape == (1, 3, 32, 48)
    assert made.alpha.shape == made.coarse_alpha.shape == (1, 1, 32, 48)
    again, other = (generate("a photo of a ball", seed, model=model, **CALL) for seed in (3, 4))
    assert torch.equal(made.image, again.image)
    assert torch.equal(made.alpha, again.alpha)
    assert not torch.equal(made.image, other.image)
    plain = model.pipe(
        made.prompt, guidance_scale=3.0, generator=torch.Generator().manual_seed(3), output_type="pt", **CALL
    ).images
    torch.testing.assert_close(made.image, plain)  # the pipeline's own picture
    coarse = generate("a photo of a ball", 3, model=dataclasses.replace(model, refiner=None), **CALL)
    assert torch.equal(coarse.alpha, made.coarse_alpha)


@pytest.mark.long
def test_a_style_loaded_on_top_changes_the_picture(model, tmp_path):
    import copy

    styled = copy.deepcopy(model.pipe)
    add_lora(styled.unet, rank=2)
    with torch.no_grad():
        for layer in lora_layers(styled.unet).values():
            layer.lora_B["default"].weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    save_lora(styled, tmp_path / "style.safetensors")
    plain = generate("a ball", 0, model=model, **CALL)
    model.pipe.load_lora_weights(tmp_path, weight_name="style.safetensors", adapter_name="style")
    changed = generate("a ball", 0, model=model, **CALL)
    assert not torch.allclose(plain.image, changed.image, atol=1e-3)
    model.pipe.unload_lora_weights()
    assert torch.equal(generate("a ball", 0, model=model, **CALL).image, plain.image)


def test_a_controlnet_without_any_retraining(model):
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    with seeded(0):
        control = ControlNetModel.from_unet(model.pipe.unet, conditioning_embedding_out_channels=(8, 8, 16)).eval()
        zeros = (control.controlnet_down_blocks, control.controlnet_cond_embedding.conv_out)
        for p in (p for module in zeros for p in module.parameters()):  # they begin at zero, and would change nothing
            torch.nn.init.normal_(p, 0, 0.3)
    pipe = StableDiffusionControlNetPipeline(**model.pipe.components, controlnet=control, requires_safety_checker=False)
    controlled = dataclasses.replace(model, pipe=pipe)
    a, b = (generate("a ball", 0, model=controlled, image=torch.full((1, 3, 32, 48), v), **CALL) for v in (0.0, 1.0))
    assert a.alpha.shape == (1, 1, 32, 48)
    assert not torch.equal(a.image, b.image)


def test_mattes_of_pictures_of_any_size(model):
    image = torch.rand(1, 3, 41, 30, generator=torch.Generator().manual_seed(0))
    made = matte(image, model=model)
    assert made.alpha.shape == made.coarse_alpha.shape == (1, 1, 41, 30)
    assert torch.equal(made.image, image)
    assert made.prompt == ""
    with pytest.raises(ValueError, match="image holds 2 pictures"):
        matte(image.repeat(2, 1, 1, 1), model=model)


def test_composites_at_the_backgrounds_resolution(matted):
    background = torch.rand(1, 3, 50, 40, generator=torch.Generator().manual_seed(0))
    out = matted.composite(background)
    assert out.shape == background.shape
    # 8 x 12 fits as 27 x 40, rows 11 to 38: above and below nothing changes by a bit
    assert torch.equal(out[..., :11, :], background[..., :11, :])
    assert torch.equal(out[..., 38:, :], background[..., 38:, :])
    assert (out[..., 24, 13] == 1).all()  # solid white
    assert not torch.equal(out[..., 24, 27], background[..., 24, 27])
    same = matted.composite(torch.zeros(1, 3, 8, 12))
    assert torch.equal(same, matted.alpha.expand(1, 3, 8, 12))
    assert torch.equal(matted.composite((0.0, 0.0, 0.0)), same)
    placed = matted.composite(background, box=(-6, 4, 6, 12))  # its own size, half of it outside
    assert torch.equal(placed[..., 12:, :], background[..., 12:, :])
    expected = background[..., 4:12, :6] * (1 - matted.alpha[..., 6:]) + matted.alpha[..., 6:]
    torch.testing.assert_close(placed[..., 4:12, :6], expected)
    assert torch.equal(matted.composite(background, box=(100, 100, 112, 108)), background)
    with pytest.raises(ValueError, match="background holds 2 pictures"):
        matted.composite(background.repeat(2, 1, 1, 1))
    with pytest.raises(ValueError, match="background has values from"):
        matted.composite(background * 3)


def test_editing_by_a_trimap(matted, monkeypatch):
    trimap = matted.trimap(radius=1)
    assert set(trimap.unique().tolist()) <= {0.0, 0.5, 1.0}
    trimap[..., 2:6, 6:10] = 1
    edited = matted.edited(trimap)
    assert (edited.alpha[..., 2:6, 6:10] == 1).all()
    assert torch.equal(edited.foreground, matted.foreground)
    assert matted.alpha[0, 0, 3, 7] == 0.5  # the old one is as it was
    missed = dataclasses.replace(matted, alpha=matted.alpha.clone(), image=torch.full_like(matted.image, 0.25))
    missed.alpha[..., 2:6, 6:10] = 0.02  # overlooked: what stands there as colour is no one's
    mended = missed.edited(trimap)
    assert (mended.foreground[..., 2:6, 6:10] == 0.25).all()
    assert (mended.composite((0.0, 0.0, 0.0))[..., 2:6, 6:10] == 0.25).all()
    assert torch.equal(mended.foreground[..., 6:, :], missed.foreground[..., 6:, :])
    monkeypatch.setitem(sys.modules, "pymatting", None)
    with pytest.raises(wb.check.NotAvailable, match="pymatting"):
        matted.edited(trimap, solve=True)


def test_refusals(model, untrained_models):
    with pytest.raises(wb.check.NotAvailable, match="tiny-diffumatting"):
        generate("a ball")
    with pytest.raises(TypeError, match="prompt|caption is a int"):
        generate(3, model=model)
    with pytest.raises(TypeError, match="generate takes no output_type"):
        generate("a ball", model=model, output_type="pt")
    for wrong in ({"num_steps": 50}, {"num_images_per_prompt": 2}, {"return_dict": False}):
        with pytest.raises(TypeError, match=f"generate takes no {next(iter(wrong))}, expected some of"):
            generate("a ball", model=model, **wrong)
    with pytest.raises(ValueError, match="seed is -1"):
        generate("a ball", -1, model=model)
    with pytest.raises(ValueError, match="the head takes 9 channels"):
        DiffuMatting(model.pipe, type(model.head)(9, 4))
    assert wb.methods.diffumatting.generate is generate
    assert "diffumatting" not in wb.list_methods()


def test_on_a_canvas(model):
    canvas = torch.full((1, 4, 8, 8), 3.0)
    given = dataclasses.replace(model, canvas=canvas)
    made, plain = (generate("a photo of a ball", 3, model=m, **CALL) for m in (given, model))
    assert not torch.equal(made.image, plain.image)
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(3))
    latents = on_canvas(noise, canvas, model.pipe.scheduler)
    assert torch.equal(generate("a photo of a ball", 3, model=model, latents=latents, **CALL).image, made.image)
    assert torch.equal(generate("a photo of a ball", 3, model=given, latents=noise, **CALL).image, plain.image)
    own = generate("a photo of a ball", 3, model=given, num_inference_steps=1)  # of the pipeline's own size
    assert own.image.shape == (1, 3, 32, 32)


def test_the_factory(model, tmp_path):
    prompts = ["a photo of a ball", "a photo of a cube"]
    folder = make_dataset(2, tmp_path / "made", prompts, seed=5, model=model, **CALL)
    told = json.loads((folder / "manifest.json").read_text())
    assert told["things"]["00001"]["prompt"] == prompts[1]
    assert told["things"]["00001"]["seed"] == 6
    made = generate(prompts[1], 6, model=model, **CALL)
    assert told["things"]["00001"]["covers"] == pytest.approx(made.alpha.mean().item(), abs=1e-3)
    before = (folder / "image" / "00000.png").stat().st_mtime_ns
    make_dataset(3, folder, prompts, seed=5, model=model, **CALL)  # goes on
    assert (folder / "image" / "00000.png").stat().st_mtime_ns == before
    mattes = FolderMattes(folder, "foregrounds", captions(folder))
    assert len(mattes) == 3
    assert mattes[1].caption == prompts[1]
    assert (mattes[1].alpha - made.alpha).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="was begun with other seed"):
        make_dataset(3, folder, prompts, seed=6, model=model, **CALL)
    with torch.no_grad():
        next(model.head.parameters()).add_(0.5)
    with pytest.raises(ValueError, match="was begun with other model"):
        make_dataset(3, folder, prompts, seed=5, model=model, **CALL)
    with pytest.raises(ValueError, match="prompts is 'a ball', expected a list"):
        make_dataset(1, tmp_path / "no", "a ball", model=model)
    with pytest.raises(FileNotFoundError, match=r"manifest.json is not there"):
        captions(tmp_path)


def test_the_factory_from_a_shell(model, sprites, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules[generate.__module__], "bundled_model", lambda: model)
    out = ["--out", str(tmp_path / "made"), "--seed", "7"]
    factory.main([*out, "--count", "2", "--like", str(sprites)])
    factory.main([*out, "--count", "3", "--like", str(sprites)])  # goes on
    told = captions(tmp_path / "made")
    assert list(told.values()) == [SpriteMattes([sprites])[k].caption for k in range(3)]
    with pytest.raises(SystemExit, match="ValueError: .* was begun with other prompts"):
        factory.main([*out, "--prompts", "a ball"])
    with pytest.raises(SystemExit, match="FileNotFoundError: "):
        factory.main([*out, "--like", str(tmp_path)])
    with pytest.raises(SystemExit):
        factory.main(out)
    assert "one of the arguments --prompts --like is required" in capsys.readouterr().err
