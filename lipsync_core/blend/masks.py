"""Masks of the part of a face that is redrawn, in crop space."""

from typing import Literal

import torch
from torch import Tensor

from ..image.crop import pixel_grid

MaskKind = Literal["mouth", "lower", "face", "box"]


def face_mask(
    kind: MaskKind,
    points: Tensor,
    size: int,
    *,
    feather: float | Tensor = 0.08,
    inset: float | Tensor = 0.0,
) -> Tensor:
    """(N,1,S,S) masks in [0,1] for crops whose five points lie at ``points`` (N,5,2) crop pixels.

    ``mouth``: an ellipse from under the nose to the chin; ``lower``: the lower half of the crop;
    ``face``: an ellipse over brows and chin; ``box``: the whole crop. ``feather``, one or (N,) of
    them, is the width of the soft edge as a part of the crop's side; 0 gives a hard one. ``inset``,
    likewise, moves the edge inwards. Soft edges lie inside the crop: its border is 0.
    """
    if kind not in ("mouth", "lower", "face", "box"):
        raise ValueError(f"mask is {kind!r}; wanted mouth, lower, face or box")
    n = points.shape[0]
    axis = torch.arange(size, device=points.device, dtype=points.dtype) + 0.5
    if kind in ("mouth", "face"):
        inside = _ellipse(
            kind, points, pixel_grid(size, size, points)
        )  # signed distance in px, > 0 inside
    else:
        inside = points.new_full((n, size, size), float(size))
        if kind == "lower":
            inside = inside.minimum((axis - size // 2)[:, None].expand(size, size))
    if not isinstance(feather, Tensor) and feather <= 0:
        return (inside > _each(inset) * size)[:, None].to(points.dtype)
    return soft_edge(inside, feather, inset)[:, None]


def soft_edge(inside: Tensor, feather: float | Tensor, inset: float | Tensor = 0.0) -> Tensor:
    """(N,S,S) from 0 at the distance ``inset`` of the side to 1 at ``feather`` of it more, one or
    (N,) of each, S shaped; ``inside`` (N,S,S) in px. The crop's border, an edge too, is 0."""
    size = inside.shape[-1]
    feather, inset = _each(feather), _each(inset)
    if isinstance(feather, Tensor):
        feather = feather.clamp_min(1 / size)  # a pixel, which is as good as hard
    axis = torch.arange(size, device=inside.device, dtype=inside.dtype) + 0.5
    border = torch.minimum(axis, size - axis)
    border = torch.minimum(border[:, None], border[None]) - 0.5
    less = inset.clamp_min(0) if isinstance(inset, Tensor) else max(inset, 0)
    x = (torch.minimum(inside - inset * size, border - less * size) / (feather * size)).clamp(0, 1)
    return x * x * (3 - 2 * x)


def _each(value: float | Tensor) -> float | Tensor:
    return value[:, None, None] if isinstance(value, Tensor) else value


def _ellipse(kind: str, points: Tensor, grid: Tensor) -> Tensor:
    """(N,S,S) approximate signed distance to an ellipse that is set by the eyes and the mouth."""
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    down = mouth - eyes
    length = down.norm(dim=1).clamp_min(1e-6)
    unit = down / length[:, None]
    # in units of the distance from the eyes to the mouth: the chin lies near 1.6, wide open near
    # 1.9
    centre, across, along = (1.2, 0.80, 0.70) if kind == "mouth" else (0.75, 0.95, 1.15)
    offset = grid.permute(1, 2, 0) - (eyes + down * centre)[:, None, None]
    v = (offset * unit[:, None, None]).sum(-1) / (length * along)[:, None, None]
    u = (offset[..., 0] * unit[:, None, None, 1] - offset[..., 1] * unit[:, None, None, 0]) / (
        length * across
    )[:, None, None]
    return (1 - (u.square() + v.square()).sqrt()) * (length * min(across, along))[:, None, None]
