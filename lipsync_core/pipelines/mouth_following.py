"""Measure from videos whether the lips of a dub follow the new speech or the old lips."""

import math
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import LipSyncError, MediaError
from ..faces import Detector
from ..faces.landmarks import SURE, LandmarkFinder
from ..faces.selection import select
from ..faces.selector import FaceSelector, parse_face
from ..image.landmarks import POINTS, mouth_opening
from ..media import probe, read_frames
from ..media.clip import VideoClip
from ..metrics.mouth import MouthFollowing, MouthFollowingMetric, Role
from ..runtime.prefetch import prefetch
from ..types import FaceTrack, Frames, ProgressCallback
from .track_faces import Finding, load_detector, load_landmarks, select_device, track_faces

LANDMARKS = "lipsync's own 102 points (face_landmarks)"
SAME_VIDEO = "the true speaker's video is the source itself"
_CHUNK = 8  # frames read together


@dataclass(frozen=True, slots=True, eq=False)
class MouthReport:
    """How the lips of a dub follow those of ``truth`` and of ``source``.

    Attributes:
        truth: Video of the speaker of the new sound, or None.
        source: The video that was dubbed, or None.
        landmarks: Landmark network that the mouths were measured with.
        following: The figures.
    """

    truth: Path | None
    source: Path | None
    landmarks: str
    following: MouthFollowing

    def to_values(self) -> dict[str, Any]:
        """Give the report for JSON.

        Returns:
            "truth_video" and "source_video" (paths or null), "landmarks", the figures by their
            names (null if missing), and "reasons" for those that are null.
        """
        paths = {"truth_video": self.truth, "source_video": self.source}
        named = {name: None if path is None else str(path) for name, path in paths.items()}
        return named | {"landmarks": self.landmarks} | self.following.to_values()


def measure_following(
    dub: Path | str,
    *,
    truth: Path | str | None = None,
    source: Path | str | None = None,
    face: str = "largest",
    seconds: float | None = None,
    finding: Finding = Finding(),
    device: str = "auto",
    on_progress: ProgressCallback | None = None,
) -> MouthReport:
    """Measure whether the lips of a dub follow the new speech or the old lips.

    Args:
        dub: The dubbed video.
        truth: Video of the speaker of the new sound; its largest face counts. None: no figure that
            needs it.
        source: The video that was dubbed. None, or a photo: no figure that needs it.
        face: Face to measure in dub and source, as ``dub`` takes it (largest | left | right | INDEX
            | x,y).
        seconds: Seconds of each video to measure, from its beginning; None for all.
        finding: Detector and tracking.
        device: Device of the networks: auto, cpu, cuda or mps.
        on_progress: Called with (stage, frames done, frames in all as far as they are known).

    Returns:
        The available figures, and the reasons for the missing ones.

    Raises:
        ValueError: Without truth and source, and for an unknown face or device.
        MediaError: For files that cannot be read, and a dub or truth that is a photo.
        WeightsError: Without landmark weights.
    """
    if truth is None and source is None:
        raise ValueError(
            "lips are compared with others; give the true speaker's video, the source, or both"
        )
    target = select_device(device)
    meter = MouthMeter(
        load_landmarks(target), *load_detector(finding, target), on_progress=on_progress
    )
    paths: dict[Role, Path | None] = {
        "dub": Path(dub),
        "truth": None if truth is None else Path(truth),
        "source": None if source is None else Path(source),
    }
    selector = parse_face(face)
    metric, missing = MouthFollowingMetric(), dict[Role, str]()
    for role, path in paths.items():
        if path is None:
            continue
        if probe(path).still:
            if role != "source":
                raise MediaError(f"{path}: a photograph does not move; expected a video")
            missing[role] = "the source is a photo, whose mouth does not move"
            continue
        try:
            openings = meter.openings(
                path, FaceSelector() if role == "truth" else selector, seconds=seconds
            )
        except MediaError:
            raise
        except LipSyncError as error:
            missing[role] = str(error)
            continue
        metric.update(openings, meter.times(path, len(openings)), role)
    return MouthReport(paths["truth"], paths["source"], LANDMARKS, metric.compute(missing=missing))


class MouthMeter:
    """Measures mouth openings by our own landmarks."""

    def __init__(
        self,
        finder: LandmarkFinder,
        detector: Detector,
        detector_key: tuple[str, str] | None,
        *,
        on_progress: ProgressCallback | None = None,
    ) -> None:
        self._finder, self._detector, self._key = finder, detector, detector_key
        self._say = on_progress or (lambda *_: None)

    def openings(
        self, video: Path, selector: FaceSelector = FaceSelector(), *, seconds: float | None = None
    ) -> Tensor:
        """Measure a video.

        Args:
            video: A file.
            selector: Face to measure.
            seconds: Seconds to measure; None for all.

        Returns:
            (N,) openings of its frames at its own rate, NaN where no face is seen.

        Raises:
            MediaError: For a file that cannot be read.
            NoFaceError: Without the face.
        """
        return mouth_opening(self.landmarks(video, selector, seconds=seconds))

    def landmarks(
        self, video: Path, selector: FaceSelector = FaceSelector(), *, seconds: float | None = None
    ) -> Tensor:
        """Find the landmarks of a video; see ``openings``.

        Args:
            video: A file.
            selector: Face to measure.
            seconds: Seconds to measure; None for all.

        Returns:
            (N,102,2) in px, NaN where no face is seen.
        """
        info = probe(video)
        stop = sys.maxsize if seconds is None else math.floor(seconds * info.fps) + 1
        self._say(f"find faces in {video.name}", 0, info.frames or 0)
        people, count = track_faces(
            VideoClip(video, info), self._detector, stop=stop, detector_key=self._key
        )
        person = select(people, selector)
        with closing(
            prefetch(read_frames(video, fps=info.fps, chunk=_CHUNK, stop=count))
        ) as frames:
            return self.along(self._told(frames, video, count), person)

    def along(self, frames: Iterable[Frames], person: FaceTrack) -> Tensor:
        """Find the landmarks of a face that was found before.

        Args:
            frames: All frames of a clip in order, from its first.
            person: The face.

        Returns:
            (N,102,2) in px, NaN in frames where the face is not visible or the landmarks are
            unsure.
        """
        found = [measure_landmarks(piece, person, self._finder) for piece in frames]
        return torch.cat(found or [torch.zeros(0, POINTS, 2)])

    @staticmethod
    def times(video: Path, count: int) -> Tensor:
        """Compute when the frames of a video are shown.

        Args:
            video: A file.
            count: Number of frames.

        Returns:
            (count,) float64 seconds.
        """
        return frame_times(probe(video).fps, count)

    def _told(self, frames: Iterable[Frames], video: Path, count: int) -> Iterable[Frames]:
        for piece in frames:
            yield piece
            self._say(f"measure lips in {video.name}", piece.start + len(piece.pixels), count)


def measure_landmarks(frames: Frames, person: FaceTrack, finder: LandmarkFinder) -> Tensor:
    """Find the landmarks of a face in each frame.

    Args:
        frames: N frames.
        person: The face.
        finder: Finds the landmarks.

    Returns:
        (N,102,2) in px, NaN in frames where the face is not visible or the finder is less sure than
        ``faces.landmarks.SURE``.
    """
    found = torch.full((len(frames.pixels), POINTS, 2), torch.nan)
    at = torch.arange(len(found)) + frames.start - person.start
    inside = (at >= 0) & (at < len(person.visible))
    here = inside.nonzero()[:, 0]
    here = here[person.visible.cpu()[at[here]]]
    if not len(here):
        return found
    points, scores = finder.find(
        Frames(frames.pixels[here]), person.boxes[at[here]], person.points[at[here]]
    )
    found[here] = torch.where((scores >= SURE)[:, None, None], points, torch.nan)
    return found


def measure_openings(frames: Frames, person: FaceTrack, finder: LandmarkFinder) -> Tensor:
    """Measure how far a mouth is open.

    Args:
        frames: N frames.
        person: The face.
        finder: Finds the landmarks.

    Returns:
        (N,) openings in distances between the outer corners of the eyes, NaN as in
        ``measure_landmarks``.
    """
    return mouth_opening(measure_landmarks(frames, person, finder))


def frame_times(fps: Fraction, count: int) -> Tensor:
    """Return when frames at a constant rate are shown: (count,) float64 seconds."""
    return torch.arange(count, dtype=torch.float64) / float(fps)


def explain_following(found: MouthFollowing) -> str:
    """Say in one sentence what the figures mean.

    Args:
        found: The figures.

    Returns:
        Which lips the dub follows, or what can be said without one of the videos.
    """
    if found.truth is None and found.leak is None:
        return "Whether the lips follow the new speech cannot be told."
    if found.old is not None and found.new is not None:
        figures = f"(new {found.new:.2f}, old {found.old:.2f})"
        if max(found.old, found.new) < _FOLLOWS:
            return f"The lips follow neither the new speech nor the old lips {figures}."
        if found.old < _FOLLOWS:
            return f"The lips follow the new speech, and hardly the old lips {figures}."
        if found.new < _FOLLOWS:
            return f"The lips still follow the old lips, and hardly the new speech {figures}."
        more = (
            "new speech more than the old lips"
            if found.new > found.old
            else "old lips more than the new speech"
        )
        return f"The lips follow the {more} {figures}."
    if found.truth is not None:
        followed = "follow" if found.truth >= _CLEAR else "hardly follow"
        return (
            f"The lips {followed} the true speaker's (correlation {found.truth:.2f}); what chance "
            "gives is not known."
        )
    followed = "follow" if (found.leak or 0) >= _CLEAR else "hardly follow"
    return (
        f"The lips {followed} the old lips (correlation {found.leak:.2f}); what chance gives is "
        "not known."
    )


_FOLLOWS = 0.2  # of a coefficient: less is what two unrelated mouths give in a few seconds
# of a correlation whose chance is not known; two unrelated mouths reach 0.2 to 0.4 at their best
# lag
_CLEAR = 0.5
