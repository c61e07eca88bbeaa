"""Pictures of faces to look at during a run."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# The mouth of an aligned crop, in parts of its side: rows, columns.
_MOUTH = ((0.45, 0.95), (0.25, 0.75))


def grid(faces: Tensor) -> Tensor:
    """Lay out faces as one picture, row by row.

    Args:
        faces: (R,C,3,S,S) floats in [0,1].

    Returns:
        (3,R*S,C*S) uint8 on the CPU.
    """
    r, c, _, h, w = faces.shape
    pixels = faces.detach().float().permute(2, 0, 3, 1, 4).reshape(3, r * h, c * w)
    return (pixels.clamp(0, 1) * 255).round().to("cpu", torch.uint8)


def mouths(faces: Tensor) -> Tensor:
    """Return the mouths of aligned faces, twice as large.

    Args:
        faces: (...,3,S,S).

    Returns:
        (...,3,S,S) floats.
    """
    size = faces.shape[-1]
    (top, bottom), (left, right) = ((round(a * size), round(b * size)) for a, b in _MOUTH)
    close = (
        faces[..., top:bottom, left:right]
        .detach()
        .float()
        .reshape(-1, 3, bottom - top, right - left)
    )
    return interpolate(close, size=(size, size), mode="bilinear", align_corners=False).view(
        faces.shape
    )
