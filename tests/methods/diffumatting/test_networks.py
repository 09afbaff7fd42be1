"""The matting head, the refiner and the matting network: shapes, what is mended, what gradients reach."""

import copy

import pytest
import torch

from tests.stepping import narrow
from workbench.diffusion.models import mebibytes
from workbench.image import from_signed
from workbench.methods.diffumatting import networks
from workbench.methods.diffumatting.networks import (
    decode_features,
    estimate_alpha,
    make_head,
    make_matting_network,
    make_refiner,
    refine,
)

SMALL = {"widths": (8, 16), "hidden": 3, "mending": 5}


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def vae():
    return copy.deepcopy(narrow.text_to_image().vae)


def test_all_bundled_networks_are_small():
    """The card of issue 10: the LoRA (1.5 MiB at rank 16) and these stay below 5 MiB."""
    assert mebibytes(make_refiner()) + mebibytes(make_matting_network()) < 2


def test_decoding_gives_the_pipelines_picture_and_the_decoders_features(vae):
    latents = noise(2, 4, 5, 7) - 0.5
    with torch.no_grad():
        image, features = decode_features(vae, latents)
        plain = vae.decode(latents / 0.2).sample
    assert torch.equal(image.clamp(0, 1), from_signed(plain))
    assert features.shape == (2, 16 + 8, 20, 28)
    assert not vae.decoder.mid_block._forward_hooks
    head = make_head(vae, hidden=5)
    alpha = head(features)
    assert alpha.shape == (2, 1, 20, 28)
    assert 0 < alpha.min() < alpha.max() < 1
    assert torch.equal(make_head(vae, 5).conv1.weight, head.conv1.weight)  # by the seed
    vae.enable_slicing()
    with torch.no_grad():
        torch.testing.assert_close(decode_features(vae, latents)[1], features)
    with pytest.raises(ValueError, match="Linear has no decoder with mid_block and up_blocks"):
        decode_features(torch.nn.Linear(2, 2), latents)


def test_hooks_are_gone_after_an_error(vae):
    with pytest.raises(RuntimeError):
        decode_features(vae, noise(1, 7, 5, 7))
    assert not vae.decoder.mid_block._forward_hooks


def test_the_heads_gradient_reaches_latents_through_a_frozen_decoder(vae):
    vae.requires_grad_(False)
    latents = noise(1, 4, 4, 6).requires_grad_()
    head = make_head(vae, 4)
    head(decode_features(vae, latents)[1]).mean().backward()
    assert latents.grad.abs().max() > 0
    assert all(p.grad is not None for p in head.parameters())
    assert all(p.grad is None for p in vae.parameters())


def test_the_refiner_mends_the_cells_it_is_least_sure_of():
    network = make_refiner(**SMALL).eval()
    image, plate = noise(2, 3, 16, 24), noise(2, 3, 16, 24, seed=1)
    with torch.no_grad():
        none, some, all_ = (network(image, plate, share) for share in (0.0, 0.25, 1.0))
    assert none.mended.sum() == 0
    assert all_.mended.min() == 1
    assert some.mended.sum((1, 2, 3)).tolist() == [6 * 16] * 2  # a quarter of 4 x 6 cells of 16 pixels
    cells = torch.nn.functional.max_pool2d(some.error, 2)  # a cell is two of the base's pixels wide
    chosen = torch.nn.functional.max_pool2d(some.mended, 4) > 0
    assert cells[chosen].min() >= cells[~chosen].max()
    mended = some.mended > 0
    torch.testing.assert_close(some.alpha[mended], all_.alpha[mended])
    assert torch.equal(some.alpha[~mended], none.alpha[~mended])
    assert not torch.allclose(all_.alpha, none.alpha, atol=1e-3)
    assert (none.coarse_alpha.shape, none.error.shape) == ((2, 1, 8, 12),) * 2
    assert none.foreground.shape == (2, 3, 16, 24)


def test_a_cell_is_mended_from_where_it_is():
    """A change of the picture reaches cells that see it, others not at all (the base kept out of it)."""
    network = make_refiner(**SMALL).eval()
    given, hidden, coarse = noise(1, 6, 24, 32), noise(1, 3, 12, 16), noise(1, 4, 12, 16)
    chosen = torch.ones(1, 6, 8, dtype=torch.bool)
    changed = given.clone()
    changed[..., 13, 21] += 0.3
    with torch.no_grad():
        a, b = (network._mend(x, coarse, hidden, chosen).unflatten(0, (6, 8)) for x in (given, changed))
    moved = (a - b).abs().amax((2, 3, 4)) > 1e-6  # (6, 8)
    assert moved.nonzero().unique(dim=0)[:, 0].unique().tolist() == [1, 2, 3, 4]  # row 13 is in cell 3
    assert moved.any(0).nonzero().flatten().tolist() == [3, 4, 5, 6]  # column 21 is in cell 5
    back = networks._put_cells(torch.zeros(1, 4, 24, 32), a.flatten(0, 1), chosen)
    assert torch.equal(back[0, :, 8:12, 20:24], a[2, 5])


def test_what_the_refiner_learns_from():
    network = make_refiner(**SMALL)
    found = network(noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1), 0.5)
    found.error.sum().backward(retain_graph=True)
    assert network.half1.weight.grad is None
    (found.alpha.sum() + found.foreground.sum() + found.coarse_alpha.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("size", [(5, 7), (30, 17), (33, 150)])
def test_pictures_of_any_size(size):
    image, plate = noise(1, 3, *size), noise(1, 3, *size, seed=1)
    found = refine(make_refiner(**SMALL).eval(), image, plate)
    assert found.alpha.shape == found.mended.shape == (1, 1, *size)
    assert found.foreground.shape == (1, 3, *size)
    assert estimate_alpha(make_matting_network(widths=(8, 16)).eval(), image).shape == (1, 1, *size)
    with pytest.raises(ValueError, match="plate is .* and image is .* expected the same"):
        refine(make_refiner(**SMALL), image, plate[..., :-1])


def test_the_base_works_smaller_on_large_pictures():
    image = noise(1, 3, 300, 310)
    found = refine(make_refiner(**SMALL).eval(), image, image, share=0.01)
    assert found.error.shape == (1, 1, 75, 78)  # a quarter: 300 / 2 would be more than 128
