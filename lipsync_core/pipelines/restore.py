"""Face restoration, the last stage of a dub: faces are cut out as the restoration networks know them, restored and put
back. Tensors in, tensors out; ``restorers`` opens the files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from ..blend.blender import Blend, Faces, Moment, Past, blended, covered, shaped
from ..geometry import FFHQ, Framing, apply, compose, crop_to_frame, cut_frames, invert, sample, scale_of, unit_maps
from ..types import AnyFrames, FaceTrack, Frames, References, YuvFrames
from .roles import Portraits, at, present

_COMPARED, _EDGE = 96, 0.08  # px of the crops, and the soft edge in them, in which is seen what lies before a face
SIZE = 512  # px of a restored face: what GFPGAN, RestoreFormer and CodeFormer draw
# The mouth alone, unless asked; on a face the soft edge is as wide as a dub's (0.08 of a crop of 2.4 eye distances, this one
# being of 4.07). Its detail is what it was restored for.
MOUTH = Blend(feather=0.047, detail=0, grain=0)


@dataclass(frozen=True, slots=True, eq=False)
class Restorer:
    """A face restoration network, and how it is put back: ``network`` maps faces (N,3,512,512), RGB in [0,1], cut out as
    ``FFHQ`` says, to the same faces restored, on ``device``; ``blend``: under which mask, and how much of them is seen.
    ``name`` and ``licence`` are for reports. ``bfloat16``: convolutions run in that."""

    network: Callable[[Tensor], Tensor]
    name: str
    licence: str
    blend: Blend = MOUTH
    device: torch.device = torch.device("cpu")
    bfloat16: bool = False

    @torch.inference_mode()
    def __call__(self, faces: Tensor) -> Tensor:
        """(N,3,512,512) float32 where ``faces`` lie; nothing says that it stays within [0,1]. ValueError for a network that
        gives another shape."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            made = self.network(faces.to(self.device))
        if made.shape != faces.shape:
            raise ValueError(f"{self.name} made {tuple(made.shape)} of {tuple(faces.shape)}; wanted the same shape")
        return made.to(faces.device, torch.float32)


@torch.inference_mode()
def restored(
    frames: Iterable[AnyFrames],
    tracks: Sequence[FaceTrack],
    *,
    restorer: Restorer,
    shown: Sequence[Tensor | None] = (),
    clear: Sequence[References | None] = (),
    fps: Fraction = Fraction(25),
) -> Iterator[AnyFrames]:
    """``frames`` with the faces of ``tracks`` restored as ``restorer.blend`` says; frames in which no track is visible
    come back as they are. The stream does not depend on how the frames are cut into chunks.

    shown: for each track (T,) in [0,1], as in ``Role``, or None for all of it; empty: None for each. A mouth that is not
    shown is not restored. clear: for each track what ``Role.clear`` is, for a blend whose occlusion is ``compare``. fps: of
    the frames, for what is eased over time. Every chunk is one batch; the faces travel to the restorer's device.
    """
    if shown and len(shown) != len(tracks):
        raise ValueError(
            f"shown has {len(shown)} entries for {len(tracks)} tracks; wanted one for each, or none at all"
        )
    pasts = [_past(look) for look in clear or [None] * len(tracks)]
    for chunk in frames:
        for i, (track, share) in enumerate(zip(tracks, shown or [None] * len(tracks), strict=True)):
            chunk, pasts[i] = _restored(chunk, track, restorer, share, fps, pasts[i])
        yield chunk


def enlargement(track: FaceTrack) -> float:
    """Frame pixels to one of a restored face, where the largest face of ``track`` is seen: above 1 a face has more pixels
    than the network draws, and loses sharpness. 0 where nobody is seen."""
    seen = track.visible
    if not seen.any():
        return 0.0
    return float(scale_of(crop_to_frame(track.boxes[seen].float(), track.points[seen].float(), FFHQ, SIZE)).amax())


def _past(look: References | None) -> Past:
    clear = Portraits.of(look, Framing(), _COMPARED)
    return Past() if clear is None else Past(clear=clear.crop(0))


def _hidden(
    frames: Frames | YuvFrames, points: Tensor, matrices: Tensor, blend: Blend, moment: Moment
) -> tuple[Tensor, Moment]:
    """(N,1,SIZE,SIZE) how much lies before the faces, compared as a dub cuts them, in crops that ``matrices`` place."""
    n = len(points)
    maps = crop_to_frame(points.new_zeros(n, 4), points, Framing(), _COMPARED)
    near = Faces(maps, apply(invert(maps), points), pixels=cut_frames(frames, maps, _COMPARED))
    hidden, moment = covered(near, replace(blend, feather=_EDGE), _COMPARED, moment)
    assert hidden is not None
    squares = unit_maps(compose(invert(maps), matrices), [(_COMPARED, _COMPARED)] * n, [(SIZE, SIZE)] * n)
    return sample(hidden, squares, (SIZE, SIZE)), moment


def _restored(
    frames: AnyFrames, track: FaceTrack, restorer: Restorer, shown: Tensor | None, fps: Fraction, past: Past
) -> tuple[AnyFrames, Past]:
    here, index = present(frames, track)
    stream = torch.arange(len(here)) + frames.start
    share = at(shown, stream)
    if share is not None:
        here = here & (share > 0)
        share = share[here]
    if not here.any() or not restorer.blend.strength:
        return frames, past
    whole = bool(here.all())
    chosen = frames if whole else replace(frames, pixels=frames.pixels[here])
    boxes, points = (x[index[here]].float().to(frames.pixels.device) for x in (track.boxes, track.points))
    matrices = crop_to_frame(boxes, points, FFHQ, SIZE)
    seen = cut_frames(chosen, matrices, SIZE)
    faces = Faces(matrices, apply(invert(matrices), points), pixels=seen)
    blend, moment = replace(restorer.blend, occlusion="ignore"), Moment(stream[here], fps, past)
    faces, mask, moment = shaped(faces, blend, SIZE, moment)
    if restorer.blend.occlusion == "compare":
        hidden, moment = _hidden(chosen, points, matrices, restorer.blend, moment)
        faces = replace(faces, hidden=hidden)
    out, moment = blended(chosen, restorer(seen), faces, blend, mask, moment, shown=share)
    if whole:
        return out, moment.over()
    pixels = frames.pixels.clone()
    pixels[here] = out.pixels
    return replace(frames, pixels=pixels), moment.over()
