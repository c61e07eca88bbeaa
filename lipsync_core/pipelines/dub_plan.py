"""Plan a dub: which audio drives which face, in which frames of the output, drawn from what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..audio.ops import frame_count
from ..audio.vad import Silence, activity_curve, opacity_and_activity, voice_activity
from ..blend.lip_warp import LipRange, raise_range, scale_shape
from ..errors import NoFaceError
from ..faces.landmarks import (
    SURE,
    confidence_weights,
    low_confidence_warning,
    to_own_layout,
    unusable_landmarks_warning,
)
from ..faces.overlays import covered_frames
from ..faces.selection import select, shared_faces
from ..faces.selector import FaceSelector, parse_face
from ..media import AudioSource, probe
from ..media.clip import Clip, frame_order
from ..models.generator import TalkingFace
from ..models.lip_warp import LipWarp
from ..options import Cut, Longer
from ..types import Audio, FaceTrack, References
from .audio_inputs import AudioInputs
from .lipsync import LipSync
from .reference import Reference, find_references, find_unoccluded, match_references
from .roles import FaceDub
from .run_log import RunLog
from .speakers import detect_source_turns, match_rows, speaking_faces, turn_opacity
from .track_faces import Finding, find_people, reorder_track
from .turn_subtitles import SUBTITLES, read_any_turns
from .turn_table import TurnRow

Speech = Path | str | Audio
"""A file with sound, or audio in memory."""
Turns = Literal["auto"] | tuple[TurnRow, ...]
"""Who speaks the one audio when: rows of a table, or "auto" for active speaker detection."""
People = tuple[Sequence[FaceTrack], int]
"""Tracks found before, and the number of the clip's frames that were searched for them."""


LEAST_MOUTH_PX = 12
"""Width of a mouth below which a dub warns that its movement will hardly be seen."""


@dataclass(frozen=True, slots=True, eq=False)
class DubPlan:
    """Everything needed to render a dub; no frame of it has been drawn.

    Attributes:
        clip: The source pictures.
        frame_order: (T,) number of the clip's frame that each output frame shows.
        faces: The speaking faces, their tracks in output frames.
        output_audio: The sound of the output.
        found: Number of people found in the clip; a person counts once a scene.
    """

    clip: Clip
    frame_order: Tensor
    faces: tuple[FaceDub, ...]
    output_audio: AudioSource
    found: int

    def dubbed_frames(self) -> Tensor:
        """(T,) bool: output frames that show something of a new mouth."""
        return torch.stack([_shows_mouth(face) for face in self.faces]).any(0)

    def count_reasons(self) -> dict[str, int]:
        """Count the output frames that show no new mouth, by the reason."""
        there = torch.stack([face.track.visible for face in self.faces]).any(0)
        clear = torch.stack([_has_clear_landmarks(face.track) for face in self.faces]).any(0)
        passed = ~self.dubbed_frames()
        reasons = {
            "no face found": passed & ~there,
            "face turned away, covered, cut off or drawn": passed & there & ~clear,
            "speaker silent": passed & clear,
        }
        return {reason: int(frames.sum()) for reason, frames in reasons.items() if frames.any()}


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a dub is planned.

    Attributes:
        cut: The cut of the video that the clip is; its ``longer`` says how the picture continues
            if the speech outlasts it.
        silence: What a mouth does in silence.
        reference: Which pictures mouths are drawn from.
        finding: How faces are found.
        device: Device of the detector, a name that torch knows.
        whole_clip: Whether all frames of the clip are searched, also those after the end of the
            speech.
    """

    cut: Cut = Cut()
    silence: Silence = "generate"
    reference: Reference = "auto"
    finding: Finding = Finding()
    device: torch.device = torch.device("cpu")
    whole_clip: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Timeline:
    """The output's frames: those of ``order`` (T,), of the first ``length`` frames of ``clip``."""

    clip: Clip
    length: int
    order: Tensor


_SpeakingFace = tuple[FaceTrack, Tensor | None]
"""A track in frames of the clip, and (T,) in [0,1] the opacity of its new mouth, None for 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Speakers:
    """Who speaks.

    Attributes:
        faces: The face of each audio: a track, or a choice among the faces found.
        turns: Who speaks the one audio when, in place of ``faces``; None for always.
    """

    faces: Sequence[FaceSelector | FaceTrack]
    turns: Turns | None = None


def parse_speakers(
    audio: Speech | Sequence[tuple[Speech, str | FaceTrack]], select: str
) -> tuple[list[Path | Audio], list[FaceSelector | FaceTrack]]:
    """Separate the (audio, face) pairs of a dub.

    Args:
        audio: One audio, spoken by the face that ``select`` names, or pairs.
        select: Largest, left, right, an index, or x,y.

    Returns:
        The audio of each speaker, and the face of each.

    Raises:
        ValueError: There is no pair, or a face cannot be parsed.
    """
    pairs = [(audio, select)] if isinstance(audio, (str, Path, Audio)) else list(audio or ())
    if not pairs:
        raise ValueError(
            "no audio; expected a file, audio in memory, or at least one (audio, face)"
        )
    sources = [source if isinstance(source, Audio) else Path(source) for source, _ in pairs]
    faces = [face if isinstance(face, FaceTrack) else parse_face(face) for _, face in pairs]
    return sources, faces


def read_speaker_turns(
    speakers: Path | str | None,
    sources: int,
    face: Path,
    *,
    who: Mapping[str, str] | None = None,
    cached: bool,
) -> Turns | None:
    """Read who speaks when.

    Args:
        speakers: A table of turns, subtitles with names, a diarization, "auto", or None.
        sources: Number of audio inputs, which must be 1 for turns.
        face: The face video or photo.
        who: The face of each name in subtitles or a diarization.
        cached: Whether the caller keeps what the generator draws, by pairs of audio and face.

    Returns:
        The rows of the table, "auto", or None if the caller pairs audio with faces.

    Raises:
        ValueError: Turns do not go with the other inputs, or the table does not exist.
        LipSyncError: The table cannot be read.
    """
    if who and (speakers is None or Path(speakers).suffix.lower() not in SUBTITLES):
        raise ValueError(
            f"who names faces, and speakers is {speakers}; expected a file with names "
            f"({', '.join(SUBTITLES)})"
        )
    if speakers is None:
        return None
    if sources > 1:
        raise ValueError(
            f"got {sources} audio files and speakers; give one audio file that they share, or "
            "pairs of audio and face without speakers"
        )
    if cached:
        raise ValueError("drawings are kept for pairs of audio and face; give none with speakers")
    if speakers != "auto":
        return tuple(read_any_turns(Path(speakers), who))
    if probe(face).still:
        raise ValueError(
            f"{face} is a photo, whose speakers cannot be detected; give a table of turns"
        )
    return "auto"


def plan_dub(
    clip: Clip,
    audio: AudioInputs,
    speakers: Speakers,
    model: LipSync,
    options: PlanOptions,
    *,
    people: People | None = None,
    log: RunLog,
) -> DubPlan:
    """Decide everything about a dub that can be decided before frames are drawn.

    Args:
        clip: The source pictures.
        audio: Speech for the model, and the output's sound.
        speakers: Who speaks each audio, or the one audio when.
        model: The model that the plan is rendered with.
        options: How it is planned.
        people: Faces found before; None to search for them.
        log: Takes warnings, progress and the time of every stage.

    Returns:
        The plan.

    Raises:
        NoFaceError: No frame shows a face that was chosen.
        ValueError: A choice is not possible.
    """
    count = audio.count_frames(clip.fps)
    found, searched = people or _find_people(clip, options, count, log)
    length = searched if options.whole_clip else min(searched, count)
    count = count_output_frames(clip, length, audio, options.cut.longer)
    timeline = _Timeline(clip, length, frame_order(length, count, options.cut.longer))
    if speakers.turns is None:
        faces = [
            (face if isinstance(face, FaceTrack) else select(found, face), None)
            for face in speakers.faces
        ]
        names = [
            f"face {i}" if isinstance(face, FaceTrack) else str(face)
            for i, face in enumerate(speakers.faces)
        ]
        for sentence in shared_faces([track for track, _ in faces], names, clip.fps):
            log.warn(sentence)
    else:
        with log.clock("find turns"):
            faces = _assign_turns(
                speakers.turns, found, timeline, audio.sources[0], options=options, log=log
            )
    faces = _check_tracks(faces, model, log)
    if audio.picture_seconds:
        faces = _end_with_speech(faces, audio, clip.fps, count)
    planner = _FacePlanner(timeline, model, options, log)
    speech = audio.speech_per_face(len(faces))
    dubs: list[FaceDub] = []
    for face, heard in zip(faces, speech, strict=True):
        if planner.reference == "auto":
            log.progress("find references", len(dubs), len(faces))
        dubs.append(planner.plan(face, heard))
    if planner.reference == "auto":
        log.progress("find references", len(faces), len(faces))
    return DubPlan(clip, timeline.order, tuple(dubs), audio.output, len(found))


def _end_with_speech(
    faces: Sequence[_SpeakingFace], audio: AudioInputs, fps: Fraction, count: int
) -> list[_SpeakingFace]:
    """Return ``faces`` with new mouths that fade out where their speech ends."""
    ended: list[_SpeakingFace] = []
    for (track, turns), speech in zip(faces, audio.speech_per_face(len(faces)), strict=True):
        seconds = speech.samples.shape[1] / speech.rate
        curve = activity_curve(torch.tensor([[0.0, seconds]]).double(), fps=fps, count=count)
        ended.append((track, curve if turns is None else curve * turns))
    return ended


def _check_tracks(
    faces: Sequence[_SpeakingFace], model: LipSync, log: RunLog
) -> list[_SpeakingFace]:
    """Return ``faces`` in the layout that the model needs; warn of what will be seen in a dub."""
    moves_lips, warnings = isinstance(model.model, LipWarp), list[str | None]()
    if moves_lips:
        warnings.append(unusable_landmarks_warning([track for track, _ in faces]))
        faces = [(to_own_layout(track), turns) for track, turns in faces]
    tracks = [track for track, _ in faces]
    if moves_lips or model.blend.mask != "box":
        warnings.append(low_confidence_warning(tracks, passed=moves_lips))
    for warning in (*warnings, overlay_note(tracks), small_mouth_warning(tracks)):
        if warning:
            log.warn(warning)
    return list(faces)


def plan_preview(clip: Clip, tracks: Sequence[FaceTrack], length: int, model: LipSync) -> DubPlan:
    """Plan a silent dub, whose masks can be drawn before there is any speech.

    Args:
        clip: The source pictures.
        tracks: The faces that would speak.
        length: Number of the clip's frames that were searched.
        model: The model that would draw.

    Returns:
        A plan whose output frames are those of the clip.
    """
    order, compares = torch.arange(length), model.blend.occlusion == "compare"
    silence = Audio(torch.zeros(1, 1), model.config.features.rate)
    faces = [
        FaceDub(
            silence,
            reorder_track(track, length, order),
            unoccluded=find_unoccluded(clip, track, length=length) if compares else None,
        )
        for track in tracks
    ]
    return DubPlan(clip, order, tuple(faces), AudioSource(silence), len(tracks))


def count_output_frames(clip: Clip, length: int, audio: AudioInputs, longer: Longer) -> int:
    """Count the frames of an output.

    Args:
        clip: The source pictures.
        length: Number of the clip's frames that can be shown.
        audio: The speech.
        longer: How the picture continues if the speech outlasts it.

    Returns:
        As many as the longest speech takes, or the picture if it goes on after that; no more than
        ``length`` if a video is trimmed, or if its own sound lasts hardly longer, which Matroska,
        MPEG-TS and AVI do not tell from padding.
    """
    count = audio.count_frames(clip.fps)
    if audio.picture_seconds and not clip.still:
        count = max(length, max(frame_count(speech, clip.fps) for speech in audio.speech))
    trims = longer == "trim" or not audio.outlasts(length, clip.fps)
    return min(count, length) if trims and not clip.still else count


def _find_people(clip: Clip, options: PlanOptions, count: int, log: RunLog) -> People:
    """The people in the frames that ``count`` output frames show, or in all frames."""
    if options.whole_clip and clip.length is not None:
        count = clip.length
    log.progress("find faces", 0, count)
    with log.clock("find faces"):
        return find_people(
            clip,
            options.finding,
            options.device,
            stop=count,
            on_found=lambda done: log.progress("find faces", done, count),
        )


def _assign_turns(
    turns: Turns,
    found: Sequence[FaceTrack],
    timeline: _Timeline,
    source: Path | Audio,
    *,
    options: PlanOptions,
    log: RunLog,
) -> list[_SpeakingFace]:
    """The faces that speak by turns, each with the opacity of its mouth."""
    clip, length, order = timeline.clip, timeline.length, timeline.order
    if turns == "auto":
        if clip.path is None:
            raise ValueError("images have no sound that tells who speaks; give a table of turns")
        cut, device = options.cut, options.device
        detected = detect_source_turns(clip, cut, source, found, length, device=device, log=log)
        in_clip = turn_opacity(detected, clip.fps, length)
        opacity = {track: curve[order] for track, curve in in_clip.items()}
    else:
        rows = match_rows(turns, found, clip.fps, log.warn, length=length, index=order)
        opacity = turn_opacity(rows, clip.fps, len(order))
    faces = speaking_faces(opacity, found, length=length, index=order)
    if not any(
        bool((reorder_track(face, length, order).visible & (seen > 0)).any())
        for face, seen in faces
    ):
        advice = "give a table of turns, or --face" if turns == "auto" else "correct the table"
        raise NoFaceError(
            f"{clip.path}: none of {len(found)} faces has a turn that is in the picture; {advice}"
        )
    return list(faces)


class _FacePlanner:
    """Plans one speaking face after the other."""

    def __init__(
        self, timeline: _Timeline, model: LipSync, options: PlanOptions, log: RunLog
    ) -> None:
        self._timeline = timeline
        self._model = model
        self._options = options
        self._log = log
        self.reference: Reference = choose_reference(
            options.reference, options.silence, model.model
        )
        self._lip_shapes: dict[int, Tensor] = {}  # by the identity of the speech

    def plan(self, face: _SpeakingFace, speech: Audio) -> FaceDub:
        """Decide what one face is drawn from, and how much of it is visible when."""
        (track, turns), options = face, self._options
        clip, length, order = self._timeline.clip, self._timeline.length, self._timeline.order
        with self._log.clock("find references"):
            references = self._find_references(track, speech)
        activity = (
            None
            if options.silence == "generate"
            else voice_activity(speech, fps=clip.fps, count=len(order))
        )
        opacity, speech_weight = opacity_and_activity(options.silence, turns, activity)
        unoccluded = None
        if self._model.blend.occlusion == "compare":
            unoccluded = find_unoccluded(clip, track, length=length)
        dub = FaceDub(
            speech,
            reorder_track(track, length, order),
            opacity=opacity,
            speech_weight=speech_weight,
            references=references,
            unoccluded=unoccluded,
        )
        return self._suit_lips(dub) if isinstance(self._model.model, LipWarp) else dub

    def _find_references(self, track: FaceTrack, speech: Audio) -> References | None:
        clip, length, order = self._timeline.clip, self._timeline.length, self._timeline.order
        if self.reference == "auto":
            lips = self._lip_range(track, speech)
            shapes = scale_shape(self._shapes(speech), lips)
            return match_references(clip, track, shapes, lips.spread, length=length, index=order)
        return find_references(
            clip,
            track,
            self.reference,
            length=length,
            index=order,
            on_found=lambda done: self._log.progress("find references", done, length),
        )

    def _suit_lips(self, dub: FaceDub) -> FaceDub:
        """``dub`` with the person's own lip range, invisible in frames with unsure landmarks."""
        sure, opacity = confidence_weights(dub.track), dub.opacity
        if sure is not None:
            opacity = sure if opacity is None else opacity[: len(sure)] * sure[: len(opacity)]
        return replace(dub, opacity=opacity, lip_range=self._lip_range(dub.track, dub.audio))

    def _lip_range(self, track: FaceTrack, speech: Audio) -> LipRange:
        """How the lips of the person of ``track`` move when they say ``speech``."""
        return raise_range(self._model.lip_range(track), self._shapes(speech))

    def _shapes(self, speech: Audio) -> Tensor:
        """(T,3) the lip shapes of ``speech``, computed once for all faces that speak it."""
        if id(speech) not in self._lip_shapes:
            fps, count = self._timeline.clip.fps, len(self._timeline.order)
            self._lip_shapes[id(speech)] = self._model.lip_shapes(speech, fps, count)
        return self._lip_shapes[id(speech)]


def choose_reference(reference: Reference, silence: Silence, model: TalkingFace) -> Reference:
    """Resolve which pictures mouths are drawn from.

    Args:
        reference: The caller's choice.
        silence: What a mouth does in silence.
        model: The generator.

    Returns:
        ``auto`` for a ``LipWarp`` alone, which also closes lips by itself; for other models the
        frame itself, or a closed mouth if mouths close in silence.
    """
    if isinstance(model, LipWarp):
        return reference
    if reference in ("auto", "current"):
        return "nearest-closed" if silence == "close" else "current"
    return reference


def overlay_note(tracks: Sequence[FaceTrack]) -> str | None:
    """Say that captions or logos over faces are kept; None without any."""
    count = sum(int(covered_frames(track).sum()) for track in tracks)
    if not count:
        return None
    return (
        f"a caption or logo lies over a face in {count} frames of the clip; it is kept as it is, "
        "and the mouth moves behind it"
    )


def small_mouth_warning(tracks: Sequence[FaceTrack]) -> str | None:
    """Warn of speaking faces whose mouths are too small to be seen moving; None without any."""
    widths = [
        float(
            (track.points[track.visible, 3] - track.points[track.visible, 4]).norm(dim=1).median()
        )
        for track in tracks
        if bool(track.visible.any())
    ]
    if not widths or min(widths) >= LEAST_MOUTH_PX:
        return None
    return (
        f"a mouth is only {min(widths):.0f} px wide, so that its movement will hardly be seen "
        f"(wanted {LEAST_MOUTH_PX} px or more): take a larger picture, or crop it to the person"
    )


def _has_clear_landmarks(track: FaceTrack) -> Tensor:
    """(T,) bool: frames in which the face is visible, and its landmarks are trusted if known."""
    scores = track.dense_scores
    return track.visible if scores is None else track.visible & (scores >= SURE)


def _shows_mouth(face: FaceDub) -> Tensor:
    """(T,) bool: output frames that show something of this face's new mouth."""
    return face.track.visible if face.opacity is None else face.track.visible & (face.opacity > 0)
