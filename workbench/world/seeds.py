"""Which seeds are for training, for validation, for the benchmark: the three never meet."""

from workbench import check

SPLITS = {
    "train": range(0, 10_000_000),
    "validation": range(10_000_000, 11_000_000),
    "benchmark": range(20_000_000, 20_100_000),
}
"""Name -> the seeds that belong to it."""


def split_seeds(split: str, first: int, count: int) -> range:
    """``count`` seeds of a split, from its ``first`` one on (counted within the split).

    Raises:
        ValueError: no such split, or it has not so many.

    Example:
        >>> split_seeds("validation", 0, 3)
        range(10000000, 10000003)
    """
    whole = SPLITS[check.choice(split, "split", SPLITS)]
    check.integer(first, "first", 0, len(whole) - 1)
    check.integer(count, "count", 1, len(whole) - first)
    return whole[first : first + count]
