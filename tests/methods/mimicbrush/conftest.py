"""What several files share: a rendered film, made up."""

import json

import numpy as np
import pytest

VIEWS = 4


def write_films(folder, scenes=3, views=VIEWS, seed=0):
    """A data set as `world.render_dataset` writes clips: a disc wanders over a plaid ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:1:128j, 0:1:128j]
    images, ids = [], []
    for _ in range(scenes):
        a, b, c = rng.random((3, 3, 1, 1))
        start, step = rng.uniform(0.3, 0.5, 2), rng.uniform(0.05, 0.1, 2)
        for k in range(views):
            px, py = start + k * step
            disc = (x - px) ** 2 + (y - py) ** 2 < 0.03
            ground = a * (0.5 + 0.5 * np.sin(40 * x + 6 * y)) + b * (np.floor(8 * y) % 2) * 0.4
            images.append((np.where(disc, c, ground).clip(0, 1) * 255).astype(np.uint8))
            ids.append(np.where(disc, 2, 1).astype(np.uint8))
    count = scenes * views
    folder.mkdir(parents=True)
    plan = {"kind": "clip", "split": "train", "first": 0, "count": scenes, "size": [128, 128], "views": views}
    (folder / "plan.json").write_text(json.dumps(plan))
    arrays = {
        "image": np.stack(images),
        "depth": np.ones((count, 128, 128), np.float16),
        "ids": np.stack(ids),
        "labels": np.zeros((count, 3), np.uint8),
        "things": np.array(["plaid floor\nred ball"] * count),
        "caption": np.array(["a photo of a room with a ball"] * count),
        "seed": np.repeat(np.arange(scenes), views),
        "camera": np.tile([0.0, -3, 1, 0, 0, 1, 50], (count, 1)),
    }
    np.savez_compressed(folder / "clip-00000000.npz", **arrays)
    return folder


@pytest.fixture(scope="session")
def films_folder(tmp_path_factory):
    return write_films(tmp_path_factory.mktemp("films") / "clips")
