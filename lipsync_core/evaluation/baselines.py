"""Baselines that any method must beat: the clip's own mouth, at the wrong time or frozen."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path

from ..blend.composite import Patch, composite
from ..blend.masks import face_mask
from ..image.affine import Framing, apply, crop_to_frame, invert, scale_of
from ..image.crop import crop_pictures
from ..media import read_frames
from ..types import FaceTrack, Frames

# pixels of the copy for each of the frame: moved twice between pixels, it would be blurred by half
_DETAIL = 2
_CROP_PX = (64, 512)
_FRAMING = Framing()


def copy_mouth(path: Path, fps: Fraction, person: FaceTrack, count: int) -> Iterator[Frames]:
    """Yield the first frames of a video, each with the mouth of another moment.

    Frame i gets the mouth of frame i + count/2 (counted on from the first frame past the end),
    placed and blended like a generated one. These are real pixels that do not depend on the audio:
    they show the loss of quality by the blend alone, and the sync that chance gives.

    Args:
        path: The video.
        fps: Rate at which to read it.
        person: The face, from frame 0. A frame that does not show it, or whose partner does not,
            stays unchanged.
        count: Number of frames.

    Yields:
        The frames.
    """
    half = count // 2
    own, later, earlier = (
        read_frames(path, chunk=1, fps=fps, start=start, stop=stop)
        for start, stop in ((0, count), (half, count), (0, half))
    )
    for i, (frame, partner) in enumerate(zip(own, chain(later, earlier), strict=True)):
        yield _copy_chunk(frame, partner, person, i, (i + half) % count)


def freeze_mouth(path: Path, fps: Fraction, person: FaceTrack, count: int) -> Iterator[Frames]:
    """Yield the first frames of a video, each with the mouth of the middle frame with the face.

    Args:
        path: The video.
        fps: Rate at which to read it.
        person: The face, from frame 0; frames that do not show it stay unchanged.
        count: Number of frames.

    Yields:
        The frames.
    """
    own = read_frames(path, chunk=1, fps=fps, stop=count)
    shown = person.visible[:count].nonzero()[:, 0].tolist()
    if not shown:
        yield from own
        return
    kept = shown[len(shown) // 2]
    (partner,) = read_frames(path, chunk=1, fps=fps, start=kept, stop=kept + 1)
    for i, (frame, still) in enumerate(zip(own, repeat(partner))):
        yield _copy_chunk(frame, still, person, i, kept)


def _copy_chunk(frame: Frames, partner: Frames, person: FaceTrack, here: int, there: int) -> Frames:
    if not (person.visible[here] and person.visible[there]):
        return frame
    boxes, points = person.boxes[[here, there]].float(), person.points[[here, there]].float()
    side = _DETAIL * float(scale_of(crop_to_frame(boxes, points, _FRAMING, 1))[0])
    size = min(max(round(side), _CROP_PX[0]), _CROP_PX[1])
    maps = crop_to_frame(boxes, points, _FRAMING, size)
    mouth = crop_pictures(partner.pixels, maps[1:], size)
    mask = face_mask("mouth", apply(invert(maps[:1]), points[:1]), size)
    return composite(frame, Patch(mouth, mask, maps[:1]))
