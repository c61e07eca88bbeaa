"""Take burnt-in captions and logos out of pictures, and lay them over finished ones again."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import Box
from ..types import AnyFrames, Frames, Overlays, YuvFrames, size_of

_MARGIN = 16  # px round an overlay from which it is filled


def draw_overlay(overlays: Overlays, number: int, size: tuple[int, int]) -> tuple[Box, Tensor]:
    """Draw a mask at the resolution of frames.

    Args:
        overlays: Of a face.
        number: Of the mask.
        size: Height and width of the frames.

    Returns:
        The rectangle of the frame that it covers, of even sides and corners, and (h,w) in [0,1] how
        much the overlay covers.
    """
    height, width = (-(-side // 2) * 2 for side in size)
    x0, y0, x1, y1 = overlays.places[number].tolist()
    left, top = max(int(x0) // 2 * 2 - _MARGIN, 0), max(int(y0) // 2 * 2 - _MARGIN, 0)
    right = min(-(-int(x1 + 1) // 2) * 2 + _MARGIN, width)
    bottom = min(-(-int(y1 + 1) // 2) * 2 + _MARGIN, height)
    mask = overlays.masks[number]
    high, wide = mask.shape
    x = ((torch.arange(left, right) + 0.5 - x0) / (x1 - x0)) * 2 - 1
    y = ((torch.arange(top, bottom) + 0.5 - y0) / (y1 - y0)) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    drawn = F.grid_sample(mask.view(1, 1, high, wide), grid, align_corners=False)[0, 0]
    return (left, top, right, bottom), drawn


class OverlayCover:
    """The overlays of one face in the frames of a stream.

    Args:
        overlays: By the stream's frames.
    """

    def __init__(self, overlays: Overlays) -> None:
        self._overlays = overlays
        self._drawn: dict[tuple[int, tuple[int, int]], tuple[Box, Tensor]] = {}

    def at(self, index: Tensor, size: tuple[int, int]) -> list[tuple[Box, Tensor] | None]:
        """Return what lies over each of the frames ``index`` (N,); None for nothing."""
        numbers = self._overlays.index[index].tolist()
        used = {number for number in numbers if number >= 0}
        self._drawn = {
            (number, size): self._drawn.get((number, size))
            or draw_overlay(self._overlays, number, size)
            for number in used
        }
        return [None if number < 0 else self._drawn[number, size] for number in numbers]


Cover = Sequence[tuple[Box, Tensor] | None]
"""For each frame the rectangle and the mask (h,w) of what lies over it."""


def fill_overlays(frames: AnyFrames, cover: Cover) -> AnyFrames:
    """Replace what overlays cover by what lies round it.

    Args:
        frames: N frames; they are not changed.
        cover: What lies over them.

    Returns:
        The frames; where no overlay lies no bit differs.
    """
    if not any(cover):
        return frames
    out = replace(frames, pixels=frames.pixels.clone())
    for number, here in enumerate(cover):
        if here is None:
            continue
        for part, mask in _parts(out, number, *here):
            filled = _fill(part.float(), (mask <= 0.02).to(torch.float32))
            part.copy_(filled if part.is_floating_point() else filled.round_())
    return out


def lay_overlays(frames: AnyFrames, clean: AnyFrames, done: AnyFrames, cover: Cover) -> AnyFrames:
    """Lay overlays of source frames over finished ones.

    Args:
        frames: N source frames.
        clean: The same without overlays (``fill_overlays``).
        done: ``clean`` with new mouths; it may be written to.
        cover: What lies over them.

    Returns:
        The finished frames; where ``done`` is as ``clean``, they are as the source bit for bit.
    """
    if not any(cover):
        return done
    out = replace(done, pixels=done.pixels.clone()) if done.pixels is clean.pixels else done
    for number, here in enumerate(cover):
        if here is None:
            continue
        parts = (_parts(some, number, *here) for some in (frames, clean, out))
        for (source, mask), (before, _), (after, _) in zip(*parts, strict=True):
            laid = torch.lerp(after.float(), source.float(), mask)
            laid = laid if after.is_floating_point() else laid.round_()
            after.copy_(torch.where(after == before, source, laid.to(after.dtype)))
    return out


def _parts(
    frames: Frames | YuvFrames, number: int, box: Box, mask: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Views (C,h,w) of the planes of a frame within ``box``, and the mask at their resolution."""
    x0, y0, x1, y1 = box
    mask = mask.to(frames.pixels.device)
    if not isinstance(frames, YuvFrames):
        height, width = size_of(frames)
        part = frames.pixels[number, y0:y1, x0:x1].permute(2, 0, 1)
        return [(part, mask[: height - y0, : width - x0])]
    luma = frames.luma[number, :, y0:y1, x0:x1]
    chroma = frames.chroma[number, :, y0 // 2 : y1 // 2, x0 // 2 : x1 // 2]
    return [(luma, mask), (chroma, F.max_pool2d(mask[None, None], 2)[0, 0])]


def _fill(planes: Tensor, weight: Tensor) -> Tensor:
    """Fill (C,h,w) where ``weight`` (h,w) is 0 by averages of what is near, else of what is far."""
    values, known = planes[None] * weight, weight[None, None]
    levels = [(values, known)]
    while min(levels[-1][1].shape[2:]) > 1 and bool((levels[-1][1] == 0).any()):
        values, known = (F.avg_pool2d(x, 2, ceil_mode=True) for x in levels[-1])
        levels.append((values, known))
    values, known = levels.pop()
    filled = values / known.clamp_min(1e-6)
    while levels:
        values, known = levels.pop()
        size = known.shape[2:]
        far = F.interpolate(filled, scale_factor=2.0, mode="bilinear", align_corners=False)
        share = known.clamp(0, 1)
        filled = values + far[..., : size[0], : size[1]] * (1 - share)
    return filled[0]
