"""RealFill: what should have been in the hole, learnt from a few other photographs of the same place.

masks: what is hidden while it learns. crops: pictures of any size as crops of one. task: what is learnt. tuning:
`fine_tune`. warping: the references bent onto the target. fill: the method from end to end. ranking: which sample
agrees with the references. baselines: what it has to beat, and samples of the scene from nothing. exemplar: the
baseline that is told a reference in place of a text. dreambooth: the one that learns the references with a
text-to-image model, which knows of no holes.
"""

from workbench.methods.realfill.baselines import scene_variants
from workbench.methods.realfill.crops import cut_crops
from workbench.methods.realfill.dreambooth import dreambooth, learn_subject
from workbench.methods.realfill.exemplar import WordTask, exemplar, learn_word, remove_word
from workbench.methods.realfill.fill import fill, sample
from workbench.methods.realfill.masks import random_rectangles, training_hole
from workbench.methods.realfill.ranking import Ranking, rank
from workbench.methods.realfill.task import RealFillTask
from workbench.methods.realfill.tuning import PUBLISHED, fine_tune
from workbench.methods.realfill.warping import warp

__all__ = [
    "PUBLISHED",
    "Ranking",
    "RealFillTask",
    "WordTask",
    "cut_crops",
    "dreambooth",
    "exemplar",
    "fill",
    "fine_tune",
    "learn_subject",
    "learn_word",
    "random_rectangles",
    "rank",
    "remove_word",
    "sample",
    "scene_variants",
    "training_hole",
    "warp",
]
