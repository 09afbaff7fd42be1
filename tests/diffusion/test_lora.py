"""LoRA: nothing changes at first, norms by hand, other ranks, files that diffusers reads, and the task."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from workbench import mask as masks
from workbench.diffusion import lora, models
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.latents import encode_moments, masked_image
from workbench.diffusion.libraries import StableDiffusionInpaintPipeline, StableDiffusionPipeline
from workbench.diffusion.lora import ADAPTER, add_lora, borrowed, lora_layers, lora_update, remove_lora
from workbench.diffusion.lora_task import LoraTask

SIZE = (64, 96)  # (H, W)


@pytest.fixture
def pipe(narrow):
    """An inpainting pipeline of two levels, some thousand parameters."""
    unet = models.make_denoiser(8, 9, widths=(16, 16), text_width=16)
    pipe = assemble(StableDiffusionInpaintPipeline, narrow["vae"], narrow["text_encoder"], narrow["tokenizer"], unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def images():
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE[0]), torch.linspace(0, 1, SIZE[1]), indexing="ij")
    return torch.stack([torch.stack([x, y, x * y]), torch.stack([1 - x, y * y, x])])  # (2, 3, H, W)


def predict(pipe):
    given = torch.randn(2, 9, 8, 12, generator=torch.Generator().manual_seed(0))
    states = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return pipe.unet(given, torch.tensor([10, 700]), states).sample


def shake(model, seed=0):
    """B is zero at first; here it is not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora.lora_layers(model).values():
            weight = layer.lora_B["default"].weight
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))


# The additions


def test_a_fresh_lora_changes_nothing_and_learns_alone(pipe):
    before, state = predict(pipe), torch.random.get_rng_state()
    names = add_lora(pipe.unet, rank=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(predict(pipe), before)
    assert set(lora_update(pipe.unet).values()) == {0.0}
    kinds = {name.rsplit(".", 1)[-1] for name in names}
    assert {"to_q", "to_k", "to_v", "0", "proj", "2", "conv1", "conv2", "conv", "conv_shortcut"} <= kinds
    learns = [name for name, p in pipe.unet.named_parameters() if p.requires_grad]
    assert all(".lora_" in name for name in learns)
    assert len(learns) == 2 * len(names)
    remove_lora(pipe.unet)
    assert not lora.lora_layers(pipe.unet)
    assert torch.equal(predict(pipe), before)
    assert add_lora(pipe.unet, rank=3) == names


def test_the_update_is_the_norm_of_what_is_added(pipe):
    add_lora(pipe.unet, rank=3, lora_alpha=6)
    shake(pipe.unet)
    told = lora_update(pipe.unet)
    for name, layer in lora.lora_layers(pipe.unet).items():
        added = layer.get_delta_weight("default")  # peft's own product, convolutions too
        assert told[name] == pytest.approx(added.norm().item(), rel=1e-4), name


def test_same_seed_same_lora(pipe):
    def first():
        add_lora(pipe.unet, rank=2, seed=4)
        weight = next(iter(lora.lora_layers(pipe.unet).values())).lora_A["default"].weight.detach().clone()
        remove_lora(pipe.unet)
        return weight

    torch.manual_seed(1)
    a = first()
    torch.manual_seed(2)
    assert torch.equal(a, first())


def test_in_a_model_of_half_precision_the_additions_are_float32(pipe):
    pipe.unet.to(torch.bfloat16)
    given = torch.randn(2, 9, 8, 12).bfloat16(), torch.tensor([300, 300]), torch.randn(2, 5, 16).bfloat16()
    before = pipe.unet(*given).sample
    add_lora(pipe.unet, rank=2)
    added = [p for name, p in pipe.unet.named_parameters() if ".lora_" in name]
    assert {p.dtype for p in added} == {torch.float32}
    assert {p.dtype for name, p in pipe.unet.named_parameters() if ".lora_" not in name} == {torch.bfloat16}
    assert pipe.unet.dtype == torch.bfloat16
    after = pipe.unet(*given).sample
    assert torch.equal(after, before)
    after.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in added)


def test_the_text_encoder_too(pipe):
    ids = torch.arange(8)[None]
    before = pipe.text_encoder(ids).last_hidden_state
    names = add_lora(pipe.text_encoder, rank=2)
    assert any(name.endswith("fc1") for name in names)
    torch.testing.assert_close(pipe.text_encoder(ids).last_hidden_state, before)
    remove_lora(pipe.text_encoder)
    assert torch.equal(pipe.text_encoder(ids).last_hidden_state, before)


# Another rank


def test_a_larger_rank_is_exact_a_smaller_one_is_the_best_there_is():
    generator = torch.Generator().manual_seed(0)
    b, a = torch.randn(7, 4, 1, 1, generator=generator), torch.randn(4, 5, 3, 3, generator=generator)
    whole = b.flatten(1) @ a.flatten(1)
    more_b, more_a, error = lora.resize_factors(b, a, 6, np.random.default_rng(0))
    assert (more_b.shape, more_a.shape, error) == ((7, 6, 1, 1), (6, 5, 3, 3), 0.0)
    assert torch.equal(more_b[:, :4], b)
    assert torch.equal(more_b.flatten(1) @ more_a.flatten(1), whole)
    less_b, less_a, error = lora.resize_factors(b, a, 2, np.random.default_rng(0))
    values = torch.linalg.svdvals(whole.double())
    best = values[2:].norm().item()
    assert (whole - less_b.flatten(1) @ less_a.flatten(1)).norm().item() == pytest.approx(best, rel=1e-4)
    assert error == pytest.approx(best / values.norm().item(), rel=1e-4)


def test_a_rank_beyond_the_layers_width():
    b, a = torch.ones(2, 6), torch.ones(6, 3)
    less_b, less_a, error = lora.resize_factors(b, a, 5, np.random.default_rng(0))
    torch.testing.assert_close(less_b @ less_a, b @ a)
    assert error < 1e-6


# Files


@pytest.mark.long
def test_diffusers_reads_the_file(pipe, narrow, tmp_path):
    plain = predict(pipe)
    add_lora(pipe.unet, rank=3, lora_alpha=1.5)
    add_lora(pipe.text_encoder, rank=2)
    shake(pipe.unet)
    shake(pipe.text_encoder)
    file = lora.save_lora(pipe, tmp_path / "mine.safetensors")
    wanted, ids = predict(pipe), torch.arange(8)[None]
    text = pipe.text_encoder(ids).last_hidden_state
    remove_lora(pipe.unet)
    remove_lora(pipe.text_encoder)
    pipe.load_lora_weights(tmp_path, weight_name="mine.safetensors", adapter_name="theirs")
    torch.testing.assert_close(predict(pipe), wanted, rtol=1e-4, atol=1e-5)  # scale 0.5 came along
    torch.testing.assert_close(pipe.text_encoder(ids).last_hidden_state, text, rtol=1e-4, atol=1e-5)
    pipe.unload_lora_weights()
    assert torch.equal(predict(pipe), plain)
    lora.load_lora(pipe, file)
    torch.testing.assert_close(predict(pipe), wanted, rtol=1e-4, atol=1e-5)
    lora.load_lora(pipe, file)  # in place of the first
    assert len(pipe.unet.peft_config) == 1
    assert all(name.startswith(("unet.", "text_encoder.")) for name in load_file(file))


def test_files_that_are_none(pipe, tmp_path):
    with pytest.raises(ValueError, match=r"file is 'a.pt', expected a name that ends in .safetensors"):
        lora.save_lora(pipe, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="the pipeline has no LoRA"):
        lora.save_lora(pipe, tmp_path / "a.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 30)
    with pytest.raises(ValueError, match=r"cut.safetensors is not readable as safetensors"):
        lora.load_lora(pipe, tmp_path / "cut.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors holds no LoRA"):
        lora.load_lora(pipe, tmp_path / "other.safetensors")


# The task


def test_the_model_is_shown_what_it_learnt_from(pipe, images, monkeypatch):
    given, answer = [], SimpleNamespace(images=images)
    monkeypatch.setattr(type(pipe), "__call__", lambda self, **told: given.append(told) or answer)
    for shown in ("grey", "smooth"):
        pipe.unet.register_to_config(_masked_image=shown)
        task = LoraTask(pipe, images, rank=2, mask_policy=lambda rng: masks.box(SIZE, (20, 20, 60, 40)))
        encoded, _ = encode_moments(pipe.vae, masked_image(images, masks.box(SIZE, (20, 20, 60, 40)), shown))
        task._encode = lambda signed: (encode_moments(pipe.vae, signed)[0], torch.zeros(len(signed), 4, 8, 12))
        exact = task.batch([[0, 0, k] for k in range(4)])["masked"]
        assert all(min((x - y).abs().max() for y in encoded) < 1e-5 for x in exact)
        task.samples()
    assert ["masked_image_latents" in told for told in given] == [False, True]


def test_a_batch_depends_on_its_numbers_only(pipe, images):
    task = LoraTask(pipe, images, rank=2)
    numbers = [[0, 5, k] for k in range(6)]
    batch = task.batch(numbers)
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "latents": (6, 4, 8, 12), "noise": (6, 4, 8, 12), "t": (6,), "ids": (6, 48), "known": (6, 1, 8, 12),
        "mask": (6, 1, 8, 12), "masked": (6, 4, 8, 12),
    }  # fmt: skip
    torch.manual_seed(3)
    again = task.batch(numbers)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    part = task.batch(numbers[3:])
    assert all(torch.allclose(batch[name][3:], part[name], atol=1e-5) for name in batch)
    assert not torch.equal(task.batch([[0, 6, 0]])["noise"], batch["noise"][:1])
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    assert batch["known"].min() == 1
    losses = task.objective(batch)
    assert losses["per_sample"].mean().item() == pytest.approx(losses["loss"].item(), rel=1e-5)
    assert losses["per_cell"].shape == (6, 8, 12)
    assert not losses["per_cell"].requires_grad


def test_mask_policies(pipe, images):
    task = LoraTask(pipe, images, rank=2, mask_policy="none")
    assert task.hole(np.random.default_rng(0)).min() == 1
    boxes = task.variant(mask_policy="box")
    hole = boxes.hole(np.random.default_rng(0))
    assert hole.shape == (1, 1, *SIZE)
    rows, columns = hole[0, 0].any(1).sum(), hole[0, 0].any(0).sum()
    assert hole.sum() == rows * columns
    own = task.variant(mask_policy=lambda rng: torch.full((1, 1, *SIZE), float(rng.random() < 2)))
    assert own.hole(np.random.default_rng(0)).min() == 1
    wrong = task.variant(mask_policy=lambda rng: torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"the mask policy's mask is \(8, 8\) and image is"):
        wrong.batch([[0, 0, 0]])
    assert task.mask_policy == "none"


def test_what_is_not_known_counts_for_nothing_and_is_never_shown(pipe, images):
    holes = torch.zeros(2, 1, *SIZE)
    holes[:, :, :, 40:] = 1  # latent columns 5 to 11
    task = LoraTask(pipe, images, rank=2, holes=holes, mask_policy=lambda rng: torch.zeros(1, 1, *SIZE))
    other = LoraTask(pipe, torch.where(holes > 0.5, torch.zeros(()), images), rank=2, holes=holes)
    other.mask_policy = task.mask_policy
    batch, changed = task.batch([[0, 0, 0]]), other.batch([[0, 0, 0]])
    assert all(torch.equal(batch[name], changed[name]) for name in batch)
    assert torch.equal(batch["mask"], 1 - batch["known"])
    cells = task.objective(batch)["per_cell"]
    assert cells[..., 5:].max() == 0
    assert cells[..., :5].min() > 0


def test_four_channels_and_captions(narrow, images):
    pipe = assemble(StableDiffusionPipeline, **narrow)
    with pytest.raises(ValueError, match="images are"):
        LoraTask(pipe, images[..., :50])
    task = LoraTask(pipe, images, ["a photo of a room", "a photo of sks"], rank=2, prompt_dropout=0.0)
    batch = task.batch([[0, 0, k] for k in range(8)])
    assert "mask" not in batch
    assert len({tuple(row.tolist()) for row in batch["ids"]}) == 2
    loss = task.objective(batch)["loss"]
    loss.backward()
    grads = [p.grad for name, p in pipe.unet.named_parameters() if ".lora_B." in name]
    assert all(grad is not None for grad in grads)
    assert max(grad.abs().max() for grad in grads) > 0
    assert all(p.grad is None for name, p in pipe.unet.named_parameters() if ".lora_" not in name)


def test_the_text_encoder_learns_if_asked(pipe, images):
    task = LoraTask(pipe, images, rank=2, train_text=True)
    names = [name for name, p in task.objective.named_parameters() if p.requires_grad]
    assert any(name.startswith("text_encoder.") for name in names)
    shake(pipe.unet)  # with B = 0 everywhere nothing reaches the text encoder's A, with it something does
    task.objective(task.batch([[0, 0, 0]]))["loss"].backward()
    assert pipe.text_encoder.get_parameter(names[-1].removeprefix("text_encoder.")).grad is not None
    with pytest.raises(ValueError, match="the text encoder has a LoRA"):
        LoraTask(pipe, images)


@pytest.mark.long
def test_samples_sheet_and_validation(pipe, images, tmp_path):
    task = LoraTask(pipe, images, rank=2)
    a = task.samples(steps=2)
    assert a.shape == (2, 3, *SIZE)
    assert torch.equal(a, task.samples(steps=2))
    shake(pipe.unet)
    assert not torch.equal(a, task.samples(steps=2))
    assert task.validate() == task.validate()
    assert (task.export(tmp_path / "out", "not at all") / "lora.safetensors").exists()


@pytest.mark.long
def test_the_loss_falls_on_one_picture(pipe, images):
    task = LoraTask(pipe, images[:1], rank=4, mask_policy="box", prompt_dropout=0.0)
    learns = [p for p in task.objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, 1e-2)
    losses = []
    for step in range(16):
        loss = task.objective(task.batch([[0, step, item] for item in range(2)]))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < 0.97 * np.mean(losses[:4])  # an untrained U-Net, 16 steps


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda pipe, images: add_lora(pipe.unet, 0), "rank is 0, expected a whole number of at least 1"),
        (lambda pipe, images: add_lora(pipe.unet, 2, targets=["nothing"]), "no layer's name ends with nothing"),
        (lambda pipe, images: [add_lora(pipe.unet), add_lora(pipe.unet)], r"the model has a LoRA \(default\)"),
        (lambda pipe, images: LoraTask(pipe, images[..., :90]), r"images are \(64, 90\).*expected multiples of 16"),
        (lambda pipe, images: LoraTask(pipe, images * 2), "images has values from"),
        (lambda pipe, images: LoraTask(pipe, images, ["one"]), "prompt holds 1 captions for 2 images"),
        (lambda pipe, images: LoraTask(pipe, images, mask_policy="all"), "mask_policy is 'all', expected one of"),
        (lambda pipe, images: LoraTask(pipe, images, prompt_dropout=2), "prompt_dropout is 2"),
        (lambda pipe, images: LoraTask(pipe, images).variant(colour=1), "colour cannot change, expected one of"),
        (lambda pipe, images: [LoraTask(pipe, images), LoraTask(pipe, images, targets=["to_q"])], "other layers"),
        (lambda pipe, images: LoraTask(pipe.unet, images), "pipe is a UNet2DConditionModel without unet"),
    ],
)  # fmt: skip
def test_messages(pipe, images, action, message):
    with pytest.raises(ValueError, match=message):
        action(pipe, images)


def test_norm_of_a_product_by_hand():
    b, a = torch.tensor([[3.0], [4.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    assert lora.product_norm(b, a) == pytest.approx(5 * math.sqrt(2))


def test_what_one_has_loaded_oneself_is_seen_and_left_alone(pipe, images):
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="style")
    with pytest.raises(ValueError, match=r"the model has a LoRA \(style\). .*pipe.unload_lora_weights"):
        add_lora(pipe.unet)
    with pytest.raises(ValueError, match=r"has a LoRA \(style\)"):
        LoraTask(pipe, images)
    with pytest.raises(ValueError, match=r"the pipeline has a LoRA \(style\)"), borrowed(pipe):
        pass
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"]), adapter_name=ADAPTER)
    remove_lora(pipe.unet)
    after = pipe.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert list(pipe.unet.peft_config) == ["style"]


@pytest.mark.parametrize("checkpointed", [True, False])
def test_a_borrowed_pipeline_is_given_back_as_it_was(pipe, images, checkpointed):
    if checkpointed:
        pipe.unet.enable_gradient_checkpointing()
    pipe.unet.train()
    pipe.vae.requires_grad_(True)
    pipe.text_encoder.requires_grad_(False)
    before = {name: p.requires_grad for part in (pipe.unet, pipe.vae, pipe.text_encoder)
              for name, p in part.named_parameters()}  # fmt: skip

    def stopped():
        with borrowed(pipe):
            LoraTask(pipe, images, rank=2)
            pipe.unet.eval()
            (pipe.unet.disable_gradient_checkpointing if checkpointed else pipe.unet.enable_gradient_checkpointing)()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not lora_layers(pipe.unet)
    assert pipe.unet.is_gradient_checkpointing == checkpointed
    assert pipe.unet.training
    after = {name: p.requires_grad for part in (pipe.unet, pipe.vae, pipe.text_encoder)
             for name, p in part.named_parameters()}  # fmt: skip
    assert before == after
