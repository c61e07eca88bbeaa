"""Clips of prepared shards, and the windows that are drawn from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..audio.features import SILENCE, MelFeatures
from ..errors import LipSyncError, NoClipsError
from ..image.affine import Framing
from ..models.generator import SoundFeatures
from ..types import Audio
from .shards import Rows, Source, load_arrays, part, read_index

FPS = Fraction(25)  # the shards' frame rate: the one the paper's networks live at
RATE = 16000  # Hz, of their sound
_MARGIN = 25  # frames
FRAMINGS = {"aligned": Framing(), "box": Framing("box", pads=(0, 10, 0, 0))}


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One stretch of one person speaking.

    Attributes:
        name: the clip's name in its split.
        speaker: the speaker's name.
        faces: (N,C,C,3) uint8, on disk.
        mel: log-mel columns of the whole sound, (80,T) as a tensor or (T,80) on disk.
        first: the video frame of the sound that goes with ``faces[0]``.
        sound: (M,) int16 at 16 kHz, for networks with other features than this mel; None if the
            shards hold none.
        framing: how the crops were cut.
    """

    name: str
    speaker: str
    faces: Rows
    mel: Tensor | Rows
    first: int = 0
    sound: Rows | None = None
    framing: Framing = Framing()

    def mels(self, frames: Sequence[int], *, lead_ms: int = 0, steps: int = 16) -> Tensor:
        """Return the mel windows that begin ``lead_ms`` before the given frames.

        Args:
            frames: indices into ``faces``.
            lead_ms: milliseconds from the start of a window to its frame.
            steps: mel columns per window.

        Returns:
            (len(frames), 1, 80, steps), -4 (silence) beyond the sound.
        """
        features = MelFeatures(lead_ms=lead_ms)
        # floor((frame / fps - lead) * columns per second) in whole numbers, as audio.window_start
        # has it
        milliseconds = (self.first + np.asarray(frames, np.int64)) * int(1000 / FPS) - lead_ms
        starts = milliseconds * features.rate // (1000 * features.hop)
        low, high = int(starts.min()), int(starts.max()) + steps
        # (len, steps, 80)
        windows = self._columns(low, high)[(starts - low)[:, None] + np.arange(steps)]
        return torch.from_numpy(windows).transpose(1, 2)[:, None]

    def windows(self, features: SoundFeatures, begin: int, count: int) -> Tensor:
        """Return the sound windows of consecutive frames for a network with these features.

        Args:
            features: the features that the network takes.
            begin: the first frame, an index into ``faces``.
            count: number of frames.

        Returns:
            (count,1,H,W), as the features define them.

        Raises:
            LipSyncError: the features need the sound itself and the shards hold none at their rate.
        """
        if isinstance(features, MelFeatures) and replace(features, lead_ms=0) == MelFeatures():
            return self.mels(range(begin, begin + count), lead_ms=features.lead_ms)
        if self.sound is None or features.rate != RATE:
            raise LipSyncError(
                f"{self.name} holds no sound at {features.rate} Hz for {features}; prepare the "
                "clips again"
            )
        # a second more, in whole frames, instead of the whole sound
        before = max(0, self.first + begin - _MARGIN)
        samples = self.sound[
            before * RATE // 25 : (self.first + begin + count + _MARGIN) * RATE // 25
        ]
        audio = Audio(torch.from_numpy(np.array(samples))[None].float() / 32768, RATE)
        return features.windows(audio, FPS, self.first + begin - before, count)

    def frames(self, begin: int, count: int) -> Tensor:
        """Return ``count`` frames from ``begin`` on as (count,3,C,C) uint8, planar."""
        return torch.from_numpy(np.array(self.faces[begin : begin + count])).permute(0, 3, 1, 2)

    def _columns(self, low: int, high: int) -> npt.NDArray[np.float32]:
        """(high-low, 80) mel columns; silence outside the sound."""
        rows: Rows = self.mel.T.numpy() if isinstance(self.mel, Tensor) else self.mel
        if low >= 0 and high <= len(rows):
            return rows[low:high]
        out = np.full((high - low, rows.shape[1]), SILENCE, np.float32)
        first, stop = (min(max(place, 0), len(rows)) for place in (low, high))
        out[first - low : stop - low] = rows[first:stop]
        return out


def load_clips(source: Source, *, half: int | None = None, least: int = 10) -> list[Clip]:
    """Load the clips of a prepared split.

    Args:
        source: a folder or a URL.
        half: 0 or 1 gives one of two disjoint halves of every speaker: every other clip, or
            half of the frames of a speaker with a single clip. None gives all.
        least: clips with fewer frames are left out.

    Returns:
        The clips; their arrays are not read yet.

    Raises:
        NoClipsError: no clip is left.
        LipSyncError: nothing was prepared, or with another margin than a twelfth of the crop.
    """
    entries = read_index(source)
    by_speaker: dict[str, list[Clip]] = {}
    for entry, arrays in zip(
        entries, load_arrays(source, entries, ("faces", "mel", "sound")), strict=True
    ):
        _check_margin(entry.facts, source)
        framing = FRAMINGS[entry.facts.get("framing", "aligned")]
        first, sound = int(entry.facts["first"]), arrays.get("sound")
        clip = Clip(
            entry.name, entry.speaker, arrays["faces"], arrays["mel"], first, sound, framing
        )
        by_speaker.setdefault(entry.speaker, []).append(clip)
    chosen = [
        c for clips in by_speaker.values() for c in (clips if half is None else _half(clips, half))
    ]
    kept = [c for c in chosen if len(c.faces) >= least]
    if not kept:
        raise NoClipsError(
            f"{source} has {len(entries)} clips, none of which gives {least} frames; prepare more "
            "or longer footage"
        )
    return kept


def _check_margin(facts: Mapping[str, Any], source: Source) -> None:
    if "size" in facts and facts["margin"] != facts["size"] // 12:
        raise LipSyncError(
            f"{source} holds crops of {facts['size']} px with {facts['margin']} px around them; "
            f"expected a twelfth, {facts['size'] // 12} px: prepare again"
        )


def _half(clips: list[Clip], half: int) -> list[Clip]:
    if len(clips) > 1:
        return clips[half::2]
    clip, middle = clips[0], len(clips[0].faces) // 2
    faces = part(clip.faces, middle, len(clip.faces)) if half else part(clip.faces, 0, middle)
    return [replace(clip, faces=faces, first=clip.first + half * middle)]


def speaker_weights(clips: list[Clip], power: float = 0.35) -> npt.NDArray[np.float64]:
    """Return the probability with which each clip is drawn.

    A speaker weighs (number of frames)^power, so that one with hours of footage does not drown
    the others; within a speaker, clips weigh by length.

    Args:
        clips: the clips of all speakers.
        power: 0 weighs all speakers alike, 1 all frames alike.

    Returns:
        (len(clips),) probabilities, which sum to 1.
    """
    frames: dict[str, int] = {}
    for clip in clips:
        frames[clip.speaker] = frames.get(clip.speaker, 0) + len(clip.faces)
    weights = np.array([frames[c.speaker] ** (power - 1) * len(c.faces) for c in clips])
    return weights / weights.sum()
