"""Take out of a drawn face what would show at the border of its mask: a smooth field, computed
small."""

import functools
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Seamless = Literal["pyramid", "poisson", "seamless"]

# Sides in px at which the field is computed: it is smooth, and finer ones cost time alone. Halves,
# and symmetric ones, so that a mirrored face has the mirrored field.
_SIDES = (48, 24, 12, 6, 3)
_RING = 7  # px of 48 round the mask in which drawn and source are compared
_LIMIT = 0.25  # of the range [0,1]; larger differences are no change of light


def residue(kind: Seamless, difference: Tensor, mask: Tensor) -> Tensor:
    """(N,3,S,S) what to take off drawn faces, of which ``difference`` (N,3,S,S) is left when their
    source is taken off, so that they meet it at the border of ``mask`` (N,1,S,S) in [0,1].

    ``poisson``: the differences all round the mask, carried smoothly into it as a membrane would
    (the solution of Laplace's equation, which Poisson blending adds to what it pastes), by pull and
    push over a pyramid. ``pyramid``: of the difference the low bands, each fading towards the
    border over a way as long as its waves: a multi-band blend that ends at the mask, where the
    plain one reaches beyond. ``seamless``: the second on what the first leaves.
    """
    size = difference.shape[-1]
    sides = [side for side in _SIDES if side < size] or [size]
    small = F.adaptive_avg_pool2d(difference, sides[0]).clamp(-_LIMIT, _LIMIT)
    inside = F.adaptive_avg_pool2d(mask, sides[0])
    field = _membrane(small, inside, sides) if kind != "pyramid" else small.new_zeros(())
    if kind != "poisson":
        field = field + _banded(small - field, inside)
    return F.interpolate(field, (size, size), mode="bilinear", align_corners=False)


def _membrane(difference: Tensor, mask: Tensor, sides: list[int]) -> Tensor:
    """Harmonic inside the mask but for the coarseness of the levels, ``difference`` round it."""
    near = F.max_pool2d((mask > 0).to(mask.dtype), _RING, 1, _RING // 2)
    weights = [(1 - mask) * near]
    sums = [_smooth(difference, 3) * weights[0]]
    for _, side in pairwise(sides):
        sums.append(F.adaptive_avg_pool2d(sums[-1], side))
        weights.append(F.adaptive_avg_pool2d(weights[-1], side))
    field = sums[-1] / weights[-1].clamp_min(1e-6)
    for known, weight in zip(sums[-2::-1], weights[-2::-1], strict=True):
        guess = F.interpolate(field, known.shape[-2:], mode="bilinear", align_corners=False)
        field = known + (1 - weight) * guess
    return field


def _banded(difference: Tensor, mask: Tensor) -> Tensor:
    """What of two bands is beyond their edges: coarse waves fade over a longer way than fine ones."""
    lower = _smooth(_smooth(difference, 3), 7)
    near, far = _inner(mask, 5), _inner(mask, 9)
    share = mask.clamp_min(1e-3)
    return ((mask - near) * (difference - lower) + (mask - far) * lower) / share


def _inner(mask: Tensor, reach: int) -> Tensor:
    """The mask with a soft edge about ``reach`` px wider, all of it inside."""
    return (2 * _smooth(mask, reach) - 1).clamp_min(0).minimum(mask)


def _smooth(x: Tensor, reach: int) -> Tensor:
    """Two passes of a box, a hat of 2 * reach - 1 px, in either direction: as products of small
    matrices, a tenth of the time of pooling. Near the border the mean is of what there is."""
    hat = _hat(x.shape[-1], reach).to(x)
    return hat @ x @ hat.mT


@functools.cache
def _hat(size: int, reach: int) -> Tensor:
    places = torch.arange(size, dtype=torch.float64)
    box = ((places[:, None] - places).abs() <= reach // 2).double()
    box = box / box.sum(1, keepdim=True)
    return box @ box
