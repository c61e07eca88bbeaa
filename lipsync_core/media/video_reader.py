"""Read what a video or picture file holds, and its frames at a constant rate."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path
from typing import TypeVar, cast

from av.codec.context import ThreadType
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import MediaError
from ..types import Frames, VideoInfo, YuvFrames
from .container import (
    Warn,
    clock_jumps,
    decode_video,
    first_frame,
    first_frame_time,
    frame_time,
    is_in_decoding_order,
    joined_parts,
    open_source,
    raise_media_errors,
    warn_once,
)
from .edit_list import MEDIA_CLOCK, pictures_of_part
from .filters import deinterlace, fit
from .pixel_format import (
    BT709,
    ToCoded,
    ToRgb,
    colour_tags,
    describe_loss,
    is_transparent,
    orientation_of_frame,
)
from .timing import STILL_FPS, describe_truncation, find_picture, measure_timing, promised_end

# RGB held at once when reading backwards: the more, the fewer frames are decoded twice
_REVERSE_BYTES = 256 << 20
# seconds: how far before the wanted time to look for a keyframe, one after another
_SEEK_MARGINS = (0, 2, 10, 60)
_SEEK_FROM = 2  # seconds: nearer to the start than this, reading from it is as quick as seeking

T = TypeVar("T")


def probe(src: Path | str, start: Fraction = Fraction(0)) -> VideoInfo:
    """Return what ``read_frames`` gives by default.

    Args:
        src: the file.
        start: where the part begins whose rate counts, in seconds.

    Returns:
        Size in px (upright) and shape of the pixels, the rate as an exact Fraction (25 for
        stills), measured on the time stamps and customary where that moves no picture by half a
        frame; the number of frames at that rate, counted (None if the file is damaged or its end
        cannot be reached); and the color tags under which the RGB is best written again.

    Raises:
        MediaError: If the file is missing, damaged or has no picture.
    """
    path = Path(src)
    timing = measure_timing(path, start)
    with open_source(path) as container, raise_media_errors(path, "cannot be read"):
        stream = _picture(container, path)
        frame, aspect = first_frame(container, stream), _pixel_aspect(stream)
    orientation = orientation_of_frame(frame, path)
    width, height = orientation.size(frame.width, frame.height)
    if timing.still:
        return VideoInfo(width, height, STILL_FPS, 1, BT709, still=True)
    count = None
    if timing.end is not None:
        count = max(1, _nearest((timing.end - (frame_time(frame) or 0)) * timing.fps))
    aspect = 1 / aspect if orientation.transpose else aspect
    return VideoInfo(width, height, timing.fps, count, colour_tags(frame), pixel_aspect=aspect)


def read_frames(  # noqa: PLR0913
    src: Path | str,
    *,
    chunk: int = 32,
    fps: Fraction | None = None,
    start: int = 0,
    stop: int | None = None,
    every: int = 1,
    size: tuple[int, int] | None = None,
    reverse: bool = False,
    on_warning: Warn | None = None,
) -> Iterator[Frames]:
    """Read a file as uint8 RGB at a constant rate, ``chunk`` frames at a time.

    Clip frame i is the source frame shown at the time (i + 1/2) / fps after the first one, the
    middle of its own showing, so that time stamps rounded to milliseconds neither drop nor repeat
    frames and a source at a constant rate passes one to one; missing frames are repeated. Times are
    exact: nothing drifts over hours. The pixels are views of planes, which decoders, networks and
    encoders use. Transparent parts are laid over black; more than 8 bits and HDR become 8-bit SDR
    BT.709 with a warning.

    Args:
        src: the file.
        chunk: frames per piece; the last piece may hold fewer.
        fps: frames per second; None for the source's (``probe``).
        start: first clip frame at that rate; reading begins at the keyframe before.
        stop: end (exclusive); it may lie past the end.
        every: give only clip frames divisible by it; then ``pixels[k]`` is clip frame
            ``start + k * every`` of its Frames.
        size: (width, height) px of the upright picture, scaled by area averaging.
        reverse: give the same frames from the last to the first, in bounded memory; then
            ``pixels[k]`` is clip frame ``start - k * every``.
        on_warning: called with each warning.

    Yields:
        Pieces of the clip.

    Raises:
        MediaError: If the file cannot be read or no frame can be decoded.
    """
    clip = _clip(src, fps, every, size, chunk, start, stop, on_warning)
    frames = clip.backwards(start, stop, chunk) if reverse else clip.forwards(start, stop, chunk)
    return cast(Iterator[Frames], frames)  # nothing else comes of a clip that is not ``coded``


def read_coded(
    src: Path | str,
    *,
    chunk: int = 32,
    fps: Fraction | None = None,
    start: int = 0,
    stop: int | None = None,
    size: tuple[int, int] | None = None,
    reverse: bool = False,
    on_warning: Warn | None = None,
) -> Iterator[Frames | YuvFrames]:
    """Read like ``read_frames``, but keep the coded numbers of a file in 8-bit 4:2:0 of even size.

    Yields:
        ``YuvFrames`` for such a file, unless it is scaled to ``size``, else ``Frames``.
    """
    clip = _clip(src, fps, 1, size, chunk, start, stop, on_warning, coded=size is None)
    return clip.backwards(start, stop, chunk) if reverse else clip.forwards(start, stop, chunk)


def _clip(  # noqa: PLR0913
    src: Path | str,
    fps: Fraction | None,
    every: int,
    size: tuple[int, int] | None,
    chunk: int,
    start: int,
    stop: int | None,
    on_warning: Warn | None,
    *,
    coded: bool = False,
) -> "_Clip":
    if chunk < 1 or every < 1 or start < 0 or (stop is not None and stop < start):
        raise ValueError(
            f"chunk={chunk}, every={every}, start={start}, stop={stop}; expected 1.., 1.., 0 <= "
            "start <= stop"
        )
    if fps is not None and fps <= 0:
        raise ValueError(f"fps is {fps}; expected a positive Fraction")
    return _Clip(
        Path(src), None if fps is None else Fraction(fps), every, size, warn_once(on_warning), coded
    )


def resample_times(
    timed: Iterable[tuple[Fraction, Fraction, T]], fps: Fraction
) -> Iterator[tuple[int, int, T]]:
    """Map pictures at any times to a constant rate, exactly for any length.

    Args:
        timed: (time, duration, picture) in seconds from clip frame 0, in order.
        fps: the constant rate.

    Yields:
        (first, end, picture): the picture is shown in clip frames first..end-1. A picture that
        falls between two clip frames is left out.
    """
    first, end, held = 0, 0, None
    for time, duration, picture in timed:
        begin = _nearest(time * fps)
        if held is not None and begin > first:
            yield first, begin, held[0]
        # a clock that runs backwards replaces what it showed
        first = begin if held is None else max(first, begin)
        end = max(1, _nearest((time + duration) * fps))  # a clip has a frame, however short it is
        held = (picture,)
    if held is not None and end > first:
        yield first, end, held[0]


@dataclass(slots=True)
class _Clip:
    """One file at one rate, for one reader. Every pass opens the file again."""

    path: Path
    fps: Fraction | None
    every: int
    size: tuple[int, int] | None
    warn: Warn
    coded: bool
    # kept over the passes: the first HDR frame takes seconds
    converter: ToRgb | ToCoded | None = None

    def forwards(self, start: int, stop: int | None, chunk: int) -> Iterator[Frames | YuvFrames]:
        """Clip frames start..stop-1 that ``every`` divides, ``chunk`` at a time."""
        index = -(-start // self.every) * self.every
        converter, pixels, filled = self.converter, None, 0
        for first, end, frame in self._spans(index, stop):
            converter = self.converter = converter or self._converter(frame)
            # those handed out belong to the receiver
            pixels = converter.empty(chunk) if pixels is None else pixels
            while index < end and index >= first and (stop is None or index < stop):
                converter.write(frame, pixels[filled])
                filled, index = filled + 1, index + self.every
                if filled == chunk:
                    yield converter.frames(pixels, index - filled * self.every)
                    pixels, filled = converter.empty(chunk), 0
            if stop is not None and index >= stop:
                break
        if converter is not None and pixels is not None and filled:
            yield converter.frames(pixels[:filled], index - filled * self.every)

    def backwards(self, start: int, stop: int | None, chunk: int) -> Iterator[Frames | YuvFrames]:
        """Yield the frames of ``forwards`` from the last to the first, read segment by segment."""
        every = self.every
        low = -(-start // every)  # frames are counted in units of ``every`` here
        high = -(-self._end() // every)
        high = high if stop is None else min(high, -(-stop // every))
        step = chunk
        while high > low:
            begin = max(low, high - step)
            segment = next(self.forwards(begin * every, (high - 1) * every + 1, high - begin))
            for k in range(high - begin, 0, -chunk):
                pixels = segment.pixels[max(0, k - chunk) : k].flip(0)
                yield replace(segment, pixels=pixels, start=(begin + k - 1) * every)
            high = begin
            step = chunk * max(1, _REVERSE_BYTES // (segment.pixels[0].numel() * chunk))

    def _converter(self, frame: VideoFrame) -> ToRgb | ToCoded:
        """What turns decoded frames to tensors."""
        lost = describe_loss(frame)
        if lost is not None:
            self.warn(f"{self.path.name}: {lost}")
        if is_transparent(frame):
            self.warn(f"{self.path.name}: transparent parts are laid over black")
        orientation = orientation_of_frame(frame, self.path)
        if self.coded and ToCoded.takes(frame):
            return ToCoded(frame, orientation)
        width, height = self.size or orientation.size(frame.width, frame.height)
        return ToRgb(orientation.size(width, height), orientation)

    def _end(self) -> int:
        """The number of clip frames, from the last frames that can be decoded."""
        timing = measure_timing(self.path)
        with open_source(self.path) as container:
            promised = promised_end(container, _picture(container, self.path))
        end = timing.end or promised or Fraction(0)
        last = (end - (first_frame_time(self.path) or 0)) * (self.fps or timing.fps)
        return max((end for _, end, _ in self._spans(max(0, _nearest(last) - 1), None)), default=0)

    def _spans(self, start: int, stop: int | None) -> Iterator[tuple[int, int, VideoFrame]]:
        """The pictures of at least the clip frames start..stop-1, from the keyframe before."""
        if stop is not None and stop <= start:
            return
        timing = measure_timing(self.path)
        fps = self.fps or timing.fps
        if timing.alpha_lost:
            self.warn(
                f"{self.path.name}: the transparency is not read; transparent parts show the "
                "colour stored under them (often black)"
            )
        first = None
        if start / fps > _SEEK_FROM and not timing.still:
            with open_source(self.path) as container:
                first = first_frame(container, _picture(container, self.path))
        period = Fraction(0) if timing.still else 1 / timing.fps
        yield from resample_times(self._timed(first, start / fps, period), fps)

    def _timed(
        self, first: VideoFrame | None, start: Fraction, period: Fraction
    ) -> Iterator[tuple[Fraction, Fraction, VideoFrame]]:
        """Yield (time, duration, frame), times in seconds after clip frame 0.

        It is read from the file's ``first`` frame on, or, if that is given, from ``start`` seconds
        after it. ``period`` is added if the file gives no time.
        """
        zero = None if first is None else frame_time(first) or Fraction(0)
        target = None if zero is None else zero + start
        size = None if first is None else (first.width, first.height)
        time: Fraction | None = None
        duration = period
        frames = deinterlace(self._decoded(target), self.warn, self.path.name)
        for frame in fit(frames, size, self.warn, self.path.name):
            stamp = frame_time(frame)
            if stamp is None:
                stamp = (zero or Fraction(0)) if time is None else time + duration
            zero = stamp if zero is None else zero
            time = stamp
            own = frame.duration * frame.time_base if frame.time_base is not None else None
            duration = own if period and own and own > period / 2 else period
            yield time - zero, duration, frame
        if time is None:
            raise MediaError(f"{self.path}: no frame of the picture could be decoded")
        end = time + duration
        lack = describe_truncation(self.path, zero or Fraction(0), end)
        if lack:
            self.warn(f"{self.path.name}: {lack}; the file is incomplete")

    def _decoded(self, target: Fraction | None) -> Iterator[VideoFrame]:
        """Decode from a keyframe at or before ``target`` to the end of the file, part by part.

        ``target`` is in seconds of the container's clock; None: from the start.
        """
        with open_source(self.path) as container:
            parts = joined_parts(container, _picture(container, self.path))
        if not parts:
            yield from self._decoded_from(target, {})
        for part in parts:
            if target is None or part.end > target:
                yield from pictures_of_part(self._decoded_from(part.media, MEDIA_CLOCK), part)

    def _decoded_from(
        self, target: Fraction | None, options: Mapping[str, str]
    ) -> Iterator[VideoFrame]:
        for margin in () if target is None else _SEEK_MARGINS:
            with open_source(self.path, options) as container:
                stream = _picture(container, self.path)
                assert target is not None and stream.time_base is not None
                if is_in_decoding_order(container, stream) or clock_jumps(container):
                    break
                try:
                    container.seek(math.floor((target - margin) / stream.time_base), stream=stream)
                except FFmpegError:
                    continue
                frames = dropwhile(
                    lambda frame: not frame.key_frame, decode_video(container, stream, self.warn)
                )
                frame = next(frames, None)
                # Some demuxers land behind the wanted time (MPEG-PS by a whole group of pictures).
                if frame is not None and (frame_time(frame) or target + 1) <= target:
                    yield frame
                    yield from frames
                    return
        with open_source(self.path, options) as container:
            stream = _picture(container, self.path)
            yield from decode_video(container, stream, self.warn)


def _picture(container: InputContainer, path: Path) -> VideoStream:
    """The picture stream, set to decode on all cores. MediaError when there is none."""
    stream = find_picture(container, path)
    stream.thread_type = ThreadType.AUTO
    return stream


def _pixel_aspect(stream: VideoStream) -> Fraction:
    """The shape of the stored pixels, width by height; nonsense in a header is taken as square."""
    aspect = stream.sample_aspect_ratio
    return aspect if aspect and Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def _nearest(value: Fraction) -> int:
    # round() goes to even numbers, which makes frames jitter
    return math.floor(value + Fraction(1, 2))
