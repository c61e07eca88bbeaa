"""How drawn mouths join their frames: what can be chosen, and what that means for the faces of a chunk."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .blend.colour import match_colour
from .blend.composite import BlendKind, Movement, composite
from .blend.masks import MaskKind, face_mask
from .types import AnyFrames


@dataclass(frozen=True, slots=True)
class Blend:
    """How a generated mouth joins its frame. ``feather`` is the soft edge's width as a part of the crop's side;
    ``colour_match`` brings the generated skin to the source's mean and spread. ``own_pixels``: a model that moves pixels
    (``mini``) moves those of the frame at its own resolution, which keeps large faces sharp; without it, or with
    ``colour_match``, the crop that it makes is enlarged. ``strength`` in [0,1]: how much of the new mouth is seen."""

    mask: MaskKind = "mouth"
    kind: BlendKind = "feather"
    feather: float = 0.08
    colour_match: bool = False
    own_pixels: bool = True
    strength: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Where the faces of a chunk are: ``crop_to_frame`` (N,2,3), ``points`` (N,5,2) in crop px; ``pixels`` (N,3,S,S) where
    they are needed."""

    crop_to_frame: Tensor
    points: Tensor
    pixels: Tensor | None = None


def blended(
    frames: AnyFrames,
    made: Tensor,
    faces: Faces,
    blend: Blend,
    *,
    shown: Tensor | None,
    movement: Movement | None = None,
) -> AnyFrames:
    """``frames`` with the ``faces`` that were ``made`` (N,3,S,S), RGB in [0,1], and moved. One face stands for all of N.
    shown (N,) in [0,1]: how much of each is seen, times the blend's strength; None: all."""
    n, size = made.shape[0], made.shape[-1]
    device = frames.pixels.device
    points = faces.points.to(device)
    mask = face_mask(blend.mask, points, size, feather=blend.feather)
    if blend.colour_match and faces.pixels is not None:
        skin = (face_mask("face", points, size) * (1 - mask)).expand(n, -1, -1, -1)
        made = match_colour(made, faces.pixels.to(device, torch.float32), skin)
    return composite(
        frames,
        made,
        crop_to_frame=faces.crop_to_frame.to(device).expand(n, -1, -1),
        mask=mask.expand(n, -1, -1, -1),
        blend=blend.kind,
        strength=blend.strength if shown is None else shown.to(device, torch.float32) * blend.strength,
        movement=movement,
    )
