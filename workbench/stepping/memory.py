"""Where recorded steps are kept: in memory up to a limit, beyond it in a temporary folder."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from workbench.stepping.structure import mapped, tensors


class Entry:
    """One step's record, in memory or in a file.

    Attributes:
        bytes: what its tensors take in memory.
    """

    def __init__(self, record):
        self._record, self._file = record, None
        self._folder: tempfile.TemporaryDirectory | None = None
        self.bytes = sum({t.data_ptr(): t.nbytes for t in tensors(record) if not t.is_meta}.values())

    @property
    def spilled(self) -> bool:
        """Whether the record is in a file."""
        return self._file is not None

    def get(self):
        """The record; read back if it was put away."""
        if self._file is None:
            return self._record
        kept = load_file(self._file)
        return mapped(self._record, lambda stub: stub if stub.is_meta else kept[str(int(stub))].to(stub.device))

    def spill(self, folder: tempfile.TemporaryDirectory) -> None:
        """Puts the tensors into a file and keeps the record's frame, a number in the place of each tensor.

        The entry holds on to the folder: it stays as long as any entry has a file in it.
        """
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

        frame = mapped(self._record, put)
        file = Path(folder.name) / f"{id(self):x}.safetensors"
        save_file(kept, file)
        self._folder = folder
        self._record, self._file = frame, file


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
