"""What recording a denoising run costs, against the plain call in the same process.

    python tests/benchmarks/bench_stepping.py [--quick]

Models have random weights. Times are the least of several turns, taken in turns, as other programs disturb.
"""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.stepping.test_exactness import restarted
from tests.stepping.test_state import counted
from workbench.diffusion import models
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.libraries import StableDiffusionInpaintPipeline, StableDiffusionPipeline, quiet
from workbench.diffusion.tokenizer import make_tokenizer
from workbench.stepping.denoising import DenoisingRun


def tiny():
    """The bundled inpainting pipeline's sizes: f = 4, 128 x 128 pixels."""
    tokenizer = make_tokenizer()
    parts = models.make_autoencoder(4), models.make_text_encoder(tokenizer), tokenizer, models.make_denoiser(4, 9)
    pipe = assemble(StableDiffusionInpaintPipeline, *(p.eval() if isinstance(p, torch.nn.Module) else p for p in parts))
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 30:80, 40:100] = 1
    arguments = {"prompt": "a photo of a room", "image": torch.rand(1, 3, 128, 128), "mask_image": mask}
    return pipe, arguments | {"guidance_scale": 3.0, "output_type": "pt", "height": 128, "width": 128}


def full():
    """Stable Diffusion 1.5's U-Net, 860 M parameters, at 64 x 64 latents; the other parts small."""
    from diffusers import UNet2DConditionModel

    tokenizer = make_tokenizer()
    with quiet(), torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8,
                                    block_out_channels=(320, 640, 1280, 1280))  # fmt: skip
    unet = unet.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for weight in unet.parameters():  # filled fast: what is in them does not matter here
        weight.data.copy_(0.02 * torch.randn(1000, generator=generator).repeat(-(-weight.numel() // 1000))
                          [: weight.numel()].reshape(weight.shape))  # fmt: skip
    text = models.make_text_encoder(tokenizer, width=768, layers=1).eval()
    vae = models.make_autoencoder(8, (8, 8, 8, 8)).eval()
    pipe = assemble(StableDiffusionPipeline, vae, text, tokenizer, unet)
    return pipe, {
        "prompt": "a photo of a room",
        "guidance_scale": 1.0,
        "output_type": "latent",
        "height": 512,
        "width": 512,
    }


def overhead(pipe, arguments: dict, turns: int) -> tuple[float, float]:
    """Seconds of the plain call and of a recorded run."""
    plain, recorded = [], []
    for _ in range(turns):
        start = time.perf_counter()
        pipe(**arguments, generator=torch.Generator().manual_seed(0))
        plain.append(time.perf_counter() - start)
        start = time.perf_counter()
        DenoisingRun(pipe, seed=0, **arguments).finish()
        recorded.append(time.perf_counter() - start)
    return min(plain), min(recorded)


def tell_overhead(name: str, pipe, arguments: dict, turns: int, allowed: float) -> None:
    plain, recorded = overhead(pipe, arguments, turns)
    print(
        f"{name}: {arguments['num_inference_steps']} steps plain {plain:.2f} s, recorded {recorded:.2f} s: "
        f"{100 * (recorded / plain - 1):+.1f} % (at most {100 * allowed:.0f} %)"
    )


def tell_going_back(pipe, arguments: dict) -> None:
    run = DenoisingRun(pipe, seed=0, **arguments)
    run.goto(50)
    start = time.perf_counter()
    run.goto(49)
    moved = time.perf_counter() - start
    live = DenoisingRun(pipe, seed=0, **arguments)
    live.goto(3)
    start = time.perf_counter()
    live.step()
    step = time.perf_counter() - start
    seconds = []
    for i in (0, 1, 10, 25, 49, 50):
        run._drop()
        with counted(pipe) as calls:
            start = time.perf_counter()
            branch = run.branch(at=i)
            assert branch.state.digest == run.states[i].digest
            seconds.append(time.perf_counter() - start)
        assert calls == []
    print(
        f"going back from step 50 to a recorded one: {1000 * moved:.1f} ms; ready to go on live from any step: at most "
        f"{max(seconds):.3f} s (at most 0.3 s), {max(seconds) / step:.1f} times a step, no denoiser call"
    )
    sizes = [entry.bytes for entry in run._shelf._entries]
    print(f"a step takes {max(sizes) / 1024:.0f} KiB, {max(sizes) / run.state.latents.nbytes:.1f} times its latents")


def tell_restarting() -> None:
    from diffusers import DPMSolverMultistepScheduler, LMSDiscreteScheduler, UniPCMultistepScheduler

    from tests.stepping import pipelines

    for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler, LMSDiscreteScheduler):
        pipe, arguments = pipelines.fresh("sd_text", kind.from_config(pipelines.ddim().config))
        run = DenoisingRun(pipe, seed=0, **arguments)
        wanted = run.finish().images
        ours = (run.branch(at=2).finish().images - wanted).abs().max().item()
        theirs = (restarted(run, 2) - wanted).abs().max().item()
        print(
            f"{kind.__name__}: error after going on from step 2: restarted from latents {theirs:.1e}, branched {ours:g}"
        )


def main() -> None:
    pipe, arguments = tiny()
    pipe.set_progress_bar_config(disable=True)
    with quiet():
        tell_overhead("tiny-inpaint", pipe, arguments | {"num_inference_steps": 30}, 4, 0.25)
        tell_going_back(pipe, arguments | {"num_inference_steps": 50})
        tell_restarting()
        if "--quick" not in sys.argv:
            pipe, arguments = full()
            pipe.set_progress_bar_config(disable=True)
            tell_overhead("full-size U-Net", pipe, arguments | {"num_inference_steps": 2}, 2, 0.05)


if __name__ == "__main__":
    main()
