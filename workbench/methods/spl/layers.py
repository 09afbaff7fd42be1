"""What the generator is made of: region normalisation, SPADE, residual and residual dense blocks."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

EPSILON = 1e-5
"""Added to variances, as PyTorch's instance normalisation has it."""


def per_region(x: torch.Tensor, hole: torch.Tensor, gain: torch.Tensor | None = None) -> torch.Tensor:
    """Each channel's mean and variance made 0 and 1 in the hole and in the known part, each by itself.

    y = gain_R (x - mean_R) / sqrt(var_R + eps n / n_R) for the cells of region R, n_R of n

    Args:
        x: features (B, C, h, w).
        hole: (B, 1, h, w), 1 or 0; one of the two regions may be empty.
        gain: (2, C), of the hole and of the known part; None is 1.

    Returns:
        (B, C, h, w), in the dtype of x.

    Source: Yu et al., AAAI 2020 (region normalisation), by picture as SPL's release has it. There the rest of the
        plane is filled with the region's mean and the whole plane normalised, which comes to the same, with this eps.
    """
    batch, channels, height, width = x.shape
    exact = torch.promote_types(x.dtype, torch.float32)  # half precision would lose the means
    cells = x.to(exact).permute(0, 2, 3, 1).reshape(batch, -1, channels)  # (B, n, C), a view where channels are last
    regions = torch.cat([hole, 1 - hole], 1).flatten(2).to(exact)  # (B, 2, n)
    count = regions.sum(2, keepdim=True).clamp(min=1)  # (B, 2, 1)
    mean = regions @ cells / count  # (B, 2, C)
    centred = torch.baddbmm(cells, regions.mT, mean, alpha=-1)  # (B, n, C)
    variance = regions @ centred.square() / count  # (B, 2, C)
    scale = (variance + EPSILON * cells.shape[1] / count).rsqrt()
    if gain is not None:
        scale = scale * gain
    out = centred * (regions.mT @ scale)  # (B, n, C)
    return out.view(batch, height, width, channels).permute(0, 3, 1, 2).to(x.dtype)


class RegionNorm(nn.Module):
    """Region normalisation for a hole that is known, with a scale and a shift for each region ("RN-B").

    y = x' (1 + m gamma_hole + (1 - m) gamma_known) + beta_hole + beta_known, x' from `per_region`

    Both shifts are added everywhere: so it stands in the release, and its weights are only right with it.

    Args:
        channels: C.

    Source: Yu et al., AAAI 2020, section 3.2; SPL's release.
    """

    def __init__(self, channels: int):
        super().__init__()
        for name in ("hole_gamma", "hole_beta", "known_gamma", "known_beta"):
            setattr(self, name, nn.Parameter(torch.zeros(channels)))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) and a mask (B, 1, H, W) of any size -> (B, C, h, w)."""
        hole = F.interpolate(mask, x.shape[-2:], mode="nearest")  # (B, 1, h, w)
        gain = 1 + torch.stack([self.hole_gamma, self.known_gamma])  # (2, C)
        return per_region(x, hole, gain) + (self.hole_beta + self.known_beta).to(x.dtype).view(1, -1, 1, 1)


class LearntRegionNorm(nn.Module):
    """Region normalisation where the network itself says which cells are unlike the others ("RN-L").

    The region is sigmoid(conv(mean_c x, max_c x)) >= threshold; a scale and a shift for every cell come from the same
    map. The threshold passes no gradient, the scale and the shift do.

    Args:
        threshold: 0 to 1.

    Source: Yu et al., AAAI 2020, section 3.3; SPL's release.
    """

    def __init__(self, threshold: float = 0.8):
        super().__init__()
        self.threshold = threshold
        self.importance = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.gamma, self.beta = nn.Conv2d(1, 1, 7, padding=3), nn.Conv2d(1, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same shape."""
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (B, 2, h, w)
        importance = self.importance(both).sigmoid()  # (B, 1, h, w)
        region = (importance.detach() >= self.threshold).to(x.dtype)
        return per_region(x, region) * (1 + self.gamma(importance)) + self.beta(importance)


class Spade(nn.Module):
    """Spatially-adaptive normalisation: every cell gets its scale and its shift from the semantic prior.

    y = x' (1 + gamma(prior)) + beta(prior), x' with mean 0 and variance 1 by picture and channel

    Args:
        channels: C of what is normalised.
        prior: channels of the prior.
        hidden: channels between the prior and the two.

    Source: Park et al., CVPR 2019, equation 1; with instance normalisation, as SPL's release has it.
    """

    def __init__(self, channels: int, prior: int, hidden: int):
        super().__init__()
        self.shared = nn.Conv2d(prior, hidden, 3, padding=1)
        self.gamma, self.beta = nn.Conv2d(hidden, channels, 3, padding=1), nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), and a prior (B, P, h', w') that is enlarged to it -> (B, C, h, w)."""
        seen = F.relu(self.shared(_nearest(prior, x)))  # (B, hidden, h, w)
        return F.instance_norm(x, eps=EPSILON) * (1 + self.gamma(seen)) + self.beta(seen)


class Concatenation(nn.Module):
    """The ablation of SPADE: the prior is laid beside the normalised features, and one convolution reads both.

    Args:
        channels: C of the features.
        prior: channels of the prior.
        hidden: not used; there so that it is made as `Spade` is.

    Source: the ablation "concatenation instead of SPADE" of SPL; no code of it was published, so this is one reading.
    """

    def __init__(self, channels: int, prior: int, hidden: int):
        super().__init__()
        self.join = nn.Conv2d(channels + prior, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """As `Spade.forward`."""
        both = torch.cat([F.instance_norm(x, eps=EPSILON), _nearest(prior, x)], 1)  # (B, C + P, h, w)
        return self.join(both)


INJECTIONS = {"spade": Spade, "concatenation": Concatenation}
"""How the prior reaches the image's features."""


def _nearest(prior: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if prior.shape[-2:] == like.shape[-2:]:
        return prior
    return F.interpolate(prior, like.shape[-2:], mode="nearest")


def reflected(x: torch.Tensor, by: int) -> torch.Tensor:
    """A map with ``by`` more cells on every side, as in a mirror."""
    return F.pad(x, (by,) * 4, mode="reflect")


class InjectionBlock(nn.Module):
    """x + conv(relu(inject(conv_dilated(relu(inject(x, prior))), prior))): a residual block that is told the prior.

    Args:
        channels: C.
        prior: channels of the prior.
        hidden: of `Spade`.
        dilation: of the first convolution.
        injection: a key of `INJECTIONS`.
    """

    def __init__(self, channels: int, prior: int, hidden: int, dilation: int = 2, injection: str = "spade"):
        super().__init__()
        make = INJECTIONS[injection]
        self.dilation = dilation
        self.inject1 = make(channels, prior, hidden)
        self.conv1 = nn.Conv2d(channels, channels, 3, dilation=dilation)
        self.inject2 = make(channels, prior, hidden)
        self.conv2 = nn.Conv2d(channels, channels, 3)

    def forward(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w), prior (B, P, h', w') -> (B, C, h, w)."""
        y = self.conv1(reflected(F.relu(self.inject1(x, prior)), self.dilation))
        return x + self.conv2(reflected(F.relu(self.inject2(y, prior)), 1))


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), edges mirrored, nothing normalised."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3), nn.Conv2d(channels, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same shape."""
        return x + self.conv2(reflected(F.relu(self.conv1(reflected(x, 1))), 1))


class ResidualDenseBlock(nn.Module):
    """Every layer sees all that came before it; a 1 x 1 convolution brings all of it back to C channels; plus x.

    Args:
        channels: C.
        growth: channels that each layer adds.
        layers: how many.

    Source: Zhang et al., CVPR 2018 (residual dense network), section 3.2.
    """

    def __init__(self, channels: int, growth: int, layers: int):
        super().__init__()
        widths = itertools.islice(itertools.count(channels, growth), layers)
        self.layers = nn.ModuleList(nn.Conv2d(width, growth, 3, padding=1) for width in widths)
        self.fusion = nn.Conv2d(channels + growth * layers, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same shape."""
        seen = x
        for layer in self.layers:
            seen = torch.cat([seen, F.relu(layer(seen))], 1)  # growth channels more
        return x + self.fusion(seen)
