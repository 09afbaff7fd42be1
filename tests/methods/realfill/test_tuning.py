"""`fine_tune`: a run that goes back and forth to the bit, two learning rates, and a file for plain diffusers."""

import copy

import pytest
import torch

import workbench as wb
from workbench.diffusion.lora import lora_layers, remove_lora, save_lora
from workbench.methods.realfill import PUBLISHED, fine_tune, sample

SMALL = {"rank": 2, "crops": 1, "holes_each": 2, "batch_size": 3, "steps": 4}


@pytest.fixture
def run(pipe, references, target, mask):
    return fine_tune(pipe, references, target, mask, lora_dropout=0.3, **SMALL)


def predict(pipe):
    given = torch.randn(1, 9, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = pipe.text_encoder(torch.arange(6)[None])[0]
        return pipe.unet(given, torch.tensor([300]), states).sample


@pytest.mark.long
def test_back_and_forward_is_the_same_to_the_bit(run, pipe, references, target, mask):
    before = predict(pipe)
    assert run.i == 0
    run.run(4)
    after, weights = predict(pipe), run.weights()
    assert not torch.equal(after, before)
    run.goto(0)
    assert torch.equal(predict(pipe), before)
    run.goto(4)
    assert torch.equal(predict(pipe), after)
    again = fine_tune(copy.deepcopy(pipe), references, target, mask, lora_dropout=0.3, memory=0, **SMALL)
    again.run(4)
    again.back(1)  # without snapshots: computed again from the first
    again.step()
    assert again.states[4].digest == run.states[4].digest
    assert all(torch.equal(value, weights[name]) for name, value in again.weights().items())
    other = fine_tune(copy.deepcopy(pipe), references, target, mask, seed=1, **SMALL)
    assert other.step().digest != run.states[1].digest


def test_two_learning_rates(pipe, references, target, mask):
    """Adam's first update is the learning rate wherever the gradient is large: B begins at 0."""
    run = fine_tune(pipe, references, target, mask, learning_rate=1e-3, text_learning_rate=1e-4, clip=None, **SMALL)
    run.step()
    largest = {"unet": 0.0, "text_encoder": 0.0}
    for name, value in run.weights().items():
        if ".lora_B." in name:
            part = name.split(".")[0]
            largest[part] = max(largest[part], value.abs().max().item())
    assert largest == {"unet": pytest.approx(1e-3, rel=0.01), "text_encoder": pytest.approx(1e-4, rel=0.01)}


@pytest.mark.long
def test_branches_of_what_realfill_has(run):
    run.step(2)
    fork = run.branch(at=1, target_mask="hole", mask_dropout=0.0, lora_dropout=0.0)
    assert fork.step().digest != run.states[2].digest
    assert "lora_keep" not in fork.states[2].batch
    assert run.branch(at=1).step().digest == run.states[2].digest
    with pytest.raises(ValueError, match="holes cannot be changed"):
        run.branch(holes=None)


@pytest.mark.long
def test_an_interrupt_leaves_the_run_at_its_last_step(run, pipe, monkeypatch):
    run.step()
    before = predict(pipe)
    monkeypatch.setattr(run._learner.optimizer, "step", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.step()
    assert run.i == 1
    assert torch.equal(predict(pipe), before)
    monkeypatch.undo()
    assert run.run(3).i == 4


@pytest.mark.long
def test_plain_diffusers_loads_what_was_learnt(run, pipe, tmp_path):
    run.run(2)
    save_lora(run.pipe, tmp_path / "scene.safetensors")
    learnt = predict(pipe)
    remove_lora(pipe.unet)
    remove_lora(pipe.text_encoder)
    plain = predict(pipe)
    assert not torch.allclose(plain, learnt, atol=1e-5)
    pipe.load_lora_weights(str(tmp_path), weight_name="scene.safetensors")
    torch.testing.assert_close(predict(pipe), learnt, rtol=1e-4, atol=1e-5)
    pipe.unload_lora_weights()


@pytest.mark.long
def test_a_pipeline_of_half_precision_learns_and_fills(pipe, references, target, mask):
    pipe.to(torch.bfloat16)
    run = fine_tune(pipe, references, target, mask, **SMALL)
    assert run.step().fault is None
    assert {p.dtype for p in run.weights().values()} == {torch.float32}
    filled = sample(pipe, target, mask, [0], num_inference_steps=1)
    assert filled.dtype == torch.float32
    assert filled.isfinite().all()


@pytest.mark.long
def test_published_numbers_and_checkpointing(pipe, references, target, mask):
    run = fine_tune(pipe, references, target, mask, **PUBLISHED | {"batch_size": 2}, gradient_checkpointing=True)
    task = run.task
    assert (run.total, run.settings.learning_rate, task.rank, task.lora_alpha) == (2000, 2e-4, 8, 16)
    assert task.rate("text_encoder.layer.lora_A") == pytest.approx(0.2)
    assert task.rate("unet.layer.lora_A") == 1
    assert all(name.split(".")[-1] in ("to_q", "to_k", "to_v", "0") for name in lora_layers(pipe.unet))
    assert pipe.unet.is_gradient_checkpointing
    plain = fine_tune(copy.deepcopy(pipe), references, target, mask, **PUBLISHED | {"batch_size": 2})
    assert not plain.pipe.unet.is_gradient_checkpointing
    assert run.step().loss == pytest.approx(plain.step().loss, rel=1e-5)
    gradients = run.state.gradient_norm, plain.state.gradient_norm
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)  # dropout falls alike when computed twice


def test_refusals(pipe, references, target, mask):
    with pytest.raises(TypeError, match="fine_tune has no option 'lr'. It takes: crops, holes_each"):
        fine_tune(pipe, references, target, mask, lr=1e-3)
    with pytest.raises(ValueError, match="steps is 0, expected"):
        fine_tune(pipe, references, target, mask, steps=0)
    with pytest.raises(ValueError, match="learning_rate is 0 beside text_learning_rate"):
        fine_tune(pipe, references, target, mask, learning_rate=0, text_learning_rate=1e-4)
    assert wb.methods.realfill.fine_tune is fine_tune
