"""Copy a clip with its sound moved in time: the picture's packets as they are."""

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from ..errors import MediaError
from ..runtime.atomic import remove_stale, temporary_name
from ..runtime.paths import same_file
from ..types import Audio
from .audio_reader import probe_sound
from .container import (
    Warn,
    file_url,
    first_frame_time,
    open_source,
    picture_stream,
    raise_media_errors,
    warn_once,
)
from .descriptions import copy_description
from .mux import (
    LATER_THAN_ANYTHING,
    AudioSource,
    CannotCopy,
    CopiedTracks,
    Track,
    add_audio_stream,
    add_other_streams,
)
from .output_path import container_options, move_into_place
from .paths import check_output_path, refuse_inputs
from .video_reader import probe, read_coded
from .video_writer import VideoWriter

_STEP = 1  # seconds of one track that are written before the next has its turn
_MP4_PICTURES = {"h264", "hevc", "av1", "libdav1d", "mpeg4"}  # decoders; dav1d's is that of AV1
_CRF = 12.0  # of a picture that cannot be copied


def shift_audio(
    src: Path | str,
    out: Path | str,
    delay: Fraction,
    *,
    audio: Path | str | Audio | None = None,
    track: int | None = None,
    overwrite: bool = False,
    on_warning: Warn | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a clip with its sound ``delay`` seconds later.

    The sound is moved by whole samples (Matroska counts in milliseconds) and therefore encoded
    again, as AAC (Opus in WebM); with ``delay`` 0 the sound of a file is copied if the container
    takes it. Nothing is cut at the end, where the sound may outlast the picture; silence follows
    sound that is encoded and shorter. Further sound tracks, subtitles, tags and chapters are
    copied.

    A picture that begins between key frames, in a container that cannot hide what comes before, and
    one whose edit list joins several parts are encoded again, with a warning.

    Args:
        src: clip whose picture is copied packet by packet.
        out: file to write.
        delay: > 0 puts silence before the sound, < 0 cuts its beginning.
        audio: sound to use in place of that of ``src``.
        track: number of the sound track that is moved, of ``src`` or of the file ``audio``, from 1;
            None for the default one.
        overwrite: whether ``out`` may exist.
        on_warning: called with each warning.
        on_progress: called with seconds done and total.

    Raises:
        MediaError: If ``src`` has no picture or no sound, the container of ``out`` cannot hold the
            picture's codec, or ``out`` cannot be written.
    """
    src, out = Path(src), Path(out)
    source = audio if isinstance(audio, Audio) else src if audio is None else Path(audio)
    warn = warn_once(on_warning)
    refuse_inputs(out, src)
    if isinstance(source, Path):
        refuse_inputs(out, source)
        probe_sound(source, track)  # raises for a file without sound
    check_output_path(out, overwrite=overwrite)
    sound = AudioSource(
        source,
        start=max(-delay, Fraction(0)),
        lead=max(delay, Fraction(0)),
        track=track,
        keep_early=not same_file(source, src),
    )
    try:
        _copy(src, out, sound, overwrite, warn, on_progress)
    except CannotCopy as reason:
        warn(f"{reason}; the picture is encoded again (CRF {_CRF:.0f})")
        _encode(src, out, sound, overwrite, warn, on_progress)


def _copy(
    src: Path,
    out: Path,
    sound: AudioSource,
    overwrite: bool,
    warn: Warn,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Copy the picture of ``src`` packet by packet. CannotCopy where that would show others."""
    remove_stale(out)
    partial = temporary_name(out)
    try:
        with raise_media_errors(out, "cannot be written"), ExitStack() as stack:
            reader = stack.enter_context(open_source(src))
            stream, zero = picture_stream(reader), first_frame_time(src)
            if stream is None or zero is None:
                raise MediaError(f"{src}: holds no picture; expected a video")
            writer = stack.enter_context(
                av.open(file_url(partial), "w", options=container_options(out))
            )
            copy_description(src, writer)
            _check_codec(writer, stream, out)
            suffix = out.suffix.lower()
            picture = CopiedTracks(writer, reader, (stream,), zero, None, warn)
            tracks: list[Track] = [picture, add_audio_stream(writer, suffix, sound, stack, warn)]
            further = add_other_streams(writer, suffix, src, Fraction(0), stack, warn, sound)
            tracks += [] if further is None else [further]
            seconds = int((stream.duration or 0) * (stream.time_base or 0))
            for until in range(_STEP, seconds, _STEP):
                for one in tracks:
                    one.mux_until(Fraction(until))
                if on_progress is not None:
                    on_progress(until, seconds)
            for one in tracks:
                one.finish(LATER_THAN_ANYTHING, picture.end)
        move_into_place(partial, out, overwrite=overwrite)
    finally:
        partial.unlink(missing_ok=True)


def _encode(
    src: Path,
    out: Path,
    sound: AudioSource,
    overwrite: bool,
    warn: Warn,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Encode the picture of ``src`` with little loss."""
    info = probe(src)
    with VideoWriter(
        out,
        info,
        sound,
        crf=_CRF,
        overwrite=overwrite,
        extra_tracks_from=src,
        keep_sound=True,
        on_warning=warn,
    ) as writer:
        done = 0
        for frames in read_coded(src, on_warning=warn):
            writer.write(frames)
            done += len(frames.pixels)
            if on_progress is not None:
                total = info.frames or done
                on_progress(int(min(done, total) / info.fps), int(total / info.fps))


def suffix_for_copy(src: Path | str) -> str:
    """Return .mp4 if that holds the picture of ``src`` as it is and players expect it, else .mkv.

    A clip with an edit list that hides pictures at its start keeps its kind: Matroska has none.

    Raises:
        MediaError: If the file cannot be read.
    """
    with open_source(Path(src)) as reader:
        stream = picture_stream(reader)
        if stream is None:
            raise MediaError(f"{src}: holds no picture; expected a video")
        first = next(iter(stream.index_entries), None)
        if first is not None and first.is_discard:
            suffix = Path(src).suffix.lower()
            return suffix if suffix in {".mp4", ".m4v", ".mov"} else ".mp4"
        return ".mp4" if stream.codec_context.name in _MP4_PICTURES else ".mkv"


def _check_codec(writer: OutputContainer, stream: VideoStream, out: Path) -> None:
    codec = stream.codec_context.name
    if codec not in writer.supported_codecs:
        raise MediaError(
            f"{out}: {out.suffix} cannot hold the picture's codec {codec} as it is; write an .mkv "
            "instead"
        )
