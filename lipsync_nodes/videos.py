"""VIDEO in and out as files: a video is read lazily where it lies, and what is made is a file of
the temporary folder."""

import io as bytes_io
import weakref
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from comfy_api.latest import InputImpl
from torch import Tensor

from ..lipsync_core.errors import MediaError
from ..lipsync_core.media import (
    AudioSource,
    VideoWriter,
    probe_sound,
    read_audio,
    shift_audio,
    suffix_for_copy,
)
from ..lipsync_core.media.clip import Cut, open_clip
from ..lipsync_core.runtime.prefetch import prefetch
from ..lipsync_core.types import Audio, Frames, VideoInfo
from . import convert, host


@dataclass(frozen=True, slots=True, eq=False)
class VideoSource:
    """A VIDEO as the core reads it: the file ``path`` from ``start`` to ``end`` (None: its end)
    seconds. ``sound``: the file itself, whose sound is cut with the picture; or sound in memory,
    which begins with the first frame; None where there is none."""

    path: Path
    start: Fraction = Fraction(0)
    end: Fraction | None = None
    sound: Path | Audio | None = None

    @property
    def untouched(self) -> bool:
        """Whether the picture can be taken over as it is: a file, and all of it."""
        return self.lasting and self.start == 0 and self.end is None

    @property
    def lasting(self) -> bool:
        """Whether what is found in it is worth keeping between runs."""
        return self.sound == self.path

    def audio(self, start: Fraction = Fraction(0), end: Fraction | None = None) -> Audio:
        """Its sound from ``start`` to ``end`` seconds after the cut's own start, at its own rate
        with its own channels. MediaError without any."""
        if self.sound is None:
            raise MediaError("the video has no sound; connect an audio, or a video with sound")
        if isinstance(self.sound, Audio):
            first, stop = (
                None if at is None else round(at * self.sound.rate) for at in (start, end)
            )
            sound = Audio(self.sound.samples[:, first:stop], self.sound.rate)
        else:
            ends = [
                at for at in (self.end, None if end is None else self.start + end) if at is not None
            ]
            sound = _read(self.sound, self.start + start, min(ends, default=None))
        if not sound.samples.shape[1]:
            raise MediaError(f"there is no sound from {float(start):g} s on; begin earlier")
        return sound


def file_source(path: Path) -> VideoSource:
    """A file of pictures or sound."""
    return VideoSource(path, sound=path)


NO_MASK = "a video's mask would take gigabytes, so there is none; the images of 'Get Video Components' have one"

_files: "weakref.WeakKeyDictionary[Any, VideoSource]" = weakref.WeakKeyDictionary()
"""What was written for a video that is no file, while that video lives."""


def video_source(video: Any) -> VideoSource:
    """Where a VIDEO can be read. One that lies in memory is written once, lossless, into the
    temporary folder, and removed when the host forgets it. MediaError, ValueError."""
    known = _files.get(video)
    if known is None:
        in_memory = isinstance(video, InputImpl.VideoFromComponents)
        stream = None if in_memory else video.get_stream_source()
        if isinstance(stream, (str, Path)):
            return _trimmed(Path(stream), video)
        known = _written(video) if stream is None else _trimmed(_dumped(stream), video)
        _files[video] = known
        weakref.finalize(video, _forget, known.path)
    return known


def _read(path: Path, start: Fraction, end: Fraction | None) -> Audio:
    rate = probe_sound(path).rate
    first = round(start * rate)
    stop = None if end is None else max(first, round(end * rate))
    return read_audio(path, rate=None, mono=False, start=first, stop=stop)


def _trimmed(path: Path, video: Any) -> VideoSource:
    start, duration = _window(video)
    end = start + duration if duration else None
    return VideoSource(path, start, end, path)


def _window(video: Any) -> tuple[Fraction, Fraction]:
    """Start and duration (0: to the end) of a trimmed VIDEO in seconds."""
    if hasattr(video, "get_active_trim_window"):  # since ComfyUI 0.22
        start, duration = video.get_active_trim_window()
    else:  # before, a file's window was its own affair; a start below 0 counts from the end
        start = getattr(video, "_VideoFromFile__start_time", 0) or 0
        duration = getattr(video, "_VideoFromFile__duration", 0) or 0
        start = max(video._get_raw_duration() + start, 0) if start < 0 else start
    return Fraction(start).limit_denominator(1_000_000), Fraction(duration).limit_denominator(
        1_000_000
    )


def _dumped(stream: bytes_io.BytesIO) -> Path:
    path = host.temp_file(".mkv")  # FFmpeg looks into a file to tell its format
    try:
        with path.open("wb") as file:
            stream.seek(0)
            while piece := stream.read(1 << 20):
                host.cancel_point()
                file.write(piece)
    except BaseException:
        _forget(path)
        raise
    return path


def _written(video: Any) -> VideoSource:
    parts = video.get_components()
    path = host.temp_file(".mkv")
    write_lossless(path, convert.frames(parts.images), Fraction(parts.frame_rate))
    return VideoSource(
        path, sound=None if parts.audio is None else convert.audio(parts.audio, "the video's sound")
    )


def write_lossless(path: Path, frames: Frames, fps: Fraction) -> None:
    """``frames`` as a file that holds every bit of their 8-bit values, H.264 in RGB; quick rather
    than small."""
    _, height, width, _ = frames.pixels.shape
    info = VideoInfo(width, height, fps, None)
    with VideoWriter(path, info, codec="libx264rgb", crf=0, preset="ultrafast") as out:
        for piece in frames.pixels.split(_PIECE):
            host.cancel_point()
            out.write(Frames(piece))


_PIECE = 8  # frames


def _forget(path: Path) -> None:
    # open elsewhere, on Windows; the host empties the folder when it starts
    with suppress(OSError):
        path.unlink()


@contextmanager
def media_source(media: Any, fps: float) -> Generator[VideoSource]:
    """A VIDEO, or an IMAGE batch shown at ``fps``, as a file to read; that of an IMAGE goes when
    the block ends."""
    if not isinstance(media, Tensor):
        yield video_source(media)
        return
    path = host.temp_file(".mkv")
    try:
        write_lossless(path, convert.frames(media), convert.rate(fps))
        yield VideoSource(path)
    finally:
        _forget(path)


def with_sound(source: VideoSource, sound: Audio, progress: host.Progress) -> Path:
    """A new file: the picture of ``source`` with ``sound`` from its first frame on. The picture's
    packets are copied, unless it is trimmed or lies in memory. MediaError."""
    if source.untouched:
        out = host.temp_file(suffix_for_copy(source.path))
        shift_audio(
            source.path,
            out,
            Fraction(0),
            audio=sound,
            on_progress=lambda done, total: progress("write", done, total),
        )
        return out
    out, footage = host.temp_file(".mp4"), open_clip(source.path, Cut(source.start, source.end))
    total = (footage.stop or footage.info.frames or 0) - footage.first
    with (
        VideoWriter(out, footage.info, AudioSource(sound)) as writer,
        closing(prefetch(footage.coded(chunk=8))) as frames,
    ):
        for chunk in frames:
            writer.write(chunk)
            progress("write", chunk.start + len(chunk.pixels), total)
    return out


def video_output(path: Path) -> Any:
    """The file ``path`` as a VIDEO."""
    return InputImpl.VideoFromFile(str(path))
