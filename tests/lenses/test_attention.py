"""Attention recorded and edited: exact, clean, bounded, and right on cases worked out by hand."""

import copy
import math

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor

import workbench as wb
from tests.lenses.toy import Denoiser, Layer, Reference
from tests.stepping.pipelines import fresh, made, plain
from tests.stepping.test_state import counted
from workbench.lenses import edit_attention, record_attention
from workbench.lenses.attention.hearing import Post
from workbench.lenses.attention.tokens import Piece, Tokens

STEPS = 2
FAMILIES = ("sd_inpaint9", "sd_control", "sdxl", "sd3", "flux", "pixart", "kandinsky", "lcm", "pix2pix", "dit",
            "home_made")  # fmt: skip


def short(kind, **others):
    """A small pipeline and a call of two steps."""
    pipe, arguments = made(kind)
    return pipe, arguments | {("steps" if kind == "home_made" else "num_inference_steps"): STEPS} | others


def one_prompt(**others):
    pipe, arguments = short("sd_text", num_images_per_prompt=1, **others)
    return pipe, arguments | {"prompt": "a photo of a red ball", "negative_prompt": "small room"}


def recorded(**settings):
    pipe, arguments = one_prompt()
    with record_attention(pipe, **settings) as attention:
        plain(pipe, arguments)
    return attention


def is_clean(module: torch.nn.Module) -> bool:
    return not module._forward_pre_hooks and not any("forward" in vars(part) for part in module.modules())


# The result


@pytest.mark.parametrize("kind", FAMILIES)
def test_recording_changes_no_bit_and_every_row_sums_to_one(kind):
    pipe, arguments = short(kind)
    wanted = plain(pipe, arguments)
    with record_attention(pipe) as attention:
        assert torch.equal(plain(pipe, arguments), wanted)
    assert attention.steps == [1, 2]
    assert set(attention.grids()) == set(attention.layers)
    assert attention.silent == []
    for step, name in ((step, name) for step in attention.steps for name in attention.layers):
        rows, keys = attention.probabilities(step, name)
        assert rows.shape[-1] == max(span.stop for span in keys.values())
        assert rows.shape[-2] == math.prod(attention.grids()[name])
        torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
    assert all(is_clean(part) for part in pipe.components.values() if isinstance(part, torch.nn.Module))


def test_the_numbers_of_layers_and_the_size_are_those_of_the_pipeline():
    pipe, arguments = short("sd3")
    with record_attention(pipe) as attention:
        plain(pipe, arguments)
    assert attention.layers == ["transformer_blocks.0.attn"]
    assert attention.size == (32, 48)
    assert attention.grids() == {"transformer_blocks.0.attn": (8, 12)}
    assert len(recorded().layers) == 8  # 4 transformers of two layers each
    assert attention.mass("text") + attention.mass("image") == pytest.approx(1)


@pytest.mark.parametrize(("kind", "first"), [("sd3", "image"), ("flux", "text")])
def test_the_order_of_joint_sequences(kind, first):
    """Text keys are where they are said to be: checked against the layer's own projections."""
    pipe, arguments = short(kind, num_inference_steps=1)
    layer, found = pipe.transformer.transformer_blocks[0].attn, {}
    hook = layer.add_k_proj.register_forward_hook(lambda module, args, out: found.setdefault("text", out))
    with record_attention(pipe) as attention:
        plain(pipe, arguments)
    hook.remove()
    entry = next(e for e in attention._tape.entries.values() if e.layer == "transformer_blocks.0.attn")
    span = entry.layout.keys["text"]
    assert (span.start > 0) == (first == "image")
    own = found["text"][-len(entry.softmax.k) :].unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    kept = entry.softmax.k[:, :, span.start : span.stop].norm(dim=-1)  # rotations keep the norm
    if layer.norm_added_k is not None:
        own = layer.norm_added_k(own)
    torch.testing.assert_close(kept, own.norm(dim=-1))


def test_two_halves_guidance_off_and_batches():
    pipe, arguments = short("sd_text", num_images_per_prompt=2)  # prompts: red ball, two small rooms
    with record_attention(pipe, parts=("text", "uncond")) as attention:
        plain(pipe, arguments)
    entry = next(iter(attention._tape.entries.values()))
    assert entry.pictures == 4
    assert attention.tokens(1).words[-1] == "ball"
    assert attention.tokens(2).words == attention.tokens(3).words != attention.tokens(1).words
    assert attention.tokens(0, "uncond").words == attention.tokens(1, "uncond").words
    attention.token_map("two", picture=3)
    with pytest.raises(ValueError, match="expected one of the prompt, whose tokens are: a, photo, of, a, red, ball"):
        attention.token_map("two", picture=0)
    with pytest.raises(ValueError, match="picture is 4"):
        attention.token_map("two", picture=4)

    off = arguments | {"guidance_scale": 1.0, "num_images_per_prompt": 1}
    with record_attention(pipe, parts=("text", "uncond")) as attention:
        plain(pipe, off)
    assert {key[2] for key in attention._tape.entries} == {"text"}
    attention.token_map("ball")


def test_guidance_in_two_calls_is_one_step():
    pipe, arguments = short("flux")
    with record_attention(pipe, parts=("text", "uncond")) as attention:
        plain(pipe, arguments)
    assert attention.steps == [1, 2]
    assert {key[::2] for key in attention._tape.entries} == {(s, p) for s in (1, 2) for p in ("text", "uncond")}
    assert "".join(attention.tokens(1, "uncond").words) == "nolight"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    unet = copy.deepcopy(made("sd_text")[0].unet).to(dtype)
    generator = torch.Generator().manual_seed(0)
    latents, text = (torch.randn(s, generator=generator).to(dtype) for s in ((2, 4, 8, 12), (2, 48, 32)))
    wanted = unet(latents, 5, text).sample
    with record_attention(unet, size=(32, 48)) as attention:
        assert torch.equal(unet(latents, 5, text).sample, wanted)
    rows, _ = attention.probabilities(1, attention.layers[1])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
    assert next(iter(attention._tape.entries.values())).softmax.q.dtype == dtype


# Against others


def test_agrees_with_the_scores_of_diffusers():
    """`Attention.get_attention_scores` from the layer's inputs and projections, which we do not use."""
    pipe, arguments = one_prompt()
    inputs = {}
    name = "up_blocks.0.attentions.1.transformer_blocks.0.attn2"
    layer = pipe.unet.get_submodule(name)
    hook = layer.register_forward_pre_hook(lambda m, a, k: inputs.update(k, x=a[0]), with_kwargs=True)
    with record_attention(pipe) as attention:
        plain(pipe, arguments)
    hook.remove()
    q, k = layer.to_q(inputs["x"]), layer.to_k(inputs["encoder_hidden_states"])
    q, k = layer.head_to_batch_dim(q), layer.head_to_batch_dim(k)
    scores = layer.get_attention_scores(q, k).unflatten(0, (2, -1))[1]  # the half with the prompt
    torch.testing.assert_close(attention.probabilities(STEPS, name)[0], scores)


@pytest.mark.parametrize("processor", [AttnProcessor, lambda: SlicedAttnProcessor(3)])
def test_open_and_sliced_attention_give_the_same_maps(processor):
    wanted = recorded().token_map("ball", stretch=False)
    pipe, arguments = one_prompt()
    before = pipe.unet.attn_processors
    try:
        pipe.unet.set_attn_processor(processor())
        plainly = plain(pipe, arguments)
        with record_attention(pipe) as attention:
            assert torch.equal(plain(pipe, arguments), plainly)
        with edit_attention(pipe, "ball") as edit:
            changed = plain(pipe, arguments)
    finally:
        pipe.unet.set_attn_processor(before)
    torch.testing.assert_close(attention.token_map("ball", stretch=False), wanted, rtol=1e-3, atol=1e-5)
    with edit_attention(pipe, "ball"):
        torch.testing.assert_close(changed, plain(pipe, arguments), rtol=1e-3, atol=1e-4)
    assert edit.edited


# By hand


def test_two_tokens_by_hand():
    net = Denoiser()
    x = torch.tensor([[1.0, 0.0]]).reshape(1, 2, 1, 1)
    text = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    with record_attention(net, kinds="cross", size=(4, 4), tokens=["red", "ball"]) as attention:
        net(x, None, text)
    first = 1 / (1 + math.exp(-2 / math.sqrt(2)))
    rows, keys = attention.probabilities(1, "cross")
    torch.testing.assert_close(rows, torch.tensor([[[first, 1 - first]]]))
    assert list(keys) == ["text"]
    assert attention.token_map("red", stretch=False).mean().item() == pytest.approx(first)
    assert attention.token_shares((3, 3)) == [("red", pytest.approx(first)), ("ball", pytest.approx(1 - first))]
    assert attention.token_map("red", how="normalised", stretch=False).max().item() == pytest.approx(first)


def looking_at(row, column, grid=(3, 5)):
    """Latents whose place (row, column) alone looks at the second token."""
    x = torch.zeros(1, 2, *grid)
    x[0, 0] = 40
    x[0, :, row, column] = torch.tensor([0.0, 40.0])
    return x, torch.eye(2)[None] * 2


def test_a_map_is_where_the_attention_is_at_image_size():
    net, (x, text) = Denoiser(), looking_at(2, 3)
    with record_attention(net, size=(30, 50), tokens=["a", "ball"]) as attention:
        net(x, None, text)
    found = attention.token_map("ball")
    assert found.shape == (30, 50)
    assert found.max() == 1
    assert found[25, 35] == 1  # the middle of the place
    assert found[:10].max() < 1e-9
    assert found[:, :25].max() < 1e-9
    seen = attention.query_map((35, 25), layer="own")  # looks at the only place like itself
    assert seen.shape == (30, 50)
    assert (seen == seen.max()).nonzero().float().mean(0).tolist() == pytest.approx([25.5, 34.5], abs=2)
    assert attention.query_map((5, 5), layer="own")[25, 35] < 0.06  # what the neighbours lend it
    hole = torch.zeros(1, 1, 30, 50)
    hole[..., 20:30, 30:40] = 1
    assert attention.mass(hole, queries=hole, layer="own") == pytest.approx(1)
    assert attention.mass(1 - hole, queries=hole, layer="own") == pytest.approx(0)
    assert attention.mass(hole, layer="own") == pytest.approx(1 / 15)


def test_sums_means_shares_heads_and_steps():
    attention = recorded(kinds="cross")
    whole = attention.token_map("red ball", stretch=False)
    parts = [attention.token_map(word, stretch=False) for word in ("red", "ball")]
    torch.testing.assert_close(whole, (parts[0] + parts[1]) / 2)
    sides = attention.token_maps("red ball", stretch=False)
    torch.testing.assert_close(sides["sum"], whole * 2 * STEPS * sum(
        entry.heads for key, entry in attention._tape.entries.items() if key[0] == 1))  # fmt: skip
    words = dict.fromkeys(attention.tokens().words)  # "a" is there twice: both count
    shares = sum(attention.token_map(word, how="normalised", stretch=False) for word in words)
    torch.testing.assert_close(shares, torch.ones(32, 48))
    both = [attention.token_map("a", occurrence=n, stretch=False) for n in (0, 1)]
    torch.testing.assert_close(attention.token_map("a", stretch=False), sum(both) / 2)
    name = next(iter(attention.grids()))
    heads = next(iter(attention._tape.entries.values())).heads
    by_head = [attention.token_map("ball", 1, name, head, stretch=False) for head in range(heads)]
    torch.testing.assert_close(attention.token_map("ball", 1, name, stretch=False), sum(by_head) / heads)
    by_step = [attention.token_map("ball", step, stretch=False) for step in (1, 2)]
    torch.testing.assert_close(attention.token_map("ball", stretch=False), sum(by_step) / 2)
    total = sum(attention.mass(kind) for kind in ("start", "word", "end", "padding"))
    assert total == pytest.approx(attention.mass("text")) == pytest.approx(1)


def test_words_of_several_tokens_are_found_whole():
    pipe, arguments = one_prompt()
    with record_attention(pipe, kinds="cross") as attention:
        plain(pipe, arguments | {"prompt": "a zebra ball"})  # letters, as the small vocabulary has no zebra
    tokens = attention.tokens()
    assert len(tokens.columns("zebra")) > 1
    assert tokens.columns("ball") == [tokens.columns("zebra")[-1] + 1]
    with pytest.raises(ValueError, match="word is 'bra'"):
        tokens.columns("bra")
    with pytest.raises(ValueError, match="word is 'ze'"):
        tokens.columns("ze")


def test_attention_to_a_reference():
    """The seam for MimicBrush: keys of one's own and of a reference, two softmaxes in a layer, other proportions."""
    x, _ = looking_at(0, 1)
    reference = torch.zeros(1, 4 * 2, 2)
    reference[0, 5] = torch.tensor([0.0, 90.0])
    net = Denoiser(own=Reference(2, reference, {"image": (3, 5), "reference": (4, 2)}))
    with record_attention(net, size=(30, 50)) as attention:
        net(x)
    assert attention.mass("reference") + attention.mass("image") == pytest.approx(1)
    found = attention.query_map((15, 5), keys="reference")
    assert found.shape == (40, 20)
    assert found[25, 15] == 1
    with pytest.raises(ValueError, match="keys 'text'. There are: own"):
        attention.mass("text")


# Edits


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_an_edit_is_the_computation_by_hand(scale):
    layer = Layer(4, heads=2)
    net = Denoiser(cross=layer)
    generator = torch.Generator().manual_seed(0)
    x, text = torch.randn(2, 4, 3, 5, generator=generator), torch.randn(2, 3, 4, generator=generator)
    wanted = net(x, None, text)
    with edit_attention(net, "ball", scale, tokens=["a", "red", "ball"], layers="cross") as edit:
        changed = net(x, None, text)
    q, k = (t.unflatten(-1, (2, 2)).transpose(1, 2) for t in (x.flatten(2).transpose(1, 2), text))
    p = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(2), -1)
    away = ((scale - 1) * p[..., 2:] @ k[:, :, 2:]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(changed, wanted + away.transpose(1, 2).reshape(wanted.shape))
    assert edit.edited == 1
    assert is_clean(net)


def test_an_edit_of_a_pipeline_is_seen_and_scale_one_changes_nothing():
    pipe, arguments = one_prompt()
    wanted = plain(pipe, arguments)
    with edit_attention(pipe, "ball", 1.0):
        torch.testing.assert_close(plain(pipe, arguments), wanted, rtol=1e-4, atol=1e-4)
    with edit_attention(pipe, "ball", 0.0, steps=2) as edit, record_attention(pipe, kinds="cross") as attention:
        assert not torch.equal(plain(pipe, arguments), wanted)
    assert edit.edited == 4
    rows, _ = attention.probabilities(1, attention.layers[1])
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))
    with pytest.raises(ValueError, match="word is 'cube'"), edit_attention(pipe, "cube"):
        plain(pipe, arguments)
    assert is_clean(pipe.unet)
    with pytest.raises(RuntimeError, match="no column was scaled"), edit_attention(pipe, "ball", layers="attn1"):
        plain(pipe, arguments)
    with pytest.raises(ValueError, match="scale is -1"):
        edit_attention(pipe, "ball", -1.0)


# Clean, whatever happens


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_everything_is_put_back_after_an_exception(error):
    net, (x, text) = Denoiser(), looking_at(0, 0)
    before = torch._C._len_torch_function_stack()
    net.fails = error
    with pytest.raises(type(error)), record_attention(net, size=(3, 5), tokens=["a", "b"]) as attention:
        net(x, None, text)
    assert is_clean(net)
    assert torch._C._len_torch_function_stack() == before
    assert attention.token_map("a").shape == (3, 5)  # what came before it can be looked at


def test_an_exception_inside_a_layer_leaves_no_mode(monkeypatch):
    net, (x, text) = Denoiser(), looking_at(0, 0)
    before = torch._C._len_torch_function_stack()
    attention = record_attention(net)
    monkeypatch.setattr("workbench.lenses.attention.hearing.FUSED", None)
    monkeypatch.setattr(Layer, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), attention:
        net(x, None, text)
    assert is_clean(net)
    assert torch._C._len_torch_function_stack() == before


@pytest.mark.parametrize("stage", range(3))
def test_half_way_through_entering(stage, monkeypatch):
    net, count = Denoiser(), iter(range(9))

    def attach(module, listener, plainly=Post.attach):
        if next(count) == stage:
            raise KeyboardInterrupt
        return plainly(module, listener)

    monkeypatch.setattr(Post, "attach", attach)
    if stage == 2:  # at the hook of the denoiser itself
        monkeypatch.setattr(net, "register_forward_pre_hook", lambda *a, **k: 1 / 0)
    with pytest.raises((KeyboardInterrupt, ZeroDivisionError)), record_attention(net):
        pass
    monkeypatch.undo()
    assert is_clean(net)


def test_nested_repeated_and_overlapping_use():
    pipe, arguments = one_prompt()
    wanted = plain(pipe, arguments)
    one, two = record_attention(pipe), record_attention(pipe, layers="up", kinds="cross")
    one.__enter__()
    two.__enter__()
    with one:
        assert torch.equal(plain(pipe, arguments), wanted)
    one.__exit__(None, None, None)  # not in the order of a stack
    assert torch.equal(plain(pipe, arguments), wanted)
    two.__exit__(None, None, None)
    assert is_clean(pipe.unet)
    torch.testing.assert_close(one.token_map("ball", layer="up"), two.token_map("ball"))
    with one:
        plain(pipe, arguments | {"prompt": "small room"})  # a new call takes the place of the old
    assert one.steps == [1, 2]
    assert one.tokens().words == ["small", "room"]


def test_a_forward_set_before_is_kept_and_a_copy_is_plain():
    net, (x, text) = Denoiser(), looking_at(0, 0)
    own = net.cross.forward
    net.cross.forward = own
    wanted = net(x, None, text)
    with record_attention(net, kinds="cross"):
        twin = copy.deepcopy(net)
        assert torch.equal(net(x, None, text), wanted)
    assert net.cross.forward is own
    twin.cross.to_q = torch.nn.Linear(2, 2)
    assert not torch.equal(twin(x, None, text), wanted)  # its own layer runs


# What is kept


def test_the_limit_holds_and_is_told():
    full = recorded()
    assert full.dropped == {}
    limit = full.bytes / 2**20 / 3  # room for maps, not for queries and keys
    attention = recorded(memory=limit)
    assert attention.bytes <= limit * 2**20
    assert attention.dropped["self-attention"]
    assert "Dropped: self-attention" in repr(attention)
    torch.testing.assert_close(attention.token_map("ball"), full.token_map("ball"), rtol=1e-2, atol=1e-2)
    with pytest.raises((RuntimeError, ValueError), match="Dropped: self-attention"):
        attention.query_map((3, 3), step=1)
    for keep in ("tokens", "sums"):
        less = recorded(keep=keep)
        assert less.bytes < full.bytes / 2
        torch.testing.assert_close(less.token_map("ball"), full.token_map("ball"), rtol=1e-2, atol=1e-2)
        assert less.tokens().words[-1] == "ball"
        with pytest.raises((RuntimeError, ValueError), match="Dropped"):
            less.token_map("ball", head=0)
    with pytest.raises(ValueError, match="step is 1"):
        less.token_map("ball", step=1)


def test_sums_do_not_grow_with_steps():
    sizes = []
    for steps in (1, 3):
        pipe, arguments = one_prompt(num_inference_steps=steps)
        with record_attention(pipe, keep="sums") as attention:
            plain(pipe, arguments)
        sizes.append(attention.bytes)
    assert sizes[0] == sizes[1]


def test_layers_and_steps_are_chosen():
    assert all("up_blocks" in name for name in recorded(layers="up").layers)
    assert recorded(layers="attn2").layers == recorded(kinds="cross", layers="attn2").layers
    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert recorded(layers=[name]).layers == [name]
    assert set(recorded(layers=(4, 6)).grids().values()) == {(4, 6)}
    assert recorded(steps=2).steps == [2]
    assert recorded(steps=range(1, 2)).steps == [1]
    attention = recorded()
    torch.testing.assert_close(
        attention.token_map("ball", layer="mid", stretch=False), attention.token_map("ball", layer=name, stretch=False)
    )


# Errors


def test_errors_name_what_is_there():
    pipe, arguments = one_prompt()
    with pytest.raises(ValueError, match=r"layers='attn3'.*There are 8: down_blocks.1.attentions.0"):
        record_attention(pipe, layers="attn3")
    with pytest.raises(TypeError, match="expected a pipeline, a DenoisingRun or a module"):
        record_attention(3)
    with pytest.raises(ValueError, match="has no attention layers"):
        record_attention(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="kinds is 'both'"):
        record_attention(pipe, kinds="both")
    with pytest.raises(ValueError, match="keep is 'all'"):
        record_attention(pipe, keep="all")
    with pytest.raises(ValueError, match="steps is 0"):
        record_attention(pipe, steps=0)
    with pytest.raises(RuntimeError, match=r"nothing was recorded.*Grids seen: \(4, 6\)"), record_attention(
        pipe, layers=(5, 7)
    ):  # fmt: skip
        plain(pipe, arguments)
    with pytest.raises(RuntimeError, match="nothing is recorded"):
        record_attention(pipe).token_map("ball")
    attention = recorded()
    with pytest.raises(ValueError, match=r"step is 3, expected one that is kept: \[1, 2\]"):
        attention.token_map("ball", step=3)
    with pytest.raises(ValueError, match="nothing goes with layer='low'"):
        attention.token_map("ball", layer="low")
    with pytest.raises(ValueError, match="head is 9"):
        attention.token_map("ball", head=9)
    with pytest.raises(ValueError, match="how is 'max'"):
        attention.token_map("ball", how="max")
    with pytest.raises(ValueError, match="x is 49"):
        attention.query_map((49, 3))
    with pytest.raises(TypeError, match="point is 3"):
        attention.query_map(3)
    with pytest.raises(TypeError, match="word is 2.5"):
        attention.token_map(2.5)
    with pytest.raises(ValueError, match="which 8 layers go with"):
        attention.probabilities(1, None)


def test_a_network_that_cannot_be_heard_is_an_error(monkeypatch):
    net, (x, text) = Denoiser(), looking_at(0, 0)
    monkeypatch.setattr(Layer, "forward", lambda self, x, text=None: x)  # stands for a foreign kernel
    with pytest.raises(RuntimeError, match="without a softmax that could be seen.*: cross, own"), record_attention(net):
        net(x, None, text)
    assert is_clean(net)


def test_embeddings_have_no_words_but_columns():
    pipe, arguments = short("kandinsky")
    with record_attention(pipe) as attention:
        plain(pipe, arguments)
    with pytest.raises(ValueError, match="the prompt of part 'text' is not known"):
        attention.token_map("ball")
    assert attention.token_map(3).shape == (32, 48)


def test_what_there_is_to_choose():
    attention = recorded(layers="up")
    names = list(attention.grids())
    assert attention.heads() == dict.fromkeys(names, 2)
    assert attention.keys() == {name: ("text",) if name.endswith("attn2") else ("image",) for name in names}


class Vocabulary:
    """Special tokens 0 (start) and 9 (end and padding)."""

    bos_token_id, eos_token_id, pad_token_id = 0, 9, 9


@pytest.mark.parametrize(
    "names",
    [
        ["<s>", "a</w>", "red", "dish</w>", "ball</w>", ",</w>", "</s>", "</s>"],
        ["<s>", "Ġa", "Ġred", "dish", "Ġball", ",", "</s>", "</s>"],
        ["<s>", "▁a", "▁red", "dish", "▁ball", ",", "</s>", "</s>"],
    ],
)
def test_words_of_several_tokens_are_spelled_as_one(names):
    tokens = Tokens([Piece(Vocabulary(), [0, 1, 2, 3, 4, 5, 9, 9], names)])
    assert tokens.spelled == [("a", [1]), ("reddish", [2, 3]), ("ball", [4]), (",", [5])]
    two = Tokens([Piece(Vocabulary(), [0, 1, 2, 3, 4, 5, 9, 9], names)] * 2)
    assert two.spelled[4:] == [("a", [9]), ("reddish", [10, 11]), ("ball", [12]), (",", [13])]
    assert Tokens.named(["red", "dish"]).spelled == [("red", [0]), ("dish", [1])]


# Runs


def test_a_past_step_of_a_run_is_computed_once_more_by_one_call():
    pipe, arguments = fresh("sd_inpaint9")
    arguments = {**arguments, "num_inference_steps": 3}
    run = wb.DenoisingRun(pipe, seed=3, **arguments)
    with record_attention(run) as wanted:
        run.step(3)
    later = record_attention(run)
    digests = [state.digest for state in run.states]
    with counted(pipe) as calls:
        found = later.token_map("ball", step=2)
        later.query_map((5, 7), step=2)
        later.token_map("ball", step=2, head=1)
    assert len(calls) == 1
    assert torch.equal(found, wanted.token_map("ball", step=2))
    assert torch.equal(later.query_map((5, 7), step=3), wanted.query_map((5, 7), step=3))
    assert [state.digest for state in run.states] == digests
    assert run.branches == []
    assert is_clean(pipe.unet)
    with pytest.raises(ValueError, match="step is 4"):
        later.token_map("ball", step=4)
    run.back()
    assert later.token_map("ball", step=1).shape == (32, 48)


def test_a_run_under_way_is_heard_and_what_was_dropped_comes_back():
    pipe, arguments = one_prompt(num_inference_steps=3)
    run = wb.DenoisingRun(pipe, seed=3, **arguments)
    run.step()
    with record_attention(run, keep="tokens") as attention:
        run.step()
        assert attention.steps == [2]
        assert attention.query_map((3, 3), step=2).shape == (32, 48)  # once more, for its rows
        run.step()
    assert attention.steps == [2, 3]
    untouched = wb.DenoisingRun(pipe, seed=3, **arguments)
    untouched.step(3)
    assert untouched.state.digest == run.state.digest


def test_position_ids_and_images_given_as_part_of_the_sequence():
    """Flux Kontext's sequence: the picture's tokens, then those of a reference."""
    net = made("flux")[0].transformer
    ids = [(which, y, x) for which, h, w in ((0, 4, 6), (1, 2, 3)) for y in range(h) for x in range(w)]
    generator = torch.Generator().manual_seed(0)
    with record_attention(net, size=(32, 48)) as attention, torch.no_grad():
        net(
            torch.randn(1, 30, 16, generator=generator), torch.randn(1, 16, 32, generator=generator),
            torch.randn(1, 32, generator=generator), torch.tensor([0.5]),
            torch.tensor(ids, dtype=torch.float32), torch.zeros(16, 3),
        )  # fmt: skip
    for name in attention.layers:
        assert attention.query_map((9, 9), layer=name, keys="reference").shape == (16, 24)
        parts = [attention.mass(part, layer=name) for part in ("text", "image", "reference")]
        assert sum(parts) == pytest.approx(1)
