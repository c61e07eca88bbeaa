"""Find faces that are rolled, upside down, or too large for a detector of upright faces."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..image.affine import apply, roll_of, rotation, scale_of
from ..image.boxes import box_iou, suppress
from ..image.crop import crop_pictures
from ..types import Detections
from . import Detector

TRIED = "upright, turned by 45 to 180 degrees, and at half the size"
"""How pictures are searched, for messages."""
_SIDE = 448  # px of the copies: in a picture of 640x360, turned faces of 38 px are found
_LOOK, _LOOK_SIDE = 2.0, 256  # the closer look: a crop in which the face is about 128 px
_ROLLED = math.radians(25)  # detectors place the points of faces badly that are rolled more
_STEP = math.radians(45)
_OVERLAP = 0.2  # intersection over union of two findings of one face
# Something upright that is less sure, at the start of a scene, may be a part of a turned face.
_UNDOUBTED = 0.9
_MARGIN = 0.02  # by which a turned face must be surer than an upright one at its place
# Runs without a face from one search of all copies to the next: 2, 8, 26, and then always so many.
# A search costs ten times as much as a run.
_LONGEST_WAIT = 32


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy in which faces rolled by ``steps`` of 45 degrees are upright, ``shrunk`` as often."""

    steps: int = 0
    shrunk: float = 1.0

    def map(self, width: int, height: int) -> Tensor:
        """(1,2,3) from px of the copy to those of the picture, whose middles are one place."""
        turn = torch.tensor([self.steps * _STEP])
        cos, sin = float(turn.cos().abs()), float(turn.sin().abs())
        span = max(width * cos + height * sin, width * sin + height * cos)
        linear = rotation(turn) * (span * self.shrunk / _SIDE)
        middle = torch.tensor([[width / 2, height / 2]])
        shift = middle - (linear @ torch.full((2, 1), _SIDE / 2))[..., 0]
        return torch.cat([linear, shift[..., None]], -1)


_UPRIGHT = _Copy()
_COPIES = (*(_Copy(steps) for steps in (2, -2, 4, 1, -1, 3, -3)), _Copy(shrunk=2.0))


class TurnedFaces:
    """Finds the faces of a clip whatever their roll, at little cost where they are upright.

    A picture in which the detector finds no face is searched in turned and smaller copies; while
    that is in vain, ever more rarely. What is found there, or is far from upright, is looked at
    again in an upright crop, which places it exactly and drops false alarms.

    Args:
        detector: Finds upright faces.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._copy = _UPRIGHT  # in which a face was found last
        self._wait = self._waited = 0

    def detect(
        self, pictures: Sequence[Tensor], *, starts: Sequence[bool], search: bool = True
    ) -> list[Detections]:
        """Find the faces of pictures.

        Args:
            pictures: N pictures (H,W,3) of one size, uint8 in [0,255] or float in [0,1].
            starts: Whether each begins a scene.
            search: Whether copies other than the last that showed a face may be searched.

        Returns:
            The faces of each, best first, on the CPU. The box of a rolled face has its middle, and
            is as wide and high as the face is across and down the picture.
        """
        upright = self._detector.detect(torch.stack(list(pictures)))
        return [
            self._complete(picture, _on_cpu(found), start, search)
            for picture, found, start in zip(pictures, upright, starts, strict=True)
        ]

    def _complete(
        self, picture: Tensor, upright: Detections, start: bool, search: bool
    ) -> Detections:
        if start:
            self._waited = self._wait
        if not len(upright.scores):
            return self._find_turned(picture, search)
        found = self._straighten(picture, upright)
        self._copy = _Copy(_steps(found))
        if start and search and float(found.scores.max()) < _UNDOUBTED:
            found = _replace_doubtful(found, self._search(picture, _COPIES))
        return found

    def _straighten(self, picture: Tensor, found: Detections) -> Detections:
        """``found`` with a closer look at those faces that are far from upright."""
        rolled = roll_of(found.points).abs() > _ROLLED
        if not bool(rolled.any()):
            return found
        closer = self._look(picture, _pick(found, rolled.nonzero()[:, 0]))
        overlap = box_iou(found.boxes, closer.boxes).amax(1) if len(closer.scores) else rolled * 0.0
        kept = (~(rolled & (overlap > _OVERLAP))).nonzero()[:, 0]
        return _best_first([_pick(found, kept), closer])

    def _find_turned(self, picture: Tensor, search: bool) -> Detections:
        """Find the faces of a picture in which none is upright."""
        if self._copy != _UPRIGHT:
            found = self._search(picture, [self._copy])
            if len(found.scores):
                return found
        self._waited += 1
        if not search or self._waited <= self._wait:
            return _best_first([])
        found = self._search(picture, _COPIES)
        self._wait = 0 if len(found.scores) else min(3 * self._wait + 2, _LONGEST_WAIT)
        self._waited = 0
        return found

    def _search(self, picture: Tensor, copies: Sequence[_Copy]) -> Detections:
        """Find faces in ``copies`` of a picture; in px of the picture."""
        height, width = picture.shape[:2]
        maps = torch.cat([copy.map(width, height) for copy in copies])
        crops = crop_pictures(
            picture.expand(len(copies), -1, -1, -1), maps.to(picture.device), _SIDE
        )
        each = self._detector.detect(crops.permute(0, 2, 3, 1))
        mapped = [
            _map_back(_on_cpu(found), own[None]) for found, own in zip(each, maps, strict=True)
        ]
        found = self._look(picture, _best_first(mapped))
        if len(found.scores):
            there = [len(one.scores) > 0 for one in mapped]
            shrunk = min(copy.shrunk for copy, seen in zip(copies, there, strict=True) if seen)
            self._copy = _Copy(_steps(found), shrunk)
        return found

    def _look(self, picture: Tensor, candidates: Detections) -> Detections:
        """Look at ``candidates`` in upright crops; those that are no face there are left out."""
        if not len(candidates.scores):
            return candidates
        boxes = candidates.boxes
        sides = (boxes[:, 2:] - boxes[:, :2]).amax(1) * _LOOK
        linear = rotation(roll_of(candidates.points)) * (sides / _LOOK_SIDE)[:, None, None]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        shift = middle - linear.sum(2) * (_LOOK_SIDE / 2)
        maps = torch.cat([linear, shift[..., None]], -1)
        crops = crop_pictures(
            picture.expand(len(boxes), -1, -1, -1), maps.to(picture.device), _LOOK_SIDE
        )
        each = self._detector.detect(crops.permute(0, 2, 3, 1))
        return _best_first(
            [
                _map_back(_in_the_middle(_on_cpu(found)), own[None])
                for found, own in zip(each, maps, strict=True)
            ]
        )


def _steps(found: Detections) -> int:
    """The roll of the best face in steps of 45 degrees."""
    return round(float(roll_of(found.points[:1])) / _STEP)


def _in_the_middle(found: Detections) -> Detections:
    """The surest upright face about the middle of a closer look, if there is one."""
    off = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2 - _LOOK_SIDE / 2).abs().amax(1)
    size = (found.boxes[:, 2:] - found.boxes[:, :2]).amax(1) * (_LOOK / _LOOK_SIDE)
    fits = (off < _LOOK_SIDE / 6) & (size > 0.5) & (size < 2.0)
    fits &= roll_of(found.points).abs() < 1.5 * _ROLLED
    return _pick(found, fits.nonzero()[:1, 0])


def _map_back(found: Detections, copy_to_picture: Tensor) -> Detections:
    """``found`` in px of the picture; (1,2,3) maps the px in which it is there."""
    points = apply(copy_to_picture, found.points.flatten(0, 1)[None])[0].unflatten(0, (-1, 5))
    middle = apply(copy_to_picture, (found.boxes[:, :2] + found.boxes[:, 2:])[None] / 2)[0]
    share = copy_to_picture[0, 0, 0].square() / scale_of(copy_to_picture)[0].square()
    own = (found.boxes[:, 2:] - found.boxes[:, :2]) * scale_of(copy_to_picture)
    sides = own * share + own.flip(1) * (1 - share)
    boxes = torch.cat([middle - sides / 2, middle + sides / 2], 1)
    return Detections(boxes, points, found.scores)


def _replace_doubtful(upright: Detections, turned: Detections) -> Detections:
    """``upright`` faces and surer ``turned`` ones, which replace those at their places."""
    surer = turned.scores[None] > upright.scores[:, None] + _MARGIN
    same = box_iou(upright.boxes, turned.boxes) > _OVERLAP
    added = surer.all(0) | (same & surer).any(0)
    return _best_first(
        [
            _pick(upright, (~(same & surer).any(1)).nonzero()[:, 0]),
            _pick(turned, added.nonzero()[:, 0]),
        ]
    )


def _best_first(parts: Sequence[Detections]) -> Detections:
    """Join findings, best first, and leave out those of a face that has a better one."""
    empty = torch.zeros(0)
    boxes = torch.cat([torch.zeros(0, 4), *(part.boxes for part in parts)])
    points = torch.cat([torch.zeros(0, 5, 2), *(part.points for part in parts)])
    scores = torch.cat([empty, *(part.scores for part in parts)])
    order = scores.argsort(descending=True, stable=True)
    joined = Detections(boxes[order], points[order], scores[order])
    return _pick(joined, suppress(joined.boxes, _OVERLAP))


def _pick(found: Detections, index: Tensor) -> Detections:
    dense = None if found.dense is None else found.dense[index]
    return Detections(found.boxes[index], found.points[index], found.scores[index], dense)


def _on_cpu(found: Detections) -> Detections:
    dense = None if found.dense is None else found.dense.cpu()
    return Detections(
        found.boxes.cpu().float(), found.points.cpu().float(), found.scores.cpu().float(), dense
    )
