"""MimicBrush whole, from files: grown from the bundled pipelines, as trained here, or the released checkpoint.

What the release takes otherwise is converted on the way in: the hole is black, pictures are padded with white to a
square, Depth Anything gets unusual pixels and, where depth is off, a black picture; the reference U-Net sees the image
tokens and the timestep of each step.
"""

import re
from collections.abc import Mapping, Set
from pathlib import Path

import torch
from torch import nn

from workbench import check
from workbench.diffusion.classifier import load_classifier
from workbench.diffusion.depth import load_depth
from workbench.diffusion.export import digest_of
from workbench.diffusion.libraries import AutoencoderKL, UNet2DConditionModel
from workbench.diffusion.models import config_of, grow_input
from workbench.diffusion.pipelines import find_folder, load_part, load_pipeline
from workbench.diffusion.tokenizer import token_ids
from workbench.diffusion.weight_files import read_weights
from workbench.methods.mimicbrush.attention import names_after_reading
from workbench.methods.mimicbrush.conditions import ClassifierStates, Disparity
from workbench.methods.mimicbrush.model import MimicBrush
from workbench.methods.mimicbrush.networks import CHANNELS, Adapters, Imitator, make_imitator

NAME = "tiny-mimicbrush"
LEARNT_FILE = "learnt.safetensors"
"""Those weights of the imitative U-Net that learnt, where not all did."""
PARTS = ("image_proj", "depth_guider", "referencenet", "unet")
"""What the released file holds of interest, beside the image encoder."""


def grow_mimicbrush(
    inpaint="tiny-inpaint",
    base="tiny-t2i",
    classifier="tiny-classifier",
    depth="tiny-depth",
    *,
    reading="paper",
    seed=0,
) -> MimicBrush:
    """An untrained MimicBrush, grown from two pipelines.

    Args:
        inpaint: name or folder of an inpainting pipeline: the imitative U-Net.
        base: of a text-to-image pipeline with the same autoencoder: the reference U-Net, frozen.
        classifier, depth: names or folders of image encoder and depth estimator.
        reading: of the shared attention.
        seed: of the fresh weights.

    Raises:
        NotAvailable: one of them is not on this machine.
        ValueError: pipelines that do not go together.

    Example:
        >>> model = grow_mimicbrush()
    """
    inpainting, t2i = load_pipeline(inpaint), load_pipeline(base)
    if digest_of(inpainting.vae.encoder) != digest_of(t2i.vae.encoder):
        raise ValueError(f"{inpaint} and {base} have different autoencoders, expected the same: they share latents.")
    with torch.no_grad():
        empty = t2i.text_encoder(token_ids(t2i.tokenizer, [""])).last_hidden_state  # (1, L, C)
    encoder = ClassifierStates(load_classifier(classifier))
    imitator = make_imitator(
        inpainting.unet, t2i.unet, encoder.width, factor=2 ** (len(t2i.vae.config.block_out_channels) - 1), empty=empty,
        reading=reading, seed=seed, base=_told(base), image_encoder=_told(classifier), depth=_told(depth),
        digest=digest_of(t2i.unet, t2i.vae.encoder), inpaint=_told(inpaint), inpaint_digest=digest_of(inpainting.unet),
    )  # fmt: skip
    return MimicBrush(imitator, t2i.vae, encoder, Disparity(load_depth(depth)), t2i.scheduler)


def _told(name) -> str:
    """A bundled name as it is; of a folder its last part, which no other machine has elsewhere."""
    return str(name) if str(name).startswith("tiny-") else Path(str(name)).name


def load_mimicbrush(source=NAME) -> MimicBrush:
    """A trained MimicBrush, in evaluation, with the bundled models it goes with.

    Args:
        source: the bundled name, or a folder of one trained likewise.

    Raises:
        NotAvailable: its files, or those of the models it goes with, are missing or damaged, or the latter are others
            than those it was trained with.

    Example:
        >>> model = load_mimicbrush()
    """
    folder = find_folder(source)
    adapters = load_part(Adapters, folder, "adapters")
    own = (folder / "reference").is_dir()
    reference = load_part(UNet2DConditionModel, folder, "reference") if own else None
    config = adapters.config
    t2i = load_pipeline(config.base)
    _check_same(config.digest, digest_of(t2i.unet, t2i.vae.encoder), source, config.base)
    imitator = Imitator(_imitative(folder, config), reference or t2i.unet, adapters)
    encoder, depth = ClassifierStates(load_classifier(config.image_encoder)), Disparity(load_depth(config.depth))
    return MimicBrush(imitator, t2i.vae, encoder, depth, t2i.scheduler).requires_grad_(False).eval()


def _imitative(folder: Path, config) -> UNet2DConditionModel:
    """The imitative U-Net: stored whole, or what learnt of it put into the inpainting model's."""
    if not (folder / LEARNT_FILE).exists():
        return load_part(UNet2DConditionModel, folder, "unet")
    before = load_pipeline(config.inpaint).unet
    _check_same(config.inpaint_digest, digest_of(before), folder.name, config.inpaint)
    unet, learnt = grow_input(before, sum(CHANNELS.values())), read_weights(folder / LEARNT_FILE)
    _fill(unet, unet.state_dict() | {name: value.float() for name, value in learnt.items()}, LEARNT_FILE)
    return unet


def _check_same(wanted: str, found: str, source, name: str) -> None:
    if wanted and wanted != found:
        raise check.NotAvailable(
            f"{source} was trained with another {name} than the one here. Get both again: git checkout, or train it "
            "anew: README.md says how."
        )


def load_released(
    file,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    image_encoder: nn.Module,
    depth: nn.Module,
    reference: UNet2DConditionModel | None = None,
) -> MimicBrush:
    """The released checkpoint, in evaluation; nothing in the file is executed.

    Args:
        file: the torch file with ``image_proj``, ``depth_guider``, ``referencenet`` and perhaps ``unet``, read by
            PyTorch's restricted reader.
        unet: Stable Diffusion 1.5 for inpainting, 9 or 13 input channels: its configuration, and its weights where the
            file has none.
        vae: its autoencoder; the release takes ``sd-vae-ft-mse``.
        image_encoder: `conditions.ClipStates` with ViT-H/14; where the file has its weights too, they are put into it.
        depth: `conditions.ReleasedDepth` with Depth Anything ViT-B/14.
        reference: a U-Net whose configuration the reference's has; None takes that of ``unet``.

    Raises:
        NotAvailable: no such file, or not readable so.
        ValueError: parts or weights are missing, or of other shapes.

    Source: github.com/ali-vilab/MimicBrush, run_inference_benchmark.py.

    Example:
        >>> sd = load_pipeline("stable-diffusion-v1-5/stable-diffusion-inpainting")
        >>> load_released("mimicbrush.bin", sd.unet, sd.vae, ClipStates(tower), ReleasedDepth(network))
    """
    parts = read_parts(file)
    with torch.device("meta"):
        reader = UNet2DConditionModel.from_config(config_of(reference or unet) | {"in_channels": 4})
        writer = UNet2DConditionModel.from_config(config_of(unet) | {"in_channels": sum(CHANNELS.values())})
    _fill(reader, parts["referencenet"], "referencenet", names_after_reading(reader))
    if "unet" in parts:
        _fill(writer, parts["unet"], "unet")
    elif unet.config.in_channels == sum(CHANNELS.values()):
        writer = unet
    else:
        raise ValueError(f"{file} holds no unet, and the one given takes {unet.config.in_channels} channels, not 13.")
    if "image_encoder" in parts:
        _fill(image_encoder.tower, parts["image_encoder"], "image_encoder")
    imitator = Imitator(writer, reader, _released_adapters(parts))
    return MimicBrush(imitator, vae, image_encoder, depth).requires_grad_(False).eval()


def read_parts(file) -> dict[str, dict[str, torch.Tensor]]:
    """The state dicts of a released file by name, read without executing anything.

    Raises:
        NotAvailable: no such file, damaged, or holding more than tensors and plain values.
        ValueError: a part is missing.
    """
    file = Path(file)
    if not file.is_file():
        raise check.NotAvailable(f"{file} is not a file, expected the released checkpoint: put it there.")
    found = read_weights(file)
    names = sorted(found) if isinstance(found, dict) else [type(found).__name__]
    missing = [part for part in PARTS[:3] if part not in names]
    if missing:
        raise ValueError(
            f"{file} holds {', '.join(map(str, names[:4]))}, expected {', '.join(PARTS)}: no {missing[0]}."
        )
    return {name: _plain(state) for name, state in found.items() if isinstance(state, Mapping)}


def _plain(state: Mapping) -> dict[str, torch.Tensor]:
    """Tensors by name, without what several GPUs put before it."""
    return {name.removeprefix("module."): v.float() for name, v in state.items() if isinstance(v, torch.Tensor)}


def _fill(network: nn.Module, state: dict[str, torch.Tensor], part: str, absent: Set[str] = frozenset()) -> None:
    """Puts weights into a network without any; those that may be absent become zero, which nobody will notice."""
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state and name not in absent]
    if missing:
        raise ValueError(f"{part} lacks {len(missing)} of {len(wanted)} weights ({missing[0]} ...): another network.")
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if wrong:
        shapes = tuple(state[wrong[0]].shape), tuple(wanted[wrong[0]].shape)
        raise ValueError(f"{part}: {wrong[0]} has shape {shapes[0]}, expected {shapes[1]}: another network.")
    filled = {name: state[name] if name in state else torch.zeros(value.shape) for name, value in wanted.items()}
    network.load_state_dict(filled, assign=True)


def _released_adapters(parts: dict) -> Adapters:
    """Projector and depth mapper, with all the release's ways; sizes are read from the shapes."""
    projection, guide = parts["image_proj"], parts["depth_guider"]
    try:
        text_width, image_width = projection["projector.weight"].shape
        steps = len([name for name in guide if re.fullmatch(r"blocks\.\d+\.weight", name)]) // 2
        widths = (guide["conv_in.weight"].shape[0],
                  *(guide[f"blocks.{2 * k + 1}.weight"].shape[0] for k in range(steps)))  # fmt: skip
    except KeyError as error:
        raise ValueError(
            f"the released file has no weight {error} where image_proj and depth_guider should be."
        ) from None
    adapters = Adapters(image_width, text_width, "released", (), widths, reference_t="same", hole_value=-1.0,
                        square=True, zero_image=True, base="", image_encoder="", depth="", inpaint="")  # fmt: skip
    _fill(adapters.projector, {n.removeprefix("projector."): v for n, v in projection.items()}, "image_proj")
    _fill(adapters.depth_mapper, guide, "depth_guider")
    return adapters
