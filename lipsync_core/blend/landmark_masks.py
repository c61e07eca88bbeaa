"""Masks that follow a face's own outline, from dense landmarks: as ``masks``, where only five
points are known."""

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
    """Which of a face's points lie where, each row from the picture's left to its right: ``jaw``
    from ear to ear by the chin, the upper edge of both ``brows``, and ``nose`` along its base."""

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

# px between the places where a distance is computed: 0.7 ms a face of 256 px on one core, 9 for
# every pixel.
_CELL = 4


def outline_mask(
    kind: OutlineKind,
    points: Tensor,
    size: int,
    *,
    feather: float | Tensor = 0.08,
    inset: float | Tensor = 0.0,
) -> Tensor:
    """(N,1,S,S) masks in [0,1] for crops whose dense points lie at ``points`` (N,K,2) crop pixels,
    K as in ``LAYOUTS``.

    ``mouth``: from the base of the nose to the chin, between the jaws; ``lower``: the same with the
    cheeks; ``face``: all within jaw and brows. ``feather`` is the width of the soft edge, which
    lies inside, as a part of the crop's side; 0 gives a hard one. ``inset`` moves the edge inwards
    by that part of the side, below 0 outwards. Either is one or (N,) of them. The crop's border is
    0 but for hard edges. Differentiable. Raises ValueError for other kinds and numbers of points.
    """
    inside = outline_distance(kind, points, size)
    if not isinstance(feather, Tensor) and feather <= 0:
        least = inset[:, None, None] if isinstance(inset, Tensor) else inset
        return (inside > least * size)[:, None].to(points.dtype)
    return soft_edge(inside, feather, inset)[:, None]


def outline_distance(kind: OutlineKind, points: Tensor, size: int) -> Tensor:
    """(N,S,S) px from the middle of each pixel to the outline of ``kind``, > 0 inside; see
    ``outline_mask``. Off by 2 px at most, where two edges are equally near."""
    layout = LAYOUTS.get(points.shape[1])
    if layout is None or points.ndim != 3 or points.shape[2] != 2:
        known = ", ".join(f"(N,{count},2)" for count in LAYOUTS)
        raise ValueError(f"points are {tuple(points.shape)}; wanted one of {known}")
    if kind not in _SKIPPED:
        raise ValueError(f"an outline knows mouth, lower and face; got {kind!r}")
    skipped = _SKIPPED[kind]
    above = layout.brows if kind == "face" else layout.nose
    ring = (*layout.jaw[skipped : len(layout.jaw) - skipped], *above[::-1])
    corners = points[:, torch.tensor(ring, device=points.device)]
    cells = -(-size // _CELL)
    coarse = polygon_distance(corners * (cells / size), cells) * (size / cells)
    return F.interpolate(coarse[:, None], (size, size), mode="bilinear")[:, 0]


def polygon_distance(corners: Tensor, size: int) -> Tensor:
    """(N,S,S) px from the middle of each pixel to the polygon of ``corners`` (N,C,2), either way
    round; > 0 inside (an odd number of edges to the right). Differentiable but where two edges are
    equally near."""
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
