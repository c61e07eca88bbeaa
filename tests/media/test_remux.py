"""A clip with its sound moved: the picture bit for bit, the sound to the sample."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers.media import (
    click,
    click_time,
    cut_copy,
    level_of,
    levels,
    set_edit_list,
    write_sound,
    write_video,
)

from lipsync_core.errors import MediaError
from lipsync_core.media import (
    AudioSource,
    VideoWriter,
    probe,
    probe_sound,
    read_audio,
    read_frames,
    shift_audio,
    suffix_for_copy,
)
from lipsync_core.types import Audio, Frames, VideoInfo


def moving(count: int) -> torch.Tensor:
    """A bright square that wanders over noise: the encoder takes B-frames for it."""
    frames = torch.randint(
        0, 60, (1, 48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    frames = frames.repeat(count, 1, 1, 1)
    for i in range(count):
        frames[i, 10:26, i % 48 : i % 48 + 16] = 220
    return frames


def clip(path: Path, *, at: float = 0.5, rate: int = 48000, seconds: float = 1.2) -> Path:
    """30 frames at 25 fps with B-frames and a click at ``at`` seconds."""
    sound = AudioSource(Audio(torch.from_numpy(click(rate, seconds, at)), rate))
    with VideoWriter(path, VideoInfo(64, 48, Fraction(25), None), sound, preset="medium") as out:
        out.write(Frames(moving(30)))
    return path


def pixels(path: Path) -> torch.Tensor:
    return torch.cat([piece.pixels for piece in read_frames(path)])


def heard(path: Path) -> float:
    return click_time(read_audio(path, rate=None).samples, probe_sound(path).rate)


@pytest.mark.parametrize("source", [".mp4", ".mkv"])
@pytest.mark.parametrize("target", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("delay", [Fraction(3, 25), Fraction(-7, 25), Fraction(0)])
def test_the_sound_moves_and_the_picture_stays(
    tmp_path: Path, source: str, target: str, delay: Fraction
) -> None:
    src, out = clip(tmp_path / f"a{source}"), tmp_path / f"b{target}"
    with av.open(str(src)) as file:
        order = [packet.pts for packet in file.demux(video=0) if packet.pts is not None]
    assert order != sorted(order), "the sample has no B-frames"
    shift_audio(src, out, delay)
    assert torch.equal(pixels(out), pixels(src)) and probe(out).fps == probe(src).fps == 25
    exact = 0.001 if ".mkv" in (source, target) else 2 / 48000  # Matroska counts in milliseconds
    assert heard(out) - heard(src) == pytest.approx(float(delay), abs=exact)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([src.name, out.name])


def test_nothing_is_cut_at_the_end(tmp_path: Path) -> None:
    src, out = clip(tmp_path / "a.mp4", at=1.15), tmp_path / "b.mp4"
    shift_audio(src, out, Fraction(1, 5))
    assert heard(out) == pytest.approx(1.35, abs=0.001)  # after the last frame, at 1.2 s


def test_another_sound_and_further_tracks(tmp_path: Path) -> None:
    src, voice = tmp_path / "a.mkv", write_sound(tmp_path / "v.wav", click(16000, 1, 0.3), 16000)
    with av.open(str(src), "w") as file:  # two sound tracks; the second stays as it is
        picture = file.add_stream("libx264", 25)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        sounds = [file.add_stream("pcm_s16le", 16000, layout="mono") for _ in range(2)]
        for _ in range(25):
            file.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(picture.encode(None))
        for at, sound in zip((0.5, 0.7), sounds, strict=True):
            frame = av.AudioFrame.from_ndarray(
                (click(16000, 1, at) * 32767).astype(np.int16), "s16", "mono"
            )
            frame.sample_rate, frame.pts = 16000, 0
            file.mux([*sound.encode(frame), *sound.encode(None)])
    shift_audio(src, tmp_path / "b.mkv", Fraction(1, 10), audio=voice)
    assert heard(tmp_path / "b.mkv") == pytest.approx(0.4, abs=0.001)
    with av.open(str(tmp_path / "b.mkv")) as file:
        second = np.concatenate([f.to_ndarray() for f in file.decode(audio=1)], axis=1)
    assert np.abs(second[0].astype(int)).argmax() / 16000 == pytest.approx(0.7, abs=0.001)


def test_sound_from_memory_takes_the_place_of_the_files(tmp_path: Path) -> None:
    src, out, steps = clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", list[tuple[int, int]]()
    voice = Audio(torch.from_numpy(click(16000, 1, 0.3)), 16000)
    shift_audio(
        src,
        out,
        Fraction(1, 10),
        audio=voice,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert torch.equal(pixels(out), pixels(src))
    assert heard(out) == pytest.approx(0.4, abs=0.001)
    assert probe_sound(out).rate == 16000


@pytest.mark.parametrize("count", [1, 3, 12])  # Matroska leaves out when the first few are decoded
@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", ".mp4"), ("mpeg4", ".mp4"), ("ffv1", ".mkv")]
)
def test_a_copied_picture_has_its_container(
    tmp_path: Path, codec: str, suffix: str, count: int
) -> None:
    path = write_video(tmp_path / "a.mkv", moving(count), codec=codec, options={})
    assert suffix_for_copy(path) == suffix
    shift_audio(path, tmp_path / f"b{suffix}", Fraction(0), audio=Audio(torch.zeros(1, 100), 8000))
    assert torch.equal(pixels(tmp_path / f"b{suffix}"), pixels(path))


def test_a_rotated_picture_stays_rotated(tmp_path: Path) -> None:
    src = write_video(tmp_path / "a.mp4", moving(5), rotation=90)
    write_sound(tmp_path / "v.wav", click(16000, 1, 0.3), 16000)
    shift_audio(src, tmp_path / "b.mp4", Fraction(1, 25), audio=tmp_path / "v.wav")
    assert (probe(tmp_path / "b.mp4").width, probe(tmp_path / "b.mp4").height) == (48, 64)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    src = clip(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="is what is read"):
        shift_audio(src, src, Fraction(0), overwrite=True)
    (tmp_path / "c.mp4").touch()
    with pytest.raises(MediaError, match="exists already"):
        shift_audio(src, tmp_path / "c.mp4", Fraction(0))
    with pytest.raises(MediaError, match=r"webm cannot hold .*h264.*mkv"):
        shift_audio(src, tmp_path / "b.webm", Fraction(0))
    silent = write_video(tmp_path / "silent.mp4", moving(5))
    with pytest.raises(MediaError, match="no sound"):
        shift_audio(silent, tmp_path / "b.mp4", Fraction(0))
    voice = write_sound(tmp_path / "v.wav", click(16000, 1, 0.3), 16000)
    with pytest.raises(MediaError, match="no picture"):
        shift_audio(voice, tmp_path / "b.mp4", Fraction(0))
    assert not (tmp_path / "b.mp4").exists() and not list(tmp_path.glob(".*part*"))
    with pytest.raises(ValueError, match="lead"):
        AudioSource(src, lead=Fraction(-1))


@pytest.mark.parametrize(
    ("source", "target", "delay"),
    [
        (".mp4", ".mp4", Fraction(0)),
        (".mp4", ".mov", Fraction(3, 25)),
        (".mov", ".mp4", Fraction(3, 25)),
    ],
)
def test_a_cut_between_key_frames_keeps_every_picture(
    tmp_path: Path, source: str, target: str, delay: Fraction
) -> None:
    whole = clip(tmp_path / f"whole{source}", at=0.8)
    src, out = cut_copy(whole, tmp_path / f"cut{source}", Fraction("0.46")), tmp_path / f"b{target}"
    shift_audio(src, out, delay)
    assert torch.equal(pixels(out), pixels(whole)[12:])  # the next picture begins at 0.48 s
    assert heard(src) == pytest.approx(0.8 - 0.48, abs=2 / 48000)  # not 20 ms later
    assert heard(out) - heard(src) == pytest.approx(float(delay), abs=2 / 48000)
    assert suffix_for_copy(src) == source


def test_a_cut_between_key_frames_is_encoded_where_nothing_can_be_hidden(tmp_path: Path) -> None:
    whole, warnings = clip(tmp_path / "whole.mp4", at=0.8), list[str]()
    src, out = cut_copy(whole, tmp_path / "cut.mp4", Fraction("0.46")), tmp_path / "b.mkv"
    shift_audio(src, out, Fraction(3, 25), on_warning=warnings.append)
    assert len(warnings) == 1 and "encoded again" in warnings[0]
    shown, right = pixels(out), pixels(whole)[12:]
    assert shown.shape == right.shape and (shown.float() - right.float()).abs().mean() < 2
    assert heard(out) - heard(src) == pytest.approx(0.12, abs=0.001)


def test_pictures_after_the_end_of_an_edit_list_are_left_out(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", moving(30), options={"preset": "medium"})
    src, shown = tmp_path / "cut.mp4", pixels(whole)
    src.write_bytes(whole.read_bytes())
    silence, warnings = Audio(torch.zeros(1, 4000), 8000), list[str]()
    extra = 0
    for count in range(8, 13):
        set_edit_list(src, [(Fraction(5 * 40 + 80, 1000), Fraction(count, 25))])
        out = tmp_path / f"{count}.mp4"
        shift_audio(src, out, Fraction(0), audio=silence, on_warning=warnings.append)
        copied = pixels(out)
        assert torch.equal(copied[:count], shown[5 : 5 + count])
        extra += len(copied) > count
    assert extra == len(warnings) < 3 and all("more picture at its end" in w for w in warnings)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_pictures_of_an_avi_with_b_frames_are_shown_in_order(tmp_path: Path, codec: str) -> None:
    src, out = tmp_path / "a.avi", tmp_path / "b.mp4"
    frames = levels(70, width=64, height=48)
    with av.open(str(src), "w") as file:
        picture = file.add_stream(codec, 25, options={"g": "12", "bf": "2"})
        picture.bit_rate = 4_000_000
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream("pcm_s16le", 16000, layout="mono")
        for i, image in enumerate(frames.numpy()):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(picture.encode(frame))
        file.mux(picture.encode(None))
        voice = av.AudioFrame.from_ndarray(
            (click(16000, 2, 1) * 32767).astype(np.int16), "s16", "mono"
        )
        voice.sample_rate, voice.pts = 16000, 0
        file.mux([*sound.encode(voice), *sound.encode(None)])
    assert level_of(pixels(src)) == list(range(70)) and probe(src).frames == 70
    assert level_of(next(read_frames(src, start=60)).pixels) == list(range(60, 70))
    shift_audio(src, out, Fraction(1, 10))
    assert torch.equal(pixels(out), pixels(src)) and probe(out).fps == 25
    assert heard(src) == 1 and heard(out) == pytest.approx(1.1, abs=0.001)


def test_sound_of_an_avi_without_b_frames_stays_with_its_picture(tmp_path: Path) -> None:
    src, out = tmp_path / "a.avi", tmp_path / "b.mkv"
    with av.open(str(src), "w") as file:
        picture = file.add_stream("libx264", 25, options={"bf": "0"})
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream("pcm_s16le", 48000, layout="mono")
        for image in moving(30).numpy():
            file.mux(picture.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        file.mux(picture.encode(None))
        samples = (click(48000, 1.2, 0.5) * 32767).astype(np.int16)
        voice = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        voice.sample_rate = 48000
        file.mux([*sound.encode(voice), *sound.encode(None)])
    shift_audio(src, out, Fraction(0))
    assert heard(src) == 0.5
    assert heard(out) == pytest.approx(0.5, abs=1e-3)


def test_av1_is_copied_and_pixels_keep_their_shape(tmp_path: Path) -> None:
    silence, warnings = Audio(torch.zeros(1, 4000), 8000), list[str]()
    info = VideoInfo(96, 64, Fraction(25), None, pixel_aspect=Fraction(4, 3))
    src = tmp_path / "a.mp4"
    with VideoWriter(src, info, codec="libsvtav1") as out:  # its decoder has another name
        out.write(Frames(levels(3, width=96, height=64)))
    for target in ("b.mp4", "b.mkv"):  # PyAV cannot tell Matroska the shape
        shift_audio(src, tmp_path / target, Fraction(0), audio=silence, on_warning=warnings.append)
        assert probe(tmp_path / target).pixel_aspect == Fraction(4, 3)
    assert torch.equal(pixels(tmp_path / "b.mp4"), pixels(src))
    assert level_of(pixels(tmp_path / "b.mkv")) == [0, 1, 2]
    assert len(warnings) == 1 and "encoded again" in warnings[0]
