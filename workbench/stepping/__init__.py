"""Time travel for denoising and for training: record a run once, then step, go back, break, branch, replay and compare.

What people use: `DenoisingRun` (denoising), `first_divergence` (divergence, and the causes it knows in causes/),
`load_recording` (recording), `TrainingRun` (training/). Shared by both kinds of run: timeline. What a run shows: state,
watching, pictures, facts. How a pipeline is made to stand still between its steps, nobody needs to know: engine/.
"""

from workbench import lazy

_NAMES = {
    "DenoisingRun": "denoising",
    "first_divergence": "divergence",
    "compare_strip": "pictures",
    "load_recording": "recording",
    "TrainingRun": "training",
}
__getattr__, __dir__, __all__ = lazy.exports(__name__, _NAMES)
