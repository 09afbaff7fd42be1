"""What a run was made with: versions, classes, settings, arguments and fingerprints of weights; plain JSON values."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from workbench.stepping.engine.calls import accepted
from workbench.stepping.engine.structure import digest

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")
SAMPLED = 4096
"""Numbers of each weight tensor that a fingerprint looks at."""


def facts(pipe, arguments: dict, generators: list[tuple[torch.device, torch.Tensor]]) -> dict:
    """Everything about a call that its tensors do not tell.

    Args:
        pipe: the pipeline.
        arguments: of its call.
        generators: device and first state of each.

    Returns:
        "pipeline" (class), "schedulers" and "networks" by component, "arguments" (value of short ones, digest of all;
        those that were not given with the call's own values),
        "generators" (seed, and whether something had been drawn already), "versions", "platform".
    """
    own = {n: p.default for n, p in accepted(pipe).items() if p.default is not p.empty}
    return {
        "pipeline": type(pipe).__name__,
        "schedulers": {n: _scheduler(c) for n, c in _parts(pipe).items() if hasattr(c, "set_timesteps")},
        "networks": {n: _network(c) for n, c in _parts(pipe).items() if isinstance(c, torch.nn.Module)},
        "arguments": {n: {"value": _short(v), "digest": digest(v)} for n, v in {**own, **arguments}.items()},
        "generators": [_generator(device, state) for device, state in generators],
        "versions": {"python": platform.python_version()} | {p: v for p in PACKAGES if (v := _version(p))},
        "platform": platform.machine(),
    }


def fingerprint(module: torch.nn.Module) -> str:
    """Digest of a network's weights: their names, shapes, and up to `SAMPLED` evenly spread numbers of each.

    A change of a few single numbers may escape; loading, training or merging anything does not.
    """
    looked_at = {}
    for name, value in module.state_dict().items():
        flat = value.detach().reshape(-1)
        looked_at[name] = (tuple(value.shape), flat[:: max(1, -(-flat.numel() // SAMPLED))])
    return digest(looked_at)


def _parts(pipe) -> dict:
    return {name: part for name, part in vars(pipe).items() if not name.startswith("_")}


def _scheduler(scheduler) -> dict:
    config = {n: v for n, v in dict(scheduler.config).items() if not n.startswith("_")}
    tables = {n: digest(v) for n in ("betas", "alphas_cumprod") if (v := getattr(scheduler, n, None)) is not None}
    return {"class": type(scheduler).__name__, "config": _plain(config), "tables": tables}


def _network(module: torch.nn.Module) -> dict:
    first = next(module.parameters(), None)
    config = dict(getattr(module, "config", None) or {}) if isinstance(getattr(module, "config", None), dict) else {}
    adapters = sorted(getattr(module, "peft_config", None) or {})
    return {
        "class": type(module).__name__,
        "dtype": str(first.dtype) if first is not None else None,
        "device": first.device.type if first is not None else None,
        "weights": fingerprint(module),
        "adapters": adapters,
        "scaling_factor": config.get("scaling_factor"),
    }


def _generator(device: torch.device, state: torch.Tensor) -> dict:
    generator = torch.Generator(device)
    generator.set_state(state)
    seed = generator.initial_seed()
    return {"device": torch.device(device).type, "seed": seed,
            "used": not torch.equal(torch.Generator(device).manual_seed(seed).get_state(), state)}  # fmt: skip


def _short(value):
    """Numbers and short texts as they are, kinds and shapes of the rest."""
    if isinstance(value, (int, float, str, bool, type(None))):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float, str, bool, type(None))) for v in value):
        return list(value)
    if isinstance(value, torch.Tensor):
        return f"tensor {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def _plain(value):
    """JSON's view of a configuration."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
