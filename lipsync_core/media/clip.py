"""The face video as the dub needs it: cut, at a constant rate, as long as the speech, and the faces
in it; in a file, or as pictures in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..runtime.options import Option
from ..runtime.timecode import parse_fps, parse_seconds
from ..types import AnyFrames, Frames, VideoInfo, YuvFrames
from . import probe, read_coded, read_frames

Longer = Literal["pingpong", "loop", "hold", "trim"]
_SOUGHT = 250  # frames: a usual distance of key frames, from which a decoder has to start
DETECT_SIDE = 640  # px: faces are looked for in frames reduced to this
# Frames read at once: two runs of the detector. With 32, glibc's heap grew by 50 MB a minute of
# footage, in pieces.
_DETECT_CHUNK = 10


@dataclass(frozen=True, slots=True)
class Cut:
    """What of the face video is dubbed: from ``start`` to ``end`` in seconds, at ``fps`` (None: the
    source's average). ``longer``: what the picture does where the speech outlasts it; a still photo
    just stays."""

    start: Annotated[
        Fraction,
        Option("Start of the cut: seconds or h:mm:ss.", parse=parse_seconds, metavar="TIME"),
    ] = Fraction(0)
    end: Annotated[
        Fraction | None,
        Option(
            "End of the cut; by default that of the video.", parse=parse_seconds, metavar="TIME"
        ),
    ] = None
    fps: Annotated[
        Fraction | None,
        Option(
            "Frames per second, such as 25 or 30000/1001; by default the video's average.",
            panel="Encoding",
            parse=parse_fps,
            metavar="RATE",
        ),
    ] = None
    longer: Annotated[
        Longer,
        Option(
            "What the picture does if the speech is longer.",
            "pingpong: play forwards and backwards. loop: start again. hold: stay on the last "
            "frame. trim: stop the speech with the picture.",
            flags=("--when-audio-is-longer",),
        ),
    ] = "pingpong"


@dataclass(frozen=True, slots=True)
class VideoClip:
    """Frames ``first`` .. ``stop-1`` (None: to the end) of the file ``path`` at ``info.fps``. Its
    own frames count from 0."""

    path: Path
    info: VideoInfo
    first: int = 0
    stop: int | None = None
    on_warning: Callable[[str], None] | None = None

    def frames(
        self, length: int, count: int, *, longer: Longer = "pingpong", chunk: int = 8
    ) -> Iterator[Frames | YuvFrames]:
        """``count`` frames, of footage that has ``length``: in the order that ``frame_order`` tells,
        numbered from 0; as the file codes them where that can be (``read_coded``)."""
        done = 0
        for piece in self._passes(min(length, count), longer, chunk):
            pixels = piece.pixels[: count - done]
            yield replace(piece, pixels=pixels, start=done)
            done += pixels.shape[0]
            if done >= count:
                return

    def rgb(self, *, chunk: int) -> Iterator[Frames]:
        """All frames, once, as RGB."""
        read = read_frames(
            self.path,
            chunk=chunk,
            fps=self.info.fps,
            start=self.first,
            stop=self.stop,
            on_warning=self.on_warning,
        )
        for piece in read:
            yield Frames(piece.pixels, piece.start - self.first)

    def pick(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """The RGB pictures (H,W,3) uint8 of single ``frames``, rising, each with its number; those
        beyond the end are left out. Frames near each other are read on from one to the next,
        distant ones sought; ``on_frame`` hears of each that is read."""
        rate = self.info.fps
        for first, stop in self._spans(frames):
            read = read_frames(
                self.path, chunk=1, fps=rate, start=first, stop=stop, on_warning=self.on_warning
            )
            yield from ((i, piece.pixels[0]) for i, piece in self._wanted(read, frames, on_frame))

    def pick_coded(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Frames | YuvFrames]]:
        """``pick``, but each a picture as ``frames`` gives it."""
        for first, stop in self._spans(frames):
            read = read_coded(
                self.path,
                chunk=1,
                fps=self.info.fps,
                start=first,
                stop=stop,
                on_warning=self.on_warning,
            )
            yield from self._wanted(read, frames, on_frame)

    @property
    def fps(self) -> Fraction:
        return self.info.fps

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.info.width, self.info.height

    @property
    def scale(self) -> tuple[float, float]:
        """How many px of the footage are one of ``reduced``, across and down."""
        return _scale(*self.size)

    def reduced(self, stop: int) -> Iterator[Frames]:
        """The first ``stop`` frames at the size at which faces are looked for."""
        read = read_frames(
            self.path,
            chunk=_DETECT_CHUNK,
            fps=self.info.fps,
            start=self.first,
            stop=self._end(stop),
            size=_reduced(*self.size),
            on_warning=self.on_warning,
        )
        for piece in read:
            yield Frames(piece.pixels, piece.start - self.first)

    def _spans(self, frames: Sequence[int]) -> Iterator[tuple[int, int]]:
        """What is read for single ``frames``, in the file's own numbers: those near each other in
        one go."""
        wanted = sorted(set(frames))
        distant = [i for i in range(1, len(wanted)) if wanted[i] - wanted[i - 1] > _SOUGHT]
        for begin, end in pairwise([0, *distant, len(wanted)] if wanted else []):
            yield self.first + wanted[begin], self.first + wanted[end - 1] + 1

    def _wanted(
        self,
        pieces: Iterator[AnyFrames],
        frames: Sequence[int],
        on_frame: Callable[[], None] | None,
    ) -> Iterator[tuple[int, AnyFrames]]:
        """Those of ``pieces``, single frames of the file, that are among ``frames``."""
        wanted = set(frames)
        for piece in pieces:
            if on_frame is not None:
                on_frame()
            if (frame := piece.start - self.first) in wanted:
                yield frame, replace(piece, start=frame)

    def _end(self, stop: int) -> int:
        """The file's own number of the frame ``stop``, within the footage."""
        return self.first + stop if self.stop is None else min(self.first + stop, self.stop)

    def _read(
        self, start: int, stop: int, *, chunk: int, reverse: bool = False
    ) -> Iterator[Frames | YuvFrames]:
        return read_coded(
            self.path,
            chunk=chunk,
            fps=self.info.fps,
            start=self.first + start,
            stop=self._end(stop),
            reverse=reverse,
            on_warning=self.on_warning,
        )

    def _passes(self, length: int, longer: Longer, chunk: int) -> Iterator[Frames | YuvFrames]:
        last = None
        for last in self._read(0, length, chunk=chunk):
            yield last
        assert last is not None  # a reader without frames raises
        backwards = True
        while longer != "trim":
            if longer == "hold" or length == 1:
                yield replace(last, pixels=last.pixels[-1:].expand(chunk, *last.pixels.shape[1:]))
            elif longer == "loop":
                yield from self._read(0, length, chunk=chunk)
            else:
                ends = (1, length - 1) if backwards else (0, length)
                if ends[1] > ends[0]:
                    yield from self._read(*ends, chunk=chunk, reverse=backwards)
                backwards = not backwards


def open_clip(
    path: Path, cut: Cut, *, on_warning: Callable[[str], None] | None = None
) -> VideoClip:
    """What ``cut`` leaves of the video or photo ``path``. MediaError; ValueError for a cut that
    holds no frame."""
    info = probe(path)
    info = replace(info, fps=cut.fps or info.fps)
    if info.still:
        return VideoClip(path, info, on_warning=on_warning)
    first, stop = clip_frames(cut.start, cut.end, info.fps)
    if stop is not None and stop <= first:
        raise ValueError(
            f"the cut from {float(cut.start)} to {float(cut.end or 0)} s holds no frame; end it later"
        )
    return VideoClip(path, info, first, stop, on_warning)


@dataclass(frozen=True, slots=True, eq=False)
class ImageClip:
    """Footage in memory: ``pixels`` (N,H,W,3) uint8 in [0,255] or float in [0,1], shown at ``fps``.
    One picture alone is a photograph."""

    pixels: Tensor
    fps: Fraction

    def frames(
        self, count: int, *, longer: Longer = "pingpong", chunk: int = 8
    ) -> Iterator[Frames]:
        """``count`` frames in the order that ``frame_order`` tells, numbered from 0."""
        index = frame_order(len(self.pixels), count, longer)
        for start in range(0, count, chunk):
            yield Frames(self.pixels[index[start : start + chunk]], start)

    def pick(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """The pictures (H,W,3) of single ``frames``, rising, each with its number; ``on_frame``
        hears of each."""
        for frame in sorted(set(frames)):
            if on_frame is not None:
                on_frame()
            yield frame, self.pixels[frame]

    def pick_coded(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Frames]]:
        """``pick``, but each a picture as ``frames`` gives it."""
        yield from (
            (i, Frames(picture[None], i)) for i, picture in self.pick(frames, on_frame=on_frame)
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.pixels.shape[2], self.pixels.shape[1]

    @property
    def scale(self) -> tuple[float, float]:
        """How many px of a picture are one of ``reduced``, across and down."""
        return _scale(*self.size)

    def reduced(self, stop: int) -> Iterator[Frames]:
        """The first ``stop`` pictures at the size at which faces are looked for."""
        size = _reduced(*self.size)
        for start in range(0, min(stop, len(self.pixels)), _DETECT_CHUNK):
            planes = self.pixels[start : min(start + _DETECT_CHUNK, stop)].permute(0, 3, 1, 2)
            if size != self.size:
                small = F.interpolate(planes.float(), (size[1], size[0]), mode="area")
                planes = small if planes.is_floating_point() else small.round().to(torch.uint8)
            yield Frames(planes.permute(0, 2, 3, 1), start)


def _reduced(width: int, height: int) -> tuple[int, int]:
    """Width and height at which faces are looked for."""
    reduction = max(1.0, max(width, height) / DETECT_SIDE)
    return max(1, round(width / reduction)), max(1, round(height / reduction))


def _scale(width: int, height: int) -> tuple[float, float]:
    size = _reduced(width, height)
    return width / size[0], height / size[1]


def frame_order(length: int, count: int, longer: Longer) -> Tensor:
    """(count,) which frame of ``length`` is shown at each output frame: ``pingpong`` turns round at
    both ends without showing them twice, ``loop`` starts again, ``hold`` stays on the last."""
    index = torch.arange(count)
    if longer == "loop":
        return index % length
    if longer == "pingpong" and length > 1:
        turn = index % (2 * length - 2)
        return torch.minimum(turn, 2 * length - 2 - turn)
    return index.clamp_max(length - 1)


def clip_frames(start: Fraction, end: Fraction | None, fps: Fraction) -> tuple[int, int | None]:
    """The frames shown from ``start`` to ``end`` seconds: nearest boundaries, half a frame up."""

    def nearest(seconds: Fraction) -> int:
        return int(seconds * fps + Fraction(1, 2))

    return nearest(start), None if end is None else nearest(end)
