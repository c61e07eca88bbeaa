"""What a dub hears: the sounds that the network is shown, and the one that the output has."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..audio.ops import mixed, mono, resample
from ..errors import MediaError
from ..media import AudioSource, read_audio
from ..media.clip import Cut
from ..types import Audio


@dataclass(frozen=True, slots=True, eq=False)
class Voices:
    """What the model hears, one by one, and what the output sounds like."""

    heard: list[Audio]
    sound: AudioSource

    @classmethod
    def read(
        cls,
        sounds: list[Path | Audio],
        face: Path,
        cut: Cut,
        rate: int,
        warn: Callable[[str], None],
    ) -> "Voices":
        spans = [(cut.start, cut.end) if sound == face else (Fraction(0), None) for sound in sounds]
        heard = [
            _heard(sound, *span, rate, warn) for sound, span in zip(sounds, spans, strict=True)
        ]
        if len(sounds) == 1:
            return cls(heard, AudioSource(sounds[0], *spans[0]))
        return cls(heard, _mixed(sounds, spans, warn))


def _heard(
    sound: Path | Audio,
    start: Fraction,
    end: Fraction | None,
    rate: int,
    warn: Callable[[str], None],
) -> Audio:
    """Mono at the model's rate, resampled while reading so that memory holds no more than that."""
    if isinstance(sound, Audio):
        AudioSource(sound)  # refuses what is no sound
        voice = resample(mono(sound), rate)
    else:
        first, stop = round(start * rate), None if end is None else round(end * rate)
        voice = read_audio(sound, rate=rate, start=first, stop=stop, on_warning=warn)
    if voice.samples.shape[1] == 0:
        name = "the audio" if isinstance(sound, Audio) else str(sound)
        raise MediaError(
            f"{name} has no sound{' after the start of the cut' if start else ''}; give a longer one"
        )
    return voice


def _mixed(
    sounds: list[Path | Audio],
    spans: list[tuple[Fraction, Fraction | None]],
    warn: Callable[[str], None],
) -> AudioSource:
    """Several voices at once, held in memory."""
    tracks = [
        sound
        if isinstance(sound, Audio)
        else read_audio(sound, rate=None, mono=False, on_warning=warn)
        for sound in sounds
    ]
    parts: list[Audio] = []
    for track, (start, end) in zip(tracks, spans, strict=True):
        stop = None if end is None else round(end * track.rate)
        parts.append(Audio(track.samples[:, round(start * track.rate) : stop], track.rate))
    return AudioSource(mixed(parts))
