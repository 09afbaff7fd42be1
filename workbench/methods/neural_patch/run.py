"""`PatchRun`: the optimisation as a film that can be stepped, rewound and branched. `PatchState` is one frame of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from workbench import check, plot
from workbench.methods.neural_patch.networks import load_network
from workbench.methods.neural_patch.objective import Objective
from workbench.methods.neural_patch.patches import Neighbours
from workbench.methods.neural_patch.settings import PatchSettings
from workbench.methods.neural_patch.solver import Solver
from workbench.stepping.timeline import Timeline, one_at_a_time
from workbench.stepping.training.memory import Snapshots


@dataclass(frozen=True)
class PatchState:
    """What there is after ``i`` iterations.

    Args:
        i: iterations done, over all levels.
        level: number of the level, 1 = coarsest.
        iteration: iterations done at this level.
        losses: each term's energy and "total" at the picture that the iteration began with; empty at i = 0. For the
            picture that it ended with: `energies`.
        neighbours: what the iteration pulled towards, by layer; empty at i = 0.
        seconds: the iteration took.
        free: the free pixels (3, K).
        objective: the level's terms.
    """

    i: int
    level: int
    iteration: int
    losses: dict[str, float]
    neighbours: dict[str, Neighbours] = field(repr=False)
    seconds: float
    free: torch.Tensor = field(repr=False)
    objective: Objective = field(repr=False)

    @property
    def loss(self) -> float | None:
        """The total of `losses`."""
        return self.losses.get("total")

    @property
    def picture(self) -> torch.Tensor:
        """The part that is worked on, at the level's size, (1, 3, h, w) in [0, 1]."""
        return self.objective.picture(self.free)

    @property
    def content_reference(self) -> torch.Tensor:
        """What the level began with and the content term holds on to, (1, 3, h, w) in [0, 1]."""
        height, width = self.objective.level.size
        return self.objective.level.reference[..., :height, :width].clone()

    @property
    def mask(self) -> torch.Tensor:
        """The free pixels at the level's size, (1, 1, h, w)."""
        height, width = self.objective.level.size
        return self.objective.level.mask[..., :height, :width].clone()

    def energies(self) -> dict[str, float]:
        """Each term's energy at this very picture, and their weighted "total"; computed when asked for."""
        with torch.no_grad():
            terms = self.objective.terms(self.free, self.objective.wishes(self._found()))
            return {name: v.item() for name, v in terms.items()} | {"total": float(self.objective.total(terms))}

    def gradient(self, term: str = "total") -> torch.Tensor:
        """The slope of a term's weighted energy at this picture, (1, 3, h, w); 0 outside the hole. Down is against it.

        Args:
            term: one of `energies`: "content", "texture relu3_1", "tv", "total" ...; computed when asked for.

        Raises:
            ValueError: no such term; those of weight 0 are none.
        """
        x = self.free.clone().requires_grad_()
        with torch.enable_grad():
            terms = self.objective.terms(x, self.objective.wishes(self._found()))
            check.choice(term, "term", [*terms, "total"])
            value = self.objective.total(terms) if term == "total" else self.objective.weight(term) * terms[term]
            slope = torch.autograd.grad(value, x)[0]
        return self.objective.spread(slope, torch.zeros_like(self.objective.level.reference))

    def offsets(self, layer: str | None = None) -> torch.Tensor:
        """Where the hole patches found their neighbours: right, down in pixels of the level, one value a cell.

        Args:
            layer: None takes the first.

        Returns:
            (1, 2, h, w) for `plot.show_offsets`; NaN where there is no hole patch.
        """
        layer = self._layer(layer)
        return self.objective.offsets(layer, self._found()[layer])

    def similarity(self, point: tuple[float, float], layer: str | None = None) -> torch.Tensor:
        """How like the hole patch nearest to a point is to every known patch: (1, 1, h, w), NaN where none is known.

        Args:
            point: (x, y) in pixels of the level.
            layer: None takes the first.

        Returns:
            Correlation ("ncc") or minus the mean squared difference ("l2"), one value a cell, for `plot.show_map`.
        """
        (x, y), layer = check.points([point], "point")[0].tolist(), self._layer(layer)
        return self.objective.similarity(self.free, layer, (x, y))[0]

    def show_matches(self, layer: str | None = None, most: int = 20, ax=None):
        """A figure: the picture twice, a line from hole patches to what they found."""
        layer = self._layer(layer)
        here, there = self.objective.matches(layer, self._found()[layer])
        title = f"level {self.level}, iteration {self.iteration}, {layer}"
        return plot.show_matches(self.picture, self.picture, here, there, title=title, ax=ax, most=most)

    def _layer(self, layer: str | None) -> str:
        names = list(self.objective.layers)
        if not names:
            raise ValueError("the texture term is not in use here, expected a layer with patches to look at.")
        return names[0] if layer is None else check.choice(layer, "layer", names)

    def _found(self) -> dict[str, Neighbours]:
        """The iteration's neighbours; before the first, those it will search for."""
        names = self.objective.layers
        return self.neighbours if set(self.neighbours) == set(names) else self.objective.search(self.free)

    @property
    def nbytes(self) -> int:
        """What it takes in memory beside its level's objective; neighbours are shared until they are searched anew."""
        return self.free.nbytes

    def __repr__(self) -> str:
        terms = "".join(f", {name} {value:.4g}" for name, value in self.losses.items())
        height, width = self.objective.level.size
        return f"PatchState({self.i}: level {self.level} ({height} x {width}), iteration {self.iteration}{terms})"


class PatchRun(Timeline):
    """Neural patch synthesis, one iteration of L-BFGS at a time, both ways.

    Every state keeps its picture, so going back and forth over what is recorded computes nothing. ``memory`` MiB of
    snapshots hold what L-BFGS knows; a `branch` starts from the nearest one and goes over what lies between again, to
    the bit. An interrupted iteration leaves the run at its last complete one.

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        content, network, seed: see `fill`.
        memory: MiB of snapshots; states take 12 bytes a free pixel and iteration on top.
        **settings: of `PatchSettings`.

    Attributes:
        settings: as chosen.
        notes: what a person should know, in words.

    Raises:
        ValueError, TypeError, NotAvailable: see `fill`.

    Example:
        >>> run = PatchRun(photo, mask, network="random", iterations=20)
        >>> run.step(5); run.back(2); run.branch(content_weight=0).finish()
    """

    def __init__(
        self, image, mask, *, content=None, network="classifier", seed: int = 0, memory: float = 256, **settings
    ):
        super().__init__()
        chosen = PatchSettings().changed(**settings)
        self._set_up(Solver(image, mask, load_network(network, seed=seed), content, chosen), memory)
        self._records = [self._state({}, 0.0)]

    def _set_up(self, solver: Solver, memory: float) -> None:
        self._solver, self.memory = solver, check.number(memory, "memory", 0)
        self._snapshots = Snapshots(int(memory * 2**20))
        self._snapshots.add(solver.capture())
        self._live = self._first = solver.i

    def _state(self, losses: dict, seconds: float) -> PatchState:
        s = self._solver
        found = dict(s.neighbours or {})
        return PatchState(
            s.i, s.objective.level.number, s.iteration, losses, found, seconds, s.x.detach().clone(), s.objective
        )

    # What `Timeline` asks for

    @property
    def total(self) -> int:
        """How many iterations there will be, over all levels."""
        return self._solver.total

    def _states(self) -> Sequence[PatchState]:
        return self._records

    def _compute(self) -> None:
        newest = self.recorded
        if newest >= self.total:
            raise StopIteration
        if self._live != newest:
            self._solver.restore(self._snapshots[newest])
        try:
            told = self._solver.step()
            state, snapshot = self._state(*told), self._solver.capture()
        except BaseException:  # an interrupt too: x may be half-way
            self._live = None
            raise
        self._records.append(state)
        self._snapshots.add(snapshot)
        self._live = newest + 1
        self._snapshots.thin(newest + 1, newest + 1)

    # Moving

    @one_at_a_time
    def finish(self):
        """Goes on to the end, or to a breakpoint or watch; returns the state there."""
        self._walk(None, None)
        return self.state

    # Looking

    @property
    def settings(self) -> PatchSettings:
        """As chosen."""
        return self._solver.settings

    @property
    def notes(self) -> list[str]:
        """What a person should know, in words."""
        return list(self._solver.notes)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The part (x0, y0, x1, y1) of the picture that is worked on, in its pixels."""
        return self._solver.box

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(h, w) of the levels, coarse to fine."""
        return list(self._solver.sizes)

    def image(self, i: int | None = None) -> torch.Tensor:
        """The whole picture (1, 3, H, W) after ``i`` iterations (None: at the cursor), enlarged from its level."""
        i = self.i if i is None else check.integer(i, "i", 0, self.recorded)
        return self._solver.compose(self._records[i].picture)

    def curves(self) -> dict[str, tuple[list[int], list[float]]]:
        """Each term's energy over the iterations, for `plot.show_curves`: {name: (i, energy before iteration i)}."""
        names = dict.fromkeys(name for state in self._records for name in state.losses)
        return {
            name: tuple(zip(*[(s.i, s.losses[name]) for s in self._records if name in s.losses], strict=True))
            for name in names
        }

    # Branching

    @one_at_a_time
    def branch(self, at: int | None = None, *, network=None, seed: int = 0, **changes) -> "PatchRun":
        """A run of its own from the exact state after ``at`` iterations; this one stays as it is.

        Without changes it goes on bit for bit as this one does; so it does until the next search where only ``refresh``
        is changed. With any other change L-BFGS starts anew (what it knows is of another energy), and neighbours are
        searched at once. Where a level has just ended the change begins with the next.

        Args:
            at: after how many iterations; None: at the cursor.
            network, seed: another texture network; None keeps it.
            **changes: of `PatchSettings`: content_weight=0, texture_weight, tv_weight, layers, content_term, match,
                refresh, copies, history. Not sizes, iterations and overlap: they say what the run's states are of.

        Raises:
            ValueError: no such step or setting.
        """
        at = self.i if at is None else check.integer(at, "at", 0, self.recorded)
        if at < self._first:
            raise ValueError(
                f"at is {at}, expected at least {self._first}: {self.name} begins there. Branch its parent, run.parent."
            )
        fixed = [name for name in ("sizes", "iterations", "overlap") if name in changes]
        if fixed:
            raise ValueError(f"{' and '.join(fixed)} cannot be changed in a branch. Make a new PatchRun.")
        settings = self.settings.changed(**changes)
        other = self._solver.network if network is None else load_network(network, seed=seed)
        solver = self._solver.fork(self._snapshots.before(at))
        while solver.i < at:
            solver.step()
        if network is None and settings == self.settings.changed(refresh=settings.refresh):
            solver.settings = settings
        else:
            solver.change(settings, other)
        child = object.__new__(type(self))
        Timeline.__init__(child, self, at)
        child._set_up(solver, self.memory)
        child._records = list(self._records[: at + 1])
        child._cursor = at
        child.changes = {**changes, **({} if network is None else {"network": network})}
        return child

    @property
    def nbytes(self) -> int:
        """What snapshots and states take in memory now; parts that snapshots share are counted in each."""
        return self._snapshots.nbytes + sum(state.nbytes for state in self._records)

    def __repr__(self) -> str:
        told = [f"{self.name}: step {self.i} of {self.total}, {self.recorded} recorded", repr(self.state)]
        told += [f"stopped: {self.stopped}"] * bool(self.stopped) + self.notes
        return f"PatchRun({'; '.join(told)})"
