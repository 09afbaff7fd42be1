"""Claims about SPL, measured on held-out views with six holes each, one of every bin of hole ratios.

What is compared are generators of equal size and equal budget, trained by ``python -m workbench.methods.spl.train``
into the folders ``out/spl-<run>-<seed>``; `commands` says how; those of the findings learnt from 320 rooms and 64
facades. Of each claim there are two intervals, over trainings and over pictures: a difference that pictures agree on
may still be the luck of one training.
"""

import functools
import re
from pathlib import Path

import torch
from torch.nn import functional as F

from workbench import check, metrics
from workbench import mask as masks
from workbench.claims import Claim
from workbench.diffusion.export import how_trained
from workbench.lenses import trials
from workbench.mask import RATIO_BINS
from workbench.methods.spl.loading import load_spl
from workbench.methods.spl.networks import SplGenerator, complete, whitened
from workbench.methods.spl.pairs import KINDS, fixed_hole, held_out_views, render_held_out
from workbench.methods.spl.teachers import Teacher, make_teacher

UPDATES = 750
"""Of each training, as `commands` has it; any number will do, but the same for all that are compared."""
RUNS = {
    "full": "--variant full",
    "unsupervised": "--variant unsupervised",
    "concatenation": "--variant concatenation",
    "random-teacher": "--variant random-teacher",
    "detector-teacher": "--variant detector-teacher --teacher-weights out/spl-detector",
    "late": f"--variant full --prior-until {85 * UPDATES // 100}",
    "flips": "--variant full --style 0",
    "mixed": "--variant full --mixed",
}
"""What the claims compare -> how its training differs: "late" drops the prior loss for the last 15 % of the updates,
"flips" varies pictures by mirroring only, "mixed" also learns boxes and rectangles."""
DETECTOR = (
    "python -m workbench.methods.spl.detector --data $D --validation $V --minutes 13 "
    "--folder checkpoints/spl-detector --export out/spl-detector"
)
"""What trains the teacher of "detector-teacher"."""
SEEDS = range(3)
COUNT = 96
"""Views that are looked at, out of all held-out ones."""
SLIGHT = 0.2
"""dB; a gain below counts as none (S7)."""
LARGE = 3
"""Bins from this one on hold large holes: 30 % and more."""
BATCH = 16


def command(run: str, seed: int) -> str:
    """What trains one of `RUNS`: all but the folders it writes. D and V are folders to learn from and to watch."""
    head = "python -m workbench.methods.spl.train --data $D --validation $V --batch-size 8 --adversarial 0.1"
    return f"{head} --steps {UPDATES} {RUNS[run]} --seed {seed}"


def commands() -> list[str]:
    """What trains all that is measured here: lines for a shell, from the repository's root."""
    names = [(run, seed, f"spl-{run}-{seed}") for seed in SEEDS for run in RUNS]
    return [DETECTOR, *(f"{command(run, seed)} --folder checkpoints/{n} --export out/{n}" for run, seed, n in names)]


@functools.cache
def pictures() -> torch.Tensor:
    """Held-out views, spread evenly over rooms and facades, (N, 3, H, W); rendered when they are not there."""
    views = list(held_out_views(render_held_out(trials.TRAINED / "spl-evaluation")).values())
    return torch.cat([views[k * len(views) // min(COUNT, len(views))] for k in range(min(COUNT, len(views)))])


@functools.cache
def holes(kind: str = "irregular") -> torch.Tensor:
    """A hole of every bin for each picture, (6, N, 1, H, W).

    Args:
        kind: "irregular", or "squares": centred ones, as large as the irregular ones.
    """
    size, count = pictures().shape[-2:], len(pictures())
    if kind == "squares":
        fractions = holes().mean((2, 3, 4)).sqrt()  # (6, N)
        return torch.stack([torch.cat([masks.centre(size, f) for f in each]) for each in fractions.tolist()])
    bins = range(len(RATIO_BINS))
    return torch.stack([torch.cat([fixed_hole(size, k, len(KINDS) + 1, i) for i in range(count)]) for k in bins])


def folder_of(run: str, seed: int) -> Path:
    """Where a training has put its generator."""
    return trials.TRAINED / f"spl-{check.choice(run, 'run', RUNS)}-{seed}"


def seeds_of(*runs: str) -> list[int]:
    """Seeds for which all of these trainings are here.

    Raises:
        NotAvailable: there are none; the message says how to make them.
        ValueError: trainings of unequal budgets.
    """
    found = [seed for seed in SEEDS if all(folder_of(run, seed).is_dir() for run in runs)]
    if not found:
        missing = next(run for run in runs if not folder_of(run, SEEDS[0]).is_dir())
        trials.trained(folder_of(missing, SEEDS[0]).name, command(missing, SEEDS[0]))
    budgets = {f"{run}-{seed}": budget(folder_of(run, seed)) for run in runs for seed in found}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{name} {n or 'unknown'}" for name, n in budgets.items())
        raise ValueError(f"budgets are {told}, expected equal ones. Train with the same --steps and --batch-size.")
    return found


def budget(folder: Path) -> str:
    """Updates and pictures an update, as the card tells them: "4000 updates of 8 pictures"; "" without."""
    found = re.match(r"\d+ updates of \d+ pictures", how_trained(folder))
    return found[0] if found else ""


@functools.lru_cache(maxsize=2)
def trained(run: str, seed: int) -> SplGenerator:
    """A training's generator, in evaluation."""
    return load_spl(folder_of(run, seed))


@functools.cache
def bundled() -> SplGenerator:
    """tiny-spl, which had ten times as many updates."""
    return load_spl()


@functools.cache
def scores(run: str, seed: int, kind: str = "irregular") -> dict[str, torch.Tensor]:
    """PSNR and gradient similarity in the hole, (6, N) each."""
    model, found = trained(run, seed), {"psnr": [], "gradient_similarity": []}
    for each in holes(kind):
        raw = [complete(model, x, m).image for x, m in zip(pictures().split(BATCH), each.split(BATCH), strict=True)]
        for name, values in found.items():
            values.append(getattr(metrics, name)(torch.cat(raw), pictures(), each))
    return {name: torch.stack(values) for name, values in found.items()}


def together(of: str, run: str, seeds: list[int], kind: str = "irregular") -> torch.Tensor:
    """One score of all trainings of a run, (S, 6, N)."""
    return torch.stack([scores(run, seed, kind)[of] for seed in seeds])


def gain(run: str, against: str, of: str = "psnr", kind: str = "irregular") -> torch.Tensor:
    """How much better one run's generators are than another's of the same seed, (S, 6, N)."""
    seeds = seeds_of(run, against)
    return together(of, run, seeds, kind) - together(of, against, seeds, kind)


def told(name: str, values: torch.Tensor) -> dict[str, list[float]]:
    """Values (S, N) as two quantities: a mean for each training, and one for each picture.

    Three trainings decide where there are so many; fewer say nothing about luck, and the pictures come first.
    """
    found = {f"{name}, by training": values.mean(1).tolist(), f"{name}, by picture": values.mean(0).tolist()}
    return found if len(values) >= 3 else dict(reversed(found.items()))


def compared(run: str, against: str) -> dict[str, list[float]]:
    """The gain of one run over another, over all holes, and what both reach."""
    seeds = seeds_of(run, against)
    found = told(f"{run} - {against}, dB", gain(run, against).mean(1))
    for name in (run, against):
        found[f"{name}, dB"] = together("psnr", name, seeds).mean((0, 1)).tolist()
    edges = gain(run, against, "gradient_similarity").mean((0, 1))
    return found | {f"{run} - {against}, gradient similarity": edges.tolist()}


def prior_helps() -> dict:
    """S1."""
    return compared("full", "unsupervised")


def spade_beats_concatenation() -> dict:
    """S2."""
    return compared("full", "concatenation")


def semantics_matter() -> dict:
    """S3."""
    return compared("full", "random-teacher")


def labels_beat_boxes() -> dict:
    """S4."""
    return compared("full", "detector-teacher")


@functools.cache
def teacher() -> Teacher:
    """Who taught, with the scale that the first seed's learner knew; those of other seeds differ by their draws."""
    return make_teacher("classifier", scale=trained("full", seeds_of("full")[0]).config.teacher_scale)


@torch.no_grad()
def likeness(guess: torch.Tensor, truth: torch.Tensor, where: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """Mean cosine of two maps' cells (N, T, h, w) in a region (N, 1, h, w), (N,); 0 where it has no cell.

    Args:
        middle: (1, T, 1, 1), the mean feature: without it taken off, all cells of a rectified map look alike.
    """
    alike = F.cosine_similarity(guess - middle, truth - middle, dim=1)[:, None]  # (N, 1, h, w)
    return (alike * where).sum((1, 2, 3)) / where.sum((1, 2, 3)).clamp(min=1)


@torch.no_grad()
def prior_is_guessed() -> dict:
    """S5."""
    truth = torch.cat([teacher()(x) for x in pictures().split(BATCH)])  # (N, T, h, w)
    middle, learnt, known, masked, longer = truth.mean((0, 2, 3), keepdim=True), [], [], [], []
    seeds = seeds_of("full")
    for each in holes():
        where = F.interpolate(each, truth.shape[-2:], mode="nearest")
        pairs = list(zip(pictures().split(BATCH), each.split(BATCH), strict=True))
        broken = torch.cat([teacher()(whitened(*pair)) for pair in pairs])
        masked.append(likeness(broken, truth, where, middle))
        told_longer = torch.cat([complete(bundled(), *x).teacher_features for x in pairs])
        longer.append(likeness(told_longer, truth, where, middle))  # a cosine asks for no scale
        guesses = [torch.cat([complete(trained("full", s), *x).teacher_features for x in pairs]) for s in seeds]
        learnt.append(torch.stack([likeness(g, truth, where, middle) for g in guesses]))
        known.append(torch.stack([likeness(g, truth, 1 - where, middle) for g in guesses]))
    learnt, known, masked, longer = (torch.stack(x, -2) for x in (learnt, known, masked, longer))  # (S, 6, N), (6, N)
    return told("cosine in the hole, learnt - teacher at the hole", (learnt - masked).mean(1)) | {
        "learnt, in the hole": learnt.mean((0, 1)).tolist(),
        "learnt, outside": known.mean((0, 1)).tolist(),
        "learnt, in small holes": learnt[:, :LARGE].mean((0, 1)).tolist(),
        "learnt, in large holes": learnt[:, LARGE:].mean((0, 1)).tolist(),
        "teacher at the hole, in the hole": masked.mean(0).tolist(),
        "tiny-spl, of ten times as many updates, in the hole": longer.mean(0).tolist(),
    }


def late_phase_helps() -> dict:
    """S6."""
    return compared("late", "full")


def styles_do_not_help() -> dict:
    """S7."""
    return told(f"{SLIGHT} - (all styles - flips only), dB", SLIGHT - gain("full", "flips").mean(1)) | {
        "all styles - flips only, dB": gain("full", "flips").mean((0, 1)).tolist()
    }


def gain_grows() -> dict:
    """S8."""
    better = gain("full", "unsupervised")  # (S, 6, N)
    found = told("gain in large - in small holes, dB", better[:, LARGE:].mean(1) - better[:, :LARGE].mean(1))
    by_bin = {
        f"gain at {round(100 * low)}-{round(100 * high)} %, dB": better[:, k].mean(0).tolist()
        for k, (low, high) in enumerate(RATIO_BINS)
    }
    return found | by_bin


def squares_fail() -> dict:
    """S9."""
    squares, strokes = (gain("mixed", "full", kind=kind).mean(1) for kind in ("squares", "irregular"))  # (S, N)
    return told("mixed - strokes only, in squares, dB", squares) | {
        "mixed - strokes only, in strokes, dB": strokes.mean(0).tolist(),
        "what squares cost more than strokes, dB": (squares - strokes).mean(0).tolist(),
    }


_ZHANG = "Zhang et al., IJCAI 2021 (SPL)"
_TRAINED = (
    f"{COUNT} held-out views of {len(RATIO_BINS)} holes each, 0 to 60 %, PSNR in the hole of bundled-size generators "
    "trained equally long, the same seeds on both sides. Over trainings where there are three, else over pictures. "
)
CLAIMS = (
    Claim("S1", "A learnt semantic prior improves completion.", f"{_ZHANG}, abstract",
          f"{_TRAINED}With the prior loss against without, the same number of weights.", prior_helps),
    Claim("S2", "SPADE injects the prior better than concatenation.", f"{_ZHANG}, ablation",
          f"{_TRAINED}SPADE against one convolution that reads features and prior side by side.",
          spade_beats_concatenation),
    Claim("S3", "It matters that the teacher knows what things are.", f"{_ZHANG}, abstract",
          f"{_TRAINED}The classifier as teacher against the same network untrained.", semantics_matter),
    Claim("S4", "A multi-label classifier teaches better than a detector.", f"{_ZHANG}, ablation",
          f"{_TRAINED}The classifier as teacher against the same layers trained on boxes.", labels_beat_boxes),
    Claim("S5", "The prior guessed from the masked picture is close to the teacher's at the whole one.",
          f"{_ZHANG}, method",
          f"{COUNT} held-out views of {len(RATIO_BINS)} holes each; cosine to the teacher's features of the whole "
          "picture, their mean taken off: the learner's guess against the teacher that is shown the white hole. Over "
          "trainings where there are three, else over pictures.", prior_is_guessed),
    Claim("S6", "Leaving the prior loss out at the end improves the result.", "SPL's released code, README",
          f"{_TRAINED}The same training without the prior loss in its last 15 %, and with it.", late_phase_helps),
    Claim("S7", "More augmentation than mirroring does not help.", "SPL's released code, README",
          f"{_TRAINED}Pictures in photographic styles against mirrored ones only; a gain below {SLIGHT} dB counts as "
          "none.", styles_do_not_help),
    Claim("S8", "The prior helps more where more is missing.", f"implied by {_ZHANG}, introduction",
          f"{_TRAINED}The gain of S1 in holes above 30 % less that in smaller ones.", gain_grows),
    Claim("S9", "Learnt on irregular holes, it fails on centred squares.", "SPL's released code, issue 5",
          f"{_TRAINED}Here the holes are centred squares of the same sizes: trained on holes of all kinds against "
          "strokes only.", squares_fail),
)  # fmt: skip
