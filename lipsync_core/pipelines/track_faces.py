"""Track the faces of a clip: options, models, tracking with a cache, given boxes."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import repeat

import torch
from torch import Tensor

from ..faces import Detector
from ..faces.detector_mini import MiniDetector
from ..faces.detector_s3fd import S3FDDetector
from ..faces.detector_yunet import YuNetDetector
from ..faces.extension import extend_tracks
from ..faces.external import find_points_in_boxes, tracks_from_boxes
from ..faces.landmark_model import LandmarkModel, with_landmarks
from ..faces.landmarks import VERSION, LandmarkFinder, add_dense_points
from ..faces.overlays import VERSION as OVERLAYS
from ..faces.overlays import OverlaySearch
from ..faces.parser import FaceParser
from ..faces.shot_boundaries import find_cuts
from ..faces.tracking import SMOOTHING_SECONDS, detect_tracks, track_window
from ..media.clip import DETECT_SIDE, Clip, VideoClip
from ..models.face_detector import FaceDetector
from ..models.face_landmarks import FaceLandmarks
from ..models.face_parsing import FaceParsing
from ..models.hub import file_sha256
from ..models.precision import Precision
from ..models.s3fd import S3FD
from ..models.weights import load_model, weights_file
from ..options import Finding, Pace
from ..runtime.prefetch import prefetch
from ..types import FaceTrack, Frames
from .track_cache import derived_key, has_tracks, load_tracks, store_tracks, track_key

_AT_ONCE = 8  # frames
_SETTLED_SECONDS = 1
_DETECTOR_WEIGHTS = {"mini": "face_detector", "yunet": "yunet", "s3fd": "s3fd"}


SearchCallback = Callable[[int], None]
"""Called with the number of frames searched so far."""


def find_people(
    clip: Clip,
    finding: Finding,
    device: torch.device,
    *,
    stop: int,
    on_found: SearchCallback | None = None,
) -> tuple[list[FaceTrack], int]:
    """Find and track the people of a clip.

    Args:
        clip: The source pictures.
        finding: How faces are found.
        device: Where detector and landmarks run.
        stop: Number of frames searched at most, from the first on.
        on_found: Called with the number of frames searched so far.

    Returns:
        One track per person and scene, and the number of frames searched.

    Raises:
        WeightsError: Weights are missing or damaged.
        MediaError: The clip cannot be read.
    """
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
    """Median of the longer side of a person's boxes, in px."""
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
        clip: The source pictures.
        detector: Finds the faces of single frames.
        stop: Number of frames searched at most, from the first on.
        detector_key: Name and weight hash under which the tracks of a file are cached; None
            searches again and caches nothing.
        pace: How closely faces are followed.
        landmarks: Finds dense points, which the tracks then carry; the frames are read a second
            time.
        on_found: Called with the number of frames searched so far.

    Returns:
        One track per face, and the number of frames searched.
    """
    stop = clip.clamp(stop)  # what is stored may be of a longer cut
    key = _cache_key(clip, detector_key, pace)
    marked = (
        None
        if key is None or landmarks is None
        else derived_key(key, dense=landmarks.version, by=VERSION, overlays=OVERLAYS)
    )
    if marked is not None and (known := load_tracks(marked, stop)) is not None:
        return _with_aspect(clip, known[0]), known[1]
    final = key if landmarks is None else marked
    begin, old = _find_resumption(clip, final, stop, pace)
    if final is not None and old is not None and isinstance(clip, VideoClip):
        rest, count = track_faces(
            replace(clip, first=clip.first + begin),
            detector,
            stop=stop - begin,
            pace=pace,
            landmarks=landmarks,
            on_found=None if on_found is None else lambda done: on_found(begin + done),
        )
        rest = [replace(t, start=t.start + begin, scene=t.scene + begin) for t in rest]
        people = extend_tracks(old, rest, begin, begin + _settled(clip))
        count += begin
        store_tracks(final, people, count, ended=count < stop)
        return _with_aspect(clip, people), count
    people, count = _track_without_dense(clip, detector, stop, key, pace, on_found)
    if landmarks is not None:
        people = add_landmarks(clip, people, count, landmarks, pace=pace, on_found=on_found)
    if marked is not None:
        store_tracks(marked, people, count, ended=count < stop)
    return _with_aspect(clip, people), count


def _settled(clip: Clip) -> int:
    """Frames after the beginning of a search from which on its tracks are as if begun before."""
    return round(_SETTLED_SECONDS * clip.fps)


def _find_resumption(
    clip: Clip, key: str | None, stop: int, pace: Pace
) -> tuple[int, list[FaceTrack] | None]:
    """From which frame on a stored search of fewer frames is continued, and its tracks if any."""
    stored = None if key is None or not has_tracks(key) else load_tracks(key)
    if stored is None or stored[1] >= stop:
        return 0, None
    scene = max((track.scene for track in stored[0]), default=0)
    # the detector runs on the frames on which it would without the interruption
    begin = scene + max(stored[1] - 2 * _settled(clip) - scene, 0) // pace.every * pace.every
    worthwhile = 2 * begin >= stored[1]  # else little is saved
    return (begin, stored[0]) if worthwhile else (0, None)


def _with_aspect(clip: Clip, people: Sequence[FaceTrack]) -> list[FaceTrack]:
    """``people`` with the shape of the clip's pixels."""
    aspect = float(clip.pixel_aspect)
    return [replace(person, pixel_aspect=aspect) for person in people]


def _cache_key(clip: Clip, detector_key: tuple[str, str] | None, pace: Pace) -> str | None:
    """The key of all searches of ``clip``, however many frames they cover."""
    if detector_key is None or clip.path is None:
        return None
    settings = {
        "fps": str(clip.fps),
        "first": clip.first,
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
    if key is not None and (known := load_tracks(key, stop)) is not None:
        return known
    count = 0

    def counted() -> Iterator[Frames]:
        nonlocal count
        with closing(prefetch(clip.reduced(stop))) as pieces:
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
        pictures=clip.pick,
    )
    if key is not None:
        store_tracks(key, found, count, ended=count < stop)
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
    """Find dense landmarks of tracked people, and what lies still over their faces.

    Both in frames reduced as for the detector.

    Args:
        clip: The source pictures.
        people: Their tracks, in px of the clip.
        count: Number of frames, which are read once more.
        landmarks: The network.
        pace: How long the landmarks are smoothed.
        on_found: Called with ``count`` at times, so that the caller can stop the search.

    Returns:
        The tracks as ``add_dense_points`` gives them, with their overlays.
    """
    if not people:
        return list(people)

    def watched() -> Iterator[Frames]:
        with closing(prefetch(clip.reduced(count))) as pieces:
            for piece in pieces:
                yield piece
                if on_found is not None:
                    on_found(count)

    smoothing = pace.smoothing * float(clip.fps)
    search = OverlaySearch(people, clip.scale, float(clip.fps))
    frames = watched() if clip.still else search.watch(watched())
    found = add_dense_points(people, frames, landmarks, scale=clip.scale, smoothing=smoothing)
    return search.finish(found)


def reorder_track(person: FaceTrack, length: int, index: Tensor) -> FaceTrack:
    """Convert a track from frames of a clip to frames of an output.

    Args:
        person: The track, in frames of the clip.
        length: Number of the clip's frames that were searched.
        index: (T,) number of the clip's frame that each output frame shows.

    Returns:
        The track of T output frames, from frame 0.
    """
    whole = track_window(person, 0, length)
    dense = None if whole.dense is None else whole.dense[index]
    scores = None if whole.dense_scores is None else whole.dense_scores[index]
    overlays = whole.overlays
    return FaceTrack(
        whole.boxes[index],
        whole.points[index],
        whole.visible[index],
        dense=dense,
        dense_scores=scores,
        overlays=None if overlays is None else replace(overlays, index=overlays.index[index]),
        pixel_aspect=person.pixel_aspect,
    )


def load_detector(
    finding: Finding, device: torch.device
) -> tuple[Detector, tuple[str, str] | None]:
    """Load the detector that ``finding`` names.

    Args:
        finding: How faces are found.
        device: Where it runs; YuNet runs on the CPU.

    Returns:
        The detector, and the key under which its tracks are cached, None without a cache: its name
        with its score, and the hash of its weights.

    Raises:
        WeightsError: Its weights are missing or damaged.
    """
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
    """Load the bundled landmark network onto ``device``."""
    path = weights_file("face_landmarks")
    network = load_model(path, kind="face_landmarks", device=device)
    assert isinstance(network, FaceLandmarks)
    return LandmarkFinder(network, version=file_sha256(path))


def load_parser(device: torch.device, precision: Precision = "auto") -> FaceParser:
    """Load the public face parser.

    Args:
        device: Where it runs.
        precision: Its precision; see ``arithmetic``.

    Raises:
        WeightsError: It was not pulled before; the message says how.
    """
    network = load_model("face_parsing", kind="face_parsing", device=device)
    assert isinstance(network, FaceParsing)
    return FaceParser(network, precision=precision)


def select_device(name: str) -> torch.device:
    """Select a device by its name.

    Args:
        name: ``auto`` (CUDA, else MPS, else the CPU), or a device of torch.

    Raises:
        ValueError: The device cannot be used on this machine.
    """
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
            f"device {name!r} cannot be used here ({error}); expected auto, cpu, cuda or mps"
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
    """Build tracks from boxes or landmarks that the caller found.

    Args:
        clip: The source pictures.
        boxes: For each frame (F,4) in px; those of a single frame hold for all.
        detector: Finds the five points in the boxes if none are given; None to assume their usual
            places.
        points: For each frame (F,5,2) in px.
        dense: For each frame (F,K,2) landmarks in px, which the tracks carry along.
        smoothing: Seconds over which tracks are smoothed.
        on_found: Called with the number of frames searched so far.

    Returns:
        The tracks, and the number of frames.

    Raises:
        ValueError: The boxes are of another number of frames, or not valid (``tracks_from_boxes``).
    """
    detected, cuts, state, count = list[Tensor](), list[Tensor](), None, 0
    per_frame = repeat(boxes[0]) if len(boxes) == 1 else iter(boxes)
    stretch = torch.tensor(clip.scale)
    for piece in clip.reduced(sys.maxsize):
        begins, state = find_cuts(piece.pixels, state)
        cuts.append(begins)
        if points is None and detector is not None:
            # too few boxes are refused below
            for picture, here in zip(piece.pixels, per_frame, strict=False):
                detected.append(
                    find_points_in_boxes(picture, here / stretch.repeat(2), detector) * stretch
                )
        count = piece.start + len(piece.pixels)
        if on_found is not None:
            on_found(count)
    tracks = tracks_from_boxes(
        _for_all(boxes, count),
        fps=clip.fps,
        points=detected or None if points is None else _for_all(points, count),
        dense=None if dense is None else _for_all(dense, count),
        frames=count,
        cuts=torch.cat(cuts).nonzero()[:, 0].tolist(),
        smoothing_s=smoothing,
        pictures=clip.pick,
    )
    return _with_aspect(clip, tracks), count


def _for_all(values: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    """``values``, those of a single frame repeated for each of ``count``."""
    return [values[0]] * count if len(values) == 1 else values
