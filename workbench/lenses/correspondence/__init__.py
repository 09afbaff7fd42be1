"""Which pixel of one picture is which of another: sparse matches, dense fields, and how right they are.

Points are (x, y) in pixels of the given pictures, continuous: the middle of the top left pixel is (0.5, 0.5). A feature
map of h x w cells covers its picture evenly: the middle of cell (i, j) lies at ((j + 0.5) W / w, (i + 0.5) H / h).
"""

from workbench import lazy

_NAMES = {
    "Dift": "dift",
    "Evaluation": "evaluation",
    "FeaturePair": "dense",
    "Field": "dense",
    "Geometry": "geometry",
    "Matches": "matches",
    "Pair": "truth",
    "Pck": "scores",
    "clip_pair": "truth",
    "dense_field": "dense",
    "dift_features": "dift",
    "dift_grid": "evaluation",
    "end_point_error": "scores",
    "estimate_geometry": "geometry",
    "evaluate": "evaluation",
    "feature_pair": "dense",
    "heat_map": "dense",
    "match": "matching",
    "nearest_pairs": "nearest",
    "pck": "scores",
    "scene_pair": "truth",
    "sift_features": "sift",
    "stereo_pair": "truth",
    "truth_at": "truth",
}

__getattr__, __dir__, __all__ = lazy.exports(__name__, _NAMES)
