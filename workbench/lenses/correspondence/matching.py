"""One function for every way to match two pictures."""

from dataclasses import replace

import torch

from workbench import check
from workbench.lenses.correspondence.dense import _check_mask, cell_middles, feature_pair, inside
from workbench.lenses.correspondence.dift import check_one
from workbench.lenses.correspondence.geometry import estimate_geometry
from workbench.lenses.correspondence.learned import disk_features, load_matcher, run_matcher
from workbench.lenses.correspondence.matches import Matches
from workbench.lenses.correspondence.nearest import nearest_pairs
from workbench.lenses.correspondence.sift import sift_features

OPTIONS = {
    "sift": ("contrast",),
    "dift": ("pipe", "t", "block", "ensemble", "prompt", "side", "refine"),
    "features": ("features", "refine"),
    "loftr": ("weights",),
    "disk": ("weights", "count"),
    "kornia": ("matcher",),
}
"""Method -> what else `match` takes for it."""
RATIO = 0.8
"""Lowe's threshold for descriptors."""


def match(
    image_a: torch.Tensor,
    image_b: torch.Tensor,
    method: str = "sift",
    *,
    points=None,
    mutual: bool = True,
    ratio: float | None = None,
    mask_a: torch.Tensor | None = None,
    mask_b: torch.Tensor | None = None,
    limit: int | None = None,
    ransac: str | None = None,
    threshold: float = 3.0,
    seed: int = 0,
    **options,
) -> Matches:
    """Points of one picture and where they are in another.

    - "sift": keypoints with gradient descriptors; needs no weights. Option contrast, see `sift_features`.
    - "dift": features of a diffusion model. Options pipe, t, block, ensemble, prompt, side, see `feature_pair` and
      `dift_features`. Matches the middles of the feature map's cells, and then moves each end in b to the best place
      within a cell (``refine=False`` leaves it).
    - "features": the same with a function of your own: features, picture (1, 3, H, W) -> (1, C, h, w).
    - "loftr", "disk": trained matchers. Option weights, a file or folder; nothing is ever downloaded.
    - "kornia": any matcher with kornia's interface, given as matcher; see `run_matcher`.

    Args:
        image_a, image_b: (1, 3, H, W) in [0, 1]; sizes may differ.
        method: see above.
        points: for "dift" and "features": (N, 2) as (x, y) in pixels of a. Each gets its best pixel of b (the protocol
            of DIFT's evaluation), and mutual then asks that the way back leads to the cell it came from.
        mutual: keeps a pair only if each is the other's nearest neighbour. LoFTR and others decide that themselves.
        ratio: keeps a pair only if the nearest descriptor is at most so many times as far as the second nearest; None
            takes 0.8 for "sift" and "disk", no test else; 1 is no test.
        mask_a, mask_b: (1, 1, H, W): only points where it is 1, as in the filled region. Descriptors still see
            what lies about their point.
        limit: at most so many matches, the most confident.
        ransac: "homography" or "fundamental" also estimates that geometry; all matches stay, and ``inliers`` tells
            which agree.
        threshold: of RANSAC, in pixels.
        seed: of RANSAC, and of DIFT's noise.
        options: see above.

    Returns:
        `Matches`, most confident first: points_a (N, 2), points_b (N, 2), confidence (N,), on the device of image_a.
        With ``points`` and ``mutual=False``: one for each point, in their order.

    Raises:
        ValueError: shapes, masks, or an unknown method.
        TypeError: an option that the method has not.
        NotAvailable: weights that are not at hand; the message says what to put where.

    Source: Lowe 2004; Tang et al. 2023 (DIFT); Sun et al. 2021 (LoFTR).

    Example:
        >>> found = match(image_a, image_b, ransac="fundamental")
        >>> found.points_a[found.inliers].shape
    """
    check_one(image_a, "image_a")
    check_one(image_b, "image_b")
    _check_mask(mask_a, image_a, "mask_a", "image_a")
    _check_mask(mask_b, image_b, "mask_b", "image_b")
    _check_options(method, points, ratio, options)
    sizes = tuple(image_a.shape[-2:]), tuple(image_b.shape[-2:])
    if method in ("sift", "disk"):
        describe = sift_features if method == "sift" else disk_features
        described = [
            _within(*(x.to(image_a.device) for x in describe(image, **options)), mask)
            for image, mask in ((image_a, mask_a), (image_b, mask_b))
        ]
        found = _match_described(*described, mutual, RATIO if ratio is None else ratio)
    elif method in ("dift", "features"):
        refine = options.pop("refine", True)
        if method == "dift":
            options["seed"] = seed
        pair = feature_pair(image_a, image_b, **options)
        if points is not None:
            found = _match_points(pair, points, mutual, mask_a, mask_b)
        else:
            found = _match_cells(pair, mutual, ratio, mask_a, mask_b, refine)
    else:
        matcher = options["matcher"] if method == "kornia" else load_matcher(method, **options)
        found = _masked(*run_matcher(matcher, image_a, image_b), mask_a, mask_b)
    matches = Matches(*(x.to(image_a.device) for x in found), method, *sizes)
    if points is None or mutual or limit is not None:
        matches = matches.surest(len(matches) if limit is None else limit)
    if ransac is None:
        return matches
    fitted = estimate_geometry(matches.points_a, matches.points_b, ransac, threshold=threshold, seed=seed)
    return replace(matches, geometry=replace(fitted, inliers=fitted.inliers.to(image_a.device)))


def _check_options(method, points, ratio, options: dict) -> None:
    known = OPTIONS[check.choice(method, "method", OPTIONS)]
    for name in options:
        if name not in known:
            owners = [m for m, names in OPTIONS.items() if name in names]
            hint = f"It belongs to {' and '.join(owners)}." if owners else f"{method} has: {', '.join(known)}."
            raise TypeError(f"{name} is no option of method {method!r}. {hint}")
    if method == "kornia" and not callable(options.get("matcher")):
        raise TypeError('method "kornia" needs matcher=, such as kornia.feature.LoFTR(None) with weights loaded.')
    if method == "features" and not callable(options.get("features")):
        raise TypeError('method "features" needs features=, a function (1, 3, H, W) -> (1, C, h, w).')
    if points is not None and method not in ("dift", "features"):
        raise ValueError(
            f'points given to method {method!r}, which finds its own. Only "dift" and "features" take them.'
        )
    if points is not None and ratio is not None:
        raise ValueError("ratio given beside points: among all pixels the second nearest lies beside the nearest.")
    if ratio is not None and method in ("loftr", "kornia"):
        raise ValueError(f"ratio given to method {method!r}, which decides by itself. Use matches.above(confidence).")


def _match_described(a, b, mutual: bool, ratio: float):
    """Pairs of described points (points (N, 2), descriptors (N, D)); confidence 1 - ratio."""
    pairs = nearest_pairs(a[1] @ b[1].T, mutual=mutual, ratio=ratio)
    return a[0][pairs.index_a], b[0][pairs.index_b], 1 - pairs.ratio


def _match_cells(pair, mutual: bool, ratio: float | None, mask_a, mask_b, refine: bool):
    """Pairs of cells, compared all with all."""
    similarity = pair.similarity()  # (h w, h' w')
    places = []
    for features, size, mask in (
        (pair.features_a, pair.size_a, mask_a),
        (pair.features_b, pair.size_b, mask_b),
    ):
        middles = cell_middles(features.shape[-2:], size).to(similarity.device)
        chosen = torch.arange(len(middles), device=similarity.device)
        places.append((middles, chosen if mask is None else chosen[inside(middles, mask)]))
    (middles_a, chosen_a), (middles_b, chosen_b) = places
    pairs = nearest_pairs(similarity[chosen_a][:, chosen_b], mutual=mutual, ratio=ratio)
    points_a, points_b = middles_a[chosen_a[pairs.index_a]], middles_b[chosen_b[pairs.index_b]]
    similarity = pairs.similarity
    if refine and len(points_a):
        points_b, similarity = pair.refine(points_a, points_b, mask_b=mask_b)
    return points_a, points_b, similarity.clamp(0, 1)


def _match_points(pair, points, mutual: bool, mask_a, mask_b):
    """The best pixel of b for each point of a."""
    points_a = pair._points(points, pair.size_a)
    if mask_a is not None:
        points_a = points_a[inside(points_a, mask_a)]
    points_b, similarity = pair.best(points_a, mask_b=mask_b)
    if mutual and len(points_a):
        back, _ = pair.swapped().best(points_b, per="cells", mask_b=mask_a)
        cell = back.new_tensor([n / m for n, m in zip(pair.size_a[::-1], pair.features_a.shape[:1:-1], strict=True)])
        home = ((back - points_a).abs() <= cell / 2 + 1e-4).all(1)
        points_a, points_b, similarity = points_a[home], points_b[home], similarity[home]
    return points_a, points_b, similarity.clamp(0, 1)


def _within(points: torch.Tensor, descriptors: torch.Tensor, mask):
    """The described points where the mask is 1."""
    keep = slice(None) if mask is None else inside(points, mask)
    return points[keep], descriptors[keep]


def _masked(points_a, points_b, confidence, mask_a, mask_b):
    keep = torch.ones_like(confidence, dtype=torch.bool)
    for points, mask in ((points_a, mask_a), (points_b, mask_b)):
        if mask is not None:
            keep &= inside(points, mask)
    return points_a[keep], points_b[keep], confidence[keep]
