"""Small real media: a photographed face, a voice, and files that are broken in every usual way."""

import wave
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage.data
import skimage.io
import torch
from helpers.media import click, write_sound, write_video
from launch import ROOT

SPEECH = ROOT / "lipsync_core/assets/demo.flac"


def face(count: int, *, side: int = 256) -> torch.Tensor:
    """(count,side,side,3) uint8: a face of about 75 px that sways by a pixel."""
    photo = torch.from_numpy(skimage.data.astronaut()[:side, 96 : 96 + side].copy())
    return torch.stack([photo.roll(i % 2, 1) for i in range(count)])


def two_faces(count: int) -> torch.Tensor:
    """(count,256,512,3) uint8: the face beside its mirror image."""
    one = face(count)
    return torch.cat([one, one.flip(2)], 2)


def photo(path: Path) -> Path:
    """The face as a PNG."""
    skimage.io.imsave(path, face(1)[0].numpy(), check_contrast=False)
    return path


def voice(path: Path, seconds: float = 0.6, *, rate: int = 16000) -> Path:
    """A buzz that opens and closes like a mouth."""
    time = np.arange(round(seconds * rate)) / rate
    samples = 0.3 * np.sign(np.sin(2 * np.pi * 140 * time)) * np.sin(2 * np.pi * 3 * time)
    return write_sound(path, samples[None].astype(np.float32), rate)


def clip(
    path: Path, frames: torch.Tensor, *, fps: Fraction = Fraction(25), sound: bool = True
) -> Path:
    """An MP4 of ``frames``, with a buzz of the same length unless it is to be silent."""
    silent = write_video(path if not sound else path.with_suffix(".silent.mp4"), frames, fps=fps)
    return (
        silent
        if not sound
        else with_sound(path, silent, voice(path.with_suffix(".wav"), len(frames) / float(fps)))
    )


def with_sound(path: Path, picture: Path, sound: Path) -> Path:
    """The picture of one file, copied, and the sound of another as AAC."""
    with (
        av.open(str(picture)) as shown,
        av.open(str(sound)) as heard,
        av.open(str(path), "w") as out,
    ):
        video, audio = shown.streams.video[0], heard.streams.audio[0]
        copied = out.add_stream_from_template(video)
        coded = out.add_stream("aac", audio.rate)
        for packet in shown.demux(video):
            if packet.dts is not None:
                packet.stream = copied
                out.mux(packet)
        for frame in heard.decode(audio):
            out.mux(coded.encode(frame))
        out.mux(coded.encode(None))
    return path


def played(path: Path) -> tuple[int, float, np.ndarray]:
    """(frames, seconds of sound, how far each pixel strays from the first frame at most); all of it
    is decoded."""
    frames, samples, rate, first, most = 0, 0, 1, None, None
    with av.open(str(path)) as file:
        for frame in file.decode(*file.streams.video[:1], *file.streams.audio[:1]):
            if isinstance(frame, av.AudioFrame):
                samples, rate = samples + frame.samples, frame.sample_rate
                continue
            grey = frame.to_ndarray(format="gray").astype(np.int16)
            first = grey if first is None else first
            strays = np.abs(grey - first)
            most = strays if most is None else np.maximum(most, strays)
            frames += 1
    assert most is not None, "no frames"
    return frames, samples / rate, most


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def text(path: Path) -> Path:
    path.write_text("This is no video. " * 200, encoding="utf-8")
    return path


def truncated(path: Path) -> Path:
    """Cut in the middle: an MP4 whose index is gone."""
    whole = clip(path.with_suffix(".whole.mp4"), face(25)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def sound_alone(path: Path) -> Path:
    return write_sound(path, click(16000, 1.0, 0.5), 16000, codec="aac")


def picture_alone(path: Path) -> Path:
    return clip(path, face(10), sound=False)


def no_frames(path: Path) -> Path:
    """A video stream that is announced and holds nothing, beside a sound that holds a second."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", 25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = out.add_stream("aac", 16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(click(16000, 1.0, 0.5), "fltp", "mono")
        frame.sample_rate = 16000
        out.mux([*sound.encode(frame), *sound.encode(None)])
    return path


def one_frame(path: Path) -> Path:
    return clip(path, face(1))


def wide(path: Path) -> Path:
    """Two frames 8000 px wide, with the face in their middle at its size."""
    frames = torch.full((2, 256, 8000, 3), 60, dtype=torch.uint8)
    frames[:, :, 3872:4128] = face(2)
    return write_video(path, frames, options={"crf": "10", "preset": "ultrafast"})


def not_a_number(path: Path) -> Path:
    samples = click(16000, 1.0, 0.5)
    samples[:, 4000:4100] = np.nan
    return write_sound(path, samples, 16000, codec="pcm_f32le")


def silence(path: Path) -> Path:
    return write_sound(path, np.zeros((1, 9600), np.float32), 16000)


def no_samples(path: Path) -> Path:
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(b"")
    return path


def no_face(path: Path) -> Path:
    return clip(path, torch.full((10, 128, 128, 3), 90, dtype=torch.uint8))


def long_clip(path: Path, seconds: int, *, width: int = 1920, height: int = 1080) -> Path:
    """The photograph in a grey frame, swaying, with a hiss in stereo: one second, coded once and
    repeated."""
    photo = torch.from_numpy(skimage.data.astronaut()[:height].copy())
    base = torch.full((height, width, 3), 70, dtype=torch.uint8)
    base[: len(photo), (width - 512) // 2 : (width + 512) // 2] = photo
    second = torch.stack([base.roll((i % 13) // 2, 1) for i in range(25)])
    piece = write_video(
        path.with_suffix(".second.mp4"), second, options={"crf": "23", "preset": "ultrafast"}
    )
    hiss = np.random.default_rng(0).normal(0, 0.05, (2, 48000)).astype(np.float32)
    with av.open(str(piece)) as source, av.open(str(path), "w") as out:
        video = source.streams.video[0]
        copied = out.add_stream_from_template(video)
        sound = out.add_stream("aac", 48000, layout="stereo")
        for turn in range(seconds):
            source.seek(0)
            for packet in source.demux(video):
                if packet.dts is not None:
                    shift = round(turn / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copied
                    out.mux(packet)
            frame = av.AudioFrame.from_ndarray(hiss, "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, turn * 48000, Fraction(1, 48000)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


# what is wrong with it -> file name, how it is made
BROKEN_PICTURES: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "truncated": ("truncated.mp4", truncated),
    "empty": ("empty.mp4", empty),
    "text": ("text.mp4", text),
    "no video stream": ("sound.mp4", sound_alone),
    "no frames": ("no_frames.mp4", no_frames),
    "no face": ("no_face.mp4", no_face),
}
BROKEN_SOUNDS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "truncated": ("truncated_too.mp4", truncated),
    "empty": ("empty.wav", empty),
    "text": ("text.wav", text),
    "no audio stream": ("picture.mp4", picture_alone),
    "not a number": ("nan.wav", not_a_number),
    "no samples": ("no_samples.wav", no_samples),
}
