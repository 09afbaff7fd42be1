"""Small diffusion models in the published folder format: load them, build them, train them, fill a hole with them.

Loading and sampling need no training data; ``python -m workbench.diffusion.train`` makes the bundled models.
"""

import importlib

_NAMES = {
    "load_pipeline": "pipelines",
    "bundled": "pipelines",
    "load_classifier": "classifier",
    "tiny_perceptual": "classifier",
    "load_depth": "depth",
    "estimate_depth": "depth",
    "sample_hole": "filling",
    "grow_input": "models",
    "make_autoencoder": "models",
    "make_denoiser": "models",
    "make_scheduler": "models",
    "make_text_encoder": "models",
    "make_tokenizer": "tokenizer",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str):
    if name in _NAMES:
        return getattr(importlib.import_module(f"workbench.diffusion.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'workbench.diffusion' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
