"""Masks from the labels of a face parser: where the face is, and what is in front of it.

Both multiply the mask of ``masks`` or ``landmark_masks``: ``mask * parser_mask(...) * (1 -
find_occluders(...))``.
"""

import torch.nn.functional as F
from torch import Tensor

from ..image.crop import pixel_grid
from ..options import MaskKind
from .landmark_masks import outline_distance
from .masks import soft_edge

LABELS = (
    *(
        "background",
        "skin",
        "right_brow",
        "left_brow",
        "right_eye",
        "left_eye",
        "glasses",
        "right_ear",
        "left_ear",
    ),
    *(
        "earring",
        "nose",
        "mouth",
        "upper_lip",
        "lower_lip",
        "neck",
        "necklace",
        "cloth",
        "hair",
        "hat",
    ),
)
"""Labels of the 19 probabilities, those of CelebAMask-HQ in the order of
zllrunning/face-parsing.PyTorch (prepropess_data.py). ``mouth`` is the inside of the mouth; hands
and objects have no label. Nothing here distinguishes left from right."""

_MOUTH = ("skin", "mouth", "upper_lip", "lower_lip")
_FACE = (*_MOUTH, "nose", "right_brow", "left_brow", "right_eye", "left_eye", "glasses")
_REDRAWN: dict[MaskKind, tuple[str, ...]] = {
    "mouth": _MOUTH,
    "lower": (*_MOUTH, "nose"),
    "face": _FACE,
    "box": LABELS,
}
# Wherever they are; background only where the face itself should be.
_IN_FRONT = ("cloth", "hair", "hat")

_CELL = 4  # px between the places where edges are sought: a parser's own cells are no finer
# Probabilities of labels at which they are taken to be absent, and present.
_NO, _YES = 0.5, 0.8
# The same for occluders: one pixel too many is less visible than one too few.
_OPEN, _COVERED = 0.2, 0.5

# The ellipse in which there is nothing but face: its center down the line from the eyes to the
# mouth, half its width and height, in units of that line. The usual face (mean of iBUG's 68 points)
# is wider beside the mouth, 0.9, and ends at 1.7.
_CENTER, _ACROSS, _ALONG = 0.72, 0.72, 0.80


def parser_mask(
    kind: MaskKind, probabilities: Tensor, size: int, *, feather: float = 0.08
) -> Tensor:
    """Draw masks of the labels that a kind of mask replaces.

    Args:
        kind: ``mouth``: skin, lips and the inside of the mouth. ``lower``: also the nose. ``face``:
            also eyes, brows and glasses. ``box``: everything.
        probabilities: (N,19,h,w) of ``LABELS`` over the whole crop.
        size: Side of the crops in px.
        feather: Width of the soft edge, which lies inside, as a fraction of the crop's side; 0 for
            a hard edge.

    Returns:
        (N,1,S,S) in [0,1]; with a soft edge the crop's border is 0.

    Raises:
        ValueError: For another kind or shape.
    """
    if kind not in _REDRAWN:
        raise ValueError(f"mask is {kind!r}; expected mouth, lower, face or box")
    share = _sum_labels(probabilities, _REDRAWN[kind])
    if feather <= 0:
        return (_resize(share, size) > _NO).to(share.dtype)
    sure = ((_resize(share, _count_cells(size)) - _NO) / (_YES - _NO)).clamp(0, 1)
    inside = -_dilate(-sure, _half_edge(feather, size))
    return _soften(inside, feather, size) * _border_edge(inside, feather, size)


def find_occluders(
    probabilities: Tensor, points: Tensor, size: int, *, feather: float = 0.08
) -> Tensor:
    """Find what is in front of faces by a parser's labels.

    Hair, cloth and hats count anywhere; background counts where the face itself should be, because
    that is what a parser calls hands and objects. A hand that the parser takes for skin is not
    found, and a beard that it takes for hair is; public weights were trained on neither.

    Args:
        probabilities: (N,19,h,w) of ``LABELS`` over the whole crop.
        points: (N,5,2) or dense (N,K,2) landmarks in crop px, K of ``landmark_masks.LAYOUTS``.
        size: Side of the crops in px.
        feather: Width of the soft edge outside the occluder as a fraction of the crop's side; 0 for
            a hard edge.

    Returns:
        (N,1,S,S) in [0,1]: 1 up to the occluder's edge, then down to 0.

    Raises:
        ValueError: For other shapes.
    """
    cells = _count_cells(size)
    background = _resize(_sum_labels(probabilities, ("background",)), cells) * _face_area(
        points, size, cells
    )
    covered = background + _resize(_sum_labels(probabilities, _IN_FRONT), cells)
    sure = ((covered - _OPEN) / (_COVERED - _OPEN)).clamp(0, 1)
    if feather <= 0:
        return (_resize(sure, size) > 0.5).to(sure.dtype)
    return _soften(_dilate(sure, _half_edge(feather, size)), feather, size)


def _sum_labels(probabilities: Tensor, labels: tuple[str, ...]) -> Tensor:
    """Return (N,1,h,w) the probability that a pixel has one of ``labels``."""
    if probabilities.ndim != 4 or probabilities.shape[1] != len(LABELS):
        raise ValueError(
            f"probabilities are {tuple(probabilities.shape)}; expected (N,{len(LABELS)},h,w)"
        )
    numbers = [LABELS.index(label) for label in labels]
    return probabilities[:, numbers].sum(1, keepdim=True)


def _face_area(points: Tensor, size: int, cells: int) -> Tensor:
    """Return (N,1,cells,cells) in [0,1]: where the face itself should be, without its edge."""
    if points.shape[1:] != (5, 2):
        inside = outline_distance("face", points, size)[:, None]
        return _resize((inside / (0.04 * size) - 1).clamp(0, 1), cells)
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    down = mouth - eyes
    length = down.norm(dim=1).clamp_min(1e-6)[:, None, None]
    grid = pixel_grid(cells, cells, points) * (size / cells)
    away = grid.permute(1, 2, 0) - (eyes + down * _CENTER)[:, None, None]
    unit = down[:, None, None] / length[..., None]
    v = (away * unit).sum(-1) / (length * _ALONG)
    u = (away[..., 0] * unit[..., 1] - away[..., 1] * unit[..., 0]) / (length * _ACROSS)
    return (8 * (1 - u.square() - v.square())).clamp(0, 1)[:, None]


def _count_cells(size: int) -> int:
    return -(-size // _CELL)


def _half_edge(feather: float, size: int) -> int:
    """Return half a soft edge in cells: it is made by dilating this far and averaging as far."""
    return max(1, round(feather * _count_cells(size) / 2))


def _resize(planes: Tensor, side: int) -> Tensor:
    if planes.shape[2:] == (side, side):
        return planes
    return F.interpolate(planes, (side, side), mode="bilinear", antialias=side < planes.shape[2])


def _dilate(planes: Tensor, reach: int) -> Tensor:
    """Return the largest value within ``reach`` cells to each side."""
    rows = F.max_pool2d(planes, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))


def _soften(planes: Tensor, feather: float, size: int) -> Tensor:
    """Return (N,1,S,S) averages of cells over as far as they were dilated, S-shaped in [0,1]."""
    reach = _half_edge(feather, size)
    x = F.avg_pool2d(planes, 2 * reach + 1, 1, reach, count_include_pad=False)
    x = _resize(x, size)
    return x * x * (3 - 2 * x)


def _border_edge(like: Tensor, feather: float, size: int) -> Tensor:
    """Return (1,1,S,S) 1 except for a soft edge along the crop's border, which is 0."""
    return soft_edge(like.new_full((1, size, size), float(size)), feather)[:, None]
