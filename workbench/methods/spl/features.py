"""Looks inside SPL that `workbench.lenses.features` does not give: priors, modulation, regions, reach, verdicts."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from workbench import check
from workbench.lenses.features import cluster_maps, record_features
from workbench.methods.spl.layers import RegionNorm
from workbench.methods.spl.networks import LEAST, MULTIPLE, PatchDiscriminator, SplGenerator, complete, whitened
from workbench.methods.spl.teachers import Teacher

WAYS = ("both", "encoder", "prior")
"""How a known pixel can reach a painted one: through the image encoder, through the semantic prior."""


@dataclass(frozen=True, eq=False)
class Priors:
    """What three eyes make of one picture; feature maps (1, T, h, w) of the same channels.

    Args:
        truth: the teacher at the whole picture: what is to be guessed.
        masked: the teacher at the picture with its hole white: what a hole breaks.
        learnt: the learner's guess from the masked picture.
        hole: (1, 1, h, w), the mask at their size.
    """

    truth: torch.Tensor
    masked: torch.Tensor
    learnt: torch.Tensor
    hole: torch.Tensor

    def errors(self) -> dict[str, float]:
        """Mean L1 to the truth, in the hole and outside, of both guesses: masked_hole, masked_known, ..."""
        found = {}
        for name in ("masked", "learnt"):
            off = (getattr(self, name) - self.truth).abs().mean(1, keepdim=True)  # (1, 1, h, w)
            for where, region in (("hole", self.hole), ("known", 1 - self.hole)):
                found[f"{name}_{where}"] = ((off * region).sum() / region.sum().clamp(min=1)).item()
        return found

    def clusters(self, k: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
        """K-means of each map by itself, labels matched to the truth's: {name: (h, w)}.

        Source: the journal successor's released code, K = 8, where the colours of the maps are not matched.
        """
        names = ("truth", "masked", "learnt")
        maps = cluster_maps([getattr(self, name) for name in names], k, seed=seed, jointly=False)
        return dict(zip(names, maps, strict=True))


@torch.no_grad()
def compare_priors(model: SplGenerator, teacher: Teacher, image: torch.Tensor, mask: torch.Tensor) -> Priors:
    """The teacher's features with and without the hole, and what the learner makes of the masked picture.

    Args:
        model: a generator, in evaluation.
        teacher: the one it learnt from.
        image: the whole picture, (1, 3, H, W) in [0, 1], sides multiples of 8.
        mask: (1, 1, H, W), 1 = hole.

    Raises:
        ValueError: shapes or ranges, or a teacher with other features than the learner guesses.

    Example:
        >>> priors = compare_priors(load_spl(), teacher, photo, mask)
        >>> priors.clusters()["learnt"].shape
    """
    check.image(image)
    check.mask(mask, like=image)
    learnt = complete(model, image, mask).teacher_features
    truth, masked = teacher(image), teacher(whitened(image, mask))
    if truth.shape != learnt.shape:
        raise ValueError(
            f"the teacher's map is {tuple(truth.shape)}, the learner's {tuple(learnt.shape)}, expected the same: the "
            "teacher it learnt from, and a picture whose sides are multiples of 8."
        )
    return Priors(truth, masked, learnt, F.interpolate(mask, truth.shape[-2:], mode="nearest"))


def modulation(model: SplGenerator, image: torch.Tensor, mask: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """SPADE at work: for each injection gamma, beta (1, C, h, w), and the block's features before and after.

    Args:
        model, image, mask: as in `complete`.

    Returns:
        {"blocks.0.inject1": {"gamma": ..., "beta": ..., "before": ..., "after": ...}, ...}; before is what is
        normalised, after is what leaves SPADE.

    Raises:
        ValueError: the generator has no SPADE (the concatenation ablation).

    Example:
        >>> gamma = modulation(load_spl(), photo, mask)["blocks.0.inject1"]["gamma"]
    """
    names = [name for name, _ in model.named_modules() if name.endswith((".inject1", ".inject2"))]
    if model.config.injection != "spade":
        raise ValueError(f"the generator injects by {model.config.injection}, expected spade: only it has gamma, beta.")
    parts = dict(model.named_modules())
    seen: dict[str, torch.Tensor] = {}
    hooks = [parts[name].register_forward_pre_hook(_note_input(seen, name)) for name in names]
    try:
        with record_features(model, "blocks.*") as recorded:
            complete(model, image, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: {
            "gamma": recorded[f"{name}.gamma"], "beta": recorded[f"{name}.beta"],
            "before": seen[name], "after": recorded[name],
        }
        for name in names
    }  # fmt: skip


@dataclass(frozen=True)
class RegionStatistics:
    """One region normalisation, before and after: a mean and a standard deviation (C,) of each channel by region.

    Args:
        mean_before, mean_after, std_before, std_after: {"hole": (C,), "known": (C,)}.
    """

    mean_before: dict[str, torch.Tensor]
    mean_after: dict[str, torch.Tensor]
    std_before: dict[str, torch.Tensor]
    std_after: dict[str, torch.Tensor]


def region_statistics(model: SplGenerator, image: torch.Tensor, mask: torch.Tensor) -> dict[str, RegionStatistics]:
    """What region normalisation does in the encoder: statistics of hole and known part before and after each.

    Args:
        model, image, mask: as in `complete`; one picture, sides multiples of 4.

    Returns:
        {"encoder.norms.0": RegionStatistics, ...}

    Example:
        >>> region_statistics(load_spl(), photo, mask)["encoder.norms.0"].mean_before["hole"]
    """
    names = [name for name, part in model.named_modules() if isinstance(part, RegionNorm)]
    parts, seen = dict(model.named_modules()), {}
    hooks = [parts[name].register_forward_pre_hook(_note_input(seen, name)) for name in names]
    try:
        with record_features(model, names) as recorded:
            complete(model, image, mask)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name in names:
        before, after = (_by_region(x, mask) for x in (seen[name], recorded[name]))
        found[name] = RegionStatistics(before[0], after[0], before[1], after[1])
    return found


def receptive_field(
    model: SplGenerator, image: torch.Tensor, mask: torch.Tensor, at: tuple[int, int], through: str = "both"
) -> torch.Tensor:
    """What sets one painted pixel: how steeply it answers to each pixel of the picture.

    Args:
        model, image, mask: as in `complete`; one picture, sides multiples of 4.
        at: (x, y) of the painted pixel.
        through: "encoder" holds the prior fixed, "prior" what the encoder is shown; "both" holds nothing.

    Returns:
        (1, 1, H, W), sums of the slopes' magnitudes over colours, divided by their sum; 0 in the hole, which no
        branch is shown.

    Raises:
        ValueError: shapes or ranges, an unknown way, a pixel outside the picture.

    Source: Luo et al., NeurIPS 2016 (effective receptive fields), for one pixel of one picture.

    Example:
        >>> wb.plot.show_map(receptive_field(load_spl(), photo, mask, at=(64, 64)).log10())
    """
    check.image(image)
    check.mask(mask, like=image)
    check.choice(through, "through", WAYS)
    height, width = image.shape[-2:]
    if len(image) != 1 or height % MULTIPLE or width % MULTIPLE or min(height, width) < LEAST:
        raise ValueError(
            f"image is {tuple(image.shape)}, expected one picture (1, 3, H, W), sides multiples of {MULTIPLE} and at "
            f"least {LEAST}."
        )
    x, y = (check.integer(value, "at", 0, size - 1) for value, size in zip(at, (width, height), strict=True))
    seen, mask = image.detach().clone().requires_grad_(), mask.to(image)
    fixed = image.detach()
    with torch.enable_grad():
        prior = model.learn(fixed if through == "encoder" else seen, mask)[0]
        painted = model.paint(fixed if through == "prior" else seen, mask, prior)
        slopes = torch.autograd.grad(painted[0, :, y, x].sum(), seen)[0]  # (1, 3, H, W)
    found = slopes.abs().sum(1, keepdim=True)
    return found / found.sum().clamp(min=torch.finfo(found.dtype).tiny)


@torch.no_grad()
def score_map(discriminator: PatchDiscriminator, image: torch.Tensor) -> torch.Tensor:
    """How real a discriminator finds each part of a picture.

    Args:
        discriminator: that of a `train.Distilling`, trained along or afterwards.
        image: (B, 3, H, W) in [0, 1], 32 pixels a side or more.

    Returns:
        (B, 1, H / 8 - 2, W / 8 - 2) in [0, 1], 1 = real: one verdict for a patch of about 70 x 70 pixels, their centres
        8 pixels apart.

    Raises:
        ValueError: shape or range of the picture.

    Example:
        >>> wb.plot.show_map(score_map(objective.discriminator, photo), limits=(0, 1))
    """
    check.image(image)
    if min(image.shape[-2:]) < 32:
        raise ValueError(f"image is {tuple(image.shape[-2:])} (H, W), expected at least 32 x 32: one verdict.")
    training = discriminator.training
    discriminator.eval()  # spectral normalisation moves its estimate in training
    try:
        return discriminator(image.to(next(discriminator.parameters()))).sigmoid()
    finally:
        discriminator.train(training)


def _note_input(seen: dict[str, torch.Tensor], name: str):
    def hook(part, inputs) -> None:
        seen[name] = inputs[0].detach().clone()

    return hook


def _by_region(x: torch.Tensor, mask: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Mean and standard deviation of each channel of (1, C, h, w), by region."""
    hole = F.interpolate(mask, x.shape[-2:], mode="nearest")[0, 0] > 0.5  # (h, w)
    cells = {"hole": x[0][:, hole], "known": x[0][:, ~hole]}  # (C, n)
    means = {name: values.mean(1) for name, values in cells.items()}
    return means, {name: values.std(1, correction=0) for name, values in cells.items()}
