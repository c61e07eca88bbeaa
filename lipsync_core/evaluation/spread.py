"""How much sync scores of one clip differ when it is only encoded otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Largest less smallest score over encodings of one clip.

    Attributes:
        distance: Of the distances.
        confidence: Of the confidences.
        encodings: Number of encodings.
    """

    distance: float
    confidence: float
    encodings: int


# Two GRID sentences: 0.03 in distance, 0.05 in confidence. Five seconds of a small, drawn head:
# 0.12 both, which crf 35 costs; up to crf 28 it is 0.06.
SPREADS: Mapping[tuple[str, str], Spread] = {("judge", "exact"): Spread(0.13, 0.13, 9)}
"""By scorer and mode, as ``tests/evaluation/test_spread.py`` measures it."""
