"""Random draws, seen as they happen."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

SOURCES = {
    getattr(torch, name)
    for name in ("randn", "rand", "randint", "normal", "randn_like", "rand_like", "randint_like", "randperm",
                 "bernoulli", "multinomial", "poisson")
}  # fmt: skip
SOURCES |= {getattr(torch.Tensor, name) for name in ("normal_", "uniform_", "random_", "bernoulli_")}


class Draws(TorchFunctionMode):
    """Notes every random tensor drawn while it is on.

    Attributes:
        unseeded: whether something was drawn from a default generator.
    """

    def __init__(self):
        super().__init__()
        self._found: list[torch.Tensor] = []
        self.unseeded = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in SOURCES:
            self._found.append(out.detach().clone())
            self.unseeded |= (kwargs or {}).get("generator") is None
        return out

    def taken(self) -> list[torch.Tensor]:
        """What was found since the last time."""
        found, self._found = self._found, []
        return found

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Off inside, where nothing is drawn and functions are called too often to look at each."""
        depth = torch._C._len_torch_function_stack()
        if not depth or torch._C._get_function_stack_at(depth - 1) is not self:
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()
