"""Blend generated mouths into their frames: options, mask, tones, seam and state over time."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..image.affine import apply_to_planes, scale_of
from ..image.crop import pixel_grid
from ..image.landmarks import IRISES, JAW, NOSE_BASE
from ..options import Blend
from ..types import AnyFrames, Frames, size_of
from .color_match import from_match_space, match_tones, measure_tones, to_match_space
from .composite import Patch, PixelSource, composite, warp_faces
from .landmark_masks import outline_mask
from .masks import face_mask
from .occlusion import find_occlusion
from .parser_masks import find_occluders, parser_mask
from .seamless import compute_seam_correction
from .smoothing import Smoother, Stabilizer
from .texture import Texture

# Fade the movement in between 0.5 and 1.7 feather widths inside the mask's border, so that the
# border itself lies on unmoved pixels. Six train and val clips: of a seam where everything moves,
# 55 % of the line is left, 56 % of the step and 44 % of the flicker, and the middle of the mouth
# moves as much; a start at 0.7 leaves half of that and loses 1 % of the mouth's movement, an end at
# 2 loses 3 %.
_FALLOFF_WIDTH, _FALLOFF_START = 1.2, 0.5
# Seconds in which a step is followed to 63 %: a mask's shape trembles with its parser, light
# changes slowly, and an occluder fades out a moment after it goes (it covers at once).
_SHAPE_SECONDS, _TONE_SECONDS, _UNCOVER_SECONDS = 0.1, 0.3, 0.2
# Of the range [0,1]: a larger jump of the tones is a shot cut or a light switched on, and resets
# their smoothing.
_TONE_RESET = 0.1
# Of a crop's height: where the eyes end, and how far below it pictures of other moments fade in.
_EYES_END, _NOSE_RAMP = 0.26, 0.08
_PICTURE_EDGE = 4  # crop px over which a mask fades out towards the border of a picture
# How far below the jaw the mask of moved lips reaches, in distances of the eyes, from ear to ear.
_HALF_BELOW = (0.0, 0.0, 0.0, 0.02, 0.04, 0.06, 0.10, 0.15, 0.20, 0.22, 0.23)
_BELOW = (*_HALF_BELOW, *_HALF_BELOW[-2::-1])


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrops:
    """Faces of a chunk in crop space.

    Attributes:
        crop_to_frame: (N,2,3) maps.
        points: (N,5,2) the five points in crop px.
        dense: (N,K,2) dense landmarks in crop px, if there are any.
        pixels: (N,3,S,S) RGB in [0,1], if they are needed.
        labels: (N,19,h,w) probabilities of ``parser_masks.LABELS``, if there is a parser.
    """

    crop_to_frame: Tensor
    points: Tensor
    dense: Tensor | None = None
    pixels: Tensor | None = None
    labels: Tensor | None = None

    def expand(self, count: int) -> "FaceCrops":
        """Repeat one face for ``count`` frames, without copies."""

        def repeat(x: Tensor) -> Tensor:
            return x.expand(count, *x.shape[1:])

        rest = (None if x is None else repeat(x) for x in (self.dense, self.pixels, self.labels))
        return FaceCrops(repeat(self.crop_to_frame), repeat(self.points), *rest)


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """Generated faces in crop space.

    Attributes:
        face: (N,3,S,S) RGB in [0,1], the painted faces.
        sources: Pictures whose pixels are moved over the paint.
        whole: Whether pixels of the upper half may move, too.
    """

    face: Tensor
    sources: tuple[PixelSource, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class BlendMask:
    """Masks of faces.

    Occlusion is kept apart from the shape, because colors are matched at the mask's edge, not at
    the occluder's.

    Attributes:
        shape: (N,1,S,S) in [0,1], the part of the face that is replaced.
        hidden: (N,1,S,S) in [0,1], how much an occluder covers; None: nothing.
    """

    shape: Tensor
    hidden: Tensor | None = None

    @property
    def alpha(self) -> Tensor:
        """(N,1,S,S) opacity in [0,1] of the generated faces."""
        return self.shape if self.hidden is None else self.shape * (1 - self.hidden)


class BlendState:
    """Temporal state of one face in one stream: a smoother for each quantity.

    Args:
        fps: Frame rate of the stream.
        steady: Strength of the stabilizer in [0,1].
        reference: (1,3,S,S) a crop of the person without an occluder; None: the first one.
    """

    def __init__(self, fps: Fraction, *, steady: float = 0.0, reference: Tensor | None = None):
        self.reference = reference
        self.mouth = Stabilizer(steady)
        self.mask = Smoother(_SHAPE_SECONDS, fps)
        self.occlusion = Smoother(_UNCOVER_SECONDS, fps, attack_instant=True)
        self.tones = Smoother(_TONE_SECONDS, fps, reset_above=_TONE_RESET)


class Blender:
    """Blends generated mouths into frames.

    Stateless; what one chunk hands to the next is in a ``BlendState`` for each face.

    Args:
        blend: The options.
        size: Side of the crops in px.
    """

    def __init__(self, blend: Blend, size: int) -> None:
        self.blend = blend
        self.size = size

    def start(self, fps: Fraction, *, reference: Tensor | None = None) -> BlendState:
        """Return the state of a face at the start of a stream at ``fps``; see ``BlendState``."""
        return BlendState(fps, steady=self.blend.steady, reference=reference)

    def make_mask(self, faces: FaceCrops, index: Tensor, state: BlendState) -> BlendMask:
        """Make the masks of faces, smoothed over time where they follow landmarks or a parser.

        Args:
            faces: N faces.
            index: (N,) their frames' stream indices.
            state: Of this face; updated.

        Returns:
            Masks and occlusion.
        """
        blend, labels = self.blend, faces.labels
        mask = self._draw_outline(faces, self._feather(faces))
        if labels is not None:
            mask = mask * parser_mask(blend.mask, labels, self.size, feather=blend.feather)
        if labels is not None or faces.dense is not None:
            mask = state.mask.update(mask, index)
        return BlendMask(mask, self.find_occlusion(faces, index, state))

    def find_occlusion(self, faces: FaceCrops, index: Tensor, state: BlendState) -> Tensor | None:
        """Find what is in front of faces, smoothed over time.

        Args:
            faces: N faces.
            index: (N,) their frames' stream indices.
            state: Of this face; updated.

        Returns:
            (N,1,S,S) in [0,1], how much of each pixel is covered; None if occlusion is ignored.
        """
        points = faces.points if faces.dense is None else faces.dense
        feather = self.blend.feather
        if faces.labels is not None:
            hidden = find_occluders(faces.labels, points, self.size, feather=feather)
        elif self.blend.occlusion == "compare" and faces.pixels is not None:
            pixels = faces.pixels.to(points)
            reference = pixels[:1] if state.reference is None else state.reference.to(pixels)
            state.reference = reference
            hidden = find_occlusion(pixels, reference, points, self.size, feather=feather)
        else:
            return None
        return state.occlusion.update(hidden, index)

    def composite(
        self,
        frames: AnyFrames,
        mouth: Mouth,
        faces: FaceCrops,
        mask: BlendMask,
        index: Tensor,
        state: BlendState,
        opacity: Tensor | None = None,
    ) -> AnyFrames:
        """Put generated mouths into frames.

        Args:
            frames: N frames; they are not changed.
            mouth: N generated faces.
            faces: The same faces as they are in the frames.
            mask: Of ``make_mask``.
            index: (N,) the frames' stream indices.
            state: Of this face; updated.
            opacity: (N,) in [0,1], times the blend's strength; None: 1.

        Returns:
            The frames with new mouths.
        """
        blend, face, sources, seam = self.blend, mouth.face, mouth.sources, None
        falloff = None
        if blend.kind == "seamless" and sources and all(s.pictures is None for s in sources):
            falloff = self._draw_falloff(faces)
            sources = tuple(source.limit(falloff) for source in sources)
        if faces.pixels is not None and blend.needs_source:
            pixels = faces.pixels.to(face)
            if blend.colour_match:
                face = self._match_tones(face, pixels, mask, index, state)
            if blend.kind in ("pyramid", "poisson", "seamless"):
                crops = [pixels if s.crops is None else s.crops.to(face) for s in sources]
                difference = warp_faces(face, crops, sources) - pixels
                seam = compute_seam_correction(blend.kind, difference, mask.shape)
                if sources and not mouth.whole:
                    seam = seam * ramp_lower_half(seam)
                seam = seam if falloff is None else seam * falloff
        # moved pixels have their own detail, and a pasted face stays as it was generated
        fine = not sources and blend.kind != "paste" and bool(blend.detail or blend.grain)
        return composite(
            frames,
            Patch(face, mask.alpha, faces.crop_to_frame, sources, seam),
            edge=self._edge,
            strength=self._strength(mask, opacity),
            texture=Texture(blend.detail, blend.grain, tuple(index.tolist())) if fine else None,
        )

    def compute_alpha(
        self,
        size: tuple[int, int],
        faces: FaceCrops,
        mask: BlendMask,
        *,
        opacity: Tensor | None = None,
        lower_half: bool = False,
    ) -> Tensor:
        """Compute how much of the new mouths each pixel of frames shows.

        Args:
            size: Height and width of the frames in px.
            faces: N faces.
            mask: Of ``make_mask``.
            opacity: (N,) in [0,1], times the blend's strength; None: 1.
            lower_half: Whether the crops' upper half stays as it is, because the model moves
                pixels of the lower half alone.

        Returns:
            (N,H,W) in [0,1].
        """
        n, _, side, _ = mask.shape.shape
        white = mask.shape.new_ones(n, 3, side, side)
        if lower_half:
            white[:, :, : side // 2] = 0
        black = Frames(mask.shape.new_zeros(n, *size, 3))
        patch = Patch(white, mask.alpha, faces.crop_to_frame)
        strength = self._strength(mask, opacity)
        return composite(black, patch, edge=self._edge, strength=strength).pixels.mean(3)

    @property
    def _edge(self) -> Literal["paste", "feather"]:
        return "paste" if self.blend.kind == "paste" else "feather"

    def _strength(self, mask: BlendMask, opacity: Tensor | None) -> float | Tensor:
        strength = self.blend.strength
        return strength if opacity is None else opacity.to(mask.shape) * strength

    def _feather(self, faces: FaceCrops) -> float | Tensor:
        """Return the soft edge's width as a fraction of the crop's side, one or (N,)."""
        blend = self.blend
        if blend.feather_px is None:
            return blend.feather
        return blend.feather_px / (scale_of(faces.crop_to_frame) * self.size)

    def _draw_outline(
        self, faces: FaceCrops, feather: float | Tensor, inset: float | Tensor = 0.0
    ) -> Tensor:
        """Return (N,1,S,S) masks by the dense landmarks if there are any, else the five points."""
        kind = self.blend.mask
        if faces.dense is None or kind == "box":
            return face_mask(kind, faces.points, self.size, feather=feather, inset=inset)
        return outline_mask(kind, faces.dense, self.size, feather=feather, inset=inset)

    def _draw_falloff(self, faces: FaceCrops) -> Tensor:
        """Return (N,1,S,S) in [0,1]: the share of the movement that is kept."""
        feather = self._feather(faces)
        return self._draw_outline(faces, feather * _FALLOFF_WIDTH, feather * _FALLOFF_START)

    def _match_tones(
        self, face: Tensor, source: Tensor, mask: BlendMask, index: Tensor, state: BlendState
    ) -> Tensor:
        """Return faces with the tones of ``source`` in a ring round the mask, smoothed in time."""
        kind = self.blend.colour_match
        assert kind is not None
        reach = 2 * (self.size // 10) + 1
        rows = F.max_pool2d((mask.shape > 0).to(mask.shape), (reach, 1), 1, (reach // 2, 0))
        near = F.max_pool2d(rows, (1, reach), 1, (0, reach // 2))
        ring = near * (1 - mask.shape)
        if mask.hidden is not None:
            ring = ring * (1 - mask.hidden)
        values, target = to_match_space(face, kind), to_match_space(source, kind)
        both = torch.cat([measure_tones(values, ring), measure_tones(target, ring)], 1)
        has, wants = state.tones.update(both, index).split(12, 1)
        return from_match_space(match_tones(values, has, wants, kind=kind), kind)


def ramp_lower_half(like: Tensor) -> Tensor:
    """Return (S,1) factors: 0 in the upper half of a crop, rising to 1 over a twelfth of its side.

    Args:
        like: (...,S) tensor with the device and the dtype of the result.
    """
    size = like.shape[-1]
    rows = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    return ((rows - size // 2) / (size / 12)).clamp(0, 1)[:, None]


def enclose_mouths(old: Tensor, new: Tensor) -> Tensor:
    """Return landmarks whose outline holds the old and the new mouth and chin, and some neck.

    The soft edge of a mask lies inside its outline: with the chin's own outline, half of the old
    chin would show.

    Args:
        old: (N,102,2) landmarks in the frame.
        new: (N,102,2) landmarks of the generated face.

    Returns:
        (N,102,2) landmarks.
    """
    down = old[:, NOSE_BASE].mean(1) - old[:, IRISES].mean(1)
    down = down / down.norm(dim=1, keepdim=True).clamp_min(1e-6)
    unit = (old[:, IRISES.start] - old[:, IRISES.stop - 1]).norm(dim=1).clamp_min(1e-6)[:, None]
    lower = ((new[:, JAW] - old[:, JAW]) * down[:, None]).sum(2, keepdim=True).clamp_min(0)
    margins = old.new_tensor(_BELOW)[None, :, None]
    out = old.clone()
    out[:, JAW] = old[:, JAW] + (lower + unit[:, None] * margins) * down[:, None]
    return out


def fade_outside_pictures(source: PixelSource) -> Tensor:
    """Compute where pictures of other moments may be seen.

    Args:
        source: Pixels with pictures of their own.

    Returns:
        (N,1,S,S) in [0,1]: 0 if a pixel comes from beyond the border of its picture, and above the
        nose, because eyes look as they do in the frame itself.
    """
    assert source.pictures is not None and source.crop_to_picture is not None
    size, offset = source.offset.shape[-1], source.offset
    maps = source.crop_to_picture.to(offset)
    grid = pixel_grid(size, size, offset)
    places = apply_to_planes(maps, grid + offset)
    sizes = [size_of(picture)[::-1] for picture in source.pictures]
    ends = offset.new_tensor(sizes)[:, :, None, None]
    reach = _PICTURE_EDGE * scale_of(maps)[:, None, None, None]
    inside = torch.minimum(places, ends - places).amin(1, keepdim=True)
    return (inside / reach).clamp(0, 1) * ((grid[1] / size - _EYES_END) / _NOSE_RAMP).clamp(0, 1)
