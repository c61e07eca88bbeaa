"""Score, shift, set: the offset that is found is fixed."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_host import Cancelled, Host, VideoComponents, VideoFromComponents, VideoFromFile
from loading import Pack


def test_a_late_sound_is_found_and_mended(pack: Pack, host: Host, talking: Path) -> None:
    video = VideoFromFile(str(talking))
    sound = pack.run("LoadAudio", video=video)[0]
    (late,) = pack.run("ShiftAudio", audio=sound, amount=200.0, unit="ms")
    offset, offset_ms, _, _, plot, words = pack.run("SyncScore", media=video, audio=late)
    assert (offset, offset_ms) == (-5.0, -200.0) and "5 frames late" in words
    assert plot.shape[0] == 1 and 0 < float(plot.mean()) < 1
    (fixed,) = pack.run("ShiftAudio", audio=late, amount=offset)
    (whole,) = pack.run("SetAudio", video=video, audio=fixed)
    assert pack.run("SyncScore", media=whole)[5] == "in sync"
    assert [value for value, _, _ in host.bar][-1] == 1000


def test_images_are_scored_like_the_video_and_leave_no_file(
    pack: Pack, host: Host, talking: Path
) -> None:
    media = pack.part("lipsync_core.media")
    images = torch.cat([piece.pixels for piece in media.read_frames(talking)]).float() / 255
    video = VideoFromFile(str(talking))
    audio = pack.run("LoadAudio", video=video)[0]
    by_video, by_images = (
        pack.run("SyncScore", media=video),
        pack.run("SyncScore", media=images, audio=audio),
    )
    assert by_images[0] == by_video[0]
    assert by_images[2] == pytest.approx(by_video[2], abs=0.02)
    assert host.temporary() == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda clip: VideoFromFile(str(clip(sound=False))), "no sound"),
        (lambda clip: VideoFromFile(str(clip())), "no face"),
        (lambda clip: VideoFromFile(str(clip(frames=3))), "expected"),
        (lambda clip: torch.zeros(5, 32, 32, 3), "no sound"),
    ],
)
def test_what_cannot_be_scored_says_why(
    pack: Pack, clip: Callable[..., Path], make: Any, says: str
) -> None:
    with pytest.raises(pack.part("lipsync_core.errors").LipSyncError, match=says):
        pack.run("SyncScore", media=make(clip))


def test_without_a_verdict_the_offset_is_zero(
    pack: Pack, talking: Path, speech: dict[str, Any]
) -> None:
    silence = {"waveform": torch.zeros(1, 1, 32000), "sample_rate": 16000}
    offset, offset_ms, *_, words = pack.run(
        "SyncScore", media=VideoFromFile(str(talking)), audio=silence
    )
    assert (offset, offset_ms) == (0.0, 0.0) and words.startswith("no verdict: ")


def test_scoring_can_be_cancelled(pack: Pack, host: Host, talking: Path) -> None:
    host.cancel_at = 3
    with pytest.raises(Cancelled):
        pack.run("SyncScore", media=VideoFromFile(str(talking)))


RAMP = {"waveform": torch.arange(1.0, 9.0)[None, None] / 10, "sample_rate": 100}


@pytest.mark.parametrize(
    ("inputs", "tenths"),
    [
        ({"amount": 0.0}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"amount": 30.0, "unit": "ms"}, [0, 0, 0, 1, 2, 3, 4, 5]),
        ({"amount": -20.0, "unit": "ms"}, [3, 4, 5, 6, 7, 8, 0, 0]),
        ({"amount": 1.0}, [0, 0, 0, 0, 1, 2, 3, 4]),
        ({"amount": 0.5, "fps": 50.0}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"amount": 100.0}, [0] * 8),
        ({"amount": -100.0}, [0] * 8),
    ],
)
def test_sound_is_shifted_and_as_long_as_before(
    pack: Pack, inputs: dict[str, Any], tenths: list[int]
) -> None:
    (audio,) = pack.run("ShiftAudio", audio=RAMP, **inputs)
    assert audio["waveform"][0, 0].tolist() == pytest.approx([value / 10 for value in tenths])
    assert audio["sample_rate"] == 100


def pictures(pack: Pack, path: str) -> torch.Tensor:
    read = pack.part("lipsync_core.media").read_frames(Path(path))
    return torch.cat([piece.pixels for piece in read])


def test_a_videos_picture_is_copied(
    pack: Pack, host: Host, clip: Callable[..., Path], speech: dict[str, Any]
) -> None:
    path = clip()
    (video,) = pack.run("SetAudio", video=VideoFromFile(str(path)), audio=speech)
    made = video.get_stream_source()
    assert Path(made).is_relative_to(host.base / "temp") and made.endswith(".mp4")
    assert torch.equal(pictures(pack, made), pictures(pack, str(path)))
    sound = pack.run("LoadAudio", video=video)[0]
    wanted = speech["waveform"][0]
    got = sound["waveform"][0]
    # MP4's edit list states the end in milliseconds; what follows is padding of the codec
    assert abs(got.shape[1] - wanted.shape[1]) <= speech["sample_rate"] / 1000
    common = min(got.shape[1], wanted.shape[1])
    share = torch.nn.functional.cosine_similarity(got[:, :common], wanted[:, :common])
    assert sound["sample_rate"] == speech["sample_rate"] and float(share) > 0.98


def test_a_trimmed_video_gets_its_part(
    pack: Pack, clip: Callable[..., Path], speech: dict[str, Any]
) -> None:
    path = clip()
    trimmed = VideoFromFile(str(path), start_time=0.2, duration=0.4)
    (video,) = pack.run("SetAudio", video=trimmed, audio=speech)
    made = pictures(pack, video.get_stream_source()).float().mean((1, 2, 3))
    wanted = pictures(pack, str(path))[5:15].float().mean((1, 2, 3))
    assert made.shape == wanted.shape and float((made - wanted).abs().max()) < 2
    # ends with the picture
    assert pack.run("LoadAudio", video=video)[1] == pytest.approx(0.4, abs=0.05)


def test_a_video_in_memory_becomes_one_that_players_show(
    pack: Pack, speech: dict[str, Any]
) -> None:
    images = torch.full((6, 16, 16, 3), 0.5)
    video = VideoFromComponents(VideoComponents(images, Fraction(10)))
    (made,) = pack.run("SetAudio", video=video, audio=speech)
    path = Path(made.get_stream_source())
    (first, *_) = pack.part("lipsync_core.media").read_coded(path)
    assert type(first).__name__ == "YuvFrames"  # 4:2:0, not the lossless RGB of the temporary file
    assert pack.part("lipsync_core.media").probe(path).fps == 10


def test_setting_sound_can_be_cancelled(
    pack: Pack, host: Host, clip: Callable[..., Path], speech: Any
) -> None:
    path = clip(frames=100)
    host.cancel_at = 2
    with pytest.raises(Cancelled):
        pack.run("SetAudio", video=VideoFromFile(str(path)), audio=speech)
    assert host.temporary() == []
