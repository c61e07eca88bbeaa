"""Put generated faces back into their frames."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import bounds, compose, translation, warp
from ..types import Frames

BlendKind = Literal["paste", "feather"]


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """How a face is made of its own frame: ``offset`` (N,2,S,S), from where in crop pixels (x, y) each place takes its
    pixel, and ``share`` (N,1,S,S) in [0,1] of that pixel, the rest being what was generated."""

    offset: Tensor
    share: Tensor


def composite(
    frames: Frames,
    generated: Tensor,
    *,
    crop_to_frame: Tensor,
    mask: Tensor,
    blend: BlendKind = "feather",
    movement: Movement | None = None,
) -> Frames:
    """Frames in which the faces are ``generated`` where ``mask`` is 1 and untouched, bit for bit, where it is 0.

    generated (N,3,S,S) in [0,1]; mask (N,1,S,S) in [0,1]; crop_to_frame (N,2,3). ``paste`` takes every pixel from one side
    (mask above a half or not), ``feather`` mixes. movement: moves the frames' own pixels, at their own resolution. Frame
    by frame: only the part under a mask is touched, and it fits into the cache.
    """
    counts = (frames.pixels.shape[0], generated.shape[0], mask.shape[0], crop_to_frame.shape[0])
    if len(set(counts)) > 1:
        raise ValueError("frames, faces, masks, maps number {}, {}, {}, {}; wanted as many of each".format(*counts))
    extent = _extent(mask)
    if extent is None:
        return frames
    out = frames.pixels.clone()
    _, height, width, _ = out.shape
    full = 255 if out.dtype == torch.uint8 else 1
    # outside its crop a mask is 0: a rim says so, which the warp's repeated border then carries on
    layers = [F.pad(mask, (1, 1, 1, 1)), F.pad(generated.clamp(0, 1) * full, (1, 1, 1, 1), mode="replicate")]
    if movement is not None:
        offset = torch.einsum("nij,njhw->nihw", crop_to_frame[:, :, :2], movement.offset)  # in frame pixels
        layers.append(F.pad(torch.cat([movement.share, offset], 1), (1, 1, 1, 1), mode="replicate"))
    stack = torch.cat(layers, 1)
    rimmed = compose(crop_to_frame, translation(crop_to_frame.new_full((len(out), 2), -1)))
    for i, (x0, y0, x1, y1) in enumerate(bounds(crop_to_frame, extent)):
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x1 <= x0 or y1 <= y0:
            continue
        to_part = compose(translation(crop_to_frame.new_tensor([[-x0, -y0]])), rimmed[i : i + 1])
        layer = warp(stack[i : i + 1], to_part, (y1 - y0, x1 - x0))[0]
        alpha, face, share, offset = layer[:1], layer[1:4], layer[4:5], layer[5:]
        here = (i, slice(y0, y1), slice(x0, x1))
        old = frames.pixels[here].permute(2, 0, 1).to(face.dtype)
        if movement is not None:
            face = torch.lerp(face, _pulled(frames.pixels[i], (x0, y0), offset), share)
        new = torch.where(alpha > 0.5, face, old) if blend == "paste" else torch.lerp(old, face, alpha)
        out[here] = (new.round_() if full == 255 else new).permute(1, 2, 0)
    return Frames(out, frames.start)


def _pulled(frame: Tensor, origin: tuple[int, int], offset: Tensor) -> Tensor:
    """(3,h,w) the pixels of a frame (H,W,3) that lie ``offset`` (2,h,w) px from the part at ``origin``."""
    height, width, _ = frame.shape
    _, h, w = offset.shape
    reach = int(offset.abs().amax()) + 2
    x0, y0 = max(origin[0] - reach, 0), max(origin[1] - reach, 0)
    x1, y1 = min(origin[0] + w + reach, width), min(origin[1] + h + reach, height)
    patch = frame[y0:y1, x0:x1].permute(2, 0, 1)[None].to(offset.dtype)
    x = torch.arange(w, device=frame.device) + (origin[0] - x0 + 0.5) + offset[0]
    y = torch.arange(h, device=frame.device)[:, None] + (origin[1] - y0 + 0.5) + offset[1]
    grid = torch.stack([x * (2 / (x1 - x0)) - 1, y * (2 / (y1 - y0)) - 1], -1)
    return F.grid_sample(patch, grid[None], padding_mode="border", align_corners=False)[0]


def _extent(mask: Tensor) -> tuple[float, float, float, float] | None:
    """The rectangle (xyxy, crop pixels) that holds everything above 0, and a pixel more for the interpolation."""
    seen = (mask > 0).any(0)[0]
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        return None
    return float(columns[0]) - 1, float(rows[0]) - 1, float(columns[-1]) + 2, float(rows[-1]) + 2
