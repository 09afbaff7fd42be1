"""MimicBrush's networks: two U-Nets, and between them what is trained anew: projections and the depth mapper.

The imitative U-Net takes 13 channels: 4 of noise, 1 of mask, 4 of background (the masked source), 4 of depth.

The paper trains both U-Nets. Unless told otherwise the reference U-Net here stays tiny-t2i as it is, which is here
anyway, and what it must learn to say is said by K_r and V_r, which do learn. So reading costs no memory for gradients,
and one pass serves all steps. Of the imitative U-Net that part learns which reads and paints what was read,
see `LEARNT`; the rest stays tiny-inpaint's, so that two fifths of the weights need storing.
`Imitator.trains("all", reference=True)` trains all.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from workbench import check
from workbench.diffusion.libraries import ConfigMixin, ModelMixin, UNet2DConditionModel, register_to_config
from workbench.diffusion.models import LATENT_CHANNELS, grow_input, seeded
from workbench.methods.mimicbrush.attention import (
    READINGS,
    Bank,
    imitating,
    listening,
    names_after_reading,
    shared_layers,
)

_FINER = tuple(f"up_blocks.{k}." for k in (1, 2, 3))
LEARNT = {
    "reading": ("conv_in.", "mid_block.attentions.", "up_blocks.0.attentions.", *_FINER, "conv_norm_out.", "conv_out."),
    "all": ("",),
}
"""What of the imitative U-Net may learn -> what its weights' names begin with. "reading": new channels, attention where
the reference is read, and all that makes a picture of it after the coarsest block of the way up."""
CHANNELS = {"noise": 4, "mask": 1, "background": 4, "depth": 4}
"""What the imitative U-Net is given, in this order."""
DEPTH_WIDTHS = (16, 32, 64, 128)
"""Channels of the released depth mapper, at the picture's size, half of it and so on."""


class DepthMapper(nn.Module):
    """Depth map (B, C, H, W) -> depth latents (B, 4, H / f, W / f), f = 2^(len(widths) - 1).

    Args:
        widths: channels at each size, the picture's own first.
        channels: of the map; the release has 1, the paper says 3.

    Source: Chen et al., 2024, "a trainable projector", and the released code, whose weights fit by name. Its last layer
        is not zero at the start, as such layers often are: the U-Net's new channels are, and of two factors that are
        both zero neither ever learns. Weights begin twice as large as usual, since SiLU halves what is small: with
        PyTorch's own sizes a map comes out with a thousandth of its contrast, and training hardly hears it.
    """

    def __init__(self, widths: Sequence[int] = DEPTH_WIDTHS, channels: int = 1):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in itertools.pairwise(widths):
            self.blocks += [nn.Conv2d(narrow, narrow, 3, padding=1), nn.Conv2d(narrow, wide, 3, 2, 1)]
        self.conv_out = nn.Conv2d(widths[-1], CHANNELS["depth"], 3, padding=1)
        for conv in (self.conv_in, *self.blocks, self.conv_out):
            nn.init.normal_(conv.weight, std=2 / conv.weight[0].numel() ** 0.5)
            nn.init.zeros_(conv.bias)

    def forward(self, depth: torch.Tensor) -> torch.Tensor:
        """Depth latents."""
        x = nn.functional.silu(self.conv_in(depth))
        for block in self.blocks:
            x = nn.functional.silu(block(x))
        return self.conv_out(x)


class Adapters(ModelMixin, ConfigMixin):
    """All that is trained beside the imitative U-Net, and how the two U-Nets are joined.

    Args:
        image_width: channels of the image encoder's states.
        text_width: channels that the U-Nets expect of a text.
        reading: of the shared attention, see `attention`.
        reference_widths: channels of each shared layer, which gets K_r and V_r projections (the paper's reading).
        depth_widths: of `DepthMapper`.
        empty_length: tokens of the empty prompt, which the reference U-Net then sees; 0: it sees the image tokens.
        reference_t: "zero" reads the reference once, as a clean picture; "same" anew in each step, at its timestep.
        hole_value: of the masked source in [-1, 1]: 0 grey, -1 black.
        square: pads pictures with white to a square.
        zero_image: without depth the estimator sees black; else the mapper sees a map of zeros.
        base, image_encoder, depth: names of the models it was grown from and goes with.
        digest: of the base's reference U-Net and autoencoder.
        inpaint, inpaint_digest: the same of the inpainting model, of which the imitative U-Net keeps what did not
            learn.
    """

    @register_to_config
    def __init__(
        self,
        image_width: int,
        text_width: int,
        reading: str = "paper",
        reference_widths: tuple[int, ...] = (),
        depth_widths: tuple[int, ...] = DEPTH_WIDTHS,
        empty_length: int = 0,
        reference_t: str = "zero",
        hole_value: float = 0.0,
        square: bool = False,
        zero_image: bool = False,
        base: str = "tiny-t2i",
        image_encoder: str = "tiny-classifier",
        depth: str = "tiny-depth",
        digest: str = "",
        inpaint: str = "tiny-inpaint",
        inpaint_digest: str = "",
    ):
        super().__init__()
        check.choice(reading, "reading", READINGS)
        check.choice(reference_t, "reference_t", ("zero", "same"))
        self.projector = nn.Linear(image_width, text_width)
        self.depth_mapper = DepthMapper(depth_widths)
        self.reference_k = nn.ModuleList(nn.Linear(n, n, bias=False) for n in reference_widths)
        self.reference_v = nn.ModuleList(nn.Linear(n, n, bias=False) for n in reference_widths)
        if empty_length:
            self.register_buffer("empty", torch.zeros(1, empty_length, text_width))
        else:
            self.empty = None

    @property
    def projections(self) -> list[tuple[nn.Module, nn.Module]] | None:
        """(to_k, to_v) of the reference's layers; None where the picture's own serve both."""
        return list(zip(self.reference_k, self.reference_v, strict=True)) or None


class Imitator(nn.Module):
    """The two U-Nets with their adapters: predicts the noise, given source, depth and reference.

    Args:
        unet: the imitative U-Net, 13 input channels.
        reference: the reference U-Net, 4 input channels.
        adapters: see there.

    Raises:
        ValueError: other channels, or U-Nets whose layers do not go together.
    """

    def __init__(self, unet: UNet2DConditionModel, reference: UNet2DConditionModel, adapters: Adapters):
        super().__init__()
        wanted = sum(CHANNELS.values())
        for name, network, channels in (("unet", unet, wanted), ("reference", reference, LATENT_CHANNELS)):
            if network.config.in_channels != channels:
                raise ValueError(f"{name} takes {network.config.in_channels} channels, expected {channels}.")
        widths = [[layer.to_q.in_features for layer in shared_layers(u).values()] for u in (unet, reference)]
        if widths[0] != widths[1]:
            raise ValueError(f"the U-Nets' shared layers have the widths {widths[0]} and {widths[1]}, expected equal.")
        self.unet, self.reference, self.adapters = unet, reference, adapters

    @property
    def config(self):
        """Of the adapters."""
        return self.adapters.config

    def trains(self, part: str = "reading", reference: bool = False) -> "Imitator":
        """Sets what learns: adapters, a part of the imitative U-Net, and if told the reference U-Net, as far as read.

        Args:
            part: a key of `LEARNT`.
            reference: whether that learns too.
        """
        known = LEARNT[check.choice(part, "part", LEARNT)]
        for name, parameter in self.unet.named_parameters():
            parameter.requires_grad_(name.startswith(known))
        self.adapters.requires_grad_(True)
        idle = names_after_reading(self.reference)
        for name, parameter in self.reference.named_parameters():
            parameter.requires_grad_(reference and name not in idle)
        return self

    def tokens(self, states: torch.Tensor) -> torch.Tensor:
        """The image encoder's states (B, n, image_width) -> tokens in place of a text's, (B, n, text_width)."""
        return self.adapters.projector(states.to(self.adapters.dtype))

    def depth_latents(self, depth: torch.Tensor) -> torch.Tensor:
        """Depth map (B, 1, H, W) -> (B, 4, h, w)."""
        return self.adapters.depth_mapper(depth.to(self.adapters.dtype))

    def read(self, latents: torch.Tensor, t=0, tokens: torch.Tensor | None = None) -> Bank:
        """Reads references: what the shared layers of the reference U-Net get.

        Args:
            latents: (B, 4, h, w), clean: no noise is added.
            t: timestep; counts only where ``reference_t`` is "same".
            tokens: (B, n, text_width) of the reference; only where there is no empty prompt.

        Raises:
            ValueError: tokens are missing.
        """
        states = self.adapters.empty
        if states is None:
            if tokens is None:
                raise ValueError("tokens is None, expected the reference's: this model's reference U-Net sees them.")
            states = tokens
        latents = latents.to(self.reference.dtype)
        states = states.expand(len(latents), -1, -1).to(latents.dtype)
        t = 0 if self.config.reference_t == "zero" else t
        learns = any(p.requires_grad for p in self.reference.parameters())
        with (
            torch.set_grad_enabled(learns and torch.is_grad_enabled()),
            listening(self.reference, latents.shape[-2:]) as bank,
        ):
            self.reference(latents, t, states)
        return bank

    def forward(
        self,
        latents: torch.Tensor,
        t,
        mask: torch.Tensor,
        background: torch.Tensor,
        depth: torch.Tensor,
        tokens: torch.Tensor,
        bank: Bank | None = None,
        present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The predicted noise (B, 4, h, w).

        Args:
            latents: noisy, (B, 4, h, w).
            t: timestep, a number or (B,).
            mask: (B, 1, h, w), 1 = hole.
            background: latents of the masked source, (B, 4, h, w).
            depth: depth latents, (B, 4, h, w).
            tokens: (B, n, text_width).
            bank: of `read`; None: the picture looks at itself only.
            present: (B,), 0 where the reference is dropped.
        """
        given = torch.cat([latents, mask, background, depth], 1).to(self.unet.dtype)  # (B, 13, h, w)
        tokens = tokens.to(self.unet.dtype)
        if bank is None:
            return self.unet(given, t, tokens).sample
        joined = {"reading": self.config.reading, "projections": self.adapters.projections, "present": present}
        with imitating(self.unet, bank, latents.shape[-2:], **joined):
            return self.unet(given, t, tokens).sample


def make_imitator(
    inpainting: UNet2DConditionModel,
    text_to_image: UNet2DConditionModel,
    image_width: int,
    *,
    factor: int,
    empty: torch.Tensor | None = None,
    reading: str = "paper",
    seed: int = 0,
    **config,
) -> Imitator:
    """Grows an untrained imitator from two denoisers.

    At the start the mask's and background's channels work as they did, depth counts for nothing, and K_r, V_r are the
    reference U-Net's own projections.

    Args:
        inpainting: U-Net of 9 input channels: grown to 13, copied.
        text_to_image: U-Net of 4: read only, shared.
        image_width: channels of the image encoder's states.
        factor: pixels a latent cell covers.
        empty: states of the empty prompt (1, L, C); None: the reference U-Net sees the image tokens, as released.
        reading: of the shared attention.
        seed: of the fresh weights.
        config: what else `Adapters` takes.

    Raises:
        ValueError: other channels, or an unknown reading.

    Source: Chen et al., 2024, section 3.2. Differs in: new channels of the first layer are zero (the authors draw them
        at random).
    """
    check.choice(reading, "reading", READINGS)
    if inpainting.config.in_channels != 9:
        raise ValueError(f"the U-Net takes {inpainting.config.in_channels} channels, expected 9: an inpainting model.")
    layers = shared_layers(text_to_image)
    widths = tuple(layer.to_k.in_features for layer in layers.values()) if reading == "paper" else ()
    levels = factor.bit_length()  # 2^(levels - 1) = factor
    with seeded(seed):
        adapters = Adapters(
            image_width,
            text_to_image.config.cross_attention_dim,
            reading,
            widths,
            config.pop("depth_widths", DEPTH_WIDTHS[:levels]),
            0 if empty is None else empty.shape[1],
            **config,
        )
    with torch.no_grad():
        if empty is not None:
            adapters.empty.copy_(empty)
        for layer, to_k, to_v in zip(layers.values(), adapters.reference_k, adapters.reference_v, strict=False):
            to_k.weight.copy_(layer.to_k.weight)
            to_v.weight.copy_(layer.to_v.weight)
    return Imitator(grow_input(inpainting, sum(CHANNELS.values())), text_to_image, adapters)
