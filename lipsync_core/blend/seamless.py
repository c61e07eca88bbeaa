"""Seam correction: a smooth field that makes a generated face agree with its frame at the mask.

Pasting with a correction that solves Laplace's equation is Poisson blending (Perez, Gangnet and
Blake 2003, "Poisson Image Editing"); the equation is solved approximately by pull-push over a
pyramid (Gortler et al. 1996, "The Lumigraph"). Blending each frequency band over a way as long as
its waves is multi-band blending (Burt and Adelson 1983, "A Multiresolution Spline With Application
to Image Mosaics").
"""

import functools
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Seamless = Literal["pyramid", "poisson", "seamless"]

# Sides in px at which the field is computed: it is smooth, and finer ones only cost time. Halves,
# and symmetric ones, so that a mirrored face has the mirrored field.
_SIDES = (48, 24, 12, 6, 3)
_RING = 7  # px of 48 round the mask in which generated and source pixels are compared
_LIMIT = 0.25  # of the range [0,1]; larger differences are no change of light


def compute_seam_correction(kind: Seamless, difference: Tensor, mask: Tensor) -> Tensor:
    """Compute the field to subtract from generated faces so that no seam is seen.

    Args:
        kind: ``poisson``: the differences all round the mask, continued into it by a harmonic
            function. ``pyramid``: the low frequencies of the difference, each faded out towards
            the border of the mask over a way as long as its waves; a multi-band blend that ends at
            the mask, where the plain one reaches beyond. ``seamless``: ``pyramid`` on the rest
            that ``poisson`` leaves.
        difference: (N,3,S,S) generated faces minus source.
        mask: (N,1,S,S) in [0,1].

    Returns:
        (N,3,S,S) the correction.
    """
    size = difference.shape[-1]
    sides = [side for side in _SIDES if side < size] or [size]
    small = F.adaptive_avg_pool2d(difference, sides[0]).clamp(-_LIMIT, _LIMIT)
    inside = F.adaptive_avg_pool2d(mask, sides[0])
    field = fill_harmonic(small, inside, sides) if kind != "pyramid" else small.new_zeros(())
    if kind != "poisson":
        field = field + blend_laplacian_bands(small - field, inside)
    return F.interpolate(field, (size, size), mode="bilinear", align_corners=False)


def fill_harmonic(difference: Tensor, mask: Tensor, sides: list[int]) -> Tensor:
    """Fill a mask from the values round it, approximately harmonically, by pull-push.

    Args:
        difference: (N,3,s,s) values; those in a ring round the mask are used.
        mask: (N,1,s,s) in [0,1].
        sides: Sides of the levels of the pyramid, finest first; ``sides[0]`` is s.

    Returns:
        (N,3,s,s) the values round the mask, and a smooth continuation inside.
    """
    near = F.max_pool2d((mask > 0).to(mask.dtype), _RING, 1, _RING // 2)
    weights = [(1 - mask) * near]
    sums = [_blur(difference, 3) * weights[0]]
    for _, side in pairwise(sides):  # pull
        sums.append(F.adaptive_avg_pool2d(sums[-1], side))
        weights.append(F.adaptive_avg_pool2d(weights[-1], side))
    field = sums[-1] / weights[-1].clamp_min(1e-6)
    for total, weight in zip(sums[-2::-1], weights[-2::-1], strict=True):  # push
        coarse = F.interpolate(field, total.shape[-2:], mode="bilinear", align_corners=False)
        field = total + (1 - weight) * coarse
    return field


def blend_laplacian_bands(difference: Tensor, mask: Tensor) -> Tensor:
    """Compute the correction of a blend of two bands whose low band has the wider soft edge.

    Args:
        difference: (N,3,s,s) generated minus source.
        mask: (N,1,s,s) in [0,1].

    Returns:
        (N,3,s,s) the correction.
    """
    low = _blur(_blur(difference, 3), 7)
    high_mask, low_mask = _shrink_mask(mask, 5), _shrink_mask(mask, 9)
    total = (mask - high_mask) * (difference - low) + (mask - low_mask) * low
    return total / mask.clamp_min(1e-3)


def _shrink_mask(mask: Tensor, reach: int) -> Tensor:
    """Return the mask with a soft edge about ``reach`` px wider, all of it inside."""
    return (2 * _blur(mask, reach) - 1).clamp_min(0).minimum(mask)


def _blur(x: Tensor, reach: int) -> Tensor:
    """Blur with a tent filter of 2 * reach - 1 px; near the border the mean of what there is.

    As products of small matrices, which take a tenth of the time of pooling.
    """
    tent = _tent_filter_matrix(x.shape[-1], reach).to(x)
    return tent @ x @ tent.mT


@functools.cache
def _tent_filter_matrix(size: int, reach: int) -> Tensor:
    places = torch.arange(size, dtype=torch.float64)
    box = ((places[:, None] - places).abs() <= reach // 2).double()
    box = box / box.sum(1, keepdim=True)
    return box @ box
