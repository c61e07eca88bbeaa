"""Measure the picture of a dub beside its source: lip color, inner mouth, flicker, untouched rest.

Frames of the dub and of the source go in together, of one size. Every frame, or pair of neighboring
frames, is measured by itself, so that any pieces give the same figures, bit for bit.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blend.landmark_masks import polygon_distance
from ..faces.visible import iterate_visible
from ..image.landmarks import INNER_LIPS, OUTER_LIPS, POINTS, mouth_aspect
from ..image.yuv import LUMA
from ..types import FaceTrack, Frames
from .aggregate import FrameValues, mean
from .lip_shapes import CLOSED

_INSIDE_PX = 1.0  # from the edge of the lips, whose own line is no detail of the mouth
_LEAST_PX = 12  # of an inner mouth: fewer say nothing
_STILL = 2.0  # levels of 255 by which a still place of the source changes at most
# The part of a face that a dub may change, in distances between the eyes (or from there to the
# mouth, if the head is turned): left and right of the middle, and from under the eyes to the neck.
_BESIDE, _BELOW_EYES, _ABOVE_NECK = 1.4, 0.35, 2.6
_LIPS_BESIDE, _LIPS_BESIDE_Y = 0.8, 0.7  # half the lips' place, in widths of the mouth


class LipColor(FrameValues):
    """Difference of the lips' color from the source's; lower is better, 0 for the same color.

    Formula: CIE 1976 color difference (dE*ab) between the mean CIE L*a*b* colors of the lips (outer
    without inner) of the dub and of the source in the same frame; the mean over frames. A
    difference of 2.3 is just seen (Mahy et al. 1994). Our own measure. Lips that open differ in
    light too: compare with the copied mouth.
    """

    def update(
        self, source: Frames, made: Frames, source_points: Tensor, made_points: Tensor
    ) -> None:
        """Compare the next frames.

        Args:
            source: N frames of the source.
            made: The same frames of the dub.
            source_points: (N,102,2) landmarks of the source in px, NaN without a face.
            made_points: (N,102,2) landmarks of the dub.
        """
        _check_alike(source, made)
        for old, new, before, after in zip(
            source.pixels, made.pixels, source_points, made_points, strict=True
        ):
            if bool(before.isnan().any() | after.isnan().any()):
                continue
            first, second = _lip_color(old, before), _lip_color(new, after)
            if first is not None and second is not None:
                self.values.append(float((first - second).norm()))

    def compute(self) -> float | None:
        """Return the mean over frames; None without a frame that shows both."""
        return mean(self.values)


class InnerMouthSharpness(FrameValues):
    """Fine detail of teeth and tongue, in levels of 255; higher is sharper.

    Formula: root mean square of the Laplacian of luma inside the inner lips, 1 px and more from
    them, in frames with an open mouth (aspect ratio above 0.05); the mean over frames; range 0 and
    more. Our own measure. It grows with the resolution and with noise, so that only figures of one
    source compare; best that of the real video.
    """

    def update(self, frames: Frames, points: Tensor) -> None:
        """Add the next frames.

        Args:
            frames: N frames.
            points: (N,102,2) landmarks in px, NaN without a face.
        """
        for pixels, marks in zip(frames.pixels, points, strict=True):
            if bool(marks.isnan().any()) or float(mouth_aspect(marks[None])[0]) <= CLOSED:
                continue
            patch, _, inner = _lip_patch(pixels, marks)
            inside = inner > _INSIDE_PX
            if int(inside.sum()) >= _LEAST_PX:
                detail = _laplacian(_luma(patch))[inside]
                self.values.append(float(detail.double().square().mean().sqrt()))

    def compute(self) -> float | None:
        """Return the mean over frames; None without a frame with an open mouth."""
        return mean(self.values)


@dataclass(frozen=True, slots=True)
class UntouchedFigures:
    """How much of the picture outside of the lower face is the source's.

    Attributes:
        exact: Share of pixels equal to the source's in every bit; in [0,1], best 1.
        change: Mean absolute difference from the source, in levels of 255; best 0.
    """

    exact: float | None
    change: float | None


class UntouchedPicture:
    """Whether eyes, hair and background stay as they were; see ``UntouchedFigures``.

    Formula: over all pixels outside of the lower face (from 0.35 eye distances under the eyes to
    the neck, 1.4 to each side), the share that is equal in every bit, and the mean absolute
    difference; the means over frames. Frames without the face count as a whole. Our own measure. An
    encoder alone changes nearly every pixel: of encoded dubs compare ``change`` with that of the
    encoded source.
    """

    def __init__(self) -> None:
        self.exact, self.changes = FrameValues(), FrameValues()

    def update(self, source: Frames, made: Frames, track: FaceTrack) -> None:
        """Compare the next frames.

        Args:
            source: Frames of the source.
            made: The same frames of the dub.
            track: The face that is dubbed.
        """
        _check_alike(source, made)
        faces = {index: points for index, _, _, points in iterate_visible(source, track)}
        for i, (old, new) in enumerate(zip(source.pixels, made.pixels, strict=True)):
            outside = torch.ones(old.shape[:2], dtype=torch.bool, device=old.device)
            points = faces.get(source.start + i)
            if points is not None:
                (top, bottom, left, right), region, _ = _lower_face(points, old.shape)
                outside[top:bottom, left:right] &= ~region.to(outside.device)
            if not bool(outside.any()):
                continue
            equal = (old == new).all(2)[outside]
            self.exact.values.append(float(equal.double().mean()))
            apart = (_to_levels(old)[outside] - _to_levels(new)[outside]).abs()
            self.changes.values.append(float(apart.double().mean()))

    def compute(self) -> UntouchedFigures:
        """Return the means over frames; None without frames."""
        return UntouchedFigures(mean(self.exact.values), mean(self.changes.values))


class Flicker(FrameValues):
    """Flicker of the skin around the lips, in levels of 255 a frame; best 0.

    Formula: mean absolute change of luma from frame to frame in the lower face outside the lips, at
    places where the source changes by less than 2 levels, less that of the source; the mean over
    frames. Below 0 the dub is stiller than its source. Our own measure. Use one object per clip.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[int, Tensor, Tensor] | None = None

    def update(self, source: Frames, made: Frames, track: FaceTrack) -> None:
        """Compare the next frames of one clip.

        Args:
            source: Frames of the source.
            made: The same frames of the dub.
            track: The face that is dubbed.
        """
        _check_alike(source, made)
        for index, old, _, points in iterate_visible(source, track):
            new = made.pixels[index - made.start]
            if self._last is not None and self._last[0] == index - 1:
                self._compare(old, new, points)
            self._last = index, old, new

    def _compare(self, old: Tensor, new: Tensor, points: Tensor) -> None:
        assert self._last is not None
        (top, bottom, left, right), region, lips = _lower_face(points, old.shape)
        place = slice(top, bottom), slice(left, right)
        was, became = (
            (_luma(_to_levels(now[place]) / 255) - _luma(_to_levels(before[place]) / 255)).abs()
            for before, now in zip(self._last[1:], (old, new), strict=True)
        )
        still = region & ~lips & (was < _STILL)
        if bool(still.any()):
            self.values.append(float((became - was)[still].double().mean()))

    def compute(self) -> float | None:
        """Return the mean over frames; None without two neighboring frames with a still place."""
        return mean(self.values)


def _check_alike(source: Frames, made: Frames) -> None:
    if source.pixels.shape != made.pixels.shape or source.start != made.start:
        got = (
            f"{tuple(source.pixels.shape)} from {source.start}, {tuple(made.pixels.shape)} from "
            f"{made.start}"
        )
        raise ValueError(f"frames are {got}; expected the same frames twice")


def _to_levels(pixels: Tensor) -> Tensor:
    return pixels.cpu().float() if pixels.dtype == torch.uint8 else pixels.cpu().float() * 255


def _luma(patch: Tensor) -> Tensor:
    """(H,W,3) in [0,1] to (H,W) in levels of 255."""
    return (patch * patch.new_tensor(LUMA)).sum(2) * 255


def _laplacian(luma: Tensor) -> Tensor:
    kernel = luma.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    padded = F.pad(luma[None, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel[None, None])[0, 0]


def _lip_patch(pixels: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the lips out of (H,W,3) by landmarks (102,2).

    Returns:
        (h,w,3) in [0,1], and (h,w) px inside the outer and the inner lips (below 0 outside).
    """
    if points.shape != (POINTS, 2):
        raise ValueError(f"landmarks are {tuple(points.shape)}; expected ({POINTS},2)")
    outer, inner = points[OUTER_LIPS].float(), points[INNER_LIPS].float()
    corner = outer.amin(0).floor() - 2
    side = int((outer.amax(0) - corner).amax().ceil()) + 3
    inside = polygon_distance(torch.stack([outer, inner]) - corner, side)
    height, width = pixels.shape[:2]
    x, y = (int(value) for value in corner)
    top, bottom, left, right = max(y, 0), min(y + side, height), max(x, 0), min(x + side, width)
    cut = inside[:, top - y : max(bottom, top) - y, left - x : max(right, left) - x]
    patch = _to_levels(pixels[top : max(bottom, top), left : max(right, left)]) / 255
    return patch, cut[0], cut[1]


def _lip_color(pixels: Tensor, points: Tensor) -> Tensor | None:
    """Mean CIE L*a*b* color (3,) of the lips; None if they have no area."""
    import kornia.color as kc  # takes a third of a second

    patch, outer, inner = _lip_patch(pixels, points)
    lips = (outer > 0) & (inner <= 0)
    if not bool(lips.any()):
        return None
    return kc.rgb_to_lab(patch.permute(2, 0, 1)[None])[0].double()[:, lips].mean(1)


def _lower_face(
    points: Tensor, shape: torch.Size
) -> tuple[tuple[int, int, int, int], Tensor, Tensor]:
    """Find the part of a frame (H,W,3) that a dub of the face with five points (5,2) may change.

    Returns:
        Box (top, bottom, left, right) in px, and (h,w) bool in it: the lower face, and the lips.
    """
    eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
    apart = points[1] - points[0]
    unit = max(float(apart.norm()), float((mouth - eyes).norm()), 1.0)
    along = apart / apart.norm().clamp_min(1e-6)
    down = torch.stack([-along[1], along[0]])
    if float(down @ (mouth - eyes)) < 0:  # the eyes are named the other way round
        down = -down
    corners = torch.stack(
        [
            eyes + unit * (x * along + y * down)
            for x in (-_BESIDE, _BESIDE)
            for y in (_BELOW_EYES, _ABOVE_NECK)
        ]
    )
    height, width = shape[:2]
    (left, top), (right, bottom) = corners.amin(0).tolist(), corners.amax(0).tolist()
    left, right = (min(max(int(v), 0), width) for v in (left, right + 1))
    top, bottom = (min(max(int(v), 0), height) for v in (top, bottom + 1))
    y, x = torch.arange(top, bottom) + 0.5, torch.arange(left, right) + 0.5
    off_x, off_y = x[None, :] - eyes[0], y[:, None] - eyes[1]
    u, v = off_x * along[0] + off_y * along[1], off_x * down[0] + off_y * down[1]
    region = (u.abs() <= _BESIDE * unit) & (v >= _BELOW_EYES * unit) & (v <= _ABOVE_NECK * unit)
    wide = max(float((points[4] - points[3]).norm()), 0.3 * unit)
    at_u, at_v = float((mouth - eyes) @ along), float((mouth - eyes) @ down)
    lips = ((u - at_u).abs() <= _LIPS_BESIDE * wide) & ((v - at_v).abs() <= _LIPS_BESIDE_Y * wide)
    return (top, bottom, left, right), region, lips
