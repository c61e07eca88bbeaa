"""Compute agreement, strengths and bootstrap intervals of ratings and choices.

All functions are pure functions on arrays.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95


def krippendorff_alpha(ratings: Floats) -> float | None:
    """Return Krippendorff's alpha for ordinal values.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".

    Args:
        ratings: (raters, units), NaN for a missing rating; units with fewer than two ratings do not
            count.

    Returns:
        1 if all agree, 0 for agreement by chance, below 0 if worse than chance. None if alpha is
        0/0: nothing is rated twice, or all values are equal.
    """
    values = np.unique(ratings[~np.isnan(ratings)])
    counts = (ratings[:, :, None] == values).sum(0).astype(np.float64)  # (units, values)
    counts = counts[counts.sum(1) >= 2]
    if len(counts) == 0:
        return None
    # How often two ratings of one unit are the pair (c, k), each unit weighing as many values as it
    # has.
    weighted = counts / (counts.sum(1, keepdims=True) - 1)
    pairs = counts.T @ weighted - np.diag(weighted.sum(0))
    totals = pairs.sum(1)
    up_to = np.cumsum(totals) - totals / 2  # ranks: ratings below a value, and half of those at it
    distance = (up_to[:, None] - up_to) ** 2
    expected = float((np.outer(totals, totals) * distance).sum() / (totals.sum() - 1))
    return None if expected == 0 else 1 - float((pairs * distance).sum()) / expected


def bradley_terry(
    members: NDArray[np.bool_], wins: Floats, *, half_votes: float = 0.0, tolerance: float = 1e-10
) -> Floats:
    """Fit strengths p such that i is chosen before j with probability p_i / (p_i + p_j).

    In sets of more than two the probability is p_i over the sum (Luce's choice axiom, which for
    pairs is Bradley and Terry's model). The fit is the minorization of Hunter (2004), "MM
    algorithms for generalized Bradley-Terry models".

    Args:
        members: (S,M), whether a method belongs to a set.
        wins: (..., S, M), how often each method was chosen out of each set.
        half_votes: Votes added to either side of every pair, so that a method that always or never
            wins has a finite strength; 0 is maximum likelihood.
        tolerance: Limit at which the iteration stops.

    Returns:
        Strengths (..., M), summing to 1.
    """
    count = members.shape[1]
    if half_votes:
        pairs = np.array([(i, j) for i in range(count) for j in range(i)])
        among = np.zeros((len(pairs), count), bool)
        np.put_along_axis(among, pairs, True, 1)
        added = np.broadcast_to(half_votes * among, (*wins.shape[:-2], *among.shape))
        members, wins = np.concatenate([members, among]), np.concatenate([wins, added], axis=-2)
    # (S,M), (...,M), (...,S)
    sets, won, held = members.astype(np.float64), wins.sum(-2), wins.sum(-1)
    strength = np.full(won.shape, 1 / count)
    for _ in range(10_000):
        rivals = (held / (strength @ sets.T + 1e-300)) @ sets
        new = won / np.maximum(rivals, 1e-300)
        new /= np.maximum(new.sum(-1, keepdims=True), 1e-300)
        change, strength = float(np.abs(new - strength).max()), new
        if change < tolerance:
            break
    return strength


def draw_resamplings(
    raters: int, clips: int, count: int, seed: int = 0
) -> Iterator[tuple[Floats, Floats]]:
    """Draw with replacement how often each rater and each clip counts in a resampling.

    Args:
        raters: Number of raters R.
        clips: Number of clips C.
        count: Number of resamplings.
        seed: Seed of the draw.

    Yields:
        Counts of the raters (R,) and of the clips (C,).
    """
    chance = np.random.default_rng(seed)
    for _ in range(count):
        yield (
            np.bincount(chance.integers(raters, size=raters), minlength=raters).astype(np.float64),
            np.bincount(chance.integers(clips, size=clips), minlength=clips).astype(np.float64),
        )


def percentile_interval(samples: Floats) -> tuple[Floats, Floats]:
    """Return the percentile interval of ``LEVEL`` over the first axis.

    NaN, which marks a resampling without such a vote, is left out.

    Args:
        samples: (B, ...) values of B resamplings.

    Returns:
        The lower and the upper end, (...).
    """
    tail = 50 * (1 - LEVEL)
    with np.errstate(all="ignore"):
        low, high = np.nanpercentile(samples, [tail, 100 - tail], axis=0)
    return low, high


def resample_units(
    ratings: Floats, statistic: Callable[[Floats], float | None], clips: Ints, count: int
) -> Floats:
    """Compute a statistic of ratings for resampled clips.

    Raters are not resampled: a rater drawn twice would agree with themselves.

    Args:
        ratings: (raters, U), NaN for a missing rating.
        statistic: Function of ratings; None if it has no value.
        clips: (U,), the clip to which each unit belongs.
        count: Number of resamplings.

    Returns:
        The values of the resamplings.
    """
    names = np.unique(clips)
    of_clip = [np.flatnonzero(clips == name) for name in names]
    chance = np.random.default_rng(0)
    found = (
        statistic(
            ratings[
                :,
                np.concatenate([of_clip[i] for i in chance.integers(len(names), size=len(names))]),
            ]
        )
        for _ in range(count)
    )
    return np.array([np.nan if value is None else value for value in found])
