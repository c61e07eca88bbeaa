"""The clip that is dubbed: a video, a photo, or images in memory, behind one protocol."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import MediaError
from ..options import Cut, Longer
from ..types import AnyFrames, Frames, VideoInfo, YuvFrames
from . import probe, read_coded, read_frames

_SEEK_GAP = 250  # frames: a usual distance of key frames, from which a decoder has to start
DETECT_SIDE = 640  # px: faces are detected in frames reduced to this
# Frames read at once: two runs of the detector. With 32, glibc's heap grew by 50 MB a minute of
# footage, in pieces.
_DETECT_CHUNK = 10


class Clip(Protocol):
    """Pictures at a constant rate, numbered from 0: what every pipeline reads."""

    @property
    def fps(self) -> Fraction:
        """Frames per second."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        ...

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel as shown, divided by its height."""
        ...

    @property
    def still(self) -> bool:
        """Whether it is a single picture that lasts as long as the speech."""
        ...

    @property
    def length(self) -> int | None:
        """Number of frames, or None where a file does not let them be counted."""
        ...

    @property
    def scale(self) -> tuple[float, float]:
        """Px of the clip per px of ``reduced``, horizontally and vertically."""
        ...

    def clamp(self, stop: int) -> int:
        """``stop``, or the number of the clip's frames if a smaller one is known exactly."""
        ...

    @property
    def path(self) -> Path | None:
        """The file that holds the clip; None in memory."""
        ...

    @property
    def first(self) -> int:
        """Number of the clip's frame 0 in its file."""
        ...

    def frames(self, order: Tensor, *, chunk: int = 8) -> Iterator[Frames | YuvFrames]:
        """Read the frames that ``order`` names, in the form in which they are stored.

        Args:
            order: (T,) number of the clip's frame for each output frame, as ``frame_order`` gives.
            chunk: Frames per chunk, at most.

        Yields:
            Chunks, numbered from 0 in the output.
        """
        ...

    def coded(self, *, chunk: int) -> Iterator[Frames | YuvFrames]:
        """Read all frames once, in the form that ``frames`` yields, at most ``chunk`` at a time."""
        ...

    def rgb(self, *, chunk: int) -> Iterator[Frames]:
        """Read all frames once, as RGB, at most ``chunk`` at a time."""
        ...

    def pick(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Read single frames as RGB.

        Args:
            frames: Their numbers; those past the end are left out.
            on_frame: Called once per frame read.

        Yields:
            The number and the picture (H,W,3) of each, by rising number.
        """
        ...

    def pick_coded(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Frames | YuvFrames]]:
        """Read single frames as ``pick`` does, but in the form that ``frames`` yields."""
        ...

    def reduced(self, stop: int) -> Iterator[Frames]:
        """Read the first ``stop`` frames at the size at which faces are detected."""
        ...


@dataclass(frozen=True, slots=True)
class VideoClip:
    """A cut of a video file, or a photo file.

    Attributes:
        path: The file.
        info: Its picture size, its rate (that of the clip), its frame count.
        first: Number in the file of the clip's frame 0.
        stop: Number in the file of the frame after the clip's last; None for the end of the file.
        on_warning: Called with warnings about damaged files.
        scaled: Whether the size of ``info`` is not that of the file.
    """

    path: Path
    info: VideoInfo
    first: int = 0
    stop: int | None = None
    on_warning: Callable[[str], None] | None = None
    scaled: bool = False

    @property
    def fps(self) -> Fraction:
        """Frames per second."""
        return self.info.fps

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.info.width, self.info.height

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel as shown, divided by its height."""
        return self.info.pixel_aspect

    @property
    def still(self) -> bool:
        """Whether the file is a photo."""
        return self.info.still

    @property
    def length(self) -> int | None:
        """Number of frames of the whole file at its own rate; None if they cannot be counted."""
        return self.info.frames

    @property
    def scale(self) -> tuple[float, float]:
        """Px of the clip per px of ``reduced``, horizontally and vertically."""
        return _scale(*self.size, self.info.pixel_aspect)

    def clamp(self, stop: int) -> int:
        """``stop``, or the number of frames of the cut if that is smaller."""
        return self._stop_in_file(stop) - self.first

    def frames(self, order: Tensor, *, chunk: int = 8) -> Iterator[Frames | YuvFrames]:
        """Read the frames of ``order`` as the file codes them (``read_coded``), run by run."""
        done = 0
        shown, last = (
            -1,
            None,
        )  # the number of the frame before a run, and the chunk that ends in it
        for run in monotone_runs(order):
            if last is not None and int(run[0]) == shown:
                pieces = _repeat(last, len(run), chunk)
            else:
                pieces = self._read(run, chunk)
            shown = int(run[-1])
            for last in pieces:
                yield replace(last, start=done)
                done += len(last.pixels)

    def coded(self, *, chunk: int) -> Iterator[Frames | YuvFrames]:
        """Read all frames once, as the file codes them, at most ``chunk`` at a time."""
        for piece in self._open(read_coded, chunk, self.first, self.stop):
            yield replace(piece, start=piece.start - self.first)

    def rgb(self, *, chunk: int) -> Iterator[Frames]:
        """Read all frames once, as RGB, at most ``chunk`` at a time."""
        for piece in self._open(read_frames, chunk, self.first, self.stop):
            yield Frames(piece.pixels, piece.start - self.first)

    def pick(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Read single frames as RGB; the file is sought between distant ones only."""
        for first, stop in self._spans(frames):
            read = self._open(read_frames, 1, first, stop)
            yield from ((i, piece.pixels[0]) for i, piece in self._filter(read, frames, on_frame))

    def pick_coded(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Frames | YuvFrames]]:
        """Read single frames as ``pick`` does, but as the file codes them."""
        for first, stop in self._spans(frames):
            read = self._open(read_coded, 1, first, stop)
            yield from self._filter(read, frames, on_frame)

    def reduced(self, stop: int) -> Iterator[Frames]:
        """Read the first ``stop`` frames at the size at which faces are detected."""
        size = _reduced_size(*self.size, self.info.pixel_aspect)
        stop = self._stop_in_file(stop)
        read = self._open(read_frames, _DETECT_CHUNK, self.first, stop, size=size)
        for piece in read:
            yield Frames(piece.pixels, piece.start - self.first)

    def _read(self, run: Tensor, chunk: int) -> Iterator[Frames | YuvFrames]:
        """Read the frames of one run of ``monotone_runs``."""
        first, last = int(run[0]), int(run[-1])
        start, stop = self.first + min(first, last), self._stop_in_file(max(first, last) + 1)
        return self._open(read_coded, chunk, start, stop, reverse=last < first)

    def _open(
        self,
        reader: Callable[..., Iterator[AnyFrames]],
        chunk: int,
        start: int,
        stop: int | None,
        **options: Any,
    ) -> Iterator[AnyFrames]:
        """Read frames start..stop-1 of the file with ``read_frames`` or ``read_coded``."""
        if self.scaled:
            options.setdefault("size", self.size)
        return reader(
            self.path,
            chunk=chunk,
            fps=self.info.fps,
            start=start,
            stop=stop,
            on_warning=self.on_warning,
            **options,
        )

    def _spans(self, frames: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Stretches (first, stop) of the file that hold ``frames``, near ones in one stretch."""
        numbers = sorted(set(frames))
        gaps = [i for i in range(1, len(numbers)) if numbers[i] - numbers[i - 1] > _SEEK_GAP]
        for begin, end in pairwise([0, *gaps, len(numbers)] if numbers else []):
            yield self.first + numbers[begin], self.first + numbers[end - 1] + 1

    def _filter(
        self,
        pieces: Iterator[AnyFrames],
        frames: Sequence[int],
        on_frame: Callable[[], None] | None,
    ) -> Iterator[tuple[int, AnyFrames]]:
        """The single-frame ``pieces`` that are among ``frames``, with the clip's numbers."""
        numbers = set(frames)
        for piece in pieces:
            if on_frame is not None:
                on_frame()
            if (frame := piece.start - self.first) in numbers:
                yield frame, replace(piece, start=frame)

    def _stop_in_file(self, stop: int) -> int:
        """The file's number of the clip's frame ``stop``, within the clip."""
        return self.first + stop if self.stop is None else min(self.first + stop, self.stop)


@dataclass(frozen=True, slots=True, eq=False)
class ImageClip:
    """Images in memory. A single image is a still.

    Attributes:
        pixels: (N,H,W,3) RGB, uint8 in [0,255] or float in [0,1].
        fps: The rate at which they are shown.
    """

    pixels: Tensor
    fps: Fraction

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.pixels.shape[2], self.pixels.shape[1]

    @property
    def pixel_aspect(self) -> Fraction:
        """Images have square pixels."""
        return Fraction(1)

    @property
    def still(self) -> bool:
        """Whether it is one image."""
        return len(self.pixels) == 1

    @property
    def length(self) -> int:
        """Number of images."""
        return len(self.pixels)

    @property
    def scale(self) -> tuple[float, float]:
        """Px of an image per px of ``reduced``, horizontally and vertically."""
        return _scale(*self.size)

    @property
    def path(self) -> None:
        """No file holds it."""
        return None

    @property
    def first(self) -> int:
        """Images count from 0."""
        return 0

    def clamp(self, stop: int) -> int:
        """``stop``, or the number of images if that is smaller."""
        return min(stop, len(self.pixels))

    def frames(self, order: Tensor, *, chunk: int = 8) -> Iterator[Frames]:
        """The images that ``order`` names, numbered from 0."""
        for start in range(0, len(order), chunk):
            yield Frames(self.pixels[order[start : start + chunk]], start)

    def coded(self, *, chunk: int) -> Iterator[Frames]:
        """All images once, at most ``chunk`` at a time."""
        return self.frames(torch.arange(len(self.pixels)), chunk=chunk)

    def rgb(self, *, chunk: int) -> Iterator[Frames]:
        """All images once, at most ``chunk`` at a time."""
        return self.coded(chunk=chunk)

    def pick(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Single images, by rising number."""
        for frame in sorted(set(frames)):
            if on_frame is not None:
                on_frame()
            yield frame, self.pixels[frame]

    def pick_coded(
        self, frames: Sequence[int], *, on_frame: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, Frames]]:
        """Single images in the form that ``frames`` yields."""
        yield from (
            (i, Frames(image[None], i)) for i, image in self.pick(frames, on_frame=on_frame)
        )

    def reduced(self, stop: int) -> Iterator[Frames]:
        """The first ``stop`` images at the size at which faces are detected."""
        size = _reduced_size(*self.size)
        for start in range(0, min(stop, len(self.pixels)), _DETECT_CHUNK):
            planes = self.pixels[start : min(start + _DETECT_CHUNK, stop)].permute(0, 3, 1, 2)
            if size != self.size:
                small = F.interpolate(planes.float(), (size[1], size[0]), mode="area")
                planes = small if planes.is_floating_point() else small.round().to(torch.uint8)
            yield Frames(planes.permute(0, 2, 3, 1), start)


def open_clip(
    path: Path, cut: Cut, *, on_warning: Callable[[str], None] | None = None
) -> VideoClip:
    """Open a cut of a video, or a photo.

    Args:
        path: The file.
        cut: The part of it to be read; of a photo, its rate alone.
        on_warning: Called with warnings about damaged files.

    Returns:
        The clip. Nothing but the header has been read.

    Raises:
        MediaError: The file cannot be read as a video or photo, or ends before the cut begins.
        ValueError: The cut holds no frame.
    """
    info = probe(path, cut.start)
    size = _limit(info.width, info.height, cut.max_side)
    scaled = size != (info.width, info.height)
    info = replace(info, width=size[0], height=size[1])
    if info.still:
        info = replace(info, fps=cut.fps or info.fps)
        return VideoClip(path, info, on_warning=on_warning, scaled=scaled)
    if cut.fps is not None:
        count = info.frames and max(1, int(info.frames / info.fps * cut.fps + Fraction(1, 2)))
        info = replace(info, fps=cut.fps, frames=count)
    first, stop = clip_frames(cut.start, cut.end, info.fps)
    if stop is not None and stop <= first:
        raise ValueError(
            f"the cut from {float(cut.start)} to {float(cut.end or 0)} s holds no frame; end it "
            f"later"
        )
    clip = VideoClip(path, info, first, stop, on_warning, scaled)
    if first and _is_empty(clip):
        length = f" (it lasts {float(info.frames / info.fps):.2f} s)" if info.frames else ""
        raise MediaError(
            f"{path}: holds no frame from {float(cut.start):g} s on; begin the cut earlier{length}"
        )
    return clip


def _limit(width: int, height: int, side: int | None) -> tuple[int, int]:
    """Size with the same shape whose sides are ``side`` at most, and even if it is smaller."""
    if side is None or max(width, height) <= side:
        return width, height
    factor = Fraction(side, 2 * max(width, height))
    return max(2, 2 * round(width * factor)), max(2, 2 * round(height * factor))


def _is_empty(clip: VideoClip) -> bool:
    """Whether a clip begins where its file has ended."""
    if clip.length is not None:
        return clip.first >= clip.length
    return next(clip.pick([0]), None) is None


def frame_order(length: int, count: int, longer: Longer) -> Tensor:
    """Say which frame of a clip each output frame shows.

    Args:
        length: Number of frames of the clip.
        count: Number of output frames.
        longer: How the clip continues after its end: ``pingpong`` turns round at both ends without
            showing the end frames twice, ``loop`` starts again, ``hold`` stays on the last frame.

    Returns:
        (count,) int64 numbers of the clip's frames.
    """
    index = torch.arange(count)
    if longer == "loop":
        return index % length
    if longer == "pingpong" and length > 1:
        turn = index % (2 * length - 2)
        return torch.minimum(turn, 2 * length - 2 - turn)
    return index.clamp_max(length - 1)


def monotone_runs(order: Tensor) -> list[Tensor]:
    """Split a frame order into runs that a decoder reads in one go.

    Within a run the number rises by 1, falls by 1, or repeats the frame before the run. The frame
    at which the order turns belongs to the rising run, because reading backwards costs more.

    Args:
        order: (T,) frame numbers.

    Returns:
        The runs, which together are ``order``.
    """
    steps = order.diff().tolist()
    runs: list[Tensor] = []
    first = 0
    while first < len(order):
        repeats = first > 0 and steps[first - 1] == 0
        following = steps[first] if first < len(steps) else 0
        step = 0 if repeats else following if following in (1, -1) else None
        stop = first + 1
        while stop <= len(steps) and steps[stop - 1] == step:
            stop += 1
        if step == -1 and stop <= len(steps) and steps[stop - 1] == 1:
            stop -= 1
        runs.append(order[first:stop])
        first = stop
    return runs


def clip_frames(start: Fraction, end: Fraction | None, fps: Fraction) -> tuple[int, int | None]:
    """Convert a cut in seconds to frame numbers: nearest boundaries, half a frame up."""

    def nearest(seconds: Fraction) -> int:
        return int(seconds * fps + Fraction(1, 2))

    return nearest(start), None if end is None else nearest(end)


def _repeat(frames: AnyFrames, count: int, chunk: int) -> Iterator[AnyFrames]:
    """The last of ``frames`` ``count`` times, without copies."""
    for start in range(0, count, chunk):
        shape = (min(chunk, count - start), *frames.pixels.shape[1:])
        yield replace(frames, pixels=frames.pixels[-1:].expand(shape))


def _reduced_size(width: int, height: int, aspect: Fraction = Fraction(1)) -> tuple[int, int]:
    """Width and height at which faces are detected, with square pixels."""
    shown = float(width * aspect)
    reduction = max(1.0, max(shown, height) / DETECT_SIDE)
    return max(1, round(shown / reduction)), max(1, round(height / reduction))


def _scale(width: int, height: int, aspect: Fraction = Fraction(1)) -> tuple[float, float]:
    size = _reduced_size(width, height, aspect)
    return width / size[0], height / size[1]
