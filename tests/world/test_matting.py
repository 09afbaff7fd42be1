"""Sprites: alpha by hand, compositing, every kind."""

import math

import pytest
import torch

from workbench.world import (
    Camera,
    Light,
    Material,
    Part,
    Scene,
    Thing,
    composite,
    make_room,
    make_sprite,
    render_sprite,
)
from workbench.world.matting import rays_a_side
from workbench.world.sprites import KINDS

LAMP = Light("rectangle", (1, -2, 2), (0, 0, 0.5), (1, 1), power=5)


def alone(*parts, camera=None) -> Scene:
    return Scene(
        "sprite", (Thing("ball", parts),), (LAMP,), camera or Camera((0, -4, 0.5), (0, 0, 0.5), 30), sky_power=0.4
    )


def test_alpha_of_a_ball_is_the_area_of_its_disc():
    """The tangent cone of a ball of radius 0.5 at distance 4, in pixels of a 30-degree camera."""
    view = render_sprite(alone(Part("ball", (1, 1, 1))), size=(40, 60))
    radius = math.tan(math.asin(0.5 / 4)) * 20 / math.tan(math.radians(15))
    assert view.alpha.sum().item() == pytest.approx(math.pi * radius**2, rel=0.01)
    assert view.alpha[0, 0, 20, 30] == 1
    assert view.alpha[0, 0, 0, 0] == 0


def test_alpha_of_a_half_plane_is_its_coverage():
    """A box whose edge cuts a column of pixels at 0.3 of its width; rays per side bound the error."""
    size = (12, 20)
    f = 6 / math.tan(math.radians(15))
    edge = (13.3 - 10) / f * 3.0  # the column x = 13.3 px, at the depth of the box's front, 3 m
    box = Part("box", (4, 0.2, 8), Material(), (edge - 2, 0.1, -4))
    view = render_sprite(alone(box, camera=Camera((0, -3, 0.5), (0, 0, 0.5), 30)), size=size)
    assert view.alpha[0, 0, 6, :13].min() == 1
    assert view.alpha[0, 0, 6, 14:].max() == 0
    assert view.alpha[0, 0, 6, 13].item() == pytest.approx(0.3, abs=1 / rays_a_side(size))


def test_a_translucent_shell_lets_the_background_through():
    shell = Material(colour=(0.2, 0.4, 0.9), opacity=0.3)
    view = render_sprite(alone(Part("box", (1, 0.1, 1), shell)), size=(24, 24))
    middle = view.alpha[0, 0, 12, 12].item()
    assert 0.28 < middle < 0.5  # 0.3, and a little for the gleam
    solid = render_sprite(
        alone(Part("box", (1, 0.1, 1), shell), Part("ball", (0.5, 0.5, 0.5), Material(), (0, 1, 0.3))), size=(24, 24)
    )
    assert solid.alpha[0, 0, 12, 12] == 1  # the ball behind it is solid


def test_compositing_holds_exactly():
    view = render_sprite(make_sprite(3), size=(30, 40))
    background = torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    for other in (view.composite(background), composite(view.foreground, view.alpha, background)):
        assert torch.equal(other, view.foreground * view.alpha + background * (1 - view.alpha))
    green = view.image
    assert torch.equal(
        green[:, :, view.alpha[0, 0] == 0],
        torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1).expand_as(green[:, :, view.alpha[0, 0] == 0]),
    )
    assert torch.equal(view.composite((1.0, 0.0, 0.0))[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.long
def test_every_kind_fills_the_frame_softly(kind):
    scene = make_sprite(11, kind)
    view = render_sprite(scene, size=(40, 40))
    assert 0.03 < view.alpha.mean() < 0.7
    assert view.alpha[..., 0, :].max() == view.alpha[..., :, 0].max() == view.alpha[..., -1, :].max() == 0
    soft = ((view.alpha > 0.02) & (view.alpha < 0.98)).float().mean()
    assert soft > (0.02 if kind in ("toy", "plant", "leaf", "fern") else 0.05)
    covered = view.alpha[0, 0] > 0
    assert 0.05 < view.foreground[0, :, covered].mean() < 0.98
    again = render_sprite(make_sprite(11, kind), size=(40, 40)) if kind in ("creature", "shell") else view
    assert torch.equal(again.alpha, view.alpha)
    assert torch.equal(again.foreground, view.foreground)


def test_errors():
    with pytest.raises(ValueError, match="scene is a room, expected a sprite"):
        render_sprite(make_room(0))
    with pytest.raises(ValueError, match="background is .* and foreground is"):
        composite(torch.zeros(1, 3, 4, 5), torch.zeros(1, 1, 4, 5), torch.zeros(1, 3, 4, 6))
