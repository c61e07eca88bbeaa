"""Choose the reference pictures of a person from which new mouths are drawn.

The frame into which a mouth is drawn shows the old lips, so another picture may be better.
"""

from contextlib import closing
from itertools import pairwise

import torch
from torch import Tensor

from ..blend.occlusion import pick_clearest
from ..blend.overlays import OverlayCover, fill_overlays
from ..faces.landmarks import confident_frames
from ..faces.lip_matching import find_sharp_frames, match_frames, measure_head_turns, pick_frames
from ..faces.mouth_openness import find_closed_frames, measure_openness, nearest_index
from ..faces.overlays import covered_frames
from ..faces.shot_boundaries import CutState, find_cuts
from ..faces.tracking import track_window
from ..image.affine import (
    Box,
    Framing,
    apply,
    clip_box,
    crop_bounds,
    crop_to_frame,
    invert,
    square_places,
)
from ..image.crop import crop_frames, crop_pictures
from ..image.landmarks import LIP_LAYOUTS, POINTS, mouth_opening
from ..media.clip import Clip
from ..options import Reference
from ..runtime.prefetch import prefetch
from ..types import FaceTrack, Frames, References, YuvFrames, size_of
from .track_faces import SearchCallback

_CANDIDATES = 8  # frames among which the one without occlusion is chosen
_CROP_SIZE = (
    96  # px of the crops in which mouths are measured; ``measure_openness`` was tuned at this size
)
# Round a crop, in parts of its side: a quarter, which is as far as pixels are moved, and what
# interpolation needs.
_MARGIN = 0.3
# Part of the face's size between two frames; a larger step means another person.
_JUMP = 0.5


def find_references(
    clip: Clip,
    track: FaceTrack,
    kind: Reference,
    *,
    length: int,
    index: Tensor,
    most: int = 64,
    on_found: SearchCallback | None = None,
) -> References | None:
    """Choose reference pictures by time, and by how far open the mouth is.

    The clip is read once at the size at which faces are detected, then the chosen frames. If there
    are more stretches than ``most``, some take the picture that is nearest in time.

    Args:
        clip: The source pictures.
        track: The face, in frames of the clip.
        kind: Which pictures are chosen.
        length: Number of the clip's frames that were searched.
        index: (T,) number of the clip's frame that each output frame shows.
        most: Number of pictures at most.
        on_found: Called with the number of frames searched so far.

    Returns:
        The pictures; None if each frame is its own reference: for ``current``, in photos, and for
        a face that is never visible.

    Raises:
        ValueError: ``most`` is less than 1.
    """
    whole = track_window(track, 0, length)
    if kind in ("auto", "current") or clip.still or not whole.visible.any():
        return None
    if most < 1:
        raise ValueError(f"most is {most}; expected 1 or more")
    by_mouth = kind == "nearest-closed"
    marked = _have_lip_landmarks(whole)
    values, cuts = _measure_mouths(clip, whole, whole.visible & ~marked & by_mouth, on_found)
    if whole.dense is not None and bool(marked.any()):
        dense = square_places(whole.dense[marked].float(), whole.pixel_aspect)
        values[marked] = mouth_opening(dense)
    stretches = _stretches(whole, cuts)
    usable = _prefer_uncovered(whole, whole.visible)
    parts: list[Tensor] = []
    for a, b in stretches:
        visible, share = usable[a:b], max(1, most * (b - a) // length)
        if by_mouth:
            visible = _measured_alike(visible, marked[a:b])
        parts.append(
            a
            + (
                find_closed_frames(values[a:b], visible, fps=clip.fps, most=share)
                if by_mouth
                else visible.nonzero()[:1, 0]
            )
        )
    chosen = torch.cat(parts)
    if len(chosen) > most:
        chosen = chosen[torch.arange(most) * len(chosen) // most]
    return _cut_references(clip, whole, chosen, _nearest_places(chosen, stretches, length)[index])


def match_references(
    clip: Clip,
    track: FaceTrack,
    target: Tensor,
    spread: Tensor,
    *,
    length: int,
    index: Tensor,
    most: int = 48,
) -> References | None:
    """Choose the person's own mouths that are nearest to the shapes of the speech.

    A few pictures of each stretch (see ``Reference``) are picked so that they span its mouth shapes
    and head turns. The mouth of the frame that is shown does not matter.

    Args:
        clip: The source pictures.
        track: The face, with our dense landmarks, in frames of the clip.
        target: (T,3) opening, width and jaw for each output frame.
        spread: (3,) the person's standard deviations of those.
        length: Number of the clip's frames that were searched.
        index: (T,) number of the clip's frame that each output frame shows.
        most: Number of pictures at most, over all stretches.

    Returns:
        The pictures; None in photos and without landmarks: each frame is its own reference.
    """
    whole = track_window(track, 0, length)
    usable = _prefer_uncovered(whole, confident_frames(whole))
    if clip.still or whole.dense is None or whole.dense.shape[1] != POINTS or not usable.any():
        return None
    dense = square_places(whole.dense.float(), whole.pixel_aspect)
    stretches = _stretches(whole, torch.zeros_like(whole.visible))
    picked: list[Tensor] = []
    for a, b in stretches:
        share = max(4, most * (b - a) // length)
        picked.append(
            a + pick_frames(dense[a:b], find_sharp_frames(dense[a:b], usable[a:b]), spread, share)
        )
    chosen = torch.cat(picked)
    if not len(chosen):
        return None
    turns, places = measure_head_turns(dense), nearest_index(chosen, index)
    for a, b in stretches:
        first, last = torch.searchsorted(chosen, torch.tensor([a, b])).tolist()
        here = ((index >= a) & (index < b)).nonzero()[:, 0]
        if first < last and len(here):
            own = dense[chosen[first:last]]
            places[here] = first + match_frames(target[here], turns[index[here]], own, spread)
    return _cut_references(clip, whole, chosen, places)


def find_unoccluded(clip: Clip, track: FaceTrack, *, length: int) -> References | None:
    """Choose a picture of a face with nothing in front of it.

    Eight frames, spread over the clip, are compared (``pick_clearest``).

    Args:
        clip: The source pictures.
        track: The face, in frames of the clip.
        length: Number of the clip's frames that were searched.

    Returns:
        One picture; None in photos and for a face that is never visible.
    """
    whole = track_window(track, 0, length)
    frames = whole.visible.nonzero()[:, 0]
    if clip.still or not len(frames):
        return None
    tried = frames[torch.linspace(0, len(frames) - 1, min(_CANDIDATES, len(frames))).long()]
    found = _cut_references(clip, whole, tried, torch.zeros(1, dtype=torch.long))
    aspect = track.pixel_aspect
    maps = crop_to_frame(found.boxes, found.points, Framing(), _CROP_SIZE, aspect=aspect)
    crops = torch.cat(
        [crop_frames(patch, maps[i : i + 1], _CROP_SIZE) for i, patch in enumerate(found.patches)]
    )
    best = int(pick_clearest(crops, apply(invert(maps), found.points)))
    one = slice(best, best + 1)
    return References(
        found.patches[one],
        found.boxes[one],
        found.points[one],
        found.index,
        pixel_aspect=track.pixel_aspect,
    )


def _prefer_uncovered(whole: FaceTrack, usable: Tensor) -> Tensor:
    """(T,) bool: the usable frames without captions over the face, if they are a fifth or more."""
    free = usable & ~covered_frames(whole)
    return free if 5 * int(free.sum()) >= int(usable.sum()) else usable


def _have_lip_landmarks(whole: FaceTrack) -> Tensor:
    """(T,) bool: frames whose landmarks measure how far open the mouth is."""
    known = whole.dense is not None and whole.dense.shape[1] in LIP_LAYOUTS
    return confident_frames(whole) if known else torch.zeros_like(whole.visible)


def _measured_alike(visible: Tensor, marked: Tensor) -> Tensor:
    """(T,) bool: the ``visible`` frames that were measured as most of their stretch were.

    Figures by landmarks (``marked``) and by the look of the mouth cannot be compared.
    """
    return visible & marked if 2 * int(marked.sum()) >= int(visible.sum()) else visible & ~marked


def _measure_mouths(
    clip: Clip, whole: FaceTrack, looked: Tensor, on_found: SearchCallback | None
) -> tuple[Tensor, Tensor]:
    """Measure mouths by their look.

    Returns (T,) how far open the mouth is in the frames of ``looked`` (T,) bool, and (T,) bool,
    which frames begin a scene.
    """
    across, down = clip.scale
    stretch = torch.tensor([across, down])
    maps = crop_to_frame(
        whole.boxes / stretch.repeat(2), whole.points / stretch, Framing(), _CROP_SIZE
    )
    values, cuts = torch.zeros(len(whole.visible)), torch.zeros_like(whole.visible)
    state: CutState | None = None
    with closing(prefetch(clip.reduced(len(values)))) as pieces:
        for piece in pieces:
            stop = piece.start + len(piece.pixels)
            cuts[piece.start : stop], state = find_cuts(piece.pixels, state)
            here = looked[piece.start : stop].nonzero()[:, 0]
            if len(here):
                at = piece.start + here
                values[at] = measure_openness(
                    crop_pictures(piece.pixels[here], maps[at], _CROP_SIZE)
                )
            if on_found is not None:
                on_found(stop)
    return values, cuts


def _stretches(whole: FaceTrack, cuts: Tensor) -> list[tuple[int, int]]:
    """(first, stop) of every stretch of one person in one scene, with unseen frames after it."""
    low, high = whole.boxes[:, :2], whole.boxes[:, 2:]
    far = _JUMP * (high - low).clamp_min(1).prod(1).sqrt()
    jumps = ((low + high).diff(dim=0) / 2).norm(dim=1) > far[1:]
    begins = whole.visible.clone()
    begins[1:] &= ~whole.visible[:-1] | cuts[1:] | jumps
    return list(pairwise([*begins.nonzero()[:, 0].tolist(), len(begins)]))


def _nearest_places(chosen: Tensor, stretches: list[tuple[int, int]], length: int) -> Tensor:
    """(length,) place in ``chosen`` of the nearest frame: of the same stretch, else of all."""
    frames = torch.arange(length)
    places = nearest_index(chosen, frames)
    for a, b in stretches:
        first, last = torch.searchsorted(chosen, torch.tensor([a, b])).tolist()
        if first < last:
            places[a:b] = first + nearest_index(chosen[first:last], frames[a:b])
    return places


def _cut_references(clip: Clip, whole: FaceTrack, chosen: Tensor, index: Tensor) -> References:
    """Cut the ``chosen`` frames to patches round the face; whole frames are not kept."""
    boxes, points = whole.boxes[chosen].float(), whole.points[chosen].float()
    areas = _patch_areas(boxes, points, clip.size, whole.pixel_aspect)
    area_of = dict(zip(chosen.tolist(), areas, strict=True))
    cover = None if whole.overlays is None else OverlayCover(whole.overlays)

    def cut(frame: int, picture: Frames | YuvFrames) -> Frames | YuvFrames:
        if cover is not None:  # what lies over this frame must not travel to others
            over = cover.at(torch.tensor([frame]), size_of(picture))
            picture = fill_overlays(picture, over)
        return _cut_patch(picture, area_of[frame])

    patches = tuple(cut(frame, picture) for frame, picture in clip.pick_coded(chosen.tolist()))
    assert len(patches) == len(chosen)  # all were read before
    corners = boxes.new_tensor([area[:2] for area in areas])
    dense = None if whole.dense is None else whole.dense[chosen].float() - corners[:, None]
    return References(
        patches,
        boxes - corners.repeat(1, 2),
        points - corners[:, None],
        index,
        dense,
        whole.pixel_aspect,
    )


def _patch_areas(boxes: Tensor, points: Tensor, size: tuple[int, int], aspect: float) -> list[Box]:
    """For each face the area in px that a crop by its points or by its box may need.

    It includes what moves into the crop. Its sides are even, because chroma has half the size, so
    it may end a px beyond a picture of odd ``size`` (width, height).
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    grown = torch.cat([boxes[:, :2] - _MARGIN * sides, boxes[:, 2:] + _MARGIN * sides], 1)
    crop = (-_MARGIN, -_MARGIN, 1 + _MARGIN, 1 + _MARGIN)
    aligned = boxes.new_tensor(
        crop_bounds(crop_to_frame(boxes, points, Framing(), 1, aspect=aspect), crop, margin=4)
    )
    low, high = torch.minimum(grown, aligned)[:, :2], torch.maximum(grown, aligned)[:, 2:]
    halves = torch.cat([(low / 2).floor(), (high / 2).ceil()], 1).int().tolist()
    width, height = (-(-side // 2) for side in size)
    inside = [clip_box((a, b, c, d), width, height) for a, b, c, d in halves]
    return [(2 * x0, 2 * y0, 2 * x1, 2 * y1) for x0, y0, x1, y1 in inside]


def _cut_patch(picture: Frames | YuvFrames, area: Box) -> Frames | YuvFrames:
    """A copy of the part ``area`` of a single picture."""
    x0, y0, x1, y1 = area
    if isinstance(picture, Frames):
        planes = (
            picture.pixels[:, y0:y1, x0:x1]
            .permute(0, 3, 1, 2)
            .clone(memory_format=torch.contiguous_format)
        )
        return Frames(planes.permute(0, 2, 3, 1))
    luma = picture.luma[:, 0, y0:y1, x0:x1]
    chroma = picture.chroma[:, :, y0 // 2 : y1 // 2, x0 // 2 : x1 // 2].reshape(
        1, (y1 - y0) // 2, x1 - x0
    )
    return YuvFrames(torch.cat([luma, chroma], 1), picture.colour)
