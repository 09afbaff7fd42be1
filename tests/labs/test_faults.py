"""The planted faults: each breaks what it should and nothing else, and is found by the tool that its lesson teaches."""

import copy

import pytest
import torch

import workbench as wb
from workbench import labs
from workbench.check import NotAvailable
from workbench.diffusion.libraries import DiffusionPipeline
from workbench.labs import diagnoses, faults, small
from workbench.stepping.divergence import TERMS

PLACES = {"one": (1, "input"), "two": (2, "input"), "three": (1, "blend"), "five": (1, "history"),
          "six": (1, "unconditional")}  # fmt: skip


def weights(pipe):
    return {name: value.clone() for name, value in pipe.unet.state_dict().items()}


def test_the_lists_agree_with_the_debugger():
    assert faults.TERMS == TERMS
    assert set(labs.list_exercises()) >= {f"faults.{name}" for name in faults.NAMES}


@pytest.mark.parametrize("name", faults.NAMES)
def test_the_original_is_left_as_it_is(name):
    pipe, broken = diagnoses._broken(name)
    pipe = copy.copy(pipe)
    before, kind, config = weights(pipe), type(pipe), dict(pipe.scheduler.config)
    scales = [m.scaling for m in pipe.unet.modules() if hasattr(m, "scaling")]
    first = faults.plant(pipe, name)
    assert type(pipe) is kind
    assert dict(pipe.scheduler.config) == config
    assert all(torch.equal(value, before[key]) for key, value in weights(pipe).items())
    assert all(set(scaling.values()) == {1.0} for scaling in scales)
    assert first is not pipe
    assert first.scheduler is not pipe.scheduler
    own = {p.data_ptr() for p in pipe.unet.parameters()}
    assert all(p.data_ptr() in own for p in first.unet.parameters())  # no second copy of the weights
    assert isinstance(broken, DiffusionPipeline)


@pytest.mark.parametrize("name", faults.NAMES)
def test_the_name_tells_nothing(name):
    pipe, broken = diagnoses._broken(name)
    assert type(broken).__name__ == type(pipe).__name__
    assert type(broken.scheduler).__name__ == type(pipe.scheduler).__name__
    assert dict(broken.scheduler.config) == dict(pipe.scheduler.config)


@pytest.mark.parametrize("name", PLACES)
def test_the_first_divergence_is_where_the_diagnosis_says(name):
    healthy, faulty = diagnoses.make_case(name)
    found = wb.first_divergence(healthy, faulty)
    assert (found.step, found.term) == PLACES[name]
    assert not torch.equal(healthy.output.images, faulty.output.images)


def test_not_every_sentence_gives_the_fault_away():
    told = {name: wb.first_divergence(*diagnoses.make_case(name)).cause for name in ("one", "three", "six")}
    assert "shrunk to the latent grid otherwise" in told["one"]
    assert "another picture or another noise" in told["three"]  # one of two
    assert "nothing recorded about the two runs says why" in told["six"]


def test_four_needs_a_rule_of_its_own():
    """The ready-made watches that hold for any picture let it pass; measured guidance does not."""
    _, run = diagnoses.make_case("four", 8)
    run.watch("nan")
    run.watch("guidance_norm", ratio=2)
    run.finish()
    assert run.stopped is None
    assert {round(state.guidance, 2) for state in run.states[1:]} == {3.0, 9.0}


def test_five_is_right_once():
    pipe, _ = diagnoses._broken("five")
    broken = faults.plant(pipe, "five")
    assert wb.first_divergence(small.make_run(pipe), small.make_run(broken)) is None
    broken(**small.arguments(), num_inference_steps=4, generator=torch.Generator().manual_seed(9))
    assert wb.first_divergence(small.make_run(pipe), small.make_run(broken)).term == "history"


def test_six_can_be_undone_for_a_call_and_stays():
    """Switching a LoRA off for one call makes diffusers set its scale anew; the fault must survive that."""
    _, faulty = diagnoses.make_case("six", 3)
    before = faulty.goto(1).noise_pred
    faulty.branch(at=0, cross_attention_kwargs={"scale": 0.0}).step()
    assert torch.equal(small.make_run(faulty.pipe, 3).goto(1).noise_pred, before)


def test_with_lora_adds_as_much_as_it_says():
    pipe = small.pipeline()
    styled = faults.with_lora(pipe, rank=2, strength=0.2)
    from workbench.diffusion.lora import lora_layers, lora_update

    assert not lora_layers(pipe.unet)
    for name, size in lora_update(styled.unet).items():
        own = lora_layers(styled.unet)[name].get_base_layer().weight.norm().item()
        assert size == pytest.approx(0.2 * own, rel=1e-3)


def test_refusals(monkeypatch):
    pipe = small.pipeline()
    with pytest.raises(ValueError, match="name is 'seven', expected one of: one, two, three"):
        faults.plant(pipe, "seven")
    with pytest.raises(TypeError, match="pipe is a int, expected a StableDiffusionInpaintPipeline"):
        faults.plant(3, "one")
    with pytest.raises(ValueError, match="takes 9 channels, expected 4"):
        faults.plant(pipe, "three")
    with pytest.raises(ValueError, match="DDIMScheduler remembers no earlier predictions, expected PNDM"):
        faults.plant(pipe, "five")
    with pytest.raises(ValueError, match="has no LoRA, expected one in its U-Net"):
        faults.plant(pipe, "six")
    with pytest.raises(NotAvailable, match="0 times, expected once: this fault was written for another diffusers"):
        faults._edited("no such line", "", copy.copy(pipe))
