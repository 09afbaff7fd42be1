"""Rendered scenes with exact ground truth: rooms, facades, sprites, clips, all from seeds.

Making and rendering need Embree; reading the benchmark (`reader`) and describing scenes do not.
"""

from workbench import lazy

_NAMES = {
    "Camera": "scene",
    "Light": "scene",
    "Material": "scene",
    "Part": "scene",
    "Scene": "scene",
    "Thing": "scene",
    "from_json": "scene",
    "to_json": "scene",
    "with_camera": "scene",
    "with_light": "scene",
    "with_texture": "scene",
    "with_thing_moved": "scene",
    "View": "rendering",
    "exposed": "rendering",
    "render": "rendering",
    "make_room": "rooms",
    "make_facade": "facades",
    "make_sprite": "sprites",
    "render_sprite": "matting",
    "composite": "matting",
    "make_clip": "clips",
    "other_camera": "cameras",
    "caption": "views",
    "labels": "views",
    "LABELS": "views",
    "correspondences": "views",
    "Style": "style",
    "apply_style": "style",
    "random_style": "style",
    "Plan": "dataset",
    "RenderedSet": "dataset",
    "render_dataset": "dataset",
    "SPLITS": "seeds",
}

__getattr__, __dir__, __all__ = lazy.exports(__name__, _NAMES)
