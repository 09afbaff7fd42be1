"""Claims about the Context Encoder, on views that nothing has learnt from: an adversarial share, a batch's statistics.

Nearly all of their time goes into rendering the views, some 2 processor seconds each.
"""

import copy
import math

import torch
from torch import nn

from workbench import metrics
from workbench.claims import Claim
from workbench.lenses import trials
from workbench.lenses.trials import minus
from workbench.methods.context_encoder.networks import (
    HOLE,
    RIM,
    ContextEncoder,
    load_context_encoder,
    middle,
    predict,
)
from workbench.methods.context_encoder.train import sharpness

VIEWS = range(96)
"""Of `trials.held_out`, 128 x 128."""
BATCH = 32
"""As many pictures the released code completes at once."""


def truths() -> torch.Tensor:
    """All views, (N, 3, 128, 128)."""
    return torch.cat([trials.held_out(number) for number in VIEWS])


def painted(model: ContextEncoder, views: torch.Tensor, at_once: int = BATCH) -> torch.Tensor:
    """What a network paints into the holes of views (N, 3, 128, 128), so many of them at a time: (N, 3, 56, 56)."""
    blocks = [predict(model, part)[..., RIM:-RIM, RIM:-RIM] for part in views.split(at_once)]
    return torch.cat(blocks)


def by_batch(model: ContextEncoder) -> ContextEncoder:
    """A copy whose batch normalisation takes mean and variance of the batch it is given, and remembers nothing."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    return model


def batches_help() -> dict:
    """N8."""
    views, model = truths(), load_context_encoder("adversarial")
    truth = views[..., middle(HOLE), middle(HOLE)]
    trained = by_batch(model)
    fills = {
        "in a batch": painted(trained, views),
        "alone": painted(trained, views, 1),
        "by what was learnt of the statistics": painted(model, views),
    }
    scores = {name: metrics.psnr(fill, truth).tolist() for name, fill in fills.items()}
    return {
        "in a batch - alone, dB": minus(scores["in a batch"], scores["alone"]),
        **{f"{name}, dB": score for name, score in scores.items()},
    }


def adversary_sharpens() -> dict:
    """N10."""
    views = truths()
    truth = views[..., middle(HOLE), middle(HOLE)]
    fills = {variant: painted(load_context_encoder(variant), views) for variant in ("adversarial", "l2")}
    sharp = {
        variant: [10 * math.log10(sharpness(a[None], b[None])) for a, b in zip(fill, truth, strict=True)]
        for variant, fill in fills.items()
    }
    scores = {variant: metrics.psnr(fill, truth).tolist() for variant, fill in fills.items()}
    return {
        "gradient energy, adversarial over L2, dB": minus(sharp["adversarial"], sharp["l2"]),
        **{f"gradient energy over the truth's, {variant}, dB": found for variant, found in sharp.items()},
        "PSNR, adversarial - L2, dB": minus(scores["adversarial"], scores["l2"]),
    }


_YANG = "Yang et al., CVPR 2017 (neural patch synthesis)"
_VIEWS = f"{len(VIEWS)} rendered views of held-out seeds, 128 x 128, hole of {HOLE} x {HOLE} in the middle. "
CLAIMS = (
    Claim("N8", f"A batch of {BATCH} gives a better content prediction than one picture alone.",
          f"{_YANG}, its released code's README",
          f"{_VIEWS}Batch normalisation by the batch's own statistics, {BATCH} at once against one at a time; PSNR in "
          "the hole. Beside it the statistics learnt in training, as everywhere else in the kit.", batches_help),
    Claim("N10", "An adversarial share of only 0.001 already sharpens the prediction.",
          f"{_YANG} and Pathak et al., CVPR 2016: lambda = 0.999",
          f"{_VIEWS}Gradient energy in the hole of the bundled networks, lambda 0.999 against 1.", adversary_sharpens),
)  # fmt: skip
