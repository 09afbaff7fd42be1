"""DiffuMatting's networks: the matting head on the decoder's features, GreenPost's refiner, a plain matting network."""

import itertools
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from workbench import check
from workbench.diffusion.libraries import AutoencoderKL, ConfigMixin, ModelMixin, register_to_config
from workbench.diffusion.models import seeded

CELL = 4
"""Pixels along each side of what the refiner mends at once."""
MARGIN = 3
"""Half-size pixels round a cell that its mending looks at."""


# The matting head


class MattingHead(ModelMixin, ConfigMixin):
    """Features of the autoencoder's decoder -> coarse alpha: convolution, SiLU, convolution, sigmoid.

    Args:
        channels: of the features, see `decoder_channels`.
        hidden: between the two convolutions.

    Source: DiffuMatting (Hu et al., ECCV 2024): two 2-D convolutions with SiLU on the VAE decoder's latent space. Which
    features is our choice: the decoder's last block tells where green ends, its middle block what the thing is, so that
    a green thing can be told from a green background.
    """

    @register_to_config
    def __init__(self, channels: int = 128, hidden: int = 32):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, 1, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, 1, H, W) in [0, 1]."""
        return torch.sigmoid(self.conv2(functional.silu(self.conv1(features))).float())


def make_head(vae: AutoencoderKL, hidden: int = 32, seed: int = 0) -> MattingHead:
    """An untrained head for an autoencoder.

    Example:
        >>> make_head(wb.load_pipeline("tiny-t2i").vae).config.channels
        112
    """
    with seeded(seed):
        return MattingHead(decoder_channels(vae), hidden)


def decoder_of(vae: AutoencoderKL) -> nn.Module:
    """An autoencoder's decoder.

    Raises:
        ValueError: it has none of AutoencoderKL's kind.
    """
    decoder = getattr(vae, "decoder", None)
    if not hasattr(decoder, "mid_block") or not len(getattr(decoder, "up_blocks", ())):
        raise ValueError(
            f"{type(vae).__name__} has no decoder with mid_block and up_blocks, expected an AutoencoderKL."
        )
    return decoder


def decoder_channels(vae: AutoencoderKL) -> int:
    """Channels that `decode_features` gives: the decoder's middle block's and its last block's."""
    widths = vae.config.block_out_channels
    return widths[-1] + widths[0]


def decode_features(vae: AutoencoderKL, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Decodes latents and hands out what the decoder felt on its way.

    Args:
        vae: of a Stable Diffusion pipeline.
        latents: (B, 4, h, w), scaled. Gradients flow through.

    Returns:
        The picture (B, 3, H, W), [0, 1] but not cut off there; the features (B, C, H, W): the middle block's, enlarged,
        and the last block's.

    Raises:
        ValueError: the autoencoder has no decoder of that kind.
    """
    decoder = decoder_of(vae)
    seen: dict[str, list[torch.Tensor]] = {"middle": [], "last": []}
    hooks = [
        module.register_forward_hook(lambda module, given, out, name=name: seen[name].append(out))
        for name, module in (("middle", decoder.mid_block), ("last", decoder.up_blocks[-1]))
    ]
    try:
        decoded = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
    finally:
        for hook in hooks:
            hook.remove()
    middle, last = (torch.cat(seen[name]) for name in ("middle", "last"))  # sliced decoding comes item by item
    if last.shape[0] != len(latents) or last.shape[-2:] != decoded.shape[-2:]:
        raise ValueError("the autoencoder decodes in tiles, expected whole pictures: vae.disable_tiling().")
    middle = functional.interpolate(middle, last.shape[-2:], mode="bilinear", align_corners=False)
    return decoded.float() / 2 + 0.5, torch.cat([middle, last], 1).float()


# What refiner and matting network share


class _Block(nn.Module):
    """Convolution, norm, SiLU, twice, round a shortcut; (B, C, h, w) -> (B, D, h / stride, w / stride)."""

    def __init__(self, inner: int, outer: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1)
        self.norm1, self.norm2 = nn.GroupNorm(8, outer), nn.GroupNorm(8, outer)
        self.short = nn.Conv2d(inner, outer, 1, stride) if (inner, stride) != (outer, 1) else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        y = functional.silu(self.norm1(self.conv1(x)))
        return functional.silu(self.norm2(self.conv2(y)) + self.short(x))


class _Pyramid(nn.Module):
    """A U-Net: halvings down, dilated convolutions side by side at the bottom, and up again with shortcuts.

    Args:
        in_channels, out_channels: of what goes in and comes out, at the same size.
        widths: channels of each level, multiples of 8.
    """

    def __init__(self, in_channels: int, out_channels: int, widths):
        super().__init__()
        self.enter = _Block(in_channels, widths[0])
        self.down = nn.ModuleList(_Block(a, b, 2) for a, b in itertools.pairwise(widths))
        self.wide = nn.ModuleList(nn.Conv2d(widths[-1], widths[-1] // 4, 3, 1, d, d) for d in (1, 2, 4))
        self.wide.append(nn.Conv2d(widths[-1], widths[-1] - 3 * (widths[-1] // 4), 1))  # of the whole picture's mean
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in itertools.pairwise(reversed(widths)))
        self.leave = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w)."""
        x = self.enter(x)
        levels = [x]
        for block in self.down:
            x = block(x)
            levels.append(x)
        whole = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        context = [conv(x) for conv in self.wide[:-1]]
        context.append(self.wide[-1](whole).expand(-1, -1, *x.shape[-2:]))
        x = x + functional.silu(torch.cat(context, 1))
        for block, level in zip(self.up, reversed(levels[:-1]), strict=True):
            x = functional.interpolate(x, level.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, level], 1))
        return self.leave(x)


# GreenPost's refiner


class Refined(NamedTuple):
    """What the refiner gives.

    Args:
        alpha: (B, 1, H, W) in [0, 1], some of its cells mended.
        foreground: (B, 3, H, W) in [0, 1], not premultiplied.
        coarse_alpha: (B, 1, h, w) of the base, at its smaller size.
        coarse_foreground: (B, 3, h, w).
        error: (B, 1, h, w), where the base believes that it is wrong.
        mended: (B, 1, H, W), 1 where a cell was worked on at full size.
    """

    alpha: torch.Tensor
    foreground: torch.Tensor
    coarse_alpha: torch.Tensor
    coarse_foreground: torch.Tensor
    error: torch.Tensor
    mended: torch.Tensor


class GreenRefiner(ModelMixin, ConfigMixin):
    """Picture and clean plate -> alpha and foreground: a base at a smaller size, then the cells it is unsure of.

    The base gives alpha, the foreground as what to add to the picture, its own error, and some hidden features. Cells
    of 4 x 4 pixels with the largest errors are mended by four 3 x 3 convolutions: two at half the size, which see 8 x 8
    pixels there, two at full size with the picture itself. All other cells keep the base's answer, enlarged.

    Args:
        widths: channels of the base's levels, multiples of 8.
        hidden: features that the base hands on to the mending.
        mending: channels in the mending.
        scale: how many times smaller the base works: 2 at 128 pixels, 4 at full HD.

    Source: Background Matting V2 (Lin et al., CVPR 2021); differs in the base, a narrow U-Net where theirs is a
    ResNet-50 with ASPP, and in taking a share of all cells instead of a number.
    """

    @register_to_config
    def __init__(self, widths=(24, 40, 64, 96), hidden: int = 16, mending: int = 24, scale: int = 2):
        super().__init__()
        self.base = _Pyramid(6, 1 + 3 + 1 + hidden, tuple(widths))
        self.half1 = nn.Conv2d(hidden + 4 + 6, mending, 3)
        self.half2 = nn.Conv2d(mending, mending, 3)
        self.full1 = nn.Conv2d(mending + 6, mending, 3)
        self.full2 = nn.Conv2d(mending, 4, 3)

    def forward(
        self, image: torch.Tensor, plate: torch.Tensor, share: float = 0.25, scale: int | None = None
    ) -> Refined:
        """Mattes pictures; see `refine` for any size.

        Args:
            image: (B, 3, H, W) in [0, 1], H and W multiples of `multiple`.
            plate: (B, 3, H, W), the background without the object.
            share: of all cells, the surest left out; 0 mends none, 1 all.
            scale: None takes the network's own.
        """
        scale = self.config.scale if scale is None else check.integer(scale, "scale", 1)
        given = torch.cat([image, plate], 1)  # (B, 6, H, W)
        small = functional.interpolate(given, scale_factor=1 / scale, mode="area") if scale > 1 else given
        out = self.base(small * 2 - 1).float()  # (B, 5 + hidden, h, w)
        alpha, error = torch.sigmoid(out[:, :1]), torch.sigmoid(out[:, 4:5])
        colours = (out[:, 1:4] + small[:, :3]).clamp(0, 1)
        size = image.shape[-2:]
        coarse = functional.interpolate(out[:, :4], size, mode="bilinear", align_corners=False)  # (B, 4, H, W)
        chosen = self._chosen(error, size, check.number(share, "share", 0, 1))  # (B, H / 4, W / 4) bool
        if chosen.any():
            coarse = _put_cells(coarse, self._mend(given, out[:, :4], out[:, 5:], chosen), chosen)
        mended = chosen[:, None].to(image).repeat_interleave(CELL, -1).repeat_interleave(CELL, -2)
        foreground = (coarse[:, 1:] + image).clamp(0, 1)
        return Refined(torch.sigmoid(coarse[:, :1]), foreground, alpha, colours, error, mended)

    @property
    def multiple(self) -> int:
        """Height and width that the network takes are multiples of this."""
        scale, halvings = self.config.scale, 2 ** (len(self.config.widths) - 1)
        return max(CELL, scale * halvings)

    def _chosen(self, error: torch.Tensor, size, share: float) -> torch.Tensor:
        """The cells with the largest errors of each item, the first of equal ones; (B, H / 4, W / 4)."""
        grid = [n // CELL for n in size]
        cells = functional.adaptive_max_pool2d(error.detach(), grid).flatten(1)  # (B, N)
        count = round(share * cells.shape[1])
        order = cells.argsort(dim=1, descending=True, stable=True)[:, :count]
        return torch.zeros_like(cells, dtype=torch.bool).scatter_(1, order, True).unflatten(1, grid)

    def _mend(self, given: torch.Tensor, coarse: torch.Tensor, hidden: torch.Tensor, chosen: torch.Tensor):
        """New values (N, 4, 4, 4) of the chosen cells: alpha before its sigmoid, and what to add to the picture."""
        half = [n // 2 for n in given.shape[-2:]]
        small = functional.interpolate(given, half, mode="area")  # (B, 6, H / 2, W / 2)
        told = functional.interpolate(torch.cat([hidden, coarse], 1), half, mode="bilinear", align_corners=False)
        x = _take_cells(torch.cat([told, small * 2 - 1], 1), chosen, CELL // 2, MARGIN)  # (N, C, 8, 8)
        x = functional.silu(self.half2(functional.silu(self.half1(x))))  # (N, C, 4, 4)
        x = functional.interpolate(x, scale_factor=2, mode="nearest")  # (N, C, 8, 8), at full size
        own = _take_cells(given * 2 - 1, chosen, CELL, CELL // 2)  # (N, 6, 8, 8)
        before = functional.interpolate(coarse, given.shape[-2:], mode="bilinear", align_corners=False)
        x = self.full2(functional.silu(self.full1(torch.cat([x, own], 1)))).float()  # (N, 4, 4, 4)
        return x + _take_cells(before, chosen, CELL, 0)  # what is learnt is the difference


def _take_cells(x: torch.Tensor, chosen: torch.Tensor, side: int, margin: int) -> torch.Tensor:
    """Cells of ``side`` pixels with a margin round them: (B, C, h, w), (B, gh, gw) -> (N, C, side + 2 margin, ...)."""
    if margin:
        x = functional.pad(x, (margin,) * 4, mode="replicate")
    windows = x.unfold(2, side + 2 * margin, side).unfold(3, side + 2 * margin, side)  # (B, C, gh, gw, s, s)
    return windows.permute(0, 2, 3, 1, 4, 5)[chosen]


def _put_cells(x: torch.Tensor, cells: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """A copy of (B, C, H, W) with cells (N, C, 4, 4) in their places."""
    count, channels, height, width = x.shape
    grid = x.reshape(count, channels, height // CELL, CELL, width // CELL, CELL).permute(0, 2, 4, 1, 3, 5).clone()
    grid[chosen] = cells.to(grid)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, height, width)


def make_refiner(seed: int = 0, **sizes) -> GreenRefiner:
    """An untrained refiner; ``sizes`` as `GreenRefiner` takes them."""
    with seeded(seed):
        return GreenRefiner(**sizes)


# The factory's customer


class MattingNetwork(ModelMixin, ConfigMixin):
    """Picture -> alpha, with nothing else given: what is trained with and without synthetic mattes.

    Args:
        widths: channels of the U-Net's levels, multiples of 8.

    Source: our own; small, so that many can be trained at an equal budget.
    """

    @register_to_config
    def __init__(self, widths=(16, 32, 48, 64)):
        super().__init__()
        self.layers = _Pyramid(3, 1, tuple(widths))

    @property
    def multiple(self) -> int:
        """Height and width that the network takes are multiples of this."""
        return 2 ** (len(self.config.widths) - 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [0, 1], multiples of `multiple` -> (B, 1, H, W) in [0, 1]."""
        return torch.sigmoid(self.layers(image * 2 - 1).float())


def make_matting_network(seed: int = 0, **sizes) -> MattingNetwork:
    """An untrained matting network; ``sizes`` as `MattingNetwork` takes them."""
    with seeded(seed):
        return MattingNetwork(**sizes)


@torch.no_grad()
def estimate_alpha(network: MattingNetwork, image: torch.Tensor) -> torch.Tensor:
    """The matte of pictures of any size, (B, 1, H, W) in [0, 1], by a matting network."""
    padded = pad_to(check.image(image), network.multiple)
    height, width = image.shape[-2:]
    return network(padded.to(network.device))[..., :height, :width].to(image)


@torch.no_grad()
def refine(
    refiner: GreenRefiner, image: torch.Tensor, plate: torch.Tensor, share: float = 0.25, scale: int | None = None
) -> Refined:
    """`GreenRefiner` for pictures of any size; what it needs more is repeated at the edge and cut off again.

    Args:
        image, plate: (B, 3, H, W) in [0, 1].
        share: of the cells to mend.
        scale: how many times smaller the base works, a power of 2; None chooses so that it sees about what it learnt
            from, 64 to 128 pixels along the shorter side, and never a smaller factor than its own.
    """
    check.same_size(check.image(plate, "plate"), check.image(image), "plate", "image")
    height, width = image.shape[-2:]
    if scale is None:
        scale = refiner.config.scale
        while min(height, width) / scale > 128:
            scale *= 2
    multiple = max(refiner.multiple, scale * 2 ** (len(refiner.config.widths) - 1))
    given = [pad_to(x, multiple).to(refiner.device) for x in (image, plate)]
    found = refiner(*given, share, scale)
    h, w = -(-height // scale), -(-width // scale)
    coarse = [x[..., :h, :w].to(image) for x in found[2:5]]
    alpha, foreground, mended = (x[..., :height, :width].to(image) for x in (found[0], found[1], found[5]))
    return Refined(alpha, foreground, *coarse, mended)


def pad_to(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """The picture with its last row and column repeated until both sides are multiples."""
    height, width = image.shape[-2:]
    return functional.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
