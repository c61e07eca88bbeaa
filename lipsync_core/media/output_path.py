"""Move whole files to their final names."""

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
from .paths import check_output_path

_ROUNDING = Fraction(1, 10)  # seconds: containers round time stamps


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
