"""Files with several sound tracks: which one is read, and what is said about it."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from helpers.media import click, click_time, levels, write_video

from lipsync_core.errors import MediaError
from lipsync_core.media import (
    AudioSource,
    VideoWriter,
    probe,
    probe_sound,
    read_audio,
    read_frames,
    shift_audio,
    track_used,
)
from lipsync_core.options import Cut
from lipsync_core.pipelines.audio_inputs import read_audio_inputs

RATE = 16000
DEFAULT, NONE = Disposition.default, Disposition(0)


def write_tracks(
    path: Path,
    *flags: Disposition,
    codec: str = "pcm_s16le",
    languages: tuple[str, ...] = (),
    picture: bool = False,
) -> Path:
    """A file of 1 s whose sound tracks have one click each, at 0.2 s, 0.4 s, ..."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", 25, options={"preset": "ultrafast"}) if picture else None
        if video is not None:
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        tracks = [out.add_stream(codec, RATE, layout="mono") for _ in flags]
        for number, (track, flag) in enumerate(zip(tracks, flags, strict=True)):
            track.disposition = flag
            if languages:
                track.metadata["language"] = languages[number]
        for _ in range(25 if video is not None else 0):
            out.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        for number, track in enumerate(tracks):
            kind = track.codec_context.format.name
            samples = click(RATE, 1.0, 0.2 * (number + 1))
            samples = (samples * 32767).astype(np.int16) if kind == "s16" else samples
            frame = av.AudioFrame.from_ndarray(samples, kind, "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
        if video is not None:
            out.mux(video.encode(None))
    return path


def spatial(path: Path, *, last: bool) -> Path:
    """Rename the codec of the last or first sound track of an MP4 to one without a decoder, as in
    the videos of an iPhone that records Spatial Audio."""
    data = path.read_bytes()
    for old, new in ((b"mp4a", b"apac"), (b"esds", b"dapa")):
        at = data.rindex(old) if last else data.index(old)
        data = data[:at] + new + data[at + 4 :]
    path.write_bytes(data)
    return path


def place(path: Path, track: int | None = None) -> float:
    return round(click_time(read_audio(path, track=track).samples, RATE), 2)


@pytest.mark.parametrize(
    ("flags", "at"),
    [
        ((NONE, DEFAULT), 0.4),
        ((DEFAULT, NONE), 0.2),
        ((NONE, NONE), 0.2),
        ((DEFAULT, DEFAULT), 0.2),
        ((Disposition.visual_impaired | DEFAULT, DEFAULT), 0.4),
        ((NONE, NONE, DEFAULT), 0.6),
    ],
)
def test_the_default_track_is_read(
    tmp_path: Path, flags: tuple[Disposition, ...], at: float
) -> None:
    assert place(write_tracks(tmp_path / "a.mkv", *flags)) == at


def test_any_track_can_be_chosen_and_the_one_used_is_named(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", NONE, DEFAULT, languages=("eng", "deu"))
    assert [place(path, track) for track in (1, 2)] == [0.2, 0.4]
    assert track_used(path, None) == "a.mkv: sound track 2 (pcm_s16le, mono, deu, default) of 2"
    assert track_used(path, 1) == "a.mkv: sound track 1 (pcm_s16le, mono, eng) of 2"
    assert track_used(write_tracks(tmp_path / "one.mkv", NONE), None) is None


def test_a_track_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", NONE, DEFAULT, languages=("eng", "deu"))
    with pytest.raises(MediaError, match=r"no sound track 3; expected 1 to 2 \(1 .*eng.*; 2 .*deu"):
        read_audio(path, track=3)


@pytest.mark.parametrize(("last", "at"), [(True, 0.2), (False, 0.4)])
def test_a_track_without_a_decoder_is_passed_over_with_one_warning(
    tmp_path: Path, last: bool, at: float
) -> None:
    path = spatial(write_tracks(tmp_path / "a.mp4", DEFAULT, NONE, codec="aac"), last=last)
    warnings: list[str] = []
    sound = read_audio(path, on_warning=warnings.append)
    assert round(click_time(sound.samples, RATE), 2) == at
    assert probe_sound(path).codec == "aac"
    assert len(warnings) == 1 and "cannot decode" in warnings[0]


def test_a_file_of_undecodable_sound_says_so(tmp_path: Path) -> None:
    path = spatial(write_tracks(tmp_path / "a.mp4", DEFAULT, codec="aac"), last=True)
    for track, message in ((None, "holds no sound that"), (1, "sound track 1 is none that")):
        with pytest.raises(MediaError, match=f"{message} FFmpeg can decode; convert"):
            read_audio(path, track=track)


def test_a_dub_of_a_clip_with_spatial_audio_is_written_without_it(tmp_path: Path) -> None:
    clip = write_tracks(tmp_path / "a.mp4", DEFAULT, NONE, codec="aac", picture=True)
    spatial(clip, last=True)
    out, warnings = tmp_path / "out.mp4", list[str]()
    sound = AudioSource(clip)
    with VideoWriter(
        out, probe(clip), sound, extra_tracks_from=clip, on_warning=warnings.append
    ) as writer:
        for frames in read_frames(clip):
            writer.write(frames)
    with av.open(str(out)) as written:
        assert len(written.streams.audio) == 1
    assert len(warnings) == 1 and "cannot decode" in warnings[0]
    shift_audio(clip, tmp_path / "shifted.mp4", Fraction(1, 10), on_warning=warnings.append)
    assert abs(place(tmp_path / "shifted.mp4") - 0.3) <= 0.01


@pytest.mark.parametrize("track", [None, 1])
def test_new_sound_takes_the_place_of_the_track_that_was_used(
    tmp_path: Path, track: int | None
) -> None:
    clip = write_tracks(tmp_path / "a.mkv", NONE, DEFAULT, picture=True)
    shift_audio(clip, tmp_path / "out.mkv", Fraction(1, 10), track=track)
    used, other = (0.4, 0.2) if track is None else (0.2, 0.4)
    assert abs(place(tmp_path / "out.mkv", 1) - used - 0.1) <= 0.01
    assert place(tmp_path / "out.mkv", 2) == other


def test_a_dub_reads_the_chosen_track_and_reports_it(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "a.mkv", NONE, DEFAULT)
    face = write_video(tmp_path / "face.mp4", levels(5))
    for cut, at, number in ((Cut(), 0.4, 2), (Cut(audio_track=1), 0.2, 1)):
        inputs = read_audio_inputs([path], RATE, face=face, cut=cut, warn=lambda _: None)
        assert round(click_time(inputs.speech[0].samples, RATE), 2) == at
        assert inputs.output.track == cut.audio_track
        assert f"sound track {number} " in inputs.tracks[0]
