"""Walking through whatever models return: tensors in tuples, dicts, output classes and distributions."""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import torch


def mapped(value, change: Callable[[torch.Tensor], torch.Tensor]):
    """The same structure with ``change(tensor)`` for each tensor; what was given is left as it is."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(v, change) for v in value))
    if type(value) in (tuple, list):
        return type(value)(mapped(v, change) for v in value)
    if type(value) is dict:
        return {k: mapped(v, change) for k, v in value.items()}
    fields = _fields(value)
    if fields is None:
        return value
    twin = copy.copy(value)
    frozen = dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen
    for name, inner in fields.items():
        # the class's own way of setting, where it has one: diffusers' outputs are dicts as well, which must follow
        (object.__setattr__ if frozen else setattr)(twin, name, mapped(inner, change))
    return twin


def tensors(value) -> Iterator[torch.Tensor]:
    """All tensors of a structure, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from tensors(inner)
    elif type(value) is dict:
        for inner in value.values():
            yield from tensors(inner)
    else:
        yield from (t for inner in (_fields(value) or {}).values() for t in tensors(inner))


def cloned(value):
    """The same structure, its tensors copied: later changes in place reach neither."""
    return mapped(value, lambda tensor: tensor.detach().clone())


def skeleton(value):
    """The same structure with shapes and types only, which take no memory."""
    return mapped(value, lambda tensor: torch.empty_like(tensor, device="meta"))


def fitted(value, batch: int | None, device: torch.device | None = None):
    """A copy to hand out in the place of the original.

    Args:
        value: the structure.
        batch: rows wanted in each tensor: the first ones, or all over again. None leaves them as they are.
        device: of zeros that stand in for what is only a `skeleton`.
    """

    def fit(tensor: torch.Tensor) -> torch.Tensor:
        tensor = torch.zeros_like(tensor, device=device) if tensor.is_meta else tensor
        if batch is None or tensor.ndim == 0 or len(tensor) == batch:
            return tensor.clone()
        return tensor[torch.arange(batch, device=tensor.device) % len(tensor)]

    return mapped(value, fit)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are equal in type, shape and every bit; NaN equals the same NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a, b) or torch.equal(_bits(a), _bits(b))


def digest(*values) -> str:
    """16 hex digits that change with any bit, shape, type or place of anything in the structures given."""
    found = hashlib.blake2b(digest_size=8)
    for value in values:
        _feed(value, found)
    return found.hexdigest()


def is_pil(value) -> bool:
    """Whether something is a PIL image; told by its class's name, as only `workbench.image` knows PIL."""
    return any((kind.__module__, kind.__name__) == ("PIL.Image", "Image") for kind in type(value).__mro__)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _feed(value, found) -> None:
    if isinstance(value, torch.Tensor):
        found.update(f"{value.dtype}{tuple(value.shape)}".encode())
        found.update(_bits(value.detach().cpu()).numpy().data if value.numel() else b"")
    elif isinstance(value, np.ndarray):
        found.update(f"{value.dtype}{value.shape}".encode())
        found.update(value.tobytes())
    elif isinstance(value, (tuple, list)):
        found.update(f"[{len(value)}".encode())
        for inner in value:
            _feed(inner, found)
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            found.update(f"{{{name}".encode())
            _feed(value[name], found)
    else:
        fields = _fields(value)
        if fields is not None:
            _feed(fields, found)
        elif isinstance(value, (int, float, str, bool, bytes, type(None), torch.dtype, torch.device)):
            found.update(repr(value).encode())
        elif hasattr(value, "tobytes"):  # a PIL image
            found.update(f"{getattr(value, 'mode', '')}{getattr(value, 'size', '')}".encode())
            found.update(value.tobytes())
        else:
            found.update(type(value).__qualname__.encode())  # no address: it differs from run to run


def _fields(value) -> dict | None:
    """Attributes of output classes and of plain objects that hold tensors (such as distributions); else None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    own = getattr(value, "__dict__", None)
    if isinstance(value, (type, torch.nn.Module)) or not own or callable(value):
        return None
    return dict(own) if any(isinstance(inner, torch.Tensor) for inner in own.values()) else None
