"""Frames, faces and places to blend."""

import math

import torch
from torch import Tensor

from lipsync_core.image.affine import ALIGNED, translation
from lipsync_core.types import Frames

SIZE = 48


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int = 1) -> Tensor:
    """(N,5,2) the points of an aligned face, in crop pixels, each face a little different."""
    return torch.tensor([ALIGNED]) * SIZE + torch.randn(n, 5, 2, generator=rng(9))


def frames(n: int, *, floating: bool = False, height: int = 90, width: int = 110) -> Frames:
    pixels = torch.randint(0, 256, (n, height, width, 3), generator=rng(1), dtype=torch.uint8)
    return Frames(pixels / 255 if floating else pixels, 7)


def generated(n: int) -> Tensor:
    return torch.rand(n, 3, SIZE, SIZE, generator=rng(2))


def placed(n: int) -> Tensor:
    """(N,2,3) crops that lie inside the frame, turned and scaled differently."""
    maps = []
    for i in range(n):
        a, s = math.radians(7 * i - 5), 0.9 + 0.15 * i
        c, d = s * math.cos(a), s * math.sin(a)
        maps.append([[c, -d, 25.3 + 3 * i], [d, c, 18.6 - i]])
    return torch.tensor(maps)


def whole(x: float, y: float) -> Tensor:
    """(1,2,3) a crop at its own size, on whole pixels."""
    return translation(torch.tensor([[float(x), float(y)]]))
