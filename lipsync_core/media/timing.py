"""Measure when the pictures of a file are shown; what its header promises is not believed."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path

from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from ..errors import MediaError
from .clock_jumps import move_packet
from .container import (
    clock_jumps,
    is_image,
    is_in_decoding_order,
    joined_parts,
    open_source,
    path_of_container,
    picture_stream,
    raise_media_errors,
)
from .edit_list import MEDIA_CLOCK, Part
from .frame_rate import MAX_FPS, rate_of_ticks
from .pillow_reader import is_animated_webp, read_animated_webp

STILL_FPS = Fraction(25)  # what Wav2Lip's inference takes for a still picture
# How much is read to measure a rate. 29.97 and 30 part by half a frame after 500 frames. The bytes
# bound the work on editing formats, a few of whose frames are enough because they are regular.
_PACKETS = 1500
_BYTES = 64 << 20
_TS_PACKETS = (188, 192, 204)  # bytes of a packet in MPEG-TS and its variants
_TAIL = 1  # seconds before the promised end from which the last picture is looked for


@dataclass(frozen=True, slots=True)
class Timing:
    """When the pictures of a file are shown.

    Attributes:
        fps: Rate of the pictures, ``STILL_FPS`` for a single one.
        end: When the last picture ends, in seconds of the container's clock; None when unknown.
        still: Whether the file is a single picture without sound.
        promised: Seconds of picture by the header; 0 if it does not say.
        cut_off: Whether the file ends in the middle of a packet.
        alpha_lost: Whether it has transparency that FFmpeg's decoders leave out (VP8 and VP9).
    """

    fps: Fraction
    end: Fraction | None
    still: bool
    promised: Fraction = Fraction(0)
    cut_off: bool = False
    alpha_lost: bool = False


def measure_timing(path: Path, start: Fraction = Fraction(0)) -> Timing:
    """Measure rate and length of the pictures of a file from their time stamps, without decoding.

    At most ``_PACKETS`` packets or ``_BYTES`` are read for the rate, and the end of the file.
    The last results are kept.

    Args:
        path: The file.
        start: Where to measure the rate, in seconds after the first picture.

    Returns:
        The timing.

    Raises:
        MediaError: If the file cannot be read or has no picture.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise MediaError(f"{path}: no such file; check the name") from error
    return _measure(path, start, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=64)
def _measure(path: Path, start: Fraction, version: tuple[int, ...]) -> Timing:
    # ``version`` is a part of the key, so that a file that is written again is measured again
    with open_source(path) as container, raise_media_errors(path, "cannot be read"):
        stream = find_picture(container, path)
        parts = joined_parts(container, stream)
        if parts:
            return _measure_joined(path, parts)
        if is_image(container):
            return Timing(STILL_FPS, None, still=True)
        head = _read(container, stream)
        if head.whole and head.count == 1 and not container.streams.audio:
            return Timing(STILL_FPS, None, still=True)
        jumps = clock_jumps(container)
        # a part may end with a pause, as its sound may outlast its pictures
        even = [t for t in head.ticks if not jumps or t < jumps[0].begin]
        rate = _rate(replace(head, ticks=even), stream)
        if start and head.ticks and not jumps:
            begin = head.ticks[0] + math.floor(start / head.time_base)
            shown = head if head.whole else _read(container, stream, begin)
            rate = _rate(replace(shown, ticks=[t for t in shown.ticks if t >= begin]), stream, rate)
        size = version[1]
        return Timing(
            rate,
            _end(container, stream, head, 1 / rate),
            still=False,
            promised=Fraction(0)
            if jumps
            else (stream.duration or 0) * (stream.time_base or Fraction(0)),
            cut_off=container.format.name == "mpegts" and all(size % n for n in _TS_PACKETS),
            alpha_lost=stream.metadata.get("alpha_mode") == "1",
        )


def _measure_joined(path: Path, parts: tuple[Part, ...]) -> Timing:
    """Measure the pictures of an MP4 file whose edit list joins parts, of one rate."""
    with open_source(path, MEDIA_CLOCK) as container:
        stream = find_picture(container, path)
        rate = _rate(_read(container, stream), stream)
    return Timing(rate, parts[-1].end, still=False, promised=parts[-1].end - parts[0].begin)


@dataclass(frozen=True, slots=True)
class _Stamps:
    """Time stamps of consecutive pictures.

    Attributes:
        ticks: Rising, in units of ``time_base``; empty if the file has none.
        time_base: Seconds per tick.
        last: Duration of the last picture in ticks, 0 when unknown.
        count: Number of packets.
        whole: Whether nothing follows.
    """

    ticks: list[int]
    time_base: Fraction
    last: int
    count: int
    whole: bool


def _read(container: InputContainer, stream: VideoStream, begin: int | None = None) -> _Stamps:
    """Read the time stamps from the start of the file, or from the keyframe before ``begin``."""
    if is_animated_webp(container, path_of_container(container)):
        return _read_webp(container)
    packets: list[tuple[int | None, int | None, int]] = []
    size, whole = 0, False
    jumps = clock_jumps(container)
    try:
        if begin is not None:
            container.seek(begin, stream=stream)
        for packet in container.demux(stream):
            # the end is found by seeking, but not where the clock jumps
            if not jumps and (packet.is_corrupt or size > _BYTES or len(packets) == _PACKETS):
                break
            move_packet(packet, jumps)
            if packet.size and not packet.is_discard:
                packets.append((packet.pts, packet.dts, packet.duration or 0))
            size += packet.size
        else:
            whole = True
    except FFmpegError:  # what follows cannot be read
        pass
    # AVI knows the order of decoding alone
    by_rank = is_in_decoding_order(container, stream)
    known = 1 if by_rank or any(packet[0] is None for packet in packets) else 0
    durations = {packet[known]: packet[2] for packet in packets if packet[known] is not None}
    ticks = sorted(tick for tick in durations if tick is not None)
    last = durations[ticks[-1]] if ticks else 0
    return _Stamps(ticks, stream.time_base or Fraction(1), last, len(packets), whole)


def _read_webp(container: InputContainer) -> _Stamps:
    """The time stamps of an animated WebP, whose packets have none."""
    frames = islice(read_animated_webp(path_of_container(container)), _PACKETS)
    times = [(frame.pts or 0, frame.duration) for frame in frames]
    ticks = [pts for pts, _ in times]
    return _Stamps(ticks, Fraction(1, 1000), times[-1][1], len(times), len(times) < _PACKETS)


def _rate(stamps: _Stamps, stream: VideoStream, default: Fraction = STILL_FPS) -> Fraction:
    """Frames per second of ``stamps``, by the header where there are no time stamps."""
    hints = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    measured = rate_of_ticks(stamps.ticks, stamps.time_base, hints)
    if measured is not None or len(stamps.ticks) == 1:
        return measured or default
    return next((hint for hint in hints if hint and 0 < hint <= MAX_FPS), default)


def _end(
    container: InputContainer, stream: VideoStream, head: _Stamps, period: Fraction
) -> Fraction | None:
    """When the last picture ends, in seconds of the container's clock; None when unknown."""
    stamps = head
    if not head.whole:
        promised = promised_end(container, stream)
        if promised is None:
            return None
        stamps = _read(container, stream, math.floor((promised - _TAIL) / head.time_base))
    if not stamps.whole or not stamps.ticks:
        return None
    last = stamps.last * stamps.time_base
    return stamps.ticks[-1] * stamps.time_base + (last if last > period / 2 else period)


def promised_end(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return when the picture ends by the header of the stream, else when the whole file does.

    Returns:
        Seconds of the container's clock; None when the header does not say.
    """
    if stream.duration and stream.time_base:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base
    if container.duration:
        return Fraction((container.start_time or 0) + container.duration, 1_000_000)  # AV_TIME_BASE
    return None


def describe_truncation(path: Path, zero: Fraction, end: Fraction) -> str | None:
    """Return what is missing at the end of a file whose picture has been read, None if it is whole.

    Args:
        path: The file.
        zero: Time of the first picture, in seconds of the container's clock.
        end: When the last picture that could be decoded ends.
    """
    timing = measure_timing(path)
    if timing.cut_off:
        return "the file ends in the middle of a packet"
    # headers round, and leave out what an edit list trims
    slack, promised = 3 / timing.fps, timing.promised
    if timing.still or (promised and end - zero >= promised - slack):
        return None
    if not promised:
        with open_source(path) as container, raise_media_errors(path, "cannot be read"):
            # of the longest stream
            if not container.duration or clock_jumps(container):
                return None
            last = Fraction((container.start_time or 0) + container.duration, 1_000_000)
            limit, stream = last - slack, find_picture(container, path)
            if end >= limit or _reaches(container, stream, end, limit):
                return None
            promised = last - zero
    there = f"the picture ends at {float(end - zero):.2f}"
    return f"{there} of the {float(promised):.2f} s that its header promises"


def _reaches(
    container: InputContainer, stream: VideoStream, begin: Fraction, limit: Fraction
) -> bool:
    """Whether any stream has a packet after ``begin`` that lasts until ``limit`` (seconds)."""
    try:
        container.seek(math.floor(begin / (stream.time_base or 1)), stream=stream)
        for packet in container.demux():
            stamp = packet.dts if packet.pts is None else packet.pts
            if stamp is not None and (stamp + (packet.duration or 0)) * packet.time_base >= limit:
                return True
    except FFmpegError:  # what follows cannot be read
        pass
    return False


def find_picture(container: InputContainer, path: Path) -> VideoStream:
    """Return the picture stream of an open file.

    Raises:
        MediaError: If there is none.
    """
    stream = picture_stream(container)
    if stream is None:
        raise MediaError(f"{path}: holds no picture; expected a video or a PNG, JPEG or WebP image")
    return stream
