"""How good is it: PatchMatch, Context Encoder and neural patches on 30 views that nothing has learnt from.

    python -m workbench.methods.neural_patch.evaluation FOLDER [--count 30] [--size 512] [--networks classifier random]

Views are rendered from seeds, half of them facades and half rooms; each gets a hole in its middle, half its side, and
an irregular one of a quarter of its area. Every number is written as it comes: a run that was stopped goes on where it
was. An estimate for two cores: four hours, nearly all of it neural patches.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from workbench import check, metrics
from workbench import mask as masks
from workbench.claims import Quantity, quantity
from workbench.diffusion.classifier import tiny_perceptual
from workbench.diffusion.latents import claim as claim_folder
from workbench.lenses import trials
from workbench.lenses.trials import minus
from workbench.methods import inpaint

COUNT, SIZE = 30, 512
HOLES = ("centre", "irregular")
METRICS = ("mean_l1", "mean_l2", "psnr", "tiny_perceptual")
HIGHER_IS_BETTER = ("psnr",)


def imagined(picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """What the Context Encoder, the adversarial one, makes of a picture: the content network of neural patches."""
    return inpaint(picture, mask, "context_encoder", progress=False, seamless=False).image


def competitors(networks: Sequence[str] = ("classifier", "random"), iterations: int = 100) -> dict[str, tuple]:
    """What is compared: {name: (method, its parameters)}.

    Args:
        networks: texture networks of `load_network`, each a competitor.
        iterations: of neural patches at each level.
    """
    others = {
        "patchmatch": ("patchmatch", {}),
        "context encoder, L2": ("context_encoder", {"variant": "l2"}),
        "context encoder": ("context_encoder", {"variant": "adversarial"}),
    }
    common = {"content": imagined, "iterations": iterations}
    return others | {f"neural patch, {n}": ("neural_patch", {"network": n, **common}) for n in networks}


def make_hole(kind: str, number: int, size: int = SIZE) -> torch.Tensor:
    """The hole of a view, (1, 1, size, size): "centre", a square of half the side, or "irregular", another for each."""
    if check.choice(kind, "kind", HOLES) == "centre":
        return masks.centre((size, size), 0.5)
    return masks.irregular((size, size), ratio=0.25, seed=number)


def scores(fill: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """`METRICS` of one fill: errors in the hole, and the perceptual distance of the box about it.

    Args:
        fill, truth: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole; its box at least 16 x 16.

    Raises:
        NotAvailable: the bundled classifier is not here.
    """
    found = {name: metrics.METRICS[name](fill, truth, mask).item() for name in METRICS[:3]}
    return found | {"tiny_perceptual": tiny_perceptual(in_box(fill, mask), in_box(truth, mask)).item()}


def in_box(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The part of a picture (1, 3, H, W) in the box about a hole."""
    x0, y0, x1, y1 = masks.bounding_box(mask)
    return image[..., y0:y1, x0:x1]


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Args:
        values: {hole: {competitor: {metric: one value a view}}}.
    """

    values: Mapping[str, Mapping[str, Mapping[str, list[float]]]] = field(repr=False)

    def mean(self, hole: str, name: str, metric: str) -> Quantity:
        """A competitor's mean over the views and its interval."""
        return quantity(metric, self._of(hole, name)[check.choice(metric, "metric", METRICS)])

    def gain(self, hole: str, name: str, other: str, metric: str) -> Quantity:
        """How much better a competitor is than another, view by view: above 0 = better, whichever way a metric runs."""
        pair = [self._of(hole, n)[check.choice(metric, "metric", METRICS)] for n in (name, other)]
        return quantity(metric, minus(*(pair if metric in HIGHER_IS_BETTER else pair[::-1])))

    def _of(self, hole: str, name: str) -> Mapping[str, list[float]]:
        rows = self.values[check.choice(hole, "hole", self.values)]
        return rows[check.choice(name, "a competitor", rows)]

    def __repr__(self) -> str:
        lines = []
        for hole, rows in self.values.items():
            width, last = max(map(len, rows)) + 2, list(rows)[-1]
            best = next((name for name in rows if name.startswith("neural patch")), last)
            count = len(next(iter(rows[last].values())))
            lines += ["", f"hole: {hole}, {count} views; mean [95 % interval]"]
            lines += [f"  {n:{width}}{_row(partial(self.mean, hole, n))}" for n in rows]
            lines += [f"  {best} against the others, above 0 = better:"]
            lines += [f"  {n:{width}}{_row(partial(self.gain, hole, best, n))}" for n in rows if n != best]
        return "\n".join(lines[1:])


def _row(of: Callable[[str], Quantity]) -> str:
    found = [(metric, of(metric)) for metric in METRICS]
    return "  ".join(f"{metric} {q.mean:.3g} [{q.low:.3g}, {q.high:.3g}]" for metric, q in found)


def evaluate(
    folder,
    *,
    count: int = COUNT,
    size: int = SIZE,
    networks: Sequence[str] = ("classifier", "random"),
    iterations: int = 100,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Fills every hole of every view by every competitor, or goes on with that; takes hours.

    Args:
        folder: where numbers are kept, a JSON file for each hole; started anew or gone on with.
        count: views; the first so many of `trials.held_out`.
        size: side of a view in pixels.
        networks, iterations: see `competitors`.
        tell: called with a line after each fill.

    Returns:
        `Evaluation`.

    Raises:
        ValueError: the folder holds an evaluation with other settings. More views may be asked for.
        NotAvailable: weights are not on this machine; asked before anything is rendered.

    Source: the metrics of Yang et al., CVPR 2017, table 1, in the hole; perceptual distance and intervals are ours.

    Example:
        >>> evaluate("out/evaluation", count=4, size=128, networks=["random"])
    """
    check.integer(count, "count", 1)
    check.integer(size, "size", 32)
    folder, named = Path(folder), competitors(networks, check.integer(iterations, "iterations", 1))
    _require_weights(named)
    tell = tell or (lambda line: None)
    folder.mkdir(parents=True, exist_ok=True)
    claim_folder(folder, {"size": size, "iterations": iterations}, "numbers")
    found: dict = {hole: {name: {metric: [] for metric in METRICS} for name in named} for hole in HOLES}
    for number in range(count):
        for hole in HOLES:
            numbers = _fill_all(folder / f"{hole}-{number:03d}.json", number, hole, size, named, tell)
            for name in named:
                for metric in METRICS:
                    found[hole][name][metric].append(numbers[name][metric])
    return Evaluation(found)


def _require_weights(named: Mapping[str, tuple]) -> None:
    """Tries everything once on a few pixels, so that nothing is missing after hours."""
    grey, mask = torch.full((1, 3, 32, 32), 0.5), masks.centre((32, 32), 0.5)
    for method, params in named.values():
        quick = params | ({"iterations": 1} if "iterations" in params else {})
        inpaint(grey, mask, method, progress=False, **quick)
    tiny_perceptual(grey, grey)


def _fill_all(file: Path, number: int, hole: str, size: int, named, tell) -> dict[str, dict[str, float]]:
    """All competitors' numbers of one hole; those that the file has are not computed again."""
    numbers = json.loads(file.read_text()) if file.exists() else {}
    for name, (method, params) in named.items():
        if name in numbers:
            continue
        truth, mask = trials.held_out(number, (size, size)), make_hole(hole, number, size)
        result = inpaint(truth, mask, method, progress=False, seamless=False, **params)
        numbers[name] = scores(result.image, truth, mask) | {"seconds": result.seconds}
        _write(file, numbers)
        tell(f"view {number + 1}, {hole}, {name}: {numbers[name]['psnr']:.2f} dB, {result.seconds:.0f} s")
    return numbers


def _write(file: Path, numbers: dict) -> None:
    """A file that appears whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    part.write_text(json.dumps(numbers, indent=1))
    os.replace(part, file)


def main(arguments=None) -> None:
    """Reads the command line, evaluates, prints the table and writes it beside the numbers."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.methods.neural_patch.evaluation",
        description="Compares the methods on held-out views; run it again to go on.",
    )
    parser.add_argument("folder", help="where numbers are kept")
    parser.add_argument("--count", type=int, default=COUNT, help=f"views ({COUNT})")
    parser.add_argument("--size", type=int, default=SIZE, help=f"side of a view in pixels ({SIZE})")
    parser.add_argument("--iterations", type=int, default=100, help="of neural patches at each level (100)")
    parser.add_argument("--networks", nargs="+", default=["classifier", "random"],
                        help="texture networks: classifier, random, vgg19 or a path (classifier random)")  # fmt: skip
    options = vars(parser.parse_args(arguments))
    try:
        told = repr(evaluate(**options, tell=lambda line: print(line, flush=True)))
    except (ValueError, check.NotAvailable) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    (Path(options["folder"]) / "table.txt").write_text(told + "\n")
    print(told)


if __name__ == "__main__":
    main()
