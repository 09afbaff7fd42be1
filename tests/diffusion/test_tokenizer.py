"""Words in, tokens out, and back."""

import pytest
import torch

from workbench.diffusion.libraries import CLIPTokenizer
from workbench.diffusion.tokenizer import EVERYDAY, LENGTH, RARE, make_tokenizer, save_tokenizer, token_ids, world_words
from workbench.world.materials import COLOURS
from workbench.world.views import LABELS


def test_every_word_of_the_world_is_one_token(tokenizer):
    words = world_words()
    assert {*LABELS, *COLOURS, "balconies", "shelves", "windows"} <= set(words)
    for word in [*words, *EVERYDAY, *RARE]:
        assert tokenizer.tokenize(word) == [word + "</w>"], word
    assert len(tokenizer) < 1500  # an embedding table of 0.3 MiB


def test_a_prompt_comes_back(tokenizer):
    prompt = "a photo of a room with a red striped ball and an orange teapot on a wooden floor"
    ids = token_ids(tokenizer, [prompt, ""])
    assert ids.shape == (2, LENGTH)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == prompt
    assert ids[1].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * (LENGTH - 1)


@pytest.mark.parametrize("prompt", ["zebra", "a zebra on a piano 1789", "über allen gipfeln", "日本", "sks!", "🎈"])
def test_unknown_words_fall_apart_and_come_back(tokenizer, prompt):
    ids = token_ids(tokenizer, [prompt])[0]
    inside = ids[1 : ids.tolist().index(tokenizer.eos_token_id)]
    assert len(inside) >= 1
    back = tokenizer.decode(ids, skip_special_tokens=True)
    assert back.replace(" ", "") == prompt.replace(" ", "")


def test_capitals_do_not_matter_and_long_prompts_are_cut(tokenizer):
    a, b = token_ids(tokenizer, ["A Red Ball", "a red ball"])
    assert torch.equal(a, b)
    assert token_ids(tokenizer, ["ball " * 200])[0, -1] == tokenizer.eos_token_id


def test_saved_and_read_again(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= {f.name for f in tmp_path.iterdir()}
    again = CLIPTokenizer.from_pretrained(tmp_path)
    prompt = ["a sks ball in a zoo"]
    assert torch.equal(token_ids(again, prompt), token_ids(tokenizer, prompt))
    assert again.model_max_length == LENGTH


def test_what_is_no_word_is_told():
    with pytest.raises(ValueError, match="word is 'Red ball', expected lower-case letters"):
        make_tokenizer(["Red ball"])
    with pytest.raises(TypeError, match="expected a list of strings"):
        token_ids(make_tokenizer(["a"]), "a")
