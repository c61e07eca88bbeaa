"""The sound of a dub, as it is read for the model and for the output."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.media import click, click_time, levels, write_sound, write_video

from lipsync_core.media import VideoWriter, probe, read_audio, read_frames
from lipsync_core.media.clip import VideoClip
from lipsync_core.options import Cut
from lipsync_core.pipelines.audio_inputs import read_audio_inputs
from lipsync_core.pipelines.dub_plan import count_output_frames, parse_speakers
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


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # encoded again; copied
def test_speech_keeps_what_sounds_before_its_own_first_picture(tmp_path: Path, suffix: str) -> None:
    speech = write_sound(
        tmp_path / "a.mkv",
        click(RATE, 2.0, 0.2),
        RATE,
        codec="flac",
        delay=Fraction(-1, 2),
        picture_frames=25,
    )
    face = write_video(tmp_path / "face.mp4", levels(50))
    inputs = read_audio_inputs([speech], RATE, face=face, warn=lambda _: None)
    assert inputs.count_frames(Fraction(25)) == 50
    assert abs(click_time(inputs.speech[0].samples, RATE) - 0.2) <= 0.001
    with VideoWriter(tmp_path / f"out{suffix}", probe(face), inputs.output) as out:
        for frames in read_frames(face):
            out.write(frames)
    written = read_audio(tmp_path / f"out{suffix}")
    assert abs(click_time(written.samples, RATE) - 0.2) <= 0.002
    assert read_audio(speech).samples.abs().max() < 0.01  # its picture's own sound begins later


@pytest.mark.parametrize(
    ("seconds", "suffix", "own", "outlasts"),
    [
        ("2", ".mp4", True, False),  # by the edit list
        ("2", ".mkv", True, False),  # AAC fills up its last packet
        ("2.2", ".mkv", True, True),
        ("2", ".mkv", False, True),
    ],
)
def test_padding_of_a_clips_own_sound_asks_for_no_more_frames(
    tmp_path: Path, seconds: str, suffix: str, own: bool, outlasts: bool
) -> None:
    clip = write_sound(
        tmp_path / f"a{suffix}",
        click(RATE, float(seconds), 0.5),
        RATE,
        codec="aac",
        picture_frames=50,
    )
    other = write_video(tmp_path / "other.mp4", levels(50))
    inputs = read_audio_inputs([clip], RATE, face=clip if own else other, warn=lambda _: None)
    assert inputs.outlasts(50, Fraction(25)) == outlasts
    frames = count_output_frames(VideoClip(clip, probe(clip)), 50, inputs, "pingpong")
    assert (frames == 50) == (not outlasts)


@pytest.mark.parametrize(
    ("level", "warning"), [(0.1, None), (0.01, "is quiet (speech at -40 dBFS)"), (0.0, "is silent")]
)
@pytest.mark.parametrize("file", [True, False])
def test_speech_too_quiet_to_be_followed_is_warned_about_once(
    tmp_path: Path, level: float, warning: str | None, file: bool
) -> None:
    noise = np.random.default_rng(0).normal(0, level, (1, RATE)).astype(np.float32)
    talk = np.concatenate([np.zeros((1, 5 * RATE), np.float32), noise], axis=1)
    source = (
        write_sound(tmp_path / "a.wav", talk, RATE, codec="pcm_f32le")
        if file
        else Audio(torch.from_numpy(talk), RATE)
    )
    warnings: list[str] = []
    inputs = read_audio_inputs([source], RATE, warn=warnings.append)
    assert torch.equal(inputs.speech[0].samples, torch.from_numpy(talk))
    assert len(warnings) == (warning is not None) and (warning or "") in "".join(warnings)


def test_a_silent_track_beside_another_says_how_to_take_that(tmp_path: Path) -> None:
    path, warnings = tmp_path / "two.mkv", list[str]()
    with av.open(str(path), "w") as file:  # as cameras with a microphone on each track write it
        tracks = [file.add_stream("pcm_s16le", RATE, layout="mono") for _ in range(2)]
        for level, track in zip((0, 3000), tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(np.full((1, RATE), level, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            file.mux([*track.encode(frame), *track.encode(None)])
    read_audio_inputs([path], RATE, warn=warnings.append)
    assert len(warnings) == 1 and "--audio-track) than two.mkv: sound track 1" in warnings[0]


def test_no_audio_at_all_is_an_error_that_says_so() -> None:
    for nothing in (None, []):
        with pytest.raises(ValueError, match="no audio; expected a file"):
            parse_speakers(nothing, "largest")  # pyright: ignore[reportArgumentType]
