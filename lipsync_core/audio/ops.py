"""Resample, mix, shift and trim sound held in memory."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F

from ..types import Audio

_BLOCK = 4096  # samples whose level is measured together
_HOPS_AT_ONCE = 1 << 14
_SILENCE = 10**-7.5  # power


def resample(audio: Audio, rate: int) -> Audio:
    """Resample band-limited, with torchaudio if it can be imported, else with PyAV.

    Args:
        audio: the sound.
        rate: new sample rate in Hz.

    Returns:
        The same sound at ``rate``.
    """
    if audio.rate == rate:
        return audio
    if audio.samples.shape[1] == 0:  # torchaudio refuses it
        return Audio(audio.samples, rate)
    try:
        # Importing it fails beside CPU builds of torch (OSError: libc10_cuda) and beside CUDA
        # builds of another CUDA version (RuntimeError), so every failure of the import means: not
        # here.
        from torchaudio.functional import resample as kernel
    except (ImportError, OSError, RuntimeError):
        from ..media import resample_pyav

        return Audio(resample_pyav(audio.samples, audio.rate, rate), rate)
    return Audio(
        kernel(audio.samples, audio.rate, rate, lowpass_filter_width=64, rolloff=0.95), rate
    )


def mix_to_mono(audio: Audio, warn: Callable[[str], None] = lambda _: None) -> Audio:
    """Make one channel for the models, in which speech keeps its level.

    Args:
        audio: the sound; six and eight channels are taken to be 5.1 and 7.1.
        warn: called if only one channel can be used.

    Returns:
        (1,T): the mean of the channels that ``useful_channels`` names.
    """
    from ..media.channels import useful_channels

    samples = audio.samples
    if len(samples) == 1:
        return audio
    blocks = (block.detach().cpu().float().numpy() for block in samples.split(_BLOCK, dim=1))
    found = useful_channels(blocks, audio.rate, [""] * len(samples))
    if found.warning is not None:
        warn(f"the audio: {found.warning}")
    return Audio(samples[list(found.indices)].mean(0, keepdim=True), audio.rate)


def speech_level(audio: Audio) -> float:
    """Measure how loud the sounding parts of a sound are.

    Args:
        audio: (1,T) samples.

    Returns:
        dBFS: the mean power of the hops of 20 ms that are at most 30 dB softer than the loud ones;
        -inf if all are below -75 dBFS.
    """
    size = min(audio.rate // 50, audio.samples.shape[1]) or 1
    hops = audio.samples[0, : audio.samples.shape[1] // size * size].split(size * _HOPS_AT_ONCE)
    power = torch.cat([piece.reshape(-1, size).square().mean(1) for piece in hops])
    power = power[power > _SILENCE].double()
    if not len(power):
        return -math.inf
    loud = power.sort().values[int(0.99 * (len(power) - 1))]
    return 10 * math.log10(float(power[power >= loud * 1e-3].mean()))


def shift(audio: Audio, delay_s: Fraction) -> Audio:
    """Delay or advance a sound without changing its length.

    Args:
        audio: the sound.
        delay_s: seconds by which it sounds later; negative for earlier. Rounded to a sample.

    Returns:
        The shifted sound; samples that leave one end are lost, silence comes in at the other.
    """
    length = audio.samples.shape[1]
    delay = max(-length, min(length, math.floor(delay_s * audio.rate + Fraction(1, 2))))
    out = torch.zeros_like(audio.samples)
    out[:, max(delay, 0) : length + min(delay, 0)] = audio.samples[
        :, max(-delay, 0) : length - max(delay, 0)
    ]
    return Audio(out, audio.rate)


def mix(sounds: Sequence[Audio]) -> Audio:
    """Mix several sounds into one.

    Args:
        sounds: one or more; a mono sound is added to every channel.

    Returns:
        The sum at the highest rate, with the most channels and the longest duration of ``sounds``,
        clipped to [-1,1]. A single sound is returned unchanged.
    """
    if len(sounds) == 1:
        return sounds[0]
    rate = max(sound.rate for sound in sounds)
    parts = [resample(sound, rate).samples for sound in sounds]
    total = torch.zeros(max(len(part) for part in parts), max(part.shape[1] for part in parts))
    for part in parts:
        total[: len(part) if len(part) > 1 else None, : part.shape[1]] += part
    return Audio(total.clamp(-1, 1), rate)


def pad_or_trim(audio: Audio, seconds: Fraction) -> Audio:
    """Cut a sound, or append silence, to make it ``seconds`` long (to the nearest sample)."""
    wanted = int(seconds * audio.rate + Fraction(1, 2))
    missing = wanted - audio.samples.shape[1]
    return Audio(
        F.pad(audio.samples, (0, missing)) if missing > 0 else audio.samples[:, :wanted], audio.rate
    )


def frame_count(audio: Audio, fps: Fraction) -> int:
    """Return the number of video frames that cover a sound: ceil(seconds * fps), at least 1."""
    return max(1, math.ceil(Fraction(audio.samples.shape[1], audio.rate) * fps))
