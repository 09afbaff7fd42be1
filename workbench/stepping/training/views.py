"""What the states of a training run tell when they are read in a row: numbers, limits on them, tables and curves."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import fields

import torch

from workbench import check, plot
from workbench.stepping.timeline import Watch
from workbench.stepping.training.state import TrainingState

SCALARS = ("loss", "learning_rate", "gradient_norm", "update_norm", "weight_norm", "seconds", "i")
"""Numbers of every state; beside them each state has its losses, by name."""
_SHORT = {"loss spike": "loss", "gradient norm": "gradient_norm"}


def read(state: TrainingState, name: str):
    """A value of a state by its name, or one of its losses; None if it has no such."""
    return getattr(state, name) if hasattr(state, name) else state.losses.get(name)


class Viewed:
    """What a training run shows of its steps."""

    def history(self, name: str = "loss") -> list:
        """One number of every recorded step, from the first: a name in `TrainingState`, or one of the losses.

        Raises:
            ValueError: no such name.
        """
        known = [f.name for f in fields(TrainingState) if f.name not in ("numbers", "recall")]
        check.choice(name, "name", dict.fromkeys([*SCALARS, *known, *self.states[-1].losses]))
        return [read(state, name) for state in self.states[1:]]

    def loss_by_t(self, bins: int = 10, last: int | None = None) -> dict[str, list]:
        """How the loss depends on the noise level.

        Args:
            bins: equal ranges of t, from 0 to the highest level seen.
            last: of so many steps only; None: of all.

        Returns:
            {"t": middles of the ranges, "loss": mean of the samples in each, "count": how many}; empty ones left out.

        Raises:
            ValueError: the objective gives no loss per sample, or the batch no t.
        """
        return _loss_by_t(self.states, bins, last)

    def plot(self, what: str = "loss") -> plot.Picture:
        """A curve over the steps of one number of the states (loss, gradient_norm, update_norm ...), or "loss_by_t".

        Raises:
            ValueError: no such name, or no step done yet.
        """
        if what == "loss_by_t":
            found = self.loss_by_t()
            curve, title, label = (found["t"], found["loss"]), "loss against noise level", "t"
        else:
            curve, title, label = _points(self.states, what), what, "step"
        return plot.show_curves({title: curve}, title, x_label=label)


def _points(records: Sequence[TrainingState], name: str) -> tuple[list[int], list[float]]:
    """(steps, numbers) where there are any, for a curve.

    Raises:
        ValueError: there is no such number, or no step.
    """
    check.choice(name, "what", dict.fromkeys([*SCALARS, *records[-1].losses, "loss_by_t"]))
    found = [(state.i, read(state, name)) for state in records[1:]]
    found = [(i, value) for i, value in found if value is not None]
    if not found:
        raise ValueError(f"no step tells {name}, expected at least one. Step first: run.step().")
    return [i for i, _ in found], [value for _, value in found]


def _loss_by_t(records: Sequence[TrainingState], bins: int, last: int | None) -> dict[str, list]:
    check.integer(bins, "bins", 1)
    if last is not None:
        records = records[-check.integer(last, "last", 1) :]
    records = [s for s in records if s.t is not None and s.loss_per_sample is not None]
    if not records:
        raise ValueError(
            'no step tells t and loss per sample, expected "t" in the batch, "per_sample" from the objective, '
            "and one step done in the main process."
        )
    t = torch.cat([state.t for state in records]).double()
    loss = torch.cat([state.loss_per_sample for state in records]).double()
    width = (t.max().item() + 1) / bins
    row = (t / width).long().clamp(max=bins - 1)
    filled = [k for k in range(bins) if (row == k).any()]
    means = [loss[row == k].mean().item() for k in filled]
    return {"t": [(k + 0.5) * width for k in filled], "loss": means, "count": [int((row == k).sum()) for k in filled]}


def make_watch(
    what: str | Callable, ratio: float | None, above: float | None, window: int, records: Callable[[], Sequence]
) -> Watch:
    """A watch by name, by limits or by a function, see `TrainingRun.watch`. ``records()`` gives all states so far."""
    if callable(what):
        name = getattr(what, "__name__", "watch")
        return Watch(name, lambda before, after: _in_words(what(before, after), name))
    if what == "nan":
        return Watch("nan", lambda before, after: after.fault)
    name = _SHORT.get(what, what)
    losses = records()[-1].losses
    if losses or name in SCALARS:  # before the first step nobody knows the names of the losses
        check.choice(what, "what", dict.fromkeys(["nan", *_SHORT, *SCALARS, *losses]))
    if what == "loss spike" and ratio is None and above is None:
        ratio = 3.0
    if ratio is None and above is None:
        raise ValueError(f"neither ratio nor above is given for {what!r}, expected at least one: how much is too much?")
    for limit, told in ((ratio, "ratio"), (above, "above")):
        if limit is not None:
            check.number(limit, told, 0)
    check.integer(window, "window", 1)

    def finds(before: TrainingState, after: TrainingState) -> str | None:
        value = read(after, name)
        if value is None:
            return None
        if above is not None and value > above:
            return f"{what}: {name} is {value:.4g} at step {after.i}, above {above:g}"
        earlier = [read(state, name) for state in records()[max(1, after.i - window) : after.i]]
        earlier = [x for x in earlier if x is not None and abs(x) < float("inf")]
        usual = statistics.median(earlier) if earlier else 0.0
        if ratio is not None and usual > 0 and value > ratio * usual:
            return f"{what}: {name} is {value:.4g} at step {after.i}, {value / usual:.1f} times the median before"
        return None

    return Watch(what, finds)


def _in_words(found, name: str) -> str | None:
    """What a person's own function found."""
    return found if isinstance(found, str) and found else name if found else None
