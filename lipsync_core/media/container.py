"""Open media files and read their packets; what FFmpeg refuses becomes a MediaError."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import MediaError
from .clock_jumps import JOINABLE, Jump, Stamp, find_jumps, move_packet
from .edit_list import Part, lacks_index, read_joined_parts
from .paths import check_input_path
from .pillow_reader import is_animated_webp, is_tiled, read_animated_webp, read_tiled

_log = logging.getLogger("lipsync.media")
Warn = Callable[[str], None]

# Demuxers that take any text for media: a renamed text file must be an error and not a picture of
# its letters.
_NOT_MEDIA = frozenset({"tty"})
# Its time stamps tell when pictures are decoded; those of its demuxer (libavformat 62.12) for when
# they are shown are in decoding order as well.
_IN_DECODING_ORDER = "avi"
# Only the named file is read: no network and no numbered picture series.
_NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails
_SCANNED = 2 << 30  # bytes in which jumps of the clock are looked for
_OPTIONS = {"protocol_whitelist": "file", "pattern_type": "none"}


def warn_once(on_warning: Warn | None) -> Warn:
    """Return a function that passes on each different warning once.

    Args:
        on_warning: called with each warning; None to log them.

    Returns:
        The function.
    """
    seen: set[str] = set()

    def warn(message: str) -> None:
        if message not in seen:
            seen.add(message)
            if on_warning is not None:
                on_warning(message)
            else:
                _log.warning("%s", message)

    return warn


@contextmanager
def raise_media_errors(
    path: Path, doing: str, guess: Callable[[Path], str] | None = None
) -> Generator[None, None, None]:
    """Turn errors of FFmpeg inside the block into MediaErrors.

    Args:
        path: the file that the message names.
        doing: what was being done, for the message.
        guess: returns what may be wrong with the file, for the message.

    Raises:
        MediaError: If FFmpeg fails.
    """
    try:
        yield
    except FFmpegError as error:
        why = "" if guess is None else f"; {guess(path)}"
        raise MediaError(f"{path}: {doing}{why} ({error.strerror})") from error


def _guess_damage(path: Path) -> str:
    if lacks_index(path):
        return (
            "it broke off before its index (moov) was complete: copy it again, or recover the "
            "recording with the recorder or a repair program"
        )
    return "it is damaged, truncated or of another kind"


def file_url(path: Path) -> str:
    """Return ``path`` such that FFmpeg takes it literally, with any colons and percent signs."""
    return f"file:{path}"


@contextmanager
def open_source(
    src: Path | str, options: Mapping[str, str] | None = None
) -> Generator[InputContainer, None, None]:
    """Open a media file for reading and close it at the end of the block.

    Args:
        src: the file.
        options: further options of the demuxer.

    Yields:
        The open container.

    Raises:
        MediaError: If the file is missing, empty or not media.
    """
    path = Path(src)
    check_input_path(path)
    with raise_media_errors(path, "cannot be opened as audio or video", _guess_damage):
        container = av.open(
            file_url(path), "r", options={**_OPTIONS, **(options or {})}, metadata_errors="replace"
        )
    with container:
        if container.format.name in _NOT_MEDIA or not container.streams:
            raise MediaError(f"{path}: not a media file; expected audio, video, PNG, JPEG or WebP")
        yield container


def path_of_container(container: InputContainer) -> Path:
    """Return the path of the file that ``container`` reads."""
    return Path(container.name.removeprefix("file:"))


def is_mp4(container: InputContainer) -> bool:
    """Return whether a file is of the family of MP4 (MOV, M4A, 3GP, HEIC, ...), with edit lists."""
    return container.format.name.startswith("mov,")


def joined_parts(container: InputContainer, stream: Stream) -> tuple[Part, ...]:
    """Return the parts of a track that an edit list joins, none where FFmpeg plays it rightly."""
    if not is_mp4(container):
        return ()
    return read_joined_parts(path_of_container(container), stream.id)


def clock_jumps(container: InputContainer) -> tuple[Jump, ...]:
    """Return where the clock of a file jumps, if it is of a kind that can be joined end to end.

    The last results are kept.
    """
    if container.format.name not in JOINABLE:
        return ()
    path = path_of_container(container)
    stat = path.stat()
    return _scan_clock(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=64)
def _scan_clock(path: Path, version: tuple[int, ...]) -> tuple[Jump, ...]:
    # ``version`` is a part of the key, so that a file that is written again is scanned again
    stamps: list[Stamp] = []
    at = 0
    with open_source(path) as container, suppress(FFmpegError):
        for packet in container.demux(*container.streams.video, *container.streams.audio):
            at = packet.pos or at  # of several frames in one packet of the file, the first has it
            if packet.dts is not None and packet.size:
                end = packet.dts + (packet.duration or 0)
                stamps.append(Stamp(at, packet.stream_index, packet.dts, end))
            if at > _SCANNED:
                break
    return find_jumps(stamps)


def is_image(container: InputContainer) -> bool:
    """Return whether the file is of a kind that holds a single picture (PNG, JPEG, WebP, ...)."""
    name = container.format.name
    if is_animated_webp(container, path_of_container(container)):
        return False
    return name == "image2" or name.endswith("_pipe") or is_tiled(container)


def picture_stream(container: InputContainer) -> VideoStream | None:
    """Return the picture of a file: of its default tracks, else of all, the largest; or None.

    Cover pictures and thumbnails do not count.
    """
    streams = [one for one in container.streams.video if not one.disposition & _NO_PICTURE]
    default = [one for one in streams if one.disposition & Disposition.default]
    return max(default or streams, key=lambda one: one.width * one.height, default=None)


def read_packets(
    container: InputContainer, streams: tuple[Stream, ...], warn: Warn
) -> "Iterator[Packet[Stream]]":
    """Yield the packets of ``streams`` in file order.

    A truncated file ends early with a warning.
    """
    jumps = clock_jumps(container)
    if jumps:
        warn(
            f"{path_of_container(container).name}: the clock jumps ({len(jumps)} times), as in "
            "files that were joined; the parts are played one after another"
        )
    demuxed = container.demux(*streams)
    while True:
        try:
            packet = next(demuxed, None)
        except FFmpegError as error:
            warn(
                f"{path_of_container(container).name}: the file breaks off ({error.strerror}); "
                "what is there is used"
            )
            return
        if packet is None:
            return
        move_packet(packet, jumps)
        if packet.size:  # the empty ones at the end only ask the decoder to flush
            yield packet


def decode_video(
    container: InputContainer, stream: VideoStream, warn: Warn
) -> Iterator[VideoFrame]:
    """Yield the frames of ``stream`` in display order from the current position on.

    Damaged packets are skipped.
    """
    path = path_of_container(container)
    if is_animated_webp(container, path):
        yield from read_animated_webp(path)
        return
    if is_tiled(container):
        yield read_tiled(path)
        return
    for frame in _decode(
        container, stream, warn, "picture data; frames may be missing or repeated"
    ):
        assert isinstance(frame, VideoFrame)
        yield frame


def decode_sound(
    container: InputContainer, stream: AudioStream, warn: Warn
) -> Iterator[AudioFrame]:
    """Yield the blocks of ``stream`` from the current position on; damaged packets are skipped."""
    for frame in _decode(container, stream, warn, "sound data; parts may be silent"):
        assert isinstance(frame, AudioFrame)
        yield frame


def _decode(
    container: InputContainer, stream: VideoStream | AudioStream, warn: Warn, what: str
) -> Iterator[VideoFrame | AudioFrame]:
    damaged = f"{path_of_container(container).name}: damaged or incomplete {what}"
    # a last packet of PCM that is shorter than usual is as good as any other
    pcm = stream.codec_context.name.startswith("pcm_")
    by_rank = stream.type == "video" and container.format.name == _IN_DECODING_ORDER
    times: deque[int] = deque()
    for packet in chain(read_packets(container, (stream,), warn), (None,)):
        if packet is not None and packet.is_corrupt and not pcm:
            warn(damaged)
        if by_rank and packet is not None and packet.dts is not None:
            times.append(packet.dts)
        try:
            for frame in stream.decode(packet):  # pyright: ignore[reportArgumentType]
                if frame.time_base is None:  # PyAV leaves it out of the frames that None flushes
                    frame.time_base = stream.time_base
                if times:  # the first picture shown has the time of the first packet, and so on
                    frame.pts = times.popleft()
                yield frame
        except FFmpegError:
            warn(damaged)
            if times:
                times.pop()


def is_in_decoding_order(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether only counting from the first picture tells when pictures are shown."""
    return container.format.name == _IN_DECODING_ORDER and stream.codec_context.has_b_frames


def picture_times(
    container: InputContainer, stream: VideoStream
) -> dict[int, tuple[int, int]] | None:
    """Return when the pictures of an AVI file are shown, for copying them to another container.

    Args:
        container: an open file, which is read from the current position to its end.
        stream: its picture.

    Returns:
        (decoding time, time of display) for each decoding time of the file, in units of the
        stream's time base; None if the container says when pictures are shown.
    """
    if container.format.name != _IN_DECODING_ORDER:
        return None
    if not stream.codec_context.has_b_frames:  # yet FFmpeg shows H.264 one picture late
        stored = read_packets(container, (stream,), lambda _: None)
        return {one.dts: (one.dts, one.dts) for one in stored if one.dts is not None}
    times: list[int] = []
    shown: dict[int, int] = {}
    for packet in chain(read_packets(container, (stream,), lambda _: None), (None,)):
        if packet is not None and packet.dts is not None:
            times.append(packet.dts)
            packet.pts = packet.dts  # names the packet of a frame
        with suppress(FFmpegError):
            for frame in stream.decode(packet):  # pyright: ignore[reportArgumentType]
                if frame.pts is not None:
                    shown[frame.pts] = times[len(shown)]
    late = max((time - shown.get(time, time) for time in times), default=0)
    return {time: (time - late, shown.get(time, time)) for time in times}


def frame_time(frame: VideoFrame) -> Fraction | None:
    """Return the display time of ``frame`` in seconds of the container's clock, None if unknown."""
    stamp = frame.pts if frame.pts is not None else frame.dts
    return None if stamp is None or frame.time_base is None else stamp * frame.time_base


def first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """Decode the first decodable frame of a file.

    Raises:
        MediaError: If no frame can be decoded.
    """
    for frame in decode_video(container, stream, lambda _: None):
        parts = joined_parts(container, stream)
        if parts and frame.time_base is not None:
            frame.pts = round(parts[0].begin / frame.time_base)
        return frame
    raise MediaError(f"{path_of_container(container)}: no frame of the picture could be decoded")


def first_frame_time(src: Path | str) -> Fraction | None:
    """Return the time of clip frame 0 in seconds of the container's clock, None without a picture.

    It is the time of the first decoded frame, not the header's start_time, which may belong to
    frames that cannot be decoded.
    """
    with open_source(src) as container:
        stream = picture_stream(container)
        return None if stream is None else frame_time(first_frame(container, stream)) or Fraction(0)


def first_frame_audio_time(src: Path | str) -> Fraction | None:
    """Return the time at which clip frame 0 is shown, on the clock of the sound.

    Where an edit list begins between two pictures, as copied cuts do, libavformat (62.12) moves all
    pictures to an earlier time, so that the first is shown at 0, and leaves the sound where it is.

    Returns:
        Seconds of the container's clock, None without a picture.
    """
    with open_source(src) as moved:
        stream = picture_stream(moved)
        if stream is None:
            return None
        time = frame_time(first_frame(moved, stream)) or Fraction(0)
        if not is_mp4(moved) or joined_parts(moved, stream):
            return time
        with open_source(src, {"advanced_editlist": "0"}) as unmoved:
            return time + _picture_shift(moved, unmoved)


def _picture_shift(moved: InputContainer, unmoved: InputContainer) -> Fraction:
    """Return by how many seconds the pictures of ``moved`` are earlier than in ``unmoved``."""
    early, right = picture_stream(moved), picture_stream(unmoved)
    if early is None or right is None or early.time_base is None:
        return Fraction(0)
    first = next(iter(early.index_entries), None)
    if first is None:
        return Fraction(0)
    for entry in right.index_entries:
        if entry.pos == first.pos:
            return (entry.timestamp - first.timestamp) * early.time_base
    return Fraction(0)
