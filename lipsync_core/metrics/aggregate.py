"""Collect one number per frame and aggregate them; base of most metrics."""

import math
from collections.abc import Sequence
from typing import Self


class FrameValues:
    """Collects one number per frame.

    Every frame is measured by itself and sums are exact (``fsum``), so neither batches nor the
    order of ``merge`` change a result by one bit; a frame costs one float.

    Attributes:
        values: The numbers so far.
    """

    def __init__(self) -> None:
        self.values: list[float] = []

    def merge(self, other: Self) -> None:
        """Add the numbers of the same metric on other clips or in another worker."""
        if type(other) is not type(self):
            raise ValueError(
                f"cannot merge {type(other).__name__} into {type(self).__name__}; "
                "expected the same metric"
            )
        self.values += other.values


def mean(values: Sequence[float]) -> float | None:
    """Compute the exact mean, or None without values."""
    return math.fsum(values) / len(values) if values else None


def median(values: Sequence[float]) -> float | None:
    """Compute the middle number, or the mean of the middle two; None without values."""
    ranked, half = sorted(values), len(values) // 2
    return (
        mean(ranked[half : half + 1] if len(ranked) % 2 else ranked[half - 1 : half + 1])
        if ranked
        else None
    )
