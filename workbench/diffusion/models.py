"""Builds the networks from a few numbers: autoencoder, text encoder, denoiser, schedulers, patch discriminator.

All are the published classes, only narrow. Weights are drawn from a local seed; the global generator is left alone.
"""

import itertools
from contextlib import contextmanager

import torch
from torch import nn

from workbench import check
from workbench.diffusion.libraries import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextModel,
    DDIMScheduler,
    DDPMScheduler,
    UNet2DConditionModel,
)

SIZE = 128
"""Pixels of a side that the bundled models are trained at."""
LATENT_CHANNELS = 4
TEXT_WIDTH = 128
AUTOENCODER_WIDTHS = {8: (16, 32, 64, 112), 4: (16, 32, 96)}
"""Factor -> channels of each level."""
DENOISER_WIDTHS = {8: (48, 80, 120), 4: (32, 64, 128)}
"""Factor of the autoencoder -> channels of each level."""


@contextmanager
def seeded(seed: int):
    """Inside, fresh weights depend on ``seed`` only; the global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(check.seed(seed))
        yield


def make_autoencoder(factor: int = 8, widths: tuple[int, ...] | None = None, seed: int = 0) -> AutoencoderKL:
    """A variational autoencoder: (B, 3, H, W) in [-1, 1] <-> latents (B, 4, H / factor, W / factor).

    Args:
        factor: pixels a latent cell covers along each side: 4 or 8.
        widths: channels of each level, multiples of 8, finest first; None takes `AUTOENCODER_WIDTHS`.
        seed: of the weights.

    Raises:
        ValueError: a factor other than 4 and 8, or widths for another number of levels.

    Source: Rombach et al., CVPR 2022, section 3.1; KL-regularised, no quantisation.

    Example:
        >>> make_autoencoder(8).encode(torch.zeros(1, 3, 128, 128)).latent_dist.mean.shape
        torch.Size([1, 4, 16, 16])
    """
    if factor not in AUTOENCODER_WIDTHS:
        raise ValueError(f"factor is {factor!r}, expected 4 or 8: pixels per latent cell and side.")
    widths = tuple(widths or AUTOENCODER_WIDTHS[factor])
    if 2 ** (len(widths) - 1) != factor:
        raise ValueError(f"widths is {widths} for factor {factor}, expected one number for each halving and one more.")
    with seeded(seed):
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=8,
            sample_size=SIZE,
        )


def make_text_encoder(tokenizer, width: int = TEXT_WIDTH, layers: int = 3, seed: int = 0) -> CLIPTextModel:
    """CLIP's text transformer for a tokenizer: ids (B, L) -> states (B, L, width)."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=width,
    )
    with seeded(seed):
        return CLIPTextModel(config)


def make_denoiser(
    factor: int = 8,
    in_channels: int = LATENT_CHANNELS,
    widths: tuple[int, ...] | None = None,
    text_width: int = TEXT_WIDTH,
    seed: int = 0,
) -> UNet2DConditionModel:
    """Stable Diffusion's U-Net, with attention at the two coarsest levels.

    Args:
        factor: of the autoencoder whose latents it denoises; sets the latent size for 128 px.
        in_channels: 4, or 9 for inpainting (latents, mask, masked picture's latents).
        widths: channels of each level, multiples of 16 where 16 groups are normed; None takes `DENOISER_WIDTHS`.
        text_width: channels of the text states.
        seed: of the weights.

    Example:
        >>> make_denoiser()(torch.zeros(1, 4, 16, 16), 500, torch.zeros(1, 48, 128)).sample.shape
        torch.Size([1, 4, 16, 16])
    """
    widths = tuple(widths or DENOISER_WIDTHS[factor])
    plain = len(widths) - 2
    with seeded(seed):
        return UNet2DConditionModel(
            sample_size=SIZE // factor,
            in_channels=in_channels,
            out_channels=LATENT_CHANNELS,
            block_out_channels=widths,
            down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * plain,
            layers_per_block=1,
            cross_attention_dim=text_width,
            attention_head_dim=4,  # diffusers' name notwithstanding, the number of heads
            norm_num_groups=8,
        )


def config_of(unet: UNet2DConditionModel) -> dict:
    """The configuration of a U-Net, to build another of with changes.

    Without diffusers' list of what is as by default: `from_config` would pass over changes of what the list names.
    """
    return {name: value for name, value in unet.config.items() if name != "_use_default_values"}


def grow_input(unet: UNet2DConditionModel, in_channels: int = 9) -> UNet2DConditionModel:
    """A copy of a U-Net with more input channels, whose new weights are zero.

    Fresh from here the copy gives what the original gives, whatever the new channels hold.

    Args:
        unet: the model to grow, left as it is.
        in_channels: how many the copy takes, at least as many as before.

    Source: Stable Diffusion's inpainting model: "5 additional input channels ... zero-initialized".

    Example:
        >>> grow_input(make_denoiser()).config.in_channels
        9
    """
    before = unet.config.in_channels
    check.integer(in_channels, "in_channels", before)
    with torch.device("meta"):  # no weights of its own: at full size they would take 3.4 GB and be drawn for nothing
        grown = UNet2DConditionModel.from_config(config_of(unet) | {"in_channels": in_channels})
    weights = {name: value.clone() for name, value in unet.state_dict().items()}
    first = weights["conv_in.weight"]  # (C, before, 3, 3)
    new = first.new_zeros(first.shape[0], in_channels - before, *first.shape[2:])
    weights["conv_in.weight"] = torch.cat([first, new], 1)  # (C, in_channels, 3, 3)
    grown.load_state_dict(weights, assign=True)
    return grown


def drop_input(unet: UNet2DConditionModel, held: torch.Tensor) -> UNet2DConditionModel:
    """A copy of a U-Net without its last input channels, which gives what the original gives where they hold ``held``.

    The other way round than `grow_input`: an inpainting model told that everything is hidden paints from text alone.
    Exact but along the frame, where the original's convolution also sees the zeros around the picture.

    Args:
        unet: the model, left as it is.
        held: (K,), what each of the last K channels holds everywhere.

    Raises:
        ValueError: held is no vector, or leaves no channel.

    Example:
        >>> drop_input(grow_input(make_denoiser()), torch.zeros(5)).config.in_channels
        4
    """
    before = unet.config.in_channels
    if held.dim() != 1 or not 0 < len(held) < before:
        raise ValueError(f"held is {tuple(held.shape)} for {before} input channels, expected (K,), 0 < K < {before}.")
    kept = before - len(held)
    config = {name: value for name, value in config_of(unet).items() if name != "_masked_image"}
    with torch.device("meta"):
        dropped = UNet2DConditionModel.from_config(config | {"in_channels": kept})
    weights = {name: value.clone() for name, value in unet.state_dict().items()}
    first = weights["conv_in.weight"]  # (C, before, 3, 3)
    weights["conv_in.weight"] = first[:, :kept].clone()
    weights["conv_in.bias"] += first[:, kept:].sum((2, 3)) @ held.to(first)  # (C,)
    dropped.load_state_dict(weights, assign=True)
    return dropped


PREDICTIONS = ("epsilon", "v_prediction")
"""What a denoiser may say, by diffusers' names."""
_BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def make_scheduler(
    training: bool = False, prediction: str = "epsilon", spacing: str = "leading"
) -> DDPMScheduler | DDIMScheduler:
    """Stable Diffusion's noise schedule: DDPM to train with, DDIM to sample with.

    Args:
        training: which of the two.
        prediction: what the denoiser says, one of `PREDICTIONS`: the noise eps, or v = a eps - s x0 with a^2 = abar and
            s^2 = 1 - abar (Salimans and Ho, ICLR 2022).
        spacing: where DDIM begins: "leading" as Stable Diffusion does, with few steps well below the last level (at 951
            with 20 steps); "trailing" at the last level itself, 999 (Lin et al., WACV 2024).
    """
    told = {**_BETAS, "clip_sample": False, "prediction_type": check.choice(prediction, "prediction", PREDICTIONS)}
    if training:
        return DDPMScheduler(**told)
    check.choice(spacing, "spacing", ("leading", "trailing"))
    return DDIMScheduler(**told, set_alpha_to_one=False, steps_offset=1, timestep_spacing=spacing)


class Discriminator(nn.Module):
    """A patch discriminator: (B, 3, H, W) -> scores (B, 1, H / 8, W / 8), high = looks real.

    Source: Isola et al., CVPR 2017 (PatchGAN); differs in group instead of batch normalisation, and is shallower.
    """

    def __init__(self, width: int = 32, seed: int = 0):
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        layers = []
        with seeded(seed):
            for inner, outer in itertools.pairwise(widths):
                layers += [nn.Conv2d(inner, outer, 4, 2, 1), nn.GroupNorm(8, outer), nn.LeakyReLU(0.2)]
            self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of the patches of a picture in [-1, 1]."""
        return self.layers(image)


def computes_bf16(device_type: str) -> bool:
    """Whether bf16 is worth it there: a processor without it emulates it, twenty times slower than float32."""
    return device_type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def parameters(model: nn.Module) -> int:
    """How many numbers a model holds."""
    return sum(p.numel() for p in model.parameters())


def mebibytes(model: nn.Module) -> float:
    """What a model's weights take as fp16, in MiB."""
    return 2 * parameters(model) / 2**20
