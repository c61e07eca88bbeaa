"""Bring the colours of a generated face to those of its source: the mean of both, and what spreads
round it."""

from typing import Literal

import torch
from torch import Tensor

ColourMatch = Literal["spread", "covariance"]
# of the square root of a matrix: the condition of a colour's covariance, as it is bounded here,
# asks for 9
_STEPS = 12
# of the mean variance: what every direction of colour has at least, where noise alone is left of it
_LEAST = 0.02


def colours(pixels: Tensor, kind: ColourMatch) -> Tensor:
    """Pixels (N,3,...) RGB in [0,1] where ``kind`` compares them: CIE L*a*b* in hundredths for
    ``spread``, as Reinhard et al. 2001 ("Color transfer between images") do in a like space; linear
    light for ``covariance``, in which a change of light is a linear map."""
    import kornia.color as kc  # takes a third of a second

    return kc.rgb_to_lab(pixels) / 100 if kind == "spread" else kc.rgb_to_linear_rgb(pixels)


def pixels_of(values: Tensor, kind: ColourMatch) -> Tensor:
    """The inverse of ``colours``."""
    import kornia.color as kc

    return (
        kc.lab_to_rgb(values * 100)
        if kind == "spread"
        else kc.linear_rgb_to_rgb(values.clamp(0, 1))
    )


def tones(values: Tensor, weight: Tensor) -> Tensor:
    """(N,12) the mean (3) and the covariance (9) of ``values`` (N,3,S,S) under ``weight``
    (N,1,S,S)."""
    n = len(values)
    weight = weight / weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
    mean = (values * weight).sum((2, 3))
    apart = values - mean[:, :, None, None]
    covariance = torch.einsum("nchw,ndhw->ncd", apart * weight, apart)
    return torch.cat([mean, covariance.reshape(n, 9)], 1)


def match_colour(
    generated: Tensor,
    source: Tensor,
    weight: Tensor,
    *,
    kind: ColourMatch = "spread",
    limit: float = 0.2,
) -> Tensor:
    """``generated`` (N,3,S,S) RGB in [0,1] with the tones that ``source`` (N,3,S,S) has under
    ``weight`` (N,1,S,S), which should cover skin that both share: round the mouth, not the mouth.
    See ``toned``."""
    values, wanted = colours(generated, kind), colours(source, kind)
    return pixels_of(
        toned(values, tones(values, weight), tones(wanted, weight), kind=kind, limit=limit), kind
    )


def toned(
    values: Tensor, has: Tensor, wants: Tensor, *, kind: ColourMatch, limit: float = 0.2
) -> Tensor:
    """``values`` (N,3,S,S), whose ``tones`` are ``has`` (N,12), with those that ``wants`` (N,12).

    ``spread`` scales each channel; ``covariance`` maps with the symmetric matrix that takes one
    covariance to the other and moves colours least (Pitie and Kokaram 2007, "The linear
    Monge-Kantorovitch linear colour mapping"). Gains differ from 1 by at most ``limit``, and shifts
    stay within it, so that a dark mouth never washes out a face.
    """
    mean, wanted = has[:, :3, None, None], wants[:, :3, None, None]
    shift = (wanted - mean).clamp(-limit, limit)
    old, new = (_regular(x[:, 3:].view(-1, 3, 3)) for x in (has, wants))
    if kind == "spread":
        gain = (new / old).diagonal(dim1=1, dim2=2).sqrt().clamp(1 - limit, 1 + limit)
        return (values - mean) * gain[:, :, None, None] + mean + shift
    root, inverse = _roots(old)
    map_ = inverse @ _roots(root @ new @ root)[0] @ inverse
    change = map_ - torch.eye(3, device=map_.device, dtype=map_.dtype)
    # no gain changes by more than this norm
    size = change.square().sum((1, 2), keepdim=True).clamp_min(1e-12).sqrt()
    change = change * (limit / size).clamp_max(1)
    apart = values - mean
    return apart + torch.einsum("ncd,ndhw->nchw", change, apart) + mean + shift


def _regular(covariance: Tensor) -> Tensor:
    eye = torch.eye(3, device=covariance.device, dtype=covariance.dtype)
    least = _LEAST * covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-6
    return covariance + least * eye


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of symmetric positive matrices (N,3,3) and its inverse, by Newton's steps
    (Denman and Beavers 1976 in the product form of Newton and Schulz): products alone, whose
    gradient exists where eigenvalues are equal, too."""
    norm = matrix.square().sum((1, 2), keepdim=True).sqrt()
    eye = torch.eye(3, device=matrix.device, dtype=matrix.dtype)
    root, inverse = matrix / norm, eye.expand_as(matrix)
    for _ in range(_STEPS):
        step = (3 * eye - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return root * norm.sqrt(), inverse / norm.sqrt()
