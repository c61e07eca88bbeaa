"""Cut crops out of frames along affine maps, and resize pictures."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..types import Frames, YuvFrames
from .affine import clip_box, compose, crop_bounds, scale_of, translation, unit_maps
from .yuv import to_rgb


def sample_affine(
    pixels: Tensor,
    squares: Tensor,
    size: tuple[int, int],
    *,
    padding: Literal["zeros", "border"] = "border",
) -> Tensor:
    """(N,C,h,w) bilinearly at the places that (N,2,3) ``unit_maps`` give to (N,C,*size) (height,
    width). Nothing is filtered: where it shrinks by 2 or more, average first."""
    x, y = (
        ((torch.arange(k, device=squares.device) + 0.5) * 2 / k - 1).to(squares.dtype)
        for k in (size[1], size[0])
    )
    # (N,2,w), (N,2,h)
    across, along = squares[:, :, :1] * x, squares[:, :, 1:2] * y + squares[:, :, 2:]
    # planes in memory: ten times as quick as torch's affine_grid
    grid = across[:, :, None] + along[..., None]
    return F.grid_sample(
        pixels, grid.permute(0, 2, 3, 1), padding_mode=padding, align_corners=False
    )


def resize_bytes(
    pixels: Tensor, size: tuple[int, int], *, step: tuple[float, float] | None = None
) -> Tensor:
    """(N,H,W,C) uint8, or float in [0,1] rounded to that, in ``size`` (height, width): uint8,
    bilinear and unfiltered, with the fixed-point rounding of OpenCV's ``INTER_LINEAR``, because the
    public scores were measured on such pictures. ``step``: source pixels to one of the result
    (default: the ratio of the sizes)."""
    _, height, width, _ = pixels.shape
    pixels = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)
    step = step or (height / size[0], width / size[1])
    rows, below, down = _neighbours(height, size[0], step[0], pixels.device)
    columns, beyond, across = _neighbours(width, size[1], step[1], pixels.device)

    def mixed(lines: Tensor) -> Tensor:  # weights have 11 bits, and sums keep 4 bits less
        picked = pixels[:, lines]
        return (picked[:, :, columns] * across[:, :1] + picked[:, :, beyond] * across[:, 1:]) >> 4

    upper, lower = (
        down[:, i, None, None] * mixed(lines) >> 16 for i, lines in enumerate((rows, below))
    )
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _neighbours(
    count: int, wanted: int, step: float, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For ``wanted`` pixels ``step`` apart: the pixel before and after (wanted,), and both weights
    in 1/2048 (wanted,2)."""
    # MPS has no float64
    place = ((torch.arange(wanted) + 0.5).double() * step - 0.5).float().to(device)
    before = place.floor()
    rest = place - before
    weights = (torch.stack((1 - rest, rest), 1) * 2048).round().int()
    return before.long().clamp(0, count - 1), (before.long() + 1).clamp(0, count - 1), weights


def crop_pictures(pixels: Tensor, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Crops (N,3,S,S) float in [0,1] of frames (N,H,W,3), placed by (N,2,3) ``crop_to_frame`` maps;
    see ``crop_planes``."""
    out = crop_planes(pixels.permute(0, 3, 1, 2), matrices, size, antialias=antialias)
    return out.div_(255) if pixels.dtype == torch.uint8 else out


def crop_frames(
    frames: Frames | YuvFrames, matrices: Tensor, size: int, *, antialias: bool = True
) -> Tensor:
    """``crop_pictures`` of frames as they are; of coded ones only the crops are ever converted to RGB."""
    if isinstance(frames, Frames):
        return crop_pictures(frames.pixels, matrices, size, antialias=antialias)
    luma = crop_planes(frames.luma, matrices, size, antialias=antialias)
    chroma = crop_planes(frames.chroma, matrices / 2, size, antialias=antialias)
    return to_rgb(torch.cat([luma, chroma], 1), frames.colour)


def crop_planes(planes: Tensor, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Crops (N,C,S,S) of planes (N,C,H,W), placed by (N,2,3) ``crop_to_frame`` maps: float, in the
    planes' own values.

    ``antialias``: average whole blocks of source pixels first where several fall on one crop pixel;
    without it the crop is the plain bilinear one of the reference. Outside the frame its border
    repeats. Frame by frame: the faces differ in size, and what lies in the cache is quick.
    """
    count, channels, height, width = planes.shape
    out = matrices.new_empty((count, channels, size, size))
    steps = [max(1, int(scale + 0.25)) if antialias else 1 for scale in scale_of(matrices).tolist()]
    boxes = crop_bounds(matrices, (0, 0, size, size), margin=0)
    parts = [
        clip_box((x0 - 2 * k, y0 - 2 * k, x1 + 2 * k, y1 + 2 * k), width, height)
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
        if k > 1:  # the frame's end may cut the last block of a row short
            patch = F.avg_pool2d(patch, k, ceil_mode=True, count_include_pad=False)
        out[i : i + 1] = sample_affine(patch, squares[i : i + 1], (size, size))
    return out
