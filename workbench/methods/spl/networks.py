"""SPL's networks: a semantic learner and an image generator that asks it, and the discriminator that judges both.

The learner guesses, from the masked picture, what a frozen classifier would have felt at the whole one: the semantic
prior. The generator's features are modulated by it, cell by cell.
"""

import itertools
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from workbench import check
from workbench.diffusion.libraries import ConfigMixin, ModelMixin, register_to_config
from workbench.diffusion.models import seeded
from workbench.methods.spl.layers import (
    INJECTIONS,
    InjectionBlock,
    LearntRegionNorm,
    RegionNorm,
    ResidualBlock,
    ResidualDenseBlock,
    reflected,
)

MULTIPLE = 4
"""Height and width that the generator takes are multiples of this."""
LEAST = 16
"""Least height and width, so that mirrored edges have something to mirror."""
PAPER = {
    "encoder_widths": (64, 128, 256),
    "learner_widths": (64, 128, 256, 256),
    "dense_blocks": 16,
    "dense_layers": 6,
    "growth": 32,
    "refining": 4,
    "injection_blocks": 8,
    "hidden": 128,
    "decoder_widths": (128, 64),
    "teacher_channels": 152,
    "enlarge": 2,
}
"""The released sizes: 45,597,223 weights, pictures of 256 x 256, the teacher's of 512 x 512."""


class Completion(NamedTuple):
    """What the generator gives.

    Args:
        image: (B, 3, H, W) in [0, 1], the whole picture anew, known part included.
        teacher_features: (B, T, h, w), what the learner believes the teacher feels at the whole picture.
        prior: (B, P, h, w), the semantic prior that is injected; a 1 x 1 convolution makes teacher_features of it.
    """

    image: torch.Tensor
    teacher_features: torch.Tensor
    prior: torch.Tensor


class SemanticLearner(nn.Module):
    """Masked picture and mask (B, 4, H, W) -> prior (B, P, H / 8, W / 8), and what the teacher would say.

    Args:
        widths: channels after the 7 x 7 convolution and after each of the three halvings; the last is P.
        dense_blocks, dense_layers, growth: of the residual dense blocks; all blocks' outputs are fused at the end.
        refining: residual blocks after that.
        teacher_channels: T.
    """

    def __init__(self, widths, dense_blocks: int, dense_layers: int, growth: int, refining: int, teacher_channels: int):
        super().__init__()
        width = widths[-1]
        self.down = _halvings(4, widths)
        self.enter = nn.Conv2d(width, width, 3, padding=1)
        self.dense = nn.ModuleList(ResidualDenseBlock(width, growth, dense_layers) for _ in range(dense_blocks))
        self.fusion = nn.Sequential(nn.Conv2d(width * dense_blocks, width, 1), nn.Conv2d(width, width, 3, padding=1))
        self.refine = nn.Sequential(*(ResidualBlock(width) for _ in range(refining)))
        self.to_teacher = nn.Conv2d(width, teacher_channels, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Prior (B, P, h, w) and teacher's features (B, T, h, w)."""
        x = reflected(x, 3)
        for conv in self.down:
            x = F.leaky_relu(conv(x), 0.1)  # (B, P, h, w) in the end
        y, every = self.enter(x), []
        for block in self.dense:
            y = block(y)
            every.append(y)
        prior = self.refine(x + self.fusion(torch.cat(every, 1)))
        return prior, self.to_teacher(prior)


class ImageEncoder(nn.Module):
    """Picture (B, 3, H, W), hole white, and its mask -> features (B, C, H / 4, W / 4), normalised by region."""

    def __init__(self, widths):
        super().__init__()
        self.down = _halvings(3, widths)
        self.norms = nn.ModuleList(RegionNorm(width) for width in widths)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Features (B, C, H / 4, W / 4)."""
        x = reflected(x, 3)
        for conv, norm in zip(self.down, self.norms, strict=True):
            x = F.relu(norm(conv(x), mask))
        return x


class Decoder(nn.Module):
    """Features (B, C, h, w) -> picture (B, 3, 4 h, 4 w) in [0, 1], by pixel shuffle; (tanh + 1) / 2 at the end."""

    def __init__(self, before: int, widths, threshold: float):
        super().__init__()
        pairs = list(itertools.pairwise((before, *widths)))
        self.up = nn.ModuleList(nn.Conv2d(inner, 4 * outer, 3, padding=1) for inner, outer in pairs)
        self.norms = nn.ModuleList(LearntRegionNorm(threshold) for _ in pairs)
        self.to_image = nn.Conv2d(widths[-1], 3, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Picture (B, 3, 4 h, 4 w)."""
        for conv, norm in zip(self.up, self.norms, strict=True):
            x = F.relu(norm(F.pixel_shuffle(conv(x), 2)))  # twice the size
        return (torch.tanh(self.to_image(reflected(x, 3))) + 1) / 2


def _halvings(channels: int, widths) -> nn.ModuleList:
    """A 7 x 7 convolution (edges are mirrored outside), then 4 x 4 ones with stride 2."""
    first = nn.Conv2d(channels, widths[0], 7)
    return nn.ModuleList([first, *(nn.Conv2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(widths))])


class SplGenerator(ModelMixin, ConfigMixin):
    """Picture (B, 3, H, W) in [0, 1] and mask (B, 1, H, W), 1 = hole -> `Completion`; H, W multiples of 4.

    Without arguments it has the bundled size; ``SplGenerator(**PAPER)`` has the released one.

    Args:
        encoder_widths: channels after the 7 x 7 convolution and the two halvings.
        learner_widths: the same for the semantic learner and its three halvings; the last is the prior's.
        dense_blocks, dense_layers, growth, refining: of the learner, see `SemanticLearner`.
        injection: "spade", or "concatenation" for the ablation.
        injection_blocks: residual blocks that are told the prior.
        hidden: channels inside SPADE.
        decoder_widths: channels after each of the two doublings.
        teacher_channels: of the feature map that the learner shall guess.
        enlarge: how many times larger the learner sees the picture (nearest neighbour).
        threshold: of the decoder's region normalisation.
        teacher_scale: what the teacher's features were multiplied with when they were guessed; see `make_teacher`.

    Source: Zhang et al., IJCAI 2021, and their released code, layer by layer. The bundled size differs in width and
        depth, and in that the learner sees the picture at its own size: its prior then has 1/8 of the picture's cells
        a side, and SPADE enlarges it.
    """

    @register_to_config
    def __init__(
        self,
        encoder_widths: tuple[int, ...] = (8, 24, 40),
        learner_widths: tuple[int, ...] = (8, 24, 48, 96),
        dense_blocks: int = 6,
        dense_layers: int = 3,
        growth: int = 24,
        refining: int = 1,
        injection: str = "spade",
        injection_blocks: int = 3,
        hidden: int = 16,
        decoder_widths: tuple[int, ...] = (24, 8),
        teacher_channels: int = 160,
        enlarge: int = 1,
        threshold: float = 0.8,
        teacher_scale: float = 1.0,
    ):
        super().__init__()
        if (len(encoder_widths), len(learner_widths), len(decoder_widths)) != (3, 4, 2):
            raise ValueError(
                f"widths are {encoder_widths} (encoder), {learner_widths} (learner) and {decoder_widths} (decoder), "
                "expected 3, 4 and 2 numbers: one for each halving or doubling, and one for the first convolution."
            )
        check.choice(injection, "injection", INJECTIONS)
        check.integer(dense_blocks, "dense_blocks", 1)
        self.learner = SemanticLearner(learner_widths, dense_blocks, dense_layers, growth, refining, teacher_channels)
        self.encoder = ImageEncoder(encoder_widths)
        self.blocks = nn.ModuleList(
            InjectionBlock(encoder_widths[-1], learner_widths[-1], hidden, injection=injection)
            for _ in range(injection_blocks)
        )
        self.decoder = Decoder(encoder_widths[-1], decoder_widths, threshold)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> Completion:
        """Completes a picture; what it shows in the hole is overwritten with white first."""
        prior, teacher_features = self.learn(image, mask)
        return Completion(self.paint(image, mask, prior), teacher_features, prior)

    def learn(self, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The semantic learner's part: prior (B, P, h, w) and teacher_features (B, T, h, w), h = H enlarge / 8."""
        x = torch.cat([whitened(image, mask), mask], 1)  # (B, 4, H, W)
        if self.config.enlarge != 1:
            x = F.interpolate(x, scale_factor=self.config.enlarge, mode="nearest")
        return self.learner(_channels_last(x))

    def paint(self, image: torch.Tensor, mask: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """The painter's part: a picture (B, 3, H, W) after a prior (B, P, h, w), its own or any other."""
        features = self.encoder(_channels_last(whitened(image, mask)), mask)  # (B, C, H / 4, W / 4)
        for block in self.blocks:
            features = block(features, prior)
        return self.decoder(features)


def whitened(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The picture with its hole white, as the network is shown it: x (1 - m) + m."""
    return torch.where(mask > 0.5, torch.ones_like(image), image)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)  # on a CPU a third faster


class PatchDiscriminator(nn.Module):
    """Picture (B, 3, H, W) in [0, 1] -> logits (B, 1, H / 8 - 2, W / 8 - 2), high = this patch looks real.

    Five 4 x 4 convolutions with spectral normalisation and leaky ReLU 0.2, each verdict about 70 px wide.

    Args:
        widths: channels of the first four; the first three halve.

    Source: Isola et al., CVPR 2017 (PatchGAN); Miyato et al., ICLR 2018; SPL's release, whose sigmoid at the end is
        left to the loss.
    """

    def __init__(self, widths=(64, 128, 256, 512)):
        super().__init__()
        pairs = itertools.pairwise((3, *widths, 1))
        self.layers = nn.ModuleList(
            nn.utils.spectral_norm(nn.Conv2d(inner, outer, 4, 2 if k < 3 else 1, 1, bias=False))
            for k, (inner, outer) in enumerate(pairs)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1, h, w)."""
        x = image
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)


def make_spl(seed: int = 0, **sizes) -> SplGenerator:
    """A fresh generator of the bundled size, or with other ``sizes`` (see `SplGenerator`); weights from a local seed.

    Example:
        >>> make_spl(injection="concatenation")
    """
    with seeded(seed):
        return SplGenerator(**sizes)


def make_discriminator(widths=(64, 128, 256, 512), seed: int = 0) -> PatchDiscriminator:
    """A fresh discriminator; weights from a local seed."""
    with seeded(seed):
        return PatchDiscriminator(tuple(widths))


@torch.no_grad()
def complete(model: SplGenerator, image: torch.Tensor, mask: torch.Tensor) -> Completion:
    """Lets a generator complete pictures of any size; the hole's content is not looked at.

    Sizes that are no multiple of 4 are mirrored beyond the right and lower edge and cut again.

    Args:
        model: from `load_spl`; it computes as it is, so keep it in evaluation.
        image: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W) or (1, 1, H, W), 1 = hole.

    Returns:
        `Completion`, its image (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: shapes or ranges against the conventions, or fewer than 16 pixels a side.

    Example:
        >>> completion = complete(load_spl(), photo, mask)
        >>> picture = torch.where(mask > 0.5, completion.image, photo)
    """
    check.image(image)
    check.mask(mask, like=image)
    height, width = image.shape[-2:]
    if min(height, width) < LEAST:
        raise ValueError(
            f"image is {(height, width)} (H, W), expected at least {LEAST} x {LEAST}. "
            "For smaller ones take wb.inpaint(..., method='spl')."
        )
    mask = mask.to(image).expand(len(image), -1, -1, -1)
    extra = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    padded = [F.pad(x.to(model.device, model.dtype), extra, mode="reflect") for x in (image, mask)]
    image_, teacher_features, prior = model(*padded)
    return Completion(image_[..., :height, :width].to(image).clamp(0, 1), teacher_features, prior)
