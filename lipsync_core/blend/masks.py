"""Masks of the part of a face that is replaced, from its five points, in crop space."""

import torch
from torch import Tensor

from ..image.crop import pixel_grid
from ..options import MaskKind


def face_mask(
    kind: MaskKind,
    points: Tensor,
    size: int,
    *,
    feather: float | Tensor = 0.08,
    inset: float | Tensor = 0.0,
) -> Tensor:
    """Draw masks by the five points of faces.

    Soft edges lie inside the crop: its border is 0.

    Args:
        kind: ``mouth``: an ellipse from under the nose to the chin. ``lower``: the lower half of
            the crop. ``face``: an ellipse over brows and chin. ``box``: the whole crop.
        points: (N,5,2) crop px.
        size: Side of the crops in px.
        feather: Width of the soft edge as a fraction of the crop's side, one or (N,); 0 for a hard
            edge.
        inset: How far the edge is moved inwards, likewise.

    Returns:
        (N,1,S,S) in [0,1].

    Raises:
        ValueError: For another kind.
    """
    if kind not in ("mouth", "lower", "face", "box"):
        raise ValueError(f"mask is {kind!r}; expected mouth, lower, face or box")
    n = points.shape[0]
    if kind in ("mouth", "face"):
        inside = _ellipse_distance(kind, points, size)
    else:
        inside = points.new_full((n, size, size), float(size))
        if kind == "lower":
            rows = torch.arange(size, device=points.device, dtype=points.dtype) + 0.5
            inside = inside.minimum((rows - size // 2)[:, None].expand(size, size))
    if not isinstance(feather, Tensor) and feather <= 0:
        return (inside > _per_face(inset) * size)[:, None].to(points.dtype)
    return soft_edge(inside, feather, inset)[:, None]


def soft_edge(inside: Tensor, feather: float | Tensor, inset: float | Tensor = 0.0) -> Tensor:
    """Turn signed distances into masks with an S-shaped soft edge.

    The crop's border is an edge, too.

    Args:
        inside: (N,S,S) px to the edge, above 0 inside.
        feather: Width of the soft edge as a fraction of the crop's side, one or (N,).
        inset: Distance at which the mask begins to rise, likewise.

    Returns:
        (N,S,S) in [0,1].
    """
    size = inside.shape[-1]
    feather, inset = _per_face(feather), _per_face(inset)
    if isinstance(feather, Tensor):
        feather = feather.clamp_min(1 / size)  # a pixel, which is as good as hard
    axis = torch.arange(size, device=inside.device, dtype=inside.dtype) + 0.5
    border = torch.minimum(axis, size - axis)
    border = torch.minimum(border[:, None], border[None]) - 0.5
    shift = inset.clamp_min(0) if isinstance(inset, Tensor) else max(inset, 0)
    x = torch.minimum(inside - inset * size, border - shift * size) / (feather * size)
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def _per_face(value: float | Tensor) -> float | Tensor:
    return value[:, None, None] if isinstance(value, Tensor) else value


def _ellipse_distance(kind: str, points: Tensor, size: int) -> Tensor:
    """Return (N,S,S) approximate px to an ellipse by eyes and mouth, above 0 inside."""
    eyes, mouth = points[:, :2].mean(1), points[:, 3:].mean(1)
    down = mouth - eyes
    length = down.norm(dim=1).clamp_min(1e-6)
    unit = down / length[:, None]
    # In units of the distance from the eyes to the mouth: the chin lies near 1.6, with a wide open
    # mouth near 1.9.
    center, across, along = (1.2, 0.80, 0.70) if kind == "mouth" else (0.75, 0.95, 1.15)
    grid = pixel_grid(size, size, points).permute(1, 2, 0)
    offset = grid - (eyes + down * center)[:, None, None]
    v = (offset * unit[:, None, None]).sum(-1) / (length * along)[:, None, None]
    u = (offset[..., 0] * unit[:, None, None, 1] - offset[..., 1] * unit[:, None, None, 0]) / (
        length * across
    )[:, None, None]
    return (1 - (u.square() + v.square()).sqrt()) * (length * min(across, along))[:, None, None]
