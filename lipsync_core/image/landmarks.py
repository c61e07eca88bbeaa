"""Layouts of dense facial landmarks, and the shape of a mouth: opening, width and jaw drop.

Lengths are in distances between the outer corners of the eyes, so that size and roll of the face do
not matter; a turned head still shortens them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# The 102 points, vertices of MediaPipe's face mesh (canonical_face_model,
# google-ai-edge/mediapipe). Left and right are the picture's. Lips run from the left corner along
# the lower lip to the right one and back along the upper lip; the jaw runs from ear to ear by the
# chin; eyes from their left corner along the upper lid and back.
OUTER_LIPS, INNER_LIPS, JAW = slice(0, 20), slice(20, 40), slice(40, 61)
LEFT_EYE, RIGHT_EYE = slice(61, 69), slice(69, 77)
LEFT_BROW, RIGHT_BROW = slice(77, 82), slice(82, 87)
NOSE_BRIDGE, NOSE_BASE, NOSE_WINGS, IRISES = (
    slice(87, 93),
    slice(93, 98),
    slice(98, 100),
    slice(100, 102),
)
POINTS = 102

MEDIAPIPE_VERTICES: tuple[int, ...] = (
    # outer lips
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185),
    # inner lips
    *(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
    *(234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152),  # jaw, left to chin
    *(377, 400, 378, 379, 365, 397, 288, 361, 323, 454),  # jaw, chin to right
    *(33, 160, 159, 158, 133, 153, 145, 144),  # left eye
    *(362, 385, 386, 387, 263, 373, 374, 380),  # right eye
    *(70, 63, 105, 66, 107),  # left brow
    *(336, 296, 334, 293, 300),  # right brow
    *(168, 6, 197, 195, 5, 4),  # bridge of the nose, downwards
    *(98, 97, 2, 326, 327),  # base of the nose
    *(129, 358),  # wings of the nose
    *(468, 473),  # irises
)


def _mirror_points() -> tuple[int, ...]:
    """Return the point of a face that takes the place of each in its mirror image."""
    order = list(range(POINTS))

    def lips(first: int) -> list[int]:  # corners change places; each lip runs the other way
        return [first + (10 - k) % 20 for k in range(20)]

    order[OUTER_LIPS], order[INNER_LIPS] = lips(0), lips(20)
    order[JAW] = list(range(60, 39, -1))
    eye = (4, 3, 2, 1, 0, 7, 6, 5)  # corners change places; each lid runs the other way
    order[LEFT_EYE], order[RIGHT_EYE] = [69 + k for k in eye], [61 + k for k in eye]
    order[LEFT_BROW], order[RIGHT_BROW] = list(range(86, 81, -1)), list(range(81, 76, -1))
    order[NOSE_BASE] = list(range(97, 92, -1))
    order[NOSE_WINGS], order[IRISES] = [99, 98], [101, 100]
    return tuple(order)


MIRRORED = _mirror_points()


Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LipLayout:
    """Indices of the landmarks that the shape of a mouth is measured by.

    Attributes:
        gaps: Three pairs (upper, lower) of the inner lips.
        corners: Outer corners of the mouth.
        eyes: Outer corners of the eyes.
        jaw: Base of the nose, and chin.
    """

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
    # InsightFace's 2d106det by the map to iBUG's 68 points that many projects carry (see
    # ``blend.landmark_masks``)
    106: LipLayout(((66, 54), (62, 60), (70, 57)), (52, 61), (35, 93), (80, 0)),
    468: _MEDIAPIPE,
    478: _MEDIAPIPE,
}
"""By the number of points."""


def mouth_opening(points: Tensor) -> Tensor:
    """Measure how far the inner lips are apart, as the mean of three places.

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
    """Measure how far the outer corners of the mouth are apart; see ``mouth_opening``."""
    layout = _layout(points)
    return _distance(points, layout.corners) / _eye_distance(points, layout)


def mouth_aspect(points: Tensor) -> Tensor:
    """Measure the mouth aspect ratio (MAR): the gap of the inner lips over the mouth's width.

    Args:
        points: See ``mouth_opening``.

    Returns:
        (N,) 0 and more. Here, unlike openings in distances between the eyes, how far the head is
        away or turned up matters for both parts alike.
    """
    layout = _layout(points)
    gaps = torch.stack([_distance(points, pair) for pair in layout.gaps])
    return gaps.mean(0) / _distance(points, layout.corners).clamp_min(1e-6)


def jaw_drop(points: Tensor) -> Tensor:
    """Measure how far the chin is from the base of the nose; see ``mouth_opening``."""
    layout = _layout(points)
    return _distance(points, layout.jaw) / _eye_distance(points, layout)


def lip_shapes(points: Tensor) -> Tensor:
    """Measure opening, width and jaw (N,3) of mouths; see ``mouth_opening``."""
    return torch.stack([mouth_opening(points), mouth_width(points), jaw_drop(points)], 1)


def _layout(points: Tensor) -> LipLayout:
    layout = LIP_LAYOUTS.get(points.shape[1]) if points.ndim == 3 and points.shape[2] == 2 else None
    if layout is None:
        known = ", ".join(f"(N,{count},2)" for count in LIP_LAYOUTS)
        raise ValueError(f"points are {tuple(points.shape)}; expected one of {known}")
    return layout


def _distance(points: Tensor, pair: Pair) -> Tensor:
    return (points[:, pair[0]] - points[:, pair[1]]).norm(dim=1)


def _eye_distance(points: Tensor, layout: LipLayout) -> Tensor:
    return _distance(points, layout.eyes).clamp_min(1e-6)


# iBUG's 68 points: their indices in InsightFace's 2d106det, by the map that many projects carry
# (see ``blend.landmark_masks``), and the lines along which ours lie.
_IBUG_IN_106 = (
    *(1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17),
    *(43, 48, 49, 51, 50, 102, 103, 104, 105, 101),
    *(72, 73, 74, 86, 78, 79, 80, 85, 84),
    *(35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90),
    *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55),
    *(65, 66, 62, 70, 69, 57, 60, 54),
)
# Points of a line of iBUG's points, how many of ours lie on it at equal parts, and how many of
# these at its end the next line begins with.
_Line = tuple[Sequence[int], int, int]
_IBUG_LINES: tuple[_Line, ...] = (
    ((48, 59, 58, 57, 56, 55, 54), 11, 1),  # outer lips
    ((54, 53, 52, 51, 50, 49, 48), 11, 1),
    ((60, 67, 66, 65, 64), 11, 1),  # inner lips
    ((64, 63, 62, 61, 60), 11, 1),
    (range(17), 21, 0),  # jaw
    ((36, 37, 38, 39), 5, 1),  # eyes
    ((39, 40, 41, 36), 5, 1),
    ((42, 43, 44, 45), 5, 1),
    ((45, 46, 47, 42), 5, 1),
    (range(17, 22), 5, 0),  # brows
    (range(22, 27), 5, 0),
    (range(27, 31), 6, 0),  # nose
    (range(31, 36), 5, 0),
    ((31, 35), 2, 0),
)
_LEAST_WIDTH, _MOST_WIDTH = 0.2, 1.5  # of a mouth, in distances of the outer eye corners


def to_own_points(points: Tensor) -> Tensor | None:
    """Convert landmarks of another layout to the 102 points.

    Args:
        points: (N,K,2) of one of ``LIP_LAYOUTS``: ours, iBUG's 68 (dlib), InsightFace's 106, or
            MediaPipe's 468 or 478.

    Returns:
        (N,102,2): the same vertices of a mesh, and places on the lines between points of the
        others. None for other layouts, and if the mouths are not mouths: less than 0.2 or more than
        1.5 distances of the outer eye corners wide in most frames.
    """
    count = points.shape[1]
    if count not in LIP_LAYOUTS or not len(points):
        return None
    points = points.float()
    width = mouth_width(points).nan_to_num(0).median()
    if not _LEAST_WIDTH < float(width) < _MOST_WIDTH:
        return None
    if count == POINTS:
        return points
    if count in (468, 478):
        kept = [vertex for vertex in MEDIAPIPE_VERTICES if vertex < count]
        own = points[:, kept]
    else:
        own = _ibug_weights().to(points) @ (points[:, _IBUG_IN_106] if count == 106 else points)
    if own.shape[1] < POINTS:  # without irises: the middles of the eyes
        eyes = [own[:, eye].mean(1, keepdim=True) for eye in (LEFT_EYE, RIGHT_EYE)]
        own = torch.cat([own, *eyes], 1)
    return own


@lru_cache(maxsize=1)
def _ibug_weights() -> Tensor:
    """Return (100,68) weights of iBUG's points in ours without the irises."""
    rows: list[Tensor] = []
    for line, count, shared in _IBUG_LINES:
        for place in torch.linspace(0, len(line) - 1, count)[: count - shared].tolist():
            first = min(int(place), len(line) - 2)
            row = torch.zeros(68)
            row[line[first]] += 1 - (place - first)
            row[line[first + 1]] += place - first
            rows.append(row)
    return torch.stack(rows)
