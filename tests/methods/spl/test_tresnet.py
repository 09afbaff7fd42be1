"""TResNet's first two stages: names and shapes as published, each part by hand, the loader."""

import pytest
import torch

from workbench.diffusion import models
from workbench.methods.spl import make_teacher
from workbench.methods.spl.tresnet import (
    Blurred,
    TResNet,
    from_published,
    load_tresnet,
    make_tresnet,
    squares_to_channels,
)

NARROW = (6, (2, 2))


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_names_and_shapes_of_the_published_weights():
    """A few of each kind; the halving block has one level more, and its skip begins with a pooling."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in TResNet().state_dict().items()}
    expected = {
        "body.conv1.0.weight": (76, 48, 3, 3),
        "body.conv1.1.running_var": (76,),
        "body.layer1.3.conv1.0.weight": (76, 76, 3, 3),
        "body.layer1.0.conv2.1.bias": (76,),
        "body.layer1.0.se.fc1.weight": (64, 76, 1, 1),
        "body.layer2.0.conv1.0.0.weight": (152, 76, 3, 3),
        "body.layer2.0.conv1.0.1.weight": (152,),
        "body.layer2.0.downsample.1.0.weight": (152, 76, 1, 1),
        "body.layer2.0.downsample.1.1.running_mean": (152,),
        "body.layer2.4.conv1.0.weight": (152, 152, 3, 3),
        "body.layer2.4.se.fc2.bias": (152,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert not any("layer1.0.downsample" in name or "layer1.4" in name or "layer2.5" in name for name in shapes)


def test_squares_become_channels():
    picture = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12).float()
    cells = squares_to_channels(picture)
    assert cells.shape == (2, 48, 2, 3)
    for y, x, colour in ((0, 0, 0), (1, 3, 2), (3, 2, 1)):
        assert torch.equal(cells[:, (4 * y + x) * 3 + colour], picture[:, colour, y::4, x::4])
    with pytest.raises(ValueError, match=r"image is \(8, 10\) \(H, W\), expected multiples of 4"):
        squares_to_channels(picture[..., :10])


def test_blurring_by_hand():
    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 2, 2], x[0, 1, 1, 0] = 16, 16
    y = Blurred()(x)
    assert y[0, 0].tolist() == [[0, 0], [0, 4]]
    assert y[0, 1].tolist() == [[4, 0], [2, 0]]  # row 1 is also its mirror image above row 0


def test_maps():
    network = make_tresnet(*NARROW).eval()
    maps = network.features(noise(2, 3, 32, 48), ["layer2", "layer1"])
    assert list(maps) == ["layer2", "layer1"]
    assert maps["layer1"].shape == (2, 6, 8, 12)
    assert maps["layer2"].shape == (2, 12, 4, 6)
    with pytest.raises(ValueError, match="layer is 'layer3', expected one of: conv1, layer1, layer2"):
        network.features(noise(1, 3, 32, 32), ["layer3"])


def test_a_published_file_is_loaded_and_teaches(tmp_path):
    """Negative factors count by their size there; later stages and the head lie in the same file."""
    network, file = make_tresnet(*NARROW, seed=2).eval(), tmp_path / "tresnet.pth"
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.copy_(noise(module.num_features) + 0.5)
                module.running_mean.copy_(noise(module.num_features, seed=3))
    published = {name: v.clone() for name, v in network.state_dict().items() if "num_batches" not in name}
    for name in published:
        if name.replace("weight", "running_mean") in published and name.endswith("weight"):
            published[name] = -(published[name] - 1e-5)
    beyond = {"body.layer3.0.conv1.0.weight": torch.zeros(1), "head.fc.weight": torch.zeros(1)}
    torch.save({"model": {**published, **beyond}}, file)
    picture = noise(1, 3, 32, 32)
    loaded = load_tresnet(file)
    assert models.parameters(loaded) == models.parameters(network)
    wanted = network.features(picture, ["layer2"])["layer2"]
    torch.testing.assert_close(loaded.features(picture, ["layer2"])["layer2"], wanted)
    teacher = make_teacher("tresnet", noise(4, 3, 16, 16), source=file, enlarge=2)
    assert teacher(picture).shape == (1, 12, 8, 8)
    assert not set(from_published(published | beyond)) & set(beyond)


def test_files_that_hold_something_else(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no weight 'body.conv1.0.weight', expected a TResNet"):
        load_tresnet(tmp_path / "other.pth")
    state = make_tresnet(*NARROW).state_dict()
    torch.save({name: v for name, v in state.items() if "se.fc1" not in name}, tmp_path / "less.pth")
    with pytest.raises(ValueError, match="is no TResNet with basic blocks"):
        load_tresnet(tmp_path / "less.pth")
