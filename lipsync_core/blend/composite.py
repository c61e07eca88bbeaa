"""Put generated faces back into their frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import (
    apply,
    clip_box,
    compose,
    crop_bounds,
    invert,
    scale_of,
    translation,
    unit_maps,
)
from ..image.crop import sample_affine
from ..image.yuv import from_rgb
from ..types import AnyFrames, Frames, YuvFrames
from .texture import Place, Texture, textured

Edge = Literal["paste", "feather"]


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """How a face is made of its own frame: ``offset`` (N,2,S,S), from where in crop pixels (x, y)
    each place takes its pixel, and ``share`` (N,1,S,S) in [0,1] of that pixel, the rest being what
    was generated.

    ``origins``: the pixels come from these pictures instead, one for each face, single frames of
    the kind of the frames that are composited and of any size; one picture may stand for several
    faces. ``crop_to_origin`` (N,2,3): where the crops lie in them. Nothing is filtered: a face that
    is twice as large there loses sharpness to aliasing. ``whole``: the upper half of crops moves as
    well, not the lower one alone."""

    offset: Tensor
    share: Tensor
    origins: Sequence[Frames | YuvFrames] | None = None
    crop_to_origin: Tensor | None = None
    whole: bool = False

    def picture(self, made: Tensor, source: Tensor) -> Tensor:
        """(N,3,S,S) what the face looks like at the resolution of its crop ``source`` (N,3,S,S)."""
        return torch.lerp(made, pull(source, self.offset), self.share)

    def times(self, most: Tensor) -> "Movement":
        """The same where ``most`` (N,1,S,S) in [0,1] is 1, and where it is 0 every pixel stays what
        and where it was."""
        return replace(self, offset=self.offset * most, share=1 - (1 - self.share) * most)


def pull(source: Tensor, offset: Tensor) -> Tensor:
    """(N,C,S,S) the crops ``source`` (N,C,S,S), each place taken from ``offset`` (N,2,S,S) crop px
    away, bilinearly."""
    size = source.shape[-1]
    axis = (torch.arange(size, device=source.device, dtype=source.dtype) + 0.5) * (2 / size) - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy")) + offset * (2 / size)
    return F.grid_sample(
        source, grid.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


def composite(
    frames: AnyFrames,
    generated: Tensor,
    *,
    crop_to_frame: Tensor,
    mask: Tensor,
    blend: Edge = "feather",
    strength: float | Tensor = 1.0,
    movement: Movement | None = None,
    residue: Tensor | None = None,
    texture: Texture | None = None,
) -> AnyFrames:
    """Frames in which the faces are ``generated`` where ``mask`` is 1 and untouched, bit for bit,
    where it is 0.

    generated (N,3,S,S) RGB in [0,1]; mask (N,1,S,S) in [0,1]; crop_to_frame (N,2,3). ``paste``
    takes every pixel from one side (mask above a half or not), ``feather`` mixes. strength in
    [0,1], one or (N,) of them: how much of what was generated is seen under the mask. movement:
    moves the frames' own pixels, or those of its origins, at their own resolution. residue
    (N,3,S,S): is taken off what was generated and moved (see ``seamless``). texture: gives back
    fine detail. Frame by frame: only the part under a mask is touched, and it fits into the cache.
    """
    counts = (frames.pixels.shape[0], generated.shape[0], mask.shape[0], crop_to_frame.shape[0])
    if len(set(counts)) > 1:
        raise ValueError(
            "frames, faces, masks, maps number {}, {}, {}, {}; wanted as many of each".format(
                *counts
            )
        )
    shares = strength.tolist() if isinstance(strength, Tensor) else [float(strength)] * len(mask)
    if len(shares) != len(mask) or not all(0 <= share <= 1 for share in shares):
        raise ValueError(
            f"strength is {strength}; wanted 0 (the source) to 1 (what was generated), one or of each face"
        )
    extents = _extents(mask) if any(shares) else None
    if extents is None:
        return frames
    if movement is None and residue is not None:
        generated, residue = generated - residue, None
    origins = None if movement is None else _origin_planes(movement, frames)
    out = replace(frames, pixels=frames.pixels.clone())
    made = generated.clamp(0, 1)
    if isinstance(frames, YuvFrames) and isinstance(out, YuvFrames):
        made = from_rgb(made, frames.colour)
        less = (
            None
            if residue is None
            else from_rgb(residue, frames.colour) - from_rgb(0 * residue[:1], frames.colour)
        )
        sides = [
            _Side(
                frames.luma, out.luma, made[:, :1], less if less is None else less[:, :1], 1.0, 255
            ),
            _Side(
                frames.chroma,
                out.chroma,
                made[:, 1:],
                less if less is None else less[:, 1:],
                0.5,
                255,
            ),
        ]
    else:
        top = 255 if out.pixels.dtype == torch.uint8 else 1
        planes, written = (x.pixels.permute(0, 3, 1, 2) for x in (frames, out))
        sides = [
            _Side(
                planes, written, made * top, residue if residue is None else residue * top, 1.0, top
            )
        ]
    for number, side in enumerate(sides):
        fine = None if side.scale < 1 else texture  # chroma has no detail to speak of
        pulled = None if origins is None else [planes[number] for planes in origins]
        _put(side, mask, crop_to_frame * side.scale, movement, pulled, extents, blend, shares, fine)
    return out


def _planes(picture: Frames | YuvFrames) -> list[Tensor]:
    """Its planes (N,C,H,W), by resolution."""
    return (
        [picture.luma, picture.chroma]
        if isinstance(picture, YuvFrames)
        else [picture.pixels.permute(0, 3, 1, 2)]
    )


def _origin_planes(movement: Movement, frames: Frames | YuvFrames) -> list[list[Tensor]] | None:
    """For each face the planes (C,H,W) of its origin, by resolution; None where pixels come from
    the frames. ValueError where those do not fit."""
    origins, maps, wanted = movement.origins, movement.crop_to_origin, len(movement.offset)
    if origins is None and maps is None:
        return None
    counts = [0 if part is None else len(part) for part in (origins, maps)]
    if origins is None or counts != [wanted, wanted]:
        raise ValueError(
            "origins, their maps number {}, {}; wanted {} of both, or none".format(*counts, wanted)
        )
    kinds = {_kind(picture) for picture in origins}
    if kinds != {_kind(frames)} or any(len(picture.pixels) != 1 for picture in origins):
        raise ValueError(
            f"origins are {sorted(kinds)}; wanted single pictures as the frames are: {_kind(frames)}"
        )
    return [[planes[0] for planes in _planes(picture)] for picture in origins]


def _kind(picture: Frames | YuvFrames) -> str:
    """What its numbers mean."""
    return (
        f"{picture.pixels.dtype} of {picture.colour if isinstance(picture, YuvFrames) else 'RGB'}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """Planes of frames that have one resolution: ``planes`` (N,C,H,W), ``out``, a copy that is
    written to, and in their values up to ``top`` the ``face`` (N,C,S,S) and its ``residue``.
    ``scale``: their px to one of the frame."""

    planes: Tensor
    out: Tensor
    face: Tensor
    residue: Tensor | None
    scale: float
    top: int


def _layers(side: _Side, mask: Tensor, movement: Movement | None, crop_to_source: Tensor) -> Tensor:
    """(N,K,S+2,S+2) what is warped into a frame: the mask, the face's C planes and, of a movement,
    the share and the place (x, y) in its source that each pixel comes from, then the residue's
    planes. Outside its crop a mask is 0: a rim says so, which the warp's repeated border then
    carries on."""

    def rimmed(x: Tensor) -> Tensor:
        return F.pad(x, (1, 1, 1, 1), mode="replicate")

    layers = [F.pad(mask, (1, 1, 1, 1)), rimmed(side.face)]
    if movement is not None:
        layers += [rimmed(movement.share), _sources(rimmed(movement.offset), crop_to_source)]
    if side.residue is not None:
        layers.append(rimmed(side.residue))
    return torch.cat(layers, 1)


def _put(
    side: _Side,
    mask: Tensor,
    crop_to_frame: Tensor,
    movement: Movement | None,
    origins: list[Tensor] | None,
    extents: Tensor,
    blend: Edge,
    shares: list[float],
    texture: Texture | None,
) -> None:
    """Writes into a side what becomes of it; ``origins``: its planes (C,H,W) of the pictures that
    pixels are moved from."""
    n, channels, height, width = side.planes.shape
    moved_from = movement.crop_to_origin if movement else None
    layers = _layers(
        side, mask, movement, crop_to_frame if moved_from is None else moved_from * side.scale
    )
    kinds = [
        1,
        channels,
        *([1, 2] if movement else [0, 0]),
        0 if side.residue is None else channels,
    ]
    rimmed = compose(crop_to_frame, translation(crop_to_frame.new_full((n, 2), -1)))
    parts = [
        (max(x0, 0), max(y0, 0), min(x1, width), min(y1, height))
        for x0, y0, x1, y1 in crop_bounds(crop_to_frame, extents)
    ]
    sizes = [(max(x1 - x0, 0), max(y1 - y0, 0)) for x0, y0, x1, y1 in parts]
    corners = crop_to_frame.new_tensor([part[:2] for part in parts])
    from_part = compose(invert(rimmed), translation(corners))
    squares = unit_maps(from_part, [(layers.shape[3], layers.shape[2])] * n, sizes)
    steps = scale_of(crop_to_frame).tolist()
    for i, ((x0, y0, x1, y1), (w, h)) in enumerate(zip(parts, sizes, strict=True)):
        if w == 0 or h == 0 or not shares[i]:
            continue
        layer = sample_affine(layers[i : i + 1], squares[i : i + 1], (h, w))[0]
        alpha, face, share, source, residue = layer.split(kinds)
        here = (i, slice(None), slice(y0, y1), slice(x0, x1))
        old = side.planes[here]
        old = old.to(torch.promote_types(old.dtype, face.dtype))
        own = (
            _pulled(side.planes[i] if origins is None else origins[i], source)
            if movement
            else old.to(face.dtype)
        )
        if texture is not None:
            place = Place(texture.index[i], x0, y0, steps[i])
            face = textured(face, own, place, texture=texture, top=side.top)
        if movement:
            face = torch.lerp(face, own, share)
        if len(residue):
            face = face - residue
        face, alpha = face.clamp(0, side.top).to(old.dtype), alpha.to(old.dtype)
        if blend == "paste":
            alpha = (alpha > 0.5).to(alpha.dtype)
        new = torch.lerp(old, face, alpha if shares[i] == 1 else alpha * shares[i])
        side.out[here] = new if side.out.is_floating_point() else new.round_()


def _sources(offset: Tensor, crop_to_source: Tensor) -> Tensor:
    """(N,2,S+2,S+2) where in its source each place of a crop and its rim takes its pixel from:
    ``offset`` crop px away."""
    axis = torch.arange(offset.shape[3], device=offset.device, dtype=offset.dtype) - 0.5
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy")) + offset
    return apply(crop_to_source, places.flatten(2).mT).mT.unflatten(2, offset.shape[2:])


def _pulled(planes: Tensor, source: Tensor) -> Tensor:
    """(C,h,w) the values of planes (C,H,W) at ``source`` (2,h,w), which is overwritten. Cubic:
    linear interpolation halfway between two pixels takes a quarter of the sharpness with it."""
    _, height, width = planes.shape
    left, top, right, bottom = (
        int(v) for v in torch.cat([source.amin((1, 2)), source.amax((1, 2))]).tolist()
    )
    x0, y0, x1, y1 = clip_box((left - 2, top - 2, right + 3, bottom + 3), width, height)
    patch = planes[None, :, y0:y1, x0:x1].to(source.dtype)
    unit = source.new_tensor([2 / (x1 - x0), 2 / (y1 - y0)])[:, None, None]
    grid = source.sub_(source.new_tensor([x0, y0])[:, None, None]).mul_(unit).sub_(1)
    return F.grid_sample(
        patch,
        grid.permute(1, 2, 0)[None],
        mode="bicubic",
        padding_mode="border",
        align_corners=False,
    )[0]


def _extents(mask: Tensor) -> Tensor | None:
    """(N,4) the rectangles (xyxy, crop pixels) that hold everything above 0, and a pixel more for
    the interpolation; None where there is nothing. A hundredth more keeps their corners off whole
    pixels of frames, where the last bit of a map would decide how large a part is."""
    seen = mask[:, 0] > 0
    if not seen.any():
        return None
    sides = [seen.any(1), seen.any(2)]  # columns, rows
    size = mask.shape[-1]
    low = torch.stack([side.int().argmax(1) for side in sides], 1)
    high = size - torch.stack([side.int().flip(1).argmax(1) for side in sides], 1)
    return torch.cat([low - 1.01, high + 1.01], 1).to(mask.dtype)
