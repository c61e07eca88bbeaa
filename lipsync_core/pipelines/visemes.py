"""Mouth shapes for drawn and rendered characters, from speech.

The curves come from the network that also moves the mouths of `mini`; the mouth shapes are those of
Rhubarb Lip Sync and its predecessors, which animation programs import.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..audio.ops import frame_count
from ..errors import LipSyncError
from ..media.paths import check_output_path
from ..models.lip_warp import LipWarp
from ..models.weights import load_talking_face
from ..options import Cut
from ..runtime.atomic import atomic_write
from ..types import Audio
from .audio_inputs import part_of_source, read_speech
from .lipsync import LipSync
from .track_faces import select_device

VISEME_SUFFIXES = (".json", ".tsv", ".csv")
MAX_FPS = 120

# Limits in standard deviations of a person's speech: on two recordings (25 s) they give a letter
# about the share of time that Rhubarb gives it.
_CLOSED, _SLIGHT, _WIDE = 0.4, 1.7, 2.3  # opening below which it is A, B, C; D above
_PUCKERED, _ROUNDED = -1.4, -1.0  # width below which it is F, E
_FULL = 2.5  # opening of 1 in the files
_IDLE = Fraction(3, 10)  # s for which a closed mouth rests: X instead of A


@dataclass(frozen=True, slots=True)
class MouthCue:
    """One mouth shape.

    Attributes:
        start: When it begins, in seconds.
        end: When the next one begins.
        value: ``A`` to ``F``, or ``X``.
    """

    start: float
    end: float
    value: str


@dataclass(frozen=True, slots=True, eq=False)
class VisemeTrack:
    """How a mouth moves while it speaks a sound.

    Attributes:
        sound: The file; None for sound in memory.
        fps: Rate of ``curves``.
        duration: Of the sound, in seconds.
        curves: (N,3) opening (0 closed, 1 wide open), width (0 at rest, below 0 rounded, above 0
            spread) and drop of the jaw (0 at rest).
        cues: Mouth shapes without holes, from 0 to ``duration``.
    """

    sound: Path | None
    fps: Fraction
    duration: float
    curves: Tensor
    cues: tuple[MouthCue, ...]

    def to_json(self) -> str:
        """Return JSON in the layout of Rhubarb, with the curves under a further key."""
        rows = [[round(value, 3) for value in row] for row in self.curves.tolist()]
        values = {
            "metadata": {
                "soundFile": None if self.sound is None else str(self.sound),
                "duration": self.duration,
            },
            "mouthCues": [
                {"start": cue.start, "end": cue.end, "value": cue.value} for cue in self.cues
            ],
            "curves": {
                "fps": float(self.fps),
                "columns": ["opening", "width", "jaw"],
                "rows": rows,
            },
        }
        return json.dumps(values, indent=1)

    def to_tsv(self) -> str:
        """Return a line for each mouth shape, and one for the end, as Rhubarb writes them."""
        lines = [f"{cue.start:.2f}\t{cue.value}\n" for cue in self.cues]
        return "".join(lines) + f"{self.duration:.2f}\tX\n"

    def to_csv(self) -> str:
        """Return a line for each frame: time, opening, width, jaw and mouth shape."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["time", "opening", "width", "jaw", "shape"])
        left = list(self.cues)
        for index, row in enumerate(self.curves.tolist()):
            time = float(index / self.fps)
            while len(left) > 1 and time >= left[0].end - 1e-6:
                del left[0]
            writer.writerow([f"{time:.4f}", *(f"{value:.3f}" for value in row), left[0].value])
        return text.getvalue()


def predict_visemes(
    speech: Path | Audio,
    *,
    fps: Fraction = Fraction(25),
    model: str | Path = "mini",
    device: str = "auto",
    audio_track: int | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> VisemeTrack:
    """Predict how a mouth moves while it speaks a sound.

    Args:
        speech: A file with sound, or sound in memory.
        fps: Rate of the result: that of the animation.
        model: A model that predicts lip shapes.
        device: Where it runs.
        audio_track: Number of the sound track of a file with several, from 1.
        on_warning: Called with warnings about damaged files.

    Returns:
        Curves and mouth shapes.

    Raises:
        MediaError: The sound cannot be read.
        LipSyncError: The model draws pictures, and predicts no lip shapes.
        ValueError: For a rate that is not between 1 and ``MAX_FPS``, or sound in memory that is
            not finite.
    """
    if not 1 <= fps <= MAX_FPS:
        raise ValueError(f"fps is {float(fps):g}; expected 1 to {MAX_FPS}")
    network = load_talking_face(model, device=select_device(device))
    if not isinstance(network, LipWarp):
        raise LipSyncError(f"{model} draws pictures and predicts no lip shapes; use mini")
    sync = LipSync(network)
    source = part_of_source(speech, None, Cut(audio_track=audio_track))
    audio = read_speech(source, sync.config.features.rate, on_warning or (lambda _: None))
    shapes = sync.lip_shapes(audio, fps, frame_count(audio, fps))
    duration = round(audio.samples.shape[1] / audio.rate, 3)
    return VisemeTrack(
        speech if isinstance(speech, Path) else None,
        fps,
        duration,
        shapes / torch.tensor([_FULL, 1.0, 1.0]),
        find_cues(shapes, fps, duration),
    )


def find_cues(shapes: Tensor, fps: Fraction, duration: float) -> tuple[MouthCue, ...]:
    """Find the mouth shapes of predicted lip shapes.

    G (teeth on the lip) and H (tongue) cannot be told from the lips' outline: such sounds become
    A, B or C.

    Args:
        shapes: (N,3) opening, width and jaw in standard deviations of a person's speech.
        fps: Their rate.
        duration: End of the last mouth shape, in seconds.

    Returns:
        Mouth shapes without holes. One that lasts a single frame becomes part of its neighbor,
        unless the lips close in it.
    """
    values = _classify(shapes)
    runs: list[tuple[str, int]] = []  # value, frames
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = value, runs[-1][1] + 1
        else:
            runs.append((value, 1))
    runs = _join_short(runs, 2 if fps >= 20 else 1)
    cues: list[MouthCue] = []
    place = 0
    for value, frames in runs:
        start, place = place, place + frames
        rests = start == 0 or place == len(shapes) or Fraction(frames) / fps >= _IDLE
        if value == "A" and rests:
            value = "X"
        cues.append(MouthCue(round(float(start / fps), 3), round(float(place / fps), 3), value))
    if cues:
        cues[-1] = replace(cues[-1], end=duration)
    return tuple(cues)


def _classify(shapes: Tensor) -> list[str]:
    """Return ``A`` to ``F`` for each row of (N,3)."""
    result: list[str] = []
    for opening, width, _ in shapes.tolist():
        if opening < _CLOSED:
            result.append("A")
        elif width < _PUCKERED and opening < _WIDE:
            result.append("F")
        elif width < _ROUNDED and opening < _WIDE:
            result.append("E")
        else:
            result.append("B" if opening < _SLIGHT else "C" if opening < _WIDE else "D")
    return result


def _join_short(runs: list[tuple[str, int]], least: int) -> list[tuple[str, int]]:
    """Let runs of fewer than ``least`` frames, other than closed ones, last on as the run before.

    The first one joins the run after it.
    """
    joined: list[tuple[str, int]] = []
    waiting = 0  # frames of a short first run
    for value, frames in runs:
        if joined and (joined[-1][0] == value or (frames < least and value != "A")):
            joined[-1] = joined[-1][0], joined[-1][1] + frames
        elif not joined and frames < least and value != "A" and len(runs) > 1:
            waiting += frames
        else:
            joined.append((value, frames + waiting))
            waiting = 0
    return joined or ([(runs[-1][0], waiting)] if runs else [])


def write_visemes(track: VisemeTrack, out: Path, *, overwrite: bool = False) -> None:
    """Write mouth shapes to a file.

    Args:
        track: What is written.
        out: A .json (mouth shapes and curves), .tsv (mouth shapes) or .csv (a line for each frame).
        overwrite: Whether an existing file is replaced.

    Raises:
        MediaError: The file cannot be written there, or exists.
    """
    check_output_path(out, overwrite=overwrite, suffixes=VISEME_SUFFIXES)
    text = {".json": track.to_json, ".tsv": track.to_tsv, ".csv": track.to_csv}[out.suffix.lower()]
    with atomic_write(out) as part:
        part.write_text(text(), encoding="utf-8", newline="\n")
