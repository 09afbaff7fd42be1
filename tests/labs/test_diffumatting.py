"""The references of the exercises on DiffuMatting agree with the package's own functions, on data not theirs."""

import pytest
import torch

from workbench import data, metrics
from workbench.labs import diffumatting as lab
from workbench.methods import diffumatting
from workbench.methods.diffumatting.greenpost import k_means
from workbench.world import composite

SPRITES = ("hair-01", "net-02")


def things():
    found = [data.sprite(name) for name in SPRITES]
    return torch.cat([x.foreground for x in found]), torch.cat([x.alpha for x in found])


def smeared(alpha):
    """A matte that is wrong at places."""
    return torch.nn.functional.avg_pool2d(alpha, 7, 1, 3).mul(1.1).clamp(0, 1)


def test_two_screens_give_the_alpha_that_is_exact():
    thing, alpha = things()
    screens = (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)
    found = lab.triangulate(*(composite(thing, alpha, screen) for screen in screens), *screens)
    assert torch.allclose(found, alpha, atol=1e-5)


def test_losses():
    thing, alpha = things()
    image = composite(thing, alpha, (0.0, 1.0, 0.0))
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 1, n, n, generator=generator) for n in (16, 8, 4)]
    assert torch.allclose(lab.green_control(maps, alpha), diffumatting.losses.green_control(maps, alpha))
    estimate = torch.rand(image.shape, generator=generator)
    both = lab.boundary_detail(estimate, image, alpha), diffumatting.losses.boundary_detail(estimate, image, alpha)
    assert torch.allclose(*both)
    assert torch.allclose(lab.dice(smeared(alpha), alpha), diffumatting.losses.dice(smeared(alpha), alpha))


def test_gsg_and_plate():
    thing, alpha = things()
    image = composite(thing, alpha, (0.2, 0.7, 0.2))
    assert torch.allclose(lab.gsg(image, k_means).double(), diffumatting.gsg(image), atol=1e-3)
    image, alpha = image[:1], smeared(alpha[:1])
    colour = diffumatting.background_colour(image, alpha)
    plate = lab.clean_plate(image, alpha, k_means, 3)
    assert torch.allclose(plate, diffumatting.clean_plate(image, alpha, colour, 3), atol=1e-6)


@pytest.mark.parametrize("name", SPRITES)
def test_connectivity(name):
    truth = data.sprite(name).alpha
    alpha = smeared(truth)
    found = lab.connectivity_error(alpha.double(), truth.double(), lab.largest_region)
    assert found.item() == pytest.approx(metrics.matting_conn(alpha, truth).item(), rel=1e-6)
