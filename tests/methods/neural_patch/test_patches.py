"""The search against brute force, and the folded energy against gathered patches."""

import pytest
import torch

from tests.methods.neural_patch import plain
from workbench.methods.neural_patch.patches import Source, fold, patch_centres, texture_energy
from workbench.methods.neural_patch.search import cohere, find_neighbours, likeness


def features(channels=7, height=13, width=18, seed=0, dtype=torch.float64):
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def hole(height=13, width=18, box=(4, 9, 6, 13)):
    y0, y1, x0, x1 = box
    cells = torch.zeros(height, width, dtype=torch.bool)
    cells[y0:y1, x0:x1] = True
    return cells


def test_every_whole_patch_is_either_of_the_hole_or_known():
    cells = hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    assert not (wanted & allowed).any()
    assert (wanted | allowed).sum() == 11 * 16  # all but the outermost cells
    assert wanted.sum() == 7 * 9  # the hole of 5 x 7 and a ring of one cell
    assert not (wanted | allowed)[0].any()


def test_no_patch_fits_a_map_of_two_rows():
    assert not patch_centres(torch.ones(2, 9, dtype=torch.bool), "any").any()


@pytest.mark.parametrize("match", ["ncc", "l2"])
@pytest.mark.parametrize("block_bytes", [1, 3000, 2**20])
def test_search_agrees_with_brute_force(match, block_bytes):
    source, target, cells = features(), features(7, 11, 15, seed=1), hole()
    allowed = patch_centres(~cells, "all")
    wanted = patch_centres(hole(11, 15, (3, 8, 2, 11)), "any")
    found = find_neighbours(target, wanted, [Source(source, allowed, match)], block_bytes=block_bytes)
    centres, _ = plain.neighbours(target, wanted, source, allowed, match)
    assert torch.equal(found.centre, centres)
    assert (found.map == 0).all()


@pytest.mark.parametrize("match", ["ncc", "l2"])
def test_a_ragged_hole_is_searched_in_stripes_to_the_same_end(match):
    """Wider than several stripes, columns without any hole between."""
    source, target = features(3, 20, 170), features(3, 20, 170, seed=1)
    cells = hole(20, 170, (4, 9, 12, 21)) | hole(20, 170, (10, 16, 47, 66)) | hole(20, 170, (2, 3, 140, 141))
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    found = find_neighbours(target, wanted, [Source(source, allowed, match)])
    assert torch.equal(found.centre, plain.neighbours(target, wanted, source, allowed, match)[0])


def plain_coherence(target, wanted, sources, found, weight):
    """E of `cohere`, told patch by patch; the mean distance is that of the nearest neighbours."""

    def distances(neighbours):
        own, every = plain.unfold(target)[wanted.flatten()], [plain.unfold(s.features) for s in sources]
        theirs = torch.stack([every[m][c] for m, c in zip(neighbours.map, neighbours.centre, strict=True)])
        if sources[0].match == "ncc":
            return 1 - (own * theirs).sum(1) / (own.norm(dim=1) * theirs.norm(dim=1))
        return (own - theirs).square().sum(1)

    penalty = weight * distances(find_neighbours(target, wanted, sources)).mean()
    places = {tuple(place): k for k, place in enumerate(wanted.nonzero().tolist())}
    apart = 0
    for (y, x), k in places.items():
        for step, beside in ((1, (y, x + 1)), (sources[0].width, (y + 1, x))):
            if beside in places:
                j = places[beside]
                apart += found.map[j] != found.map[k] or found.centre[j] != found.centre[k] + step
    return distances(found).sum() + penalty * apart


@pytest.mark.parametrize("match", ["ncc", "l2"])
def test_coherence_lowers_its_energy_and_tells_true_scores(match):
    target, cells = features(seed=2), hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    sources = [Source(features(seed=seed), allowed, match) for seed in (3, 4)]
    begun = find_neighbours(target, wanted, sources)
    assert cohere(target, wanted, sources, begun, 0) is begun
    energies = [plain_coherence(target, wanted, sources, begun, 0.3)]
    after = cohere(target, wanted, sources, begun, 0.3)
    energies.append(plain_coherence(target, wanted, sources, after, 0.3))
    energies.append(plain_coherence(target, wanted, sources, cohere(target, wanted, sources, after, 0.3), 0.3))
    assert energies[0] > energies[1] >= energies[2]
    assert allowed.flatten()[after.centre].all()
    own = plain.unfold(target)[wanted.flatten()]
    for k, (number, centre) in enumerate(zip(after.map, after.centre, strict=True)):
        other = plain.unfold(sources[number].features)[centre]
        score = own[k] @ other / other.norm() if match == "ncc" else own[k] @ other - other.square().sum() / 2
        assert after.score[k].item() == pytest.approx(score.item())


@pytest.mark.parametrize("match", ["ncc", "l2"])
def test_coherence_finds_the_piece_that_was_moved_where_noise_hides_it(match):
    source, cells = features(height=30, width=40), hole(30, 40, (18, 27, 22, 34))
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    target = source.clone()
    target[:, 17:28, 21:35] = source[:, 3:14, 5:19] + 2 * features(height=11, width=14, seed=9)
    true = wanted.flatten().nonzero()[:, 0] - 14 * 40 - 16
    sources = [Source(source, allowed, match)]
    begun = find_neighbours(target, wanted, sources)
    inner = patch_centres(hole(30, 40, (18, 27, 22, 34)), "all")[wanted]
    right = [(n.centre == true)[inner].double().mean() for n in (begun, cohere(target, wanted, sources, begun, 1.0))]
    assert right[0] < 0.8
    assert right[1] == 1


def test_scores_by_hand():
    """One channel, P all twos, Q all threes: <P, Q> = 54, |Q| = 9."""
    target, source = torch.full((1, 3, 3), 2.0), torch.full((1, 3, 3), 3.0)
    middle = patch_centres(torch.ones(3, 3, dtype=torch.bool), "all")
    assert find_neighbours(target, middle, [Source(source, middle, "ncc")]).score.item() == pytest.approx(6)
    assert find_neighbours(target, middle, [Source(source, middle, "l2")]).score.item() == pytest.approx(54 - 81 / 2)
    assert likeness(target, (1, 1), Source(source, middle, "ncc"))[1, 1].item() == pytest.approx(1)
    assert likeness(target, (1, 1), Source(source, middle, "l2"))[1, 1].item() == pytest.approx(-1)


def test_matches_differ_where_they_should():
    """Correlation does not see how bright a patch is, distance does."""
    source = torch.zeros(1, 3, 9)
    source[0, 1, 1], source[0, :, 4:7] = 5.0, 1.0  # a bright dot; a grey field
    target = torch.zeros(1, 3, 3)
    target[0, 1, 1] = 1.0  # a faint dot
    middle = patch_centres(torch.ones(3, 3, dtype=torch.bool), "all")
    allowed = torch.zeros(3, 9, dtype=torch.bool)
    allowed[1, 1] = allowed[1, 5] = True
    assert find_neighbours(target, middle, [Source(source, allowed, "ncc")]).centre.item() == 9 + 1
    assert find_neighbours(target, middle, [Source(source, allowed, "l2")]).centre.item() == 9 + 5


@pytest.mark.parametrize("match", ["ncc", "l2"])
def test_the_best_of_several_sources_wins(match):
    target, cells = features(seed=2), hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    maps = [features(seed=seed) for seed in (3, 4, 5)]
    found = find_neighbours(target, wanted, [Source(m, allowed, match) for m in maps])
    each = [plain.neighbours(target, wanted, m, allowed, match) for m in maps]
    best = torch.stack([values for _, values in each]).argmax(0)
    assert torch.equal(found.map, best)
    assert len(best.unique()) == 3
    assert torch.equal(found.centre, torch.stack([centres for centres, _ in each]).gather(0, best[None])[0])


@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_of_equal_patches_the_first_is_taken(block_bytes):
    target, cells = torch.ones(2, 13, 18), hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    source = Source(torch.ones(2, 13, 18), allowed)
    found = find_neighbours(target, wanted, [source, source], block_bytes=block_bytes)
    assert (found.centre == 18 + 1).all()  # row 1, column 1
    assert (found.map == 0).all()


def test_patches_with_hole_cells_are_never_found():
    """What lies in the hole is exactly what is looked for, and may not be taken."""
    target, cells = features(), hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    found = find_neighbours(target, wanted, [Source(target, allowed)])
    assert allowed.flatten()[found.centre].all()
    assert (found.centre != wanted.flatten().nonzero()[:, 0]).all()
    free = find_neighbours(target, wanted, [Source(target, patch_centres(torch.ones_like(cells), "all"))])
    assert torch.equal(free.centre, wanted.flatten().nonzero()[:, 0])  # allowed to, each would find itself


def test_black_patches_are_no_trouble():
    cells = hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    found = find_neighbours(torch.zeros(3, 13, 18), wanted, [Source(torch.zeros(3, 13, 18), allowed)])
    assert found.score.isfinite().all()


def test_nothing_to_find_is_an_error():
    cells = hole()
    source = Source(features(), torch.zeros_like(cells))
    with pytest.raises(ValueError, match="no patch is allowed .* known 3 x 3 patch"):
        find_neighbours(features(), patch_centres(cells, "any"), [source])
    with pytest.raises(ValueError, match="match is 'cosine', expected one of: ncc, l2"):
        Source(features(), patch_centres(~cells, "all"), "cosine")


def test_likeness_is_highest_where_the_neighbour_is():
    target, cells = features(), hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    for match in ("ncc", "l2"):
        source = Source(target, allowed, match)
        found, y, x = find_neighbours(target, wanted, [source]), *wanted.nonzero()[7].tolist()
        values = likeness(target, (y, x), source)
        assert torch.equal(values.isnan(), ~allowed)
        assert values.nan_to_num(-9).argmax() == found.centre[7]
        if match == "l2":
            own, other = plain.unfold(target)[y * 18 + x], plain.unfold(target)[found.centre[7]]
            assert values.nan_to_num(-9).max().item() == pytest.approx(-(own - other).square().mean().item())


def test_the_folded_energy_equals_the_plain_one_and_so_does_its_slope():
    """sum_i |P_i - Q_i|^2 is a sum over cells once the Q_i are fixed: value and gradient to rounding, in float64."""
    source, cells = features(), hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    centres, _ = plain.neighbours(source, wanted, source, allowed)
    sources = [Source(source, allowed)]
    wish = fold(wanted, sources, find_neighbours(source, wanted, sources))
    energies, slopes = [], []
    target = features(seed=9)
    for energy in (
        lambda f: texture_energy(f, wish),
        lambda f: plain.texture_energy(f, wanted, source, centres),
    ):
        leaf = target.clone().requires_grad_()
        energies.append(energy(leaf))
        slopes.append(torch.autograd.grad(energies[-1], leaf)[0])
    torch.testing.assert_close(energies[0], energies[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-10, atol=1e-14)
    assert slopes[0].abs().max() > 1e-3
    assert wish.count.max() == 9
    assert (slopes[0][:, wish.count == 0] == 0).all()


def test_folding_neighbours_of_several_sources():
    target, cells = features(seed=2), hole()
    wanted, allowed = patch_centres(cells, "any"), patch_centres(~cells, "all")
    maps = [features(seed=3), features(seed=4)]
    sources = [Source(m, allowed) for m in maps]
    found = find_neighbours(target, wanted, sources)
    patches = torch.stack([plain.unfold(m) for m in maps])[found.map, found.centre]  # (N, 9 C)
    expected = (plain.unfold(target)[wanted.flatten()] - patches).square().mean()
    torch.testing.assert_close(texture_energy(target, fold(wanted, sources, found)), expected)
