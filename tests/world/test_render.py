"""Pictures and their ground truth: by hand, by properties, and against Mitsuba's own integrator."""

import math

import numpy as np
import pytest
import torch

from workbench.world import (
    LABELS,
    Camera,
    Light,
    Material,
    Part,
    Scene,
    Thing,
    caption,
    correspondences,
    labels,
    make_facade,
    make_room,
    other_camera,
    render,
    with_light,
    with_texture,
    with_thing_moved,
)
from workbench.world.geometry import pixel_grid, project, unproject
from workbench.world.materials import COLOURS, PATTERNS, albedo, colour_word, to_linear, to_srgb
from workbench.world.rendering import MATERIAL_NAMES, look
from workbench.world.shapes import SHAPES, make_shape
from workbench.world.views import shorter_caption

SIZE = (36, 48)
LAMP = Light("rectangle", (0, 0, 3), (0, 0, 0), (0.5, 0.5), power=9.0)
GROUND = Thing("floor", (Part("box", (8, 8, 0.1), Material(colour=(0.8, 0.7, 0.6)), (0, 0, -0.1)),))
BALL = Thing(
    "ball", (Part("ball", (1, 1, 1), Material("checker", COLOURS["red"], COLOURS["white"], 0.4)),), (0.2, 0.5, 0)
)
CUBE = Thing(
    "cube", (Part("box", (0.6, 0.6, 0.6), Material("striped", COLOURS["blue"], COLOURS["white"], 0.3)),), (-0.9, 0, 0)
)
ABOVE = Camera((0, 0, 4), (0, 0, 0), 50, up=(0, 1, 0))
ASIDE = Camera((0.5, -3.5, 1.6), (-0.2, 0, 0.4), 45)


@pytest.fixture(scope="module")
def stage() -> Scene:
    return Scene("room", (GROUND, BALL, CUBE), (LAMP,), ASIDE, ambient=0.3)


def test_the_same_scene_gives_the_same_bits(stage):
    a, b = render(stage, size=SIZE), render(stage, size=SIZE)
    assert all(torch.equal(x, y) for x, y in ((a.image, b.image), (a.depth, b.depth), (a.ids, b.ids)))
    assert a.image.shape == (1, 3, *SIZE)
    assert a.image.dtype == torch.float32
    assert 0 <= a.image.min() < a.image.max() <= 1


def test_other_light_samples_change_little(stage):
    """No Monte Carlo noise: over 40 dB between two patterns of samples."""
    a, b = render(stage, size=SIZE), render(stage, size=SIZE, light_seed=9)
    assert -10 * math.log10((a.image - b.image).square().mean()) > 40


def test_depth_of_a_plane_seen_from_above():
    depth, ids, stuff = look(Scene("room", (GROUND,), (LAMP,), ABOVE), size=SIZE)
    assert torch.allclose(depth, torch.full_like(depth, 4.0), atol=1e-5)  # along the axis: the same everywhere
    assert (ids == 1).all()
    assert {MATERIAL_NAMES[k] for k in stuff.unique().tolist()} == {"plain"}


def test_depth_of_a_ball_in_the_middle():
    ball = Thing("ball", (Part("ball", (1, 1, 1)),))
    depth, ids, stuff = look(Scene("room", (ball,), (LAMP,), Camera((0, -3, 0.5), (0, 0, 0.5), 40)), size=(41, 61))
    assert depth[0, 0, 20, 30].item() == pytest.approx(2.5, abs=2e-3)  # 72 flat sides instead of a circle
    assert depth[0, 0, 0, 0] == 0
    assert ids[0, 0] == stuff[0, 0] == 0
    tangent = math.tan(math.asin(0.5 / 3))  # half the ball's height in the picture, by the tangent from the eye
    rows = (ids[:, 30] > 0).sum().item()
    assert rows == pytest.approx(2 * tangent * 41 / 2 / math.tan(math.radians(20)), abs=1.01)


def test_pixels_and_points_are_inverse(stage):
    depth, _, _ = look(stage, size=SIZE)
    xy, z = project(ASIDE, SIZE, unproject(ASIDE, depth[0, 0].numpy()))
    seen = depth[0, 0].numpy() > 0
    assert np.abs(xy - pixel_grid(SIZE))[seen].max() < 1e-9
    assert np.abs(z - depth[0, 0].numpy())[seen].max() < 1e-9
    _, behind = project(ASIDE, SIZE, np.array([0.5, -9.0, 1.6]))
    assert behind < 0


def test_right_is_right_and_up_is_up():
    xy, _ = project(Camera((0, -2, 1), (0, 0, 1)), SIZE, np.array([[0.3, 0, 1], [0, 0, 1.3]]))
    assert xy[0, 0] > 24
    assert xy[1, 1] < 18


def test_direct_light_agrees_with_mitsuba():
    """Our light on a white floor under a lamp, half of it in a ball's shadow, against Mitsuba's direct integrator."""
    floor = Thing("floor", (Part("box", (8, 8, 0.1), Material(colour=(1.0, 1.0, 1.0)), (0, 0, -0.1)),))
    ball = Thing("ball", (Part("ball", (0.8, 0.8, 0.8), Material(colour=(0.0, 0.0, 0.0))),), (0.3, 0.4, 0.5))
    camera = Camera((0.0, -0.01, 3.0), (0.0, 0.0, 0.0), 60)
    scene = Scene(
        "room",
        (floor, ball),
        (Light("rectangle", (-0.5, 0, 2.5), (0, 0, 0), (0.6, 0.6), power=1.5),),
        camera,
        ambient=0,
    )
    ours = to_linear(render(scene, size=(24, 24), samples=64).image[0].permute(1, 2, 0).numpy())[..., 0]
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    t = mi.ScalarTransform4f()
    white = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 1.0}}
    black = {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}}
    theirs = mi.load_dict({
        "type": "scene", "integrator": {"type": "direct", "hide_emitters": True},
        "sensor": {
            "type": "perspective", "fov": 60, "fov_axis": "y",
            "to_world": t.look_at(camera.position, camera.target, camera.up),
            "film": {"type": "hdrfilm", "width": 24, "height": 24, "rfilter": {"type": "box"}, "pixel_format": "rgb"},
        },
        "floor": {"type": "rectangle", "to_world": t.scale(4), "bsdf": white},
        "ball": {"type": "sphere", "center": [0.3, 0.4, 0.9], "radius": 0.4, "bsdf": black},
        "lamp": {
            "type": "rectangle", "to_world": t.look_at((-0.5, 0, 2.5), (0, 0, 0), (0, 1, 0)) @ t.scale(0.3),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": 1.5 * math.pi / 0.36}},
        },
    })  # fmt: skip
    theirs = np.array(mi.render(theirs, spp=256, seed=0))[..., 0]
    _, ids, _ = look(scene, size=(24, 24))
    floor_only = torch.nn.functional.max_pool2d((ids == 2).float()[None, None], 3, 1, 1)[0, 0].numpy() == 0
    lamp_only = np.abs(theirs - ours) < 10  # where Mitsuba's camera meets the lamp itself
    where = floor_only & lamp_only & (theirs < 0.55) & (ours < 0.55)
    assert where.mean() > 0.6
    assert np.abs(theirs - ours)[where].mean() < 0.006  # bounced light is absent in theirs and nearly so in ours
    assert np.corrcoef(theirs[where], ours[where])[0, 1] > 0.99


def test_texture_and_light_leave_the_geometry_alone(stage):
    a = render(stage, size=SIZE)
    for other in (
        with_texture(stage, "ball", pattern="plain", colour=COLOURS["green"]),
        with_light(stage, Light("sphere", (1, -1, 2), size=(0.2, 0.2), colour=(1, 0.8, 0.6), power=3)),
    ):
        b = render(other, size=SIZE)
        assert torch.equal(a.ids, b.ids)
        assert torch.equal(a.depth, b.depth)
        assert (a.image - b.image).abs().max() > 0.1
    green = render(with_texture(stage, "ball", pattern="plain", colour=COLOURS["green"]), size=SIZE)
    far = torch.nn.functional.max_pool2d((a.ids == 2).float()[None, None], 5, 1, 2) == 0
    change = (a.image - green.image).abs().amax(1, keepdim=True)
    assert change[far].mean() < 0.02  # elsewhere only the light that the ball throws back


def warp(b, match):
    h, w = b.size
    grid = match.points.clone().nan_to_num(0)
    grid = torch.stack([grid[..., 0] / w * 2 - 1, grid[..., 1] / h * 2 - 1], -1)[None]
    return lambda picture: torch.nn.functional.grid_sample(picture, grid, align_corners=False, padding_mode="border")


def test_correspondences_agree_in_colour_and_geometry(stage):
    plain = with_texture(with_texture(stage, "ball", pattern="mottled"), "cube", pattern="plain")
    a = render(plain, size=(60, 80))
    b = render(plain, Camera((-0.3, -3.3, 1.8), (-0.2, 0, 0.4), 48), size=(64, 72))
    match = correspondences(a, b)
    assert match.points.shape == (60, 80, 2)
    assert 0.5 < match.visible.float().mean() < 1
    error = (warp(b, match)(b.image) - a.image).abs().mean(1)[0]
    assert error[match.visible].median() < 0.01
    assert error[match.visible].mean() < 0.03  # edges, where a pixel of one picture is a mixture
    # there and back again
    back = correspondences(b, a)
    x, y = match.points[match.visible].floor().long().unbind(-1)
    there = (
        back.points[y, x]
        - torch.stack(torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")[::-1], -1)[match.visible]
        - 0.5
    )
    same = b.ids[y, x] == a.ids[match.visible]
    assert same.float().mean() > 0.95
    assert there[same].abs().median() < 1  # half a pixel of rounding, and some of scale


def test_hidden_points_are_not_visible(stage):
    a = render(stage, ABOVE, size=SIZE)
    b = render(stage, Camera((0.2, -4, 0.4), (0.2, 0.5, 0.4), 45), size=SIZE)
    match = correspondences(a, b)
    behind = (0.2, 1.6, 0.0)  # on the floor, behind the ball
    (x, y), _ = project(ABOVE, SIZE, np.array(behind))
    (u, v), _ = project(b.camera, SIZE, unproject(ABOVE, a.depth[0, 0].numpy())[int(y), int(x)])
    assert a.ids[int(y), int(x)] == 1
    assert not match.visible[int(y), int(x)]
    assert match.points[int(y), int(x)].tolist() == pytest.approx([u, v], abs=1e-3)
    assert b.ids[int(v), int(u)] == 2


def test_correspondences_follow_what_moved(stage):
    moved = with_thing_moved(stage, "cube", position=(-0.5, -0.3, 0), yaw=25)
    a, b = render(stage, size=SIZE), render(moved, size=SIZE)
    match = correspondences(a, b)
    still, cube = a.ids == 1, a.ids == 3
    shift = match.points - torch.from_numpy(pixel_grid(SIZE)).float()
    assert shift[still].abs().max() < 1e-3
    assert shift[cube].norm(dim=-1).min() > 1
    x, y = match.points[cube & match.visible].floor().long().unbind(-1)
    assert (b.ids[y, x] == 3).float().mean() > 0.75  # the rest: pixels on the edge, rounded to their neighbour
    # by hand: a corner of the cube's top, in its own coordinates (0.3, -0.3, 0.6)
    before, _ = project(ASIDE, SIZE, np.array([-0.9 + 0.3, -0.3, 0.6]))
    turn = np.radians(25)
    corner = (0.3 * np.cos(turn) + 0.3 * np.sin(turn), 0.3 * np.sin(turn) - 0.3 * np.cos(turn))
    after, _ = project(ASIDE, SIZE, np.array([-0.5 + corner[0], -0.3 + corner[1], 0.6]))
    near = (torch.from_numpy(pixel_grid(SIZE)) - torch.tensor(before)).norm(dim=-1)
    near[~cube] = 99
    row, column = divmod(int(near.argmin()), SIZE[1])
    assert (match.points[row, column].numpy() - after).tolist() == pytest.approx([0, 0], abs=1.5)


def test_different_things_have_no_correspondences(stage):
    other = Scene("room", (GROUND, CUBE), (LAMP,), ASIDE)
    with pytest.raises(ValueError, match="the views show different things"):
        correspondences(render(stage, size=(8, 8)), render(other, size=(8, 8)))


def test_words_and_labels_say_what_is_seen(stage):
    view = render(stage, size=SIZE)
    assert caption(view) == "a photo of a room with a red checkered ball and a blue striped cube on a beige floor"
    found = {LABELS[i] for i in labels(view).nonzero()[:, 0].tolist()}
    assert found == {"room", "ball", "cube", "floor", "red", "blue", "beige", "checkered", "striped"}
    away = render(stage, Camera((0, -2, 2), (0, -3, 0), 30), size=SIZE)
    assert caption(away) == "a photo of a room on a beige floor"
    assert labels(away).sum() == 3


def test_shorter_captions_tell_less_and_nothing_new(stage):
    whole = caption(render(stage, size=SIZE))
    told = {shorter_caption(whole, np.random.default_rng(seed)) for seed in range(200)}
    assert {
        "a photo of a room with a ball",
        "a photo of a room with a checkered ball and a cube",
        "a photo of a room with a blue cube on a floor",
    } <= told
    things = {"a ball", "a red ball", "a checkered ball", "a red checkered ball"}
    things |= {f"a{look} cube" for look in ("", " blue", " striped", " blue striped")}
    for text in told:
        listing = (
            text.removeprefix("a photo of a room with ").removesuffix(" on a floor").removesuffix(" on a beige floor")
        )
        assert set(listing.split(" and ")) <= things
    assert shorter_caption(whole, np.random.default_rng(5)) == shorter_caption(whole, np.random.default_rng(5))


@pytest.mark.parametrize(
    ("whole", "shorter"),
    [
        ("a photo of an orange striped creature", {"a creature", "an orange creature", "a striped creature"}),
        ("a photo of a red facade with windows", {"a facade with windows", "a red facade with windows"}),
        ("a photo of a room on an orange floor", {"a room", "a room on a floor", "a room on an orange floor"}),
        ("a photo of a ball on a blue background", {"a ball", "a ball on a background", "a ball on a blue background"}),
    ],
)
def test_shorter_captions_have_the_right_articles(whole, shorter):
    told = {shorter_caption(whole, np.random.default_rng(seed)) for seed in range(60)} - {whole}
    assert told == {f"a photo of {words}" for words in shorter} - {whole}


@pytest.mark.parametrize(
    "text", ["", "a photo of a brick wall, grey", "a photo of a rocket launch at dusk", "a red ball"]
)
def test_other_texts_are_not_shortened(text):
    assert all(shorter_caption(text, np.random.default_rng(seed)) == text for seed in range(8))


def test_ids_materials_and_depth_agree():
    view = render(make_room(3), size=SIZE)
    assert ((view.ids > 0) == (view.depth[0, 0] > 0)).all()
    assert ((view.ids > 0) == (view.materials > 0)).all()
    for i in view.ids.unique().tolist():
        patterns = {p.material.pattern for p in view.scene.things[i - 1].parts}
        assert {MATERIAL_NAMES[k] for k in view.materials[view.ids == i].unique().tolist()} <= patterns


@pytest.mark.parametrize("make", [make_room, make_facade])
@pytest.mark.long
def test_no_ray_slips_out_between_things(make):
    """Every pixel of a room or facade shows something, also from aside."""
    for seed in range(8):
        scene = make(seed)
        for camera in (scene.camera, other_camera(scene, seed, 2.0)):
            depth, ids, _ = look(scene, camera, SIZE)
            assert ids.min() >= 1, seed
            assert depth.min() > 0.3, seed


@pytest.mark.parametrize("word", COLOURS)
def test_each_colour_goes_by_its_own_word(word):
    assert colour_word(COLOURS[word]) == word


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_closed_and_turned_outwards(shape):
    mesh = make_shape(shape, (0.6, 0.8, 1.2), (0, 0, 0.5, 0, 0.5, 1, 0, 1) if shape == "lathe" else ())
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)
    assert np.abs(mesh.vertices[:, 0]).max() <= 0.3 + 1e-9
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    if shape == "leaf":  # an open blade
        return
    assert ((flat * mesh.normals[mesh.faces].mean(1)).sum(1) > 0).mean() > 0.99
    volume = (a * np.cross(b, c)).sum() / 6
    assert 0.05 * 0.6 * 0.8 * 1.2 < volume <= 0.6 * 0.8 * 1.2 + 1e-9
    assert np.abs(flat.sum(0)).max() < 1e-9  # a closed surface has no net area


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_are_colours_and_move_with_nothing(pattern):
    rng = np.random.default_rng(0)
    p, n = rng.uniform(-1, 1, (200, 3)), np.eye(3)[rng.integers(0, 3, 200)]
    colours = albedo(Material(pattern, (0.8, 0.2, 0.1), (0.2, 0.3, 0.9), 0.3, seed=4), p, n)
    assert colours.shape == (200, 3)
    assert colours.dtype == np.float32
    assert 0 <= colours.min() <= colours.max() <= 1
    assert np.array_equal(
        colours[50:60], albedo(Material(pattern, (0.8, 0.2, 0.1), (0.2, 0.3, 0.9), 0.3, seed=4), p[50:60], n[50:60])
    )


def test_srgb_there_and_back():
    values = np.linspace(0, 1, 11, dtype=np.float32)
    assert np.allclose(to_srgb(to_linear(values)), values, atol=1e-6)
    assert to_linear(0.5) == pytest.approx(0.21404, abs=1e-4)


def test_errors_of_render(stage):
    with pytest.raises(TypeError, match="scene is a str, expected a Scene"):
        render("room")
    with pytest.raises(TypeError, match="size is 128"):
        render(stage, size=128)
    with pytest.raises(ValueError, match="shape is 'blob', expected one of: box"):
        make_shape("blob", (1, 1, 1))
    with pytest.raises(ValueError, match="three lengths above 0"):
        make_shape("box", (1, 0, 1))
