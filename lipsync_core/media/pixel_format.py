"""Convert decoded pictures to RGB tensors and back: orientation, alpha, HDR, matrix and range."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import (
    ColorRange,
    Interpolation,
    VideoReformatter,
)
from torch import Tensor

from ..image.yuv import MATRICES
from ..types import ColourTags, Frames, YuvFrames
from .filters import display_matrix
from .hdr import HLG, PQ, to_bt709

# Without the flag swscale takes a fast path whose RGB is about one luma step too dark: after RGB
# and back, luma was at 47.6 dB instead of 54.4 (measured on 720p H.264, swscale 9.5). Planar RGB,
# because it costs 1.6 ms a frame there and interleaved RGB of the same quality 3.1; the fast path
# 0.3. Threads do not help.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
_GBR = (1, 2, 0)  # the channels of the planes of "gbrp"

BT709 = ColourTags(primaries=1, transfer=1, matrix=1, full_range=False)
_HDR_TRANSFER = {PQ: "PQ", HLG: "HLG"}
_BT2020 = 9  # ITU-T H.273: primaries 9, matrix 9 (and 10, constant luminance)
_CODED = {"yuv420p", "yuvj420p"}  # the formats that `YuvFrames` hold
_UNSPECIFIED = 2

_ORIENTATION_TAG = 0x0112  # EXIF 2.32
# Of its values: (transpose, mirror x, mirror y) that make the stored picture upright.
_EXIF_ORIENTATIONS = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True, slots=True)
class Orientation:
    """Steps that turn a stored picture upright, in this order.

    Attributes:
        transpose: swap x and y.
        flip_x: mirror along x.
        flip_y: mirror along y.
    """

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of the picture stored as ``width`` x ``height``, or the reverse."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return an upright view of ``image`` (H,W)."""
        upright = image.swapaxes(0, 1) if self.transpose else image
        return upright[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def orientation_of_frame(frame: VideoFrame, path: Path) -> Orientation:
    """Return how to turn and mirror ``frame`` of the file ``path`` upright.

    The EXIF block of a JPEG decides, else the display matrix, whose angle is rounded to the nearest
    quarter turn.
    """
    # `frame.side_data` is never touched but by `display_matrix`: PyAV 18 crashes on photographs'.
    exif = _exif_orientation(path)
    if exif is not None:
        return Orientation(*_EXIF_ORIENTATIONS.get(exif, (False, False, False)))
    a, b, c, d = display_matrix(frame)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(flip_x=a < 0, flip_y=d < 0)


def _exif_orientation(path: Path) -> int | None:
    """Return the orientation 1..8 in the EXIF block of a JPEG, None without a readable one."""
    from PIL import Image

    try:
        with Image.open(path, formats=("JPEG",)) as picture:
            return picture.getexif().get(_ORIENTATION_TAG)
    except (OSError, SyntaxError, ValueError, struct.error):  # no JPEG, or a damaged block
        return None


def _matrix(frame: VideoFrame) -> int:
    """The code of the matrix that decodes ``frame``.

    Where the file is silent, what players assume: BT.709 for high definition and BT.601 below.
    """
    if frame.colorspace in MATRICES or frame.colorspace in {_BT2020, 10}:
        return frame.colorspace
    return default_matrix(frame.width, frame.height)


def default_matrix(width: int, height: int) -> int:
    """Return the color matrix that players assume for untagged pictures of this size."""
    return 1 if width >= 1280 or height >= 720 else 5


def _is_wide(frame: VideoFrame) -> bool:
    """Whether the colours must be converted to BT.709: HDR, or the BT.2020 gamut."""
    return frame.color_trc in _HDR_TRANSFER or _BT2020 in {frame.color_primaries, frame.colorspace}


def colour_tags(frame: VideoFrame) -> ColourTags:
    """Return the tags under which the RGB of ``frame`` is best written again.

    They are its own, or BT.709 if it was converted to that, holds RGB, or has a matrix that swscale
    cannot compute.
    """
    if frame.format.is_rgb or _is_wide(frame) or frame.colorspace not in MATRICES | {_UNSPECIFIED}:
        return BT709
    return ColourTags(frame.color_primaries, frame.color_trc, frame.colorspace, _is_full(frame))


def _is_full(frame: VideoFrame) -> bool:
    """Whether luma runs from 0 to 255."""
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def describe_loss(frame: VideoFrame) -> str | None:
    """Return in words what 8-bit SDR cannot hold of ``frame``, None if nothing is lost."""
    bits = max(component.bits for component in frame.format.components)
    if _is_wide(frame):
        kind = _HDR_TRANSFER.get(frame.color_trc, "BT.2020")
        return (
            f"the {bits}-bit {kind} picture is converted to 8-bit SDR (BT.709); "
            "bright highlights are clipped"
        )
    return f"the {bits}-bit picture is reduced to 8 bits" if bits > 8 else None


def is_transparent(frame: VideoFrame) -> bool:
    """Return whether any part of a frame is transparent; an alpha channel alone does not say so."""
    if not _has_alpha(frame):
        return False
    planes = VideoReformatter().reformat(frame, format="gbrap", threads=1).planes
    return bool(_array(planes[3], frame.width).min() < 255)


def _has_alpha(frame: VideoFrame) -> bool:
    return frame.format.has_palette or any(part.is_alpha for part in frame.format.components)


class ToRgb:
    """Convert decoded frames to ``Frames`` of one size.

    Args:
        size: stored (width, height) in px before orientation; scaled in the same swscale pass, by
            area averaging.
    """

    def __init__(self, size: tuple[int, int], orientation: Orientation) -> None:
        self._size = size
        self._orientation = orientation
        self._scaler = VideoReformatter()

    def empty(self, count: int) -> Tensor:
        """Return memory for ``count`` frames, stored as planes."""
        width, height = self._orientation.size(*self._size)
        return torch.empty((count, 3, height, width), dtype=torch.uint8).permute(0, 2, 3, 1)

    def frames(self, pixels: Tensor, start: int) -> Frames:
        """Return filled memory as ``Frames`` that begin at clip frame ``start``."""
        return Frames(pixels, start)

    def write(self, frame: VideoFrame, out: Tensor) -> None:
        """Write the upright ``frame`` into ``out`` (H,W,3) uint8, fastest if that views planes.

        Transparent parts are laid over black.
        """
        width, height = self._size
        alpha, wide = _has_alpha(frame), _is_wide(frame)
        rgb = self._scaler.reformat(
            frame,
            width=width,
            height=height,
            format=("gbrap" if alpha else "gbrp") + ("16le" if wide else ""),
            src_colorspace=None if frame.format.is_rgb else _matrix(frame),
            interpolation=_EXACT
            if (frame.width, frame.height) == self._size
            else Interpolation.AREA,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        planes = [_array(plane, width, np.uint16 if wide else np.uint8) for plane in rgb.planes]
        colours = [planes[_GBR.index(channel)] for channel in range(3)]
        if wide:
            wide_gamut = _BT2020 in {frame.color_primaries, frame.colorspace}
            colours = list(to_bt709(np.stack(colours), frame.color_trc, wide=wide_gamut))
        opacity = planes[3] >> (8 if wide else 0) if alpha else None
        for channel, values in enumerate(colours):
            if opacity is not None:
                values = ((values * opacity.astype(np.uint16) + 127) // 255).astype(np.uint8)
            np.copyto(out[..., channel].numpy(), self._orientation.apply(values))


class ToCoded:
    """Copy decoded frames to ``YuvFrames``, converting only those unlike the first."""

    @staticmethod
    def takes(frame: VideoFrame) -> bool:
        """Return whether a frame can stay coded: 8 bits, 4:2:0, even size, a known matrix."""
        even = frame.width % 2 == 0 and frame.height % 2 == 0
        return (
            frame.format.name in _CODED
            and even
            and not _is_wide(frame)
            and _matrix(frame) in MATRICES
        )

    def __init__(self, first: VideoFrame, orientation: Orientation) -> None:
        self._size = (first.width, first.height)
        self._colour = ColourTags(
            first.color_primaries, first.color_trc, _matrix(first), _is_full(first)
        )
        self._orientation = orientation
        self._rgb = ToRgb(self._size, Orientation())
        self._back = ToYuv("yuv420p", self._colour)

    def empty(self, count: int) -> Tensor:
        """Return memory for ``count`` frames."""
        width, height = self._orientation.size(*self._size)
        return torch.empty((count, height * 3 // 2, width), dtype=torch.uint8)

    def frames(self, pixels: Tensor, start: int) -> YuvFrames:
        """Return filled memory as ``YuvFrames`` that begin at clip frame ``start``."""
        return YuvFrames(pixels, self._colour, start)

    def write(self, frame: VideoFrame, out: Tensor) -> None:
        """Write the upright ``frame`` into ``out`` (H*3/2,W) uint8."""
        if not self._alike(frame):  # the stream changes on its way
            rgb = self._rgb.empty(1)[0]
            self._rgb.write(frame, rgb)
            frame = self._back.rgb(rgb.permute(2, 0, 1).numpy())
        for plane, part in zip(frame.planes, coded_planes(out), strict=True):
            np.copyto(part, self._orientation.apply(_array(plane, plane.width)))

    def _alike(self, frame: VideoFrame) -> bool:
        """Whether the numbers of ``frame`` mean what those of the first one mean."""
        same = (_matrix(frame), _is_full(frame)) == (self._colour.matrix, self._colour.full_range)
        return same and self.takes(frame) and (frame.width, frame.height) == self._size


def coded_planes(pixels: Tensor) -> list[npt.NDArray[np.uint8]]:
    """Return luma (H,W), blue and red chroma (H/2,W/2) of one coded frame.

    Args:
        pixels: (H*3/2,W) uint8 on the CPU.

    Returns:
        Views of ``pixels``.
    """
    rows, width = pixels.shape
    chroma = pixels[rows * 2 // 3 :].view(2, rows // 3, width // 2).numpy()
    return [pixels[: rows * 2 // 3].numpy(), chroma[0], chroma[1]]


def _array(plane: VideoPlane, width: int, kind: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
    """The rows of ``plane`` without their padding: (H, width), sharing its memory."""
    rows = np.frombuffer(memoryview(plane), kind)  # pyright: ignore[reportArgumentType]
    return rows.reshape(plane.height, -1)[:, :width]


class ToYuv:
    """Convert RGB and coded arrays to frames for the encoder, in one color matrix and range."""

    def __init__(self, pixel_format: str, colour: ColourTags) -> None:
        self._format = pixel_format
        self._colour = colour
        self._scaler = VideoReformatter()

    def rgb(self, planes: npt.NDArray[np.uint8]) -> VideoFrame:
        """Convert ``planes`` (3,H,W), red first."""
        _, height, width = planes.shape
        frame = VideoFrame(width, height, "gbrp")
        for channel, plane in zip(_GBR, frame.planes, strict=True):
            np.copyto(_array(plane, width), planes[channel])
        return self._coded(frame)

    def coded(self, pixels: Tensor, colour: ColourTags) -> VideoFrame:
        """Convert ``pixels`` (H*3/2,W) coded as ``colour`` says.

        Copied if the encoder wants them so.
        """
        rows, width = pixels.shape
        frame = VideoFrame(width, rows * 2 // 3, "yuv420p")
        for plane, part in zip(frame.planes, coded_planes(pixels), strict=True):
            np.copyto(_array(plane, plane.width), part)
        wanted = (self._format, self._colour.matrix, self._colour.full_range)
        if ("yuv420p", colour.matrix, colour.full_range) == wanted:
            return frame
        # by way of planar RGB: every shorter way of swscale is a step or two too dark
        rgb = self._scaler.reformat(
            frame,
            format="gbrp",
            src_colorspace=colour.matrix,
            src_color_range=_range(colour),
            dst_color_range=ColorRange.JPEG,
            interpolation=_EXACT,
            threads=1,
        )
        return self._coded(rgb)

    def _coded(self, frame: VideoFrame) -> VideoFrame:
        return self._scaler.reformat(
            frame,
            format=self._format,
            dst_colorspace=self._colour.matrix,
            dst_color_range=_range(self._colour),
            interpolation=_EXACT,
            threads=1,
        )


def _range(colour: ColourTags) -> ColorRange:
    return ColorRange.JPEG if colour.full_range else ColorRange.MPEG


def to_bytes(pixels: Tensor) -> Tensor:
    """Return ``pixels`` (N,H,W,3) as contiguous uint8 planes (N,3,H,W) on the CPU.

    Floats in [0,1] are rounded to the nearest of 0..255.
    """
    if pixels.dtype != torch.uint8:
        pixels = pixels.mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 3, 1, 2).cpu().contiguous()
