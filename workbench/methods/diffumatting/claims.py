"""Claims about DiffuMatting, measured on the benchmark's sprites, whose mattes are exact, and on their captions.

D4, D8 and D9 ask the bundled models, D7 tiny-t2i as it is; D1, D2, D3 and D6 ask short trainings of equal budget, D5
matting networks learnt from real things and from those that `FACTORY` paints. These lie in `trials.TRAINED`, each
trained as `TRAININGS` says; one that is missing is an error that tells the command.
"""

import copy
import functools
from pathlib import Path

import numpy as np
import torch

from workbench import data, metrics
from workbench.claims import Claim
from workbench.diffusion.prediction import denoised
from workbench.diffusion.training_data import generator
from workbench.diffusion.vae import load_autoencoder, round_trip
from workbench.image import to_signed
from workbench.lenses import trials
from workbench.lenses.trials import minus
from workbench.methods.diffumatting.attention import green_caption
from workbench.methods.diffumatting.data import Backgrounds, Example, Matte, before, on_green, squared
from workbench.methods.diffumatting.evaluation import (
    autoencoder_floor,
    background_delta_e,
    border_delta_e,
    gsg,
    screen_direction,
    shift_colour_noise,
)
from workbench.methods.diffumatting.generate import generate, matte
from workbench.methods.diffumatting.greenpost import background_colour, chroma_key
from workbench.methods.diffumatting.loading import DiffuMatting, bundled_model, load_diffumatting, load_matting_network
from workbench.methods.diffumatting.networks import decode_features, estimate_alpha

FACTORY = "python -m workbench.methods.diffumatting.factory --out out/factory --count 192 --like out/sprites"
"""What paints the synthetic things of D5: as many as there are rendered ones, of the same captions."""
_STEPS = 200
REAL_ALONE, MIXED, SYNTHETIC_ALONE = 0, (25, 50, 75), 100
"""Per cent of a matting network's things that are synthetic."""
TRAINING_SEEDS = range(1)
"""Of each matting network."""
_PAINT = f"paint --data out/sprites --validation out/val-sprites --steps {_STEPS} --ema 0.98"
_MATTING = (
    "matting --data out/sprites --validation out/val-sprites --backgrounds out/rooms out/facades --steps 500 "
    "--synthetic out/factory --synthetic-share"
)
TRAININGS = {
    "dm-full": _PAINT,
    "dm-no-green": f"{_PAINT} --green-weight 0",
    "dm-background": f"{_PAINT} --green-weight 0 --background-weight 1",
    "dm-no-detail": f"{_PAINT} --detail-weight 0",
    "dm-lora": f"{_PAINT} --green-weight 0 --detail-weight 0 --matting-weight 0",
    **{
        f"matting-{share}-{seed}": f"{_MATTING} {share / 100:g} --seed {seed}"
        for seed in TRAINING_SEEDS
        for share in (REAL_ALONE, *MIXED, SYNTHETIC_ALONE)
    },
}
"""Folder -> what it is trained with."""
CHARACTERS = ("creature", "hair")
"""Kinds of sprites that stand in for portraits."""
SUBJECTS = (
    "a photo of a shiny blue creature", "a photo of a purple mottled feather", "a photo of a beige net",
    "a photo of a shiny orange ball", "a photo of a white shell", "a photo of a red striped feather",
    "a photo of a shiny pink striped creature", "a photo of a brown fern", "a photo of a yellow mottled leaf",
    "a photo of a plant", "a photo of a shiny grey cone", "a photo of an orange mottled creature",
)  # fmt: skip
NEUTRAL = tuple(
    f"a photo of a {colour} {thing}" for colour in ("grey", "white") for thing in ("creature", "feather", "net", "ball")
)
SEEDS = range(4)
SAMPLING = {"num_inference_steps": 30, "guidance_scale": 3.0}
LEVELS = (200, 500, 800)
"""Timesteps at which one-step estimates are looked at."""
NOTICEABLE = 2.0
"""A colour difference of CIEDE2000 that is just noticeable: two that differ by less match."""
SOFT = (0.05, 0.95)


def trained(name: str) -> Path:
    """The folder of one of `TRAININGS`; NotAvailable where it has not been trained."""
    return trials.trained(name, f"python -m workbench.methods.diffumatting.train {TRAININGS[name]}")


@functools.cache
def model(name: str = "") -> DiffuMatting:
    """The bundled model, or one of `TRAININGS`, which has no refiner."""
    found = load_diffumatting(trained(name), refiner=None) if name else bundled_model()
    found.pipe.set_progress_bar_config(disable=True)
    return found


@functools.cache
def matting_network(name: str):
    """One of `TRAININGS`."""
    return load_matting_network(trained(name))


@functools.cache
def backgrounds() -> Backgrounds:
    """Photographs to stand before."""
    return Backgrounds()


def things(side: int | None = None) -> list[Matte]:
    """The benchmark's sprites, square; of ``side`` pixels or of the bundled models' size."""
    sprites = [data.sprite(name) for name in data.sprites()]
    return [squared(Matte(s.foreground, s.alpha, s.caption), *([] if side is None else [side])) for s in sprites]


def side_of(pipe) -> int:
    """Pixels a side of what a pipeline paints."""
    return pipe.unet.config.sample_size * 2 ** (len(pipe.vae.config.block_out_channels) - 1)


@torch.no_grad()
def painted(pipe, prompt: str, shifted: bool = False) -> torch.Tensor:
    """A prompt's pictures by each of `SEEDS`, (S, 3, H, W); from noise that is shifted towards green, or is not."""
    found, cells = [], pipe.unet.config.sample_size
    for seed in SEEDS:
        shape = (1, pipe.unet.config.in_channels, cells, cells)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        if shifted:
            noise = shift_colour_noise(noise, screen_direction(pipe.vae, 2 * (side_of(pipe),)))
        found.append(pipe(prompt, latents=noise, output_type="pt", **SAMPLING).images[:1].float().cpu())
    return torch.cat(found).clamp(0, 1)


def with_green_decoder():
    """tiny-t2i, its pictures shown by DiffuMatting's decoder."""
    pipe = copy.copy(trials.model())
    pipe.vae = model().pipe.vae
    return pipe


def generated(prompt: str) -> torch.Tensor:
    """A prompt's pictures by the bundled model and each of `SEEDS`, (S, 3, H, W)."""
    return torch.cat([generate(prompt, seed, model=model(), **SAMPLING).image for seed in SEEDS])


@functools.cache
def _learnt(name: str, prompt: str) -> torch.Tensor:
    """A prompt's pictures on green by one of `TRAININGS`, (S, 3, H, W), from plain noise."""
    return painted(model(name).pipe, green_caption(prompt))


def _borders(name: str, prompt: str) -> tuple[float, float]:
    """Along the border of a training's pictures: mean colour difference to pure green, and the colours' variance."""
    told = border_delta_e(_learnt(name, prompt))
    return tuple(float(np.mean([getattr(each, what) for each in told])) for what in ("mean", "variance"))


def _spill(name: str, prompt: str) -> float:
    """Mean greenness of a training's things, where the bundled GreenPost is sure of them; nan where it sees none."""
    found = [background_delta_e(x, matte(x, model=model()).alpha)[0].spill for x in _learnt(name, prompt).split(1)]
    return float(np.mean([value for value in found if value == value] or [np.nan]))


def green_control_helps() -> dict:
    """D1."""
    full, without = ([_borders(name, prompt) for prompt in SUBJECTS] for name in ("dm-full", "dm-no-green"))
    (full_e, full_v), (without_e, without_v) = zip(*full, strict=True), zip(*without, strict=True)
    return {
        "without - with, delta-E": minus(without_e, full_e),
        "without - with, variance": minus(without_v, full_v),
        "with, delta-E": full_e,
        "without, delta-E": without_e,
    }


def attention_beats_latents() -> dict:
    """D2."""
    names = ("dm-full", "dm-background", "dm-no-green")
    spill = np.array([[_spill(name, prompt) for prompt in SUBJECTS] for name in names])
    spill = spill[:, np.isfinite(spill).all(0)]  # things that each of them paints
    told = {
        "background's latents - green control, spill": spill[1] - spill[0],
        "neither - green control, spill": spill[2] - spill[0],
        "neither - background's latents, spill": spill[2] - spill[1],
    }
    latents, control = ([_borders(name, prompt)[0] for prompt in SUBJECTS] for name in names[1::-1])
    return {name: list(values) for name, values in told.items()} | {
        "background's latents - green control, delta-E": minus(latents, control)
    }


@torch.no_grad()
def _estimated(name: str) -> list[tuple[float, float]]:
    """For each sprite: Grad and SAD of the head's matte of one-step estimates, summed over `LEVELS`."""
    pipe, head, found = model(name).pipe, model(name).head, []
    for k, thing in enumerate(things(side_of(pipe))):
        example = on_green(thing)
        latents = pipe.vae.encode(to_signed(example.image)).latent_dist.mean * pipe.vae.config.scaling_factor
        states = pipe.encode_prompt(example.caption, "cpu", 1, False)[0]
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(k))
        errors = np.zeros(2)
        for level in LEVELS:
            t = torch.tensor([level])
            noised = pipe.scheduler.add_noise(latents, noise, t)
            estimate = denoised(pipe.scheduler, noised, pipe.unet(noised, t, states).sample, t)
            alpha = head(decode_features(pipe.vae, estimate)[1])
            errors += [measure(alpha, example.alpha).item() for measure in (metrics.matting_grad, metrics.matting_sad)]
        found.append(tuple(errors))
    return found


def detail_sharpens() -> dict:
    """D3."""
    full, without = np.log(_estimated("dm-full")), np.log(_estimated("dm-no-detail"))  # (N, 2)
    grad, sad = (without - full).T
    return {"gain in log Grad - gain in log SAD": grad - sad, "gain in log Grad": grad, "gain in log SAD": sad}


def head_beats_key() -> dict:
    """D4."""
    found: dict[str, list[float]] = {}
    pipe = model().pipe
    for thing in things(side_of(pipe)):
        pure, truth = on_green(thing).image, thing.alpha
        soft = (truth > SOFT[0]) & (truth < SOFT[1])
        for kind, image in (("", round_trip(pipe.vae, pure).clamp(0, 1)), (", pure green", pure)):
            made = matte(image, model=model())
            keyed, _ = chroma_key(image, background_colour(image, truth))
            for name, alpha in (("key - GreenPost", made.alpha), ("key - head alone", made.coarse_alpha)):
                gain = 1000 * ((keyed - truth).square() - (alpha - truth).square())
                found.setdefault(f"{name}, soft pixels{kind}", []).append(gain[soft].mean().item())
                found.setdefault(f"{name}, elsewhere{kind}", []).append(gain[~soft].mean().item())
    return found


@torch.no_grad()
def _customer(share: int) -> np.ndarray:
    """MSE, times 1000, of the matting networks of a share on the sprites before photographs: (seeds, sprites)."""
    found = np.zeros((len(TRAINING_SEEDS), len(things())))
    for row, seed in enumerate(TRAINING_SEEDS):
        network = matting_network(f"matting-{share}-{seed}")
        for k, thing in enumerate(things()):
            example: Example = before(thing, backgrounds().draw(generator(13, k)))
            alpha = estimate_alpha(network, example.image)
            found[row, k] = 1000 * metrics.matting_mse(alpha, example.alpha).item()
    return found


def factory_helps() -> dict:
    """D5."""
    by = {share: _customer(share) for share in (REAL_ALONE, *MIXED, SYNTHETIC_ALONE)}
    gain = by[REAL_ALONE] - np.mean([by[share] for share in MIXED], 0)  # (seeds, sprites)
    character = np.array([data.sprite(name).kind in CHARACTERS for name in data.sprites()])
    told = {"real alone - mixed, MSE": gain.mean(0)}
    if len(gain) > 1:
        told["the same, trainings"] = gain.mean(1)
    for kind, chosen in (("characters", character), ("other things", ~character)):
        if chosen.any():
            lower = gain[:, chosen].mean(0) / by[REAL_ALONE][:, chosen].mean()
            told[f"per cent lower, {kind}"] = 100 * lower
    told |= {f"{share} % synthetic, MSE": values.mean(0) for share, values in by.items()}
    return {name: list(values) for name, values in told.items()}


def shift_matches_lora() -> dict:
    """D6."""
    lora, plain = [_borders("dm-lora", prompt)[0] for prompt in SUBJECTS], with_green_decoder()
    free, prompted = [], []
    for prompt in SUBJECTS:
        for into, words, shifted in ((free, prompt, True), (prompted, green_caption(prompt), False)):
            told = border_delta_e(painted(plain, words, shifted))
            into.append(float(np.mean([each.mean for each in told])))
    return {
        f"LoRA + {NOTICEABLE:g} - shifted noise, delta-E": [value + NOTICEABLE for value in minus(lora, free)],
        "LoRA, delta-E": lora,
        "shifted noise, delta-E": free,
        "prompt alone, delta-E": prompted,
    }


def greenness(images: torch.Tensor) -> tuple[float, float]:
    """Mean of g - (r + b) / 2 in the middle ninth of pictures (B, 3, H, W), and along their borders."""
    each = images[:, 1] - (images[:, 0] + images[:, 2]) / 2  # (B, H, W)
    height, width = each.shape[-2:]
    middle = each[:, height // 3 : height - height // 3, width // 3 : width - width // 3]
    border = torch.ones(height, width, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    return middle.mean().item(), each[:, border].mean().item()


def prompted_green_leaks() -> dict:
    """D7."""
    found: dict[str, list[float]] = {"middle": [], "border": [], "middle, DiffuMatting": []}
    for prompt in NEUTRAL:
        grey = greenness(painted(trials.model(), f"{prompt} on a grey background"))
        green = greenness(painted(trials.model(), green_caption(prompt)))
        found["middle"].append(green[0] - grey[0])
        found["border"].append(green[1] - grey[1])
        found["middle, DiffuMatting"].append(greenness(generated(prompt))[0] - grey[0])
    return {f"greener by the green prompt, {where}": values for where, values in found.items()}


def autoencoder_shifts() -> dict:
    """D8."""
    vae, every, told, learnt_anew = autoencoder(), things(), [], []
    for thing in every:
        both = [round_trip(each, on_green(thing).image).clamp(0, 1) for each in (vae, model().pipe.vae)]
        own, anew = (background_delta_e(image, thing.alpha)[0] for image in both)
        told.append(own)
        learnt_anew.append(anew.mean)
    return {
        f"delta-E of the background - {NOTICEABLE:g}": [each.mean - NOTICEABLE for each in told],
        "delta-E, 95th percentile": [each.p95 for each in told],
        "share within 10": [each.near for each in told],
        "delta-E of a flat picture": [autoencoder_floor(vae, tuple(every[0].alpha.shape[-2:])).mean],
        "delta-E, last stage learnt anew": learnt_anew,
    }


def screens_are_green() -> dict:
    """D9."""
    ways = {
        "prompt": functools.partial(painted, trials.model()),
        "prompt, DiffuMatting's decoder": functools.partial(painted, with_green_decoder()),
        "DiffuMatting, plain noise": functools.partial(painted, model().pipe),
        "DiffuMatting": generated,
    }
    score: dict[str, list[float]] = {f"GSG, {way}": [] for way in ways}
    off: dict[str, list[float]] = {f"delta-E, {way}": [] for way in ways}
    for prompt in SUBJECTS:
        for way, paint in ways.items():
            images = paint(green_caption(prompt))
            score[f"GSG, {way}"].append(gsg(images).mean().item())
            off[f"delta-E, {way}"].append(float(np.mean([each.mean for each in border_delta_e(images)])))
    half = [value / 2 for value in score["GSG, prompt"]]
    return {"half of the prompt's GSG - DiffuMatting's": minus(half, score["GSG, DiffuMatting"]), **score, **off}


@functools.cache
def autoencoder():
    """The bundled one."""
    return load_autoencoder("tiny-vae")


_HU = "Hu et al., ECCV 2024 (DiffuMatting)"
_PROMPTS = (
    f"{len(SUBJECTS)} prompts, {len(SEEDS)} seeds from plain noise, tiny-t2i with the decoder that shows green, "
    "CIEDE2000 to pure green along the border. "
)
_SPRITES = "The benchmark's 40 sprites at 128 pixels. "
CLAIMS = (
    Claim("D1", "The green control loss makes the background greener.", f"{_HU}, ablation",
          f"{_PROMPTS}Two trainings of {_STEPS} updates, with the term and without.", green_control_helps),
    Claim("D2", "Supervising attention cuts green in the thing more than a squared error of the background's latents.",
          "this kit's, after Hu et al., ECCV 2024",
          f"{len(SUBJECTS)} prompts, {len(SEEDS)} seeds from plain noise. Two trainings of {_STEPS} updates, each term "
          "with weight 1 and without the other; spill is g - max(r, b), at least 0, where GreenPost sees a thing.",
          attention_beats_latents),
    Claim("D3", "The boundary term sharpens: it lowers Grad more than SAD.", f"{_HU}, ablation",
          f"{_SPRITES}Two trainings of {_STEPS} updates; the head's mattes of one-step estimates at t = "
          f"{', '.join(map(str, LEVELS))}, relative gains.", detail_sharpens),
    Claim("D4", "A learnt matte beats chroma key where the thing is half transparent.", f"{_HU}, section on GreenPost",
          f"{_SPRITES}On green, once through DiffuMatting's autoencoder; alpha from 0.05 to 0.95; the key is told the "
          "screen's true colour; squared errors times 1000.", head_beats_key),
    Claim("D5", "Synthetic things beside real ones lower a matting network's error.", f"{_HU}, -15.4 % and -11.4 %",
          f"{_SPRITES}Before photographs; networks of 500 updates, {len(TRAINING_SEEDS)} of each share; real things "
          "alone against the mean of three mixtures.", factory_helps),
    Claim("D6", "A shift of the noise, without training, matches a short LoRA training.",
          "Morita et al., CVPR 2025 (TKG-DM)", f"{_PROMPTS}Matching: at most {NOTICEABLE:g} worse.",
          shift_matches_lora),
    Claim("D7", "Green asked for by the prompt leaks into the thing.", "Morita et al., CVPR 2025 (TKG-DM)",
          f"{len(NEUTRAL)} grey and white things, {len(SEEDS)} seeds, tiny-t2i; g - (r + b) / 2 in the middle ninth, "
          "on a green against on a grey background.", prompted_green_leaks),
    Claim("D8", "The autoencoder alone shifts pure green visibly.", "this kit's",
          f"{_SPRITES}On green, through tiny-vae and back; CIEDE2000 of the background, above {NOTICEABLE:g}. Learnt "
          "anew: by tiny-green-decoder.",
          autoencoder_shifts),
    Claim("D9", "DiffuMatting's screens are at most half as far from pure green as the prompt's.", "this kit's",
          f"{len(SUBJECTS)} prompts, {len(SEEDS)} seeds; GSG of whole pictures, CIEDE2000 along the border. Prompt: "
          'tiny-t2i, told "on a green background".', screens_are_green),
)  # fmt: skip
