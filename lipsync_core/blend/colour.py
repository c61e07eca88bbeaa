"""Bring the colours of a generated face to those of its source."""

from torch import Tensor


def match_colour(generated: Tensor, source: Tensor, weight: Tensor, *, limit: float = 0.2) -> Tensor:
    """``generated`` (N,3,S,S) with the mean and spread per channel that ``source`` (N,3,S,S) has under ``weight`` (N,1,S,S).

    The weight should cover skin that both share (around the mouth, not the mouth). Gains stay within 1 +- ``limit`` and
    shifts within ``limit`` (of the range [0,1]), so that a dark mouth never washes out a face.
    """
    total = weight.sum((2, 3), keepdim=True).clamp_min(1e-6)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = (x * weight).sum((2, 3), keepdim=True) / total
        return mean, (((x - mean).square() * weight).sum((2, 3), keepdim=True) / total).clamp_min(1e-8).sqrt()

    mean_g, std_g = moments(generated)
    mean_s, std_s = moments(source)
    gain = (std_s / std_g).clamp(1 - limit, 1 + limit)
    shift = (mean_s - mean_g).clamp(-limit, limit)
    return ((generated - mean_g) * gain + mean_g + shift).clamp(0, 1)
