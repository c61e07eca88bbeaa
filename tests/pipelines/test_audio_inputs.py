"""The sound of a dub, as it is read for the model and for the output."""

import os
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers.media import click, click_time, write_sound

from lipsync_core.media.clip import Cut
from lipsync_core.pipelines.audio_inputs import read_audio_inputs
from lipsync_core.types import Audio

RATE = 16000


@pytest.mark.parametrize("spelling", ["as it is", "relative", "link"])
def test_speech_that_is_the_face_file_is_cut_with_it_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    face = write_sound(tmp_path / "a.mkv", click(RATE, 2.0, 1.5), RATE, picture_frames=50)
    speech = face
    if spelling == "relative":
        monkeypatch.chdir(tmp_path)
        speech = Path("a.mkv")
    elif spelling == "link":
        speech = tmp_path / "link.mkv"
        os.link(face, speech)
    inputs = read_audio_inputs(
        [speech], RATE, face=face, cut=Cut(start=Fraction(1)), warn=lambda _: None
    )
    assert inputs.output.start == 1 and inputs.speech[0].samples.shape[1] == RATE
    assert abs(click_time(inputs.speech[0].samples, RATE) - 0.5) <= 0.001


def test_a_warning_about_channels_reaches_the_report_once(tmp_path: Path) -> None:
    wave = torch.from_numpy(click(RATE, 1.0, 0.5))
    opposed, warnings = torch.cat([wave, -wave]), list[str]()
    inputs = read_audio_inputs([Audio(opposed, RATE)], RATE, warn=warnings.append)
    assert torch.equal(inputs.speech[0].samples, wave)
    assert isinstance(inputs.output.source, Audio)
    assert torch.equal(inputs.output.source.samples, opposed)
    assert len(warnings) == 1
