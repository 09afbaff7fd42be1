"""What RealFill learns: a scene, from its references and what is known of the target."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from workbench import check
from workbench import mask as masks
from workbench.diffusion.filling import crop_round_hole
from workbench.diffusion.latents import masked_image, shown_by
from workbench.diffusion.lora_task import ENCODED_AT_ONCE, LoraTask
from workbench.diffusion.training_data import generator
from workbench.methods.realfill.crops import check_references, cut_crops
from workbench.methods.realfill.masks import MASK_DROPOUT, TARGET_MASKS, training_hole

PROMPT = "a photo of sks"
"""The word without a meaning is what the scene is learnt under."""


class RealFillTask(LoraTask):
    """Fine-tunes an inpainting pipeline on references and target with random holes.

    loss = mean v |eps - eps_theta(z_t, t, prompt, m, (1 - m) x)|^2, x a reference or the target, m a random mask; v = 0
    in the target's hole, 1 elsewhere.

    Each picture is drawn as often as any other, one of its crops, one of that crop's holes. Crops and holes are drawn
    once, and their latents computed once, when they are first needed: an update runs the denoiser only.

    Args:
        pipe: StableDiffusionInpaintPipeline with a U-Net of 9 channels; what it becomes, see `LoraTask`.
        references: (1, 3, H, W) each, of any size; 1 to 5, more are taken. [] learns from the target alone.
        target: (1, 3, H, W) in [0, 1], any size. What lies in its hole is never seen.
        mask: (1, 1, H, W), 1 = hole.
        prompt: the same for all; two scenes are mixed by giving references of both.
        crops: of each picture, see `cut_crops`.
        holes_each: holes of each crop; None draws and encodes new ones in every update, as published.
        mask_policy: as in `LoraTask`; "rectangles" is the published one.
        mask_dropout: share of items with everything hidden.
        target_mask: "random" or "hole", see `training_hole`.
        context: room round the hole that belongs to what is sampled, see `crop_box`.
        side: learns crops of about side x side pixels; None: of the model's own size.
        train_text, text_rate, lora_dropout: as in `LoraTask`, with the published values as defaults.
        seed: of LoRA, crops and holes.
        **options: of `LoraTask`: rank, lora_alpha, targets, prompt_dropout, dropout_of, snr_gamma.

    Raises:
        ValueError: shapes, ranges, nothing known or no hole, or a pipeline of another kind.

    Source: RealFill (Tang et al., SIGGRAPH 2024), sections 3.3, 4.1 and A.1. Differs: what is not known of the target
    is always part of the mask; a latent cell counts for nothing when one pixel of it is not known.

    Example:
        >>> task = RealFillTask(pipe, scene.references, scene.target, scene.masks["side"])
        >>> TrainingRun(task, learning_rate=1e-3, batch_size=8).run(300)
    """

    name = "realfill"
    variants = (
        "mask_policy", "rank", "lora_alpha", "prompt", "prompt_dropout", "lora_dropout", "text_rate", "mask_dropout",
        "target_mask",
    )  # fmt: skip

    def __init__(
        self,
        pipe,
        references: Sequence[torch.Tensor],
        target: torch.Tensor,
        mask: torch.Tensor,
        prompt: str = PROMPT,
        *,
        crops: int = 8,
        holes_each: int | None = 4,
        mask_policy: str | Callable = "rectangles",
        mask_dropout: float = MASK_DROPOUT,
        target_mask: str = "random",
        context: float = 0.5,
        side: int | None = None,
        train_text: bool = True,
        text_rate: float = 0.2,
        lora_dropout: float = 0.1,
        seed: int = 0,
        **options,
    ):
        self.references = check_references(references)
        if len(check.image(target, "target")) != 1:
            raise ValueError(f"target holds {len(target)} pictures, expected one. Take one with target[i:i + 1].")
        check.leaves_something(check.mask(mask, target), "target")
        if not isinstance(prompt, str):
            raise TypeError(f"prompt is a {type(prompt).__name__}, expected a string: one prompt for all pictures.")
        self.target, self.mask = target, mask
        self.holes_each = None if holes_each is None else check.integer(holes_each, "holes_each", 1)
        self.mask_dropout, self.target_mask = mask_dropout, target_mask
        self.side, self.cut = side, crop_round_hole(pipe, target, mask, context, side=side)
        self.crops = cut_crops(self.references, target, mask, self.cut, crops, seed)
        self._rows = [self.crops.of(k) for k in range(len(self.references) + 1)]
        super().__init__(
            pipe, self.crops.images, prompt, holes=self.crops.holes, mask_policy=mask_policy, train_text=train_text,
            text_rate=text_rate, lora_dropout=lora_dropout, seed=seed, **options,
        )  # fmt: skip
        self.about = f"RealFill: LoRA of rank {self.rank} on {len(self.references)} references and a target."

    def _take(self, prompt, holes) -> None:
        super()._take(prompt, holes)
        check.number(self.mask_dropout, "mask_dropout", 0, 1)
        check.choice(self.target_mask, "target_mask", TARGET_MASKS)
        self._shown_parts: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def variant(self, **changes) -> "RealFillTask":
        """The same task on the same model with some of `variants` changed."""
        own = {name: changes.pop(name, getattr(self, name)) for name in ("mask_dropout", "target_mask")}
        other = super().variant(**changes)
        other.mask_dropout, other.target_mask = own["mask_dropout"], own["target_mask"]
        other._take(other.prompt, other.holes)  # checks them, and forgets the holes drawn by the old ones
        other._encoded = self._encoded
        return other

    # Items of a batch

    def _row(self, rng: np.random.Generator) -> int:
        rows = self._rows[int(rng.integers(len(self._rows)))]
        return rows[int(rng.integers(len(rows)))]

    def hole_of(self, row: int, rng: np.random.Generator) -> torch.Tensor:
        """A hole for a crop, (1, 1, h, w)."""
        target = self.crops.picture[row] == len(self.references)
        return training_hole(
            rng, self.holes[row : row + 1], target, self.target_mask, self.mask_dropout,
            lambda rng, size: self.hole(rng),
        )  # fmt: skip

    def _given(self, rows: list[int], rngs) -> dict[str, torch.Tensor]:
        if self.holes_each is None:
            holes = torch.cat([self.hole_of(row, rng) for row, rng in zip(rows, rngs, strict=True)])  # (B, 1, h, w)
            moments = self._encode(masked_image(self.images[rows], holes, shown_by(self.pipe.unet)))
            return {"mask": masks.to_latent(holes, "nearest", self.factor), "masked": self._drawn(moments, rngs)}
        picked = [(self._parts(row), int(rng.integers(self.holes_each))) for row, rng in zip(rows, rngs, strict=True)]
        mask, mean, std = (torch.stack([parts[i][k] for parts, k in picked]) for i in range(3))
        return {"mask": mask, "masked": self._drawn((mean, std), rngs)}

    def _parts(self, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All holes of a crop: latent masks (J, 1, h', w'), mean and standard deviation of what is left of it.

        They are encoded in always the same groups, so that the bits do not depend on which batch came first.
        """
        if row not in self._shown_parts:
            rngs = [generator(self.seed, 8, row, k) for k in range(self.holes_each)]
            holes = torch.cat([self.hole_of(row, rng) for rng in rngs])  # (J, 1, h, w)
            images = masked_image(self.images[row].expand(len(holes), -1, -1, -1), holes, shown_by(self.pipe.unet))
            parts = [self._encode(part) for part in images.split(ENCODED_AT_ONCE)]
            mean, std = (torch.cat(moments) for moments in zip(*parts, strict=True))
            self._shown_parts[row] = masks.to_latent(holes, "nearest", self.factor), mean, std
        return self._shown_parts[row]

    # To look at

    @property
    def shown(self) -> list[int]:
        """The first crop of each picture; the target's comes last, with its own hole."""
        return [rows[0] for rows in self._rows]
