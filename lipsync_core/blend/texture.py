"""Give a drawn mouth the sharpness and the grain of the picture that it stands in."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# of the range [0,1]: how much drawn and own skin may differ and still share their finest detail
_TOLERANCE = 0.12
_MOST = 2.0  # times that fine detail is strengthened where there is none to borrow
_TILE = 256  # px of grain that repeats


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """``detail`` in [0,1]: how much of the source's sharpness a mouth gets, ``grain`` in [0,1]: and
    of its grain. ``index``: the clip's number of each frame, which the grain depends on."""

    detail: float
    grain: float
    index: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part lies: in the clip's frame ``number``, from (x, y) on, at ``step`` px for one of
    the crop."""

    number: int
    x: int
    y: int
    step: float


def textured(drawn: Tensor, own: Tensor, place: Place, *, texture: Texture, top: float) -> Tensor:
    """``drawn`` (C,h,w) with the fine detail of ``own`` (C,h,w), the frame's pixels there.

    A network draws at the resolution of its crop. What is finer is taken from the frame where the
    two otherwise look alike (skin, a beard); where they do not (lips, teeth), the drawn detail is
    strengthened by what it lacks elsewhere, and grain as strong as the frame's is laid over it.
    ``top``: of the values, 1 or 255.
    """
    reach = max(1, round(place.step)) * 2 + 1
    # one plane: colour has little detail
    grey, drawn_grey = own.mean(0, keepdim=True), drawn.mean(0, keepdim=True)
    low, base = _smooth(grey, reach), _smooth(drawn_grey, reach)
    fine, drawn_fine = grey - low, drawn_grey - base
    near = ((low - base).square() / -((_TOLERANCE * top) ** 2)).exp()
    lacking = (near * fine.square()).sum() / (near * drawn_fine.square()).sum().clamp_min(1e-12)
    gain = lacking.sqrt().clamp(1, _MOST) - 1
    detail = near * (fine - drawn_fine) + (1 - near) * gain * drawn_fine
    out = drawn + texture.detail * detail
    if texture.grain:
        # of a normal distribution's median to its deviation
        level = fine[:, ::3, ::3].abs().median() / 0.6745
        out = out + (1 - near) * (texture.grain * level) * _grain(place, out)
    return out


def _smooth(x: Tensor, reach: int) -> Tensor:
    """Box means over ``reach`` px, of (1,h,w), row by row and then column by column."""
    half = reach // 2
    x = F.avg_pool2d(x[:, None], (1, reach), 1, (0, half), count_include_pad=False)
    return F.avg_pool2d(x, (reach, 1), 1, (half, 0), count_include_pad=False)[:, 0]


def _grain(place: Place, like: Tensor) -> Tensor:
    """(1,h,w) of normal noise that depends on the frame's number and the place in it alone, on any
    device."""
    height, width = like.shape[1:]
    across, down = place.x + place.number * 57, place.y + place.number * 97
    rows, columns = (
        (torch.arange(k) + shift) % _TILE for k, shift in ((height, down), (width, across))
    )
    return _tile()[rows][:, columns][None].to(like)


@functools.cache
def _tile() -> Tensor:
    return torch.randn(_TILE, _TILE, generator=torch.Generator().manual_seed(0))
