"""Move the lips and jaw of one picture of a person to a wanted shape, in the pose of another
picture.

No network: where landmarks lie in both pictures says where every pixel comes from, by thin-plate
splines (Bookstein 1989).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import apply, fit_similarity
from ..image.crop import pixel_grid, sample, warp_crops
from ..image.landmarks import (
    INNER_LIPS,
    JAW,
    LEFT_EYE,
    NOSE_BASE,
    NOSE_BRIDGE,
    NOSE_WINGS,
    OUTER_LIPS,
    POINTS,
    RIGHT_EYE,
    lip_shapes,
    mouth_opening,
)
from .landmark_masks import polygon_distance

_OUTER_EYES = (LEFT_EYE.start, RIGHT_EYE.start + 4)
# Points that neither speech nor blinking moves: they say how a picture lies over another one.
_CORNERS = torch.tensor([LEFT_EYE.start, LEFT_EYE.start + 4, RIGHT_EYE.start, RIGHT_EYE.start + 4])
_STILL = torch.cat(
    [_CORNERS, *(torch.arange(POINTS)[part] for part in (NOSE_BRIDGE, NOSE_BASE, NOSE_WINGS))]
)
# How much of a change of the opening the lower lip makes, the upper one making the rest: jaws fall,
# noses do not rise.
_LOWER_SHARE = 0.75
# How much of the chin's way each point of the jaw goes, from an ear to the chin.
_JAW_SHARES = (0.0, 0.0, 0.0, 0.04, 0.12, 0.28, 0.48, 0.68, 0.85, 0.96, 1.0)
_CHIN = slice(8, 13)  # of the jaw
_TURNED_SHARE = 0.6  # how far lips go aside with the chin of a head that is turned otherwise
_LEAST_OPENING = 0.004  # eye distances: points that fall upon each other would tear the picture
_BELOW_CHIN = 0.35  # eye distances below the chin where the neck stays as it is
_CELL = 3  # px between the places where a spline is computed
# What the splines go through: what is still, lips and jaw.
_CONTROLS = torch.cat([_STILL, torch.arange(JAW.stop)])
# How far from the usual spread a person's own may be taken to lie, in parts of it; of somebody
# whose opening varies by less than half the least, the usual one is taken.
_LEAST_SPREAD, _MOST_SPREAD = 0.6, 1.6
# quantiles of the opening: what is neutral, and which frames show a closed mouth
_NEUTRAL, _CLOSED = 0.05, 0.1
# Standard deviations from the closed mouth from which on somebody speaks: beyond it shapes of real
# speech spread by 1.0.
_VOICED, _MOST_RAISED = 0.25, 1.6
_LIKELY = (-1.0, 3.5)  # standard deviations from the closed mouth: what lies beyond is held
# What the inside of a mouth is painted with where the picture has none: in parts of the skin's
# colour.
_DARK, _TEETH = (0.20, 0.10, 0.09), (0.78, 0.74, 0.70)
_TEETH_REACH = 0.07  # eye distances: how far the upper teeth reach below the lip
# of the wanted opening: a mouth that is open so far in the picture shows its own inside
_STRETCHED = 0.45


@dataclass(frozen=True, slots=True, eq=False)
class LipRange:
    """How one person's lips move: the ``neutral`` (3,) closed mouth and the ``spread`` (3,),
    standard deviations of speech, of opening, width and jaw in distances between the outer eye
    corners."""

    neutral: Tensor
    spread: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LipMove:
    """How the pixels of a picture move: ``offset`` (N,2,S,S), from where in crop px each place
    takes its pixel; ``points`` (N,102,2), where the landmarks are afterwards, and ``opened`` (N,),
    how much further the mouth is open than in the picture that it is made of, in distances between
    the outer eye corners."""

    offset: Tensor
    points: Tensor
    opened: Tensor

    def warp(self, source: Tensor) -> Tensor:
        """Warp pictures (N,C,S,S) at the resolution of their crops."""
        return warp_crops(source, self.offset)


def measure_range(shapes: Tensor, prior: LipRange) -> LipRange:
    """Say how a person's lips move, from what is seen of them.

    Args:
        shapes: (M,3) opening, width and jaw in frames in which the face is seen, as ``lip_shapes``
            has them.
        prior: for people of whom too little is seen: one frame is a closed mouth as far as its
            opening may tell.

    Returns:
        The range; its spread is the geometric mean of the person's and the prior's, within 0.6 and
        1.6 times the latter.
    """
    opening = shapes[:, 0]
    closed = shapes[opening <= opening.quantile(_CLOSED)].mean(0)
    neutral = torch.cat([opening.quantile(_NEUTRAL)[None], closed[1:]])
    if len(shapes) < 10 or float(opening.std()) < _LEAST_SPREAD / 2 * float(prior.spread[0]):
        # a photograph, or somebody who does not speak: closed is closed, and the chin is where a
        # closed mouth has it
        shut = torch.minimum(neutral[0], prior.neutral[0])
        drop = (neutral[0] - shut) * (prior.spread[2] / prior.spread[0])
        return LipRange(torch.stack([shut, neutral[1], neutral[2] - drop]), prior.spread)
    # halfway between the person's own and the usual spread: how much speakers move varies as much
    # as how much faces do
    ratio = (shapes.std(0) / prior.spread).sqrt().clamp(_LEAST_SPREAD, _MOST_SPREAD)
    return LipRange(neutral, prior.spread * ratio)


def raise_range(own: LipRange, said: Tensor) -> LipRange:
    """``own``, widened so that lips move as far as speakers' do where the network that hears shapes
    is unsure of a voice, and therefore ``said`` (N,3) keeps to the mean. Speech of less than a
    second at 25 frames a second changes nothing."""
    voiced = said[:, 0][said[:, 0] > _VOICED]
    if len(voiced) < 25:
        return own
    gain = (1 / voiced.std().clamp_min(1e-3)).clamp(1, _MOST_RAISED)
    return LipRange(own.neutral, own.spread * gain.to(own.spread))


def scale_shape(said: Tensor, own: LipRange) -> Tensor:
    """(N,3) opening, width and jaw of a person with the range ``own``, for shapes ``said`` (N,3) in
    its standard deviations."""
    shape = own.neutral.to(said) + own.spread.to(said) * said.clamp(*_LIKELY)
    return torch.cat([shape[:, :1].clamp_min(0), shape[:, 1:]], 1)


def place_lips(source: Tensor, target: Tensor, wanted: Tensor) -> Tensor:
    """Lay a person's landmarks over another picture of theirs, with lips and jaw of another shape.

    Of the target's own lips and chin nothing is looked at but how far aside the chin is turned; the
    sides of the jaw are its.

    Args:
        source: (N,102,2) landmarks of the picture whose mouth is shown.
        target: (N,102,2) landmarks of the picture that it is put into.
        wanted: (N,3) opening, width and jaw, as ``lip_shapes`` has them.

    Returns:
        (N,102,2) landmarks in px of the target.
    """
    still = _STILL.to(source.device)
    points = apply(fit_similarity(source[:, still], target[:, still]), source)
    eyes = target[:, _OUTER_EYES[1]] - target[:, _OUTER_EYES[0]]
    unit = eyes.norm(dim=1).clamp_min(1e-6)[:, None]
    own = lip_shapes(points)
    inner, outer = points[:, INNER_LIPS], points[:, OUTER_LIPS]
    corners = outer[:, 10] - outer[:, 0]
    right = corners / corners.norm(dim=1, keepdim=True).clamp_min(1e-6)
    down = torch.stack([-right[:, 1], right[:, 0]], 1)
    centre = (outer[:, 10] + outer[:, 0]) / 2
    half = corners.norm(dim=1).clamp_min(1e-6)[:, None] / 2
    least = wanted[:, :1].clamp_min(_LEAST_OPENING)
    change = (least - own[:, :1]) * unit  # px
    wider = (wanted[:, 1:2] / own[:, 1:2].clamp_min(1e-6)).clamp(0.8, 1.25)
    drop = ((wanted[:, 2:] - own[:, 2:]).clamp(-0.25, 0.25)) * unit

    def shaped(lips: Tensor) -> Tensor:
        offset = lips - centre[:, None]
        along, across = (offset * right[:, None]).sum(2), (offset * down[:, None]).sum(2)
        # the middle of a lip goes all the way, its corners none of it
        profile = (1 - (along / half).square()).clamp_min(0).sqrt()
        is_lower = torch.arange(20, device=lips.device) <= 10
        share = torch.where(is_lower, _LOWER_SHARE, _LOWER_SHARE - 1)
        across = across + change * profile * share
        return (
            centre[:, None]
            + (along * wider)[..., None] * right[:, None]
            + across[..., None] * down[:, None]
        )

    out = points.clone()
    out[:, INNER_LIPS], out[:, OUTER_LIPS] = shaped(inner), shaped(outer)
    # the jaw's line is the target's beside the face; at the chin, which speech moves, only how far
    # aside it is turned
    shares = points.new_tensor([*_JAW_SHARES, *_JAW_SHARES[-2::-1]])
    upright = torch.stack([-eyes[:, 1], eyes[:, 0]], 1) / unit
    fallen = ((points[:, JAW] - target[:, JAW]) * upright[:, None]).sum(2) + drop
    out[:, JAW] = target[:, JAW] + (fallen * shares)[..., None] * upright[:, None]
    level = eyes / unit
    turned = (
        ((target[:, JAW] - points[:, JAW]) * level[:, None]).sum(2)[:, _CHIN].mean(1, keepdim=True)
    )
    out[:, : INNER_LIPS.stop] += (_TURNED_SHARE * turned * level)[:, None]
    return out


def move_lips(source: Tensor, target: Tensor, wanted: Tensor, size: int) -> LipMove:
    """Say where the pixels of a source picture go so that its lips have the ``wanted`` shape in the
    target's pose.

    Args:
        source: (N,102,2) landmarks of the source in px of its crop, of the same ``size``.
        target: (N,102,2) landmarks of the target in px of its crop.
        wanted: (N,3) opening, width and jaw, as ``lip_shapes`` has them.
        size: side of the crops in px.
    """
    points = place_lips(source, target, wanted)
    picked = _CONTROLS.to(source.device)
    still = _STILL.to(source.device)
    frame = _frame(size, points)
    back = fit_similarity(target[:, still], source[:, still])
    neck_to, neck_from = _neck(points, target), _neck(source, source)
    to = torch.cat([points[:, picked], neck_to, frame], 1)
    source_of = torch.cat([source[:, picked], neck_from, apply(back, frame)], 1)
    field = spline(to, source_of, size)
    opened = wanted[:, 0] - mouth_opening(source)
    return LipMove(field - pixel_grid(size, size, points), points, opened)


def _frame(size: int, like: Tensor) -> Tensor:
    """(N,8,2) places round a crop, a fifth of its side outside, where nothing but the pose moves."""
    low, middle, high = -0.2 * size, 0.5 * size, 1.2 * size
    places = [
        (x, y)
        for y in (low, middle, high)
        for x in (low, middle, high)
        if (x, y) != (middle, middle)
    ]
    return like.new_tensor(places).expand(len(like), -1, -1)


def _neck(points: Tensor, pose: Tensor) -> Tensor:
    """(N,3,2) places on the neck, below the chin and either side of it."""
    eyes = pose[:, _OUTER_EYES[1]] - pose[:, _OUTER_EYES[0]]
    down = torch.stack([-eyes[:, 1], eyes[:, 0]], 1)[:, None]
    return points[:, [JAW.start + 6, JAW.start + 10, JAW.start + 14]] + down * _BELOW_CHIN


def spline(to: Tensor, source: Tensor, size: int, *, smooth: float = 1e-4) -> Tensor:
    """Interpolate places between control points by thin-plate splines.

    Args:
        to: (N,K,2) control points in px of a square of ``size`` px.
        source: (N,K,2) what each of them maps to.
        size: side of the square in px.
        smooth: how far control points may be missed where they are close to each other (0: not at
            all).

    Returns:
        (N,2,S,S) what the middle of each pixel maps to.
    """
    count, controls, _ = to.shape
    unit = to / size
    kernel = _radial((unit[:, :, None] - unit[:, None]).square().sum(3))
    kernel = kernel + smooth * torch.eye(controls, device=to.device, dtype=to.dtype)
    affine = torch.cat([torch.ones_like(unit[..., :1]), unit], 2)  # (N,K,3)
    top = torch.cat([kernel, affine], 2)
    bottom = torch.cat([affine.mT, to.new_zeros(count, 3, 3)], 2)
    right = torch.cat([source / size, to.new_zeros(count, 3, 2)], 1)
    weights = torch.linalg.solve(torch.cat([top, bottom], 1), right)
    cells = -(-size // _CELL)
    x, y = (pixel_grid(cells, cells, to) / cells).flatten(1)
    # distances by a product of matrices, which is several times as quick as differences
    places = torch.stack([x.square() + y.square(), x, y, torch.ones_like(x)], 1)
    terms = torch.stack(
        [torch.ones_like(unit[..., 0]), -2 * unit[..., 0], -2 * unit[..., 1], unit.square().sum(2)],
        1,
    )
    near = _radial((places @ terms).clamp_min(0))
    linear = torch.stack([torch.ones_like(x), x, y], 1)
    field = near @ weights[:, :controls] + linear @ weights[:, controls:]
    field = field.mT.reshape(count, 2, cells, cells) * size
    return F.interpolate(field, (size, size), mode="bilinear", align_corners=False)


def _radial(squares: Tensor) -> Tensor:
    """r^2 log r^2 of squared distances."""
    return squares * squares.clamp_min(1e-12).log()


def paint_inside(faces: Tensor, move: LipMove, *, share: Tensor | None = None) -> Tensor:
    """``faces`` (N,3,S,S), moved, with the inside of mouths that are opened further than their
    picture shows them painted."""
    paint, alpha = paint_mouth_inside(faces, move)
    return torch.lerp(faces, paint, alpha if share is None else alpha * share)


def paint_mouth_inside(faces: Tensor, move: LipMove) -> tuple[Tensor, Tensor]:
    """What the inside of mouths looks like, and where it is to be seen.

    Args:
        faces: (N,3,S,S) RGB in [0,1], moved: they tell the colour of the skin.
        move: how they were moved.

    Returns:
        (N,3,S,S) RGB in [0,1] and (N,1,S,S) in [0,1]: 0 where the picture shows the inside itself.
    """
    wanted = mouth_opening(move.points)
    needed = (
        (_STRETCHED * wanted - (wanted - move.opened)) / (0.3 * wanted).clamp_min(0.01)
    ).clamp(0, 1)
    paint, alpha = torch.zeros_like(faces), torch.zeros_like(faces[:, :1])
    here = needed > 0  # few frames, where the person is seen speaking: the others cost nothing
    if here.any():
        colors, inside = _mouth_inside(faces[here], move.points[here])
        paint[here], alpha[here] = colors, inside * needed[here][:, None, None, None]
    return paint, alpha


def _mouth_inside(faces: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Colours (N,3,S,S) and place (N,1,S,S) of the inside of mouths with landmarks ``points``
    (N,102,2)."""
    size = faces.shape[-1]
    inner = points[:, INNER_LIPS]
    inside = polygon_distance(inner, size)[:, None]  # (N,1,S,S) px, > 0 inside
    alpha = (inside / 1.5 + 0.25).clamp(0, 1)
    nose = points[:, NOSE_BRIDGE].mean(1) / size * 2 - 1
    skin = sample(faces, nose[:, :, None, None])
    upper = inner[:, 11:20].mean(1)
    down = inner[:, 1:10].mean(1) - upper
    length = down.norm(dim=1).clamp_min(1e-6)[:, None]
    unit = (points[:, _OUTER_EYES[1]] - points[:, _OUTER_EYES[0]]).norm(dim=1)[:, None, None]
    offset = pixel_grid(size, size, faces).permute(1, 2, 0) - upper[:, None, None]
    below = (offset * (down / length)[:, None, None]).sum(3)  # px below the upper lip
    teeth = ((_TEETH_REACH - below / unit) / 0.02).clamp(0, 1)[:, None]
    dark = skin * faces.new_tensor(_DARK)[:, None, None]
    bright = skin.mean(1, keepdim=True) * faces.new_tensor(_TEETH)[:, None, None]
    # teeth lie in the shadow of the lips at the corners, and of a mouth that is hardly open
    depth = (inside / (0.12 * unit[:, None])).clamp(0, 1)
    return torch.lerp(dark.expand_as(faces), bright.expand_as(faces), teeth * depth), alpha
