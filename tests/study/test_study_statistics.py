"""Agreement and strengths against published worked examples and against cases that can be solved by
hand."""

import numpy as np
import pytest

from lipsync_core.study.statistics import (
    bradley_terry,
    draw_resamplings,
    krippendorff_alpha,
    percentile_interval,
)

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: 4 observers, 12
# units, missing values.
OBSERVERS = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
# Agresti (2002), "Categorical Data Analysis", section 10.6: American League East 1987, wins of the
# row over the column: Milwaukee, Detroit, Toronto, New York, Boston, Cleveland, Baltimore.
BASEBALL = """
0 7 9 7 7 9 11
6 0 7 5 11 9 9
4 6 0 7 7 8 12
6 8 6 0 6 7 10
6 2 6 7 0 7 12
4 4 5 6 6 0 6
2 4 1 3 1 7 0
"""


def table(text: str) -> np.ndarray:
    return np.array(
        [
            [np.nan if cell == "." else float(cell) for cell in row.split()]
            for row in text.strip().split("\n")
        ]
    )


def pairwise(wins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(members, wins) of a table of wins."""
    count = len(wins)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    members, won = np.zeros((len(pairs), count), bool), np.zeros((len(pairs), count))
    for row, (i, j) in enumerate(pairs):
        members[row, [i, j]] = True
        won[row, i], won[row, j] = wins[i, j], wins[j, i]
    return members, won


def test_alpha_is_that_of_krippendorffs_example() -> None:
    assert krippendorff_alpha(table(OBSERVERS)) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_two_values_solved_by_hand() -> None:
    # Units (1,1), (1,2), (2,2): coincidences 2, 1+1, 2 and totals 3, 3; observed 2/6, expected
    # 18/30.
    assert krippendorff_alpha(np.array([[1.0, 1, 2], [1, 2, 2]])) == pytest.approx(
        1 - (2 / 6) / (18 / 30)
    )


def test_alpha_is_one_for_agreement_near_zero_for_chance_and_none_where_nothing_varies() -> None:
    units = np.random.default_rng(0).integers(1, 6, 400).astype(float)
    assert krippendorff_alpha(np.tile(units, (14, 1))) == pytest.approx(1)
    chance = np.random.default_rng(1).integers(1, 6, (14, 400)).astype(float)
    assert abs(krippendorff_alpha(chance) or 1) < 0.02
    assert krippendorff_alpha(np.full((3, 5), 4.0)) is None
    assert krippendorff_alpha(np.array([[1.0, np.nan], [np.nan, 2.0]])) is None


def test_alpha_sees_only_the_order_of_the_values() -> None:
    ratings = table(OBSERVERS)
    assert krippendorff_alpha(np.exp(ratings)) == pytest.approx(krippendorff_alpha(ratings))


def test_strengths_are_those_of_agrestis_baseball_example() -> None:
    strengths = bradley_terry(*pairwise(table(BASEBALL)))
    over_baltimore = np.log(strengths / strengths[-1])[:-1]
    assert over_baltimore.round(2).tolist() == [1.58, 1.44, 1.29, 1.25, 1.11, 0.68]
    assert strengths.sum() == pytest.approx(1)


def test_two_methods_have_their_shares_as_strengths() -> None:
    members, wins = np.array([[True, True]]), np.array([[[30.0, 10.0]], [[1.0, 3.0]], [[0.0, 5.0]]])
    assert bradley_terry(members, wins) == pytest.approx(
        np.array([[0.75, 0.25], [0.25, 0.75], [0, 1]])
    )
    assert bradley_terry(members, wins, half_votes=0.5)[2] == pytest.approx([0.5 / 6, 5.5 / 6])


def test_choices_among_all_have_their_shares_as_strengths() -> None:
    assert bradley_terry(np.ones((1, 3), bool), np.array([[60.0, 30, 10]])) == pytest.approx(
        [0.6, 0.3, 0.1]
    )


def test_pairs_and_triples_of_one_truth_agree() -> None:
    truth = np.array([0.5, 0.3, 0.2])
    members = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]], bool)
    wins = 1000 * members * truth / (members @ truth)[:, None]
    assert bradley_terry(members, wins) == pytest.approx(truth, abs=1e-6)


def test_the_interval_covers_the_mean_of_crossed_raters_and_clips() -> None:
    """Means of votes with own leanings of raters and clips: 95 % intervals hold the truth about
    that often; those that take votes for independent would about half the time."""
    chance, raters, clips, held = np.random.default_rng(2), 14, 12, 0
    for trial in range(200):
        votes = (
            chance.normal(0, 0.5, (raters, 1))
            + chance.normal(0, 0.5, (1, clips))
            + chance.normal(0, 0.5, (raters, clips))
        )
        means = [
            r @ votes @ c / (r.sum() * c.sum())
            for r, c in draw_resamplings(raters, clips, 300, seed=trial)
        ]
        low, high = percentile_interval(np.array(means))
        held += bool(low <= 0 <= high)
    assert 0.88 <= held / 200 <= 1
