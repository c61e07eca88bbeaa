"""Match the colors of generated faces to their source: mean, and spread or covariance."""

import torch
from torch import Tensor

from ..options import ColorMatch

# Of the square root of a matrix: the condition of a color's covariance, as bounded here, needs 9.
_STEPS = 12
# Of the mean variance: the least variance in every direction of color; below is only noise.
_LEAST = 0.02


def to_match_space(pixels: Tensor, kind: ColorMatch) -> Tensor:
    """Convert RGB to the color space in which colors are matched.

    Args:
        pixels: (N,3,...) RGB in [0,1].
        kind: ``spread``: CIE L*a*b* in hundredths (Reinhard et al. 2001, "Color transfer between
            images", use a similar space). ``covariance``: linear light, in which a change of light
            is a linear map.

    Returns:
        (N,3,...) values.
    """
    import kornia.color as kc  # takes a third of a second

    return kc.rgb_to_lab(pixels) / 100 if kind == "spread" else kc.rgb_to_linear_rgb(pixels)


def from_match_space(values: Tensor, kind: ColorMatch) -> Tensor:
    """Convert values of ``to_match_space`` (N,3,...) back to RGB."""
    import kornia.color as kc

    if kind == "spread":
        return kc.lab_to_rgb(values * 100)
    return kc.linear_rgb_to_rgb(values.clamp(0, 1))


def measure_tones(values: Tensor, weight: Tensor) -> Tensor:
    """Measure mean and covariance of colors.

    Args:
        values: (N,3,S,S) of ``to_match_space``.
        weight: (N,1,S,S) weight of each pixel, at least 0.

    Returns:
        (N,12) the tones: mean (3), covariance (9).
    """
    n = len(values)
    weight = weight / weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
    mean = (values * weight).sum((2, 3))
    centered = values - mean[:, :, None, None]
    covariance = torch.einsum("nchw,ndhw->ncd", centered * weight, centered)
    return torch.cat([mean, covariance.reshape(n, 9)], 1)


def match_tones(
    values: Tensor, source: Tensor, target: Tensor, *, kind: ColorMatch, limit: float = 0.2
) -> Tensor:
    """Map colors so that their tones become the target's, within limits.

    Args:
        values: (N,3,S,S) of ``to_match_space``.
        source: (N,12) tones of the values.
        target: (N,12) tones to match.
        kind: ``spread`` scales each channel. ``covariance`` maps with the symmetric matrix that
            takes one covariance to the other and moves colors least (Pitie and Kokaram 2007, "The
            linear Monge-Kantorovitch linear colour mapping").
        limit: Gains differ from 1 and shifts from 0 by at most this, so that a dark mouth never
            washes out a face.

    Returns:
        (N,3,S,S) matched values.
    """
    mean, target_mean = source[:, :3, None, None], target[:, :3, None, None]
    shift = (target_mean - mean).clamp(-limit, limit)
    old, new = (_regularize(x[:, 3:].view(-1, 3, 3)) for x in (source, target))
    if kind == "spread":
        gain = (new / old).diagonal(dim1=1, dim2=2).sqrt().clamp(1 - limit, 1 + limit)
        return (values - mean) * gain[:, :, None, None] + mean + shift
    root, inverse = _matrix_roots(old)
    map_ = inverse @ _matrix_roots(root @ new @ root)[0] @ inverse
    change = map_ - torch.eye(3, device=map_.device, dtype=map_.dtype)
    # no gain changes by more than this norm
    size = change.square().sum((1, 2), keepdim=True).clamp_min(1e-12).sqrt()
    change = change * (limit / size).clamp_max(1)
    centered = values - mean
    return centered + torch.einsum("ncd,ndhw->nchw", change, centered) + mean + shift


def _regularize(covariance: Tensor) -> Tensor:
    eye = torch.eye(3, device=covariance.device, dtype=covariance.dtype)
    least = _LEAST * covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-6
    return covariance + least * eye


def _matrix_roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the square roots of symmetric positive matrices (N,3,3), and the roots' inverses.

    By Newton's steps (Denman and Beavers 1976 in the product form of Newton and Schulz): only
    products, whose gradient exists where eigenvalues are equal, too.
    """
    norm = matrix.square().sum((1, 2), keepdim=True).sqrt()
    eye = torch.eye(3, device=matrix.device, dtype=matrix.dtype)
    root, inverse = matrix / norm, eye.expand_as(matrix)
    for _ in range(_STEPS):
        step = (3 * eye - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return root * norm.sqrt(), inverse / norm.sqrt()
