"""Select the frames that show the measured face, and its place in them."""

from collections.abc import Iterator

from torch import Tensor

from ..image.affine import clip_box
from ..types import FaceTrack, Frames


def iterate_visible(
    frames: Frames, track: FaceTrack
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Iterate over the frames that show the face.

    Args:
        frames: Some frames of the clip.
        track: The face's track.

    Yields:
        Clip index, pixels (H,W,3), box (4,) and points (5,2); box and points float32 on the CPU.
    """
    for i, pixels in enumerate(frames.pixels):
        index = frames.start + i - track.start
        if 0 <= index < len(track.visible) and bool(track.visible[index]):
            yield (
                frames.start + i,
                pixels,
                track.boxes[index].cpu().float(),
                track.points[index].cpu().float(),
            )


def crop_box(pixels: Tensor, box: Tensor) -> Tensor:
    """Cut a box (4,), rounded to whole px and clipped to the frame, out of pixels (H,W,3)."""
    height, width, _ = pixels.shape
    left, top, right, bottom = (round(float(v)) for v in box)
    x0, y0, x1, y1 = clip_box((left, top, right, bottom), width, height)
    return pixels[y0:y1, x0:x1]
