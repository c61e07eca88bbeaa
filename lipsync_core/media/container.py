"""Opening media files and walking through their packets; the errors of the world become MediaError
here."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
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

_log = logging.getLogger("lipsync.media")
Warn = Callable[[str], None]

# Demuxers that take any text for media: a renamed text file must be an error and not a picture of
# its letters.
_NOT_MEDIA = frozenset({"tty"})
# Only the named file is read: no network and no numbered picture series.
_OPTIONS = {"protocol_whitelist": "file", "pattern_type": "none"}


def warn_once(on_warning: Warn | None) -> Warn:
    """A function that hands each different warning once to ``on_warning``, or logs it where there
    is none."""
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
def raise_media_errors(path: Path, doing: str) -> Generator[None, None, None]:
    """Inside, what FFmpeg refuses becomes a MediaError that names the file and what was being done."""
    try:
        yield
    except FFmpegError as error:
        raise MediaError(f"{path}: {doing} ({error.strerror})") from error


def file_url(path: Path) -> str:
    """``path`` as FFmpeg takes it literally, whatever colons and percent signs it holds."""
    return f"file:{path}"


@contextmanager
def open_source(src: Path | str) -> Generator[InputContainer, None, None]:
    """``src`` opened for reading and closed at the end. MediaError when it is missing, empty or not
    media."""
    path = Path(src)
    if path.is_dir():
        raise MediaError(f"{path} is a folder; wanted a file")
    if not path.is_file():
        raise MediaError(f"{path}: no such file; check the name")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty (0 bytes); copy or download it again")
    with raise_media_errors(
        path, "cannot be opened as audio or video; it is damaged, truncated or of another kind"
    ):
        container = av.open(file_url(path), "r", options=dict(_OPTIONS), metadata_errors="replace")
    with container:
        if container.format.name in _NOT_MEDIA or not container.streams:
            raise MediaError(f"{path}: not a media file; wanted audio, video, PNG, JPEG or WebP")
        yield container


def path_of_container(container: InputContainer) -> Path:
    """The file that ``container`` reads."""
    return Path(container.name.removeprefix("file:"))


def is_still(container: InputContainer) -> bool:
    """Whether the file is one picture (PNG, JPEG, WebP, ...) and not a video."""
    name = container.format.name
    return name == "image2" or name.endswith("_pipe")


def picture_stream(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not a cover picture of a sound file."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def read_packets(
    container: InputContainer, streams: tuple[Stream, ...], warn: Warn
) -> "Iterator[Packet[Stream]]":
    """The packets of ``streams`` in file order. A file that breaks off ends early, with a warning."""
    demuxed = container.demux(*streams)
    while True:
        try:
            packet = next(demuxed, None)
        except FFmpegError as error:
            warn(
                f"{path_of_container(container).name}: the file breaks off ({error.strerror}); what is there is used"
            )
            return
        if packet is None:
            return
        if packet.size:  # the empty ones at the end only ask the decoder to flush
            yield packet


def decode_video(
    container: InputContainer, stream: VideoStream, warn: Warn
) -> Iterator[VideoFrame]:
    """The frames of ``stream`` in display order from wherever the container stands; damaged packets
    are skipped."""
    for frame in _decode(
        container, stream, warn, "picture data; frames may be missing or repeated"
    ):
        assert isinstance(frame, VideoFrame)
        yield frame


def decode_sound(
    container: InputContainer, stream: AudioStream, warn: Warn
) -> Iterator[AudioFrame]:
    """The blocks of ``stream`` from wherever the container stands; damaged packets are skipped."""
    for frame in _decode(container, stream, warn, "sound data; parts may be silent"):
        assert isinstance(frame, AudioFrame)
        yield frame


def _decode(
    container: InputContainer, stream: VideoStream | AudioStream, warn: Warn, what: str
) -> Iterator[VideoFrame | AudioFrame]:
    damaged = f"{path_of_container(container).name}: damaged or incomplete {what}"
    for packet in chain(read_packets(container, (stream,), warn), (None,)):
        if packet is not None and packet.is_corrupt:
            warn(damaged)
        try:
            for frame in stream.decode(packet):  # pyright: ignore[reportArgumentType]
                if frame.time_base is None:  # PyAV leaves it out of the frames that None flushes
                    frame.time_base = stream.time_base
                yield frame
        except FFmpegError:
            warn(damaged)


def frame_time(frame: VideoFrame) -> Fraction | None:
    """When ``frame`` is shown, in seconds of the container's clock; None when the file does not
    say."""
    stamp = frame.pts if frame.pts is not None else frame.dts
    return None if stamp is None or frame.time_base is None else stamp * frame.time_base


def first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """The first frame that can be decoded, from the start of the file. MediaError when there is
    none."""
    for frame in decode_video(container, stream, lambda _: None):
        return frame
    raise MediaError(f"{path_of_container(container)}: no frame of the picture could be decoded")


def first_frame_time(src: Path | str) -> Fraction | None:
    """The time of clip frame 0 on the container's clock, in seconds; None for a file without a
    picture.

    The first decoded frame counts and not the header's start_time, which may name frames that
    cannot be decoded.
    """
    with open_source(src) as container:
        stream = picture_stream(container)
        return None if stream is None else frame_time(first_frame(container, stream)) or Fraction(0)
