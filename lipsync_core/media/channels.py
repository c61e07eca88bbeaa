"""Choose the channels whose mean is the speech: a mean of all may lose it.

In 5.1 and 7.1 dialogue is in the center and a mean of six is 16 dB softer; a channel that is wired
the wrong way round cancels the other; a microphone on one side is halved.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Blocks whose loudest channel is below -60 dBFS (root mean square) tell nothing about channels; a
# center above -50 dBFS is in use.
_SOUNDING, _CENTER_IN_USE = 1e-6, 1e-5  # power
# Relative to the power of the loudest channel: a channel below the first is not in use (-15 dB), a
# mean below the second cancels itself (-10 dB; of channels without relation it is 3 dB down).
_UNUSED, _CANCELLED = 10**-1.5, 0.1
_ENOUGH = 30  # seconds of sound that are listened to before all channels are taken
_LONGEST = 600  # seconds of sound that are listened to before some are left out
_CENTER_SECONDS = 1  # of sound in the center that show it to be in use
_CENTER, _LFE = 2, 3  # places in 5.1 and 7.1 whose channels have no names


@dataclass(frozen=True, slots=True)
class UsefulChannels:
    """The channels of a sound whose mean is the speech.

    Attributes:
        indices: their numbers, from 0.
        warning: why only one is left of channels that should be equal; None otherwise.
    """

    indices: tuple[int, ...]
    warning: str | None = None


def useful_channels(
    blocks: Iterable[npt.NDArray[np.float32]], rate: int, names: Sequence[str]
) -> UsefulChannels:
    """Listen to the beginning of a sound for the channels that hold the speech.

    The center is taken as soon as it holds a second of sound, all channels after half a minute of
    sound; anything else only after ten minutes or at the end, because who speaks first may have a
    channel to himself. Memory holds one block.

    Args:
        blocks: the sound (C,T), read no further than needed.
        rate: samples per second.
        names: FFmpeg's name of each channel, anything for unknown ones.

    Returns:
        The channels.
    """
    meter, enough = _Meter(rate, names), _ENOUGH * rate
    for block in blocks:
        meter.add(block)
        if meter.center_in_use or meter.samples >= _LONGEST * rate:
            break
        if meter.samples >= enough:
            if len(meter.choose().indices) == meter.useful:
                break
            enough += _ENOUGH * rate
    return meter.choose()


class _Meter:
    """Sums the products of channels where they sound."""

    def __init__(self, rate: int, names: Sequence[str]) -> None:
        count = len(names)
        named = not all(name in ("", "NONE") for name in names)
        usual = count in (6, 8) and not named
        self._center = names.index("FC") if "FC" in names and count > 2 else None
        self._center = _CENTER if usual else self._center
        lfe = {_LFE} if usual else {i for i, name in enumerate(names) if name.startswith("LFE")}
        self._full = [i for i in range(count) if i not in lfe]
        self._sums, self._products = np.zeros(count), np.zeros((count, count))
        self._rate, self._center_samples = rate, 0
        self.samples = 0

    @property
    def useful(self) -> int:
        """Number of channels that can hold speech."""
        return len(self._full)

    @property
    def center_in_use(self) -> bool:
        """Whether the center has held enough sound."""
        return self._center_samples >= _CENTER_SECONDS * self._rate

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Add a block (C,T) if it sounds."""
        if len(block) < 2 or not block.shape[1]:
            return
        values = block.astype(np.float64)
        products = values @ values.T
        power = np.diag(products) / block.shape[1]
        if not np.isfinite(products).all() or power.max() < _SOUNDING:
            return
        self._sums += values.sum(axis=1)
        self._products += products
        self.samples += block.shape[1]
        if self._center is not None and power[self._center] >= _CENTER_IN_USE:
            self._center_samples += block.shape[1]

    def choose(self) -> UsefulChannels:
        """Choose by what was added so far."""
        often = self._center_samples > self.samples / 4  # in a sound of less than a second
        if self._center is not None and (self.center_in_use or often):
            return UsefulChannels((self._center,))
        everything = UsefulChannels(tuple(self._full))
        if len(self._full) < 2 or not self.samples:
            return everything
        mean = self._sums / self.samples
        covariance = self._products / self.samples - np.outer(mean, mean)
        power = np.diag(covariance)
        loudest = max(self._full, key=lambda channel: power[channel])
        used = [channel for channel in self._full if power[channel] >= _UNUSED * power[loudest]]
        if power[loudest] < _SOUNDING / 10:  # a constant is no sound
            return everything
        alone = f"channel {loudest + 1} of {len(power)}"
        if len(used) == 1:
            return UsefulChannels(
                (loudest,), f"only {alone} holds sound; it alone is taken for the speech"
            )
        if covariance[np.ix_(used, used)].sum() / len(used) ** 2 < _CANCELLED * power[loudest]:
            return UsefulChannels(
                (loudest,),
                "the channels cancel each other out, because one is inverted; "
                f"{alone} alone is taken for the speech",
            )
        return UsefulChannels(tuple(used))
