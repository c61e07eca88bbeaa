"""Previews before a dub: masks over frames, numbered faces, contact sheets."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..blend.blender import Blender, FaceCrops, enclose_mouths
from ..blend.masks import face_mask
from ..errors import NoFaceError
from ..faces.landmarks import LandmarkFinder
from ..faces.selection import rows_by_scene
from ..faces.tracking import track_window
from ..image.affine import (
    Box,
    Framing,
    apply,
    clip_box,
    compose,
    crop_bounds,
    crop_to_frame,
    invert,
)
from ..image.crop import crop_frames
from ..image.landmarks import POINTS
from ..image.yuv import to_rgb
from ..models.lip_warp import LipWarp
from ..types import FaceTrack, Frames, YuvFrames
from .dub_plan import DubPlan
from .lipsync import LipSync
from .roles import FaceDub, ReferenceCrops

_TINT = (0.0, 1.0, 0.25)  # green: neither skin nor lips have it
_MOST_TINT = 0.4  # of the picture's colour, so that the face can still be seen
_AROUND = 0.5  # of a face's box, shown on each side of it


@torch.inference_mode()
def draw_mask_sheet(plan: DubPlan, model: LipSync, *, count: int = 9, width: int = 1280) -> Tensor:
    """Draw the masks of a dub over frames of its clip, as a contact sheet.

    The tint is as strong as the new mouth would be; a line, white inside and black outside, runs
    at half of that. Nothing is generated: a model that moves lips is shown with a jaw that stays,
    because how far the chin falls depends on the speech. The frames of a sheet are far apart, so
    nothing is smoothed from one to the next.

    Args:
        plan: The dub, for example of ``plan_preview``.
        model: The model that the plan was made for.
        count: Number of equal parts of the clip from which one frame each is shown. Parts that
            show none of the faces are left out.
        width: Width of the sheet in px; it may be a little less.

    Returns:
        (h,w,3) uint8, the frames cut to the region of their faces.

    Raises:
        NoFaceError: No frame shows any of the faces.
        ValueError: The plan has no frames, or ``count`` or ``width`` is less than 1.
    """
    if width < 1:
        raise ValueError(f"width is {width} px; expected 1 or more")
    tracks, length = [face.track for face in plan.faces], len(plan.frame_order)
    visible = {
        frame: _visible_faces(tracks, frame)
        for frame in choose_sheet_frames(tracks, length, most=count)
    }
    visible = {frame: faces for frame, faces in visible.items() if faces}
    if not visible:
        raise NoFaceError(
            f"none of {len(tracks)} chosen faces is visible in {length} frames; choose another face"
        )
    drawer = _MaskDrawer(plan, model)
    regions, wide, high = _regions(visible, *plan.clip.size)
    columns = math.ceil(math.sqrt(len(visible)))
    across = max(1, width // columns)
    shape = (max(1, round(across * high / wide)), across)
    tiles: list[Tensor] = []
    for frame, picture in plan.clip.pick_coded(list(visible)):
        opacity = drawer.opacity(picture, frame, visible[frame], regions[frame], shape)
        tile = _crop_region(picture, regions[frame], shape).cpu()
        tiles.append(tint(tile, opacity, half=model.blend.strength / 2))
    return tile_pictures(torch.stack(tiles), columns=columns)


class _MaskDrawer:
    """Computes how much of new mouths each pixel of a tile would show."""

    def __init__(self, plan: DubPlan, model: LipSync) -> None:
        self._model, self._fps = model, plan.clip.fps
        self._framing, self._size = model.config.framing, model.config.size
        network, blend = model.model, model.blend
        self._finder = LandmarkFinder(network.landmarks) if isinstance(network, LipWarp) else None
        self._moves = network.moves and blend.own_pixels and not blend.colour_match
        self._moves &= self._finder is None
        self._blender = Blender(blend, self._size)
        self._clear = [self._unoccluded_crop(face) for face in plan.faces]

    def opacity(
        self,
        picture: Frames | YuvFrames,
        frame: int,
        faces: list[tuple[int, FaceTrack]],
        region: Box,
        shape: tuple[int, int],
    ) -> Tensor:
        """(h,w) in [0,1] for the ``region`` of one ``picture``, in a tile of ``shape``."""
        opacity = torch.zeros(shape)
        for number, face in faces:
            crops = self._crop(picture, face)
            if self._finder is not None:
                crops = _reach_below(crops, picture, face, self._finder)
            state = self._blender.start(self._fps, reference=self._clear[number])
            mask = self._blender.make_mask(crops, torch.tensor([frame]), state)
            to_tile = compose(_to_tile(region, shape).to(mask.shape), crops.crop_to_frame)
            placed = replace(crops, crop_to_frame=to_tile)
            alpha = self._blender.compute_alpha(shape, placed, mask, lower_half=self._moves)
            new = alpha[0].cpu()
            opacity = 1 - (1 - opacity) * (1 - new)
        return opacity

    def _unoccluded_crop(self, face: FaceDub) -> Tensor | None:
        """(1,3,S,S) the face with nothing in front of it."""
        crops = ReferenceCrops.of(face.unoccluded, self._framing, self._size)
        return None if crops is None else crops.crop(0)

    def _crop(self, picture: Frames | YuvFrames, face: FaceTrack) -> FaceCrops:
        """Where a ``face`` is in its ``picture``, and what the mask depends on, as in a dub."""
        model, device = self._model, picture.pixels.device
        boxes, points = face.boxes.float(), face.points.float()
        aspect = face.pixel_aspect
        matrices = crop_to_frame(boxes, points, self._framing, self._size, aspect=aspect)
        inverse = invert(matrices)
        dense = None if face.dense is None else apply(inverse, face.dense.float()).to(device)
        pixels, labels, placed = None, None, matrices.to(device)
        if model.blend.occlusion == "compare":
            aligned = self._framing.kind == "aligned"
            pixels = crop_frames(picture, placed, self._size, antialias=aligned)
        if model.blend.occlusion == "parse":
            assert model.parser is not None
            labels = model.parser.faces(picture, points, placed, self._size)
        return FaceCrops(placed, apply(inverse, points).to(device), dense, pixels, labels)


def tint(picture: Tensor, opacity: Tensor, *, half: float = 0.5) -> Tensor:
    """Tint a picture green where new mouths would be drawn.

    Args:
        picture: (3,h,w) RGB in [0,1].
        opacity: (h,w) in [0,1].
        half: Opacity along which a line runs, white inside and black outside, which is visible on
            any skin.

    Returns:
        (h,w,3) uint8.
    """
    green = picture.new_tensor(_TINT)[:, None, None]
    out = picture + _MOST_TINT * opacity * (green - picture)
    inside = ((opacity >= half) & (opacity > 0)).to(picture)[None, None]
    grown, shrunk = F.max_pool2d(inside, 3, 1, 1)[0, 0], -F.max_pool2d(-inside, 3, 1, 1)[0, 0]
    out[:, grown > inside[0, 0]] = 0
    out[:, inside[0, 0] > shrunk] = 1
    return (out * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def _visible_faces(tracks: Sequence[FaceTrack], frame: int) -> list[tuple[int, FaceTrack]]:
    """The faces visible in ``frame``, each a track of that frame alone, with its number."""
    here = [(number, track_window(track, frame, 1)) for number, track in enumerate(tracks)]
    return [(number, face) for number, face in here if bool(face.visible[0])]


def _reach_below(
    faces: FaceCrops, picture: Frames | YuvFrames, face: FaceTrack, finder: LandmarkFinder
) -> FaceCrops:
    """``faces`` with the outline under which moved lips are put back.

    Landmarks are searched for if the track has none of ours.
    """
    dense = faces.dense
    if dense is None or dense.shape[1] != POINTS:
        found, _ = finder.find(picture, face.boxes, face.points)
        dense = apply(invert(faces.crop_to_frame), found.to(faces.crop_to_frame))
    return replace(faces, dense=enclose_mouths(dense, dense))


def _regions(
    visible: dict[int, list[tuple[int, FaceTrack]]], width: int, height: int
) -> tuple[dict[int, Box], float, float]:
    """For each frame the region round its faces, with even px, and the sides of all regions.

    All regions have one shape.
    """
    bounds: dict[int, Tensor] = {}
    limits = torch.tensor([width, height], dtype=torch.float32)
    for frame, faces in visible.items():
        boxes = torch.cat([face.boxes.float().cpu() for _, face in faces])
        margin = _AROUND * (boxes[:, 2:] - boxes[:, :2])
        low, high = (boxes[:, :2] - margin).amin(0), (boxes[:, 2:] + margin).amax(0)
        bounds[frame] = torch.stack(
            [low.clamp_min(0).minimum(limits - 2), high.minimum(limits).clamp_min(2)]
        )
    sides = torch.stack([(high - low).clamp_min(2) for low, high in bounds.values()])
    shape = sides.amax(0)
    regions: dict[int, Box] = {}
    for side, (frame, (low, high)) in zip(sides, bounds.items(), strict=True):
        # the smallest of that shape which holds its faces
        whole = (shape * (side / shape).amax()).minimum(limits)
        corner = ((low + high - whole) / 2).clamp_min(0).minimum(limits - whole)
        x0, y0 = (2 * (corner / 2).floor()).int().tolist()
        x1, y1 = (2 * ((corner + whole) / 2).ceil()).int().tolist()
        regions[frame] = (x0, y0, min(x1, width), min(y1, height))
    return regions, float(shape[0]), float(shape[1])


def _crop_region(picture: Frames | YuvFrames, region: Box, shape: tuple[int, int]) -> Tensor:
    """(3,h,w) RGB in [0,1] of the ``region`` of a single picture."""
    x0, y0, x1, y1 = region
    if isinstance(picture, YuvFrames):
        luma, chroma = (
            picture.luma[..., y0:y1, x0:x1],
            picture.chroma[..., y0 // 2 : y1 // 2, x0 // 2 : x1 // 2],
        )
        return to_rgb(torch.cat([_resize(luma, shape), _resize(chroma, shape)], 1), picture.colour)[
            0
        ]
    pixels = picture.pixels[:, y0:y1, x0:x1].permute(0, 3, 1, 2)
    return _resize(pixels, shape)[0] / (255 if pixels.dtype == torch.uint8 else 1)


def _resize(planes: Tensor, shape: tuple[int, int]) -> Tensor:
    return F.interpolate(planes.float(), shape, mode="bilinear", antialias=True)


def _to_tile(region: Box, shape: tuple[int, int]) -> Tensor:
    """(1,2,3) map from px of a picture to those of its ``region`` in ``shape`` (height, width)."""
    x0, y0, x1, y1 = region
    across, down = shape[1] / (x1 - x0), shape[0] / (y1 - y0)
    return torch.tensor([[[across, 0, -x0 * across], [0, down, -y0 * down]]])


_PAPER, _INK = (255, 214, 0), (0, 0, 0)  # yellow stands out from skin, sky, leaves and most walls
_LEAST_TEXT = 11  # px: the smallest that the eye reads
_TEXT, _LARGEST_TEXT = 1 / 40, 1 / 10  # of the picture's shorter side
_TEXT_IN_BOX = 0.3  # of the box's height, between those two
_LINE = 1 / 300  # of the picture's shorter side


def draw_numbers(pixels: Tensor, boxes: Tensor, labels: Sequence[int | str]) -> Tensor:
    """Draw labeled boxes into a copy of a picture.

    Args:
        pixels: (H,W,3) uint8 in [0,255] or float in [0,1].
        boxes: (F,4) xyxy in px.
        labels: One per box.

    Returns:
        (H,W,3) uint8.

    Raises:
        ValueError: The shapes are others, or boxes and labels differ in number.
    """
    from PIL import Image, ImageDraw, ImageFont

    if pixels.ndim != 3 or pixels.shape[2] != 3 or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"pixels and boxes are {tuple(pixels.shape)}, {tuple(boxes.shape)}; "
            "expected (H,W,3) and (F,4)"
        )
    if len(labels) != len(boxes):
        raise ValueError(f"got {len(labels)} labels for {len(boxes)} boxes; expected one for each")
    picture = Image.fromarray(_bytes(pixels).numpy())
    draw = ImageDraw.Draw(picture)
    height, width, _ = pixels.shape
    short = min(height, width)
    line = max(1, round(short * _LINE))
    for box, label in zip(boxes.tolist(), labels, strict=True):
        x0, y0, x1, y1 = clip_box(
            (round(box[0]), round(box[1]), round(box[2]), round(box[3])), width, height
        )
        draw.rectangle(
            (x0 - line, y0 - line, x1 - 1 + line, y1 - 1 + line), outline=_INK, width=line
        )
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


def number_faces(tracks: Sequence[FaceTrack], frame: int) -> tuple[Tensor, list[int]]:
    """Number the people in one frame as ``--face INDEX`` counts them.

    Args:
        tracks: All tracks of the clip.
        frame: Number of the frame.

    Returns:
        (F,4) boxes of the visible people, and the number of each: its place in its scene's row.
    """
    places = [
        (place, track_window(person, frame, 1))
        for row in rows_by_scene(tracks)
        for place, person in enumerate(row)
    ]
    seen = [(place, here) for place, here in places if bool(here.visible[0])]
    return torch.cat([torch.zeros(0, 4), *(here.boxes.cpu() for _, here in seen)]), [
        place for place, _ in seen
    ]


def choose_sheet_frames(tracks: Sequence[FaceTrack], count: int, *, most: int = 16) -> list[int]:
    """Choose frames of a clip for a contact sheet.

    Args:
        tracks: All tracks of the clip.
        count: Number of frames of the clip.
        most: Number of equal parts into which they are divided, at most.

    Returns:
        Of each part, by rising number, the first frame that shows the most people.

    Raises:
        ValueError: ``count`` or ``most`` is less than 1.
    """
    if count < 1 or most < 1:
        raise ValueError(f"got count {count}, most {most}; expected 1 or more of each")
    people = torch.zeros(count, dtype=torch.int64)
    for person in tracks:
        people += track_window(person, 0, count).visible.cpu()
    parts = torch.arange(count).tensor_split(min(most, count))
    return [int(part[people[part].argmax()]) for part in parts]


def draw_overview(
    frames: Iterable[Frames], tracks: Sequence[FaceTrack], *, count: int, width: int = 1280
) -> Tensor:
    """Draw a contact sheet of frames with numbered faces.

    Args:
        frames: The frames, for example those of ``choose_sheet_frames``; one chunk at a time is
            held at full size.
        tracks: All tracks of the clip.
        count: Number of frames.
        width: Width of the sheet in px.

    Returns:
        (h,w,3) uint8.

    Raises:
        ValueError: There are no frames.
    """
    columns = math.ceil(math.sqrt(max(1, count)))
    tiles: list[Tensor] = []
    for chunk in frames:
        for index, pixels in enumerate(chunk.pixels, chunk.start):
            small = _reduced(pixels, max(1, width // columns))
            boxes, labels = number_faces(tracks, index)
            tiles.append(draw_numbers(small, boxes * (small.shape[1] / pixels.shape[1]), labels))
    if not tiles:
        raise ValueError("no frames; expected at least one")
    return tile_pictures(torch.stack(tiles), columns=columns)


def tile_pictures(tiles: Tensor, *, columns: int) -> Tensor:
    """Tile pictures in reading order.

    Args:
        tiles: (N,h,w,3) pictures of one size.
        columns: Number of columns.

    Returns:
        (rows*h, columns*w, 3); the rest of the last row is black.
    """
    count, height, width, _ = tiles.shape
    lines = -(-count // columns)
    tiles = torch.cat([tiles, tiles.new_zeros(lines * columns - count, height, width, 3)])
    return (
        tiles.view(lines, columns, height, width, 3)
        .transpose(1, 2)
        .reshape(lines * height, columns * width, 3)
    )


def draw_face_masks(
    tracks: Sequence[FaceTrack], *, start: int, count: int, height: int, width: int
) -> Tensor:
    """Draw masks of whole faces, from the brows to the chin (the ellipse of ``face_mask``).

    Args:
        tracks: The faces.
        start: Number of the first frame.
        count: Number of frames.
        height: Height of the frames in px.
        width: Width of the frames in px.

    Returns:
        (count,height,width) float32, 1 on every visible face, else 0. A frame of 1080p takes 8 MB.
    """
    masks = torch.zeros(count, height, width)
    for track in tracks:
        person = track_window(track, start, count)
        points = person.points.float().cpu()
        placed = crop_bounds(
            crop_to_frame(person.boxes.float().cpu(), points, Framing(), 1), (0, 0, 1, 1)
        )
        for i in person.visible.nonzero()[:, 0].tolist():
            x0, y0, x1, y1 = clip_box(placed[i], width, height)
            face = face_mask(
                "face", points[i : i + 1] - torch.tensor([x0, y0]), max(x1 - x0, y1 - y0), feather=0
            )
            part = masks[i, y0:y1, x0:x1]
            part.copy_(torch.maximum(part, face[0, 0, : y1 - y0, : x1 - x0]))
    return masks


def _reduced(pixels: Tensor, width: int) -> Tensor:
    """A picture (H,W,3) at most ``width`` px wide, uint8."""
    if pixels.shape[1] <= width:
        return _bytes(pixels)
    size = (max(1, round(pixels.shape[0] * width / pixels.shape[1])), width)
    planar = _bytes(pixels).permute(2, 0, 1)[None].float()
    return (
        F.interpolate(planar, size=size, mode="bilinear", antialias=True)[0]
        .permute(1, 2, 0)
        .round()
        .byte()
    )


def _bytes(pixels: Tensor) -> Tensor:
    """On the CPU, as uint8 in [0,255]."""
    whole = (
        pixels
        if pixels.dtype == torch.uint8
        else (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    )
    return whole.cpu()
