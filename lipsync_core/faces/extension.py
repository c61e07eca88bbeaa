"""Continue the tracks of a search by those of a later search that overlaps it."""

from collections.abc import Sequence
from dataclasses import replace

from ..image.boxes import box_iou
from ..types import FaceTrack
from .selection import join_tracks
from .tracking import track_window

_SAME_FACE = 0.5  # intersection over union of a face in both searches, or before and after a gap


def extend_tracks(
    known: Sequence[FaceTrack], later: Sequence[FaceTrack], begin: int, join: int
) -> list[FaceTrack]:
    """Continue tracks where the same face is in the same place in another search.

    Args:
        known: Tracks of a search from the clip's first frame on.
        later: Tracks of a search from frame ``begin`` on, in frames of the clip.
        begin: First frame of the later search.
        join: The frame from which on its tracks are used, after ``begin``, so that both have
            settled there.

    Returns:
        Tracks as of one search: the known ones, continued, and those that appear later.
    """
    scene = max((track.scene for track in known), default=0)
    free, out = list(known), list[FaceTrack]()
    for track in later:
        if track.scene == begin:  # no cut was seen: the scene is the one before
            track = replace(track, scene=scene)
        same = [other for other in free if _is_same(other, track, begin)]
        if not same:
            out.append(track)
            continue
        best = max(same, key=lambda other: int(other.visible.sum()))
        free.remove(best)
        out.append(_continue(best, track, join))
    return sorted([*free, *out], key=lambda track: track.start)


def _is_same(known: FaceTrack, later: FaceTrack, begin: int) -> bool:
    """Whether two tracks are of one face: together in some frames, or one after the other."""
    if known.scene != later.scene:
        return False
    count = known.start + len(known.visible) - begin
    if count > 0:
        a, b = (track_window(track, begin, count) for track in (known, later))
        both = (a.visible & b.visible).nonzero()[:, 0]
        if len(both):
            overlaps = box_iou(a.boxes[both], b.boxes[both]).diagonal()
            return bool(overlaps.median() >= _SAME_FACE)
    last, first = int(known.visible.nonzero()[-1]), int(later.visible.nonzero()[0])
    if known.start + last >= later.start + first:
        return False
    near = box_iou(known.boxes[last : last + 1], later.boxes[first : first + 1])
    return bool(near >= _SAME_FACE)


def _continue(known: FaceTrack, later: FaceTrack, join: int) -> FaceTrack:
    """``known`` before frame ``join``, and ``later`` from there on."""
    end = later.start + len(later.visible)
    parts = [
        track_window(known, known.start, max(join - known.start, 0)),
        track_window(later, join, max(end - join, 0)),
    ]
    seen = [part for part in parts if bool(part.visible.any())]
    return replace(join_tracks(seen or [later]), scene=known.scene)
