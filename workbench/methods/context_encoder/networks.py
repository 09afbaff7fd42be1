"""The Context Encoder: a picture with a square hole in its middle goes in, what belongs there comes out.

The encoder halves the picture five times, to 4 x 4 cells; a fully connected layer lets every cell see all others; the
decoder doubles four times, to the 64 x 64 pixels of the hole.
"""

import itertools

import torch
from torch import nn

from workbench import check
from workbench.diffusion.libraries import ConfigMixin, ModelMixin, register_to_config
from workbench.diffusion.models import SIZE, seeded
from workbench.image import from_signed, to_signed

BLOCK = 64
"""Side in pixels of the block that is predicted, in the middle of a picture of 128."""
RIM = 4
"""Pixels along the block's edge that are known nevertheless: the overlap that ties the prediction to the picture."""
HOLE = BLOCK - 2 * RIM
"""Side in pixels of the hole, 56: what the network does not see."""
COLOUR = (123 / 255, 117 / 255, 104 / 255)
"""What the hole is blanked with: ImageNet's mean, R, G, B."""
VARIANTS = {"adversarial": "tiny-context-encoder", "l2": "tiny-context-encoder-l2"}
"""How it was trained -> the bundled model's name."""


class Everywhere(nn.Module):
    """The channel-wise fully connected layer: y[c] = W[c] x[c] + b[c], each channel's n cells to n cells.

    Args:
        channels: C.
        cells: n = h w.

    Source: Pathak et al., CVPR 2016, section 3.1: C n^2 weights instead of the C^2 n^2 of a full connection.
    """

    def __init__(self, channels: int, cells: int):
        super().__init__()
        bound = cells**-0.5
        self.weight = nn.Parameter(torch.empty(channels, cells, cells))
        nn.init.uniform_(self.weight, -bound, bound)  # draws nothing where weights are loaded afterwards
        self.bias = nn.Parameter(torch.zeros(channels, 1, cells))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> the same shape."""
        cells = x.flatten(2).transpose(0, 1)  # (C, B, n)
        return (torch.bmm(cells, self.weight) + self.bias.to(cells.dtype)).transpose(0, 1).reshape(x.shape)


class ContextEncoder(ModelMixin, ConfigMixin):
    """Picture (B, 3, 128, 128) in [-1, 1], its hole blanked -> the middle block (B, 3, 64, 64) in [-1, 1].

    Args:
        down: channels after each of the five halvings.
        up: channels after the first three of the four doublings; the fourth gives R, G, B.

    Source: Pathak et al., CVPR 2016, section 3.1, and their released code: 4 x 4 kernels, stride 2, batch
    normalisation, tanh. Differs in: ELU, as Yang et al. (CVPR 2017) train their content network, where the release has
    (leaky) ReLU; the paper's channel-wise bottleneck of 4 x 4 cells and a 1 x 1 convolution, where the release has one
    full connection to 100 or 4000 numbers, which here would take half of all weights; far fewer channels.
    """

    @register_to_config
    def __init__(self, down: tuple[int, ...] = (16, 32, 64, 128, 192), up: tuple[int, ...] = (96, 48, 24)):
        super().__init__()
        if len(down) != 5 or len(up) != 3:
            raise ValueError(
                f"down is {tuple(down)} and up {tuple(up)}, expected five and three numbers of channels: "
                f"{SIZE} px are halved to 4, and 4 doubled to {BLOCK}."
            )
        layers: list[nn.Module] = [nn.Conv2d(3, down[0], 4, 2, 1), nn.ELU()]  # the first is not normed
        for before, width in itertools.pairwise(down):
            layers += [nn.Conv2d(before, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ELU()]
        self.encoder = nn.Sequential(*layers)
        last = down[-1]
        self.everywhere = nn.Sequential(
            Everywhere(last, (SIZE // 32) ** 2), nn.Conv2d(last, last, 1, bias=False), nn.BatchNorm2d(last), nn.ELU()
        )
        layers = []
        for before, width in itertools.pairwise((last, *up)):
            layers += [nn.ConvTranspose2d(before, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ELU()]
        colours = nn.ConvTranspose2d(up[-1], 3, 4, 2, 1)
        with torch.no_grad():
            colours.weight *= 0.1  # it begins nearly grey; noise would first have to be unlearnt
        self.decoder = nn.Sequential(*layers, colours, nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block (B, 3, 64, 64) in [-1, 1]."""
        x = x.contiguous(memory_format=torch.channels_last)  # on a CPU a third faster
        cells = self.encoder(x)  # (B, C, 4, 4)
        return self.decoder(self.everywhere(cells))  # (B, 3, 64, 64)


def make_context_encoder(down=(16, 32, 64, 128, 192), up=(96, 48, 24), seed: int = 0) -> ContextEncoder:
    """A fresh network; weights from a local seed."""
    with seeded(seed):
        return ContextEncoder(tuple(down), tuple(up))


def load_context_encoder(source="adversarial") -> ContextEncoder:
    """A trained Context Encoder, in evaluation.

    Args:
        source: "adversarial" or "l2", the bundled variants, or a folder.

    Raises:
        NotAvailable: its files are missing or damaged; the message names them.

    Example:
        >>> block = predict(load_context_encoder("l2"), photo)
    """
    from workbench.diffusion.pipelines import load_part

    return load_part(ContextEncoder, VARIANTS.get(source, source) if isinstance(source, str) else source)


def middle(side: int) -> slice:
    """Rows, or columns, of the square of this side in the middle of a picture of 128."""
    return slice((SIZE - side) // 2, (SIZE + side) // 2)


def blank(picture: torch.Tensor) -> torch.Tensor:
    """A copy of pictures (B, 3, 128, 128) in [0, 1] with the hole of 56 x 56 in one colour: what the network is shown.

    Source: the release, whose numbers 117, 104, 123 are ImageNet's mean in an unusual order of channels; here R, G, B.
    """
    blanked = picture.clone()
    blanked[..., middle(HOLE), middle(HOLE)] = picture.new_tensor(COLOUR).view(3, 1, 1)
    return blanked


@torch.no_grad()
def predict(model: ContextEncoder, picture: torch.Tensor) -> torch.Tensor:
    """What belongs in the middle of a picture; what stands there is not looked at.

    Args:
        model: from `load_context_encoder`; it computes as it is, so keep it in evaluation.
        picture: (B, 3, 128, 128) in [0, 1].

    Returns:
        (B, 3, 64, 64) in [0, 1]: the hole of 56 x 56 and a rim of 4 px, for rows and columns 32 to 96.

    Raises:
        ValueError: another size, or values out of range.

    Example:
        >>> predict(load_context_encoder(), torch.rand(1, 3, 128, 128)).shape
        torch.Size([1, 3, 64, 64])
    """
    check.image(picture, "picture")
    if tuple(picture.shape[-2:]) != (SIZE, SIZE):
        raise ValueError(
            f"picture is {tuple(picture.shape[-2:])} (H, W), expected {SIZE} x {SIZE} with the hole in its middle. "
            "For other sizes and holes take wb.inpaint(..., method='context_encoder')."
        )
    x = to_signed(blank(picture)).to(model.device, model.dtype)
    return from_signed(model(x).to(picture))
