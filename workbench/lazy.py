"""Names that a package imports when they are first used, so that importing the package is quick."""

import importlib
from collections.abc import Callable, Iterable, Mapping


def exports(
    package: str, names: Mapping[str, str], modules: Iterable[str] = ()
) -> tuple[Callable, Callable, list[str]]:
    """What a package's ``__init__`` binds to ``__getattr__``, ``__dir__`` and ``__all__``.

    Args:
        package: its ``__name__``.
        names: public name -> the module of the package that defines it.
        modules: modules and packages inside it that are public themselves.

    Source: PEP 562.

    Example:
        >>> __getattr__, __dir__, __all__ = exports(__name__, {"load_pipeline": "pipelines"})
    """
    modules = tuple(modules)
    public = sorted([*names, *modules])

    def get(name: str):
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: public, public
