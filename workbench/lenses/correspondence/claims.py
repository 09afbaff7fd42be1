"""Claims about DIFT's features, measured with tiny-t2i on the rendered benchmark.

Two kinds of truth: the same scene from elsewhere, and other things of the same kind.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional

from workbench import data
from workbench.claims import Claim
from workbench.image import load_image, resize
from workbench.lenses.correspondence import Pair, evaluate, feature_pair, scene_pair
from workbench.lenses.correspondence.dense import cell_middles
from workbench.lenses.correspondence.matching import match
from workbench.lenses.trials import kinds_of, latents_of, minus, model
from workbench.world.geometry import Correspondences

TIMES = (1, 101, 261, 501, 801)
ANSWERS = 100
"""Points asked for in a pair of pictures."""
PHOTOGRAPHS = ("coffee", "chelsea", "astronaut", "rocket", "china", "flower", "camera", "hubble")


@functools.cache
def _scene_pairs() -> list[Pair]:
    """The first reference and the target of each scene."""
    return [scene_pair(name) for name in data.scenes()]


def _shares(settings: dict, alpha: float = 0.05) -> list[float]:
    """Share of right points of each scene pair: within alpha of the picture's side."""
    found = []
    for pair in _scene_pairs():
        row = evaluate([pair], {"one": settings}, alpha=alpha, points=ANSWERS, rounds=1).rows[0]
        found.append(row["pck"])
    return found


def _strangers() -> Iterator[tuple]:
    """Two scenes of one kind after the other, each with the next: what is alike in them is of a kind, not the same."""
    for kind in ("room", "facade"):
        scenes = [scene for scene in map(data.scene, data.scenes()) if scene.kind == kind]
        yield from zip(scenes, [*scenes[1:], *scenes[:1]], strict=True)


def _same_kind(answers: Callable) -> list[float]:
    """Share, for each pair of strangers, of points whose answer lies on something of the same kind.

    Points are drawn evenly over the kinds that both pictures show, so that walls do not decide.

    Args:
        answers: (image_a, image_b, points (N, 2)) -> points (N, 2), NaN without an answer.
    """
    shares = []
    for number, (a, b) in enumerate(_strangers()):
        (kinds_a, words_a), (kinds_b, words_b) = kinds_of(a), kinds_of(b)
        words = sorted(set(words_a) & set(words_b))
        generator = torch.Generator().manual_seed(number)
        height, width = kinds_a.shape
        middles = cell_middles((height, width), (height, width))
        points, wanted = [], []
        for word in words:
            there = (kinds_a == words_a.index(word)).flatten().nonzero()[:, 0]
            if len(there) and (kinds_b == words_b.index(word)).any():
                some = there[torch.randperm(len(there), generator=generator)[: ANSWERS // len(words)]]
                points.append(middles[some])
                wanted += [words_b.index(word)] * len(some)
        found = answers(a.target, b.target, torch.cat(points))
        right = [
            bool(np.isfinite([x, y]).all()) and int(kinds_b[min(int(y), height - 1), min(int(x), width - 1)]) == kind
            for (x, y), kind in zip(found.tolist(), wanted, strict=True)
        ]
        shares.append(float(np.mean(right)))
    return shares


def _dift(**settings) -> Callable:
    def answers(image_a, image_b, points):
        return feature_pair(image_a, image_b, pipe=model(), **settings).best(points)[0]

    return answers


def _sift_nearest(image_a, image_b, points) -> torch.Tensor:
    """Where the SIFT match nearest to each point leads, if one starts within 4 pixels; else NaN."""
    matches = match(image_a, image_b, "sift")
    if not len(matches.points_a):
        return torch.full_like(points, torch.nan)
    distance, nearest = torch.cdist(points.float(), matches.points_a.float()).min(1)
    found = matches.points_b[nearest] + points - matches.points_a[nearest]
    return torch.where((distance <= 4)[:, None], found, torch.nan)


def meaning_by_time() -> dict:
    """E1, first half."""
    shares = {t: _same_kind(_dift(t=t)) for t in TIMES}
    middle = [np.mean([shares[t][k] for t in (101, 261, 501)]) for k in range(len(shares[1]))]
    ends = [np.mean([shares[t][k] for t in (1, 801)]) for k in range(len(shares[1]))]
    return {"middle - ends": minus(middle, ends), **{f"t = {t}": shares[t] for t in TIMES}}


def geometry_by_time() -> dict:
    """E1, second half."""
    shares = {t: _shares({"method": "dift", "pipe": model(), "t": t, "block": 2}) for t in TIMES}
    later = [np.mean([shares[t][k] for t in TIMES[2:]]) for k in range(len(shares[1]))]
    return {"small - large t": minus(shares[1], later), **{f"t = {t}": shares[t] for t in TIMES}}


def blocks() -> dict:
    """E2."""
    shares = {block: _same_kind(_dift(t=261, block=block)) for block in range(len(model().unet.up_blocks))}
    other = max((block for block in shares if block != 1), key=lambda block: np.mean(shares[block]))
    return {f"block 1 - block {other}": minus(shares[1], shares[other]), **{f"block {b}": s for b, s in shares.items()}}


def ensembles() -> dict:
    """E3."""
    shares = {count: _same_kind(_dift(t=261, ensemble=count)) for count in (1, 8)}
    return {"8 - 1": minus(shares[8], shares[1]), **{f"ensemble {n}": s for n, s in shares.items()}}


def homographies() -> dict:
    """E4, first half."""
    errors: dict[str, list[float]] = {"dift": [], "sift": []}
    for pair in _warped_pairs():
        middles = cell_middles(tuple(pair.truth.visible.shape), tuple(pair.truth.visible.shape))
        truth = pair.truth.points.view(-1, 2)
        settings = {"dift": {"method": "dift", "pipe": model(), "t": 1, "block": 2}, "sift": {"method": "sift"}}
        for name, options in settings.items():
            found = match(pair.image_a, pair.image_b, **options)
            nearest = torch.cdist(found.points_a.float(), middles).argmin(1)
            there = truth[nearest] + found.points_a - middles[nearest]
            visible = pair.truth.visible.flatten()[nearest]
            errors[name].append(float((found.points_b - there).norm(dim=1)[visible].median()))
    return {"dift - sift, px": minus(errors["dift"], errors["sift"]), **{f"{n}, px": e for n, e in errors.items()}}


def _warped_pairs() -> Iterator[Pair]:
    """Crops of photographs and their pictures under a known homography, 128 x 128."""
    for seed, name in enumerate(PHOTOGRAPHS):
        photo = resize(load_image(name)[..., :400, :400], (128, 128))
        rng = np.random.default_rng(seed)
        matrix = np.eye(3) + np.array([[0.06, 0.06, 4], [0.06, 0.06, 4], [4e-4, 4e-4, 0]]) * rng.uniform(-1, 1, (3, 3))
        forth = torch.tensor(matrix, dtype=torch.float32)
        middles = cell_middles((128, 128), (128, 128))  # (N, 2)
        moved = _projected(forth, middles)
        back = _projected(forth.inverse(), middles) / 64 - 1
        warped = functional.grid_sample(photo, back.view(1, 128, 128, 2), align_corners=False, padding_mode="border")
        inside = ((moved >= 0) & (moved < 128)).all(1).view(128, 128)
        yield Pair(name, photo, warped.clamp(0, 1), Correspondences(moved.view(128, 128, 2), inside), "homography")


def _projected(matrix: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    found = torch.cat([points, torch.ones_like(points[:, :1])], 1) @ matrix.T
    return found[:, :2] / found[:, 2:]


def instances() -> dict:
    """E4, second half."""
    dift, sift = _same_kind(_dift(t=261)), _same_kind(_sift_nearest)
    return {"dift - sift": minus(dift, sift), "dift": dift, "sift": sift}


def latents_alone() -> dict:
    """E5."""

    def answers(image_a, image_b, points):
        return feature_pair(image_a, image_b, features=latents_of).best(points)[0]

    dift, alone = _same_kind(_dift(t=261)), _same_kind(answers)
    return {"dift - latents": minus(dift, alone), "dift": dift, "latents": alone}


_TANG = "Tang et al., NeurIPS 2023 (DIFT)"
_PAIRS = (
    "Pairs of different scenes of the benchmark; points on things of a kind that both show; right is an answer on the "
    "same kind. tiny-t2i, 128 x 128."
)
CLAIMS = (
    Claim("E1a", "Features of a middle timestep find meaning best.", _TANG,
          f"{_PAIRS} Mean over t = 101, 261, 501 against that over t = 1, 801.", meaning_by_time),
    Claim("E1b", "Features of a small timestep find the same point best.", _TANG,
          "First reference and target of the 24 scenes; share of points within 5 % of the side. t = 1 against the mean "
          "over t = 261, 501, 801, last block.", geometry_by_time),
    Claim("E2", "Up block 1 finds meaning better than the others.", "DIFT's code, issue 24",
          f"{_PAIRS} Block 1 against the best of the others, at t = 261.", blocks),
    Claim("E3", "The mean over 8 noises is a little better than one.", _TANG, f"{_PAIRS} t = 261, block 1.", ensembles),
    Claim("E4a", "SIFT is more exact than DIFT under a known homography.", _TANG,
          "8 photographs and their pictures under mild homographies, 128 x 128: median error of each method's own "
          "matches; DIFT at t = 1, last block.", homographies),
    Claim("E4b", "Across instances DIFT finds what SIFT does not.", _TANG,
          f"{_PAIRS} SIFT answers with its match within 4 px; without one it is wrong.", instances),
    Claim("E5", "The autoencoder's latents alone find far less.", _TANG, _PAIRS, latents_alone),
)  # fmt: skip
