"""Claims about MimicBrush, measured on the benchmark's clips: films that nobody has learnt from, with exact truth.

One value a clip: an early frame is the source, a later one the reference, the hole a box about a thing that moves. All
claims share fills, which are kept. But C12 has rooms of its own, rendered with the truth of texture transfer.

C1, C5, C7, C8, C11 and C12 ask the bundled model; C9 also asks one trained as long in the other reading; C2, C3, C4
and C10 ask short trainings of equal budget. These lie in `trials.TRAINED`, each trained as `TRAININGS` says; one that
is missing is an error that tells the command.

Not asked: C6 (mid and up blocks against all blocks), as the training joins mid and up only. Of C7 the second half, that
part composition does not suffer from dropped depth, would need a training without dropping, which has no option.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from workbench import data, metrics
from workbench import mask as masks
from workbench.claims import Claim
from workbench.diffusion.filling import work_size
from workbench.image import resize, to_signed
from workbench.lenses import trials
from workbench.lenses.attention import record_attention
from workbench.lenses.trials import minus
from workbench.methods import inpaint
from workbench.methods.mimicbrush.evaluation import (
    TextureCase,
    inner_scores,
    region_similarity,
    side_by_side,
    texture_case,
)
from workbench.methods.mimicbrush.fill import fill
from workbench.methods.mimicbrush.loading import NAME, load_mimicbrush
from workbench.methods.mimicbrush.model import MimicBrush
from workbench.world.geometry import Correspondences
from workbench.world.rendering import look
from workbench.world.rooms import make_room
from workbench.world.seeds import split_seeds

_COMMAND = (
    "python -m workbench.methods.mimicbrush.train --validation out/val-clips out/val-rooms-views "
    "--data out/clips out/lit-clips out/rooms-views out/facades-views out/rooms out/facades --learning-rate 6e-4"
)
_AS_PUBLISHED = "--pairs 2000 --steps 400 --warmup 50 --ema 0.98"
_SHORT = f"{_AS_PUBLISHED} --pointing 0.05"
TRAININGS = {
    "base": _SHORT,
    "unpointed": _AS_PUBLISHED,
    "stills": f"{_SHORT} --video-share 0",
    "unguided": f"{_SHORT} --guide none",
    "weak": f"{_SHORT} --strength 0.3",
    "released": "--pairs 6000 --steps 4400 --warmup 100 --ema 0.998 --strength 0.5 --pointing 0.05 --reading released",
}
"""What each is trained with, beside the data: "released" as long as the bundled model, the others as long as "base"."""
LATER = 8
"""The reference is so many frames after the source, of 16."""
SEEDS = range(2)
SAMPLING = {"num_inference_steps": 20, "guidance_scale": 3.0}
LEVEL = 400
"""Timestep at which attention is looked at."""
LOOKING = 24
"""Places of a hole whose attention is followed, at most."""
TEXTURES, TEXTURE_SEEDS = 24, 600_000
"""Cases of texture transfer, and where in the validation split their rooms' seeds begin."""
FIXED = ("wall", "floor", "ceiling", "skirting", "window", "picture", "rug")
"""What takes no other thing's texture, and gives none."""
LEAST_SHARE = 0.02
"""Of the picture; a thing that covers less is too small to show a texture."""
NEAR = 0.125
"""Attention counts as right up to this share of the picture's width from the true point."""


@dataclass(frozen=True)
class Case:
    """A hole whose content a reference shows.

    Args:
        source, reference: (1, 3, H, W).
        mask: (1, 1, H, W), a box.
        thing, region: (1, 1, H, W), the thing in the source, and in the reference.
        there: where each pixel of the source is in the reference.
        caption: of the whole source, what its hole holds included.
    """

    source: torch.Tensor
    reference: torch.Tensor
    mask: torch.Tensor
    thing: torch.Tensor
    region: torch.Tensor
    there: Correspondences
    caption: str


@functools.cache
def case(name: str) -> Case:
    """Of a clip: the largest of its moving things that both frames show."""
    clip = data.clip(name)
    shown = [(clip.ids[[0, LATER]] == 1 + k).float()[:, None] for k in clip.moving]  # (2, 1, H, W) each
    thing, region = max(shown, key=lambda both: both.mean((1, 2, 3)).min().item()).split(1)
    x0, y0, x1, y1 = masks.bounding_box(thing)
    box = masks.box(tuple(thing.shape[-2:]), (x0 - 3, y0 - 3, x1 + 3, y1 + 3))
    source, reference = clip.frames[:1], clip.frames[LATER : LATER + 1]
    return Case(source, reference, box, thing, region, clip.correspondences(0, LATER), clip.caption)


def trained(name: str) -> Path:
    """The folder of one of `TRAININGS`; NotAvailable where it has not been trained."""
    return trials.trained(f"mimic-{name}", f"{_COMMAND} {TRAININGS[name]}")


@functools.cache
def model(name: str = NAME) -> MimicBrush:
    """The bundled model, or one of `TRAININGS`."""
    return load_mimicbrush(trained(name) if name in TRAININGS else name)


# What the reference is


def alone(reference: torch.Tensor, scale: float) -> torch.Tensor:
    """The reference smaller, in the middle of a picture of its size and of its mean colour."""
    height, width = reference.shape[-2:]
    h, w = round(height * scale), round(width * scale)
    y, x = (height - h) // 2, (width - w) // 2
    out = reference.mean((2, 3), keepdim=True).expand_as(reference).clone()
    out[..., y : y + h, x : x + w] = resize(reference, (h, w))
    return out


def crowded(reference: torch.Tensor) -> torch.Tensor:
    """The reference at half its size, and three times again in other colours: what is wanted has look-alikes."""
    height, width = reference.shape[-2:]
    small = resize(reference, (height // 2, width // 2))
    turned = [small[:, order] for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1], [1, 0, 2])]
    out = torch.cat([torch.cat(turned[:2], 3), torch.cat(turned[2:], 3)], 2)
    return resize(out, (height, width))


def _foreign(name: str) -> Case:
    """The next clip's case."""
    names = data.clips()
    return case(names[(names.index(name) + 1) % len(names)])


REFERENCES: dict[str, Callable[[str], torch.Tensor]] = {
    "whole": lambda name: case(name).reference,
    "half": lambda name: alone(case(name).reference, 0.5),
    "quarter": lambda name: alone(case(name).reference, 0.25),
    "crowded": lambda name: crowded(case(name).reference),
    "foreign": lambda name: _foreign(name).reference,
}


# Fills and their scores


def filled(
    name: str, of: str = NAME, reference: str = "whole", attend: bool = True, keep_shape: bool = False
) -> torch.Tensor:
    """A clip's hole filled by each of `SEEDS`: (S, 3, H, W), known pixels as they were."""
    return _filled(name, of, reference, attend, keep_shape)


@functools.cache
def _filled(name: str, of: str, reference: str, attend: bool, keep_shape: bool) -> torch.Tensor:
    given, shown, found = case(name), REFERENCES[reference](name), []
    for seed in SEEDS:
        *_, last = fill(
            given.source, given.mask, seed=seed, reference=shown, model=model(of), attend=attend,
            keep_shape=keep_shape, preview_every=1000, **SAMPLING,
        )  # fmt: skip
        x0, y0, x1, y1 = last.box
        picture = given.source.clone()
        picture[..., y0:y1, x0:x1] = resize(last.image, (y1 - y0, x1 - x0))
        found.append(torch.where(given.mask > 0.5, picture, given.source))
    return torch.cat(found)


def scores(**how) -> list[float]:
    """Mean PSNR in the hole of each clip's fills, ``how`` as in `filled`."""
    found = []
    for name in data.clips():
        fills, given = filled(name, **how), case(name)
        truth, hole = given.source.expand_as(fills), given.mask.expand(len(fills), -1, -1, -1)
        found.append(metrics.psnr(fills, truth, hole).mean().item())
    return found


def _inner(attend: bool) -> dict[str, list[float]]:
    """`inner_scores` by name, one value a clip."""
    found: dict[str, list[float]] = {}
    for name in data.clips():
        given = case(name)
        each = [inner_scores(x, given.source, given.mask) for x in filled(name, attend=attend).split(1)]
        for key in each[0]:
            found.setdefault(key, []).append(sum(one[key] for one in each) / len(each))
    return found


def reference_net_helps() -> dict:
    """C1."""
    with_it, without = _inner(True), _inner(False)
    copied = [metrics.psnr(case(n).reference, case(n).source, case(n).mask).item() for n in data.clips()]
    return {
        "reference U-Net - tokens alone, dB": minus(with_it["psnr"], without["psnr"]),
        "reference U-Net, dB": with_it["psnr"],
        "tokens alone, dB": without["psnr"],
        "the reference's pixels as they are, dB": copied,
        "gain, SSIM": minus(with_it["ssim"], without["ssim"]),
        "gain, tiny_perceptual": minus(without["tiny_perceptual"], with_it["tiny_perceptual"]),
    }


def films_beat_stills() -> dict:
    """C2."""
    films, stills = scores(of="base"), scores(of="stills")
    return {"films - stills alone, dB": minus(films, stills), "films, dB": films, "stills alone, dB": stills}


def guided_masks_help() -> dict:
    """C3."""
    guided, uniform = scores(of="base"), scores(of="unguided")
    return {"guided - uniform grids, dB": minus(guided, uniform), "guided, dB": guided, "uniform, dB": uniform}


def _likeness(of: str) -> list[float]:
    """How much holes look like the other clip's thing, one value a clip."""
    found = []
    for name in data.clips():
        other, hole, fills = _foreign(name), case(name).mask, filled(name, of, "foreign")
        judge = model().image_encoder.classifier
        each = [region_similarity(x, hole, other.reference, other.region, judge) for x in fills.split(1)]
        found.append(sum(each) / len(each))
    return found


def strength_trades() -> dict:
    """C4."""
    strong, weak = _likeness("base"), _likeness("weak")
    return {
        "strong - weak augmentation, likeness to another film's thing": minus(strong, weak),
        "strong, likeness": strong,
        "weak, likeness": weak,
        "weak - strong, dB in the same film": minus(scores(of="weak"), scores(of="base")),
    }


def attention_finds() -> dict:
    """C5."""
    right, chance = zip(*(look_near(case(name), model()) for name in data.clips()), strict=True)
    return {"near the true point - chance": minus(right, chance), "near the true point": right, "chance": chance}


@torch.no_grad()
def look_near(given: Case, brush: MimicBrush) -> tuple[float, float]:
    """The share of a hole's attention to the reference that lies near the true points, and the share of their area."""
    height, width = given.source.shape[-2:]
    size = work_size(height, width, brush.side, brush.multiple)
    source, reference, mask = (resize(x, size) for x in (given.source, given.reference, given.mask))
    told = brush.conditions(source, (mask > 0.5).float(), reference)
    latents = brush.encode(to_signed(source))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    noised = brush.scheduler.add_noise(latents, noise, torch.tensor([LEVEL]))
    tokens = brush.imitator.tokens(told.states)
    bank = brush.imitator.read(told.reference, LEVEL, tokens)
    with record_attention(brush.imitator.unet, size=size) as attention:
        brush.imitator(noised, LEVEL, told.mask, told.background, told.depth, tokens, bank)
    rows, columns = (given.there.visible & (given.mask[0, 0] > 0.5)).nonzero().T
    scale, found = torch.tensor([size[1] / width, size[0] / height]), []
    for k in range(0, len(rows), max(1, len(rows) // LOOKING)):
        y, x = int(rows[k]), int(columns[k])
        point = ((torch.tensor([x + 0.5, y + 0.5])) * scale).tolist()
        heat = attention.query_map(tuple(point), keys="reference", stretch=False)
        found.append(share_near(heat, (given.there.points[y, x] * scale).tolist(), NEAR * size[1]))
    return tuple(sum(values) / len(values) for values in zip(*found, strict=True))


def share_near(heat: torch.Tensor, point, radius: float) -> tuple[float, float]:
    """Of a map (H, W): the share of its sum up to ``radius`` pixels from a point (x, y), and of its area."""
    height, width = heat.shape
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    near = torch.hypot(x - point[0], y - point[1]) <= radius
    return float((heat * near).sum() / heat.sum()), float(near.float().mean())


def depth_keeps_shape() -> dict:
    """C7."""
    found: dict[str, list[float]] = {"with depth": [], "without": [], "the true picture": []}
    for name in data.clips():
        given = case(name)
        pictures = {
            "with depth": filled(name, reference="foreign", keep_shape=True),
            "without": filled(name, reference="foreign"),
            "the true picture": given.source,
        }
        for key, images in pictures.items():
            found[key].append(sum(silhouette(x, given) for x in images.split(1)) / len(images))
    return {"with depth - without, IoU": minus(found["with depth"], found["without"]), **found}


def silhouette(image: torch.Tensor, given: Case) -> float:
    """Intersection over union of the thing with as many of the hole's pixels as it has, those that look nearest."""
    hole, thing = given.mask[0, 0] > 0.5, given.thing[0, 0] > 0.5
    size = work_size(*image.shape[-2:], model().side, model().multiple)
    depth = model().depth(resize(image, size))
    nearness = functional.interpolate(depth, image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    chosen = torch.zeros_like(thing).flatten()
    chosen[torch.where(hole, nearness, -torch.inf).flatten().topk(int(thing.sum())).indices] = True
    chosen = chosen.view_as(thing)
    return float((chosen & thing).sum() / (chosen | thing).sum())


def small_or_many_fail() -> dict:
    """C8."""
    by = {kind: scores(reference=kind) for kind in ("whole", "half", "quarter", "crowded")}
    return {
        "whole - a quarter of its size, dB": minus(by["whole"], by["quarter"]),
        "half its size - the same with look-alikes, dB": minus(by["half"], by["crowded"]),
        **{f"{kind}, dB": values for kind, values in by.items()},
    }


def readings() -> dict:
    """C9."""
    paper, released = scores(), scores(of="released")
    return {
        "equation 1 - the released mix, dB": minus(paper, released),
        "equation 1, gain by the reference, dB": minus(paper, scores(attend=False)),
        "released mix, gain by the reference, dB": minus(released, scores(of="released", attend=False)),
    }


def pointing_finds() -> dict:
    """C10."""
    told, untold = ([look_near(case(name), model(of))[0] for name in data.clips()] for of in ("base", "unpointed"))
    return {
        "told - not told, near the true point": minus(told, untold),
        "told, near the true point": told,
        "not told, near the true point": untold,
        "told - not told, dB": minus(scores(of="base"), scores(of="unpointed")),
    }


@functools.cache
def texture_cases() -> tuple[TextureCase, ...]:
    """`TEXTURES` rooms that nothing has learnt from, each with one thing that takes a texture of the next room's."""
    found: list[tuple] = []  # (scene, index of its thing)
    for seed in split_seeds("validation", TEXTURE_SEEDS, 1000):
        scene = make_room(seed)
        ids = look(scene)[1]
        shares = [(ids == 1 + k).float().mean().item() for k in range(len(scene.things))]
        fit = [k for k, thing in enumerate(scene.things)
               if thing.word not in FIXED and shares[k] > LEAST_SHARE
               and {part.material for part in thing.parts} == {thing.parts[0].material}
               and thing.parts[0].material.pattern != "plain"]  # fmt: skip
        if fit:
            found.append((scene, max(fit, key=shares.__getitem__)))
        if len(found) > TEXTURES:
            break
    return tuple(texture_case(*one, *other) for one, other in itertools.pairwise(found))


def textures_transfer() -> dict:
    """C12."""
    found: dict[str, list[float]] = {}
    for given in texture_cases():
        told = {"reference": given.reference, "model": model(), "progress": False, **SAMPLING}
        both, wide_hole, width = side_by_side(given.source, given.mask, given.reference)
        colour = (given.reference * given.region).sum((2, 3), keepdim=True) / given.region.sum()  # (1, 3, 1, 1)
        ways = {
            "with depth": [inpaint(given.source, given.mask, "mimicbrush", seed=s, keep_shape=True, **told).image
                           for s in SEEDS],
            "without depth": [inpaint(given.source, given.mask, "mimicbrush", seed=s, **told).image for s in SEEDS],
            "patches": [inpaint(both, wide_hole, "patchmatch", progress=False).image[..., :width]],
            "one colour": [torch.where(given.mask > 0.5, colour, given.source)],
            "as it was": [given.source],
        }  # fmt: skip
        for way, images in ways.items():
            values = [metrics.psnr(image, given.truth, given.mask).item() for image in images]
            found.setdefault(way, []).append(sum(values) / len(values))
    others = [way for way in found if way != "with depth"]
    gains = {f"with depth - {way}, dB": minus(found["with depth"], found[way]) for way in reversed(others)}
    return {**gains, **{f"{way}, dB": values for way, values in found.items()}}


def cheaper_ways_lose() -> dict:
    """C11."""
    ours, found = scores(), {"caption only": [], "patches": [], "the same place": []}
    for name in data.clips():
        given = case(name)
        told = {"prompt": given.caption, "progress": False, **SAMPLING}
        both, wide_hole, width = side_by_side(given.source, given.mask, given.reference)
        fills = {
            "caption only": [inpaint(given.source, given.mask, "diffusion", seed=s, **told) for s in SEEDS],
            "patches": [inpaint(both, wide_hole, "patchmatch", seed=s, progress=False) for s in SEEDS],
        }
        pictures = {way: torch.cat([one.image[..., :width] for one in some]) for way, some in fills.items()}
        for way, images in (pictures | {"the same place": given.reference}).items():
            truth, hole = (x.expand(len(images), -1, -1, -1) for x in (given.source, given.mask))
            found[way].append(metrics.psnr(images, truth, hole).mean().item())
    gains = {f"MimicBrush - {way}, dB": minus(ours, values) for way, values in found.items()}
    return {**gains, "MimicBrush, dB": ours, **{f"{way}, dB": values for way, values in found.items()}}


_CHEN = "Chen et al., 2024 (MimicBrush)"
_CLIPS = (
    f"12 clips of the benchmark, frame 0 and frame {LATER}, the hole a box about a moving thing, {len(SEEDS)} seeds, "
    "128 pixels a side, PSNR in the hole. "
)
CLAIMS = (
    Claim("C1", "A reference U-Net beats image tokens alone.", f"{_CHEN}, tables 3 and 4",
          f"{_CLIPS}The bundled model against itself with the reference U-Net left out, not trained anew.",
          reference_net_helps),
    Claim("C2", "Films teach more than augmented stills when the pose changes.", f"{_CHEN}, tables 3 and 4",
          f"{_CLIPS}Two short trainings, 70 % films against stills alone.", films_beat_stills),
    Claim("C3", "Grid masks guided by keypoints beat uniform ones.", f"{_CHEN}, table 3",
          f"{_CLIPS}Two short trainings, guided by corners against half of the cells.", guided_masks_help),
    Claim("C4", "Strong augmentation helps where the reference shows something else.", f"{_CHEN}, tables 3 and 4",
          f"{_CLIPS}Two short trainings, strength 1 against 0.3; the cosine of the hole's features with those of the "
          "thing in another clip.", strength_trades),
    Claim("C5", "Places in the hole look at the right part of the reference.", "this kit's, after Chen et al., 2024",
          f"{_CLIPS}The share of attention to the reference within an eighth of its width from the true point, noised "
          f"to t = {LEVEL}, against the share of the area. The bundled model learnt it with known correspondences.",
          attention_finds),
    Claim("C7", "Depth keeps the shape.", f"{_CHEN}, section 3.2",
          f"{_CLIPS}The reference is another clip's; IoU of the true silhouette with the hole's nearest pixels.",
          depth_keeps_shape),
    Claim("C8", "A reference that shows the thing small, or look-alikes of it, breaks it.", f"{_CHEN}, limitations",
          f"{_CLIPS}The reference whole, at half and a quarter of its size, and beside three recoloured copies.",
          small_or_many_fail),
    Claim("C9", "The paper's one attention is better than the released code's half and half.",
          "the paper against its released code", f"{_CLIPS}Two trainings of equal length.", readings),
    Claim("C10", "In a short training attention finds the right place only if it is told.", "this kit's",
          f"{_CLIPS}Two short trainings, with known correspondences as a term of the loss and without; attention as in "
          "C5.", pointing_finds),
    Claim("C11", "Imitating beats a caption.", f"{_CHEN}, tables 1 and 2 ask it of other models",
          f"{_CLIPS}Against tiny-inpaint told the true caption; beside it PatchMatch from source and reference, and "
          "the reference's pixels at the hole's own place.", cheaper_ways_lose),
    Claim("C12", "A thing takes another one's texture and keeps its shape.", f"{_CHEN}, figure 1, without a truth",
          f"{TEXTURES} rooms of unseen seeds, {len(SEEDS)} seeds. The hole is a thing's silhouette, the reference a "
          "thing of another room; the truth is rendered: this thing with that one's material. PSNR in the hole, "
          "against the thing as it was; beside it one colour, the reference's mean, and PatchMatch.",
          textures_transfer),
)  # fmt: skip
