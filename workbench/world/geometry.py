"""Camera and pose mathematics: world to pixel and back. Needs no renderer.

Pixel coordinates are continuous: the middle of the top left pixel is (0.5, 0.5). Depth is along the viewing
axis (z-depth), in metres, as depth estimators define it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from workbench.world.scene import Camera, Thing


@dataclass(frozen=True)
class Correspondences:
    """Where each pixel of one view is in another.

    Args:
        points: (H, W, 2) float32: (x, y) in the other view; NaN where the pixel shows nothing, or lies behind it.
        visible: (H, W) bool: inside the other picture, and not hidden there.
    """

    points: torch.Tensor
    visible: torch.Tensor


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products of vectors along the last axis."""
    return np.einsum("...i,...i->...", a, b)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, brought to length 1."""
    return vectors / np.sqrt(np.maximum(dot(vectors, vectors), 1e-24))[..., None]


def camera_axes(camera: Camera) -> np.ndarray:
    """Rows: the camera's right, down and forward directions in the world, (3, 3)."""
    forward = np.subtract(camera.target, camera.position).astype(np.float64)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(camera.up, np.float64))
    if np.linalg.norm(right) < 1e-6:
        raise ValueError(f"camera.up {camera.up} lies along the viewing axis, expected a direction across it.")
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


def focal_length(camera: Camera, size) -> float:
    """In pixels, the same for x and y."""
    return size[0] / 2 / np.tan(np.radians(camera.fov) / 2)


def pixel_grid(size) -> np.ndarray:
    """Middles of the pixels, (H, W, 2) of (x, y)."""
    return np.stack(np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5), -1)


def within_pixels(pixels: np.ndarray, per_side: int) -> np.ndarray:
    """A regular grid of points in each pixel: middles (N, 2) -> (N * per_side**2, 2), pixel by pixel."""
    step = (np.arange(per_side) + 0.5) / per_side - 0.5
    offsets = np.stack(np.meshgrid(step, step), -1).reshape(-1, 2)
    return (pixels[:, None] + offsets).reshape(-1, 2)


def ray_directions(camera: Camera, size, pixels: np.ndarray) -> np.ndarray:
    """Directions (..., 3) through pixels (..., 2), scaled so that one unit is one metre of z-depth."""
    f = focal_length(camera, size)
    x = (pixels[..., 0] - size[1] / 2) / f
    y = (pixels[..., 1] - size[0] / 2) / f
    return np.stack([x, y, np.ones_like(x)], -1) @ camera_axes(camera)  # (..., 3)


def unproject(camera: Camera, depth: np.ndarray) -> np.ndarray:
    """World points (H, W, 3) of a depth map (H, W)."""
    directions = ray_directions(camera, depth.shape, pixel_grid(depth.shape))
    return np.asarray(camera.position) + directions * depth[..., None].astype(np.float64)


def project(camera: Camera, size, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points (..., 3) -> pixels (..., 2) as (x, y), and their z-depth (...); NaN where behind the camera."""
    local = (np.asarray(points, np.float64) - np.asarray(camera.position)) @ camera_axes(camera).T
    z = local[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = focal_length(camera, size) * local[..., :2] / z[..., None]
    xy += np.array([size[1] / 2, size[0] / 2])
    xy[z <= 0] = np.nan
    return xy, z


def rotation(turn) -> np.ndarray:
    """(3, 3): about x, then y, then z, in degrees."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def pose(thing: Thing) -> np.ndarray:
    """(4, 4): from the thing's coordinates to the world's."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation((thing.tilt, 0, thing.yaw))
    matrix[:3, 3] = thing.position
    return matrix


def follow(points: np.ndarray, ids: np.ndarray, before, after) -> np.ndarray:
    """Where the surface points of moved things are now.

    Args:
        points: (..., 3) in the world.
        ids: (...) instance ids, i + 1 for things[i]; 0 stays in place.
        before, after: the things of both scenes, in the same order.

    Returns:
        (..., 3) in the world.
    """
    moved = np.array(points, np.float64)
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        if (old.position, old.yaw, old.tilt) != (new.position, new.yaw, new.tilt):
            change = pose(new) @ np.linalg.inv(pose(old))
            here = ids == i + 1
            moved[here] = moved[here] @ change[:3, :3].T + change[:3, 3]
    return moved


def carry(depth, ids, camera: Camera, things, other_camera: Camera, other_things, other_size):
    """Where the pixels of one view lie in another, hidden or not.

    Args:
        depth, ids: (H, W) of the first view.
        camera, things: of the first view; things need only their pose.
        other_camera, other_things, other_size: of the second.

    Returns:
        Pixels (H, W, 2), NaN for nothing; their z-depth (H, W); and whether they lie in the picture (H, W).
    """
    points = follow(unproject(camera, depth), ids, things, other_things)  # (H, W, 3)
    pixels, z = project(other_camera, other_size, points)
    pixels[ids == 0] = np.nan
    inside = (pixels >= 0).all(-1) & (pixels < (other_size[1], other_size[0])).all(-1)  # NaN is not
    return pixels, z, inside
