"""Decide in which frames of a gap in a track the face is there, though no detector found it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..image.affine import Framing, crop_to_frame
from ..image.crop import crop_pictures
from ..types import FaceTrack

Pictures = Callable[[Sequence[int]], Iterable[tuple[int, Tensor]]]
"""Gives single frames of a clip by rising number: the number and the picture (H,W,3)."""

_SIDE, _CELLS = 64, 16  # px of the crop, and cells that it is averaged to
LEAST_LIKENESS = 0.5
"""Least correlation of a crop with that of a sighting at either end of the gap."""


def confirm_gaps(
    tracks: Sequence[FaceTrack], guessed: Sequence[Tensor], pictures: Pictures
) -> list[FaceTrack]:
    """Make tracks invisible in guessed frames that do not look like the face.

    Args:
        tracks: Tracks in px of the clip.
        guessed: For each track (N,) bool, the visible frames in which a detector found no face;
            each gap lies between two sightings.
        pictures: Gives single frames of the clip; those that it does not give are not confirmed.

    Returns:
        The tracks; in guessed frames they are visible only where the picture at the place of the
        face correlates with the face before or after the gap.
    """
    needed = [(_grown(gap) & track.visible) for track, gap in zip(tracks, guessed, strict=True)]
    looks: list[dict[int, Tensor]] = [{} for _ in tracks]
    frames = {
        track.start + i
        for track, need in zip(tracks, needed, strict=True)
        for i in need.nonzero()[:, 0].tolist()
    }
    for frame, picture in pictures(sorted(frames)) if frames else ():
        for track, need, look in zip(tracks, needed, looks, strict=True):
            i = frame - track.start
            if 0 <= i < len(need) and need[i]:
                look[i] = _describe(picture, track.boxes[i], track.points[i])
    return [
        _confirmed(track, gap, look)
        for track, gap, look in zip(tracks, guessed, looks, strict=True)
    ]


def _grown(gap: Tensor) -> Tensor:
    """(N,) bool: ``gap`` and the frames beside it."""
    return F.max_pool1d(gap.float()[None], 3, 1, padding=1)[0] > 0 if len(gap) else gap


def _describe(picture: Tensor, box: Tensor, points: Tensor) -> Tensor:
    """Describe the face in a picture (H,W,3) by a vector of length 1, whatever the light is."""
    placed = crop_to_frame(box[None].float(), points[None].float(), Framing(), _SIDE)
    crop = crop_pictures(picture[None], placed.to(picture.device), _SIDE)[0].float().cpu()
    cells = F.adaptive_avg_pool2d(crop.mean(0)[None], _CELLS).flatten()
    return F.normalize(cells - cells.mean(), dim=0)


def _confirmed(track: FaceTrack, gap: Tensor, looks: dict[int, Tensor]) -> FaceTrack:
    visible = track.visible.clone()
    seen = (track.visible & ~gap).nonzero()[:, 0]
    for i in gap.nonzero()[:, 0].tolist():
        after = int(torch.searchsorted(seen, i))
        ends = [int(end) for end in seen[max(after - 1, 0) : after + 1]]
        alike = [float(looks[i] @ looks[end]) for end in ends if i in looks and end in looks]
        visible[i] = max(alike, default=0.0) >= LEAST_LIKENESS
    return replace(track, visible=visible)
