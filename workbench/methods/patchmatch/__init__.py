"""PatchMatch: similar patches found by lucky guesses that spread, and image completion built on it.

`field` finds matches, `levels` has the sizes it is done at and sets references beside the picture, `fill` completes
pictures with them, `seams` hides the joints.
"""

from workbench.methods.patchmatch.field import (
    Field,
    PatchPair,
    exhaustive_field,
    nearest_neighbour_field,
    propagate,
    random_field,
    random_search,
)
from workbench.methods.patchmatch.fill import fill, vote
from workbench.methods.patchmatch.seams import blend_seams

__all__ = [
    "Field",
    "PatchPair",
    "blend_seams",
    "exhaustive_field",
    "fill",
    "nearest_neighbour_field",
    "propagate",
    "random_field",
    "random_search",
    "vote",
]
