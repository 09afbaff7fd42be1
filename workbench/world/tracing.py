"""The bridge to Embree: scenes become one triangle mesh, many rays at once are asked what they hit.

Light and colour are worked out in `lighting` and `rendering`, where stratified sampling and demodulation leave no
Monte Carlo noise; the tests compare them with Mitsuba 3.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from workbench import check
from workbench.world import materials
from workbench.world.geometry import dot, pose, rotation, unit
from workbench.world.scene import Material, Part, Thing
from workbench.world.shapes import Mesh, make_shape
from workbench.world.strands import STRANDS, make_strands


@dataclass
class Hits:
    """What N rays met; arrays of length N, points in the world.

    Args:
        t: distance in units of the ray's direction; inf where nothing was hit.
        face: index of the triangle, -1 for nothing.
        part: index into `World.parts`, -1 for nothing.
        thing: index of the thing, -1 for nothing.
        points: (N, 3).
        normals: (N, 3) smooth normals, turned towards where the ray came from.
    """

    t: np.ndarray
    face: np.ndarray
    part: np.ndarray
    thing: np.ndarray
    points: np.ndarray
    normals: np.ndarray


class World:
    """The geometry of a scene, ready for rays.

    Args:
        things: of the scene.
        only: keeps the parts for which this holds.
    """

    def __init__(self, things: tuple[Thing, ...], only=lambda part: True):
        self.parts: list[tuple[int, Part]] = []
        self._inverse: list[np.ndarray] = []
        vertices, normals, faces, owner, strands, count = [], [], [], [], [], 0
        for i, thing in enumerate(things):
            for part in thing.parts:
                if not only(part):
                    continue
                mesh = mesh_of(part)
                matrix = pose(thing)
                local = np.eye(4)
                local[:3, :3], local[:3, 3] = rotation(part.turn), part.position
                matrix = matrix @ local
                vertices.append(mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3])
                normals.append(mesh.normals @ matrix[:3, :3].T)
                faces.append(mesh.faces + count)
                strands.append(np.zeros((len(mesh.vertices), 4)) if mesh.strand is None else mesh.strand.copy())
                strands[-1][:, :3] = strands[-1][:, :3] @ matrix[:3, :3].T
                owner.append(np.full(len(mesh.faces), len(self.parts)))
                count += len(mesh.vertices)
                self.parts.append((i, part))
                self._inverse.append(np.linalg.inv(matrix))
        if not self.parts:
            raise ValueError("the scene has no solid parts, expected at least one to render.")
        self.vertices, self.normals = np.concatenate(vertices), np.concatenate(normals)
        self._strands = np.concatenate(strands)
        self.faces, self.face_part = np.concatenate(faces), np.concatenate(owner)
        a, b, c = (self.vertices[self.faces[:, k]] for k in range(3))
        self.face_normals = np.cross(b - a, c - a)  # not of unit length
        self.part_thing = np.array([i for i, _ in self.parts])
        self._seen = _mesh_scene(self.vertices, self.faces)
        casts = np.array([part.shadow for _, part in self.parts])[self.face_part]
        self._casting = self._seen if casts.all() else _mesh_scene(self.vertices, self.faces[casts])
        self.mean_albedo = np.stack([mean_albedo(part.material) for _, part in self.parts])  # (parts, 3)

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """The first surface on each ray; origins (3,) or (N, 3), directions (N, 3) of any length."""
        starts = np.broadcast_to(origins, directions.shape)
        found = self._seen.run(_single(starts), _single(directions), output=True)
        hit = found["geomID"] == 0  # the one mesh there is
        face = np.where(hit, found["primID"].astype(np.int64), -1)
        t = np.where(hit, found["tfar"].astype(np.float64), np.inf)
        return self._hits(origins, directions, t, face)

    def _hits(self, origins, directions, t, face) -> Hits:
        hit = face >= 0
        points = origins + directions * np.where(hit, t, 0)[:, None]  # (N, 3)
        corners = self.faces[face]
        a, b, c = (self.vertices[corners[:, k]] for k in range(3))
        ab, ac, ap = b - a, c - a, points - a
        d00, d01, d11, d20, d21 = dot(ab, ab), dot(ab, ac), dot(ac, ac), dot(ap, ab), dot(ap, ac)
        area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
        v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
        normals = (
            (1 - v - w)[:, None] * self.normals[corners[:, 0]]
            + v[:, None] * self.normals[corners[:, 1]]
            + w[:, None] * self.normals[corners[:, 2]]
        )
        normals = unit(normals)
        flip = dot(self.face_normals[face], directions) > 0  # seen from behind
        normals = np.where(flip[:, None], -normals, normals)
        part = np.where(hit, self.face_part[face], -1)
        thing = np.where(hit, self.part_thing[part], -1)
        return Hits(t, face, part, thing, points, normals)

    def blocked(self, points: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Whether anything stands on the way from points (N, 3) along the vectors ``to`` (N, 3): bool (N,)."""
        if not len(points):
            return np.zeros(0, bool)
        far = np.full(len(points), 0.999, np.float32)  # not the lamp itself
        return self._casting.run(_single(points), _single(to), far, "OCCLUDED") == 0

    def strand(self, hits: Hits, which: np.ndarray) -> np.ndarray:
        """Direction and way from root to tip (n, 4) where rays met hair and the like."""
        return self._strands[self.faces[hits.face[which]]].mean(1)

    def outward(self, hits: Hits, which: np.ndarray) -> np.ndarray:
        """Normals (n, 3) as modelled, not turned towards the ray: for hair, of what it grows on."""
        return unit(self.normals[self.faces[hits.face[which]]].mean(1))

    def local(self, part: int, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points and normals (N, 3) in the coordinates of a part."""
        inverse = self._inverse[part]
        return points @ inverse[:3, :3].T + inverse[:3, 3], normals @ inverse[:3, :3].T

    def albedo(self, hits: Hits, parts=None) -> np.ndarray:
        """Colours (N, 3), linear, of what was hit; 0 for nothing. ``parts``: others to paint with, same geometry."""
        colours = np.zeros((len(hits.t), 3), np.float32)
        order = np.argsort(hits.part, kind="stable")
        starts = np.searchsorted(hits.part[order], np.arange(len(self.parts) + 1))
        for k in range(len(self.parts)):
            here = order[starts[k] : starts[k + 1]]
            if len(here):
                p, n = self.local(k, hits.points[here], hits.normals[here])
                part = self.parts[k][1]
                colours[here] = materials.albedo(part.material, p, n, _wrap(part))
        return colours


@lru_cache(maxsize=4096)
def mean_albedo(material: Material) -> np.ndarray:
    """The colour of a surface from afar, (3,), linear: what it gives to the light that it throws back."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-3, 3, (64, 3)) * material.scale
    return materials.albedo(material, points, np.eye(3)[rng.integers(0, 3, 64)]).mean(0)


def _single(vectors: np.ndarray) -> np.ndarray:
    """Vectors as Embree takes them: float32, rows one after the other."""
    return np.ascontiguousarray(vectors, np.float32)


def mesh_of(part: Part) -> Mesh:
    """The mesh of a part, solid or strands, in the part's coordinates."""
    if part.shape in STRANDS:
        return make_strands(part.shape, part.size, part.values)
    return make_shape(part.shape, part.size, part.values)


def _wrap(part: Part) -> float:
    solid = part.shape not in STRANDS
    return max(part.size[:2]) / 2 if solid and make_shape(part.shape, (1, 1, 1), part.values).round else 0.0


@lru_cache(maxsize=8)
def world_of(things: tuple[Thing, ...]) -> World:
    """The world of these things; the last few are kept, as several views of one scene are usual."""
    return World(things, lambda part: part.material.opacity >= 1)


def _mesh_scene(vertices: np.ndarray, faces: np.ndarray):
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise check.NotAvailable(
            "rendering needs Embree, which is not installed here. Install it with: pip install embreex"
        ) from None
    scene = EmbreeScene()
    TriangleMesh(scene, _single(vertices), faces.astype(np.int32))
    return scene
