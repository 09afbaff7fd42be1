"""Claims about DiffuMatting: every measurement runs and gives numbers, and what judges is right itself."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.methods.diffumatting.conftest import SMALL
from tests.stepping import narrow
from workbench import check, claims, data
from workbench.lenses import trials
from workbench.methods.diffumatting import claims as of_diffumatting
from workbench.methods.diffumatting import make_head, make_matting_network, make_refiner
from workbench.methods.diffumatting.loading import DiffuMatting

CLAIMS = {claim.name: claim for claim in of_diffumatting.CLAIMS}
COUNT = {"D1": 2, "D2": 2, "D6": 2, "D7": 1, "D9": 2}
"""Prompts; the others count sprites."""


@pytest.fixture(scope="module")
def small():
    """Two sprites, two prompts, one seed, one step, untrained models of 32 x 32 pixels; an ideal autoencoder."""
    pipe, names, things = copy.deepcopy(narrow.text_to_image()), data.sprites()[:2], of_diffumatting.things
    pipe.unet.register_to_config(sample_size=8)
    untrained = DiffuMatting(pipe, make_head(pipe.vae, 4).eval(), make_refiner(**SMALL).eval())
    network = make_matting_network(widths=(8, 16))
    changed = {
        "model": lambda name="": untrained,
        "matting_network": lambda name: network,
        "autoencoder": lambda: pipe.vae,
        "round_trip": lambda vae, image: image,
        "backgrounds": lambda: SimpleNamespace(draw=lambda rng: torch.full((1, 3, 32, 32), rng.random())),
        "things": lambda side=32: things(side),
        "SUBJECTS": of_diffumatting.SUBJECTS[:2],
        "NEUTRAL": of_diffumatting.NEUTRAL[:1],
        "SEEDS": range(1),
        "SAMPLING": {"num_inference_steps": 1, "guidance_scale": 1.0},
        "LEVELS": (500,),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "sprites", lambda: names, raising=False)
        patch.setattr(trials, "model", lambda: pipe)
        for name, value in changed.items():
            patch.setattr(of_diffumatting, name, value)
        of_diffumatting._learnt.cache_clear()
        yield untrained
        of_diffumatting._learnt.cache_clear()


def seeing(image, model):
    """A matte that is sure of a picture's left half, unless the picture is black."""
    alpha = torch.zeros_like(image[:, :1])
    alpha[..., : image.shape[-1] // 2] = float(image.any())
    return SimpleNamespace(alpha=alpha)


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_measured(small, name, monkeypatch):
    if name == "D2":  # an untrained GreenPost is sure of nothing
        monkeypatch.setattr(of_diffumatting, "matte", seeing)
    finding = claims.measure(CLAIMS[name])
    assert finding.verdict in claims.VERDICTS
    assert finding.effect.n == COUNT.get(name, len(data.sprites()))
    assert claims.list_claims()[name] == CLAIMS[name]


def test_an_ideal_autoencoder_shifts_nothing(small):
    found = of_diffumatting.autoencoder_shifts()
    shifts = found["delta-E of the background - 2"]
    assert max(shifts) < 1  # what soft edges leave
    assert min(found["share within 10"]) > 0.9


def test_who_knows_the_matte_beats_the_key(small, monkeypatch):
    truths = iter([thing.alpha for thing in of_diffumatting.things() for _ in range(2)])

    def knowing(image, model):
        alpha = next(truths)
        return SimpleNamespace(alpha=alpha, coarse_alpha=torch.zeros_like(alpha))

    monkeypatch.setattr(of_diffumatting, "matte", knowing)
    found = of_diffumatting.head_beats_key()
    assert min(found["key - GreenPost, soft pixels"]) > 0
    assert min(found["key - GreenPost, elsewhere"]) >= 0
    assert max(found["key - head alone, elsewhere"]) < 0


def test_pictures_depend_on_seed_and_on_the_shift(small, monkeypatch):
    monkeypatch.setattr(of_diffumatting, "SEEDS", range(2))
    images = of_diffumatting.painted(small.pipe, "a photo of a ball")
    assert images.shape == (2, 3, 32, 32)
    assert torch.equal(images, of_diffumatting.painted(small.pipe, "a photo of a ball"))
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not torch.allclose(images, of_diffumatting.painted(small.pipe, "a photo of a ball", shifted=True), atol=1e-3)


def test_a_share_of_synthetic_things_by_hand(small, monkeypatch):
    kinds = iter(["creature", "net"])
    monkeypatch.setattr(data, "sprite", lambda name: SimpleNamespace(kind=next(kinds)))
    errors = {0: [[10.0, 4.0], [6.0, 2.0]], 25: [[4.0, 4.0], [2.0, 2.0]], 50: [[8.0, 1.0], [2.0, 1.0]]}
    errors |= {75: [[6.0, 1.0], [5.0, 3.0]], 100: [[9.0, 9.0], [9.0, 9.0]]}  # (seeds, sprites)
    monkeypatch.setattr(of_diffumatting, "_customer", lambda share: np.array(errors[share]))
    found = of_diffumatting.factory_helps()
    assert found["real alone - mixed, MSE"] == pytest.approx([3.5, 1.0])
    assert found["the same, trainings"] == pytest.approx([3.0, 1.5])
    assert found["per cent lower, characters"] == pytest.approx([43.75])
    assert found["per cent lower, other things"] == pytest.approx([100 / 3])
    assert found["100 % synthetic, MSE"] == [9.0, 9.0]


def test_spill_counts_things_that_all_trainings_paint(small, monkeypatch):
    """Left halves of known greenness; a training that paints nothing takes its prompt out."""

    def learnt(name, prompt):
        first = prompt == of_diffumatting.SUBJECTS[0]
        if name == "dm-no-green" and not first:
            return torch.zeros(1, 3, 8, 16)
        greenness = {"dm-full": 0.1, "dm-background": 0.3, "dm-no-green": 0.4}[name]
        images = torch.full((2, 3, 8, 16), 0.2)
        images[0, 1, :, :8] += 2 * greenness  # the other picture has none
        return images

    monkeypatch.setattr(of_diffumatting, "matte", seeing)
    monkeypatch.setattr(of_diffumatting, "_learnt", learnt)
    found = of_diffumatting.attention_beats_latents()
    assert found["background's latents - green control, spill"] == pytest.approx([0.2])
    assert found["neither - green control, spill"] == pytest.approx([0.3])
    assert found["neither - background's latents, spill"] == pytest.approx([0.1])
    assert len(found["background's latents - green control, delta-E"]) == 2


def test_whose_screens_are_green(small, monkeypatch):
    """The same pipeline each time, so that only the colour of what it shows counts."""
    green, red, blue = (torch.eye(3)[k].view(1, 3, 1, 1).expand(1, 3, 16, 16) for k in (1, 0, 2))
    shown = iter([red, blue, green] * 2)
    monkeypatch.setattr(of_diffumatting, "painted", lambda pipe, words: next(shown))
    monkeypatch.setattr(of_diffumatting, "generated", lambda words: green)
    found = of_diffumatting.screens_are_green()
    far = 255 * 2**0.5
    assert found["half of the prompt's GSG - DiffuMatting's"] == pytest.approx([far / 2, far / 2])
    assert found["GSG, prompt"] == found["GSG, prompt, DiffuMatting's decoder"] == pytest.approx([far, far])
    assert found["delta-E, DiffuMatting"] == pytest.approx([0, 0], abs=1e-3)
    assert found["delta-E, DiffuMatting, plain noise"] == pytest.approx([0, 0], abs=1e-3)
    assert found["delta-E, prompt"][0] > 50


def test_greenness_by_hand():
    image = torch.zeros(1, 3, 18, 27)
    image[:, 1] = 0.5  # green everywhere
    image[:, :, 6:12, 9:18] = torch.tensor([0.4, 0.6, 0.2]).view(3, 1, 1)
    assert of_diffumatting.greenness(image) == pytest.approx((0.3, 0.5))


def test_a_training_that_is_missing_is_told_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(of_diffumatting.trials, "TRAINED", tmp_path)
    with pytest.raises(
        check.NotAvailable, match=r"dm-lora is not there. Train it: .* paint .* --matting-weight 0 --fold"
    ):
        of_diffumatting.trained("dm-lora")
    with pytest.raises(check.NotAvailable, match=r"--synthetic-share 0.25 --seed 0 --folder checkpoints/matting-25-0"):
        of_diffumatting.trained("matting-25-0")
