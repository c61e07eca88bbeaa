"""Audio inputs of a dub: speech for the model, and the sound of the output."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..audio.ops import frame_count, mix, mix_to_mono, resample, speech_level
from ..errors import MediaError
from ..media import AudioSource, probe, probe_sound, read_audio, track_used
from ..options import Cut
from ..runtime.paths import same_file
from ..types import Audio

# Level of speech below which models get it raised: mini's openings correlate with those at -20 dBFS
# by 0.90 to 0.97 at -35 dBFS, and by 0.51 to 0.83 at -50 (four speakers, 8 s each).
QUIET_DBFS, _USUAL_DBFS = -35, -20
_PADDED_FRAMES = 2  # less than this at the end of a video's own sound is taken for padding


@dataclass(frozen=True, slots=True, eq=False)
class AudioInputs:
    """The audio of a dub.

    Attributes:
        sources: The files, or audio in memory, as the caller gave them.
        speech: For the model: each source mono at the model's rate.
        output: For the output file: the source, or the mix of several.
        tracks: Which sound track was read of each file that has several.
        own_sound: Whether all of it is the face video's own sound.
        picture_seconds: Length of the picture, at least, if it goes on after the speech; 0 if it
            does not.
    """

    sources: tuple[Path | Audio, ...]
    speech: tuple[Audio, ...]
    output: AudioSource
    tracks: tuple[str, ...] = ()
    own_sound: bool = False
    picture_seconds: Fraction = Fraction(0)

    def count_frames(self, fps: Fraction) -> int:
        """Number of output frames at ``fps``: as many as the longest speech or the picture takes.

        A picture that goes on may end a little before.
        """
        longest = max(frame_count(speech, fps) for speech in self.speech)
        return max(longest, math.ceil(self.picture_seconds * fps))

    def outlasts(self, frames: int, fps: Fraction) -> bool:
        """Whether it is longer than its own picture by more than a codec's padding."""
        longest = max(Fraction(one.samples.shape[1], one.rate) for one in self.speech)
        return not self.own_sound or longest * fps - frames >= _PADDED_FRAMES

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
    parts = [part_of_source(source, face, cut) for source in sources]
    speech = [read_speech(part, rate, warn) for part in parts]
    output = parts[0] if len(parts) == 1 else _mix_sources(parts, warn)
    tracks = [track_used(source, cut.audio_track) for source in sources if isinstance(source, Path)]
    return AudioInputs(
        tuple(sources),
        tuple(speech),
        output,
        tracks=tuple(track for track in tracks if track),
        own_sound=all(same_file(source, face) for source in sources),
    )


def continue_picture(
    audio: AudioInputs, face: Path, cut: Cut, warn: Callable[[str], None]
) -> AudioInputs:
    """Let a video go on after the speech, in silence or with its own sound.

    Args:
        audio: The speech, and the sound of the output.
        face: The video.
        cut: The part of it that is dubbed, and which of both it is.
        warn: Called with warnings about damaged files, and if the video has no sound.

    Returns:
        The inputs, with a sound of the output that is as long as the picture; the same if nothing
        follows the speech.

    Raises:
        MediaError: A file cannot be read.
    """
    info = probe(face)
    if cut.shorter == "trim" or info.still or info.frames is None:
        return audio
    # one second more than its header says; what lasts longer than the picture is not written
    end = min(info.frames / info.fps, cut.end or math.inf) + 1
    seconds = Fraction(end) - cut.start
    said = _read_whole(audio.output, warn)
    missing = round(seconds * said.rate) - said.samples.shape[1]
    if missing <= 0:
        return audio
    rest = said.samples.new_zeros((len(said.samples), missing))
    if cut.shorter == "keep-sound":
        own = _read_rest(face, cut, Fraction(said.samples.shape[1], said.rate), said, warn)
        rest[:, : own.shape[1]] = own[:, :missing]
    whole = Audio(torch.cat([said.samples, rest], 1), said.rate)
    return replace(audio, output=AudioSource(whole), picture_seconds=seconds)


def _read_rest(
    face: Path, cut: Cut, spoken: Fraction, like: Audio, warn: Callable[[str], None]
) -> Tensor:
    """The own sound of a video (C,T) after ``spoken`` seconds of the cut, in the rate of another.

    It has the other's channels: as they are if there are as many, else their mean in each.
    """
    start = cut.start + spoken
    try:
        own = _read_whole(AudioSource(face, start, cut.end, track=cut.audio_track), warn)
    except MediaError as error:
        warn(f"the rest of the video stays silent: {error}")
        return like.samples[:, :0]
    own = resample(own, like.rate)
    if len(own.samples) != len(like.samples):
        own = mix_to_mono(own, warn)
    return own.samples.expand(len(like.samples), -1)


def part_of_source(source: Path | Audio, face: Path | None, cut: Cut) -> AudioSource:
    """Find the part of a source that is used beside a video.

    Args:
        source: A file, or audio in memory.
        face: The video.
        cut: The part of the video that is used, and the sound track of files.

    Returns:
        The cut if the source is the video itself, on the clock of its picture; else all of it.

    Raises:
        ValueError: Audio in memory holds samples that are not finite.
    """
    if isinstance(source, Audio):
        return AudioSource(source)
    if same_file(source, face):
        return AudioSource(source, cut.start, cut.end, track=cut.audio_track)
    return AudioSource(source, track=cut.audio_track, keep_early=True)


def read_mono(part: AudioSource, rate: int, warn: Callable[[str], None]) -> Audio:
    """Read one channel for a model, resampled while reading so that memory holds no more than that.

    Args:
        part: What is read; audio in memory whole.
        rate: The model's sample rate in Hz.
        warn: Called with each warning.

    Returns:
        (1,T) at ``rate``.

    Raises:
        MediaError: A file cannot be read.
    """
    if isinstance(part.source, Audio):
        return resample(mix_to_mono(part.source, warn), rate)
    return read_audio(
        part.source,
        rate=rate,
        start=round(part.start * rate),
        stop=None if part.stop is None else round(part.stop * rate),
        track=part.track,
        keep_early=part.keep_early,
        on_warning=warn,
    )


def read_speech(part: AudioSource, rate: int, warn: Callable[[str], None]) -> Audio:
    """Read speech for a model, raised if it is quiet, with a warning if it is silent or quiet.

    Args:
        part: What is read; audio in memory whole.
        rate: The model's sample rate in Hz.
        warn: Called with each warning.

    Returns:
        (1,T) at ``rate``.

    Raises:
        MediaError: A file cannot be read, or holds no sound there.
    """
    speech = read_mono(part, rate, warn)
    name = "the audio" if isinstance(part.source, Audio) else str(part.source)
    if speech.samples.shape[1] == 0:
        when = " after the start of the cut" if part.start else ""
        raise MediaError(f"{name} has no sound{when}; give a longer one")
    level = speech_level(speech)
    if level == -math.inf:
        used = None if isinstance(part.source, Audio) else track_used(part.source, part.track)
        other = "" if used is None else f", or take another track (--audio-track) than {used}"
        warn(f"{name} is silent: mouths will not speak; give audio with speech{other}")
    elif level < QUIET_DBFS:
        warn(
            f"{name} is quiet (speech at {level:.0f} dBFS): the model gets it raised to "
            f"{_USUAL_DBFS} dBFS, with its noise; the output keeps its level"
        )
        return Audio(speech.samples * 10 ** ((_USUAL_DBFS - level) / 20), speech.rate)
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
        keep_early=part.keep_early,
        on_warning=warn,
    )
