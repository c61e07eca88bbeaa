"""Compare automatic measures of clips with what raters said of the same clips."""

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..evaluation.tables import rank_correlation
from ..runtime.text_file import read_text_file
from .statistics import Floats, percentile_interval
from .store import QUESTIONS, StudyError

Unit = tuple[str, str]
"""Names of a method and of a clip without its suffix."""

_RESAMPLINGS = 1000
_LEAST = 6  # clips of methods with both: ranks of fewer mean nothing


@dataclass(frozen=True, slots=True)
class MeasureAgreement:
    """How far a measure orders clips as people do.

    Attributes:
        measure: Its name.
        count: Clips of methods with both the measure and ratings.
        correlations: Spearman's rank correlation with the mean rating, for each question, in
            [-1,1]; below 0 for measures of which less is better. None if it has no value.
        intervals: 95 % interval of each (bootstrap over clips), or None.
    """

    measure: str
    count: int
    correlations: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float] | None]


def read_measures(path: Path) -> dict[str, dict[Unit, float]]:
    """Read measures of clips.

    Args:
        path: ``results.jsonl`` of ``lipsync bench``, whose pairs are the clips 00000, 00001 ...; or
            a CSV file with the columns method and clip, and one for each measure.

    Returns:
        Values by measure, and by method and clip.

    Raises:
        StudyError: If the file cannot be read so.
    """
    try:
        text = read_text_file(path)
        rows = _bench_rows(text) if path.suffix.lower() in (".jsonl", ".json") else _csv_rows(text)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise StudyError(
            f"{path} holds no measures ({error!r}); expected results.jsonl of lipsync bench, or "
            "CSV with the columns method, clip and one for each measure"
        ) from error
    found: dict[str, dict[Unit, float]] = {}
    for unit, values in rows.items():
        for name, value in values.items():
            if math.isfinite(value):
                found.setdefault(name, {})[unit] = value
    if not found:
        raise StudyError(f"{path} holds no number for any clip; expected at least one measure")
    return found


def _bench_rows(text: str) -> dict[Unit, dict[str, float]]:
    rows: dict[Unit, dict[str, float]] = {}
    for line in filter(str.strip, text.splitlines()):
        outcome = json.loads(line)
        if outcome["result"] is None:
            continue
        arguments, result = outcome["arguments"], outcome["result"]
        flat = {**result, **{f"mouth {k}": v for k, v in (result.get("mouth") or {}).items()}}
        rows[arguments["method"], f"{arguments['pair']:05}"] = {
            name: float(value)
            for name, value in flat.items()
            if isinstance(value, (int, float)) and name not in _NO_MEASURES
        }
    return rows


_NO_MEASURES = frozenset({"frames", "tracks", "search_frames", "without_face", "made_in_seconds"})


def _csv_rows(text: str) -> dict[Unit, dict[str, float]]:
    rows: dict[Unit, dict[str, float]] = {}
    for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
        unit = row.pop("method"), PurePosixPath(row.pop("clip")).stem
        rows[unit] = {name: float(value) for name, value in row.items() if value and value.strip()}
    return rows


def compare_measures(
    ratings: Mapping[str, Mapping[Unit, float]], measures: Mapping[str, Mapping[Unit, float]]
) -> tuple[MeasureAgreement, ...]:
    """Correlate each measure with the ratings of each question.

    Args:
        ratings: Mean ratings by question, and by method and clip.
        measures: Values as of ``read_measures``.

    Returns:
        The agreements, those that agree most with "sync" first, whatever their sign.

    Raises:
        StudyError: If no measure is of the clips that were rated.
    """
    found: list[MeasureAgreement] = []
    for name, values in measures.items():
        units = sorted(set(values) & set(ratings[QUESTIONS[0]]))
        if len(units) < _LEAST:
            continue
        ours = [values[unit] for unit in units]
        correlations: dict[str, float | None] = {}
        intervals: dict[str, tuple[float, float] | None] = {}
        for question in QUESTIONS:
            theirs = [ratings[question][unit] for unit in units]
            correlations[question] = rank_correlation(ours, theirs)
            clips = [clip for _, clip in units]
            intervals[question] = _interval(np.array(ours), np.array(theirs), clips)
        found.append(MeasureAgreement(name, len(units), correlations, intervals))
    if not found:
        raise StudyError(
            f"no measure is of {_LEAST} rated clips or more; expected the study's names of methods "
            "and clips beside the measures"
        )
    first = QUESTIONS[0]
    return tuple(sorted(found, key=lambda one: -abs(one.correlations[first] or 0)))


def _interval(ours: Floats, theirs: Floats, clips: list[str]) -> tuple[float, float] | None:
    """Resample whole clips, because the methods of one clip are alike."""
    names = sorted(set(clips))
    if len(names) < 2:
        return None
    of_clip = [np.flatnonzero(np.array(clips) == name) for name in names]
    chance = np.random.default_rng(0)
    drawn: list[float] = []
    for _ in range(_RESAMPLINGS):
        at = np.concatenate([of_clip[i] for i in chance.integers(len(names), size=len(names))])
        value = _spearman(ours[at], theirs[at])
        drawn.append(value)
    samples = np.array(drawn)
    if np.isnan(samples).all():
        return None
    low, high = percentile_interval(samples[~np.isnan(samples)][:, None])
    return float(low[0]), float(high[0])


def _spearman(first: Floats, second: Floats) -> float:
    """As ``rank_correlation``, faster; NaN where one side is all equal."""
    a, b = (_ranks(values) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0 else math.nan


def _ranks(values: Floats) -> Floats:
    """Ranks, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse].astype(np.float64)
