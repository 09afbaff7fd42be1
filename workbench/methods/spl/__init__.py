"""SPL (Zhang et al., IJCAI 2021): inpainting that asks a learnt semantic prior what should be in the hole.

The rooms: `layers` and `networks` hold generator and discriminator, `teachers` who teaches the prior (`tresnet` and
`detector` two of them), `train` how it is learnt, `loading` the bundled and the published weights, `fill` how it serves
any picture, `features` looks inside.
"""

from workbench.methods.spl.features import compare_priors, modulation, receptive_field, region_statistics, score_map
from workbench.methods.spl.fill import fill
from workbench.methods.spl.loading import load_published, load_spl, published_state
from workbench.methods.spl.networks import PAPER, Completion, SplGenerator, complete, make_spl
from workbench.methods.spl.teachers import Teacher, make_teacher

__all__ = [
    "PAPER", "Completion", "SplGenerator", "Teacher", "compare_priors", "complete", "fill", "load_published",
    "load_spl", "make_spl", "make_teacher", "modulation", "published_state", "receptive_field", "region_statistics",
    "score_map",
]  # fmt: skip
