"""A pipeline of a few thousand weights that paints 32 x 48, and things with mattes that are made up."""

import copy
import json

import numpy as np
import pytest
import torch

from tests.stepping import narrow
from workbench.methods.diffumatting import Matte, make_head, make_refiner
from workbench.methods.diffumatting.data import Mattes, on_green
from workbench.methods.diffumatting.loading import DiffuMatting

SMALL = {"widths": (8, 16), "hidden": 3, "mending": 5}


def thing(seed, height=32, width=48):
    """A soft disc in one colour with a slope."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : height - 1 : height * 1j, 0 : width - 1 : width * 1j]
    radius = np.hypot(y - height * rng.uniform(0.4, 0.6), x - width * rng.uniform(0.4, 0.6))
    alpha = torch.from_numpy(np.clip(height / 3 - radius, 0, 4).astype(np.float32) / 4)[None, None]
    slope = torch.linspace(0.3, 0.7, width).expand(1, 1, height, width)
    colour = torch.tensor([0.9, 0.1 + 0.1 * (seed % 5), 0.6]).view(1, 3, 1, 1)
    return Matte((colour * slope / 0.7).clamp(0, 1), alpha, f"a photo of a ball number {seed}")


class Made(Mattes):
    """Made-up things."""

    def __init__(self, count=4, size=(32, 48), first=0):
        self.items = [thing(first + k, *size) for k in range(count)]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.fixture
def pipe():
    pipe = copy.deepcopy(narrow.text_to_image())
    pipe.unet.register_to_config(sample_size=8)
    return pipe


@pytest.fixture
def examples():
    return [on_green(thing(k)) for k in range(4)]


@pytest.fixture
def model(pipe):
    return DiffuMatting(pipe, make_head(pipe.vae, 4).eval(), make_refiner(**SMALL).eval())


@pytest.fixture
def mattes():
    return Made()


def write_sprites(folder, count=4, first=0):
    """A rendered data set of sprites, as `world.render_dataset` writes it, with mattes that are no constants."""
    items = [thing(first + k, 128, 128) for k in range(count)]
    folder.mkdir(parents=True)
    plan = {"kind": "sprite", "split": "train", "first": 0, "count": count, "size": [128, 128]}
    (folder / "plan.json").write_text(json.dumps(plan))
    arrays = {
        "foreground": np.stack([(m.foreground[0].numpy() * 255).round().astype(np.uint8) for m in items]),
        "alpha": np.stack([(m.alpha[0, 0].numpy() * 255).round().astype(np.uint8) for m in items]),
        "depth": np.ones((count, 128, 128), np.float16),
        "ids": np.zeros((count, 128, 128), np.uint8),
        "labels": np.zeros((count, 3), np.uint8),
        "things": np.array(["red ball"] * count),
        "caption": np.array([m.caption for m in items]),
        "seed": np.arange(count),
        "camera": np.zeros((count, 7)),
    }
    np.savez_compressed(folder / "sprite-00000000.npz", **arrays)
    return folder


@pytest.fixture(scope="session")
def sprites(tmp_path_factory):
    return write_sprites(tmp_path_factory.mktemp("views") / "sprites")
