"""Cut crops out of frames along affine maps, warp pictures, and resize them.

Two functions warp pixels, ``sample_places`` at any places and ``sample_affine`` along affine maps;
every other warp computes its places and calls one of them. Both use OpenCV on the CPU if there is
one that is exact (``image/opencv.py``), and torch for everything else.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Frames, YuvFrames
from . import opencv
from .affine import (
    Box,
    clip_box,
    compose,
    crop_bounds,
    scale_of,
    translation,
    unit_maps,
)
from .yuv import to_rgb


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return the centers of all pixels of a picture.

    Args:
        height: Of the picture, in px.
        width: Of the picture, in px.
        like: A tensor with the device and the dtype of the result.

    Returns:
        (2,height,width) x and y of each pixel's center: 0.5, 1.5, ...
    """
    x, y = (
        torch.arange(count, device=like.device, dtype=like.dtype) + 0.5 for count in (width, height)
    )
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def sample(
    pixels: Tensor,
    grid: Tensor,
    *,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
    padding: Literal["zeros", "border"] = "border",
) -> Tensor:
    """Sample pictures at given places, without filtering.

    Args:
        pixels: (N,C,H,W) float.
        grid: (N,2,h,w) x and y of each place, the picture being the square [-1,1]^2.
        mode: Interpolation between pixels.
        padding: Values outside the picture: 0, or those of its border.

    Returns:
        (N,C,h,w) values.
    """
    if opencv.takes(pixels, grid):
        half = grid.new_tensor([pixels.shape[3] / 2, pixels.shape[2] / 2])[:, None, None]
        return opencv.remap(pixels, grid * half + (half - 0.5), mode, padding)
    return F.grid_sample(
        pixels, grid.permute(0, 2, 3, 1), mode, padding_mode=padding, align_corners=False
    )


def sample_places(
    pixels: Tensor,
    places: Tensor,
    *,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
    padding: Literal["zeros", "border"] = "border",
) -> Tensor:
    """Sample pictures at places in px, without filtering.

    Args:
        pixels: (N,C,H,W) float.
        places: (N,2,h,w) x and y of each place in px, the picture's corner being (0,0).
        mode: Interpolation between pixels.
        padding: Values outside the picture: 0, or those of its border.

    Returns:
        (N,C,h,w) values.
    """
    if opencv.takes(pixels, places):
        return opencv.remap(pixels, places - 0.5, mode, padding)
    unit = places.new_tensor([2 / pixels.shape[3], 2 / pixels.shape[2]])[:, None, None]
    return sample(pixels, places * unit - 1, mode=mode, padding=padding)


def sample_affine(
    pixels: Tensor,
    squares: Tensor,
    size: tuple[int, int],
    *,
    padding: Literal["zeros", "border"] = "border",
) -> Tensor:
    """Sample pictures along affine maps, bilinearly and without filtering.

    Where a picture shrinks by 2 or more, average it first.

    Args:
        pixels: (N,C,h,w) float.
        squares: (N,2,3) maps from the result's unit square to the picture's (see ``unit_maps``).
        size: Height and width of the result.
        padding: Values outside the picture: 0, or those of its border.

    Returns:
        (N,C,*size) values.
    """
    if max(size) > 0 and opencv.takes(pixels, squares[..., None]):
        return opencv.warp_affine(pixels, squares, size, padding)
    x, y = (
        ((torch.arange(k, device=squares.device) + 0.5) * 2 / k - 1).to(squares.dtype)
        for k in (size[1], size[0])
    )
    # (N,2,w), (N,2,h)
    across, along = squares[:, :, :1] * x, squares[:, :, 1:2] * y + squares[:, :, 2:]
    # planes in memory: ten times as fast as torch's affine_grid
    return sample(pixels, across[:, :, None] + along[..., None], padding=padding)


def warp_crops(source: Tensor, offset: Tensor) -> Tensor:
    """Warp crops bilinearly by an offset for each pixel.

    Args:
        source: (N,C,S,S) float.
        offset: (N,2,S,S) crop px (x, y) from each pixel to the place that it takes its value from.

    Returns:
        (N,C,S,S) warped crops; outside the source its border repeats.
    """
    size = source.shape[-1]
    return sample_places(source, pixel_grid(size, size, source) + offset)


def bounds_of(places: Tensor) -> Box:
    """Return the rectangle in px that holds places (2,h,w), and a pixel more on each side."""
    # ten times as fast as along a dimension
    ends = torch.stack([end for axis in places for end in axis.aminmax()])
    x0, x1, y0, y1 = (int(v) for v in ends.tolist())
    return x0 - 1, y0 - 1, x1 + 2, y1 + 2


def sample_window(planes: Tensor, places: Tensor, bounds: Box) -> Tensor:
    """Sample the planes of one picture at places in px, bicubically.

    Only the window that holds the places is converted to float. Bicubic, because linear
    interpolation halfway between two pixels loses a quarter of the sharpness.

    Args:
        planes: (C,H,W) of any dtype.
        places: (2,h,w) float, x and y in px; overwritten.
        bounds: A rectangle that holds all places.

    Returns:
        (C,h,w) values in the dtype of ``places``.
    """
    _, height, width = planes.shape
    left, top, right, bottom = bounds
    x0, y0, x1, y1 = clip_box((left - 2, top - 2, right + 2, bottom + 2), width, height)
    window = planes[None, :, y0:y1, x0:x1].to(places.dtype)
    for axis, corner in zip(places, (x0, y0), strict=True):
        axis.sub_(corner)
    return sample_places(window, places[None], mode="bicubic")[0]


def enlarge(planes: Tensor, step: int, size: tuple[int, int]) -> Tensor:
    """Enlarge planes bilinearly, less a margin of one cell on each side.

    Args:
        planes: (C,h,w) float cells; returned as they are if ``step`` is 1.
        step: Side of a cell in px of the result.
        size: Height and width of the result: at most ``step`` times h - 2 and w - 2.

    Returns:
        (C,*size) values.
    """
    if step == 1:
        return planes
    full = (planes.shape[1] * step, planes.shape[2] * step)
    if opencv.takes(planes[None], planes[None]):
        large = opencv.enlarge(planes, full)
    else:
        large = F.interpolate(planes[None], full, mode="bilinear")[0]
    return large[:, step : step + size[0], step : step + size[1]]


def resize_bytes(
    pixels: Tensor, size: tuple[int, int], *, step: tuple[float, float] | None = None
) -> Tensor:
    """Resize pictures bilinearly with the fixed-point rounding of OpenCV's ``INTER_LINEAR``.

    The public sync scores were measured on pictures that OpenCV had resized.

    Args:
        pixels: (N,H,W,C) uint8, or float in [0,1], which is rounded to uint8 first.
        size: Height and width of the result.
        step: Source pixels per pixel of the result, down and across; default: the ratio of sizes.

    Returns:
        (N,*size,C) uint8, not filtered.
    """
    _, height, width, _ = pixels.shape
    pixels = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)
    step = step or (height / size[0], width / size[1])
    rows, rows_after, down = _neighbors(height, size[0], step[0], pixels.device)
    columns, columns_after, across = _neighbors(width, size[1], step[1], pixels.device)

    def mix_columns(lines: Tensor) -> Tensor:  # weights have 11 bits, and sums keep 4 bits less
        picked = pixels[:, lines]
        left, right = picked[:, :, columns], picked[:, :, columns_after]
        return (left * across[:, :1] + right * across[:, 1:]) >> 4

    upper, lower = (
        down[:, i, None, None] * mix_columns(lines) >> 16
        for i, lines in enumerate((rows, rows_after))
    )
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _neighbors(
    source: int, target: int, step: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the source pixels before and after each target pixel, and their weights.

    Returns:
        (target,) and (target,) indices, and (target,2) weights in 1/2048.
    """
    # MPS has no float64
    place = ((torch.arange(target) + 0.5).double() * step - 0.5).float().to(device)
    before = place.floor()
    rest = place - before
    weights = (torch.stack((1 - rest, rest), 1) * 2048).round().int()
    return before.long().clamp(0, source - 1), (before.long() + 1).clamp(0, source - 1), weights


def crop_pictures(pixels: Tensor, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Cut square crops out of RGB pictures.

    Args:
        pixels: (N,H,W,3) uint8, or float in [0,1].
        matrices: (N,2,3) ``crop_to_frame`` maps.
        size: Side of the crops in px.
        antialias: See ``crop_planes``.

    Returns:
        (N,3,S,S) float in [0,1].
    """
    out = crop_planes(pixels.permute(0, 3, 1, 2), matrices, size, antialias=antialias)
    return out.div_(255) if pixels.dtype == torch.uint8 else out


def crop_frames(
    frames: Frames | YuvFrames, matrices: Tensor, size: int, *, antialias: bool = True
) -> Tensor:
    """Cut square crops out of RGB or YUV frames; of the latter only the crops become RGB.

    Args:
        frames: N frames.
        matrices: (N,2,3) ``crop_to_frame`` maps.
        size: Side of the crops in px.
        antialias: See ``crop_planes``.

    Returns:
        (N,3,S,S) RGB float in [0,1].
    """
    if isinstance(frames, Frames):
        return crop_pictures(frames.pixels, matrices, size, antialias=antialias)
    luma = crop_planes(frames.luma, matrices, size, antialias=antialias)
    chroma = crop_planes(frames.chroma, matrices / 2, size, antialias=antialias)
    return to_rgb(torch.cat([luma, chroma], 1), frames.colour)


def crop_planes(planes: Tensor, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Cut square crops out of planes; outside a frame its border repeats.

    Frame by frame, because faces differ in size and a part that fits into the cache is fast.

    Args:
        planes: (N,C,H,W) of any dtype.
        matrices: (N,2,3) ``crop_to_frame`` maps in px of these planes.
        size: Side of the crops in px.
        antialias: Average whole blocks of source pixels first where several fall on one crop
            pixel. Without it the crop is the plain bilinear one of the public Wav2Lip code.

    Returns:
        (N,C,S,S) float in the planes' own values.
    """
    count, channels, height, width = planes.shape
    out = matrices.new_empty((count, channels, size, size))
    steps = [max(1, int(scale + 0.25)) if antialias else 1 for scale in scale_of(matrices).tolist()]
    boxes = crop_bounds(matrices, (0, 0, size, size), margin=0)
    parts = [
        clip_box(_whole_blocks((x0 - 2 * k, y0 - 2 * k, x1 + 2 * k, y1 + 2 * k), k), width, height)
        for (x0, y0, x1, y1), k in zip(boxes, steps, strict=True)
    ]
    blocks = [
        (-(-(x1 - x0) // k), -(-(y1 - y0) // k))
        for (x0, y0, x1, y1), k in zip(parts, steps, strict=True)
    ]
    corners = translation(-matrices.new_tensor([part[:2] for part in parts]).view(-1, 2))
    to_blocks = compose(corners, matrices) / matrices.new_tensor(steps)[:, None, None]
    squares = unit_maps(to_blocks, blocks, [(size, size)] * count)
    for i, ((x0, y0, x1, y1), k) in enumerate(zip(parts, steps, strict=True)):
        patch = planes[i : i + 1, :, y0:y1, x0:x1].to(matrices.dtype)
        if k > 1:
            patch = average_blocks(patch, k)
        out[i : i + 1] = sample_affine(patch, squares[i : i + 1], (size, size))
    return out


def average_blocks(pixels: Tensor, step: int) -> Tensor:
    """Average blocks of ``step`` x ``step`` px; the last ones of a row or column may be cut short.

    Args:
        pixels: (N,C,H,W) float.
        step: Side of a block in px.

    Returns:
        (N,C,h,w) means, sizes rounded up.
    """
    high, wide = (side // step * step for side in pixels.shape[2:])
    if not high or not wide or not opencv.takes(pixels, pixels):
        return _average_any(pixels, step)
    out = opencv.average_blocks(pixels[..., :high, :wide], step)
    if wide < pixels.shape[3]:
        out = torch.cat([out, _average_any(pixels[..., :high, wide:], step)], 3)
    if high < pixels.shape[2]:
        out = torch.cat([out, _average_any(pixels[..., high:, :], step)], 2)
    return out


def _average_any(pixels: Tensor, step: int) -> Tensor:
    """Average blocks of ``step`` x ``step`` px of pictures of any size, of any dtype, anywhere."""
    return F.avg_pool2d(pixels, step, ceil_mode=True, count_include_pad=False)


def _whole_blocks(box: Box, step: int) -> Box:
    """Return a box enlarged to the right and downwards to whole blocks of ``step`` px."""
    x0, y0, x1, y1 = box
    return x0, y0, x0 + -(-(x1 - x0) // step) * step, y0 + -(-(y1 - y0) // step) * step
