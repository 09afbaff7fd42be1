"""Runs to play: one of random numbers, quick and with everything to be counted, and a real one, tiny."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from workbench import check
from workbench.stepping.timeline import Timeline

SIZE, LATENTS = (32, 48), (8, 12)


class FakeRun(Timeline):
    """A run of random numbers, 8 by 12 latents of 4 channels; state k is the same however one comes to it.

    Args:
        steps: how many there are.
        batch: how many pictures.
        guided: whether there are predictions with and without a prompt.
        pictures: whether they can be decoded, as from a recording they often cannot.
        alive: False makes it a recording of ``known`` steps.
    """

    def __init__(self, steps=8, batch=1, guided=True, pictures=True, alive=True, known=0, parent=None, at=None, seed=0):
        super().__init__(parent, at)
        self.steps, self.batch, self.guided, self.pictures, self.alive = steps, batch, guided, pictures, alive
        self.seed, self.arguments = seed, {}
        self.computed = self.decoded = 0
        self.fault: Exception | None = None
        self.known = [self.made(0)] if parent is None else list(parent.known[: at + 1])
        self.known += [self.made(i) for i in range(len(self.known), known + 1)]
        self._cursor = at or 0

    @property
    def total(self):
        return self.steps

    def _states(self):
        return self.known

    def _compute(self):
        if not self.alive or len(self.known) > self.steps:
            raise StopIteration
        if self.fault is not None:
            raise self.fault
        self.computed += 1
        self.known.append(self.made(len(self.known)))

    def made(self, i):
        generator = torch.Generator().manual_seed(1000 * self.seed + i)
        some = [torch.randn(self.batch, 4, *LATENTS, generator=generator) for _ in range(6)]
        numbers = SimpleNamespace(
            i=i, t=None, sigma=None, guidance=None, guidance_norm=None, latents=some[0], latents_before=None,
            solved=None, noise_pred=None, noise_pred_uncond=None, noise_pred_text=None, denoised=None, draws=[],
            kept=False, digest=f"{self.seed}-{i}-0123456789",
        )  # fmt: skip
        if i:
            numbers.t, numbers.sigma, numbers.kept = 1000.0 - 100 * i, 10.0 / i, True
            numbers.latents_before, numbers.solved, numbers.noise_pred, numbers.denoised = some[1:5]
        if i and self.guided:
            numbers.noise_pred_uncond, numbers.noise_pred_text = some[3] - some[5], some[3]
            numbers.guidance, numbers.guidance_norm = 3.0, float(some[5].square().mean().sqrt())
        return numbers

    def decode(self, i, what="latents"):
        if not self.pictures:
            raise check.NotAvailable("no picture")
        self.decoded += 1
        latents = getattr(self.known[i], what)[:, :3].sigmoid()
        return torch.nn.functional.interpolate(latents, SIZE)


class FakeBranching(FakeRun):
    """One that can also branch."""

    def branch(self, at=None, **changes):
        child = FakeBranching(self.steps, parent=self, at=self.i if at is None else at, seed=self.seed + bool(changes))
        child.changes = changes
        return child


@pytest.fixture
def run():
    return FakeBranching()


@pytest.fixture
def make_run():
    return FakeRun


@pytest.fixture
def hole():
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 8:20, 10:30] = 1
    return mask


@pytest.fixture(scope="session")
def pipe():
    """A Stable Diffusion inpainting pipeline of 4 channels (it blends), with random weights."""
    from diffusers import StableDiffusionInpaintPipeline

    from workbench.diffusion.denoiser import assemble
    from workbench.diffusion.models import make_autoencoder, make_denoiser, make_text_encoder
    from workbench.diffusion.tokenizer import make_tokenizer

    tokenizer = make_tokenizer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = assemble(
            StableDiffusionInpaintPipeline,
            make_autoencoder(4, (8, 8, 16)).eval(),
            make_text_encoder(tokenizer, width=32, layers=1).eval(),
            tokenizer,
            make_denoiser(4, 4, widths=(16, 16, 32), text_width=32).eval(),
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def real_run(pipe, hole):
    from workbench.stepping.denoising import DenoisingRun

    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return DenoisingRun(
        pipe, seed=3, prompt="a photo of a red ball", image=image, mask_image=hole, num_inference_steps=6,
        guidance_scale=3.0, output_type="pt", height=SIZE[0], width=SIZE[1],
    )  # fmt: skip
