"""Choose the frames of a stream on which a detector runs, and run it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..types import Detections, Frames
from . import Detector
from .shot_boundaries import CutState, find_blank, find_cuts
from .turned_faces import TurnedFaces

# How far and how much larger than before a face may be to be the same one: a share of its size,
# the square root of the box's area, and a factor. Generous: a face taken for another costs a
# few runs.
_SAME_PLACE, _SAME_SIZE = 1.0, 2.0


@dataclass(slots=True)
class _Seen:
    """A frame since the last run, that one included."""

    index: int
    scene: int
    picture: Tensor
    due: bool
    found: Detections | None = None


class DetectorRuns:
    """Runs of a detector over the frames of a clip.

    It runs on every ``every``-th frame of a scene, on its first and last one, and where the picture
    becomes blank or is no longer; where a face comes or goes between two of these, on all frames
    between, so that tracks end at the right frame. Faces are found whatever their roll
    (``TurnedFaces``).

    Args:
        detector: Finds the faces of single frames.
        every: Frames from one run to the next, at least 1.

    Attributes:
        cuts: Frames that begin a new scene, rising.
        found: (frame index, faces) of every frame that was looked at, rising.
    """

    def __init__(self, detector: Detector, every: int) -> None:
        self.cuts: list[int] = []
        self.found: list[tuple[int, Detections]] = []
        self._detector = TurnedFaces(detector)
        self._every = every
        self._cut_state: CutState | None = None
        self._blank = False
        self._waiting: list[_Seen] = []

    def run(self, frames: Iterable[Frames]) -> None:
        """Search all ``frames`` of a clip, in order.

        Memory: a chunk, and the frames since the last run.
        """
        for chunk in frames:
            self._add(chunk)
            self._look(last=False)
            # else they would keep the whole chunk
            self._waiting = [_kept(seen) for seen in self._waiting]
        self._look(last=True)

    def _add(self, chunk: Frames) -> None:
        begins, self._cut_state = find_cuts(chunk.pixels, self._cut_state)
        blank = find_blank(chunk.pixels).tolist()
        for index, picture in enumerate(chunk.pixels, chunk.start):
            scene = self._waiting[-1].scene if self._waiting else index
            if begins[index - chunk.start]:
                scene = index
                self.cuts.append(index)
                self._waiting[-1].due = True  # the last frame of the scene before
            changed, self._blank = (
                blank[index - chunk.start] != self._blank,
                blank[index - chunk.start],
            )
            due = changed or (index - scene) % self._every == 0
            self._waiting.append(_Seen(index, scene, picture, due))

    def _look(self, *, last: bool) -> None:
        """Detect faces in the frames that are due, and where faces come or go between them."""
        waiting = self._waiting
        if last and waiting:
            waiting[-1].due = True
        self._detect([seen for seen in waiting if seen.due], search=True)
        runs = [place for place, seen in enumerate(waiting) if seen.due]
        between: list[_Seen] = []
        for first, second in pairwise(runs):
            a, b = waiting[first], waiting[second]
            if a.scene == b.scene and not _same_faces(a.found, b.found):
                between += waiting[first + 1 : second]
        self._detect(between, search=False)
        done = runs[-1] if runs else 0
        known = self.found[-1][0] if self.found else -1
        self.found += [
            (seen.index, seen.found)
            for seen in waiting[: done + 1]
            if seen.found is not None and seen.index > known
        ]
        self._waiting = waiting[done:]

    def _detect(self, frames: list[_Seen], *, search: bool) -> None:
        frames = [seen for seen in frames if seen.found is None]
        if frames:
            found = self._detector.detect(
                [seen.picture for seen in frames],
                starts=[seen.index == seen.scene for seen in frames],
                search=search,
            )
            for seen, faces in zip(frames, found, strict=True):
                seen.found = faces


def _kept(seen: _Seen) -> _Seen:
    """``seen`` with a picture of its own, or none where it is not needed any more."""
    seen.picture = torch.empty(0) if seen.found is not None else seen.picture.clone()
    return seen


def _same_faces(first: Detections | None, second: Detections | None) -> bool:
    """Whether each face of one frame is about where one of the other is, and the reverse."""
    if first is None or second is None or len(first.scores) != len(second.scores):
        return False
    (middle_a, size_a), (middle_b, size_b) = _places(first.boxes), _places(second.boxes)
    sizes = (size_a[:, None] * size_b).sqrt()
    near = torch.cdist(middle_a, middle_b) < _SAME_PLACE * sizes
    ratio = size_a[:, None] / size_b
    same = near & (ratio < _SAME_SIZE) & (ratio > 1 / _SAME_SIZE)
    return bool(same.any(0).all() and same.any(1).all())


def _places(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Middles (F,2) and sizes (F,) of boxes (F,4)."""
    boxes = boxes.float().cpu()
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, sides.prod(1).sqrt()
