"""Overlap of boxes: intersection over union, its generalized form, non-maximum suppression."""

import torch
from torch import Tensor


def box_iou(a: Tensor, b: Tensor, *, extra_px: float = 0.0) -> Tensor:
    """Compute the intersection over union of every pair of boxes.

    Args:
        a: (F,4) xyxy boxes.
        b: (G,4) xyxy boxes.
        extra_px: added to every side; 1 where a peer counts the last pixel as inside.

    Returns:
        (F,G) values in [0,1].
    """
    low, high = a[:, None, :2].maximum(b[:, :2]), a[:, None, 2:].minimum(b[:, 2:])
    common = (high - low + extra_px).clamp(min=0).prod(-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2] + extra_px).prod(-1) for x in (a, b))
    return common / (area_a[:, None] + area_b - common)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Compute the generalized intersection over union of paired boxes (Rezatofighi et al. 2019).

    Args:
        a: (P,4) xyxy boxes.
        b: (P,4) xyxy boxes.

    Returns:
        (P,) values in [-1,1].
    """
    low, high = a[:, :2].maximum(b[:, :2]), a[:, 2:].minimum(b[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = (a[:, 2:] - a[:, :2]).prod(-1) + (b[:, 2:] - b[:, :2]).prod(-1) - common
    hull = (a[:, 2:].maximum(b[:, 2:]) - a[:, :2].minimum(b[:, :2])).prod(-1)
    return common / union - (hull - union) / hull


def suppress(boxes: Tensor, max_overlap: float, *, extra_px: float = 0.0) -> Tensor:
    """Keep the boxes that no better kept box overlaps too much (non-maximum suppression).

    Args:
        boxes: (K,4) xyxy boxes, best first.
        max_overlap: largest intersection over union that two kept boxes may have.
        extra_px: see ``box_iou``.

    Returns:
        (F,) rising indices of the kept boxes.
    """
    left = torch.arange(len(boxes))
    kept: list[int] = []
    while left.numel() > 0:  # one turn per face, not per candidate
        best = int(left[0])
        kept.append(best)
        left = left[1:]
        overlap = box_iou(boxes[best : best + 1], boxes[left], extra_px=extra_px)[0]
        left = left[overlap <= max_overlap]
    return torch.tensor(kept, dtype=torch.long)
