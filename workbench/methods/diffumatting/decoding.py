"""The last stage of the autoencoder's decoder, learnt anew: one that has never seen pure green cannot show it.

Not in the paper: Stable Diffusion's autoencoder has seen enough. The bundled one makes (0.27, 0.57, 0.22) of
(0, 1, 0). Its latents know better, and the few weights that turn features into colours can be told.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from workbench import check, metrics
from workbench.diffusion.export import finish
from workbench.diffusion.libraries import AutoencoderKL
from workbench.diffusion.pipelines import find_folder
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import gaussian, generator
from workbench.diffusion.vae import gradient_difference, round_trip
from workbench.image import to_signed
from workbench.methods.diffumatting.data import Backgrounds, Example, Mattes, before, on_green, squared
from workbench.methods.diffumatting.evaluation import SPILL, background_delta_e
from workbench.methods.diffumatting.networks import decoder_of

DECODER, FILE = "tiny-green-decoder", "decoder.safetensors"
STIR = 0.1
"""Up to this share of their deviation latents are stirred in training: samplers do not hit the encoder's to the dot."""
SHOWN = 6
"""Held-out pictures of each kind on a sheet."""


def last_stage(vae: AutoencoderKL) -> dict[str, nn.Parameter]:
    """The weights of a decoder's last block and of what follows it, by their names in the autoencoder.

    Raises:
        ValueError: the autoencoder has no decoder of that kind.
    """
    decoder = decoder_of(vae)
    last = f"decoder.up_blocks.{len(decoder.up_blocks) - 1}."
    heads = (last, "decoder.conv_norm_out.", "decoder.conv_out.")
    return {name: p for name, p in vae.named_parameters() if name.startswith(heads)}


@torch.no_grad()
def load_decoder(vae: AutoencoderKL, source=DECODER) -> AutoencoderKL:
    """Puts a learnt last stage into an autoencoder, in place, and returns it; encoder and latents stay as they are.

    Args:
        vae: to change.
        source: a bundled name, or a folder that `DecoderTask` exported.

    Raises:
        NotAvailable: files are missing or damaged; the message names them.
        ValueError: it was learnt for another autoencoder.
    """
    file = find_folder(source) / FILE
    if not file.exists():
        raise check.NotAvailable(f"{file} is not there, expected a folder that DecoderTask exported.")
    learnt, here = load_file(file), last_stage(vae)
    if {name: value.shape for name, value in learnt.items()} != {name: p.shape for name, p in here.items()}:
        raise ValueError(
            f"{file} has {len(learnt)} weights of the last stage of another decoder, expected these {len(here)} in "
            "name and shape. It belongs to the autoencoder that it was learnt for."
        )
    for name, p in here.items():
        p.copy_(learnt[name])
    return vae


class Decoding(nn.Module):
    """An autoencoder of which the decoder's last stage learns: loss = huber + difference of gradients.

    Args:
        vae: to train; all its other weights are frozen.
    """

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae.requires_grad_(False)
        for p in last_stage(vae).values():
            p.requires_grad_(True)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, H, W) and noise (B, C, h, w), which is added to its latents."""
        truth = to_signed(batch["image"])
        with torch.no_grad():
            latents = self.vae.encode(truth).latent_dist.mean + batch["noise"] / self.vae.config.scaling_factor
        found = self.vae.decode(latents).sample.float()
        pixel = functional.smooth_l1_loss(found, truth, beta=0.1, reduction="none").mean(1)  # (B, H, W)
        edges = gradient_difference(found, truth)
        looks = {"per_sample": pixel.detach().mean((1, 2)), "per_cell": pixel.detach()}
        return {"loss": pixel.mean() + edges, "pixel": pixel.mean(), "edges": edges, **looks}


class DecoderTask(ModelTask):
    """How a decoder learns to show green without forgetting the rest: things on green, and before photographs.

    Args:
        vae: of the pipeline that will paint on green.
        mattes: things to learn from.
        held: others, which are measured.
        backgrounds: what half of the things stand before.
        style: strength of the random photographic styles of the things.
        count: held-out things that are measured.

    Example:
        >>> vae = wb.load_pipeline("tiny-t2i").vae
        >>> task = DecoderTask(vae, SpriteMattes(["out/sprites"]), SpriteMattes(["out/val-sprites"]), Backgrounds())
        >>> wb.TrainingRun(task, batch_size=8, learning_rate=3e-3).step(10)
    """

    name = DECODER

    def __init__(
        self,
        vae: AutoencoderKL,
        mattes: Mattes,
        held: Mattes,
        backgrounds: Backgrounds,
        style: float = 0.5,
        count: int = 48,
    ):
        self.objective = Decoding(vae.eval())
        self.mattes, self.backgrounds, self.style = mattes, backgrounds, check.number(style, "style", 0, 2)
        things = [squared(held[k]) for k in range(min(count, len(held)))]
        drawn = [before(thing, backgrounds.draw(generator(15, k))) for k, thing in enumerate(things)]
        self.green, self.other = _together([on_green(thing) for thing in things]), _together(drawn)
        self.at_first = self._measured()
        weights = sum(p.numel() for p in last_stage(vae).values())
        self.about = (
            f"The last stage of tiny-vae's decoder, {weights} weights, learnt anew so that pure green comes out green. "
            "On held-out things, encoded and decoded: green_delta_e (CIEDE2000 of the background) and thing_psnr (dB) "
            "on green, other_psnr before photographs and views; each beside what the decoder had before."
        )

    def batch(self, numbers):
        """image (B, 3, H, W), half of them on green, and noise (B, C, h, w) for their latents."""
        items = [self._item(generator(*number)) for number in numbers]
        return {name: torch.cat([item[name] for item in items]) for name in items[0]}

    def _item(self, rng) -> dict[str, torch.Tensor]:
        thing = squared(self.mattes.draw(rng, self.style))
        image = (on_green(thing) if rng.random() < 0.5 else before(thing, self.backgrounds.draw(rng))).image
        config = self.objective.vae.config
        scale = 2 ** (len(config.block_out_channels) - 1)
        size = (config.latent_channels, image.shape[-2] // scale, image.shape[-1] // scale)
        return {"image": image, "noise": STIR * rng.random() * gaussian(rng, size)[None]}

    def validate(self):
        """See `about`."""
        return {**self._measured(), **{f"{name}_before": value for name, value in self.at_first.items()}}

    def _measured(self) -> dict[str, float]:
        vae = self.objective.vae
        green, other = round_trip(vae, self.green.image), round_trip(vae, self.other.image)
        told = [each.mean for each in background_delta_e(green, self.green.alpha)]
        thing = (self.green.alpha > SPILL).expand_as(green)
        error = (green - self.green.image)[thing].square().mean().item()
        return {
            "green_delta_e": sum(told) / len(told),
            "thing_psnr": -10 * math.log10(error),
            "other_psnr": metrics.psnr(other, self.other.image).mean().item(),
        }

    def sheet(self):
        """Held-out things on green, and before photographs; below each what the decoder shows."""
        rows = [part.image[:SHOWN] for part in (self.green, self.other)]
        return tiled([x for row in rows for x in (row, round_trip(self.objective.vae, row))])

    def export(self, folder, trained):
        """Writes ``decoder.safetensors`` in float16, card and checksums."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stage = last_stage(self.objective.vae)
        save_file({name: p.detach().half().cpu().contiguous() for name, p in stage.items()}, folder / FILE)
        return finish(folder, self.name, self.about, trained, self.validate())


def _together(examples: list[Example]) -> Example:
    tensors = [torch.cat([example[k] for example in examples]) for k in range(3)]
    return Example(*tensors, "")
