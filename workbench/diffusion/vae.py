"""How the autoencoder is trained: reconstruct, keep the latents near a Gaussian, look right to a network.

loss = huber(x, x') + w_p perceptual(x, x') + w_k KL(q(z | x) || N(0, 1)) [+ w_a adversarial]
"""

import torch
from torch import nn
from torch.func import functional_call

from workbench import metrics
from workbench.diffusion import models
from workbench.diffusion.export import write_model
from workbench.diffusion.libraries import AutoencoderKL
from workbench.diffusion.training import ModelTask, tiled
from workbench.diffusion.training_data import TrainingPictures, gaussian, generator, held_out_crops
from workbench.image import from_signed, to_signed

SHOWN = 6
"""Pictures on a sheet."""
CHROMA = (1.0, 2.0, 2.0)
"""Weights of brightness and of the two differences of colours in the pixel loss: few pixels are strongly coloured."""
ANCHORED = 2000
"""Updates over which the first three channels of the latents are led, ever less, by the picture's colours made small.

Left to themselves the channels soon all follow brightness, and colours take many times longer to be learnt.
"""


def gradient_difference(a: torch.Tensor, b: torch.Tensor, scales: int = 3) -> torch.Tensor:
    """Mean absolute difference of horizontal and vertical gradients, at full, half and quarter size; a number.

    The stand-in for a perceptual loss while no classifier is trained: it makes blur cost what it looks like.
    """
    total = a.new_zeros(())
    for scale in range(scales):
        if scale:
            a, b = nn.functional.avg_pool2d(a, 2), nn.functional.avg_pool2d(b, 2)
        difference = a - b  # the gradient is linear
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return total / scales


def opponent_colours(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Brightness, red against blue, green against both, of a picture (B, 3, H, W) in [-1, 1] made small: (B, 3, h, w).

    The two differences are enlarged so that all three vary about alike in photographs.
    """
    return torch.einsum("ij,bjhw->bihw", _opponent(x), nn.functional.interpolate(x, size, mode="area"))


def _opponent(like: torch.Tensor, enlarged: tuple[float, float, float] = (1.0, 3.0, 8.0)) -> torch.Tensor:
    """Rows of an orthonormal change of colours, enlarged; (3, 3)."""
    rows = [[3**-0.5] * 3, [2**-0.5, 0.0, -(2**-0.5)], [-(6**-0.5), 2 * 6**-0.5, -(6**-0.5)]]
    return like.new_tensor(rows) * like.new_tensor(enlarged)[:, None]


class Reconstruction(nn.Module):
    """The autoencoder with its losses.

    Args:
        vae: to train.
        classifier: whose features tell pictures apart, frozen; None takes `gradient_difference`.
        perceptual_weight, kl_weight, adversarial_weight: factors of the losses; without the last, no discriminator.
        seed: of the discriminator's weights.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        classifier: nn.Module | None = None,
        perceptual_weight: float = 0.5,
        kl_weight: float = 1e-4,
        adversarial_weight: float = 0.0,
        seed: int = 0,
    ):
        super().__init__()
        self.vae = vae
        self.classifier = classifier.eval().requires_grad_(False) if classifier is not None else None
        self.discriminator = models.Discriminator(seed=seed) if adversarial_weight > 0 else None
        self.weights = (perceptual_weight, kl_weight, adversarial_weight)

    def train(self, mode: bool = True):
        """As ever, but the classifier stays in evaluation."""
        super().train(mode)
        if self.classifier is not None:
            self.classifier.eval()
        return self

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Losses for image (B, 3, H, W) in [0, 1], noise (B, 4, h, w) and anchor_weight, a number."""
        x = to_signed(batch["image"])  # (B, 3, H, W) in [-1, 1]
        latents = self.vae.encode(x).latent_dist
        decoded = self.vae.decode(latents.mean + latents.std * batch["noise"]).sample.float()
        mean, logvar = latents.mean.float(), latents.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        error = torch.einsum("ij,bjhw->bihw", _opponent(decoded, CHROMA), decoded - x)
        pixel = nn.functional.huber_loss(error, torch.zeros_like(error), delta=0.1) / 0.1  # about |error|, round at 0
        perceptual = self._perceptual(decoded, x)
        w_perceptual, w_kl, w_adversarial = self.weights
        anchor = nn.functional.mse_loss(mean[:, :3], opponent_colours(x, mean.shape[-2:]))
        losses = {"pixel": pixel, "perceptual": perceptual, "kl": kl, "anchor": anchor}
        loss = pixel + w_perceptual * perceptual + w_kl * kl + batch["anchor_weight"].mean() * anchor
        if self.discriminator is not None:
            losses |= self._adversarial(decoded, x)
            loss = loss + w_adversarial * losses["fooled"] + losses["told_apart"]
        return {"loss": loss, **losses}

    def _perceptual(self, decoded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if self.classifier is None:
            return gradient_difference(decoded, x)
        features = self.classifier.distance(from_signed(decoded), from_signed(x)).mean()
        return features + gradient_difference(decoded, x)

    def _adversarial(self, decoded: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Hinge losses of both sides; each reaches its own weights only."""
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = -functional_call(self.discriminator, frozen, (decoded,)).mean()
        real, fake = self.discriminator(x), self.discriminator(decoded.detach())
        return {"fooled": fooled, "told_apart": 0.5 * ((1 - real).relu().mean() + (1 + fake).relu().mean())}


def load_autoencoder(source="tiny-vae") -> AutoencoderKL:
    """The bundled autoencoder, or that of a folder, in evaluation.

    Raises:
        NotAvailable: its files are missing or damaged; the message names the file.
    """
    from workbench.diffusion.pipelines import load_part

    return load_part(AutoencoderKL, source)


def freeze_encoder(vae: AutoencoderKL) -> AutoencoderKL:
    """The same model, of which only the decoder learns: what was trained on its latents stays right."""
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    return vae


class VaeTask(ModelTask):
    """The autoencoder's training.

    Args:
        objective: `Reconstruction`.
        pictures: to learn from.
        validation: views of unseen seeds.
        count: how many of them are measured.
    """

    name = "tiny-vae"
    about = (
        "AutoencoderKL; PSNR (dB) and SSIM of the round trip on unseen renders and on crops of held-out photographs. "
        "A latent cell is 4 x 4 pixels: after 2,000 equal updates that gave 23.4 dB on renders and 24.0 dB on "
        "photographs, 8 x 8 pixels (and half as many weights again) 20.5 and 21.0. What it loses is fine texture: "
        "brick joints, railings, small print come out soft."
    )

    def __init__(self, objective: Reconstruction, pictures: TrainingPictures, validation: TrainingPictures, count=64):
        self.objective, self.pictures = objective, pictures
        rows = range(0, len(validation), max(1, len(validation) // count))
        self.renders = torch.stack([validation.view(i)["image"] for i in list(rows)[:count]])  # (N, 3, H, W)
        self.photographs = held_out_crops()  # (M, 3, H, W)

    def batch(self, numbers):
        """image (B, 3, H, W) in [0, 1] and noise (B, 4, h, w).

        Three batches in four hold crops of half the side, the fourth a quarter as many whole pictures: as dear, but
        there are four times as many pictures to learn from, and whole ones keep normalisation and attention right.
        """
        vae, items = self.objective.vae, []
        whole = numbers[0][1] % 4 == 3
        side = models.SIZE if whole else models.SIZE // 2
        cells = side // 2 ** (len(vae.config.block_out_channels) - 1)
        for number in numbers[::4] if whole else numbers:
            rng = generator(*number)
            image = self.pictures.draw(rng)["image"]
            y, x = rng.integers(models.SIZE - side + 1, size=2)
            items.append((image[:, y : y + side, x : x + side], gaussian(rng, (models.LATENT_CHANNELS, cells, cells))))
        image, noise = (torch.stack(parts) for parts in zip(*items, strict=True))
        return {"image": image, "noise": noise, "anchor_weight": torch.tensor(max(0.0, 1 - numbers[0][1] / ANCHORED))}

    def validate(self):
        """PSNR and SSIM of the round trip through the latents' means, on unseen renders and held-out photographs."""
        numbers = {}
        for name, images in (("renders", self.renders), ("photographs", self.photographs)):
            decoded = round_trip(self.objective.vae, images)
            numbers[f"psnr_{name}"] = metrics.psnr(decoded, images, where="all").mean().item()
            numbers[f"ssim_{name}"] = metrics.ssim(decoded, images, where="all").mean().item()
        return numbers

    def sheet(self):
        """Renders and photographs above, their round trips below."""
        images = torch.cat([self.renders[:SHOWN], self.photographs[:: len(self.photographs) // SHOWN][:SHOWN]])
        return tiled([images, round_trip(self.objective.vae, images)])

    def export(self, folder, trained):
        """Writes the autoencoder's folder with the scaling factor measured on the training pictures, and the card."""
        vae = self.objective.vae
        if vae.encoder.conv_in.weight.requires_grad:  # an encoder that stands still keeps its factor
            images = torch.stack([self.pictures.draw(generator(0, 1, i))["image"] for i in range(128)])
            vae.register_to_config(scaling_factor=scaling_factor(vae, images))
        told = {"about": self.about, "trained": trained, "quality": self.validate()}
        return write_model(folder, {"": vae}, title=self.name, **told)


@torch.no_grad()
def round_trip(vae: AutoencoderKL, images: torch.Tensor, batch_size: int = 16) -> torch.Tensor:
    """Pictures (N, 3, H, W) in [0, 1] encoded to the latents' means and decoded again, on the model's device."""
    parts = []
    for part in images.split(batch_size):
        x = to_signed(part).to(vae.device)
        parts.append(from_signed(vae.decode(vae.encode(x).latent_dist.mean).sample.float().cpu()))
    return torch.cat(parts)


@torch.no_grad()
def scaling_factor(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """1 / standard deviation of the latents of these pictures (N, 3, H, W): scaled by it they have variance 1.

    Source: Rombach et al., CVPR 2022, appendix G.
    """
    latents = [vae.encode(to_signed(part).to(vae.device)).latent_dist.mean for part in images.split(16)]
    return 1 / torch.cat(latents).std().item()
