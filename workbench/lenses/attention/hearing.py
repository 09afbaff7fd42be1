"""Listening to attention layers: the softmax of each is seen as it is computed.

A layer's ``forward`` is put behind a `Post`, which knows who listens. Only while a layer runs for somebody, a function
mode of torch watches for the fused attention, or for a softmax, and passes everything on as it is.
"""

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

FUSED = functional.scaled_dot_product_attention
SOFTMAX = {torch.softmax, torch.Tensor.softmax, functional.softmax}
WATCHED = SOFTMAX | {torch.cat, FUSED}


@dataclass
class Softmax:
    """One softmax of an attention layer, by what goes into it or, where a layer computes it openly, by its result.

    Args:
        q, k: (B, heads, n, d) and (B, heads, m, d); None where only the result is known.
        mask: broadcasts to (B, heads, n, m): True or 0 where a key may be looked at.
        scale: of q k^T.
        result: (B, heads, n, m); a piece of it, (rows, n, m), has B and heads in one axis.
        joined: lengths of what was concatenated inside the layer, in order.
    """

    q: torch.Tensor | None
    k: torch.Tensor | None
    mask: torch.Tensor | None = None
    scale: float = 1.0
    result: torch.Tensor | None = None
    joined: tuple[tuple[int, ...], ...] = ()

    @property
    def lengths(self) -> tuple[int, int]:
        """Number of queries and of keys."""
        return tuple(self.result.shape[-2:]) if self.q is None else (self.q.shape[-2], self.k.shape[-2])


class Listener(Protocol):
    """Who wants to hear a layer."""

    def listens(self, module) -> bool:
        """Whether the layer, about to run, is of interest."""

    def hears(self, module, args: tuple, kwargs: dict, heard: list[Softmax]) -> None:
        """The layer has run with these arguments."""

    def factors(self, module, args: tuple, kwargs: dict, heard: Softmax) -> torch.Tensor | None:
        """What to multiply the probabilities by, (B, 1, 1, m); None leaves the layer's own computation alone."""


class Post:
    """Stands in for a layer's ``forward`` as long as somebody listens.

    Listeners come and go in any order; the last to leave puts back what was there. A deep copy of the layer, made
    meanwhile, is a plain one.
    """

    def __init__(self, module: torch.nn.Module):
        self.module, self.listeners = module, []
        self.own = vars(module).get("forward")  # set on the layer itself, by accelerate for one
        self.__wrapped__: Callable = module.forward

    @classmethod
    def attach(cls, module: torch.nn.Module, listener: Listener) -> "Post":
        """Lets a listener hear a layer; ``detach`` of what is returned ends it."""
        post = vars(module).get("forward")
        if not isinstance(post, cls):
            post = cls(module)
        post.listeners.append(listener)
        vars(module)["forward"] = post
        return post

    def detach(self, listener: Listener) -> None:
        """Ends it; harmless where it has ended."""
        self.listeners = [other for other in self.listeners if other is not listener]
        if not self.listeners and vars(self.module).get("forward") is self:
            del vars(self.module)["forward"]
            if self.own is not None:
                vars(self.module)["forward"] = self.own

    def __call__(self, *args, **kwargs):
        """What the layer itself does, heard by whom it may concern."""
        active = [listener for listener in self.listeners if listener.listens(self.module)]
        if not active:
            return self.__wrapped__(*args, **kwargs)
        ear = _Ear(self.module, args, kwargs, active)
        with ear:
            output = self.__wrapped__(*args, **kwargs)
        heard = ear.whole()
        for listener in active:
            listener.hears(self.module, args, kwargs, heard)
        return output

    def __deepcopy__(self, memo):
        twin = memo.get(id(self.module), self.module)
        return types.MethodType(type(twin).forward, twin)


class _Ear(TorchFunctionMode):
    """Sees what one layer's run asks of torch."""

    def __init__(self, module, args, kwargs, listeners):
        super().__init__()
        self.asked, self.listeners = (module, args, kwargs), listeners
        self.heard: list[Softmax] = []
        self._joined: list[tuple[int, ...]] = []

    def __torch_function__(self, func, kinds, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in WATCHED:  # nearly all there are
            return func(*args, **kwargs)
        if func is torch.cat:
            parts, dim = _given(args, kwargs, ("tensors", "dim"), (None, 0))
            self._joined.append(tuple(part.shape[dim] for part in parts))
        if func is FUSED:
            return self._fused(args, kwargs)
        result = func(*args, **kwargs)
        return self._open(result) if func in SOFTMAX else result

    def _fused(self, args, kwargs):
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
        q, k, v, mask, _, causal, scale = _given(args, kwargs, names, (None, None, None, None, 0.0, False, None))
        if causal:
            mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        if k.shape[1] != q.shape[1]:  # groups of heads share a key
            k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
        heard = Softmax(q, k, mask, q.shape[-1] ** -0.5 if scale is None else scale, joined=tuple(self._joined))
        self.heard.append(heard)
        factors = self._factors(heard)
        if factors is None:
            return FUSED(*args, **kwargs)
        return (probabilities(q, k, mask, heard.scale) * factors).to(v.dtype) @ v

    def _open(self, result: torch.Tensor):
        """A softmax in the open: (B, heads, n, m), or (rows, n, m) of B * heads rows, which may come in pieces."""
        if result.ndim not in (3, 4):
            return result
        before = sum(len(piece.result) for piece in self.heard if piece.q is None)
        self.heard.append(Softmax(None, None, result=result, joined=tuple(self._joined)))
        factors = self._factors(self.heard[-1])  # (B, 1, 1, m)
        if factors is None:
            return result
        if result.ndim == 3:
            factors = factors[:, 0].repeat_interleave(self.asked[0].heads, 0)[before : before + len(result)]
        return (result * factors).to(result.dtype)

    def whole(self) -> list[Softmax]:
        """What was heard, pieces put together."""
        pieces = [heard.result for heard in self.heard if heard.q is None and heard.result.ndim == 3]
        if not pieces:
            return self.heard
        heads = getattr(self.asked[0], "heads", 1)
        result = torch.cat(pieces).unflatten(0, (-1, heads))  # (B, heads, n, m)
        return [Softmax(None, None, result=result, joined=tuple(self._joined))]

    def _factors(self, heard: Softmax) -> torch.Tensor | None:
        found = None
        for listener in self.listeners:
            factors = listener.factors(*self.asked, heard)
            if factors is not None:
                found = factors if found is None else found * factors
        return found


def probabilities(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """softmax(scale q k^T + mask) in float32: (..., n, m), each row sums to 1."""
    with torch.autocast(q.device.type, enabled=False):
        logits = q.float() @ (k.float() * scale).transpose(-1, -2)  # (..., n, m)
        if mask is not None and mask.dtype == torch.bool:
            logits = logits.masked_fill(~mask, -torch.inf)
        elif mask is not None:
            logits = logits + mask.float()
        return logits.softmax(-1)


def _given(args: tuple, kwargs: dict, names: tuple, defaults: tuple) -> list:
    """Arguments by name, wherever they were given."""
    by_place = dict(zip(names, args, strict=False))
    return [by_place.get(name, kwargs.get(name, default)) for name, default in zip(names, defaults, strict=True)]
