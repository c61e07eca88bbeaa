"""Scoring end to end: a dubbed photograph, its audio shifted, and every awkward input."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from helpers.cli import Finished, run_command
from helpers.media import write_sound
from typer.testing import CliRunner

import lipsync_core
from lipsync_core.cli.main import app
from lipsync_core.errors import LipSyncError, MediaError, NoFaceError
from lipsync_core.media import (
    AudioSource,
    VideoWriter,
    probe,
    read_audio,
    read_frames,
    shift_audio,
)
from lipsync_core.metrics.lse import score_whole_frame
from lipsync_core.models.syncnet import SyncNet, SyncNetConfig
from lipsync_core.models.weights import load_model, save_model
from lipsync_core.pipelines.dub import Finding
from lipsync_core.pipelines.score import ScoreReport, TrackScore, explain_score, score, shift_sound
from lipsync_core.pipelines.score_plot import plot_scores
from lipsync_core.types import Frames, SyncScore, VideoInfo

ASTRONAUT = Path(skimage.data.__file__).parent / "astronaut.png"
SPEECH = Path(lipsync_core.__file__).parent / "assets" / "demo.flac"
FRESH = Finding(cache=False)
SIDE = 224


@pytest.fixture(scope="module")
def talk(talking_head: Path) -> Path:
    """The astronaut's head, 5 s long, speaking by `mini-2`; the judge never taught it."""
    return talking_head


def cropped(src: Path, out: Path, *, fps: Fraction | None = None, stop: int | None = None) -> Path:
    """``src`` at another frame rate, or its first frames, with its sound."""
    rate = fps or probe(src).fps
    with VideoWriter(
        out, VideoInfo(SIDE, SIDE, rate, None), AudioSource(src), preset="ultrafast", crf=12
    ) as writer:
        for piece in read_frames(src, fps=rate, stop=stop):
            writer.write(Frames(piece.pixels, piece.start))
    return out


def only(report: ScoreReport) -> SyncScore:
    assert len(report.tracks) == 1
    return report.tracks[0].score


def test_a_dub_is_in_sync(talk: Path) -> None:
    told: list[tuple[str, int, int]] = []
    report = score(talk, finding=FRESH, on_progress=lambda *step: told.append(step))
    found = only(report)
    assert (found.offset_frames, found.offset_ms, found.search_frames) == (0, 0.0, 15)
    assert found.confidence > 0.2 and found.uncertainty is not None and found.uncertainty < 1
    assert (report.tracks[0].first_frame, report.tracks[0].last_frame) == (0, 124)
    assert (report.scorer, report.mode, report.fps, report.scorer_fps, report.warnings) == (
        "judge",
        "exact",
        25,
        25,
        (),
    )
    assert told[-1] == ("score", 125, 125)


@pytest.mark.parametrize("offset", [-10, 2, 7])
def test_moved_sound_is_found_and_mended(talk: Path, tmp_path: Path, offset: int) -> None:
    """Sound moved ahead by ``offset`` frames is early by them; delayed by what was found, it is in
    sync."""
    off, fixed = tmp_path / "off.mp4", tmp_path / "fixed.mp4"
    shift_audio(talk, off, Fraction(-offset, 25))
    report = score(off, finding=FRESH)
    found = report.best().score.offset_frames
    assert found is not None and abs(found - offset) <= 1
    shift_sound(off, fixed, found, report.scorer_fps)
    assert only(score(fixed, finding=FRESH)).offset_frames == 0


@pytest.mark.parametrize("fps", [12, Fraction(30000, 1001), 60])
def test_other_rates_are_resampled_in_time(talk: Path, tmp_path: Path, fps: Fraction) -> None:
    other = cropped(talk, tmp_path / "other.mp4", fps=Fraction(fps))
    report = score(other, finding=FRESH)
    found = only(report)
    assert found.offset_frames is not None and abs(found.offset_frames) <= 1
    # of the video's own
    assert report.tracks[0].last_frame == pytest.approx(5 * fps - 1, abs=2 * float(fps) / 25)


def test_json_is_as_promised(talk: Path) -> None:
    values = json.loads(score(talk, SPEECH, finding=FRESH).to_json())
    (track,) = values["tracks"]
    assert list(values) == ["scorer", "tracks"] and values["scorer"] == "judge"
    assert list(track) == [
        "first_frame",
        "last_frame",
        "offset_frames",
        "offset_ms",
        "distance",
        "confidence",
        "search_frames",
        "uncertainty",
    ]
    assert track["offset_frames"] == 0 and isinstance(track["distance"], float)


def test_silence_has_no_verdict_and_says_so(talk: Path, tmp_path: Path) -> None:
    silence = write_sound(tmp_path / "s.wav", np.zeros((1, 16000 * 5), np.float32), 16000)
    report = score(talk, silence, finding=FRESH)
    (track,) = json.loads(report.to_json())["tracks"]
    assert track["offset_frames"] is track["offset_ms"] is track["uncertainty"] is None
    assert track["reason"] == "the sound is silent"
    with pytest.raises(LipSyncError, match=r"no face has an offset.*silent"):
        report.best()


def test_noise_has_no_verdict(talk: Path, tmp_path: Path) -> None:
    noise = 0.1 * np.random.RandomState(0).standard_normal((1, 16000 * 5)).astype(np.float32)
    found = only(score(talk, write_sound(tmp_path / "n.wav", noise, 16000), finding=FRESH))
    assert found.offset_frames is None and found.reason is not None and "flat" in found.reason


def test_what_cannot_be_scored_is_an_error(talk: Path, tmp_path: Path) -> None:
    blip = write_sound(tmp_path / "b.wav", np.ones((1, 2400), np.float32) / 2, 16000)
    with pytest.raises(MediaError, match=r"sound lasts 0\.15 s; expected 0\.2 s"):
        score(talk, blip, finding=FRESH)
    with pytest.raises(MediaError, match=r"picture lasts 0\.32 s; expected 0\.5 s"):
        score(cropped(talk, tmp_path / "short.mp4", stop=8), finding=FRESH)
    with pytest.raises(MediaError, match="photograph"):
        score(ASTRONAUT, SPEECH, finding=FRESH)
    with pytest.raises(MediaError, match="no sound"):
        with VideoWriter(tmp_path / "mute.mp4", VideoInfo(64, 64, Fraction(25), None)) as out:
            out.write(Frames(torch.zeros(20, 64, 64, 3, dtype=torch.uint8)))
        score(tmp_path / "mute.mp4", finding=FRESH)
    with pytest.raises(NoFaceError, match="no face in 20 frames"):
        score(tmp_path / "mute.mp4", SPEECH, finding=FRESH)
    with pytest.raises(ValueError, match="lipsync models pull syncnet"):
        score(talk, mode="reference", finding=FRESH)
    with pytest.raises(ValueError, match="mode is 'fast'"):
        score(talk, mode="fast", finding=FRESH)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scores nothing"):
        score(talk, scorer="mini", finding=FRESH)


def test_half_a_second_gives_a_score_or_a_reason(talk: Path, tmp_path: Path) -> None:
    found = only(score(cropped(talk, tmp_path / "half.mp4", stop=13), finding=FRESH))
    assert 2 <= found.search_frames < 15
    assert (found.offset_frames is None) == (found.reason is not None)


@pytest.fixture(scope="module")
def syncnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the public network's shape with weights that know nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "syncnet.safetensors"
    save_model(
        SyncNet(SyncNetConfig()).eval(), path, licence="none", source="test", dtype=torch.float16
    )
    return path


def test_the_reference_protocol_reads_files(talk: Path, tmp_path: Path, syncnet: Path) -> None:
    short = cropped(talk, tmp_path / "short.mp4", stop=14)
    report = score(short, scorer=syncnet, mode="reference", whole_frame=True)
    network = load_model(syncnet)
    assert isinstance(network, SyncNet)
    wanted = score_whole_frame(read_frames(short), read_audio(short), network)
    found = only(report)
    assert (report.scorer, report.mode, found.scorer) == ("syncnet", "reference", "syncnet")
    assert (report.tracks[0].first_frame, report.tracks[0].last_frame) == (0, 12)
    assert found.distance == pytest.approx(wanted.distance, rel=1e-3) and found.search_frames == 15
    assert found.offset_frames == wanted.offset_frames


def test_syncnet_scores_in_exact_mode_too(talk: Path, tmp_path: Path, syncnet: Path) -> None:
    found = only(
        score(cropped(talk, tmp_path / "short.mp4", stop=16), scorer=syncnet, finding=FRESH)
    )
    assert found.scorer == "syncnet" and found.search_frames < 15 and found.distance > 0


PLAIN = SyncScore("judge", 3, 120.0, 1.0, 0.5, torch.zeros(9), torch.zeros(5), 2, 0.4)


@pytest.mark.parametrize(
    ("offset", "fps", "words"),
    [
        (3, 25, "sound is 3 frames early (120 ms)"),
        (-1, 25, "sound is 1 frame late (40 ms)"),
        (0, 25, "in sync"),
        (3, 30, "sound is 3.6 frames early (120 ms)"),
    ],
)
def test_the_verdict_in_words(offset: int, fps: int, words: str) -> None:
    assert (
        explain_score(replace(PLAIN, offset_frames=offset, offset_ms=40.0 * offset), Fraction(fps))
        == words
    )


def test_the_surest_track_is_mended_by() -> None:
    others = [
        replace(PLAIN, uncertainty=0.3, offset_frames=1),
        replace(PLAIN, offset_frames=None, offset_ms=None, uncertainty=None, reason="flat"),
        replace(PLAIN, uncertainty=0.3, confidence=0.6, offset_frames=2),
    ]
    tracks = tuple(TrackScore(0, 9, one, (5, 5)) for one in [PLAIN, *others])
    report = ScoreReport(
        "judge", "exact", Path("a.mp4"), None, Fraction(25), Fraction(25), tracks, ()
    )
    assert report.best().score.offset_frames == 2
    unsaid = tuple(replace(track, score=replace(track.score, uncertainty=None)) for track in tracks)
    assert replace(report, mode="reference", tracks=unsaid).best().score.offset_frames == 2


def command(*args: object) -> Finished:
    return run_command("score", "--no-cache", *args)


def test_the_command_scores_draws_and_mends(talk: Path, tmp_path: Path) -> None:
    off, fixed, picture = tmp_path / "off.mp4", tmp_path / "fixed.mkv", tmp_path / "plot.png"
    shift_audio(talk, off, Fraction(-5, 25))
    done = command(off, "--fix", fixed, "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert "sound is 5 frames early (200 ms)" in done.stdout and "+200 ms" in done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert json.loads(command(fixed, "--json").stdout)["tracks"][0]["offset_frames"] == 0
    again = command(off, "--fix", fixed)
    assert again.returncode == 4 and "exists" in again.stderr
    before = off.read_bytes()
    itself = command(off, "--fix", off, "--overwrite")
    assert (
        itself.returncode == 4 and "is what is read" in itself.stderr and off.read_bytes() == before
    )
    nowhere = command(off, "--plot", tmp_path / "none" / "x.png")
    assert nowhere.returncode == 4 and "does not exist" in nowhere.stderr


def test_exit_codes_tell_what_is_missing(talk: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    assert (
        runner.invoke(app, ["score", str(tmp_path / "none.mp4")]).exception.__class__ is MediaError
    )
    silence = write_sound(tmp_path / "s.wav", np.zeros((1, 16000), np.float32), 16000)
    done = command(talk, silence, "--fix", tmp_path / "x.mp4")
    assert done.returncode == 1 and "silent" in done.stderr and not (tmp_path / "x.mp4").exists()


def test_a_plot_of_several_faces_and_of_none_that_tells(tmp_path: Path) -> None:
    mute = replace(
        PLAIN, offset_frames=None, offset_ms=None, uncertainty=None, reason="the sound is silent"
    )
    tracks = (TrackScore(0, 9, PLAIN, (5, 5)), TrackScore(3, 9, mute, (5, 5)))
    report = ScoreReport(
        "judge", "exact", Path("a.mp4"), None, Fraction(25), Fraction(25), tracks, ()
    )
    plot_scores(report, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 5000  # its words are drawn as outlines
    with pytest.raises(MediaError, match="exists"):
        plot_scores(report, tmp_path / "a.svg")
    with pytest.raises(MediaError, match=r"\.docx; use \.png"):
        plot_scores(report, tmp_path / "a.docx")
    assert len(list(tmp_path.iterdir())) == 1
