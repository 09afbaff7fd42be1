"""Trains MimicBrush: python -m workbench.methods.mimicbrush.train --data out/clips out/rooms --validation ... --help.

loss = mean w(t) |y - y_theta(z_t, t, mask, background, depth, tokens, reference)|^2 [+ p pointing], y the noise or v,
as the models it grows from have it; w as in `diffusion.prediction.level_weight`; pointing as in `pointing`.
"""

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from workbench import check, metrics
from workbench.diffusion.export import write_model
from workbench.diffusion.models import SIZE, make_scheduler
from workbench.diffusion.prediction import SNR_FLOOR, level_weight, noise_error, wanted
from workbench.diffusion.train import add_arguments, carry_out, read_pictures
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, gaussian, generator
from workbench.methods.mimicbrush.attention import READINGS
from workbench.methods.mimicbrush.augment import AUGMENTATIONS
from workbench.methods.mimicbrush.encoding import build_cache, encode_pairs, read_cache
from workbench.methods.mimicbrush.loading import LEARNT_FILE, NAME, grow_mimicbrush
from workbench.methods.mimicbrush.model import MimicBrush
from workbench.methods.mimicbrush.networks import LEARNT
from workbench.methods.mimicbrush.pairs import BAND, VIDEO_SHARE, Pair, Pairs, RenderedFilms
from workbench.methods.mimicbrush.pointing import asking, pointing_loss
from workbench.methods.mimicbrush.sampling import sample

DEPTH_DROPOUT = 0.5
"""Share of items that learn without depth."""
REFERENCE_DROPOUT = 0.1
"""Share of items that learn without reference, as guidance needs."""
LEVELS = 8
"""Noise levels at which the validation loss is measured."""
STEPS, GUIDANCE = 20, 3.0
"""Of the samples drawn while training."""
SHOWN = 8
HELD = 32
"""Unseen pairs that are measured."""
DEFAULTS = {"batch_size": 16, "learning_rate": 3e-4}
"""What differs from `training.Settings` unless told."""


class Imitation(nn.Module):
    """The two U-Nets with the loss they learn by.

    Args:
        model: its imitator is trained; the rest is left alone.
        part: of the imitative U-Net, see `networks.LEARNT`.
        train_reference: whether the reference U-Net learns too, as in the paper; it is then stored along.
        pointing: weight of the term by which attention learns where to look; 0 as in the paper.
    """

    def __init__(self, model: MimicBrush, part: str = "reading", train_reference: bool = False, pointing: float = 0.0):
        super().__init__()
        self.pointing = check.number(pointing, "pointing", 0)
        self.imitator = model.imitator.trains(part, train_reference)
        self.scheduler = make_scheduler(training=True, prediction=model.scheduler.config.prediction_type)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for what `MimicTask.batch` gives.

        Beside "loss" and "error", to look at: "per_sample" (B,) and "per_cell" (B, h, w), whose means are the loss
        without "pointing", which is there where its weight is above 0.
        """
        t, noise = batch["t"], batch["noise"]
        noisy = self.scheduler.add_noise(batch["latents"], noise, t)  # (B, 4, h, w)
        tokens = self.imitator.tokens(batch["states"])  # (B, n, C)
        depth = self.imitator.depth_latents(batch["depth"])  # (B, 4, h, w)
        bank = self.imitator.read(batch["reference"], t, tokens)
        given = (noisy, t, batch["mask"], batch["background"], depth, tokens, bank, batch["present"])
        with asking(self.imitator.unet) as queries:
            square = (self.imitator(*given).float() - wanted(self.scheduler, batch["latents"], noise, t)).square()
        each, weight = square.mean((1, 2, 3)), level_weight(self.scheduler, t, floor=SNR_FLOOR)  # (B,)
        looks = {"per_sample": (weight * each).detach(), "per_cell": weight.view(-1, 1, 1) * square.detach().mean(1)}
        losses = {"loss": (weight * each).mean(), "error": noise_error(self.scheduler, each, t).mean(), **looks}
        if self.pointing > 0:
            there = torch.where(batch["present"].view(-1, 1, 1, 1) > 0, batch["there"], -1.0)
            losses["pointing"] = pointing_loss(self.imitator, bank, queries, there, noisy.shape[-2:])
            losses["loss"] = losses["loss"] + self.pointing * losses["pointing"]
        return losses


class MimicTask(ModelTask):
    """MimicBrush's training; also for a `wb.TrainingRun`.

    Args:
        model: see `loading.grow_mimicbrush`, or a trained one to go on with.
        encoded: pairs to learn from, of `encode_pairs` or `read_cache`.
        held: pairs of unseen films to measure with; they stay pictures.
        depth_dropout, reference_dropout: shares of items without.
        part, train_reference, pointing: see `Imitation`.

    Raises:
        ValueError: pairs that do not go with the model, or a share that is none.

    Source: Chen et al., 2024, sections 3.2 and 4.1. Differs in: the reference U-Net and the way down of the
        imitative one are frozen unless told (K_r and V_r learn), mirrored and jittered references are encoded once,
        AdamW; noisy timesteps are drawn more often, with a density proportional to t: there the reference tells most.

    Example:
        >>> task = MimicTask(model, encode_pairs(model, pairs), held)
        >>> wb.TrainingRun(task, batch_size=4, learning_rate=1e-4).step(20)
    """

    name = NAME
    variants = ("depth_dropout", "reference_dropout")
    """What a branch may change."""

    def __init__(
        self,
        model: MimicBrush,
        encoded: dict[str, torch.Tensor],
        held: list[Pair],
        depth_dropout: float = DEPTH_DROPOUT,
        reference_dropout: float = REFERENCE_DROPOUT,
        part: str = "reading",
        train_reference: bool = False,
        pointing: float = 0.0,
    ):
        self.model, self.encoded, self.held = model, encoded, list(held)
        self.depth_dropout = check.number(depth_dropout, "depth_dropout", 0, 1)
        self.reference_dropout = check.number(reference_dropout, "reference_dropout", 0, 1)
        width = encoded["states"].shape[-1]
        if width != model.config.image_width:
            raise ValueError(f"the pairs' states have {width} channels, expected {model.config.image_width}.")
        if not self.held:
            raise ValueError("held is empty, expected pairs of unseen films to measure with.")
        self.objective = Imitation(model, part, train_reference, pointing)
        self.about = (
            f"MimicBrush at {SIZE} x {SIZE}, shared attention as in the {model.config.reading} reading; goes with "
            f"{model.config.base}, {model.config.image_encoder} and {model.config.depth}. Measured on pairs of unseen "
            f"scenes: error is the mean squared error of the noise at {LEVELS} levels, error_alone the same without "
            f"reference. hole_psnr (dB): {SHOWN} samples of {STEPS} steps, guidance {GUIDANCE:g}, no depth; "
            "hole_psnr_tokens: image tokens alone, no reference U-Net; hole_psnr_copy: the reference's own pixels."
        )
        with torch.no_grad():
            self.nothing = model.image_encoder.nothing(1)[0].float().cpu()  # (n, C)
            no_depth = model.depth_map(torch.zeros(1, 3, *encoded["depth"].shape[-2:], device=model.device), use=False)
        self.no_depth = no_depth[0].float().cpu()  # (1, H, W)

    def variant(self, **changes) -> "MimicTask":
        """The same task on the same model with some of `variants` changed."""
        other = copy.copy(self)
        for name, value in changes.items():
            if name not in self.variants:
                raise ValueError(f"{name} cannot change, expected one of: {', '.join(self.variants)}.")
            setattr(other, name, check.number(value, name, 0, 1))
        return other

    def batch(self, numbers):
        """latents, noise, background, reference (B, 4, h, w), mask, states, depth, there, t (B,), present (B,)."""
        items = [self._item(generator(*number)) for number in numbers]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    def _item(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        row = int(rng.integers(len(self.encoded["latents"])))
        item = {name: value[row].float() for name, value in self.encoded.items()}
        present = rng.random() >= self.reference_dropout
        with_depth = rng.random() >= self.depth_dropout
        return {
            **item,
            "states": item["states"] if present else self.nothing,
            "depth": item["depth"] if with_depth else self.no_depth,
            "present": torch.tensor(float(present)),
            "t": torch.tensor(int(1000 * rng.random() ** 0.5)),
            "noise": gaussian(rng, item["latents"].shape),
        }

    @torch.no_grad()
    def validate(self):
        """Errors and samples on unseen pairs, see `about`."""
        numbers = {"error": self._error(1.0), "error_alone": self._error(0.0)}
        source, mask, reference = self._shown()
        results = {"": self.samples(), "_tokens": self.samples(attend=False), "_copy": reference}
        for name, result in results.items():
            numbers[f"hole_psnr{name}"] = metrics.psnr(result, source, mask).mean().item()
        return numbers

    def _error(self, present: float) -> float:
        """The unweighted loss at fixed levels, without depth."""
        device, errors = self.model.device, []
        batch = {name: value.float() for name, value in encode_pairs(self.model, self.held).items()}
        count = len(batch["latents"])
        batch["present"] = torch.full((count,), present)
        batch["depth"] = self.no_depth.expand(count, -1, -1, -1)
        if not present:
            batch["states"] = self.nothing.expand(count, -1, -1)
        batch = {name: value.to(device) for name, value in batch.items()}
        for level in range(LEVELS):
            noise = gaussian(generator(3, level), batch["latents"].shape).to(device)
            t = torch.full((count,), 1000 * level // LEVELS + 62, device=device)
            errors.append(self.objective({**batch, "noise": noise, "t": t})["error"].item())
        return float(np.mean(errors))

    def _shown(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Source, mask and reference of the pairs that are sampled."""
        shown = self.held[:SHOWN]
        return tuple(torch.cat([getattr(pair, name) for pair in shown]) for name in ("source", "mask", "reference"))

    @torch.no_grad()
    def samples(self, attend: bool = True, steps: int = STEPS) -> torch.Tensor:
        """The first unseen pairs' sources, filled: (n, 3, H, W)."""
        given = self.model.conditions(*self._shown())
        seeds = list(range(len(given.background)))
        looks = sample(self.model, given, seed=seeds, num_inference_steps=steps, guidance_scale=GUIDANCE, attend=attend)
        *_, last = looks
        return self.model.decode(last.latents).float().cpu()

    def sheet(self):
        """Sources with their holes, references, samples, the truth."""
        source, mask, reference = self._shown()
        return tiled([source * (1 - mask) + 0.5 * mask, reference, self.samples(), source])

    def export(self, folder, trained):
        """Writes what was trained: of the imitative U-Net what learnt, adapters, the reference U-Net if that learnt."""
        folder, imitator = Path(folder), self.model.imitator
        parts = {"adapters": imitator.adapters}
        learnt = {name: p.detach() for name, p in imitator.unet.named_parameters() if p.requires_grad}
        folder.mkdir(parents=True, exist_ok=True)
        if len(learnt) == len(list(imitator.unet.parameters())):
            parts["unet"] = imitator.unet
            (folder / LEARNT_FILE).unlink(missing_ok=True)
        else:
            save_file({name: p.half().cpu().contiguous() for name, p in learnt.items()}, folder / LEARNT_FILE)
        if any(p.requires_grad for p in imitator.reference.parameters()):
            parts["reference"] = imitator.reference
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, parts, title=self.name, **told)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.methods.mimicbrush.train", description=__doc__)
    parser.add_argument("--inpaint", default="tiny-inpaint", help="pipeline the imitative U-Net grows from")
    parser.add_argument("--base", default="tiny-t2i", help="pipeline of the reference U-Net and the autoencoder")
    parser.add_argument("--classifier", default="tiny-classifier", help="image encoder: name or folder")
    parser.add_argument("--depth", default="tiny-depth", help="depth estimator: name or folder")
    parser.add_argument("--reading", choices=READINGS, default="paper", help="of the shared attention (paper)")
    parser.add_argument(
        "--part", choices=LEARNT, default="reading", help="of the imitative U-Net that learns, and is stored"
    )
    parser.add_argument("--pointing", type=float, default=0.0, help="weight of known correspondences (0, as published)")
    parser.add_argument("--train-reference", action="store_true", help="the reference U-Net learns too, and is stored")
    parser.add_argument("--pairs", type=int, default=8000, help="pairs encoded beforehand (8000)")
    parser.add_argument("--cache", type=Path, help="their folder; trainings may share one (pairs, in that of the run)")
    parser.add_argument("--video-share", type=float, default=VIDEO_SHARE, help="share of frame pairs (0.7)")
    parser.add_argument("--band", type=float, nargs=2, default=BAND, help="SSIM of the frames that are learnt from")
    parser.add_argument("--strength", type=float, default=1.0, help="of the reference's augmentation (1)")
    parser.add_argument("--changes", nargs="*", choices=AUGMENTATIONS, default=AUGMENTATIONS, help="of them (all)")
    parser.add_argument("--guide", choices=("keypoints", "sift", "none"), default="keypoints", help="of grid masks")
    add_arguments(parser, photos="0.3 of the stills")
    return parser


def main(arguments=None) -> None:
    """Reads the command line, trains, exports."""
    options = make_parser().parse_args(arguments)
    carry_out(options, NAME, DEFAULTS, _build)


def _build(options, settings, run, accelerator) -> MimicTask:
    """Encodes the pairs, each process its share, and joins everything."""
    pictures, unseen = read_pictures(options, photos=0.3)
    names = {"inpaint": options.inpaint, "base": options.base, "classifier": options.classifier, "depth": options.depth}
    model = grow_mimicbrush(**names, reading=options.reading, seed=settings.seed).to(accelerator.device)
    pairs = _pairs(pictures, options.video_share, options)
    part = (accelerator.process_index, accelerator.num_processes)
    cache = build_cache(model, pairs, options.cache or run / "pairs", options.pairs, settings.seed, part)
    accelerator.wait_for_everyone()
    with_films = len(RenderedFilms(unseen)) > 0
    validation = _pairs(unseen, 1.0 if with_films else 0.0, options)
    held = [validation.draw(generator(9, k)) for k in range(HELD)]
    told = {"part": options.part, "train_reference": options.train_reference, "pointing": options.pointing}
    return MimicTask(model, read_cache(cache), held, **told)


def _pairs(pictures: TrainingPictures, video_share: float, options) -> Pairs:
    return Pairs(RenderedFilms(pictures), pictures, video_share, tuple(options.band), options.changes,
                 options.strength, options.guide)  # fmt: skip


if __name__ == "__main__":
    main()
