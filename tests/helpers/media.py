"""Tiny media files for the tests, made with PyAV directly, so that they do not depend on what they
test."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

LOSSLESS = {"crf": "0", "preset": "ultrafast"}


def levels(count: int, *, width: int = 32, height: int = 16) -> torch.Tensor:
    """Frames that can be told apart: frame i is one grey of level 16 + 3 i (mod 220). (N,H,W,3)
    uint8."""
    grey = (16 + 3 * torch.arange(count) % 220).to(torch.uint8)
    return grey[:, None, None, None].expand(count, height, width, 3).contiguous()


def level_of(frames: torch.Tensor) -> list[int]:
    """Which frame of ``levels`` each RGB one is."""
    return [round((float(frame.float().mean()) - 16) / 3) for frame in frames]


def write_video(
    path: Path,
    pixels: torch.Tensor,
    *,
    fps: Fraction = Fraction(25),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    stamps: list[Fraction] | None = None,
    rotation: int | None = None,
    tags: tuple[int, int, int, int] = (2, 2, 2, 0),
) -> Path:
    """``pixels`` (N,H,W,3) uint8 as a video. stamps: times in seconds; tags: primaries, transfer,
    matrix, range."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, fps, options=LOSSLESS if options is None else options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        tick = 1 / fps if stamps is None else Fraction(1, 90_000)
        context.time_base = tick
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, image in enumerate(pixels.numpy()):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            # in one thread: swscale's slices spoil rows of odd width for each other
            frame = frame.reformat(
                format=pix_fmt,
                threads=1,
                dst_colorspace={2: 5, 6: 5}.get(tags[2], tags[2]),
                dst_color_range=tags[3] or 1,
            )
            frame.pts = i if stamps is None else round(stamps[i] / tick)
            frame.time_base = tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_sound(
    path: Path,
    samples: np.ndarray,
    rate: int,
    *,
    codec: str = "pcm_s16le",
    layout: str = "mono",
    delay: Fraction | None = None,
    picture_frames: int = 0,
) -> Path:
    """``samples`` (C,T) float32 as a sound file; with ``picture_frames`` also that many black
    frames at 25 fps, and the sound ``delay`` seconds after them."""
    with av.open(str(path), "w") as out:
        video = None
        if picture_frames:
            video = out.add_stream("libx264", 25)
            video.width = video.height = 32
            video.pix_fmt = "yuv420p"
        sound = out.add_stream(codec, rate, layout=layout)
        for _ in range(picture_frames):
            out.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        # interleaved, because PyAV 18.1 crashes on eight planar channels
        interleaved = np.ascontiguousarray(samples.T, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = 0
        for packet in [*sound.encode(frame), *sound.encode(None)]:
            shift = round((delay or 0) / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            out.mux(packet)
        if video is not None:
            out.mux(video.encode(None))
    return path


def click(rate: int, seconds: float, at: float, channels: int = 1) -> np.ndarray:
    """Silence with one smooth click 0.5 ms wide (sigma) at ``at`` seconds, (C,T) float32."""
    time = np.arange(round(rate * seconds)) / rate
    wave = 0.8 * np.exp(-0.5 * ((time - at) / 0.0005) ** 2)
    return np.repeat(wave[None], channels, axis=0).astype(np.float32)


def click_time(samples: torch.Tensor, rate: int) -> float:
    """When the loudest sample of ``samples`` (C,T) sounds, in seconds."""
    return int(samples.abs().sum(0).argmax()) / rate
