"""The networks' shapes and sizes, and growing from 4 to 9 input channels."""

import pytest
import torch

from workbench.diffusion import models
from workbench.diffusion.classifier import make_classifier
from workbench.diffusion.depth import make_depth
from workbench.diffusion.libraries import UNet2DConditionModel
from workbench.world.views import LABELS


def test_all_models_stay_within_their_budget(tokenizer):
    """All weights of the project together may take 45 MiB; these, with the shared parts twice, leave 10 for methods."""
    text = models.mebibytes(models.make_text_encoder(tokenizer))
    classifier, depth = models.mebibytes(make_classifier(LABELS)), models.mebibytes(make_depth())
    assert text < 1.5
    for factor in (4, 8):
        vae = models.mebibytes(models.make_autoencoder(factor))
        unet = models.mebibytes(models.make_denoiser(factor, 9))
        assert vae < 5
        assert unet < 9.2
        assert 2 * (vae + text + unet) + classifier + depth < 35


@pytest.mark.parametrize("factor", [4, 8])
def test_shapes(factor):
    vae = models.make_autoencoder(factor)
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 32, 64)).latent_dist.mean
        assert latents.shape == (1, 4, 32 // factor, 64 // factor)
        assert vae.decode(latents).sample.shape == (1, 3, 32, 64)
    unet = models.make_denoiser(factor)
    assert unet.config.sample_size * factor == 128
    attending = [type(block).__name__.startswith("CrossAttn") for block in unet.down_blocks]
    assert attending[-2:] == [True, True]
    assert not any(attending[:-2])


def test_grown_input_leaves_the_output_as_it_was(narrow):
    unet = narrow["unet"].eval()
    grown = models.grow_input(unet).eval()
    noisy, extra, states = torch.randn(2, 4, 16, 16), torch.rand(2, 5, 16, 16), torch.randn(2, 5, 16)
    with torch.no_grad():
        before = unet(noisy, 500, states).sample
        for given in (torch.zeros_like(extra), extra):
            after = grown(torch.cat([noisy, given], 1), 500, states).sample
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    assert unet.config.in_channels == 4
    assert grown.conv_in.weight[:, 4:].abs().max() == 0
    unet.conv_in.weight.data.add_(1)
    assert not torch.equal(grown.conv_in.weight[:, :4], unet.conv_in.weight)  # a copy


def test_grown_input_keeps_the_type_and_draws_nothing(narrow, monkeypatch):
    """At full size a second network in float32, drawn to be thrown away, takes 3.4 GB."""
    unet = narrow["unet"].to(torch.bfloat16)
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda w, *args, **kwargs: w if w.is_meta else 1 / 0)
    grown = models.grow_input(unet, 13)
    assert {p.dtype for p in grown.parameters()} == {torch.bfloat16}
    assert {p.device.type for p in grown.parameters()} == {"cpu"}
    assert all(p.requires_grad for p in grown.parameters())
    assert grown.conv_in.weight.shape[1] == 13
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "mid_block_type": None}
    with torch.device("meta"):
        plain = UNet2DConditionModel(**sizes, **blocks)  # of four channels without saying so
    assert models.grow_input(plain).conv_in.weight.shape[1] == 9


def test_dropped_input_gives_what_the_whole_gives_for_what_was_held(narrow):
    whole = models.grow_input(narrow["unet"]).eval()
    torch.nn.init.normal_(whole.conv_in.weight, std=0.1)
    whole.register_to_config(_masked_image="smooth")
    held = torch.tensor([1.0, 0.5, -0.3, 0.2, 0.8])
    dropped = models.drop_input(whole, held)
    noisy = torch.randn(2, 4, 16, 16)
    given = torch.cat([noisy, held.view(1, 5, 1, 1).expand(2, 5, 16, 16)], 1)
    with torch.no_grad():
        expected, found = whole.conv_in(given), dropped.conv_in(noisy)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-5, atol=1e-5)
    assert dropped.config.in_channels == 4
    assert "_masked_image" not in dropped.config
    for name, value in dropped.state_dict().items():
        if not name.startswith("conv_in"):
            assert torch.equal(value, whole.state_dict()[name])
            assert value.data_ptr() != whole.state_dict()[name].data_ptr()  # a copy
    for wrong in (torch.zeros(9), torch.zeros(0), torch.zeros(1, 5)):
        with pytest.raises(ValueError, match="for 9 input channels, expected"):
            models.drop_input(whole, wrong)


def test_weights_come_from_their_seed_and_the_global_generator_is_left_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a, b, c = (models.make_autoencoder(8, (8, 8, 8, 8), seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_schedules_are_stable_diffusions():
    ddpm, ddim = models.make_scheduler(training=True), models.make_scheduler()
    assert torch.equal(ddpm.alphas_cumprod, ddim.alphas_cumprod)
    assert ddpm.config.prediction_type == "epsilon"
    assert ddpm.alphas_cumprod[-1].item() == pytest.approx(0.00466, abs=1e-5)  # Stable Diffusion 1's last
    first = {}
    for spacing in ("leading", "trailing"):
        scheduler = models.make_scheduler(spacing=spacing)
        scheduler.set_timesteps(20)
        first[spacing] = scheduler.timesteps[0].item()
    assert first == {"leading": 951, "trailing": 999}
    with pytest.raises(ValueError, match="spacing is 'linspace', expected one of: leading, trailing"):
        models.make_scheduler(spacing="linspace")


def test_wrong_factors_and_widths_are_told():
    with pytest.raises(ValueError, match="factor is 6, expected 4 or 8"):
        models.make_autoencoder(6)
    with pytest.raises(ValueError, match="one number for each halving"):
        models.make_autoencoder(8, (8, 8, 8))
