"""Notebook 07: six faults of the kind people make, planted in a pipeline. `diagnoses` checks what learners find.

Whoever reads on knows the answers: what is wrong with each stands in `_FAULTS`.
"""

import copy
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable

import torch

from workbench import check as checks

NAMES = ("one", "two", "three", "four", "five", "six")
TERMS = ("start", "timestep", "input", "unconditional", "text", "prediction", "guidance", "history", "draw", "solver",
         "blend", "picture")  # fmt: skip
"""Parts of a step, in the order they are computed: the terms of `wb.first_divergence`."""
CULPRITS = {
    "mask polarity": "kept and repainted area are exchanged",
    "small mask": "cells that are hole in part are left out of the hole",
    "late timestep": "the network is told the timestep of the step before",
    "shifted timesteps": "the whole list of timesteps is moved by one place",
    "other prompt": "the network is given other text states",
    "swapped halves": "the parts with and without the prompt are exchanged",
    "guidance twice": "the guidance formula is applied to its own result",
    "other noise schedule": "the scheduler has another beta table",
    "stale solver": "the scheduler remembers predictions of an earlier picture",
    "no blending": "known latents are not put back after the step",
    "clean blending": "known latents are put back without the noise of their step",
    "other picture": "latents of another picture are put back",
    "other weights": "the network is another one, or an adapter is missing",
}
"""Culprit -> what it means: the list a diagnosis is chosen from."""


# Planting


def plant(pipe, name: str):
    """A broken copy of an inpainting pipeline. Weights are shared; the pipeline itself is left as it is.

    Args:
        pipe: a StableDiffusionInpaintPipeline. "three" needs one of 4 input channels (a text-to-image model), "five" a
            scheduler that remembers earlier steps (PNDM), "six" a LoRA, see `with_lora`.
        name: one of `NAMES`.

    Returns:
        A pipeline of the same kind, with a scheduler of its own.

    Raises:
        TypeError: a pipeline of another kind.
        ValueError: no such fault, or the pipeline lacks what it needs.
        NotAvailable: the installed diffusers has another text where the fault belongs.

    Example:
        >>> broken = plant(wb.load_pipeline("tiny-inpaint"), "two")
    """
    from workbench.diffusion.libraries import StableDiffusionInpaintPipeline

    checks.choice(name, "name", NAMES)
    if not isinstance(pipe, StableDiffusionInpaintPipeline):
        raise TypeError(f"pipe is a {type(pipe).__name__}, expected a StableDiffusionInpaintPipeline.")
    twin = copy.copy(pipe)
    vars(twin)["scheduler"] = copy.deepcopy(pipe.scheduler)
    _FAULTS[name](twin)
    return twin


def with_lora(pipe, rank: int = 4, strength: float = 0.1, targets: tuple[str, ...] | None = None, seed: int = 0):
    """A copy of a pipeline whose U-Net carries a LoRA of random numbers: to a debugger as good as a trained one.

    Args:
        pipe: left as it is; its weights are copied.
        rank: of the additions.
        strength: size of each, ||s B A||, as a share of the layer's own weights.
        targets: ends of the names of the layers that get one; None takes those of `lora.add_lora`.
        seed: of the numbers.
    """
    from workbench.diffusion.lora import add_lora, lora_layers

    twin = copy.copy(pipe)
    vars(twin)["unet"] = copy.deepcopy(pipe.unet)
    vars(twin)["scheduler"] = copy.deepcopy(pipe.scheduler)
    add_lora(twin.unet, rank, targets=targets, seed=seed)
    generator = torch.Generator().manual_seed(checks.seed(seed))
    for layer in lora_layers(twin.unet).values():
        (up,), (down,) = layer.lora_B.values(), layer.lora_A.values()
        drawn = torch.randn(up.weight.shape, generator=generator)
        size = (drawn.flatten(1) @ down.weight.detach().flatten(1)).norm()
        up.weight.data.copy_(drawn * strength * layer.get_base_layer().weight.detach().norm() / size)
    return twin


def _changed(pipe, **methods) -> None:
    """Gives a pipeline a class of its own, of the same name, with these methods."""
    pipe.__class__ = type(type(pipe).__name__, (type(pipe),), {"__module__": type(pipe).__module__, **methods})


def _edited(right: str, wrong: str, pipe) -> None:
    """Replaces a piece of the text of a pipeline's call."""
    source = inspect.getsource(type(pipe).__call__)
    if source.count(right) != 1:
        raise checks.NotAvailable(
            f"the call of {type(pipe).__name__} has {right.strip()!r} {source.count(right)} times, expected once: this "
            "fault was written for another diffusers. Install the version of environment.yml."
        )
    names = dict(vars(sys.modules[type(pipe).__call__.__module__]))
    exec(textwrap.dedent(source.replace(right, wrong)), names)
    _changed(pipe, __call__=names["__call__"])


def _small_mask(pipe) -> None:
    """One: shrinking the mask to latent cells, a cell counts as hole only if all of its pixels are."""
    whole = type(pipe).prepare_mask_latents

    @functools.wraps(whole)
    def prepare_mask_latents(self, mask, *args, **kwargs):
        factor = self.vae_scale_factor
        cells = 1 - torch.nn.functional.max_pool2d(1 - mask, factor)
        return whole(self, torch.nn.functional.interpolate(cells, mask.shape[-2:]), *args, **kwargs)

    _changed(pipe, prepare_mask_latents=prepare_mask_latents)


def _forgetful(pipe) -> None:
    """Five: starting anew, the solver keeps the predictions of the picture before."""
    kind = type(pipe.scheduler)
    if not isinstance(getattr(pipe.scheduler, "ets", None), list):
        raise ValueError(
            f"{kind.__name__} remembers no earlier predictions, expected PNDM: make the pipeline with "
            "PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True)."
        )

    def set_timesteps(self, *args, **kwargs):
        remembered = self.ets
        kind.set_timesteps(self, *args, **kwargs)
        self.ets = remembered

    pipe.scheduler.__class__ = type(kind.__name__, (kind,), {"set_timesteps": set_timesteps})


def strengthen_lora(pipe, factor: float = 2.0) -> None:
    """Six: the LoRA's scale is applied twice. Gives the pipeline a U-Net of its own with the same weights."""
    unet = pipe.unet
    shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
    vars(pipe)["unet"] = copy.deepcopy(unet, shared)
    layers = [m for m in pipe.unet.modules() if isinstance(getattr(m, "scaling", None), dict) and m.scaling]
    if not layers:
        raise ValueError("the pipeline has no LoRA, expected one in its U-Net: see with_lora, or add_lora(pipe.unet).")
    for layer in layers:
        for numbers in (layer.scaling, layer.lora_alpha):
            numbers.update({name: factor * value for name, value in numbers.items()})


def _clean_blending(pipe) -> None:
    """Three: the comparison that spares the last step points the wrong way, so no step gets its noise."""
    if pipe.unet.config.in_channels != 4:
        raise ValueError(
            f"the U-Net takes {pipe.unet.config.in_channels} channels, expected 4: only such a pipeline puts known "
            "latents back. Make one of the parts of a text-to-image model: kind(**pipe.components, ...)."
        )
    _edited("if i < len(timesteps) - 1:", "if i > len(timesteps) - 1:", pipe)


_MIX = "noise_pred = noise_pred_uncond + self.guidance_scale * (noise_pred_text - noise_pred_uncond)"
_FAULTS: dict[str, Callable] = {
    "one": _small_mask,
    # the timestep of the step before, kept in a variable that is updated too late
    "two": functools.partial(
        _edited, "latent_model_input,\n                    t,", "latent_model_input, timesteps[max(i - 1, 0)],"
    ),
    "three": _clean_blending,
    # guidance in an interval of noise levels only, merged into a call that guides already
    "four": functools.partial(
        _edited, _MIX, f"noise_pred_text = ({_MIX.split('= ', 1)[1]}) if 300 < t < 600 else noise_pred_text; {_MIX}"
    ),
    "five": _forgetful,
    "six": strengthen_lora,
}
