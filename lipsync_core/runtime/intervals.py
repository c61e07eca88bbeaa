"""Intervals of frames or seconds: runs of true values, and unions."""

from collections.abc import Iterable

import torch
from torch import Tensor


def true_runs(values: Tensor) -> Tensor:
    """Find the runs of true values.

    Args:
        values: (N,) bool.

    Returns:
        (R,2) first index and end (exclusive) of each run, rising.
    """
    padded = torch.nn.functional.pad(values.int(), (1, 1))
    return padded.diff().nonzero()[:, 0].view(-1, 2)


def merge_intervals(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge intervals that touch or overlap.

    Args:
        intervals: (first, end) pairs in any order.

    Returns:
        The union as rising intervals that lie apart.
    """
    merged: list[tuple[int, int]] = []
    for first, end in sorted(intervals):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged
