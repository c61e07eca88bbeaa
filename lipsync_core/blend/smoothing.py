"""Causal temporal smoothing; results do not depend on the chunk size."""

import math
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the range [0,1], or of a quarter of the crop for movements: smaller changes are trembling, not
# speech.
_TREMBLING = 0.03
_NEAR = 9  # px round a pixel over which its change is averaged


def follows_previous(index: Tensor, last: int | None) -> Tensor:
    """Find the frames that come right after the one before them.

    Args:
        index: (N,) stream indices of frames.
        last: Index of the frame before the first of them; None at the start of a stream.

    Returns:
        (N,) bool.
    """
    before = torch.cat([index.new_tensor([-2 if last is None else last]), index[:-1]])
    return index == before + 1


def smooth(
    values: Tensor,
    last: Tensor | None,
    decay: Tensor,
    *,
    attack_instant: bool = False,
    reset_above: float | None = None,
) -> Tensor:
    """Smooth values over time with a causal one-pole filter.

    Args:
        values: (N,...) one value per frame.
        last: (1,...) output for the frame before the first, or None at the start of a stream.
        decay: (N,...), broadcast, weight of the previous output; 0 after a cut.
        attack_instant: Follow rises at once and smooth falls only.
        reset_above: If any value differs by this or more, restart from the new values.

    Returns:
        (N,...) smoothed values.
    """
    out: list[Tensor] = []
    for value, weight in zip(values.split(1), decay.split(1), strict=True):
        weight = weight.to(value)
        if reset_above is not None and last is not None:
            weight = weight * ((value - last).abs().amax() < reset_above)
        now = value if last is None else torch.lerp(value, last, weight)
        last = torch.maximum(now, value) if attack_instant else now
        out.append(last)
    return torch.cat(out)


def stabilize(
    mouths: Tensor,
    last: Tensor | None,
    follows: Tensor,
    *,
    strength: float,
    visible: Tensor | None = None,
) -> Tensor:
    """Reduce the trembling of generated mouths without smearing lips that move.

    Args:
        mouths: (N,C,H,W) pictures in [0,1], or movements in [-1,1] of a quarter of the crop.
        last: (1,C,H,W) output for the frame before the first, or None.
        follows: (N,) bool, whether each frame follows the one before it.
        strength: In [0,1], the weight of the previous output where nothing changes; lips that move
            keep none of it.
        visible: (N,C,H,W) in [0,1], how much the change of each value counts; None: 1.

    Returns:
        (N,C,H,W) stabilized mouths.
    """
    out: list[Tensor] = []
    weights = [None] * len(mouths) if visible is None else visible.split(1)
    for now, weight, follow in zip(mouths.split(1), weights, follows.tolist(), strict=True):
        if follow and last is not None:
            change = (now - last).abs() if weight is None else (now - last).abs() * weight
            change = change.amax(1, keepdim=True)
            change = F.avg_pool2d(change, _NEAR, 1, _NEAR // 2, count_include_pad=False)
            now = torch.lerp(now, last, strength * (-(change / _TREMBLING).square()).exp())
        last = now
        out.append(last)
    return torch.cat(out)


class Smoother:
    """One-pole filter of a quantity over the frames of one stream; it keeps the last output.

    Args:
        seconds: Time in which a step is followed to 63 %.
        fps: Frame rate of the stream.
        attack_instant: Follow rises at once and smooth falls only.
        reset_above: If any value differs by this or more, restart from the new values.
    """

    def __init__(
        self,
        seconds: float,
        fps: Fraction,
        *,
        attack_instant: bool = False,
        reset_above: float | None = None,
    ) -> None:
        self._decay = math.exp(-fps.denominator / (fps.numerator * seconds))
        self._attack_instant = attack_instant
        self._reset_above = reset_above
        self._index: int | None = None
        self.last: Tensor | None = None

    def update(self, values: Tensor, index: Tensor) -> Tensor:
        """Smooth the next values and keep the last output.

        Args:
            values: (N,...) one value per frame.
            index: (N,) stream indices of the frames; after a gap the filter starts again.

        Returns:
            (N,...) smoothed values.
        """
        decay = follows_previous(index, self._index) * self._decay
        values = smooth(
            values,
            self.last,
            decay.view(-1, *[1] * (values.ndim - 1)),
            attack_instant=self._attack_instant,
            reset_above=self._reset_above,
        )
        self.last, self._index = values[-1:], int(index[-1])
        return values


class Stabilizer:
    """``stabilize`` over the frames of one stream; it keeps the last output.

    Args:
        strength: In [0,1]; at 0 nothing is changed and nothing is kept.
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._index: int | None = None
        self.last: Tensor | None = None

    def update(self, mouths: Tensor, index: Tensor, *, visible: Tensor | None = None) -> Tensor:
        """Stabilize the next mouths and keep the last output.

        Args:
            mouths: (N,C,H,W) pictures or movements.
            index: (N,) stream indices of the frames.
            visible: (N,C,H,W) in [0,1], how much the change of each value counts; None: 1.

        Returns:
            (N,C,H,W) stabilized mouths.
        """
        if not self._strength:
            return mouths
        follows = follows_previous(index, self._index)
        mouths = stabilize(mouths, self.last, follows, strength=self._strength, visible=visible)
        self.last, self._index = mouths[-1:], int(index[-1])
        return mouths
