"""The terms: by hand, against finite differences in float64, and against a plain computation on the whole picture."""

import pytest
import torch
import torch.nn.functional as F

import workbench as wb
from tests.methods.neural_patch import plain
from workbench.methods.neural_patch import PatchSettings
from workbench.methods.neural_patch.levels import make_level
from workbench.methods.neural_patch.objective import Copy, Objective


@pytest.fixture
def noise():
    """Noise (1, 3, 160, 176) in float64: larger than a hole's window."""
    return torch.rand(1, 3, 160, 176, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def level(noise):
    mask = torch.zeros(1, 1, 160, 176, dtype=torch.float64)
    mask[..., 70:86, 90:109] = 1
    return make_level(1, 1, noise, mask, 8)


def objective(level, network, **settings):
    return Objective(level, network, PatchSettings(**settings))


def changed(x, seed=3):
    return x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def test_content_and_tv_by_hand(network):
    picture = torch.full((1, 3, 4, 5), 0.5)
    mask = wb.mask.box((4, 5), (2, 1, 3, 3))  # two pixels, one above the other
    weights = {"content_weight": 2.0, "texture_weight": 0, "tv_weight": 0.3}
    o = objective(make_level(1, 1, picture, mask, 1), network, **weights)
    x = torch.full((3, 2), 0.7)
    terms = o.terms(x, {})
    assert terms["content"].item() == pytest.approx(0.04)
    # seven pairs hold one of them: six differ by 0.2, the pair between them does not
    assert terms["tv"].item() == pytest.approx(6 * 0.04 / 7)
    assert o.total(terms).item() == pytest.approx(2 * 0.04 + 0.3 * 6 * 0.04 / 7)
    assert o.picture(x)[0, 0, 1:3, 2].tolist() == pytest.approx([0.7, 0.7])


@pytest.mark.parametrize("content_term", ["pixels", "features"])
@pytest.mark.parametrize("match", ["ncc", "l2"])
def test_slopes_against_finite_differences(level, network, content_term, match):
    o = objective(level, network, content_term=content_term, match=match)
    wishes = o.wishes(o.search(changed(o.start)))
    x = changed(o.start, 4).requires_grad_()
    terms = o.terms(x, wishes)
    assert set(terms) == {"content", "texture relu3_1", "texture relu4_1", "colour", "tv"}
    for name, value in terms.items():
        slope = torch.autograd.grad(value, x, retain_graph=True)[0]
        for direction in (slope, torch.randn(x.shape, generator=torch.Generator().manual_seed(6), dtype=x.dtype)):
            step = 1e-6 * direction / direction.norm()
            with torch.no_grad():
                rise = o.terms(x + step, wishes)[name] - o.terms(x - step, wishes)[name]
            assert rise.item() == pytest.approx(2 * (slope * step).sum().item(), rel=1e-3), name


@pytest.mark.parametrize("match", ["ncc", "l2"])
def test_the_texture_term_equals_the_plain_one_on_the_whole_picture(level, network, match):
    """Window, scale, search and folding change nothing: unfold everything, compare everything, gather."""
    o = objective(level, network, match=match, coherence=0)
    assert o.box != (0, 0, 176, 160)
    x = changed(o.start)
    terms = o.terms(x, o.wishes(o.search(x)))
    whole = o.spread(x, level.reference)
    for name in ("relu3_1", "relu4_1"):
        source, target = (network.features(p, [name])[name][0] for p in (level.reference, whole))
        cells = F.max_pool2d(level.mask, network.stride(name))[0, 0] > 0
        inner = torch.zeros_like(cells)
        inner[1:-1, 1:-1] = True
        touching = F.max_pool2d(cells.double()[None], 3, 1, 1)[0] > 0
        square = source[:, ~cells].square().mean()
        searched = [target, source]
        if match == "l2":  # by what a neighbour costs: its texture's energy and that of its colours, cell by cell
            per_cell = [F.avg_pool2d(p, network.stride(name))[0] for p in (whole, level.reference)]
            weight = PatchSettings().colour_weight / level.reference[0, :, level.mask[0, 0] == 0].square().mean()
            shares = [
                (f / (len(f) * square).sqrt(), c * (weight / 3).sqrt()) for f, c in zip(searched, per_cell, strict=True)
            ]
            searched = [torch.cat(share) for share in shares]
        centres, _ = plain.neighbours(searched[0], inner & touching, searched[1], inner & ~touching, match)
        expected = plain.texture_energy(target, inner & touching, source, centres) / square
        torch.testing.assert_close(terms[f"texture {name}"], expected, rtol=1e-9, atol=0)
        if name == "relu3_1":  # the finer: where its patches were found, colours are taken
            source, target = (F.pixel_unshuffle(p, 4)[0] for p in (level.reference, whole))  # (48, 40, 44)
            square = level.reference[0, :, level.mask[0, 0] == 0].square().mean()
            expected = plain.texture_energy(target, inner & touching, source, centres) / square
            torch.testing.assert_close(terms["colour"], expected, rtol=1e-9, atol=0)


def test_a_search_by_distance_minds_colours_and_one_by_correlation_does_not(network):
    """A red and a grey half with the same grain: to the features of a shifted copy of one, both are alike."""
    grain = 0.2 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = torch.cat([grain + torch.tensor(c).view(1, 3, 1, 1) for c in ((0.6, 0.1, 0.1), (0.4, 0.4, 0.4))], 3)
    mask = wb.mask.box((64, 128), (88, 24, 104, 40)).double()
    lone = make_level(1, 1, both, mask, 8)
    red = {}
    for match in ("l2", "ncc"):
        o = objective(lone, network, match=match, coherence=0, layers=("relu3_1",))
        _, there = o.matches("relu3_1", o.search(o.start)["relu3_1"])
        red[match] = (there[:, 0] < 64).double().mean().item()
    assert red["l2"] == 0 < red["ncc"]
    assert o.layers["relu3_1"].colour == 0
    without = objective(lone, network, match="l2", colour_weight=0)
    assert all(layer.colour == 0 for layer in without.layers.values())


def test_only_free_pixels_change(level, network):
    o = objective(level, network)
    picture = o.spread(o.start + 1, level.reference)
    assert torch.equal(picture != level.reference, (level.mask > 0).expand_as(picture))


def test_weights_of_zero_leave_terms_out(level, network):
    o = objective(level, network, content_weight=0, tv_weight=0, layers=("relu4_1",))
    assert list(o.terms(o.start, o.wishes(o.search(o.start)))) == ["texture relu4_1", "colour"]
    o = objective(level, network, content_weight=0, tv_weight=0, colour_weight=0, layers=("relu4_1",))
    assert list(o.terms(o.start, o.wishes(o.search(o.start)))) == ["texture relu4_1"]
    assert list(objective(level, network, texture_weight=0).terms(o.start, {})) == ["content", "tv"]


def test_layers_without_a_known_patch_are_told(network, photo):
    """At 20 x 28 pixels relu4_1 has a map of 3 x 4 cells, and none of its patches is whole and known."""
    level = make_level(1, 1, photo, wb.mask.box((20, 28), (12, 5, 21, 11)), 8)
    o = objective(level, network)
    assert o.missing == ["relu4_1"]
    assert list(o.layers) == ["relu3_1"]


def test_what_is_added_to_an_odd_size_is_never_taken(network):
    picture = torch.rand(1, 3, 61, 83, generator=torch.Generator().manual_seed(2))
    level = make_level(1, 1, picture, wb.mask.box((61, 83), (70, 50, 83, 61)), 8)  # at the lower right frame
    o = objective(level, network)
    assert tuple(level.reference.shape[-2:]) == (64, 88)
    layer = o.layers["relu3_1"]
    assert not layer.sources[0].allowed[:, 19:].any()  # cell 20 holds pixels 80 to 83, and 83 is not in the picture
    found = o.search(o.start)["relu3_1"]
    _, there = o.matches("relu3_1", found)
    assert (there[:, 0] < 83).all()
    assert (there[:, 1] < 61).all()
    assert o.picture(o.start).shape == (1, 3, 61, 83)
    assert o.offsets("relu3_1", found).shape == (1, 2, 16, 21)


def test_a_turned_copy_shows_the_picture_turned():
    """90 degrees on a square: the copy's upper right corner shows the picture's lower right one."""
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    level = make_level(1, 1, picture, torch.zeros(1, 1, 16, 16), 1)
    copy = Copy(level, degrees=90)
    turned, known = copy.draw(picture, torch.ones(1, 1, 16, 16))
    torch.testing.assert_close(turned, torch.rot90(picture, 1, (2, 3)), rtol=0, atol=1e-5)
    point = copy.origin(torch.tensor([[0.5, 3.5]]))[0]  # what stands there is told
    torch.testing.assert_close(turned[0, :, 3, 0], picture[0, :, int(point[1]), int(point[0])], rtol=0, atol=1e-5)
    assert known.min() == 1


def test_a_smaller_copy_knows_nothing_outside():
    level = make_level(1, 1, torch.rand(1, 3, 16, 24), torch.zeros(1, 1, 16, 24), 1)
    _, known = Copy(level, scale=0.5).draw(level.reference, torch.ones(1, 1, 16, 24))
    assert known[0, 0, 8, 12] == 1
    assert known[0, 0, 1, 1] == 0
    assert known.mean() == pytest.approx(0.25, abs=0.1)


def test_copies_are_searched_too(network):
    """The hole asks for stripes that the picture has only lying down: a copy turned by 90 degrees offers them."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    lying, standing = ((0.5 + 0.4 * torch.sin(n / 1.5)).expand(1, 3, 96, 96) for n in (y, x))
    mask = wb.mask.centre((96, 96), 0.3)
    level = make_level(1, 1, torch.where(mask > 0, standing, lying).contiguous(), mask, 8)
    plainly, turned = (objective(level, network, copies=c) for c in ((), ((90, 1),)))
    energy = [o.terms(o.start, o.wishes(o.search(o.start)))["texture relu3_1"].item() for o in (plainly, turned)]
    assert energy[1] < 0.7 * energy[0]
    chosen = turned.layers["relu3_1"].wanted.long()
    chosen[chosen > 0] = turned.search(turned.start)["relu3_1"].map
    middle = 48 // 4 - turned.layers["relu3_1"].corner[0]
    assert (chosen[middle - 1 : middle + 2, middle - 1 : middle + 2] == 1).all()  # far from the edge, where both meet


def test_similarity_of_one_patch(level, network):
    o = objective(level, network, coherence=0)
    values, middle = o.similarity(o.start, "relu3_1", (99, 78))
    assert values.shape == (1, 1, 40, 44)
    assert max(abs(middle[0] - 99), abs(middle[1] - 78)) <= 2  # a cell is 4 pixels wide
    offset = o.offsets("relu3_1", o.search(o.start)["relu3_1"])[0, :, int(middle[1]) // 4, int(middle[0]) // 4]
    best = divmod(int(values.nan_to_num(-1e9).argmax()), 44)
    assert (best[1] * 4 + 2 - middle[0], best[0] * 4 + 2 - middle[1]) == tuple(offset.tolist())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sizes": (256, 128)}, ValueError, r"sizes is \(256, 128\), expected long sides in pixels, rising"),
        ({"sizes": (4096,)}, ValueError, r"sizes\[0\] is 4096"),
        ({"iterations": 0}, ValueError, "iterations is 0, expected a whole number of at least 1"),
        ({"layers": "relu3_1"}, ValueError, "layers is 'relu3_1', expected names such as"),
        ({"content_weight": -1}, ValueError, "content_weight is -1"),
        ({"content_weight": 0, "texture_weight": 0, "tv_weight": 0}, ValueError, "all three weights are 0"),
        ({"content_term": "colours"}, ValueError, "content_term is 'colours', expected one of: pixels, features"),
        ({"match": "cosine"}, ValueError, "match is 'cosine'"),
        ({"coherence": -1}, ValueError, "coherence is -1"),
        ({"refresh": -1}, ValueError, "refresh is -1"),
        ({"copies": 9}, TypeError, r"copies is 9, expected pairs \(degrees, scale\)"),
        ({"copies": ((1, 2, 3),)}, TypeError, r"copies\[0\] is \(1, 2, 3\)"),
        ({"copies": ((0, 9),)}, ValueError, r"copies\[0\]\[1\], the scale, is 9"),
    ],
)
def test_settings_that_make_no_sense(settings, error, message):
    with pytest.raises(error, match=message):
        PatchSettings(**settings)


def test_no_such_setting():
    with pytest.raises(ValueError, match="no setting is called 'texture', expected one of: sizes, iterations"):
        PatchSettings().changed(texture=1)
