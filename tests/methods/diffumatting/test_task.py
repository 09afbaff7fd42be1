"""DiffuMatting's training: batches, what each loss reaches, two stages, going back, ablations, what is written."""

import copy

import pytest
import torch

import workbench as wb
from tests.methods.diffumatting.conftest import thing
from tests.stepping import narrow
from workbench.diffusion.lora import lora_layers
from workbench.image import to_signed
from workbench.methods.diffumatting import DiffuMattingTask, load_diffumatting, load_examples, on_canvas, on_green

NUMBERS = [[0, 3, item] for item in range(4)]


@pytest.fixture
def task(pipe, examples):
    return DiffuMattingTask(pipe, examples[:3], examples[3:], rank=2, hidden=4, prompt_dropout=0.0)


def test_a_batch_depends_on_its_numbers_only(task, examples):
    whole, part = task.batch(NUMBERS), task.batch(NUMBERS[2:])
    assert whole["latents"].shape == (4, 4, 8, 12)
    assert whole["green"].sum(1).tolist() == [1] * 4
    for name, value in part.items():
        if value.ndim:
            torch.testing.assert_close(value, whole[name][2:], rtol=1e-5, atol=1e-6)
    learnt = torch.cat([example.image for example in examples[:3]])
    many = task.batch([[0, 0, k] for k in range(20)])
    for image, alpha in zip(many["image"], many["alpha"], strict=True):
        (row,) = [k for k in range(3) if torch.equal(learnt[k], image)]  # the fourth is held out
        assert torch.equal(examples[row].alpha[0], alpha)


def test_items_without_a_prompt_have_no_green(pipe, examples):
    task = DiffuMattingTask(pipe, examples, rank=2, hidden=4, prompt_dropout=0.5)
    batch = task.batch([[0, 0, k] for k in range(40)])
    named = batch["green"].sum(1)
    assert 8 < named.sum() < 32
    empty = (batch["ids"] == task.empty).all(1)
    assert torch.equal(empty, named == 0)


def unsettle(task):
    """A LoRA that has learnt something: before that only B has a gradient."""
    with torch.no_grad():
        for layer in lora_layers(task.pipe.unet).values():
            layer.lora_B["default"].weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))


def gradients(task, batch, **weights):
    """Names of what gets a gradient that is not 0, with these weights alone."""
    given = {
        name: torch.tensor(float(weights.get(name, 0.0)))
        for name in ("green_weight", "background_weight", "detail_weight", "matting_weight")
    }
    objective = task.objective
    objective.zero_grad()
    objective({**batch, **given})["loss"].backward()
    return {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.long
def test_gradients_flow_where_they_should_and_nowhere_else(task):
    unsettle(task)
    batch = {**task.batch(NUMBERS), "t": torch.tensor([10, 200, 500, 800])}
    plain = gradients(task, batch)
    assert plain
    assert all(".lora_" in name for name in plain)
    for name in ("green_weight", "background_weight", "detail_weight"):
        found = gradients(task, batch, **{name: 1.0})
        assert found.keys() == plain.keys()  # the LoRA, not the head, the autoencoder or the text encoder
        assert any(not torch.allclose(found[key], plain[key]) for key in plain)
    matting = gradients(task, batch, matting_weight=1.0)
    assert {key for key in matting if ".lora_" not in key} == {
        f"head.conv{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")
    }
    assert any(not torch.allclose(matting[key], plain[key]) for key in plain)  # through the estimate, to the LoRA too
    frozen = [p for name, p in task.objective.named_parameters() if name.startswith(("vae.", "text_encoder."))]
    assert not any(p.requires_grad for p in frozen)


def test_the_green_gradient_does_not_reach_what_comes_after_the_last_attention(task):
    unsettle(task)
    batch = task.batch(NUMBERS)
    task.objective(batch)["green"].backward()
    got = {n for n, p in task.objective.named_parameters() if p.grad is not None and p.grad.any()}
    assert not any("up_blocks.2" in name for name in got)  # the finest block has no attention and comes last
    assert any("attn2.to_q" in name for name in got)
    assert any("attn2.to_k" in name for name in got)


def test_total_is_the_sum_of_its_terms(task):
    batch = task.batch(NUMBERS)
    told = task.objective(batch)
    expected = told["denoising"] + told["green"] + 10 * told["detail"] + 0.1 * told["matting"]
    assert told["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert told["denoising"].item() == pytest.approx(told["per_sample"].mean().item(), rel=1e-5)


@pytest.mark.parametrize("term", ["denoising", "green", "background", "detail", "matting"])
@pytest.mark.long
def test_each_term_against_finite_differences(task, term):
    """Moved along its own gradient g in all weights, a term grows by |g| a unit."""
    unsettle(task)
    objective = task.objective
    batch = {**task.batch(NUMBERS[:2]), "t": torch.tensor([100, 400])}
    parameters = [p for p in objective.parameters() if p.requires_grad]
    gradient = torch.autograd.grad(objective(batch)[term], parameters, allow_unused=True)
    norm = torch.cat([g.flatten() for g in gradient if g is not None]).norm().item()
    assert norm > 1e-4
    ends = []
    with torch.no_grad():
        for step in (1e-2, -2e-2):
            for p, g in zip(parameters, gradient, strict=True):
                if g is not None:
                    p += step * g / norm
            ends.append(objective(batch)[term].item())
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(norm, rel=0.03)


def test_the_background_term_looks_at_the_one_step_estimate(task):
    batch = {**task.batch(NUMBERS), "t": torch.tensor([0, 0, 0, 0])}  # hardly any noise: the estimate is nearly right
    near = task.objective(batch)["background"].item()
    far = task.objective({**batch, "t": torch.tensor([600, 600, 600, 600])})["background"].item()
    assert 0 < near < 0.01 < far
    plain = task.objective(batch)["loss"].item()
    weighed = task.objective({**batch, "background_weight": torch.tensor(2.0)})["loss"].item()
    assert weighed - plain == pytest.approx(2 * near, rel=1e-3, abs=1e-6)


def test_two_stages(pipe, examples):
    task = DiffuMattingTask(pipe, examples, rank=2, hidden=4, joint_from=2)
    assert [task.batch([[0, step, 0]])["matting_weight"].item() for step in (0, 1, 2, 3)] == pytest.approx(
        [0, 0, 0.1, 0.1]
    )


@pytest.mark.long
def test_a_run_goes_back_and_forward_to_the_bit_and_branches(task):
    run = wb.TrainingRun(task, learning_rate=1e-3, batch_size=2, memory=0)
    run.step(2)
    told, weights = run.history("loss"), run.weights()
    assert {"green", "detail", "matting", "denoising"} <= set(run.state.losses)
    assert any(name.startswith("head.") for name in weights)
    run.back(1)
    assert not all(torch.equal(weights[name], value) for name, value in run.weights().items())
    run.goto(2)
    assert run.history("loss") == told
    assert all(torch.equal(weights[name], value) for name, value in run.weights().items())
    fork = run.branch(at=1, green_weight=0.0)  # the ablation without green control
    fork.step(1)
    assert fork.history("loss")[:1] == told[:1]
    assert fork.history("loss")[1] < told[1]
    other = run.branch(at=1, rank=run.task.rank + 2)  # the head, which has no rank, goes along
    head = {name: value for name, value in run.weights(1).items() if name.startswith("head.")}
    assert head
    assert all(torch.equal(other.weights()[name], value) for name, value in head.items())
    other.step(1)
    run.branch(at=1, lora_alpha=2.0 * run.task.lora_alpha).step(1)
    with pytest.raises(ValueError, match="green_weight is -1"):
        task.variant(green_weight=-1)
    with pytest.raises(ValueError, match="holes cannot change, expected one of"):
        task.variant(holes=None)


def test_decoding_fewer_items(pipe, examples):
    task = DiffuMattingTask(pipe, examples, rank=2, hidden=4, decode_every=2)
    calls = []
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z: calls.append(len(z)) or decode(z)
    told = task.objective(task.batch(NUMBERS))
    assert calls == [2]
    assert told["detail"].isfinite()


@pytest.mark.long
def test_to_look_at_and_what_is_written(task, pipe, tmp_path):
    task.samples = lambda: torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))  # quicker
    numbers = task.validate()
    assert set(numbers) == {"error", "green", "alpha_mse", "green_delta_e"}
    assert all(value > 0 for value in numbers.values())
    assert task.shown == [3]
    assert task.sheet().shape == (1, 3, 4 * 32, 48)
    with torch.no_grad():
        for layer in lora_layers(pipe.unet).values():
            layer.lora_B["default"].weight.fill_(0.01)
    folder = task.export(tmp_path / "made", "not at all")
    assert "Trained: not at all" in (folder / "README.md").read_text()
    fresh = copy.deepcopy(narrow.text_to_image())
    latents, states = torch.ones(1, 4, 8, 12), torch.ones(1, 48, 32)
    before = fresh.unet(latents, 5, states).sample
    model = load_diffumatting(folder, None, pipe=fresh)
    assert not lora_layers(model.pipe.unet)  # part of the weights: other LoRAs can be loaded on top
    with torch.no_grad():
        wanted, got = pipe.unet(latents, 5, states).sample, model.pipe.unet(latents, 5, states).sample
    assert not torch.allclose(got, before, atol=1e-3)
    torch.testing.assert_close(got, wanted, rtol=1e-2, atol=2e-3)  # half precision in the file
    features = torch.rand(1, model.head.config.channels, 8, 8)
    torch.testing.assert_close(model.head(features), task.head(features), rtol=1e-2, atol=1e-3)


def test_painting_begins_on_what_was_learnt(task, pipe, tmp_path):
    """What training knows at its last timestep: noise, and the mean of all pictures by the schedule's rest."""
    canvas, noise = task.canvas(), torch.randn(2, 4, 8, 12)
    means = torch.cat([pipe.vae.encode(to_signed(x[None])).latent_dist.mean for x in task.images[:3]])
    torch.testing.assert_close(canvas, means.mean(0, keepdim=True) * pipe.vae.config.scaling_factor)
    last = torch.tensor([pipe.scheduler.config.num_train_timesteps - 1])
    noised = pipe.scheduler.add_noise(canvas.expand(2, -1, -1, -1), noise, last)
    rest = 1 - pipe.scheduler.alphas_cumprod[-1]
    torch.testing.assert_close(on_canvas(noise, canvas, pipe.scheduler) * rest.sqrt(), noised)
    flat = torch.ones(1, 4, 3, 3)  # of another size
    shift = on_canvas(noise, flat, pipe.scheduler) - noise
    assert shift.std() < 1e-5
    assert 0.05 < shift.mean() < 0.1
    samples = task.samples(steps=1)
    given = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    (row,) = task.shown
    again = pipe(
        task.captions[row], latents=on_canvas(given, canvas, pipe.scheduler), num_inference_steps=1,
        guidance_scale=1.0, height=32, width=48, output_type="pt",
    ).images  # fmt: skip
    torch.testing.assert_close(samples, again)
    task.validate = dict
    model = load_diffumatting(task.export(tmp_path / "made", "not at all"), None, pipe=pipe)
    torch.testing.assert_close(model.canvas, canvas, rtol=1e-3, atol=1e-3)


def test_examples_are_mirrored_and_square(mattes):
    found = load_examples(mattes, 2, side=32)
    assert len(found) == 4
    assert all(example.image.shape == (1, 3, 32, 32) for example in found)
    assert torch.equal(found[0].image.flip(-1), found[1].image)
    assert torch.equal(found[0].alpha.flip(-1), found[1].alpha)


@pytest.mark.long
def test_refusals(pipe, examples):
    def refused(message, given=examples, **changes):
        with pytest.raises(ValueError, match=message):
            DiffuMattingTask(changes.pop("pipe", pipe), given, rank=2, hidden=4, **changes)

    refused("examples is empty", [])
    refused(r"examples have the sizes \(32, 48\), \(32, 64\)", [*examples, on_green(thing(1, 32, 64))])
    refused("images are", [on_green(thing(1, 30, 48))])
    refused('no caption names a "green background"', [example._replace(caption="a ball") for example in examples])
    refused("joint_from is -1", joint_from=-1)
    refused("decode_every is 0", decode_every=0)
    pipe.unet.enable_gradient_checkpointing()
    refused("the U-Net computes activations twice")
    pipe.unet.disable_gradient_checkpointing()
    refused("takes 9 channels, expected 4", pipe=copy.deepcopy(narrow.inpainting(9)))


@pytest.mark.long
def test_a_pipeline_of_half_precision_learns(pipe, examples):
    task = DiffuMattingTask(pipe.to(torch.bfloat16), examples, rank=2, hidden=4, prompt_dropout=0.0)
    run = wb.TrainingRun(task, batch_size=2, learning_rate=1e-3)
    state = run.step()
    assert state.fault is None
    assert all(state.losses[name] > 0 for name in ("denoising", "green", "detail", "matting"))
    assert {p.dtype for p in run.weights().values()} == {torch.float32}
