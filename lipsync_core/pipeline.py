"""Frames, sound and tracks in; dubbed frames out. No paths, no files; memory does not grow with the clip."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from .blend.composite import Movement
from .blending import Blend, Faces, blended, covered
from .geometry import apply, crop_to_frame, cut_frames, invert
from .models.generator import unpacked
from .models.layers import ready
from .models.precision import Precision, arithmetic
from .models.talking_face import TalkingFace, TalkingFaceConfig
from .types import AnyFrames, Audio, FaceTrack, Frames, YuvFrames


class Drawings:
    """What a network drew, by track and frames, so that another blend of the same faces, sound and chunks need not draw
    it again. Holds at most ``most_bytes``, by default 45 s of one face that `mini` drew in bfloat16; what comes after that
    is not kept, and drawn again when it is wanted.

    The caller sees to it that the faces, the sound, the model, the chunks and the frames that are shown are the same.
    """

    def __init__(self, most_bytes: int = 64 * 2**20) -> None:
        self._room = most_bytes
        self._kept: dict[tuple[int, int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def recall(self, track: int, start: int, count: int) -> Tensor | None:
        """What was drawn for the faces of ``track`` in ``count`` frames from ``start`` on."""
        return self._kept.get((track, start, count))

    def keep(self, track: int, start: int, count: int, planes: Tensor) -> None:
        size = planes.nbytes
        if size <= self._room and (track, start, count) not in self._kept:
            self._room -= size
            self._kept[track, start, count] = planes


@dataclass(frozen=True, slots=True, eq=False)
class Role:
    """Who says what: ``audio`` (mono, at the model's rate) through the face of ``track``. ``shown`` (T,) in [0,1]: how much of
    the new mouth is seen in each frame of the stream, the last holding on; None: all of it."""

    audio: Audio
    track: FaceTrack
    drawings: Drawings | None = None
    shown: Tensor | None = None


class LipSync:
    """A network that draws faces made ready for inference, and the blend it is put back with.

    ``model`` is folded in place (batch norms into convolutions) and must not be trained further. ``pads`` and ``lead_ms``
    override what its config says (see ``Framing`` and ``SoundFeatures``); ``precision``: see ``arithmetic``.
    """

    def __init__(
        self,
        model: TalkingFace,
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
        self.config: TalkingFaceConfig = replace(model.config, framing=framing, features=features)
        self.blend = blend
        self.model = ready(model)
        weight = next(self.model.parameters())
        dtype = arithmetic(weight, precision)
        if dtype != weight.dtype:  # a copy: the caller's numbers stay
            self.model = copy.deepcopy(self.model).to(dtype)

    def stream(
        self,
        frames: Iterable[AnyFrames],
        audio: Audio,
        *,
        fps: Fraction,
        tracks: Sequence[FaceTrack],
        drawings: Drawings | None = None,
    ) -> Iterator[AnyFrames]:
        """``frames`` with the faces of ``tracks`` speaking ``audio`` (mono, at the model's rate); frames in which no track
        is visible come back as they are. The stream does not depend on how the frames are cut into chunks.

        Every chunk is one batch. Frames lie anywhere; the faces travel to the model's device. drawings: filled, and read
        where it is filled already.
        """
        return self.in_turn(frames, [Role(audio, track, drawings) for track in tracks], fps=fps)

    def still(
        self,
        frame: AnyFrames,
        audio: Audio,
        *,
        fps: Fraction,
        tracks: Sequence[FaceTrack],
        count: int,
        chunk: int = 32,
        drawings: Drawings | None = None,
    ) -> Iterator[AnyFrames]:
        """``count`` frames of one still picture: as ``stream`` of the frame repeated, but each face is encoded once."""
        roles = [Role(audio, track, drawings) for track in tracks]
        return self.in_turn([frame], roles, fps=fps, still=count, chunk=chunk)

    @torch.inference_mode()
    def in_turn(
        self,
        frames: Iterable[AnyFrames],
        roles: Sequence[Role],
        *,
        fps: Fraction,
        still: int | None = None,
        chunk: int = 32,
    ) -> Iterator[AnyFrames]:
        """``stream`` for several, each of whom says something else through a face of their own. still: the frames wanted of
        the one picture in ``frames``, ``chunk`` at a time."""
        if still is not None:
            (picture,) = frames
            yield from self._stilled(picture, roles, fps, still, chunk)
            return
        for piece in frames:
            for number, role in enumerate(roles):
                piece = self._speak(piece, role, fps, number)
            yield piece

    def _stilled(
        self, frame: AnyFrames, roles: Sequence[Role], fps: Fraction, count: int, chunk: int
    ) -> Iterator[AnyFrames]:
        seen = [(number, role) for number, role in enumerate(roles) if bool(role.track.visible[0])]
        faces = [self._cut(frame, self._places(role.track, torch.zeros(1, dtype=torch.long))) for _, role in seen]
        skips: dict[int, list[Tensor]] = {}
        for start in range(0, count, chunk):
            n = min(chunk, count - start)
            out = replace(frame, pixels=frame.pixels.expand(n, *frame.pixels.shape[1:]), start=start)
            for (number, role), face in zip(seen, faces, strict=True):
                planes = self._recall(role.drawings, number, start, n)
                if planes is None:
                    skips[number] = skips.get(number) or self._skips(face)
                    planes = self.model.draw(self._sound(role.audio, fps, start, n), skips[number])
                    self._keep(role.drawings, number, start, n, planes)
                out = self._blend(out, planes, face, role, torch.arange(start, start + n))
            yield out

    @torch.inference_mode()
    def masks(self, height: int, width: int, tracks: Sequence[FaceTrack], *, start: int, count: int) -> Tensor:
        """(count,H,W) in [0,1]: how much of the new mouths ``stream`` shows at each place of frames ``start`` ... of the
        tracks, from 0 (untouched; rounding may leave a millionth) to 1."""
        shares = Frames(torch.zeros(count, height, width, 3), start)
        for track in tracks:
            here, index = present(shares, track)
            if not here.any():
                continue
            faces = self._places(track, index[here])
            part = replace(shares, pixels=shares.pixels[here])
            shares.pixels[here] = covered(part, faces, self.blend, moves=self._moves, size=self.config.size).pixels
        return shares.pixels.mean(3)

    def _speak(self, frames: AnyFrames, role: Role, fps: Fraction, number: int) -> AnyFrames:
        here, index = present(frames, role.track)
        n = len(here)
        stream = torch.arange(n) + frames.start
        shown = _shown(role, stream)
        if shown is not None and role.drawings is None:
            here &= shown > 0  # what nobody sees need not be drawn, unless it is kept for another blend
        if not here.any():
            return frames
        whole = bool(here.all())
        chosen = frames if whole else replace(frames, pixels=frames.pixels[here])
        faces = self._places(role.track, index[here])
        planes = self._recall(role.drawings, number, frames.start, n)
        if planes is None or not self._moves or self.blend.looks:
            faces = self._cut(chosen, faces)
        if planes is None:
            planes = self.model.draw(self._sound(role.audio, fps, frames.start, n)[here], self._skips(faces))
            self._keep(role.drawings, number, frames.start, n, planes)
        spoken = self._blend(chosen, planes, faces, role, stream[here])
        if whole:
            return spoken
        pixels = frames.pixels.clone()
        pixels[here] = spoken.pixels
        return replace(frames, pixels=pixels)

    @property
    def _moves(self) -> bool:
        """Whether the frame's own pixels are moved."""
        return self.model.moves and self.blend.own_pixels and not self.blend.colour_match

    def _recall(self, drawings: Drawings | None, number: int, start: int, count: int) -> Tensor | None:
        planes = drawings.recall(number, start, count) if drawings is not None else None
        return None if planes is None else planes.to(next(self.model.parameters()).device, torch.float32)

    def _keep(self, drawings: Drawings | None, number: int, start: int, count: int, planes: Tensor) -> None:
        if drawings is not None:  # the network's own format holds every bit that it computed
            drawings.keep(number, start, count, planes.to("cpu", next(self.model.parameters()).dtype, copy=True))

    def _skips(self, faces: Faces) -> list[Tensor]:
        assert faces.pixels is not None
        pixels = faces.pixels.to(next(self.model.parameters()).dtype)
        many = self.config.references  # the frame itself stands for all of them, as one does for one
        return self.model.encode(pixels, pixels if many == 1 else pixels.repeat(1, many, 1, 1))

    def _sound(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        weight = next(self.model.parameters())
        windows = self.config.features.windows(audio, fps, start, count)
        return windows.to(weight.device, weight.dtype)

    def _places(self, track: FaceTrack, index: Tensor) -> Faces:
        boxes, points = track.boxes[index].float(), track.points[index].float()
        matrices = crop_to_frame(boxes, points, self.config.framing, self.config.size)
        return Faces(matrices, apply(invert(matrices), points))

    def _cut(self, frames: Frames | YuvFrames, faces: Faces) -> Faces:
        """``faces`` with their pixels, on the model's device."""
        weight = next(self.model.parameters())
        matrices, aligned = faces.crop_to_frame.to(frames.pixels.device), self.config.framing.kind == "aligned"
        pixels = cut_frames(frames, matrices, self.config.size, antialias=aligned)
        return replace(faces, pixels=pixels.to(weight.device, memory_format=torch.channels_last))

    def _blend(self, frames: AnyFrames, planes: Tensor, faces: Faces, role: Role, index: Tensor) -> AnyFrames:
        """``frames``, which are the ``index`` (N,) of the stream, with the faces that drawn ``planes`` make."""
        device, shown = frames.pixels.device, _shown(role, index)
        if not self._moves:
            assert faces.pixels is not None
            made = self.model.picture(planes, faces.pixels, faces.pixels).to(device, torch.float32)
            return blended(frames, made, faces, self.blend, index=index, shown=shown)
        paint, offset, share = (part.to(device) for part in unpacked(planes.float()))
        above = (0, 0, planes.shape[2], 0)  # the upper half is the frame's own
        movement = Movement(F.pad(offset, above), F.pad(share, above, value=1))
        made = F.pad(paint, above, mode="replicate")
        return blended(frames, made, faces, self.blend, index=index, shown=shown, movement=movement)


def _shown(role: Role, index: Tensor) -> Tensor | None:
    """(N,) how much of the new mouth is seen in the frames ``index`` (N,) of the stream."""
    return None if role.shown is None else role.shown[index.clamp_max(len(role.shown) - 1)]


def present(frames: Frames | YuvFrames, track: FaceTrack) -> tuple[Tensor, Tensor]:
    """(N,) in which of ``frames`` the track is visible, and (N,) the track's own number of each."""
    index = torch.arange(frames.pixels.shape[0]) + frames.start - track.start
    here = (index >= 0) & (index < len(track.visible))
    here[here.clone()] = track.visible[index[here]]
    return here, index
