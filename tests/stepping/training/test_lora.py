"""`TrainingRun` on a LoRA of a real, narrow pipeline: whose weights it samples with, and branches of another rank."""

import itertools

import pytest
import torch

from workbench.diffusion import models
from workbench.diffusion.denoiser import assemble
from workbench.diffusion.libraries import StableDiffusionInpaintPipeline
from workbench.diffusion.lora import load_lora, lora_layers, lora_update, remove_lora, save_lora
from workbench.diffusion.lora_task import LoraTask
from workbench.diffusion.tokenizer import make_tokenizer
from workbench.stepping.training import TrainingRun

SIZE = (64, 96)  # (H, W)


@pytest.fixture(scope="module")
def pipe():
    tokenizer = make_tokenizer()
    text = models.make_text_encoder(tokenizer, width=16, layers=1)
    unet = models.make_denoiser(8, 9, widths=(16, 16), text_width=16)
    vae = models.make_autoencoder(8, (8, 8, 8, 8))
    return assemble(StableDiffusionInpaintPipeline, vae, text, tokenizer, unet)


@pytest.fixture
def images():
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE[0]), torch.linspace(0, 1, SIZE[1]), indexing="ij")
    return torch.stack([torch.stack([x, y, x * y]), torch.stack([1 - x, y * y, x])])  # (2, 3, H, W)


@pytest.fixture
def run(pipe, images):
    return TrainingRun(LoraTask(pipe, images, rank=4), learning_rate=1e-2, batch_size=2)


def predict(pipe):
    given = torch.randn(1, 9, 8, 12, generator=torch.Generator().manual_seed(0))
    states = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return pipe.unet(given, torch.tensor([300]), states).sample


@pytest.mark.long
def test_the_pipeline_has_the_weights_of_the_cursor(pipe, run):
    seen = [predict(pipe)]
    for _ in range(3):
        run.step()
        seen.append(predict(pipe))
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))
    for i in (1, 3, 0, 2):
        run.goto(i)
        assert torch.equal(predict(pipe), seen[i])
    fork = run.branch(lr=1e-3)
    fork.step()
    assert not torch.equal(predict(pipe), seen[2])
    assert run.pipe is pipe
    assert torch.equal(predict(pipe), seen[2])


def test_norms_are_those_of_the_update(pipe, run):
    run.step(2)
    told = {f"unet.{name}": norm for name, norm in lora_update(pipe.unet).items()}
    assert run.state.weight_norms == pytest.approx(told, rel=1e-6)
    deltas = []
    for i in (1, 2):
        with run.applied(i):
            deltas.append({n: m.get_delta_weight("default").detach() for n, m in lora_layers(pipe.unet).items()})
    for name, norm in run.state.update_norms.items():
        name = name.removeprefix("unet.")
        assert norm == pytest.approx((deltas[1][name] - deltas[0][name]).norm().item(), rel=1e-3), name
    assert set(run.state.gradient_norms) == set(told)
    assert run.state.mask.shape == (2, 1, 8, 12)
    assert run.state.loss_per_cell.shape == (2, 8, 12)
    assert run.loss_by_t(2)["t"]


@pytest.mark.long
def test_a_larger_rank_goes_on_from_the_same_model(pipe, run):
    run.step(3)
    before = predict(pipe)
    fork = run.branch(rank=6)
    assert torch.equal(predict(pipe), before)  # still the parent's
    with fork.applied():
        torch.testing.assert_close(predict(pipe), before, rtol=1e-4, atol=1e-6)
        layer = next(iter(lora_layers(pipe.unet).values()))
        assert (layer.r["default"], layer.scaling["default"], layer.lora_A["default"].weight.shape[0]) == (6, 1.0, 6)
    assert next(iter(lora_layers(pipe.unet).values())).r["default"] == 4
    assert "rank 4 -> 6: the update is carried over as it is, with its moments" in repr(fork)
    fork.step(2)
    run.step(2)
    assert fork.states[4].loss == pytest.approx(run.states[4].loss, rel=1e-4)
    assert fork.state.loss != run.state.loss
    fork.goto(3)
    with fork.applied():
        torch.testing.assert_close(predict(pipe), before, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="run.1 begins there"):
        fork.goto(2)


def test_another_scale_is_carried_over_too(pipe, run):
    run.step(2)
    before = predict(pipe)
    fork = run.branch(rank=5, lora_alpha=2.5)
    with fork.applied():
        torch.testing.assert_close(predict(pipe), before, rtol=1e-4, atol=1e-6)
    assert "moments begin anew" in fork.notes[0]
    assert not fork._snapshots[2].moments


@pytest.mark.long
def test_a_smaller_rank_is_the_best_approximation(pipe, run):
    run.step(3)
    wanted = {n: m.get_delta_weight("default").detach() for n, m in lora_layers(pipe.unet).items()}
    fork = run.branch(rank=2)
    with fork.applied():
        for name, layer in lora_layers(pipe.unet).items():
            whole = wanted[name].flatten(1).double()
            lost = (layer.get_delta_weight("default").flatten(1).double() - whole).norm().item()
            best = torch.linalg.svdvals(whole)[2:].norm().item()
            assert lost == pytest.approx(best, rel=1e-2, abs=1e-6), name
    assert "cut to its 2 largest directions (SVD), which loses" in repr(fork)
    fork.step()
    assert fork.state.loss == pytest.approx(run.branch(at=3).step().loss, rel=0.05)


@pytest.mark.long
def test_other_masks_and_prompts(run):
    run.step(2)
    forks = [run.branch(at=1, mask_policy="none"), run.branch(at=1, prompt="a photo of ohwx", prompt_dropout=0.0)]
    assert forks[0].step().mask.min() == 1
    assert not torch.equal(forks[1].step().batch["ids"], run.states[2].batch["ids"])
    assert forks[0].states[2].loss != run.states[2].loss
    assert torch.equal(forks[1].states[2].batch["noise"], run.states[2].batch["noise"])
    with pytest.raises(ValueError, match="mask_policy is 'half', expected one of: random, box, rectangles, none"):
        run.branch(mask_policy="half")
    with pytest.raises(ValueError, match=r"targets cannot be changed, expected one of: learning_rate.*mask_policy"):
        run.branch(targets=["to_q"])
    assert len(run.branches) == 2


@pytest.mark.long
def test_a_second_task_on_the_pipeline_leaves_the_first_run_alone(pipe, images, run):
    run.step(2)
    before = predict(pipe)
    other = TrainingRun(LoraTask(pipe, images[:1], rank=3), learning_rate=1e-2, batch_size=1)
    other.step(2)
    run.goto(2)
    assert torch.equal(predict(pipe), before)
    again = TrainingRun(run.task, learning_rate=1e-2, batch_size=2)
    again.step(2)
    assert again.state.digest == run.state.digest


@pytest.mark.long
def test_saved_and_resumed_with_the_lora_beside_it(pipe, images, run, tmp_path):
    run.step(2)
    fork = run.branch(rank=3, seed=4)
    fork.step(2)
    wanted = predict(pipe)
    fork.save(tmp_path / "fork.safetensors")
    with run.applied(), fork.applied():
        save_lora(fork.pipe, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"fork.safetensors has \(3, .*the task \(4, .*Make the task as it was then"):
        TrainingRun.load(tmp_path / "fork.safetensors", run.task)
    with pytest.raises(ValueError, match=r"was trained on other batches.*Make the task with the same pictures"):
        TrainingRun.load(tmp_path / "fork.safetensors", LoraTask(pipe, images.flip(0), rank=3))
    resumed = TrainingRun.load(tmp_path / "fork.safetensors", LoraTask(pipe, images, rank=3))
    assert torch.equal(predict(pipe), wanted)
    fork.step()
    assert resumed.step().digest == fork.state.digest
    remove_lora(pipe.unet)
    load_lora(pipe, tmp_path / "lora.safetensors")
    torch.testing.assert_close(predict(pipe), wanted, rtol=1e-4, atol=1e-6)
    remove_lora(pipe.unet)
