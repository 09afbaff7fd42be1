"""Renders single objects with an exact alpha matte: coverage, translucent shells, hair.

Alpha is coverage: the mean over n x n rays a pixel (`rays_a_side`) of how much of the background each ray loses. The
foreground is the colour without any background (not premultiplied), so composite = foreground alpha + background
(1 - alpha) holds by definition, in sRGB values, as the matting literature has it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from workbench import check
from workbench.world import geometry, materials
from workbench.world.lighting import light_samples, sky_light
from workbench.world.materials import to_linear
from workbench.world.rendering import ground_truth, light_everywhere, look_rays, shade, tone
from workbench.world.scene import Camera, Scene
from workbench.world.strands import STRANDS
from workbench.world.tracing import World, world_of

GREEN = (0.0, 1.0, 0.0)
"""The background of a green screen."""


@dataclass(frozen=True)
class SpriteView:
    """A sprite's picture taken apart.

    Args:
        foreground: (1, 3, H, W), sRGB in [0, 1], not premultiplied; where alpha is 0 the nearest colour of the object.
        alpha: (1, 1, H, W) in [0, 1].
        depth: (1, 1, H, W), metres, of solid parts; 0 where there are none.
        ids: (H, W), 1 where the ray through the pixel's middle meets something solid.
        scene: what was rendered.
        camera: from where.
    """

    foreground: torch.Tensor
    alpha: torch.Tensor
    depth: torch.Tensor
    ids: torch.Tensor
    scene: Scene = field(repr=False)
    camera: Camera

    def composite(self, background=GREEN) -> torch.Tensor:
        """The sprite on a background: a colour (r, g, b), or an image of its size. Pure green unless told."""
        return composite(self.foreground, self.alpha, background)

    @property
    def image(self) -> torch.Tensor:
        """On pure green."""
        return self.composite()


def composite(foreground: torch.Tensor, alpha: torch.Tensor, background=GREEN) -> torch.Tensor:
    """foreground alpha + background (1 - alpha).

    Args:
        foreground: (B, 3, H, W) in [0, 1].
        alpha: (B, 1, H, W) in [0, 1].
        background: (r, g, b) in [0, 1], or an image (1 or B, 3, H, W).

    Returns:
        (B, 3, H, W).
    """
    check.image(foreground, "foreground")
    check.alpha(alpha)
    check.same_size(foreground, alpha, "foreground", "alpha")
    if not isinstance(background, torch.Tensor):
        background = (
            torch.tensor(background, dtype=foreground.dtype).view(1, 3, 1, 1).expand(1, 3, *foreground.shape[-2:])
        )
    check.image(background, "background")
    check.same_size(background, foreground, "background", "foreground")
    return foreground * alpha + background * (1 - alpha)


def rays_a_side(size: tuple[int, int]) -> int:
    """Rays along each side of a pixel: alpha has this number squared + 1 levels for solid things."""
    return 6 if min(size) < 200 else 5


def render_sprite(scene: Scene, camera: Camera | None = None, size: tuple[int, int] = (128, 128)) -> SpriteView:
    """Renders a sprite with its alpha.

    Args:
        scene: of kind "sprite".
        camera: None takes ``scene.camera``.
        size: (H, W) in pixels.

    Returns:
        A `SpriteView`.

    Raises:
        ValueError: a scene that is no sprite.
    """
    size = check.size(size)
    if scene.kind != "sprite":
        raise ValueError(f"scene is a {scene.kind}, expected a sprite: other scenes have no alpha. Use render.")
    camera = camera or scene.camera
    middles = geometry.pixel_grid(size).reshape(-1, 2)
    near, per = _touched(scene, camera, size), rays_a_side(size)
    pixels = geometry.within_pixels(middles[near.ravel()], per)
    colour, alpha = np.zeros((len(pixels), 3)), np.zeros((len(pixels), 1))
    depth, ids = torch.zeros(1, 1, *size), torch.zeros(size, dtype=torch.int64)
    if any(p.material.opacity >= 1 for t in scene.things for p in t.parts):
        world = world_of(scene.things)
        coarse, fine = look_rays(world, camera, size, middles), look_rays(world, camera, size, pixels)
        light = light_everywhere(world, scene, camera, size, coarse, fine, pixels, 8, 0)
        light = _strand_light(world, scene, camera, fine, shade(world, scene, camera, fine, light))
        alpha = (fine.part >= 0).astype(np.float64)[:, None]
        colour = materials.to_srgb(tone(light * scene.exposure)) * alpha
        depth, ids, _ = ground_truth(world, coarse, size)
    if any(p.material.opacity < 1 for t in scene.things for p in t.parts):
        front, front_alpha = _shell(scene, camera, size, pixels)
        colour = front * front_alpha + colour * (1 - front_alpha)
        alpha = front_alpha + alpha * (1 - front_alpha)
    coverage, premultiplied = np.zeros((*size, 1), np.float32), np.zeros((*size, 3), np.float32)
    coverage[near] = alpha.reshape(-1, per**2, 1).mean(1)
    premultiplied[near] = colour.reshape(-1, per**2, 3).mean(1)
    foreground = _filled(premultiplied / np.maximum(coverage, 1e-6), coverage[..., 0] > 0)
    as_tensor = [torch.from_numpy(v.clip(0, 1)).permute(2, 0, 1)[None].contiguous() for v in (foreground, coverage)]
    return SpriteView(*as_tensor, depth, ids, scene, camera)


def _touched(scene: Scene, camera: Camera, size) -> np.ndarray:
    """Pixels (H, W) that the sprite may cover: within 2 of some vertex, or of a pixel whose middle it covers."""
    touched = np.zeros(size, bool)
    for only in (lambda part: part.material.opacity >= 1, lambda part: part.material.opacity < 1):
        if not any(only(p) for t in scene.things for p in t.parts):
            continue
        world = World(scene.things, only)
        touched |= (look_rays(world, camera, size, geometry.pixel_grid(size).reshape(-1, 2)).part >= 0).reshape(size)
        xy, _ = geometry.project(camera, size, world.vertices)
        xy = xy[(xy >= 0).all(1) & (xy < (size[1], size[0])).all(1)].astype(int)
        touched[xy[:, 1], xy[:, 0]] = True
    return ndimage.binary_dilation(touched, iterations=2)


def _filled(colours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3), where unknown those of the nearest known pixel."""
    if known.all() or not known.any():
        return colours
    rows, columns = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return colours[rows, columns]


def _strand_light(world: World, scene: Scene, camera: Camera, hits, colours: np.ndarray) -> np.ndarray:
    """Lights hair as Kajiya and Kay (SIGGRAPH 1989) do: by the angle to its direction; darker towards the root."""
    thin = [k for k, (_, part) in enumerate(world.parts) if part.shape in STRANDS]
    here = np.flatnonzero(np.isin(hits.part, thin))
    if not len(here):
        return colours
    strand = world.strand(hits, here)  # (n, 4)
    along, way = geometry.unit(strand[:, :3]), strand[:, 3:]
    points, outward = hits.points[here], world.outward(hits, here)
    view = geometry.unit(np.asarray(camera.position) - points)
    albedo = world.albedo(hits)[here]
    gloss = np.array([part.material.gloss for _, part in world.parts])[hits.part[here]][:, None]
    open_ = 0.25 + 0.75 * way
    light = (sky_light(scene, outward) * 0.8 + scene.ambient) * open_
    shine = np.zeros_like(light)
    for source in scene.lights:
        towards, strength = light_samples(source, points, np.full((len(points), 1, 2), 0.5))
        towards = geometry.unit(towards[:, 0])
        wrap = np.clip(0.35 + 0.65 * geometry.dot(outward, towards), 0, 1)
        across = np.sqrt(np.maximum(1 - geometry.dot(along, towards) ** 2, 0))
        half = geometry.unit(towards + view)
        gleam = np.maximum(1 - geometry.dot(along, half) ** 2, 0) ** 30 * wrap
        sent = (strength[:, 0] * wrap)[:, None] * to_linear(source.colour)
        light += sent * (0.45 + 0.55 * across)[:, None] * open_
        shine += (strength[:, 0] * gleam)[:, None] * to_linear(source.colour) * 0.16 * gloss
    colours = colours.copy()
    colours[here] = albedo * light * (0.75 + 0.4 * way) + shine
    return colours


def _shell(scene: Scene, camera: Camera, size, pixels) -> tuple[np.ndarray, np.ndarray]:
    """The translucent parts alone: sRGB colours (N, 3), and how much each ray loses to them (N, 1).

    A shell hides more where it is seen aslant: alpha = opacity + (1 - opacity) (1 - cos)^2, for the near and the
    far side of it together.
    """
    shell = World(scene.things, lambda part: part.material.opacity < 1)
    hits = look_rays(shell, camera, size, pixels)
    met = np.flatnonzero(hits.part >= 0)
    points, normals = hits.points[met], hits.normals[met]
    view = geometry.unit(np.asarray(camera.position) - points)
    facing = np.clip(geometry.dot(normals, view), 0, 1)[:, None]
    opacity = np.array([part.material.opacity for _, part in shell.parts])[hits.part[met]][:, None]
    mirrored = geometry.unit(2 * facing * normals - view)
    light = sky_light(scene, normals) + scene.ambient
    shine = sky_light(scene, mirrored) * (0.06 + 0.94 * (1 - facing) ** 4)
    for source in scene.lights:
        towards, strength = light_samples(source, points, np.full((len(points), 1, 2), 0.5))
        towards = geometry.unit(towards[:, 0])
        light += (strength[:, 0] * np.abs(geometry.dot(towards, normals)))[:, None] * to_linear(source.colour)
        half = geometry.unit(towards + view)
        shine += (strength[:, 0] * np.clip(geometry.dot(half, normals), 0, 1) ** 160 * 5)[:, None] * to_linear(
            source.colour
        )
    gleam = np.clip(shine.max(1, keepdims=True) * 0.6, 0, 1)
    thick = 1 - (1 - opacity) * (1 - (1 - facing) ** 2 * 0.85)
    colour, alpha = np.zeros((len(hits.t), 3)), np.zeros((len(hits.t), 1))
    alpha[met] = 1 - (1 - thick) * (1 - gleam)
    colour[met] = materials.to_srgb(tone((shell.albedo(hits)[met] * light + shine) * scene.exposure))
    return colour, alpha
