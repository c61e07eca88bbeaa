"""Frames, sound and tracks in; dubbed frames out. No paths, no files; memory does not grow with the clip."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from .audio import mel_windows
from .blend.colour import match_colour
from .blend.composite import BlendKind, Movement, composite
from .blend.masks import MaskKind, face_mask
from .geometry import apply, crop_to_frame, cut_frames, invert
from .models.generator import Generator, unpacked
from .models.layers import ready
from .models.precision import Precision, arithmetic
from .types import AnyFrames, Audio, FaceCrops, FaceTrack, Frames, YuvFrames


@dataclass(frozen=True, slots=True)
class Blend:
    """How a generated mouth joins its frame. ``feather`` is the soft edge's width as a part of the crop's side;
    ``colour_match`` brings the generated skin to the source's mean and spread. ``own_pixels``: a model that moves pixels
    (``mini``) moves those of the frame at its own resolution, which keeps large faces sharp; without it, or with
    ``colour_match``, the crop that it makes is enlarged."""

    mask: MaskKind = "mouth"
    kind: BlendKind = "feather"
    feather: float = 0.08
    colour_match: bool = False
    own_pixels: bool = True


class LipSync:
    """A generator made ready for inference, and the blend it is put back with.

    ``model`` is folded in place (batch norms into convolutions) and must not be trained further. ``pads`` and ``lead_ms``
    override what its config says (see ``Framing`` and ``MelFeatures``); ``precision``: see ``arithmetic``.
    """

    def __init__(
        self,
        model: Generator,
        *,
        blend: Blend = Blend(),
        pads: tuple[int, int, int, int] | None = None,
        lead_ms: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        framing, features = model.config.framing, model.config.features
        if pads is not None and framing.kind != "box":
            raise ValueError(f"this model frames faces by their {framing.kind} points; pads apply to box framing alone")
        framing = framing if pads is None else replace(framing, pads=pads)
        features = features if lead_ms is None else replace(features, lead_ms=lead_ms)
        self.config = replace(model.config, framing=framing, features=features)
        self.blend = blend
        self.model = ready(model)
        weight = next(self.model.parameters())
        dtype = arithmetic(weight, precision)
        if dtype != weight.dtype:  # a copy: the caller's numbers stay
            self.model = copy.deepcopy(self.model).to(dtype)

    @torch.inference_mode()
    def stream(
        self, frames: Iterable[AnyFrames], audio: Audio, *, fps: Fraction, tracks: Sequence[FaceTrack]
    ) -> Iterator[AnyFrames]:
        """``frames`` with the faces of ``tracks`` speaking ``audio`` (mono, at the model's rate); frames in which no track
        is visible come back as they are. The stream does not depend on how the frames are cut into chunks.

        Every chunk is one batch. Frames lie anywhere; the faces travel to the model's device.
        """
        for chunk in frames:
            for track in tracks:
                chunk = self._speak(chunk, audio, fps, track)
            yield chunk

    @torch.inference_mode()
    def still(
        self, frame: AnyFrames, audio: Audio, *, fps: Fraction, tracks: Sequence[FaceTrack], count: int, chunk: int = 32
    ) -> Iterator[AnyFrames]:
        """``count`` frames of one still picture: as ``stream`` of the frame repeated, but each face is encoded once."""
        faces = [self._encode(frame, track) for track in tracks if bool(track.visible[0])]
        for start in range(0, count, chunk):
            n = min(chunk, count - start)
            out = replace(frame, pixels=frame.pixels.expand(n, *frame.pixels.shape[1:]), start=start)
            mels = self._mels(audio, fps, start, n)
            for crops, points, skips in faces:
                out = self._blend(out, *self._make(mels, crops, skips), crops, points)
            yield out

    def _speak(self, frames: AnyFrames, audio: Audio, fps: Fraction, track: FaceTrack) -> AnyFrames:
        n = frames.pixels.shape[0]
        index = torch.arange(n) + frames.start - track.start
        here = (index >= 0) & (index < len(track.visible))
        here[here.clone()] = track.visible[index[here]]
        if not here.any():
            return frames
        whole = bool(here.all())
        chosen = frames if whole else replace(frames, pixels=frames.pixels[here])
        crops, points = self._crop(chosen, track, index[here])
        mels = self._mels(audio, fps, frames.start, n)[here]
        spoken = self._blend(chosen, *self._make(mels, crops), crops, points)
        if whole:
            return spoken
        pixels = frames.pixels.clone()
        pixels[here] = spoken.pixels
        return replace(frames, pixels=pixels)

    def _encode(self, frame: Frames | YuvFrames, track: FaceTrack) -> tuple[FaceCrops, Tensor, list[Tensor]]:
        crops, points = self._crop(frame, track, torch.zeros(1, dtype=torch.long))
        return crops, points, self._skips(crops)

    def _make(
        self, mels: Tensor, crops: FaceCrops, skips: list[Tensor] | None = None
    ) -> tuple[Tensor, Movement | None]:
        """The generated faces (N,3,S,S); from a model that moves pixels what it paints, and how to move the frame's own.
        ``skips``: the faces as encoded before."""
        pixels = crops.pixels
        skips = self._skips(crops) if skips is None else skips
        moves = self.config.output == "flow" and self.blend.own_pixels and not self.blend.colour_match
        if not moves:
            return self.model.decode(mels, skips, pixels, pixels), None
        planes = self.model.draw(mels, skips)
        paint, offset, share = unpacked(planes)
        above = (0, 0, planes.shape[2], 0)  # the upper half is the frame's own
        movement = Movement(F.pad(offset, above), F.pad(share, above, value=1))
        return F.pad(paint, above, mode="replicate"), movement

    def _skips(self, crops: FaceCrops) -> list[Tensor]:
        pixels = crops.pixels.to(next(self.model.parameters()).dtype)
        return self.model.encode(pixels, pixels)

    def _mels(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        weight = next(self.model.parameters())
        mels = mel_windows(audio, fps, start, count, features=self.config.features)
        return mels.to(weight.device, weight.dtype)

    def _crop(self, frames: Frames | YuvFrames, track: FaceTrack, index: Tensor) -> tuple[FaceCrops, Tensor]:
        """The faces of ``frames`` and their five points in crop pixels."""
        size, framing = self.config.size, self.config.framing
        weight = next(self.model.parameters())
        matrices = crop_to_frame(track.boxes[index].float(), track.points[index].float(), framing, size)
        pixels = cut_frames(frames, matrices.to(frames.pixels.device), size, antialias=framing.kind == "aligned")
        points = apply(invert(matrices), track.points[index].float())
        pixels = pixels.to(weight.device, memory_format=torch.channels_last)
        return FaceCrops(pixels, matrices), points

    def _blend(
        self, frames: AnyFrames, made: Tensor, movement: Movement | None, crops: FaceCrops, points: Tensor
    ) -> AnyFrames:
        n, size = made.shape[0], made.shape[-1]
        device = frames.pixels.device
        made = made.to(device, torch.float32)
        mask = face_mask(self.blend.mask, points.to(device), size, feather=self.blend.feather)
        if self.blend.colour_match:
            skin = (face_mask("face", points.to(device), size) * (1 - mask)).expand(n, -1, -1, -1)
            made = match_colour(made, crops.pixels.to(device, torch.float32), skin)
        if movement is not None:
            movement = Movement(movement.offset.to(device), movement.share.to(device))
        return composite(
            frames,
            made,
            crop_to_frame=crops.crop_to_frame.to(device).expand(n, -1, -1),
            mask=mask.expand(n, -1, -1, -1),
            blend=self.blend.kind,
            movement=movement,
        )
