"""A MimicBrush of a few thousand weights, none of them zero: what counts for nothing at first must count in a test."""

import copy
import functools

import torch

from tests.stepping.narrow import inpainting, text_to_image
from workbench.diffusion.classifier import make_classifier
from workbench.diffusion.depth import make_depth
from workbench.diffusion.export import digest_of
from workbench.methods.mimicbrush.conditions import ClassifierStates, Disparity
from workbench.methods.mimicbrush.model import MimicBrush
from workbench.methods.mimicbrush.networks import make_imitator

CLASSIFIER = (4, 5, 6, 9, 8)
DEPTH = (8, 8, 8, 8, 8)


def fresh(reading="paper", seed=0, **config):
    """An imitator as `make_imitator` grows it."""
    inpaint, t2i = copy.deepcopy(inpainting(9)), copy.deepcopy(text_to_image())  # they are frozen here
    empty = None if config.pop("shared_tokens", False) else torch.randn(1, 5, 32, generator=_generator(7))
    config["digest"] = digest_of(t2i.unet, t2i.vae.encoder)
    return make_imitator(
        inpaint.unet, t2i.unet, CLASSIFIER[-1], factor=4, empty=empty, reading=reading, seed=seed, **config
    )


def stirred(imitator, seed=1):
    """The same with new input channels that do something, and fresh projections of the reference."""
    generator = _generator(seed)
    with torch.no_grad():
        new = imitator.unet.conv_in.weight[:, 9:]
        new.copy_(0.1 * torch.randn(new.shape, generator=generator))
        for layer in (*imitator.adapters.reference_k, *imitator.adapters.reference_v):
            layer.weight.copy_(0.2 * torch.randn(layer.weight.shape, generator=generator))
        imitator.adapters.projector.weight.mul_(1e5)  # an untrained classifier's states are about 1e-5
    return imitator


@functools.cache
def model(reading="paper", **config):
    """The whole; shared, not to be changed."""
    classifier = make_classifier(("a", "b"), CLASSIFIER, seed=1)
    parts = (copy.deepcopy(text_to_image().vae), ClassifierStates(classifier), Disparity(make_depth(DEPTH)))
    return MimicBrush(stirred(fresh(reading, **config)), *parts).requires_grad_(False).eval()


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=_generator(seed))


def _generator(seed):
    return torch.Generator().manual_seed(seed)
