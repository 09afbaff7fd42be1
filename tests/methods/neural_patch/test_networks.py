"""Texture networks: the same features as their originals give, from files in the published layout, or a clear error."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from workbench import check
from workbench.diffusion import classifier as classifiers
from workbench.methods.neural_patch import load_network, networks

VGG19_CONVOLUTIONS = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256),
                      (14, 256, 256), (16, 256, 256), (19, 256, 512), (21, 512, 512), (23, 512, 512), (25, 512, 512),
                      (28, 512, 512), (30, 512, 512), (32, 512, 512), (34, 512, 512)]  # fmt: skip
"""torchvision's numbers: place in ``features``, channels in, channels out."""


@pytest.fixture(scope="module")
def vgg19():
    """torchvision's sequence of layers, written down, random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers, places = [], {place: (a, b) for place, a, b in VGG19_CONVOLUTIONS}
        for place in range(37):
            if place in places:
                layers.append(nn.Conv2d(*places[place], 3, padding=1))
            else:
                layers.append(nn.ReLU() if place - 1 in places else nn.MaxPool2d(2))
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def state(vgg19):
    """The state dict as published, its fully connected end (made small) included."""
    ends = {"classifier.0.weight": torch.zeros(2, 3), "classifier.0.bias": torch.zeros(2)}
    return {f"features.{name}": value for name, value in vgg19.state_dict().items()} | ends


def test_a_classifier_gives_its_own_features(photo):
    classifier = classifiers.make_classifier(["a", "b"], widths=(4, 6, 8, 10, 12), seed=1)
    with torch.no_grad():
        for _ in range(3):  # statistics of batch normalisation other than 0 and 1
            classifier.train()(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)))
    classifier.eval()
    generator = torch.Generator().manual_seed(3)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
            nn.init.uniform_(module.bias, -1, 1, generator=generator)
    picture = nn.functional.pad(photo, (0, 4, 0, 12), mode="replicate")
    names = ["relu1_2", "relu3_1", "relu4_1", "relu4_2"]
    ours, theirs = load_network(classifier).features(picture, names), classifier.features(picture, names)
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)
        assert ours[name].abs().max() > 0.1


def test_networks_are_frozen_and_loaded_as_they_are(network):
    assert load_network(network) is network
    assert not list(load_network("random").parameters())


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_vgg19_from_a_file_in_the_published_layout(vgg19, state, ending, tmp_path):
    file = tmp_path / f"vgg19-dcbb9e9d{ending}"
    torch.save(state, file) if ending == ".pth" else save_file(state, file)
    network = load_network(str(file))
    picture = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(3))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    found = network.features(picture, ["relu3_1", "relu4_1", "relu4_2", "relu5_4"])
    with torch.no_grad():
        for name, place in {"relu3_1": 11, "relu4_1": 20, "relu4_2": 22, "relu5_4": 35}.items():
            expected = vgg19[: place + 1]((picture - mean) / std)
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)
    assert network.layer_names()[-1] == "relu5_4"
    assert (network.stride("relu3_1"), network.stride("relu4_1")) == (4, 8)


def test_vgg19_is_found_where_torch_keeps_its_downloads(state, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.diffusion.pipelines.MODELS", tmp_path / "models")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(check.NotAvailable, match=r"VGG-19 are in neither .*models/vgg19 nor .*download.pytorch.org"):
        load_network("vgg19")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth")
    assert load_network("vgg19").name == "VGG-19"


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_files_that_are_not_vgg19(state, tmp_path, capsys):
    def refused(tensors, message, name="a.pth"):
        torch.save(tensors, tmp_path / name)
        with pytest.raises(check.NotAvailable, match=message):
            load_network(tmp_path / name)

    refused({k: v for k, v in state.items() if k != "features.10.weight"}, r"features\.10\.weight is missing")
    refused({**state, "features.5.bias": torch.zeros(64)}, r"features\.5\.bias has shape \(64,\), expected \(128,\)")
    refused([torch.zeros(3)], "holds a list, expected tensors by name")
    refused({"features.0.weight": Payload()}, "holds more than tensors and is not read")
    assert "executed" not in capsys.readouterr().out
    (tmp_path / "b.safetensors").write_bytes(b"nonsense")
    with pytest.raises(check.NotAvailable, match="not readable as weights"):
        load_network(tmp_path / "b.safetensors")
    for content in (b"", b"<html>404 not found</html>", bytes(range(256)) * 9):  # downloads that went wrong
        (tmp_path / "c.pth").write_bytes(content)
        with pytest.raises(check.NotAvailable, match=r"c.pth is not readable as weights: .*Get it anew\.$") as told:
            load_network(tmp_path / "c.pth")
        assert "weights_only" not in str(told.value)  # PyTorch advises to execute what is in it


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    def missing(source):
        raise check.NotAvailable("tiny-classifier is not here.")

    monkeypatch.setattr(networks, "load_classifier", missing)
    with pytest.raises(check.NotAvailable, match="bundled classifier is not on this machine.*network='random'"):
        load_network("classifier")
    with pytest.raises(check.NotAvailable, match="neither 'classifier', 'vgg19', 'random' nor a file"):
        load_network(tmp_path / "nothing.pth")
    with pytest.raises(TypeError, match="network is a int, expected 'classifier'"):
        load_network(7)


def test_random_weights_come_from_their_seed_alone(photo):
    before = torch.random.get_rng_state()
    a, b, c = (load_network("random", seed=s).features(photo, ["relu3_1"])["relu3_1"] for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_cell_sees_exactly_as_far_as_reach_says(network):
    """The slope of one cell is not 0 in its block and ``reach`` pixels around it, and 0 beyond."""
    for name in ("relu2_1", "relu3_1", "relu4_1"):
        stride, reach = network.stride(name), network.reach(name)
        picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(4)).requires_grad_()
        cell = 48 // stride
        found = network.double().features(picture.double(), [name])[name]
        slope = torch.autograd.grad(found[0, :, cell, cell].sum(), picture)[0].abs().sum((0, 1))
        rows = slope.sum(1).nonzero()[:, 0]
        assert int(rows[0]) >= 48 - reach
        assert int(rows[-1]) <= 48 + stride - 1 + reach
        assert int(rows[-1]) - int(rows[0]) + 1 > stride + reach  # the bound is not idle
    network.float()


def test_unknown_layers(network):
    with pytest.raises(ValueError, match="layer is 'relu9_1', expected one of: relu1_1"):
        network.features(torch.zeros(1, 3, 16, 16), ["relu9_1"])
