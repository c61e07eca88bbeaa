"""Faces drawn as landmarks."""

import math

import torch
from torch import Tensor

from lipsync_core.blend.landmark_masks import (
    LAYOUTS,
)


def face(count: int, n: int = 1, *, seed: int = 0) -> Tensor:
    """(N,K,2) a plain face in crop pixels: half an ellipse of jaw, a row of brows, a short row
    under the nose, the rest far off, where it must not matter; each face a little different."""
    layout = LAYOUTS[count]
    points = torch.full((n, count, 2), -500.0)
    angle = torch.linspace(math.pi, 0, len(layout.jaw))
    points[:, layout.jaw] = torch.stack([32 + 26 * angle.cos(), 24 + 36 * angle.sin()], -1)
    points[:, layout.brows] = torch.stack([torch.linspace(10, 54, 10), torch.full((10,), 12.0)], -1)
    points[:, layout.nose] = torch.stack([torch.linspace(27, 37, 5), torch.full((5,), 34.0)], -1)
    return points + torch.randn(n, count, 2, generator=torch.Generator().manual_seed(seed)) * 0.3
