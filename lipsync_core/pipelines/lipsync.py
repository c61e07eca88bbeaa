"""Frames, sound and tracks in; dubbed frames out. No paths, no files; memory does not grow with the
clip."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blend.blender import (
    Blend,
    Faces,
    Moment,
    Past,
    below_the_middle,
    blended,
    covering,
    seen_in_origins,
    shaped,
    shares,
    steady,
)
from ..blend.composite import Movement
from ..blend.lip_warp import LipRange, measure_range, move_lips, paint_mouth_inside, scale_shape
from ..faces.landmarks import sure_frames
from ..faces.parser import FaceParser
from ..image.affine import apply, crop_to_frame, invert
from ..image.crop import crop_frames
from ..image.landmarks import POINTS, lip_shapes
from ..models.generator import TalkingFace, TalkingFaceConfig
from ..models.layers import ready
from ..models.lip_warp import LipWarp
from ..models.precision import Precision, arithmetic
from ..models.wav2lip import unpack_planes
from ..types import AnyFrames, Audio, FaceTrack, Frames, YuvFrames, size_of
from .roles import (
    FaceDub,
    GeneratorCache,
    ReferenceCrops,
    RenderedChunk,
    SourceCrops,
    values_at,
    visible_in,
)

_Known = dict[int, tuple[Faces, list[Tensor]]]
"""Of a still picture: by the number of its role each face, and its features."""


@dataclass(frozen=True, slots=True, eq=False)
class _Speaker:
    """A role in the stream that plays it: its number among the others, and what its frames have
    left."""

    number: int
    role: FaceDub
    portraits: ReferenceCrops | None
    past: Past = Past()
    lips: LipRange | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Spoken:
    """Faces that were put into those of a chunk's frames that are ``here`` (M,) bool, under
    ``mask`` (N,1,S,S)."""

    here: Tensor
    faces: Faces
    mask: Tensor
    shown: Tensor | None
    lower: bool = True


class LipSync:
    """A network that draws faces made ready for inference, and the blend it is put back with.

    ``model`` is folded in place (batch norms into convolutions) and must not be trained further.
    ``pads`` and ``lead_ms`` override what its config says (see ``Framing`` and ``SoundFeatures``);
    ``precision``: see ``arithmetic``. ``parser``: for blends whose ``occlusion`` is ``parse``;
    ValueError without.
    """

    def __init__(
        self,
        model: TalkingFace,
        *,
        blend: Blend = Blend(),
        pads: tuple[int, int, int, int] | None = None,
        lead_ms: int | None = None,
        precision: Precision = "auto",
        parser: FaceParser | None = None,
    ) -> None:
        framing, features = model.config.framing, model.config.features
        if pads is not None and framing.kind != "box":
            raise ValueError(
                f"this model frames faces by their {framing.kind} points; pads apply to box framing alone"
            )
        if blend.occlusion == "parse" and parser is None:
            raise ValueError(
                "occlusion is 'parse' and there is no parser; give one, or choose 'compare'"
            )
        framing = framing if pads is None else replace(framing, pads=pads)
        features = features if lead_ms is None else replace(features, lead_ms=lead_ms)
        self.config: TalkingFaceConfig = replace(model.config, framing=framing, features=features)
        self.blend = blend
        self.parser = parser
        self.model = ready(model)
        weight = next(self.model.parameters())
        dtype = arithmetic(weight, precision)
        if isinstance(
            model, LipWarp
        ):  # places and shapes want more bits than that, and their networks take little time
            dtype = weight.dtype
        if dtype != weight.dtype:  # a copy: the caller's numbers stay
            self.model = copy.deepcopy(self.model).to(dtype)

    def stream(
        self,
        frames: Iterable[AnyFrames],
        audio: Audio,
        *,
        fps: Fraction,
        tracks: Sequence[FaceTrack],
        drawings: GeneratorCache | None = None,
    ) -> Iterator[AnyFrames]:
        """``frames`` with the faces of ``tracks`` speaking ``audio`` (mono, at the model's rate);
        frames in which no track is visible come back as they are. The stream does not depend on how
        the frames are cut into chunks.

        Every chunk is one batch. Frames lie anywhere; the faces travel to the model's device.
        drawings: filled, and read where it is filled already.
        """
        roles = [FaceDub(audio, track, drawings) for track in tracks]
        return (chunk.frames for chunk in self.render(frames, roles, fps=fps))

    def still(
        self,
        frame: AnyFrames,
        audio: Audio,
        *,
        fps: Fraction,
        tracks: Sequence[FaceTrack],
        count: int,
        chunk: int = 32,
        drawings: GeneratorCache | None = None,
    ) -> Iterator[AnyFrames]:
        """``count`` frames of one still picture: as ``stream`` of the frame repeated, but each face
        is encoded once."""
        roles = [FaceDub(audio, track, drawings) for track in tracks]
        chunks = self.render([frame], roles, fps=fps, still=count, chunk=chunk)
        return (chunk.frames for chunk in chunks)

    @torch.inference_mode()
    def render(
        self,
        frames: Iterable[AnyFrames],
        roles: Sequence[FaceDub],
        *,
        fps: Fraction,
        still: int | None = None,
        chunk: int = 32,
        opacity: bool = False,
    ) -> Iterator[RenderedChunk[AnyFrames]]:
        """``stream`` for several, each of whom says something else through a face of their own.
        still: the frames wanted of the one picture in ``frames``, ``chunk`` at a time."""
        speakers = [self._speaker(number, role) for number, role in enumerate(roles)]
        known: _Known | None = None
        if still is not None:
            (picture,) = frames
            known, frames = self._known(picture, roles), _repeated(picture, still, chunk)
        for piece in frames:
            told: list[_Spoken] = []
            for place, speaker in enumerate(speakers):
                piece, speakers[place], spoken = self._speak(piece, speaker, fps, known)
                told += [] if spoken is None else [spoken]
            yield RenderedChunk(piece, self._shares(piece, told) if opacity else None)

    def _speaker(self, number: int, role: FaceDub) -> _Speaker:
        how = self.config.framing, self.config.size
        clear = ReferenceCrops.of(role.unoccluded, *how)
        past = Past() if clear is None else Past(clear=clear.crop(0))
        lips = (
            (role.lip_range or self.lip_range(role.track))
            if isinstance(self.model, LipWarp)
            else None
        )
        return _Speaker(number, role, ReferenceCrops.of(role.references, *how), past, lips)

    def lip_range(self, track: FaceTrack) -> LipRange:
        """How the lips of the person of ``track`` move, as far as its landmarks tell; else as
        people's do."""
        assert isinstance(self.model, LipWarp)
        sure = sure_frames(track)
        if track.dense is None or track.dense.shape[1] != POINTS or not sure.any():
            return self.model.prior
        return measure_range(lip_shapes(track.dense[sure].float()), self.model.prior)

    @torch.inference_mode()
    def lip_shapes(self, audio: Audio, fps: Fraction, count: int, *, batch: int = 256) -> Tensor:
        """(count,3) what ``audio`` asks of lips, frame by frame, in standard deviations of a
        person's speech."""
        parts = [torch.zeros(0, 3)]
        for start in range(0, count, batch):
            sound = self._sound(audio, fps, start, min(batch, count - start))
            parts.append(self.model.draw(sound, [])[:, :, 0, 0].float().cpu())
        return torch.cat(parts)

    def _known(self, picture: Frames | YuvFrames, roles: Sequence[FaceDub]) -> _Known:
        seen = {
            number: role.track for number, role in enumerate(roles) if bool(role.track.visible[0])
        }
        first = torch.zeros(1, dtype=torch.long)
        faces = {number: self._places(track, first, picture) for number, track in seen.items()}
        looked = {
            number: self._marked(
                picture,
                self._parsed(picture, self._cut(picture, place)),
                roles[number].track,
                first,
            )
            for number, place in faces.items()
        }
        return {number: (face, self._skips(face, None)) for number, face in looked.items()}

    def _speak(
        self, frames: AnyFrames, speaker: _Speaker, fps: Fraction, known: _Known | None
    ) -> tuple[AnyFrames, _Speaker, _Spoken | None]:
        role, number, n = speaker.role, speaker.number, frames.pixels.shape[0]
        stream = torch.arange(n) + frames.start
        if known is None:
            here, index = visible_in(frames, role.track)
        else:
            here, index = torch.full((n,), number in known), torch.zeros(n, dtype=torch.long)
        shown = values_at(role.opacity, stream)
        if shown is not None and role.cache is None:
            # what nobody sees need not be drawn, unless it is kept for another blend
            here = here & (shown > 0)
        if not here.any():
            return frames, speaker, None
        whole = bool(here.all())
        chosen = frames if whole else replace(frames, pixels=frames.pixels[here])
        planes = self._recall(role.cache, number, frames.start, n)
        origins = None if speaker.portraits is None else speaker.portraits.at(stream[here])
        if known is None:
            faces, skips = self._faces(chosen, speaker, index[here], drawn=planes is not None), None
        else:
            faces, skips = known[number][0].times(len(chosen.pixels)), known[number][1]
        if planes is None:
            sound = self._sound(role.audio, fps, frames.start, n)[here]
            planes = self.model.draw(sound, self._skips(faces, origins) if skips is None else skips)
            # lying as what is kept does: the last bit of a sigmoid depends on how its numbers lie
            # in memory
            planes = planes.contiguous(memory_format=torch.channels_last)
            self._keep(role.cache, number, frames.start, n, planes)
        moment = Moment(stream[here], fps, speaker.past)
        shown, speaking = (
            None if shown is None else shown[here],
            values_at(role.speech_weight, stream[here]),
        )
        make = self._made if speaker.lips is None else partial(self._moved_lips, own=speaker.lips)
        made, movement, faces, mask, moment = make(planes, faces, origins, speaking, moment)
        origin = None if origins is None else origins.pixels
        spoken, moment = blended(
            chosen,
            made,
            faces,
            self.blend,
            mask,
            moment,
            shown=shown,
            movement=movement,
            origin=origin,
        )
        told = _Spoken(here, faces, mask, shown, lower=speaker.lips is None)
        speaker = replace(speaker, past=moment.over())
        if whole:
            return spoken, speaker, told
        pixels = frames.pixels.clone()
        pixels[here] = spoken.pixels
        return replace(frames, pixels=pixels), speaker, told

    def _faces(
        self, frames: Frames | YuvFrames, speaker: _Speaker, index: Tensor, *, drawn: bool
    ) -> Faces:
        """The faces in ``frames``, which are the track's own ``index`` (N,), with what drawing or
        blending needs of them; ``drawn``: what is kept was drawn before."""
        track = speaker.role.track
        faces = self._places(track, index, frames)
        if not drawn or not self._moves or self.blend.looks or speaker.lips is not None:
            faces = self._cut(frames, faces)
        return self._marked(frames, self._parsed(frames, faces), track, index)

    def _made(
        self,
        planes: Tensor,
        faces: Faces,
        origins: SourceCrops | None,
        speaking: Tensor | None,
        moment: Moment,
    ) -> tuple[Tensor, Movement | None, Faces, Tensor, Moment]:
        """The faces (N,3,S,S) that ``planes`` make, where the frames lie, and how they move, where
        they do; then what hides them and their mask. ``speaking`` (N,): how much of that is seen,
        the rest being the mouths of the ``origins``."""
        faces, mask, moment = shaped(faces, self.blend, self.config.size, moment)
        device = faces.points.device
        source = faces.pixels if origins is None else origins.pixels
        share = (
            None if speaking is None else speaking.to(device, torch.float32)[:, None, None, None]
        )
        if not self._moves:
            assert faces.pixels is not None and source is not None
            made = self.model.picture(planes, faces.pixels, source.to(faces.pixels)).to(
                device, torch.float32
            )
            made, moment = steady(made, self.blend, moment)
            made = made if share is None else torch.lerp(source.to(made), made, share)
            return made, None, faces, mask, moment
        parts = torch.cat([part.to(device) for part in unpack_planes(planes.float())], 1)
        reach = self.config.size / 4  # px: the most that anything moves
        parts[:, 3:5] /= reach
        seen = torch.cat(
            [(1 - parts[:, 5:]).expand(-1, 3, -1, -1), torch.ones_like(parts[:, 3:])], 1
        )
        parts, moment = steady(parts, self.blend, moment, visible=seen)
        paint, offset, own = parts.split([3, 2, 1], 1)
        above = (0, 0, planes.shape[2], 0)  # the upper half is the frame's own
        movement = Movement(F.pad(offset * reach, above), F.pad(own, above, value=1))
        if origins is not None:
            movement = replace(
                movement, origins=origins.pictures, crop_to_origin=origins.crop_to_picture
            )
        if origins is not None:
            # the upper half is the frame's own, not the origin's
            mask = mask * below_the_middle(mask)
        movement = movement if share is None else movement.times(share)
        return F.pad(paint, above, mode="replicate"), movement, faces, mask, moment

    def _moved_lips(
        self,
        planes: Tensor,
        faces: Faces,
        origins: SourceCrops | None,
        speaking: Tensor | None,
        moment: Moment,
        *,
        own: LipRange,
    ) -> tuple[Tensor, Movement | None, Faces, Tensor, Moment]:
        """As ``_made``, for a model that moves lips to the shapes that ``planes`` (N,3,1,1) say, of
        a person with the range ``own``; those who do not speak close theirs. The mask holds the old
        mouth and the new one."""
        assert faces.dense is not None
        wanted = scale_shape(planes[:, :, 0, 0].to(faces.dense), own)
        if speaking is not None:
            wanted = torch.lerp(
                own.neutral.to(wanted).expand_as(wanted), wanted, speaking[:, None].to(wanted)
            )
        move = move_lips(self._source_points(faces, origins), faces.dense, wanted, self.config.size)
        outlines = replace(faces, dense=covering(faces.dense, move.points))
        outlines, mask, moment = shaped(outlines, self.blend, self.config.size, moment)
        faces = replace(faces, hidden=outlines.hidden)
        pixels = faces.pixels if origins is None else origins.pixels
        assert pixels is not None
        pulled = move.pull(pixels.to(move.offset))
        paint, inside = paint_mouth_inside(pulled, move)
        movement = Movement(move.offset, 1 - inside, whole=True)
        if origins is not None:
            movement = replace(
                movement, origins=origins.pictures, crop_to_origin=origins.crop_to_picture
            )
            mask = mask * seen_in_origins(movement)
        if not self._moves:
            return torch.lerp(pulled, paint, inside), None, faces, mask, moment
        return paint, movement, faces, mask, moment

    def _source_points(self, faces: Faces, origins: SourceCrops | None) -> Tensor:
        """(N,102,2) landmarks, in crop px, of the pictures that mouths are made of."""
        assert isinstance(self.model, LipWarp) and faces.dense is not None
        if origins is None:
            return faces.dense
        if origins.dense is None or origins.dense.shape[1] != POINTS:  # landmarks of another layout
            return self.model.find(origins.pixels).to(faces.dense)
        return origins.dense.to(faces.dense)

    def _marked(
        self, frames: Frames | YuvFrames, faces: Faces, track: FaceTrack, index: Tensor
    ) -> Faces:
        """``faces`` with the landmarks that a model which moves lips needs, where their track has
        none."""
        if not isinstance(self.model, LipWarp) or (
            faces.dense is not None and faces.dense.shape[1] == POINTS
        ):
            return faces
        config = self.model.config.landmarks
        maps = crop_to_frame(
            track.boxes[index].float(), track.points[index].float(), config.framing, config.size
        )
        crops = crop_frames(frames, maps.to(frames.pixels.device), config.size)
        weight = next(self.model.parameters())
        points, _ = self.model.landmarks(crops.to(weight.device, weight.dtype))
        places = apply(maps, points.float().cpu()).to(faces.crop_to_frame)
        return replace(faces, dense=apply(invert(faces.crop_to_frame), places))

    def _shares(self, frames: Frames | YuvFrames, told: Sequence[_Spoken]) -> Tensor:
        """(M,H,W) in [0,1]: how much of the new mouths each place of ``frames`` shows."""
        height, width = size_of(frames)
        out = torch.zeros(len(frames.pixels), height, width)
        for spoken in told:
            moves = self._moves and spoken.lower
            seen = shares(
                (height, width),
                spoken.faces,
                self.blend,
                spoken.mask,
                shown=spoken.shown,
                moves=moves,
            )
            out[spoken.here] = 1 - (1 - out[spoken.here]) * (1 - seen.cpu())
        return out

    @property
    def _moves(self) -> bool:
        """Whether the frame's own pixels are moved."""
        return self.model.moves and self.blend.own_pixels and not self.blend.colour_match

    def _recall(
        self, drawings: GeneratorCache | None, number: int, start: int, count: int
    ) -> Tensor | None:
        planes = drawings.get(number, start, count) if drawings is not None else None
        return (
            None
            if planes is None
            else planes.to(next(self.model.parameters()).device, torch.float32)
        )

    def _keep(
        self, drawings: GeneratorCache | None, number: int, start: int, count: int, planes: Tensor
    ) -> None:
        if drawings is not None:  # the network's own format holds every bit that it computed
            drawings.put(
                number,
                start,
                count,
                planes.to("cpu", next(self.model.parameters()).dtype, copy=True),
            )

    def _skips(self, faces: Faces, origins: SourceCrops | None) -> list[Tensor]:
        assert faces.pixels is not None
        weight = next(self.model.parameters())
        pixels = faces.pixels.to(weight.dtype)
        reference = pixels if origins is None else origins.pixels.to(pixels)
        many = self.config.references  # one picture stands for all of them
        return self.model.encode(
            pixels, reference if many == 1 else reference.repeat(1, many, 1, 1)
        )

    def _sound(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        weight = next(self.model.parameters())
        windows = self.config.features.windows(audio, fps, start, count)
        return windows.to(weight.device, weight.dtype)

    def _places(self, track: FaceTrack, index: Tensor, frames: Frames | YuvFrames) -> Faces:
        """Where the face of ``track`` is in its own frames ``index``, on the device of ``frames``."""
        device = frames.pixels.device
        boxes, points = track.boxes[index].float(), track.points[index].float()
        matrices = crop_to_frame(boxes, points, self.config.framing, self.config.size)
        inverse = invert(matrices)
        dense = (
            None if track.dense is None else apply(inverse, track.dense[index].float()).to(device)
        )
        return Faces(matrices.to(device), apply(inverse, points).to(device), dense)

    def _cut(self, frames: Frames | YuvFrames, faces: Faces) -> Faces:
        """``faces`` with their pixels, on the model's device."""
        weight, aligned = (
            next(self.model.parameters()),
            self.config.framing.kind in ("aligned", "eyes"),
        )
        pixels = crop_frames(frames, faces.crop_to_frame, self.config.size, antialias=aligned)
        return replace(faces, pixels=pixels.to(weight.device, memory_format=torch.channels_last))

    def _parsed(self, frames: Frames | YuvFrames, faces: Faces) -> Faces:
        """``faces`` with what a parser says of them, where the blend asks for it."""
        if self.parser is None or self.blend.occlusion != "parse":
            return faces
        points = apply(faces.crop_to_frame, faces.points)
        return replace(
            faces, labels=self.parser.faces(frames, points, faces.crop_to_frame, self.config.size)
        )


def _repeated(picture: AnyFrames, count: int, chunk: int) -> Iterator[AnyFrames]:
    """``count`` times the same picture."""
    for start in range(0, count, chunk):
        n = min(chunk, count - start)
        yield replace(
            picture, pixels=picture.pixels.expand(n, *picture.pixels.shape[1:]), start=start
        )
