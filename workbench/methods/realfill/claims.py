"""Claims about RealFill, measured with tiny-inpaint on the rendered benchmark: where the truth is known to the pixel.

Every scene is tuned with the same options and the same number of updates, at half the model's side: a quarter of the
cost; R1 also compares with the model as it is at its own. What is kept of a tuning are its samples, so that claims
which ask for the same one share it.
"""

import functools

import numpy as np
import torch

from workbench import data, metrics
from workbench import mask as masks
from workbench.claims import Claim, Finding
from workbench.diffusion.classifier import Classifier, load_classifier
from workbench.diffusion.filling import crop_round_hole, sample_hole
from workbench.diffusion.lora import remove_lora
from workbench.lenses import trials
from workbench.lenses.trials import minus
from workbench.methods import inpaint
from workbench.methods.realfill.dreambooth import dreambooth
from workbench.methods.realfill.exemplar import exemplar
from workbench.methods.realfill.fill import sample
from workbench.methods.realfill.ranking import rank
from workbench.methods.realfill.task import PROMPT
from workbench.methods.realfill.tuning import fine_tune
from workbench.methods.realfill.warping import warp

HOLE = "centre"
"""A fifth of the picture, in its middle."""
REFERENCES = (0, 1, 2, 3)
SIDE = 64
"""Pixels; everything is learnt and sampled at this side."""
STEPS = 120
TUNING = {"batch_size": 4, "learning_rate": 5e-3}
SEEDS = range(4)
MANY_SEEDS = range(16)
SAMPLING = {"num_inference_steps": 20, "side": SIDE}
COLUMNS = ("PSNR", "SSIM", "tiny_perceptual", "gradients")
"""Of the table: the paper's first two, our stand-in for its LPIPS, and gradient similarity."""


def model():
    """tiny-inpaint, loaded once."""
    return trials.model("tiny-inpaint")


def painter():
    """tiny-t2i, loaded once: what DreamBooth teaches."""
    return trials.model("tiny-t2i")


@functools.cache
def classifier() -> Classifier:
    """The bundled one, loaded once: for tiny_perceptual."""
    return load_classifier().requires_grad_(False)


def quality(fills: torch.Tensor, scene) -> torch.Tensor:
    """PSNR in the hole of fills (S, 3, H, W), (S,) in dB."""
    return metrics.psnr(fills, scene.target.expand_as(fills), scene.masks[HOLE].expand(len(fills), -1, -1, -1))


@functools.cache
def untuned(name: str, side: int | None = SIDE) -> torch.Tensor:
    """Samples of a scene by the model as it is, told the true caption: (S, 3, H, W). side None: at its own size."""
    scene = data.scene(name)
    given = SAMPLING | {"side": side}
    return sample(model(), scene.target, scene.masks[HOLE], SEEDS, prompt=scene.caption, **given)


def tuned(
    name: str, references: tuple[int, ...] = REFERENCES, options: tuple = (), shown: str | None = None
) -> dict[str, torch.Tensor]:
    """What a tuning gives.

    Args:
        name: of the scene.
        references: which of its references.
        options: of `fine_tune`, as (name, value) pairs.
        shown: the scene whose references they are; None: its own.

    Returns:
        "samples" (S, 3, H, W) after all updates, "early" after a third, "many" with as many seeds as a ranking needs
        and "raw" (1, 3, H, W) without known pixels put back: these three for the common tuning only.
    """
    return _tuned(name, references, options, shown or name)


@functools.cache
def _tuned(name: str, references: tuple[int, ...], options: tuple, shown: str) -> dict[str, torch.Tensor]:
    scene, common = data.scene(name), (references, options, shown) == (REFERENCES, (), name)
    hole, found = scene.masks[HOLE], {}
    given = (model(), scene.target, hole)
    try:
        run = fine_tune(
            model(), [data.scene(shown).references[k] for k in references], scene.target, hole, steps=STEPS,
            side=SIDE, **TUNING | dict(options),
        )  # fmt: skip
        if common:
            run.goto(STEPS // 3)
            found["early"] = sample(*given, SEEDS, prompt=PROMPT, **SAMPLING)
        run.goto(STEPS)
        found["samples"] = sample(*given, SEEDS, prompt=PROMPT, **SAMPLING)
        if common:
            found["many"] = sample(*given, MANY_SEEDS, prompt=PROMPT, **SAMPLING)
            *_, last = sample_hole(*given, prompt=PROMPT, guidance_scale=1.0, **SAMPLING)
            found["raw"] = last.image
    finally:
        remove_lora(model().unet)
        remove_lora(model().text_encoder)
    return found


def scores(references: tuple[int, ...] = REFERENCES, options: tuple = (), of: str = "samples") -> list[float]:
    """Mean PSNR in the hole of each scene's samples."""
    return [quality(tuned(name, references, options)[of], data.scene(name)).mean().item() for name in data.scenes()]


def references_help() -> dict:
    """R1."""
    before, full = (
        [quality(untuned(name, side), data.scene(name)).mean().item() for name in data.scenes()]
        for side in (SIDE, None)
    )
    after = scores()
    found = {
        "gain, dB": minus(after, before),
        "RealFill, dB": after,
        "caption only, dB": before,
        "gain over the caption at the model's own size, dB": minus(after, full),
    }
    for measure in (metrics.ssim, metrics.gradient_similarity):
        each = []
        for name in data.scenes():
            scene = data.scene(name)
            pairs = [
                measure(fills, scene.target.expand_as(fills), scene.masks[HOLE].expand(len(fills), -1, -1, -1)).mean()
                for fills in (tuned(name)["samples"], untuned(name))
            ]
            each.append((pairs[0] - pairs[1]).item())
        found[f"gain, {measure.__name__}"] = each
    return found


def more_references() -> dict:
    """R2."""
    by_count = {count: scores(REFERENCES[:count]) for count in (1, 2, 4)}
    return {"4 - 1, dB": minus(by_count[4], by_count[1]), **{f"{n} references, dB": s for n, s in by_count.items()}}


def matches_rank() -> dict:
    """R3."""
    correlations, gains, everywhere = [], [], []
    for name in data.scenes():
        scene, fills = data.scene(name), tuned(name)["many"]
        hole, references = scene.masks[HOLE], [scene.references[k] for k in REFERENCES]
        truth = quality(fills, scene)
        ranking = rank(fills, references, hole)
        correlations.append(spearman(ranking.totals, truth))
        kept = list(ranking.order[: len(fills) // 4])
        gains.append((truth[kept].mean() - truth.mean()).item())
        everywhere.append(spearman(rank(fills, references, torch.ones_like(hole)).totals, truth))
    return {
        "rank correlation": correlations,
        "a quarter kept, gain in dB": gains,
        "rank correlation, matches of the whole picture": everywhere,
    }


def known_part_drifts() -> dict:
    """R4."""
    off = []
    for name in data.scenes():
        scene = data.scene(name)
        cut = crop_round_hole(model(), scene.target, scene.masks[HOLE], side=SIDE)
        kept = 1 - masks.grow(cut.mask, 4)
        raw = tuned(name)["raw"]
        off.append(255 * ((raw - cut.image).abs() * kept).sum().item() / (3 * kept.sum().item()))
    return {"mean error of kept pixels, above one level of 255": [value - 1 for value in off]}


def hidden_parts_needed() -> dict:
    """R5."""
    blank = scores(options=(("mask_policy", "none"),))
    return {"random masks - everything hidden, dB": minus(scores(), blank), "everything hidden, dB": blank}


def a_third_is_enough() -> dict:
    """R6."""
    before = [quality(untuned(name), data.scene(name)).mean().item() for name in data.scenes()]
    early, late = scores(of="early"), scores()
    reached = [(e - b) - 0.75 * (n - b) for e, b, n in zip(early, before, late, strict=True)]
    return {"gain after a third, above three quarters of all, dB": reached, "early, dB": early, "late, dB": late}


def far_views_fail() -> dict:
    """R8."""
    best, worst = [], []
    for name in data.scenes():
        scene, hole = data.scene(name), data.scene(name).masks[HOLE][0, 0] > 0.5
        seen = [scene.correspondences(k, from_target=True).visible[hole].float().mean() for k in REFERENCES]
        near, far = int(np.argmax(seen)), int(np.argmin(seen))
        for k, into in ((near, best), (far, worst)):
            into.append(quality(tuned(name, (k,))["samples"], scene).mean().item())
    return {"most seen - least seen, dB": minus(best, worst), "most seen, dB": best, "least seen, dB": worst}


def target_masks() -> dict:
    """R9."""
    own = scores(options=(("target_mask", "hole"),))
    return {"random - own hole, dB": minus(scores(), own), "own hole, dB": own}


@functools.cache
def ways(name: str) -> dict[str, torch.Tensor]:
    """A scene's hole filled in all ways that R10 compares, in the order of the paper's table: (S, 3, H, W) each."""
    scene, hole = data.scene(name), data.scene(name).masks[HOLE]
    references = [scene.references[k] for k in REFERENCES]
    given = {"steps": STEPS, **SAMPLING}
    return {
        "caption only": untuned(name),
        "exemplar": exemplar(model(), scene.target, hole, references, SEEDS, word=TUNING, **given),
        "homography": warp(scene.target, hole, references)[0],
        "patches": inpaint(scene.target, hole, "patchmatch", references=references, progress=False).image,
        "DreamBooth": dreambooth(painter(), scene.target, hole, references, SEEDS, tuning=TUNING, **given),
        "RealFill": tuned(name)["samples"],
    }


def measured(fills: torch.Tensor, scene) -> dict[str, float]:
    """Means over fills (S, 3, H, W) of what `COLUMNS` names, in the hole."""
    truth, hole = scene.target.expand_as(fills), scene.masks[HOLE].expand(len(fills), -1, -1, -1)
    found = {"PSNR": metrics.psnr, "SSIM": metrics.ssim, "gradients": metrics.gradient_similarity}
    means = {column: measure(fills, truth, hole).mean().item() for column, measure in found.items()}
    return means | {"tiny_perceptual": classifier().distance(fills, truth, hole).mean().item()}


def baselines_lose() -> dict:
    """R10; the effect is RealFill's lead over the best of the others."""
    table = {way: {column: [] for column in COLUMNS} for way in ways(data.scenes()[0])}
    for name in data.scenes():
        for way, fills in ways(name).items():
            for column, value in measured(fills, data.scene(name)).items():
                table[way][column].append(value)
    after = table["RealFill"]["PSNR"]
    others = sorted((way for way in table if way != "RealFill"), key=lambda way: -sum(table[way]["PSNR"]))
    gains = {f"RealFill - {way}, dB": minus(after, table[way]["PSNR"]) for way in others}
    return gains | {f"{way}: {column}": values for way in table for column, values in table[way].items()}


def bench_table(finding: Finding) -> str:
    """The paper's table 1 for our scenes, from R10's finding: Markdown, a way of filling a row, means with intervals.

    DreamSim, DINO and CLIP need weights that are not bundled; `workbench.metrics` has them for those who have.

    Example:
        >>> print(bench_table(wb.claims.load_finding("R10")))
    """
    arrows = {"PSNR": "PSNR, dB, higher", "SSIM": "SSIM, higher", "gradients": "gradients, higher"}
    heads = [arrows.get(column, f"{column}, lower") for column in COLUMNS]
    names = [name.removesuffix(": PSNR") for name in finding.quantities if name.endswith(": PSNR")]
    lines = [["in the hole", *heads], ["---"] * (len(heads) + 1)]
    for way in names:
        cells = [finding.quantities[f"{way}: {column}"] for column in COLUMNS]
        lines.append([way, *(f"{q.mean:.3g} [{q.low:.3g}, {q.high:.3g}]" for q in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def own_references_help() -> dict:
    """R11."""
    names, strange = data.scenes(), []
    for before, name in zip((names[-1], *names), names, strict=False):
        strange.append(quality(tuned(name, shown=before)["samples"], data.scene(name)).mean().item())
    return {"own - another scene's, dB": minus(scores(), strange), "another scene's, dB": strange}


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """Rank correlation of two (N,), equals sharing their mean rank; 0 where one of them is constant."""
    ranks = [_ranks(x.double()) for x in (a, b)]
    centred = [r - r.mean() for r in ranks]
    length = centred[0].norm() * centred[1].norm()
    return 0.0 if length == 0 else ((centred[0] @ centred[1]) / length).item()


def _ranks(x: torch.Tensor) -> torch.Tensor:
    below = (x[:, None] > x).double().sum(1)
    return below + ((x[:, None] == x).double().sum(1) - 1) / 2


_TANG = "Tang et al., SIGGRAPH 2024 (RealFill)"
_SCENES = (
    f"24 scenes of the benchmark, hole {HOLE}, {len(REFERENCES)} references, {STEPS} updates of "
    f"{TUNING['batch_size']} at {SIDE} pixels a side, {len(SEEDS)} seeds, tiny-inpaint, PSNR in the hole. "
)
CLAIMS = (
    Claim("R1", "Fine-tuning on references beats the same model without.", f"{_TANG}, table 1",
          f"{_SCENES}Against the model as it is at the same size, told the true caption.", references_help),
    Claim("R2", "More references are better.", f"{_TANG}, figure 8", f"{_SCENES}Four references against one.",
          more_references),
    Claim("R3", "Samples with more matches are better.", f"{_TANG}, table 2; disputed by a reproduction",
          f"{_SCENES}Spearman's correlation of SIFT matches in the hole with PSNR, over {len(MANY_SEEDS)} samples.",
          matches_rank),
    Claim("R4", "The known part is distorted unless it is put back.", f"{_TANG}, section 3.4",
          f"{_SCENES}Mean error of raw samples farther than 4 px from the hole.", known_part_drifts),
    Claim("R5", "Learning to paint hidden parts is needed.", f"{_TANG}, figure 10",
          f"{_SCENES}Random rectangles against everything hidden in training, as DreamBooth learns.",
          hidden_parts_needed),
    Claim("R6", "A third of the updates is already pretty good.", f"{_TANG}, appendix A",
          f"{_SCENES}The gain after a third against three quarters of the whole gain.", a_third_is_enough),
    Claim("R8", "One reference from a far viewpoint fails.", f"{_TANG}, figure 13",
          f"{_SCENES}One reference: that which shows most of the hole against that which shows least.",
          far_views_fail),
    Claim("R9", "Random masks for the target too beat its own hole.", "the paper against its public reimplementation",
          f"{_SCENES}The two treatments of the target's mask.", target_masks),
    Claim("R10", "Fine-tuning beats an exemplar, DreamBooth, a text, a homography and patches.",
          f"{_TANG}, table 1 and figure 10",
          f"{_SCENES}Paint by Example's place is taken by a word learnt from one of the references in {STEPS} updates; "
          "TransFill's by a homography, what it does not show grey; DreamBooth is tiny-t2i with as many updates and "
          "blended latents; patches are PatchMatch's, from the references and the picture itself.", baselines_lose),
    Claim("R11", "What is learnt is the scene: its own references help more than another's.", "this kit's",
          f"{_SCENES}Its own references against those of the scene before it in the list.", own_references_help),
)  # fmt: skip
