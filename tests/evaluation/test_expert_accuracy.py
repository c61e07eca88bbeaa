"""Accuracy of experts: decisions about sound that belongs to lips and sound that does not."""

import random
from pathlib import Path

import pytest
import torch
from helpers.benchmarks import speaking

from lipsync_core.errors import LipSyncError
from lipsync_core.evaluation.expert_accuracy import accuracy, measure_accuracy, trials


def clips(
    noise: float, count: int = 12, windows: int = 60, averaged: int = 1
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What an expert would make of clips whose vectors agree but for ``noise``."""
    random_numbers = torch.Generator().manual_seed(3)
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for i in range(count):
        sound = torch.randn(windows + 4, 16, generator=random_numbers)
        video = sound[:windows] + noise * torch.randn(windows, 16, generator=random_numbers)
        found.append(trials(video, sound, averaged, 5, random.Random(i)))
    return found


def test_a_sure_expert_is_always_right_and_a_blind_one_half_the_time() -> None:
    sure = accuracy(5, 1, clips(0.1))
    assert sure.threshold.mean == sure.pairwise.mean == 1 and sure.trials == 12 * 60
    blind = accuracy(5, 1, clips(1000))
    assert 0.45 < blind.threshold.mean < 0.55 and 0.45 < blind.pairwise.mean < 0.55


def test_windows_averaged_decide_better() -> None:
    single, averaged = accuracy(5, 1, clips(2.5)), accuracy(5, 5, clips(2.5, averaged=5))
    assert 0.6 < single.threshold.mean < averaged.threshold.mean - 0.05
    assert averaged.trials == 12 * 12


def test_false_sound_lies_as_far_away_as_said() -> None:
    steps = torch.arange(20.0)[:, None]  # so that a distance tells how many windows lie between
    true, false = trials(steps, steps, 1, 7, random.Random(0))
    assert (true == 0).all() and false.min() >= 7 and len(true) == 20
    with pytest.raises(ValueError, match="expected 1 and as many more 30 frames away"):
        trials(steps, steps, 1, 30, random.Random(0))


def test_a_folder_is_told_row_by_row_with_what_was_skipped(tmp_path: Path) -> None:
    for seed in range(2):
        speaking(tmp_path / f"{seed}.mp4", 30, seed)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    report = measure_accuracy(tmp_path, averaged=(1,))
    assert [(row.seen, row.averaged) for row in report.rows] == [(1, 1), (3, 1), (5, 1)]
    assert report.clips == 2 and set(report.skipped) == {"broken.mp4"} and report.window == 5
    assert all(0 <= row.threshold.mean <= 1 and row.trials > 20 for row in report.rows)
    assert "judge on 2 clips (1 skipped)" in report.table()
    with pytest.raises(ValueError, match="5 frames of judge's window"):
        measure_accuracy(tmp_path, seen=(7,))
    (tmp_path / "0.mp4").unlink()
    (tmp_path / "empty.mp4").write_bytes(b"nothing")
    with pytest.raises(LipSyncError, match=r"1 of 3 videos below .* are usable") as error:
        measure_accuracy(tmp_path)
    assert "\n- 2 skipped: cannot be opened" in str(error.value) and "{" not in str(error.value)


def test_folders_without_videos_are_told(tmp_path: Path) -> None:
    with pytest.raises(LipSyncError, match=r"0 of 0 videos .* expected two or more$"):
        measure_accuracy(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    for name in ("file", "none"):
        with pytest.raises(LipSyncError, match="is not a folder; expected one with videos"):
            measure_accuracy(tmp_path / name)
