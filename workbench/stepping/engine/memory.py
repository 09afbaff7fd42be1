"""Where things are kept: steps in memory up to a limit, beyond it in a temporary folder; of pictures the last used."""

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from workbench.stepping.engine.structure import mapped, tensors


class Entry:
    """One step's record, in memory or in a file.

    Attributes:
        bytes: what its tensors take in memory.
    """

    def __init__(self, record):
        # set in one go: runs in other threads may share the entry
        self._kept: tuple[object, Path | None, tempfile.TemporaryDirectory | None] = record, None, None
        self.bytes = sum({t.data_ptr(): t.nbytes for t in tensors(record) if not t.is_meta}.values())

    @property
    def spilled(self) -> bool:
        """Whether the record is in a file."""
        return self._kept[1] is not None

    def get(self):
        """The record; read back if it was put away."""
        record, file, _ = self._kept
        if file is None:
            return record
        kept = load_file(file)
        return mapped(record, lambda stub: stub if stub.is_meta else kept[str(int(stub))].to(stub.device))

    def spill(self, folder: tempfile.TemporaryDirectory) -> None:
        """Puts the tensors into a file and keeps the record's frame, a number in the place of each tensor.

        The entry holds on to the folder: it stays as long as any entry has a file in it.
        """
        record, file, _ = self._kept
        if file is not None:
            return
        kept: dict[str, torch.Tensor] = {}
        numbers: dict[tuple, int] = {}

        def put(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.is_meta:
                return tensor
            place = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
            if place not in numbers:
                numbers[place] = len(kept)
                kept[str(len(kept))] = tensor.detach().cpu().contiguous().clone()
            return torch.tensor(numbers[place], device=tensor.device)

        frame = mapped(record, put)
        file = Path(folder.name) / f"{id(self):x}.safetensors"
        save_file(kept, file)
        self._kept = frame, file, folder


class Shelf(Sequence):
    """Records in the order of their steps; beyond ``limit`` bytes the oldest go to a temporary folder.

    Shelves of branches share the entries of what they have in common.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._entries: list[Entry] = []
        self._folder: tempfile.TemporaryDirectory | None = None
        self._held = 0
        self._next = 0  # the first entry that may still have to be put away

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return self._part(self._entries[i])
        return self._entries[i].get()

    def __add__(self, other: "Shelf") -> "Shelf":
        return self._part([*self._entries, *other._entries])

    def first(self, n: int) -> "Shelf":
        """The first n records, as they are now, whatever is added here later."""
        return self._part(self._entries[:n])

    def extend(self, records: Iterable) -> None:
        """Adds records at the end."""
        new = records._entries if isinstance(records, Shelf) else [Entry(record) for record in records]
        self._entries += new
        self._held += sum(entry.bytes for entry in new)
        self._make_room()

    @property
    def bytes(self) -> int:
        """What is held in memory."""
        return sum(entry.bytes for entry in self._entries if not entry.spilled)

    def _part(self, entries: list[Entry]) -> "Shelf":
        part = Shelf(self.limit)
        part._entries = list(entries)
        return part

    def _make_room(self) -> None:
        """Puts entries away, the oldest first; the last always stays."""
        while self._held > self.limit and self._next < len(self._entries) - 1:
            entry = self._entries[self._next]
            if not entry.spilled:
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="workbench-run-")
                entry.spill(self._folder)
            self._next += 1
            self._held -= entry.bytes


class Recent:
    """Values that take time to make; the ``limit`` that were asked for last are kept.

    Iterating gives the keys of those that are.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._kept: OrderedDict[Hashable, object] = OrderedDict()  # the one asked for last is at the end
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator:
        return iter(list(self._kept))

    def get(self, key: Hashable, make: Callable[[], object]):
        """The value of a key; ``make()`` where it is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()  # outside of the lock: it may take long, or ask for others
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > self.limit:
                self._kept.popitem(last=False)
        return value
