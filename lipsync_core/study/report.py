"""Reveal the methods and compute opinion scores, preference and agreement, with intervals.

Only this module links votes to the names of the methods.

Intervals are percentiles of a bootstrap that resamples both raters and clips (the "pigeonhole"
bootstrap of Owen 2007). Each rater judges many clips and each clip is judged by many raters, so
votes are not independent; Student's t assumes that they are, and its intervals would be too narrow.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .measures import MeasureAgreement, Unit, compare_measures, read_measures
from .statistics import (
    LEVEL,
    Floats,
    Ints,
    bradley_terry,
    draw_resamplings,
    krippendorff_alpha,
    percentile_interval,
    resample_units,
)
from .store import QUESTIONS, StudyError, open_study

RESAMPLINGS = 2000
HALF_VOTES = 0.5  # as if every pair had met once more, and drawn


@dataclass(frozen=True, slots=True)
class Estimate:
    """Hold a figure and its 95 % interval.

    Attributes:
        value: The figure; None if there are no votes.
        low: Lower end; None if there are too few raters or clips for an interval.
        high: Upper end, like ``low``.
    """

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class MethodReport:
    """Hold the results of one method.

    Attributes:
        method: Name of the method.
        ratings: Number of votes behind ``opinions``.
        opinions: Mean score 1..5 for each question.
        shown: Number of screens that the method was on.
        preferred: Number of screens on which it was preferred.
        share: ``preferred`` over ``shown``.
        strength: Bradley-Terry strength, the probability of being preferred if all methods stood
            side by side.
    """

    method: str
    ratings: int
    opinions: Mapping[str, Estimate]
    shown: int
    preferred: int
    share: Estimate
    strength: Estimate


@dataclass(frozen=True, slots=True)
class StudyReport:
    """Hold the results of a study.

    Attributes:
        title: Title of the study.
        raters: Number of raters.
        finished: Number of raters who answered everything.
        tasks: Number of screens.
        votes: Number of answered screens.
        unplayable: Number of answered screens without a judgement.
        methods: Results of each method.
        agreement: Krippendorff's ordinal alpha for each question.
        places: How often each place, from the left, was preferred; uneven counts mean that raters
            favor a side.
        measures: How far automatic measures agree with the ratings, if any were given.
    """

    title: str
    raters: int
    finished: int
    tasks: int
    votes: int
    unplayable: int
    methods: tuple[MethodReport, ...]
    agreement: Mapping[str, Estimate]
    places: tuple[int, ...]
    measures: tuple[MeasureAgreement, ...] = ()

    def to_json(self) -> str:
        """Return the report as JSON text."""
        method = {
            "level": LEVEL,
            "intervals": "bootstrap over raters and clips",
            "resamplings": RESAMPLINGS,
        }
        method |= {
            "agreement": "Krippendorff's alpha, ordinal; interval over clips",
            "half_votes": HALF_VOTES,
        }
        return json.dumps(
            {**asdict(self), "statistics": method}, indent=2, ensure_ascii=False, allow_nan=False
        )

    def to_markdown(self) -> str:
        """Return a table of the methods and one of the agreement, with a sentence on the votes."""
        heads = ["method", *QUESTIONS, "preferred", "strength"]
        lines = [
            f"# {self.title}",
            "",
            self._sentence(),
            "",
            _row(heads),
            _row(["---"] * len(heads)),
        ]
        for m in self.methods:
            opinions = [_figure(m.opinions[q], 2) for q in QUESTIONS]
            share = f"{m.preferred} of {m.shown}: {_figure(m.share, 2)}"
            lines.append(
                _row([m.method.replace("|", "\\|"), *opinions, share, _figure(m.strength, 2)])
            )
        lines += ["", _row(["agreement", *QUESTIONS]), _row(["---"] * 4)]
        lines.append(
            _row(["Krippendorff's alpha", *(_figure(self.agreement[q], 2) for q in QUESTIONS)])
        )
        if self.measures:
            lines += ["", _row(["measure", "clips", *QUESTIONS]), _row(["---"] * 5)]
            lines += [_row(_measure_cells(one)) for one in self.measures]
            lines += ["", "Spearman's rank correlation with the mean ratings of the clips."]
        return "\n".join([*lines, ""])

    def _sentence(self) -> str:
        unplayable = (
            f", {self.unplayable} of them skipped because a clip did not play"
            if self.unplayable
            else ""
        )
        places = ", ".join(str(n) for n in self.places)
        return (
            f"{self.finished} of {self.raters} raters finished; {self.votes} of {self.tasks} "
            f"screens are answered{unplayable}. Preferred by place from the left: {places}. In "
            "brackets the 95 % interval (bootstrap over raters and clips; of alpha over clips). "
            "Scores run from 1 to 5; the strength (Bradley-Terry) is the chance to be preferred "
            "with all methods side by side."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Votes:
    """Hold every rating and every choice.

    ``ratings`` has the columns rater, clip, method, question and value; ``choices`` has the columns
    rater, clip, set and method.
    """

    methods: tuple[str, ...]
    ratings: Ints  # (N,5)
    choices: Ints  # (K,4)
    members: Sequence[tuple[int, ...]]  # of each set
    raters: int
    clips: int


def report_study(folder: Path, *, measures: Path | None = None) -> StudyReport:
    """Report the votes in a study's folder so far.

    The folder is only read; the study may go on.

    Args:
        folder: Folder of the study.
        measures: Automatic measures of the same clips (``read_measures``), to be compared with the
            ratings.

    Returns:
        The results with their intervals.

    Raises:
        StudyError: There are no votes, there is no study, or no measure is of its clips.
    """
    values = None if measures is None else read_measures(measures)
    with open_study(folder) as db:
        votes = _read(db)
        clips = [name for (name,) in db.execute("SELECT name FROM clip ORDER BY id")]
        (title,) = db.execute("SELECT title FROM study").fetchone()
        counts = {name: _count(db, query) for name, query in _COUNTS.items()}
        widest = _count(db, "SELECT max(place) + 1 FROM shown")
        places = [
            _count(db, f"SELECT count(*) FROM vote WHERE preferred = {place}")
            for place in range(widest)
        ]
    if not len(votes.choices):
        raise StudyError(f"{folder} has no votes yet; serve it with: lipsync study serve {folder}")
    return StudyReport(
        title=title,
        methods=_methods(votes),
        agreement=_agreement(votes),
        places=tuple(places),
        measures=() if values is None else compare_measures(_mean_ratings(votes, clips), values),
        **counts,
    )


_COUNTS = {
    "raters": "SELECT count(*) FROM rater",
    "finished": "SELECT count(*) FROM rater WHERE NOT EXISTS "
    "(SELECT 1 FROM task WHERE task.rater = rater.id "
    "AND task.id NOT IN (SELECT task FROM vote))",
    "tasks": "SELECT count(*) FROM task",
    "votes": "SELECT count(*) FROM vote",
    "unplayable": "SELECT count(*) FROM vote WHERE preferred IS NULL",
}


def _count(db: sqlite3.Connection, query: str) -> int:
    return db.execute(query).fetchone()[0]


def _read(db: sqlite3.Connection) -> _Votes:
    names = tuple(name for (name,) in db.execute("SELECT name FROM method ORDER BY id"))
    ratings = db.execute(
        "SELECT task.rater, media.clip, media.method, rating.question, rating.value FROM rating "
        "JOIN task ON task.id = rating.task JOIN shown USING (task, place) JOIN media ON media.id "
        "= shown.media"
    ).fetchall()
    screens: dict[str, tuple[int, int, list[int], int]] = {}
    for task, rater, clip, method, chosen in db.execute(
        "SELECT task.id, task.rater, media.clip, media.method, vote.preferred = shown.place FROM "
        "vote JOIN task ON task.id = vote.task JOIN shown ON shown.task = task.id JOIN media ON "
        "media.id = shown.media WHERE vote.preferred IS NOT NULL"
    ):
        _, _, shown, winner = screens.get(task, (rater, clip, [], -1))
        screens[task] = (rater, clip, [*shown, method], method if chosen else winner)
    members = sorted({tuple(sorted(shown)) for _, _, shown, _ in screens.values()})
    choices = [
        (r, c, members.index(tuple(sorted(shown))), winner)
        for r, c, shown, winner in screens.values()
    ]
    return _Votes(
        names,
        np.array([(r, c, m, QUESTIONS.index(q), v) for r, c, m, q, v in ratings], np.int64).reshape(
            -1, 5
        ),
        np.array(choices, np.int64).reshape(-1, 4),
        members,
        _count(db, "SELECT count(*) FROM rater"),
        _count(db, "SELECT count(*) FROM clip"),
    )


def _methods(votes: _Votes) -> tuple[MethodReport, ...]:
    """Compute each method's figures.

    Only raters and clips with votes are resampled: the others carry no information.
    """
    voted = np.unique(votes.choices[:, 0]), np.unique(votes.choices[:, 1])
    sizes = (votes.raters, votes.clips)
    figures = _figures(votes, np.ones(sizes[0]), np.ones(sizes[1]))
    drawn: list[tuple[Floats, Floats, Floats]] = []
    for counts in draw_resamplings(len(voted[0]), len(voted[1]), RESAMPLINGS):
        weights = [np.zeros(size) for size in sizes]
        for weight, who, count in zip(weights, voted, counts, strict=True):
            weight[who] = count
        drawn.append(_figures(votes, *weights))
    opinions, shares = (
        _estimates(figures[k], np.stack([d[k] for d in drawn]), voted) for k in (0, 1)
    )
    members = _members(votes)
    shown = members[votes.choices[:, 2]].sum(0)
    strength = bradley_terry(members, figures[2], half_votes=HALF_VOTES)
    strengths = _estimates(
        np.where(shown > 0, strength, np.nan),
        bradley_terry(
            members, np.stack([d[2] for d in drawn]), half_votes=HALF_VOTES, tolerance=1e-6
        ),
        voted,
    )
    won = np.bincount(votes.choices[:, 3], minlength=len(votes.methods))
    return tuple(
        MethodReport(
            name,
            int((votes.ratings[:, 2] == m).sum()) // len(QUESTIONS),
            {q: opinions[m * len(QUESTIONS) + k] for k, q in enumerate(QUESTIONS)},
            int(shown[m]),
            int(won[m]),
            shares[m],
            strengths[m],
        )
        for m, name in enumerate(votes.methods)
    )


def _members(votes: _Votes) -> NDArray[np.bool_]:
    return np.array([[m in group for m in range(len(votes.methods))] for group in votes.members])


def _figures(votes: _Votes, of_rater: Floats, of_clip: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean opinions (M*Q,), preference shares (M,) and weighted wins (S,M).

    Each vote weighs as its rater times its clip; figures without any weight are NaN.
    """
    m, q, s = len(votes.methods), len(QUESTIONS), len(votes.members)
    rater, clip, method, question, value = votes.ratings.T
    weight = of_rater[rater] * of_clip[clip]
    cell = method * q + question
    total, sums = (np.bincount(cell, w, minlength=m * q) for w in (weight, weight * value))
    rater, clip, group, chosen = votes.choices.T
    weight = of_rater[rater] * of_clip[clip]
    wins = np.bincount(group * m + chosen, weight, minlength=s * m).reshape(s, m)
    shown = np.bincount(group, weight, minlength=s) @ _members(votes)
    with np.errstate(all="ignore"):
        return sums / total, wins.sum(0) / shown, wins.astype(np.float64)


def _estimates(values: Floats, samples: Floats, voted: tuple[Ints, Ints]) -> list[Estimate]:
    """Combine ``values`` (K,) with the intervals of ``samples`` (B,K).

    There is no interval from a single rater or clip.
    """
    known = np.where(np.isnan(values), 0.0, samples)  # those without votes have no interval either
    low, high = percentile_interval(known)
    alone = min(len(voted[0]), len(voted[1])) < 2
    return [
        Estimate(None, None, None)
        if np.isnan(v)
        else Estimate(float(v), *((None, None) if alone else (float(a), float(b))))
        for v, a, b in zip(values, low, high, strict=True)
    ]


def _mean_ratings(votes: _Votes, clips: Sequence[str]) -> dict[str, dict[Unit, float]]:
    """Compute the mean rating of each clip of each method, by question."""
    given: dict[str, dict[Unit, list[int]]] = {question: {} for question in QUESTIONS}
    rows: list[list[int]] = votes.ratings.tolist()
    for _, clip, method, question, value in rows:
        unit = votes.methods[method], Path(clips[clip]).stem
        given[QUESTIONS[question]].setdefault(unit, []).append(value)
    return {
        question: {unit: sum(values) / len(values) for unit, values in units.items()}
        for question, units in given.items()
    }


def _agreement(votes: _Votes) -> dict[str, Estimate]:
    """Compute alpha for each question over all units (a clip of a method)."""
    result: dict[str, Estimate] = {}
    count = len(votes.methods)
    for k, question in enumerate(QUESTIONS):
        table = np.full((votes.raters, votes.clips * count), np.nan)
        rater, clip, method, _, value = votes.ratings[votes.ratings[:, 3] == k].T
        table[rater, clip * count + method] = value
        alpha = krippendorff_alpha(table)
        rated = np.flatnonzero((~np.isnan(table)).any(0))
        clips = rated // count
        if alpha is None or len(np.unique(clips)) < 2:
            result[question] = Estimate(alpha, None, None)
            continue
        low, high = percentile_interval(
            resample_units(table[:, rated], krippendorff_alpha, clips, RESAMPLINGS)[:, None]
        )
        result[question] = Estimate(alpha, float(low[0]), float(high[0]))
    return result


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _measure_cells(one: MeasureAgreement) -> list[str]:
    cells = [one.measure.replace("|", "\\|"), str(one.count)]
    for question in QUESTIONS:
        low, high = one.intervals[question] or (None, None)
        cells.append(_figure(Estimate(one.correlations[question], low, high), 2))
    return cells


def _figure(estimate: Estimate, digits: int) -> str:
    if estimate.value is None:
        return "none"
    text = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
