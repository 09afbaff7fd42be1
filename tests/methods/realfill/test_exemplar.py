"""The exemplar baseline: a word learns one reference, everything else stands still, and is as it was afterwards."""

import copy

import pytest
import torch

import workbench as wb
from workbench.diffusion.lora import add_lora
from workbench.methods.realfill import WordTask, exemplar, learn_word, remove_word, sample
from workbench.methods.realfill.exemplar import LearntWord

SMALL = {"crops": 2, "batch_size": 2}
NUMBERS = [[0, 3, item] for item in range(6)]


def states(pipe, prompt="a photo of sks"):
    return pipe.encode_prompt(prompt, "cpu", 1, False)[0].detach()


def weights(pipe):
    parts = {name: getattr(pipe, name) for name in ("unet", "text_encoder", "vae")}
    return {f"{part}.{name}": p for part, model in parts.items() for name, p in model.state_dict().items()}


@pytest.fixture
def run(pipe, references, target, mask):
    return learn_word(pipe, references[1], target, mask, steps=4, **SMALL)


def test_the_table_is_looked_up_but_for_the_word():
    table = torch.nn.Embedding(7, 3)
    word = LearntWord(table, [2, 5])
    ids = torch.tensor([[0, 2, 6], [5, 5, 1]])
    assert torch.equal(word(ids), table(ids))
    word.vectors.data.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    expected = table(ids).detach().clone()
    expected[0, 1], expected[1, 0], expected[1, 1] = torch.tensor([[1.0, 2, 3], [4, 5, 6], [4, 5, 6]])
    assert torch.equal(word(ids), expected)
    word(ids).sum().backward()
    assert torch.equal(word.vectors.grad, torch.tensor([[1.0, 1, 1], [2, 2, 2]]))


def test_the_word_alone_learns(run, pipe):
    before = {name: value.clone() for name, value in weights(pipe).items()}
    other, own = states(pipe, "a photo of a room"), states(pipe)
    assert torch.equal(own, states(pipe, "a photo of object"))  # what it means at first
    (name,) = run.weights()
    state = run.step()
    assert state.update_norm > 0
    after = weights(pipe)
    assert before.keys() == after.keys()
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert moved == [name]
    assert torch.equal(states(pipe, "a photo of a room"), other)
    assert not torch.equal(states(pipe), own)


def test_what_is_learnt_from_is_the_reference_with_nothing_shown(run, pipe, references, target, mask):
    batch = run.task.batch(NUMBERS)
    assert batch["mask"].min() == batch["known"].min() == 1
    assert batch["latents"].shape == batch["masked"].shape == (6, 4, 8, 8)
    bright = WordTask(copy.deepcopy(pipe), references[1], 1 - target, mask, crops=2).batch(NUMBERS)
    assert all(torch.equal(bright[key], batch[key]) for key in batch)  # the target is not learnt
    other = WordTask(copy.deepcopy(pipe), references[0], target, mask, crops=2).batch(NUMBERS)
    assert [key for key in batch if not torch.equal(other[key], batch[key])] == ["latents"]
    grey = pipe.vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.mean * pipe.vae.config.scaling_factor
    many = run.task.batch([[1, 0, item] for item in range(64)])["masked"]
    spread = pipe.vae.encode(torch.zeros(1, 3, 32, 32)).latent_dist.std * pipe.vae.config.scaling_factor
    assert ((many.mean(0) - grey[0]).abs() < 6 * spread[0] / 8 + 1e-4).all()


@pytest.mark.long
def test_back_and_forward_is_the_same_to_the_bit(run, pipe):
    first = states(pipe)
    run.run(3)
    learnt, digest = states(pipe), run.state.digest
    run.goto(0)
    assert torch.equal(states(pipe), first)
    run.goto(3)
    assert torch.equal(states(pipe), learnt)
    assert run.state.digest == digest


@pytest.mark.long
def test_plain_diffusers_reads_the_word(run, pipe, tmp_path):
    run.run(2)
    learnt = states(pipe)
    run.task.export(tmp_path, "a test")
    plain = copy.deepcopy(pipe)
    remove_word(plain.text_encoder)
    plain.load_textual_inversion(str(tmp_path), weight_name="word.safetensors", token="<thing>")
    torch.testing.assert_close(states(plain, "a photo of <thing>"), learnt)


@pytest.mark.long
def test_it_fills_and_leaves_the_pipeline_as_it_was(pipe, references, target, mask):
    before = {name: value.clone() for name, value in weights(pipe).items()}
    learns = [p.requires_grad for p in pipe.unet.parameters()]
    quick = {"steps": 2, "word": SMALL, "num_inference_steps": 2}
    fills = exemplar(pipe, target, mask, references, [4, 5], **quick)
    assert fills.shape == (2, 3, 32, 48)
    assert torch.equal(fills * (1 - mask), (target * (1 - mask)).expand(2, -1, -1, -1))
    after = weights(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [p.requires_grad for p in pipe.unet.parameters()] == learns
    alone = exemplar(pipe, target, mask, references, [5], **quick)
    torch.testing.assert_close(alone, fills[1:], rtol=0, atol=1e-4)
    drawn = {float(exemplar(pipe, target, mask, references, [5], seed=s, **quick).sum()) for s in range(3)}
    assert len(drawn) > 1
    told = sample(pipe, target, mask, [5], prompt="a photo of object", num_inference_steps=2)
    assert not torch.equal(told, fills[1:])


@pytest.mark.long
def test_realfill_fills_with_its_run_too(run, references, target, mask):
    run.run(1)
    given = {"training": run, "samples": 1, "num_inference_steps": 2}
    result = wb.inpaint(target, mask, "realfill", references=references[1:2], **given)
    assert torch.equal(result.image * (1 - mask), target * (1 - mask))


@pytest.mark.long
def test_a_pipeline_of_half_precision(pipe, references, target, mask):
    pipe.to(torch.bfloat16)
    quick = {"steps": 1, "word": SMALL, "num_inference_steps": 1}
    assert exemplar(pipe, target, mask, references, [0], **quick).isfinite().all()


def test_two_tasks_of_one_word_keep_what_they_learnt(run, pipe, references, target, mask):
    run.step()
    learnt = states(pipe)
    other = learn_word(pipe, references[0], target, mask, **SMALL)
    assert torch.equal(states(pipe), states(pipe, "a photo of object"))
    other.step()
    with run.applied():
        assert torch.equal(states(pipe), learnt)
    assert not torch.equal(states(pipe), learnt)


def test_the_pipeline_is_given_back_when_learning_fails(pipe, references, target, mask, monkeypatch):
    monkeypatch.setattr(WordTask, "batch", lambda self, numbers: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        exemplar(pipe, target, mask, references, [0], steps=1)
    assert not isinstance(pipe.text_encoder.get_input_embeddings(), LearntWord)


def test_refusals(pipe, references, target, mask):
    def refused(message, error=ValueError, **changes):
        with pytest.raises(error, match=message):
            WordTask(pipe, **{"reference": references[0], "target": target, "mask": mask, **changes})
        assert not isinstance(pipe.text_encoder.get_input_embeddings(), LearntWord)

    refused(r"reference has shape \(3, 40, 36\)", reference=references[0][0])
    refused("reference holds 2 pictures, expected one", reference=references[0].expand(2, -1, -1, -1))
    refused(r"mask has shape \(1, 4, 32, 48\)", mask=torch.cat([mask] * 4, 1))
    refused("mask has no hole", mask=torch.zeros_like(mask))
    refused("prompt is 'a photo of a room' without the word 'sks'", prompt="a photo of a room")
    refused("word is '', expected a word", word="")
    refused("begin_with is a int, expected a string", TypeError, begin_with=3)
    refused("count is 0", crops=0)
    with pytest.raises(ValueError, match="references is empty"):
        exemplar(pipe, target, mask, [], [0])
    with pytest.raises(ValueError, match="references is missing"):
        exemplar(pipe, target, mask, None, [0])
    run = learn_word(pipe, references[0], target, mask, **SMALL)
    with pytest.raises(ValueError, match="has a learnt word. Sample from it"):
        exemplar(run.task.pipe, target, mask, references, [0])
    with pytest.raises(ValueError, match="has another learnt word. Take it out first"):
        WordTask(pipe, references[0], target, mask, "a photo of ohwx", word="ohwx")
    remove_word(pipe.text_encoder)
    add_lora(pipe.unet)
    refused(r"the pipeline has a LoRA \(default\). The word alone learns")
    four = copy.deepcopy(pipe)
    four.unet.register_to_config(in_channels=4)
    with pytest.raises(ValueError, match="takes 4 channels, expected 9"):
        WordTask(four, references[0], target, mask)
