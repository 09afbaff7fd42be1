"""SPL against what it must beat, on fixed holes: python -m workbench.methods.spl.evaluation --help.

Each method gets the same pairs of picture and hole (`pairs`). Every score is written as soon as it is known; the same
command goes on where it stopped.
"""

import argparse
import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from workbench import check, data, metrics
from workbench.claims import Quantity, quantity
from workbench.diffusion.classifier import Classifier, load_classifier
from workbench.diffusion.export import sha256
from workbench.diffusion.pipelines import find_folder
from workbench.mask import RATIO_BINS
from workbench.methods import inpaint
from workbench.methods.spl.loading import VARIANTS
from workbench.methods.spl.pairs import SETS, VIEWS, Pair, bin_of, photograph_pairs, render_held_out, world_pairs

BASELINES = {
    "mean": None,
    "biharmonic": None,
    "patchmatch": None,
    "context_encoder": "tiny-context-encoder",
    "diffusion": "tiny-inpaint",
}
"""What SPL is compared with, names of the registry -> the bundled model each needs; diffusion gets no prompt."""
MEASURES = {"psnr": metrics.psnr, "ssim": metrics.ssim, "l1": metrics.mean_l1}
REGIONS = ("all", "hole")
"""The whole composite, and its hole alone."""
COLUMNS = tuple(f"{name} {where}" for name in (*MEASURES, "tiny_perceptual") for where in REGIONS)
HIGHEST = 100.0
"""PSNR of a perfect fill, dB, so that means stay finite."""
BINS = tuple(f"{round(100 * low)}-{round(100 * high)} %" for low, high in RATIO_BINS)
Fill = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Image (1, 3, H, W), mask (1, 1, H, W) -> composite (1, 3, H, W)."""


@torch.no_grad()
def scores(filled: torch.Tensor, pair: Pair, classifier: Classifier) -> dict[str, float]:
    """All of `COLUMNS` for one filled picture.

    Args:
        filled: the composite, (1, 3, H, W) in [0, 1].
        pair: with the truth and the hole.
        classifier: for tiny_perceptual.
    """
    found = {
        f"{name} {where}": measure(filled, pair.image, pair.mask, where).item()
        for name, measure in MEASURES.items()
        for where in REGIONS
    }
    found |= {f"psnr {where}": min(HIGHEST, found[f"psnr {where}"]) for where in REGIONS}
    for where, mask in zip(REGIONS, (None, pair.mask), strict=True):
        found[f"tiny_perceptual {where}"] = classifier.distance(filled, pair.image, mask).item()
    return found


def evaluate(
    pairs: Iterable[Pair],
    fills: Mapping[str, Fill],
    file=None,
    *,
    told: Mapping[str, str] | None = None,
    classifier: Classifier | None = None,
    progress: bool = True,
) -> "Evaluation":
    """Fills every hole by every method and measures the composites.

    Args:
        pairs: what to fill.
        fills: name -> function of image (1, 3, H, W) and mask (1, 1, H, W) that gives the composite (1, 3, H, W).
        file: of JSON lines, one a score; what stands there already is not computed again. None keeps nothing.
        told: name -> what a method's result depends on besides the pair, such as a checksum of its weights: a line
            that was written with another one does not count.
        classifier: for tiny_perceptual; None takes the bundled one.
        progress: shows a bar.

    Raises:
        ValueError: a hole or all of a picture is empty, or a method gives another shape.
        NotAvailable: the bundled classifier is not on this machine.

    Example:
        >>> evaluate(photograph_pairs(), {"mean": lambda x, m: wb.inpaint(x, m, "mean").image})
    """
    from tqdm.auto import tqdm

    pairs, told = list(pairs), dict(told or {})
    classifier = classifier or load_classifier()
    known = {_key(row): row for row in _read(Path(file))} if file else {}
    rows, wanted = [], [(name, pair) for name in fills for pair in pairs]
    digests = {id(pair): pair.digest for pair in pairs}
    for name, pair in tqdm(wanted, unit="hole", disable=not progress):
        head = {"fill": name, "told": told.get(name, ""), "pair": pair.name, "digest": digests[id(pair)]}
        row = known.get(_key(head))
        if row is None:
            filled = check.image(fills[name](pair.image, pair.mask), f"what {name} gives")
            check.same_size(filled, pair.image, f"what {name} gives", "image")
            head |= {"picture": pair.picture, "of": pair.of, "ratio": pair.mask.mean().item(), "bin": bin_of(pair.mask)}
            row = head | scores(filled, pair, classifier)
            if file:
                _append(Path(file), row)
        rows.append(row)
    return Evaluation(tuple(rows))


def _key(row: Mapping) -> tuple:
    return row["fill"], row["told"], row["pair"], row["digest"]


def _read(file: Path) -> list[dict]:
    """The rows of a file; a line that was cut short when a run was killed is dropped from it."""
    if not file.exists():
        return []
    rows, whole = [], 0
    content = file.read_bytes()
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        rows.append(json.loads(line))
        whole += len(line)
    if whole < len(content):
        file.write_bytes(content[:whole])
    return rows


def _append(file: Path, row: Mapping) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        opened.write(json.dumps(row) + "\n")


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of methods on pairs; shows itself as tables.

    Args:
        rows: one for each method and pair: fill, pair, picture, of, ratio, bin, and the numbers of `COLUMNS`.
    """

    rows: tuple[dict, ...]

    @property
    def methods(self) -> list[str]:
        """Names of what was compared, in their order."""
        return list(dict.fromkeys(row["fill"] for row in self.rows))

    def table(self, column: str = "psnr hole", of: str = "world") -> dict[str, dict[str, Quantity]]:
        """Means with 95 % intervals: {method: {"0-10 %": Quantity, ..., "all": Quantity}}; empty bins are left out.

        Intervals are drawn over pictures: several holes of one picture, and several crops of one photograph, are
        averaged first.

        Args:
            column: one of `COLUMNS`.
            of: one of `SETS`.
        """
        check.choice(column, "column", COLUMNS)
        check.choice(of, "of", SETS)
        found = {}
        for method in self.methods:
            mine = [row for row in self.rows if row["fill"] == method and row["of"] == of]
            by_bin = {name: [row for row in mine if row["bin"] == k] for k, name in enumerate(BINS)} | {"all": mine}
            found[method] = {name: _quantity(rows, column) for name, rows in by_bin.items() if rows}
        return found

    @functools.cached_property
    def tables(self) -> dict[str, dict[str, dict[str, dict[str, Quantity]]]]:
        """All of them: {set: {column: as `table` gives it}}."""
        sets = dict.fromkeys(row["of"] for row in self.rows)
        return {of: {column: self.table(column, of) for column in COLUMNS} for of in sets}

    def __repr__(self) -> str:
        shown = []
        for of, columns in self.tables.items():
            for column, table in columns.items():
                shown += [f"{column}, {of}", *_lines(table)]
        return "\n".join(shown)

    def save(self, folder) -> Path:
        """Writes ``tables.json`` (all numbers) and ``tables.txt`` (as shown). Returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tables.json").write_text(json.dumps(self.tables, indent=1, default=vars) + "\n")
        (folder / "tables.txt").write_text(f"{self!r}\n")
        return folder


def _quantity(rows: list[dict], column: str) -> Quantity:
    by_picture = defaultdict(list)
    for row in rows:
        by_picture[row["picture"]].append(row[column])
    return quantity(column, [float(np.mean(each)) for each in by_picture.values()])


def _lines(table: Mapping[str, Mapping[str, Quantity]]) -> list[str]:
    """A table as text; its last column has the interval."""
    names = [name for name in (*BINS, "all") if any(name in cells for cells in table.values())]
    width = max(map(len, table), default=0)
    lines = [f"  {'':{width}}" + "".join(f"{name:>9}" for name in names)]
    for method, cells in table.items():
        told = "".join(f"{cells[name].mean:9.4g}" if name in cells else " " * 9 for name in names)
        lines.append(f"  {method:{width}}{told}" + (f"  {cells['all']}" if "all" in cells else ""))
    return lines


# The command


def registered(method: str, **params) -> Fill:
    """A method of the registry as a fill."""
    given = {"seed": 0, "progress": False, "seamless": False, **params}  # as painted: the papers hide no seams
    return lambda image, mask: inpaint(image, mask, method, **given).image


def weights_of(source: str | None) -> str:
    """A checksum of the weights of a bundled model, a folder or a file, twelve letters; "" for no model."""
    if source is None:
        return ""
    files = [Path(source)] if Path(source).is_file() else sorted(find_folder(source).rglob("*.safetensors"))
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:12]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.methods.spl.evaluation", description=__doc__)
    parser.add_argument("--out", default="out/spl-evaluation", help="folder of views, scores and tables")
    parser.add_argument("--world", nargs="+", metavar="FOLDER", help="held-out views (rendered into --out)")
    parser.add_argument("--views", type=int, default=VIEWS, help=f"of each kind, where they are rendered ({VIEWS})")
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, help="which (all whose weights are here)")
    parser.add_argument("--spl", nargs="*", default=["full"], help="variants, or folders of generators (full)")
    parser.add_argument("--classifier", default="tiny-classifier", help="for tiny_perceptual: name or folder")
    parser.add_argument("--workers", type=int, default=1, help="processes that render (1)")
    return parser


def main(arguments=None) -> None:
    """Reads the command line, evaluates, writes and prints the tables."""
    options = make_parser().parse_args(arguments)
    try:
        fills, told = _fills(options)
        classifier = load_classifier(options.classifier)
        folders = options.world or render_held_out(options.out, options.views, options.workers)
        told = {name: f"{weights} {weights_of(options.classifier)}" for name, weights in told.items()}
        pairs = [*world_pairs(folders), *photograph_pairs()]
        rows = Path(options.out) / "scores.jsonl"
        evaluation = evaluate(pairs, fills, rows, told=told, classifier=classifier)
        evaluation.save(options.out)
        print(evaluation)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


def _fills(options) -> tuple[dict[str, Fill], dict[str, str]]:
    """What the options ask for: fills, and the checksums of their weights."""
    here = {name: model for name, model in BASELINES.items() if model is None or (data.MODELS / model).is_dir()}
    for name in BASELINES:
        if options.baselines is None and name not in here:
            print(f"{name} is left out: {BASELINES[name]} is not in {data.MODELS}")
    chosen = list(here) if options.baselines is None else options.baselines
    fills = {name: registered(name) for name in chosen}
    told = {name: weights_of(BASELINES[name]) for name in chosen}
    for source in options.spl:
        name = "spl" if source == "full" else f"spl {source}"
        fills[name], told[name] = registered("spl", variant=source), weights_of(VARIANTS.get(source, source))
    return fills, told


if __name__ == "__main__":
    main()
