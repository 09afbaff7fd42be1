"""MimicBrush's networks: both readings of the shared attention against a second one, what is grown, what is dropped."""

import pytest
import torch

import workbench as wb
from tests.methods.mimicbrush import narrow, plain
from tests.methods.mimicbrush.narrow import noise
from tests.stepping.narrow import inpainting, text_to_image
from workbench.diffusion import models
from workbench.methods.mimicbrush.attention import Bank, grid_of, imitating, listening, shared_layers, with_rows
from workbench.methods.mimicbrush.networks import Adapters, DepthMapper, Imitator, make_imitator

READINGS = ("paper", "released")
SHAPE = (8, 12)


def inputs(count=2, size=SHAPE):
    """Latents, mask, background, depth, tokens."""
    shapes = [(count, c, *size) for c in (4, 1, 4, 4)]
    given = [noise(*shape, seed=k) - 0.5 for k, shape in enumerate(shapes)]
    return given[0], 300, (given[1] > 0).float(), given[2], given[3], noise(count, 3, 32, seed=9)


def processors(unet):
    return {name: layer.processor for name, layer in shared_layers(unet, ("down", "mid", "up")).items()}


# The shared attention


@pytest.mark.parametrize("reading", READINGS)
def test_attention_is_that_of_a_second_reading(reading):
    """In the layer's place, with the layer's own weights, a reference of another size, two different items."""
    imitator = narrow.stirred(narrow.fresh(reading))
    bank = imitator.read(noise(2, 4, 4, 8, seed=3))
    heard = {}

    def note(name):
        return lambda layer, args, output: heard.update({name: (args[0], output)})

    layers = shared_layers(imitator.unet)
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    with torch.no_grad():
        imitator(*inputs(), bank)
    for hook in hooks:
        hook.remove()
    assert len(heard) == len(layers) == 5
    for k, (name, layer) in enumerate(layers.items()):
        x, output = heard[name]
        given = (layer.state_dict(), x, bank.tokens[name])
        if reading == "paper":
            own = imitator.adapters
            expected = plain.paper(*given, own.reference_k[k].weight, own.reference_v[k].weight, layer.heads)
        else:
            expected = plain.released(*given, layer.heads)
        torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reading", READINGS)
def test_the_reference_counts_and_a_dropped_one_does_not(reading):
    imitator = narrow.stirred(narrow.fresh(reading))
    given = inputs()
    with torch.no_grad():
        a, b = (imitator.read(noise(2, 4, *SHAPE, seed=seed)) for seed in (3, 4))
        alone = imitator(*given)
        with_a, with_b = imitator(*given, a), imitator(*given, b)
        half = imitator(*given, a, torch.tensor([1.0, 0.0]))
        none = imitator(*given, a, torch.zeros(2))
        all_present = imitator(*given, a, torch.ones(2))
    assert (with_a - with_b).abs().max() > 1e-4
    assert (with_a - alone).abs().max() > 1e-4
    torch.testing.assert_close(half[0], with_a[0])
    torch.testing.assert_close(half[1], alone[1])
    torch.testing.assert_close(none, alone)
    assert torch.equal(all_present, with_a)


@pytest.mark.parametrize("reading", READINGS)
def test_a_reference_equal_to_the_picture_tells_nothing_new(reading):
    """With the picture's own projections, doubling keys and values leaves a softmax's mean as it is."""
    imitator = narrow.fresh(reading)
    name, layer = next(iter(shared_layers(imitator.unet).items()))
    x = noise(1, 6, layer.to_q.in_features)
    tokens = {n: x if n == name else noise(1, 6, m.to_q.in_features) for n, m in shared_layers(imitator.unet).items()}
    bank = Bank(tokens, dict.fromkeys(tokens, (2, 3)))
    own = [(m.to_k, m.to_v) for m in shared_layers(imitator.unet).values()]
    alone = layer(x)
    with imitating(imitator.unet, bank, (2, 3), reading=reading, projections=own):
        torch.testing.assert_close(layer(x), alone)


def test_listening_changes_nothing_and_keeps_what_the_layers_got():
    unet, latents = text_to_image().unet, noise(2, 4, 8, 12)
    before, states = processors(unet), noise(2, 5, 32)
    with torch.no_grad():
        expected = unet(latents, 7, states).sample
        with listening(unet, SHAPE) as bank:
            assert torch.equal(unet(latents, 7, states).sample, expected)
    assert processors(unet) == before
    assert set(bank.tokens) == set(shared_layers(unet))
    assert {name.split(".")[0] for name in bank.tokens} == {"mid_block", "up_blocks"}
    assert set(bank.grids.values()) == {(2, 3), (4, 6)}
    for name, value in bank.maps().items():
        assert value.shape == (2, bank.tokens[name].shape[-1], *bank.grids[name])
        torch.testing.assert_close(value[0, :, 1, 2], bank.tokens[name][0, bank.grids[name][1] + 2])
    assert len(bank) == 2
    assert len(with_rows(bank, [1, 1, 0])) == 3
    with pytest.raises(RuntimeError, match="was not called while the reference was to be read"), listening(unet, SHAPE):
        pass


@pytest.mark.parametrize("reading", READINGS)
def test_layers_are_as_before_also_after_an_exception(reading):
    imitator = narrow.fresh(reading)
    bank = imitator.read(noise(1, 4, *SHAPE))
    given = {"reading": reading, "projections": imitator.adapters.projections}
    before = processors(imitator.unet)
    interrupted = imitating(imitator.unet, bank, SHAPE, **given)
    interrupted.__enter__()
    assert processors(imitator.unet) != before
    imitator.unet(noise(1, 13, *SHAPE), 5, noise(1, 3, 32))
    assert interrupted.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    assert processors(imitator.unet) == before
    assert not any(hasattr(layer, "key_parts") for layer in shared_layers(imitator.unet).values())
    with pytest.raises(ValueError, match="the bank holds 2 references for 3 items, expected one or as many"):
        imitator(*inputs(3), with_rows(bank, [0, 0]))
    assert processors(imitator.unet) == before
    with pytest.raises(ZeroDivisionError), listening(imitator.reference, SHAPE):
        _ = 1 / 0
    assert all("Listener" not in type(p).__name__ for p in processors(imitator.reference).values())


def test_one_reference_serves_many():
    imitator = narrow.stirred(narrow.fresh())
    with torch.no_grad():
        one = imitator.read(noise(1, 4, *SHAPE))
        torch.testing.assert_close(imitator(*inputs(), one), imitator(*inputs(), with_rows(one, [0, 0])))


@pytest.mark.parametrize("reading", READINGS)
def test_the_attention_lens_tells_picture_and_reference_apart(reading):
    imitator = narrow.stirred(narrow.fresh(reading))
    bank = imitator.read(noise(1, 4, 4, 8, seed=3))
    with torch.no_grad(), wb.record_attention(imitator.unet, layers="mid", size=(32, 48)) as attention:
        imitator(*inputs(1), bank)
    keys = next(keys for layer, keys in attention.keys().items() if layer.endswith("attn1"))
    assert keys == ("image", "reference")
    heat = attention.query_map((1, 1), keys="reference")
    assert heat.shape == (16, 32)


def test_grids():
    assert grid_of(15, (3, 5)) == (3, 5)
    assert grid_of(6, (3, 5)) == (2, 3)
    assert grid_of(1, (8, 8)) == (1, 1)
    with pytest.raises(ValueError, match="has 7 places, expected those of latents"):
        grid_of(7, (3, 5))


def test_odd_sizes_of_latents():
    """The U-Net rounds up where it halves; source and reference differ in size."""
    imitator = narrow.fresh("released")
    with torch.no_grad():
        bank = imitator.read(noise(1, 4, 4, 20))
        assert imitator(*inputs(1, (4, 4)), bank).shape == (1, 4, 4, 4)


# What is grown


@pytest.mark.parametrize("reading", READINGS)
def test_grown_it_inpaints_as_before_whatever_the_depth(reading):
    imitator, given = narrow.fresh(reading), inputs()
    with torch.no_grad():
        nine = torch.cat([given[0], given[2], given[3]], 1)
        expected = inpainting(9).unet(nine, given[1], given[5]).sample
        assert torch.equal(imitator(*given), expected)
    assert imitator.unet is not inpainting(9).unet
    assert (imitator.adapters.projections is None) == (reading == "released")


def test_k_and_v_of_the_reference_are_its_own_at_first():
    imitator = narrow.fresh()
    layers = shared_layers(imitator.reference).values()
    for (to_k, to_v), layer in zip(imitator.adapters.projections, layers, strict=True):
        assert torch.equal(to_k.weight, layer.to_k.weight)
        assert torch.equal(to_v.weight, layer.to_v.weight)


def test_depth_learns_though_its_channels_begin_at_zero():
    imitator = narrow.fresh().trains()
    latents, t, mask, background, _, tokens = inputs(1)
    depth = imitator.depth_latents(noise(1, 1, 32, 48))
    assert depth.shape == (1, 4, *SHAPE)
    imitator(latents, t, mask, background, depth, tokens).square().mean().backward()
    assert imitator.unet.conv_in.weight.grad[:, 9:].abs().max() > 0
    assert all(p.grad is None for p in imitator.reference.parameters())


def test_who_learns():
    imitator = narrow.stirred(narrow.fresh()).trains()
    bank = imitator.read(noise(1, 4, *SHAPE))
    assert not any(value.requires_grad for value in bank.tokens.values())
    imitator(*inputs(1), bank).square().mean().backward()
    assert all(p.grad is not None for p in imitator.adapters.reference_k.parameters())
    imitator.zero_grad()
    imitator.trains(reference=True)
    imitator(*inputs(1), imitator.read(noise(1, 4, *SHAPE))).square().mean().backward()
    assert imitator.reference.conv_in.weight.grad.abs().max() > 0


def test_what_the_reference_network_is_shown():
    once = narrow.fresh("released")
    latents = noise(1, 4, *SHAPE)
    a, b = (once.read(latents, t) for t in (0, 900))
    assert all(torch.equal(a.tokens[name], b.tokens[name]) for name in a.tokens)
    each = narrow.fresh("released", reference_t="same", shared_tokens=True)
    tokens = noise(1, 3, 32)
    a, b, c = (each.read(latents, t, x) for t, x in ((0, tokens), (900, tokens), (0, tokens * 2)))
    assert all((a.tokens[name] - other.tokens[name]).abs().max() > 0 for other in (b, c) for name in a.tokens)
    with pytest.raises(ValueError, match="tokens is None, expected the reference's"):
        each.read(latents)


def test_the_depth_mapper_has_the_released_sizes():
    mapper = DepthMapper()
    assert sum(p.numel() for p in mapper.parameters()) == 150_260
    assert mapper(torch.zeros(1, 1, 64, 48)).shape == (1, 4, 8, 6)


def test_the_bundled_sizes_keep_to_the_budget():
    """Stored are the imitative U-Net and the adapters; the reference U-Net and the encoders are bundled anyway."""
    unets = [models.make_denoiser(4, channels) for channels in (9, 4)]
    imitator = make_imitator(*unets, 256, factor=4, empty=torch.zeros(1, 48, 128))
    assert models.mebibytes(imitator.adapters) < 0.4
    assert models.mebibytes(imitator.unet) < 9


@pytest.mark.long
def test_refusals():
    paper = narrow.fresh()
    bank = paper.read(noise(1, 4, *SHAPE))
    with pytest.raises(ValueError, match="reading is 'both', expected one of: paper, released"):
        narrow.fresh("both")
    with pytest.raises(ValueError, match="takes 4 channels, expected 9: an inpainting model"):
        make_imitator(text_to_image().unet, text_to_image().unet, 8, factor=4)
    with pytest.raises(ValueError, match="projections is none, expected .to_k, to_v. of each of the 5"):
        imitating(paper.unet, bank, SHAPE).__enter__()
    with pytest.raises(ValueError, match="the bank has nothing for up_blocks.0"):
        imitating(paper.unet, Bank({}, {}), SHAPE).__enter__()
    wider = Bank({name: noise(1, 4, 3) for name in bank.tokens}, bank.grids)
    with pytest.raises(ValueError, match="the bank has 3 channels for up_blocks.0.* expected 32"):
        imitating(paper.unet, wider, SHAPE, reading="released").__enter__()
    with pytest.raises(ValueError, match="blocks is 'left', expected one of: down, mid, up"):
        shared_layers(paper.unet, ("left",))
    with pytest.raises(ValueError, match="unet takes 9 channels, expected 13"):
        Imitator(inpainting(9).unet, text_to_image().unet, paper.adapters)
    other = models.make_denoiser(4, 4, widths=(16, 16, 16), text_width=32)
    with pytest.raises(ValueError, match="shared layers have the widths .* expected equal"):
        Imitator(paper.unet, other, paper.adapters)
    with pytest.raises(ValueError, match="reference_t is 'late', expected one of: zero, same"):
        Adapters(8, 32, reference_t="late")
