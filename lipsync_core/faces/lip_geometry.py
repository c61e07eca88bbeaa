"""Numbers that dense landmarks say of a mouth: how far open, how wide, how far down the chin is. All in distances between
the outer corners of the eyes, so that size and roll of the face do not matter; a turned head still shortens them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.face_landmarks import MEDIAPIPE_VERTICES, POINTS

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LipLayout:
    """Which points of a layout say it: three ``gaps`` (upper, lower) between the inner lips, the outer ``corners`` of the
    mouth, the outer corners of the ``eyes``, and ``jaw``: base of the nose and chin."""

    gaps: tuple[Pair, Pair, Pair]
    corners: Pair
    eyes: Pair
    jaw: Pair


_MEDIAPIPE = LipLayout(((82, 87), (13, 14), (312, 317)), (61, 291), (33, 263), (2, 152))


def _ours() -> LipLayout:
    """The same vertices where our own 102 points hold them."""

    def at(pair: Pair) -> Pair:
        return MEDIAPIPE_VERTICES.index(pair[0]), MEDIAPIPE_VERTICES.index(pair[1])

    left, middle, right = _MEDIAPIPE.gaps
    gaps = at(left), at(middle), at(right)
    return LipLayout(gaps, at(_MEDIAPIPE.corners), at(_MEDIAPIPE.eyes), at(_MEDIAPIPE.jaw))


LIP_LAYOUTS: dict[int, LipLayout] = {
    # iBUG (Sagonas et al. 2013, "300 Faces in-the-Wild Challenge", figure 1)
    68: LipLayout(((61, 67), (62, 66), (63, 65)), (48, 54), (36, 45), (33, 8)),
    POINTS: _ours(),
    # InsightFace's 2d106det by the map to iBUG's 68 points that many projects carry (see ``blend.outlines``)
    106: LipLayout(((66, 54), (62, 60), (70, 57)), (52, 61), (35, 93), (80, 0)),
    468: _MEDIAPIPE,
    478: _MEDIAPIPE,
}
"""By the number of points."""


def mouth_opening(points: Tensor) -> Tensor:
    """How far the inner lips are apart: the mean of three places.

    Args:
        points: (N,K,2) landmarks in px of anything upright or not, K one of ``LIP_LAYOUTS``.

    Returns:
        (N,) 0 and more, in distances between the outer corners of the eyes.

    Raises:
        ValueError: for other shapes and numbers of points; names the known ones.
    """
    layout = _layout(points)
    gaps = torch.stack([_distance(points, pair) for pair in layout.gaps])
    return gaps.mean(0) / _eye_distance(points, layout)


def mouth_width(points: Tensor) -> Tensor:
    """How far the outer corners of the mouth are apart; arguments, unit and errors as of ``mouth_opening``."""
    layout = _layout(points)
    return _distance(points, layout.corners) / _eye_distance(points, layout)


def jaw_drop(points: Tensor) -> Tensor:
    """How far the chin is from the base of the nose; arguments, unit and errors as of ``mouth_opening``."""
    layout = _layout(points)
    return _distance(points, layout.jaw) / _eye_distance(points, layout)


def _layout(points: Tensor) -> LipLayout:
    layout = LIP_LAYOUTS.get(points.shape[1]) if points.ndim == 3 and points.shape[2] == 2 else None
    if layout is None:
        known = ", ".join(f"(N,{count},2)" for count in LIP_LAYOUTS)
        raise ValueError(f"points are {tuple(points.shape)}; wanted one of {known}")
    return layout


def _distance(points: Tensor, pair: Pair) -> Tensor:
    return (points[:, pair[0]] - points[:, pair[1]]).norm(dim=1)


def _eye_distance(points: Tensor, layout: LipLayout) -> Tensor:
    return _distance(points, layout.eyes).clamp_min(1e-6)
