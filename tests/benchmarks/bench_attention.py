"""What recording attention costs, against the plain call and, where it is here, the package attention-map-diffusers.

    python tests/benchmarks/bench_attention.py [--size 256] [--steps 6] [--turns 20]

A text-to-image pipeline with random weights, the bundled size. Times are the processor's. What recording adds does not
depend on the rest of the network and is less than what a call varies by; so it is timed where residual blocks and
feed-forward layers give zeros at once, and told as a share of the true plain call. Each turn makes every call once,
between two plain ones; the median over turns of what a call takes longer than these is told. Memory is what a process
of its own peaks at above the plain call's peak. Of the other package (not a dependency: ``pip install --no-deps
--target DIR attention-map-diffusers``, then PYTHONPATH=DIR) both modes are taken, with every step and the mean over
heads kept: the maps that ours keeps with ``keep="tokens"``.
"""

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.resnet import ResnetBlock2D

sys.path.insert(0, str(Path(__file__).parents[2]))

from workbench.diffusion import models
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.libraries import StableDiffusionPipeline, quiet
from workbench.diffusion.tokenizer import make_tokenizer
from workbench.lenses import record_attention

ROOT = Path(__file__).parents[2]
PROMPT = "a photo of a red ball"


def made(size: int, steps: int):
    """A pipeline and the arguments of its call, which decodes nothing."""
    tokenizer = make_tokenizer()
    parts = models.make_autoencoder(4), models.make_text_encoder(tokenizer), tokenizer, models.make_denoiser(4, 4)
    pipe = assemble(StableDiffusionPipeline, *(p.eval() if isinstance(p, torch.nn.Module) else p for p in parts))
    pipe.set_progress_bar_config(disable=True)
    arguments = {"prompt": PROMPT, "guidance_scale": 3.0, "num_inference_steps": steps, "height": size, "width": size}
    return pipe, arguments | {"output_type": "latent"}


def three(pipe) -> list[str]:
    """Cross-attention of one layer on the way down, in the middle and up."""
    names = record_attention(pipe, "attn2").layers
    return [next(name for name in names if block in name) for block in ("down", "mid", "up")]


def theirs(mode: str):
    """The other package's context for a pipeline, or None."""
    try:
        from attention_map_diffusers import AttentionCapture
    except ImportError:
        return None
    return lambda pipe: AttentionCapture(pipe, relations="image->text", timesteps="all", heads="mean", mode=mode)


def ways(pipe) -> dict:
    """Name -> a context and what makes the maps of every step and layer once the call is over."""

    def maps(attention):
        return [entry.text(0) for entry in attention._tape.entries.values() if "text" in entry.layout.keys]

    few = three(pipe)
    found = {
        "plain": (nullcontext, None),
        "3 layers": (lambda: record_attention(pipe, few, kinds="cross"), maps),
        "all cross": (lambda: record_attention(pipe, "attn2", kinds="cross"), maps),
        "all cross, keep=tokens": (lambda: record_attention(pipe, "attn2", kinds="cross", keep="tokens"), maps),
        "cross and self": (lambda: record_attention(pipe), maps),
    }
    for mode in ("fast", "exact"):
        if theirs(mode) is not None:
            found[f"theirs, {mode}"] = (lambda mode=mode: theirs(mode)(pipe), lambda capture: capture.compute())
    return found


def tensors() -> int:
    """Bytes of all tensors there are."""
    gc.collect()
    kept = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor and not thing.is_meta:
            kept[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(kept.values())


def timed(pipe, arguments: dict, way, keeps: bool = False) -> tuple[float, float, int | None]:
    """Seconds of the call, seconds of making the maps afterwards, with ``keeps`` bytes kept when the call is over."""
    context, maps = way
    before = tensors() if keeps else 0
    start = time.process_time()
    with context() as recorded:
        pipe(**arguments, generator=torch.Generator().manual_seed(0))
    called = time.process_time() - start
    kept = tensors() - before if keeps else None
    start = time.process_time()
    if maps is not None:
        with torch.no_grad():
            maps(recorded)
    return called, time.process_time() - start, kept


def hollow(pipe) -> None:
    """Leaves of a denoiser's work only what attention needs."""
    for module in pipe.unet.modules():
        if isinstance(module, ResnetBlock2D):
            module.forward = lambda x, *_, wide=module.out_channels, **__: x.new_zeros(len(x), wide, *x.shape[2:])
        elif isinstance(module, FeedForward):
            module.forward = lambda x, *_, **__: torch.zeros_like(x)


def turn(pipe, arguments: dict, found: dict) -> dict[str, tuple[float, float]]:
    """Name -> seconds by which the call, and the call with all maps made, takes longer than the plain ones about it."""
    plain, added = [timed(pipe, arguments, found["plain"])[0]], {}
    for name, way in found.items():
        if name != "plain":
            called, maps, _ = timed(pipe, arguments, way)
            plain.append(timed(pipe, arguments, found["plain"])[0])
            base = statistics.mean(plain[-2:])
            added[name] = called - base, called + maps - base
    return added


def peak(name: str, size: int, steps: int) -> float:
    """MiB that a process peaks at, which makes the call, and the maps, in one way."""
    command = [sys.executable, __file__, "--size", str(size), "--steps", str(steps), "--peak", name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--only", nargs="+", help="beginnings of the names of the ways to call; all where left out")
    parser.add_argument("--no-peaks", action="store_true", help="start no processes of their own")
    parser.add_argument("--peak", help="for those processes")
    given = parser.parse_args()
    with quiet():
        pipe, arguments = made(given.size, given.steps)
        if given.peak:
            timed(pipe, arguments, ways(pipe)[given.peak])
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        found = ways(pipe)
        if given.only:
            found = {name: way for name, way in found.items() if name.startswith(("plain", *given.only))}
        kept = {name: timed(pipe, arguments, way, keeps=True)[2] for name, way in found.items()}  # and warm
        plain = statistics.median(timed(pipe, arguments, found["plain"])[0] for _ in range(9))
        hollow(pipe)
        turns = [turn(pipe, arguments, found) for _ in range(given.turns)]
    base = 0 if given.no_peaks else peak("plain", given.size, given.steps)
    print(f"plain: {plain:.2f} s, {given.steps} steps of {given.size} px, peak {base:.0f} MiB")
    for name in found:
        if name == "plain":
            continue
        called, whole = (statistics.median(added[name][n] / plain for added in turns) for n in range(2))
        above = "" if given.no_peaks else f", peak {peak(name, given.size, given.steps) - base:+.0f} MiB"
        print(
            f"{name}: {100 * called:+.1f} % of the call, with all maps made {100 * whole:+.1f} %; "
            f"keeps {kept[name] / 2**20:.1f} MiB{above}"
        )
    if theirs("fast") is None:
        print("attention-map-diffusers is not installed: nothing to compare with")


if __name__ == "__main__":
    main()
