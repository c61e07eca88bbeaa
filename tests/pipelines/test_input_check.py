"""What is said of a face and a speech before a dub."""

import json
from pathlib import Path

import pytest
import torch
from helpers.cli import run_command
from helpers.dubs import ASTRONAUT, clip, portrait, tone

from lipsync_core.pipelines.input_check import CheckRow, InputReport, check_dub_inputs


def find_row(report: InputReport, what: str) -> CheckRow:
    return next(row for row in report.rows if what in row.what)


def test_a_photo_and_a_voice_are_good(tmp_path: Path) -> None:
    report = check_dub_inputs(ASTRONAUT, tone(tmp_path / "a.wav"))
    assert report.outlook == "good", report.rows
    assert 30 < (find_row(report, "width of the mouth").value or 0) < 60
    assert all((row.advice == "") == (row.outlook == "good") for row in report.rows)


def test_frames_without_the_face_are_doubtful(tmp_path: Path) -> None:
    frames = torch.full((40, 256, 256, 3), 90, dtype=torch.uint8)
    frames[:12] = portrait()
    report = check_dub_inputs(
        clip(tmp_path / "face.mp4", frames), tone(tmp_path / "a.wav", seconds=1.6)
    )
    assert report.outlook == "doubtful", report.rows
    assert find_row(report, "frames with the face").value == pytest.approx(0.3, abs=0.1)


def test_a_dub_without_a_face_will_fail(tmp_path: Path) -> None:
    grey = clip(tmp_path / "grey.mp4", torch.full((5, 64, 64, 3), 90, dtype=torch.uint8))
    found = run_command("check", grey, tone(tmp_path / "a.wav"), "--json")
    assert found.returncode == 6
    values = json.loads(found.stdout)
    assert values["outlook"] == "will fail" and "no face" in values["rows"][0]["advice"]
