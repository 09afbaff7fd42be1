"""Every network at its published size, with random weights: that one step of each method runs, and what it takes.

Only pictures are small, 64 x 64 pixels, and prompts short, so that a step takes seconds of one core and not minutes;
activations grow with the picture, and what is said of memory here is the weights' share. Weights are bf16 where the
processor computes with it, float32 elsewhere: what emulates bf16 takes minutes a step. Sizes of the networks are those
of the published configurations, and numbers of weights say so.
"""

import gc
import re
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from workbench import mask as masks
from workbench.diffusion import models
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.libraries import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    quiet,
)
from workbench.diffusion.tokenizer import make_tokenizer
from workbench.diffusion.training import Task
from workbench.diffusion.training_data import generator
from workbench.methods import diffumatting, mimicbrush, realfill, spl
from workbench.methods.diffumatting.data import Matte, on_green
from workbench.methods.mimicbrush.conditions import ClipStates, ReleasedDepth
from workbench.methods.mimicbrush.model import MimicBrush
from workbench.methods.mimicbrush.networks import make_imitator
from workbench.methods.mimicbrush.pairs import Pair
from workbench.methods.mimicbrush.sampling import sample
from workbench.methods.mimicbrush.train import Imitation, MimicTask
from workbench.methods.spl.teachers import Teacher
from workbench.methods.spl.train import Distilling
from workbench.methods.spl.tresnet import make_tresnet
from workbench.stepping.training import TrainingRun

pytestmark = pytest.mark.slow

SIDE, TOKENS = 64, 16
DTYPE = torch.bfloat16 if models.computes_bf16("cpu") else torch.float32
LIMIT = 16
"""GiB that none of them may come near to."""
UNET = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2}
UNETS = {
    1: {**UNET, "attention_head_dim": 8, "cross_attention_dim": 768},
    2: {**UNET, "attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True},
}
"""Stable Diffusion 1.5 and 2, as their configurations have it."""
TEXTS = {
    1: {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    2: {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
        "hidden_act": "gelu"},
}  # fmt: skip
"""CLIP ViT-L/14's text transformer, and OpenCLIP ViT-H/14's without its last layer."""
WEIGHTS = {
    "unet": {(1, 4): 859_520_964, (1, 9): 859_535_364, (1, 13): 859_546_884, (2, 9): 865_925_124},
    "text": {1: 123_060_480, 2: 340_387_840},
    "vae": 83_653_863,
}


@pytest.fixture
def peak():
    """The largest memory resident since the test began, in GiB, as a function: Linux counts it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()

    def largest():
        return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20

    yield largest
    print(f" peak {largest():.1f} GiB, {time.process_time() - started:.0f} s of the processor")


def filled(make, seed):
    """A network whose weights are drawn fast: to initialise each as its class does takes longer than a step."""
    with quiet(), torch.device("meta"):
        network = make().to(DTYPE)
    network.to_empty(device="cpu")
    rng = torch.Generator().manual_seed(seed)
    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            if isinstance(module, (nn.GroupNorm, nn.LayerNorm)) or weight.ndim < 2:
                weight.data.fill_(float(name == "weight"))
                continue
            drawn = torch.randn(4099, generator=rng) / weight[0].numel() ** 0.5  # a prime, so that no two rows agree
            weight.data.view(-1).copy_(drawn.repeat(-(-weight.numel() // 4099))[: weight.numel()])
        for name, buffer in module.named_buffers(recurse=False):
            assert name == "position_ids"
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return network.to(memory_format=torch.channels_last).eval()


def unet(version, channels):
    """Stable Diffusion's denoiser, told that it was trained with pictures of 64 x 64."""
    network = filled(
        lambda: UNet2DConditionModel(sample_size=SIDE // 8, in_channels=channels, **UNETS[version]), channels
    )
    assert models.parameters(network) == WEIGHTS["unet"][version, channels]
    return network


def autoencoder():
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    sizes = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512}
    vae = filled(lambda: AutoencoderKL(**blocks, **sizes), 1)
    assert models.parameters(vae) == WEIGHTS["vae"]
    return vae


def pipeline(version, channels):
    """Stable Diffusion 1.5 or 2, for inpainting if it takes nine channels; ours is the tokenizer alone."""
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = TOKENS
    text = filled(lambda: CLIPTextModel(CLIPTextConfig(vocab_size=49408, **TEXTS[version])), 2)
    assert models.parameters(text) == WEIGHTS["text"][version]
    kind = StableDiffusionInpaintPipeline if channels == 9 else StableDiffusionPipeline
    pipe = assemble(kind, autoencoder(), text, tokenizer, unet(version, channels))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(seed):
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


HOLE = masks.box((SIDE, SIDE), (16, 24, 48, 40))


def test_realfill(peak):
    """Stable Diffusion 2 for inpainting: one update with the published numbers but the batch's, one step of sampling.

    Measured in float32: 5.6 GiB at most. (In bf16, as far as the beginning of the backward pass: 3.2 GiB.)
    """
    pipe = pipeline(2, 9)
    before = pipe.unet.conv_in.weight.clone()
    settings = realfill.PUBLISHED | {"batch_size": 1, "crops": 1, "memory": 0}
    run = realfill.fine_tune(pipe, [picture(0)], picture(1), HOLE, gradient_checkpointing=True, **settings)
    state = run.step()
    assert state.fault is None
    assert 0 < state.loss < 100
    assert {name.split(".")[0] for name, norm in state.update_norms.items() if norm > 0} == {"unet", "text_encoder"}
    assert torch.equal(pipe.unet.conv_in.weight, before)
    *_, last = realfill.fill(picture(1), HOLE, references=[picture(0)], training=run, samples=1, num_inference_steps=1)
    assert last.image.shape == (1, 3, SIDE, SIDE)
    assert last.image.isfinite().all()
    assert peak() < LIMIT


class Brightness(nn.Module):
    """Stands in for Depth Anything."""

    def forward(self, pixel_values):
        return type("Output", (), {"predicted_depth": pixel_values.mean(1)})()


def imitating_model():
    """Both U-Nets at full size; of the image encoder, ViT-H/14, two layers."""
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "patch_size": 14}
    tower = filled(lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(num_hidden_layers=2, **sizes)), 3)
    imitator = make_imitator(unet(1, 9), unet(1, 4), 1280, factor=8)
    assert models.parameters(imitator.unet) == WEIGHTS["unet"][1, 13]
    model = MimicBrush(imitator, autoencoder(), ClipStates(tower), ReleasedDepth(Brightness(), 56))
    return model.to(DTYPE).eval()


def test_mimicbrush(peak):
    """Stable Diffusion 1.5 twice, 13 and 4 channels: a step of sampling with guidance, and one update of the first.

    Measured in float32, after the test of RealFill: 11.2 GiB at most.
    """
    model = imitating_model()
    given = model.conditions(picture(0), HOLE, picture(1))
    (look,) = sample(model, given, num_inference_steps=1)
    assert look.latents.shape == (1, 4, SIDE // 8, SIDE // 8)
    assert model.decode(look.latents).isfinite().all()
    assert not torch.equal(look.noise_pred_uncond, look.noise_pred_reference)

    pair = Pair(picture(0), HOLE, picture(1), "video", 0.7, "not")
    task = MimicTask(model, mimicbrush.encode_pairs(model, [pair]), [pair], reference_dropout=0)
    assert isinstance(task.objective, Imitation)
    learns = [p for p in task.objective.parameters() if p.requires_grad]
    before = model.imitator.unet.conv_in.weight.detach().clone()
    losses = task.objective(task.batch([[0, 0, 0]]))
    losses["loss"].backward()
    assert 0 < losses["loss"].item() < float("inf")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learns)
    torch.optim.SGD(learns, 1.0).step()  # the moments of AdamW would take the weights' memory twice more
    assert not torch.equal(model.imitator.unet.conv_in.weight, before)
    assert not any(p.requires_grad for p in task.objective.imitator.reference.parameters())
    assert peak() < LIMIT


def test_diffumatting(peak):
    """Stable Diffusion 1.5: one update of the LoRA and the matting head, with all losses.

    Measured in float32: 6.1 GiB at most.
    """
    pipe = pipeline(1, 4)
    alpha = torch.linspace(0, 1, SIDE).expand(1, 1, SIDE, SIDE).contiguous()
    example = on_green(Matte(picture(0), alpha, "a photo of a ball"))
    task = diffumatting.DiffuMattingTask(pipe, [example], prompt_dropout=0.0)
    run = TrainingRun(task, batch_size=1, learning_rate=1e-4, memory=0)
    state = run.step()
    assert state.fault is None
    assert {"denoising", "green", "detail", "matting"} <= state.losses.keys()
    assert all(0 < state.losses[name] < float("inf") for name in ("denoising", "green", "detail", "matting"))
    assert {name.split(".")[0] for name, norm in state.update_norms.items() if norm > 0} == {"unet", "head"}
    assert peak() < LIMIT


class Whole(Task):
    """SPL's losses on one picture of the released size; `SplTask` draws those of the bundled one."""

    name = "spl"

    def __init__(self, objective, side):
        self.objective, self.side = objective, side

    def batch(self, numbers):
        images = [torch.from_numpy(generator(*number).random((3, self.side, self.side))).float() for number in numbers]
        hole = masks.irregular((self.side, self.side), 0.3, 0).expand(len(images), -1, -1, -1)
        return {"image": torch.stack(images), "mask": hole, "prior_weight": torch.ones(())}


def test_spl(peak):
    """The released generator, discriminator and teacher, TResNet-L, float32, 256 x 256: one update, one forward pass.

    Memory has not been measured yet.
    """
    network = spl.make_spl(**spl.PAPER)
    assert models.parameters(network) == 45_597_223
    teacher = Teacher(make_tresnet(), "layer2", enlarge=2)
    task = Whole(Distilling(network, teacher, widths=(64, 128, 256, 512)), 256)
    run = TrainingRun(task, batch_size=1, learning_rate=1e-4, memory=0)
    state = run.step()
    assert state.fault is None
    assert all(0 < state.losses[name] < float("inf") for name in ("image", "prior", "fooled", "told_apart"))
    batch = task.batch([[0, 0, 0]])
    done = spl.complete(network.eval(), batch["image"], batch["mask"])
    assert done.image.shape == (1, 3, 256, 256)
    assert done.prior.shape == (1, 256, 64, 64)
    assert done.teacher_features.shape == (1, 152, 64, 64)
    assert done.image.isfinite().all()
    assert peak() < LIMIT
