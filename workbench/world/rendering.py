"""From a scene to a picture and everything that is true about it."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from workbench import check
from workbench.world import geometry, materials
from workbench.world.lighting import (
    direct_light,
    gathered_light,
    light_samples,
    row_shifts,
    sky_light,
    smooth_inside,
    spread_to,
    tile_shifts,
)
from workbench.world.scene import Camera, Scene
from workbench.world.strands import STRANDS
from workbench.world.tracing import Hits, World, world_of

MATERIAL_NAMES = ("nothing", *materials.PATTERNS)
"""What the numbers of `View.materials` mean."""


@dataclass(frozen=True)
class View:
    """A rendered picture with its ground truth, all of the rays through the pixels' middles.

    Args:
        image: (1, 3, H, W), sRGB in [0, 1].
        depth: (1, 1, H, W) float32, metres along the viewing axis; 0 where there is nothing.
        ids: (H, W) int64: i + 1 for ``scene.things[i]``, 0 for nothing.
        materials: (H, W) int64: indices into `MATERIAL_NAMES`.
        scene: what was rendered.
        camera: from where.
    """

    image: torch.Tensor
    depth: torch.Tensor
    ids: torch.Tensor
    materials: torch.Tensor
    scene: Scene = field(repr=False)
    camera: Camera

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return tuple(self.image.shape[-2:])


def render(
    scene: Scene, camera: Camera | None = None, size: tuple[int, int] = (128, 128), *, light_seed: int = 0,
    samples: int = 12,
) -> View:  # fmt: skip
    """Renders one view.

    Args:
        scene: what there is.
        camera: from where; None takes ``scene.camera``.
        size: (H, W) in pixels.
        light_seed: shifts the pattern by which lights are sampled: the picture hardly changes (about 45 dB).
        samples: points of each light asked for by each pixel.

    Returns:
        A `View`; the same arguments give the same bits.

    Example:
        >>> view = render(make_room(seed=3))
        >>> view.image.shape, float(view.depth.max())
    """
    size = check.size(size)
    if not isinstance(scene, Scene):
        raise TypeError(f"scene is a {type(scene).__name__}, expected a Scene. Make one with world.make_room(seed).")
    camera = camera or scene.camera
    check.integer(samples, "samples", 1)
    world = world_of(scene.things)
    per = 4 if min(size) < 200 else 3  # each pixel's colour is the mean over per x per rays
    middles = geometry.pixel_grid(size).reshape(-1, 2)
    coarse = look_rays(world, camera, size, middles)
    pixels = geometry.within_pixels(middles, per)
    fine = look_rays(world, camera, size, pixels)
    light = light_everywhere(world, scene, camera, size, coarse, fine, pixels, samples, check.seed(light_seed))
    colours = tone(shade(world, scene, camera, fine, light) * scene.exposure)
    colours = colours.reshape(*size, per * per, 3).mean(2)  # (H, W, 3)
    image = torch.from_numpy(materials.to_srgb(colours)).permute(2, 0, 1)[None].contiguous()  # (1, 3, H, W)
    depth, ids, stuff = ground_truth(world, coarse, size)
    return View(image, depth, ids, stuff, scene, camera)


def look(scene: Scene, camera: Camera | None = None, size: tuple[int, int] = (128, 128)):
    """Only the ground truth of a view, without its picture: depth, ids, materials as in `View`; much quicker."""
    world, middles = world_of(scene.things), geometry.pixel_grid(check.size(size)).reshape(-1, 2)
    return ground_truth(world, look_rays(world, camera or scene.camera, size, middles), size)


def exposed(scene: Scene, brightness: float = 0.62) -> Scene:
    """The scene with its exposure set as a camera would: bright parts (85th percentile) come out at ``brightness``."""
    size = (16, 16)
    clear = any(part.material.opacity < 1 for thing in scene.things for part in thing.parts)
    world = World(scene.things) if clear else world_of(scene.things)  # shells count as solid here
    hits = look_rays(world, scene.camera, size, geometry.pixel_grid(size).reshape(-1, 2))
    shifts = tile_shifts(size, 0)
    light, _ = _light_at(world, scene, hits, hits.part >= 0, 4, shifts, shifts)
    solid = (hits.part >= 0) & ~np.isin(hits.part, [k for k, (_, p) in enumerate(world.parts) if p.material.glow > 0])
    colours = (world.albedo(hits) * (light[:, :-1].sum(1) + light[:, -1]))[solid]
    bright = np.percentile(colours @ (0.2126, 0.7152, 0.0722), 85) if solid.any() else 1.0
    target = float(materials.to_linear(brightness))
    return replace(scene, exposure=round(target / max(float(bright), 1e-6), 4))


def tone(light: np.ndarray) -> np.ndarray:
    """Linear light -> [0, 1): unchanged up to 0.6, then ever more slowly, as film does."""
    knee = 0.6
    over = np.maximum(light - knee, 0)
    return np.where(light <= knee, light, knee + (1 - knee) * (1 - np.exp(-over / (1 - knee))))


def ground_truth(world: World, hits: Hits, size):
    """Depth (1, 1, H, W), ids (H, W) and materials (H, W) of the rays through the pixels' middles."""
    names = list(materials.PATTERNS)
    stuff = np.array([0] + [1 + names.index(p.material.pattern) for _, p in world.parts])[hits.part + 1]
    depth = np.where(hits.part >= 0, hits.t, 0).astype(np.float32).reshape(1, 1, *size)
    ids = (hits.thing + 1).reshape(size)
    return torch.from_numpy(depth), torch.from_numpy(ids), torch.from_numpy(stuff.reshape(size))


def look_rays(world: World, camera: Camera, size, pixels: np.ndarray) -> Hits:
    """What is seen at points (N, 2) of a picture of ``size``."""
    return world.cast(np.asarray(camera.position, np.float64), geometry.ray_directions(camera, size, pixels))


def _light_at(world, scene, hits: Hits, which: np.ndarray, samples: int, shifts, wide_shifts):
    """Light on white surfaces by source (N, lights + 1, 3), the last bounced or from the sky; and openness (N, 1).

    Only for the hits that ``which`` (N,) names; 0 and 1 for the others.
    """
    points, normals, shifts = hits.points[which], hits.normals[which], shifts[which]
    out, openness = np.zeros((len(which), len(scene.lights) + 1, 3)), np.ones((len(which), 1))
    for k, source in enumerate(scene.lights):
        n = max(2, samples // 2) if source.kind == "sun" or source.power < 0.9 else samples
        out[which, k] = direct_light(world, points, normals, source, n, shifts)
    n = samples if scene.sky_power > 0 else max(2, samples // 2)  # outdoors most light comes this way
    bounced = gathered_light(world, scene, points, normals, n, wide_shifts[which])
    out[which, -1], openness[which, 0] = bounced
    return out, openness


def light_everywhere(
    world, scene, camera, size, coarse: Hits, fine: Hits, pixels, samples: int, seed: int
) -> np.ndarray:
    """Light on every sample of solid things, by source: (N, lights + 1, 3).

    Computed at the pixels' middles, smoothed inside surfaces, spread to the samples at ``pixels`` (N, 2); computed
    again for samples that this does not reach.
    """
    spacing = 1 / geometry.focal_length(camera, size)
    solid = np.array([part.shape not in STRANDS for _, part in world.parts] + [False])
    light, openness = _light_at(
        world, scene, coarse, solid[coarse.part], samples, tile_shifts(size, seed), tile_shifts(size, seed, 8)
    )
    shape = light.shape[1:]
    fine_detail = np.concatenate([light[:, :-1].reshape(len(light), -1), openness], 1)
    sharp = smooth_inside(fine_detail, coarse, size, 2, spacing)
    soft = np.concatenate([light[:, -1], openness], 1)
    soft = smooth_inside(soft, coarse, size, 4, spacing)
    soft = smooth_inside(soft, coarse, size, 2, spacing, 4)
    corners = np.clip(sharp[:, -1:] / np.maximum(soft[:, -1:], 1e-3), 0, 1.3)  # wide smoothing fades them: put back
    known = np.concatenate([sharp[:, :-1], soft[:, :-1] * corners], 1)
    spread, weight = spread_to(fine, pixels, coarse, size, known, spacing)
    missing = (weight < 0.05) & solid[fine.part]
    shifts = row_shifts(len(missing), seed)
    spread[missing] = _light_at(world, scene, fine, missing, samples, shifts, shifts)[0][missing].reshape(
        -1, spread.shape[1]
    )
    return spread.reshape(-1, *shape)


def shade(world: World, scene: Scene, camera: Camera, fine: Hits, light: np.ndarray) -> np.ndarray:
    """Linear colours (N, 3) towards the camera."""
    albedo = world.albedo(fine)
    colours = albedo * (light[:, :-1].sum(1) + light[:, -1])
    away = fine.part < 0
    eye = np.asarray(camera.position)
    if away.any():
        view = fine.points[away] - eye  # zero length: nothing was hit
        colours[away] = sky_light(scene, np.broadcast_to((0.0, 0.0, 0.3), view.shape))
    surroundings = light[~away, -1].mean(0) if (~away).any() else np.zeros(3)
    for k, (_, part) in enumerate(world.parts):
        m = part.material
        if m.glow > 0:
            here = np.flatnonzero(fine.part == k)
            colours[here] = albedo[here] * m.glow / scene.exposure
        elif m.gloss > 0:
            here = np.flatnonzero(fine.part == k)
            if len(here):
                colours[here] = _polish(
                    world, scene, m, fine, here, eye, albedo[here], colours[here], light[here], surroundings
                )
    return colours


def _polish(world, scene, material, fine: Hits, here, eye, albedo, matte, light, surroundings) -> np.ndarray:
    """Adds highlights of the lights and, on well polished things, reflections of the surroundings."""
    points, normals = fine.points[here], fine.normals[here]
    view = eye - points
    view = geometry.unit(view)
    facing = np.clip(geometry.dot(view, normals), 0, 1)[:, None]
    straight = albedo if material.metal else np.full(3, 0.04)
    fresnel = straight + (1 - straight) * (1 - facing) ** 5 * material.gloss
    sharpness = 6 * 2 ** (6 * material.gloss)
    shine = np.zeros_like(matte)
    for k, source in enumerate(scene.lights):
        towards, strength = light_samples(source, points, np.full((len(points), 1, 2), 0.5))
        towards = geometry.unit(towards[:, 0])
        half = geometry.unit(towards + view)
        cosine = np.clip(geometry.dot(towards, normals), 1e-3, 1)
        whole = strength[:, 0] * cosine  # were nothing in the way
        seen = np.clip(light[:, k].mean(1) / np.maximum(whole * materials.to_linear(source.colour).mean(), 1e-6), 0, 1)
        peak = (sharpness + 8) / 8 * np.clip(geometry.dot(half, normals), 0, 1) ** sharpness
        shine += (seen * whole * peak)[:, None] * materials.to_linear(source.colour)
    shine *= fresnel * min(1.0, 0.3 + material.gloss)
    if material.gloss < 0.5:
        return matte + shine
    mirrored = 2 * facing * normals - view
    hits = world.cast(points + normals * 2e-3, mirrored)
    seen = _light_quickly(world, scene, hits, surroundings) * world.albedo(hits)
    for k, (_, part) in enumerate(world.parts):
        if part.material.glow > 0:
            there = hits.part == k
            seen[there] = world.albedo(hits)[there] * part.material.glow / scene.exposure
    lost = hits.part < 0
    seen[lost] = sky_light(scene, mirrored[lost])
    strength = (material.gloss - 0.4) / 0.6
    keep = 0.12 if material.metal else 1 - fresnel * strength
    return matte * keep + seen * fresnel * strength + shine


def _light_quickly(world, scene, hits: Hits, surroundings) -> np.ndarray:
    """Light on what a mirror shows: a few samples of each lamp, and the same surroundings for all."""
    out = np.tile(surroundings, (len(hits.t), 1))
    met = np.flatnonzero(hits.part >= 0)
    shifts = np.random.default_rng(0).uniform(size=(len(met), 2))
    for source in scene.lights:
        out[met] += direct_light(world, hits.points[met], hits.normals[met], source, 2, shifts)
    return out
