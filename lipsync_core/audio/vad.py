"""Voice activity: stretches of speech in a sound, and a curve over video frames.

The detector learns steady backgrounds (room, fan, hiss, hum) in each of 16 bands from the quietest
tenth of a second within 3 s, and takes whatever rises above them for voice. Music and crowds rise
too: the sound should be speech without them. A note held for 6 s counts as background.

Measured on ten recordings (audio books, an old speech outdoors, talk in videos, espeak) with pauses
of 1.2 s put in, truth from the clean level; noise was white, pink, of a fan or mains hum. Percent
of speech above one half, and of pauses (0.25 s and more from speech, most of it faint speech or
breath that the truth does not count): clean 100 and 3, noise at 20 dB 100 and 1 to 4, at 10 dB 100
and 0 to 3, at 5 dB 99 and 0 to 3.
"""

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..options import Silence
from ..runtime.intervals import true_runs
from ..types import Audio
from .ops import mix_to_mono

_HOPS = 100  # a second
_WINDOW = Fraction(32, 1000)  # seconds: under the lowest voice's two periods bands would pulse
_BANDS, _LOW_HZ, _HIGH_HZ = 16, 120.0, 7000.0  # above the mains and its first harmonic
_SMOOTH, _STEADY = 5, 11  # hops over which voice and background are averaged
_REACH = 3 * _HOPS  # hops to each side in which the background is sought
_RISE = 1.5  # mean of a background over the least of its averages
# what lies so far under the clip's loud hops, or so low, is no voice
_DEPTH_DB, _LEAST_DBFS = 40.0, -90.0
_LOUD = 0.95  # quantile
# of the excess over the background, mean of the bands; the most that one counts
_THRESHOLD_DB, _MOST_DB = 2.0, 20.0
# hops: a click, smeared by window and mean, is shorter; stops in a phrase are
_SHORTEST, _GAP = 10, 20
_AT_ONCE = 4096  # hops whose spectra are in memory


@dataclass(frozen=True, slots=True)
class Edges:
    """Rise and fall of an activity curve around a stretch of speech.

    Lips open some 100 ms before a word sounds (100 to 300 ms from the first motion: Chandrasekaran
    et al. 2009, PLoS Comput Biol 5(7)), and last sounds fade into the background before they end.

    Attributes:
        attack_ms: time of the rise from 0 to 1.
        lead_ms: time by which 1 is reached before the stretch begins.
        hold_ms: time at 1 after the stretch ends.
        release_ms: time of the fall from 1 to 0.
    """

    attack_ms: int = 100
    lead_ms: int = 40
    hold_ms: int = 80
    release_ms: int = 120

    def __post_init__(self) -> None:
        if min(self.attack_ms, self.lead_ms, self.hold_ms, self.release_ms) < 0:
            raise ValueError(f"{self} has a negative part; expected 0 ms or more of each")


def voice_activity(audio: Audio, *, fps: Fraction, count: int, edges: Edges = Edges()) -> Tensor:
    """Compute how much of each video frame's moment is speech.

    Args:
        audio: sound of any rate and level; channels are mixed. Past its end it is silent.
        fps: frame rate of the video.
        count: number of frames; the first frames do not depend on it.
        edges: rise and fall around speech.

    Returns:
        (count,) in [0,1], on the CPU, at the middle of each frame: 1 in speech, 0 in silence.
    """
    return activity_curve(voiced_stretches(audio), fps=fps, count=count, edges=edges)


def silent_frames(audio: Audio, fps: Fraction, count: int, *, margin_ms: int = 200) -> Tensor:
    """Find the video frames without speech, in which lips have no reason to move.

    Args:
        audio: sound of any rate and level.
        fps: frame rate of the video.
        count: number of frames.
        margin_ms: distance that speech keeps from the middle of the frame: lips close for 50 to
            150 ms during speech and open before it begins.

    Returns:
        (count,) bool.
    """
    return voice_activity(audio, fps=fps, count=count, edges=Edges(0, margin_ms, margin_ms, 0)) == 0


def opacity_and_activity(
    silence: Silence, turns: Tensor | None, activity: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Apply a silence policy to a face's turns and its voice.

    Args:
        silence: what a mouth does in silence.
        turns: (T,) in [0,1], how much the face speaks; None for always.
        activity: (T,) in [0,1], voice activity; None if the sound was not analyzed.

    Returns:
        Opacity of the new mouth, and activity of its speech, (T,) in [0,1] each or None for 1.
    """
    if silence == "keep" and activity is not None:
        return activity if turns is None else activity * turns, None
    return turns, activity if silence == "close" else None


def activity_curve(
    stretches: Tensor, *, fps: Fraction, count: int, edges: Edges = Edges()
) -> Tensor:
    """Compute a curve over video frames from stretches of time.

    Args:
        stretches: (R,2) begin and end in seconds, rising and apart.
        fps: frame rate of the video.
        count: number of frames.
        edges: rise and fall around a stretch.

    Returns:
        (count,) float in [0,1] at the middle of each frame: 1 within a stretch, 0 far from all.
    """
    # integers as far as 2^53, one division: an hour on, the time is as exact as at first
    middle = (
        (2 * torch.arange(count, dtype=torch.float64) + 1) * fps.denominator / (2 * fps.numerator)
    )
    never = torch.tensor([math.inf], dtype=torch.float64)
    begins, ends = (
        torch.cat([stretches[:, 0].double(), never]),
        torch.cat([-never, stretches[:, 1].double()]),
    )
    place = torch.searchsorted(begins[:-1].contiguous(), middle, right=True)
    # after < 0: within the stretch that began last
    before, after = begins[place] - middle, middle - ends[place]
    rising = _fall(before, edges.lead_ms, edges.attack_ms)
    return torch.maximum(rising, _fall(after, edges.hold_ms, edges.release_ms)).float()


def _fall(distance: Tensor, hold_ms: int, slope_ms: int) -> Tensor:
    """1 up to a distance of ``hold_ms``, 0 from ``slope_ms`` later on; ``distance`` in seconds."""
    beyond = distance * 1000 - hold_ms
    return (1 - beyond / slope_ms).clamp(0, 1) if slope_ms else (beyond < 0).to(distance)


def voiced_stretches(audio: Audio) -> Tensor:
    """Find the stretches of speech.

    Args:
        audio: sound of any rate and level.

    Returns:
        (R,2) float64 begin and end in seconds, rising, to 10 ms; pauses below 0.2 s are ignored.
    """
    runs = _close_gaps(true_runs(_excess(audio) > _THRESHOLD_DB))
    return runs[runs[:, 1] - runs[:, 0] >= _SHORTEST].double() / _HOPS


def _excess(audio: Audio) -> Tensor:
    """(K,) dB by which each 10 ms rise above the background, as the mean of the bands."""
    power = _powers(mix_to_mono(audio))  # (BANDS, K)
    if not power.shape[1]:
        return power.new_zeros(0)
    loud_db = 10 * math.log10(float(_quantile(power.sum(0), _LOUD)) + 1e-30)
    nothing = 10 ** (max(loud_db - _DEPTH_DB, _LEAST_DBFS) / 10) / _BANDS
    ratio = _average(power, _SMOOTH) / (_RISE * _background(power)).clamp_min(nothing)
    return (10 * ratio.clamp_min(1).log10()).clamp_max(_MOST_DB).mean(0)


def _background(power: Tensor) -> Tensor:
    """(BANDS, K) the quietest tenth of a second nearby.

    Digital silence, which editors put in, is no background (0 where there is nothing else).
    """
    steady = _average(power, _STEADY)
    heard = power.sum(0, keepdim=True) > 10 ** (_LEAST_DBFS / 10)
    whole = (
        -F.max_pool1d(F.pad(-heard.float(), (_STEADY // 2, _STEADY // 2), value=-1.0), _STEADY, 1)
        > 0
    )
    known = torch.where(whole, steady, math.inf)
    least = -F.max_pool1d(
        F.pad(-known, (_REACH, _REACH), value=-math.inf)[None], 2 * _REACH + 1, 1
    )[0]
    return torch.where(least.isinf(), 0.0, least)


def _powers(audio: Audio) -> Tensor:
    """(BANDS, K) mean square of mono ``audio`` in each band, about the middle of each hop."""
    x, rate = audio.samples[0].cpu(), audio.rate
    size = max(2, int(_WINDOW * rate))
    window = torch.hann_window(size, dtype=torch.float64)
    bands = _bands(size, rate) * (2 / (size * window.square().sum()))
    count = len(x) * _HOPS // rate
    padded = F.pad(x, (size, size))
    pieces: list[Tensor] = []
    for first in range(0, count, _AT_ONCE):
        hops = torch.arange(first, min(first + _AT_ONCE, count))
        begins = (2 * hops + 1) * rate // (2 * _HOPS) - size // 2 + size
        frames = padded[begins[:, None] + torch.arange(size)].double()
        pieces.append((bands @ torch.fft.rfft(frames * window).abs().square().mT).float())
    return torch.cat([torch.zeros(_BANDS, 0), *pieces], 1)


@functools.lru_cache(maxsize=8)
def _bands(size: int, rate: int) -> Tensor:
    """(BANDS, size/2+1) which bins belong to which band.

    The bands are even on the mel scale 1127 ln(1 + f/700).
    """
    low, high = (
        1127 * math.log1p(hz / 700) for hz in (_LOW_HZ, max(_LOW_HZ, min(_HIGH_HZ, 0.475 * rate)))
    )
    edges = 700 * torch.expm1(torch.linspace(low, high, _BANDS + 1, dtype=torch.float64) / 1127)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * rate / size
    return ((bins >= edges[:-1, None]) & (bins < edges[1:, None])).double()


def _quantile(values: Tensor, share: float) -> Tensor:
    # torch.quantile takes 16 million values at most
    return values.sort().values[int(share * (len(values) - 1))]


def _average(power: Tensor, hops: int) -> Tensor:
    return F.avg_pool1d(F.pad(power[None], (hops // 2, hops // 2), mode="replicate"), hops, 1)[0]


def _close_gaps(runs: Tensor) -> Tensor:
    """``runs`` (R,2) without the gaps that are too short to be pauses."""
    apart = runs[1:, 0] - runs[:-1, 1] >= _GAP
    yes = apart.new_ones(min(len(runs), 1))
    return torch.stack([runs[torch.cat([yes, apart]), 0], runs[torch.cat([apart, yes]), 1]], 1)
