"""The teacher: a frozen network that has never seen a hole, cut in the middle; the learner guesses its features."""

import torch
from torch import nn

from workbench import check
from workbench.diffusion.classifier import Classifier, load_classifier, make_classifier
from workbench.image import resize

LAYER = "relu4_2"
"""Where the bundled classifier is cut: 1/8 of the picture's size, 160 channels."""
KINDS = ("classifier", "detector", "random", "tresnet")
"""Teachers by name; see `make_teacher`."""


class Teacher(nn.Module):
    """Picture (B, 3, H, W) in [0, 1] -> feature map (B, T, h, w) of a frozen network.

    It stays in evaluation whoever trains what it is a part of, and passes no gradient.

    Args:
        network: with ``features(image, layers) -> {layer: map}``.
        layer: where it is cut.
        enlarge: how many times larger it sees the picture (bilinear), as the learner does.
    """

    def __init__(self, network: nn.Module, layer: str = LAYER, enlarge: int = 1):
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.layer, self.enlarge = layer, check.integer(enlarge, "enlarge", 1)
        self.register_buffer("scale", torch.ones(()))
        self.channels = self(torch.zeros(1, 3, 64, 64)).shape[1]

    @torch.no_grad()
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, T, h, w), times ``scale``."""
        self.network.eval()  # whatever mode a trainer has set
        if self.enlarge != 1:
            image = resize(image, tuple(n * self.enlarge for n in image.shape[-2:]))
        return self.network.features(image, [self.layer])[self.layer] * self.scale

    def calibrate(self, images: torch.Tensor) -> "Teacher":
        """Sets ``scale`` so that the features of these pictures (B, 3, H, W) have a standard deviation of 1.

        The prior loss then weighs as much whichever network teaches: without it a comparison of teachers would compare
        weights of losses too.
        """
        self.scale.fill_(1)
        self.scale.copy_(1 / self(images).float().std().clamp(min=1e-8))
        return self


def make_teacher(
    kind: str,
    pictures: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    source=None,
    enlarge: int = 1,
    seed: int = 0,
) -> Teacher:
    """A teacher, calibrated.

    Args:
        kind: "classifier", the bundled one, which names what is in a picture; "detector", the same network trained to
            say where things are; "random", the same network untrained; "tresnet", the published TResNet-L cut after
            its second stage, from a file of its weights.
        pictures: some to calibrate with, (B, 3, H, W) in [0, 1].
        scale: instead of them, what a calibration found: a generator's ``config.teacher_scale`` gives the teacher that
            it learnt from.
        source: a folder of the classifier or detector instead of the bundled one; the file of "tresnet".
        enlarge: see `Teacher`.
        seed: of random weights.

    Raises:
        NotAvailable: weights are missing.
        ValueError: an unknown kind; neither pictures nor a scale, or both; no pictures for "random", whose
            normalisation is set to them.

    Example:
        >>> teacher = make_teacher("classifier", scale=load_spl().config.teacher_scale)
        >>> teacher(photo).shape
    """
    check.choice(kind, "kind", KINDS)
    if (pictures is None) == (scale is None) or (kind == "random" and pictures is None):
        given = "neither" if pictures is None and scale is None else "both" if pictures is not None else "scale alone"
        raise ValueError(f"of pictures and scale {given} is given, expected one of them (pictures for 'random').")
    if pictures is not None:
        check.image(pictures, "pictures")
    teacher = Teacher(*_network(kind, pictures, source, seed), enlarge)
    if pictures is not None:
        return teacher.calibrate(pictures)
    teacher.scale.fill_(check.number(scale, "scale", 0))
    return teacher


def _network(kind: str, pictures, source, seed: int) -> tuple[nn.Module, str]:
    """A teacher's network, and the layer where it is cut."""
    if kind == "tresnet":
        from workbench.methods.spl.tresnet import load_tresnet

        if source is None:
            raise check.NotAvailable(
                "the weights of TResNet-L are not bundled. Get the ASL model for Open Images (MTL_OpenImages, "
                "TResNet-L) from its authors' page and give the file as source=."
            )
        return load_tresnet(source), "layer2"
    if kind == "detector":
        from workbench.methods.spl.detector import load_detector

        return load_detector(source or "tiny-detector").trunk, LAYER
    if kind == "random":
        return _untrained(pictures, seed), LAYER
    return load_classifier(source or "tiny-classifier"), LAYER


def _untrained(pictures: torch.Tensor, seed: int) -> Classifier:
    """The classifier's architecture with random weights, its batch normalisation set to these pictures.

    Without that the features of an untrained network hardly depend on the picture, and guessing them would be no task.
    """
    network = make_classifier(("nothing",), seed=seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over what is shown
    network.train()
    with torch.no_grad():
        network.features(pictures, [network.layer_names()[-1]])
    return network.eval()
