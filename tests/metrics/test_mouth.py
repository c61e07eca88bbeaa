"""Measures of lips against the new speech and the old lips, on series of openings whose answer is
known."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lipsync_core.metrics.mouth import (
    FIGURES,
    MouthFollowing,
    MouthFollowingMetric,
    align,
    compare_closures,
    compare_openings,
    correlate_openings,
    fit_old_and_new,
    resample_openings,
)
from lipsync_core.metrics.mouth_baselines import copy_openings, freeze_openings, loudness_openings
from lipsync_core.types import Audio

COUNT = 100


def waves(*, shift: int = 0, period: float = 20.0, count: int = COUNT) -> Tensor:
    """(count,) openings of a mouth that opens and closes evenly, ``shift`` openings late."""
    return 0.1 + 0.1 * torch.sin(
        2 * math.pi * (torch.arange(count, dtype=torch.float64) - shift) / period
    )


TRUTH, SOURCE = waves(), waves(period=25.0)  # both whole periods in 100 openings: uncorrelated


def test_the_true_speaker_follows_themselves_and_nobody_else() -> None:
    found = compare_openings(TRUTH, TRUTH, SOURCE)
    assert found.truth == pytest.approx(1, abs=1e-9) and found.truth_lag == 0
    assert found.new == pytest.approx(1, abs=1e-6) and found.old == pytest.approx(0, abs=1e-6)
    assert (
        found.movement == pytest.approx(1) and found.closure_recall == found.closure_precision == 1
    )
    assert found.leak is not None and found.leak == found.chance and abs(found.leak) < 0.2
    assert found.reasons == {}


def test_the_old_lips_are_told_from_the_new() -> None:
    found = compare_openings(SOURCE, TRUTH, SOURCE)
    assert found.leak == pytest.approx(1, abs=1e-9) and found.truth == found.chance
    assert found.old is not None and found.old == pytest.approx(1, abs=0.05)
    assert found.new is not None and abs(found.new) < 0.05


def test_a_sum_of_both_is_taken_apart() -> None:
    """Of series without correlation and of deviation 1, 0.6 and 0.8 of them has deviation 1 and
    these coefficients."""
    mixed = 0.6 * SOURCE + 0.8 * TRUTH
    old, new = fit_old_and_new(mixed, TRUTH, SOURCE, 0)
    assert old == pytest.approx(0.6, abs=1e-6) and new == pytest.approx(0.8, abs=1e-6)
    assert correlate_openings(mixed, TRUTH) == pytest.approx(0.8, abs=1e-9)
    assert correlate_openings(mixed, SOURCE) == pytest.approx(0.6, abs=1e-9)


@pytest.mark.parametrize("late", [-3, -1, 2, 3])
def test_a_shift_within_three_openings_is_found_and_forgiven(late: int) -> None:
    found = compare_openings(waves(shift=late), TRUTH, SOURCE)
    assert found.truth == pytest.approx(1, abs=1e-9) and found.truth_lag == late
    assert found.closure_recall == 1 and found.new == pytest.approx(1, abs=0.05)


def test_a_longer_shift_costs() -> None:
    values = [compare_openings(waves(shift=late), TRUTH).truth for late in (3, 4, 6, 8)]
    assert all(
        near is not None and far is not None and near > far for near, far in pairwise(values)
    )
    assert compare_openings(waves(shift=3), TRUTH, lags=1).truth == pytest.approx(
        math.cos(2 * math.pi * 2 / 20), abs=0.03
    )


def test_a_frozen_mouth_follows_nothing() -> None:
    found = compare_openings(freeze_openings(SOURCE), TRUTH, SOURCE)
    assert (found.truth, found.leak, found.old, found.new, found.movement) == (0, 0, 0, 0, 0)
    assert found.closure_recall == 0 and found.closure_precision is None and found.truth_lag is None
    assert (
        "does not move" in found.reasons["truth_lag"]
        and "never closed" in found.reasons["closure_precision"]
    )


def test_noise_on_the_openings_costs_truth() -> None:
    noise = torch.randn(COUNT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean, little, much = (
        compare_openings(TRUTH + size * noise, TRUTH, SOURCE) for size in (0, 0.02, 0.1)
    )
    assert clean.truth is not None and little.truth is not None and much.truth is not None
    assert clean.truth > little.truth > much.truth and (much.movement or 0) > 1.2


def test_scale_and_rest_of_the_mouth_change_movement_alone() -> None:
    found, half = (compare_openings(dub, TRUTH, SOURCE) for dub in (TRUTH, 0.5 * TRUTH + 0.3))
    assert half.movement == pytest.approx(0.5)
    for name in set(FIGURES) - {"movement"}:
        assert getattr(half, name) == pytest.approx(getattr(found, name), abs=1e-6), name


def test_movement_ignores_single_jumps() -> None:
    jumps = TRUTH.clone()
    jumps[::10] += 1
    assert compare_openings(jumps, TRUTH).movement == pytest.approx(1, abs=0.1)


def test_closures_by_hand() -> None:
    """Closed at 10..12 and 40..42; the dub at 13..14 (one beside), and at 70, without a face."""
    truth, dub = torch.ones(100, dtype=torch.float64), torch.ones(100, dtype=torch.float64)
    truth[10:13], truth[40:43], dub[13:15], dub[70] = 0, 0, 0, 0
    recall, precision = compare_closures(dub, truth)
    assert recall == pytest.approx(1 / 6) and precision == pytest.approx(1 / 3)
    assert compare_closures(torch.ones(100), truth) == (0, None)
    assert compare_closures(dub, torch.ones(100)) == (None, 0)


def test_series_are_laid_beside_each_other_by_their_lag() -> None:
    first, second = torch.arange(10), torch.arange(8)
    late = align(first, second, 2)
    assert torch.equal(late[0], torch.arange(2, 10)) and torch.equal(late[1], torch.arange(8))
    early = align(first, second, -2)
    assert torch.equal(early[0], torch.arange(6)) and torch.equal(early[1], torch.arange(2, 8))


@pytest.mark.parametrize("fps", [12.0, 25.0, 30000 / 1001, 60.0])
def test_any_frame_rate_becomes_25_openings_a_second(fps: float) -> None:
    times = torch.arange(round(4 * fps), dtype=torch.float64) / fps
    found = resample_openings(2 * times, times + 1)
    assert found is not None and len(found) == math.ceil(float(times[-1]) / 0.04)
    assert torch.allclose(
        found, 2 * torch.arange(len(found), dtype=torch.float64) * 0.04, atol=1e-9
    )


def test_frames_without_a_face_are_bridged_up_to_a_fifth() -> None:
    times = torch.arange(100, dtype=torch.float64) / 25
    gaps = times.clone()
    gaps[:5], gaps[50:60] = torch.nan, torch.nan
    found = resample_openings(gaps, times)
    assert (
        found is not None
        and torch.allclose(found[5:], times[5:-1])
        and torch.all(found[:5] == times[5])
    )
    gaps[60:66] = torch.nan
    assert resample_openings(gaps, times) is None
    assert resample_openings(times[:19], times[:19]) is None


def fed(sizes: list[int], *, source: bool = True) -> MouthFollowing:
    metric = MouthFollowingMetric()
    noise = 0.03 * torch.randn(3, 130, generator=torch.Generator().manual_seed(1))
    times = torch.arange(130) / 30
    roles = ("dub", "truth", "source") if source else ("dub", "truth")
    for role, values in zip(
        roles,
        noise + torch.stack([waves(count=130, shift=i).float() for i in range(3)]),
        strict=False,
    ):
        for values_piece, times_piece in zip(values.split(sizes), times.split(sizes), strict=True):
            metric.update(values_piece, times_piece, role)
    return metric.compute()


def test_batches_change_nothing_by_a_bit() -> None:
    assert fed([130]) == fed([1] * 130) == fed([7, 23, 100]) == fed([0, 64, 66])


def test_what_is_not_given_is_absent_with_its_reason() -> None:
    found = fed([130], source=False)
    assert found.truth is not None and found.movement is not None
    for name in ("leak", "chance", "old", "new"):
        assert getattr(found, name) is None and found.reasons[name] == "no source video was given"
    values = found.to_values()
    assert set(values) == {*FIGURES, "reasons"} and values["leak"] is None

    leak_alone = compare_openings(TRUTH, None, SOURCE)
    assert leak_alone.leak is not None and leak_alone.truth is None and leak_alone.movement is None
    short = compare_openings(TRUTH, TRUTH[:19], SOURCE)
    assert short.truth is None and "0.76 s" in short.reasons["truth"] and short.leak is not None


def test_a_video_without_a_face_is_told_by_its_name() -> None:
    metric = MouthFollowingMetric()
    times = torch.arange(100) / 25
    metric.update(TRUTH, times, "dub")
    metric.update(torch.full((100,), torch.nan), times, "truth")
    found = metric.compute()
    assert (
        found.truth is None
        and "true speaker's video shows a face in 0 of 100" in found.reasons["truth"]
    )
    with pytest.raises(ValueError, match="expected dub, truth or source"):
        metric.update(TRUTH, times, "real")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="of one length"):
        metric.update(TRUTH, times[:-1], "dub")


def test_a_true_speaker_who_keeps_still_has_no_movement_to_compare_with() -> None:
    found = compare_openings(TRUTH, freeze_openings(TRUTH), SOURCE)
    assert (
        found.truth == 0 and found.movement is None and "does not move" in found.reasons["movement"]
    )


def test_loudness_opens_a_mouth() -> None:
    seconds = torch.arange(16000 * 4) / 16000
    swell = (0.5 + 0.5 * torch.sin(2 * math.pi * 1.25 * seconds)) * torch.sin(
        2 * math.pi * 200 * seconds
    )
    found = loudness_openings(Audio(swell.expand(2, -1) * 0.9, 16000))
    assert found.shape == (100,) and 0 <= float(found.min()) < float(found.max()) <= 1
    assert compare_openings(found, waves()).truth == pytest.approx(1, abs=0.05)
    assert loudness_openings(Audio(torch.zeros(1, 0), 16000)).shape == (0,)


def test_a_copied_mouth_has_its_own_openings_at_the_wrong_time() -> None:
    openings = torch.arange(9.0)
    assert copy_openings(openings).tolist() == [4, 5, 6, 7, 8, 0, 1, 2, 3]
