"""Mouth shapes from speech."""

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cli import run_command
from helpers.media import write_sound

import lipsync_core
from lipsync_core.errors import LipSyncError, MediaError
from lipsync_core.pipelines.visemes import (
    VisemeTrack,
    find_cues,
    predict_visemes,
    write_visemes,
)

SPEECH = Path(lipsync_core.__file__).parent / "assets" / "demo.flac"
CLOSED, SLIGHT, OPEN, WIDE, ROUND, PUCKER = (
    (0.0, 0.0, 0.0),
    (0.8, 0.0, 0.5),
    (2.0, 0.0, 1.0),
    (2.4, 0.0, 2.0),
    (1.2, -1.2, 1.0),
    (0.9, -2.0, 0.5),
)


@pytest.fixture(scope="module")
def track() -> VisemeTrack:
    return predict_visemes(SPEECH)


def values(*runs: tuple[tuple[float, float, float], int], fps: int = 25) -> list[tuple[str, int]]:
    """The mouth shapes of runs of lip shapes, with their frames."""
    rows = [shape for shape, frames in runs for _ in range(frames)]
    cues = find_cues(torch.tensor(rows), Fraction(fps), len(rows) / fps)
    return [(cue.value, round((cue.end - cue.start) * fps)) for cue in cues]


def test_each_lip_shape_has_its_letter() -> None:
    shapes = [(SLIGHT, 3), (CLOSED, 2), (OPEN, 3), (WIDE, 3), (ROUND, 3), (PUCKER, 3)]
    assert values(*shapes) == [("B", 3), ("A", 2), ("C", 3), ("D", 3), ("E", 3), ("F", 3)]


def test_a_mouth_that_stays_closed_rests() -> None:
    assert values((CLOSED, 2), (OPEN, 4), (CLOSED, 8), (OPEN, 4), (CLOSED, 2)) == [
        ("X", 2),
        ("C", 4),
        ("X", 8),
        ("C", 4),
        ("X", 2),
    ]


def test_a_single_frame_counts_only_where_the_lips_close() -> None:
    assert values((OPEN, 3), (WIDE, 1), (OPEN, 3), (CLOSED, 1), (OPEN, 3)) == [
        ("C", 7),
        ("A", 1),
        ("C", 3),
    ]
    assert values((SLIGHT, 1), (WIDE, 3)) == [("D", 4)]
    assert values((SLIGHT, 1), (WIDE, 1), fps=12) == [("B", 1), ("D", 1)]
    assert values() == []


def test_mouth_shapes_of_speech_leave_no_holes_and_end_with_the_sound(track: VisemeTrack) -> None:
    assert track.duration == pytest.approx(8.24, abs=0.05)
    assert track.curves.shape == (len(track.curves), 3) and track.cues[0].start == 0
    assert all(a.end == b.start for a, b in zip(track.cues, track.cues[1:], strict=False))
    assert track.cues[-1].end == track.duration
    assert {"B", "C", "D"} <= {cue.value for cue in track.cues}
    assert float(track.curves[:, 0].max()) > 0.5 and len(track.cues) > 20


def test_silence_rests() -> None:
    silence = lipsync_core.Audio(torch.zeros(1, 32000), 16000)
    found: list[str] = []
    quiet = predict_visemes(silence, fps=Fraction(24), on_warning=found.append)
    assert [(cue.start, cue.end, cue.value) for cue in quiet.cues] == [(0, 2, "X")]
    assert len(found) == 1 and "silent" in found[0]


def test_files_hold_the_same_shapes(track: VisemeTrack, tmp_path: Path) -> None:
    for suffix in ("json", "tsv", "csv"):
        write_visemes(track, tmp_path / f"a.{suffix}")
    read = json.loads((tmp_path / "a.json").read_text())
    assert read["metadata"] == {"soundFile": str(SPEECH), "duration": track.duration}
    assert [cue["value"] for cue in read["mouthCues"]] == [cue.value for cue in track.cues]
    assert np.shape(read["curves"]["rows"]) == track.curves.shape
    lines = (tmp_path / "a.tsv").read_text().splitlines()
    assert [line.split("\t")[1] for line in lines[:-1]] == [cue.value for cue in track.cues]
    assert lines[-1] == f"{track.duration:.2f}\tX"
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(track.curves) and float(rows[25]["time"]) == 1
    at = next(cue for cue in track.cues if cue.start <= 1 < cue.end)
    assert rows[25]["shape"] == at.value


def test_what_cannot_be_done_is_an_error(track: VisemeTrack, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fps is 400"):
        predict_visemes(SPEECH, fps=Fraction(400))
    with pytest.raises(LipSyncError, match="mini-2 draws pictures"):
        predict_visemes(SPEECH, model="mini-2")
    with pytest.raises(MediaError, match=r"\.xml; use \.json"):
        write_visemes(track, tmp_path / "a.xml")
    write_visemes(track, tmp_path / "a.tsv")
    with pytest.raises(MediaError, match="exists"):
        write_visemes(track, tmp_path / "a.tsv")


def test_the_command_writes_them(tmp_path: Path) -> None:
    tone = np.zeros((1, 16000), np.float32)
    speech = write_sound(tmp_path / "a.wav", tone, 16000)
    done = run_command("visemes", speech, "-o", tmp_path / "a.json", "--fps", "29.97")
    assert done.returncode == 0 and "1 mouth shape in 1.00 s" in done.stdout, done.stderr
    assert "silent" in done.stderr
    assert run_command("visemes", speech, "-o", tmp_path / "a.json").returncode == 4
    assert run_command("visemes", speech, "-o", speech).returncode == 4
    assert run_command("visemes", speech, "-o", tmp_path / "b.csv", "--fps", "x").returncode == 2
    assert run_command("visemes", tmp_path / "no.wav", "-o", tmp_path / "b.csv").returncode == 4
