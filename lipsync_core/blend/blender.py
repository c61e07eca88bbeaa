"""How drawn mouths join their frames: what can be chosen, and what that means for the faces of a
chunk."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import apply, scale_of
from ..image.landmarks import IRISES, JAW, NOSE_BASE
from ..runtime.options import Option
from ..types import AnyFrames, Frames, size_of
from .color_match import ColourMatch, colours, pixels_of, toned, tones
from .composite import Movement, composite
from .landmark_masks import outline_mask
from .masks import MaskKind, face_mask
from .occlusion import compared
from .parser_masks import occluded, parsed_mask
from .seamless import residue
from .smoothing import eased, linked, steadied
from .texture import Texture

BlendKind = Literal["paste", "feather", "pyramid", "poisson", "seamless"]
Occlusion = Literal["ignore", "compare", "parse"]

# Movement begins half a soft edge inside the mask and is whole 1.2 of them further in, so that the
# mask's edge lies in pixels that stayed where they were. Six train and val clips: of an edge where
# everything moves a line of 55 % is left, a step of 56 % and a flicker of 44 %, and the middle of
# the mouth moves as much; a beginning at 0.7 leaves half of that and 1 % of the mouth's movement is
# lost, one that ends at 2 takes 3 %.
_EBB, _BEGIN = 1.2, 0.5
# Seconds in which what is eased goes 63 % of the way: a mask's shape trembles with its parser,
# light changes slowly, and what covered a face is uncovered a moment later than it goes (it covers
# at once).
_SHAPE_SECONDS, _TONE_SECONDS, _UNCOVER_SECONDS = 0.1, 0.3, 0.2
# Of a crop's height: where the eyes end, and how far below it pictures of other moments may be
# seen.
_EYES_END, _NOSE_RAMP = 0.26, 0.08
_EDGE_REACH = 4  # crop px: how soft the edge is before which a picture ends
# How far below the jaw the mask of moved lips reaches, in distances of the eyes, from ear to ear.
_HALF_BELOW = (0.0, 0.0, 0.0, 0.02, 0.04, 0.06, 0.10, 0.15, 0.20, 0.22, 0.23)
_BELOW = (*_HALF_BELOW, *_HALF_BELOW[-2::-1])
_OTHER_LIGHT = (
    # of the range [0,1]: tones further apart than this are a cut or a lamp, and nothing is kept of
    # the old ones
    0.1
)


@dataclass(frozen=True, slots=True)
class Blend:
    """How a generated mouth joins its frame.

    ``kind``: a hard edge (``paste``), a soft one (``feather``), or one before which the drawn skin
    is brought to the source's all round it (see ``blend.seamless``); where a model moves pixels,
    ``seamless`` also lets the movement ebb away before the edge. ``feather``: the soft edge's width
    as a part of the crop's side, or ``feather_px`` in px of the frame. ``colour_match`` brings the
    generated skin to the source's tones round the mouth (see ``blend.colour``). ``own_pixels``: a
    model that moves pixels (``mini``) moves those of the frame at its own resolution, which keeps
    large faces sharp; without it, or with ``colour_match``, the crop that it makes is enlarged.
    ``strength`` in [0,1]: how much of the new mouth is seen. ``detail`` and ``grain`` in [0,1]: how
    much of the source's sharpness and grain a drawn mouth gets, unless it is pasted; own pixels
    have theirs.

    ``occlusion``: what lies before the face (a hand, a microphone, hair) stays: found by comparing
    with the first frame of the face (``blend.occlusion``), or by a face parser, which also keeps
    the mask to what is skin and lips. ``steady`` in [0,1]: how much of the trembling is taken off
    what was drawn (``blend.temporal``): at 0.5 lips in silence tremble less by 13 to 29 %, lips
    that speak move less by 7 to 14 %, and the judge's confidence falls by 3 % (three clips; at 1 by
    8 %)."""

    mask: Annotated[
        MaskKind,
        Option(
            "How much of the face is replaced.",
            "mouth: mouth and chin. lower: its lower half. face: the whole face. box: the square.",
        ),
    ] = "mouth"
    kind: Annotated[
        BlendKind,
        Option(
            "How the new mouth joins the frame.",
            "seamless: no visible seam. feather: a soft edge. paste: a hard edge. poisson, pyramid: "
            "the two methods that seamless combines.",
            name="blend",
            node_name="blend",
            metavar="[seamless|feather|paste]",
        ),
    ] = "seamless"
    feather: Annotated[
        float,
        Option(
            "Width of the soft edge, as a part of the face's size.",
            minimum=0,
            maximum=0.5,
            step=0.01,
            pixels="feather_px",
        ),
    ] = 0.08
    colour_match: Annotated[
        ColourMatch | None,
        Option(
            "Match the colors of the new skin to the frame's.",
            "spread: each color channel by itself. covariance: the channels together, for "
            "colored light.",
            panel="Blending",
        ),
    ] = None
    own_pixels: Annotated[
        bool,
        Option(
            "Move the frame's own pixels if the model can (mini), so that large faces stay sharp.",
            panel="Blending",
            advanced=True,
        ),
    ] = True
    strength: Annotated[
        float,
        Option(
            "Opacity of the new mouth: 0 shows the old one.",
            minimum=0,
            maximum=1,
            step=0.01,
            panel="Blending",
        ),
    ] = 1.0
    feather_px: Annotated[
        float | None,
        Option(
            "Width of the soft edge in pixels of the frame, instead of 'feather'.",
            minimum=0,
            maximum=1000,
            step=1,
            hidden=True,
            advanced=True,
        ),
    ] = None
    detail: Annotated[
        float,
        Option(
            "How much of the frame's sharpness a generated mouth gets.",
            "mini moves the frame's own pixels, which are as sharp already.",
            minimum=0,
            maximum=1,
            step=0.05,
            hidden=True,
        ),
    ] = 1.0
    grain: Annotated[
        float,
        Option(
            "How much of the frame's grain a generated mouth gets.",
            minimum=0,
            maximum=1,
            step=0.05,
            hidden=True,
            advanced=True,
        ),
    ] = 1.0
    occlusion: Annotated[
        Occlusion,
        Option(
            "Keep hands, microphones and hair in front of the mouth.",
            "ignore: draw over them. compare: find them by comparison with a frame that shows the "
            "mouth. parse: find them with a face parser (53 MB, downloaded on first use; "
            "non-commercial research only), which also limits the mask to skin and lips.",
        ),
    ] = "ignore"
    steady: Annotated[
        float,
        Option(
            "Reduce the jitter of a generated mouth; 1 reduces most.",
            "Lips that move are hardly changed.",
            minimum=0,
            maximum=1,
            step=0.05,
            panel="Blending",
            advanced=True,
        ),
    ] = 0.0

    @property
    def looks(self) -> bool:
        """Whether the source's crop is looked at."""
        return (
            bool(self.colour_match)
            or self.kind not in ("paste", "feather")
            or self.occlusion == "compare"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Where the faces of a chunk are: ``crop_to_frame`` (N,2,3), ``points`` (N,5,2) and, where
    there are any, ``dense`` (N,K,2) in crop px; where they are needed, ``pixels`` (N,3,S,S), and
    ``labels`` (N,19,h,w), how likely each of ``blend.parsing.LABELS`` is; ``hidden`` (N,1,S,S) in
    [0,1]: how much lies before them."""

    crop_to_frame: Tensor
    points: Tensor
    dense: Tensor | None = None
    pixels: Tensor | None = None
    labels: Tensor | None = None
    hidden: Tensor | None = None

    def times(self, count: int) -> "Faces":
        """One face for each of ``count`` frames."""

        def each(x: Tensor) -> Tensor:
            return x.expand(count, *x.shape[1:])

        more = (None if x is None else each(x) for x in (self.dense, self.pixels, self.labels))
        return Faces(each(self.crop_to_frame), each(self.points), *more)


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What a face's frames have left for the next one, ``index`` being the last one's number in the
    stream: what was ``drawn`` (1,C,H,W), its ``shape`` and what ``covered`` it (1,1,S,S), its
    ``tones`` (1,24); and ``clear`` (1,3,S,S), the face as it was first seen."""

    index: int | None = None
    drawn: Tensor | None = None
    shape: Tensor | None = None
    covered: Tensor | None = None
    tones: Tensor | None = None
    clear: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """The frames ``index`` (N,) of a stream at ``fps``, and the ``past`` that their face has."""

    index: Tensor
    fps: Fraction
    past: Past = Past()

    def keep(self, seconds: float) -> Tensor:
        """(N,) how much of the frame before each keeps, so that 63 % go in ``seconds``."""
        share = math.exp(-self.fps.denominator / (self.fps.numerator * seconds))
        return linked(self.index, self.past.index) * share

    def after(self, **left: Tensor) -> "Moment":
        """The same with what these frames ``left`` (N,...), by the names of ``Past``."""
        return replace(
            self, past=replace(self.past, **{name: value[-1:] for name, value in left.items()})
        )

    def over(self) -> Past:
        """For the frames that follow."""
        return replace(self.past, index=int(self.index[-1]))


def steady(
    drawn: Tensor, blend: Blend, moment: Moment, *, visible: Tensor | None = None
) -> tuple[Tensor, Moment]:
    """``drawn`` (N,C,H,W) without its trembling, as ``blend`` has it; see ``steadied``."""
    if not blend.steady:
        return drawn, moment
    follows = linked(moment.index, moment.past.index)
    drawn = steadied(drawn, moment.past.drawn, follows, strength=blend.steady, visible=visible)
    return drawn, moment.after(drawn=drawn)


def shaped(faces: Faces, blend: Blend, size: int, moment: Moment) -> tuple[Faces, Tensor, Moment]:
    """The mask (N,1,S,S) in [0,1] of ``faces`` in crops of ``size`` px; and they with what is
    ``hidden`` of them, which is no part of the mask: at a hand's edge there is no light to match.
    """
    feather = _feather(blend, faces.crop_to_frame, size)
    mask = _outline(faces, blend, size, feather)
    if faces.labels is not None:
        mask = mask * parsed_mask(blend.mask, faces.labels, size, feather=blend.feather)
    if faces.labels is not None or faces.dense is not None:
        keep = moment.keep(_SHAPE_SECONDS)[:, None, None, None]
        mask = eased(mask, moment.past.shape, keep)
        moment = moment.after(shape=mask)
    hidden, moment = covered(faces, blend, size, moment)
    return replace(faces, hidden=hidden), mask, moment


def blended(
    frames: AnyFrames,
    made: Tensor,
    faces: Faces,
    blend: Blend,
    mask: Tensor,
    moment: Moment,
    *,
    shown: Tensor | None = None,
    movement: Movement | None = None,
    origin: Tensor | None = None,
) -> tuple[AnyFrames, Moment]:
    """``frames`` with the ``faces`` that were ``made`` (N,3,S,S), RGB in [0,1], and moved, under
    ``mask`` (N,1,S,S).

    shown (N,) in [0,1]: how much of each is seen, times the blend's strength; None: all. origin
    (N,3,S,S): the crops of what is moved, where that is not the frames.
    """
    size = made.shape[-1]
    less, ebb = None, None
    if movement is not None and origin is None and blend.kind == "seamless":
        ebb = _ebb(faces, blend, size)
        movement = movement.times(ebb)
    if faces.pixels is not None and blend.looks:
        source = faces.pixels.to(made)
        if blend.colour_match:
            made, moment = _toned(made, source, mask, faces.hidden, blend.colour_match, moment)
        if blend.kind in ("pyramid", "poisson", "seamless"):
            if movement is None:
                less = residue(blend.kind, made - source, mask)
            else:
                moved = movement.picture(made, source if origin is None else origin.to(made))
                less = residue(blend.kind, moved - source, mask)
                less = less if movement.whole else less * below_the_middle(less)
                less = less if ebb is None else less * ebb
    # what moved has its detail, and what is pasted stays as it was drawn
    fine = movement is None and blend.kind != "paste" and bool(blend.detail or blend.grain)
    out = composite(
        frames,
        made,
        crop_to_frame=faces.crop_to_frame,
        mask=mask if faces.hidden is None else mask * (1 - faces.hidden),
        blend="paste" if blend.kind == "paste" else "feather",
        strength=blend.strength if shown is None else shown.to(mask) * blend.strength,
        movement=movement,
        residue=less,
        texture=Texture(blend.detail, blend.grain, tuple(moment.index.tolist())) if fine else None,
    )
    return out, moment


def shares(
    size: tuple[int, int],
    faces: Faces,
    blend: Blend,
    mask: Tensor,
    *,
    shown: Tensor | None = None,
    moves: bool = False,
) -> Tensor:
    """(N,H,W) in [0,1]: how much of new mouths under ``mask`` (N,1,S,S) each place of frames of
    ``size`` (H, W) shows. moves: whether they are made of the frame's own pixels, whose upper half
    stays where it is."""
    n, _, side, _ = mask.shape
    white = mask.new_ones(n, 3, side, side)
    if moves:
        white[:, :, : side // 2] = 0
    black = Frames(mask.new_zeros(n, *size, 3))
    plain = Blend(
        kind="paste" if blend.kind == "paste" else "feather",
        strength=blend.strength,
        detail=0,
        grain=0,
    )
    moment = Moment(torch.arange(n), Fraction(1))
    return blended(black, white, faces, plain, mask, moment, shown=shown)[0].pixels.mean(3)


def covering(old: Tensor, new: Tensor) -> Tensor:
    """(N,102,2) landmarks whose outline holds the mouths and chins of both ``old`` and ``new``
    (N,102,2), and some neck below.

    The soft edge of a mask lies inside its outline: with the chin's own outline, half of the old
    chin would show."""
    down = old[:, NOSE_BASE].mean(1) - old[:, IRISES].mean(1)
    down = down / down.norm(dim=1, keepdim=True).clamp_min(1e-6)
    unit = (old[:, IRISES.start] - old[:, IRISES.stop - 1]).norm(dim=1).clamp_min(1e-6)[:, None]
    lower = ((new[:, JAW] - old[:, JAW]) * down[:, None]).sum(2, keepdim=True).clamp_min(0)
    shares = old.new_tensor(_BELOW)[None, :, None]
    out = old.clone()
    out[:, JAW] = old[:, JAW] + (lower + unit[:, None] * shares) * down[:, None]
    return out


def seen_in_origins(movement: Movement) -> Tensor:
    """(N,1,S,S) in [0,1]: 0 where a movement takes its pixels from beyond the edge of its origins,
    and above the nose, where eyes look as they do in the frame itself."""
    assert movement.origins is not None and movement.crop_to_origin is not None
    size, offset = movement.offset.shape[-1], movement.offset
    axis = torch.arange(size, device=offset.device) + 0.5
    maps = movement.crop_to_origin.to(offset)
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy")) + offset
    places = apply(maps, places.flatten(2).mT).mT.unflatten(2, (size, size))
    ends = offset.new_tensor([size_of(picture)[::-1] for picture in movement.origins])[
        :, :, None, None
    ]
    reach = _EDGE_REACH * scale_of(maps)[:, None, None, None]
    inside = torch.minimum(places, ends - places).amin(1, keepdim=True)
    return (inside / reach).clamp(0, 1) * ((axis[:, None] / size - _EYES_END) / _NOSE_RAMP).clamp(
        0, 1
    )


def _outline(
    faces: Faces, blend: Blend, size: int, feather: float | Tensor, inset: float | Tensor = 0.0
) -> Tensor:
    """(N,1,S,S) of the face's own outline where that is known, else of its five points."""
    if faces.dense is None or blend.mask == "box":
        return face_mask(blend.mask, faces.points, size, feather=feather, inset=inset)
    return outline_mask(blend.mask, faces.dense, size, feather=feather, inset=inset)


def _ebb(faces: Faces, blend: Blend, size: int) -> Tensor:
    """(N,1,S,S) in [0,1]: how much of a movement is left where it ebbs away before the mask's edge."""
    feather = _feather(blend, faces.crop_to_frame, size)
    return _outline(faces, blend, size, feather * _EBB, feather * _BEGIN)


def covered(faces: Faces, blend: Blend, size: int, moment: Moment) -> tuple[Tensor | None, Moment]:
    """(N,1,S,S) how much lies before the faces, and until when; None where nobody asks."""
    points = faces.points if faces.dense is None else faces.dense
    if faces.labels is not None:
        hidden = occluded(faces.labels, points, size, feather=blend.feather)
    elif blend.occlusion == "compare" and faces.pixels is not None:
        pixels = faces.pixels.to(points)
        clear = pixels[:1] if moment.past.clear is None else moment.past.clear.to(pixels)
        moment = replace(moment, past=replace(moment.past, clear=clear))
        hidden = compared(pixels, clear, points, size, feather=blend.feather)
    else:
        return None, moment
    keep = moment.keep(_UNCOVER_SECONDS)[:, None, None, None]
    hidden = eased(hidden, moment.past.covered, keep, rises=True)
    return hidden, moment.after(covered=hidden)


def _toned(
    made: Tensor,
    source: Tensor,
    mask: Tensor,
    hidden: Tensor | None,
    kind: ColourMatch,
    moment: Moment,
) -> tuple[Tensor, Moment]:
    """``made`` with the tones of ``source`` in a ring round the mask, which change slowly from
    frame to frame."""
    reach = 2 * (mask.shape[-1] // 10) + 1
    near = F.max_pool2d(
        F.max_pool2d((mask > 0).to(mask), (reach, 1), 1, (reach // 2, 0)),
        (1, reach),
        1,
        (0, reach // 2),
    )
    ring = near * (1 - mask) if hidden is None else near * (1 - mask) * (1 - hidden)
    values, wanted = colours(made, kind), colours(source, kind)
    both = torch.cat([tones(values, ring), tones(wanted, ring)], 1)
    both = eased(both, moment.past.tones, moment.keep(_TONE_SECONDS)[:, None], within=_OTHER_LIGHT)
    made = pixels_of(toned(values, *both.split(12, 1), kind=kind), kind)
    return made, moment.after(tones=both)


def _feather(blend: Blend, crop_to_frame: Tensor, size: int) -> float | Tensor:
    """The edge's width as a part of the crop's side, one or (N,) of them."""
    return (
        blend.feather
        if blend.feather_px is None
        else blend.feather_px / (scale_of(crop_to_frame) * size)
    )


def below_the_middle(like: Tensor) -> Tensor:
    """(S,1) 0 in the upper half of crops, which is the frame's own, rising to 1 in a twelfth of its
    side below."""
    size = like.shape[-1]
    rows = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    return ((rows - size // 2) / (size / 12)).clamp(0, 1)[:, None]
