"""What recording and editing share: finding a target's layers, listening to them, leaving them as they were."""

from collections.abc import Iterable

import torch

from workbench import check
from workbench.lenses.attention.calls import Call, call_of
from workbench.lenses.attention.hearing import Post, Softmax
from workbench.lenses.attention.layouts import Layout, layout_of
from workbench.lenses.attention.tokens import Tokens, tokens_of

DENOISERS = ("unet", "transformer", "transformer_2")
NO_DENOISER = ("vae", "movq", "vqgan", "controlnet", "encoder", "prior")
BLOCKS = ("down", "mid", "up")


class Listening:
    """A context in which the chosen attention layers of a target are heard. Base of the recorder and of the editor.

    Attributes:
        layers: names of the layers listened to.
        pipe, run: the target's; None where it is no pipeline and no run.
    """

    _alone: "Listening | None" = None  # while it computes a step once more, nobody else listens

    def __init__(self, target, layers, steps, tokens=None):
        self.run = target if hasattr(target, "branch") and hasattr(target, "pipe") else None
        self.pipe = target.pipe if self.run is not None else (None if isinstance(target, torch.nn.Module) else target)
        self._roots = roots(target if self.pipe is None else self.pipe)
        self._chosen = selectors(layers)
        self._steps = step_numbers(steps)
        self._tokens = tokens if tokens is None or isinstance(tokens, Tokens) else Tokens.named(tokens)
        everywhere = layers_of(self._roots)
        self._names = {module: name for name, module in everywhere.items() if chosen(self._chosen, name, everywhere)}
        if not self._names:
            raise ValueError(
                f"no attention layer goes with layers={layers!r}, expected a name, part of one, "
                f"{', '.join(BLOCKS)} or a grid (h, w). There are {len(everywhere)}: {', '.join(everywhere)}."
            )
        self.layers = list(self._names.values())
        self._everywhere = everywhere
        self._undo: list = []
        self._depth = 0
        self._call: Call | None = None
        self._counted = 0
        self._grids: set = set()

    def __enter__(self):
        self._depth += 1
        if self._depth == 1:
            try:
                for root in self._roots.values():
                    handle = root.register_forward_pre_hook(self._begins, with_kwargs=True)
                    self._undo.append(handle.remove)
                for module in self._names:
                    post = Post.attach(module, self)
                    self._undo.append(lambda post=post: post.detach(self))
            except BaseException:
                self._leave()
                raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._depth -= 1
        if self._depth == 0:
            called, self._counted = self._counted > 0, 0
            self._leave()
            if called and kind is None:
                self._check_heard()

    def _leave(self) -> None:
        self._depth, self._call = 0, None
        while self._undo:
            self._undo.pop()()

    def _begins(self, module, args, kwargs) -> None:
        """The denoiser is called."""
        self._call = None
        if Listening._alone not in (None, self):
            return
        call = call_of(module, args, kwargs, self.pipe)
        self._counted += 1
        call.step = self._counted if call.step is None else call.step
        self._call = call

    def listens(self, module) -> bool:
        """Whether a layer is of interest in this step."""
        return self._call is not None and (self._steps is None or self._call.step in self._steps)

    def hears(self, module, args: tuple, kwargs: dict, heard: list[Softmax]) -> None:
        """A layer has run."""

    def factors(self, module, args: tuple, kwargs: dict, heard: Softmax) -> torch.Tensor | None:
        """What to change a layer by."""

    def layout(self, module, args: tuple, kwargs: dict, heard: Softmax) -> Layout | None:
        """How a layer's softmax is made up; None where it is not among those chosen after all."""
        layout = layout_of(module, args, kwargs, heard, self._call)
        if layout is None:
            return None
        self._grids.add(layout.queries.grid)
        return layout if chosen(self._chosen, self._names[module], self._everywhere, layout.queries.grid) else None

    def tokens_for(self, call: Call, part: str, picture: int, length: int) -> Tokens:
        """Names of the text axis, as given or as the pipeline makes them."""
        if self._tokens is None:
            return tokens_of(call, part, picture, length)
        if len(self._tokens) != length:
            raise ValueError(f"tokens has {len(self._tokens)} names, expected {length}: one a column of the text.")
        return self._tokens

    @property
    def _seen(self) -> str:
        """Grids that layers ran on, in words."""
        return ", ".join(sorted(map(str, self._grids))) or "none, no softmax could be seen"

    def _check_heard(self) -> None:
        """Fails where nothing was heard though the denoiser ran."""


def roots(target) -> dict[str, torch.nn.Module]:
    """The denoisers of a target by name; a module is its own.

    Raises:
        TypeError: the target is neither a pipeline, nor a run, nor a module; or has no attention.
    """
    if isinstance(target, torch.nn.Module):
        found = {"": target}
    elif isinstance(getattr(target, "components", None), dict):
        parts = {name: part for name, part in target.components.items() if isinstance(part, torch.nn.Module)}
        found = {name: parts[name] for name in DENOISERS if name in parts}
        if not found:
            found = {name: part for name, part in parts.items() if not any(other in name for other in NO_DENOISER)}
            found = {name: part for name, part in found.items() if layers_of({"": part})}
    else:
        raise TypeError(f"the target is a {type(target).__name__}, expected a pipeline, a DenoisingRun or a module.")
    if not any(_is_attention(module) for network in found.values() for module in network.modules()):
        raise ValueError(
            f"{type(target).__name__} has no attention layers, expected modules with to_q and to_k in it, or in a "
            f"component named {', '.join(DENOISERS)} or otherwise."
        )
    return found


def layers_of(found: dict[str, torch.nn.Module]) -> dict[str, torch.nn.Module]:
    """Attention layers by name; the denoiser's own name comes first where there are several."""
    return {
        ".".join(part for part in (root if len(found) > 1 else "", name) if part) or type(module).__name__: module
        for root, network in found.items()
        for name, module in network.named_modules()
        if _is_attention(module)
    }


def _is_attention(module: torch.nn.Module) -> bool:
    return hasattr(module, "to_q") and hasattr(module, "to_k")


def selectors(layers) -> list[str | tuple[int, int]] | None:
    """What layers are chosen by, as a list; None chooses all."""
    if layers is None:
        return None
    one = isinstance(layers, str) or (isinstance(layers, tuple) and all(isinstance(n, int) for n in layers))
    found = [layers] if one else list(layers) if isinstance(layers, Iterable) else [layers]
    for selector in found:
        if isinstance(selector, tuple):
            check.size(selector, "layers")
        elif not isinstance(selector, str):
            raise TypeError(f"layers holds {selector!r}, expected names, parts of names, blocks or grids (h, w).")
    return found


def chosen(found: list | None, name: str, names: Iterable[str], grid="unknown") -> bool:
    """Whether a layer is among those chosen; of one whose grid is not known yet, whether it may be."""
    if found is None:
        return True
    return any(
        grid in ("unknown", selector) if isinstance(selector, tuple) else _named(selector, name, names)
        for selector in found
    )


def _named(selector: str, name: str, names: Iterable[str]) -> bool:
    if selector in names:
        return name == selector
    if selector in BLOCKS:
        return any(part.startswith((f"{selector}_block", f"{selector}block")) for part in name.split("."))
    return selector in name


def step_numbers(steps) -> set[int] | None:
    """Steps as numbers from 1; None takes all."""
    if steps is None:
        return None
    found = steps if isinstance(steps, Iterable) and not isinstance(steps, str) else [steps]
    return {check.integer(step, "steps", 1) for step in found}
