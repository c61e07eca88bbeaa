"""Choose the sound track of a file that is read."""

from pathlib import Path

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream

from ..errors import MediaError
from .container import Warn, open_source, path_of_container

_UNNAMED = {"1 channels": "mono", "2 channels": "stereo"}  # layouts that a file does not name
_IMPAIRED = Disposition.hearing_impaired | Disposition.visual_impaired


def choose_sound(container: InputContainer, track: int | None, warn: Warn) -> AudioStream:
    """Return the sound track of a file that is to be read.

    Args:
        container: the open file.
        track: number of the track among the file's sound tracks, from 1; None for the default one
            as FFmpeg takes it: flagged as default and not made for the impaired, else the first.
            Tracks that cannot be decoded are passed over.
        warn: called with a warning for each track that cannot be decoded.

    Returns:
        A stream with a decoder.

    Raises:
        MediaError: If the file has no such track, or no sound that can be decoded.
    """
    path, streams = path_of_container(container), container.streams.audio
    if not streams:
        raise MediaError(f"{path}: holds no sound; expected a file with a sound track")
    if track is not None and not 1 <= track <= len(streams):
        tracks = "; ".join(_describe(stream, streams) for stream in streams)
        raise MediaError(
            f"{path}: there is no sound track {track}; expected 1 to {len(streams)} ({tracks})"
        )
    known = [stream for stream in streams if has_decoder(stream)]
    if not known or (track is not None and not has_decoder(streams[track - 1])):
        what = "holds no sound" if track is None else f"sound track {track} is none"
        raise MediaError(f"{path}: {what} that FFmpeg can decode; convert it to AAC or WAV")
    if track is not None:
        return streams[track - 1]
    _warn_of_undecodable(container, warn)
    return max(known, key=_preference)


def other_tracks(container: InputContainer, replaced: int | None, warn: Warn) -> list[AudioStream]:
    """Return the sound tracks of a file that can be decoded, but the one that is replaced.

    Args:
        container: the open file.
        replaced: number of the track that is left out; see ``choose_sound``.
        warn: called with a warning for each track that cannot be decoded.
    """
    try:
        chosen = choose_sound(container, replaced, lambda _: None).index
    except MediaError:
        chosen = None
    _warn_of_undecodable(container, warn)
    return [
        stream
        for stream in container.streams.audio
        if has_decoder(stream) and stream.index != chosen
    ]


def has_decoder(stream: Stream) -> bool:
    """Return whether FFmpeg can decode a stream; PyAV gives others no context."""
    return getattr(stream, "codec_context", None) is not None


def _warn_of_undecodable(container: InputContainer, warn: Warn) -> None:
    streams = container.streams.audio
    for number, stream in enumerate(streams, 1):
        if not has_decoder(stream):
            warn(
                f"{path_of_container(container).name}: sound track {number} of {len(streams)} is "
                "of a kind that FFmpeg cannot decode (such as Spatial Audio); it is left out"
            )


def track_used(src: Path | str, track: int | None) -> str | None:
    """Describe which sound track of a file is read, if it has several.

    Args:
        src: the file.
        track: see ``choose_sound``.

    Returns:
        A text for reports, None for a file with one track.

    Raises:
        MediaError: If the file cannot be read or has no such track.
    """
    with open_source(src) as container:
        chosen, streams = choose_sound(container, track, lambda _: None), container.streams.audio
        if len(streams) == 1:
            return None
        return f"{Path(src).name}: sound track {_describe(chosen, streams)} of {len(streams)}"


def _describe(stream: AudioStream, streams: tuple[AudioStream, ...]) -> str:
    """``2 (aac, stereo, deu, "Director", default)``."""
    facts = ["cannot be decoded"]
    if has_decoder(stream):
        layout = stream.layout.name
        facts = [stream.codec_context.name, _UNNAMED.get(layout, layout)]
    if stream.metadata.get("language", "und") != "und":
        facts.append(stream.metadata["language"])
    if stream.metadata.get("title"):
        facts.append(f'"{stream.metadata["title"]}"')
    if stream.disposition & Disposition.default:
        facts.append("default")
    return f"{streams.index(stream) + 1} ({', '.join(facts)})"


def _preference(stream: AudioStream) -> int:
    """Higher for the track that FFmpeg's own choice prefers; the first of equals is taken."""
    return bool(stream.disposition & Disposition.default) - bool(stream.disposition & _IMPAIRED)
