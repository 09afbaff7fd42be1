"""A rendered data set of made-up pictures, and models so narrow that they train in no time."""

import json

import numpy as np
import pytest
import torch

from workbench.diffusion import models
from workbench.diffusion.tokenizer import make_tokenizer
from workbench.world.views import LABELS


def write_views(folder, kind="room", count=6, seed=0):
    """A data set as `world.render_dataset` writes it: smooth colours with a disc, whose colour is a label."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:1:128j, 0:1:128j]
    images, labels, depth, ids = [], [], [], []
    for _ in range(count):
        a, b, c = rng.random((3, 3, 1, 1))
        disc = (x - rng.uniform(0.3, 0.7)) ** 2 + (y - rng.uniform(0.3, 0.7)) ** 2 < 0.05
        image = np.where(disc, c, a * x + b * (1 - y)).clip(0, 1)
        images.append((image * 255).astype(np.uint8))
        labels.append((rng.random(len(LABELS)) < 0.3).astype(np.uint8))
        depth.append((1 + 3 * y - disc).astype(np.float16))
        ids.append(np.where(disc, 1, 2).astype(np.uint8))
    folder.mkdir(parents=True)
    plan = {"kind": kind, "split": "train", "first": 0, "count": count, "size": [128, 128]}
    (folder / "plan.json").write_text(json.dumps(plan))
    arrays = {"image": np.stack(images), "labels": np.stack(labels), "depth": np.stack(depth)}
    if kind == "sprite":
        arrays["foreground"] = arrays.pop("image")
        arrays["alpha"] = np.full((count, 128, 128), 128, np.uint8)
    arrays |= {
        "ids": np.stack(ids),
        "things": np.array(["red ball\nwooden floor"] * count),
        "caption": np.array([f"a photo of a room with {n} balls" for n in range(count)]),
        "seed": np.arange(count),
        "camera": np.zeros((count, 7)),
    }
    np.savez_compressed(folder / f"{kind}-00000000.npz", **arrays)
    return folder


@pytest.fixture(scope="session")
def views(tmp_path_factory):
    return write_views(tmp_path_factory.mktemp("views") / "rooms")


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def narrow(tokenizer):
    """The parts of a pipeline, one hundredth of the bundled ones' size."""
    return {
        "vae": models.make_autoencoder(8, (8, 8, 8, 8)),
        "text_encoder": models.make_text_encoder(tokenizer, width=16, layers=1),
        "unet": models.make_denoiser(8, widths=(16, 16, 16), text_width=16),
        "tokenizer": tokenizer,
    }


@pytest.fixture(scope="session")
def inpaint_folder(tokenizer, tmp_path_factory):
    """A tiny inpainting pipeline as it is exported."""
    from workbench.diffusion.denoiser import assemble, write_pipeline
    from workbench.diffusion.libraries import StableDiffusionInpaintPipeline

    text = models.make_text_encoder(tokenizer, width=16, layers=1)
    unet = models.make_denoiser(8, 9, widths=(16, 16, 16), text_width=16)
    pipe = assemble(StableDiffusionInpaintPipeline, models.make_autoencoder(8, (8, 8, 8, 8)), text, tokenizer, unet)
    folder = tmp_path_factory.mktemp("models") / "inpaint"
    return write_pipeline(folder, pipe, "a test", "of nothing", "not at all", {"psnr": 12.3456})


@pytest.fixture
def picture():
    """(1, 3, 96, 150), smooth, asymmetric, with the hole (1, 1, 96, 150)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 150), indexing="ij")
    mask = torch.zeros(1, 1, 96, 150)
    mask[..., 30:55, 90:120] = 1
    return torch.stack([x, y, x * y])[None], mask
