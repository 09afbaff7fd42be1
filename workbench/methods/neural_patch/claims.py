"""Claims about neural patch synthesis, measured on rendered views that nothing has learnt from, a square hole in each.

A view filled once with some settings stays filled, so that claims share what they have in common. Neighbours are found
the kit's way, by distance, with colours and coherence; N6 has the published way beside it. The minutes told at each
measurement are processor minutes of one thread, estimated before: about two hours in all.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from workbench import mask as masks
from workbench import metrics
from workbench.claims import Claim
from workbench.image import to_grey
from workbench.lenses import trials
from workbench.lenses.trials import minus
from workbench.methods import inpaint
from workbench.methods.neural_patch import RELEASED_COPIES, TextureNetwork, load_network
from workbench.methods.neural_patch.evaluation import imagined, in_box, scores

VIEWS = range(12)
"""Of `trials.held_out`: facades and rooms by turns."""
FACADES = range(0, 24, 2)
LARGE_VIEWS = range(8)
SMALL = {"side": 256, "sizes": (64, 128, 256), "iterations": 60}
LARGE = {"side": 512, "sizes": (128, 256, 512), "iterations": 50}
PUBLISHED = {"match": "ncc", "coherence": 0.0, "colour_weight": 0.0}
"""Neighbours by correlation, each for itself, and colours free."""
HOLE = 0.5
"""Side of the hole as a share of the picture's, as in the paper."""
STILL = 1.0
"""Structure that has lost at most so many dB passes for not moved."""
SUBTLE = 0.05
"""A cost in perceptual distance of at most this share passes for "very subtle"."""
FASTER = 5.0
"""From this factor on "about 6 times faster" passes for true."""


@functools.cache
def texture_network() -> TextureNetwork:
    """The bundled classifier's, loaded once."""
    return load_network("classifier")


def plain(picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A content network that knows nothing: the mean colour."""
    return inpaint(picture, mask, "mean", progress=False).image


@dataclass(frozen=True)
class Filled:
    """A fill, and processor seconds that it took."""

    image: torch.Tensor
    seconds: float


def fill(number: int, method: str = "neural_patch", setting: str = "small", **changes) -> Filled:
    """A view's hole, filled; computed once.

    Args:
        number: of the view.
        method: of the registry.
        setting: "small" or "large", see `SMALL` and `LARGE`.
        **changes: parameters of the method beside the setting's; hashable.
    """
    return _fill(number, method, setting, tuple(sorted(changes.items())))


@functools.cache
def _fill(number: int, method: str, setting: str, changes: tuple) -> Filled:
    params = dict({"small": SMALL, "large": LARGE}[setting])
    picture, mask = view(number, params.pop("side"))
    if method == "neural_patch":
        params = {"network": texture_network(), "content": imagined, "show_every": 1000, **params, **dict(changes)}
    else:
        params = dict(changes)
    start = time.process_time()
    image = inpaint(picture, mask, method, progress=False, seamless=False, **params).image
    return Filled(image, time.process_time() - start)


def view(number: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A view (1, 3, side, side) and its hole (1, 1, side, side)."""
    return trials.held_out(number, (side, side)), masks.centre((side, side), HOLE)


def each(score: Callable, numbers: Iterable[int], method="neural_patch", setting="small", **changes) -> list[float]:
    """A score of every view's fill, ``score(fill, truth, mask)``."""
    side = {"small": SMALL, "large": LARGE}[setting]["side"]
    return [float(score(fill(n, method, setting, **changes).image, *view(n, side))) for n in numbers]


# What is looked at


def distance(result: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> float:
    """Perceptual distance of the box about the hole."""
    return scores(result, truth, mask)["tiny_perceptual"]


def gradient_energy(result: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> float:
    """Gradient energy in the box about the hole over the truth's, in dB: 0 as sharp, below 0 softer."""
    return 10 * math.log10(_energy(in_box(result, mask)) / _energy(in_box(truth, mask)))


def _energy(image: torch.Tensor) -> float:
    grey = to_grey(image.double())  # (1, 1, h, w)
    return (grey.diff(dim=-1).square().mean() + grey.diff(dim=-2).square().mean()).item()


def structure(result: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> float:
    """PSNR of the hole's box as 8 x 8 blocks, each its mean colour: what is where, whatever the texture; in dB."""
    blocks = [F.adaptive_avg_pool2d(in_box(image, mask), 8) for image in (result, truth)]
    return metrics.psnr(*blocks, where="all").item()


def alignment(result: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> float:
    """Gradient similarity of the hole's box at 32 x 32: are the large edges where they were? At most 1."""
    small = [F.adaptive_avg_pool2d(in_box(image, mask), 32).clamp(0, 1) for image in (result, truth)]
    return metrics.gradient_similarity(*small, where="all").item()


# The measurements


def with_and_without(measure: Callable) -> tuple[list[float], list[float]]:
    """A measure of all views' fills, with the texture term and without it."""
    return each(measure, VIEWS), each(measure, VIEWS, texture_weight=0.0)


def texture_sharpens() -> dict:
    """N1a. 12 views, 2 settings: 6 minutes."""
    on, off = with_and_without(gradient_energy)
    return {"gradient energy, with - without, dB": minus(on, off), "gradient energy over the truth's, with, dB": on}


def texture_moves_nothing() -> dict:
    """N1b. The fills of N1a."""
    on, off = with_and_without(structure)
    change = minus(on, off)
    return {
        f"structure lost by it, below {STILL:g} dB": [STILL + value for value in change],
        "structure, with - without, dB": change,
    }


def content_holds_structure() -> dict:
    """N2. 12 views, 2 settings, one of them N1a's: 4 minutes more."""
    without = {"content": plain, "content_weight": 0.0}
    return {
        "edges in place, with - without": minus(each(alignment, VIEWS), each(alignment, VIEWS, **without)),
        "structure, with - without, dB": minus(each(structure, VIEWS), each(structure, VIEWS, **without)),
    }


def scales_help() -> dict:
    """N3. 8 views at 512 x 512, 3 levels of 50 iterations against one of 150: 20 minutes."""
    one = {"sizes": LARGE["sizes"][-1:], "iterations": len(LARGE["sizes"]) * LARGE["iterations"]}
    three_levels, one_level = ({"setting": "large", **changes} for changes in ({}, one))
    found = {
        "perceptual distance, one level - three": minus(
            each(distance, LARGE_VIEWS, **one_level), each(distance, LARGE_VIEWS, **three_levels)
        )
    }
    gained = minus(each(metrics.psnr, LARGE_VIEWS, **three_levels), each(metrics.psnr, LARGE_VIEWS, **one_level))
    return found | {"PSNR, three levels - one, dB": gained}


def one_layer_is_enough() -> dict:
    """N4. 12 views, 2 settings, one of them N1a's: 2 minutes more."""
    deeper = {"layers": texture_network().layers[-1:]}
    both, one = each(distance, VIEWS), each(distance, VIEWS, **deeper)
    return {
        f"cost in perceptual distance, below {SUBTLE:.0%}": [
            1 + SUBTLE - b / a for a, b in zip(both, one, strict=True)
        ],
        "perceptual distance, both layers": both,
        "perceptual distance, the deeper one": one,
        "PSNR, both - one, dB": minus(each(metrics.psnr, VIEWS), each(metrics.psnr, VIEWS, **deeper)),
    }


def neighbours_can_wait() -> dict:
    """N5. 12 views, 3 settings: 25 minutes."""
    seconds = {n: [fill(number, refresh=n).seconds for number in VIEWS] for n in (1, 10, 0)}
    near = {n: each(distance, VIEWS, refresh=n) for n in (1, 10, 0)}
    return {
        f"times faster, searched once a level, above {FASTER:g}": [
            a / b - FASTER for a, b in zip(seconds[1], seconds[0], strict=True)
        ],
        "times faster, every 10 iterations": [a / b for a, b in zip(seconds[1], seconds[10], strict=True)],
        "perceptual distance, once a level - every iteration": minus(near[0], near[1]),
        "perceptual distance, every 10 - every iteration": minus(near[10], near[1]),
    }


def features_beat_colours() -> dict:
    """N6. 12 views, neural patches as in N1a and as published, and PatchMatch: 2 minutes more."""
    copied, told = each(distance, VIEWS, "patchmatch"), "perceptual distance, PatchMatch - neural"
    found = {told: minus(copied, each(distance, VIEWS))}
    found[f"{told} as published"] = minus(copied, each(distance, VIEWS, **PUBLISHED))
    for metric in (metrics.mean_l1, metrics.mean_l2):
        lost = minus(each(metric, VIEWS, "patchmatch"), each(metric, VIEWS))
        found[f"{metric.__name__}, PatchMatch - neural"] = lost
    for metric in (metrics.psnr, metrics.gradient_similarity):
        found[f"{metric.__name__}, neural - PatchMatch"] = minus(each(metric, VIEWS), each(metric, VIEWS, "patchmatch"))
    return found


def lowest_error() -> dict:
    """N7. 12 facades at 512 x 512, three methods: 12 minutes, 3 of them to render."""
    methods = {"neural patch": "neural_patch", "context encoder": "context_encoder", "patchmatch": "patchmatch"}
    errors = {name: each(metrics.mean_l1, FACADES, method, "large") for name, method in methods.items()}
    hardest = min(list(errors)[1:], key=lambda name: sum(errors[name]))
    return {
        f"mean L1, {hardest} - neural patch": minus(errors[hardest], errors["neural patch"]),
        **{f"mean L1, {name}": values for name, values in errors.items()},
        **{f"PSNR, {name}, dB": each(metrics.psnr, FACADES, method, "large") for name, method in methods.items()},
    }


def copies_help() -> dict:
    """N9. 12 views, 2 settings, one of them N1a's: 20 minutes more."""
    turned = {"copies": RELEASED_COPIES}
    return {
        "perceptual distance, 1 copy - 9": minus(each(distance, VIEWS), each(distance, VIEWS, **turned)),
        "PSNR, 9 copies - 1, dB": minus(each(metrics.psnr, VIEWS, **turned), each(metrics.psnr, VIEWS)),
    }


_YANG = "Yang et al., CVPR 2017 (neural patch synthesis)"


def _on(views: Iterable[int], setting: dict, kind: str = "rendered views") -> str:
    return (
        f"{len(list(views))} {kind} of held-out seeds, {setting['side']} x {setting['side']}, hole of half the side, "
        f"levels {', '.join(map(str, setting['sizes']))} of {setting['iterations']} iterations, bundled classifier and "
        "adversarial Context Encoder. "
    )


_SMALL, _LARGE = _on(VIEWS, SMALL), _on(LARGE_VIEWS, LARGE)
_FACADES = _on(FACADES, LARGE, "rendered facades")
CLAIMS = (
    Claim("N1a", "The texture term sharpens a blurry content prediction ...", f"{_YANG}, abstract",
          f"{_SMALL}Gradient energy in the hole with the texture term and without.", texture_sharpens),
    Claim("N1b", "... without moving structure.", f"{_YANG}, abstract",
          f"{_SMALL}Structure, PSNR of the hole as 8 x 8 blocks: less than {STILL:g} dB lost.", texture_moves_nothing),
    Claim("N2", "Without the content term structure breaks.", f"{_YANG}, its ablation, as remembered",
          f"{_SMALL}Gradient similarity of the hole at 32 x 32, with the content term and without it and its "
          "prediction (beginning with the mean colour).", content_holds_structure),
    Claim("N3", "Several scales beat one at 512 pixels.", f"{_YANG}, abstract",
          f"{_LARGE}Against one level of as many iterations in all; perceptual distance by the bundled classifier.",
          scales_help),
    Claim("N4", "Leaving out the lower of the two layers costs very little.", f"{_YANG}, its released code's README",
          f"{_SMALL}Both layers against the deeper one alone: the rise in perceptual distance below {SUBTLE:.0%}.",
          one_layer_is_enough),
    Claim("N5", "Neighbours searched once a level make it about 6 times faster, at a subtle loss.",
          f"{_YANG}, its released code's README, which also drops a layer",
          f"{_SMALL}Processor time with a search every iteration over that with one a level, above {FASTER:g}. The "
          "verdict is about time; beside it perceptual distance.", neighbours_can_wait),
    Claim("N6", "Patches of a middle layer's features beat patches of colours.", f"{_YANG}, abstract",
          f"{_SMALL}Against PatchMatch; perceptual distance by the bundled classifier, and errors; as published: by "
          "correlation, without colours and coherence.",
          features_beat_colours),
    Claim("N7", "Lower error than the Context Encoder and PatchMatch on facades.", f"{_YANG}, its table, as remembered",
          f"{_FACADES}Mean L1 in the hole, against the better of the two.", lowest_error),
    Claim("N9", "Turned and scaled copies of the known part help.", f"{_YANG}, default of the released code",
          f"{_SMALL}Nine copies (-7.5, 0, 7.5 degrees; 1 / 1.05, 1, 1.05) against one.", copies_help),
)  # fmt: skip
