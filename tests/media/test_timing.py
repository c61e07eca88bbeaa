"""Rate and length are measured on time stamps; what a header promises is not believed."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.media import LOSSLESS, click, level_of, levels, write_video

from lipsync_core.errors import MediaError
from lipsync_core.media import probe, probe_sound, read_audio, read_frames
from lipsync_core.media.clip import Cut, open_clip
from lipsync_core.media.clock_jumps import Stamp, find_jumps
from lipsync_core.media.frame_rate import rate_of_ticks

MS = Fraction(1, 1000)
RATES = [Fraction(n) for n in (2, 12, 15, 24, 25, 30, 48, 50, 60, 120)]
RATES += [Fraction(n * 1000, 1001) for n in (24, 30, 60)]


def count(path: Path) -> int:
    return sum(len(part.pixels) for part in read_frames(path))


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("tick", [MS, Fraction(1, 90_000)])
def test_the_rate_of_even_times_is_found_whatever_the_clock(fps: Fraction, tick: Fraction) -> None:
    for frames in (100, 1500):
        ticks = [int(i / fps / tick) for i in range(frames)]
        assert rate_of_ticks(ticks, tick, [None, 1 / tick]) == fps


@pytest.mark.parametrize("fps", [Fraction(7), Fraction(25, 2), Fraction(100, 3)])
def test_an_uncommon_constant_rate_is_kept_exactly(fps: Fraction) -> None:
    ticks = [round(i / fps * 90_000) for i in range(12)]
    assert rate_of_ticks(ticks, Fraction(1, 90_000), []) == fps


def test_an_odd_rate_of_the_header_is_kept_if_the_times_are_even() -> None:
    odd = Fraction(1350, 61)
    ticks = [round(i / odd * 16_000) for i in range(40)]
    assert rate_of_ticks(ticks, Fraction(1, 16_000), [odd]) == odd


@pytest.mark.parametrize("frames", [50, 300, 1500])
@pytest.mark.parametrize("dropped", [0, 0.05])
def test_jitter_and_dropped_frames_do_not_pull_the_rate(frames: int, dropped: float) -> None:
    chance = random.Random(3)
    kept = [i for i in range(frames) if chance.random() >= dropped]
    ticks = sorted({round(i * 1000 / 30 + chance.uniform(-4, 4)) for i in kept})
    assert rate_of_ticks(ticks, MS, [None, Fraction(1000)]) == 30


@pytest.mark.parametrize("still_first", [False, True])
def test_a_picture_that_stands_still_does_not_pull_the_rate(still_first: bool) -> None:
    gaps = [Fraction(1, 30)] * 40 + [Fraction(1)] * 10
    times = np.cumsum([0, *(reversed(gaps) if still_first else gaps)])
    ticks = [round(1000 * time) for time in times]
    assert rate_of_ticks(ticks, MS, [Fraction(559244, 94169)]) == 30


def test_two_pictures_close_together_do_not_set_the_rate() -> None:
    ticks = sorted([*range(0, 4000, 40), 401])
    assert rate_of_ticks(ticks, MS, []) == 25


def test_telecined_film_is_shown_at_24_frames() -> None:
    gaps = [1001 / 60 * (2 + i % 2) for i in range(600)]
    ticks = [round(time) for time in np.cumsum([0, *gaps])]
    assert rate_of_ticks(ticks, MS, [Fraction(60000, 1001)]) == Fraction(24000, 1001)


def test_an_uneven_rate_becomes_the_simplest_within_half_a_frame() -> None:
    chance = random.Random(0)
    times = np.cumsum([chance.uniform(0.03, 0.042) for _ in range(400)])
    rate = rate_of_ticks([round(1000 * time) for time in times], MS, [])
    assert rate is not None and rate.denominator < 50
    assert abs(rate * Fraction(times[-1] - times[0]) - 399) <= 0.6


def without_header_rate(path: Path, stamps: list[Fraction]) -> Path:
    """A WebM as browsers record it: no frame rate, no duration."""
    with av.open(str(path), "w", options={"live": "1"}) as out:
        stream = out.add_stream("libvpx", 30, options={"deadline": "realtime"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.time_base = MS
        for image, stamp in zip(levels(len(stamps)).numpy(), stamps, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(stamp * 1000), MS
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"\x23\xe3\x83")  # the element DefaultDuration becomes Void
    size = 4 + (data[at + 3] & 0x7F)
    data[at : at + size] = bytes([0xEC, 0x80 | (size - 2)]) + bytes(size - 2)
    path.write_bytes(data)
    return path


def test_a_browsers_recording_has_the_rate_of_its_time_stamps(tmp_path: Path) -> None:
    gaps = np.random.default_rng(3).choice([31, 33, 34, 35, 36, 67], 49)
    stamps = [Fraction(int(time), 1000) for time in np.cumsum([0, *gaps])]
    path = without_header_rate(tmp_path / "browser.webm", stamps)
    with av.open(str(path)) as container:  # the trap: the clock is offered as a rate
        assert container.streams.video[0].guessed_rate == 1000
    info = probe(path)
    assert info.fps == 30 and info.frames == count(path) == 57


def test_the_part_that_is_shown_sets_the_rate(tmp_path: Path) -> None:
    stamps = [Fraction(i, 2) for i in range(10)] + [5 + Fraction(i, 25) for i in range(20)]
    path = write_video(tmp_path / "a.mp4", levels(30), stamps=stamps, options={"g": "10"})
    assert open_clip(path, Cut(Fraction(5))).fps == 25
    slow = write_video(tmp_path / "b.mp4", levels(12), stamps=stamps[:10] + stamps[10:12])
    assert probe(slow).fps == 2


@pytest.mark.parametrize(
    ("suffix", "codec", "late"),
    [
        (".mkv", "libx264", 10),
        (".mpg", "mpeg2video", 0),
        (".ts", "libx264", 0),
        (".avi", "mpeg4", 0),
        (".mp4", "libx264", 0),
    ],
)
def test_frames_are_counted_and_not_promised(
    tmp_path: Path, suffix: str, codec: str, late: int
) -> None:
    # MPEG-2 and AVI know no time stamps but their own
    stamps = [late + Fraction(i, 25) for i in range(12)] if late else None
    path = tmp_path / f"a{suffix}"
    write_video(path, levels(12, width=64, height=64), codec=codec, options={}, stamps=stamps)
    assert probe(path).frames in (None, 12) and count(path) == 12


def test_a_sound_that_outlasts_the_picture_adds_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", 25)
        picture.width, picture.height, picture.pix_fmt = 32, 16, "yuv420p"
        sound = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        for image in levels(25).numpy():
            out.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 12_000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    assert probe(path).frames == 25


def test_only_a_bounded_part_of_a_long_file_is_read_and_its_end_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipsync_core.media.timing._PACKETS", 60)
    path = write_video(tmp_path / "long.mp4", levels(70).repeat(3, 1, 1, 1), options={"g": "20"})
    info = probe(path)
    assert (info.fps, info.frames) == (25, 210)


def test_a_file_written_again_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    assert probe(write_video(path, levels(5))).fps == 25
    assert probe(write_video(path, levels(6), fps=Fraction(50))).fps == 50


@pytest.mark.parametrize("fps", [None, Fraction(50)])
def test_a_cut_that_begins_after_the_end_says_so(tmp_path: Path, fps: Fraction | None) -> None:
    path = write_video(tmp_path / "a.mp4", levels(20))
    assert open_clip(path, Cut(Fraction(3, 4), fps=fps)).first > 0
    with pytest.raises(
        MediaError, match=r"holds no frame from 5 s on; begin the cut earlier \(it lasts 0\.80 s\)"
    ):
        open_clip(path, Cut(Fraction(5), fps=fps))


def cut_short(path: Path) -> Path:
    data = path.read_bytes()
    short = path.with_stem("cut")
    short.write_bytes(data[: len(data) * 6 // 10])
    return short


def noise(path: Path, codec: str, *, sound: float = 0) -> Path:
    """50 frames at 25 fps, and ``sound`` seconds of silence."""
    chance = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, 25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        track = out.add_stream("ac3", rate=48_000) if sound else None
        for _ in range(50):
            image = chance.integers(0, 255, (64, 64, 3), np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
        if track is not None:
            shape = (1, round(48_000 * sound))
            frame = av.AudioFrame.from_ndarray(np.zeros(shape, np.float32), "fltp", "mono")
            frame.sample_rate = 48_000
            out.mux([*track.encode(frame), *track.encode(None)])
    return path


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "mpeg4"), (".ts", "mpeg2video")])
def test_a_download_that_broke_off_is_warned_about(tmp_path: Path, suffix: str, codec: str) -> None:
    warnings: list[str] = []
    path = noise(tmp_path / f"a{suffix}", codec)
    list(read_frames(path, on_warning=warnings.append))
    assert not warnings
    list(read_frames(cut_short(path), on_warning=warnings.append))
    assert any("incomplete" in warning for warning in warnings)


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_whole_file_whose_sound_outlasts_its_picture_is_not_incomplete(
    tmp_path: Path, suffix: str
) -> None:
    warnings: list[str] = []
    path = noise(tmp_path / f"a{suffix}", "mpeg4", sound=3)
    list(read_frames(path, on_warning=warnings.append))
    assert not warnings


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git-lfs pointer"),
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.jpg", "a.wav"])
def test_web_pages_and_lfs_pointers_are_named(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    for read in (probe, probe_sound):
        with pytest.raises(MediaError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize("later", [0, 7200])  # the second part's clock starts again, or jumps ahead
def test_transport_streams_that_were_joined_are_played_one_after_another(
    tmp_path: Path, later: int
) -> None:
    path, warnings = tmp_path / "joined.ts", list[str]()
    for part, begin in enumerate((0, later, 2 * later)):
        with av.open(str(tmp_path / "part.ts"), "w") as file:
            picture = file.add_stream("libx264", 25, options=LOSSLESS)
            picture.width, picture.height, picture.pix_fmt = 32, 16, "yuv420p"
            sound = file.add_stream("mp2", 48000, layout="mono")
            for index, image in enumerate(levels(60)[part * 20 : part * 20 + 20].numpy()):
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = 25 * begin + index, Fraction(1, 25)
                file.mux(picture.encode(frame))
            samples = (click(48000, 0.8, 0.4) * 32767).astype(np.int16)
            voice = av.AudioFrame.from_ndarray(samples, "s16", "mono")
            voice.sample_rate, voice.time_base = 48000, Fraction(1, 48000)
            voice.pts = 48000 * begin
            file.mux([*picture.encode(None), *sound.encode(voice), *sound.encode(None)])
        with path.open("ab") as joined:
            joined.write((tmp_path / "part.ts").read_bytes())
    pixels = torch.cat([part.pixels for part in read_frames(path, on_warning=warnings.append)])
    shown = level_of(pixels)
    assert sorted(set(shown)) == list(range(60)) and shown == sorted(shown) and len(shown) < 65
    assert probe(path).fps == 25 and probe(path).frames == len(shown)
    assert any("clock jumps (2 times)" in warning for warning in warnings)
    wave = read_audio(path, rate=None).samples[0]
    for part in range(3):  # the click is heard in the middle of each part
        first, end = shown.index(20 * part) / 25, (shown.index(20 * part) + 20) / 25
        heard = int(wave[int(first * 48000) : int(end * 48000)].argmax()) / 48000
        assert heard == pytest.approx(0.4, abs=0.05)


def test_a_hole_in_one_stream_is_no_jump_of_the_clock() -> None:
    picture = [Stamp(1000 * i, 0, 3600 * i, 3600 * i + 3600) for i in range(750)]
    sound = [
        Stamp(1000 * i + 9, 1, 3600 * i, 3600 * i + 3600) for i in (*range(50), *range(700, 750))
    ]
    assert find_jumps([*picture, *sound]) == ()
    later = [one._replace(position=one.position + 10**6) for one in [*picture, *sound]]
    (jump,) = find_jumps([*picture, *sound, *later])
    assert (jump.position, jump.shift) == (10**6, 750 * 3600)
