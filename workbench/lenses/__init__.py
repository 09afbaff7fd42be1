"""Look inside a network without changing what it does."""

from workbench import lazy

_NAMES = {
    "edit_attention": "attention",
    "record_attention": "attention",
}

__getattr__, __dir__, __all__ = lazy.exports(__name__, _NAMES)
