"""Warp the lips and jaw of a person's picture to a shape, in the pose of another picture.

No network: landmarks in both pictures determine where every pixel comes from, by thin-plate splines
(Bookstein 1989).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import apply, fit_similarity
from ..image.crop import pixel_grid, sample_places, warp_crops
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
# Points that neither speech nor blinking moves; they align one picture with another.
_CORNERS = torch.tensor([LEFT_EYE.start, LEFT_EYE.start + 4, RIGHT_EYE.start, RIGHT_EYE.start + 4])
_STILL = torch.cat(
    [_CORNERS, *(torch.arange(POINTS)[part] for part in (NOSE_BRIDGE, NOSE_BASE, NOSE_WINGS))]
)
# What moves downwards, as shares of a change of the opening: the corners of the mouth against the
# nose, and the middle of each edge of the lips against the corners (means over 132 clips of people
# who speak, by a face mesh; lips that part lose a little less of their thickness here).
_CORNERS_FALL = 0.18
_UPPER_OUTER, _UPPER_INNER, _LOWER_INNER, _LOWER_OUTER = -0.34, -0.43, 0.62, 0.61
# The share of the chin's movement that each point of the jaw follows, from an ear to the chin.
_JAW_SHARES = (0.0, 0.0, 0.0, 0.04, 0.12, 0.28, 0.48, 0.68, 0.85, 0.96, 1.0)
_CHIN = slice(8, 13)  # of the jaw
_TURNED_SHARE = 0.6  # of the chin's sideways shift under another head turn that lips follow
_LEAST_OPENING = 0.004  # eye distances: coinciding points would tear the picture
_BELOW_CHIN = 0.35  # eye distances below the chin where the neck stays as it is
_CELL = 3  # px between the places where a spline is computed
# Control points of the splines: still points, lips and jaw.
_CONTROLS = torch.cat([_STILL, torch.arange(JAW.stop)])
# Bounds of a person's spread relative to the usual one. If the opening varies by less than half the
# lower bound, the usual spread is used.
_LEAST_SPREAD, _MOST_SPREAD = 0.6, 1.6
# Quantiles of the opening: the neutral mouth, and frames with a closed mouth.
_NEUTRAL, _CLOSED = 0.05, 0.1
# Standard deviations from the closed mouth above which there is speech: beyond, shapes of real
# speech spread by 1.0.
_VOICED, _MOST_RAISED = 0.25, 1.6
_LIKELY = (-1.0, 3.5)  # standard deviations from the closed mouth; values beyond are clamped
# Colors of the inside of a mouth if the picture shows none: of the dark, of the tongue and of the
# lips' inner side relative to the skin's; of teeth a base, and a share of the skin's brightness.
_DARK, _TONGUE, _INNER_LIPS = (0.18, 0.09, 0.08), (0.58, 0.31, 0.29), (0.50, 0.27, 0.25)
_TEETH, _TEETH_BASE, _TEETH_SHARE = (1.0, 0.95, 0.86), 0.30, 0.58
_TEETH_TINT = 0.35  # of the skin's tint, which is in part that of the light
# Eye distances: the upper teeth's edge below the line on which closed lips meet, and how much
# higher it is in the corners.
_TEETH_EDGE, _TEETH_ARC = 0.015, 0.03
# Openings from which teeth are shown: none, and fully.
_TEETH_FROM, _TEETH_FULL = 0.03, 0.07
# Of the target opening: a mouth that is open this far in the picture shows its own inside, and one
# that is open less than the second is painted.
_STRETCHED, _TORN = 0.45, 0.30


@dataclass(frozen=True, slots=True, eq=False)
class LipRange:
    """How one person's lips move: opening, width and jaw in distances of the outer eye corners.

    Attributes:
        neutral: (3,) the closed mouth.
        spread: (3,) standard deviations of speech.
    """

    neutral: Tensor
    spread: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LipMove:
    """How the pixels of pictures move.

    Attributes:
        offset: (N,2,S,S) crop px from each pixel to the place that it takes its value from.
        points: (N,102,2) landmarks afterwards.
        opened: (N,) how much wider the mouth is open than before, in distances of the outer eye
            corners.
    """

    offset: Tensor
    points: Tensor
    opened: Tensor

    def warp(self, source: Tensor) -> Tensor:
        """Warp pictures (N,C,S,S) at the resolution of their crops."""
        return warp_crops(source, self.offset)


def measure_range(shapes: Tensor, prior: LipRange) -> LipRange:
    """Measure how a person's lips move.

    Args:
        shapes: (M,3) opening, width and jaw of ``lip_shapes`` in frames that show the face.
        prior: People's usual range, for a person who does not speak or of whom there is one frame.

    Returns:
        The range; its spread is the geometric mean of the person's and the prior's, within 0.6 and
        1.6 times the latter.
    """
    opening = shapes[:, 0]
    closed = shapes[opening <= opening.quantile(_CLOSED)].mean(0)
    neutral = torch.cat([opening.quantile(_NEUTRAL)[None], closed[1:]])
    if len(shapes) < 10 or float(opening.std()) < _LEAST_SPREAD / 2 * float(prior.spread[0]):
        # a photo, or a person who does not speak: the mouth is taken to be closed, and the chin to
        # be where a closed mouth has it
        shut = torch.minimum(neutral[0], prior.neutral[0])
        drop = (neutral[0] - shut) * (prior.spread[2] / prior.spread[0])
        return LipRange(torch.stack([shut, neutral[1], neutral[2] - drop]), prior.spread)
    # halfway between the person's own and the usual spread: movement varies as much between
    # speakers as between faces
    ratio = (shapes.std(0) / prior.spread).sqrt().clamp(_LEAST_SPREAD, _MOST_SPREAD)
    return LipRange(neutral, prior.spread * ratio)


def raise_range(own: LipRange, said: Tensor) -> LipRange:
    """Widen a range if the network is unsure of a voice and predicts shapes close to the mean.

    Args:
        own: The person's range.
        said: (N,3) predicted shapes in standard deviations. Less than 25 frames of speech change
            nothing.

    Returns:
        A range in which the lips move as far as other speakers' do.
    """
    voiced = said[:, 0][said[:, 0] > _VOICED]
    if len(voiced) < 25:
        return own
    gain = (1 / voiced.std().clamp_min(1e-3)).clamp(1, _MOST_RAISED)
    return LipRange(own.neutral, own.spread * gain.to(own.spread))


def scale_shape(said: Tensor, own: LipRange) -> Tensor:
    """Scale predicted shapes to a person's range.

    Args:
        said: (N,3) shapes in standard deviations of the range.
        own: The person's range.

    Returns:
        (N,3) opening, width and jaw in distances of the outer eye corners.
    """
    shape = own.neutral.to(said) + own.spread.to(said) * said.clamp(*_LIKELY)
    return torch.cat([shape[:, :1].clamp_min(0), shape[:, 1:]], 1)


def place_lips(source: Tensor, target: Tensor, shape: Tensor) -> Tensor:
    """Place a person's landmarks in another picture of them, with lips and jaw of another shape.

    Of the target's own lips and chin only the sideways turn of the chin is used; the sides of the
    jaw are the target's.

    Args:
        source: (N,102,2) landmarks of the picture whose mouth is shown.
        target: (N,102,2) landmarks of the picture that it is put into.
        shape: (N,3) opening, width and jaw of ``lip_shapes``.

    Returns:
        (N,102,2) landmarks in px of the target.
    """
    still = _STILL.to(source.device)
    points = apply(fit_similarity(source[:, still], target[:, still]), source)
    eyes = target[:, _OUTER_EYES[1]] - target[:, _OUTER_EYES[0]]
    unit = eyes.norm(dim=1).clamp_min(1e-6)[:, None]
    own = lip_shapes(points)
    outer = points[:, OUTER_LIPS]
    corners = outer[:, 10] - outer[:, 0]
    right = corners / corners.norm(dim=1, keepdim=True).clamp_min(1e-6)
    down = torch.stack([-right[:, 1], right[:, 0]], 1)
    center = (outer[:, 10] + outer[:, 0]) / 2
    least = shape[:, :1].clamp_min(_LEAST_OPENING)
    change = (least - own[:, :1]) * unit  # px
    wider = (shape[:, 1:2] / own[:, 1:2].clamp_min(1e-6)).clamp(0.8, 1.25)
    drop = ((shape[:, 2:] - own[:, 2:]).clamp(-0.25, 0.25)) * unit

    def place_lip(lips: Tensor, upper: float, lower: float) -> Tensor:
        offset = lips - center[:, None]
        along, across = (offset * right[:, None]).sum(2), (offset * down[:, None]).sum(2)
        # the middle of a lip moves by all of its share, and the corners only fall; in between, real
        # lips part as a parabola does
        first, last = along[:, :1], along[:, 10:11]
        place = (2 * along - first - last) / (last - first).clamp_min(1e-6)
        is_lower = torch.arange(20, device=lips.device) <= 10
        share = torch.where(is_lower, lower, upper) * (1 - place.square()).clamp_min(0)
        across = across + change * (share + _CORNERS_FALL)
        return (
            center[:, None]
            + (along * wider)[..., None] * right[:, None]
            + across[..., None] * down[:, None]
        )

    out = points.clone()
    out[:, INNER_LIPS] = place_lip(points[:, INNER_LIPS], _UPPER_INNER, _LOWER_INNER)
    out[:, OUTER_LIPS] = place_lip(outer, _UPPER_OUTER, _LOWER_OUTER)
    # beside the face the jaw's line is the target's; of the chin, which speech moves, only the
    # sideways turn is the target's
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


def move_lips(source: Tensor, target: Tensor, shape: Tensor, size: int) -> LipMove:
    """Compute how a source picture must move so that its lips get a shape in the target's pose.

    Args:
        source: (N,102,2) landmarks of the source in px of its crop, of the same ``size``.
        target: (N,102,2) landmarks of the target in px of its crop.
        shape: (N,3) opening, width and jaw of ``lip_shapes``.
        size: Side of the crops in px.

    Returns:
        How the source's pixels move.
    """
    points = place_lips(source, target, shape)
    picked = _CONTROLS.to(source.device)
    still = _STILL.to(source.device)
    frame = _frame_points(size, points)
    back = fit_similarity(target[:, still], source[:, still])
    neck_to, neck_from = _neck_points(points, target), _neck_points(source, source)
    to = torch.cat([points[:, picked], neck_to, frame], 1)
    source_of = torch.cat([source[:, picked], neck_from, apply(back, frame)], 1)
    field = spline(to, source_of, size)
    opened = shape[:, 0] - mouth_opening(source)
    return LipMove(field - pixel_grid(size, size, points), points, opened)


def _frame_points(size: int, like: Tensor) -> Tensor:
    """Return (N,8,2) places a fifth of the side outside a crop, which only the pose moves."""
    low, middle, high = -0.2 * size, 0.5 * size, 1.2 * size
    places = [
        (x, y)
        for y in (low, middle, high)
        for x in (low, middle, high)
        if (x, y) != (middle, middle)
    ]
    return like.new_tensor(places).expand(len(like), -1, -1)


def _neck_points(points: Tensor, pose: Tensor) -> Tensor:
    """Return (N,3,2) places on the neck, below the chin and on either side of it."""
    eyes = pose[:, _OUTER_EYES[1]] - pose[:, _OUTER_EYES[0]]
    down = torch.stack([-eyes[:, 1], eyes[:, 0]], 1)[:, None]
    return points[:, [JAW.start + 6, JAW.start + 10, JAW.start + 14]] + down * _BELOW_CHIN


def spline(to: Tensor, source: Tensor, size: int, *, smooth: float = 1e-4) -> Tensor:
    """Interpolate places between control points by thin-plate splines.

    Args:
        to: (N,K,2) Control points in px of a square of ``size`` px.
        source: (N,K,2) what each of them maps to.
        size: side of the square in px.
        smooth: How far control points that are close to each other may be missed; 0: not at all.

    Returns:
        (N,2,S,S) places that the pixels' centers map to.
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
    # distances by a product of matrices, which is several times as fast as differences
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
    """Return r^2 log r^2 of squared distances."""
    return squares * squares.clamp_min(1e-12).log()


def paint_inside(faces: Tensor, move: LipMove, *, share: Tensor | None = None) -> Tensor:
    """Paint the inside of mouths that are open wider than in their picture.

    Args:
        faces: (N,3,S,S) RGB in [0,1], moved.
        move: How they were moved.
        share: (N,1,1,1) opacity of the paint; None: 1.

    Returns:
        (N,3,S,S) RGB in [0,1].
    """
    paint, alpha = paint_mouth_inside(faces, move)
    return torch.lerp(faces, paint, alpha if share is None else alpha * share)


def paint_mouth_inside(faces: Tensor, move: LipMove) -> tuple[Tensor, Tensor]:
    """Draw the inside of mouths, and its opacity.

    Args:
        faces: (N,3,S,S) RGB in [0,1], moved; the color of the skin is taken from them.
        move: How they were moved.

    Returns:
        (N,3,S,S) RGB in [0,1], and (N,1,S,S) opacity in [0,1]: 0 where the picture shows the inside
        itself.
    """
    opening = mouth_opening(move.points)
    before = opening - move.opened
    ramp = ((_STRETCHED - _TORN) * opening).clamp_min(0.005)
    needed = ((_STRETCHED * opening - before) / ramp).clamp(0, 1)
    paint, alpha = torch.zeros_like(faces), torch.zeros_like(faces[:, :1])
    painted = needed > 0  # few frames if the person is seen speaking: the others cost nothing
    if painted.any():
        colors, inside = _draw_mouth_inside(faces[painted], move.points[painted])
        paint[painted], alpha[painted] = colors, inside * needed[painted][:, None, None, None]
    return paint, alpha


def _draw_mouth_inside(faces: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return colors (N,3,S,S) and area (N,1,S,S) of the inside of mouths."""
    size = faces.shape[-1]
    unit = (points[:, _OUTER_EYES[1]] - points[:, _OUTER_EYES[0]]).norm(dim=1)
    unit = unit.clamp_min(1e-6)[:, None, None, None]
    inside = polygon_distance(points[:, INNER_LIPS], size)[:, None] / unit  # > 0 inside
    alpha = (inside / (1.2 / unit).clamp_min(0.02) + 0.35).clamp(0, 1)
    across, below = _mouth_places(points, size)
    below, center = below / unit, (1 - across.square()).clamp_min(0)
    opening = mouth_opening(points)[:, None, None, None]
    # upper teeth do not move with the lips: as these part, the corners fall and the upper lip rises
    edge = _TEETH_EDGE - _CORNERS_FALL * opening - _TEETH_ARC * (1 - center)
    shown = ((opening - _TEETH_FROM) / (_TEETH_FULL - _TEETH_FROM)).clamp(0, 1)
    teeth = ((edge - below) / 0.025 + 0.5).clamp(0, 1) * shown
    # in the shadow of the lips, and darker towards the corners
    light = (0.5 + inside / 0.06).clamp(0.5, 1) * (0.35 + 0.65 * center)
    tongue = ((below - 0.2 * opening) / 0.05).clamp(0, 1) * center * (opening / 0.1).clamp(0, 1)
    beside_lips = (-inside.clamp_min(0) / 0.015).exp()
    skin = _skin_color(faces, points)[..., None, None]
    dark, red, inner_lips, white = (
        faces.new_tensor(color)[:, None, None] for color in (_DARK, _TONGUE, _INNER_LIPS, _TEETH)
    )
    colors = torch.lerp(skin * dark, skin * red, tongue * 0.75)
    colors = torch.lerp(colors, skin * inner_lips, beside_lips * 0.6)
    mean = skin.mean(1, keepdim=True).clamp_min(1e-3)
    tint = torch.lerp(torch.ones_like(skin), skin / mean, _TEETH_TINT)
    bright = (_TEETH_BASE + _TEETH_SHARE * mean) * tint * white * light
    return torch.lerp(colors, bright, teeth), alpha


def _mouth_places(points: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return (N,1,S,S) places from the middle between the inner corners of mouths.

    Across in half widths of the mouth, and below in px.
    """
    left, right = points[:, INNER_LIPS.start], points[:, INNER_LIPS.start + 10]
    half = ((right - left) / 2).norm(dim=1).clamp_min(1e-6)[:, None]
    x, y = ((right - left) / (2 * half)).unbind(1)
    offset = pixel_grid(size, size, points) - ((left + right) / 2)[:, :, None, None]
    x, y = x[:, None, None], y[:, None, None]
    across, below = offset[:, 0] * x + offset[:, 1] * y, offset[:, 1] * x - offset[:, 0] * y
    return (across / half[..., None])[:, None], below[:, None]


def _skin_color(faces: Tensor, points: Tensor) -> Tensor:
    """Return (N,3) the mean color of the bridge of the nose and of the cheeks beside its wings."""
    wings, sides = points[:, NOSE_WINGS], points[:, [JAW.start + 2, JAW.stop - 3]]
    places = torch.cat([points[:, NOSE_BRIDGE], torch.lerp(wings, sides, 0.35)], 1)
    weights = points.new_tensor([0.05] * 6 + [0.35] * 2)
    return (sample_places(faces, places.mT[:, :, None]) * weights)[:, :, 0].sum(2)
