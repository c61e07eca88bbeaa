"""Who speaks when, in a table or by the judge; and what of each face is redrawn for it."""

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from ..audio.vad import curve
from ..errors import MediaError, NoFaceError
from ..faces.selection import FaceSelector, first_seen, joined, select_each
from ..faces.selection import rows as seats
from ..faces.tracking import window
from ..media import probe_sound
from ..media.clip import Cut, open_clip
from ..metrics.active_speaker import Turn, who_speaks
from ..metrics.sync_embedder import Scorer
from ..runtime.intervals import merge_intervals
from ..runtime.prefetch import ahead
from ..runtime.timecode import nearest_frame
from ..runtime.warnings import Warnings
from ..types import Audio, FaceTrack, ProgressCallback
from .score import judged_sound, load_scorer
from .track_faces import Finding, find_people, reorder_track, select_device
from .turn_table import TurnRow

_log = logging.getLogger("lipsync.speakers")

_CHUNK = 32  # frames looked at together


@dataclass(frozen=True, slots=True, eq=False)
class SpeakersReport:
    """Who speaks when in ``video``, whose tracks number ``faces`` (a person counts once a scene):
    ``rows`` in the order of time, which begins with the cut, as in a dub of it. ``scorer``: who
    judged."""

    video: Path
    scorer: str
    faces: int
    rows: tuple[TurnRow, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """{"scorer", "faces", "turns": [{"start", "end", "face"}], "warnings"}; times in seconds."""
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
    """Who of the people in the ``cut`` of ``video`` speaks when, by its own sound or by ``audio``,
    which begins with the cut; see ``who_speaks``. Raises NoFaceError, MediaError, WeightsError,
    ValueError."""
    video, warn, target, say = (
        Path(video),
        Warnings(_log),
        select_device(device),
        on_progress or (lambda *_: None),
    )
    footage = open_clip(video, cut, on_warning=warn)
    if footage.still:
        raise MediaError(f"{video}: a photograph does not move; wanted a video")
    whole = footage.length or 0
    tracks, length = find_people(
        footage,
        replace(finding, dense=False),
        target,
        stop=sys.maxsize,
        on_found=lambda done: say("find faces", done, max(done, whole)),
    )
    if not length:
        raise MediaError(
            f"{video}: holds no frame from {float(cut.start):g} s on; begin the cut earlier"
        )
    if not tracks:
        raise NoFaceError(
            f"{video}: no face in {length} frames; lower --min-score (now {finding.min_score})"
        )
    judge = load_scorer(scorer, target) if isinstance(scorer, (str, Path)) else scorer
    sound = video if audio is None else audio if isinstance(audio, Audio) else Path(audio)
    turns = detect_turns(
        video, sound, judge, tracks, length, fps=footage.fps, cut=cut, warn=warn, on_progress=say
    )
    return SpeakersReport(
        video,
        judge.name,
        len(tracks),
        describe_turns(turns, tracks, footage.fps),
        tuple(warn.messages),
    )


def detect_turns(
    video: Path,
    sound: Path | Audio,
    judge: Scorer,
    tracks: Sequence[FaceTrack],
    length: int,
    *,
    fps: Fraction,
    cut: Cut = Cut(),
    warn: Callable[[str], None] | None = None,
    on_progress: ProgressCallback | None = None,
) -> list[Turn]:
    """``who_speaks`` of ``tracks``, which were found in ``length`` frames of the ``cut`` of
    ``video`` at ``fps``; so count its turns. A sound that is the video itself is cut with it."""
    say, warn = on_progress or (lambda *_: None), warn or _log.warning
    span = (cut.start, cut.end) if sound == video else (Fraction(0), None)
    heard = judged_sound(sound, span, judge, warn)
    footage = open_clip(video, replace(cut, fps=judge.fps), on_warning=warn)
    count = max(1, nearest_frame(length / fps, judge.fps))
    index = torch.tensor([min(nearest_frame(i / judge.fps, fps), length - 1) for i in range(count)])
    looked = [reorder_track(track, length, index) for track in tracks]
    with closing(ahead(footage.frames(torch.arange(count), chunk=_CHUNK))) as pieces:

        def told():
            for piece in pieces:
                yield piece
                say("listen", piece.start + piece.pixels.shape[0], count)

        found = who_speaks(told(), heard, judge, tracks=looked)
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
    video: Path,
    speech: Path | Audio,
    tracks: Sequence[FaceTrack],
    length: int,
    *,
    fps: Fraction,
    cut: Cut,
    device: torch.device,
    warn: Callable[[str], None],
    on_progress: ProgressCallback | None = None,
) -> list[Turn]:
    """The turns in the video's own sound, so that translated speech keeps them; in ``speech`` where
    it has none. NoFaceError where nobody is seen."""
    select_each(tracks, FaceSelector())  # says that there is nobody
    try:
        probe_sound(video)
        sound: Path | Audio = video
    except MediaError:
        sound = speech
    judge = load_scorer("judge", device)
    return detect_turns(
        video, sound, judge, tracks, length, fps=fps, cut=cut, warn=warn, on_progress=on_progress
    )


def describe_turns(
    turns: Sequence[Turn], tracks: Sequence[FaceTrack], fps: Fraction
) -> tuple[TurnRow, ...]:
    """The same in seconds, each face by its place where it first appears; by its INDEX in the scene
    where that place would mean somebody else."""
    return tuple(
        TurnRow(turn.first / fps, turn.stop / fps, _name(tracks[turn.track], tracks))
        for turn in turns
    )


def _name(person: FaceTrack, tracks: Sequence[FaceTrack]) -> FaceSelector:
    x, y = (max(0, round(v)) for v in first_seen(person)[1])
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
    """A turn for every track that a row names and that is seen within it, in an output that shows
    the source frames ``index`` (T,) of ``length``. Rows without one are left out with a warning.
    NoFaceError where no scene has the face."""
    seen = [_visible(track, length, index) for track in tracks]
    turns: list[Turn] = []
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
        # a scene later on the row's soft end would open somebody else's mouth
        here = [
            i
            for i, track in enumerate(tracks)
            if id(track) in chosen and bool(seen[i][first:stop].any())
        ]
        if not here:
            warn(f"{turn} is left out: that face is not in the picture then")
        turns += [Turn(i, first, stop) for i in here]
    return turns


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
        opacity[track] = curve(seconds, fps=fps, count=count)
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
        faces.append((joined([tracks[i] for i in lane]), shown))
    return faces


def _visible(track: FaceTrack, length: int, index: Tensor) -> Tensor:
    """(T,) bool: where the output that shows the source frames ``index`` (T,) of ``length`` has the
    face."""
    return window(track, 0, length).visible[index]


def _assign_lanes(chosen: Sequence[int], tracks: Sequence[FaceTrack]) -> list[list[int]]:
    """``chosen``, rising by start, in as few rows as hold nobody beside another at the same time."""
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
