"""Masks that follow a face's own outline, from dense landmarks."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image import landmarks as ours
from .masks import soft_edge

OutlineKind = Literal["mouth", "lower", "face"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Indices of landmarks, each row from the picture's left to its right.

    Attributes:
        jaw: From ear to ear by the chin.
        brows: Upper edge of both brows.
        nose: Along its base.
    """

    jaw: tuple[int, ...]
    brows: tuple[int, ...]
    nose: tuple[int, ...]


# The row of iBUG's 68 points (Sagonas et al. 2013, "300 Faces in-the-Wild Challenge", figure 1).
_IBUG = Layout(tuple(range(17)), tuple(range(17, 27)), tuple(range(31, 36)))
# InsightFace's 2d106det (alignment/coordinate_reg of deepinsight/insightface, 2d106markup.jpg), as
# the same rows: the map to 68 points that many projects carry (for one DMDNet's plugin in
# roop-unleashed, landmarks106_to_68).
_INSIGHTFACE = Layout(
    (1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17),
    (43, 48, 49, 51, 50, 102, 103, 104, 105, 101),
    (78, 79, 80, 85, 84),
)
# Vertices of MediaPipe's face mesh (google-ai-edge/mediapipe, face_mesh_connections.py:
# FACEMESH_FACE_OVAL from ear to ear, the upper rows of the brows, the row of FACEMESH_NOSE under
# the nostrils).
_MEDIAPIPE = Layout(
    (
        *(234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152),
        *(377, 400, 378, 379, 365, 397, 288, 361, 323, 454),
    ),
    (70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    (98, 97, 2, 326, 327),
)
# Our own points are some of those vertices, the same for the jaw, the brows and the base of the
# nose.
_OURS = Layout(
    *(
        tuple(ours.MEDIAPIPE_VERTICES.index(vertex) for vertex in row)
        for row in (_MEDIAPIPE.jaw, _MEDIAPIPE.brows, _MEDIAPIPE.nose)
    )
)
LAYOUTS = {68: _IBUG, ours.POINTS: _OURS, 106: _INSIGHTFACE, 468: _MEDIAPIPE, 478: _MEDIAPIPE}
"""By the number of points; the last ten of 478 are irises."""

# How many points of the jaw at either end are left out. The first lies at the height of the eyes,
# the second and third beside the nose, the fourth beside the mouth, in all layouts.
_SKIPPED = {"mouth": 3, "lower": 1, "face": 0}

# px between the places where a distance is computed: 0.7 ms for a face of 256 px on one core,
# against 9 ms for every pixel.
_CELL = 4


def outline_mask(
    kind: OutlineKind,
    points: Tensor,
    size: int,
    *,
    feather: float | Tensor = 0.08,
    inset: float | Tensor = 0.0,
) -> Tensor:
    """Draw masks by the dense landmarks of faces; differentiable.

    The crop's border is 0 except for hard edges.

    Args:
        kind: ``mouth``: from the base of the nose to the chin, between the jaws. ``lower``: the
            same with the cheeks. ``face``: all within jaw and brows.
        points: (N,K,2) crop px, K of ``LAYOUTS``.
        size: Side of the crops in px.
        feather: Width of the soft edge, which lies inside, as a fraction of the crop's side, one or
            (N,); 0 for a hard edge.
        inset: How far the edge is moved inwards, likewise; below 0 outwards.

    Returns:
        (N,1,S,S) in [0,1].

    Raises:
        ValueError: For another kind or number of points.
    """
    inside = outline_distance(kind, points, size)
    if not isinstance(feather, Tensor) and feather <= 0:
        least = inset[:, None, None] if isinstance(inset, Tensor) else inset
        return (inside > least * size)[:, None].to(points.dtype)
    return soft_edge(inside, feather, inset)[:, None]


def outline_distance(kind: OutlineKind, points: Tensor, size: int) -> Tensor:
    """Measure distances to the outline of a part of faces.

    Args:
        kind: See ``outline_mask``.
        points: (N,K,2) crop px, K of ``LAYOUTS``.
        size: Side of the crops in px.

    Returns:
        (N,S,S) px from each pixel's center, above 0 inside; off by 2 px at most, between two edges
        that are equally near.

    Raises:
        ValueError: For another kind or number of points.
    """
    layout = LAYOUTS.get(points.shape[1])
    if layout is None or points.ndim != 3 or points.shape[2] != 2:
        known = ", ".join(f"(N,{count},2)" for count in LAYOUTS)
        raise ValueError(f"points are {tuple(points.shape)}; expected one of {known}")
    if kind not in _SKIPPED:
        raise ValueError(f"outline is {kind!r}; expected mouth, lower or face")
    skipped = _SKIPPED[kind]
    above = layout.brows if kind == "face" else layout.nose
    ring = (*layout.jaw[skipped : len(layout.jaw) - skipped], *above[::-1])
    corners = points[:, torch.tensor(ring, device=points.device)]
    cells = -(-size // _CELL)
    coarse = polygon_distance(corners * (cells / size), cells) * (size / cells)
    return F.interpolate(coarse[:, None], (size, size), mode="bilinear")[:, 0]


def polygon_distance(corners: Tensor, size: int) -> Tensor:
    """Measure distances to polygons; differentiable except where two edges are equally near.

    Args:
        corners: (N,C,2) px, either way round.
        size: Side of the square in px.

    Returns:
        (N,S,S) px from each pixel's center, above 0 inside (an odd number of edges to the right).
    """
    axis = torch.arange(size, device=corners.device, dtype=corners.dtype) + 0.5
    nearest = corners.new_full((len(corners), size, size), torch.inf)
    inside = torch.zeros(nearest.shape, dtype=torch.bool, device=corners.device)
    for start, edge in zip(
        corners.unbind(1), (corners.roll(-1, 1) - corners).unbind(1), strict=True
    ):
        x, y = axis - start[:, :1], axis - start[:, 1:]  # (N,S) from the edge's start
        along = edge / edge.square().sum(1, keepdim=True).clamp_min(1e-12)
        share = ((x * along[:, :1])[:, None] + (y * along[:, 1:])[:, :, None]).clamp(0, 1)
        off_x, off_y = (
            x[:, None] - share * edge[:, :1, None],
            y[:, :, None] - share * edge[:, 1:, None],
        )
        nearest = torch.minimum(nearest, off_x.square() + off_y.square())
        with torch.no_grad():
            crosses = (y < 0) != (y < edge[:, 1:])  # (N,S) rows that the edge spans
            at = torch.where(crosses, y * edge[:, :1] / edge[:, 1:], -torch.inf)
            inside ^= x[:, None] < at[:, :, None]
    distance = nearest.clamp_min(1e-12).sqrt()
    return torch.where(inside, distance, -distance)
