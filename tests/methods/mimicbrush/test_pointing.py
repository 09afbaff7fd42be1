"""Known correspondences: of rendered views, of changed pictures, as a term of the loss; by hand."""

import copy

import numpy as np
import pytest
import torch

from tests.methods.mimicbrush import narrow
from tests.methods.mimicbrush.conftest import write_films
from tests.methods.mimicbrush.narrow import noise
from workbench import world
from workbench.diffusion.training_data import TrainingPictures, generator
from workbench.methods.mimicbrush import Films, MimicTask, Pairs, augment, encode_pairs
from workbench.methods.mimicbrush.attention import shared_layers
from workbench.methods.mimicbrush.pairs import RenderedFilms
from workbench.methods.mimicbrush.pointing import asking, pointing_loss, seen_again, shares_of
from workbench.world.geometry import pixel_grid


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return TrainingPictures([write_films(tmp_path_factory.mktemp("pointing") / "clips", scenes=2)], 0.0)


def test_views_of_a_room_as_a_ray_tells_it():
    """Of rays that hit the same point, all but a few at edges are found; `world.correspondences` casts them."""
    scene = world.make_room(5)
    views = [world.render(scene, camera, size=(48, 64)) for camera in (scene.camera, world.other_camera(scene, 3))]
    rows = []
    for view in views:
        camera = np.array([*view.camera.position, *view.camera.target, view.camera.fov])
        rows.append({"camera": camera, "depth": view.depth[0], "ids": view.ids})
    points, exact = seen_again(*rows), world.correspondences(*views)
    found = points.isfinite().all(-1)
    both = found & exact.visible
    assert both.sum() > 0.9 * exact.visible.sum() > 300
    assert (found & ~exact.visible).sum() < 0.05 * found.sum()
    torch.testing.assert_close(points[both], exact.points[both], atol=1e-3, rtol=0)


def test_shares_follow_the_change_and_end_at_the_edge():
    picture = noise(1, 3, 20, 30)
    every = torch.from_numpy(pixel_grid((20, 30))).float()
    as_it_was = shares_of(every, augment(picture, np.random.default_rng(0), []))
    torch.testing.assert_close(as_it_was[0].permute(1, 2, 0) * torch.tensor([30.0, 20]), every)
    flipped = [augment(picture, np.random.default_rng(k), ["flip"]) for k in range(8)]
    mirrored = next(x for x in flipped if x.told == "mirrored")
    torch.testing.assert_close(shares_of(every, mirrored)[0, 0], 1 - as_it_was[0, 0])
    every[3, 4] = torch.nan
    turned = max(
        (augment(picture, np.random.default_rng(k), ["resize"]) for k in range(8)), key=lambda x: x.homography[0, 0]
    )
    found = shares_of(every, turned)
    assert found[0, :, 3, 4].isnan().all()
    outside = ((turned.carry(every.flatten(0, 1)) / torch.tensor([30.0, 20]) - 0.5).abs() > 0.5).any(1).view(20, 30)
    assert outside.any()
    assert torch.equal(found[0, 0].isnan(), outside | every[..., 0].isnan())


def test_pairs_say_where_things_are(pictures):
    """A disc moves before a ground that stays: the ground is found, what the disc covered or covers is not."""
    pairs = Pairs(RenderedFilms(pictures), pictures, 1.0, (0.0, 0.999), augmentations=[])
    pair = pairs.draw(generator(0, 1))
    share = pair.there.isfinite().all(1).float().mean()
    assert 0.6 < share < 1
    still = Pairs(None, pictures, 0.0, augmentations=["flip"], strength=0).draw(generator(0, 2))
    assert still.there.isfinite().all()
    film = torch.cat([noise(1, 3, 64, 64), noise(1, 3, 64, 64, seed=1)])
    unknown = Pairs(Films([film]), None, 1.0).draw(generator(0, 3))
    assert unknown.there is None
    told = encode_pairs(narrow.model(), [pair])["there"]
    assert told.shape == (1, 2, 32, 32)
    torch.testing.assert_close(told[0, :, 5, 7].float(), pair.there[0, :, 22, 30].nan_to_num(-1), atol=1e-3, rtol=0)
    assert (encode_pairs(narrow.model(), [unknown])["there"] == -1).all()


@pytest.mark.parametrize("reading", ["paper", "released"])
def test_the_loss_by_hand(reading):
    model = copy.deepcopy(narrow.model(reading))
    imitator, size = model.imitator, (8, 8)
    bank = imitator.read(noise(1, 4, 8, 12), 0, imitator.tokens(noise(1, 3, 8)))
    layers = shared_layers(imitator.unet)
    queries = {name: noise(1, len(bank.maps()[name].flatten(2).mT[0]) * 2 // 3, layer.to_q.out_features, seed=4)
               for name, layer in layers.items()}  # fmt: skip
    there = torch.full((1, 2, 8, 8), -1.0)
    there[0, :, 0, 0] = torch.tensor([0.3, 0.6])
    expected = []
    for k, (name, layer) in enumerate(layers.items()):
        rows, columns = bank.grids[name]
        to_k = imitator.adapters.reference_k[k] if reading == "paper" else layer.to_k
        key, query = to_k(bank.tokens[name])[0], queries[name][0, 0]
        width = len(query) // layer.heads
        heads = [
            torch.softmax(layer.scale * key[:, h : h + width] @ query[h : h + width], 0)
            for h in range(0, len(query), width)
        ]
        grid = torch.stack(heads).mean(0).view(1, 1, rows, columns)
        at = torch.tensor([[[[2 * 0.3 - 1, 2 * 0.6 - 1]]]])
        near = torch.nn.functional.grid_sample(grid, at, padding_mode="border", align_corners=False)
        expected.append(-torch.log(near.squeeze() + 1e-4))
    found = pointing_loss(imitator, bank, queries, there, size)
    torch.testing.assert_close(found, torch.stack(expected).mean(), atol=1e-4, rtol=1e-4)
    nothing = pointing_loss(imitator, bank, queries, torch.full_like(there, -1.0), size)
    assert nothing.item() == 0


def test_asking_ends(pictures):
    unet = narrow.model().imitator.unet
    with asking(unet) as queries:
        pass
    assert queries == {}
    assert not any(layer.to_q._forward_hooks for layer in shared_layers(unet).values())


def test_the_term_teaches_where_to_look(pictures):
    pairs = Pairs(RenderedFilms(pictures), pictures, band=(0.05, 0.999), strength=0.1)
    encoded = encode_pairs(narrow.model(), [pairs.draw(generator(0, k)) for k in range(2)])
    losses = {}
    for weight in (0.0, 1.0):
        task = MimicTask(
            copy.deepcopy(narrow.model()), encoded, [pairs.draw(generator(9, 0))], reference_dropout=0, pointing=weight
        )
        batch = task.batch([[0, 0, item] for item in range(2)])
        optimizer = torch.optim.AdamW([p for p in task.objective.parameters() if p.requires_grad], 1e-2)
        for _ in range(8):
            found = task.objective(batch)
            losses.setdefault(weight, []).append(found)
            found["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
    assert "pointing" not in losses[0.0][0]
    first, last = losses[1.0][0], losses[1.0][-1]
    assert last["pointing"] < first["pointing"] - 0.2
    torch.testing.assert_close(first["loss"], losses[0.0][0]["loss"] + first["pointing"])
    batch["present"] = torch.zeros(2)
    assert task.objective(batch)["pointing"] == 0
    with pytest.raises(ValueError, match="pointing is -1, expected"):
        MimicTask(narrow.model(), encoded, [pairs.draw(generator(9, 0))], pointing=-1)
