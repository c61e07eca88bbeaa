"""Judge automatically whether dubs succeeded, and compare scores of silent and of cross dubs."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .aggregate import mean

RULES_VERSION = 1
"""Of the rules of ``Attempt``: raised when one changes; rates of two versions do not compare."""

RULES: Mapping[str, str] = {
    "finished": "the method gave a video",
    "whole": "it has all frames but at most 0.2 s of them",
    "finite": "no figure is infinite or not a number",
    "face": "a face is seen in 90 % of its frames",
    "moved": "its mouth moved (deviation of the mouth aspect ratio 0.01 or more)",
    "in_sync": "the scorer's offset is at most 1 frame; where it has no verdict, the lips follow "
    "the speaker of the sound (correlation 0.5 or more, at most 1/25 s early or late)",
}
"""What a dub must do to count as a success, in the order in which it is checked."""

_LEAST_FACE, _MOST_MISSING_SECONDS, _MOST_OFFSET = 0.9, 0.2, 1
_LEAST_TRUTH = 0.5  # of a correlation: unrelated mouths reach 0.2 to 0.4 at their best lag


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is known of one dub; what is None breaks the rule that needs it.

    Attributes:
        finished: Whether the method gave a video.
        missing_seconds: By how much it is shorter than it should be.
        finite: Whether all figures are numbers.
        face: Share of its frames in which landmarks find the face, in [0,1].
        moved: Whether its mouth moved.
        offset_frames: Its offset by the sync scorer, None without a verdict.
        truth: Correlation of its lips with those of the speaker (``MouthFollowing``), None without
            that speaker's video.
        truth_lag: Lag of ``truth`` in 1/25 s.
    """

    finished: bool = True
    missing_seconds: float | None = 0.0
    finite: bool = True
    face: float | None = None
    moved: bool | None = None
    offset_frames: int | None = None
    truth: float | None = None
    truth_lag: int | None = None

    def broken_rule(self) -> str | None:
        """Return the name of the first rule of ``RULES`` that it breaks; None for a success."""
        if not self.finished:
            return "finished"
        missing = self.missing_seconds
        kept = {
            "whole": missing is not None and missing <= _MOST_MISSING_SECONDS,
            "finite": self.finite,
            "face": self.face is not None and self.face >= _LEAST_FACE,
            "moved": bool(self.moved),
            "in_sync": self._is_in_sync(),
        }
        return next((name for name, kept_it in kept.items() if not kept_it), None)

    def _is_in_sync(self) -> bool:
        if self.offset_frames is not None:
            return abs(self.offset_frames) <= _MOST_OFFSET
        if self.truth is None or self.truth_lag is None:
            return False
        return self.truth >= _LEAST_TRUTH and abs(self.truth_lag) <= _MOST_OFFSET


@dataclass(frozen=True, slots=True)
class SuccessFigures:
    """Automatic success rate.

    Attributes:
        rate: Share of attempts that break no rule, in [0,1], higher is better; None without any.
        count: Number of attempts.
        broken: How many broke each rule first, by its name.
        version: ``RULES_VERSION``.
    """

    rate: float | None
    count: int
    broken: Mapping[str, int]
    version: int = RULES_VERSION


class SuccessRate:
    """Automatic success rate: share of pairs whose dub was finished and breaks no rule.

    Higher is better; range [0,1]. Papers of 2025 and 2026 (X-Dub 2512.25066, OmniSync 2505.21448,
    UniSync 2603.03882) let people judge success and print no rules; these rules are our reading,
    stated in ``RULES`` and versioned. Read it beside the rate of real video: a scorer without a
    verdict on short or silent clips costs that some, too.
    """

    def __init__(self) -> None:
        self._broken: list[str | None] = []

    def update(self, attempt: Attempt) -> None:
        """Add one pair."""
        self._broken.append(attempt.broken_rule())

    def compute(self) -> SuccessFigures:
        """Return the rate and what was broken."""
        rate = mean([float(rule is None) for rule in self._broken])
        counts = Counter(rule for rule in self._broken if rule is not None)
        broken = {name: counts[name] for name in RULES if counts[name]}
        return SuccessFigures(rate, len(self._broken), broken)


@dataclass(frozen=True, slots=True)
class SilentSyncFigures:
    """Scores of dubs with silence against the source's own sound.

    Attributes:
        confidence: LSE-C_S, mean confidence; lower is better: the old lips do not leak.
        distance: LSE-D_S, mean distance; higher is better.
        count: Number of dubs.
    """

    confidence: float | None
    distance: float | None
    count: int


@dataclass(slots=True)
class SilentSync:
    """LSE-C_S and LSE-D_S: sync of a dub made with silence against the sound of its source.

    Formula: dub a talking person with silence, and score the result with the source's own sound;
    the means over clips. In sync still, the old lips show. Source: arXiv 2511.08613, which prints
    2.57 and 3.64 (C_S) and 8.98 and 8.15 (D_S) for Wav2Lip. Range of SyncNet's figures, or of the
    scorer that was used: only SyncNet in mode reference gives LSE.
    """

    _scores: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def update(self, confidence: float, distance: float) -> None:
        """Add the scores of one silent dub; those that are no numbers do not count."""
        if math.isfinite(confidence) and math.isfinite(distance):
            self._scores.append((confidence, distance))

    def compute(self) -> SilentSyncFigures:
        """Return the means."""
        return SilentSyncFigures(
            mean([c for c, _ in self._scores]),
            mean([d for _, d in self._scores]),
            len(self._scores),
        )


class SyncDiscrepancy:
    """LSD: how far the sync of dubs with own sound and with that of others differ.

    Formula: (|C_own - C_other| + |D_own - D_other|) / 2 of the mean confidences and distances of
    both kinds of dub; range 0 and more, lower is better: a method that copies the source's lips is
    good with the source's sound alone. Source: arXiv 2511.08613 (LSD). Our reading: the two kinds
    of pair are dubs with the sound of the same clip and with that of another, one reference choice.
    """

    def __init__(self) -> None:
        self._scores: dict[bool, list[tuple[float, float]]] = {True: [], False: []}

    def update(self, confidence: float, distance: float, *, own_sound: bool) -> None:
        """Add the scores of one dub; those that are no numbers do not count."""
        if math.isfinite(confidence) and math.isfinite(distance):
            self._scores[own_sound].append((confidence, distance))

    def compute(self) -> float | None:
        """Return the discrepancy; None unless there are dubs of both kinds."""
        if not all(self._scores.values()):
            return None
        means = [
            [math.fsum(side) / len(scores) for side in zip(*scores, strict=True)]
            for scores in self._scores.values()
        ]
        return sum(abs(own - other) for own, other in zip(*means, strict=True)) / 2
