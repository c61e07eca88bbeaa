"""A face whose lips can be moved."""

from fractions import Fraction

import torch
from torch import Tensor

from helpers.golden import build
from lipsync_core.blend.lip_warp import (
    LipRange,
)
from lipsync_core.image.landmarks import (
    INNER_LIPS,
    IRISES,
    JAW,
    LEFT_BROW,
    LEFT_EYE,
    NOSE_BASE,
    NOSE_BRIDGE,
    NOSE_WINGS,
    OUTER_LIPS,
    POINTS,
    RIGHT_BROW,
    RIGHT_EYE,
)
from lipsync_core.models.face_landmarks import FaceLandmarksConfig
from lipsync_core.models.lip_warp import LipWarp, LipWarpConfig

SIZE = 64
FPS = Fraction(25)


def lips(width: float, above: float, below: float, *, middle: float = 0.72) -> Tensor:
    """(20,2) from the left corner along the lower lip to the right one and back along the upper
    one."""
    along = torch.linspace(-1, 1, 11)
    bow = (1 - along.square()).sqrt()
    lower = torch.stack([0.5 + along * width / 2, middle + below * bow], 1)
    upper = torch.stack([0.5 + along * width / 2, middle - above * bow], 1).flip(0)
    return torch.cat([lower, upper[1:-1]])


def ellipse(x: float, y: float, wide: float, high: float, count: int) -> Tensor:
    """(count,2) from the left corner round by the upper side."""
    angle = torch.pi + 2 * torch.pi * torch.arange(count) / count
    return torch.stack([x + wide * angle.cos(), y + high * angle.sin()], 1)


def face(opening: float = 0.05, *, size: int = SIZE) -> Tensor:
    """(1,102,2) in px of a crop: a plain, upright face whose outer eye corners are 0.44 of the side
    apart."""
    points = torch.zeros(POINTS, 2)
    gap = opening * 0.44 / 0.95  # two of the three places that are measured lie beside the middle
    points[OUTER_LIPS] = lips(0.27, 0.03 + gap / 4, 0.04 + gap * 3 / 4)
    points[INNER_LIPS] = lips(0.23, gap / 4, gap * 3 / 4)
    angle = torch.linspace(torch.pi, 0, 21)
    points[JAW] = torch.stack([0.5 + 0.38 * angle.cos(), 0.40 + (0.54 + gap / 2) * angle.sin()], 1)
    points[LEFT_EYE], points[RIGHT_EYE] = (
        ellipse(0.35, 0.3, 0.07, 0.03, 8),
        ellipse(0.65, 0.3, 0.07, 0.03, 8),
    )
    points[LEFT_BROW] = torch.stack([torch.linspace(0.26, 0.44, 5), torch.full((5,), 0.2)], 1)
    points[RIGHT_BROW] = torch.stack([torch.linspace(0.56, 0.74, 5), torch.full((5,), 0.2)], 1)
    points[NOSE_BRIDGE] = torch.stack([torch.full((6,), 0.5), torch.linspace(0.3, 0.54, 6)], 1)
    points[NOSE_BASE] = torch.stack([torch.linspace(0.44, 0.56, 5), torch.full((5,), 0.58)], 1)
    points[NOSE_WINGS] = torch.tensor([[0.42, 0.55], [0.58, 0.55]])
    points[IRISES] = torch.tensor([[0.35, 0.3], [0.65, 0.3]])
    return points[None] * size


def noise(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """(N,3,H,W) in [0,1], smooth as faces are."""
    small = torch.rand(
        count, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed)
    )
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)


# ---- how a person's lips move

PRIOR = LipRange(torch.tensor([0.01, 0.6, 0.75]), torch.tensor([0.04, 0.03, 0.03]))


# ---- the model in the stream


def lip_warp() -> LipWarp:
    """Small and untrained; recipe weights let the sound through, and its landmarks lie about where
    a face has them."""
    landmarks = FaceLandmarksConfig(size=64, widths=(4, 4, 8, 8, 8), head=4)
    model = build(LipWarp, LipWarpConfig(size=SIZE, width=16, landmarks=landmarks))
    assert isinstance(model, LipWarp)
    with torch.no_grad():
        knots = torch.linspace(-1, 4, model.heard.shape[1]).expand(3, -1)
        model.heard.copy_(knots)
        model.shown.copy_(knots * torch.tensor([[1.5], [1.0], [1.0]]))
        model.neutral.copy_(torch.tensor([0.02, 0.6, 0.85]))
        model.spread.copy_(torch.tensor([0.04, 0.03, 0.03]))
        # our points for a framing of 2.8 eye distances, from those of this file's face
        usual = (face(0.05, size=1)[0] - 0.5) * (2.35 / 2.8) + torch.tensor([0.5, 0.5])
        model.landmarks.points.weight.mul_(0.003)
        model.landmarks.points.bias.copy_((usual - 0.5).flatten())
    return model
