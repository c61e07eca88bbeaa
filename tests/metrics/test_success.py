"""The automatic success rate and the scores of silent dubs, by hand."""

import math
from dataclasses import replace

import pytest

from lipsync_core.metrics.success import (
    RULES,
    RULES_VERSION,
    Attempt,
    SilentSync,
    SuccessRate,
    SyncDiscrepancy,
)

GOOD = Attempt(face=1.0, moved=True, offset_frames=0)


def test_every_rule_can_be_broken_and_is_counted_once() -> None:
    attempts = {
        "finished": Attempt(False),
        "whole": replace(GOOD, missing_seconds=0.5),
        "finite": replace(GOOD, finite=False),
        "face": replace(GOOD, face=0.5),
        "moved": replace(GOOD, moved=False),
        "in_sync": replace(GOOD, offset_frames=None),
    }
    assert list(attempts) == list(RULES)
    rate = SuccessRate()
    for name, attempt in attempts.items():
        assert attempt.broken_rule() == name
        rate.update(attempt)
    for offset in (-1, 0):
        rate.update(replace(GOOD, offset_frames=offset))
    found = rate.compute()
    assert found.rate == pytest.approx(2 / 8) and found.count == 8
    assert found.broken == dict.fromkeys(RULES, 1) and found.version == RULES_VERSION
    assert SuccessRate().compute().rate is None


def test_lips_decide_where_the_scorer_has_no_verdict_and_only_there() -> None:
    unsure = replace(GOOD, offset_frames=None)
    assert unsure.broken_rule() == "in_sync"
    assert replace(unsure, truth=0.8, truth_lag=-1).broken_rule() is None
    assert replace(unsure, truth=0.4, truth_lag=0).broken_rule() == "in_sync"
    assert replace(unsure, truth=0.8, truth_lag=2).broken_rule() == "in_sync"
    assert replace(GOOD, offset_frames=5, truth=0.9, truth_lag=0).broken_rule() == "in_sync"


def test_scores_of_silent_dubs_are_averaged() -> None:
    silent = SilentSync()
    for confidence, distance in ((1.0, 9.0), (2.0, 8.0), (math.nan, 8.0)):
        silent.update(confidence, distance)
    found = silent.compute()
    assert (found.confidence, found.distance, found.count) == (1.5, 8.5, 2)


def test_discrepancy_by_hand() -> None:
    metric = SyncDiscrepancy()
    metric.update(7.0, 6.0, own_sound=True)
    assert metric.compute() is None
    metric.update(5.0, 7.0, own_sound=False)
    metric.update(6.0, 8.0, own_sound=False)
    assert metric.compute() == pytest.approx((1.5 + 1.5) / 2)
