"""Another future for a training run: other settings or another task, from the exact weights of one of its steps."""

from dataclasses import fields

from workbench import check
from workbench.diffusion.training import Task
from workbench.stepping.timeline import Timeline
from workbench.stepping.training.memory import Snapshot
from workbench.stepping.training.state import SETTINGS, TrainingState

_MEMORY = ("memory", "snapshot_every", "exact")


def branch_off(run, at: int | None, changes: dict):
    """A run that begins where another one stood after ``at`` updates; see `TrainingRun.branch`."""
    at = run.i if at is None else check.integer(at, "at", run._first, run.recorded)
    kept = {name: changes.get(name, getattr(run, name)) for name in _MEMORY}
    settings = run.settings.changed(**{n: v for n, v in changes.items() if n in (*SETTINGS, "lr")})
    if settings.steps is not None and settings.steps < at:
        raise ValueError(f"steps is {settings.steps} for a branch at step {at}, expected at least as many.")
    task = _varied(run.task, {n: v for n, v in changes.items() if n not in (*SETTINGS, "lr", *_MEMORY)})
    start, note = _start(run, at), None
    if task is not run.task and hasattr(task, "carry_over"):
        weights, moments, note = task.carry_over(start.weights, start.moments, run.task)
        start = Snapshot(at, weights, moments, start.buffers)
    child = object.__new__(type(run))
    Timeline.__init__(child, run, at)
    try:
        child._set_up(task, settings, start, run._learner.accelerator)
        child._remember(**kept)
    except BaseException:
        run.branches.remove(child)
        run._learner.put_in()
        raise
    child.changes = changes
    child.notes += [note] if note else []
    child._begin(start, list(run.states[: at + 1]))
    if note:
        norms = child._learner.layers.weight_norms(start.weights, child._learner.layers.scales())
        child._records[at] = _with(child._records[at], weight_norms=norms, digest=start.digest())
    run._learner.put_in()
    return child


def _start(run, at: int) -> Snapshot:
    """The weights after ``at`` updates, in every process."""
    if at in run._snapshots and run._learner.accelerator.num_processes == 1:
        return run._snapshots[at]
    with run.applied(at):
        return run._learner.capture(at)


def _varied(task: Task, changes: dict) -> Task:
    """The task with these changes."""
    if not changes:
        return task
    offered = getattr(task, "variants", ()) if hasattr(task, "variant") else ()
    unknown = [name for name in changes if name not in offered]
    if unknown:
        names = (*SETTINGS, *_MEMORY, *offered)
        raise ValueError(f"{', '.join(unknown)} cannot be changed, expected one of: {', '.join(names)}.")
    return task.variant(**changes)


def _with(state: TrainingState, **changes) -> TrainingState:
    return TrainingState(**{f.name: changes.get(f.name, getattr(state, f.name)) for f in fields(TrainingState)})
