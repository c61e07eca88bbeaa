"""Things before a face, drawn: microphones, a hand, strands of hair, a scarf. They lie where the
face's five points say, so that they can be pasted into crops and into whole frames.

Places are in units of the line from the eyes to the mouth, from the middle of the mouth: x across,
to the right where the face is upright, y down.
"""

from typing import Literal

import torch
from torch import Tensor

OccluderKind = Literal["microphone", "metal", "hand", "hair", "scarf"]


def occluder(
    kind: OccluderKind, pixels: Tensor, points: Tensor, at: Tensor
) -> tuple[Tensor, Tensor]:
    """Colours (N,3,H,W) and cover (N,1,H,W) in [0,1] of an occluder for pictures ``pixels``
    (N,3,H,W), RGB in [0,1], of faces whose five points lie at ``points`` (N,5,2) px; moved by
    ``at`` (N,2) from before the mouth. Paste them with ``pasted``."""
    x, y, pixel = _places(points, pixels.shape[2], pixels.shape[3])
    x, y = x - at[:, :1, None], y - at[:, 1:, None]
    if kind == "hand":
        colour, inside = _hand(x, y, _skin(pixels, points))
    elif kind == "hair":
        colour, inside = _hair(x, y)
    elif kind == "scarf":
        colour, inside = _scarf(x, y)
    else:
        colour, inside = _microphone(x, y, metal=kind == "metal")
    return colour.clamp(0, 1), (inside / pixel + 0.5).clamp(0, 1)[:, None]


def pasted(pixels: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    return pixels + cover * (colour - pixels)


def _places(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """x and y (N,H,W) of each pixel, and (N,1,1) how large one is."""
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    length = (mouth - eyes).norm(dim=1)[:, None, None]
    down = (mouth - eyes)[:, None, None] / length[..., None]
    across = torch.arange(width, device=points.device, dtype=points.dtype) + 0.5
    along = torch.arange(height, device=points.device, dtype=points.dtype) + 0.5
    away = torch.stack(torch.meshgrid(across, along, indexing="xy"), -1) - mouth[:, None, None]
    y = (away * down).sum(-1) / length
    x = (away[..., 0] * down[..., 1] - away[..., 1] * down[..., 0]) / length
    return x, y, 1 / length


def _rod(
    x: Tensor, y: Tensor, start: tuple[float, float], end: tuple[float, float], radius: float
) -> Tensor:
    """Distance to the edge of a rod with round ends, > 0 inside."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = (((x - start[0]) * dx + (y - start[1]) * dy) / max(dx * dx + dy * dy, 1e-9)).clamp(0, 1)
    return (
        radius
        - ((x - start[0] - share * dx).square() + (y - start[1] - share * dy).square()).sqrt()
    )


def _grain(x: Tensor, y: Tensor, waves: float) -> Tensor:
    """A pattern in [-1,1] that stays with the thing."""
    return (waves * x).sin() * (waves * y).sin() + 0.5 * (2.3 * waves * (x + 0.4 * y)).sin() * (
        waves * 1.7 * y
    ).cos()


def _coloured(shade: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """(N,3,H,W) of shades (N,H,W)."""
    return shade[:, None] * shade.new_tensor(colour)[:, None, None]


def _microphone(x: Tensor, y: Tensor, *, metal: bool) -> tuple[Tensor, Tensor]:
    """A ball of a third of the line's length, on a rod that comes from below."""
    ball, shaft = _rod(x, y, (0, 0.2), (0, 0.2), 0.32), _rod(x, y, (0, 0.2), (0.3, 3), 0.17)
    if not metal:
        shade = 0.09 + 0.03 * _grain(x, y, 50) + 0.1 * (ball.clamp_min(0) - 0.1 * x)
        return _coloured(shade, (1, 1, 1.05)), torch.maximum(ball, shaft)
    shade = 0.5 + 0.12 * _grain(x, y, 60) + 0.35 * (-((x + 0.12) / 0.08).square()).exp() - 0.4 * x
    return _coloured(shade, (0.96, 1, 1.04)), torch.maximum(ball, shaft)


def _hand(x: Tensor, y: Tensor, skin: Tensor) -> tuple[Tensor, Tensor]:
    """Four fingers that lie across the mouth from the right, and the back of the hand; a little
    redder and darker than ``skin`` (N,3)."""
    rows = (-0.27, -0.04, 0.19, 0.41)
    tips = (-0.42, -0.55, -0.5, -0.32)
    fingers = torch.stack(
        [
            _rod(x, y, (tip, row), (0.8, row * 1.1), 0.125)
            for tip, row in zip(tips, rows, strict=True)
        ]
    )
    back = _rod(x, y, (1.05, 0.05), (1.7, 0.3), 0.5)
    inside = torch.maximum(fingers.amax(0), back)
    # the edges of a finger are in the shade of its neighbours
    between = (fingers.amax(0) / 0.05).clamp(0, 1)
    shade = 0.97 * (
        0.62
        + 0.38 * torch.where(back > 0, torch.maximum(between, (back / 0.1).clamp(0, 1)), between)
    )
    shade = shade * (1 + 0.03 * _grain(x, y, 25))
    return shade[:, None] * (skin * skin.new_tensor([1.03, 0.98, 0.97]))[:, :, None, None], inside


def _hair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Strands that fall from above on one side and lie slantwise over the mouth."""
    bow = x + 0.25 * (1.5 * y).sin() - 0.12
    strands = [
        0.04 + 0.012 * i - (bow - 0.17 * i + 0.05 * (5 * y + i).sin()).abs() for i in range(-2, 3)
    ]
    inside = torch.stack(strands).amax(0)
    shade = 0.13 + 0.06 * (90 * bow).sin()
    return _coloured(shade, (1.2, 0.95, 0.8)), inside


def _scarf(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Dark cloth in folds, from under the nose down."""
    inside = y + 0.22 - 0.1 * x.square() + 0.03 * (6 * x).sin()
    shade = 0.16 + 0.05 * (14 * (y + 0.3 * x.square())).sin() + 0.02 * _grain(x, y, 70)
    return _coloured(shade, (0.7, 0.8, 1.2)), inside


def _skin(pixels: Tensor, points: Tensor) -> Tensor:
    """(N,3) the mean colour of the cheeks."""
    x, y, _ = _places(points, pixels.shape[2], pixels.shape[3])
    cheeks = (0.02 - (x.abs() - 0.38).square() - (y + 0.42).square() > 0).to(pixels.dtype)[:, None]
    return (pixels * cheeks).sum((2, 3)) / cheeks.sum((2, 3)).clamp_min(1)
