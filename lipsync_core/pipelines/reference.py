"""Which pictures of a person a new mouth is drawn from, instead of the frame that it is drawn into:
that one shows the old lips."""

from contextlib import closing
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ..blend.occlusion import pick_clearest
from ..faces.landmarks import sure_frames
from ..faces.lip_matching import head_turns, match_frames, pick_frames, sharp_frames
from ..faces.mouth_openness import closed_frames, nearest, openness
from ..faces.shot_boundaries import CutState, scene_cuts
from ..faces.tracking import window
from ..image.affine import Box, Framing, apply, clip_box, crop_bounds, crop_to_frame, invert
from ..image.crop import crop_frames, crop_pictures
from ..image.landmarks import LIP_LAYOUTS, POINTS, mouth_opening
from ..media.clip import Clip
from ..runtime.prefetch import ahead
from ..types import FaceTrack, Frames, References, YuvFrames
from .track_faces import SearchCallback

Reference = Literal["auto", "current", "first", "nearest-closed"]
"""``auto``: what is best for the model: for one that moves lips (``LipWarp``) the mouths of the
same person that are nearest to what speech asks for, for others the frame itself. ``current``: the
frame itself. ``first``: the first one of the stretch that it lies in. ``nearest-closed``: of those
of its stretch that show the mouth closed, the nearest in time. A stretch ends where the face goes
away, with a cut, and where the track passes to somebody else."""

_TRIED = 8  # frames among which the clearest is sought
_LOOKED_AT = 96  # px of the crops in which mouths are measured: what ``openness`` was chosen on
# Round a crop, in parts of its side: a quarter, which is as far as pixels are moved, and what
# interpolation needs.
_MARGIN = 0.3
# of the face's size between two frames: further nobody moves, so that it is somebody else
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
    """What the face of ``track`` is drawn from, at most ``most`` pictures; None where that is the
    frame itself: for ``current``, in photographs, and for somebody who is never visible.

    track: in frames of ``clip``, of which there are ``length``; index (T,): the one that each
    output frame shows. Reads the footage once at the size at which faces are looked for, of which
    ``on_found`` hears, and then the chosen frames. Of more stretches than ``most`` some have no
    picture of their own, and take the nearest in time.
    """
    whole = window(track, 0, length)
    if kind in ("auto", "current") or clip.still or not whole.visible.any():
        return None
    if most < 1:
        raise ValueError(f"most is {most}; wanted 1 or more")
    looked = kind == "nearest-closed"
    told = _told(whole)
    values, cuts = _measured(clip, whole, whole.visible & ~told & looked, on_found)
    if whole.dense is not None and bool(told.any()):
        values[told] = mouth_opening(whole.dense[told].float())
    stretches = _stretches(whole, cuts)
    parts: list[Tensor] = []
    for a, b in stretches:
        seen, share = whole.visible[a:b], max(1, most * (b - a) // length)
        if looked:
            seen = _alike(seen, told[a:b])
        parts.append(
            a
            + (
                closed_frames(values[a:b], seen, fps=clip.fps, most=share)
                if looked
                else seen.nonzero()[:1, 0]
            )
        )
    chosen = torch.cat(parts)
    if len(chosen) > most:
        chosen = chosen[torch.arange(most) * len(chosen) // most]
    return _gathered(clip, whole, chosen, _stands_for(chosen, stretches, length)[index])


def match_references(
    clip: Clip,
    track: FaceTrack,
    wanted: Tensor,
    spread: Tensor,
    *,
    length: int,
    index: Tensor,
    most: int = 48,
) -> References | None:
    """Choose a person's own mouths that are nearest to what speech asks for.

    A few pictures of each stretch (see ``Reference``) are picked so that they span what its mouths
    and turns of the head are; what a frame's own mouth looks like does not matter for what it
    shows.

    Args:
        clip: where the person is seen.
        track: their face, with our dense landmarks, in frames of ``clip``, of which there are
            ``length``.
        wanted: (T,3) opening, width and jaw for each output frame.
        spread: (3,) the person's standard deviations of those.
        index: (T,) the frame of ``clip`` that each output frame shows.
        most: how many pictures are kept, over all stretches.

    Returns:
        The pictures; None in photographs and where no landmarks are to be had: then each frame is
        its own picture.
    """
    whole = window(track, 0, length)
    usable = sure_frames(whole)
    if clip.still or whole.dense is None or whole.dense.shape[1] != POINTS or not usable.any():
        return None
    dense = whole.dense.float()
    stretches = _stretches(whole, torch.zeros_like(whole.visible))
    picked: list[Tensor] = []
    for a, b in stretches:
        share = max(4, most * (b - a) // length)
        picked.append(
            a + pick_frames(dense[a:b], sharp_frames(dense[a:b], usable[a:b]), spread, share)
        )
    chosen = torch.cat(picked)
    if not len(chosen):
        return None
    turns, places = head_turns(dense), nearest(chosen, index)
    for a, b in stretches:
        first, last = torch.searchsorted(chosen, torch.tensor([a, b])).tolist()
        here = ((index >= a) & (index < b)).nonzero()[:, 0]
        if first < last and len(here):
            own = dense[chosen[first:last]]
            places[here] = first + match_frames(wanted[here], turns[index[here]], own, spread)
    return _gathered(clip, whole, chosen, places)


def find_unoccluded(clip: Clip, track: FaceTrack, *, length: int) -> References | None:
    """One picture of the face of ``track`` in the ``length`` frames of ``clip`` in which nothing
    lies before it, as far as eight of them, spread over the clip, tell (``pick_clearest``). None in
    photographs and for somebody who is never visible."""
    whole = window(track, 0, length)
    frames = whole.visible.nonzero()[:, 0]
    if clip.still or not len(frames):
        return None
    tried = frames[torch.linspace(0, len(frames) - 1, min(_TRIED, len(frames))).long()]
    found = _gathered(clip, whole, tried, torch.zeros(1, dtype=torch.long))
    maps = crop_to_frame(found.boxes, found.points, Framing(), _LOOKED_AT)
    crops = torch.cat(
        [crop_frames(patch, maps[i : i + 1], _LOOKED_AT) for i, patch in enumerate(found.patches)]
    )
    best = int(pick_clearest(crops, apply(invert(maps), found.points)))
    one = slice(best, best + 1)
    return References(found.patches[one], found.boxes[one], found.points[one], found.index)


def _told(whole: FaceTrack) -> Tensor:
    """(T,) bool: frames whose landmarks tell how far open the mouth is."""
    known = whole.dense is not None and whole.dense.shape[1] in LIP_LAYOUTS
    return sure_frames(whole) if known else torch.zeros_like(whole.visible)


def _alike(seen: Tensor, told: Tensor) -> Tensor:
    """(T,) bool: of the frames ``seen`` in one stretch those that were measured in the way that
    most of them were, by landmarks (``told``) or by the look of the mouth: figures of the two do
    not compare."""
    return seen & told if 2 * int(told.sum()) >= int(seen.sum()) else seen & ~told


def _measured(
    clip: Clip, whole: FaceTrack, looked: Tensor, on_found: SearchCallback | None
) -> tuple[Tensor, Tensor]:
    """(T,) how far open the mouth is in each frame that is ``looked`` at (T,) bool; (T,) bool,
    which frames begin a scene."""
    across, down = clip.scale
    stretch = torch.tensor([across, down])
    maps = crop_to_frame(
        whole.boxes / stretch.repeat(2), whole.points / stretch, Framing(), _LOOKED_AT
    )
    values, cuts = torch.zeros(len(whole.visible)), torch.zeros_like(whole.visible)
    state: CutState | None = None
    with closing(ahead(clip.reduced(len(values)))) as pieces:
        for piece in pieces:
            stop = piece.start + len(piece.pixels)
            cuts[piece.start : stop], state = scene_cuts(piece.pixels, state)
            here = looked[piece.start : stop].nonzero()[:, 0]
            if len(here):
                at = piece.start + here
                values[at] = openness(crop_pictures(piece.pixels[here], maps[at], _LOOKED_AT))
            if on_found is not None:
                on_found(stop)
    return values, cuts


def _stretches(whole: FaceTrack, cuts: Tensor) -> list[tuple[int, int]]:
    """(first, stop) of every time that one person is there in one scene; whatever follows unseen
    belongs to it."""
    low, high = whole.boxes[:, :2], whole.boxes[:, 2:]
    far = _JUMP * (high - low).clamp_min(1).prod(1).sqrt()
    jumps = ((low + high).diff(dim=0) / 2).norm(dim=1) > far[1:]
    begins = whole.visible.clone()
    begins[1:] &= ~whole.visible[:-1] | cuts[1:] | jumps
    return list(pairwise([*begins.nonzero()[:, 0].tolist(), len(begins)]))


def _stands_for(chosen: Tensor, stretches: list[tuple[int, int]], length: int) -> Tensor:
    """(length,) the place in ``chosen`` of what each frame is drawn from: the nearest of its
    stretch, else of all."""
    frames = torch.arange(length)
    places = nearest(chosen, frames)
    for a, b in stretches:
        first, last = torch.searchsorted(chosen, torch.tensor([a, b])).tolist()
        if first < last:
            places[a:b] = first + nearest(chosen[first:last], frames[a:b])
    return places


def _gathered(clip: Clip, whole: FaceTrack, chosen: Tensor, index: Tensor) -> References:
    """Only patches are kept, never a whole frame."""
    boxes, points = whole.boxes[chosen].float(), whole.points[chosen].float()
    areas = _areas(boxes, points, clip.size)
    area_of = dict(zip(chosen.tolist(), areas, strict=True))
    patches = tuple(
        _patch(picture, area_of[frame]) for frame, picture in clip.pick_coded(chosen.tolist())
    )
    assert len(patches) == len(chosen)  # all were read before
    corners = boxes.new_tensor([area[:2] for area in areas])
    dense = None if whole.dense is None else whole.dense[chosen].float() - corners[:, None]
    return References(
        patches, boxes - corners.repeat(1, 2), points - corners[:, None], index, dense
    )


def _areas(boxes: Tensor, points: Tensor, size: tuple[int, int]) -> list[Box]:
    """For each face the px of a picture that a crop by its points or by its box may need, and what
    moves into it. Even, as chroma has it; so one may end a px beyond a picture of odd ``size``
    (width, height)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    grown = torch.cat([boxes[:, :2] - _MARGIN * sides, boxes[:, 2:] + _MARGIN * sides], 1)
    crop = (-_MARGIN, -_MARGIN, 1 + _MARGIN, 1 + _MARGIN)
    aligned = boxes.new_tensor(
        crop_bounds(crop_to_frame(boxes, points, Framing(), 1), crop, margin=4)
    )
    low, high = torch.minimum(grown, aligned)[:, :2], torch.maximum(grown, aligned)[:, 2:]
    halves = torch.cat([(low / 2).floor(), (high / 2).ceil()], 1).int().tolist()
    width, height = (-(-side // 2) for side in size)
    inside = [clip_box((a, b, c, d), width, height) for a, b, c, d in halves]
    return [(2 * x0, 2 * y0, 2 * x1, 2 * y1) for x0, y0, x1, y1 in inside]


def _patch(picture: Frames | YuvFrames, area: Box) -> Frames | YuvFrames:
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
