"""Trained weights, and the three parts that paint and matte together."""

import functools
import json
from dataclasses import dataclass, field

import torch
from safetensors.torch import load_file

from workbench import check
from workbench.diffusion import load_pipeline
from workbench.diffusion.lora import ADAPTER, load_lora, lora_layers, remove_lora
from workbench.diffusion.pipelines import find_folder, load_part
from workbench.methods.diffumatting.decoding import load_decoder
from workbench.methods.diffumatting.networks import GreenRefiner, MattingHead, MattingNetwork, decoder_channels
from workbench.methods.diffumatting.task import ABOUT, CANVAS, HEAD, LORA


@dataclass(frozen=True)
class DiffuMatting:
    """A pipeline that paints on green, and what makes mattes of it.

    ``dataclasses.replace(model, pipe=...)`` takes another pipeline with the same U-Net and autoencoder, such as
    ``StableDiffusionControlNetPipeline.from_pipe(model.pipe, controlnet=...)``. A style's LoRA is loaded on ``pipe``
    as on any other: ``model.pipe.load_lora_weights(...)``; DiffuMatting's own is part of the weights by then.

    Args:
        pipe: of diffusers, text to image.
        head: for its autoencoder.
        refiner: GreenPost's; None: coarse mattes only, foregrounds by unmixing.
        canvas: (1, 4, h, w), what painting begins on, see `on_canvas`; None: plain noise.

    Raises:
        ValueError: a head for another autoencoder.
    """

    pipe: object
    head: MattingHead
    refiner: GreenRefiner | None = None
    canvas: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self):
        wanted, found = decoder_channels(self.pipe.vae), self.head.config.channels
        if wanted != found:
            raise ValueError(
                f"the head takes {found} channels and the pipeline's decoder gives {wanted}, expected as many: a head "
                "belongs to the autoencoder that it was trained with."
            )


def load_diffumatting(source="tiny-diffumatting", refiner="tiny-greenpost", *, pipe=None) -> DiffuMatting:
    """The bundled model, or one trained likewise.

    Args:
        source: a bundled name, or a folder that `DiffuMattingTask` exported.
        refiner: name or folder of GreenPost's refiner; None does without.
        pipe: the text-to-image pipeline to put LoRA and decoder into, which it keeps; a LoRA there is taken out first.
            None loads the one that the LoRA was trained for.

    Raises:
        NotAvailable: files are missing or damaged; the message names them.

    Example:
        >>> model = load_diffumatting()
        >>> generate("a brown feather", seed=3, model=model).alpha
    """
    folder = find_folder(source)
    if not (folder / ABOUT).exists():
        raise check.NotAvailable(f"{folder} has no {ABOUT}, expected a folder that DiffuMattingTask exported.")
    told = json.loads((folder / ABOUT).read_text())
    if pipe is None:
        pipe = load_pipeline(told["base"])
    if told.get("decoder"):
        load_decoder(pipe.vae, told["decoder"])
    load_lora(pipe, folder / LORA)
    fuse_lora(pipe)
    head = load_part(MattingHead, folder, HEAD).to(pipe.unet.device)
    canvas = load_file(folder / CANVAS)["canvas"].float() if (folder / CANVAS).exists() else None
    return DiffuMatting(pipe, head, None if refiner is None else load_refiner(refiner).to(pipe.unet.device), canvas)


def load_refiner(source="tiny-greenpost") -> GreenRefiner:
    """GreenPost's refiner, the bundled one or that of a folder, in evaluation.

    Raises:
        NotAvailable: its files are missing or damaged.
    """
    return load_part(GreenRefiner, source)


def load_matting_network(source="tiny-matting") -> MattingNetwork:
    """A matting network, the bundled one or that of a folder, in evaluation.

    Raises:
        NotAvailable: its files are missing or damaged.
    """
    return load_part(MattingNetwork, source)


@torch.no_grad()
def fuse_lora(pipe) -> None:
    """Adds a pipeline's LoRA to its weights, W <- W + s B A, and takes it out: it paints as before.

    Source: Hu et al., ICLR 2022, section 4.1 ("no additional inference latency").
    """
    for model in (pipe.unet, pipe.text_encoder):
        for layer in lora_layers(model).values():
            weight = layer.get_base_layer().weight
            weight += layer.get_delta_weight(ADAPTER).to(weight)
        remove_lora(model)


@functools.cache
def bundled_model() -> DiffuMatting:
    """The bundled model, loaded once."""
    return load_diffumatting()
