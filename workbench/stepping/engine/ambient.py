"""What PyTorch keeps for a thread and a computation depends on: swapped, so that two can take turns in one thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch.overrides import TorchFunctionMode

DEFAULT_GENERATORS = threading.RLock()
"""Held by whoever sets PyTorch's default generators for a while: all threads of a process share them."""


@dataclass
class Ambient:
    """Grad and inference mode, autocast, default generators and function modes of one computation.

    Args:
        inference, grad: whether inference mode and grad mode are on.
        autocast: kind of device -> (on, dtype).
        nesting: how many autocast blocks are open.
        random: states of the default generators, "cpu" and the number of each GPU in use.
        modes: function modes that the computation itself has entered and not left.
    """

    inference: bool
    grad: bool
    autocast: dict[str, tuple[bool, torch.dtype]]
    nesting: int
    random: dict[str | int, torch.Tensor]
    modes: list[TorchFunctionMode] = field(default_factory=list)

    @classmethod
    def now(cls) -> "Ambient":
        """What holds at the moment."""
        kinds = ["cpu"] + ([torch.accelerator.current_accelerator().type] if torch.accelerator.is_available() else [])
        autocast = {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds}
        return cls(torch.is_inference_mode_enabled(), torch.is_grad_enabled(), autocast, _nesting(), _random())

    def seeded(self, seed: int) -> "Ambient":
        """The same with default generators that begin with a seed, outside of any block."""
        devices = {key: "cpu" if key == "cpu" else torch.device("cuda", key) for key in self.random}
        states = {key: torch.Generator(device).manual_seed(seed).get_state() for key, device in devices.items()}
        return replace(self, random=states, nesting=0, modes=[])

    @contextmanager
    def on(self) -> Iterator[None]:
        """Inside, all this holds. At the end what it has become is noted for the next time, and all is as before."""
        with DEFAULT_GENERATORS:
            outside, depth = Ambient.now(), torch._C._len_torch_function_stack()
            try:
                with torch.inference_mode(self.inference):  # its end brings back the grad mode too
                    self._set()
                    torch.set_grad_enabled(self.grad)
                    for mode in self.modes:
                        torch._C._push_on_torch_function_stack(mode)
                    try:
                        yield
                    finally:
                        now = Ambient.now()
                        self.inference, self.grad, self.autocast = now.inference, now.grad, now.autocast
                        self.nesting, self.random = now.nesting, now.random
                        above = torch._C._len_torch_function_stack() - depth
                        self.modes = [torch._C._pop_torch_function_stack() for _ in range(above)][::-1]
            finally:
                outside._set()

    def _set(self) -> None:
        for kind, (on, dtype) in self.autocast.items():
            torch.set_autocast_enabled(kind, on)
            torch.set_autocast_dtype(kind, dtype)
        for _ in range(_nesting(), self.nesting):
            torch.autocast_increment_nesting()
        for _ in range(self.nesting, _nesting()):
            torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()  # weights may be trained in between
        for key, state in self.random.items():
            if key == "cpu":
                torch.set_rng_state(state)
            else:
                torch.cuda.set_rng_state(state, key)


def _nesting() -> int:
    nesting = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return nesting


def _random() -> dict[str | int, torch.Tensor]:
    states: dict[str | int, torch.Tensor] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states |= dict(enumerate(torch.cuda.get_rng_state_all()))
    return states
