"""Put generated faces back into their frames."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import apply, bounds, compose, translation, warp, within
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
        share, offset = (F.pad(x, (1, 1, 1, 1), mode="replicate") for x in (movement.share, movement.offset))
        layers += [share, _sources(offset, crop_to_frame)]
    stack = torch.cat(layers, 1)
    rimmed = compose(crop_to_frame, translation(crop_to_frame.new_full((len(out), 2), -1)))
    for i, (x0, y0, x1, y1) in enumerate(bounds(crop_to_frame, extent)):
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
        if x1 <= x0 or y1 <= y0:
            continue
        to_part = compose(translation(crop_to_frame.new_tensor([[-x0, -y0]])), rimmed[i : i + 1])
        layer = warp(stack[i : i + 1], to_part, (y1 - y0, x1 - x0))[0]
        alpha, face, share, source = layer[:1], layer[1:4], layer[4:5], layer[5:]
        here = (i, slice(y0, y1), slice(x0, x1))
        old = frames.pixels[here].permute(2, 0, 1)
        old = old.to(torch.promote_types(old.dtype, face.dtype))
        if movement is not None:
            face = torch.lerp(face, _pulled(frames.pixels[i], source), share)
        face, alpha = face.to(old.dtype), alpha.to(old.dtype)
        new = torch.where(alpha > 0.5, face, old) if blend == "paste" else torch.lerp(old, face, alpha)
        out[here] = (new.round_() if full == 255 else new).permute(1, 2, 0)
    return Frames(out, frames.start)


def _sources(offset: Tensor, crop_to_frame: Tensor) -> Tensor:
    """(N,2,S+2,S+2) where in its frame each place of a crop and its rim takes its pixel from: ``offset`` crop px away."""
    axis = torch.arange(offset.shape[3], device=offset.device, dtype=offset.dtype) - 0.5
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy")) + offset
    return apply(crop_to_frame, places.flatten(2).mT).mT.unflatten(2, offset.shape[2:])


def _pulled(frame: Tensor, source: Tensor) -> Tensor:
    """(3,h,w) the pixels of a frame (H,W,3) at ``source`` (2,h,w), which is overwritten."""
    height, width, _ = frame.shape
    left, top, right, bottom = (int(v) for v in torch.cat([source.amin((1, 2)), source.amax((1, 2))]).tolist())
    x0, y0, x1, y1 = within((left - 1, top - 1, right + 2, bottom + 2), width, height)
    patch = frame[y0:y1, x0:x1].permute(2, 0, 1)[None].to(source.dtype)
    unit = source.new_tensor([2 / (x1 - x0), 2 / (y1 - y0)])[:, None, None]
    grid = source.sub_(source.new_tensor([x0, y0])[:, None, None]).mul_(unit).sub_(1)
    return F.grid_sample(patch, grid.permute(1, 2, 0)[None], padding_mode="border", align_corners=False)[0]


def _extent(mask: Tensor) -> tuple[float, float, float, float] | None:
    """The rectangle (xyxy, crop pixels) that holds everything above 0, and a pixel more for the interpolation."""
    seen = (mask > 0).any(0)[0]
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    if not len(rows):
        return None
    return float(columns[0]) - 1, float(rows[0]) - 1, float(columns[-1]) + 2, float(rows[-1]) + 2
