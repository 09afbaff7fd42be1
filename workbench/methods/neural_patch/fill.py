"""The door of the registry: the whole optimisation as a generator of steps."""

from collections.abc import Iterator

import torch

from workbench import check
from workbench.methods.neural_patch.networks import load_network
from workbench.methods.neural_patch.settings import PatchSettings
from workbench.methods.neural_patch.solver import Solver
from workbench.methods.result import Step

_DEFAULT = PatchSettings()


def fill(
    image: torch.Tensor,
    mask: torch.Tensor,
    *,
    content=None,
    network="classifier",
    sizes: tuple[int, ...] = _DEFAULT.sizes,
    iterations: int = _DEFAULT.iterations,
    layers: tuple[str, ...] | None = _DEFAULT.layers,
    content_weight: float = _DEFAULT.content_weight,
    texture_weight: float = _DEFAULT.texture_weight,
    tv_weight: float = _DEFAULT.tv_weight,
    colour_weight: float = _DEFAULT.colour_weight,
    content_term: str = _DEFAULT.content_term,
    match: str = _DEFAULT.match,
    coherence: float = _DEFAULT.coherence,
    refresh: int = _DEFAULT.refresh,
    copies: tuple[tuple[float, float], ...] = _DEFAULT.copies,
    overlap: int = _DEFAULT.overlap,
    show_every: int = 10,
    seed: int = 0,
) -> Iterator[Step]:
    """Multi-scale neural patch synthesis: content and texture of the hole optimised together, coarse to fine.

    minimise over the hole  w_c E_c + w_t sum of E_t + w_col E_col + w_tv E_tv  (see `Objective`)

    Args:
        image: (1, 3, H, W) in [0, 1]; what it holds inside the hole is never looked at.
        mask: (1, 1, H, W), 1 = hole, of any shape, at the frame too; some pixels must be known.
        content: what fills the coarsest level: ``content(picture, mask) -> picture`` (a context encoder); a picture
            (1, 3, H, W) of the part that is worked on; or None: the colours of the edge spread inwards, which knows
            no structure (`levels.smooth_fill`).
        network: the texture network, see `load_network`: "classifier", "vgg19", "random", a path ...
        sizes, iterations, layers, content_weight, texture_weight, tv_weight, colour_weight, content_term, match,
            coherence, refresh, copies, overlap: see `PatchSettings`.
        show_every: a Step after so many iterations, and at each level's end.
        seed: of the random network, if that is taken; nothing else is random.

    Yields:
        Steps whose image (1, 3, h, w) shows the part of the picture that is worked on (`box`) at the level's size, the
        last one the full picture. `arrays` holds "mask" and for each layer "offsets relu3_1" ... (1, 2, h', w'), where
        each hole patch found its neighbour: right and down in pixels of the level, NaN elsewhere.

    Raises:
        ValueError, TypeError: arguments against the conventions.
        NotAvailable: the network's weights are not on this machine.

    Source: Yang et al., High-resolution image inpainting using multi-scale neural patch synthesis, CVPR 2017. Differs
        in means for sums, in scaled features, in a term for colours (`colour_weight`), in neighbours by distance
        (match="ncc" takes the paper's correlation) that keep together (coherence=0 lets each patch choose for itself)
        and are kept for some iterations (refresh=1 searches every time),
        and in the part that is worked on: three times the hole's box, 512 pixels at least. The finest level is 512
        pixels, as in the paper; a larger part is reduced to that and the result enlarged, which the last Step's label
        says. ``sizes=(128, 256, 512, 1024)`` goes on to 1024.

    Example:
        >>> for step in fill(photo, mask, network="random", iterations=20):
        ...     print(step)
    """
    check.integer(show_every, "show_every", 1)
    settings = PatchSettings(
        sizes,
        iterations,
        layers,
        content_weight,
        texture_weight,
        tv_weight,
        colour_weight,
        content_term,
        match,
        coherence,
        refresh,
        copies,
        overlap,
    )
    solver = Solver(image, mask, load_network(network, seed=seed), content, settings)
    total, i = len(solver.sizes) * -(-iterations // show_every), 0
    while solver.i < solver.total:
        solver.step()
        if solver.iteration % show_every and solver.iteration != iterations:
            continue
        i += 1
        level, objective = solver.objective.level, solver.objective
        label = f"level {level.number} of {level.of}, {level.size[0]} x {level.size[1]}, iteration {solver.iteration}"
        height, width = level.size
        arrays = {"mask": level.mask[..., :height, :width]}
        arrays |= {f"offsets {name}": objective.offsets(name, solver.neighbours[name]) for name in objective.layers}
        if solver.i == solver.total:
            yield Step(i, total, "; ".join([label, *solver.notes]), solver.result(), arrays)
        else:
            yield Step(i, total, label, objective.picture(solver.x), arrays, solver.box)
