"""Audio inputs of a dub: speech for the model, and the sound of the output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..audio.ops import frame_count, mix, mix_to_mono, resample
from ..errors import MediaError
from ..media import AudioSource, probe_sound, read_audio, track_used
from ..media.clip import Cut
from ..runtime.paths import same_file
from ..types import Audio


@dataclass(frozen=True, slots=True, eq=False)
class AudioInputs:
    """The audio of a dub.

    Attributes:
        sources: The files, or audio in memory, as the caller gave them.
        speech: For the model: each source mono at the model's rate.
        output: For the output file: the source, or the mix of several.
        tracks: Which sound track was read of each file that has several.
    """

    sources: tuple[Path | Audio, ...]
    speech: tuple[Audio, ...]
    output: AudioSource
    tracks: tuple[str, ...] = ()

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
    parts = [_part_of(source, face, cut) for source in sources]
    speech = [_read_speech(part, rate, warn) for part in parts]
    output = parts[0] if len(parts) == 1 else _mix_sources(parts, warn)
    tracks = [track_used(source, cut.audio_track) for source in sources if isinstance(source, Path)]
    return AudioInputs(
        tuple(sources), tuple(speech), output, tuple(track for track in tracks if track)
    )


def _part_of(source: Path | Audio, face: Path | None, cut: Cut) -> AudioSource:
    """What is heard of a source: all of it, or the cut if it is the face video itself.

    Raises ValueError for samples that are not finite.
    """
    if isinstance(source, Audio):
        return AudioSource(source)
    span = (cut.start, cut.end) if same_file(source, face) else ()
    return AudioSource(source, *span, track=cut.audio_track)


def _read_speech(part: AudioSource, rate: int, warn: Callable[[str], None]) -> Audio:
    """Mono at the model's rate, resampled while reading so that memory holds no more than that."""
    if isinstance(part.source, Audio):
        speech = resample(mix_to_mono(part.source, warn), rate)
    else:
        first, stop = (
            round(part.start * rate),
            None if part.stop is None else round(part.stop * rate),
        )
        speech = read_audio(
            part.source, rate=rate, start=first, stop=stop, track=part.track, on_warning=warn
        )
    if speech.samples.shape[1] == 0:
        name = "the audio" if isinstance(part.source, Audio) else str(part.source)
        when = " after the start of the cut" if part.start else ""
        raise MediaError(f"{name} has no sound{when}; give a longer one")
    return speech


def _mix_sources(parts: Sequence[AudioSource], warn: Callable[[str], None]) -> AudioSource:
    """All parts at once, held in memory."""
    return AudioSource(mix([_read_whole(part, warn) for part in parts]))


def _read_whole(part: AudioSource, warn: Callable[[str], None]) -> Audio:
    """A part at its own rate, with all channels."""
    if isinstance(part.source, Audio):
        return part.source
    rate = probe_sound(part.source, part.track).rate
    first, stop = round(part.start * rate), None if part.stop is None else round(part.stop * rate)
    return read_audio(
        part.source,
        rate=None,
        mono=False,
        start=first,
        stop=stop,
        track=part.track,
        on_warning=warn,
    )
