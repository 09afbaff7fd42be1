"""What can be chosen: `PatchSettings`, with the paper's and the released code's values beside ours."""

from dataclasses import dataclass, fields, replace

from workbench import check
from workbench.methods.neural_patch.patches import MATCHES

RELEASED_COPIES = tuple((d, s) for d in (-7.5, 0, 7.5) for s in (1 / 1.05, 1, 1.05) if (d, s) != (0, 1))
"""The eight turned (degrees) and scaled copies that the released code can search beside the picture itself."""
LARGEST = 2048
"""Pixels; no level's long side may be more."""


@dataclass(frozen=True)
class PatchSettings:
    """How a hole is optimised.

    E = content_weight E_c + texture_weight sum of E_t over the layers + colour_weight E_col + tv_weight E_tv, each a
    mean (see `Objective`)

    Args:
        sizes: long sides of the pyramid's levels in pixels, rising; none larger than the picture is made.
        iterations: of L-BFGS at each level.
        layers: names of the layers whose patches are compared, one or two (any number works); None takes the network's
            middle two.
        content_weight, texture_weight, tv_weight: of the paper's three terms; 0 leaves one out.
        colour_weight: of our own term, the colours of what the texture term found; 0 leaves it out, as published.
        content_term: "pixels" compares the hole with the content reference as pictures (the paper's equation);
            "features" as features of a deeper layer (what the released code does).
        match: "ncc" (as published) or "l2", what a nearest neighbour is nearest by; see `patches.Source`. Correlation
            does not mind how strong a pattern is: in large holes bright walls end up dark. Distance keeps it, and
            minds colours as far as ``colour_weight`` does (see `Objective`).
        coherence: how much it counts that patches side by side find neighbours side by side (see `search.cohere`); 0:
            each for itself, as published, which leaves fine grain flat.
        refresh: neighbours are searched anew every so many iterations; 0: once a level.
        copies: (degrees, scale) of turned and scaled copies of the known picture to be searched too, such as
            `RELEASED_COPIES`.
        overlap: so many pixels around the hole are optimised with it, for a soft edge by ``inpaint(..., feather=n)``.
        history: steps that L-BFGS remembers.

    Source: Yang et al., CVPR 2017. Paper: relu3_1 and relu4_1, weights 5e-6 beside the content's 1 (on sums of VGG's
        unscaled features). Released code: 100 iterations a level, history 25, relu4_1 only, content in relu4_2.

    Example:
        >>> PatchSettings(iterations=30).changed(texture_weight=0)
    """

    sizes: tuple[int, ...] = (128, 256, 512)
    iterations: int = 100
    layers: tuple[str, ...] | None = None
    content_weight: float = 0.05
    texture_weight: float = 1.0
    tv_weight: float = 0.3
    colour_weight: float = 10.0
    content_term: str = "pixels"
    match: str = "l2"
    coherence: float = 1.0
    refresh: int = 10
    copies: tuple[tuple[float, float], ...] = ()
    overlap: int = 0
    history: int = 25

    def __post_init__(self):
        sizes = self.sizes if isinstance(self.sizes, (list, tuple)) else (self.sizes,)
        for k, size in enumerate(sizes):
            check.integer(size, f"sizes[{k}]", 16, LARGEST)
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise ValueError(
                f"sizes is {self.sizes!r}, expected long sides in pixels, rising, such as (128, 256, 512)."
            )
        object.__setattr__(self, "sizes", tuple(sizes))
        check.integer(self.iterations, "iterations", 1)
        for name in ("content_weight", "texture_weight", "tv_weight", "colour_weight", "coherence"):
            check.number(getattr(self, name), name, 0)
        if self.content_weight == self.texture_weight == self.tv_weight == 0:
            raise ValueError("all three weights are 0, expected one that is more: there is nothing to optimise.")
        check.choice(self.content_term, "content_term", ("pixels", "features"))
        check.choice(self.match, "match", MATCHES)
        check.integer(self.refresh, "refresh", 0)
        check.integer(self.overlap, "overlap", 0, 256)
        check.integer(self.history, "history", 1, 200)
        if self.layers is not None:
            if isinstance(self.layers, str) or not self.layers:
                raise ValueError(f"layers is {self.layers!r}, expected names such as ('relu3_1', 'relu4_1').")
            object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "copies", _check_copies(self.copies))

    def changed(self, **changes) -> "PatchSettings":
        """The same with these changes. Raises ValueError for a name that there is not."""
        names = [field.name for field in fields(self)]
        for name in changes:
            if name not in names:
                raise ValueError(f"no setting is called {name!r}, expected one of: {', '.join(names)}.")
        return replace(self, **changes)


def _check_copies(copies) -> tuple[tuple[float, float], ...]:
    told = "expected pairs (degrees, scale), such as ((-7.5, 1), (7.5, 1))"
    if not isinstance(copies, (list, tuple)):
        raise TypeError(f"copies is {copies!r}, {told}.")
    checked = []
    for k, copy in enumerate(copies):
        if not isinstance(copy, (list, tuple)) or len(copy) != 2:
            raise TypeError(f"copies[{k}] is {copy!r}, {told}.")
        degrees = check.number(copy[0], f"copies[{k}][0], the angle,", -180, 180)
        checked.append((degrees, check.number(copy[1], f"copies[{k}][1], the scale,", 0.25, 4)))
    return tuple(checked)
