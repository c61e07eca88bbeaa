"""Crops and encoder features of the faces in a stream, or of one still picture."""

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ..blend.blender import FaceCrops
from ..faces.parser import FaceParser
from ..image.affine import apply, crop_to_frame, invert
from ..image.crop import crop_frames
from ..image.landmarks import POINTS
from ..models.generator import TalkingFace, TalkingFaceConfig
from ..models.lip_warp import LipWarp
from ..types import FaceTrack, Frames, YuvFrames
from .roles import ReferenceCrops, visible_in


class FaceInputs(Protocol):
    """Where the renderer gets the faces of a stream from."""

    def locate(
        self, frames: Frames | YuvFrames, number: int, track: FaceTrack
    ) -> tuple[Tensor, Tensor]:
        """Find a face in a chunk.

        Args:
            frames: N frames.
            number: Of the face in its dub.
            track: Of the face.

        Returns:
            (N,) bool, in which frames it is visible, and (N,) the track's index of each frame.
        """
        ...

    def crop(
        self,
        frames: Frames | YuvFrames,
        number: int,
        track: FaceTrack,
        index: Tensor,
        *,
        pixels: bool = True,
    ) -> FaceCrops:
        """Cut a face out of frames.

        Args:
            frames: N frames in which the face is visible.
            number: Of the face in its dub.
            track: Of the face.
            index: (N,) the track's index of each frame.
            pixels: Whether the crops' pixels are needed.

        Returns:
            N faces with what the network and the blend need.
        """
        ...

    def encode(
        self, faces: FaceCrops, number: int, references: ReferenceCrops | None, index: Tensor
    ) -> list[Tensor]:
        """Compute the features that the generator draws from.

        Args:
            faces: N faces with pixels.
            number: Of the face in its dub.
            references: Pictures to draw from; None to draw from each frame itself.
            index: (N,) the frames' stream indices.

        Returns:
            Features (N,...) or (1,...).
        """
        ...


class FaceCropper:
    """Cuts the faces out of each frame of a stream.

    Args:
        model: The generator.
        config: Its configuration, with the caller's changes.
        parser: Labels the crops; None if the blend needs no labels.
    """

    def __init__(
        self, model: TalkingFace, config: TalkingFaceConfig, parser: FaceParser | None
    ) -> None:
        self._model = model
        self._config = config
        self._parser = parser

    def locate(
        self, frames: Frames | YuvFrames, number: int, track: FaceTrack
    ) -> tuple[Tensor, Tensor]:
        """Find a face in a chunk by its track."""
        return visible_in(frames, track)

    def crop(
        self,
        frames: Frames | YuvFrames,
        number: int,
        track: FaceTrack,
        index: Tensor,
        *,
        pixels: bool = True,
    ) -> FaceCrops:
        """Cut a face out of frames."""
        faces = self._place(frames, track, index)
        if pixels:
            faces = self._cut(frames, faces)
        if self._parser is not None:
            points = apply(faces.crop_to_frame, faces.points)
            size = self._config.size
            labels = self._parser.faces(frames, points, faces.crop_to_frame, size)
            faces = replace(faces, labels=labels)
        return self._add_landmarks(frames, faces, track, index)

    def encode(
        self, faces: FaceCrops, number: int, references: ReferenceCrops | None, index: Tensor
    ) -> list[Tensor]:
        """Compute the features of each frame."""
        assert faces.pixels is not None
        pixels = faces.pixels.to(next(self._model.parameters()).dtype)
        prepared = self.prepare(pixels) if references is None else references.prepared_at(index)
        return self._model.encode(pixels, prepared)

    def prepare(self, pictures: Tensor) -> Tensor:
        """Prepare references for the generator, one picture (N,3,S,S) standing for all of them."""
        weight = next(self._model.parameters())
        pictures = pictures.to(weight.device, weight.dtype)
        count = self._config.references
        return self._model.prepare(pictures if count == 1 else pictures.repeat(1, count, 1, 1))

    def _place(self, frames: Frames | YuvFrames, track: FaceTrack, index: Tensor) -> FaceCrops:
        """Return the faces' maps and points, on the device of ``frames``."""
        device, size = frames.pixels.device, self._config.size
        boxes, points = track.boxes[index].float(), track.points[index].float()
        aspect = track.pixel_aspect
        matrices = crop_to_frame(boxes, points, self._config.framing, size, aspect=aspect)
        inverse = invert(matrices)
        dense = None
        if track.dense is not None:
            dense = apply(inverse, track.dense[index].float()).to(device)
        return FaceCrops(matrices.to(device), apply(inverse, points).to(device), dense)

    def _cut(self, frames: Frames | YuvFrames, faces: FaceCrops) -> FaceCrops:
        """Return faces with their pixels, on the model's device."""
        device = next(self._model.parameters()).device
        antialias = self._config.framing.kind in ("aligned", "eyes")
        size = self._config.size
        pixels = crop_frames(frames, faces.crop_to_frame, size, antialias=antialias)
        return replace(faces, pixels=pixels.to(device, memory_format=torch.channels_last))

    def _add_landmarks(
        self, frames: Frames | YuvFrames, faces: FaceCrops, track: FaceTrack, index: Tensor
    ) -> FaceCrops:
        """Return faces with the landmarks that lip warping needs, if their track has none."""
        if not isinstance(self._model, LipWarp) or (
            faces.dense is not None and faces.dense.shape[1] == POINTS
        ):
            return faces
        config = self._model.config.landmarks
        maps = crop_to_frame(
            track.boxes[index].float(),
            track.points[index].float(),
            config.framing,
            config.size,
            aspect=track.pixel_aspect,
        )
        crops = crop_frames(frames, maps.to(frames.pixels.device), config.size)
        weight = next(self._model.parameters())
        points, _ = self._model.landmarks(crops.to(weight.device, weight.dtype))
        places = apply(maps, points.float().cpu()).to(faces.crop_to_frame)
        return replace(faces, dense=apply(invert(faces.crop_to_frame), places))


class StillCache:
    """Faces of one still picture, cropped and encoded once.

    Args:
        cropper: Cuts them out.
        picture: One frame.
        tracks: Of all faces of the dub; only frame 0 is used.
    """

    def __init__(
        self, cropper: FaceCropper, picture: Frames | YuvFrames, tracks: list[FaceTrack]
    ) -> None:
        first = torch.zeros(1, dtype=torch.long)
        self._faces = {
            number: cropper.crop(picture, number, track, first)
            for number, track in enumerate(tracks)
            if bool(track.visible[0])
        }
        self._features = {
            number: cropper.encode(faces, number, None, first)
            for number, faces in self._faces.items()
        }

    def locate(
        self, frames: Frames | YuvFrames, number: int, track: FaceTrack
    ) -> tuple[Tensor, Tensor]:
        """Find a face: in all frames, or in none."""
        count = len(frames.pixels)
        visible = torch.full((count,), number in self._faces)
        return visible, torch.zeros(count, dtype=torch.long)

    def crop(
        self,
        frames: Frames | YuvFrames,
        number: int,
        track: FaceTrack,
        index: Tensor,
        *,
        pixels: bool = True,
    ) -> FaceCrops:
        """Repeat the face of the still for each frame."""
        return self._faces[number].expand(len(frames.pixels))

    def encode(
        self, faces: FaceCrops, number: int, references: ReferenceCrops | None, index: Tensor
    ) -> list[Tensor]:
        """Return the features of the still."""
        return self._features[number]
