"""What MimicBrush learns from: two frames of a film, or two versions of one picture, and a hole in the first.

Frames are kept when their SSIM lies in a band: two that are nearly the same teach copying, two that have nothing in
common teach guessing. The paper gives no numbers for the band; those here are this kit's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from workbench import check, metrics
from workbench.diffusion.training_data import TrainingPictures, generator
from workbench.image import resize
from workbench.lenses.correspondence import match
from workbench.methods.mimicbrush.augment import AUGMENTATIONS, augment
from workbench.methods.mimicbrush.masks import box_mask, find_segments, grid_mask, keypoints, segment_mask
from workbench.methods.mimicbrush.pointing import seen_again, shares_of
from workbench.world.geometry import pixel_grid

BAND = (0.45, 0.92)
"""SSIM of the frames that are learnt from. Of 192 pairs of the benchmark's clips 6 % lie below and 10 % above; half of
them between 0.6 and 0.87."""
VIDEO_SHARE = 0.7
TRIES = 6
"""Pairs of frames that are drawn for one that lies in the band; the last is taken as it is."""
STRENGTHS = {"video": 0.5, "still": 1.0}
"""Of the reference's augmentation; frames of a film differ anyway."""
BOXES = 0.2
"""Share of holes that are boxes."""
SEGMENTS = 0.6
"""Share of the stills' holes that are segments."""


@dataclass(frozen=True)
class Pair:
    """Something to imitate.

    Args:
        source: (1, 3, H, W) in [0, 1], the truth.
        mask: (1, 1, H, W), 1 = hole.
        reference: (1, 3, H', W').
        kind: "video" or "still".
        ssim: of the frames, before the reference was changed; 1 for stills.
        told: how the reference was changed.
        points: (N, 2), where the source matches the reference, as far as the mask needed to know.
        there: (1, 2, H, W), (x, y) of each pixel in the reference as shares of its sides; NaN where it is not seen.
            None: nobody knows, as with films that were not rendered.
    """

    source: torch.Tensor = field(repr=False)
    mask: torch.Tensor = field(repr=False)
    reference: torch.Tensor = field(repr=False)
    kind: str
    ssim: float
    told: str
    points: torch.Tensor | None = field(default=None, repr=False)
    there: torch.Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class FramePair:
    """Two frames of a film and what became of them.

    Args:
        a, b: numbers of the frames.
        ssim: of the two.
        verdict: "kept", "too similar" or "too different".
    """

    a: int
    b: int
    ssim: float
    verdict: str


def judge(frame_a: torch.Tensor, frame_b: torch.Tensor, band: tuple[float, float] = BAND) -> tuple[float, str]:
    """SSIM of two frames (1, 3, H, W), and "kept", "too similar" or "too different"."""
    low, high = _band(band)
    value = metrics.ssim(frame_a, frame_b, where="all").item()
    return value, "too similar" if value > high else "too different" if value < low else "kept"


def frame_pairs(
    frames: torch.Tensor, band: tuple[float, float] = BAND, count: int | None = None, seed: int = 0
) -> list[FramePair]:
    """Pairs of frames with their verdicts, the rejected ones too, for looking at.

    Args:
        frames: (T, 3, H, W) in [0, 1], T at least 2.
        band: (lowest, highest) SSIM that is kept.
        count: so many pairs at random; None judges all.
        seed: of the choice.

    Returns:
        In the order of their SSIM.

    Raises:
        ValueError: fewer than two frames, or a band that is none.

    Source: Chen et al., 2024, section 4.1, "following LivePhoto".

    Example:
        >>> [pair for pair in frame_pairs(wb.data.clip("clip-00").frames) if pair.verdict == "kept"]
    """
    if len(check.image(frames, "frames")) < 2:
        raise ValueError("frames holds one picture, expected at least two.")
    every = [(a, b) for a in range(len(frames)) for b in range(a + 1, len(frames))]
    if count is not None and count < len(every):
        chosen = generator(check.seed(seed), 11).choice(len(every), check.integer(count, "count", 1), replace=False)
        every = [every[k] for k in chosen]
    found = [FramePair(a, b, *judge(frames[a : a + 1], frames[b : b + 1], band)) for a, b in every]
    return sorted(found, key=lambda pair: pair.ssim)


def _band(band) -> tuple[float, float]:
    low, high = band
    check.number(low, "band[0]", -1, 1)
    check.number(high, "band[1]", -1, 1)
    if low >= high:
        raise ValueError(f"band is {tuple(band)}, expected (lowest, highest) SSIM.")
    return low, high


class Films:
    """Films to draw pairs of frames from.

    Args:
        films: each (T, 3, H, W) in [0, 1]: `wb.image.load_frames`, ``wb.data.clip(name).frames``, or any.
        size: pixels a side of the squares that are cut out; None takes whole frames.

    Raises:
        ValueError: no film, or one of a single frame.
    """

    def __init__(self, films: Sequence[torch.Tensor], size: int | None = None):
        self.films, self.size = [check.image(film, "a film") for film in films], size
        if not self.films or any(len(film) < 2 for film in self.films):
            raise ValueError("films holds nothing, or one frame only; expected films of two frames at least.")

    def __len__(self) -> int:
        return len(self.films)

    def draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Two frames of one film, the same part of both: (1, 3, H, W) each. Nobody knows what is where: None."""
        film = self.films[int(rng.integers(len(self.films)))]
        a, b = rng.choice(len(film), 2, replace=False)
        frames = [film[k : k + 1] for k in (a, b)]
        if self.size is None:
            return *frames, None
        height, width = film.shape[-2:]
        side = min(height, width)
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        a, b = (resize(f[..., y : y + side, x : x + side], (self.size, self.size)) for f in frames)
        return a, b, None


class RenderedFilms:
    """The same for rendered data sets: clips, and places that were seen from several sides.

    Args:
        pictures: those of its sets that hold several views of a scene are used.
    """

    def __init__(self, pictures: TrainingPictures):
        self.sets = [s for s in pictures.sets if s.plan.get("views", 1) > 1]

    def __len__(self) -> int:
        return sum(len(s) // s.plan["views"] for s in self.sets)

    def draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Two views of one scene, (1, 3, H, W) each, and where the first's pixels are in the second: `seen_again`."""
        scenes = [len(s) // s.plan["views"] for s in self.sets]
        number = int(rng.integers(sum(scenes)))
        k = int(np.searchsorted(np.cumsum(scenes), number, side="right"))
        first = (number - sum(scenes[:k])) * self.sets[k].plan["views"]
        a, b = rng.choice(self.sets[k].plan["views"], 2, replace=False)
        a, b = (self.sets[k][first + int(i)] for i in (a, b))
        return a["image"][None], b["image"][None], seen_again(a, b)


class Pairs:
    """Draws what to learn from: 70 % frames of films, 30 % stills.

    Args:
        films: `Films` or `RenderedFilms`; None, or empty: stills only.
        stills: renders (their ids are segments) and photographs (segments are found); None: films only.
        video_share: share of films.
        band: SSIM of the frames that are taken.
        augmentations: of the reference, some of `augment.AUGMENTATIONS`.
        strength: of them, times `STRENGTHS`.
        guide: how the grid masks know where source and reference match: "keypoints" (corners of the source, as in the
            released code; fast), "sift" (matches, as in the paper), "none".

    Raises:
        ValueError: nothing to draw from, or an option out of range.

    Source: Chen et al., 2024, sections 3.3 and 4.1.

    Example:
        >>> pairs = Pairs(Films([frames]), None, video_share=1.0)
        >>> pairs.draw(np.random.default_rng(0))
    """

    def __init__(
        self,
        films: Films | RenderedFilms | None,
        stills: TrainingPictures | None,
        video_share: float = VIDEO_SHARE,
        band: tuple[float, float] = BAND,
        augmentations: Sequence[str] = AUGMENTATIONS,
        strength: float = 1.0,
        guide: str = "keypoints",
    ):
        self.films, self.stills = films, stills
        self.video_share, self.band = check.number(video_share, "video_share", 0, 1), _band(band)
        self.augmentations = [check.choice(name, "augmentations", AUGMENTATIONS) for name in augmentations]
        self.strength, self.guide = check.number(strength, "strength", 0, 2), check.choice(guide, "guide", _GUIDES)
        if self.video_share > 0 and not films:
            raise ValueError(f"there is no film for a video_share of {video_share}, expected clips, or a share of 0.")
        if self.video_share < 1 and stills is None:
            raise ValueError(f"there are no stills for a video_share of {video_share}, expected some, or a share of 1.")

    def draw(self, rng: np.random.Generator) -> Pair:
        """One pair."""
        return self.video(rng) if rng.random() < self.video_share else self.still(rng)

    def video(self, rng: np.random.Generator) -> Pair:
        """Two frames; the hole is a grid or a box."""
        for _ in range(TRIES):
            source, other, points = self.films.draw(rng)
            value, verdict = judge(source, other, self.band)
            if verdict == "kept":
                break
        changed = augment(other, rng, self.augmentations, self.strength * STRENGTHS["video"])
        there = None if points is None else shares_of(points, changed)
        mask, points = self._mask(source, changed.image, rng)
        return Pair(source, mask, changed.image, "video", value, changed.told, points, there)

    def still(self, rng: np.random.Generator) -> Pair:
        """A picture and a version of it; the hole is a segment where there is one, else a grid or a box."""
        drawn = self.stills.draw(rng)
        source = drawn["image"][None]
        changed = augment(source, rng, self.augmentations, self.strength * STRENGTHS["still"])
        mask, points = None, None
        if rng.random() < SEGMENTS:
            mask = segment_mask(drawn["ids"] if "ids" in drawn else find_segments(source), rng)
        if mask is None:
            mask, points = self._mask(source, changed.image, rng)
        there = shares_of(torch.from_numpy(pixel_grid(source.shape[-2:])), changed)
        return Pair(source, mask, changed.image, "still", 1.0, changed.told, points, there.float())

    def _mask(self, source: torch.Tensor, reference: torch.Tensor, rng) -> tuple[torch.Tensor, torch.Tensor | None]:
        size = tuple(source.shape[-2:])
        if rng.random() < BOXES:
            return box_mask(size, rng), None
        points = _GUIDES[self.guide](source, reference)
        return grid_mask(size, rng, points), points


_GUIDES = {
    "keypoints": lambda source, reference: keypoints(source),
    "sift": lambda source, reference: match(source, reference, "sift").points_a,
    "none": lambda source, reference: None,
}
