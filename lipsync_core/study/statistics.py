"""What ratings and choices say: agreement, strengths, and how sure one can be.

Pure functions on arrays.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95


def krippendorff_alpha(ratings: Floats) -> float | None:
    """Krippendorff's alpha for ordinal values (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability").

    ratings: (raters, units), NaN where somebody did not rate; units with fewer than two ratings do
    not count. 1: all agree; 0: as by chance; below: worse. None where alpha is 0/0: nothing is
    rated twice, or all values are equal.
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
    """Strengths p (..., M), summing to 1: i is chosen before j with probability p_i / (p_i + p_j).

    members: (S,M), which methods stood together; pairs, or more of them, where the chance is p_i
    over the sum (Luce's choice axiom, which for pairs is Bradley and Terry's model). wins: (..., S,
    M), how often each was chosen out of each set. half_votes: votes added to either side of every
    pair, so that a method that always or never wins has a finite strength; 0 is maximum likelihood.
    Found by the minorisation of Hunter (2004), "MM algorithms for generalized Bradley-Terry
    models".
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
    """How often each rater (R,) and each clip (C,) is drawn when both are drawn anew, with
    replacement."""
    chance = np.random.default_rng(seed)
    for _ in range(count):
        yield (
            np.bincount(chance.integers(raters, size=raters), minlength=raters).astype(np.float64),
            np.bincount(chance.integers(clips, size=clips), minlength=clips).astype(np.float64),
        )


def percentile_interval(samples: Floats) -> tuple[Floats, Floats]:
    """The percentile interval of ``LEVEL`` over the first axis.

    NaN, where a resampling had no such vote, left out.
    """
    tail = 50 * (1 - LEVEL)
    with np.errstate(all="ignore"):
        low, high = np.nanpercentile(samples, [tail, 100 - tail], axis=0)
    return low, high


def resample_units(
    ratings: Floats, statistic: Callable[[Floats], float | None], clips: Ints, count: int
) -> Floats:
    """``statistic`` of ``ratings`` (raters, units) with the clips (U,), to which the units belong,
    drawn anew. Raters are not drawn: one that is drawn twice would agree with itself."""
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
