"""What a denoiser says, the noise or v, and what follows from it: the target, the picture, the weight of an error.

z_t = a z + s eps,  a = sqrt(abar_t),  s = sqrt(1 - abar_t),  v = a eps - s z,  SNR = a^2 / s^2
"""

import torch

SNR_GAMMA, SNR_FLOOR = 5.0, 1.0
"""At most and at least what an error of the picture counts in the training of the bundled denoisers."""


def says_v(scheduler) -> bool:
    """Whether the denoiser that goes with a scheduler says v."""
    return scheduler.config.prediction_type == "v_prediction"


def wanted(scheduler, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """What the denoiser shall say of clean latents with noise (B, 4, h, w), t (B,): the noise, or v."""
    return scheduler.get_velocity(latents, noise, t) if says_v(scheduler) else noise


def denoised(scheduler, latents: torch.Tensor, predicted: torch.Tensor, t) -> torch.Tensor:
    """The x0 estimate of latents (B, 4, h, w): (z_t - s eps) / a, or a z_t - s v; t is one number or (B,)."""
    t = torch.as_tensor(t).long().to(scheduler.alphas_cumprod.device)
    signal = scheduler.alphas_cumprod[t].to(latents).view(-1, 1, 1, 1)
    if says_v(scheduler):
        return signal.sqrt() * latents - (1 - signal).sqrt() * predicted
    return (latents - (1 - signal).sqrt() * predicted) / signal.sqrt()


def level_weight(scheduler, t: torch.Tensor, gamma: float = SNR_GAMMA, floor: float = 0.0) -> torch.Tensor:
    """w(t), by which an error of the picture counts clamp(SNR, f, g) whatever the denoiser says, (B,).

    w = clamp(SNR, f, g) / SNR for the noise, clamp(SNR, f, g) / (SNR + 1) for v

    Args:
        scheduler: of diffusers.
        t: (B,).
        gamma, floor: g and f.

    Source: Hang et al., ICCV 2023 (min-SNR), which has g alone.
    """
    signal = scheduler.alphas_cumprod.to(t.device)[t]
    snr = signal / (1 - signal)
    return snr.clamp(floor, gamma) / (snr + 1 if says_v(scheduler) else snr)


def noise_error(scheduler, error: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Squared errors (B,) of what the denoiser says, as squared errors of the noise: a^2 times those of v."""
    return error * scheduler.alphas_cumprod.to(t.device)[t] if says_v(scheduler) else error
