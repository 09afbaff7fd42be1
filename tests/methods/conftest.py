"""Networks for the tests of methods that need weights: narrow, untrained, written as bundled ones are."""

import importlib

import pytest

from tests.methods.mimicbrush import narrow
from tests.stepping.narrow import inpainting, text_to_image
from workbench import data
from workbench.diffusion import pipelines
from workbench.diffusion.denoiser import write_pipeline
from workbench.diffusion.export import write_model
from workbench.methods.context_encoder.networks import VARIANTS, make_context_encoder
from workbench.methods.spl import loading, make_spl

NARROW_SPL = {
    "encoder_widths": (4, 5, 6), "learner_widths": (3, 4, 5, 7), "dense_blocks": 2, "dense_layers": 2, "growth": 3,
    "refining": 1, "injection_blocks": 2, "hidden": 4, "decoder_widths": (5, 4), "teacher_channels": 9,
}  # fmt: skip


@pytest.fixture(scope="session")
def untrained_folder(tmp_path_factory):
    """A folder of models, made once."""
    folder, told = tmp_path_factory.mktemp("untrained"), {"about": "A test.", "trained": "not at all", "quality": {}}
    for seed, name in enumerate(VARIANTS.values()):
        network = make_context_encoder((8, 8, 8, 8, 16), (8, 8, 8), seed)
        write_model(folder / name, {"": network}, title=name, **told)
    for variant, name in loading.VARIANTS.items():
        injection = "concatenation" if variant == "concatenation" else "spade"
        network = make_spl(len(name), injection=injection, **NARROW_SPL)
        write_model(folder / name, {"": network}, title=name, **told)
    for name, pipe in (("tiny-inpaint", inpainting(9)), ("tiny-t2i", text_to_image())):
        write_pipeline(folder / name, pipe, title=name, **told)
    imitating = narrow.model()
    parts = {"unet": imitating.imitator.unet, "adapters": imitating.imitator.adapters}
    write_model(folder / "tiny-mimicbrush", parts, title="tiny-mimicbrush", **told)
    write_model(folder / "tiny-classifier", {"": imitating.image_encoder.classifier}, title="tiny-classifier", **told)
    write_model(folder / "tiny-depth", {"": imitating.depth.estimator}, title="tiny-depth", **told)
    return folder


_LOADED = (pipelines.last_loaded, importlib.import_module("workbench.methods.mimicbrush.fill")._loaded)
"""What remembers a model by its name."""


@pytest.fixture
def untrained_models(untrained_folder, monkeypatch):
    """What is bundled, while a test runs: properties of a method must hold whatever its network has learnt."""
    for room in (data, pipelines):
        monkeypatch.setattr(room, "MODELS", untrained_folder)
    for loaded in _LOADED:
        loaded.cache_clear()
    yield untrained_folder
    for loaded in _LOADED:
        loaded.cache_clear()
