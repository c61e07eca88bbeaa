"""MP4 files whose edit lists join parts of their tracks, as editors and phones write them."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.media import level_of, levels, set_edit_list

from lipsync_core.media import probe, read_audio, read_frames, shift_audio

F = Fraction
RATE = 48000
CLICKS = (0.3, 0.7, 1.5, 1.9)  # seconds of the media, each louder than the one before


@pytest.fixture(scope="module", params=["aac", "pcm_s16le"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames at 25 fps with B-frames, a key frame every 12, and four clicks."""
    path = tmp_path_factory.mktemp("edit") / "whole.mov"
    wave = np.zeros((1, int(2.4 * RATE)), np.float32)
    for index, at in enumerate(CLICKS):
        wave[0, round(at * RATE) - 20 : round(at * RATE) + 20] = (index + 1) / 5 * np.hanning(40)
    with av.open(str(path), "w") as file:
        picture = file.add_stream("libx264", 25, options={"g": "12", "bf": "2", "crf": "5"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream(request.param, RATE, layout="mono")
        for index, image in enumerate(levels(60, width=64, height=48).numpy()):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = index, F(1, 25)
            file.mux(picture.encode(frame))
        form, samples = ("fltp", wave) if request.param == "aac" else ("s16", wave * 32767)
        voice = av.AudioFrame.from_ndarray(
            samples.astype(np.float32 if form == "fltp" else np.int16), form, "mono"
        )
        voice.sample_rate, voice.pts, voice.time_base = RATE, 0, F(1, RATE)
        file.mux([*sound.encode(voice), *sound.encode(None)])
        file.mux(picture.encode(None))
    return path


def edited(
    whole: Path, path: Path, edits: list[tuple[str | None, str]], sound: bool = True
) -> Path:
    """A copy with an edit list of both tracks; the media begin with what the encoders put first."""
    shutil.copy(whole, path)
    with av.open(str(whole), options={"ignore_editlist": "1"}) as file:
        priming = F(1024, RATE) if file.streams.audio[0].codec_context.name == "aac" else F(0)
    for track, first in enumerate((F(2, 25), priming)[: 1 + sound]):
        parts = [(None if at is None else F(at) + first, F(seconds)) for at, seconds in edits]
        set_edit_list(path, parts, track)
    return path


def shown(path: Path, start: int = 0) -> list[int]:
    return level_of(torch.cat([piece.pixels for piece in read_frames(path, start=start)]))


def clicks(path: Path, start: int = 0) -> dict[int, float]:
    """When each click sounds, by its number."""
    wave = read_audio(path, rate=None, start=start).samples[0].numpy()
    found = {}
    for at in np.flatnonzero((wave[1:-1] > wave[:-2]) & (wave[1:-1] >= wave[2:])) + 1:
        if wave[at] > 0.1:
            found[round(float(wave[at]) * 5) - 1] = (at + start) / RATE
    return found


@pytest.mark.parametrize(
    ("edits", "frames", "times"),
    [
        (
            [("0.2", "0.4"), ("1.4", "0.6")],
            [*range(5, 15), *range(35, 50)],
            {0: 0.1, 2: 0.5, 3: 0.9},
        ),
        (
            [("1.4", "0.6"), ("0.2", "0.4")],
            [*range(35, 50), *range(5, 15)],
            {2: 0.1, 3: 0.5, 0: 0.7},
        ),
        (  # a pause shows the last picture, in silence
            [("0.2", "0.4"), (None, "0.2"), ("1.4", "0.2")],
            [*range(5, 15), *[14] * 5, *range(35, 40)],
            {0: 0.1, 2: 0.7},
        ),
        (  # between two pictures: the one that is shown at that time stays for the rest of its own
            [("0.21", "0.4"), ("1.43", "0.4")],
            [*range(5, 15), *range(36, 46)],
            {0: 0.09, 2: 0.47},
        ),
    ],
)
def test_parts_are_joined_with_sound_and_picture_together(
    tmp_path: Path,
    whole: Path,
    edits: list[tuple[str | None, str]],
    frames: list[int],
    times: dict[int, float],
) -> None:
    path = edited(whole, tmp_path / "a.mov", edits)
    assert shown(path) == frames and probe(path).frames == len(frames)
    assert shown(path, 12) == frames[12:]
    backwards = torch.cat([piece.pixels for piece in read_frames(path, reverse=True)])
    assert level_of(backwards) == frames[::-1]
    assert clicks(path) == pytest.approx(times, abs=2 / RATE)
    later = {click: time for click, time in times.items() if time > 0.4}
    assert clicks(path, round(0.4 * RATE)) == pytest.approx(later, abs=2 / RATE)


def test_one_part_after_a_pause_is_left_to_ffmpeg(tmp_path: Path, whole: Path) -> None:
    path = edited(whole, tmp_path / "a.mov", [(None, "0.4"), ("0", "2")], sound=False)
    assert shown(path) == list(range(50))
    assert clicks(path) == pytest.approx({1: 0.3, 2: 1.1, 3: 1.5}, abs=2 / RATE)


def test_joined_parts_are_encoded_when_their_sound_is_moved(tmp_path: Path, whole: Path) -> None:
    warnings = list[str]()
    path = edited(whole, tmp_path / "a.mov", [("0.2", "0.4"), ("1.4", "0.6")])
    shift_audio(path, tmp_path / "b.mp4", F(1, 5), on_warning=warnings.append)
    assert shown(tmp_path / "b.mp4") == shown(path) and "encoded again" in warnings[0]
    assert clicks(tmp_path / "b.mp4") == pytest.approx({0: 0.3, 2: 0.7, 3: 1.1}, abs=0.001)
