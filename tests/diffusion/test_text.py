"""Learning to read: what is asked of which token, and that it is learnt."""

import numpy as np
import pytest
import torch

from workbench.check import NotAvailable
from workbench.diffusion.models import make_text_encoder
from workbench.diffusion.text import Reading, TextTask, load_text_encoder, made_up_caption
from workbench.diffusion.tokenizer import EVERYDAY, RARE, token_ids, world_words
from workbench.diffusion.training import Settings, Trainer


@pytest.fixture
def reading(tokenizer):
    return Reading(make_text_encoder(tokenizer, width=32, layers=1), tokenizer)


def test_made_up_captions_hold_known_words_and_depend_on_their_numbers_alone():
    known = {*world_words(), *EVERYDAY, *RARE}
    captions = [made_up_caption(np.random.default_rng([1, i])) for i in range(300)]
    assert captions == [made_up_caption(np.random.default_rng([1, i])) for i in range(300)]
    assert len(set(captions)) > 290
    words = {word for caption in captions for word in caption.replace(",", "").split()}
    assert words <= known
    assert {"ball", "teapot", "turquoise", "woven", "facade", "sks", "background"} <= words


def test_a_word_tells_its_looks_and_the_end_tells_all(reading, tokenizer):
    ids = token_ids(tokenizer, ["a photo of a red ball and a blue striped cube on a floor", ""])
    asked = reading.asked(ids)
    tokens = tokenizer.convert_ids_to_tokens(ids[0].tolist())

    def words(item, place):
        return {tokenizer.decode([i]).strip() for i in asked[item, place].nonzero().flatten().tolist()}

    told = {token.removesuffix("</w>"): words(0, i) for i, token in enumerate(tokens[:15])}
    assert told["photo"] == told["of"] == told["a"] == told["and"] == set()
    assert (told["red"], told["ball"]) == ({"red"}, {"red", "ball"})
    assert told["cube"] == {"blue", "striped", "cube"}
    assert told["floor"] == {"floor"}
    assert words(0, 15) == words(0, 47) == {"red", "ball", "blue", "striped", "cube", "floor"}
    assert asked[1].sum() == 0


def test_the_loss_is_that_of_a_blind_guess_at_first_and_the_truths_at_best(reading, tokenizer):
    ids = token_ids(tokenizer, ["a photo of a red ball", "a photo of a green cube"])
    losses = reading({"ids": ids})
    blind = torch.tensor(float(len(tokenizer))).log()
    torch.testing.assert_close(losses["words"], blind, rtol=1e-4, atol=0)  # no word is likelier than another
    torch.testing.assert_close(losses["loss"], losses["words"] + losses["texts"])
    asked = reading.asked(ids)
    reading.told = lambda ids: 50 * asked
    sure = reading({"ids": ids})
    torch.testing.assert_close(sure["words"], torch.tensor(2.0).log() / 2, rtol=1e-3, atol=0)  # of one word, and of two
    torch.testing.assert_close(sure["texts"], torch.tensor(2.0).log(), rtol=1e-3, atol=0)
    assert reading({"ids": token_ids(tokenizer, [""])})["loss"] == 0


@pytest.mark.long
def test_a_linear_map_tells_the_words_after_some_updates(reading, tokenizer, tmp_path):
    task = TextTask(reading, tokenizer)
    assert task.validate()["descriptions"] < 0.1
    settings = Settings(steps=250, batch_size=16, learning_rate=1e-2, warmup=20, ema=0.9, checkpoint_seconds=1e6)
    trainer = Trainer(task, settings, tmp_path / "run")
    trainer.run(bar=False)
    assert trainer.measure()["descriptions"] > 0.2
    task.export(tmp_path / "model", "in a test")
    loaded = load_text_encoder(tmp_path / "model")
    ids = token_ids(tokenizer, ["a red ball"])
    ours, theirs = (model(ids).last_hidden_state for model in (reading.text_encoder, loaded))
    torch.testing.assert_close(theirs, ours, rtol=0.02, atol=0.02)  # float16


def test_no_text_encoder(tmp_path):
    with pytest.raises(NotAvailable, match="nowhere"):
        load_text_encoder(tmp_path / "nowhere")
