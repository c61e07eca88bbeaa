"""Tiny media files for the tests, made with PyAV directly, so that they do not depend on what they
test."""

import struct
from collections.abc import Iterator
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
    options: dict[str, str] | None = None,
) -> Path:
    """``samples`` (C,T) float32 as a sound file; with ``picture_frames`` also that many black
    frames at 25 fps, and the sound ``delay`` seconds after them."""
    with av.open(str(path), "w", options=options or {}) as out:
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


def cut_copy(src: Path, out: Path, at: Fraction) -> Path:
    """Cut ``src`` at ``at`` seconds without encoding: the pictures before it stay in the file,
    hidden by an edit list."""
    with av.open(str(src)) as reader, av.open(str(out), "w") as writer:
        streams = {s.index: writer.add_stream_from_template(s) for s in reader.streams}
        for packet in reader.demux():
            end = None if packet.pts is None else (packet.pts + packet.duration) * packet.time_base
            if end is None or (packet.stream.type == "audio" and end <= at):
                continue
            shift = round(at / packet.time_base)
            packet.stream = streams[packet.stream_index]
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            writer.mux(packet)
    return out


def set_edit_list(
    path: Path, edits: list[tuple[Fraction | None, Fraction]], track: int = 0
) -> None:
    """Replace the edit list of a track of an MP4 file that ends with its ``moov`` box.

    edits: (seconds of the media at which a part begins, None for a pause; its seconds).
    """
    data = bytearray(path.read_bytes())
    found = list(_boxes(data, 0, len(data)))
    kind, at, size = [box for box in found if box[0] == b"elst"][track]
    _, header, _ = [box for box in found if box[0] == b"mdhd"][track]
    scale = struct.unpack_from(">I", data, header + 20)[0]
    body = struct.pack(">II", 0, len(edits)) + b"".join(
        struct.pack(
            ">IiI", round(seconds * 1000), -1 if start is None else round(start * scale), 0x10000
        )
        for start, seconds in edits
    )
    for _, outer, length in found:
        if outer < at < outer + length:
            struct.pack_into(">I", data, outer, length + 8 + len(body) - size)
    data[at : at + size] = struct.pack(">I4s", 8 + len(body), kind) + body
    path.write_bytes(data)


def _boxes(data: bytearray, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, place, size) of the boxes of an MP4 file, outer ones first."""
    while at < end:
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at, size
        if kind in (b"moov", b"trak", b"edts", b"mdia"):
            yield from _boxes(data, at + 8, at + size)
        at += size
