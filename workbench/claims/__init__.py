"""What the papers claim, measured again: ``python -m workbench.claims`` repeats it, ``data/claims`` has what came out.

Each room keeps its own claims in its ``claims.py``, next to what they are about. A claim comes with a function that
measures; its first quantity is the effect, signed so that above 0 is what the paper says. The claim holds where the
95 % interval of the effect lies above 0, fails where it lies below, and is open where 0 is inside.
"""

import importlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from workbench import check
from workbench.metrics import bootstrap_interval

FOLDER = Path(__file__).resolve().parents[2] / "data" / "claims"
"""Where findings lie, a JSON file each."""
ROOMS = (
    "workbench.lenses.attention.claims",
    "workbench.lenses.correspondence.claims",
    "workbench.methods.context_encoder.claims",
    "workbench.methods.neural_patch.claims",
    "workbench.methods.spl.claims",
    "workbench.methods.realfill.claims",
    "workbench.methods.mimicbrush.claims",
    "workbench.methods.diffumatting.claims",
)
"""Modules that hold claims, in teaching order; each has a list ``CLAIMS``."""
VERDICTS = ("holds", "fails", "open")


@dataclass(frozen=True)
class Claim:
    """Something that a paper says, and how it is measured here.

    Args:
        name: "E1", as in the project's list of claims.
        says: the claim in one sentence.
        source: who says it.
        test: what is measured here, on what, in one or two sentences.
        measure: ``measure() -> {quantity: values}``, one value for each picture or run, not averaged: what the interval
            is drawn over. The first quantity is the effect.
    """

    name: str
    says: str
    source: str
    test: str
    measure: Callable[[], Mapping[str, Sequence[float]]] = field(repr=False)


@dataclass(frozen=True)
class Quantity:
    """A mean over ``n`` values and its 95 % interval, from 2,000 draws with replacement; a single value has none."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g}{f' [{self.low:.3g}, {self.high:.3g}]' if self.n > 1 else ''}, n = {self.n}"


@dataclass(frozen=True)
class Finding:
    """What came out for a claim.

    Args:
        name, says, source, test: as in `Claim`.
        quantities: by name, the effect first.
        seconds: it took.
        versions: of Python and torch.
    """

    name: str
    says: str
    source: str
    test: str
    quantities: dict[str, Quantity]
    seconds: float
    versions: dict[str, str]

    @property
    def effect(self) -> Quantity:
        """The quantity that decides."""
        return next(iter(self.quantities.values()))

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`; open where there is but one value."""
        if self.effect.n == 1:
            return "open"
        return "holds" if self.effect.low > 0 else "fails" if self.effect.high < 0 else "open"

    def save(self, folder=None) -> Path:
        """Writes ``<name>.json``."""
        file = Path(folder or FOLDER) / f"{self.name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return file

    def __str__(self) -> str:
        lines = [f"{self.name} {self.verdict}: {self.says} ({self.source})", f"  {self.test}"]
        width = max(map(len, self.quantities))
        return "\n".join([*lines, *(f"  {name:{width}}  {q}" for name, q in self.quantities.items())])

    __repr__ = __str__


def list_claims() -> dict[str, Claim]:
    """All claims by name, in teaching order."""
    return {claim.name: claim for room in ROOMS for claim in importlib.import_module(room).CLAIMS}


def measure(claim: Claim) -> Finding:
    """Measures a claim again; takes minutes.

    Raises:
        ValueError: a quantity without values, or with one that is no number.
    """
    start = time.perf_counter()
    quantities = {name: quantity(name, values) for name, values in claim.measure().items()}
    if not quantities:
        raise ValueError(f"claim {claim.name} measured nothing, expected at least the effect.")
    told = {"says": claim.says, "source": claim.source, "test": claim.test}
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return Finding(claim.name, **told, quantities=quantities, seconds=time.perf_counter() - start, versions=versions)


def list_findings(folder=None) -> list[str]:
    """Names of the claims that have been measured."""
    known = list(list_claims())
    found = [file.stem for file in Path(folder or FOLDER).glob("*.json")]
    return sorted(found, key=lambda name: (known.index(name) if name in known else len(known), name))


def load_finding(name: str, folder=None) -> Finding:
    """What came out when a claim was last measured.

    Args:
        name: one of `list_findings`.
        folder: where; None takes data/claims.

    Raises:
        ValueError: nothing is known under that name.

    Example:
        >>> load_finding("E1").verdict
        'holds'
    """
    check.choice(name, "name", list_findings(folder))
    told = json.loads((Path(folder or FOLDER) / f"{name}.json").read_text())
    return Finding(**told | {"quantities": {n: Quantity(**q) for n, q in told["quantities"].items()}})


def quantity(name: str, values: Sequence[float]) -> Quantity:
    """The mean of values, one for each picture or run, and its interval.

    Args:
        name: what they are, for the message.
        values: finite numbers. For a paired comparison: the differences.

    Raises:
        ValueError: there is none, or one is not finite.

    Example:
        >>> quantity("gain, dB", [0.1, 0.3, 0.2])
    """
    values = [float(value) for value in values]
    if not values or not all(map(_finite, values)):
        raise ValueError(f"{name} has values {values}, expected finite numbers, at least one.")
    low, high = bootstrap_interval(values)
    return Quantity(sum(values) / len(values), low, high, len(values))


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")
