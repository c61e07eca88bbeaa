"""Find the frame rate of pictures from the times at which they are shown."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

_CUSTOMARY = sorted(
    [Fraction(n) for n in (5, 6, 8, 10, 12, 15, 16, 20, 24, 25, 30, 48, 50, 60, 100, 120, 240)]
    + [Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120, 240)]
)
MAX_FPS = 1000
# Intervals that differ by less than this factor belong to one rate: it joins the 2 and 3 fields of
# telecined film (1.5), and parts a frame from two (2).
_SAME_RATE = 1.6
# The rate is the fastest that this share of the pictures and this share of the time has: pictures
# that stand still do not slow the others down, and a few that lie close together do not count.
_SHARE_OF_PICTURES = 0.2
_SHARE_OF_TIME = 0.05
_LONGEST_GAP = 3.5  # frames: between those, two at most were dropped


def rate_of_ticks(
    ticks: Sequence[int], time_base: Fraction, hints: Sequence[Fraction | None]
) -> Fraction | None:
    """Return the rate at which pictures move.

    It is the fastest rate that a good part of the pictures has, so that neither dropped frames nor
    a picture that stands still pulls it down, moved to a customary rate where that changes the time
    of no picture by half a frame.

    Args:
        ticks: Times of the pictures, rising, in units of ``time_base``.
        time_base: Seconds per tick.
        hints: What the file itself says, the best first; believed only if the times agree.

    Returns:
        Frames per second; None with fewer than two pictures, or above ``MAX_FPS``.
    """
    intervals = [later - earlier for earlier, later in pairwise(ticks)]
    moving = _fastest(intervals)
    if not moving:
        return None
    short, frames = _count(intervals, sum(moving) / len(moving))
    span = sum(short) * time_base
    measured = sum(frames) / span
    if measured > MAX_FPS:
        return None
    period = sum(short) / sum(frames)
    off = max(abs(one - n * period) for one, n in zip(short, frames, strict=True))
    even = off <= 1.5  # ticks, by rounding
    slack = time_base if even else 1 / (2 * measured)
    tolerance = measured * slack / span
    agreeing = [hint for hint in hints if hint is not None and abs(hint - measured) <= tolerance]
    plain = [hint for hint in agreeing if _is_plain(hint)]
    if plain:
        return plain[0]
    near = [rate for rate in _CUSTOMARY if abs(rate - measured) <= tolerance]
    if near:
        nearest = min(near, key=lambda rate: abs(rate - measured))
        whole = Fraction(round(nearest))
        return whole if whole in near else nearest  # 30 rather than 29.97
    return agreeing[0] if agreeing and even else _simplest(measured, tolerance)


def _fastest(intervals: Sequence[int]) -> list[int]:
    """The intervals of the fastest rate that enough of them have."""
    rising = sorted(intervals)
    total = sum(rising)
    first = int(len(rising) * _SHARE_OF_PICTURES)
    while first < len(rising):
        alike = _alike(rising, rising[first])
        if sum(alike) >= _SHARE_OF_TIME * total:
            return alike
        first = bisect_right(rising, max(alike[-1], rising[first]))
    return rising


def _alike(rising: Sequence[int], period: float) -> list[int]:
    """The intervals around ``period``, which moves to their mean until it stays."""
    alike: list[int] = []
    for _ in range(20):
        near = [one for one in rising if period / _SAME_RATE < one < period * _SAME_RATE]
        if near == alike:
            break
        alike, period = near, sum(near) / len(near)
    return alike


def _count(intervals: Sequence[int], period: float) -> tuple[list[int], list[int]]:
    """The intervals in which the picture moves, and how many frames each takes.

    Dropped frames count; long intervals, in which the picture stands still, are left out.
    """
    short: list[int] = []
    frames: list[int] = []
    for _ in range(2):
        short = [one for one in intervals if one < _LONGEST_GAP * period]
        frames = [math.floor(one / period + 0.5) for one in short]
        period = sum(short) / sum(frames)
    return short, frames


def _is_plain(rate: Fraction) -> bool:
    """Whether ``rate`` can be the set rate of a camera or program: n, n/1.001, n/2, n/3 or n/6."""
    return 0 < rate <= MAX_FPS and (
        (rate * 6).denominator == 1 or (rate * 1001 / 1000).denominator == 1
    )


def _simplest(value: Fraction, tolerance: Fraction) -> Fraction:
    """The fraction with the smallest denominator within ``tolerance`` of ``value``."""
    denominator = 1
    while abs(round(value * denominator) - value * denominator) > tolerance * denominator:
        denominator += 1
    return Fraction(round(value * denominator), denominator)
