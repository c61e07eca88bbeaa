"""Where a face lies in a frame: framings, similarity transforms, crop and un-crop warps.

All functions are batched and run on the device of their input. Coordinates are continuous (pixel i spans [i, i+1)).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from kornia.geometry.transform import warp_affine
from torch import Tensor

Points = tuple[tuple[float, float], ...]

# Where the five points of an upright face lie in the unit square of an aligned crop: the crop is 2.4 eye distances wide,
# so that a wide open mouth and its chin just fit, and the middle row runs under the nose.
ALIGNED: Points = ((0.29, 0.20), (0.71, 0.20), (0.50, 0.435), (0.343, 0.655), (0.657, 0.655))


@dataclass(frozen=True, slots=True)
class Framing:
    """How a face is cut out for a network.

    ``box``: the detector's box, axis-aligned, grown by ``pads`` (top, bottom, left, right) source pixels and stretched to
    the square (the public Wav2Lip weights: pads 0 10 0 0). ``aligned``: a similarity transform that brings the five
    points closest to ``points`` (unit square). ``square``: what syncnet_python cuts out for SyncNet, a square of 1.4
    times the longer side of the box, with 0.2 of that side more below the middle of the box than above it.
    """

    kind: Literal["box", "aligned", "square"] = "aligned"
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    points: Points = ALIGNED


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


def warp(
    pixels: Tensor, source_to_target: Tensor, size: tuple[int, int], *, padding: Literal["zeros", "border"] = "border"
) -> Tensor:
    """Bilinear warp of (N,C,h,w) by (N,2,3) maps between continuous pixel coordinates into (N,C,*size) (height, width).

    The map runs from the pixels given to the pixels wanted; nothing is filtered, so where it shrinks by 2 or
    more, average first.
    """
    half = torch.full_like(source_to_target[:, :, 2], 0.5)
    # kornia counts from pixel centres; ours count from pixel edges
    centred = compose(translation(-half), compose(source_to_target, translation(half)))
    return warp_affine(pixels, centred, size, mode="bilinear", padding_mode=padding, align_corners=True)


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
    place = ((torch.arange(wanted, device=device) + 0.5).double() * step - 0.5).float()
    before = place.floor()
    rest = place - before
    weights = (torch.stack((1 - rest, rest), 1) * 2048).round().int()
    return before.long().clamp(0, count - 1), (before.long() + 1).clamp(0, count - 1), weights


def scale_of(matrix: Tensor) -> Tensor:
    """(N,) linear magnification of (N,2,3) maps: the square root of the area ratio."""
    return torch.linalg.det(matrix[..., :2]).abs().sqrt()


Box = tuple[int, int, int, int]  # xyxy px, half-open; may reach beyond the frame


def bounds(matrices: Tensor, box: tuple[float, float, float, float], *, margin: int = 2) -> list[Box]:
    """For each of the (N,2,3) ``crop_to_frame`` maps the frame pixels that hold the part ``box`` (xyxy, crop pixels) of its
    crop, and ``margin`` more on each side."""
    x0, y0, x1, y1 = box
    corners = matrices.new_tensor([[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]])
    placed = apply(matrices, corners.expand(matrices.shape[0], -1, -1))
    low, high = placed.amin(1).floor() - margin, placed.amax(1).ceil() + margin
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in torch.cat([low, high], 1).tolist()]


def within(box: Box, width: int, height: int) -> Box:
    """The part of ``box`` that lies in a frame; where none does, the frame's pixels nearest to it."""
    x0, y0 = min(max(box[0], 0), width - 1), min(max(box[1], 0), height - 1)
    return x0, y0, max(min(box[2], width), x0 + 1), max(min(box[3], height), y0 + 1)


def cut(pixels: Tensor, matrices: Tensor, size: int, *, antialias: bool = True) -> Tensor:
    """Crops (N,3,S,S) float in [0,1] of frames (N,H,W,3), placed by (N,2,3) ``crop_to_frame`` maps.

    ``antialias``: average whole blocks of source pixels first where several fall on one crop pixel; without it the crop
    is the plain bilinear one of the reference. Outside the frame its border repeats. Frame by frame: the faces differ in
    size, and what lies in the cache is quick.
    """
    count, height, width, _ = pixels.shape
    out = pixels.new_empty((count, 3, size, size), dtype=matrices.dtype)
    for i, scale in enumerate(scale_of(matrices).tolist()):
        matrix = matrices[i : i + 1]
        k = max(1, int(scale + 0.25)) if antialias else 1
        ((left, top, right, bottom),) = bounds(matrix, (0, 0, size, size), margin=2 * k)
        x0, y0, x1, y1 = within((left, top, right, bottom), width, height)
        patch = pixels[i, y0:y1, x0:x1].permute(2, 0, 1)[None].to(matrices.dtype)
        if k > 1:
            outside = [max(0, n) for n in (x0 - left, right - x1, y0 - top, bottom - y1)]
            patch = F.avg_pool2d(F.pad(patch, outside, mode="replicate") if any(outside) else patch, k)
            x0, y0 = x0 - outside[0], y0 - outside[2]
        to_patch = compose(translation(matrix.new_tensor([[-x0, -y0]])), matrix) / k
        out[i : i + 1] = warp(patch, invert(to_patch), (size, size))
    return out.div_(255) if pixels.dtype == torch.uint8 else out
