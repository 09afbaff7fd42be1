"""Time travel for denoising and for training: record a run once, then step, go back, break, branch, replay and compare.

What people use: `DenoisingRun` (denoising), `first_divergence` (divergence, and the causes it knows in causes),
`load_recording` (recording), `TrainingRun` (training/). Shared by both kinds of run: timeline. What a run shows: state,
watching, pictures, facts. How it is done: an execution is one paused call of a pipeline on twins of its parts.
"""

import importlib

_NAMES = {
    "DenoisingRun": "denoising",
    "first_divergence": "divergence",
    "load_recording": "recording",
    "TrainingRun": "training",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"workbench.stepping.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'workbench.stepping' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
