"""Put generated faces back into their frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import apply_to_planes, place_patches, scale_of
from ..image.crop import (
    bounds_of,
    enlarge,
    pixel_grid,
    sample_affine,
    sample_window,
    warp_crops,
)
from ..image.yuv import from_rgb
from ..types import AnyFrames, Frames, YuvFrames
from .texture import Place, Texture, add_texture

Edge = Literal["paste", "feather"]


@dataclass(frozen=True, slots=True, eq=False)
class PixelSource:
    """Pictures that the pixels of generated faces are moved from.

    Nothing is filtered: a face that is twice as large in its picture loses sharpness to aliasing.

    Attributes:
        offset: (N,2,S,S) crop px (x, y) from each pixel to the place that it takes its value from.
        weight: (N,1,S,S) in [0,1], how much of that value is used; the rest is what lies below:
            the painted face, or the sources before this one.
        pictures: One single frame for each face, of the pixel format of the frames that are
            composited and of any size; the same picture may serve several faces. None: the frames
            themselves.
        crop_to_picture: (N,2,3) where the crops lie in these pictures; None with ``pictures`` None.
        crops: (N,3,S,S) the crops of these pictures, for the seam correction; None: those of the
            frames.
    """

    offset: Tensor
    weight: Tensor
    pictures: Sequence[Frames | YuvFrames] | None = None
    crop_to_picture: Tensor | None = None
    crops: Tensor | None = None

    def limit(self, share: Tensor) -> "PixelSource":
        """Return the source with movement and paint scaled by (N,1,S,S) in [0,1].

        At 0 each pixel stays where it is and nothing below the source is seen.
        """
        return replace(self, offset=self.offset * share, weight=1 - (1 - self.weight) * share)


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Faces in crop space that are to be put into frames.

    Attributes:
        face: (N,3,S,S) RGB in [0,1], the painted faces.
        mask: (N,1,S,S) in [0,1]: 0 keeps the frame, bit for bit.
        crop_to_frame: (N,2,3) maps.
        sources: Pictures whose pixels are moved, in order, each over the ones before.
        seam: (N,3,S,S) seam correction, subtracted from the face (see ``blend.seamless``).
    """

    face: Tensor
    mask: Tensor
    crop_to_frame: Tensor
    sources: tuple[PixelSource, ...] = ()
    seam: Tensor | None = None


def warp_faces(face: Tensor, crops: Sequence[Tensor], sources: Sequence[PixelSource]) -> Tensor:
    """Compute generated faces at the resolution of their crops.

    Args:
        face: (N,3,S,S) the painted faces.
        crops: The crops (N,3,S,S) of the pictures of each source.
        sources: Pictures whose pixels are moved.

    Returns:
        (N,3,S,S) faces.
    """
    for crop, source in zip(crops, sources, strict=True):
        face = torch.lerp(face, warp_crops(crop, source.offset), source.weight)
    return face


def composite(
    frames: AnyFrames,
    patch: Patch,
    *,
    edge: Edge = "feather",
    strength: float | Tensor = 1.0,
    texture: Texture | None = None,
) -> AnyFrames:
    """Put faces into frames under their masks, at the frames' own resolution.

    Frame by frame: only the part under a mask is touched, and it fits into the cache.

    Args:
        frames: N frames; they are not changed.
        patch: N faces.
        edge: ``paste`` takes every pixel from one side (mask above 0.5 or not), ``feather`` mixes.
        strength: Opacity in [0,1] of the faces under the mask, one for all or (N,).
        texture: Fine detail that painted faces get back; those with sources have their own.

    Returns:
        The frames with their faces; where the mask is 0 no bit differs.

    Raises:
        ValueError: If numbers of frames, faces, masks or pictures disagree, if pictures are of
            another pixel format than the frames, or if a strength is outside [0,1].
    """
    _check_counts(frames, patch)
    strengths = _list_strengths(strength, len(patch.mask))
    extents = _find_extents(patch.mask) if any(strengths) else None
    if extents is None:
        return frames
    out = replace(frames, pixels=frames.pixels.clone())
    for group in _split_planes(frames, out, patch):
        # chroma has no detail to speak of
        fine = None if group.scale < 1 or patch.sources else texture
        _composite_planes(group, patch, extents, edge, strengths, fine)
    return out


def _check_counts(frames: Frames | YuvFrames, patch: Patch) -> None:
    counts = [len(x) for x in (frames.pixels, patch.face, patch.mask, patch.crop_to_frame)]
    if len(set(counts)) > 1:
        raise ValueError(
            "frames, faces, masks, maps number {}, {}, {}, {}; expected as many of each".format(
                *counts
            )
        )
    for source in patch.sources:
        _check_pictures(source, frames)


def _check_pictures(source: PixelSource, frames: Frames | YuvFrames) -> None:
    pictures, maps, expected = source.pictures, source.crop_to_picture, len(source.offset)
    if pictures is None and maps is None:
        return
    counts = [0 if part is None else len(part) for part in (pictures, maps)]
    if pictures is None or counts != [expected, expected]:
        raise ValueError(
            "pictures, their maps number {}, {}; expected {} of both, or none".format(
                *counts, expected
            )
        )
    formats = {_describe_format(picture) for picture in pictures}
    if formats != {_describe_format(frames)} or any(len(p.pixels) != 1 for p in pictures):
        raise ValueError(
            f"pictures are {sorted(formats)}; expected single ones of the frames' format: "
            f"{_describe_format(frames)}"
        )


def _describe_format(picture: Frames | YuvFrames) -> str:
    colors = picture.colour if isinstance(picture, YuvFrames) else "RGB"
    return f"{picture.pixels.dtype} of {colors}"


def _list_strengths(strength: float | Tensor, count: int) -> list[float]:
    values = strength.tolist() if isinstance(strength, Tensor) else [float(strength)] * count
    if len(values) != count or not all(0 <= value <= 1 for value in values):
        raise ValueError(
            f"strength is {strength}; expected 0 (the source) to 1 (the generated face), one or "
            f"{count} of them"
        )
    return values


@dataclass(frozen=True, slots=True, eq=False)
class _PlaneGroup:
    """The planes of frames that have one resolution, and the faces in the same values.

    Crops (N,?,S+2,S+2) have a rim of one pixel: outside its crop a mask is 0, so that the rim is 0
    and the repeated border of a warp continues it.

    Attributes:
        planes: (N,C,H,W) of the frames.
        out: (N,C,H,W), a view of the result, which is written.
        smooth: Crops of what varies slowly: the mask, with sources also x and y in each source's
            picture in px of these planes, and last the C values of the seam correction, if any.
        sharp: Crops of what has fine detail: C values of the painted face, and the weights of the
            K sources; ``paint`` says for which faces.
        paint: Whether each face has painted pixels; the weight of its only source is 1 if not.
        pictures: For each source the planes (C,H,W) of each face's picture.
        scale: Pixels of these planes per pixel of the frame.
        top: The largest value.
    """

    planes: Tensor
    out: Tensor
    smooth: Tensor
    sharp: Tensor
    paint: Sequence[bool]
    pictures: Sequence[Sequence[Tensor] | Tensor]
    scale: float
    top: int


def _split_planes(
    frames: Frames | YuvFrames, out: Frames | YuvFrames, patch: Patch
) -> list[_PlaneGroup]:
    """Return one group for RGB, and luma and chroma for YUV frames."""
    face, seam, (rest, weights) = patch.face, patch.seam, _share_out(patch.sources)
    if rest is None and seam is not None:
        face, seam = face - seam, None
    paint = [True] * len(face)
    if rest is not None and len(patch.sources) == 1:
        paint = rest.flatten(1).any(1).tolist()
    face = face.clamp(0, 1)
    if isinstance(frames, YuvFrames):
        # converting takes time, and most faces are moved alone
        face = from_rgb(face, frames.colour) if any(paint) else face
        if seam is not None:
            seam = from_rgb(seam, frames.colour) - from_rgb(0 * seam[:1, :, :1, :1], frames.colour)
        scales, tops, cuts = (1.0, 0.5), (255, 255), (0, 1, 3)
    else:
        top = 255 if out.pixels.dtype == torch.uint8 else 1
        face, seam = face * top, None if seam is None else seam * top
        scales, tops, cuts = (1.0,), (top,), (0, 3)
    if rest is not None and any(paint):
        face = face * rest
    mask = F.pad(patch.mask, (1, 1, 1, 1))
    places = [_locate_pixels(source, patch.crop_to_frame) for source in patch.sources]
    groups: list[_PlaneGroup] = []
    for number, (first, last) in enumerate(pairwise(cuts)):
        planes = _planes_of(frames)[number]
        pictures = [
            planes
            if source.pictures is None
            else [_planes_of(p)[number][0] for p in source.pictures]
            for source in patch.sources
        ]
        smooth = [
            mask,
            *(place if scales[number] == 1 else place * scales[number] for place in places),
        ]
        sharp = [face[:, first:last], *([] if weights is None else [weights])]
        if seam is not None:
            smooth.append(_add_rim(seam[:, first:last]))
        groups.append(
            _PlaneGroup(
                planes,
                _planes_of(out)[number],
                torch.cat(smooth, 1),
                _add_rim(torch.cat(sharp, 1)) if any(paint) else face,
                paint,
                pictures,
                scales[number],
                tops[number],
            )
        )
    return groups


def _share_out(sources: Sequence[PixelSource]) -> tuple[Tensor | None, Tensor | None]:
    """Return (N,1,S,S) what sources leave of the painted face, and (N,K,S,S) their own shares."""
    rest: Tensor | None = None
    shares: list[Tensor] = []
    for source in reversed(sources):  # each lies over the ones before
        left = 1 - source.weight
        shares.append(source.weight if rest is None else source.weight * rest)
        rest = left if rest is None else rest * left
    return rest, torch.cat(shares[::-1], 1) if shares else None


def _planes_of(frames: Frames | YuvFrames) -> list[Tensor]:
    """Return views (N,C,H,W) of the planes, those of one resolution together."""
    if isinstance(frames, YuvFrames):
        return [frames.luma, frames.chroma]
    return [frames.pixels.permute(0, 3, 1, 2)]


def _add_rim(x: Tensor) -> Tensor:
    return F.pad(x, (1, 1, 1, 1), mode="replicate")


def _locate_pixels(source: PixelSource, crop_to_frame: Tensor) -> Tensor:
    """Return (N,2,S+2,S+2) places in pictures that the pixels of crops with rims come from."""
    map_ = crop_to_frame if source.crop_to_picture is None else source.crop_to_picture
    offset = _add_rim(source.offset)
    height, width = offset.shape[2:]
    return apply_to_planes(map_, pixel_grid(height, width, offset) - 1 + offset)


def _composite_planes(
    group: _PlaneGroup,
    patch: Patch,
    extents: Tensor,
    edge: Edge,
    strengths: list[float],
    texture: Texture | None,
) -> None:
    """Write the faces into the planes ``group.out``."""
    height, width = group.planes.shape[2:]
    crop_to_planes = patch.crop_to_frame * group.scale
    scales = scale_of(crop_to_planes).tolist()
    # what varies slowly is warped at twice the resolution of the crops, and enlarged
    steps = [max(1, int(scale / 2)) if patch.sources else 1 for scale in scales]
    boxes, grids, squares = place_patches(
        crop_to_planes, extents, (width, height), patch.mask.shape[-1], steps=steps, rim=1
    )
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        if x1 <= x0 or y1 <= y0 or not strengths[i]:
            continue
        size = (y1 - y0, x1 - x0)
        coarse = sample_affine(group.smooth[i : i + 1], squares[0][i : i + 1], grids[i])[0]
        sharp = None
        if group.paint[i]:
            sharp = sample_affine(group.sharp[i : i + 1], squares[1][i : i + 1], size)[0]
        here = (i, slice(None), slice(y0, y1), slice(x0, x1))
        old = group.planes[here]
        old = old.to(torch.promote_types(old.dtype, coarse.dtype))
        place = None if texture is None else Place(texture.index[i], x0, y0, scales[i])
        smooth = enlarge(coarse, steps[i], size)
        alpha, face = smooth[:1], _render_face(group, i, coarse, smooth, sharp)
        if texture is not None and place is not None:
            face = add_texture(face, old.to(face.dtype), place, texture=texture, top=group.top)
        face, alpha = face.clamp_(0, group.top).to(old.dtype), alpha.to(old.dtype)
        if edge == "paste":
            alpha = (alpha > 0.5).to(alpha.dtype)
        new = torch.lerp(old, face, alpha if strengths[i] == 1 else alpha * strengths[i])
        group.out[here] = new if group.out.is_floating_point() else new.round_()


def _render_face(
    group: _PlaneGroup, number: int, coarse: Tensor, smooth: Tensor, sharp: Tensor | None
) -> Tensor:
    """Return (C,h,w) a face in its frame: paint and moved pixels, less the seam correction.

    Args:
        group: The planes.
        number: Of the face.
        coarse: (?,h',w') the layers of ``group.smooth``, before they were enlarged.
        smooth: (?,h,w) the same afterwards; overwritten.
        sharp: (?,h,w) the layers of ``group.sharp``; None for a face without paint.
    """
    colors, count = group.planes.shape[1], len(group.pictures)
    face = None if sharp is None else sharp[:colors]
    for k, pictures in enumerate(group.pictures):
        at = slice(1 + 2 * k, 3 + 2 * k)
        moved = sample_window(pictures[number], smooth[at], bounds_of(coarse[at]))
        if face is None or sharp is None:
            face = moved
        else:
            face = torch.addcmul(face, moved, sharp[colors + k : colors + k + 1])
    assert face is not None
    seam = smooth[1 + 2 * count :]
    return face.sub_(seam) if len(seam) else face


def _find_extents(mask: Tensor) -> Tensor | None:
    """Return (N,4) rectangles (xyxy, crop px) that hold all of a mask above 0, or None.

    A pixel larger for the interpolation, and a hundredth more, which keeps their corners off whole
    pixels of frames, where the last bit of a map would decide how large a part is.
    """
    covered = mask[:, 0] > 0
    if not covered.any():
        return None
    sides = [covered.any(1), covered.any(2)]  # columns, rows
    size = mask.shape[-1]
    low = torch.stack([side.int().argmax(1) for side in sides], 1)
    high = size - torch.stack([side.int().flip(1).argmax(1) for side in sides], 1)
    return torch.cat([low - 1.01, high + 1.01], 1).to(mask.dtype)
