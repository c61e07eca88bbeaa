"""Measure the image quality of a clip, by itself and against the true clip."""

import json
import logging
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..audio.vad import silent_frames
from ..errors import MediaError, WeightsError
from ..faces.landmark_model import LandmarkModel
from ..faces.selection import median_center, select
from ..faces.selector import parse_face
from ..faces.visible import crop_box, iterate_visible
from ..media import probe, read_audio, read_frames
from ..media.clip import VideoClip
from ..metrics.fid import FID, Region
from ..metrics.lmd import LandmarkDistance
from ..metrics.no_reference import BorderJitter, MouthMotion, Sharpness
from ..metrics.psnr_ssim import PSNR, SSIM, SSIM_WINDOW_PX
from ..models.inception import Inception
from ..models.weights import load_model
from ..runtime.prefetch import prefetch
from ..runtime.warnings import WarningLog
from ..types import FaceTrack, Frames, ProgressCallback, VideoInfo
from .mouth_following import MouthReport
from .track_faces import Finding, load_detector, load_landmarks, select_device, track_faces

_log = logging.getLogger("lipsync.quality")

# frames of each file read together: metrics take one at a time, and a 4K frame has 25 MB
_CHUNK = 4


@dataclass(frozen=True, slots=True)
class Figure:
    """Result of one metric.

    Attributes:
        value: Figure of the video.
        real: Figure of the true clip, for metrics that need no reference.
        reason: Why one of the two is None although it could be a number, or infinite.
    """

    value: float | None
    real: float | None = None
    reason: str | None = None

    def to_values(self) -> dict[str, Any]:
        """Return {"value", "real"} for JSON, without infinities, and "reason" if any."""
        values = {"value": _finite_or_none(self.value), "real": _finite_or_none(self.real)}
        return values if self.reason is None else {**values, "reason": self.reason}


@dataclass(frozen=True, slots=True, eq=False)
class QualityReport:
    """Image quality of one face of a video.

    Attributes:
        video: The video.
        real: The true clip, if one was given.
        region: What PSNR, SSIM and FID compared; figures of two regions are not comparable.
        fps: Rate at which frames were measured.
        frames: Number of frames measured.
        with_face: Number of these frames that show the face.
        centre: Median center (x, y) of the face in px, as ``--face`` takes it.
        figures: ``sharpness``, ``border_jitter`` and ``mouth_motion`` (``metrics.no_reference``) of
            the video and of ``real``; with ``real`` also ``psnr_db`` (infinite for equal pictures),
            ``ssim``, ``fid`` and ``lmd``.
        warnings: Warnings for the user.
        landmarks: Landmark network of ``lmd``; figures of two networks are not comparable.
        mouth: Whose lips the mouth follows, if other videos were given (``mouth_following``).
    """

    video: Path
    real: Path | None
    region: Region | None
    fps: Fraction
    frames: int
    with_face: int
    centre: tuple[int, int]
    figures: Mapping[str, Figure]
    warnings: tuple[str, ...]
    landmarks: str | None = None
    mouth: MouthReport | None = None

    def to_json(self) -> str:
        """Format the report as one JSON object.

        Returns:
            "figures" holds {"value", "real"} by name, null for missing or infinite figures, and
            then "reason" says why. fps is given as "25" or "30000/1001". "mouth" is that of
            ``MouthReport.to_values``; null if it was not measured.
        """
        values = {
            "video": str(self.video),
            "real": None if self.real is None else str(self.real),
            "region": self.region,
            "fps": str(self.fps),
            "frames": self.frames,
            "with_face": self.with_face,
            "centre": self.centre,
            "landmarks": self.landmarks,
            "figures": {name: figure.to_values() for name, figure in self.figures.items()},
            "mouth": None if self.mouth is None else self.mouth.to_values(),
            "warnings": self.warnings,
        }
        return json.dumps(values, allow_nan=False)


def measure_quality(
    video: Path | str,
    real: Path | str | None = None,
    *,
    face: str = "largest",
    region: Region = "face",
    landmarks: Path | str | None = None,
    finding: Finding = Finding(),
    device: str = "auto",
    on_progress: ProgressCallback | None = None,
) -> QualityReport:
    """Measure the image quality of a clip: blur, a trembling seam, lips that move in silence.

    With ``real`` the frames of both are compared at its rate, up to the end of the shorter; the
    face is searched in ``real`` alone, and motion in silence is that in the silence of ``video`` in
    both. Memory holds a few frames of each file, some 200 bytes per frame, the sound, and for FID
    130 MB.

    Args:
        video: the clip.
        real: the same clip undubbed, or the truth.
        face: the face to measure, as ``dub`` takes it (largest | left | right | INDEX | x,y).
        region: what PSNR, SSIM and FID compare: the detector's box of the face, or the frame.
        landmarks: InsightFace's 2d106det.onnx, for LMD by it instead of by the bundled network.
        finding: detector and tracking.
        device: auto, cpu, cuda or mps.
        on_progress: called with a stage, the frames done and their total.

    Returns:
        The report. Figures that cannot be had are None, with the reason; FID needs the weights
        ``fid-inception``, pulled before.

    Raises:
        NoFaceError: If no face is found.
        MediaError: If a file cannot be read.
        WeightsError: If weights are missing.
        ValueError: If the files differ in size, or an argument is wrong.
    """
    video, say = Path(video), on_progress or (lambda *_: None)
    truth = None if real is None else Path(real)
    warn = WarningLog(_log)
    selector, target = parse_face(face), select_device(device)
    if region not in ("face", "frame"):
        raise ValueError(f"region is {region!r}; expected face or frame")
    if truth is None and landmarks is not None:
        raise ValueError(
            "landmarks tell how far lips are from the true ones; give the true video as well"
        )
    info, share = _check_videos(video, truth, warn)
    likeness = None if truth is None else _FullReference(region, landmarks, target)
    say("find faces", 0, info.frames or 0)
    detector, key = load_detector(finding, target)
    people, length = track_faces(
        VideoClip(truth or video, info, on_warning=warn), detector, detector_key=key
    )
    person = select(people, selector)
    silent, silence = _find_silence(video, info.fps, math.ceil(length * share))
    looks = [_NoReference(silent, info.fps) for _ in range(1 if truth is None else 2)]
    done = 0
    with closing(
        _read_together([video] if truth is None else [video, truth], info.fps, warn)
    ) as pieces:
        for piece in pieces:
            for look, frames in zip(looks, piece, strict=True):
                look.update(frames, person)
            if likeness is not None:
                likeness.update(piece[1], piece[0], person)
            done += piece[0].pixels.shape[0]
            say("measure", done, max(done, length))
    figures = _no_reference_figures(looks, silence)
    if likeness is not None:
        figures.update(likeness.figures(warn))
    with_face = int(person.visible[: max(0, done - person.start)].sum())
    shown = None if truth is None else region
    return QualityReport(
        video,
        truth,
        shown,
        info.fps,
        done,
        with_face,
        median_center(person.boxes[person.visible]),
        figures,
        tuple(warn.messages),
        None if likeness is None else likeness.landmarks,
    )


class _NoReference:
    """The metrics of one file that need no truth."""

    def __init__(self, silent: Tensor, fps: Fraction) -> None:
        self._metrics = {
            "sharpness": Sharpness(),
            "border_jitter": BorderJitter(),
            "mouth_motion": MouthMotion(silent, fps),
        }

    def update(self, frames: Frames, person: FaceTrack) -> None:
        for metric in self._metrics.values():
            metric.update(frames, person)

    def compute(self) -> dict[str, float | None]:
        return {name: metric.compute() for name, metric in self._metrics.items()}


class _FullReference:
    """The metrics that compare with the truth."""

    def __init__(self, region: Region, landmarks: Path | str | None, device: torch.device) -> None:
        self._region: Region = region
        self._psnr, self._ssim = PSNR(), SSIM()
        self.landmarks = "face_landmarks" if landmarks is None else Path(landmarks).name
        self._lmd = LandmarkDistance(
            load_landmarks(device) if landmarks is None else LandmarkModel(Path(landmarks))
        )
        self._fid, self._no_fid = _load_fid(region, device)
        self._small = 0

    def update(self, real: Frames, made: Frames, person: FaceTrack) -> None:
        """Add the same frames of the true clip and of the video."""
        for truth, picture in self._pictures(real, made, person):
            if min(truth.shape[:2]) < SSIM_WINDOW_PX:
                self._small += 1
                continue
            self._psnr.update(truth[None], picture[None])
            self._ssim.update(truth[None], picture[None])
        self._lmd.update(real, made, person)
        if self._fid is not None:
            track = person if self._region == "face" else None
            self._fid.update(real, "real", track=track)
            self._fid.update(made, "generated", track=track)

    def _pictures(
        self, real: Frames, made: Frames, person: FaceTrack
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if self._region == "frame":
            yield from zip(real.pixels, made.pixels, strict=True)
            return
        for index, pixels, box, _ in iterate_visible(real, person):
            yield crop_box(pixels, box), crop_box(made.pixels[index - made.start], box)

    def figures(self, warn: Callable[[str], None]) -> dict[str, Figure]:
        """Compute the figures; ``warn`` is called with the reasons that make them unreliable."""
        if self._small:
            warn(
                f"{self._small} pictures of less than {SSIM_WINDOW_PX} px are left out of PSNR and "
                "SSIM"
            )
        nothing = "no frame shows the face"
        psnr, ssim, lmd = self._psnr.compute(), self._ssim.compute(), self._lmd.compute()
        equal = "all pictures are equal: infinite" if psnr == math.inf else None
        return {
            "psnr_db": Figure(psnr, reason=nothing if psnr is None else equal),
            "ssim": Figure(ssim, reason=nothing if ssim is None else None),
            "lmd": Figure(lmd, reason=nothing if lmd is None else None),
            "fid": self._distance(warn),
        }

    def _distance(self, warn: Callable[[str], None]) -> Figure:
        if self._fid is None:
            return Figure(None, reason=self._no_fid)
        count = self._fid.moments("real").count
        if count < 2:
            return Figure(None, reason=f"{count} pictures; expected at least 2")
        result = self._fid.compute()
        if result.note is not None:
            warn(f"FID: {result.note}")
        return Figure(result.distance)


def _check_videos(
    video: Path, real: Path | None, warn: Callable[[str], None]
) -> tuple[VideoInfo, Fraction]:
    """Return the video that sets rate and size, and the share of its length that ``video`` has.

    The share comes from the headers (1: all).
    """
    infos = [probe(path) for path in (video, real) if path is not None]
    for path, info in zip((video, real), infos, strict=False):
        if info.still:
            raise MediaError(f"{path}: a photograph does not move; expected a video")
    ours, theirs = infos[0], infos[-1]
    if (ours.width, ours.height) != (theirs.width, theirs.height):
        raise ValueError(
            f"{video} has {ours.width}x{ours.height} px and {real} has "
            f"{theirs.width}x{theirs.height}; expected the same clip at one size: scale the true "
            "one as the other was, and compare again"
        )
    if ours.fps != theirs.fps:
        warn(
            f"{video} has {ours.fps} fps, {real} has {theirs.fps}: the first is looked at with "
            "frames dropped or repeated"
        )
    if ours.frames is None or theirs.frames is None:
        return theirs, Fraction(1)
    return theirs, min(Fraction(1), ours.frames / ours.fps / (theirs.frames / theirs.fps))


def _find_silence(video: Path, fps: Fraction, count: int) -> tuple[Tensor, str]:
    """Return (count,) bool, the frames without speech, and why motion may be missing."""
    try:
        sound = read_audio(video)
    except MediaError as error:
        return torch.zeros(count, dtype=torch.bool), str(error)
    silent = silent_frames(sound, fps, count)
    if not bool((silent[1:] & silent[:-1]).any()):
        return silent, "the sound is never silent in two frames on end"
    return silent, "the face is not seen in two silent frames on end"


def _read_together(
    paths: list[Path], fps: Fraction, warn: Callable[[str], None]
) -> Generator[list[Frames], None, None]:
    """Yield the same frames of each file, up to the end of the shortest."""
    done = 0
    readers = [
        prefetch(read_frames(path, fps=fps, chunk=_CHUNK, on_warning=warn)) for path in paths
    ]
    with closing(readers[0]), closing(readers[-1]):
        for piece in zip_longest(*readers):
            found = [frames for frames in piece if frames is not None]
            counts = [0 if frames is None else frames.pixels.shape[0] for frames in piece]
            common = min(counts)
            if common:
                yield [Frames(frames.pixels[:common], frames.start) for frames in found]
            done += common
            if common < max(counts):
                warn(
                    f"{' and '.join(map(str, paths))} differ in length: {done} frames are compared"
                )
                return


def _no_reference_figures(looks: list[_NoReference], silence: str) -> dict[str, Figure]:
    reasons = {
        "sharpness": "no frame shows the face, or all are flat there",
        "border_jitter": "the face is not seen in three frames on end",
        "mouth_motion": silence,
    }
    found = [look.compute() for look in looks]
    figures: dict[str, Figure] = {}
    for name, reason in reasons.items():
        values = [one[name] for one in found]
        real = values[1] if len(values) > 1 else None
        figures[name] = Figure(values[0], real, reason if None in values else None)
    return figures


def _load_fid(region: Region, device: torch.device) -> tuple[FID | None, str | None]:
    """Return the metric, or the reason why there is none."""
    try:
        network = load_model("fid-inception", kind="fid_inception", device=device)
    except WeightsError as error:
        return None, str(error)
    assert isinstance(network, Inception)
    return FID(network, region=region), None


def _finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
