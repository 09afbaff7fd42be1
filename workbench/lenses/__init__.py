"""Look inside a network without changing what it does: attention, correspondence, features."""

from workbench import lazy

_NAMES = {
    "edit_attention": "attention",
    "record_attention": "attention",
    "match": "correspondence",
    "record_features": "features",
}

__getattr__, __dir__, __all__ = lazy.exports(__name__, _NAMES, ("attention", "correspondence", "features"))
