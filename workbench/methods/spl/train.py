"""Trains SPL: python -m workbench.methods.spl.train --variant full --help.

loss = 10 mean |G(x) - y| (1 + 2 m) + BCE(D(G(x)), real) + mean |prior - teacher(y)| (1 + 3 m), y the whole picture, m
its hole; D, the discriminator, learns along.
"""

import argparse
import copy
import functools

import torch
from torch import nn
from torch.func import functional_call

from workbench import check, metrics
from workbench import mask as masks
from workbench.diffusion.export import write_model
from workbench.diffusion.models import SIZE
from workbench.diffusion.train import add_arguments, carry_out, read_pictures
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, generator, held_out_crops, training_mask
from workbench.methods.spl.loading import VARIANTS
from workbench.methods.spl.networks import SplGenerator, complete, make_discriminator, make_spl, whitened
from workbench.methods.spl.teachers import KINDS, Teacher, make_teacher

IMAGE_WEIGHT = 10.0
ADVERSARIAL_WEIGHT = 1.0
PRIOR_WEIGHT = 1.0
HOLE_IN_IMAGE, HOLE_IN_PRIOR = 2.0, 3.0
"""What a pixel, and a cell of the prior, counts more in the hole than outside."""
RATIOS = (0.05, 0.6)
"""Shares of the picture that irregular holes cover."""
STROKES = 2000
"""Irregular holes to learn from, each in eight positions; one takes about 10 ms to draw, so they are drawn once."""
DISCRIMINATOR = (16, 32, 64, 128)
"""Channels of the bundled models' discriminator, a quarter of the release's."""
DEFAULTS = {"batch_size": 8, "learning_rate": 1e-3}
"""What differs from `training.Settings` unless told."""
TEACHERS = {"unsupervised": None, "detector-teacher": "detector", "random-teacher": "random"}
"""Variant -> its teacher; the classifier for the others."""
CALIBRATION = 32
"""Pictures that a teacher is calibrated with."""
SHOWN = 5
"""Views, and photographs, on a sheet."""


class Distilling(nn.Module):
    """The generator with its losses, its frozen teacher, and the discriminator with its own loss.

    One optimiser serves both sides: each loss reaches its own weights only, so their sum can be minimised at once.

    Args:
        network: to train.
        teacher: whose features of the whole picture the learner must guess; None teaches nothing, and the learner, with
            as many weights, is free to tell the decoder what it likes.
        adversarial_weight: 0 needs no discriminator.
        widths: of the discriminator.
        seed: of its weights.

    Raises:
        ValueError: the teacher's features are not of the shape that the learner guesses.

    Source: Zhang et al., IJCAI 2021, and their released code: the weights 10, 1, 1, the hole's 1 + 2 m and 1 + 3 m,
        losses on the raw picture, BCE that does not saturate. Differs in: both sides step at once; the common trainer's
        AdamW (betas 0.9 and 0.99) instead of Adam (0 and 0.9).
    """

    def __init__(
        self,
        network: SplGenerator,
        teacher: Teacher | None,
        adversarial_weight: float = ADVERSARIAL_WEIGHT,
        widths=DISCRIMINATOR,
        seed: int = 0,
    ):
        super().__init__()
        self.network, self.teacher = network, teacher
        self.adversarial_weight = check.number(adversarial_weight, "adversarial_weight", 0)
        self.discriminator = make_discriminator(widths, seed) if adversarial_weight > 0 else None
        if teacher is not None and (teacher.channels, teacher.enlarge) != _asked(network):
            raise ValueError(
                f"the teacher gives {teacher.channels} channels of a picture enlarged {teacher.enlarge} times, "
                f"expected {' and '.join(map(str, _asked(network)))}: what the learner guesses. Make the generator "
                "with the teacher's teacher_channels and enlarge."
            )

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, H, W) in [0, 1], mask (B, 1, H, W) and prior_weight, a number.

        ``per_sample`` (B,) is each item's image loss. Where the batch says that the learner is ``alone``, 1, nothing is
        painted, and only the prior's loss is told.
        """
        truth, mask = batch["image"], batch["mask"]
        if "alone" in batch and batch["alone"].mean() > 0:
            prior = self._prior(self.network.learn(truth, mask)[1].float(), truth, mask)
            others = [p for p in self.parameters() if p.requires_grad]
            return {"loss": prior + 0 * sum(p.sum() for p in others), "prior": prior}  # a gradient for all, as below
        done = self.network(truth, mask)
        image = done.image.float()  # (B, 3, H, W)
        each = ((image - truth).abs() * (1 + HOLE_IN_IMAGE * mask)).mean((1, 2, 3))  # (B,)
        losses = {"image": each.mean(), "per_sample": each.detach()}
        losses["prior"] = self._prior(done.teacher_features.float(), truth, mask)
        loss = IMAGE_WEIGHT * losses["image"] + batch["prior_weight"].mean() * losses["prior"]
        if self.discriminator is not None:
            losses |= self._adversarial(image, truth)
            loss = loss + self.adversarial_weight * losses["fooled"] + losses["told_apart"]
        return {"loss": loss, **losses}

    def _prior(self, guessed: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """mean |guessed - teacher(truth)| (1 + 3 m); 0 without a teacher, but of the graph all the same."""
        if self.teacher is None:
            return 0 * guessed.mean()  # several processes expect a gradient, if 0, for every weight
        wanted = self.teacher(truth).float()  # (B, T, h, w)
        hole = nn.functional.interpolate(mask, wanted.shape[-2:], mode="nearest")  # (B, 1, h, w)
        return ((guessed - wanted).abs() * (1 + HOLE_IN_PRIOR * hole)).mean()

    def _adversarial(self, image: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        """Binary cross-entropies of both sides; each reaches its own weights only."""
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = nn.functional.softplus(-functional_call(self.discriminator, frozen, (image,)).float()).mean()
        real, fake = self.discriminator(truth).float(), self.discriminator(image.detach()).float()
        told_apart = (nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()) / 2
        return {"fooled": fooled, "told_apart": told_apart}


def _asked(network: SplGenerator) -> tuple[int, int]:
    return network.config.teacher_channels, network.config.enlarge


class SplTask(ModelTask):
    """SPL's training; also for a `wb.TrainingRun`, where a branch may change ``prior_until``.

    Args:
        objective: `Distilling`.
        pictures: to learn from.
        validation: views of unseen seeds.
        variant: a key of `VARIANTS`, for the name and the card.
        prior_until: the update from which the prior loss is left out; None keeps it to the end.
        alone: (from, to), the updates in which the semantic learner learns alone, by the prior's loss: a third of the
            time each, and it learns faster undisturbed.
        mixed: takes the holes of `training_data.training_mask` (strokes, rectangles, boxes) instead of strokes alone.
        count: how many views are measured.

    Source: Zhang et al., IJCAI 2021, released code: irregular masks, mirrored pictures, and for Paris StreetView no
        prior loss in the last ten epochs. Differs in: strokes drawn here instead of the 12,000 masks of Liu et al.;
        ``alone`` is ours.

    Example:
        >>> task = SplTask(Distilling(make_spl(), teacher), pictures, validation)
        >>> wb.TrainingRun(task, batch_size=8, learning_rate=1e-3).step(10)
    """

    variants = ("prior_until",)
    """What a branch may change."""

    def __init__(
        self,
        objective: Distilling,
        pictures: TrainingPictures,
        validation: TrainingPictures,
        variant: str = "full",
        prior_until: int | None = None,
        alone: tuple[int, int] = (0, 0),
        mixed: bool = False,
        count: int = 96,
    ):
        self.objective, self.pictures, self.mixed = objective, pictures, mixed
        self.name = VARIANTS[check.choice(variant, "variant", VARIANTS)]
        self.prior_until = None if prior_until is None else check.integer(prior_until, "prior_until", 0)
        self.alone = tuple(check.integer(step, "alone", 0) for step in alone)
        if self.alone[0] < self.alone[1] and objective.teacher is None:
            raise ValueError(f"alone is {self.alone} without a teacher, expected one that the learner can learn from.")
        self.about = (
            f"SPL, variant {variant!r}, at {SIZE} x {SIZE}, holes: {'of all kinds' if mixed else 'irregular strokes'}. "
            "Measured in irregular holes of 5 % to 60 %, the same for all variants: PSNR (dB), SSIM and mean L1 on "
            "views of unseen seeds and on crops of held-out photographs; psnr_mean: the average colour of what is "
            "known; prior: mean L1 between the learnt features and the teacher's on the whole picture, in the hole and "
            "outside."
        )
        rows = range(0, len(validation), max(1, len(validation) // count))
        self.renders = torch.stack([validation.view(i)["image"] for i in list(rows)[:count]])  # (N, 3, 128, 128)
        self.photographs = held_out_crops()  # (M, 3, 128, 128)

    def variant(self, **changes) -> "SplTask":
        """The same task on the same model with some of `variants` changed."""
        unknown = sorted(set(changes) - set(self.variants))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} cannot change, expected one of: {', '.join(self.variants)}.")
        other, until = copy.copy(self), changes.get("prior_until", self.prior_until)
        other.prior_until = None if until is None else check.integer(until, "prior_until", 0)
        return other

    def batch(self, numbers):
        """image (B, 3, 128, 128), mask (B, 1, 128, 128), prior_weight: 1, or 0 in the late phase; alone: 1 or 0."""
        rngs = [generator(*number) for number in numbers]
        images = [self.pictures.draw(rng)["image"] for rng in rngs]
        holes = [self._hole(rng) for rng in rngs]
        late = self.prior_until is not None and numbers[0][1] >= self.prior_until
        weight = torch.tensor(0.0 if late else PRIOR_WEIGHT)
        alone = torch.tensor(float(self.alone[0] <= numbers[0][1] < self.alone[1]))
        return {"image": torch.stack(images), "mask": torch.cat(holes), "prior_weight": weight, "alone": alone}

    def _hole(self, rng) -> torch.Tensor:
        """(1, 1, 128, 128)."""
        if self.mixed:
            return training_mask(rng)
        hole = _strokes(int(rng.integers(STROKES))).float()
        hole = hole.mT if rng.random() < 0.5 else hole
        return hole.flip([axis for axis in (-1, -2) if rng.random() < 0.5]).contiguous()

    def validate(self):
        """PSNR, SSIM and mean L1 in the hole, and the prior's error, see `about`."""
        numbers = {}
        for name, images in (("renders", self.renders), ("photographs", self.photographs)):
            holes = fixed_masks(len(images))
            result, numbers_of_prior = self._completed(images, holes)
            for measure in (metrics.psnr, metrics.ssim, metrics.mean_l1):
                short = measure.__name__.removeprefix("mean_")
                numbers[f"{short}_{name}"] = measure(result, images, holes).mean().item()
            known = 1 - holes
            flat = (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True)  # (N, 3, 1, 1)
            numbers[f"psnr_mean_{name}"] = metrics.psnr(flat.expand_as(images), images, holes).mean().item()
            numbers |= {f"{key}_{name}": value for key, value in numbers_of_prior.items()}
        return numbers

    @torch.no_grad()
    def _completed(self, images: torch.Tensor, holes: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Raw pictures (N, 3, H, W), a few at a time, and the prior's error by region, where there is a teacher."""
        results, error, weight = [], torch.zeros(2), torch.zeros(2)
        network, teacher = self.objective.network, self.objective.teacher
        for image, hole in zip(images.split(16), holes.split(16), strict=True):
            done = complete(network, image, hole)
            results.append(done.image)
            if teacher is not None:
                wanted = teacher(image.to(network.device))
                each = (done.teacher_features - wanted).abs().mean(1, keepdim=True).cpu()  # (B, 1, h, w)
                inside = nn.functional.interpolate(hole, each.shape[-2:], mode="nearest")
                error += torch.stack([(each * inside).sum(), (each * (1 - inside)).sum()])
                weight += torch.stack([inside.sum(), (1 - inside).sum()])
        names = () if teacher is None else ("prior_hole", "prior_known")
        return torch.cat(results), dict(zip(names, (error / weight).tolist(), strict=False))

    def sheet(self):
        """Views and photographs: with the hole, the raw picture, put together, as they were."""
        images = torch.cat([self.renders[:: max(1, len(self.renders) // SHOWN)][:SHOWN], self.photographs[::3][:SHOWN]])
        holes = fixed_masks(len(images))
        raw = self._completed(images, holes)[0]
        return tiled([whitened(images, holes), raw, torch.where(holes > 0.5, raw, images), images])

    def export(self, folder, trained):
        """Writes the generator's folder; teacher and discriminator have done their work."""
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": self.objective.network}, title=self.name, **told)


@functools.cache
def _strokes(number: int) -> torch.Tensor:
    """One of the holes to learn from, (1, 1, 128, 128), as bool to keep them all at hand."""
    return masks.irregular((SIZE, SIZE), RATIOS, number).bool()


@functools.lru_cache(maxsize=8)
def fixed_masks(count: int) -> torch.Tensor:
    """Irregular holes (count, 1, 128, 128) to measure with, always the same; ratios spread evenly over `RATIOS`."""
    low, high = RATIOS
    ratios = [low + (high - low) * (i + 0.5) / count for i in range(count)]
    order = generator(7).permutation(count)
    return torch.cat([masks.irregular((SIZE, SIZE), ratios[k], int(k)) for k in order])


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.methods.spl.train", description=__doc__)
    parser.add_argument("--variant", choices=VARIANTS, required=True, help="as published, or an ablation")
    parser.add_argument("--teacher", choices=KINDS, help="who teaches (by variant; else the classifier)")
    parser.add_argument("--teacher-weights", help="folder or file of the teacher's weights (the bundled ones)")
    parser.add_argument("--adversarial", type=float, default=ADVERSARIAL_WEIGHT, help="weight of that loss (1)")
    parser.add_argument("--prior-until", type=int, help="update from which the prior loss is left out (never)")
    parser.add_argument(
        "--alone", type=int, nargs=2, default=(0, 0), help="updates from, to in which the learner learns alone (none)"
    )
    parser.add_argument("--mixed", action="store_true", help="also rectangles and boxes as holes")
    add_arguments(parser, photos="0.25")
    return parser


def main(arguments=None) -> None:
    """Reads the command line, trains, exports."""
    options = make_parser().parse_args(arguments)
    carry_out(options, VARIANTS[options.variant], DEFAULTS, _build)


def _build(options, settings, run, accelerator) -> SplTask:
    pictures, validation = read_pictures(options, photos=0.25)
    kind = options.teacher or TEACHERS.get(options.variant, "classifier")
    if options.variant == "unsupervised" and options.teacher:
        raise ValueError(f"teacher is {options.teacher!r} for variant 'unsupervised', expected none.")
    teacher, sizes = None, {}
    if kind is not None:
        shown = torch.stack([pictures.draw(generator(settings.seed, 0, i, 3))["image"] for i in range(CALIBRATION)])
        enlarge = 2 if kind == "tresnet" else 1
        teacher = make_teacher(kind, shown, source=options.teacher_weights, enlarge=enlarge, seed=settings.seed)
        sizes = {"teacher_channels": teacher.channels, "enlarge": enlarge, "teacher_scale": teacher.scale.item()}
    if options.variant == "concatenation":
        sizes["injection"] = "concatenation"
    objective = Distilling(make_spl(settings.seed, **sizes), teacher, options.adversarial, seed=settings.seed)
    return SplTask(objective, pictures, validation, options.variant, options.prior_until, options.alone, options.mixed)


if __name__ == "__main__":
    main()
