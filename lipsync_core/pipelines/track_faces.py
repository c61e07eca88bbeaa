"""What every command that looks for faces chooses: a detector, landmarks, a parser, and a device."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ..faces import Detector
from ..faces.detector_mini import MiniDetector
from ..faces.detector_s3fd import S3FDDetector
from ..faces.detector_yunet import YuNetDetector
from ..faces.landmarks import LandmarkFinder
from ..faces.parser import FaceParser
from ..media.clip import Footage, Found, Pace, Pictures
from ..metrics.landmarks import LandmarkModel, with_landmarks
from ..models.face_detector import FaceDetector
from ..models.face_landmarks import FaceLandmarks
from ..models.face_parsing import FaceParsing
from ..models.hub import file_sha256
from ..models.precision import Precision
from ..models.s3fd import S3FD
from ..models.weights import load_model, weights_file
from ..types import FaceTrack, Frames

DetectorName = Literal["mini", "yunet", "s3fd"]

_AT_ONCE = 8  # frames
_DETECTOR_WEIGHTS = {"mini": "face_detector", "yunet": "yunet", "s3fd": "s3fd"}


@dataclass(frozen=True, slots=True)
class Finding:
    """How faces are found: which detector, its least score in (0,1), whether tracks are kept and reused, how closely they
    are followed, and how large a face is at least, mostly, in px of its longer side. ``dense``: whether tracks carry dense
    landmarks, so that masks follow each face's own outline; the bundled network finds them, or, where its file is given as
    ``landmarks``, InsightFace's 2d106det.onnx."""

    detector: DetectorName = "mini"
    min_score: float = 0.7
    cache: bool = True
    pace: Pace = Pace()
    min_size: int = 0
    landmarks: Path | None = None
    dense: bool = True


def find_people(
    footage: Footage | Pictures, finding: Finding, device: torch.device, *, stop: int, on_found: Found | None = None
) -> tuple[list[FaceTrack], int]:
    """The people in the first ``stop`` frames of ``footage``, and how many of those frames there are. on_found hears how
    many frames were searched."""
    detector, key = load_detector(finding, device)
    ours, pace = load_landmarks(device) if finding.dense and finding.landmarks is None else None, finding.pace
    if isinstance(footage, Pictures):
        people = footage.tracks(detector, pace=pace, landmarks=ours, on_found=on_found)
        count = len(footage.pixels)
    else:
        people, count = footage.tracks(
            detector, stop=stop, detector_key=key, pace=pace, landmarks=ours, on_found=on_found
        )
    people = [person for person in people if _usual_side(person) >= finding.min_size]
    if finding.landmarks is None or not finding.dense:
        return people, count
    model, smoothing = LandmarkModel(finding.landmarks), finding.pace.smoothing * float(footage.fps)
    return with_landmarks(people, _whole(footage, count), model, smoothing=smoothing), count


def _whole(footage: Footage | Pictures, count: int) -> Iterator[Frames]:
    """The first ``count`` frames of ``footage`` as RGB, a few at a time."""
    pieces = footage.rgb(chunk=_AT_ONCE) if isinstance(footage, Footage) else footage.frames(count, chunk=_AT_ONCE)
    for piece in pieces:
        yield piece
        if piece.start + len(piece.pixels) >= count:
            return


def _usual_side(person: FaceTrack) -> float:
    """px of a face's longer side, mostly."""
    boxes = person.boxes[person.visible]
    return float((boxes[:, 2:] - boxes[:, :2]).amax(1).median())


def load_detector(finding: Finding, device: torch.device) -> tuple[Detector, tuple[str, str] | None]:
    """The detector, and what its tracks are kept under: its name with its score, and the hash of its weights."""
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


def device_named(name: str) -> torch.device:
    """``auto`` (CUDA, else MPS, else the CPU) or a device of torch; ValueError where it cannot be used."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here ({error}); wanted auto, cpu, cuda or mps") from error
