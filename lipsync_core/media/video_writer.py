"""Write pictures and sound to one file, which gets its name when it is whole."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..errors import MediaError
from ..runtime.atomic import remove_stale, temporary_name
from ..types import ColourTags, Frames, VideoInfo, YuvFrames
from .container import Warn, file_url, raise_media_errors, warn_once
from .descriptions import copy_description
from .encoders import (
    DEFAULT_CRF,
    DEFAULT_PRESET,
    H264,
    Encoder,
    add_picture,
    choose_encoder,
    keeps_aspect,
    open_encoder,
)
from .mux import LATER_THAN_ANYTHING, AudioSource, Track, add_audio_stream, add_other_streams
from .output_path import container_options, move_into_place
from .paths import check_output_path
from .pixel_format import BT709, ToYuv, default_matrix, to_bytes

_SHOWN_SIDE, _SHOWN_PIXELS = 4096, 4096 * 2176  # what decoders of H.264 level 5.1 have to show


class VideoWriter:
    """Write frames and their sound to a file; use it in a ``with`` block.

    The file appears under its name when the block ends without an exception; after any exception, a
    keyboard interrupt included, nothing is left behind. The container follows the suffix: .mp4,
    .m4v, .mov, .mkv, .webm.

    Args:
        path: the file.
        info: size in px, rate and color tags of the output; the tags are kept on the stream and
            decide the RGB to YUV conversion. H.264 in 4:2:0, the only kind that every player shows,
            has even sizes: an odd width or height is padded by repeating the last column or row,
            with a warning (lossless RGB codecs keep odd sizes).
        audio: the sound. It is copied packet by packet if the container takes its codec and it is
            not cut at its start; otherwise it is encoded as AAC (Opus in WebM) at its own rate. It
            ends with the picture, a copied track to within one packet.
        keep_sound: do not cut sound that outlasts the picture.
        extra_tracks_from: a file whose further sound tracks and subtitles are copied if the
            container takes them; ``on_warning`` is called with the others.
            Its tags and chapters are kept, where ``metadata`` gives no others.
        extra_start: seconds of that file that belong to the first frame.
        extra_seconds: length of the output, if known; chapters end there.
        codec: an FFmpeg encoder of pictures.
        crf: quality; see ``choose_encoder``. A warning names encoders without it.
        preset: speed; see ``choose_encoder``. A warning names encoders without it.
        repeatable: make the same frames give the same picture every time, which x264's macroblock
            tree does not (the build in PyAV 18.1: a quarter of the files of one 240 px clip
            differed by a few levels, with one thread one in ten); it costs some size.
        metadata: kept in the file.
        overwrite: whether the file may exist.
        on_warning: called with each warning.

    Raises:
        MediaError: If the file exists and ``overwrite`` is not set, its folder is missing or not
            writable, the encoder or container is not there, or no frame was written.
        ValueError: If frames are of another size, or ``codec``, ``crf`` and ``preset`` do not go
            together.
    """

    def __init__(  # noqa: PLR0913
        self,
        path: Path | str,
        info: VideoInfo,
        audio: AudioSource | None = None,
        *,
        codec: str | None = None,
        crf: float = DEFAULT_CRF,
        preset: str = DEFAULT_PRESET,
        repeatable: bool = False,
        overwrite: bool = False,
        metadata: Mapping[str, str] | None = None,
        extra_tracks_from: Path | None = None,
        extra_start: Fraction = Fraction(0),
        extra_seconds: Fraction | None = None,
        keep_sound: bool = False,
        on_warning: Warn | None = None,
    ) -> None:
        self._path = Path(path)
        self._suffix = self._path.suffix.lower()
        self._overwrite = overwrite
        self._keep_sound = keep_sound
        check_output_path(self._path, overwrite=overwrite)
        self._info = info
        self._warn = warn_once(on_warning)
        self._count = 0
        self._whole = False
        self._tracks: list[Track] = []
        remove_stale(self._path)
        self._partial = temporary_name(self._path)
        encoder = choose_encoder(self._suffix, codec, crf, preset, repeatable=repeatable)
        for warning in encoder.warnings:
            self._warn(f"{self._path.name}: {warning}")
        with ExitStack() as stack, raise_media_errors(self._path, "cannot be written"):
            stack.callback(self._settle)
            self._out = self._open(metadata or {})
            stack.callback(self._close_quietly)
            self._stream, self._to_yuv = self._add_picture(encoder)
            if audio is not None:
                self._tracks.append(
                    add_audio_stream(self._out, self._suffix, audio, stack, self._warn)
                )
            if extra_tracks_from is not None:
                copy_description(extra_tracks_from, self._out, extra_start, extra_seconds, metadata)
                further = add_other_streams(
                    self._out,
                    self._suffix,
                    extra_tracks_from,
                    extra_start,
                    stack,
                    self._warn,
                    audio,
                )
                self._tracks += [] if further is None else [further]
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def write(self, frames: Frames | YuvFrames) -> None:
        """Append ``frames``, whose size must be that of ``info``; their ``start`` is ignored."""
        height, width = (
            frames.luma.shape[2:] if isinstance(frames, YuvFrames) else frames.pixels.shape[1:3]
        )
        if (width, height) != (self._info.width, self._info.height):
            wanted = f"{self._info.width}x{self._info.height}"
            raise ValueError(
                f"frames are {width}x{height} px; expected {wanted}, the size that the writer was "
                "opened with"
            )
        with raise_media_errors(self._path, "cannot be written"):
            for frame in self._pictures(frames):
                if self._square is not None:
                    frame = frame.reformat(*self._square, interpolation="LANCZOS")
                frame.pts, frame.time_base = self._count, 1 / self._info.fps
                self._count += 1
                self._out.mux(self._stream.encode(frame))
                for track in self._tracks:
                    track.mux_until(self._count / self._info.fps)

    def _pictures(self, frames: Frames | YuvFrames) -> Iterator[VideoFrame]:
        if isinstance(frames, YuvFrames):
            for pixels in frames.pixels.cpu():
                yield self._to_yuv.coded(pixels, frames.colour)
            return
        for planes in to_bytes(frames.pixels).numpy():
            yield self._to_yuv.rgb(self._padded(planes))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is not None:
                return
            if self._count == 0:
                raise MediaError(
                    f"{self._path}: no frame was written; the input has none, or the cut is empty"
                )
            with raise_media_errors(self._path, "cannot be finished"):
                self._out.mux(self._stream.encode(None))
                end = self._count / self._info.fps
                for track in self._tracks:
                    track.finish(LATER_THAN_ANYTHING if self._keep_sound else end, end)
                self._out.close()
            self._whole = True

    def _open(self, metadata: Mapping[str, str]) -> OutputContainer:
        out = av.open(file_url(self._partial), "w", options=container_options(self._path))
        out.metadata.update(metadata)
        return out

    def _add_picture(self, encoder: Encoder) -> tuple[VideoStream, ToYuv]:
        """The picture stream and what turns RGB into its frames."""
        info, where = self._info, str(self._path)
        stream = add_picture(self._out, encoder, info.fps, where)
        self._pad = encoder.padding(info.width, info.height)
        if any(self._pad):
            self._warn(
                f"{self._path.name}: {info.width}x{info.height} px is odd; padded to even by "
                "repeating the edge"
            )
        too_big = max(info.width, info.height) > _SHOWN_SIDE or (
            info.width * info.height > _SHOWN_PIXELS
        )
        if encoder.name == H264 and too_big:
            self._warn(
                f"{self._path.name}: many phones and browsers show no H.264 of {info.width}x"
                f"{info.height} px (up to {_SHOWN_SIDE} px and 8.9 megapixels); scale it down with "
                "--max-side 1920 (Cut.max_side)"
            )
        stream.width, stream.height = info.width + self._pad[1], info.height + self._pad[0]
        context = stream.codec_context
        context.time_base = 1 / info.fps
        self._square = self._square_size(stream)
        if self._square is not None:
            stream.width, stream.height = self._square
        elif info.pixel_aspect != 1:
            context.sample_aspect_ratio = info.pixel_aspect
        tags = _written_tags(info.colour, encoder)
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.colorspace, context.color_range = tags.matrix, 2 if tags.full_range else 1
        open_encoder(context, encoder, where)
        matrix = default_matrix(info.width, info.height) if tags.matrix == 2 else tags.matrix
        return stream, ToYuv(
            encoder.pixel_format,
            ColourTags(tags.primaries, tags.transfer, matrix, tags.full_range),
        )

    def _square_size(self, stream: VideoStream) -> tuple[int, int] | None:
        """Width and height in square pixels, None if the file keeps the shape of the pixels."""
        aspect, codec = self._info.pixel_aspect, stream.codec_context.codec.canonical_name
        if aspect == 1 or keeps_aspect(self._out.format.name, codec):
            return None
        width = 2 * round(stream.width * max(aspect, Fraction(1)) / 2)
        height = 2 * round(stream.height / min(aspect, Fraction(1)) / 2)
        self._warn(
            f"{self._path.name}: the pixels are not square ({aspect}), which {self._suffix} is not "
            f"told of {codec}; the picture is scaled to {width}x{height} px (.mp4 keeps it)"
        )
        return width, height

    def _padded(self, planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        bottom, right = self._pad
        return (
            np.pad(planes, ((0, 0), (0, bottom), (0, right)), mode="edge")
            if bottom or right
            else planes
        )

    def _close_quietly(self) -> None:
        with suppress(Exception):  # a broken file is thrown away; its trailer does not matter
            self._out.close()

    def _settle(self) -> None:
        """Renames a whole file and removes any other; runs when all files are closed."""
        try:
            if self._whole:
                seconds = (self._count - 1) / self._info.fps
                move_into_place(
                    self._partial, self._path, overwrite=self._overwrite, seconds=seconds
                )
        finally:
            self._partial.unlink(missing_ok=True)


def _written_tags(colour: ColourTags, encoder: Encoder) -> ColourTags:
    """Return the color tags that can be written: YUV needs a matrix, RGB has none.

    RGB is matrix 0, full range.
    """
    if encoder.is_rgb:
        return ColourTags(colour.primaries, colour.transfer, 0, True)
    tags = BT709 if colour.matrix == 0 else colour
    return replace(
        tags,
        matrix=encoder.matrix or tags.matrix,
        full_range=encoder.full_range or tags.full_range,
    )
