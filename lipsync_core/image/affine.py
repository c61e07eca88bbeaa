"""Affine maps: framings of faces, similarity transforms, bounds of crops in frames.

All functions are batched and run on the device of their input. Coordinates are continuous (pixel i
spans [i, i+1)).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Points = tuple[tuple[float, float], ...]

# Places of the five points of an upright face in the unit square of an aligned crop. The crop is
# 2.4 eye distances wide, so that a wide open mouth and its chin just fit, and the middle row runs
# under the nose.
ALIGNED: Points = ((0.29, 0.20), (0.71, 0.20), (0.50, 0.435), (0.343, 0.655), (0.657, 0.655))


# The same for FFHQ at 512 px, on which face restoration networks were trained: ``face_template`` of
# facexlib's face_restoration_helper.py, used by GFPGAN, RestoreFormer and CodeFormer.
_FFHQ_512 = (
    *((192.98138, 239.94708), (318.90277, 240.1936), (256.63416, 314.01935)),
    *((201.26117, 371.41043), (313.08905, 371.15118)),
)


@dataclass(frozen=True, slots=True)
class Framing:
    """How a network's crops are placed on faces.

    Attributes:
        kind: ``box``: the detector's box, axis-aligned, enlarged by ``pads`` and stretched to the
            square. ``aligned``: the similarity transform that brings the five points closest to
            ``points``. ``eyes``: the same by eyes and nose alone, so that moving lips do not move
            the crop. ``square``: the crop of syncnet_python, a square of 1.4 times the longer side
            of the box, with 0.2 of that side more below the center of the box than above it.
            Crops by boxes are turned with faces rolled by more than 20 degrees.
        pads: Frame px at the top, bottom, left and right; 0 10 0 0 for the public Wav2Lip weights.
        points: Places of the points in the unit square; three for ``eyes``.
    """

    kind: Literal["box", "aligned", "square", "eyes"] = "aligned"
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    points: Points = ALIGNED


_UPRIGHT = math.radians(20)  # crops by boxes are not turned with faces rolled less

FFHQ = Framing(points=tuple((x / 512, y / 512) for x, y in _FFHQ_512))


def square_places(places: Tensor, aspect: float) -> Tensor:
    """Map places (...,2) in px of a width of ``aspect`` heights to square px."""
    return places if aspect == 1 else places * places.new_tensor([aspect, 1.0])


def crop_to_frame(
    boxes: Tensor, points: Tensor, framing: Framing, size: int, *, aspect: float = 1.0
) -> Tensor:
    """Place crops on faces.

    Args:
        boxes: (N,4) xyxy frame px.
        points: (N,5,2) frame px.
        framing: How they are placed.
        size: Side of the crops in px.
        aspect: Width of a frame px as shown, divided by its height: crops show faces as they look.

    Returns:
        (N,2,3) maps from crop px to frame px.
    """
    if aspect != 1:
        squared = square_places(boxes.unflatten(1, (2, 2)), aspect).flatten(1)
        maps = crop_to_frame(squared, square_places(points, aspect), framing, size)
        return maps / maps.new_tensor([[aspect], [1.0]])
    if framing.kind in ("box", "square"):
        return _crop_boxes(boxes, points, framing, size)
    template = torch.tensor(framing.points, device=points.device, dtype=points.dtype) * size
    points = points[:, : len(template)]
    return fit_similarity(template.expand_as(points), points)


def _crop_boxes(boxes: Tensor, points: Tensor, framing: Framing, size: int) -> Tensor:
    """``crop_to_frame`` by boxes, turned with rolled faces."""
    roll = roll_of(points.to(boxes))
    # nothing at 20 degrees, all of it from 40 on, so that a head that rolls does not jump
    turn = roll * ((roll.abs() - _UPRIGHT) / _UPRIGHT).clamp(0, 1)
    if not bool((turn != 0).any()):
        return _crop_upright(boxes, framing, size)
    middle, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    share = turn.sin().square()[:, None]
    own = sides * (1 - share) + sides.flip(1) * share  # across and down the face
    upright = _crop_upright(torch.cat([middle - own / 2, middle + own / 2], 1), framing, size)
    linear = rotation(turn)
    shift = middle - (linear @ middle[..., None])[..., 0]
    return compose(torch.cat([linear, shift[..., None]], -1), upright)


def _crop_upright(boxes: Tensor, framing: Framing, size: int) -> Tensor:
    if framing.kind == "box":
        top, bottom, left, right = framing.pads
        grown = boxes + boxes.new_tensor([-left, -top, right, bottom])
        x0, y0, x1, y1 = grown.unbind(-1)
        zero = torch.zeros_like(x0)
        rows = [(x1 - x0) / size, zero, x0, zero, (y1 - y0) / size, y0]
        return torch.stack(rows, -1).view(-1, 2, 3)
    low, high = boxes[:, :2], boxes[:, 2:]
    longer = (high - low).amax(1, keepdim=True)
    corner = (low + high) / 2 - longer * boxes.new_tensor([0.7, 0.5])
    linear = torch.eye(2, device=boxes.device, dtype=boxes.dtype) * (1.4 * longer / size)[..., None]
    return torch.cat([linear, corner[..., None]], -1)


def fit_similarity(source: Tensor, target: Tensor) -> Tensor:
    """Fit similarity transforms (rotation, scale, shift; no mirror) by least squares.

    Args:
        source: (N,K,2) points.
        target: (N,K,2) points that they are mapped to.

    Returns:
        (N,2,3) maps.
    """
    ms, mt = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    s, t = source - ms, target - mt
    norm = s.square().sum((1, 2)).clamp_min(1e-12)
    a = (s * t).sum((1, 2)) / norm
    b = (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0]).sum(1) / norm
    linear = torch.stack([a, -b, b, a], -1).view(-1, 2, 2)
    shift = mt[:, 0] - (linear @ ms[:, 0, :, None])[..., 0]
    return torch.cat([linear, shift[..., None]], -1)


def roll_of(points: Tensor) -> Tensor:
    """Compute the roll of faces: 0 upright, above 0 clockwise in the picture.

    Args:
        points: (N,5,2) px.

    Returns:
        (N,) angles in radians, in (-pi,pi].
    """
    template = torch.tensor(ALIGNED, device=points.device, dtype=points.dtype)
    linear = fit_similarity(template.expand_as(points), points)[:, :, 0]
    return torch.atan2(linear[:, 1], linear[:, 0])


def rotation(angle: Tensor) -> Tensor:
    """Return (N,2,2) rotations by angles (N,) in radians, clockwise in a picture."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)


def invert(matrix: Tensor) -> Tensor:
    """Invert (N,2,3) affine maps."""
    linear = torch.linalg.inv(matrix[..., :2])
    return torch.cat([linear, -linear @ matrix[..., 2:]], -1)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Compose (N,2,3) maps: apply ``inner``, then ``outer``."""
    linear = outer[..., :2] @ inner[..., :2]
    return torch.cat([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], -1)


def apply(matrix: Tensor, points: Tensor) -> Tensor:
    """Map points (N,K,2) by (N,2,3) maps."""
    return points @ matrix[..., :2].mT + matrix[..., 2][:, None]


def apply_to_planes(matrix: Tensor, places: Tensor) -> Tensor:
    """Map planes of places (N,2,h,w) by (N,2,3) maps."""
    moved = torch.baddbmm(matrix[..., 2:], matrix[..., :2], places.flatten(2))
    return moved.unflatten(2, places.shape[2:])


def translation(offset: Tensor) -> Tensor:
    """Return (N,2,3) maps that shift by ``offset`` (N,2)."""
    eye = torch.eye(2, device=offset.device, dtype=offset.dtype).expand(offset.shape[0], 2, 2)
    return torch.cat([eye, offset[..., None]], -1)


def unit_maps(
    target_to_source: Tensor, sources: list[tuple[int, int]], targets: list[tuple[int, int]]
) -> Tensor:
    """Turn maps between pixels into maps between unit squares [-1,1]^2, for ``sample_affine``.

    Not kornia's: with its 0.12 ms per call its warps took 2 of the 11 ms for a 720p frame.

    Args:
        target_to_source: (N,2,3) maps between px.
        sources: N sizes (width, height) of the pictures that are sampled.
        targets: N sizes (width, height) of the results.

    Returns:
        (N,2,3) maps.
    """
    into = 2 / target_to_source.new_tensor(sources).view(-1, 2, 1)
    out = target_to_source.new_tensor(targets).view(-1, 1, 2) / 2
    linear = target_to_source[..., :2] * out
    shift = target_to_source[..., 2:] + linear.sum(-1, keepdim=True)
    return torch.cat([linear * into, shift * into - 1], -1)


def scale_of(matrix: Tensor) -> Tensor:
    """Return (N,) linear magnifications of (N,2,3) maps: square roots of the area ratio."""
    return torch.linalg.det(matrix[..., :2]).abs().sqrt()


Box = tuple[int, int, int, int]  # xyxy px, half-open; may reach beyond the frame


def crop_bounds(
    matrices: Tensor, box: tuple[float, float, float, float] | Tensor, *, margin: int = 2
) -> list[Box]:
    """Return the frame rectangles that hold a part of each crop.

    Args:
        matrices: (N,2,3) ``crop_to_frame`` maps.
        box: The part, xyxy in crop px; one for all crops, or (N,4).
        margin: Pixels that the rectangle is larger on each side.

    Returns:
        N boxes in frame px; they may reach beyond the frame.
    """
    boxes = box if isinstance(box, Tensor) else matrices.new_tensor([box])
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]  # (N,4,2)
    placed = apply(matrices, corners.expand(matrices.shape[0], -1, -1))
    low, high = placed.amin(1).floor() - margin, placed.amax(1).ceil() + margin
    return [(int(a), int(b), int(c), int(d)) for a, b, c, d in torch.cat([low, high], 1).tolist()]


def clip_box(box: Box, width: int, height: int) -> Box:
    """Clip a box to a frame; return the nearest pixel if they do not overlap."""
    x0, y0 = min(max(box[0], 0), width - 1), min(max(box[1], 0), height - 1)
    return x0, y0, max(min(box[2], width), x0 + 1), max(min(box[3], height), y0 + 1)


def place_patches(
    crop_to_frame: Tensor,
    extents: Tensor,
    frame: tuple[int, int],
    size: int,
    *,
    steps: Sequence[int],
    rim: int = 0,
) -> tuple[list[Box], list[tuple[int, int]], tuple[Tensor, Tensor]]:
    """Return the frame rectangle that each crop's extent covers, and its maps to the crop.

    Args:
        crop_to_frame: (N,2,3) maps.
        extents: (N,4) xyxy in crop px: the part of each crop that matters.
        frame: Width and height of the frame in px.
        size: Side of the crops in px.
        steps: N sides in px of the cells of coarse grids on the rectangles. A grid of larger cells
            than 1 px has one more all round.
        rim: Pixels that have been added to the crops on each side.

    Returns:
        N rectangles within the frame, empty (x1 <= x0 or y1 <= y0) if the extent lies outside;
        heights and widths of the grids; and twice (N,2,3) maps for ``sample_affine`` to unit
        squares of the crops: from those of the grids, and from those of the rectangles.
    """
    width, height = frame
    boxes = [
        (max(x0, 0), max(y0, 0), min(x1, width), min(y1, height))
        for x0, y0, x1, y1 in crop_bounds(crop_to_frame, extents)
    ]
    sizes = [(max(x1 - x0, 0), max(y1 - y0, 0)) for x0, y0, x1, y1 in boxes]
    corners = crop_to_frame.new_tensor([box[:2] for box in boxes])
    with_rim = compose(crop_to_frame, translation(crop_to_frame.new_full((len(boxes), 2), -rim)))
    to_crop = compose(invert(with_rim), translation(corners))
    crops = [(size + 2 * rim, size + 2 * rim)] * len(boxes)
    squares = unit_maps(to_crop, crops, sizes)
    if all(step == 1 for step in steps):
        return boxes, [(h, w) for w, h in sizes], (squares, squares)
    margins = [int(step > 1) for step in steps]
    grids = [
        (-(-w // step) + 2 * margin, -(-h // step) + 2 * margin)
        for (w, h), step, margin in zip(sizes, steps, margins, strict=True)
    ]
    cells = crop_to_frame.new_tensor(steps)[:, None, None]
    place = translation(-crop_to_frame.new_tensor(margins)[:, None].expand(-1, 2)) * cells
    cell_squares = unit_maps(compose(to_crop, place), crops, grids)
    return boxes, [(h, w) for w, h in grids], (cell_squares, squares)
