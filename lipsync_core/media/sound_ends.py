"""Where a sound track ends by the statements of its file."""

import re
import struct
from fractions import Fraction
from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer

from .container import is_mp4, path_of_container
from .sound_tracks import has_decoder

# Streaming encoders, which cannot go back to fill in a size, write 0 or the largest that they know.
_NO_SIZE = 0x7FFF0000
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def padding_begins(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """Return when the padding of the last packets begins, if an edit list says so.

    Codecs fill up their last packet; libavformat (62.12) leaves that in the sound of MP4.

    Returns:
        Seconds of the container's clock, None for other containers.
    """
    return _stated_end(stream) if is_mp4(container) else None


def promised_end(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """Return when a sound should end.

    Only statements that are exact count, no guesses from a bit rate or from the size of the file.

    Returns:
        Seconds of the container's clock, None if the file does not say.
    """
    name = container.format.name
    if is_mp4(container) or name == "flac":
        return _stated_end(stream)
    if name.startswith("matroska"):
        clock = _CLOCK.match(stream.metadata.get("DURATION", ""))
        if clock is None:
            return None
        hours, minutes, seconds = (Fraction(part) for part in clock.groups())
        return hours * 3600 + minutes * 60 + seconds
    if name == "wav" and has_decoder(stream) and stream.codec_context.name.startswith("pcm_"):
        return _wav_seconds(path_of_container(container))
    return None


def _stated_end(stream: AudioStream) -> Fraction | None:
    if not stream.duration or stream.time_base is None:
        return None
    return ((stream.start_time or 0) + stream.duration) * stream.time_base


def _wav_seconds(path: Path) -> Fraction | None:
    """Return the length that the header of a WAV states; FFmpeg corrects it by the file's size."""
    bytes_per_second = 0
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":  # RF64 and others for more than 4 GB
            return None
        while len(header := file.read(8)) == 8:
            kind, size = struct.unpack("<4sI", header)
            if kind == b"data":
                known = bytes_per_second and 0 < size < _NO_SIZE
                return Fraction(size, bytes_per_second) if known else None
            if kind == b"fmt ":
                bytes_per_second = struct.unpack("<I", file.read(12)[8:])[0]
                size -= 12
            file.seek(size + size % 2, 1)
    return None
