"""Build face tracks from detections of the caller: drawn boxes, another detector's, or a mesh."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from ..image.boxes import box_iou
from ..image.crop import crop_pictures
from ..image.landmarks import MEDIAPIPE_VERTICES, POINTS
from ..types import Detections, FaceTrack
from . import Detector
from .detector_s3fd import canonical_points
from .gaps import Pictures
from .tracking import SMOOTHING_SECONDS, link_detections

# Vertices of MediaPipe's face mesh (google-ai-edge/mediapipe, face_mesh_connections.py and
# face_geometry/data/ face_model_with_iris.obj): the two corners of either eye, not the iris, which
# the shorter mesh has not and which looks about; the tip of the nose; the outer corners of the
# lips. Of the vertices on the ridge of the nose, 1 lies nearest to our detector's point: 0.54 of
# the way down from the eyes to the mouth, ours 0.56 (4, a little above it: 0.44).
_MESH_POINTS = ((33, 133), (362, 263), (1, 1), (61, 61), (291, 291))
# Of these our own 102 points lack vertex 1, which lies between 4 and 2.
_OUR_POINTS = tuple(
    (MEDIAPIPE_VERTICES.index(a), MEDIAPIPE_VERTICES.index(b))
    for a, b in ((33, 133), (362, 263), (4, 2), (61, 61), (291, 291))
)
_FIVE = {468: _MESH_POINTS, 478: _MESH_POINTS, POINTS: _OUR_POINTS}

# a square so much wider than the box, and its side in px: the face is about 128 px there
_LOOK, _LOOK_SIDE = 2.0, 256


def tracks_from_boxes(
    per_frame: Sequence[Tensor],
    *,
    fps: Fraction,
    points: Sequence[Tensor] | None = None,
    dense: Sequence[Tensor] | None = None,
    frames: int | None = None,
    cuts: Sequence[int] = (),
    smoothing_s: float = SMOOTHING_SECONDS,
    pictures: Pictures | None = None,
) -> list[FaceTrack]:
    """Join the boxes of single frames to tracks.

    Boxes of one person are joined, gaps of up to a second filled and jitter smoothed as in
    ``detect_tracks``, but no box is taken for a false alarm.

    Args:
        per_frame: (F,4) xyxy px for every frame of a clip, (0,4) without a face.
        fps: frame rate of the clip.
        points: (F,5,2) for every frame; None places them at their usual places in the box (see
            ``find_points_in_boxes`` for better).
        dense: (F,K,2) for every frame, landmarks of one layout, which the tracks carry, smoothed.
        frames: number of frames of the clip, to be checked; None checks nothing.
        cuts: frames at which a new scene begins.
        smoothing_s: seconds over which tracks are smoothed.
        pictures: gives single frames, in which gaps are looked at before they are filled; None to
            fill them all.

    Returns:
        One track per person.

    Raises:
        ValueError: If boxes are too few, empty, not finite or of another shape, or points do not
            belong to them.
    """
    if smoothing_s < 0:
        raise ValueError(f"smoothing_s is {smoothing_s}; expected 0 s (none) or more")
    if frames is not None and len(per_frame) != frames:
        raise ValueError(
            f"there are boxes for {len(per_frame)} frames, and the clip has {frames}; expected "
            "boxes for each frame: people move, and boxes of one frame say nothing of the others. "
            "Leave them out to have the faces found"
        )
    if points is not None and len(points) != len(per_frame):
        raise ValueError(
            f"there are points for {len(points)} frames and boxes for {len(per_frame)}; expected "
            "both for all"
        )
    if dense is not None:
        _check_dense(dense, [len(boxes) for boxes in per_frame])
    runs: list[tuple[int, Detections]] = []
    for index, boxes in enumerate(per_frame):
        _check(boxes, f"the boxes of frame {index}")
        boxes = boxes.float().cpu()
        placed = canonical_points(boxes) if points is None else points[index].float().cpu()
        if placed.shape != (len(boxes), 5, 2) or not bool(placed.isfinite().all()):
            raise ValueError(
                f"the points of frame {index} are {tuple(placed.shape)}; expected finite "
                f"({len(boxes)},5,2)"
            )
        landmarks = dense[index].float().cpu() if dense is not None and len(boxes) else None
        runs.append((index, Detections(boxes, placed, torch.ones(len(boxes)), landmarks)))
    second = max(1, round(fps))
    return link_detections(
        runs,
        cuts=cuts,
        max_gap=second,
        smoothing=smoothing_s * float(fps),
        trusted=True,
        pictures=pictures,
    )


def find_points_in_boxes(frame_pixels: Tensor, boxes: Tensor, detector: Detector) -> Tensor:
    """Find the five points of faces whose boxes are known.

    With ``mini``, for 203 faces of 22 clips in boxes 0.7 to 1.6 times as large as its own and up to
    0.15 of them aside, none was lost, and the points were within 1.8 % (95 %: 4.0 %) of the
    distance of the eyes of those that it finds in the whole frame; the usual places, even in its
    own boxes, within 7.3 % (14.4 %). 17 to 20 ms a face on one shared core.

    Args:
        frame_pixels: (H,W,3) uint8 in [0,255] or float in [0,1].
        boxes: (F,4) xyxy px.
        detector: searches a square twice as wide around each box. The face whose middle lies in the
            box counts, of several the one that overlaps it most.

    Returns:
        (F,5,2) points; if no face is found, the usual places (``canonical_points``: the mean places
        of ``mini``'s points in its own boxes, over 897 faces of 21 people in 77 clips and 1179
        portraits, are within 0.017 of a box of these).

    Raises:
        ValueError: If shapes are others.
    """
    if frame_pixels.ndim != 3 or frame_pixels.shape[2] != 3:
        raise ValueError(f"frame is {tuple(frame_pixels.shape)}; expected (H,W,3)")
    _check(boxes, "the boxes")
    boxes = boxes.float().cpu()
    points = canonical_points(boxes)
    if not len(boxes):
        return points
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1) * _LOOK
    corner = (boxes[:, :2] + boxes[:, 2:]) / 2 - side[:, None] / 2
    scale = side / _LOOK_SIDE
    maps = torch.cat([torch.eye(2) * scale[:, None, None], corner[..., None]], 2)
    planar = crop_pictures(
        frame_pixels.expand(len(boxes), -1, -1, -1), maps.to(frame_pixels.device), _LOOK_SIDE
    )
    for i, found in enumerate(detector.detect(planar.permute(0, 2, 3, 1))):
        theirs = found.boxes.cpu() * scale[i] + corner[i].repeat(2)
        middle = (theirs[:, :2] + theirs[:, 2:]) / 2
        inside = ((middle > boxes[i, :2]) & (middle < boxes[i, 2:])).all(1)
        if bool(inside.any()):
            best = int((box_iou(theirs, boxes[i : i + 1])[:, 0] * inside).argmax())
            points[i] = found.points[best].cpu() * scale[i] + corner[i]
    return points


def five_points_from_mesh(landmarks: Tensor) -> Tensor:
    """Compute the detector's five points from a mesh.

    Args:
        landmarks: MediaPipe's face mesh (468,2), or (478,2) with irises, or our dense points
            (102,2), in px.

    Returns:
        (5,2) points.

    Raises:
        ValueError: If the mesh has another number of points.
    """
    if landmarks.ndim != 2 or landmarks.shape[0] not in _FIVE or landmarks.shape[1] != 2:
        raise ValueError(
            f"landmarks are {tuple(landmarks.shape)}; expected MediaPipe's face mesh, (468,2) or "
            f"(478,2), or ours, ({POINTS},2)"
        )
    return landmarks[torch.tensor(_FIVE[len(landmarks)], device=landmarks.device)].mean(1)


def _check_dense(dense: Sequence[Tensor], faces: Sequence[int]) -> None:
    """Dense points (F,K,2) for frames with so many ``faces``, of one layout."""
    if len(dense) != len(faces):
        got = f"there are dense points for {len(dense)} frames and boxes for {len(faces)}"
        raise ValueError(f"{got}; expected both for all")
    kinds = {points.shape[1:] for points, count in zip(dense, faces, strict=True) if count}
    for index, (points, count) in enumerate(zip(dense, faces, strict=True)):
        fits = (
            points.ndim == 3
            and points.shape[2] == 2
            and len(kinds) == 1
            and bool(points.isfinite().all())
        )
        if len(points) != count or (count and not fits):
            got = f"the dense points of frame {index} are {tuple(points.shape)}"
            raise ValueError(f"{got}; expected finite ({count},K,2), with one K for all frames")


def _check(boxes: Tensor, name: str) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"{name} are {tuple(boxes.shape)}; expected (F,4): left, top, right, bottom in px"
        )
    if not bool((boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)).all()):
        raise ValueError(
            f"{name} are {boxes.tolist()}; expected left < right and top < bottom, in px"
        )
