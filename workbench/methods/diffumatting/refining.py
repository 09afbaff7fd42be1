"""How GreenPost's refiner and the factory's matting network are trained."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from workbench import check, metrics
from workbench.diffusion.export import write_model
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import generator
from workbench.methods.diffumatting import losses
from workbench.methods.diffumatting.data import GREEN, Backgrounds, Example, Mattes, before, squared
from workbench.methods.diffumatting.greenpost import chroma_key, clean_plate
from workbench.methods.diffumatting.networks import GreenRefiner, MattingNetwork, estimate_alpha, refine
from workbench.world import composite

SHOWN = 6
GREENS = ((0.0, 0.5, 0.0), (0.35, 1.0, 0.35))
"""Between these colours are the screens: the bundled autoencoder makes (0.27, 0.57, 0.22) of pure green."""
GRAIN, UNEVEN = 0.02, 0.05
"""How noisy a screen is at most, and how uneven: what samplers and decoders leave."""
SOFT = 0.2
"""Up to this share of the shorter side's tenth the stand-in for the coarse matte is blurred."""


class Refining(nn.Module):
    """The refiner with Background Matting V2's losses: those of the base at its size, and those of the whole.

    Args:
        network: to train.
        share: of cells that are mended, in training as later.
    """

    def __init__(self, network: GreenRefiner, share: float = 0.25):
        super().__init__()
        self.network, self.share = network, check.number(share, "share", 0, 1)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image, plate, foreground (B, 3, H, W) and alpha (B, 1, H, W)."""
        truth, colours = batch["alpha"], batch["foreground"]
        found = self.network(batch["image"], batch["plate"], self.share)
        size = found.coarse_alpha.shape[-2:]
        small, small_colours = (functional.interpolate(x, size, mode="area") for x in (truth, colours))
        told = {
            "base": losses.refinement(found.coarse_alpha, found.coarse_foreground, small, small_colours),
            "error": losses.error_prediction(found.error, found.coarse_alpha, small),
            "refined": losses.refinement(found.alpha, found.foreground, truth, colours),
        }
        each = (found.alpha.detach() - truth).abs()  # (B, 1, H, W)
        return {"loss": sum(told.values()), **told, "per_sample": each.mean((1, 2, 3)), "per_cell": each[:, 0]}


class RefinerTask(ModelTask):
    """The refiner's training: things on greens as a sampler leaves them, plates as GreenPost makes them.

    Args:
        network: to train.
        mattes: to learn from.
        validation: others.
        spoil: what else happens to a training picture (1, 3, H, W), such as a round trip through the autoencoder whose
            pictures will be refined; half of the pictures go through it.
        style: strength of the random photographic styles of the things.
        count: validation things that are measured.

    Source: Background Matting V2 (Lin et al., CVPR 2021); its plates' jitter, here of greens.

    Example:
        >>> task = RefinerTask(make_refiner(), SpriteMattes(["out/sprites"]), SpriteMattes(["out/val-sprites"]))
        >>> wb.TrainingRun(task, batch_size=8, learning_rate=1e-3).step(10)
    """

    name = "tiny-greenpost"

    def __init__(
        self,
        network: GreenRefiner,
        mattes: Mattes,
        validation: Mattes,
        spoil: Callable[[torch.Tensor], torch.Tensor] | None = None,
        style: float = 0.5,
        count: int = 48,
    ):
        self.objective = Refining(network)
        self.mattes, self.spoil, self.style = mattes, spoil, check.number(style, "style", 0, 2)
        self.held = [self._item(squared(validation[k]), generator(11, k)) for k in _spread(len(validation), count)]
        self.about = (
            "GreenPost's refiner (Background Matting V2 with a narrow base): picture and clean plate to alpha and "
            "foreground. On held-out things on greens that are not pure: alpha_mse (times 1000) and alpha_sad (sum / "
            "1000), key_mse: chroma key's, who is told the plate's colour, soft_mse and soft_key_mse: both on half "
            "transparent pixels only."
        )

    def batch(self, numbers):
        """image, plate, foreground (B, 3, H, W) and alpha (B, 1, H, W)."""
        rngs = [generator(*number) for number in numbers]
        items = [self._item(squared(self.mattes.draw(rng, self.style)), rng) for rng in rngs]
        return {name: torch.cat([item[name] for item in items]) for name in items[0]}

    @torch.no_grad()
    def _item(self, matte, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """A thing on a green of this item's, and the plate that GreenPost would make."""
        screen = self._screen(rng, matte.alpha.shape[-2:])  # (1, 3, H, W)
        image = composite(matte.foreground, matte.alpha, screen)
        if self.spoil is not None and rng.random() < 0.5:
            image = self.spoil(image).clamp(0, 1)
        noise = torch.from_numpy(rng.normal(size=image.shape).astype(np.float32))
        image = (image + GRAIN * rng.random() * noise).clamp(0, 1)
        background = image.flatten(2)[..., matte.alpha.flatten() < 0.05]  # (1, 3, N)
        colour = background.median(-1).values[0].tolist() if background.shape[-1] else list(GREEN)
        plate = clean_plate(image, _coarsened(matte.alpha, rng), colour)
        return {"image": image, "plate": plate, "foreground": matte.foreground, "alpha": matte.alpha}

    def _screen(self, rng: np.random.Generator, size) -> torch.Tensor:
        """A green (1, 3, H, W) that is not quite pure and not quite even."""
        colour = rng.uniform(*GREENS).astype(np.float32)  # (3,)
        coarse = torch.from_numpy(rng.normal(size=(1, 3, 4, 4)).astype(np.float32))
        uneven = functional.interpolate(coarse, tuple(size), mode="bicubic", align_corners=False)
        return (torch.from_numpy(colour).view(1, 3, 1, 1) + UNEVEN * rng.random() * uneven).clamp(0, 1)

    @torch.no_grad()
    def validate(self):
        """See `about`."""
        found = self._refined(self.held)
        truth = torch.cat([item["alpha"] for item in self.held])
        screens = [item["plate"].flatten(2).median(-1).values[0].tolist() for item in self.held]
        key = torch.cat([chroma_key(item["image"], c)[0] for item, c in zip(self.held, screens, strict=True)])
        soft = ((truth > 0.05) & (truth < 0.95)).float()
        numbers = {
            "alpha_mse": 1000 * metrics.matting_mse(found, truth).mean().item(),
            "alpha_sad": metrics.matting_sad(found, truth).mean().item(),
            "key_mse": 1000 * metrics.matting_mse(key, truth).mean().item(),
        }
        for name, alpha in (("soft_mse", found), ("soft_key_mse", key)):
            numbers[name] = 1000 * (((alpha - truth) ** 2 * soft).sum() / soft.sum().clamp(min=1)).item()
        return numbers

    def _refined(self, items: Sequence[dict]) -> torch.Tensor:
        found = [refine(self.objective.network, item["image"], item["plate"]).alpha for item in items]
        return torch.cat(found).cpu()

    def sheet(self):
        """Pictures, plates, mattes, and the true mattes."""
        items = self.held[:: max(1, len(self.held) // SHOWN)][:SHOWN]
        rows = [torch.cat([item[name] for item in items]) for name in ("image", "plate", "alpha")]
        mattes = [x.expand(-1, 3, -1, -1) for x in (self._refined(items), rows[2])]
        return tiled([rows[0], rows[1], *mattes])

    def export(self, folder, trained):
        """Writes the network's folder."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.network}, title=self.name, **told)


def _coarsened(alpha: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A stand-in for the head's matte: the true one, softened."""
    side = max(1, round(rng.random() * SOFT * min(alpha.shape[-2:]) / 10))
    return functional.avg_pool2d(alpha, 2 * side + 1, 1, side, count_include_pad=False)


def _spread(length: int, count: int) -> list[int]:
    """At most ``count`` numbers below ``length``, evenly spread."""
    return list(range(0, length, max(1, length // count)))[:count]


# The factory's customer


class Estimating(nn.Module):
    """The matting network with its loss: mean |a - a*| + |S(a) - S(a*)|."""

    def __init__(self, network: MattingNetwork):
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, H, W) and alpha (B, 1, H, W)."""
        truth = batch["alpha"]
        alpha = self.network(batch["image"])
        pixel = (alpha - truth).abs()  # (B, 1, H, W)
        edges = (losses.sobel(alpha) - losses.sobel(truth)).abs().mean()
        looks = {"per_sample": pixel.detach().mean((1, 2, 3)), "per_cell": pixel.detach()[:, 0]}
        return {"loss": pixel.mean() + edges, "pixel": pixel.mean(), "edges": edges, **looks}


class MattingTask(ModelTask):
    """A matting network on real and synthetic things: does the factory's output help?

    An item is synthetic with probability ``synthetic_share``: a ratio real : synthetic of 3:1 is a share of 0.25. Both
    kinds are put before fresh backgrounds; equal steps are an equal budget.

    Args:
        network: to train.
        real: things with exact mattes; None with a share of 1.
        synthetic: the factory's, `FolderMattes(folder, "foregrounds")` of what `make_dataset` wrote; None with 0.
        held: unseen real things, which are measured.
        backgrounds: what they stand before.
        synthetic_share: 0 to 1.
        count: held-out things that are measured.

    Raises:
        ValueError: a share that needs things that are not given.

    Source: DiffuMatting's tables over the ratio of real to synthetic data.
    """

    name = "tiny-matting"
    variants = ("synthetic_share",)

    def __init__(
        self,
        network: MattingNetwork,
        real: Mattes | None,
        synthetic: Mattes | None,
        held: Mattes,
        backgrounds: Backgrounds,
        synthetic_share: float = 0.0,
        count: int = 96,
    ):
        self.objective, self.real, self.synthetic = Estimating(network), real, synthetic
        self.backgrounds, self.synthetic_share = backgrounds, synthetic_share
        self._check_share()
        rngs = [generator(12, k) for k in range(count)]
        rows = _spread(len(held), count)
        self.held = [before(squared(held[k]), backgrounds.draw(rng)) for k, rng in zip(rows, rngs, strict=False)]
        self.about = (
            f"A small matting network, {synthetic_share:.0%} of its things synthetic. alpha_mse (times 1000) and "
            "alpha_sad (sum / 1000) on unseen sprites before photographs."
        )

    def _check_share(self) -> None:
        share = check.number(self.synthetic_share, "synthetic_share", 0, 1)
        if (share > 0 and self.synthetic is None) or (share < 1 and self.real is None):
            missing = "synthetic" if share > 0 and self.synthetic is None else "real"
            raise ValueError(f"synthetic_share is {share:g} and {missing} is None, expected things of that kind.")

    def variant(self, **changes) -> "MattingTask":
        """The same task on the same model with another share."""
        unknown = sorted(set(changes) - set(self.variants))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} cannot change, expected one of: {', '.join(self.variants)}.")
        other = object.__new__(type(self))
        vars(other).update(vars(self) | changes)
        other._check_share()
        return other

    def batch(self, numbers):
        """image (B, 3, 128, 128) and alpha (B, 1, 128, 128)."""
        items = [self._item(generator(*number)) for number in numbers]
        return {name: torch.cat([getattr(item, name) for item in items]) for name in ("image", "alpha")}

    def _item(self, rng: np.random.Generator) -> Example:
        synthetic = rng.random() < self.synthetic_share
        matte = squared((self.synthetic if synthetic else self.real).draw(rng))
        return before(matte, self.backgrounds.draw(rng))

    @torch.no_grad()
    def errors(self) -> dict[str, list[float]]:
        """MSE (times 1000) and SAD of each held-out thing, for intervals."""
        image, truth = (torch.cat([getattr(e, name) for e in self.held]) for name in ("image", "alpha"))
        alpha = torch.cat([estimate_alpha(self.objective.network, part) for part in image.split(16)])
        mse, sad = metrics.matting_mse(alpha, truth), metrics.matting_sad(alpha, truth)
        return {"alpha_mse": (1000 * mse).tolist(), "alpha_sad": sad.tolist()}

    def validate(self):
        """Means of `errors`."""
        return {name: float(np.mean(values)) for name, values in self.errors().items()}

    @torch.no_grad()
    def sheet(self):
        """Pictures, mattes, true mattes."""
        items = self.held[:: max(1, len(self.held) // SHOWN)][:SHOWN]
        image, truth = (torch.cat([getattr(item, name) for item in items]) for name in ("image", "alpha"))
        alpha = estimate_alpha(self.objective.network, image)
        return tiled([image, *(x.expand(-1, 3, -1, -1) for x in (alpha, truth))])

    def export(self, folder, trained):
        """Writes the network's folder."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.network}, title=self.name, **told)
