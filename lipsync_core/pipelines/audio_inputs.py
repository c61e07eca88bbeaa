"""Audio inputs of a dub: speech for the model, and the sound of the output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..audio.ops import frame_count, mix, mix_to_mono, resample
from ..errors import MediaError
from ..media import AudioSource, read_audio
from ..options import Cut
from ..types import Audio


@dataclass(frozen=True, slots=True, eq=False)
class AudioInputs:
    """The audio of a dub.

    Attributes:
        sources: The files, or audio in memory, as the caller gave them.
        speech: For the model: each source mono at the model's rate.
        output: For the output file: the source, or the mix of several.
    """

    sources: tuple[Path | Audio, ...]
    speech: tuple[Audio, ...]
    output: AudioSource

    def count_frames(self, fps: Fraction) -> int:
        """Number of output frames at ``fps``: as many as the longest speech takes."""
        return max(frame_count(speech, fps) for speech in self.speech)

    def speech_per_face(self, faces: int) -> tuple[Audio, ...]:
        """The speech of each of ``faces`` faces: its own, or the only one there is."""
        return self.speech * faces if len(self.speech) == 1 else self.speech


def read_audio_inputs(
    sources: Sequence[Path | Audio],
    rate: int,
    *,
    face: Path | None = None,
    cut: Cut = Cut(),
    warn: Callable[[str], None],
) -> AudioInputs:
    """Read the speech for the model, and open or mix the sound of the output.

    Args:
        sources: Audio files, or audio in memory.
        rate: The model's sample rate in Hz.
        face: The face video; a source that is this file is cut with the picture.
        cut: The part of the face video that is dubbed.
        warn: Called with warnings about damaged files.

    Returns:
        The inputs, in the order of ``sources``.

    Raises:
        MediaError: A source cannot be read, or has no sound.
        ValueError: Audio in memory holds no finite samples.
    """
    spans = [(cut.start, cut.end) if source == face else (Fraction(0), None) for source in sources]
    speech = [
        _read_speech(source, *span, rate, warn) for source, span in zip(sources, spans, strict=True)
    ]
    output = (
        AudioSource(sources[0], *spans[0])
        if len(sources) == 1
        else _mix_sources(sources, spans, warn)
    )
    return AudioInputs(tuple(sources), tuple(speech), output)


def _read_speech(
    source: Path | Audio,
    start: Fraction,
    end: Fraction | None,
    rate: int,
    warn: Callable[[str], None],
) -> Audio:
    """Mono at the model's rate, resampled while reading so that memory holds no more than that."""
    if isinstance(source, Audio):
        AudioSource(source)  # raises ValueError for samples that are not finite
        speech = resample(mix_to_mono(source), rate)
    else:
        first, stop = round(start * rate), None if end is None else round(end * rate)
        speech = read_audio(source, rate=rate, start=first, stop=stop, on_warning=warn)
    if speech.samples.shape[1] == 0:
        name = "the audio" if isinstance(source, Audio) else str(source)
        raise MediaError(
            f"{name} has no sound{' after the start of the cut' if start else ''}; give a longer "
            f"one"
        )
    return speech


def _mix_sources(
    sources: Sequence[Path | Audio],
    spans: Sequence[tuple[Fraction, Fraction | None]],
    warn: Callable[[str], None],
) -> AudioSource:
    """All sources at once, held in memory."""
    tracks = [
        source
        if isinstance(source, Audio)
        else read_audio(source, rate=None, mono=False, on_warning=warn)
        for source in sources
    ]
    parts: list[Audio] = []
    for track, (start, end) in zip(tracks, spans, strict=True):
        stop = None if end is None else round(end * track.rate)
        parts.append(Audio(track.samples[:, round(start * track.rate) : stop], track.rate))
    return AudioSource(mix(parts))
