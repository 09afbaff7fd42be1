"""Scenes: JSON, changes, seeds, errors."""

import dataclasses
import json

import pytest

from workbench.world import (
    Camera,
    Light,
    Material,
    from_json,
    make_clip,
    make_facade,
    make_room,
    make_sprite,
    to_json,
    with_light,
    with_texture,
    with_thing_moved,
)
from workbench.world.seeds import SPLITS, split_seeds
from workbench.world.things import footprint


@pytest.mark.parametrize("make", [make_room, make_facade, make_sprite])
@pytest.mark.long
def test_json_gives_an_equal_scene(make):
    scene = make(5)
    assert from_json(to_json(scene)) == scene
    assert to_json(from_json(to_json(scene))) == to_json(scene)
    assert make(5) == scene
    assert make(6) != scene


def test_json_errors_name_the_field():
    with pytest.raises(ValueError, match="not JSON"):
        from_json("{")
    with pytest.raises(ValueError, match="scene is .* expected an object with the fields kind, things"):
        from_json('{"nonsense": 1}')
    data = json.loads(to_json(make_sprite(0)))
    data["camera"]["position"] = [1, 2]
    with pytest.raises(ValueError, match=r"scene\.camera\.position is \[1, 2\]"):
        from_json(json.dumps(data))
    with pytest.raises(ValueError, match="lacks a field"):
        from_json('{"kind": "room"}')


@pytest.mark.parametrize("seed", range(6))
def test_objects_of_a_room_stand_apart(seed):
    """Movable things on the floor: circles about them never overlap, and none sinks in."""
    room = make_room(seed)
    fixed = {"wall", "floor", "ceiling", "skirting", "window", "picture", "rug", "shelf", "cupboard", "sofa", "table"}
    toys = [t for t in room.things if t.word not in fixed and t.position[2] == 0]
    assert len([t for t in room.things if t.word not in fixed | {"picture"}]) >= 2
    for i, a in enumerate(toys):
        for b in toys[i + 1 :]:
            gap = ((a.position[0] - b.position[0]) ** 2 + (a.position[1] - b.position[1]) ** 2) ** 0.5
            assert gap > footprint(a)[0] + footprint(b)[0] - 0.26 * ("lamp" in (a.word, b.word))


def test_changes_leave_the_rest_alone():
    room = make_room(1)
    other = with_texture(room, "floor", pattern="tiled", scale=0.3)
    index = room.find("floor")
    assert other.things[index].parts[0].material.pattern == "tiled"
    assert other.things[:index] + other.things[index + 1 :] == room.things[:index] + room.things[index + 1 :]
    assert dataclasses.replace(other, things=room.things) == room
    moved = with_thing_moved(room, len(room.things) - 1, position=(0, 1, 2), yaw=30)
    assert moved.things[-1].position == (0.0, 1.0, 2.0)
    assert moved.things[-1].parts == room.things[-1].parts
    assert with_texture(room, 1, Material("checker")).things[1].parts[0].material == Material("checker")


def test_bad_input_is_told():
    room = make_room(1)
    with pytest.raises(ValueError, match="no thing is called 'elephant'. There are: wall, floor"):
        with_texture(room, "elephant", pattern="plain")
    with pytest.raises(ValueError, match="pattern is 'tile', expected one of: plain, checker, striped"):
        with_texture(room, "floor", pattern="tile")
    with pytest.raises(ValueError, match=r"material\.colour is 'red', expected three numbers"):
        with_texture(room, "floor", colour="red")
    with pytest.raises(ValueError, match=r"material\.second is \(1, 0\), expected three numbers"):
        Material(second=(1, 0))
    with pytest.raises(ValueError, match="no lights given"):
        with_light(room)
    with pytest.raises(ValueError, match=r"light\.kind is 'laser', expected one of: rectangle, sphere, sun"):
        Light("laser", (0, 0, 0))
    with pytest.raises(ValueError, match="expected two points"):
        Camera((1, 2, 3), (1, 2, 3))
    with pytest.raises(ValueError, match=r"camera\.fov is 190"):
        Camera((0, 0, 0), (1, 2, 3), 190)
    with pytest.raises(TypeError, match="seed is 1.5"):
        make_room(1.5)
    with pytest.raises(ValueError, match="kind is 'dog', expected one of: toy, creature"):
        make_sprite(0, "dog")


def test_the_splits_never_meet():
    splits = list(SPLITS.values())
    for i, a in enumerate(splits):
        assert all(a.stop <= b.start or b.stop <= a.start for b in splits[i + 1 :])
    assert split_seeds("validation", 2, 3) == range(10_000_002, 10_000_005)
    with pytest.raises(ValueError, match="count is 2"):
        split_seeds("train", 9_999_999, 2)
    with pytest.raises(ValueError, match="split is 'test'"):
        split_seeds("test", 0, 1)


def test_a_clip_moves_its_things_and_nothing_else():
    clip = make_clip(4, frames=5)
    first, last = clip.frames[0], clip.frames[-1]
    assert clip.moving
    for i, (a, b) in enumerate(zip(first.things, last.things, strict=True)):
        assert a.parts == b.parts
        assert ((a.position, a.yaw) != (b.position, b.yaw)) == (i in clip.moving)
    assert make_clip(4, frames=5) == clip
