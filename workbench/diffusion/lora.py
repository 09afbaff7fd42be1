"""LoRA: small additions of low rank to a frozen model. Put in, measured, cut to another rank, saved; see `lora_task`.

W' = W + s B A,  s = lora_alpha / rank,  A (rank, in), B (out, rank), B = 0 at first: nothing is changed at first.
A convolution's A holds the kernel (rank, in, kh, kw) and its B is 1 x 1, which is the same product over flattened A.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import nn

from workbench import check
from workbench.diffusion.libraries import quiet
from workbench.diffusion.training_data import generator

ADAPTER = "default"
"""peft's name for the additions that are ours; one's own, loaded by diffusers, have other names."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_TARGETS = (
    *ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "conv",
)  # fmt: skip
"""Layers of a U-Net that get an addition, by the end of their names. With the attention alone a model as small as the
bundled ones learns half as much of a scene (DESIGN.md)."""
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


# Putting LoRA into a model, measuring it, taking it out


def add_lora(
    model: nn.Module,
    rank: int = 8,
    lora_alpha: float | None = None,
    targets: Sequence[str] | None = None,
    seed: int = 0,
) -> list[str]:
    """Puts a LoRA into a U-Net or a text encoder and freezes everything else. What the model gives stays the same.

    Args:
        model: of diffusers or transformers.
        rank: r of each addition.
        lora_alpha: s = lora_alpha / rank scales it; None takes the rank, s = 1.
        targets: ends of the names of the layers; None takes `UNET_TARGETS` or `TEXT_TARGETS`.
        seed: of A, uniform in +-1 / sqrt(fan in).

    Returns:
        The names of the layers.

    Raises:
        ValueError: it has a LoRA already, no layer has such a name, or a rank below 1.

    Source: Hu et al., ICLR 2022; for convolutions as in peft.

    Example:
        >>> add_lora(pipe.unet, rank=4)[0]
        'down_blocks.0.resnets.0.conv1'
    """
    check.integer(rank, "rank", 1)
    alpha = check.number(rank if lora_alpha is None else lora_alpha, "lora_alpha", 0)
    check_no_lora(model, "the model", "Take it out first, with remove_lora(model)")
    ends = list(targets or (UNET_TARGETS if hasattr(model, "down_blocks") else TEXT_TARGETS))
    found = [n for n, _ in model.named_modules() if any(n == end or n.endswith(f".{end}") for end in ends)]
    if not found:
        raise ValueError(f"no layer's name ends with {', '.join(ends)}, expected at least one in targets.")
    training = model.training
    with quiet(), torch.random.fork_rng(devices=[]):  # peft fills A from the global generator; it is filled anew below
        model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=ends), adapter_name=ADAPTER)
    model.train(training)
    fill_lora(model, rank, alpha, seed)
    return list(lora_layers(model))


def remove_lora(model: nn.Module) -> None:
    """Takes the LoRA out: the model is as it was before, with another that it may have. Nothing happens without one."""
    configs = getattr(model, "peft_config", {})
    for name, layer in lora_layers(model).items():
        layer.delete_adapter(ADAPTER)
        if not layer.lora_A:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    configs.pop(ADAPTER, None)
    if not configs:
        model._hf_peft_config_loaded = False
        model.__dict__.pop("peft_config", None)


def check_no_lora(model: nn.Module, what: str, advice: str) -> None:
    """Raises ValueError where a model has a LoRA, by `add_lora` or by diffusers, under any name."""
    names = {name for m in model.modules() if isinstance(m, LoraLayer) for name in m.lora_A}
    if names:
        other = ", or pipe.unload_lora_weights() where diffusers loaded it" if names != {ADAPTER} else ""
        raise ValueError(f"{what} has a LoRA ({', '.join(sorted(names))}). {advice}{other}.")


@contextmanager
def borrowed(pipe, advice: str = "Sample from it as it is, or take it out with remove_lora") -> Iterator[None]:
    """A pipeline without LoRA, to be trained for a while: when the block is left it is what it was.

    What may learn, training modes and the U-Net's gradient checkpointing are put back; a LoRA of `add_lora`'s is taken
    out.

    Args:
        pipe: of diffusers.
        advice: what the error tells to do.

    Raises:
        ValueError: it has a LoRA.
    """
    models = (pipe.unet, pipe.text_encoder)
    for model in models:
        check_no_lora(model, "the pipeline", advice)
    learns = [(p, p.requires_grad) for part in (*models, pipe.vae) for p in part.parameters()]
    modes = [(part, part.training) for part in (*models, pipe.vae)]
    checkpointed = pipe.unet.is_gradient_checkpointing
    try:
        yield
    finally:
        for model in models:
            remove_lora(model)
        if pipe.unet.is_gradient_checkpointing != checkpointed:
            (pipe.unet.enable_gradient_checkpointing if checkpointed else pipe.unet.disable_gradient_checkpointing)()
        for part, mode in modes:
            part.train(mode)
        for parameter, was in learns:
            parameter.requires_grad_(was)


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """The layers with an addition, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer) and ADAPTER in m.lora_A}


def lora_update(model: nn.Module) -> dict[str, float]:
    """How far each layer is from what it was: ||s B A||, the Frobenius norm, by name.

    Example:
        >>> add_lora(pipe.unet); max(lora_update(pipe.unet).values())
        0.0
    """
    layers = lora_layers(model)
    factors = {
        name: (m.lora_B[ADAPTER].weight.detach(), m.lora_A[ADAPTER].weight.detach()) for name, m in layers.items()
    }
    return {name: abs(layers[name].scaling[ADAPTER]) * product_norm(b, a) for name, (b, a) in factors.items()}


def product_norm(b: torch.Tensor, a: torch.Tensor) -> float:
    """||B A|| without making the product: tr(B'B AA')^0.5, in double precision.

    Args:
        b: (out, r) or (out, r, 1, 1).
        a: (r, in) or (r, in, kh, kw).
    """
    b, a = b.flatten(1).double(), a.flatten(1).double()  # (out, r), (r, n)
    return math.sqrt(max(0.0, ((b.T @ b) * (a @ a.T)).sum().item()))


def fill_lora(model: nn.Module, rank: int, lora_alpha: float, seed: int) -> None:
    """Gives all additions fresh weights of a rank, in parameters of their own; those there before are left alone.

    They are float32 in a model of half precision too: bf16 has eight bits, in which AdamW's second moment, 1/1000 of it
    new each time, stands still.
    """
    for mapping, key, value in rank_slots(model, rank, lora_alpha):
        mapping[key] = value
    for index, layer in enumerate(lora_layers(model).values()):
        down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        a = _fresh(down.weight, rank, generator(check.seed(seed), 5, index))
        b = up.weight.new_zeros(up.weight.shape[0], rank, *up.weight.shape[2:], dtype=a.dtype)
        down.weight, up.weight = nn.Parameter(a), nn.Parameter(b)


def rank_slots(model: nn.Module, rank: int, lora_alpha: float) -> list[tuple[dict, str, object]]:
    """Where peft keeps rank and scale, and what stands there at this rank: (mapping, key, value)."""
    slots = []
    for layer in lora_layers(model).values():
        slots += [(layer.r, ADAPTER, rank), (layer.lora_alpha, ADAPTER, lora_alpha)]
        slots += [(layer.scaling, ADAPTER, lora_alpha / rank)]
        conv = isinstance(layer.lora_A[ADAPTER], nn.Conv2d)
        ends = ("out_channels", "in_channels") if conv else ("out_features", "in_features")
        slots += [(layer.lora_A[ADAPTER].__dict__, ends[0], rank), (layer.lora_B[ADAPTER].__dict__, ends[1], rank)]
    config = model.peft_config[ADAPTER].__dict__
    return [*slots, (config, "r", rank), (config, "lora_alpha", lora_alpha)]


def _fresh(like: torch.Tensor, rank: int, rng: np.random.Generator) -> torch.Tensor:
    """An A as peft begins with (kaiming uniform, a = sqrt 5), of ``rank`` rows."""
    shape = (rank, *like.shape[1:])
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    drawn = torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32))
    return drawn.to(like.device, torch.promote_types(like.dtype, torch.float32))


# Another rank


def resize_factors(
    b: torch.Tensor, a: torch.Tensor, rank: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The same B A in factors of another rank: exact if it grows, the best approximation if it shrinks.

    Args:
        b, a: (out, r, ...) and (r, in, ...).
        rank: of the new factors. New rows of A are drawn from ``rng``, new columns of B are 0.
        rng: for the new rows.

    Returns:
        B, A, and the relative error ||B A - old|| / ||old||.

    Source: Eckart and Young, 1936: cutting the singular value decomposition off is the best in the Frobenius norm.
    """
    before = a.shape[0]
    if rank >= before:
        rows = torch.cat([a, _fresh(a, rank, rng)[before:]])
        columns = torch.cat([b, b.new_zeros(b.shape[0], rank - before, *b.shape[2:])], 1)
        return columns, rows, 0.0
    q_b, r_b = torch.linalg.qr(b.flatten(1).double())  # (out, k), (k, r)
    q_a, r_a = torch.linalg.qr(a.flatten(1).double().T)  # (n, m), (m, r)
    u, values, v = torch.linalg.svd(r_b @ r_a.T)  # (k, k), (min,), (m, m)
    root = values[:rank].sqrt()
    kept = len(root)  # fewer than the rank in a layer narrower than it
    new_b, new_a = b.new_zeros(b.shape[0], rank), a.new_zeros(rank, a[0].numel())
    new_b[:, :kept], new_a[:kept] = (q_b @ u[:, :kept] * root).to(b), (root[:, None] * (v[:kept] @ q_a.T)).to(a)
    lost = (values[rank:].square().sum() / values.square().sum().clamp(min=1e-300)).sqrt().item()
    return new_b.reshape(-1, rank, *b.shape[2:]), new_a.reshape(rank, *a.shape[1:]), lost


# Files


def save_lora(pipe, file) -> Path:
    """Writes the LoRA of a pipeline's U-Net (and text encoder, if it has one) as diffusers and others read it.

    Args:
        pipe: with a LoRA from `add_lora`.
        file: ends in .safetensors; ``pipe.load_lora_weights(file)`` reads it, scale included.

    Raises:
        ValueError: another ending, or a pipeline without a LoRA.
    """
    file = Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(f"file is {file.name!r}, expected a name that ends in .safetensors.")
    parts = {name: getattr(pipe, name) for name in ("unet", "text_encoder") if lora_layers(getattr(pipe, name))}
    if not parts:
        raise ValueError("the pipeline has no LoRA, expected one from add_lora(pipe.unet).")
    given = {}
    for name, model in parts.items():
        state = get_peft_model_state_dict(model, adapter_name=ADAPTER)
        given[f"{name}_lora_layers"] = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        given[f"{name}_lora_adapter_metadata"] = json.loads(
            json.dumps(model.peft_config[ADAPTER].to_dict(), default=list)
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    pipe.save_lora_weights(file.parent, **given, weight_name=file.name, safe_serialization=True)
    return file


def load_lora(pipe, file) -> None:
    """Puts the LoRA of a file into a pipeline, in place of one that is there.

    Raises:
        ValueError: the file is not there, cut short, or holds no LoRA for this pipeline; in the last case a LoRA that
            was there is out all the same.
    """
    try:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is not readable as safetensors: {error}. Save it again with save_lora.") from None
    if not any(".lora_B." in name or ".lora.up." in name or "lora_up" in name for name in names):
        raise ValueError(f"{file} holds no LoRA, expected tensors such as unet.....lora_B.weight.")
    for model in (pipe.unet, pipe.text_encoder):
        remove_lora(model)
    with quiet():
        try:
            pipe.load_lora_weights(Path(file).parent, weight_name=Path(file).name, adapter_name=ADAPTER)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ValueError(f"{file} does not fit this pipeline: {error}") from error
