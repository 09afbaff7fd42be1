"""MimicBrush whole: the two U-Nets with autoencoder, image encoder, depth estimator and noise schedule."""

from dataclasses import dataclass

import torch
from torch import nn

from workbench import check
from workbench import mask as masks
from workbench.diffusion.libraries import AutoencoderKL, DDIMScheduler
from workbench.diffusion.models import make_scheduler
from workbench.image import from_signed, to_signed
from workbench.methods.mimicbrush.networks import Imitator


@dataclass(frozen=True)
class Conditions:
    """What is known of source and reference before any noise: everything that sampling and training are given.

    Args:
        mask: (B, 1, h, w), 1 = hole.
        background: (B, 4, h, w), latents of the masked source.
        depth: (B, 4, h, w), depth latents.
        reference: (B, 4, h', w'), latents of the reference.
        states, nothing: (B, n, C) of the image encoder: for the reference, and where it is dropped.
        depth_map: (B, 1, H, W), what the depth latents were made from.
    """

    mask: torch.Tensor
    background: torch.Tensor
    depth: torch.Tensor
    reference: torch.Tensor
    states: torch.Tensor
    nothing: torch.Tensor
    depth_map: torch.Tensor


class MimicBrush(nn.Module):
    """Everything that MimicBrush needs.

    Args:
        imitator: the U-Nets.
        vae: autoencoder.
        image_encoder: pictures -> states, with ``nothing``; see `conditions`.
        depth: pictures -> depth map.
        scheduler: of diffusers; None takes Stable Diffusion's DDIM.

    Raises:
        ValueError: an image encoder of another width than the projector's.
    """

    def __init__(
        self,
        imitator: Imitator,
        vae: AutoencoderKL,
        image_encoder: nn.Module,
        depth: nn.Module,
        scheduler: DDIMScheduler | None = None,
    ):
        super().__init__()
        if image_encoder.width != imitator.config.image_width:
            raise ValueError(
                f"the image encoder's states have {image_encoder.width} channels, expected "
                f"{imitator.config.image_width}: the encoder that the projector was trained with."
            )
        self.imitator, self.vae = imitator, vae.requires_grad_(False).eval()
        self.image_encoder, self.depth = image_encoder, depth
        self.scheduler = scheduler or make_scheduler()

    @property
    def config(self):
        """How the U-Nets are joined; see `networks.Adapters`."""
        return self.imitator.config

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.imitator.unet.device

    @property
    def factor(self) -> int:
        """Pixels a side of a latent cell."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def side(self) -> int:
        """Pixels a side of the pictures it was trained with."""
        return self.imitator.unet.config.sample_size * self.factor

    @property
    def multiple(self) -> int:
        """Heights and widths that the U-Net halves without a rest are multiples of this."""
        return self.factor * 2 ** (len(self.imitator.unet.config.block_out_channels) - 1)

    def masked(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The source as the autoencoder sees it: (B, 3, H, W) in [-1, 1], the hole grey or, as released, black."""
        keep = mask < 0.5
        return torch.where(keep, to_signed(image), torch.full_like(image, self.config.hole_value))

    def encode(self, signed: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Latents (B, 4, h, w) of pictures in [-1, 1]: the posterior's mean, or a draw from it by ``noise``."""
        posterior = self.vae.encode(signed.to(self.vae.device, self.vae.dtype)).latent_dist
        drawn = posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(posterior.mean)
        return drawn * self.vae.config.scaling_factor

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [0, 1]."""
        scaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        return from_signed(self.vae.decode(scaled).sample.float())

    def depth_map(self, image: torch.Tensor, use: bool = True) -> torch.Tensor:
        """Depth of a source (B, 1, H, W); where it is not used zeros, or as released that of a black picture."""
        if use:
            return self.depth(image)
        return self.depth(torch.zeros_like(image)) if self.config.zero_image else torch.zeros_like(image[:, :1])

    @torch.no_grad()
    def conditions(
        self,
        source: torch.Tensor,
        mask: torch.Tensor,
        reference: torch.Tensor,
        keep_shape: bool = False,
        noise: torch.Tensor | None = None,
        depth_of: torch.Tensor | None = None,
    ) -> Conditions:
        """Encodes sources and their references.

        Args:
            source: (B, 3, H, W) in [0, 1]; H and W multiples of `multiple`. What the hole holds counts only for depth.
            mask: (B, 1, H, W), 1 = hole.
            reference: (B, 3, H', W') in [0, 1]; H' and W' likewise.
            keep_shape: uses the depth of the source, hole included.
            noise: (B, 4, h, w) draws the background's latents from their posterior.
            depth_of: the unmasked source, where ``source`` is none.

        Raises:
            ValueError: shapes and ranges.
        """
        check.mask(mask, like=check.image(source, "source"))
        check.image(reference, "reference")
        for name, picture in (("source", source), ("reference", reference)):
            if any(n % self.multiple for n in picture.shape[-2:]):
                size = tuple(picture.shape[-2:])
                raise ValueError(
                    f"{name} is {size} (H, W), expected multiples of {self.multiple}. Use wb.image.resize."
                )
        source, mask, reference = (x.to(self.device) for x in (source, mask, reference))
        depth_map = self.depth_map(source if depth_of is None else depth_of.to(self.device), keep_shape)
        return Conditions(
            mask=masks.to_latent(mask, "nearest", self.factor),
            background=self.encode(self.masked(source, mask), noise),
            depth=self.imitator.depth_latents(depth_map),
            reference=self.encode(to_signed(reference)),
            states=self.image_encoder(reference),
            nothing=self.image_encoder.nothing(len(reference)),
            depth_map=depth_map,
        )
