"""A pipeline's call seen from outside: its arguments, what may make it inexact, the pictures it returns."""

import ast
import copy
import inspect
import os
import textwrap

import numpy as np
import torch

from workbench import image
from workbench.stepping.engine.ambient import DEFAULT_GENERATORS
from workbench.stepping.engine.draws import Draws
from workbench.stepping.engine.structure import is_pil, mapped
from workbench.stepping.engine.twins import is_pipeline, is_scheduler

GRID = ("num_inference_steps", "timesteps", "sigmas", "strength", "height", "width", "num_images_per_prompt")
"""Arguments that steps in common do not survive: another grid of timesteps, other latents altogether."""


def accepted(pipe) -> dict[str, inspect.Parameter]:
    """Parameters of a pipeline's call."""
    return dict(inspect.signature(type(pipe).__call__).parameters)


def check_pipe(pipe) -> None:
    """A pipeline with something to step through.

    Raises:
        TypeError: no pipeline, or one without a scheduler.
    """
    if not is_pipeline(pipe):
        raise TypeError(f"pipe is a {type(pipe).__name__}, expected a diffusers pipeline. See wb.load_pipeline.")
    if not any(is_scheduler(part) or is_pipeline(part) for part in vars(pipe).values()):
        raise TypeError(f"{type(pipe).__name__} has no scheduler, expected a pipeline with a denoising loop.")


def check_arguments(pipe, arguments: dict) -> None:
    """Arguments that the pipeline knows and that a run does not see to itself.

    Raises:
        TypeError: an unknown one.
        ValueError: the older callback.
    """
    for name in ("callback", "callback_steps"):
        if name in arguments:
            raise ValueError(f"{name} is given, expected none: a run shows every step. See watch and break_at.")
    known = accepted(pipe)
    unknown = sorted(set(arguments) - set(known))
    rest = next((p.name for p in known.values() if p.kind is p.VAR_KEYWORD), None)
    read = set() if rest is None else _read_from(pipe, rest)
    if read is not None and (unknown := sorted(set(unknown) - read)):
        takes = ", ".join(name for name in known if name not in ("self", rest))
        raise TypeError(f"{', '.join(unknown)}: {type(pipe).__name__} does not know it. It takes {takes}.")


def _read_from(pipe, rest: str) -> set[str] | None:
    """Names that a pipeline's call reads from its ``**rest`` one by one; None where it hands them on, or none can say.

    A name that is never read would change nothing, without a word.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(pipe).__call__)))
    except (OSError, TypeError, SyntaxError):
        return None
    uses = sum(isinstance(n, ast.Name) and n.id == rest for n in ast.walk(tree))
    reads = [
        n.args[0].value
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in ("pop", "get")
        and isinstance(n.func.value, ast.Name) and n.func.value.id == rest and isinstance(n.args[0], ast.Constant)
    ]  # fmt: skip
    return set(reads) if uses == len(reads) else None


def check_same_grid(pipe, before: dict, changes: dict) -> None:
    """Changes that leave the steps before a branch what they are.

    Raises:
        ValueError: other timesteps, or latents of another shape.
    """
    known = accepted(pipe)
    for name in GRID:
        if name not in changes:
            continue
        default = known[name].default if name in known else None
        was = before.get(name, default)
        if changes[name] != was:
            raise ValueError(
                f"{name} is {changes[name]!r}, expected {was!r} as in the run: steps of two grids have nothing in "
                f"common. Branch at 0 to change it."
            )


def kept_arguments(arguments: dict) -> dict:
    """A copy that later changes of pictures, arrays and tensors in place do not reach."""

    def keep(value):
        if isinstance(value, np.ndarray) or is_pil(value):
            return value.copy()
        if isinstance(value, np.generic):
            return value.item()  # a plain number, which can be written
        if type(value) in (list, tuple):
            return type(value)(keep(v) for v in value)
        return mapped(value, lambda tensor: tensor.detach().clone())

    return {name: keep(value) for name, value in arguments.items()}


def caveats(pipe) -> list[str]:
    """Why a run of a pipeline may differ from its plain call, in words; empty where it will not."""
    told = []
    if "generator" not in accepted(pipe):
        told.append(
            f"{type(pipe).__name__} takes no generator: it draws from the global one, which a run sets to its own seed."
        )
    for name, part in vars(pipe).items():
        if isinstance(part, torch.nn.Module) and part.training and _drops(part):
            told.append(
                f"{name} is in training mode and has dropout: it answers otherwise each time. Call {name}.eval()."
            )
        if is_scheduler(part) and _draws_unseeded(part) and not _passes_generator(pipe, part):
            told.append(
                f"{type(pipe).__name__} gives {type(part).__name__} no generator, and it draws: from the global one, "
                f"which a run sets to its own seed."
            )
    return told


def _draws_unseeded(scheduler) -> bool:
    """Whether a scheduler draws from the global generator when it is given none; tried on a copy."""
    twin, draws = copy.deepcopy(scheduler), Draws()
    try:
        with DEFAULT_GENERATORS, torch.random.fork_rng(devices=[]), torch.no_grad(), draws:
            twin.set_timesteps(3)
            sample = torch.zeros(1, 4, 2, 2)
            for t in twin.timesteps:
                getattr(twin, "scale_model_input", lambda *given: None)(sample, t)  # some complain without
                twin.step(sample, t, sample)
    except Exception:  # it wants other arguments: nothing is known, and nothing said
        return False
    return draws.unseeded


def _passes_generator(pipe, scheduler) -> bool:
    """Whether a pipeline hands its generator on to the scheduler's step, as far as its source tells."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(type(pipe))))
    except (OSError, TypeError, SyntaxError):
        return True
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "step"]
    return not calls or any(k.arg in (None, "generator") for call in calls for k in call.keywords)


def _drops(module: torch.nn.Module) -> bool:
    dropouts = (torch.nn.Dropout, torch.nn.Dropout1d, torch.nn.Dropout2d, torch.nn.Dropout3d, torch.nn.AlphaDropout)
    layers = any(isinstance(m, dropouts) and m.p > 0 for m in module.modules())
    config = getattr(module, "config", None)
    return layers or any((getattr(config, name, None) or 0) > 0 for name in ("attention_dropout", "dropout_rate"))


def is_quiet(pipe) -> bool:
    """Whether a pipeline, or one inside it, was told to show no progress bar; or everything, by TQDM_DISABLE=1."""
    parts = [pipe, *(part for part in vars(pipe).values() if is_pipeline(part))]
    if os.environ.get("TQDM_DISABLE") == "1":  # tqdm's notebook bar does not read it
        return True
    return any(getattr(part, "_progress_bar_config", {}).get("disable", False) for part in parts)


def picture_of(output) -> torch.Tensor:
    """The pictures a pipeline returned, as tensors, arrays or PIL images: (B, 3, H, W) in [0, 1], on the CPU.

    Raises:
        TypeError: it returned none of these.
    """
    first = output[0]
    if isinstance(first, torch.Tensor):
        return first.detach().float().cpu().clamp(0, 1)
    if isinstance(first, list) and first and all(is_pil(p) for p in first):
        return torch.cat([image.load_image(p) for p in first])
    if isinstance(first, list) and first and all(isinstance(p, torch.Tensor) for p in first):
        return torch.stack(first).detach().float().cpu().clamp(0, 1)
    if isinstance(first, np.ndarray) and first.ndim >= 4:
        return torch.from_numpy(first).movedim(-1, -3).float().clamp(0, 1)  # (B, H, W, 3) -> (B, 3, H, W)
    raise TypeError(f"the pipeline returned a {type(first).__name__}, expected pictures: it cannot be decoded.")
