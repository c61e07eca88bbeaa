"""VIDEO in and out as files.

A video is read lazily from its own file; results are files in the temporary folder.
"""

import io as bytes_io
import weakref
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from comfy_api.latest import InputImpl
from torch import Tensor

from ..lipsync_core.errors import LipSyncError, MediaError, NoFaceError
from ..lipsync_core.media import (
    AudioSource,
    VideoWriter,
    probe,
    probe_sound,
    read_audio,
    shift_audio,
    suffix_for_copy,
)
from ..lipsync_core.media.clip import open_clip
from ..lipsync_core.options import Cut
from ..lipsync_core.runtime.prefetch import prefetch
from ..lipsync_core.types import Audio, Frames, VideoInfo
from . import convert, host


@dataclass(frozen=True, slots=True, eq=False)
class VideoSource:
    """A VIDEO as the core reads it.

    Attributes:
        path: The file.
        start: Where the video begins in it, in seconds.
        end: Where it ends, in seconds; None for the file's end.
        sound: The file itself, whose sound is cut with the picture; or audio in memory, which
            begins with the first frame; None for none.
    """

    path: Path
    start: Fraction = Fraction(0)
    end: Fraction | None = None
    sound: Path | Audio | None = None

    @property
    def untouched(self) -> bool:
        """Whether the picture is a whole file, which can be copied."""
        return self.lasting and self.start == 0 and self.end is None

    @property
    def lasting(self) -> bool:
        """Whether it is a file of the user, so that its face tracks are worth caching."""
        return self.sound == self.path

    def audio(
        self,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
        track: int | None = None,
        *,
        keep_early: bool = False,
    ) -> Audio:
        """Read its sound, with its own rate and channels.

        Args:
            start: Begin, in seconds after the start of the cut.
            end: End, in seconds after the start of the cut; None for the end of the cut.
            track: Number of the file's sound track, from 1; None for the default one.
            keep_early: Whether to begin with the first sound if it comes before the first picture.

        Raises:
            MediaError: It has no sound.
        """
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
            info = probe_sound(self.sound, track)
            first = round((self.start + start) * info.rate)
            sound = read_audio(
                self.sound,
                rate=None,
                mono=False,
                start=first,
                stop=max(first, round(min(ends) * info.rate)) if ends else None,
                track=track,
                keep_early=keep_early,
            )
        if not sound.samples.shape[1]:
            raise MediaError(f"there is no sound from {float(start):g} s on; begin earlier")
        return sound


def file_source(path: Path) -> VideoSource:
    """A source for a file of pictures or sound."""
    return VideoSource(path, sound=path)


def sound_source(sound: Audio) -> VideoSource:
    """A source of sound in memory, without a picture."""
    return VideoSource(Path(), sound=sound)


NO_MASK = (
    "a video's mask would take gigabytes, so there is none; the images of 'Get Video Components' "
    "have one"
)

_files: "weakref.WeakKeyDictionary[Any, VideoSource]" = weakref.WeakKeyDictionary()
"""What was written for a video that is no file, while that video lives."""


def video_source(video: Any) -> VideoSource:
    """Find the file that holds a VIDEO.

    A VIDEO in memory is written once, lossless, into the temporary folder, and removed when the
    host drops it.

    Args:
        video: The host's VIDEO.

    Raises:
        MediaError: It cannot be read.
        ValueError: It is of another type.
    """
    if not hasattr(video, "get_stream_source"):
        raise ValueError(
            f"the media is {convert.type_name(video)}; expected a VIDEO ('Load Video') or an IMAGE "
            "('Load Image'). A sound belongs to the input 'audio'"
        )
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
    """Write frames without loss of their 8-bit values, as H.264 in RGB; quick rather than small.

    Args:
        path: The file.
        frames: The frames.
        fps: Frames per second.
    """
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
    """Provide a VIDEO, or an IMAGE batch, as a file to read.

    Args:
        media: VIDEO or IMAGE.
        fps: The rate at which an IMAGE batch is shown.

    Yields:
        The source; the file of an IMAGE batch is removed when the block ends.
    """
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
    """Write a file with the picture of a video and other audio.

    Packets of the picture are copied unless it is trimmed or in memory.

    Args:
        source: The video.
        sound: The audio, from the first frame on.
        progress: Called with the stage, the frames done and their total.

    Returns:
        The file.

    Raises:
        MediaError: The video cannot be read.
    """
    if source.untouched:
        out = host.temp_file(suffix_for_copy(source.path), source.path)
        shift_audio(
            source.path,
            out,
            Fraction(0),
            audio=sound,
            on_progress=lambda done, total: progress("write", done, total),
        )
        return out
    out, footage = (
        host.temp_file(".mp4", source.path),
        open_clip(source.path, Cut(source.start, source.end)),
    )
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
    """Convert a file that stays to a VIDEO."""
    return InputImpl.VideoFromFile(str(path))


_members: "weakref.WeakKeyDictionary[Any, str]" = weakref.WeakKeyDictionary()
"""Name of the file of each VIDEO that 'Load Video Folder' gave."""


def folder_output(path: Path) -> Any:
    """Convert a file of a folder to a VIDEO; the others of the folder go on without a bad one."""
    video = video_output(path)
    _members[video] = path.name
    return video


def member_name(media: Any) -> str | None:
    """Return the file name of a VIDEO of a folder; None for other media."""
    return _members.get(media) if hasattr(media, "get_stream_source") else None


def explain_failure(name: str, path: Path, error: LipSyncError) -> str:
    """Say what is wrong with a file of a folder, such as "no face in NAME: ..."."""
    if isinstance(error, NoFaceError):
        fault = "no face in"
    elif not _succeeds(probe, path):
        fault = "no picture in"
    else:
        fault = "cannot use" if _succeeds(probe_sound, path) else "no sound in"
    return f"{fault} {name}: {error}"


def _succeeds(read: Callable[[Path], Any], path: Path) -> bool:
    try:
        read(path)
    except MediaError:
        return False
    return True


class _TemporaryName(str):
    """The name of a file that is removed when nothing holds this very object any more.

    ComfyUI's trimmed copies of a VIDEO hold the object of the first one.
    """


def result_output(path: Path) -> Any:
    """Convert a file that we wrote to a VIDEO; the file goes when it and its trimmed copies do."""
    name = _TemporaryName(path)
    weakref.finalize(name, _forget, path)
    return InputImpl.VideoFromFile(name)
