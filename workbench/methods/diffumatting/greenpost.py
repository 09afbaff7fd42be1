"""From a picture on green and its coarse matte to the fine one: GreenPost, and what it is compared with.

GreenPost: the background's colour by k-means, the clean plate, a refiner that gets picture and plate. Beside it chroma
key, the naive way, and closed-form matting and multi-level foregrounds, where PyMatting is installed.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from workbench import check
from workbench.methods.diffumatting.networks import GreenRefiner, refine

BACKGROUND = 0.1
"""Coarse alpha up to which a pixel counts as background."""
LEAST = 0.05
"""Share of the picture that the background's colour is measured on at least: else the pixels of the least alpha."""
MOST = 20_000
"""Pixels that k-means looks at."""
REACH = 0.02
"""The plate is filled this share of the shorter side farther than the coarse matte reaches."""


@dataclass(frozen=True)
class GreenPost:
    """What GreenPost made of a picture.

    Args:
        alpha: (1, 1, H, W) in [0, 1].
        foreground: (1, 3, H, W) in [0, 1], not premultiplied.
        colour: of the background, (r, g, b).
        plate: (1, 3, H, W), the picture without the object.
        error: (1, 1, h, w), where the refiner's base believed to be wrong.
        mended: (1, 1, H, W), 1 where it then worked at full size.
    """

    alpha: torch.Tensor
    foreground: torch.Tensor
    colour: tuple[float, float, float]
    plate: torch.Tensor = field(repr=False)
    error: torch.Tensor = field(repr=False)
    mended: torch.Tensor = field(repr=False)


def green_post(
    image: torch.Tensor, coarse_alpha: torch.Tensor, refiner: GreenRefiner, *, share: float = 0.25, seed: int = 0
) -> GreenPost:
    """The fine matte of a picture on one colour: k-means, clean plate, refinement.

    Args:
        image: (1, 3, H, W) in [0, 1], any size.
        coarse_alpha: (1, 1, H, W), the matting head's.
        refiner: trained.
        share: of 4 x 4 cells that are mended at full size.
        seed: of k-means.

    Source: DiffuMatting (Hu et al., ECCV 2024), GreenPost.

    Example:
        >>> found = green_post(image, coarse_alpha, load_refiner())
    """
    colour = background_colour(image, coarse_alpha, seed=seed)
    plate = clean_plate(image, coarse_alpha, colour)
    found = refine(refiner, image, plate, share)
    return GreenPost(found.alpha, found.foreground, colour, plate, found.error, found.mended)


def background_colour(
    image: torch.Tensor, coarse_alpha: torch.Tensor, k: int = 3, seed: int = 0
) -> tuple[float, float, float]:
    """The colour most of the coarse background has: the largest of k clusters.

    Args:
        image: (1, 3, H, W).
        coarse_alpha: (1, 1, H, W). Where nearly all of it is object, the pixels with the least alpha are asked.
        k: clusters, fewer where there are fewer colours. One would take in the object's rim and its shadow.
        seed: of k-means.

    Source: DiffuMatting: k-means on the region that the coarse mask gives; k is ours.
    """
    _check_one(image, coarse_alpha, "coarse_alpha")
    check.integer(k, "k", 1)
    alpha = coarse_alpha[0, 0].flatten()
    limit = max(BACKGROUND, torch.quantile(alpha[:: max(1, len(alpha) // MOST)].double(), LEAST).item())
    pixels = image[0].flatten(1).T[alpha <= limit + 1e-6]  # (N, 3)
    centres, counts = k_means(pixels, k, seed)
    return tuple(float(v) for v in centres[int(np.argmax(counts))])


def k_means(pixels: torch.Tensor, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Centres (k, C) of clusters of colours (N, C) and how many pixels each has.

    At most about `MOST` pixels, evenly picked, are used.

    Source: Lloyd 1982; Arthur and Vassilvitskii, 2007 (k-means++), scikit-learn's.
    """
    from sklearn.cluster import KMeans

    points = pixels[:: max(1, len(pixels) // MOST)].double().cpu().numpy()
    k = min(k, len(np.unique(points.round(6), axis=0)))
    found = KMeans(k, init="k-means++", n_init=2, random_state=check.seed(seed) % 2**32).fit(points)
    return found.cluster_centers_, np.bincount(found.labels_, minlength=k)


def clean_plate(image: torch.Tensor, coarse_alpha: torch.Tensor, colour, reach: int | None = None) -> torch.Tensor:
    """The background as if nothing stood before it: the colour where the object is or may be, the picture elsewhere.

    Args:
        image: (1, 3, H, W).
        coarse_alpha: (1, 1, H, W).
        colour: (r, g, b) in [0, 1].
        reach: pixels that are filled round what the coarse matte takes for object; None takes `REACH`.

    Source: DiffuMatting: the colour "fills the foreground to make the clean plate".
    """
    _check_one(image, coarse_alpha, "coarse_alpha")
    reach = max(1, round(REACH * min(image.shape[-2:]))) if reach is None else check.integer(reach, "reach", 0)
    near = functional.max_pool2d(coarse_alpha, 2 * reach + 1, 1, reach)  # (1, 1, H, W)
    return torch.where(near > BACKGROUND, flat_colour(colour, image), image)


# What it is compared with


def chroma_key(image: torch.Tensor, screen=(0.0, 1.0, 0.0)) -> tuple[torch.Tensor, torch.Tensor]:
    """Alpha by how green a pixel is, the naive baseline.

    alpha = 1 - d(C) / d(screen) in [0, 1], d(r, g, b) = g - max(r, b); F = (C - (1 - alpha) screen) / alpha, its green
    cut to the larger of red and blue (despill).

    Args:
        image: (B, 3, H, W) in [0, 1].
        screen: (r, g, b), greener than red and blue.

    Returns:
        alpha (B, 1, H, W) and foreground (B, 3, H, W).

    Raises:
        ValueError: a screen that is not green.

    Source: the colour difference of Vlahos' keyers (Smith and Blinn, SIGGRAPH 1996). What is green itself goes.
    """
    check.image(image)
    key = flat_colour(screen, image)  # (1, 3, 1, 1)
    strength = _greenness(key).item()
    if strength <= 0:
        raise ValueError(f"screen is {tuple(screen)}, expected a green: its second number the largest.")
    alpha = 1 - (_greenness(image) / strength).clamp(0, 1)  # (B, 1, H, W)
    foreground = ((image - (1 - alpha) * key) / alpha.clamp(min=1e-3)).clamp(0, 1)
    r, g, b = foreground.split(1, 1)
    return alpha, torch.cat([r, torch.minimum(g, torch.maximum(r, b)), b], 1)


def _greenness(image: torch.Tensor) -> torch.Tensor:
    """g - max(r, b), (B, 1, H, W)."""
    return image[:, 1:2] - torch.maximum(image[:, :1], image[:, 2:])


def closed_form(image: torch.Tensor, trimap: torch.Tensor) -> torch.Tensor:
    """Closed-form matting by PyMatting.

    Args:
        image: (1, 3, H, W).
        trimap: (1, 1, H, W) of 0, 0.5, 1; something known of both.

    Returns:
        (1, 1, H, W) in [0, 1].

    Raises:
        NotAvailable: PyMatting is not installed.
        ValueError: a trimap without known foreground or background.

    Source: Levin, Lischinski and Weiss, PAMI 2008.
    """
    _check_one(image, check.trimap(trimap, like=image), "trimap")
    if not (trimap == 0).any() or not (trimap == 1).any():
        raise ValueError("trimap lacks known background (0) or foreground (1), expected some of both.")
    solve = _pymatting().estimate_alpha_cf
    alpha = solve(_channels_last(image), trimap[0, 0].double().cpu().numpy())
    return torch.from_numpy(np.array(alpha)).to(image)[None, None].clamp(0, 1)


def estimate_foreground(image: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """The object's own colours by PyMatting's multi-level solver, (1, 3, H, W).

    Args:
        image: (1, 3, H, W).
        alpha: (1, 1, H, W).

    Raises:
        NotAvailable: PyMatting is not installed.

    Source: Germer et al., ICPR 2020, "Fast Multi-Level Foreground Estimation".
    """
    _check_one(image, alpha, "alpha")
    found = _pymatting().estimate_foreground_ml(_channels_last(image), alpha[0, 0].double().cpu().numpy())
    return torch.from_numpy(np.array(found)).permute(2, 0, 1)[None].to(image).clamp(0, 1)


def apply_trimap(alpha: torch.Tensor, trimap: torch.Tensor) -> torch.Tensor:
    """A matte with what somebody knows better: 1 and 0 where the trimap says so, itself where that is 0.5.

    The mask editor's strokes become a trimap, the trimap a matte; nothing here knows of widgets.

    Args:
        alpha: (B, 1, H, W).
        trimap: (1 or B, 1, H, W) of 0, 0.5, 1.
    """
    check.alpha(alpha)
    trimap = check.trimap(trimap, like=alpha).to(alpha)
    return torch.where(trimap == 0.5, alpha, trimap.expand_as(alpha))


# What they share


def _check_one(image: torch.Tensor, other: torch.Tensor, name: str) -> None:
    """One picture and one matte of its size."""
    check.image(image)
    check.alpha(other, name)
    check.same_size(other, image, name, "image")
    if len(image) != 1 or len(other) != 1:
        raise ValueError(
            f"image holds {len(image)} pictures and {name} {len(other)}, expected one. Loop over the batch."
        )


def flat_colour(colour, like: torch.Tensor) -> torch.Tensor:
    """(r, g, b) as (1, 3, 1, 1)."""
    values = [check.number(v, "a colour's part", 0, 1) for v in colour]
    if len(values) != 3:
        raise ValueError(f"colour has {len(values)} numbers, expected (r, g, b) in [0, 1].")
    return like.new_tensor(values).view(1, 3, 1, 1)


def _channels_last(image: torch.Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).double().cpu().numpy()  # (H, W, 3)


def _pymatting():
    try:
        import pymatting
    except ImportError as error:
        raise check.NotAvailable(
            f"pymatting cannot be imported here ({error}). Install it with: pip install pymatting. Without it there "
            "are green_post and chroma_key."
        ) from None
    return pymatting
