"""Mouth openings of baselines that a dub must beat, compared without drawing a picture."""

from fractions import Fraction
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.ops import mix_to_mono
from ..types import Audio
from .mouth import RATE

_SMOOTHING = (0.25, 0.5, 0.25)  # over neighboring openings: one syllable lasts five or more
# of the pressure (Stevens 1955, "The measurement of loudness"): how loud a sound seems
_LOUDNESS = 0.6


def loudness_openings(audio: Audio, *, rate: int = RATE) -> Tensor:
    """Open a mouth by the loudness of the sound alone.

    Args:
        audio: The new sound; channels are mixed.
        rate: Openings a second.

    Returns:
        (M,) float64 in [0,1]: the root mean square of the samples from k / rate to (k + 1) / rate
        seconds, smoothed over three openings, to the power of 0.6. Only its course means anything;
        its size is in no distance between eyes.
    """
    samples = mix_to_mono(audio).samples[0].double()
    count = int(Fraction(len(samples), audio.rate) * rate)
    ends = [int(Fraction(k, rate) * audio.rate) for k in range(count + 1)]
    if not count:
        return samples.new_zeros(0)
    energy = torch.stack([samples[first:end].square().mean() for first, end in pairwise(ends)])
    padded = F.pad(energy.sqrt()[None, None], (1, 1), mode="replicate")
    return F.conv1d(padded, padded.new_tensor(_SMOOTHING)[None, None])[0, 0] ** _LOUDNESS


def freeze_openings(openings: Tensor) -> Tensor:
    """Keep a mouth as open as it usually is.

    Args:
        openings: (M,) openings of the source.

    Returns:
        (M,) their median.
    """
    return openings.median().expand_as(openings)


def copy_openings(openings: Tensor) -> Tensor:
    """Give each moment the mouth of half a clip later, counted on from the beginning past the end.

    Args:
        openings: (M,) openings of the source.

    Returns:
        (M,) its own openings at the wrong time, as ``evaluation.baselines.copy_mouth`` draws
        them.
    """
    return openings.roll(-(len(openings) // 2))
