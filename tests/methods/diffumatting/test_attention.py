"""The attention of the word "green": which columns, which layers, equal to what the lens records, with gradients."""

import copy

import pytest
import torch

import workbench as wb
from tests.stepping import narrow
from workbench.methods.diffumatting import losses
from workbench.methods.diffumatting.attention import WordAttention, green_caption, green_columns

PROMPTS = ["a photo of a green leaf on a green background", "a ball on a green background", ""]


@pytest.fixture
def pipe():
    return copy.deepcopy(narrow.text_to_image())


def states_of(pipe, prompts):
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=48, truncation=True, return_tensors="pt").input_ids
    return pipe.text_encoder(ids)[0]


def test_captions():
    assert green_caption(" a feather. ") == "a feather on a green background"
    assert green_caption(green_caption("a feather")) == "a feather on a green background"
    with pytest.raises(TypeError, match="caption is a int"):
        green_caption(3)


def test_only_the_backgrounds_green_counts(pipe):
    columns = green_columns(pipe.tokenizer, PROMPTS)
    assert columns.shape == (3, 48)
    assert columns.nonzero().tolist() == [[0, 9], [1, 5]]  # after the start: a photo of a green leaf on a *green*


def test_maps_are_what_the_lens_records(pipe):
    prompts = PROMPTS[:1]
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), WordAttention(pipe.unet, green_columns(pipe.tokenizer, prompts)) as heard:
        plain = pipe.unet(latents, 500, states_of(pipe, prompts)).sample
    assert torch.equal(plain, pipe.unet(latents, 500, states_of(pipe, prompts)).sample)  # nothing is changed
    names = [name for name, m in pipe.unet.named_modules() if name.endswith("attn2")]
    assert len(heard.maps) == len(names)
    assert {tuple(m.shape[-2:]) for m in heard.maps} == {(4, 6), (2, 3)}
    with torch.no_grad(), wb.record_attention(pipe.unet, layers=names[0], size=(4, 6)) as recorded:
        pipe.unet(latents, 500, states_of(pipe, prompts))
    expected = recorded.token_map(9, step=1)
    mine = heard.maps[0][0, 0]
    torch.testing.assert_close(mine / mine.max(), expected / expected.max(), rtol=1e-3, atol=1e-4)


def test_the_gradient_reaches_queries_and_keys_and_nothing_behind(pipe):
    latents = torch.randn(3, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    columns = green_columns(pipe.tokenizer, PROMPTS)
    with WordAttention(pipe.unet, columns) as heard:
        pipe.unet(latents, torch.tensor([5, 500, 900]), states_of(pipe, PROMPTS).detach())
    losses.green_control(heard.maps, torch.rand(3, 1, 32, 48), columns.amax(1)).backward()
    got = {name for name, p in pipe.unet.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    for name, _ in pipe.unet.named_modules():
        if name.endswith("attn2"):
            assert f"{name}.to_q.weight" in got
            assert f"{name}.to_k.weight" in got
    assert not {"conv_out.weight", "conv_norm_out.weight"} & got  # they come after the last layer
    assert not vars(pipe.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2")).get("forward")


def test_a_text_of_another_length_is_refused_and_hooks_are_gone(pipe):
    with (
        pytest.raises(ValueError, match="columns has 7 columns for a text of 48"),
        WordAttention(pipe.unet, torch.ones(1, 7)),
    ):
        pipe.unet(torch.zeros(1, 4, 8, 12), 5, states_of(pipe, [""]))
    assert pipe.unet(torch.zeros(1, 4, 8, 12), 5, states_of(pipe, [""])).sample.shape == (1, 4, 8, 12)
