"""Other places to see a scene from: for references, for other lights of the same place."""

import numpy as np

from workbench import check
from workbench.world.rendering import look
from workbench.world.scene import Camera, Scene


def other_camera(scene: Scene, seed: int, amount: float = 1.0) -> Camera:
    """A camera near the scene's own that shows about the same things, and no wall from within.

    Args:
        scene: a room or facade.
        seed: which of the many.
        amount: how far away: 1 is a step to the side, 2 a large change of viewpoint.

    Returns:
        A `Camera` that sees nothing nearer than 0.5 m.
    """
    rng = np.random.default_rng([check.seed(seed), 4])
    amount = check.number(amount, "amount", 0, 4)
    eye, target = np.asarray(scene.camera.position), np.asarray(scene.camera.target)
    far = float(np.linalg.norm(target - eye))
    for attempt in range(40):
        size = amount * 0.16 * far * 0.95**attempt
        shift = rng.normal(size=3) * size * (1.0, 0.5, 0.45)
        aim = target + rng.normal(size=3) * size * 0.35
        fov = float(np.clip(scene.camera.fov * np.exp(0.09 * amount * rng.normal()), 22, 75))
        position = eye + shift
        position[2] = max(position[2], 0.5)
        camera = Camera(*(tuple(round(float(v), 4) for v in p) for p in (position, aim)), round(fov, 2))
        if scene.kind == "room" and not _inside(scene, position):
            continue
        depth, ids, _ = look(scene, camera, (16, 16))
        if (ids > 0).all() and float(depth.min()) > 0.5:
            return camera
    return scene.camera


def _inside(scene: Scene, position) -> bool:
    """Whether a point lies above the room's floor, clear of the walls."""
    floor = scene.things[scene.find("floor")].parts[0]
    x, y, z = np.subtract(position, (0.0, floor.size[1] / 2, 0.0))
    return bool(abs(x) < floor.size[0] / 2 - 0.15 and abs(y) < floor.size[1] / 2 - 0.1 and 0.3 < z < 2.3)
