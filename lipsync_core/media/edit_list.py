"""Read the boxes of MP4 files: edit lists that join several parts of a track, missing indexes.

FFmpeg gets such edit lists wrong: libavformat (62.12) plays the beginning of the track during
pauses between parts, joins sound at whole packets, and shows pictures up to some frames early where
a part begins between two of them.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

MEDIA_CLOCK = {"ignore_editlist": "1"}  # options of the demuxer: times are those of the media
_BOXES = frozenset({b"moov", b"trak", b"edts", b"mdia"})  # those that hold the others


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a track that is shown without a break.

    Attributes:
        begin: When it is shown, in seconds of the file.
        media: Where it begins in the media, in seconds of its clock.
        seconds: Its length.
    """

    begin: Fraction
    media: Fraction
    seconds: Fraction

    @property
    def end(self) -> Fraction:
        """When it ends, in seconds of the file."""
        return self.begin + self.seconds


def read_joined_parts(path: Path, track: int) -> tuple[Part, ...]:
    """Return the parts that the edit list of a track joins.

    Args:
        path: An MP4 file.
        track: Number of the track in the file.

    Returns:
        The parts in order, none if there is one at most, which FFmpeg plays rightly.
    """
    with path.open("rb") as file:
        parts = _read_tracks(file, path.stat().st_size).get(track, ())
    return parts if len(parts) > 1 else ()


def lacks_index(path: Path) -> bool:
    """Return whether a file is an MP4 that breaks off before the end of its index."""
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = {kind: end for kind, _, end in _headers(file, 0, size)}
    index = ends.get(b"moov", ends.get(b"meta", size + 1))
    return next(iter(ends), b"") == b"ftyp" and index > size


def _read_tracks(file: BinaryIO, size: int) -> dict[int, tuple[Part, ...]]:
    """The parts of each track by its number, empty for files in fragments."""
    tracks: dict[int, tuple[Part, ...]] = {}
    film = scale = number = 0
    edits = b""
    try:
        for kind, body in _boxes(file, 0, size):
            if kind == b"mvhd":
                film = _clock(body)[0]
            elif kind == b"tkhd":
                number, edits = struct.unpack_from(">I", body, 20 if body[0] else 12)[0], b""
            elif kind == b"elst":
                edits = body
            elif kind == b"mdhd" and edits and film:
                scale, length = _clock(body)
                tracks[number] = tuple(_parts(edits, film, scale, Fraction(length, scale)))
            elif kind == b"mvex":
                return {}
    except (struct.error, ZeroDivisionError):  # damaged; FFmpeg says so
        return {}
    return tracks


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of the small boxes with times, in file order; ISO/IEC 14496-12."""
    for kind, begin, after in _headers(file, at, end):
        if kind in _BOXES:
            yield from _boxes(file, begin, min(end, after))
            if kind == b"moov":
                return
        elif kind in (b"mvhd", b"tkhd", b"mdhd", b"elst", b"mvex"):
            file.seek(begin)
            yield kind, file.read(after - begin)


def _headers(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, place of the content, place after it) of the boxes from ``at`` to ``end``."""
    while at + 8 <= end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", file.read(8))[0], 16
        size = size or end - at  # 0: to the end of the file
        if size < head:
            return
        yield kind, at + head, at + size
        at += size


def _clock(body: bytes) -> tuple[int, int]:
    """Ticks per second and length in ticks, of ``mvhd`` and ``mdhd``."""
    return struct.unpack_from(">IQ", body, 20) if body[0] else struct.unpack_from(">II", body, 12)


def _parts(body: bytes, film: int, scale: int, length: Fraction) -> Iterator[Part]:
    """The parts of an edit list; what follows directly on another is one part with it."""
    count = struct.unpack_from(">I", body, 4)[0]
    entry = struct.Struct(">QqI" if body[0] else ">IiI")
    begin, last = Fraction(0), None
    for index in range(count):
        ticks, start, _ = entry.unpack_from(body, 8 + index * entry.size)
        media = Fraction(start, scale)
        seconds = Fraction(ticks, film) if ticks else max(Fraction(0), length - media)
        if start >= 0 and seconds:
            if last is not None and _follows(last, begin, media, Fraction(1, film)):
                last = Part(last.begin, last.media, last.seconds + seconds)
            else:
                yield from () if last is None else (last,)
                last = Part(begin, media, seconds)
        begin += seconds if start >= 0 or ticks else 0
    if last is not None:
        yield last


def _follows(last: Part, begin: Fraction, media: Fraction, rounding: Fraction) -> bool:
    return begin == last.end and abs(last.media + last.seconds - media) <= rounding


def pictures_of_part(frames: Iterable[VideoFrame], part: Part) -> Iterator[VideoFrame]:
    """Yield the pictures that a part shows, with the times at which it does.

    Args:
        frames: Decoded pictures in order with times of the media, from before the part.
        part: The part.
    """
    held: VideoFrame | None = None
    for frame in frames:
        base = frame.time_base or Fraction(1)
        time = (frame.pts if frame.pts is not None else frame.dts or 0) * base
        frame.pts = round((part.begin + max(Fraction(0), time - part.media)) / base)
        if time <= part.media:
            held = frame
            continue
        if held is not None:
            yield held
            held = None
        left = part.media + part.seconds - time
        if left <= 0 or 2 * left < frame.duration * base:  # most of it is not shown
            return
        yield frame
    if held is not None:
        yield held


def sound_of_part(
    blocks: Iterable[tuple[Fraction, npt.NDArray[np.float32], int]], part: Part
) -> Iterator[tuple[Fraction, npt.NDArray[np.float32], int]]:
    """Yield the sound that a part plays, with the times at which it does.

    Args:
        blocks: (time of the media, samples (C,T), Hz) in order, from before the part.
        part: The part.
    """
    for time, samples, rate in blocks:
        first = max(0, round((part.media - time) * rate))
        end = round((part.media + part.seconds - time) * rate)
        if end <= 0:
            return
        kept = samples[:, first:end]
        if kept.shape[1]:
            yield part.begin + time + Fraction(first, rate) - part.media, kept, rate
