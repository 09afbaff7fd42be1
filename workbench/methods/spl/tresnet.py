"""TResNet, the classifier that taught the released SPL, up to its second stage; names as in its published weights.

Written with plain batch normalisation and leaky ReLU, so that it runs anywhere; the published code needs a CUDA
extension for the two in one (inplace_abn).
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from workbench import check
from workbench.diffusion.models import seeded
from workbench.methods.spl.loading import read_state

WIDTH = 76
"""Channels of TResNet-L's first stage: 64 times 1.2, rounded down; the second has twice as many, 152."""
BLOCKS = (4, 5)
"""Residual blocks of its first two stages."""
SQUARE = 4
"""Pixels a side of the squares that become one cell each at the entrance."""


def _normed(inner: int, outer: int, kernel: int, slope: float | None) -> nn.Sequential:
    """Convolution, batch normalisation, leaky ReLU; no activation where the slope is None."""
    conv = nn.Conv2d(inner, outer, kernel, padding=kernel // 2, bias=False)
    layers = [conv, nn.BatchNorm2d(outer)]
    return nn.Sequential(*layers) if slope is None else nn.Sequential(*layers, nn.LeakyReLU(slope))


class Blurred(nn.Module):
    """Every second cell of a map blurred by [1, 2, 1] / 4 in both directions, edges mirrored."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C, h / 2, w / 2)."""
        line = x.new_tensor([0.25, 0.5, 0.25])
        kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


class Excitation(nn.Module):
    """Squeeze and excitation: y = x sigmoid(W2 relu(W1 mean(x))), a factor for each channel.

    Source: Hu et al., CVPR 2018.
    """

    def __init__(self, channels: int, reduced: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(channels, reduced, 1), nn.Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same shape."""
        mean = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
        return x * self.fc2(F.relu(self.fc1(mean))).sigmoid()


class BasicBlock(nn.Module):
    """relu(skip(x) + excite(bn(conv(lrelu(bn(conv(x))))))); halving, it blurs after the first convolution.

    Args:
        inner, outer: channels before and after.
        halve: whether the map is made half as large.
    """

    def __init__(self, inner: int, outer: int, halve: bool):
        super().__init__()
        first = _normed(inner, outer, 3, 1e-3)
        self.conv1 = nn.Sequential(first, Blurred()) if halve else first
        self.conv2 = _normed(outer, outer, 3, None)
        pool = [nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)] if halve else []
        changes = halve or inner != outer
        self.downsample = nn.Sequential(*pool, _normed(inner, outer, 1, None)) if changes else None
        self.se = Excitation(outer, max(outer // 4, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inner, h, w) -> (B, outer, h, w), or half the size."""
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(skip + self.se(self.conv2(self.conv1(x))))


class TResNet(nn.Module):
    """Picture (B, 3, H, W) in [0, 1], as it is -> maps "layer1" (B, C, H / 4, W / 4), "layer2" (B, 2 C, H / 8, W / 8).

    Args:
        width: C.
        blocks: of the two stages.

    Source: Ridnik et al., WACV 2021, and the code published with Ben-Baruch et al., ICCV 2021 (ASL), to its second
        stage, where SPL cuts it. Differs in: normalisation and activation are two steps instead of one in place.
    """

    def __init__(self, width: int = WIDTH, blocks: tuple[int, int] = BLOCKS):
        super().__init__()
        self.body = nn.Sequential()
        self.body.add_module("conv1", _normed(3 * SQUARE**2, width, 3, 1e-2))
        for name, inner, outer, count in (("layer1", width, width, blocks[0]), ("layer2", width, 2 * width, blocks[1])):
            first = BasicBlock(inner, outer, halve=name == "layer2")
            rest = (BasicBlock(outer, outer, halve=False) for _ in range(count - 1))
            self.body.add_module(name, nn.Sequential(first, *rest))

    def features(self, image: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """Maps by name, "conv1", "layer1" or "layer2".

        Raises:
            ValueError: an unknown layer.
        """
        names = [name for name, _ in self.body.named_children()]
        wanted = [check.choice(name, "layer", names) for name in layers]
        found, x = {}, squares_to_channels(image)
        for name, part in self.body.named_children():
            x = part(x)
            found[name] = x
        return {name: found[name] for name in wanted}


def squares_to_channels(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, 16 C, H / 4, W / 4): the pixels of each 4 x 4 square one after the other, colours innermost.

    Raises:
        ValueError: height or width is no multiple of 4.
    """
    batch, channels, height, width = x.shape
    if height % SQUARE or width % SQUARE:
        raise ValueError(f"image is {(height, width)} (H, W), expected multiples of {SQUARE} for TResNet. Resize it.")
    cells = x.reshape(batch, channels, height // SQUARE, SQUARE, width // SQUARE, SQUARE)
    return cells.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // SQUARE, width // SQUARE)


def make_tresnet(width: int = WIDTH, blocks: tuple[int, int] = BLOCKS, seed: int = 0) -> TResNet:
    """A fresh network; weights from a local seed."""
    with seeded(seed):
        return TResNet(width, tuple(blocks))


def from_published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published weights as they are used here; later stages and the head are left out.

    Their normalisation in place multiplies by |weight| + 1e-5, plain batch normalisation by weight.

    Args:
        state: names such as "body.layer1.0.conv1.0.weight".
    """
    kept = {name: value.float() for name, value in state.items() if re.match(r"body\.(conv1|layer[12])\.", name)}
    norms = [name.removesuffix("running_mean") for name in kept if name.endswith("running_mean")]
    return kept | {f"{norm}weight": kept[f"{norm}weight"].abs() + 1e-5 for norm in norms}


def load_tresnet(file) -> TResNet:
    """The first two stages of a published TResNet, in evaluation; sizes are read from the shapes.

    Args:
        file: a checkpoint of the ASL code (``.pth``, the weights under "model" or by themselves), or the same as
            ``.safetensors``. Nothing in it is executed.

    Raises:
        NotAvailable: it cannot be read.
        ValueError: it holds something else.

    Example:
        >>> load_tresnet("Open_ImagesV6_TRresNet_L_448.pth").features(photo, ["layer2"])["layer2"].shape
    """
    state = from_published(read_state(file))
    if "body.conv1.0.weight" not in state:
        raise ValueError(f"{file} has no weight 'body.conv1.0.weight', expected a TResNet as the ASL code saves it.")
    counts = [len({name.split(".")[2] for name in state if name.startswith(f"body.{layer}.")}) for layer in
              ("layer1", "layer2")]  # fmt: skip
    network = make_tresnet(state["body.conv1.0.weight"].shape[0], tuple(counts))
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counters, **state})
    except RuntimeError as error:
        raise ValueError(f"{file} is no TResNet with basic blocks in its first two stages: {error}") from None
    return network.eval()
