"""Convert between RGB and luma and chroma as video files code them, by ITU-T H.273."""

import torch
from torch import Tensor

from ..types import ColourTags

# Table 4: weights of red and of blue in luma, by matrix code.
_SHARES = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
}
MATRICES = frozenset(_SHARES)
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma (ITU-R BT.601)."""


def from_rgb(rgb: Tensor, colour: ColourTags) -> Tensor:
    """Convert RGB to luma and chroma.

    Args:
        rgb: (N,3,h,w) in [0,1].
        colour: Color tags of the codes.

    Returns:
        (N,3,h,w) luma, blue and red chroma on the scale of 8-bit codes, not rounded.

    Raises:
        ValueError: For an unknown matrix code.
    """
    linear, offset = _code(colour)
    return torch.einsum("cd,ndhw->nchw", linear.to(rgb), rgb) + offset.to(rgb)


def to_rgb(codes: Tensor, colour: ColourTags) -> Tensor:
    """Convert luma and chroma to RGB, clamped to [0,1]; the inverse of ``from_rgb``."""
    linear, offset = _code(colour)
    return torch.einsum(
        "cd,ndhw->nchw", torch.linalg.inv(linear).to(codes), codes - offset.to(codes)
    ).clamp_(0, 1)


def _code(colour: ColourTags) -> tuple[Tensor, Tensor]:
    """Return the matrix (3,3) and the offset (3,1,1) from RGB in [0,1] to codes, float32.

    On the CPU, where the matrix is inverted, too, because not every device can.
    """
    if colour.matrix not in _SHARES:
        raise ValueError(
            f"matrix code is {colour.matrix}; expected one of {sorted(_SHARES)} (ITU-T "
            "H.273, table 4)"
        )
    red, blue = _SHARES[colour.matrix]
    luma = torch.tensor([red, 1 - red - blue, blue], dtype=torch.float64)
    pure = torch.eye(3, dtype=torch.float64)
    linear = torch.stack(
        [luma, (pure[2] - luma) / (2 - 2 * blue), (pure[0] - luma) / (2 - 2 * red)]
    )
    # H.273 section 8.3: 219 steps of luma from 16 and 224 of chroma round 128, or 255 of both
    steps = torch.tensor(
        [255.0, 255.0, 255.0] if colour.full_range else [219.0, 224.0, 224.0], dtype=torch.float64
    )
    offset = torch.tensor([0.0 if colour.full_range else 16.0, 128.0, 128.0])
    return (linear * steps[:, None]).float(), offset[:, None, None]
