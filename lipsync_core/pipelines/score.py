"""Score the lip sync of a video file, and write a copy whose audio is in sync."""

import json
import logging
import math
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import LipSyncError, MediaError, NoFaceError
from ..faces.detector_s3fd import syncnet_detector
from ..faces.selection import median_center
from ..faces.shot_boundaries import find_cuts
from ..faces.turned_faces import TRIED
from ..media import AudioSource, probe, shift_audio, track_used
from ..media.clip import Clip, open_clip
from ..metrics.lse import find_reference_tracks, score_reference_tracks, score_whole_frame
from ..metrics.sync import SEARCH, score_tracks
from ..metrics.sync_embedder import ExpertScorer, Scorer, SyncNetScorer
from ..models.s3fd import S3FD
from ..models.sync_expert import SyncExpert
from ..models.syncnet import SyncNet
from ..models.weights import load_model
from ..options import Cut
from ..runtime.prefetch import prefetch
from ..runtime.warnings import WarningLog
from ..types import AnyFrames, Audio, Detections, FaceTrack, Frames, ProgressCallback, SyncScore
from .audio_inputs import part_of_source, read_mono
from .track_faces import Finding, find_people, select_device

_log = logging.getLogger("lipsync.score")
Mode = Literal["exact", "reference"]

SHORTEST = Fraction(1, 2)  # seconds of picture
WIDEST = 20.0  # seconds to each side: 4 kB a frame and face
_CHUNK = 32  # frames read and scored together


@dataclass(frozen=True, slots=True, eq=False)
class TrackScore:
    """Score of one face.

    Attributes:
        first_frame: First frame of the face, in frames of the video at its own rate.
        last_frame: Last frame of the face, inclusive.
        score: Its score.
        centre: Median center (x, y) of the face in px, as ``lipsync dub --face x,y`` takes it.
    """

    first_frame: int
    last_frame: int
    score: SyncScore
    centre: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreReport:
    """Scores of all face tracks of a video, in the order of their appearance.

    Figures of two scorers, or of two modes, are not comparable.

    Attributes:
        scorer: Name of the scorer.
        mode: Whether ``exact`` or ``reference`` scores were computed.
        video: The video.
        audio: The file of the audio; None for the video's own audio, and for audio in memory.
        fps: The video's own rate, in which the tracks' first and last frames count.
        scorer_fps: The rate at which the scorer takes frames, in which offsets, search and
            uncertainty count, because whole frames of 30 or 60 fps are finer or coarser than its
            resolution; a scorer's 3 frames at 25 fps are 120 ms in any file.
        tracks: The scores.
        warnings: Warnings for the user.
        audio_track: Which sound track was scored, of a file with several.
    """

    scorer: str
    mode: Mode
    video: Path
    audio: Path | None
    fps: Fraction
    scorer_fps: Fraction
    tracks: tuple[TrackScore, ...]
    warnings: tuple[str, ...]
    audio_track: str | None = None

    def to_json(self) -> str:
        """Format the scores as one JSON object.

        Returns:
            {"scorer", "tracks": [{"first_frame", "last_frame", "offset_frames", "offset_ms",
            "distance", "confidence", "search_frames", "uncertainty"}]}; without an offset these are
            null and "reason" says why. "audio_track" is there if the file has several.
        """
        values = {"scorer": self.scorer, "tracks": [_track_json(track) for track in self.tracks]}
        if self.audio_track is not None:
            values["audio_track"] = self.audio_track
        return json.dumps(values)

    def best(self) -> TrackScore:
        """Return the track with the least uncertain offset.

        In mode reference, which has no uncertainty, this is the most confident one.

        Returns:
            The track.

        Raises:
            LipSyncError: If no track has an offset.
        """
        found = [track for track in self.tracks if track.score.offset_frames is not None]
        if not found:
            reasons = "; ".join(dict.fromkeys(track.score.reason or "" for track in self.tracks))
            raise LipSyncError(f"{self.video}: no face has an offset to correct ({reasons})")
        return min(found, key=lambda track: (track.score.uncertainty or 0, -track.score.confidence))


def _track_json(track: TrackScore) -> dict[str, Any]:
    score = track.score
    values: dict[str, Any] = {
        "first_frame": track.first_frame,
        "last_frame": track.last_frame,
        "offset_frames": score.offset_frames,
        "offset_ms": score.offset_ms,
        "distance": _number(score.distance),
        "confidence": _number(score.confidence),
        "search_frames": score.search_frames,
        "uncertainty": score.uncertainty,
    }
    return values if score.reason is None else {**values, "reason": score.reason}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def explain_score(score: SyncScore, fps: Fraction) -> str:
    """Describe an offset in words, such as "sound is 3 frames early (120 ms)".

    Args:
        score: The score.
        fps: Rate of the video, in whose frames the offset is given.

    Returns:
        The description, or the reason why there is no offset.
    """
    if score.offset_ms is None:
        return f"no verdict: {score.reason}"
    if score.offset_ms == 0:
        return "in sync"
    frames = abs(score.offset_ms) * float(fps) / 1000
    way = "early" if score.offset_ms > 0 else "late"
    plural = "frame" if round(frames, 1) == 1 else "frames"
    return f"sound is {round(frames, 1):g} {plural} {way} ({abs(score.offset_ms):.0f} ms)"


def score(  # noqa: PLR0913
    video: Path | str,
    audio: Path | str | Audio | None = None,
    *,
    scorer: str | Path | Scorer = "judge",
    mode: Mode = "exact",
    whole_frame: bool = False,
    cut: Cut = Cut(),
    finding: Finding = Finding(),
    device: str = "auto",
    on_progress: ProgressCallback | None = None,
    search_seconds: float | None = None,
) -> ScoreReport:
    """Score how well the lips and the audio of a video agree, for every face track.

    Memory holds one chunk of frames, the audio and its embeddings, and per frame and face 500
    bytes, or 200 for each second of ``search_seconds`` if that is more.

    Args:
        video: The video.
        audio: Audio that begins with the first frame, as a file or in memory; None for the video's
            own.
        scorer: ``judge`` (ours, bundled), ``syncnet`` (pulled before), a file of such weights, or
            the result of ``load_scorer``, on its own device.
        mode: ``exact``; or ``reference`` for the scores of the public scripts (LSE-D and LSE-C),
            which needs SyncNet and finds faces with its own detector, ``sfd_face``, ignoring
            ``finding``.
        whole_frame: Take whole frames as faces without detection, as for LRS2, LRS3 and LRW; for
            mode ``reference`` only.
        cut: Part of the video to score, with its own audio; its ``fps`` and ``longer`` are ignored.
        finding: Detector and tracking.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_progress: Called with a stage, the frames done and their total.
        search_seconds: How far to each side the offset is searched, at most 20; None for 15 frames
            (0.6 s), as the public scripts do, which allow no other in mode ``reference``.

    Returns:
        The scores of all face tracks.

    Raises:
        NoFaceError: If no face is found.
        MediaError: If there is no audio, less than half a second of picture, or less audio than one
            window of the scorer.
        WeightsError: If weights are missing.
        ValueError: If an argument is wrong.
    """
    video, say = Path(video), on_progress or (lambda *_: None)
    source = audio if isinstance(audio, Audio) else video if audio is None else Path(audio)
    warn = WarningLog(_log)
    if mode not in ("exact", "reference"):
        raise ValueError(f"mode is {mode!r}; expected exact or reference")
    if whole_frame and mode != "reference":
        raise ValueError(
            "whole frames are scored by the public scripts alone; expected mode reference with them"
        )
    if search_seconds is not None:
        _check_search(search_seconds, mode)
    target = select_device(device)
    judge = load_scorer(scorer, target) if isinstance(scorer, (str, Path)) else scorer
    if mode == "reference" and not isinstance(judge, SyncNetScorer):
        raise ValueError(
            f"mode reference is SyncNet's own protocol, and the scorer is {judge.name}; take the "
            "scorer syncnet (lipsync models pull syncnet), or mode exact"
        )
    info = probe(video)
    if info.still:
        raise MediaError(f"{video}: a photograph does not move; expected a video")
    footage = open_clip(video, replace(cut, fps=judge.fps), on_warning=warn)
    sound = read_judged_audio(part_of_source(source, video, cut), judge, warn)
    if mode == "reference":
        assert isinstance(judge, SyncNetScorer)
        found = _score_reference(footage, sound, judge, whole_frame, target, say)
    else:
        search = SEARCH if search_seconds is None else round(search_seconds * judge.fps)
        found = _score_exact(footage, sound, judge, finding, target, say, search)
    tracks = tuple(_at_rate(track, judge.fps, info.fps) for track in found)
    other = source if isinstance(source, Path) and audio is not None else None
    used = track_used(source, cut.audio_track) if isinstance(source, Path) else None
    return ScoreReport(
        judge.name, mode, video, other, info.fps, judge.fps, tracks, tuple(warn.messages), used
    )


def _check_search(seconds: float, mode: Mode) -> None:
    if mode == "reference":
        raise ValueError(
            "the public scripts search 15 frames (0.6 s) to each side; "
            "leave search_seconds out, or take mode exact"
        )
    if not 0.1 <= seconds <= WIDEST:
        raise ValueError(f"search_seconds is {seconds:g}; expected 0.1 to {WIDEST:g}")


def load_scorer(name: str | Path, device: torch.device) -> Scorer:
    """Load the scorer in a bundled, pulled or given weight file.

    Args:
        name: Name or path of the weights, which becomes the scorer's name in reports.
        device: Device to load the network to.

    Returns:
        The scorer.

    Raises:
        ValueError: If the weights are of another kind of network.
    """
    model = load_model(name, device=device)
    if isinstance(model, SyncNet):
        return SyncNetScorer(model)
    if not isinstance(model, SyncExpert):
        raise ValueError(
            f"{name} holds a {type(model).__name__}, which scores nothing; expected judge, syncnet "
            "or an expert"
        )
    return ExpertScorer(model, Path(name).name)


def shift_sound(
    video: Path | str,
    out: Path | str,
    offset_frames: int,
    fps: Fraction,
    *,
    audio: Path | str | None = None,
    track: int | None = None,
    overwrite: bool = False,
    on_warning: Callable[[str], None] | None = None,
) -> None:
    """Write a copy of a video whose audio is ``offset_frames / fps`` seconds later.

    With a score's ``offset_frames`` and its scorer's ``fps`` the result is in sync.

    Args:
        video: The video, whose picture is copied.
        out: File to write.
        offset_frames: Frames by which the audio is delayed; below 0: earlier.
        fps: Rate of these frames.
        audio: File to take the audio from; None for the video's own.
        track: Number of the sound track, from 1; None for the default one.
        overwrite: Whether ``out`` may be replaced.
        on_warning: Called with each warning.

    Raises:
        MediaError: If a file cannot be read or written.
    """
    delay = offset_frames / Fraction(fps)
    shift_audio(
        video, out, delay, audio=audio, track=track, overwrite=overwrite, on_warning=on_warning
    )


def read_judged_audio(part: AudioSource, judge: Scorer, warn: Callable[[str], None]) -> Audio:
    """Read the audio that a scorer takes: mono, at its sample rate.

    Args:
        part: What is read; see ``part_of_source``.
        judge: The scorer.
        warn: Called with each warning.

    Returns:
        The audio.

    Raises:
        MediaError: If it is shorter than one window of the scorer.
    """
    path = "the audio" if isinstance(part.source, Audio) else part.source
    sound = read_mono(part, judge.rate, warn)
    seconds, wanted = Fraction(sound.samples.shape[1], sound.rate), judge.window / judge.fps
    if seconds < wanted:
        raise MediaError(
            f"{path}: the sound lasts {float(seconds):.2f} s; expected {float(wanted):g} s or more"
        )
    return sound


def _score_exact(
    footage: Clip,
    sound: Audio,
    judge: Scorer,
    finding: Finding,
    device: torch.device,
    say: ProgressCallback,
    search: int,
) -> list[TrackScore]:
    """Score every face; frames count at the scorer's rate."""
    tracks, length = _faces(footage, finding, device, say)
    coded = footage.coded(chunk=_CHUNK)
    with closing(_report_frames(coded, length, "score", say)) as frames:
        scores = score_tracks(frames, sound, judge, tracks=tracks, search=search)
    found: list[TrackScore] = []
    for track, one in zip(tracks, scores, strict=True):
        last = track.start + len(track.visible) - 1
        found.append(TrackScore(track.start, last, one, median_center(track.boxes[track.visible])))
    return found


def _faces(
    footage: Clip, finding: Finding, device: torch.device, say: ProgressCallback
) -> tuple[list[FaceTrack], int]:
    """Find every face track, and count the frames."""
    say("find faces", 0, footage.length or 0)
    whole = footage.length or 0
    tracks, length = find_people(
        footage,
        replace(finding, dense=False),
        device,
        stop=sys.maxsize,
        on_found=lambda done: say("find faces", done, max(done, whole)),
    )
    if length < math.floor(SHORTEST * footage.fps):
        seconds = float(length / footage.fps)
        raise MediaError(
            f"{footage.path}: the picture lasts {seconds:.2f} s; expected {float(SHORTEST):g} s or "
            "more"
        )
    if not tracks:
        raise NoFaceError(
            f"{footage.path}: no face in {length} frames (searched {TRIED}); lower --min-score "
            f"(now {finding.min_score}) or take another --detector"
        )
    return tracks, length


def _score_reference(
    footage: Clip,
    sound: Audio,
    judge: SyncNetScorer,
    whole_frame: bool,
    device: torch.device,
    say: ProgressCallback,
) -> list[TrackScore]:
    """Score every face by the public scripts' protocol."""

    def frames_of(stage: str) -> Generator[Frames, None, None]:
        return _report_frames(footage.rgb(chunk=_CHUNK), footage.length or 0, stage, say)

    if whole_frame:
        with closing(frames_of("score")) as frames:
            score = score_whole_frame(frames, sound, judge.model)
        middle = (footage.size[0] // 2, footage.size[1] // 2)
        last = max(0, len(score.frame_confidence) + judge.window - 2)  # of the last window
        return [TrackScore(0, last, score, middle)]
    network = load_model("sfd_face", kind="s3fd", device=device)
    assert isinstance(network, S3FD)
    detector, found, cuts, state = (
        syncnet_detector(network),
        list[Detections](),
        list[Tensor](),
        None,
    )
    with closing(frames_of("find faces")) as frames:
        for chunk in frames:
            found += detector.detect(chunk.pixels)
            begins, state = find_cuts(chunk.pixels, state)
            cuts.append(begins)
    tracks = find_reference_tracks(found, torch.cat(cuts))
    if not tracks:
        raise NoFaceError(
            f"{footage.path}: the reference protocol scores faces of 100 px that it finds in more "
            f"than 100 frames (4 s) of a shot, and none of {len(found)} frames has one; take mode "
            "exact, or whole frames if they are faces"
        )
    with closing(frames_of("score")) as frames:
        scores = score_reference_tracks(frames, sound, tracks, judge.model)
    return [
        TrackScore(track.first_frame, track.last_frame, one, median_center(track.boxes))
        for track, one in zip(tracks, scores, strict=True)
    ]


def _report_frames(
    frames: Iterator[AnyFrames], length: int, stage: str, say: ProgressCallback
) -> Generator[AnyFrames, None, None]:
    """Yield ``frames``, read ahead, and report progress to ``say``.

    ``length`` is the number of frames as far as it is known.
    """
    with closing(prefetch(frames)) as pieces:
        for piece in pieces:
            yield piece
            done = piece.start + piece.pixels.shape[0]
            say(stage, done, max(done, length))


def _at_rate(track: TrackScore, looked: Fraction, own: Fraction) -> TrackScore:
    """Convert the frame numbers of ``track`` from ``looked`` fps to ``own`` fps."""
    frames = (track.first_frame, track.last_frame + 1)
    first, end = (math.floor(frame / looked * own + Fraction(1, 2)) for frame in frames)
    return replace(track, first_frame=first, last_frame=max(first, end - 1))
