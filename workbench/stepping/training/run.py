"""`TrainingRun`: a training that can be stepped, rewound, stopped and branched like a film.

Lean states of all steps are kept; of the weights some snapshots, and what lies between two is computed again, to the
bit, because nothing in a run is random but what [seed, step, item] says.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator

from workbench import check
from workbench.diffusion.training import Task
from workbench.stepping.timeline import Timeline, Watch, patiently
from workbench.stepping.training.branching import branch_off
from workbench.stepping.training.memory import Snapshot, Snapshots
from workbench.stepping.training.state import ByLayer, TrainingSettings, TrainingState
from workbench.stepping.training.update import Learner, Measured
from workbench.stepping.training.views import Viewed, make_watch

MEBIBYTE = 2**20
_ONE_AT_A_TIME = threading.RLock()
"""Held by the run that moves: several share a model."""


class TrainingRun(Viewed, Timeline):
    """The training of a `Task`, one update at a time, both ways.

    **The model.** All runs of a task compute in one shared model, each with weights of its own. After every move of a
    run (step, back, goto ...) the model holds this run's weights as they were at its cursor, so that sampling from the
    pipeline after ``run.goto(12)`` uses the weights of step 12. They stay until another run of the same model moves or
    is looked at. `pipe` and `module` put them back in and give the pipeline and the objective; ``with run.applied():``
    does so for a block only and then restores what was there. Hold on to the model, not to its parameters.

    **Memory.** ``memory`` MiB of snapshots (weights, moments; on the CPU), thinned out by `Snapshots`: close together
    about the cursor, farther apart elsewhere. The first and the newest always stay, and while weights are computed
    again one more is held. A step back so costs no update at all near the cursor. States cost some kB a step.

    **Exact.** Weights that are computed again must have the digest they had. If not, an objective draws random numbers
    of its own, or the hardware adds in another order each time: then ``exact=True`` raises RuntimeError and leaves the
    run where it was, ``exact=False`` goes on and says so in `notes` and in the run's text.

    **Faults.** When loss or gradient are not finite the optimiser is not called: the weights stay as they were, the
    state says so in ``fault``, and the watch "nan", which is there from the start, stops the run (not `goto`, which
    nothing stops; stepping on takes the next batch). An exception or interrupt in a step leaves the run at its last
    complete step, weights restored.

    **Processes.** Started by torchrun or accelerate, each process makes the same run and calls the same methods.
    Only the main one holds snapshots; the others get their weights from it.

    Args:
        task: what is trained; its objective's parameters that require gradients are. Move the model to its device
            before the run is made.
        settings: how; None takes the defaults.
        memory: MiB of snapshots, see above.
        snapshot_every: snapshots only after multiples of this many updates.
        exact: see above.
        accelerator: one process's view of the hardware; None makes one. A single process computes where the model is.
        **changes: of the settings: ``learning_rate=1e-3, steps=300`` and so on; ``lr`` is short for learning_rate.

    Raises:
        ValueError: no such setting, or one out of range; nothing to train.

    Example:
        >>> run = TrainingRun(LoraTask(pipe, views), learning_rate=1e-3, steps=300)
        >>> run.run(100); run.goto(12); run.branch(learning_rate=1e-4).step(20)
    """

    _levels = ()  # each picture of a batch has its own

    def __init__(
        self,
        task: Task,
        settings: TrainingSettings | None = None,
        *,
        memory: float = 256,
        snapshot_every: int = 1,
        exact: bool = True,
        accelerator: Accelerator | None = None,
        **changes,
    ):
        super().__init__()
        self._set_up(task, (settings or TrainingSettings()).changed(**changes), None, accelerator)
        self._remember(memory, snapshot_every, exact)
        snapshot = self._learner.capture(0)
        self._begin(snapshot, [self._beginning(snapshot)])

    def _set_up(self, task: Task, settings: TrainingSettings, start: Snapshot | None, accelerator) -> None:
        self.task, self.settings = task, settings
        self.notes: list[str] = []
        self._learner = Learner(task, settings, start, accelerator)
        self._learner.put_in()
        self.watch("nan")

    def _remember(self, memory: float, snapshot_every: int, exact: bool) -> None:
        self.memory = check.number(memory, "memory", 0)
        self.snapshot_every = check.integer(snapshot_every, "snapshot_every", 1)
        self.exact = bool(exact)
        self._snapshots = Snapshots(int(memory * MEBIBYTE), snapshot_every)

    def _begin(self, snapshot: Snapshot, records: list[TrainingState]) -> None:
        """The run stands after ``snapshot.i`` updates, of which ``records`` tell."""
        self._records = records
        self._first = self._cursor = self._live = snapshot.i  # _live: which state the run's own weights are of
        if self._learner.main:
            self._snapshots.add(snapshot)

    def _beginning(self, snapshot: Snapshot) -> TrainingState:
        norms = self._learner.layers.weight_norms(snapshot.weights, self._learner.layers.scales())
        return TrainingState(0, None, {}, None, None, None, None, None, ByLayer(), norms, ByLayer(), None,
                             snapshot.digest(), 0.0, (), self.task.batch)  # fmt: skip

    # What `Timeline` asks for

    @property
    def total(self) -> int | None:
        """How many steps there will be; None: no end."""
        return self.settings.steps

    def _states(self) -> Sequence[TrainingState]:
        return self._records

    def _compute(self) -> None:
        newest = self.recorded
        if self.total is not None and newest >= self.total:
            raise StopIteration
        if self._live != newest:
            self._restore(newest)
        try:
            state, snapshot = self._update(newest)
            if self._learner.main:
                self._snapshots.add(snapshot)
        except BaseException:  # an interrupt too: weights and moments may be half-way
            self._live = None
            self._load(newest)
            raise
        self._records.append(state)
        self._live = newest + 1
        if self._learner.main:
            self._snapshots.thin(newest + 1, newest + 1)

    def _update(self, step: int) -> tuple[TrainingState, Snapshot | None]:
        """One update of the weights that are live; its state and the snapshot after it."""
        learner, layers = self._learner, self._learner.layers
        m: Measured = learner.update(step)
        told = (step + 1, m.losses["loss"], m.losses)
        if not learner.main:
            state = TrainingState(*told, None, None, None, m.learning_rate, m.gradient_norm, m.gradient_norms,
                                  ByLayer(), ByLayer(), m.fault, "", m.seconds, m.numbers, self.task.batch)  # fmt: skip
            return state, None
        after, before, scales = learner.capture(step + 1), self._snapshots[step], layers.scales()
        norms = layers.weight_norms(after.weights, scales), layers.update_norms(before.weights, after.weights, scales)
        state = TrainingState(*told, m.per_sample, m.per_cell, m.t, m.learning_rate, m.gradient_norm, m.gradient_norms,
                              *norms, m.fault, after.digest(), m.seconds, m.numbers, self.task.batch)  # fmt: skip
        return state, after

    # Weights

    def _load(self, i: int) -> None:
        """The live weights become those of a snapshot; in several processes the main one's."""
        if self._learner.main:
            self._learner.restore(self._snapshots[i])
        self._learner.spread()
        self._live = i

    def _restore(self, i: int) -> None:
        """The live weights become those after ``i`` updates, computed from the snapshot before. All or nothing."""
        main, known = self._learner.main, self._snapshots
        start, was = self._learner.agreed(known.before(i).i if main else 0), self._live
        backup = None if was is None else known[was] if was in known else self._learner.capture(was)
        try:
            self._load(start)
            for step in range(start, i):
                self._learner.update(step)
                self._live = step + 1
                self._check(step + 1, i)
        except BaseException:
            if backup is not None:
                self._learner.restore(backup)
                self._live = was
            raise

    def _check(self, i: int, focus: int) -> None:
        """Weights computed again must be what they were; then they are worth keeping."""
        same = 1
        if self._learner.main:
            snapshot = self._learner.capture(i)
            same = int(snapshot.digest() == self._records[i].digest)
            if same:
                self._snapshots.add(snapshot)
                self._snapshots.thin(focus, self.recorded)
        if self._learner.agreed(same):
            return
        told = (
            f"step {i} computed again gave other weights than the first time: the objective draws random "
            "numbers that do not come with the batch, or this hardware does not add in the same order each time"
        )
        if self.exact:
            raise RuntimeError(
                f"{told}. Make the objective depend on its batch only, give more memory so that less is computed again "
                "(memory=..., snapshot_every=1), or take exact=False for weights that are nearly right."
            )
        if not any("gave other weights" in note for note in self.notes):
            self.notes.append(told)

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Inside, this run alone moves; afterwards, come what may, the model has the weights at its cursor."""
        with patiently(_ONE_AT_A_TIME, "a training run"):
            try:
                yield
            finally:
                self._settle()

    def _settle(self) -> None:
        """The model gets the weights at the cursor; where that fails the cursor goes to the weights that there are."""
        try:
            if self._live != self._cursor:
                self._restore(self._cursor)
        except BaseException:
            self._cursor = self._live
            raise
        finally:
            self._learner.put_in()

    @property
    def module(self) -> torch.nn.Module:
        """The objective, with this run's weights at its cursor put in; see the class for how long."""
        self._learner.put_in()
        return self.task.objective

    @property
    def pipe(self):
        """The task's pipeline, with this run's weights at its cursor put in; see the class for how long.

        Raises:
            AttributeError: the task has no pipeline.
        """
        make = getattr(self.task, "pipeline", None)
        if getattr(self.task, "pipe", None) is None and make is None:
            raise AttributeError(f"task {self.task.name!r} has no pipeline; look at run.module.")
        self._learner.put_in()
        return make() if getattr(self.task, "pipe", None) is None else self.task.pipe

    @contextmanager
    def applied(self, i: int | None = None) -> Iterator[torch.nn.Module]:
        """Inside, the model has this run's weights (those after ``i`` updates); afterwards what it had before.

        Yields:
            The objective.
        """
        was, stopped = self._cursor, self.stopped
        i = was if i is None else check.integer(i, "i", self._first, self.recorded)
        with self._learner.applied():
            try:
                if i != was:
                    self.goto(i)
                yield self.module
            finally:
                if self._cursor != was:
                    self.goto(was)
                self.stopped = stopped

    def weights(self, i: int | None = None) -> dict[str, torch.Tensor]:
        """Copies of the trained weights after ``i`` updates (None: at the cursor), by name."""
        with self.applied(i):
            return {name: p.detach().clone() for name, p in self._learner.parameters.items()}

    # Moving

    def step(self, n: int = 1) -> TrainingState:
        """Goes n updates forward, or as far as the run, a breakpoint or a watch lets it; returns the state there."""
        return super().step(n)

    def run(self, n: int) -> TrainingState:
        """The same as `step`: n updates."""
        return self.step(n)

    def goto(self, i: int) -> TrainingState:
        """Goes to the state after i updates; see `Timeline.goto`. What is not recorded yet is computed.

        Raises:
            ValueError: i is negative, beyond the end, or before the branching point of a branch.
        """
        if isinstance(i, int) and 0 <= i < self._first:
            raise ValueError(
                f"i is {i}, expected at least {self._first}: {self.name} begins there. What was before is "
                f"{'its parent, run.parent.goto(' + str(i) + ')' if self.parent is not None else 'not in its file'}."
            )
        return super().goto(i)

    # Stopping

    def watch(
        self,
        what: str | Callable[[TrainingState, TrainingState], str | bool | None],
        *,
        ratio: float | None = None,
        above: float | None = None,
        window: int = 20,
    ) -> Watch:
        """Stops the run where something happens that should not.

        Args:
            what: "nan" (loss or gradient not finite); "loss spike" or "gradient norm"; any name in a state, such as
                "update_norm" or one of the losses; or ``finds(before, after)``, which gives what is wrong, in words,
                or nothing.
            ratio: more than this times the median of the last ``window`` steps ("loss spike": 3 if nothing is given).
            above: more than this.
            window: see ratio.

        Returns:
            The watch, to be taken out of ``watches`` again.

        Raises:
            ValueError: no limit is given, or there is no such name.
        """
        watch = make_watch(what, ratio, above, window, lambda: self._records)
        self.watches.append(watch)
        return watch

    # Branching

    def branch(self, at: int | None = None, **changes) -> "TrainingRun":
        """A run of its own from the exact state after ``at`` updates; this one stays as it is.

        Without changes it goes on bit for bit as this one does. Weights are separate from the first moment on, so both
        live on one model (see the class), which holds this run's until the branch moves. The branch's states up to
        ``at`` are its parent's; going back there is the parent's. Breakpoints and watches are not taken over.

        Args:
            at: after how many updates; None: at the cursor.
            **changes: settings of the run (learning_rate or lr, schedule, seed = another order of the data, batch_size,
                steps, clip ...), of its memory (memory, snapshot_every, exact), and what the task lets be changed
                (`LoraTask`: mask_policy, rank, lora_alpha, prompt ...). For another rank the update so far is carried
                over: exactly when the rank grows, as the best approximation (SVD) when it shrinks; `notes` says so.

        Raises:
            ValueError: no such step or setting.
        """
        return branch_off(self, at, changes)

    # Keeping it

    @property
    def nbytes(self) -> int:
        """What the run holds in memory now: snapshots and states."""
        return self._snapshots.nbytes + sum(state.nbytes for state in self._records)

    @property
    def snapshots(self) -> list[int]:
        """After which updates there is a snapshot of the weights."""
        return self._snapshots.steps

    def save(self, file) -> Path:
        """Writes the run into one safetensors file; see `training.file`. Returns its path."""
        from workbench.stepping.training.file import save_run

        return save_run(self, file)

    @classmethod
    def load(cls, file, task: Task, **options) -> "TrainingRun":
        """Goes on with a saved run: bit for bit as it would have gone on.

        Args:
            file: from `save`.
            task: made as it was then: same base model, same pictures, same settings.
            **options: memory, snapshot_every, exact, accelerator.

        Raises:
            ValueError: the file is damaged or none of ours, or the task is another; the message says what.
        """
        from workbench.stepping.training.file import load_run

        return load_run(cls, file, task, **options)

    def __repr__(self) -> str:
        end = "" if self.total is None else f" of {self.total}"
        loss = "" if self.state.loss is None else f", loss {self.state.loss:.4g}"
        held = self._snapshots.nbytes / MEBIBYTE
        states = (self.nbytes - self._snapshots.nbytes) / MEBIBYTE
        told = [f"{self.name}: step {self.i}{end}, {self.recorded} recorded{loss}"]
        told.append(f"{len(self._snapshots)} snapshots {held:.1f} of {self.memory:g} MiB, states {states:.1f} MiB")
        told += [f"stopped: {self.stopped}"] * bool(self.stopped) + self.notes
        return f"TrainingRun({'; '.join(told)})"
