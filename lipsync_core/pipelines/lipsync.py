"""Dub a stream of frames: frames, audio and face tracks in, dubbed frames out.

Tensors only; memory does not grow with the length of the clip.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ..blend.blender import (
    Blender,
    BlendMask,
    BlendState,
    FaceCrops,
    Mouth,
    enclose_mouths,
    fade_outside_pictures,
    ramp_lower_half,
)
from ..blend.composite import PixelSource
from ..blend.lip_warp import (
    LipRange,
    measure_range,
    move_lips,
    paint_mouth_inside,
    scale_shape,
)
from ..blend.overlays import Cover, OverlayCover, fill_overlays, lay_overlays
from ..faces.landmarks import confident_frames, to_own_layout
from ..faces.parser import FaceParser
from ..image.affine import square_places
from ..image.landmarks import lip_shapes, to_own_points
from ..models.generator import TalkingFace, TalkingFaceConfig
from ..models.layers import prepare_for_inference
from ..models.lip_warp import LipWarp
from ..models.precision import Precision, choose_dtype
from ..models.wav2lip import unpack_planes
from ..options import Blend
from ..types import AnyFrames, Audio, FaceTrack, Frames, YuvFrames, size_of
from .face_crops import FaceCropper, FaceInputs, StillCache
from .roles import (
    FaceDub,
    GeneratorCache,
    ReferenceCrops,
    RenderedChunk,
    SourceCrops,
    values_at,
)


@dataclass(frozen=True, slots=True, eq=False)
class _FaceStream:
    """A face while it is streamed.

    Attributes:
        number: Of the face in the dub.
        dub: Its audio, track and references.
        references: Crops of the references, if there are any.
        state: What its last frame hands to the next chunk.
        lips: How its lips move, if the model moves lips.
        cover: Captions and logos over it, if there are any.
    """

    number: int
    dub: FaceDub
    references: ReferenceCrops | None
    state: BlendState
    lips: LipRange | None
    cover: OverlayCover | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Generated:
    """What the generator drew for the N visible frames of a face, and from what.

    Attributes:
        planes: (N,C,H,W) of ``TalkingFace.draw``.
        faces: The face in the frames.
        sources: The pictures that it is drawn from; None: the frames themselves.
        speech_weight: (N,) in [0,1], weight of the drawn mouth; None: 1.
        index: (N,) the frames' stream indices.
    """

    planes: Tensor
    faces: FaceCrops
    sources: SourceCrops | None
    speech_weight: Tensor | None
    index: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _RenderedFace:
    """A face that was put into a chunk of M frames.

    Attributes:
        visible: (M,) bool, the N frames that show it.
        faces: N faces.
        mask: Their masks.
        opacity: (N,) in [0,1], or None for 1.
        lower_half: Whether pixels of the crops' lower half alone were moved.
    """

    visible: Tensor
    faces: FaceCrops
    mask: BlendMask
    opacity: Tensor | None
    lower_half: bool


class LipSync:
    """A generator made ready for inference, and the blend that its mouths are put back with.

    Args:
        model: The generator. It is folded in place (batch norms into convolutions) and must not be
            trained further.
        blend: How mouths are blended in.
        pads: Replaces the pads of the model's framing, in px; see ``Framing``.
        lead_ms: Replaces the lead of the model's audio features, in ms.
        precision: Number format of the network; see ``choose_dtype``.
        parser: For blends whose ``occlusion`` is ``parse``.

    Raises:
        ValueError: For pads of a model that frames faces by their points, or a blend that needs a
            parser without one.
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
                f"pads apply to box framing alone; this model frames faces by their {framing.kind} "
                "points. Leave pads out"
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
        self.model = prepare_for_inference(model)
        weight = next(self.model.parameters())
        dtype = choose_dtype(weight, precision)
        if isinstance(model, LipWarp):  # places and shapes need more bits, and take little time
            dtype = weight.dtype
        if dtype != weight.dtype:  # a copy: the caller's weights stay as they are
            self.model = copy.deepcopy(self.model).to(dtype)
        self._blender = Blender(blend, self.config.size)
        labels = parser if blend.occlusion == "parse" else None
        self._cropper = FaceCropper(self.model, self.config, labels)

    def stream(
        self,
        frames: Iterable[AnyFrames],
        audio: Audio,
        *,
        fps: Fraction,
        tracks: Sequence[FaceTrack],
        drawings: GeneratorCache | None = None,
    ) -> Iterator[AnyFrames]:
        """Make faces in a stream speak.

        The result does not depend on how the frames are divided into chunks. Every chunk is one
        batch. Frames may be on any device; the faces travel to the model's.

        Args:
            frames: Chunks of consecutive frames.
            audio: Mono, at the model's sample rate.
            fps: Frame rate.
            tracks: The faces that speak.
            drawings: Cache of the generator's output: filled, and used if it is filled already.

        Yields:
            The chunks with new mouths; frames that show no track are unchanged.
        """
        faces = [FaceDub(audio, track, drawings) for track in tracks]
        return (chunk.frames for chunk in self.render(frames, faces, fps=fps))

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
        """Make faces of one still picture speak, as ``stream`` of the frame repeated.

        Each face is encoded only once.

        Args:
            frame: One frame.
            audio: Mono, at the model's sample rate.
            fps: Frame rate.
            tracks: The faces that speak.
            count: Number of output frames.
            chunk: Frames per chunk.
            drawings: Cache of the generator's output.

        Yields:
            Chunks of frames with new mouths.
        """
        faces = [FaceDub(audio, track, drawings) for track in tracks]
        chunks = self.render([frame], faces, fps=fps, still=count, chunk=chunk)
        return (chunk.frames for chunk in chunks)

    @torch.inference_mode()
    def render(
        self,
        frames: Iterable[AnyFrames],
        faces: Sequence[FaceDub],
        *,
        fps: Fraction,
        still: int | None = None,
        chunk: int = 32,
        opacity: bool = False,
    ) -> Iterator[RenderedChunk[AnyFrames]]:
        """Make several faces of a stream speak, each its own audio.

        Args:
            frames: Chunks of consecutive frames; with ``still`` one frame.
            faces: What each face says, and how its mouth is made.
            fps: Frame rate.
            still: Number of output frames that show the one frame.
            chunk: Frames per chunk of a still.
            opacity: Whether the opacity of the new mouths is computed.

        Yields:
            The chunks with new mouths.
        """
        if isinstance(self.model, LipWarp):
            faces = [replace(face, track=to_own_layout(face.track)) for face in faces]
        streams = [self._start(number, face, fps) for number, face in enumerate(faces)]
        inputs: FaceInputs = self._cropper
        if still is not None:
            (picture,) = frames
            inputs = StillCache(self._cropper, picture, [face.track for face in faces])
            frames = _repeat(picture, still, chunk)
        for piece in frames:
            rendered: list[_RenderedFace] = []
            for stream in streams:
                piece, face = self._render_face(piece, stream, inputs, fps)
                rendered += [] if face is None else [face]
            yield RenderedChunk(piece, self._compute_opacity(piece, rendered) if opacity else None)

    def lip_range(self, track: FaceTrack) -> LipRange:
        """Return how the lips of a person move, by the landmarks of their track if it has any.

        Args:
            track: With dense landmarks, or without: then people's usual range.
        """
        assert isinstance(self.model, LipWarp)
        track = to_own_layout(track)
        sure = confident_frames(track)
        if track.dense is None or not sure.any():
            return self.model.prior
        dense = square_places(track.dense[sure].float(), track.pixel_aspect)
        return measure_range(lip_shapes(dense), self.model.prior)

    @torch.inference_mode()
    def lip_shapes(self, audio: Audio, fps: Fraction, count: int, *, batch: int = 256) -> Tensor:
        """Predict lip shapes from audio.

        Args:
            audio: Mono, at the model's sample rate.
            fps: Frame rate.
            count: Number of frames.
            batch: Frames at a time.

        Returns:
            (count,3) opening, width and jaw in standard deviations of a person's speech.
        """
        parts = [torch.zeros(0, 3)]
        for start in range(0, count, batch):
            driving = self._compute_driving(audio, fps, start, min(batch, count - start))
            parts.append(self.model.draw(driving, [])[:, :, 0, 0].float().cpu())
        return torch.cat(parts)

    def _start(self, number: int, face: FaceDub, fps: Fraction) -> _FaceStream:
        framing, size = self.config.framing, self.config.size
        unoccluded = ReferenceCrops.of(face.unoccluded, framing, size)
        reference = None if unoccluded is None else unoccluded.crop(0)
        references = ReferenceCrops.of(
            face.references, framing, size, prepare=self._cropper.prepare
        )
        lips = None
        if isinstance(self.model, LipWarp):
            lips = face.lip_range or self.lip_range(face.track)
        state = self._blender.start(fps, reference=reference)
        overlays = face.track.overlays
        cover = None if overlays is None else OverlayCover(overlays)
        return _FaceStream(number, face, references, state, lips, cover)

    def _render_face(
        self, frames: AnyFrames, stream: _FaceStream, inputs: FaceInputs, fps: Fraction
    ) -> tuple[AnyFrames, _RenderedFace | None]:
        """Return a chunk with the new mouth of one face, and the face if any frame shows it."""
        dub, number = stream.dub, stream.number
        visible, track_index = inputs.locate(frames, number, dub.track)
        stream_index = torch.arange(len(visible)) + frames.start
        opacity = values_at(dub.opacity, stream_index)
        if opacity is not None and dub.cache is None:
            # invisible mouths need not be drawn, unless they are kept for another blend
            visible = visible & (opacity > 0)
        if not visible.any():
            return frames, None
        source, index = _select(frames, visible), stream_index[visible]
        cover = _find_cover(stream, track_index[visible], source)
        selected = fill_overlays(source, cover)
        opacity = None if opacity is None else opacity[visible]
        planes = self._recall(stream, frames)
        pixels = planes is None or self._needs_pixels
        faces = inputs.crop(selected, number, dub.track, track_index[visible], pixels=pixels)
        if planes is None:
            driving = self._compute_driving(dub.audio, fps, frames.start, len(visible))[visible]
            features = inputs.encode(faces, number, stream.references, index)
            planes = self._generate(driving, features)
            self._keep(stream, frames, planes)
        sources = None if stream.references is None else stream.references.at(index)
        weight = values_at(dub.speech_weight, index)
        mouth, mask = self._decode(_Generated(planes, faces, sources, weight, index), stream)
        blended = self._blender.composite(
            selected, mouth, faces, mask, index, stream.state, opacity
        )
        blended = lay_overlays(source, selected, blended, cover)
        rendered = _RenderedFace(visible, faces, mask, opacity, self._moves and not mouth.whole)
        return _merge(frames, visible, blended), rendered

    def _generate(self, driving: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Return planes in the memory layout of the cache.

        The last bit of a sigmoid depends on how its numbers lie in memory.
        """
        planes = self.model.draw(driving, features)
        return planes.contiguous(memory_format=torch.channels_last)

    def _decode(self, generated: _Generated, stream: _FaceStream) -> tuple[Mouth, BlendMask]:
        """Return the mouths that planes describe, and their masks."""
        if stream.lips is not None:
            return self._decode_lip_shapes(generated, stream, stream.lips)
        mask = self._blender.make_mask(generated.faces, generated.index, stream.state)
        if not self._moves:
            return self._decode_picture(generated, stream.state), mask
        if generated.sources is not None:
            # the upper half is the frame's own, not the reference's
            mask = replace(mask, shape=mask.shape * ramp_lower_half(mask.shape))
        return self._decode_flow(generated, stream.state), mask

    def _decode_picture(self, generated: _Generated, state: BlendState) -> Mouth:
        """Return mouths as pictures at the resolution of their crops."""
        faces, sources, weight = generated.faces, generated.sources, generated.speech_weight
        device = faces.points.device
        source = faces.pixels if sources is None else sources.pixels
        assert faces.pixels is not None and source is not None
        face = self.model.render(generated.planes, faces.pixels, source.to(faces.pixels))
        face = state.mouth.update(face.to(device, torch.float32), generated.index)
        if weight is not None:
            face = torch.lerp(source.to(face), face, _per_frame(weight, face))
        return Mouth(face)

    def _decode_flow(self, generated: _Generated, state: BlendState) -> Mouth:
        """Return mouths of paint and moved pixels; the upper half does not move."""
        planes, weight = generated.planes, generated.speech_weight
        device = generated.faces.points.device
        parts = torch.cat([part.to(device) for part in unpack_planes(planes.float())], 1)
        reach = self.config.size / 4  # px: the most that anything moves
        parts[:, 3:5] /= reach
        # paint is visible as far as pixels are not moved over it
        paint_visible = (1 - parts[:, 5:]).expand(-1, 3, -1, -1)
        visible = torch.cat([paint_visible, torch.ones_like(parts[:, 3:])], 1)
        parts = state.mouth.update(parts, generated.index, visible=visible)
        paint, offset, own = parts.split([3, 2, 1], 1)
        above = (0, 0, planes.shape[2], 0)
        source = _make_source(
            F.pad(offset * reach, above), F.pad(own, above, value=1), generated.sources
        )
        if weight is not None:
            source = source.limit(_per_frame(weight, source.offset))
        return Mouth(F.pad(paint, above, mode="replicate"), (source,))

    def _decode_lip_shapes(
        self, generated: _Generated, stream: _FaceStream, lips: LipRange
    ) -> tuple[Mouth, BlendMask]:
        """Return mouths moved to lip shapes, and masks that hold the old and the new mouth.

        Planes are (N,3,1,1) shapes in the range ``lips``. A face that does not speak closes its
        mouth.
        """
        faces, sources, weight = generated.faces, generated.sources, generated.speech_weight
        assert faces.dense is not None
        shape = scale_shape(generated.planes[:, :, 0, 0].to(faces.dense), lips)
        if weight is not None:
            neutral = lips.neutral.to(shape).expand_as(shape)
            shape = torch.lerp(neutral, shape, weight[:, None].to(shape))
        points = self._find_source_points(faces, sources)
        move = move_lips(points, faces.dense, shape, self.config.size)
        outlines = replace(faces, dense=enclose_mouths(faces.dense, move.points))
        mask = self._blender.make_mask(outlines, generated.index, stream.state)
        pixels = faces.pixels if sources is None else sources.pixels
        assert pixels is not None
        moved = move.warp(pixels.to(move.offset))
        paint, inside = paint_mouth_inside(moved, move)
        source = _make_source(move.offset, 1 - inside, sources)
        if sources is not None:
            mask = replace(mask, shape=mask.shape * fade_outside_pictures(source))
        if not self._moves:
            return Mouth(torch.lerp(moved, paint, inside), whole=True), mask
        return Mouth(paint, (source,), whole=True), mask

    def _find_source_points(self, faces: FaceCrops, sources: SourceCrops | None) -> Tensor:
        """Return (N,102,2) landmarks in crop px of the pictures that mouths are made of."""
        assert isinstance(self.model, LipWarp) and faces.dense is not None
        if sources is None:
            return faces.dense
        own = None if sources.dense is None else to_own_points(sources.dense)
        return (self.model.find(sources.pixels) if own is None else own).to(faces.dense)

    def _compute_opacity(
        self, frames: Frames | YuvFrames, rendered: Sequence[_RenderedFace]
    ) -> Tensor:
        """Return (M,H,W) in [0,1]: how much of the new mouths each pixel shows."""
        height, width = size_of(frames)
        out = torch.zeros(len(frames.pixels), height, width)
        for face in rendered:
            alpha = self._blender.compute_alpha(
                (height, width),
                face.faces,
                face.mask,
                opacity=face.opacity,
                lower_half=face.lower_half,
            )
            out[face.visible] = 1 - (1 - out[face.visible]) * (1 - alpha.cpu())
        return out

    @property
    def _moves(self) -> bool:
        """Whether pixels of the frames are moved at their own resolution."""
        return self.model.moves and self.blend.own_pixels and not self.blend.colour_match

    @property
    def _needs_pixels(self) -> bool:
        """Whether crops are needed although the generator's output is cached."""
        return not self._moves or self.blend.needs_source or isinstance(self.model, LipWarp)

    def _recall(self, stream: _FaceStream, frames: Frames | YuvFrames) -> Tensor | None:
        if stream.dub.cache is None:
            return None
        planes = stream.dub.cache.get(stream.number, frames.start, len(frames.pixels))
        device = next(self.model.parameters()).device
        return None if planes is None else planes.to(device, torch.float32)

    def _keep(self, stream: _FaceStream, frames: Frames | YuvFrames, planes: Tensor) -> None:
        if stream.dub.cache is not None:  # the network's own format holds every bit of its output
            kept = planes.to("cpu", next(self.model.parameters()).dtype, copy=True)
            stream.dub.cache.put(stream.number, frames.start, len(frames.pixels), kept)

    def _compute_driving(self, audio: Audio, fps: Fraction, start: int, count: int) -> Tensor:
        weight = next(self.model.parameters())
        windows = self.config.features.windows(audio, fps, start, count)
        return windows.to(weight.device, weight.dtype)


def _find_cover(stream: _FaceStream, index: Tensor, frames: Frames | YuvFrames) -> Cover:
    """What lies over a face in ``frames``, the track's frames ``index`` (N,)."""
    return () if stream.cover is None else stream.cover.at(index, size_of(frames))


def _make_source(offset: Tensor, weight: Tensor, sources: SourceCrops | None) -> PixelSource:
    if sources is None:
        return PixelSource(offset, weight)
    return PixelSource(offset, weight, sources.pictures, sources.crop_to_picture, sources.pixels)


def _per_frame(values: Tensor, like: Tensor) -> Tensor:
    """Return (N,) values as (N,1,1,1) on the device of ``like``."""
    return values.to(like.device, torch.float32)[:, None, None, None]


def _repeat(picture: AnyFrames, count: int, chunk: int) -> Iterator[AnyFrames]:
    """Yield chunks of the same picture, without copies."""
    for start in range(0, count, chunk):
        n = min(chunk, count - start)
        pixels = picture.pixels.expand(n, *picture.pixels.shape[1:])
        yield replace(picture, pixels=pixels, start=start)


def _select(frames: AnyFrames, visible: Tensor) -> AnyFrames:
    """Return the frames that are visible, without a copy if all are."""
    return frames if visible.all() else replace(frames, pixels=frames.pixels[visible])


def _merge(frames: AnyFrames, visible: Tensor, selected: AnyFrames) -> AnyFrames:
    """Return a chunk in which the visible frames are replaced by the selected ones."""
    if visible.all():
        return selected
    pixels = frames.pixels.clone()
    pixels[visible] = selected.pixels
    return replace(frames, pixels=pixels)
