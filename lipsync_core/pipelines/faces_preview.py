"""Pictures that show which faces were found, and the part of the picture that they cover."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..blend.masks import face_mask
from ..faces.selection import rows
from ..faces.tracking import window
from ..geometry import Framing, bounds, crop_to_frame, within
from ..types import FaceTrack, Frames

_PAPER, _INK = (255, 214, 0), (0, 0, 0)  # yellow stands out from skin, sky, leaves and most walls
_LEAST_TEXT = 11  # px: the smallest that the eye reads
_TEXT, _LARGEST_TEXT = 1 / 40, 1 / 10  # of the picture's shorter side
_TEXT_IN_BOX = 0.3  # of the box's height, between those two
_LINE = 1 / 300  # of the picture's shorter side


def numbered(pixels: Tensor, boxes: Tensor, labels: Sequence[int | str]) -> Tensor:
    """A copy (H,W,3) uint8 of a picture (H,W,3), uint8 in [0,255] or float in [0,1], with ``boxes`` (F,4) drawn in, and
    beside each its label. Raises ValueError for other shapes, or where boxes and labels differ in number."""
    from PIL import Image, ImageDraw, ImageFont

    if pixels.ndim != 3 or pixels.shape[2] != 3 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"pixels and boxes are {tuple(pixels.shape)}, {tuple(boxes.shape)}; wanted (H,W,3) and (F,4)")
    if len(labels) != len(boxes):
        raise ValueError(f"got {len(labels)} labels for {len(boxes)} boxes; wanted one for each")
    picture = Image.fromarray(_bytes(pixels).numpy())
    draw = ImageDraw.Draw(picture)
    height, width, _ = pixels.shape
    short = min(height, width)
    line = max(1, round(short * _LINE))
    for box, label in zip(boxes.tolist(), labels, strict=True):
        x0, y0, x1, y1 = within((round(box[0]), round(box[1]), round(box[2]), round(box[3])), width, height)
        draw.rectangle((x0 - line, y0 - line, x1 - 1 + line, y1 - 1 + line), outline=_INK, width=line)
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=_PAPER, width=line)
        text = min(max((y1 - y0) * _TEXT_IN_BOX, short * _TEXT), short * _LARGEST_TEXT)
        text = max(_LEAST_TEXT, round(text))
        font = ImageFont.load_default(text)
        left, top, right, bottom = draw.textbbox((0, 0), str(label), font=font)
        margin = max(1, text // 5)
        w, h = right - left + 2 * margin, bottom - top + 2 * margin
        x, y = max(0, min(x0, width - w)), (y0 - h if y0 >= h else y1 if y1 + h <= height else y0)
        draw.rectangle((x, y, x + w - 1, y + h - 1), fill=_PAPER)
        draw.text((x + margin - left, y + margin - top), str(label), font=font, fill=_INK)
    return torch.from_numpy(np.array(picture))


def numbers(tracks: Sequence[FaceTrack], frame: int) -> tuple[Tensor, list[int]]:
    """Boxes (F,4) of the people seen in a clip frame, and the number of each: its place in its scene's row, as ``--face
    INDEX`` counts."""
    places = [(place, window(person, frame, 1)) for row in rows(tracks) for place, person in enumerate(row)]
    seen = [(place, here) for place, here in places if bool(here.visible[0])]
    return torch.cat([torch.zeros(0, 4), *(here.boxes.cpu() for _, here in seen)]), [place for place, _ in seen]


def sheet_frames(tracks: Sequence[FaceTrack], count: int, *, most: int = 16) -> list[int]:
    """At most ``most`` of a clip's ``count`` frames, rising: of each of as many equal parts, the first frame that shows the
    most people. Raises ValueError unless both are 1 or more."""
    if count < 1 or most < 1:
        raise ValueError(f"got count {count}, most {most}; wanted 1 or more of each")
    people = torch.zeros(count, dtype=torch.int64)
    for person in tracks:
        people += window(person, 0, count).visible.cpu()
    parts = torch.arange(count).tensor_split(min(most, count))
    return [int(part[people[part].argmax()]) for part in parts]


def overview(frames: Iterable[Frames], tracks: Sequence[FaceTrack], *, count: int, width: int = 1280) -> Tensor:
    """``count`` ``frames`` of a clip (as ``sheet_frames`` chooses them), reduced to fit ``width`` px side by side and their
    faces numbered, as one picture (h,w,3) uint8. One chunk is held at its full size. Raises ValueError without frames."""
    columns = math.ceil(math.sqrt(max(1, count)))
    tiles: list[Tensor] = []
    for chunk in frames:
        for index, pixels in enumerate(chunk.pixels, chunk.start):
            small = _reduced(pixels, max(1, width // columns))
            boxes, labels = numbers(tracks, index)
            tiles.append(numbered(small, boxes * (small.shape[1] / pixels.shape[1]), labels))
    if not tiles:
        raise ValueError("no frames; wanted at least one")
    return contact_sheet(torch.stack(tiles), columns=columns)


def contact_sheet(tiles: Tensor, *, columns: int) -> Tensor:
    """(rows*h, columns*w, 3): pictures (N,h,w,3) of one size in reading order, black where they do not fill the last row."""
    count, height, width, _ = tiles.shape
    lines = -(-count // columns)
    tiles = torch.cat([tiles, tiles.new_zeros(lines * columns - count, height, width, 3)])
    return tiles.view(lines, columns, height, width, 3).transpose(1, 2).reshape(lines * height, columns * width, 3)


def face_masks(tracks: Sequence[FaceTrack], *, start: int, count: int, height: int, width: int) -> Tensor:
    """(count,height,width) float32 for the clip frames from ``start`` on: 1 on every visible face, from the brows to the
    chin (the ellipse of ``face_mask``), else 0. A frame of 1080p takes 8 MB."""
    masks = torch.zeros(count, height, width)
    for track in tracks:
        person = window(track, start, count)
        points = person.points.float().cpu()
        placed = bounds(crop_to_frame(person.boxes.float().cpu(), points, Framing(), 1), (0, 0, 1, 1))
        for i in person.visible.nonzero()[:, 0].tolist():
            x0, y0, x1, y1 = within(placed[i], width, height)
            face = face_mask("face", points[i : i + 1] - torch.tensor([x0, y0]), max(x1 - x0, y1 - y0), feather=0)
            part = masks[i, y0:y1, x0:x1]
            part.copy_(torch.maximum(part, face[0, 0, : y1 - y0, : x1 - x0]))
    return masks


def _reduced(pixels: Tensor, width: int) -> Tensor:
    """A picture (H,W,3) at most ``width`` px wide, uint8."""
    if pixels.shape[1] <= width:
        return _bytes(pixels)
    size = (max(1, round(pixels.shape[0] * width / pixels.shape[1])), width)
    planar = _bytes(pixels).permute(2, 0, 1)[None].float()
    return F.interpolate(planar, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).round().byte()


def _bytes(pixels: Tensor) -> Tensor:
    """On the CPU, as uint8 in [0,255]."""
    whole = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    return whole.cpu()
