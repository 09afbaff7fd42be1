"""The bundled models against the floors they were trained for: python tests/benchmarks/bench_models.py [FOLDER ...]

Everything is measured on places that no model has seen: the benchmark in data/scenes, the photographs that are held
out, and for the classifier the folders given (python -m workbench.world --split validation ...). Each number stands
with its 95 % interval, from 2,000 draws with replacement.
"""

import sys
import time

import numpy as np
import torch

import workbench as wb
from workbench.diffusion import bundled, classifier, depth
from workbench.diffusion.training_data import TrainingPictures, held_out_crops
from workbench.diffusion.vae import load_autoencoder, round_trip
from workbench.world.views import LABELS

OBJECTS = ("ball", "cube", "cone", "cylinder", "teapot", "vase", "chair", "table", "sofa", "cupboard", "lamp", "plant")
"""What the prompts with a single object ask for."""
SAMPLES = 4
"""Pictures of each."""


def told(name: str, values, floor: str, unit: str = "") -> None:
    """Prints mean and interval."""
    values = np.asarray(values, np.float64)
    low, high = wb.metrics.bootstrap_interval(values)
    print(f"{name}: {values.mean():.3f}{unit} [{low:.3f}, {high:.3f}], n = {len(values)}; floor {floor}", flush=True)


def autoencoder(scenes) -> None:
    vae = load_autoencoder()
    renders = torch.cat([scene.target for scene in scenes])
    told("autoencoder, renders", wb.metrics.psnr(round_trip(vae, renders), renders, where="all"), "28 dB", " dB")
    photographs = held_out_crops()
    decoded = round_trip(vae, photographs)
    told("autoencoder, photographs", wb.metrics.psnr(decoded, photographs, where="all"), "24 dB", " dB")


def naming(folders) -> None:
    views = TrainingPictures(folders, style=0)
    task = classifier.ClassifierTask(classifier.Naming(classifier.load_classifier()), views, views)
    print(
        f"classifier: mean average precision {task.validate()['mean_average_precision']:.3f}, {len(views)} views; 0.9"
    )


def estimating(scenes) -> None:
    model = depth.load_depth()
    shares = []
    for scene in scenes:
        images, truth = torch.cat([scene.target, *scene.references]), torch.cat([scene.depth, *scene.reference_depths])
        estimate = depth.estimate_depth(images, model).log()
        shares.append(depth.share_within(estimate, truth).mean().item())
    told("depth, share within 1.25", shares, "0.9")


def inpainting(scenes) -> None:
    pipe = wb.load_pipeline("tiny-inpaint")
    gains = {"hole PSNR over patchmatch": [], "tiny_perceptual under patchmatch": []}
    for number, scene in enumerate(scenes):
        mask = wb.mask.irregular(scene.target.shape[-2:], 0.25, seed=number)
        given = {"pipe": pipe, "prompt": scene.caption}
        ours = wb.inpaint(scene.target, mask, "diffusion", progress=False, **given).image
        theirs = wb.inpaint(scene.target, mask, "patchmatch", progress=False).image
        better = wb.metrics.psnr(ours, scene.target, mask) - wb.metrics.psnr(theirs, scene.target, mask)
        gains["hole PSNR over patchmatch"].append(better.item())
        nearer = classifier.tiny_perceptual(theirs, scene.target) - classifier.tiny_perceptual(ours, scene.target)
        gains["tiny_perceptual under patchmatch"].append(nearer.item())
    for name, values in gains.items():
        told(f"inpainting, {name}", values, "0")


def prompting() -> None:
    pipe, names = wb.load_pipeline("tiny-t2i"), classifier.load_classifier()
    pipe.set_progress_bar_config(disable=True)
    found = []
    for word in OBJECTS:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(SAMPLES)]
        prompt = f"a photo of a {word}"
        images = pipe([prompt] * SAMPLES, num_inference_steps=30, guidance_scale=5.0, generator=seeds,
                      output_type="pt").images  # fmt: skip
        seen = names(images).sigmoid()[:, LABELS.index(word)] > 0.5
        found += seen.float().tolist()
        print(f"  {word}: {seen.sum()} of {SAMPLES}", flush=True)
    told("text, the object named is found", found, "0.8")


def sampling() -> None:
    pipe = wb.load_pipeline("tiny-inpaint")
    pipe.set_progress_bar_config(disable=True)
    photo = wb.image.resize(wb.load_image("coffee"), (128, 128))
    given = {"image": photo, "mask_image": wb.mask.centre((128, 128), 0.25), "prompt": "a photo of a cup"}
    inputs = torch.randn(2, 9, 32, 32), 500, torch.randn(2, 48, pipe.unet.config.cross_attention_dim)
    with torch.no_grad():
        seconds = [timed(lambda: pipe.unet(*inputs)) for _ in range(5)]
        whole = min(timed(lambda: pipe(**given, num_inference_steps=30, output_type="pt")) for _ in range(2))
    print(f"30 guided steps: {whole:.1f} s, {whole / 30 / min(seconds):.2f} times the U-Net's own time; floor 4 s")


def timed(function) -> float:
    """Wall seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(folders) -> None:
    scenes = [wb.data.scene(name) for name in wb.data.scenes()]
    here = bundled()
    for model, measure in (
        ("tiny-vae", lambda: autoencoder(scenes)),
        ("tiny-classifier", lambda: naming(folders) if folders else print("classifier: no folders of views given")),
        ("tiny-depth", lambda: estimating(scenes)),
        ("tiny-t2i", prompting),
        ("tiny-inpaint", lambda: (sampling(), inpainting(scenes))),
    ):
        if model in here:
            measure()
        else:
            print(f"{model} is not in data/models: not measured")


if __name__ == "__main__":
    main(sys.argv[1:])
