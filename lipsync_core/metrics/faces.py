"""Which frames show the face that is measured."""

from collections.abc import Iterator

from torch import Tensor

from ..types import FaceTrack, Frames


def visible(frames: Frames, track: FaceTrack) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """(clip index, pixels (H,W,3), box (4,), points (5,2)) of each frame that shows the face; box and points float32 on
    the CPU."""
    for i, pixels in enumerate(frames.pixels):
        index = frames.start + i - track.start
        if 0 <= index < len(track.visible) and bool(track.visible[index]):
            yield frames.start + i, pixels, track.boxes[index].cpu().float(), track.points[index].cpu().float()
