"""What a training run remembers of its weights: some snapshots, within a bound, close together about the cursor."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Snapshot:
    """Everything needed to go on from after ``i`` updates; on the CPU, never written to.

    Args:
        i: updates done.
        weights: what is trained, by name.
        moments: of the optimiser, by the same names; empty before the first update.
        buffers: what the model keeps beside its weights (statistics of batch normalisation, tables).
    """

    i: int
    weights: dict[str, torch.Tensor] = field(repr=False)
    moments: dict[str, dict[str, torch.Tensor]] = field(repr=False)
    buffers: dict[str, torch.Tensor] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """What it takes in memory; buffers that never change are shared, and are counted in each."""
        tensors = [*self.weights.values(), *self.buffers.values()]
        tensors += [value for moments in self.moments.values() for value in moments.values()]
        return sum(tensor.nbytes for tensor in tensors)

    def digest(self) -> str:
        """BLAKE2b of names and bytes of the weights."""
        return digest(self.weights)


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """BLAKE2b (16 bytes, hex) of names, types, shapes and bytes, in the order of the names."""
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


class Snapshots:
    """Snapshots by number of updates, thinned out when they take more than is allowed.

    A quarter of them stands next to the ``focus``, step by step. Of the others, over the bound, the one goes whose loss
    costs least: g^2 / (d + 1) is smallest, with g the gap it would leave and d its distance from the focus. So gaps
    grow slowly with the distance, and n snapshots leave none larger than a few times (steps / n). The first and the
    newest never go, whatever the bound: from the first everything can be computed again, from the newest one steps on.

    Args:
        memory: bytes.
        every: snapshots only at multiples of this, and at the newest step.
    """

    def __init__(self, memory: int, every: int = 1):
        self.memory, self.every = memory, every
        self.nbytes = 0
        self._kept: dict[int, Snapshot] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, i: int) -> bool:
        return i in self._kept

    def __getitem__(self, i: int) -> Snapshot:
        return self._kept[i]

    @property
    def steps(self) -> list[int]:
        """After which updates there is one, in order."""
        return sorted(self._kept)

    def add(self, snapshot: Snapshot) -> None:
        """Takes one in; nothing goes before `thin`."""
        if snapshot.i in self._kept:
            self.nbytes -= self._kept[snapshot.i].nbytes
        self._kept[snapshot.i] = snapshot
        self.nbytes += snapshot.nbytes

    def before(self, i: int) -> Snapshot:
        """The last one at or before ``i``."""
        return self._kept[max(k for k in self._kept if k <= i)]

    def thin(self, focus: int, newest: int) -> None:
        """Drops what is not wanted, then what is too much."""
        first = min(self._kept)
        for k in [k for k in self._kept if k % self.every and k not in (first, newest)]:
            self._drop(k)
        while self.nbytes > self.memory:
            steps = self.steps
            inner = [k for k in range(1, len(steps) - 1) if steps[k] != newest]
            if not inner:
                return
            inner = [k for k in inner if abs(steps[k] - focus) > len(steps) // 4] or inner
            cost = {steps[k]: (steps[k + 1] - steps[k - 1]) ** 2 / (abs(steps[k] - focus) + 1) for k in inner}
            self._drop(min(cost, key=cost.get))

    def _drop(self, i: int) -> None:
        self.nbytes -= self._kept.pop(i).nbytes
