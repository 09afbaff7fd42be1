"""RealFill's floors: python tests/benchmarks/bench_realfill.py [SCENES [STEPS]]

Speed: seconds an update takes, against the structure of diffusers' published example at equal work (pipeline, LoRA,
optimiser and batch). There every update encodes each picture and each masked picture anew. Without tiny-inpaint this is
measured on a model of its size with random weights.

Quality (needs tiny-inpaint): PSNR in the hole over the benchmark's scenes, with four references and without, what
the bent references alone bring and what a start from them, the autoencoder's own ceiling, and the seconds of
fine-tuning. One hole a scene, its kinds in turn. Each number stands with its 95 % interval.
"""

import sys
import time

import numpy as np
import torch

import workbench as wb
from workbench.diffusion import bundled, models
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.latents import masked_image
from workbench.diffusion.libraries import DDPMScheduler, StableDiffusionInpaintPipeline
from workbench.diffusion.lora import TEXT_TARGETS, UNET_TARGETS, add_lora, remove_lora
from workbench.diffusion.tokenizer import make_tokenizer, token_ids
from workbench.diffusion.vae import load_autoencoder, round_trip
from workbench.methods.realfill import fine_tune, sample, warp

HOLES = ("side", "centre", "object", "irregular", "outpaint")
UPDATES = 20
SEEDS = range(4)
"""Samples of each scene; their mean counts, nothing is chosen."""


def told(name: str, values, floor: str = "", unit: str = " dB") -> None:
    """Prints mean and interval."""
    low, high = wb.metrics.bootstrap_interval(values)
    print(f"{name}: {np.mean(values):.2f}{unit} [{low:.2f}, {high:.2f}], n = {len(values)}{floor}", flush=True)


def plain_updates(pipe, pictures, mask, count: int, seed: int = 0):
    """The published example's loop: a batch is every picture once, and nothing of it is kept. Yields the losses."""
    rank = 8
    add_lora(pipe.unet, rank, targets=UNET_TARGETS)
    add_lora(pipe.text_encoder, rank, targets=TEXT_TARGETS)
    learns = [p for part in (pipe.unet, pipe.text_encoder) for p in part.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, 1e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    ids = token_ids(pipe.tokenizer, ["a photo of sks"] * len(pictures))
    weight = torch.cat([torch.ones(len(pictures) - 1, *mask.shape[1:]), 1 - mask])  # (B, 1, H, W)
    factor, scale = pipe.vae_scale_factor, pipe.vae.config.scaling_factor
    generator = torch.Generator().manual_seed(seed)
    for step in range(count):
        drawn = [wb.mask.rectangles(mask.shape[-2:], seed=step * len(pictures) + k) for k in range(len(pictures))]
        holes = torch.cat(drawn)
        with torch.no_grad():
            latents = pipe.vae.encode(wb.image.to_signed(pictures)).latent_dist.sample(generator) * scale
            masked = pipe.vae.encode(masked_image(pictures, holes)).latent_dist.sample(generator) * scale
        noise = torch.randn(latents.shape, generator=generator)
        t = torch.randint(0, 1000, (len(pictures),), generator=generator)
        small = [wb.mask.to_latent(m, "nearest", factor) for m in (holes, weight)]
        given = torch.cat([scheduler.add_noise(latents, noise, t), small[0], masked], 1)  # (B, 9, h, w)
        predicted = pipe.unet(given, t, pipe.text_encoder(ids)[0]).sample
        loss = (small[1] * (predicted - noise) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learns, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()
    remove_lora(pipe.unet)
    remove_lora(pipe.text_encoder)


def seconds_each(updates) -> float:
    """Median seconds of an update, the first two left out."""
    seconds, start = [], time.perf_counter()
    for _ in updates:
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return float(np.median(seconds[2:]))


def ours(run, count: int):
    for _ in range(count):
        run.step()
        yield


def speed(pipe, scene) -> None:
    """Both loops in one process, the same batch: references and target."""
    mask = scene.masks["side"]
    pictures = torch.cat([*scene.references, scene.target])
    plain = seconds_each(plain_updates(pipe, pictures, mask, UPDATES))
    for told_as, holes in (("latents kept", 4), ("new holes in every update", None)):
        run = fine_tune(pipe, scene.references, scene.target, mask, batch_size=len(pictures), lora_dropout=0.0,
                        steps=None, holes_each=holes, rank=8)  # fmt: skip
        if holes:
            for row in range(len(run.task.images)):
                run.task._parts(row)  # all latents, as after the first updates
        each = seconds_each(ours(run, UPDATES))
        print(f"an update, {told_as}: {each:.3f} s, {plain / each:.2f} times as fast as the plain loop's {plain:.3f} s")
    print("floor 1.5")
    remove_lora(pipe.unet)
    remove_lora(pipe.text_encoder)


def quality(pipe, scenes, steps: int) -> None:
    vae = load_autoencoder()
    ways = (
        "without references",
        "RealFill",
        "bent references alone",
        "begun with them, nothing learnt",
        "RealFill, begun with them",
        "autoencoder's ceiling",
    )
    gains, found, seconds = [], {way: [] for way in ways}, []
    for number, scene in enumerate(scenes):
        target, mask = scene.target, scene.masks[HOLES[number % len(HOLES)]]

        def psnr(images, target=target, mask=mask):
            return wb.metrics.psnr(images, target.expand_as(images), mask).mean().item()

        found["without references"].append(psnr(sample(pipe, target, mask, SEEDS, prompt=scene.caption)))
        bent = {"references": scene.references[:4], "start": "warp", "progress": False}
        found["begun with them, nothing learnt"].append(
            psnr(wb.inpaint(target, mask, "realfill", pipe=pipe, steps=0, **bent).image)
        )
        run = fine_tune(pipe, scene.references[:4], target, mask, steps=steps, memory=16)
        start = time.perf_counter()
        run.run(steps)
        seconds.append(time.perf_counter() - start)
        found["RealFill"].append(psnr(sample(run.pipe, target, mask, SEEDS)))
        found["bent references alone"].append(psnr(warp(target, mask, scene.references[:4])[0]))
        found["RealFill, begun with them"].append(
            psnr(wb.inpaint(target, mask, "realfill", training=run, **bent).image)
        )
        found["autoencoder's ceiling"].append(psnr(round_trip(vae, target)))
        gains.append(found["RealFill"][-1] - found["without references"][-1])
        remove_lora(pipe.unet)
        remove_lora(pipe.text_encoder)
        print(f"  {scene.name}: {gains[-1]:+.2f} dB, {seconds[-1]:.0f} s", flush=True)
    for name, values in found.items():
        told(name, values)
    told("gain", gains, "; floor 5 dB")
    told("fine-tuning", seconds, "; floor 90 s", " s")


def random_pipeline():
    """The bundled model's size without its training."""
    tokenizer = make_tokenizer()
    vae = load_autoencoder()
    unet = models.make_denoiser(2 ** (len(vae.config.block_out_channels) - 1), 9)
    return assemble(StableDiffusionInpaintPipeline, vae, models.make_text_encoder(tokenizer), tokenizer, unet)


def main(count: int = 24, steps: int = 120) -> None:
    scenes = [wb.data.scene(name) for name in wb.data.scenes()[:count]]
    trained = "tiny-inpaint" in bundled()
    pipe = wb.load_pipeline("tiny-inpaint") if trained else random_pipeline()
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False)
    speed(pipe, scenes[0])
    if trained:
        quality(pipe, scenes, steps)
    else:
        print("tiny-inpaint is not in data/models: quality not measured")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
