"""Find who speaks when, by a table or by active speaker detection, and assign faces to it."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..audio.vad import activity_curve
from ..errors import MediaError, NoFaceError
from ..faces.selection import first_appearance, join_tracks, select_each
from ..faces.selection import rows_by_scene as seats
from ..faces.selector import FaceSelector
from ..faces.tracking import track_window
from ..faces.turned_faces import TRIED
from ..media import probe_sound, track_used
from ..media.clip import Clip, open_clip
from ..metrics.active_speaker import Turn, find_speaker_turns
from ..metrics.sync_embedder import Scorer
from ..options import Cut
from ..runtime.intervals import merge_intervals
from ..runtime.paths import same_file
from ..runtime.prefetch import prefetch
from ..runtime.timecode import nearest_frame
from ..types import Audio, FaceTrack, Frames, ProgressCallback, YuvFrames
from .audio_inputs import part_of_source
from .run_log import RunLog
from .score import load_scorer, read_judged_audio
from .track_faces import Finding, find_people, reorder_track, select_device
from .turn_table import TurnRow

_log = logging.getLogger("lipsync.speakers")

_CHUNK = 32  # frames looked at together


@dataclass(frozen=True, slots=True, eq=False)
class SpeakersReport:
    """Who speaks when in a video.

    Attributes:
        video: The file.
        scorer: Name of the model that judged.
        faces: Number of tracks; a person counts once a scene.
        rows: The turns by time, which begins with the cut, as in a dub of it.
        warnings: Each warning once.
        audio_track: Which sound track was used, of a file with several.
    """

    video: Path
    scorer: str
    faces: int
    rows: tuple[TurnRow, ...]
    warnings: tuple[str, ...]
    audio_track: str | None = None

    def to_json(self) -> str:
        """JSON with scorer, faces, turns (start and end in seconds, face) and warnings.

        "audio_track" is there if the file has several.
        """
        turns = [
            {"start": float(row.start), "end": float(row.end), "face": str(row.face)}
            for row in self.rows
        ]
        values = {
            "scorer": self.scorer,
            "faces": self.faces,
            "turns": turns,
            "warnings": list(self.warnings),
        }
        if self.audio_track is not None:
            values["audio_track"] = self.audio_track
        return json.dumps(values)


def speakers(
    video: Path | str,
    audio: Path | str | Audio | None = None,
    *,
    scorer: str | Path | Scorer = "judge",
    cut: Cut = Cut(),
    finding: Finding = Finding(),
    device: str = "auto",
    on_progress: ProgressCallback | None = None,
) -> SpeakersReport:
    """Find who speaks when in a video; see ``find_speaker_turns``.

    Args:
        video: The file.
        audio: Speech that begins with the cut; None for the video's own sound.
        scorer: The model that judges, or its name or file.
        cut: The part of the video that is searched.
        finding: How faces are found.
        device: auto, or a device of torch.
        on_progress: Called with the stage, the frames done and their total.

    Returns:
        The turns.

    Raises:
        NoFaceError: The video shows no face.
        MediaError: A file cannot be read, or is a photo.
        WeightsError: Weights are missing or damaged.
        ValueError: An option is not possible.
    """
    video, log, target = Path(video), RunLog(_log, on_progress), select_device(device)
    clip = open_clip(video, cut, on_warning=log.warn)
    if clip.still:
        raise MediaError(f"{video}: a photograph does not move; expected a video")
    whole = clip.length or 0
    tracks, length = find_people(
        clip,
        replace(finding, dense=False),
        target,
        stop=sys.maxsize,
        on_found=lambda done: log.progress("find faces", done, max(done, whole)),
    )
    if not tracks:
        raise NoFaceError(
            f"{video}: no face in {length} frames (searched {TRIED}); lower --min-score (now "
            f"{finding.min_score})"
        )
    judge = load_scorer(scorer, target) if isinstance(scorer, (str, Path)) else scorer
    source = video if audio is None else audio if isinstance(audio, Audio) else Path(audio)
    turns = detect_turns(clip, cut, source, judge, tracks, length, log=log)
    return SpeakersReport(
        video,
        judge.name,
        len(tracks),
        describe_turns(turns, tracks, clip.fps),
        tuple(log.warn.messages),
        track_used(source, cut.audio_track) if isinstance(source, Path) else None,
    )


def detect_turns(
    clip: Clip,
    cut: Cut,
    audio: Path | Audio,
    judge: Scorer,
    tracks: Sequence[FaceTrack],
    length: int,
    *,
    log: RunLog,
) -> list[Turn]:
    """Detect the active speaker of a clip; see ``find_speaker_turns``.

    Args:
        clip: The video.
        cut: The cut that it is.
        audio: The speech; a file that is the video itself is cut with it.
        judge: The model that judges, at a frame rate of its own.
        tracks: The faces, in frames of the clip.
        length: Number of the clip's frames that were searched.
        log: Takes warnings and progress.

    Returns:
        Turns in frames of the clip.
    """
    assert clip.path is not None  # images have no sound of their own
    fps = clip.fps
    speech = read_judged_audio(part_of_source(audio, clip.path, cut), judge, log.warn)
    at_judge = open_clip(clip.path, replace(cut, fps=judge.fps), on_warning=log.warn)
    count = max(1, nearest_frame(length / fps, judge.fps))
    index = torch.tensor([min(nearest_frame(i / judge.fps, fps), length - 1) for i in range(count)])
    judged_tracks = [reorder_track(track, length, index) for track in tracks]
    with closing(prefetch(at_judge.frames(torch.arange(count), chunk=_CHUNK))) as pieces:

        def watched() -> Iterator[Frames | YuvFrames]:
            for piece in pieces:
                yield piece
                log.progress("listen", piece.start + piece.pixels.shape[0], count)

        found = find_speaker_turns(watched(), speech, judge, tracks=judged_tracks)
    ends = [
        (turn.track, *(nearest_frame(i / judge.fps, fps) for i in (turn.first, turn.stop)))
        for turn in found
    ]
    return [
        Turn(track, first, min(stop, length))
        for track, first, stop in ends
        if first < min(stop, length)
    ]


def detect_source_turns(
    clip: Clip,
    cut: Cut,
    speech: Path | Audio,
    tracks: Sequence[FaceTrack],
    length: int,
    *,
    device: torch.device,
    log: RunLog,
) -> list[Turn]:
    """Detect the active speaker by the video's own sound, as translated speech keeps its turns.

    Args:
        clip: The video.
        cut: The cut that it is.
        speech: Used in place of the video's sound if it has none.
        tracks: The faces, in frames of the clip.
        length: Number of the clip's frames that were searched.
        device: Where the judge runs.
        log: Takes warnings and progress.

    Returns:
        Turns in frames of the clip.

    Raises:
        NoFaceError: There is no track.
    """
    assert clip.path is not None  # images have no sound of their own
    select_each(tracks, FaceSelector())  # raises NoFaceError
    try:
        probe_sound(clip.path)
        audio: Path | Audio = clip.path
    except MediaError:
        audio = speech
    if not same_file(audio, speech):  # the option is about the speech
        cut = replace(cut, audio_track=None)
    judge = load_scorer("judge", device)
    return detect_turns(clip, cut, audio, judge, tracks, length, log=log)


def describe_turns(
    turns: Sequence[Turn], tracks: Sequence[FaceTrack], fps: Fraction
) -> tuple[TurnRow, ...]:
    """Describe turns as rows of a table.

    Args:
        turns: Turns, in frames.
        tracks: The tracks that they number.
        fps: Frames per second.

    Returns:
        One row per turn. A face is named by the place where it first appears, or by its index in
        the scene if that place would select another person.
    """
    return tuple(
        TurnRow(turn.first / fps, turn.stop / fps, _name(tracks[turn.track], tracks))
        for turn in turns
    )


def _name(person: FaceTrack, tracks: Sequence[FaceTrack]) -> FaceSelector:
    x, y = (max(0, round(v)) for v in first_appearance(person)[1])
    place = FaceSelector("point", point=(x, y))
    (scene,) = (people for people in seats(tracks) if any(one is person for one in people))
    if select_each(scene, place)[0] is person:
        return place
    return FaceSelector("index", index=next(i for i, one in enumerate(scene) if one is person))


def match_rows(
    rows: Sequence[TurnRow],
    tracks: Sequence[FaceTrack],
    fps: Fraction,
    warn: Callable[[str], None],
    *,
    length: int,
    index: Tensor,
) -> list[Turn]:
    """Find the tracks that rows of a table mean.

    Args:
        rows: Rows of a table, in the time of the output.
        tracks: All tracks, in frames of the clip.
        fps: Frames per second.
        warn: Called for each row that is left out, because it shows none of its faces.
        length: Number of the clip's frames that were searched.
        index: (T,) number of the clip's frame that each output frame shows.

    Returns:
        Turns in output frames, one for every track that a row names and that is visible in it.

    Raises:
        NoFaceError: No scene has the face.
        ValueError: Two rows of different names are the same face at the same time.
    """
    visible = [_visible(track, length, index) for track in tracks]
    spoken: list[tuple[TurnRow, Turn]] = []
    for row in rows:
        first, stop = nearest_frame(row.start, fps), nearest_frame(row.end, fps)
        turn = f"the turn of {row.face} from {float(row.start):g} to {float(row.end):g} s"
        if stop <= first:
            warn(f"{turn} is shorter than a frame, and left out")
            continue
        if first >= len(index):
            warn(f"{turn} begins after the end, at {float(len(index) / fps):g} s, and is left out")
            continue
        chosen = {id(track) for track in select_each(tracks, row.face)}
        # only tracks visible within the row: its fade-out may reach into the next shot
        here = [
            i
            for i, track in enumerate(tracks)
            if id(track) in chosen and bool(visible[i][first:stop].any())
        ]
        if not here:
            warn(f"{turn} is left out: that face is not in the picture then")
        for i in here:
            now = Turn(i, first, stop)
            _refuse_overlap(row, now, spoken, visible[i])
            spoken.append((row, now))
    return [turn for _, turn in spoken]


def _refuse_overlap(
    row: TurnRow, now: Turn, spoken: Sequence[tuple[TurnRow, Turn]], visible: Tensor
) -> None:
    """Raise ValueError if another name has a turn of the same face at the same time."""
    for other, turn in spoken:
        first, stop = max(now.first, turn.first), min(now.stop, turn.stop)
        if turn.track == now.track and other.face != row.face and visible[first:stop].any():
            raise ValueError(
                f"{other.face} and {row.face} choose the same face, and both have a turn from "
                f"{float(max(row.start, other.start)):g} s on; name another face in one of the rows"
            )


def turn_opacity(turns: Sequence[Turn], fps: Fraction, count: int) -> dict[int, Tensor]:
    """Fade the mouths of speakers in and out by their turns.

    Args:
        turns: Turns, in frames.
        fps: Frames per second.
        count: Number of frames of the clip or output in which the turns count.

    Returns:
        (count,) opacity in [0,1] by the number of each track that has a turn.
    """
    opacity: dict[int, Tensor] = {}
    for track in sorted({turn.track for turn in turns}):
        spans = merge_intervals([(turn.first, turn.stop) for turn in turns if turn.track == track])
        seconds = torch.tensor(spans).double() * fps.denominator / fps.numerator
        opacity[track] = activity_curve(seconds, fps=fps, count=count)
    return opacity


def speaking_faces(
    opacity: Mapping[int, Tensor], tracks: Sequence[FaceTrack], *, length: int, index: Tensor
) -> list[tuple[FaceTrack, Tensor]]:
    """Join the tracks that speak into faces: people who never meet share one.

    Args:
        opacity: (T,) in [0,1] for each output frame, by the number of a track that speaks.
        tracks: All tracks, in frames of the clip.
        length: Number of the clip's frames that were searched.
        index: (T,) number of the clip's frame that each output frame shows.

    Returns:
        Faces in frames of the clip, each with the (T,) opacity of its new mouth.
    """
    faces: list[tuple[FaceTrack, Tensor]] = []
    for lane in _assign_lanes(sorted(opacity, key=lambda i: tracks[i].start), tracks):
        shown = torch.zeros(len(index))
        for i in lane:
            shown = torch.maximum(shown, opacity[i] * _visible(tracks[i], length, index))
        faces.append((join_tracks([tracks[i] for i in lane]), shown))
    return faces


def _visible(track: FaceTrack, length: int, index: Tensor) -> Tensor:
    """(T,) bool: output frames that show the track; ``index`` is as in ``speaking_faces``."""
    return track_window(track, 0, length).visible[index]


def _assign_lanes(chosen: Sequence[int], tracks: Sequence[FaceTrack]) -> list[list[int]]:
    """Divide ``chosen``, sorted by start, into as few lanes of tracks that never overlap."""
    lanes: list[list[int]] = []
    for i in chosen:
        free = [
            lane
            for lane in lanes
            if tracks[lane[-1]].start + len(tracks[lane[-1]].visible) <= tracks[i].start
        ]
        if free:
            free[0].append(i)
        else:
            lanes.append([i])
    return lanes
