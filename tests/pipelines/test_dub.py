"""The edge, end to end: files in, a file out, on small media made here and on the bundled
photograph."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
import torch
from av.audio.frame import AudioFrame
from helpers.cli import run_command
from helpers.dubs import ASTRONAUT, FRESH, clip, pixels, portrait, tone
from helpers.media import write_video

from lipsync_core import Cut, Encoding, MediaError, NoFaceError, WeightsError, dub
from lipsync_core.cli.dub import parse_pair
from lipsync_core.media import (
    AudioSource,
    VideoWriter,
    probe,
    probe_sound,
    read_audio,
    read_frames,
)
from lipsync_core.pipelines.demo import SPEECH
from lipsync_core.runtime.timecode import parse_fps, parse_seconds
from lipsync_core.types import Audio


def test_a_photo_speaks(tmp_path: Path) -> None:
    whole = read_audio(SPEECH, rate=None, mono=False)
    speech = Audio(whole.samples[:, : 2 * whole.rate], whole.rate)
    report = dub(ASTRONAUT, speech, tmp_path / "out.mp4", finding=FRESH)
    assert (report.frames, report.dubbed, report.passed_through, report.fps) == (50, 50, 0, 25)
    shown = pixels(report.out).float()
    photo = torch.from_numpy(skimage.data.astronaut()).float()
    # where any frame differs clearly from the photograph
    moved = (shown - photo).abs().mean(-1).amax(0) > 40
    rows, columns = moved.nonzero().T
    assert len(rows) > 50, "no mouth moved"
    assert (
        rows.min() > 100 and rows.max() < 200 and columns.min() > 170 and columns.max() < 280
    )  # her mouth, and only it
    assert probe_sound(report.out).rate == 22050  # at its own rate


def test_a_video_speaks_and_keeps_its_rate_and_tags(tmp_path: Path) -> None:
    face = clip(tmp_path / "face.mp4", portrait().expand(12, -1, -1, -1), Fraction(30000, 1001))
    report = dub(face, tone(tmp_path / "a.wav", 0.3), tmp_path / "out.mp4", finding=FRESH)
    assert report.frames == 9 and report.fps == Fraction(30000, 1001) == probe(report.out).fps
    with av.open(str(report.out)) as out:
        assert (
            "AI-generated" in out.metadata["comment"]
            and json.loads(out.metadata["lipsync"])["model"] == "mini"
        )
    untagged = dub(
        face,
        tmp_path / "a.wav",
        tmp_path / "plain.mp4",
        finding=FRESH,
        encoding=Encoding(tag=False),
    )
    with av.open(str(untagged.out)) as out:
        assert "comment" not in out.metadata and "lipsync" not in out.metadata


@pytest.mark.parametrize(
    ("longer", "frames"), [("pingpong", 15), ("loop", 15), ("hold", 15), ("trim", 5)]
)
def test_when_the_speech_is_longer(tmp_path: Path, longer: str, frames: int) -> None:
    moving = torch.stack([portrait().roll(2 * i, 1) for i in range(5)])
    face = clip(tmp_path / "face.mp4", moving)
    cut = Cut(longer=longer)  # type: ignore[arg-type]
    report = dub(face, tone(tmp_path / "a.wav"), tmp_path / "out.mp4", cut=cut, finding=FRESH)
    assert report.frames == frames
    shown = pixels(report.out)[:, 200:].float()  # under the face
    expected = {
        "pingpong": [0, 1, 2, 3, 4, 3, 2, 1],
        "loop": [0, 1, 2, 3, 4, 0, 1, 2],
        "hold": [0, 1, 2, 3, 4, 4, 4, 4],
    }
    for i, source in enumerate(expected.get(longer, [0, 1, 2, 3, 4])):
        differences = (shown[i] - moving[:, 200:].float()).abs().mean((1, 2, 3))
        assert int(differences.argmin()) == source


@pytest.mark.parametrize("shorter", ["keep", "keep-sound"])
def test_the_rest_of_a_video_follows_a_shorter_speech(tmp_path: Path, shorter: str) -> None:
    """With its own mouth, and in silence or with its own sound."""
    silent = clip(tmp_path / "silent.mkv", portrait().expand(20, -1, -1, -1))
    face = tmp_path / "face.mkv"
    own = Audio(0.2 * torch.ones(2, 16000), 20000)  # 0.8 s
    with VideoWriter(face, probe(silent), AudioSource(own), crf=1) as out:
        for piece in read_frames(silent):
            out.write(piece)
    cut = Cut(shorter=shorter)  # type: ignore[arg-type]
    speech = read_audio(tone(tmp_path / "a.wav", 0.4), rate=None, mono=False)
    report = dub(face, speech, tmp_path / "out.mkv", cut=cut, finding=FRESH)
    assert (report.frames, report.passed_through) == (20, report.frames - report.dubbed)
    assert 10 <= report.dubbed <= 15  # fades out
    close = (pixels(report.out)[15:].int() - pixels(face)[15:].int()).abs().float()
    assert float(close.mean()) < 2  # coded again
    heard = read_audio(report.out, rate=None)
    assert heard.samples.shape[1] / heard.rate == pytest.approx(0.8, abs=0.06)
    rest = heard.samples[0, round(0.5 * heard.rate) : round(0.7 * heard.rate)].mean()
    assert float(rest) == pytest.approx(0.2 if shorter == "keep-sound" else 0, abs=0.03)


def test_a_cut_is_the_output(tmp_path: Path) -> None:
    face = clip(tmp_path / "face.mp4", torch.stack([portrait().roll(2 * i, 1) for i in range(20)]))
    cut = Cut(start=Fraction(1, 5), end=Fraction(2, 5), longer="trim")
    report = dub(face, tone(tmp_path / "a.wav"), tmp_path / "out.mp4", cut=cut, finding=FRESH)
    assert report.frames == 5
    first = pixels(report.out)[0, 200:].float()
    assert (first - portrait().roll(10, 1)[200:].float()).abs().mean() < 6


def test_two_voices_two_faces(tmp_path: Path) -> None:
    both = torch.cat([portrait(), portrait().flip(1)], 1).expand(15, -1, -1, -1)
    face = clip(tmp_path / "two.mp4", both)
    long, short = tone(tmp_path / "long.wav"), tone(tmp_path / "short.wav", 0.3)
    report = dub(face, [(long, "left"), (short, "right")], tmp_path / "out.mp4", finding=FRESH)
    assert report.faces == 2 and report.frames == 15
    moved = (pixels(report.out).float() - pixels(face).float()).abs().mean(-1)
    assert moved[:7, :, :256].amax() > 25 and moved[:7, :, 256:].amax() > 25


def test_frames_without_a_face_pass_through(tmp_path: Path) -> None:
    wall = torch.full((40, 256, 256, 3), 90, dtype=torch.uint8)
    frames = torch.cat([portrait().expand(30, -1, -1, -1), wall])
    report = dub(
        clip(tmp_path / "f.mp4", frames),
        tone(tmp_path / "a.wav", 2.8),
        tmp_path / "out.mp4",
        finding=FRESH,
    )
    assert (
        report.frames == 70
        and 25 <= report.dubbed <= 35
        and report.passed_through == 70 - report.dubbed
    )
    assert (pixels(report.out)[40:].float() - 90).abs().max() <= 3


def test_warnings_of_the_picture_reach_the_log_and_the_report_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    face = write_video(
        tmp_path / "ten.mkv",
        portrait().expand(8, -1, -1, -1),
        codec="ffv1",
        pix_fmt="yuv420p10le",
        options={},
    )
    # three passes: find, there, back
    report = dub(face, tone(tmp_path / "a.wav"), tmp_path / "out.mp4", finding=FRESH)
    assert len(report.warnings) == 1 and "10-bit" in report.warnings[0]
    assert [record.message for record in caplog.records] == list(report.warnings)


def test_no_face_is_said_before_anything_is_made(tmp_path: Path) -> None:
    face = clip(tmp_path / "wall.mp4", torch.full((10, 128, 128, 3), 90, dtype=torch.uint8))
    with pytest.raises(NoFaceError):
        dub(face, tone(tmp_path / "a.wav"), tmp_path / "out.mp4", finding=FRESH)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "wall.mp4"]


def test_an_existing_file_is_not_touched(tmp_path: Path) -> None:
    speech, out = tone(tmp_path / "a.wav", 0.2), tmp_path / "out.mp4"
    out.write_bytes(b"mine")
    with pytest.raises(MediaError, match="exists"):
        dub(ASTRONAUT, speech, out, finding=FRESH)
    assert out.read_bytes() == b"mine"
    dub(ASTRONAUT, speech, out, finding=FRESH, encoding=Encoding(overwrite=True))
    assert probe(out).frames == 5


def test_what_is_read_is_never_written_over(tmp_path: Path) -> None:
    speech = tone(tmp_path / "a.mp4", 0.2)
    before = speech.read_bytes()
    with pytest.raises(MediaError, match="is what is read"):
        dub(
            ASTRONAUT,
            speech,
            tmp_path / "." / "a.mp4",
            finding=FRESH,
            encoding=Encoding(overwrite=True),
        )
    assert speech.read_bytes() == before


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "dub":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dub(
            ASTRONAUT,
            tone(tmp_path / "a.wav", 3),
            tmp_path / "out.mp4",
            finding=FRESH,
            on_progress=stop,
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_tracks_are_kept_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPSYNC_CACHE", str(tmp_path / "cache"))
    face = clip(tmp_path / "face.mp4", portrait().expand(10, -1, -1, -1))
    speech = tone(tmp_path / "a.wav", 0.4)
    first = dub(face, speech, tmp_path / "1.mp4")
    entries = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(entries) == 2  # of the detector alone, and with landmarks
    second = dub(face, speech, tmp_path / "2.mp4")
    assert torch.equal(pixels(first.out), pixels(second.out)) and first.faces == second.faces == 1
    assert list((tmp_path / "cache").rglob("*.safetensors")) == entries


def test_exit_codes(tmp_path: Path) -> None:
    speech, out = tone(tmp_path / "a.wav", 0.2), tmp_path / "o.mp4"
    wall = clip(tmp_path / "wall.mp4", torch.full((3, 64, 64, 3), 90, dtype=torch.uint8))
    cases = {
        2: ("dub", ASTRONAUT, speech, "-o", out, "--start", "never"),
        3: ("dub", wall, speech, "-o", out, "--no-cache"),
        4: ("dub", tmp_path / "missing.mp4", speech, "-o", out),
        5: ("dub", ASTRONAUT, speech, "-o", out, "--model", "wav2lip-gan-unknown"),
    }
    for code, arguments in cases.items():
        done = run_command(*arguments)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and done.stderr.strip()
    assert not out.exists()


def test_the_package_runs_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lipsync_core", "dub", str(tmp_path / "missing.mp4"), "a.wav"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4 and "missing.mp4" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_report(tmp_path: Path) -> None:
    done = run_command(
        "dub",
        ASTRONAUT,
        tone(tmp_path / "a.wav", 0.2),
        "-o",
        tmp_path / "o.mp4",
        "--json",
        "--no-cache",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (
        report["frames"] == 5
        and report["fps"] == "25"
        and report["detector"] == "mini"
        and report["seconds"]["total"] > 0
    )


@pytest.mark.parametrize("broken", ["empty", "text", "truncated", "no picture", "no frames"])
def test_broken_faces_are_media_errors(tmp_path: Path, broken: str) -> None:
    face, speech = tmp_path / "face.mp4", tone(tmp_path / "a.wav", 0.2)
    if broken == "empty":
        face.write_bytes(b"")
    elif broken == "text":
        face.write_text("not a video\n" * 50)
    elif broken == "truncated":
        whole = clip(tmp_path / "whole.mp4", portrait().expand(10, -1, -1, -1)).read_bytes()
        face.write_bytes(whole[:600])
    else:
        face = speech
    with pytest.raises(MediaError, match=str(face.name)):
        dub(face, speech, tmp_path / "out.mp4", finding=FRESH)
    assert not (tmp_path / "out.mp4").exists()


def test_a_silent_video_as_speech_is_a_media_error(tmp_path: Path) -> None:
    mute = clip(tmp_path / "mute.mp4", portrait().expand(3, -1, -1, -1))
    with pytest.raises(MediaError, match="mute"):
        dub(ASTRONAUT, mute, tmp_path / "out.mp4", finding=FRESH)


def test_silence_and_one_frame_are_legal(tmp_path: Path) -> None:
    face = clip(tmp_path / "one.mp4", portrait()[None])
    silence = tmp_path / "silence.wav"
    with av.open(str(silence), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="stereo")
        frame = AudioFrame.from_ndarray(
            np.zeros((1, 2 * 2000), np.int16), format="s16", layout="stereo"
        )
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    report = dub(face, silence, tmp_path / "out.mp4", finding=FRESH)
    assert report.frames == 7 == report.dubbed


def test_a_wide_picture(tmp_path: Path) -> None:
    wide = torch.full((1, 256, 8000, 3), 60, dtype=torch.uint8)
    wide[0, :, 3000:3256] = portrait()
    with pytest.raises(NoFaceError):  # 75 px of 8000 are 6 of the 640 px that the detector sees
        dub(
            clip(tmp_path / "w.mp4", wide),
            tone(tmp_path / "a.wav", 0.1),
            tmp_path / "out.mp4",
            finding=FRESH,
        )


def test_weights_of_the_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected"):
        dub(
            ASTRONAUT,
            tone(tmp_path / "a.wav", 0.1),
            tmp_path / "o.mp4",
            model="face_detector",
            finding=FRESH,
        )


def test_arguments() -> None:
    assert parse_seconds("1:02:03.5") == Fraction(7447, 2) and parse_seconds("12.25") == Fraction(
        49, 4
    )
    assert parse_fps("30000/1001") == Fraction(30000, 1001) and parse_fps("23.976") == Fraction(
        "23.976"
    )
    assert parse_pair("640,200=a=b.wav") == (Path("a=b.wav"), "640,200")
    for wrong in ("x", "1:70", "-1", "1:2:3:4"):
        with pytest.raises(Exception, match="not a time"):
            parse_seconds(wrong)
