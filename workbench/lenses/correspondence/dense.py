"""Correspondence everywhere: features of both pictures, compared place by place."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from workbench import check
from workbench.lenses.correspondence.dift import Dift, check_one
from workbench.lenses.features import check_map

PER = ("cells", "pixels")
"""What places are: cells of the feature map (fast), or pixels, with features interpolated between the cells."""
ROWS, COLUMNS = 4096, 8192
"""So many places of each picture are compared at once: 128 MiB of similarities."""


@dataclass(frozen=True, eq=False)
class Field:
    """The best match of every place of the first picture.

    Args:
        points: (h, w, 2) float32: (x, y) in pixels of the second picture; h x w cells or pixels of the first.
        similarity: (h, w), cosine in [-1, 1].
        size_a, size_b: (H, W) of the pictures.
    """

    points: torch.Tensor = field(repr=False)
    similarity: torch.Tensor = field(repr=False)
    size_a: tuple[int, int]
    size_b: tuple[int, int]

    @property
    def offsets(self) -> torch.Tensor:
        """How far each place moved, (1, 2, h, w): x, y in pixels; `workbench.plot.show_offsets` paints it."""
        here = cell_middles(self.similarity.shape, self.size_a).to(self.points)  # (h w, 2)
        return (self.points - here.view_as(self.points)).permute(2, 0, 1)[None]

    def __repr__(self) -> str:
        h, w = self.similarity.shape
        return f"Field({h} x {w} places, median similarity {self.similarity.median():.2f})"


@dataclass(frozen=True, eq=False)
class FeaturePair:
    """Feature maps of two pictures, ready for questions: computed once, asked often.

    Args:
        features_a, features_b: (1, C, h, w), each covering its picture evenly.
        size_a, size_b: (H, W) of the pictures, in whose pixels all points are told.
    """

    features_a: torch.Tensor = field(repr=False)
    features_b: torch.Tensor = field(repr=False)
    size_a: tuple[int, int]
    size_b: tuple[int, int]

    def __post_init__(self):
        a, b = check_map(self.features_a, "features_a"), check_map(self.features_b, "features_b")
        if a.shape[1] != b.shape[1]:
            raise ValueError(f"features have {a.shape[1]} and {b.shape[1]} channels, expected the same layer's.")

    def swapped(self) -> "FeaturePair":
        """The same pair with the pictures exchanged."""
        return FeaturePair(self.features_b, self.features_a, self.size_b, self.size_a)

    def similarity(self) -> torch.Tensor:
        """Cosines of every cell of a with every cell of b: (h w, h' w')."""
        a, b = (functional.normalize(f[0].float().flatten(1), dim=0) for f in (self.features_a, self.features_b))
        return a.T @ b

    def heat_map(self, point) -> torch.Tensor:
        """How similar each pixel of b is to one point of a.

        Args:
            point: (x, y) in pixels of a.

        Returns:
            (H, W) of b: cosine in [-1, 1].
        """
        asked = _unit(sample_map(self.features_a, self._points([point], self.size_a), self.size_a))  # (1, C)
        parts = [_unit(places) @ asked[0] for _, places in self._places_b("pixels")]
        return torch.cat(parts).reshape(self.size_b)

    def best(self, points, *, per: str = "pixels", mask_b: torch.Tensor | None = None):
        """The place of b that is most similar to each of some points of a.

        Args:
            points: (N, 2) as (x, y) in pixels of a.
            per: "pixels" looks at every pixel of b, "cells" at the middles of its cells.
            mask_b: (1, 1, H, W): only places where it is 1.

        Returns:
            Points (N, 2) in pixels of b, and their similarity (N,), cosine in [-1, 1].
        """
        check.choice(per, "per", PER)
        points = self._points(points, self.size_a)
        asked = _unit(sample_map(self.features_a, points, self.size_a))  # (N, C)
        best = asked.new_full((len(asked),), -torch.inf)
        where = asked.new_zeros(len(asked), 2)
        for middles, places in self._places_b(per, mask_b):
            places = _unit(places)  # (M, C)
            for rows in torch.arange(len(asked), device=asked.device).split(ROWS):
                found, column = (asked[rows] @ places.T).max(1)
                better = rows[found > best[rows]]
                where[better] = middles[column[found > best[rows]]]
                best[better] = found[found > best[rows]]
        return where, best.clamp(-1, 1)

    def field(self, per: str = "cells", *, mask_b: torch.Tensor | None = None) -> Field:
        """The best match of every place of a.

        Args:
            per: "cells", or "pixels": (H W)^2 C multiplications, a second at 128 x 128, hours at 1000 x 1000.
            mask_b: (1, 1, H, W): only places of b where it is 1.
        """
        size = self.size_a if check.choice(per, "per", PER) == "pixels" else tuple(self.features_a.shape[-2:])
        points, similarity = self.best(cell_middles(size, self.size_a), per=per, mask_b=mask_b)
        return Field(points.view(*size, 2), similarity.view(size), self.size_a, self.size_b)

    def refine(self, points_a, points_b, *, mask_b: torch.Tensor | None = None):
        """Moves each match's end in b to the most similar place within one cell about it, in quarters of a cell.

        Args:
            points_a, points_b: (N, 2), in pixels of their pictures.
            mask_b: (1, 1, H, W): only places where it is 1.

        Returns:
            Points (N, 2) in b, and their similarity (N,).
        """
        asked = _unit(sample_map(self.features_a, self._points(points_a, self.size_a), self.size_a))  # (N, C)
        start = self._points(points_b, self.size_b)
        steps = torch.arange(-4, 5, device=asked.device) / 4  # in cells
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        nearest = torch.stack([x, y], -1).view(-1, 2)
        nearest = nearest[nearest.square().sum(1).argsort(stable=True)]  # of equal places the nearest wins
        cell = asked.new_tensor([n / m for n, m in zip(self.size_b[::-1], self.features_b.shape[:1:-1], strict=True)])
        limit = asked.new_tensor(self.size_b[::-1])
        tried = (start[:, None] + nearest * cell).clamp(min=0).minimum(limit)  # (N, 81, 2)
        places = _unit(sample_map(self.features_b, tried.view(-1, 2), self.size_b)).view(len(start), 81, -1)
        similarity = torch.einsum("nkc,nc->nk", places, asked)  # (N, 81)
        if mask_b is not None:
            similarity = similarity.masked_fill(~inside(tried.view(-1, 2), mask_b).view(len(start), 81), -torch.inf)
            similarity[:, 0] = torch.where(similarity[:, 0].isfinite(), similarity[:, 0], -2.0)  # where all is masked
        found = similarity.argmax(1, keepdim=True)  # (N, 1)
        return tried.gather(1, found[..., None].expand(-1, -1, 2))[:, 0], similarity.gather(1, found)[:, 0].clamp(-1, 1)

    def _points(self, points, size: tuple[int, int]) -> torch.Tensor:
        """(N, 2) float32, in a picture of a size (H, W)."""
        if isinstance(points, torch.Tensor):
            points = points.detach().cpu().numpy()
        found = torch.from_numpy(check.points(points, at_least=0)).to(self.features_a.device, torch.float32)
        height, width = size
        outside = (found < 0).any(1) | (found > found.new_tensor([width, height])).any(1)
        if outside.any():
            x, y = found[outside][0].tolist()
            raise ValueError(
                f"points holds ({x:g}, {y:g}), expected (x, y) in the picture: x up to {width}, y up to {height}."
            )
        return found

    def _places_b(self, per: str, mask_b: torch.Tensor | None = None):
        """Middles (M, 2) and features (M, C) of the places of b, some at a time."""
        size = self.size_b if per == "pixels" else self.features_b.shape[-2:]
        middles = cell_middles(size, self.size_b).to(self.features_b.device)  # (h w, 2)
        if mask_b is not None:
            middles = middles[inside(middles, mask_b)]
            if not len(middles):
                raise ValueError("mask_b leaves no place of image_b, expected 1 where matches may end.")
        for part in middles.split(COLUMNS):
            yield part, sample_map(self.features_b, part, self.size_b)

    def __repr__(self) -> str:
        shapes = " and ".join(str(tuple(f.shape)) for f in (self.features_a, self.features_b))
        return f"FeaturePair({shapes} for pictures of {self.size_a} and {self.size_b})"


def feature_pair(
    image_a: torch.Tensor, image_b: torch.Tensor, *, features: Callable | None = None, pipe=None, **options
) -> FeaturePair:
    """The features of two pictures.

    Args:
        image_a, image_b: (1, 3, H, W) in [0, 1]; sizes may differ.
        features: picture (1, 3, H, W) -> (1, C, h, w); None takes DIFT.
        pipe: for DIFT: a diffusers pipeline, or what `load_pipeline` takes; None takes "tiny-t2i".
        options: of `dift_features`: t, block, ensemble, prompt, side, seed.

    Raises:
        NotAvailable: the pipeline is not on this machine.
        TypeError: options beside a feature function, or unknown ones.

    Example:
        >>> pair = feature_pair(image_a, image_b, pipe=pipe, t=101)
        >>> pair.heat_map((40, 60)).shape
    """
    check_one(image_a, "image_a")
    check_one(image_b, "image_b")
    if features is not None and (pipe is not None or options):
        given = ", ".join([*(["pipe"] if pipe is not None else []), *options])
        raise TypeError(f"{given} given beside features, expected settings of DIFT or a feature function, not both.")
    if features is None:
        features = Dift(_loaded(pipe), **options)
    with torch.no_grad():
        if isinstance(features, Dift):
            maps = features(image_a, 0), features(image_b, 1)
        else:
            maps = features(image_a), features(image_b)
    sizes = (tuple(image.shape[-2:]) for image in (image_a, image_b))
    a, b = (check_map(m, "what features returns").float() for m in maps)
    return FeaturePair(a.to(image_a.device), b.to(image_a.device), *sizes)


def dense_field(
    image_a: torch.Tensor, image_b: torch.Tensor, per: str = "cells", *, mask_b: torch.Tensor | None = None, **features
) -> Field:
    """Where every cell or pixel of one picture is in another, by its features.

    Args:
        image_a, image_b: (1, 3, H, W) in [0, 1].
        per, mask_b: as in `FeaturePair.field`.
        features: as in `feature_pair`: a feature function, or the settings of DIFT.

    Example:
        >>> field = dense_field(image_a, image_b, pipe=pipe)
        >>> wb.plot.show_offsets(field.offsets)
    """
    _check_mask(mask_b, image_b, "mask_b", "image_b")
    return feature_pair(image_a, image_b, **features).field(per, mask_b=mask_b)


def heat_map(image_a: torch.Tensor, image_b: torch.Tensor, point, **features) -> torch.Tensor:
    """How similar every pixel of b is to one point of a: (H, W), cosine in [-1, 1].

    Args:
        image_a, image_b: (1, 3, H, W) in [0, 1].
        point: (x, y) in pixels of a.
        features: as in `feature_pair`, which is what to keep for more than one point.
    """
    return feature_pair(image_a, image_b, **features).heat_map(point)


# Where cells are


def cell_middles(cells, size) -> torch.Tensor:
    """Middles of the cells of a map over a picture: (h w, 2) as (x, y) in the picture's pixels, row by row."""
    (h, w), (height, width) = cells, size
    y, x = (torch.arange(h) + 0.5) * (height / h), (torch.arange(w) + 0.5) * (width / w)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2)


def sample_map(feature_map: torch.Tensor, points: torch.Tensor, size) -> torch.Tensor:
    """Features at points of the picture, interpolated linearly between the middles of the cells, constant outside them.

    Args:
        feature_map: (1, C, h, w).
        points: (N, 2) as (x, y) in pixels of the picture.
        size: (H, W) of the picture.

    Returns:
        (N, C) float32.
    """
    height, width = size
    # From pixels 0 .. W to -1 .. 1; without align_corners those are the outer edges of the outermost cells.
    points = points.to(feature_map.device, torch.float32)
    grid = points / points.new_tensor([width, height]) * 2 - 1  # (N, 2)
    found = functional.grid_sample(
        feature_map.float(), grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )  # (1, C, 1, N)
    return found[0, :, 0].T


def inside(points: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Which points (N, 2) lie in a pixel where a mask (1, 1, H, W) is 1: (N,) bool."""
    height, width = mask.shape[-2:]
    x, y = points[:, 0].floor().long().clamp(0, width - 1), points[:, 1].floor().long().clamp(0, height - 1)
    return mask[0, 0].to(points.device)[y, x] > 0.5


def _check_mask(mask, image: torch.Tensor, name: str, of: str) -> None:
    """A mask of one picture, or None."""
    if mask is not None:
        check.mask(mask, name=name)
        check.same_size(mask, image, name, of)
        if mask.shape[0] != 1:
            raise ValueError(f"{name} holds {mask.shape[0]} masks, expected one.")


def _unit(features: torch.Tensor) -> torch.Tensor:
    return functional.normalize(features, dim=1)


def _loaded(pipe):
    if pipe is None or isinstance(pipe, str) or hasattr(pipe, "__fspath__"):
        from workbench.diffusion.pipelines import load_pipeline

        return load_pipeline("tiny-t2i" if pipe is None else pipe)
    return pipe
