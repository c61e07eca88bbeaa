"""Training data of the face detector: mosaics of labeled pictures, targets per cell, and losses.

Pure functions; every draw comes from the generator that is passed in.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    grid_sample,
    interpolate,
    pad,
    smooth_l1_loss,
)

from ..image.boxes import paired_giou
from ..models.face_detector import STRIDES, Cells, cell_centres

FLIPPED_POINTS = [1, 0, 2, 4, 3]
# A level is taught faces whose size sqrt(w*h) lies between these multiples of its stride: 17 to 72
# px at stride 8, 141 to 608 px at stride 64; two levels answer for most sizes, and detection
# averages them.
SMALLEST, LARGEST = 2.2, 9.5
BACKGROUND, IGNORED = -1, -2


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A labeled picture at several scales.

    Attributes:
        levels: (3,h,w) uint8, each half the size of the one before.
        boxes: (F,4) in pixels of the first level; F may be 0.
        points: (F,5,2) in pixels of the first level.
    """

    levels: tuple[Tensor, ...]
    boxes: Tensor
    points: Tensor


class Truth(NamedTuple):
    """The labeled faces of N canvases, padded to F per canvas.

    Attributes:
        boxes: (N,F,4) in pixels.
        points: (N,F,5,2) in pixels.
        kind: (N,F), 1 for a face, 0 for padding, -1 for a face that is cut or too small, which
            counts neither for nor against a detection.
    """

    boxes: Tensor
    points: Tensor
    kind: Tensor


def picture(pixels: Tensor, boxes: Tensor, points: Tensor) -> Picture:
    """Build a `Picture` with levels down to 16 px.

    Args:
        pixels: (3,H,W) uint8.
        boxes: (F,4) in pixels.
        points: (F,5,2) in pixels.

    Returns:
        The labeled picture.
    """
    levels = [pixels]
    while min(levels[-1].shape[1:]) >= 32:
        levels.append(avg_pool2d(levels[-1].float(), 2).round().to(torch.uint8))
    return Picture(tuple(levels), boxes, points)


def _uniform(low: float, high: float, rng: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def _log_uniform(low: float, high: float, rng: torch.Generator) -> float:
    return math.exp(_uniform(math.log(low), math.log(high), rng))


def _chance(probability: float, rng: torch.Generator) -> bool:
    return float(torch.rand((), generator=rng)) < probability


# --- one tile


def random_linear(scale: float, rng: torch.Generator) -> tuple[Tensor, bool]:
    """Draw a linear map from picture to tile.

    Args:
        scale: scale of the map.
        rng: draws a turn of up to 30 degrees (normal, half of them under 8), 10 % of stretch
            and shear, and a mirror half of the time.

    Returns:
        The (2,2) matrix and whether it mirrors.
    """
    angle = math.radians(max(-30.0, min(30.0, 12.0 * float(torch.randn((), generator=rng)))))
    stretch, shear = _log_uniform(0.9, 1.1, rng), _uniform(-0.1, 0.1, rng)
    cos, sin = math.cos(angle), math.sin(angle)
    mirrored = _chance(0.5, rng)
    turn = torch.tensor([[cos, -sin], [sin, cos]])
    form = torch.tensor(
        [[scale * stretch * (-1 if mirrored else 1), scale * shear], [0.0, scale / stretch]]
    )
    return turn @ form, mirrored


def move_faces(
    boxes: Tensor, points: Tensor, matrix: Tensor, *, mirrored: bool
) -> tuple[Tensor, Tensor]:
    """Map labeled faces: points move along, and boxes stay upright.

    A box becomes the box around its moved inscribed ellipse, since a turned head fills an
    ellipse and not a turned rectangle.

    Args:
        boxes: (F,4) in pixels.
        points: (F,5,2) in pixels.
        matrix: (2,3) affine map.
        mirrored: whether the map mirrors, so that left and right points swap.

    Returns:
        Boxes and points after the map, of the same shapes.
    """
    linear, shift = matrix[:, :2], matrix[:, 2]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 @ linear.T + shift
    half = ((boxes[:, 2:] - boxes[:, :2]) / 2)[:, None] * linear  # (F,2,2)
    half = half.square().sum(-1).sqrt()
    points = points @ linear.T + shift
    if mirrored:
        points = points[:, FLIPPED_POINTS]
    return torch.cat([middle - half, middle + half], 1), points


def warp(source: Picture, matrix: Tensor, *, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Sample a tile from a picture, from the level nearest in scale.

    Args:
        source: the picture.
        matrix: (2,3), from picture to tile pixels.
        height: height of the tile in pixels.
        width: width of the tile in pixels.

    Returns:
        The tile (3,height,width) in [0,1] and its coverage (1,height,width) in [0,1].
    """
    scale = float(torch.linalg.det(matrix[:, :2]).abs().sqrt())
    level = min(len(source.levels) - 1, max(0, round(-math.log2(scale))))
    pixels = source.levels[level]
    h, w = pixels.shape[1:]
    inverse = torch.linalg.inv(matrix[:, :2]) / 2**level
    offset = -inverse @ matrix[:, 2]
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    u, v = (
        row[0] * x + row[1] * y + shift
        for row, shift in zip(inverse.tolist(), offset.tolist(), strict=True)
    )
    grid = torch.stack([u * (2 / w) - 1, v * (2 / h) - 1], -1)[None]
    tile = grid_sample(
        pixels[None].float() / 255, grid, padding_mode="border", align_corners=False
    )[0]
    coverage = u.minimum(w - u).minimum(v).minimum(h - v) + 0.5
    return tile, coverage.clamp(0, 1)[None]


def recolor(tile: Tensor, rng: torch.Generator) -> Tensor:
    """Change the light of a tile: gamma, gain per channel, contrast, saturation, sometimes gray.

    Args:
        tile: (3,H,W) in [0,1].
        rng: the generator.

    Returns:
        The tile, of the same shape, in [0,1].
    """
    gray = tile.mean(0, keepdim=True)
    saturation = 0.0 if _chance(0.12, rng) else _uniform(0.4, 1.5, rng)
    tile = (gray + (tile - gray) * saturation).clamp(1e-4, 1) ** _log_uniform(0.5, 2.0, rng)
    gain = 1 + 0.12 * torch.randn(3, 1, 1, generator=rng)
    return (tile * gain * _log_uniform(0.6, 1.5, rng) + _uniform(-0.12, 0.12, rng)).clamp(0, 1)


def occlude(tile: Tensor, boxes: Tensor, rng: torch.Generator) -> Tensor:
    """Cover a part of some faces with a rectangle of one color or of the tile's own pixels.

    Args:
        tile: (3,H,W) in [0,1].
        boxes: (F,4) in pixels.
        rng: the generator; a quarter of the faces is covered.

    Returns:
        The tile.
    """
    _, height, width = tile.shape
    for box in boxes.tolist():
        if not _chance(0.25, rng):
            continue
        w, h = box[2] - box[0], box[3] - box[1]
        rw, rh = int(w * _uniform(0.15, 0.6, rng)), int(h * _uniform(0.15, 0.6, rng))
        x, y = int(_uniform(box[0], box[2] - rw, rng)), int(_uniform(box[1], box[3] - rh, rng))
        x0, y0, x1, y1 = max(0, x), max(0, y), min(width, x + rw), min(height, y + rh)
        if x1 <= x0 or y1 <= y0:
            continue
        if _chance(0.5, rng):
            fill = torch.rand(3, 1, 1, generator=rng)
        else:
            sx, sy = (
                int(_uniform(0, width - (x1 - x0), rng)),
                int(_uniform(0, height - (y1 - y0), rng)),
            )
            fill = tile[:, sy : sy + y1 - y0, sx : sx + x1 - x0].clone()
        tile[:, y0:y1, x0:x1] = fill
    return tile


def _placement(source: Picture, *, side: int, rng: torch.Generator) -> tuple[Tensor, bool]:
    """Draw the (2,3) map that puts a face or a spot of a picture into a tile.

    Face sizes are log-uniform from a seventh (at least 18 px) to most of the tile of ``side``
    px. Also returns whether the map mirrors.
    """
    height, width = source.levels[0].shape[1:]
    if len(source.boxes) and not _chance(0.18, rng):
        box = source.boxes[int(torch.randint(len(source.boxes), (), generator=rng))]
        size = _log_uniform(max(18.0, side / 7), max(20.0, 0.95 * side), rng)
        center, scale = (box[:2] + box[2:]) / 2, size / float((box[2:] - box[:2]).prod().sqrt())
        spread = max(0.12 * side, (side - size) / 2)
    else:
        center = torch.tensor([width, height]) * torch.rand(2, generator=rng)
        scale, spread = _log_uniform(0.3, 2.5, rng) * side / max(height, width), side / 2
    linear, mirrored = random_linear(scale, rng)
    target = side / 2 + spread * (torch.rand(2, generator=rng) * 2 - 1)
    return torch.cat([linear, (target - linear @ center)[:, None]], 1), mirrored


# --- a canvas


def texture(size: int, rng: torch.Generator) -> Tensor:
    """Draw a texture without any face.

    It is noise of one octave, soft stripes, checks, or (half of the time) round shapes, in
    random colors.

    Args:
        size: side in pixels.
        rng: the generator.

    Returns:
        (3,size,size) in [0,1].
    """
    kind = int(torch.randint(6, (), generator=rng))
    colors = torch.rand(2, 3, 1, 1, generator=rng)
    if kind >= 3:
        return _shapes(colors[0].repeat(1, size, size), rng)
    if kind == 0:
        cells = int(_log_uniform(2, 48, rng))
        noise = torch.rand(1, 3, cells, cells, generator=rng)
        return interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)[0]
    angle, period = _uniform(0, math.pi, rng), _log_uniform(4, size, rng)
    axis = torch.arange(size) * (2 * math.pi / period)
    wave = torch.sin(axis[:, None] * math.sin(angle) + axis[None] * math.cos(angle))
    if kind == 2:
        wave = wave * torch.sin(axis[:, None] * math.cos(angle) - axis[None] * math.sin(angle))
        wave = (wave * 8).clamp(-1, 1)
    mix = (wave[None] + 1) / 2
    return colors[0] * mix + colors[1] * (1 - mix)


def _shapes(image: Tensor, rng: torch.Generator) -> Tensor:
    """Add 4 to 60 round shapes that are no faces to an image (3,S,S).

    Shaded discs, rings and parts of rings as letters have them, and glows.
    """
    size = image.shape[-1]
    for _ in range(int(_log_uniform(4, 60, rng))):
        x, y = (size * torch.rand(2, generator=rng)).tolist()
        radius, aspect = _log_uniform(4, size / 3, rng), _log_uniform(0.6, 1.7, rng)
        x0, x1 = max(0, int(x - radius)), min(size, int(x + radius) + 1)
        y0, y1 = max(0, int(y - radius * aspect)), min(size, int(y + radius * aspect) + 1)
        column, row = torch.arange(x0, x1) + 0.5 - x, torch.arange(y0, y1)[:, None] + 0.5 - y
        r = (column / radius).square() + (row / (radius * aspect)).square()
        cover = (1 - r).clamp(0, 1)
        kind = int(torch.randint(3, (), generator=rng))
        if kind < 2:
            cover = (cover * radius / 2).clamp(max=1)  # an edge about one pixel wide
        if kind == 1:
            cover = (
                cover * (r > _uniform(0.2, 0.7, rng)) * (column < radius * _uniform(0.3, 2, rng))
            )
        shade = torch.rand(3, 1, 1, generator=rng) * (1 - _uniform(0, 0.6, rng) * r.clamp(max=1))
        image[:, y0:y1, x0:x1] = torch.lerp(image[:, y0:y1, x0:x1], shade, cover)
    return image


def _seen(boxes: Tensor, *, width: int, height: int) -> Tensor:
    """Return the (F,) share of each box's area inside a tile."""
    limit = torch.tensor([width, height], dtype=boxes.dtype)
    low, high = boxes[:, :2].clamp(min=0), boxes[:, 2:].minimum(limit)
    return (high - low).clamp(min=0).prod(-1) / (boxes[:, 2:] - boxes[:, :2]).prod(-1)


def canvas(
    draw: "Draw", *, size: int, rng: torch.Generator
) -> tuple[Tensor, list[tuple[Tensor, Tensor, int]]]:
    """Compose one training picture: 1 to 16 tiles in a square grid.

    The background is a texture or a picture without faces.

    Args:
        draw: source of the pictures.
        size: side in pixels.
        rng: the generator.

    Returns:
        The picture (3,size,size) in [0,1] and its faces (box, points, kind as in `Truth`).
    """
    grid = (1, 1, 2, 2, 3, 4)[int(torch.randint(6, (), generator=rng))]
    side = size // grid
    if _chance(0.5, rng):
        image = recolor(texture(size, rng), rng)
    else:
        empty = draw.without_faces(rng)
        image = warp(empty, _placement(empty, side=size, rng=rng)[0], height=size, width=size)[0]
    faces: list[tuple[Tensor, Tensor, int]] = []
    for i in range(grid * grid):
        if _chance(0.2, rng):
            continue
        source = draw.without_faces(rng) if _chance(0.2, rng) else draw.with_faces(rng)
        x, y = i % grid * side, i // grid * side
        matrix, mirrored = _placement(source, side=side, rng=rng)
        tile, coverage = warp(source, matrix, height=side, width=side)
        boxes, points = move_faces(source.boxes, source.points, matrix, mirrored=mirrored)
        tile = occlude(recolor(tile, rng), boxes, rng)
        if _chance(0.6, rng):  # else the picture's own edge fills the tile
            tile = torch.lerp(image[:, y : y + side, x : x + side], tile, coverage)
        image[:, y : y + side, x : x + side] = tile
        shift = torch.tensor([x, y], dtype=torch.float32)
        for box, five, seen in zip(
            boxes, points, _seen(boxes, width=side, height=side).tolist(), strict=True
        ):
            large = float((box[2:] - box[:2]).prod()) >= 17**2
            if seen > 0.25:
                faces.append(
                    (box + shift.repeat(2), five + shift, 1 if seen >= 0.7 and large else -1)
                )
    return image, faces


class Draw(NamedTuple):
    """A source of random pictures.

    Attributes:
        groups: labeled pictures in groups; a group is drawn by weight, then one of its pictures
            evenly.
        weights: (G,) weights of the groups.
        empty: pictures without faces.
    """

    groups: tuple[tuple[Picture, ...], ...]
    weights: Tensor
    empty: tuple[Picture, ...]

    def with_faces(self, rng: torch.Generator) -> Picture:
        """Draw a labeled picture."""
        group = self.groups[int(torch.multinomial(self.weights, 1, generator=rng))]
        return group[int(torch.randint(len(group), (), generator=rng))]

    def without_faces(self, rng: torch.Generator) -> Picture:
        """Draw a picture without faces."""
        return self.empty[int(torch.randint(len(self.empty), (), generator=rng))]


def mosaic(draw: Draw, *, count: int, size: int, rng: torch.Generator) -> tuple[Tensor, Truth]:
    """Compose a batch of training pictures.

    Args:
        draw: source of the pictures.
        count: number N of canvases.
        size: side of each in pixels.
        rng: the generator.

    Returns:
        (N,3,size,size) in [0,1] and the faces.
    """
    images: list[Tensor] = []
    every: list[list[tuple[Tensor, Tensor, int]]] = []
    for _ in range(count):
        image, faces = canvas(draw, size=size, rng=rng)
        images.append(damage(image, rng))
        every.append(faces)
    most = max(1, *(len(f) for f in every))
    truth = Truth(
        torch.zeros(count, most, 4),
        torch.zeros(count, most, 5, 2),
        torch.zeros(count, most, dtype=torch.long),
    )
    for n, faces in enumerate(every):
        for f, (box, points, kind) in enumerate(faces):
            truth.boxes[n, f], truth.points[n, f], truth.kind[n, f] = box, points, kind
    return torch.stack(images), truth


# --- damage


def blur(image: Tensor, sigma_px: float) -> Tensor:
    """Blur (3,H,W) with a Gaussian of ``sigma_px`` pixels."""
    radius = max(1, math.ceil(2.5 * sigma_px))
    line = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma_px**2))
    line = line / line.sum()
    x = pad(image[None], (0, 0, radius, radius), mode="replicate")[0]
    rows = x.unfold(1, 2 * radius + 1, 1) @ line
    x = pad(rows[None], (radius, radius, 0, 0), mode="replicate")[0]
    return x.unfold(2, 2 * radius + 1, 1) @ line


def block_quantize(image: Tensor, step: float) -> Tensor:
    """Quantize an image as a JPEG-like coder does.

    8x8 cosine transform, with coefficients rounded to ``step`` times a weight that grows from 1
    to 8 with frequency, as in ITU-T T.81, Annex K.

    Args:
        image: (3,H,W) in [0,1], H and W multiples of 8.
        step: quantization step of the lowest frequency.

    Returns:
        The image, of the same shape.
    """
    k = torch.arange(8.0)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    c, h, w = image.shape
    blocks = image.view(c, h // 8, 8, w // 8, 8).transpose(2, 3)
    steps = step * (1 + (k[:, None] + k[None]) / 2)
    coded = ((basis @ blocks @ basis.T) / steps).round() * steps
    return (basis.T @ coded @ basis).transpose(2, 3).reshape(c, h, w).clamp(0, 1)


def damage(image: Tensor, rng: torch.Generator) -> Tensor:
    """Apply blur, lost resolution, noise and coding to (3,H,W) in [0,1], as cameras do."""
    _, h, w = image.shape
    if _chance(0.25, rng):
        image = blur(image, _log_uniform(0.5, 2.0, rng))
    elif _chance(0.2, rng):
        small = interpolate(image[None], scale_factor=_uniform(0.35, 0.8, rng), mode="area")
        image = interpolate(small, size=(h, w), mode="bilinear")[0]
    if _chance(0.3, rng):
        image = image + torch.randn(image.shape, generator=rng) * _log_uniform(0.01, 0.08, rng)
    if _chance(0.35, rng):
        image = block_quantize(image, _log_uniform(0.03, 0.4, rng))
    return image.clamp(0, 1)


# --- targets and losses


def assign(truth: Truth, *, height: int, width: int) -> Tensor:
    """Assign a face to every cell of the detector.

    A cell is responsible for the nearest face whose center is within a fifth of the face's size
    (or 3/4 of a stride) on a level fit for that size. The ring around, the neighboring levels
    and the insides of faces of kind -1 are ignored: no score there is wrong.

    Args:
        truth: the faces of N canvases.
        height: height of the input in pixels.
        width: width of the input in pixels.

    Returns:
        (N,A) face index per cell, BACKGROUND or IGNORED.
    """
    centers, strides = [], []
    for s in STRIDES:
        spots = cell_centres(-(-height // s), -(-width // s), stride=s)
        centers.append(spots)
        strides.append(torch.full((len(spots),), float(s)))
    cell, stride = torch.cat(centers), torch.cat(strides)[:, None]  # (A,2), (A,1)
    extent = truth.boxes[..., 2:] - truth.boxes[..., :2]
    size = extent.prod(-1).sqrt()[:, None]  # (N,1,F)
    middle = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2
    distance = (cell[:, None] - middle[:, None]).norm(dim=-1)  # (N,A,F)
    fit = (size >= SMALLEST * stride) & (size < LARGEST * stride)
    nearly = (size >= SMALLEST / 1.6 * stride) & (size < LARGEST * 1.6 * stride)
    face, cut = (truth.kind == 1)[:, None], (truth.kind == -1)[:, None]
    core = distance < (0.2 * size).maximum(0.75 * stride)
    chosen = face & fit & core
    ignored = face & nearly & (distance < (0.35 * size).maximum(1.25 * stride)) | cut & (
        distance < 0.6 * size + stride
    )
    nearest = torch.where(chosen, distance / size.clamp(min=1), torch.inf).argmin(-1)
    nothing = torch.where(ignored.any(-1), IGNORED, BACKGROUND)
    return torch.where(chosen.any(-1), nearest, nothing)


def detection_losses(cells: Cells, truth: Truth, assigned: Tensor) -> dict[str, Tensor]:
    """Return the unweighted loss terms of a detector.

    Args:
        cells: the detector's output.
        truth: the faces.
        assigned: what `assign` returned.

    Returns:
        ``score``: focal loss (Lin et al. 2017, gamma 2, alpha 0.25) over cells that are not
        ignored, per positive cell; ``box``: 1 - GIoU; ``edges`` and ``points``: smooth L1 of
        coordinates in face sizes.
    """
    positive = assigned >= 0
    count = positive.sum().clamp(min=1)
    wanted = positive.to(cells.logits.dtype)
    p = cells.logits.sigmoid()
    focus = (p * (1 - wanted) + (1 - p) * wanted).square()
    focal = (
        (0.75 - 0.5 * wanted)
        * focus
        * binary_cross_entropy_with_logits(cells.logits, wanted, reduction="none")
    )
    n, a = positive.nonzero(as_tuple=True)
    face = assigned[n, a]
    boxes, points = truth.boxes[n, face], truth.points[n, face]
    size = (boxes[:, 2:] - boxes[:, :2]).prod(-1).sqrt()[:, None]
    off_edges = (cells.boxes[n, a] - boxes) / size
    off_points = (cells.points[n, a] - points).flatten(1) / size

    def smooth_l1(off: Tensor) -> Tensor:
        return smooth_l1_loss(off, torch.zeros_like(off), beta=0.02, reduction="none")

    return {
        "score": focal[assigned != IGNORED].sum() / count,
        "box": (1 - paired_giou(cells.boxes[n, a], boxes)).sum() / count,
        "edges": smooth_l1(off_edges).mean(-1).sum() / count,
        "points": smooth_l1(off_points).mean(-1).sum() / count,
    }
