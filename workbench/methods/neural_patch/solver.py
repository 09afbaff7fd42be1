"""Coarse to fine, one iteration of L-BFGS at a time: what `fill` and `PatchRun` drive."""

import copy
import math
import time
from dataclasses import dataclass, field

import torch

from workbench import check
from workbench import mask as masks
from workbench.image import resize
from workbench.methods.neural_patch.levels import (
    Level,
    choose_window,
    make_level,
    predict_content,
    pyramid_sizes,
    shrink_mask,
    smooth_fill,
)
from workbench.methods.neural_patch.networks import TextureNetwork
from workbench.methods.neural_patch.objective import Objective
from workbench.methods.neural_patch.patches import Neighbours
from workbench.methods.neural_patch.settings import PatchSettings

_SHARED = ("d", "t", "ro", "H_diag", "prev_loss", "func_evals", "n_iter", "old_dirs", "old_stps")
"""What L-BFGS keeps and never writes to again, only replaces; lists of it are copied as lists."""


@dataclass(frozen=True)
class Snapshot:
    """Everything needed to go on after ``i`` iterations, to the bit; never written to.

    Args:
        i: iterations done, over all levels.
        objective: of the level; shared by its snapshots.
        iteration: iterations done at this level.
        x: free pixels (3, K).
        neighbours: by layer; None where they are to be searched first.
        memory: of L-BFGS: steps, differences of gradients, and so on; shared with other snapshots.
    """

    i: int
    objective: Objective = field(repr=False)
    iteration: int
    x: torch.Tensor = field(repr=False)
    neighbours: dict[str, Neighbours] | None = field(repr=False)
    memory: dict = field(repr=False)

    @property
    def nbytes(self) -> int:
        """What it takes in memory; parts that snapshots share are counted in each: too much rather than too little."""
        tensors = [self.x, *(v for v in self.memory.values() if isinstance(v, torch.Tensor))]
        for name in ("old_dirs", "old_stps"):
            tensors += self.memory.get(name) or []
        return sum(t.nbytes for t in tensors) + sum(n.nbytes for n in (self.neighbours or {}).values())


class Solver:
    """The optimisation of a hole, all levels one after the other; `step` does one iteration.

    The content network fills the coarsest level. Each level's result, enlarged, starts the next and becomes its content
    reference. Each level's L-BFGS is its own: no line search, steps of full length, as in the released code.

    Args:
        image: (1, 3, H, W) in [0, 1].
        mask: (1, 1, H, W), 1 = hole.
        network: the texture network.
        content: see `levels.predict_content`.
        settings: see there.

    Attributes:
        box: the part (x0, y0, x1, y1) of the picture that is worked on.
        sizes: (h, w) of its levels.
        i, iteration: iterations done, altogether and at this level.
        objective: of the level it is at.
        notes: what a person should know, in words.
    """

    def __init__(self, image, mask, network: TextureNetwork, content, settings: PatchSettings):
        check_hole(image, mask)
        self.network, self.settings, self.notes = _beside(image, network), settings, []
        for name in settings.layers or network.layers:
            check.choice(name, "layer", network.layer_names())
        self.image, self.mask = image, mask
        # only the pixels of the hole are the method's to invent; an overlap is repainted too, to be blended
        self._area = masks.grow(mask, settings.overlap) if settings.overlap else mask
        if self._area.all():
            raise ValueError(f"overlap is {settings.overlap}, which leaves no known pixel. Take a smaller one.")
        self.box = x0, y0, x1, y1 = choose_window(self._area, settings.sizes[-1])
        self._known = smooth_fill(image, self._area)[..., y0:y1, x0:x1]  # what lies in the hole must not matter
        self._hole = self._area[..., y0:y1, x0:x1]
        sizes = pyramid_sizes((y1 - y0, x1 - x0), settings.sizes)
        self.sizes = [size for size in sizes[:-1] if (shrink_mask(self._hole, size) == 0).any()] + sizes[-1:]
        self._tell_size()
        picture, free = self._at(1)
        self._begin(1, predict_content(content, picture, free))

    def _tell_size(self) -> None:
        height, width = self._hole.shape[-2:]
        if self.sizes[-1] != (height, width):
            h, w = self.sizes[-1]
            self.notes.append(
                f"the hole was optimised at {h} x {w} and enlarged to {height} x {width}: its finest grain is missing. "
                f"sizes=(..., {max(height, width)}) would optimise every pixel, in more time."
            )

    def _at(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture, its hole smoothly filled, and the mask at a level's size."""
        size = self.sizes[number - 1]
        return resize(self._known, size), shrink_mask(self._hole, size)

    def _begin(self, number: int, filled: torch.Tensor) -> None:
        multiple = self.network.stride(self.network.layer_names()[-1])  # whatever layers a branch may take
        level = make_level(number, len(self.sizes), filled, self._at(number)[1], multiple)
        self._enter(level)
        self.i, self.iteration = (number - 1) * self.settings.iterations, 0
        self._load(self.objective.start, None, {})

    def _enter(self, level: Level) -> None:
        self.objective = Objective(level, self.network, self.settings)
        if self.objective.missing:
            h, w = level.size
            missing = " and ".join(self.objective.missing)
            told = f"at {h} x {w} no whole patch of {missing} is known: the texture term went without"
            self.notes += [told] * (told not in self.notes)

    def _load(self, x: torch.Tensor, neighbours, memory: dict) -> None:
        self.x = x.detach().clone().requires_grad_()
        self._optimiser = torch.optim.LBFGS(
            [self.x], lr=1, max_iter=1, history_size=self.settings.history, tolerance_grad=0, tolerance_change=0
        )
        if memory:
            own = {name: list(v) if isinstance(v, list) else v for name, v in memory.items()}
            own["prev_flat_grad"] = own["prev_flat_grad"].clone()  # written to by the next step
            self._optimiser.state[self.x] = own
        self.neighbours = neighbours
        self._wishes = None if neighbours is None else self.objective.wishes(neighbours)

    # Moving

    @property
    def total(self) -> int:
        """How many iterations there will be."""
        return len(self.sizes) * self.settings.iterations

    @torch.enable_grad()
    def step(self) -> tuple[dict[str, float], float]:
        """One iteration: at a level's end the next begins, neighbours are searched when it is time, L-BFGS steps.

        Returns:
            The terms' energies as they were before the step, and seconds.

        Raises:
            RuntimeError: the energy is not finite.
        """
        began = time.perf_counter()
        if self.iteration == self.settings.iterations:
            picture, free = self._at(self.objective.level.number + 1)
            enlarged = resize(self.objective.picture(self.x), tuple(picture.shape[-2:]))
            self._begin(self.objective.level.number + 1, torch.where(free > 0, enlarged, picture))
        if self.neighbours is None or (self.settings.refresh and self.iteration % self.settings.refresh == 0):
            self.neighbours = self.objective.search(self.x)
            self._wishes = self.objective.wishes(self.neighbours)
            self._retell_last_step()
        told: dict[str, float] = {}

        def closure():
            self._optimiser.zero_grad()
            terms = self.objective.terms(self.x, self._wishes)
            total = self.objective.total(terms)
            told.update({name: value.item() for name, value in terms.items()}, total=total.item())
            # sums, not means: torch's L-BFGS forgets steps whose curvature is below 1e-10
            (total * self.x.numel()).backward()
            return total * self.x.numel()

        self._optimiser.step(closure)
        if not (torch.isfinite(self.x).all() and all(map(math.isfinite, told.values()))):
            raise RuntimeError(
                f"the energy is no longer finite at iteration {self.i + 1}: "
                "the steps of L-BFGS grew too long. Take a smaller texture_weight, or a larger content_weight."
            )
        self.i, self.iteration = self.i + 1, self.iteration + 1
        return told, time.perf_counter() - began

    def _retell_last_step(self) -> None:
        """L-BFGS takes curvature from how the gradient changed over a step; new neighbours changed it too.

        So the gradient before the step is computed again, as the new neighbours have it. Without this the energy leaps
        after a search, and the full steps of the released code do not mend it.
        """
        state = self._optimiser.state.get(self.x, {})
        if "prev_flat_grad" in state:
            before = self.x.detach() - state["t"] * state["d"].view_as(self.x)
            before.requires_grad_()
            total = self.objective.total(self.objective.terms(before, self._wishes))
            state["prev_flat_grad"] = torch.autograd.grad(total * before.numel(), before)[0].flatten()

    # Keeping and going back

    def capture(self) -> Snapshot:
        """Where it stands."""
        memory = {}
        state = self._optimiser.state.get(self.x, {})
        if "prev_flat_grad" in state:  # not before the first step, nor while there is no slope to step down
            memory = {name: list(v) if isinstance(v := state.get(name), list) else v for name in _SHARED}
            memory["prev_flat_grad"] = state["prev_flat_grad"].clone()
        return Snapshot(self.i, self.objective, self.iteration, self.x.detach().clone(), self.neighbours, memory)

    def restore(self, snapshot: Snapshot) -> None:
        """Stands where it stood."""
        self.i, self.iteration, self.objective = snapshot.i, snapshot.iteration, snapshot.objective
        self._load(snapshot.x, snapshot.neighbours, snapshot.memory)

    def fork(self, snapshot: Snapshot) -> "Solver":
        """Another solver of the same hole that stands where this one stood; this one stays as it is."""
        other = copy.copy(self)
        other.notes = list(self.notes)
        other.restore(snapshot)
        return other

    def change(self, settings: PatchSettings, network: TextureNetwork) -> None:
        """Goes on from here with other settings or another network; what was compared so far is forgotten."""
        x, i, iteration = self.x, self.i, self.iteration
        self.settings, self.network = settings, _beside(self.image, network)
        self._enter(self.objective.level)
        self._load(x, None, {})
        self.i, self.iteration = i, iteration

    # Looking

    def result(self) -> torch.Tensor:
        """The whole picture (1, 3, H, W) as it stands: the hole (and the overlap) repainted, the rest untouched."""
        return self.compose(self.objective.picture(self.x))

    def compose(self, picture: torch.Tensor) -> torch.Tensor:
        """A level's picture (1, 3, h, w), enlarged and put in its place: (1, 3, H, W)."""
        x0, y0, x1, y1 = self.box
        filled = self.image.clone()
        part = filled[..., y0:y1, x0:x1]
        part.copy_(torch.where(self._hole > 0, resize(picture, (y1 - y0, x1 - x0)), part))
        return filled


def _beside(image: torch.Tensor, network: TextureNetwork) -> TextureNetwork:
    """The network on the picture's device; a copy where it was on another one."""
    return network if network.mean.device == image.device else copy.deepcopy(network).to(image.device)


def check_hole(image: torch.Tensor, mask: torch.Tensor) -> None:
    """One picture with a hole and something known, or a ValueError that says what to do."""
    check.image(image)
    check.mask(mask, like=image)
    if len(image) != 1:
        raise ValueError(f"image holds {len(image)} pictures, expected one, (1, 3, H, W). Loop over the batch.")
    if not mask.any():
        raise ValueError("mask has no hole (all 0), expected some pixels of 1 = repaint.")
    if mask.all():
        raise ValueError(
            "mask is 1 everywhere, expected at least one known pixel (0 = keep) to take patches from. "
            "If the mask is the wrong way round, take 1 - mask."
        )
