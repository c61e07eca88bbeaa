"""Measure how far open mouths are, and find the frames of a clip that show them closed.

The only input is aligned crops: between the lips it is darker, or less red where teeth show, than
above and below.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

# Places in aligned crops, as parts of their side.
# xyxy: the middle of the lips, wide open ones too, below the nostrils
_MOUTH = (0.36, 0.54, 0.64, 0.86)
_SKIN = (0.25, 0.30, 0.75, 0.55)  # xyxy: light and skin color are measured here
_REACH = 0.22  # the widest gap between lips that counts as one
_BLUR = 1 / 32
_DARK = 0.1  # of the skin's light: below it differences are noise
# Inspected by eye on 17 clips of 11 people: at 0.3 grins count as closed, at 1.2 noise in the
# shadow of a mustache counts as open. The deepest place of each column is used, because the teeth
# of a grin are a thin line.
_TEETH = 0.5

_STRETCH_SECONDS = 0.5
# How far from its most closed frames towards its most open ones a clip's mouth counts as closed: of
# the frames chosen of the same clips, 4 of 77 showed teeth or a gap at 0.15, 8 of 99 at 0.25.
_CLOSED = 0.15
_ENDS = (0.02, 0.95)  # quantiles: what counts as a clip's most closed and most open frames


def measure_openness(faces: Tensor) -> Tensor:
    """Measure how far open the mouths in aligned crops are.

    Only the color and strength of the light over the whole face are compensated.

    Args:
        faces: (N,3,S,S) aligned crops, RGB in [0,1], S at least 48.

    Returns:
        (N,) openness, 0 or more, comparable within one clip of one person.
    """
    size = faces.shape[-1]
    light = _part(faces, _SKIN, size).flatten(2).median(2).values[:, :, None, None]
    x0, y0, x1, y1 = _MOUTH
    part = _part(faces, (x0, y0 - _REACH, x1, 1), size) / light.clamp_min(0.02)
    blur = _odd(_BLUR * size)
    part = F.avg_pool2d(part.clamp(0, 2), blur, 1, blur // 2, count_include_pad=False) + _DARK
    red, green = part[:, 0].log(), part[:, 1].log()
    reach = _odd(_REACH * size)
    above = int(y0 * size) - int((y0 - _REACH) * size)
    rows = slice(above, above + int((y1 - y0) * size))
    dark, pale = (
        _gaps(red, reach)[:, rows],
        _gaps(red - green, reach)[:, rows],
    )  # lips: as light as skin in red, and redder
    return dark.mean((1, 2)) + _TEETH * pale.amax(1).mean(1)


def find_closed_frames(openness: Tensor, visible: Tensor, *, fps: Fraction, most: int) -> Tensor:
    """Choose frames with closed mouths, spread over the clip.

    The most closed frame of each half second is taken, or of longer stretches if there would be too
    many, provided that it is near the clip's most closed ones.

    Args:
        openness: (T,) openness of each frame; values of invisible frames are ignored.
        visible: (T,) bool.
        fps: Frames per second.
        most: Largest number of frames, at least 1.

    Returns:
        (K,) rising frame indices; empty only if no frame is visible.

    Raises:
        ValueError: If ``most`` is below 1.
    """
    if most < 1:
        raise ValueError(f"most is {most}; expected 1 or more")
    frames = visible.nonzero()[:, 0]
    if not len(frames):
        return frames
    values = openness[frames]
    low, high = torch.quantile(values, values.new_tensor(_ENDS)).tolist()
    count = len(openness)
    stretches = max(1, min(most, round(count / (_STRETCH_SECONDS * fps))))
    stretch = frames * stretches // count
    best = [
        at[values[at].argmin()]
        for i in range(stretches)
        if len(at := (stretch == i).nonzero()[:, 0])
    ]
    chosen = torch.stack(best)
    return frames[chosen[values[chosen] <= low + _CLOSED * (high - low)]]


def nearest_index(chosen: Tensor, index: Tensor) -> Tensor:
    """Find the element of ``chosen`` nearest to each of ``index``.

    Args:
        chosen: (K,) rising.
        index: (T,).

    Returns:
        (T,) positions in ``chosen``; the earlier of two equally near ones.
    """
    return torch.bucketize(2 * index, chosen[1:] + chosen[:-1])


def _part(faces: Tensor, box: tuple[float, float, float, float], size: int) -> Tensor:
    x0, y0, x1, y1 = (int(v * size) for v in box)
    return faces[:, :, y0:y1, x0:x1]


def _odd(length: float) -> int:
    return int(length) // 2 * 2 + 1


def _gaps(values: Tensor, reach: int) -> Tensor:
    """Return how far ``values`` (N,H,W) are below both what is above and what is under them.

    This is what a gray-scale closing of columns with a reach of ``reach`` px adds; (N,H,W).
    """
    window = ((reach, 1), 1, (reach // 2, 0))
    upper = F.max_pool2d(values[:, None], *window)
    return -F.max_pool2d(-upper, *window)[:, 0] - values
