"""Which channels of a sound become the speech."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.media import click, click_time, levels, write_sound, write_video

from lipsync_core.audio.ops import mix_to_mono
from lipsync_core.media import AudioSource, VideoWriter, probe, read_audio, read_frames
from lipsync_core.media.channels import useful_channels
from lipsync_core.types import Audio

RATE = 8000


def noise(level: float, seed: int = 0, seconds: float = 1.0) -> np.ndarray:
    count = round(RATE * seconds)
    return (np.random.default_rng(seed).normal(0, level, count)).astype(np.float32)


VOICE, OTHER = noise(0.1), noise(0.1, 1)
NOTHING = 0 * VOICE


@pytest.mark.parametrize(
    ("layout", "channels", "kept", "warning"),
    [
        ("stereo", [VOICE, VOICE], [0, 1], None),
        ("stereo", [VOICE, OTHER], [0, 1], None),
        ("stereo", [VOICE, 0.3 * VOICE], [0, 1], None),
        ("stereo", [VOICE, -VOICE], [0], "cancel each other out"),
        ("stereo", [0.7 * VOICE, -VOICE], [1], "cancel each other out"),
        ("stereo", [NOTHING, VOICE], [1], "only channel 2 of 2 holds sound"),
        ("stereo", [VOICE, 0.05 * OTHER], [0], "only channel 1 of 2 holds sound"),
        ("stereo", [NOTHING, NOTHING], [0, 1], None),
        ("stereo", [VOICE, 0.002 * OTHER + 0.5], [0], "only channel 1 of 2 holds sound"),
        ("5.1", [OTHER, OTHER, VOICE, OTHER, NOTHING, NOTHING], [2], None),
        ("5.1", [5 * OTHER, 5 * OTHER, 0.2 * VOICE, NOTHING, OTHER, OTHER], [2], None),
        ("5.1", [VOICE, VOICE, NOTHING, OTHER, NOTHING, NOTHING], [0, 1], None),
        ("7.1", [OTHER, OTHER, VOICE, *[NOTHING] * 5], [2], None),
        ("quad", [VOICE, VOICE, NOTHING, NOTHING], [0, 1], None),
        ("3.0", [OTHER, OTHER, VOICE], [2], None),
    ],
)
def test_speech_keeps_its_level(
    tmp_path: Path, layout: str, channels: list[np.ndarray], kept: list[int], warning: str | None
) -> None:
    samples = np.stack(channels).astype(np.float32)
    path = write_sound(tmp_path / "a.wav", samples, RATE, codec="pcm_f32le", layout=layout)
    warnings: list[str] = []
    sound = read_audio(path, rate=RATE, on_warning=warnings.append)
    assert torch.allclose(sound.samples[0], torch.from_numpy(samples[kept].mean(0)), atol=1e-6)
    assert len(warnings) == (warning is not None) and (warning or "") in "".join(warnings)
    # parts are read like the whole
    part = read_audio(path, rate=RATE, start=5000, stop=5010).samples
    assert torch.equal(part, sound.samples[:, 5000:5010])
    assert len(read_audio(path, mono=False).samples) == len(samples)


@pytest.mark.parametrize(
    ("channels", "kept", "warning"),
    [
        ([VOICE, -VOICE], [0], "the audio: the channels cancel"),
        ([OTHER, OTHER, VOICE, OTHER, NOTHING, NOTHING], [2], None),
        ([*[OTHER] * 2, VOICE, *[OTHER] * 5], [2], None),
        ([VOICE, VOICE, NOTHING, NOTHING], [0, 1], None),
        ([VOICE], [0], None),
    ],
)
def test_sound_in_memory_is_mixed_like_that_of_a_file(
    channels: list[np.ndarray], kept: list[int], warning: str | None
) -> None:
    samples, warnings = torch.from_numpy(np.stack(channels)), list[str]()
    mono = mix_to_mono(Audio(samples, RATE), warnings.append)
    assert torch.allclose(mono.samples, samples[kept].mean(0, keepdim=True))
    assert len(warnings) == (warning is not None) and (warning or "") in "".join(warnings)


def test_a_channel_is_left_out_only_after_long_listening() -> None:
    silence = np.zeros((1, RATE), np.float32)
    alone = np.concatenate([VOICE[None], silence])
    both = np.concatenate([silence, VOICE[None]])
    turns = [alone] * 60 + [both] * 60  # one microphone per speaker; the first speaks a minute
    assert useful_channels(turns, RATE, ["FL", "FR"]).indices == (0, 1)


def test_no_more_is_read_than_needed() -> None:
    read = 0

    def blocks(block: np.ndarray):
        nonlocal read
        for _ in range(3600):
            read += 1
            yield block

    assert useful_channels(blocks(np.stack([VOICE, VOICE])), RATE, ["FL", "FR"]).indices == (0, 1)
    assert read == 30
    read = 0
    center = np.stack([OTHER, OTHER, VOICE, OTHER, OTHER, OTHER])
    assert useful_channels(blocks(center), RATE, [""] * 6).indices == (2,)
    assert read == 1


def test_a_center_that_speaks_late_is_found() -> None:
    titles = np.stack([VOICE, VOICE, NOTHING, NOTHING, NOTHING, NOTHING])
    talk = np.stack([NOTHING, NOTHING, VOICE, NOTHING, NOTHING, NOTHING])
    names = ["FL", "FR", "FC", "LFE", "BL", "BR"]
    assert useful_channels([titles] * 300 + [talk], RATE, names).indices == (2,)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_eight_channels_are_written_and_read(tmp_path: Path, suffix: str) -> None:
    rate = 48000
    channels = np.stack([0.1 * click(rate, 0.4, 0.02 * (k + 5))[0] for k in range(8)])
    face = write_video(tmp_path / "face.mp4", levels(10))
    with VideoWriter(
        tmp_path / f"out{suffix}", probe(face), AudioSource(Audio(torch.from_numpy(channels), rate))
    ) as out:
        for frames in read_frames(face):
            out.write(frames)
    sound = read_audio(tmp_path / f"out{suffix}", rate=None, mono=False).samples
    places = [click_time(channel[None], rate) for channel in sound]
    assert [round(50 * place) - 5 for place in places] == list(range(8))
