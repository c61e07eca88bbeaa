"""Faces that somebody else found, followed through footage in place of our own search."""

import sys
from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

from ..faces import Detector
from ..faces.external import points_in_boxes, tracks_from_boxes
from ..faces.shot_boundaries import scene_cuts
from ..faces.tracking import SMOOTHING_SECONDS
from ..media.clip import Footage, Found, Pictures
from ..types import FaceTrack


def given_people(
    footage: Footage | Pictures,
    boxes: Sequence[Tensor],
    detector: Detector | None,
    *,
    points: Sequence[Tensor] | None = None,
    dense: Sequence[Tensor] | None = None,
    smoothing: float = SMOOTHING_SECONDS,
    on_found: Found | None = None,
) -> tuple[list[FaceTrack], int]:
    """The people whose ``boxes`` (F,4) and ``points`` (F,5,2), px, of every frame are known, and the number of frames;
    those of one frame alone hold for all. Without points ``detector`` looks for them in the boxes (None: they are where
    they usually are). dense (F,K,2): landmarks that the tracks carry along. smoothing: in seconds.

    ValueError when they are of another number of frames, and what ``tracks_from_boxes`` says.
    """
    looked, cuts, state, count = list[Tensor](), list[Tensor](), None, 0
    known = repeat(boxes[0]) if len(boxes) == 1 else iter(boxes)
    stretch = torch.tensor(footage.scale)
    for piece in footage.reduced(sys.maxsize):
        begins, state = scene_cuts(piece.pixels, state)
        cuts.append(begins)
        if points is None and detector is not None:
            for picture, here in zip(piece.pixels, known, strict=False):  # too few boxes: refused below
                looked.append(points_in_boxes(picture, here / stretch.repeat(2), detector) * stretch)
        count = piece.start + len(piece.pixels)
        if on_found is not None:
            on_found(count)
    tracks = tracks_from_boxes(
        _for_all(boxes, count),
        fps=footage.fps,
        points=looked or None if points is None else _for_all(points, count),
        dense=None if dense is None else _for_all(dense, count),
        frames=count,
        cuts=torch.cat(cuts).nonzero()[:, 0].tolist(),
        smoothing_s=smoothing,
    )
    return tracks, count


def _for_all(values: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    """Those of one frame alone for each of ``count``."""
    return [values[0]] * count if len(values) == 1 else values
