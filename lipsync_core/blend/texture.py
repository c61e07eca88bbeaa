"""Give a generated mouth the sharpness and the grain of the frame round it."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the range [0,1]: how much generated and own skin may differ and still share fine detail.
_TOLERANCE = 0.12
_MAX_GAIN = 2.0  # of fine detail that is strengthened because there is none to borrow
_TILE = 256  # px of grain that repeats


@dataclass(frozen=True, slots=True, eq=False)
class Texture:
    """Fine detail that painted mouths get back.

    Attributes:
        detail: In [0,1], the share of the source's sharpness.
        grain: In [0,1], the share of its grain.
        index: The stream index of each frame, on which the grain depends.
    """

    detail: float
    grain: float
    index: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a patch in its clip.

    Attributes:
        number: Stream index of the frame.
        x: Left border in px of the frame.
        y: Upper border in px of the frame.
        step: Frame pixels per pixel of the crop.
    """

    number: int
    x: int
    y: int
    step: float


def add_texture(face: Tensor, own: Tensor, place: Place, *, texture: Texture, top: float) -> Tensor:
    """Add the fine detail of a frame to a painted face.

    A network draws at the resolution of its crop. Finer detail is taken from the frame where the
    two otherwise look alike (skin, a beard). Where they do not (lips, teeth), the generated detail
    is strengthened by as much as it lacks elsewhere, and grain as strong as the frame's is added.

    Args:
        face: (C,h,w) the painted face in the frame.
        own: (C,h,w) the frame's pixels there.
        place: Where the patch lies.
        texture: How much detail and grain.
        top: The largest value, 1 or 255.

    Returns:
        (C,h,w) the face with texture.
    """
    reach = max(1, round(place.step)) * 2 + 1
    # one plane: color has little detail
    gray, face_gray = own.mean(0, keepdim=True), face.mean(0, keepdim=True)
    low, face_low = _blur(gray, reach), _blur(face_gray, reach)
    fine, face_fine = gray - low, face_gray - face_low
    alike = ((low - face_low).square() / -((_TOLERANCE * top) ** 2)).exp()
    ratio = (alike * fine.square()).sum() / (alike * face_fine.square()).sum().clamp_min(1e-12)
    gain = ratio.sqrt().clamp(1, _MAX_GAIN) - 1
    detail = alike * (fine - face_fine) + (1 - alike) * gain * face_fine
    out = face + texture.detail * detail
    if texture.grain:
        # 0.6745: median of a normal distribution's magnitude, in standard deviations
        level = fine[:, ::3, ::3].abs().median() / 0.6745
        out = out + (1 - alike) * (texture.grain * level) * _make_grain(place, out)
    return out


def _blur(x: Tensor, reach: int) -> Tensor:
    """Return box means of (1,h,w) over ``reach`` px, row by row and then column by column."""
    half = reach // 2
    x = F.avg_pool2d(x[:, None], (1, reach), 1, (0, half), count_include_pad=False)
    return F.avg_pool2d(x, (reach, 1), 1, (half, 0), count_include_pad=False)[:, 0]


def _make_grain(place: Place, like: Tensor) -> Tensor:
    """Return (1,h,w) normal noise that depends only on the place, on any device."""
    height, width = like.shape[1:]
    across, down = place.x + place.number * 57, place.y + place.number * 97
    rows, columns = (
        (torch.arange(k) + shift) % _TILE for k, shift in ((height, down), (width, across))
    )
    return _noise_tile()[rows][:, columns][None].to(like)


@functools.cache
def _noise_tile() -> Tensor:
    return torch.randn(_TILE, _TILE, generator=torch.Generator().manual_seed(0))
