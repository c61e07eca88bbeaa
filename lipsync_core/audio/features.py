"""Audio features of the networks: log-mel windows for generators and experts, MFCC for SyncNet.

Numbers: the front end of Wav2Lip (16 kHz, 50 ms windows every 12.5 ms, 80 Slaney mel bands from 55
to 7600 Hz) as librosa 0.7.0 computes it there, and that of SyncNet as python_speech_features 0.6
computes it. All functions are pure and run on the device of their input.
"""

import functools
import math
import weakref
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from ..runtime.config import ADDED_LATER
from ..types import Audio


@dataclass(frozen=True, slots=True)
class MelFeatures:
    """Settings of a mel front end: windows of ``steps`` log-mel columns of ``bands`` bands.

    Attributes:
        bands: mel bands.
        steps: columns of a window.
        rate: sample rate in Hz.
        n_fft: samples of a spectrum.
        hop: samples between two columns.
        low_hz: lower end of the lowest band.
        high_hz: upper end of the highest band.
        lead_ms: time by which a window begins before its video frame. The public Wav2Lip weights
            were trained with 40 and are run with 0, so their lips move one frame (40 ms) early; 0
            reproduces that, 40 corrects it.
        padding: how the signal continues past its ends; the public weights were trained with
            ``reflect``, librosa from 0.9 on does ``constant`` (zeros).
        relative: share, 0 to 1, of the sound's own mean spectrum that is subtracted, so that
            microphone, room and level matter less; see ``mean_spectrum``.
    """

    bands: int = 80
    steps: int = 16
    rate: int = 16000
    n_fft: int = 800
    hop: int = 200
    low_hz: float = 55.0
    high_hz: float = 7600.0
    lead_ms: int = 0
    padding: Literal["reflect", "constant"] = "reflect"
    relative: float = field(default=0.0, metadata=ADDED_LATER)

    def windows(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        """Return ``mel_windows`` with these settings: (count, 1, bands, steps)."""
        return mel_windows(audio, fps, start, count, features=self)


@dataclass(frozen=True, slots=True)
class CepstrumFeatures:
    """Settings of the cepstral front end of LipGAN and Speech2Vid, 100 columns per second.

    Numbers: LipGAN's front end (its Matlab code): 25 ms Hamming windows every 10 ms, pre-emphasis
    0.97, triangles on the magnitude spectrum, even on the scale 1127 ln(1 + f/700), logarithm,
    cosine transform, lifter 22.

    Attributes:
        coefficients: the coefficients 1 .. ``coefficients`` are used.
        steps: columns of a window.
        rate: sample rate in Hz.
        filters: triangular filters.
        low_hz: lower end of the filters.
        high_hz: upper end of the filters.
        lead_ms: time by which a window begins before its frame; LipGAN pairs frame f with the
            columns from 4 (f - 4) on (160 ms), which puts the middle of the 350 ms into the frame.
    """

    coefficients: int = 12
    steps: int = 35
    rate: int = 16000
    filters: int = 40
    low_hz: float = 300.0
    high_hz: float = 3700.0
    lead_ms: int = 160

    def windows(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        """Return one window for each of ``count`` frames from ``start`` on.

        Returns:
            (count, 1, coefficients, steps); zeros, which are silence, outside the sound.
        """
        columns_a_second = Fraction(self.rate, _MFCC_HOP)
        lead = Fraction(self.lead_ms, 1000)
        starts = [
            math.floor((Fraction(start + i) / fps - lead) * columns_a_second) for i in range(count)
        ]
        if not starts:
            return audio.samples.new_empty((0, 1, self.coefficients, self.steps))
        columns = _cepstra(audio, starts[0], starts[-1] - starts[0] + self.steps, self)
        return torch.stack(
            [columns[:, s - starts[0] : s - starts[0] + self.steps] for s in starts]
        )[:, None]


# the value of every band where the sound is below -100 dB (the floor of the normalised scale)
SILENCE = -4.0
_PREEMPHASIS = 0.97
_FLOOR = 1e-5  # magnitude at the -100 dB floor
_REFERENCE_DB = 20.0


def mel_length(samples: int, features: MelFeatures = MelFeatures()) -> int:
    """Return the number of mel columns of ``samples`` samples: 1 + floor(T / hop)."""
    return 1 + samples // features.hop


def log_mel(
    audio: Audio, *, first: int = 0, count: int | None = None, features: MelFeatures = MelFeatures()
) -> Tensor:
    """Compute columns of the log-mel spectrogram.

    Only the samples under those columns are read, so that a long clip can be processed in pieces:
    the pieces equal the whole. ``features.relative`` is not applied here.

    Args:
        audio: mono sound at the rate of ``features``.
        first: first column.
        count: number of columns; None for all from ``first`` on.
        features: settings of the front end.

    Returns:
        (bands, count) in [-4, 4]; columns outside the signal are silence (-4).
    """
    x = _only_channel(audio, features.rate)
    total = mel_length(x.shape[0], features)
    count = total - first if count is None else count
    begin, end = min(max(first, 0), total), min(max(first + count, 0), total)
    out = x.new_full((features.bands, max(count, 0)), SILENCE)
    if end > begin and x.shape[0]:
        out[:, begin - first : end - first] = _columns(x, begin, end, features)
    return out


# Columns of which a mean spectrum is made at most: ten minutes.
_MOST_COLUMNS, _PIECE = 48_000, 4_000
# The lowest mean level that a mean spectrum has: nothing quieter is taken for speech. Means of 35
# talking clips are between -1.74 and -0.98, of white noise at -50 dBFS -2.22.
_LEAST_LEVEL = -2.0
_SPECTRA: dict[int, tuple["weakref.ref[Tensor]", MelFeatures, Tensor]] = {}


def mean_spectrum(audio: Audio, features: MelFeatures) -> Tensor:
    """Compute the mean log-mel spectrum of the louder half of a sound.

    What a microphone, a room and a level add to speech is nearly the same in every column, so that
    subtracting a mean removes it (cepstral mean subtraction, Atal 1974).

    Args:
        audio: mono sound at the rate of ``features``; of more than ten minutes, pieces all over it.
        features: settings of the front end.

    Returns:
        (bands,) in [-4, 4], of a mean of at least -2: silence is not raised to the level of
        speech.
    """
    known = _SPECTRA.get(id(audio.samples))
    if known is not None and known[0]() is audio.samples and known[1] == features:
        return known[2]
    total = mel_length(audio.samples.shape[1], features)
    stride = max(1, math.ceil(total / _MOST_COLUMNS)) * _PIECE
    pieces = [
        log_mel(audio, first=first, count=min(_PIECE, total - first), features=features)
        for first in range(0, total, stride)
    ]
    spectrum = mean_columns(torch.cat(pieces, 1))
    for key in [key for key, (samples, *_) in _SPECTRA.items() if samples() is None]:
        _SPECTRA.pop(key, None)
    _SPECTRA[id(audio.samples)] = (weakref.ref(audio.samples), features, spectrum)
    return spectrum


def mean_columns(mel: Tensor) -> Tensor:
    """Return the mean (bands,) of the louder half of log-mel columns (bands, N), at least one."""
    level = mel.mean(0)
    spectrum = mel[:, level >= level.median()].mean(1)
    return spectrum + (_LEAST_LEVEL - spectrum.mean()).clamp_min(0)


def subtract_spectrum(mel: Tensor, spectrum: Tensor, features: MelFeatures) -> Tensor:
    """Return log-mel values (..., bands, N) less ``features.relative`` of ``spectrum`` (bands,)."""
    return mel - features.relative * spectrum[:, None]


def _only_channel(audio: Audio, rate: int) -> Tensor:
    if audio.rate != rate or audio.samples.shape[0] != 1:
        raise ValueError(
            f"audio is {audio.samples.shape[0]} channels at {audio.rate} Hz; expected mono at "
            f"{rate} Hz: use resample() and mono() first"
        )
    return audio.samples[0]


def window_start(frame: int, fps: Fraction, features: MelFeatures = MelFeatures()) -> int:
    """Return the first mel column of a video frame.

    It is floor((frame / fps - lead) * columns per second), computed exactly.
    """
    time = Fraction(frame) / fps - Fraction(features.lead_ms, 1000)
    return math.floor(time * features.rate / features.hop)


def mel_windows(
    audio: Audio, fps: Fraction, start: int, count: int, *, features: MelFeatures = MelFeatures()
) -> Tensor:
    """Compute the mel windows of ``count`` video frames from ``start`` on.

    Args:
        audio: mono sound at the rate of ``features``.
        fps: frame rate of the video.
        start: first frame.
        count: number of frames.
        features: settings of the front end.

    Returns:
        (count, 1, bands, steps) in [-4, 4] before the mean spectrum is subtracted; silence outside
        the sound.
    """
    starts = [window_start(start + i, fps, features) for i in range(count)]
    if not starts:
        return audio.samples.new_empty((0, 1, features.bands, features.steps))
    columns = log_mel(
        audio, first=starts[0], count=starts[-1] - starts[0] + features.steps, features=features
    )
    if features.relative:
        columns = subtract_spectrum(columns, mean_spectrum(audio, features), features)
    return torch.stack(
        [columns[:, s - starts[0] : s - starts[0] + features.steps] for s in starts]
    )[:, None]


def _columns(x: Tensor, begin: int, end: int, features: MelFeatures) -> Tensor:
    half = features.n_fft // 2
    index = torch.arange(
        begin * features.hop - half, (end - 1) * features.hop + half, device=x.device
    )
    # float64 where the device has it: float32 rounding shows at the -100 dB floor (2e-4 on a chirp)
    dtype = x.dtype if x.device.type == "mps" else torch.float64
    y = _preemphasize(x, index, features.padding, dtype)
    window = torch.hann_window(features.n_fft, periodic=True, device=x.device, dtype=y.dtype)
    spectrum = torch.stft(
        y, features.n_fft, features.hop, window=window, center=False, return_complex=True
    ).abs()  # (bins, columns)
    mel = mel_basis(features).to(spectrum) @ spectrum
    decibel = 20 * mel.clamp_min(_FLOOR).log10() - _REFERENCE_DB
    return (8 * (decibel + 100) / 100 - 4).clamp(-4, 4).to(x.dtype)


def _preemphasize(x: Tensor, index: Tensor, padding: str, dtype: torch.dtype) -> Tensor:
    """x[n] - 0.97 x[n-1] at ``index``, which may reach past both ends of x.

    Only these samples are converted.
    """
    n = x.shape[0]
    if padding == "reflect":
        period = max(2 * (n - 1), 1)
        index = index.remainder(period)
        index = torch.minimum(index, period - index) if n > 1 else index * 0
    inside = index.clamp(0, n - 1)
    before = x[(inside - 1).clamp_min(0)].to(dtype)
    y = x[inside].to(dtype) - _PREEMPHASIS * before * (inside > 0)
    return y * (index == inside)


@functools.lru_cache(maxsize=8)
def mel_basis(features: MelFeatures = MelFeatures()) -> Tensor:
    """Return triangular filters on the Slaney mel scale (linear below 1 kHz, logarithmic above).

    Returns:
        (bands, n_fft/2+1), each of unit area (height 2 / width in Hz).
    """
    low, high = _hz_to_mel(features.low_hz), _hz_to_mel(features.high_hz)
    mels = torch.linspace(low, high, features.bands + 2, dtype=torch.float64)
    linear, log = mels * (200 / 3), 1000 * torch.exp((mels - 15) * (math.log(6.4) / 27))
    edges = torch.where(mels < 15, linear, log)
    bins = (
        torch.arange(features.n_fft // 2 + 1, dtype=torch.float64) * features.rate / features.n_fft
    )
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp_min(0)
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


# ---- SyncNet's front end: 25 ms every 10 ms without a window function, 26 mel filters up to 8 kHz,
# 13 cepstra

_MFCC_RATE, _MFCC_FRAME, _MFCC_HOP, _MFCC_FFT = 16000, 400, 160, 512
_MFCC_FILTERS, _CEPSTRA, _LIFTER = 26, 13, 22
_INT16 = 32768
_EPSILON = 2.0**-52  # stands in for zero before the logarithm


def mfcc_length(samples: int) -> int:
    """Return the number of MFCC columns of ``samples`` samples.

    It is one, and one more for each 160 samples or part of them after the first 400.
    """
    return 1 + max(0, math.ceil((samples - _MFCC_FRAME) / _MFCC_HOP))


def mfcc(audio: Audio, *, first: int = 0, count: int | None = None) -> Tensor:
    """Compute cepstra, 100 columns per second, as SyncNet was trained on.

    Only the samples under those columns are read: the pieces equal the whole.

    Args:
        audio: mono sound at 16 kHz; samples are rounded to int16 and used in its numbers.
        first: first column.
        count: number of columns; None for all from ``first`` on.

    Returns:
        (13, count): the log energy and twelve coefficients; silence (-36 and zeros) outside the
        signal.
    """
    x = _only_channel(audio, _MFCC_RATE)
    count = mfcc_length(x.shape[0]) - first if count is None else count
    if count <= 0:
        return x.new_empty((_CEPSTRA, 0))
    # (count, 257)
    power = torch.fft.rfft(_mfcc_frames(x, first, count), _MFCC_FFT).abs().square() / _MFCC_FFT
    filtered = power @ mfcc_filters().to(power).mT
    energy, filtered = (
        torch.where(value == 0, _EPSILON, value).log() for value in (power.sum(1), filtered)
    )
    cosines = _cosines(_MFCC_FILTERS, _CEPSTRA).to(power)
    return torch.cat((energy[:, None], filtered @ cosines), 1).mT.to(x.dtype)


def _mfcc_frames(x: Tensor, first: int, count: int) -> Tensor:
    """(count, 400) emphasised samples in the numbers of int16, zeros outside the signal."""
    begin, end = first * _MFCC_HOP, (first + count - 1) * _MFCC_HOP + _MFCC_FRAME
    # one more: the emphasis looks back
    low, high = (min(max(place, 0), x.shape[0]) for place in (begin - 1, end))
    piece = (x[low:high] * _INT16).round().clamp(-_INT16, _INT16 - 1)
    dtype = x.dtype if x.device.type == "mps" else torch.float64
    y = torch.zeros(end - begin + 1, device=x.device, dtype=dtype)
    y[low - begin + 1 : high - begin + 1] = piece
    y = y[1:] - _PREEMPHASIS * y[:-1]
    y[max(high - begin, 0) :] = 0  # where the signal ended, not its echo in the emphasis
    return y.unfold(0, _MFCC_FRAME, _MFCC_HOP)


def _cepstra(audio: Audio, first: int, count: int, features: CepstrumFeatures) -> Tensor:
    """Columns ``first`` .. ``first+count-1``: (coefficients, count)."""
    x = _only_channel(audio, features.rate)
    frames = _mfcc_frames(x, first, count)
    window = torch.hamming_window(_MFCC_FRAME, periodic=False, device=x.device, dtype=frames.dtype)
    spectrum = torch.fft.rfft(frames * window, _MFCC_FFT)  # (count, 257)
    # three times as fast as abs(), which guards against an overflow that is far off
    magnitude = (spectrum.real.square() + spectrum.imag.square()).sqrt()
    filtered = (magnitude @ _cepstrum_filters(features).to(magnitude).mT).clamp_min(_EPSILON).log()
    return (filtered @ _cosines(features.filters, features.coefficients + 1).to(filtered)).mT.to(
        x.dtype
    )


@functools.lru_cache(maxsize=4)
def _cepstrum_filters(features: CepstrumFeatures) -> Tensor:
    """Return triangles of height one, (filters, 257), even on the scale 1127 ln(1 + f/700)."""
    low, high = (1127 * math.log(1 + hz / 700) for hz in (features.low_hz, features.high_hz))
    mels = torch.linspace(low, high, features.filters + 2, dtype=torch.float64)
    edges = (700 * (torch.exp(mels / 1127) - 1))[:, None]
    bins = torch.arange(_MFCC_FFT // 2 + 1, dtype=torch.float64) * features.rate / _MFCC_FFT
    rise, fall = (
        (bins - edges[:-2]) / (edges[1:-1] - edges[:-2]),
        (edges[2:] - bins) / (edges[2:] - edges[1:-1]),
    )
    return torch.minimum(rise, fall).clamp_min(0)


@functools.lru_cache(maxsize=1)
def mfcc_filters() -> Tensor:
    """Return the 26 triangular filters of ``mfcc``.

    Returns:
        (26, 257) triangles of height one between neighbors of 28 places, even on the mel scale
        2595 log10(1 + f/700) from 0 to 8000 Hz and rounded down to whole bins.
    """
    mels = torch.linspace(
        0, 2595 * math.log10(1 + _MFCC_RATE / 2 / 700), _MFCC_FILTERS + 2, dtype=torch.float64
    )
    places = ((_MFCC_FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / _MFCC_RATE).floor()[:, None]
    bins = torch.arange(_MFCC_FFT // 2 + 1, dtype=torch.float64)
    rise = (bins - places[:-2]) / (places[1:-1] - places[:-2])
    fall = (places[2:] - bins) / (places[2:] - places[1:-1])
    return torch.minimum(rise, fall).clamp_min(0)


@functools.lru_cache(maxsize=4)
def _cosines(filters: int, coefficients: int) -> Tensor:
    """Return the rows of a lifted cosine transform, (filters, coefficients - 1).

    They are all but the first coefficient of the orthonormal DCT-II, each lifted by 1 + 11 sin(pi k
    / 22).
    """
    k = torch.arange(1, coefficients, dtype=torch.float64)
    angles = (
        (2 * torch.arange(filters, dtype=torch.float64)[:, None] + 1) * k / (2 * filters) * math.pi
    )
    lift = 1 + _LIFTER / 2 * torch.sin(math.pi * k / _LIFTER)
    return angles.cos() * math.sqrt(2 / filters) * lift
