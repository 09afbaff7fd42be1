"""Trains the Context Encoder: python -m workbench.methods.context_encoder.train --variant l2|adversarial --help.

loss = lambda L2(F(x), y) + (1 - lambda) BCE(D(F(x)), real), y the true block, D the discriminator, which learns along.
"""

import argparse

import torch
from torch import nn
from torch.func import functional_call

from workbench import check, metrics
from workbench.diffusion.export import write_model
from workbench.diffusion.models import SIZE, Discriminator
from workbench.diffusion.train import add_arguments, carry_out, read_pictures
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, generator, held_out_crops
from workbench.image import resize, to_grey, to_signed
from workbench.methods.context_encoder.networks import (
    BLOCK,
    HOLE,
    RIM,
    VARIANTS,
    ContextEncoder,
    blank,
    make_context_encoder,
    middle,
    predict,
)

OVERLAP = 10.0
"""Weight of the rim in the L2 loss: there the truth is known, and a step would show."""
L2_SHARES = {"adversarial": 0.999, "l2": 1.0}
"""Variant -> lambda."""
PACE = 0.1
"""The discriminator's learning rate as a share of the network's."""
PARTS = 4
"""Items of a batch that are parts of one picture: drawing one costs half as much as learning from it."""
WHOLE = 0.25
"""Share of items that are whole pictures; the others are squares of at least half the side, enlarged."""
DEFAULTS = {"batch_size": 16, "learning_rate": 2e-3}
"""What differs from `training.Settings` unless told."""
SHOWN = 5
"""Views, and photographs, on a sheet."""


def overlap_weight() -> torch.Tensor:
    """Weight of each pixel in the L2 loss, (1, 1, 64, 64): 1 in the hole, 10 on the rim that the network sees."""
    weight = torch.full((1, 1, BLOCK, BLOCK), OVERLAP)
    weight[..., RIM:-RIM, RIM:-RIM] = 1
    return weight


def sharpness(result: torch.Tensor, truth: torch.Tensor) -> float:
    """Gradient energy of pictures over that of the true ones: 1 as sharp, 0 flat.

    mean |grad result|^2 / mean |grad truth|^2, of the luminance, neighbouring pixels, all pictures together

    Args:
        result, truth: (B, 3, H, W) in [0, 1].
    """

    def energy(image: torch.Tensor) -> float:
        grey = to_grey(image.double())  # (B, 1, H, W)
        return (grey.diff(dim=-1).square().mean() + grey.diff(dim=-2).square().mean()).item()

    return energy(result) / energy(truth)


class Completing(nn.Module):
    """The network with its losses, and for lambda < 1 the discriminator with its own.

    One optimiser serves both sides: each loss reaches its own weights only, so their sum can be minimised at once. The
    discriminator shall learn ten times more slowly. AdamW's step does not depend on the scale of a loss, so a factor
    there would do nothing; instead its parameters are stored ten times as large as they are used.

    Args:
        network: to train.
        l2_share: lambda, 0 to 1; 1 needs no discriminator.
        seed: of the discriminator's weights.

    Source: Pathak et al., CVPR 2016, equations 1 to 3, and their release: lambda 0.999, overlap 10, discriminator on
    the block alone, BCE that does not saturate. Differs in: the kit's patch discriminator gives 64 verdicts on patches
    of 38 px instead of one on the block, with group normalisation; the common trainer's AdamW (betas 0.9 and 0.99)
    instead of Adam (first beta 0.5).
    """

    def __init__(self, network: ContextEncoder, l2_share: float = 0.999, seed: int = 0):
        super().__init__()
        self.network = network
        self.l2_share = check.number(l2_share, "l2_share", 0, 1)
        self.discriminator = Discriminator(16, seed) if l2_share < 1 else None
        if self.discriminator is not None:
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter /= PACE

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, 128, 128) in [0, 1]; ``per_sample`` (B,) is each item's L2."""
        image = batch["image"]
        block = self.network(to_signed(blank(image))).float()  # (B, 3, 64, 64) in [-1, 1]
        truth = to_signed(image[..., middle(BLOCK), middle(BLOCK)])
        each = ((block - truth).square() * overlap_weight().to(block)).mean((1, 2, 3))  # (B,)
        losses = {"l2": each.mean(), "per_sample": each.detach()}
        if self.discriminator is None:
            return {"loss": self.l2_share * losses["l2"], **losses}
        losses |= self._adversarial(block, truth)
        joint = self.l2_share * losses["l2"] + (1 - self.l2_share) * losses["fooled"]
        return {"loss": joint + losses["told_apart"], **losses}

    def _adversarial(self, block: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        """Binary cross-entropies of both sides; each reaches its own weights only."""
        fooled = nn.functional.softplus(-self._scores(block, frozen=True)).mean()  # -log D(F(x)): does not saturate
        real, fake = self._scores(truth), self._scores(block.detach())
        told_apart = (nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()) / 2
        return {"fooled": fooled, "told_apart": told_apart}

    def _scores(self, block: torch.Tensor, frozen: bool = False) -> torch.Tensor:
        """Logits (B, 1, 8, 8), high = looks real."""
        weights = {n: PACE * (p.detach() if frozen else p) for n, p in self.discriminator.named_parameters()}
        return functional_call(self.discriminator, weights, (block,)).float()


class ContextEncoderTask(ModelTask):
    """The Context Encoder's training; also for a `wb.TrainingRun`.

    Args:
        objective: `Completing`; with lambda = 1 it makes the "l2" variant.
        pictures: to learn from.
        validation: views of unseen seeds.
        count: how many of them are measured.

    Example:
        >>> task = ContextEncoderTask(Completing(make_context_encoder()), pictures, validation)
        >>> wb.TrainingRun(task, batch_size=32, learning_rate=2e-3).step(10)
    """

    def __init__(self, objective: Completing, pictures: TrainingPictures, validation: TrainingPictures, count=192):
        self.objective, self.pictures = objective, pictures
        variant = "l2" if objective.discriminator is None else "adversarial"
        self.name = VARIANTS[variant]
        loss = "L2 alone" if variant == "l2" else f"L2 and an adversarial share of {1 - objective.l2_share:.3g}"
        self.about = (
            f"Context Encoder, trained with {loss}. Measured in the hole of {HOLE} x {HOLE} px in the middle of "
            f"{SIZE} x {SIZE}: PSNR (dB), mean L1, and gradient energy over the truth's (sharpness), on views of "
            "unseen seeds and on crops of held-out photographs; psnr_mean: the average colour of what is known."
        )
        rows = range(0, len(validation), max(1, len(validation) // count))
        self.renders = torch.stack([validation.view(i)["image"] for i in list(rows)[:count]])  # (N, 3, 128, 128)
        self.photographs = held_out_crops()  # (M, 3, 128, 128)

    def batch(self, numbers):
        """image (B, 3, 128, 128) in [0, 1]; four items in a row are parts of one picture."""
        drawn: dict[tuple[int, ...], torch.Tensor] = {}
        items = []
        for seed, step, item in numbers:
            picture = (seed, step, item // PARTS)
            if picture not in drawn:
                drawn[picture] = self.pictures.draw(generator(*picture))["image"]
            items.append(_part(drawn[picture], generator(seed, step, item, 1)))
        return {"image": torch.stack(items)}

    def validate(self):
        """PSNR, mean L1 and sharpness in the hole, see `about`."""
        numbers = {}
        for name, images in (("renders", self.renders), ("photographs", self.photographs)):
            truth = images[..., middle(HOLE), middle(HOLE)]  # (N, 3, 56, 56)
            result = self._blocks(images)[..., RIM:-RIM, RIM:-RIM]
            numbers[f"psnr_{name}"] = metrics.psnr(result, truth).mean().item()
            numbers[f"l1_{name}"] = metrics.mean_l1(result, truth).mean().item()
            numbers[f"sharpness_{name}"] = sharpness(result, truth)
            known = (images.sum((2, 3)) - truth.sum((2, 3))) / (SIZE**2 - HOLE**2)  # (N, 3)
            flat = known.clamp(0, 1)[..., None, None].expand_as(truth)
            numbers[f"psnr_mean_{name}"] = metrics.psnr(flat, truth).mean().item()
        return numbers

    def _blocks(self, images: torch.Tensor) -> torch.Tensor:
        """Predictions (N, 3, 64, 64), a few at a time."""
        return torch.cat([predict(self.objective.network, part) for part in images.split(32)])

    def sheet(self):
        """Views and photographs: with the hole, completed, as they were."""
        images = torch.cat([self.renders[:: max(1, len(self.renders) // SHOWN)][:SHOWN], self.photographs[::3][:SHOWN]])
        completed = images.clone()
        completed[..., middle(HOLE), middle(HOLE)] = self._blocks(images)[..., RIM:-RIM, RIM:-RIM]
        return tiled([blank(images), completed, images])

    def export(self, folder, trained):
        """Writes the network's folder; the discriminator has done its work."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.network}, title=self.name, **told)


def _part(picture: torch.Tensor, rng) -> torch.Tensor:
    """A square of a picture (3, 128, 128), at least half its side, at full size, perhaps mirrored."""
    side = SIZE if rng.random() < WHOLE else int(rng.integers(SIZE // 2, SIZE + 1))
    y, x = rng.integers(SIZE - side + 1, size=2)
    part = resize(picture[None, :, y : y + side, x : x + side], (SIZE, SIZE))[0]
    return part.flip(-1) if rng.random() < 0.5 else part


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.methods.context_encoder.train", description=__doc__)
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="the loss: L2 alone, or with adversary")
    parser.add_argument("--l2-share", type=float, help="adversarial: lambda, the share of L2 in the loss (0.999)")
    add_arguments(parser, photos="0.25")
    return parser


def main(arguments=None) -> None:
    """Reads the command line, trains, exports."""
    options = make_parser().parse_args(arguments)
    carry_out(options, VARIANTS[options.variant], DEFAULTS, _build)


def _build(options, settings, run, accelerator) -> ContextEncoderTask:
    share = L2_SHARES[options.variant] if options.l2_share is None else options.l2_share
    if (share == 1) != (options.variant == "l2"):
        raise ValueError(f"l2_share is {share} for variant {options.variant!r}, expected 1 for l2 and less otherwise.")
    objective = Completing(make_context_encoder(seed=settings.seed), share, settings.seed)
    return ContextEncoderTask(objective, *read_pictures(options, photos=0.25))


if __name__ == "__main__":
    main()
