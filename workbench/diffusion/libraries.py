"""diffusers and transformers, imported in one place and quietly.

Without torchvision transformers prints four notices about picture processors that nothing here uses.
"""

from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def quiet():
    """Silences notices and loading bars of both libraries; errors still come through."""
    modules = (diffusers_logging, transformers_logging)
    levels, bars = [m.get_verbosity() for m in modules], [m.is_progress_bar_enabled() for m in modules]
    for module in modules:
        module.set_verbosity_error()
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module, level, bar in zip(modules, levels, bars, strict=True):
            module.set_verbosity(level)
            if bar:
                module.enable_progress_bar()


with quiet():
    from diffusers import (
        AutoencoderKL,
        ConfigMixin,
        DDIMScheduler,
        DDPMScheduler,
        DiffusionPipeline,
        ModelMixin,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from diffusers.configuration_utils import register_to_config
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

__all__ = [
    "AutoencoderKL",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTokenizer",
    "CLIPVisionConfig",
    "CLIPVisionModelWithProjection",
    "ConfigMixin",
    "DDIMScheduler",
    "DDPMScheduler",
    "DiffusionPipeline",
    "ModelMixin",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
    "UNet2DConditionModel",
    "quiet",
    "register_to_config",
]
