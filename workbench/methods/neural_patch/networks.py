"""Texture networks: the frozen first layers of a classifier, whose features are what patches are compared by.

One class for all: a plain stack of convolutions and ReLUs with the weights of the bundled classifier, of VGG-19, or
drawn at random. Only the weights differ, so a comparison of networks compares nothing else.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from workbench import check
from workbench.diffusion.classifier import NAME, Classifier, load_classifier
from workbench.diffusion.weight_files import read_weights

VGG19 = (2, 2, 4, 4, 4)
"""Convolutions in each stage of VGG-19."""
VGG19_WIDTHS = (64, 128, 256, 512, 512)
VGG19_FILES = ("vgg19-dcbb9e9d.pth", "vgg19.safetensors")
"""Names that torchvision's weights go by."""
RANDOM_WIDTHS = (16, 48, 96, 160, 256)
"""Channels of the random network's stages: those of the bundled classifier, so that only learning tells them apart."""

SMALL_LAYERS = ("relu2_1", "relu3_2")
"""What is compared of the bundled classifier and of its random twin."""


class TextureNetwork(nn.Module):
    """Frozen convolutions; x_{k+1} = max(0, w_k * x_k + b_k), the size halved (maximum of 2 x 2) between stages.

    Args:
        stages: for each stage its convolutions, each (weight (C', C, 3, 3), bias (C',)).
        mean, std: three numbers each; a picture in [0, 1] goes in as (x - mean) / std.
        name: told in labels and notes.
        layers: see below; None takes VGG's.

    Attributes:
        layers: the two middle layers whose patches are compared unless others are named: relu3_1 and relu4_1, as in the
            paper; of the small classifier relu2_1 and relu3_2, because it looks at more of the picture with fewer
            channels, and its deeper layers leave more grain (seen and measured on facades and gravel).
        content_layer: the deeper layer of the content term "features".

    Source: Simonyan and Zisserman, ICLR 2015; layers as in Yang et al., CVPR 2017.

    Example:
        >>> network = load_network("random")
        >>> network.features(photo, ["relu3_1"])["relu3_1"].shape
    """

    layers = ("relu3_1", "relu4_1")
    content_layer = "relu4_2"

    def __init__(self, stages, mean, std, name: str, layers: tuple[str, ...] | None = None):
        super().__init__()
        self.layers = layers or type(self).layers
        self.name, self.counts = name, tuple(len(stage) for stage in stages)
        for s, stage in enumerate(stages, 1):
            for k, (weight, bias) in enumerate(stage, 1):
                self.register_buffer(f"weight{s}_{k}", weight.detach().clone())
                self.register_buffer(f"bias{s}_{k}", bias.detach().clone())
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def layer_names(self) -> list[str]:
        """Names that `features` knows: relu1_1, relu1_2, relu2_1, ..."""
        return [f"relu{s}_{k}" for s, count in enumerate(self.counts, 1) for k in range(1, count + 1)]

    def stride(self, layer: str) -> int:
        """Pixels a side of the block that one cell of the layer stands for: 2^(stage - 1)."""
        return 2 ** (self._place(layer)[0] - 1)

    def reach(self, layer: str) -> int:
        """How many pixels beyond its own block a cell of the layer sees, to each side."""
        stage, k = self._place(layer)
        return sum(self.counts[s - 1] * 2 ** (s - 1) for s in range(1, stage)) + k * 2 ** (stage - 1)

    def features(self, image: torch.Tensor, layers: Iterable[str]) -> dict[str, torch.Tensor]:
        """Feature maps by layer name, (B, C, H / stride, W / stride), at least 0; computed no deeper than needed.

        Args:
            image: (B, 3, H, W), RGB, [0, 1] (not checked: an optimiser may step outside for a moment).
            layers: names such as "relu3_1".

        Raises:
            ValueError: an unknown layer.
        """
        wanted = {check.choice(layer, "layer", self.layer_names()) for layer in layers}
        found: dict[str, torch.Tensor] = {}
        x = (image - self.mean.to(image)) / self.std.to(image)
        for name in self.layer_names():
            if wanted <= set(found):
                break
            stage, k = self._place(name)
            if k == 1 and stage > 1:
                x = F.max_pool2d(x, 2)  # (B, C, h / 2, w / 2)
            weight, bias = getattr(self, f"weight{stage}_{k}"), getattr(self, f"bias{stage}_{k}")
            x = F.conv2d(x, weight.to(x), bias.to(x), padding=1).relu()
            if name in wanted:
                found[name] = x
        return found

    def _place(self, layer: str) -> tuple[int, int]:
        check.choice(layer, "layer", self.layer_names())
        stage, k = layer.removeprefix("relu").split("_")
        return int(stage), int(k)

    def __repr__(self) -> str:
        return f"TextureNetwork({self.name}: layers relu1_1 to {self.layer_names()[-1]})"


def load_network(source="classifier", *, seed: int = 0) -> TextureNetwork:
    """A texture network by name, from a file, or made of a classifier.

    Args:
        source: "classifier" (the bundled one), "vgg19" (torchvision's weights, when they are at hand: looked for in
            ``data/models/vgg19`` and in torch's cache of downloads), "random" (weights drawn by He's rule: the control
            that shows how much is learning and how much is architecture), a folder of a classifier, a file of VGG-19's
            weights (.pth or .safetensors), a `Classifier`, or a `TextureNetwork`, which comes back as it is.
        seed: of the random weights.

    Returns:
        The network, frozen.

    Raises:
        NotAvailable: the weights are not on this machine, damaged or another network's; the message says what to do.
        TypeError: a source of another kind.

    Source: VGG-19 expects pictures less (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225), as torchvision trained it.
        Yang et al. took Caffe's weights (BGR, 0 to 255, less the mean); the features are alike, their scale is not, and
        does not matter here: see `Objective`.

    Example:
        >>> network = load_network("random", seed=1)
    """
    if isinstance(source, TextureNetwork):
        return source
    if isinstance(source, Classifier):
        return _of_classifier(source)
    if not isinstance(source, (str, Path)):
        raise TypeError(
            f"network is a {type(source).__name__}, expected 'classifier', 'vgg19', 'random', a path, a Classifier or "
            "a TextureNetwork."
        )
    if source == "random":
        return _random(check.seed(seed))
    if source == "classifier":
        return _of_classifier(_bundled())
    if source == "vgg19":
        return _vgg19(_find_vgg19())
    path = Path(source)
    if path.is_dir():
        return _of_classifier(load_classifier(path))
    if path.is_file():
        return _vgg19(path)
    raise check.NotAvailable(
        f"network is {str(source)!r}, which is neither 'classifier', 'vgg19', 'random' nor a file or folder here."
    )


def _bundled() -> Classifier:
    try:
        return load_classifier(NAME)
    except check.NotAvailable as error:
        raise check.NotAvailable(
            f"the bundled classifier is not on this machine: {error} Take network='random' for the control with random "
            "weights, or network='path/to/vgg19-dcbb9e9d.pth'."
        ) from None


def _of_classifier(classifier: Classifier) -> TextureNetwork:
    """Convolution and batch normalisation, in evaluation, are one convolution: w' = w g / s, b' = b - m g / s."""
    stages = []
    for s, stage in enumerate(classifier.stages, 1):
        pairs = []
        for k in (1, 2):
            convolution, norm = getattr(stage, f"conv{s}_{k}"), getattr(stage, f"bn{s}_{k}")
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()  # (C',)
            pairs.append((convolution.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain))
        stages.append(pairs)
    return TextureNetwork(stages, (0.5,) * 3, (0.25,) * 3, "classifier", SMALL_LAYERS)


def _random(seed: int) -> TextureNetwork:
    generator = torch.Generator().manual_seed(seed)
    stages, before = [], 3
    for width in RANDOM_WIDTHS:
        pairs = []
        for _ in range(2):
            weight = torch.randn(width, before, 3, 3, generator=generator) * math.sqrt(2 / (9 * before))
            pairs.append((weight, torch.zeros(width)))
            before = width
        stages.append(pairs)
    return TextureNetwork(stages, (0.5,) * 3, (0.25,) * 3, "random weights", SMALL_LAYERS)


def _find_vgg19() -> Path:
    from workbench.diffusion.pipelines import MODELS

    places = (MODELS / "vgg19", Path(torch.hub.get_dir()) / "checkpoints")
    for file in (place / name for place in places for name in VGG19_FILES):
        if file.is_file():
            return file
    raise check.NotAvailable(
        f"the weights of VGG-19 are in neither {places[0]} nor {places[1]}. Get "
        f"https://download.pytorch.org/models/{VGG19_FILES[0]} on a machine with a network and put the file into "
        f"{places[0]}, or pass it: network='path/to/{VGG19_FILES[0]}'. Offline, take network='classifier'."
    )


def _vgg19(file: Path) -> TextureNetwork:
    """torchvision's layout: features.N.weight and .bias, N counting convolutions, ReLUs and poolings alike."""
    tensors, stages, number, before = _read(file), [], 0, 3
    for count, width in zip(VGG19, VGG19_WIDTHS, strict=True):
        pairs = []
        for _ in range(count):
            shapes = {f"features.{number}.weight": (width, before, 3, 3), f"features.{number}.bias": (width,)}
            for key, shape in shapes.items():
                came = tuple(tensors[key].shape) if key in tensors else None
                if came != shape:
                    told = "is missing" if came is None else f"has shape {came}"
                    raise check.NotAvailable(
                        f"{file}: {key} {told}, expected {shape} as in torchvision's vgg19 without batch normalisation."
                    )
            pairs.append(tuple(tensors[key].float() for key in shapes))
            number, before = number + 2, width  # a convolution and its ReLU
        stages.append(pairs)
        number += 1  # the pooling
    return TextureNetwork(stages, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "VGG-19")


def _read(file: Path) -> dict[str, torch.Tensor]:
    """Tensors by name."""
    found = read_weights(file)
    if not isinstance(found, dict):
        raise check.NotAvailable(f"{file} holds a {type(found).__name__}, expected tensors by name.")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
