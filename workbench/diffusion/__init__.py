"""Small diffusion models in the published folder format: load them, build them, train them, fill a hole with them.

Loading and sampling need no training data; ``python -m workbench.diffusion.train`` makes the bundled models.
"""

from workbench import lazy

_NAMES = {
    "load_pipeline": "pipelines",
    "bundled": "pipelines",
    "load_classifier": "classifier",
    "tiny_perceptual": "classifier",
    "LoraTask": "lora_task",
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

__getattr__, __dir__, __all__ = lazy.exports(__name__, _NAMES)
