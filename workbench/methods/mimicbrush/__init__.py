"""MimicBrush (Chen et al., 2024): a hole is filled with what another picture shows, found without being told where.

The rooms: `attention` joins two U-Nets, `networks` holds them and what is trained between, `conditions` what they are
told of a picture, `model` all of it; `sampling` draws pictures, `fill` serves any photograph. `pairs`, `augment` and
`masks` make what is learnt from, `pointing` says what the rendered world knows of it, `encoding` and `train` learn;
`loading` reads the bundled and the released weights, `evaluation` has scores, a baseline, and texture transfer with its
truth.
"""

from workbench.methods.mimicbrush.attention import Bank, imitating, listening
from workbench.methods.mimicbrush.augment import AUGMENTATIONS, augment
from workbench.methods.mimicbrush.conditions import ClipStates, ReleasedDepth
from workbench.methods.mimicbrush.encoding import encode_pairs
from workbench.methods.mimicbrush.evaluation import (
    TextureCase,
    inner_scores,
    region_similarity,
    side_by_side,
    texture_case,
)
from workbench.methods.mimicbrush.fill import fill
from workbench.methods.mimicbrush.loading import grow_mimicbrush, load_mimicbrush, load_released
from workbench.methods.mimicbrush.masks import box_mask, grid_mask, keypoints, segment_mask
from workbench.methods.mimicbrush.model import MimicBrush
from workbench.methods.mimicbrush.pairs import Films, Pair, Pairs, frame_pairs
from workbench.methods.mimicbrush.sampling import sample
from workbench.methods.mimicbrush.train import MimicTask

__all__ = [
    "AUGMENTATIONS", "Bank", "ClipStates", "Films", "MimicBrush", "MimicTask", "Pair", "Pairs", "ReleasedDepth",
    "TextureCase", "augment", "box_mask", "encode_pairs", "fill", "frame_pairs", "grid_mask", "grow_mimicbrush",
    "imitating", "inner_scores", "keypoints", "listening", "load_mimicbrush", "load_released", "region_similarity",
    "sample", "segment_mask", "side_by_side", "texture_case",
]  # fmt: skip
