"""Where a face lies in a frame: framings, similarity transforms, crop and un-crop warps.

All functions are batched and run on the device of their input. Coordinates are continuous (pixel i spans [i, i+1)).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .image.yuv import to_rgb
from .types import Frames, YuvFrames

Points = tuple[tuple[float, float], ...]

# Where the five points of an upright face lie in the unit square of an aligned crop: the crop is 2.4 eye distances wide,
# so that a wide open mouth and its chin just fit, and the middle row runs under the nose.
ALIGNED: Points = ((0.29, 0.20), (0.71, 0.20), (0.50, 0.435), (0.343, 0.655), (0.657, 0.655))


# The same of the faces of FFHQ at 512 px, which face restoration networks were trained on: ``face_template`` of facexlib's
# face_restoration_helper.py, which GFPGAN, RestoreFormer and CodeFormer cut faces with.
_FFHQ_512 = (
    *((192.98138, 239.94708), (318.90277, 240.1936), (256.63416, 314.01935)),
    *((201.26117, 371.41043), (313.08905, 371.15118)),
)


@dataclass(frozen=True, slots=True)
class Framing:
    """How a face is cut out for a network.

    ``box``: the detector's box, axis-aligned, grown by ``pads`` (top, bottom, left, right) source pixels and stretched to
    the square (the public Wav2Lip weights: pads 0 10 0 0). ``aligned``: a similarity transform that brings the five
    points closest to ``points`` (unit square). ``eyes``: the same by eyes and nose alone, so that lips that move do not
    move the crop; ``points`` are three. ``square``: what syncnet_python cuts out for SyncNet, a square of 1.4
    times the longer side of the box, with 0.2 of that side more below the middle of the box than above it.
    """

    kind: Literal["box", "aligned", "square", "eyes"] = "aligned"
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    points: Points = ALIGNED


FFHQ = Framing(points=tuple((x / 512, y / 512) for x, y in _FFHQ_512))


def crop_to_frame(boxes: Tensor, points: Tensor, framing: Framing, size: int) -> Tensor:
    """(N,2,3) matrices that map the pixels of an SxS crop to frame pixels, from boxes (N,4) and points (N,5,2)."""
    if framing.kind == "box":
        top, bottom, left, right = framing.pads
        grown = boxes + boxes.new_tensor([-left, -top, right, bottom])
        x0, y0, x1, y1 = grown.unbind(-1)
        zero = torch.zeros_like(x0)
        rows = [(x1 - x0) / size, zero, x0, zero, (y1 - y0) / size, y0]
        return torch.stack(rows, -1).view(-1, 2, 3)
    if framing.kind == "square":
        low, high = boxes[:, :2], boxes[:, 2:]
        longer = (high - low).amax(1, keepdim=True)
        corner = (low + high) / 2 - longer * boxes.new_tensor([0.7, 0.5])
        linear = torch.eye(2, device=boxes.device, dtype=boxes.dtype) * (1.4 * longer / size)[..., None]
        return torch.cat([linear, corner[..., None]], -1)
    template = torch.tensor(framing.points, device=points.device, dtype=points.dtype) * size
    points = points[:, : len(template)]
    return similarity(template.expand_as(points), points)


def similarity(source: Tensor, target: Tensor) -> Tensor:
    """(N,2,3) least-squares similarity (rotation, scale, shift; no mirror) that maps points (N,K,2) to points (N,K,2)."""
    ms, mt = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - ms, target - mt
    norm = s.square().sum((1, 2)).clamp_min(1e-12)
    a = (s * t).sum((1, 2)) / norm
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / norm
    linear = torch.stack([a, -b, b, a], -1).view(-1, 2, 2)
    shift = mt[:, 0] - (linear @ ms[:, 0, :, None])[..., 0]
    return torch.cat([linear, shift[..., None]], -1)


def invert(matrix: Tensor) -> Tensor:
    """The inverse of (N,2,3) affine maps."""
    linear = torch.linalg.inv(matrix[..., :2])
    return torch.cat([linear, -linear @ matrix[..., 2:]], -1)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The (N,2,3) map that applies ``inner``, then ``outer``."""
    linear = outer[..., :2] @ inner[..., :2]
    return torch.cat([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], -1)


def apply(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (N,K,2) through (N,2,3) maps."""
    return points @ matrix[..., :2].mT + matrix[..., 2][:, None]


def translation(offset: Tensor) -> Tensor:
    """(N,2,3) maps that shift by ``offset`` (N,2)."""
    eye = torch.eye(2, device=offset.device, dtype=offset.dtype).expand(offset.shape[0], 2, 2)
    return torch.cat([eye, offset[..., None]], -1)


def unit_maps(target_to_source: Tensor, sources: list[tuple[int, int]], targets: list[tuple[int, int]]) -> Tensor:
    """(N,2,3) maps between pixels as maps between unit squares [-1,1]^2, which ``sample`` takes. Sizes are (width, height).

    torch's own warps, and not kornia's: with its 0.12 ms a call those took 2 of 11 ms a 720p frame."""
    into = 2 / target_to_source.new_tensor(sources).view(-1, 2, 1)
    out = target_to_source.new_tensor(targets).view(-1, 1, 2) / 2
    linear = target_to_source[..., :2] * out
    shift = target_to_source[..., 2:] + linear.sum(-1, keepdim=True)
    return torch.cat([linear * into, shift * into - 1], -1)


def sample(
    pixels: Tensor, squares: Tensor, size: tuple[int, int], *, padding: Literal["zeros", "border"] = "border"
) -> Tensor:
    """(N,C,h,w) bilinearly at the places that (N,2,3) ``unit_maps`` give to (N,C,*size) (height, width). Nothing is filtered:
    where it shrinks by 2 or more, average first."""
    x, y = (((torch.arange(k, device=squares.device) + 0.5) * 2 / k - 1).to(squares.dtype) for k in (size[1], size[0]))
    across, along = squares[:, :, :1] * x, squares[:, :, 1:2] * y + squares[:, :, 2:]  # (N,2,w), (N,2,h)
    grid = across[:, :, None] + along[..., None]  # planes in memory: ten times as quick as torch's affine_grid
    return F.grid_sample(pixels, grid.permute(0, 2, 3, 1), padding_mode=padding, align_corners=False)


def resize_bytes(pixels: Tensor, size: tuple[int, int], *, step: tuple[float, float] | None = None) -> Tensor:
    """(N,H,W,C) uint8, or float in [0,1] rounded to that, in ``size`` (height, width): uint8, bilinear and unfiltered, with
    the fixed-point rounding of OpenCV's ``INTER_LINEAR``, because the public scores were measured on such pictures.
    ``step``: source pixels to one of the result (default: the ratio of the sizes)."""
    _, height, width, _ = pixels.shape
    pixels = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)
    step = step or (height / size[0], width / size[1])
    rows, below, down = _neighbours(height, size[0], step[0], pixels.device)
    columns, beyond, across = _neighbours(width, size[1], step[1], pixels.device)

    def mixed(lines: Tensor) -> Tensor:  # weights have 11 bits, and sums keep 4 bits less
        picked = pixels[:, lines]
        return (picked[:, :, columns] * across[:, :1] + picked[:, :, beyond] * across[:, 1:]) >> 4

    upper, lower = (down[:, i, None, None] * mixed(lines) >> 16 for i, lines in enumerate((rows, below)))
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _neighbours(count: int, wanted: int, step: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For ``wanted`` pixels ``step`` apart: the pixel before and after (wanted,), and both weights in 1/2048 (wanted,2)."""
    place = ((torch.arange(wanted) + 0.5).double() * step - 0.5).float().to(device)  # MPS has no float64
    before = place.floor()
    rest = place - before
    weights = (torch.stack((1 - rest, rest), 1) * 2048).round().int()
    return before.long().clamp(0, count - 1), (before.long() + 1).clamp(0, count - 1), weights


def scale_of(matrix: Tensor) -> Tensor:
    """(N,) linear magnification of (N,2,3) maps: the square root of the area ratio."""
    return torch.linalg.det(matrix[..., :2]).abs().sqrt()


Box = tuple[int, int, int, int]  # xyxy px, half-open; may reach beyond the frame


def bounds(matrices: Tensor, box: tuple[float, float, float, float] | Tensor, *, margin: int = 2) -> list[Box]:
    """For each of the (N,2,3) ``crop_to_frame`` maps the frame pixels that hold the part ``box`` (xyxy, crop pixels; one, or
    (N,4)) of its crop, and ``margin`` more on each side."""
    boxes = box if isinstance(box, Tensor) else matrices.new_tensor([box])
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # (N,4,2)
    placed = apply(matrices, corners.expand(matrices.shape[0], -1, -1))
    low, high = placed.amin(1).floor() - margin, placed.amax(1).ceil() + margin
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in torch.cat([low, high], 1).tolist()]


def within(box: Box, width: int, height: int) -> Box:
    """The part of ``box`` that lies in a frame; where none does, the frame's pixels nearest to it."""
    x0, y0 = min(max(box[0], 0), width - 1), min(max(box[1], 0), height - 1)
    return x0, y0, max(min(box[2], width), x0 + 1), max(min(box[3], height), y0 + 1)


def cut(pixels: Tensor, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Crops (N,3,S,S) float in [0,1] of frames (N,H,W,3), placed by (N,2,3) ``crop_to_frame`` maps; see ``cut_planes``."""
    out = cut_planes(pixels.permute(0, 3, 1, 2), matrices, size, antialias=antialias)
    return out.div_(255) if pixels.dtype == torch.uint8 else out


def cut_frames(frames: Frames | YuvFrames, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """``cut`` of frames as they are; of coded ones only the crops are ever converted to RGB."""
    if isinstance(frames, Frames):
        return cut(frames.pixels, matrices, size, antialias=antialias)
    luma = cut_planes(frames.luma, matrices, size, antialias=antialias)
    chroma = cut_planes(frames.chroma, matrices / 2, size, antialias=antialias)
    return to_rgb(torch.cat([luma, chroma], 1), frames.colour)


def cut_planes(planes: Tensor, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Crops (N,C,S,S) of planes (N,C,H,W), placed by (N,2,3) ``crop_to_frame`` maps: float, in the planes' own values.

    ``antialias``: average whole blocks of source pixels first where several fall on one crop pixel; without it the crop
    is the plain bilinear one of the reference. Outside the frame its border repeats. Frame by frame: the faces differ in
    size, and what lies in the cache is quick.
    """
    count, channels, height, width = planes.shape
    out = matrices.new_empty((count, channels, size, size))
    steps = [max(1, int(scale + 0.25)) if antialias else 1 for scale in scale_of(matrices).tolist()]
    boxes = bounds(matrices, (0, 0, size, size), margin=0)
    parts = [
        within((x0 - 2 * k, y0 - 2 * k, x1 + 2 * k, y1 + 2 * k), width, height)
        for (x0, y0, x1, y1), k in zip(boxes, steps, strict=True)
    ]
    blocks = [(-(-(x1 - x0) // k), -(-(y1 - y0) // k)) for (x0, y0, x1, y1), k in zip(parts, steps, strict=True)]
    corners = translation(-matrices.new_tensor([part[:2] for part in parts]).view(-1, 2))
    to_blocks = compose(corners, matrices) / matrices.new_tensor(steps)[:, None, None]
    squares = unit_maps(to_blocks, blocks, [(size, size)] * count)
    for i, ((x0, y0, x1, y1), k) in enumerate(zip(parts, steps, strict=True)):
        patch = planes[i : i + 1, :, y0:y1, x0:x1].to(matrices.dtype)
        if k > 1:  # the frame's end may cut the last block of a row short
            patch = F.avg_pool2d(patch, k, ceil_mode=True, count_include_pad=False)
        out[i : i + 1] = sample(patch, squares[i : i + 1], (size, size))
    return out
