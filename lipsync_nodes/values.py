"""What travels on our own sockets. No host in here."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from ..lipsync_core.faces.selection import FaceSelector, select
from ..lipsync_core.models.precision import Precision
from ..lipsync_core.types import Audio, FaceTrack


@dataclass(frozen=True, slots=True, eq=False)
class Speaker:
    """A person chosen to speak, and what: ``audio`` None means the sound of the node that
    generates."""

    track: FaceTrack
    audio: Audio | None


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class People:
    """LIPSYNC_TRACKS: everybody found in ``frames`` frames of ``width`` x ``height`` px at ``fps``,
    and who of them speaks.

    portraits: one (P,3,S,S) uint8 per track, the faces by which a person is recognised. speakers:
    in the order in which they were chosen; empty means that nobody was chosen, and the largest face
    speaks.
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
        """Who speaks: whoever was chosen, else the largest face. NoFaceError without any."""
        return self.speakers or (Speaker(select(self.tracks, FaceSelector("largest")), None),)

    def check(self, width: int, height: int, frames: int | None, *, spare: int = 0) -> None:
        """ValueError when these are of media of another size or, by more than ``spare`` frames,
        length."""
        got, wanted = (self.width, self.height), (width, height)
        if got != wanted or (frames is not None and abs(self.frames - frames) > spare):
            counted = "" if frames is None else f" and {frames} frames"
            raise ValueError(
                f"the tracks are of {got[0]}x{got[1]} px and {self.frames} frames, the media has {width}x{height} px"
                f"{counted}; connect both from the same place"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """LIPSYNC_MODEL: a generator in the host's care. ``patcher``: the host's wrapper, which moves
    it between devices; ``name``: as the user chose it, for reports."""

    patcher: Any
    name: str
    precision: Precision = "auto"
