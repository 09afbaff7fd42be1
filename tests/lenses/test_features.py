"""Recording what modules give, and pictures of it."""

import itertools
from collections import Counter

import pytest
import torch
from sklearn.cluster import KMeans
from torch import nn

from workbench.lenses import features
from workbench.lenses.features import cluster_maps, fit_pca, match_clusters, pca_colours, record_features


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.Sequential(nn.Conv2d(5, 4, 1)))


def maps(*sizes, channels=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(1, channels, *size, generator=rng) for size in sizes]


def hooks(network) -> int:
    return sum(len(m._forward_hooks) for m in network.modules())


def test_recorded_is_what_the_module_gave(network, photo):
    with torch.no_grad():
        plain = network(photo)
        with record_features(network, ["0", "2.*"]) as recorded:
            assert torch.equal(network(photo), plain)
        assert torch.equal(recorded["0"], network[0](photo))  # before the ReLU that works in place
        assert torch.equal(recorded["2.0"], plain)
    assert list(recorded) == ["0", "2.0"]
    assert not recorded["0"].requires_grad
    assert repr(recorded) == "Recording(0 (1, 5, 20, 28) x 1, 2.0 (1, 4, 20, 28) x 1)"
    assert hooks(network) == 0


def test_last_or_every_output(network, photo):
    with record_features(network, "0") as last, record_features(network, "0", keep="all") as every:
        network(photo)
        network(photo * 0.5)
    assert len(last.every("0")) == 1
    assert len(every.every("0")) == 2
    assert torch.equal(last["0"], every["0"])
    assert not torch.equal(*every.every("0"))


def test_hooks_go_also_after_an_exception(network, photo):
    with pytest.raises(RuntimeError, match="expected input"), record_features(network, "*"):
        network(photo[:, :2])  # two channels instead of three
    assert hooks(network) == 0
    with pytest.raises(ValueError, match=r"no module of Sequential is called '3'. Near names: "):
        record_features(network, ["0", "3"]).__enter__()
    assert hooks(network) == 0


def test_tuples_and_things_without_tensors(photo):
    class Two(nn.Module):
        def forward(self, x):
            return ("told", x + 1) if x.mean() > 0 else "nothing"

    network = nn.Sequential(Two())
    with record_features(network, "0") as recorded:
        network(photo)
        with pytest.raises(TypeError, match="0 gave a str without a tensor"):
            network(photo * 0)
    assert torch.equal(recorded["0"], photo + 1)


def test_recording_refuses(network):
    with pytest.raises(TypeError, match="expected a torch module such as pipe.unet"):
        record_features("unet", "0").__enter__()
    with pytest.raises(ValueError, match="names is empty"):
        record_features(network, []).__enter__()
    with pytest.raises(ValueError, match="keep is 'first'"):
        record_features(network, "0", keep="first").__enter__()
    with record_features(network, "0") as recorded:
        assert len(recorded) == 0
        with pytest.raises(RuntimeError, match="has not been called yet"):
            _ = recorded["0"]
        with pytest.raises(KeyError, match="not recorded"):
            _ = recorded["1"]


def test_equal_features_have_equal_colours():
    a, b = maps((5, 7), (4, 9))
    b[..., 1, 2] = a[..., 3, 4]
    shown = pca_colours([a, b])
    assert [s.shape for s in shown] == [(1, 3, 5, 7), (1, 3, 4, 9)]
    torch.testing.assert_close(shown[0][..., 3, 4], shown[1][..., 1, 2])
    assert all(s.min() >= 0 and s.max() <= 1 for s in shown)


def test_the_basis_is_that_of_principal_components():
    a, b = maps((5, 7), (4, 9))
    basis = fit_pca([a, b])
    cells = torch.cat([m[0].flatten(1).T for m in (a, b)]).double()  # (71, 6)
    _, singular, axes = torch.linalg.svd(cells - cells.mean(0))  # another way to the same
    cosines = (basis.axes * axes[:3]).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones(3).double())
    share = singular.square() / singular.square().sum()
    assert basis.explained == pytest.approx(share[:3].tolist())


def test_signs_do_not_flip():
    a = maps((6, 8))[0]
    again = fit_pca(torch.roll(a, 17, dims=-1).flip(-2))  # the same cells in another order
    basis = fit_pca(a)
    torch.testing.assert_close(basis.axes, again.axes)
    largest = basis.axes.gather(1, basis.axes.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_colours_of_few_channels_and_of_nothing():
    one, flat = torch.linspace(0, 1, 12).view(1, 1, 3, 4), torch.ones(1, 4, 3, 4)
    shown = pca_colours(one)[0]
    assert shown[0, 0, 0, 0] == 0
    assert shown[0, 0, 2, 3] == 1
    assert (shown[0, 1:] == 0.5).all()
    assert (pca_colours(flat)[0] == 0.5).all()


def test_clusters_keep_their_colours():
    centres = torch.eye(4)[:3] * 9  # three kinds of cells, channels 4
    kinds_a = torch.tensor([[0, 0, 0, 1], [0, 0, 2, 1]])
    kinds_b = torch.tensor([[2, 2, 1], [1, 2, 1], [0, 0, 0]])
    noise = torch.Generator().manual_seed(0)
    a, b = (
        (centres[k].permute(2, 0, 1) + 0.1 * torch.randn(4, *k.shape, generator=noise))[None]
        for k in (kinds_a, kinds_b)
    )
    for jointly in (True, False):
        labels_a, labels_b = cluster_maps([a, b], 3, jointly=jointly)
        means = {int(labels_a[kinds_a == k][0]) for k in range(3)}
        assert means == {0, 1, 2}
        for k in range(3):  # one label for each kind, in both pictures
            seen = set(labels_a[kinds_a == k].tolist()) | set(labels_b[kinds_b == k].tolist())
            assert len(seen) == 1
    assert (cluster_maps(a, 3)[0] == 0).sum() == 5  # the largest is 0
    scaled = a * torch.rand(1, 1, 2, 4, generator=noise).clamp(min=0.1)
    assert torch.equal(cluster_maps(scaled, 3, unit_length=True)[0], cluster_maps(a, 3)[0])


def test_clusters_are_those_of_scikit_learn_and_of_their_seed():
    a, b = maps((6, 8), (5, 4))
    before = torch.random.get_rng_state()
    labels = cluster_maps([a, b], seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(map(torch.equal, labels, cluster_maps([a, b], seed=3)))
    cells = torch.cat([m[0].flatten(1).T for m in (a, b)]).double().numpy()
    wanted = KMeans(8, n_init=4, random_state=3).fit(cells).labels_
    found = torch.cat([m.flatten() for m in labels]).tolist()
    assert len(set(zip(found, wanted.tolist(), strict=True))) == 8  # the same up to names
    assert [count for _, count in sorted(Counter(found).items())] == sorted(Counter(found).values(), reverse=True)


def test_matching_clusters_is_the_best_assignment():
    rng = torch.Generator().manual_seed(1)
    a, b = torch.randn(4, 3, generator=rng), torch.randn(4, 3, generator=rng)
    best = min(itertools.permutations(range(4)), key=lambda p: (a - b[list(p)]).square().sum())
    assert match_clusters(a, b).tolist() == list(best)


def test_maps_are_checked():
    with pytest.raises(ValueError, match="5 and 6 channels"):
        fit_pca([*maps((3, 3), channels=5), *maps((3, 3))])
    with pytest.raises(ValueError, match="maps is empty"):
        pca_colours([])
    with pytest.raises(ValueError, match="expected finite floating ones"):
        fit_pca(torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="one picture's"):
        cluster_maps(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="k is 10, expected a whole number from 1 to 9"):
        cluster_maps(maps((3, 3)), 10)
    with pytest.raises(TypeError, match="is a list"):
        features.check_map([1])
