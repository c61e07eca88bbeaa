"""Keep what a file says about itself: title, artist, copyright, chapters."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import InputContainer, OutputContainer

from .container import first_frame_audio_time, open_source

# Facts of the container and program that wrote the file, which are others in a copy.
_NOT_KEPT = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})


def copy_description(
    source: Path,
    out: OutputContainer,
    start: Fraction = Fraction(0),
    seconds: Fraction | None = None,
    own: Mapping[str, str] | None = None,
) -> None:
    """Give ``out``, to which nothing has been written, the tags and chapters of a file.

    Args:
        source: the file.
        out: the container to write.
        start: seconds of the picture's clock of ``source`` that belong to the first frame written.
        seconds: length of what is written; None if unknown.
        own: further tags, which replace those of ``source``.
    """
    zero = (first_frame_audio_time(source) or Fraction(0)) + start
    with open_source(source) as container:
        # Matroska has the names in capitals
        tags = {key.lower(): text for key, text in container.metadata.items()}
        kept = {key: text for key, text in tags.items() if key not in _NOT_KEPT}
        out.metadata.update({**kept, **(own or {})})
        chapters = _moved_chapters(container, zero, seconds)
    if chapters:
        out.set_chapters(chapters)  # pyright: ignore[reportArgumentType]


def _moved_chapters(
    container: InputContainer, zero: Fraction, seconds: Fraction | None
) -> list[dict[str, Any]]:
    """The chapters that begin or last after ``zero``, and before ``seconds`` after it."""
    found: list[dict[str, Any]] = []
    for chapter in container.chapters():
        base = chapter["time_base"]
        if not base:
            continue
        begin, end = chapter["start"] * base - zero, chapter["end"] * base - zero
        if seconds is not None:
            end = min(end, seconds)
        begin = max(begin, Fraction(0))
        if end > begin:
            ticks = {"start": round(begin / base), "end": round(end / base)}
            found.append({**chapter, **ticks, "id": len(found)})
    return found


def describe_codecs(path: Path) -> str:
    """Name the codecs of a file's first picture and first sound.

    Args:
        path: the file.

    Returns:
        Such as "h264 yuv420p 25 fps, aac 16000 Hz"; "no sound" without one.
    """
    with open_source(path) as container:
        parts: list[str] = []
        for video in container.streams.video[:1]:
            context = video.codec_context
            parts.append(f"{context.name} {context.pix_fmt} {video.average_rate} fps")
        for audio in container.streams.audio[:1]:
            context = audio.codec_context
            parts.append(f"{context.name} {context.sample_rate} Hz")
        return ", ".join(parts if container.streams.audio else [*parts, "no sound"])
