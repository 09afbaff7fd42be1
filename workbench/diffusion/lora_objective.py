"""The loss that a LoRA learns by, and LoRA dropout whose draws come with the batch."""

import torch
from torch import nn

from workbench import check
from workbench.diffusion.libraries import DDPMScheduler
from workbench.diffusion.lora import ADAPTER, lora_layers
from workbench.diffusion.prediction import level_weight, wanted

LARGEST_SEED = 2**62
DROPOUTS = ("layers", "elements")
"""What LoRA dropout drops: a layer's whole addition (RealFill's paper), or single numbers of what goes into it (peft's
``lora_dropout``, RealFill's public scripts)."""


class BatchDropout(nn.Module):
    """Dropout before a LoRA's A. It draws nothing itself: what is dropped follows from the batch and the layer.

    So the same batch drops the same again: in a step computed anew, under gradient checkpointing, in any number of
    processes. Outside training nothing is dropped.

    Args:
        index: number of the layer.
    """

    def __init__(self, index: int):
        super().__init__()
        self.index = index
        self.draws: dict[str, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What goes into A, (B, ...), some of it 0 and the rest larger, so that the mean stays."""
        if not self.training or not self.draws:
            return x
        count = len(next(iter(self.draws.values())))
        if len(x) != count:
            raise RuntimeError(f"LoRA dropout was drawn for {count} items and met {len(x)}, expected one batch.")
        if "lora_keep" in self.draws:
            keep = self.draws["lora_keep"][:, self.index]  # (B,)
            return x * keep.to(x).view(-1, *[1] * (x.ndim - 1))
        keep = torch.empty_like(x)
        for item, seed, p in zip(keep, self.draws["lora_seed"].tolist(), self.draws["lora_p"].tolist(), strict=True):
            own = torch.Generator(x.device).manual_seed(seed + self.index)
            item.bernoulli_(1 - p, generator=own).div_(1 - p)
        return x * keep


def install_dropout(models: list[nn.Module]) -> list[BatchDropout]:
    """Puts `BatchDropout` into every LoRA of some models, numbered through; those that are there already stay."""
    layers = [layer for model in models for layer in lora_layers(model).values()]
    for index, layer in enumerate(layers):
        if not isinstance(layer.lora_dropout[ADAPTER], BatchDropout):
            layer.lora_dropout[ADAPTER] = BatchDropout(index).train(layer.training)
        layer.lora_dropout[ADAPTER].index = index
    return [layer.lora_dropout[ADAPTER] for layer in layers]


def draw_dropout(rngs, p: float, kind: str, layers: int) -> dict[str, torch.Tensor]:
    """What a batch holds for `BatchDropout`, item by item from generators of their own.

    Args:
        rngs: one for each item.
        p: share that is dropped, below 1.
        kind: one of `DROPOUTS`.
        layers: how many layers have a LoRA.

    Returns:
        "layers": lora_keep (B, layers), 0 or 1 / (1 - p). "elements": lora_seed (B,) int64 and lora_p (B,).
    """
    if check.choice(kind, "dropout_of", DROPOUTS) == "layers":
        kept = [torch.from_numpy(rng.random(layers)) >= p for rng in rngs]
        return {"lora_keep": torch.stack(kept).float() / (1 - p)}
    seeds = [int(rng.integers(LARGEST_SEED)) for rng in rngs]
    return {"lora_seed": torch.tensor(seeds), "lora_p": torch.full((len(seeds),), p, dtype=torch.float64)}


class LoraDenoising(nn.Module):
    """A frozen pipeline's denoiser with the loss that its LoRA learns by.

    loss = mean v w(t) |eps - eps_theta(z_t, t, c)|^2, v = 0 where the picture is not known. (v-prediction: its target.)
    w(t) is `prediction.level_weight`; 1 without g.

    Args:
        unet, text_encoder: of the pipeline; what has no LoRA is frozen.
        scheduler: DDPM with the pipeline's noise schedule.
        snr_gamma: g, 5 in the paper; None weighs all noise levels alike.

    Source: Hang et al., ICCV 2023 (min-SNR).
    """

    def __init__(
        self, unet: nn.Module, text_encoder: nn.Module, scheduler: DDPMScheduler, snr_gamma: float | None = None
    ):
        super().__init__()
        self.unet, self.text_encoder, self.scheduler = unet, text_encoder, scheduler
        self.snr_gamma = None if snr_gamma is None else check.number(snr_gamma, "snr_gamma", 0)
        self.dropouts = install_dropout([unet, text_encoder])

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for what `LoraTask.batch` gives; "per_sample" (B,) and "per_cell" (B, h, w) have the loss as mean."""
        return self.losses(batch, self.predict(batch)[1])

    def predict(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The noised latents, and what the U-Net predicts for them: (B, 4, h, w) each."""
        draws = {name: value for name, value in batch.items() if name.startswith("lora_")}
        for dropout in self.dropouts:
            dropout.draws = draws
        noised = self.scheduler.add_noise(batch["latents"], batch["noise"], batch["t"])  # (B, 4, h, w)
        given = (
            torch.cat([noised, batch["mask"], batch["masked"]], 1) if "mask" in batch else noised
        )  # (B, 4 | 9, h, w)
        learns = any(p.requires_grad for p in self.text_encoder.parameters())
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            states = self.text_encoder(batch["ids"])[0]  # (B, L, C)
        dtype = next(self.unet.parameters()).dtype  # unet.dtype would look through all of them
        return noised, self.unet(given.to(dtype), batch["t"], states.to(dtype)).sample.float()

    def losses(self, batch: dict[str, torch.Tensor], predicted: torch.Tensor) -> dict[str, torch.Tensor]:
        """What `forward` gives, of a prediction (B, 4, h, w)."""
        latents, noise, t = batch["latents"], batch["noise"], batch["t"]
        off = predicted - wanted(self.scheduler, latents, noise, t)  # (B, 4, h, w)
        cells = off.square().mean(1) * batch["known"][:, 0]  # (B, h, w)
        if self.snr_gamma is not None:
            cells = cells * level_weight(self.scheduler, t, self.snr_gamma).view(-1, 1, 1)
        return {"loss": cells.mean(), "per_sample": cells.detach().mean((1, 2)), "per_cell": cells.detach()}
