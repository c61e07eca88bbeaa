"""The faces of a dub: their audio, tracks, references and cached generator output."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor

from ..blend.lip_warp import LipRange
from ..image.affine import Framing, apply, crop_to_frame, invert
from ..image.crop import crop_frames
from ..types import AnyFrames, Audio, FaceTrack, Frames, References, YuvFrames


class GeneratorCache:
    """Keeps what a generator drew, so that another blend of the same dub needs no second run.

    The caller makes sure that faces, audio, model, references, chunks and visible frames are the
    same.

    Args:
        most_bytes: Output beyond this is not kept, and generated again when it is needed. The
            default holds 45 s of one face of `mini-2` in bfloat16.
    """

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        self._free_bytes = most_bytes
        self._kept: dict[tuple[int, int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, track: int, start: int, count: int) -> Tensor | None:
        """Return the planes of face ``track`` in ``count`` frames from ``start`` on, if kept."""
        return self._kept.get((track, start, count))

    def put(self, track: int, start: int, count: int, planes: Tensor) -> None:
        """Keep the planes of face ``track`` in ``count`` frames from ``start`` on, if they fit."""
        size = planes.nbytes
        if size <= self._free_bytes and (track, start, count) not in self._kept:
            self._free_bytes -= size
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


def values_at(curve: Tensor | None, index: Tensor) -> Tensor | None:
    """Return (N,) values of a curve (T,) at frames, the last one repeating; None for None."""
    return None if curve is None else curve[index.clamp_max(len(curve) - 1)]


def visible_in(frames: Frames | YuvFrames, track: FaceTrack) -> tuple[Tensor, Tensor]:
    """Find the frames of a chunk in which a track is visible.

    Args:
        frames: N frames.
        track: Of one face.

    Returns:
        (N,) bool, whether the face is visible, and (N,) the track's index of each frame, which may
        lie outside the track where it is not.
    """
    index = torch.arange(frames.pixels.shape[0]) + frames.start - track.start
    visible = (index >= 0) & (index < len(track.visible))
    visible[visible.clone()] = track.visible[index[visible]]
    return visible, index


@dataclass(frozen=True, slots=True, eq=False)
class SourceCrops:
    """The pictures that the mouths of N frames are drawn from.

    Attributes:
        pixels: (N,3,S,S) crops of the faces, RGB in [0,1].
        pictures: What they were cut out of, one for each frame.
        crop_to_picture: (N,2,3) where the crops lie in the pictures.
        dense: (N,L,2) landmarks in crop px, if there are any.
    """

    pixels: Tensor
    pictures: list[Frames | YuvFrames]
    crop_to_picture: Tensor
    dense: Tensor | None = None


def _keep(pixels: Tensor) -> Tensor:
    return pixels


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCrops:
    """Crops of reference pictures, each made when it is first used.

    Attributes:
        references: K pictures.
        crop_to_patch: (K,2,3) where the crops lie in the pictures.
        size: Side of the crops in px.
        prepare: Computes what the generator needs of a crop (1,3,S,S).
    """

    references: References
    crop_to_patch: Tensor
    size: int
    prepare: Callable[[Tensor], Tensor] = _keep
    _crops: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    _prepared: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    @classmethod
    def of(
        cls,
        references: References | None,
        framing: Framing,
        size: int,
        *,
        prepare: Callable[[Tensor], Tensor] = _keep,
    ) -> "ReferenceCrops | None":
        """Place crops on references; None for None.

        Args:
            references: K pictures.
            framing: How crops are placed on faces.
            size: Side of the crops in px.
            prepare: Computes what the generator needs of a crop (1,3,S,S).
        """
        if references is None:
            return None
        aspect = references.pixel_aspect
        matrices = crop_to_frame(references.boxes, references.points, framing, size, aspect=aspect)
        matrices = matrices.to(references.patches[0].pixels.device)
        return cls(references, matrices, size, prepare)

    def at(self, index: Tensor) -> SourceCrops:
        """Return the pictures that frames ``index`` (N,) of the stream are drawn from."""
        places = self._places(index)
        patches = [self.references.patches[i] for i in places.tolist()]
        maps, dense = self.crop_to_patch[places], self.references.dense
        if dense is not None:
            dense = apply(invert(maps), dense[places].to(maps))
        return SourceCrops(torch.cat([self.crop(i) for i in places.tolist()]), patches, maps, dense)

    def prepared_at(self, index: Tensor) -> Tensor:
        """Return what ``prepare`` computed (N,...) for frames ``index`` (N,) of the stream."""
        places = self._places(index).tolist()
        for place in set(places) - set(self._prepared):
            self._prepared[place] = self.prepare(self.crop(place))
        return torch.cat([self._prepared[place] for place in places])

    def crop(self, place: int) -> Tensor:
        """Return the crop (1,3,S,S) of picture ``place``."""
        if place not in self._crops:
            matrix = self.crop_to_patch[place : place + 1]
            self._crops[place] = crop_frames(self.references.patches[place], matrix, self.size)
        return self._crops[place]

    def _places(self, index: Tensor) -> Tensor:
        """Return (N,) the picture of each frame."""
        return self.references.index[index.clamp_max(len(self.references.index) - 1)]
