"""Masks from what a face parser says that each pixel shows: where the face is, and what lies before
it.

Both multiply the mask that ``masks`` or ``outlines`` made of the landmarks: ``mask *
parsed_mask(...) * (1 - occluded(...))``.
"""

import torch.nn.functional as F
from torch import Tensor

from ..image.crop import pixel_grid
from .landmark_masks import outline_distance
from .masks import MaskKind, soft_edge

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
"""What the 19 probabilities are of: the labels of CelebAMask-HQ in the order of
zllrunning/face-parsing.PyTorch (prepropess_data.py). ``mouth`` is what is seen between the lips;
hands have no label, nor have things. Nothing here tells left from right."""

_MOUTH = ("skin", "mouth", "upper_lip", "lower_lip")
_FACE = (*_MOUTH, "nose", "right_brow", "left_brow", "right_eye", "left_eye", "glasses")
_REDRAWN: dict[MaskKind, tuple[str, ...]] = {
    "mouth": _MOUTH,
    "lower": (*_MOUTH, "nose"),
    "face": _FACE,
    "box": LABELS,
}
# wherever they are; background only where the face itself should be
_BEFORE = ("cloth", "hair", "hat")

_CELL = 4  # px between the places where edges are sought: a parser's own cells are no finer
_NO, _YES = 0.5, 0.8  # how likely a label is where it is surely not there, and surely there
# the same of what lies before a face: one pixel too many is seen less than one too few
_OPEN, _COVERED = 0.2, 0.5

# The ellipse in which a face is nothing but face: its centre down the line from the eyes to the
# mouth, half its width and height, in units of that line. The usual face (mean of iBUG's 68 points)
# is wider beside the mouth, 0.9, and ends at 1.7.
_CENTRE, _ACROSS, _ALONG = 0.72, 0.72, 0.80


def parser_mask(
    kind: MaskKind, probabilities: Tensor, size: int, *, feather: float = 0.08
) -> Tensor:
    """(N,1,S,S) in [0,1]: where a face shows what ``kind`` redraws, of ``probabilities`` (N,19,h,w)
    over the whole crop.

    ``mouth``: skin, lips and what is between them; ``lower``: and the nose; ``face``: and eyes,
    brows and glasses; ``box``: everything. The soft edge of ``feather`` (a part of the crop's side)
    lies inside, and the crop's border is 0; with feather 0 the edge is hard. Raises ValueError for
    other kinds and shapes.
    """
    if kind not in _REDRAWN:
        raise ValueError(f"mask is {kind!r}; wanted mouth, lower, face or box")
    share = _share(probabilities, _REDRAWN[kind])
    if feather <= 0:
        return (_resized(share, size) > _NO).to(share.dtype)
    sure = ((_resized(share, _cells(size)) - _NO) / (_YES - _NO)).clamp(0, 1)
    inside = -_widened(-sure, _reach(feather, size))
    return _softened(inside, feather, size) * _frame(inside, feather, size)


def find_occluders(
    probabilities: Tensor, points: Tensor, size: int, *, feather: float = 0.08
) -> Tensor:
    """(N,1,S,S) in [0,1]: how much something before the face covers it, of ``probabilities``
    (N,19,h,w) over the whole crop and the face's ``points`` (N,K,2) crop pixels, five or dense ones
    (``outlines.LAYOUTS``).

    Hair, cloth and hats count anywhere; background does where the face itself should be, for that
    is what a parser calls hands and things. 1 up to their edge, then down to 0 over ``feather`` (a
    part of the crop's side); 0 for no soft edge. Raises ValueError for other shapes.

    A hand that the parser takes for skin is not found, and a beard that it takes for hair is;
    public weights were trained on neither.
    """
    cells = _cells(size)
    background = _resized(_share(probabilities, ("background",)), cells) * _own(points, size, cells)
    covered = background + _resized(_share(probabilities, _BEFORE), cells)
    sure = ((covered - _OPEN) / (_COVERED - _OPEN)).clamp(0, 1)
    if feather <= 0:
        return (_resized(sure, size) > 0.5).to(sure.dtype)
    return _softened(_widened(sure, _reach(feather, size)), feather, size)


def _share(probabilities: Tensor, labels: tuple[str, ...]) -> Tensor:
    """(N,1,h,w) how likely a pixel is one of ``labels``."""
    if probabilities.ndim != 4 or probabilities.shape[1] != len(LABELS):
        raise ValueError(
            f"probabilities are {tuple(probabilities.shape)}; wanted (N,{len(LABELS)},h,w)"
        )
    numbers = [LABELS.index(label) for label in labels]
    return probabilities[:, numbers].sum(1, keepdim=True)


def _own(points: Tensor, size: int, cells: int) -> Tensor:
    """(N,1,cells,cells) in [0,1]: where the face itself should be, its edge left out."""
    if points.shape[1:] != (5, 2):
        inside = outline_distance("face", points, size)[:, None]
        return _resized((inside / (0.04 * size) - 1).clamp(0, 1), cells)
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    down = mouth - eyes
    length = down.norm(dim=1).clamp_min(1e-6)[:, None, None]
    grid = pixel_grid(cells, cells, points) * (size / cells)
    away = grid.permute(1, 2, 0) - (eyes + down * _CENTRE)[:, None, None]
    unit = down[:, None, None] / length[..., None]
    v = (away * unit).sum(-1) / (length * _ALONG)
    u = (away[..., 0] * unit[..., 1] - away[..., 1] * unit[..., 0]) / (length * _ACROSS)
    return (8 * (1 - u.square() - v.square())).clamp(0, 1)[:, None]


def _cells(size: int) -> int:
    return -(-size // _CELL)


def _reach(feather: float, size: int) -> int:
    """Half a soft edge, in cells: it is made by widening this far and averaging as far."""
    return max(1, round(feather * _cells(size) / 2))


def _resized(planes: Tensor, side: int) -> Tensor:
    if planes.shape[2:] == (side, side):
        return planes
    return F.interpolate(planes, (side, side), mode="bilinear", antialias=side < planes.shape[2])


def _widened(planes: Tensor, reach: int) -> Tensor:
    """The largest within ``reach`` cells to each side."""
    rows = F.max_pool2d(planes, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))


def _softened(planes: Tensor, feather: float, size: int) -> Tensor:
    """(N,1,S,S) averages of (N,1,cells,cells) over as far as they were widened, S shaped between 0
    and 1."""
    reach = _reach(feather, size)
    x = F.avg_pool2d(planes, 2 * reach + 1, 1, reach, count_include_pad=False)
    x = _resized(x, size)
    return x * x * (3 - 2 * x)


def _frame(like: Tensor, feather: float, size: int) -> Tensor:
    """(1,1,S,S) 1 but for a soft edge along the crop's border, which is 0."""
    return soft_edge(like.new_full((1, size, size), float(size)), feather)[:, None]
