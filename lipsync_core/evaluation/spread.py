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


SPREADS: Mapping[tuple[str, str], Spread] = {}
"""By scorer and mode, as ``tests/evaluation/test_spread.py`` measures it."""
