"""Measure in the benchmark how far each method's lips follow the new speech and the old lips."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import LipSyncError
from ..image.landmarks import mouth_opening
from ..media import probe, read_audio
from ..metrics.lip_shapes import LipDistance, MouthDivergence, ProcrustesDisparity
from ..metrics.mouth import (
    FIGURES,
    RATE,
    MouthFollowing,
    MouthFollowingMetric,
    Role,
    compare_openings,
    resample_openings,
)
from ..metrics.mouth_baselines import loudness_openings
from ..pipelines.mouth_following import LANDMARKS, SAME_VIDEO, MouthMeter, frame_times
from ..types import FaceTrack, Frames
from .tables import bootstrap_mean, format_markdown

REFERENCES = ("loudness alone",)
"""Mouths that are series of openings, of which no video is made."""

_LAG_SECONDS = 0.2  # of the true speaker's video beyond the end of the dub
_KEPT = 4  # landmarks of earlier videos: methods of one pair follow each other
_REASONS = 5  # that are listed under the table

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """What a method was given.

    Attributes:
        source: The video that was dubbed.
        sound: Where the sound comes from: a video of its speaker, or a file without a picture.
        person: The face, in dub and source, from frame 0.
        fps: Rate of dub and source.
        frames: Reads the frames of the source that were dubbed.
    """

    source: Path
    sound: Path
    person: FaceTrack
    fps: Fraction
    frames: Callable[[], Iterable[Frames]]


class LipJudge:
    """Compares the lips of dubs with those of the speaker of the audio, and with the source's."""

    def __init__(self, meter: MouthMeter) -> None:
        self._meter = meter
        self._known: dict[tuple[str, Path, int], Tensor | str] = {}

    def compare(self, made: Tensor, original: Original) -> dict[str, Any]:
        """Compare one dub.

        Args:
            made: (N,102,2) landmarks of the dub's frames from its first (``MouthMeter.along``).
            original: What it was made of.

        Returns:
            The figures of ``MouthFollowing`` by name, None where they cannot be had, "reasons" for
            these, and "landmarks".
        """
        metric, missing = MouthFollowingMetric(), dict[Role, str]()
        old = self.source_points(original)
        metric.update(mouth_opening(made), frame_times(original.fps, len(made)), "dub")
        metric.update(mouth_opening(old), frame_times(original.fps, len(old)), "source")
        true = self._truth(original)
        if isinstance(true, str):
            missing["truth"] = true
        else:
            times = self._meter.times(original.sound, len(true))
            metric.update(mouth_opening(true), times, "truth")
        found = metric.compute(missing=missing)
        if original.source == original.sound:
            found = _without(found, dict.fromkeys(("leak", "chance", "old", "new"), SAME_VIDEO))
        return {**found.to_values(), "landmarks": LANDMARKS}

    def shapes(self, made: Tensor, original: Original) -> dict[str, float | bool | None]:
        """Measure how far the mouth of a dub moves, and its shapes against the true speaker's.

        Args:
            made: See ``compare``.
            original: What it was made of.

        Returns:
            "face" (share of frames with landmarks), "mar_divergence", "moved", and, against the
            speaker of the sound at the same moments, "pd", "pcld" and "csld"
            (``metrics.lip_shapes``); None where they cannot be had.
        """
        movement, disparity, distance = MouthDivergence(), ProcrustesDisparity(), LipDistance()
        movement.update(made)
        true = self._truth(original)
        if not isinstance(true, str) and len(true) and len(made):
            at = frame_times(original.fps, len(made)) + 1e-9
            shown = torch.searchsorted(self._meter.times(original.sound, len(true)), at, right=True)
            beside = true[(shown - 1).clamp(0, len(true) - 1)]
            disparity.update(made, beside)
            distance.update(made, beside)
        pcld, csld = distance.compute()
        seen = ~made.isnan().flatten(1).any(1)
        return {
            "face": float(seen.double().mean()) if len(seen) else 0.0,
            "mar_divergence": movement.compute(),
            "moved": movement.moved(),
            "pd": disparity.compute(),
            "pcld": pcld,
            "csld": csld,
        }

    def references(self, original: Original) -> dict[str, dict[str, Any]]:
        """Compare the mouth without a video: one opened by loudness alone.

        Args:
            original: Input of a dub.

        Returns:
            The same as ``compare``, by the names of ``REFERENCES``.
        """
        true, old = self._truth(original), self.source_points(original)
        missing: dict[Role, str] = {"truth": true} if isinstance(true, str) else {}
        wanted = None
        if not isinstance(true, str):
            times = self._meter.times(original.sound, len(true))
            wanted = resample_openings(mouth_opening(true), times)
        source = resample_openings(mouth_opening(old), frame_times(original.fps, len(old)))
        loud = loudness_openings(read_audio(original.sound))[: round(_seconds(original) * RATE)]
        by_loudness = _without(
            compare_openings(loud, wanted, source, missing=missing),
            {"movement": "loudness is in no distance between eyes"},
        )
        if original.source == original.sound:  # two equal series have no fit of their own
            same: dict[str, str] = dict.fromkeys(("leak", "chance", "old", "new"), SAME_VIDEO)
            by_loudness = _without(by_loudness, same)
        (name,) = REFERENCES
        return {name: {**by_loudness.to_values(), "landmarks": LANDMARKS}}

    def source_points(self, original: Original) -> Tensor:
        """Find the landmarks of the source's frames, (N,102,2), NaN without a face."""
        length = len(original.person.visible)
        found = self._remembered(
            "source",
            original.source,
            length,
            lambda: self._meter.along(original.frames(), original.person),
        )
        assert not isinstance(found, str)
        return found

    def _truth(self, original: Original) -> Tensor | str:
        """Return landmarks of the video that the audio comes from, or why there are none."""
        sound, seconds = original.sound, _seconds(original) + _LAG_SECONDS

        def look() -> Tensor | str:
            try:
                if probe(sound).still:
                    return "the sound comes from a file that shows a still picture"
                return self._meter.landmarks(sound, seconds=seconds)
            except LipSyncError as error:
                return f"the sound's file shows no face: {error}"

        return self._remembered("truth", sound, round(1000 * seconds), look)

    def _remembered(
        self, role: str, path: Path, length: int, make: Callable[[], Tensor | str]
    ) -> Tensor | str:
        key = (role, path, length)
        if key not in self._known:
            while len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]
            self._known[key] = make()
        return self._known[key]


def _seconds(original: Original) -> float:
    return len(original.person.visible) / float(original.fps)


def _without(found: MouthFollowing, reasons: Mapping[str, str]) -> MouthFollowing:
    absent = {name: reason for name, reason in reasons.items() if getattr(found, name) is not None}
    return replace(found, **dict.fromkeys(absent), reasons={**found.reasons, **absent})


_COLUMNS = {
    "truth": "truth ↑",
    "leak": "leak",
    "chance": "chance",
    "old": "old, 0",
    "new": "new, 1",
    "movement": "movement, 1",
    "closure_recall": "closures found ↑",
    "closure_precision": "closures right ↑",
}
assert set(_COLUMNS) == set(FIGURES) - {"truth_lag"}


def format_lips_section(methods: Mapping[str, Sequence[Result]]) -> str:
    """Write the table of lips.

    Args:
        methods: Results of the pairs that succeeded, by the names of the methods.

    Returns:
        Markdown: a heading, the table with means and 95 % bootstrap intervals over pairs, what its
            columns mean, and why figures are missing.
    """
    found = {name: [result["mouth"] for result in results] for name, results in methods.items()}
    for reference in REFERENCES:
        found[reference] = [
            result["mouth_references"][reference]
            for results in methods.values()
            for result in results
            if result.get("mouth_references")
        ]
    rows = [
        [name, str(len(_values(figures, "truth"))), *_cells(figures)]
        for name, figures in found.items()
    ]
    table = format_markdown(["method", "n", *_COLUMNS.values()], rows)
    return "\n\n".join(["## Whose lips", table, "\n".join([*_MEANINGS, *_missing(found)])])


_MEANINGS = (
    f"- Mouth openings by {LANDMARKS}; n: pairs whose sound comes from a video with a face.",
    "- truth: correlation with the lips of the speaker of the sound, the largest within 3/25 s; "
    "leak: with the old lips; chance: of the old lips with the speaker's, so that a good dub leaks "
    "no more than chance.",
    "- old, new: share of old lips and speaker's in a fit by both; movement: the dub's over the "
    "speaker's; closures: the speaker's that the dub has, and the dub's that the speaker has, "
    "within 1/25 s.",
    "- loudness alone: a mouth as open as the sound is loud, of which there is no video.",
)


def _cells(figures: Sequence[Result]) -> list[str]:
    return [str(bootstrap_mean(_values(figures, name))) for name in _COLUMNS]


def _values(figures: Sequence[Result], name: str) -> list[float]:
    return [float(figure[name]) for figure in figures if figure[name] is not None]


def _missing(found: Mapping[str, Sequence[Result]]) -> list[str]:
    """List why figures are missing, most frequent reasons first."""
    counts = Counter[tuple[str, str]]()
    for method, figures in found.items():
        for reasons in (figure["reasons"] for figure in figures):
            for reason in dict.fromkeys(reasons.values()):
                names = ", ".join(name for name, why in reasons.items() if why == reason)
                counts[method, f"{names}: {' '.join(reason.split())}"] += 1
    lines = [
        f"- {method}, null for {count} of {len(found[method])}: {line}"
        for (method, line), count in counts.most_common()
    ]
    return (
        [*lines[:_REASONS], f"- and {len(lines) - _REASONS} more, in results.jsonl"]
        if len(lines) > _REASONS
        else lines
    )
