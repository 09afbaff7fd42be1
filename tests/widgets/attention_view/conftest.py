"""Records to look at: one whose maps are known by hand, and a real one, tiny."""

import pytest
import torch

from workbench import check

SIZE = (24, 36)
WORDS = ["a", "red", "dish", "beside", "a", "ball"]  # "red" and "dish" are one word


class FakeTokens:
    """Start, six tokens that are five words, end, padding."""

    kinds = ("start", *["word"] * 6, "end", "padding", "padding")
    spelled = (("a", [1]), ("reddish", [2, 3]), ("beside", [4]), ("a", [5]), ("ball", [6]))

    def columns(self, word, occurrence=None):
        if isinstance(word, int):
            return [word]
        found = [columns for text, columns in self.spelled if text == word]
        if not found:
            raise ValueError(f"word is {word!r}, expected one of the prompt")
        return [c for columns in found for c in columns] if occurrence is None else found[occurrence]


class FakeRecord:
    """Of steps 1, 2 and 4: a word's map is 0.1 on the left half and 0.3 on the right, times the step; a pixel looks at
    itself alone. Self-attention was kept in the second layer only.
    """

    size, parts = SIZE, ("text", "uncond")

    def __init__(self):
        self.steps = [1, 2, 4]
        self.asked: list[tuple] = []

    def grids(self):
        return {"down_blocks.0.attn2": (12, 18), "down_blocks.0.attn1": (12, 18), "up_blocks.0.attn2": (6, 9)}

    def keys(self):
        return {name: ("text",) if name.endswith("2") else ("image",) for name in self.grids()}

    def heads(self):
        return {"down_blocks.0.attn2": 2, "down_blocks.0.attn1": 4, "up_blocks.0.attn2": 3}

    def tokens(self, picture=0, part="text"):
        return FakeTokens()

    def need(self, step, head):
        if step not in (None, *self.steps):
            raise ValueError(f"step is {step}, expected one that is kept: {self.steps}.")
        if head is not None and head > 3:
            raise ValueError(f"head is {head}, expected a whole number from 0 to 3.")
        if head == 3:
            raise RuntimeError("down_blocks.0 is kept without heads and rows.")

    def token_map(self, word, step=None, layer=None, head=None, **options):
        self.asked.append((word, step, layer, head, options))
        self.need(step, head)
        found = torch.full(SIZE, 0.1)
        found[:, 18:] = 0.3
        return found * (step or 1)

    def query_map(self, point, step=None, layer=None, head=None, **options):
        self.asked.append((point, step, layer, head, options))
        self.need(step, head)
        found = torch.zeros(SIZE)
        found[min(int(point[1]), SIZE[0] - 1), min(int(point[0]), SIZE[1] - 1)] = 0.5
        return found

    def token_shares(self, point, step=None, layer=None, head=None, *, picture=0, part="text"):
        return list(zip("sabcdefghp", [0.4, 0.02, 0.1, 0.1, 0.02, 0.02, 0.04, 0.1, 0.1, 0.1], strict=True))

    def mass(self, where, queries=None, step=None, layer=None, head=None, *, picture=0, part="text"):
        check.mask(where, torch.empty(1, 3, *SIZE))
        return float((where * queries).sum() / queries.sum())


@pytest.fixture
def record():
    return FakeRecord()


@pytest.fixture
def photo():
    return torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hole():
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 6:18, 18:27] = 1  # a quarter of the right half
    return mask


@pytest.fixture
def references():
    """A record whose pixels also look at a reference."""
    record = FakeRecord()
    record.keys = lambda: {"down_blocks.0.attn1": ("image", "reference")}
    record.grids = lambda: {"down_blocks.0.attn1": (12, 18)}
    return record
