"""One number per frame, gathered: what most of the metrics are made of."""

import math
from collections.abc import Sequence
from typing import Self


class FrameValues:
    """Numbers of single frames. Every frame is measured by itself and sums are exact (``fsum``), so
    neither batches nor the order of ``merge`` change a result by one bit; a frame costs one float.
    """

    def __init__(self) -> None:
        self.values: list[float] = []

    def merge(self, other: Self) -> None:
        """Take the numbers of another one, of other clips or another worker, as well."""
        if type(other) is not type(self):
            raise ValueError(
                f"cannot merge {type(other).__name__} into {type(self).__name__}; wanted the same metric"
            )
        self.values += other.values


def mean(values: Sequence[float]) -> float | None:
    """None where there are none."""
    return math.fsum(values) / len(values) if values else None


def median(values: Sequence[float]) -> float | None:
    """The middle number, or the mean of the middle two; None where there are none."""
    ranked, half = sorted(values), len(values) // 2
    return (
        mean(ranked[half : half + 1] if len(ranked) % 2 else ranked[half - 1 : half + 1])
        if ranked
        else None
    )
