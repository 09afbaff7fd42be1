"""Where two runs part, and why: the first step, the first term in it, and the cause in one sentence."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from workbench import check
from workbench.stepping.causes import CAUSES, explain
from workbench.stepping.causes.pair import Pair
from workbench.stepping.engine.guidance import aligned_parts, raw_outputs
from workbench.stepping.engine.moment import Moment, denoiser_answers
from workbench.stepping.engine.structure import digest

TERMS = tuple(CAUSES)
"""Parts of a step in the order they are computed; "start" are the latents before step 1, "picture" what is decoded."""


@dataclass(frozen=True)
class Divergence:
    """The first difference of two runs.

    Args:
        step: in which step; 0 is what precedes the first, total + 1 what follows the last.
        term: one of `TERMS`.
        cause: one sentence.
        difference: largest absolute difference of the term's numbers; None where it is no matter of numbers.
        module: the first module inside the denoiser whose output differs, if that was asked for.
        evidence: what the sentence was made from, by the name of what was compared: for most a pair (a's, b's), for
            "arguments" and "inputs" the names that differ.
    """

    step: int
    term: str
    cause: str
    difference: float | None = None
    module: str | None = None
    evidence: dict = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        size = "" if self.difference is None else f" (by up to {self.difference:.3g})"
        inside = "" if self.module is None else f" First module that differs: {self.module}."
        return f"The runs part in step {self.step}, {self.term}{size}: {self.cause}{inside}"


def first_divergence(a, b, *, modules: bool = False, tolerance: float = 0.0) -> Divergence | None:
    """Finds where two runs part.

    Both are computed as far as need be, side by side; their cursors stay where they are. Recordings are compared as
    far as they go.

    Args:
        a, b: runs or recordings of the same kind of pipeline; ``a`` is taken for the right one in the sentence.
        modules: also finds the first module inside the denoiser that differs; both must be runs.
        tolerance: largest absolute difference of two numbers that does not count, of timesteps, latents, predictions
            and pictures alike; 0 compares bits. For recordings of another machine.

    Returns:
        A `Divergence`, or None: all that both have computed is equal, to the end if they can be computed.

    Raises:
        TypeError: something that is neither a run nor a recording.
    """
    for name, run in (("a", a), ("b", b)):
        if not hasattr(run, "states") or not hasattr(run, "facts"):
            raise TypeError(f"{name} is a {type(run).__name__}, expected a DenoisingRun or a recording.")
    check.number(tolerance, "tolerance", 0)
    found = _compare(a, b, tolerance)
    if found is None:
        return None
    step, term, difference = found
    cause, evidence = explain(Pair(a, b, step, term, _moment(a, step), _moment(b, step)))
    module = first_module(a, b, step) if modules and term in ("unconditional", "text", "prediction") else None
    return Divergence(step, term, cause, difference, module, evidence)


def _compare(a, b, tolerance: float) -> tuple[int, str, float | None] | None:
    """(step, term, difference) of the first difference."""
    difference = _apart(a.states[0].latents, b.states[0].latents, tolerance)
    if difference is not None:
        return 0, "start", difference
    k = 0
    while True:
        k += 1
        has_a, has_b = _reaches(a, k), _reaches(b, k)
        if has_a != has_b and _over(a) and _over(b):
            return k, "timestep", None
        if not (has_a and has_b):
            break
        found = _compare_step(_moment(a, k), _moment(b, k), tolerance)
        if found is not None:
            return k, *found
    if _over(a) and _over(b):
        live = hasattr(a, "branch") and hasattr(b, "branch")
        difference = _pictures_apart(a, b, tolerance if live else max(tolerance, 0.51 / 255))  # recordings keep 8 bits
        if difference is not None:
            return k, "picture", difference
    return None


def _compare_step(a: Moment, b: Moment, tolerance: float) -> tuple[str, float | None] | None:
    if abs(a.t - b.t) > tolerance:
        return "timestep", abs(a.t - b.t)
    outputs = raw_outputs(a), raw_outputs(b)
    parts = aligned_parts(a, b)
    if all(parts):
        checks = [("unconditional", parts[0][0], parts[1][0]), ("text", parts[0][1], parts[1][1])]
    else:
        checks = [("prediction", x, y) for x, y in zip(*outputs, strict=False)]
    predicted = next(((term, d) for term, x, y in checks if (d := _apart(x, y, tolerance)) is not None), None)
    if _inputs_differ(a, b) and (predicted or tolerance == 0):
        return "input", _apart(a.conditioning, b.conditioning, tolerance)
    if predicted:
        return predicted
    if bool(parts[0]) != bool(parts[1]) or len(outputs[0]) != len(outputs[1]):
        return "guidance", None
    difference = _apart(a.noise_pred, b.noise_pred, tolerance)
    if difference is not None:
        return "guidance", difference
    draws = [_apart(x, y, tolerance) for x, y in zip(a.draws, b.draws, strict=False)]
    drawn = next((d for d in draws if d is not None), None)
    solved = _apart(a.solved, b.solved, tolerance)
    if solved is not None:
        if drawn is not None:
            return "draw", drawn
        same_solver = a.levels == b.levels and len(a.draws) == len(b.draws)
        return ("history" if same_solver and a.history != b.history else "solver"), solved
    difference = _apart(a.latents, b.latents, tolerance)
    return None if difference is None else ("blend", difference)


def _inputs_differ(a: Moment, b: Moment) -> bool:
    asked_a, asked_b = denoiser_answers(a), denoiser_answers(b)
    return [x.inputs for x in asked_a] != [y.inputs for y in asked_b]


def _apart(x, y, tolerance: float) -> float | None:
    """The largest difference, if above the tolerance; None for equal ones. Infinite where they cannot be compared."""
    if x is None or y is None:
        return None if x is y else float("inf")
    if x.shape != y.shape or x.dtype != y.dtype:
        return float("inf")
    if torch.equal(x, y):
        return None
    difference = (x.double() - y.double()).abs()
    largest = float("inf") if difference.isnan().any() else float(difference.max())
    same_nan = torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num())
    return None if same_nan or largest <= tolerance else largest


def _pictures_apart(a, b, tolerance: float) -> float | None:
    """The largest difference of the pictures of two runs that are over; None also where a recording holds none."""
    for run in (a, b):
        _ = run.output  # takes a run to its end
    try:
        pictures = [run.decode(run.recorded, "latents") for run in (a, b)]
    except check.NotAvailable:
        return None
    return _apart(*pictures, tolerance)


def _moment(run, k: int) -> Moment | None:
    return run.states[k]._moment if 1 <= k <= run.recorded else None


def _reaches(run, k: int) -> bool:
    """Whether a run has step k, computing it if it can."""
    while run.recorded < k:
        try:
            run._compute()
        except StopIteration:
            return False
    return True


def _over(run) -> bool:
    return run.total is not None and run.recorded >= run.total


def first_module(a, b, step: int) -> str | None:
    """Name of the module inside the denoiser whose output is the first to differ; asks both denoisers once more.

    Raises:
        RuntimeError: a recording: it has no denoiser to ask.
    """
    for run in (a, b):
        if not hasattr(run, "branch"):
            raise RuntimeError("modules=True asks the denoisers once more, expected two runs with their pipelines.")
    first, second = (_module_digests(run, step) for run in (a, b))
    if [name for name, _ in first] != [name for name, _ in second]:
        return next((x for (x, _), (y, _) in zip(first, second, strict=False) if x != y), "one module more or less")
    return next((x for (x, d), (_, e) in zip(first, second, strict=True) if d != e), None)


def _module_digests(run, step: int) -> list[tuple[str, str]]:
    """(name, digest of the output) of each module inside the denoiser, in the order they were done in a step.

    A module is done after those inside it: one that differs while they do not differs by what it does itself.
    """
    name = denoiser_answers(_moment(run, step))[-1].name
    found: list[tuple[str, str]] = []

    def noting(inner: str) -> Callable:
        return lambda module, args, output: found.append((inner, digest(output)))

    denoiser = getattr(run.pipe, name)
    inside = [(n, m) for n, m in denoiser.named_modules() if n]
    hooks = [module.register_forward_hook(noting(f"{name}.{inner}")) for inner, module in inside]
    siblings = list(run.branches)
    try:
        run.branch(at=step - 1).step()
    finally:
        for hook in hooks:
            hook.remove()
        run.branches[:] = siblings
    return found
