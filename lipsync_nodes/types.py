"""Values of the pack's own socket types. This module does not import ComfyUI."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from ..lipsync_core.faces.selection import select
from ..lipsync_core.faces.selector import FaceSelector
from ..lipsync_core.models.precision import Precision
from ..lipsync_core.types import Audio, FaceTrack


@dataclass(frozen=True, slots=True, eq=False)
class Speaker:
    """A person chosen to speak.

    Attributes:
        track: Where the face is.
        audio: The person's speech; None for the audio of the node that generates.
    """

    track: FaceTrack
    audio: Audio | None


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class People:
    """LIPSYNC_TRACKS: the people found in a clip, and those chosen to speak.

    Attributes:
        tracks: One per person.
        frames: Length of the clip.
        width: Of its frames, in px.
        height: Of its frames, in px.
        fps: Of the clip.
        portraits: (P,3,S,S) uint8 per track: face crops that identify the person.
        speakers: In the order chosen. Empty: nothing was chosen, and the largest face speaks.
    """

    tracks: tuple[FaceTrack, ...]
    frames: int
    width: int
    height: int
    fps: Fraction
    portraits: tuple[Tensor, ...] = ()
    speakers: tuple[Speaker, ...] = ()

    @property
    def speaking(self) -> tuple[Speaker, ...]:
        """The chosen speakers, else the largest face; raises NoFaceError if there is no face."""
        return self.speakers or (Speaker(select(self.tracks, FaceSelector("largest")), None),)

    def check(self, width: int, height: int, frames: int | None, *, spare: int = 0) -> None:
        """Check that these are the people of a given clip.

        Args:
            width: Of the clip's frames, in px.
            height: Of the clip's frames, in px.
            frames: Its length; None if unknown.
            spare: Frames by which the lengths may differ.

        Raises:
            ValueError: If size or length differ.
        """
        got, expected = (self.width, self.height), (width, height)
        if got != expected or (frames is not None and abs(self.frames - frames) > spare):
            length = "" if frames is None else f" and {frames} frames"
            raise ValueError(
                f"the tracks are of {got[0]}x{got[1]} px and {self.frames} frames, the media has "
                f"{width}x{height} px{length}; connect both from the same place"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """LIPSYNC_MODEL: a generator managed by ComfyUI.

    Attributes:
        patcher: ComfyUI's wrapper, which moves the model between devices.
        name: The name that the user chose, for reports.
        precision: Arithmetic of the model.
    """

    patcher: Any
    name: str
    precision: Precision = "auto"
