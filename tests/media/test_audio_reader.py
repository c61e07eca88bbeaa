import math
import re
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.media import click, click_time, levels, write_sound, write_video

from lipsync_core.errors import MediaError
from lipsync_core.media import (
    AudioSource,
    VideoWriter,
    audio_reader,
    probe,
    probe_sound,
    read_audio,
    read_frames,
    resample_pyav,
)
from lipsync_core.types import Audio


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("a.wav", "pcm_s16le", 8000, "mono"),
        ("b.wav", "pcm_u8", 22050, "stereo"),
        ("c.wav", "pcm_f32le", 96000, "5.1"),
        ("d.flac", "flac", 44100, "stereo"),
        ("e.mp3", "libmp3lame", 44100, "stereo"),
        ("f.m4a", "aac", 48000, "mono"),
        ("g.opus", "libopus", 48000, "stereo"),
        ("h.wav", "pcm_s24le", 16000, "3.0"),
    ],
)
def test_any_format_rate_and_channel_count(
    tmp_path: Path, name: str, codec: str, rate: int, layout: str
) -> None:
    channels = {"mono": 1, "stereo": 2, "3.0": 3, "5.1": 6}[layout]
    path = write_sound(
        tmp_path / name, click(rate, 1.0, 0.4, channels), rate, codec=codec, layout=layout
    )
    info = probe_sound(path)
    assert (info.rate, info.channels) == (rate, channels)
    audio = read_audio(path)
    assert (
        audio.rate == 16000 and audio.samples.shape[0] == 1 and audio.samples.dtype == torch.float32
    )
    assert abs(audio.samples.shape[1] - 16000) <= 1200
    assert abs(click_time(audio.samples, 16000) - 0.4) <= 0.001
    assert 0.5 < float(audio.samples.max()) < 1.0
    own = read_audio(path, rate=None, mono=False)
    assert own.rate == rate and own.samples.shape[0] == channels
    assert abs(click_time(own.samples, rate) - 0.4) <= 0.001


def test_mono_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    samples = np.stack([np.full(4000, 0.5), np.full(4000, -0.25)]).astype(np.float32)
    path = write_sound(tmp_path / "s.wav", samples, 8000, codec="pcm_f32le", layout="stereo")
    assert torch.allclose(read_audio(path, rate=8000).samples, torch.full((1, 4000), 0.125))
    assert torch.equal(read_audio(path, rate=None, mono=False).samples, torch.from_numpy(samples))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(
    ("delay", "at"), [(Fraction(0), 0.5), (Fraction(1, 4), 0.75), (Fraction(-1, 10), 0.4)]
)
def test_the_sound_keeps_its_place_beside_the_picture(
    tmp_path: Path, suffix: str, delay: Fraction, at: float
) -> None:
    samples = click(48000, 1.0, 0.5)
    path = write_sound(
        tmp_path / f"a{suffix}", samples, 48000, codec="aac", delay=delay, picture_frames=25
    )
    audio = read_audio(path)
    assert abs(click_time(audio.samples, 16000) - at) <= 0.001
    assert float(audio.samples[:, : int(16000 * (at - 0.05))].abs().max()) < 0.01


@pytest.mark.parametrize("rate", [16000, 11025, 44100])
def test_parts_equal_slices_of_the_whole(tmp_path: Path, rate: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 44100 * 7)).astype(np.float32)
    path = write_sound(tmp_path / "n.wav", noise, 44100, codec="pcm_f32le", layout="stereo")
    everything = read_audio(path, rate=rate).samples
    total = everything.shape[1]
    assert total == math.ceil(7 * rate)
    for start, stop in (
        (0, 100),
        (1, 2),
        (6 * rate + 7, 6 * rate + 5000),
        (total - 50, total + 50),
        (total, None),
        (9, 9),
    ):
        part = read_audio(path, rate=rate, start=start, stop=stop).samples
        assert part.shape == everything[:, start:stop].shape
        assert torch.allclose(part, everything[:, start:stop], atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new"), [(44100, 16000), (22050, 16000), (48000, 16000), (8000, 16000), (16000, 44100)]
)
def test_resampling_matches_the_analytic_signal(old: int, new: int) -> None:
    def wave(rate: int, count: int) -> torch.Tensor:
        time = torch.arange(count, dtype=torch.float64) / rate
        low = torch.sin(2 * math.pi * 440 * time + 0.3) + 0.5 * torch.sin(2 * math.pi * 3000 * time)
        return torch.stack([low, torch.cos(2 * math.pi * 1234 * time)]).float()

    got = resample_pyav(wave(old, old), old, new)
    assert got.shape == (2, new)
    assert (got - wave(new, new))[:, 200:-200].abs().max() < 2e-3


def test_resampling_leaves_out_what_the_new_rate_cannot_hold() -> None:
    time = torch.arange(48000, dtype=torch.float64) / 48000
    assert (
        resample_pyav(torch.sin(2 * math.pi * 9000 * time)[None], 48000, 16000)[:, 200:-200]
        .abs()
        .max()
        < 1e-4
    )


@pytest.mark.parametrize("count", [0, 1, 100, 441])
def test_resampling_short_sounds(count: int) -> None:
    assert resample_pyav(torch.ones(2, count), 44100, 16000).shape == (
        2,
        math.ceil(count * 16000 / 44100),
    )


def test_silence_stays_silence(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "s.wav", np.zeros((1, 8000), np.float32), 8000)
    assert not read_audio(path).samples.any()


def test_samples_that_are_no_numbers_are_errors(tmp_path: Path) -> None:
    samples = np.zeros((1, 8000), np.float32)
    samples[0, 4000] = np.nan
    path = write_sound(tmp_path / "nan.wav", samples, 8000, codec="pcm_f32le")
    with pytest.raises(MediaError, match="NaN or infinite"):
        read_audio(path)
    with pytest.raises(ValueError, match=r"1 samples .* NaN or infinite, the first at 0\.500 s"):
        AudioSource(Audio(torch.from_numpy(samples), 8000))


def test_wrong_arguments_are_value_errors(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "s.wav", np.zeros((1, 100), np.float32), 8000)
    for options in ({"rate": 0}, {"start": -1}, {"start": 2, "stop": 1}):
        with pytest.raises(ValueError, match="expected"):
            read_audio(path, **options)
    with pytest.raises(ValueError, match="expected"):
        AudioSource(path, start=Fraction(2), stop=Fraction(1))


def dubbed(folder: Path, name: str, sound: AudioSource, frames: int = 50) -> Path:
    face = write_video(folder / "face.mp4", levels(frames))
    with VideoWriter(folder / name, probe(face), sound) as out:
        for part in read_frames(face):
            out.write(part)
    return folder / name


@pytest.mark.parametrize("output", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s16le", 44100),
        ("a.wav", "pcm_s16le", 11025),
        ("a.mp3", "libmp3lame", 44100),
        ("a.m4a", "aac", 48000),
        ("a.mkv", "aac", 48000),
        ("a.opus", "libopus", 48000),
        ("a.flac", "flac", 48000),
    ],
)
def test_a_click_stays_where_it_was(
    tmp_path: Path, output: str, name: str, codec: str, rate: int
) -> None:
    path = write_sound(tmp_path / name, click(rate, 2.0, 0.7), rate, codec=codec)
    audio = read_audio(dubbed(tmp_path, f"out{output}", AudioSource(path)), rate=48000)
    assert abs(click_time(audio.samples, 48000) - 0.7) <= 0.001


@pytest.mark.parametrize("output", [".mp4", ".mkv"])
@pytest.mark.parametrize("delay", [Fraction(1, 4), Fraction(-1, 10)])
def test_a_delayed_or_early_track_stays_where_it_was(
    tmp_path: Path, output: str, delay: Fraction
) -> None:
    path = write_sound(
        tmp_path / "a.mp4",
        click(48000, 2.0, 0.7),
        48000,
        codec="aac",
        delay=delay,
        picture_frames=50,
    )
    audio = read_audio(dubbed(tmp_path, f"out{output}", AudioSource(path)), rate=48000)
    assert abs(click_time(audio.samples, 48000) - 0.7 - delay) <= 0.001


def test_a_cut_in_the_sound_is_exact(tmp_path: Path) -> None:
    voice = click(48000, 3.0, 1.0) + 0.9 * click(48000, 3.0, 1.6)
    path = write_sound(tmp_path / "a.m4a", voice, 48000, codec="aac")
    out = dubbed(tmp_path, "out.mp4", AudioSource(path, Fraction(1, 3), Fraction(3, 2)))
    audio = read_audio(out, rate=48000)
    assert abs(click_time(audio.samples, 48000) - 2 / 3) <= 0.001
    after = round((7 / 6 + 0.022) * 48000)
    assert audio.samples[:, after:].abs().max() < 0.01  # silence up to the end of the picture
    assert abs(audio.samples.shape[1] / 48000 - 2) <= 0.022


def test_sound_from_memory_at_its_own_rate_and_channels(tmp_path: Path) -> None:
    samples = torch.from_numpy(click(22050, 2.0, 0.5, 2))
    out = dubbed(tmp_path, "out.mp4", AudioSource(Audio(samples, 22050)))
    info = probe_sound(out)
    assert (info.rate, info.channels, info.codec) == (22050, 2, "aac")
    assert abs(click_time(read_audio(out, rate=None).samples, 22050) - 0.5) <= 0.001


def test_what_the_container_takes_is_copied_bit_for_bit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 96000)).astype(np.float32)
    for codec, name in (("aac", "a.m4a"), ("libmp3lame", "a.mp3")):
        path = write_sound(tmp_path / name, noise, 48000, codec=codec)
        out = dubbed(tmp_path, f"{codec}.mp4", AudioSource(path))
        before, after = read_audio(path, rate=None).samples, read_audio(out, rate=None).samples
        count = min(before.shape[1], after.shape[1]) - 1200
        assert count > 90_000
        assert torch.equal(before[:, :count], after[:, :count])


@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("a.m4a", "aac")])
def test_the_sound_ends_with_the_picture(tmp_path: Path, name: str, codec: str) -> None:
    path = write_sound(tmp_path / name, click(48000, 5.0, 0.5), 48000, codec=codec)
    audio = read_audio(dubbed(tmp_path, "out.mp4", AudioSource(path), frames=25), rate=48000)
    assert 48000 <= audio.samples.shape[1] <= 48000 + 1024


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "aac", 48000),
        ("a.m4a", "aac", 16000),
        ("a.mp4", "aac", 44100),
        ("a.mp4", "libmp3lame", 44100),
        ("a.mov", "pcm_s16le", 48000),
    ],
)
def test_padding_after_the_end_of_an_edit_list_is_no_sound(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = write_sound(tmp_path / name, click(rate, 1.0, 0.5), rate, codec=codec)
    assert read_audio(path, rate=None).samples.shape[1] == rate


def test_an_end_stated_much_too_early_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sound(tmp_path / "a.mp4", click(48000, 1.0, 0.8), 48000, codec="aac")
    monkeypatch.setattr(audio_reader, "padding_begins", lambda *_: Fraction(1, 2))
    sound = read_audio(path, rate=None).samples
    assert sound.shape[1] >= 48000 and abs(click_time(sound, 48000) - 0.8) <= 0.001


def wav(path: Path, size: int, kept: int) -> Path:
    """A second of PCM whose header states ``size`` bytes, and which holds ``kept``."""
    samples = (click(16000, 1.0, 0.3)[0] * 32767).astype("<i2").tobytes()
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    riff = b"RIFF" + struct.pack("<I", min(size + 36, 0xFFFFFFFF)) + b"WAVE"
    path.write_bytes(riff + form + b"data" + struct.pack("<I", size) + samples[:kept])
    return path


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF - 36, 32000])
def test_streamed_wav_headers_are_no_damage(tmp_path: Path, size: int) -> None:
    warnings: list[str] = []
    sound = read_audio(wav(tmp_path / "a.wav", size, 32000), on_warning=warnings.append)
    assert sound.samples.shape[1] == 16000 and warnings == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mkv", "a.m4a"])
def test_a_sound_that_is_cut_off_is_warned_about(tmp_path: Path, name: str) -> None:
    path, warnings = tmp_path / name, list[str]()
    if name == "a.wav":
        wav(path, 32000, 16000)
    else:
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 48000)).astype(np.float32)
        codec = "flac" if name == "a.flac" else "aac"
        options = {"movflags": "faststart"} if name == "a.m4a" else {}
        write_sound(path, noise, 48000, codec=codec, options=options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    read_audio(path, on_warning=warnings.append)
    promise = rf"{name}: the sound ends at 0\.\d\d of the 1\.0\d s that its header promises"
    assert sum(re.match(promise, warning) is not None for warning in warnings) == 1
    read_audio(path, stop=1000, on_warning=pytest.fail)


def test_channels_that_change_are_converted_to_those_of_the_beginning(tmp_path: Path) -> None:
    path, warnings = tmp_path / "a.ts", list[str]()  # as broadcasts change between programs
    for layout, channels in (("stereo", 2), ("mono", 1)):
        part = write_sound(
            tmp_path / "part.ts", click(48000, 1, 0.5, channels), 48000, codec="mp2", layout=layout
        )
        with path.open("ab") as joined:
            joined.write(part.read_bytes())
    sound = read_audio(path, rate=None, mono=False, on_warning=warnings.append).samples
    assert sound.shape[0] == 2 and click_time(sound[:, :48000], 48000) == pytest.approx(
        0.5, abs=0.02
    )
    assert click_time(sound[:, 48000:], 48000) == pytest.approx(0.5, abs=0.05)
    assert sum("channels of the sound change" in warning for warning in warnings) == 1
