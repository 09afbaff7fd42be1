"""A small depth estimator: a U-shaped network that gives the logarithm of depth, right up to a factor.

loss = sqrt(mean d^2 - 0.85 (mean d)^2) + 0.5 |gradients of d|,  d = log estimate - log truth
"""

import itertools

import torch
from torch import nn

from workbench import check
from workbench.diffusion.export import write_model
from workbench.diffusion.libraries import ConfigMixin, ModelMixin, register_to_config
from workbench.diffusion.models import seeded
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, generator
from workbench.image import resize

NAME = "tiny-depth"
KINDS = ("room", "facade", "clip")
"""Data sets whose whole picture has a depth; sprites stand before nothing."""
FARTHEST = 200.0
"""Metres; what is farther (the sky) does not count."""


class _Block(nn.Sequential):
    def __init__(self, before: int, width: int, stride: int = 1):
        layers = []
        for k in range(2):
            layers += [
                nn.Conv2d(before if k == 0 else width, width, 3, stride if k == 0 else 1, 1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
        super().__init__(*layers)


class DepthEstimator(ModelMixin, ConfigMixin):
    """Picture (B, 3, H, W) in [0, 1], H and W multiples of 16 -> log depth (B, 1, H, W), up to a constant.

    Args:
        widths: channels at full, half, ... size; multiples of 8.
    """

    @register_to_config
    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96, 160)):
        super().__init__()
        self.down = nn.ModuleList([_Block(3, widths[0])])
        self.down.extend(_Block(a, b, 2) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(_Block(a + b, a) for a, b in itertools.pairwise(widths))
        self.last = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Log depth (B, 1, H, W)."""
        kept, x = [], (image - 0.5) / 0.25
        for block in self.down:
            x = block(x)
            kept.append(x)
        for block, skip in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            x = nn.functional.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([skip, x], 1))
        return self.last(x)


def make_depth(widths=(16, 32, 64, 96, 160), seed: int = 0) -> DepthEstimator:
    """A fresh estimator; weights from a local seed."""
    with seeded(seed):
        return DepthEstimator(tuple(widths))


def load_depth(source=NAME) -> DepthEstimator:
    """The bundled depth estimator, in evaluation.

    Args:
        source: the bundled name, or a folder.

    Raises:
        NotAvailable: its files are missing or damaged; the message names the file.
    """
    from workbench.diffusion.pipelines import load_part

    return load_part(DepthEstimator, source)


@torch.no_grad()
def estimate_depth(image: torch.Tensor, model: DepthEstimator | None = None) -> torch.Tensor:
    """Relative depth of a picture of any size: larger = farther, median 1.

    Args:
        image: (B, 3, H, W) in [0, 1].
        model: None takes `load_depth`.

    Returns:
        (B, 1, H, W), positive; true depth is about this times one unknown factor a picture.

    Example:
        >>> depth = estimate_depth(photo)
    """
    check.image(image)
    model = model or load_depth()
    height, width = image.shape[-2:]
    scale = 128 / min(height, width)  # the size it was trained at
    size = tuple(max(16, 16 * round(n * scale / 16)) for n in (height, width))
    depth = model(resize(image, size).to(model.device, model.dtype)).float().exp().to(image.device)  # (B, 1, *size)
    depth = nn.functional.interpolate(depth, (height, width), mode="bilinear", align_corners=False)
    return depth / depth.flatten(1).median(1).values.view(-1, 1, 1, 1)


def known(depth: torch.Tensor) -> torch.Tensor:
    """Where a true depth (B, 1, H, W) counts: positive, finite, nearer than `FARTHEST`; float, same shape."""
    return (depth.isfinite() & (depth > 0.01) & (depth < FARTHEST)).float()


def share_within(log_estimate: torch.Tensor, depth: torch.Tensor, ratio: float = 1.25) -> torch.Tensor:
    """delta < ratio: share of pixels whose estimate is within a factor of the truth, after alignment; (B,).

    Alignment: each estimate is multiplied by one number, the median over known pixels of truth / estimate.

    Args:
        log_estimate: (B, 1, H, W).
        depth: true depth in metres, same shape; see `known`.
        ratio: larger than 1.

    Source: Eigen et al., NeurIPS 2014, delta < 1.25; differs in the alignment, which relative depth needs.
    """
    shares = []
    for estimate, truth, weight in zip(log_estimate, depth, known(depth), strict=True):
        difference = (truth.log() - estimate)[weight > 0]
        shares.append(((difference - difference.median()).abs() < torch.tensor(ratio).log()).float().mean())
    return torch.stack(shares)


class Estimating(nn.Module):
    """The estimator with its loss.

    Source: Eigen et al., NeurIPS 2014 (scale-invariant, lambda 0.85); Ranftl et al., TPAMI 2022 (gradients).
    """

    def __init__(self, estimator: DepthEstimator):
        super().__init__()
        self.estimator = estimator

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, H, W) and depth (B, 1, H, W) in metres."""
        weight = known(batch["depth"])
        truth = torch.where(weight > 0, batch["depth"], torch.ones_like(weight)).log()
        difference = (self.estimator(batch["image"]).float() - truth) * weight  # (B, 1, H, W)
        count = weight.sum((1, 2, 3)).clamp(min=1)  # (B,)
        mean, square = difference.sum((1, 2, 3)) / count, difference.square().sum((1, 2, 3)) / count
        scale_free = (square - 0.85 * mean.square()).clamp(min=1e-6).sqrt().mean()
        edges = sum(_gradients(difference[..., ::k, ::k], weight[..., ::k, ::k]) for k in (1, 2, 4)) / 3
        return {"loss": scale_free + 0.5 * edges, "scale_free": scale_free, "edges": edges}


def _gradients(difference: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean absolute gradient where both neighbours are known."""
    total = difference.new_zeros(())
    for axis in (-1, -2):
        n = difference.shape[axis] - 1
        both = weight.narrow(axis, 0, n) * weight.narrow(axis, 1, n)
        total = total + (difference.diff(dim=axis).abs() * both).sum() / both.sum().clamp(min=1)
    return total


class DepthTask(ModelTask):
    """The depth estimator's training.

    Args:
        objective: `Estimating`.
        pictures: rendered views of `KINDS`.
        validation: the same of unseen seeds.
        count: how many of them are measured.
    """

    name = NAME
    about = "Log depth up to a factor; delta < 1.25 on unseen views, each aligned by the median of truth / estimate."

    def __init__(self, objective: Estimating, pictures: TrainingPictures, validation: TrainingPictures, count=200):
        self.objective, self.pictures = objective, pictures
        rows = list(range(0, len(validation), max(1, len(validation) // count)))[:count]
        views = [validation.view(i) for i in rows]
        self.held = {key: torch.stack([view[key] for view in views]) for key in ("image", "depth")}

    def batch(self, numbers):
        """image (B, 3, H, W) and depth (B, 1, H, W)."""
        views = [self.pictures.draw(generator(*number)) for number in numbers]
        return {key: torch.stack([view[key] for view in views]) for key in ("image", "depth")}

    @torch.no_grad()
    def _estimates(self, images: torch.Tensor) -> torch.Tensor:
        model = self.objective.estimator
        return torch.cat([model(part.to(model.device)).float().cpu() for part in images.split(32)])

    def validate(self):
        """delta < 1.25 on unseen views, each aligned by one factor (see `share_within`)."""
        shares = share_within(self._estimates(self.held["image"]), self.held["depth"])
        return {"delta_1.25": shares.mean().item()}

    def sheet(self):
        """Views, true and estimated log depth, each spread over its own range."""
        images, depth = self.held["image"][:8], self.held["depth"][:8]
        truth = torch.where(known(depth) > 0, depth, torch.full_like(depth, 50.0)).log()
        return tiled([images, _spread(truth), _spread(self._estimates(images))])

    def export(self, folder, trained):
        """Writes the estimator's folder."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.estimator}, title=self.name, **told)


def _spread(values: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) -> grey pictures (B, 3, H, W), near = bright."""
    low, high = values.amin((1, 2, 3), keepdim=True), values.amax((1, 2, 3), keepdim=True)
    return (1 - (values - low) / (high - low).clamp(min=1e-6)).expand(-1, 3, -1, -1)
