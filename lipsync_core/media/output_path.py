"""Check output paths, and move whole files to them."""

import os
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from ..errors import MediaError
from .container import (
    decode_sound,
    decode_video,
    open_source,
    picture_stream,
    raise_media_errors,
    read_packets,
)
from .mux import SUFFIXES

_ROUNDING = Fraction(1, 10)  # seconds: containers round time stamps


def check_output_path(path: Path, *, overwrite: bool) -> None:
    """Check that ``path`` may be written.

    Raises:
        MediaError: If the file exists without ``overwrite``, or its folder is missing or read-only.
    """
    folder, suffix = path.parent, path.suffix.lower()
    if suffix not in SUFFIXES:
        raise MediaError(
            f"{path}: cannot write {suffix or 'a file without suffix'}; use {', '.join(SUFFIXES)}"
        )
    if not folder.is_dir():
        raise MediaError(f"{path}: the folder {folder} does not exist; create it first")
    if path.is_dir() or (path.exists() and not overwrite):
        raise MediaError(
            f"{path}: exists already; choose another name or allow overwriting (--overwrite)"
        )
    if not os.access(folder, os.W_OK):
        raise MediaError(f"{path}: the folder {folder} is not writable; choose another one")


def refuse_inputs(path: Path, *inputs: Path) -> None:
    """Check that ``path`` is none of ``inputs``, which are never overwritten.

    Raises:
        MediaError: If it is.
    """
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise MediaError(f"{path} is what is read; write to another file")


def move_into_place(
    partial: Path, path: Path, *, overwrite: bool, seconds: Fraction | None = None
) -> None:
    """Rename the whole file ``partial``, which must be closed (Windows needs that), to ``path``.

    Args:
        partial: the file.
        path: its final name.
        overwrite: whether that may exist.
        seconds: when the last picture begins, after the first; None if unknown.

    Raises:
        MediaError: If the first or last picture or the sound of ``partial`` cannot be decoded, or
            ``path`` cannot be written.
    """
    check_output_path(path, overwrite=overwrite)
    _check_decodable(partial, path, seconds)
    try:
        partial.replace(path)
    except OSError as error:
        raise MediaError(
            f"{path}: cannot be put in place ({error.strerror}); is it open elsewhere?"
        ) from error


def _check_decodable(partial: Path, path: Path, seconds: Fraction | None) -> None:
    with (
        raise_media_errors(path, "what was written cannot be read again"),
        open_source(partial) as container,
    ):
        sounds, picture = container.streams.audio, picture_stream(container)
        heard = not sounds or any(True for _ in decode_sound(container, sounds[0], _ignore))
        end = None if picture is None else _decodable_end(container, picture)
    short = end is None or (seconds is not None and end < seconds - _ROUNDING)
    if short or not heard:
        raise MediaError(
            f"{path}: the {'picture' if short else 'sound'} that was written cannot be decoded "
            "again, so nothing was kept; choose another codec or container"
        )


def _decodable_end(container: InputContainer, picture: VideoStream) -> Fraction | None:
    """Return when ``picture`` ends, in seconds after its first frame is shown.

    Two frames are decoded: the first, and the last key frame. None if one of them cannot be.
    """
    assert picture.time_base is not None
    container.seek(0)
    first = next(decode_video(container, picture, _ignore), None)
    container.seek(container.duration or 0)
    last = next(decode_video(container, picture, _ignore), None)
    if first is None or first.pts is None or last is None or last.pts is None:
        return None
    ends = [last.pts + last.duration]
    for packet in read_packets(container, (picture,), _ignore):
        if packet.pts is not None:
            ends.append(packet.pts + (packet.duration or 0))
    return (max(ends) - first.pts) * picture.time_base


def _ignore(message: str) -> None:
    """Damage that was copied is no fault of what was written."""


def container_options(path: Path) -> dict[str, str]:
    """Return FFmpeg's options for the container of ``path``.

    use_metadata_tags keeps keys that MP4 has no box for; faststart lets players begin before the
    end has arrived.
    """
    return (
        {"movflags": "use_metadata_tags+faststart"}
        if path.suffix.lower() in {".mp4", ".m4v", ".mov"}
        else {}
    )
