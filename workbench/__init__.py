"""A workbench for image completion: draw a hole on a photograph, fill it five ways, look inside.

Conventions: an image is float32 (B, 3, H, W), RGB, in [0, 1]; a mask is float32 (B, 1, H, W) with
1 = hole = repaint. Names are imported when first used, so ``import workbench`` is quick.
"""

import os

from workbench import lazy

# torch's threads must sleep while they wait. Spinning, as is the default, they slow each other down twenty times and
# more as soon as another program (a browser, a second notebook) wants a core. Read once, when torch is first loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_NAMES = {
    "load_image": "image",
    "save_image": "image",
    "load_mask": "mask",
    "save_mask": "mask",
    "inpaint": "methods",
    "list_methods": "methods",
    "load_pipeline": "diffusion",
    "LoraTask": "diffusion",
    "record_attention": "lenses",
    "match": "lenses",
    "DenoisingRun": "stepping",
    "TrainingRun": "stepping",
    "first_divergence": "stepping",
    "load_recording": "stepping",
    "AttentionView": "widgets",
    "MaskEditor": "widgets",
    "MatchView": "widgets",
    "RunPlayer": "widgets",
    "TrainingMonitor": "widgets",
}
_MODULES = (
    "check",
    "claims",
    "data",
    "diffusion",
    "image",
    "labs",
    "lenses",
    "mask",
    "methods",
    "metrics",
    "plot",
    "seams",
    "stepping",
    "widgets",
    "world",
)

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.exports(__name__, _NAMES, _MODULES)
