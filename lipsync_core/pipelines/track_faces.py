"""What every command that looks for faces chooses: a detector, landmarks, a parser, and a device."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..faces import Detector
from ..faces.detector_mini import MiniDetector
from ..faces.detector_s3fd import S3FDDetector
from ..faces.detector_yunet import YuNetDetector
from ..faces.external import points_in_boxes, tracks_from_boxes
from ..faces.landmark_model import LandmarkModel, with_landmarks
from ..faces.landmarks import VERSION, LandmarkFinder, with_dense
from ..faces.parser import FaceParser
from ..faces.shot_boundaries import scene_cuts
from ..faces.tracking import SMOOTHING_SECONDS, detect_tracks, window
from ..media.clip import DETECT_SIDE, Clip
from ..models.face_detector import FaceDetector
from ..models.face_landmarks import FaceLandmarks
from ..models.face_parsing import FaceParsing
from ..models.hub import file_sha256
from ..models.precision import Precision
from ..models.s3fd import S3FD
from ..models.weights import load_model, weights_file
from ..runtime.options import Option
from ..runtime.prefetch import ahead
from ..types import FaceTrack, Frames
from .track_cache import derived_key, load_tracks, store_tracks, track_key

DetectorName = Literal["mini", "yunet", "s3fd"]

_AT_ONCE = 8  # frames
_DETECTOR_WEIGHTS = {"mini": "face_detector", "yunet": "yunet", "s3fd": "s3fd"}


SearchCallback = Callable[[int], None]
"""Hears how many frames were searched."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How closely faces are followed: the detector looks at ``every``-th frame, and tracks are
    smoothed over ``smoothing`` seconds (0: not at all). See ``detect_tracks``."""

    every: int = 5
    smoothing: float = SMOOTHING_SECONDS


@dataclass(frozen=True, slots=True)
class Finding:
    """How faces are found: which detector, its least score in (0,1), whether tracks are kept and
    reused, how closely they are followed, and how large a face is at least, mostly, in px of its
    longer side. ``dense``: whether tracks carry dense landmarks, so that masks follow each face's
    own outline; the bundled network finds them, or, where its file is given as ``landmarks``,
    InsightFace's 2d106det.onnx."""

    detector: Annotated[DetectorName, Option("Face detector.", panel="Faces")] = "mini"
    min_score: Annotated[
        float,
        Option(
            "Least confidence of a detected face: lower finds more faces, and more false ones.",
            minimum=0.01,
            maximum=0.99,
            step=0.01,
            panel="Faces",
        ),
    ] = 0.7
    cache: Annotated[bool, Option("Store and reuse the faces found.", panel="Faces")] = True
    pace: Pace = Pace()
    min_size: int = 0
    landmarks: Annotated[
        Path | None,
        Option(
            "InsightFace's 2d106det.onnx, to use its face outlines for masks.",
            panel="Faces",
        ),
    ] = None
    dense: bool = True


def find_people(
    clip: Clip,
    finding: Finding,
    device: torch.device,
    *,
    stop: int,
    on_found: SearchCallback | None = None,
) -> tuple[list[FaceTrack], int]:
    """The people in the first ``stop`` frames of ``clip``, and how many of those frames there
    are. on_found hears how many frames were searched."""
    detector, key = load_detector(finding, device)
    ours, pace = (
        load_landmarks(device) if finding.dense and finding.landmarks is None else None,
        finding.pace,
    )
    people, count = track_faces(
        clip, detector, stop=stop, detector_key=key, pace=pace, landmarks=ours, on_found=on_found
    )
    people = [person for person in people if _usual_side(person) >= finding.min_size]
    if finding.landmarks is None or not finding.dense:
        return people, count
    model, smoothing = LandmarkModel(finding.landmarks), finding.pace.smoothing * float(clip.fps)
    return with_landmarks(people, _whole(clip, count), model, smoothing=smoothing), count


def _whole(clip: Clip, count: int) -> Iterator[Frames]:
    """The first ``count`` frames of ``clip`` as RGB, a few at a time."""
    for piece in clip.rgb(chunk=_AT_ONCE):
        yield piece
        if piece.start + len(piece.pixels) >= count:
            return


def _usual_side(person: FaceTrack) -> float:
    """px of a face's longer side, mostly."""
    boxes = person.boxes[person.visible]
    return float((boxes[:, 2:] - boxes[:, :2]).amax(1).median())


def track_faces(
    clip: Clip,
    detector: Detector,
    *,
    stop: int = sys.maxsize,
    detector_key: tuple[str, str] | None = None,
    pace: Pace = Pace(),
    landmarks: LandmarkFinder | None = None,
    on_found: SearchCallback | None = None,
) -> tuple[list[FaceTrack], int]:
    """Track the faces of a clip.

    Args:
        clip: a video file, or pictures in memory.
        detector: finds the faces of single frames.
        stop: how many frames are searched at most, from the first on.
        detector_key: name and weight hash under which the tracks of a file are cached; None
            searches again and caches nothing.
        pace: how closely faces are followed.
        landmarks: finds dense points, which the tracks then carry; the frames are read a second
            time.
        on_found: called with the number of frames searched so far.

    Returns:
        One track per face, and the number of frames searched.
    """
    key = _cache_key(clip, stop, detector_key, pace)
    marked = (
        None
        if key is None or landmarks is None
        else derived_key(key, dense=landmarks.version, by=VERSION)
    )
    if marked is not None and (known := load_tracks(marked)) is not None:
        return known
    people, count = _track_without_dense(clip, detector, stop, key, pace, on_found)
    if landmarks is not None:
        people = add_landmarks(clip, people, count, landmarks, pace=pace, on_found=on_found)
    if marked is not None:
        store_tracks(marked, people, count)
    return people, count


def _cache_key(
    clip: Clip, stop: int, detector_key: tuple[str, str] | None, pace: Pace
) -> str | None:
    if detector_key is None or clip.path is None:
        return None
    settings = {
        "fps": str(clip.fps),
        "first": clip.first,
        "stop": stop,
        "every": pace.every,
        "side": DETECT_SIDE,
        **({} if pace.smoothing == SMOOTHING_SECONDS else {"smoothing": pace.smoothing}),
    }
    return track_key(
        clip.path, detector=detector_key[0], weights_sha256=detector_key[1], settings=settings
    )


def _track_without_dense(
    clip: Clip,
    detector: Detector,
    stop: int,
    key: str | None,
    pace: Pace,
    on_found: SearchCallback | None,
) -> tuple[list[FaceTrack], int]:
    """The faces without dense points, from the cache under ``key`` or searched for."""
    if key is not None and (known := load_tracks(key)) is not None:
        return known
    count = 0

    def counted() -> Iterator[Frames]:
        nonlocal count
        with closing(ahead(clip.reduced(stop))) as pieces:
            for piece in pieces:
                count = piece.start + piece.pixels.shape[0]
                yield piece
                if on_found is not None:
                    on_found(count)

    found = detect_tracks(
        counted(),
        detector,
        scale=clip.scale,
        every=pace.every,
        fps=clip.fps,
        smoothing=pace.smoothing,
    )
    if key is not None:
        store_tracks(key, found, count)
    return found, count


def add_landmarks(
    clip: Clip,
    people: Sequence[FaceTrack],
    count: int,
    landmarks: LandmarkFinder,
    *,
    pace: Pace = Pace(),
    on_found: SearchCallback | None = None,
) -> list[FaceTrack]:
    """Look for the dense landmarks of ``people`` in the first ``count`` frames of ``clip``,
    reduced as for the detector.

    Args:
        clip: where they are.
        people: their tracks, in its px.
        count: how many frames are read, once more.
        landmarks: the network.
        pace: how long the landmarks are smoothed.
        on_found: hears ``count`` again at times, so that who waits can stop it.

    Returns:
        The tracks as ``with_dense`` gives them.
    """
    if not people:
        return list(people)

    def heard() -> Iterator[Frames]:
        with closing(ahead(clip.reduced(count))) as pieces:
            for piece in pieces:
                yield piece
                if on_found is not None:
                    on_found(count)

    smoothing = pace.smoothing * float(clip.fps)
    return with_dense(people, heard(), landmarks, scale=clip.scale, smoothing=smoothing)


def reorder_track(person: FaceTrack, length: int, index: Tensor) -> FaceTrack:
    """The track of output frames that show the source frames ``index``."""
    whole = window(person, 0, length)
    dense = None if whole.dense is None else whole.dense[index]
    scores = None if whole.dense_scores is None else whole.dense_scores[index]
    return FaceTrack(
        whole.boxes[index],
        whole.points[index],
        whole.visible[index],
        dense=dense,
        dense_scores=scores,
    )


def load_detector(
    finding: Finding, device: torch.device
) -> tuple[Detector, tuple[str, str] | None]:
    """The detector, and what its tracks are kept under: its name with its score, and the hash of
    its weights."""
    path = weights_file(_DETECTOR_WEIGHTS[finding.detector])
    score = finding.min_score
    key = (f"{finding.detector} {score}", file_sha256(path)) if finding.cache else None
    if finding.detector == "yunet":
        return YuNetDetector(path, min_score=score), key
    network = load_model(path, device=device)
    if isinstance(network, FaceDetector):
        return MiniDetector(network, min_score=score), key
    assert isinstance(network, S3FD)
    return S3FDDetector(network, min_score=score), key


def load_landmarks(device: torch.device) -> LandmarkFinder:
    """The bundled landmark network on ``device``."""
    path = weights_file("face_landmarks")
    network = load_model(path, kind="face_landmarks", device=device)
    assert isinstance(network, FaceLandmarks)
    return LandmarkFinder(network, version=file_sha256(path))


def load_parser(device: torch.device, precision: Precision = "auto") -> FaceParser:
    """The public face parser, pulled before. Raises WeightsError, which says how."""
    network = load_model("face_parsing", kind="face_parsing", device=device)
    assert isinstance(network, FaceParsing)
    return FaceParser(network, precision=precision)


def select_device(name: str) -> torch.device:
    """``auto`` (CUDA, else MPS, else the CPU) or a device of torch; ValueError where it cannot be
    used."""
    if name == "auto":
        name = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} cannot be used here ({error}); wanted auto, cpu, cuda or mps"
        ) from error


def track_boxes(
    clip: Clip,
    boxes: Sequence[Tensor],
    detector: Detector | None,
    *,
    points: Sequence[Tensor] | None = None,
    dense: Sequence[Tensor] | None = None,
    smoothing: float = SMOOTHING_SECONDS,
    on_found: SearchCallback | None = None,
) -> tuple[list[FaceTrack], int]:
    """The people whose ``boxes`` (F,4) and ``points`` (F,5,2), px, of every frame are known, and
    the number of frames; those of one frame alone hold for all. Without points ``detector`` looks
    for them in the boxes (None: they are where they usually are). dense (F,K,2): landmarks that the
    tracks carry along. smoothing: in seconds.

    ValueError when they are of another number of frames, and what ``tracks_from_boxes`` says.
    """
    looked, cuts, state, count = list[Tensor](), list[Tensor](), None, 0
    known = repeat(boxes[0]) if len(boxes) == 1 else iter(boxes)
    stretch = torch.tensor(clip.scale)
    for piece in clip.reduced(sys.maxsize):
        begins, state = scene_cuts(piece.pixels, state)
        cuts.append(begins)
        if points is None and detector is not None:
            # too few boxes: refused below
            for picture, here in zip(piece.pixels, known, strict=False):
                looked.append(
                    points_in_boxes(picture, here / stretch.repeat(2), detector) * stretch
                )
        count = piece.start + len(piece.pixels)
        if on_found is not None:
            on_found(count)
    tracks = tracks_from_boxes(
        _for_all(boxes, count),
        fps=clip.fps,
        points=looked or None if points is None else _for_all(points, count),
        dense=None if dense is None else _for_all(dense, count),
        frames=count,
        cuts=torch.cat(cuts).nonzero()[:, 0].tolist(),
        smoothing_s=smoothing,
    )
    return tracks, count


def _for_all(values: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    """Those of one frame alone for each of ``count``."""
    return [values[0]] * count if len(values) == 1 else values
