"""Landmarks by InsightFace's 106-point network in an ONNX file that the user has."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import WeightsError
from ..image.affine import apply
from ..image.crop import crop_pictures
from ..types import FaceTrack, Frames
from .landmarks import smooth_dense
from .visible import iterate_visible

_SIZE = 192  # px of the network's input
_POINTS = 106
# in the 106-point layout: corners 52 and 61, outer and inner contours between
_LIPS = slice(52, 72)
_MARGIN = 1.5  # the crop's side, in longer sides of the detector's box


class LandmarkModel:
    """Find lips with InsightFace's 106-point network ``2d106det.onnx``, run by OpenCV.

    The file comes with its model packs (buffalo_l and others; non-commercial use). The contract,
    checked when the file is opened: one input (1,3,192,192) float RGB in [0,255], an upright square
    around the center of the face's box with 1.5 times its longer side; one output of 212 numbers,
    (x, y) of 106 points in [-1,1] over that square.

    Args:
        path: the file.

    Raises:
        WeightsError: If the file is missing, no ONNX, or of other sizes.
        ImportError: If OpenCV is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import cv2
        except ImportError as error:
            raise ImportError(
                "landmarks need OpenCV: pip install opencv-python-headless"
            ) from error
        if not path.is_file():
            raise WeightsError(f"no file {path}; expected InsightFace's 2d106det.onnx")
        self.path = path
        try:
            # read here, not there: OpenCV opens no path beyond the ASCII ones on Windows
            self._net = cv2.dnn.readNetFromONNX(bytearray(path.read_bytes()))  # pyright: ignore[reportArgumentType, reportCallIssue]
            count = self._forward(torch.zeros(1, 3, _SIZE, _SIZE)).numel()
        except cv2.error as error:
            reason = str(error).strip().partition("\n")[0]
            raise WeightsError(
                f"OpenCV cannot run {path} on a 192x192 px picture ({reason}); expected "
                "InsightFace's 2d106det.onnx"
            ) from error
        if count != 2 * _POINTS:
            raise WeightsError(
                f"{path} gives {count} numbers for a face; expected 212: InsightFace's "
                "2d106det.onnx"
            )

    def lips(self, frames: Frames, track: FaceTrack) -> Iterator[tuple[int, Tensor]]:
        """Yield (clip index, lips (20,2) in frame px) of each frame that shows the face."""
        for index, points in self.points(frames, track):
            yield index, points[_LIPS]

    def points(self, frames: Frames, track: FaceTrack) -> Iterator[tuple[int, Tensor]]:
        """Yield (clip index, all points (106,2) in frame px) of each frame that shows the face."""
        for index, pixels, box, _ in iterate_visible(frames, track):
            square = _square(box[None])
            crop = crop_pictures(pixels[None].cpu(), square, _SIZE) * 255
            points = (self._forward(crop).view(1, _POINTS, 2) + 1) * (_SIZE / 2)
            yield index, apply(square, points)[0]

    def _forward(self, crop: Tensor) -> Tensor:
        self._net.setInput(crop.numpy())
        return torch.from_numpy(self._net.forward()).float()


def with_landmarks(
    tracks: Sequence[FaceTrack],
    frames: Iterable[Frames],
    model: LandmarkModel,
    *,
    smoothing: float = 0.0,
) -> list[FaceTrack]:
    """Add the dense points of a landmark model to tracks.

    Args:
        tracks: faces, each of one scene.
        frames: all frames of the clip in order.
        model: finds the points.
        smoothing: standard deviation of the smoother in frames, 0 for none.

    Returns:
        The tracks with ``dense`` (N,106,2).
    """
    dense = [torch.zeros(len(track.visible), _POINTS, 2) for track in tracks]
    for chunk in frames:
        for track, found in zip(tracks, dense, strict=True):
            for index, points in model.points(chunk, track):
                found[index - track.start] = points
    for track, found in zip(tracks, dense, strict=True):
        found[:] = smooth_dense(found, track.visible, smoothing)
    return [replace(track, dense=found) for track, found in zip(tracks, dense, strict=True)]


def _square(boxes: Tensor) -> Tensor:
    """(N,2,3) ``crop_to_frame`` maps of the network's upright squares around boxes (N,4)."""
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    scale = sides.amax(1).clamp_min(1) * (_MARGIN / _SIZE)
    linear = torch.eye(2) * scale[:, None, None]
    return torch.cat([linear, (centre - scale[:, None] * (_SIZE / 2))[..., None]], -1)
