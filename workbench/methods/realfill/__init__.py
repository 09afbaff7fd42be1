"""RealFill: what should have been in the hole, learnt from a few other photographs of the same place.

masks: what is hidden while it learns. crops: pictures of any size as crops of one. task: what is learnt. tuning:
`fine_tune`. fill: the method from end to end. ranking: which sample agrees with the references. baselines: what it has
to beat, and samples of the scene from nothing.
"""

from workbench.methods.realfill.baselines import scene_variants, warp
from workbench.methods.realfill.crops import cut_crops
from workbench.methods.realfill.fill import fill, sample
from workbench.methods.realfill.masks import random_rectangles, training_hole
from workbench.methods.realfill.ranking import Ranking, rank
from workbench.methods.realfill.task import RealFillTask
from workbench.methods.realfill.tuning import PUBLISHED, fine_tune

__all__ = [
    "PUBLISHED",
    "Ranking",
    "RealFillTask",
    "cut_crops",
    "fill",
    "fine_tune",
    "random_rectangles",
    "rank",
    "sample",
    "scene_variants",
    "training_hole",
    "warp",
]
