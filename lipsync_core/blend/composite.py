"""Put generated faces back into their frames."""

from typing import Literal

import torch
from torch import Tensor

from ..geometry import compose, put, region_of, take, translation, warp
from ..types import Frames

BlendKind = Literal["paste", "feather"]


def composite(
    frames: Frames, generated: Tensor, *, crop_to_frame: Tensor, mask: Tensor, blend: BlendKind = "feather"
) -> Frames:
    """Frames in which the faces are ``generated`` where ``mask`` is 1 and untouched, bit for bit, where it is 0.

    generated (N,3,S,S) in [0,1]; mask (N,1,S,S) in [0,1]; crop_to_frame (N,2,3). ``paste`` takes every pixel from one side
    (mask above a half or not), ``feather`` mixes. Only the region under the masks is converted to float.
    """
    counts = (frames.pixels.shape[0], generated.shape[0], mask.shape[0], crop_to_frame.shape[0])
    if len(set(counts)) > 1:
        raise ValueError("frames, faces, masks, maps number {}, {}, {}, {}; wanted as many of each".format(*counts))
    box = _extent(mask)
    if box is None:
        return frames
    region = region_of(crop_to_frame, box)
    to_patch = compose(translation(-region.origin.to(crop_to_frame)), crop_to_frame)
    size = (region.height, region.width)
    faces = warp(generated, to_patch, size)
    alpha = warp(mask, to_patch, size, padding="zeros")  # outside its crop a mask is 0
    if blend == "paste":
        alpha = (alpha > 0.5).to(alpha.dtype)
    patch = take(frames.pixels, region)
    return Frames(
        put(frames.pixels, region, torch.lerp(patch, faces.to(patch.dtype), alpha.to(patch.dtype))), frames.start
    )


def _extent(mask: Tensor) -> tuple[float, float, float, float] | None:
    """The rectangle (xyxy, crop pixels) that holds everything above 0, and a pixel more for the interpolation."""
    seen = (mask > 0).any(0)[0]
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        return None
    return float(columns[0]) - 1, float(rows[0]) - 1, float(columns[-1]) + 2, float(rows[-1]) + 2
