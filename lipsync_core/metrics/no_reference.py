"""Measure visible faults without a reference: blurred mouths, jittering borders, old lips showing.

All three metrics use luma (Rec. 601, levels of 255) of crops that are stabilized by the face's five
points. None has an absolute threshold: compare a dub with its own undubbed clip, tracked once, at
one frame rate.
"""

import functools
import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blend.masks import face_mask
from ..faces.visible import iterate_visible
from ..image.affine import ALIGNED, Framing, apply, crop_to_frame, invert, scale_of
from ..image.crop import crop_pictures
from ..image.yuv import LUMA
from ..types import FaceTrack, Frames
from .aggregate import FrameValues, mean, median

_SIZE = 96  # px of a stabilized crop: motion is coarse, and fine grain only adds noise
_NATIVE_PX = (32, 1024)  # sides of the crops in which sharpness is measured


class Sharpness(FrameValues):
    """Fine detail of the mouth relative to that of the rest of the face; higher is sharper.

    Formula: the root mean square of the Laplacian of luma inside the mouth's mask, divided by that
    between the mask and the face's outline, both at the resolution of the frame. Range: above 0.

    Real footage: 0.62 to 1.11 (nine clips). Its mouth blurred by a Gaussian of sigma 1 px keeps 37
    to 50 % of that, 2 px 17 to 29 %; redrawn from 96 px, on faces of 190 px and more, 32 to 49 %.
    Noise and codec affect both regions alike.
    """

    def update(self, frames: Frames, track: FaceTrack) -> None:
        """Add frames with the face of ``track``; frames in which it is not visible do not count.

        Args:
            frames: The next frames.
            track: Track of the face.
        """
        for _, pixels, _, points in iterate_visible(frames, track):
            matrix, size = _native_crop(points)
            luma = _luma(crop_pictures(pixels[None], matrix.to(pixels.device), size))
            placed = apply(invert(matrix), points[None])
            soft, whole = (
                face_mask("mouth", placed, size)[0, 0],
                face_mask("mouth", placed, size, feather=0)[0, 0],
            )
            rest = face_mask("face", placed, size, feather=0)[0, 0] * (1 - whole)
            detail = _laplacian(luma)
            mouth, other = _rms(detail, (soft > 0.999).to(luma)), _rms(detail, rest)
            if mouth > 0 and other > 0:
                self.values.append(mouth / other)

    def compute(self) -> float | None:
        """Return the geometric mean over frames.

        None if no frame shows the face, or all are flat.
        """
        logarithm = mean([math.log(value) for value in self.values])
        return None if logarithm is None else math.exp(logarithm)


class _Stabilized(FrameValues):
    """Metric of neighboring frames, which keeps the last ``history`` crops.

    It drops them when the face is not visible.
    """

    history = 1

    def __init__(self) -> None:
        super().__init__()
        self._recent: list[Tensor] = []
        self._next = 0

    def update(self, frames: Frames, track: FaceTrack) -> None:
        """Add the next frames of one clip with the face of ``track``.

        Use one object per clip, and ``merge`` them.

        Args:
            frames: The next frames.
            track: Track of the face.
        """
        for index, pixels, _, points in iterate_visible(frames, track):
            matrix = crop_to_frame(points.new_zeros(1, 4), points[None], Framing(), _SIZE)
            luma = _blur(_luma(crop_pictures(pixels[None], matrix.to(pixels.device), _SIZE)))
            if index != self._next:
                self._recent = []
            self._recent = [*self._recent[-self.history :], luma]
            self._next = index + 1
            if len(self._recent) > self.history:
                self._compare(index, self._recent)

    def _compare(self, index: int, crops: list[Tensor]) -> None:
        raise NotImplementedError


class BorderJitter(_Stabilized):
    """Jitter of the seam around the mouth, in levels of 255 per frame squared; lower is better.

    Formula: the second difference of luma in time along the border of the mouth's mask, less that
    of cheeks and nose (root of the difference of energies, at least 0). Steady motion has none;
    head motion is fitted on cheeks and nose and removed.
    """

    history = 2

    def _compare(self, index: int, crops: list[Tensor]) -> None:
        before, now, after = crops
        regions = _regions()
        change = _remove_head_motion(before - 2 * now + after, now, regions["rest"])
        self.values.append(_excess_motion(change, regions["border"], regions["rest"]))

    def compute(self) -> float | None:
        """Return the median over frames.

        None if the face is never visible in three consecutive frames.

        A median, because a cut, a blink or a nod says nothing about the seam. In levels of 255 per
        frame squared.
        """
        return median(self.values)


class MouthMotion(_Stabilized):
    """Motion of the mouth while the speech is silent, which shows old lips leaking.

    Lower is better.

    Formula: the root mean square of the difference of luma between neighboring silent frames inside
    the mouth's mask, less that of cheeks and nose (noise), in levels of 255 per 1/25 s. Range: 0 or
    more. Head motion is fitted on cheeks and nose and removed.

    One photo moved like the head of a real clip, its face detected again, gives 0.1 to 0.7; the
    same clips 2.4 to 13 while they talk, and 0.7 when one is silent.

    Args:
        silent: (N,) bool per clip frame, from ``silent_frames``; only pairs of silent neighbors
            count.
        fps: Frames per second of the clip.
    """

    def __init__(self, silent: Tensor, fps: Fraction) -> None:
        super().__init__()
        self.silent, self.fps = silent.cpu(), fps

    def _compare(self, index: int, crops: list[Tensor]) -> None:
        if index >= len(self.silent) or not bool(self.silent[index - 1 : index + 1].all()):
            return
        before, now = crops
        regions = _regions()
        change = _remove_head_motion(now - before, (now + before) / 2, regions["rest"])
        self.values.append(
            _excess_motion(change, regions["mouth"], regions["rest"]) * float(self.fps) / 25
        )

    def compute(self) -> float | None:
        """Return the root mean square over pairs of frames; None if no pair is silent.

        In levels of 255 per 1/25 s.
        """
        energy = mean([value * value for value in self.values])
        return None if energy is None else math.sqrt(energy)


def _native_crop(points: Tensor) -> tuple[Tensor, int]:
    """Return the (1,2,3) map and the side of an aligned crop.

    It has as many pixels as the face has in the frame.
    """
    side = float(scale_of(crop_to_frame(points.new_zeros(1, 4), points[None], Framing(), 1)))
    size = min(max(round(side), _NATIVE_PX[0]), _NATIVE_PX[1])
    return crop_to_frame(points.new_zeros(1, 4), points[None], Framing(), size), size


def _luma(crops: Tensor) -> Tensor:
    """Convert a crop (1,3,S,S) in [0,1] to luma (S,S) in [0,255] on the CPU."""
    crops = crops.cpu()  # small, and the next steps use float64
    return (crops[0] * crops.new_tensor(LUMA)[:, None, None]).sum(0) * 255


def _laplacian(luma: Tensor) -> Tensor:
    kernel = luma.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    return F.conv2d(F.pad(luma[None, None], (1, 1, 1, 1), mode="replicate"), kernel[None, None])[
        0, 0
    ]


def _blur(luma: Tensor) -> Tensor:
    """Blur with sigma 1 px, so that a shift shows in the gradient."""
    kernel = luma.new_tensor([1, 4, 6, 4, 1]) / 16
    x = F.pad(luma[None, None], (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(x, kernel[None, None, None]), kernel[None, None, :, None])[0, 0]


@functools.cache
def _regions() -> dict[str, Tensor]:
    """Return masks (S,S) of an aligned crop: ``mouth``, ``border`` and ``rest``.

    ``border`` covers all places that the border of the mouth's mask may reach; ``rest`` is cheeks
    and nose (eyes blink, which would be taken for head motion).
    """
    points = torch.tensor([ALIGNED]) * _SIZE
    soft, whole = face_mask("mouth", points, _SIZE), face_mask("mouth", points, _SIZE, feather=0)
    grown = F.max_pool2d(whole, 9, 1, 4)
    below = (torch.arange(_SIZE) + 0.5 > (ALIGNED[0][1] + 0.08) * _SIZE).float()[:, None]
    return {
        "mouth": (soft > 0.5).float()[0, 0],
        "border": (grown * (soft < 0.999))[0, 0],
        "rest": (face_mask("face", points, _SIZE, feather=0) * (1 - grown))[0, 0] * below,
    }


def _remove_head_motion(change: Tensor, luma: Tensor, region: Tensor) -> Tensor:
    """Remove from ``change`` (S,S) the part that head motion and a change of light explain.

    That part is a small similarity motion of ``luma`` and a change of light, fitted in ``region``.
    """
    dy, dx = torch.gradient(luma.double())
    axis = torch.linspace(-1, 1, _SIZE, dtype=torch.float64)
    x, y = axis[None, :], axis[:, None]
    causes = torch.stack(
        [dx, dy, dx * x + dy * y, dy * x - dx * y, luma.double() / 255, torch.ones_like(dx)], -1
    )
    inside = region > 0
    known, seen = causes[inside], change.double()[inside]
    square = known.T @ known
    ridge = torch.eye(6, dtype=torch.float64) * (1e-9 * square.trace() + 1e-12)  # a flat face
    return change - (causes @ torch.linalg.solve(square + ridge, known.T @ seen)).to(change)


def _rms(x: Tensor, weight: Tensor) -> float:
    return math.sqrt(float((x.double().square() * weight).sum() / weight.sum().clamp_min(1)))


def _excess_motion(change: Tensor, region: Tensor, rest: Tensor) -> float:
    """Return how much more ``region`` moves than ``rest``.

    This is the root of the difference of energies, at least 0.
    """
    return math.sqrt(max(0.0, _rms(change, region) ** 2 - _rms(change, rest) ** 2))
