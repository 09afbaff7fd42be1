"""SPL's networks: the released sizes and names, each layer by hand or against a second reading, any size of picture."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import workbench as wb
from tests.methods.spl.plain import Plain
from workbench import check
from workbench.diffusion import models
from workbench.lenses.features import record_features
from workbench.methods.spl.layers import LearntRegionNorm, RegionNorm, Spade, per_region
from workbench.methods.spl.loading import from_published, load_published, published_name, published_state, sizes_of
from workbench.methods.spl.networks import PAPER, PatchDiscriminator, SplGenerator, complete, make_spl, whitened

NARROW = {
    "encoder_widths": (4, 5, 6), "learner_widths": (3, 4, 5, 7), "dense_blocks": 2, "dense_layers": 2, "growth": 3,
    "refining": 1, "injection_blocks": 2, "hidden": 4, "decoder_widths": (5, 4), "teacher_channels": 9, "enlarge": 2,
}  # fmt: skip
LAYOUT = Path(__file__).with_name("layout.json")


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def layout():
    return json.loads(LAYOUT.read_text())


@pytest.fixture(scope="module")
def released():
    with torch.device("meta"):
        return SplGenerator(**PAPER), PatchDiscriminator()


# The sizes and names of the release


def test_the_released_generator_has_its_number_of_weights(released):
    assert models.parameters(released[0]) == 45_597_223


def test_every_name_and_shape_of_the_release_is_there(released, layout):
    """And nothing else is; the release registers the discriminator's first layer under a second name."""
    generator, discriminator = ({n: list(v.shape) for n, v in published_state(m).items()} for m in released)
    assert generator == layout["generator"]
    theirs = {name: shape for name, shape in layout["discriminator"].items() if not name.startswith("features.")}
    assert discriminator == theirs


def test_the_sizes_are_read_from_the_shapes(released):
    assert sizes_of(published_state(released[0])) == PAPER
    with pytest.raises(ValueError, match="no weight 'encoder_conv1.weight', expected the generator of SPL"):
        sizes_of({})


def test_names_go_both_ways():
    model = make_spl(**NARROW)
    there = published_state(model)
    assert len(there) == len(model.state_dict())
    back = from_published(there, model.state_dict())
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="'blocks.0.inject1.join.weight' has no name"):
        published_name("blocks.0.inject1.join.weight")


@pytest.mark.parametrize("kind", ["plain.pt", "training.pth", "plain.safetensors"])
def test_a_published_checkpoint_is_loaded(kind, tmp_path):
    """As saved, and as the training saves it: all networks in one file, wrapped for several processes."""
    model, file = make_spl(seed=3, **NARROW).eval(), tmp_path / kind
    state = published_state(model)
    if kind == "training.pth":
        state = {f"generator.module.{name}": value for name, value in state.items()}
        state |= {"discriminator.module.conv1.0.weight_orig": torch.zeros(1), "tresnet_xL_hold.body.x": torch.zeros(1)}
    if kind.endswith("safetensors"):
        save_file(state, file)
    else:
        torch.save(state, file)
    loaded = load_published(file)
    assert not loaded.training
    assert dict(loaded.config)["learner_widths"] == NARROW["learner_widths"]
    image, mask = noise(1, 3, 24, 32), wb.mask.box((24, 32), (8, 4, 20, 15))
    assert torch.equal(complete(loaded, image, mask).image, complete(model, image, mask).image)


class Shout:
    """What a hostile file would hold."""

    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_are_no_checkpoint(tmp_path, capsys):
    with pytest.raises(check.NotAvailable, match=r"no.pt is not a file, expected a checkpoint"):
        load_published(tmp_path / "no.pt")
    torch.save({"generator": Shout()}, tmp_path / "hostile.pt")
    with pytest.raises(check.NotAvailable, match="cannot be read as weights without executing"):
        load_published(tmp_path / "hostile.pt")
    assert "executed" not in capsys.readouterr().out
    (tmp_path / "cut.safetensors").write_bytes(b"nothing")
    with pytest.raises(check.NotAvailable, match="cut.safetensors is not readable as weights"):
        load_published(tmp_path / "cut.safetensors")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(check.NotAvailable, match="holds a list, expected a dictionary"):
        load_published(tmp_path / "list.pt")
    state = published_state(make_spl(**NARROW))
    del state["gff.1.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"lacks 1 of \d+ weights \(gff.1.bias"):
        load_published(tmp_path / "less.pt")


# Layers


def test_region_normalisation_by_hand():
    """Hole 1, 3 and known 10, 30, 20, 20: means 2 and 20, variances 1 and 50."""
    x = torch.tensor([[1.0, 10.0, 30.0], [3.0, 20.0, 20.0]]).view(1, 1, 2, 3)
    hole = torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]).view(1, 1, 2, 3)
    y = per_region(x, hole)[0, 0]
    root = 50**0.5
    torch.testing.assert_close(y, torch.tensor([[-1, -10 / root, 10 / root], [1, 0, 0]]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_region_normalisation_agrees_with_normalising_a_filled_plane(share):
    """The release: fill the other region with the mean, normalise the plane, weigh with the root of the share."""
    x, hole = noise(2, 5, 6, 9) * 7 - 2, (noise(2, 1, 6, 9, seed=1) < share).float()
    expected = torch.zeros_like(x)
    for item in range(2):
        for region in (hole[item], 1 - hole[item]):
            inside = region[0] > 0.5  # (6, 9)
            if not inside.any():
                continue
            for channel in range(5):
                values = x[item, channel]
                plane = torch.where(inside, values, values[inside].mean())
                root = (inside.float().mean()).sqrt()
                normed = (plane - plane.mean()) / (plane.var(unbiased=False) + 1e-5).sqrt() * root
                expected[item, channel] += torch.where(inside, normed, torch.zeros(()))
    torch.testing.assert_close(per_region(x, hole), expected, atol=1e-4, rtol=1e-4)


def test_the_two_regions_have_their_own_gain_and_share_their_shifts():
    norm, x = RegionNorm(2), noise(1, 2, 4, 4)
    mask = wb.mask.box((8, 8), (0, 0, 4, 8))  # twice as large: the left half
    with torch.no_grad():
        norm.hole_gamma.fill_(1)
        norm.known_beta.fill_(5)
        norm.hole_beta.fill_(0.5)
    hole = torch.zeros(1, 1, 4, 4)
    hole[..., :2] = 1
    torch.testing.assert_close(norm(x, mask), per_region(x, hole) * (1 + hole) + 5.5)


def test_the_learnt_region_is_where_the_map_passes_the_threshold():
    norm, x = LearntRegionNorm(0.8), noise(1, 3, 6, 6)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.zero_()
        norm.importance.weight[0, 1, 3, 3] = 1  # sigmoid(max_c x)
        norm.beta.bias.fill_(2)
    x[..., :2, :] += 3  # sigmoid(3) = 0.95, sigmoid(1) = 0.73
    region = torch.zeros(1, 1, 6, 6)
    region[..., :2, :] = 1
    torch.testing.assert_close(norm(x), per_region(x, region) + 2)


def test_spade_by_hand():
    """A prior that says 1 left and 0 right: gamma 2 and beta 3 on the left only."""
    spade, x = Spade(1, 1, 1), noise(1, 1, 4, 4)
    with torch.no_grad():
        for parameter in spade.parameters():
            parameter.zero_()
        spade.shared.weight[0, 0, 1, 1] = 1
        spade.gamma.weight[0, 0, 1, 1], spade.beta.weight[0, 0, 1, 1] = 2, 3
    prior = torch.tensor([[1.0, 0.0]]).view(1, 1, 1, 2).expand(1, 1, 2, 2)
    normed = nn.functional.instance_norm(x)
    y = spade(x, prior)
    torch.testing.assert_close(y[..., :2], normed[..., :2] * 3 + 3)
    torch.testing.assert_close(y[..., 2:], normed[..., 2:])


# The whole


def test_the_forward_pass_agrees_with_a_second_reading_of_the_release():
    """In double precision, with random numbers also where fresh weights are 0; some cells pass the threshold.

    An all-white picture is left out: where a map is constant, normalisation enlarges the rounding itself.
    """
    model = make_spl(**NARROW).eval().double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            large = 1 if "importance" in name else 0.2
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * large)
        masks = [wb.mask.ellipse((32, 48), (5, 3, 40, 21)), wb.mask.outpaint((32, 48), left=30, top=4)]
        image, mask = noise(2, 3, 32, 48).double(), torch.cat(masks).double()
        picture, features = Plain(published_state(model))(image, mask)
        with record_features(model, "decoder.norms.*.importance") as recorded:
            done = model(image, mask)
    torch.testing.assert_close(done.image, picture, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(done.teacher_features, features, atol=1e-7, rtol=1e-6)
    assert picture.std() > 0.05
    for importance in recorded.values():
        assert 0.02 < (importance.sigmoid() >= 0.8).float().mean() < 0.98


def test_the_bundled_size():
    for injection in ("spade", "concatenation"):
        assert models.mebibytes(make_spl(injection=injection)) < 3.1
    assert models.mebibytes(make_spl()) < 3


def test_the_hole_is_white_and_its_content_is_not_looked_at():
    model, mask = make_spl(**NARROW).eval(), wb.mask.ellipse((24, 32), (6, 4, 22, 17))
    a, b = noise(1, 3, 24, 32), noise(1, 3, 24, 32, seed=1)
    b = torch.where(mask > 0.5, b, a)
    assert torch.equal(whitened(a, mask), a * (1 - mask) + mask)
    assert torch.equal(complete(model, a, mask).image, complete(model, b, mask).image)
    assert not torch.equal(complete(model, a, mask).image, complete(model, a, 1 - mask).image)


@pytest.mark.parametrize(("size", "enlarge"), [((16, 16), 1), ((17, 30), 2), ((33, 22), 1)])
def test_any_size(size, enlarge):
    model = make_spl(**{**NARROW, "enlarge": enlarge}).eval()
    mask = wb.mask.box(size, (3, 2, 9, 11))
    done = complete(model, noise(2, 3, *size), mask)
    assert done.image.shape == (2, 3, *size)
    assert 0 <= done.image.min() <= done.image.max() <= 1
    cells = [-(-n // 4) * 4 * enlarge // 8 for n in size]
    assert done.teacher_features.shape == (2, 9, *cells)
    assert done.prior.shape == (2, 7, *cells)


def test_every_weight_matters():
    """No weight is idle: each has a gradient from the picture or from the teacher's features."""
    model = make_spl(**NARROW)
    mask = torch.cat([wb.mask.box((24, 32), (3, 2, 19, 15)), wb.mask.box((24, 32), (9, 2, 30, 9))])
    done = model(noise(2, 3, 24, 32), mask)
    (done.image.square().sum() + done.teacher_features.square().sum()).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not idle


def test_a_batch_equals_its_items():
    model, images = make_spl(**NARROW).eval(), noise(2, 3, 16, 20)
    masks = torch.cat([wb.mask.box((16, 20), (3, 2, 9, 11)), wb.mask.box((16, 20), (0, 0, 20, 5))])
    both = complete(model, images, masks).image
    torch.testing.assert_close(complete(model, images[1:], masks[1:]).image, both[1:], atol=1e-5, rtol=1e-4)


def test_refusals():
    model = make_spl(**NARROW)
    with pytest.raises(ValueError, match=r"image is \(12, 40\) \(H, W\), expected at least 16 x 16"):
        complete(model, noise(1, 3, 12, 40), torch.zeros(1, 1, 12, 40))
    with pytest.raises(ValueError, match=r"mask is \(16, 16\) and image is \(16, 20\)"):
        complete(model, noise(1, 3, 16, 20), torch.zeros(1, 1, 16, 16))
    with pytest.raises(ValueError, match=r"expected 3, 4 and 2 numbers"):
        make_spl(encoder_widths=(8, 8))
    with pytest.raises(ValueError, match="injection is 'add', expected one of: spade, concatenation"):
        make_spl(injection="add")
