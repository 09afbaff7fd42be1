"""What a scheduler's numbers mean: noise levels, the predicted clean latents, its memory of earlier steps."""

import copy
import math

import torch

from workbench.stepping.engine.structure import digest

UNKNOWN = (math.nan, math.nan)


def noise_levels(scheduler, timestep) -> tuple[float, float]:
    """(a, s) of the sample a scheduler is about to step from: sample = a x0 + s noise.

    Schedulers that carry x0 + sigma noise (their ``scale_model_input`` rescales): a = 1, s = sigma. Flow matching:
    a = 1 - sigma, s = sigma. All others keep the variance: a^2 + s^2 = 1. NaN where a scheduler tells neither.
    """
    twin = copy.copy(scheduler)
    if _config(twin, "prediction_type") == "trigflow":
        return math.cos(first_number(timestep)), math.sin(first_number(timestep))
    sigmas = getattr(twin, "sigmas", None)
    if sigmas is not None and getattr(twin, "step_index", 0) is None and hasattr(twin, "_init_step_index"):
        twin._init_step_index(timestep)
    index = getattr(twin, "step_index", None)
    if sigmas is not None and index is not None and index < len(sigmas):
        return _levels_of_sigma(twin, timestep, index)
    if callable(getattr(twin, "_alpha_cumprod", None)):  # Wuerstchen's cosine, a function of t in [0, 1]
        kept = float(twin._alpha_cumprod(torch.tensor([first_number(timestep)]), "cpu"))
        return kept**0.5, (1 - kept) ** 0.5
    signal = getattr(twin, "alphas_cumprod", None)
    if not isinstance(signal, torch.Tensor):
        return UNKNOWN
    kept = float(signal[min(max(int(first_number(timestep)), 0), len(signal) - 1)])
    return kept**0.5, (1 - kept) ** 0.5


def _levels_of_sigma(scheduler, timestep, index: int) -> tuple[float, float]:
    sigma = float(scheduler.sigmas[index])
    if hasattr(scheduler, "precondition_outputs"):
        return 1.0, sigma
    if _config(scheduler, "use_flow_sigmas"):
        return 1 - sigma, sigma
    if callable(getattr(scheduler, "scale_model_input", None)):
        shrunk = float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), timestep))
        if shrunk != 1:
            return 1.0, _sigma_shrinking(scheduler, index, shrunk)
    if not hasattr(scheduler, "alphas_cumprod"):
        return 1 - sigma, sigma
    a = (1 + sigma**2) ** -0.5
    return a, sigma * a


def _sigma_shrinking(scheduler, index: int, shrunk: float) -> float:
    """The sigma that a scheduler shrinks its sample by: in the second half of a step of order 2 an intermediate one."""
    tables = [scheduler.sigmas, getattr(scheduler, "sigmas_interpol", None)]
    sigmas = [float(table[k]) for table in tables if table is not None for k in (index, index - 1) if k >= 0]
    if len(sigmas) <= 2:
        return sigmas[0]
    return min(sigmas, key=lambda sigma: abs((1 + sigma**2) ** -0.5 - shrunk))


def denoised(
    scheduler, levels: tuple[float, float], model_output: torch.Tensor, sample: torch.Tensor
) -> torch.Tensor | None:
    """What a step takes the clean latents to be, as the scheduler's kind of prediction has it; the sample's shape.

    With sample = a x0 + s noise: epsilon (x - s e) / a; v (a x - s v) / (a^2 + s^2) in variance-keeping scale; sample
    itself; flow x - s v; trigflow a x - s v. Learned variances are left aside; clipped where the scheduler clips.

    Returns:
        None where the scheduler's kind of prediction is not among these.
    """
    a, s = levels
    if not sample.is_floating_point() or math.isnan(a) or model_output.ndim < 2:
        return None
    output, x = model_output[:, : sample.shape[1]].float(), sample.float()
    if output.shape != x.shape:
        return None
    if hasattr(scheduler, "precondition_outputs"):
        return scheduler.precondition_outputs(x, output, torch.tensor(s)).to(sample.dtype)
    if callable(getattr(scheduler, "get_scalings_for_boundary_condition", None)):  # a consistency model
        skip, out = scheduler.get_scalings_for_boundary_condition(torch.tensor(s))
        return _clipped(scheduler, skip * x + out * output).to(sample.dtype)
    is_flow = not hasattr(scheduler, "alphas_cumprod") and not hasattr(scheduler, "_alpha_cumprod")
    kind = _config(scheduler, "prediction_type") or ("flow_prediction" if is_flow else "epsilon")
    if kind == "epsilon":
        x0 = (x - s * output) / a
    elif kind == "v_prediction":
        size = (a**2 + s**2) ** 0.5  # 1, or what the sample is scaled up by
        x0 = (a * x / size - s * output) / size
    elif kind == "trigflow":
        x0 = a * x - s * output
    elif kind == "sample":
        x0 = output
    elif kind in ("flow_prediction", "flow"):
        x0 = x - s * output
    else:
        return None
    return _clipped(scheduler, x0).to(sample.dtype)


def _clipped(scheduler, x0: torch.Tensor) -> torch.Tensor:
    if _config(scheduler, "thresholding"):
        return scheduler._threshold_sample(x0)
    if _config(scheduler, "clip_sample") or _config(scheduler, "clip_denoised"):
        reach = _config(scheduler, "clip_sample_range") or 1.0
        return x0.clamp(-reach, reach)
    return x0


def history_digest(scheduler) -> str:
    """Digest of what a scheduler remembers of earlier steps: its tensors in lists, and its counters."""
    kept = {}
    for name, value in vars(scheduler).items():
        remembered = isinstance(value, list) and any(isinstance(v, torch.Tensor) for v in value)
        counter = isinstance(value, int) and not isinstance(value, bool)
        if remembered or counter or (isinstance(value, torch.Tensor) and value.ndim >= 3):
            kept[name] = value
    return digest(kept)


def first_number(timestep) -> float:
    """A timestep as a number: the first, where each picture has its own."""
    return float(timestep.flatten()[0]) if isinstance(timestep, torch.Tensor) else float(timestep)


def _config(scheduler, name: str):
    return (getattr(scheduler, "config", None) or {}).get(name)
