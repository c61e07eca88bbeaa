"""Who speaks in a stream of frames: voices, the faces that they speak through, and what was drawn
of them before."""

from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor

from ..blend.lip_warp import LipRange
from ..image.affine import Framing, apply, crop_to_frame, invert
from ..image.crop import crop_frames
from ..types import AnyFrames, Audio, FaceTrack, Frames, References, YuvFrames


class GeneratorCache:
    """What a network drew, by track and frames, so that another blend of the same faces, sound and
    chunks need not draw it again. Holds at most ``most_bytes``, by default 45 s of one face that
    `mini-2` drew in bfloat16; what comes after that is not kept, and drawn again when it is wanted.

    The caller sees to it that the faces, the sound, the model, the references, the chunks and the
    frames that are shown are the same.
    """

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        self._room = most_bytes
        self._kept: dict[tuple[int, int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, track: int, start: int, count: int) -> Tensor | None:
        """What was drawn for the faces of ``track`` in ``count`` frames from ``start`` on."""
        return self._kept.get((track, start, count))

    def put(self, track: int, start: int, count: int, planes: Tensor) -> None:
        size = planes.nbytes
        if size <= self._room and (track, start, count) not in self._kept:
            self._room -= size
            self._kept[track, start, count] = planes


@dataclass(frozen=True, slots=True, eq=False)
class FaceDub:
    """One face of a dub: what it says, and how its mouth is drawn.

    Curves (T,) hold one value per output frame; their last value repeats.

    Attributes:
        audio: Its speech, mono, at the model's rate.
        track: Where the face is in each output frame.
        cache: Keeps what the generator drew for this face; None to keep nothing.
        opacity: (T,) in [0,1], how much of the new mouth is visible; None for all of it.
        speech_weight: (T,) in [0,1], weight of the drawn mouth against the mouth of the picture
            that it is drawn from; None for 1.
        references: Pictures that the mouth is drawn from; None to draw from each frame itself.
        unoccluded: One picture with nothing in front of the face, against which occlusion is
            judged; None for the first frame.
        lip_range: How the person's lips move when they speak this audio, for models that move
            lips; None to measure it on the track.
    """

    audio: Audio
    track: FaceTrack
    cache: GeneratorCache | None = None
    opacity: Tensor | None = None
    speech_weight: Tensor | None = None
    references: References | None = None
    unoccluded: References | None = None
    lip_range: LipRange | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RenderedChunk(Generic[AnyFrames]):
    """Consecutive rendered frames.

    Attributes:
        frames: The N output frames.
        opacity: (N,H,W) in [0,1], how much of the new mouths each pixel shows; None if it was not
            requested.
    """

    frames: AnyFrames
    opacity: Tensor | None = None


def values_at(shares: Tensor | None, index: Tensor) -> Tensor | None:
    """(N,) what ``shares`` (T,) of a role say of the frames ``index`` (N,) of the stream; None
    where they say nothing."""
    return None if shares is None else shares[index.clamp_max(len(shares) - 1)]


def visible_in(frames: Frames | YuvFrames, track: FaceTrack) -> tuple[Tensor, Tensor]:
    """(N,) in which of ``frames`` the track is visible, and (N,) the track's own number of each."""
    index = torch.arange(frames.pixels.shape[0]) + frames.start - track.start
    here = (index >= 0) & (index < len(track.visible))
    here[here.clone()] = track.visible[index[here]]
    return here, index


@dataclass(frozen=True, slots=True, eq=False)
class SourceCrops:
    """The pictures (N) that the faces of some frames are drawn from: ``pixels`` (N,3,S,S), their
    crops; ``pictures`` and ``crop_to_picture`` (N,2,3), where those lie in what they were cut from;
    ``dense`` (N,L,2), their landmarks in crop px, where there are any."""

    pixels: Tensor
    pictures: list[Frames | YuvFrames]
    crop_to_picture: Tensor
    dense: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCrops:
    """``references`` cut for a network: ``crop_to_patch`` (K,2,3), and the crops, each made when it
    is first wanted."""

    references: References
    crop_to_patch: Tensor
    size: int
    _crops: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    @classmethod
    def of(
        cls, references: References | None, framing: Framing, size: int
    ) -> "ReferenceCrops | None":
        if references is None:
            return None
        matrices = crop_to_frame(references.boxes, references.points, framing, size)
        return cls(references, matrices.to(references.patches[0].pixels.device), size)

    def at(self, index: Tensor) -> SourceCrops:
        """What the frames ``index`` (N,) of the stream are drawn from."""
        places = self.references.index[index.clamp_max(len(self.references.index) - 1)]
        patches = [self.references.patches[i] for i in places.tolist()]
        maps, dense = self.crop_to_patch[places], self.references.dense
        if dense is not None:
            dense = apply(invert(maps), dense[places].to(maps))
        return SourceCrops(torch.cat([self.crop(i) for i in places.tolist()]), patches, maps, dense)

    def crop(self, place: int) -> Tensor:
        """(1,3,S,S) of the picture ``place``."""
        if place not in self._crops:
            matrix = self.crop_to_patch[place : place + 1]
            self._crops[place] = crop_frames(self.references.patches[place], matrix, self.size)
        return self._crops[place]
