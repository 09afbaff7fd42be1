"""Small pipelines of many kinds, with random weights, made in memory: each a call that takes milliseconds.

`KINDS` has a function for each: it returns the pipeline and the arguments of a call, a batch of two prompts where the
pipeline knows prompts. Pictures are 32 x 48 pixels, latents 8 x 12.
"""

import copy
import functools
import inspect

import numpy as np
import torch
from torch import nn

from workbench.diffusion import models
from workbench.diffusion.libraries import quiet
from workbench.diffusion.tokenizer import make_tokenizer

with quiet():
    import diffusers as d
    import transformers as tr

HEIGHT, WIDTH = 32, 48
PROMPTS = ["a photo of a red ball", "two small rooms"]
NEGATIVE = ["a dark picture", "no light"]


def seeded(make, *args, seed=0, **kwargs):
    """A network with weights of its own seed, ready to answer."""
    with models.seeded(seed), quiet():
        return make(*args, **kwargs).eval()


def image(seed=5, size=(HEIGHT, WIDTH), count=1):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def mask():
    found = torch.zeros(1, 1, HEIGHT, WIDTH)
    found[..., 8:20, 10:30] = 1
    return found


@functools.cache
def tokenizer():
    return make_tokenizer(["photo", "of", "red", "ball", "small", "room", "a"])


@functools.cache
def text_encoder(projected=False):
    config = {"vocab_size": len(tokenizer()), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
                  "num_attention_heads": 2, "max_position_embeddings": 48, "projection_dim": 32,
                  "bos_token_id": tokenizer().bos_token_id, "eos_token_id": tokenizer().eos_token_id}  # fmt: skip
    kind = tr.CLIPTextModelWithProjection if projected else tr.CLIPTextModel
    return seeded(kind, tr.CLIPTextConfig(**config))


@functools.cache
def t5():
    config = tr.T5Config(vocab_size=len(tokenizer()), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return seeded(tr.T5EncoderModel, config)


@functools.cache
def vae(channels=4, shift=None):
    return seeded(
        d.AutoencoderKL, block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, latent_channels=channels, norm_num_groups=4,
        sample_size=32, use_quant_conv=shift is None, use_post_quant_conv=shift is None, shift_factor=shift,
    )  # fmt: skip


def unet(in_channels=4, **others):
    settings = {
        "sample_size": 8, "in_channels": in_channels, "out_channels": 4, "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 2, "norm_num_groups": 4,
    } | others  # fmt: skip
    return seeded(d.UNet2DConditionModel, **settings)


def ddim(**others):
    return d.DDIMScheduler(**{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                              "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1} | others)  # fmt: skip


def assembled(kind, **parts):
    """A pipeline of these parts; what else its constructor wants is None or False."""
    missing = {}
    for name, parameter in list(inspect.signature(kind.__init__).parameters.items())[1:]:
        if name not in parts and parameter.default is inspect.Parameter.empty:
            missing[name] = None
    if "requires_safety_checker" in inspect.signature(kind.__init__).parameters:
        missing["requires_safety_checker"] = False
    with quiet():
        pipe = kind(**parts, **missing)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd(kind, channels=4, scheduler=None, **parts):
    base = {"vae": vae(), "text_encoder": text_encoder(), "tokenizer": tokenizer(), "unet": unet(channels)}
    return assembled(kind, **(base | {"scheduler": scheduler or ddim()} | parts))


def call(**others):
    return {"prompt": PROMPTS, "negative_prompt": NEGATIVE, "num_inference_steps": 4, "guidance_scale": 3.0,
                "output_type": "pt", "height": HEIGHT, "width": WIDTH} | others  # fmt: skip


def sized(arguments):
    """A call of a pipeline that takes the size from its picture."""
    return {name: value for name, value in arguments.items() if name not in ("height", "width")}


def sd_text():
    return sd(d.StableDiffusionPipeline), call(num_images_per_prompt=2)


def sd_image():
    return sd(d.StableDiffusionImg2ImgPipeline), sized(call(image=image(count=2), strength=0.8, num_inference_steps=5))


def sd_inpaint4():
    return sd(d.StableDiffusionInpaintPipeline), call(image=image(), mask_image=mask(), num_images_per_prompt=2)


def sd_inpaint9():
    return sd(d.StableDiffusionInpaintPipeline, 9), call(image=image(), mask_image=mask(), strength=1.0)


def sd2_v():
    return sd(d.StableDiffusionPipeline, scheduler=ddim(prediction_type="v_prediction")), call()


def sd_control():
    net = seeded(
        d.ControlNetModel, block_out_channels=(8, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        layers_per_block=1, cross_attention_dim=32, attention_head_dim=2, norm_num_groups=4, in_channels=4,
        conditioning_embedding_out_channels=(16, 16, 32),
    )  # fmt: skip
    return sd(d.StableDiffusionControlNetPipeline, controlnet=net), call(image=image())


def sd_control_inpaint():
    pipe, arguments = sd_control()
    pipe = sd(d.StableDiffusionControlNetInpaintPipeline, controlnet=pipe.controlnet)
    return pipe, arguments | {"image": image(), "mask_image": mask(), "control_image": image(6)}


def sdxl(kind=None, channels=4):
    net = unet(channels, addition_embed_type="text_time", addition_time_embed_dim=8, cross_attention_dim=64,
               projection_class_embeddings_input_dim=6 * 8 + 32, use_linear_projection=True)  # fmt: skip
    pipe = sd(kind or d.StableDiffusionXLPipeline, unet=net, text_encoder_2=text_encoder(True), tokenizer_2=tokenizer())
    return pipe, call()


def sdxl_image():
    return sdxl(d.StableDiffusionXLImg2ImgPipeline)[0], sized(
        call(image=image(count=2), strength=0.8, num_inference_steps=5)
    )


def sdxl_inpaint():
    return sdxl(d.StableDiffusionXLInpaintPipeline)[0], call(image=image(), mask_image=mask(), strength=0.99)


def sd3():
    net = seeded(
        d.SD3Transformer2DModel, sample_size=16, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=64, pooled_projection_dim=64,
        out_channels=4,
    )  # fmt: skip
    pipe = assembled(
        d.StableDiffusion3Pipeline, transformer=net, scheduler=d.FlowMatchEulerDiscreteScheduler(), vae=vae(4, 0.06),
        text_encoder=text_encoder(True), tokenizer=tokenizer(), text_encoder_2=text_encoder(True),
        tokenizer_2=tokenizer(), text_encoder_3=seeded(tr.T5EncoderModel, tr.T5Config(
            vocab_size=len(tokenizer()), d_model=64, d_kv=8, d_ff=32, num_layers=1, num_heads=2)),
        tokenizer_3=tokenizer(),
    )  # fmt: skip
    return pipe, call(max_sequence_length=16)


def _flux(kind, channels):
    net = seeded(
        d.FluxTransformer2DModel, patch_size=1, in_channels=channels, out_channels=16, num_layers=1,
        num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32,
        pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    return assembled(
        kind, transformer=net, scheduler=d.FlowMatchEulerDiscreteScheduler(), vae=vae(4, 0.06),
        text_encoder=text_encoder(), tokenizer=tokenizer(), text_encoder_2=t5(), tokenizer_2=tokenizer(),
    )  # fmt: skip


def flux():
    arguments = call(max_sequence_length=16, true_cfg_scale=2.0)
    return _flux(d.FluxPipeline, 16), arguments


def flux_fill():
    # latents 16, masked picture 16, mask 4 x 4 pixels in each of 2 x 2 cells: packed channels
    pipe = _flux(d.FluxFillPipeline, 16 + 16 + 64)
    arguments = call(image=image(), mask_image=mask(), max_sequence_length=16)
    arguments.pop("negative_prompt")
    return pipe, arguments


def pixart():
    net = seeded(
        d.PixArtTransformer2DModel, sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8,
        num_attention_heads=3, caption_channels=32, in_channels=4, cross_attention_dim=24, out_channels=8,
        attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000, norm_type="ada_norm_single",
        norm_elementwise_affine=False, use_additional_conditions=False,
    )  # fmt: skip
    pipe = assembled(d.PixArtAlphaPipeline, transformer=net, scheduler=ddim(), vae=vae(), text_encoder=t5(),
                     tokenizer=tokenizer())  # fmt: skip
    return pipe, call(use_resolution_binning=False, max_sequence_length=16, clean_caption=False)


def _kandinsky_parts(channels=4):
    net = seeded(
        d.UNet2DConditionModel, in_channels=channels, out_channels=8, addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", block_out_channels=(8, 16), layers_per_block=1,
        encoder_hid_dim=16, encoder_hid_dim_type="image_proj", cross_attention_dim=16, attention_head_dim=4,
        resnet_time_scale_shift="scale_shift", class_embed_type=None, norm_num_groups=4, sample_size=8,
    )  # fmt: skip
    movq = seeded(
        d.VQModel, block_out_channels=[32, 32], down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        in_channels=3, latent_channels=4, layers_per_block=1, norm_num_groups=4, norm_type="spatial",
        num_vq_embeddings=12, out_channels=3, up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        vq_embed_dim=4,
    )  # fmt: skip
    scheduler = ddim(beta_schedule="linear", steps_offset=0)
    return {"unet": net, "movq": movq, "scheduler": scheduler}


def _embeds():
    found = torch.randn(2, 2, 16, generator=torch.Generator().manual_seed(4))
    return {"image_embeds": found[0], "negative_image_embeds": found[1]}


def kandinsky():
    return assembled(d.KandinskyV22Pipeline, **_kandinsky_parts()), _without_prompts(call(**_embeds()))


def kandinsky_inpaint():
    embeds = {name: value[:1] for name, value in _embeds().items()}
    others = {"image": image() * 2 - 1, "mask_image": mask(), "num_images_per_prompt": 2}
    return assembled(d.KandinskyV22InpaintPipeline, **_kandinsky_parts(9)), _without_prompts(call(**embeds, **others))


def kandinsky_whole():
    """Prior and decoder in one call: two loops, two schedulers."""
    prior = seeded(d.PriorTransformer, num_attention_heads=2, attention_head_dim=8, embedding_dim=16, num_layers=1,
                   num_embeddings=48, additional_embeddings=4)  # fmt: skip
    prior.clip_std = nn.Parameter(torch.ones(prior.clip_std.shape))
    text = seeded(
        tr.CLIPTextModelWithProjection,
        tr.CLIPTextConfig(vocab_size=len(tokenizer()), hidden_size=16, projection_dim=16, intermediate_size=16,
                          num_attention_heads=2, num_hidden_layers=1, max_position_embeddings=48),
    )  # fmt: skip
    picture = seeded(
        tr.CLIPVisionModelWithProjection,
        tr.CLIPVisionConfig(hidden_size=16, image_size=32, projection_dim=16, intermediate_size=16,
                            num_attention_heads=2, num_hidden_layers=1, patch_size=16),
    )  # fmt: skip
    unclip = d.UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", num_train_timesteps=1000,
                               clip_sample=True, clip_sample_range=5.0)  # fmt: skip
    pipe = assembled(
        d.KandinskyV22CombinedPipeline, prior_prior=prior, prior_image_encoder=picture, prior_text_encoder=text,
        prior_tokenizer=tokenizer(), prior_scheduler=unclip, prior_image_processor=None, **_kandinsky_parts(),
    )  # fmt: skip
    return pipe, call(prior_num_inference_steps=3)


def _without_prompts(arguments):
    return {name: value for name, value in arguments.items() if "prompt" not in name}


def lcm():
    net = unet(time_cond_proj_dim=16)
    scheduler = d.LCMScheduler(**{k: v for k, v in ddim().config.items() if not k.startswith("_")})
    arguments = call()
    arguments.pop("negative_prompt")
    return sd(d.LatentConsistencyModelPipeline, unet=net, scheduler=scheduler), arguments


def pix2pix():
    """Guided by prompt and picture: three predictions a step."""
    arguments = sized(call(image=image(count=2), image_guidance_scale=1.5))
    return sd(d.StableDiffusionInstructPix2PixPipeline, 8), arguments


def upscale():
    """The older callback only, and a second scheduler that only adds noise."""
    decoder = seeded(d.AutoencoderKL.from_config, {**vae().config, "scaling_factor": 0.08333})
    parts = {"unet": unet(7, num_class_embeds=1000), "vae": decoder, "low_res_scheduler": d.DDPMScheduler()}
    pipe = sd(d.StableDiffusionUpscalePipeline, max_noise_level=350, **parts)
    return pipe, sized(call(image=image(size=(8, 12), count=2), noise_level=20))


def dit():
    """Class labels, doubled latents, no callback, arrays instead of tensors."""
    net = seeded(
        d.DiTTransformer2DModel, sample_size=8, num_layers=1, patch_size=4, attention_head_dim=8,
        num_attention_heads=2, in_channels=4, out_channels=8, attention_bias=True, num_embeds_ada_norm=1000,
        norm_elementwise_affine=False, activation_fn="gelu-approximate",
    )  # fmt: skip
    pipe = assembled(d.DiTPipeline, transformer=net, vae=vae(), scheduler=ddim())
    return pipe, {"class_labels": [1, 2], "num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "np"}


def ddpm():
    """Pixels, no prompt, no callback; its latents are called image."""
    net = seeded(d.UNet2DModel, sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
                 down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=4,
                 up_block_types=("AttnUpBlock2D", "UpBlock2D"))  # fmt: skip
    pipe = assembled(d.DDPMPipeline, unet=net, scheduler=d.DDPMScheduler())
    return pipe, {"batch_size": 2, "num_inference_steps": 4, "output_type": "np"}


class HomeMade(d.DiffusionPipeline):
    """Neither progress bar nor callback nor prompt; blends in a picture, and steers by the last prediction too."""

    def __init__(self, net, scheduler):
        super().__init__()
        self.register_modules(net=net, scheduler=scheduler)

    @torch.inference_mode()
    def __call__(self, known, steps=4, generator=None):
        self.scheduler.set_timesteps(steps)
        x = torch.randn(2, 4, 8, 12, generator=generator) * self.scheduler.init_noise_sigma
        keep = torch.zeros(1, 1, 8, 12)
        keep[..., :5] = 1
        momentum = torch.zeros_like(x)
        for t in self.scheduler.timesteps:
            seen = self.scheduler.scale_model_input(x, t)
            predicted = self.net(seen, t, torch.zeros(2, 3, 32)).sample
            momentum = 0.5 * momentum + predicted
            extra = {"generator": generator} if "generator" in inspect.signature(self.scheduler.step).parameters else {}
            x = self.scheduler.step(predicted + 0.1 * momentum, t, x, **extra).prev_sample
            noisy = self.scheduler.add_noise(known, torch.randn(x.shape, generator=generator), t.reshape(1))
            x = keep * noisy + (1 - keep) * x
        return (x[:, :3].sigmoid(),)


def home_made():
    pipe = HomeMade(unet(), ddim())
    pipe.set_progress_bar_config(disable=True)
    return pipe, {"known": torch.rand(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))}


KINDS = {
    make.__name__: make
    for make in (
        sd_text, sd_image, sd_inpaint4, sd_inpaint9, sd2_v, sd_control, sd_control_inpaint, sdxl, sdxl_image,
        sdxl_inpaint, sd3, flux, flux_fill, pixart, kandinsky, kandinsky_inpaint, kandinsky_whole, lcm, pix2pix,
        upscale, dit, ddpm, home_made,
    )
}  # fmt: skip


NEEDS = {"DPMSolverSDEScheduler": "torchsde"}
"""Scheduler -> the package it needs beside diffusers."""

NO_GENERATOR = "step() got an unexpected keyword argument 'generator'"
"""What a scheduler says that draws nothing to a pipeline that hands its generator to every scheduler."""
REFUSED = {
    (kind, f"{name}Scheduler"): NO_GENERATOR
    for kind in ("kandinsky", "kandinsky_inpaint", "ddpm")
    for name in (
        "DEISMultistep", "DPMSolverSDE", "HeunDiscrete", "KDPM2Discrete", "LMSDiscrete", "PNDM", "UniPCMultistep",
    )
}  # fmt: skip
"""(pipeline, scheduler) -> what diffusers' own call says to the pair, though it calls the two compatible."""


@functools.cache
def _made(kind: str):
    return KINDS[kind]()


def made(kind: str):
    """A pipeline and the arguments of its call; shared, so that a test that changes either takes `fresh`."""
    pipe, arguments = _made(kind)
    return pipe, dict(arguments)


def fresh(kind: str, scheduler=None):
    """The same on a copy of the pipeline, with a scheduler of its own."""
    pipe, arguments = made(kind)
    pipe = copy.copy(pipe)
    if scheduler is not None:
        pipe.scheduler = scheduler
    return pipe, arguments


def plain(pipe, arguments: dict, seed: int = 3):
    """What the pipeline's own call gives, as tensors."""
    with quiet():
        out = pipe(**arguments, generator=torch.Generator().manual_seed(seed))
    return pixels(out)


def pixels(out):
    """The first thing a pipeline returned, as a tensor."""
    first = out[0]
    return torch.from_numpy(first) if isinstance(first, np.ndarray) else first


def schedulers(kind: str):
    """Classes that the pipeline's scheduler calls compatible, itself first."""
    own = type(_made(kind)[0].scheduler)
    others = {c for c in _made(kind)[0].scheduler.compatibles if c is not own}
    return [own, *sorted(others, key=lambda c: c.__name__)]
