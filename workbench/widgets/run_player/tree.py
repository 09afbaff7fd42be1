"""The runs of a tree, what they are called, and where their breakpoints are."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Lane:
    """One run of a tree: its row on the time line.

    Args:
        run: the run.
        parent: row of the run it branched off; None for a root, and for a run of another tree.
        start: the step where it begins.
    """

    run: object
    parent: int | None
    start: int


def lanes(run) -> list[Lane]:
    """All runs of the tree that a run belongs to, each after its parent."""
    found: list[Lane] = []

    def walk(node, parent: int | None) -> None:
        found.append(Lane(node, parent, 0 if parent is None else node.at))
        row = len(found) - 1
        for branch in getattr(node, "branches", ()):
            walk(branch, row)

    walk(run.root() if hasattr(run, "root") else run, None)
    return found


def label(run) -> str:
    """A run's name, and how it differs from its parent."""
    name = getattr(run, "name", "run")
    if getattr(run, "parent", None) is None:
        return name
    changes = ", ".join(f"{key}={_short(value)}" for key, value in getattr(run, "changes", {}).items())
    return f"{name} at {run.at}: {changes or 'unchanged'}"


def _short(value) -> str:
    told = repr(value) if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__
    return told if len(told) <= 40 else f"{told[:37]}..."


def step_of(point) -> int | None:
    """After which step a breakpoint stops, where it was set for one."""
    found = re.fullmatch(r"step (\d+)", point.name)
    return int(found[1]) if found else None


class BreakMarks:
    """Where a run's breakpoints are; what was found once is not looked for again."""

    def __init__(self):
        self._found: dict[tuple[int, int], tuple] = {}

    def of(self, run) -> dict[int, bool]:
        """{step: whether the breakpoint is for this very step}; False where a level of t or sigma is reached first.

        Other conditions are the caller's own functions: they are not asked here.
        """
        marks: dict[int, bool] = {}
        for point in getattr(run, "breakpoints", ()):
            step = step_of(point)
            if step is not None:
                marks[step] = True
            elif re.match(r"(t|sigma) <= ", point.name):
                reached = self._reached(run, point)
                if reached is not None:
                    marks.setdefault(reached, False)
        return marks

    def _reached(self, run, point) -> int | None:
        """The first recorded step at which a breakpoint holds."""
        key = id(run), id(point)
        _, _, looked, found = self._found.get(key, (run, point, 0, None))
        if found is None and looked < run.recorded:
            found = next((state.i for state in run.states[looked + 1 :] if point.when(state)), None)
            self._found[key] = run, point, run.recorded, found  # both are kept, for their ids are to stay their own
        return found
